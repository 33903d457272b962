// Reads tests/golden: just enough of safetensors (names without escapes, at most two dimensions).
#pragma once

#include <fstream>
#include <iterator>
#include <vector>

#include "check.hpp"

namespace golden {

// A tensor of a file, as it lies there and as f32; absent if it has no rows.
struct tensor {
    std::size_t rows = 0, cols = 0;
    pvera::dtype type = pvera::f32;
    std::vector<char> raw;
    std::vector<float> values;

    explicit operator bool() const { return rows > 0; }
    pvera::matrix matrix() const { return *this ? pvera::matrix(raw.data(), rows, cols, cols, type) : pvera::matrix(); }
};

inline float to_f32(const char *at, pvera::dtype type) {
    uint32_t bits = 0;
    float value = 0;
    uint16_t half = 0;
    if (type.bits == 32) return std::memcpy(&value, at, sizeof value), value;
    std::memcpy(&half, at, sizeof half);
    if (type.code == PVERA_DTYPE_BFLOAT) {
        bits = static_cast<uint32_t>(half) << 16;
        return std::memcpy(&value, &bits, sizeof value), value;
    }
    const int exponent = half >> 10 & 31, fraction = half & 1023;
    if (exponent == 31) value = fraction ? NAN : INFINITY;
    else if (exponent == 0) value = std::ldexp(static_cast<float>(fraction), -24);
    else value = std::ldexp(static_cast<float>(fraction + 1024), exponent - 25);
    return half & 0x8000 ? -value : value;
}

inline std::vector<float> to_f32(const std::vector<char> &raw, pvera::dtype type) {
    const std::size_t width = type.bits / 8u;
    std::vector<float> values(raw.size() / width);
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = to_f32(raw.data() + i * width, type);
    return values;
}

class archive {
public:
    explicit archive(const std::string &path) {
        std::ifstream file(path, std::ios::binary);
        const std::string all((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
        uint64_t header = 0;
        if (!CHECK(all.size() > sizeof header)) return;
        std::memcpy(&header, all.data(), sizeof header);
        header_ = all.substr(sizeof header, header);
        bytes_.assign(all.begin() + static_cast<std::ptrdiff_t>(sizeof header + header), all.end());
    }

    tensor read(const std::string &key) const {
        tensor found;
        const std::size_t entry = header_.find("\"" + key + "\":{");
        if (entry == header_.npos) return found;
        const std::vector<std::size_t> shape = numbers("\"shape\":[", entry), place = numbers("\"data_offsets\":[", entry);
        const std::string type = header_.substr(after("\"dtype\":\"", entry), 2);
        found.type = type == "F1" ? pvera::f16 : type == "BF" ? pvera::bf16 : pvera::f32;
        found.cols = shape.back(), found.rows = shape.size() > 1 ? shape.front() : 1;
        found.raw.assign(bytes_.begin() + static_cast<std::ptrdiff_t>(place[0]),
                         bytes_.begin() + static_cast<std::ptrdiff_t>(place[1]));
        found.values = to_f32(found.raw, found.type);
        return found;
    }

private:
    std::size_t after(std::string_view word, std::size_t from) const { return header_.find(word, from) + word.size(); }

    std::vector<std::size_t> numbers(std::string_view word, std::size_t from) const {
        std::vector<std::size_t> found;
        const char *at = header_.data() + after(word, from);
        char *end = nullptr;
        do found.push_back(std::strtoull(at, &end, 10)), at = end + 1;
        while (*end == ',');
        return found;
    }

    std::string header_;
    std::vector<char> bytes_;
};

} // namespace golden
