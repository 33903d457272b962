// PVeRA layers in libtorch, held to the same layers written in torch operations.
//
//     libtorch_train DATA
//
// First one layer: outputs, gradients, errors, and which memory is taken. Then the digits' network (../c/digits.c),
// trained by libtorch's AdamW once with our layers and once with torch operations, with the same noise.
#include <ATen/Parallel.h>
#include <c10/core/CPUAllocator.h>

#include <cstdio>
#include <string>
#include <vector>

#include "pvera_linear.h"

extern "C" {
#include "data.h"
}

using torch::Tensor;

static int failed = 0;

static void require(bool holds, const char *what) {
    if (holds) return;
    std::printf("FAILED: %s\n", what);
    ++failed;
}

// max|found − wanted| / max|wanted|
static double relative_difference(const Tensor &found, const Tensor &wanted) {
    return (found - wanted).abs().max().item<double>() / wanted.abs().max().item<double>();
}

// ---- The same layer in torch operations ----

struct PlainLinear : torch::nn::Module {
    PlainLinear(std::string layer_name, Tensor base_weight, Tensor base_bias,
                const std::shared_ptr<pvera_store> &shared_store)
        : name(std::move(layer_name)), weight(std::move(base_weight)), bias(std::move(base_bias)), store(shared_store) {
        pvera_matrix a, b;
        check_pvera(pvera_store_matrices(store.get(), &a, &b));
        A = torch::from_blob(const_cast<void *>(a.data), {int64_t(a.rows), int64_t(a.cols)})
                .narrow(1, 0, weight.size(1));
        B = torch::from_blob(const_cast<void *>(b.data), {int64_t(b.rows), int64_t(b.cols)})
                .narrow(0, 0, weight.size(0));
        lambda_b = register_parameter("pvera_lambda_b", torch::zeros({weight.size(0)}));
        lambda_d = register_parameter("pvera_lambda_d", torch::full({A.size(0)}, 0.1));
    }

    // The noise that pvera draws for these rows.
    Tensor eps(int64_t rows, const Draw &draw) const {
        const int64_t rank = A.size(0) / 2;
        const Tensor values = torch::empty({rows, rank}),
                     identities = draw.identities.defined() ? draw.identities : torch::arange(rows);
        uint64_t adapter = 0;
        check_pvera(pvera_adapter_identity("default", &adapter));
        for (int64_t i = 0; i < rows; ++i)
            check_pvera(pvera_keyed_normals(draw.seed, name.c_str(), adapter,
                                            uint64_t(identities.data_ptr<int64_t>()[i]), draw.sample, false,
                                            size_t(rank), values.data_ptr<float>() + i * rank));
        return values;
    }

    Tensor forward(const Tensor &x, const Draw &draw, Tensor *kl = nullptr) {
        const std::vector<Tensor> halves = (torch::matmul(x, A.t()) * lambda_d).chunk(2, -1);
        const Tensor &mu = halves[0], &logvar = halves[1];
        Tensor z = mu;
        if (draw.mode == PVERA_MODE_SAMPLE)
            z = mu + eps(mu.numel() / mu.size(-1), draw).view(mu.sizes()) * torch::exp(0.5 * logvar);
        if (kl != nullptr) *kl = -0.5 * (1 + logvar - mu * mu - torch::exp(logvar)).mean();
        return torch::nn::functional::linear(x, weight, bias) + lambda_b * torch::matmul(z, B.t());
    }

    std::string name;
    Tensor weight, bias, A, B, lambda_b, lambda_d;
    std::shared_ptr<pvera_store> store;
};

// ---- One layer ----

struct Pair {
    std::shared_ptr<pvera_store> store;
    PveraLinear ours{nullptr};
    std::shared_ptr<PlainLinear> plain;
};

constexpr int64_t IN = 48, OUT = 80, RANK = 16;

static Pair make_pair() {
    Pair pair;
    pair.store = make_store(3, RANK, IN, OUT);
    const Tensor weight = torch::randn({OUT, IN}), bias = torch::randn({OUT});
    pair.ours = PveraLinear("layer", weight, bias, pair.store, make_context());
    pair.plain = std::make_shared<PlainLinear>("layer", weight, bias, pair.store);
    const torch::NoGradGuard no_grad;
    pair.ours->lambda_b.normal_();
    pair.ours->lambda_d.normal_();
    pair.plain->lambda_b.copy_(pair.ours->lambda_b);
    pair.plain->lambda_d.copy_(pair.ours->lambda_d);
    return pair;
}

