/* The two nodes of a delta; see delta.h. All workers of ggml's pool enter a node at once, each as part ith of nth.
 * ggml's barrier between the nodes is the only one: p must be whole before the latent step. */
#include "delta.h"

static pvera_dtype dtype_of(const struct ggml_tensor *tensor) {
    switch (tensor->type) {
    case GGML_TYPE_F16: return PVERA_F16;
    case GGML_TYPE_BF16: return PVERA_BF16;
    default: GGML_ASSERT(tensor->type == GGML_TYPE_F32); return PVERA_F32;
    }
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

pvera_error *delta_add(struct ggml_context *graph, struct delta *delta, struct ggml_tensor *x, struct ggml_tensor *base,
                       struct ggml_tensor **y) {
    size_t width = 0;
    pvera_error *error = pvera_project_width(delta->linear, delta->rows, (size_t)x->ne[1], &width, NULL);
    if (error) return error;
    struct ggml_tensor *p = ggml_custom_4d(graph, GGML_TYPE_F32, (int64_t)width, x->ne[1], 1, 1, &x, 1, project_node,
                                           GGML_N_TASKS_MAX, delta);
    *y = ggml_custom_inplace(graph, base, &p, 1, expand_node, GGML_N_TASKS_MAX, delta);
    return NULL;
}

pvera_error *delta_take_error(struct delta *delta) { return atomic_exchange(&delta->error, NULL); }
