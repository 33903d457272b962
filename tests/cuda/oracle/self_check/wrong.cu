// Kernels that do wrong, each in one way, and two that do right.
#include "self_check/wrong.hpp"

// Sums a block's numbers with a tree, twice, so that a barrier is met in a loop.
extern "C" __global__ void __launch_bounds__(64) barriers_hold(Target target) {
    __shared__ float sums[64];
    for (unsigned round = 0; round < 2; round++) {
        sums[threadIdx.x] = (float)(threadIdx.x + round);
        __syncthreads();
        for (unsigned half = 32; half > 0; half /= 2) {
            if (threadIdx.x < half) {
                sums[threadIdx.x] += sums[threadIdx.x + half];
            }
            __syncthreads();
        }
        if (threadIdx.x == 0) {
            target.data[2 * blockIdx.x + round] = sums[0];
        }
        __syncthreads();
    }
}

extern "C" __global__ void __launch_bounds__(64) divergence_by_end(Target) {
    if (threadIdx.x == 7) {
        return;
    }
    __syncthreads();
}

extern "C" __global__ void __launch_bounds__(64) divergence_by_line(Target) {
    if (threadIdx.x < 32) {
        __syncthreads();
    } else {
        __syncthreads();
    }
}

template <unsigned COUNT> __device__ float last_of_template() {
    __shared__ float values[COUNT];
    float was = values[COUNT - 1];
    values[COUNT - 1] = 1.0f;
    return was;
}

// What a block finds in arrays that it never wrote, in a template and outside.
extern "C" __global__ void __launch_bounds__(64) fresh_shared_memory(Target target) {
    __shared__ float values[17];
    if (threadIdx.x == 0) {
        target.data[3 * blockIdx.x] = values[16];
        target.data[3 * blockIdx.x + 1] = last_of_template<5>();
        target.data[3 * blockIdx.x + 2] = last_of_template<6>();
        values[16] = 1.0f;
    }
}

// Each thread takes what its neighbour left, without waiting for it.
extern "C" __global__ void __launch_bounds__(64) missing_barrier(Target target) {
    __shared__ float values[64];
    values[threadIdx.x] = 1.0f;
    target.data[64 * blockIdx.x + threadIdx.x] = values[threadIdx.x ^ 1];
}

// data[0] counts; the others hold when a thread had its turn.
extern "C" __global__ void __launch_bounds__(64) order(Target target) {
    target.data[1 + 64 * blockIdx.x + threadIdx.x] = target.data[0]++;
}

extern "C" __global__ void __launch_bounds__(64) device_overrun(Target target) {
    target.data[target.count + threadIdx.x / 63] = 1.0f;
}

template <unsigned COUNT> __device__ __forceinline__ float *array_of_template() {
    __shared__ float values[COUNT];
    return values;
}

extern "C" __global__ void __launch_bounds__(64) shared_overrun(Target target) {
    float *volatile values = array_of_template<32>(); // whose size the compiler no longer knows
    target.data[0] = values[threadIdx.x];
}

extern "C" __global__ void __launch_bounds__(64) shared_index(Target target) {
    __shared__ float values[32];
    values[threadIdx.x / 2 + target.count / 64 * 32] = 1.0f;
    target.data[0] = values[0];
}

extern "C" __global__ void __launch_bounds__(64) misaligned_vector(Target target) {
    float4 four = *(const float4 *)(target.data + 1);
    target.data[0] = four.x + four.w;
}
