// Adapters: load, create, train, save.

package pvera

// #include "shim.h"
import "C"

import (
	"context"
	"runtime"
	"sync"
	"unsafe"
)

// Adapter is config, store, and two vectors for every layer that it adapts.
//
// Immutable, unless it is trainable (made by [Model.NewAdapter] or [Adapter.Trainable]): then its parameters are written by
// its owner, between calls.
type Adapter struct {
	object *object
	model  *object
	layers *layers
	guard  sync.RWMutex // SetTensor needs the adapter to itself
}

// AdapterOptions is what a checkpoint's files do not say. The zero value is the default.
type AdapterOptions struct {
	// InMax and OutMax are the largest in_features and out_features over all adapted layers of the whole model: needed where
	// this program declares only some of them and the projections come from the key. 0: the largest declared ones.
	InMax, OutMax int
	// BaseDType is the element type of the base model, to which projections from the key are rounded. Zero: f32.
	BaseDType DType
	// IgnoreUndeclared carries the vectors of layers that are not declared here along, instead of refusing them.
	IgnoreUndeclared bool
	// MapFile maps the tensor file instead of reading it; it must then stay as it is while the adapter lives.
	MapFile bool
	// Identity is the number under which the adapter draws its noise; 0: a hash of the name it is published under.
	Identity uint64
}

func (o *AdapterOptions) c() (C.pvera_adapter_options, error) {
	c := C.pvera_adapter_options{struct_size: C.sizeof_pvera_adapter_options}
	if o == nil {
		return c, nil
	}
	if o.InMax < 0 || o.OutMax < 0 {
		return c, errorf(ErrArgument, "options.InMax is %d and options.OutMax %d; wanted no negative number", o.InMax, o.OutMax)
	}
	c.in_max, c.out_max = C.size_t(o.InMax), C.size_t(o.OutMax)
	c.base_dtype = o.BaseDType.c()
	c.identity = C.uint64_t(o.Identity)
	if o.IgnoreUndeclared {
		c.ignore_undeclared = 1
	}
	if o.MapFile {
		c.map_file = 1
	}
	return c, nil
}

// LoadAdapter loads a PEFT checkpoint folder for the layers of the model; options may be nil. Cancelling ctx stops the drawing
// of projections, which is what takes long.
func (m *Model) LoadAdapter(ctx context.Context, folder string, options *AdapterOptions) (*Adapter, error) {
	text, err := newText("folder", folder)
	if err != nil {
		return nil, err
	}
	defer text.free()
	return m.makeAdapter(ctx, options, func(call C.uintptr_t, options adapterOptions, made **C.pvera_adapter) *C.pvera_error {
		return C.pvera_go_adapter_load(call, m.c(), text.c, options, made)
	})
}

// LoadAdapterMemory loads a PEFT checkpoint from the bytes of its two files, which are copied.
func (m *Model) LoadAdapterMemory(ctx context.Context, config, tensors []byte, options *AdapterOptions) (*Adapter, error) {
	return m.makeAdapter(ctx, options, func(call C.uintptr_t, options adapterOptions, made **C.pvera_adapter) *C.pvera_error {
		return C.pvera_go_adapter_load_memory(call, m.c(), (*C.uint8_t)(unsafe.SliceData(config)), C.size_t(len(config)),
			(*C.uint8_t)(unsafe.SliceData(tensors)), C.size_t(len(tensors)), options, made)
	})
}

// NewAdapter is a new trainable adapter for the declared layers that the config targets: λ_b = 0, λ_d = d_initial. Projections
// are those of store, or drawn from the config's key when it is nil.
func (m *Model) NewAdapter(ctx context.Context, config *Config, store *Store, options *AdapterOptions) (*Adapter, error) {
	own, err := config.Clone() // a warning or progress function may set the config
	if err != nil {
		return nil, err
	}
	defer own.Close()
	var projections *C.pvera_store
	if store != nil {
		if err := store.own().enter("store"); err != nil {
			return nil, err
		}
		defer store.object.leave()
		projections = store.c()
	}
	return m.makeAdapter(ctx, options, func(call C.uintptr_t, options adapterOptions, made **C.pvera_adapter) *C.pvera_error {
		return C.pvera_go_adapter_new(call, m.c(), own.c(), projections, options, made)
	})
}

// makeCall is a call of C that makes an adapter and tells the listener behind a handle.
type makeCall func(listener C.uintptr_t, options adapterOptions, made **C.pvera_adapter) *C.pvera_error

