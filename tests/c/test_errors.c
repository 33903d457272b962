/* Every class of error but NULL (test_null.c) and memory (test_memory.c): its code, its sentence, and outputs left alone.
 * With --verbose all sentences are shown. */
#include <sys/stat.h>

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
    rows.slot = NULL, rows.active_count = 2;
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

static void contexts(void) {
    pvera_context *context = NULL;
    pvera_context_options options = {.struct_size = sizeof options, .backend = PVERA_BACKEND_CUDA};
    CHECK_ERROR(pvera_context_new(&options, &context), PVERA_ERROR_UNSUPPORTED, "options.backend is 2|CUDA|CPU");
    options.backend = -1;
    CHECK_ERROR(pvera_context_new(&options, &context), PVERA_ERROR_ARGUMENT, "options.backend is -1|wanted");
    options.backend = 0, options.threads = 100000;
    CHECK_ERROR(pvera_context_new(&options, &context), PVERA_ERROR_ARGUMENT, "options.threads is 100000|wanted at most");
    options.threads = 0, options.allocator.release = (void (*)(void *, void *, size_t, size_t))(void (*)(void))abort;
    CHECK_ERROR(pvera_context_new(&options, &context), PVERA_ERROR_NULL, "options.allocator|allocate|NULL|wanted both");
    CHECK(context == NULL, "an output was written");
}

static int32_t stop(void *user, const char *stage, uint64_t done, uint64_t total) {
    (void)done, (void)total;
    snprintf(user, 100, "%s", stage);
    return 1;
}

static void layers(struct world *w) {
    pvera_model *model = NULL;
    pvera_model_options options = {.struct_size = sizeof options};
    char stage[100] = "";
    options.callbacks.progress = stop, options.callbacks.user = stage;
    MUST(pvera_model_new(&options, &model));
    pvera_layer layer = {.struct_size = sizeof layer, .name = "q", .in_features = IN, .out_features = OUT}, bad;
    size_t number = 99;
#define LAYER_IS(change, code, words) \
    do { \
        bad = layer; \
        change; \
        CHECK_ERROR(pvera_model_declare(model, &bad, &number), code, words); \
        CHECK(number == 99, "the number was written"); \
    } while (0)
    LAYER_IS(bad.name = "", PVERA_ERROR_ARGUMENT, "layer.name is empty");
    LAYER_IS(bad.name = "\xff", PVERA_ERROR_ARGUMENT, "layer.name is not UTF-8");
    LAYER_IS(bad.in_features = 0, PVERA_ERROR_SHAPE, "'q'|in_features is 0|at least 1");
    LAYER_IS(bad.out_features = 0, PVERA_ERROR_SHAPE, "'q'|out_features is 0");
    LAYER_IS(bad.in_offset = 4; bad.in_total = IN, PVERA_ERROR_SHAPE, "in_offset 4|in_features 9|in_total 9");
    LAYER_IS(bad.out_offset = SIZE_MAX, PVERA_ERROR_SHAPE, "out_offset|out_total");
    LAYER_IS(bad.weight_layout = 2, PVERA_ERROR_ARGUMENT, "layer.weight_layout is 2|wanted");
    LAYER_IS(bad.weight = pvera_f32(w->weight, IN, OUT), PVERA_ERROR_SHAPE, "weight is 9×13|wanted 13×9");
    LAYER_IS(bad.bias = pvera_f32(w->bias, OUT, 1), PVERA_ERROR_SHAPE, "bias is 13×1|wanted 1×13");
    MUST(pvera_model_declare(model, &layer, NULL));
    LAYER_IS((void)0, PVERA_ERROR_EXISTS, "'q' is declared already");
    CHECK_ERROR(pvera_model_find_layer(model, "k", &number), PVERA_ERROR_NOT_FOUND, "layer 'k' is not declared");

    pvera_adapter *adapter = NULL;
    CHECK_ERROR(pvera_adapter_new(model, w->config, NULL, NULL, &adapter), PVERA_ERROR_CANCELLED, "progress");
    CHECK(adapter == NULL && stage[0], "cancelled in no stage");
    pvera_snapshot *snapshot = NULL;
    MUST(pvera_model_snapshot(model, &snapshot));
    LAYER_IS(bad.name = "late", PVERA_ERROR_STATE, "'late'|declare all layers first");
    pvera_snapshot_free(snapshot);
    CHECK_ERROR(pvera_model_publish(model, "two", w->adapter, NULL), PVERA_ERROR_STATE, "another model");
    CHECK_ERROR(pvera_model_publish(w->model, "one", w->adapter, NULL), PVERA_ERROR_EXISTS, "'one' already");
    CHECK_ERROR(pvera_model_replace(w->model, "two", w->adapter, NULL), PVERA_ERROR_NOT_FOUND, "'two'");
    CHECK_ERROR(pvera_model_remove(w->model, "two"), PVERA_ERROR_NOT_FOUND, "'two'");
    pvera_model_free(model);

    const pvera_linear *linear = NULL;
    pvera_linear *own = NULL;
    int32_t slot = 99;
    bool adapts = true;
    pvera_parameter_range range = {.lambda_b = 99};
    CHECK_ERROR(pvera_snapshot_linear(w->snapshot, 2, &linear), PVERA_ERROR_NOT_FOUND, "layer number 2|2 layers");
    CHECK_ERROR(pvera_snapshot_slot(w->snapshot, "two", &slot), PVERA_ERROR_NOT_FOUND, "'two'");
    CHECK_ERROR(pvera_adapter_adapts(w->adapter, 5, &adapts), PVERA_ERROR_NOT_FOUND, "layer number 5");
    CHECK_ERROR(pvera_adapter_range(w->adapter, 5, &range), PVERA_ERROR_NOT_FOUND, "layer number 5");
    CHECK_ERROR(pvera_adapter_linear(w->adapter, 5, &own), PVERA_ERROR_NOT_FOUND, "layer number 5");
    CHECK(!linear && !own && slot == 99 && adapts && range.lambda_b == 99, "an output was written");
}

