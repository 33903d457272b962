/* Other programs' files: layers declared from a model's files, exports, merges on disk, shrinking, growing; and their errors.
 * What the files hold is checked in Rust (tests/interchange); here, that C gets there, and that options mean what they say. */
#include <sys/stat.h>
#include <unistd.h>

#include "world.h"

static char folder[] = "/tmp/pvera-files-XXXXXX";

static const char *in_folder(const char *name) {
    static char paths[8][300];
    static int next;
    next = (next + 1) % 8;
    snprintf(paths[next], sizeof paths[next], "%s/%s", folder, name);
    return paths[next];
}

static const char *golden_file(const char *golden, const char *name) {
    static char paths[4][600];
    static int next;
    next = (next + 1) % 4;
    snprintf(paths[next], sizeof paths[next], "%s/%s", golden, name);
    return paths[next];
}

static long size_of(const char *path) {
    struct stat data;
    return stat(path, &data) == 0 ? (long)data.st_size : -1;
}

struct heard {
    int warnings, calls, stop_at;
    char stage[100];
};

static void on_warning(void *user, const char *message) {
    (void)message;
    ++((struct heard *)user)->warnings;
}

static int32_t on_progress(void *user, const char *stage, uint64_t done, uint64_t total) {
    struct heard *heard = user;
    CHECK(done <= total, "%llu of %llu", (unsigned long long)done, (unsigned long long)total);
    snprintf(heard->stage, sizeof heard->stage, "%s", stage);
    return ++heard->calls == heard->stop_at;
}

static pvera_files_options listening(struct heard *heard, uint32_t flags) {
    pvera_files_options options = {.struct_size = sizeof options, .flags = flags};
    options.callbacks = (pvera_callbacks){on_warning, on_progress, heard};
    return options;
}

/* An adapter of a golden folder, for layers that are declared from its base. */
static pvera_adapter *declared(pvera_model *model, const char *golden, const char *name) {
    char checkpoint[600], base[700];
    snprintf(checkpoint, sizeof checkpoint, "%s/%s", golden, name);
    snprintf(base, sizeof base, "%s/base.safetensors", checkpoint);
    size_t count = 0;
    pvera_dtype dtype = {9, 9, 9};
    MUST(pvera_model_declare_files(model, checkpoint, base, NULL, &count, &dtype));
    CHECK(count == 2 && dtype.code == PVERA_DTYPE_FLOAT && dtype.bits == 32, "%zu layers of %d bits", count, dtype.bits);
    CHECK_ERROR(pvera_model_declare_files(model, checkpoint, base, NULL, &count, NULL), PVERA_ERROR_EXISTS, "'q_proj' is declared already");
    pvera_adapter *adapter = NULL;
    MUST(pvera_adapter_load(model, checkpoint, NULL, &adapter));
    return adapter;
}

static void layers(pvera_model *model) {
    char *name = NULL;
    size_t in_total = 0, out_total = 0, parameters = 0;
    MUST(pvera_model_layer(model, 1, &name, &in_total, &out_total));
    CHECK(strcmp(name, "v_proj") == 0 && in_total > 0 && out_total > 0, "%s, %zu to %zu", name, in_total, out_total);
    pvera_text_free(name);
    MUST(pvera_model_layer(model, 0, NULL, NULL, &parameters));
    CHECK(parameters > 0, "one output alone");
    CHECK_ERROR(pvera_model_layer(model, 2, &name, NULL, NULL), PVERA_ERROR_NOT_FOUND, "layer number 2 is not declared");
}

