/* Training from C: the caller's memory and optimiser, tapes of every policy, groups, standalone layers, checkpoints; and
 * gradients against central differences of the reference backend. */
#include <sys/stat.h>

#include "world.h"

static pvera_context *context_of(int32_t backend) {
    pvera_context_options options = {.struct_size = sizeof options, .backend = backend};
    pvera_context *context = NULL;
    MUST(pvera_context_new(&options, &context));
    return context;
}

/* The loss of the difference checks: Σ y ∘ dy over both layers, plus the KL term of layer 0. */
struct problem {
    struct world *world;
    pvera_context *reference;
    float dy[2][ROWS * OUT];
    pvera_noise noise;
    pvera_rows rows;
    double kl_weight;
    int32_t kl_reduction;
};

static const double step = 1.0 / 1024;

static double loss(struct problem *problem, const float *x) {
    static float y[2][ROWS * OUT];
    struct world *world = problem->world;
    pvera_tape *tape = NULL;
    const pvera_linear *both[2] = {world->q, world->v};
    pvera_matrix input = pvera_f32(x, ROWS, IN);
    pvera_matrix_mut out[2] = {pvera_f32_mut(y[0], ROWS, OUT), pvera_f32_mut(y[1], ROWS, V_OUT)};
    double sum = 0, kl = 0;
    memset(y, 0, sizeof y);
    MUST(pvera_tape_new(PVERA_TAPE_RECOMPUTE, NULL, &tape));
    MUST(pvera_forward_group(problem->reference, 2, both, &input, &problem->rows, &problem->noise, tape, out));
    for (int layer = 0; layer < 2; ++layer)
        for (size_t i = 0; i < ROWS * out[layer].cols; ++i) sum += (double)y[layer][i] * problem->dy[layer][i];
    if (problem->kl_weight != 0) {
        pvera_matrix zeros[2] = {pvera_f32(problem->dy[0], ROWS, OUT), pvera_f32(problem->dy[1], ROWS, V_OUT)};
        pvera_gradients wanted[2] = {{.struct_size = sizeof *wanted}, {.struct_size = sizeof *wanted}};
        wanted[0].kl_weight = problem->kl_weight, wanted[0].kl_value = &kl, wanted[0].kl_reduction = problem->kl_reduction;
        MUST(pvera_backward_group(problem->reference, tape, 2, zeros, wanted, NULL));
    }
    pvera_tape_free(tape);
    return sum + problem->kl_weight * kl;
}

/* The derivative of the loss by one number. */
static double difference(struct problem *problem, const float *x, float *number) {
    float saved = *number;
    *number = (float)(saved + step);
    double above = loss(problem, x), up = *number;
    *number = (float)(saved - step);
    double below = loss(problem, x), down = *number;
    *number = saved;
    return (above - below) / (up - down);
}

static void judge(const char *what, struct problem *problem, float *x, float *numbers, size_t count, const float *found) {
    float *wanted = malloc(count * sizeof *wanted);
    for (size_t i = 0; i < count; ++i) wanted[i] = (float)difference(problem, x, &numbers[i]);
    CHECK_CLOSE(what, found, count, wanted, count, 3e-4); /* y is rounded to f32 before the difference is taken */
    free(wanted);
}

