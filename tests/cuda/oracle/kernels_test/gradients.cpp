// sums, deliver, weigh and accumulate: gradients of the vectors and of x.
#include <cmath>

#include "cases.hpp"
#include "terms.hpp"

// ---- sums and deliver -----------------------------------------------------------------------------------------------

static void one_sum(Random &random, size_t count, size_t cols) {
    // Rows of one chain.
    constexpr size_t CHAIN = 64;
    Layout layout(random);
    const bool by_row = random.chance(2);
    Terms terms(random, 2, 1, {1}, 1);
    SomeRows rows(random, terms, count, by_row);
    Stored left(layout.dtype(), count, cols, layout.gap(), layout.start());
    Stored right(layout.dtype(), random.chance(3) ? 0 : count, cols, layout.gap(), layout.start());
    left.fill(random);
    right.fill(random);
    const size_t parts = divided(count, CHAIN);
    Stored out(DTYPE_F32, parts, cols, layout.gap(), layout.start());
    begin_case("sums left " + left.text() + ", right " + right.text() + (by_row ? " by row" : ""));
    rows.upload();
    left.upload();
    right.upload();
    out.upload();
    const u32 index = 1;
    const Sums sums{left.matrix(), right.matrix(), rows.rows().term,        out.at<float>(),
                    out.stride,    random.value(), static_cast<u32>(count), static_cast<u32>(cols),
                    index};
    Device::launch("sums", divided(cols, SUM_COLS), some_height(random, parts), 1, SUM_COLS, sums);
    for (size_t part = 0; part < parts; part++) {
        for (size_t col = 0; col < cols; col++) {
            float sum = 0.0f;
            for (size_t row = part * CHAIN; row < std::min(count, (part + 1) * CHAIN); row++) {
                if (by_row && rows.own(row) != static_cast<int>(index)) continue;
                sum = std::fma(sums.scale * left.get(row, col), right.present() ? right.get(row, col) : 1.0f, sum);
            }
            out.put(part, col, sum);
        }
    }
    out.compare("out");
}

void test_sums() {
    Random random(10);
    Sizes widths(random, {1, 2, 15, 16, 17, 63, 64, 65, 127, 128, 129, 255, 256, 257});
    Sizes heights = heights_of(random, {1, 2, 3, 5, 6, 7, 8, 9, 12, 15, 16, 24, 63, 64, 65, 72, 127, 128, 129, 200});
    for (int round = 0; round < rounds(400); round++)
        one_sum(random, heights.next(), widths.next());
}

static void one_deliver(Random &random, size_t parts, size_t cols) {
    const bool overwrite = random.chance(2);
    Layout layout(random);
    Stored from(DTYPE_F32, parts, cols, layout.gap(), layout.start());
    begin_case("deliver " + from.text() + (overwrite ? ", overwriting" : ""));
    from.fill(random);
    from.upload();
    List<float> to;
    for (size_t col = 0; col < cols; col++)
        to.host.push_back(random.value());
    const Deliver deliver{from.at<float>(), from.stride, to.upload(), static_cast<u32>(parts), static_cast<u32>(cols),
                          overwrite,        0};
    Device::launch("deliver", divided(cols, ELEMENT_THREADS), 1, 1, ELEMENT_THREADS, deliver);
    for (size_t col = 0; col < cols; col++) {
        float sum = 0.0f;
        for (size_t part = 0; part < parts; part++)
            sum += from.get(part, col);
        to.host[col] = overwrite ? sum : to.host[col] + sum;
    }
    to.compare("to");
}

void test_deliver() {
    Random random(15);
    Sizes widths(random, {1, 2, 63, 64, 65, 255, 256, 257, 513}), counts(random, {0, 1, 2, 3, 4, 5, 7, 8, 9, 17});
    for (int round = 0; round < rounds(60); round++)
        one_deliver(random, counts.next(), widths.next());
}

// ---- weigh ----------------------------------------------------------------------------------------------------------

