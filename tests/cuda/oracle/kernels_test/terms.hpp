// Adapters of a layer, and rows that take them, on both sides.
#pragma once

#include <deque>

#include "stored.hpp"

constexpr u32 EVERY = 0xffffffff;

struct OneTerm {
    Term term{};
    List<float> lambda_d, lambda_b, bias;

    Key key(uint64_t seed) const { return {seed, term.layer_hash, term.adapter_identity}; }
    float scaled(size_t col) const { return term.scale * lambda_b.host.at(col); }
};

// Terms in groups. Those of a group have one rank and share columns of p and z; all have latents of their own.
class Terms {
  public:
    Terms(Random &random, size_t count, size_t groups, const std::vector<size_t> &ranks, size_t outputs);

    // One term alone, without a bound, whose latents are p itself; and whose noise tells.
    void tell(Mode mode);
    // After changes to the terms.
    const Term *upload();
    const Term *at() const { return table.at(); }

    std::deque<OneTerm> each;
    size_t widest = 0;
    // Columns that the terms take altogether, and where their latents begin.
    size_t p_columns = 0, z_columns = 0, delta_columns = 0, first_latent = 0, last_latent = 0;

  private:
    List<Term> table;
};

// Rows of a call: of one term each, or of every term; with identities and samples listed or counted.
class SomeRows {
  public:
    SomeRows(Random &random, const Terms &terms, size_t count, bool by_row);

    // Keys whose noise tells; sample 0.
    void tell();
    void upload();
    Rows rows() const;
    Seed seed() const;
    size_t count() const { return number; }
    bool by_row() const { return !term.host.empty(); }
    // The term that a kernel for `group`, or else for term `index`, takes for a row; null where it leaves the row
    // alone.
    const OneTerm *taken(size_t row, u32 group, u32 index) const;
    // Whose the row is, without regard to groups: its index or −1.
    int own(size_t row) const { return term.host.at(row); }
    uint64_t identity_of(size_t row) const {
        return identity.host.empty() ? identity_base + row : identity.host.at(row);
    }
    uint32_t sample_of(size_t row) const { return sample.host.empty() ? sample_base : sample.host.at(row); }
    uint64_t seed_value() const { return seed_number; }

    List<i32> term;

  private:
    const Terms &terms;
    size_t number;
    List<u64> identity, seed_at;
    List<u32> sample;
    uint64_t identity_base, seed_number;
    uint32_t sample_base;
};

// Makes the word of some column of some row the first that its term keeps, or the last that it drops.
void meet_threshold(Random &random, Terms &terms, const SomeRows &rows, u32 group, u32 index, uint64_t in_offset,
                    size_t cols);

// The mask of a column of a row: the given one, or the term's.
float mask_of(const OneTerm &term, const SomeRows &rows, const Stored &given, size_t row, size_t col,
              uint64_t in_offset);

// logvar of a latent, bounded, from its half of p.
float logvar_of(const OneTerm &term, size_t latent, float p);

// A record of faults, and what it may hold.
class Faults {
  public:
    Faults() { record.host.resize(1); }
    Fault *upload() { return record.upload(); }
    // A fault that one of the kernel's threads meets.
    void expect(FaultKind kind, size_t row, size_t latent, float logvar) {
        expected.push_back({1, kind, static_cast<u32>(row), static_cast<u32>(latent), logvar, 0});
    }
    // One of those expected, or nothing where none is.
    void compare() const;
    size_t count() const { return expected.size(); }

  private:
    List<Fault> record;
    std::vector<Fault> expected;
};

bool operator!=(const Fault &left, const Fault &right);

// The group of a launch.
inline u32 some_group(Random &random) { return random.of<u32>({0, 1, EVERY}); }

// A height of grid: that of the rows; or less, so that blocks go on from row to row; or more, for nothing.
size_t some_height(Random &random, size_t rows);