type adapterOptions = *C.pvera_adapter_options

func (m *Model) makeAdapter(ctx context.Context, options *AdapterOptions, call makeCall) (*Adapter, error) {
	if err := m.own().enter("model"); err != nil {
		return nil, err
	}
	defer m.object.leave()
	c, err := options.c()
	if err != nil {
		return nil, err
	}
	listener := m.told
	listener.ctx = ctx
	var pointer *C.pvera_adapter
	err = listener.listen(func(handle C.uintptr_t) *C.pvera_error { return call(handle, &c, &pointer) },
		func() { C.pvera_adapter_free(pointer) })
	if err != nil {
		return nil, err
	}
	return adapterFrom(pointer, m.object, m.layers), nil
}

func adapterFrom(pointer *C.pvera_adapter, model *object, layers *layers, keeps ...*object) *Adapter {
	own := newObject("adapter", unsafe.Pointer(pointer), func(adapter unsafe.Pointer) {
		C.pvera_adapter_free((*C.pvera_adapter)(adapter))
	}, append(keeps, model)...)
	return watch(&Adapter{object: own, model: model, layers: layers}, own)
}

// Close gives this handle back; the adapter goes with its last one, the model's and the linears' included.
func (a *Adapter) Close() error {
	a.own().close()
	return nil
}

func (a *Adapter) own() *object {
	if a == nil {
		return nil
	}
	return a.object
}

func (a *Adapter) c() *C.pvera_adapter { return (*C.pvera_adapter)(a.object.pointer) }

// enter begins a call that reads the adapter; leave ends it.
func (a *Adapter) enter() error {
	if err := a.own().enter("adapter"); err != nil {
		return err
	}
	a.guard.RLock()
	return nil
}

func (a *Adapter) leave() {
	a.guard.RUnlock()
	a.object.leave()
}

// read runs a call that reads the adapter.
func (a *Adapter) read(call func() *C.pvera_error) error {
	if err := a.enter(); err != nil {
		return err
	}
	defer a.leave()
	return take(call())
}

// Trainable is a trainable copy. With memory, its parameters live there from now on: it has as many numbers as the adapter has
// parameters, gets today's values, and is pinned as long as the copy and every linear made from it. With nil the copy has
// memory of its own; see [Adapter.Parameters].
func (a *Adapter) Trainable(memory []float32) (*Adapter, error) {
	if err := a.enter(); err != nil {
		return nil, err
	}
	defer a.leave()
	var pins *runtime.Pinner
	if memory != nil {
		pins = new(runtime.Pinner)
		pin(pins, unsafe.Pointer(unsafe.SliceData(memory)))
	}
	var pointer *C.pvera_adapter
	failure := C.pvera_adapter_trainable(a.c(), (*C.float)(unsafe.SliceData(memory)), C.size_t(len(memory)), &pointer)
	if failure != nil {
		if pins != nil {
			pins.Unpin()
		}
		return nil, take(failure)
	}
	copied := adapterFrom(pointer, a.model, a.layers)
	if pins != nil {
		copied.object.pins = append(copied.object.pins, pins)
	}
	return copied, nil
}

// TrainableOn is a trainable copy whose parameters live in device memory of a CUDA context: memory is a slice made by
// unsafe.Slice of the device's pointer, which outlives the copy and every linear made from it.
func (a *Adapter) TrainableOn(context *Context, memory []float32) (*Adapter, error) {
	if err := context.own().enter("context"); err != nil {
		return nil, err
	}
	defer context.object.leave()
	if err := a.enter(); err != nil {
		return nil, err
	}
	defer a.leave()
	var pointer *C.pvera_adapter
	failure := C.pvera_adapter_trainable_on(a.c(), context.c(), (*C.float)(unsafe.SliceData(memory)), C.size_t(len(memory)),
		&pointer)
	if failure != nil {
		return nil, take(failure)
	}
	return adapterFrom(pointer, a.model, a.layers, context.object), nil
}

// Clone is another handle on the same adapter.
func (a *Adapter) Clone() (*Adapter, error) {
	if err := a.enter(); err != nil {
		return nil, err
	}
	defer a.leave()
	var pointer *C.pvera_adapter
	if err := take(C.pvera_adapter_clone(a.c(), &pointer)); err != nil {
		return nil, err
	}
	return adapterFrom(pointer, a.model, a.layers, a.object), nil
}

