// exp, log and sincos in f32: src/noise/math.rs, operation for operation, so that every machine has the same bits.
#pragma once

#include "device.cuh"

// 1.5·2²³: adding it to a small number leaves the nearest integer in the low bits of the sum.
#define ROUNDER 12582912.0f
#define LOG2_E 1.44269504088896340735992468100189214f
#define INFINITY_BITS 0x7f800000u
#define HALF_PI 1.57079632679489661923132169163975144f

// ln 2 in two parts; the product of the first with an exponent is exact.
#define LN_2_HIGH 0.6933594f
#define LN_2_LOW (-2.1219444e-4f)

// The bits of the f32 nearest to √½, where the logarithm's argument changes its exponent.
#define SQRT_HALF_BITS 0x3f3504f3u

// 2^exponent for −126 ≤ exponent ≤ 127; other exponents give some number.
INLINE float power_of_two(i32 exponent) {
    return __uint_as_float(((u32)exponent + 127u) << 23);
}

INLINE float exp_f32(float x) {
    // Outside these bounds the result is infinite or zero anyway. A NaN fails both comparisons and stays.
    x = x < -104.0f ? -104.0f : x;
    x = x > 89.0f ? 89.0f : x;
    float shifted = fmaf(x, LOG2_E, ROUNDER);
    // Unsigned, because a NaN's bits overflow.
    i32 exponent = (i32)(__float_as_uint(shifted) - __float_as_uint(ROUNDER));
    float count = shifted - ROUNDER;
    float rest = fmaf(count, -LN_2_HIGH, x);
    rest = fmaf(count, -LN_2_LOW, rest);
    float tail = 1.3745304e-3f;
    tail = fmaf(tail, rest, 8.368945e-3f);
    tail = fmaf(tail, rest, 4.166965e-2f);
    tail = fmaf(tail, rest, 1.6666518e-1f);
    tail = fmaf(tail, rest, 4.9999988e-1f);
    float mantissa = fmaf(fmaf(tail, rest, 1.0f), rest, 1.0f);
    // Two factors, because 2^exponent itself may be out of range; only the last product can round.
    i32 half = exponent >> 1;
    return mantissa * power_of_two(half) * power_of_two((i32)((u32)exponent - (u32)half));
}

// ln x for positive normal x.
INLINE float log_f32(float x) {
    i32 exponent = (i32)(__float_as_uint(x) - SQRT_HALF_BITS) >> 23;
    float mantissa = __uint_as_float(__float_as_uint(x) - ((u32)exponent << 23));
    float f = mantissa - 1.0f;
    float square = f * f;
    float count = (float)exponent;
    float sum = -7.353803e-2f;
    sum = fmaf(sum, f, 1.2615187e-1f);
    sum = fmaf(sum, f, -1.3203458e-1f);
    sum = fmaf(sum, f, 1.42281e-1f);
    sum = fmaf(sum, f, -1.6621315e-1f);
    sum = fmaf(sum, f, 1.9999766e-1f);
    sum = fmaf(sum, f, -2.5000852e-1f);
    sum = fmaf(sum, f, 3.3333355e-1f);
    float tail = fmaf(square * f, sum, count * LN_2_LOW);
    tail = fmaf(square, -0.5f, tail);
    return fmaf(count, LN_2_HIGH, f + tail);
}

// sin and cos of 2π·word/2³².
INLINE void sincos_turns(u32 word, float &sin, float &cos) {
    u32 quadrant = (word + (1u << 29)) >> 30;
    i32 rest = (i32)(word - (quadrant << 30));
    // A quarter turn of the word is s = 1.
    float s = (float)rest * (1.0f / 1073741824.0f);
    float square = s * s;
    float odd = -4.600774e-3f;
    odd = fmaf(odd, square, 7.96797e-2f);
    odd = fmaf(odd, square, -6.4596343e-1f);
    odd = fmaf(odd, square, -4.8805088e-8f);
    float even = 8.974422e-4f;
    even = fmaf(even, square, -2.085681e-2f);
    even = fmaf(even, square, 2.5366867e-1f);
    even = fmaf(even, square, -1.2337005f);
    float first = fmaf(s, HALF_PI, s * odd);
    float second = fmaf(square, even, 1.0f);
    // A quarter turn swaps the two; the signs follow the quadrant.
    bool swapped = (quadrant & 1u) != 0u;
    sin = __uint_as_float(__float_as_uint(swapped ? second : first) ^ ((quadrant & 2u) << 30));
    cos = __uint_as_float(__float_as_uint(swapped ? first : second) ^ (((quadrant + 1u) & 2u) << 30));
}
