/* A Go server, seen from cgo: many goroutines on any OS thread, requests for different adapters in one batch, cancellation.
 * Why: errors are owned objects, nothing is thread-local; a slot per row batches many tenants; one const context serves all
 * goroutines; no callback is needed on the hot path (a callback into Go is slow). Progress that returns non-zero cancels a
 * long load. */
#include <pvera.h>

struct request {
    const char *tenant; /* NULL: the base model alone */
    uint64_t conversation;
};

/* One layer for a batch; slot and identity have room for n. */
pvera_error *serve(const pvera_model *model, const pvera_context *context, const struct request *requests, size_t n,
                   int32_t *slot, uint64_t *identity, const pvera_matrix *x, const pvera_matrix_mut *y) {
    pvera_snapshot *snapshot = NULL;
    const pvera_linear *linear = NULL;
    pvera_error *error = pvera_model_snapshot(model, &snapshot);
    for (size_t i = 0; !error && i < n; ++i) {
        identity[i] = requests[i].conversation;
        slot[i] = -1;
        if (requests[i].tenant) error = pvera_snapshot_slot(snapshot, requests[i].tenant, &slot[i]);
    }
    pvera_rows rows = {.struct_size = sizeof rows, .slot = slot, .identity = identity};
    if (!error) error = pvera_snapshot_linear(snapshot, 0, &linear);
    if (!error) error = pvera_forward(context, linear, x, &rows, NULL, NULL, y);
    pvera_snapshot_free(snapshot);
    return error;
}

/* Loading is long work: the flag is set by another goroutine when the request's context is cancelled. */
static int32_t cancelled(void *user, const char *stage, uint64_t done, uint64_t total) {
    (void)stage, (void)done, (void)total;
    return *(const volatile int32_t *)user;
}

pvera_error *new_model(const volatile int32_t *flag, pvera_model **model) {
    pvera_model_options options = {.struct_size = sizeof options};
    options.callbacks.progress = cancelled;
    options.callbacks.user = (void *)flag;
    return pvera_model_new(&options, model);
}
