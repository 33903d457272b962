// Modules, functions and launches. Whatever PTX a module has, its functions are the kernels that were compiled here.
#include <cstring>
#include <sstream>

#include "driver.hpp"
#include "grid.hpp"
#include "kernels.hpp"

namespace oracle {

namespace {

constexpr unsigned MOST_IN_YZ = 65535;
constexpr unsigned MOST_THREADS = 1024;

enum FunctionAttribute : int { MAX_THREADS_PER_BLOCK = 0 };

std::string text(Size size) {
    std::ostringstream out;
    out << "(" << size.x << ", " << size.y << ", " << size.z << ")";
    return out.str();
}

// A launch that a device refuses, or that is not of the kernel's contract.
Result refuse(const Kernel &kernel, Size grid, Size block, unsigned shared_bytes) {
    const bool fits = grid.count() != 0 && grid.x <= 0x7fffffff && grid.y <= MOST_IN_YZ && grid.z <= MOST_IN_YZ;
    const bool of_contract = block.x == kernel.threads && block.y == 1 && block.z == 1 && shared_bytes == 0;
    if (fits && of_contract) return SUCCESS;
    note(std::string(kernel.name) + ": grid " + text(grid) + ", block " + text(block) + ", wanted " +
         std::to_string(kernel.threads) + " threads and a grid that is not empty, y and z at most 65535");
    return INVALID_VALUE;
}

Result run_kernel(const Kernel &kernel, Size grid, Size block, const std::vector<std::max_align_t> &argument) {
    // Every launch is shuffled in its own way.
    const uint64_t seed = driver().seed + driver().launches++;
    const std::string wrong = run_grid(grid, block, kernel.body, argument.data(), seed);
    if (wrong.empty()) return SUCCESS;
    note(std::string(kernel.name) + ": " + wrong);
    return driver().sticky = LAUNCH_FAILED;
}

} // namespace

} // namespace oracle

using namespace oracle;

EXPORT int cuModuleLoadData(Module **module, const void *image) {
    const Entry entry;
    if (Result wrong = entry.result()) return wrong;
    if (image == nullptr) return INVALID_VALUE;
    *module = driver().modules.make({});
    return SUCCESS;
}

EXPORT int cuModuleLoadDataEx(Module **module, const void *image, unsigned, int *, void **) {
    return cuModuleLoadData(module, image);
}

EXPORT int cuModuleUnload(Module *module) {
    const Entry entry;
    if (is_forbidden()) return STREAM_CAPTURE_UNSUPPORTED;
    return driver().modules.destroy(module) ? SUCCESS : INVALID_HANDLE;
}

EXPORT int cuModuleGetFunction(const Kernel **function, Module *module, const char *name) {
    const Entry entry;
    if (Result wrong = entry.result()) return wrong;
    if (!driver().modules.holds(module)) return INVALID_HANDLE;
    *function = find_kernel(name);
    return *function ? SUCCESS : NOT_FOUND;
}

EXPORT int cuFuncGetAttribute(int *value, int attribute, const Kernel *function) {
    const Entry entry;
    if (Result wrong = entry.result()) return wrong;
    if (function == nullptr) return INVALID_HANDLE;
    *value = attribute == MAX_THREADS_PER_BLOCK ? static_cast<int>(MOST_THREADS) : 0;
    return SUCCESS;
}

EXPORT int cuLaunchKernel(const Kernel *function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                          unsigned block_y, unsigned block_z, unsigned shared_bytes, void *handle, void **parameters,
                          void **extra) {
    const Entry entry;
    if (Result wrong = entry.result()) return wrong;
    Stream *stream;
    if (function == nullptr || !find_stream(handle, stream)) return INVALID_HANDLE;
    if (parameters == nullptr || parameters[0] == nullptr || extra != nullptr) return INVALID_VALUE;
    const Size grid{grid_x, grid_y, grid_z}, block{block_x, block_y, block_z};
    if (Result wrong = refuse(*function, grid, block, shared_bytes)) return wrong;
    // Taken by value now, as a capture takes it.
    std::vector<std::max_align_t> argument(function->argument_bytes / sizeof(std::max_align_t) + 1);
    std::memcpy(argument.data(), parameters[0], function->argument_bytes);
    return submit(stream, [=] { return run_kernel(*function, grid, block, argument); });
}
