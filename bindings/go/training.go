// Backward: gradients of what a tape recorded.

package pvera

// #include "shim.h"
import "C"

import (
	"fmt"
	"runtime"
	"unsafe"
)

// Overwrite says which outputs of backward are set instead of added to; they then need not be initialised.
type Overwrite uint32

// Outputs of backward, to be or-ed.
const (
	OverwriteDX      Overwrite = C.PVERA_OVERWRITE_DX
	OverwriteLambdaB Overwrite = C.PVERA_OVERWRITE_LAMBDA_B
	OverwriteLambdaD Overwrite = C.PVERA_OVERWRITE_LAMBDA_D
	OverwriteBias    Overwrite = C.PVERA_OVERWRITE_BIAS
	OverwriteAll     Overwrite = C.PVERA_OVERWRITE_ALL
)

// KLReduction says how the KL divergence of a call becomes one number.
type KLReduction int32

// The reductions.
const (
	// KLMean averages over the latent entries of the call (rows · rank, of each row its adapter's), as the authors do.
	KLMean KLReduction = C.PVERA_KL_MEAN
	// KLSum sums.
	KLSum KLReduction = C.PVERA_KL_SUM
)

// SlotGradients is where one adapter's gradients go: whole vectors, in the layout of [Adapter.Range]. Nil skips. With [Rows.Slot]
// they are sums over the rows that had the adapter, which is named once and had at least one row.
type SlotGradients struct {
	Slot int32
	// LambdaB has one number for each output of the whole layer, LambdaD two for each rank; Bias, for each output, is only for
	// an adapter that learns this layer's.
	LambdaB, LambdaD, Bias []float32
}

// Gradients is what backward of one layer gives besides dx. The zero value: nothing, added to nothing.
type Gradients struct {
	// Overwrite: of a group, the first layer's OverwriteDX counts.
	Overwrite   Overwrite
	KLReduction KLReduction
	Slots       []SlotGradients
	// KLWeight is what the KL divergence of the latents to the standard normal counts in the loss; 0 leaves it out.
	KLWeight float64
	// KLValue gets the divergence (before its weight); or nil. In device memory on a CUDA context.
	KLValue *float64
	// DMu and DLogvar [n, latents] are gradients of other priors, added to dL/dmu and dL/dlogvar. Zero when absent.
	DMu, DLogvar Matrix
	// Variance gets first-order variance added, at the place that VarianceIndex says for each row; see pvera_gradients.
	// Nil leaves it out; a nil VarianceIndex is row i to value i.
	Variance      []float64
	VarianceIndex []uint32
}

// Backward computes the gradients of the recorded forward for the output gradient dy [n, out_features], into gradients (may be
// nil) and dx [n, in_features] (zero skips it). The tape may be used for several backwards.
func (c *Context) Backward(tape *Tape, dy Matrix, gradients *Gradients, dx Matrix) error {
	var wanted []Gradients
	if gradients != nil {
		wanted = []Gradients{*gradients}
	}
	return c.BackwardGroup(tape, []Matrix{dy}, wanted, dx)
}

// BackwardGroup is [Context.Backward] of a group: one dy and one Gradients for each layer (or nil for none), one dx for all.
func (c *Context) BackwardGroup(tape *Tape, dy []Matrix, gradients []Gradients, dx Matrix) error {
	if gradients != nil && len(gradients) != len(dy) {
		return errorf(ErrShape, "gradients has %d entries; wanted %d, one for each dy", len(gradients), len(dy))
	}
	if err := c.enter(); err != nil {
		return err
	}
	defer c.leave()
	if err := tape.own().enter("tape"); err != nil {
		return err
	}
	defer tape.object.leave()
	tape.guard.Lock()
	defer tape.guard.Unlock()
	group := newArrays()
	defer group.leave()
	if err := group.read("dy", dy); err != nil {
		return err
	}
	if err := dx.check("dx"); err != nil {
		return err
	}
	if err := group.want(tape.recorded, gradients, dy); err != nil {
		return err
	}
	return c.result(C.pvera_go_backward_group(c.c(), tape.c(), C.size_t(len(dy)), unsafe.SliceData(group.inputs),
		firstOrNil(group.gradients), dx.mut()))
}

// firstOrNil is what C calls an array, or NULL for none.
func firstOrNil[T any](array []T) *T {
	if len(array) == 0 {
		return nil
	}
	return &array[0]
}

