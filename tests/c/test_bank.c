/* Banks of adapters, adapters combined into one, and stores on a grid: what goes in comes out with the same bits, whatever
 * is refused leaves everything as it was. */
#include "world.h"

enum { ADAPTERS = 4 };

static const char *const NAMES[ADAPTERS] = {"one", "two", "three", "four"};

struct shop {
    struct world *world;
    pvera_adapter *adapters[ADAPTERS]; /* trainable, of one store, none of them published */
    char folder[32], path[64];
};

static void set_parameters(pvera_adapter *adapter, uint32_t seed) {
    float *parameters = NULL;
    size_t count = 0;
    MUST(pvera_adapter_parameters(adapter, &parameters, &count));
    fill(parameters, count, seed);
}

static struct shop shop_new(void) {
    struct shop shop = {.world = world_default(), .folder = "pvera-bank-XXXXXX"};
    for (uint32_t i = 0; i < ADAPTERS; ++i) {
        MUST(pvera_adapter_new(shop.world->model, shop.world->config, shop.world->store, NULL, &shop.adapters[i]));
        set_parameters(shop.adapters[i], 10 + i);
    }
    if (!CHECK(mkdtemp(shop.folder) != NULL, "mkdtemp")) exit(check_end());
    snprintf(shop.path, sizeof shop.path, "%s/bank", shop.folder);
    return shop;
}

static void shop_free(struct shop *shop) {
    for (int i = 0; i < ADAPTERS; ++i) pvera_adapter_free(shop->adapters[i]);
    remove(shop->path);
    CHECK(rmdir(shop->folder) == 0, "something is left beside the bank");
    world_free(shop->world);
}

static pvera_bank *opened(const struct shop *shop, int32_t access) {
    pvera_bank_options options = {.struct_size = sizeof options, .access = access};
    pvera_bank *bank = NULL;
    MUST(pvera_bank_open(shop->world->model, shop->path, &options, &bank));
    return bank;
}

static void append(pvera_bank *bank, const char *name, const pvera_adapter *adapter) {
    MUST(pvera_bank_append(bank, 1, &name, &adapter, (pvera_dtype){0}));
}

static pvera_bank_usage used(const pvera_bank *bank) {
    pvera_bank_usage usage = {.struct_size = sizeof usage};
    MUST(pvera_bank_get_usage(bank, &usage));
    return usage;
}

/* y of a layer with its rows on these slots; SAMPLE shows that the noise is the same, too. */
static void forward(struct world *w, const pvera_snapshot *snapshot, size_t layer, const int32_t *slots, int32_t mode, float *y) {
    const pvera_linear *linear = NULL;
    pvera_matrix x = pvera_f32(w->x, ROWS, IN);
    pvera_matrix_mut out = pvera_f32_mut(y, ROWS, layer == 0 ? OUT : V_OUT);
    pvera_rows rows = {.struct_size = sizeof rows, .slot = slots};
    pvera_noise noise = {.struct_size = sizeof noise, .mode = mode, .seed = 5};
    memset(y, 0, sizeof(float) * ROWS * OUT);
    MUST(pvera_snapshot_linear(snapshot, layer, &linear));
    MUST(pvera_forward(w->context, linear, &x, &rows, &noise, NULL, &out));
}