static void gradients(const char *what, double dropout, const char *mode_name, int32_t mode, double kl_weight, int32_t kl_reduction) {
    struct world *world = world_new(NULL, NULL, dropout, "none");
    struct problem problem = {.world = world, .reference = context_of(PVERA_BACKEND_REFERENCE), .kl_weight = kl_weight};
    problem.kl_reduction = kl_reduction;
    problem.noise = (pvera_noise){.struct_size = sizeof problem.noise, .mode = mode, .seed = 5};
    problem.rows = (pvera_rows){.struct_size = sizeof problem.rows, .identity_base = 40, .sample_base = 3};
    fill(problem.dy[0], ROWS * OUT, 11), fill(problem.dy[1], ROWS * V_OUT, 12);
    static float y[2][ROWS * OUT], dx[ROWS * IN], found[200];
    const pvera_linear *both[2] = {world->q, world->v};
    pvera_matrix input = pvera_f32(world->x, ROWS, IN);
    pvera_matrix dy[2] = {pvera_f32(problem.dy[0], ROWS, OUT), pvera_f32(problem.dy[1], ROWS, V_OUT)};
    pvera_matrix_mut out[2] = {pvera_f32_mut(y[0], ROWS, OUT), pvera_f32_mut(y[1], ROWS, V_OUT)};
    pvera_matrix_mut dx_out = pvera_f32_mut(dx, ROWS, IN);
    pvera_parameter_range at[2];
    pvera_slot_gradients slots[2];
    pvera_gradients wanted[2];
    char name[100];
    memset(wanted, 0, sizeof wanted), memset(slots, 0, sizeof slots);
    for (int layer = 0; layer < 2; ++layer) {
        MUST(pvera_adapter_range(world->adapter, (size_t)layer, &at[layer]));
        slots[layer].lambda_b = found + at[layer].lambda_b, slots[layer].lambda_d = found + at[layer].lambda_d;
        wanted[layer].struct_size = sizeof *wanted, wanted[layer].overwrite = PVERA_OVERWRITE_ALL;
        wanted[layer].slots = &slots[layer], wanted[layer].slot_count = 1;
    }
    wanted[0].kl_weight = kl_weight, wanted[0].kl_reduction = kl_reduction;
    for (int32_t policy = PVERA_TAPE_KEEP_LATENT; policy <= PVERA_TAPE_RECOMPUTE; ++policy) {
        pvera_tape *tape = NULL;
        size_t bytes = 0;
        memset(y, 0, sizeof y);
        MUST(pvera_tape_new(policy, NULL, &tape));
        MUST(pvera_forward_group(world->context, 2, both, &input, &problem.rows, &problem.noise, tape, out));
        MUST(pvera_backward_group(world->context, tape, 2, dy, wanted, &dx_out));
        MUST(pvera_tape_bytes(tape, &bytes));
        CHECK((bytes == 0) == (policy == PVERA_TAPE_RECOMPUTE), "policy %d holds %zu bytes", policy, bytes);
        snprintf(name, sizeof name, "%s, %s, policy %d", what, mode_name, policy);
        judge(name, &problem, world->x, world->parameters, world->parameter_count, found);
        judge(name, &problem, world->x, world->x, ROWS * IN, dx);
        /* Accumulating doubles them; skipping leaves them. */
        float twice[200], once[200];
        memcpy(once, found, sizeof once);
        for (size_t i = 0; i < world->parameter_count; ++i) twice[i] = 2 * once[i];
        wanted[0].overwrite = wanted[1].overwrite = 0;
        MUST(pvera_backward_group(world->context, tape, 2, dy, wanted, NULL));
        CHECK_CLOSE("accumulated", found, world->parameter_count, twice, world->parameter_count, 1e-6);
        wanted[0].overwrite = wanted[1].overwrite = PVERA_OVERWRITE_ALL;
        pvera_tape_free(tape);
    }
    pvera_context_free(problem.reference);
    world_free(world);
}

/* A least-squares fit with the caller's own parameter memory; the loss falls, and a snapshot of the start does not move. */
static void end_to_end(void) {
    struct world *world = world_default();
    enum { MOST = 200 };
    float parameters[MOST], gradients[MOST] = {0}, first[MOST] = {0}, second[MOST] = {0};
    float y[ROWS * OUT], target[ROWS * OUT], dy[ROWS * OUT], before[ROWS * OUT], after[ROWS * OUT];
    pvera_adapter *mine = NULL;
    pvera_linear *linear = NULL;
    pvera_tape *tape = NULL;
    pvera_parameter_range at;
    const pvera_linear *published = NULL;
    pvera_matrix x = pvera_f32(world->x, ROWS, IN), gradient = pvera_f32(dy, ROWS, OUT);
    pvera_matrix_mut out = pvera_f32_mut(y, ROWS, OUT), old = pvera_f32_mut(before, ROWS, OUT), now = pvera_f32_mut(after, ROWS, OUT);
    size_t count = 0;
    MUST(pvera_adapter_parameter_count(world->adapter, &count));
    CHECK(count == world->parameter_count && count <= MOST, "%zu parameters", count);
    MUST(pvera_adapter_trainable(world->adapter, parameters, count, &mine));
    CHECK_SAME_BITS("adopted parameters", parameters, world->parameters, count * sizeof(float));
    float *same = NULL;
    MUST(pvera_adapter_parameters(mine, &same, &count));
    CHECK(same == parameters, "the parameters are not the caller's");
    MUST(pvera_adapter_linear(mine, 0, &linear));
    MUST(pvera_adapter_range(mine, 0, &at));
    MUST(pvera_snapshot_linear(world->snapshot, 0, &published));
    MUST(pvera_forward(world->context, published, &x, NULL, NULL, NULL, &old));
    MUST(pvera_tape_new(PVERA_TAPE_KEEP_DELTA, NULL, &tape));
    fill(target, ROWS * OUT, 21);
    pvera_adamw adamw = pvera_adamw_default();
    adamw.learning_rate = 0.02;
    double first_loss = 0, last_loss = 0, kl = 0;
    for (uint64_t epoch = 1; epoch <= 300; ++epoch) {
        pvera_noise noise = {.struct_size = sizeof noise, .mode = PVERA_MODE_MEAN};
        pvera_slot_gradients slot = {0, gradients + at.lambda_b, gradients + at.lambda_d, NULL};
        pvera_gradients wanted = {.struct_size = sizeof wanted, .overwrite = PVERA_OVERWRITE_ALL, .slots = &slot, .slot_count = 1};
        wanted.kl_weight = 1e-6, wanted.kl_value = &kl;
        MUST(pvera_forward(world->context, linear, &x, NULL, &noise, tape, &out));
        last_loss = 0;
        for (size_t i = 0; i < ROWS * OUT; ++i) {
            dy[i] = y[i] - target[i];
            last_loss += 0.5 * dy[i] * dy[i];
        }
        if (epoch == 1) first_loss = last_loss;
        MUST(pvera_backward(world->context, tape, &gradient, &wanted, NULL));
        MUST(pvera_adamw_step(&adamw, epoch, count, parameters, gradients, first, second));
    }
    CHECK(last_loss < 0.7 * first_loss, "the loss went from %g to %g", first_loss, last_loss);
    MUST(pvera_forward(world->context, published, &x, NULL, NULL, NULL, &now));
    CHECK_SAME_BITS("a published adapter under training", before, after, sizeof before);
    pvera_tape_free(tape), pvera_linear_free(linear), pvera_adapter_free(mine);
    world_free(world);
}

