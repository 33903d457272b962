// pvera::config: the hyper-parameters of an adapter.
#ifndef PVERA_CPP_CONFIG_HPP
#define PVERA_CPP_CONFIG_HPP

#include "handle.hpp"
#include "text.hpp"

namespace pvera {
inline namespace PVERA_CPP_ERRORS {

class [[nodiscard]] config : public handle<pvera_config, pvera_config_free> {
public:
    using handle::handle;

    // With PEFT's defaults.
    [[nodiscard]] static outcome<config> create() {
        pvera_config *made = nullptr;
        pvera_error *const failed = pvera_config_new(&made);
        return finish(failed, config(made));
    }

    // Of the text of an adapter_config.json.
    [[nodiscard]] static outcome<config> from_json(std::string_view json) {
        pvera_config *made = nullptr;
        pvera_error *const failed = pvera_config_from_json(json.data(), json.size(), &made);
        return finish(failed, config(made));
    }

    // A copy that shares nothing.
    [[nodiscard]] outcome<config> clone() const {
        pvera_config *made = nullptr;
        pvera_error *const failed = pvera_config_clone(get(), &made);
        return finish(failed, config(made));
    }

    [[nodiscard]] outcome<std::string> to_json() const {
        char *json = nullptr;
        pvera_error *const failed = pvera_config_to_json(get(), &json);
        return finish(failed, detail::taken(json));
    }

    outcome<void> validate() const { return finish(pvera_config_validate(get())); }

    [[nodiscard]] outcome<bool> targets(const text &path, bool output_head = false) const {
        bool targeted = false;
        pvera_error *const failed = pvera_config_targets(get(), path.c_str(), output_head, &targeted);
        return finish(failed, targeted);
    }

    [[nodiscard]] outcome<int64_t> get_int(const text &field) const {
        int64_t value = 0;
        pvera_error *const failed = pvera_config_get_int(get(), field.c_str(), &value);
        return finish(failed, value);
    }
    outcome<void> set_int(const text &field, int64_t value) { return finish(pvera_config_set_int(get(), field.c_str(), value)); }

    [[nodiscard]] outcome<double> get_real(const text &field) const {
        double value = 0;
        pvera_error *const failed = pvera_config_get_real(get(), field.c_str(), &value);
        return finish(failed, value);
    }
    outcome<void> set_real(const text &field, double value) { return finish(pvera_config_set_real(get(), field.c_str(), value)); }

    [[nodiscard]] outcome<bool> get_bool(const text &field) const {
        bool value = false;
        pvera_error *const failed = pvera_config_get_bool(get(), field.c_str(), &value);
        return finish(failed, value);
    }
    outcome<void> set_bool(const text &field, bool value) { return finish(pvera_config_set_bool(get(), field.c_str(), value)); }

    [[nodiscard]] outcome<std::string> get_text(const text &field) const {
        char *value = nullptr;
        pvera_error *const failed = pvera_config_get_text(get(), field.c_str(), &value);
        return finish(failed, detail::taken(value));
    }
    outcome<void> set_text(const text &field, const text &value) {
        return finish(pvera_config_set_text(get(), field.c_str(), value.c_str()));
    }

    // Any field, as JSON.
    [[nodiscard]] outcome<std::string> get_json(const text &field) const {
        char *value = nullptr;
        pvera_error *const failed = pvera_config_get_json(get(), field.c_str(), &value);
        return finish(failed, detail::taken(value));
    }
    outcome<void> set_json(const text &field, const text &value) {
        return finish(pvera_config_set_json(get(), field.c_str(), value.c_str()));
    }
};

} // namespace PVERA_CPP_ERRORS
} // namespace pvera

#endif
