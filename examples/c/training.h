/* Training an adapter on the transposed digits with nothing but the library. */
#ifndef TRAINING_H
#define TRAINING_H

#include <pvera.h>

#include "data.h"
#include "network.h"

/* The demo's seed for A and B (the projection_prng_key), for the noise and for the order of images. */
enum { SEED = 1, RANK = 128 };

/* The name under which the adapter is published. Noise is keyed by it, so training uses it too. */
extern const char *const ADAPTER;

/* How A and B are drawn, and whether progress goes to stdout. */
typedef struct recipe {
    uint64_t seed;
    int32_t grid; /* PVERA_GRID_… */
    bool silent;
} recipe;

/* A trainable adapter for all layers of the model, trained. */
pvera_adapter *train(const pvera_context *context, const base_weights *base, const pvera_model *model,
                     const images *training, const images *validation, const recipe *how);

#endif
