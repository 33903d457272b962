/* A CUDA graph replayed with a new seed.
 * Why: host scalars are baked in at capture; seed_at, slot, identity and sample are pointers, read by the kernels when they
 * run. A bad slot in device memory cannot return an error: a sticky flag does, read by pvera_context_check. */
#include <pvera.h>

void begin_capture(void *stream);
void *end_capture(void *stream);
void launch(void *graph, void *stream);
void destroy(void *graph);
void copy_to_device(void *to, const void *from, size_t size, void *stream);

/* Where the captured kernels read what changes from replay to replay; all in device memory. */
struct device_inputs {
    uint64_t *seed;
    const int32_t *slot;
    const uint64_t *identity;
    const uint32_t *sample;
};

pvera_error *generate(const pvera_context *context, void *stream, const pvera_linear *linear, const pvera_matrix *x,
                      const pvera_matrix_mut *y, const struct device_inputs *device) {
    pvera_rows rows = {.struct_size = sizeof rows, .slot = device->slot, .device = {PVERA_DEVICE_CUDA, 0}};
    pvera_noise noise = {.struct_size = sizeof noise, .mode = PVERA_MODE_SAMPLE, .seed_at = device->seed};
    rows.identity = device->identity;
    rows.sample = device->sample;
    /* Once outside of a capture, so that all memory is there. */
    pvera_error *error = pvera_forward(context, linear, x, &rows, &noise, NULL, y);
    if (error) return error;
    begin_capture(stream);
    error = pvera_forward(context, linear, x, &rows, &noise, NULL, y);
    void *graph = end_capture(stream);
    for (uint64_t seed = 0; !error && seed < 8; ++seed) {
        copy_to_device(device->seed, &seed, sizeof seed, stream);
        launch(graph, stream);
        error = pvera_context_check(context);
    }
    destroy(graph);
    return error;
}
