/* What projections on the int8 grid cost in accuracy, and what they save.
 *
 * Trains the adapter of the digits example for several keys, each with A and B drawn as PEFT draws them and with the
 * same draw on the int8 grid, and prints how well each reads the test digits; with `cost`, also how long rows of a wide
 * layer take with either.
 *
 *     grid DATA_DIR [cost]
 *
 * The exit status is 1 if the grid reads worse by more than keys differ among themselves.
 */
#define _POSIX_C_SOURCE 200809L /* clock_gettime */
#include <math.h>
#include <pvera.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "belief.h"
#include "support.h"
#include "training.h"

enum { KEYS = 5 };

/* ---- Accuracy on the digits ---- */

typedef struct reading {
    score mean, draws;
} reading;

/* The test digits, read by the mean forward and by DRAWS draws. */
static reading reading_of(network *net, const images *test, uint64_t seed) {
    double *probabilities = allocate(test->count * CLASSES, sizeof *probabilities);
    pvera_noise noise = noise_of(PVERA_MODE_MEAN, 0);
    probabilities_of(net, test, NULL, &noise, probabilities);
    belief b = belief_of(net, test, seed);
    reading r = {score_of(probabilities, test), score_of(b.mean, test)};
    belief_free(&b);
    free(probabilities);
    return r;
}

static reading trained(const pvera_context *context, const base_weights *base, const images *shifted,
                       const recipe *how) {
    images training = images_of_part(shifted, TRAINING), validation = images_of_part(shifted, VALIDATION);
    images test = images_of_part(shifted, TESTING);
    pvera_model *model = model_new(base);
    pvera_adapter *adapter = train(context, base, model, &training, &validation, how);
    network net = network_new(context, base, PASSES_AT_A_TIME * test.count);
    pvera_linear *linear[LAYERS];
    for (size_t i = 0; i < LAYERS; i++) {
        check(pvera_adapter_linear(adapter, i, &linear[i]));
        net.linear[i] = linear[i];
    }
    reading r = reading_of(&net, &test, how->seed);
    for (size_t i = 0; i < LAYERS; i++) pvera_linear_free(linear[i]);
    network_free(&net);
    pvera_adapter_free(adapter);
    pvera_model_free(model);
    images_free(&training);
    images_free(&validation);
    images_free(&test);
    return r;
}

static void print_reading(const char *key, const reading *drawn, const reading *grid) {
    printf("  %-9s %.3f   %.3f   %.3f        %.3f   %.3f   %.3f\n", key, drawn->mean.accuracy, drawn->draws.accuracy,
           drawn->draws.calibration_error, grid->mean.accuracy, grid->draws.accuracy, grid->draws.calibration_error);
}

static reading mean_of_keys(const reading of[KEYS]) {
    reading m = {0};
    for (size_t key = 0; key < KEYS; key++) {
        m.mean.accuracy += of[key].mean.accuracy / KEYS;
        m.draws.accuracy += of[key].draws.accuracy / KEYS;
        m.draws.calibration_error += of[key].draws.calibration_error / KEYS;
    }
    return m;
}

/* The standard deviation of the mean over keys, of the accuracy of draws. */
static double error_of_mean(const reading of[KEYS]) {
    double squares = 0.0, mean = mean_of_keys(of).draws.accuracy;
    for (size_t key = 0; key < KEYS; key++) squares += pow(of[key].draws.accuracy - mean, 2.0);
    return sqrt(squares / (KEYS - 1) / KEYS);
}

static void report_accuracy(const pvera_context *context, const char *data) {
    base_weights base = base_read(data);
    images all = images_read(data), shifted = images_changed(&all, transposed);
    reading drawn[KEYS], grid[KEYS];
    printf("Transposed test digits: accuracy of the mean forward, of %d draws, calibration error of the draws\n", DRAWS);
    printf("            A and B as PEFT draws them     on the int8 grid\n");
    for (uint64_t key = 0; key < KEYS; key++) {
        recipe how = {.seed = key + 1, .grid = PVERA_GRID_NONE, .silent = true};
        drawn[key] = trained(context, &base, &shifted, &how);
        how.grid = PVERA_GRID_INT8;
        grid[key] = trained(context, &base, &shifted, &how);
        char name[16];
        snprintf(name, sizeof name, "key %d", (int)how.seed);
        print_reading(name, &drawn[key], &grid[key]);
        fflush(stdout);
    }
    reading mean_drawn = mean_of_keys(drawn), mean_grid = mean_of_keys(grid);
    print_reading("mean", &mean_drawn, &mean_grid);
    double error = hypot(error_of_mean(drawn), error_of_mean(grid));
    printf("  The draws' accuracy differs by %+.4f; means of %d keys differ by %.4f (a standard deviation) anyhow.\n",
           mean_grid.draws.accuracy - mean_drawn.draws.accuracy, KEYS, error);
    require(mean_grid.draws.accuracy >= mean_drawn.draws.accuracy - 3.0 * error, "the grid reads as well");
    images_free(&all);
    images_free(&shifted);
    base_free(&base);
}

