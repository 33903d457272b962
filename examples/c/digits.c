/* PVeRA on handwritten digits, from a failing network to predictions that say how sure they are.
 *
 * A frozen network reads upright digits and fails on transposed ones. The program trains an adapter of three layers on
 * transposed digits through forward and backward, saves it as a PEFT checkpoint, loads it into a fresh model, draws 64
 * Monte Carlo passes of the whole network, and shows what their spread is worth: where the network is right, where it
 * is wrong, and on inputs unlike anything it has seen.
 *
 *     digits DATA_DIR OUT_DIR [THREADS]
 *
 * DATA_DIR holds digits.bin and base.bin (see ../data/README.md). OUT_DIR gets adapter/ and digits.svg. THREADS work
 * beside the calling one (1); their number changes no bit of the output. The exit status is 1 if a result is not what
 * it should be.
 */
#define _POSIX_C_SOURCE 200809L /* mkdir */
#include <errno.h>
#include <math.h>
#include <pvera.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "belief.h"
#include "data.h"
#include "network.h"
#include "picture.h"
#include "support.h"
#include "training.h"

/* Inputs of one kind, and what the adapted network makes of them. */
typedef struct inputs {
    images set;
    belief belief;
    double *mean_probabilities; /* of the mean forward, [count, CLASSES] */
    double *mean_entropy;       /* [count] */
    double *first_order, *monte_carlo; /* standard deviations of the chosen logit, [count] */
} inputs;

enum { FAMILIAR, SCRAMBLED, INVERTED, UPRIGHT, KINDS };
static const char *const KIND_NAME[KINDS] = {"transposed", "scrambled", "inverted", "upright"};

/* Numbers for some images of one kind: all, those read rightly, or those misread. */
typedef struct share {
    size_t count;
    double *width, *information, *entropy, *first_order, *monte_carlo;
} share;

static int failures;

static void require(bool holds, const char *what) {
    if (holds) return;
    printf("FAILED: %s\n", what);
    failures++;
}

/* ---- Checkpoint ---- */

/* The logits of a mean forward and of draw 0 of every image, one after the other. */
static float *both_logits(network *net, const images *set) {
    size_t half = set->count * CLASSES;
    float *logits = allocate(2 * half, sizeof *logits);
    pvera_rows rows = {.struct_size = sizeof rows, .identity = set->identity};
    pvera_noise mean = noise_of(PVERA_MODE_MEAN, 0), sample = noise_of(PVERA_MODE_SAMPLE, SEED);
    memcpy(logits, forward(net, set->pixels, set->count, &rows, &mean), half * sizeof *logits);
    memcpy(logits + half, forward(net, set->pixels, set->count, &rows, &sample), half * sizeof *logits);
    return logits;
}

static float *logits_of_trained(network *net, const pvera_adapter *adapter, const images *set) {
    pvera_linear *linear[LAYERS];
    for (size_t i = 0; i < LAYERS; i++) {
        check(pvera_adapter_linear(adapter, i, &linear[i]));
        net->linear[i] = linear[i];
    }
    float *logits = both_logits(net, set);
    for (size_t i = 0; i < LAYERS; i++) pvera_linear_free(linear[i]);
    return logits;
}

/* Loads the checkpoint into a fresh model, publishes it, and lets the network run on a snapshot. */
static pvera_snapshot *load(network *net, const base_weights *base, const char *folder) {
    pvera_model *model = model_new(base);
    pvera_adapter *adapter;
    pvera_snapshot *snapshot;
    check(pvera_adapter_load(model, folder, NULL, &adapter));
    check(pvera_model_publish(model, ADAPTER, adapter, NULL));
    check(pvera_model_snapshot(model, &snapshot));
    for (size_t i = 0; i < LAYERS; i++) check(pvera_snapshot_linear(snapshot, i, &net->linear[i]));
    pvera_adapter_free(adapter);
    pvera_model_free(model);
    return snapshot;
}

/* Trains, saves and loads: what runs afterwards is the checkpoint alone. */
static pvera_snapshot *train_save_load(network *net, const base_weights *base, const images *shifted,
                                       const images *test, const char *out) {
    images training = images_of_part(shifted, TRAINING), validation = images_of_part(shifted, VALIDATION);
    pvera_model *model = model_new(base);
    pvera_adapter *adapter = train(net->context, base, model, &training, &validation);
    float *before = logits_of_trained(net, adapter, test);

    char folder[LONGEST_PATH];
    join_path(out, "adapter", folder);
    check(pvera_adapter_save(adapter, folder));
    pvera_adapter_free(adapter);
    pvera_model_free(model);

    pvera_snapshot *snapshot = load(net, base, folder);
    float *after = both_logits(net, test);
    bool same = memcmp(before, after, 2 * test->count * CLASSES * sizeof *before) == 0;
    printf("\nSaved as a PEFT checkpoint and loaded into a fresh model: %zu mean and sampled logits %s\n",
           2 * test->count * CLASSES, same ? "have the same bits" : "DIFFER");
    require(same, "the loaded checkpoint gives the same bits");
    free(before);
    free(after);
    images_free(&training);
    images_free(&validation);
    return snapshot;
}

