// pvera::outline: what is in a checkpoint or a bank, for programs that have yet to declare layers.
#ifndef PVERA_CPP_OUTLINE_HPP
#define PVERA_CPP_OUTLINE_HPP

#include "bank.hpp"
#include "config.hpp"

namespace pvera {

// An adapted module, with the out_features of the whole layer.
struct outline_module {
    std::string path;
    std::size_t out_features;
    bool learns_bias;
};

inline namespace PVERA_CPP_ERRORS {

class [[nodiscard]] outline : public handle<pvera_outline, pvera_outline_free> {
public:
    using handle::handle;

    // Of a checkpoint folder: no tensor is read.
    [[nodiscard]] static outcome<outline> from_checkpoint(const text &folder) {
        pvera_outline *made = nullptr;
        pvera_error *const failed = pvera_outline_from_checkpoint(folder.c_str(), &made);
        return finish(failed, outline(made));
    }

    // Of the adapters of a bank that have one config, layers and projections; there are usage().families of them.
    [[nodiscard]] static outcome<outline> from_bank(const bank &bank, std::size_t family) {
        pvera_outline *made = nullptr;
        pvera_error *const failed = pvera_outline_from_bank(bank.get(), family, &made);
        return finish(failed, outline(made));
    }

    [[nodiscard]] outcome<outline_info> info() const {
        outline_info told;
        pvera_error *const failed = pvera_outline_get_info(get(), &told);
        return finish(failed, told);
    }

    [[nodiscard]] outcome<pvera::config> config() const {
        pvera_config *made = nullptr;
        pvera_error *const failed = pvera_outline_config(get(), &made);
        return finish(failed, pvera::config(made));
    }

    [[nodiscard]] outcome<outline_module> module_at(std::size_t number) const {
        char *path = nullptr;
        outline_module told{};
        pvera_error *const failed = pvera_outline_module(get(), number, &path, &told.out_features, &told.learns_bias);
        told.path = detail::taken(path);
        return finish(failed, std::move(told));
    }
};

} // namespace PVERA_CPP_ERRORS
} // namespace pvera

#endif
