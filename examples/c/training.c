/* The training recipe: sampled forwards, cross entropy and a little KL, AdamW; see training.h. */
#define _POSIX_C_SOURCE 200809L /* isatty */
#include "training.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "support.h"

enum { EPOCHS = 200, BATCH = 64, EPOCHS_A_LINE = 40 };

static const double LEARNING_RATE = 0.05; /* at first; falls to 0 by half a cosine */
static const double KL_WEIGHT = 1e-3;
static const double D_INITIAL = 0.1;
static const double LOGVAR_BOUND = 10.0; /* far from the data noise feeds on itself until exp overflows */
static const double PI = 3.14159265358979323846;

const char *const ADAPTER = "transposed";

typedef struct trainer {
    network net;
    pvera_linear *linear[LAYERS];
    const images *set;
    size_t *order;               /* of the images, shuffled anew for every epoch */
    float pixels[BATCH * PIXELS];
    uint64_t identity[BATCH];
    size_t count;                /* of parameters, and of entries of the four arrays */
    float *parameters, *gradients, *first_moments, *second_moments;
    pvera_slot_gradients slot[LAYERS];
    pvera_gradients wanted[LAYERS];
    double kl[LAYERS];
    uint32_t step, steps;
    uint64_t seed, shuffle_state;
} trainer;

/* A and B as wide as the network's widest layers. */
static pvera_store *store_new(const base_weights *base, const recipe *how) {
    pvera_store_options options = {.struct_size = sizeof options, .rank = RANK, .grid = how->grid};
    for (size_t i = 0; i < LAYERS; i++) {
        if (base->sizes[i] > options.in_max) options.in_max = base->sizes[i];
        if (base->sizes[i + 1] > options.out_max) options.out_max = base->sizes[i + 1];
    }
    pvera_store *store;
    check(pvera_store_from_key(how->seed, &options, &store));
    return store;
}

static pvera_adapter *adapter_new(const pvera_model *model, const base_weights *base, const recipe *how) {
    pvera_config *config;
    check(pvera_config_new(&config));
    check(pvera_config_set_int(config, "r", RANK));
    check(pvera_config_set_int(config, "projection_prng_key", (int64_t)how->seed));
    check(pvera_config_set_real(config, "d_initial", D_INITIAL));
    check(pvera_config_set_real(config, "logvar_bound", LOGVAR_BOUND));
    check(pvera_config_set_bool(config, "sample_at_inference", true));
    check(pvera_config_set_json(config, "target_modules", "[\"layers.0\", \"layers.1\", \"layers.2\"]"));
    pvera_adapter_options options = {.struct_size = sizeof options};
    check(pvera_adapter_identity(ADAPTER, &options.identity));
    pvera_store *store = store_new(base, how);
    pvera_adapter *adapter;
    check(pvera_adapter_new(model, config, store, &options, &adapter));
    pvera_store_free(store);
    pvera_config_free(config);
    return adapter;
}

/* Where backward puts each layer's gradients: into one flat array, laid out as the parameters are. */
static void want_gradients(trainer *t, const pvera_adapter *adapter) {
    for (size_t i = 0; i < LAYERS; i++) {
        pvera_parameter_range range;
        check(pvera_adapter_range(adapter, i, &range));
        t->slot[i] = (pvera_slot_gradients){
            .lambda_b = t->gradients + range.lambda_b,
            .lambda_d = t->gradients + range.lambda_d,
        };
        t->wanted[i] = (pvera_gradients){
            .struct_size = sizeof(pvera_gradients),
            .overwrite = PVERA_OVERWRITE_LAMBDA_B | PVERA_OVERWRITE_LAMBDA_D,
            .kl_reduction = PVERA_KL_MEAN,
            .slots = &t->slot[i],
            .slot_count = 1,
            .kl_weight = KL_WEIGHT,
            .kl_value = &t->kl[i],
        };
    }
}

