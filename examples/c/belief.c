/* Monte Carlo passes as extra rows, and statistics over them; see belief.h. */
#include "belief.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "support.h"

/* ---- Passes ---- */

/* The rows of a set that are drawn, and where their passes go. */
typedef struct drawing {
    network *net;
    const images *set;
    uint64_t seed;
    pvera_statistics *statistics;
    float *probabilities; /* [DRAWS, count, CLASSES], or NULL */
    float *pixels;        /* of one forward, as the four below */
    uint64_t *identity;
    uint32_t *sample;
    size_t *row;
} drawing;

static drawing drawing_new(network *net, const images *set, uint64_t seed) {
    drawing d = {.net = net, .set = set, .seed = seed};
    check(pvera_statistics_new(set->count, CLASSES, NULL, &d.statistics));
    d.pixels = allocate(net->rows * PIXELS, sizeof *d.pixels);
    d.identity = allocate(net->rows, sizeof *d.identity);
    d.sample = allocate(net->rows, sizeof *d.sample);
    d.row = allocate(net->rows, sizeof *d.row);
    return d;
}

static void drawing_free(drawing *d) {
    pvera_statistics_free(d->statistics);
    free(d->pixels);
    free(d->identity);
    free(d->sample);
    free(d->row);
}

static void keep_probabilities(const drawing *d, const float *logits, size_t n) {
    for (size_t i = 0; i < n; i++) {
        double probability[CLASSES];
        softmax(&logits[i * CLASSES], probability);
        float *kept = &d->probabilities[(d->sample[i] * d->set->count + d->row[i]) * CLASSES];
        for (size_t c = 0; c < CLASSES; c++) kept[c] = (float)probability[c];
    }
}

/* Passes first … first + passes − 1 of the named images, through the whole network as that many times more rows. */
static void draw(drawing *d, const size_t *chosen, size_t count, uint32_t first, uint32_t passes) {
    size_t n = 0;
    for (uint32_t s = first; s < first + passes; s++)
        for (size_t i = 0; i < count; i++, n++) {
            memcpy(&d->pixels[n * PIXELS], &d->set->pixels[chosen[i] * PIXELS], PIXELS * sizeof(float));
            d->identity[n] = d->set->identity[chosen[i]];
            d->sample[n] = s;
            d->row[n] = chosen[i];
        }
    pvera_rows rows = {.struct_size = sizeof rows, .identity = d->identity, .sample = d->sample};
    pvera_noise noise = noise_of(PVERA_MODE_SAMPLE, d->seed);
    const float *logits = forward(d->net, d->pixels, n, &rows, &noise);
    pvera_matrix values = pvera_f32(logits, n, CLASSES);
    check(pvera_statistics_add_rows(d->statistics, n, d->row, &values));
    if (d->probabilities != NULL) keep_probabilities(d, logits, n);
}

static size_t *all_of(const images *set) {
    size_t *rows = allocate(set->count, sizeof *rows);
    for (size_t i = 0; i < set->count; i++) rows[i] = i;
    return rows;
}

static void draw_all(drawing *d) {
    size_t *all = all_of(d->set);
    for (uint32_t s = 0; s < DRAWS; s += PASSES_AT_A_TIME) draw(d, all, d->set->count, s, PASSES_AT_A_TIME);
    free(all);
}

/* ---- Belief ---- */

belief belief_of(network *net, const images *set, uint64_t seed) {
    size_t n = set->count, values = n * CLASSES;
    belief b = {.count = n};
    b.draws = allocate(DRAWS * values, sizeof *b.draws);
    b.mean = allocate(values, sizeof *b.mean);
    b.logit_variance = allocate(values, sizeof *b.logit_variance);
    b.information = allocate(n, sizeof *b.information);
    b.width = allocate(n, sizeof *b.width);
    b.choice = allocate(n, sizeof *b.choice);

    drawing d = drawing_new(net, set, seed);
    d.probabilities = b.draws;
    draw_all(&d);
    check(pvera_statistics_mean_probabilities(d.statistics, values, b.mean));
    check(pvera_statistics_variance(d.statistics, values, b.logit_variance));
    check(pvera_statistics_mutual_information(d.statistics, n, b.information));
    drawing_free(&d);

    for (size_t i = 0; i < n; i++) {
        b.choice[i] = largest(&b.mean[i * CLASSES]);
        b.width[i] = belief_quantile(&b, i, b.choice[i], UPPER_QUANTILE) -
                     belief_quantile(&b, i, b.choice[i], LOWER_QUANTILE);
    }
    return b;
}

void belief_free(belief *b) {
    free(b->draws);
    free(b->mean);
    free(b->logit_variance);
    free(b->information);
    free(b->width);
    free(b->choice);
}

static int ascending(const void *first, const void *second) {
    double a = *(const double *)first, b = *(const double *)second;
    return (a > b) - (a < b);
}

double belief_quantile(const belief *b, size_t image, size_t class, double quantile) {
    double sorted[DRAWS];
    for (size_t s = 0; s < DRAWS; s++) sorted[s] = b->draws[(s * b->count + image) * CLASSES + class];
    qsort(sorted, DRAWS, sizeof sorted[0], ascending);
    double place = quantile * (DRAWS - 1);
    size_t below = (size_t)place;
    size_t above = below + 1 < DRAWS ? below + 1 : below;
    return sorted[below] + (place - (double)below) * (sorted[above] - sorted[below]);
}

/* ---- Early stopping ---- */

