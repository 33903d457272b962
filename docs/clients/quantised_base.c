/* A PEFT adapter beside an engine's own quantised base: the engine computes x Wᵀ its own way, pvera adds the delta.
 * Why: a layer may be declared without a weight; forward then adds to y. x and y stay in the engine's dtype and strides. */
#include "pvera_sketch.h"

void engine_quantised_product(const void *weight, const float *x, size_t n, float *y);

pvera_error *adapted_layer(pvera_context *context, const pvera_snapshot *snapshot, size_t layer,
                           const void *weight, const float *x, float *y, size_t n, size_t in, size_t out) {
    engine_quantised_product(weight, x, n, y);
    const pvera_linear *linear = NULL;
    pvera_error *error = pvera_snapshot_linear(snapshot, layer, &linear);
    if (error) return error;
    pvera_matrix input = {x, n, in, in, PVERA_F32, {0, 0}};
    pvera_matrix_mut output = {y, n, out, out, PVERA_F32, {0, 0}};
    return pvera_forward(context, linear, &input, NULL, NULL, NULL, &output);
}

pvera_error *load(pvera_model **model, pvera_adapter **adapter) {
    pvera_error *error = pvera_model_new(NULL, model);
    for (size_t i = 0; !error && i < 32; ++i) {
        char name[] = "model.layers.00.self_attn.q_proj";
        name[13] = (char)('0' + i / 10), name[14] = (char)('0' + i % 10);
        pvera_layer layer = {.struct_size = sizeof layer, .name = name, .in_features = 4096, .out_features = 4096};
        error = pvera_model_declare(*model, &layer, NULL);
    }
    if (!error) error = pvera_adapter_load(*model, "adapter", NULL, adapter);
    if (!error) error = pvera_model_publish(*model, "support", *adapter, NULL);
    return error;
}
