// DLPack: tensors of every good shape in, every bad one refused with a sentence, matrices out with their owner, and round trips;
// with the layout of pvera::dlpack and, where it is installed, with that of <dlpack/dlpack.h>.
#include <limits>
#include <memory>

#include "world.hpp"
#ifdef TEST_DLPACK_HEADER
#include <dlpack/dlpack.h>
static_assert(sizeof(DLTensor) == sizeof(pvera::dlpack::tensor) && sizeof(DLManagedTensor) == sizeof(pvera::dlpack::managed_tensor));
static_assert(offsetof(DLTensor, ndim) == offsetof(pvera::dlpack::tensor, ndim) &&
              offsetof(DLTensor, dtype) == offsetof(pvera::dlpack::tensor, dtype) &&
              offsetof(DLTensor, byte_offset) == offsetof(pvera::dlpack::tensor, byte_offset));
#ifdef DLPACK_MAJOR_VERSION
static_assert(sizeof(DLManagedTensorVersioned) == sizeof(pvera::dlpack::managed_tensor_versioned) &&
              offsetof(DLManagedTensorVersioned, dl_tensor) == offsetof(pvera::dlpack::managed_tensor_versioned, dl_tensor) &&
              DLPACK_FLAG_BITMASK_READ_ONLY == pvera::dlpack::read_only);
#endif
static_assert(kDLCPU == PVERA_DEVICE_CPU && kDLCUDA == PVERA_DEVICE_CUDA && kDLCUDAHost == PVERA_DEVICE_CUDA_HOST);
static_assert(kDLFloat == PVERA_DTYPE_FLOAT && kDLBfloat == PVERA_DTYPE_BFLOAT);
#endif

namespace {

constexpr int64_t most = std::numeric_limits<int64_t>::max();

// A tensor on memory of its own.
struct given {
    std::vector<float> values = std::vector<float>(1000);
    std::vector<int64_t> shape, strides;
    pvera::dlpack::tensor tensor{};

