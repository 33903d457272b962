// Snapshots: the adapters of a model, or of a bank, for one pass.

package pvera

// #include "shim.h"
import "C"

import "unsafe"

// Snapshot is an immutable view of a model's adapters, or of those that the rows of a batch want of a [Bank].
type Snapshot struct {
	object *object
	layers *layers
}

func snapshotFrom(pointer *C.pvera_snapshot, model *object, layers *layers) *Snapshot {
	own := newObject("snapshot", unsafe.Pointer(pointer), func(snapshot unsafe.Pointer) {
		C.pvera_snapshot_free((*C.pvera_snapshot)(snapshot))
	}, model)
	return watch(&Snapshot{own, layers}, own)
}

// Close gives the snapshot back and, with the last one that shows it, an adapter that was replaced or removed.
func (s *Snapshot) Close() error {
	s.own().close()
	return nil
}

func (s *Snapshot) own() *object {
	if s == nil {
		return nil
	}
	return s.object
}

func (s *Snapshot) c() *C.pvera_snapshot { return (*C.pvera_snapshot)(s.object.pointer) }

// Slot is that of the adapter published under this name when the snapshot was taken, or of the bank's of this name.
func (s *Snapshot) Slot(name string) (int32, error) {
	text, err := newText("name", name)
	if err != nil {
		return 0, err
	}
	defer text.free()
	if err := s.own().enter("snapshot"); err != nil {
		return 0, err
	}
	defer s.object.leave()
	var slot C.int32_t
	err = take(C.pvera_snapshot_slot(s.c(), text.c, &slot))
	return int32(slot), err
}

// Linear is the adapted layer of that number. It belongs to the snapshot: it is closed when the snapshot is.
func (s *Snapshot) Linear(layer int) (*Linear, error) {
	if err := s.own().enter("snapshot"); err != nil {
		return nil, err
	}
	defer s.object.leave()
	var pointer *C.pvera_linear
	if err := take(C.pvera_snapshot_linear(s.c(), C.size_t(layer), &pointer)); err != nil {
		return nil, err
	}
	return &Linear{object: s.object, pointer: unsafe.Pointer(pointer), lender: s, outputs: s.layers.outputs(layer)}, nil
}
