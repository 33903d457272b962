// Owners: moves, moved-from and empty ones, clones, giving away and taking; views and texts that convert from what C++ has.
#include <string>
#include <type_traits>
#if __cplusplus >= 202002L
#include <span>
#endif

#include "world.hpp"

namespace {

// Moves, frees, and is as large as a pointer where it carries no callable.
template <class Owner>
constexpr bool is_owner = std::is_nothrow_move_constructible_v<Owner> && std::is_nothrow_move_assignable_v<Owner> &&
                          !std::is_copy_constructible_v<Owner> && !std::is_copy_assignable_v<Owner> &&
                          std::is_nothrow_default_constructible_v<Owner>;
static_assert(is_owner<pvera::config> && is_owner<pvera::store> && is_owner<pvera::model> && is_owner<pvera::adapter> && is_owner<pvera::bank> && is_owner<pvera::outline> &&
              is_owner<pvera::snapshot> && is_owner<pvera::linear> && is_owner<pvera::context> && is_owner<pvera::tape> &&
              is_owner<pvera::undo> && is_owner<pvera::statistics> && is_owner<pvera::torch_generator> && is_owner<pvera::bytes>);
static_assert(sizeof(pvera::store) == sizeof(void *) && sizeof(pvera::linear) == sizeof(void *) &&
              sizeof(pvera::tape) == sizeof(void *) && std::is_trivially_copyable_v<pvera::linear_ref>);
static_assert(std::is_convertible_v<pvera::matrix_mut, pvera::matrix> && !std::is_convertible_v<pvera::matrix, pvera::matrix_mut>);
static_assert(!std::is_convertible_v<std::vector<float> &&, pvera::span<float>>, "it would be gone before anybody reads it");
static_assert(!std::is_convertible_v<const std::vector<float> &, pvera::span<float>>);
static_assert(std::is_convertible_v<std::vector<float> &, pvera::span<const float>>);
static_assert(!std::is_convertible_v<std::vector<double> &, pvera::span<const float>>);

void moves() {
    const world all;
    pvera::config first = pvera::config::create();
    first.set_int("r", 7);
    const pvera_config *const raw = first.get();
    pvera::config second = std::move(first);
    CHECK(!first && second && second.get() == raw);
    CHECK_THROWS(static_cast<void>(first.get_int("r")), pvera::code::null, "config|NULL");
    pvera::config third;
    CHECK(!third);
    third = std::move(second);
    pvera::config &itself = third;
    third = std::move(itself); // a self-move keeps what it has
    CHECK(third.get() == raw && third.get_int("r") == 7);
    third = pvera::config::create(); // the old one is freed
    CHECK(third.get_int("r") == 256);
    pvera::config taken(third.release());
    CHECK(!third && taken.get_int("r") == 256);

    const pvera::linear gone;
    std::vector<float> y(world::n * world::out);
    CHECK_THROWS(all.context.forward(gone, all.input(), pvera::as_matrix(y, world::n, world::out)), pvera::code::null, "linear|NULL");
}

// What a handle lent or shares outlives the handle it came from.
void lifetimes() {
    world all;
    const auto wanted = all.forward(all.adapter.linear(0));
    const pvera::linear linear = all.adapter.linear(0);
    const pvera::adapter same = all.adapter.clone();
    CHECK(same.parameters().data() == all.adapter.parameters().data());
    const pvera::store store = all.adapter.store(), shared = store.clone();
    CHECK(store.matrices().a.data == shared.matrices().a.data && store.equals(shared));
    all.model.publish("one", all.adapter);
    const pvera::snapshot snapshot = all.model.snapshot();
    all.adapter = pvera::adapter();
    all.model = pvera::model();
    CHECK(all.forward(linear) == wanted);
    CHECK(all.forward(snapshot.linear(0)) == wanted);
    CHECK(all.forward(same.linear(0)) == wanted);
}

// Config: every type of field, and its JSON.
void configs() {
    auto config = pvera::config::from_json(R"({"peft_type": "PVERA", "r": 3, "target_modules": ["q"], "strange": [1]})");
    CHECK(config.get_int("r") == 3 && config.get_json("strange") == "[1]");
    config.set_real("d_initial", 0.25);
    config.set_bool("sample_at_inference", true);
    config.set_text("bias", std::string("pvera_only"));
    config.set_json("target_modules", std::string_view(R"(["q", "v"] and more)", 10));
    const auto copy = config.clone();
    config.set_int("r", 9);
    CHECK(copy.get_int("r") == 3 && copy.get_real("d_initial") == 0.25 && copy.get_bool("sample_at_inference"));
    CHECK(copy.get_text("bias") == "pvera_only" && copy.targets("model.v") && !copy.targets("model.k"));
    CHECK(pvera::config::from_json(copy.to_json()).get_json("target_modules") == copy.get_json("target_modules"));
    copy.validate();
    CHECK_THROWS(config.set_int("r", 0), pvera::code::config, "r|0");
    CHECK_THROWS(static_cast<void>(pvera::config::from_json("{")), pvera::code::format, "");
}

void views() {
    std::vector<float> vector(6, 1);
    const std::array<float, 6> array{};
    float plain[6] = {};
    CHECK(pvera::as_matrix(vector, 2, 3).data == vector.data() && pvera::as_matrix(array, 3, 2).row_stride == 2);
    static_assert(std::is_same_v<decltype(pvera::as_matrix(vector, 2, 3)), pvera::matrix_mut>);
    static_assert(std::is_same_v<decltype(pvera::as_matrix(array, 2, 3)), pvera::matrix>);
    CHECK_THROWS(static_cast<void>(pvera::as_matrix(vector, 2, 4)), pvera::code::shape, "6 elements|2 x 4");
    CHECK_THROWS(static_cast<void>(pvera::as_matrix(vector, SIZE_MAX / 2 + 4, 2)), pvera::code::shape, "6 elements");
    CHECK_THROWS(static_cast<void>(pvera::as_matrix(vector, 6, 0)), pvera::code::shape, "6 x 0");
    const pvera::matrix strided(plain, 2, 2, 3);
    CHECK(strided.data == plain && strided.rows == 2 && strided.cols == 2 && strided.row_stride == 3 && strided.dtype.bits == 32);
    const pvera::span<float> span(plain);
    CHECK(span.size() == 6 && span.data() == plain && pvera::span<const float>(span).size() == 6 && span.subspan(2, 3).data() == plain + 2);
    CHECK(pvera::span<const int32_t>({4, 5}).size() == 2 && pvera::span<float>().empty());
#if __cplusplus >= 202002L
    const std::span<const float> standard(vector);
    CHECK(pvera::as_matrix(standard, 2, 3).data == vector.data() && pvera::span<const float>(standard).size() == 6);
#endif
}

void texts() {
    const std::string name = "q", cut("q\0evil", 6);
    const world all;
    CHECK(all.model.find_layer(name) == 0 && all.model.find_layer(std::string_view("verdi", 1)) == 1);
    CHECK_THROWS(static_cast<void>(all.model.find_layer(cut)), pvera::code::null, "name");
    CHECK_THROWS(static_cast<void>(all.model.find_layer(std::string_view(cut))), pvera::code::null, "name");
    CHECK_THROWS(static_cast<void>(all.model.find_layer("w")), pvera::code::not_found, "'w'");
    CHECK(pvera::version() == PVERA_VERSION && pvera::version_text() == PVERA_VERSION_TEXT);
    CHECK_THROWS(pvera::test_panic("on purpose"), pvera::code::panic, "on purpose");
}

void files() {
    const world all;
    auto first = all.adapter.save_memory();
    const auto second = std::move(first);
    CHECK(first.config.data() == nullptr && first.config.size() == 0 && second.config.size() > 0);
    const auto loaded = pvera::adapter::load_memory(all.model, second.config, second.tensors);
    CHECK(all.forward(loaded.linear(0)) == all.forward(all.adapter.linear(0)));
    CHECK(pvera::store::from_memory(second.tensors).equals(all.adapter.store()));
    auto bytes = pvera::bytes();
    bytes = pvera::bytes(std::move(first.tensors));
    pvera::bytes &itself = bytes;
    bytes = std::move(itself);
    CHECK(bytes.size() == 0);
}

} // namespace

int main() {
    return check::run([] {
        moves();
        lifetimes();
        configs();
        views();
        texts();
        files();
    });
}
