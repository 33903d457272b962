/* Every folder of tests/golden: what PEFT and PyTorch computed, judged on y, delta, mu, logvar and gradients separately. */
#include "safetensors.h"

static const char *golden; /* the folder of the cases */

/* One layer of a case, declared on a model of its own, with an adapter loaded for it. */
struct layer {
    struct tensor weight, bias;
    pvera_model *model;
    pvera_adapter *adapter;
    pvera_linear *linear;
};

struct case_files {
    char folder[512];
    struct archive io, base;
};

struct golden_case {
    const char *name, *modules[4];
    double tolerance;
    int32_t layout;
};

static const struct golden_case cases[] = {
    {"all_bf16", {"q_proj"}, 1e-2, 0},
    {"all_f16", {"q_proj"}, 2e-3, 0},
    {"base_bf16", {"q_proj"}, 1e-2, 0},
    {"base_f16", {"q_proj"}, 2e-3, 0},
    {"bias_all", {"q_proj"}, 1e-6, 0},
    {"bias_and_head", {"q_proj"}, 1e-6, 0},
    {"conv1d", {"c_attn"}, 1e-6, PVERA_WEIGHT_IN_OUT},
    {"dinov2_base_layer", {"query", "value"}, 1e-6, 0},
    {"dropout_step", {"q_proj"}, 1e-6, 0},
    {"mixed_shapes", {"up", "down", "head"}, 1e-6, 0},
    {"sample_at_inference", {"tiny", "wide"}, 1e-6, 0},
    {"seed_only", {"q_proj", "v_proj"}, 1e-6, 0},
    {"train_step", {"q_proj", "v_proj"}, 1e-6, 0},
};
static const double gradient_tolerance = 1e-5;

static void path_of(char *path, size_t size, const char *folder, const char *file) {
    snprintf(path, size, "%s/%s/%s", golden, folder, file);
}

static struct case_files open_case(const char *name) {
    struct case_files files;
    char path[600];
    snprintf(files.folder, sizeof files.folder, "%s/%s", golden, name);
    path_of(path, sizeof path, name, "io.safetensors");
    files.io = archive_open(path);
    path_of(path, sizeof path, name, "base.safetensors");
    files.base = archive_open(path);
    return files;
}

static void close_case(struct case_files *files) { archive_close(&files->io), archive_close(&files->base); }

static struct tensor io(const struct case_files *files, const char *module, const char *name) {
    char end[64];
    snprintf(end, sizeof end, "/%s", name);
    return tensor_read(&files->io, module, end);
}

/* Declares all modules of a case, so that each finds its vectors, and takes the linear of one. */
static struct layer open_layer(const struct golden_case *is, const struct case_files *files, size_t which) {
    struct layer own = {0};
    MUST(pvera_model_new(NULL, &own.model));
    for (size_t i = 0; i < 4 && is->modules[i]; ++i) {
        struct tensor weight = tensor_read(&files->base, is->modules[i], ".weight");
        struct tensor bias = tensor_read(&files->base, is->modules[i], ".bias");
        struct tensor x = io(files, is->modules[i], "x");
        struct tensor base = io(files, is->modules[i], "base");
        pvera_layer layer = {.struct_size = sizeof layer, .name = is->modules[i], .in_features = x.cols};
        layer.out_features = base.present ? base.cols : bias.cols;
        layer.weight_layout = is->layout;
        if (i == which) {
            layer.weight = tensor_matrix(&weight);
            layer.bias = tensor_matrix(&bias);
            own.weight = weight, own.bias = bias;
        } else {
            tensor_free(&weight), tensor_free(&bias);
        }
        tensor_free(&x), tensor_free(&base);
        MUST(pvera_model_declare(own.model, &layer, NULL));
    }
    MUST(pvera_adapter_load(own.model, files->folder, NULL, &own.adapter));
    MUST(pvera_adapter_linear(own.adapter, which, &own.linear));
    return own;
}