/* A row with an adapter of the bank has the bits of one with the same adapter, published under the same name. */
static void check_rows(const struct shop *shop, const pvera_bank *bank, pvera_adapter *const *wanted) {
    struct world *w = shop->world;
    const char *names[ROWS] = {NAMES[2], NULL, NAMES[0], NAMES[2], NAMES[3], NAMES[1]};
    int32_t slots[ROWS], published[ROWS];
    pvera_snapshot *banked = NULL, *usual = NULL;
    MUST(pvera_model_remove(w->model, "one"));
    for (int i = 0; i < ADAPTERS; ++i) MUST(pvera_model_publish(w->model, NAMES[i], wanted[i], NULL));
    MUST(pvera_model_snapshot(w->model, &usual));
    for (int i = 0; i < ADAPTERS; ++i) MUST(pvera_model_remove(w->model, NAMES[i]));
    MUST(pvera_model_publish(w->model, "one", w->adapter, NULL));
    MUST(pvera_bank_snapshot(bank, ROWS, names, slots, &banked));
    CHECK(slots[1] == -1 && slots[0] == slots[3], "slots %d %d %d", slots[1], slots[0], slots[3]);
    for (int i = 0; i < ROWS; ++i) {
        published[i] = -1;
        int32_t slot = -1;
        if (!names[i]) continue;
        MUST(pvera_snapshot_slot(usual, names[i], &published[i]));
        MUST(pvera_snapshot_slot(banked, names[i], &slot));
        CHECK(slot == slots[i], "'%s' has slot %d by name, %d by row", names[i], slot, slots[i]);
    }
    for (size_t layer = 0; layer < 2; ++layer)
        for (int32_t mode = PVERA_MODE_MEAN; mode <= PVERA_MODE_SAMPLE; ++mode) {
            float found[ROWS * OUT], expected[ROWS * OUT];
            forward(w, banked, layer, slots, mode, found);
            forward(w, usual, layer, published, mode, expected);
            CHECK_SAME_BITS("y with adapters of the bank", found, expected, sizeof found);
            CHECK(memcmp(found, found + 2 * (layer == 0 ? OUT : V_OUT), 16) != 0, "rows of two adapters are the same");
        }
    pvera_snapshot_free(banked), pvera_snapshot_free(usual);
}

static void check_saved_the_same(const pvera_adapter *one, const pvera_adapter *other) {
    pvera_bytes found[2], wanted[2];
    MUST(pvera_adapter_save_memory(one, &found[0], &found[1]));
    MUST(pvera_adapter_save_memory(other, &wanted[0], &wanted[1]));
    CHECK(found[1].size == wanted[1].size && memcmp(found[1].data, wanted[1].data, wanted[1].size) == 0, "other tensors");
    for (int i = 0; i < 2; ++i) pvera_bytes_free(&found[i]), pvera_bytes_free(&wanted[i]);
}

/* Another file is at the path, which is no bank, or nothing: the reader stays as it was, and is told. */
static void refresh_of_damage(const struct shop *shop, pvera_bank *reader, pvera_adapter *const *wanted) {
    char away[80];
    bool changed = true;
    snprintf(away, sizeof away, "%s.away", shop->path);
    if (!CHECK(rename(shop->path, away) == 0, "rename")) return;
    CHECK_ERROR(pvera_bank_refresh(reader, &changed), PVERA_ERROR_IO, shop->path);
    FILE *file = fopen(shop->path, "wb");
    if (CHECK(file != NULL, "%s", shop->path)) fclose(file);
    CHECK_ERROR(pvera_bank_refresh(reader, &changed), PVERA_ERROR_FORMAT, "has 0 bytes|wanted a bank of adapters");
    CHECK(changed, "an output was written");
    check_rows(shop, reader, wanted);
    CHECK(rename(away, shop->path) == 0, "rename");
    CHECK_OK(pvera_bank_refresh(reader, &changed));
    CHECK(!changed, "the same file is back");
}

