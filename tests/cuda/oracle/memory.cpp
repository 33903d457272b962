// Device memory: blocks of the C library's, so that AddressSanitizer sees every overrun, filled with a pattern that
// shows.
#include <cstdlib>
#include <cstring>
#include <sys/mman.h>
#include <utility>

#include "driver.hpp"
#include "grid.hpp"

namespace oracle {

namespace {

// As the device's own allocator aligns.
constexpr size_t ALIGNMENT = 256;

// Larger blocks get pages only where they are touched: tests spread a few rows over many gigabytes.
constexpr size_t LARGE = size_t{1} << 30;

enum PointerAttribute : int {
    CONTEXT = 1,
    MEMORY_TYPE = 2,
    DEVICE_POINTER = 3,
    HOST_POINTER = 4,
    IS_MANAGED = 8,
    DEVICE_ORDINAL = 9
};
enum MemoryType : unsigned { HOST = 1, DEVICE = 2 };

std::pair<const uintptr_t, Allocation> *find(uintptr_t at) {
    auto after = driver().memory.upper_bound(at);
    if (after == driver().memory.begin()) return nullptr;
    auto &before = *--after;
    return at - before.first < before.second.bytes ? &before : nullptr;
}

void *obtain(size_t bytes) {
    if (bytes > LARGE) {
        void *pages = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        return pages == MAP_FAILED ? nullptr : pages;
    }
    void *memory = nullptr;
    if (posix_memalign(&memory, ALIGNMENT, bytes) != 0) return nullptr;
    auto *each = static_cast<uint8_t *>(memory);
    for (size_t byte = 0; byte < bytes; byte++)
        each[byte] = static_cast<uint8_t>(FRESH >> byte % 2 * 8);
    return memory;
}

Result allocate(uintptr_t *out, size_t bytes, bool host) {
    if (bytes == 0) return INVALID_VALUE;
    void *memory = obtain(bytes);
    if (memory == nullptr) return OUT_OF_MEMORY;
    *out = reinterpret_cast<uintptr_t>(memory);
    driver().memory[*out] = {bytes, host};
    return SUCCESS;
}

Result release(uintptr_t at, bool host) {
    if (at == 0 && !host) return SUCCESS;
    const auto found = driver().memory.find(at);
    if (found == driver().memory.end() || found->second.host != host) {
        note("freed what was not allocated");
        return INVALID_VALUE;
    }
    auto *memory = reinterpret_cast<void *>(at);
    if (found->second.bytes > LARGE) {
        munmap(memory, found->second.bytes);
    } else {
        std::free(memory);
    }
    driver().memory.erase(found);
    return SUCCESS;
}

// A copy; the host's side needs no check that AddressSanitizer does not do.
Work copy(uintptr_t to, uintptr_t from, size_t bytes, bool to_device, bool from_device) {
    return [=] {
        if (to_device && !holds(to, bytes, "a copy writes")) return INVALID_VALUE;
        if (from_device && !holds(from, bytes, "a copy reads")) return INVALID_VALUE;
        if (bytes != 0) std::memmove(reinterpret_cast<void *>(to), reinterpret_cast<const void *>(from), bytes);
        return SUCCESS;
    };
}

template <typename Value> Work fill(uintptr_t to, Value value, size_t count) {
    return [=] {
        if (to % sizeof(Value) != 0 || !holds(to, count * sizeof(Value), "a fill writes")) return INVALID_VALUE;
        for (size_t place = 0; place < count; place++)
            reinterpret_cast<Value *>(to)[place] = value;
        return SUCCESS;
    };
}

int run(void *handle, Work work) {
    const Entry entry;
    if (Result wrong = entry.result()) return wrong;
    Stream *stream;
    if (!find_stream(handle, stream)) return INVALID_HANDLE;
    return submit(stream, std::move(work));
}

} // namespace

bool holds(uintptr_t at, size_t bytes, const char *what) {
    if (bytes == 0) return true;
    const auto *found = find(at);
    if (found && found->first + found->second.bytes - at >= bytes) return true;
    note(std::string(what) + " outside device memory");
    return false;
}

} // namespace oracle