static void projections(struct world *w) {
    float values[64] = {0};
    pvera_store *store = NULL;
    pvera_adapter *adapter = NULL;
    pvera_linear *linear = NULL;
    pvera_config *config = NULL;
    pvera_matrix a = pvera_f32(values, 4, 3), b = pvera_f32(values, 5, 3), odd = pvera_f32(values, 5, 3);
    CHECK_ERROR(pvera_store_from_matrices(&a, &b, NULL, &store), PVERA_ERROR_PROJECTION, "B has 3 columns|A has 4 rows|wanted r and 2r");
    CHECK_ERROR(pvera_store_from_matrices(&odd, &b, NULL, &store), PVERA_ERROR_PROJECTION, "A has 5 rows|wanted 2r");
    pvera_store_options options = {.struct_size = sizeof options, .rank = 0, .in_max = 3, .out_max = 4};
    CHECK_ERROR(pvera_store_from_key(1, &options, &store), PVERA_ERROR_ARGUMENT, "options.rank|0|at least 1");
    options.rank = SIZE_MAX / 2;
    CHECK_ERROR(pvera_store_from_key(1, &options, &store), PVERA_ERROR_SHAPE, "address space");
    options.rank = 1, options.base_dtype.bits = 3;
    CHECK_ERROR(pvera_store_from_key(1, &options, &store), PVERA_ERROR_DTYPE, "options.base_dtype|3 bits");
    CHECK_ERROR(pvera_store_from_file("no/such/file", false, &store), PVERA_ERROR_IO, "no/such/file|No such file");
    CHECK_ERROR(pvera_store_from_file("/", true, &store), PVERA_ERROR_IO, "'/'");
    CHECK(store == NULL, "an output was written");

    MUST(pvera_config_clone(w->config, &config));
    MUST(pvera_config_set_int(config, "r", RANK + 1));
    CHECK_ERROR(pvera_adapter_new(w->model, config, w->store, NULL, &adapter), PVERA_ERROR_PROJECTION, "rank 4|r = 5");
    float lambda[200] = {0};
    pvera_linear_vectors vectors = {.struct_size = sizeof vectors, .lambda_b = lambda, .lambda_d = lambda};
    pvera_layer layer = {.struct_size = sizeof layer, .name = "big", .in_features = IN + 1, .out_features = OUT};
    CHECK_ERROR(pvera_linear_new(&layer, w->store, config, &vectors, &linear), PVERA_ERROR_PROJECTION, "rank 4|r = 5");
    CHECK_ERROR(pvera_linear_new(&layer, w->store, NULL, &vectors, &linear), PVERA_ERROR_PROJECTION, "10|9");
    layer.in_features = IN, layer.out_features = OUT + 1;
    CHECK_ERROR(pvera_linear_new(&layer, w->store, NULL, &vectors, &linear), PVERA_ERROR_PROJECTION, "14|13");
    layer.out_features = OUT, vectors.bias = lambda;
    CHECK_ERROR(pvera_linear_new(&layer, w->store, NULL, &vectors, &linear), PVERA_ERROR_STATE, "vectors.bias|'big'");
    CHECK(adapter == NULL && linear == NULL, "an output was written");
    pvera_config_free(config);
}

