// mask and latent.
#include <cmath>

#include "cases.hpp"
#include "terms.hpp"

// ---- mask -----------------------------------------------------------------------------------------------------------

static void one_mask(Random &random, size_t count, size_t cols) {
    Layout layout(random);
    const bool by_row = random.chance(2);
    Terms terms(random, 4, 2, {1}, 1);
    SomeRows rows(random, terms, count, by_row);
    Stored x(layout.dtype(), count, cols, layout.gap(), layout.start()),
        out(DTYPE_F32, count, cols, layout.gap(), layout.start());
    Stored given(layout.dtype(), random.chance(4) ? count : 0, cols, layout.gap(), layout.start());
    x.fill(random);
    given.fill(random);
    if (random.chance(3)) x.put(random.below(count), random.below(cols), random.of<float>({INFINITY, NAN}));
    const uint64_t in_offset =
        random.of<uint64_t>({0, 0, 1, 15, 16, 4096, 12345, (uint64_t{1} << 32) - 5, (uint64_t{1} << 35) + 3});
    const u32 group = some_group(random), index = static_cast<u32>(random.below(terms.each.size()));
    meet_threshold(random, terms, rows, group, index, in_offset, cols);
    begin_case("mask x " + x.text() + ", given " + given.text() + ", offset " + std::to_string(in_offset) +
               (by_row ? ", by row" : ", dropout " + std::to_string(terms.each[index].term.dropout)));
    terms.upload();
    rows.upload();
    x.upload();
    given.upload();
    out.upload();
    const Mask mask{x.matrix(),  given.matrix(), out.at<float>(),        out.stride, terms.at(), rows.rows(),
                    rows.seed(), in_offset,      static_cast<u32>(cols), group,      index,      0};
    Device::launch("mask", divided(cols, ELEMENT_THREADS), some_height(random, count), 1, ELEMENT_THREADS, mask);
    for (size_t row = 0; row < count; row++) {
        const OneTerm *term = rows.taken(row, group, index);
        for (size_t col = 0; term && col < cols; col++) {
            const bool passes = !given.present() && term->term.dropout == DROPOUT_NONE;
            const float value = x.get(row, col);
            out.put(row, col, passes ? value : value * mask_of(*term, rows, given, row, col, in_offset));
        }
    }
    out.compare("out");
}

void test_mask() {
    Random random(4);
    Sizes widths(random, {1, 2, 15, 16, 17, 31, 32, 33, 255, 256, 257, 511, 512, 513, 900});
    Sizes heights = heights_of(random, {1, 2, 5, 16, 17});
    for (int round = 0; round < rounds(400); round++)
        one_mask(random, heights.next(), widths.next());
}

// ---- latent ---------------------------------------------------------------------------------------------------------

namespace {

class LatentCase {
  public:
    LatentCase(Random &random, LatentKind kind, size_t rank, size_t count)
        : random(random), kind(kind), by_row(random.chance(2)),
          draws(kind == LATENT_Z ? random.of<size_t>({1, 1, 2, 3, 5}) : 1), group(some_group(random)),
          terms(random, 4, 2, {rank, random.of<size_t>({rank, rank / 2 + 1, 1})}, 1),
          rows(random, terms, count, by_row), index(static_cast<u32>(random.below(terms.each.size()))),
          antithetic(random.chance(2)), p(random, some_parts(random), count, terms.p_columns) {
        // Without a list of rows a kernel does what it does for one term.
        widest = by_row ? terms.widest : terms.each[index].term.rank;
        // Moments that are p itself meet what is halfway between two neighbours of a narrow type.
        for (OneTerm &one : terms.each) {
            if (kind == LATENT_MOMENTS && random.chance(2))
                one.lambda_d.host.assign(one.lambda_d.host.size(), 1.0f);
        }
        if (random.chance(3)) spoil();
        Layout layout(random);
        z = std::make_unique<Stored>(DTYPE_F32, draws * count, terms.z_columns, layout.gap(), layout.start());
        const size_t latents = terms.last_latent;
        mu = std::make_unique<Stored>(layout.dtype(), count, latents, layout.gap(), layout.start());
        logvar = std::make_unique<Stored>(layout.dtype(), count, latents, layout.gap(), layout.start());
        eps = std::make_unique<Stored>(layout.dtype(), random.chance(3) ? draws * count : 0, latents, layout.gap(),
                                       layout.start());
        eps->fill(random);
    }

