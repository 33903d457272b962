// Close: as often as one likes, from anywhere, while calls run, or never.

package pvera_test

import (
	"context"
	"errors"
	"reflect"
	"runtime"
	"sync"
	"testing"
	"time"

	"pvera.invalid/pvera"
	"pvera.invalid/pvera/internal/testhost"
)

// Every handle: a use after Close is an error that names it, and so is a nil one.
func TestUseAfterClose(t *testing.T) {
	w := inWorld(t, nil)
	ctx, y := context.Background(), pvera.Dense(make([]float32, n*out), n, out)
	snapshot := must(w.model.Snapshot())(t)
	lent := must(snapshot.Linear(0))(t)
	tape := must(pvera.NewTape(pvera.KeepLatent, pvera.Allocator{}))(t)
	statistics := must(pvera.NewStatistics(n, out, pvera.Allocator{}))(t)
	generator := must(pvera.NewTorchGenerator(1))(t)
	undo := must(w.context.MergeWithUndo(w.q, nil, 0, pvera.OutIn, pvera.Dense(w.weight, out, in),
		pvera.Dense(make([]float32, out*in), out, in)))(t)
	check(t, lent.Close())
	check(t, w.context.Forward(lent, w.matrix(), nil, nil, nil, y)) // the snapshot's: Close did nothing

	second := func(_ any, err error) error { return err }
	for _, of := range []struct {
		name   string
		handle interface{ Close() error }
		use    func() error
	}{
		{"undo", undo, func() error { return undo.Unmerge(y) }},
		{"generator", generator, func() error { return generator.Normals(nil) }},
		{"statistics", statistics, func() error { return statistics.Add(y) }},
		{"statistics", statistics, func() error { return second(statistics.Mean(nil)) }},
		{"statistics", statistics, func() error { return second(pvera.Stopping{}.Undecided(statistics)) }},
		{"tape", tape, func() error { return w.context.Forward(w.q, w.matrix(), nil, nil, tape, y) }},
		{"tape", tape, func() error { return w.context.Backward(tape, y, nil, pvera.Matrix{}) }},
		{"tape", tape, func() error { return second(tape.Bytes()) }},
		{"linear", snapshot, func() error { return w.context.Forward(lent, w.matrix(), nil, nil, nil, y) }},
		{"snapshot", snapshot, func() error { return second(snapshot.Slot("one")) }},
		{"linear", w.q, func() error { return w.context.Moments(w.q, w.matrix(), nil, y, y) }},
		{"linears[1]", w.v, func() error {
			return w.context.ForwardGroup([]*pvera.Linear{must(w.adapter.Linear(0))(t), w.v}, w.matrix(), nil, nil, nil,
				[]pvera.Matrix{y, y})
		}},
		{"store", w.store, func() error { return w.store.Pack(ctx, pvera.PackForward) }},
		{"adapter", w.adapter, func() error { return second(w.adapter.Linear(0)) }},
		{"adapter", w.adapter, func() error { return second(w.model.Publish("two", w.adapter)) }},
		{"config", w.config, func() error { return w.config.Validate() }},
		{"config", w.config, func() error { return second(w.model.NewAdapter(ctx, w.config, nil, nil)) }},
		{"model", w.model, func() error { return second(w.model.Snapshot()) }},
		{"context", w.context, func() error { return w.context.Forward(w.q, w.matrix(), nil, nil, nil, y) }},
	} {
		check(t, of.handle.Close())
		check(t, of.handle.Close())
		refused(t, of.use(), pvera.ErrClosed, of.name, "closed")
	}
}

