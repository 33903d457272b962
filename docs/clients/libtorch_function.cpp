// A libtorch autograd Function. The tensors stand in for torch::Tensor: a pointer and sizes.
// Why: parameters are two separate tensors of torch, so a standalone linear borrows two vectors; the tape outlives forward and is
// owned by the autograd node; gradients may be overwritten into fresh memory; dx may be skipped with NULL.
#include <memory>
#include <stdexcept>
#include "pvera_sketch.h"

struct Tensor { float *data; size_t rows, cols; };
struct Context { std::unique_ptr<pvera_tape, void (*)(pvera_tape *)> tape{nullptr, pvera_tape_free}; bool needs_dx; };

static void check(pvera_error *error) {
    if (!error) return;
    std::runtime_error thrown(pvera_error_message(error));
    pvera_error_free(error);
    throw thrown;
}
static pvera_matrix in(const Tensor &t) { return {t.data, t.rows, t.cols, t.cols, {2, 32, 1}, {1, 0}}; }
static pvera_matrix_mut out(Tensor &t) { return {t.data, t.rows, t.cols, t.cols, {2, 32, 1}, {1, 0}}; }

void forward(Context &ctx, pvera_context *context, const pvera_linear *linear, const Tensor &x, uint64_t seed, Tensor &y) {
    pvera_tape *tape = nullptr;
    check(pvera_tape_new(0, &tape));
    ctx.tape.reset(tape);
    pvera_noise noise{};
    noise.struct_size = sizeof noise;
    noise.seed = seed;
    pvera_matrix input = in(x);
    pvera_matrix_mut output = out(y);
    check(pvera_forward(context, linear, &input, nullptr, &noise, tape, &output));
}

void backward(Context &ctx, pvera_context *context, const Tensor &dy, Tensor &dx, Tensor &dlambda_b, Tensor &dlambda_d) {
    pvera_slot_gradients own{0, dlambda_b.data, dlambda_d.data, nullptr};
    pvera_gradients wanted{};
    wanted.struct_size = sizeof wanted;
    wanted.overwrite = ~0u;
    wanted.slots = &own;
    wanted.slot_count = 1;
    pvera_matrix gradient = in(dy);
    pvera_matrix_mut input_gradient = out(dx);
    check(pvera_backward(context, ctx.tape.get(), &gradient, &wanted, ctx.needs_dx ? &input_gradient : nullptr));
}

pvera_linear *layer(const pvera_store *store, const Tensor &lambda_b, const Tensor &lambda_d) {
    pvera_layer declared{};
    declared.struct_size = sizeof declared;
    declared.name = "blocks.0.q_proj";
    declared.in_features = 768;
    declared.out_features = lambda_b.cols;
    pvera_linear_vectors vectors{sizeof vectors, lambda_b.data, lambda_d.data, nullptr, 0};
    pvera_linear *linear = nullptr;
    check(pvera_linear_new(&declared, store, nullptr, &vectors, &linear));
    return linear;
}
