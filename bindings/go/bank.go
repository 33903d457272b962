// Banks: many adapters of one network in one file.

package pvera

// #include "shim.h"
import "C"

import (
	"context"
	"errors"
	"fmt"
	"unsafe"
)

// Access says how a bank is opened.
type Access int32

// The ways to open a bank.
const (
	// BankRead is the default: any number of handles and programs at a time, also beside one that writes.
	BankRead Access = C.PVERA_BANK_READ
	// BankWrite is to read and write: one handle at a time, of all programs.
	BankWrite Access = C.PVERA_BANK_WRITE
	// BankCreate makes a new bank, to be written; [ErrExists] where there is a file already.
	BankCreate Access = C.PVERA_BANK_CREATE
)

// BaseAlone, in the place of a name, is a row without an adapter. No adapter of a bank has this name.
const BaseAlone = ""

// Bank is many adapters of one network in one file. Names are known when it is open, vectors are read when an adapter is first
// used, and kept as long as a budget allows. No reader waits for a writer's disk.
//
// A reader sees the bank as it was when it was opened or last refreshed; within one Bank, calls see what was written through it before.
//
// The model's warnings and progress reach the functions of its [ModelOptions] while a call of the bank runs.
type Bank struct {
	object *object
	model  *object
	layers *layers
	told   listener // what a long call begins with
}

// BankOptions says how a bank is opened. The zero value is the default: to read, with a cache that is never emptied.
type BankOptions struct {
	Access Access
	// IgnoreUndeclared leaves out vectors of layers that are not declared here, instead of refusing them.
	IgnoreUndeclared bool
	// CacheBytes is what adapters that were read may take; the least recently used go first. 0: any amount. Adapters that
	// somebody holds live on when they go from here.
	CacheBytes int
	// InMax and OutMax are the largest in_features and out_features over all adapted layers of the whole model: needed where
	// this program declares only some of them and the projections come from a key. 0: the largest declared ones.
	InMax, OutMax int
	// Repair is for a damaged bank that is to be written: go on from what is sound. A last commit that is damaged or cut off is
	// overwritten, and [Bank.Compact] leaves out damaged adapters. Without it, both are [ErrFormat].
	Repair bool
}

func (o *BankOptions) c() (C.pvera_bank_options, error) {
	c := C.pvera_bank_options{struct_size: C.sizeof_pvera_bank_options}
	if o == nil {
		return c, nil
	}
	sizes := [...]int{o.CacheBytes, o.InMax, o.OutMax}
	for i, name := range [...]string{"CacheBytes", "InMax", "OutMax"} {
		if sizes[i] < 0 {
			return c, errorf(ErrArgument, "options.%s is %d; wanted no negative number", name, sizes[i])
		}
	}
	c.access = C.int32_t(o.Access)
	c.cache_bytes, c.in_max, c.out_max = C.size_t(o.CacheBytes), C.size_t(o.InMax), C.size_t(o.OutMax)
	if o.IgnoreUndeclared {
		c.ignore_undeclared = 1
	}
	if o.Repair {
		c.repair = 1
	}
	return c, nil
}

// BankUsage is what a bank holds, in the file and in memory.
type BankUsage struct {
	Adapters int
	// Damaged entries were left out when the bank was opened or last refreshed.
	Damaged int
	// FileBytes are those of the file that count; of these, UnusedBytes are what [Bank.Compact] gives back.
	FileBytes, UnusedBytes uint64
	// IndexBytes of memory are taken by names and places, CachedBytes by the Cached adapters that are kept.
	IndexBytes, Cached, CachedBytes int
	// Hits and Misses are how often an adapter was found in memory, and had to be read.
	Hits, Misses uint64
	// Families are how many configs, lists of layers and projections the adapters have: see [Bank.Families].
	Families int
}

// OpenBank opens a bank for the layers of the model; options may be nil. Entries that are damaged are left out, with a warning
// that names each. ctx is asked before.
func (m *Model) OpenBank(ctx context.Context, path string, options *BankOptions) (*Bank, error) {
	c, err := options.c()
	if err != nil {
		return nil, err
	}
	text, err := newText("path", path)
	if err != nil {
		return nil, err
	}
	defer text.free()
	if err := m.own().enter("model"); err != nil {
		return nil, err
	}
	defer m.object.leave()
	listener := m.told
	listener.ctx = ctx
	var pointer *C.pvera_bank
	err = listener.listen(func(call C.uintptr_t) *C.pvera_error {
		return C.pvera_go_bank_open(call, m.c(), text.c, &c, &pointer)
	}, func() { C.pvera_bank_free(pointer) })
	if err != nil {
		return nil, err
	}
	own := newObject("bank", unsafe.Pointer(pointer), func(bank unsafe.Pointer) {
		C.pvera_bank_free((*C.pvera_bank)(bank))
	}, m.object)
	return watch(&Bank{object: own, model: m.object, layers: m.layers, told: m.told}, own), nil
}