/* The same layer, once of an adapter and once standalone on borrowed vectors, as an autograd function has it. */
static void standalone(void) {
    struct world *world = world_default();
    float y[2][ROWS * OUT], dx[2][ROWS * IN], lambda_b[2][OUT], lambda_d[2][2 * RANK], own_b[OUT], own_d[2 * RANK];
    pvera_parameter_range at;
    pvera_linear *linears[2] = {world->q, NULL};
    pvera_matrix x = pvera_f32(world->x, ROWS, IN);
    MUST(pvera_adapter_range(world->adapter, 0, &at));
    memcpy(own_b, world->parameters + at.lambda_b, sizeof own_b), memcpy(own_d, world->parameters + at.lambda_d, sizeof own_d);
    pvera_layer layer = {.struct_size = sizeof layer, .name = "q", .in_features = IN, .out_features = OUT};
    layer.weight = pvera_f32(world->weight, OUT, IN), layer.bias = pvera_f32(world->bias, 1, OUT);
    pvera_linear_vectors vectors = {.struct_size = sizeof vectors, .lambda_b = own_b, .lambda_d = own_d};
    MUST(pvera_linear_new(&layer, world->store, world->config, &vectors, &linears[1]));
    for (int i = 0; i < 2; ++i) {
        pvera_tape *tape = NULL;
        pvera_matrix_mut out = pvera_f32_mut(y[i], ROWS, OUT), dx_out = pvera_f32_mut(dx[i], ROWS, IN);
        pvera_matrix dy = pvera_f32(y[0], ROWS, OUT);
        pvera_slot_gradients slot = {0, lambda_b[i], lambda_d[i], NULL};
        pvera_gradients wanted = {.struct_size = sizeof wanted, .overwrite = PVERA_OVERWRITE_ALL, .slots = &slot, .slot_count = 1};
        MUST(pvera_tape_new(PVERA_TAPE_KEEP_LATENT, NULL, &tape));
        MUST(pvera_forward(world->context, linears[i], &x, NULL, NULL, tape, &out));
        MUST(pvera_backward(world->context, tape, &dy, &wanted, &dx_out));
        pvera_tape_free(tape);
    }
    CHECK_SAME_BITS("standalone y", y[0], y[1], sizeof y[0]);
    CHECK_SAME_BITS("standalone dx", dx[0], dx[1], sizeof dx[0]);
    CHECK_SAME_BITS("standalone dlambda_b", lambda_b[0], lambda_b[1], sizeof lambda_b[0]);
    CHECK_SAME_BITS("standalone dlambda_d", lambda_d[0], lambda_d[1], sizeof lambda_d[0]);
    own_b[0] += 1; /* read where it lies, at every call */
    pvera_matrix_mut out = pvera_f32_mut(y[1], ROWS, OUT);
    MUST(pvera_forward(world->context, linears[1], &x, NULL, NULL, NULL, &out));
    pvera_matrix_mut unchanged = pvera_f32_mut(y[0], ROWS, OUT);
    MUST(pvera_forward(world->context, linears[0], &x, NULL, NULL, NULL, &unchanged));
    CHECK(y[0][0] != y[1][0] && memcmp(&y[0][1], &y[1][1], (OUT - 1) * sizeof(float)) == 0, "only output 0 changes");
    pvera_linear_free(linears[1]);
    world_free(world);
}

