/* Training with the caller's optimiser and parameter memory.
 * Why: a trainable adapter borrows one flat float array; ranges say where each layer's vectors lie; gradients go to any
 * pointer, so the same layout serves parameters, gradients, moments and one all-reduce for data parallelism. */
#include <pvera.h>

void all_reduce_sum(float *values, size_t count);

/* Four arrays of one layout. */
struct state {
    float *parameters, *gradients, *first_moments, *second_moments;
    size_t count;
};

/* Copies today's values in, then borrows: the adapter reads the parameters where they lie. */
pvera_error *adopt(const pvera_adapter *created, const struct state *state, pvera_adapter **adapter) {
    return pvera_adapter_trainable(created, state->parameters, state->count, adapter);
}

/* linear is pvera_adapter_linear(adapter, layer), made once: it always shows the live parameters. */
pvera_error *train_step(const pvera_context *context, const pvera_adapter *adapter, const pvera_linear *linear, size_t layer,
                        pvera_tape *tape, uint32_t step, const pvera_matrix *x, const pvera_matrix *dy,
                        const pvera_matrix_mut *y, const pvera_matrix_mut *dx, struct state *state) {
    pvera_parameter_range at;
    double kl = 0;
    pvera_rows rows = {.struct_size = sizeof rows, .sample_base = step};
    pvera_noise noise = {.struct_size = sizeof noise, .seed = 7};
    pvera_adamw adamw = pvera_adamw_default();
    pvera_error *error = pvera_adapter_range(adapter, layer, &at);
    if (!error) error = pvera_forward(context, linear, x, &rows, &noise, tape, y);
    /* (Here the rest of the network and its loss make dy.) */
    if (!error) {
        pvera_slot_gradients own = {0, state->gradients + at.lambda_b, state->gradients + at.lambda_d, NULL};
        pvera_gradients wanted = {.struct_size = sizeof wanted, .overwrite = PVERA_OVERWRITE_ALL, .slots = &own};
        wanted.slot_count = 1;
        wanted.kl_weight = 1e-6;
        wanted.kl_value = &kl;
        error = pvera_backward(context, tape, dy, &wanted, dx);
    }
    if (!error) {
        all_reduce_sum(state->gradients, state->count);
        error = pvera_adamw_step(&adamw, step + 1, state->count, state->parameters, state->gradients, state->first_moments,
                                 state->second_moments);
    }
    return error;
}
