/* What shim.h declares. */
#include "shim.h"

#include "_cgo_export.h"

/* ---- Computing ---- */

pvera_error *pvera_go_forward(const pvera_context *context, const pvera_linear *linear, pvera_matrix x, pvera_rows rows,
                              pvera_noise noise, pvera_tape *tape, pvera_matrix_mut y) {
    return pvera_forward(context, linear, &x, &rows, &noise, tape, &y);
}

pvera_error *pvera_go_sample(const pvera_context *context, const pvera_linear *linear, pvera_matrix x, pvera_rows rows,
                             pvera_noise noise, size_t samples, pvera_matrix_mut y) {
    return pvera_sample(context, linear, &x, &rows, &noise, samples, &y);
}

pvera_error *pvera_go_moments(const pvera_context *context, const pvera_linear *linear, pvera_matrix x, pvera_rows rows,
                              pvera_matrix_mut mean, pvera_matrix_mut variance) {
    return pvera_moments(context, linear, &x, &rows, &mean, &variance);
}

pvera_error *pvera_go_latent(const pvera_context *context, const pvera_linear *linear, pvera_matrix x, pvera_rows rows,
                             pvera_matrix_mut mu, pvera_matrix_mut logvar) {
    return pvera_latent(context, linear, &x, &rows, &mu, &logvar);
}

pvera_error *pvera_go_project(const pvera_context *context, const pvera_linear *linear, pvera_matrix x, pvera_rows rows,
                              pvera_noise noise, pvera_matrix_mut p, size_t index, size_t count) {
    if (count == 0) return pvera_project(context, linear, &x, &rows, &noise, &p);
    return pvera_project_part(context, linear, &x, &rows, &noise, &p, index, count);
}

pvera_error *pvera_go_expand(const pvera_context *context, const pvera_linear *linear, pvera_matrix p, pvera_rows rows,
                             pvera_noise noise, pvera_matrix_mut y, size_t index, size_t count) {
    if (count == 0) return pvera_expand(context, linear, &p, &rows, &noise, &y);
    return pvera_expand_part(context, linear, &p, &rows, &noise, &y, index, count);
}

pvera_error *pvera_go_merge(const pvera_context *context, const pvera_linear *linear, pvera_rows rows, uint32_t flags,
                            int32_t layout, pvera_matrix weight, pvera_matrix_mut merged, pvera_undo **undo) {
    return pvera_merge(context, linear, &rows, flags, layout, &weight, &merged, undo);
}

pvera_error *pvera_go_unmerge(const pvera_undo *undo, pvera_matrix_mut weight) { return pvera_unmerge(undo, &weight); }

pvera_error *pvera_go_forward_group(const pvera_context *context, size_t count, const pvera_linear *const *linears,
                                    pvera_matrix x, pvera_rows rows, pvera_noise noise, pvera_tape *tape,
                                    const pvera_matrix_mut *y) {
    return pvera_forward_group(context, count, linears, &x, &rows, &noise, tape, y);
}

pvera_error *pvera_go_backward_group(const pvera_context *context, const pvera_tape *tape, size_t count,
                                     const pvera_matrix *dy, const pvera_gradients *gradients, pvera_matrix_mut dx) {
    const pvera_matrix_mut *wanted = dx.dtype.bits == 0 ? NULL : &dx;
    if (count == 1) return pvera_backward(context, tape, dy, gradients, wanted);
    return pvera_backward_group(context, tape, count, dy, gradients, wanted);
}

pvera_error *pvera_go_project_width(const pvera_linear *linear, pvera_rows rows, size_t n, size_t *width, size_t *latents) {
    return pvera_project_width(linear, &rows, n, width, latents);
}

pvera_error *pvera_go_scratch_bytes(const pvera_context *context, size_t count, const pvera_linear *const *linears, size_t n,
                                    pvera_rows rows, size_t samples, bool training, size_t *bytes) {
    return pvera_scratch_bytes(context, count, linears, n, &rows, samples, training, bytes);
}

pvera_error *pvera_go_store_from_matrices(pvera_matrix a, pvera_matrix b, pvera_allocator allocator, pvera_store **store) {
    return pvera_store_from_matrices(&a, &b, &allocator, store);
}

pvera_error *pvera_go_statistics_add(pvera_statistics *statistics, pvera_matrix values) {
    return pvera_statistics_add(statistics, &values);
}

