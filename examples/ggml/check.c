/* A quantised layer of ggml with a PVeRA adapter, held to plain ggml, to pvera on one thread and to a reference in
 * doubles. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "adapted.h"
#include "delta.h"
#include "engine.h"
#include "support.h"

enum { IN = 1024, OUT = 776, RANK = 60, TOKENS = 13, SEED = 7 };

/* The same delta in ggml's own operations, from F32 tensors of ggml: [row's length, rows], as ggml has them. */
struct plain {
    struct ggml_context *context;
    ggml_backend_buffer_t buffer;
    struct ggml_tensor *a_mu, *a_logvar, *b, *lambda_mu, *lambda_logvar, *lambda_b, *eps;
};

static struct ggml_tensor *tensor(const struct plain *plain, size_t cols, size_t rows) {
    return ggml_new_tensor_2d(plain->context, GGML_TYPE_F32, (int64_t)cols, (int64_t)rows);
}

static void set(struct ggml_tensor *tensor, const float *values) {
    ggml_backend_tensor_set(tensor, values, 0, ggml_nbytes(tensor));
}

static struct plain plain_new(const struct adapted *adapted, const float *eps) {
    const struct ggml_init_params params = {7 * ggml_tensor_overhead(), NULL, true};
    struct plain plain = {.context = ggml_init(params)};
    pvera_matrix a, b;
    check(pvera_store_matrices(adapted->store, &a, &b));
    plain.a_mu = tensor(&plain, IN, RANK), plain.a_logvar = tensor(&plain, IN, RANK),
    plain.b = tensor(&plain, RANK, OUT);
    plain.lambda_mu = tensor(&plain, RANK, 1), plain.lambda_logvar = tensor(&plain, RANK, 1);
    plain.lambda_b = tensor(&plain, OUT, 1), plain.eps = tensor(&plain, RANK, TOKENS);
    plain.buffer = ggml_backend_alloc_ctx_tensors_from_buft(plain.context, ggml_backend_cpu_buffer_type());
    if (plain.buffer == NULL || a.dtype.bits != 32) fail("the plain tensors cannot be made");
    set(plain.a_mu, a.data), set(plain.a_logvar, (const float *)a.data + RANK * IN), set(plain.b, b.data);
    set(plain.lambda_mu, adapted->lambda_d), set(plain.lambda_logvar, adapted->lambda_d + RANK);
    set(plain.lambda_b, adapted->lambda_b), set(plain.eps, eps);
    return plain;
}

static void plain_free(struct plain *plain) {
    ggml_backend_buffer_free(plain->buffer);
    ggml_free(plain->context);
}

/* λ_b ∘ (z Bᵀ) */
static struct ggml_tensor *plain_delta(const struct plain *plain, const struct graph *graph, int32_t mode) {
    struct ggml_context *c = graph->context;
    struct ggml_tensor *z = ggml_mul(c, ggml_mul_mat(c, plain->a_mu, graph->x), plain->lambda_mu);
    if (mode == PVERA_MODE_SAMPLE) {
        struct ggml_tensor *logvar = ggml_mul(c, ggml_mul_mat(c, plain->a_logvar, graph->x), plain->lambda_logvar);
        z = ggml_add(c, z, ggml_mul(c, plain->eps, ggml_exp(c, ggml_scale(c, logvar, 0.5f))));
    }
    return ggml_mul(c, ggml_mul_mat(c, plain->b, z), plain->lambda_b);
}

/* Everything one check needs: an input, a base, an adapter, and the same in plain ggml. */
struct world {
    const struct adapted *adapted;
    const struct plain *plain;
    const struct weight *weight;
    const char *quantised; /* what the weight was made of */
    const pvera_context *context;
    const pvera_rows *rows;
    pvera_noise noise;
    const float *x;
};

/* What a graph gives: base alone, base + delta in plain ggml, base + our delta. */
enum output { BASE, PLAIN, OURS };

/* base + our delta, or the end of the program. */
static struct ggml_tensor *added(const struct graph *graph, struct delta *delta, struct ggml_tensor *base) {
    struct ggml_tensor *y = delta_add(graph->context, delta, graph->x, base);
    if (y == NULL) fail("%s", delta->refused);
    return y;
}

