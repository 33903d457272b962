// Texts and bytes over the border: names that go in, sentences and files that come out.
#ifndef PVERA_CPP_TEXT_HPP
#define PVERA_CPP_TEXT_HPP

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <utility>

#include "error.hpp"
#include "span.hpp"

namespace pvera {

// An argument that is a text. What already ends in NUL is lent, a string_view is copied. NULL, which C refuses, where a
// NUL inside would cut the text short.
class text {
public:
    text(const char *given) noexcept : lent_(given) {}
    text(const std::string &given) noexcept : lent_(given.find('\0') == given.npos ? given.c_str() : nullptr) {}
    text(std::string_view given) : copy_(given), copied_(given.find('\0') == given.npos) {}

    [[nodiscard]] const char *c_str() const noexcept { return copied_ ? copy_.c_str() : lent_; }

private:
    const char *lent_ = nullptr;
    std::string copy_;
    bool copied_ = false;
};

// Bytes that the library gave, freed with this.
class [[nodiscard]] bytes {
public:
    bytes() noexcept = default;
    explicit bytes(pvera_bytes given) noexcept : held_(given) {}
    bytes(bytes &&other) noexcept : held_(std::exchange(other.held_, pvera_bytes{})) {}
    bytes &operator=(bytes &&other) noexcept {
        const pvera_bytes taken = std::exchange(other.held_, pvera_bytes{});
        pvera_bytes_free(&held_);
        held_ = taken;
        return *this;
    }
    bytes(const bytes &) = delete;
    bytes &operator=(const bytes &) = delete;
    ~bytes() { pvera_bytes_free(&held_); }

    [[nodiscard]] const uint8_t *data() const noexcept { return held_.data; }
    [[nodiscard]] std::size_t size() const noexcept { return held_.size; }
    [[nodiscard]] const uint8_t *begin() const noexcept { return held_.data; }
    [[nodiscard]] const uint8_t *end() const noexcept { return held_.data + held_.size; }

private:
    pvera_bytes held_{};
};

namespace detail {

// A text that the library gave, as a std::string; frees it.
inline std::string taken(char *given) {
    struct deleter {
        void operator()(char *text) const noexcept { pvera_text_free(text); }
    };
    const std::unique_ptr<char, deleter> owned(given);
    return given ? std::string(given) : std::string();
}

} // namespace detail

// Who runs: PVERA_VERSION is the header's, this is the library's.
[[nodiscard]] inline uint32_t version() noexcept { return pvera_version(); }
[[nodiscard]] inline std::string_view version_text() noexcept { return pvera_version_text(); }

inline namespace PVERA_CPP_ERRORS {
namespace calls {

// The sentence about two arrays that C takes with one count.
inline std::string sizes(const char *what, std::size_t given, const char *like, std::size_t wanted) {
    return std::string(what) + " has " + std::to_string(given) + " entries; wanted as many as " + like + ", " +
           std::to_string(wanted);
}

} // namespace calls

// Panics inside the library on purpose: comes back as code::panic.
inline outcome<void> test_panic(const text &message) { return finish(pvera_test_panic(message.c_str())); }

} // namespace PVERA_CPP_ERRORS
} // namespace pvera

#endif
