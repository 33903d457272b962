/* NULL for each pointer that a function needs: an error that names it, and no output touched. NULL where it is allowed. */
#include "world.h"

/* Stands for any output; a failed call leaves it alone. */
static _Alignas(16) unsigned char place[256];
#define PLACE(type) ((type *)(void *)place)

static bool untouched(void) {
    for (size_t i = 0; i < sizeof place; ++i)
        if (place[i] != 0xA5) return false;
    return true;
}

#define NULL_IS(name, call) \
    do { \
        memset(place, 0xA5, sizeof place); \
        CHECK_ERROR(call, PVERA_ERROR_NULL, name " is NULL|wanted"); \
        CHECK(untouched(), "%s", #call); \
    } while (0)

static void frees(void) {
    CHECK(pvera_error_code(NULL) == PVERA_OK, "code of NULL");
    CHECK(strcmp(pvera_error_message(NULL), "no error") == 0, "message of NULL");
    pvera_error_free(NULL);
    pvera_text_free(NULL);
    pvera_bytes_free(NULL);
    pvera_bytes cleared = {NULL, 0};
    pvera_bytes_free(&cleared);
    pvera_context_free(NULL);
    pvera_config_free(NULL);
    pvera_store_free(NULL);
    pvera_model_free(NULL);
    pvera_adapter_free(NULL);
    pvera_snapshot_free(NULL);
    pvera_linear_free(NULL);
    pvera_tape_free(NULL);
    pvera_undo_free(NULL);
    pvera_statistics_free(NULL);
    pvera_torch_generator_free(NULL);
    pvera_bank_free(NULL);
    pvera_outline_free(NULL);
}

static void configs(struct world *w) {
    NULL_IS("message", pvera_test_panic(NULL));
    NULL_IS("context", pvera_context_new(NULL, NULL));
    NULL_IS("context", pvera_context_scratch_bytes(NULL, PLACE(size_t)));
    NULL_IS("bytes", pvera_context_scratch_bytes(w->context, NULL));
    const pvera_linear *one = w->q;
    NULL_IS("context", pvera_scratch_bytes(NULL, 1, &one, 1, NULL, 1, true, PLACE(size_t)));
    NULL_IS("linears", pvera_scratch_bytes(w->context, 1, NULL, 1, NULL, 1, true, PLACE(size_t)));
    NULL_IS("bytes", pvera_scratch_bytes(w->context, 1, &one, 1, NULL, 1, true, NULL));
    NULL_IS("config", pvera_config_new(NULL));
    NULL_IS("json", pvera_config_from_json(NULL, 2, PLACE(pvera_config *)));
    NULL_IS("config", pvera_config_from_json("{}", 2, NULL));
    NULL_IS("config", pvera_config_to_json(NULL, PLACE(char *)));
    NULL_IS("json", pvera_config_to_json(w->config, NULL));
    NULL_IS("config", pvera_config_clone(NULL, PLACE(pvera_config *)));
    NULL_IS("copy", pvera_config_clone(w->config, NULL));
    NULL_IS("config", pvera_config_validate(NULL));
    NULL_IS("config", pvera_config_targets(NULL, "q", false, PLACE(bool)));
    NULL_IS("path", pvera_config_targets(w->config, NULL, false, PLACE(bool)));
    NULL_IS("targeted", pvera_config_targets(w->config, "q", false, NULL));
    NULL_IS("config", pvera_config_get_int(NULL, "r", PLACE(int64_t)));
    NULL_IS("field", pvera_config_get_int(w->config, NULL, PLACE(int64_t)));
    NULL_IS("value", pvera_config_get_int(w->config, "r", NULL));
    NULL_IS("config", pvera_config_get_real(NULL, "alpha", PLACE(double)));
    NULL_IS("field", pvera_config_get_real(w->config, NULL, PLACE(double)));
    NULL_IS("value", pvera_config_get_real(w->config, "alpha", NULL));
    NULL_IS("config", pvera_config_get_bool(NULL, "init_weights", PLACE(bool)));
    NULL_IS("field", pvera_config_get_bool(w->config, NULL, PLACE(bool)));
    NULL_IS("value", pvera_config_get_bool(w->config, "init_weights", NULL));
    NULL_IS("config", pvera_config_get_text(NULL, "bias", PLACE(char *)));
    NULL_IS("field", pvera_config_get_text(w->config, NULL, PLACE(char *)));
    NULL_IS("value", pvera_config_get_text(w->config, "bias", NULL));
    NULL_IS("config", pvera_config_get_json(NULL, "bias", PLACE(char *)));
    NULL_IS("field", pvera_config_get_json(w->config, NULL, PLACE(char *)));
    NULL_IS("value", pvera_config_get_json(w->config, "bias", NULL));
    NULL_IS("config", pvera_config_set_int(NULL, "r", 4));
    NULL_IS("field", pvera_config_set_int(w->config, NULL, 4));
    NULL_IS("config", pvera_config_set_real(NULL, "alpha", 1));
    NULL_IS("field", pvera_config_set_real(w->config, NULL, 1));
    NULL_IS("config", pvera_config_set_bool(NULL, "init_weights", true));
    NULL_IS("field", pvera_config_set_bool(w->config, NULL, true));
    NULL_IS("config", pvera_config_set_text(NULL, "bias", "none"));
    NULL_IS("field", pvera_config_set_text(w->config, NULL, "none"));
    NULL_IS("value", pvera_config_set_text(w->config, "bias", NULL));
    NULL_IS("config", pvera_config_set_json(NULL, "bias", "\"none\""));
    NULL_IS("field", pvera_config_set_json(w->config, NULL, "\"none\""));
    NULL_IS("value", pvera_config_set_json(w->config, "bias", NULL));
}

static void stores(struct world *w) {
    float values[2 * RANK * IN] = {0};
    pvera_matrix a = pvera_f32(values, 2 * RANK, IN), b = pvera_f32(values, IN, RANK);
    pvera_matrix no_data = pvera_f32(NULL, 2 * RANK, IN);
    pvera_store_options options = {.struct_size = sizeof options, .rank = 2, .in_max = 3, .out_max = 3};
    NULL_IS("options", pvera_store_from_key(1, NULL, PLACE(pvera_store *)));
    NULL_IS("store", pvera_store_from_key(1, &options, NULL));
    NULL_IS("a", pvera_store_from_matrices(NULL, &b, NULL, PLACE(pvera_store *)));
    NULL_IS("a.data", pvera_store_from_matrices(&no_data, &b, NULL, PLACE(pvera_store *)));
    NULL_IS("b", pvera_store_from_matrices(&a, NULL, NULL, PLACE(pvera_store *)));
    NULL_IS("store", pvera_store_from_matrices(&a, &b, NULL, NULL));
    NULL_IS("path", pvera_store_from_file(NULL, false, NULL, PLACE(pvera_store *)));
    NULL_IS("store", pvera_store_from_file("nowhere", false, NULL, NULL));
    NULL_IS("bytes", pvera_store_from_memory(NULL, 8, NULL, PLACE(pvera_store *)));
    NULL_IS("store", pvera_store_from_memory((const uint8_t *)"", 0, NULL, NULL));
    NULL_IS("store", pvera_store_clone(NULL, PLACE(pvera_store *)));
    NULL_IS("clone", pvera_store_clone(w->store, NULL));
    NULL_IS("store", pvera_store_matrices(NULL, PLACE(pvera_matrix), PLACE(pvera_matrix) + 1));
    NULL_IS("a", pvera_store_matrices(w->store, NULL, PLACE(pvera_matrix)));
    NULL_IS("b", pvera_store_matrices(w->store, PLACE(pvera_matrix), NULL));
    NULL_IS("first", pvera_store_equal(NULL, w->store, PLACE(bool)));
    NULL_IS("second", pvera_store_equal(w->store, NULL, PLACE(bool)));
    NULL_IS("equal", pvera_store_equal(w->store, w->store, NULL));
    NULL_IS("store", pvera_store_bytes(NULL, PLACE(size_t)));
    NULL_IS("bytes", pvera_store_bytes(w->store, NULL));
}

static void models(struct world *w) {
    pvera_layer layer = {.struct_size = sizeof layer, .name = "new", .in_features = 2, .out_features = 2};
    pvera_layer nameless = {.struct_size = sizeof layer, .in_features = 2, .out_features = 2};
    pvera_layer no_data = layer;
    no_data.weight = pvera_f32(NULL, 2, 2);
    NULL_IS("model", pvera_model_new(NULL, NULL));
    NULL_IS("model", pvera_model_declare(NULL, &layer, PLACE(size_t)));
    NULL_IS("layer", pvera_model_declare(w->model, NULL, PLACE(size_t)));
    NULL_IS("layer.name", pvera_model_declare(w->model, &nameless, PLACE(size_t)));
    NULL_IS("layer.weight.data", pvera_model_declare(w->model, &no_data, PLACE(size_t)));
    NULL_IS("model", pvera_model_find_layer(NULL, "q", PLACE(size_t)));
    NULL_IS("name", pvera_model_find_layer(w->model, NULL, PLACE(size_t)));
    NULL_IS("number", pvera_model_find_layer(w->model, "q", NULL));
    NULL_IS("model", pvera_model_publish(NULL, "two", w->adapter, PLACE(int32_t)));
    NULL_IS("name", pvera_model_publish(w->model, NULL, w->adapter, PLACE(int32_t)));
    NULL_IS("adapter", pvera_model_publish(w->model, "two", NULL, PLACE(int32_t)));
    NULL_IS("model", pvera_model_replace(NULL, "one", w->adapter, PLACE(int32_t)));
    NULL_IS("name", pvera_model_replace(w->model, NULL, w->adapter, PLACE(int32_t)));
    NULL_IS("adapter", pvera_model_replace(w->model, "one", NULL, PLACE(int32_t)));
    NULL_IS("model", pvera_model_remove(NULL, "one"));
    NULL_IS("name", pvera_model_remove(w->model, NULL));
    NULL_IS("model", pvera_model_snapshot(NULL, PLACE(pvera_snapshot *)));
    NULL_IS("snapshot", pvera_model_snapshot(w->model, NULL));
    NULL_IS("snapshot", pvera_snapshot_slot(NULL, "one", PLACE(int32_t)));
    NULL_IS("name", pvera_snapshot_slot(w->snapshot, NULL, PLACE(int32_t)));
    NULL_IS("slot", pvera_snapshot_slot(w->snapshot, "one", NULL));
    NULL_IS("snapshot", pvera_snapshot_linear(NULL, 0, PLACE(const pvera_linear *)));
    NULL_IS("linear", pvera_snapshot_linear(w->snapshot, 0, NULL));
}

static void adapters(struct world *w) {
    const uint8_t bytes[2] = {'{', '}'};
    const size_t shape[1] = {1};
    pvera_adapter **out = PLACE(pvera_adapter *);
    NULL_IS("model", pvera_adapter_load(NULL, "folder", NULL, out));
    NULL_IS("folder", pvera_adapter_load(w->model, NULL, NULL, out));
    NULL_IS("adapter", pvera_adapter_load(w->model, "folder", NULL, NULL));
    NULL_IS("model", pvera_adapter_load_memory(NULL, bytes, 2, bytes, 2, NULL, out));
    NULL_IS("config", pvera_adapter_load_memory(w->model, NULL, 2, bytes, 2, NULL, out));
    NULL_IS("tensors", pvera_adapter_load_memory(w->model, bytes, 2, NULL, 2, NULL, out));
    NULL_IS("adapter", pvera_adapter_load_memory(w->model, bytes, 2, bytes, 2, NULL, NULL));
    NULL_IS("model", pvera_adapter_new(NULL, w->config, NULL, NULL, out));
    NULL_IS("config", pvera_adapter_new(w->model, NULL, NULL, NULL, out));
    NULL_IS("adapter", pvera_adapter_new(w->model, w->config, NULL, NULL, NULL));
    NULL_IS("adapter", pvera_adapter_trainable(NULL, NULL, 0, out));
    NULL_IS("copy", pvera_adapter_trainable(w->adapter, NULL, 0, NULL));
    const pvera_adapter *pair[2] = {w->adapter, NULL};
    const double weights[2] = {1, 1};
    NULL_IS("adapters", pvera_adapter_combine(2, NULL, weights, PLACE(double), out + 1));
    NULL_IS("adapters[1]", pvera_adapter_combine(2, pair, weights, PLACE(double), out + 1));
    NULL_IS("weights", pvera_adapter_combine(1, pair, NULL, PLACE(double), out + 1));
    NULL_IS("combined", pvera_adapter_combine(1, pair, weights, PLACE(double), NULL));
    NULL_IS("adapter", pvera_adapter_clone(NULL, out));
    NULL_IS("clone", pvera_adapter_clone(w->adapter, NULL));
    NULL_IS("adapter", pvera_adapter_parameters(NULL, PLACE(float *), PLACE(size_t) + 1));
    NULL_IS("parameters", pvera_adapter_parameters(w->adapter, NULL, PLACE(size_t)));
    NULL_IS("count", pvera_adapter_parameters(w->adapter, PLACE(float *), NULL));
    NULL_IS("adapter", pvera_adapter_parameter_count(NULL, PLACE(size_t)));
    NULL_IS("count", pvera_adapter_parameter_count(w->adapter, NULL));
    NULL_IS("adapter", pvera_adapter_adapts(NULL, 0, PLACE(bool)));
    NULL_IS("adapts", pvera_adapter_adapts(w->adapter, 0, NULL));
    NULL_IS("adapter", pvera_adapter_range(NULL, 0, PLACE(pvera_parameter_range)));
    NULL_IS("range", pvera_adapter_range(w->adapter, 0, NULL));
    NULL_IS("adapter", pvera_adapter_config(NULL, PLACE(pvera_config *)));
    NULL_IS("config", pvera_adapter_config(w->adapter, NULL));
    NULL_IS("adapter", pvera_adapter_store(NULL, PLACE(pvera_store *)));
    NULL_IS("store", pvera_adapter_store(w->adapter, NULL));
    NULL_IS("adapter", pvera_adapter_save(NULL, "folder"));
    NULL_IS("folder", pvera_adapter_save(w->adapter, NULL));
    NULL_IS("adapter", pvera_adapter_save_memory(NULL, PLACE(pvera_bytes), PLACE(pvera_bytes) + 1));
    NULL_IS("config", pvera_adapter_save_memory(w->adapter, NULL, PLACE(pvera_bytes)));
    NULL_IS("tensors", pvera_adapter_save_memory(w->adapter, PLACE(pvera_bytes), NULL));
    NULL_IS("adapter", pvera_adapter_tensor_count(NULL, PLACE(size_t)));
    NULL_IS("count", pvera_adapter_tensor_count(w->adapter, NULL));
    NULL_IS("adapter", pvera_adapter_tensor_at(NULL, 0, PLACE(pvera_tensor)));
    NULL_IS("tensor", pvera_adapter_tensor_at(w->adapter, 0, NULL));
    NULL_IS("adapter", pvera_adapter_find_tensor(NULL, "t", PLACE(pvera_tensor)));
    NULL_IS("name", pvera_adapter_find_tensor(w->adapter, NULL, PLACE(pvera_tensor)));
    NULL_IS("tensor", pvera_adapter_find_tensor(w->adapter, "t", NULL));
    NULL_IS("adapter", pvera_adapter_set_tensor(NULL, "t", PVERA_F16, shape, 1, bytes, 2));
    NULL_IS("name", pvera_adapter_set_tensor(w->adapter, NULL, PVERA_F16, shape, 1, bytes, 2));
    NULL_IS("shape", pvera_adapter_set_tensor(w->adapter, "t", PVERA_F16, NULL, 1, bytes, 2));
    NULL_IS("data", pvera_adapter_set_tensor(w->adapter, "t", PVERA_F16, shape, 1, NULL, 2));
}

static void banks(struct world *w) {
    char folder[] = "pvera-null-XXXXXX", path[64];
    if (!CHECK(mkdtemp(folder) != NULL, "mkdtemp")) return;
    snprintf(path, sizeof path, "%s/bank", folder);
    pvera_bank_options options = {.struct_size = sizeof options, .access = PVERA_BANK_CREATE};
    pvera_bank_usage usage = {.struct_size = sizeof usage};
    pvera_bank *bank = NULL;
    const char *names[2] = {"one", NULL};
    const pvera_adapter *pair[2] = {w->adapter, NULL};
    NULL_IS("model", pvera_bank_open(NULL, path, &options, PLACE(pvera_bank *)));
    NULL_IS("path", pvera_bank_open(w->model, NULL, &options, PLACE(pvera_bank *)));
    NULL_IS("bank", pvera_bank_open(w->model, path, &options, NULL));
    CHECK(access(path, F_OK) != 0, "a call that failed made %s", path);
    MUST(pvera_bank_open(w->model, path, &options, &bank));
    NULL_IS("bank", pvera_bank_append(NULL, 1, names, pair, PVERA_F32));
    NULL_IS("names", pvera_bank_append(bank, 1, NULL, pair, PVERA_F32));
    NULL_IS("names[1]", pvera_bank_append(bank, 2, names, pair, PVERA_F32));
    NULL_IS("adapters", pvera_bank_append(bank, 1, names, NULL, PVERA_F32));
    names[1] = "two";
    NULL_IS("adapters[1]", pvera_bank_append(bank, 2, names, pair, PVERA_F32));
    MUST(pvera_bank_append(bank, 1, names, pair, PVERA_F32));
    names[1] = NULL;
    NULL_IS("bank", pvera_bank_remove(NULL, 1, names));
    NULL_IS("names", pvera_bank_remove(bank, 1, NULL));
    NULL_IS("names[1]", pvera_bank_remove(bank, 2, names));
    NULL_IS("bank", pvera_bank_compact(NULL));
    NULL_IS("bank", pvera_bank_refresh(NULL, PLACE(bool)));
    CHECK_OK(pvera_bank_refresh(bank, NULL));
    NULL_IS("bank", pvera_bank_verify(NULL, PLACE(size_t)));
    NULL_IS("damaged", pvera_bank_verify(bank, NULL));
    NULL_IS("bank", pvera_bank_get_usage(NULL, &usage));
    NULL_IS("usage", pvera_bank_get_usage(bank, NULL));
    NULL_IS("bank", pvera_bank_contains(NULL, "one", PLACE(bool)));
    NULL_IS("name", pvera_bank_contains(bank, NULL, PLACE(bool)));
    NULL_IS("contains", pvera_bank_contains(bank, "one", NULL));
    NULL_IS("bank", pvera_bank_name_at(NULL, 0, PLACE(char *)));
    NULL_IS("name", pvera_bank_name_at(bank, 0, NULL));
    NULL_IS("bank", pvera_bank_adapter(NULL, "one", PLACE(pvera_adapter *)));
    NULL_IS("name", pvera_bank_adapter(bank, NULL, PLACE(pvera_adapter *)));
    NULL_IS("adapter", pvera_bank_adapter(bank, "one", NULL));
    int32_t *slots = PLACE(int32_t);
    NULL_IS("bank", pvera_bank_snapshot(NULL, 2, names, slots, PLACE(pvera_snapshot *) + 2));
    NULL_IS("names", pvera_bank_snapshot(bank, 2, NULL, slots, PLACE(pvera_snapshot *) + 2));
    NULL_IS("slots", pvera_bank_snapshot(bank, 2, names, NULL, PLACE(pvera_snapshot *) + 2));
    NULL_IS("snapshot", pvera_bank_snapshot(bank, 2, names, slots, NULL));
    pvera_outline *outline = NULL;
    pvera_outline_info info = {.struct_size = sizeof info};
    NULL_IS("folder", pvera_outline_from_checkpoint(NULL, PLACE(pvera_outline *)));
    NULL_IS("outline", pvera_outline_from_checkpoint("nowhere", NULL));
    NULL_IS("bank", pvera_outline_from_bank(NULL, 0, PLACE(pvera_outline *)));
    NULL_IS("outline", pvera_outline_from_bank(bank, 0, NULL));
    MUST(pvera_outline_from_bank(bank, 0, &outline));
    NULL_IS("outline", pvera_outline_get_info(NULL, &info));
    NULL_IS("info", pvera_outline_get_info(outline, NULL));
    NULL_IS("outline", pvera_outline_config(NULL, PLACE(pvera_config *)));
    NULL_IS("config", pvera_outline_config(outline, NULL));
    NULL_IS("outline", pvera_outline_module(NULL, 0, PLACE(char *), PLACE(size_t) + 1, PLACE(bool) + 16));
    CHECK_OK(pvera_outline_module(outline, 0, NULL, NULL, NULL));
    pvera_outline_free(outline);
    NULL_IS("folder", pvera_checkpoint_check(NULL, NULL, PLACE(bool), PLACE(pvera_dtype) + 1, PLACE(int32_t) + 2));
    CHECK_OK(pvera_bank_append(bank, 0, NULL, NULL, PVERA_F32));
    CHECK_OK(pvera_bank_remove(bank, 0, NULL));
    CHECK_OK(pvera_bank_get_usage(bank, &usage));
    CHECK(usage.adapters == 1, "%zu adapters; the failed calls changed the bank", usage.adapters);
    pvera_bank_free(bank);
    bank = NULL;
    CHECK_OK(pvera_bank_open(w->model, path, NULL, &bank)); /* without options: to read */
    pvera_bank_free(bank);
    remove(path), rmdir(folder);
}

static void linears(struct world *w) {
    float lambda_b[2] = {0}, lambda_d[2 * RANK] = {0};
    pvera_layer layer = {.struct_size = sizeof layer, .name = "new", .in_features = 2, .out_features = 2};
    pvera_linear_vectors vectors = {.struct_size = sizeof vectors, .lambda_b = lambda_b, .lambda_d = lambda_d};
    pvera_linear_vectors no_b = {.struct_size = sizeof no_b, .lambda_d = lambda_d};
    pvera_linear_vectors no_d = {.struct_size = sizeof no_d, .lambda_b = lambda_b};
    pvera_linear **out = PLACE(pvera_linear *);
    NULL_IS("layer", pvera_linear_new(NULL, w->store, NULL, &vectors, out));
    NULL_IS("store", pvera_linear_new(&layer, NULL, NULL, &vectors, out));
    NULL_IS("vectors", pvera_linear_new(&layer, w->store, NULL, NULL, out));
    NULL_IS("lambda_b", pvera_linear_new(&layer, w->store, NULL, &no_b, out));
    NULL_IS("lambda_d", pvera_linear_new(&layer, w->store, NULL, &no_d, out));
    NULL_IS("linear", pvera_linear_new(&layer, w->store, NULL, &vectors, NULL));
    NULL_IS("adapter", pvera_adapter_linear(NULL, 0, out));
    NULL_IS("linear", pvera_adapter_linear(w->adapter, 0, NULL));
}

static void computing(struct world *w) {
    float numbers[ROWS * OUT], more[ROWS * OUT];
    pvera_matrix x = pvera_f32(w->x, ROWS, IN), no_data = pvera_f32(NULL, ROWS, IN);
    pvera_matrix_mut y = pvera_f32_mut(numbers, ROWS, OUT), z = pvera_f32_mut(more, ROWS, OUT);
    pvera_matrix_mut mu = pvera_f32_mut(numbers, ROWS, RANK), logvar = pvera_f32_mut(more, ROWS, RANK);
    pvera_matrix_mut p = pvera_f32_mut(numbers, ROWS, 2 * RANK), nowhere = pvera_f32_mut(NULL, ROWS, OUT);
    pvera_matrix given = pvera_f32(numbers, ROWS, 2 * RANK);
    pvera_rows rows = {.struct_size = sizeof rows, .active_count = 1};
    const pvera_linear *pair[2] = {w->q, NULL};
    pvera_matrix_mut both[2] = {y, z};
    fill(numbers, ROWS * OUT, 5);
    float before[ROWS * OUT];
    memcpy(before, numbers, sizeof before);

    NULL_IS("context", pvera_forward(NULL, w->q, &x, NULL, NULL, NULL, &y));
    NULL_IS("linear", pvera_forward(w->context, NULL, &x, NULL, NULL, NULL, &y));
    NULL_IS("x", pvera_forward(w->context, w->q, NULL, NULL, NULL, NULL, &y));
    NULL_IS("x.data", pvera_forward(w->context, w->q, &no_data, NULL, NULL, NULL, &y));
    NULL_IS("y", pvera_forward(w->context, w->q, &x, NULL, NULL, NULL, NULL));
    NULL_IS("y.data", pvera_forward(w->context, w->q, &x, NULL, NULL, NULL, &nowhere));
    NULL_IS("rows.active", pvera_forward(w->context, w->q, &x, &rows, NULL, NULL, &y));
    NULL_IS("context", pvera_forward_group(NULL, 1, pair, &x, NULL, NULL, NULL, both));
    NULL_IS("linears", pvera_forward_group(w->context, 2, NULL, &x, NULL, NULL, NULL, both));
    NULL_IS("linears[1]", pvera_forward_group(w->context, 2, pair, &x, NULL, NULL, NULL, both));
    NULL_IS("x", pvera_forward_group(w->context, 1, pair, NULL, NULL, NULL, NULL, both));
    NULL_IS("y", pvera_forward_group(w->context, 1, pair, &x, NULL, NULL, NULL, NULL));
    NULL_IS("context", pvera_moments(NULL, w->q, &x, NULL, &y, &z));
    NULL_IS("linear", pvera_moments(w->context, NULL, &x, NULL, &y, &z));
    NULL_IS("x", pvera_moments(w->context, w->q, NULL, NULL, &y, &z));
    NULL_IS("mean", pvera_moments(w->context, w->q, &x, NULL, NULL, &z));
    NULL_IS("variance", pvera_moments(w->context, w->q, &x, NULL, &y, NULL));
    NULL_IS("context", pvera_latent(NULL, w->q, &x, NULL, &mu, &logvar));
    NULL_IS("linear", pvera_latent(w->context, NULL, &x, NULL, &mu, &logvar));
    NULL_IS("x", pvera_latent(w->context, w->q, NULL, NULL, &mu, &logvar));
    NULL_IS("mu", pvera_latent(w->context, w->q, &x, NULL, NULL, &logvar));
    NULL_IS("logvar", pvera_latent(w->context, w->q, &x, NULL, &mu, NULL));
    NULL_IS("context", pvera_sample(NULL, w->q, &x, NULL, NULL, 1, &y));
    NULL_IS("linear", pvera_sample(w->context, NULL, &x, NULL, NULL, 1, &y));
    NULL_IS("x", pvera_sample(w->context, w->q, NULL, NULL, NULL, 1, &y));
    NULL_IS("y", pvera_sample(w->context, w->q, &x, NULL, NULL, 1, NULL));
    NULL_IS("linear", pvera_project_width(NULL, NULL, 1, PLACE(size_t), PLACE(size_t) + 1));
    CHECK_OK(pvera_project_width(w->q, NULL, 1, NULL, NULL));
    NULL_IS("context", pvera_project(NULL, w->q, &x, NULL, NULL, &p));
    NULL_IS("linear", pvera_project(w->context, NULL, &x, NULL, NULL, &p));
    NULL_IS("x", pvera_project(w->context, w->q, NULL, NULL, NULL, &p));
    NULL_IS("p", pvera_project(w->context, w->q, &x, NULL, NULL, NULL));
    NULL_IS("p", pvera_project_part(w->context, w->q, &x, NULL, NULL, NULL, 0, 1));
    NULL_IS("context", pvera_expand(NULL, w->q, &given, NULL, NULL, &z));
    NULL_IS("linear", pvera_expand(w->context, NULL, &given, NULL, NULL, &z));
    NULL_IS("p", pvera_expand(w->context, w->q, NULL, NULL, NULL, &z));
    NULL_IS("y", pvera_expand(w->context, w->q, &given, NULL, NULL, NULL));
    NULL_IS("p", pvera_expand_part(w->context, w->q, NULL, NULL, NULL, &z, 0, 1));
    CHECK_SAME_BITS("an output of a failed call", before, numbers, sizeof before);
}

static void training(struct world *w) {
    float numbers[ROWS * OUT], copy[OUT * IN];
    double kl = 5;
    pvera_tape *tape = NULL;
    pvera_undo *undo = NULL;
    pvera_matrix x = pvera_f32(w->x, ROWS, IN), dy = pvera_f32(numbers, ROWS, OUT);
    pvera_matrix_mut y = pvera_f32_mut(numbers, ROWS, OUT), merged = pvera_f32_mut(copy, OUT, IN);
    pvera_matrix weight = pvera_f32(w->weight, OUT, IN);
    pvera_gradients gradients = {.struct_size = sizeof gradients, .slot_count = 1, .kl_value = &kl};
    NULL_IS("tape", pvera_tape_new(PVERA_TAPE_KEEP_LATENT, NULL, NULL));
    NULL_IS("tape", pvera_tape_bytes(NULL, PLACE(size_t)));
    MUST(pvera_tape_new(PVERA_TAPE_KEEP_LATENT, NULL, &tape));
    NULL_IS("bytes", pvera_tape_bytes(tape, NULL));
    MUST(pvera_forward(w->context, w->q, &x, NULL, NULL, tape, &y));
    NULL_IS("context", pvera_backward(NULL, tape, &dy, NULL, NULL));
    NULL_IS("tape", pvera_backward(w->context, NULL, &dy, NULL, NULL));
    NULL_IS("dy", pvera_backward(w->context, tape, NULL, NULL, NULL));
    NULL_IS("gradients.slots", pvera_backward(w->context, tape, &dy, &gradients, NULL));
    CHECK(kl == 5, "kl_value became %g", kl);
    CHECK_OK(pvera_backward(w->context, tape, &dy, NULL, NULL));
    NULL_IS("context", pvera_backward_group(NULL, tape, 1, &dy, NULL, NULL));
    NULL_IS("tape", pvera_backward_group(w->context, NULL, 1, &dy, NULL, NULL));
    NULL_IS("dy", pvera_backward_group(w->context, tape, 1, NULL, NULL, NULL));
    pvera_tape_free(tape);
    NULL_IS("context", pvera_merge(NULL, w->q, NULL, 0, 0, &weight, &merged, PLACE(pvera_undo *)));
    NULL_IS("linear", pvera_merge(w->context, NULL, NULL, 0, 0, &weight, &merged, PLACE(pvera_undo *)));
    NULL_IS("weight", pvera_merge(w->context, w->q, NULL, 0, 0, NULL, &merged, PLACE(pvera_undo *)));
    NULL_IS("merged", pvera_merge(w->context, w->q, NULL, 0, 0, &weight, NULL, PLACE(pvera_undo *)));
    MUST(pvera_merge(w->context, w->q, NULL, 0, 0, &weight, &merged, &undo));
    NULL_IS("undo", pvera_unmerge(NULL, &merged));
    NULL_IS("weight", pvera_unmerge(undo, NULL));
    pvera_undo_free(undo);
}

static void statistics(void) {
    pvera_statistics *s = NULL;
    const float one[2] = {1, 2};
    const size_t row = 0;
    pvera_matrix values = pvera_f32(one, 1, 2);
    double *out = PLACE(double), *out2 = PLACE(double) + 4;
    MUST(pvera_statistics_new(1, 2, NULL, &s));
    NULL_IS("statistics", pvera_statistics_new(1, 2, NULL, NULL));
    NULL_IS("statistics", pvera_statistics_clear(NULL));
    NULL_IS("statistics", pvera_statistics_add(NULL, &values));
    NULL_IS("values", pvera_statistics_add(s, NULL));
    NULL_IS("statistics", pvera_statistics_add_rows(NULL, 1, &row, &values));
    NULL_IS("rows", pvera_statistics_add_rows(s, 1, NULL, &values));
    NULL_IS("values", pvera_statistics_add_rows(s, 1, &row, NULL));
    MUST(pvera_statistics_add(s, &values));
    MUST(pvera_statistics_add(s, &values));
    NULL_IS("statistics", pvera_statistics_passes(NULL, 1, PLACE(uint32_t)));
    NULL_IS("passes", pvera_statistics_passes(s, 1, NULL));
    NULL_IS("statistics", pvera_statistics_votes(NULL, 2, PLACE(uint32_t)));
    NULL_IS("votes", pvera_statistics_votes(s, 2, NULL));
    NULL_IS("statistics", pvera_statistics_mean(NULL, 2, out));
    NULL_IS("mean", pvera_statistics_mean(s, 2, NULL));
    NULL_IS("statistics", pvera_statistics_variance(NULL, 2, out));
    NULL_IS("variance", pvera_statistics_variance(s, 2, NULL));
    NULL_IS("statistics", pvera_statistics_mean_interval(NULL, 0.95, 2, out, out2));
    NULL_IS("lower", pvera_statistics_mean_interval(s, 0.95, 2, NULL, out));
    NULL_IS("upper", pvera_statistics_mean_interval(s, 0.95, 2, out, NULL));
    NULL_IS("statistics", pvera_statistics_predictive_interval(NULL, 0.95, 2, out, out2));
    NULL_IS("lower", pvera_statistics_predictive_interval(s, 0.95, 2, NULL, out));
    NULL_IS("upper", pvera_statistics_predictive_interval(s, 0.95, 2, out, NULL));
    NULL_IS("statistics", pvera_statistics_mean_probabilities(NULL, 2, out));
    NULL_IS("probabilities", pvera_statistics_mean_probabilities(s, 2, NULL));
    NULL_IS("statistics", pvera_statistics_most_voted(NULL, 1, PLACE(uint32_t)));
    NULL_IS("classes", pvera_statistics_most_voted(s, 1, NULL));
    NULL_IS("statistics", pvera_statistics_most_voted_interval(NULL, 0.95, 1, out, out2));
    NULL_IS("lower", pvera_statistics_most_voted_interval(s, 0.95, 1, NULL, out));
    NULL_IS("upper", pvera_statistics_most_voted_interval(s, 0.95, 1, out, NULL));
    NULL_IS("statistics", pvera_statistics_predictive_entropy(NULL, 1, out));
    NULL_IS("entropy", pvera_statistics_predictive_entropy(s, 1, NULL));
    NULL_IS("statistics", pvera_statistics_mutual_information(NULL, 1, out));
    NULL_IS("information", pvera_statistics_mutual_information(s, 1, NULL));

    pvera_stopping stopping = {.struct_size = sizeof stopping, .error_level = 0.05, .maximum_passes = 64};
    size_t *rows = PLACE(size_t), *count = PLACE(size_t) + 4;
    for (int i = 2; i < 8; ++i) MUST(pvera_statistics_add(s, &values));
    NULL_IS("stopping", pvera_stopping_next_look(NULL, 8, PLACE(uint32_t)));
    NULL_IS("look", pvera_stopping_next_look(&stopping, 8, NULL));
    NULL_IS("stopping", pvera_stopping_undecided(NULL, s, 1, rows, count));
    NULL_IS("statistics", pvera_stopping_undecided(&stopping, NULL, 1, rows, count));
    NULL_IS("rows", pvera_stopping_undecided(&stopping, s, 1, NULL, count));
    NULL_IS("count", pvera_stopping_undecided(&stopping, s, 1, rows, NULL));
    NULL_IS("stopping", pvera_stopping_imprecise(NULL, s, 0.1, 1, rows, count));
    NULL_IS("statistics", pvera_stopping_imprecise(&stopping, NULL, 0.1, 1, rows, count));
    NULL_IS("rows", pvera_stopping_imprecise(&stopping, s, 0.1, 1, NULL, count));
    NULL_IS("count", pvera_stopping_imprecise(&stopping, s, 0.1, 1, rows, NULL));
    pvera_statistics_free(s);

    const double confidence = 0.5;
    const uint8_t correct = 1;
    pvera_bin *bins = PLACE(pvera_bin);
    NULL_IS("confidence", pvera_calibration(1, NULL, &correct, 2, bins, NULL, NULL));
    NULL_IS("correct", pvera_calibration(1, &confidence, NULL, 2, bins, NULL, NULL));
    NULL_IS("bins", pvera_calibration(1, &confidence, &correct, 2, NULL, NULL, NULL));
}

static void noise_and_optimiser(void) {
    pvera_torch_generator *generator = NULL;
    pvera_adamw adamw = pvera_adamw_default();
    float *values = PLACE(float);
    const float gradient = 1;
    NULL_IS("generator", pvera_torch_generator_new(1, NULL));
    MUST(pvera_torch_generator_new(1, &generator));
    NULL_IS("generator", pvera_torch_generator_normals(NULL, 4, values));
    NULL_IS("values", pvera_torch_generator_normals(generator, 4, NULL));
    pvera_torch_generator_free(generator);
    NULL_IS("name", pvera_adapter_identity(NULL, PLACE(uint64_t)));
    NULL_IS("identity", pvera_adapter_identity("one", NULL));
    NULL_IS("layer", pvera_keyed_normals(1, NULL, 2, 3, 4, false, 4, values));
    NULL_IS("values", pvera_keyed_normals(1, "q", 2, 3, 4, false, 4, NULL));
    NULL_IS("options", pvera_adamw_step(NULL, 1, 1, values, &gradient, values + 1, values + 2));
    NULL_IS("parameters", pvera_adamw_step(&adamw, 1, 1, NULL, &gradient, values + 1, values + 2));
    NULL_IS("gradients", pvera_adamw_step(&adamw, 1, 1, values, NULL, values + 1, values + 2));
    NULL_IS("first_moments", pvera_adamw_step(&adamw, 1, 1, values, &gradient, NULL, values + 2));
    NULL_IS("second_moments", pvera_adamw_step(&adamw, 1, 1, values, &gradient, values + 1, NULL));
}

int main(int argc, char **argv) {
    check_begin(argc, argv);
    struct world *world = world_default();
    frees();
    configs(world);
    stores(world);
    models(world);
    adapters(world);
    banks(world);
    linears(world);
    computing(world);
    training(world);
    statistics();
    noise_and_optimiser();
    world_free(world);
    return check_end();
}
