/* A ggml program's usual parts; see engine.h. */
#include "engine.h"

#include <stdio.h>
#include <stdlib.h>

#include "support.h"

struct engine engine_new(int threads) {
    struct ggml_threadpool_params params = ggml_threadpool_params_default(threads);
    const struct engine engine = {ggml_backend_cpu_init(), ggml_threadpool_new(&params)};
    if (engine.backend == NULL || engine.pool == NULL) fail("ggml has no CPU backend with %d threads", threads);
    ggml_backend_cpu_set_n_threads(engine.backend, threads);
    ggml_backend_cpu_set_threadpool(engine.backend, engine.pool);
    return engine;
}

void engine_free(struct engine *engine) {
    ggml_backend_free(engine->backend);
    ggml_threadpool_free(engine->pool);
}

static void print_trouble(enum ggml_log_level level, const char *text, void *user) {
    (void)user;
    if (level == GGML_LOG_LEVEL_WARN || level == GGML_LOG_LEVEL_ERROR) fputs(text, stderr);
}

void engine_quiet(void) { ggml_log_set(print_trouble, NULL); }

static struct ggml_context *context_new(size_t tensors) {
    const struct ggml_init_params params = {tensors * ggml_tensor_overhead() + ggml_graph_overhead(), NULL, true};
    struct ggml_context *context = ggml_init(params);
    if (context == NULL) fail("no memory for a ggml context of %zu tensors", tensors);
    return context;
}

/* Whether ggml multiplies with this weight where it lies in such a buffer. */
static bool fits(ggml_backend_dev_t device, ggml_backend_buffer_type_t type, struct ggml_tensor *weight) {
    struct ggml_context *context = context_new(2);
    struct ggml_tensor *x = ggml_new_tensor_2d(context, GGML_TYPE_F32, weight->ne[0], 1);
    struct ggml_tensor *product = ggml_mul_mat(context, weight, x);
    weight->buffer = ggml_backend_buft_alloc_buffer(type, 0);
    const bool supported = ggml_backend_dev_supports_op(device, product);
    ggml_backend_buffer_free(weight->buffer);
    weight->buffer = NULL;
    ggml_free(context);
    return supported;
}

/* The first of the CPU's special buffer types that takes the weight, or NULL. */
static ggml_backend_buffer_type_t repacking_type(struct ggml_tensor *weight) {
    ggml_backend_dev_t device = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
    const ggml_backend_dev_get_extra_bufts_t extra_types =
        (ggml_backend_dev_get_extra_bufts_t)ggml_backend_reg_get_proc_address(ggml_backend_dev_backend_reg(device),
                                                                              "ggml_backend_dev_get_extra_bufts");
    for (ggml_backend_buffer_type_t *type = extra_types ? extra_types(device) : NULL; type && *type; ++type)
        if (fits(device, *type, weight)) return *type;
    return NULL;
}

void *quantise(enum ggml_type type, size_t in, size_t out, const float *values) {
    void *quantised = allocate(out, ggml_row_size(type, (int64_t)in));
    ggml_quantize_chunk(type, values, quantised, 0, (int64_t)out, (int64_t)in, NULL);
    return quantised;
}

struct weight weight_new(enum ggml_type type, size_t in, size_t out, const void *quantised, bool repacked) {
    struct weight weight = {.context = context_new(1)};
    struct ggml_tensor *tensor = ggml_new_tensor_2d(weight.context, type, (int64_t)in, (int64_t)out);
    const ggml_backend_buffer_type_t memory = repacked ? repacking_type(tensor) : ggml_backend_cpu_buffer_type();
    if (memory == NULL) return weight;
    weight.buffer = ggml_backend_alloc_ctx_tensors_from_buft(weight.context, memory);
    if (weight.buffer == NULL) fail("no memory for a weight of %zu bytes", ggml_nbytes(tensor));
    ggml_backend_tensor_set(tensor, quantised, 0, ggml_nbytes(tensor));
    weight.tensor = tensor;
    return weight;
}

void weight_free(struct weight *weight) {
    ggml_backend_buffer_free(weight->buffer);
    ggml_free(weight->context);
}

struct graph graph_new(size_t in, size_t tokens) {
    struct graph graph = {.context = context_new(GGML_DEFAULT_GRAPH_SIZE)};
    graph.x = ggml_new_tensor_2d(graph.context, GGML_TYPE_F32, (int64_t)in, (int64_t)tokens);
    ggml_set_input(graph.x);
    ggml_set_output(graph.x); /* or its memory would be used again after its last reader */
    return graph;
}

void graph_finish(struct graph *graph, struct ggml_tensor *y, const float *x) {
    ggml_set_output(y);
    graph->nodes = ggml_new_graph(graph->context);
    ggml_build_forward_expand(graph->nodes, y);
    graph->memory = ggml_gallocr_new(ggml_backend_cpu_buffer_type());
    if (!ggml_gallocr_alloc_graph(graph->memory, graph->nodes)) fail("no memory for a graph");
    ggml_backend_tensor_set(graph->x, x, 0, ggml_nbytes(graph->x));
}

void graph_run(const struct engine *engine, const struct graph *graph) {
    if (ggml_backend_graph_compute(engine->backend, graph->nodes) != GGML_STATUS_SUCCESS)
        fail("ggml could not run the graph");
}

void graph_free(struct graph *graph) {
    ggml_gallocr_free(graph->memory);
    ggml_free(graph->context);
}
