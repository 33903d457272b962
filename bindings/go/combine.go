// Combining: one adapter in the place of a weighted sum of several.

package pvera

// #include "shim.h"
import "C"

import (
	"cmp"
	"fmt"
	"slices"
	"unsafe"
)

// Weighted is one term of a sum of adapters.
type Weighted struct {
	Adapter *Adapter
	Weight  float64
}

// Combine is the one adapter whose mean delta is nearest to the weighted sum of the terms' deltas, and how far it is from that:
// the largest, over layers, of the relative Frobenius norm of the rest. It is 0 where the adapters share λ_d, or λ_b, up to a
// factor. Terms are of one model and one store, adapt the same layers and learned no biases. The exact sum is run by
// [Rows].Active. What becomes of the variance is said in pvera.h.
func Combine(terms ...Weighted) (combined *Adapter, distance float64, err error) {
	adapters, weights := make([]*Adapter, len(terms)), make([]float64, len(terms))
	for i, term := range terms {
		adapters[i], weights[i] = term.Adapter, term.Weight
	}
	pointers, leave, err := enterAll(adapters)
	if err != nil {
		return nil, 0, err
	}
	defer leave()
	var off C.double
	var pointer *C.pvera_adapter
	err = take(C.pvera_adapter_combine(C.size_t(len(terms)), unsafe.SliceData(pointers),
		(*C.double)(unsafe.SliceData(weights)), &off, &pointer))
	if err != nil {
		return nil, 0, err
	}
	return adapterFrom(pointer, adapters[0].model, adapters[0].layers), float64(off), nil
}

// enterAll begins a call that reads all of these adapters, which may be named twice; leave ends it.
func enterAll(adapters []*Adapter) (pointers []*C.pvera_adapter, leave func(), err error) {
	for i, adapter := range adapters {
		if err := adapter.own().enter(fmt.Sprintf("adapters[%d]", i)); err != nil {
			for _, entered := range adapters[:i] {
				entered.object.leave()
			}
			return nil, nil, err
		}
	}
	pointers = make([]*C.pvera_adapter, len(adapters))
	for i, adapter := range adapters {
		pointers[i] = adapter.c()
	}
	// Each once, and in one order for all: readers of several would else wait for each other, with a writer between them.
	each := slices.Clone(adapters)
	slices.SortFunc(each, func(one, other *Adapter) int {
		return cmp.Compare(uintptr(one.object.pointer), uintptr(other.object.pointer))
	})
	each = slices.Compact(each)
	for _, adapter := range each {
		adapter.guard.RLock()
	}
	return pointers, func() {
		for _, adapter := range each {
			adapter.guard.RUnlock()
		}
		for _, adapter := range adapters {
			adapter.object.leave()
		}
	}, nil
}