pvera_error *pvera_go_statistics_add_rows(pvera_statistics *statistics, size_t count, const size_t *rows,
                                          pvera_matrix values) {
    return pvera_statistics_add_rows(statistics, count, rows, &values);
}

/* ---- Callbacks ---- */

static void on_parallel_for(void *user, size_t count, pvera_task run, void *task) {
    pveraGoParallelFor((uintptr_t)user, count, run, task);
}

pvera_error *pvera_go_context_new(pvera_context_options options, uintptr_t host, pvera_context **context) {
    if (host != 0) {
        options.parallel_for = on_parallel_for;
        options.parallel_for_user = (void *)host;
    }
    return pvera_context_new(&options, context);
}

void pvera_go_run_task(pvera_task run, void *task, size_t index) { run(task, index); }

/* The Go call that is running on this thread. The library calls back on the thread that called it, and Go keeps a goroutine
 * on its thread while it is in C, so that this is the right one however many goroutines load for one model. */
static _Thread_local uintptr_t running;

uintptr_t pvera_go_thread(void) { return (uintptr_t)&running; }

static void on_warning(void *user, const char *message) {
    (void)user;
    if (running != 0) pveraGoWarning(running, (char *)message);
}

static int32_t on_progress(void *user, const char *stage, uint64_t done, uint64_t total) {
    (void)user;
    return running == 0 ? 0 : pveraGoProgress(running, (char *)stage, done, total);
}

pvera_error *pvera_go_model_new(pvera_allocator allocator, pvera_model **model) {
    pvera_model_options options = {.struct_size = sizeof options, .allocator = allocator};
    options.callbacks.warning = on_warning;
    options.callbacks.progress = on_progress;
    return pvera_model_new(&options, model);
}

pvera_error *pvera_go_store_from_key(uintptr_t call, uint64_t key, pvera_store_options options, pvera_store **store) {
    uintptr_t outer = running; /* a callback may call the library itself */
    running = call;
    options.callbacks.progress = on_progress;
    pvera_error *error = pvera_store_from_key(key, &options, store);
    running = outer;
    return error;
}

pvera_error *pvera_go_adapter_load(uintptr_t call, const pvera_model *model, const char *folder,
                                   const pvera_adapter_options *options, pvera_adapter **adapter) {
    uintptr_t outer = running;
    running = call;
    pvera_error *error = pvera_adapter_load(model, folder, options, adapter);
    running = outer;
    return error;
}

pvera_error *pvera_go_adapter_load_memory(uintptr_t call, const pvera_model *model, const uint8_t *config, size_t config_size,
                                          const uint8_t *tensors, size_t tensors_size, const pvera_adapter_options *options,
                                          pvera_adapter **adapter) {
    uintptr_t outer = running;
    running = call;
    pvera_error *error = pvera_adapter_load_memory(model, config, config_size, tensors, tensors_size, options, adapter);
    running = outer;
    return error;
}

pvera_error *pvera_go_adapter_new(uintptr_t call, const pvera_model *model, const pvera_config *config,
                                  const pvera_store *store, const pvera_adapter_options *options, pvera_adapter **adapter) {
    uintptr_t outer = running;
    running = call;
    pvera_error *error = pvera_adapter_new(model, config, store, options, adapter);
    running = outer;
    return error;
}

pvera_error *pvera_go_bank_open(uintptr_t call, const pvera_model *model, const char *path, const pvera_bank_options *options,
                                pvera_bank **bank) {
    uintptr_t outer = running;
    running = call;
    pvera_error *error = pvera_bank_open(model, path, options, bank);
    running = outer;
    return error;
}

pvera_error *pvera_go_bank_append(uintptr_t call, const pvera_bank *bank, size_t count, char **names, pvera_adapter **adapters,
                                  pvera_dtype dtype) {
    uintptr_t outer = running;
    running = call;
    pvera_error *error = pvera_bank_append(bank, count, (const char *const *)names, (const pvera_adapter *const *)adapters, dtype);
    running = outer;
    return error;
}

pvera_error *pvera_go_bank_compact(uintptr_t call, const pvera_bank *bank) {
    uintptr_t outer = running;
    running = call;
    pvera_error *error = pvera_bank_compact(bank);
    running = outer;
    return error;
}

