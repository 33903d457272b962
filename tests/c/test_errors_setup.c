/* Errors of everything before and after computing: contexts, layers, projections, configs, files, adapters, statistics, the
 * optimiser. Each has its code and its sentence, and leaves outputs alone. With --verbose all sentences are shown. */
#include <sys/stat.h>

#include "world.h"

static void contexts(void) {
    pvera_context *context = NULL;
    pvera_context_options options = {.struct_size = sizeof options, .backend = PVERA_BACKEND_CUDA};
    options.device.type = 7;
    CHECK_ERROR(pvera_context_new(&options, &context), PVERA_ERROR_ARGUMENT, "options.device is {7, 0}|wanted {2, ordinal}");
    options.device.type = 0, options.backend = -1;
    CHECK_ERROR(pvera_context_new(&options, &context), PVERA_ERROR_ARGUMENT, "options.backend is -1|wanted");
    options.backend = PVERA_BACKEND_CPU, options.stream = &options;
    CHECK_ERROR(pvera_context_new(&options, &context), PVERA_ERROR_ARGUMENT, "options.stream is 0x|options.backend 0|wanted PVERA_BACKEND_CUDA");
    options.stream = NULL, options.device.type = PVERA_DEVICE_CUDA;
    CHECK_ERROR(pvera_context_new(&options, &context), PVERA_ERROR_ARGUMENT, "options.device is {2, 0}|options.backend 0|wanted PVERA_BACKEND_CUDA");
    options.device.type = 0, options.threads = 100000;
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

struct draw {
    int calls, stop_at;
    uint64_t done, total;
};

static int32_t watch(void *user, const char *stage, uint64_t done, uint64_t total) {
    struct draw *draw = user;
    CHECK(strcmp(stage, "draw projections") == 0 && done >= draw->done && done < total, "%s, %d", stage, draw->calls);
    draw->done = done, draw->total = total;
    return ++draw->calls == draw->stop_at;
}

/* A draw can be watched and stopped; a program that was compiled before it could is served as ever. */
static void draws(void) {
    enum { WIDE = 2000 };
    struct draw draw = {.stop_at = 0};
    pvera_store_options options = {.struct_size = sizeof options, .rank = 256, .in_max = WIDE, .out_max = WIDE};
    pvera_store *whole = NULL, *stopped = NULL, *older = NULL;
    options.callbacks = (pvera_callbacks){.progress = watch, .user = &draw};
    MUST(pvera_store_from_key(5, &options, &whole));
    CHECK(draw.calls >= 2 && draw.total == 3 * 256 * WIDE, "%d calls, %d values", draw.calls, (int)draw.total);
    draw = (struct draw){.stop_at = 2};
    CHECK_ERROR(pvera_store_from_key(5, &options, &stopped), PVERA_ERROR_CANCELLED, "progress callback|draw of projections");
    CHECK(draw.calls == 2 && !stopped, "%d calls, or an output was written", draw.calls);
    draw = (struct draw){.stop_at = 1};
    options.struct_size = offsetof(pvera_store_options, callbacks);
    bool equal = false;
    MUST(pvera_store_from_key(5, &options, &older));
    MUST(pvera_store_equal(whole, older, &equal));
    CHECK(equal && draw.calls == 0, "%d calls", draw.calls);
    options.struct_size = sizeof options, options.callbacks.progress = NULL, options.reserved = 1;
    CHECK_ERROR(pvera_store_from_key(5, &options, &stopped), PVERA_ERROR_UNSUPPORTED, "options.reserved is 1|wanted 0");
    pvera_store_free(whole), pvera_store_free(older);
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

static void release_nothing(void *user, void *memory, size_t size, size_t alignment) {
    (void)user, (void)memory, (void)size, (void)alignment;
}

static void projections(struct world *w) {
    float values[64] = {0};
    pvera_store *store = NULL;
    pvera_adapter *adapter = NULL;
    pvera_linear *linear = NULL;
    pvera_config *config = NULL;
    pvera_matrix a = pvera_f32(values, 4, 3), b = pvera_f32(values, 5, 3), odd = pvera_f32(values, 5, 3);
    CHECK_ERROR(pvera_store_from_matrices(&a, &b, NULL, &store), PVERA_ERROR_PROJECTION, "B has 3 columns|A has 4 rows|wanted r and 2r");
    CHECK_ERROR(pvera_store_from_matrices(&odd, &b, NULL, &store), PVERA_ERROR_PROJECTION, "A has 5 rows|wanted r and 2r");
    pvera_store_options options = {.struct_size = sizeof options, .rank = 0, .in_max = 3, .out_max = 4};
    CHECK_ERROR(pvera_store_from_key(1, &options, &store), PVERA_ERROR_ARGUMENT, "options.rank|0|at least 1");
    options.rank = SIZE_MAX / 2;
    CHECK_ERROR(pvera_store_from_key(1, &options, &store), PVERA_ERROR_SHAPE, "address space");
    options.rank = 1, options.base_dtype.bits = 3;
    CHECK_ERROR(pvera_store_from_key(1, &options, &store), PVERA_ERROR_DTYPE, "options.base_dtype|3 bits");
    CHECK_ERROR(pvera_store_from_file("no/such/file", false, NULL, &store), PVERA_ERROR_IO, "no/such/file|No such file");
    CHECK_ERROR(pvera_store_from_file("/", true, NULL, &store), PVERA_ERROR_IO, "'/'");
    pvera_allocator half = {.release = release_nothing};
    CHECK_ERROR(pvera_store_from_file("/", false, &half, &store), PVERA_ERROR_NULL, "allocator: one of|wanted both, or neither");
    CHECK_ERROR(pvera_store_from_memory((const uint8_t *)"", 0, &half, &store), PVERA_ERROR_NULL, "allocator: one of");
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
    CHECK_ERROR(pvera_store_from_file(path, false, NULL, (pvera_store **)&adapter), PVERA_ERROR_FORMAT, "adapter_model.safetensors");
    remove(path);
    remove(config_path);
    CHECK_ERROR(pvera_adapter_save(w->adapter, "no/such/folder"), PVERA_ERROR_IO, "no/such");
    CHECK_ERROR(pvera_adapter_save(w->adapter, ""), PVERA_ERROR_ARGUMENT, "folder is empty|wanted a path");
    CHECK_ERROR(pvera_adapter_load(w->model, "", NULL, &adapter), PVERA_ERROR_ARGUMENT, "folder is empty|wanted a path");
    CHECK_ERROR(pvera_store_from_memory((const uint8_t *)"eight..!", 8, NULL, (pvera_store **)&adapter), PVERA_ERROR_FORMAT,
                "the tensors in memory|safetensors");
    CHECK_ERROR(pvera_store_from_file("", false, NULL, (pvera_store **)&adapter), PVERA_ERROR_ARGUMENT, "path is empty|wanted a path");
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
    contexts();
    draws();
    layers(world);
    projections(world);
    configs(world);
    files(world);
    adapters(world);
    statistics();
    optimiser();
    world_free(world);
    return check_end();
}
