/* A PEFT adapter beside an engine's own quantised base: the engine computes x Wᵀ its own way, pvera adds the delta.
 * Why: a layer may be declared without a weight; forward then adds to y. x and y stay in the engine's dtype and strides. */
#include <pvera.h>
#include <stdio.h>

void engine_quantised_product(const void *weight, const float *x, size_t n, float *y);

pvera_error *adapted_layer(const pvera_context *context, const pvera_snapshot *snapshot, size_t layer, const void *weight,
                           const float *x, float *y, size_t n, size_t in, size_t out) {
    const pvera_linear *linear = NULL; /* belongs to the snapshot */
    pvera_error *error = pvera_snapshot_linear(snapshot, layer, &linear);
    if (error) return error;
    engine_quantised_product(weight, x, n, y);
    pvera_matrix input = pvera_f32(x, n, in);
    pvera_matrix_mut output = pvera_f32_mut(y, n, out);
    return pvera_forward(context, linear, &input, NULL, NULL, NULL, &output);
}

static pvera_error *fill_model(const pvera_model *model, const char *folder) {
    pvera_error *error = NULL;
    pvera_adapter *adapter = NULL;
    for (int i = 0; !error && i < 32; ++i) {
        char name[64];
        snprintf(name, sizeof name, "model.layers.%d.self_attn.q_proj", i);
        pvera_layer layer = {.struct_size = sizeof layer, .name = name, .in_features = 4096, .out_features = 4096};
        error = pvera_model_declare(model, &layer, NULL);
    }
    if (!error) error = pvera_adapter_load(model, folder, NULL, &adapter);
    if (!error) error = pvera_model_publish(model, "support", adapter, NULL);
    pvera_adapter_free(adapter); /* the model holds its own reference */
    return error;
}

pvera_error *load(const char *folder, pvera_model **model) {
    pvera_model *own = NULL;
    pvera_error *error = pvera_model_new(NULL, &own);
    if (!error) error = fill_model(own, folder);
    if (error) pvera_model_free(own);
    else *model = own;
    return error;
}
