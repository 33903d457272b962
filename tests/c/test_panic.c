/* A bug inside the release library comes back as an error: nothing is printed (check_end looks), nothing is aborted, and the
 * library goes on working; on the main thread, on others, and inside the host's parallel-for. */
#include <pthread.h>

#include "world.h"

static void *panicking(void *of) {
    (void)of;
    return pvera_test_panic("on a thread of the host");
}

/* A parallel-for that calls back into the library with a panic in the midst of a task's neighbours. */
static void parallel_for(void *user, size_t count, pvera_task run, void *task) {
    for (size_t i = 0; i < count; ++i) {
        pvera_error *error = pvera_test_panic("inside the host's parallel-for");
        *(unsigned *)user += pvera_error_code(error) == PVERA_ERROR_PANIC;
        pvera_error_free(error);
        run(task, i);
    }
}

static void works(const pvera_context *context, const struct world *world, float *y) {
    pvera_matrix x = pvera_f32(world->x, ROWS, IN);
    pvera_matrix_mut out = pvera_f32_mut(y, ROWS, OUT);
    CHECK_OK(pvera_forward(context, world->q, &x, NULL, NULL, NULL, &out));
}

int main(int argc, char **argv) {
    check_begin(argc, argv);
    struct world *world = world_default();
    float before[ROWS * OUT], after[ROWS * OUT];
    works(world->context, world, before);
    CHECK_ERROR(pvera_test_panic("on purpose"), PVERA_ERROR_PANIC, "a bug in pvera|on purpose");
    CHECK_ERROR(pvera_test_panic(""), PVERA_ERROR_PANIC, "a bug in pvera");
    works(world->context, world, after);
    CHECK_SAME_BITS("after a panic", before, after, sizeof before);

    pthread_t thread;
    void *error = NULL;
    if (pthread_create(&thread, NULL, panicking, NULL)) return 2;
    pthread_join(thread, &error);
    CHECK_ERROR(error, PVERA_ERROR_PANIC, "on a thread of the host");

    unsigned panics = 0;
    pvera_context *context = NULL;
    pvera_context_options options = {.struct_size = sizeof options, .threads = 3, .parallel_for = parallel_for};
    options.parallel_for_user = &panics;
    MUST(pvera_context_new(&options, &context));
    works(context, world, after);
    CHECK_SAME_BITS("around panics", before, after, sizeof before);
    CHECK(panics > 0, "no panic came back inside parallel-for");
    pvera_context_free(context);
    world_free(world);
    return check_end();
}
