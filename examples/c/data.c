/* Reading the digits and the base network; see data.h. */
#include "data.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support.h"

enum { FILE_HEAD = 16, WORD = 4, LARGEST_SIZE = 1 << 12 };

static const float BRIGHTEST = 16.0f; /* in the file */

/* ---- Files ---- */

typedef struct bytes {
    uint8_t *data;
    size_t size, position;
} bytes;

static bytes read_file(const char *folder, const char *name) {
    char path[LONGEST_PATH];
    join_path(folder, name, path);
    FILE *file = fopen(path, "rb");
    if (file == NULL) fail("%s cannot be opened", path);
    fseek(file, 0, SEEK_END);
    long size = ftell(file);
    if (size < FILE_HEAD) fail("%s is too short", path);
    rewind(file);
    bytes content = {allocate((size_t)size, 1), (size_t)size, 0};
    if (fread(content.data, 1, content.size, file) != content.size) fail("%s cannot be read", path);
    fclose(file);
    return content;
}

static const uint8_t *take(bytes *content, size_t size) {
    if (content->size - content->position < size) fail("a data file ends too early");
    content->position += size;
    return content->data + content->position - size;
}

static uint32_t take_word(bytes *content) {
    const uint8_t *b = take(content, WORD);
    return (uint32_t)b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
}

static float *take_floats(bytes *content, size_t count) {
    float *values = allocate(count, sizeof *values);
    for (size_t i = 0; i < count; i++) {
        uint32_t word = take_word(content);
        memcpy(&values[i], &word, sizeof word);
    }
    return values;
}

/* ---- Images ---- */

static images images_new(size_t count) {
    return (images){count, allocate(count * PIXELS, sizeof(float)), allocate(count, 1),
                    allocate(count, sizeof(uint64_t))};
}

images images_read(const char *folder) {
    bytes content = read_file(folder, "digits.bin");
    if (memcmp(take(&content, 8), "DIGITS\0\1", 8) != 0) fail("digits.bin is of another format");
    uint32_t count = take_word(&content), pixels = take_word(&content);
    if (pixels != PIXELS || count > content.size) fail("digits.bin: %u images of %u pixels", count, pixels);
    images set = images_new(count);
    for (size_t i = 0; i < count; i++) {
        const uint8_t *record = take(&content, PIXELS + 1);
        for (size_t p = 0; p < PIXELS; p++) set.pixels[i * PIXELS + p] = (float)record[p] / BRIGHTEST;
        set.labels[i] = record[PIXELS];
        if (set.labels[i] >= CLASSES) fail("digits.bin: image %zu is labelled %u", i, set.labels[i]);
        set.identity[i] = i;
    }
    free(content.data);
    return set;
}

/* Labels run in cycles of ten, with which 7 shares no factor. */
static part part_of(size_t row) {
    size_t rest = row % 7;
    return rest < 2 ? TESTING : rest == 2 ? VALIDATION : TRAINING;
}

images images_of_part(const images *all, part which) {
    images set = images_new(all->count);
    set.count = 0;
    for (size_t i = 0; i < all->count; i++) {
        if (part_of(i) != which) continue;
        memcpy(&set.pixels[set.count * PIXELS], &all->pixels[i * PIXELS], PIXELS * sizeof(float));
        set.labels[set.count] = all->labels[i];
        set.identity[set.count++] = all->identity[i];
    }
    return set;
}

images images_changed(const images *original, change how) {
    images set = images_new(original->count);
    memcpy(set.labels, original->labels, set.count);
    memcpy(set.identity, original->identity, set.count * sizeof *set.identity);
    for (size_t i = 0; i < set.count; i++)
        for (size_t p = 0; p < PIXELS; p++) set.pixels[i * PIXELS + p] = how(&original->pixels[i * PIXELS], p);
    return set;
}

void images_free(images *set) {
    free(set->pixels);
    free(set->labels);
    free(set->identity);
}

float transposed(const float *image, size_t pixel) { return image[pixel % SIDE * SIDE + pixel / SIDE]; }

float inverted(const float *image, size_t pixel) { return 1.0f - image[pixel]; }

float scrambled(const float *image, size_t pixel) {
    enum { STEP = 37, START = 11 }; /* STEP is odd, so that every pixel comes once */
    return image[(STEP * pixel + START) % PIXELS];
}

/* ---- Base network ---- */

base_weights base_read(const char *folder) {
    bytes content = read_file(folder, "base.bin");
    if (memcmp(take(&content, 8), "MLP\0\0\0\0\1", 8) != 0) fail("base.bin is of another format");
    base_weights base = {0};
    if (take_word(&content) != LAYERS + 1) fail("base.bin has another number of layers than %d", LAYERS);
    for (size_t i = 0; i <= LAYERS; i++) {
        base.sizes[i] = take_word(&content);
        if (base.sizes[i] == 0 || base.sizes[i] > LARGEST_SIZE) fail("base.bin: a layer of size %zu", base.sizes[i]);
    }
    if (base.sizes[0] != PIXELS || base.sizes[LAYERS] != CLASSES) fail("base.bin is not a network for these digits");
    for (size_t i = 0; i < LAYERS; i++) {
        base.weight[i] = take_floats(&content, base.sizes[i + 1] * base.sizes[i]);
        base.bias[i] = take_floats(&content, base.sizes[i + 1]);
    }
    free(content.data);
    return base;
}

void base_free(base_weights *base) {
    for (size_t i = 0; i < LAYERS; i++) {
        free(base->weight[i]);
        free(base->bias[i]);
    }
}
