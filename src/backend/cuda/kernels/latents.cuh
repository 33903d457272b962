// How threads share the latents of rows: eight have a block of 16, two latents each, and a thread of the last warp
// draws the block's words meanwhile.
#pragma once

#include "element.cuh"
#include "noise.cuh"
#include "rows.cuh"

#define PAIR_THREADS (LATENT_BLOCKS * NOISE_HALF)

// Words lie word by word, so that neither those who write nor those who read meet in a bank of shared memory.
#define WORDS_STRIDE 20u
#define LATENT_WORDS (NOISE_BLOCK * WORDS_STRIDE)

// What one thread does.
struct Work {
    const Term *term;  // null: nothing
    bool draws_words;
    u32 place;         // of its block among those of the thread block
    u32 row;           // of the call
    u32 draw;
    u32 block;         // of 16 latents
    u32 first;         // its latents are first and first + 8, where the term has them
};

// 32 bits suffice for a block's number: more blocks would fit no memory.
template <typename Args>
INLINE Work work_of(const Args &args, u32 draws) {
    Work work = {};
    work.draws_words = threadIdx.x >= PAIR_THREADS;
    work.place = work.draws_words ? threadIdx.x - PAIR_THREADS : threadIdx.x / NOISE_HALF;
    u32 blocks = (args.rank + NOISE_BLOCK - 1) / NOISE_BLOCK;
    u32 number = blockIdx.x * LATENT_BLOCKS + work.place;
    u32 row = number / blocks;
    if (work.place >= LATENT_BLOCKS || row >= args.rows.count * draws) {
        return work;
    }
    work.row = row % args.rows.count;
    work.draw = row / args.rows.count;
    work.block = number % blocks;
    work.first = work.block * NOISE_BLOCK + threadIdx.x % NOISE_HALF;
    work.term = term_of(args.rows.term, args.terms, work.row, args.group, args.index);
    return work;
}

INLINE bool has_latent(const Work &work, u32 k) {
    return work.term != nullptr && k < work.term->rank;
}

// The thread's two normals, from the words of its block. `flip` is xored into them: the sign bit or nothing.
INLINE void normals_of(const Work &work, const u32 *words, u32 flip, float eps[2]) {
    const u32 *own = words + threadIdx.x % NOISE_HALF * WORDS_STRIDE + work.place;
    box_muller(own[0], own[NOISE_HALF * WORDS_STRIDE], eps[0], eps[1]);
    eps[0] = __uint_as_float(__float_as_uint(eps[0]) ^ flip);
    eps[1] = __uint_as_float(__float_as_uint(eps[1]) ^ flip);
}

// Whether the thread's latents take noise drawn by key.
template <typename Args>
INLINE bool takes_words(const Args &args, const Work &work) {
    return work.term != nullptr && work.term->mode == MODE_SAMPLE && args.eps.data == 0;
}

template <typename Args>
INLINE u32 sample_of_draw(const Args &args, const Work &work) {
    return sample_of(args.rows, work.row) + work.draw;
}

// For threads of the last warp: the words of their block.
template <typename Args>
INLINE void draw_words_of(const Args &args, const Work &work, u32 *words) {
    if (!takes_words(args, work)) {
        return;
    }
    const Term &term = *work.term;
    u32 sample = sample_of_draw(args, work);
    NoiseKey key = {value_of(args.seed), term.layer_hash, term.adapter_identity, DOMAIN_EPS,
                    identity_of(args.rows, work.row), args.antithetic ? sample >> 1 : sample, work.block};
    draw_words(key, words + work.place, WORDS_STRIDE);
}

// The noise of the thread's two latents: the caller's or that of the words. Only for terms that sample.
template <typename Args>
INLINE void noise_of(const Args &args, const Work &work, const u32 *words, float eps[2]) {
    if (takes_words(args, work)) {
        u32 flip = args.antithetic ? sample_of_draw(args, work) << 31 : 0u;
        normals_of(work, words, flip, eps);
        return;
    }
    u64 row = (u64)work.draw * args.rows.count + work.row;
#pragma unroll
    for (u32 half = 0; half < 2; half++) {
        u32 k = work.first + half * NOISE_HALF;
        if (has_latent(work, k)) {
            eps[half] = load(args.eps, row, work.term->latent_column + k);
        }
    }
}

// min(logvar, bound), with NaN passed on.
INLINE float bounded(float logvar, float bound) {
    return logvar > bound ? bound : logvar;
}
