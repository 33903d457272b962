// The driver's few promises: capture and replay, refusals that are noted, nothing left behind.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "arguments.cuh"

extern "C" {
int cuInit(unsigned);
int cuDevicePrimaryCtxRetain(void **, int);
int cuDevicePrimaryCtxRelease_v2(int);
int cuCtxSetCurrent(void *);
int cuStreamCreate(void **, unsigned);
int cuStreamDestroy_v2(void *);
int cuStreamWaitEvent(void *, void *, unsigned);
int cuStreamSynchronize(void *);
int cuStreamIsCapturing(void *, int *);
int cuThreadExchangeStreamCaptureMode(int *);
int cuStreamBeginCapture_v2(void *, int);
int cuStreamEndCapture(void *, void **);
int cuEventCreate(void **, unsigned);
int cuEventRecord(void *, void *);
int cuEventDestroy_v2(void *);
int cuGraphInstantiateWithFlags(void **, void *, unsigned long long);
int cuGraphLaunch(void *, void *);
int cuGraphDestroy(void *);
int cuGraphExecDestroy(void *);
int cuModuleLoadData(void **, const void *);
int cuModuleUnload(void *);
int cuModuleGetFunction(void **, void *, const char *);
int cuLaunchKernel(void *, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void *, void **,
                   void **);
int cuMemAlloc_v2(uintptr_t *, size_t);
int cuMemFree_v2(uintptr_t);
int cuMemcpyHtoD_v2(uintptr_t, const void *, size_t);
int cuMemcpyDtoH_v2(void *, uintptr_t, size_t);
int cuMemcpyDtoDAsync_v2(uintptr_t, uintptr_t, size_t, void *);
int cuMemsetD32Async(uintptr_t, unsigned, size_t, void *);
const char *pvera_double_report(void);
void pvera_double_reset(void);
uint64_t pvera_double_live_bytes(void);
uint64_t pvera_double_live_objects(void);
uint64_t pvera_double_launches(void);
int pvera_double_set(const char *, uint64_t);
}

