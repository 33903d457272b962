// slopes and divergence: the latents on the way back.
#include <cmath>

#include "cases.hpp"
#include "terms.hpp"

namespace {

// What both kernels read.
struct Latents {
    Latents(Random &random, size_t rank, size_t count, bool wide = false)
        : by_row(random.chance(2)), group(some_group(random)),
          terms(random, 4, 2, {rank, random.of<size_t>({rank, rank / 2 + 1, 1})}, 1),
          rows(random, terms, count, by_row), index(static_cast<u32>(random.below(terms.each.size()))),
          p(wide ? DTYPE_F32 : Layout(random).dtype(), count, terms.p_columns, Layout(random).gap(),
            Layout(random).start()) {
        p.fill(random);
        if (!random.chance(4)) return;
        for (size_t row = 0; row < count; row++) {
            const float odd = random.of<float>({1e4f, 400.0f, 178.0f, 90.0f, -1e4f, -200.0f, NAN, INFINITY});
            p.put(row, random.below(terms.p_columns), odd);
        }
    }

    // Latents of mean 0 and of one logvar a row; noise that tells.
    template <typename OfRow> void tell(Mode mode, OfRow logvar) {
        terms.tell(mode);
        rows.tell();
        for (size_t row = 0; row < p.rows; row++) {
            for (const OneTerm &one : terms.each) {
                for (size_t k = 0; k < one.term.rank; k++) {
                    p.put(row, one.term.p_column + k, 0.0f);
                    p.put(row, one.term.p_column + one.term.rank + k, logvar(row));
                }
            }
        }
    }

    void upload() {
        terms.upload();
        rows.upload();
        p.upload();
    }

    float mu(const OneTerm &one, size_t row, size_t k) const {
        return one.lambda_d.host[k] * p.get(row, one.term.p_column + k);
    }
    float logvar(const OneTerm &one, size_t row, size_t k) const { return logvar_of(one, k, second_half(one, row, k)); }
    float second_half(const OneTerm &one, size_t row, size_t k) const {
        return p.get(row, one.term.p_column + one.term.rank + k);
    }
    // Of the terms that the kernel is launched for.
    size_t widest() const { return by_row ? terms.widest : terms.each[index].term.rank; }
    std::string text() const {
        return "rank " + std::to_string(widest()) + ", p " + p.text() +
               (by_row ? ", by row of group " + std::to_string(group) : "");
    }

    bool by_row;
    u32 group;
    Terms terms;
    SomeRows rows;
    u32 index;
    Stored p;
};

class SlopesCase {
  public:
    SlopesCase(Random &random, size_t rank, size_t count, bool wide = false)
        : random(random), in(random, rank, count, wide), has_kl(random.chance(2)), antithetic(random.chance(2)),
          kl_each(random.value() / 64), g(random, some_parts(random), count, in.terms.widest) {
        Layout layout(random);
        const size_t latents = in.terms.last_latent, own = latents - in.terms.first_latent;
        const auto some = [&](unsigned one_in) {
            auto matrix = std::make_unique<Stored>(layout.dtype(), random.chance(one_in) ? count : 0, latents,
                                                   layout.gap(), layout.start());
            matrix->fill(random);
            return matrix;
        };
        eps = some(3);
        prior_dmu = some(2);
        prior_dlogvar = some(2);
        const auto f32 = [&](size_t cols) {
            return std::make_unique<Stored>(DTYPE_F32, count, cols, layout.gap(), layout.start());
        };
        dm = f32(2 * own);
        dp = f32(in.terms.p_columns);
        dp->fill(random);
    }

    // dlogvar is half of one exponential (as a deviation, or less 1 as a variance), or of one normal.
    void tell(Mode mode) {
        has_kl = mode == MODE_MEAN;
        antithetic = false;
        kl_each = 1.0f;
        for (auto *matrix : {&eps, &prior_dmu, &prior_dlogvar})
            *matrix = std::make_unique<Stored>();
        in.tell(mode, [&](size_t row) {
            return mode == MODE_SAMPLE ? 0.0f : (mode == MODE_MEAN ? 1 : 2) * TELLING_EXPONENTS[row];
        });
        for (size_t row = 0; row < in.rows.count(); row++) {
            for (size_t k = 0; k < in.terms.widest; k++)
                g.put(row, k, 1.0f);
        }
    }

