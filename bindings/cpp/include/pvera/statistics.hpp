// Statistics over Monte Carlo passes, when to stop drawing, and how calibrated predictions are.
#ifndef PVERA_CPP_STATISTICS_HPP
#define PVERA_CPP_STATISTICS_HPP

#include "handle.hpp"
#include "options.hpp"
#include "text.hpp"

namespace pvera {

using bin = pvera_bin;

// The mean (ECE) and the largest (MCE) gap between confidence and accuracy.
struct calibration_error {
    double expected, maximum;
};

inline namespace PVERA_CPP_ERRORS {
// Every array of results has one entry a value, [rows, outputs], or one a row.
class [[nodiscard]] statistics : public handle<pvera_statistics, pvera_statistics_free> {
public:
    using handle::handle;

    [[nodiscard]] static outcome<statistics> create(std::size_t rows, std::size_t outputs, const pvera_allocator &memory = {}) {
        pvera_statistics *made = nullptr;
        pvera_error *const failed = pvera_statistics_new(rows, outputs, &memory, &made);
        return finish(failed, statistics(made));
    }

    outcome<void> clear() { return finish(pvera_statistics_clear(get())); }

    // One pass over all rows.
    outcome<void> add(const matrix &values) { return finish(pvera_statistics_add(get(), &values)); }
    // Row i of values is a pass of row rows[i].
    outcome<void> add_rows(span<const std::size_t> rows, const matrix &values) {
        return finish(pvera_statistics_add_rows(get(), rows.size(), rows.data(), &values));
    }

    outcome<void> passes(span<uint32_t> of_rows) const {
        return finish(pvera_statistics_passes(get(), of_rows.size(), of_rows.data()));
    }
    outcome<void> votes(span<uint32_t> of_values) const {
        return finish(pvera_statistics_votes(get(), of_values.size(), of_values.data()));
    }
    outcome<void> mean(span<double> of_values) const {
        return finish(pvera_statistics_mean(get(), of_values.size(), of_values.data()));
    }
    outcome<void> variance(span<double> of_values) const {
        return finish(pvera_statistics_variance(get(), of_values.size(), of_values.data()));
    }
    outcome<void> mean_probabilities(span<double> of_values) const {
        return finish(pvera_statistics_mean_probabilities(get(), of_values.size(), of_values.data()));
    }
    outcome<void> most_voted(span<uint32_t> of_rows) const {
        return finish(pvera_statistics_most_voted(get(), of_rows.size(), of_rows.data()));
    }
    outcome<void> predictive_entropy(span<double> of_rows) const {
        return finish(pvera_statistics_predictive_entropy(get(), of_rows.size(), of_rows.data()));
    }
    outcome<void> mutual_information(span<double> of_rows) const {
        return finish(pvera_statistics_mutual_information(get(), of_rows.size(), of_rows.data()));
    }

    // Of the mean: how well the passes know it.
    outcome<void> mean_interval(double level, span<double> lower, span<double> upper) const {
        return interval(pvera_statistics_mean_interval, level, lower, upper);
    }
    // Of one further draw: how far predictions scatter.
    outcome<void> predictive_interval(double level, span<double> lower, span<double> upper) const {
        return interval(pvera_statistics_predictive_interval, level, lower, upper);
    }
    // Of the most voted class's mean probability, one a row.
    outcome<void> most_voted_interval(double level, span<double> lower, span<double> upper) const {
        return interval(pvera_statistics_most_voted_interval, level, lower, upper);
    }

private:
    using interval_call = pvera_error *(const pvera_statistics *, double, std::size_t, double *, double *);

    outcome<void> interval(interval_call call, double level, span<double> lower, span<double> upper) const {
        if (lower.size() != upper.size())
            return fail<void>(code::shape, calls::sizes("upper", upper.size(), "lower", lower.size()));
        return finish(call(get(), level, lower.size(), lower.data(), upper.data()));
    }
};

// When to stop drawing; the struct of C with its two calls.
struct stopping : detail::sized<pvera_stopping> {
    stopping(double level, uint32_t most_passes) noexcept { error_level = level, maximum_passes = most_passes; }

    // How many passes a row has at the look after passes.
    [[nodiscard]] outcome<uint32_t> next_look(uint32_t passes) const {
        uint32_t look = 0;
        pvera_error *const failed = pvera_stopping_next_look(this, passes, &look);
        return finish(failed, look);
    }

    // The rows whose most voted class is not settled: the first of room, which has a place for every row.
    [[nodiscard]] outcome<span<std::size_t>> undecided(const statistics &of, span<std::size_t> room) const {
        std::size_t count = 0;
        pvera_error *const failed = pvera_stopping_undecided(this, of.get(), room.size(), room.data(), &count);
        return finish(failed, room.subspan(0, count));
    }

    // The rows of which some output's mean is not yet known to +- tolerance.
    [[nodiscard]] outcome<span<std::size_t>> imprecise(const statistics &of, double tolerance, span<std::size_t> room) const {
        std::size_t count = 0;
        pvera_error *const failed = pvera_stopping_imprecise(this, of.get(), tolerance, room.size(), room.data(), &count);
        return finish(failed, room.subspan(0, count));
    }
};

// Of predictions: their confidence, and 1 where each was right; fills bars of equal width.
[[nodiscard]] inline outcome<calibration_error> calibration(span<const double> confidence, span<const uint8_t> correct,
                                                            span<bin> bars) {
    if (correct.size() != confidence.size())
        return fail<calibration_error>(code::shape, calls::sizes("correct", correct.size(), "confidence", confidence.size()));
    calibration_error found{};
    pvera_error *const failed = pvera_calibration(confidence.size(), confidence.data(), correct.data(), bars.size(), bars.data(),
                                                  &found.expected, &found.maximum);
    return finish(failed, found);
}

} // namespace PVERA_CPP_ERRORS
} // namespace pvera

#endif