static void lora(const pvera_adapter *adapter) {
    struct heard heard = {0};
    pvera_files_options options = listening(&heard, 0);
    MUST(pvera_adapter_export_lora(adapter, in_folder("lora"), NULL));
    long wide = size_of(in_folder("lora/adapter_model.safetensors"));
    options.dtype = PVERA_BF16;
    CHECK_ERROR(pvera_adapter_export_lora(adapter, in_folder("lora"), &options), PVERA_ERROR_EXISTS, "lora/adapter_config.json' exists|wanted");
    options.flags = PVERA_FILES_REPLACE;
    MUST(pvera_adapter_export_lora(adapter, in_folder("lora"), &options));
    long narrow = size_of(in_folder("lora/adapter_model.safetensors"));
    CHECK(narrow > 0 && narrow < wide && heard.calls > 1 && strcmp(heard.stage, "export") == 0, "%ld, %ld bytes, %d calls", wide, narrow, heard.calls);
    options.flags = 8;
    CHECK_ERROR(pvera_adapter_export_lora(adapter, in_folder("lora"), &options), PVERA_ERROR_ARGUMENT, "options.flags is 0x8|wanted");
    options.flags = 0, options.dtype.bits = 8;
    CHECK_ERROR(pvera_adapter_export_lora(adapter, in_folder("lora"), &options), PVERA_ERROR_DTYPE, "options.dtype");
    heard = (struct heard){.stop_at = 1};
    options.dtype = PVERA_F16;
    CHECK_ERROR(pvera_adapter_export_lora(adapter, in_folder("stopped"), &options), PVERA_ERROR_CANCELLED, "export");
    CHECK(size_of(in_folder("stopped")) == -1, "something was left behind");
}

static void gguf(const pvera_adapter *adapter) {
    pvera_gguf_name names[] = {{"q_proj", "blk.0.attn_q.weight"}, {"v_proj", "blk.0.attn_v.weight"}};
    pvera_gguf_options told = {.struct_size = sizeof told, .architecture = "qwen2", .names = names, .name_count = 2};
    MUST(pvera_adapter_export_gguf(adapter, in_folder("a.gguf"), &told, NULL));
    CHECK(size_of(in_folder("a.gguf")) > 0, "no file");
    CHECK_ERROR(pvera_adapter_export_gguf(adapter, in_folder("a.gguf"), &told, NULL), PVERA_ERROR_EXISTS, "a.gguf' exists");
    pvera_files_options options = {.struct_size = sizeof options, .flags = PVERA_FILES_REPLACE};
    MUST(pvera_adapter_export_gguf(adapter, in_folder("a.gguf"), &told, &options));
    told.rope = 3;
    CHECK_ERROR(pvera_adapter_export_gguf(adapter, in_folder("b.gguf"), &told, NULL), PVERA_ERROR_ARGUMENT, "gguf.rope is 3|wanted");
    told.rope = PVERA_ROPE_PERMUTE;
    CHECK_ERROR(pvera_adapter_export_gguf(adapter, in_folder("b.gguf"), &told, NULL), PVERA_ERROR_ARGUMENT, "heads is 0|num_attention_heads");
    told.name_count = 0, told.rope = PVERA_ROPE_KEEP;
    CHECK_ERROR(pvera_adapter_export_gguf(adapter, in_folder("b.gguf"), &told, NULL), PVERA_ERROR_NOT_FOUND, "module 'q_proj' has no tensor name");
    told.architecture = NULL;
    CHECK_ERROR(pvera_adapter_export_gguf(adapter, in_folder("b.gguf"), &told, NULL), PVERA_ERROR_NULL, "gguf.architecture is NULL");
    CHECK_ERROR(pvera_adapter_export_gguf(adapter, in_folder("b.gguf"), NULL, NULL), PVERA_ERROR_NULL, "gguf is NULL");
    CHECK(size_of(in_folder("b.gguf")) == -1, "a failed export left a file");
}

static void merge(const pvera_context *context, const pvera_adapter *adapter, const char *base) {
    struct heard heard = {0};
    pvera_files_options options = listening(&heard, 0);
    MUST(pvera_merge_files(context, adapter, base, in_folder("merged"), &options));
    CHECK(size_of(in_folder("merged/base.safetensors")) == size_of(base), "another size");
    CHECK(heard.calls > 1 && strcmp(heard.stage, "merge") == 0, "%d calls", heard.calls);
    CHECK_ERROR(pvera_merge_files(context, adapter, base, in_folder("merged"), NULL), PVERA_ERROR_EXISTS, "is not empty|wanted");
    options.flags = PVERA_FILES_REPLACE;
    MUST(pvera_merge_files(context, adapter, base, in_folder("merged"), &options));
    options.prefix = "deep.";
    CHECK_ERROR(pvera_merge_files(context, adapter, base, in_folder("other"), &options), PVERA_ERROR_NOT_FOUND, "'deep.q_proj.weight', but 'q_proj.weight'");
    CHECK_ERROR(pvera_merge_files(context, adapter, in_folder("nowhere"), in_folder("other"), NULL), PVERA_ERROR_IO, "nowhere");
    CHECK(size_of(in_folder("other")) == -1, "a failed merge left a folder");
}