    void run() {
        begin_case("slopes " + in.text() + ", eps " + eps->text() + (has_kl ? ", kl" : "") + ", priors " +
                   prior_dmu->text() + " and " + prior_dlogvar->text());
        Device::launch("slopes", divided(divided(in.widest(), 16) * in.rows.count(), LATENT_BLOCKS), 1, 1,
                       LATENT_THREADS, uploaded());
        for (size_t row = 0; row < in.rows.count(); row++) {
            const OneTerm *term = in.rows.taken(row, in.group, in.index);
            for (size_t k = 0; term && k < term->term.rank; k++)
                expect(*term, row, k);
        }
        dm->compare("dm");
        dp->compare("dp");
        faults.compare();
    }

  private:
    // The argument, with everything that it points to.
    Slopes uploaded() {
        in.upload();
        g.upload();
        for (Stored *matrix : {eps.get(), prior_dmu.get(), prior_dlogvar.get(), dm.get(), dp.get()})
            matrix->upload();
        Slopes slopes{};
        slopes.p = in.p.matrix();
        slopes.g = g.parts();
        slopes.terms = in.terms.at();
        slopes.rows = in.rows.rows();
        slopes.seed = in.rows.seed();
        slopes.eps = eps->matrix();
        slopes.prior_dmu = prior_dmu->matrix();
        slopes.prior_dlogvar = prior_dlogvar->matrix();
        slopes.dm = dm->at<float>();
        slopes.dm_stride = dm->stride;
        slopes.dp = dp->at<float>();
        slopes.dp_stride = dp->stride;
        slopes.fault = faults.upload();
        slopes.kl_each = kl_each;
        slopes.has_kl = has_kl;
        slopes.first_latent = static_cast<u32>(in.terms.first_latent);
        slopes.rank = static_cast<u32>(in.widest());
        slopes.group = in.group;
        slopes.index = in.index;
        slopes.antithetic = antithetic;
        return slopes;
    }

    void expect(const OneTerm &one, size_t row, size_t k) {
        const Term &term = one.term;
        const float of_z = g.get(row, k), logvar = in.logvar(one, row, k);
        const float sigma = exponential(0.5f * logvar), variance = exponential(logvar);
        float dmu = of_z, dlogvar = 0.0f;
        if (term.mode == MODE_SAMPLE) dlogvar = (of_z * noise(one, row, k)) * (0.5f * sigma);
        if (term.mode == MODE_FIXED) dlogvar = of_z * (0.5f * sigma);
        const size_t latent = term.latent_column - in.terms.first_latent;
        if (has_kl) {
            dlogvar = std::fma(0.5f * kl_each, variance - 1.0f, dlogvar);
            dmu = std::fma(kl_each, in.mu(one, row, k), of_z);
            if (variance == INFINITY) faults.expect(FAULT_OVERFLOW_VARIANCE, row, k, logvar);
        }
        if (prior_dmu->present()) dmu += prior_dmu->get(row, term.latent_column + k);
        if (prior_dlogvar->present()) dlogvar += prior_dlogvar->get(row, term.latent_column + k);
        const float half = one.lambda_d.host[term.rank + k];
        if (term.bound != INFINITY && half * in.second_half(one, row, k) > term.bound) dlogvar = 0.0f;
        dm->put(row, 2 * latent + k, dmu);
        dm->put(row, 2 * latent + term.rank + k, dlogvar);
        add(row, term.p_column + k, one.lambda_d.host[k], dmu);
        add(row, term.p_column + term.rank + k, half, dlogvar);
    }

    float noise(const OneTerm &one, size_t row, size_t k) const {
        if (eps->present()) return eps->get(row, one.term.latent_column + k);
        return normal_of(one.key(in.rows.seed_value()), in.rows.identity_of(row), in.rows.sample_of(row), antithetic,
                         k);
    }

    void add(size_t row, size_t col, float lambda, float slope) {
        dp->put(row, col, std::fma(lambda, slope, dp->get(row, col)));
    }

    Random &random;
    Latents in;
    bool has_kl, antithetic;
    float kl_each;
    StoredParts g;
    std::unique_ptr<Stored> eps, prior_dmu, prior_dlogvar, dm, dp;
    Faults faults;
};

} // namespace