// The zero pointer and the zero value of each type refuse their first argument by name.
func TestNilHandles(t *testing.T) {
	w := inWorld(t, nil)
	y := pvera.Dense(make([]float32, n*out), n, out)
	var none *pvera.Linear
	refused(t, w.context.Forward(none, w.matrix(), nil, nil, nil, y), pvera.ErrNull, "linear is nil")
	refused(t, w.context.Forward(&pvera.Linear{}, w.matrix(), nil, nil, nil, y), pvera.ErrNull, "linear is nil")
	_, err := w.model.Publish("two", nil)
	refused(t, err, pvera.ErrNull, "adapter is nil")
	_, err = w.model.NewAdapter(context.Background(), nil, nil, nil)
	refused(t, err, pvera.ErrNull, "config is nil")
	for _, handle := range []interface{ Close() error }{(*pvera.Context)(nil), (*pvera.Config)(nil), (*pvera.Store)(nil),
		(*pvera.Model)(nil), (*pvera.Snapshot)(nil), (*pvera.Adapter)(nil), (*pvera.Linear)(nil), (*pvera.Tape)(nil),
		(*pvera.Undo)(nil), (*pvera.Bank)(nil), (*pvera.Statistics)(nil), (*pvera.TorchGenerator)(nil)} {
		check(t, handle.Close())
		zero := reflect.New(reflect.TypeOf(handle).Elem()).Interface().(interface{ Close() error })
		check(t, zero.Close())
	}
}

// What was made from a closed object goes on working: a linear after its adapter and model, a backward after all of them.
func TestCloseInAnyOrder(t *testing.T) {
	w := newWorld(t, nil)
	y, dx := make([]float32, n*out), make([]float32, n*in)
	wanted := make([]float32, n*out)
	check(t, w.context.Forward(w.q, w.matrix(), nil, nil, nil, pvera.Dense(wanted, n, out)))
	tape := must(pvera.NewTape(pvera.Recompute, pvera.Allocator{}))(t)
	w.model.Close()
	w.store.Close()
	w.adapter.Close()
	collect()
	noise := pvera.Noise{Mode: pvera.Mean}
	check(t, w.context.Forward(w.q, w.matrix(), nil, &noise, tape, pvera.Dense(y, n, out)))
	sameBits(t, "y", y, wanted)
	w.q.Close()
	w.v.Close()
	w.config.Close()
	collect()
	check(t, w.context.Backward(tape, pvera.Dense(y, n, out), nil, pvera.Dense(dx, n, in)))
	if dx[0] == 0 {
		t.Error("dx was not written")
	}
	w.context.Close() // the tape still has it
	tape.Close()
}

// Calls run while others close everything: each gives the right numbers or ErrClosed.
func TestCloseDuringCalls(t *testing.T) {
	for range 50 {
		w := newWorld(t, &pvera.ContextOptions{Threads: 1})
		wanted := make([]float32, n*out)
		check(t, w.context.Forward(w.q, w.matrix(), nil, nil, nil, pvera.Dense(wanted, n, out)))
		var all sync.WaitGroup
		begun := make(chan struct{}, 4)
		for range 4 {
			all.Go(func() {
				y := make([]float32, n*out)
				for first := true; ; first = false {
					err := w.context.Forward(w.q, w.matrix(), nil, nil, nil, pvera.Dense(y, n, out))
					if first {
						begun <- struct{}{}
					}
					if errors.Is(err, pvera.ErrClosed) {
						return
					}
					check(t, err)
					sameBits(t, "y", y, wanted)
				}
			})
		}
		for range 4 {
			<-begun
		}
		all.Go(func() { w.q.Close() })
		all.Go(func() { w.context.Close() })
		all.Go(w.close)
		all.Wait()
	}
}

// What is forgotten is closed by the garbage collector.
func TestForgotten(t *testing.T) {
	memory := testhost.NewMemory()
	defer memory.Close()
	func() {
		allocator := allocatorOf(memory)
		store := must(pvera.StoreFromKey(context.Background(), 7, pvera.StoreOptions{Rank: rank, InMax: in, OutMax: out, Allocator: allocator}))(t)
		must(pvera.NewStatistics(n, out, allocator))(t)
		runtime.KeepAlive(store)
	}()
	if blocks, _, _ := memory.Counts(); blocks == 0 {
		t.Fatal("the allocator was not used")
	}
	for end := time.Now().Add(10 * time.Second); ; {
		collect()
		blocks, bytes, _ := memory.Counts()
		if blocks == 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%d blocks of %d bytes are still out", blocks, bytes)
		}
	}
}

func allocatorOf(memory testhost.Memory) pvera.Allocator {
	allocate, release, user := memory.Functions()
	return pvera.Allocator{Allocate: allocate, Release: release, User: user}
}

func collect() {
	runtime.GC()
	runtime.GC()
	runtime.Gosched()
}