// Outputs and all gradients of Σ y ∘ dy + weight · KL.
static void compare_layer(const char *what, const Tensor &x_values, const Draw &draw, double kl_weight) {
    const Pair pair = make_pair();
    PveraLinear ours = pair.ours;
    Tensor x = x_values.detach().requires_grad_(), plain_x = x_values.clone().requires_grad_(), kl;
    const Tensor y = ours->forward(x, draw, kl_weight), wanted = pair.plain->forward(plain_x, draw, &kl);
    const Tensor dy = torch::randn_like(wanted);
    y.backward(dy);
    ((wanted * dy).sum() + kl_weight * kl).backward();
    const double differences[] = {relative_difference(y, wanted), relative_difference(x.grad(), plain_x.grad()),
                                  relative_difference(ours->lambda_b.grad(), pair.plain->lambda_b.grad()),
                                  relative_difference(ours->lambda_d.grad(), pair.plain->lambda_d.grad())};
    std::printf("  %-34s y %.1e, dx %.1e, dlambda_b %.1e, dlambda_d %.1e\n", what, differences[0], differences[1],
                differences[2], differences[3]);
    for (const double difference : differences) require(difference < 3e-6, what);
}

// A gradient that was expanded from one number has no memory of its own for each element.
static void expanded_gradient() {
    const Pair pair = make_pair();
    PveraLinear ours = pair.ours;
    const Tensor x = torch::randn({7, IN});
    ours->forward(x, {}).sum().backward();
    pair.plain->forward(x, {}).sum().backward();
    require(relative_difference(ours->lambda_b.grad(), pair.plain->lambda_b.grad()) < 3e-6, "an expanded gradient");
}

static bool throws(const std::function<void()> &act, const char *text) {
    try {
        act();
    } catch (const c10::Error &error) {
        return std::string(error.what()).find(text) != std::string::npos;
    }
    return false;
}

// A graph outlives the module that made it, as any operation's does.
static void without_module() {
    const Pair pair = make_pair();
    const Tensor x = torch::randn({7, IN}, torch::requires_grad()), dy = torch::randn({7, OUT});
    const Tensor wanted = torch::autograd::grad({pair.plain->forward(x, {})}, {x}, {dy})[0];
    Tensor y;
    {
        const torch::NoGradGuard no_grad;
        PveraLinear own("layer", pair.plain->weight.clone(), pair.plain->bias.clone(), pair.plain->store,
                        make_context());
        own->lambda_b.copy_(pair.plain->lambda_b);
        own->lambda_d.copy_(pair.plain->lambda_d);
        const torch::AutoGradMode grad(true);
        y = own->forward(x, {});
    }
    std::vector<Tensor> others; // take what would have been freed
    for (int i = 0; i < 16; ++i) others.push_back(torch::full({OUT, IN}, NAN));
    const Tensor dx = torch::autograd::grad({y}, {x}, {dy})[0];
    require(relative_difference(dx, wanted) < 3e-6, "a module that is gone before backward");
}

// Weights and biases that are views of others' memory.
static void strided() {
    const Pair pair = make_pair();
    const Tensor weight = torch::randn({OUT, 2 * IN}).slice(1, 0, 2 * IN, 2);
    const Tensor bias = torch::randn({OUT, 2}).select(1, 0);
    PveraLinear ours("layer", weight, bias, pair.plain->store, make_context());
    const Tensor x = torch::randn({3, IN}), y = ours->forward(x, {});
    require(relative_difference(y, torch::linear(x, weight, bias)) < 3e-6, "a strided weight and bias");
    const auto shorter = [&] { PveraLinear("layer", weight, bias.slice(0, 1), pair.plain->store, make_context()); };
    require(throws(shorter, "a bias [out]"), "a bias of another length is not told");
}

