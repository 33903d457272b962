/* The host's allocator: every allocation is made to fail in turn; the error is PVERA_ERROR_MEMORY, and nothing is lost. */
#include "world.h"

/* Memory of the test: counts, and fails the call of that number (from 1; 0: none). */
struct memory {
    size_t calls, fail_at, blocks, bytes, wrong;
};

static void *allocate(void *user, size_t size, size_t alignment) {
    struct memory *memory = user;
    void *block = NULL;
    if (++memory->calls == memory->fail_at || posix_memalign(&block, alignment, size)) return NULL;
    ++memory->blocks, memory->bytes += size;
    memory->wrong += size == 0 || (alignment & (alignment - 1)) != 0;
    memset(block, 0xA5, size); /* memory is not promised to be zero */
    return block;
}

static void release(void *user, void *block, size_t size, size_t alignment) {
    struct memory *memory = user;
    memory->wrong += (uintptr_t)block % alignment != 0 || memory->bytes < size || memory->blocks == 0;
    --memory->blocks, memory->bytes -= size;
    free(block);
}

/* What the whole job computes, to be equal whatever memory it ran in. */
struct result {
    float y[ROWS * OUT], sampled[3 * ROWS * OUT], dx[ROWS * IN], lambda_b[OUT], lambda_d[2 * RANK], merged[OUT * IN];
    double mean[ROWS * OUT];
};

#define TRY(call) \
    do { \
        if (!error) error = (call); \
    } while (0)

/* Stops at the first error and frees all. */
static pvera_error *job(struct memory *memory, int32_t policy, struct result *result) {
    pvera_allocator own = {allocate, release, memory};
    pvera_context_options context_options = {.struct_size = sizeof context_options, .allocator = own};
    pvera_model_options model_options = {.struct_size = sizeof model_options, .allocator = own};
    pvera_store_options store_options = {.struct_size = sizeof store_options, .rank = RANK, .in_max = IN, .out_max = OUT};
    store_options.allocator = own;
    pvera_context *context = NULL;
    pvera_model *model = NULL;
    pvera_config *config = NULL;
    pvera_store *store = NULL, *copied = NULL, *of_file = NULL;
    pvera_adapter *adapter = NULL, *loaded = NULL, *copy = NULL;
    pvera_linear *linear = NULL;
    pvera_snapshot *snapshot = NULL;
    const pvera_linear *lent = NULL;
    pvera_tape *tape = NULL;
    pvera_undo *undo = NULL;
    pvera_statistics *statistics = NULL;
    pvera_bytes files[2] = {{NULL, 0}, {NULL, 0}};
    float x[ROWS * IN], dy[ROWS * OUT], weight[OUT * IN], *parameters = NULL;
    size_t count = 0;
    pvera_error *error = NULL;
    fill(x, ROWS * IN, 1), fill(dy, ROWS * OUT, 2), fill(weight, OUT * IN, 3);
    pvera_layer layer = {.struct_size = sizeof layer, .name = "q", .in_features = IN, .out_features = OUT};
    layer.weight = pvera_f32(weight, OUT, IN);
    pvera_matrix input = pvera_f32(x, ROWS, IN), gradient = pvera_f32(dy, ROWS, OUT), a, b;
    pvera_matrix values = pvera_f32(result->y, ROWS, OUT);
    pvera_matrix_mut y = pvera_f32_mut(result->y, ROWS, OUT), dx = pvera_f32_mut(result->dx, ROWS, IN);
    pvera_matrix_mut draws = pvera_f32_mut(result->sampled, 3 * ROWS, OUT), merged = pvera_f32_mut(result->merged, OUT, IN);
    pvera_slot_gradients slot = {0, result->lambda_b, result->lambda_d, NULL};
    pvera_gradients wanted = {.struct_size = sizeof wanted, .overwrite = PVERA_OVERWRITE_ALL, .slots = &slot, .slot_count = 1};

    TRY(pvera_context_new(&context_options, &context));
    TRY(pvera_model_new(&model_options, &model));
    TRY(pvera_model_declare(model, &layer, NULL));
    TRY(pvera_config_new(&config));
    TRY(pvera_config_set_int(config, "r", RANK));
    TRY(pvera_config_set_text(config, "target_modules", "q"));
    TRY(pvera_store_from_key(7, &store_options, &store));
    TRY(store ? pvera_store_matrices(store, &a, &b) : NULL);
    TRY(pvera_store_from_matrices(&a, &b, &own, &copied));
    TRY(pvera_adapter_new(model, config, NULL, NULL, &adapter));
    TRY(pvera_adapter_parameters(adapter, &parameters, &count));
    if (!error) fill(parameters, count, 4);
    TRY(pvera_adapter_save_memory(adapter, &files[0], &files[1]));
    TRY(pvera_store_from_memory(files[1].data, files[1].size, &own, &of_file));
    TRY(pvera_adapter_load_memory(model, files[0].data, files[0].size, files[1].data, files[1].size, NULL, &loaded));
    TRY(pvera_adapter_trainable(loaded, NULL, 0, &copy));
    TRY(pvera_model_publish(model, "one", adapter, NULL));
    TRY(pvera_model_replace(model, "one", loaded, NULL));
    TRY(pvera_model_snapshot(model, &snapshot));
    TRY(pvera_snapshot_linear(snapshot, 0, &lent));
    TRY(pvera_sample(context, lent, &input, NULL, NULL, 3, &draws));
    TRY(pvera_adapter_linear(copy, 0, &linear));
    TRY(pvera_tape_new(policy, &own, &tape));
    TRY(pvera_forward(context, linear, &input, NULL, NULL, tape, &y));
    TRY(pvera_backward(context, tape, &gradient, &wanted, &dx));
    TRY(pvera_merge(context, linear, NULL, 0, 0, &layer.weight, &merged, &undo));
    TRY(pvera_statistics_new(ROWS, OUT, &own, &statistics));
    TRY(pvera_statistics_add(statistics, &values));
    TRY(pvera_statistics_mean(statistics, ROWS * OUT, result->mean));

    pvera_statistics_free(statistics);
    pvera_undo_free(undo);
    pvera_tape_free(tape);
    pvera_linear_free(linear);
    pvera_snapshot_free(snapshot);
    pvera_adapter_free(copy), pvera_adapter_free(loaded), pvera_adapter_free(adapter);
    pvera_bytes_free(&files[0]), pvera_bytes_free(&files[1]);
    pvera_store_free(of_file), pvera_store_free(copied), pvera_store_free(store);
    pvera_config_free(config);
    pvera_model_free(model);
    pvera_context_free(context);
    return error;
}

