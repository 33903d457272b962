/* The example's results as one picture. */
#ifndef PICTURE_H
#define PICTURE_H

#include "belief.h"
#include "data.h"

enum { GROUPS = 5, EXAMPLES = 6 };

/* Inputs of one kind, with what the draws say about each. */
typedef struct group {
    const char *name;
    size_t count;
    const double *width;
    const double *first_order, *monte_carlo; /* standard deviations of the chosen logit */
    double auroc;                            /* of the width, against familiar inputs; 0 leaves it out */
} group;

/* One input and the distribution of its reading. */
typedef struct example {
    const char *kind;
    const belief *belief;
    const float *pixels;
    size_t image;
    int label; /* −1 for an input that shows no digit it could be right about */
} example;

typedef struct picture {
    score base, mean, draws;
    group groups[GROUPS];
    example examples[EXAMPLES];
} picture;

void picture_write(const picture *p, const char *path);

#endif
