/* Adapters made of seeds; see adapted.h. */
#include "adapted.h"

#include <math.h>
#include <stdlib.h>

#include "support.h"

float *normals(size_t count, uint64_t seed, float scale) {
    float *values = allocate(count, sizeof *values);
    pvera_torch_generator *generator = NULL;
    check(pvera_torch_generator_new(seed, &generator));
    check(pvera_torch_generator_normals(generator, count, values));
    pvera_torch_generator_free(generator);
    for (size_t i = 0; i < count; ++i) values[i] *= scale;
    return values;
}

/* The nearest integers times one scale, the largest being 127: a quantised store. */
static float *on_grid(const pvera_matrix *matrix) {
    const size_t count = matrix->rows * matrix->cols;
    const float *values = matrix->data;
    float *rounded = allocate(count, sizeof *rounded), largest = 0;
    for (size_t i = 0; i < count; ++i) largest = fmaxf(largest, fabsf(values[i]));
    const float scale = largest / 127;
    for (size_t i = 0; i < count; ++i) rounded[i] = roundf(values[i] / scale) * scale;
    return rounded;
}

static pvera_store *quantised(pvera_store *store) {
    pvera_matrix a, b;
    pvera_store *made = NULL;
    check(pvera_store_matrices(store, &a, &b));
    if (a.dtype.bits != 32 || b.dtype.bits != 32) fail("the store of this seed is not in f32");
    float *grid_a = on_grid(&a), *grid_b = on_grid(&b);
    a.data = grid_a, b.data = grid_b;
    check(pvera_store_from_matrices(&a, &b, NULL, &made));
    free(grid_a), free(grid_b), pvera_store_free(store);
    return made;
}

static pvera_store *store_new(size_t in, size_t out, size_t rank, enum store_kind kind) {
    static const size_t bytes[] = {[STORE_F32] = 4, [STORE_BF16] = 2, [STORE_INT8] = 1};
    pvera_store_options options = {.struct_size = sizeof options, .rank = rank, .in_max = in, .out_max = out};
    pvera_store *store = NULL;
    size_t packed = 0;
    if (kind == STORE_BF16) options.base_dtype = PVERA_BF16;
    check(pvera_store_from_key(1, &options, &store));
    if (kind == STORE_INT8) store = quantised(store);
    check(pvera_store_pack(store, PVERA_PACK_FORWARD));
    check(pvera_store_packed_bytes(store, PVERA_PACK_FORWARD, &packed));
    /* Panels are padded, by less than the next wider type would take. */
    if (packed >= 2 * bytes[kind] * rank * (2 * in + out))
        fail("%zu bytes a number were packed in %zu bytes", bytes[kind], packed);
    return store;
}

struct adapted adapted_new(size_t in, size_t out, size_t rank, enum store_kind kind) {
    struct adapted adapted = {.in = in, .out = out, .rank = rank, .store = store_new(in, out, rank, kind)};
    adapted.lambda_b = normals(out, 2, 0.3f);
    adapted.lambda_d = normals(2 * rank, 3, 1);
    const pvera_layer layer = {
        .struct_size = sizeof layer, .name = ADAPTED_NAME, .in_features = in, .out_features = out};
    const pvera_linear_vectors vectors = {
        .struct_size = sizeof vectors, .lambda_b = adapted.lambda_b, .lambda_d = adapted.lambda_d};
    check(pvera_linear_new(&layer, adapted.store, NULL, &vectors, &adapted.linear));
    return adapted;
}

void adapted_free(struct adapted *adapted) {
    pvera_linear_free(adapted->linear);
    pvera_store_free(adapted->store);
    free(adapted->lambda_b), free(adapted->lambda_d);
}
