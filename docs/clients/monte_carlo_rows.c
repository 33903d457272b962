/* Whole-network Monte Carlo: S passes are just S times as many rows; row s·n + i has identity i and sample s.
 * Why: identity and sample are per-row arrays, so every layer draws its own noise and a batch split changes nothing. */
#include <pvera.h>

pvera_error *network(const pvera_context *context, const pvera_snapshot *snapshot, const pvera_rows *rows,
                     const pvera_noise *noise, float *logits);

/* identity and sample have room for samples·n, logits for samples·n·classes, lower and upper for n·classes. */
pvera_error *predict(const pvera_context *context, const pvera_snapshot *snapshot, size_t n, uint32_t samples,
                     size_t classes, uint64_t *identity, uint32_t *sample, float *logits, double *lower, double *upper) {
    for (uint32_t s = 0; s < samples; ++s) {
        for (size_t i = 0; i < n; ++i) {
            identity[s * n + i] = i;
            sample[s * n + i] = s;
        }
    }
    pvera_rows rows = {.struct_size = sizeof rows, .identity = identity, .sample = sample};
    pvera_noise noise = {.struct_size = sizeof noise, .mode = PVERA_MODE_SAMPLE, .seed = 1};
    pvera_statistics *statistics = NULL;
    pvera_error *error = network(context, snapshot, &rows, &noise, logits);
    if (!error) error = pvera_statistics_new(n, classes, NULL, &statistics);
    for (uint32_t s = 0; !error && s < samples; ++s) {
        pvera_matrix pass = pvera_f32(logits + s * n * classes, n, classes);
        error = pvera_statistics_add(statistics, &pass);
    }
    if (!error) error = pvera_statistics_mean_interval(statistics, 0.95, n * classes, lower, upper);
    pvera_statistics_free(statistics);
    return error;
}
