/* Counts what anybody asks of the process's allocator: these definitions come before glibc's, for the library too. */
#ifndef PVERA_TESTS_ALLOCATION_COUNTER_H
#define PVERA_TESTS_ALLOCATION_COUNTER_H

#include <errno.h>
#include <execinfo.h>
#include <stdatomic.h>
#include <stddef.h>

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *block, size_t size);
void *__libc_memalign(size_t alignment, size_t size);
void __libc_free(void *block);

static struct {
    atomic_bool armed;
    atomic_size_t count;
    void *first[40]; /* who asked first */
    int depth;
} counter;

static void counted(void) {
    if (!atomic_load(&counter.armed) || atomic_fetch_add(&counter.count, 1) > 0) return;
    counter.depth = backtrace(counter.first, sizeof counter.first / sizeof *counter.first);
}

void *malloc(size_t size) { return counted(), __libc_malloc(size); }
void *calloc(size_t count, size_t size) { return counted(), __libc_calloc(count, size); }
void *realloc(void *block, size_t size) { return counted(), __libc_realloc(block, size); }
void *memalign(size_t alignment, size_t size) { return counted(), __libc_memalign(alignment, size); }
void *aligned_alloc(size_t alignment, size_t size) { return counted(), __libc_memalign(alignment, size); }

int posix_memalign(void **block, size_t alignment, size_t size) {
    counted();
    *block = __libc_memalign(alignment, size);
    return *block ? 0 : ENOMEM;
}

/* Nothing is given back either that is not asked for again. */
void free(void *block) {
    if (block) counted();
    __libc_free(block);
}

/* From here on every request counts, of any thread. */
static inline void counter_start(void) {
    atomic_store(&counter.count, 0);
    atomic_store(&counter.armed, true);
}

static inline size_t counter_stop(void) {
    atomic_store(&counter.armed, false);
    return atomic_load(&counter.count);
}

/* The first backtrace loads what it needs, which allocates. */
static inline void counter_prepare(void) { backtrace(counter.first, 1); }

#endif
