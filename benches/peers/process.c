/* What is measured from a process without Python: its cold start, and the cost of a call on a tiny layer.
 *
 *     process start CHECKPOINT WEIGHT WIDTH    loads a PEFT checkpoint, runs blocks.0.q on one row, prints 4 outputs,
 *                                              then waits until its input ends
 *     process call SIZE RANK REPEATS           prints nanoseconds a call on a SIZE x SIZE layer, one measurement a line
 */
#define _POSIX_C_SOURCE 199309L
#include <math.h>
#include <pvera.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { CALLS = 20000 };

static void check(pvera_error *error) {
    if (error) {
        fprintf(stderr, "%s\n", pvera_error_message(error));
        exit(1);
    }
}

static float *floats(size_t count) {
    float *values = malloc(count * sizeof *values);
    if (!values) {
        fprintf(stderr, "no memory for %zu floats\n", count);
        exit(1);
    }
    return values;
}

/* The row that both sides start with. */
static void fill(float *values, size_t count) {
    for (size_t i = 0; i < count; i++)
        values[i] = sinf((float)i);
}

static int start(const char *checkpoint, const char *weight_path, size_t width) {
    float *weight = floats(width * width), *x = floats(width), *y = floats(width);
    FILE *file = fopen(weight_path, "rb");
    if (!file || fread(weight, sizeof *weight, width * width, file) != width * width) {
        fprintf(stderr, "%s does not hold %zu floats\n", weight_path, width * width);
        return 1;
    }
    fclose(file);
    fill(x, width);

    pvera_model *model;
    pvera_adapter *adapter;
    pvera_linear *linear;
    pvera_context *context;
    pvera_adapter_options options = {.struct_size = sizeof options, .ignore_undeclared = 1};
    pvera_layer layer = {.struct_size = sizeof layer, .name = "blocks.0.q", .in_features = width,
                         .out_features = width, .weight = pvera_f32(weight, width, width)};
    check(pvera_model_new(NULL, &model));
    check(pvera_model_declare(model, &layer, NULL));
    check(pvera_adapter_load(model, checkpoint, &options, &adapter));
    check(pvera_adapter_linear(adapter, 0, &linear));
    check(pvera_context_new(NULL, &context));
    pvera_matrix input = pvera_f32(x, 1, width);
    pvera_matrix_mut output = pvera_f32_mut(y, 1, width);
    check(pvera_forward(context, linear, &input, NULL, NULL, NULL, &output));
    printf("%.9g %.9g %.9g %.9g\n", y[0], y[1], y[2], y[3]);
    fflush(stdout);
    while (getchar() != EOF) {
    }
    pvera_linear_free(linear);
    pvera_adapter_free(adapter);
    pvera_model_free(model);
    pvera_context_free(context);
    free(weight);
    free(x);
    free(y);
    return 0;
}

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return 1e9 * (double)time.tv_sec + (double)time.tv_nsec;
}

static int call(size_t size, size_t rank, int repeats) {
    float *weight = floats(size * size), *vectors = floats(size + 2 * rank), *x = floats(size), *y = floats(size);
    fill(weight, size * size);
    fill(vectors, size + 2 * rank);
    fill(x, size);
    pvera_store *store;
    pvera_linear *linear;
    pvera_context *context;
    pvera_store_options drawn = {.struct_size = sizeof drawn, .rank = rank, .in_max = size, .out_max = size};
    pvera_layer layer = {.struct_size = sizeof layer, .name = "q", .in_features = size, .out_features = size,
                         .weight = pvera_f32(weight, size, size)};
    pvera_linear_vectors lent = {.struct_size = sizeof lent, .lambda_b = vectors, .lambda_d = vectors + size};
    check(pvera_store_from_key(0, &drawn, &store));
    check(pvera_linear_new(&layer, store, NULL, &lent, &linear));
    check(pvera_context_new(NULL, &context));
    pvera_matrix input = pvera_f32(x, 1, size);
    pvera_matrix_mut output = pvera_f32_mut(y, 1, size);
    for (int repeat = 0; repeat < repeats; repeat++) {
        double begun = now();
        for (int i = 0; i < CALLS; i++)
            check(pvera_forward(context, linear, &input, NULL, NULL, NULL, &output));
        printf("%.3f\n", (now() - begun) / CALLS);
    }
    pvera_linear_free(linear);
    pvera_store_free(store);
    pvera_context_free(context);
    free(weight);
    free(vectors);
    free(x);
    free(y);
    return 0;
}

int main(int count, char **arguments) {
    if (count == 5 && strcmp(arguments[1], "start") == 0)
        return start(arguments[2], arguments[3], strtoul(arguments[4], NULL, 10));
    if (count == 5 && strcmp(arguments[1], "call") == 0)
        return call(strtoul(arguments[2], NULL, 10), strtoul(arguments[3], NULL, 10), atoi(arguments[4]));
    fprintf(stderr, "usage: process start CHECKPOINT WEIGHT WIDTH | process call SIZE RANK REPEATS\n");
    return 2;
}
