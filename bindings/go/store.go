// Stores: the frozen pair A and B that all layers share.

package pvera

// #include "shim.h"
import "C"

import (
	"context"
	"unsafe"
)

// Store is the pair A [2r, in_max] (for VeRA [r, in_max]) and B [out_max, r]. Immutable and reference counted.
type Store struct{ object *object }

// StoreOptions says how large a store drawn from a key is.
type StoreOptions struct {
	Rank int
	// InMax and OutMax are the largest in_features and out_features over all adapted layers of the whole model.
	InMax, OutMax int
	// BaseDType is the element type of the base model, to which PEFT rounds A and B. Zero: f32.
	BaseDType DType
	Allocator Allocator
	// Grid is how a store of new adapters is rounded, where not to BaseDType.
	Grid Grid
	// Progress is called now and then while values are drawn; false stops that with [ErrCancelled].
	Progress func(stage string, done, total uint64) bool
}

// Grid is a grid to which the values of a store are rounded.
type Grid int32

// The grids.
const (
	// GridNone: values are as PEFT draws them; the default.
	GridNone Grid = C.PVERA_GRID_NONE
	// GridInt8: integers from -127 to 127 times one factor for A and one for B, so that a packed value takes one byte. No key of
	// PEFT draws such a store: its adapters' checkpoints hold it.
	GridInt8 Grid = C.PVERA_GRID_INT8
)

// Uses says what packing is for.
type Uses uint32

// What packing is for, to be or-ed.
const (
	// PackForward is for forward, sample, moments and latent.
	PackForward Uses = C.PVERA_PACK_FORWARD
	// PackBackward is for backward.
	PackBackward Uses = C.PVERA_PACK_BACKWARD
)

func storeFrom(pointer *C.pvera_store) *Store {
	own := newObject("store", unsafe.Pointer(pointer), func(store unsafe.Pointer) {
		C.pvera_store_free((*C.pvera_store)(store))
	})
	return watch(&Store{own}, own)
}

// StoreFromKey draws the store of a projection_prng_key, bit for bit what PEFT draws; with a grid, that rounded. Cancelling ctx
// stops it.
func StoreFromKey(ctx context.Context, key uint64, options StoreOptions) (*Store, error) {
	sizes := [...]int{options.Rank, options.InMax, options.OutMax}
	for i, name := range [...]string{"Rank", "InMax", "OutMax"} {
		if sizes[i] < 0 {
			return nil, errorf(ErrArgument, "options.%s is %d; wanted at least 1", name, sizes[i])
		}
	}
	c := C.pvera_store_options{struct_size: C.sizeof_pvera_store_options, rank: C.size_t(options.Rank),
		in_max: C.size_t(options.InMax), out_max: C.size_t(options.OutMax), base_dtype: options.BaseDType.c(),
		allocator: options.Allocator.c(), grid: C.int32_t(options.Grid)}
	told := listener{ctx: ctx, progress: options.Progress}
	var pointer *C.pvera_store
	err := told.listen(func(handle C.uintptr_t) *C.pvera_error {
		return C.pvera_go_store_from_key(handle, C.uint64_t(key), c, &pointer)
	}, func() { C.pvera_store_free(pointer) })
	if err != nil {
		return nil, err
	}
	return storeFrom(pointer), nil
}

// StoreFromMatrices is a store of a [2r, in_max] (for VeRA [r, in_max]) and b [out_max, r], which are copied.
func StoreFromMatrices(a, b Matrix, allocator Allocator) (*Store, error) {
	if err := a.check("a"); err != nil {
		return nil, err
	}
	if err := b.check("b"); err != nil {
		return nil, err
	}
	var pointer *C.pvera_store
	if err := take(C.pvera_go_store_from_matrices(a.c(), b.c(), allocator.c(), &pointer)); err != nil {
		return nil, err
	}
	return storeFrom(pointer), nil
}

