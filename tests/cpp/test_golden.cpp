// Every folder of tests/golden through the binding: what PEFT and PyTorch computed, judged on y, the latent, merges, noise and
// gradients; and two adapters, alone, summed, and another for each row.
#include "golden.hpp"

namespace {

struct golden_case {
    std::string name;
    std::vector<std::string> modules;
    double tolerance;
    int32_t layout = PVERA_WEIGHT_OUT_IN;
};

const golden_case cases[] = {
    {"all_bf16", {"q_proj"}, 1e-2},
    {"all_f16", {"q_proj"}, 2e-3},
    {"base_bf16", {"q_proj"}, 1e-2},
    {"base_f16", {"q_proj"}, 2e-3},
    {"bias_all", {"q_proj"}, 1e-6},
    {"bias_and_head", {"q_proj"}, 1e-6},
    {"conv1d", {"c_attn"}, 1e-6, PVERA_WEIGHT_IN_OUT},
    {"dinov2_base_layer", {"query", "value"}, 1e-6},
    {"dropout_step", {"q_proj"}, 1e-6},
    {"mixed_shapes", {"up", "down", "head"}, 1e-6},
    {"sample_at_inference", {"tiny", "wide"}, 1e-6},
    {"seed_only", {"q_proj", "v_proj"}, 1e-6},
    {"train_step", {"q_proj", "v_proj"}, 1e-6},
};
constexpr double gradient_tolerance = 1e-5;

// A matrix of a tensor's shape and element type, to be written.
struct room {
    pvera::dtype type;
    std::vector<char> raw;
    pvera::matrix_mut view;

    explicit room(const golden::tensor &like)
        : type(like.type), raw(like.raw.size()), view(raw.data(), like.rows, like.cols, like.cols, like.type) {}
    std::vector<float> values() const { return golden::to_f32(raw, type); }
};

// One layer of a case, on a model of its own, with the adapter loaded for it.
struct judged {
    const golden_case &is;
    std::string module, what;
    golden::archive io, base;
    golden::tensor weight, bias;
    pvera::model model = pvera::model::create();
    pvera::adapter adapter;
    pvera::linear linear;
    const pvera::context &context;

    golden::tensor read(const char *name) const { return io.read(module + "/" + name); }

