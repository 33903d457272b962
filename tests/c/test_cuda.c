/* The CUDA backend through the ABI, over a libcuda: a driver's on a machine with a GPU, or a double's.
 *
 *     c_cuda works             an engine's step: the CPU's bits, the engine's context left current, graphs, training
 *     c_cuda refused TEXT      pvera_context_new is refused with a sentence that holds the words of TEXT, a|b|c */
#include "cuda_driver.h"
#include "numbers.h"

enum { IN = 300, OUT = 70, RANK = 8, ROWS = 9 };

/* One standalone layer on the CPU, and the same on the device. */
struct layers {
    float x[ROWS * IN], weight[OUT * IN], lambda_b[OUT], lambda_d[2 * RANK], dy[ROWS * OUT];
    address x_there, weight_there, lambda_b_there, lambda_d_there, dy_there, y_there;
    pvera_store *store;
    pvera_linear *here, *there;
};

static const pvera_device gpu = {PVERA_DEVICE_CUDA, 0};

static pvera_matrix matrix_there(address at, size_t rows, size_t cols) {
    pvera_matrix matrix = pvera_f32((const float *)(uintptr_t)at, rows, cols);
    matrix.device = gpu;
    return matrix;
}

static pvera_matrix_mut place_there(address at, size_t rows, size_t cols) {
    pvera_matrix_mut matrix = pvera_f32_mut((float *)(uintptr_t)at, rows, cols);
    matrix.device = gpu;
    return matrix;
}

static pvera_linear *linear_of(struct layers *layers, pvera_matrix weight, const float *lambda_b, const float *lambda_d,
                               pvera_device device) {
    pvera_linear *linear = NULL;
    pvera_layer layer = {.struct_size = sizeof layer, .name = "layer", .in_features = IN, .out_features = OUT};
    layer.weight = weight;
    pvera_linear_vectors vectors = {.struct_size = sizeof vectors, .lambda_b = lambda_b, .lambda_d = lambda_d};
    vectors.device = device;
    MUST(pvera_linear_new(&layer, layers->store, NULL, &vectors, &linear));
    return linear;
}

static void layers_make(struct layers *layers, const struct cuda *cuda) {
    pvera_store_options options = {.struct_size = sizeof options, .rank = RANK, .in_max = IN, .out_max = OUT};
    MUST(pvera_store_from_key(7, &options, &layers->store));
    fill(layers->x, ROWS * IN, 1), fill(layers->weight, OUT * IN, 2), fill(layers->lambda_b, OUT, 3);
    fill(layers->lambda_d, 2 * RANK, 4), fill(layers->dy, ROWS * OUT, 5);
    layers->x_there = cuda_upload(cuda, layers->x, sizeof layers->x);
    layers->weight_there = cuda_upload(cuda, layers->weight, sizeof layers->weight);
    layers->lambda_b_there = cuda_upload(cuda, layers->lambda_b, sizeof layers->lambda_b);
    layers->lambda_d_there = cuda_upload(cuda, layers->lambda_d, sizeof layers->lambda_d);
    layers->dy_there = cuda_upload(cuda, layers->dy, sizeof layers->dy);
    layers->y_there = cuda_upload(cuda, layers->dy, sizeof layers->dy);
    pvera_device host = {0};
    layers->here = linear_of(layers, pvera_f32(layers->weight, OUT, IN), layers->lambda_b, layers->lambda_d, host);
    layers->there = linear_of(layers, matrix_there(layers->weight_there, OUT, IN),
                              (const float *)(uintptr_t)layers->lambda_b_there,
                              (const float *)(uintptr_t)layers->lambda_d_there, gpu);
}

static void layers_free(struct layers *layers, const struct cuda *cuda) {
    pvera_linear_free(layers->here);
    pvera_linear_free(layers->there);
    pvera_store_free(layers->store);
    const address all[] = {layers->x_there,        layers->weight_there, layers->lambda_b_there,
                           layers->lambda_d_there, layers->dy_there,     layers->y_there};
    for (size_t i = 0; i < sizeof all / sizeof *all; ++i) cuda_free(cuda, all[i]);
}

static pvera_noise sampled(uint64_t seed) {
    pvera_noise noise = {.struct_size = sizeof noise, .mode = PVERA_MODE_SAMPLE, .seed = seed};
    return noise;
}

/* What the CPU gives for a seed. */
static void wanted_for(const struct layers *layers, uint64_t seed, float *y_values) {
    pvera_context *cpu = NULL;
    pvera_noise noise = sampled(seed);
    pvera_matrix x = pvera_f32(layers->x, ROWS, IN);
    pvera_matrix_mut y = pvera_f32_mut(y_values, ROWS, OUT);
    MUST(pvera_context_new(NULL, &cpu));
    MUST(pvera_forward(cpu, layers->here, &x, NULL, &noise, NULL, &y));
    pvera_context_free(cpu);
}

