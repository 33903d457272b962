// The four products, and combine.
#include <cmath>
#include <cstring>

#include "cases.hpp"
#include "terms.hpp"

namespace {

// The library's order.
constexpr size_t CHAIN = 256;

struct Shape {
    size_t rows, outputs, depth;
};

// For few rows, or many; in parts, or whole; the weight's inputs side by side, or its outputs.
struct Form {
    const char *kernel;
    bool tiled, in_parts, inputs_adjoin;
};
constexpr Form FORMS[] = {{"product_split_k", false, true, true}, {"product_split_j", false, true, false},
                          {"product_tile_k", true, false, true},  {"product_tile_j", true, false, false},
                          {"product_tile_k", true, true, true},   {"product_tile_j", true, true, false}};

// What comes up too rarely by chance.
enum class Special {
    NONE,
    LAST_ROW,      // of all rows, the last alone takes part
    ZEROS,         // x is zero: what a chain begins with shows
    COLUMN_SHORT,  // out lies well for fours, and ends within one
    PARTS_ASTRAY,  // one row, whose parts lie at any distance
};

class ProductCase {
  public:
    ProductCase(Random &random, const Form &form, Shape wanted, Special special = Special::NONE)
        : random(random), form(form), shape(wanted), special(special), square(random.chance(3)),
          by_row(special == Special::NONE ? random.chance(3) : special == Special::LAST_ROW),
          calls(by_row && special == Special::NONE ? 1 + random.below(3) : 1), group(some_group(random)),
          terms(random, 3, 2, {1, 2}, 1), rows(random, terms, divided(shape.rows, calls), by_row) {
        // Kernels may have faster ways where everything comes in fours.
        Layout layout(random, random.chance(3) && special != Special::COLUMN_SHORT);
        if (layout.fours) {
            shape.depth = divided(shape.depth, 4) * 4;
            shape.outputs = divided(shape.outputs, 4) * 4;
        }
        const Dtype dtype = layout.dtype();
        x = std::make_unique<Stored>(random.chance(2) ? dtype : layout.dtype(), shape.rows, shape.depth, layout.gap(),
                                     layout.start());
        w = form.inputs_adjoin
                ? std::make_unique<Stored>(dtype, shape.outputs, shape.depth, layout.gap(), layout.start())
                : std::make_unique<Stored>(dtype, shape.depth, shape.outputs, layout.gap(), layout.start());
        x->fill(random);
        w->fill(random);
        if (random.chance(5))
            x->put(random.below(shape.rows), random.below(shape.depth), random.of<float>({INFINITY, -INFINITY, NAN}));
        if (special == Special::LAST_ROW) leave_the_last();
        if (special == Special::ZEROS) {
            for (size_t row = 0; row < shape.rows; row++) {
                for (size_t col = 0; col < shape.depth; col++)
                    x->put(row, col, 0.0f);
            }
        }
        x_values = x->values();
        w_values = w->values();
        parts = form.in_parts ? divided(shape.depth, CHAIN) : 1;
        // Part after part, as rows of one matrix; sometimes with a row between them.
        height = shape.rows + (special == Special::PARTS_ASTRAY ? 0 : random.below(2));
        const bool nearly = random.chance(2) || special == Special::COLUMN_SHORT;
        if (special == Special::PARTS_ASTRAY) {
            out = std::make_unique<Stored>(DTYPE_F32, parts, shape.outputs, random.below(4), random.below(4));
        } else {
            out = std::make_unique<Stored>(DTYPE_F32, (parts - 1) * height + shape.rows, shape.outputs,
                                           nearly ? layout.gap_after(shape.outputs) : layout.gap(),
                                           nearly ? 4 * random.below(3) : layout.start());
        }
    }

    void run() {
        begin_case(std::string(form.kernel) + (form.in_parts ? " in parts" : "") + " x " + x->text() + ", w " +
                   w->text() + (square ? " squared" : "") +
                   (by_row ? ", by row, " + std::to_string(calls) + " draws" : ""));
        if (form.tiled) {
            Device::launch(form.kernel, divided(shape.outputs, TILE_COLS), divided(shape.rows, TILE_ROWS), parts,
                           TILE_THREADS, uploaded());
        } else {
            Device::launch(form.kernel, divided(shape.outputs, SPLIT_COLS), parts, divided(shape.rows, SPLIT_ROWS),
                           SPLIT_THREADS, uploaded());
        }
        expect();
        out->compare("out");
    }

  private:
    void leave_the_last() {
        rows.term.host.assign(shape.rows, -1);
        for (size_t index = 0; index < terms.each.size(); index++) {
            if (group == EVERY || terms.each[index].term.group == group)
                rows.term.host.back() = static_cast<i32>(index);
        }
    }

    // The argument, with everything that it points to.
    Product uploaded() {
        terms.upload();
        rows.upload();
        x->upload();
        w->upload();
        out->upload();
        Product product{};
        product.x = x->matrix();
        product.w = w->address();
        product.w_output_stride = form.inputs_adjoin ? w->stride : 1;
        product.w_input_stride = form.inputs_adjoin ? 1 : w->stride;
        product.w_dtype = w->dtype;
        product.square = square;
        product.out = out->at<float>();
        product.out_stride = special == Special::PARTS_ASTRAY ? 4 : out->stride;
        product.part_stride = form.in_parts ? height * out->stride : 12345;
        product.rows = static_cast<u32>(shape.rows);
        product.outputs = static_cast<u32>(shape.outputs);
        product.depth = static_cast<u32>(shape.depth);
        product.group = group;
        product.term = rows.rows().term;
        product.terms = by_row ? terms.at() : nullptr;
        product.rows_of_call = static_cast<u32>(rows.count());
        return product;
    }

