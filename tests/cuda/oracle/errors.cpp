// The names of results.
#include "driver.hpp"

namespace oracle {

namespace {

struct Text {
    int result;
    const char *name;
    const char *meaning;
};

constexpr Text TEXTS[] = {
    {SUCCESS, "CUDA_SUCCESS", "no error"},
    {INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
    {OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
    {NOT_INITIALIZED, "CUDA_ERROR_NOT_INITIALIZED", "initialization error"},
    {INVALID_DEVICE, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"},
    {INVALID_CONTEXT, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context"},
    {INVALID_HANDLE, "CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"},
    {NOT_FOUND, "CUDA_ERROR_NOT_FOUND", "named symbol not found"},
    {LAUNCH_FAILED, "CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure"},
    {STREAM_CAPTURE_UNSUPPORTED, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED",
     "operation not permitted when stream is capturing"},
    {STREAM_CAPTURE_INVALIDATED, "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED", "a call that the capture forbids ended it"},
    {STREAM_CAPTURE_UNMATCHED, "CUDA_ERROR_STREAM_CAPTURE_UNMATCHED", "the capture was not initiated in this stream"},
};

int find(int result, const char **out, const char *Text::*field) {
    for (const Text &text : TEXTS) {
        if (text.result != result) continue;
        *out = text.*field;
        return SUCCESS;
    }
    *out = nullptr;
    return INVALID_VALUE;
}

} // namespace

} // namespace oracle

EXPORT int cuGetErrorName(int result, const char **name) { return oracle::find(result, name, &oracle::Text::name); }

EXPORT int cuGetErrorString(int result, const char **meaning) {
    return oracle::find(result, meaning, &oracle::Text::meaning);
}