static void close_layer(struct layer *layer) {
    pvera_linear_free(layer->linear);
    pvera_adapter_free(layer->adapter);
    pvera_model_free(layer->model);
    tensor_free(&layer->weight), tensor_free(&layer->bias);
}

/* A matrix to be written, of a tensor's shape and element type. */
static pvera_matrix_mut like(const struct tensor *shape) {
    void *data = calloc(shape->count + 1, element_size(shape->dtype));
    pvera_matrix_mut matrix = {data, shape->rows, shape->cols, shape->cols, shape->dtype, {0, 0}};
    return matrix;
}

/* Judges a result and frees it. */
static void judge(const char *what, const pvera_matrix_mut *found, const struct tensor *wanted, double tolerance) {
    size_t count = found->rows * found->cols;
    float *values = malloc((count + 1) * sizeof *values);
    for (size_t i = 0; i < count; ++i) values[i] = to_f32((char *)found->data + i * element_size(found->dtype), found->dtype);
    CHECK_CLOSE(what, values, count, wanted->values, wanted->count, tolerance);
    free(values);
    free(found->data);
}

static void judge_latent(const char *what, const pvera_context *context, const struct layer *layer,
                         const struct case_files *files, const char *module, double tolerance) {
    struct tensor x = io(files, module, "x"), mu = io(files, module, "mu"), logvar = io(files, module, "logvar");
    if (mu.present) {
        pvera_matrix input = tensor_matrix(&x);
        pvera_matrix_mut found_mu = like(&mu), found_logvar = like(&mu);
        CHECK_OK(pvera_latent(context, layer->linear, &input, NULL, &found_mu, &found_logvar));
        char name[220];
        snprintf(name, sizeof name, "%s mu", what);
        judge(name, &found_mu, &mu, tolerance);
        snprintf(name, sizeof name, "%s logvar", what);
        if (logvar.present) judge(name, &found_logvar, &logvar, tolerance);
        else free(found_logvar.data);
    }
    tensor_free(&x), tensor_free(&mu), tensor_free(&logvar);
}

/* y of one mode. A layer without a weight is given the base layer's output to add to. */
static void judge_output(const char *what, const pvera_context *context, const struct layer *layer,
                         const struct case_files *files, const char *module, const char *output, int32_t mode,
                         double tolerance) {
    struct tensor x = io(files, module, "x"), y = io(files, module, output);
    struct tensor base = io(files, module, "base"), eps = io(files, module, "eps");
    if (y.present) {
        pvera_noise noise = {.struct_size = sizeof noise, .mode = mode};
        if (mode != PVERA_MODE_MEAN) noise.eps = tensor_matrix(&eps);
        pvera_matrix input = tensor_matrix(&x);
        pvera_matrix_mut found = like(&y);
        if (!layer->weight.present) memcpy(found.data, base.raw, base.count * element_size(base.dtype));
        CHECK_OK(pvera_forward(context, layer->linear, &input, NULL, &noise, NULL, &found));
        judge(what, &found, &y, tolerance);
    }
    tensor_free(&x), tensor_free(&y), tensor_free(&base), tensor_free(&eps);
}

/* λ_b ∘ (mu Bᵀ) in double, from PEFT's mu and the adapter's own vectors. */
static struct tensor expected_delta(const struct layer *layer, size_t number, const struct tensor *mu) {
    pvera_adapter *copy = NULL;
    pvera_store *store = NULL;
    pvera_matrix a, b;
    pvera_parameter_range at;
    float *parameters = NULL;
    size_t count = 0;
    MUST(pvera_adapter_trainable(layer->adapter, NULL, 0, &copy));
    MUST(pvera_adapter_parameters(copy, &parameters, &count));
    MUST(pvera_adapter_range(copy, number, &at));
    MUST(pvera_adapter_store(copy, &store));
    MUST(pvera_store_matrices(store, &a, &b));
    struct tensor delta = {.present = true, .dtype = {PVERA_DTYPE_FLOAT, 32, 1}, .rows = mu->rows};
    delta.cols = at.lambda_b_count, delta.count = delta.rows * delta.cols;
    delta.values = calloc(delta.count, sizeof(float));
    for (size_t i = 0; i < delta.rows; ++i) {
        for (size_t j = 0; j < delta.cols; ++j) {
            double sum = 0;
            for (size_t k = 0; k < mu->cols; ++k) {
                size_t place = j * b.row_stride + k;
                sum += (double)mu->values[i * mu->cols + k] *
                       to_f32((const char *)b.data + place * element_size(b.dtype), b.dtype);
            }
            delta.values[i * delta.cols + j] = (float)(parameters[at.lambda_b + j] * sum);
        }
    }
    pvera_store_free(store);
    pvera_adapter_free(copy);
    return delta;
}

