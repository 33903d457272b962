// The structs of options: those of C, born as zero with struct_size filled in. Set their fields, which <pvera.h> describes; the
// members here only spare a pointer and a count.
#ifndef PVERA_CPP_OPTIONS_HPP
#define PVERA_CPP_OPTIONS_HPP

#include <pvera.h>

#include <initializer_list>

#include "matrix.hpp"
#include "span.hpp"

namespace pvera {
namespace detail {

// A struct of C that begins with struct_size.
template <class Struct>
struct sized : Struct {
    constexpr sized() noexcept : Struct{} { this->struct_size = sizeof(Struct); }
    constexpr explicit sized(const Struct &given) noexcept : Struct(given) {}
};

// An array that does not have as many entries as it has to; what is NULL where there is none.
struct misfit {
    const char *what = nullptr;
    std::size_t size = 0, wanted = 0;
};

// How many entries an array has that was given as a span. A field that was set by hand since then is the caller's business.
class counted {
public:
    constexpr counted() noexcept = default;
    template <class T>
    constexpr explicit counted(span<T> given) noexcept : data_(given.data()), size_(given.size()), known_(true) {}

    // Compares the array of a field with what is wanted, unless an earlier one was found.
    constexpr void check(misfit &found, const char *what, const void *field, std::size_t wanted) const noexcept {
        if (!found.what && known_ && field == data_ && size_ != wanted) found = {what, size_, wanted};
    }

private:
    const void *data_ = nullptr;
    std::size_t size_ = 0;
    bool known_ = false;
};

} // namespace detail

struct context_options : detail::sized<pvera_context_options> {};
struct model_options : detail::sized<pvera_model_options> {};
struct adapter_options : detail::sized<pvera_adapter_options> {};
struct bank_usage : detail::sized<pvera_bank_usage> {};
struct outline_info : detail::sized<pvera_outline_info> {};

struct bank_options : detail::sized<pvera_bank_options> {
    constexpr bank_options() noexcept = default;
    // PVERA_BANK_….
    constexpr explicit bank_options(int32_t with_access) noexcept { access = with_access; }
};

struct store_options : detail::sized<pvera_store_options> {
    constexpr store_options(std::size_t of_rank, std::size_t largest_in, std::size_t largest_out) noexcept {
        rank = of_rank, in_max = largest_in, out_max = largest_out;
    }
};

// The name is copied when the layer is declared, weight and bias are borrowed.
struct layer : detail::sized<pvera_layer> {
    constexpr layer(const char *path, std::size_t inputs, std::size_t outputs) noexcept {
        name = path, in_features = inputs, out_features = outputs;
    }
};

namespace detail {

// Outputs of the whole layer of which this may be a shard.
constexpr std::size_t outputs(const pvera_layer &shard) noexcept {
    return shard.out_total ? shard.out_total : shard.out_offset + shard.out_features;
}

} // namespace detail

// A standalone layer's vectors, borrowed as long as the linear, which is made only if they are as long as the layer wants.
struct linear_vectors : detail::sized<pvera_linear_vectors> {
    constexpr linear_vectors(span<const float> b, span<const float> d) noexcept : b_(b), d_(d) {
        lambda_b = b.data(), lambda_d = d.data();
    }
    constexpr linear_vectors(span<const float> b, span<const float> d, span<const float> learned_bias) noexcept
        : linear_vectors(b, d) {
        bias = learned_bias.data(), bias_ = detail::counted(learned_bias);
    }
    // Of pointers, whose counts nobody checks.
    constexpr linear_vectors(const pvera_linear_vectors &given) noexcept : sized(given) {}
    linear_vectors(std::initializer_list<float>, std::initializer_list<float>) = delete;

