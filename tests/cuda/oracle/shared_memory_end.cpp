// Where shared memory ends: linked after the kernels.
#include "shared_memory.hpp"

uint64_t oracle_shared_end;
