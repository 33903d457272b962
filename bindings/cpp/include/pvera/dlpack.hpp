// Tensors of other libraries, as DLPack lays them out: taken as matrices, and matrices given away with what keeps them alive.
//
// The functions take any struct with DLPack's members: DLTensor of <dlpack/dlpack.h> of any version, of the copy that a tensor
// library brings along, or the same layout below, which stands in a namespace of ours and so clashes with none.
#ifndef PVERA_CPP_DLPACK_HPP
#define PVERA_CPP_DLPACK_HPP

#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>

#include "error.hpp"
#include "matrix.hpp"

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

// Owns a managed tensor and calls its deleter; release() hands it over.
template <class Managed = dlpack::managed_tensor_versioned>
using dlpack_owner = std::unique_ptr<Managed, detail::managed_deleter>;

inline namespace PVERA_CPP_ERRORS {
namespace calls {

// One tensor on its way to a View.
template <class View>
class import {
public:
    import(const dlpack::tensor &from, const char *name) noexcept : from_(from), name_(name) {}

    outcome<View> view() const {
        const std::string wrong_size = size_error();
        if (!wrong_size.empty()) return refuse(code::shape, wrong_size);
        const pvera_dtype type = from_.dtype;
        if (!detail::is_float(type))
            return refuse(code::dtype, "is of type code " + std::to_string(type.code) + ", " + std::to_string(type.bits) +
                                           " bits, " + std::to_string(type.lanes) + " lanes; wanted f32, f16 or bf16");
        const int32_t place = from_.device.device_type;
        if (place != PVERA_DEVICE_CPU && place != PVERA_DEVICE_CUDA && place != PVERA_DEVICE_CUDA_HOST)
            return refuse(code::device, "is on a device of type " + std::to_string(place) +
                                            "; wanted the CPU (1), CUDA (2) or CUDA's host memory (3)");
        const int64_t rows = detail::product(from_.shape, last()), cols = from_.shape[last()];
        if (rows == 0 || cols == 0) return made(rows, cols, cols);
        if (!from_.data) return refuse(code::null, "has elements, but its data is NULL");
        if (cols > 1 && detail::stride_of(from_, last()) != 1)
            return refuse(code::stride, at("stride", last()) + "; wanted 1: a row's elements lie side by side");
        return with_rows(rows, cols);
    }

private:
    // What is wrong with the number of dimensions and their sizes; empty if nothing.
    std::string size_error() const {
        if (from_.ndim < 1) return "has " + std::to_string(from_.ndim) + " dimensions; wanted at least 1";
        if (!from_.shape) return "has no shape: the pointer is NULL";
        for (int32_t i = 0; i < from_.ndim; ++i)
            if (from_.shape[i] < 0) return "has size " + std::to_string(from_.shape[i]) + " in dimension " + std::to_string(i);
        return detail::is_countable(from_) ? std::string() : "has more elements than memory can hold";
    }

    // All dimensions before the last become rows, which is right if one stride leads over them all.
    outcome<View> with_rows(int64_t rows, int64_t cols) const {
        int64_t row_stride = cols, behind = 1;
        for (int32_t i = last() - 1; i >= 0; --i) {
            if (from_.shape[i] == 1) continue;
            const int64_t stride = detail::stride_of(from_, i);
            if (behind == 1) row_stride = stride;
            if (row_stride < cols) return refuse(code::stride, at("stride", i) + "; wanted at least a row, " + std::to_string(cols));
            if (stride % behind != 0 || stride / behind != row_stride) // no product, which could overflow
                return refuse(code::stride, at("stride", i) + "; wanted " + std::to_string(behind) + " x " +
                                                std::to_string(row_stride) + ", since leading dimensions are taken as one");
            behind *= from_.shape[i];
        }
        return made(rows, cols, row_stride);
    }

    outcome<View> made(int64_t rows, int64_t cols, int64_t row_stride) const {
        auto *const data = static_cast<char *>(from_.data);
        return outcome<View>(View(data ? data + from_.byte_offset : nullptr, static_cast<std::size_t>(rows),
                                  static_cast<std::size_t>(cols), static_cast<std::size_t>(row_stride), from_.dtype,
                                  {from_.device.device_type, from_.device.device_id}));
    }

    int32_t last() const noexcept { return from_.ndim - 1; }
    std::string at(const char *what, int32_t dimension) const {
        return std::string("has ") + what + " " + std::to_string(detail::stride_of(from_, dimension)) + " in dimension " +
               std::to_string(dimension);
    }
    outcome<View> refuse(code code, const std::string &why) const { return fail<View>(code, name_ + (" " + why)); }

    dlpack::tensor from_;
    const char *name_;
};

template <class View, class Tensor>
outcome<View> import_any(const Tensor &given, const char *name) {
    if constexpr (detail::is_managed<Tensor>::value) {
        if constexpr (detail::is_versioned<Tensor>::value) {
            if (given.version.major != dlpack::major_version)
                return fail<View>(code::unsupported, std::string(name) + " is of DLPack " + std::to_string(given.version.major) +
                                                         "; wanted version 1");
            if (std::is_same_v<View, matrix_mut> && (given.flags & dlpack::read_only))
                return fail<View>(code::state, std::string(name) + " is read-only, and wanted to be written");
        }
        return import<View>(detail::plain(given.dl_tensor), name).view();
    } else {
        return import<View>(detail::plain(given), name).view();
    }
}

} // namespace calls

// A DLTensor, or what manages one, as a matrix to be read: the last dimension are the columns, all before it the rows. Lent, not
// taken. name is for the error's sentence.
template <class Tensor>
[[nodiscard]] outcome<matrix> from_dlpack(const Tensor &tensor, const char *name = "tensor") {
    return calls::import_any<matrix>(tensor, name);
}

// The same as a matrix to be written.
template <class Tensor>
[[nodiscard]] outcome<matrix_mut> from_dlpack_mut(const Tensor &tensor, const char *name = "tensor") {
    return calls::import_any<matrix_mut>(tensor, name);
}

namespace calls {

// A managed tensor beside what keeps its memory alive; freed by its deleter.
template <class Managed, class Owner>
struct exported {
    Managed managed{};
    int64_t shape[2], strides[2];
    Owner owner;

    exported(const matrix &of, Owner &&alive)
        : shape{static_cast<int64_t>(of.rows), static_cast<int64_t>(of.cols)}, strides{static_cast<int64_t>(of.row_stride), 1},
          owner(std::move(alive)) {
        auto &tensor = managed.dl_tensor;
        tensor.data = const_cast<void *>(of.data);
        tensor.device.device_type = static_cast<decltype(tensor.device.device_type)>(of.device.type ? of.device.type : PVERA_DEVICE_CPU);
        tensor.device.device_id = of.device.id;
        tensor.ndim = 2;
        tensor.dtype.code = of.dtype.code, tensor.dtype.bits = of.dtype.bits;
        tensor.dtype.lanes = 1;
        tensor.shape = shape, tensor.strides = strides;
        managed.manager_ctx = this;
        managed.deleter = [](Managed *self) { delete static_cast<exported *>(self->manager_ctx); };
    }
};

template <class Managed, class Owner>
dlpack_owner<Managed> export_any(const matrix &of, Owner owner, bool is_read_only) {
    auto *const made = new exported<Managed, Owner>(of, std::move(owner));
    if constexpr (detail::is_versioned<Managed>::value) {
        made->managed.version.major = dlpack::major_version;
        made->managed.flags = is_read_only ? dlpack::read_only : 0;
    }
    return dlpack_owner<Managed>(&made->managed);
}

} // namespace calls

// A matrix as a managed tensor of two dimensions. owner is whatever keeps the memory alive (a vector, a shared_ptr); it is moved
// in, and destroyed by the tensor's deleter, on whatever thread that is called. Managed is one of dlpack's above, or yours.
template <class Managed = dlpack::managed_tensor_versioned, class Owner>
[[nodiscard]] dlpack_owner<Managed> to_dlpack(const matrix_mut &of, Owner owner) {
    return calls::export_any<Managed>(of, std::move(owner), false);
}

// A matrix that may only be read, which the versioned struct alone can say.
template <class Managed = dlpack::managed_tensor_versioned, class Owner>
[[nodiscard]] dlpack_owner<Managed> to_dlpack(const matrix &of, Owner owner) {
    static_assert(detail::is_versioned<Managed>::value, "DLManagedTensor cannot say that a tensor is read-only");
    return calls::export_any<Managed>(of, std::move(owner), true);
}

} // namespace PVERA_CPP_ERRORS
} // namespace pvera

#endif