static void story(void) {
    struct shop shop = shop_new();
    const pvera_adapter *const *adapters = (const pvera_adapter *const *)shop.adapters;
    pvera_bank *bank = opened(&shop, PVERA_BANK_CREATE), *reader = NULL;
    size_t damaged = 99;
    char *name = NULL;
    bool contains = false;

    MUST(pvera_bank_append(bank, ADAPTERS, NAMES, adapters, PVERA_F32));
    check_rows(&shop, bank, shop.adapters);
    pvera_bank_free(bank);
    reader = opened(&shop, PVERA_BANK_READ);
    CHECK(used(reader).adapters == ADAPTERS && used(reader).cached == 0, "%zu adapters", used(reader).adapters);
    check_rows(&shop, reader, shop.adapters);
    CHECK(used(reader).cached == ADAPTERS && used(reader).misses == ADAPTERS && used(reader).cached_bytes > 0, "the cache");
    check_rows(&shop, reader, shop.adapters);
    CHECK(used(reader).misses == ADAPTERS && used(reader).hits >= ADAPTERS, "%u hits", (unsigned)used(reader).hits);

    /* A writer beside it replaces one, removes one; the reader sees the bank as it was. */
    bank = opened(&shop, PVERA_BANK_WRITE);
    pvera_adapter *changed[ADAPTERS];
    memcpy(changed, shop.adapters, sizeof changed);
    changed[1] = shop.world->adapter;
    append(bank, "two", changed[1]);
    check_rows(&shop, bank, changed);
    check_rows(&shop, reader, shop.adapters);
    MUST(pvera_bank_name_at(bank, 1, &name));
    CHECK(strcmp(name, "two") == 0, "number 1 is '%s'", name);
    pvera_text_free(name);
    MUST(pvera_bank_remove(bank, 1, &NAMES[0]));
    MUST(pvera_bank_contains(bank, "one", &contains));
    CHECK(!contains && used(bank).adapters == ADAPTERS - 1, "'one' is still there");
    MUST(pvera_bank_contains(bank, "two", &contains));
    CHECK(contains, "'two' is gone");
    MUST(pvera_bank_name_at(bank, 0, &name));
    CHECK(strcmp(name, "two") == 0, "number 0 is '%s'", name);
    pvera_text_free(name);

    pvera_bank_usage before = used(bank);
    CHECK(before.unused_bytes > 0 && before.unused_bytes < before.file_bytes, "%u unused", (unsigned)before.unused_bytes);
    MUST(pvera_bank_compact(bank));
    pvera_bank_usage after = used(bank);
    CHECK(after.unused_bytes == 0 && after.file_bytes < before.file_bytes, "%u unused", (unsigned)after.unused_bytes);
    append(bank, "one", shop.adapters[0]);
    check_rows(&shop, bank, changed);
    MUST(pvera_bank_verify(bank, &damaged));
    CHECK(damaged == 0, "%zu damaged", damaged);
    check_rows(&shop, reader, shop.adapters); /* of the old file, which it has open */

    /* Until it looks again. What it handed out before stays. */
    pvera_adapter *before_refresh = NULL;
    bool found = false;
    MUST(pvera_bank_adapter(reader, "two", &before_refresh));
    MUST(pvera_bank_refresh(reader, &found));
    CHECK(found && used(reader).adapters == ADAPTERS, "changed is %d", found);
    check_rows(&shop, reader, changed);
    CHECK_OK(pvera_bank_refresh(reader, &found));
    CHECK(!found, "it changed again");
    check_saved_the_same(before_refresh, shop.adapters[1]);
    pvera_adapter_free(before_refresh);
    found = true;
    CHECK_OK(pvera_bank_refresh(bank, &found));
    CHECK(!found, "a writer's handle changed");
    refresh_of_damage(&shop, reader, changed);
    pvera_bank_free(reader);

    /* An adapter of a bank is one as any other, and outlives it. */
    pvera_adapter *adapter = NULL;
    MUST(pvera_bank_adapter(bank, "three", &adapter));
    pvera_bank_free(bank);
    check_saved_the_same(adapter, shop.adapters[2]);
    pvera_adapter_free(adapter);
    shop_free(&shop);
}

