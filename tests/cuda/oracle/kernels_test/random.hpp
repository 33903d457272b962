// Numbers for tests: the same on every machine.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <vector>

class Random {
  public:
    explicit Random(uint64_t seed) : state(seed) {}

    // SplitMix64.
    uint64_t word() {
        uint64_t mixed = state += 0x9e3779b97f4a7c15;
        mixed = (mixed ^ mixed >> 30) * 0xbf58476d1ce4e5b9;
        mixed = (mixed ^ mixed >> 27) * 0x94d049bb133111eb;
        return mixed ^ mixed >> 31;
    }
    size_t below(size_t end) { return static_cast<size_t>(word() % end); }
    bool chance(unsigned one_in) { return below(one_in) == 0; }
    template <typename T> T of(const std::vector<T> &values) { return values[below(values.size())]; }

    // Both signs, all bits of the fraction, sizes from 1/8 to 2; now and then a zero of either sign, or halfway between
    // two neighbours of f16 or bf16.
    float value() {
        if (chance(40)) return chance(2) ? 0.0f : -0.0f;
        const float size =
            (1.0f + static_cast<float>(word() >> 41) / 8388608.0f) * (static_cast<float>(1u << below(4)) / 8.0f);
        const float value = chance(2) ? size : -size;
        if (!chance(16)) return value;
        const uint32_t half = chance(2) ? 0x1000 : 0x8000;
        uint32_t bits;
        std::memcpy(&bits, &value, sizeof bits);
        bits = (bits & ~(2 * half - 1)) | half;
        float tie;
        std::memcpy(&tie, &bits, sizeof tie);
        return tie;
    }

  private:
    uint64_t state;
};

// Walks through lists of sizes so that each size comes up, in changing company.
class Sizes {
  public:
    Sizes(Random &random, std::initializer_list<size_t> values) : random(random), values(values) {}

    size_t next() {
        if (left.empty()) left = values;
        const size_t place = random.below(left.size());
        const size_t size = left[place];
        left.erase(left.begin() + static_cast<std::ptrdiff_t>(place));
        return size;
    }

  private:
    Random &random;
    std::vector<size_t> values, left;
};