static void forward_has_the_cpus_bits(const pvera_context *context, const struct layers *layers, const struct cuda *cuda) {
    float wanted[ROWS * OUT], found[ROWS * OUT];
    pvera_noise noise = sampled(11);
    pvera_matrix x = matrix_there(layers->x_there, ROWS, IN);
    pvera_matrix_mut y = place_there(layers->y_there, ROWS, OUT);
    MUST(pvera_forward(context, layers->there, &x, NULL, &noise, NULL, &y));
    CHECK(cuda_is_current(cuda), "the engine's context is no longer current");
    CHECK_OK(pvera_context_check(context));
    cuda_download(cuda, found, layers->y_there, sizeof found);
    wanted_for(layers, 11, wanted);
    CHECK_SAME_BITS("y", found, wanted, sizeof found);
    pvera_matrix x_here = pvera_f32(layers->x, ROWS, IN);
    CHECK_ERROR(pvera_forward(context, layers->there, &x_here, NULL, &noise, NULL, &y), PVERA_ERROR_DEVICE,
                "x is on the CPU|computes on CUDA device 0");
    CHECK_ERROR(pvera_forward(context, layers->here, &x, NULL, &noise, NULL, &y), PVERA_ERROR_DEVICE,
                "the base weight|is on the CPU|computes on CUDA device 0");
    size_t bytes = 0;
    CHECK_ERROR(pvera_linear_pack_base(layers->there, PVERA_PACK_FORWARD), PVERA_ERROR_DEVICE,
                "the base weight of layer 'layer' is on CUDA device 0|CPU is packed");
    CHECK_ERROR(pvera_linear_packed_base_bytes(layers->there, PVERA_PACK_FORWARD, &bytes), PVERA_ERROR_DEVICE, "base weight");
    pvera_rows rows = {.struct_size = sizeof rows, .device = {PVERA_DEVICE_CUDA, 3}};
    CHECK_ERROR(pvera_forward(context, layers->there, &x, &rows, &noise, NULL, &y), PVERA_ERROR_DEVICE,
                "rows.device is CUDA device 3|computes on CUDA device 0");
    pvera_matrix_mut p = place_there(layers->y_there, ROWS, 2 * RANK);
    CHECK_ERROR(pvera_project_part(context, layers->there, &x, NULL, NULL, &p, 0, 2), PVERA_ERROR_UNSUPPORTED,
                "count is 2|wanted 1");
}

/* Slots, identities and samples that are read when the work runs, of the one adapter of a standalone layer. */
static void rows_in_device_memory(const pvera_context *context, const struct layers *layers, const struct cuda *cuda) {
    float wanted[ROWS * OUT], found[ROWS * OUT];
    int32_t slot[ROWS] = {0, -1, 0, 0, -1, 0, 0, 0, -1};
    uint64_t identity[ROWS] = {5, 4, 3, 2, 1, 0, 1ull << 40, 7, 8};
    uint32_t sample[ROWS] = {0, 1, 0, 9, 2, 2, 0, 0, 1};
    pvera_rows rows = {.struct_size = sizeof rows, .slot = slot, .identity = identity, .sample = sample};
    pvera_noise noise = sampled(11);
    pvera_context *cpu = NULL;
    pvera_matrix x_here = pvera_f32(layers->x, ROWS, IN), x = matrix_there(layers->x_there, ROWS, IN);
    pvera_matrix_mut y_here = pvera_f32_mut(wanted, ROWS, OUT), y = place_there(layers->y_there, ROWS, OUT);
    MUST(pvera_context_new(NULL, &cpu));
    MUST(pvera_forward(cpu, layers->here, &x_here, &rows, &noise, NULL, &y_here));
    pvera_context_free(cpu);
    const address all[] = {cuda_upload(cuda, slot, sizeof slot), cuda_upload(cuda, identity, sizeof identity),
                           cuda_upload(cuda, sample, sizeof sample)};
    pvera_rows there = {.struct_size = sizeof there, .device = gpu};
    there.slot = (const int32_t *)(uintptr_t)all[0], there.identity = (const uint64_t *)(uintptr_t)all[1];
    there.sample = (const uint32_t *)(uintptr_t)all[2];
    MUST(pvera_forward(context, layers->there, &x, &there, &noise, NULL, &y));
    CHECK_OK(pvera_context_check(context));
    cuda_download(cuda, found, layers->y_there, sizeof found);
    CHECK_SAME_BITS("y of rows in device memory", found, wanted, sizeof found);
    /* What a tape refuses leaves it its forward. */
    pvera_tape *tape = NULL;
    pvera_matrix dy = matrix_there(layers->dy_there, ROWS, OUT);
    pvera_gradients nothing = {.struct_size = sizeof nothing};
    MUST(pvera_tape_new(PVERA_TAPE_KEEP_DELTA, NULL, &tape));
    MUST(pvera_forward(context, layers->there, &x, NULL, &noise, tape, &y));
    CHECK_ERROR(pvera_forward(context, layers->there, &x, &there, &noise, tape, &y), PVERA_ERROR_UNSUPPORTED,
                "rows.slot is in device memory|wanted slots on the host");
    CHECK_OK(pvera_backward(context, tape, &dy, &nothing, NULL));
    pvera_tape_free(tape);
    for (size_t i = 0; i < sizeof all / sizeof *all; ++i) cuda_free(cuda, all[i]);
}

