// The host's memory, where it is not the process's.

package pvera

// #include "shim.h"
import "C"

import "unsafe"

// Allocator is memory for everything whose size depends on shapes and files. The zero Allocator is the process's own.
//
// Its fields are C function pointers with the signatures of pvera_allocator, since memory of Go's heap cannot be given away.
// They stay callable, and User valid, as long as the object that got them and all that was made from it.
type Allocator struct {
	Allocate, Release, User unsafe.Pointer
}

func (a Allocator) c() C.pvera_allocator {
	return C.pvera_allocator{allocate: (*[0]byte)(a.Allocate), release: (*[0]byte)(a.Release), user: a.User}
}
