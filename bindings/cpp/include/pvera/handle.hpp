// The owner that all handles are made of: a unique_ptr whose deleter is the handle's _free.
#ifndef PVERA_CPP_HANDLE_HPP
#define PVERA_CPP_HANDLE_HPP

#include <memory>

#include "error.hpp"

namespace pvera {

// Holds a Handle of C, or NULL; moves, frees. As large as a pointer.
template <class Handle, void (*Free)(Handle *)>
class handle {
public:
    handle() noexcept = default;
    // Takes ownership.
    explicit handle(Handle *owned) noexcept : held_(owned) {}

    [[nodiscard]] Handle *get() const noexcept { return held_.get(); }
    [[nodiscard]] Handle *release() noexcept { return held_.release(); }
    explicit operator bool() const noexcept { return held_ != nullptr; }

private:
    struct deleter {
        void operator()(Handle *owned) const noexcept { Free(owned); }
    };
    std::unique_ptr<Handle, deleter> held_;
};

} // namespace pvera

#endif