    judged(const std::string &folder, const golden_case &of, std::size_t which, const pvera::context &on)
        : is(of), module(of.modules[which]), what(of.name + "/" + module), io(folder + "/io.safetensors"),
          base(folder + "/base.safetensors"), weight(base.read(module + ".weight")), bias(base.read(module + ".bias")), context(on) {
        for (const std::string &name : of.modules) {
            const golden::tensor x = io.read(name + "/x"), y = io.read(name + "/base"), declared = base.read(name + ".bias");
            pvera::layer layer(name.c_str(), x.cols, y ? y.cols : declared.cols);
            layer.weight_layout = of.layout;
            if (name == module) layer.weight = weight.matrix(), layer.bias = bias.matrix();
            CHECK(model.declare(layer) == model.find_layer(name));
        }
        adapter = pvera::adapter::load(model, folder);
        linear = adapter.linear(which);
    }
};

void judge_latent(const judged &layer) {
    const golden::tensor x = layer.read("x"), mu = layer.read("mu"), logvar = layer.read("logvar");
    if (!mu) return;
    room found_mu(mu), found_logvar(mu);
    layer.context.latent(layer.linear, x.matrix(), found_mu.view, found_logvar.view);
    CHECK_CLOSE(layer.what + " mu", found_mu.values(), mu.values, layer.is.tolerance);
    if (logvar) CHECK_CLOSE(layer.what + " logvar", found_logvar.values(), logvar.values, layer.is.tolerance);
}

void judge_output(const judged &layer, const char *name, int32_t mode) {
    const golden::tensor x = layer.read("x"), y = layer.read(name), base = layer.read("base"), eps = layer.read("eps");
    if (!y) return;
    pvera::noise noise(mode);
    if (mode != PVERA_MODE_MEAN) noise.eps = eps.matrix();
    room found(y);
    if (!layer.weight) found.raw = base.raw, found.view.data = found.raw.data();
    layer.context.forward(layer.linear, x.matrix(), found.view, pvera::rows(), noise);
    CHECK_CLOSE(layer.what + " " + name, found.values(), y.values, layer.is.tolerance);
}

// Onto a weight of zeros.
void judge_merge(const judged &layer) {
    const golden::tensor wanted = layer.read("delta_weight");
    if (!wanted) return;
    room merged(wanted);
    pvera::merge_options options;
    options.layout = layer.is.layout;
    layer.context.merge(layer.linear, merged.view, merged.view, options);
    CHECK_CLOSE(layer.what + " delta_weight", merged.values(), wanted.values, layer.is.tolerance);
}

void judge_noise(const judged &layer) {
    const golden::tensor eps = layer.read("eps");
    if (!eps) return;
    std::vector<float> values(eps.values.size());
    const int64_t seed = layer.adapter.config().get_int("generator_seed");
    pvera::torch_generator::create(static_cast<uint64_t>(seed)).normals(values);
    CHECK_CLOSE(layer.what + " eps", values, eps.values, 1e-6);
}

void judge_kl(const judged &layer, const pvera::tape &tape, pvera::gradients wanted, room &dx, const std::vector<float> &lambda_d) {
    const golden::tensor kl = layer.read("kl_mean"), dy = layer.read("dy");
    if (!kl) return;
    double value = NAN;
    const std::vector<float> zeros(dy.values.size());
    wanted.kl_weight = 1, wanted.kl_value = &value;
    layer.context.backward(tape, pvera::as_matrix(zeros, dy.rows, dy.cols), wanted, dx.view);
    CHECK(std::fabs(value - static_cast<double>(kl.values[0])) <= gradient_tolerance * std::fabs(static_cast<double>(kl.values[0])));
    CHECK_CLOSE(layer.what + " kl_dx", dx.values(), layer.read("kl_dx").values, gradient_tolerance);
    CHECK_CLOSE(layer.what + " kl_dlambda_d", lambda_d, layer.read("kl_dlambda_d").values, gradient_tolerance);
}

void judge_training(const judged &layer, int32_t policy) {
    const golden::tensor x = layer.read("x"), dy = layer.read("dy"), eps = layer.read("eps"), y = layer.read("y_train");
    const golden::tensor mask = layer.read("mask");
    if (!dy) return;
    pvera::noise noise;
    noise.eps = eps.matrix(), noise.dropout_mask = mask.matrix();
    room found(y), dx(x);
    std::vector<float> lambda_b(y.cols), lambda_d(2 * eps.cols);
    const pvera::slot_gradients places[] = {{0, lambda_b.data(), lambda_d.data(), nullptr}};
    pvera::gradients wanted;
    wanted.into(places).overwrite = PVERA_OVERWRITE_ALL;
    auto tape = pvera::tape::create(policy);
    layer.context.forward(tape, layer.linear, x.matrix(), found.view, pvera::rows(), noise);
    CHECK_CLOSE(layer.what + " y_train", found.values(), y.values, 1e-6);
    layer.context.backward(tape, dy.matrix(), wanted, dx.view);
    CHECK_CLOSE(layer.what + " dx", dx.values(), layer.read("dx").values, gradient_tolerance);
    CHECK_CLOSE(layer.what + " dlambda_b", lambda_b, layer.read("dlambda_b").values, gradient_tolerance);
    CHECK_CLOSE(layer.what + " dlambda_d", lambda_d, layer.read("dlambda_d").values, gradient_tolerance);
    judge_kl(layer, tape, wanted, dx, lambda_d);
}

void run_case(const std::string &folder, const golden_case &is, const pvera::context &context) {
    for (std::size_t i = 0; i < is.modules.size(); ++i) {
        const unsigned before = check::now.checks;
        const judged layer(folder, is, i, context);
        judge_latent(layer);
        judge_output(layer, "y_mean", PVERA_MODE_MEAN);
        judge_output(layer, "y_sample", PVERA_MODE_AS_PEFT);
        judge_merge(layer);
        judge_noise(layer);
        for (int32_t policy = PVERA_TAPE_KEEP_LATENT; policy <= PVERA_TAPE_RECOMPUTE; ++policy) judge_training(layer, policy);
        CHECK(check::now.checks >= before + 6); // else the case was hardly judged
    }
}

// Slots, sums, and another adapter for each row.
void run_two_adapters(const std::string &folder, const pvera::context &context) {
    const golden::archive io(folder + "/io.safetensors"), base(folder + "/base.safetensors");
    const golden::tensor weight = base.read("q_proj.weight"), bias = base.read("q_proj.bias"), x = io.read("q_proj/x");
    const golden::tensor wanted[] = {io.read("q_proj/y_none"), io.read("q_proj/y_first"), io.read("q_proj/y_second")};
    const auto model = pvera::model::create();
    pvera::layer layer("q_proj", x.cols, wanted[0].cols);
    layer.weight = weight.matrix(), layer.bias = bias.matrix();
    model.declare(layer);
    const auto first = pvera::adapter::load(model, folder + "/first"), second = pvera::adapter::load(model, folder + "/second");
    const int32_t slots[] = {-1, model.publish("first", first), model.publish("second", second)};
    CHECK(first.store().equals(second.store()));
    const auto snapshot = model.snapshot();
    CHECK(snapshot.slot("second") == slots[2]);

    room found(wanted[0]);
    std::vector<int32_t> a_row(x.rows);
    std::vector<float> mixed(wanted[0].values.size());
    for (std::size_t i = 0; i < a_row.size(); ++i) {
        a_row[i] = slots[i % 3];
        for (std::size_t j = i * wanted[0].cols; j < (i + 1) * wanted[0].cols; ++j) mixed[j] = wanted[i % 3].values[j];
    }
    context.forward(snapshot.linear(0), x.matrix(), found.view, pvera::rows().slots(a_row));
    CHECK_CLOSE("an adapter for each row", found.values(), mixed, 1e-6);
    const pvera::active both[] = {{slots[1], 1}, {slots[2], 1}};
    context.forward(snapshot.linear(0), x.matrix(), found.view, pvera::rows().summed(both));
    CHECK_CLOSE("both", found.values(), io.read("q_proj/y_both").values, 1e-6);
}

void carried_tensors(const std::string &golden, const pvera::context &context) {
    const golden_case is{"bias_and_head", {"q_proj"}, 1e-6};
    const std::string folder = golden + "/" + is.name, key = "base_model.model.classifier.weight";
    const judged layer(folder, is, 0, context);
    const golden::tensor wanted = golden::archive(folder + "/adapter_model.safetensors").read(key);
    const pvera::tensor found = layer.adapter.find_tensor(key);
    CHECK(found.name == key && found.shape.size() == 2 && found.shape[0] == wanted.rows && found.shape[1] == wanted.cols);
    CHECK(found.data.size() == wanted.raw.size() && std::memcmp(found.data.data(), wanted.raw.data(), wanted.raw.size()) == 0);
    bool numbered = false;
    for (std::size_t i = 0; i < layer.adapter.tensor_count(); ++i) numbered |= layer.adapter.tensor_at(i).name == key;
    CHECK(numbered);
}

} // namespace

int main(int argc, char **argv) {
    if (argc != 2) return 2;
    const std::string golden = argv[1];
    return check::run([&] {
        for (const int32_t backend : {PVERA_BACKEND_CPU, PVERA_BACKEND_REFERENCE}) {
            pvera::context_options options;
            options.backend = backend;
            const auto context = pvera::context::create(options);
            for (const golden_case &is : cases) run_case(golden + "/" + is.name, is, context);
            run_two_adapters(golden + "/two_adapters", context);
            carried_tensors(golden, context);
        }
    });
}