/* More rows than a grid has are refused before memory is taken for them. */
static void too_many_draws(const pvera_context *context, const struct layers *layers) {
    size_t before = 0, after = 0;
    pvera_noise noise = sampled(1);
    pvera_matrix x = matrix_there(layers->x_there, 1, IN);
    pvera_matrix_mut y = place_there((address)1 << 60, 4194241, OUT); /* nobody looks there */
    CHECK_OK(pvera_context_scratch_bytes(context, &before));
    CHECK_ERROR(pvera_sample(context, layers->there, &x, NULL, &noise, 4194241, &y), PVERA_ERROR_UNSUPPORTED,
                "4194241 rows times draws|at most 4194240");
    CHECK_OK(pvera_context_scratch_bytes(context, &after));
    CHECK(after == before, "%zu bytes of scratch became %zu", before, after);
}

/* A driver that is not ready is asked again. */
static void not_ready_and_then_ready(const struct cuda *cuda) {
    pvera_context *context = NULL;
    pvera_context_options options = {.struct_size = sizeof options, .backend = PVERA_BACKEND_CUDA, .stream = cuda->stream};
    int (*set)(const char *, uint64_t) = NULL;
    void *found = dlsym(cuda->library, "pvera_double_set");
    memcpy(&set, &found, sizeof set);
    if (!set || set("PVERA_DOUBLE_CODE=cuInit", 802) != 0) return; /* a real driver, or the double that cannot */
    CHECK_ERROR(pvera_context_new(&options, &context), PVERA_ERROR_CUDA, "cuInit returned 802");
    set("PVERA_DOUBLE_CODE=", 0);
    MUST(pvera_context_new(&options, &context));
    pvera_context_free(context);
}

/* cudaStreamLegacy belongs to the context that is current. */
static void the_legacy_stream(const struct cuda *cuda) {
    pvera_context *context = NULL;
    pvera_context_options options = {.struct_size = sizeof options, .backend = PVERA_BACKEND_CUDA, .stream = (void *)1};
    void *popped = NULL;
    CUDA(cuda, "cuCtxPopCurrent_v2", (void **), &popped);
    CHECK_ERROR(pvera_context_new(&options, &context), PVERA_ERROR_ARGUMENT,
                "options.stream is cudaStreamLegacy|no CUDA context is current|wanted NULL");
    CUDA(cuda, "cuCtxPushCurrent_v2", (void *), popped);
    MUST(pvera_context_new(&options, &context));
    pvera_context_free(context);
}

/* Captured once, replayed with the seed that lies in device memory then. */
static void a_graph_takes_new_seeds(const pvera_context *context, const struct layers *layers, const struct cuda *cuda) {
    float wanted[ROWS * OUT], found[ROWS * OUT];
    uint64_t seed = 0;
    address seed_there = cuda_upload(cuda, &seed, sizeof seed);
    pvera_noise noise = sampled(0);
    noise.seed_at = (const uint64_t *)(uintptr_t)seed_there;
    pvera_matrix x = matrix_there(layers->x_there, ROWS, IN);
    pvera_matrix_mut y = place_there(layers->y_there, ROWS, OUT);
    void *graph = NULL, *exec = NULL;
    CUDA(cuda, "cuStreamBeginCapture_v2", (void *, int), cuda->stream, 0);
    MUST(pvera_forward(context, layers->there, &x, NULL, &noise, NULL, &y));
    CUDA(cuda, "cuStreamEndCapture", (void *, void **), cuda->stream, &graph);
    CUDA(cuda, "cuGraphInstantiateWithFlags", (void **, void *, unsigned long long), &exec, graph, 0);
    CUDA(cuda, "cuGraphDestroy", (void *), graph);
    for (seed = 1; seed < 4; ++seed) {
        CUDA(cuda, "cuMemcpyHtoDAsync_v2", (address, const void *, size_t, void *), seed_there, &seed, sizeof seed,
             cuda->stream);
        CUDA(cuda, "cuGraphLaunch", (void *, void *), exec, cuda->stream);
        cuda_download(cuda, found, layers->y_there, sizeof found);
        wanted_for(layers, seed, wanted);
        CHECK_SAME_BITS("y of a replay", found, wanted, sizeof found);
    }
    CUDA(cuda, "cuGraphExecDestroy", (void *), exec);
    cuda_free(cuda, seed_there);
}

