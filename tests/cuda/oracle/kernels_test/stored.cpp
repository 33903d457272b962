// Lists and matrices on both sides.
#include "stored.hpp"

#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "grid.hpp"

namespace {

std::string current;
size_t begun = 0, found = 0, found_in_case = 0;
bool first_ends = false;

} // namespace

void begin_case(const std::string &text) {
    current = text;
    begun++;
    found_in_case = 0;
}

void mismatch(const std::string &text) {
    constexpr size_t MOST_IN_CASE = 2, MOST = 60;
    found++;
    if (++found_in_case <= MOST_IN_CASE && found <= MOST) std::printf("%s\n    %s\n", current.c_str(), text.c_str());
    if (first_ends) std::exit(EXIT_FAILURE);
}

void end_at_first_mismatch() { first_ends = true; }

size_t mismatches() { return found; }

size_t cases() { return begun; }

Room::~Room() {
    if (address != 0) Device::release(address);
}

void Room::reserve(size_t bytes) {
    if (bytes == size) return;
    if (address != 0) Device::release(address);
    address = bytes == 0 ? 0 : Device::allocate(bytes);
    size = bytes;
}

void Room::write(const void *from, size_t bytes) {
    reserve(bytes);
    if (bytes != 0) Device::write(address, from, bytes);
}

void Room::read(void *to, size_t bytes) const {
    if (bytes != 0) Device::read(to, address, bytes);
}

// ---- Matrices -------------------------------------------------------------------------------------------------------

bool Layout::far_apart = false;

// Of a gap, so many elements are looked at.
static constexpr size_t HELD_GAP = 16;

Stored::Stored(Dtype dtype, size_t rows, size_t cols, size_t gap, size_t start)
    : dtype(dtype), rows(rows), cols(cols), stride(cols + gap), start(start),
      held_stride(cols + std::min(gap, HELD_GAP)) {
    if (rows == 0) return;
    const size_t elements = start + (rows - 1) * held_stride + cols;
    bytes.resize(elements * size_of(dtype));
    for (size_t byte = 0; byte < bytes.size(); byte++)
        bytes[byte] = static_cast<uint8_t>(oracle::FRESH >> byte % 2 * 8);
}

uint32_t Stored::element(size_t place) const {
    uint32_t bits = 0;
    std::memcpy(&bits, &bytes.at(place * size_of(dtype)), size_of(dtype));
    return bits;
}

void Stored::set_element(size_t place, uint32_t bits) {
    std::memcpy(&bytes.at(place * size_of(dtype)), &bits, size_of(dtype));
}

void Stored::fill(Random &random) {
    for (size_t row = 0; row < rows; row++) {
        for (size_t col = 0; col < cols; col++)
            put(row, col, random.value());
    }
}

void Stored::spoil(Random &random) {
    if (present()) put(random.below(rows), random.below(cols), bits_as<float>(0x7f800001));
}

std::vector<float> Stored::values() const {
    std::vector<float> all;
    for (size_t row = 0; row < rows; row++) {
        for (size_t col = 0; col < cols; col++)
            all.push_back(get(row, col));
    }
    return all;
}

template <typename Visit> void Stored::each_run(Visit visit) const {
    if (held_stride == stride || rows <= 1) return visit(0, 0, bytes.size());
    for (size_t row = 0; row < rows; row++) {
        const size_t before = row == 0 ? 0 : start, length = start - before + (row + 1 == rows ? cols : held_stride);
        visit((before + row * held_stride) * size_of(dtype), (before + row * stride) * size_of(dtype),
              length * size_of(dtype));
    }
}

void Stored::upload() {
    if (!present()) return;
    room.reserve((start + (rows - 1) * stride + cols) * size_of(dtype));
    each_run([this](size_t from, size_t to, size_t count) { Device::write(room.at() + to, &bytes[from], count); });
}

Matrix Stored::matrix() const { return {address(), stride, dtype, 0}; }

void Stored::compare(const char *name) const {
    std::vector<uint8_t> device(bytes.size());
    each_run([&](size_t to, size_t from, size_t count) { Device::read(&device[to], room.at() + from, count); });
    for (size_t at = 0; at < bytes.size() / size_of(dtype); at++) {
        uint32_t got = 0;
        std::memcpy(&got, &device[at * size_of(dtype)], size_of(dtype));
        const uint32_t wanted = element(at);
        // Any NaN for a NaN; but what lies between rows stays as it is.
        const bool element_of_row = at >= start && (at - start) % held_stride < cols;
        const bool nan = std::isnan(widened(dtype, got)) && std::isnan(widened(dtype, wanted));
        if (got == wanted || (element_of_row && nan)) continue;
        char values[100];
        std::snprintf(values, sizeof values, " is %.9g (%x), wanted %.9g (%x)", widened(dtype, got), got,
                      widened(dtype, wanted), wanted);
        if (at < start) return mismatch(std::string(name) + " before the first element" + values);
        const size_t row = (at - start) / held_stride, col = (at - start) % held_stride;
        const char *where = col < cols ? "" : ", between rows,";
        return mismatch(std::string(name) + "(" + std::to_string(row) + ", " + std::to_string(col) + ")" + where +
                        values);
    }
}

std::string Stored::text() const {
    if (!present()) return "none";
    return std::string(name_of(dtype)) + " " + std::to_string(rows) + "x" + std::to_string(cols) + "/" +
           std::to_string(stride) + "+" + std::to_string(start);
}

// ---- Parts ----------------------------------------------------------------------------------------------------------

StoredParts::StoredParts(Random &random, size_t count, size_t rows, size_t cols)
    : count(count), height(rows + random.below(2)),
      all(DTYPE_F32, (count - 1) * height + rows, cols, Layout(random).gap(), Layout(random).start()) {
    all.fill(random);
    for (size_t row = 0; row < all.rows; row++) {
        for (size_t col = 0; row % height >= rows && col < cols; col++)
            all.put(row, col, NAN);
    }
}

float StoredParts::get(size_t row, size_t col) const {
    float sum = all.get(row, col);
    for (size_t part = 1; part < count; part++)
        sum += all.get(part * height + row, col);
    return sum;
}

void StoredParts::put(size_t row, size_t col, float value) {
    for (size_t part = 0; part < count; part++)
        all.put(part * height + row, col, part == 0 ? value : -0.0f);
}

Parts StoredParts::parts() const {
    if (!present()) return {};
    return {all.at<float>(), all.stride, height * all.stride, static_cast<u32>(count), 0};
}