static void configs(struct world *w) {
    pvera_config *config = NULL, *mine = NULL;
    int64_t number = 99;
    double real = 99;
    bool truth = true;
    char *text = NULL;
#define JSON_IS(json, code, words) CHECK_ERROR(pvera_config_from_json(json, strlen(json), &config), code, words)
    JSON_IS("{", PVERA_ERROR_FORMAT, "not JSON|line 1");
    JSON_IS("[]", PVERA_ERROR_FORMAT, "object");
    JSON_IS("{\"r\": \"8\"}", PVERA_ERROR_CONFIG, "r is \"8\"|wanted");
    JSON_IS("{\"r\": 0}", PVERA_ERROR_CONFIG, "r is 0|wanted");
    JSON_IS("{\"pvera_dropout\": 1.5}", PVERA_ERROR_CONFIG, "pvera_dropout is 1.5|wanted");
    JSON_IS("{\"bias\": \"some\"}", PVERA_ERROR_CONFIG, "bias is \"some\"|none|pvera_only|all");
    JSON_IS("{\"peft_type\": \"LORA\"}", PVERA_ERROR_CONFIG, "peft_type|LORA|PVERA");
    JSON_IS("{\"target_modules\": 3}", PVERA_ERROR_CONFIG, "target_modules is 3|wanted");
    CHECK(config == NULL, "an output was written");
    MUST(pvera_config_clone(w->config, &mine));
    CHECK_ERROR(pvera_config_get_int(mine, "rank", &number), PVERA_ERROR_NOT_FOUND, "rank");
    CHECK_ERROR(pvera_config_get_int(mine, "bias", &number), PVERA_ERROR_CONFIG, "bias|none|wanted an integer");
    CHECK_ERROR(pvera_config_get_int(mine, "generator_seed", &number), PVERA_ERROR_CONFIG, "generator_seed|null");
    CHECK_ERROR(pvera_config_get_real(mine, "bias", &real), PVERA_ERROR_CONFIG, "bias|number");
    CHECK_ERROR(pvera_config_get_bool(mine, "r", &truth), PVERA_ERROR_CONFIG, "r|4");
    CHECK_ERROR(pvera_config_get_text(mine, "r", &text), PVERA_ERROR_CONFIG, "r is 4|wanted a string");
    CHECK_ERROR(pvera_config_get_json(mine, "rank", &text), PVERA_ERROR_NOT_FOUND, "rank");
    CHECK(number == 99 && real == 99 && truth && !text, "an output was written");
    CHECK_ERROR(pvera_config_set_int(mine, "r", -1), PVERA_ERROR_CONFIG, "r is -1|wanted");
    CHECK_ERROR(pvera_config_set_real(mine, "pvera_dropout", NAN), PVERA_ERROR_CONFIG, "pvera_dropout is NaN|wanted");
    CHECK_ERROR(pvera_config_set_bool(mine, "r", true), PVERA_ERROR_CONFIG, "r is true|wanted");
    CHECK_ERROR(pvera_config_set_text(mine, "bias", "most"), PVERA_ERROR_CONFIG, "bias is \"most\"");
    CHECK_ERROR(pvera_config_set_json(mine, "target_modules", "[1]"), PVERA_ERROR_CONFIG, "target_modules|wanted");
    CHECK_ERROR(pvera_config_set_json(mine, "target_modules", "[\"a\""), PVERA_ERROR_CONFIG, "target_modules|not JSON");
    CHECK_ERROR(pvera_config_set_int(mine, "rank", 4), PVERA_ERROR_NOT_FOUND, "rank");
    MUST(pvera_config_get_int(mine, "r", &number));
    CHECK(number == RANK, "a failed set changed r to %lld", (long long)number);
    MUST(pvera_config_set_json(mine, "target_modules", "[\"nothing\"]"));
    pvera_adapter *adapter = NULL;
    CHECK_ERROR(pvera_adapter_new(w->model, mine, NULL, NULL, &adapter), PVERA_ERROR_CONFIG, "target_modules|2 declared layers");
    CHECK(adapter == NULL, "an output was written");
    pvera_config_free(mine);
}

