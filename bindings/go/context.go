// Contexts: where work runs.

package pvera

// #include "shim.h"
import "C"

import (
	"runtime"
	"runtime/cgo"
	"unsafe"
)

// Context is where work runs: a backend, its threads, its scratch memory. (It has nothing to do with [context.Context], which
// is named ctx here.)
//
// Many goroutines may call on one Context at a time; each call borrows scratch of its own, and the results have the same bits.
type Context struct {
	object *object
	host   *host
}

// Backend is the kind of arithmetic.
type Backend int32

// The backends.
const (
	// CPU: f32 kernels; the default.
	CPU Backend = C.PVERA_BACKEND_CPU
	// Reference: plain f64 code, for checking.
	Reference Backend = C.PVERA_BACKEND_REFERENCE
	// CUDA: work is queued on a stream, not waited for.
	CUDA Backend = C.PVERA_BACKEND_CUDA
)

// CPUFeatures are features that kernels are chosen by, as bits.
type CPUFeatures uint32

// The features.
const (
	AVX2       CPUFeatures = C.PVERA_CPU_AVX2
	AVX512     CPUFeatures = C.PVERA_CPU_AVX512
	AVX512BF16 CPUFeatures = C.PVERA_CPU_AVX512_BF16
	NEON       CPUFeatures = C.PVERA_CPU_NEON
)

// Products is the arithmetic of base products.
type Products int32

// The products.
const (
	// ProductsF32: whatever the storage; the default.
	ProductsF32 Products = C.PVERA_PRODUCTS_F32
	// ProductsBF16: where x (or dy) and the base weight are both bf16, their product is made in bf16 arithmetic.
	ProductsBF16 Products = C.PVERA_PRODUCTS_BF16
)

// ContextOptions says how a context works. The zero value is the default: the CPU, on the calling thread alone.
type ContextOptions struct {
	Backend Backend
	// Threads is how many threads of its own the context has beside the calling one; with a ParallelFor, how many tasks that
	// gets at a time, less one.
	Threads uint32
	// ParallelFor runs the work on the host's goroutines instead. A panic in it goes on in the call whose work it was; it must
	// not call runtime.Goexit, nor FailNow of a test.
	ParallelFor ParallelFor
	// Allocator is for scratch memory.
	Allocator Allocator
	// Device and Stream are for CUDA alone: which device, and a CUstream, which outlives the context.
	Device         Device
	Stream         unsafe.Pointer
	CPUFeaturesOff CPUFeatures
	Products       Products
}

// NewContext is a context; options may be nil.
func NewContext(options *ContextOptions) (*Context, error) {
	if options == nil {
		options = &ContextOptions{}
	}
	c := C.pvera_context_options{struct_size: C.sizeof_pvera_context_options, backend: C.int32_t(options.Backend),
		threads: C.uint32_t(options.Threads), allocator: options.Allocator.c(), device: options.Device.c(),
		stream: options.Stream, cpu_features_off: C.uint32_t(options.CPUFeaturesOff), products: C.int32_t(options.Products)}
	context := &Context{}
	var handle cgo.Handle
	if options.ParallelFor != nil {
		context.host = &host{each: options.ParallelFor, panicked: map[C.uintptr_t]any{}}
		handle = cgo.NewHandle(context.host)
	}
	var pointer *C.pvera_context
	if err := take(C.pvera_go_context_new(c, C.uintptr_t(handle), &pointer)); err != nil {
		if handle != 0 {
			handle.Delete()
		}
		return nil, err
	}
	context.object = newObject("context", unsafe.Pointer(pointer), func(context unsafe.Pointer) {
		C.pvera_context_free((*C.pvera_context)(context))
	})
	context.object.handle = handle
	return watch(context, context.object), nil
}

// Close ends the context's threads and gives its scratch back, when no call runs on it any more.
func (c *Context) Close() error {
	c.own().close()
	return nil
}

func (c *Context) own() *object {
	if c == nil {
		return nil
	}
	return c.object
}

func (c *Context) c() *C.pvera_context { return (*C.pvera_context)(c.object.pointer) }

// enter begins a computation, and leave ends it. Where the host's function may be called, the goroutine keeps its thread in
// between, by which a panic finds the call that it belongs to.
func (c *Context) enter() error {
	if err := c.own().enter("context"); err != nil {
		return err
	}
	if c.host != nil {
		runtime.LockOSThread()
	}
	return nil
}

func (c *Context) leave() {
	if c.host != nil {
		runtime.UnlockOSThread()
	}
	c.object.leave()
}

// result is the outcome of a call of C in a computation.
func (c *Context) result(failure *C.pvera_error) error {
	err := take(failure)
	if c.host != nil {
		c.host.rethrow()
	}
	return err
}

// Check is an error that CUDA kernels found while they ran; it waits for the context's stream. On a CPU context there is never
// one.
func (c *Context) Check() error {
	if err := c.own().enter("context"); err != nil {
		return err
	}
	defer c.object.leave()
	return take(C.pvera_context_check(c.c()))
}

// MachineCPUFeatures are the features of this machine that the library has kernels for.
func MachineCPUFeatures() (CPUFeatures, error) {
	var features C.uint32_t
	err := take(C.pvera_cpu_features(&features))
	return CPUFeatures(features), err
}

// CPUFeatures are the features that the context's kernels use.
func (c *Context) CPUFeatures() (CPUFeatures, error) {
	if err := c.own().enter("context"); err != nil {
		return 0, err
	}
	defer c.object.leave()
	var features C.uint32_t
	err := take(C.pvera_context_cpu_features(c.c(), &features))
	return CPUFeatures(features), err
}

// ScratchBytes is the scratch memory that the context holds between calls; of a CUDA context, in device memory.
func (c *Context) ScratchBytes() (int, error) {
	if err := c.own().enter("context"); err != nil {
		return 0, err
	}
	defer c.object.leave()
	var bytes C.size_t
	err := take(C.pvera_context_scratch_bytes(c.c(), &bytes))
	return int(bytes), err
}
