// Intervals that hold what they promise: a layer that was fitted to one task is adapted to another with PVeRA, and its predictions
// get 90 % intervals from the exact moments of the adapted layer, scaled on rows that were set aside (split conformal prediction,
// Lei et al. 2018). The program checks that the share of unseen targets inside is what was promised.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <numeric>
#include <pvera.hpp>
#include <random>
#include <vector>

namespace {

constexpr std::size_t inputs = 16, rank = 64;

// Rows x [n, inputs] and targets [n, 1].
struct data {
    std::size_t n;
    std::vector<float> x, y;

    pvera::matrix view() const { return pvera::as_matrix(x, n, inputs); }
};

// The new task: the old layer's weights, some of them turned round, and noise that grows with the first input.
data draw(std::size_t n, const std::vector<float> &weight, std::mt19937 &random) {
    std::normal_distribution<float> normal;
    data drawn{n, std::vector<float>(n * inputs), std::vector<float>(n)};
    for (std::size_t i = 0; i < n; ++i) {
        for (std::size_t k = 0; k < inputs; ++k) {
            const float x = drawn.x[i * inputs + k] = normal(random);
            drawn.y[i] += (k % 4 == 0 ? -weight[k] : weight[k]) * x;
        }
        drawn.y[i] += 0.2f * (1 + std::fabs(drawn.x[i * inputs])) * normal(random);
    }
    return drawn;
}

// Sampled forwards and AdamW; gives the mean square error of the last epoch.
double train(const pvera::context &context, const pvera::adapter &adapter, const data &rows, int epochs) {
    const pvera::span<float> parameters = adapter.parameters();
    std::vector<float> gradients(parameters.size()), first(parameters.size()), second(parameters.size()), y(rows.n), dy(rows.n);
    const pvera::slot_gradients places[] = {adapter.gradients_in(gradients, 0)};
    pvera::gradients wanted;
    wanted.into(places).overwrite = PVERA_OVERWRITE_ALL;
    const pvera::linear linear = adapter.linear(0);
    auto tape = pvera::tape::create(PVERA_TAPE_KEEP_DELTA);
    const pvera::adamw optimiser(0.02);
    double error = 0;
    for (int epoch = 1; epoch <= epochs; ++epoch) {
        const auto seed = static_cast<uint64_t>(epoch);
        context.forward(tape, linear, rows.view(), pvera::as_matrix(y, rows.n, 1), pvera::rows(), pvera::noise(PVERA_MODE_SAMPLE, seed));
        error = 0;
        for (std::size_t i = 0; i < rows.n; ++i) {
            const float off = y[i] - rows.y[i];
            dy[i] = off / static_cast<float>(rows.n);
            error += static_cast<double>(off * off) / static_cast<double>(rows.n);
        }
        context.backward(tape, pvera::as_matrix(dy, rows.n, 1), wanted);
        optimiser.step(seed, parameters, gradients, first, second);
    }
    return error;
}

struct prediction {
    std::vector<float> mean, deviation;
};

// Exact, without a draw.
prediction predict(const pvera::context &context, const pvera_linear *linear, const data &rows) {
    prediction found{std::vector<float>(rows.n), std::vector<float>(rows.n)};
    context.moments(linear, rows.view(), pvera::as_matrix(found.mean, rows.n, 1), pvera::as_matrix(found.deviation, rows.n, 1));
    for (float &variance : found.deviation) variance = std::sqrt(variance);
    return found;
}

// How many deviations are wide enough for the share of rows.
float scale_for(double share, const prediction &predicted, const data &rows) {
    std::vector<float> wanted(rows.n);
    for (std::size_t i = 0; i < rows.n; ++i) wanted[i] = std::fabs(rows.y[i] - predicted.mean[i]) / predicted.deviation[i];
    const auto place = static_cast<std::ptrdiff_t>(std::ceil(share * static_cast<double>(rows.n + 1))) - 1;
    std::nth_element(wanted.begin(), wanted.begin() + place, wanted.end());
    return wanted[static_cast<std::size_t>(place)];
}

double share_inside(float scale, const prediction &predicted, const data &rows) {
    std::size_t inside = 0;
    for (std::size_t i = 0; i < rows.n; ++i) inside += std::fabs(rows.y[i] - predicted.mean[i]) <= scale * predicted.deviation[i];
    return static_cast<double>(inside) / static_cast<double>(rows.n);
}

int run() {
    std::mt19937 random(7);
    std::normal_distribution<float> normal;
    std::vector<float> weight(inputs);
    for (float &value : weight) value = normal(random);
    const data training = draw(400, weight, random), aside = draw(1000, weight, random), unseen = draw(1000, weight, random);

    const auto context = pvera::context::create();
    const auto model = pvera::model::create();
    pvera::layer head("head", inputs, 1);
    head.weight = pvera::as_matrix(weight, 1, inputs);
    model.declare(head);
    auto config = pvera::config::create();
    config.set_int("r", rank);
    config.set_text("target_modules", "head");
    const auto adapter = pvera::adapter::create(model, config);
    const double before = train(context, adapter, training, 1), after = train(context, adapter, training, 1500);
    std::printf("mean square error %.2f, after training %zu numbers %.2f\n", before, adapter.parameters().size(), after);

    model.publish("task", adapter);
    const auto snapshot = model.snapshot();
    const pvera::linear_ref published = snapshot.linear(0);
    const float scale = scale_for(0.9, predict(context, published, aside), aside);
    const prediction predicted = predict(context, published, unseen);
    const double inside = share_inside(scale, predicted, unseen);
    for (std::size_t i = 0; i < 5; ++i)
        std::printf("  %6.2f in %6.2f to %6.2f\n", static_cast<double>(unseen.y[i]),
                    static_cast<double>(predicted.mean[i] - scale * predicted.deviation[i]),
                    static_cast<double>(predicted.mean[i] + scale * predicted.deviation[i]));
    std::printf("%.1f %% of %zu unseen targets lie in their 90 %% intervals\n", 100 * inside, unseen.n);
    return after < 0.7 * before && std::fabs(inside - 0.9) <= 0.03 ? 0 : 1;
}

} // namespace

int main() {
    try {
        return run();
    } catch (const std::exception &error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 1;
    }
}