/* The delta alone: what a layer declared without weight and bias adds to zeros. */
static void judge_delta(const char *what, const pvera_context *context, const struct golden_case *is, size_t number,
                        const struct case_files *files, double tolerance) {
    const char *module = is->modules[number];
    struct tensor x = io(files, module, "x"), mu = io(files, module, "mu");
    bool learns_bias = strncmp(is->name, "bias_", 5) == 0; /* such a layer's base bias is asked for: judged on y */
    if (mu.present && !learns_bias) {
        struct case_files bare = *files;
        bare.base.header = (char *)"{}";
        struct layer layer = open_layer(is, &bare, number);
        struct tensor wanted = expected_delta(&layer, number, &mu);
        pvera_matrix input = tensor_matrix(&x);
        pvera_matrix_mut found = like(&wanted);
        pvera_noise noise = {.struct_size = sizeof noise, .mode = PVERA_MODE_MEAN};
        CHECK_OK(pvera_forward(context, layer.linear, &input, NULL, &noise, NULL, &found));
        judge(what, &found, &wanted, tolerance);
        tensor_free(&wanted);
        close_layer(&layer);
    }
    tensor_free(&x), tensor_free(&mu);
}

/* What a merge adds to a weight of zeros. */
static void judge_merge(const char *what, const pvera_context *context, const struct golden_case *is,
                        const struct layer *layer, const struct case_files *files, const char *module, double tolerance) {
    struct tensor wanted = io(files, module, "delta_weight");
    if (wanted.present) {
        pvera_matrix_mut merged = like(&wanted);
        pvera_matrix zeros = {merged.data, wanted.rows, wanted.cols, wanted.cols, wanted.dtype, {0, 0}};
        CHECK_OK(pvera_merge(context, layer->linear, NULL, 0, is->layout, &zeros, &merged, NULL));
        judge(what, &merged, &wanted, tolerance);
    }
    tensor_free(&wanted);
}

/* The caller's noise is what the config's generator_seed draws. */
static void judge_noise(const struct layer *layer, const struct case_files *files, const char *module) {
    struct tensor eps = io(files, module, "eps");
    if (eps.present) {
        pvera_config *config = NULL;
        pvera_torch_generator *generator = NULL;
        int64_t seed = 0;
        float *values = calloc(eps.count, sizeof *values);
        MUST(pvera_adapter_config(layer->adapter, &config));
        MUST(pvera_config_get_int(config, "generator_seed", &seed));
        MUST(pvera_torch_generator_new((uint64_t)seed, &generator));
        CHECK_OK(pvera_torch_generator_normals(generator, eps.count, values));
        CHECK_CLOSE(module, values, eps.count, eps.values, eps.count, 1e-6);
        pvera_torch_generator_free(generator);
        pvera_config_free(config);
        free(values);
    }
    tensor_free(&eps);
}

static void judge_gradient(const char *what, const float *found, const struct case_files *files, const char *module,
                           const char *name) {
    struct tensor wanted = io(files, module, name);
    if (wanted.present) CHECK_CLOSE(what, found, wanted.count, wanted.values, wanted.count, gradient_tolerance);
    tensor_free(&wanted);
}