    // For the binding itself: a span that is not as long as a layer of these sizes wants.
    [[nodiscard]] constexpr detail::misfit misfit(std::size_t outputs, std::size_t latents) const noexcept {
        detail::misfit found;
        b_.check(found, "lambda_b", lambda_b, outputs);
        d_.check(found, "lambda_d", lambda_d, latents);
        bias_.check(found, "bias", bias, outputs);
        return found;
    }

private:
    detail::counted b_, d_, bias_;
};

// How other programs' files are read and written: PVERA_FILES_… flags, borrowed(callbacks).
struct files_options : detail::sized<pvera_files_options> {
    constexpr explicit files_options(uint32_t with_flags = 0) noexcept { flags = with_flags; }
};

using gguf_name = pvera_gguf_name;
// What llama.cpp must be told of the model; the names are lent as the arrays of rows.
struct gguf_options : detail::sized<pvera_gguf_options> {
    constexpr explicit gguf_options(const char *of_architecture, std::size_t q_heads = 0, std::size_t k_heads = 0) noexcept {
        architecture = of_architecture, heads = q_heads, kv_heads = k_heads;
    }
    constexpr gguf_options &named(span<const gguf_name> tensors) noexcept {
        return names = tensors.data(), name_count = tensors.size(), *this;
    }
    gguf_options &named(std::initializer_list<gguf_name>) = delete;
};

struct authors_options : detail::sized<pvera_authors_options> {};

using active = pvera_active;
using slot_gradients = pvera_slot_gradients;
using parameter_range = pvera_parameter_range;

// The arrays are lent until the last call with the struct is over, so they have names; one entry a row, which each call checks.
struct rows : detail::sized<pvera_rows> {
    constexpr rows() noexcept = default;
    // Of pointers, whose counts nobody checks.
    constexpr rows(const pvera_rows &given) noexcept : sized(given) {}

    constexpr rows &slots(span<const int32_t> one_a_row) noexcept {
        return slot = one_a_row.data(), slots_ = detail::counted(one_a_row), *this;
    }
    constexpr rows &identities(span<const uint64_t> one_a_row) noexcept {
        return identity = one_a_row.data(), identities_ = detail::counted(one_a_row), *this;
    }
    constexpr rows &samples(span<const uint32_t> one_a_row) noexcept {
        return sample = one_a_row.data(), samples_ = detail::counted(one_a_row), *this;
    }
    // These adapters are summed on every row.
    constexpr rows &summed(span<const pvera::active> adapters) noexcept {
        return pvera_rows::active = adapters.data(), active_count = adapters.size(), *this;
    }
    rows &slots(std::initializer_list<int32_t>) = delete;
    rows &identities(std::initializer_list<uint64_t>) = delete;
    rows &samples(std::initializer_list<uint32_t>) = delete;
    rows &summed(std::initializer_list<pvera::active>) = delete;

    // For the binding itself: a span that has not one entry for each of n rows.
    [[nodiscard]] constexpr detail::misfit misfit(std::size_t n) const noexcept {
        detail::misfit found;
        slots_.check(found, "rows.slot", slot, n);
        identities_.check(found, "rows.identity", identity, n);
        samples_.check(found, "rows.sample", sample, n);
        return found;
    }

private:
    detail::counted slots_, identities_, samples_;
};

struct noise : detail::sized<pvera_noise> {
    constexpr noise() noexcept = default;
    constexpr explicit noise(int32_t with_mode, uint64_t with_seed = 0) noexcept { mode = with_mode, seed = with_seed; }
};

// The arrays are lent as those of rows.
struct gradients : detail::sized<pvera_gradients> {
    constexpr gradients &into(span<const slot_gradients> places) noexcept {
        return pvera_gradients::slots = places.data(), slot_count = places.size(), *this;
    }
    constexpr gradients &first_order_variance(span<double> values) noexcept {
        return variance = values.data(), variance_count = values.size(), *this;
    }
    gradients &into(std::initializer_list<slot_gradients>) = delete;
};

// Group calls take arrays of them.
static_assert(sizeof(gradients) == sizeof(pvera_gradients));

inline namespace PVERA_CPP_ERRORS {
namespace calls {

// The error about it.
template <class T>
outcome<T> misfits(const detail::misfit &wrong) {
    return fail<T>(code::shape, std::string(wrong.what) + " has " + std::to_string(wrong.size) + " entries; wanted " +
                                    std::to_string(wrong.wanted));
}

} // namespace calls
} // namespace PVERA_CPP_ERRORS
} // namespace pvera

#endif
