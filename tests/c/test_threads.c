/* Threads: one context for many, one each, the host's own parallel-for, parts, adapters that come and go. Every result has
 * the bits of the single thread's. */
#include <pthread.h>

#include "world.h"

enum { THREADS = 4, TIMES = 8, SAMPLES = 3, BIG = 40 };

/* What a thread computes, again and again, on its own memory. */
struct result {
    float y[ROWS * OUT], sampled[SAMPLES * ROWS * OUT], dx[ROWS * IN], lambda_b[OUT], lambda_d[2 * RANK];
};

static pvera_error *compute(const pvera_context *context, const struct world *world, struct result *result) {
    pvera_tape *tape = NULL;
    pvera_matrix x = pvera_f32(world->x, ROWS, IN), dy = pvera_f32(result->y, ROWS, OUT);
    pvera_matrix_mut y = pvera_f32_mut(result->y, ROWS, OUT), draws = pvera_f32_mut(result->sampled, SAMPLES * ROWS, OUT);
    pvera_matrix_mut dx = pvera_f32_mut(result->dx, ROWS, IN);
    pvera_slot_gradients slot = {0, result->lambda_b, result->lambda_d, NULL};
    pvera_gradients wanted = {.struct_size = sizeof wanted, .overwrite = PVERA_OVERWRITE_ALL, .slots = &slot, .slot_count = 1};
    pvera_error *error = pvera_tape_new(PVERA_TAPE_KEEP_LATENT, NULL, &tape);
    if (!error) error = pvera_sample(context, world->q, &x, NULL, NULL, SAMPLES, &draws);
    if (!error) error = pvera_forward(context, world->q, &x, NULL, NULL, tape, &y);
    if (!error) error = pvera_backward(context, tape, &dy, &wanted, &dx);
    pvera_tape_free(tape);
    return error;
}

/* Threads report through memory of their own; the checks are made after they joined. */
struct worker {
    pthread_t thread;
    const struct world *world;
    const pvera_context *context; /* NULL: one of its own */
    struct result expected, found;
    pvera_error *error;
    unsigned different;
    size_t index;
};

static void *work(void *of) {
    struct worker *worker = of;
    pvera_context_options options = {.struct_size = sizeof options, .threads = 1};
    pvera_context *own = NULL;
    if (!worker->context) worker->error = pvera_context_new(&options, &own);
    for (int i = 0; i < TIMES && !worker->error; ++i) {
        memset(&worker->found, 0xA5, sizeof worker->found);
        worker->error = compute(own ? own : worker->context, worker->world, &worker->found);
        worker->different += memcmp(&worker->found, &worker->expected, sizeof worker->found) != 0;
    }
    pvera_context_free(own);
    return NULL;
}

static void together(const char *what, const struct world *world, const pvera_context *context, const struct result *expected) {
    static struct worker workers[THREADS];
    for (int i = 0; i < THREADS; ++i) {
        workers[i] = (struct worker){.world = world, .context = context, .expected = *expected};
        if (pthread_create(&workers[i].thread, NULL, work, &workers[i])) abort();
    }
    for (int i = 0; i < THREADS; ++i) {
        pthread_join(workers[i].thread, NULL);
        CHECK_OK(workers[i].error);
        CHECK(workers[i].different == 0, "%s: thread %d got other bits %u times", what, i, workers[i].different);
    }
}

/* A parallel-for of the host: a thread for each index. */
struct task {
    pthread_t thread;
    pvera_task run;
    void *task;
    size_t index;
};

static void *run_task(void *of) {
    struct task *task = of;
    task->run(task->task, task->index);
    return NULL;
}

static void parallel_for(void *user, size_t count, pvera_task run, void *of) {
    struct task *tasks = calloc(count, sizeof *tasks);
    ++*(unsigned *)user;
    for (size_t i = 0; i < count; ++i) {
        tasks[i] = (struct task){.run = run, .task = of, .index = i};
        if (pthread_create(&tasks[i].thread, NULL, run_task, &tasks[i])) abort();
    }
    for (size_t i = 0; i < count; ++i) pthread_join(tasks[i].thread, NULL);
    free(tasks);
}

