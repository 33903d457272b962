/* The little that every ggml program has: a backend with its thread pool, quantised weights, a graph and its memory. */
#ifndef ENGINE_H
#define ENGINE_H

#include <ggml-alloc.h>
#include <ggml-backend.h>
#include <ggml-cpu.h>
#include <ggml.h>
#include <stdbool.h>
#include <stddef.h>

/* ggml's CPU backend on a thread pool of ggml's own; the calling thread is one of its threads. */
struct engine {
    ggml_backend_t backend;
    ggml_threadpool_t pool;
};

struct engine engine_new(int threads);
void engine_free(struct engine *engine);

/* Of what ggml has to say, only its warnings and errors are printed. */
void engine_quiet(void);

/* values [out, in], row by row, as a GGUF file has them; freed with free. */
void *quantise(enum ggml_type type, size_t in, size_t out, const float *values);

/* A base weight [in, out] as ggml holds it. */
struct weight {
    struct ggml_tensor *tensor;
    struct ggml_context *context;
    ggml_backend_buffer_t buffer;
};

/* A weight of quantised values, which are copied. Repacked: into the order that ggml's kernels like best, as llama.cpp
 * does where it can; where ggml has no such order for the type on this machine, tensor is NULL. */
struct weight weight_new(enum ggml_type type, size_t in, size_t out, const void *quantised, bool repacked);
void weight_free(struct weight *weight);

/* A graph over one input x [in, tokens], both of which stay in memory between runs. */
struct graph {
    struct ggml_context *context;
    struct ggml_cgraph *nodes;
    ggml_gallocr_t memory;
    struct ggml_tensor *x;
};

/* Build nodes in graph.context, then hand the last of them to graph_finish, which gives all of them memory. */
struct graph graph_new(size_t in, size_t tokens);
void graph_finish(struct graph *graph, struct ggml_tensor *y, const float *x);
void graph_run(const struct engine *engine, const struct graph *graph);
void graph_free(struct graph *graph);

#endif
