/* The smallest useful program: a new adapter, one forward. Threads and a panic need what a static link must bring along. */
#include <pvera.h>
#include <stdio.h>

static int failed(pvera_error *error) {
    if (!error) return 0;
    fprintf(stderr, "%s\n", pvera_error_message(error));
    pvera_error_free(error);
    return 1;
}

int main(void) {
    pvera_context *context = NULL;
    pvera_model *model = NULL;
    pvera_config *config = NULL;
    pvera_adapter *adapter = NULL;
    pvera_linear *linear = NULL;
    pvera_context_options options = {.struct_size = sizeof options, .threads = 2};
    pvera_layer layer = {.struct_size = sizeof layer, .name = "q", .in_features = 3, .out_features = 2};
    float x[3] = {1, 2, 3}, y[2] = {5, 6};
    pvera_matrix in = pvera_f32(x, 1, 3);
    pvera_matrix_mut out = pvera_f32_mut(y, 1, 2);
    int status = pvera_version() != PVERA_VERSION || failed(pvera_context_new(&options, &context)) ||
                 failed(pvera_model_new(NULL, &model)) || failed(pvera_model_declare(model, &layer, NULL)) ||
                 failed(pvera_config_new(&config)) || failed(pvera_config_set_text(config, "target_modules", "q")) ||
                 failed(pvera_adapter_new(model, config, NULL, NULL, &adapter)) ||
                 failed(pvera_adapter_linear(adapter, 0, &linear)) ||
                 failed(pvera_forward(context, linear, &in, NULL, NULL, NULL, &out));
    status = status || y[0] != 5 || y[1] != 6; /* a new adapter changes nothing */
    pvera_error *panic = pvera_test_panic("on purpose");
    status = status || pvera_error_code(panic) != PVERA_ERROR_PANIC;
    pvera_error_free(panic);
    pvera_linear_free(linear);
    pvera_adapter_free(adapter);
    pvera_config_free(config);
    pvera_model_free(model);
    pvera_context_free(context);
    return status;
}