pvera_error *pvera_go_bank_refresh(uintptr_t call, const pvera_bank *bank, bool *changed) {
    uintptr_t outer = running;
    running = call;
    pvera_error *error = pvera_bank_refresh(bank, changed);
    running = outer;
    return error;
}

pvera_error *pvera_go_bank_verify(uintptr_t call, const pvera_bank *bank, size_t *damaged) {
    uintptr_t outer = running;
    running = call;
    pvera_error *error = pvera_bank_verify(bank, damaged);
    running = outer;
    return error;
}

pvera_error *pvera_go_bank_adapter(uintptr_t call, const pvera_bank *bank, const char *name, pvera_adapter **adapter) {
    uintptr_t outer = running;
    running = call;
    pvera_error *error = pvera_bank_adapter(bank, name, adapter);
    running = outer;
    return error;
}

pvera_error *pvera_go_bank_snapshot(uintptr_t call, const pvera_bank *bank, size_t count, char **names, int32_t *slots,
                                    pvera_snapshot **snapshot) {
    uintptr_t outer = running;
    running = call;
    pvera_error *error = pvera_bank_snapshot(bank, count, (const char *const *)names, slots, snapshot);
    running = outer;
    return error;
}

/* ---- Files ---- */

/* Lets warnings and progress of a call reach the Go call; returns the one that was running before. */
static uintptr_t tell(uintptr_t call, pvera_files_options *options) {
    uintptr_t outer = running;
    running = call;
    options->callbacks.warning = on_warning;
    options->callbacks.progress = on_progress;
    return outer;
}

pvera_error *pvera_go_model_declare_files(const pvera_model *model, const char *checkpoint, const char *files,
                                          pvera_files_options options, size_t *count, pvera_dtype *dtype) {
    return pvera_model_declare_files(model, checkpoint, files, &options, count, dtype);
}

pvera_error *pvera_go_adapter_export_lora(uintptr_t call, const pvera_adapter *adapter, const char *folder,
                                          pvera_files_options options) {
    uintptr_t outer = tell(call, &options);
    pvera_error *error = pvera_adapter_export_lora(adapter, folder, &options);
    running = outer;
    return error;
}

pvera_error *pvera_go_adapter_export_gguf(uintptr_t call, const pvera_adapter *adapter, const char *path,
                                          pvera_gguf_options gguf, pvera_files_options options) {
    uintptr_t outer = tell(call, &options);
    pvera_error *error = pvera_adapter_export_gguf(adapter, path, &gguf, &options);
    running = outer;
    return error;
}

pvera_error *pvera_go_checkpoint_shrink(uintptr_t call, const char *folder, const char *out, pvera_files_options options,
                                        pvera_dtype *base_dtype, size_t *in_max) {
    uintptr_t outer = tell(call, &options);
    pvera_error *error = pvera_checkpoint_shrink(folder, out, &options, base_dtype, in_max);
    running = outer;
    return error;
}

pvera_error *pvera_go_checkpoint_check(uintptr_t call, const char *folder, pvera_files_options options, bool *held,
                                       pvera_dtype *base_dtype, int32_t *grid) {
    uintptr_t outer = tell(call, &options);
    pvera_error *error = pvera_checkpoint_check(folder, &options, held, base_dtype, grid);
    running = outer;
    return error;
}

pvera_error *pvera_go_checkpoint_grow(uintptr_t call, const char *folder, const char *out, size_t in_max, size_t out_max,
                                      pvera_files_options options) {
    uintptr_t outer = tell(call, &options);
    pvera_error *error = pvera_checkpoint_grow(folder, out, in_max, out_max, &options);
    running = outer;
    return error;
}

pvera_error *pvera_go_merge_files(uintptr_t call, const pvera_context *context, const pvera_adapter *adapter, const char *files,
                                  const char *out, pvera_files_options options) {
    uintptr_t outer = tell(call, &options);
    pvera_error *error = pvera_merge_files(context, adapter, files, out, &options);
    running = outer;
    return error;
}

pvera_error *pvera_go_import_authors(uintptr_t call, const char *file, const char *out, pvera_authors_options authors,
                                     pvera_files_options options) {
    uintptr_t outer = tell(call, &options);
    pvera_error *error = pvera_import_authors(file, out, &authors, &options);
    running = outer;
    return error;
}