/* A program that declares no layer is told which there are. */
static void families(void) {
    struct shop shop = shop_new();
    struct world *w = shop.world;
    pvera_bank *bank = opened(&shop, PVERA_BANK_CREATE);
    append(bank, "one", shop.adapters[0]);
    append(bank, "two", shop.adapters[1]);
    pvera_config *narrow = NULL, *config = NULL;
    pvera_adapter *other = NULL;
    MUST(pvera_config_clone(w->config, &narrow));
    MUST(pvera_config_set_json(narrow, "target_modules", "[\"v\"]"));
    MUST(pvera_config_set_int(narrow, "r", 2));
    MUST(pvera_adapter_new(w->model, narrow, NULL, NULL, &other));
    append(bank, "narrow", other);
    CHECK(used(bank).families == 2, "%zu families", used(bank).families);
    MUST(pvera_bank_remove(bank, 1, &NAMES[0]));
    pvera_bank_free(bank);

    pvera_model *model = NULL;
    MUST(pvera_model_new(NULL, &model));
    MUST(pvera_bank_open(model, shop.path, NULL, &bank));
    CHECK(used(bank).families == 2, "%zu families", used(bank).families);
    const char *const paths[2][2] = {{"q", "v"}, {"v", NULL}};
    const size_t outputs[2][2] = {{OUT, V_OUT}, {V_OUT, 0}}, modules[2] = {2, 1};
    for (size_t i = 0; i < 2; ++i) {
        pvera_outline *outline = NULL;
        pvera_outline_info info = {.struct_size = sizeof info, .reserved = 9};
        int64_t rank = 0;
        MUST(pvera_outline_from_bank(bank, i, &outline));
        MUST(pvera_outline_get_info(outline, &info));
        CHECK(info.modules == modules[i] && info.adapters == 1 && info.tensors == 0 && info.reserved == 0, "%zu modules, %zu adapters",
              info.modules, info.adapters);
        CHECK(info.holds_projections == 0 && info.in_max == IN && info.out_max == outputs[i][0], "%zu and %zu", info.in_max, info.out_max);
        CHECK(info.base_dtype.bits == 32 && info.base_dtype.code == PVERA_DTYPE_FLOAT && info.grid == PVERA_GRID_NONE, "drawn in %d bits, grid %d",
              info.base_dtype.bits, info.grid);
        for (size_t j = 0; j < info.modules; ++j) {
            char *path = NULL;
            size_t out_features = 0;
            bool learns_bias = true;
            MUST(pvera_outline_module(outline, j, &path, &out_features, &learns_bias));
            CHECK(strcmp(path, paths[i][j]) == 0 && out_features == outputs[i][j] && !learns_bias, "%s, %zu", path, out_features);
            pvera_text_free(path);
        }
        MUST(pvera_outline_config(outline, &config));
        MUST(pvera_config_get_int(config, "r", &rank));
        CHECK(rank == (i == 0 ? RANK : 2), "rank %d", (int)rank);
        pvera_config_free(config), pvera_outline_free(outline);
    }
    pvera_outline *none = NULL;
    CHECK_ERROR(pvera_outline_from_bank(bank, 2, &none), PVERA_ERROR_NOT_FOUND, "family 2|bank's 2");
    CHECK(none == NULL, "an output was written");
    pvera_bank_free(bank), pvera_model_free(model), pvera_adapter_free(other), pvera_config_free(narrow);
    shop_free(&shop);
}

/* A caller of an older header gets the fields that it knows, one of a newer header zeros. */
static void usage_of_other_ages(void) {
    struct shop shop = shop_new();
    pvera_bank *bank = opened(&shop, PVERA_BANK_CREATE);
    append(bank, "one", shop.adapters[0]);
    struct {
        pvera_bank_usage known;
        size_t unknown[2];
    } usage;
    memset(&usage, 0, sizeof usage);
    usage.known.struct_size = offsetof(pvera_bank_usage, file_bytes);
    usage.known.file_bytes = 77;
    CHECK_OK(pvera_bank_get_usage(bank, &usage.known));
    CHECK(usage.known.adapters == 1 && usage.known.file_bytes == 77, "%zu adapters, %u", usage.known.adapters,
          (unsigned)usage.known.file_bytes);
    CHECK(usage.known.struct_size == offsetof(pvera_bank_usage, file_bytes), "the size was written");
    usage.known.struct_size = sizeof usage;
    CHECK_OK(pvera_bank_get_usage(bank, &usage.known));
    CHECK(usage.known.file_bytes > 77 && usage.unknown[0] == 0 && usage.unknown[1] == 0, "a longer struct");
    usage.known.struct_size = 0;
    CHECK_ERROR(pvera_bank_get_usage(bank, &usage.known), PVERA_ERROR_ARGUMENT, "usage.struct_size is 0|wanted sizeof");
    pvera_bank_free(bank);
    shop_free(&shop);
}

