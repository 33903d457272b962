/* Two Rust libraries, both static, in one program: each panics, catches, and runs threads beside the other. */
#include <pvera.h>
#include <stdio.h>
#include <string.h>

void neighbour_watch(void);
uint32_t neighbour_panics_seen(void);
int32_t neighbour_catches(int32_t value);

#define CHECK(condition)                                                    \
    do {                                                                    \
        if (!(condition)) {                                                 \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); \
            return 1;                                                       \
        }                                                                   \
    } while (0)

/* A panic of pvera comes back as an error, and reaches no hook of the neighbour. */
static int pvera_panics(void) {
    const uint32_t seen = neighbour_panics_seen();
    pvera_error *panic = pvera_test_panic("on purpose");
    CHECK(pvera_error_code(panic) == PVERA_ERROR_PANIC);
    CHECK(strstr(pvera_error_message(panic), "on purpose"));
    pvera_error_free(panic);
    CHECK(neighbour_panics_seen() == seen);
    return 0;
}

static int neighbour_panics(void) {
    const uint32_t seen = neighbour_panics_seen();
    CHECK(neighbour_catches(7) == 7);
    CHECK(neighbour_panics_seen() == seen);
    CHECK(neighbour_catches(-7) == -1);
    CHECK(neighbour_panics_seen() == seen + 1);
    return 0;
}

/* A forward on threads of the library, and an error of it. */
static int pvera_computes(void) {
    enum { ROWS = 64, RANK = 16, INPUTS = 32, OUTPUTS = 8 };
    static float x[ROWS * INPUTS], y[ROWS * OUTPUTS];
    for (size_t i = 0; i < ROWS * INPUTS; i++) x[i] = (float)(i % 7) - 3;
    for (size_t i = 0; i < ROWS * OUTPUTS; i++) y[i] = (float)i;
    pvera_context_options options = {.struct_size = sizeof options, .threads = 2};
    pvera_layer layer = {.struct_size = sizeof layer, .name = "q", .in_features = INPUTS, .out_features = OUTPUTS};
    pvera_context *context;
    pvera_model *model;
    pvera_config *config;
    pvera_adapter *adapter;
    pvera_linear *linear;
    CHECK(!pvera_context_new(&options, &context));
    CHECK(!pvera_model_new(NULL, &model));
    CHECK(!pvera_model_declare(model, &layer, NULL));
    CHECK(!pvera_config_new(&config));
    CHECK(!pvera_config_set_text(config, "target_modules", "q"));
    CHECK(!pvera_config_set_int(config, "r", RANK));
    CHECK(!pvera_adapter_new(model, config, NULL, NULL, &adapter));
    CHECK(!pvera_adapter_linear(adapter, 0, &linear));
    pvera_matrix in = pvera_f32(x, ROWS, INPUTS);
    pvera_matrix_mut out = pvera_f32_mut(y, ROWS, OUTPUTS);
    CHECK(!pvera_forward(context, linear, &in, NULL, NULL, NULL, &out));
    for (size_t i = 0; i < ROWS * OUTPUTS; i++) CHECK(y[i] == (float)i); /* a new adapter changes nothing */
    out.cols = 1;
    pvera_error *error = pvera_forward(context, linear, &in, NULL, NULL, NULL, &out);
    CHECK(pvera_error_code(error) == PVERA_ERROR_SHAPE);
    pvera_error_free(error);
    pvera_linear_free(linear);
    pvera_adapter_free(adapter);
    pvera_config_free(config);
    pvera_model_free(model);
    pvera_context_free(context);
    return 0;
}

int main(void) {
    neighbour_watch();
    for (int round = 0; round < 3; round++)
        if (pvera_panics() || neighbour_panics() || pvera_computes()) return 1;
    return 0;
}
