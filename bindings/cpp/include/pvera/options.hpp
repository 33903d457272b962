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
};

} // namespace detail

struct context_options : detail::sized<pvera_context_options> {};
struct model_options : detail::sized<pvera_model_options> {};
struct adapter_options : detail::sized<pvera_adapter_options> {};
struct bank_usage : detail::sized<pvera_bank_usage> {};

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

// A standalone layer's vectors, borrowed as long as the linear.
struct linear_vectors : detail::sized<pvera_linear_vectors> {
    constexpr linear_vectors(const float *b, const float *d, const float *learned_bias = nullptr) noexcept {
        lambda_b = b, lambda_d = d, bias = learned_bias;
    }
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

// The arrays are lent until the last call with the struct is over, so they have names; one entry a row.
struct rows : detail::sized<pvera_rows> {
    constexpr rows &slots(span<const int32_t> one_a_row) noexcept { return slot = one_a_row.data(), *this; }
    constexpr rows &identities(span<const uint64_t> one_a_row) noexcept { return identity = one_a_row.data(), *this; }
    constexpr rows &samples(span<const uint32_t> one_a_row) noexcept { return sample = one_a_row.data(), *this; }
    // These adapters are summed on every row.
    constexpr rows &summed(span<const pvera::active> adapters) noexcept {
        return pvera_rows::active = adapters.data(), active_count = adapters.size(), *this;
    }
    rows &slots(std::initializer_list<int32_t>) = delete;
    rows &identities(std::initializer_list<uint64_t>) = delete;
    rows &samples(std::initializer_list<uint32_t>) = delete;
    rows &summed(std::initializer_list<pvera::active>) = delete;
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

} // namespace pvera

#endif