static void errors(void) {
    struct shop shop = shop_new();
    struct world *w = shop.world;
    pvera_bank_options options = {.struct_size = sizeof options};
    pvera_bank *bank = NULL, *other = NULL;
    pvera_model *model = NULL;
    const pvera_adapter *pair[2] = {shop.adapters[0], shop.adapters[1]};
    const char *names[2] = {"one", ""};
    CHECK_ERROR(pvera_bank_open(w->model, shop.path, &options, &bank), PVERA_ERROR_IO, shop.path);
    options.access = 3;
    CHECK_ERROR(pvera_bank_open(w->model, shop.path, &options, &bank), PVERA_ERROR_ARGUMENT, "options.access is 3|wanted PVERA_BANK_READ (0)");
    CHECK_ERROR(pvera_bank_open(w->model, "", NULL, &bank), PVERA_ERROR_ARGUMENT, "path is empty");
    options.access = PVERA_BANK_CREATE;
    MUST(pvera_bank_open(w->model, shop.path, &options, &bank));
    CHECK_ERROR(pvera_bank_open(w->model, shop.path, &options, &other), PVERA_ERROR_EXISTS, shop.path);
    options.access = PVERA_BANK_WRITE;
    CHECK_ERROR(pvera_bank_open(w->model, shop.path, &options, &other), PVERA_ERROR_STATE, "is being written by another handle");

    /* All or nothing. */
#define APPEND(dtype) pvera_bank_append(bank, 2, names, pair, dtype)
    CHECK_ERROR(APPEND(PVERA_F32), PVERA_ERROR_ARGUMENT, "names[1] has 0 bytes|wanted 1 to 4096");
    names[1] = "\xff";
    CHECK_ERROR(APPEND(PVERA_F32), PVERA_ERROR_ARGUMENT, "names[1] is not UTF-8");
    names[1] = "one";
    CHECK_ERROR(APPEND(PVERA_F32), PVERA_ERROR_ARGUMENT, "names[1] is 'one'|wanted each once");
    names[1] = "two";
    CHECK_ERROR(APPEND(((pvera_dtype){PVERA_DTYPE_INT, 8, 1})), PVERA_ERROR_DTYPE, "dtype");
    float *parameters = NULL;
    size_t count = 0, damaged = 99;
    MUST(pvera_adapter_parameters(shop.adapters[1], &parameters, &count));
    parameters[3] = 1e30f;
    CHECK_ERROR(APPEND(PVERA_F16), PVERA_ERROR_OVERFLOW, "adapter 'two'|parameter 3 is|that f16 holds");
    fill(parameters, count, 11);
    const size_t shape[1] = {1};
    MUST(pvera_adapter_set_tensor(shop.adapters[3], "head", PVERA_F32, shape, 1, parameters, 4));
    pair[1] = shop.adapters[3];
    CHECK_ERROR(APPEND(PVERA_F32), PVERA_ERROR_UNSUPPORTED, "adapter 'two'|'head'|vectors only");
    pair[1] = shop.adapters[1];
    CHECK(used(bank).adapters == 0, "%zu adapters were appended by failed calls", used(bank).adapters);
    MUST(APPEND(PVERA_BF16));
    names[1] = "three";
    CHECK_ERROR(pvera_bank_remove(bank, 2, names), PVERA_ERROR_NOT_FOUND, "no adapter of the name 'three'");
    CHECK(used(bank).adapters == 2, "a failed removal removed something");

    pvera_adapter *adapter = NULL;
    pvera_snapshot *snapshot = NULL;
    int32_t slots[2] = {99, 99};
    char *name = NULL;
    CHECK_ERROR(pvera_bank_adapter(bank, "three", &adapter), PVERA_ERROR_NOT_FOUND, "'three'|it holds 2");
    CHECK_ERROR(pvera_bank_snapshot(bank, 2, names, slots, &snapshot), PVERA_ERROR_NOT_FOUND, "'three'");
    CHECK_ERROR(pvera_bank_name_at(bank, 2, &name), PVERA_ERROR_NOT_FOUND, "number 2|2 adapters");
    MUST(pvera_bank_open(w->model, shop.path, NULL, &other));
    CHECK_ERROR(pvera_bank_remove(other, 1, names), PVERA_ERROR_STATE, "open for reading|open it to write");
    CHECK_ERROR(pvera_bank_compact(other), PVERA_ERROR_STATE, "open for reading");
    pvera_bank_free(other);
    CHECK(!adapter && !snapshot && !name && slots[0] == 99 && slots[1] == 99, "an output was written");

    /* Another model: other layers, and so other adapters. */
    MUST(pvera_model_new(NULL, &model));
    pvera_layer layer = {.struct_size = sizeof layer, .name = "q", .in_features = IN, .out_features = OUT};
    MUST(pvera_model_declare(model, &layer, NULL));
    MUST(pvera_bank_open(model, shop.path, NULL, &other));
    CHECK_ERROR(pvera_bank_adapter(other, "one", &adapter), PVERA_ERROR_NOT_FOUND, "'v'|not declared|ignore_undeclared");
    pvera_bank_free(other);
    options.access = PVERA_BANK_READ, options.ignore_undeclared = 1;
    MUST(pvera_bank_open(model, shop.path, &options, &other));
    MUST(pvera_bank_adapter(other, "one", &adapter));
    CHECK_ERROR(pvera_bank_append(bank, 1, names, (const pvera_adapter *const *)&adapter, PVERA_F32), PVERA_ERROR_STATE,
                "adapter 'one'|another model");
    pvera_adapter_free(adapter), pvera_bank_free(other), pvera_model_free(model), pvera_bank_free(bank);

    /* A damaged file, and one that is no bank. */
    FILE *file = fopen(shop.path, "r+b");
    if (CHECK(file != NULL, "%s", shop.path)) {
        const long vectors = 4096; /* they come first: the file's head has this size */
        fseek(file, vectors, SEEK_SET);
        const int byte = fgetc(file);
        fseek(file, vectors, SEEK_SET);
        fputc(byte ^ 1, file);
        fclose(file);
    }
    adapter = NULL;
    bank = opened(&shop, PVERA_BANK_READ);
    CHECK_ERROR(pvera_bank_adapter(bank, "one", &adapter), PVERA_ERROR_FORMAT, "the vectors of adapter 'one'|damaged");
    MUST(pvera_bank_adapter(bank, "two", &adapter));
    MUST(pvera_bank_verify(bank, &damaged));
    CHECK(damaged == 1, "%zu damaged", damaged);
    pvera_adapter_free(adapter), pvera_bank_free(bank);
    bank = opened(&shop, PVERA_BANK_WRITE);
    CHECK_ERROR(pvera_bank_compact(bank), PVERA_ERROR_FORMAT, "the vectors of adapter 'one'|option repair");
    pvera_bank_free(bank), bank = NULL;
    pvera_bank_options repair = {.struct_size = sizeof repair, .access = PVERA_BANK_WRITE, .repair = 1, .reserved = 1};
    CHECK_ERROR(pvera_bank_open(w->model, shop.path, &repair, &bank), PVERA_ERROR_UNSUPPORTED, "options.reserved is 1");
    repair.reserved = 0;
    MUST(pvera_bank_open(w->model, shop.path, &repair, &bank));
    MUST(pvera_bank_compact(bank));
    MUST(pvera_bank_verify(bank, &damaged));
    CHECK(damaged == 0, "%zu damaged", damaged);
    pvera_bank_free(bank);
    file = fopen(shop.path, "wb");
    if (CHECK(file != NULL, "%s", shop.path)) fclose(file);
    bank = NULL;
    CHECK_ERROR(pvera_bank_open(w->model, shop.path, NULL, &bank), PVERA_ERROR_FORMAT, "has 0 bytes|wanted a bank of adapters");
    CHECK(bank == NULL, "an output was written");
    shop_free(&shop);
}