// Ends the program where a promise is broken.
#define DEMAND(holds)                                                                                                  \
    do {                                                                                                               \
        if (!(holds)) {                                                                                                \
            std::printf("line %d: %s\n%s", __LINE__, #holds, pvera_double_report());                                   \
            std::exit(EXIT_FAILURE);                                                                                   \
        }                                                                                                              \
    } while (0)
#define MUST(call) DEMAND((call) == 0)

namespace {

constexpr int INVALID_VALUE = 1, INVALID_HANDLE = 400, NOT_FOUND = 500, CAPTURE_UNSUPPORTED = 900;
constexpr size_t WORDS = 4;

bool noted(const char *what) { return std::strstr(pvera_double_report(), what) != nullptr; }

bool holds(uintptr_t memory, unsigned value) {
    unsigned words[WORDS];
    MUST(cuMemcpyDtoH_v2(words, memory, sizeof words));
    for (unsigned word : words) {
        if (word != value) return false;
    }
    return true;
}

struct Two {
    void *streams[2];
    uintptr_t first, second; // memory
    void *put;
};

int launch(const Two &two, Put put, unsigned grid_y = 1, unsigned threads = 256) {
    void *parameters[] = {&put};
    return cuLaunchKernel(two.put, 1, grid_y, 1, threads, 1, 1, 0, two.streams[0], parameters, nullptr);
}

Put put_of(uintptr_t memory, unsigned value) {
    Put put{reinterpret_cast<u32 *>(memory), WORDS, 0, {}};
    for (unsigned word = 0; word < WORDS; word++)
        put.words[word] = value;
    return put;
}

// What is captured runs at each launch, as it was captured, also what came from a stream that joined.
void check_capture(const Two &two) {
    void *event, *graph, *executable;
    int status;
    MUST(cuEventCreate(&event, 2));
    MUST(cuMemsetD32Async(two.first, 1, WORDS, two.streams[0]));
    MUST(cuStreamBeginCapture_v2(two.streams[0], 0));
    MUST(launch(two, put_of(two.first, 2)));
    MUST(cuEventRecord(event, two.streams[0]));
    MUST(cuStreamWaitEvent(two.streams[1], event, 0));
    MUST(cuStreamIsCapturing(two.streams[1], &status));
    DEMAND(status == 1);
    MUST(cuMemcpyDtoDAsync_v2(two.second, two.first, WORDS * 4, two.streams[1]));
    DEMAND(cuStreamSynchronize(two.streams[0]) == CAPTURE_UNSUPPORTED);
    MUST(cuStreamEndCapture(two.streams[0], &graph));
    MUST(cuStreamIsCapturing(two.streams[1], &status));
    DEMAND(status == 0 && holds(two.first, 1) && pvera_double_launches() == 0);
    MUST(cuGraphInstantiateWithFlags(&executable, graph, 0));
    MUST(cuGraphDestroy(graph));
    for (unsigned launches = 1; launches <= 2; launches++) {
        MUST(cuMemsetD32Async(two.second, 7, WORDS, two.streams[0]));
        MUST(cuGraphLaunch(executable, two.streams[0]));
        DEMAND(holds(two.first, 2) && holds(two.second, 2) && pvera_double_launches() == launches);
    }
    MUST(cuGraphExecDestroy(executable));
    MUST(cuEventDestroy_v2(event));
    int mode = 2;
    MUST(cuThreadExchangeStreamCaptureMode(&mode));
    DEMAND(mode == 0);
    MUST(cuThreadExchangeStreamCaptureMode(&mode));
    DEMAND(mode == 2);
}

void check_refusals(const Two &two) {
    DEMAND(launch(two, put_of(two.first, 3), 65536) == INVALID_VALUE && noted("put: grid (1, 65536, 1)"));
    DEMAND(launch(two, put_of(two.first, 3), 0) == INVALID_VALUE);
    DEMAND(launch(two, put_of(two.first, 3), 1, 128) == INVALID_VALUE && noted("block (128, 1, 1), wanted 256"));
    const unsigned words[WORDS + 1] = {};
    DEMAND(cuMemcpyHtoD_v2(two.first, words, sizeof words) == INVALID_VALUE && noted("a copy writes outside"));
    DEMAND(cuStreamSynchronize(two.put) == INVALID_HANDLE);
    DEMAND(cuMemFree_v2(two.first + 4) == INVALID_VALUE);
    DEMAND(pvera_double_set("PVERA_DOUBLE_SEED", 3) == 0 && pvera_double_set("PVERA_DOUBLE_OTHER", 3) == 1);
    pvera_double_reset();
    DEMAND(*pvera_double_report() == '\0');
}

} // namespace

int main() {
    void *context, *module, *none;
    Two two;
    MUST(cuInit(0));
    MUST(cuDevicePrimaryCtxRetain(&context, 0));
    MUST(cuCtxSetCurrent(context));
    MUST(cuModuleLoadData(&module, ""));
    MUST(cuModuleGetFunction(&two.put, module, "put"));
    DEMAND(cuModuleGetFunction(&none, module, "get") == NOT_FOUND);
    for (void *&stream : two.streams)
        MUST(cuStreamCreate(&stream, 1));
    MUST(cuMemAlloc_v2(&two.first, WORDS * 4));
    MUST(cuMemAlloc_v2(&two.second, WORDS * 4));
    DEMAND(holds(two.first, 0x7ff57ff5));
    check_capture(two);
    check_refusals(two);
    MUST(cuMemFree_v2(two.first));
    DEMAND(pvera_double_live_bytes() == WORDS * 4);
    MUST(cuMemFree_v2(two.second));
    for (void *stream : two.streams)
        MUST(cuStreamDestroy_v2(stream));
    MUST(cuModuleUnload(module));
    MUST(cuDevicePrimaryCtxRelease_v2(0));
    DEMAND(pvera_double_live_bytes() == 0 && pvera_double_live_objects() == 0);
}
