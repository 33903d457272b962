/* The example's results in words and numbers, with what they have to be. */
#ifndef REPORT_H
#define REPORT_H

#include "inputs.h"

/* Prints the results, requires that they are good, and draws them into OUT_DIR/digits.svg. */
void report(network *net, const inputs kind[KINDS], uint64_t seed, const char *out);

#endif