/* A training step under one tape policy: y, the gradients of dy, and the KL term with its own. */
static void judge_training(const char *what, const pvera_context *context, const struct layer *layer,
                           const struct case_files *files, const char *module, int32_t policy) {
    struct tensor x = io(files, module, "x"), dy = io(files, module, "dy"), eps = io(files, module, "eps");
    struct tensor mask = io(files, module, "mask"), y = io(files, module, "y_train"), kl = io(files, module, "kl_mean");
    if (dy.present) {
        pvera_tape *tape = NULL;
        pvera_noise noise = {.struct_size = sizeof noise};
        noise.eps = tensor_matrix(&eps), noise.dropout_mask = tensor_matrix(&mask);
        if (!mask.present) memset(&noise.dropout_mask, 0, sizeof noise.dropout_mask);
        pvera_matrix input = tensor_matrix(&x), gradient = tensor_matrix(&dy);
        pvera_matrix_mut found = like(&y), dx = like(&x);
        float *lambda_b = calloc(y.cols, sizeof *lambda_b), *lambda_d = calloc(2 * eps.cols, sizeof *lambda_d);
        pvera_slot_gradients slot = {0, lambda_b, lambda_d, NULL};
        pvera_gradients wanted = {.struct_size = sizeof wanted, .overwrite = PVERA_OVERWRITE_ALL, .slots = &slot};
        wanted.slot_count = 1;
        MUST(pvera_tape_new(policy, NULL, &tape));
        CHECK_OK(pvera_forward(context, layer->linear, &input, NULL, &noise, tape, &found));
        judge(what, &found, &y, 1e-6);
        CHECK_OK(pvera_backward(context, tape, &gradient, &wanted, &dx));
        judge_gradient(what, dx.data, files, module, "dx");
        judge_gradient(what, lambda_b, files, module, "dlambda_b");
        judge_gradient(what, lambda_d, files, module, "dlambda_d");
        if (kl.present) {
            double value = NAN;
            float *zeros = calloc(dy.count, sizeof *zeros);
            gradient = pvera_f32(zeros, dy.rows, dy.cols);
            wanted.kl_weight = 1, wanted.kl_value = &value;
            CHECK_OK(pvera_backward(context, tape, &gradient, &wanted, &dx));
            CHECK(fabs(value - kl.values[0]) <= gradient_tolerance * fabs(kl.values[0]), "kl is %.9g for %.9g", value,
                  kl.values[0]);
            judge_gradient(what, dx.data, files, module, "kl_dx");
            judge_gradient(what, lambda_d, files, module, "kl_dlambda_d");
            free(zeros);
        }
        free(lambda_b), free(lambda_d), free(dx.data);
        pvera_tape_free(tape);
    }
    tensor_free(&x), tensor_free(&dy), tensor_free(&eps), tensor_free(&mask), tensor_free(&y), tensor_free(&kl);
}

static void run_case(const struct golden_case *is, const pvera_context *context) {
    struct case_files files = open_case(is->name);
    for (size_t i = 0; i < 4 && is->modules[i]; ++i) {
        const char *module = is->modules[i];
        char what[200];
        unsigned before = check_state.checks;
        struct layer layer = open_layer(is, &files, i);
        snprintf(what, sizeof what, "%s/%s", is->name, module);
        judge_latent(what, context, &layer, &files, module, is->tolerance);
        judge_output(what, context, &layer, &files, module, "y_mean", PVERA_MODE_MEAN, is->tolerance);
        judge_output(what, context, &layer, &files, module, "y_sample", PVERA_MODE_AS_PEFT, is->tolerance);
        judge_delta(what, context, is, i, &files, is->tolerance);
        judge_merge(what, context, is, &layer, &files, module, is->tolerance);
        judge_noise(&layer, &files, module);
        for (int32_t policy = PVERA_TAPE_KEEP_LATENT; policy <= PVERA_TAPE_RECOMPUTE; ++policy)
            judge_training(what, context, &layer, &files, module, policy);
        close_layer(&layer);
        CHECK(check_state.checks >= before + 5, "%s was hardly judged", what);
    }
    close_case(&files);
}

