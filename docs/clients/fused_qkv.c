/* One fused weight [3h, h]; q and v are adapted, k is not.
 * Why: a matrix has a row stride, so q, k and v are views of the fused weight and of the fused y; a group shares one product with A. */
#include "pvera_sketch.h"

pvera_layer slice(const char *name, const float *fused_weight, size_t hidden, size_t part) {
    pvera_layer layer = {.struct_size = sizeof layer, .name = name, .in_features = hidden, .out_features = hidden,
                         .weight = {fused_weight + part * hidden * hidden, hidden, hidden, hidden, PVERA_F32, {0, 0}}};
    return layer;
}
pvera_error *qkv(pvera_context *context, const pvera_linear *const linears[3], const float *x, float *fused_y, size_t n, size_t hidden) {
    pvera_matrix input = {x, n, hidden, hidden, PVERA_F32, {0, 0}};
    pvera_matrix_mut y[3];
    for (size_t part = 0; part < 3; ++part)
        y[part] = (pvera_matrix_mut){fused_y + part * hidden, n, hidden, 3 * hidden, PVERA_F32, {0, 0}};
    return pvera_forward_group(context, 3, linears, &input, NULL, NULL, NULL, y); /* k's linear has no vectors in slot 0: base only */
}
