// What comes before and after the products with A: dropout masks on x, and latents from p.

#include "dropout.cuh"
#include "latents.cuh"

KERNEL(ELEMENT_THREADS) mask(Mask args) {
    __shared__ u32 words[MASK_WORDS];
    u32 col = blockIdx.x * ELEMENT_THREADS + threadIdx.x;
    for (u32 row = blockIdx.y; row < args.rows.count; row += gridDim.y) {
        const Term *term = term_of(args.rows.term, args.terms, row, args.group, args.index);
        if (term == nullptr) {
            continue;
        }
        float factor = mask_of(args, *term, row, col, words);
        if (col < args.cols) {
            args.out[row * args.out_stride + col] = load(args.x, row, col) * factor;
        }
    }
}

// mu and logvar, bounded, of a latent.
struct Moments {
    float mu;
    float logvar;
};

// Of the thread's two latents. Where only mu or only logvar is wanted, the other is made of the same p, so that no
// more is read.
INLINE void find_moments(const Latent &args, const Work &work, Moments moments[2]) {
    const Term &term = *work.term;
    u64 mu_column = term.p_column, logvar_column = term.p_column + term.rank;
    if (args.kind == LATENT_VARIANCE) {
        mu_column = logvar_column;
    } else if (args.kind == LATENT_Z && term.mode == MODE_MEAN) {
        logvar_column = mu_column;
    }
    u32 latents[2] = {work.first, work.first + NOISE_HALF};
    latents[1] = latents[1] < term.rank ? latents[1] : latents[0];
    const u64 cols[4] = {mu_column + latents[0], mu_column + latents[1], logvar_column + latents[0],
                         logvar_column + latents[1]};
    float p[4];
    load_columns(args.p, work.row, cols, p);
#pragma unroll
    for (u32 half = 0; half < 2; half++) {
        moments[half].mu = term.lambda_d[latents[half]] * p[half];
        moments[half].logvar = bounded(term.lambda_d[term.rank + latents[half]] * p[2 + half], term.bound);
    }
}

// exp(factor · logvar); a fault where it is infinite.
INLINE float exponential(const Latent &args, const Work &work, u32 k, float factor, float logvar, FaultKind kind) {
    float value = exp_f32(factor * logvar);
    if (value == __uint_as_float(INFINITY_BITS)) {
        report(args.fault, kind, work.row, k, logvar);
    }
    return value;
}

INLINE float z_of(const Latent &args, const Work &work, u32 k, Moments moments, float eps) {
    if (args.kind == LATENT_VARIANCE) {
        return exponential(args, work, k, 1.0f, moments.logvar, FAULT_OVERFLOW_VARIANCE);
    }
    if (work.term->mode == MODE_MEAN) {
        return moments.mu;
    }
    float sigma = exponential(args, work, k, 0.5f, moments.logvar, FAULT_OVERFLOW_SIGMA);
    return work.term->mode == MODE_SAMPLE ? fmaf(eps, sigma, moments.mu) : sigma + moments.mu;
}

// Writes a latent where the caller wants it.
INLINE void put_latent(const Latent &args, const Work &work, u32 k, Moments moments, float eps) {
    const Term &term = *work.term;
    if (args.kind == LATENT_MOMENTS) {
        store(args.mu, work.row, term.latent_column + k, moments.mu);
        store(args.logvar, work.row, term.latent_column + k, moments.logvar);
        return;
    }
    u64 row = (u64)work.draw * args.rows.count + work.row;
    args.z[row * args.z_stride + term.z_column + k] = z_of(args, work, k, moments, eps);
}

KERNEL_ON(LATENT_THREADS, 6) latent(Latent args) {
    __shared__ u32 words[LATENT_WORDS];
    Work work = work_of(args, args.draws);
    bool takes_noise = args.kind == LATENT_Z && work.term != nullptr && work.term->mode == MODE_SAMPLE;
    Moments moments[2] = {};
    if (work.draws_words && takes_noise) {
        draw_words_of(args, work, words);
    }
    if (!work.draws_words && has_latent(work, work.first)) {
        find_moments(args, work, moments);
    }
    __syncthreads();
    if (work.draws_words) {
        return;
    }
    float eps[2] = {};
    if (takes_noise) {
        noise_of(args, work, words, eps);
    }
#pragma unroll
    for (u32 half = 0; half < 2; half++) {
        u32 k = work.first + half * NOISE_HALF;
        if (has_latent(work, k)) {
            put_latent(args, work, k, moments[half], eps[half]);
        }
    }
}
