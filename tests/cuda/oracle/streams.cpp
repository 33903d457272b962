// Streams, events, and graphs made by capture.
#include <chrono>
#include <utility>

#include "driver.hpp"

namespace oracle {

namespace {

// The default streams by their special handles: CU_STREAM_LEGACY and CU_STREAM_PER_THREAD.
constexpr uintptr_t LAST_SPECIAL = 2;

enum CaptureStatus : int { CAPTURE_NONE = 0, CAPTURE_ACTIVE = 1 };

enum CaptureMode : int { GLOBAL = 0, THREAD_LOCAL = 1, RELAXED = 2 };

// What captures may forbid to this thread.
thread_local int own_mode = GLOBAL;

double milliseconds() {
    using namespace std::chrono;
    return duration<double, std::milli>(steady_clock::now().time_since_epoch()).count();
}

// Every stream that joined a capture leaves it.
void end_capture(Graph *graph) {
    graph->thread = {};
    driver().streams.each([graph](Stream &stream) {
        if (stream.capture != graph) return;
        stream.capture = nullptr;
        stream.origin = false;
    });
    driver().events.each([graph](Event &event) {
        if (event.capture == graph) event.capture = nullptr;
    });
}

} // namespace

bool is_forbidden() {
    bool found = false;
    driver().graphs.each([&found](Graph &graph) {
        const bool is_own = graph.thread == std::this_thread::get_id();
        const bool is_others = graph.thread != std::thread::id{} && graph.mode == GLOBAL && own_mode == GLOBAL;
        if (own_mode == RELAXED || graph.mode == RELAXED || !(is_own || is_others)) return;
        graph.ruined = found = true;
    });
    return found;
}

bool find_stream(void *handle, Stream *&stream) {
    stream = nullptr;
    if (reinterpret_cast<uintptr_t>(handle) <= LAST_SPECIAL) return true;
    auto *named = static_cast<Stream *>(handle);
    if (!driver().streams.holds(named)) return false;
    stream = named;
    return true;
}

Result submit(Stream *stream, Work work) {
    if (stream == nullptr || stream->capture == nullptr) return work();
    stream->capture->work.push_back(std::move(work));
    return SUCCESS;
}

} // namespace oracle

using namespace oracle;

// ---- Streams --------------------------------------------------------------------------------------------------------

EXPORT int cuStreamCreate(Stream **stream, unsigned) {
    const Entry entry;
    if (Result wrong = entry.result()) return wrong;
    *stream = driver().streams.make({current_context()});
    return SUCCESS;
}

EXPORT int cuStreamDestroy_v2(Stream *stream) {
    const Entry entry;
    if (!driver().streams.holds(stream)) return INVALID_HANDLE;
    if (stream->origin) {
        Graph *graph = stream->capture;
        end_capture(graph);
        driver().graphs.destroy(graph);
    }
    driver().streams.destroy(stream);
    return SUCCESS;
}

EXPORT int cuStreamGetCtx(void *handle, Context **context) {
    const Entry entry;
    if (Result wrong = entry.result()) return wrong;
    Stream *stream;
    if (!find_stream(handle, stream)) return INVALID_HANDLE;
    *context = stream ? stream->context : current_context();
    return SUCCESS;
}

EXPORT int cuStreamSynchronize(void *handle) {
    const Entry entry;
    if (Result wrong = entry.result()) return wrong;
    Stream *stream;
    if (!find_stream(handle, stream)) return INVALID_HANDLE;
    return (stream && stream->capture) || is_forbidden() ? STREAM_CAPTURE_UNSUPPORTED : SUCCESS;
}

EXPORT int cuStreamWaitEvent(void *handle, Event *event, unsigned) {
    const Entry entry;
    if (Result wrong = entry.result()) return wrong;
    Stream *stream;
    if (!find_stream(handle, stream) || !driver().events.holds(event)) return INVALID_HANDLE;
    // A stream that waits for captured work joins the capture.
    if (stream && stream->capture == nullptr && event->capture != nullptr) {
        stream->capture = const_cast<Graph *>(event->capture);
    }
    return SUCCESS;
}

// ---- Events ---------------------------------------------------------------------------------------------------------

EXPORT int cuEventCreate(Event **event, unsigned) {
    const Entry entry;
    if (Result wrong = entry.result()) return wrong;
    *event = driver().events.make({});
    return SUCCESS;
}

EXPORT int cuEventDestroy_v2(Event *event) {
    const Entry entry;
    return driver().events.destroy(event) ? SUCCESS : INVALID_HANDLE;
}

