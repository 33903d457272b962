// What the library calls: warnings, progress, the host's threads, the host's memory; and that no exception of theirs crosses C.
#include <atomic>
#include <memory_resource>
#include <thread>

#include "world.hpp"

namespace {

struct mine {
    int number;
};

// The statement throws mine{wanted}.
#define CHECK_MINE(statement, wanted) \
    do { \
        try { \
            statement; \
            check::that(false, __FILE__, __LINE__, #statement " throws nothing"); \
        } catch (const mine &thrown) { \
            CHECK(thrown.number == (wanted)); \
        } \
    } while (false)

// Projections of 4000 x 4000: enough for progress to be asked several times.
pvera::adapter create_large(const pvera::model &model) {
    model.declare(pvera::layer("q", 4000, 4000));
    auto config = pvera::config::create();
    config.set_text("target_modules", "q");
    return pvera::adapter::create(model, config);
}

void progress() {
    std::vector<uint64_t> seen;
    uint64_t total = 0;
    pvera::callbacks called;
    called.progress_made = [&](std::string_view stage, uint64_t done, uint64_t of) {
        CHECK(!stage.empty());
        seen.push_back(done), total = of;
        return pvera::progress::go_on;
    };
    CHECK(create_large(pvera::model::create(std::move(called))));
    CHECK(seen.size() >= 2 && seen.front() < seen.back() && seen.back() <= total);

    int steps = 0;
    called.progress_made = [&](std::string_view, uint64_t, uint64_t) {
        return ++steps == 2 ? pvera::progress::stop : pvera::progress::go_on;
    };
    CHECK_THROWS(static_cast<void>(create_large(pvera::model::create(std::move(called)))), pvera::code::cancelled, "");
    CHECK(steps == 2);

    steps = 0;
    called.progress_made = [&](std::string_view, uint64_t, uint64_t) -> pvera::progress { throw mine{++steps}; };
    CHECK_MINE(static_cast<void>(create_large(pvera::model::create(std::move(called)))), 1);
    CHECK(steps == 1); // it stopped
}

// A checkpoint with a layer that its config does not target: loaded, with a warning that names it.
void warnings() {
    const world source;
    auto files = source.adapter.save_memory();
    auto narrow = pvera::config::from_json(std::string_view(reinterpret_cast<const char *>(files.config.data()), files.config.size()));
    narrow.set_json("target_modules", R"(["q"])");
    const std::string json = narrow.to_json();
    const std::vector<uint8_t> config(json.begin(), json.end());

    std::string said;
    pvera::callbacks called;
    called.warning = [&](std::string_view message) { said += message; };
    const world heard(pvera::model::create(std::move(called)));
    const auto adapter = pvera::adapter::load_memory(heard.model, config, files.tensors);
    CHECK(said.find('v') != said.npos && adapter.adapts(1));

    // A warning cannot stop the load, but its exception comes out of it. The model that moved still calls.
    called.warning = [](std::string_view) { throw mine{7}; };
    pvera::model thrower = pvera::model::create(std::move(called));
    const world throwing(std::move(thrower));
    CHECK_MINE(static_cast<void>(pvera::adapter::load_memory(throwing.model, config, files.tensors)), 7);
}

// A draw of projections is watched, stopped, and left by an exception.
void draws() {
    int calls = 0;
    pvera::callbacks called;
    called.progress_made = [&](std::string_view stage, uint64_t done, uint64_t total) {
        CHECK(stage == "draw projections" && done < total && total == 3 * 256 * 2000);
        return ++calls == 2 ? pvera::progress::stop : pvera::progress::go_on;
    };
    pvera::store_options options(256, 2000, 2000);
    options.callbacks = pvera::borrowed(called);
    CHECK_THROWS(static_cast<void>(pvera::store::from_key(5, options)), pvera::code::cancelled, "draw of projections");
    CHECK(calls == 2);
    called.progress_made = [](std::string_view, uint64_t, uint64_t) -> pvera::progress { throw mine{5}; };
    CHECK_MINE(static_cast<void>(pvera::store::from_key(5, options)), 5);
    called.progress_made = [](std::string_view, uint64_t, uint64_t) { return pvera::progress::go_on; };
    CHECK(pvera::store::from_key(5, options));
}

// The host's parallel-for, on two threads of its own.
void host_threads(std::size_t count, pvera::task &run) {
    std::atomic<std::size_t> next{0};
    const auto work = [&] {
        for (std::size_t index = next++; index < count; index = next++) run(index);
    };
    std::thread other(work);
    work();
    other.join();
}

struct wide {
    static constexpr std::size_t n = 64, width = 96;
    pvera::model model = pvera::model::create();
    pvera::linear linear;
    std::vector<float> x = std::vector<float>(n * width);

    wide() {
        auto config = pvera::config::create();
        config.set_int("r", 32);
        config.set_text("target_modules", "q");
        model.declare(pvera::layer("q", width, width));
        const auto adapter = pvera::adapter::create(model, config);
        auto parameters = adapter.parameters();
        check::fill(parameters, 5);
        check::fill(x, 6);
        linear = adapter.linear(0);
    }

    std::vector<float> forward(const pvera::context &context) const {
        std::vector<float> y(n * width);
        context.forward(linear, pvera::as_matrix(x, n, width), pvera::as_matrix(y, n, width), pvera::rows(),
                        pvera::noise(PVERA_MODE_SAMPLE, 3));
        return y;
    }
};

void threads() {
    const wide layer;
    const auto wanted = layer.forward(pvera::context::create());
    std::size_t calls = 0, most = 0;
    auto counted = pvera::context::create(
        [&](std::size_t count, pvera::task &run) { ++calls, most = std::max(most, count), host_threads(count, run); }, 3);
    const pvera::context moved = std::move(counted);
    CHECK(layer.forward(moved) == wanted && calls > 0 && most > 1 && most <= 3);

    // It throws before, amid and after the tasks: each is done once all the same, and the context goes on working.
    for (std::size_t done : {std::size_t{0}, std::size_t{1}, SIZE_MAX}) {
        bool armed = true;
        std::vector<float> y(layer.x.size());
        const auto thrower = pvera::context::create(
            [&](std::size_t count, pvera::task &run) {
                for (std::size_t i = 0; i < std::min(count, armed ? done : count); ++i) run(i), run(i); // twice counts once
                if (std::exchange(armed, false)) throw mine{9};
            },
            3);
        CHECK_MINE(static_cast<void>(thrower.forward(layer.linear, pvera::as_matrix(layer.x, wide::n, wide::width),
                                                     pvera::as_matrix(y, wide::n, wide::width), pvera::rows(),
                                                     pvera::noise(PVERA_MODE_SAMPLE, 3))),
                   9);
        CHECK(y == wanted && layer.forward(thrower) == wanted);
    }
}

// More tasks than can be told apart: done by the calling thread.
void many_tasks() {
    std::vector<int> done(5000);
    pvera::parallel_for never = [](std::size_t, pvera::task &) { CHECK(false); };
    pvera::calls::run_in_parallel(
        &never, done.size(), [](void *at, std::size_t index) { ++(*static_cast<std::vector<int> *>(at))[index]; }, &done);
    for (const int times : done)
        if (times != 1) return static_cast<void>(CHECK(times == 1));
    CHECK(true);
}

// Counts what is out, and can run dry.
struct ledger : std::pmr::memory_resource {
    std::size_t bytes = 0, calls = 0, left = SIZE_MAX;

    void *do_allocate(std::size_t size, std::size_t alignment) override {
        if (calls++ >= left) throw std::bad_alloc();
        bytes += size;
        return std::pmr::new_delete_resource()->allocate(size, alignment);
    }
    void do_deallocate(void *memory, std::size_t size, std::size_t alignment) override {
        bytes -= size;
        std::pmr::new_delete_resource()->deallocate(memory, size, alignment);
    }
    bool do_is_equal(const std::pmr::memory_resource &other) const noexcept override { return this == &other; }
};

void memory() {
    const wide layer;
    const auto wanted = layer.forward(pvera::context::create());
    ledger books;
    pvera::context_options options;
    options.allocator = pvera::borrowed(books);
    {
        const auto context = pvera::context::create(options);
        CHECK(layer.forward(context) == wanted && books.calls > 0 && books.bytes > 0);
        CHECK(context.scratch_bytes() <= context.scratch_bytes({layer.linear}, wide::n));
    }
    CHECK(books.bytes == 0);
    books.left = books.calls = 0;
    CHECK_THROWS(static_cast<void>(layer.forward(pvera::context::create(options))), pvera::code::memory, "memory");
    CHECK(books.bytes == 0);
}

} // namespace

int main() {
    return check::run([] {
        progress();
        warnings();
        draws();
        threads();
        many_tasks();
        memory();
    });
}
