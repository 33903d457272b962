/* Data-parallel training on MPI: every rank has the whole network and a share of each batch; one all-reduce a step over
 * the flat array of gradients, then the same optimiser step on every rank.
 *
 *     mpirun -n 2 mpi_data_parallel DATA
 *
 * Trains the digits' adapter (../c/digits.c) three times: on all ranks; in one process that takes the ranks' shares one
 * after the other and adds their gradients; in one process that takes whole batches. Then it says which parameters have
 * the same bits. Noise is keyed by image and step, so that all three draw the same. */
#include <math.h>
#include <mpi.h>
#include <pvera.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data.h"
#include "network.h"
#include "support.h"

enum { RANK = 128, SEED = 1, STEPS = 60 };

static const double LEARNING_RATE = 0.02;
static const double KL_WEIGHT = 1e-3;

/* Which shares of each batch this process computes, and with whom it sums. */
struct work {
    size_t batch;
    int shares, first, end; /* of `shares`, those from first to end − 1 */
    MPI_Comm sum_over;      /* or MPI_COMM_NULL */
};

/* Four arrays of one layout, and where each layer's gradients lie in it. */
struct state {
    size_t count;
    float *parameters, *gradients, *first_moments, *second_moments;
    pvera_slot_gradients slot[LAYERS];
    double first_loss, last_loss; /* cross entropy of the first and the last batch */
};

static pvera_adapter *adapter_new(const pvera_model *model) {
    pvera_config *config = NULL;
    pvera_adapter *adapter = NULL;
    check(pvera_config_new(&config));
    check(pvera_config_set_int(config, "r", RANK));
    check(pvera_config_set_int(config, "projection_prng_key", SEED));
    check(pvera_config_set_real(config, "logvar_bound", 10));
    check(pvera_config_set_json(config, "target_modules", "[\"layers.0\", \"layers.1\", \"layers.2\"]"));
    check(pvera_adapter_new(model, config, NULL, NULL, &adapter));
    pvera_config_free(config);
    return adapter;
}

static struct state state_new(const pvera_adapter *adapter) {
    struct state state = {0};
    check(pvera_adapter_parameters(adapter, &state.parameters, &state.count)); /* the adapter's own memory */
    state.gradients = allocate(state.count, sizeof(float));
    state.first_moments = allocate(state.count, sizeof(float));
    state.second_moments = allocate(state.count, sizeof(float));
    for (size_t i = 0; i < LAYERS; ++i) {
        pvera_parameter_range at;
        check(pvera_adapter_range(adapter, i, &at));
        state.slot[i] = (pvera_slot_gradients){0, state.gradients + at.lambda_b, state.gradients + at.lambda_d, NULL};
    }
    return state;
}

/* dL/dlogits of the mean cross entropy over the whole batch, whatever the share; returns this share's part of the loss.
 */
static double loss(const float *logits, const uint8_t *labels, size_t rows, size_t batch, float *difference) {
    double sum = 0;
    for (size_t i = 0; i < rows; ++i) {
        double probabilities[CLASSES];
        softmax(logits + i * CLASSES, probabilities);
        sum -= log(probabilities[labels[i]]);
        for (size_t c = 0; c < CLASSES; ++c)
            difference[i * CLASSES + c] = (float)((probabilities[c] - (c == labels[i])) / (double)batch);
    }
    return sum / (double)batch;
}

/* Adds the gradients of one share of one batch; the first share of a process sets them instead. */
static double share_gradients(network *net, struct state *state, const images *set, const struct work *work,
                              uint32_t step, int share) {
    const size_t rows_each = work->batch / (size_t)work->shares;
    float *pixels = allocate(rows_each * PIXELS, sizeof *pixels);
    uint64_t *identity = allocate(rows_each, sizeof *identity);
    uint8_t *labels = allocate(rows_each, 1);
    for (size_t i = 0; i < rows_each; ++i) {
        const size_t image = (step * work->batch + (size_t)share * rows_each + i) % set->count;
        memcpy(pixels + i * PIXELS, set->pixels + image * PIXELS, PIXELS * sizeof *pixels);
        identity[i] = set->identity[image], labels[i] = set->labels[image];
    }
    const pvera_rows rows = {.struct_size = sizeof rows, .identity = identity, .sample_base = step};
    const pvera_noise noise = noise_of(PVERA_MODE_SAMPLE, SEED);
    const float *logits = forward_with_tapes(net, pixels, rows_each, &rows, &noise);
    const double share_loss = loss(logits, labels, rows_each, work->batch, net->difference[LAYERS - 1]);
    pvera_gradients wanted[LAYERS];
    for (size_t i = 0; i < LAYERS; ++i)
        wanted[i] = (pvera_gradients){
            .struct_size = sizeof *wanted,
            .overwrite = share == work->first ? PVERA_OVERWRITE_LAMBDA_B | PVERA_OVERWRITE_LAMBDA_D : 0,
            .slots = &state->slot[i],
            .slot_count = 1,
            /* A sum with the whole batch's weight: means of shares would depend on the shares. */
            .kl_reduction = PVERA_KL_SUM,
            .kl_weight = KL_WEIGHT / (double)(work->batch * RANK)};
    backward(net, rows_each, wanted);
    free(pixels), free(identity), free(labels);
    return share_loss;
}

