// A grid of blocks of threads, run one thread at a time.
#pragma once

#include <cstdint>
#include <string>

namespace oracle {

struct Size {
    unsigned x, y, z;

    uint64_t count() const { return static_cast<uint64_t>(x) * y * z; }
};

// What a kernel asks for to know who it is.
extern Size threadIdx, blockIdx, blockDim, gridDim;

// Waits until every thread of the block is here: at this very line.
void barrier(const char *file, int line);

// A kernel's body for the thread that is current.
using Body = void (*)(const void *arguments);

// Runs a grid. Blocks, and threads between two barriers, take turns in an order that `seed` shuffles. Returns what went
// wrong with barriers, empty when nothing did. One grid at a time: the caller holds a lock.
std::string run_grid(Size grid, Size block, Body body, const void *arguments, uint64_t seed);

// Fresh memory, device or shared, holds this pair of bytes over and over: a NaN as f32, f64, f16 and bf16, and no
// plausible index.
constexpr uint16_t FRESH = 0x7ff5;

} // namespace oracle
