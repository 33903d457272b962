// Models: declared layers and published adapters.

package pvera

// #include "shim.h"
import "C"

import (
	"runtime"
	"sync"
	"unsafe"
)

// WeightLayout is the orientation of a weight.
type WeightLayout int32

// The layouts.
const (
	// OutIn is [out_features, in_features], as torch.nn.Linear.
	OutIn WeightLayout = C.PVERA_WEIGHT_OUT_IN
	// InOut is [in_features, out_features], as GPT-2's Conv1D.
	InOut WeightLayout = C.PVERA_WEIGHT_IN_OUT
)

// Layer is a linear layer of the host, or this program's shard of one.
type Layer struct {
	// Name is the module path as in the checkpoint. Noise is keyed by it.
	Name string
	// Sizes of this shard, where it begins in the whole layer, and the sizes of that; a total of 0 is offset + features. With a
	// part of the inputs there are means alone: see pvera_layer in the header.
	InFeatures, OutFeatures, InOffset, OutOffset, InTotal, OutTotal int
	// Weight is the base weight. It is pinned, and stays unchanged, as long as the model and all that is made from it. Without
	// one, forward adds the delta to what y holds.
	Weight       Matrix
	WeightLayout WeightLayout
	// OutputHead: this is the model's output head, which "all-linear" leaves out.
	OutputHead bool
	// Bias [1, out_features] is the base bias, kept like the weight.
	Bias Matrix
}

// whole is the number of outputs of the whole layer.
func (l *Layer) whole() int {
	if l.OutTotal != 0 {
		return l.OutTotal
	}
	return l.OutOffset + l.OutFeatures
}

// c is the C struct, with what it points to pinned.
func (l *Layer) c(name *C.char, pins *runtime.Pinner) (C.pvera_layer, error) {
	var c C.pvera_layer
	for _, size := range [...]struct {
		field string
		value int
	}{
		{"InFeatures", l.InFeatures}, {"OutFeatures", l.OutFeatures}, {"InOffset", l.InOffset}, {"OutOffset", l.OutOffset},
		{"InTotal", l.InTotal}, {"OutTotal", l.OutTotal},
	} {
		if size.value < 0 {
			return c, errorf(ErrArgument, "layer.%s is %d; wanted no negative number", size.field, size.value)
		}
	}
	if err := l.Weight.check("layer.Weight"); err != nil {
		return c, err
	}
	if err := l.Bias.check("layer.Bias"); err != nil {
		return c, err
	}
	pin(pins, l.Weight.data)
	pin(pins, l.Bias.data)
	c = C.pvera_layer{struct_size: C.sizeof_pvera_layer, name: name, in_features: C.size_t(l.InFeatures),
		out_features: C.size_t(l.OutFeatures), in_offset: C.size_t(l.InOffset), out_offset: C.size_t(l.OutOffset),
		in_total: C.size_t(l.InTotal), out_total: C.size_t(l.OutTotal), weight: l.Weight.c(),
		weight_layout: C.int32_t(l.WeightLayout), bias: l.Bias.c()}
	if l.OutputHead {
		c.output_head = 1
	}
	return c, nil
}

// pin keeps Go memory where it is; other memory stays anyway.
func pin(pins *runtime.Pinner, memory unsafe.Pointer) {
	if memory != nil {
		pins.Pin(memory)
	}
}

// ModelOptions is what a model is given by its host.
type ModelOptions struct {
	// Allocator is for stores and adapters.
	Allocator Allocator
	// Warning gets a sentence about something odd that is not an error. It is called on the goroutine that loads or makes an
	// adapter or uses a [Bank], and may be called on several at a time.
	Warning func(message string)
	// Progress is called now and then while projections are drawn from a key and while a bank is verified or compacted; false
	// stops that with [ErrCancelled].
	Progress func(stage string, done, total uint64) bool
}

// Model is the layers of one network and the adapters published for it. Publishing never waits for a running pass, because a
// pass holds a [Snapshot].
type Model struct {
	object *object
	told   listener // what a load begins with
	layers *layers
}

// layers is what the binding must know of the declared layers: how long their vectors are.
type layers struct {
	guard sync.RWMutex
	wide  []int // outputs of the whole layer, by its number
}

func (l *layers) outputs(number int) int {
	l.guard.RLock()
	defer l.guard.RUnlock()
	if uint(number) < uint(len(l.wide)) {
		return l.wide[number]
	}
	return 0
}

