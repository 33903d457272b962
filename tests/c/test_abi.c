/* The binary interface: every constant, every struct's size and offsets, the version. What is frozen here can only change
 * with a new major version; a struct with struct_size may grow at its end. */
#include "check.h"

#define SIZE(type, bytes) _Static_assert(sizeof(type) == (bytes), #type)
#define FIELD(type, field, at) _Static_assert(offsetof(type, field) == (at), #type "." #field)
#define VALUE(name, number) _Static_assert((name) == (number), #name)

static void constants(void) {
    VALUE(PVERA_OK, 0);
    VALUE(PVERA_ERROR_NULL, 1);
    VALUE(PVERA_ERROR_ARGUMENT, 2);
    VALUE(PVERA_ERROR_SHAPE, 3);
    VALUE(PVERA_ERROR_DTYPE, 4);
    VALUE(PVERA_ERROR_STRIDE, 5);
    VALUE(PVERA_ERROR_OVERLAP, 6);
    VALUE(PVERA_ERROR_DEVICE, 7);
    VALUE(PVERA_ERROR_NOT_FOUND, 8);
    VALUE(PVERA_ERROR_EXISTS, 9);
    VALUE(PVERA_ERROR_STATE, 10);
    VALUE(PVERA_ERROR_IO, 11);
    VALUE(PVERA_ERROR_FORMAT, 12);
    VALUE(PVERA_ERROR_CONFIG, 13);
    VALUE(PVERA_ERROR_PROJECTION, 14);
    VALUE(PVERA_ERROR_MEMORY, 15);
    VALUE(PVERA_ERROR_UNSUPPORTED, 16);
    VALUE(PVERA_ERROR_OVERFLOW, 17);
    VALUE(PVERA_ERROR_CANCELLED, 18);
    VALUE(PVERA_ERROR_PANIC, 19);
    VALUE(PVERA_ERROR_CUDA, 20);
    VALUE(PVERA_DTYPE_INT, 0);
    VALUE(PVERA_DTYPE_UINT, 1);
    VALUE(PVERA_DTYPE_FLOAT, 2);
    VALUE(PVERA_DTYPE_BFLOAT, 4);
    VALUE(PVERA_DTYPE_COMPLEX, 5);
    VALUE(PVERA_DTYPE_BOOL, 6);
    VALUE(PVERA_DEVICE_CPU, 1);
    VALUE(PVERA_DEVICE_CUDA, 2);
    VALUE(PVERA_DEVICE_CUDA_HOST, 3);
    VALUE(PVERA_BACKEND_CPU, 0);
    VALUE(PVERA_BACKEND_REFERENCE, 1);
    VALUE(PVERA_BACKEND_CUDA, 2);
    VALUE(PVERA_WEIGHT_OUT_IN, 0);
    VALUE(PVERA_WEIGHT_IN_OUT, 1);
    VALUE(PVERA_MODE_AS_PEFT, 0);
    VALUE(PVERA_MODE_MEAN, 1);
    VALUE(PVERA_MODE_SAMPLE, 2);
    VALUE(PVERA_MODE_FIXED, 3);
    VALUE(PVERA_TAPE_KEEP_LATENT, 0);
    VALUE(PVERA_TAPE_KEEP_DELTA, 1);
    VALUE(PVERA_TAPE_RECOMPUTE, 2);
    VALUE(PVERA_OVERWRITE_DX, 1);
    VALUE(PVERA_OVERWRITE_LAMBDA_B, 2);
    VALUE(PVERA_OVERWRITE_LAMBDA_D, 4);
    VALUE(PVERA_OVERWRITE_BIAS, 8);
    VALUE(PVERA_OVERWRITE_ALL, 15);
    VALUE(PVERA_KL_MEAN, 0);
    VALUE(PVERA_KL_SUM, 1);
    VALUE(PVERA_MERGE_MEAN, 1);
    VALUE(PVERA_FILES_MEAN, PVERA_MERGE_MEAN);
    VALUE(PVERA_FILES_LEAVE_OUT, 2);
    VALUE(PVERA_FILES_REPLACE, 4);
    VALUE(PVERA_ROPE_BY_ARCHITECTURE, 0);
    VALUE(PVERA_ROPE_KEEP, 1);
    VALUE(PVERA_ROPE_PERMUTE, 2);
}

