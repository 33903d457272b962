/* Just enough of safetensors to read the golden files: names without escapes, at most two dimensions. */
#ifndef PVERA_TESTS_SAFETENSORS_H
#define PVERA_TESTS_SAFETENSORS_H

#include "numbers.h"

struct archive {
    char *header;
    uint8_t *bytes; /* what follows the header */
};

struct tensor {
    bool present;
    pvera_dtype dtype;
    size_t rows, cols, count;
    void *raw;     /* as in the file, aligned */
    float *values; /* the same as f32 */
};

/* A whole file and its size, with a NUL behind it. */
static inline char *read_file(const char *path, size_t *size) {
    FILE *file = fopen(path, "rb");
    if (!CHECK(file != NULL, "cannot open %s", path)) exit(check_end());
    fseek(file, 0, SEEK_END);
    *size = (size_t)ftell(file);
    rewind(file);
    char *bytes = malloc(*size + 1);
    bool whole = fread(bytes, 1, *size, file) == *size;
    fclose(file);
    if (!CHECK(whole, "cannot read %s", path)) exit(check_end());
    bytes[*size] = 0;
    return bytes;
}

static inline struct archive archive_open(const char *path) {
    size_t size = 0;
    uint64_t header = 0;
    char *file = read_file(path, &size);
    memcpy(&header, file, sizeof header);
    struct archive archive = {calloc(1, header + 1), malloc(size - 8 - header + 1)};
    memcpy(archive.header, file + 8, header);
    memcpy(archive.bytes, file + 8 + header, size - 8 - header);
    free(file);
    return archive;
}

static inline void archive_close(struct archive *archive) { free(archive->header), free(archive->bytes); }

static inline pvera_dtype dtype_of(const char *name) {
    pvera_dtype f32 = {PVERA_DTYPE_FLOAT, 32, 1}, f16 = {PVERA_DTYPE_FLOAT, 16, 1}, bf16 = {PVERA_DTYPE_BFLOAT, 16, 1};
    return strncmp(name, "F16", 3) == 0 ? f16 : strncmp(name, "BF16", 4) == 0 ? bf16 : f32;
}

/* The tensor of that name; present is false if there is none. */
static inline struct tensor tensor_read(const struct archive *archive, const char *module, const char *name) {
    struct tensor tensor = {0};
    char key[200];
    snprintf(key, sizeof key, "\"%s%s\":{", module, name);
    const char *entry = strstr(archive->header, key);
    if (!entry) return tensor;
    const char *shape = strstr(entry, "\"shape\":[") + strlen("\"shape\":[");
    size_t begin = strtoull(strstr(entry, "\"data_offsets\":[") + strlen("\"data_offsets\":["), NULL, 10);
    char *rest = NULL;
    tensor.present = true;
    tensor.dtype = dtype_of(strstr(entry, "\"dtype\":\"") + strlen("\"dtype\":\""));
    tensor.rows = 1;
    tensor.cols = strtoull(shape, &rest, 10);
    if (*rest == ',') tensor.rows = tensor.cols, tensor.cols = strtoull(rest + 1, NULL, 10);
    tensor.count = tensor.rows * tensor.cols;
    size_t width = element_size(tensor.dtype);
    tensor.raw = malloc(tensor.count * width);
    tensor.values = malloc(tensor.count * sizeof(float));
    memcpy(tensor.raw, archive->bytes + begin, tensor.count * width);
    for (size_t i = 0; i < tensor.count; ++i) tensor.values[i] = to_f32((char *)tensor.raw + i * width, tensor.dtype);
    return tensor;
}

static inline void tensor_free(struct tensor *tensor) { free(tensor->raw), free(tensor->values); }

/* As an argument; all zero (absent) if there is no such tensor. */
static inline pvera_matrix tensor_matrix(const struct tensor *tensor) {
    pvera_matrix matrix = {tensor->raw, tensor->rows, tensor->cols, tensor->cols, tensor->dtype, {PVERA_DEVICE_CPU, 0}};
    return matrix;
}

#endif
