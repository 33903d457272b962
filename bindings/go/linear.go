// Linears: adapted layers.

package pvera

// #include "shim.h"
import "C"

import (
	"context"
	"runtime"
	"unsafe"
)

// Linear is a layer and the adapters that may run on it. Immutable, as far as the parameters behind it are not written.
type Linear struct {
	object  *object        // its own, or the snapshot's that lends it
	pointer unsafe.Pointer // *C.pvera_linear
	lender  *Snapshot      // kept from being forgotten
	outputs int            // of the whole layer
}

// LinearVectors are the vectors of a standalone layer. They are pinned as long as the linear, and read at every call.
type LinearVectors struct {
	// LambdaB has one number for each output of the whole layer, LambdaD two for each rank. Bias, for each output, is a
	// learned one that takes the place of the layer's; or nil.
	LambdaB, LambdaD, Bias []float32
	// Identity is the number under which noise is drawn; 0: a hash of "default".
	Identity uint64
	// Device is where the vectors lie.
	Device Device
}

func (v *LinearVectors) check(outputs, twoRank int) error {
	for _, vector := range [...]struct {
		name   string
		length int
		wanted int
	}{
		{"vectors.LambdaB", len(v.LambdaB), outputs},
		{"vectors.LambdaD", len(v.LambdaD), twoRank},
		{"vectors.Bias", len(v.Bias), outputs},
	} {
		if vector.name == "vectors.Bias" && v.Bias == nil {
			continue
		}
		if vector.length != vector.wanted {
			return errorf(ErrShape, "%s has %d elements; wanted %d", vector.name, vector.length, vector.wanted)
		}
	}
	return nil
}

// c is the C struct, with what it points to pinned.
func (v *LinearVectors) c(pins *runtime.Pinner) C.pvera_linear_vectors {
	for _, vector := range [...][]float32{v.LambdaB, v.LambdaD, v.Bias} {
		pin(pins, unsafe.Pointer(unsafe.SliceData(vector)))
	}
	return C.pvera_linear_vectors{struct_size: C.sizeof_pvera_linear_vectors,
		lambda_b: (*C.float)(unsafe.SliceData(v.LambdaB)), lambda_d: (*C.float)(unsafe.SliceData(v.LambdaD)),
		bias: (*C.float)(unsafe.SliceData(v.Bias)), identity: C.uint64_t(v.Identity), device: v.Device.c()}
}

// NewLinear is a standalone layer on a store, for hosts that keep the vectors themselves. Its one adapter is slot 0. config gives
// alpha, dropout, logvar_bound and sample_at_inference; with nil the rank is the store's and the rest PEFT's defaults.
func NewLinear(layer Layer, store *Store, config *Config, vectors LinearVectors) (*Linear, error) {
	twoRank := 0
	if err := store.Matrices(func(a, _ Matrix) error { twoRank = a.rows; return nil }); err != nil {
		return nil, err
	}
	if err := vectors.check(layer.whole(), twoRank); err != nil {
		return nil, err
	}
	var hyperparameters *C.pvera_config
	if config != nil {
		if err := config.own().enter("config"); err != nil {
			return nil, err
		}
		defer config.object.leave()
		config.guard.RLock()
		defer config.guard.RUnlock()
		hyperparameters = config.c()
	}
	if err := store.own().enter("store"); err != nil {
		return nil, err
	}
	defer store.object.leave()
	pins := new(runtime.Pinner)
	pointer, err := newLinear(layer, store, hyperparameters, vectors, pins)
	if err != nil {
		pins.Unpin()
		return nil, err
	}
	return linearFrom(pointer, layer.whole(), pins), nil
}

func newLinear(layer Layer, store *Store, config *C.pvera_config, vectors LinearVectors,
	pins *runtime.Pinner) (*C.pvera_linear, error) {
	name, err := newText("layer.Name", layer.Name)
	if err != nil {
		return nil, err
	}
	defer name.free()
	c, err := layer.c(name.c, pins)
	if err != nil {
		return nil, err
	}
	given := vectors.c(pins)
	var pointer *C.pvera_linear
	err = take(C.pvera_linear_new(&c, store.c(), config, &given, &pointer))
	return pointer, err
}

// linearFrom is a linear of its own, with pins or none.
func linearFrom(pointer *C.pvera_linear, outputs int, pins *runtime.Pinner, keeps ...*object) *Linear {
	own := newObject("linear", unsafe.Pointer(pointer), func(linear unsafe.Pointer) {
		C.pvera_linear_free((*C.pvera_linear)(linear))
	}, keeps...)
	if pins != nil {
		own.pins = append(own.pins, pins)
	}
	return watch(&Linear{object: own, pointer: unsafe.Pointer(pointer), outputs: outputs}, own)
}

// Close gives the linear back. One that a snapshot lends is the snapshot's, and Close does nothing.
func (l *Linear) Close() error {
	if l != nil && l.lender == nil {
		l.object.close()
	}
	return nil
}

func (l *Linear) own() *object {
	if l == nil {
		return nil
	}
	return l.object
}

func (l *Linear) c() *C.pvera_linear { return (*C.pvera_linear)(l.pointer) }

// PackBase packs the layer's base weight, which makes its products faster and changes no bit; ctx is asked before each use.
func (l *Linear) PackBase(ctx context.Context, uses Uses) error {
	if err := l.own().enter("linear"); err != nil {
		return err
	}
	defer l.object.leave()
	return eachUse(ctx, uses, func(use Uses) error { return take(C.pvera_linear_pack_base(l.c(), C.uint32_t(use))) })
}

// PackedBaseBytes is what the base weight's packed forms take or would take.
func (l *Linear) PackedBaseBytes(uses Uses) (int, error) {
	if err := l.own().enter("linear"); err != nil {
		return 0, err
	}
	defer l.object.leave()
	var bytes C.size_t
	err := take(C.pvera_linear_packed_base_bytes(l.c(), C.uint32_t(uses), &bytes))
	return int(bytes), err
}

// ProjectWidth is how many columns p has for n such rows, and how many latents (columns of eps, mu and logvar).
func (l *Linear) ProjectWidth(rows *Rows, n int) (width, latents int, err error) {
	if err := l.own().enter("linear"); err != nil {
		return 0, 0, err
	}
	defer l.object.leave()
	if n < 0 {
		return 0, 0, errorf(ErrArgument, "n is %d; wanted no negative number", n)
	}
	given, err := rows.c(n)
	if err != nil {
		return 0, 0, err
	}
	var counts [2]C.size_t
	err = take(C.pvera_go_project_width(l.c(), given, C.size_t(n), &counts[0], &counts[1]))
	return int(counts[0]), int(counts[1]), err
}