static void shrink_and_grow(const char *golden) {
    pvera_dtype dtype = {0};
    size_t in_max = 0;
    const char *checkpoint = golden_file(golden, "train_step");
    MUST(pvera_checkpoint_shrink(checkpoint, in_folder("small"), NULL, &dtype, &in_max));
    CHECK(dtype.bits == 32 && in_max > 0, "%d bits, %zu columns", dtype.bits, in_max);
    long small = size_of(in_folder("small/adapter_model.safetensors"));
    CHECK(small > 0 && small < size_of(golden_file(golden, "train_step/adapter_model.safetensors")), "%ld bytes", small);
    CHECK_ERROR(pvera_checkpoint_shrink(in_folder("small"), in_folder("smaller"), NULL, NULL, NULL), PVERA_ERROR_PROJECTION, "nothing to leave out");
    MUST(pvera_checkpoint_grow(in_folder("small"), in_folder("large"), in_max, 0, NULL));
    pvera_files_options over = {.struct_size = sizeof over, .flags = PVERA_FILES_REPLACE};
    CHECK_ERROR(pvera_checkpoint_grow(in_folder("small"), in_folder("large"), in_max, 0, NULL), PVERA_ERROR_EXISTS, "large/adapter_config.json' exists");
    CHECK_ERROR(pvera_checkpoint_shrink(in_folder("large"), in_folder("large"), NULL, NULL, NULL), PVERA_ERROR_EXISTS, "large/adapter_config.json' exists");
    MUST(pvera_checkpoint_shrink(in_folder("large"), in_folder("large"), &over, NULL, NULL));
    CHECK(size_of(in_folder("large/adapter_model.safetensors")) == small, "grown and shrunken again");
    CHECK_ERROR(pvera_checkpoint_grow(in_folder("small"), in_folder("x"), 0, 0, NULL), PVERA_ERROR_ARGUMENT, "in_max is 0|wanted");
    struct heard heard = {.stop_at = 1};
    pvera_files_options options = listening(&heard, 0);
    CHECK_ERROR(pvera_checkpoint_shrink(checkpoint, in_folder("x"), &options, &dtype, NULL), PVERA_ERROR_CANCELLED, "compare projections");
    CHECK(size_of(in_folder("x")) == -1, "a stop left a folder");
}

