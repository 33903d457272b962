/* libcuda as the host engine of a test uses it, looked for at run time as the library does. */
#ifndef PVERA_TESTS_CUDA_DRIVER_H
#define PVERA_TESTS_CUDA_DRIVER_H

#include <dlfcn.h>

#include "check.h"

typedef uint64_t address;

struct cuda {
    void *library, *context, *stream;
};

/* Calls a function of libcuda that takes these types; it has to succeed. */
#define CUDA(cuda, name, types, ...) \
    do { \
        int (*function) types; \
        void *found = dlsym((cuda)->library, name); \
        memcpy(&function, &found, sizeof function); /* ISO C has no cast for this */ \
        int code = found ? function(__VA_ARGS__) : -1; \
        if (!CHECK(code == 0, "%s gave %d", name, code)) exit(check_end()); \
    } while (0)

static inline struct cuda cuda_open(void) {
    struct cuda cuda = {.library = dlopen("libcuda.so.1", RTLD_NOW)};
    int device = 0;
    if (!CHECK(cuda.library != NULL, "%s", dlerror())) exit(check_end());
    CUDA(&cuda, "cuInit", (unsigned), 0);
    CUDA(&cuda, "cuDeviceGet", (int *, int), &device, 0);
    CUDA(&cuda, "cuDevicePrimaryCtxRetain", (void **, int), &cuda.context, device);
    CUDA(&cuda, "cuCtxPushCurrent_v2", (void *), cuda.context);
    CUDA(&cuda, "cuStreamCreate", (void **, unsigned), &cuda.stream, 1);
    return cuda;
}

/* Whether the engine's context is current on this thread, as the engine left it. */
static inline bool cuda_is_current(const struct cuda *cuda) {
    void *current = NULL;
    CUDA(cuda, "cuCtxGetCurrent", (void **), &current);
    return current == cuda->context;
}

static inline void cuda_wait(const struct cuda *cuda) { CUDA(cuda, "cuStreamSynchronize", (void *), cuda->stream); }

static inline address cuda_upload(const struct cuda *cuda, const void *bytes, size_t size) {
    address at = 0;
    CUDA(cuda, "cuMemAlloc_v2", (address *, size_t), &at, size);
    CUDA(cuda, "cuMemcpyHtoD_v2", (address, const void *, size_t), at, bytes, size);
    return at;
}

static inline void cuda_download(const struct cuda *cuda, void *bytes, address from, size_t size) {
    cuda_wait(cuda);
    CUDA(cuda, "cuMemcpyDtoH_v2", (void *, address, size_t), bytes, from, size);
}

static inline void cuda_free(const struct cuda *cuda, address at) {
    cuda_wait(cuda);
    CUDA(cuda, "cuMemFree_v2", (address), at);
}

static inline void cuda_close(struct cuda *cuda) {
    CUDA(cuda, "cuStreamDestroy_v2", (void *), cuda->stream);
    void *popped = NULL;
    CUDA(cuda, "cuCtxPopCurrent_v2", (void **), &popped);
    CUDA(cuda, "cuDevicePrimaryCtxRelease_v2", (int), 0);
    /* What a double found wrong. A real driver has no opinion. */
    const char *(*report)(void);
    void *found = dlsym(cuda->library, "pvera_double_report");
    memcpy(&report, &found, sizeof report);
    if (found) CHECK(*report() == 0, "%s", report());
}

#endif