    void run() {
        static const char *const KINDS[] = {"z", "variance", "moments"};
        begin_case(std::string("latent ") + KINDS[kind] + " rank " + std::to_string(widest) + ", " +
                   std::to_string(rows.count()) + " rows, " + std::to_string(draws) + " draws, eps " + eps->text() +
                   (by_row ? ", by row of group " + std::to_string(group) : "") + (antithetic ? ", antithetic" : ""));
        Device::launch("latent", divided(divided(widest, 16) * rows.count() * draws, LATENT_BLOCKS), 1, 1,
                       LATENT_THREADS, uploaded());
        for (size_t draw = 0; draw < draws; draw++) {
            for (size_t row = 0; row < rows.count(); row++) {
                const OneTerm *term = rows.taken(row, group, index);
                for (size_t k = 0; term && k < term->term.rank; k++)
                    expect(*term, draw, row, k);
            }
        }
        z->compare("z");
        mu->compare("mu");
        logvar->compare("logvar");
        faults.compare();
    }

  private:
    // The argument, with everything that it points to.
    Latent uploaded() {
        terms.upload();
        rows.upload();
        p.upload();
        for (Stored *matrix : {z.get(), mu.get(), logvar.get(), eps.get()})
            matrix->upload();
        Latent latent{};
        latent.p = p.parts();
        latent.terms = terms.at();
        latent.rows = rows.rows();
        latent.seed = rows.seed();
        latent.eps = eps->matrix();
        if (kind == LATENT_MOMENTS) {
            latent.mu = mu->matrix();
            latent.logvar = logvar->matrix();
        } else {
            latent.z = z->at<float>();
            latent.z_stride = z->stride;
        }
        latent.fault = faults.upload();
        latent.kind = kind;
        latent.draws = static_cast<u32>(draws);
        latent.rank = static_cast<u32>(widest);
        latent.group = group;
        latent.index = index;
        latent.antithetic = antithetic;
        return latent;
    }

    // Values of p that overflow, and that nothing can be made of.
    void spoil() {
        for (size_t row = 0; row < rows.count(); row++) {
            const float odd = random.of<float>({1e4f, 400.0f, 178.0f, 90.0f, -1e4f, -200.0f, NAN, INFINITY});
            for (int times = 0; times < 3; times++)
                p.put(row, random.below(terms.p_columns), odd);
        }
    }

    void expect(const OneTerm &one, size_t draw, size_t row, size_t k) {
        const Term &term = one.term;
        const size_t out_row = draw * rows.count() + row;
        const float mean = one.lambda_d.host[k] * p.get(row, term.p_column + k);
        const float spread = logvar_of(one, k, p.get(row, term.p_column + term.rank + k));
        if (kind == LATENT_MOMENTS) {
            mu->put(row, term.latent_column + k, mean);
            logvar->put(row, term.latent_column + k, spread);
            return;
        }
        if (kind == LATENT_VARIANCE) {
            const float variance = exponential(spread);
            if (variance == INFINITY) faults.expect(FAULT_OVERFLOW_VARIANCE, row, k, spread);
            z->put(row, term.z_column + k, variance);
            return;
        }
        if (term.mode == MODE_MEAN) return z->put(out_row, term.z_column + k, mean);
        const float sigma = exponential(0.5f * spread);
        if (sigma == INFINITY) faults.expect(FAULT_OVERFLOW_SIGMA, row, k, spread);
        if (term.mode == MODE_FIXED) return z->put(out_row, term.z_column + k, sigma + mean);
        const uint32_t sample = rows.sample_of(row) + static_cast<uint32_t>(draw);
        const float noise = eps->present()
                                ? eps->get(out_row, term.latent_column + k)
                                : normal_of(one.key(rows.seed_value()), rows.identity_of(row), sample, antithetic, k);
        z->put(out_row, term.z_column + k, std::fma(noise, sigma, mean));
    }