/* Forward and backward of some of the world's rows, by number, with a slot each; vectors go to slot `named` (−1: nowhere). */
struct per_row {
    size_t count;
    size_t rows[ROWS];
    int32_t slots[ROWS];
    int32_t named;
    float lambda_b[OUT], lambda_d[2 * RANK], dx[ROWS * IN];
    double divergence;
};

static pvera_error *per_row_step(const struct world *world, const pvera_linear *linear, struct per_row *part) {
    float x[ROWS * IN], dy[ROWS * OUT], all_dy[ROWS * OUT], y[ROWS * OUT];
    uint64_t identity[ROWS];
    pvera_tape *tape = NULL;
    fill(all_dy, ROWS * OUT, 40);
    for (size_t i = 0; i < part->count; ++i) {
        memcpy(x + i * IN, world->x + part->rows[i] * IN, IN * sizeof *x);
        memcpy(dy + i * OUT, all_dy + part->rows[i] * OUT, OUT * sizeof *dy);
        identity[i] = part->rows[i];
    }
    const pvera_matrix in = pvera_f32(x, part->count, IN), gradient = pvera_f32(dy, part->count, OUT);
    const pvera_matrix_mut out = pvera_f32_mut(y, part->count, OUT), dx = pvera_f32_mut(part->dx, part->count, IN);
    const pvera_rows rows = {.struct_size = sizeof rows, .slot = part->slots, .identity = identity};
    const pvera_noise noise = {.struct_size = sizeof noise, .mode = PVERA_MODE_SAMPLE, .seed = 4};
    const pvera_slot_gradients slot = {part->named, part->lambda_b, part->lambda_d, NULL};
    pvera_gradients wanted = {.struct_size = sizeof wanted, .overwrite = PVERA_OVERWRITE_ALL, .slots = &slot};
    wanted.slot_count = part->named != -1, wanted.kl_value = &part->divergence, wanted.kl_reduction = PVERA_KL_SUM;
    wanted.kl_weight = 0.1;
    MUST(pvera_tape_new(PVERA_TAPE_KEEP_DELTA, NULL, &tape));
    MUST(pvera_forward(world->context, linear, &in, &rows, &noise, tape, &out));
    pvera_error *error = pvera_backward(world->context, tape, &gradient, &wanted, &dx);
    pvera_tape_free(tape);
    return error;
}

/* An adapter a row: each adapter's gradients come from its own rows, whatever else is asked for. */
static void slots_of_a_tape(void) {
    struct world *world = world_new(NULL, NULL, 0, "none");
    pvera_adapter *second = NULL;
    pvera_snapshot *snapshot = NULL;
    const pvera_linear *linear = NULL;
    float *parameters = NULL;
    size_t count = 0;
    MUST(pvera_adapter_trainable(world->adapter, NULL, 0, &second));
    MUST(pvera_adapter_parameters(second, &parameters, &count));
    fill(parameters, count, 41);
    MUST(pvera_model_publish(world->model, "two", second, NULL));
    MUST(pvera_model_snapshot(world->model, &snapshot));
    MUST(pvera_snapshot_linear(snapshot, 0, &linear));
    memset(parameters, 0, count * sizeof *parameters); /* the snapshot has a copy */

    struct per_row mixed = {.count = ROWS, .rows = {0, 1, 2, 3, 4, 5}, .slots = {0, 1, -1, 1, 0, 1}, .named = 1};
    struct per_row of_second = {.count = 3, .rows = {1, 3, 5}, .slots = {1, 1, 1}, .named = 1};
    struct per_row of_first = {.count = 2, .rows = {0, 4}, .slots = {0, 0}, .named = -1};
    struct per_row of_base = {.count = 1, .rows = {2}, .slots = {-1}, .named = -1};
    MUST(per_row_step(world, linear, &mixed));
    MUST(per_row_step(world, linear, &of_second));
    MUST(per_row_step(world, linear, &of_first));
    MUST(per_row_step(world, linear, &of_base));
    CHECK(of_second.lambda_b[0] != 0 && of_second.lambda_d[0] != 0, "no gradients, as if the snapshot had no copy");
    CHECK_CLOSE("dlambda_b of its rows", mixed.lambda_b, OUT, of_second.lambda_b, OUT, 1e-6);
    CHECK_CLOSE("dlambda_d of its rows", mixed.lambda_d, 2 * RANK, of_second.lambda_d, 2 * RANK, 1e-6);
    const double sum = of_second.divergence + of_first.divergence;
    CHECK(of_first.divergence > 0 && of_base.divergence == 0, "%g and %g", of_first.divergence, of_base.divergence);
    CHECK(fabs(mixed.divergence - sum) < 1e-6 * sum, "the divergence is %g; wanted %g", mixed.divergence, sum);
    const struct per_row *parts[] = {&of_second, &of_first, &of_base};
    for (size_t part = 0; part < 3; ++part)
        for (size_t i = 0; i < parts[part]->count; ++i)
            CHECK_SAME_BITS("dx of a row", mixed.dx + parts[part]->rows[i] * IN, parts[part]->dx + i * IN, IN * sizeof(float));
    of_second.named = 0; /* nobody's slot in that forward */
    CHECK_ERROR(per_row_step(world, linear, &of_second), PVERA_ERROR_NOT_FOUND, "gradients.slots names slot 0|took no part");
    pvera_snapshot_free(snapshot), pvera_adapter_free(second);
    world_free(world);
}

