// A libtorch autograd Function. The tensors stand in for torch::Tensor: a pointer and sizes.
// Why: parameters are two separate tensors of torch, so a standalone linear borrows two vectors; the tape outlives forward and
// is owned by the autograd node; gradients may be overwritten into fresh memory; dx may be skipped with NULL.
#include <pvera.h>

#include <memory>
#include <stdexcept>

struct Tensor {
    float *data;
    size_t rows, cols;
};

using Tape = std::unique_ptr<pvera_tape, decltype(&pvera_tape_free)>;
using Linear = std::unique_ptr<pvera_linear, decltype(&pvera_linear_free)>;

struct Saved {
    Tape tape{nullptr, pvera_tape_free};
    bool needs_dx = true;
};

static void check(pvera_error *error) {
    if (!error) return;
    const std::unique_ptr<pvera_error, decltype(&pvera_error_free)> owned(error, pvera_error_free);
    throw std::runtime_error(pvera_error_message(error));
}

static pvera_matrix in(const Tensor &t) { return pvera_f32(t.data, t.rows, t.cols); }
static pvera_matrix_mut out(Tensor &t) { return pvera_f32_mut(t.data, t.rows, t.cols); }

void forward(Saved &saved, const pvera_context *context, const pvera_linear *linear, const Tensor &x, uint64_t seed,
             Tensor &y) {
    pvera_tape *tape = nullptr;
    check(pvera_tape_new(PVERA_TAPE_KEEP_LATENT, nullptr, &tape));
    saved.tape.reset(tape);
    pvera_noise noise{};
    noise.struct_size = sizeof noise;
    noise.seed = seed;
    const pvera_matrix input = in(x);
    const pvera_matrix_mut output = out(y);
    check(pvera_forward(context, linear, &input, nullptr, &noise, tape, &output));
}

void backward(const Saved &saved, const pvera_context *context, const Tensor &dy, Tensor &dx, Tensor &dlambda_b,
              Tensor &dlambda_d) {
    const pvera_slot_gradients own{0, dlambda_b.data, dlambda_d.data, nullptr};
    pvera_gradients wanted{};
    wanted.struct_size = sizeof wanted;
    wanted.overwrite = PVERA_OVERWRITE_ALL;
    wanted.slots = &own;
    wanted.slot_count = 1;
    const pvera_matrix gradient = in(dy);
    const pvera_matrix_mut input_gradient = out(dx);
    check(pvera_backward(context, saved.tape.get(), &gradient, &wanted, saved.needs_dx ? &input_gradient : nullptr));
}

// The module's own; it borrows lambda_b and lambda_d, which live as long.
Linear layer(const pvera_store *store, const char *name, size_t in_features, const Tensor &lambda_b, const Tensor &lambda_d) {
    pvera_layer declared{};
    declared.struct_size = sizeof declared;
    declared.name = name;
    declared.in_features = in_features;
    declared.out_features = lambda_b.cols;
    const pvera_linear_vectors vectors{sizeof vectors, lambda_b.data, lambda_d.data, nullptr, 0, {}};
    pvera_linear *linear = nullptr;
    check(pvera_linear_new(&declared, store, nullptr, &vectors, &linear));
    return Linear(linear, pvera_linear_free);
}