stopped draw_until_decided(network *net, const images *set, uint64_t seed, double error_level) {
    pvera_stopping stopping = {.struct_size = sizeof stopping, .error_level = error_level, .maximum_passes = DRAWS};
    stopped result = {.undecided = set->count};
    drawing d = drawing_new(net, set, seed), full = drawing_new(net, set, seed);
    size_t *open = all_of(set);
    uint32_t passes = 0, look;
    while (check(pvera_stopping_next_look(&stopping, passes, &look)), look > passes && result.undecided > 0) {
        for (; passes < look; passes += PASSES_AT_A_TIME) {
            draw(&d, open, result.undecided, passes, PASSES_AT_A_TIME);
            result.draws += result.undecided * PASSES_AT_A_TIME;
        }
        check(pvera_stopping_undecided(&stopping, d.statistics, set->count, open, &result.undecided));
    }

    draw_all(&full);
    uint32_t *early = allocate(set->count, sizeof *early), *late = allocate(set->count, sizeof *late);
    check(pvera_statistics_most_voted(d.statistics, set->count, early));
    check(pvera_statistics_most_voted(full.statistics, set->count, late));
    /* The undecided rows had every draw, so both agree on them. */
    for (size_t i = 0; i < set->count; i++) result.agreeing += early[i] == late[i];
    result.agreeing -= result.undecided;
    free(early);
    free(late);
    free(open);
    drawing_free(&d);
    drawing_free(&full);
    return result;
}

/* ---- One forward ---- */

void probabilities_of(network *net, const images *set, const pvera_rows *rows, const pvera_noise *noise,
                      double *probabilities) {
    const float *logits = forward(net, set->pixels, set->count, rows, noise);
    for (size_t i = 0; i < set->count; i++) softmax(&logits[i * CLASSES], &probabilities[i * CLASSES]);
}

void first_order_deviation(network *net, const images *set, const size_t *choice, double *deviation) {
    size_t n = set->count;
    pvera_rows rows = {.struct_size = sizeof rows, .identity = set->identity};
    pvera_noise noise = noise_of(PVERA_MODE_MEAN, 0);
    forward_with_tapes(net, set->pixels, n, &rows, &noise);
    /* f is the chosen logit, and its variance the sum of what every layer's latents add. */
    float *slope = net->difference[LAYERS - 1];
    memset(slope, 0, n * CLASSES * sizeof *slope);
    pvera_gradients wanted[LAYERS];
    for (size_t i = 0; i < LAYERS; i++)
        wanted[i] = (pvera_gradients){.struct_size = sizeof wanted[i], .variance = deviation, .variance_count = n};
    for (size_t i = 0; i < n; i++) {
        slope[i * CLASSES + choice[i]] = 1.0f;
        deviation[i] = 0.0;
    }
    backward(net, n, wanted);
    for (size_t i = 0; i < n; i++) deviation[i] = sqrt(deviation[i]);
}

/* ---- Numbers to judge by ---- */

score score_of(const double *probabilities, const images *set) {
    score result = {0};
    double *confidence = allocate(set->count, sizeof *confidence);
    uint8_t *correct = allocate(set->count, sizeof *correct);
    for (size_t i = 0; i < set->count; i++) {
        size_t choice = largest(&probabilities[i * CLASSES]);
        confidence[i] = fmin(probabilities[i * CLASSES + choice], 1.0);
        correct[i] = choice == set->labels[i];
        result.accuracy += correct[i] / (double)set->count;
    }
    pvera_bin bins[BINS];
    check(pvera_calibration(set->count, confidence, correct, BINS, bins, &result.calibration_error, NULL));
    check(pvera_calibration(set->count, confidence, correct, BINS_SHOWN, result.shown, NULL, NULL));
    free(confidence);
    free(correct);
    return result;
}

double auroc(const double *high, size_t high_count, const double *low, size_t low_count) {
    double wins = 0.0;
    for (size_t i = 0; i < high_count; i++)
        for (size_t j = 0; j < low_count; j++) wins += high[i] > low[j] ? 1.0 : high[i] == low[j] ? 0.5 : 0.0;
    return wins / ((double)high_count * (double)low_count);
}

double entropy(const double *probabilities) {
    double sum = 0.0;
    for (size_t c = 0; c < CLASSES; c++)
        if (probabilities[c] > 0.0) sum -= probabilities[c] * log(probabilities[c]);
    return sum;
}

double mean_of(const double *values, size_t count) {
    double sum = 0.0;
    for (size_t i = 0; i < count; i++) sum += values[i];
    return count > 0 ? sum / (double)count : 0.0;
}

double median_of(const double *values, size_t count) {
    double *sorted = allocate(count, sizeof *sorted);
    memcpy(sorted, values, count * sizeof *sorted);
    qsort(sorted, count, sizeof *sorted, ascending);
    double median = count == 0 ? 0.0 : (sorted[(count - 1) / 2] + sorted[count / 2]) / 2.0;
    free(sorted);
    return median;
}

/* The rank of every value less the mean rank; equal ones share theirs. */
static double *centred_ranks(const double *values, size_t count) {
    double *rank = allocate(count, sizeof *rank);
    for (size_t i = 0; i < count; i++)
        for (size_t j = 0; j < count; j++) rank[i] += 0.5 * ((values[i] > values[j]) - (values[i] < values[j]));
    return rank;
}

double rank_correlation(const double *first, const double *second, size_t count) {
    double *a = centred_ranks(first, count), *b = centred_ranks(second, count);
    double ab = 0.0, aa = 0.0, bb = 0.0;
    for (size_t i = 0; i < count; i++) {
        ab += a[i] * b[i];
        aa += a[i] * a[i];
        bb += b[i] * b[i];
    }
    free(a);
    free(b);
    return ab / sqrt(aa * bb);
}
