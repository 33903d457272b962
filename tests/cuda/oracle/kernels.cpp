// The table of kernels: name, argument and block as arguments.cuh has them.
#include "kernels.hpp"

#include <cstring>

#include "arguments.cuh"

#define FOR_EACH_KERNEL(ENTRY)                                                                                         \
    ENTRY(put, Put, LIST_THREADS)                                                                                      \
    ENTRY(resolve, Resolve, LIST_THREADS)                                                                              \
    ENTRY(product_split_k, Product, SPLIT_THREADS)                                                                     \
    ENTRY(product_split_j, Product, SPLIT_THREADS)                                                                     \
    ENTRY(product_tile_k, Product, TILE_THREADS)                                                                       \
    ENTRY(product_tile_j, Product, TILE_THREADS)                                                                       \
    ENTRY(combine, Combine, ELEMENT_THREADS)                                                                           \
    ENTRY(mask, Mask, ELEMENT_THREADS)                                                                                 \
    ENTRY(latent, Latent, LATENT_THREADS)                                                                              \
    ENTRY(finish, Finish, ELEMENT_THREADS)                                                                             \
    ENTRY(weigh, Weigh, ELEMENT_THREADS)                                                                               \
    ENTRY(slopes, Slopes, LATENT_THREADS)                                                                              \
    ENTRY(divergence, Divergence, DIVERGENCE_THREADS)                                                                  \
    ENTRY(kl_total, KlTotal, DIVERGENCE_THREADS)                                                                       \
    ENTRY(sums, Sums, SUM_COLS)                                                                                        \
    ENTRY(deliver, Deliver, ELEMENT_THREADS)                                                                           \
    ENTRY(accumulate, Accumulate, ELEMENT_THREADS)

#define DECLARE(name, Argument, threads) extern "C" void name(const Argument argument);
FOR_EACH_KERNEL(DECLARE)
#undef DECLARE

namespace oracle {

namespace {

#define ROW(name, Argument, threads)                                                                                   \
    {#name, sizeof(Argument), threads, [](const void *argument) { ::name(*static_cast<const Argument *>(argument)); }},
constexpr Kernel KERNELS[] = {FOR_EACH_KERNEL(ROW)};
#undef ROW

} // namespace

const Kernel *find_kernel(const char *name) {
    for (const Kernel &kernel : KERNELS) {
        if (std::strcmp(kernel.name, name) == 0) return &kernel;
    }
    return nullptr;
}

} // namespace oracle