/* ---- Measuring ---- */

static inputs measure(network *net, images set) {
    inputs in = {.set = set};
    in.mean_probabilities = allocate(set.count * CLASSES, sizeof(double));
    in.mean_entropy = allocate(set.count, sizeof(double));
    in.first_order = allocate(set.count, sizeof(double));
    in.monte_carlo = allocate(set.count, sizeof(double));
    pvera_noise mean = noise_of(PVERA_MODE_MEAN, 0);
    probabilities_of(net, &in.set, NULL, &mean, in.mean_probabilities);
    in.belief = belief_of(net, &in.set, SEED);
    first_order_deviation(net, &in.set, in.belief.choice, in.first_order);
    for (size_t i = 0; i < set.count; i++) {
        in.mean_entropy[i] = entropy(&in.mean_probabilities[i * CLASSES]);
        in.monte_carlo[i] = sqrt(in.belief.logit_variance[i * CLASSES + in.belief.choice[i]]);
    }
    return in;
}

static void inputs_free(inputs *in) {
    images_free(&in->set);
    belief_free(&in->belief);
    free(in->mean_probabilities);
    free(in->mean_entropy);
    free(in->first_order);
    free(in->monte_carlo);
}

static bool is_right(const inputs *in, size_t image) { return in->belief.choice[image] == in->set.labels[image]; }

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

/* ---- Reporting ---- */

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

static score score_of_one_draw(network *net, const images *test) {
    pvera_rows rows = {.struct_size = sizeof rows, .identity = test->identity};
    pvera_noise noise = noise_of(PVERA_MODE_SAMPLE, SEED);
    double *probabilities = allocate(test->count * CLASSES, sizeof *probabilities);
    probabilities_of(net, test, &rows, &noise, probabilities);
    score s = score_of(probabilities, test);
    free(probabilities);
    return s;
}

