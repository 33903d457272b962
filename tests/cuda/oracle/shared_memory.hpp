// Shared memory: the static storage of the kernels, which the linker lays between shared_memory_begin.cpp and
// shared_memory_end.cpp.
#pragma once

#include <cstdint>

// Both in .bss, which keeps the order of the object files. (A section of its own would do without the order, but g++ 12
// ignores it for statics in templates.)
extern "C" uint64_t oracle_shared_begin;
extern "C" uint64_t oracle_shared_end;

namespace oracle {

// Not AddressSanitizer's business: the redzones between arrays are filled too.
__attribute__((no_sanitize("address"))) inline void fill_shared_memory(uint16_t pattern) {
    const uint64_t value = pattern * 0x0001000100010001u;
    const auto end = reinterpret_cast<uintptr_t>(&oracle_shared_end);
    for (auto at = reinterpret_cast<uintptr_t>(&oracle_shared_begin); at < end; at += sizeof value) {
        *reinterpret_cast<volatile uint64_t *>(at) = value;
    }
}

} // namespace oracle
