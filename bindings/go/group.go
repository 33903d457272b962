// Groups: several layers with one input. Their matrices go to C as arrays of structs, which are pinned meanwhile.

package pvera

// #include "shim.h"
import "C"

import (
	"fmt"
	"runtime"
	"sync"
	"unsafe"
)

// arrays is what a group's call passes to C. Reused, so that a group allocates as little as a layer.
type arrays struct {
	pins      runtime.Pinner
	entered   []*object
	linears   []*C.pvera_linear
	outputs   []C.pvera_matrix_mut
	inputs    []C.pvera_matrix
	gradients []C.pvera_gradients
	slots     []C.pvera_slot_gradients
}

var spareArrays = sync.Pool{New: func() any { return new(arrays) }}

func newArrays() *arrays { return spareArrays.Get().(*arrays) }

// leave ends the uses and lets go of the host's memory.
func (a *arrays) leave() {
	for _, entered := range a.entered {
		entered.leave()
	}
	a.pins.Unpin()
	a.entered, a.linears = emptied(a.entered), emptied(a.linears)
	a.outputs, a.inputs = emptied(a.outputs), emptied(a.inputs)
	a.gradients, a.slots = emptied(a.gradients), emptied(a.slots)
	spareArrays.Put(a)
}

// emptied clears what was used: cgo looks at whole arrays, and an unpinned pointer in one would be an error.
func emptied[T any](used []T) []T {
	clear(used)
	return used[:0]
}

// indexed is the name of an argument of a list. It allocates, so it is made for errors only: what fails once fails again.
func indexed(argument string, i int) string { return fmt.Sprintf("%s[%d]", argument, i) }

// enter begins a use of each linear.
func (a *arrays) enter(linears []*Linear) error {
	for i, linear := range linears {
		if linear.own().enter("linear") != nil {
			return linear.own().enter(indexed("linears", i))
		}
		a.entered = append(a.entered, linear.object)
		a.linears = append(a.linears, linear.c())
	}
	return nil
}

// write adds matrices to be written.
func (a *arrays) write(argument string, matrices []Matrix) error {
	for i, matrix := range matrices {
		if matrix.check(argument) != nil {
			return matrix.check(indexed(argument, i))
		}
		pin(&a.pins, matrix.data)
		a.outputs = append(a.outputs, matrix.mut())
	}
	return nil
}

// read adds matrices to be read.
func (a *arrays) read(argument string, matrices []Matrix) error {
	for i, matrix := range matrices {
		if matrix.check(argument) != nil {
			return matrix.check(indexed(argument, i))
		}
		pin(&a.pins, matrix.data)
		a.inputs = append(a.inputs, matrix.c())
	}
	return nil
}

// ForwardGroup is [Context.Forward] of several layers with one input (q, k and v): they share one product with A where their
// adapters share a store. There is one y for each layer, views of one fused buffer if the host likes.
func (c *Context) ForwardGroup(linears []*Linear, x Matrix, rows *Rows, noise *Noise, tape *Tape, y []Matrix) error {
	if len(y) != len(linears) {
		return errorf(ErrShape, "y has %d matrices; wanted %d, one for each layer", len(y), len(linears))
	}
	if err := c.enter(); err != nil {
		return err
	}
	defer c.leave()
	group := newArrays()
	defer group.leave()
	if err := group.enter(linears); err != nil {
		return err
	}
	if err := x.check("x"); err != nil {
		return err
	}
	given, err := rows.c(x.rows)
	if err != nil {
		return err
	}
	drawn, err := noise.c()
	if err != nil {
		return err
	}
	if err := group.write("y", y); err != nil {
		return err
	}
	if tape != nil {
		return tape.record(c, linears, x, noise, func() error {
			return c.result(C.pvera_go_forward_group(c.c(), C.size_t(len(linears)), unsafe.SliceData(group.linears), x.c(), given,
				drawn, tape.c(), unsafe.SliceData(group.outputs)))
		})
	}
	return c.result(C.pvera_go_forward_group(c.c(), C.size_t(len(linears)), unsafe.SliceData(group.linears), x.c(), given, drawn,
		nil, unsafe.SliceData(group.outputs)))
}

// ScratchBytesFor is the scratch that the context holds after its calls on linears with one input and n rows: forward, samples
// draws, moments and latent; with training also a taped forward and a backward.
func (c *Context) ScratchBytesFor(linears []*Linear, n int, rows *Rows, samples int, training bool) (int, error) {
	if err := c.own().enter("context"); err != nil {
		return 0, err
	}
	defer c.object.leave()
	if n < 0 || samples < 0 {
		return 0, errorf(ErrArgument, "n is %d and samples is %d; wanted no negative number", n, samples)
	}
	group := newArrays()
	defer group.leave()
	if err := group.enter(linears); err != nil {
		return 0, err
	}
	given, err := rows.c(n)
	if err != nil {
		return 0, err
	}
	var bytes C.size_t
	err = take(C.pvera_go_scratch_bytes(c.c(), C.size_t(len(linears)), unsafe.SliceData(group.linears), C.size_t(n), given,
		C.size_t(samples), C.bool(training), &bytes))
	return int(bytes), err
}

func pointerAt(base unsafe.Pointer, bytes int) unsafe.Pointer { return unsafe.Add(base, bytes) }
