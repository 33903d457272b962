// Whose a row is: its term, its identity, its sample.
#pragma once

#include "device.cuh"

#define EVERY_GROUP 0xffffffffu

// The term of a row of the call, or null where it has none in `group`. Without a list of terms it is term `index`.
INLINE const Term *term_of(const i32 *term, const Term *terms, u32 row, u32 group, u32 index) {
    if (term == nullptr) {
        return terms + index;
    }
    i32 own = term[row];
    if (own < 0 || (group != EVERY_GROUP && terms[own].group != group)) {
        return nullptr;
    }
    return terms + own;
}

INLINE u64 identity_of(const Rows &rows, u32 row) {
    return rows.identity == nullptr ? rows.identity_base + row : rows.identity[row];
}

INLINE u32 sample_of(const Rows &rows, u32 row) {
    return rows.sample == nullptr ? rows.sample_base : rows.sample[row];
}

INLINE u64 value_of(const Seed &seed) {
    return seed.at == nullptr ? seed.value : *seed.at;
}

// Claims the fault, unless another thread has; only the first is kept.
INLINE void report(Fault *fault, FaultKind kind, u32 row, u32 latent, float logvar) {
    if (atomicCAS(&fault->claimed, 0u, 1u) != 0u) {
        return;
    }
    fault->row = row;
    fault->latent = latent;
    fault->logvar = logvar;
    fault->kind = kind;
}
