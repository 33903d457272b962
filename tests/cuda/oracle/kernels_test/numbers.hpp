// The numbers that kernels are checked against, one scalar at a time: element types, and noise as src/noise/mod.rs
// defines it.
#pragma once

#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

#include "arguments.cuh"

template <typename To, typename From> To bits_as(From from) {
    static_assert(sizeof(To) == sizeof(From), "the same bits");
    To to;
    std::memcpy(&to, &from, sizeof to);
    return to;
}

// ---- Element types --------------------------------------------------------------------------------------------------

size_t size_of(Dtype dtype);
const char *name_of(Dtype dtype);
// Exact.
float widened(Dtype dtype, uint32_t bits);
// To nearest, ties to even; a NaN stays one.
uint32_t narrowed(Dtype dtype, float value);

// ---- exp, log, sine and cosine of src/noise/math.rs -----------------------------------------------------------------

float exponential(float x);
float logarithm(float x);
std::pair<float, float> sincos_turns(uint32_t word);

// ---- Noise by key ---------------------------------------------------------------------------------------------------

enum class Domain : uint64_t { NORMALS = 1, DROPOUT = 2 };

struct Key {
    uint64_t seed, layer_hash, adapter_identity;
};

// Word `place` of the stream of a row in a sample.
uint32_t word_of(const Key &key, Domain domain, uint64_t identity, uint32_t sample, uint64_t place);
float normal_of(const Key &key, uint64_t identity, uint32_t sample, bool antithetic, uint64_t latent);

// ---- Where details show ---------------------------------------------------------------------------------------------

// Found by trying: to round any one operation towards zero, or to change the last bit of any one constant, gives
// another result for one of these, unless the operation is exact. Arguments of `exponential`, some of them above −1;
// and identities whose first 16 normals, of sample 0, tell. The last four meet the edges of log's and sincos' cases.
extern const std::vector<float> TELLING_EXPONENTS;
constexpr Key TELLING_KEY{1, 2, 3};
extern const std::vector<uint64_t> TELLING_IDENTITIES;