void test_slopes() {
    Random random(8);
    Sizes ranks(random, {1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 128, 255, 256, 257});
    Sizes heights = heights_of(random, {1, 2, 3, 7, 8, 9, 15, 16, 17, 33});
    for (int round = 0; round < rounds(200); round++)
        SlopesCase(random, ranks.next(), heights.next()).run();
    // An operation that is rounded otherwise shows in few of many.
    for (int round = 0; round < 4; round++)
        SlopesCase(random, 500, Layout::far_apart ? 2 : 40).run();
    for (Mode mode : {MODE_MEAN, MODE_FIXED, MODE_SAMPLE}) {
        // By row or not.
        for (int round = 0; round < 6; round++) {
            SlopesCase tells(random, 16, mode == MODE_SAMPLE ? TELLING_IDENTITIES.size() : TELLING_EXPONENTS.size(),
                             true);
            tells.tell(mode);
            tells.run();
        }
    }
}

// With a logvar, that of all latents, whose mean is 0.
static void one_divergence(Random &random, size_t rank, size_t count, const float *logvar = nullptr) {
    Latents in(random, rank, count);
    if (logvar != nullptr) {
        // Types narrower than p's would not hold it: λ_d does.
        in.tell(MODE_MEAN, [](size_t) { return 1.0f; });
        for (OneTerm &one : in.terms.each)
            one.lambda_d.host.assign(one.lambda_d.host.size(), *logvar);
    }
    begin_case("divergence " + in.text());
    List<double> kl;
    for (size_t row = 0; row < count; row++)
        kl.host.push_back(logvar == nullptr ? random.value() : 0.0);
    in.upload();
    const Divergence divergence{in.p.matrix(), in.terms.at(), in.rows.rows(), kl.upload(), in.group, in.index};
    Device::launch("divergence", count, 1, 1, DIVERGENCE_THREADS, divergence);
    for (size_t row = 0; row < count; row++) {
        const OneTerm *term = in.rows.taken(row, in.group, in.index);
        if (term == nullptr) continue;
        double sum = 0;
        for (size_t k = 0; k < term->term.rank; k++) {
            const double mu = in.mu(*term, row, k), logvar = in.logvar(*term, row, k),
                         variance = exponential(in.logvar(*term, row, k));
            sum -= 0.5 * (((1.0 + logvar) - mu * mu) - variance);
        }
        kl.host[row] += sum;
    }
    kl.compare("kl");
}

static void one_kl_total(Random &random, size_t count, bool zeros) {
    begin_case("kl_total of " + std::to_string(count) + (zeros ? " zeros" : ""));
    List<double> kl, out;
    out.host = {-1.0, -1.0};
    double sum = 0;
    for (size_t row = 0; row < count; row++)
        sum += kl.host.emplace_back(zeros ? 0.0 : random.value() / 3.0);
    const KlTotal total{kl.upload(), out.upload(), zeros ? 1.0 : 3.0 + static_cast<double>(count),
                        static_cast<u32>(count), 0};
    Device::launch("kl_total", 1, 1, 1, DIVERGENCE_THREADS, total);
    out.host[0] = sum / total.divisor;
    out.compare("out");
}

void test_divergence() {
    Random random(9);
    // Around the threads of a block, which take as many latents at a time.
    Sizes ranks(random, {1, 2, 7, 8, 9, 64, 127, 128, 129, 256, 300});
    Sizes heights = heights_of(random, {1, 2, 17, 40});
    for (int round = 0; round < rounds(60); round++)
        one_divergence(random, ranks.next(), heights.next());
    std::vector<float> logvars = TELLING_EXPONENTS;
    // At the small ones the rounding of 1 + logvar shows.
    logvars.insert(logvars.end(), {0.0f, 1e-9f, 2e-9f, 3e-10f, 5e-10f, 7e-10f});
    for (int round = 0; round < 8; round++) {
        for (const float &logvar : logvars)
            one_divergence(random, 1, 5, &logvar);
    }
}

void test_kl_total() {
    Random random(14);
    for (size_t count = 0; count <= 20; count++)
        one_kl_total(random, count, false);
    for (size_t count : {127, 128, 129, 255, 256, 257, 300})
        one_kl_total(random, count, false);
    // Enough of them for each addition's rounding to show.
    for (int round = 0; round < 8; round++)
        one_kl_total(random, 128, false);
    one_kl_total(random, 5, true);
}
