// finish: the last step of y.
#include <cmath>

#include "cases.hpp"
#include "terms.hpp"

namespace {

class FinishCase {
  public:
    FinishCase(Random &random, Start start, size_t count, size_t cols)
        : random(random), start(start), by_row(random.chance(2)), square(random.chance(4)),
          draws(random.of<size_t>({1, 1, 2, 3})), cols(cols),
          terms(random, random.of<size_t>({0, 1, 2, 2, 4}), 2, {1}, cols),
          rows(random, terms, count, by_row), base(random, some_parts(random), count, cols),
          delta(random, some_parts(random), draws * count, terms.delta_columns) {
        Layout layout(random);
        // Where no term has one, the layer's own shows.
        if (random.chance(2)) {
            for (OneTerm &one : terms.each)
                one.bias.host.clear();
        }
        y = std::make_unique<Stored>(layout.dtype(), draws * count, cols, layout.gap(), layout.start());
        bias = std::make_unique<Stored>(layout.dtype(), random.chance(2) ? 1 : 0, cols, 0, layout.start());
        if (start == START_Y) y->fill(random);
        bias->fill(random);
        if (random.chance(3)) base.spoil(random);
        if (random.chance(6)) zero(count);
    }

    void run() {
        static const char *const STARTS[] = {"base", "y", "zero"};
        begin_case(std::string("finish from ") + STARTS[start] + ", y " + y->text() + ", bias " + bias->text() + ", " +
                   std::to_string(draws) + " draws, " + std::to_string(terms.each.size()) + " terms" +
                   (by_row ? " by row" : "") + (square ? ", square" : ""));
        terms.upload();
        rows.upload();
        base.upload();
        delta.upload();
        y->upload();
        bias->upload();
        Finish finish{};
        finish.y = y->matrix();
        if (start == START_BASE) finish.base = base.parts();
        finish.delta = delta.parts();
        finish.bias = bias->matrix();
        finish.terms = terms.at();
        finish.rows = rows.rows();
        finish.term_count = static_cast<u32>(terms.each.size());
        finish.draws = static_cast<u32>(draws);
        finish.cols = static_cast<u32>(cols);
        finish.start = start;
        finish.square = square;
        Device::launch("finish", divided(cols, ELEMENT_THREADS), some_height(random, draws * rows.count()), 1,
                       ELEMENT_THREADS, finish);
        for (size_t row = 0; row < draws * rows.count(); row++) {
            for (size_t col = 0; col < cols; col++)
                y->put(row, col, wanted(row, col));
        }
        y->compare("y");
    }

  private:
    // Nothing but zeros, to which the smallest number would show.
    void zero(size_t count) {
        for (size_t row = 0; row < draws * count; row++) {
            for (size_t col = 0; col < cols; col++) {
                y->put(row, col, 0.0f);
                if (row < count) base.put(row, col, 0.0f);
            }
            for (size_t col = 0; col < terms.delta_columns; col++)
                delta.put(row, col, 0.0f);
        }
        for (OneTerm &one : terms.each)
            one.bias.host.assign(one.bias.host.size(), 0.0f);
    }

    std::vector<const OneTerm *> terms_of(size_t row) const {
        std::vector<const OneTerm *> list;
        for (size_t index = 0; index < terms.each.size(); index++) {
            if (!by_row || rows.own(row) == static_cast<int>(index)) list.push_back(&terms.each[index]);
        }
        return list;
    }

    float wanted(size_t row, size_t col) const {
        const auto list = terms_of(row % rows.count());
        const OneTerm *learned = nullptr;
        for (const OneTerm *one : list) {
            if (learned == nullptr && !one->bias.host.empty()) learned = one;
        }
        float sum = 0.0f;
        if (start == START_BASE) {
            sum = base.get(row % rows.count(), col);
            if (learned) {
                sum += learned->bias.host[col];
            } else if (bias->present()) {
                sum += bias->get(0, col);
            }
        } else if (start == START_Y) {
            sum = y->get(row, col);
            if (learned) sum += learned->bias.host[col] - (bias->present() ? bias->get(0, col) : 0.0f);
        }
        for (const OneTerm *one : list) {
            const float scaled = one->scaled(col);
            sum = std::fma(square ? scaled * scaled : scaled, delta.get(row, one->term.delta_column + col), sum);
        }
        return sum;
    }

    Random &random;
    Start start;
    bool by_row, square;
    size_t draws, cols;
    Terms terms;
    SomeRows rows;
    StoredParts base, delta;
    std::unique_ptr<Stored> y, bias;
};

} // namespace

void test_finish() {
    Random random(7);
    Sizes widths(random, {1, 2, 3, 15, 16, 17, 63, 64, 65, 127, 128, 129, 255, 256, 257, 511, 512, 513});
    Sizes heights = heights_of(random, {1, 2, 3, 16, 17});
    for (int round = 0; round < rounds(400); round++) {
        FinishCase(random, random.of<Start>({START_BASE, START_BASE, START_Y, START_ZERO}), heights.next(),
                   widths.next())
            .run();
    }
}
