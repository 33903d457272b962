// The kernels by name.
#pragma once

#include <cstddef>

#include "grid.hpp"

namespace oracle {

struct Kernel {
    const char *name;
    size_t argument_bytes; // of the one struct that it takes
    unsigned threads;      // of a block
    Body body;
};

// Null when there is no such kernel.
const Kernel *find_kernel(const char *name);

} // namespace oracle