static void balanced(const struct memory *memory, size_t fail_at) {
    CHECK(memory->blocks == 0 && memory->bytes == 0, "%zu blocks of %zu bytes are left when allocation %zu fails",
          memory->blocks, memory->bytes, fail_at);
    CHECK(memory->wrong == 0, "%zu wrong sizes or alignments when allocation %zu fails", memory->wrong, fail_at);
}

/* A group of two layers: when memory ends, neither y is touched, so that the call can be repeated. */
static void group_writes_all_or_nothing(int32_t policy, bool train) {
    struct world *world = world_default();
    const pvera_linear *both[2] = {world->q, world->v};
    pvera_matrix x = pvera_f32(world->x, ROWS, IN);
    bool done = false;
    size_t fail_at = 1;
    for (; !done && fail_at < 100; ++fail_at) {
        struct memory memory = {.fail_at = fail_at};
        pvera_allocator own = {allocate, release, &memory};
        pvera_context_options options = {.struct_size = sizeof options, .threads = 1, .allocator = own};
        pvera_context *context = NULL;
        pvera_tape *tape = NULL;
        float q[ROWS * OUT], v[ROWS * V_OUT], q_before[ROWS * OUT], v_before[ROWS * V_OUT];
        fill(q, ROWS * OUT, 5), fill(v, ROWS * V_OUT, 6);
        memcpy(q_before, q, sizeof q), memcpy(v_before, v, sizeof v);
        pvera_matrix_mut y[2] = {pvera_f32_mut(q, ROWS, OUT), pvera_f32_mut(v, ROWS, V_OUT)};
        MUST(pvera_context_new(&options, &context));
        if (train) MUST(pvera_tape_new(policy, &own, &tape));
        pvera_error *error = pvera_forward_group(context, 2, both, &x, NULL, NULL, tape, y);
        done = error == NULL;
        if (!done) {
            CHECK_ERROR(error, PVERA_ERROR_MEMORY, "memory");
            CHECK_SAME_BITS("q when memory ends", q_before, q, sizeof q);
            CHECK_SAME_BITS("v when memory ends", v_before, v, sizeof v);
        }
        pvera_tape_free(tape);
        pvera_context_free(context);
        balanced(&memory, fail_at);
    }
    CHECK(done && fail_at > 4, "the group ran at allocation %zu", fail_at);
    world_free(world);
}

int main(int argc, char **argv) {
    check_begin(argc, argv);
    group_writes_all_or_nothing(0, false);
    for (int32_t policy = PVERA_TAPE_KEEP_LATENT; policy <= PVERA_TAPE_RECOMPUTE; ++policy)
        group_writes_all_or_nothing(policy, true);
    static struct result first, again;
    for (int32_t policy = PVERA_TAPE_KEEP_LATENT; policy <= PVERA_TAPE_RECOMPUTE; ++policy) {
        struct memory memory = {0};
        memset(&first, 0, sizeof first);
        MUST(job(&memory, policy, &first));
        balanced(&memory, 0);
        size_t total = memory.calls;
        CHECK(total >= 12, "only %zu allocations went to the host", total);
        for (size_t fail_at = 1; fail_at <= total; ++fail_at) {
            memory = (struct memory){.fail_at = fail_at};
            CHECK_ERROR(job(&memory, policy, &again), PVERA_ERROR_MEMORY, "memory");
            balanced(&memory, fail_at);
        }
        memory = (struct memory){.fail_at = total + 1};
        memset(&again, 0, sizeof again);
        CHECK_OK(job(&memory, policy, &again));
        balanced(&memory, total + 1);
        CHECK_SAME_BITS("after failures", &first, &again, sizeof first);
    }
    return check_end();
}