EXPORT int cuEventRecord(Event *event, void *handle) {
    const Entry entry;
    if (Result wrong = entry.result()) return wrong;
    Stream *stream;
    if (!find_stream(handle, stream) || !driver().events.holds(event)) return INVALID_HANDLE;
    event->capture = stream ? stream->capture : nullptr;
    event->milliseconds = milliseconds();
    return SUCCESS;
}

EXPORT int cuEventQuery(Event *event) {
    const Entry entry;
    if (Result wrong = entry.result()) return wrong;
    if (!driver().events.holds(event)) return INVALID_HANDLE;
    return event->capture ? STREAM_CAPTURE_UNSUPPORTED : SUCCESS;
}

EXPORT int cuEventSynchronize(Event *event) { return cuEventQuery(event); }

EXPORT int cuEventElapsedTime(float *elapsed, Event *first, Event *second) {
    const Entry entry;
    if (Result wrong = entry.result()) return wrong;
    for (const Event *event : {first, second}) {
        if (!driver().events.holds(event) || event->milliseconds < 0) return INVALID_HANDLE;
    }
    *elapsed = static_cast<float>(second->milliseconds - first->milliseconds);
    return SUCCESS;
}

// ---- Capture and graphs ---------------------------------------------------------------------------------------------

EXPORT int cuStreamBeginCapture_v2(void *handle, int mode) {
    const Entry entry;
    if (Result wrong = entry.result()) return wrong;
    if (mode < GLOBAL || mode > RELAXED) return INVALID_VALUE;
    Stream *stream;
    if (!find_stream(handle, stream)) return INVALID_HANDLE;
    if (stream == nullptr) return STREAM_CAPTURE_UNSUPPORTED;
    if (stream->capture != nullptr) return INVALID_VALUE;
    stream->capture = driver().graphs.make({{}, mode, std::this_thread::get_id(), false});
    stream->origin = true;
    return SUCCESS;
}

EXPORT int cuThreadExchangeStreamCaptureMode(int *mode) {
    const Entry entry;
    if (Result wrong = entry.result(false)) return wrong;
    if (mode == nullptr || *mode < GLOBAL || *mode > RELAXED) return INVALID_VALUE;
    std::swap(own_mode, *mode);
    return SUCCESS;
}

EXPORT int cuStreamIsCapturing(void *handle, int *status) {
    const Entry entry;
    if (Result wrong = entry.result()) return wrong;
    Stream *stream;
    if (!find_stream(handle, stream)) return INVALID_HANDLE;
    *status = stream && stream->capture ? CAPTURE_ACTIVE : CAPTURE_NONE;
    return SUCCESS;
}

EXPORT int cuStreamEndCapture(void *handle, Graph **graph) {
    const Entry entry;
    if (Result wrong = entry.result()) return wrong;
    Stream *stream;
    if (!find_stream(handle, stream)) return INVALID_HANDLE;
    if (stream == nullptr || !stream->origin) return STREAM_CAPTURE_UNMATCHED;
    Graph *captured = stream->capture;
    end_capture(captured);
    if (!captured->ruined) {
        *graph = captured;
        return SUCCESS;
    }
    *graph = nullptr;
    driver().graphs.destroy(captured);
    return STREAM_CAPTURE_INVALIDATED;
}

EXPORT int cuGraphDestroy(Graph *graph) {
    const Entry entry;
    return driver().graphs.destroy(graph) ? SUCCESS : INVALID_VALUE;
}

EXPORT int cuGraphInstantiateWithFlags(Graph **executable, Graph *graph, unsigned long long) {
    const Entry entry;
    if (Result wrong = entry.result()) return wrong;
    if (!driver().graphs.holds(graph)) return INVALID_VALUE;
    *executable = driver().executables.make(*graph);
    return SUCCESS;
}

EXPORT int cuGraphExecDestroy(Graph *executable) {
    const Entry entry;
    return driver().executables.destroy(executable) ? SUCCESS : INVALID_VALUE;
}

EXPORT int cuGraphLaunch(Graph *executable, void *handle) {
    const Entry entry;
    if (Result wrong = entry.result()) return wrong;
    Stream *stream;
    if (!find_stream(handle, stream)) return INVALID_HANDLE;
    if (!driver().executables.holds(executable)) return INVALID_VALUE;
    return submit(stream, [work = executable->work] {
        for (const Work &step : work) {
            if (Result wrong = step()) return wrong;
        }
        return SUCCESS;
    });
}
