// Adapted layers: pvera::linear owns one, pvera::linear_ref is lent by a snapshot or by an owner.
#ifndef PVERA_CPP_LINEAR_HPP
#define PVERA_CPP_LINEAR_HPP

#include "config.hpp"
#include "handle.hpp"
#include "options.hpp"
#include "store.hpp"

namespace pvera {

// Columns of p, and latents (columns of eps, mu and logvar), for given rows.
struct projected_size {
    std::size_t width, latents;
};

inline namespace PVERA_CPP_ERRORS {
namespace calls {

// What an owned and a lent linear can do alike.
template <class Linear>
class linear_calls {
public:
    // In arrays for group calls: {q, k, v}.
    operator const pvera_linear *() const noexcept { return static_cast<const Linear *>(this)->get(); }

    // For uses, PVERA_PACK_….
    outcome<void> pack_base(uint32_t uses) const { return finish(pvera_linear_pack_base(*this, uses)); }

    [[nodiscard]] outcome<std::size_t> packed_base_bytes(uint32_t uses) const {
        std::size_t taken = 0;
        pvera_error *const failed = pvera_linear_packed_base_bytes(*this, uses, &taken);
        return finish(failed, taken);
    }

    // For n rows.
    [[nodiscard]] outcome<projected_size> project_width(std::size_t n, const rows &whose = rows()) const {
        if (const auto wrong = whose.misfit(n); wrong.what) return misfits<projected_size>(wrong);
        projected_size size{};
        pvera_error *const failed = pvera_project_width(*this, &whose, n, &size.width, &size.latents);
        return finish(failed, size);
    }
};

} // namespace calls

// Owned by another: a snapshot, or a linear. Copies freely, frees nothing.
class linear_ref : public calls::linear_calls<linear_ref> {
public:
    linear_ref() noexcept = default;
    linear_ref(const pvera_linear *lent) noexcept : lent_(lent) {}
    [[nodiscard]] const pvera_linear *get() const noexcept { return lent_; }

private:
    const pvera_linear *lent_ = nullptr;
};

// Made by adapter::linear, or standalone on a store and borrowed vectors.
class [[nodiscard]] linear : public handle<pvera_linear, pvera_linear_free>, public calls::linear_calls<linear> {
public:
    using handle::handle;

    [[nodiscard]] static outcome<linear> create(const pvera_layer &layer, const store &store, const linear_vectors &vectors) {
        return create(layer, store.get(), nullptr, vectors);
    }
    [[nodiscard]] static outcome<linear> create(const pvera_layer &layer, const store &store, const config &config,
                                                const linear_vectors &vectors) {
        return create(layer, store.get(), config.get(), vectors);
    }

private:
    static outcome<linear> create(const pvera_layer &layer, const pvera_store *store, const pvera_config *config,
                                  const linear_vectors &vectors) {
        pvera_matrix a{}, b{};
        if (pvera_error *const failed = pvera_store_matrices(store, &a, &b)) return finish(failed, linear());
        if (const auto wrong = vectors.misfit(detail::outputs(layer), a.rows); wrong.what) return calls::misfits<linear>(wrong);
        pvera_linear *made = nullptr;
        pvera_error *const failed = pvera_linear_new(&layer, store, config, &vectors, &made);
        return finish(failed, linear(made));
    }
};

// Where backward puts the gradients of a standalone layer's vectors: arrays as long as they, of which an empty one is skipped.
[[nodiscard]] inline outcome<slot_gradients> gradients_of(const pvera_layer &layer, const store &store, span<float> lambda_b,
                                                          span<float> lambda_d, span<float> bias = {}) {
    pvera_matrix a{}, b{};
    if (pvera_error *const failed = pvera_store_matrices(store.get(), &a, &b)) return finish(failed, slot_gradients{});
    detail::misfit wrong;
    const auto place = [&wrong](const char *what, span<float> given, std::size_t wanted) {
        if (!given.empty()) detail::counted(given).check(wrong, what, given.data(), wanted);
        return given.empty() ? nullptr : given.data();
    };
    const std::size_t outputs = detail::outputs(layer);
    const slot_gradients places{0, place("lambda_b", lambda_b, outputs), place("lambda_d", lambda_d, a.rows),
                                place("bias", bias, outputs)};
    if (wrong.what) return calls::misfits<slot_gradients>(wrong);
    return places;
}

} // namespace PVERA_CPP_ERRORS
} // namespace pvera

#endif
