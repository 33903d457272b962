/* The API as its clients need it, written before the implementation. The real header is include/pvera.h. */
#pragma once
#include <stddef.h>
#include <stdint.h>
#include <stdbool.h>

typedef struct pvera_error pvera_error;
typedef struct pvera_config pvera_config;
typedef struct pvera_store pvera_store;
typedef struct pvera_adapter pvera_adapter;
typedef struct pvera_model pvera_model;
typedef struct pvera_snapshot pvera_snapshot;
typedef struct pvera_linear pvera_linear;
typedef struct pvera_context pvera_context;
typedef struct pvera_tape pvera_tape;
typedef struct pvera_undo pvera_undo;
typedef struct pvera_statistics pvera_statistics;

/* ---- matrices: frozen, DLPack's vocabulary ---- */
typedef struct pvera_dtype { uint8_t code; uint8_t bits; uint16_t lanes; } pvera_dtype;
typedef struct pvera_device { int32_t type; int32_t id; } pvera_device;
typedef struct pvera_matrix { const void *data; size_t rows, cols, row_stride; pvera_dtype dtype; pvera_device device; } pvera_matrix;
typedef struct pvera_matrix_mut { void *data; size_t rows, cols, row_stride; pvera_dtype dtype; pvera_device device; } pvera_matrix_mut;
#define PVERA_F32 ((pvera_dtype){2, 32, 1})
#define PVERA_F16 ((pvera_dtype){2, 16, 1})
#define PVERA_BF16 ((pvera_dtype){4, 16, 1})

/* ---- what the host gives ---- */
typedef struct pvera_allocator { void *(*allocate)(void *user, size_t size, size_t alignment); void (*release)(void *user, void *memory, size_t size, size_t alignment); void *user; } pvera_allocator;
typedef struct pvera_callbacks { void (*warning)(void *user, const char *message); int32_t (*progress)(void *user, const char *stage, uint64_t done, uint64_t total); void *user; } pvera_callbacks;
typedef void (*pvera_task)(void *task, size_t index);
typedef struct pvera_context_options {
    size_t struct_size;
    int32_t backend;               /* 0 cpu, 1 reference, 2 cuda */
    uint32_t threads;              /* own workers beside the caller's thread; 0: none */
    void (*parallel_for)(void *user, size_t count, pvera_task run, void *task); void *parallel_user;
    pvera_allocator allocator;
    pvera_device device; void *stream;   /* part 3 */
} pvera_context_options;
typedef struct pvera_model_options { size_t struct_size; pvera_allocator allocator; pvera_callbacks callbacks; } pvera_model_options;

/* ---- declared layers ---- */
typedef struct pvera_layer {
    size_t struct_size;
    const char *name;
    size_t in_features, out_features;   /* of this shard */
    size_t in_offset, out_offset;       /* where the shard begins in the whole layer */
    size_t in_total, out_total;         /* of the whole layer; 0: offset + features */
    pvera_matrix weight;                /* optional, borrowed */
    int32_t weight_layout;              /* 0 [out, in]; 1 [in, out] */
    pvera_matrix bias;                  /* optional, borrowed, [1, out] */
    bool output_head;                   /* for "all-linear" */
} pvera_layer;

