// Adapters of a layer, and rows that take them.
#include "terms.hpp"

#include <cmath>

Terms::Terms(Random &random, size_t count, size_t groups, const std::vector<size_t> &ranks, size_t outputs) {
    struct Columns {
        size_t rank, p, z;
    };
    std::vector<Columns> of_group;
    p_columns = random.below(3);
    z_columns = random.below(3);
    delta_columns = random.below(3);
    first_latent = last_latent = random.below(20);
    for (size_t group = 0; group < groups; group++) {
        const size_t rank = ranks[group % ranks.size()];
        widest = std::max(widest, rank);
        of_group.push_back({rank, p_columns, z_columns});
        p_columns += 2 * rank;
        z_columns += rank;
    }
    for (size_t index = 0; index < count; index++) {
        const size_t group = index % groups;
        OneTerm &one = each.emplace_back();
        Term &term = one.term;
        for (size_t k = 0; k < 2 * of_group[group].rank; k++)
            one.lambda_d.host.push_back(random.value());
        for (size_t col = 0; col < outputs; col++)
            one.lambda_b.host.push_back(random.value());
        if (index == 1 || random.chance(3)) {
            for (size_t col = 0; col < outputs; col++)
                one.bias.host.push_back(random.value());
        }
        term.layer_hash = random.word();
        term.adapter_identity = random.word();
        term.scale = random.value();
        term.bound = random.of<float>({INFINITY, INFINITY, 0.25f});
        term.rank = static_cast<u32>(of_group[group].rank);
        term.mode = random.of<u32>({MODE_MEAN, MODE_SAMPLE, MODE_SAMPLE, MODE_FIXED});
        term.group = static_cast<u32>(group);
        term.p_column = static_cast<u32>(of_group[group].p);
        term.z_column = static_cast<u32>(of_group[group].z);
        term.latent_column = static_cast<u32>(last_latent);
        last_latent += of_group[group].rank;
        term.delta_column = static_cast<u32>(delta_columns);
        delta_columns += outputs;
        term.dropout = random.of<u32>({DROPOUT_NONE, DROPOUT_KEYED, DROPOUT_KEYED, DROPOUT_ALL});
        term.drop_below = static_cast<u32>(random.word());
        term.keep_scale = 1.0f + static_cast<float>(random.below(100)) / 64.0f;
    }
}

void Terms::tell(Mode mode) {
    for (OneTerm &one : each) {
        one.term.mode = mode;
        one.term.bound = INFINITY;
        one.term.layer_hash = TELLING_KEY.layer_hash;
        one.term.adapter_identity = TELLING_KEY.adapter_identity;
        one.lambda_d.host.assign(one.lambda_d.host.size(), 1.0f);
    }
}

const Term *Terms::upload() {
    table.host.clear();
    for (OneTerm &one : each) {
        one.term.lambda_d = one.lambda_d.upload();
        one.term.lambda_b = one.lambda_b.upload();
        one.term.bias = one.bias.host.empty() ? nullptr : one.bias.upload();
        table.host.push_back(one.term);
    }
    return table.upload();
}

SomeRows::SomeRows(Random &random, const Terms &terms, size_t count, bool by_row) : terms(terms), number(count) {
    const auto bits = [&random] { return static_cast<uint32_t>(random.word()); };
    for (size_t row = 0; by_row && row < count; row++) {
        term.host.push_back(static_cast<i32>(random.below(terms.each.size() + 1)) - 1);
    }
    if (random.chance(2)) {
        for (size_t row = 0; row < count; row++)
            identity.host.push_back(random.word());
    }
    if (random.chance(2)) {
        for (size_t row = 0; row < count; row++)
            sample.host.push_back(random.chance(4) ? 0xffffffff : bits());
    }
    seed_number = random.word();
    if (random.chance(2)) seed_at.host.push_back(seed_number);
    // Counting on wraps.
    identity_base = random.chance(3) ? ~uint64_t{0} : random.word();
    sample_base = random.chance(3) ? 0xffffffff : bits();
}

void SomeRows::tell() {
    seed_number = TELLING_KEY.seed;
    if (!seed_at.host.empty()) seed_at.host = {seed_number};
    identity.host.assign(TELLING_IDENTITIES.begin(), TELLING_IDENTITIES.end());
    identity.host.resize(number);
    sample.host.clear();
    sample_base = 0;
}

void SomeRows::upload() {
    term.upload();
    identity.upload();
    sample.upload();
    seed_at.upload();
}

Rows SomeRows::rows() const {
    return {term.at(), identity.at(), sample.at(), identity_base, sample_base, static_cast<u32>(number)};
}

// Whichever of the two is not used would give other noise.
Seed SomeRows::seed() const { return {seed_at.at(), seed_at.host.empty() ? seed_number : ~seed_number}; }

const OneTerm *SomeRows::taken(size_t row, u32 group, u32 index) const {
    if (!by_row()) return &terms.each.at(index);
    if (own(row) < 0) return nullptr;
    const OneTerm &one = terms.each.at(static_cast<size_t>(own(row)));
    return group == EVERY || one.term.group == group ? &one : nullptr;
}

static uint32_t dropout_word(const OneTerm &one, const SomeRows &rows, size_t row, uint64_t column) {
    const Key key = one.key(rows.seed_value());
    return word_of(key, Domain::DROPOUT, rows.identity_of(row), rows.sample_of(row), column);
}

void meet_threshold(Random &random, Terms &terms, const SomeRows &rows, u32 group, u32 index, uint64_t in_offset,
                    size_t cols) {
    const size_t row = random.below(rows.count());
    const OneTerm *taken = rows.taken(row, group, index);
    for (OneTerm &one : terms.each) {
        if (&one == taken) one.term.drop_below =
                dropout_word(one, rows, row, in_offset + random.below(cols)) + static_cast<u32>(random.below(2));
    }
}

float mask_of(const OneTerm &one, const SomeRows &rows, const Stored &given, size_t row, size_t col,
              uint64_t in_offset) {
    if (given.present()) return given.get(row, col);
    if (one.term.dropout == DROPOUT_NONE) return 1.0f;
    if (one.term.dropout == DROPOUT_ALL) return 0.0f;
    return dropout_word(one, rows, row, in_offset + col) >= one.term.drop_below ? one.term.keep_scale : 0.0f;
}

float logvar_of(const OneTerm &one, size_t latent, float p) {
    const float logvar = one.lambda_d.host.at(one.term.rank + latent) * p;
    return logvar > one.term.bound ? one.term.bound : logvar;
}

bool operator!=(const Fault &left, const Fault &right) { return std::memcmp(&left, &right, sizeof left) != 0; }

static std::string described(const Fault &fault) {
    char text[120];
    std::snprintf(text, sizeof text, "claimed %u, kind %u, row %u, latent %u, logvar %.9g", fault.claimed, fault.kind,
                  fault.row, fault.latent, fault.logvar);
    return text;
}

void Faults::compare() const {
    const Fault got = record.device().front();
    if (expected.empty() && !(got != Fault{})) return;
    for (const Fault &fault : expected) {
        if (!(got != fault)) return;
    }
    mismatch("fault: " + described(got) + ", wanted " +
             (expected.empty() ? "none" : "such as " + described(expected.front())));
}

size_t some_height(Random &random, size_t rows) {
    return random.of<size_t>({rows, rows, 1, 2, rows / 2 + 1, rows + 2});
}
