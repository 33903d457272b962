// How a failed call is told: pvera::exception thrown, or pvera::result returned. All of the binding is written once, on
// outcome<T>, finish() and fail(), which exist in both ways here; the inline namespace keeps the two apart when a program links both.
#ifndef PVERA_CPP_ERROR_HPP
#define PVERA_CPP_ERROR_HPP

#include <pvera.h>

#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>

#if !defined(PVERA_NO_EXCEPTIONS) && !defined(__cpp_exceptions)
#define PVERA_NO_EXCEPTIONS
#endif
#ifdef PVERA_NO_EXCEPTIONS
#define PVERA_CPP_ERRORS results
#else
#define PVERA_CPP_ERRORS throwing
#endif

namespace pvera {

// The codes of <pvera.h>.
enum class code : int32_t {
    ok = PVERA_OK,
    null = PVERA_ERROR_NULL,
    argument = PVERA_ERROR_ARGUMENT,
    shape = PVERA_ERROR_SHAPE,
    dtype = PVERA_ERROR_DTYPE,
    stride = PVERA_ERROR_STRIDE,
    overlap = PVERA_ERROR_OVERLAP,
    device = PVERA_ERROR_DEVICE,
    not_found = PVERA_ERROR_NOT_FOUND,
    exists = PVERA_ERROR_EXISTS,
    state = PVERA_ERROR_STATE,
    io = PVERA_ERROR_IO,
    format = PVERA_ERROR_FORMAT,
    config = PVERA_ERROR_CONFIG,
    projection = PVERA_ERROR_PROJECTION,
    memory = PVERA_ERROR_MEMORY,
    unsupported = PVERA_ERROR_UNSUPPORTED,
    overflow = PVERA_ERROR_OVERFLOW,
    cancelled = PVERA_ERROR_CANCELLED,
    panic = PVERA_ERROR_PANIC,
    cuda = PVERA_ERROR_CUDA
};

// Why a call failed: a code, and a sentence that names the argument, what was given and what was wanted. One from the library
// is held as it came, so that nothing is allocated when memory is what is missing.
class [[nodiscard]] error {
public:
    explicit error(pvera_error *given) noexcept : given_(given), code_(static_cast<pvera::code>(pvera_error_code(given))) {}
    error(pvera::code code, std::string message) noexcept : code_(code), message_(std::move(message)) {}

    [[nodiscard]] pvera::code code() const noexcept { return code_; }
    // NUL-terminated; lives as long as the error.
    [[nodiscard]] std::string_view message() const noexcept {
        return given_ ? std::string_view(pvera_error_message(given_.get())) : std::string_view(message_);
    }

private:
    struct deleter {
        void operator()(pvera_error *error) const noexcept { pvera_error_free(error); }
    };
    std::unique_ptr<pvera_error, deleter> given_;
    pvera::code code_;
    std::string message_;
};

// What a failed call throws; what() is the error's sentence.
class exception : public std::runtime_error {
public:
    explicit exception(const error &error) : std::runtime_error(std::string(error.message())), code_(error.code()) {}
    [[nodiscard]] pvera::code code() const noexcept { return code_; }

private:
    pvera::code code_;
};

// A value or an error. true if there is a value, which *result then is. To pass an error on:
//     if (!adapter) return std::move(adapter).error();
template <class T>
class [[nodiscard]] result {
public:
    result(T value) noexcept : held_(std::in_place_index<0>, std::move(value)) {}
    result(pvera::error error) noexcept : held_(std::in_place_index<1>, std::move(error)) {}

    [[nodiscard]] bool has_value() const noexcept { return held_.index() == 0; }
    // Not of a result<bool>: with exceptions the same condition would ask for the value. has_value() and *result say which.
    template <class Value = T, class = std::enable_if_t<!std::is_same_v<Value, bool>>>
    explicit operator bool() const noexcept {
        return has_value();
    }
    [[nodiscard]] T &operator*() & noexcept { return *std::get_if<0>(&held_); }
    [[nodiscard]] const T &operator*() const & noexcept { return *std::get_if<0>(&held_); }
    [[nodiscard]] T &&operator*() && noexcept { return std::move(*std::get_if<0>(&held_)); }
    [[nodiscard]] T *operator->() noexcept { return std::get_if<0>(&held_); }
    [[nodiscard]] const T *operator->() const noexcept { return std::get_if<0>(&held_); }
    // Only where there is no value.
    [[nodiscard]] const pvera::error &error() const & noexcept { return *std::get_if<1>(&held_); }
    [[nodiscard]] pvera::error &&error() && noexcept { return std::move(*std::get_if<1>(&held_)); }

private:
    std::variant<T, pvera::error> held_;
};

// Success or an error.
template <>
class [[nodiscard]] result<void> {
public:
    result() noexcept : error_(nullptr) {}
    result(pvera::error error) noexcept : error_(std::move(error)) {}

    [[nodiscard]] bool has_value() const noexcept { return error_.code() == code::ok; }
    explicit operator bool() const noexcept { return has_value(); }
    // Of code::ok after a success.
    [[nodiscard]] const pvera::error &error() const & noexcept { return error_; }
    [[nodiscard]] pvera::error &&error() && noexcept { return std::move(error_); }

private:
    pvera::error error_;
};

inline namespace PVERA_CPP_ERRORS {

#ifdef PVERA_NO_EXCEPTIONS

template <class T>
using outcome = result<T>;

// For the binding itself: the outcome of a call of C and what it gave.
template <class T>
outcome<T> finish(pvera_error *failed, T value) {
    if (failed) return error(failed);
    return outcome<T>(std::move(value));
}

inline outcome<void> finish(pvera_error *failed) { return failed ? outcome<void>(error(failed)) : outcome<void>(); }

// For the binding itself: an error that C++ found.
template <class T>
outcome<T> fail(code code, std::string message) {
    return error(code, std::move(message));
}

#else

template <class T>
using outcome = T;

// For the binding itself: the outcome of a call of C and what it gave.
template <class T>
outcome<T> finish(pvera_error *failed, T value) {
    if (failed) throw exception(error(failed));
    return value;
}

inline void finish(pvera_error *failed) {
    if (failed) throw exception(error(failed));
}

// For the binding itself: an error that C++ found.
template <class T>
[[noreturn]] outcome<T> fail(code code, std::string message) {
    throw exception(error(code, std::move(message)));
}

#endif

} // namespace PVERA_CPP_ERRORS
} // namespace pvera

#endif
