// The smallest useful program: a new adapter, one forward on threads of the library's own, and an error that is caught.
#include <array>
#include <cstdio>
#include <pvera.hpp>

int main() {
    pvera::context_options options;
    options.threads = 2;
    const auto context = pvera::context::create(options);
    const auto model = pvera::model::create();
    model.declare(pvera::layer("q", 3, 2));
    auto config = pvera::config::create();
    config.set_text("target_modules", "q");
    const auto adapter = pvera::adapter::create(model, config);

    const std::array<float, 3> x{1, 2, 3};
    std::array<float, 2> y{5, 6};
    context.forward(adapter.linear(0), pvera::as_matrix(x, 1, 3), pvera::as_matrix(y, 1, 2));
    if (y[0] != 5 || y[1] != 6 || pvera::version() != PVERA_VERSION) return 1; // a new adapter changes nothing
    try {
        pvera::test_panic("on purpose");
    } catch (const pvera::exception &error) {
        return error.code() == pvera::code::panic ? 0 : 2;
    }
    return 3;
}
