// Tapes: what a training forward leaves for backward.

package pvera

// #include "shim.h"
import "C"

import (
	"runtime"
	"sync"
	"unsafe"
)

// TapePolicy says what a tape keeps.
type TapePolicy int32

// The policies.
const (
	// KeepLatent keeps p: 2r floats a row for each distinct projection. The default.
	KeepLatent TapePolicy = C.PVERA_TAPE_KEEP_LATENT
	// KeepDelta keeps p and z Bᵀ: the fastest backward.
	KeepDelta TapePolicy = C.PVERA_TAPE_KEEP_DELTA
	// Recompute keeps nothing but the keys; x is pinned, and stays unchanged, until the last backward.
	Recompute TapePolicy = C.PVERA_TAPE_RECOMPUTE
)

// Tape is what a training forward leaves for backward. Reusable: its memory grows to the largest call and stays.
//
// From a forward until the next one or Close it pins noise.Eps, noise.DropoutMask and, under [Recompute], x, and keeps the
// linears and the context.
type Tape struct {
	object *object
	policy TapePolicy

	guard    sync.Mutex // one call at a time
	recorded *recorded
}

// recorded is what the forward on a tape needs until its last backward.
type recorded struct {
	pins    *runtime.Pinner
	kept    []*object
	linears []recordedLinear
}

type recordedLinear struct {
	pointer unsafe.Pointer
	outputs int
}

func (r *recorded) release() {
	if r.pins != nil {
		r.pins.Unpin()
	}
	for _, kept := range r.kept {
		kept.leave()
	}
	*r = recorded{}
}

// NewTape is a tape of a policy.
func NewTape(policy TapePolicy, allocator Allocator) (*Tape, error) {
	own := allocator.c()
	var pointer *C.pvera_tape
	if err := take(C.pvera_tape_new(C.int32_t(policy), &own, &pointer)); err != nil {
		return nil, err
	}
	record := new(recorded)
	object := newObject("tape", unsafe.Pointer(pointer), func(tape unsafe.Pointer) {
		C.pvera_tape_free((*C.pvera_tape)(tape))
		record.release()
	})
	return watch(&Tape{object: object, policy: policy, recorded: record}, object), nil
}

// Close gives the tape back.
func (t *Tape) Close() error {
	t.own().close()
	return nil
}

func (t *Tape) own() *object {
	if t == nil {
		return nil
	}
	return t.object
}

func (t *Tape) c() *C.pvera_tape { return (*C.pvera_tape)(t.object.pointer) }

// Bytes is what the tape holds.
func (t *Tape) Bytes() (int, error) {
	if err := t.own().enter("tape"); err != nil {
		return 0, err
	}
	defer t.object.leave()
	t.guard.Lock()
	defer t.guard.Unlock()
	var bytes C.size_t
	err := take(C.pvera_tape_bytes(t.c(), &bytes))
	return int(bytes), err
}

// record runs a forward on the tape. Its caller uses the context and the linears.
func (t *Tape) record(context *Context, linears []*Linear, x Matrix, noise *Noise, forward func() error) error {
	if err := t.own().enter("tape"); err != nil {
		return err
	}
	defer t.object.leave()
	t.guard.Lock()
	defer t.guard.Unlock()
	fresh := recorded{pins: new(runtime.Pinner)}
	if t.policy == Recompute {
		pin(fresh.pins, x.data)
	}
	if noise != nil {
		pin(fresh.pins, noise.Eps.data)
		pin(fresh.pins, noise.DropoutMask.data)
	}
	fresh.keep(context.object)
	for _, linear := range linears {
		fresh.keep(linear.object)
		fresh.linears = append(fresh.linears, recordedLinear{linear.pointer, linear.outputs})
	}
	if err := forward(); err != nil {
		fresh.release() // the tape holds what it held before, or nothing
		return err
	}
	t.recorded.release()
	*t.recorded = fresh
	return nil
}

func (r *recorded) keep(used *object) {
	used.state.Add(oneUse)
	r.kept = append(r.kept, used)
}