static int32_t never(void *user, const char *stage, uint64_t done, uint64_t total) {
    (void)stage, (void)done, (void)total;
    ++*(int *)user;
    return 1;
}

/* A save calls no callback, not even one that would stop it. */
static void save_is_not_stopped(void) {
    int calls = 0;
    char parent[] = "pvera-train-XXXXXX", folder[64];
    pvera_model_options options = {.struct_size = sizeof options, .callbacks = {.progress = never, .user = &calls}};
    pvera_store_options sizes = {.struct_size = sizeof sizes, .rank = RANK, .in_max = IN, .out_max = OUT};
    pvera_store *store = NULL;
    pvera_model *model = NULL;
    pvera_config *config = NULL;
    pvera_adapter *adapter = NULL, *loaded = NULL;
    pvera_bytes files[2];
    const pvera_layer layer = {.struct_size = sizeof layer, .name = "q", .in_features = IN, .out_features = OUT};
    MUST(pvera_store_from_key(0, &sizes, &store));
    MUST(pvera_model_new(&options, &model));
    MUST(pvera_model_declare(model, &layer, NULL));
    MUST(pvera_config_new(&config));
    MUST(pvera_config_set_int(config, "r", RANK));
    MUST(pvera_config_set_text(config, "target_modules", "q"));
    CHECK_ERROR(pvera_adapter_new(model, config, NULL, NULL, &adapter), PVERA_ERROR_CANCELLED, "draw of projections");
    CHECK(calls == 1, "%d calls of a draw", calls);
    MUST(pvera_adapter_new(model, config, store, NULL, &adapter));
    if (!CHECK(mkdtemp(parent) != NULL, "mkdtemp")) exit(check_end());
    snprintf(folder, sizeof folder, "%s/adapter", parent);
    MUST(pvera_adapter_save(adapter, folder));
    MUST(pvera_adapter_save_memory(adapter, &files[0], &files[1]));
    MUST(pvera_adapter_load(model, folder, NULL, &loaded));
    CHECK(calls == 1, "a save called %d times", calls - 1);
    pvera_bytes_free(&files[0]), pvera_bytes_free(&files[1]);
    pvera_adapter_free(loaded), pvera_adapter_free(adapter), pvera_config_free(config), pvera_model_free(model);
    pvera_store_free(store);
    char file[128];
    snprintf(file, sizeof file, "%s/adapter_config.json", folder), remove(file);
    snprintf(file, sizeof file, "%s/adapter_model.safetensors", folder), remove(file);
    remove(folder), remove(parent);
}