    void expect() {
        for (size_t row = 0; row < shape.rows; row++) {
            if (by_row && rows.taken(row % rows.count(), group, 0) == nullptr) continue;
            for (size_t col = 0; col < shape.outputs; col++) {
                float sum = 0.0f;
                for (size_t block = 0; block < divided(shape.depth, CHAIN); block++) {
                    const float part = chain(row, col, block);
                    sum = block == 0 ? part : sum + part;
                    if (form.in_parts) out->put(block * height + row, col, part);
                }
                if (!form.in_parts) out->put(row, col, sum);
            }
        }
    }

    float chain(size_t row, size_t col, size_t block) const {
        float sum = 0.0f;
        for (size_t k = block * CHAIN; k < std::min(shape.depth, (block + 1) * CHAIN); k++) {
            float weight = w_values[form.inputs_adjoin ? col * shape.depth + k : k * shape.outputs + col];
            if (square) weight *= weight;
            sum = std::fma(x_values[row * shape.depth + k], weight, sum);
        }
        return sum;
    }

    Random &random;
    const Form &form;
    Shape shape;
    Special special;
    bool square, by_row;
    size_t calls;
    u32 group;
    Terms terms;
    SomeRows rows;
    std::unique_ptr<Stored> x, w, out;
    std::vector<float> x_values, w_values;
    size_t parts, height;
};

} // namespace

static void test_specials(const Form &form) {
    Random random(14);
    for (size_t round = 0; round < 12; round++)
        ProductCase(random, form, {round % 4 == 0 ? 18u : 2u, 5, 37}, Special::LAST_ROW).run();
    const size_t rows = form.tiled ? 64 : 5;
    for (size_t round = 0; round < 2; round++)
        ProductCase(random, form, {rows, 64, 520}, Special::ZEROS).run();
    if (!form.tiled) return;
    for (size_t round = 0; round < 4; round++)
        ProductCase(random, form, {rows, 63, 260}, Special::COLUMN_SHORT).run();
    for (size_t round = 0; round < 24; round++)
        ProductCase(random, form, {1, 5 + round % 3, 260}, Special::PARTS_ASTRAY).run();
}

static void test_product(const char *kernel) {
    Random random(2);
    for (const Form &form : FORMS) {
        if (std::strcmp(form.kernel, kernel) != 0) continue;
        Sizes few = heights_of(random, {1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 24});
        Sizes many = heights_of(random, {1, 2, 15, 16, 17, 63, 64, 65, 127, 128, 129, 255, 256, 257});
        Sizes outputs(random, {1, 2, 3, 4, 5, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129});
        Sizes depths(random, {1,  2,  3,  4,   7,   8,   9,   15,  16,  17,  31,  32,  33,
                              63, 64, 65, 127, 128, 129, 255, 256, 257, 511, 512, 513, 700});
        for (int round = 0; round < rounds(form.tiled ? 120 : 300); round++) {
            const size_t rows = form.tiled ? many.next() : few.next();
            ProductCase(random, form, {rows, outputs.next(), depths.next()}).run();
        }
        if (!Layout::far_apart) test_specials(form);
    }
}

void test_product_split_k() { test_product("product_split_k"); }
void test_product_split_j() { test_product("product_split_j"); }
void test_product_tile_k() { test_product("product_tile_k"); }
void test_product_tile_j() { test_product("product_tile_j"); }

void test_combine() {
    Random random(3);
    Sizes widths(random, {1, 2, 255, 256, 257, 511, 512, 513}), counts(random, {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 17});
    Sizes heights = heights_of(random, {1, 2, 3, 17});
    for (int round = 0; round < rounds(240); round++) {
        Layout layout(random);
        const bool by_row = random.chance(2);
        const u32 group = some_group(random);
        const size_t calls = by_row ? 1 + random.below(3) : 1, of_call = heights.next(), height = of_call * calls,
                     cols = widths.next();
        Terms terms(random, 4, 2, {1}, 1);
        SomeRows rows(random, terms, of_call, by_row);
        StoredParts from(random, counts.next(), height, cols);
        Stored out(layout.dtype(), height, cols, layout.gap(), layout.start());
        if (random.chance(3)) from.spoil(random);
        begin_case("combine into " + out.text() + (by_row ? " by row" : ""));
        terms.upload();
        rows.upload();
        from.upload();
        out.upload();
        Combine combine{from.parts(),
                        out.matrix(),
                        static_cast<u32>(height),
                        static_cast<u32>(cols),
                        group,
                        static_cast<u32>(of_call),
                        rows.rows().term,
                        by_row ? terms.at() : nullptr};
        Device::launch("combine", divided(cols, ELEMENT_THREADS), some_height(random, height), 1, ELEMENT_THREADS,
                       combine);
        for (size_t row = 0; row < height; row++) {
            if (by_row && rows.taken(row % of_call, group, 0) == nullptr) continue;
            for (size_t col = 0; col < cols; col++)
                out.put(row, col, from.get(row, col));
        }
        out.compare("out");
    }
}
