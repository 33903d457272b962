// pvera::model: the host's layers and the adapters published for them; pvera::snapshot: those adapters, for one pass.
#ifndef PVERA_CPP_MODEL_HPP
#define PVERA_CPP_MODEL_HPP

#include "callbacks.hpp"
#include "linear.hpp"

namespace pvera {
inline namespace PVERA_CPP_ERRORS {

class adapter;
class bank;

// Lends its linears.
class [[nodiscard]] snapshot : public handle<pvera_snapshot, pvera_snapshot_free> {
public:
    using handle::handle;

    [[nodiscard]] outcome<int32_t> slot(const text &name) const {
        int32_t number = -1;
        pvera_error *const failed = pvera_snapshot_slot(get(), name.c_str(), &number);
        return finish(failed, number);
    }

    // Valid as long as the snapshot.
    [[nodiscard]] outcome<linear_ref> linear(std::size_t layer) const & {
        const pvera_linear *lent = nullptr;
        pvera_error *const failed = pvera_snapshot_linear(get(), layer, &lent);
        return finish(failed, linear_ref(lent));
    }
    outcome<linear_ref> linear(std::size_t layer) const && = delete;
};

class [[nodiscard]] model : public handle<pvera_model, pvera_model_free> {
public:
    model() noexcept = default;
    // Takes ownership.
    explicit model(pvera_model *owned) noexcept : handle(owned) {}

    [[nodiscard]] static outcome<model> create(const pvera_model_options &options = model_options()) {
        return create(options, std::shared_ptr<callbacks>());
    }
    // With callables, which live as long as the model and its banks.
    [[nodiscard]] static outcome<model> create(callbacks called, pvera_model_options options = model_options()) {
        auto kept = std::make_shared<callbacks>(std::move(called));
        options.callbacks = borrowed(*kept);
        return create(options, std::move(kept));
    }

    // Gives the layer's number.
    outcome<std::size_t> declare(const pvera_layer &layer) const {
        std::size_t number = 0;
        pvera_error *const failed = pvera_model_declare(get(), &layer, &number);
        return finish(failed, number);
    }

    [[nodiscard]] outcome<std::size_t> find_layer(const text &name) const {
        std::size_t number = 0;
        pvera_error *const failed = pvera_model_find_layer(get(), name.c_str(), &number);
        return finish(failed, number);
    }

    // Gives the slot.
    outcome<int32_t> publish(const text &name, const adapter &adapter) const;
    outcome<int32_t> replace(const text &name, const adapter &adapter) const;

    outcome<void> remove(const text &name) const { return finish(pvera_model_remove(get(), name.c_str())); }

    // The adapters as they are now.
    [[nodiscard]] outcome<pvera::snapshot> snapshot() const {
        pvera_snapshot *made = nullptr;
        pvera_error *const failed = pvera_model_snapshot(get(), &made);
        return finish(failed, pvera::snapshot(made));
    }

private:
    friend bank;

    model(pvera_model *owned, std::shared_ptr<callbacks> called) noexcept : handle(owned), called_(std::move(called)) {}

    static outcome<model> create(const pvera_model_options &options, std::shared_ptr<callbacks> called) {
        pvera_model *made = nullptr;
        pvera_error *const failed = pvera_model_new(&options, &made);
        return finish(failed, model(made, std::move(called)));
    }

    std::shared_ptr<callbacks> called_; // only called while a call on the model or on a bank of it runs
};

} // namespace PVERA_CPP_ERRORS
} // namespace pvera

#endif
