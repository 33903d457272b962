// Checks of the numbers that everything else is checked against: known answers, and the definition's own words.
#include <cmath>

#include "cases.hpp"
#include "stored.hpp"

static void demand(bool holds, const char *what) {
    if (!holds) mismatch(what);
}

// Every f16 and bf16 survives widening and narrowing; halfway between two neighbours goes to the even one.
static void test_types() {
    for (const Dtype dtype : {DTYPE_F16, DTYPE_BF16}) {
        for (uint32_t bits = 0; bits < 0x10000; bits++) {
            const float value = widened(dtype, bits);
            if (std::isnan(value)) {
                demand(std::isnan(widened(dtype, narrowed(dtype, value))), "a NaN stays one");
                continue;
            }
            demand(narrowed(dtype, value) == bits, "narrowing undoes widening");
            const float next = widened(dtype, bits + 1);
            if ((bits & 0x7fff) == 0x7fff || !std::isfinite(next) || !std::isfinite(value)) continue;
            const float half = static_cast<float>((static_cast<double>(value) + next) / 2);
            demand(narrowed(dtype, half) == bits + bits % 2, "ties go to even");
            demand(narrowed(dtype, std::nextafter(half, value)) == bits, "below half goes down");
            demand(narrowed(dtype, std::nextafter(half, next)) == bits + 1, "above half goes up");
        }
    }
    demand(narrowed(DTYPE_F16, 65520.0f) == 0x7c00 && narrowed(DTYPE_F16, 65519.0f) == 0x7bff,
           "f16 overflows at 65520");
}

static void test_functions() {
    for (int step = -4000; step <= 4000; step++) {
        const float x = static_cast<float>(step) / 50;
        demand(std::fabs(exponential(x) / std::exp(static_cast<double>(x)) - 1) < 1.2e-7, "exp");
    }
    demand(exponential(89.0f) == INFINITY && exponential(-104.0f) == 0 && std::isnan(exponential(NAN)),
           "exp at its ends");
    demand(logarithm(1.0f) == 0, "log 1");
    for (int step = 1; step <= 4000; step++) {
        const double x = static_cast<float>(step) / 4001;
        demand(std::fabs(logarithm(static_cast<float>(x)) - std::log(x)) < 2e-7 * std::fabs(std::log(x)), "log");
        const auto word = static_cast<uint32_t>(step) * 2654435761u;
        const auto [sin, cos] = sincos_turns(word);
        const double angle = word * (2 * M_PI / 4294967296.0);
        demand(std::fabs(sin - std::sin(angle)) < 2e-7 && std::fabs(cos - std::cos(angle)) < 2e-7, "sine and cosine");
    }
}

// The frozen values of src/noise/tests/definition.rs.
static void test_noise() {
    const Key key{1, 2, 3};
    static constexpr uint32_t NORMALS[] = {1033117548, 1028869732, 1080525126, 3224549571, 1059937524, 1050800309,
                                           3203881243, 3209237616, 3213537679, 1061889624, 1061538100, 3193011801,
                                           1066914287, 1053696105, 3207205618, 3212240638, 1061774778, 1061225694};
    uint64_t latent = 0;
    for (uint32_t bits : NORMALS)
        demand(bits_as<uint32_t>(normal_of(key, 4, 5, false, latent++)) == bits, "a frozen normal");
    constexpr uint32_t QUARTER = 1u << 30, KEPT = 0xbaefddff;
    for (uint32_t col = 0; col < 32; col++) {
        demand((word_of(key, Domain::DROPOUT, 4, 5, col) >= QUARTER) == (KEPT >> col & 1), "a frozen mask");
    }
    demand(normal_of(key, 4, 10, true, 6) == normal_of(key, 4, 5, false, 6), "antithetic samples halve");
    demand(normal_of(key, 4, 11, true, 6) == -normal_of(key, 4, 5, false, 6), "and are opposite");
}

void test_numbers() {
    begin_case("numbers");
    test_types();
    test_functions();
    test_noise();
}
