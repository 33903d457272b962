// Tests every kernel against scalar C++ that was written from its contract, bit for bit.
//
//     kernels_test [--library libcuda.so.1] [--seed n] [--only latent] [--far] [--overrun] [file.ptx ...]
//
// Over the oracle it needs nothing; over a GPU, or a double that interprets PTX, it takes the files that the library
// embeds. With --far the rows of every matrix lie more than 2³² elements apart, for which a device needs some hundred
// gigabytes, unless they are only addresses, as they are to the oracle.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "kernels_test/cases.hpp"
#include "kernels_test/stored.hpp"

namespace {

struct Test {
    const char *name;
    void (*run)();
};
constexpr Test TESTS[] = {{"numbers", test_numbers},       {"lists", test_lists},   {"product", test_product},
                          {"combine", test_combine},       {"mask", test_mask},     {"latent", test_latent},
                          {"normals", test_normals},       {"finish", test_finish}, {"slopes", test_slopes},
                          {"divergence", test_divergence}, {"sums", test_sums},     {"weigh", test_weigh},
                          {"accumulate", test_accumulate}};

void run(const Test &test) {
    const auto begun = std::chrono::steady_clock::now();
    const size_t cases_before = cases(), mismatches_before = mismatches();
    test.run();
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begun;
    std::printf("%-12s %5zu cases %6zu mismatches %8.2f s\n", test.name, cases() - cases_before,
                mismatches() - mismatches_before, took.count());
    std::fflush(stdout);
}

// One element more than there is: a sanitizer has to see it.
void overrun() {
    List<float> from, to;
    from.host.assign(300, 1.0f);
    to.host.assign(299, 1.0f);
    Device::launch("deliver", 2, 1, 1, 256, Deliver{from.upload(), 300, to.upload(), 1, 300, 1, 0});
}

} // namespace

int main(int count, char **arguments) {
    std::string library = "libcuda.so.1";
    std::vector<std::string> ptx;
    uint64_t seed = 1;
    bool overruns = false;
    const char *only = nullptr;
    for (int at = 1; at < count; at++) {
        const std::string argument = arguments[at];
        if (argument == "--library" && at + 1 < count) {
            library = arguments[++at];
        } else if (argument == "--seed" && at + 1 < count) {
            seed = std::strtoull(arguments[++at], nullptr, 0);
        } else if (argument == "--only" && at + 1 < count) {
            only = arguments[++at];
        } else if (argument == "--far") {
            Layout::far_apart = true;
        } else if (argument == "--overrun") {
            overruns = true;
        } else {
            ptx.push_back(argument);
        }
    }
    Device::open(library, ptx);
    Device::set_seed(seed);
    if (overruns) {
        overrun();
        return EXIT_SUCCESS;
    }
    for (const Test &test : TESTS) {
        if (only == nullptr || std::strcmp(only, test.name) == 0) run(test);
    }
    return mismatches() == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