static void train_step(network *net, struct state *state, const images *set, const struct work *work, uint32_t step) {
    double sum = 0;
    for (int share = work->first; share < work->end; ++share)
        sum += share_gradients(net, state, set, work, step, share);
    if (work->sum_over != MPI_COMM_NULL) {
        MPI_Allreduce(MPI_IN_PLACE, state->gradients, (int)state->count, MPI_FLOAT, MPI_SUM, work->sum_over);
        MPI_Allreduce(MPI_IN_PLACE, &sum, 1, MPI_DOUBLE, MPI_SUM, work->sum_over); /* for the eye only */
    }
    pvera_adamw adamw = pvera_adamw_default();
    adamw.learning_rate = LEARNING_RATE;
    check(pvera_adamw_step(&adamw, step + 1, state->count, state->parameters, state->gradients, state->first_moments,
                           state->second_moments));
    if (step == 0) state->first_loss = sum;
    state->last_loss = sum;
}

/* The trained parameters, state->count of them; of the rest of state only the losses are left. */
static float *train(const base_weights *base, const images *set, const struct work *work, struct state *state) {
    pvera_context *context = NULL;
    check(pvera_context_new(NULL, &context));
    pvera_model *model = model_new(base);
    pvera_adapter *adapter = adapter_new(model);
    network net = network_new(context, base, work->batch / (size_t)work->shares);
    pvera_linear *linear[LAYERS];
    for (size_t i = 0; i < LAYERS; ++i) {
        check(pvera_adapter_linear(adapter, i, &linear[i]));
        net.linear[i] = linear[i];
    }
    *state = state_new(adapter);
    for (uint32_t step = 0; step < STEPS; ++step) train_step(&net, state, set, work, step);
    float *trained = allocate(state->count, sizeof *trained);
    memcpy(trained, state->parameters, state->count * sizeof *trained);
    free(state->gradients), free(state->first_moments), free(state->second_moments);
    for (size_t i = 0; i < LAYERS; ++i) pvera_linear_free(linear[i]);
    network_free(&net), pvera_adapter_free(adapter), pvera_model_free(model), pvera_context_free(context);
    return trained;
}

/* max|found − wanted| / max|wanted| */
static double relative_difference(const float *found, const float *wanted, size_t count) {
    double most = 0, size = 0;
    for (size_t i = 0; i < count; ++i) {
        most = fmax(most, fabs((double)found[i] - wanted[i]));
        size = fmax(size, fabs(wanted[i]));
    }
    return most / size;
}

static const char *same(double difference) { return difference == 0 ? "same bits" : "to rounding"; }

static void compare(const base_weights *base, const images *set, size_t batch, int rank, int ranks) {
    const struct work parallel = {batch, ranks, rank, rank + 1, MPI_COMM_WORLD};
    const struct work accumulated = {batch, ranks, 0, ranks, MPI_COMM_NULL};
    const struct work whole = {batch, 1, 0, 1, MPI_COMM_NULL};
    struct state state;
    float *ours = train(base, set, &parallel, &state);
    float *of_first = allocate(state.count, sizeof *of_first);
    memcpy(of_first, ours, state.count * sizeof *ours);
    MPI_Bcast(of_first, (int)state.count, MPI_FLOAT, 0, MPI_COMM_WORLD);
    require(memcmp(of_first, ours, state.count * sizeof *ours) == 0, "ranks have parameters of different bits");
    if (rank == 0) {
        struct state other;
        float *by_shares = train(base, set, &accumulated, &other), *by_batches = train(base, set, &whole, &other);
        const double to_shares = relative_difference(ours, by_shares, state.count);
        const double to_batches = relative_difference(ours, by_batches, state.count);
        printf("batches of %zu on %d ranks, %d steps, %zu bytes summed a step: loss %.3f to %.3f\n", batch, ranks,
               STEPS, state.count * sizeof(float), state.first_loss, state.last_loss);
        printf("  beside shares one after the other in one process: %s (%.1e)\n", same(to_shares), to_shares);
        printf("  beside whole batches in one process:              %s (%.1e)\n", same(to_batches), to_batches);
        require(state.last_loss < 0.5 * state.first_loss, "the network does not learn");
        if (ranks == 2) require(to_shares == 0, "two ranks differ from the sum of their shares");
        if (ranks == 2 && batch == 128) require(to_batches == 0, "two ranks of 64 rows differ from a batch of 128");
        require(to_shares < 1e-4 && to_batches < 1e-4, "the parameters of one process are far away");
        free(by_shares), free(by_batches);
    }
    free(ours), free(of_first);
}

int main(int count, char **arguments) {
    int rank = 0, ranks = 0, failed = 0;
    MPI_Init(&count, &arguments);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank), MPI_Comm_size(MPI_COMM_WORLD, &ranks);
    if (count != 2) fail("usage: mpirun -n RANKS %s DATA", arguments[0]);
    base_weights base = base_read(arguments[1]);
    images all = images_read(arguments[1]), upright = images_of_part(&all, TRAINING);
    images set = images_changed(&upright, transposed);
    compare(&base, &set, 64 * (size_t)ranks, rank, ranks);
    compare(&base, &set, 40 * (size_t)ranks, rank, ranks);
    images_free(&set), images_free(&upright), images_free(&all), base_free(&base);
    const int mine = failures();
    MPI_Allreduce(&mine, &failed, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
    MPI_Finalize();
    return failed > 0;
}