static void errors() {
    const Pair pair = make_pair();
    PveraLinear ours = pair.ours;
    const Tensor x = torch::randn({2, IN}, torch::requires_grad());
    const Tensor y = ours->forward(x, {});
    require(throws([&] { torch::autograd::grad({y.square().sum()}, {x}, {}, c10::nullopt, true); }, "create_graph = false"),
            "a gradient that cannot be differentiated again is given for one that can");
    {
        const torch::NoGradGuard no_grad;
        ours->lambda_d.add_(1);
    }
    require(throws([&] { y.sum().backward(); }, "changed between forward and backward"),
            "parameters that changed before backward are not told");
    require(throws([&] { ours->forward(torch::randn({2, IN + 1}), {}); }, "x is 2×49; wanted 2×48"),
            "a wrong width is not told");
    require(throws([&] { ours->forward(torch::randn({2, IN}, torch::kDouble), {}); }, "wanted floats"),
            "doubles are not refused");
    ours->lambda_b.set_data(ours->lambda_b.clone());
    require(throws([&] { ours->forward(torch::randn({2, IN}), {}); }, "were moved"),
            "parameters that were moved are not told");
}

// Counts what libtorch's tensors take.
struct Counting : c10::Allocator {
    c10::Allocator *inner = c10::GetCPUAllocator();
    mutable size_t bytes = 0;
    c10::DataPtr allocate(size_t count) const override {
        bytes += count;
        return inner->allocate(count);
    }
    c10::DeleterFnPtr raw_deleter() const override { return inner->raw_deleter(); }
};

// Nothing is copied: a forward takes the memory of y, a backward that of the gradients, and the optimiser writes where
// pvera reads.
static void memory() {
    constexpr size_t rows = 100;
    const Pair pair = make_pair();
    PveraLinear ours = pair.ours;
    const Tensor x = torch::randn({rows, IN}).requires_grad_(), dy = torch::randn({rows, OUT});
    const void *lambda_b = ours->lambda_b.data_ptr();
    Counting counting;
    c10::SetCPUAllocator(&counting, 1);
    const Tensor y = ours->forward(x, {});
    const size_t forward = counting.bytes;
    y.backward(dy);
    const size_t backward = counting.bytes - forward;
    c10::SetCPUAllocator(counting.inner, 1);
    std::printf("  libtorch's memory: forward %zu bytes (y), backward %zu bytes (gradients)\n", forward, backward);
    require(forward == rows * OUT * sizeof(float), "forward takes other memory than that of y");
    require(backward == (rows * IN + OUT + 2 * RANK) * sizeof(float),
            "backward takes other memory than that of the gradients");
    torch::optim::SGD(ours->parameters(), 0.1).step();
    require(ours->lambda_b.data_ptr() == lambda_b, "the parameters moved");
    require(!torch::equal(y, ours->forward(x, {})), "the optimiser's step is not seen");
}

// ---- Training ----

struct Digits {
    Tensor pixels, labels, identities;
};

static Digits digits(const images &all, part which) {
    images upright = images_of_part(&all, which), turned = images_changed(&upright, transposed);
    const auto count = int64_t(turned.count);
    Digits set{torch::from_blob(turned.pixels, {count, PIXELS}).clone(),
               torch::from_blob(turned.labels, {count}, torch::kByte).to(torch::kLong),
               torch::from_blob(turned.identity, {count}, torch::kLong).clone()};
    images_free(&upright);
    images_free(&turned);
    return set;
}

// Three layers of one kind with ReLU between them.
template <typename Layer> struct Network {
    std::vector<Layer> layers;
    std::vector<Tensor> parameters() {
        std::vector<Tensor> all;
        for (Layer &layer : layers)
            for (const Tensor &parameter : layer->parameters()) all.push_back(parameter);
        return all;
    }
    Tensor forward(Tensor x, const Draw &draw) {
        for (size_t i = 0; i < layers.size(); ++i) {
            x = layers[i]->forward(x, draw);
            if (i + 1 < layers.size()) x = torch::relu(x);
        }
        return x;
    }
};

template <typename Layer> static double accuracy(Network<Layer> &network, const Digits &set) {
    const torch::NoGradGuard no_grad;
    Draw mean;
    mean.mode = PVERA_MODE_MEAN;
    return network.forward(set.pixels, mean).argmax(1).eq(set.labels).to(torch::kDouble).mean().template item<double>();
}