// StoreFromFile reads the projections of a safetensors file. With mapped the file is mapped instead of read; it must then stay
// as it is while the store lives.
func StoreFromFile(path string, mapped bool, allocator Allocator) (*Store, error) {
	text, err := newText("path", path)
	if err != nil {
		return nil, err
	}
	defer text.free()
	own := allocator.c()
	var pointer *C.pvera_store
	if err := take(C.pvera_store_from_file(text.c, C.bool(mapped), &own, &pointer)); err != nil {
		return nil, err
	}
	return storeFrom(pointer), nil
}

// StoreFromMemory reads the projections of a safetensors file in memory, which are copied.
func StoreFromMemory(file []byte, allocator Allocator) (*Store, error) {
	own := allocator.c()
	var pointer *C.pvera_store
	bytes := (*C.uint8_t)(unsafe.SliceData(file))
	if err := take(C.pvera_store_from_memory(bytes, C.size_t(len(file)), &own, &pointer)); err != nil {
		return nil, err
	}
	return storeFrom(pointer), nil
}

// Close gives this handle back; the store goes with its last one.
func (s *Store) Close() error {
	s.own().close()
	return nil
}

func (s *Store) own() *object {
	if s == nil {
		return nil
	}
	return s.object
}

func (s *Store) c() *C.pvera_store { return (*C.pvera_store)(s.object.pointer) }

// Clone is another handle on the same store.
func (s *Store) Clone() (*Store, error) {
	if err := s.own().enter("store"); err != nil {
		return nil, err
	}
	defer s.object.leave()
	var pointer *C.pvera_store
	if err := take(C.pvera_store_clone(s.c(), &pointer)); err != nil {
		return nil, err
	}
	return storeFrom(pointer), nil
}

// Matrices calls look with A and B as they are held: read only, and not to be kept when look returns. Both keep their values
// in 16 bits where that loses nothing. Their shapes give rank, in_max and out_max.
func (s *Store) Matrices(look func(a, b Matrix) error) error {
	if err := s.own().enter("store"); err != nil {
		return err
	}
	defer s.object.leave()
	var a, b C.pvera_matrix
	if err := take(C.pvera_store_matrices(s.c(), &a, &b)); err != nil {
		return err
	}
	return look(matrixOf(a), matrixOf(b))
}

// Equal says whether two stores hold the same values, whatever their origin and element type.
func (s *Store) Equal(other *Store) (bool, error) {
	if err := s.own().enter("store"); err != nil {
		return false, err
	}
	defer s.object.leave()
	if err := other.own().enter("other"); err != nil {
		return false, err
	}
	defer other.object.leave()
	var equal C.bool
	err := take(C.pvera_store_equal(s.c(), other.c(), &equal))
	return bool(equal), err
}

// Pack packs A and B now for the kernels; otherwise each form is packed when a call first needs it. The context is asked before
// each form.
func (s *Store) Pack(ctx context.Context, uses Uses) error {
	if err := s.own().enter("store"); err != nil {
		return err
	}
	defer s.object.leave()
	return eachUse(ctx, uses, func(use Uses) error { return take(C.pvera_store_pack(s.c(), C.uint32_t(use))) })
}

// eachUse runs pack for one use after the other. Words that it does not know go along, for the library to refuse.
func eachUse(ctx context.Context, uses Uses, pack func(Uses) error) error {
	if uses == PackForward|PackBackward {
		if err := eachUse(ctx, PackForward, pack); err != nil {
			return err
		}
		uses = PackBackward
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return pack(uses)
}

// PackedBytes is what the packed forms take or would take.
func (s *Store) PackedBytes(uses Uses) (int, error) {
	return s.size(func(bytes *C.size_t) *C.pvera_error {
		return C.pvera_store_packed_bytes(s.c(), C.uint32_t(uses), bytes)
	})
}

// Bytes is what A and B take, packed forms included as far as they are made.
func (s *Store) Bytes() (int, error) {
	return s.size(func(bytes *C.size_t) *C.pvera_error { return C.pvera_store_bytes(s.c(), bytes) })
}

func (s *Store) size(call func(*C.size_t) *C.pvera_error) (int, error) {
	if err := s.own().enter("store"); err != nil {
		return 0, err
	}
	defer s.object.leave()
	var bytes C.size_t
	err := take(call(&bytes))
	return int(bytes), err
}
