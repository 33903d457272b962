/* Forward and backward through the three layers; see network.h. */
#include "network.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "support.h"

pvera_model *model_new(const base_weights *base) {
    pvera_model *model;
    check(pvera_model_new(NULL, &model));
    for (size_t i = 0; i < LAYERS; i++) {
        size_t in = base->sizes[i], out = base->sizes[i + 1];
        char name[16];
        snprintf(name, sizeof name, "layers.%zu", i);
        pvera_layer layer = {
            .struct_size = sizeof layer,
            .name = name,
            .in_features = in,
            .out_features = out,
            .weight = pvera_f32(base->weight[i], out, in),
            .weight_layout = PVERA_WEIGHT_OUT_IN,
            .bias = pvera_f32(base->bias[i], 1, out),
        };
        check(pvera_model_declare(model, &layer, NULL));
    }
    return model;
}

network network_new(const pvera_context *context, const base_weights *base, size_t rows) {
    network net = {.context = context, .sizes = base->sizes, .rows = rows};
    for (size_t i = 0; i < LAYERS; i++) {
        check(pvera_tape_new(PVERA_TAPE_KEEP_DELTA, NULL, &net.tape[i]));
        net.output[i] = allocate(rows * base->sizes[i + 1], sizeof(float));
        net.difference[i] = allocate(rows * base->sizes[i + 1], sizeof(float));
    }
    return net;
}

void network_free(network *net) {
    for (size_t i = 0; i < LAYERS; i++) {
        pvera_tape_free(net->tape[i]);
        free(net->output[i]);
        free(net->difference[i]);
    }
}

pvera_noise noise_of(int32_t mode, uint64_t seed) {
    return (pvera_noise){.struct_size = sizeof(pvera_noise), .mode = mode, .seed = seed};
}

static void rectify(float *values, size_t count) {
    for (size_t i = 0; i < count; i++) values[i] = values[i] > 0.0f ? values[i] : 0.0f;
}

static const float *run(network *net, const float *x, size_t n, const pvera_rows *rows, const pvera_noise *noise,
                        bool with_tapes) {
    if (n > net->rows) fail("a forward of %zu rows in a network for %zu", n, net->rows);
    for (size_t i = 0; i < LAYERS; i++) {
        size_t in = net->sizes[i], out = net->sizes[i + 1];
        pvera_matrix input = pvera_f32(x, n, in);
        pvera_matrix_mut output = pvera_f32_mut(net->output[i], n, out);
        pvera_tape *tape = with_tapes ? net->tape[i] : NULL;
        check(pvera_forward(net->context, net->linear[i], &input, rows, noise, tape, &output));
        if (i + 1 < LAYERS) rectify(net->output[i], n * out);
        x = net->output[i];
    }
    return x;
}

const float *forward(network *net, const float *x, size_t n, const pvera_rows *rows, const pvera_noise *noise) {
    return run(net, x, n, rows, noise, false);
}

const float *forward_with_tapes(network *net, const float *x, size_t n, const pvera_rows *rows,
                                const pvera_noise *noise) {
    return run(net, x, n, rows, noise, true);
}

void backward(network *net, size_t n, const pvera_gradients gradients[LAYERS]) {
    for (size_t i = LAYERS; i-- > 0;) {
        pvera_matrix dy = pvera_f32(net->difference[i], n, net->sizes[i + 1]);
        if (i == 0) {
            check(pvera_backward(net->context, net->tape[i], &dy, &gradients[i], NULL));
            return;
        }
        size_t in = net->sizes[i];
        pvera_gradients with_dx = gradients[i];
        with_dx.overwrite |= PVERA_OVERWRITE_DX;
        pvera_matrix_mut dx = pvera_f32_mut(net->difference[i - 1], n, in);
        check(pvera_backward(net->context, net->tape[i], &dy, &with_dx, &dx));
        for (size_t j = 0; j < n * in; j++)
            if (net->output[i - 1][j] <= 0.0f) net->difference[i - 1][j] = 0.0f;
    }
}

void softmax(const float *logits, double *probabilities) {
    double top = logits[0], sum = 0.0;
    for (size_t c = 1; c < CLASSES; c++) top = logits[c] > top ? logits[c] : top;
    for (size_t c = 0; c < CLASSES; c++) sum += probabilities[c] = exp(logits[c] - top);
    for (size_t c = 0; c < CLASSES; c++) probabilities[c] /= sum;
}

size_t largest(const double *values) {
    size_t best = 0;
    for (size_t c = 1; c < CLASSES; c++)
        if (values[c] > values[best]) best = c;
    return best;
}
