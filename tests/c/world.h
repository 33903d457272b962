/* A small model that many tests share: layer 0 "q" with a base weight and bias, layer 1 "v" without, one trained adapter. */
#ifndef PVERA_TESTS_WORLD_H
#define PVERA_TESTS_WORLD_H

#include "numbers.h"

enum { IN = 9, OUT = 13, V_OUT = 5, RANK = 4, ROWS = 6 };

struct world {
    pvera_context *context;
    pvera_model *model;
    pvera_config *config;
    pvera_store *store;
    pvera_adapter *adapter;     /* trainable; published as "one" */
    pvera_linear *q, *v;        /* of the adapter */
    pvera_snapshot *snapshot;
    float *parameters;
    size_t parameter_count;
    int32_t slot;
    float x[ROWS * IN], weight[OUT * IN], bias[OUT];
};

static inline void world_layers(struct world *world) {
    fill(world->weight, OUT * IN, 1);
    fill(world->bias, OUT, 2);
    pvera_layer layer = {.struct_size = sizeof layer, .name = "q", .in_features = IN, .out_features = OUT};
    layer.weight = pvera_f32(world->weight, OUT, IN);
    layer.bias = pvera_f32(world->bias, 1, OUT);
    MUST(pvera_model_declare(world->model, &layer, NULL));
    pvera_layer bare = {.struct_size = sizeof bare, .name = "v", .in_features = IN, .out_features = V_OUT};
    MUST(pvera_model_declare(world->model, &bare, NULL));
}

static inline void world_config(struct world *world, double dropout, const char *bias) {
    MUST(pvera_config_new(&world->config));
    MUST(pvera_config_set_int(world->config, "r", RANK));
    MUST(pvera_config_set_int(world->config, "projection_prng_key", 77));
    MUST(pvera_config_set_real(world->config, "pvera_dropout", dropout));
    MUST(pvera_config_set_text(world->config, "bias", bias));
    MUST(pvera_config_set_json(world->config, "target_modules", "[\"q\", \"v\"]"));
}

static inline struct world *world_new(const pvera_context_options *context, const pvera_model_options *model,
                                      double dropout, const char *bias) {
    struct world *world = calloc(1, sizeof *world);
    MUST(pvera_context_new(context, &world->context));
    MUST(pvera_model_new(model, &world->model));
    world_layers(world);
    world_config(world, dropout, bias);
    MUST(pvera_adapter_new(world->model, world->config, NULL, NULL, &world->adapter));
    MUST(pvera_adapter_parameters(world->adapter, &world->parameters, &world->parameter_count));
    fill(world->parameters, world->parameter_count, 3);
    fill(world->x, ROWS * IN, 4);
    MUST(pvera_adapter_linear(world->adapter, 0, &world->q));
    if (strcmp(bias, "none") == 0) MUST(pvera_adapter_linear(world->adapter, 1, &world->v));
    MUST(pvera_model_publish(world->model, "one", world->adapter, &world->slot));
    MUST(pvera_model_snapshot(world->model, &world->snapshot));
    MUST(pvera_adapter_store(world->adapter, &world->store));
    return world;
}

static inline struct world *world_default(void) { return world_new(NULL, NULL, 0, "none"); }

static inline void world_free(struct world *world) {
    pvera_linear_free(world->q);
    pvera_linear_free(world->v);
    pvera_snapshot_free(world->snapshot);
    pvera_store_free(world->store);
    pvera_adapter_free(world->adapter);
    pvera_config_free(world->config);
    pvera_model_free(world->model);
    pvera_context_free(world->context);
    free(world);
}

#endif
