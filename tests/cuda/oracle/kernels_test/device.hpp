// The device under test, through the driver's functions: this oracle, the interpreting double, or a GPU.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

class Device {
  public:
    // Without PTX the library has to have the kernels itself.
    static void open(const std::string &library, const std::vector<std::string> &ptx_files);
    static uint64_t allocate(size_t bytes);
    static void release(uint64_t at);
    static void write(uint64_t at, const void *from, size_t bytes);
    static void read(void *to, uint64_t at, size_t bytes);
    static void launch(const char *kernel, unsigned x, unsigned y, unsigned z, unsigned threads, const void *argument);
    // The same without the wait at its end.
    static void queue(const char *kernel, unsigned x, unsigned y, unsigned z, unsigned threads, const void *argument);
    static void wait();
    // Changes the order of threads and blocks, where the device can.
    static void set_seed(uint64_t seed);

    template <typename Argument>
    static void launch(const char *kernel, size_t x, size_t y, size_t z, unsigned threads, const Argument &argument) {
        const void *at = &argument;
        launch(kernel, static_cast<unsigned>(x), static_cast<unsigned>(y), static_cast<unsigned>(z), threads, at);
    }
};

inline size_t divided(size_t count, size_t by) { return (count + by - 1) / by; }