// Close gives the bank back. Its adapters and snapshots live on.
func (b *Bank) Close() error {
	b.own().close()
	return nil
}

func (b *Bank) own() *object {
	if b == nil {
		return nil
	}
	return b.object
}

func (b *Bank) c() *C.pvera_bank { return (*C.pvera_bank)(b.object.pointer) }

// run runs a short call.
func (b *Bank) run(call func() *C.pvera_error) error {
	if err := b.own().enter("bank"); err != nil {
		return err
	}
	defer b.object.leave()
	return take(call())
}

// long runs a call that may warn, make progress and be cancelled; made takes what it gave, while the bank is in use, and
// discard frees it where a panic of a callback goes on instead.
func (b *Bank) long(ctx context.Context, call func(listener C.uintptr_t) *C.pvera_error, made, discard func()) error {
	if err := b.own().enter("bank"); err != nil {
		return err
	}
	defer b.object.leave()
	listener := b.told
	listener.ctx = ctx
	if err := listener.listen(call, discard); err != nil {
		return err
	}
	if made != nil {
		made()
	}
	return nil
}

// BankEntry is an adapter on its way into a bank.
type BankEntry struct {
	Name    string
	Adapter *Adapter
}

// Append adds adapters under names, or puts them in the place of those of the same names: all of them or none. Vectors are
// rounded once to dtype (F32, F16 or BF16). When it returns, they are on the disk. Many at a time cost less than one at a time. A
// trainable adapter is written as it is now; a callback does not set tensors of these adapters.
//
// Cancelling ctx stops the drawing of a store of the bank; a write that has begun is finished.
func (b *Bank) Append(ctx context.Context, dtype DType, entries ...BankEntry) error {
	names, adapters := make([]string, len(entries)), make([]*Adapter, len(entries))
	for i, entry := range entries {
		names[i], adapters[i] = entry.Name, entry.Adapter
	}
	texts, err := newTexts("names", names)
	if err != nil {
		return err
	}
	defer texts.free()
	pointers, leave, err := enterAll(adapters)
	if err != nil {
		return err
	}
	defer leave()
	return b.long(ctx, func(call C.uintptr_t) *C.pvera_error {
		return C.pvera_go_bank_append(call, b.c(), C.size_t(len(entries)), texts.c(), unsafe.SliceData(pointers), dtype.c())
	}, nil, nil)
}

// Remove takes adapters out: all of them or none. Adapters and snapshots that somebody holds live on.
func (b *Bank) Remove(names ...string) error {
	texts, err := newTexts("names", names)
	if err != nil {
		return err
	}
	defer texts.free()
	return b.run(func() *C.pvera_error { return C.pvera_bank_remove(b.c(), C.size_t(len(names)), texts.c()) })
}

// Compact writes the bank anew without what nobody uses, and puts it in the place of the old file at once. Damaged adapters are
// [ErrFormat]; of a bank that was opened with Repair, they are left out, with a warning that names each. Other programs that have
// the bank open go on with the old file until they refresh it. Cancelling ctx leaves the bank as it was.
func (b *Bank) Compact(ctx context.Context) error {
	return b.long(ctx, func(call C.uintptr_t) *C.pvera_error { return C.pvera_go_bank_compact(call, b.c()) }, nil, nil)
}

// Refresh looks at the file at the path again and takes its newest commit, also where a compaction or a rename put another file
// there; changed says whether there was one. Adapters and snapshots that were handed out stay as they are. An error leaves the
// bank as it was. A bank that is open to write sees all there is, and never a change. ctx is asked before.
func (b *Bank) Refresh(ctx context.Context) (changed bool, err error) {
	var found C.bool
	err = b.long(ctx, func(call C.uintptr_t) *C.pvera_error { return C.pvera_go_bank_refresh(call, b.c(), &found) }, nil, nil)
	return bool(found), err
}

// Verify reads everything, warns of each adapter and each store (projections in the file) that is damaged, and counts them.
func (b *Bank) Verify(ctx context.Context) (damaged int, err error) {
	var count C.size_t
	err = b.long(ctx, func(call C.uintptr_t) *C.pvera_error { return C.pvera_go_bank_verify(call, b.c(), &count) }, nil, nil)
	return int(count), err
}

