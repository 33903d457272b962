// Noise by key: src/noise, with the same bits. A block of ChaCha8 has the 16 words of 16 latents or input columns.
#pragma once

#include "math.cuh"

#define NOISE_VERSION 1ull
#define NOISE_BLOCK 16u
#define NOISE_HALF 8u

// What a stream of words is for.
enum Domain : u32 { DOMAIN_EPS = 1, DOMAIN_DROPOUT = 2 };

// Which block of 16 words.
struct NoiseKey {
    u64 seed;
    u64 layer_hash;
    u64 adapter_identity;
    Domain domain;
    u64 row_identity;
    u32 sample;
    u32 block;
};

INLINE u32 rotate_left(u32 word, u32 bits) {
    return (word << bits) | (word >> (32u - bits));
}

INLINE void quarter_round(u32 &a, u32 &b, u32 &c, u32 &d) {
    a += b;
    d = rotate_left(d ^ a, 16);
    c += d;
    b = rotate_left(b ^ c, 12);
    a += b;
    d = rotate_left(d ^ a, 8);
    c += d;
    b = rotate_left(b ^ c, 7);
}

INLINE void put_halves(u32 *words, u64 value) {
    words[0] = (u32)value;
    words[1] = (u32)(value >> 32);
}

// The words of a block: to[0], to[stride], …
INLINE void draw_words(const NoiseKey &key, u32 *to, u32 stride) {
    // "expand 32-byte k", Bernstein's constant.
    u32 start[NOISE_BLOCK] = {0x61707865u, 0x3320646eu, 0x79622d32u, 0x6b206574u};
    put_halves(start + 4, key.seed);
    put_halves(start + 6, key.layer_hash);
    put_halves(start + 8, key.adapter_identity);
    put_halves(start + 10, key.domain | NOISE_VERSION << 32);
    start[12] = key.block;
    start[13] = key.sample;
    put_halves(start + 14, key.row_identity);
    u32 state[NOISE_BLOCK];
#pragma unroll
    for (u32 word = 0; word < NOISE_BLOCK; word++) {
        state[word] = start[word];
    }
    for (u32 two_rounds = 0; two_rounds < 4; two_rounds++) {
        quarter_round(state[0], state[4], state[8], state[12]);
        quarter_round(state[1], state[5], state[9], state[13]);
        quarter_round(state[2], state[6], state[10], state[14]);
        quarter_round(state[3], state[7], state[11], state[15]);
        quarter_round(state[0], state[5], state[10], state[15]);
        quarter_round(state[1], state[6], state[11], state[12]);
        quarter_round(state[2], state[7], state[8], state[13]);
        quarter_round(state[3], state[4], state[9], state[14]);
    }
#pragma unroll
    for (u32 word = 0; word < NOISE_BLOCK; word++) {
        to[word * stride] = state[word] + start[word];
    }
}

// Words j and j + 8 of a block of normals become its normals j and j + 8.
INLINE void box_muller(u32 radius_word, u32 angle_word, float &first, float &second) {
    const float step = 1.0f / 2147483648.0f;
    float uniform = fmaf((float)(i32)(radius_word >> 1), step, 0.5f * step);
    float radius = sqrtf(-2.0f * log_f32(uniform));
    float sin, cos;
    sincos_turns(angle_word, sin, cos);
    first = radius * cos;
    second = radius * sin;
}