static float *run(const struct world *world, int threads, enum output what) {
    struct engine engine = engine_new(threads);
    struct graph graph = graph_new(IN, TOKENS);
    struct delta delta = {
        .context = world->context, .linear = world->adapted->linear, .rows = world->rows, .noise = &world->noise};
    struct ggml_tensor *y = ggml_mul_mat(graph.context, world->weight->tensor, graph.x);
    if (what == PLAIN) y = ggml_add(graph.context, y, plain_delta(world->plain, &graph, world->noise.mode));
    if (what == OURS) y = added(&graph, &delta, y);
    graph_finish(&graph, y, world->x);
    graph_run(&engine, &graph);
    check(delta_take_error(&delta));
    float *values = allocate(TOKENS * OUT, sizeof *values);
    ggml_backend_tensor_get(y, values, 0, ggml_nbytes(y));
    graph_free(&graph), engine_free(&engine);
    return values;
}

/* The delta in doubles. */
static void reference_delta(const struct world *world, const float *eps, double *delta) {
    const struct adapted *adapted = world->adapted;
    pvera_matrix a, b;
    check(pvera_store_matrices(adapted->store, &a, &b));
    const float *of_mu = a.data, *of_logvar = of_mu + RANK * IN, *of_delta = b.data;
    for (size_t i = 0; i < TOKENS; ++i) {
        double z[RANK];
        for (size_t k = 0; k < RANK; ++k) {
            double mu = 0, logvar = 0;
            for (size_t j = 0; j < IN; ++j) {
                mu += (double)world->x[i * IN + j] * of_mu[k * IN + j];
                logvar += (double)world->x[i * IN + j] * of_logvar[k * IN + j];
            }
            z[k] = mu * adapted->lambda_d[k];
            if (world->noise.mode == PVERA_MODE_SAMPLE)
                z[k] += eps[i * RANK + k] * exp(0.5 * logvar * adapted->lambda_d[RANK + k]);
        }
        for (size_t j = 0; j < OUT; ++j) {
            double sum = 0;
            for (size_t k = 0; k < RANK; ++k) sum += z[k] * of_delta[j * RANK + k];
            delta[i * OUT + j] = sum * adapted->lambda_b[j];
        }
    }
}

/* The base in doubles, of the numbers that the quantised weight stands for. */
static void reference_base(const struct world *world, double *base) {
    const enum ggml_type type = world->weight->tensor->type;
    float row[IN];
    for (size_t j = 0; j < OUT; ++j) {
        ggml_get_type_traits(type)->to_float(world->quantised + j * ggml_row_size(type, IN), row, IN);
        for (size_t i = 0; i < TOKENS; ++i) {
            double sum = 0;
            for (size_t k = 0; k < IN; ++k) sum += (double)row[k] * world->x[i * IN + k];
            base[i * OUT + j] = sum;
        }
    }
}

static double largest(const double *values) {
    double found = 0;
    for (size_t i = 0; i < TOKENS * OUT; ++i) found = fmax(found, fabs(values[i]));
    return found;
}

/* The largest of |found − (first + second)|, where second may be NULL. */
static double difference(const float *found, const double *first, const double *second) {
    double most = 0;
    for (size_t i = 0; i < TOKENS * OUT; ++i) most = fmax(most, fabs(found[i] - first[i] - (second ? second[i] : 0)));
    return most;
}

static double *as_doubles(const float *values) {
    double *wide = allocate(TOKENS * OUT, sizeof *wide);
    for (size_t i = 0; i < TOKENS * OUT; ++i) wide[i] = values[i];
    return wide;
}

/* One call of pvera on ggml's base output: the bits that the graph must have on any number of threads. */
static void one_call(const struct world *world, float *y) {
    const pvera_matrix x = pvera_f32(world->x, TOKENS, IN);
    const pvera_matrix_mut out = pvera_f32_mut(y, TOKENS, OUT);
    check(pvera_forward(world->context, world->adapted->linear, &x, world->rows, &world->noise, NULL, &out));
}