/* Saved and loaded again, in a folder and in memory: the same parameters, outputs, config and carried tensors. */
static void round_trip(void) {
    struct world *world = world_new(NULL, NULL, 0.25, "none");
    const char *key = "base_model.model.classifier.weight";
    const size_t shape[2] = {3, 2};
    float head[6], outputs[3][ROWS * OUT];
    pvera_bytes config, tensors;
    pvera_adapter *carrying = NULL, *loaded[2] = {NULL, NULL};
    char parent[] = "pvera-train-XXXXXX", folder[64], file[128];
    pvera_matrix x = pvera_f32(world->x, ROWS, IN);
    fill(head, 6, 30);
    MUST(pvera_adapter_trainable(world->adapter, NULL, 0, &carrying));
    MUST(pvera_adapter_set_tensor(carrying, key, PVERA_F32, shape, 2, head, sizeof head));
    head[0] = 7;
    MUST(pvera_adapter_set_tensor(carrying, key, PVERA_F32, shape, 2, head, sizeof head));
    if (!CHECK(mkdtemp(parent) != NULL, "mkdtemp")) exit(check_end());
    snprintf(folder, sizeof folder, "%s/adapter", parent);
    MUST(pvera_adapter_save(carrying, folder));
    MUST(pvera_adapter_save(carrying, folder)); /* over the old one */
    MUST(pvera_adapter_save_memory(carrying, &config, &tensors));
    pvera_adapter_options options = {.struct_size = sizeof options, .map_file = true};
    MUST(pvera_adapter_load(world->model, folder, &options, &loaded[0]));
    MUST(pvera_adapter_load_memory(world->model, config.data, config.size, tensors.data, tensors.size, NULL, &loaded[1]));
    pvera_store *of_bytes = NULL, *of_adapter = NULL;
    bool same_store = false;
    MUST(pvera_store_from_memory(tensors.data, tensors.size, NULL, &of_bytes));
    MUST(pvera_adapter_store(carrying, &of_adapter));
    MUST(pvera_store_equal(of_bytes, of_adapter, &same_store));
    CHECK(same_store, "a store from the checkpoint's bytes differs from the adapter's");
    pvera_store_free(of_bytes);
    pvera_store_free(of_adapter);
    for (int i = 0; i < 3; ++i) {
        pvera_adapter *from = i < 2 ? loaded[i] : carrying, *copy = NULL;
        pvera_linear *linear = NULL;
        pvera_store *store = NULL;
        pvera_config *own = NULL;
        pvera_tensor tensor, same;
        pvera_matrix_mut out = pvera_f32_mut(outputs[i], ROWS, OUT);
        float *parameters = NULL;
        size_t count = 0;
        double dropout = 0;
        bool equal = false, adapts = false;
        MUST(pvera_adapter_trainable(from, NULL, 0, &copy));
        MUST(pvera_adapter_parameters(copy, &parameters, &count));
        if (CHECK(count == world->parameter_count, "%zu parameters", count))
            CHECK_SAME_BITS("loaded parameters", parameters, world->parameters, count * sizeof(float));
        MUST(pvera_adapter_store(from, &store));
        MUST(pvera_store_equal(store, world->store, &equal));
        CHECK(equal, "the stores differ");
        MUST(pvera_adapter_config(from, &own));
        MUST(pvera_config_get_real(own, "pvera_dropout", &dropout));
        CHECK(dropout == 0.25, "pvera_dropout is %g", dropout);
        MUST(pvera_adapter_adapts(from, 1, &adapts));
        CHECK(adapts, "v is not adapted");
        MUST(pvera_adapter_tensor_count(from, &count));
        CHECK(count == 1, "%zu carried tensors", count);
        MUST(pvera_adapter_find_tensor(from, key, &tensor));
        MUST(pvera_adapter_tensor_at(from, 0, &same));
        CHECK(same.data == tensor.data && tensor.dimensions == 2 && tensor.shape[0] == 3 && tensor.shape[1] == 2, "a shape");
        CHECK(tensor.dtype.code == PVERA_DTYPE_FLOAT && tensor.dtype.bits == 32 && tensor.size == sizeof head, "a type");
        CHECK_SAME_BITS("a carried tensor", tensor.data, head, sizeof head);
        MUST(pvera_adapter_linear(from, 0, &linear));
        MUST(pvera_forward(world->context, linear, &x, NULL, NULL, NULL, &out));
        pvera_linear_free(linear), pvera_store_free(store), pvera_config_free(own), pvera_adapter_free(copy);
    }
    CHECK_SAME_BITS("y of a loaded folder", outputs[0], outputs[2], sizeof outputs[0]);
    CHECK_SAME_BITS("y of loaded memory", outputs[1], outputs[2], sizeof outputs[0]);
    pvera_adapter_free(loaded[0]), pvera_adapter_free(loaded[1]), pvera_adapter_free(carrying);
    pvera_bytes_free(&config), pvera_bytes_free(&tensors);
    snprintf(file, sizeof file, "%s/adapter_config.json", folder), remove(file);
    snprintf(file, sizeof file, "%s/adapter_model.safetensors", folder), remove(file);
    CHECK(rmdir(folder) == 0 && rmdir(parent) == 0, "something else was left in %s", parent);
    world_free(world);
}

