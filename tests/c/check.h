/* Checks for the C tests: they count, print file:line and values, and make the program fail.
 *
 * Between check_begin and check_end whatever anybody writes to stdout or stderr is captured, and check_end fails if there
 * was any: the library prints nothing. The checks report to the stderr that was there before. */
#ifndef PVERA_TESTS_CHECK_H
#define PVERA_TESTS_CHECK_H

#include <math.h>
#include <pvera.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct {
    FILE *report, *captured;
    unsigned checks, failures;
    bool verbose; /* --verbose: every error sentence is shown */
} check_state;

static inline void check_begin(int argc, char **argv) {
    for (int i = 1; i < argc; ++i) check_state.verbose |= strcmp(argv[i], "--verbose") == 0;
    check_state.report = fdopen(dup(STDERR_FILENO), "w");
    check_state.captured = tmpfile();
    if (!check_state.report || !check_state.captured) exit(2);
    setvbuf(check_state.report, NULL, _IOLBF, BUFSIZ);
    dup2(fileno(check_state.captured), STDOUT_FILENO);
    dup2(fileno(check_state.captured), STDERR_FILENO);
}

/* Counts one check; says where and what if it failed. */
static inline bool check_that(bool passed, const char *file, int line, const char *format, ...) {
    ++check_state.checks;
    if (passed) return true;
    ++check_state.failures;
    va_list values;
    va_start(values, format);
    fprintf(check_state.report, "%s:%d: ", file, line);
    vfprintf(check_state.report, format, values);
    fputc('\n', check_state.report);
    va_end(values);
    return false;
}

/* The exit status. */
static inline int check_end(void) {
    fflush(NULL);
    long printed = lseek(fileno(check_state.captured), 0, SEEK_END);
    check_that(printed == 0, __FILE__, __LINE__, "%ld bytes were printed to stdout or stderr", printed);
    if (printed > 0) {
        char text[2000];
        rewind(check_state.captured);
        size_t got = fread(text, 1, sizeof text, check_state.captured);
        fprintf(check_state.report, "%.*s\n", (int)got, text);
    }
    fprintf(check_state.report, "%u checks, %u failed\n", check_state.checks, check_state.failures);
    fclose(check_state.captured);
    int status = check_state.failures > 0 || check_state.checks == 0;
    fclose(check_state.report);
    return status;
}

/* CHECK(n == 3, "n is %zu", n) */
#define CHECK(condition, ...) check_that((condition), __FILE__, __LINE__, #condition " does not hold: " __VA_ARGS__)

static inline bool check_success(pvera_error *error, const char *file, int line, const char *call) {
    bool good = check_that(error == NULL, file, line, "%s\n  failed with %d: %s", call, pvera_error_code(error),
                           pvera_error_message(error));
    pvera_error_free(error);
    return good;
}

/* The call succeeds. */
#define CHECK_OK(call) check_success((call), __FILE__, __LINE__, #call)

/* The call succeeds, or nothing after it makes sense. */
#define MUST(call) \
    do { \
        if (!CHECK_OK(call)) exit(check_end()); \
    } while (0)

/* The call fails with this code, and its sentence holds every word of the list "x|has 3 columns|wanted 4". */
static inline bool check_failure(pvera_error *error, int32_t code, const char *words, const char *file, int line,
                                 const char *call) {
    const char *message = pvera_error_message(error);
    bool good = check_that(pvera_error_code(error) == code, file, line, "%s\n  gave code %d: %s\n  wanted code %d", call,
                           pvera_error_code(error), message, code);
    char word[200];
    for (const char *rest = words; good && *rest;) {
        size_t length = strcspn(rest, "|");
        snprintf(word, sizeof word, "%.*s", (int)length, rest);
        good = check_that(strstr(message, word) != NULL, file, line, "%s\n  says \"%s\"\n  without \"%s\"", call, message,
                          word);
        rest += length + (rest[length] == '|');
    }
    if (check_state.verbose) fprintf(check_state.report, "%2d  %s\n", pvera_error_code(error), message);
    pvera_error_free(error);
    return good;
}

#define CHECK_ERROR(call, code, words) check_failure((call), (code), (words), __FILE__, __LINE__, #call)

#endif
