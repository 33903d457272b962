/* What many sampled passes say about a set of images, and numbers to judge it by. */
#ifndef BELIEF_H
#define BELIEF_H

#include <pvera.h>

#include "data.h"
#include "network.h"

/* The calibration error is that of BINS bins; the picture shows fewer, so that each holds some predictions. */
enum { DRAWS = 64, BINS = 15, BINS_SHOWN = 6, PASSES_AT_A_TIME = 8 };

/* The edges of the interval in which 90 % of a probability's draws lie. */
#define LOWER_QUANTILE 0.05
#define UPPER_QUANTILE 0.95

/* Probabilities of one set of images from DRAWS passes. The chosen class is the one with the largest mean. */
typedef struct belief {
    size_t count;
    float *draws;           /* [DRAWS, count, CLASSES] */
    double *mean;           /* [count, CLASSES] */
    double *logit_variance; /* [count, CLASSES] */
    double *information;    /* [count], mutual information in nats: the doubt that comes from the adapter */
    double *width;          /* [count], of the interval of the chosen class's probability */
    size_t *choice;         /* [count] */
} belief;

belief belief_of(network *net, const images *set, uint64_t seed);
void belief_free(belief *b);

/* A quantile of the draws of one probability, by linear interpolation. */
double belief_quantile(const belief *b, size_t image, size_t class, double quantile);

/* What early stopping needed for a set: the draws of all rows together, and how many rows it left undecided. */
typedef struct stopped {
    size_t draws, undecided;
    size_t agreeing; /* decided rows whose class is also the most voted of all DRAWS passes */
} stopped;

stopped draw_until_decided(network *net, const images *set, uint64_t seed, double error_level);

/* How well probabilities [count, CLASSES] match the labels. */
typedef struct score {
    double accuracy, calibration_error;
    pvera_bin shown[BINS_SHOWN];
} score;

score score_of(const double *probabilities, const images *set);

/* The standard deviation of every image's logit of class `choice`, from one backward through the mean forward. */
void first_order_deviation(network *net, const images *set, const size_t *choice, double *deviation);

/* Softmax probabilities [count, CLASSES] of one forward; rows may be NULL. */
void probabilities_of(network *net, const images *set, const pvera_rows *rows, const pvera_noise *noise,
                      double *probabilities);

/* How often one of `high` exceeds one of `low`; a tie counts half. 1: always. 0.5: no difference. */
double auroc(const double *high, size_t high_count, const double *low, size_t low_count);

double entropy(const double *probabilities);
double mean_of(const double *values, size_t count);
double median_of(const double *values, size_t count);

/* Spearman's: the correlation of the ranks. */
double rank_correlation(const double *first, const double *second, size_t count);

#endif
