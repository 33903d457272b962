/* An adapter is replaced while a pass over 32 layers runs.
 * Why: a pass holds a snapshot, which lends its linears; replace publishes a new one and never waits; the old vectors go
 * with their last reader. A name keeps its slot across replace, so slots kept by the engine (in a scheduler, in a captured
 * graph) stay right. */
#include <pvera.h>

pvera_error *run_layer(const pvera_context *context, const pvera_linear *linear, size_t layer);

pvera_error *pass(const pvera_model *model, const pvera_context *context) {
    pvera_snapshot *snapshot = NULL;
    pvera_error *error = pvera_model_snapshot(model, &snapshot);
    for (size_t layer = 0; !error && layer < 32; ++layer) {
        const pvera_linear *linear = NULL; /* belongs to the snapshot */
        error = pvera_snapshot_linear(snapshot, layer, &linear);
        if (!error) error = run_layer(context, linear, layer);
    }
    pvera_snapshot_free(snapshot);
    return error;
}

/* On another thread; the model is const, so that publishing needs no lock of the host's. */
pvera_error *swap(const pvera_model *model, const char *folder) {
    pvera_adapter *fresh = NULL;
    pvera_error *error = pvera_adapter_load(model, folder, NULL, &fresh);
    if (!error) error = pvera_model_replace(model, "support", fresh, NULL);
    pvera_adapter_free(fresh); /* the model holds its own reference */
    return error;
}
