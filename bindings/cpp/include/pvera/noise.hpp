// Standard normals: PyTorch's generator, and the keyed ones that a sampled forward draws.
#ifndef PVERA_CPP_NOISE_HPP
#define PVERA_CPP_NOISE_HPP

#include "handle.hpp"
#include "span.hpp"
#include "text.hpp"

namespace pvera {

// Whose keyed noise.
struct noise_key {
    uint64_t seed = 0;
    uint64_t adapter = 0; // adapter_identity
    uint64_t identity = 0; // of the row
    uint32_t sample = 0;
    bool antithetic = false;
};

inline namespace PVERA_CPP_ERRORS {

// torch.Generator().manual_seed(seed).
class [[nodiscard]] torch_generator : public handle<pvera_torch_generator, pvera_torch_generator_free> {
public:
    using handle::handle;

    [[nodiscard]] static outcome<torch_generator> create(uint64_t seed) {
        pvera_torch_generator *made = nullptr;
        pvera_error *const failed = pvera_torch_generator_new(seed, &made);
        return finish(failed, torch_generator(made));
    }

    // As one contiguous tensor of PyTorch is filled.
    outcome<void> normals(span<float> values) {
        return finish(pvera_torch_generator_normals(get(), values.size(), values.data()));
    }
};

// The number under which an adapter published as name draws its noise.
[[nodiscard]] inline outcome<uint64_t> adapter_identity(const text &name) {
    uint64_t identity = 0;
    pvera_error *const failed = pvera_adapter_identity(name.c_str(), &identity);
    return finish(failed, identity);
}

// eps of latents 0 ... of one row of a layer.
inline outcome<void> keyed_normals(const noise_key &key, const text &layer, span<float> values) {
    return finish(pvera_keyed_normals(key.seed, layer.c_str(), key.adapter, key.identity, key.sample, key.antithetic,
                                      values.size(), values.data()));
}

} // namespace PVERA_CPP_ERRORS
} // namespace pvera

#endif
