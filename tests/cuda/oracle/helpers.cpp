// What tests ask a double besides the driver's functions.
#include <cstring>

#include "driver.hpp"

using namespace oracle;

// What went wrong since the last reset, a line each. The text stays until the next call.
EXPORT const char *pvera_double_report() {
    static std::string text;
    const Entry entry;
    text = driver().report;
    return text.c_str();
}

EXPORT void pvera_double_reset() {
    const Entry entry;
    driver().report.clear();
    driver().sticky = SUCCESS;
    driver().launches = 0;
}

// Device and pinned host memory.
EXPORT uint64_t pvera_double_live_bytes() {
    const Entry entry;
    uint64_t bytes = 0;
    for (const auto &[at, allocation] : driver().memory)
        bytes += allocation.bytes;
    return bytes;
}

// Everything else that a program has to give back.
EXPORT uint64_t pvera_double_live_objects() {
    const Entry entry;
    Driver &now = driver();
    return now.primary_uses + now.contexts.size() + now.streams.size() + now.events.size() + now.graphs.size() +
           now.executables.size() + now.modules.size();
}

EXPORT uint64_t pvera_double_launches() {
    const Entry entry;
    return driver().launches;
}

// Nothing is interpreted here.
EXPORT uint64_t pvera_double_instructions() { return 0; }

// Returns 1 for what this double does not know.
EXPORT int pvera_double_set(const char *name, uint64_t value) {
    const Entry entry;
    if (std::strcmp(name, "PVERA_DOUBLE_SEED") != 0) return 1;
    driver().seed = value;
    return 0;
}
