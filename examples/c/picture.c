/* An SVG with four panels: calibration, widths, first-order deviations, single readings; see picture.h. */
#include "picture.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>

#include "support.h"

#define INK "#22262b"
#define SOFT "#6b7280"
#define RULE "#d7dbe0"
#define BASE_COLOUR "#9a9fa8"
#define MEAN_COLOUR "#d08c2e"
#define DRAWS_COLOUR "#2f6690"
#define RIGHT_COLOUR "#4f8a5b"
#define WRONG_COLOUR "#b5473c"

static const char *const GROUP_COLOUR[GROUPS] = {RIGHT_COLOUR, WRONG_COLOUR, "#7a6a9b", "#3d8a8f", "#8c7851"};

enum { WIDTH = 1240, HEIGHT = 850, PANEL_TOP = 150, PANEL_SIDE = 300 };

/* ---- Drawing ---- */

/* A panel: its box in the picture, and the values at its edges. */
typedef struct panel {
    FILE *file;
    double x, y, width, height;
    double left, right, bottom, top;
} panel;

static double across(const panel *p, double value) {
    return p->x + (value - p->left) / (p->right - p->left) * p->width;
}

static double up(const panel *p, double value) {
    return p->y + p->height - (value - p->bottom) / (p->top - p->bottom) * p->height;
}

static void text(FILE *file, double x, double y, const char *style, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fprintf(file, "<text x=\"%.1f\" y=\"%.1f\" %s>", x, y, style);
    vfprintf(file, format, arguments);
    fputs("</text>\n", file);
    va_end(arguments);
}

