/* What every part of the example needs: an end with a sentence when something fails, and memory that is there. */
#ifndef SUPPORT_H
#define SUPPORT_H

#include <pvera.h>

enum { LONGEST_PATH = 4096 };

/* Ends the program with the library's sentence, unless error is NULL. */
void check(pvera_error *error);

/* Ends the program with this sentence. */
_Noreturn void fail(const char *format, ...);

/* Says what does not hold, and counts it. */
void require(bool holds, const char *what);
int failures(void);

/* Zeroed memory, or the end of the program. */
void *allocate(size_t count, size_t size);

/* folder/name, or the end of the program where that is too long. */
void join_path(const char *folder, const char *name, char path[LONGEST_PATH]);

#endif
