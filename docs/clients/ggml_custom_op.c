/* A ggml custom op is entered by every worker of ggml's pool with (ith, nth) and must start no threads and hold no barrier.
 * Why: project and expand come as parts; two nodes of the graph are the barrier between them; one context serves all workers. */
#include <stdlib.h>
#include "pvera_sketch.h"

struct node { pvera_context *context; const pvera_linear *linear; pvera_rows rows; pvera_matrix x, p; pvera_matrix_mut p_out, y; };

static void must(pvera_error *error) { if (error) abort(); /* the engine's own policy */ }

void project_op(void *user, int ith, int nth) {
    struct node *node = user;
    must(pvera_project_part(node->context, node->linear, &node->x, &node->rows, NULL, &node->p_out, (size_t)ith, (size_t)nth));
}
void expand_op(void *user, int ith, int nth) {
    struct node *node = user;
    must(pvera_expand_part(node->context, node->linear, &node->p, &node->rows, NULL, &node->y, (size_t)ith, (size_t)nth));
}