/* A learned bias takes the place of the layer's, and has a gradient. */
static void learned_bias(void) {
    struct world *world = world_new(NULL, NULL, 0, "none");
    float lambda_b[OUT] = {0}, lambda_d[2 * RANK] = {0}, bias[OUT], y[2][ROWS * OUT], dy[ROWS * OUT], found[OUT], wanted_sum[OUT] = {0};
    pvera_layer layer = {.struct_size = sizeof layer, .name = "q", .in_features = IN, .out_features = OUT};
    layer.weight = pvera_f32(world->weight, OUT, IN), layer.bias = pvera_f32(world->bias, 1, OUT);
    pvera_linear_vectors vectors = {.struct_size = sizeof vectors, .lambda_b = lambda_b, .lambda_d = lambda_d, .bias = bias};
    pvera_linear *linear = NULL;
    pvera_tape *tape = NULL;
    pvera_matrix x = pvera_f32(world->x, ROWS, IN), gradient = pvera_f32(dy, ROWS, OUT);
    pvera_matrix_mut out = pvera_f32_mut(y[0], ROWS, OUT);
    for (size_t j = 0; j < OUT; ++j) bias[j] = world->bias[j] + 1;
    fill(dy, ROWS * OUT, 8);
    MUST(pvera_linear_new(&layer, world->store, NULL, &vectors, &linear));
    MUST(pvera_tape_new(PVERA_TAPE_KEEP_LATENT, NULL, &tape));
    MUST(pvera_forward(world->context, linear, &x, NULL, NULL, tape, &out));
    for (size_t i = 0; i < ROWS; ++i) {
        for (size_t j = 0; j < OUT; ++j) {
            double sum = bias[j];
            for (size_t k = 0; k < IN; ++k) sum += (double)world->x[i * IN + k] * world->weight[j * IN + k];
            y[1][i * OUT + j] = (float)sum;
            wanted_sum[j] += dy[i * OUT + j];
        }
    }
    CHECK_CLOSE("y with a learned bias", y[0], ROWS * OUT, y[1], ROWS * OUT, 1e-6);
    pvera_slot_gradients slot = {0, NULL, NULL, found};
    pvera_gradients wanted = {.struct_size = sizeof wanted, .overwrite = PVERA_OVERWRITE_ALL, .slots = &slot, .slot_count = 1};
    MUST(pvera_backward(world->context, tape, &gradient, &wanted, NULL));
    CHECK_CLOSE("dbias", found, OUT, wanted_sum, OUT, 1e-5);
    pvera_tape_free(tape), pvera_linear_free(linear);
    world_free(world);
}

/* Whole vectors, on a standalone layer of the adapter's store, whose gradient of lambda_d has r numbers. */
static void standalone_of_vera(struct world *world, pvera_store *store, const float *wanted, float *lambda_b,
                               float *lambda_d) {
    float y[ROWS * V_OUT] = {0}, dy[ROWS * V_OUT], found[RANK + 1], none = 7;
    pvera_layer layer = {.struct_size = sizeof layer, .name = "v", .in_features = IN, .out_features = V_OUT};
    pvera_linear_vectors vectors = {.struct_size = sizeof vectors, .lambda_b = lambda_b, .lambda_d = lambda_d};
    pvera_linear *linear = NULL;
    pvera_tape *tape = NULL;
    pvera_matrix x = pvera_f32(world->x, ROWS, IN), gradient = pvera_f32(dy, ROWS, V_OUT);
    pvera_matrix_mut out = pvera_f32_mut(y, ROWS, V_OUT);
    double divergence = 0, dot = 0, along = 0;
    fill(dy, ROWS * V_OUT, 9);
    found[RANK] = none;
    MUST(pvera_linear_new(&layer, store, NULL, &vectors, &linear));
    MUST(pvera_tape_new(PVERA_TAPE_KEEP_LATENT, NULL, &tape));
    MUST(pvera_forward(world->context, linear, &x, NULL, NULL, tape, &out));
    CHECK_CLOSE("y of a standalone VeRA layer", y, ROWS * V_OUT, wanted, ROWS * V_OUT, 1e-6);
    pvera_slot_gradients slot = {0, NULL, found, NULL};
    pvera_gradients gradients = {.struct_size = sizeof gradients, .overwrite = PVERA_OVERWRITE_ALL};
    gradients.slots = &slot, gradients.slot_count = 1;
    gradients.kl_value = &divergence;
    CHECK_ERROR(pvera_backward(world->context, tape, &gradient, &gradients, NULL), PVERA_ERROR_UNSUPPORTED,
                "slot 0|divergence|kl_value");
    gradients.kl_value = NULL;
    MUST(pvera_backward(world->context, tape, &gradient, &gradients, NULL));
    CHECK(found[RANK] == none, "more than r numbers were written");
    /* y is linear in lambda_d: lambda_d . dlambda_d = sum y dy. */
    for (size_t k = 0; k < RANK; ++k) along += (double)lambda_d[k] * found[k];
    for (size_t i = 0; i < ROWS * V_OUT; ++i) dot += (double)wanted[i] * dy[i];
    CHECK(fabs(along - dot) <= 1e-5 * fabs(dot), "%g along lambda_d; wanted %g", along, dot);
    pvera_tape_free(tape), pvera_linear_free(linear);
}

