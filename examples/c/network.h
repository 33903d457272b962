/* The network of the example: three adapted layers with ReLU between them, forward and backward. */
#ifndef NETWORK_H
#define NETWORK_H

#include <pvera.h>

#include "data.h"

/* Layers to run, with memory for the activations of up to `rows` rows. */
typedef struct network {
    const pvera_context *context;
    const size_t *sizes;
    const pvera_linear *linear[LAYERS];
    pvera_tape *tape[LAYERS];
    float *output[LAYERS];     /* [rows, sizes[i + 1]]: what layer i gives, after ReLU but for the last: the logits */
    float *difference[LAYERS]; /* of the same shape: dL/d output[i] */
    size_t rows;
} network;

/* A model that declares the base network's layers, "layers.0" to "layers.2". */
pvera_model *model_new(const base_weights *base);

network network_new(const pvera_context *context, const base_weights *base, size_t rows);
void network_free(network *net);

/* What forward does with latents, keyed by this seed. */
pvera_noise noise_of(int32_t mode, uint64_t seed);

/* Logits [n, CLASSES] of x [n, PIXELS], which the network keeps until the next forward. */
const float *forward(network *net, const float *x, size_t n, const pvera_rows *rows, const pvera_noise *noise);

/* The same as a training forward, that backward can follow. */
const float *forward_with_tapes(network *net, const float *x, size_t n, const pvera_rows *rows,
                                const pvera_noise *noise);

/* Gradients of the last forward_with_tapes for net->difference[LAYERS - 1], which the caller has set. */
void backward(network *net, size_t n, const pvera_gradients gradients[LAYERS]);

/* Softmax of one row of CLASSES logits. */
void softmax(const float *logits, double *probabilities);

/* The first of the largest values. */
size_t largest(const double *values);

#endif
