/* PVeRA's delta in a ggml graph: two custom nodes that ggml's own threads run, behind any product that ggml has. */
#ifndef DELTA_H
#define DELTA_H

#include <ggml.h>
#include <pvera.h>
#include <stdatomic.h>

/* One adapted layer of a graph. It stays where it is as long as the graph; rows and noise may change between runs, as
 * long as the width of p does not (pvera_project_width). */
struct delta {
    const pvera_context *context; /* without threads of its own: those of ggml enter it, all at once */
    const pvera_linear *linear;
    const pvera_rows *rows;   /* or NULL */
    const pvera_noise *noise; /* or NULL */
    _Atomic(pvera_error *) error;
    char refused[256]; /* why delta_add gave nothing */
};

/* y = base + delta(x), in base's memory. x [in, tokens] and base [out, tokens] (ggml's order: the row's length first)
 * are F32, F16 or BF16, with the elements of a row side by side. NULL where they are not; delta->refused says why. */
struct ggml_tensor *delta_add(struct ggml_context *graph, struct delta *delta, struct ggml_tensor *x,
                              struct ggml_tensor *base);

/* Why the last run of the graph failed, or NULL; it is the caller's, and forgotten here. To be asked after each run: a
 * node cannot return an error, and after one y is base, or was written in part. */
pvera_error *delta_take_error(struct delta *delta);

#endif