/* On machines of 64 bits. */
static void layouts(void) {
#if UINTPTR_MAX == UINT64_MAX
    SIZE(pvera_bytes, 16);
    FIELD(pvera_bytes, data, 0);
    FIELD(pvera_bytes, size, 8);
    SIZE(pvera_dtype, 4);
    FIELD(pvera_dtype, code, 0);
    FIELD(pvera_dtype, bits, 1);
    FIELD(pvera_dtype, lanes, 2);
    SIZE(pvera_device, 8);
    FIELD(pvera_device, type, 0);
    FIELD(pvera_device, id, 4);
    SIZE(pvera_matrix, 48);
    FIELD(pvera_matrix, data, 0);
    FIELD(pvera_matrix, rows, 8);
    FIELD(pvera_matrix, cols, 16);
    FIELD(pvera_matrix, row_stride, 24);
    FIELD(pvera_matrix, dtype, 32);
    FIELD(pvera_matrix, device, 36);
    SIZE(pvera_matrix_mut, 48);
    FIELD(pvera_matrix_mut, data, 0);
    FIELD(pvera_matrix_mut, rows, 8);
    FIELD(pvera_matrix_mut, cols, 16);
    FIELD(pvera_matrix_mut, row_stride, 24);
    FIELD(pvera_matrix_mut, dtype, 32);
    FIELD(pvera_matrix_mut, device, 36);
    SIZE(pvera_allocator, 24);
    FIELD(pvera_allocator, allocate, 0);
    FIELD(pvera_allocator, release, 8);
    FIELD(pvera_allocator, user, 16);
    SIZE(pvera_context_options, 80);
    FIELD(pvera_context_options, struct_size, 0);
    FIELD(pvera_context_options, backend, 8);
    FIELD(pvera_context_options, threads, 12);
    FIELD(pvera_context_options, parallel_for, 16);
    FIELD(pvera_context_options, parallel_for_user, 24);
    FIELD(pvera_context_options, allocator, 32);
    FIELD(pvera_context_options, device, 56);
    FIELD(pvera_context_options, stream, 64);
    FIELD(pvera_context_options, cpu_features_off, 72);
    FIELD(pvera_context_options, products, 76);
    SIZE(pvera_callbacks, 24);
    FIELD(pvera_callbacks, warning, 0);
    FIELD(pvera_callbacks, progress, 8);
    FIELD(pvera_callbacks, user, 16);
    SIZE(pvera_store_options, 64);
    FIELD(pvera_store_options, struct_size, 0);
    FIELD(pvera_store_options, rank, 8);
    FIELD(pvera_store_options, in_max, 16);
    FIELD(pvera_store_options, out_max, 24);
    FIELD(pvera_store_options, base_dtype, 32);
    FIELD(pvera_store_options, allocator, 40);
    SIZE(pvera_model_options, 56);
    FIELD(pvera_model_options, struct_size, 0);
    FIELD(pvera_model_options, allocator, 8);
    FIELD(pvera_model_options, callbacks, 32);
    SIZE(pvera_layer, 168);
    FIELD(pvera_layer, struct_size, 0);
    FIELD(pvera_layer, name, 8);
    FIELD(pvera_layer, in_features, 16);
    FIELD(pvera_layer, out_features, 24);
    FIELD(pvera_layer, in_offset, 32);
    FIELD(pvera_layer, out_offset, 40);
    FIELD(pvera_layer, in_total, 48);
    FIELD(pvera_layer, out_total, 56);
    FIELD(pvera_layer, weight, 64);
    FIELD(pvera_layer, weight_layout, 112);
    FIELD(pvera_layer, output_head, 116);
    FIELD(pvera_layer, bias, 120);
    SIZE(pvera_adapter_options, 40);
    FIELD(pvera_adapter_options, struct_size, 0);
    FIELD(pvera_adapter_options, in_max, 8);
    FIELD(pvera_adapter_options, out_max, 16);
    FIELD(pvera_adapter_options, base_dtype, 24);
    FIELD(pvera_adapter_options, ignore_undeclared, 28);
    FIELD(pvera_adapter_options, map_file, 29);
    FIELD(pvera_adapter_options, identity, 32);
    SIZE(pvera_parameter_range, 48);
    FIELD(pvera_parameter_range, lambda_b, 0);
    FIELD(pvera_parameter_range, lambda_b_count, 8);
    FIELD(pvera_parameter_range, lambda_d, 16);
    FIELD(pvera_parameter_range, lambda_d_count, 24);
    FIELD(pvera_parameter_range, bias, 32);
    FIELD(pvera_parameter_range, bias_count, 40);
    SIZE(pvera_tensor, 56);
    FIELD(pvera_tensor, name, 0);
    FIELD(pvera_tensor, name_size, 8);
    FIELD(pvera_tensor, dtype, 16);
    FIELD(pvera_tensor, dimensions, 24);
    FIELD(pvera_tensor, shape, 32);
    FIELD(pvera_tensor, data, 40);
    FIELD(pvera_tensor, size, 48);
    SIZE(pvera_linear_vectors, 48);
    FIELD(pvera_linear_vectors, struct_size, 0);
    FIELD(pvera_linear_vectors, lambda_b, 8);
    FIELD(pvera_linear_vectors, lambda_d, 16);
    FIELD(pvera_linear_vectors, bias, 24);
    FIELD(pvera_linear_vectors, identity, 32);
    FIELD(pvera_linear_vectors, device, 40);
    SIZE(pvera_active, 8);
    FIELD(pvera_active, slot, 0);
    FIELD(pvera_active, scale, 4);
    SIZE(pvera_rows, 72);
    FIELD(pvera_rows, struct_size, 0);
    FIELD(pvera_rows, slot, 8);
    FIELD(pvera_rows, active, 16);
    FIELD(pvera_rows, active_count, 24);
    FIELD(pvera_rows, identity, 32);
    FIELD(pvera_rows, identity_base, 40);
    FIELD(pvera_rows, sample, 48);
    FIELD(pvera_rows, sample_base, 56);
    FIELD(pvera_rows, reserved, 60);
    FIELD(pvera_rows, device, 64);
    SIZE(pvera_noise, 128);
    FIELD(pvera_noise, struct_size, 0);
    FIELD(pvera_noise, mode, 8);
    FIELD(pvera_noise, antithetic, 12);
    FIELD(pvera_noise, seed, 16);
    FIELD(pvera_noise, seed_at, 24);
    FIELD(pvera_noise, eps, 32);
    FIELD(pvera_noise, dropout_mask, 80);
    SIZE(pvera_slot_gradients, 32);
    FIELD(pvera_slot_gradients, slot, 0);
    FIELD(pvera_slot_gradients, lambda_b, 8);
    FIELD(pvera_slot_gradients, lambda_d, 16);
    FIELD(pvera_slot_gradients, bias, 24);
    SIZE(pvera_gradients, 168);
    FIELD(pvera_gradients, struct_size, 0);
    FIELD(pvera_gradients, overwrite, 8);
    FIELD(pvera_gradients, kl_reduction, 12);
    FIELD(pvera_gradients, slots, 16);
    FIELD(pvera_gradients, slot_count, 24);
    FIELD(pvera_gradients, kl_weight, 32);
    FIELD(pvera_gradients, kl_value, 40);
    FIELD(pvera_gradients, dmu, 48);
    FIELD(pvera_gradients, dlogvar, 96);
    FIELD(pvera_gradients, variance, 144);
    FIELD(pvera_gradients, variance_count, 152);
    FIELD(pvera_gradients, variance_index, 160);
    SIZE(pvera_stopping, 24);
    FIELD(pvera_stopping, struct_size, 0);
    FIELD(pvera_stopping, error_level, 8);
    FIELD(pvera_stopping, maximum_passes, 16);
    SIZE(pvera_bin, 24);
    FIELD(pvera_bin, count, 0);
    FIELD(pvera_bin, confidence, 8);
    FIELD(pvera_bin, accuracy, 16);
    SIZE(pvera_files_options, 48);
    FIELD(pvera_files_options, struct_size, 0);
    FIELD(pvera_files_options, flags, 8);
    FIELD(pvera_files_options, dtype, 12);
    FIELD(pvera_files_options, prefix, 16);
    FIELD(pvera_files_options, callbacks, 24);
    SIZE(pvera_gguf_name, 16);
    FIELD(pvera_gguf_name, module, 0);
    FIELD(pvera_gguf_name, tensor, 8);
    SIZE(pvera_gguf_options, 56);
    FIELD(pvera_gguf_options, struct_size, 0);
    FIELD(pvera_gguf_options, architecture, 8);
    FIELD(pvera_gguf_options, names, 16);
    FIELD(pvera_gguf_options, name_count, 24);
    FIELD(pvera_gguf_options, heads, 32);
    FIELD(pvera_gguf_options, kv_heads, 40);
    FIELD(pvera_gguf_options, rope, 48);
    SIZE(pvera_authors_options, 40);
    FIELD(pvera_authors_options, struct_size, 0);
    FIELD(pvera_authors_options, alpha, 8);
    FIELD(pvera_authors_options, head, 16);
    FIELD(pvera_authors_options, seed, 24);
    FIELD(pvera_authors_options, draws, 32);
    SIZE(pvera_adamw, 48);
    FIELD(pvera_adamw, struct_size, 0);
    FIELD(pvera_adamw, learning_rate, 8);
    FIELD(pvera_adamw, beta1, 16);
    FIELD(pvera_adamw, beta2, 24);
    FIELD(pvera_adamw, epsilon, 32);
    FIELD(pvera_adamw, weight_decay, 40);
#endif
}