// The loss of every step, in libtorch's own way of training.
template <typename Layer> static std::vector<double> train(Network<Layer> &network, const Digits &set, int steps) {
    constexpr int64_t batch = 64;
    torch::optim::AdamW optimiser(network.parameters(), torch::optim::AdamWOptions(0.02));
    std::vector<double> losses;
    for (int step = 0; step < steps; ++step) {
        const int64_t begin = step * batch % (set.pixels.size(0) - batch);
        Draw draw;
        draw.seed = 1;
        draw.sample = uint32_t(step);
        draw.identities = set.identities.narrow(0, begin, batch);
        optimiser.zero_grad();
        const Tensor logits = network.forward(set.pixels.narrow(0, begin, batch), draw);
        const Tensor loss = torch::nn::functional::cross_entropy(logits, set.labels.narrow(0, begin, batch));
        loss.backward();
        optimiser.step();
        losses.push_back(loss.item<double>());
    }
    return losses;
}

static void compare_training(const char *folder) {
    constexpr int steps = 600;
    base_weights base = base_read(folder);
    images all = images_read(folder);
    const Digits training = digits(all, TRAINING), testing = digits(all, TESTING);
    const auto store = make_store(1, 128, 128, 128);
    const auto context = make_context();
    Network<PveraLinear> ours;
    Network<std::shared_ptr<PlainLinear>> plain;
    for (size_t i = 0; i < LAYERS; ++i) {
        const auto in = int64_t(base.sizes[i]), out = int64_t(base.sizes[i + 1]);
        const Tensor weight = torch::from_blob(base.weight[i], {out, in}), bias = torch::from_blob(base.bias[i], {out});
        const std::string name = "layers." + std::to_string(i);
        ours.layers.emplace_back(name, weight, bias, store, context);
        plain.layers.push_back(std::make_shared<PlainLinear>(name, weight, bias, store));
    }
    const double before = accuracy(ours, testing);
    const std::vector<double> losses = train(ours, training, steps), wanted = train(plain, training, steps);
    double most = 0;
    const std::vector<Tensor> parameters = ours.parameters(), plain_parameters = plain.parameters();
    for (size_t i = 0; i < parameters.size(); ++i)
        most = std::max(most, relative_difference(parameters[i], plain_parameters[i]));
    std::printf("  step      1: loss %.5f, in torch operations %.5f\n", losses[0], wanted[0]);
    std::printf("  step %6d: loss %.5f, in torch operations %.5f\n", steps, losses.back(), wanted.back());
    std::printf("  parameters: largest relative difference %.1e\n", most);
    const double after = accuracy(ours, testing), plain_after = accuracy(plain, testing);
    std::printf("  accuracy on 514 transposed digits: %.3f before, %.3f after, in torch operations %.3f\n", before,
                after, plain_after);
    require(std::abs(losses[0] - wanted[0]) < 1e-5 * wanted[0], "the first losses differ");
    require(most < 1e-4, "the trained parameters differ");
    require(after > 0.9 && std::abs(after - plain_after) < 0.01, "the trained networks differ");
    images_free(&all);
    base_free(&base);
}

int main(int count, char **arguments) {
    if (count != 2) {
        std::fprintf(stderr, "usage: %s DATA\n", arguments[0]);
        return 2;
    }
    torch::manual_seed(5);
    torch::set_num_threads(2);
    std::printf("One layer, beside the same in torch operations (%d threads)\n", at::get_num_threads());
    Draw mean, sampled, keyed;
    mean.mode = PVERA_MODE_MEAN;
    sampled.seed = keyed.seed = 9;
    keyed.sample = 4;
    keyed.identities = torch::tensor({5, 3, 8, 1, 1000}, torch::kLong);
    compare_layer("mean", torch::randn({33, IN}), mean, 0);
    compare_layer("sampled", torch::randn({33, IN}), sampled, 0);
    compare_layer("sampled, KL", torch::randn({33, IN}), sampled, 10);
    compare_layer("identities", torch::randn({5, IN}), keyed, 0);
    compare_layer("three dimensions", torch::randn({4, 6, IN}), sampled, 0);
    compare_layer("columns of a wider tensor", torch::randn({6, 3 * IN}).narrow(1, IN, IN), sampled, 0);
    compare_layer("a transposed tensor", torch::randn({IN, 6}).t(), sampled, 0);
    expanded_gradient();
    without_module();
    strided();
    errors();
    memory();
    torch::set_num_threads(1); // the network is too small for two
    std::printf("The digits' network, trained by libtorch's AdamW\n");
    compare_training(arguments[1]);
    return failed > 0;
}
