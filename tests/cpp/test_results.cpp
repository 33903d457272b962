// Everything by results, built with -fno-exceptions: a layer trained, published, sampled and saved, and the same call failing.
#include "check.hpp"

#ifndef PVERA_NO_EXCEPTIONS
#error "this test is built with -fno-exceptions"
#endif

#include <array>
#include <type_traits>
#include <vector>

namespace {

constexpr std::size_t in = 9, out = 13, n = 6;

#define CHECK_ERROR(result, wanted_code, words) \
    do { \
        const auto &told = (result); \
        if (check::that(!told.has_value(), __FILE__, __LINE__, #result " succeeds")) \
            check::error_is(told.error().code(), told.error().message(), wanted_code, words, __FILE__, __LINE__); \
    } while (false)

static_assert(std::is_same_v<decltype(pvera::config::create()), pvera::result<pvera::config>>);
static_assert(std::is_nothrow_move_constructible_v<pvera::result<pvera::store>> && !std::is_copy_constructible_v<pvera::error>);

void values_and_errors() {
    auto config = pvera::config::create();
    CHECK(config && config->set_int("r", 4) && config->set_text("target_modules", "q"));
    CHECK(*config->get_int("r") == 4);
    CHECK_ERROR(config->set_int("r", 0), pvera::code::config, "r|0");
    CHECK_ERROR(config->get_real("task_type"), pvera::code::config, "task_type|number");
    CHECK(config->validate().error().code() == pvera::code::ok);

    pvera::config taken = *std::move(config);
    CHECK(taken && !config->get());
    auto moved = pvera::result<pvera::config>(std::move(taken));
    const auto again = std::move(moved);
    CHECK(again && *again->get_text("target_modules") == "q");

    auto failed = pvera::config::from_json("{");
    const auto elsewhere = std::move(failed);
    CHECK_ERROR(elsewhere, pvera::code::format, "");
    CHECK_ERROR(pvera::linear_ref().pack_base(1), pvera::code::null, "linear|NULL");
    const std::vector<float> seven(7);
    CHECK_ERROR(pvera::as_matrix(seven, 2, 3), pvera::code::shape, "7|2 x 3");
    CHECK_ERROR(pvera::from_dlpack(pvera::dlpack::tensor{}), pvera::code::shape, "0 dimensions");
}

// What README says of passing errors on, through two functions of other types: the library's own sentence arrives, not a copy.
pvera::result<pvera::adapter> adapter_from(const pvera::model &model, const char *folder) {
    auto adapter = pvera::adapter::load(model, folder);
    if (!adapter) return std::move(adapter).error();
    return adapter;
}

pvera::result<void> loads_from(const pvera::model &model, const char *folder, const char **sentence) {
    auto adapter = adapter_from(model, folder);
    if (adapter) return {};
    *sentence = adapter.error().message().data();
    return std::move(adapter).error();
}

void errors_passed_on() {
    const auto model = pvera::model::create();
    const char *sentence = nullptr;
    auto failed = loads_from(*model, "no/such/folder", &sentence);
    CHECK_ERROR(failed, pvera::code::io, "no/such/folder");
    CHECK(sentence && failed.error().message().data() == sentence);
    const pvera::error kept = std::move(failed).error();
    CHECK(kept.code() == pvera::code::io && kept.message().data() == sentence);
    static_assert(std::is_same_v<decltype(std::declval<pvera::result<bool>>().error()), pvera::error &&>);
    static_assert(std::is_same_v<decltype(std::declval<const pvera::result<bool> &>().error()), const pvera::error &>);
}

// A truth value that came back is asked for, not mistaken for success.
void truths() {
    static_assert(!std::is_constructible_v<bool, pvera::result<bool>> && std::is_constructible_v<bool, pvera::result<int32_t>>);
    auto config = pvera::config::create();
    const auto drawn = config->get_bool("sample_at_inference");
    CHECK(drawn.has_value() && !*drawn);
    CHECK_ERROR(config->get_bool("r"), pvera::code::config, "r|true or false");
}

// Spans keep their counts here too.
void counts() {
    const auto model = pvera::model::create();
    CHECK(model->declare(pvera::layer("q", in, out)));
    auto config = pvera::config::create();
    CHECK(config->set_int("r", 4) && config->set_text("target_modules", "q"));
    const auto adapter = pvera::adapter::create(*model, *config);
    const auto linear = adapter->linear(0);
    const auto context = pvera::context::create();
    std::array<float, n * in> x{};
    std::array<float, n * out> y{};
    const std::array<int32_t, n - 1> slots{};
    CHECK_ERROR(context->forward(*linear, *pvera::as_matrix(x, n, in), *pvera::as_matrix(y, n, out), pvera::rows().slots(slots)),
                pvera::code::shape, "rows.slot has 5|wanted 6");
    CHECK_ERROR(linear->project_width(n, pvera::rows().slots(slots)), pvera::code::shape, "rows.slot has 5|wanted 6");
    CHECK_ERROR(adapter->gradients_in(y, 0), pvera::code::shape, "gradients has 78|wanted 21");
}

// A callable is called and asked, without exceptions too.
void callbacks() {
    int steps = 0;
    pvera::callbacks called;
    called.progress_made = [&](std::string_view, uint64_t, uint64_t) { return ++steps, pvera::progress::stop; };
    const auto model = pvera::model::create(std::move(called));
    CHECK(model->declare(pvera::layer("q", 4000, 4000)));
    auto config = pvera::config::create();
    CHECK(config->set_text("target_modules", "q"));
    CHECK_ERROR(pvera::adapter::create(*model, *config), pvera::code::cancelled, "");
    CHECK(steps == 1);
}

void whole_job() {
    std::array<float, n * in> x{};
    std::array<float, n * out> y{}, again{};
    std::array<float, 3 * n * out> draws{};
    check::fill(x, 1);
    const auto input = pvera::as_matrix(x, n, in);
    const auto context = pvera::context::create();
    const auto model = pvera::model::create();
    auto config = pvera::config::create();
    CHECK(model->declare(pvera::layer("q", in, out)));
    CHECK(config->set_int("r", 4) && config->set_text("target_modules", "q"));
    const auto adapter = pvera::adapter::create(*model, *config);
    auto parameters = *adapter->parameters();
    check::fill(parameters, 2);
    const auto linear = adapter->linear(0);
    auto tape = pvera::tape::create();
    std::array<float, out> lambda_b{};
    const std::array<pvera::slot_gradients, 1> places{{{0, lambda_b.data(), nullptr, nullptr}}};
    CHECK(context->forward(*tape, *linear, *input, *pvera::as_matrix(y, n, out)));
    CHECK(context->backward(*tape, *pvera::as_matrix(y, n, out), pvera::gradients().into(places)));
    CHECK(lambda_b[0] != 0 && model->publish("one", *adapter));
    const auto snapshot = model->snapshot();
    const auto lent = snapshot->linear(0);
    const auto files = adapter->save_memory();
    CHECK(lent && files && pvera::adapter::load_memory(*model, files->config, files->tensors));
    CHECK(context->sample(*lent, *input, *pvera::as_matrix(draws, 3 * n, out), 3));
    CHECK(context->forward(*lent, *input, *pvera::as_matrix(again, n, out), pvera::rows(), pvera::noise(PVERA_MODE_SAMPLE)));
    CHECK(std::memcmp(draws.data(), again.data(), sizeof again) == 0);
    CHECK_ERROR(model->publish("one", *adapter), pvera::code::exists, "'one'");

    char path[] = "pvera-results-XXXXXX";
    const int file = mkstemp(path);
    CHECK(file >= 0 && close(file) == 0 && std::remove(path) == 0);
    const auto bank = pvera::bank::open(*model, path, pvera::bank_options(PVERA_BANK_CREATE));
    CHECK(bank && bank->append("one", *adapter) && *bank->contains("one") && *bank->name_at(0) == "one");
    CHECK_ERROR(bank->append_many({"two", ""}, {adapter->get(), adapter->get()}), pvera::code::argument, "names[1] has 0 bytes");
    CHECK(bank->usage()->adapters == 1 && *bank->verify() == 0 && bank->compact());
    CHECK(!*bank->refresh());
    std::array<int32_t, n> slots{};
    const auto rows = bank->snapshot({"one", nullptr, "one", "one", "one", "one"}, slots);
    CHECK(rows && slots[0] == 0 && slots[1] == -1);
    CHECK_ERROR(bank->snapshot({"one"}, slots), pvera::code::shape, "slots has 6|names, 1");
    CHECK_ERROR(bank->adapter("two"), pvera::code::not_found, "'two'");
    CHECK(bank->adapter("one") && bank->remove("one"));
    const auto sum = pvera::combine({adapter->get(), adapter->get()}, {0.5, 0.5});
    CHECK(sum && sum->error < 1e-6);
    std::remove(path);
}

} // namespace

int main() {
    return check::run([] {
        values_and_errors();
        errors_passed_on();
        truths();
        counts();
        callbacks();
        whole_job();
    });
}
