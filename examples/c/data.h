/* The digits and the base network's weights, read from the files that ../data/README.md describes. */
#ifndef DATA_H
#define DATA_H

#include <stddef.h>
#include <stdint.h>

enum { SIDE = 8, PIXELS = SIDE * SIDE, CLASSES = 10, LAYERS = 3 };

/* Images and what they show. identity is an image's place in the file: it names the noise that belongs to it. */
typedef struct images {
    size_t count;
    float *pixels; /* [count, PIXELS], 0 to 1 */
    uint8_t *labels;
    uint64_t *identity;
} images;

typedef enum part { TRAINING, VALIDATION, TESTING } part;

/* Pixel number `pixel` of a changed image. */
typedef float (*change)(const float *image, size_t pixel);

images images_read(const char *folder);
images images_of_part(const images *all, part which);
images images_changed(const images *original, change how);
void images_free(images *set);

float transposed(const float *image, size_t pixel); /* rows and columns swapped: the shift that the base fails on */
float inverted(const float *image, size_t pixel);   /* dark and light exchanged */
float scrambled(const float *image, size_t pixel);  /* the pixels in a fixed disorder */

/* The frozen network: layer i maps sizes[i] values to sizes[i + 1], with ReLU between the layers. */
typedef struct base_weights {
    size_t sizes[LAYERS + 1];
    float *weight[LAYERS]; /* [sizes[i + 1], sizes[i]] */
    float *bias[LAYERS];   /* [sizes[i + 1]] */
} base_weights;

base_weights base_read(const char *folder);
void base_free(base_weights *base);

#endif
