// Lists and matrices that a test has twice: on the device, and on the host as they should be after the kernel.
// Comparing covers all of the memory, so that what a kernel must not touch is looked at too; and device memory ends
// where the last element does.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "device.hpp"
#include "numbers.hpp"
#include "random.hpp"

// What is going on, for messages.
void begin_case(const std::string &text);
// A mismatch, counted; the first few are printed.
void mismatch(const std::string &text);
// The first one ends the program.
void end_at_first_mismatch();
size_t mismatches();
size_t cases();

// Bytes on the device.
class Room {
  public:
    Room() = default;
    Room(const Room &) = delete;
    Room &operator=(const Room &) = delete;
    ~Room();
    // Other room for another size: the end is exact.
    void reserve(size_t bytes);
    void write(const void *from, size_t bytes);
    void read(void *to, size_t bytes) const;
    uint64_t at() const { return address; }

  private:
    uint64_t address = 0;
    size_t size = 0;
};

// A list; empty means absent.
template <typename T> class List {
  public:
    std::vector<T> host;

    T *upload() {
        room.write(host.data(), host.size() * sizeof(T));
        return at();
    }
    T *at() const { return reinterpret_cast<T *>(room.at()); }
    std::vector<T> device() const {
        std::vector<T> values(host.size());
        room.read(values.data(), values.size() * sizeof(T));
        return values;
    }
    void compare(const char *name) const {
        const std::vector<T> values = device();
        for (size_t place = 0; place < host.size(); place++) {
            if (same(values[place], host[place])) continue;
            return mismatch(std::string(name) + "[" + std::to_string(place) + "] is " + std::to_string(values[place]) +
                            ", wanted " + std::to_string(host[place]));
        }
    }

  private:
    // Bit for bit; any NaN for a NaN.
    static bool same(const T &left, const T &right) {
        return std::memcmp(&left, &right, sizeof(T)) == 0 || (left != left && right != right);
    }

    Room room;
};

// Strides and starts, odd and even, or nearly all multiples of four, and types. Far apart, the rows of every matrix are
// more than 2³² elements from each other, so that an index that is computed in 32 bits goes astray.
struct Layout {
    explicit Layout(Random &random, bool fours = false) : random(random), fours(fours) {}
    size_t gap() {
        return far() + (fours ? random.of<size_t>({0, 0, 4, 4, 12, 2}) : random.of<size_t>({0, 0, 1, 2, 3, 4, 8, 13}));
    }
    // To a stride that is a multiple of four.
    size_t gap_after(size_t cols) { return far() + (4 - cols % 4) % 4 + random.of<size_t>({0, 4}); }
    size_t start() {
        return fours ? random.of<size_t>({0, 0, 4, 4, 8, 8, 1, 2}) : random.of<size_t>({0, 0, 1, 2, 3, 4, 7, 8});
    }
    Dtype dtype() { return random.of<Dtype>({DTYPE_F32, DTYPE_F16, DTYPE_BF16}); }

    static bool far_apart;
    Random &random;
    bool fours;

  private:
    static size_t far() { return far_apart ? uint64_t{1} << 32 : 0; }
};

// Numbers of rows, and of rounds: few where they are far apart.
inline Sizes heights_of(Random &random, std::initializer_list<size_t> values) {
    return Layout::far_apart ? Sizes(random, {1, 2, 2, 3}) : Sizes(random, values);
}
inline int rounds(int many) { return Layout::far_apart ? many / 2 : many; }

// A matrix; without rows it is absent. Elements between the rows are NaN.
class Stored {
  public:
    Stored() = default;
    // `start` elements lie before the first, `gap` after each row but the last.
    Stored(Dtype dtype, size_t rows, size_t cols, size_t gap, size_t start);

    bool present() const { return rows > 0; }
    float get(size_t row, size_t col) const { return widened(dtype, element(place(row, col))); }
    void put(size_t row, size_t col, float value) { set_element(place(row, col), narrowed(dtype, value)); }
    void fill(Random &random);
    // Some NaN in a place, of bits that a careless rounding takes for an infinity.
    void spoil(Random &random);
    // Row after row, without gaps.
    std::vector<float> values() const;
    void upload();
    Matrix matrix() const;
    template <typename T> T *at() const { return reinterpret_cast<T *>(address()); }
    uint64_t address() const { return present() ? room.at() + start * size_of(dtype) : 0; }
    void compare(const char *name) const;
    std::string text() const;

    Dtype dtype = DTYPE_F32;
    size_t rows = 0, cols = 0, stride = 0, start = 0;

  private:
    size_t place(size_t row, size_t col) const { return start + row * held_stride + col; }
    uint32_t element(size_t place) const;
    void set_element(size_t place, uint32_t bits);
    // For each run of bytes that lies on both sides: where in `bytes`, where on the device, how many.
    template <typename Visit> void each_run(Visit visit) const;

    // The host holds no more of a gap than is looked at.
    size_t held_stride = 0;
    std::vector<uint8_t> bytes;
    Room room;
};

// A sum in parts: rows of one matrix, with a row between two parts now and then.
class StoredParts {
  public:
    StoredParts() = default;
    StoredParts(Random &random, size_t count, size_t rows, size_t cols);

    bool present() const { return count > 0; }
    float get(size_t row, size_t col) const;
    Parts parts() const;
    // A value of the first part; the others hold negative zeros there, which add nothing.
    void put(size_t row, size_t col, float value);
    void spoil(Random &random) { all.spoil(random); }
    void upload() { all.upload(); }

  private:
    size_t count = 0, height = 0;
    Stored all;
};

// How many parts: kernels take some of them at a time.
inline size_t some_parts(Random &random) { return random.of<size_t>({1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 17}); }
