/* Inputs of one kind, measured: what the adapted network makes of them by draws, by a mean forward, by one backward. */
#ifndef INPUTS_H
#define INPUTS_H

#include "belief.h"
#include "data.h"
#include "network.h"

/* Inputs of one kind, and what the adapted network makes of them. */
typedef struct inputs {
    images set;
    belief belief;
    double *mean_probabilities;        /* of the mean forward, [count, CLASSES] */
    double *mean_entropy;              /* [count] */
    double *first_order, *monte_carlo; /* standard deviations of the chosen logit, [count] */
} inputs;

enum { FAMILIAR, SCRAMBLED, INVERTED, UPRIGHT, KINDS };

/* Takes the images over. */
inputs measure(network *net, images set, uint64_t seed);
void inputs_free(inputs *in);

/* Whether the draws together choose the right class. */
bool is_right(const inputs *in, size_t image);

#endif
