/* A layer's adapter for the two programs: a store of a seed, held in one of three ways, and vectors that make the delta
 * about as large as the base. */
#ifndef ADAPTED_H
#define ADAPTED_H

#include <pvera.h>
#include <stdint.h>

/* How many bits a number of A and B takes when packed. */
enum store_kind { STORE_F32, STORE_BF16, STORE_INT8 };

/* The layer's name, by which its noise is keyed. */
#define ADAPTED_NAME "model.layers.0.self_attn.q_proj"

struct adapted {
    size_t in, out, rank;
    pvera_store *store;
    float *lambda_b, *lambda_d; /* [out], [2 rank] */
    pvera_linear *linear;       /* without a weight: the base is ggml's */
};

struct adapted adapted_new(size_t in, size_t out, size_t rank, enum store_kind kind);
void adapted_free(struct adapted *adapted);

/* count standard normals times scale, the same for the same seed; freed with free. */
float *normals(size_t count, uint64_t seed, float scale);

#endif
