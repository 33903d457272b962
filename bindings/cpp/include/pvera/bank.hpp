// pvera::bank: many adapters of one network in one file.
#ifndef PVERA_CPP_BANK_HPP
#define PVERA_CPP_BANK_HPP

#include "adapter.hpp"

namespace pvera {
inline namespace PVERA_CPP_ERRORS {

// Lists of names are of texts that end in NUL. Its model's callables are called out of its calls, and live as long as it, too.
class [[nodiscard]] bank : public handle<pvera_bank, pvera_bank_free> {
public:
    bank() noexcept = default;
    // Takes ownership.
    explicit bank(pvera_bank *owned) noexcept : handle(owned) {}

    // To read, unless options.access says more.
    [[nodiscard]] static outcome<bank> open(const model &model, const text &path,
                                            const pvera_bank_options &options = bank_options()) {
        calls::border border;
        pvera_bank *made = nullptr;
        pvera_error *const failed = pvera_bank_open(model.get(), path.c_str(), &options, &made);
        return calls::finish_at(border, failed, bank(made, model.called_));
    }

    // Adds an adapter, or puts it in the place of the one of that name; on the disk when this returns.
    outcome<void> append(const text &name, const adapter &adapter, dtype rounded_to = PVERA_F32) const {
        const char *const one_name = name.c_str();
        const pvera_adapter *const one = adapter.get();
        return append_many({&one_name, 1}, {&one, 1}, rounded_to);
    }
    // All of them or none; one entry in adapters for each name. Cheaper than one at a time.
    outcome<void> append_many(span<const char *const> names, span<const pvera_adapter *const> adapters,
                              dtype rounded_to = PVERA_F32) const {
        if (adapters.size() != names.size())
            return fail<void>(code::shape, calls::sizes("adapters", adapters.size(), "names", names.size()));
        calls::border border;
        return calls::finish_at(border, pvera_bank_append(get(), names.size(), names.data(), adapters.data(), rounded_to));
    }

    outcome<void> remove(const text &name) const {
        const char *const one_name = name.c_str();
        return remove_many({&one_name, 1});
    }
    // All of them or none.
    outcome<void> remove_many(span<const char *const> names) const {
        return finish(pvera_bank_remove(get(), names.size(), names.data()));
    }

    // Writes the file anew without what nobody uses.
    outcome<void> compact() const {
        calls::border border;
        return calls::finish_at(border, pvera_bank_compact(get()));
    }

    // Takes the newest commit of the file at the path, and gives whether there was one.
    outcome<bool> refresh() const {
        calls::border border;
        bool changed = false;
        pvera_error *const failed = pvera_bank_refresh(get(), &changed);
        return calls::finish_at(border, failed, changed);
    }

    // Reads everything, and gives how many adapters and stores are damaged.
    [[nodiscard]] outcome<std::size_t> verify() const {
        calls::border border;
        std::size_t damaged = 0;
        pvera_error *const failed = pvera_bank_verify(get(), &damaged);
        return calls::finish_at(border, failed, damaged);
    }

    [[nodiscard]] outcome<bank_usage> usage() const {
        bank_usage held;
        pvera_error *const failed = pvera_bank_get_usage(get(), &held);
        return finish(failed, held);
    }

    [[nodiscard]] outcome<bool> contains(const text &name) const {
        bool does = false;
        pvera_error *const failed = pvera_bank_contains(get(), name.c_str(), &does);
        return finish(failed, does);
    }

    // Of a number below usage().adapters, in the order in which names were first added.
    [[nodiscard]] outcome<std::string> name_at(std::size_t number) const {
        char *given = nullptr;
        pvera_error *const failed = pvera_bank_name_at(get(), number, &given);
        return finish(failed, detail::taken(given));
    }

    // From memory or read now; it does not change when the bank does.
    [[nodiscard]] outcome<pvera::adapter> adapter(const text &name) const {
        calls::border border;
        pvera_adapter *made = nullptr;
        pvera_error *const failed = pvera_bank_adapter(get(), name.c_str(), &made);
        return calls::finish_at(border, failed, pvera::adapter(made));
    }

    // The adapters of the rows of one pass: names[i] is row i's, or nullptr for the base alone. slots[i] gets its slot in the
    // snapshot, for rows.slots().
    [[nodiscard]] outcome<pvera::snapshot> snapshot(span<const char *const> names, span<int32_t> slots) const {
        if (slots.size() != names.size())
            return fail<pvera::snapshot>(code::shape, calls::sizes("slots", slots.size(), "names", names.size()));
        calls::border border;
        pvera_snapshot *made = nullptr;
        pvera_error *const failed = pvera_bank_snapshot(get(), names.size(), names.data(), slots.data(), &made);
        return calls::finish_at(border, failed, pvera::snapshot(made));
    }

private:
    bank(pvera_bank *owned, std::shared_ptr<callbacks> called) noexcept : handle(owned), called_(std::move(called)) {}

    std::shared_ptr<callbacks> called_; // the model's
};

} // namespace PVERA_CPP_ERRORS
} // namespace pvera

#endif
