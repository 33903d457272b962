// The half of test_errors that is told of errors by results. The codes and error sentences are those of same_failures.
#define PVERA_NO_EXCEPTIONS
#include "errors_as_results.hpp"

namespace {

template <class Result>
std::pair<pvera::code, std::string> told(const Result &result) {
    if (result.has_value()) return {pvera::code::ok, ""};
    return {result.error().code(), std::string(result.error().message())};
}

} // namespace

std::vector<std::pair<pvera::code, std::string>> failures_as_results() {
    const std::vector<float> values(5);
    const auto model = pvera::model::create();
    return {told(pvera::config::from_json("[")),
            told(pvera::config::create()->set_int("r", -1)),
            told(model->find_layer("absent")),
            told(pvera::test_panic("on purpose")),
            told(pvera::as_matrix(values, 2, 3)),
            told(pvera::adapter::load(*model, "no/such/folder")),
            told(pvera::bank::open(*model, "no/such/bank")),
            told(pvera::combine({}, {1.0}))};
}
