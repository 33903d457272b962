/* Tensor-parallel layers on MPI: a layer split by column, ReLU, a layer split by row, as engines split a transformer's
 * MLP.
 *
 *     mpirun -n 2 mpi_tensor_parallel
 *
 * By column, a rank has some of the outputs and needs nobody. By row, a rank has some of the inputs: its p is a partial
 * sum, and ranks add theirs before the exp of the latent step; then each expands its own share of the outputs into its
 * partial base product, and the engine's usual all-reduce of y finishes both. Every rank loads the same checkpoint for
 * its shards. Each also computes the whole layers alone, and says what of its part has the same bits. */
#include <math.h>
#include <mpi.h>
#include <pvera.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support.h"

enum { TOKENS = 12, WIDTH = 256, RANK = 32, SEED = 5 };

/* The two layers, whole or a rank's shards of them. */
struct layers {
    size_t hidden_begin, hidden; /* of the hidden values, those that are here */
    size_t out_begin, out;       /* of down's outputs, those that are expanded here */
    pvera_model *model;
    pvera_adapter *adapter;
    pvera_linear *up, *down;
};

/* Base weights [hidden, WIDTH] and [WIDTH, hidden], the same on every rank; an engine would load its parts only. */
struct base {
    size_t hidden;
    float *up, *down;
};

/* One input, and what a pass over both layers gives. */
struct pass {
    pvera_rows rows;
    pvera_noise noise;
    const float *x;
    float *h, *p, *y;
    size_t width; /* of p */
};

static float *normals(size_t count, uint64_t seed, float scale) {
    float *values = allocate(count, sizeof *values);
    pvera_torch_generator *generator = NULL;
    check(pvera_torch_generator_new(seed, &generator));
    check(pvera_torch_generator_normals(generator, count, values));
    pvera_torch_generator_free(generator);
    for (size_t i = 0; i < count; ++i) values[i] *= scale;
    return values;
}

