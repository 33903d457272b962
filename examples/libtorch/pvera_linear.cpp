// The autograd Function behind the module; see pvera_linear.h.
#include "pvera_linear.h"

#include <ATen/Parallel.h>

#include <utility>

void check_pvera(pvera_error *error) {
    if (error == nullptr) return;
    const std::unique_ptr<pvera_error, decltype(&pvera_error_free)> owned(error, pvera_error_free);
    TORCH_CHECK(false, "pvera: ", pvera_error_message(error));
}

static void run_on_torch(void *, size_t count, pvera_task run, void *task) {
    at::parallel_for(0, static_cast<int64_t>(count), 1, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) run(task, static_cast<size_t>(i));
    });
}

std::shared_ptr<pvera_context> make_context() {
    pvera_context_options options{};
    options.struct_size = sizeof options;
    options.threads = static_cast<uint32_t>(at::get_num_threads() - 1);
    options.parallel_for = run_on_torch;
    pvera_context *context = nullptr;
    check_pvera(pvera_context_new(&options, &context));
    return {context, pvera_context_free};
}

std::shared_ptr<pvera_store> make_store(uint64_t key, size_t rank, size_t in_max, size_t out_max) {
    pvera_store_options options{};
    options.struct_size = sizeof options;
    options.rank = rank;
    options.in_max = in_max;
    options.out_max = out_max;
    pvera_store *store = nullptr;
    check_pvera(pvera_store_from_key(key, &options, &store));
    return {store, pvera_store_free};
}

// ---- Tensors as matrices ----

// x as rows whose elements lie side by side: a view where there is one. (A gradient that was expanded has a stride of
// 0.)
static torch::Tensor as_rows(const torch::Tensor &x) {
    TORCH_CHECK(x.scalar_type() == torch::kFloat && x.device().is_cpu(), "wanted floats on the CPU, got ",
                x.toString());
    torch::Tensor rows = x.dim() == 2 ? x : x.reshape({-1, x.size(-1)});
    return rows.stride(1) == 1 && rows.stride(0) >= rows.size(1) ? rows : rows.contiguous();
}

static pvera_matrix matrix(const torch::Tensor &rows) {
    pvera_matrix matrix =
        pvera_f32(rows.data_ptr<float>(), static_cast<size_t>(rows.size(0)), static_cast<size_t>(rows.size(1)));
    matrix.row_stride = static_cast<size_t>(rows.stride(0));
    return matrix;
}

static pvera_matrix_mut matrix_mut(const torch::Tensor &dense) {
    const auto cols = static_cast<size_t>(dense.size(-1));
    return pvera_f32_mut(dense.data_ptr<float>(), static_cast<size_t>(dense.numel()) / cols, cols);
}

// ---- The Function ----

// y of x; with a tape, what backward needs is left on it.
static torch::Tensor run(const pvera_context &context, const pvera_linear &linear, const torch::Tensor &x, int64_t outputs,
                         const Draw &draw, pvera_tape *tape) {
    pvera_rows rows{};
    rows.struct_size = sizeof rows;
    rows.sample_base = draw.sample;
    if (draw.identities.defined()) {
        TORCH_CHECK(draw.identities.is_contiguous() && draw.identities.numel() * x.size(-1) == x.numel(),
                    "wanted one identity for each row of x, side by side");
        rows.identity = reinterpret_cast<const uint64_t *>(draw.identities.data_ptr<int64_t>());
    }
    pvera_noise noise{};
    noise.struct_size = sizeof noise;
    noise.mode = draw.mode;
    noise.seed = draw.seed;

    std::vector<int64_t> shape = x.sizes().vec();
    shape.back() = outputs;
    const torch::Tensor y = torch::empty(shape, x.options()), x_rows = as_rows(x);
    const pvera_matrix in = matrix(x_rows);
    const pvera_matrix_mut out = matrix_mut(y);
    check_pvera(pvera_forward(&context, &linear, &in, &rows, &noise, tape, &out));
    return y;
}

// What an autograd node keeps: the tape, and what the tape borrows (the layer, with the tensors that that borrows).
struct Recorded : torch::CustomClassHolder {
    std::shared_ptr<pvera_context> context;
    std::shared_ptr<pvera_linear> linear;
    std::unique_ptr<pvera_tape, decltype(&pvera_tape_free)> tape{nullptr, pvera_tape_free};
    double kl_weight = 0;
};

struct PveraFunction : torch::autograd::Function<PveraFunction> {
    // λ_b and λ_d are arguments so that autograd knows them; the layer reads the same memory.
    static torch::Tensor forward(torch::autograd::AutogradContext *ctx, const torch::Tensor &x,
                                 const torch::Tensor &lambda_b, const torch::Tensor &lambda_d,
                                 const std::shared_ptr<pvera_context> &context,
                                 const std::shared_ptr<pvera_linear> &linear, const Draw &draw, double kl_weight) {
        auto recorded = c10::make_intrusive<Recorded>();
        pvera_tape *tape = nullptr;
        check_pvera(pvera_tape_new(PVERA_TAPE_KEEP_LATENT, nullptr, &tape));
        recorded->tape.reset(tape);
        recorded->context = context;
        recorded->linear = linear;
        recorded->kl_weight = kl_weight;

        const torch::Tensor y = run(*context, *linear, x, lambda_b.size(0), draw, tape);
        ctx->saved_data["recorded"] = c10::IValue::make_capsule(recorded);
        ctx->saved_data["x_shape"] = x.sizes().vec();
        ctx->saved_data["rank2"] = lambda_d.size(0);
        return y;
    }

