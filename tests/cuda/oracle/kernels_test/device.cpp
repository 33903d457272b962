// The driver's functions, looked up in a library that is loaded now.
#include "device.hpp"

#include <cstdio>
#include <cstdlib>
#include <dlfcn.h>
#include <fstream>
#include <map>
#include <sstream>

namespace {

struct Functions {
    int (*init)(unsigned);
    int (*device_get)(int *, int);
    int (*retain)(void **, int);
    int (*set_current)(void *);
    int (*load)(void **, const void *);
    int (*get_function)(void **, void *, const char *);
    int (*launch)(void *, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void *, void **,
                  void **);
    int (*synchronize)();
    int (*allocate)(uint64_t *, size_t);
    int (*release)(uint64_t);
    int (*write)(uint64_t, const void *, size_t);
    int (*read)(void *, uint64_t, size_t);
    const char *(*report)();
    int (*set)(const char *, uint64_t);
};

Functions functions;
std::vector<void *> modules;
std::map<std::string, void *> kernels;

void demand(int result, const char *what) {
    if (result == 0) return;
    std::printf("%s: CUDA error %d\n%s", what, result, functions.report ? functions.report() : "");
    std::exit(EXIT_FAILURE);
}

template <typename Function> void find(void *library, Function *&function, const char *name, bool optional = false) {
    function = reinterpret_cast<Function *>(dlsym(library, name));
    if (function == nullptr && !optional) demand(-1, name);
}

void *kernel(const char *name) {
    void *&found = kernels[name];
    for (void *module : modules) {
        if (found == nullptr && functions.get_function(&found, module, name) != 0) found = nullptr;
    }
    if (found == nullptr) demand(-1, name);
    return found;
}

} // namespace

void Device::open(const std::string &path, const std::vector<std::string> &ptx_files) {
    void *library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) demand(-1, dlerror());
    find(library, functions.init, "cuInit");
    find(library, functions.device_get, "cuDeviceGet");
    find(library, functions.retain, "cuDevicePrimaryCtxRetain");
    find(library, functions.set_current, "cuCtxSetCurrent");
    find(library, functions.load, "cuModuleLoadData");
    find(library, functions.get_function, "cuModuleGetFunction");
    find(library, functions.launch, "cuLaunchKernel");
    find(library, functions.synchronize, "cuCtxSynchronize");
    find(library, functions.allocate, "cuMemAlloc_v2");
    find(library, functions.release, "cuMemFree_v2");
    find(library, functions.write, "cuMemcpyHtoD_v2");
    find(library, functions.read, "cuMemcpyDtoH_v2");
    find(library, functions.report, "pvera_double_report", true);
    find(library, functions.set, "pvera_double_set", true);

    int device = 0;
    void *context = nullptr;
    demand(functions.init(0), "cuInit");
    demand(functions.device_get(&device, 0), "cuDeviceGet");
    demand(functions.retain(&context, device), "cuDevicePrimaryCtxRetain");
    demand(functions.set_current(context), "cuCtxSetCurrent");
    std::vector<std::string> images;
    for (const std::string &file : ptx_files) {
        std::ostringstream text;
        text << std::ifstream(file).rdbuf();
        images.push_back(text.str());
    }
    if (images.empty()) images.push_back("");
    for (const std::string &image : images)
        demand(functions.load(&modules.emplace_back(), image.c_str()), "cuModuleLoadData");
}

uint64_t Device::allocate(size_t bytes) {
    uint64_t at = 0;
    demand(functions.allocate(&at, bytes), "cuMemAlloc");
    return at;
}

void Device::release(uint64_t at) { demand(functions.release(at), "cuMemFree"); }

void Device::write(uint64_t at, const void *from, size_t bytes) {
    demand(functions.write(at, from, bytes), "cuMemcpyHtoD");
}

void Device::read(void *to, uint64_t at, size_t bytes) { demand(functions.read(to, at, bytes), "cuMemcpyDtoH"); }

void Device::launch(const char *name, unsigned x, unsigned y, unsigned z, unsigned threads, const void *argument) {
    queue(name, x, y, z, threads, argument);
    demand(functions.synchronize(), name);
}

void Device::queue(const char *name, unsigned x, unsigned y, unsigned z, unsigned threads, const void *argument) {
    void *parameters[] = {const_cast<void *>(argument)};
    demand(functions.launch(kernel(name), x, y, z, threads, 1, 1, 0, nullptr, parameters, nullptr), name);
}

void Device::wait() { demand(functions.synchronize(), "cuCtxSynchronize"); }

void Device::set_seed(uint64_t seed) {
    if (functions.set) functions.set("PVERA_DOUBLE_SEED", seed);
}