static void sum_over_ranks(float *values, size_t count) {
    MPI_Allreduce(MPI_IN_PLACE, values, (int)count, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
}

/* Part `part` of `parts`; of 1 the whole. Only up has a weight here: down's base is the engine's, as its product is
 * summed. */
static struct layers layers_new(const struct base *base, size_t part, size_t parts) {
    struct layers layers = {.hidden = base->hidden / parts, .out = WIDTH / parts};
    layers.hidden_begin = part * layers.hidden, layers.out_begin = part * layers.out;
    const pvera_layer up = {.struct_size = sizeof up,
                            .name = "up",
                            .in_features = WIDTH,
                            .out_features = layers.hidden,
                            .out_offset = layers.hidden_begin,
                            .out_total = base->hidden,
                            .weight = pvera_f32(base->up + layers.hidden_begin * WIDTH, layers.hidden, WIDTH)};
    const pvera_layer down = {.struct_size = sizeof down,
                              .name = "down",
                              .in_features = layers.hidden,
                              .in_offset = layers.hidden_begin,
                              .in_total = base->hidden,
                              .out_features = layers.out,
                              .out_offset = layers.out_begin,
                              .out_total = WIDTH};
    check(pvera_model_new(NULL, &layers.model));
    check(pvera_model_declare(layers.model, &up, NULL));
    check(pvera_model_declare(layers.model, &down, NULL));
    return layers;
}

static void layers_free(struct layers *layers) {
    pvera_linear_free(layers->up), pvera_linear_free(layers->down);
    pvera_adapter_free(layers->adapter), pvera_model_free(layers->model);
}

/* A checkpoint of an adapter whose vectors are normals; A and B are not in it, but drawn from its key by whoever loads
 * it. */
static void write_checkpoint(const struct layers *whole, pvera_bytes *config, pvera_bytes *tensors) {
    pvera_config *options = NULL;
    pvera_adapter *adapter = NULL;
    float *parameters = NULL;
    size_t count = 0;
    check(pvera_config_new(&options));
    check(pvera_config_set_int(options, "r", RANK));
    check(pvera_config_set_bool(options, "save_projection", false));
    check(pvera_config_set_json(options, "target_modules", "[\"up\", \"down\"]"));
    check(pvera_adapter_new(whole->model, options, NULL, NULL, &adapter));
    check(pvera_adapter_parameters(adapter, &parameters, &count));
    float *values = normals(count, 11, 0.5f);
    memcpy(parameters, values, count * sizeof *values);
    check(pvera_adapter_save_memory(adapter, config, tensors));
    free(values), pvera_adapter_free(adapter), pvera_config_free(options);
}

/* The first rank's bytes, for everybody; freed with free. */
static uint8_t *broadcast(const pvera_bytes *bytes, size_t *size) {
    unsigned long long count = bytes->size;
    MPI_Bcast(&count, 1, MPI_UNSIGNED_LONG_LONG, 0, MPI_COMM_WORLD);
    uint8_t *copy = allocate(count, 1);
    if (bytes->data != NULL) memcpy(copy, bytes->data, count);
    MPI_Bcast(copy, (int)count, MPI_BYTE, 0, MPI_COMM_WORLD);
    *size = count;
    return copy;
}

/* A shard does not know how large A and B are for the whole network, and the file does not say. */
static void load(struct layers *layers, const struct base *base, const uint8_t *config, size_t config_size,
                 const uint8_t *tensors, size_t tensors_size) {
    const pvera_adapter_options options = {
        .struct_size = sizeof options, .in_max = base->hidden, .out_max = base->hidden};
    check(pvera_adapter_load_memory(layers->model, config, config_size, tensors, tensors_size, &options,
                                    &layers->adapter));
    check(pvera_adapter_linear(layers->adapter, 0, &layers->up));
    check(pvera_adapter_linear(layers->adapter, 1, &layers->down));
}

/* y [TOKENS, WIDTH] = h Wᵀ over the inputs that are here: the engine's own product. */
static void base_product(const struct base *base, const struct layers *layers, const float *h, float *y) {
    for (size_t i = 0; i < TOKENS; ++i)
        for (size_t j = 0; j < WIDTH; ++j) {
            const float *weight = base->down + j * base->hidden + layers->hidden_begin;
            float sum = 0;
            for (size_t k = 0; k < layers->hidden; ++k) sum += h[i * layers->hidden + k] * weight[k];
            y[i * WIDTH + j] = sum;
        }
}

/* Both layers. With shards, p and y are sums over the ranks. */
static void run(const pvera_context *context, const struct base *base, const struct layers *layers, bool shards,
                pvera_tape *tape, struct pass *pass) {
    const pvera_matrix x = pvera_f32(pass->x, TOKENS, WIDTH), h = pvera_f32(pass->h, TOKENS, layers->hidden);
    const pvera_matrix_mut h_out = pvera_f32_mut(pass->h, TOKENS, layers->hidden);
    check(pvera_forward(context, layers->up, &x, &pass->rows, &pass->noise, tape, &h_out));
    for (size_t i = 0; i < TOKENS * layers->hidden; ++i) pass->h[i] = fmaxf(pass->h[i], 0);

    const pvera_matrix p = pvera_f32(pass->p, TOKENS, pass->width);
    const pvera_matrix_mut p_out = pvera_f32_mut(pass->p, TOKENS, pass->width);
    check(pvera_project(context, layers->down, &h, &pass->rows, &pass->noise, &p_out));
    if (shards) sum_over_ranks(pass->p, TOKENS * pass->width);

    base_product(base, layers, pass->h, pass->y);
    pvera_matrix_mut y = pvera_f32_mut(pass->y + layers->out_begin, TOKENS, layers->out);
    y.row_stride = WIDTH;
    check(pvera_expand(context, layers->down, &p, &pass->rows, &pass->noise, &y));
    if (shards) sum_over_ranks(pass->y, TOKENS * WIDTH);
}

static struct pass pass_new(const struct layers *layers, const float *x, int32_t mode) {
    struct pass pass = {.x = x};
    /* A token's noise is that of its place in its sequence; every rank says the same. */
    pass.rows = (pvera_rows){.struct_size = sizeof pass.rows, .identity_base = 100};
    pass.noise = (pvera_noise){.struct_size = sizeof pass.noise, .mode = mode, .seed = SEED};
    check(pvera_project_width(layers->down, &pass.rows, TOKENS, &pass.width, NULL));
    pass.h = allocate(TOKENS * layers->hidden, sizeof(float));
    pass.p = allocate(TOKENS * pass.width, sizeof(float));
    pass.y = allocate(TOKENS * WIDTH, sizeof(float));
    return pass;
}

static void pass_free(struct pass *pass) { free(pass->h), free(pass->p), free(pass->y); }

/* max|found − wanted| / max|wanted| over rows of `columns` values; columns of wanted begin at `begin` of `pitch`. */
static double difference(const float *found, const float *wanted, size_t rows, size_t columns, size_t begin,
                         size_t pitch) {
    double most = 0, size = 0;
    for (size_t i = 0; i < rows; ++i)
        for (size_t j = 0; j < columns; ++j) {
            const double value = wanted[i * pitch + begin + j];
            most = fmax(most, fabs(found[i * columns + j] - value));
            size = fmax(size, fabs(value));
        }
    return size > 0 ? most / size : INFINITY;
}

/* Says it for the worst of the ranks; the same call on all of them. */
static void say(int rank, const char *what, double mine, double most) {
    double worst = 0;
    MPI_Allreduce(&mine, &worst, 1, MPI_DOUBLE, MPI_MAX, MPI_COMM_WORLD);
    if (rank == 0) printf("    %-50s %s (%.1e)\n", what, worst == 0 ? "same bits" : "to rounding", worst);
    require(worst <= most, what);
}

struct gradients {
    float *lambda_b, *lambda_d, *dx; /* [hidden], [2 RANK], [TOKENS, WIDTH] */
};

/* Backward of up for this part of dh [TOKENS, hidden]. λ_d and dx are partial sums; the KL divergence depends on the
 * latents, which every rank has whole, so one rank counts it. */
static struct gradients up_backward(const pvera_context *context, const struct base *base, const struct layers *layers,
                                    const pvera_tape *tape, const float *dh, bool counts_kl) {
    struct gradients found = {allocate(base->hidden, sizeof(float)), allocate(2 * RANK, sizeof(float)),
                              allocate(TOKENS * WIDTH, sizeof(float))};
    pvera_matrix dy = pvera_f32(dh + layers->hidden_begin, TOKENS, layers->hidden);
    dy.row_stride = base->hidden;
    const pvera_slot_gradients slot = {.lambda_b = found.lambda_b, .lambda_d = found.lambda_d};
    const pvera_gradients wanted = {.struct_size = sizeof wanted,
                                    .overwrite = PVERA_OVERWRITE_ALL,
                                    .slots = &slot,
                                    .slot_count = 1,
                                    .kl_weight = counts_kl ? 1 : 0};
    const pvera_matrix_mut dx = pvera_f32_mut(found.dx, TOKENS, WIDTH);
    check(pvera_backward(context, tape, &dy, &wanted, &dx));
    return found;
}

static void gradients_free(struct gradients *gradients) {
    free(gradients->lambda_b), free(gradients->lambda_d), free(gradients->dx);
}

static void compare(const pvera_context *context, const struct base *base, const struct layers *whole,
                    const struct layers *part, int32_t mode, int rank) {
    float *x = normals(TOKENS * WIDTH, 12, 1), *dh = normals(TOKENS * base->hidden, 13, 1);
    pvera_tape *whole_tape = NULL, *part_tape = NULL;
    check(pvera_tape_new(PVERA_TAPE_KEEP_LATENT, NULL, &whole_tape));
    check(pvera_tape_new(PVERA_TAPE_KEEP_LATENT, NULL, &part_tape));
    struct pass wanted = pass_new(whole, x, mode), found = pass_new(part, x, mode);
    run(context, base, whole, false, whole_tape, &wanted);
    run(context, base, part, true, part_tape, &found);
    /* The library sums inputs in blocks of 256, in their order: two ranks with one block each do the same. */
    const bool exact_p = part->hidden == 256 && 2 * part->hidden >= base->hidden;
    say(rank, "by column: this rank's outputs",
        difference(found.h, wanted.h, TOKENS, part->hidden, part->hidden_begin, whole->hidden), 0);
    say(rank, "by row: p, summed", difference(found.p, wanted.p, TOKENS, wanted.width, 0, wanted.width),
        exact_p ? 0 : 1e-6);
    say(rank, "by row: y, summed", difference(found.y, wanted.y, TOKENS, WIDTH, 0, WIDTH), 2e-6);

    struct gradients all = up_backward(context, base, whole, whole_tape, dh, true);
    struct gradients own = up_backward(context, base, part, part_tape, dh, rank == 0);
    sum_over_ranks(own.lambda_d, 2 * RANK), sum_over_ranks(own.dx, TOKENS * WIDTH);
    say(rank, "by column, backward: this rank's part of dlambda_b",
        difference(own.lambda_b + part->hidden_begin, all.lambda_b + part->hidden_begin, 1, part->hidden, 0,
                   base->hidden),
        0);
    say(rank, "by column, backward: dlambda_d, summed",
        difference(own.lambda_d, all.lambda_d, 1, 2 * RANK, 0, 2 * RANK), 2e-6);
    say(rank, "by column, backward: dx, summed", difference(own.dx, all.dx, TOKENS, WIDTH, 0, WIDTH), 2e-6);
    gradients_free(&all), gradients_free(&own), pass_free(&wanted), pass_free(&found);
    pvera_tape_free(whole_tape), pvera_tape_free(part_tape), free(x), free(dh);
}

static void compare_size(size_t hidden, int rank, int ranks) {
    struct base base = {hidden, normals(hidden * WIDTH, 1, 1 / sqrtf(WIDTH)), NULL};
    base.down = normals(WIDTH * hidden, 2, 1 / sqrtf((float)hidden));
    struct layers whole = layers_new(&base, 0, 1), part = layers_new(&base, (size_t)rank, (size_t)ranks);
    pvera_bytes config = {0}, tensors = {0};
    pvera_context *context = NULL;
    size_t config_size = 0, tensors_size = 0;
    if (rank == 0) write_checkpoint(&whole, &config, &tensors);
    uint8_t *config_bytes = broadcast(&config, &config_size), *tensor_bytes = broadcast(&tensors, &tensors_size);
    load(&whole, &base, config_bytes, config_size, tensor_bytes, tensors_size);
    load(&part, &base, config_bytes, config_size, tensor_bytes, tensors_size);
    check(pvera_context_new(NULL, &context));
    if (rank == 0)
        printf("%d → %zu by column, %zu → %d by row, %d ranks\n  sampled\n", WIDTH, hidden, hidden, WIDTH, ranks);
    compare(context, &base, &whole, &part, PVERA_MODE_SAMPLE, rank);
    if (rank == 0) printf("  mean\n");
    compare(context, &base, &whole, &part, PVERA_MODE_MEAN, rank);
    pvera_bytes_free(&config), pvera_bytes_free(&tensors), free(config_bytes), free(tensor_bytes);
    layers_free(&whole), layers_free(&part), pvera_context_free(context), free(base.up), free(base.down);
}

int main(int count, char **arguments) {
    int rank = 0, ranks = 0, failed = 0;
    MPI_Init(&count, &arguments);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank), MPI_Comm_size(MPI_COMM_WORLD, &ranks);
    if (WIDTH % ranks != 0) fail("%d ranks; wanted a number that divides %d", ranks, WIDTH);
    compare_size(256 * (size_t)ranks, rank, ranks);
    compare_size(320 * (size_t)ranks, rank, ranks);
    const int mine = failures();
    MPI_Allreduce(&mine, &failed, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
    MPI_Finalize();
    return failed > 0;
}
