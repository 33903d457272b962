// Banks of adapters, adapters combined into one, and stores on a grid.
#include <filesystem>

#include "world.hpp"

namespace {

// A folder that goes with the test, and a path in it.
struct folder {
    char name[32] = "pvera-cpp-bank-XXXXXX";
    std::string bank;

    folder() { CHECK(mkdtemp(name) != nullptr), bank = std::string(name) + "/bank"; }
    ~folder() { std::filesystem::remove_all(name); }
};

pvera::adapter another(const world &all, uint32_t seed) {
    auto adapter = pvera::adapter::create(all.model, all.config, all.adapter.store());
    auto parameters = adapter.parameters();
    check::fill(parameters, seed);
    return adapter;
}

std::vector<float> forward(const world &all, const pvera::snapshot &snapshot, const std::vector<int32_t> &slots) {
    std::vector<float> y(world::n * world::out);
    pvera::rows rows;
    rows.slots(slots);
    all.context.forward(snapshot.linear(0), all.input(), pvera::as_matrix(y, world::n, world::out), rows,
                        pvera::noise(PVERA_MODE_SAMPLE, 5));
    return y;
}

void story() {
    const world all;
    const folder place;
    const auto first = another(all, 10), second = another(all, 11);
    const std::vector<const char *> names = {"two", nullptr, "one", "two", "two", "one"};
    std::vector<int32_t> slots(world::n);
    {
        const auto bank = pvera::bank::open(all.model, place.bank, pvera::bank_options(PVERA_BANK_CREATE));
        bank.append(std::string("one"), first);
        bank.append_many({"two", "three"}, {second.get(), first.get()}, PVERA_F32);
        bank.append("three", second);
        bank.remove("three");
        CHECK(bank.contains("one") && !bank.contains(std::string_view("three")) && bank.usage().adapters == 2);
        CHECK(bank.usage().unused_bytes > 0);
        bank.compact();
        CHECK(bank.usage().unused_bytes == 0 && bank.verify() == 0);
    }
    const auto bank = pvera::bank::open(all.model, place.bank);
    CHECK(bank.name_at(0) == "one" && bank.name_at(1) == "two");
    const auto banked = bank.snapshot(names, slots);
    CHECK(slots[0] == slots[3] && slots[1] == -1 && slots[2] == banked.slot("one"));
    all.model.publish("one", first);
    all.model.publish("two", second);
    const auto published = all.model.snapshot();
    const int32_t one = published.slot("one"), two = published.slot("two");
    const auto wanted = forward(all, published, {two, -1, one, two, two, one});
    CHECK(forward(all, banked, slots) == wanted);
    CHECK(forward(all, published, {one, -1, two, one, one, two}) != wanted);
    const auto read = bank.adapter("two");
    CHECK(all.forward(read.linear(0)) == all.forward(second.linear(0)));
    CHECK(bank.usage().misses == 2 && bank.usage().hits >= 1 && bank.usage().cached == 2);
    CHECK(!bank.refresh());
    {
        const auto writer = pvera::bank::open(all.model, place.bank, pvera::bank_options(PVERA_BANK_WRITE));
        writer.append("two", first);
        writer.append("three", second);
        CHECK(!writer.refresh());
    }
    CHECK(!bank.contains("three") && bank.refresh() && bank.contains("three") && !bank.refresh());
    CHECK(all.forward(bank.adapter("two").linear(0)) == all.forward(first.linear(0)));
    CHECK(all.forward(read.linear(0)) == all.forward(second.linear(0)));
    std::filesystem::remove(place.bank);
    CHECK_THROWS(bank.refresh(), pvera::code::io, place.bank);
    CHECK(bank.contains("three"));
}

void refusals() {
    const world all;
    const folder place;
    CHECK_THROWS(static_cast<void>(pvera::bank::open(all.model, place.bank)), pvera::code::io, place.bank);
    const auto bank = pvera::bank::open(all.model, place.bank, pvera::bank_options(PVERA_BANK_CREATE));
    CHECK_THROWS(static_cast<void>(pvera::bank::open(all.model, place.bank, pvera::bank_options(PVERA_BANK_CREATE))),
                 pvera::code::exists, place.bank);
    CHECK_THROWS(static_cast<void>(pvera::bank::open(all.model, place.bank, pvera::bank_options(PVERA_BANK_WRITE))),
                 pvera::code::state, "being written");
    CHECK_THROWS(static_cast<void>(pvera::bank::open(all.model, place.bank, pvera::bank_options(9))), pvera::code::argument,
                 "options.access is 9");
    const pvera_adapter *const one = all.adapter.get();
    CHECK_THROWS(bank.append_many({"one", "two"}, {one}), pvera::code::shape, "adapters has 1|names, 2");
    CHECK_THROWS(bank.append_many({"one", nullptr}, {one, one}), pvera::code::null, "names[1] is NULL");
    CHECK_THROWS(bank.append_many({"one", "one"}, {one, one}), pvera::code::argument, "names[1] is 'one'");
    CHECK_THROWS(bank.append("one", pvera::adapter()), pvera::code::null, "adapters[0] is NULL");
    CHECK_THROWS(bank.append(std::string("o\0e", 3), all.adapter), pvera::code::null, "names[0] is NULL");
    CHECK_THROWS(bank.remove("one"), pvera::code::not_found, "'one'");
    CHECK_THROWS(bank.remove_many({"one", "two"}), pvera::code::not_found, "'one'");
    CHECK_THROWS(static_cast<void>(bank.adapter("one")), pvera::code::not_found, "'one'|it holds 0");
    CHECK_THROWS(static_cast<void>(bank.name_at(0)), pvera::code::not_found, "number 0");
    std::array<int32_t, 2> slots{7, 7};
    CHECK_THROWS(static_cast<void>(bank.snapshot({"one"}, slots)), pvera::code::shape, "slots has 2|names, 1");
    CHECK_THROWS(static_cast<void>(bank.snapshot({nullptr, "one"}, slots)), pvera::code::not_found, "'one'");
    CHECK(slots[0] == 7 && bank.usage().adapters == 0);
    CHECK_THROWS(pvera::bank().compact(), pvera::code::null, "bank is NULL");
}

void outlines() {
    const world all;
    const folder place;
    {
        const auto writer = pvera::bank::open(all.model, place.bank, pvera::bank_options(PVERA_BANK_CREATE));
        writer.append("one", all.adapter);
    }
    const auto strange = pvera::model::create();
    const auto bank = pvera::bank::open(strange, place.bank);
    CHECK(bank.usage().families == 1);
    const std::string saved = std::string(place.name) + "/checkpoint";
    all.adapter.save(saved);
    const auto family = pvera::outline::from_bank(bank, 0), checkpoint = pvera::outline::from_checkpoint(saved);
    CHECK(family.config().get_int("r") == all.config.get_int("r") && family.info().holds_projections == 0);
    CHECK(checkpoint.config().get_int("r") == all.config.get_int("r") && checkpoint.info().holds_projections == 1);
    CHECK(family.info().modules == checkpoint.info().modules && family.info().modules > 0);
    for (std::size_t i = 0; i < family.info().modules; ++i) {
        const auto one = family.module_at(i), other = checkpoint.module_at(i);
        CHECK(one.path == other.path && one.out_features == other.out_features && one.learns_bias == other.learns_bias);
    }
    const auto checked = pvera::check_checkpoint(saved);
    CHECK(checked.held && checked.base_dtype.bits == 32 && checked.grid == PVERA_GRID_NONE);
    CHECK_THROWS(static_cast<void>(pvera::outline::from_bank(bank, 1)), pvera::code::not_found, "family 1");
    CHECK_THROWS(static_cast<void>(pvera::outline::from_checkpoint(place.bank)), pvera::code::io, place.bank);
    CHECK_THROWS(static_cast<void>(family.module_at(99)), pvera::code::not_found, "module 99");
}

struct mine {};

template <class Call>
bool throws_mine(Call call) {
    try {
        call();
    } catch (const mine &) {
        return true;
    }
    return false;
}

// A bank calls its model's callables, also when the model is gone, and their exceptions come out of its calls.
void callbacks() {
    const folder place;
    int stages = 0;
    bool throws = false;
    pvera::callbacks called;
    called.progress_made = [&](std::string_view stage, uint64_t, uint64_t) {
        stages += stage == "verify adapters";
        if (throws) throw mine();
        return pvera::progress::go_on;
    };
    pvera::bank bank;
    {
        const world all(pvera::model::create(std::move(called)));
        bank = pvera::bank::open(all.model, place.bank, pvera::bank_options(PVERA_BANK_CREATE));
        bank.append("one", all.adapter);
    }
    CHECK(bank.verify() == 0 && stages == 1);
    throws = true;
    CHECK(throws_mine([&] { static_cast<void>(bank.verify()); }) && stages == 2);
    CHECK(throws_mine([&] { bank.compact(); }));
    throws = false;
    CHECK(bank.contains("one") && bank.verify() == 0);
}

void combining() {
    const world all;
    const auto first = another(all, 10), second = another(all, 11);
    const std::vector<const pvera_adapter *> both = {first.get(), second.get()};
    CHECK(pvera::combine(both, {1, 1}).error > 0.1);
    const auto twice = pvera::combine({first.get(), first.get()}, {0.75, 0.25});
    CHECK(twice.error < 1e-6 && twice.adapter.parameter_count() == first.parameter_count());
    CHECK_CLOSE("a combination of one", all.forward(twice.adapter.linear(0)), all.forward(first.linear(0)), 1e-6);
    CHECK_THROWS(static_cast<void>(pvera::combine(both, {1})), pvera::code::shape, "weights has 1|adapters, 2");
    CHECK_THROWS(static_cast<void>(pvera::combine(both, {1, NAN})), pvera::code::argument, "weights[1] is NaN");
    CHECK_THROWS(static_cast<void>(pvera::combine({}, {})), pvera::code::argument, "count is 0");
}

void grids() {
    pvera::store_options options(64, 128, 128);
    const auto exact = pvera::store::from_key(7, options);
    options.grid = PVERA_GRID_INT8;
    const auto grid = pvera::store::from_key(7, options);
    CHECK(grid.packed_bytes(PVERA_PACK_FORWARD) * 4 == exact.packed_bytes(PVERA_PACK_FORWARD) && !grid.equals(exact));
    options.base_dtype = PVERA_F16;
    CHECK_THROWS(static_cast<void>(pvera::store::from_key(7, options)), pvera::code::argument, "options.grid|options.base_dtype is f16");
}

} // namespace

int main() {
    return check::run([] {
        story();
        refusals();
        outlines();
        callbacks();
        combining();
        grids();
    });
}