// Usage is what the bank holds.
func (b *Bank) Usage() (BankUsage, error) {
	c := C.pvera_bank_usage{struct_size: C.sizeof_pvera_bank_usage}
	err := b.run(func() *C.pvera_error { return C.pvera_bank_get_usage(b.c(), &c) })
	return BankUsage{
		Adapters: int(c.adapters), Damaged: int(c.damaged), FileBytes: uint64(c.file_bytes),
		UnusedBytes: uint64(c.unused_bytes), IndexBytes: int(c.index_bytes), Cached: int(c.cached),
		CachedBytes: int(c.cached_bytes), Hits: uint64(c.hits), Misses: uint64(c.misses), Families: int(c.families),
	}, err
}

// Contains says whether the bank holds an adapter of that name.
func (b *Bank) Contains(name string) (bool, error) {
	text, err := newText("name", name)
	if err != nil {
		return false, err
	}
	defer text.free()
	var contains C.bool
	err = b.run(func() *C.pvera_error { return C.pvera_bank_contains(b.c(), text.c, &contains) })
	return bool(contains), err
}

// Names are all of them, in the order in which they were first added. Those that come and go meanwhile may be missed or named
// twice.
func (b *Bank) Names() ([]string, error) {
	usage, err := b.Usage()
	if err != nil {
		return nil, err
	}
	names := make([]string, 0, usage.Adapters)
	for {
		var text *C.char
		err := b.run(func() *C.pvera_error { return C.pvera_bank_name_at(b.c(), C.size_t(len(names)), &text) })
		if errors.Is(err, ErrNotFound) {
			return names, nil
		}
		if err != nil {
			return nil, err
		}
		names = append(names, takeText(text))
	}
}

// Adapter is the one of that name, from memory or read now: an adapter as any other, to be published, copied, saved, closed. Its
// noise has the number that the bank holds. It does not change when the bank does. Cancelling ctx stops the drawing of
// projections, which is what takes long.
func (b *Bank) Adapter(ctx context.Context, name string) (*Adapter, error) {
	text, err := newText("name", name)
	if err != nil {
		return nil, err
	}
	defer text.free()
	var pointer *C.pvera_adapter
	var adapter *Adapter
	err = b.long(ctx, func(call C.uintptr_t) *C.pvera_error {
		return C.pvera_go_bank_adapter(call, b.c(), text.c, &pointer)
	}, func() { adapter = adapterFrom(pointer, b.model, b.layers) }, func() { C.pvera_adapter_free(pointer) })
	return adapter, err
}

// Snapshot is a view of the adapters that the rows of a batch want, for one pass, and the slot of each row, for [Rows].Slot.
// names[i] is row i's, or [BaseAlone]; rows of one name have one slot. What is published on the model is not in it.
func (b *Bank) Snapshot(ctx context.Context, names []string) (*Snapshot, []int32, error) {
	texts, err := newTexts("names", names)
	if err != nil {
		return nil, nil, err
	}
	defer texts.free()
	for i, name := range names {
		if name == BaseAlone {
			texts.drop(i)
		}
	}
	var pointer *C.pvera_snapshot
	var snapshot *Snapshot
	slots := make([]int32, len(names))
	err = b.long(ctx, func(call C.uintptr_t) *C.pvera_error {
		return C.pvera_go_bank_snapshot(call, b.c(), C.size_t(len(names)), texts.c(),
			(*C.int32_t)(unsafe.SliceData(slots)), &pointer)
	}, func() { snapshot = snapshotFrom(pointer, b.model, b.layers) }, func() { C.pvera_snapshot_free(pointer) })
	if err != nil {
		return nil, nil, err
	}
	return snapshot, slots, nil
}

// cTexts are NUL-terminated copies of Go strings, in C's memory.
type cTexts []*C.char

func newTexts(argument string, texts []string) (cTexts, error) {
	for i, text := range texts {
		if err := checkText(fmt.Sprintf("%s[%d]", argument, i), text); err != nil {
			return nil, err
		}
	}
	copies := make(cTexts, len(texts))
	for i, text := range texts {
		copies[i] = C.CString(text)
	}
	return copies, nil
}

func (t cTexts) c() **C.char { return unsafe.SliceData(t) }

// drop puts NULL in the place of a text.
func (t cTexts) drop(i int) {
	C.free(unsafe.Pointer(t[i]))
	t[i] = nil
}

func (t cTexts) free() {
	for _, text := range t {
		C.free(unsafe.Pointer(text))
	}
}