/* dλ_b and dλ_d of a step, on the CPU or on the device. */
static void gradients_of(const pvera_context *context, const pvera_linear *linear, pvera_matrix x, pvera_matrix dy,
                         pvera_matrix_mut y, float *lambda_b, float *lambda_d) {
    pvera_tape *tape = NULL;
    pvera_noise noise = sampled(3);
    pvera_slot_gradients slot = {.slot = 0, .lambda_b = lambda_b, .lambda_d = lambda_d};
    pvera_gradients gradients = {.struct_size = sizeof gradients, .overwrite = PVERA_OVERWRITE_ALL};
    gradients.slots = &slot, gradients.slot_count = 1, gradients.kl_weight = 0.5;
    MUST(pvera_tape_new(PVERA_TAPE_KEEP_DELTA, NULL, &tape));
    MUST(pvera_forward(context, linear, &x, NULL, &noise, tape, &y));
    MUST(pvera_backward(context, tape, &dy, &gradients, NULL));
    pvera_tape_free(tape);
}

static void training_has_the_cpus_bits(const pvera_context *context, const struct layers *layers, const struct cuda *cuda) {
    float wanted[OUT + 2 * RANK], found[OUT + 2 * RANK] = {0}, y[ROWS * OUT];
    pvera_context *cpu = NULL;
    MUST(pvera_context_new(NULL, &cpu));
    gradients_of(cpu, layers->here, pvera_f32(layers->x, ROWS, IN), pvera_f32(layers->dy, ROWS, OUT),
                 pvera_f32_mut(y, ROWS, OUT), wanted, wanted + OUT);
    pvera_context_free(cpu);
    address there = cuda_upload(cuda, found, sizeof found);
    float *place = (float *)(uintptr_t)there;
    gradients_of(context, layers->there, matrix_there(layers->x_there, ROWS, IN), matrix_there(layers->dy_there, ROWS, OUT),
                 place_there(layers->y_there, ROWS, OUT), place, place + OUT);
    cuda_download(cuda, found, there, sizeof found);
    CHECK_SAME_BITS("gradients", found, wanted, sizeof found);
    cuda_free(cuda, there);
}

/* A published adapter's vectors are copied; a trainable one's parameters live on the device; a save reads them back. */
static void adapters(const pvera_context *context, const struct cuda *cuda) {
    pvera_model *model = NULL;
    pvera_config *config = NULL;
    pvera_adapter *adapter = NULL, *moved = NULL;
    float *parameters = NULL;
    size_t count = 0;
    pvera_layer layer = {.struct_size = sizeof layer, .name = "q", .in_features = IN, .out_features = OUT};
    MUST(pvera_model_new(NULL, &model));
    MUST(pvera_model_declare(model, &layer, NULL));
    MUST(pvera_config_new(&config));
    MUST(pvera_config_set_int(config, "r", RANK));
    MUST(pvera_config_set_json(config, "target_modules", "[\"q\"]"));
    MUST(pvera_adapter_new(model, config, NULL, NULL, &adapter));
    MUST(pvera_adapter_parameters(adapter, &parameters, &count));
    fill(parameters, count, 9);
    address memory = cuda_upload(cuda, parameters, count * sizeof *parameters);
    float *there = (float *)(uintptr_t)memory;
    pvera_context *cpu = NULL;
    MUST(pvera_context_new(NULL, &cpu));
    CHECK_ERROR(pvera_adapter_trainable_on(adapter, cpu, there, count, &moved), PVERA_ERROR_UNSUPPORTED,
                "the context computes on the CPU|wanted|CUDA");
    CHECK_ERROR(pvera_adapter_trainable_on(adapter, context, there, count - 1, &moved), PVERA_ERROR_SHAPE,
                "count is|wanted");
    CHECK_OK(pvera_context_check(cpu));
    MUST(pvera_adapter_trainable_on(adapter, context, there, count, &moved));
    pvera_bytes config_bytes = {0}, here_bytes = {0}, there_bytes = {0};
    MUST(pvera_adapter_save_memory(adapter, &config_bytes, &here_bytes));
    pvera_bytes_free(&config_bytes);
    MUST(pvera_adapter_save_memory(moved, &config_bytes, &there_bytes));
    bool same = here_bytes.size == there_bytes.size && memcmp(here_bytes.data, there_bytes.data, here_bytes.size) == 0;
    CHECK(same, "a save of parameters on the device differs");
    pvera_bytes_free(&config_bytes);
    pvera_bytes_free(&here_bytes);
    pvera_bytes_free(&there_bytes);
    pvera_context_free(cpu);
    pvera_adapter_free(moved);
    cuda_free(cuda, memory);
    pvera_adapter_free(adapter);
    pvera_config_free(config);
    pvera_model_free(model);
}