static void one_weigh(Random &random, size_t count, size_t cols) {
    Layout layout(random);
    const bool by_row = random.chance(2);
    Terms terms(random, 4, 2, {1}, cols);
    SomeRows rows(random, terms, count, by_row);
    Stored dy(layout.dtype(), count, cols, layout.gap(), layout.start()),
        out(DTYPE_F32, count, cols, layout.gap(), layout.start());
    dy.fill(random);
    const u32 group = some_group(random), index = static_cast<u32>(random.below(terms.each.size()));
    begin_case("weigh dy " + dy.text() + (by_row ? ", by row of group " + std::to_string(group) : ""));
    terms.upload();
    rows.upload();
    dy.upload();
    out.upload();
    const Weigh weigh{dy.matrix(), out.at<float>(), out.stride, terms.at(), rows.rows(), static_cast<u32>(cols),
                      group,       index,           0};
    Device::launch("weigh", divided(cols, ELEMENT_THREADS), some_height(random, count), 1, ELEMENT_THREADS, weigh);
    for (size_t row = 0; row < count; row++) {
        const OneTerm *term = rows.taken(row, group, index);
        for (size_t col = 0; term && col < cols; col++)
            out.put(row, col, dy.get(row, col) * term->scaled(col));
    }
    out.compare("out");
}

void test_weigh() {
    Random random(11);
    Sizes widths(random, {1, 2, 15, 16, 17, 255, 256, 257, 511, 512, 513});
    Sizes heights = heights_of(random, {1, 2, 5, 16, 17});
    for (int round = 0; round < rounds(240); round++)
        one_weigh(random, heights.next(), widths.next());
}

// ---- accumulate -----------------------------------------------------------------------------------------------------

static void one_accumulate(Random &random, size_t count, size_t cols) {
    Layout layout(random);
    const bool by_row = random.chance(2), masked = !random.chance(3), absent = random.chance(4),
               in_place = !absent && random.chance(3);
    Terms terms(random, 4, 2, {1}, 1);
    SomeRows rows(random, terms, count, by_row);
    Stored from(layout.dtype(), absent || in_place ? 0 : count, cols, layout.gap(), layout.start());
    Stored to(layout.dtype(), count, cols, layout.gap(), layout.start());
    Stored given(layout.dtype(), masked && random.chance(4) ? count : 0, cols, layout.gap(), layout.start());
    StoredParts add;
    StoredParts some(random, some_parts(random), count, cols);
    const bool adds = !random.chance(5);
    from.fill(random);
    if (random.chance(3)) from.spoil(random);
    given.fill(random);
    if (in_place) to.fill(random);
    const uint64_t in_offset = random.of<uint64_t>({0, 1, 15, 16, 4096, (uint64_t{1} << 35) + 3});
    const u32 group = some_group(random), index = static_cast<u32>(random.below(terms.each.size()));
    meet_threshold(random, terms, rows, group, index, in_offset, cols);
    begin_case("accumulate from " + (in_place ? "to" : from.text()) + " to " + to.text() +
               (adds ? "" : ", nothing added") + (masked ? ", masked, given " + given.text() : "") +
               (by_row ? ", by row" : ""));
    terms.upload();
    rows.upload();
    from.upload();
    to.upload();
    given.upload();
    some.upload();
    const Stored &read = in_place ? to : from;
    const Accumulate accumulate{
        read.matrix(), to.matrix(), adds ? some.parts() : Parts{}, given.matrix(), terms.at(), rows.rows(),
        rows.seed(),   in_offset,   static_cast<u32>(cols),        group,          index,      masked};
    Device::launch("accumulate", divided(cols, ELEMENT_THREADS), some_height(random, count), 1, ELEMENT_THREADS,
                   accumulate);
    for (size_t row = 0; row < count; row++) {
        const OneTerm *term = rows.taken(row, group, index);
        for (size_t col = 0; col < cols; col++) {
            const float before = read.present() ? read.get(row, col) : 0.0f;
            if (term == nullptr || !adds) {
                to.put(row, col, before);
                continue;
            }
            const bool passes = !masked || (!given.present() && term->term.dropout == DROPOUT_NONE);
            const float more = some.get(row, col);
            to.put(row, col, before + (passes ? more : more * mask_of(*term, rows, given, row, col, in_offset)));
        }
    }
    to.compare("to");
}

void test_accumulate() {
    Random random(12);
    Sizes widths(random, {1, 2, 15, 16, 17, 255, 256, 257, 511, 512, 513});
    Sizes heights = heights_of(random, {1, 2, 5, 16, 17});
    for (int round = 0; round < rounds(1000); round++)
        one_accumulate(random, heights.next(), widths.next());
}
