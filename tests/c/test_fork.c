/* fork, as docs/embedding.md promises it: a child makes contexts of its own and goes on with everything else, the parent does not
 * notice. The parent's context with threads is left alone in the child, whose copy of it has no threads. */
#include <sys/wait.h>
#include <unistd.h>

#include "world.h"

enum { MANY = 300, CHILDREN = 3 };

static float x_values[MANY * IN], wanted[MANY * OUT];

static pvera_context *context_of(uint32_t threads) {
    pvera_context_options options = {.struct_size = sizeof options, .threads = threads};
    pvera_context *context = NULL;
    pvera_error_free(pvera_context_new(&options, &context));
    return context;
}

/* y of layer q with sampled noise, enough rows for every thread to have some. */
static bool forward(const pvera_context *context, const pvera_linear *linear, float *y_values) {
    pvera_matrix x = pvera_f32(x_values, MANY, IN);
    pvera_matrix_mut y = pvera_f32_mut(y_values, MANY, OUT);
    pvera_noise noise = {.struct_size = sizeof noise, .mode = PVERA_MODE_SAMPLE, .seed = 5};
    pvera_error *error = pvera_forward(context, linear, &x, NULL, &noise, NULL, &y);
    pvera_error_free(error);
    return !error;
}

static bool is_as_wanted(const pvera_context *context, const pvera_linear *linear) {
    static float y[MANY * OUT];
    memset(y, 0, sizeof y);
    return forward(context, linear, y) && memcmp(y, wanted, sizeof y) == 0;
}

/* A checkpoint of the adapter, loaded, published in its place and seen in a snapshot. */
static bool swap_is_as_wanted(const struct world *w, const pvera_context *context) {
    pvera_bytes config = {0}, tensors = {0};
    pvera_adapter *loaded = NULL;
    pvera_snapshot *snapshot = NULL;
    const pvera_linear *linear = NULL;
    pvera_error *error = pvera_adapter_save_memory(w->adapter, &config, &tensors);
    if (!error) error = pvera_adapter_load_memory(w->model, config.data, config.size, tensors.data, tensors.size, NULL, &loaded);
    if (!error) error = pvera_model_replace(w->model, "one", loaded, NULL);
    if (!error) error = pvera_model_snapshot(w->model, &snapshot);
    if (!error) error = pvera_snapshot_linear(snapshot, 0, &linear);
    const bool same = !error && is_as_wanted(context, linear);
    pvera_error_free(error);
    pvera_snapshot_free(snapshot), pvera_adapter_free(loaded);
    pvera_bytes_free(&config), pvera_bytes_free(&tensors);
    return same;
}

/* In the child. What failed, as bits. */
static int child(const struct world *w, const pvera_linear *linear) {
    pvera_context *plain = context_of(0), *threads = context_of(3);
    int failed = !plain || !threads;
    failed |= !is_as_wanted(w->context, linear) << 1; /* the parent's, without threads */
    failed |= !is_as_wanted(plain, linear) << 2;
    failed |= !is_as_wanted(threads, linear) << 3;
    failed |= !swap_is_as_wanted(w, threads) << 4;
    pvera_context_free(plain), pvera_context_free(threads);
    return failed;
}

int main(int argc, char **argv) {
    check_begin(argc, argv);
    struct world *w = world_default();
    const pvera_linear *linear = NULL;
    MUST(pvera_snapshot_linear(w->snapshot, 0, &linear));
    fill(x_values, MANY * IN, 6);
    pvera_context *threaded = context_of(3);
    CHECK(forward(threaded, linear, wanted), "the parent's forward");

    pid_t children[CHILDREN];
    for (int i = 0; i < CHILDREN; ++i) {
        children[i] = fork();
        if (children[i] == 0) _exit(child(w, linear));
        CHECK(children[i] > 0, "fork");
        CHECK(is_as_wanted(threaded, linear), "the parent's own threads while child %d runs", i);
    }
    for (int i = 0; i < CHILDREN; ++i) {
        int status = -1;
        CHECK(waitpid(children[i], &status, 0) == children[i], "waitpid");
        CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0, "child %d ended with %#x: context, parent's, own, threads, swap", i, status);
    }
    CHECK(is_as_wanted(threaded, linear), "the parent's own threads after its children");
    pvera_context_free(threaded);
    world_free(w);
    return check_end();
}
