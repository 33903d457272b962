// Tensors that an adapter carries: a head of modules_to_save, a bias of another module.

package pvera

// #include "shim.h"
import "C"

import "unsafe"

// Tensor is a copy of a tensor that an adapter carries.
type Tensor struct {
	// Name is the whole key in the file.
	Name string
	// DType is zero for the narrow float types that DLPack's words do not cover; the bytes are there all the same.
	DType DType
	Shape []int
	// Data is row major and little endian, as in the file.
	Data []byte
}

func tensorFrom(lent *C.pvera_tensor) Tensor {
	tensor := Tensor{Name: C.GoStringN(lent.name, C.int(lent.name_size)), DType: dtypeFrom(lent.dtype)}
	for _, size := range unsafe.Slice(lent.shape, int(lent.dimensions)) {
		tensor.Shape = append(tensor.Shape, int(size))
	}
	tensor.Data = append(tensor.Data, unsafe.Slice((*byte)(lent.data), int(lent.size))...)
	return tensor
}

// TensorCount is how many tensors the adapter carries.
func (a *Adapter) TensorCount() (int, error) {
	var count C.size_t
	err := a.read(func() *C.pvera_error { return C.pvera_adapter_tensor_count(a.c(), &count) })
	return int(count), err
}

// Tensor is the carried tensor of that number, from 0, in the order of their names.
func (a *Adapter) Tensor(number int) (Tensor, error) {
	return a.tensor(func(lent *C.pvera_tensor) *C.pvera_error {
		return C.pvera_adapter_tensor_at(a.c(), C.size_t(number), lent)
	})
}

// FindTensor is the carried tensor of that key, as in the file: "base_model.model.classifier.weight".
func (a *Adapter) FindTensor(name string) (Tensor, error) {
	text, err := newText("name", name)
	if err != nil {
		return Tensor{}, err
	}
	defer text.free()
	return a.tensor(func(lent *C.pvera_tensor) *C.pvera_error { return C.pvera_adapter_find_tensor(a.c(), text.c, lent) })
}

// tensor copies what a call lends before anybody can set it again.
func (a *Adapter) tensor(call func(*C.pvera_tensor) *C.pvera_error) (Tensor, error) {
	if err := a.enter(); err != nil {
		return Tensor{}, err
	}
	defer a.leave()
	var lent C.pvera_tensor
	if err := take(call(&lent)); err != nil {
		return Tensor{}, err
	}
	return tensorFrom(&lent), nil
}

// SetTensor puts or replaces a tensor that the adapter carries into its checkpoint. The adapter is trainable, and there is no
// other handle on it and no linear of it.
func (a *Adapter) SetTensor(tensor Tensor) error {
	text, err := newText("tensor.Name", tensor.Name)
	if err != nil {
		return err
	}
	defer text.free()
	shape := make([]C.size_t, len(tensor.Shape))
	for i, size := range tensor.Shape {
		if size < 0 {
			return errorf(ErrShape, "tensor.Shape[%d] is %d; wanted no negative number", i, size)
		}
		shape[i] = C.size_t(size)
	}
	if err := a.own().enter("adapter"); err != nil {
		return err
	}
	defer a.object.leave()
	a.guard.Lock()
	defer a.guard.Unlock()
	return take(C.pvera_adapter_set_tensor(a.c(), text.c, tensor.DType.c(), unsafe.SliceData(shape), C.size_t(len(shape)),
		unsafe.Pointer(unsafe.SliceData(tensor.Data)), C.size_t(len(tensor.Data))))
}
