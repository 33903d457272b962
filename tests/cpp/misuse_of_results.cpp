// The same with results: a condition on a result<bool> would ask for the value with exceptions, and for success here.
#define PVERA_NO_EXCEPTIONS
#include <pvera.hpp>

int misuse(const pvera::bank &bank, pvera::config &config);
int misuse(const pvera::bank &bank, pvera::config &config) {
    const auto held = bank.contains("one");
    if (!held.has_value()) return -1;
    if (*held && config.set_int("r", 4)) return 1; // a result<void> has no value to ask for
#if MISUSE == 1
    if (bank.contains("one")) return 2;
#elif MISUSE == 2
    if (!config.get_bool("inference_mode")) return 2;
#elif MISUSE == 3
    const bool one = held;
    return one;
#endif
    return 0;
}
