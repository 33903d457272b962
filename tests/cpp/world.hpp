// A small model that many tests share: layer 0 "q" with a base weight and bias, layer 1 "v" without, one trainable adapter.
#pragma once

#include <array>
#include <vector>

#include "check.hpp"

#ifndef PVERA_NO_EXCEPTIONS

struct world {
    static constexpr std::size_t in = 9, out = 13, v_out = 5, rank = 4, n = 6;

    std::vector<float> x = std::vector<float>(n * in), weight = std::vector<float>(out * in), bias = std::vector<float>(out);
    pvera::context context = pvera::context::create();
    pvera::model model;
    pvera::config config = pvera::config::create();
    pvera::adapter adapter;

    explicit world(pvera::model of = pvera::model::create()) : model(std::move(of)) {
        check::fill(weight, 1), check::fill(bias, 2), check::fill(x, 4);
        pvera::layer q("q", in, out);
        q.weight = pvera::as_matrix(weight, out, in);
        q.bias = pvera::as_matrix(bias, 1, out);
        model.declare(q);
        model.declare(pvera::layer("v", in, v_out));
        config.set_int("r", rank);
        config.set_int("projection_prng_key", 77);
        config.set_json("target_modules", R"(["q", "v"])");
        adapter = pvera::adapter::create(model, config);
        auto parameters = adapter.parameters();
        check::fill(parameters, 3);
    }

    pvera::matrix input() const { return pvera::as_matrix(x, n, in); }
    // y of layer q, by a linear of this world or another's.
    std::vector<float> forward(const pvera_linear *linear, const pvera_noise &how = pvera::noise(PVERA_MODE_MEAN)) const {
        std::vector<float> y(n * out);
        context.forward(linear, input(), pvera::as_matrix(y, n, out), pvera::rows(), how);
        return y;
    }
};

#endif