// NewModel is a model without layers; options may be nil.
func NewModel(options *ModelOptions) (*Model, error) {
	if options == nil {
		options = &ModelOptions{}
	}
	var pointer *C.pvera_model
	if err := take(C.pvera_go_model_new(options.Allocator.c(), &pointer)); err != nil {
		return nil, err
	}
	own := newObject("model", unsafe.Pointer(pointer), func(model unsafe.Pointer) {
		C.pvera_model_free((*C.pvera_model)(model))
	})
	told := listener{warning: options.Warning, progress: options.Progress}
	return watch(&Model{object: own, told: told, layers: &layers{}}, own), nil
}

// Close gives the model back. Its adapters and snapshots live on; its memory goes with the last of them.
func (m *Model) Close() error {
	m.own().close()
	return nil
}

func (m *Model) own() *object {
	if m == nil {
		return nil
	}
	return m.object
}

func (m *Model) c() *C.pvera_model { return (*C.pvera_model)(m.object.pointer) }

// named runs a call with a text.
func (m *Model) named(argument, name string, call func(name *C.char) *C.pvera_error) error {
	text, err := newText(argument, name)
	if err != nil {
		return err
	}
	defer text.free()
	if err := m.own().enter("model"); err != nil {
		return err
	}
	defer m.object.leave()
	return take(call(text.c))
}

// Declare adds a layer and returns its number: layers are numbered in the order of declaration, from 0. All are declared
// before the first adapter or snapshot is made.
func (m *Model) Declare(layer Layer) (number int, err error) {
	text, err := newText("layer.Name", layer.Name)
	if err != nil {
		return 0, err
	}
	defer text.free()
	if err := m.own().enter("model"); err != nil {
		return 0, err
	}
	defer m.object.leave()
	return m.declare(text.c, &layer)
}

func (m *Model) declare(name *C.char, layer *Layer) (int, error) {
	m.layers.guard.Lock()
	defer m.layers.guard.Unlock()
	pins := new(runtime.Pinner)
	c, err := layer.c(name, pins)
	var number C.size_t
	if err == nil {
		err = take(C.pvera_model_declare(m.c(), &c, &number))
	}
	if err != nil {
		pins.Unpin()
		return 0, err
	}
	m.object.pins = append(m.object.pins, pins)
	m.layers.wide = append(m.layers.wide, layer.whole())
	return int(number), nil
}

// FindLayer is the number of the layer of that name.
func (m *Model) FindLayer(name string) (int, error) {
	var number C.size_t
	err := m.named("name", name, func(name *C.char) *C.pvera_error {
		return C.pvera_model_find_layer(m.c(), name, &number)
	})
	return int(number), err
}

// Publish puts an adapter under a new name; its slot stays while the name is published. A trainable adapter is copied as it is
// now.
func (m *Model) Publish(name string, adapter *Adapter) (slot int32, err error) {
	return m.put(name, adapter, func(name *C.char, slot *C.int32_t) *C.pvera_error {
		return C.pvera_model_publish(m.c(), name, adapter.c(), slot)
	})
}

// Replace puts an adapter in the place of the one published under that name; the slot stays. Snapshots taken before keep the
// old one.
func (m *Model) Replace(name string, adapter *Adapter) (slot int32, err error) {
	return m.put(name, adapter, func(name *C.char, slot *C.int32_t) *C.pvera_error {
		return C.pvera_model_replace(m.c(), name, adapter.c(), slot)
	})
}

func (m *Model) put(name string, adapter *Adapter, call func(*C.char, *C.int32_t) *C.pvera_error) (int32, error) {
	var slot C.int32_t
	if err := adapter.enter(); err != nil {
		return 0, err
	}
	defer adapter.leave()
	err := m.named("name", name, func(name *C.char) *C.pvera_error { return call(name, &slot) })
	return int32(slot), err
}

// Remove takes an adapter out. Its slot is free for the next one published.
func (m *Model) Remove(name string) error {
	return m.named("name", name, func(name *C.char) *C.pvera_error { return C.pvera_model_remove(m.c(), name) })
}

// Snapshot is a view of the adapters as they are now, for one pass over the network.
func (m *Model) Snapshot() (*Snapshot, error) {
	if err := m.own().enter("model"); err != nil {
		return nil, err
	}
	defer m.object.leave()
	var pointer *C.pvera_snapshot
	if err := take(C.pvera_model_snapshot(m.c(), &pointer)); err != nil {
		return nil, err
	}
	return snapshotFrom(pointer, m.object, m.layers), nil
}