/* VeRA: the formula, and what it has less of. */
static void vera(void) {
    struct world *world = world_new(NULL, NULL, 0, "none");
    pvera_adapter *adapter = NULL;
    pvera_store *store = NULL;
    pvera_linear *linear = NULL;
    pvera_parameter_range range;
    pvera_matrix a, b, x = pvera_f32(world->x, ROWS, IN);
    float y[ROWS * V_OUT] = {0}, wanted[ROWS * V_OUT], *parameters = NULL;
    pvera_matrix_mut out = pvera_f32_mut(y, ROWS, V_OUT);
    size_t count = 0;
    MUST(pvera_config_set_text(world->config, "peft_type", "VERA"));
    CHECK_ERROR(pvera_config_set_real(world->config, "logvar_bound", 3), PVERA_ERROR_NOT_FOUND, "logvar_bound|VERA");
    CHECK_ERROR(pvera_adapter_new(world->model, world->config, world->store, NULL, &adapter), PVERA_ERROR_PROJECTION,
                "8 rows|wanted 4|VERA");
    MUST(pvera_adapter_new(world->model, world->config, NULL, NULL, &adapter));
    MUST(pvera_adapter_parameters(adapter, &parameters, &count));
    fill(parameters, count, 6);
    CHECK(count == OUT + V_OUT + 2 * RANK, "%zu parameters", count);
    MUST(pvera_adapter_range(adapter, 1, &range));
    CHECK(range.lambda_d_count == RANK, "lambda_d has %zu numbers", range.lambda_d_count);
    MUST(pvera_adapter_store(adapter, &store));
    MUST(pvera_store_matrices(store, &a, &b));
    CHECK(a.rows == RANK && b.cols == RANK, "A has %zu rows, B %zu columns", a.rows, b.cols);
    MUST(pvera_adapter_linear(adapter, 1, &linear));
    MUST(pvera_forward(world->context, linear, &x, NULL, NULL, NULL, &out));
    const float *lambda_b = parameters + range.lambda_b, *lambda_d = parameters + range.lambda_d;
    for (size_t i = 0; i < ROWS; ++i) {
        for (size_t j = 0; j < V_OUT; ++j) {
            double sum = 0;
            for (size_t k = 0; k < RANK; ++k) {
                double p = 0;
                for (size_t m = 0; m < IN; ++m) p += (double)world->x[i * IN + m] * ((const float *)a.data)[k * IN + m];
                sum += lambda_d[k] * p * ((const float *)b.data)[j * RANK + k];
            }
            wanted[i * V_OUT + j] = (float)(lambda_b[j] * sum);
        }
    }
    CHECK_CLOSE("y of VeRA", y, ROWS * V_OUT, wanted, ROWS * V_OUT, 1e-6);
    standalone_of_vera(world, store, wanted, parameters + range.lambda_b, parameters + range.lambda_d);
    pvera_linear_free(linear), pvera_store_free(store), pvera_adapter_free(adapter);
    world_free(world);
}

int main(int argc, char **argv) {
    check_begin(argc, argv);
    gradients("plain", 0, "sample", PVERA_MODE_AS_PEFT, 0, PVERA_KL_MEAN);
    gradients("plain", 0, "mean", PVERA_MODE_MEAN, 0, PVERA_KL_MEAN);
    gradients("plain", 0, "fixed", PVERA_MODE_FIXED, 0, PVERA_KL_MEAN);
    gradients("dropout", 0.25, "sample", PVERA_MODE_SAMPLE, 0, PVERA_KL_MEAN);
    gradients("KL mean", 0, "sample", PVERA_MODE_SAMPLE, 3, PVERA_KL_MEAN);
    gradients("KL sum, dropout", 0.25, "sample", PVERA_MODE_SAMPLE, 0.5, PVERA_KL_SUM);
    end_to_end();
    standalone();
    slots_of_a_tape();
    save_is_not_stopped();
    learned_bias();
    round_trip();
    vera();
    return check_end();
}
