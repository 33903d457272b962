// Checks for the C++ tests: they count, say where and what, and make the program fail.
//
// In check::run whatever anybody writes to stdout or stderr is captured, and it fails if there was any: library and binding print
// nothing.
#pragma once

#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <pvera.hpp>
#include <string>
#include <string_view>

namespace check {

struct state {
    FILE *report = nullptr, *captured = nullptr;
    unsigned checks = 0, failures = 0;
};
inline state now;

inline void begin() {
    now.report = fdopen(dup(STDERR_FILENO), "w");
    now.captured = tmpfile();
    if (!now.report || !now.captured) std::exit(2);
    dup2(fileno(now.captured), STDOUT_FILENO);
    dup2(fileno(now.captured), STDERR_FILENO);
}

inline bool that(bool passed, const char *file, int line, const std::string &what) {
    ++now.checks;
    if (passed) return true;
    ++now.failures;
    std::fprintf(now.report, "%s:%d: %s\n", file, line, what.c_str());
    return false;
}

// The exit status.
inline int end() {
    std::fflush(nullptr);
    const long printed = lseek(fileno(now.captured), 0, SEEK_END);
    that(printed == 0, __FILE__, __LINE__, std::to_string(printed) + " bytes were printed");
    std::fprintf(now.report, "%u checks, %u failed\n", now.checks, now.failures);
    std::fclose(now.captured);
    const int status = now.failures > 0 || now.checks == 0;
    std::fclose(now.report);
    return status;
}

// Runs the tests, and gives the exit status. An exception that leaves them is one failure.
template <class Tests>
int run(Tests tests) {
    begin();
#ifdef PVERA_NO_EXCEPTIONS
    tests();
#else
    try {
        tests();
    } catch (const std::exception &thrown) {
        that(false, __FILE__, __LINE__, std::string("the tests ended with an exception: ") + thrown.what());
    }
#endif
    return end();
}

// Whether an error has this code, and its sentence every word of the list "x|has 3 columns".
inline bool error_is(pvera::code found, std::string_view message, pvera::code wanted, std::string_view words, const char *file,
                     int line) {
    const std::string said = " (the error says: " + std::string(message) + ")";
    if (!that(found == wanted, file, line,
              "code " + std::to_string(static_cast<int>(found)) + ", wanted " + std::to_string(static_cast<int>(wanted)) + said))
        return false;
    while (!words.empty()) {
        const std::string_view word = words.substr(0, words.find('|'));
        if (!that(message.find(word) != message.npos, file, line, "no \"" + std::string(word) + "\"" + said)) return false;
        words.remove_prefix(std::min(words.size(), word.size() + 1));
    }
    return true;
}

// max|found - wanted| / max|wanted|, the measure of the golden cases; infinite where nothing can be judged.
template <class Found, class Wanted>
double relative_error(const Found &found, const Wanted &wanted) {
    double largest = 0, difference = 0;
    if (found.size() != wanted.size() || wanted.size() == 0) return INFINITY;
    for (std::size_t i = 0; i < wanted.size(); ++i) {
        const double left = static_cast<double>(found[i]), right = static_cast<double>(wanted[i]);
        if (!std::isfinite(left) || !std::isfinite(right)) return INFINITY;
        largest = std::fmax(largest, std::fabs(right));
        difference = std::fmax(difference, std::fabs(left - right));
    }
    if (difference == 0) return 0;
    return largest == 0 ? static_cast<double>(INFINITY) : difference / largest;
}

template <class Found, class Wanted>
bool close(const Found &found, const Wanted &wanted, double tolerance, const std::string &what, const char *file, int line) {
    const double error = relative_error(found, wanted);
    return that(error <= tolerance, file, line,
                what + ": relative error " + std::to_string(error) + ", wanted at most " + std::to_string(tolerance));
}

// Fills values with numbers between -1 and 1 that look random and are always the same (a Weyl sequence).
template <class Values>
void fill(Values &values, uint32_t seed) {
    uint32_t number = 0;
    for (float &value : values) {
        uint32_t word = ++number * 2654435769u + seed * 2246822519u;
        word ^= word >> 15, word *= 739982445u, word ^= word >> 12;
        value = static_cast<float>(static_cast<int32_t>(word)) / 2147483648.0f;
    }
}

} // namespace check

#define CHECK(condition) check::that(static_cast<bool>(condition), __FILE__, __LINE__, #condition " does not hold")
#define CHECK_CLOSE(what, found, wanted, tolerance) check::close(found, wanted, tolerance, what, __FILE__, __LINE__)

#ifndef PVERA_NO_EXCEPTIONS
// The statement throws a pvera::exception of that code, and its sentence holds every word of the list.
#define CHECK_THROWS(statement, wanted_code, words) \
    do { \
        try { \
            statement; \
            check::that(false, __FILE__, __LINE__, #statement " throws nothing"); \
        } catch (const pvera::exception &thrown) { \
            check::error_is(thrown.code(), thrown.what(), wanted_code, words, __FILE__, __LINE__); \
        } \
    } while (false)
#endif