/* ---- one call ---- */
typedef struct pvera_active { int32_t slot; float scale; } pvera_active;
typedef struct pvera_rows {
    size_t struct_size;
    const int32_t *slot;                               /* [n], -1 base only; or NULL */
    const pvera_active *active; size_t active_count;   /* summed on every row; both NULL: slot 0 */
    const uint64_t *identity; uint64_t identity_base;  /* NULL: base + row */
    const uint32_t *sample; uint32_t sample_base;      /* NULL: base */
} pvera_rows;
typedef struct pvera_noise {
    size_t struct_size;
    int32_t mode;                 /* 0 as PEFT would; 1 mean; 2 sample; 3 fixed */
    int32_t antithetic;
    uint64_t seed; const uint64_t *seed_at;   /* seed_at: read when the work runs (CUDA graphs) */
    pvera_matrix eps;             /* caller's noise instead of keyed */
    pvera_matrix dropout_mask;    /* caller's mask instead of keyed */
} pvera_noise;
typedef struct pvera_slot_gradients { int32_t slot; float *lambda_b, *lambda_d, *bias; } pvera_slot_gradients;
typedef struct pvera_gradients {
    size_t struct_size;
    uint32_t overwrite;           /* bits; default: accumulate */
    const pvera_slot_gradients *slots; size_t slot_count;
    double kl_weight; int32_t kl_reduction; double *kl_value;
    pvera_matrix dmu, dlogvar;    /* of other priors, added */
    double *variance; size_t variance_count; const uint32_t *variance_index;
} pvera_gradients;
typedef struct pvera_parameter_range { size_t lambda_b, lambda_b_count, lambda_d, lambda_d_count, bias, bias_count; } pvera_parameter_range;
typedef struct pvera_adamw { size_t struct_size; float learning_rate, beta1, beta2, epsilon, weight_decay; } pvera_adamw;