static void report_accuracy(network *net, const inputs *familiar, picture *results) {
    results->base = score_of_base(net, &familiar->set);
    results->mean = score_of(familiar->mean_probabilities, &familiar->set);
    results->draws = score_of(familiar->belief.mean, &familiar->set);
    score one = score_of_one_draw(net, &familiar->set);
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

static void report_stopping(network *net, const inputs kind[KINDS]) {
    static const double ERROR_LEVEL = 0.05;
    printf("\nEarly stopping: draw until the most voted class is settled (error at most %.0f %%), at most %d draws\n",
           100.0 * ERROR_LEVEL, DRAWS);
    for (size_t k = 0; k < KINDS; k++) {
        stopped s = draw_until_decided(net, &kind[k].set, SEED, ERROR_LEVEL);
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

/* ---- Single readings ---- */

/* The rightly read (or misread) digit with the narrowest (or widest) interval; 0 if there is none. */
static size_t extreme(const inputs *in, bool right, bool widest) {
    size_t best = in->set.count;
    for (size_t i = 0; i < in->set.count; i++) {
        if (is_right(in, i) != right) continue;
        if (best == in->set.count || (in->belief.width[i] > in->belief.width[best]) == widest) best = i;
    }
    return best < in->set.count ? best : 0;
}

static example example_of(const char *name, const inputs *in, size_t image, bool labelled) {
    return (example){name, &in->belief, &in->set.pixels[image * PIXELS], image, labelled ? in->set.labels[image] : -1};
}

static void print_bar(const belief *b, size_t image, size_t class) {
    enum { LENGTH = 40 };
    double mean = b->mean[image * CLASSES + class];
    double lower = belief_quantile(b, image, class, LOWER_QUANTILE);
    double upper = belief_quantile(b, image, class, UPPER_QUANTILE);
    printf("   %zu  %.3f [%.3f, %.3f]  ", class, mean, lower, upper);
    long from = lround(lower * (LENGTH - 1)), to = lround(upper * (LENGTH - 1)), at = lround(mean * (LENGTH - 1));
    for (long i = 0; i < LENGTH; i++) fputs(i == at ? "●" : i >= from && i <= to ? "━" : "·", stdout);
}

/* The image in eight lines, and beside it the classes with the largest probabilities. */
static void print_example(const example *e) {
    static const char *const SHADE[] = {" ", "░", "▒", "▓", "█"};
    enum { SHADES = 5, BARS_FROM = 2, BARS_TO = 5 };
    const belief *b = e->belief;
    double left[CLASSES];
    memcpy(left, &b->mean[e->image * CLASSES], sizeof left);
    putchar('\n');
    for (size_t y = 0; y < SIDE; y++) {
        fputs("  ", stdout);
        for (size_t x = 0; x < SIDE; x++) {
            const char *shade = SHADE[lround(e->pixels[y * SIDE + x] * (SHADES - 1))];
            printf("%s%s", shade, shade);
        }
        if (y == 0) {
            printf("   %s: read as %zu", e->kind, b->choice[e->image]);
            if (e->label >= 0) printf(", it is a %d", e->label);
        } else if (y >= BARS_FROM && y < BARS_TO) {
            size_t class = largest(left);
            left[class] = -1.0;
            print_bar(b, e->image, class);
        }
        putchar('\n');
    }
}

static void report_examples(const inputs kind[KINDS], picture *results) {
    const inputs *familiar = &kind[FAMILIAR];
    size_t sure = extreme(familiar, true, false);
    example chosen[EXAMPLES] = {
        example_of("right, surest", familiar, sure, true),
        example_of("same, inverted", &kind[INVERTED], sure, false),
        example_of("same, scrambled", &kind[SCRAMBLED], sure, false),
        example_of("right, least sure", familiar, extreme(familiar, true, true), true),
        example_of("wrong, least sure", familiar, extreme(familiar, false, true), true),
        example_of("wrong, surest", familiar, extreme(familiar, false, false), true),
    };
    memcpy(results->examples, chosen, sizeof chosen);
    printf("\nSix readings, as the network sees them: mean probability and interval of the likeliest classes\n");
    for (size_t i = 0; i < EXAMPLES; i++) print_example(&chosen[i]);
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

/* ---- The job ---- */

static void report(network *net, const inputs kind[KINDS], const char *out) {
    picture results = {0};
    detection found[KINDS];
    share right = share_of(&kind[FAMILIAR], true), wrong = share_of(&kind[FAMILIAR], false);
    report_accuracy(net, &kind[FAMILIAR], &results);
    report_doubt(kind, &right, &wrong, found);
    report_stopping(net, kind);
    report_first_order(kind, &right, &wrong);
    report_winners(&results, found);
    report_examples(kind, &results);
    fill_groups(kind, &right, &wrong, found, &results);

    char path[LONGEST_PATH];
    join_path(out, "digits.svg", path);
    picture_write(&results, path);
    printf("\nThe picture is %s\n", path);
    share_free(&right);
    share_free(&wrong);
}

static void run(const char *data, const char *out, uint32_t threads) {
    pvera_context_options options = {.struct_size = sizeof options, .threads = threads};
    pvera_context *context;
    check(pvera_context_new(&options, &context));
    base_weights base = base_read(data);
    images all = images_read(data), shifted = images_changed(&all, transposed);
    images upright = images_of_part(&all, TESTING), test = images_of_part(&shifted, TESTING);

    network net = network_new(context, &base, PASSES_AT_A_TIME * test.count);
    pvera_snapshot *snapshot = train_save_load(&net, &base, &shifted, &test, out);
    inputs kind[KINDS] = {
        [FAMILIAR] = measure(&net, test),
        [SCRAMBLED] = measure(&net, images_changed(&test, scrambled)),
        [INVERTED] = measure(&net, images_changed(&test, inverted)),
        [UPRIGHT] = measure(&net, upright),
    };
    report(&net, kind, out);

    for (size_t k = 0; k < KINDS; k++) inputs_free(&kind[k]);
    pvera_snapshot_free(snapshot);
    network_free(&net);
    images_free(&all);
    images_free(&shifted);
    base_free(&base);
    pvera_context_free(context);
}

int main(int argc, char **argv) {
    enum { DEFAULT_THREADS = 1, MOST_THREADS = 256 };
    if (argc != 3 && argc != 4) fail("usage: digits DATA_DIR OUT_DIR [THREADS]");
    long threads = argc == 4 ? strtol(argv[3], NULL, 10) : DEFAULT_THREADS;
    if (threads < 0 || threads > MOST_THREADS) fail("THREADS is %s; wanted 0 to %d", argv[3], MOST_THREADS);
    if (mkdir(argv[2], 0777) != 0 && errno != EEXIST) fail("%s cannot be made: %s", argv[2], strerror(errno));
    if (pvera_version() != PVERA_VERSION)
        fail("compiled for pvera " PVERA_VERSION_TEXT ", run with %s", pvera_version_text());
    run(argv[1], argv[2], (uint32_t)threads);
    return failures == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
