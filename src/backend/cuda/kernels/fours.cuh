// How products bring rectangles of a matrix into shared memory: four elements at a time where they lie well, else one
// by one.
#pragma once

#include "element.cuh"

#define FOUR 4u

// Lines of elements that lie side by side: rows of x; of a weight, its outputs or its inputs.
struct Lines {
    u64 data;
    u64 stride;
    u32 dtype;
    u32 count;
    u32 length;
    bool in_fours;  // each four elements from a multiple of four on are one load, and fours make up a line
};

INLINE Lines lines_of(u64 data, u64 stride, u32 dtype, u32 count, u32 length) {
    u64 bytes = FOUR * (dtype == DTYPE_F32 ? 4 : 2);
    bool in_fours = data % bytes == 0 && stride % FOUR == 0 && length % FOUR == 0;
    return {data, stride, dtype, count, length, in_fours};
}

// Four elements from their bits, of which the narrow types take the first half.
INLINE float4 widened(u32 dtype, uint4 bits) {
    if (dtype == DTYPE_F32) {
        return {__uint_as_float(bits.x), __uint_as_float(bits.y), __uint_as_float(bits.z), __uint_as_float(bits.w)};
    }
    return {widened(dtype, bits.x & 0xffffu), widened(dtype, bits.x >> 16), widened(dtype, bits.y & 0xffffu),
            widened(dtype, bits.y >> 16)};
}

INLINE float perhaps_squared(float value, bool square) {
    return square ? value * value : value;
}

INLINE float4 perhaps_squared(float4 values, bool square) {
    return {perhaps_squared(values.x, square), perhaps_squared(values.y, square), perhaps_squared(values.z, square),
            perhaps_squared(values.w, square)};
}

// LINES × LENGTH elements on their way into shared memory, shared out among THREADS threads in fours: `load` begins
// the loads, `store` ends them; only there are they widened, so that nothing waits for a load before it has to. What
// would lie behind the end of the matrix is its last line or four again: any number will do that may be read.
//
// `line_at(line)` is which line of the matrix stands in a line of the rectangle.
template <u32 LINES, u32 LENGTH, u32 THREADS>
struct Rectangle {
    enum : u32 { FOURS = LINES * LENGTH / (FOUR * THREADS) };
    uint4 fours[FOURS];

    static INLINE u32 line_of(u32 four) {
        return (four * THREADS + threadIdx.x) / (LENGTH / FOUR);
    }

    static INLINE u32 start_of(u32 four) {
        return (four * THREADS + threadIdx.x) % (LENGTH / FOUR) * FOUR;
    }

    // From element `first` of the lines on.
    template <typename LineAt>
    INLINE void load(const Lines &lines, u32 first, LineAt line_at) {
        if (!lines.in_fours) {
            return;
        }
#pragma unroll
        for (u32 four = 0; four < FOURS; four++) {
            u32 at = min(first + start_of(four), lines.length - FOUR);
            u64 index = line_at(line_of(four)) * lines.stride + at;
            if (lines.dtype == DTYPE_F32) {
                fours[four] = *(const uint4 *)((const u32 *)lines.data + index);
            } else {
                uint2 bits = *(const uint2 *)((const u16 *)lines.data + index);
                fours[four].x = bits.x;
                fours[four].y = bits.y;
            }
        }
    }

    // `place(line, at)` is where an element of the rectangle goes; with SIDE_BY_SIDE, the next three go behind it.
    template <bool SIDE_BY_SIDE, typename LineAt, typename Place>
    INLINE void store(const Lines &lines, u32 first, bool square, LineAt line_at, Place place) const {
        if (!lines.in_fours) {
            store_singles(lines, first, square, line_at, place);
            return;
        }
#pragma unroll
        for (u32 four = 0; four < FOURS; four++) {
            u32 line = line_of(four), at = start_of(four);
            float4 values = perhaps_squared(widened(lines.dtype, fours[four]), square);
            if (SIDE_BY_SIDE) {
                *(float4 *)place(line, at) = values;
            } else {
                *place(line, at) = values.x;
                *place(line, at + 1) = values.y;
                *place(line, at + 2) = values.z;
                *place(line, at + 3) = values.w;
            }
        }
    }

    template <typename LineAt, typename Place>
    static INLINE void store_singles(const Lines &lines, u32 first, bool square, LineAt line_at, Place place) {
#pragma unroll 1
        for (u32 single = 0; single < FOURS * FOUR; single++) {
            u32 four = single / FOUR;
            u32 line = line_of(four), at = start_of(four) + single % FOUR;
            u64 index = line_at(line) * lines.stride + min(first + at, lines.length - 1);
            float value = widened(lines.dtype, load_bits(lines.data, lines.dtype, index));
            *place(line, at) = perhaps_squared(value, square);
        }
    }
};