/* Two adapters on one store: each alone, none, both, and another for each row. */
static void run_two_adapters(const pvera_context *context) {
    struct case_files files = open_case("two_adapters");
    struct tensor weight = tensor_read(&files.base, "q_proj", ".weight"), bias = tensor_read(&files.base, "q_proj", ".bias");
    struct tensor x = io(&files, "q_proj", "x"), none = io(&files, "q_proj", "y_none"), both = io(&files, "q_proj", "y_both");
    struct tensor alone[2] = {io(&files, "q_proj", "y_first"), io(&files, "q_proj", "y_second")};
    const char *names[2] = {"first", "second"};
    pvera_model *model = NULL;
    pvera_snapshot *snapshot = NULL;
    const pvera_linear *linear = NULL;
    pvera_store *stores[2];
    pvera_matrix a[2], b[2];
    int32_t slots[2] = {-5, -5};
    pvera_layer layer = {.struct_size = sizeof layer, .name = "q_proj", .in_features = x.cols, .out_features = none.cols};
    layer.weight = tensor_matrix(&weight), layer.bias = tensor_matrix(&bias);
    MUST(pvera_model_new(NULL, &model));
    MUST(pvera_model_declare(model, &layer, NULL));
    for (int i = 0; i < 2; ++i) {
        char folder[600];
        pvera_adapter *adapter = NULL;
        path_of(folder, sizeof folder, "two_adapters", names[i]);
        MUST(pvera_adapter_load(model, folder, NULL, &adapter));
        MUST(pvera_model_publish(model, names[i], adapter, &slots[i]));
        MUST(pvera_adapter_store(adapter, &stores[i]));
        MUST(pvera_store_matrices(stores[i], &a[i], &b[i]));
        pvera_adapter_free(adapter);
    }
    CHECK(a[0].data == a[1].data && b[0].data == b[1].data, "equal projections are not shared");
    MUST(pvera_model_snapshot(model, &snapshot));
    MUST(pvera_snapshot_linear(snapshot, 0, &linear));
    pvera_matrix input = tensor_matrix(&x);

    pvera_active active[2] = {{slots[0], 1}, {slots[1], 1}};
    for (int i = 0; i < 2; ++i) {
        pvera_rows rows = {.struct_size = sizeof rows, .active = &active[i], .active_count = 1};
        pvera_matrix_mut found = like(&none);
        CHECK_OK(pvera_forward(context, linear, &input, &rows, NULL, NULL, &found));
        judge(names[i], &found, &alone[i], 1e-6);
    }
    pvera_rows rows = {.struct_size = sizeof rows, .active = active, .active_count = 2};
    pvera_matrix_mut found = like(&none);
    CHECK_OK(pvera_forward(context, linear, &input, &rows, NULL, NULL, &found));
    judge("both", &found, &both, 1e-6);

    int32_t *per_row = malloc(x.rows * sizeof *per_row);
    struct tensor mixed = {.present = true, .count = none.count, .values = malloc(none.count * sizeof(float))};
    for (size_t i = 0; i < x.rows; ++i) {
        const struct tensor *from[3] = {&none, &alone[0], &alone[1]};
        const int32_t slot[3] = {-1, slots[0], slots[1]};
        per_row[i] = slot[i % 3];
        memcpy(mixed.values + i * none.cols, from[i % 3]->values + i * none.cols, none.cols * sizeof(float));
    }
    pvera_rows mixed_rows = {.struct_size = sizeof mixed_rows, .slot = per_row};
    found = like(&none);
    CHECK_OK(pvera_forward(context, linear, &input, &mixed_rows, NULL, NULL, &found));
    judge("an adapter for each row", &found, &mixed, 1e-6);
    for (size_t i = 0; i < x.rows; ++i) per_row[i] = -1;
    found = like(&none);
    CHECK_OK(pvera_forward(context, linear, &input, &mixed_rows, NULL, NULL, &found));
    judge("base only", &found, &none, 1e-6);

    free(per_row), tensor_free(&mixed);
    pvera_store_free(stores[0]), pvera_store_free(stores[1]);
    pvera_snapshot_free(snapshot), pvera_model_free(model);
    tensor_free(&weight), tensor_free(&bias), tensor_free(&x), tensor_free(&none), tensor_free(&both);
    tensor_free(&alone[0]), tensor_free(&alone[1]);
    close_case(&files);
}