/* splitmix64 (Steele, Lea and Flood 2014). */
static uint64_t next_random(uint64_t *state) {
    uint64_t z = *state += 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

static void shuffle(trainer *t) {
    for (size_t i = t->set->count; i > 1; i--) {
        size_t j = next_random(&t->shuffle_state) % i;
        size_t image = t->order[i - 1];
        t->order[i - 1] = t->order[j];
        t->order[j] = image;
    }
}

/* The summed cross entropy of a batch, and its mean's gradient by the logits. */
static double cross_entropy(const float *logits, const size_t *chosen, const uint8_t *labels, size_t n, float *slope) {
    double loss = 0.0;
    for (size_t i = 0; i < n; i++) {
        double probability[CLASSES];
        softmax(&logits[i * CLASSES], probability);
        size_t label = labels[chosen[i]];
        loss -= log(probability[label]);
        for (size_t c = 0; c < CLASSES; c++)
            slope[i * CLASSES + c] = (float)((probability[c] - (c == label)) / (double)n);
    }
    return loss;
}

/* One step on n images; the loss times n. */
static double train_batch(trainer *t, const size_t *chosen, size_t n) {
    for (size_t i = 0; i < n; i++) {
        memcpy(&t->pixels[i * PIXELS], &t->set->pixels[chosen[i] * PIXELS], PIXELS * sizeof(float));
        t->identity[i] = t->set->identity[chosen[i]];
    }
    /* The step is the sample number: an image meets new noise every time, and the same in every run. */
    pvera_rows rows = {.struct_size = sizeof rows, .identity = t->identity, .sample_base = t->step};
    pvera_noise noise = noise_of(PVERA_MODE_SAMPLE, t->seed);
    const float *logits = forward_with_tapes(&t->net, t->pixels, n, &rows, &noise);
    double loss = cross_entropy(logits, chosen, t->set->labels, n, t->net.difference[LAYERS - 1]);
    backward(&t->net, n, t->wanted);
    for (size_t i = 0; i < LAYERS; i++) loss += KL_WEIGHT * t->kl[i] * (double)n;

    pvera_adamw options = pvera_adamw_default();
    options.learning_rate = LEARNING_RATE * (1.0 + cos(PI * t->step / t->steps)) / 2.0;
    options.weight_decay = 0.0;
    t->step++;
    check(pvera_adamw_step(&options, t->step, t->count, t->parameters, t->gradients, t->first_moments,
                           t->second_moments));
    return loss;
}

static double train_epoch(trainer *t) {
    double loss = 0.0;
    shuffle(t);
    for (size_t start = 0; start < t->set->count; start += BATCH) {
        size_t left = t->set->count - start;
        loss += train_batch(t, &t->order[start], left < BATCH ? left : BATCH);
    }
    return loss / (double)t->set->count;
}

static double accuracy_of_mean(network *net, const images *set) {
    pvera_noise noise = noise_of(PVERA_MODE_MEAN, 0);
    const float *logits = forward(net, set->pixels, set->count, NULL, &noise);
    size_t right = 0;
    for (size_t i = 0; i < set->count; i++) {
        double probability[CLASSES];
        softmax(&logits[i * CLASSES], probability);
        right += largest(probability) == set->labels[i];
    }
    return (double)right / (double)set->count;
}

/* On a terminal one line that renews itself, elsewhere a handful. */
static void report(trainer *t, int epoch, double loss, const images *validation) {
    bool terminal = isatty(STDOUT_FILENO);
    if (!terminal && epoch != 1 && epoch % EPOCHS_A_LINE != 0) return;
    printf("%s  epoch %3d of %d   loss %.3f   validation accuracy %.3f", terminal ? "\r" : "", epoch, EPOCHS, loss,
           accuracy_of_mean(&t->net, validation));
    if (!terminal || epoch == EPOCHS) putchar('\n');
    fflush(stdout);
}

static trainer trainer_new(const pvera_context *context, const base_weights *base, const images *set, size_t rows,
                           uint64_t seed) {
    trainer t = {.net = network_new(context, base, rows), .set = set, .seed = seed, .shuffle_state = seed};
    t.steps = (uint32_t)(EPOCHS * ((set->count + BATCH - 1) / BATCH));
    t.order = allocate(set->count, sizeof *t.order);
    for (size_t i = 0; i < set->count; i++) t.order[i] = i;
    return t;
}

static void trainer_free(trainer *t) {
    for (size_t i = 0; i < LAYERS; i++) pvera_linear_free(t->linear[i]);
    network_free(&t->net);
    free(t->order);
    free(t->gradients);
    free(t->first_moments);
    free(t->second_moments);
}

pvera_adapter *train(const pvera_context *context, const base_weights *base, const pvera_model *model,
                     const images *training, const images *validation, const recipe *how) {
    pvera_adapter *adapter = adapter_new(model, base, how);
    size_t rows = validation->count > BATCH ? validation->count : BATCH;
    trainer t = trainer_new(context, base, training, rows, how->seed);
    for (size_t i = 0; i < LAYERS; i++) {
        check(pvera_adapter_linear(adapter, i, &t.linear[i]));
        t.net.linear[i] = t.linear[i];
    }
    check(pvera_adapter_parameters(adapter, &t.parameters, &t.count));
    t.gradients = allocate(t.count, sizeof(float));
    t.first_moments = allocate(t.count, sizeof(float));
    t.second_moments = allocate(t.count, sizeof(float));
    want_gradients(&t, adapter);
    if (!how->silent)
        printf("Training: %zu numbers on %zu transposed digits, %u steps\n", t.count, training->count, t.steps);
    for (int epoch = 1; epoch <= EPOCHS; epoch++) {
        double loss = train_epoch(&t);
        if (!how->silent) report(&t, epoch, loss, validation);
    }
    trainer_free(&t);
    return adapter;
}
