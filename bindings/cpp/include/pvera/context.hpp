// pvera::context: where work runs; forward, backward, sample and everything else that computes.
#ifndef PVERA_CPP_CONTEXT_HPP
#define PVERA_CPP_CONTEXT_HPP

#include "callbacks.hpp"
#include "linear.hpp"
#include "tape.hpp"

namespace pvera {

// How a merge is done: whose adapters, PVERA_MERGE_…, PVERA_WEIGHT_….
struct merge_options {
    rows whose;
    uint32_t flags = 0;
    int32_t layout = PVERA_WEIGHT_OUT_IN;
};

inline namespace PVERA_CPP_ERRORS {

// Outputs come before the structs of options, which have defaults; otherwise the arguments are in the order of C. A linear is
// a pvera::linear or what a snapshot lends.
class [[nodiscard]] context : public handle<pvera_context, pvera_context_free> {
public:
    context() noexcept = default;
    // Takes ownership.
    explicit context(pvera_context *owned) noexcept : handle(owned) {}

    [[nodiscard]] static outcome<context> create(const pvera_context_options &options = context_options()) {
        return create(options, std::unique_ptr<parallel_for>());
    }
    // On the host's threads: tasks at a time, the calling thread's included. The callable lives as long as the context.
    [[nodiscard]] static outcome<context> create(parallel_for run, uint32_t tasks,
                                                 pvera_context_options options = context_options()) {
        auto kept = std::make_unique<parallel_for>(std::move(run));
        options.threads = tasks == 0 ? 0 : tasks - 1;
        options.parallel_for = calls::run_in_parallel;
        options.parallel_for_user = kept.get();
        return create(options, std::move(kept));
    }

    // ---- Without a tape ----

    outcome<void> forward(const pvera_linear *linear, const matrix &x, const matrix_mut &y, const rows &whose = rows(),
                          const pvera_noise &how = noise()) const {
        return run(whose, x.rows, [&] { return pvera_forward(get(), linear, &x, &whose, &how, nullptr, &y); });
    }

    // Layers with one input: {q, k, v}.
    outcome<void> forward_group(span<const pvera_linear *const> linears, const matrix &x, span<const matrix_mut> y,
                                const rows &whose = rows(), const pvera_noise &how = noise()) const {
        return group(linears, x, y, whose, how, nullptr);
    }

    // Draw s of row i is row s * n + i of y.
    outcome<void> sample(const pvera_linear *linear, const matrix &x, const matrix_mut &y, std::size_t samples,
                         const rows &whose = rows(), const pvera_noise &how = noise()) const {
        return run(whose, x.rows, [&] { return pvera_sample(get(), linear, &x, &whose, &how, samples, &y); });
    }

    outcome<void> moments(const pvera_linear *linear, const matrix &x, const matrix_mut &mean, const matrix_mut &variance,
                          const rows &whose = rows()) const {
        return run(whose, x.rows, [&] { return pvera_moments(get(), linear, &x, &whose, &mean, &variance); });
    }

    outcome<void> latent(const pvera_linear *linear, const matrix &x, const matrix_mut &mu, const matrix_mut &logvar,
                         const rows &whose = rows()) const {
        return run(whose, x.rows, [&] { return pvera_latent(get(), linear, &x, &whose, &mu, &logvar); });
    }

    // ---- The halves of a forward, whole or in parts that the host's threads enter at once ----

    outcome<void> project(const pvera_linear *linear, const matrix &x, const matrix_mut &p, const rows &whose = rows(),
                          const pvera_noise &how = noise()) const {
        return run(whose, x.rows, [&] { return pvera_project(get(), linear, &x, &whose, &how, &p); });
    }
    outcome<void> project_part(const pvera_linear *linear, const matrix &x, const matrix_mut &p, std::size_t index,
                               std::size_t count, const rows &whose = rows(), const pvera_noise &how = noise()) const {
        return run(whose, x.rows, [&] { return pvera_project_part(get(), linear, &x, &whose, &how, &p, index, count); });
    }
    outcome<void> expand(const pvera_linear *linear, const matrix &p, const matrix_mut &y, const rows &whose = rows(),
                         const pvera_noise &how = noise()) const {
        return run(whose, p.rows, [&] { return pvera_expand(get(), linear, &p, &whose, &how, &y); });
    }
    outcome<void> expand_part(const pvera_linear *linear, const matrix &p, const matrix_mut &y, std::size_t index,
                              std::size_t count, const rows &whose = rows(), const pvera_noise &how = noise()) const {
        return run(whose, p.rows, [&] { return pvera_expand_part(get(), linear, &p, &whose, &how, &y, index, count); });
    }

    // ---- Training ----

    outcome<void> forward(tape &tape, const pvera_linear *linear, const matrix &x, const matrix_mut &y,
                          const rows &whose = rows(), const pvera_noise &how = noise()) const {
        return run(whose, x.rows, [&] { return pvera_forward(get(), linear, &x, &whose, &how, tape.get(), &y); });
    }
    outcome<void> forward_group(tape &tape, span<const pvera_linear *const> linears, const matrix &x, span<const matrix_mut> y,
                                const rows &whose = rows(), const pvera_noise &how = noise()) const {
        return group(linears, x, y, whose, how, tape.get());
    }

    outcome<void> backward(const tape &tape, const matrix &dy, const pvera_gradients &wanted) const {
        return run([&] { return pvera_backward(get(), tape.get(), &dy, &wanted, nullptr); });
    }
    outcome<void> backward(const tape &tape, const matrix &dy, const pvera_gradients &wanted, const matrix_mut &dx) const {
        return run([&] { return pvera_backward(get(), tape.get(), &dy, &wanted, &dx); });
    }
    // wanted has one entry a layer, or none.
    outcome<void> backward_group(const tape &tape, span<const matrix> dy, span<const gradients> wanted) const {
        return group_back(tape, dy, wanted, nullptr);
    }
    outcome<void> backward_group(const tape &tape, span<const matrix> dy, span<const gradients> wanted,
                                 const matrix_mut &dx) const {
        return group_back(tape, dy, wanted, &dx);
    }

    // ---- Merging ----

    outcome<void> merge(const pvera_linear *linear, const matrix &weight, const matrix_mut &merged,
                        const merge_options &options = {}) const {
        return run([&] {
            return pvera_merge(get(), linear, &options.whose, options.flags, options.layout, &weight, &merged, nullptr);
        });
    }
    // Gives what puts the weight back, bit for bit; as much memory as the weight.
    [[nodiscard]] outcome<undo> merge_with_undo(const pvera_linear *linear, const matrix &weight, const matrix_mut &merged,
                                                const merge_options &options = {}) const {
        calls::border border;
        pvera_undo *made = nullptr;
        pvera_error *const failed =
            pvera_merge(get(), linear, &options.whose, options.flags, options.layout, &weight, &merged, &made);
        return calls::finish_at(border, failed, undo(made));
    }

    // ---- The context itself ----

    // What kernels of a CUDA context found since the last check; waits for its stream.
    outcome<void> check() const { return finish(pvera_context_check(get())); }

    [[nodiscard]] outcome<uint32_t> cpu_features() const {
        uint32_t features = 0;
        pvera_error *const failed = pvera_context_cpu_features(get(), &features);
        return finish(failed, features);
    }

    // What is held between calls; of a CUDA context in device memory.
    [[nodiscard]] outcome<std::size_t> scratch_bytes() const {
        std::size_t held = 0;
        pvera_error *const failed = pvera_context_scratch_bytes(get(), &held);
        return finish(failed, held);
    }
    // What would be held after calls on these linears (a group, or one) and n rows.
    [[nodiscard]] outcome<std::size_t> scratch_bytes(span<const pvera_linear *const> linears, std::size_t n,
                                                     std::size_t samples = 1, bool training = false,
                                                     const rows &whose = rows()) const {
        if (const auto wrong = whose.misfit(n); wrong.what) return calls::misfits<std::size_t>(wrong);
        std::size_t wanted = 0;
        pvera_error *const failed =
            pvera_scratch_bytes(get(), linears.size(), linears.data(), n, &whose, samples, training, &wanted);
        return finish(failed, wanted);
    }

private:
    context(pvera_context *owned, std::unique_ptr<parallel_for> run) noexcept : handle(owned), run_(std::move(run)) {}

    static outcome<context> create(const pvera_context_options &options, std::unique_ptr<parallel_for> run) {
        pvera_context *made = nullptr;
        pvera_error *const failed = pvera_context_new(&options, &made);
        return finish(failed, context(made, std::move(run)));
    }

    // A call out of which the host's parallel-for may be called.
    template <class Call>
    static outcome<void> run(Call call) {
        calls::border border;
        return calls::finish_at(border, call());
    }

    // One that takes rows, for n of them.
    template <class Call>
    static outcome<void> run(const rows &whose, std::size_t n, Call call) {
        if (const auto wrong = whose.misfit(n); wrong.what) return calls::misfits<void>(wrong);
        return run(call);
    }

    outcome<void> group(span<const pvera_linear *const> linears, const matrix &x, span<const matrix_mut> y,
                        const rows &whose, const pvera_noise &how, pvera_tape *tape) const {
        if (y.size() != linears.size()) return fail<void>(code::shape, calls::sizes("y", y.size(), "linears", linears.size()));
        return run(whose, x.rows, [&] {
            return pvera_forward_group(get(), linears.size(), linears.data(), &x, &whose, &how, tape, y.data());
        });
    }

    outcome<void> group_back(const tape &tape, span<const matrix> dy, span<const gradients> wanted, const matrix_mut *dx) const {
        if (!wanted.empty() && wanted.size() != dy.size())
            return fail<void>(code::shape, calls::sizes("wanted", wanted.size(), "dy", dy.size()));
        return run([&] {
            return pvera_backward_group(get(), tape.get(), dy.size(), dy.data(), wanted.empty() ? nullptr : wanted.data(), dx);
        });
    }

    std::unique_ptr<parallel_for> run_; // only called while a call on the context runs
};

// The PVERA_CPU_… features of this machine that the library has kernels for.
[[nodiscard]] inline outcome<uint32_t> cpu_features() {
    uint32_t features = 0;
    pvera_error *const failed = pvera_cpu_features(&features);
    return finish(failed, features);
}

} // namespace PVERA_CPP_ERRORS
} // namespace pvera

#endif
