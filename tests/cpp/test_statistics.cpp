// Monte Carlo in C++: draws and exact moments of a layer, statistics over passes, early stopping, calibration, and the noise itself.
#include "world.hpp"

namespace {

constexpr std::size_t n = world::n, out = world::out;

// Draws by row and sample number are draws by pvera::context::sample; their spread is what the exact moments say.
void draws_and_moments() {
    const world all;
    const auto linear = all.adapter.linear(0);
    constexpr std::size_t samples = 2000;
    std::vector<float> draws(samples * n * out), mean(n * out), variance(n * out), one(n * out);
    all.context.sample(linear, all.input(), pvera::as_matrix(draws, samples * n, out), samples, pvera::rows(), pvera::noise(PVERA_MODE_SAMPLE, 8));
    pvera::rows whose;
    whose.sample_base = 1999;
    all.context.forward(linear, all.input(), pvera::as_matrix(one, n, out), whose, pvera::noise(PVERA_MODE_SAMPLE, 8));
    CHECK(std::memcmp(one.data(), draws.data() + 1999 * n * out, one.size() * sizeof(float)) == 0);

    auto statistics = pvera::statistics::create(n, out);
    for (std::size_t s = 0; s < samples; ++s) statistics.add(pvera::matrix(draws.data() + s * n * out, n, out));
    all.context.moments(linear, all.input(), pvera::as_matrix(mean, n, out), pvera::as_matrix(variance, n, out));
    CHECK(mean == all.forward(linear));
    std::vector<double> found_mean(n * out), found_variance(n * out), lower(n * out), upper(n * out);
    statistics.mean(found_mean);
    statistics.variance(found_variance);
    statistics.predictive_interval(0.9, lower, upper);
    std::size_t inside = 0;
    for (std::size_t i = 0; i < n * out; ++i) {
        const double exact = static_cast<double>(variance[i]), error = std::sqrt(exact / samples);
        CHECK(std::fabs(found_mean[i] - static_cast<double>(mean[i])) <= 5 * error);
        CHECK(std::fabs(found_variance[i] - exact) <= 5 * exact * std::sqrt(2.0 / samples));
        for (std::size_t s = 0; s < samples; ++s) {
            const double draw = static_cast<double>(draws[s * n * out + i]);
            inside += lower[i] <= draw && draw <= upper[i];
        }
    }
    CHECK(std::fabs(static_cast<double>(inside) / (samples * n * out) - 0.9) < 0.01);
}

// Worked by hand: two rows of two classes, row 0 votes 0 0 1 0, row 1 always 1.
void by_hand() {
    auto statistics = pvera::statistics::create(2, 2);
    const std::vector<float> passes[] = {{2, 0, 0, 1}, {4, 0, 0, 1}, {0, 6, 0, 1}};
    for (const auto &values : passes) statistics.add(pvera::as_matrix(values, 2, 2));
    const std::vector<float> last{2, 2};
    const std::size_t only[] = {0};
    statistics.add_rows(only, pvera::as_matrix(last, 1, 2));
    std::vector<uint32_t> of_rows(2), votes(4);
    std::vector<double> values(4), mean_lower(4), mean_upper(4), lower(2), upper(2), entropy(2), information(2);
    statistics.passes(of_rows);
    CHECK(of_rows[0] == 4 && of_rows[1] == 3);
    statistics.votes(votes);
    CHECK(votes == (std::vector<uint32_t>{3, 1, 0, 3}));
    statistics.most_voted(of_rows);
    CHECK(of_rows[0] == 0 && of_rows[1] == 1);
    statistics.mean(values);
    CHECK(values == (std::vector<double>{2, 2, 0, 1}));
    statistics.variance(values);
    CHECK(std::fabs(values[0] - 8.0 / 3) < 1e-12 && values[3] == 0);
    statistics.mean_interval(0.95, mean_lower, mean_upper);
    CHECK(std::fabs(mean_upper[0] - (2 + 3.182446305284263 * std::sqrt(8.0 / 3 / 4))) < 1e-9); // t of 3 degrees of freedom
    CHECK(std::fabs(mean_lower[0] + mean_upper[0] - 4) < 1e-12);
    statistics.mean_probabilities(values);
    const double sure = 1 / (1 + std::exp(-1.0));
    CHECK(std::fabs(values[3] - sure) < 1e-9);
    statistics.most_voted_interval(0.95, lower, upper);
    CHECK(lower[0] < values[0] && upper[0] > values[0] && std::fabs(lower[1] - sure) < 1e-9 && std::fabs(upper[1] - sure) < 1e-9);
    statistics.predictive_entropy(entropy);
    CHECK(std::fabs(entropy[1] + sure * std::log(sure) + (1 - sure) * std::log(1 - sure)) < 1e-9);
    statistics.mutual_information(information);
    CHECK(information[0] > 0.1 && std::fabs(information[1]) < 1e-12);
    CHECK_THROWS(statistics.mean(entropy), pvera::code::shape, "2|4");
    statistics.clear();
    statistics.passes(of_rows);
    CHECK(of_rows[0] == 0 && of_rows[1] == 0);
}

// Row 0 is clear, row 1 is a coin.
void early_stopping() {
    const pvera::stopping rule(0.05, 64);
    CHECK(rule.next_look(0) == 8 && rule.next_look(8) == 16 && rule.next_look(64) == 64);
    auto statistics = pvera::statistics::create(2, 2);
    for (int pass = 0; pass < 32; ++pass) {
        const std::vector<float> values{3, 0, static_cast<float>(pass % 2), 0.5f};
        statistics.add(pvera::as_matrix(values, 2, 2));
    }
    std::vector<std::size_t> room(2);
    const auto undecided = rule.undecided(statistics, room);
    CHECK(undecided.size() == 1 && undecided[0] == 1);
    const auto imprecise = rule.imprecise(statistics, 0.01, room);
    CHECK(imprecise.size() == 1 && imprecise[0] == 1 && rule.imprecise(statistics, 100, room).empty());
    std::vector<std::size_t> small(1);
    CHECK_THROWS(static_cast<void>(rule.undecided(statistics, small)), pvera::code::shape, "1|2");
}

void calibrated() {
    const std::vector<double> confidence{0.9, 0.9, 0.9, 0.9, 0.3};
    const std::vector<uint8_t> correct{1, 1, 1, 0, 0};
    std::array<pvera::bin, 2> bars{};
    const pvera::calibration_error error = pvera::calibration(confidence, correct, bars);
    CHECK(bars[0].count == 1 && bars[1].count == 4 && std::fabs(bars[1].accuracy - 0.75) < 1e-12);
    CHECK(std::fabs(error.expected - (0.8 * 0.15 + 0.2 * 0.3)) < 1e-12 && std::fabs(error.maximum - 0.3) < 1e-12);
}

// The noise of a sampled forward is keyed_normals; given as eps it draws the same.
void keyed() {
    const world all;
    const auto linear = all.adapter.linear(0);
    std::vector<float> eps(n * world::rank), other(world::rank);
    pvera::noise_key key;
    key.seed = 3, key.adapter = pvera::adapter_identity("default");
    for (std::size_t i = 0; i < n; ++i) {
        key.identity = i;
        pvera::keyed_normals(key, "q", pvera::span<float>(eps).subspan(i * world::rank, world::rank));
    }
    pvera::noise given(PVERA_MODE_SAMPLE);
    given.eps = pvera::as_matrix(eps, n, world::rank);
    CHECK(all.forward(linear, given) == all.forward(linear, pvera::noise(PVERA_MODE_SAMPLE, 3)));
    key.identity = 0, key.sample = 1, key.antithetic = true;
    pvera::keyed_normals(key, "q", other);
    for (std::size_t i = 0; i < other.size(); ++i) CHECK(other[i] == -eps[i]);
}

// The context speaks of itself.
void contexts() {
    pvera::context_options options;
    options.threads = 1, options.cpu_features_off = PVERA_CPU_AVX512;
    const auto context = pvera::context::create(options);
    CHECK((context.cpu_features() & PVERA_CPU_AVX512) == 0 && (context.cpu_features() | pvera::cpu_features()) == pvera::cpu_features());
    context.check();
    options.backend = 99;
    CHECK_THROWS(static_cast<void>(pvera::context::create(options)), pvera::code::argument, "backend|99");
    const world all;
    std::vector<float> memory(all.adapter.parameter_count());
    CHECK_THROWS(static_cast<void>(all.adapter.trainable_on(context, memory)), pvera::code::unsupported, "");
}

// First-order variance from one backward: on a linear layer it is exact, g sigma squared over the latents.
void first_order() {
    const world all;
    const auto linear = all.adapter.linear(1);
    std::vector<float> y(n * world::v_out), dy(n * world::v_out), mean(n * world::v_out), exact(n * world::v_out);
    std::vector<double> variance(n);
    for (std::size_t i = 0; i < n; ++i) dy[i * world::v_out + 2] = 1; // f is output 2
    auto tape = pvera::tape::create();
    const auto view = pvera::as_matrix(y, n, world::v_out);
    all.context.forward(tape, linear, all.input(), view, pvera::rows(), pvera::noise(PVERA_MODE_MEAN));
    all.context.backward(tape, pvera::as_matrix(dy, n, world::v_out), pvera::gradients().first_order_variance(variance));
    all.context.moments(linear, all.input(), pvera::as_matrix(mean, n, world::v_out), pvera::as_matrix(exact, n, world::v_out));
    std::vector<float> wanted;
    for (std::size_t i = 0; i < n; ++i) wanted.push_back(exact[i * world::v_out + 2]);
    CHECK_CLOSE("first-order variance", variance, wanted, 1e-6);
}

} // namespace

int main() {
    return check::run([] {
        draws_and_moments();
        by_hand();
        early_stopping();
        calibrated();
        keyed();
        contexts();
        first_order();
    });
}
