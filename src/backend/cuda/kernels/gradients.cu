// The way back: from dy to the latents' gradients, the KL divergence, sums over rows, and what reaches the caller's
// matrices.

#include "dropout.cuh"
#include "latents.cuh"

// Rows whose loads are under way together.
#define SUM_TOGETHER 8u

KERNEL(ELEMENT_THREADS) weigh(Weigh args) {
    u32 col = blockIdx.x * blockDim.x + threadIdx.x;
    if (col >= args.cols) {
        return;
    }
    for (u32 row = blockIdx.y; row < args.rows.count; row += gridDim.y) {
        const Term *term = term_of(args.rows.term, args.terms, row, args.group, args.index);
        if (term != nullptr) {
            args.out[row * args.out_stride + col] = load(args.dy, row, col) * (term->scale * term->lambda_b[col]);
        }
    }
}

// λ_d · p of a latent: mu and the logvar before its bound.
struct Latents {
    float mu;
    float logvar;
};

INLINE Latents latents_of(const Matrix &p, const Term &term, u32 row, u32 k) {
    float mu = term.lambda_d[k] * load(p, row, term.p_column + k);
    float logvar = term.lambda_d[term.rank + k] * load(p, row, term.p_column + term.rank + k);
    return {mu, logvar};
}

// The derivative of the loss by one latent's mu and logvar.
struct Slope {
    float dmu;
    float dlogvar;
};

// By the loss alone.
INLINE Slope loss_slope(const Term &term, float logvar, float g, float eps) {
    if (term.mode == MODE_MEAN) {
        return {g, 0.0f};
    }
    float weighted = term.mode == MODE_SAMPLE ? g * eps : g;
    return {g, weighted * (0.5f * exp_f32(0.5f * logvar))};
}

INLINE Slope add_divergence(const Slopes &args, const Work &work, u32 k, float mu, float logvar, Slope slope) {
    if (args.has_kl == 0) {
        return slope;
    }
    float variance = exp_f32(logvar);
    if (variance == __uint_as_float(INFINITY_BITS)) {
        report(args.fault, FAULT_OVERFLOW_VARIANCE, work.row, k, logvar);
    }
    float dlogvar = fmaf(0.5f * args.kl_each, variance - 1.0f, slope.dlogvar);
    return {fmaf(args.kl_each, mu, slope.dmu), dlogvar};
}

INLINE Slope add_prior(const Slopes &args, const Work &work, u32 k, Slope slope) {
    u64 column = (u64)work.term->latent_column + k;
    if (args.prior_dmu.data != 0) {
        slope.dmu += load(args.prior_dmu, work.row, column);
    }
    if (args.prior_dlogvar.data != 0) {
        slope.dlogvar += load(args.prior_dlogvar, work.row, column);
    }
    return slope;
}

// Leaves the slope for the sums over rows, and adds it to dp.
INLINE void put_slope(const Slopes &args, const Work &work, u32 k, Slope slope) {
    const Term &term = *work.term;
    float *dm = args.dm + work.row * args.dm_stride + 2 * (u64)(term.latent_column - args.first_latent);
    dm[k] = slope.dmu;
    dm[term.rank + k] = slope.dlogvar;
    float *dp = args.dp + work.row * args.dp_stride + term.p_column;
    dp[k] = fmaf(term.lambda_d[k], slope.dmu, dp[k]);
    dp[term.rank + k] = fmaf(term.lambda_d[term.rank + k], slope.dlogvar, dp[term.rank + k]);
}

INLINE void slopes_of(const Slopes &args, const Work &work, u32 k, float g, float eps) {
    const Term &term = *work.term;
    Latents latents = latents_of(args.p, term, work.row, k);
    float logvar = bounded(latents.logvar, term.bound);
    Slope slope = loss_slope(term, logvar, g, eps);
    slope = add_divergence(args, work, k, latents.mu, logvar, slope);
    slope = add_prior(args, work, k, slope);
    if (latents.logvar > term.bound) {
        slope.dlogvar = 0.0f;
    }
    put_slope(args, work, k, slope);
}

KERNEL(LATENT_THREADS) slopes(Slopes args) {
    __shared__ u32 words[LATENT_WORDS];
    Work work = work_of(args, 1);
    if (work.draws_words) {
        draw_words_of(args, work, words);
    }
    __syncthreads();
    if (work.draws_words || !has_latent(work, work.first)) {
        return;
    }
    u64 second = work.first + NOISE_HALF;
    const u64 latents[2] = {work.first, second < work.term->rank ? second : work.first};
    float g[2];
    load_columns(args.g, work.row, latents, g);
    float eps[2] = {};
    if (work.term->mode == MODE_SAMPLE) {
        noise_of(args, work, words, eps);
    }
#pragma unroll
    for (u32 half = 0; half < 2; half++) {
        u32 k = work.first + half * NOISE_HALF;
        if (has_latent(work, k)) {
            slopes_of(args, work, k, g[half], eps[half]);
        }
    }
}

