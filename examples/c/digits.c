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
#include <pvera.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "data.h"
#include "inputs.h"
#include "network.h"
#include "report.h"
#include "support.h"
#include "training.h"

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
    pvera_adapter *adapter = train(net->context, base, model, &training, &validation, &(recipe){.seed = SEED});
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

/* ---- The job ---- */

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
        [FAMILIAR] = measure(&net, test, SEED),
        [SCRAMBLED] = measure(&net, images_changed(&test, scrambled), SEED),
        [INVERTED] = measure(&net, images_changed(&test, inverted), SEED),
        [UPRIGHT] = measure(&net, upright, SEED),
    };
    report(&net, kind, SEED, out);

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
    return failures() == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