    explicit given(std::vector<int64_t> sizes, std::vector<int64_t> steps = {}) : shape(std::move(sizes)), strides(std::move(steps)) {
        tensor.data = values.data();
        tensor.device = {PVERA_DEVICE_CPU, 0};
        tensor.ndim = static_cast<int32_t>(shape.size());
        tensor.dtype = pvera::f32;
        tensor.shape = shape.data();
        tensor.strides = strides.empty() ? nullptr : strides.data();
    }
};

void good() {
    const struct {
        std::vector<int64_t> shape, strides;
        std::size_t rows, cols, row_stride;
    } cases[] = {
        {{7}, {}, 1, 7, 7},
        {{7}, {1}, 1, 7, 7},
        {{1}, {9}, 1, 1, 1},
        {{4, 3}, {}, 4, 3, 3},
        {{4, 3}, {3, 1}, 4, 3, 3},
        {{4, 3}, {10, 1}, 4, 3, 10},
        {{4, 1}, {5, 77}, 4, 1, 5},
        {{2, 4, 3}, {}, 8, 3, 3},
        {{2, 4, 3}, {40, 10, 1}, 8, 3, 10},
        {{2, 1, 4, 3}, {40, -5, 10, 1}, 8, 3, 10}, // the stride of a size of 1 does not matter
        {{1, 1, 3}, {0, 0, 1}, 1, 3, 3},
        {{2, 1, 3}, {10, 0, 1}, 2, 3, 10},
        {{0, 3}, {}, 0, 3, 3},
        {{4, 0}, {}, 4, 0, 0},
        {{0, 5, 3}, {-1, -1, -1}, 0, 3, 3},
        {{5, 2, 0}, {}, 10, 0, 0},
    };
    for (const auto &is : cases) {
        const given of(is.shape, is.strides);
        const pvera::matrix view = pvera::from_dlpack(of.tensor);
        CHECK(view.data == of.values.data() && view.rows == is.rows && view.cols == is.cols && view.row_stride == is.row_stride);
        const pvera::matrix_mut to_write = pvera::from_dlpack_mut(of.tensor);
        CHECK(to_write.data == view.data && to_write.rows == is.rows && to_write.device.type == PVERA_DEVICE_CPU);
    }
    given offset({2, 3});
    offset.tensor.byte_offset = 8;
    CHECK(pvera::from_dlpack(offset.tensor).data == offset.values.data() + 2);
    offset.tensor.dtype = pvera::bf16;
    offset.tensor.device = {PVERA_DEVICE_CUDA, 3};
    const pvera::matrix on_device = pvera::from_dlpack(offset.tensor);
    CHECK(on_device.dtype.code == PVERA_DTYPE_BFLOAT && on_device.device.type == PVERA_DEVICE_CUDA && on_device.device.id == 3);
}

void bad() {
    const auto refused = [](const given &of, pvera::code code, const char *words, int line) {
        try {
            static_cast<void>(pvera::from_dlpack(of.tensor, "x"));
            check::that(false, __FILE__, line, std::string("taken, wanted: ") + words);
        } catch (const pvera::exception &error) {
            check::error_is(error.code(), error.what(), code, words, __FILE__, line);
            check::that(error.what()[0] == 'x', __FILE__, line, "the argument is not named");
        }
    };
    refused(given({}), pvera::code::shape, "0 dimensions|at least 1", __LINE__);
    refused(given({3, -1}), pvera::code::shape, "size -1|dimension 1", __LINE__);
    refused(given({most, most}), pvera::code::shape, "more elements", __LINE__);
    refused(given({most / 4, 0, 9}), pvera::code::shape, "more elements", __LINE__);
    refused(given({4, 3}, {3, 2}), pvera::code::stride, "stride 2|dimension 1|wanted 1", __LINE__);
    refused(given({4, 3}, {1, 4}), pvera::code::stride, "stride 4|dimension 1", __LINE__); // column major
    refused(given({4, 3}, {2, 1}), pvera::code::stride, "stride 2|dimension 0|at least a row, 3", __LINE__);
    refused(given({4, 3}, {0, 1}), pvera::code::stride, "stride 0", __LINE__); // broadcast
    refused(given({4, 3}, {-3, 1}), pvera::code::stride, "stride -3", __LINE__);
    refused(given({2, 4, 3}, {50, 10, 1}), pvera::code::stride, "stride 50|dimension 0|4 x 10", __LINE__);
    refused(given({2, 4, 3}, {3, 6, 1}), pvera::code::stride, "stride 3|dimension 0|4 x 6", __LINE__);
    refused(given({2, 4, 3}, {most, most, 1}), pvera::code::stride, "dimension 0", __LINE__);
    given of({4, 3});
    of.tensor.shape = nullptr;
    refused(of, pvera::code::shape, "no shape|NULL", __LINE__);
    of = given({4, 3}), of.tensor.data = nullptr;
    refused(of, pvera::code::null, "data is NULL", __LINE__);
    of = given({4, 3}), of.tensor.shape = of.shape.data(), of.tensor.dtype = {PVERA_DTYPE_FLOAT, 64, 1};
    refused(of, pvera::code::dtype, "code 2, 64 bits|wanted f32", __LINE__);
    of.tensor.dtype = {PVERA_DTYPE_FLOAT, 32, 4};
    refused(of, pvera::code::dtype, "4 lanes", __LINE__);
    of.tensor.dtype = {PVERA_DTYPE_INT, 32, 1};
    refused(of, pvera::code::dtype, "code 0", __LINE__);
    of.tensor.dtype = pvera::f32, of.tensor.device = {10, 0}; // ROCm
    refused(of, pvera::code::device, "type 10|CPU (1)", __LINE__);
}

// An owner that tells when it goes.
struct owner {
    std::vector<float> values;
    std::shared_ptr<int> alive;
};

template <class Managed>
void round_trip() {
    const world all;
    const auto linear = all.adapter.linear(0);
    const auto wanted = all.forward(linear);
    const auto alive = std::make_shared<int>(1);
    owner mine{std::vector<float>(world::n * 20), alive};
    const auto view = pvera::matrix_mut(mine.values.data(), world::n, world::out, 20);
    auto exported = pvera::to_dlpack<Managed>(view, std::move(mine));
    CHECK(alive.use_count() == 2 && exported->dl_tensor.ndim == 2 && exported->dl_tensor.strides[0] == 20);

    // Another library has it now, and gives it back.
    Managed *const elsewhere = exported.release();
    all.context.forward(linear, all.input(), pvera::from_dlpack_mut(*elsewhere), pvera::rows(), pvera::noise(PVERA_MODE_MEAN));
    const pvera::matrix y = pvera::from_dlpack(elsewhere->dl_tensor, "y");
    CHECK(y.row_stride == 20 && y.cols == world::out && y.rows == world::n);
    bool same = true;
    for (std::size_t i = 0; i < wanted.size(); ++i)
        same &= static_cast<const float *>(y.data)[i / world::out * 20 + i % world::out] == wanted[i];
    CHECK(same);
    pvera::dlpack_owner<Managed> back(elsewhere);
    back.reset();
    CHECK(alive.use_count() == 1);
}

// The view and the move in one line: arguments may be made in any order.
template <class Managed>
void moved_in_one_line() {
    std::vector<float> values(6, 2.0f);
    const float *const at = values.data();
    const auto exported = pvera::to_dlpack<Managed>(pvera::matrix_mut(values.data(), 2, 3), std::move(values));
    CHECK(exported->dl_tensor.data == at && static_cast<const float *>(exported->dl_tensor.data)[5] == 2.0f);
    std::vector<float> others(6);
    const auto second = pvera::to_dlpack(pvera::as_matrix(others, 2, 3), std::move(others));
    CHECK(second->dl_tensor.data != nullptr);
}

template <class Managed>
void flags() {
    auto values = std::make_shared<std::vector<float>>(6);
    const pvera::matrix to_read(values->data(), 2, 3);
    const auto locked = pvera::to_dlpack<Managed>(to_read, values);
    CHECK(pvera::from_dlpack(*locked).data == values->data() && values.use_count() == 2);
    CHECK_THROWS(static_cast<void>(pvera::from_dlpack_mut(*locked, "y")), pvera::code::state, "y is read-only");
    const auto open = pvera::to_dlpack<Managed>(pvera::matrix_mut(values->data(), 2, 3), values);
    CHECK(pvera::from_dlpack_mut(*open).data == values->data());
    open->version.major = 2;
    CHECK_THROWS(static_cast<void>(pvera::from_dlpack(*open, "x")), pvera::code::unsupported, "x is of DLPack 2|version 1");
}

} // namespace

int main() {
    return check::run([] {
        good();
        bad();
        round_trip<pvera::dlpack::managed_tensor>();
        round_trip<pvera::dlpack::managed_tensor_versioned>();
        flags<pvera::dlpack::managed_tensor_versioned>();
        moved_in_one_line<pvera::dlpack::managed_tensor>();
        moved_in_one_line<pvera::dlpack::managed_tensor_versioned>();
#ifdef TEST_DLPACK_HEADER
        round_trip<DLManagedTensor>();
#ifdef DLPACK_MAJOR_VERSION
        round_trip<DLManagedTensorVersioned>();
        flags<DLManagedTensorVersioned>();
#endif
#endif
    });
}
