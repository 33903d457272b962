// pvera::tape: what a training forward leaves for backward; pvera::undo: the bits that a merge replaced.
#ifndef PVERA_CPP_TAPE_HPP
#define PVERA_CPP_TAPE_HPP

#include "handle.hpp"
#include "matrix.hpp"

namespace pvera {
inline namespace PVERA_CPP_ERRORS {

class [[nodiscard]] tape : public handle<pvera_tape, pvera_tape_free> {
public:
    using handle::handle;

    // Of a policy, PVERA_TAPE_….
    [[nodiscard]] static outcome<tape> create(int32_t policy = PVERA_TAPE_KEEP_LATENT, const pvera_allocator &memory = {}) {
        pvera_tape *made = nullptr;
        pvera_error *const failed = pvera_tape_new(policy, &memory, &made);
        return finish(failed, tape(made));
    }

    [[nodiscard]] outcome<std::size_t> bytes() const {
        std::size_t held = 0;
        pvera_error *const failed = pvera_tape_bytes(get(), &held);
        return finish(failed, held);
    }
};

class [[nodiscard]] undo : public handle<pvera_undo, pvera_undo_free> {
public:
    using handle::handle;

    // weight holds what the merge wrote, and then what was there before.
    outcome<void> unmerge(const matrix_mut &weight) const { return finish(pvera_unmerge(get(), &weight)); }
};

} // namespace PVERA_CPP_ERRORS
} // namespace pvera

#endif
