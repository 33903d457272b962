/* The calls whose arguments are structs with pointers in them, with the structs passed by value.
 *
 * Why: C takes a pointer to pvera_matrix, and cgo forbids a pointer to Go memory that holds a Go pointer, unless that one is
 * pinned. A struct passed by value is an argument like any other: the Go memory that it points to stays in place for
 * the call, by cgo's own rule, with no Pinner, no copy and no allocation on the way of a forward. */
#ifndef PVERA_GO_SHIM_H
#define PVERA_GO_SHIM_H

#include <pvera.h>
#include <stdlib.h>

/* ---- Computing: rows and noise are sized, a matrix of all zeros is absent where it may be ---- */

pvera_error *pvera_go_forward(const pvera_context *context, const pvera_linear *linear, pvera_matrix x, pvera_rows rows,
                              pvera_noise noise, pvera_tape *tape, pvera_matrix_mut y);
pvera_error *pvera_go_sample(const pvera_context *context, const pvera_linear *linear, pvera_matrix x, pvera_rows rows,
                             pvera_noise noise, size_t samples, pvera_matrix_mut y);
pvera_error *pvera_go_moments(const pvera_context *context, const pvera_linear *linear, pvera_matrix x, pvera_rows rows,
                              pvera_matrix_mut mean, pvera_matrix_mut variance);
pvera_error *pvera_go_latent(const pvera_context *context, const pvera_linear *linear, pvera_matrix x, pvera_rows rows,
                             pvera_matrix_mut mu, pvera_matrix_mut logvar);
/* count 0: the whole call; otherwise part index of count. */
pvera_error *pvera_go_project(const pvera_context *context, const pvera_linear *linear, pvera_matrix x, pvera_rows rows,
                              pvera_noise noise, pvera_matrix_mut p, size_t index, size_t count);
pvera_error *pvera_go_expand(const pvera_context *context, const pvera_linear *linear, pvera_matrix p, pvera_rows rows,
                             pvera_noise noise, pvera_matrix_mut y, size_t index, size_t count);
/* undo: NULL or a place for the result. */
pvera_error *pvera_go_merge(const pvera_context *context, const pvera_linear *linear, pvera_rows rows, uint32_t flags,
                            int32_t layout, pvera_matrix weight, pvera_matrix_mut merged, pvera_undo **undo);
pvera_error *pvera_go_unmerge(const pvera_undo *undo, pvera_matrix_mut weight);
pvera_error *pvera_go_forward_group(const pvera_context *context, size_t count, const pvera_linear *const *linears,
                                    pvera_matrix x, pvera_rows rows, pvera_noise noise, pvera_tape *tape,
                                    const pvera_matrix_mut *y);
/* dx of all zeros is left out. */
pvera_error *pvera_go_backward_group(const pvera_context *context, const pvera_tape *tape, size_t count,
                                     const pvera_matrix *dy, const pvera_gradients *gradients, pvera_matrix_mut dx);
pvera_error *pvera_go_project_width(const pvera_linear *linear, pvera_rows rows, size_t n, size_t *width, size_t *latents);
pvera_error *pvera_go_scratch_bytes(const pvera_context *context, size_t count, const pvera_linear *const *linears, size_t n,
                                    pvera_rows rows, size_t samples, bool training, size_t *bytes);
pvera_error *pvera_go_store_from_matrices(pvera_matrix a, pvera_matrix b, pvera_allocator allocator, pvera_store **store);
pvera_error *pvera_go_statistics_add(pvera_statistics *statistics, pvera_matrix values);
pvera_error *pvera_go_statistics_add_rows(pvera_statistics *statistics, size_t count, const size_t *rows,
                                          pvera_matrix values);

/* ---- Callbacks ---- */

/* options.parallel_for becomes the Go function behind the cgo.Handle host. */
pvera_error *pvera_go_context_new(pvera_context_options options, uintptr_t host, pvera_context **context);
/* A model whose warnings and progress reach the Go call that is running on this thread. */
pvera_error *pvera_go_model_new(pvera_allocator allocator, pvera_model **model);
void pvera_go_run_task(pvera_task run, void *task, size_t index);
/* What tells this thread from all others that live now. */
uintptr_t pvera_go_thread(void);

/* call: the cgo.Handle that warnings and progress go to meanwhile. */
pvera_error *pvera_go_store_from_key(uintptr_t call, uint64_t key, pvera_store_options options, pvera_store **store);
pvera_error *pvera_go_adapter_load(uintptr_t call, const pvera_model *model, const char *folder,
                                   const pvera_adapter_options *options, pvera_adapter **adapter);
pvera_error *pvera_go_adapter_load_memory(uintptr_t call, const pvera_model *model, const uint8_t *config, size_t config_size,
                                          const uint8_t *tensors, size_t tensors_size, const pvera_adapter_options *options,
                                          pvera_adapter **adapter);
pvera_error *pvera_go_bank_open(uintptr_t call, const pvera_model *model, const char *path, const pvera_bank_options *options,
                                pvera_bank **bank);
pvera_error *pvera_go_bank_append(uintptr_t call, const pvera_bank *bank, size_t count, char **names, pvera_adapter **adapters,
                                  pvera_dtype dtype);
pvera_error *pvera_go_bank_compact(uintptr_t call, const pvera_bank *bank);
pvera_error *pvera_go_bank_refresh(uintptr_t call, const pvera_bank *bank, bool *changed);
pvera_error *pvera_go_bank_verify(uintptr_t call, const pvera_bank *bank, size_t *damaged);
pvera_error *pvera_go_bank_adapter(uintptr_t call, const pvera_bank *bank, const char *name, pvera_adapter **adapter);
pvera_error *pvera_go_bank_snapshot(uintptr_t call, const pvera_bank *bank, size_t count, char **names, int32_t *slots,
                                    pvera_snapshot **snapshot);
pvera_error *pvera_go_adapter_new(uintptr_t call, const pvera_model *model, const pvera_config *config,
                                  const pvera_store *store, const pvera_adapter_options *options, pvera_adapter **adapter);

/* ---- Files: the callbacks of options are set here ---- */

pvera_error *pvera_go_model_declare_files(const pvera_model *model, const char *checkpoint, const char *files,
                                          pvera_files_options options, size_t *count, pvera_dtype *dtype);
pvera_error *pvera_go_adapter_export_lora(uintptr_t call, const pvera_adapter *adapter, const char *folder,
                                          pvera_files_options options);
pvera_error *pvera_go_adapter_export_gguf(uintptr_t call, const pvera_adapter *adapter, const char *path,
                                          pvera_gguf_options gguf, pvera_files_options options);
pvera_error *pvera_go_checkpoint_shrink(uintptr_t call, const char *folder, const char *out, pvera_files_options options,
                                        pvera_dtype *base_dtype, size_t *in_max);
pvera_error *pvera_go_checkpoint_check(uintptr_t call, const char *folder, pvera_files_options options, bool *held,
                                       pvera_dtype *base_dtype, int32_t *grid);
pvera_error *pvera_go_checkpoint_grow(uintptr_t call, const char *folder, const char *out, size_t in_max, size_t out_max,
                                      pvera_files_options options);
pvera_error *pvera_go_merge_files(uintptr_t call, const pvera_context *context, const pvera_adapter *adapter, const char *files,
                                  const char *out, pvera_files_options options);
pvera_error *pvera_go_import_authors(uintptr_t call, const char *file, const char *out, pvera_authors_options authors,
                                     pvera_files_options options);

#endif
