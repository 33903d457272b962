/* Errors of computing: shapes, types, strides, overlaps, rows, noise, tapes, merges. Each has its code and its sentence, and
 * leaves outputs alone. With --verbose all sentences are shown. (NULL is in test_null.c, memory in test_memory.c.) */
#include "world.h"

static float y_values[4 * ROWS * OUT], p_values[ROWS * 4 * RANK];
static float y_before[4 * ROWS * OUT];

/* A call that fails and leaves y as it was. */
#define REFUSED(call, code, words) \
    do { \
        fill(y_values, 4 * ROWS * OUT, 9); \
        memcpy(y_before, y_values, sizeof y_before); \
        CHECK_ERROR(call, code, words); \
        CHECK_SAME_BITS(#call, y_values, y_before, sizeof y_before); \
    } while (0)

static pvera_matrix x_of(const struct world *w) { return pvera_f32(w->x, ROWS, IN); }
static pvera_matrix_mut y_of(void) { return pvera_f32_mut(y_values, ROWS, OUT); }

static void matrices(struct world *w) {
    pvera_matrix x = x_of(w), bad;
    pvera_matrix_mut y = y_of(), bad_y;
#define X_IS(change, code, words) \
    do { \
        bad = x; \
        change; \
        REFUSED(pvera_forward(w->context, w->q, &bad, NULL, NULL, NULL, &y), code, words); \
    } while (0)
#define Y_IS(change, code, words) \
    do { \
        bad_y = y; \
        change; \
        REFUSED(pvera_forward(w->context, w->q, &x, NULL, NULL, NULL, &bad_y), code, words); \
    } while (0)
    X_IS(bad.cols = IN - 1, PVERA_ERROR_SHAPE, "x is 6×8|wanted 6×9|in_features");
    X_IS(bad.row_stride = IN - 1, PVERA_ERROR_STRIDE, "x.row_stride is 8|wanted at least 9");
    X_IS(bad.dtype.bits = 64, PVERA_ERROR_DTYPE, "x.dtype|64 bits|wanted f32");
    X_IS(bad.dtype.lanes = 4, PVERA_ERROR_DTYPE, "x.dtype|4 lanes|wanted f32");
    X_IS(bad.dtype.code = PVERA_DTYPE_INT, PVERA_ERROR_DTYPE, "x.dtype|code 0|wanted f32");
    X_IS(bad.device.type = PVERA_DEVICE_CUDA, PVERA_ERROR_DEVICE, "x is on CUDA device 0|computes on the CPU");
    X_IS(bad.device.type = 99, PVERA_ERROR_DEVICE, "x.device.type is 99|wanted");
    X_IS(bad.data = (char *)w->x + 1, PVERA_ERROR_ARGUMENT, "x.data|aligned to 4");
    X_IS(bad.row_stride = SIZE_MAX / 2, PVERA_ERROR_SHAPE, "x is 6×9|address space");
    X_IS(bad.rows = SIZE_MAX; bad.row_stride = 9, PVERA_ERROR_SHAPE, "x is|address space");
    Y_IS(bad_y.cols = OUT + 1; bad_y.row_stride = OUT + 1, PVERA_ERROR_SHAPE, "y is 6×14|wanted 6×13|out_features");
    Y_IS(bad_y.rows = ROWS - 1, PVERA_ERROR_SHAPE, "y is 5×13|wanted 6×13");
    Y_IS(bad_y.row_stride = 1, PVERA_ERROR_STRIDE, "y.row_stride is 1|wanted at least 13");
    Y_IS(bad_y.dtype.bits = 8, PVERA_ERROR_DTYPE, "y.dtype|8 bits");
    Y_IS(bad_y.data = w->x, PVERA_ERROR_OVERLAP, "y overlaps x");
    Y_IS(bad_y.data = w->weight, PVERA_ERROR_OVERLAP, "y overlaps|weight");
    Y_IS(bad_y.data = w->bias, PVERA_ERROR_OVERLAP, "y overlaps|bias");

    pvera_noise noise = {.struct_size = sizeof noise, .mode = PVERA_MODE_SAMPLE};
    noise.eps = pvera_f32(p_values, ROWS, RANK - 1);
    REFUSED(pvera_forward(w->context, w->q, &x, NULL, &noise, NULL, &y), PVERA_ERROR_SHAPE, "noise.eps is 6×3|wanted 6×4");
    noise.eps = pvera_f32(y_values, ROWS, RANK);
    REFUSED(pvera_forward(w->context, w->q, &x, NULL, &noise, NULL, &y), PVERA_ERROR_OVERLAP, "y overlaps noise.eps");
    memset(&noise.eps, 0, sizeof noise.eps);
    noise.dropout_mask = pvera_f32(p_values, ROWS - 1, IN);
    REFUSED(pvera_forward(w->context, w->q, &x, NULL, &noise, NULL, &y), PVERA_ERROR_SHAPE, "noise.dropout_mask is 5×9|6×9");

    pvera_matrix_mut variance = y_of();
    REFUSED(pvera_moments(w->context, w->q, &x, NULL, &y, &variance), PVERA_ERROR_OVERLAP, "mean|overlaps|variance");
    pvera_matrix_mut mu = pvera_f32_mut(y_values, ROWS, RANK), logvar = pvera_f32_mut(y_values, ROWS, RANK - 1);
    REFUSED(pvera_latent(w->context, w->q, &x, NULL, &mu, &logvar), PVERA_ERROR_SHAPE, "logvar is 6×3|wanted 6×4");
    REFUSED(pvera_latent(w->context, w->q, &x, NULL, &mu, &mu), PVERA_ERROR_OVERLAP, "mu|overlaps|logvar");
    REFUSED(pvera_sample(w->context, w->q, &x, NULL, NULL, 2, &y), PVERA_ERROR_SHAPE, "y is 6×13|wanted 12×13|samples");
    REFUSED(pvera_sample(w->context, w->q, &x, NULL, NULL, 0, &y), PVERA_ERROR_ARGUMENT, "samples is 0|at least 1");
    noise = (pvera_noise){.struct_size = sizeof noise, .mode = PVERA_MODE_MEAN};
    REFUSED(pvera_sample(w->context, w->q, &x, NULL, &noise, 1, &y), PVERA_ERROR_ARGUMENT, "noise.mode|wanted sample");
    pvera_rows last = {.struct_size = sizeof last, .sample_base = UINT32_MAX};
    pvera_matrix_mut two = pvera_f32_mut(y_values, 2 * ROWS, OUT);
    REFUSED(pvera_sample(w->context, w->q, &x, &last, NULL, 2, &two), PVERA_ERROR_ARGUMENT, "samples is 2|4294967295");

    const pvera_linear *pair[2] = {w->q, w->v};
    pvera_matrix_mut outputs[2] = {y, pvera_f32_mut(y_values + ROWS * OUT, ROWS, V_OUT + 1)};
    REFUSED(pvera_forward_group(w->context, 2, pair, &x, NULL, NULL, NULL, outputs), PVERA_ERROR_SHAPE, "'v'|6×6|wanted 6×5");
    outputs[1] = pvera_f32_mut(y_values + 1, ROWS, V_OUT);
    REFUSED(pvera_forward_group(w->context, 2, pair, &x, NULL, NULL, NULL, outputs), PVERA_ERROR_OVERLAP, "overlaps");
    outputs[1].row_stride = 2;
    REFUSED(pvera_forward_group(w->context, 2, pair, &x, NULL, NULL, NULL, outputs), PVERA_ERROR_STRIDE, "y[1].row_stride is 2");
    REFUSED(pvera_forward_group(w->context, 0, pair, &x, NULL, NULL, NULL, outputs), PVERA_ERROR_ARGUMENT, "count is 0");
}

/* Several layers: vectors of their own, one variance for all. */
static void shared_outputs(struct world *w) {
    float dy_values[ROWS * OUT], q_b[OUT] = {0}, v_b[V_OUT] = {0};
    double kl[2] = {99, 99}, variance[ROWS] = {0}, apart[2][ROWS] = {{0}};
    pvera_matrix x = x_of(w);
    const pvera_linear *pair[2] = {w->q, w->v};
    pvera_matrix_mut y[2] = {y_of(), pvera_f32_mut(y_values + ROWS * OUT, ROWS, V_OUT)};
    fill(dy_values, ROWS * OUT, 6);
    const pvera_matrix dy[2] = {pvera_f32(dy_values, ROWS, OUT), pvera_f32(dy_values, ROWS, V_OUT)};
    pvera_tape *tape = NULL;
    MUST(pvera_tape_new(PVERA_TAPE_KEEP_LATENT, NULL, &tape));
    MUST(pvera_forward_group(w->context, 2, pair, &x, NULL, NULL, tape, y));
    pvera_slot_gradients slots[2] = {{0, q_b, NULL, NULL}, {0, q_b + 3, NULL, NULL}};
    pvera_gradients wanted[2];
    for (int i = 0; i < 2; ++i)
        wanted[i] = (pvera_gradients){.struct_size = sizeof *wanted, .slots = &slots[i], .slot_count = 1, .kl_value = &kl[i],
                                      .variance = variance, .variance_count = ROWS};
    CHECK_ERROR(pvera_backward_group(w->context, tape, 2, dy, wanted, NULL), PVERA_ERROR_OVERLAP,
                "gradients[1].slots[0].lambda_b overlaps gradients[0].slots[0].lambda_b|wanted memory of its own");
    slots[1].lambda_b = v_b, wanted[1].kl_value = kl;
    CHECK_ERROR(pvera_backward_group(w->context, tape, 2, dy, wanted, NULL), PVERA_ERROR_OVERLAP,
                "gradients[1].kl_value overlaps gradients[0].kl_value");
    CHECK(kl[0] == 99 && q_b[0] == 0 && q_b[3] == 0 && variance[0] == 0, "an output was written");
    wanted[1].kl_value = &kl[1];
    CHECK_OK(pvera_backward_group(w->context, tape, 2, dy, wanted, NULL));
    wanted[0].variance = apart[0], wanted[1].variance = apart[1];
    CHECK_OK(pvera_backward_group(w->context, tape, 2, dy, wanted, NULL));
    for (int i = 0; i < ROWS; ++i)
        CHECK(variance[i] > 0 && variance[i] == apart[0][i] + apart[1][i], "row %d: %g is not %g + %g", i, variance[i],
              apart[0][i], apart[1][i]);
    pvera_tape_free(tape);
}

/* Outputs on what the library reads, and on each other where they are plain arrays. */
static void overlaps(struct world *w) {
    pvera_matrix x = x_of(w);
    pvera_matrix_mut at_weight = pvera_f32_mut(w->weight, ROWS, RANK), y = y_of();
    pvera_matrix_mut at_vectors = pvera_f32_mut(w->parameters, ROWS, OUT), mu = pvera_f32_mut(y_values, ROWS, RANK);
    REFUSED(pvera_forward(w->context, w->q, &x, NULL, NULL, NULL, &at_vectors), PVERA_ERROR_OVERLAP, "y overlaps|of slot 0 of layer 'q'");
    REFUSED(pvera_sample(w->context, w->q, &x, NULL, NULL, 1, &at_vectors), PVERA_ERROR_OVERLAP, "y overlaps|of slot 0 of layer 'q'");
    REFUSED(pvera_latent(w->context, w->q, &x, NULL, &mu, &at_weight), PVERA_ERROR_OVERLAP, "logvar overlaps the base weight of layer 'q'");
    pvera_matrix_mut mean = pvera_f32_mut(w->weight, ROWS, OUT);
    REFUSED(pvera_moments(w->context, w->q, &x, NULL, &mean, &y), PVERA_ERROR_OVERLAP, "mean overlaps the base weight of layer 'q'");
    pvera_noise noise = {.struct_size = sizeof noise, .mode = PVERA_MODE_SAMPLE, .dropout_mask = pvera_f32(y_values, ROWS, IN)};
    pvera_matrix_mut p = pvera_f32_mut(y_values, ROWS, 2 * RANK);
    REFUSED(pvera_project(w->context, w->q, &x, NULL, &noise, &p), PVERA_ERROR_OVERLAP, "p overlaps noise.dropout_mask");
    memset(&noise.dropout_mask, 0, sizeof noise.dropout_mask);
    noise.eps = pvera_f32(y_values, ROWS, RANK);
    pvera_matrix read_p = pvera_f32(p_values, ROWS, 2 * RANK);
    REFUSED(pvera_expand(w->context, w->q, &read_p, NULL, &noise, &y), PVERA_ERROR_OVERLAP, "y overlaps noise.eps");
    pvera_adamw options = pvera_adamw_default();
    REFUSED(pvera_adamw_step(&options, 1, 4, y_values, y_values + 4, y_values + 8, y_values + 11), PVERA_ERROR_OVERLAP,
            "second_moments overlaps first_moments");
    pvera_statistics *statistics = NULL;
    double bounds[6] = {0};
    MUST(pvera_statistics_new(2, 2, NULL, &statistics));
    CHECK_ERROR(pvera_statistics_mean_interval(statistics, 0.9, 4, bounds, bounds + 2), PVERA_ERROR_OVERLAP, "upper overlaps lower");
    pvera_statistics_free(statistics);
}

static void parts(struct world *w) {
    pvera_matrix x = x_of(w), p = pvera_f32(p_values, ROWS, 2 * RANK), narrow = pvera_f32(p_values, ROWS, 2 * RANK - 1);
    pvera_matrix half = {p_values, ROWS, 2 * RANK, 2 * RANK, PVERA_BF16, {0, 0}};
    pvera_matrix_mut out = pvera_f32_mut(y_values, ROWS, 2 * RANK), y = y_of();
    pvera_matrix_mut wide = pvera_f32_mut(y_values, ROWS, 2 * RANK + 1);
    REFUSED(pvera_project_part(w->context, w->q, &x, NULL, NULL, &out, 3, 3), PVERA_ERROR_ARGUMENT, "index is 3|count is 3|index < count");
    REFUSED(pvera_project_part(w->context, w->q, &x, NULL, NULL, &out, 0, 0), PVERA_ERROR_ARGUMENT, "index is 0|count is 0");
    REFUSED(pvera_expand_part(w->context, w->q, &p, NULL, NULL, &y, SIZE_MAX, 2), PVERA_ERROR_ARGUMENT, "index is 18446744073709551615");
    REFUSED(pvera_project(w->context, w->q, &x, NULL, NULL, &wide), PVERA_ERROR_SHAPE, "p is 6×9|wanted 6×8");
    REFUSED(pvera_expand(w->context, w->q, &narrow, NULL, NULL, &y), PVERA_ERROR_SHAPE, "p is 6×7|wanted 6×8");
    REFUSED(pvera_expand(w->context, w->q, &half, NULL, NULL, &y), PVERA_ERROR_DTYPE, "p holds bf16|wanted f32");
    pvera_matrix inside = pvera_f32(y_values, ROWS, 2 * RANK);
    REFUSED(pvera_expand(w->context, w->q, &inside, NULL, NULL, &y), PVERA_ERROR_OVERLAP, "y overlaps p");
}

static void rows_and_noise(struct world *w) {
    pvera_matrix x = x_of(w);
    pvera_matrix_mut y = y_of();
    int32_t slots[ROWS] = {0, 0, 0, -1, 0, 7};
    pvera_active active[2] = {{0, 1}, {0, 2}};
    pvera_rows rows = {.struct_size = sizeof rows, .slot = slots};
    const pvera_linear *linear = NULL;
    MUST(pvera_snapshot_linear(w->snapshot, 0, &linear));
#define ROWS_ARE(code, words) REFUSED(pvera_forward(w->context, linear, &x, &rows, NULL, NULL, &y), code, words)
    ROWS_ARE(PVERA_ERROR_NOT_FOUND, "slot 7 holds no adapter");
    slots[5] = -2;
    ROWS_ARE(PVERA_ERROR_NOT_FOUND, "slot -2 holds no adapter");
    rows.active = active, rows.active_count = 1;
    ROWS_ARE(PVERA_ERROR_ARGUMENT, "rows.slot and rows.active are both given");
    rows.slot = NULL, rows.reserved = 7;
    ROWS_ARE(PVERA_ERROR_UNSUPPORTED, "rows.reserved is 7|wanted 0");
    rows.reserved = 0, rows.active_count = 2;
    ROWS_ARE(PVERA_ERROR_ARGUMENT, "rows.active holds slot 0 twice");
    active[1].slot = 3;
    ROWS_ARE(PVERA_ERROR_NOT_FOUND, "slot 3 holds no adapter");
    rows.active_count = 1, active[0].scale = NAN;
    ROWS_ARE(PVERA_ERROR_ARGUMENT, "scale of slot 0 is NaN|finite");
    rows.active_count = SIZE_MAX / 4;
    ROWS_ARE(PVERA_ERROR_SHAPE, "rows.active has|address space");

    pvera_noise noise = {.struct_size = sizeof noise, .mode = 9};
    REFUSED(pvera_forward(w->context, w->q, &x, NULL, &noise, NULL, &y), PVERA_ERROR_ARGUMENT, "noise.mode is 9|wanted PVERA_MODE");
    noise.mode = 0, noise.seed_at = (const uint64_t *)(const void *)((const char *)w->x + 1);
    REFUSED(pvera_forward(w->context, w->q, &x, NULL, &noise, NULL, &y), PVERA_ERROR_ARGUMENT, "noise.seed_at|aligned to 8");
}

/* The size field speaks for a struct's age. */
static void struct_sizes(struct world *w) {
    pvera_matrix x = x_of(w);
    pvera_matrix_mut y = y_of();
    struct {
        pvera_rows rows;
        uint64_t more[3];
    } newer = {.rows = {.struct_size = sizeof newer}};
    pvera_rows unset = {0}, huge = {.struct_size = 1u << 20};
    REFUSED(pvera_forward(w->context, w->q, &x, &unset, NULL, NULL, &y), PVERA_ERROR_ARGUMENT, "rows.struct_size is 0|wanted sizeof");
    REFUSED(pvera_forward(w->context, w->q, &x, &huge, NULL, NULL, &y), PVERA_ERROR_ARGUMENT, "rows.struct_size is 1048576");
    CHECK_OK(pvera_forward(w->context, w->q, &x, &newer.rows, NULL, NULL, &y));
    newer.more[2] = 1;
    REFUSED(pvera_forward(w->context, w->q, &x, &newer.rows, NULL, NULL, &y), PVERA_ERROR_UNSUPPORTED, "rows.struct_size is|newer library");
    struct {
        size_t struct_size;
        int32_t mode, padding; /* zero, as all bytes of a struct that is set to zero first */
    } older = {sizeof older, PVERA_MODE_MEAN, 0};
    CHECK_OK(pvera_forward(w->context, w->q, &x, NULL, (const pvera_noise *)(const void *)&older, NULL, &y));

    pvera_layer layer = {.name = "new", .in_features = 1, .out_features = 1};
    pvera_context_options context_options = {.threads = 1};
    pvera_model_options model_options = {0};
    pvera_adapter_options adapter_options = {0};
    pvera_store_options store_options = {.rank = 1, .in_max = 1, .out_max = 1};
    pvera_linear_vectors vectors = {0};
    pvera_stopping stopping = {.error_level = 0.1, .maximum_passes = 8};
    pvera_adamw adamw = {.learning_rate = 1};
    void *out = NULL;
    uint32_t look = 0;
    float value = 0, other[3] = {0};
    CHECK_ERROR(pvera_model_declare(w->model, &layer, NULL), PVERA_ERROR_ARGUMENT, "layer.struct_size is 0|wanted sizeof");
    CHECK_ERROR(pvera_context_new(&context_options, (pvera_context **)&out), PVERA_ERROR_ARGUMENT, "options.struct_size is 0");
    CHECK_ERROR(pvera_model_new(&model_options, (pvera_model **)&out), PVERA_ERROR_ARGUMENT, "options.struct_size is 0");
    CHECK_ERROR(pvera_adapter_new(w->model, w->config, NULL, &adapter_options, (pvera_adapter **)&out), PVERA_ERROR_ARGUMENT,
                "options.struct_size is 0");
    CHECK_ERROR(pvera_store_from_key(1, &store_options, (pvera_store **)&out), PVERA_ERROR_ARGUMENT, "options.struct_size is 0");
    layer.struct_size = sizeof layer;
    CHECK_ERROR(pvera_linear_new(&layer, w->store, NULL, &vectors, (pvera_linear **)&out), PVERA_ERROR_ARGUMENT,
                "vectors.struct_size is 0");
    CHECK_ERROR(pvera_stopping_next_look(&stopping, 1, &look), PVERA_ERROR_ARGUMENT, "stopping.struct_size is 0");
    CHECK_ERROR(pvera_adamw_step(&adamw, 1, 1, &value, other, other + 1, other + 2), PVERA_ERROR_ARGUMENT, "options.struct_size is 0");
    CHECK(out == NULL && look == 0 && value == 0, "an output was written");
}

static void backward(struct world *w) {
    float dy_values[ROWS * OUT], lambda_b[OUT] = {0}, lambda_d[2 * RANK] = {0};
    double kl = 99, variance[ROWS] = {0};
    uint32_t index[ROWS] = {0, 1, 2, 3, 4, 50};
    pvera_matrix x = x_of(w), dy = pvera_f32(dy_values, ROWS, OUT), bad = pvera_f32(dy_values, ROWS, OUT - 1);
    pvera_matrix_mut y = y_of(), dx = pvera_f32_mut(y_values, ROWS, IN), narrow = pvera_f32_mut(y_values, ROWS, IN - 1);
    pvera_tape *tape = NULL;
    fill(dy_values, ROWS * OUT, 6);
    CHECK_ERROR(pvera_tape_new(3, NULL, &tape), PVERA_ERROR_ARGUMENT, "policy is 3|wanted");
    MUST(pvera_tape_new(PVERA_TAPE_KEEP_LATENT, NULL, &tape));
    REFUSED(pvera_backward(w->context, tape, &dy, NULL, &dx), PVERA_ERROR_STATE, "tape holds no forward");
    MUST(pvera_forward(w->context, w->q, &x, NULL, NULL, tape, &y));
    pvera_slot_gradients slot = {0, lambda_b, lambda_d, NULL};
    pvera_gradients good = {.struct_size = sizeof good, .slots = &slot, .slot_count = 1, .kl_value = &kl}, wanted;
#define GRADIENTS_ARE(change, code, words) \
    do { \
        wanted = good; \
        change; \
        REFUSED(pvera_backward(w->context, tape, &dy, &wanted, &dx), code, words); \
        CHECK(kl == 99 && lambda_b[0] == 0 && lambda_d[0] == 0 && variance[0] == 0, "an output was written"); \
    } while (0)
    GRADIENTS_ARE(wanted.overwrite = 16, PVERA_ERROR_ARGUMENT, "gradients.overwrite is 0x10|wanted");
    GRADIENTS_ARE(wanted.kl_reduction = 2, PVERA_ERROR_ARGUMENT, "gradients.kl_reduction is 2|wanted");
    GRADIENTS_ARE(wanted.kl_weight = NAN, PVERA_ERROR_ARGUMENT, "gradients.kl_weight is NaN|finite");
    GRADIENTS_ARE(wanted.dmu = pvera_f32(dy_values, ROWS, 1), PVERA_ERROR_SHAPE, "gradients.dmu is 6×1|wanted 6×4");
    GRADIENTS_ARE(wanted.dlogvar = pvera_f32(dy_values, 1, RANK), PVERA_ERROR_SHAPE, "gradients.dlogvar is 1×4|wanted 6×4");
    GRADIENTS_ARE(wanted.variance = variance; wanted.variance_count = 2, PVERA_ERROR_SHAPE, "gradients.variance_count is 2|wanted 6");
    GRADIENTS_ARE(wanted.variance = variance; wanted.variance_count = ROWS; wanted.variance_index = index, PVERA_ERROR_ARGUMENT,
                  "variance_index[5] is 50|less than variance_count, 6");
    GRADIENTS_ARE(slot.slot = 4, PVERA_ERROR_NOT_FOUND, "slot 4|'q'");
    slot.slot = 0;
    const pvera_slot_gradients twice[2] = {slot, {0, NULL, NULL, NULL}};
    GRADIENTS_ARE(wanted.slots = twice; wanted.slot_count = 2, PVERA_ERROR_ARGUMENT, "gradients.slots names slot 0 twice|once");
    float bias[OUT] = {0};
    GRADIENTS_ARE(slot.bias = bias, PVERA_ERROR_ARGUMENT, "bias|slot 0|learns no bias");
    slot.bias = NULL;
    GRADIENTS_ARE(slot.lambda_b = (float *)(void *)((char *)lambda_b + 1), PVERA_ERROR_ARGUMENT, "aligned to 4");
    slot.lambda_b = lambda_b;
    REFUSED(pvera_backward(w->context, tape, &bad, NULL, &dx), PVERA_ERROR_SHAPE, "dy is 6×12|wanted 6×13");
    REFUSED(pvera_backward(w->context, tape, &dy, NULL, &narrow), PVERA_ERROR_SHAPE, "dx is 6×8|wanted 6×9");
    pvera_matrix shared = pvera_f32(y_values, ROWS, OUT);
    REFUSED(pvera_backward(w->context, tape, &shared, NULL, &dx), PVERA_ERROR_OVERLAP, "dx overlaps dy");
    GRADIENTS_ARE(slot.lambda_b = y_values, PVERA_ERROR_OVERLAP, "gradients.slots[0].lambda_b overlaps dx");
    GRADIENTS_ARE(slot.lambda_b = dy_values, PVERA_ERROR_OVERLAP, "gradients.slots[0].lambda_b overlaps dy");
    GRADIENTS_ARE(slot.lambda_b = w->parameters, PVERA_ERROR_OVERLAP, "gradients.slots[0].lambda_b overlaps|of slot 0 of layer 'q'");
    slot.lambda_b = lambda_b, slot.lambda_d = lambda_b + 5;
    GRADIENTS_ARE(, PVERA_ERROR_OVERLAP, "gradients.slots[0].lambda_d overlaps gradients.slots[0].lambda_b");
    slot.lambda_d = lambda_d;
    GRADIENTS_ARE(wanted.kl_value = variance + 1; wanted.variance = variance; wanted.variance_count = ROWS, PVERA_ERROR_OVERLAP,
                  "gradients.kl_value overlaps gradients.variance");
    GRADIENTS_ARE(wanted.dmu = pvera_f32(y_values, ROWS, RANK), PVERA_ERROR_OVERLAP, "dx overlaps gradients.dmu");
    const pvera_matrix two[2] = {dy, dy};
    REFUSED(pvera_backward_group(w->context, tape, 2, two, NULL, &dx), PVERA_ERROR_ARGUMENT, "count is 2|wanted 1");
    float saved = w->parameters[0];
    w->parameters[0] += 1;
    GRADIENTS_ARE((void)0, PVERA_ERROR_STATE, "'q'|changed between forward and backward");
    w->parameters[0] = saved;
    CHECK_OK(pvera_backward(w->context, tape, &dy, &good, &dx));
    pvera_tape_free(tape);
}

static void merging(struct world *w) {
    float weight[OUT * IN], merged_values[OUT * IN];
    pvera_matrix from = pvera_f32(w->weight, OUT, IN), half = {w->weight, OUT, IN, IN, PVERA_BF16, {0, 0}};
    pvera_matrix_mut to = pvera_f32_mut(merged_values, OUT, IN), shifted = pvera_f32_mut(w->weight, OUT - 1, IN);
    int32_t slots[1] = {0};
    pvera_rows per_row = {.struct_size = sizeof per_row, .slot = slots};
    pvera_undo *undo = NULL;
    pvera_config *config = NULL;
    pvera_adapter *sampling = NULL;
    pvera_linear *linear = NULL;
    memcpy(weight, w->weight, sizeof weight);
    memset(merged_values, 0, sizeof merged_values);
    CHECK_ERROR(pvera_merge(w->context, w->q, NULL, 2, 0, &from, &to, &undo), PVERA_ERROR_ARGUMENT, "flags is 0x2|wanted");
    CHECK_ERROR(pvera_merge(w->context, w->q, NULL, 0, 2, &from, &to, &undo), PVERA_ERROR_ARGUMENT, "layout is 2|wanted");
    CHECK_ERROR(pvera_merge(w->context, w->q, NULL, 0, 1, &from, &to, &undo), PVERA_ERROR_SHAPE, "weight is 13×9|wanted 9×13");
    CHECK_ERROR(pvera_merge(w->context, w->q, NULL, 0, 0, &from, &shifted, &undo), PVERA_ERROR_SHAPE, "merged is 12×9|wanted 13×9");
    CHECK_ERROR(pvera_merge(w->context, w->q, NULL, 0, 0, &half, &to, &undo), PVERA_ERROR_DTYPE, "merged holds f32|bf16");
    CHECK_ERROR(pvera_merge(w->context, w->q, &per_row, 0, 0, &from, &to, &undo), PVERA_ERROR_ARGUMENT, "rows.slot");
    weight[20] = INFINITY;
    pvera_matrix infinite = pvera_f32(weight, OUT, IN);
    CHECK_ERROR(pvera_merge(w->context, w->q, NULL, 0, 0, &infinite, &to, &undo), PVERA_ERROR_OVERFLOW, "output 2, input 2|inf");
    MUST(pvera_config_clone(w->config, &config));
    MUST(pvera_config_set_bool(config, "sample_at_inference", true));
    MUST(pvera_adapter_new(w->model, config, w->store, NULL, &sampling));
    MUST(pvera_adapter_linear(sampling, 0, &linear));
    CHECK_ERROR(pvera_merge(w->context, linear, NULL, 0, 0, &from, &to, &undo), PVERA_ERROR_STATE, "samples at inference|PVERA_MERGE_MEAN");
    CHECK(undo == NULL && merged_values[0] == 0, "an output was written");
    CHECK_OK(pvera_merge(w->context, linear, NULL, PVERA_MERGE_MEAN, 0, &from, &to, NULL));
    pvera_linear_free(linear), pvera_adapter_free(sampling), pvera_config_free(config);

    MUST(pvera_merge(w->context, w->q, NULL, 0, 0, &from, &to, &undo));
    CHECK(memcmp(merged_values, w->weight, sizeof merged_values) != 0, "the merge changed nothing");
    merged_values[5] += 1;
    CHECK_ERROR(pvera_unmerge(undo, &to), PVERA_ERROR_STATE, "not what the merge wrote");
    merged_values[5] -= 1;
    pvera_matrix_mut small = pvera_f32_mut(merged_values, IN, OUT);
    CHECK_ERROR(pvera_unmerge(undo, &small), PVERA_ERROR_SHAPE, "weight is 9×13|wanted 13×9");
    MUST(pvera_merge(w->context, w->q, NULL, 0, 0, &from, &to, NULL));
    CHECK_OK(pvera_unmerge(undo, &to));
    CHECK_SAME_BITS("unmerge", merged_values, w->weight, sizeof merged_values);
    pvera_undo_free(undo);
    static float arena[OUT * IN + 200]; /* the adapter's vectors lie inside of the merged weight */
    pvera_adapter *inside = NULL;
    pvera_linear *q = NULL;
    pvera_matrix_mut over = pvera_f32_mut(arena, OUT, IN);
    MUST(pvera_adapter_trainable(w->adapter, arena + 5, w->parameter_count, &inside));
    MUST(pvera_adapter_linear(inside, 0, &q));
    CHECK_ERROR(pvera_merge(w->context, q, NULL, 0, 0, &from, &over, NULL), PVERA_ERROR_OVERLAP, "merged overlaps lambda_b");
    CHECK_SAME_BITS("the vectors after a refused merge", w->parameters, arena + 5, w->parameter_count * sizeof(float));
    pvera_linear_free(q);
    pvera_adapter_free(inside);
}

/* exp(½ logvar) that no f32 holds, and the bound that prevents it. */
static void overflow(struct world *w) {
    float saved[200];
    memcpy(saved, w->parameters, w->parameter_count * sizeof(float));
    for (size_t i = 0; i < w->parameter_count; ++i) w->parameters[i] = 1e4f;
    pvera_matrix x = x_of(w);
    pvera_matrix_mut y = y_of();
    pvera_noise noise = {.struct_size = sizeof noise, .mode = PVERA_MODE_SAMPLE};
    CHECK_ERROR(pvera_forward(w->context, w->q, &x, NULL, &noise, NULL, &y), PVERA_ERROR_OVERFLOW, "'q'|row|logvar");
    memcpy(w->parameters, saved, w->parameter_count * sizeof(float));
}

int main(int argc, char **argv) {
    check_begin(argc, argv);
    struct world *world = world_default();
    matrices(world);
    overlaps(world);
    shared_outputs(world);
    parts(world);
    rows_and_noise(world);
    struct_sizes(world);
    backward(world);
    merging(world);
    overflow(world);
    world_free(world);
    return check_end();
}
