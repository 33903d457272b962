/* One fused weight [3h, h]; q and v are adapted, k is not.
 * Why: a matrix has a row stride, so q, k and v are views of the fused weight and of the fused y; a group takes arrays of
 * such views and shares one product with A. No struct is needed for fused layers. */
#include <pvera.h>

static pvera_layer slice(const char *name, const float *fused_weight, size_t hidden, size_t part) {
    pvera_layer layer = {.struct_size = sizeof layer, .name = name, .in_features = hidden, .out_features = hidden};
    layer.weight = pvera_f32(fused_weight + part * hidden * hidden, hidden, hidden);
    return layer;
}

pvera_error *declare(const pvera_model *model, const float *fused_weight, size_t hidden, size_t numbers[3]) {
    const char *names[3] = {"attn.q_proj", "attn.k_proj", "attn.v_proj"};
    pvera_error *error = NULL;
    for (size_t part = 0; part < 3 && !error; ++part) {
        pvera_layer layer = slice(names[part], fused_weight, hidden, part);
        error = pvera_model_declare(model, &layer, &numbers[part]);
    }
    return error;
}

/* k's linear has no vectors in slot 0, and gets its base alone. */
pvera_error *qkv(const pvera_context *context, const pvera_snapshot *snapshot, const size_t numbers[3], const float *x,
                 float *fused_y, size_t n, size_t hidden) {
    const pvera_linear *linears[3];
    pvera_matrix input = pvera_f32(x, n, hidden);
    pvera_matrix_mut y[3];
    for (size_t part = 0; part < 3; ++part) {
        pvera_error *error = pvera_snapshot_linear(snapshot, numbers[part], &linears[part]);
        if (error) return error;
        y[part] = pvera_f32_mut(fused_y + part * hidden, n, hidden);
        y[part].row_stride = 3 * hidden;
    }
    return pvera_forward_group(context, 3, linears, &input, NULL, NULL, NULL, y);
}