/* Learned biases of other modules and saved heads are carried and readable. */
static void carried_tensors(void) {
    const char *carried[2][2] = {{"bias_all", "base_model.model.norm.bias"},
                                 {"bias_and_head", "base_model.model.classifier.weight"}};
    for (int i = 0; i < 2; ++i) {
        struct golden_case is = {carried[i][0], {"q_proj"}, 1e-6, 0};
        struct case_files files = open_case(is.name);
        struct layer layer = open_layer(&is, &files, 0);
        char path[600];
        path_of(path, sizeof path, is.name, "adapter_model.safetensors");
        struct archive checkpoint = archive_open(path);
        struct tensor wanted = tensor_read(&checkpoint, carried[i][1], "");
        pvera_tensor found;
        if (CHECK_OK(pvera_adapter_find_tensor(layer.adapter, carried[i][1], &found))) {
            CHECK(found.name_size == strlen(carried[i][1]), "the name has %zu bytes", found.name_size);
            CHECK(found.size == wanted.count * sizeof(float), "%zu bytes for %zu", found.size, wanted.count * sizeof(float));
            CHECK_SAME_BITS(carried[i][1], found.data, wanted.raw, found.size);
        }
        tensor_free(&wanted), archive_close(&checkpoint);
        close_layer(&layer), close_case(&files);
    }
}

/* The tolerance helper can fail. */
static void tolerance(void) {
    const float one[3] = {1, -2, 0.5f}, near[3] = {1, -2, 0.5f + 1e-6f}, far[3] = {1, -2, 0.5f + 1e-5f};
    const float nan[3] = {1, NAN, 0.5f}, infinite[3] = {1, INFINITY, 0.5f}, zeros[3] = {0, 0, 0}, tiny[3] = {0, 0, 1e-30f};
    CHECK(is_close(one, 3, one, 3, 0), "the same");
    CHECK(is_close(near, 3, one, 3, 1e-6), "near");
    CHECK(!is_close(far, 3, one, 3, 1e-6), "far");
    CHECK(!is_close(nan, 3, one, 3, 1e9) && !is_close(one, 3, nan, 3, 1e9) && !is_close(nan, 3, nan, 3, 1e9), "NaN");
    CHECK(!is_close(infinite, 3, infinite, 3, 1e9) && !is_close(one, 3, infinite, 3, 1e9), "infinite");
    CHECK(is_close(zeros, 3, zeros, 3, 0), "zeros");
    CHECK(!is_close(tiny, 3, zeros, 3, 1e9), "a tiny value is not zero");
    CHECK(!is_close(one, 2, one, 3, 1e9) && !is_close(one, 0, one, 0, 1e9), "another shape, or nothing");
    CHECK(to_f32(&(uint16_t){0x3c00}, (pvera_dtype){2, 16, 1}) == 1 && to_f32(&(uint16_t){0xc000}, (pvera_dtype){2, 16, 1}) == -2,
          "f16");
    CHECK(to_f32(&(uint16_t){1}, (pvera_dtype){2, 16, 1}) == 0x1p-24f && to_f32(&(uint16_t){0x3f80}, (pvera_dtype){4, 16, 1}) == 1,
          "f16 subnormal, bf16");
}

int main(int argc, char **argv) {
    check_begin(argc, argv);
    if (argc < 2) return 2;
    golden = argv[1];
    tolerance();
    for (int32_t backend = PVERA_BACKEND_CPU; backend <= PVERA_BACKEND_REFERENCE; ++backend) {
        pvera_context_options options = {.struct_size = sizeof options, .backend = backend};
        pvera_context *context = NULL;
        MUST(pvera_context_new(&options, &context));
        for (size_t i = 0; i < sizeof cases / sizeof *cases; ++i) run_case(&cases[i], context);
        run_two_adapters(context);
        pvera_context_free(context);
    }
    carried_tensors();
    return check_end();
}