static void version(void) {
    char text[32];
    CHECK(pvera_version() == PVERA_VERSION, "%u for %d", pvera_version(), PVERA_VERSION);
    CHECK(pvera_version() == PVERA_VERSION_MAJOR * 1000000u + PVERA_VERSION_MINOR * 1000u + PVERA_VERSION_PATCH, "the parts");
    CHECK(strcmp(pvera_version_text(), PVERA_VERSION_TEXT) == 0, "%s for %s", pvera_version_text(), PVERA_VERSION_TEXT);
    snprintf(text, sizeof text, "%d.%d.%d", PVERA_VERSION_MAJOR, PVERA_VERSION_MINOR, PVERA_VERSION_PATCH);
    CHECK(strcmp(text, PVERA_VERSION_TEXT) == 0, "%s for %s", text, PVERA_VERSION_TEXT);
    CHECK(strcmp(text, PROJECT_VERSION) == 0, "%s for CMake's %s", text, PROJECT_VERSION);
}

static void conveniences(void) {
    float values[6] = {0};
    pvera_matrix in = pvera_f32(values, 2, 3);
    pvera_matrix_mut out = pvera_f32_mut(values, 3, 2);
    CHECK(in.data == values && in.rows == 2 && in.cols == 3 && in.row_stride == 3 && in.dtype.bits == 32, "pvera_f32");
    CHECK(out.data == values && out.rows == 3 && out.cols == 2 && out.row_stride == 2 && out.device.type == 1, "pvera_f32_mut");
    CHECK(PVERA_F32.bits == 32 && PVERA_F16.bits == 16 && PVERA_F16.code == 2 && PVERA_BF16.code == 4, "dtypes");
    pvera_adamw adamw = pvera_adamw_default();
    CHECK(adamw.struct_size == sizeof adamw && adamw.learning_rate == 1e-3 && adamw.beta1 == 0.9 && adamw.beta2 == 0.999 &&
              adamw.epsilon == 1e-8 && adamw.weight_decay == 1e-2,
          "PyTorch's defaults");
}

int main(int argc, char **argv) {
    check_begin(argc, argv);
    constants();
    layouts();
    version();
    conveniences();
    return check_end();
}
