// What memory the binding takes: none on the way through forward, backward and sample, and none that is left after 10,000 rounds of
// creating, using, moving and freeing one of everything, failures and exceptions included.
#include <malloc.h>

#include <new>

#include "world.hpp"

namespace {

std::size_t allocations = 0;

} // namespace

// Counted: what C++ code allocates. The library's own memory does not come this way. (Inlined, gcc would take malloc and delete for
// a mismatch.)
[[gnu::noinline]] void *operator new(std::size_t size) {
    ++allocations;
    void *const memory = std::malloc(size);
    if (!memory) throw std::bad_alloc();
    return memory;
}
[[gnu::noinline]] void operator delete(void *memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void *memory, std::size_t) noexcept { std::free(memory); }

namespace {

constexpr std::size_t n = world::n, in = world::in, out = world::out;

void no_allocation_in_a_pass() {
    world all;
    all.model.publish("one", all.adapter);
    const auto snapshot = all.model.snapshot();
    const auto q = all.adapter.linear(0), v = all.adapter.linear(1);
    auto tape = pvera::tape::create();
    std::vector<float> y(n * out), other(n * world::v_out), draws(4 * n * out), lambda_b(out), dx(n * in);
    const std::string name = "one";
    auto statistics = pvera::statistics::create(n, out);
    const auto pass = [&] {
        const int32_t slot = snapshot.slot(name);
        const pvera::active active[] = {{slot, 1}};
        const auto view = pvera::as_matrix(y, n, out);
        all.context.forward(snapshot.linear(0), all.input(), view, pvera::rows().summed(active));
        all.context.sample(snapshot.linear(0), all.input(), pvera::as_matrix(draws, 4 * n, out), 4);
        all.context.forward_group(tape, {q, v}, all.input(), {view, pvera::as_matrix(other, n, world::v_out)});
        const pvera::slot_gradients places[] = {{0, lambda_b.data(), nullptr, nullptr}};
        std::array<pvera::gradients, 2> wanted;
        wanted[0].into(places);
        all.context.backward_group(tape, {view, pvera::as_matrix(other, n, world::v_out)}, wanted, pvera::as_matrix(dx, n, in));
        all.context.forward(tape, q, all.input(), view);
        all.context.backward(tape, view, wanted[0]);
        statistics.add(view);
    };
    pass();
    const std::size_t before = allocations;
    pass();
    const std::size_t made = allocations - before;
    CHECK(made == 0);
}

// One of everything, used, moved and freed.
void round() {
    struct thrown {};
    pvera::callbacks called;
    called.progress_made = [](std::string_view, uint64_t, uint64_t) { return pvera::progress::go_on; };
    called.warning = [](std::string_view) { throw thrown(); };
    world all(pvera::model::create(std::move(called)));
    const auto store = all.adapter.store().clone();
    const auto copy = all.adapter.trainable(), clone = copy.clone();
    all.model.publish("one", all.adapter);
    all.model.replace("one", copy);
    const auto snapshot = all.model.snapshot();
    auto linear = copy.linear(0);
    auto tape = pvera::tape::create(PVERA_TAPE_KEEP_DELTA);
    std::vector<float> y(n * out), weight = all.weight;
    const auto view = pvera::as_matrix(y, n, out);
    all.context.forward(tape, linear, all.input(), view);
    all.context.backward(tape, view, pvera::gradients());
    all.context.forward(snapshot.linear(0), all.input(), view);
    pvera::task *outside = nullptr;
    const auto host = pvera::context::create([&](std::size_t, pvera::task &run) { outside = &run; throw thrown(); }, 2);
    try {
        host.forward(linear, all.input(), view);
    } catch (const thrown &) {
    }
    const auto undo = all.context.merge_with_undo(linear, pvera::as_matrix(weight, out, in), pvera::as_matrix(weight, out, in));
    auto statistics = pvera::statistics::create(n, out);
    statistics.add(view);
    auto generator = pvera::torch_generator::create(1);
    generator.normals(y);
    auto files = copy.save_memory();
    files = copy.save_memory(); // the first bytes are freed
    const auto loaded = pvera::adapter::load_memory(all.model, files.config, files.tensors);
    try {
        all.config.set_int("r", -1);
    } catch (const pvera::exception &) {
    }
    const auto exported = pvera::to_dlpack(pvera::matrix_mut(weight.data(), out, in), std::move(weight));
    auto config = loaded.config();
    const auto moved = std::move(config);
    linear = loaded.linear(1);
    all.adapter = pvera::adapter();
    static_cast<void>(moved.to_json());
}

// Bytes that are allocated and not freed, by anybody in the process.
std::size_t in_use() { return mallinfo2().uordblks; }

void no_leak(int rounds) {
    for (int i = 0; i < rounds / 10; ++i) round();
    const std::size_t settled = in_use();
    for (int i = 0; i < rounds; ++i) round();
    const std::size_t now = in_use();
    // The allocator itself keeps up to some 30 KB for itself; one block of 32 bytes, the smallest, a round would be 320,000.
    check::that(now <= settled + 64 * 1024, __FILE__, __LINE__,
                std::to_string(settled) + " bytes in use before " + std::to_string(rounds) + " rounds, " + std::to_string(now) + " after");
}

} // namespace

// The number of rounds may be given: under valgrind and AddressSanitizer, which see a single leak, fewer do.
int main(int argc, char **argv) {
    return check::run([&] {
        no_allocation_in_a_pass();
        no_leak(argc > 1 ? std::atoi(argv[1]) : 10000);
    });
}
