// Runs one of the kernels of wrong.cu: self_check <name>. Fails unless the oracle saw what is wrong with it; where a
// sanitizer is to see it, the program dies.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "grid.hpp"
#include "self_check/wrong.hpp"

namespace {

constexpr unsigned THREADS = 64;
constexpr unsigned BLOCKS = 20;

struct Outcome {
    std::string complaint;
    std::vector<float> data;
};

template <void (*KERNEL)(Target)> Outcome run(size_t count, uint64_t seed = 1) {
    // Of its own, so that AddressSanitizer knows its end; aligned as device memory is.
    auto *memory = static_cast<float *>(std::aligned_alloc(256, (count * sizeof(float) + 255) / 256 * 256));
    std::fill(memory, memory + count, 0.0f);
    const Target target{memory, static_cast<unsigned>(count)};
    const auto body = [](const void *argument) { KERNEL(*static_cast<const Target *>(argument)); };
    Outcome outcome;
    outcome.complaint = oracle::run_grid({BLOCKS, 1, 1}, {THREADS, 1, 1}, body, &target, seed);
    outcome.data.assign(memory, memory + count);
    std::free(memory);
    return outcome;
}

bool says(const Outcome &outcome, const char *what) {
    std::printf("%s\n", outcome.complaint.c_str());
    return outcome.complaint.find(what) != std::string::npos;
}

bool all(const std::vector<float> &values, bool (*holds)(float)) {
    for (float value : values) {
        if (!holds(value)) return false;
    }
    return true;
}

bool barriers_hold_is_right() {
    const Outcome outcome = run<barriers_hold>(2 * BLOCKS);
    for (unsigned block = 0; block < BLOCKS; block++) {
        if (outcome.data[2 * block] != 2016 || outcome.data[2 * block + 1] != 2080) return false;
    }
    return outcome.complaint.empty();
}

// The oracle goes on after a divergence, with fibers that were left at a barrier.
bool is_seen(const Outcome &outcome, const char *what) { return says(outcome, what) && barriers_hold_is_right(); }

bool shuffled() {
    const Outcome first = run<order>(1 + BLOCKS * THREADS, 1), again = run<order>(1 + BLOCKS * THREADS, 1);
    const Outcome other = run<order>(1 + BLOCKS * THREADS, 2);
    return first.data == again.data && first.data != other.data && first.data[0] == BLOCKS * THREADS;
}

// Some threads came before their neighbours, and found a NaN.
bool missing_barrier_shows() {
    return !all(run<missing_barrier>(BLOCKS * THREADS).data, [](float value) { return value == 1.0f; });
}

bool check(const std::string &name) {
    if (name == "barriers_hold") return barriers_hold_is_right();
    if (name == "divergence_by_end") return is_seen(run<divergence_by_end>(1), "63 of 64 threads wait at wrong.cu:");
    if (name == "divergence_by_line") return is_seen(run<divergence_by_line>(1), "barrier divergence");
    if (name == "fresh_shared_memory")
        return all(run<fresh_shared_memory>(3 * BLOCKS).data, [](float value) { return std::isnan(value); });
    if (name == "missing_barrier") return missing_barrier_shows();
    if (name == "order") return shuffled();
    if (name == "device_overrun") run<device_overrun>(64);
    if (name == "shared_overrun") run<shared_overrun>(64);
    if (name == "shared_index") run<shared_index>(64);
    if (name == "misaligned_vector") run<misaligned_vector>(64);
    return false;
}

} // namespace

int main(int count, char **arguments) {
    if (count != 2) return 2;
    const bool passed = check(arguments[1]);
    std::printf("%s\n", passed ? "passed" : "not seen");
    return passed ? EXIT_SUCCESS : EXIT_FAILURE;
}
