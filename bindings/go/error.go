// Errors: what the library says, as Go values.

package pvera

// #include "shim.h"
import "C"

import (
	"fmt"
	"strings"
)

// Code says what kind of error happened. It is an error itself, so that [errors.Is] can look for it.
type Code int32

// The codes of the library, and that of this package.
const (
	// ErrNull: something that is needed is nil.
	ErrNull Code = C.PVERA_ERROR_NULL
	// ErrArgument: a value is outside its range.
	ErrArgument Code = C.PVERA_ERROR_ARGUMENT
	// ErrShape: a matrix or slice has the wrong shape.
	ErrShape Code = C.PVERA_ERROR_SHAPE
	// ErrDType: an element type that the call does not take.
	ErrDType Code = C.PVERA_ERROR_DTYPE
	// ErrStride: a row stride shorter than a row.
	ErrStride Code = C.PVERA_ERROR_STRIDE
	// ErrOverlap: an output overlaps an input or another output.
	ErrOverlap Code = C.PVERA_ERROR_OVERLAP
	// ErrDevice: a matrix lives on another device than the context.
	ErrDevice Code = C.PVERA_ERROR_DEVICE
	// ErrNotFound: no layer, adapter, slot, field or tensor of that name or number.
	ErrNotFound Code = C.PVERA_ERROR_NOT_FOUND
	// ErrExists: the name is taken.
	ErrExists Code = C.PVERA_ERROR_EXISTS
	// ErrState: the call is right, but not now.
	ErrState Code = C.PVERA_ERROR_STATE
	// ErrIO: the operating system refused a file operation.
	ErrIO Code = C.PVERA_ERROR_IO
	// ErrFormat: a file is damaged, lies, or is of another format.
	ErrFormat Code = C.PVERA_ERROR_FORMAT
	// ErrConfig: a configuration is invalid or contradicts itself.
	ErrConfig Code = C.PVERA_ERROR_CONFIG
	// ErrProjection: projections are missing or do not fit.
	ErrProjection Code = C.PVERA_ERROR_PROJECTION
	// ErrMemory: memory could not be had.
	ErrMemory Code = C.PVERA_ERROR_MEMORY
	// ErrUnsupported: valid, but not supported by this build or backend.
	ErrUnsupported Code = C.PVERA_ERROR_UNSUPPORTED
	// ErrOverflow: a result is not a finite number, though the inputs allow the call.
	ErrOverflow Code = C.PVERA_ERROR_OVERFLOW
	// ErrCancelled: a progress function asked to stop.
	ErrCancelled Code = C.PVERA_ERROR_CANCELLED
	// ErrPanic: a bug in the library, caught at its boundary.
	ErrPanic Code = C.PVERA_ERROR_PANIC
	// ErrCUDA: the CUDA driver refused or failed a call.
	ErrCUDA Code = C.PVERA_ERROR_CUDA

	// ErrClosed: the object was closed. This package's own; the library has no such code.
	ErrClosed Code = -1
)

var codeTexts = map[Code]string{
	ErrNull:        "nil where something is needed",
	ErrArgument:    "value outside its range",
	ErrShape:       "wrong shape",
	ErrDType:       "wrong element type",
	ErrStride:      "row stride shorter than a row",
	ErrOverlap:     "output overlaps other memory",
	ErrDevice:      "matrix on another device",
	ErrNotFound:    "not found",
	ErrExists:      "name is taken",
	ErrState:       "not possible now",
	ErrIO:          "file operation failed",
	ErrFormat:      "damaged or foreign file",
	ErrConfig:      "invalid configuration",
	ErrProjection:  "projections missing or unfit",
	ErrMemory:      "out of memory",
	ErrUnsupported: "not supported",
	ErrOverflow:    "result is not finite",
	ErrCancelled:   "cancelled",
	ErrPanic:       "bug in the library",
	ErrCUDA:        "CUDA failed",
	ErrClosed:      "closed",
}

// Error is a short text for the kind of error.
func (c Code) Error() string {
	if text, known := codeTexts[c]; known {
		return "pvera: " + text
	}
	return fmt.Sprintf("pvera: error code %d", int32(c))
}

// Error is why a call failed.
type Error struct {
	Code Code
	// Message names the argument, what was given and what was wanted.
	Message string
}

func (e *Error) Error() string { return "pvera: " + e.Message }

// Is says whether target is this error's [Code].
func (e *Error) Is(target error) bool {
	code, is := target.(Code)
	return is && code == e.Code
}

func errorf(code Code, format string, values ...any) error {
	return &Error{code, fmt.Sprintf(format, values...)}
}

// take turns an error of the library into one of Go and frees it.
func take(failure *C.pvera_error) error {
	if failure == nil {
		return nil
	}
	defer C.pvera_error_free(failure)
	return &Error{Code(C.pvera_error_code(failure)), C.GoString(C.pvera_error_message(failure))}
}

// checkText refuses what C would read as a shorter text.
func checkText(argument, text string) error {
	if place := strings.IndexByte(text, 0); place >= 0 {
		return errorf(ErrArgument, "%s has a zero byte at %d; wanted a text without", argument, place)
	}
	return nil
}

// TestPanic makes the library panic inside, with this message: a program's tests can see that a bug of the library would come
// back as [ErrPanic], with nothing printed and nothing aborted.
func TestPanic(message string) error {
	text, err := newText("message", message)
	if err != nil {
		return err
	}
	defer text.free()
	return take(C.pvera_test_panic(text.c))
}
