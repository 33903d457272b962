/* How the tests compare numbers, make them, and lay out matrices of the narrow types. */
#ifndef PVERA_TESTS_NUMBERS_H
#define PVERA_TESTS_NUMBERS_H

#include "check.h"

/* max|found - wanted| / max|wanted|, the measure of the golden cases. Infinite where nothing could be judged: other counts,
 * no elements, a NaN or an infinity on either side. Zeros are only equal to zeros. */
static inline double relative_error(const float *found, size_t found_count, const float *wanted, size_t wanted_count) {
    double largest = 0, difference = 0;
    if (found_count != wanted_count || wanted_count == 0) return INFINITY;
    for (size_t i = 0; i < wanted_count; ++i) {
        if (!isfinite(found[i]) || !isfinite(wanted[i])) return INFINITY;
        largest = fmax(largest, fabs((double)wanted[i]));
        difference = fmax(difference, fabs((double)found[i] - wanted[i]));
    }
    if (difference == 0) return 0;
    return largest == 0 ? INFINITY : difference / largest;
}

/* Whether found is wanted up to tolerance · max|wanted|. */
static inline bool is_close(const float *found, size_t found_count, const float *wanted, size_t wanted_count,
                            double tolerance) {
    return relative_error(found, found_count, wanted, wanted_count) <= tolerance;
}

#define CHECK_CLOSE(what, found, found_count, wanted, wanted_count, tolerance) \
    check_that(is_close(found, found_count, wanted, wanted_count, tolerance), __FILE__, __LINE__, \
               "%s: relative error %.3g, wanted at most %.1g (%zu values for %zu)", what, \
               relative_error(found, found_count, wanted, wanted_count), (double)(tolerance), (size_t)(found_count), \
               (size_t)(wanted_count))

#define CHECK_SAME_BITS(what, found, wanted, bytes) \
    check_that(memcmp(found, wanted, bytes) == 0, __FILE__, __LINE__, "%s: the bits differ", what)

/* Fills values with numbers between -1 and 1 that look random and are always the same (a Weyl sequence). */
static inline void fill(float *values, size_t count, uint32_t seed) {
    for (size_t i = 0; i < count; ++i) {
        uint32_t word = (uint32_t)(i + 1) * 2654435769u + seed * 2246822519u;
        word ^= word >> 15, word *= 739982445u, word ^= word >> 12;
        values[i] = (float)(int32_t)word / 2147483648.0f;
    }
}

static inline size_t element_size(pvera_dtype dtype) { return dtype.bits / 8; }

/* An f16 or bf16 pattern, or an f32, as f32. */
static inline float to_f32(const void *at, pvera_dtype dtype) {
    float value;
    uint16_t half;
    uint32_t bits;
    if (dtype.bits == 32) return memcpy(&value, at, sizeof value), value;
    memcpy(&half, at, sizeof half);
    if (dtype.code == PVERA_DTYPE_BFLOAT) {
        bits = (uint32_t)half << 16;
        return memcpy(&value, &bits, sizeof value), value;
    }
    int exponent = half >> 10 & 31, fraction = half & 1023;
    if (exponent == 31) value = fraction ? NAN : INFINITY;
    else if (exponent == 0) value = ldexpf((float)fraction, -24);
    else value = ldexpf((float)(fraction + 1024), exponent - 25);
    return half & 0x8000 ? -value : value;
}

#endif
