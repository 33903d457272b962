// Merging into a weight, and undoing it.

package pvera

// #include "shim.h"
import "C"

import "unsafe"

// MergeFlags are words for a merge, to be or-ed.
type MergeFlags uint32

// MergeMean merges the mean of an adapter that samples at inference, whose sampling is thereby lost.
const MergeMean MergeFlags = C.PVERA_MERGE_MEAN

// Undo is the bits that a merge replaced.
type Undo struct{ object *object }

// Merge writes weight + scale · diag(λ_b) B diag(λ_d[:r]) A[:r], summed over the adapters of rows (active, or slot 0), into
// merged: the mean of the layer as one weight. weight and merged are the same memory or none in common. Every element is
// checked before the first is written.
func (c *Context) Merge(linear *Linear, rows *Rows, flags MergeFlags, layout WeightLayout, weight, merged Matrix) error {
	return c.merge(linear, rows, flags, layout, weight, merged, nil)
}

// MergeWithUndo is Merge with what undoes it bit for bit, which takes as much memory as the weight. When a panic of the
// context's ParallelFor goes on from here, the merge is undone.
func (c *Context) MergeWithUndo(linear *Linear, rows *Rows, flags MergeFlags, layout WeightLayout,
	weight, merged Matrix) (*Undo, error) {
	var pointer *C.pvera_undo
	returned := false
	defer func() {
		if !returned { // a panic goes on, and nobody will get the undo
			C.pvera_error_free(C.pvera_go_unmerge(pointer, merged.mut()))
			C.pvera_undo_free(pointer)
		}
	}()
	err := c.merge(linear, rows, flags, layout, weight, merged, &pointer)
	returned = true
	if err != nil {
		return nil, err
	}
	own := newObject("undo", unsafe.Pointer(pointer), func(undo unsafe.Pointer) {
		C.pvera_undo_free((*C.pvera_undo)(undo))
	})
	return watch(&Undo{own}, own), nil
}

func (c *Context) merge(linear *Linear, rows *Rows, flags MergeFlags, layout WeightLayout, weight, merged Matrix,
	undo **C.pvera_undo) error {
	begun, err := c.begin(linear, "weight", weight, rows)
	if err != nil {
		return err
	}
	defer begun.leave()
	if err := merged.check("merged"); err != nil {
		return err
	}
	return c.result(C.pvera_go_merge(c.c(), linear.c(), begun.rows, C.uint32_t(flags), C.int32_t(layout), weight.c(),
		merged.mut(), undo))
}

// Unmerge puts back the bits that the merge replaced. weight must hold exactly what the merge wrote, else [ErrState], and
// nothing is written.
func (u *Undo) Unmerge(weight Matrix) error {
	if err := u.own().enter("undo"); err != nil {
		return err
	}
	defer u.object.leave()
	if err := weight.check("weight"); err != nil {
		return err
	}
	return take(C.pvera_go_unmerge((*C.pvera_undo)(u.object.pointer), weight.mut()))
}

// Close gives the bits back.
func (u *Undo) Close() error {
	u.own().close()
	return nil
}

func (u *Undo) own() *object {
	if u == nil {
		return nil
	}
	return u.object
}