    Random &random;
    LatentKind kind;
    bool by_row;
    size_t draws;
    u32 group;
    Terms terms;
    SomeRows rows;
    u32 index;
    bool antithetic;
    StoredParts p;
    size_t widest;
    std::unique_ptr<Stored> z, mu, logvar, eps;
    Faults faults;
};

} // namespace

// One term alone, with nothing but p and z; `wanted` is z of a row's latent.
template <typename Wanted>
static void one_term(Random &random, Latent latent, const StoredParts &p, size_t count, Terms &terms, Wanted wanted,
                     bool tells = false) {
    const OneTerm &one = terms.each.front();
    const size_t rank = one.term.rank;
    SomeRows rows(random, terms, count, false);
    if (tells) rows.tell();
    Stored z(DTYPE_F32, count, terms.z_columns, 0, 0);
    Faults faults;
    rows.upload();
    z.upload();
    latent.p = p.parts();
    latent.terms = terms.upload();
    latent.rows = rows.rows();
    latent.seed = rows.seed();
    latent.z = z.at<float>();
    latent.z_stride = z.stride;
    latent.fault = faults.upload();
    latent.draws = 1;
    latent.rank = static_cast<u32>(rank);
    latent.group = EVERY;
    Device::launch("latent", divided(divided(rank, 16) * count, LATENT_BLOCKS), 1, 1, LATENT_THREADS, latent);
    for (size_t row = 0; row < count; row++) {
        for (size_t k = 0; k < rank; k++)
            z.put(row, one.term.z_column + k, wanted(rows, row, k));
    }
    z.compare("z");
    faults.compare();
}

// In mean mode p may end where its first half does.
static void test_means_alone(Random &random, size_t rank, size_t count) {
    begin_case("latent z of means, rank " + std::to_string(rank) + ", p without its second half");
    Terms terms(random, 1, 1, {rank}, 1);
    OneTerm &one = terms.each[0];
    one.term.mode = MODE_MEAN;
    StoredParts p(random, 1, count, one.term.p_column + rank);
    p.upload();
    Latent latent{};
    latent.kind = LATENT_Z;
    one_term(random, latent, p, count, terms, [&](const SomeRows &, size_t row, size_t k) {
        return one.lambda_d.host[k] * p.get(row, one.term.p_column + k);
    });
}

// Of every size that does not overflow; an operation that is fused where it should not be shows in few of them.
static void test_exponentials(Random &random, size_t rank, size_t count) {
    begin_case("latent variance of many");
    Terms terms(random, 1, 1, {rank}, 1);
    OneTerm &one = terms.each[0];
    one.term.bound = INFINITY;
    one.lambda_d.host.assign(2 * rank, 1.0f);
    StoredParts p(random, 1, count, terms.p_columns);
    for (size_t row = 0; row < count; row++) {
        for (size_t k = 0; k < rank; k++) {
            const float part = static_cast<float>(random.word() >> 40) / 16777216.0f; // of 1
            p.put(row, one.term.p_column + rank + k, random.chance(2) ? part * 193.0f - 105.0f : part - 0.5f);
        }
    }
    p.upload();
    Latent latent{};
    latent.kind = LATENT_VARIANCE;
    one_term(random, latent, p, count, terms, [&](const SomeRows &, size_t row, size_t k) {
        return exponential(p.get(row, one.term.p_column + rank + k));
    });
}