static void works(void) {
    struct cuda cuda = cuda_open();
    not_ready_and_then_ready(&cuda);
    the_legacy_stream(&cuda);
    struct layers *layers = calloc(1, sizeof *layers);
    pvera_context *context = NULL;
    pvera_context_options options = {.struct_size = sizeof options, .backend = PVERA_BACKEND_CUDA, .stream = cuda.stream};
    options.device = (pvera_device){PVERA_DEVICE_CUDA, 5};
    CHECK_ERROR(pvera_context_new(&options, &context), PVERA_ERROR_ARGUMENT,
                "options.device.id is 5|options.stream belongs to device 0");
    options.device = gpu, options.threads = 1;
    CHECK_ERROR(pvera_context_new(&options, &context), PVERA_ERROR_ARGUMENT, "options.threads|CUDA");
    options.threads = 0, options.stream = (void *)2;
    CHECK_ERROR(pvera_context_new(&options, &context), PVERA_ERROR_ARGUMENT, "options.stream is cudaStreamPerThread|wanted");
    options.stream = cuda.stream, options.products = PVERA_PRODUCTS_BF16;
    CHECK_ERROR(pvera_context_new(&options, &context), PVERA_ERROR_UNSUPPORTED, "options.products is 1|CUDA");
    options.products = PVERA_PRODUCTS_F32;
    MUST(pvera_context_new(&options, &context));
    CHECK(cuda_is_current(&cuda), "the engine's context is no longer current");
    layers_make(layers, &cuda);
    forward_has_the_cpus_bits(context, layers, &cuda);
    rows_in_device_memory(context, layers, &cuda);
    too_many_draws(context, layers);
    a_graph_takes_new_seeds(context, layers, &cuda);
    training_has_the_cpus_bits(context, layers, &cuda);
    adapters(context, &cuda);
    layers_free(layers, &cuda);
    pvera_context_free(context);
    context = NULL;
    /* The default stream of the primary context, which is what most programs use. */
    options.stream = NULL;
    MUST(pvera_context_new(&options, &context));
    layers_make(layers, &cuda);
    forward_has_the_cpus_bits(context, layers, &cuda);
    pvera_context_free(context);
    layers_free(layers, &cuda);
    free(layers);
    cuda_close(&cuda);
}

static void refused(const char *words) {
    pvera_context *context = NULL;
    pvera_context_options options = {.struct_size = sizeof options, .backend = PVERA_BACKEND_CUDA};
    pvera_error *error = pvera_context_new(&options, &context);
    int32_t code = pvera_error_code(error);
    CHECK(code == PVERA_ERROR_UNSUPPORTED || code == PVERA_ERROR_CUDA || code == PVERA_ERROR_MEMORY, "code %d", code);
    CHECK_ERROR(error, code, words);
    CHECK(context == NULL, "an output was written");
    /* What was taken of a double was given back. */
    void *library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD);
    void *found = library ? dlsym(library, "pvera_double_live_objects") : NULL;
    uint64_t (*live)(void);
    memcpy(&live, &found, sizeof live);
    if (found) CHECK(live() == 0, "%llu objects of the driver are left", (unsigned long long)live());
    /* The CPU does not mind. */
    CHECK_OK(pvera_context_new(NULL, &context));
    pvera_context_free(context);
}

int main(int argc, char **argv) {
    check_begin(argc, argv);
    if (argc == 2 && strcmp(argv[1], "works") == 0) {
        works();
    } else if (argc >= 3 && strcmp(argv[1], "refused") == 0) {
        refused(argv[2]);
    } else {
        CHECK(false, "usage: c_cuda works | refused TEXT");
    }
    return check_end();
}
