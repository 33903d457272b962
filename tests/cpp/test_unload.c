/* The library is loaded, used and closed a thousand times (with CUDA a hundred): it is then really unmapped, and the process has not
 * grown. Plain C with dlopen, since a program linked to the library can never let it go.
 *
 * test_unload calling_thread|pool_of_ended_thread|pool_of_calling_thread|cuda LIBPVERA.SO says who uses it: the thread that loads and
 * unloads it, without a pool of the library's own; another thread, which ends, with one; the former with one; or the former with a
 * context on the default stream of a CUDA device, that of a double. GLIBC_TUNABLES=glibc.malloc.tcache_count=0 makes malloc's count of
 * what is in use exact: it counts what a thread keeps for its next malloc. */
#include <dlfcn.h>
#include <malloc.h>
#include <pthread.h>
#include <pvera.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Each load keeps the box of its panic hook, 32 bytes with malloc's own, and nothing else. With CUDA the double's heap settles too,
 * some 200 bytes a round at first; what the library knows of a CUDA context would be 160 more. */
enum { ROUNDS = 1000, MOST_GROWTH = 40, CUDA_ROUNDS = 100, MOST_CUDA_GROWTH = 256, WARM_UP = 20 };

static char bank_path[64]; /* of this process alone */

static void fail(const char *what, const char *why) {
    fprintf(stderr, "%s: %s\n", what, why ? why : "unknown");
    exit(1);
}

/* Whether a line of /proc/self/maps names the library. */
static int is_mapped(void) {
    char line[4096];
    int found = 0;
    FILE *maps = fopen("/proc/self/maps", "r");
    if (!maps) fail("/proc/self/maps", "cannot be opened");
    while (fgets(line, sizeof line, maps)) found |= strstr(line, "libpvera") != NULL;
    fclose(maps);
    return found;
}

static void *function(void *library, const char *name) {
    void *found = dlsym(library, name);
    if (!found) fail(name, dlerror());
    return found;
}

