// The few things that CUDA and the host compiler of the tests spell differently.
#pragma once

#include "arguments.cuh"

// Kernels take their argument where the driver puts it; nothing is copied to local memory.
#define KERNEL(threads) extern "C" __global__ void __launch_bounds__(threads)
// Also with so many blocks of threads on a multiprocessor, which bounds the registers.
#define KERNEL_ON(threads, blocks) extern "C" __global__ void __launch_bounds__(threads, blocks)
#define INLINE __device__ __forceinline__

// Exact.
INLINE float float_of_half(unsigned short bits) {
#ifdef __CUDA_ARCH__
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
    return value;
#else
    _Float16 half;
    __builtin_memcpy(&half, &bits, sizeof half);
    return half;
#endif
}

// To nearest, ties to even.
INLINE unsigned short half_of_float(float value) {
#ifdef __CUDA_ARCH__
    unsigned short bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
    return bits;
#else
    _Float16 half = value;
    unsigned short bits;
    __builtin_memcpy(&bits, &half, sizeof bits);
    return bits;
#endif
}

// The same value, of which the compiler knows nothing: so what is made of it in a loop is not kept in registers
// through the loop.
INLINE u32 opaque(u32 value) {
    asm volatile("" : "+r"(value));
    return value;
}
