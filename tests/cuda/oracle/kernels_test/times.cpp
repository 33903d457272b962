// Microseconds of the tiled products, whole and in parts of k, the least of a few rounds of queued launches.
#include "times.hpp"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <vector>

#include "arguments.cuh"
#include "device.hpp"
#include "random.hpp"

namespace {

struct Shape {
    u32 rows, outputs, depth;
};
constexpr Shape SHAPES[] = {{512, 4096, 4096}, {512, 256, 4096}, {512, 4096, 256}, {1576, 768, 768},
                            {1576, 256, 768},  {1576, 768, 256}, {197, 768, 768}};
constexpr size_t LARGEST = size_t{4096} * 4096;

constexpr u32 DEPTH_OF_PART = 256;

struct Memory {
    u64 x, w, out;
};

double least(const char *kernel, const Product &product, u32 parts) {
    const auto queue = [&] {
        Device::queue(kernel, static_cast<unsigned>(divided(product.outputs, TILE_COLS)),
                      static_cast<unsigned>(divided(product.rows, TILE_ROWS)), parts, TILE_THREADS, &product);
    };
    queue();
    Device::wait();
    double best = 1e30;
    for (int round = 0; round < 5; round++) {
        constexpr int LAUNCHES = 20;
        const auto begun = std::chrono::steady_clock::now();
        for (int launch = 0; launch < LAUNCHES; launch++) queue();
        Device::wait();
        const std::chrono::duration<double, std::micro> took = std::chrono::steady_clock::now() - begun;
        best = std::min(best, took.count() / LAUNCHES);
    }
    return best;
}

double time_of(const Memory &memory, const Shape &shape, Dtype dtype, bool along_k, bool in_parts) {
    Product product{};
    product.x = {memory.x, shape.depth, dtype, 0};
    product.w = memory.w;
    product.w_dtype = dtype;
    product.w_output_stride = along_k ? shape.depth : 1;
    product.w_input_stride = along_k ? 1 : shape.outputs;
    product.out = reinterpret_cast<float *>(memory.out);
    product.out_stride = shape.outputs;
    product.part_stride = u64{shape.rows} * shape.outputs;
    product.rows = product.rows_of_call = shape.rows;
    product.outputs = shape.outputs;
    product.depth = shape.depth;
    const u32 parts = in_parts ? static_cast<u32>(divided(shape.depth, DEPTH_OF_PART)) : 1;
    return least(along_k ? "product_tile_k" : "product_tile_j", product, parts);
}

} // namespace

void print_times() {
    size_t largest_out = 0;
    for (const Shape &shape : SHAPES)
        largest_out = std::max(largest_out, size_t{shape.rows} * shape.outputs * divided(shape.depth, DEPTH_OF_PART));
    // Bits that are small numbers in either type.
    std::vector<uint16_t> values(2 * LARGEST);
    Random random(1);
    for (uint16_t &value : values) value = static_cast<uint16_t>(0x3f00 + random.below(128) + 0x8000 * random.below(2));
    const Memory memory{Device::allocate(4 * LARGEST), Device::allocate(4 * LARGEST),
                        Device::allocate(4 * largest_out)};
    Device::write(memory.x, values.data(), 4 * LARGEST);
    Device::write(memory.w, values.data(), 4 * LARGEST);
    std::printf("us a product, rows x outputs x depth; the weight's inputs (k) or outputs (j) side by side\n");
    std::printf("%-20s %10s %10s %10s %10s %10s %10s\n", "", "f32 k", "k in parts", "f32 j", "j in parts", "bf16 k",
                "bf16 j");
    for (const Shape &shape : SHAPES) {
        std::printf("%5u x %4u x %4u  ", shape.rows, shape.outputs, shape.depth);
        for (const bool along_k : {true, false}) {
            for (const bool in_parts : {false, true})
                std::printf(" %10.1f", time_of(memory, shape, DTYPE_F32, along_k, in_parts));
        }
        for (const bool along_k : {true, false})
            std::printf(" %10.1f", time_of(memory, shape, DTYPE_BF16, along_k, false));
        std::printf("\n");
    }
    for (const u64 address : {memory.x, memory.w, memory.out}) Device::release(address);
}
