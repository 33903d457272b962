// Both ways to be told of an error, in one program: exceptions here, results in errors_as_results.cpp; the same failures, the same
// codes and sentences; and an error that outlives what failed.
#include "errors_as_results.hpp"

#include <memory>

#include "world.hpp"

namespace {

template <class Call>
std::pair<pvera::code, std::string> thrown(Call call) {
    try {
        call();
    } catch (const pvera::exception &error) {
        const pvera::exception copy = error; // NOLINT: a thrown one is copied
        return {copy.code(), copy.what()};
    }
    return {pvera::code::ok, ""};
}

void same_failures() {
    const auto as_results = failures_as_results();
    const std::pair<pvera::code, std::string> as_exceptions[] = {
        thrown([] { static_cast<void>(pvera::config::from_json("[")); }),
        thrown([] { pvera::config::create().set_int("r", -1); }),
        thrown([] { static_cast<void>(pvera::model::create().find_layer("absent")); }),
        thrown([] { pvera::test_panic("on purpose"); }),
        thrown([] {
            const std::vector<float> values(5);
            static_cast<void>(pvera::as_matrix(values, 2, 3));
        }),
        thrown([] { static_cast<void>(pvera::adapter::load(pvera::model::create(), "no/such/folder")); }),
        thrown([] { static_cast<void>(pvera::bank::open(pvera::model::create(), "no/such/bank")); }),
        thrown([] { static_cast<void>(pvera::combine({}, {1.0})); }),
    };
    CHECK(as_results.size() == std::size(as_exceptions));
    for (std::size_t i = 0; i < as_results.size(); ++i) {
        check::that(as_results[i] == as_exceptions[i], __FILE__, __LINE__,
                    "as a result \"" + as_results[i].second + "\", as an exception \"" + as_exceptions[i].second + "\"");
        CHECK(as_exceptions[i].first != pvera::code::ok && !as_exceptions[i].second.empty());
    }
}

void sentences() {
    const world all;
    std::vector<float> y(world::n * world::out), short_one(3);
    const auto linear = all.adapter.linear(0);
    CHECK_THROWS(all.context.forward(linear, pvera::matrix(all.x.data(), world::n, 4), pvera::as_matrix(y, world::n, world::out)),
                 pvera::code::shape, "x|4|9");
    CHECK_THROWS(all.context.forward_group({linear, linear}, all.input(), {pvera::as_matrix(y, world::n, world::out)}),
                 pvera::code::shape, "y has 1|linears, 2");
    CHECK_THROWS(pvera::adamw().step(1, y, short_one, y, y), pvera::code::shape, "gradients has 3|parameters, 78");
    CHECK_THROWS(pvera::adamw().step(1, y, y, short_one, y), pvera::code::shape, "first_moments has 3");
    CHECK_THROWS(pvera::adamw().step(1, y, y, y, short_one), pvera::code::shape, "second_moments has 3");
    std::vector<double> lower(2), upper(3);
    CHECK_THROWS(pvera::statistics::create(1, 2).mean_interval(0.9, lower, upper), pvera::code::shape, "upper has 3|lower, 2");
    const std::vector<double> confidence(4);
    const std::vector<uint8_t> correct(3);
    std::array<pvera::bin, 2> bars{};
    CHECK_THROWS(static_cast<void>(pvera::calibration(confidence, correct, bars)), pvera::code::shape, "correct has 3|confidence, 4");
}

// It is the standard library's too, and so are its handlers.
void as_std_exception() {
    std::unique_ptr<std::runtime_error> kept;
    try {
        pvera::model::create().remove("absent");
    } catch (const std::runtime_error &error) {
        kept = std::make_unique<std::runtime_error>(error);
    }
    CHECK(kept && std::string_view(kept->what()).find("'absent'") != std::string_view::npos);
}

} // namespace

int main() {
    return check::run([] {
        same_failures();
        sentences();
        as_std_exception();
    });
}
