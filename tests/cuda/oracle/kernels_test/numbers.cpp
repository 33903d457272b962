// Element types and noise by key, from src/tensor/dtype.rs and the definition in src/noise/mod.rs.
#include "numbers.hpp"

#include <algorithm>
#include <cmath>

// ---- Element types --------------------------------------------------------------------------------------------------

size_t size_of(Dtype dtype) { return dtype == DTYPE_F32 ? 4 : 2; }

const char *name_of(Dtype dtype) { return dtype == DTYPE_F32 ? "f32" : dtype == DTYPE_F16 ? "f16" : "bf16"; }

static float half_widened(uint32_t bits) {
    const uint32_t exponent = bits >> 10 & 31, fraction = bits & 1023;
    float value;
    if (exponent == 31) {
        value = fraction ? NAN : INFINITY;
    } else if (exponent == 0) {
        value = std::ldexp(static_cast<float>(fraction), -24);
    } else {
        value = std::ldexp(static_cast<float>(1024 + fraction), static_cast<int>(exponent) - 25);
    }
    return bits >> 15 ? -value : value;
}

static uint32_t half_narrowed(float value) {
    const uint32_t sign = bits_as<uint32_t>(value) >> 16 & 0x8000;
    if (std::isnan(value)) return sign | 0x7e00;
    // In f64 everything but the rounding is exact: a step is the distance between neighbours of this size.
    const double size = std::fabs(static_cast<double>(value));
    if (size >= 65520) return sign | 0x7c00;
    if (size == 0) return sign;
    int exponent = 0;
    std::frexp(size, &exponent);
    const int step = std::max(exponent - 11, -24);
    // nearbyint rounds to even, as the default mode says.
    const double steps = std::nearbyint(std::ldexp(size, -step));
    // The leading bit of a normal number, and a rounding up to the next power of two, carry into the exponent by
    // themselves.
    return sign | ((static_cast<uint32_t>(step + 24) << 10) + static_cast<uint32_t>(steps));
}

float widened(Dtype dtype, uint32_t bits) {
    switch (dtype) {
    case DTYPE_F16: return half_widened(bits);
    case DTYPE_BF16: return bits_as<float>(bits << 16);
    default: return bits_as<float>(bits);
    }
}

