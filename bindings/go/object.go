// The life of what C gives: uses are counted, Close ends it once, and the memory goes with the last use.

package pvera

import (
	"runtime"
	"runtime/cgo"
	"sync/atomic"
	"unsafe"
)

// object is one C handle. Its uses are the calls that run on it and the objects that were made from it.
type object struct {
	kind    string // for errors: "store"
	pointer unsafe.Pointer
	free    func(unsafe.Pointer)
	state   atomic.Int64 // oneUse for each use, and closedBit

	keeps  []*object         // what this was made from
	pins   []*runtime.Pinner // Go memory that C keeps
	handle cgo.Handle        // a Go value that C keeps
}

const (
	closedBit = 1
	oneUse    = 2
)

// newObject keeps each of keeps until it is freed; the caller is using them.
func newObject(kind string, pointer unsafe.Pointer, free func(unsafe.Pointer), keeps ...*object) *object {
	for _, kept := range keeps {
		kept.state.Add(oneUse)
	}
	return &object{kind: kind, pointer: pointer, free: free, keeps: keeps}
}

// watch closes the object some time after its owner became unreachable: the net under a forgotten Close.
func watch[Owner any](owner *Owner, own *object) *Owner {
	runtime.AddCleanup(owner, (*object).close, own)
	return owner
}

// enter begins a use; leave ends it.
func (o *object) enter(argument string) error {
	if o == nil {
		return errorf(ErrNull, "%s is nil; wanted an open one", argument)
	}
	for {
		state := o.state.Load()
		if state&closedBit != 0 {
			return errorf(ErrClosed, "%s: the %s is closed; wanted an open one", argument, o.kind)
		}
		if o.state.CompareAndSwap(state, state+oneUse) {
			return nil
		}
	}
}

func (o *object) leave() {
	// Nobody enters a closed object, so its uses reach zero only once.
	if o.state.Add(-oneUse) == closedBit {
		o.destroy()
	}
}

func (o *object) close() {
	if o == nil {
		return
	}
	for {
		state := o.state.Load()
		if state&closedBit != 0 {
			return
		}
		if o.state.CompareAndSwap(state, state|closedBit) {
			if state == 0 {
				o.destroy()
			}
			return
		}
	}
}

func (o *object) destroy() {
	o.free(o.pointer)
	if o.handle != 0 {
		o.handle.Delete()
	}
	for _, pins := range o.pins {
		pins.Unpin()
	}
	for _, kept := range o.keeps {
		kept.leave()
	}
}