static void compare(const struct world *world, const float *eps, const char *what) {
    double *exact_base = allocate(TOKENS * OUT, sizeof(double)), *exact_delta = allocate(TOKENS * OUT, sizeof(double));
    float *base = run(world, 1, BASE), *plain = run(world, 1, PLAIN), *ours = run(world, 1, OURS);
    double *wide_base = as_doubles(base), *wide_plain = as_doubles(plain);
    reference_base(world, exact_base), reference_delta(world, eps, exact_delta);
    const double delta_size = largest(exact_delta), base_size = largest(exact_base);
    const double against_plain = difference(ours, wide_plain, NULL) / delta_size;
    const double against_exact = difference(ours, wide_base, exact_delta) / delta_size;
    const double base_error = difference(base, exact_base, NULL) / base_size;
    const double error = difference(ours, exact_base, exact_delta) / base_size;
    printf("%-26s %7.4f %10.1e %10.1e %9.4f %9.4f\n", what, delta_size / base_size, against_plain, against_exact,
           base_error, error);
    require(delta_size > 0.5 * base_size, "the delta is too small to be seen beside the base");
    require(against_plain < 2e-6, "base + delta is not that of plain ggml");
    require(against_exact < 2e-6, "the delta is not that of the reference");
    /* ggml rounds x to 8 bits in blocks of 32: that, and not the delta, is the error of the whole. */
    require(base_error < 0.01 && error < 1.001 * base_error + 2e-6 * delta_size / base_size,
            "the layer is not that of the float reference");
    one_call(world, base);
    require(memcmp(base, ours, TOKENS * OUT * sizeof *base) == 0, "the graph's bits are not those of one call");
    for (int threads = 2; threads <= 5; ++threads) {
        float *again = run(world, threads, OURS);
        require(memcmp(again, ours, TOKENS * OUT * sizeof *again) == 0, "the bits depend on the number of threads");
        free(again);
    }
    free(exact_base), free(exact_delta), free(base), free(plain), free(ours), free(wide_base), free(wide_plain);
}

/* An engine's batch may name an adapter that is gone: the run ends, the error is told, y is the base. */
static void wrong_slot(const struct world *world) {
    int32_t slots[TOKENS] = {0};
    const pvera_rows rows = {.struct_size = sizeof rows, .slot = slots};
    struct engine engine = engine_new(2);
    struct graph graph = graph_new(IN, TOKENS);
    struct delta delta = {.context = world->context, .linear = world->adapted->linear, .rows = &rows};
    struct ggml_tensor *y = ggml_mul_mat(graph.context, world->weight->tensor, graph.x);
    y = added(&graph, &delta, y);
    graph_finish(&graph, y, world->x);
    slots[TOKENS - 1] = 5;
    graph_run(&engine, &graph);
    pvera_error *error = delta_take_error(&delta);
    float *base = run(world, 2, BASE);
    require(pvera_error_code(error) == PVERA_ERROR_NOT_FOUND, "a slot that holds no adapter is not told");
    require(memcmp(y->data, base, TOKENS * OUT * sizeof *base) == 0, "after an error y is not the base");
    pvera_error_free(error);
    slots[TOKENS - 1] = -1; /* a token of the base alone: the next run is sound */
    graph_run(&engine, &graph);
    check(delta_take_error(&delta));
    const size_t last = (TOKENS - 1) * OUT;
    require(memcmp((float *)y->data + last, base + last, OUT * sizeof *base) == 0,
            "a token of slot -1 is not the base");
    require(memcmp(y->data, base, OUT * sizeof *base) != 0, "a token of slot 0 is not adapted");
    free(base), graph_free(&graph), engine_free(&engine);
}

/* Refuses once, then has memory. */
static void *refuse_once(void *user, size_t size, size_t alignment) {
    bool *refused = user;
    if (!*refused) return *refused = true, NULL;
    return aligned_alloc(alignment, (size + alignment - 1) / alignment * alignment);
}

static void release(void *user, void *memory, size_t size, size_t alignment) {
    (void)user, (void)size, (void)alignment;
    free(memory);
}

/* A project that fails where expand would not: y is the base, and not what an earlier run left in p. */
static void failed_project(const struct world *world) {
    bool refused = false;
    const pvera_context_options options = {.struct_size = sizeof options, .allocator = {refuse_once, release, &refused}};
    struct engine engine = engine_new(1);
    struct graph graph = graph_new(IN, TOKENS);
    struct delta delta = {.context = world->context, .linear = world->adapted->linear};
    struct ggml_tensor *y = ggml_mul_mat(graph.context, world->weight->tensor, graph.x);
    pvera_context *short_of_memory = NULL;
    check(pvera_context_new(&options, &short_of_memory));
    y = added(&graph, &delta, y);
    graph_finish(&graph, y, world->x);
    graph_run(&engine, &graph);
    check(delta_take_error(&delta));
    delta.context = short_of_memory;
    graph_run(&engine, &graph);
    pvera_error *error = delta_take_error(&delta);
    float *base = run(world, 1, BASE);
    require(refused && pvera_error_code(error) == PVERA_ERROR_MEMORY, "a project without memory is not told");
    require(memcmp(y->data, base, TOKENS * OUT * sizeof *base) == 0, "after a failed project y is not the base");
    pvera_error_free(error), free(base), pvera_context_free(short_of_memory);
    graph_free(&graph), engine_free(&engine);
}

