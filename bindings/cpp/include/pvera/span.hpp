// Arrays that are lent for a call: a pointer and a count, from a vector, an array, std::span, a braced list, or the two themselves.
#ifndef PVERA_CPP_SPAN_HPP
#define PVERA_CPP_SPAN_HPP

#include <cstddef>
#include <initializer_list>
#include <type_traits>
#include <utility>

namespace pvera {
namespace detail {

// Whether Container has data() and size() that a span<T> can be made of.
template <class Container, class T, class = void>
struct is_array : std::false_type {};
template <class Container, class T>
struct is_array<Container, T,
                std::void_t<decltype(std::declval<Container &>().data()), decltype(std::declval<Container &>().size())>>
    : std::is_convertible<std::remove_pointer_t<decltype(std::declval<Container &>().data())> (*)[], T (*)[]> {};

} // namespace detail

// std::span as far as it is needed here, for C++17 too.
template <class T>
class span {
public:
    constexpr span() noexcept = default;
    constexpr span(T *data, std::size_t size) noexcept : data_(data), size_(size) {}
    template <std::size_t Size>
    constexpr span(T (&array)[Size]) noexcept : data_(array), size_(Size) {}
    template <class Container, class = std::enable_if_t<detail::is_array<Container, T>::value>>
    constexpr span(Container &container) noexcept : data_(container.data()), size_(container.size()) {}
    // A temporary lives for the call that it is an argument of; to be written, an array needs a name.
    template <class Container, class Item = T,
              class = std::enable_if_t<std::is_const_v<Item> && detail::is_array<const Container, Item>::value>>
    constexpr span(const Container &container) noexcept : data_(container.data()), size_(container.size()) {}
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Winit-list-lifetime" // the list of a call lives as long as the call
#endif
    template <class Item = T, class = std::enable_if_t<std::is_const_v<Item>>>
    constexpr span(std::initializer_list<std::remove_const_t<T>> list) noexcept : data_(list.begin()), size_(list.size()) {}
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif
    template <class Other, class = std::enable_if_t<std::is_convertible_v<Other (*)[], T (*)[]>>>
    constexpr span(const span<Other> &other) noexcept : data_(other.data()), size_(other.size()) {}

    [[nodiscard]] constexpr T *data() const noexcept { return data_; }
    [[nodiscard]] constexpr std::size_t size() const noexcept { return size_; }
    [[nodiscard]] constexpr bool empty() const noexcept { return size_ == 0; }
    [[nodiscard]] constexpr T *begin() const noexcept { return data_; }
    [[nodiscard]] constexpr T *end() const noexcept { return data_ + size_; }
    [[nodiscard]] constexpr T &operator[](std::size_t index) const noexcept { return data_[index]; }
    [[nodiscard]] constexpr span subspan(std::size_t first, std::size_t count) const noexcept { return span(data_ + first, count); }

private:
    T *data_ = nullptr;
    std::size_t size_ = 0;
};

} // namespace pvera

#endif
