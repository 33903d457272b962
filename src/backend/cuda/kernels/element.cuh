// Elements of the three types: how they widen to f32, round back, and lie in matrices.
#pragma once

#include "device.cuh"

typedef unsigned short u16;

INLINE float float_of_bf16(u16 bits) {
    return __uint_as_float((u32)bits << 16);
}

// To nearest, ties to even; a NaN stays one. As `bf16_bits` of src/tensor/dtype.rs.
INLINE u16 bf16_of_float(float value) {
    u32 bits = __float_as_uint(value);
    u32 rounded = bits + 0x7fffu + ((bits >> 16) & 1u);
    bits = value != value ? bits | 0x00400000u : rounded;
    return (u16)(bits >> 16);
}

// An element as it lies in memory. Where several are loaded, they are widened only when all are under way: that waits
// for them.
INLINE u32 load_bits(u64 data, u32 dtype, u64 index) {
    return dtype == DTYPE_F32 ? ((const u32 *)data)[index] : ((const u16 *)data)[index];
}

INLINE float widened(u32 dtype, u32 bits) {
    if (dtype == DTYPE_F32) {
        return __uint_as_float(bits);
    }
    return dtype == DTYPE_F16 ? float_of_half((u16)bits) : float_of_bf16((u16)bits);
}

INLINE u32 load_bits(const Matrix &from, u64 row, u64 col) {
    return load_bits(from.data, from.dtype, row * from.stride + col);
}

INLINE float load(const Matrix &from, u64 row, u64 col) {
    return widened(from.dtype, load_bits(from, row, col));
}

INLINE void store(const Matrix &to, u64 row, u64 col, float value) {
    u64 index = row * to.stride + col;
    if (to.dtype == DTYPE_F32) {
        ((float *)to.data)[index] = value;
        return;
    }
    ((u16 *)to.data)[index] = to.dtype == DTYPE_F16 ? half_of_float(value) : bf16_of_float(value);
}

// Some columns of a row, each the first part as it is, then the next ones added, ascending. Loads of some parts are
// under way together; behind the last part, it is loaded again instead of the next, and not added.
template <u32 COUNT>
INLINE void load_columns(const Parts &from, u64 row, const u64 (&cols)[COUNT], float (&sums)[COUNT]) {
    const u32 together = COUNT > 1 ? 4 : 8;
    const float *first = from.data + row * from.stride;
#pragma unroll
    for (u32 place = 0; place < COUNT; place++) {
        sums[place] = first[cols[place]];
    }
#pragma unroll 1
    for (u32 begin = 1; begin < from.count; begin += together) {
        float loaded[together][COUNT];
#pragma unroll
        for (u32 number = 0; number < together; number++) {
            const float *part = first + min(begin + number, from.count - 1) * from.part_stride;
#pragma unroll
            for (u32 place = 0; place < COUNT; place++) {
                loaded[number][place] = part[cols[place]];
            }
        }
#pragma unroll
        for (u32 number = 0; number < together; number++) {
#pragma unroll
            for (u32 place = 0; place < COUNT; place++) {
                sums[place] = begin + number < from.count ? sums[place] + loaded[number][place] : sums[place];
            }
        }
    }
}

INLINE float load(const Parts &from, u64 row, u64 col) {
    const u64 cols[1] = {col};
    float sums[1];
    load_columns(from, row, cols, sums);
    return sums[0];
}
