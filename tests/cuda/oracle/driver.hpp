// What the files of the driver share: results, handles, and the state behind them.
//
// This double is about the kernels' arithmetic and use of memory. It does work at the call, in order, under one lock,
// and knows only as much of the API's rules as keeps a program from going wrong in silence.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace oracle {

// Of CUresult; plain integers at the boundary.
enum Result : int {
    SUCCESS = 0,
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    NOT_INITIALIZED = 3,
    INVALID_DEVICE = 101,
    INVALID_CONTEXT = 201,
    INVALID_HANDLE = 400,
    NOT_FOUND = 500,
    LAUNCH_FAILED = 719,
    STREAM_CAPTURE_UNSUPPORTED = 900,
    STREAM_CAPTURE_INVALIDATED = 901,
    STREAM_CAPTURE_UNMATCHED = 903,
};

struct Context {
    uint64_t id;
};

// Work in the order in which it was captured.
using Work = std::function<Result()>;

struct Graph {
    std::vector<Work> work;
    int mode = 0;               // of CaptureMode
    std::thread::id thread = {}; // whose capture it is, while it is one
    bool ruined = false;        // by a call that a capture forbids
};

struct Stream {
    Context *context;
    Graph *capture = nullptr; // while it captures
    bool origin = false;      // where the capture began
};

struct Event {
    double milliseconds = -1;       // when it was recorded; negative: never
    const Graph *capture = nullptr; // the capture in which it was recorded
};

struct Module {};

// Handles of one type that live, so that a wrong one is an error instead of a crash.
template <typename T> class Handles {
  public:
    T *make(T value) {
        auto owned = std::make_unique<T>(std::move(value));
        T *handle = owned.get();
        living.emplace(handle, std::move(owned));
        return handle;
    }
    bool holds(const T *handle) const { return living.count(const_cast<T *>(handle)) != 0; }
    bool destroy(T *handle) { return living.erase(handle) != 0; }
    size_t size() const { return living.size(); }
    template <typename Visit> void each(Visit visit) {
        for (auto &[handle, owned] : living)
            visit(*handle);
    }

  private:
    std::map<T *, std::unique_ptr<T>> living;
};

struct Allocation {
    size_t bytes;
    bool host;
};

struct Driver {
    std::mutex lock;
    bool initialized = false;

    Context primary{1};
    unsigned primary_uses = 0;
    uint64_t last_context = 1;
    Handles<Context> contexts;
    Handles<Stream> streams;
    Handles<Event> events;
    Handles<Graph> graphs;
    Handles<Graph> executables;
    Handles<Module> modules;
    std::map<uintptr_t, Allocation> memory;

    uint64_t seed = 1;
    uint64_t launches = 0;
    Result sticky = SUCCESS; // what a broken kernel leaves to every later call
    std::string report;
};

Driver &driver();

// The context that is current on this thread, or null.
Context *current_context();

// A line for pvera_double_report.
void note(const std::string &line);

// Does the work, or leaves it to the graph that the stream captures. Null and the two special handles are the default
// stream.
Result submit(Stream *stream, Work work);

// Whether a capture forbids this thread to allocate, free, wait and unload; it is ruined then.
bool is_forbidden();

// Whether the handle names a stream; `stream` is null for the default one.
bool find_stream(void *handle, Stream *&stream);

// Whether memory of the driver's holds all of these bytes; notes it if not.
bool holds(uintptr_t at, size_t bytes, const char *what);

// What every export begins with: the lock, a driver that was initialised, and no kernel that broke before.
class Entry {
  public:
    Entry() : guard(driver().lock) {}
    Result result(bool wants_context = true) const {
        if (!driver().initialized) return NOT_INITIALIZED;
        if (driver().sticky != SUCCESS) return driver().sticky;
        return wants_context && current_context() == nullptr ? INVALID_CONTEXT : SUCCESS;
    }

  private:
    std::lock_guard<std::mutex> guard;
};

} // namespace oracle
