/* A CUDA graph replayed with a new seed.
 * Why: host scalars are baked in at capture; seed_at, slot, identity and sample are pointers, read by the kernels when they run.
 * A bad slot in device memory cannot return an error: a sticky flag does, read by pvera_context_check. */
#include "pvera_sketch.h"

void begin_capture(void *stream); void end_capture(void *stream, void **graph); void launch(void *graph, void *stream);
void copy_to_device(void *to, const void *from, size_t size, void *stream);

pvera_error *generate(pvera_context *context, void *stream, const pvera_linear *linear, const pvera_matrix *x, const pvera_matrix_mut *y,
                      uint64_t *device_seed, const int32_t *device_slot, const uint64_t *device_identity, const uint32_t *device_sample) {
    void *graph = NULL;
    pvera_rows rows = {.struct_size = sizeof rows, .slot = device_slot, .identity = device_identity, .sample = device_sample};
    pvera_noise noise = {.struct_size = sizeof noise, .mode = 2, .seed_at = device_seed};
    begin_capture(stream);
    pvera_error *error = pvera_forward(context, linear, x, &rows, &noise, NULL, y);
    end_capture(stream, &graph);
    for (uint64_t seed = 0; !error && seed < 8; ++seed) {
        copy_to_device(device_seed, &seed, sizeof seed, stream);
        launch(graph, stream);
    }
    return error ? error : pvera_context_check(context);
}
