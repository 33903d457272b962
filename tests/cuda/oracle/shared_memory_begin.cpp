// Where shared memory begins: linked before the kernels.
#include "shared_memory.hpp"

uint64_t oracle_shared_begin;