/* Tensors that are no matrices of pvera's are refused before the graph has them. */
static void wrong_tensors(const struct world *world) {
    struct graph graph = graph_new(IN, TOKENS);
    struct ggml_context *c = graph.context;
    struct delta delta = {.context = world->context, .linear = world->adapted->linear};
    struct ggml_tensor *base = ggml_new_tensor_2d(c, GGML_TYPE_F32, OUT, TOKENS);
    struct ggml_tensor *square = ggml_new_tensor_2d(c, GGML_TYPE_F32, IN, IN);
    const struct {
        struct ggml_tensor *x, *base;
        const char *why;
    } wrong[] = {
        {ggml_new_tensor_3d(c, GGML_TYPE_F32, IN, TOKENS, 2), base, "x is [1024, 13, 2, 1]; wanted two dimensions"},
        {graph.x, ggml_new_tensor_4d(c, GGML_TYPE_F32, OUT, TOKENS, 1, 3), "base is [776, 13, 1, 3]"},
        {ggml_transpose(c, square), base, "x has elements 4096 and rows 4 bytes apart; wanted elements of 4 bytes"},
        {ggml_new_tensor_2d(c, GGML_TYPE_Q8_0, IN, TOKENS), base, "x is q8_0; wanted F32, F16 or BF16"},
        {graph.x, ggml_new_tensor_2d(c, GGML_TYPE_I32, OUT, TOKENS), "base is i32"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; ++i) {
        const bool made = delta_add(c, &delta, wrong[i].x, wrong[i].base) != NULL;
        require(!made && strstr(delta.refused, wrong[i].why) != NULL, wrong[i].why);
    }
    graph_free(&graph);
}

/* A type of weight, lying as in a file or repacked, in both modes; nothing where ggml does not repack the type. */
static void compare_type(struct world *world, enum ggml_type type, bool repacked, const float *values,
                         const float *eps) {
    static const int32_t modes[] = {PVERA_MODE_MEAN, PVERA_MODE_SAMPLE};
    static const char *const mode_names[] = {"mean", "sampled"};
    void *quantised = quantise(type, IN, OUT, values);
    struct weight weight = weight_new(type, IN, OUT, quantised, repacked);
    world->weight = &weight, world->quantised = quantised;
    for (int i = 0; weight.tensor != NULL && i < 2; ++i) {
        char what[64];
        snprintf(what, sizeof what, "%s%s, %s", ggml_type_name(type), repacked ? " repacked" : "", mode_names[i]);
        world->noise = (pvera_noise){.struct_size = sizeof world->noise, .mode = modes[i], .seed = SEED};
        compare(world, eps, what);
    }
    if (!repacked) wrong_slot(world), failed_project(world), wrong_tensors(world);
    weight_free(&weight), free(quantised);
}

/* The noise that these rows draw, for the layer in plain ggml and in doubles. */
static void draw(const pvera_rows *rows, float eps[TOKENS * RANK]) {
    uint64_t adapter = 0;
    check(pvera_adapter_identity("default", &adapter));
    for (size_t i = 0; i < TOKENS; ++i)
        check(pvera_keyed_normals(SEED, ADAPTED_NAME, adapter, rows->identity_base + i, rows->sample_base, false, RANK,
                                  eps + i * RANK));
}

int main(void) {
    static const enum ggml_type types[] = {GGML_TYPE_Q4_0, GGML_TYPE_Q8_0, GGML_TYPE_Q4_K};
    const pvera_rows rows = {.struct_size = sizeof rows, .identity_base = 1000, .sample_base = 3};
    float *x = normals(TOKENS * IN, 4, 1), *values = normals(OUT * IN, 5, 1 / sqrtf(IN)), eps[TOKENS * RANK];
    struct adapted adapted = adapted_new(IN, OUT, RANK, STORE_F32);
    pvera_context *context = NULL;
    engine_quiet();
    check(pvera_context_new(NULL, &context));
    draw(&rows, eps);
    struct plain plain = plain_new(&adapted, eps);
    struct world world = {.adapted = &adapted, .plain = &plain, .rows = &rows, .x = x, .context = context};
    printf("%d × %d → %d, rank %d%25s delta's error          error of the whole\n", TOKENS, IN, OUT, RANK, "");
    printf("%26s %7s %10s %10s %9s %9s\n", "", "delta", "to ggml", "to exact", "base", "adapted");
    for (size_t i = 0; i < sizeof types / sizeof *types; ++i)
        for (int repacked = 0; repacked < 2; ++repacked) compare_type(&world, types[i], repacked, values, eps);
    pvera_context_free(context), plain_free(&plain), adapted_free(&adapted), free(x), free(values);
    return failures() > 0;
}