// Goes on with a sum by the values of a block's threads, in their order, which is the contract's: thread 0 has the result.
// Zeros of threads to spare change no bit: a sum that began at 0 is never −0.
INLINE double add_in_order(double sum, double value) {
    __shared__ double values[DIVERGENCE_THREADS];
    values[threadIdx.x] = value;
    __syncthreads();
    if (threadIdx.x == 0) {
#pragma unroll 8
        for (u32 place = 0; place < DIVERGENCE_THREADS; place++) {
            sum += values[place];
        }
    }
    __syncthreads();
    return sum;
}

// What a latent adds to the divergence of its row.
INLINE double divergence_of(const Divergence &args, const Term &term, u32 row, u32 k) {
    Latents latents = latents_of(args.p, term, row, k);
    float bounded_logvar = bounded(latents.logvar, term.bound);
    double mu = latents.mu, logvar = bounded_logvar, variance = exp_f32(bounded_logvar);
    return -0.5 * (1.0 + logvar - mu * mu - variance);
}

KERNEL(DIVERGENCE_THREADS) divergence(Divergence args) {
    u32 row = blockIdx.x;
    const Term *term = term_of(args.rows.term, args.terms, row, args.group, args.index);
    if (term == nullptr) {
        return;
    }
    double sum = 0.0;
    for (u32 begin = 0; begin < term->rank; begin += DIVERGENCE_THREADS) {
        u32 k = begin + threadIdx.x;
        sum = add_in_order(sum, k < term->rank ? divergence_of(args, *term, row, k) : 0.0);
    }
    if (threadIdx.x == 0) {
        args.kl[row] += sum;
    }
}

KERNEL(DIVERGENCE_THREADS) kl_total(KlTotal args) {
    double sum = 0.0;
    for (u32 begin = 0; begin < args.rows; begin += DIVERGENCE_THREADS) {
        u32 row = begin + threadIdx.x;
        sum = add_in_order(sum, row < args.rows ? args.kl[row] : 0.0);
    }
    if (threadIdx.x == 0) {
        *args.out = sum / args.divisor;
    }
}

// The chain of some rows from `begin` on, continued.
INLINE float add_rows(const Sums &args, u32 begin, u32 col, float chain) {
    bool takes[SUM_TOGETHER];
    u32 left[SUM_TOGETHER], right[SUM_TOGETHER];
#pragma unroll
    for (u32 place = 0; place < SUM_TOGETHER; place++) {
        u32 row = begin + place;
        takes[place] = row < args.rows && (args.term == nullptr || args.term[row] == (i32)args.index);
        left[place] = takes[place] ? load_bits(args.left, row, col) : 0;
        right[place] = takes[place] && args.right.data != 0 ? load_bits(args.right, row, col) : 0;
    }
#pragma unroll
    for (u32 place = 0; place < SUM_TOGETHER; place++) {
        float factor = args.right.data != 0 ? widened(args.right.dtype, right[place]) : 1.0f;
        float scaled = args.scale * widened(args.left.dtype, left[place]);
        chain = takes[place] ? fmaf(scaled, factor, chain) : chain;
    }
    return chain;
}

KERNEL_ON(SUM_COLS, 8) sums(Sums args) {
    u32 col = blockIdx.x * SUM_COLS + threadIdx.x;
    if (col >= args.cols) {
        return;
    }
    u32 parts = (args.rows + SUM_ROWS - 1) / SUM_ROWS;
    for (u32 part = blockIdx.y; part < parts; part += gridDim.y) {
        float chain = 0.0f;
#pragma unroll 1
        for (u32 row = part * SUM_ROWS; row < (part + 1) * SUM_ROWS; row += SUM_TOGETHER) {
            chain = add_rows(args, row, col, chain);
        }
        args.out[part * args.part_stride + col] = chain;
    }
}

KERNEL(ELEMENT_THREADS) deliver(Deliver args) {
    u32 col = blockIdx.x * blockDim.x + threadIdx.x;
    if (col >= args.cols) {
        return;
    }
    float sum = 0.0f;
    for (u32 part = 0; part < args.parts; part++) {
        sum += args.from[part * args.part_stride + col];
    }
    args.to[col] = args.overwrite ? sum : args.to[col] + sum;
}

KERNEL(ELEMENT_THREADS) accumulate(Accumulate args) {
    __shared__ u32 words[MASK_WORDS];
    u32 col = blockIdx.x * ELEMENT_THREADS + threadIdx.x;
    for (u32 row = blockIdx.y; row < args.rows.count; row += gridDim.y) {
        const Term *term = nullptr;
        if (args.add.data != nullptr) {
            term = term_of(args.rows.term, args.terms, row, args.group, args.index);
        }
        float factor = term != nullptr && args.masked ? mask_of(args, *term, row, col, words) : 1.0f;
        if (col >= args.cols) {
            continue;
        }
        float sum = args.from.data == 0 ? 0.0f : load(args.from, row, col);
        if (term != nullptr) {
            float added = load(args.add, row, col);
            sum += args.masked ? added * factor : added;
        }
        store(args.to, row, col, sum);
    }
}
