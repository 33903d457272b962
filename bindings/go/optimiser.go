// The optimiser.

package pvera

// #include "shim.h"
import "C"

import "unsafe"

// AdamW is torch.optim.AdamW with decoupled weight decay. Zero fields are zero: start from [DefaultAdamW].
type AdamW struct {
	LearningRate, Beta1, Beta2, Epsilon, WeightDecay float64
}

// DefaultAdamW has PyTorch's defaults.
func DefaultAdamW() AdamW {
	c := C.pvera_adamw_default()
	return AdamW{float64(c.learning_rate), float64(c.beta1), float64(c.beta2), float64(c.epsilon), float64(c.weight_decay)}
}

// Step is one step on parameters, in place, with their gradients and the two moment arrays (zero before the first step). step
// counts from 1. Nothing is written when an option, a gradient or a result is not finite.
func (o AdamW) Step(step uint64, parameters, gradients, firstMoments, secondMoments []float32) error {
	for _, array := range [...]struct {
		name   string
		length int
	}{
		{"gradients", len(gradients)}, {"firstMoments", len(firstMoments)}, {"secondMoments", len(secondMoments)},
	} {
		if array.length != len(parameters) {
			return errorf(ErrShape, "%s has %d elements; wanted %d, one for each parameter", array.name, array.length,
				len(parameters))
		}
	}
	c := C.pvera_adamw{struct_size: C.sizeof_pvera_adamw, learning_rate: C.double(o.LearningRate), beta1: C.double(o.Beta1),
		beta2: C.double(o.Beta2), epsilon: C.double(o.Epsilon), weight_decay: C.double(o.WeightDecay)}
	return take(C.pvera_adamw_step(&c, C.uint64_t(step), C.size_t(len(parameters)), (*C.float)(unsafe.SliceData(parameters)),
		(*C.float)(unsafe.SliceData(gradients)), (*C.float)(unsafe.SliceData(firstMoments)),
		(*C.float)(unsafe.SliceData(secondMoments))))
}