static const char *write_file(const char *folder, const char *name, const void *bytes, size_t size) {
    static char path[600];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "wb");
    if (!CHECK(file && fwrite(bytes, 1, size, file) == size, "cannot write %s", path)) exit(check_end());
    fclose(file);
    return path;
}

static void files(struct world *w) {
    char folder[] = "pvera-errors-XXXXXX";
    pvera_bytes config, tensors;
    pvera_adapter *adapter = NULL;
    if (!CHECK(mkdtemp(folder) != NULL, "mkdtemp")) return;
    MUST(pvera_adapter_save_memory(w->adapter, &config, &tensors));
    CHECK_ERROR(pvera_adapter_load(w->model, "no/such/folder", NULL, &adapter), PVERA_ERROR_IO, "no/such/folder");
    CHECK_ERROR(pvera_adapter_load(w->model, folder, NULL, &adapter), PVERA_ERROR_IO, "adapter_config.json|No such file");
    remove(write_file(folder, "x", "", 0));
    char config_path[600];
    snprintf(config_path, sizeof config_path, "%s", write_file(folder, "adapter_config.json", config.data, config.size));
    CHECK_ERROR(pvera_adapter_load(w->model, folder, NULL, &adapter), PVERA_ERROR_IO, "adapter_model.safetensors|No such file");
    const char *path = write_file(folder, "adapter_model.safetensors", tensors.data, tensors.size - 4);
    CHECK_ERROR(pvera_adapter_load(w->model, folder, NULL, &adapter), PVERA_ERROR_FORMAT, "adapter_model.safetensors");
    CHECK_ERROR(pvera_store_from_file(path, false, (pvera_store **)&adapter), PVERA_ERROR_FORMAT, "adapter_model.safetensors");
    remove(path);
    remove(config_path);
    CHECK_ERROR(pvera_adapter_save(w->adapter, "no/such/folder"), PVERA_ERROR_IO, "no/such");
    CHECK_ERROR(pvera_adapter_save(w->adapter, ""), PVERA_ERROR_ARGUMENT, "folder is empty|wanted a path");
    CHECK_ERROR(pvera_adapter_load(w->model, "", NULL, &adapter), PVERA_ERROR_ARGUMENT, "folder is empty|wanted a path");
    CHECK_ERROR(pvera_store_from_file("", false, (pvera_store **)&adapter), PVERA_ERROR_ARGUMENT, "path is empty|wanted a path");
    rmdir(folder);
    for (size_t keep = 0; keep < tensors.size; keep += 1 + tensors.size / 300)
        CHECK_ERROR(pvera_adapter_load_memory(w->model, config.data, config.size, tensors.data, keep, NULL, &adapter),
                    PVERA_ERROR_FORMAT, "");
    for (size_t keep = 0; keep + 2 < config.size; keep += 7)
        CHECK_ERROR(pvera_adapter_load_memory(w->model, config.data, keep, tensors.data, tensors.size, NULL, &adapter),
                    PVERA_ERROR_FORMAT, "");
    CHECK(adapter == NULL, "an output was written");

    /* A wrong rank, a layer that is not declared, vectors of another size, projections that are nowhere. */
    pvera_config *other = NULL;
    char *text = NULL;
    MUST(pvera_config_clone(w->config, &other));
    MUST(pvera_config_set_int(other, "r", 3));
    MUST(pvera_config_to_json(other, &text));
    CHECK_ERROR(pvera_adapter_load_memory(w->model, (uint8_t *)text, strlen(text), tensors.data, tensors.size, NULL, &adapter),
                PVERA_ERROR_SHAPE, "lambda_d|[8]|wanted [6]");
    pvera_text_free(text);
    const char *sizes[3] = {"q", "v", "w"};
    const size_t outputs[3] = {OUT + 1, V_OUT, V_OUT};
    for (int first = 0; first < 2; ++first) {
        pvera_model *model = NULL;
        MUST(pvera_model_new(NULL, &model));
        for (int i = first; i < first + 2; ++i) {
            pvera_layer layer = {.struct_size = sizeof layer, .name = sizes[i], .in_features = IN, .out_features = outputs[i]};
            MUST(pvera_model_declare(model, &layer, NULL));
        }
        CHECK_ERROR(pvera_adapter_load_memory(model, config.data, config.size, tensors.data, tensors.size, NULL, &adapter),
                    first ? PVERA_ERROR_NOT_FOUND : PVERA_ERROR_SHAPE, first ? "'q'|not declared|ignore_undeclared" : "lambda_b|[13]|wanted [14]");
        pvera_model_free(model);
    }
    pvera_config_free(other);

    pvera_adapter *seed_only = NULL;
    pvera_bytes small_config, small;
    MUST(pvera_config_clone(w->config, &other));
    MUST(pvera_config_set_bool(other, "save_projection", false));
    MUST(pvera_adapter_new(w->model, other, NULL, NULL, &seed_only));
    MUST(pvera_adapter_save_memory(seed_only, &small_config, &small));
    CHECK_ERROR(pvera_adapter_load_memory(w->model, config.data, config.size, small.data, small.size, NULL, &adapter),
                PVERA_ERROR_PROJECTION, "save_projection is true|pvera_A");
    pvera_adapter_options partial = {.struct_size = sizeof partial, .ignore_undeclared = true};
    CHECK_ERROR(pvera_adapter_load_memory(w->model, small_config.data, small_config.size, small.data, small.size, &partial, &adapter),
                PVERA_ERROR_PROJECTION, "in_max|options.in_max");
    CHECK(adapter == NULL, "an output was written");
    pvera_adapter_free(seed_only);
    pvera_config_free(other);
    pvera_bytes_free(&small_config), pvera_bytes_free(&small);
    pvera_bytes_free(&config), pvera_bytes_free(&tensors);
    CHECK(config.data == NULL && config.size == 0, "freed bytes are not cleared");
}