#define LOAD(name) __typeof__(&name) load_##name = __extension__(__typeof__(&name)) function(library, #name)
#define OK(call) \
    do { \
        pvera_error *error = (call); \
        if (error) fail(#call, load_pvera_error_message(error)); \
    } while (0)

enum { ROWS = 256, WIDTH = 64, RANK = 8, SAMPLES = 2 };
static float x[ROWS * WIDTH], y[SAMPLES * ROWS * WIDTH], other[ROWS * WIDTH];

/* Where the adapters of a round run and come from. */
struct world {
    pvera_context *context;
    pvera_model *model;
    pvera_adapter *adapter;
    pvera_linear *linear;
    pvera_matrix in;
    pvera_matrix_mut out;
};

/* A tape, gradients, an optimiser's step; a merge and its undo. */
static void train(void *library, const struct world *world) {
    LOAD(pvera_error_message);
    LOAD(pvera_tape_new);
    LOAD(pvera_tape_free);
    LOAD(pvera_forward);
    LOAD(pvera_backward);
    LOAD(pvera_adapter_parameters);
    LOAD(pvera_adamw_default);
    LOAD(pvera_adamw_step);
    LOAD(pvera_merge);
    LOAD(pvera_unmerge);
    LOAD(pvera_undo_free);
    enum { COUNT = WIDTH + 2 * RANK };
    float gradients[COUNT], first[COUNT] = {0}, second[COUNT] = {0}, *parameters = NULL;
    size_t count = 0;
    pvera_tape *tape = NULL;
    pvera_undo *undo = NULL;
    const pvera_noise noise = {.struct_size = sizeof noise, .mode = PVERA_MODE_SAMPLE, .seed = 1};
    const pvera_slot_gradients slot = {.lambda_b = gradients, .lambda_d = gradients + WIDTH};
    const pvera_gradients wanted = {
        .struct_size = sizeof wanted, .overwrite = PVERA_OVERWRITE_ALL, .slots = &slot, .slot_count = 1, .kl_weight = 1};
    const pvera_matrix dy = pvera_f32(x, ROWS, WIDTH);
    const pvera_matrix_mut dx = pvera_f32_mut(other, ROWS, WIDTH);
    OK(load_pvera_tape_new(PVERA_TAPE_KEEP_DELTA, NULL, &tape));
    OK(load_pvera_forward(world->context, world->linear, &world->in, NULL, &noise, tape, &world->out));
    OK(load_pvera_backward(world->context, tape, &dy, &wanted, &dx));
    OK(load_pvera_adapter_parameters(world->adapter, &parameters, &count));
    if (count != COUNT) fail("pvera_adapter_parameters", "another count");
    const pvera_adamw adamw = load_pvera_adamw_default();
    OK(load_pvera_adamw_step(&adamw, 1, count, parameters, gradients, first, second));
    load_pvera_tape_free(tape);

    const pvera_matrix weight = pvera_f32(other, WIDTH, WIDTH);
    const pvera_matrix_mut merged = pvera_f32_mut(other, WIDTH, WIDTH);
    OK(load_pvera_merge(world->context, world->linear, NULL, 0, PVERA_WEIGHT_OUT_IN, &weight, &merged, &undo));
    OK(load_pvera_unmerge(undo, &merged));
    load_pvera_undo_free(undo);
}

/* A published adapter and its snapshot, packed projections, draws and their statistics, a generator. */
static void serve(void *library, const struct world *world) {
    LOAD(pvera_error_message);
    LOAD(pvera_adapter_store);
    LOAD(pvera_store_pack);
    LOAD(pvera_store_free);
    LOAD(pvera_model_publish);
    LOAD(pvera_model_snapshot);
    LOAD(pvera_snapshot_linear);
    LOAD(pvera_snapshot_free);
    LOAD(pvera_sample);
    LOAD(pvera_statistics_new);
    LOAD(pvera_statistics_add);
    LOAD(pvera_statistics_free);
    LOAD(pvera_torch_generator_new);
    LOAD(pvera_torch_generator_normals);
    LOAD(pvera_torch_generator_free);
    pvera_store *store = NULL;
    pvera_snapshot *snapshot = NULL;
    const pvera_linear *linear = NULL;
    pvera_statistics *statistics = NULL;
    pvera_torch_generator *generator = NULL;
    const pvera_noise noise = {.struct_size = sizeof noise, .mode = PVERA_MODE_SAMPLE, .seed = 2};
    const pvera_matrix_mut draws = pvera_f32_mut(y, SAMPLES * ROWS, WIDTH);
    const pvera_matrix draw = pvera_f32(y, ROWS, WIDTH);
    OK(load_pvera_adapter_store(world->adapter, &store));
    OK(load_pvera_store_pack(store, PVERA_PACK_FORWARD | PVERA_PACK_BACKWARD));
    OK(load_pvera_model_publish(world->model, "one", world->adapter, NULL));
    OK(load_pvera_model_snapshot(world->model, &snapshot));
    OK(load_pvera_snapshot_linear(snapshot, 0, &linear));
    OK(load_pvera_sample(world->context, linear, &world->in, NULL, &noise, SAMPLES, &draws));
    OK(load_pvera_statistics_new(ROWS, WIDTH, NULL, &statistics));
    OK(load_pvera_statistics_add(statistics, &draw));
    OK(load_pvera_torch_generator_new(3, &generator));
    OK(load_pvera_torch_generator_normals(generator, WIDTH, other));
    load_pvera_torch_generator_free(generator);
    load_pvera_statistics_free(statistics);
    load_pvera_snapshot_free(snapshot);
    load_pvera_store_free(store);
}

/* A checkpoint in memory, loaded again, and a bank in a file. */
static void keep(void *library, const struct world *world) {
    LOAD(pvera_error_message);
    LOAD(pvera_adapter_save_memory);
    LOAD(pvera_adapter_load_memory);
    LOAD(pvera_adapter_free);
    LOAD(pvera_bytes_free);
    LOAD(pvera_bank_open);
    LOAD(pvera_bank_append);
    LOAD(pvera_bank_adapter);
    LOAD(pvera_bank_snapshot);
    LOAD(pvera_bank_name_at);
    LOAD(pvera_bank_free);
    LOAD(pvera_snapshot_free);
    LOAD(pvera_text_free);
    pvera_bytes config = {0}, tensors = {0};
    pvera_adapter *loaded = NULL, *banked = NULL;
    pvera_bank *bank = NULL;
    pvera_snapshot *snapshot = NULL;
    char *text = NULL;
    const char *name = "one";
    int32_t slot = -1;
    const pvera_bank_options options = {.struct_size = sizeof options, .access = PVERA_BANK_CREATE};
    OK(load_pvera_adapter_save_memory(world->adapter, &config, &tensors));
    OK(load_pvera_adapter_load_memory(world->model, config.data, config.size, tensors.data, tensors.size, NULL, &loaded));
    load_pvera_bytes_free(&config);
    load_pvera_bytes_free(&tensors);

    OK(load_pvera_bank_open(world->model, bank_path, &options, &bank));
    const pvera_adapter *adapters = loaded;
    OK(load_pvera_bank_append(bank, 1, &name, &adapters, PVERA_F16));
    OK(load_pvera_bank_adapter(bank, name, &banked));
    OK(load_pvera_bank_snapshot(bank, 1, &name, &slot, &snapshot));
    OK(load_pvera_bank_name_at(bank, 0, &text));
    load_pvera_text_free(text);
    load_pvera_bank_free(bank);
    load_pvera_snapshot_free(snapshot);
    load_pvera_adapter_free(banked);
    load_pvera_adapter_free(loaded);
    if (remove(bank_path)) fail(bank_path, "cannot be removed");
}

/* Objects of every kind, an error, and calls of every kind. */
static void use(void *library, uint32_t threads) {
    LOAD(pvera_error_message);
    LOAD(pvera_error_code);
    LOAD(pvera_error_free);
    LOAD(pvera_test_panic);
    LOAD(pvera_context_new);
    LOAD(pvera_context_free);
    LOAD(pvera_model_new);
    LOAD(pvera_model_declare);
    LOAD(pvera_model_free);
    LOAD(pvera_config_new);
    LOAD(pvera_config_set_int);
    LOAD(pvera_config_set_text);
    LOAD(pvera_config_free);
    LOAD(pvera_adapter_new);
    LOAD(pvera_adapter_linear);
    LOAD(pvera_adapter_free);
    LOAD(pvera_linear_free);
    struct world world = {.in = pvera_f32(x, ROWS, WIDTH), .out = pvera_f32_mut(y, ROWS, WIDTH)};
    pvera_config *config = NULL;
    const pvera_context_options options = {.struct_size = sizeof options, .threads = threads};
    const pvera_layer layer = {.struct_size = sizeof layer, .name = "q", .in_features = WIDTH, .out_features = WIDTH};
    OK(load_pvera_context_new(&options, &world.context));
    OK(load_pvera_model_new(NULL, &world.model));
    OK(load_pvera_model_declare(world.model, &layer, NULL));
    OK(load_pvera_config_new(&config));
    OK(load_pvera_config_set_int(config, "r", RANK));
    OK(load_pvera_config_set_text(config, "target_modules", "q"));
    OK(load_pvera_adapter_new(world.model, config, NULL, NULL, &world.adapter));
    OK(load_pvera_adapter_linear(world.adapter, 0, &world.linear));
    train(library, &world);
    serve(library, &world);
    keep(library, &world);
    pvera_error *panic = load_pvera_test_panic("on purpose");
    if (load_pvera_error_code(panic) != PVERA_ERROR_PANIC) fail("pvera_test_panic", "gave no panic");
    load_pvera_error_free(panic);
    load_pvera_linear_free(world.linear);
    load_pvera_adapter_free(world.adapter);
    load_pvera_config_free(config);
    load_pvera_model_free(world.model);
    load_pvera_context_free(world.context);
}

/* A context on a device, which loads the kernels and computes a layer there; nothing of it is left in the library. */
static void use_cuda(void *library) {
    LOAD(pvera_error_message);
    LOAD(pvera_context_new);
    LOAD(pvera_context_check);
    LOAD(pvera_context_free);
    pvera_context *context = NULL;
    pvera_context_options options = {.struct_size = sizeof options, .backend = PVERA_BACKEND_CUDA};
    OK(load_pvera_context_new(&options, &context));
    OK(load_pvera_context_check(context));
    load_pvera_context_free(context);
}

static void *with_pool(void *library) {
    use(library, 1);
    return NULL;
}

static void use_as(const char *how, void *library) {
    pthread_t thread;
    if (strcmp(how, "cuda") == 0) use_cuda(library);
    else if (strcmp(how, "calling_thread") == 0) use(library, 0);
    else if (strcmp(how, "pool_of_calling_thread") == 0) use(library, 1);
    else if (pthread_create(&thread, NULL, with_pool, library)) fail("pthread_create", "no thread");
    else pthread_join(thread, NULL);
}

int main(int argc, char **argv) {
    if (argc != 3) fail("usage", "test_unload HOW LIBPVERA.SO");
    size_t settled = 0;
    snprintf(bank_path, sizeof bank_path, "unload.%ld.bank", (long)getpid());
    for (size_t i = 0; i < ROWS * WIDTH; ++i) x[i] = (float)(i % 7) - 3;
    const int is_cuda = strcmp(argv[1], "cuda") == 0;
    const int rounds = is_cuda ? CUDA_ROUNDS : ROUNDS;
    const size_t growth = is_cuda ? MOST_CUDA_GROWTH : MOST_GROWTH;
    for (int round = 0; round < rounds; ++round) {
        void *library = dlopen(argv[2], RTLD_NOW | RTLD_LOCAL);
        if (!library) fail("dlopen", dlerror());
        if (!is_mapped()) fail("/proc/self/maps", "does not show the library that was just loaded");
        use_as(argv[1], library);
        if (dlclose(library)) fail("dlclose", dlerror());
        if (is_mapped()) {
            fprintf(stderr, "the library is still mapped after dlclose of round %d\n", round + 1);
            return 1;
        }
        if (round + 1 == WARM_UP) settled = mallinfo2().uordblks;
    }
    size_t now = mallinfo2().uordblks;
    printf("%zu bytes in use after %d rounds, %zu after %d\n", settled, (int)WARM_UP, now, rounds);
    return now > settled + growth * (size_t)rounds;
}
