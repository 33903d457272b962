/* Choosing and printing single readings; see readings.h. */
#include "readings.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

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

void report_readings(const inputs kind[KINDS], picture *results) {
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
