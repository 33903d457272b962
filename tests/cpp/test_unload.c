/* The library is loaded, used and closed a thousand times (with CUDA a hundred): it is then really unmapped, and the process has not
 * grown. Plain C with dlopen, since a program linked to the library can never let it go.
 *
 * test_unload calling_thread|pool_of_ended_thread|pool_of_calling_thread|cuda LIBPVERA.SO says who uses it: the thread that loads and
 * unloads it, without a pool of the library's own; another thread, which ends, with one; the former with one; or the former with a
 * context on the default stream of a CUDA device, that of a double. */
#include <dlfcn.h>
#include <malloc.h>
#include <pthread.h>
#include <pvera.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Each load keeps the box of its panic hook, 32 bytes with malloc's own; any object of the library is larger by far. With CUDA the
 * double's heap settles too, some 200 bytes a round at first; what the library knows of a CUDA context would be 160 more. */
enum { ROUNDS = 1000, MOST_GROWTH = 128, CUDA_ROUNDS = 100, MOST_CUDA_GROWTH = 256, WARM_UP = 20 };

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

/* One object of each kind that has memory or threads of its own, an error, and a forward. */
static void use(void *library, uint32_t threads) {
#define LOAD(name) __typeof__(&name) load_##name = __extension__(__typeof__(&name)) function(library, #name)
#define OK(call) \
    do { \
        pvera_error *error = (call); \
        if (error) fail(#call, load_pvera_error_message(error)); \
    } while (0)
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
    LOAD(pvera_forward);
    pvera_context *context = NULL;
    pvera_model *model = NULL;
    pvera_config *config = NULL;
    pvera_adapter *adapter = NULL;
    pvera_linear *linear = NULL;
    pvera_context_options options = {.struct_size = sizeof options, .threads = threads};
    pvera_layer layer = {.struct_size = sizeof layer, .name = "q", .in_features = 64, .out_features = 64};
    static float x[256 * 64], y[256 * 64];
    pvera_matrix in = pvera_f32(x, 256, 64);
    pvera_matrix_mut out = pvera_f32_mut(y, 256, 64);
    OK(load_pvera_context_new(&options, &context));
    OK(load_pvera_model_new(NULL, &model));
    OK(load_pvera_model_declare(model, &layer, NULL));
    OK(load_pvera_config_new(&config));
    OK(load_pvera_config_set_int(config, "r", 8));
    OK(load_pvera_config_set_text(config, "target_modules", "q"));
    OK(load_pvera_adapter_new(model, config, NULL, NULL, &adapter));
    OK(load_pvera_adapter_linear(adapter, 0, &linear));
    OK(load_pvera_forward(context, linear, &in, NULL, NULL, NULL, &out));
    pvera_error *panic = load_pvera_test_panic("on purpose");
    if (load_pvera_error_code(panic) != PVERA_ERROR_PANIC) fail("pvera_test_panic", "gave no panic");
    load_pvera_error_free(panic);
    load_pvera_linear_free(linear);
    load_pvera_adapter_free(adapter);
    load_pvera_config_free(config);
    load_pvera_model_free(model);
    load_pvera_context_free(context);
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