static void contexts(void) {
    struct world *world = world_default();
    static struct result expected, found;
    memset(&expected, 0, sizeof expected);
    MUST(compute(world->context, world, &expected));
    together("one context without threads", world, world->context, &expected);
    together("a context each", world, NULL, &expected);
    for (uint32_t threads = 1; threads <= 3; ++threads) {
        pvera_context_options options = {.struct_size = sizeof options, .threads = threads};
        pvera_context *context = NULL;
        MUST(pvera_context_new(&options, &context));
        together("one context with threads", world, context, &expected);
        pvera_context_free(context);
        unsigned calls = 0;
        options.parallel_for = parallel_for, options.parallel_for_user = &calls;
        MUST(pvera_context_new(&options, &context));
        memset(&found, 0, sizeof found);
        MUST(compute(context, world, &found));
        CHECK_SAME_BITS("the host's parallel-for", &found, &expected, sizeof found);
        CHECK(calls > 0, "the host's parallel-for was not called");
        pvera_context_free(context);
    }
    world_free(world);
}

/* One call entered by several threads as its parts. */
struct part {
    pthread_t thread;
    const struct world *world;
    float *p, *y;
    size_t index, count;
    bool expand;
    pvera_error *error;
};

static void *run_part(void *of) {
    struct part *part = of;
    const struct world *world = part->world;
    pvera_noise noise = {.struct_size = sizeof noise, .mode = PVERA_MODE_SAMPLE, .seed = 4};
    pvera_matrix x = pvera_f32(world->x, ROWS, IN), p = pvera_f32(part->p, ROWS, 2 * RANK);
    pvera_matrix_mut p_out = pvera_f32_mut(part->p, ROWS, 2 * RANK), y = pvera_f32_mut(part->y, ROWS, OUT);
    part->error = part->expand
        ? pvera_expand_part(world->context, world->q, &p, NULL, &noise, &y, part->index, part->count)
        : pvera_project_part(world->context, world->q, &x, NULL, &noise, &p_out, part->index, part->count);
    return NULL;
}

static void in_parts(const struct world *world, size_t count, float *p, float *y) {
    struct part parts[BIG];
    for (int expand = 0; expand < 2; ++expand) {
        for (size_t i = 0; i < count; ++i) {
            parts[i] = (struct part){.world = world, .p = p, .y = y, .index = i, .count = count, .expand = expand};
            if (pthread_create(&parts[i].thread, NULL, run_part, &parts[i])) abort();
        }
        for (size_t i = 0; i < count; ++i) {
            pthread_join(parts[i].thread, NULL);
            CHECK_OK(parts[i].error);
        }
    }
}

static void parts(void) {
    struct world *world = world_default();
    float p[2][ROWS * 2 * RANK], y[2][ROWS * OUT];
    size_t width = 0, latents = 0;
    MUST(pvera_project_width(world->q, NULL, ROWS, &width, &latents));
    CHECK(width == 2 * RANK && latents == RANK, "width %zu, latents %zu", width, latents);
    fill(y[0], ROWS * OUT, 50);
    in_parts(world, 1, p[0], y[0]);
    const size_t counts[] = {2, 3, 5, BIG};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; ++i) {
        memset(p[1], 0xA5, sizeof p[1]);
        fill(y[1], ROWS * OUT, 50);
        in_parts(world, counts[i], p[1], y[1]);
        CHECK_SAME_BITS("p in parts", p[0], p[1], sizeof p[0]);
        CHECK_SAME_BITS("y in parts", y[0], y[1], sizeof y[0]);
    }
    world_free(world);
}

/* Adapters come, change and go while passes run: each pass sees one of the two, whole, on both layers. */
struct reader {
    pthread_t thread;
    const struct world *world;
    const float (*outcomes)[2][ROWS * OUT]; /* [adapter][layer] */
    pvera_error *error;
    unsigned seen[2], mixed;
};

