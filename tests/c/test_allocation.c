/* A call that was made before, at this shape or a larger one, asks the allocator for nothing. */
#include <dirent.h>
#include <pthread.h>
#include <sched.h>

#include "numbers.h"

#include "allocation_counter.h"

/* LARGE is beyond every block of rows in the library. */
enum { LARGE = 600, IN = 20, OUT = 24, RANK = 4, LAYERS = 3, ADAPTERS = 3, DRAWS = 4, LATENTS = ADAPTERS * RANK };
enum { POLICIES = 3, CHOICES = 4 };

static float x[LARGE * IN], dx[LARGE * IN], mask[LARGE * IN], weight[OUT * IN], bias[OUT];
static float y[LAYERS][DRAWS * LARGE * OUT], dy[LAYERS][LARGE * OUT], eps[DRAWS * LARGE * LAYERS * LATENTS];
static float p[LARGE * 2 * LATENTS], mu[LARGE * LATENTS], logvar[LARGE * LATENTS], prior[LARGE * LAYERS * LATENTS];
static float lambda_b[LAYERS][ADAPTERS][OUT], lambda_d[LAYERS][ADAPTERS][2 * RANK];
static uint16_t narrow[LARGE * OUT];
static double kl[LAYERS], variance[LARGE];
static int32_t slots[LARGE];
static uint64_t identity[LARGE];
static uint32_t sample[LARGE], variance_index[LARGE];
static const pvera_active active[] = {{0, 1}, {2, 0.5f}, {1, -1}};

static struct {
    pvera_context *context;
    const pvera_linear *linears[LAYERS];
    pvera_tape *tapes[POLICIES];
    bool warming;
    size_t asked; /* while warming */
    const char *team;
} here;

