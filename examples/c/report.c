/* Accuracy, doubt, early stopping, first order, and who wins; see report.h. */
#include "report.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "picture.h"
#include "readings.h"
#include "support.h"

static const char *const KIND_NAME[KINDS] = {"transposed", "scrambled", "inverted", "upright"};

/* Numbers for some images of one kind: all, those read rightly, or those misread. */
typedef struct share {
    size_t count;
    double *width, *information, *entropy, *first_order, *monte_carlo;
} share;

static share share_of(const inputs *in, bool right) {
    size_t n = in->set.count;
    share s = {0, allocate(n, sizeof(double)), allocate(n, sizeof(double)), allocate(n, sizeof(double)),
               allocate(n, sizeof(double)), allocate(n, sizeof(double))};
    for (size_t i = 0; i < n; i++) {
        if (is_right(in, i) != right) continue;
        s.width[s.count] = in->belief.width[i];
        s.information[s.count] = in->belief.information[i];
        s.entropy[s.count] = in->mean_entropy[i];
        s.first_order[s.count] = in->first_order[i];
        s.monte_carlo[s.count++] = in->monte_carlo[i];
    }
    return s;
}

/* All of one kind, borrowed. */
static share whole_of(const inputs *in) {
    return (share){in->set.count, in->belief.width, in->belief.information, in->mean_entropy, in->first_order,
                   in->monte_carlo};
}

static void share_free(share *s) {
    free(s->width);
    free(s->information);
    free(s->entropy);
    free(s->first_order);
    free(s->monte_carlo);
}

static void print_score(const char *name, const score *s) {
    printf("  %-26s %.3f      %.3f\n", name, s->accuracy, s->calibration_error);
}

static score score_of_base(network *net, const images *test) {
    int32_t *slot = allocate(test->count, sizeof *slot);
    for (size_t i = 0; i < test->count; i++) slot[i] = -1; /* the base alone */
    pvera_rows rows = {.struct_size = sizeof rows, .slot = slot};
    double *probabilities = allocate(test->count * CLASSES, sizeof *probabilities);
    probabilities_of(net, test, &rows, NULL, probabilities);
    score s = score_of(probabilities, test);
    free(probabilities);
    free(slot);
    return s;
}

static score score_of_one_draw(network *net, const images *test, uint64_t seed) {
    pvera_rows rows = {.struct_size = sizeof rows, .identity = test->identity};
    pvera_noise noise = noise_of(PVERA_MODE_SAMPLE, seed);
    double *probabilities = allocate(test->count * CLASSES, sizeof *probabilities);
    probabilities_of(net, test, &rows, &noise, probabilities);
    score s = score_of(probabilities, test);
    free(probabilities);
    return s;
}

static void report_accuracy(network *net, const inputs *familiar, uint64_t seed, picture *results) {
    results->base = score_of_base(net, &familiar->set);
    results->mean = score_of(familiar->mean_probabilities, &familiar->set);
    results->draws = score_of(familiar->belief.mean, &familiar->set);
    score one = score_of_one_draw(net, &familiar->set, seed);
    printf("\n%zu transposed test digits      accuracy   calibration error (ECE, %d bins)\n", familiar->set.count,
           BINS);
    print_score("before: the base", &results->base);
    print_score("after: mean forward", &results->mean);
    print_score("after: one draw", &one);
    char name[32];
    snprintf(name, sizeof name, "after: %d draws averaged", DRAWS);
    print_score(name, &results->draws);
    require(results->base.accuracy < 0.2, "the base fails on transposed digits");
    require(results->mean.accuracy >= 0.93 && results->draws.accuracy >= 0.93, "the adapter repairs it");
    require(results->mean.calibration_error < 0.05 && results->draws.calibration_error < 0.08, "and is calibrated");
}

static double accuracy_of_narrowest(const inputs *in, double kept_part) {
    size_t kept = (size_t)(kept_part * (double)in->set.count), narrow = 0, right = 0;
    double *width = in->belief.width;
    for (size_t i = 0; i < in->set.count; i++) {
        size_t narrower = 0;
        for (size_t j = 0; j < in->set.count; j++) narrower += width[j] < width[i] || (width[j] == width[i] && j < i);
        if (narrower >= kept) continue;
        narrow++;
        right += is_right(in, i);
    }
    return (double)right / (double)narrow;
}