static void adapters(struct world *w) {
    pvera_adapter *copy = NULL, *clone = NULL, *own = NULL, *loaded = NULL;
    pvera_bytes config, tensors;
    pvera_tensor tensor = {.size = 99};
    float memory[4], *parameters = NULL;
    size_t count = 99;
    const size_t shape[2] = {2, 2};
    const pvera_dtype nonsense = {PVERA_DTYPE_FLOAT, 7, 1};
    CHECK_ERROR(pvera_adapter_trainable(w->adapter, memory, 4, &copy), PVERA_ERROR_SHAPE, "count is 4|wanted 34");
    CHECK_ERROR(pvera_adapter_trainable(w->adapter, (float *)(void *)((char *)memory + 1), 34, &copy), PVERA_ERROR_ARGUMENT, "aligned to 4");
    CHECK(copy == NULL, "an output was written");
    MUST(pvera_adapter_save_memory(w->adapter, &config, &tensors));
    MUST(pvera_adapter_load_memory(w->model, config.data, config.size, tensors.data, tensors.size, NULL, &loaded));
    CHECK_ERROR(pvera_adapter_parameters(loaded, &parameters, &count), PVERA_ERROR_STATE, "trainable");
    CHECK_ERROR(pvera_adapter_set_tensor(loaded, "t", PVERA_F32, shape, 2, memory, 16), PVERA_ERROR_STATE, "trainable");
    pvera_adapter_free(loaded), pvera_bytes_free(&config), pvera_bytes_free(&tensors);
    MUST(pvera_adapter_trainable(w->adapter, NULL, 0, &own));
    CHECK_ERROR(pvera_adapter_set_tensor(own, "t", PVERA_F32, shape, 2, memory, 15), PVERA_ERROR_SHAPE, "'t'|[2, 2]|15 bytes");
    CHECK_ERROR(pvera_adapter_set_tensor(own, "t", nonsense, shape, 2, memory, 16), PVERA_ERROR_DTYPE, "7 bits");
    CHECK_ERROR(pvera_adapter_set_tensor(own, "base_model.pvera_A", PVERA_F32, shape, 2, memory, 16), PVERA_ERROR_ARGUMENT, "pvera_A");
    MUST(pvera_adapter_clone(own, &clone));
    CHECK_ERROR(pvera_adapter_set_tensor(own, "t", PVERA_F32, shape, 2, memory, 16), PVERA_ERROR_STATE, "shared");
    CHECK_ERROR(pvera_adapter_tensor_at(own, 0, &tensor), PVERA_ERROR_NOT_FOUND, "tensor number 0|carries 0");
    CHECK_ERROR(pvera_adapter_find_tensor(own, "t", &tensor), PVERA_ERROR_NOT_FOUND, "'t'");
    CHECK(tensor.size == 99 && !parameters && count == 99, "an output was written");
    pvera_adapter_free(clone), pvera_adapter_free(own);
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
    GRADIENTS_ARE(slot.bias = lambda_b, PVERA_ERROR_ARGUMENT, "bias|slot 0|learns no bias");
    slot.bias = NULL;
    GRADIENTS_ARE(slot.lambda_b = (float *)(void *)((char *)lambda_b + 1), PVERA_ERROR_ARGUMENT, "aligned to 4");
    slot.lambda_b = lambda_b;
    REFUSED(pvera_backward(w->context, tape, &bad, NULL, &dx), PVERA_ERROR_SHAPE, "dy is 6×12|wanted 6×13");
    REFUSED(pvera_backward(w->context, tape, &dy, NULL, &narrow), PVERA_ERROR_SHAPE, "dx is 6×8|wanted 6×9");
    pvera_matrix shared = pvera_f32(y_values, ROWS, OUT);
    REFUSED(pvera_backward(w->context, tape, &shared, NULL, &dx), PVERA_ERROR_OVERLAP, "dx overlaps dy");
    const pvera_matrix two[2] = {dy, dy};
    REFUSED(pvera_backward_group(w->context, tape, 2, two, NULL, &dx), PVERA_ERROR_ARGUMENT, "count is 2|1 layer");
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

static void statistics(void) {
    pvera_statistics *s = NULL;
    const float good[4] = {1, 2, 3, 4}, bad[4] = {1, NAN, 3, 4};
    pvera_matrix values = pvera_f32(good, 2, 2), wide = pvera_f32(good, 1, 4), broken = pvera_f32(bad, 2, 2);
    const size_t rows[2] = {0, 2};
    double out[4] = {99, 99, 99, 99}, other[4];
    uint32_t votes[4], look = 99;
    size_t undecided[2], count = 99;
    CHECK_ERROR(pvera_statistics_new(2, 0, NULL, &s), PVERA_ERROR_SHAPE, "outputs is 0|wanted");
    CHECK_ERROR(pvera_statistics_new(SIZE_MAX / 2, 4, NULL, &s), PVERA_ERROR_MEMORY, "");
    MUST(pvera_statistics_new(2, 2, NULL, &s));
    CHECK_ERROR(pvera_statistics_add(s, &wide), PVERA_ERROR_SHAPE, "values is 1×4|wanted 2×2");
    CHECK_ERROR(pvera_statistics_add(s, &broken), PVERA_ERROR_OVERFLOW, "values|row 0|column 1|NaN");
    CHECK_ERROR(pvera_statistics_add_rows(s, 2, rows, &values), PVERA_ERROR_ARGUMENT, "rows[1] is 2|less than 2");
    CHECK_ERROR(pvera_statistics_mean(s, 4, out), PVERA_ERROR_STATE, "row 0 has 0 passes");
    CHECK_ERROR(pvera_statistics_votes(s, 3, votes), PVERA_ERROR_SHAPE, "3|wanted 4");
    MUST(pvera_statistics_add(s, &values));
    CHECK_ERROR(pvera_statistics_variance(s, 4, out), PVERA_ERROR_STATE, "row 0 has 1 pass|at least 2");
    CHECK_ERROR(pvera_statistics_mean(s, 3, out), PVERA_ERROR_SHAPE, "mean|3|wanted 4");
    MUST(pvera_statistics_add(s, &values));
    CHECK_ERROR(pvera_statistics_mean_interval(s, 1, 4, out, other), PVERA_ERROR_ARGUMENT, "level is 1|wanted");
    CHECK_ERROR(pvera_statistics_most_voted_interval(s, NAN, 2, out, other), PVERA_ERROR_ARGUMENT, "level is NaN|wanted");
    CHECK(out[0] == 99, "an output was written");
    pvera_stopping stopping = {.struct_size = sizeof stopping, .error_level = 0, .maximum_passes = 64};
    CHECK_ERROR(pvera_stopping_next_look(&stopping, 1, &look), PVERA_ERROR_ARGUMENT, "error_level is 0|wanted");
    stopping.error_level = 0.05, stopping.maximum_passes = 0;
    CHECK_ERROR(pvera_stopping_next_look(&stopping, 1, &look), PVERA_ERROR_ARGUMENT, "maximum_passes is 0|wanted");
    stopping.maximum_passes = 64;
    CHECK_ERROR(pvera_stopping_undecided(&stopping, s, 2, undecided, &count), PVERA_ERROR_STATE, "row 0 has 2 passes|next look is at 8");
    CHECK_ERROR(pvera_stopping_undecided(&stopping, s, 1, undecided, &count), PVERA_ERROR_SHAPE, "1|2 rows");
    CHECK_ERROR(pvera_stopping_imprecise(&stopping, s, -1, 2, undecided, &count), PVERA_ERROR_ARGUMENT, "tolerance is -1|wanted");
    CHECK(look == 99 && count == 99, "an output was written");
    pvera_statistics_free(s);

    double confidence[2] = {0.5, 1.5};
    uint8_t correct[2] = {1, 2};
    pvera_bin bins[2] = {{.count = 99}};
    CHECK_ERROR(pvera_calibration(2, confidence, correct, 2, bins, NULL, NULL), PVERA_ERROR_ARGUMENT, "confidence[1] is 1.5|wanted 0 to 1");
    confidence[1] = 1;
    CHECK_ERROR(pvera_calibration(2, confidence, correct, 2, bins, NULL, NULL), PVERA_ERROR_ARGUMENT, "correct[1] is 2|wanted 0 or 1");
    CHECK_ERROR(pvera_calibration(2, confidence, correct, 0, bins, NULL, NULL), PVERA_ERROR_ARGUMENT, "bin_count is 0");
    CHECK(bins[0].count == 99, "an output was written");
}

static void optimiser(void) {
    pvera_adamw adamw = pvera_adamw_default();
    float parameters[2] = {1, 2}, gradients[2] = {1, NAN}, first[2] = {0}, second[2] = {0};
#define STEP(n) pvera_adamw_step(&adamw, n, 2, parameters, gradients, first, second)
    CHECK_ERROR(STEP(1), PVERA_ERROR_OVERFLOW, "gradients[1] is NaN|finite");
    gradients[1] = 1;
    CHECK_ERROR(STEP(0), PVERA_ERROR_ARGUMENT, "step is 0|wanted");
    adamw.beta1 = 1;
    CHECK_ERROR(STEP(1), PVERA_ERROR_ARGUMENT, "beta1 is 1|wanted");
    adamw = pvera_adamw_default(), adamw.learning_rate = -1;
    CHECK_ERROR(STEP(1), PVERA_ERROR_ARGUMENT, "learning_rate is -1|wanted");
    CHECK(parameters[0] == 1 && parameters[1] == 2 && first[0] == 0, "an output was written");
}

int main(int argc, char **argv) {
    check_begin(argc, argv);
    struct world *world = world_default();
    matrices(world);
    parts(world);
    rows_and_noise(world);
    struct_sizes(world);
    contexts();
    layers(world);
    projections(world);
    configs(world);
    files(world);
    adapters(world);
    backward(world);
    merging(world);
    overflow(world);
    statistics();
    optimiser();
    world_free(world);
    return check_end();
}
