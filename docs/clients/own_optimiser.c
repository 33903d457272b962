/* Training with the caller's optimiser and parameter memory.
 * Why: a trainable adapter borrows one flat float array; ranges say where each layer's vectors lie; gradients go to any pointer,
 * so the same layout serves parameters, gradients, moments and one all-reduce for data parallelism. */
#include "pvera_sketch.h"

void all_reduce_sum(float *values, size_t count);

pvera_error *train_step(pvera_context *context, pvera_adapter *adapter, size_t layer, pvera_tape *tape, uint32_t step,
                        const pvera_matrix *x, const pvera_matrix *dy, const pvera_matrix_mut *y, const pvera_matrix_mut *dx,
                        float *parameters, float *gradients, float *first, float *second, size_t count) {
    pvera_linear *linear = NULL; /* reads `parameters`, where they lie now */
    pvera_parameter_range at;
    double kl = 0;
    pvera_rows rows = {.struct_size = sizeof rows, .sample_base = step};
    pvera_noise noise = {.struct_size = sizeof noise, .seed = 7};
    pvera_adamw adamw = {.struct_size = sizeof adamw, .learning_rate = 1e-3f};
    pvera_error *error = pvera_adapter_linear(adapter, layer, &linear);
    if (!error) error = pvera_adapter_range(adapter, layer, &at);
    if (!error) error = pvera_forward(context, linear, x, &rows, &noise, tape, y);
    if (!error) {
        pvera_slot_gradients own = {0, gradients + at.lambda_b, gradients + at.lambda_d, NULL};
        pvera_gradients wanted = {.struct_size = sizeof wanted, .slots = &own, .slot_count = 1, .kl_weight = 1e-6, .kl_value = &kl};
        error = pvera_backward(context, tape, dy, &wanted, dx);
    }
    if (!error) {
        all_reduce_sum(gradients, count);
        error = pvera_adamw_step(&adamw, step + 1, count, parameters, gradients, first, second);
    }
    pvera_linear_free(linear);
    return error;
}

pvera_error *adopt(const pvera_adapter *created, float *memory, size_t count, pvera_adapter **adapter) {
    return pvera_adapter_trainable(created, memory, count, adapter); /* copies today's values in, then borrows */
}
