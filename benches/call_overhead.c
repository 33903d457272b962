/* What a call costs beside its arithmetic: ns per call on a 16×16 layer of rank 4, one row, best of many rounds.
 *
 *     cargo build --release --lib
 *     cc -O2 -I include benches/call_overhead.c -o target/call_overhead target/release/libpvera.so -Wl,-rpath,$PWD/target/release
 *     target/call_overhead
 */
#define _POSIX_C_SOURCE 200809L
#include <pvera.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { SIZE = 16, RANK = 4, ROUNDS = 200, CALLS = 1000 };

static void must(pvera_error *error) {
    if (!error) return;
    fprintf(stderr, "%s\n", pvera_error_message(error));
    exit(1);
}

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return 1e9 * (double)time.tv_sec + (double)time.tv_nsec;
}

/* The quietest round counts: others share the machine. */
#define MEASURE(what, call) \
    do { \
        double best = 1e30; \
        for (int round = 0; round < ROUNDS; ++round) { \
            double start = now(); \
            for (int i = 0; i < CALLS; ++i) must(call); \
            double each = (now() - start) / CALLS; \
            if (each < best) best = each; \
        } \
        printf("%-32s %8.1f ns\n", what, best); \
    } while (0)

int main(void) {
    static float weight[SIZE * SIZE], x[SIZE], dy[SIZE], dx[SIZE], y[4][SIZE], p[2 * RANK], lambda_b[SIZE], lambda_d[2 * RANK];
    for (int i = 0; i < SIZE * SIZE; ++i) weight[i] = (float)(i % 7 - 3) / 8;
    for (int i = 0; i < SIZE; ++i) x[i] = (float)i / SIZE, dy[i] = 1 - x[i];
    pvera_model *model;
    pvera_config *config;
    pvera_adapter *adapter;
    pvera_context *context;
    must(pvera_model_new(NULL, &model));
    const char *names[3] = {"model.layers.11.self_attn.q_proj", "model.layers.11.self_attn.k_proj",
                            "model.layers.11.self_attn.v_proj"};
    pvera_linear *own[3];
    for (int i = 0; i < 3; ++i) {
        pvera_layer layer = {.struct_size = sizeof layer, .name = names[i], .in_features = SIZE, .out_features = SIZE};
        layer.weight = pvera_f32(weight, SIZE, SIZE);
        must(pvera_model_declare(model, &layer, NULL));
    }
    must(pvera_config_new(&config));
    must(pvera_config_set_int(config, "r", RANK));
    must(pvera_config_set_json(config, "target_modules", "[\"q_proj\", \"k_proj\", \"v_proj\"]"));
    must(pvera_adapter_new(model, config, NULL, NULL, &adapter));
    for (size_t i = 0; i < 3; ++i) must(pvera_adapter_linear(adapter, i, &own[i]));
    must(pvera_context_new(NULL, &context));
    const pvera_linear *group[3] = {own[0], own[1], own[2]};
    pvera_matrix input = pvera_f32(x, 1, SIZE), gradient = pvera_f32(dy, 1, SIZE), projected = pvera_f32(p, 1, 2 * RANK);
    pvera_matrix_mut output[3], draws = pvera_f32_mut(y[0], 4, SIZE), dx_out = pvera_f32_mut(dx, 1, SIZE);
    pvera_matrix_mut p_out = pvera_f32_mut(p, 1, 2 * RANK);
    for (int i = 0; i < 3; ++i) output[i] = pvera_f32_mut(y[i], 1, SIZE);
    pvera_noise mean = {.struct_size = sizeof mean, .mode = PVERA_MODE_MEAN};
    pvera_noise sample = {.struct_size = sizeof sample, .mode = PVERA_MODE_SAMPLE, .seed = 7};
    pvera_active active[1] = {{0, 1}};
    int32_t slots[1] = {0};
    pvera_rows summed = {.struct_size = sizeof summed, .active = active, .active_count = 1};
    pvera_rows each = {.struct_size = sizeof each, .slot = slots};
    pvera_tape *tape;
    must(pvera_tape_new(PVERA_TAPE_KEEP_LATENT, NULL, &tape));
    pvera_slot_gradients slot = {0, lambda_b, lambda_d, NULL};
    pvera_gradients wanted = {.struct_size = sizeof wanted, .overwrite = PVERA_OVERWRITE_ALL, .slots = &slot, .slot_count = 1};

    MEASURE("forward, mean", pvera_forward(context, own[0], &input, NULL, &mean, NULL, &output[0]));
    MEASURE("forward, sampled", pvera_forward(context, own[0], &input, NULL, &sample, NULL, &output[0]));
    MEASURE("forward, active list", pvera_forward(context, own[0], &input, &summed, &mean, NULL, &output[0]));
    MEASURE("forward, slot per row", pvera_forward(context, own[0], &input, &each, &mean, NULL, &output[0]));
    MEASURE("forward_group of 3, mean", pvera_forward_group(context, 3, group, &input, NULL, &mean, NULL, output));
    MEASURE("sample, 4 draws", pvera_sample(context, own[0], &input, NULL, &sample, 4, &draws));
    MEASURE("project, mean", pvera_project(context, own[0], &input, NULL, &mean, &p_out));
    MEASURE("expand, mean", pvera_expand(context, own[0], &projected, NULL, &mean, &output[0]));
    MEASURE("forward with a tape, sampled", pvera_forward(context, own[0], &input, NULL, &sample, tape, &output[0]));
    MEASURE("backward", pvera_backward(context, tape, &gradient, &wanted, &dx_out));

    pvera_tape_free(tape);
    for (int i = 0; i < 3; ++i) pvera_linear_free(own[i]);
    pvera_adapter_free(adapter);
    pvera_config_free(config);
    pvera_model_free(model);
    pvera_context_free(context);
    return 0;
}