/* AUROCs of one kind against another, by width, by mutual information, by the entropy of one mean forward. */
typedef struct detection {
    double width, information, entropy;
} detection;

static detection detect(const share *strange, const share *usual) {
    return (detection){
        auroc(strange->width, strange->count, usual->width, usual->count),
        auroc(strange->information, strange->count, usual->information, usual->count),
        auroc(strange->entropy, strange->count, usual->entropy, usual->count),
    };
}

static void print_share(const char *name, const share *s, const detection *d) {
    printf("  %-18s %4zu   %.3f   %.3f", name, s->count, mean_of(s->width, s->count),
           mean_of(s->information, s->count));
    if (d != NULL) printf("         %.3f   %.3f         %.3f", d->width, d->information, d->entropy);
    putchar('\n');
}

static void report_doubt(const inputs kind[KINDS], const share *right, const share *wrong, detection found[KINDS]) {
    printf("\nDoubt: the interval of the chosen class's probability (5 %% to 95 %% of %d draws)\n", DRAWS);
    printf("                             mean    mutual         AUROC by              by entropy of\n");
    printf("                             width   information    width   information   one mean forward\n");
    share all = whole_of(&kind[FAMILIAR]);
    found[FAMILIAR] = detect(wrong, right);
    print_share("rightly read", right, NULL);
    print_share("misread", wrong, &found[FAMILIAR]);
    for (size_t k = FAMILIAR + 1; k < KINDS; k++) {
        share s = whole_of(&kind[k]);
        found[k] = detect(&s, &all);
        print_share(KIND_NAME[k], &s, &found[k]);
        require(found[k].width >= 0.7 && found[k].information >= 0.7, "draws tell unfamiliar inputs from others");
    }
    printf("  (AUROC of misread against rightly read, of the others against all transposed test digits)\n");
    static const double SURE_PART = 0.9;
    printf("  accuracy on the %.0f %% of digits with the narrowest intervals: %.3f\n", 100.0 * SURE_PART,
           accuracy_of_narrowest(&kind[FAMILIAR], SURE_PART));
    require(found[FAMILIAR].width >= 0.85, "wide intervals mark mistakes");
}

static void report_stopping(network *net, const inputs kind[KINDS], uint64_t seed) {
    static const double ERROR_LEVEL = 0.05;
    printf("\nEarly stopping: draw until the most voted class is settled (error at most %.0f %%), at most %d draws\n",
           100.0 * ERROR_LEVEL, DRAWS);
    for (size_t k = 0; k < KINDS; k++) {
        stopped s = draw_until_decided(net, &kind[k].set, seed, ERROR_LEVEL);
        size_t n = kind[k].set.count, decided = n - s.undecided;
        printf("  %-12s %5.1f draws a digit, %3zu of %zu undecided, %zu of %zu decided as by all %d\n", KIND_NAME[k],
               (double)s.draws / (double)n, s.undecided, n, s.agreeing, decided, DRAWS);
        require((double)s.agreeing >= (1.0 - ERROR_LEVEL) * (double)decided, "early decisions are those of all draws");
    }
}

/* First order beside Monte Carlo: the median ratio of the variances, and the share that is off by more than two. */
typedef struct agreement {
    double median_ratio, far_off, rank_correlation;
} agreement;

static agreement agreement_of(const share *s) {
    agreement a = {.rank_correlation = rank_correlation(s->first_order, s->monte_carlo, s->count)};
    double *ratio = allocate(s->count, sizeof *ratio);
    for (size_t i = 0; i < s->count; i++) {
        double deviations = s->first_order[i] / s->monte_carlo[i];
        ratio[i] = deviations * deviations;
        a.far_off += (ratio[i] > 2.0 || ratio[i] < 0.5) / (double)s->count;
    }
    a.median_ratio = median_of(ratio, s->count);
    free(ratio);
    return a;
}

static agreement print_agreement(const char *name, const share *s) {
    agreement a = agreement_of(s);
    printf("  %-14s %8.2f      %8.2f          %5.2f     %5.1f %%        %5.2f\n", name,
           median_of(s->monte_carlo, s->count), median_of(s->first_order, s->count), a.median_ratio, 100.0 * a.far_off,
           a.rank_correlation);
    return a;
}

