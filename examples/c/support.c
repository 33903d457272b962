/* Errors and memory; see support.h. */
#include "support.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

void check(pvera_error *error) {
    if (error != NULL) fail("pvera: %s (error %d)", pvera_error_message(error), (int)pvera_error_code(error));
}

void fail(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fflush(stdout);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(EXIT_FAILURE);
}

static int failed;

void require(bool holds, const char *what) {
    if (holds) return;
    printf("FAILED: %s\n", what);
    failed++;
}

int failures(void) { return failed; }

void join_path(const char *folder, const char *name, char path[LONGEST_PATH]) {
    if (snprintf(path, LONGEST_PATH, "%s/%s", folder, name) >= LONGEST_PATH) fail("%s: the path is too long", folder);
}

void *allocate(size_t count, size_t size) {
    void *memory = calloc(count > 0 ? count : 1, size);
    if (memory == NULL) fail("no memory for %zu times %zu bytes", count, size);
    return memory;
}
