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

INLINE float load_element(u64 data, u32 dtype, u64 index) {
    if (dtype == DTYPE_F32) {
        return ((const float *)data)[index];
    }
    u16 bits = ((const u16 *)data)[index];
    return dtype == DTYPE_F16 ? float_of_half(bits) : float_of_bf16(bits);
}

INLINE float load(const Matrix &from, u64 row, u64 col) {
    return load_element(from.data, from.dtype, row * from.stride + col);
}

INLINE void store(const Matrix &to, u64 row, u64 col, float value) {
    u64 index = row * to.stride + col;
    if (to.dtype == DTYPE_F32) {
        ((float *)to.data)[index] = value;
        return;
    }
    ((u16 *)to.data)[index] = to.dtype == DTYPE_F16 ? half_of_float(value) : bf16_of_float(value);
}

// The first part as it is, then the next ones added, ascending.
INLINE float load(const Parts &from, u64 row, u64 col) {
    const float *at = from.data + row * from.stride + col;
    float sum = at[0];
#pragma unroll 4
    for (u32 part = 1; part < from.count; part++) {
        sum += at[part * from.part_stride];
    }
    return sum;
}
