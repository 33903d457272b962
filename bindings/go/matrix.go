// Matrices: views of the host's numbers.

package pvera

// #include "shim.h"
import "C"

import (
	"fmt"
	"math"
	"math/bits"
	"unsafe"
)

// Element is a type of numbers that the library computes with.
type Element interface{ float32 | Float16 | BFloat16 }

// DType is an element type, in DLPack's words.
type DType struct {
	Code, Bits uint8
	Lanes      uint16
}

// Kinds of numbers, for [DType.Code]; the last four occur in tensors that an adapter carries.
const (
	KindFloat   = C.PVERA_DTYPE_FLOAT
	KindBFloat  = C.PVERA_DTYPE_BFLOAT
	KindInt     = C.PVERA_DTYPE_INT
	KindUint    = C.PVERA_DTYPE_UINT
	KindComplex = C.PVERA_DTYPE_COMPLEX
	KindBool    = C.PVERA_DTYPE_BOOL
)

// The element types of computations.
var (
	F32  = DType{KindFloat, 32, 1}
	F16  = DType{KindFloat, 16, 1}
	BF16 = DType{KindBFloat, 16, 1}
)

// DeviceType is the kind of a device.
type DeviceType int32

// The kinds of devices. The zero DeviceType is read as the CPU.
const (
	DeviceCPU      DeviceType = C.PVERA_DEVICE_CPU
	DeviceCUDA     DeviceType = C.PVERA_DEVICE_CUDA
	DeviceCUDAHost DeviceType = C.PVERA_DEVICE_CUDA_HOST
)

// Device says where memory lies.
type Device struct {
	Type DeviceType
	ID   int32
}

// Matrix is a view of rows × cols numbers of a slice; copying it copies no number. The zero Matrix is absent.
//
// It keeps its slice alive, but a call may run on it while other goroutines do not write what it reads.
type Matrix struct {
	data                       unsafe.Pointer
	length, rows, cols, stride int
	dtype                      DType
	device                     Device
}

// Dense is a matrix whose rows follow each other in data without gaps.
//
// A shape that data is too short for is an error of the call that gets the matrix, which names the argument.
func Dense[T Element](data []T, rows, cols int) Matrix { return Strided(data, rows, cols, cols) }

// Strided is a matrix whose rows begin stride elements apart: a part of a fused buffer.
func Strided[T Element](data []T, rows, cols, stride int) Matrix {
	return Matrix{data: unsafe.Pointer(unsafe.SliceData(data)), length: len(data), rows: rows, cols: cols, stride: stride,
		dtype: dtypeOf[T]()}
}

// On is the same matrix in the memory of a device. For device memory, Dense is given a slice made by unsafe.Slice of the
// device's pointer, which Go never reads.
func (m Matrix) On(device Device) Matrix {
	m.device = device
	return m
}

// Rows is the number of rows.
func (m Matrix) Rows() int { return m.rows }

// Cols is the number of columns.
func (m Matrix) Cols() int { return m.cols }

// Stride is the distance between the starts of two rows, in elements.
func (m Matrix) Stride() int { return m.stride }

// DType is the element type.
func (m Matrix) DType() DType { return m.dtype }

// At is one element, widened to float32. The matrix lies in host memory.
func (m Matrix) At(row, col int) float32 {
	if uint(row) >= uint(m.rows) || uint(col) >= uint(m.cols) {
		panic(fmt.Sprintf("pvera: element (%d, %d) of a %d×%d matrix", row, col, m.rows, m.cols))
	}
	place := row*m.stride + col
	if place >= m.length {
		panic(fmt.Sprintf("pvera: element %d of a matrix on %d elements", place, m.length))
	}
	if m.dtype == F32 {
		return *(*float32)(unsafe.Add(m.data, 4*place))
	}
	word := *(*uint16)(unsafe.Add(m.data, 2*place))
	if m.dtype == BF16 {
		return BFloat16(word).Float32()
	}
	return Float16(word).Float32()
}

func dtypeOf[T Element]() DType {
	var zero T
	switch any(zero).(type) {
	case Float16:
		return F16
	case BFloat16:
		return BF16
	}
	return F32
}

func (m Matrix) absent() bool { return m.dtype == DType{} }

// check refuses a shape that the slice is too short for, which C cannot see.
func (m Matrix) check(argument string) error {
	if m.rows < 0 || m.cols < 0 || m.stride < 0 {
		return errorf(ErrShape, "%s is %d×%d with a row stride of %d; wanted no negative number", argument, m.rows, m.cols,
			m.stride)
	}
	if m.rows == 0 || m.cols == 0 {
		return nil
	}
	high, low := bits.Mul64(uint64(m.rows-1), uint64(m.stride))
	needed := low + uint64(m.cols)
	if high != 0 || needed < low || needed > math.MaxInt {
		return errorf(ErrShape, "%s has %d elements; wanted more than memory holds, for %d×%d with a row stride of %d", argument,
			m.length, m.rows, m.cols, m.stride)
	}
	if needed > uint64(m.length) {
		return errorf(ErrShape, "%s has %d elements; wanted at least %d for %d×%d with a row stride of %d", argument, m.length,
			needed, m.rows, m.cols, m.stride)
	}
	return nil
}

func (m Matrix) c() C.pvera_matrix {
	return C.pvera_matrix{data: m.data, rows: C.size_t(m.rows), cols: C.size_t(m.cols), row_stride: C.size_t(m.stride),
		dtype: m.dtype.c(), device: m.device.c()}
}

func (m Matrix) mut() C.pvera_matrix_mut {
	return C.pvera_matrix_mut{data: m.data, rows: C.size_t(m.rows), cols: C.size_t(m.cols), row_stride: C.size_t(m.stride),
		dtype: m.dtype.c(), device: m.device.c()}
}

func (d DType) c() C.pvera_dtype {
	return C.pvera_dtype{code: C.uint8_t(d.Code), bits: C.uint8_t(d.Bits), lanes: C.uint16_t(d.Lanes)}
}

// onCPU says whether Go may read what lies there.
func (d Device) onCPU() bool { return d.Type == 0 || d.Type == DeviceCPU }

func (d Device) c() C.pvera_device {
	return C.pvera_device{_type: C.int32_t(d.Type), id: C.int32_t(d.ID)}
}

// matrixOf is a view of what the library lends.
func matrixOf(lent C.pvera_matrix) Matrix {
	matrix := Matrix{data: lent.data, rows: int(lent.rows), cols: int(lent.cols), stride: int(lent.row_stride),
		dtype: dtypeFrom(lent.dtype)}
	if matrix.rows > 0 {
		matrix.length = (matrix.rows-1)*matrix.stride + matrix.cols
	}
	return matrix
}

func dtypeFrom(given C.pvera_dtype) DType {
	return DType{uint8(given.code), uint8(given.bits), uint16(given.lanes)}
}