#ifdef __cplusplus
extern "C" {
#endif
int32_t pvera_error_code(const pvera_error *error);
const char *pvera_error_message(const pvera_error *error);
void pvera_error_free(pvera_error *error);

pvera_error *pvera_config_new(pvera_config **out);
pvera_error *pvera_config_set_int(pvera_config *config, const char *field, int64_t value);
pvera_error *pvera_config_set_json(pvera_config *config, const char *field, const char *json);
void pvera_config_free(pvera_config *config);

typedef struct pvera_store_options { size_t struct_size; size_t rank, in_max, out_max; pvera_dtype round_to; pvera_allocator allocator; } pvera_store_options;
pvera_error *pvera_store_from_key(uint64_t key, const pvera_store_options *options, pvera_store **out);
void pvera_store_free(pvera_store *store);

pvera_error *pvera_model_new(const pvera_model_options *options, pvera_model **out);
pvera_error *pvera_model_declare(pvera_model *model, const pvera_layer *layer, size_t *index);
pvera_error *pvera_model_publish(pvera_model *model, const char *name, const pvera_adapter *adapter, int32_t *slot);
pvera_error *pvera_model_replace(pvera_model *model, const char *name, const pvera_adapter *adapter, int32_t *slot);
pvera_error *pvera_model_remove(pvera_model *model, const char *name);
pvera_error *pvera_model_snapshot(const pvera_model *model, pvera_snapshot **out);
void pvera_model_free(pvera_model *model);
pvera_error *pvera_snapshot_slot(const pvera_snapshot *snapshot, const char *name, int32_t *slot);
pvera_error *pvera_snapshot_linear(const pvera_snapshot *snapshot, size_t layer, const pvera_linear **linear);
void pvera_snapshot_free(pvera_snapshot *snapshot);

typedef struct pvera_adapter_options { size_t struct_size; size_t in_max, out_max; pvera_dtype base_dtype; bool ignore_undeclared, map_file; } pvera_adapter_options;
pvera_error *pvera_adapter_load(const pvera_model *model, const char *folder, const pvera_adapter_options *options, pvera_adapter **out);
pvera_error *pvera_adapter_new(const pvera_model *model, const pvera_config *config, const pvera_adapter_options *options, pvera_adapter **out);
pvera_error *pvera_adapter_trainable(const pvera_adapter *adapter, float *memory, size_t count, pvera_adapter **out);
pvera_error *pvera_adapter_parameters(pvera_adapter *adapter, float **parameters, size_t *count);
pvera_error *pvera_adapter_range(const pvera_adapter *adapter, size_t layer, pvera_parameter_range *range);
pvera_error *pvera_adapter_linear(const pvera_adapter *adapter, size_t layer, pvera_linear **out);
pvera_error *pvera_adapter_save(const pvera_adapter *adapter, const char *folder);
void pvera_adapter_free(pvera_adapter *adapter);

typedef struct pvera_linear_vectors { size_t struct_size; const float *lambda_b, *lambda_d, *bias; uint64_t identity; } pvera_linear_vectors;
pvera_error *pvera_linear_new(const pvera_layer *layer, const pvera_store *store, const pvera_config *config, const pvera_linear_vectors *vectors, pvera_linear **out);
void pvera_linear_free(pvera_linear *linear);

pvera_error *pvera_context_new(const pvera_context_options *options, pvera_context **out);
pvera_error *pvera_context_check(pvera_context *context);
void pvera_context_free(pvera_context *context);
pvera_error *pvera_tape_new(int32_t policy, pvera_tape **out);
void pvera_tape_free(pvera_tape *tape);

pvera_error *pvera_forward(pvera_context *, const pvera_linear *, const pvera_matrix *x, const pvera_rows *, const pvera_noise *, pvera_tape *, const pvera_matrix_mut *y);
pvera_error *pvera_forward_group(pvera_context *, size_t count, const pvera_linear *const *, const pvera_matrix *x, const pvera_rows *, const pvera_noise *, pvera_tape *, const pvera_matrix_mut *y);
pvera_error *pvera_backward(pvera_context *, const pvera_tape *, const pvera_matrix *dy, const pvera_gradients *, const pvera_matrix_mut *dx);
pvera_error *pvera_backward_group(pvera_context *, const pvera_tape *, size_t count, const pvera_matrix *dy, const pvera_gradients *, const pvera_matrix_mut *dx);
pvera_error *pvera_sample(pvera_context *, const pvera_linear *, const pvera_matrix *x, const pvera_rows *, const pvera_noise *, size_t samples, const pvera_matrix_mut *y);
pvera_error *pvera_moments(pvera_context *, const pvera_linear *, const pvera_matrix *x, const pvera_rows *, const pvera_matrix_mut *mean, const pvera_matrix_mut *variance);
pvera_error *pvera_latent(pvera_context *, const pvera_linear *, const pvera_matrix *x, const pvera_rows *, const pvera_matrix_mut *mu, const pvera_matrix_mut *logvar);
pvera_error *pvera_project_width(const pvera_linear *, const pvera_rows *, size_t *width);
pvera_error *pvera_project(pvera_context *, const pvera_linear *, const pvera_matrix *x, const pvera_rows *, const pvera_noise *, const pvera_matrix_mut *p);
pvera_error *pvera_project_part(pvera_context *, const pvera_linear *, const pvera_matrix *x, const pvera_rows *, const pvera_noise *, const pvera_matrix_mut *p, size_t index, size_t count);
pvera_error *pvera_expand(pvera_context *, const pvera_linear *, const pvera_matrix *p, const pvera_rows *, const pvera_noise *, const pvera_matrix_mut *y);
pvera_error *pvera_expand_part(pvera_context *, const pvera_linear *, const pvera_matrix *p, const pvera_rows *, const pvera_noise *, const pvera_matrix_mut *y, size_t index, size_t count);
pvera_error *pvera_merge(pvera_context *, const pvera_linear *, const pvera_rows *, bool drop_sampling, const pvera_matrix *weight, const pvera_matrix_mut *merged, pvera_undo **undo);
pvera_error *pvera_unmerge(const pvera_undo *undo, const pvera_matrix_mut *weight);
void pvera_undo_free(pvera_undo *undo);
pvera_error *pvera_adamw_step(const pvera_adamw *, uint64_t step, size_t count, float *parameters, const float *gradients, float *first, float *second);

pvera_error *pvera_statistics_new(size_t rows, size_t outputs, pvera_statistics **out);
pvera_error *pvera_statistics_add(pvera_statistics *, const pvera_matrix *pass);
pvera_error *pvera_statistics_mean_interval(const pvera_statistics *, double level, double *lower, double *upper);
void pvera_statistics_free(pvera_statistics *);
#ifdef __cplusplus
}
#endif
