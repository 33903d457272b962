// The driver's state, the device, and contexts.
#include "driver.hpp"

#include <cstdlib>
#include <cstring>

namespace oracle {

Driver &driver() {
    // Never destroyed: a program may call at its very end.
    static Driver *only = [] {
        auto *made = new Driver;
        if (const char *seed = std::getenv("PVERA_DOUBLE_SEED")) made->seed = std::strtoull(seed, nullptr, 0);
        return made;
    }();
    return *only;
}

namespace {

thread_local std::vector<Context *> current;

constexpr int VERSION = 12080;
constexpr char NAME[] = "pvera oracle (kernels by g++)";
constexpr size_t TOTAL_MEMORY = size_t{8} << 30;

bool lives(const Context *context) {
    if (context == &driver().primary) return driver().primary_uses > 0;
    return driver().contexts.holds(context);
}

struct Attribute {
    int which, value;
};

// Of CUdevice_attribute; all others are 0.
constexpr Attribute ATTRIBUTES[] = {
    {1, 1024},       // MAX_THREADS_PER_BLOCK
    {2, 1024},       // MAX_BLOCK_DIM_X
    {3, 1024},       // MAX_BLOCK_DIM_Y
    {4, 64},         // MAX_BLOCK_DIM_Z
    {5, 0x7fffffff}, // MAX_GRID_DIM_X
    {6, 65535},      // MAX_GRID_DIM_Y
    {7, 65535},      // MAX_GRID_DIM_Z
    {8, 48 * 1024},  // MAX_SHARED_MEMORY_PER_BLOCK
    {10, 32},        // WARP_SIZE
    {12, 65536},     // MAX_REGISTERS_PER_BLOCK
    {16, 16},        // MULTIPROCESSOR_COUNT
    {39, 1024},      // MAX_THREADS_PER_MULTIPROCESSOR
    {41, 1},         // UNIFIED_ADDRESSING
    {75, 7},         // COMPUTE_CAPABILITY_MAJOR
    {76, 5},         // COMPUTE_CAPABILITY_MINOR
    {115, 1},        // MEMORY_POOLS_SUPPORTED
};

} // namespace

Context *current_context() {
    if (current.empty() || !lives(current.back())) return nullptr;
    return current.back();
}

void note(const std::string &line) { driver().report += line + "\n"; }

} // namespace oracle

using namespace oracle;

EXPORT int cuInit(unsigned flags) {
    std::lock_guard guard(driver().lock);
    if (flags != 0) return INVALID_VALUE;
    driver().initialized = true;
    return SUCCESS;
}

EXPORT int cuDriverGetVersion(int *version) {
    if (version == nullptr) return INVALID_VALUE;
    *version = VERSION;
    return SUCCESS;
}

// ---- The device -----------------------------------------------------------------------------------------------------

EXPORT int cuDeviceGetCount(int *count) {
    const Entry entry;
    if (Result wrong = entry.result(false)) return wrong;
    *count = 1;
    return SUCCESS;
}

EXPORT int cuDeviceGet(int *device, int ordinal) {
    const Entry entry;
    if (Result wrong = entry.result(false)) return wrong;
    if (ordinal != 0) return INVALID_DEVICE;
    *device = 0;
    return SUCCESS;
}

EXPORT int cuDeviceGetName(char *name, int bytes, int device) {
    const Entry entry;
    if (Result wrong = entry.result(false)) return wrong;
    if (device != 0) return INVALID_DEVICE;
    if (bytes <= 0) return INVALID_VALUE;
    std::strncpy(name, NAME, static_cast<size_t>(bytes));
    name[bytes - 1] = '\0';
    return SUCCESS;
}

EXPORT int cuDeviceGetAttribute(int *value, int which, int device) {
    const Entry entry;
    if (Result wrong = entry.result(false)) return wrong;
    if (device != 0) return INVALID_DEVICE;
    *value = 0;
    for (const Attribute &attribute : ATTRIBUTES) {
        if (attribute.which == which) *value = attribute.value;
    }
    return SUCCESS;
}

EXPORT int cuDeviceTotalMem_v2(size_t *bytes, int device) {
    const Entry entry;
    if (Result wrong = entry.result(false)) return wrong;
    if (device != 0) return INVALID_DEVICE;
    *bytes = TOTAL_MEMORY;
    return SUCCESS;
}

// ---- Contexts -------------------------------------------------------------------------------------------------------

EXPORT int cuDevicePrimaryCtxRetain(Context **context, int device) {
    const Entry entry;
    if (Result wrong = entry.result(false)) return wrong;
    if (device != 0) return INVALID_DEVICE;
    driver().primary_uses++;
    *context = &driver().primary;
    return SUCCESS;
}

EXPORT int cuDevicePrimaryCtxRelease_v2(int device) {
    const Entry entry;
    if (device != 0) return INVALID_DEVICE;
    if (driver().primary_uses == 0) return INVALID_CONTEXT;
    driver().primary_uses--;
    return SUCCESS;
}

EXPORT int cuCtxCreate_v2(Context **context, unsigned, int device) {
    const Entry entry;
    if (Result wrong = entry.result(false)) return wrong;
    if (device != 0) return INVALID_DEVICE;
    *context = driver().contexts.make({++driver().last_context});
    current.push_back(*context);
    return SUCCESS;
}

EXPORT int cuCtxDestroy_v2(Context *context) {
    const Entry entry;
    if (!driver().contexts.destroy(context)) return INVALID_CONTEXT;
    if (!current.empty() && current.back() == context) current.pop_back();
    return SUCCESS;
}

EXPORT int cuCtxGetCurrent(Context **context) {
    const Entry entry;
    if (Result wrong = entry.result(false)) return wrong;
    *context = current_context();
    return SUCCESS;
}

EXPORT int cuCtxSetCurrent(Context *context) {
    const Entry entry;
    if (Result wrong = entry.result(false)) return wrong;
    if (context != nullptr && !lives(context)) return INVALID_CONTEXT;
    if (!current.empty()) current.pop_back();
    if (context != nullptr) current.push_back(context);
    return SUCCESS;
}

EXPORT int cuCtxPushCurrent_v2(Context *context) {
    const Entry entry;
    if (Result wrong = entry.result(false)) return wrong;
    if (!lives(context)) return INVALID_CONTEXT;
    current.push_back(context);
    return SUCCESS;
}

EXPORT int cuCtxPopCurrent_v2(Context **context) {
    const Entry entry;
    if (Result wrong = entry.result(false)) return wrong;
    if (current.empty()) return INVALID_CONTEXT;
    if (context != nullptr) *context = current.back();
    current.pop_back();
    return SUCCESS;
}

EXPORT int cuCtxGetDevice(int *device) {
    const Entry entry;
    if (Result wrong = entry.result()) return wrong;
    *device = 0;
    return SUCCESS;
}

EXPORT int cuCtxGetId(const Context *context, unsigned long long *id) {
    const Entry entry;
    if (Result wrong = entry.result(context == nullptr)) return wrong;
    if (context == nullptr) context = current_context();
    if (!lives(context)) return INVALID_CONTEXT;
    *id = context->id;
    return SUCCESS;
}

EXPORT int cuCtxSynchronize() {
    const Entry entry;
    return entry.result();
}