/* Σ weights · delta of two adapters, by the adapters themselves. */
static void sum_of_deltas(struct world *w, pvera_adapter *const *adapters, const double *weights, size_t count, float *y) {
    memset(y, 0, sizeof(float) * ROWS * V_OUT);
    for (size_t i = 0; i < count; ++i) {
        float delta[ROWS * V_OUT] = {0};
        pvera_linear *linear = NULL;
        pvera_matrix x = pvera_f32(w->x, ROWS, IN);
        pvera_matrix_mut out = pvera_f32_mut(delta, ROWS, V_OUT);
        pvera_noise noise = {.struct_size = sizeof noise, .mode = PVERA_MODE_MEAN};
        MUST(pvera_adapter_linear(adapters[i], 1, &linear));
        MUST(pvera_forward(w->context, linear, &x, NULL, &noise, NULL, &out));
        for (int j = 0; j < ROWS * V_OUT; ++j) y[j] += (float)weights[i] * delta[j];
        pvera_linear_free(linear);
    }
}

static void combining(void) {
    struct shop shop = shop_new();
    struct world *w = shop.world;
    const pvera_adapter *const *pair = (const pvera_adapter *const *)shop.adapters;
    const double weights[2] = {0.75, -2}, one = 1;
    pvera_adapter *combined = NULL;
    double error = 99;
    float found[ROWS * V_OUT], wanted[ROWS * V_OUT];
    MUST(pvera_adapter_combine(2, pair, weights, &error, &combined));
    CHECK(error > 0.1 && error < 1, "two adapters that share nothing: error %g", error);
    sum_of_deltas(w, shop.adapters, weights, 2, wanted);
    sum_of_deltas(w, &combined, &one, 1, found);
    CHECK(!is_close(found, ROWS * V_OUT, wanted, ROWS * V_OUT, 1e-3), "two adapters that share nothing have an exact sum");
    pvera_adapter_free(combined), combined = NULL;

    /* With equal lambda_d, the sum is an adapter. */
    float *parameters[2];
    size_t count = 0;
    for (int i = 0; i < 2; ++i) MUST(pvera_adapter_parameters(shop.adapters[i], &parameters[i], &count));
    for (size_t layer = 0; layer < 2; ++layer) {
        pvera_parameter_range range;
        MUST(pvera_adapter_range(shop.adapters[0], layer, &range));
        memcpy(parameters[1] + range.lambda_d, parameters[0] + range.lambda_d, range.lambda_d_count * sizeof(float));
    }
    MUST(pvera_adapter_combine(2, pair, weights, &error, &combined));
    CHECK(error < 1e-6, "adapters of one lambda_d: error %g", error);
    sum_of_deltas(w, shop.adapters, weights, 2, wanted);
    sum_of_deltas(w, &combined, &one, 1, found);
    CHECK_CLOSE("the sum", found, ROWS * V_OUT, wanted, ROWS * V_OUT, 1e-5);
    pvera_adapter_free(combined), combined = NULL;
    CHECK_OK(pvera_adapter_combine(1, pair, weights, NULL, &combined)); /* the error is not wanted */
    pvera_adapter_free(combined), combined = NULL;

    const double infinite[2] = {1, INFINITY};
    error = 99;
    CHECK_ERROR(pvera_adapter_combine(0, NULL, NULL, &error, &combined), PVERA_ERROR_ARGUMENT, "count is 0|at least one adapter");
    CHECK_ERROR(pvera_adapter_combine(2, pair, infinite, &error, &combined), PVERA_ERROR_ARGUMENT, "weights[1] is inf|finite");
    pvera_adapter *elsewhere = NULL;
    pvera_config *config = NULL;
    MUST(pvera_config_clone(w->config, &config));
    MUST(pvera_config_set_int(config, "projection_prng_key", 78));
    MUST(pvera_adapter_new(w->model, config, NULL, NULL, &elsewhere));
    const pvera_adapter *strangers[2] = {shop.adapters[0], elsewhere};
    CHECK_ERROR(pvera_adapter_combine(2, strangers, weights, &error, &combined), PVERA_ERROR_PROJECTION, "adapters[1]|store");
    CHECK(error == 99 && !combined, "an output was written");
    pvera_config_free(config), pvera_adapter_free(elsewhere);
    shop_free(&shop);
}

