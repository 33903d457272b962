/* ---- Conveniences for C and C++, made of the above ---- */

/** How a value of a struct is written, in C and in C++. */
#ifdef __cplusplus
#define PVERA_LITERAL(type) type
#else
#define PVERA_LITERAL(type) (type)
#endif

/** IEEE single precision. */
#define PVERA_F32 (PVERA_LITERAL(pvera_dtype){PVERA_DTYPE_FLOAT, 32, 1})
/** IEEE half precision. */
#define PVERA_F16 (PVERA_LITERAL(pvera_dtype){PVERA_DTYPE_FLOAT, 16, 1})
/** The upper half of an f32. */
#define PVERA_BF16 (PVERA_LITERAL(pvera_dtype){PVERA_DTYPE_BFLOAT, 16, 1})

/** A dense f32 matrix on the CPU, to be read. */
static inline pvera_matrix pvera_f32(const float *data, size_t rows, size_t cols) {
    pvera_matrix matrix = {data, rows, cols, cols, {PVERA_DTYPE_FLOAT, 32, 1}, {PVERA_DEVICE_CPU, 0}};
    return matrix;
}

/** A dense f32 matrix on the CPU, to be written. */
static inline pvera_matrix_mut pvera_f32_mut(float *data, size_t rows, size_t cols) {
    pvera_matrix_mut matrix = {data, rows, cols, cols, {PVERA_DTYPE_FLOAT, 32, 1}, {PVERA_DEVICE_CPU, 0}};
    return matrix;
}