static void line(FILE *file, double x1, double y1, double x2, double y2, const char *style) {
    fprintf(file, "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" %s/>\n", x1, y1, x2, y2, style);
}

static void box(FILE *file, double x, double y, double width, double height, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fprintf(file, "<rect x=\"%.2f\" y=\"%.2f\" width=\"%.2f\" height=\"%.2f\" ", x, y, width, height);
    vfprintf(file, format, arguments);
    fputs("/>\n", file);
    va_end(arguments);
}

static void dot(FILE *file, double x, double y, double radius, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fprintf(file, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"%.1f\" ", x, y, radius);
    vfprintf(file, format, arguments);
    fputs("/>\n", file);
    va_end(arguments);
}

static void titles(FILE *file, double x, const char *title, const char *subtitle) {
    text(file, x, PANEL_TOP - 34, "class=\"title\"", "%s", title);
    text(file, x, PANEL_TOP - 16, "class=\"soft\"", "%s", subtitle);
}

static void mark_x(const panel *p, double value, const char *format, double shown) {
    line(p->file, across(p, value), p->y, across(p, value), p->y + p->height, "stroke=\"" RULE "\"");
    text(p->file, across(p, value), p->y + p->height + 17, "class=\"tick\" text-anchor=\"middle\"", format, shown);
}

static void mark_y(const panel *p, double value, const char *format, double shown) {
    line(p->file, p->x, up(p, value), p->x + p->width, up(p, value), "stroke=\"" RULE "\"");
    text(p->file, p->x - 7, up(p, value) + 4, "class=\"tick\" text-anchor=\"end\"", format, shown);
}

static void axis_titles(const panel *p, const char *horizontal, const char *vertical) {
    static const char *const STYLE = "class=\"axis\" text-anchor=\"middle\"";
    text(p->file, p->x + p->width / 2, p->y + p->height + 38, STYLE, "%s", horizontal);
    if (vertical == NULL) return;
    fprintf(p->file, "<g transform=\"translate(%.1f %.1f) rotate(-90)\">", p->x - 38, p->y + p->height / 2);
    text(p->file, 0, 0, STYLE, "%s", vertical);
    fputs("</g>\n", p->file);
}

/* ---- Reliability ---- */

/* Bars of a score as joined dots, whose area is the number of images. */
static void reliability_line(const panel *p, const score *s, const char *colour) {
    static const double SMALLEST = 2.5, GROWTH = 0.55;
    fprintf(p->file, "<polyline fill=\"none\" stroke=\"%s\" stroke-width=\"1.5\" points=\"", colour);
    for (size_t b = 0; b < BINS_SHOWN; b++)
        if (s->shown[b].count > 0)
            fprintf(p->file, "%.1f,%.1f ", across(p, s->shown[b].confidence), up(p, s->shown[b].accuracy));
    fputs("\"/>\n", p->file);
    for (size_t b = 0; b < BINS_SHOWN; b++)
        if (s->shown[b].count > 0)
            dot(p->file, across(p, s->shown[b].confidence), up(p, s->shown[b].accuracy),
                SMALLEST + GROWTH * sqrt((double)s->shown[b].count),
                "fill=\"%s\" fill-opacity=\"0.75\" stroke=\"white\"", colour);
}

static void legend(FILE *file, double x, double y, const char *colour, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    dot(file, x, y - 4, 5, "fill=\"%s\"", colour);
    fprintf(file, "<text x=\"%.1f\" y=\"%.1f\" class=\"tick\">", x + 11, y);
    vfprintf(file, format, arguments);
    fputs("</text>\n", file);
    va_end(arguments);
}

static void reliability(const picture *results, FILE *file) {
    panel p = {file, 70, PANEL_TOP, PANEL_SIDE, PANEL_SIDE, 0, 1, 0, 1};
    titles(file, 70, "Is it as sure as it is right?", "transposed test digits; large dot: many digits");
    for (int i = 0; i <= 4; i++) {
        mark_x(&p, i / 4.0, "%.2f", i / 4.0);
        mark_y(&p, i / 4.0, "%.2f", i / 4.0);
    }
    line(file, across(&p, 0), up(&p, 0), across(&p, 1), up(&p, 1), "stroke=\"" SOFT "\" stroke-dasharray=\"4 4\"");
    reliability_line(&p, &results->base, BASE_COLOUR);
    reliability_line(&p, &results->mean, MEAN_COLOUR);
    reliability_line(&p, &results->draws, DRAWS_COLOUR);
    axis_titles(&p, "confidence", "accuracy");
    double y = p.y + p.height + 62;
    legend(file, p.x, y, BASE_COLOUR, "base, before: ECE %.3f", results->base.calibration_error);
    legend(file, p.x, y + 18, MEAN_COLOUR, "after, mean forward: ECE %.3f", results->mean.calibration_error);
    legend(file, p.x, y + 36, DRAWS_COLOUR, "after, %d draws averaged: ECE %.3f", DRAWS,
           results->draws.calibration_error);
}

/* ---- Widths ---- */

enum { BARS = 25 };

static void ridge(const panel *p, const group *g, const char *colour, double floor, double height) {
    double share[BARS] = {0}, most = 0.0;
    for (size_t i = 0; i < g->count; i++) {
        size_t bar = (size_t)(g->width[i] * BARS);
        share[bar < BARS ? bar : BARS - 1] += 1.0;
    }
    for (size_t i = 0; i < BARS; i++) most = fmax(most, share[i]);
    for (size_t i = 0; i < BARS; i++) {
        double bar = share[i] / most * height;
        box(p->file, across(p, (double)i / BARS) + 0.5, floor - bar, p->width / BARS - 1.0, bar,
            "fill=\"%s\" fill-opacity=\"0.75\"", colour);
    }
    line(p->file, p->x, floor, p->x + p->width, floor, "stroke=\"" SOFT "\"");
    double median = across(p, median_of(g->width, g->count));
    line(p->file, median, floor - height - 3, median, floor + 3, "stroke=\"" INK "\" stroke-width=\"1.5\"");
}

static void widths(const picture *results, FILE *file) {
    enum { ROW = PANEL_SIDE / GROUPS };
    panel p = {file, 560, PANEL_TOP, 230, PANEL_SIDE, 0, 1, 0, 1};
    titles(file, 430, "How wide are the intervals?",
           "90 % interval of the chosen class’s probability; line: median");
    for (int i = 0; i <= 4; i++) mark_x(&p, i / 4.0, "%.2f", i / 4.0);
    for (size_t g = 0; g < GROUPS; g++) {
        const group *shown = &results->groups[g];
        double floor = p.y + (double)(g + 1) * ROW - 4;
        ridge(&p, shown, GROUP_COLOUR[g], floor, ROW - 16);
        static const char *const SOFT_STYLE = "class=\"soft\" text-anchor=\"end\"";
        text(file, p.x - 12, floor - 22, "class=\"label\" text-anchor=\"end\"", "%s", shown->name);
        if (shown->auroc > 0.0)
            text(file, p.x - 12, floor - 7, SOFT_STYLE, "%zu, AUROC %.2f", shown->count, shown->auroc);
        else
            text(file, p.x - 12, floor - 7, SOFT_STYLE, "%zu digits", shown->count);
    }
    axis_titles(&p, "width of the interval", NULL);
    text(file, 430, p.y + p.height + 62, "class=\"soft\"", "AUROC: how often a width is larger than that of");
    text(file, 430, p.y + p.height + 78, "class=\"soft\"", "a right reading (misread) or of any test digit (others)");
}

/* ---- First order ---- */

/* A dot for each input; what lies outside the panel is put on its edge. */
static void points(const panel *p, const group *g, const char *colour) {
    static const size_t FEW = 100;
    fprintf(p->file, "<g fill=\"%s\" fill-opacity=\"%s\">\n", colour, g->count < FEW ? "0.9" : "0.45");
    for (size_t i = 0; i < g->count; i++) {
        double x = fmin(fmax(log10(g->monte_carlo[i]), p->left), p->right);
        double y = fmin(fmax(log10(g->first_order[i]), p->bottom), p->top);
        dot(p->file, across(p, x), up(p, y), 2, "");
    }
    fputs("</g>\n", p->file);
}

static void first_order(const picture *results, FILE *file) {
    static const double TICKS[] = {0.5, 1, 2, 5, 10, 20, 50};
    static const size_t LAST = sizeof TICKS / sizeof TICKS[0] - 1;
    double lowest = log10(TICKS[0]), highest = log10(TICKS[LAST]);
    panel p = {file, 900, PANEL_TOP, PANEL_SIDE, PANEL_SIDE, lowest, highest, lowest, highest};
    titles(file, 850, "Does one backward replace 64 draws?", "standard deviation of the chosen logit");
    for (size_t i = 0; i <= LAST; i++) {
        mark_x(&p, log10(TICKS[i]), "%g", TICKS[i]);
        mark_y(&p, log10(TICKS[i]), "%g", TICKS[i]);
    }
    line(file, across(&p, lowest), up(&p, lowest), across(&p, highest), up(&p, highest),
         "stroke=\"" SOFT "\" stroke-dasharray=\"4 4\"");
    static const size_t ORDER[GROUPS] = {4, 3, 2, 0, 1}; /* the few misread ones on top */
    for (size_t i = 0; i < GROUPS; i++) points(&p, &results->groups[ORDER[i]], GROUP_COLOUR[ORDER[i]]);
    axis_titles(&p, "Monte Carlo, 64 draws", "first order, one backward");
    for (size_t g = 0; g < GROUPS; g++)
        legend(file, p.x + 150.0 * (double)(g % 2), p.y + p.height + 62 + 18.0 * (double)(g / 2),
               GROUP_COLOUR[g], "%s", results->groups[g].name);
}

/* ---- Single readings ---- */

static void digit(FILE *file, const float *pixels, double x, double y, double side) {
    static const double OVERLAP = 0.05; /* so that no seam shows between pixels */
    double pixel = side / SIDE;
    for (size_t i = 0; i < PIXELS; i++) {
        int grey = (int)lround(255.0 * (1.0 - pixels[i]));
        box(file, x + (double)(i % SIDE) * pixel, y + (double)(i / SIDE) * pixel, pixel + OVERLAP, pixel + OVERLAP,
            "fill=\"rgb(%d,%d,%d)\"", grey, grey, grey);
    }
    box(file, x, y, side, side, "fill=\"none\" stroke=\"" RULE "\"");
}

static void reading(FILE *file, const example *e, double x, double y) {
    enum { SHOWN_SIDE = 64, BAR = 10, STEP = 17, TALL = 90, BARS_TOP = 106 };
    const belief *b = e->belief;
    size_t choice = b->choice[e->image];
    digit(file, e->pixels, x, y, SHOWN_SIDE);
    text(file, x + SHOWN_SIDE + 10, y + 12, "class=\"label\"", "%s", e->kind);
    text(file, x + SHOWN_SIDE + 10, y + 34, "class=\"tick\"", "read as %zu", choice);
    if (e->label >= 0) text(file, x + SHOWN_SIDE + 10, y + 50, "class=\"tick\"", "it is a %d", e->label);
    panel p = {file, x, y + BARS_TOP - 24, CLASSES * STEP, TALL, 0, CLASSES, 0, 1};
    line(file, x - 3, up(&p, 0), x + p.width, up(&p, 0), "stroke=\"" SOFT "\"");
    for (size_t c = 0; c < CLASSES; c++) {
        double middle = x + STEP * (double)c + BAR / 2.0, top = up(&p, b->mean[e->image * CLASSES + c]);
        const char *chosen = e->label < 0 ? DRAWS_COLOUR : WRONG_COLOUR;
        const char *colour = (int)c == e->label ? RIGHT_COLOUR : c == choice ? chosen : BASE_COLOUR;
        box(file, middle - BAR / 2.0, top, BAR, up(&p, 0) - top, "fill=\"%s\"", colour);
        line(file, middle, up(&p, belief_quantile(b, e->image, c, LOWER_QUANTILE)), middle,
             up(&p, belief_quantile(b, e->image, c, UPPER_QUANTILE)), "stroke=\"" INK "\" stroke-width=\"1.5\"");
        text(file, middle, up(&p, 0) + 15, "class=\"tick\" text-anchor=\"middle\"", "%zu", c);
    }
}

static void readings(const picture *results, FILE *file) {
    enum { TOP = 640, LEFT = 40, STEP = 200 };
    text(file, LEFT, TOP - 36, "class=\"title\"", "Six readings");
    text(file, LEFT + 124, TOP - 36, "class=\"soft\"",
         "as the network sees them; bars: mean probability of each class over %d draws, lines: 5 %% to 95 %% "
         "of the draws; green: the truth, red: a mistake", DRAWS);
    for (size_t i = 0; i < EXAMPLES; i++) reading(file, &results->examples[i], LEFT + STEP * (double)i, TOP - 12);
}

void picture_write(const picture *results, const char *path) {
    FILE *file = fopen(path, "w");
    if (file == NULL) fail("%s cannot be written", path);
    fprintf(file,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" width=\"%d\" height=\"%d\" "
            "font-family=\"Helvetica, Arial, 'DejaVu Sans', sans-serif\">\n"
            "<style>.head{font-size:22px;font-weight:600;fill:" INK "}"
            ".title{font-size:16px;font-weight:600;fill:" INK "}"
            ".label{font-size:13px;fill:" INK "}.axis{font-size:13px;fill:" INK "}.tick{font-size:12px;fill:" INK "}"
            ".soft{font-size:12px;fill:" SOFT "}</style>\n"
            "<rect width=\"%d\" height=\"%d\" fill=\"white\"/>\n",
            WIDTH, HEIGHT, WIDTH, HEIGHT, WIDTH, HEIGHT);
    text(file, 40, 44, "class=\"head\"", "A frozen network that fails on transposed digits, repaired by PVeRA");
    text(file, 40, 68, "class=\"soft\"",
         "accuracy %.1f %% before, %.1f %% after (mean forward), %.1f %% (%d draws averaged)",
         100 * results->base.accuracy, 100 * results->mean.accuracy, 100 * results->draws.accuracy, DRAWS);
    reliability(results, file);
    widths(results, file);
    first_order(results, file);
    readings(results, file);
    fputs("</svg>\n", file);
    if (fclose(file) != 0) fail("%s cannot be written", path);
}