static void report_first_order(const inputs kind[KINDS], const share *right, const share *wrong) {
    printf("\nFirst order: the deviation of the chosen logit from one backward, beside %d draws\n", DRAWS);
    printf("                   median deviation         ratio of variances       rank\n");
    printf("                 Monte Carlo  first order   median   off by 2 x   correlation\n");
    agreement familiar = print_agreement("rightly read", right), worst = {0};
    print_agreement("misread", wrong);
    const char *worst_name = KIND_NAME[FAMILIAR];
    for (size_t k = FAMILIAR + 1; k < KINDS; k++) {
        share s = whole_of(&kind[k]);
        agreement a = print_agreement(KIND_NAME[k], &s);
        if (a.far_off <= worst.far_off) continue;
        worst = a;
        worst_name = KIND_NAME[k];
    }
    printf("  Linearising fails most on %s digits: %.0f %% are off by more than a factor of two, of rightly read\n"
           "  ones %.0f %%. Far from the data a draw leaves the region where one slope holds; ReLUs switch, and the\n"
           "  logvar of the next layer moves with the noise.\n",
           worst_name, 100.0 * worst.far_off, 100.0 * familiar.far_off);
    require(familiar.rank_correlation > 0.7 && fabs(log2(familiar.median_ratio)) < 0.5,
            "first order follows the draws on familiar digits");
}

static const char *winner(double mean, double draws, bool smaller_wins) {
    if (mean == draws) return "both";
    return (mean > draws) != smaller_wins ? "the mean forward" : "the draws";
}

static void report_winners(const picture *results, const detection found[KINDS]) {
    double width = 0.0, plain = 0.0;
    for (size_t k = FAMILIAR + 1; k < KINDS; k++) {
        width += found[k].width / (KINDS - 1);
        plain += found[k].entropy / (KINDS - 1);
    }
    const score *mean = &results->mean, *draws = &results->draws;
    printf("\nWho wins                    mean forward   %d draws\n", DRAWS);
    printf("  accuracy                  %.3f          %.3f      %s\n", mean->accuracy, draws->accuracy,
           winner(mean->accuracy, draws->accuracy, false));
    printf("  calibration error         %.3f          %.3f      %s\n", mean->calibration_error,
           draws->calibration_error, winner(mean->calibration_error, draws->calibration_error, true));
    printf("  finding mistakes          %.3f          %.3f      %s\n", found[FAMILIAR].entropy, found[FAMILIAR].width,
           winner(found[FAMILIAR].entropy, found[FAMILIAR].width, false));
    printf("  finding strange inputs    %.3f          %.3f      %s\n", plain, width, winner(plain, width, false));
}

static void fill_groups(const inputs kind[KINDS], const share *right, const share *wrong, const detection found[KINDS],
                        picture *results) {
    results->groups[0] = (group){"read rightly", right->count, right->width, right->first_order,
                                 right->monte_carlo, 0.0};
    results->groups[1] = (group){"misread", wrong->count, wrong->width, wrong->first_order,
                                 wrong->monte_carlo, found[FAMILIAR].width};
    for (size_t k = FAMILIAR + 1; k < KINDS; k++) {
        share s = whole_of(&kind[k]);
        results->groups[k + 1] = (group){KIND_NAME[k], s.count, s.width, s.first_order, s.monte_carlo,
                                         found[k].width};
    }
}

void report(network *net, const inputs kind[KINDS], uint64_t seed, const char *out) {
    picture results = {0};
    detection found[KINDS];
    share right = share_of(&kind[FAMILIAR], true), wrong = share_of(&kind[FAMILIAR], false);
    report_accuracy(net, &kind[FAMILIAR], seed, &results);
    report_doubt(kind, &right, &wrong, found);
    report_stopping(net, kind, seed);
    report_first_order(kind, &right, &wrong);
    report_winners(&results, found);
    report_readings(kind, &results);
    fill_groups(kind, &right, &wrong, found, &results);

    char path[LONGEST_PATH];
    join_path(out, "digits.svg", path);
    picture_write(&results, path);
    printf("\nThe picture is %s\n", path);
    share_free(&right);
    share_free(&wrong);
}