using namespace oracle;

EXPORT int cuMemAlloc_v2(uintptr_t *at, size_t bytes) {
    const Entry entry;
    if (Result wrong = entry.result()) return wrong;
    return allocate(at, bytes, false);
}

EXPORT int cuMemFree_v2(uintptr_t at) {
    const Entry entry;
    return release(at, false);
}

EXPORT int cuMemAllocAsync(uintptr_t *at, size_t bytes, void *handle) {
    const Entry entry;
    if (Result wrong = entry.result()) return wrong;
    Stream *stream;
    if (!find_stream(handle, stream)) return INVALID_HANDLE;
    if ((stream && stream->capture) || is_forbidden()) return STREAM_CAPTURE_UNSUPPORTED;
    return allocate(at, bytes, false);
}

EXPORT int cuMemFreeAsync(uintptr_t at, void *handle) {
    const Entry entry;
    if (Result wrong = entry.result()) return wrong;
    Stream *stream;
    if (!find_stream(handle, stream)) return INVALID_HANDLE;
    if ((stream && stream->capture) || is_forbidden()) return STREAM_CAPTURE_UNSUPPORTED;
    return release(at, false);
}

EXPORT int cuMemAllocHost_v2(uintptr_t *at, size_t bytes) {
    const Entry entry;
    if (Result wrong = entry.result()) return wrong;
    return allocate(at, bytes, true);
}

EXPORT int cuMemFreeHost(uintptr_t at) {
    const Entry entry;
    return release(at, true);
}

EXPORT int cuMemcpyHtoD_v2(uintptr_t to, uintptr_t from, size_t bytes) {
    return run(nullptr, copy(to, from, bytes, true, false));
}

EXPORT int cuMemcpyDtoH_v2(uintptr_t to, uintptr_t from, size_t bytes) {
    return run(nullptr, copy(to, from, bytes, false, true));
}

EXPORT int cuMemcpyHtoDAsync_v2(uintptr_t to, uintptr_t from, size_t bytes, void *stream) {
    return run(stream, copy(to, from, bytes, true, false));
}

EXPORT int cuMemcpyDtoHAsync_v2(uintptr_t to, uintptr_t from, size_t bytes, void *stream) {
    return run(stream, copy(to, from, bytes, false, true));
}

EXPORT int cuMemcpyDtoDAsync_v2(uintptr_t to, uintptr_t from, size_t bytes, void *stream) {
    return run(stream, copy(to, from, bytes, true, true));
}

EXPORT int cuMemsetD8Async(uintptr_t to, unsigned char value, size_t count, void *stream) {
    return run(stream, fill(to, value, count));
}

EXPORT int cuMemsetD32Async(uintptr_t to, unsigned value, size_t count, void *stream) {
    return run(stream, fill(to, value, count));
}

EXPORT int cuPointerGetAttribute(void *value, int attribute, uintptr_t at) {
    const Entry entry;
    if (Result wrong = entry.result()) return wrong;
    const auto *found = find(at);
    if (found == nullptr) return INVALID_VALUE;
    switch (attribute) {
    case CONTEXT: *static_cast<Context **>(value) = current_context(); return SUCCESS;
    case MEMORY_TYPE: *static_cast<unsigned *>(value) = found->second.host ? HOST : DEVICE; return SUCCESS;
    case DEVICE_POINTER: *static_cast<uintptr_t *>(value) = at; return SUCCESS;
    case HOST_POINTER: *static_cast<uintptr_t *>(value) = at; return found->second.host ? SUCCESS : INVALID_VALUE;
    case IS_MANAGED: *static_cast<unsigned *>(value) = 0; return SUCCESS;
    case DEVICE_ORDINAL: *static_cast<int *>(value) = 0; return SUCCESS;
    default: return INVALID_VALUE;
    }
}