/* Makes a call and counts what it asks for. */
#define STEP(call) \
    do { \
        counter_start(); \
        pvera_error *error = (call); \
        size_t asked = counter_stop(); \
        MUST(error); \
        if (here.warming) here.asked += asked; \
        else if (!CHECK(asked == 0, "%s, n = %zu, choice %d, mode %d: the allocator was asked %zu times by\n  %s", \
                        here.team, n, choice, noise->mode, asked, #call)) \
            backtrace_symbols_fd(counter.first, counter.depth, fileno(check_state.report)); \
    } while (0)

/* How the four choices of adapters are made. */
static pvera_rows rows_of(int choice) {
    pvera_rows rows = {.struct_size = sizeof rows, .identity_base = 7};
    if (choice == 1) rows.active = active, rows.active_count = ADAPTERS;
    if (choice >= 2) rows.slot = slots;
    if (choice == 3) rows.identity = identity, rows.sample = sample;
    return rows;
}

static size_t latents_of(int choice) { return choice == 1 ? LATENTS : RANK; }

/* Everything that a served model calls. */
static void serve(size_t n, int choice, const pvera_noise *noise) {
    const pvera_context *context = here.context;
    const pvera_linear *linear = here.linears[0];
    pvera_rows rows = rows_of(choice);
    size_t width = 0, latents = 0;
    MUST(pvera_project_width(linear, &rows, n, &width, &latents));
    pvera_matrix input = pvera_f32(x, n, IN), projected = pvera_f32(p, n, width);
    pvera_matrix_mut out = pvera_f32_mut(y[0], n, OUT), out_p = pvera_f32_mut(p, n, width);
    pvera_matrix_mut second = pvera_f32_mut(y[1], n, OUT), group[LAYERS];
    pvera_matrix_mut out_mu = pvera_f32_mut(mu, n, latents), out_logvar = pvera_f32_mut(logvar, n, latents);
    pvera_matrix_mut draws = pvera_f32_mut(y[0], DRAWS * n, OUT);
    pvera_matrix_mut half = {narrow, n, OUT, OUT, {PVERA_DTYPE_BFLOAT, 16, 1}, {0, 0}};
    for (int i = 0; i < LAYERS; ++i) group[i] = pvera_f32_mut(y[i], n, OUT);
    STEP(pvera_forward(context, linear, &input, &rows, noise, NULL, &out));
    STEP(pvera_forward(context, linear, &input, &rows, noise, NULL, &half));
    STEP(pvera_moments(context, linear, &input, &rows, &out, &second));
    STEP(pvera_latent(context, linear, &input, &rows, &out_mu, &out_logvar));
    STEP(pvera_project(context, linear, &input, &rows, noise, &out_p));
    STEP(pvera_expand(context, linear, &projected, &rows, noise, &out));
    for (size_t part = 0; part < 3; ++part) STEP(pvera_project_part(context, linear, &input, &rows, noise, &out_p, part, 3));
    for (size_t part = 0; part < 3; ++part) STEP(pvera_expand_part(context, linear, &projected, &rows, noise, &out, part, 3));
    pvera_noise given = *noise;
    given.dropout_mask = pvera_f32(mask, n, IN);
    STEP(pvera_forward(context, linear, &input, &rows, &given, NULL, &out));
    given.eps = pvera_f32(eps, n, latents);
    STEP(pvera_forward(context, linear, &input, &rows, &given, NULL, &out));
    for (size_t count = 2; count <= LAYERS; ++count) {
        given.eps = pvera_f32(eps, n, count * latents);
        STEP(pvera_forward_group(context, count, here.linears, &input, &rows, noise, NULL, group));
        STEP(pvera_forward_group(context, count, here.linears, &input, &rows, &given, NULL, group));
    }
    if (noise->mode != PVERA_MODE_SAMPLE) return;
    STEP(pvera_sample(context, linear, &input, &rows, noise, DRAWS, &draws));
    given.eps = pvera_f32(eps, DRAWS * n, latents);
    STEP(pvera_sample(context, linear, &input, &rows, &given, DRAWS, &draws));
}

/* What is wanted of a backward: everything that can be. */
static void want(size_t n, int choice, size_t count, pvera_gradients *wanted, pvera_slot_gradients (*slot)[ADAPTERS]) {
    /* With a slot a row, the rows are of none, 0, 1, 2, none, … */
    size_t taking_part = choice == 0 ? 1 : choice == 1 || n > ADAPTERS ? ADAPTERS : n - 1;
    for (size_t i = 0; i < count && i < LAYERS; ++i) {
        for (int k = 0; k < ADAPTERS; ++k) slot[i][k] = (pvera_slot_gradients){k, lambda_b[i][k], lambda_d[i][k], NULL};
        wanted[i] = (pvera_gradients){.struct_size = sizeof *wanted, .slots = slot[i], .slot_count = taking_part};
        wanted[i].overwrite = PVERA_OVERWRITE_ALL, wanted[i].kl_weight = 0.25, wanted[i].kl_value = &kl[i];
        wanted[i].dmu = wanted[i].dlogvar = pvera_f32(prior, n, count * latents_of(choice));
        wanted[i].variance = variance, wanted[i].variance_count = n, wanted[i].variance_index = variance_index;
    }
}

/* Forwards with a tape and what follows; the adapters have dropout. */
static void train(size_t n, int choice, const pvera_noise *noise) {
    pvera_rows rows = rows_of(choice);
    pvera_matrix input = pvera_f32(x, n, IN), gradient[LAYERS];
    pvera_matrix_mut group[LAYERS], out_dx = pvera_f32_mut(dx, n, IN);
    pvera_gradients wanted[LAYERS];
    pvera_slot_gradients slot[LAYERS][ADAPTERS];
    for (int i = 0; i < LAYERS; ++i) group[i] = pvera_f32_mut(y[i], n, OUT), gradient[i] = pvera_f32(dy[i], n, OUT);
    for (int policy = 0; policy < POLICIES; ++policy) {
        pvera_tape *tape = here.tapes[policy];
        want(n, choice, 1, wanted, slot);
        STEP(pvera_forward(here.context, here.linears[0], &input, &rows, noise, tape, group));
        STEP(pvera_backward(here.context, tape, gradient, wanted, &out_dx));
        STEP(pvera_backward(here.context, tape, gradient, NULL, &out_dx));
        STEP(pvera_backward(here.context, tape, gradient, wanted, NULL));
        for (size_t count = 2; count <= LAYERS; ++count) {
            want(n, choice, count, wanted, slot);
            STEP(pvera_forward_group(here.context, count, here.linears, &input, &rows, noise, tape, group));
            STEP(pvera_backward_group(here.context, tape, count, gradient, wanted, &out_dx));
        }
    }
}

static void everything(size_t n) {
    pvera_noise noises[] = {{.mode = PVERA_MODE_AS_PEFT}, {.mode = PVERA_MODE_MEAN}, {.mode = PVERA_MODE_SAMPLE},
                            {.mode = PVERA_MODE_SAMPLE, .antithetic = 1}, {.mode = PVERA_MODE_FIXED}};
    for (size_t i = 0; i < sizeof noises / sizeof *noises; ++i) {
        noises[i].struct_size = sizeof noises[i], noises[i].seed = 5;
        for (int choice = 0; choice < CHOICES; ++choice) {
            serve(n, choice, &noises[i]);
            train(n, choice, &noises[i]);
        }
    }
}

/* A parallel-for of the host, with a thread of its own that takes the odd tasks. */
struct host {
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    size_t count;
    pvera_task run;
    void *task;
    bool busy, stop;
};

static void *odd_tasks(void *of) {
    struct host *host = of;
    pthread_mutex_lock(&host->mutex);
    while (!host->stop) {
        if (host->busy) {
            for (size_t index = 1; index < host->count; index += 2) host->run(host->task, index);
            host->busy = false;
            pthread_cond_broadcast(&host->changed);
        }
        pthread_cond_wait(&host->changed, &host->mutex);
    }
    pthread_mutex_unlock(&host->mutex);
    return NULL;
}

static void parallel_for(void *user, size_t count, pvera_task run, void *task) {
    struct host *host = user;
    pthread_mutex_lock(&host->mutex);
    host->count = count, host->run = run, host->task = task, host->busy = true;
    pthread_cond_broadcast(&host->changed);
    pthread_mutex_unlock(&host->mutex);
    for (size_t index = 0; index < count; index += 2) run(task, index);
    pthread_mutex_lock(&host->mutex);
    while (host->busy) pthread_cond_wait(&host->changed, &host->mutex);
    pthread_mutex_unlock(&host->mutex);
}

/* Returns when the context's threads sleep: what a thread asks for when it starts is no call's. */
static void wait_for_threads(unsigned wanted) {
    for (unsigned asleep = 0; asleep < wanted; sched_yield()) {
        struct dirent *entry;
        DIR *tasks = opendir("/proc/self/task");
        for (asleep = 0; tasks && (entry = readdir(tasks));) {
            char path[300], name[64] = "", state = 0;
            snprintf(path, sizeof path, "/proc/self/task/%s/stat", entry->d_name);
            FILE *file = fopen(path, "r");
            if (file && fscanf(file, "%*d (%63[^)]) %c", name, &state) == 2)
                asleep += strcmp(name, "pvera") == 0 && state == 'S';
            if (file) fclose(file);
        }
        if (tasks) closedir(tasks);
    }
}

/* What the context holds after all that is no more than the largest of what the calls were said to need. */
static void check_foretold(void) {
    size_t held, foretold = 0;
    for (int choice = 0; choice < CHOICES; ++choice) {
        pvera_rows rows = rows_of(choice);
        size_t bytes;
        MUST(pvera_scratch_bytes(here.context, LAYERS, here.linears, LARGE, &rows, DRAWS, true, &bytes));
        if (foretold < bytes) foretold = bytes;
    }
    MUST(pvera_context_scratch_bytes(here.context, &held));
    CHECK(held <= foretold, "%s: %zu bytes are held, %zu were foretold", here.team, held, foretold);
}

static void steady(const char *team, const pvera_context_options *options) {
    here.team = team;
    MUST(pvera_context_new(options, &here.context));
    if (options->threads > 0 && !options->parallel_for) wait_for_threads(options->threads);
    for (int policy = 0; policy < POLICIES; ++policy) MUST(pvera_tape_new(policy, NULL, &here.tapes[policy]));
    here.warming = true, here.asked = 0;
    everything(LARGE);
    CHECK(here.asked > 0, "the counter does not see what the library asks for");
    here.warming = false;
    for (size_t n = LARGE; n > 0; n = n * 2 / 5) everything(n);
    everything(LARGE);
    check_foretold();
    for (int policy = 0; policy < POLICIES; ++policy) pvera_tape_free(here.tapes[policy]);
    pvera_context_free(here.context);
}

int main(int argc, char **argv) {
    check_begin(argc, argv);
    counter_prepare();
    fill(x, LARGE * IN, 1), fill(weight, OUT * IN, 2), fill(bias, OUT, 3), fill(eps, sizeof eps / sizeof *eps, 4);
    fill(mask, LARGE * IN, 5), fill(dy[0], LAYERS * LARGE * OUT, 6), fill(prior, sizeof prior / sizeof *prior, 7);
    for (uint32_t i = 0; i < LARGE; ++i) {
        slots[i] = (int32_t)(i % (ADAPTERS + 1)) - 1, identity[i] = i / 2, sample[i] = i % 2, variance_index[i] = 0;
    }
    pvera_model *model;
    pvera_snapshot *snapshot;
    pvera_config *config;
    MUST(pvera_model_new(NULL, &model));
    const char *names[LAYERS] = {"q", "k", "v"};
    for (int i = 0; i < LAYERS; ++i) {
        pvera_layer layer = {.struct_size = sizeof layer, .name = names[i], .in_features = IN, .out_features = OUT};
        if (i != 1) layer.weight = pvera_f32(weight, OUT, IN), layer.bias = pvera_f32(bias, 1, OUT);
        MUST(pvera_model_declare(model, &layer, NULL));
    }
    MUST(pvera_config_new(&config));
    MUST(pvera_config_set_int(config, "r", RANK));
    MUST(pvera_config_set_real(config, "pvera_dropout", 0.1));
    MUST(pvera_config_set_json(config, "target_modules", "[\"q\", \"k\", \"v\"]"));
    for (int i = 0; i < ADAPTERS; ++i) {
        /* The first two share a store. */
        pvera_adapter *adapter;
        char name[] = {(char)('a' + i), 0};
        MUST(pvera_config_set_int(config, "projection_prng_key", i / 2));
        MUST(pvera_adapter_new(model, config, NULL, NULL, &adapter));
        MUST(pvera_model_publish(model, name, adapter, NULL));
        pvera_adapter_free(adapter);
    }
    MUST(pvera_model_snapshot(model, &snapshot));
    for (size_t i = 0; i < LAYERS; ++i) MUST(pvera_snapshot_linear(snapshot, i, &here.linears[i]));

    struct host host = {.mutex = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};
    if (pthread_create(&host.thread, NULL, odd_tasks, &host)) abort();
    pvera_context_options options = {.struct_size = sizeof options};
    steady("the calling thread alone", &options);
    options.threads = 2;
    steady("two threads of its own", &options);
    options.parallel_for = parallel_for, options.parallel_for_user = &host;
    steady("a host's parallel-for", &options);

    pthread_mutex_lock(&host.mutex);
    host.stop = true;
    pthread_cond_broadcast(&host.changed);
    pthread_mutex_unlock(&host.mutex);
    pthread_join(host.thread, NULL);
    pvera_snapshot_free(snapshot);
    pvera_config_free(config);
    pvera_model_free(model);
    return check_end();
}