static pvera_error *pass(const struct world *world, const pvera_snapshot *snapshot, float y[2][ROWS * OUT]) {
    const size_t outputs[2] = {OUT, V_OUT};
    pvera_matrix x = pvera_f32(world->x, ROWS, IN);
    pvera_rows rows = {.struct_size = sizeof rows};
    int32_t slots[ROWS], slot = 0;
    pvera_error *error = pvera_snapshot_slot(snapshot, "swapped", &slot);
    for (size_t i = 0; i < ROWS; ++i) slots[i] = slot;
    rows.slot = slots;
    memset(y, 0, 2 * sizeof *y);
    for (size_t layer = 0; layer < 2 && !error; ++layer) {
        const pvera_linear *linear = NULL;
        pvera_matrix_mut out = pvera_f32_mut(y[layer], ROWS, outputs[layer]);
        error = pvera_snapshot_linear(snapshot, layer, &linear);
        if (!error) error = pvera_forward(world->context, linear, &x, &rows, NULL, NULL, &out);
    }
    return error;
}

static void *read_passes(void *of) {
    struct reader *reader = of;
    for (int i = 0; i < 20 * TIMES && !reader->error; ++i) {
        float y[2][ROWS * OUT];
        pvera_snapshot *snapshot = NULL;
        reader->error = pvera_model_snapshot(reader->world->model, &snapshot);
        if (!reader->error) reader->error = pass(reader->world, snapshot, y);
        pvera_snapshot_free(snapshot);
        bool first = memcmp(y, reader->outcomes[0], sizeof y) == 0, second = memcmp(y, reader->outcomes[1], sizeof y) == 0;
        reader->seen[0] += first, reader->seen[1] += second;
        reader->mixed += !first && !second;
    }
    return NULL;
}

static void swapping(void) {
    struct world *world = world_default();
    static float outcomes[2][2][ROWS * OUT];
    pvera_adapter *adapters[2] = {NULL, NULL};
    for (int i = 0; i < 2; ++i) {
        float *parameters = NULL;
        size_t count = 0;
        pvera_snapshot *snapshot = NULL;
        MUST(pvera_adapter_trainable(world->adapter, NULL, 0, &adapters[i]));
        MUST(pvera_adapter_parameters(adapters[i], &parameters, &count));
        fill(parameters, count, 60 + (uint32_t)i);
        MUST((i ? pvera_model_replace : pvera_model_publish)(world->model, "swapped", adapters[i], NULL));
        MUST(pvera_model_snapshot(world->model, &snapshot));
        MUST(pass(world, snapshot, outcomes[i]));
        pvera_snapshot_free(snapshot);
    }
    CHECK(memcmp(outcomes[0], outcomes[1], sizeof outcomes[0]) != 0, "both adapters do the same");
    struct reader readers[THREADS];
    for (int i = 0; i < THREADS; ++i) {
        readers[i] = (struct reader){.world = world, .outcomes = (const float(*)[2][ROWS * OUT])outcomes};
        if (pthread_create(&readers[i].thread, NULL, read_passes, &readers[i])) abort();
    }
    for (int i = 0; i < 20 * TIMES; ++i) {
        int32_t slot = -1, extra = -1;
        MUST(pvera_model_publish(world->model, "passing", adapters[0], &extra));
        MUST(pvera_model_replace(world->model, "swapped", adapters[i % 2], &slot));
        MUST(pvera_model_remove(world->model, "passing"));
        CHECK(slot == 1 && extra == 2, "slots %d and %d", slot, extra);
    }
    for (int i = 0; i < THREADS; ++i) {
        pthread_join(readers[i].thread, NULL);
        CHECK_OK(readers[i].error);
        CHECK(readers[i].mixed == 0, "thread %d saw a mixture %u times", i, readers[i].mixed);
        CHECK(readers[i].seen[0] + readers[i].seen[1] > 0, "thread %d saw nothing", i);
    }
    pvera_adapter_free(adapters[0]), pvera_adapter_free(adapters[1]);
    world_free(world);
}

int main(int argc, char **argv) {
    check_begin(argc, argv);
    contexts();
    parts();
    swapping();
    return check_end();
}
