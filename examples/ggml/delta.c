/* The two nodes of a delta; see delta.h. All workers of ggml's pool enter a node at once, each as part ith of nth.
 * ggml's barrier between the nodes is the only one: p must be whole before the latent step. */
#include "delta.h"

#include <inttypes.h>
#include <stdio.h>

static pvera_dtype dtype_of(const struct ggml_tensor *tensor) {
    switch (tensor->type) {
    case GGML_TYPE_F16: return PVERA_F16;
    case GGML_TYPE_BF16: return PVERA_BF16;
    default: return PVERA_F32; /* refused: whatever else it is */
    }
}

/* Writes why a tensor is no matrix of pvera's: it has two dimensions, the elements of a row lie side by side, and rows lie at
 * a distance that is counted in elements. */
static bool refused(struct delta *delta, const char *name, const struct ggml_tensor *tensor) {
    const size_t size = ggml_type_size(tensor->type);
    const int64_t *ne = tensor->ne;
    char *said = delta->refused;
    *said = '\0';
    if (tensor->type != GGML_TYPE_F32 && tensor->type != GGML_TYPE_F16 && tensor->type != GGML_TYPE_BF16)
        snprintf(said, sizeof delta->refused, "%s is %s; wanted F32, F16 or BF16", name, ggml_type_name(tensor->type));
    else if (ne[2] != 1 || ne[3] != 1)
        snprintf(said, sizeof delta->refused,
                 "%s is [%" PRId64 ", %" PRId64 ", %" PRId64 ", %" PRId64 "]; wanted two dimensions (ggml_reshape_2d)",
                 name, ne[0], ne[1], ne[2], ne[3]);
    else if (tensor->nb[0] != size || tensor->nb[1] % size != 0)
        snprintf(said, sizeof delta->refused,
                 "%s has elements %zu and rows %zu bytes apart; wanted elements of %zu bytes side by side (ggml_cont)",
                 name, tensor->nb[0], tensor->nb[1], size);
    return *said != '\0';
}

static pvera_matrix_mut matrix_mut_of(struct ggml_tensor *tensor) {
    return (pvera_matrix_mut){.data = tensor->data,
                              .rows = (size_t)tensor->ne[1],
                              .cols = (size_t)tensor->ne[0],
                              .row_stride = tensor->nb[1] / ggml_type_size(tensor->type),
                              .dtype = dtype_of(tensor)};
}

static pvera_matrix matrix_of(struct ggml_tensor *tensor) {
    const pvera_matrix_mut matrix = matrix_mut_of(tensor);
    return (pvera_matrix){matrix.data, matrix.rows, matrix.cols, matrix.row_stride, matrix.dtype, matrix.device};
}

/* Parts fail alike; one error is enough. */
static void keep_first(struct delta *delta, pvera_error *error) {
    pvera_error *none = NULL;
    if (error && !atomic_compare_exchange_strong(&delta->error, &none, error)) pvera_error_free(error);
}

static void project_node(struct ggml_tensor *p, int ith, int nth, void *user) {
    struct delta *delta = user;
    const pvera_matrix x = matrix_of(p->src[0]);
    const pvera_matrix_mut out = matrix_mut_of(p);
    keep_first(delta, pvera_project_part(delta->context, delta->linear, &x, delta->rows, delta->noise, &out,
                                         (size_t)ith, (size_t)nth));
}

static void expand_node(struct ggml_tensor *y, int ith, int nth, void *user) {
    struct delta *delta = user;
    const pvera_matrix p = matrix_of(y->src[1]); /* src[0] is the base, whose memory y is */
    const pvera_matrix_mut out = matrix_mut_of(y);
    if (atomic_load(&delta->error)) return; /* p is not whole */
    keep_first(delta, pvera_expand_part(delta->context, delta->linear, &p, delta->rows, delta->noise, &out, (size_t)ith,
                                        (size_t)nth));
}

struct ggml_tensor *delta_add(struct ggml_context *graph, struct delta *delta, struct ggml_tensor *x, struct ggml_tensor *base) {
    size_t width = 0;
    if (refused(delta, "x", x) || refused(delta, "base", base)) return NULL;
    pvera_error *error = pvera_project_width(delta->linear, delta->rows, (size_t)x->ne[1], &width, NULL);
    if (error) {
        snprintf(delta->refused, sizeof delta->refused, "%s", pvera_error_message(error));
        pvera_error_free(error);
        return NULL;
    }
    struct ggml_tensor *p = ggml_custom_4d(graph, GGML_TYPE_F32, (int64_t)width, x->ne[1], 1, 1, &x, 1, project_node,
                                           GGML_N_TASKS_MAX, delta);
    return ggml_custom_inplace(graph, base, &p, 1, expand_node, GGML_N_TASKS_MAX, delta);
}

pvera_error *delta_take_error(struct delta *delta) { return atomic_exchange(&delta->error, NULL); }