static void checks(const char *golden) {
    bool held = false;
    pvera_dtype dtype = {9, 9, 9};
    int32_t grid = 9;
    MUST(pvera_checkpoint_check(golden_file(golden, "train_step"), NULL, &held, &dtype, &grid));
    CHECK(held && dtype.bits == 32 && grid == PVERA_GRID_NONE, "%d, %d bits, grid %d", held, dtype.bits, grid);
    MUST(pvera_checkpoint_check(in_folder("small"), NULL, &held, &dtype, &grid));
    CHECK(!held && dtype.bits == 0 && dtype.lanes == 0 && grid == PVERA_GRID_NONE, "%d, %d bits, grid %d", held, dtype.bits, grid);
    CHECK_OK(pvera_checkpoint_check(golden_file(golden, "train_step"), NULL, NULL, NULL, NULL));
    struct heard heard = {.stop_at = 1};
    pvera_files_options options = listening(&heard, 0);
    CHECK_ERROR(pvera_checkpoint_check(golden_file(golden, "train_step"), &options, &held, NULL, NULL), PVERA_ERROR_CANCELLED, "compare projections");
    CHECK_ERROR(pvera_checkpoint_check(in_folder("nowhere"), NULL, &held, NULL, NULL), PVERA_ERROR_IO, "nowhere");

    /* The same with another key, and with projections on the grid. */
    pvera_model *model = NULL;
    pvera_store *store = NULL;
    pvera_config *config = NULL;
    pvera_adapter *adapter = NULL;
    pvera_layer layer = {.struct_size = sizeof layer, .name = "q", .in_features = 8, .out_features = 6};
    pvera_store_options sizes = {.struct_size = sizeof sizes, .rank = 4, .in_max = 8, .out_max = 6, .grid = PVERA_GRID_INT8};
    MUST(pvera_model_new(NULL, &model));
    MUST(pvera_model_declare(model, &layer, NULL));
    MUST(pvera_config_new(&config));
    MUST(pvera_config_set_int(config, "r", 4));
    MUST(pvera_config_set_int(config, "projection_prng_key", 5));
    MUST(pvera_config_set_json(config, "target_modules", "[\"q\"]"));
    for (uint64_t key = 5; key < 7; ++key) {
        MUST(pvera_store_from_key(key, &sizes, &store));
        MUST(pvera_adapter_new(model, config, store, NULL, &adapter));
        MUST(pvera_adapter_save(adapter, in_folder("drawn")));
        held = false, grid = 9;
        pvera_error *error = pvera_checkpoint_check(in_folder("drawn"), NULL, &held, &dtype, &grid);
        if (key == 5) {
            CHECK_OK(error);
            CHECK(held && dtype.bits == 32 && grid == PVERA_GRID_INT8, "%d, %d bits, grid %d", held, dtype.bits, grid);
        } else {
            CHECK_ERROR(error, PVERA_ERROR_PROJECTION, "not those of projection_prng_key 5");
            CHECK(!held && grid == 9, "an output was written");
        }
        pvera_adapter_free(adapter), pvera_store_free(store);
    }
    pvera_config_free(config), pvera_model_free(model);
}

static void outlines(const char *golden) {
    pvera_outline *outline = NULL;
    pvera_outline_info info = {.struct_size = sizeof info};
    MUST(pvera_outline_from_checkpoint(golden_file(golden, "bias_and_head"), &outline));
    MUST(pvera_outline_get_info(outline, &info));
    CHECK(info.modules == 1 && info.adapters == 1 && info.tensors == 2, "%zu modules, %zu adapters, %zu tensors", info.modules, info.adapters,
          info.tensors);
    CHECK(info.holds_projections == 1 && info.in_max > 0 && info.out_max > 0, "%zu, %zu", info.in_max, info.out_max);

    /* What a declaration from the model's files says of the same. */
    pvera_model *model = NULL;
    pvera_config *config = NULL;
    MUST(pvera_model_new(NULL, &model));
    MUST(pvera_model_declare_files(model, golden_file(golden, "bias_and_head"), golden_file(golden, "bias_and_head/base.safetensors"), NULL, NULL, NULL));
    for (size_t i = 0; i < info.modules; ++i) {
        char *path = NULL, *name = NULL;
        size_t out_features = 0, out_total = 0;
        bool learns_bias = false;
        MUST(pvera_outline_module(outline, i, &path, &out_features, &learns_bias));
        MUST(pvera_model_layer(model, i, &name, NULL, &out_total));
        CHECK(strcmp(path, name) == 0 && out_features == out_total && learns_bias, "%s of %zu, %d", path, out_features, learns_bias);
        pvera_text_free(path), pvera_text_free(name);
    }
    CHECK_ERROR(pvera_outline_module(outline, 1, NULL, NULL, NULL), PVERA_ERROR_NOT_FOUND, "module 1|outline's 1");
    MUST(pvera_outline_config(outline, &config));
    pvera_outline_free(outline);
    char *bias = NULL;
    MUST(pvera_config_get_text(config, "bias", &bias));
    CHECK(strcmp(bias, "none") != 0, "the bias is %s", bias);
    pvera_text_free(bias), pvera_config_free(config), pvera_model_free(model);

    MUST(pvera_outline_from_checkpoint(in_folder("small"), &outline));
    info.struct_size = offsetof(pvera_outline_info, holds_projections), info.holds_projections = 7;
    MUST(pvera_outline_get_info(outline, &info));
    CHECK(info.in_max == 0 && info.out_max == 0 && info.holds_projections == 7, "%zu, %zu", info.in_max, info.out_max);
    info.struct_size = sizeof info;
    MUST(pvera_outline_get_info(outline, &info));
    CHECK(info.holds_projections == 0 && info.reserved == 0, "a shrunken one holds projections");
    CHECK(info.base_dtype.bits == 0 && info.grid == 0, "a checkpoint says how its key's projections are rounded");
    pvera_outline_free(outline), outline = NULL;
    CHECK_ERROR(pvera_outline_from_checkpoint(in_folder("nowhere"), &outline), PVERA_ERROR_IO, "nowhere");
    CHECK_ERROR(pvera_outline_from_checkpoint("", &outline), PVERA_ERROR_ARGUMENT, "folder is empty");
    CHECK(outline == NULL, "an output was written");
}