// want adds the gradients of each layer, after a look at what C cannot see: the lengths.
func (a *arrays) want(record *recorded, gradients []Gradients, dy []Matrix) error {
	total := 0
	for i := range gradients {
		total += len(gradients[i].Slots)
	}
	if cap(a.slots) < total {
		a.slots = make([]C.pvera_slot_gradients, 0, total) // it does not move below
	}
	for i := range gradients {
		var layer recordedLinear // of a tape that recorded less, an error of C's
		if i < len(record.linears) {
			layer = record.linears[i]
		}
		given, err := a.gradient(fmt.Sprintf("gradients[%d]", i), &gradients[i], layer, dy[i].rows)
		if err != nil {
			return err
		}
		a.gradients = append(a.gradients, given)
	}
	return nil
}

func (a *arrays) gradient(argument string, wanted *Gradients, layer recordedLinear, rows int) (C.pvera_gradients, error) {
	c := C.pvera_gradients{struct_size: C.sizeof_pvera_gradients, overwrite: C.uint32_t(wanted.Overwrite),
		kl_reduction: C.int32_t(wanted.KLReduction), kl_weight: C.double(wanted.KLWeight)}
	if err := checkBoth(argument+".DMu", wanted.DMu, argument+".DLogvar", wanted.DLogvar); err != nil {
		return c, err
	}
	if wanted.VarianceIndex != nil && len(wanted.VarianceIndex) != rows {
		return c, errorf(ErrShape, "%s.VarianceIndex has %d entries; wanted %d, one for each row", argument,
			len(wanted.VarianceIndex), rows)
	}
	pin(&a.pins, wanted.DMu.data)
	pin(&a.pins, wanted.DLogvar.data)
	pin(&a.pins, unsafe.Pointer(wanted.KLValue))
	pin(&a.pins, unsafe.Pointer(unsafe.SliceData(wanted.Variance)))
	pin(&a.pins, unsafe.Pointer(unsafe.SliceData(wanted.VarianceIndex)))
	c.kl_value = (*C.double)(wanted.KLValue)
	c.dmu, c.dlogvar = wanted.DMu.c(), wanted.DLogvar.c()
	c.variance, c.variance_count = (*C.double)(unsafe.SliceData(wanted.Variance)), C.size_t(len(wanted.Variance))
	c.variance_index = (*C.uint32_t)(unsafe.SliceData(wanted.VarianceIndex))
	first := len(a.slots)
	for i := range wanted.Slots {
		if err := wanted.Slots[i].check(fmt.Sprintf("%s.Slots[%d]", argument, i), layer); err != nil {
			return c, err
		}
		a.slots = append(a.slots, wanted.Slots[i].c(&a.pins))
	}
	if len(wanted.Slots) > 0 {
		a.pins.Pin(&a.slots[first])
		c.slots, c.slot_count = &a.slots[first], C.size_t(len(wanted.Slots))
	}
	return c, nil
}

// check compares the vectors with those of the recorded layer.
func (s *SlotGradients) check(argument string, layer recordedLinear) error {
	if layer.pointer == nil {
		return nil // nothing is recorded, which C says
	}
	rank, err := layer.rank(s.Slot)
	if err != nil {
		return err
	}
	for _, vector := range [...]struct {
		name   string
		values []float32
		wanted int
	}{
		{"LambdaB", s.LambdaB, layer.outputs}, {"LambdaD", s.LambdaD, 2 * rank}, {"Bias", s.Bias, layer.outputs},
	} {
		if vector.values != nil && len(vector.values) != vector.wanted {
			return errorf(ErrShape, "%s.%s has %d elements; wanted %d", argument, vector.name, len(vector.values), vector.wanted)
		}
	}
	return nil
}

// rank is that of the adapter in a slot: a row of it has as many latents.
func (r recordedLinear) rank(slot int32) (int, error) {
	given, err := (&Rows{Slot: []int32{slot}}).c(1)
	if err != nil {
		return 0, err
	}
	var latents C.size_t
	err = take(C.pvera_go_project_width((*C.pvera_linear)(r.pointer), given, 1, nil, &latents))
	return int(latents), err
}

// c is the C struct, with what it points to pinned.
func (s *SlotGradients) c(pins *runtime.Pinner) C.pvera_slot_gradients {
	for _, vector := range [...][]float32{s.LambdaB, s.LambdaD, s.Bias} {
		pin(pins, unsafe.Pointer(unsafe.SliceData(vector)))
	}
	return C.pvera_slot_gradients{slot: C.int32_t(s.Slot), lambda_b: (*C.float)(unsafe.SliceData(s.LambdaB)),
		lambda_d: (*C.float)(unsafe.SliceData(s.LambdaD)), bias: (*C.float)(unsafe.SliceData(s.Bias))}
}
