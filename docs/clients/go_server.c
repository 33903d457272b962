/* A Go server, seen from cgo: many goroutines on any OS thread, requests for different adapters in one batch, cancellation.
 * Why: errors are owned objects, nothing is thread-local; slots per row batch many tenants; a context is cheap and one per worker;
 * progress returning non-zero cancels; no callback is needed on the hot path (a callback into Go is slow). */
#include "pvera_sketch.h"

struct request { const char *tenant; const float *x; uint64_t conversation; };

pvera_error *serve(const pvera_model *model, pvera_context *context, const struct request *requests, size_t n, int32_t *slot,
                   uint64_t *identity, const pvera_matrix *x, const pvera_matrix_mut *y) {
    pvera_snapshot *snapshot = NULL;
    const pvera_linear *linear = NULL;
    pvera_error *error = pvera_model_snapshot(model, &snapshot);
    for (size_t i = 0; !error && i < n; ++i) {
        identity[i] = requests[i].conversation;
        error = pvera_snapshot_slot(snapshot, requests[i].tenant, &slot[i]);
    }
    pvera_rows rows = {.struct_size = sizeof rows, .slot = slot, .identity = identity};
    if (!error) error = pvera_snapshot_linear(snapshot, 0, &linear);
    if (!error) error = pvera_forward(context, linear, x, &rows, NULL, NULL, y);
    pvera_snapshot_free(snapshot);
    return error;
}
