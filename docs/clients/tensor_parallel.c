/* Tensor-parallel ranks. By row: each rank holds some of the inputs, p is a partial sum, all-reduced before the exp of the latent step.
 * By column: each rank holds some of the outputs; the noise must be the same on every rank.
 * Why: shards are layers with offsets and totals; noise is keyed by names and identities, never by place. */
#include "pvera_sketch.h"

void all_reduce_sum(float *values, size_t count);

pvera_layer by_row(const char *name, size_t rank, size_t ranks, size_t in, size_t out) {
    pvera_layer layer = {.struct_size = sizeof layer, .name = name, .in_features = in / ranks, .out_features = out,
                         .in_offset = rank * (in / ranks), .in_total = in};
    return layer;
}
pvera_layer by_column(const char *name, size_t rank, size_t ranks, size_t in, size_t out) {
    pvera_layer layer = {.struct_size = sizeof layer, .name = name, .in_features = in, .out_features = out / ranks,
                         .out_offset = rank * (out / ranks), .out_total = out};
    return layer;
}
pvera_error *row_parallel(pvera_context *context, const pvera_linear *linear, const pvera_matrix *x, const pvera_rows *rows,
                          const pvera_noise *noise, float *p, const pvera_matrix_mut *y) {
    size_t width = 0;
    pvera_error *error = pvera_project_width(linear, rows, &width);
    if (error) return error;
    pvera_matrix_mut partial = {p, x->rows, width, width, PVERA_F32, {0, 0}};
    pvera_matrix whole = {p, x->rows, width, width, PVERA_F32, {0, 0}};
    if ((error = pvera_project(context, linear, x, rows, noise, &partial))) return error;
    all_reduce_sum(p, x->rows * width);
    return pvera_expand(context, linear, &whole, rows, noise, y);
}