static void grids(void) {
    struct world *w = world_default();
    pvera_store_options options = {.struct_size = sizeof options, .rank = 64, .in_max = 128, .out_max = 128};
    pvera_store *exact = NULL, *grid = NULL, *loaded = NULL;
    size_t exact_bytes = 0, grid_bytes = 0;
    MUST(pvera_store_from_key(77, &options, &exact));
    options.grid = PVERA_GRID_INT8;
    MUST(pvera_store_from_key(77, &options, &grid));
    MUST(pvera_store_packed_bytes(exact, PVERA_PACK_FORWARD, &exact_bytes));
    MUST(pvera_store_packed_bytes(grid, PVERA_PACK_FORWARD, &grid_bytes));
    CHECK(grid_bytes > 0 && grid_bytes * 4 == exact_bytes, "%zu bytes on the grid, %zu off it", grid_bytes, exact_bytes);
    pvera_store_free(exact), pvera_store_free(grid);

    options.base_dtype = PVERA_BF16, grid = NULL;
    CHECK_ERROR(pvera_store_from_key(77, &options, &grid), PVERA_ERROR_ARGUMENT, "options.grid|options.base_dtype is bf16|rounded once");
    options.base_dtype = (pvera_dtype){0}, options.grid = 2;
    CHECK_ERROR(pvera_store_from_key(77, &options, &grid), PVERA_ERROR_ARGUMENT, "options.grid is 2|wanted PVERA_GRID_NONE (0)");
    CHECK(grid == NULL, "an output was written");

    /* Its checkpoint holds it. */
    options = (pvera_store_options){.struct_size = sizeof options, .rank = RANK, .in_max = IN, .out_max = OUT, .grid = PVERA_GRID_INT8};
    pvera_adapter *adapter = NULL, *again = NULL;
    pvera_bytes config, tensors;
    bool equal = false;
    MUST(pvera_store_from_key(77, &options, &grid));
    MUST(pvera_adapter_new(w->model, w->config, grid, NULL, &adapter));
    MUST(pvera_adapter_save_memory(adapter, &config, &tensors));
    MUST(pvera_adapter_load_memory(w->model, config.data, config.size, tensors.data, tensors.size, NULL, &again));
    MUST(pvera_adapter_store(again, &loaded));
    MUST(pvera_store_equal(grid, loaded, &equal));
    CHECK(equal, "the store of the loaded checkpoint is another");
    MUST(pvera_store_equal(w->store, loaded, &equal));
    CHECK(!equal, "the grid changed nothing");
    pvera_bytes_free(&config), pvera_bytes_free(&tensors);
    pvera_store_free(grid), pvera_store_free(loaded), pvera_adapter_free(adapter), pvera_adapter_free(again);
    world_free(w);
}