/* ---- Cost in a wide layer ---- */

enum { WIDTH = 4096, WIDE_RANK = 256, CALLS = 200, ROUNDS = 5 };

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec * 1e-3;
}

typedef struct cost {
    double mebibytes, microseconds;
} cost;

/* A mean forward of `rows` rows through a layer without a base, as an engine that has its own adds the delta. */
static cost cost_of(const pvera_context *context, int32_t grid, size_t rows) {
    pvera_model *model;
    check(pvera_model_new(NULL, &model));
    pvera_layer layer = {.struct_size = sizeof layer, .name = "wide", .in_features = WIDTH, .out_features = WIDTH};
    check(pvera_model_declare(model, &layer, NULL));
    pvera_store_options options = {.struct_size = sizeof options, .rank = WIDE_RANK, .in_max = WIDTH,
                                   .out_max = WIDTH, .grid = grid};
    pvera_store *store;
    check(pvera_store_from_key(1, &options, &store));
    check(pvera_store_pack(store, PVERA_PACK_FORWARD));
    pvera_config *config;
    check(pvera_config_new(&config));
    check(pvera_config_set_int(config, "r", WIDE_RANK));
    check(pvera_config_set_int(config, "projection_prng_key", 1));
    check(pvera_config_set_json(config, "target_modules", "[\"wide\"]"));
    pvera_adapter *adapter;
    check(pvera_adapter_new(model, config, store, NULL, &adapter));
    pvera_linear *linear;
    check(pvera_adapter_linear(adapter, 0, &linear));

    size_t bytes;
    check(pvera_store_packed_bytes(store, PVERA_PACK_FORWARD, &bytes));
    cost c = {.mebibytes = (double)bytes / (1 << 20), .microseconds = INFINITY};
    float *x = allocate(rows * WIDTH, sizeof *x), *y = allocate(rows * WIDTH, sizeof *y);
    for (size_t i = 0; i < rows * WIDTH; i++) x[i] = sinf((float)i);
    pvera_matrix in = pvera_f32(x, rows, WIDTH);
    pvera_matrix_mut out = pvera_f32_mut(y, rows, WIDTH);
    pvera_noise noise = noise_of(PVERA_MODE_MEAN, 0);
    for (int round = 0; round < ROUNDS; round++) {
        double start = now();
        for (int call = 0; call < CALLS; call++) check(pvera_forward(context, linear, &in, NULL, &noise, NULL, &out));
        double took = (now() - start) / CALLS;
        if (took < c.microseconds) c.microseconds = took;
    }
    free(x);
    free(y);
    pvera_linear_free(linear);
    pvera_adapter_free(adapter);
    pvera_config_free(config);
    pvera_store_free(store);
    pvera_model_free(model);
    return c;
}

static void report_cost(const pvera_context *context) {
    printf("\nA layer of %d inputs and outputs, rank %d, packed: what A and B take, and a mean forward of the delta\n",
           WIDTH, WIDE_RANK);
    printf("              as PEFT draws them            on the int8 grid\n");
    static const size_t ROWS[] = {1, 4, 16, 64};
    for (size_t i = 0; i < sizeof ROWS / sizeof *ROWS; i++) {
        cost drawn = cost_of(context, PVERA_GRID_NONE, ROWS[i]), grid = cost_of(context, PVERA_GRID_INT8, ROWS[i]);
        printf("  %3zu %s    %5.1f MiB %8.0f us          %5.1f MiB %8.0f us\n", ROWS[i], ROWS[i] == 1 ? "row " : "rows",
               drawn.mebibytes, drawn.microseconds, grid.mebibytes, grid.microseconds);
    }
}

int main(int argc, char **argv) {
    bool with_cost = argc == 3 && strcmp(argv[2], "cost") == 0;
    if (argc != 2 && !with_cost) fail("usage: grid DATA_DIR [cost]");
    pvera_context_options options = {.struct_size = sizeof options};
    pvera_context *context;
    check(pvera_context_new(&options, &context));
    report_accuracy(context, argv[1]);
    if (with_cost) report_cost(context);
    pvera_context_free(context);
    return failures() == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
