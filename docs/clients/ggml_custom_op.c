/* A ggml custom op is entered by every worker of ggml's pool with (ith, nth) and must start no threads and hold no barrier.
 * Why: project and expand come as parts; two nodes of the graph are the barrier between them; one const context serves all
 * workers. An op cannot return an error, so the node keeps the first one. */
#include <pvera.h>
#include <stdatomic.h>

struct node {
    const pvera_context *context;
    const pvera_linear *linear;
    pvera_rows rows;
    pvera_matrix x, p;
    pvera_matrix_mut p_out, y;
    _Atomic(pvera_error *) error; /* taken and freed by the engine after the graph ran */
};

static void keep_first(struct node *node, pvera_error *error) {
    pvera_error *none = NULL;
    if (error && !atomic_compare_exchange_strong(&node->error, &none, error)) pvera_error_free(error);
}

void project_op(void *user, int ith, int nth) {
    struct node *node = user;
    keep_first(node, pvera_project_part(node->context, node->linear, &node->x, &node->rows, NULL, &node->p_out, (size_t)ith,
                                        (size_t)nth));
}

void expand_op(void *user, int ith, int nth) {
    struct node *node = user;
    if (atomic_load(&node->error)) return; /* p is not whole */
    keep_first(node, pvera_expand_part(node->context, node->linear, &node->p, &node->rows, NULL, &node->y, (size_t)ith,
                                       (size_t)nth));
}

/* When the graph is built: how large the node between the two must be. */
pvera_error *p_size(const struct node *node, size_t n, size_t *width) {
    return pvera_project_width(node->linear, &node->rows, n, width, NULL);
}
