// DLPack's structs, and what can be told from them: for dlpack.hpp.
#ifndef PVERA_CPP_DLPACK_LAYOUT_HPP
#define PVERA_CPP_DLPACK_LAYOUT_HPP

#include <pvera.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <type_traits>
#include <utility>

namespace pvera {

// DLPack's structs (github.com/dmlc/dlpack, version 1), for a program that has no dlpack.h.
namespace dlpack {

struct device {
    int32_t device_type;
    int32_t device_id;
};

struct tensor {
    void *data;
    dlpack::device device;
    int32_t ndim;
    pvera_dtype dtype;
    int64_t *shape;
    int64_t *strides;
    uint64_t byte_offset;
};

struct managed_tensor {
    tensor dl_tensor;
    void *manager_ctx;
    void (*deleter)(managed_tensor *self);
};

struct version {
    uint32_t major;
    uint32_t minor;
};

struct managed_tensor_versioned {
    dlpack::version version;
    void *manager_ctx;
    void (*deleter)(managed_tensor_versioned *self);
    uint64_t flags;
    tensor dl_tensor;
};

inline constexpr uint64_t read_only = 1; // DLPACK_FLAG_BITMASK_READ_ONLY
inline constexpr uint32_t major_version = 1;

} // namespace dlpack

namespace detail {

template <class Tensor, class = void>
struct is_managed : std::false_type {};
template <class Tensor>
struct is_managed<Tensor, std::void_t<decltype(std::declval<Tensor &>().dl_tensor)>> : std::true_type {};

template <class Managed, class = void>
struct is_versioned : std::false_type {};
template <class Managed>
struct is_versioned<Managed, std::void_t<decltype(std::declval<Managed &>().version), decltype(std::declval<Managed &>().flags)>>
    : std::true_type {};

// Whether what it holds lies elsewhere once it was moved.
template <class Owner>
struct moves_elements : std::false_type {};
template <class Element, std::size_t count>
struct moves_elements<std::array<Element, count>> : std::true_type {};

struct managed_deleter {
    template <class Managed>
    void operator()(Managed *managed) const noexcept {
        if (managed->deleter) managed->deleter(managed);
    }
};

// Somebody's DLTensor as ours.
template <class Tensor>
dlpack::tensor plain(const Tensor &given) noexcept {
    const pvera_dtype type{static_cast<uint8_t>(given.dtype.code), static_cast<uint8_t>(given.dtype.bits),
                           static_cast<uint16_t>(given.dtype.lanes)};
    const dlpack::device where{static_cast<int32_t>(given.device.device_type), static_cast<int32_t>(given.device.device_id)};
    return {given.data, where, static_cast<int32_t>(given.ndim), type, given.shape, given.strides, given.byte_offset};
}

// The distance between neighbours of a dimension; without strides, of a dense row-major tensor.
inline int64_t stride_of(const dlpack::tensor &of, int32_t dimension) noexcept {
    if (of.strides) return of.strides[dimension];
    int64_t stride = 1;
    for (int32_t later = dimension + 1; later < of.ndim; ++later) stride *= of.shape[later];
    return stride;
}

// Whether the product of all sizes but zeros is small enough that no product of some can overflow, in bytes either.
inline bool is_countable(const dlpack::tensor &of) noexcept {
    int64_t left = std::numeric_limits<int64_t>::max() / 8;
    for (int32_t i = 0; i < of.ndim; ++i)
        if (of.shape[i] != 0) left /= of.shape[i];
    return left > 0;
}

inline int64_t product(const int64_t *sizes, int32_t count) noexcept {
    int64_t product = 1;
    for (int32_t i = 0; i < count; ++i) product *= sizes[i];
    return product;
}

// Of a computation.
inline bool is_float(pvera_dtype type) noexcept {
    return type.lanes == 1 && (type.code == PVERA_DTYPE_FLOAT ? type.bits == 32 || type.bits == 16
                                                              : type.code == PVERA_DTYPE_BFLOAT && type.bits == 16);
}

} // namespace detail

} // namespace pvera

#endif
