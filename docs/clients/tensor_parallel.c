/* Tensor-parallel ranks. By row: each rank holds some of the inputs, p is a partial sum, all-reduced before the exp of the
 * latent step. By column: each rank holds some of the outputs; the noise must be the same on every rank.
 * Why: shards are layers with offsets and totals; noise is keyed by names and identities, never by place. */
#include <pvera.h>

void all_reduce_sum(float *values, size_t count);

pvera_layer by_row(const char *name, size_t rank, size_t ranks, size_t in, size_t out) {
    pvera_layer layer = {.struct_size = sizeof layer, .name = name, .in_features = in / ranks, .out_features = out};
    layer.in_offset = rank * (in / ranks);
    layer.in_total = in;
    return layer;
}

pvera_layer by_column(const char *name, size_t rank, size_t ranks, size_t in, size_t out) {
    pvera_layer layer = {.struct_size = sizeof layer, .name = name, .in_features = in, .out_features = out / ranks};
    layer.out_offset = rank * (out / ranks);
    layer.out_total = out;
    return layer;
}

/* p has room for x->rows · p_width floats; one forward of a layer that is split by row. */
pvera_error *row_parallel(const pvera_context *context, const pvera_linear *linear, const pvera_matrix *x,
                          const pvera_rows *rows, const pvera_noise *noise, float *p, size_t p_width,
                          const pvera_matrix_mut *y) {
    pvera_matrix_mut partial = pvera_f32_mut(p, x->rows, p_width);
    pvera_matrix whole = pvera_f32(p, x->rows, p_width);
    pvera_error *error = pvera_project(context, linear, x, rows, noise, &partial);
    if (error) return error;
    all_reduce_sum(p, x->rows * p_width);
    return pvera_expand(context, linear, &whole, rows, noise, y);
}

/* Before: how wide p is for such rows. */
pvera_error *room(const pvera_linear *linear, const pvera_rows *rows, size_t n, size_t *p_width) {
    return pvera_project_width(linear, rows, n, p_width, NULL);
}
