// Tensors of other libraries, as DLPack lays them out: taken as matrices, and matrices given away with what keeps them alive.
//
// The functions take any struct with DLPack's members: DLTensor of <dlpack/dlpack.h> of any version, of the copy that a tensor
// library brings along, or the same layout of dlpack_layout.hpp, which stands in a namespace of ours and so clashes with none.
#ifndef PVERA_CPP_DLPACK_HPP
#define PVERA_CPP_DLPACK_HPP

#include <memory>
#include <string>
#include <type_traits>
#include <utility>

#include "dlpack_layout.hpp"
#include "error.hpp"
#include "matrix.hpp"

namespace pvera {

// Owns a managed tensor and calls its deleter; release() hands it over.
template <class Managed = dlpack::managed_tensor_versioned>
using dlpack_owner = std::unique_ptr<Managed, detail::managed_deleter>;

inline namespace PVERA_CPP_ERRORS {
namespace calls {

// One tensor on its way to a View.
template <class View>
class importer {
public:
    importer(const dlpack::tensor &from, const char *name) noexcept : from_(from), name_(name) {}

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
        return importer<View>(detail::plain(given.dl_tensor), name).view();
    } else {
        return importer<View>(detail::plain(given), name).view();
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
[[nodiscard]] dlpack_owner<Managed> to_dlpack(const matrix_mut &of, Owner &&owner) {
    static_assert(!detail::moves_elements<std::decay_t<Owner>>::value,
                  "the elements of an array move with it: of would point to where they were");
    return calls::export_any<Managed>(of, std::decay_t<Owner>(std::forward<Owner>(owner)), false);
}

// A matrix that may only be read, which the versioned struct alone can say.
template <class Managed = dlpack::managed_tensor_versioned, class Owner>
[[nodiscard]] dlpack_owner<Managed> to_dlpack(const matrix &of, Owner &&owner) {
    static_assert(detail::is_versioned<Managed>::value, "DLManagedTensor cannot say that a tensor is read-only");
    static_assert(!detail::moves_elements<std::decay_t<Owner>>::value,
                  "the elements of an array move with it: of would point to where they were");
    return calls::export_any<Managed>(of, std::decay_t<Owner>(std::forward<Owner>(owner)), true);
}

} // namespace PVERA_CPP_ERRORS
} // namespace pvera

#endif
