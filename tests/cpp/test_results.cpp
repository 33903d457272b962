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
        if (check::that(!told, __FILE__, __LINE__, #result " succeeds")) \
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
        callbacks();
        whole_job();
    });
}
