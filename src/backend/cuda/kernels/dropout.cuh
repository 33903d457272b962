// Dropout masks: the caller's, or drawn by key for a block's columns of a row at a time.
#pragma once

#include "element.cuh"
#include "noise.cuh"
#include "rows.cuh"

// Blocks of 16 columns that the columns of a block of threads may meet. Words lie word by word, so that those who read don't meet in a bank.
#define MASK_BLOCKS 17u
#define MASK_STRIDE 18u
#define MASK_WORDS (NOISE_BLOCK * MASK_STRIDE)

// What the thread's column of a row is multiplied by. All threads of the block call it, for one row and adjacent
// columns; `Args` are Mask or Accumulate.
template <typename Args>
INLINE float mask_of(const Args &args, const Term &term, u32 row, u32 col, u32 *words) {
    if (args.given.data != 0) {
        return col < args.cols ? load(args.given, row, col) : 1.0f;
    }
    if (term.dropout != DROPOUT_KEYED) {
        return term.dropout == DROPOUT_ALL ? 0.0f : 1.0f;
    }
    u64 first_block = (args.in_offset + (u64)blockIdx.x * ELEMENT_THREADS) / NOISE_BLOCK;
    // Words of the row before may still be read.
    __syncthreads();
    if (threadIdx.x < MASK_BLOCKS) {
        NoiseKey key = {value_of(args.seed), term.layer_hash, term.adapter_identity, DOMAIN_DROPOUT,
                        identity_of(args.rows, row), sample_of(args.rows, row), (u32)first_block + threadIdx.x};
        draw_words(key, words + threadIdx.x, MASK_STRIDE);
    }
    __syncthreads();
    u64 column = args.in_offset + col - first_block * NOISE_BLOCK;
    u32 word = words[column % NOISE_BLOCK * MASK_STRIDE + column / NOISE_BLOCK];
    return word >= term.drop_below ? term.keep_scale : 0.0f;
}
