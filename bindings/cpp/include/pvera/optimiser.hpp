// pvera::adamw: an optimiser for hosts that have none.
#ifndef PVERA_CPP_OPTIMISER_HPP
#define PVERA_CPP_OPTIMISER_HPP

#include "span.hpp"
#include "text.hpp"

namespace pvera {
inline namespace PVERA_CPP_ERRORS {

// The struct of C with PyTorch's defaults, and its step.
struct adamw : pvera_adamw {
    adamw() noexcept : pvera_adamw(pvera_adamw_default()) {}
    explicit adamw(double rate) noexcept : adamw() { learning_rate = rate; }

    // number counts from 1; the moments are zero before the first.
    outcome<void> step(uint64_t number, span<float> parameters, span<const float> gradients, span<float> first_moments,
                       span<float> second_moments) const {
        const std::size_t count = parameters.size();
        if (gradients.size() != count) return differs("gradients", gradients.size(), count);
        if (first_moments.size() != count) return differs("first_moments", first_moments.size(), count);
        if (second_moments.size() != count) return differs("second_moments", second_moments.size(), count);
        return finish(pvera_adamw_step(this, number, count, parameters.data(), gradients.data(), first_moments.data(),
                                       second_moments.data()));
    }

private:
    static outcome<void> differs(const char *what, std::size_t given, std::size_t wanted) {
        return fail<void>(code::shape, calls::sizes(what, given, "parameters", wanted));
    }
};

} // namespace PVERA_CPP_ERRORS
} // namespace pvera

#endif
