// Noise for its own sake: PyTorch's, and the keyed normals that a sampled forward uses.

package pvera

// #include "shim.h"
import "C"

import (
	"sync"
	"unsafe"
)

// TorchGenerator is PyTorch's CPU generator: consecutive tensors continue one stream, as torch.randn does.
type TorchGenerator struct {
	object *object
	guard  sync.Mutex
}

// NewTorchGenerator is torch.Generator().manual_seed(seed).
func NewTorchGenerator(seed uint64) (*TorchGenerator, error) {
	var pointer *C.pvera_torch_generator
	if err := take(C.pvera_torch_generator_new(C.uint64_t(seed), &pointer)); err != nil {
		return nil, err
	}
	own := newObject("generator", unsafe.Pointer(pointer), func(generator unsafe.Pointer) {
		C.pvera_torch_generator_free((*C.pvera_torch_generator)(generator))
	})
	return watch(&TorchGenerator{object: own}, own), nil
}

// Normals fills values with the standard normals that PyTorch puts into a contiguous f32 CPU tensor of that size.
func (g *TorchGenerator) Normals(values []float32) error {
	if err := g.own().enter("generator"); err != nil {
		return err
	}
	defer g.object.leave()
	g.guard.Lock()
	defer g.guard.Unlock()
	return take(C.pvera_torch_generator_normals((*C.pvera_torch_generator)(g.object.pointer), C.size_t(len(values)),
		(*C.float)(unsafe.SliceData(values))))
}

// Close gives the generator back.
func (g *TorchGenerator) Close() error {
	g.own().close()
	return nil
}

func (g *TorchGenerator) own() *object {
	if g == nil {
		return nil
	}
	return g.object
}

// AdapterIdentity is the number under which an adapter published as name draws its noise.
func AdapterIdentity(name string) (uint64, error) {
	text, err := newText("name", name)
	if err != nil {
		return 0, err
	}
	defer text.free()
	var identity C.uint64_t
	err = take(C.pvera_adapter_identity(text.c, &identity))
	return uint64(identity), err
}

// NoiseKey says whose noise it is.
type NoiseKey struct {
	Seed uint64
	// Layer is the layer's name.
	Layer string
	// Adapter is the adapter's number; see [AdapterIdentity].
	Adapter uint64
	// Identity is the row's.
	Identity   uint64
	Sample     uint32
	Antithetic bool
}

// KeyedNormals fills values with the eps of latents 0, 1, … that a sampled forward uses for this key.
func KeyedNormals(key NoiseKey, values []float32) error {
	layer, err := newText("key.Layer", key.Layer)
	if err != nil {
		return err
	}
	defer layer.free()
	return take(C.pvera_keyed_normals(C.uint64_t(key.Seed), layer.c, C.uint64_t(key.Adapter), C.uint64_t(key.Identity),
		C.uint32_t(key.Sample), C.bool(key.Antithetic), C.size_t(len(values)), (*C.float)(unsafe.SliceData(values))))
}
