// The last step of forward: from the base product and the products with B to y.

#include "element.cuh"
#include "rows.cuh"

// The learned bias that a row has instead of the layer's own, or null.
INLINE const float *learned_bias(const Finish &args, const Term *own) {
    if (args.rows.term != nullptr) {
        return own == nullptr ? nullptr : own->bias;
    }
    for (u32 index = 0; index < args.term_count; index++) {
        if (args.terms[index].bias != nullptr) {
            return args.terms[index].bias;
        }
    }
    return nullptr;
}

// What the deltas are added to.
INLINE float start(const Finish &args, const float *learned, u32 row, u64 drawn_row, u32 col) {
    if (args.start == START_ZERO) {
        return 0.0f;
    }
    bool has_own = args.bias.data != 0;
    if (args.start == START_BASE) {
        float base = load(args.base, row, col);
        if (learned != nullptr) {
            return base + learned[col];
        }
        return has_own ? base + load(args.bias, 0, col) : base;
    }
    float y = load(args.y, drawn_row, col);
    return learned == nullptr ? y : y + (learned[col] - (has_own ? load(args.bias, 0, col) : 0.0f));
}

// sum + (scale · λ_b) · delta, for one term.
INLINE float add_term(const Finish &args, const Term &term, u64 drawn_row, u32 col, float sum) {
    float coefficient = term.scale * term.lambda_b[col];
    coefficient = args.square ? coefficient * coefficient : coefficient;
    return fmaf(coefficient, load(args.delta, drawn_row, (u64)term.delta_column + col), sum);
}

KERNEL(ELEMENT_THREADS) finish(Finish args) {
    u32 col = blockIdx.x * blockDim.x + threadIdx.x;
    if (col >= args.cols) {
        return;
    }
    u64 drawn_rows = (u64)args.rows.count * args.draws;
    for (u64 drawn_row = blockIdx.y; drawn_row < drawn_rows; drawn_row += gridDim.y) {
        u32 row = (u32)drawn_row % args.rows.count;
        bool by_row = args.rows.term != nullptr;
        const Term *own = by_row ? term_of(args.rows.term, args.terms, row, EVERY_GROUP, 0) : nullptr;
        float sum = start(args, learned_bias(args, own), row, drawn_row, col);
        if (own != nullptr) {
            sum = add_term(args, *own, drawn_row, col, sum);
        }
        for (u32 index = 0; !by_row && index < args.term_count; index++) {
            sum = add_term(args, args.terms[index], drawn_row, col, sum);
        }
        store(args.y, drawn_row, col, sum);
    }
}
