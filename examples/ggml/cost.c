/* What a PVeRA delta costs beside the Q4_0 product that it is added to: medians over interleaved rounds.
 *
 *     ggml_cost [ROUNDS]
 *
 * hot:     one layer, run just before;
 * cold:    one layer, after as many bytes as its base has were read elsewhere;
 * network: one of 16 layers in a graph, each with a base of its own, all with one store: a decoder's step. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "adapted.h"
#include "delta.h"
#include "engine.h"
#include "support.h"

enum { WIDTH = 4096, RANK = 256, LAYERS = 16, STORES = 3, CASES = STORES + 1, STATES = 3, MOST_ROUNDS = 1000 };

static const char *const state_names[STATES] = {"hot", "cold", "network"};

/* The base alone (case 0) or with the delta of a store, as one layer and as a network. */
struct subject {
    struct graph layer, network;
    struct delta delta[LAYERS];
};

static struct ggml_tensor *add_layer(struct graph *graph, struct delta *delta, const struct weight *weight,
                                     struct ggml_tensor *x) {
    struct ggml_tensor *y = ggml_mul_mat(graph->context, weight->tensor, x);
    if (delta->linear != NULL) y = delta_add(graph->context, delta, x, y);
    if (y == NULL) fail("%s", delta->refused);
    return y;
}

static void subject_new(struct subject *subject, const pvera_context *context, const pvera_linear *linear,
                        const struct weight *weights, const float *x, size_t tokens) {
    for (size_t i = 0; i < LAYERS; ++i) subject->delta[i] = (struct delta){.context = context, .linear = linear};
    subject->layer = graph_new(WIDTH, tokens);
    graph_finish(&subject->layer, add_layer(&subject->layer, &subject->delta[0], &weights[0], subject->layer.x), x);
    subject->network = graph_new(WIDTH, tokens);
    struct ggml_tensor *y = subject->network.x;
    for (size_t i = 0; i < LAYERS; ++i) y = add_layer(&subject->network, &subject->delta[i], &weights[i], y);
    graph_finish(&subject->network, y, x);
}

static void subject_free(struct subject *subject) {
    for (size_t i = 0; i < LAYERS; ++i) check(delta_take_error(&subject->delta[i]));
    graph_free(&subject->layer), graph_free(&subject->network);
}

static double microseconds(void) {
    struct timespec now;
    timespec_get(&now, TIME_UTC);
    return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

static double timed(const struct engine *engine, const struct graph *graph) {
    const double start = microseconds();
    graph_run(engine, graph);
    return microseconds() - start;
}

/* Reads all of it; the sum goes where a compiler cannot drop it. */
static volatile unsigned streamed;

static void stream(const unsigned char *bytes, size_t count) {
    unsigned sum = 0;
    for (size_t i = 0; i < count; ++i) sum += bytes[i];
    streamed = sum;
}

static int by_size(const void *first, const void *second) {
    const double a = *(const double *)first, b = *(const double *)second;
    return (a > b) - (a < b);
}

static double median(double *times, size_t count) {
    qsort(times, count, sizeof *times, by_size);
    return count % 2 ? times[count / 2] : (times[count / 2 - 1] + times[count / 2]) / 2;
}

static void measure(const struct engine *engine, const struct subject subjects[CASES], size_t rounds,
                    const unsigned char *other, size_t base_bytes, double times[STATES][CASES][MOST_ROUNDS]) {
    for (size_t round = 0; round < rounds; ++round)
        for (size_t i = 0; i < CASES; ++i) {
            const struct subject *subject = &subjects[i];
            graph_run(engine, &subject->layer);
            times[0][i][round] = timed(engine, &subject->layer);
            stream(other, base_bytes);
            times[1][i][round] = timed(engine, &subject->layer);
            times[2][i][round] = timed(engine, &subject->network) / LAYERS;
        }
}

static void report(int threads, size_t tokens, bool repacked, const struct weight *weights,
                   const pvera_context *context, const struct adapted *adapted, size_t rounds) {
    static double times[STATES][CASES][MOST_ROUNDS];
    static struct subject subjects[CASES];
    const size_t base_bytes = ggml_nbytes(weights[0].tensor);
    unsigned char *other = allocate(base_bytes, 1);
    float *x = normals(tokens * WIDTH, 4, 1);
    struct engine engine = engine_new(threads);
    for (size_t i = 0; i < base_bytes; ++i) other[i] = (unsigned char)i; /* or all pages would be one page of zeros */
    for (size_t i = 0; i < CASES; ++i)
        subject_new(&subjects[i], context, i > 0 ? adapted[i - 1].linear : NULL, weights, x, tokens);
    measure(&engine, subjects, rounds, other, base_bytes, times);
    for (size_t state = 0; state < STATES; ++state) {
        const double base = median(times[state][0], rounds);
        printf("%7d %6zu  %-8s %-8s %8.0f", threads, tokens, repacked ? "repacked" : "plain", state_names[state], base);
        for (size_t i = 1; i < CASES; ++i) {
            const double both = median(times[state][i], rounds);
            require(both > 0 && base > 0, "a median is no time");
            printf("  %8.0f (%.2f)", both, both / base);
        }
        printf("\n");
        fflush(stdout);
    }
    for (size_t i = 0; i < CASES; ++i) subject_free(&subjects[i]);
    engine_free(&engine), free(other), free(x);
}

int main(int count, char **arguments) {
    const size_t rounds = count > 1 ? strtoul(arguments[1], NULL, 10) : 101;
    if (rounds == 0 || rounds > MOST_ROUNDS) fail("ROUNDS is %s; wanted 1 to %d", arguments[1], MOST_ROUNDS);
    engine_quiet();
    struct adapted adapted[STORES];
    pvera_context *context = NULL;
    check(pvera_context_new(NULL, &context));
    for (int i = 0; i < STORES; ++i) adapted[i] = adapted_new(WIDTH, WIDTH, RANK, (enum store_kind)i);
    float *values = normals((size_t)WIDTH * WIDTH, 5, 1 / sqrtf(WIDTH));
    void *quantised = quantise(GGML_TYPE_Q4_0, WIDTH, WIDTH, values);
    printf("ggml's AVX-512: %s, VNNI: %s. Q4_0 %d × %d, rank %d, mean forward, microseconds a layer, medians of %zu "
           "rounds\n",
           ggml_cpu_has_avx512() ? "yes" : "no", ggml_cpu_has_avx512_vnni() ? "yes" : "no", WIDTH, WIDTH, RANK, rounds);
    printf("%7s %6s  %-8s %-8s %8s  %15s  %15s  %15s\n", "threads", "tokens", "Q4_0", "", "base", "+ f32 (ratio)",
           "+ bf16 (ratio)", "+ int8 (ratio)");
    for (int repacked = 0; repacked < 2; ++repacked) {
        struct weight weights[LAYERS];
        for (size_t i = 0; i < LAYERS; ++i) weights[i] = weight_new(GGML_TYPE_Q4_0, WIDTH, WIDTH, quantised, repacked);
        for (int threads = 1; weights[0].tensor != NULL && threads <= 2; ++threads)
            for (size_t tokens = 1; tokens <= 16; tokens += 15)
                report(threads, tokens, repacked, weights, context, adapted, rounds);
        for (size_t i = 0; i < LAYERS; ++i) weight_free(&weights[i]);
    }
    for (int i = 0; i < STORES; ++i) adapted_free(&adapted[i]);
    pvera_context_free(context), free(values), free(quantised);
    return failures() > 0;
}
