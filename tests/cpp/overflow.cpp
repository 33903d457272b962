// Writes one float past a matrix's end on purpose: proof that AddressSanitizer watches over the tests, which have to fail here.
#include <vector>

#include "world.hpp"

int main() {
    const world all;
    std::vector<float> y(world::n * world::out);
    all.context.forward(all.adapter.linear(0), all.input(), pvera::as_matrix(y, world::n, world::out));
    volatile std::size_t end = y.size();
    y.data()[end] = 1;
    return 0;
}
