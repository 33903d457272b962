// Calls from C into Go. A panic of the host's function does not cross C: it is kept and goes on in the Go call. What cannot be
// kept is runtime.Goexit, which no deferred function can stop: callbacks do not call it, nor the FailNow of a test. (On a goroutine
// of its own a callback could, but that has another thread, by which the library knows a call out of its callback.)

package pvera

// #include "shim.h"
import "C"

import (
	"context"
	"runtime/cgo"
	"sync"
	"sync/atomic"
	"unsafe"
)

// ---- Warnings, progress, cancellation ----

// listener is what a long call tells, and asks.
type listener struct {
	ctx      context.Context
	warning  func(message string)
	progress func(stage string, done, total uint64) bool
	panicked any
}

// listen runs a long call with a handle on the listener. A cancelled context is the call's error; a panic in a callback goes on
// from here, after discard has freed what the call made, which nobody will get; discard may be nil.
func (l *listener) listen(call func(handle C.uintptr_t) *C.pvera_error, discard func()) error {
	if err := l.ctx.Err(); err != nil {
		return err
	}
	handle := cgo.NewHandle(l)
	defer handle.Delete()
	err := take(call(C.uintptr_t(handle)))
	if l.panicked != nil {
		if discard != nil {
			discard()
		}
		panic(l.panicked)
	}
	if failure, is := err.(*Error); is && failure.Code == ErrCancelled && l.ctx.Err() != nil {
		return l.ctx.Err()
	}
	return err
}

//export pveraGoWarning
func pveraGoWarning(call C.uintptr_t, message *C.char) {
	l := cgo.Handle(call).Value().(*listener)
	if l.warning == nil || l.panicked != nil {
		return
	}
	defer l.keepPanic()
	l.warning(C.GoString(message))
}

//export pveraGoProgress
func pveraGoProgress(call C.uintptr_t, stage *C.char, done, total C.uint64_t) (stop C.int32_t) {
	l := cgo.Handle(call).Value().(*listener)
	if l.panicked != nil || l.ctx.Err() != nil {
		return 1
	}
	if l.progress == nil {
		return 0
	}
	stop = 1 // also after a panic
	defer l.keepPanic()
	if l.progress(C.GoString(stage), uint64(done), uint64(total)) {
		stop = 0
	}
	return stop
}

func (l *listener) keepPanic() {
	if value := recover(); value != nil {
		l.panicked = value
	}
}

// ---- The host's threads ----

// ParallelFor calls run once for each index below count, on goroutines of its choice, and returns when all have returned.
type ParallelFor func(count int, run func(index int))

// tasks is one parallel-for. Every index runs exactly once before it ends, whatever the host's function does: results would
// else be silently incomplete.
type tasks struct {
	run   C.pvera_task
	task  unsafe.Pointer
	taken []atomic.Bool
	left  sync.WaitGroup
}

func (t *tasks) one(index int) {
	if uint(index) >= uint(len(t.taken)) || t.taken[index].Swap(true) {
		return // not an index, or run already; the latter also when all have returned
	}
	defer t.left.Done()
	C.pvera_go_run_task(t.run, t.task, C.size_t(index))
}

// host is the ParallelFor of a context, and what went wrong in it: by the thread of the call, which is the callback's own.
type host struct {
	each     ParallelFor
	guard    sync.Mutex
	panicked map[C.uintptr_t]any
}

//export pveraGoParallelFor
func pveraGoParallelFor(user C.uintptr_t, count C.size_t, run C.pvera_task, task unsafe.Pointer) {
	h := cgo.Handle(user).Value().(*host)
	all := &tasks{run: run, task: task, taken: make([]atomic.Bool, int(count))}
	all.left.Add(int(count))
	h.call(int(count), all.one)
	for index := range all.taken {
		all.one(index)
	}
	all.left.Wait()
}

func (h *host) call(count int, run func(int)) {
	defer func() {
		if value := recover(); value != nil {
			h.keep(value)
		}
	}()
	h.each(count, run)
}

// keep keeps a panic for the call that runs on this thread.
func (h *host) keep(value any) {
	h.guard.Lock()
	defer h.guard.Unlock()
	h.panicked[C.pvera_go_thread()] = value
}

// rethrow goes on with a panic of the host's function in this thread's call.
func (h *host) rethrow() {
	if value := h.taken(); value != nil {
		panic(value)
	}
}

func (h *host) taken() any {
	h.guard.Lock()
	defer h.guard.Unlock()
	if len(h.panicked) == 0 {
		return nil
	}
	thread := C.pvera_go_thread()
	value := h.panicked[thread]
	delete(h.panicked, thread)
	return value
}