// Parameters calls use with the live parameters of a trainable adapter: one flat array of every adapted layer's λ_b, λ_d and
// learned bias (see [Adapter.Range]). It is not to be kept when use returns. Of [Adapter.TrainableOn] it is device memory.
func (a *Adapter) Parameters(use func(parameters []float32) error) error {
	var parameters *C.float
	var count C.size_t
	if err := a.own().enter("adapter"); err != nil {
		return err
	}
	defer a.object.leave()
	err := a.read(func() *C.pvera_error { return C.pvera_adapter_parameters(a.c(), &parameters, &count) })
	if err != nil {
		return err
	}
	return use(unsafe.Slice((*float32)(parameters), int(count))) // which may call anything of the adapter
}

// ParameterCount is the number of parameters, all layers together.
func (a *Adapter) ParameterCount() (int, error) {
	var count C.size_t
	err := a.read(func() *C.pvera_error { return C.pvera_adapter_parameter_count(a.c(), &count) })
	return int(count), err
}

// Adapts says whether the adapter adapts the layer of that number.
func (a *Adapter) Adapts(layer int) (bool, error) {
	var adapts C.bool
	err := a.read(func() *C.pvera_error { return C.pvera_adapter_adapts(a.c(), C.size_t(layer), &adapts) })
	return bool(adapts), err
}

// Span is a part of a flat array.
type Span struct{ First, Count int }

// Of is this part of values.
func (s Span) Of(values []float32) []float32 {
	return values[s.First : s.First+s.Count : s.First+s.Count]
}

// ParameterRange is where one layer's vectors lie among an adapter's parameters. Bias is empty where none is learned.
type ParameterRange struct{ LambdaB, LambdaD, Bias Span }

// Range is where a layer's vectors lie among the parameters (and, in the same layout, gradients and optimiser state).
func (a *Adapter) Range(layer int) (ParameterRange, error) {
	var at C.pvera_parameter_range
	err := a.read(func() *C.pvera_error { return C.pvera_adapter_range(a.c(), C.size_t(layer), &at) })
	return ParameterRange{
		LambdaB: Span{int(at.lambda_b), int(at.lambda_b_count)},
		LambdaD: Span{int(at.lambda_d), int(at.lambda_d_count)},
		Bias:    Span{int(at.bias), int(at.bias_count)},
	}, err
}

// Config is a copy of the adapter's config.
func (a *Adapter) Config() (*Config, error) {
	var pointer *C.pvera_config
	if err := a.read(func() *C.pvera_error { return C.pvera_adapter_config(a.c(), &pointer) }); err != nil {
		return nil, err
	}
	return configFrom(pointer), nil
}

// Store is a handle on the adapter's store.
func (a *Adapter) Store() (*Store, error) {
	var pointer *C.pvera_store
	if err := a.read(func() *C.pvera_error { return C.pvera_adapter_store(a.c(), &pointer) }); err != nil {
		return nil, err
	}
	return storeFrom(pointer), nil
}

// Save writes a PEFT checkpoint folder, all or nothing. ctx is asked before; a save that has begun is finished, so that an
// error always means that the folder is as it was.
func (a *Adapter) Save(ctx context.Context, folder string) error {
	text, err := newText("folder", folder)
	if err != nil {
		return err
	}
	defer text.free()
	if err := ctx.Err(); err != nil {
		return err
	}
	return a.read(func() *C.pvera_error { return C.pvera_adapter_save(a.c(), text.c) })
}

// SaveMemory is the two files of a checkpoint.
func (a *Adapter) SaveMemory() (config, tensors []byte, err error) {
	var files [2]C.pvera_bytes
	err = a.read(func() *C.pvera_error { return C.pvera_adapter_save_memory(a.c(), &files[0], &files[1]) })
	if err != nil {
		return nil, nil, err
	}
	return takeBytes(&files[0]), takeBytes(&files[1]), nil
}

// Linear is one layer of the adapter, in slot 0, with its live parameters: for training.
func (a *Adapter) Linear(layer int) (*Linear, error) {
	if err := a.enter(); err != nil {
		return nil, err
	}
	defer a.leave()
	var pointer *C.pvera_linear
	if err := take(C.pvera_adapter_linear(a.c(), C.size_t(layer), &pointer)); err != nil {
		return nil, err
	}
	return linearFrom(pointer, a.layers.outputs(layer), nil, a.object), nil
}