// Values whose exponential, as a deviation or a variance, or whose noise tells.
static void test_telling(Random &random, LatentKind kind, Mode mode) {
    const bool samples = mode == MODE_SAMPLE;
    const size_t rank = 16, count = samples ? TELLING_IDENTITIES.size() : TELLING_EXPONENTS.size();
    begin_case("latents that tell, kind " + std::to_string(kind) + ", mode " + std::to_string(mode));
    Terms terms(random, 1, 1, {rank}, 1);
    OneTerm &one = terms.each[0];
    terms.tell(mode);
    StoredParts p(random, 1, count, terms.p_columns);
    const auto exponent = [&](size_t row) { return samples ? 0.0f : TELLING_EXPONENTS[row]; };
    for (size_t row = 0; row < count; row++) {
        for (size_t k = 0; k < rank; k++) {
            p.put(row, one.term.p_column + k, 0.0f);
            p.put(row, one.term.p_column + rank + k, kind == LATENT_VARIANCE ? exponent(row) : 2 * exponent(row));
        }
    }
    p.upload();
    Latent latent{};
    latent.kind = kind;
    one_term(
        random, latent, p, count, terms,
        [&](const SomeRows &rows, size_t row, size_t k) {
            return samples ? normal_of(one.key(rows.seed_value()), rows.identity_of(row), 0, false, k)
                           : exponential(exponent(row));
        },
        true);
}

void test_latent() {
    Random random(5);
    Sizes ranks(random, {1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 128, 255, 256, 257});
    Sizes heights = heights_of(random, {1, 2, 3, 7, 8, 9, 15, 16, 17, 33});
    for (int round = 0; round < rounds(240); round++)
        LatentCase(random, LATENT_Z, ranks.next(), heights.next()).run();
    for (int round = 0; round < rounds(100); round++)
        LatentCase(random, LATENT_VARIANCE, ranks.next(), heights.next()).run();
    for (int round = 0; round < rounds(160); round++)
        LatentCase(random, LATENT_MOMENTS, ranks.next(), heights.next()).run();
    for (size_t rank : {1, 8, 16, 17, 64})
        test_means_alone(random, rank, 5);
    test_exponentials(random, 1000, Layout::far_apart ? 2 : 50);
    test_telling(random, LATENT_VARIANCE, MODE_MEAN);
    test_telling(random, LATENT_Z, MODE_FIXED);
    test_telling(random, LATENT_Z, MODE_SAMPLE);
}

// ---- normals --------------------------------------------------------------------------------------------------------

// z of means 0 and deviations 1: the noise alone, by the keys of its rows.
static void one_normals(Random &random, size_t rank, size_t count, bool antithetic) {
    begin_case("normals " + std::to_string(rank) + ", " + std::to_string(count) + " rows" +
               (antithetic ? ", antithetic" : ""));
    Terms terms(random, 1, 1, {rank}, 1);
    OneTerm &one = terms.each[0];
    one.term.mode = MODE_SAMPLE;
    one.term.bound = INFINITY;
    one.lambda_d.host.assign(2 * rank, 1.0f);
    StoredParts p(random, 1, count, terms.p_columns);
    for (size_t row = 0; row < count; row++) {
        for (size_t column = 0; column < 2 * rank; column++)
            p.put(row, one.term.p_column + column, 0.0f);
    }
    p.upload();
    Latent latent{};
    latent.kind = LATENT_Z;
    latent.antithetic = antithetic;
    one_term(random, latent, p, count, terms, [&](const SomeRows &rows, size_t row, size_t k) {
        const Key key = one.key(rows.seed_value());
        return std::fma(normal_of(key, rows.identity_of(row), rows.sample_of(row), antithetic, k), 1.0f, 0.0f);
    });
}

void test_normals() {
    Random random(6);
    Sizes heights = heights_of(random, {1, 2, 7, 8, 9, 16, 17});
    for (size_t rank : {1, 7, 8, 9, 15, 16, 17, 31, 32, 33, 127, 128, 129, 255, 256, 257, 1000}) {
        for (bool antithetic : {false, true})
            one_normals(random, rank, heights.next(), antithetic);
    }
    // Many: an operation that is fused where it should not be shows in few of them.
    for (bool antithetic : {false, true})
        one_normals(random, 1000, Layout::far_apart ? 2 : 100, antithetic);
}