static void import(const char *base) {
    pvera_authors_options authors = {.struct_size = sizeof authors};
    CHECK_ERROR(pvera_import_authors(base, in_folder("x"), &authors, NULL), PVERA_ERROR_FORMAT, "heads.adapter_qd");
    authors.alpha = HUGE_VAL;
    CHECK_ERROR(pvera_import_authors(base, in_folder("x"), &authors, NULL), PVERA_ERROR_ARGUMENT, "authors.alpha is inf");
    CHECK_ERROR(pvera_import_authors(NULL, in_folder("x"), NULL, NULL), PVERA_ERROR_NULL, "file is NULL");
    CHECK_ERROR(pvera_import_authors(base, "", NULL, NULL), PVERA_ERROR_ARGUMENT, "out is empty");
}

/* What GGUF does not hold is an error, or a warning where that was asked for. */
static void left_out(const char *golden) {
    pvera_model *model = NULL;
    MUST(pvera_model_new(NULL, &model));
    const char *checkpoint = golden_file(golden, "bias_and_head"), *base = golden_file(golden, "bias_and_head/base.safetensors");
    MUST(pvera_model_declare_files(model, checkpoint, base, NULL, NULL, NULL));
    pvera_adapter *adapter = NULL;
    MUST(pvera_adapter_load(model, checkpoint, NULL, &adapter));
    pvera_gguf_name name = {"q_proj", "blk.0.attn_v.weight"};
    pvera_gguf_options told = {.struct_size = sizeof told, .architecture = "gemma", .names = &name, .name_count = 1};
    CHECK_ERROR(pvera_adapter_export_gguf(adapter, in_folder("bias.gguf"), &told, NULL), PVERA_ERROR_UNSUPPORTED, "learned a bias");
    struct heard heard = {0};
    pvera_files_options options = listening(&heard, PVERA_FILES_LEAVE_OUT);
    MUST(pvera_adapter_export_gguf(adapter, in_folder("bias.gguf"), &told, &options));
    CHECK(heard.warnings >= 2, "%d warnings", heard.warnings);
    pvera_adapter_free(adapter);
    pvera_model_free(model);
}

int main(int argc, char **argv) {
    check_begin(argc, argv);
    const char *golden = argv[1];
    if (!mkdtemp(folder)) return 1;
    pvera_model *model = NULL;
    pvera_context *context = NULL;
    MUST(pvera_model_new(NULL, &model));
    MUST(pvera_context_new(NULL, &context));
    pvera_adapter *adapter = declared(model, golden, "seed_only");
    layers(model);
    lora(adapter);
    gguf(adapter);
    merge(context, adapter, golden_file(golden, "seed_only/base.safetensors"));
    shrink_and_grow(golden);
    checks(golden);
    outlines(golden);
    import(golden_file(golden, "seed_only/base.safetensors"));
    left_out(golden);
    pvera_adapter_free(adapter);
    pvera_context_free(context);
    pvera_model_free(model);
    char command[64];
    snprintf(command, sizeof command, "rm -r %s", folder);
    CHECK(system(command) == 0, "%s", command);
    return check_end();
}