uint32_t narrowed(Dtype dtype, float value) {
    const uint32_t bits = bits_as<uint32_t>(value);
    switch (dtype) {
    case DTYPE_F16: return half_narrowed(value);
    case DTYPE_BF16: return std::isnan(value) ? (bits | 0x00400000) >> 16 : (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    default: return bits;
    }
}

// ---- exp, log, sine and cosine --------------------------------------------------------------------------------------

static constexpr float ROUNDER = 12582912.0f;
static constexpr float LN_2_HIGH = 0.6933594f, LN_2_LOW = -2.1219444e-4f;
static constexpr float LOG2_E = 1.44269504088896340735992468100189214f;
static constexpr float HALF_PI = 1.57079632679489661923132169163975144f;
static constexpr uint32_t SQRT_HALF_BITS = 0x3f3504f3;

template <size_t N> static float polynomial(const float (&coefficients)[N], float x) {
    float sum = coefficients[N - 1];
    for (size_t power = N - 1; power-- > 0;)
        sum = std::fma(sum, x, coefficients[power]);
    return sum;
}

static float power_of_two(int exponent) { return bits_as<float>(static_cast<uint32_t>(exponent + 127) << 23); }

float exponential(float x) {
    static constexpr float EXP[] = {4.9999988e-1f, 1.6666518e-1f, 4.166965e-2f, 8.368945e-3f, 1.3745304e-3f};
    if (std::isnan(x)) return x;
    if (x < -104.0f) x = -104.0f;
    if (x > 89.0f) x = 89.0f;
    const float shifted = std::fma(x, LOG2_E, ROUNDER);
    const int exponent = bits_as<int>(shifted) - bits_as<int>(ROUNDER);
    const float count = shifted - ROUNDER;
    float rest = std::fma(count, -LN_2_HIGH, x);
    rest = std::fma(count, -LN_2_LOW, rest);
    const float mantissa = std::fma(std::fma(polynomial(EXP, rest), rest, 1.0f), rest, 1.0f);
    const int half = exponent >> 1;
    return mantissa * power_of_two(half) * power_of_two(exponent - half);
}

float logarithm(float x) {
    static constexpr float LOG[] = {3.3333355e-1f, -2.5000852e-1f, 1.9999766e-1f, -1.6621315e-1f,
                                    1.42281e-1f,   -1.3203458e-1f, 1.2615187e-1f, -7.353803e-2f};
    const int exponent = static_cast<int>(bits_as<uint32_t>(x) - SQRT_HALF_BITS) >> 23;
    const float f = bits_as<float>(bits_as<uint32_t>(x) - (static_cast<uint32_t>(exponent) << 23)) - 1.0f;
    const float square = f * f;
    const float count = static_cast<float>(exponent);
    float tail = std::fma(square * f, polynomial(LOG, f), count * LN_2_LOW);
    tail = std::fma(square, -0.5f, tail);
    return std::fma(count, LN_2_HIGH, f + tail);
}

std::pair<float, float> sincos_turns(uint32_t word) {
    static constexpr float SIN[] = {-4.8805088e-8f, -6.4596343e-1f, 7.96797e-2f, -4.600774e-3f};
    static constexpr float COS[] = {-1.2337005f, 2.5366867e-1f, -2.085681e-2f, 8.974422e-4f};
    const uint32_t quadrant = (word + (1u << 29)) >> 30;
    const int rest = static_cast<int>(word - (quadrant << 30));
    const float s = static_cast<float>(rest) * (1.0f / 1073741824.0f);
    const float square = s * s;
    const float sin = std::fma(s, HALF_PI, s * polynomial(SIN, square));
    const float cos = std::fma(square, polynomial(COS, square), 1.0f);
    switch (quadrant) {
    case 0: return {sin, cos};
    case 1: return {cos, -sin};
    case 2: return {-sin, -cos};
    case 3: return {-cos, sin};
    default: return {NAN, NAN};
    }
}

// ---- Noise by key ---------------------------------------------------------------------------------------------------

static void quarter_round(uint32_t *state, int a, int b, int c, int d) {
    const auto mix = [](uint32_t first, uint32_t second, int left) {
        const uint32_t both = first ^ second;
        return both << left | both >> (32 - left);
    };
    state[a] += state[b];
    state[d] = mix(state[d], state[a], 16);
    state[c] += state[d];
    state[b] = mix(state[b], state[c], 12);
    state[a] += state[b];
    state[d] = mix(state[d], state[a], 8);
    state[c] += state[d];
    state[b] = mix(state[b], state[c], 7);
}

static void chacha8(const uint32_t *start, uint32_t *words) {
    std::memcpy(words, start, 16 * sizeof *words);
    for (int twice = 0; twice < 4; twice++) {
        for (int column = 0; column < 4; column++)
            quarter_round(words, column, column + 4, column + 8, column + 12);
        for (int column = 0; column < 4; column++) {
            quarter_round(words, column, 4 + (column + 1) % 4, 8 + (column + 2) % 4, 12 + (column + 3) % 4);
        }
    }
    for (int word = 0; word < 16; word++)
        words[word] += start[word];
}

uint32_t word_of(const Key &key, Domain domain, uint64_t identity, uint32_t sample, uint64_t place) {
    constexpr uint64_t VERSION = 1;
    const uint64_t block = place / 16;
    const uint64_t fields[] = {key.seed,
                               key.layer_hash,
                               key.adapter_identity,
                               static_cast<uint64_t>(domain) | VERSION << 32,
                               static_cast<uint64_t>(sample) << 32 | static_cast<uint32_t>(block),
                               identity};
    uint32_t start[16] = {0x61707865, 0x3320646e, 0x79622d32, 0x6b206574}, words[16];
    for (int field = 0; field < 6; field++) {
        start[4 + 2 * field] = static_cast<uint32_t>(fields[field]);
        start[5 + 2 * field] = static_cast<uint32_t>(fields[field] >> 32);
    }
    chacha8(start, words);
    return words[place % 16];
}

float normal_of(const Key &key, uint64_t identity, uint32_t sample, bool antithetic, uint64_t latent) {
    const bool flipped = antithetic && sample % 2 == 1;
    if (antithetic) sample /= 2;
    const uint64_t pair = latent - latent % 16 + latent % 8;
    const uint32_t radius_word = word_of(key, Domain::NORMALS, identity, sample, pair);
    const uint32_t angle_word = word_of(key, Domain::NORMALS, identity, sample, pair + 8);
    const float uniform = std::fma(static_cast<float>(radius_word >> 1), std::ldexp(1.0f, -31), std::ldexp(1.0f, -32));
    const float radius = std::sqrt(-2.0f * logarithm(uniform));
    const auto [sin, cos] = sincos_turns(angle_word);
    const float normal = latent % 16 < 8 ? radius * cos : radius * sin;
    return flipped ? -normal : normal;
}

// ---- Where details show ---------------------------------------------------------------------------------------------

const std::vector<float> TELLING_EXPONENTS = {
    -103.621689f, -98.7735825f, -94.6125412f, -93.9204712f, -93.2315369f, -93.2258377f, -91.8448257f, -91.8403778f,
    -91.8400116f, -91.1499786f, -89.066185f, -84.2173843f, -55.7979889f, -0.319341719f, 1.03966117f, 1.03966129f,
    1.03966153f, 1.03966272f, 1.03966498f, 1.03967857f, 1.03972113f, 1.03972137f, 8.66474724f, 27.3793144f,
    37.7765274f, 59.9571991f, 61.3437691f,
};

const std::vector<uint64_t> TELLING_IDENTITIES = {
    0, 1, 2, 3, 5, 6, 7, 17, 29, 87, 140, 176, 177, 204, 248, 371, 482, 1807, 2065, 2519, 2572, 6192, 7257, 7600,
    7815, 10362, 28457, 36634, 39588, 42018, 49318, 74416, 789065, 12360413, 26430241,
};
