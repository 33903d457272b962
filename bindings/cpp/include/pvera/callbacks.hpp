// C++ callables and memory resources that the library calls. No exception of theirs crosses C: it stops what can be stopped, and
// is thrown again when the call that it came out of returns. With PVERA_NO_EXCEPTIONS a callable must not throw.
#ifndef PVERA_CPP_CALLBACKS_HPP
#define PVERA_CPP_CALLBACKS_HPP

#include <atomic>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <string_view>
#include <thread>
#if __has_include(<memory_resource>)
#include <memory_resource>
#endif

#include "error.hpp"

namespace pvera {

// What a progress callable wants.
enum class progress : int32_t { go_on = 0, stop = 1 };

// How a model speaks to its host (pvera_callbacks). They are called on the thread that called, perhaps on several at a time.
struct callbacks {
    std::function<void(std::string_view message)> warning;
    std::function<progress(std::string_view stage, uint64_t done, uint64_t total)> progress_made;
};

// One task of a parallel-for, for any thread: to be called once for each index below the count.
class task;
// The host's parallel-for: calls run(index) for each index below count on threads of its choice, and returns when all have
// returned. When it throws, none of its threads may start a task any more; what it left over is done on the calling thread.
using parallel_for = std::function<void(std::size_t count, task &run)>;

class task {
public:
    task(std::size_t count, pvera_task run, void *with) noexcept : count_(count), run_(run), with_(with) {}
    task(const task &) = delete;
    task &operator=(const task &) = delete;

    void operator()(std::size_t index) noexcept {
        if (index < tracked && claimed_[index / 64].fetch_or(bit(index)) & bit(index)) return;
        run_(with_, index);
        finished_.fetch_add(1, std::memory_order_release);
    }

    // For the binding itself, after an exception: no index is left out, and none is done twice.
    void complete() noexcept {
        for (std::size_t index = 0; index < count_; ++index) (*this)(index);
        while (finished_.load(std::memory_order_acquire) < count_) std::this_thread::yield();
    }

    // The most tasks that can be told apart without memory; of more, the calling thread does all.
    static constexpr std::size_t tracked = 1024;

private:
    static constexpr uint64_t bit(std::size_t index) noexcept { return uint64_t{1} << index % 64; }

    std::size_t count_;
    pvera_task run_;
    void *with_;
    std::atomic<std::size_t> finished_{0};
    std::atomic<uint64_t> claimed_[tracked / 64] = {};
};

inline namespace PVERA_CPP_ERRORS {
namespace calls {

#ifdef PVERA_NO_EXCEPTIONS

// Stands around a call that may call back.
class border {
public:
    void rethrow() const noexcept {}
};

template <class Call>
bool caught(Call call) noexcept {
    call();
    return false;
}

#else

// Stands around a call that may call back, and keeps the first exception of its callables. Callbacks come on the thread that
// called, so the innermost border of the thread is theirs.
class border {
public:
    border() noexcept : outer_(innermost()) { innermost() = this; }
    ~border() { innermost() = outer_; }
    border(const border &) = delete;
    border &operator=(const border &) = delete;

    void rethrow() {
        if (caught_) std::rethrow_exception(caught_);
    }
    static void keep(std::exception_ptr thrown) noexcept {
        border *const here = innermost();
        if (here && !here->caught_) here->caught_ = std::move(thrown);
    }

private:
    static border *&innermost() noexcept {
        static thread_local border *innermost = nullptr;
        return innermost;
    }
    border *outer_;
    std::exception_ptr caught_;
};

// Whether the callable threw; the border has its exception then.
template <class Call>
bool caught(Call call) noexcept {
    try {
        call();
        return false;
    } catch (...) {
        border::keep(std::current_exception());
        return true;
    }
}

#endif

// The outcome of a call at a border: a callable's exception, where there was one, instead of the error that it led to.
template <class T>
outcome<T> finish_at(border &border, pvera_error *failed, T value) {
    std::unique_ptr<pvera_error, void (*)(pvera_error *)> owned(failed, pvera_error_free);
    border.rethrow();
    return finish(owned.release(), std::move(value));
}

inline outcome<void> finish_at(border &border, pvera_error *failed) {
    std::unique_ptr<pvera_error, void (*)(pvera_error *)> owned(failed, pvera_error_free);
    border.rethrow();
    return finish(owned.release());
}

inline void warn(void *user, const char *message) {
    caught([&] { static_cast<callbacks *>(user)->warning(message); });
}

inline int32_t make_progress(void *user, const char *stage, uint64_t done, uint64_t total) {
    progress wanted = progress::stop;
    caught([&] { wanted = static_cast<callbacks *>(user)->progress_made(stage, done, total); });
    return static_cast<int32_t>(wanted);
}

inline void run_in_parallel(void *user, std::size_t count, pvera_task run, void *with) {
    task all(count, run, with);
    if (count > task::tracked || caught([&] { (*static_cast<parallel_for *>(user))(count, all); })) all.complete();
}

} // namespace calls

// The callbacks as the struct of C; they are borrowed.
[[nodiscard]] inline pvera_callbacks borrowed(callbacks &from) noexcept {
    return {from.warning ? calls::warn : nullptr, from.progress_made ? calls::make_progress : nullptr, &from};
}

// Only with exceptions, since a memory resource throws when memory ends.
#if !defined(PVERA_NO_EXCEPTIONS) && __has_include(<memory_resource>)

// A memory resource as the allocator of options; borrowed as long as what is made of it. It is used on any thread that uses the
// object. Whatever its allocate throws is code::memory.
[[nodiscard]] inline pvera_allocator borrowed(std::pmr::memory_resource &from) noexcept {
    const auto allocate = [](void *user, std::size_t size, std::size_t alignment) noexcept -> void * {
        try {
            return static_cast<std::pmr::memory_resource *>(user)->allocate(size, alignment);
        } catch (...) {
            return nullptr;
        }
    };
    const auto release = [](void *user, void *memory, std::size_t size, std::size_t alignment) noexcept {
        static_cast<std::pmr::memory_resource *>(user)->deallocate(memory, size, alignment);
    };
    return {allocate, release, &from};
}

#endif

} // namespace PVERA_CPP_ERRORS
} // namespace pvera

#endif
