// Views of the host's matrices, to be read and to be written, and which C++ types are which element types.
#ifndef PVERA_CPP_MATRIX_HPP
#define PVERA_CPP_MATRIX_HPP

#include <type_traits>

#include "error.hpp"
#include "span.hpp"

namespace pvera {

using dtype = pvera_dtype;
using device = pvera_device;

inline constexpr dtype f32{PVERA_DTYPE_FLOAT, 32, 1};
inline constexpr dtype f16{PVERA_DTYPE_FLOAT, 16, 1};
inline constexpr dtype bf16{PVERA_DTYPE_BFLOAT, 16, 1};
inline constexpr device cpu{PVERA_DEVICE_CPU, 0};

// The element type of a C++ type. For a 16-bit type of yours:
//     template <> struct pvera::element<my::half> { static constexpr pvera::dtype type = pvera::f16; };
template <class T>
struct element;
template <>
struct element<float> {
    static constexpr dtype type = f32;
};

// A matrix that is written; the struct of C with constructors, of its fields or of what they can be told from. Default: absent.
struct matrix_mut : pvera_matrix_mut {
    constexpr matrix_mut() noexcept : pvera_matrix_mut{} {}
    constexpr matrix_mut(const pvera_matrix_mut &given) noexcept : pvera_matrix_mut(given) {}
    constexpr matrix_mut(void *at, std::size_t height, std::size_t width, std::size_t stride, pvera::dtype type,
                         pvera::device where = cpu) noexcept
        : pvera_matrix_mut{at, height, width, stride, type, where} {}
    template <class T, class = decltype(element<T>::type)>
    constexpr matrix_mut(T *at, std::size_t height, std::size_t width) noexcept
        : matrix_mut(at, height, width, width, element<T>::type) {}
    template <class T, class = decltype(element<T>::type)>
    constexpr matrix_mut(T *at, std::size_t height, std::size_t width, std::size_t stride) noexcept
        : matrix_mut(at, height, width, stride, element<T>::type) {}
    // Whatever is written can be read, also in a field of an option.
    constexpr operator pvera_matrix() const noexcept { return {data, rows, cols, row_stride, dtype, device}; }
};

// A matrix that is read; the same.
struct matrix : pvera_matrix {
    constexpr matrix() noexcept : pvera_matrix{} {}
    constexpr matrix(const pvera_matrix &given) noexcept : pvera_matrix(given) {}
    constexpr matrix(const pvera_matrix_mut &given) noexcept
        : pvera_matrix{given.data, given.rows, given.cols, given.row_stride, given.dtype, given.device} {}
    constexpr matrix(const void *at, std::size_t height, std::size_t width, std::size_t stride, pvera::dtype type,
                     pvera::device where = cpu) noexcept
        : pvera_matrix{at, height, width, stride, type, where} {}
    template <class T, class = decltype(element<std::remove_const_t<T>>::type)>
    constexpr matrix(T *at, std::size_t height, std::size_t width) noexcept
        : matrix(at, height, width, width, element<std::remove_const_t<T>>::type) {}
    template <class T, class = decltype(element<std::remove_const_t<T>>::type)>
    constexpr matrix(T *at, std::size_t height, std::size_t width, std::size_t stride) noexcept
        : matrix(at, height, width, stride, element<std::remove_const_t<T>>::type) {}
};

// Arrays of them are arrays of the structs of C, as group calls take them.
static_assert(sizeof(matrix) == sizeof(pvera_matrix) && sizeof(matrix_mut) == sizeof(pvera_matrix_mut));

inline namespace PVERA_CPP_ERRORS {
namespace calls {

template <class View, class T>
outcome<View> checked_view(span<T> values, std::size_t rows, std::size_t cols) {
    const bool fits = cols == 0 ? values.empty() : values.size() % cols == 0 && values.size() / cols == rows;
    if (!fits)
        return fail<View>(code::shape, "the array of a matrix has " + std::to_string(values.size()) + " elements; wanted " +
                                           std::to_string(rows) + " x " + std::to_string(cols));
    return View(values.data(), rows, cols);
}

} // namespace calls

// A vector, array or span as a dense matrix, whose size is checked: to be written, or to be read if it is const.
template <class Container>
[[nodiscard]] auto as_matrix(Container &values, std::size_t rows, std::size_t cols) {
    using item = std::remove_pointer_t<decltype(values.data())>;
    using view = std::conditional_t<std::is_const_v<item>, matrix, matrix_mut>;
    return calls::checked_view<view>(span<item>(values.data(), values.size()), rows, cols);
}

// It would be gone before the call.
template <class Container, class = std::enable_if_t<!std::is_lvalue_reference_v<Container>>>
auto as_matrix(Container &&values, std::size_t rows, std::size_t cols) = delete;

} // namespace PVERA_CPP_ERRORS
} // namespace pvera

#endif