    static torch::autograd::variable_list backward(torch::autograd::AutogradContext *ctx,
                                                   const torch::autograd::variable_list &dys) {
        // Grad mode is on where a graph of the gradients is wanted (create_graph): ours would be constants in it, silently.
        TORCH_CHECK(!torch::GradMode::is_enabled(),
                    "pvera: the gradients of a PveraLinear cannot be differentiated again; wanted create_graph = false");
        const auto capsule = ctx->saved_data["recorded"].toCapsule();
        const auto &recorded = static_cast<const Recorded &>(*capsule);
        const torch::Tensor dy = as_rows(dys[0]);
        const torch::Tensor dlambda_b = torch::empty({dy.size(1)}, dy.options());
        const torch::Tensor dlambda_d = torch::empty({ctx->saved_data["rank2"].toInt()}, dy.options());
        const torch::Tensor dx = ctx->needs_input_grad(0)
                                     ? torch::empty(ctx->saved_data["x_shape"].toIntVector(), dy.options())
                                     : torch::Tensor();

        const pvera_slot_gradients slot{0, dlambda_b.data_ptr<float>(), dlambda_d.data_ptr<float>(), nullptr};
        pvera_gradients wanted{};
        wanted.struct_size = sizeof wanted;
        wanted.overwrite = PVERA_OVERWRITE_ALL;
        wanted.slots = &slot;
        wanted.slot_count = 1;
        wanted.kl_weight = recorded.kl_weight;
        const pvera_matrix in = matrix(dy);
        pvera_matrix_mut out{};
        if (dx.defined()) out = matrix_mut(dx);
        check_pvera(
            pvera_backward(recorded.context.get(), recorded.tape.get(), &in, &wanted, dx.defined() ? &out : nullptr));
        // One for each argument of forward; those that are no tensors have none.
        return {dx, dlambda_b, dlambda_d, torch::Tensor(), torch::Tensor(), torch::Tensor(), torch::Tensor()};
    }
};

// ---- The module ----

PveraLinearImpl::PveraLinearImpl(std::string name, torch::Tensor weight, torch::Tensor bias,
                                 std::shared_ptr<pvera_store> store, std::shared_ptr<pvera_context> context)
    : name_(std::move(name)), weight_(as_rows(weight)), bias_(as_rows(bias.unsqueeze(0))), store_(std::move(store)),
      context_(std::move(context)) {
    TORCH_CHECK(weight.dim() == 2 && bias.dim() == 1 && bias.size(0) == weight.size(0), name_,
                ": wanted a weight [out, in] and a bias [out], got ", weight.sizes(), " and ", bias.sizes());
    pvera_matrix a, b;
    check_pvera(pvera_store_matrices(store_.get(), &a, &b));
    lambda_b = register_parameter("pvera_lambda_b", torch::zeros({weight_.size(0)}));
    lambda_d = register_parameter("pvera_lambda_d", torch::full({static_cast<int64_t>(a.rows)}, 0.1));
}

// The layer borrows the parameters' memory, which an optimiser writes in place.
void PveraLinearImpl::lend_parameters() {
    pvera_layer layer{};
    layer.struct_size = sizeof layer;
    layer.name = name_.c_str();
    layer.in_features = static_cast<size_t>(weight_.size(1));
    layer.out_features = static_cast<size_t>(weight_.size(0));
    layer.weight = matrix(weight_);
    layer.bias = matrix(bias_);
    pvera_linear_vectors vectors{};
    vectors.struct_size = sizeof vectors;
    vectors.lambda_b = lent_b_ = lambda_b.data_ptr<float>();
    vectors.lambda_d = lent_d_ = lambda_d.data_ptr<float>();
    pvera_linear *linear = nullptr;
    check_pvera(pvera_linear_new(&layer, store_.get(), nullptr, &vectors, &linear));
    // Whoever has the layer, an autograd node after the module's end too, has what it borrows.
    const auto release = [borrowed = std::vector<torch::Tensor>{weight_, bias_, lambda_b, lambda_d},
                          store = store_](pvera_linear *own) { pvera_linear_free(own); };
    linear_ = {linear, release};
    check_pvera(pvera_linear_pack_base(linear, PVERA_PACK_FORWARD | PVERA_PACK_BACKWARD));
}

torch::Tensor PveraLinearImpl::forward(const torch::Tensor &x, const Draw &draw, double kl_weight) {
    if (!linear_) lend_parameters();
    TORCH_CHECK(lambda_b.data_ptr<float>() == lent_b_ && lambda_d.data_ptr<float>() == lent_d_, name_,
                ": the parameters were moved after the first forward");
    // Without a graph nobody goes back, and nothing is kept.
    if (!torch::GradMode::is_enabled()) return run(*context_, *linear_, x, lambda_b.size(0), draw, nullptr);
    return PveraFunction::apply(x, lambda_b, lambda_d, context_, linear_, draw, kl_weight);
}