/* A callback that calls the bank that it came out of. */
struct caller {
    struct shop *shop;
    pvera_bank *bank;
    const char *stage;
    int calls, refused, served;
};

static int32_t call_again(void *user, const char *stage, uint64_t done, uint64_t total) {
    struct caller *caller = user;
    const char *one = "one", *words = strcmp(stage, "draw projections") == 0 ? "drawing" : "writes";
    pvera_adapter *adapter = NULL;
    bool contains = false;
    (void)done, (void)total;
    if (!caller->bank || strcmp(stage, caller->stage) != 0) return 0;
    ++caller->calls;
    MUST(pvera_bank_contains(caller->bank, one, &contains));
    caller->served += contains && used(caller->bank).adapters == 1;
    pvera_error *error = pvera_bank_adapter(caller->bank, one, &adapter);
    if (!error) error = pvera_bank_append(caller->bank, 1, &one, (const pvera_adapter *const *)&adapter, (pvera_dtype){0});
    caller->refused += pvera_error_code(error) == PVERA_ERROR_STATE && strstr(pvera_error_message(error), words) != NULL;
    pvera_error_free(error), pvera_adapter_free(adapter);
    return 0;
}

static void callbacks_that_call_again(void) {
    struct shop shop = shop_new();
    pvera_bank *bank = opened(&shop, PVERA_BANK_CREATE);
    append(bank, "one", shop.adapters[0]);
    pvera_bank_free(bank);

    struct caller caller = {.shop = &shop, .stage = "draw projections"};
    pvera_model_options options = {.struct_size = sizeof options, .callbacks = {.progress = call_again, .user = &caller}};
    struct world *w = world_new(NULL, &options, 0, "none");
    pvera_bank_options writing = {.struct_size = sizeof writing, .access = PVERA_BANK_WRITE};
    pvera_adapter *adapter = NULL;
    MUST(pvera_bank_open(w->model, shop.path, &writing, &caller.bank));
    CHECK_OK(pvera_bank_adapter(caller.bank, "one", &adapter)); /* draws */
    CHECK(caller.calls > 0 && caller.served == caller.calls && caller.refused == caller.calls, "%d calls, %d served, %d refused",
          caller.calls, caller.served, caller.refused);
    pvera_adapter_free(adapter);
    caller = (struct caller){.shop = &shop, .bank = caller.bank, .stage = "compact the bank"};
    CHECK_OK(pvera_bank_compact(caller.bank));
    CHECK(caller.calls > 0 && caller.served == caller.calls && caller.refused == caller.calls, "%d calls, %d served, %d refused",
          caller.calls, caller.served, caller.refused);
    const char *two = "two";
    CHECK_OK(pvera_bank_append(caller.bank, 1, &two, (const pvera_adapter *const *)&w->adapter, (pvera_dtype){0})); /* all is as before */
    pvera_bank_free(caller.bank);
    world_free(w);
    shop_free(&shop);
}

int main(int argc, char **argv) {
    check_begin(argc, argv);
    story();
    families();
    usage_of_other_ages();
    errors();
    combining();
    grids();
    callbacks_that_call_again();
    return check_end();
}
