// pvera::adapter: load, create, train and save one adapter, and the tensors that it carries; pvera::combine: one for several.
#ifndef PVERA_CPP_ADAPTER_HPP
#define PVERA_CPP_ADAPTER_HPP

#include "context.hpp"
#include "model.hpp"

namespace pvera {

// A tensor that an adapter carries; of the adapter, until it is set again.
struct tensor {
    std::string_view name;
    pvera::dtype dtype;
    span<const std::size_t> shape;
    span<const uint8_t> data;
};

// The two files of a checkpoint in memory.
struct checkpoint {
    bytes config, tensors;
};

inline namespace PVERA_CPP_ERRORS {

// Reference counted: a clone is the same adapter.
class [[nodiscard]] adapter : public handle<pvera_adapter, pvera_adapter_free> {
public:
    using handle::handle;

    // Of a PEFT checkpoint folder.
    [[nodiscard]] static outcome<adapter> load(const model &model, const text &folder,
                                               const pvera_adapter_options &options = adapter_options()) {
        return make([&](pvera_adapter **made) { return pvera_adapter_load(model.get(), folder.c_str(), &options, made); });
    }

    // Of the bytes of its two files, which are copied.
    [[nodiscard]] static outcome<adapter> load_memory(const model &model, span<const uint8_t> config,
                                                      span<const uint8_t> tensors,
                                                      const pvera_adapter_options &options = adapter_options()) {
        return make([&](pvera_adapter **made) {
            return pvera_adapter_load_memory(model.get(), config.data(), config.size(), tensors.data(), tensors.size(), &options,
                                             made);
        });
    }

    // New and trainable, on projections drawn from the config's key.
    [[nodiscard]] static outcome<adapter> create(const model &model, const pvera::config &config,
                                                 const pvera_adapter_options &options = adapter_options()) {
        return make([&](pvera_adapter **made) { return pvera_adapter_new(model.get(), config.get(), nullptr, &options, made); });
    }
    // New and trainable, on given projections.
    [[nodiscard]] static outcome<adapter> create(const model &model, const pvera::config &config, const pvera::store &store,
                                                 const pvera_adapter_options &options = adapter_options()) {
        return make(
            [&](pvera_adapter **made) { return pvera_adapter_new(model.get(), config.get(), store.get(), &options, made); });
    }

    // A trainable copy, with memory of its own.
    [[nodiscard]] outcome<adapter> trainable() const {
        return make([&](pvera_adapter **made) { return pvera_adapter_trainable(get(), nullptr, 0, made); });
    }
    // A trainable copy whose parameters live in the caller's memory, which outlives the copy and every linear of it.
    [[nodiscard]] outcome<adapter> trainable(span<float> memory) const {
        return make([&](pvera_adapter **made) { return pvera_adapter_trainable(get(), memory.data(), memory.size(), made); });
    }
    // The same in device memory of a CUDA context.
    [[nodiscard]] outcome<adapter> trainable_on(const context &context, span<float> memory) const {
        return make([&](pvera_adapter **made) {
            return pvera_adapter_trainable_on(get(), context.get(), memory.data(), memory.size(), made);
        });
    }

    [[nodiscard]] outcome<adapter> clone() const {
        return make([&](pvera_adapter **made) { return pvera_adapter_clone(get(), made); });
    }

    // The live parameters of a trainable adapter, as long as it lives.
    [[nodiscard]] outcome<span<float>> parameters() const & {
        float *values = nullptr;
        std::size_t count = 0;
        pvera_error *const failed = pvera_adapter_parameters(get(), &values, &count);
        return finish(failed, span<float>(values, count));
    }
    outcome<span<float>> parameters() const && = delete;

    [[nodiscard]] outcome<std::size_t> parameter_count() const {
        std::size_t count = 0;
        pvera_error *const failed = pvera_adapter_parameter_count(get(), &count);
        return finish(failed, count);
    }

    [[nodiscard]] outcome<bool> adapts(std::size_t layer) const {
        bool does = false;
        pvera_error *const failed = pvera_adapter_adapts(get(), layer, &does);
        return finish(failed, does);
    }

    // Where a layer's vectors lie among the parameters.
    [[nodiscard]] outcome<parameter_range> range(std::size_t layer) const {
        parameter_range place{};
        pvera_error *const failed = pvera_adapter_range(get(), layer, &place);
        return finish(failed, place);
    }

    // Where backward puts a layer's gradients in an array that is laid out as the parameters.
    [[nodiscard]] outcome<slot_gradients> gradients_in(span<float> all, std::size_t layer, int32_t slot = 0) const {
        std::size_t count = 0;
        if (pvera_error *const failed = pvera_adapter_parameter_count(get(), &count)) return finish(failed, slot_gradients{});
        if (all.size() != count) return calls::misfits<slot_gradients>({"the array of gradients", all.size(), count});
        parameter_range place{};
        pvera_error *const failed = pvera_adapter_range(get(), layer, &place);
        float *const bias = place.bias_count ? all.data() + place.bias : nullptr;
        return finish(failed, slot_gradients{slot, all.data() + place.lambda_b, all.data() + place.lambda_d, bias});
    }

    // A copy.
    [[nodiscard]] outcome<pvera::config> config() const {
        pvera_config *made = nullptr;
        pvera_error *const failed = pvera_adapter_config(get(), &made);
        return finish(failed, pvera::config(made));
    }

    [[nodiscard]] outcome<pvera::store> store() const {
        pvera_store *made = nullptr;
        pvera_error *const failed = pvera_adapter_store(get(), &made);
        return finish(failed, pvera::store(made));
    }

    // One layer in slot 0, with the live parameters; keeps the adapter alive.
    [[nodiscard]] outcome<pvera::linear> linear(std::size_t layer) const {
        pvera_linear *made = nullptr;
        pvera_error *const failed = pvera_adapter_linear(get(), layer, &made);
        return finish(failed, pvera::linear(made));
    }

    // Writes a PEFT checkpoint folder, all or nothing.
    outcome<void> save(const text &folder) const { return finish(pvera_adapter_save(get(), folder.c_str())); }

    [[nodiscard]] outcome<checkpoint> save_memory() const {
        pvera_bytes config{}, tensors{};
        pvera_error *const failed = pvera_adapter_save_memory(get(), &config, &tensors);
        return finish(failed, checkpoint{bytes(config), bytes(tensors)});
    }

    [[nodiscard]] outcome<std::size_t> tensor_count() const {
        std::size_t count = 0;
        pvera_error *const failed = pvera_adapter_tensor_count(get(), &count);
        return finish(failed, count);
    }
    [[nodiscard]] outcome<tensor> tensor_at(std::size_t number) const & {
        pvera_tensor found{};
        pvera_error *const failed = pvera_adapter_tensor_at(get(), number, &found);
        return finish(failed, lent(found));
    }
    // By the key in the file: "base_model.model.classifier.weight".
    [[nodiscard]] outcome<tensor> find_tensor(const text &name) const & {
        pvera_tensor found{};
        pvera_error *const failed = pvera_adapter_find_tensor(get(), name.c_str(), &found);
        return finish(failed, lent(found));
    }
    outcome<tensor> tensor_at(std::size_t number) const && = delete;
    outcome<tensor> find_tensor(const text &name) const && = delete;

    // Of a trainable adapter that nobody else holds; everything is copied.
    outcome<void> set_tensor(const text &name, dtype type, span<const std::size_t> shape, span<const uint8_t> data) {
        return finish(pvera_adapter_set_tensor(get(), name.c_str(), type, shape.data(), shape.size(), data.data(), data.size()));
    }

private:
    // Long calls, out of which the model's callbacks are called.
    template <class Call>
    static outcome<adapter> make(Call call) {
        calls::border border;
        pvera_adapter *made = nullptr;
        pvera_error *const failed = call(&made);
        return calls::finish_at(border, failed, adapter(made));
    }

    static tensor lent(const pvera_tensor &found) noexcept {
        return {std::string_view(found.name, found.name_size), found.dtype, {found.shape, found.dimensions},
                {static_cast<const uint8_t *>(found.data), found.size}};
    }
};

// What combine gives.
struct combination {
    pvera::adapter adapter;
    // How far it is from the weighted sum, relative to that, on the layer where it is furthest.
    double error;
};

// The one adapter that is nearest to a weighted sum of several; a weight for each.
[[nodiscard]] inline outcome<combination> combine(span<const pvera_adapter *const> adapters, span<const double> weights) {
    if (weights.size() != adapters.size())
        return fail<combination>(code::shape, calls::sizes("weights", weights.size(), "adapters", adapters.size()));
    pvera_adapter *made = nullptr;
    double error = 0;
    pvera_error *const failed = pvera_adapter_combine(adapters.size(), adapters.data(), weights.data(), &error, &made);
    return finish(failed, combination{adapter(made), error});
}

inline outcome<int32_t> model::publish(const text &name, const adapter &adapter) const {
    int32_t slot = -1;
    pvera_error *const failed = pvera_model_publish(get(), name.c_str(), adapter.get(), &slot);
    return finish(failed, slot);
}

inline outcome<int32_t> model::replace(const text &name, const adapter &adapter) const {
    int32_t slot = -1;
    pvera_error *const failed = pvera_model_replace(get(), name.c_str(), adapter.get(), &slot);
    return finish(failed, slot);
}

} // namespace PVERA_CPP_ERRORS
} // namespace pvera

#endif
