// Tests every kernel against scalar C++ that was written from its contract, bit for bit.
//
//     kernels_test [--library libcuda.so.1] [--seed n] [--kernel latent] [--first] [--far] [--overrun] [--times]
//                  [file.ptx ...]
//
// Over the oracle it needs nothing; over a GPU, or a double that interprets PTX, it takes the files that the library
// embeds. --kernel runs what tests one kernel; with --first a mismatch is the end. With --far the rows of every matrix
// lie more than 2³² elements apart, for which a device needs some hundred gigabytes, unless they are only addresses, as
// they are to the oracle. With --times it tests nothing, and prints how long products take on a GPU.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "kernels_test/cases.hpp"
#include "kernels_test/stored.hpp"
#include "kernels_test/times.hpp"

namespace {

struct Test {
    const char *name;
    void (*run)();
    // Which it tests, where it is not named after one.
    const char *kernel = nullptr;

    bool is_of(const char *wanted) const { return std::strcmp(kernel ? kernel : name, wanted) == 0; }
};
constexpr Test TESTS[] = {{"numbers", test_numbers, ""},
                          {"put", test_put},
                          {"resolve", test_resolve},
                          {"product_split_k", test_product_split_k},
                          {"product_split_j", test_product_split_j},
                          {"product_tile_k", test_product_tile_k},
                          {"product_tile_j", test_product_tile_j},
                          {"combine", test_combine},
                          {"mask", test_mask},
                          {"latent", test_latent},
                          {"normals", test_normals, "latent"},
                          {"finish", test_finish},
                          {"weigh", test_weigh},
                          {"slopes", test_slopes},
                          {"divergence", test_divergence},
                          {"kl_total", test_kl_total},
                          {"sums", test_sums},
                          {"deliver", test_deliver},
                          {"accumulate", test_accumulate}};

void run(const Test &test) {
    const auto begun = std::chrono::steady_clock::now();
    const size_t cases_before = cases(), mismatches_before = mismatches();
    test.run();
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begun;
    std::printf("%-16s %5zu cases %6zu mismatches %8.2f s\n", test.name, cases() - cases_before,
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
    bool overruns = false, times = false;
    const char *kernel = nullptr;
    for (int at = 1; at < count; at++) {
        const std::string argument = arguments[at];
        if (argument == "--library" && at + 1 < count) {
            library = arguments[++at];
        } else if (argument == "--seed" && at + 1 < count) {
            seed = std::strtoull(arguments[++at], nullptr, 0);
        } else if (argument == "--kernel" && at + 1 < count) {
            kernel = arguments[++at];
        } else if (argument == "--first") {
            end_at_first_mismatch();
        } else if (argument == "--far") {
            Layout::far_apart = true;
        } else if (argument == "--overrun") {
            overruns = true;
        } else if (argument == "--times") {
            times = true;
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
    if (times) {
        print_times();
        return EXIT_SUCCESS;
    }
    for (const Test &test : TESTS) {
        if (kernel == nullptr || test.is_of(kernel)) run(test);
    }
    return mismatches() == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
