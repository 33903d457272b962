// pvera::store: the frozen pair A and B that layers share.
#ifndef PVERA_CPP_STORE_HPP
#define PVERA_CPP_STORE_HPP

#include "callbacks.hpp"
#include "handle.hpp"
#include "options.hpp"
#include "text.hpp"

namespace pvera {

// A and B as they are held; of the store.
struct projections {
    matrix a, b;
};

inline namespace PVERA_CPP_ERRORS {

// Reference counted: a clone is the same store.
class [[nodiscard]] store : public handle<pvera_store, pvera_store_free> {
public:
    using handle::handle;

    // Drawn from a projection_prng_key, as PEFT does. options.callbacks: borrowed(callbacks), of which progress may stop it.
    [[nodiscard]] static outcome<store> from_key(uint64_t key, const pvera_store_options &options) {
        calls::border border;
        pvera_store *made = nullptr;
        pvera_error *const failed = pvera_store_from_key(key, &options, &made);
        return calls::finish_at(border, failed, store(made));
    }

    // A copy of a [2r, in_max] (for VeRA [r, in_max]) and b [out_max, r].
    [[nodiscard]] static outcome<store> from_matrices(const matrix &a, const matrix &b, const pvera_allocator &memory = {}) {
        pvera_store *made = nullptr;
        pvera_error *const failed = pvera_store_from_matrices(&a, &b, &memory, &made);
        return finish(failed, store(made));
    }

    // Of a safetensors file; with map, the file stays as it is while the store lives.
    [[nodiscard]] static outcome<store> from_file(const text &path, bool map = false, const pvera_allocator &memory = {}) {
        pvera_store *made = nullptr;
        pvera_error *const failed = pvera_store_from_file(path.c_str(), map, &memory, &made);
        return finish(failed, store(made));
    }

    // Of the bytes of a safetensors file, which are copied.
    [[nodiscard]] static outcome<store> from_memory(span<const uint8_t> file, const pvera_allocator &memory = {}) {
        pvera_store *made = nullptr;
        pvera_error *const failed = pvera_store_from_memory(file.data(), file.size(), &memory, &made);
        return finish(failed, store(made));
    }

    [[nodiscard]] outcome<store> clone() const {
        pvera_store *made = nullptr;
        pvera_error *const failed = pvera_store_clone(get(), &made);
        return finish(failed, store(made));
    }

    // Valid while a handle on the store lives. Look at the dtype.
    [[nodiscard]] outcome<projections> matrices() const & {
        projections held;
        pvera_error *const failed = pvera_store_matrices(get(), &held.a, &held.b);
        return finish(failed, held);
    }
    outcome<projections> matrices() const && = delete;

    // Whether both hold the same values.
    [[nodiscard]] outcome<bool> equals(const store &other) const {
        bool equal = false;
        pvera_error *const failed = pvera_store_equal(get(), other.get(), &equal);
        return finish(failed, equal);
    }

    // For uses, PVERA_PACK_….
    outcome<void> pack(uint32_t uses) const { return finish(pvera_store_pack(get(), uses)); }

    [[nodiscard]] outcome<std::size_t> packed_bytes(uint32_t uses) const {
        std::size_t taken = 0;
        pvera_error *const failed = pvera_store_packed_bytes(get(), uses, &taken);
        return finish(failed, taken);
    }

    [[nodiscard]] outcome<std::size_t> bytes() const {
        std::size_t taken = 0;
        pvera_error *const failed = pvera_store_bytes(get(), &taken);
        return finish(failed, taken);
    }
};

} // namespace PVERA_CPP_ERRORS
} // namespace pvera

#endif
