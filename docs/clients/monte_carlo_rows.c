/* Whole-network Monte Carlo: S passes are just S times as many rows; row s*n+i has identity i and sample s.
 * Why: identity and sample are per-row arrays, so every layer draws its own noise and a batch split changes nothing. */
#include "pvera_sketch.h"

pvera_error *network(pvera_context *, const pvera_snapshot *, const pvera_rows *, const pvera_noise *, float *logits);

pvera_error *predict(pvera_context *context, const pvera_snapshot *snapshot, size_t n, uint32_t samples, size_t classes,
                     uint64_t *identity, uint32_t *sample, float *logits, double *lower, double *upper) {
    for (uint32_t s = 0; s < samples; ++s)
        for (size_t i = 0; i < n; ++i) identity[s * n + i] = i, sample[s * n + i] = s;
    pvera_rows rows = {.struct_size = sizeof rows, .identity = identity, .sample = sample};
    pvera_noise noise = {.struct_size = sizeof noise, .mode = 2, .seed = 1};
    pvera_error *error = network(context, snapshot, &rows, &noise, logits);
    pvera_statistics *statistics = NULL;
    if (!error) error = pvera_statistics_new(n, classes, &statistics);
    for (uint32_t s = 0; !error && s < samples; ++s) {
        pvera_matrix pass = {logits + s * n * classes, n, classes, classes, PVERA_F32, {0, 0}};
        error = pvera_statistics_add(statistics, &pass);
    }
    if (!error) error = pvera_statistics_mean_interval(statistics, 0.95, lower, upper);
    pvera_statistics_free(statistics);
    return error;
}
