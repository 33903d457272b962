// What CUDA C++ needs in order to compile with g++. It comes before a .cu file by -include, and nothing in the kernels
// knows of it.
//
// A thread is a fiber and one block runs at a time, so `static` storage serves as shared memory: grid.cpp fills it anew
// before each block. Vector types are aligned as on the device, so that UndefinedBehaviorSanitizer reports a misaligned
// vector access.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "grid.hpp"

// After the headers of the C++ library, which has attributes of these names.
#define __global__
#define __device__
#define __host__
#define __constant__ static const
#define __shared__ static
#define __grid_constant__
#define __launch_bounds__(...)
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __align__(bytes) alignas(bytes)

#define __syncthreads() oracle::barrier(__FILE__, __LINE__)

using oracle::blockDim;
using oracle::blockIdx;
using oracle::gridDim;
using oracle::threadIdx;

// ---- Vectors --------------------------------------------------------------------------------------------------------

struct alignas(8) float2 {
    float x, y;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
struct alignas(8) uint2 {
    unsigned x, y;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};
struct alignas(8) int2 {
    int x, y;
};
struct alignas(16) int4 {
    int x, y, z, w;
};
struct alignas(16) double2 {
    double x, y;
};

inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

// ---- Bits and numbers -----------------------------------------------------------------------------------------------

template <typename To, typename From> inline To oracle_bits(From from) {
    static_assert(sizeof(To) == sizeof(From), "the same bits");
    To to;
    std::memcpy(&to, &from, sizeof to);
    return to;
}

inline unsigned __float_as_uint(float value) { return oracle_bits<unsigned>(value); }
inline int __float_as_int(float value) { return oracle_bits<int>(value); }
inline float __uint_as_float(unsigned bits) { return oracle_bits<float>(bits); }
inline float __int_as_float(int bits) { return oracle_bits<float>(bits); }

// One rounding each: -ffp-contract=off keeps the compiler from fusing.
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fsqrt_rn(float a) { return std::sqrt(a); }
inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dsub_rn(double a, double b) { return a - b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __ddiv_rn(double a, double b) { return a / b; }
inline float __int2float_rn(int value) { return static_cast<float>(value); }
inline float __uint2float_rn(unsigned value) { return static_cast<float>(value); }

inline unsigned __umulhi(unsigned a, unsigned b) { return static_cast<unsigned>((static_cast<uint64_t>(a) * b) >> 32); }
inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned shift) {
    return static_cast<unsigned>(((static_cast<uint64_t>(high) << 32 | low) << (shift & 31)) >> 32);
}

inline int min(int a, int b) { return a < b ? a : b; }
inline int max(int a, int b) { return a > b ? a : b; }
inline unsigned min(unsigned a, unsigned b) { return a < b ? a : b; }
inline unsigned min(unsigned a, int b) { return min(a, static_cast<unsigned>(b)); }
inline unsigned min(int a, unsigned b) { return min(static_cast<unsigned>(a), b); }
inline unsigned max(unsigned a, unsigned b) { return a > b ? a : b; }
inline unsigned max(unsigned a, int b) { return max(a, static_cast<unsigned>(b)); }
inline unsigned max(int a, unsigned b) { return max(static_cast<unsigned>(a), b); }
inline unsigned long long min(unsigned long long a, unsigned long long b) { return a < b ? a : b; }
inline unsigned long long max(unsigned long long a, unsigned long long b) { return a > b ? a : b; }

// ---- Memory ---------------------------------------------------------------------------------------------------------

template <typename T> inline T __ldg(const T *at) { return *at; }

// Only one thread runs at a time, and it is never interrupted.
inline unsigned atomicCAS(unsigned *at, unsigned expected, unsigned desired) {
    const unsigned old = *at;
    if (old == expected) *at = desired;
    return old;
}
inline unsigned atomicExch(unsigned *at, unsigned value) {
    const unsigned old = *at;
    *at = value;
    return old;
}
inline void __threadfence() {}
