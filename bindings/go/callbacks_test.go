// Calls from C into Go: warnings, progress, cancellation, the host's threads; and panics in them.

package pvera_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"weak"

	"pvera.invalid/pvera"
	"pvera.invalid/pvera/internal/testhost"
)

// large is a model whose projections take several million draws, and the config to draw them.
func large(t *testing.T, options *pvera.ModelOptions) (*pvera.Model, *pvera.Config) {
	t.Helper()
	model := must(pvera.NewModel(options))(t)
	t.Cleanup(func() { model.Close() })
	must(model.Declare(pvera.Layer{Name: "q", InFeatures: 4096, OutFeatures: 4096}))(t)
	config := must(pvera.NewConfig())(t)
	t.Cleanup(func() { config.Close() })
	check(t, config.SetJSON("target_modules", `["q"]`))
	return model, config
}

func TestProgress(t *testing.T) {
	var calls int
	var last, whole uint64
	var drawnBy *pvera.Config
	model, config := large(t, &pvera.ModelOptions{Progress: func(stage string, done, total uint64) bool {
		if stage == "" || done < last || total == 0 || done > total {
			t.Errorf("%q: %d of %d after %d", stage, done, total, last)
		}
		last, whole = done, total
		calls++
		check(t, drawnBy.SetReal("d_initial", 0.2)) // a callback may call anything
		must(drawnBy.Int("r"))(t)
		return true
	}})
	drawnBy = config
	adapter := must(model.NewAdapter(context.Background(), config, nil, nil))(t)
	defer adapter.Close()
	if calls < 2 || whole != 3*256*4096 {
		t.Errorf("%d calls, the last at %d of %d", calls, last, whole)
	}
}

func TestCancelledLoads(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	model, config := large(t, &pvera.ModelOptions{Progress: func(string, uint64, uint64) bool { cancel(); return true }})
	_, err := model.NewAdapter(ctx, config, nil, nil)
	if err != context.Canceled {
		t.Errorf("cancelled while it ran: %v; wanted context.Canceled itself", err)
	}
	for what, err := range map[string]error{
		"load":        second(model.LoadAdapter(ctx, filepath.Join(golden, "train_step"), nil)),
		"load memory": second(model.LoadAdapterMemory(ctx, nil, nil, nil)),
	} {
		if err != context.Canceled {
			t.Errorf("%s, cancelled before it ran: %v; wanted context.Canceled itself", what, err)
		}
	}
	stopping, config := large(t, &pvera.ModelOptions{Progress: func(string, uint64, uint64) bool { return false }})
	_, err = stopping.NewAdapter(context.Background(), config, nil, nil)
	refused(t, err, pvera.ErrCancelled)
}

func TestCancelledDraw(t *testing.T) {
	options := pvera.StoreOptions{Rank: 256, InMax: 4096, OutMax: 4096}
	ctx, cancel := context.WithCancel(context.Background())
	var calls int
	options.Progress = func(stage string, done, total uint64) bool {
		calls++
		if stage != "draw projections" || done >= total || total != 3*256*4096 {
			t.Errorf("%q: %d of %d", stage, done, total)
		}
		cancel()
		return true
	}
	if store, err := pvera.StoreFromKey(ctx, 5, options); err != context.Canceled || store != nil || calls != 1 {
		t.Errorf("cancelled while it ran: %v, %v after %d calls; wanted context.Canceled itself, at the next look", store, err, calls)
	}
	if _, err := pvera.StoreFromKey(ctx, 5, options); err != context.Canceled || calls != 1 {
		t.Errorf("cancelled before it ran: %v after %d calls; wanted context.Canceled itself", err, calls)
	}
	options.Progress = func(string, uint64, uint64) bool { return false }
	_, err := pvera.StoreFromKey(context.Background(), 5, options)
	refused(t, err, pvera.ErrCancelled)
	options.Progress = func(string, uint64, uint64) bool { panic("of the host") }
	panics(t, "the draw of a store", func() { pvera.StoreFromKey(context.Background(), 5, options) })
}

func second[T any](_ T, err error) error { return err }

// Each of several loads of one model is told of its own context.
func TestCancelOneOfMany(t *testing.T) {
	model, config := large(t, nil)
	var all sync.WaitGroup
	for worker := range 4 {
		all.Go(func() {
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			if worker%2 == 0 {
				cancel()
			}
			adapter, err := model.NewAdapter(ctx, config, nil, nil)
			adapter.Close()
			if wanted := ctx.Err(); err != wanted {
				t.Errorf("worker %d: %v; wanted %v", worker, err, wanted)
			}
		})
	}
	all.Wait()
}

func TestWarning(t *testing.T) {
	var said []string
	w := inWorld(t, nil)
	model := must(pvera.NewModel(&pvera.ModelOptions{Warning: func(message string) { said = append(said, message) }}))(t)
	defer model.Close()
	must(model.Declare(pvera.Layer{Name: "q", InFeatures: in, OutFeatures: out}))(t)
	must(model.Declare(pvera.Layer{Name: "v", InFeatures: in, OutFeatures: vOut}))(t)
	config, tensors, err := w.adapter.SaveMemory()
	check(t, err)
	untargeted := []byte(strings.Replace(string(config), `"v"`, `"elsewhere"`, 1))
	adapter := must(model.LoadAdapterMemory(context.Background(), untargeted, tensors, nil))(t)
	defer adapter.Close()
	if len(said) != 1 || !strings.Contains(said[0], "'v'") {
		t.Errorf("the warnings are %q; wanted one that names layer 'v'", said)
	}
}

// A panic in a callback stops the load and goes on in the Go call; the library goes on working.
func TestPanicInCallback(t *testing.T) {
	model, config := large(t, &pvera.ModelOptions{Progress: func(string, uint64, uint64) bool { panic("of the host") }})
	func() {
		defer func() {
			if value := recover(); value != "of the host" {
				t.Errorf("recovered %v", value)
			}
		}()
		model.NewAdapter(context.Background(), config, nil, nil)
		t.Error("the panic is lost")
	}()
	must(model.FindLayer("q"))(t)
}

// panics runs a call from which the host's panic goes on.
func panics(t *testing.T, what string, call func()) {
	t.Helper()
	defer func() {
		t.Helper()
		if value := recover(); value != "of the host" {
			t.Fatalf("%s: recovered %v; wanted the host's panic", what, value)
		}
	}()
	call()
}

// What a call made before a panic went on is freed: an adapter (which only warned), a bank, an undo.
func TestPanicLeavesNothing(t *testing.T) {
	if !testhost.WithoutCaches(t) {
		return
	}
	ctx, w := context.Background(), inWorld(t, nil)
	model := must(pvera.NewModel(&pvera.ModelOptions{Warning: func(string) { panic("of the host") }}))(t)
	defer model.Close()
	must(model.Declare(pvera.Layer{Name: "q", InFeatures: in, OutFeatures: out}))(t)
	must(model.Declare(pvera.Layer{Name: "v", InFeatures: in, OutFeatures: vOut}))(t)
	config, tensors, err := w.adapter.SaveMemory()
	check(t, err)
	untargeted := []byte(strings.Replace(string(config), `"v"`, `"elsewhere"`, 1))

	path := filepath.Join(t.TempDir(), "bank")
	bank := must(w.model.OpenBank(ctx, path, &pvera.BankOptions{Access: pvera.BankCreate}))(t)
	check(t, bank.Append(ctx, pvera.F32, pvera.BankEntry{Name: "one", Adapter: w.adapter}))
	check(t, bank.Close())
	file := must(os.ReadFile(path))(t)
	file[strings.LastIndex(string(file), "one")] ^= 1
	check(t, os.WriteFile(path, file, 0o600))

	work := must(pvera.NewContext(&pvera.ContextOptions{Threads: 3, ParallelFor: func(int, func(int)) {}}))(t)
	defer work.Close()
	weight, before := pvera.Dense(w.weight, out, in), slices.Clone(w.weight)
	for what, call := range map[string]func(){
		"load": func() { model.LoadAdapterMemory(ctx, untargeted, tensors, nil) },
		"bank": func() { model.OpenBank(ctx, path, &pvera.BankOptions{Access: pvera.BankWrite}) },
		"merge": func() { // which does not part its work yet
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			pvera.KeepPanic(work, "of the host")
			work.MergeWithUndo(w.q, nil, 0, pvera.OutIn, weight, weight)
		},
	} {
		for range 20 {
			panics(t, what, call)
		}
		held := testhost.HeapInUse()
		for range 500 {
			panics(t, what, call)
		}
		if grown := testhost.HeapInUse() - held; grown > 16<<10 && !sanitized {
			t.Errorf("%s: the C heap grew by %d bytes in 500 calls", what, grown)
		}
	}
	sameBits(t, "the weight after a merge that panicked", w.weight, before)
}

// The host's goroutines do the work, whatever they leave out or do twice, and the numbers stay the same.
func TestParallelFor(t *testing.T) {
	plain := inWorld(t, nil)
	wanted := make([]float32, n*out)
	check(t, plain.context.Forward(plain.q, plain.matrix(), nil, nil, nil, pvera.Dense(wanted, n, out)))
	var used, most atomic.Int64
	hosts := map[string]pvera.ParallelFor{
		"goroutines": func(count int, run func(int)) {
			var all sync.WaitGroup
			for index := range count {
				all.Go(func() { run(index) })
			}
			all.Wait()
		},
		"some left out":   func(count int, run func(int)) { run(count - 1) },
		"twice and wrong": func(count int, run func(int)) { run(0); run(0); run(count); run(-1) },
		"none waited for": func(count int, run func(int)) { go run(0) },
	}
	for name, host := range hosts {
		counted := func(count int, run func(int)) {
			used.Add(1)
			most.Store(max(most.Load(), int64(count)))
			host(count, run)
		}
		w := inWorld(t, &pvera.ContextOptions{Threads: 3, ParallelFor: counted})
		for range 50 {
			y := make([]float32, n*out)
			check(t, w.context.Forward(w.q, w.matrix(), nil, nil, nil, pvera.Dense(y, n, out)))
			sameBits(t, name, y, wanted)
		}
	}
	if used.Load() == 0 || most.Load() < 2 {
		t.Errorf("the host's function ran %d times, with at most %d tasks", used.Load(), most.Load())
	}
	_, err := pvera.NewContext(&pvera.ContextOptions{ParallelFor: hosts["goroutines"], Backend: 9})
	refused(t, err, pvera.ErrArgument, "options.backend is 9")
}

// A host that returns while a task of it still runs is waited for.
func TestParallelForIsWaitedFor(t *testing.T) {
	const size, count = 512, 64
	model := must(pvera.NewModel(nil))(t)
	defer model.Close()
	must(model.Declare(pvera.Layer{Name: "q", InFeatures: size, OutFeatures: size,
		Weight: pvera.Dense(fill(make([]float32, size*size), 1), size, size)}))(t)
	config := newConfig(t)
	defer config.Close()
	adapter := must(model.NewAdapter(context.Background(), config, nil, nil))(t)
	defer adapter.Close()
	linear := must(adapter.Linear(0))(t)
	defer linear.Close()
	hasty := func(count int, run func(int)) {
		begun := make(chan struct{})
		go func() {
			close(begun)
			run(0)
		}()
		<-begun
	}
	x, y := pvera.Dense(fill(make([]float32, count*size), 2), count, size), [2][]float32{}
	for i, each := range []pvera.ParallelFor{nil, hasty} {
		work := must(pvera.NewContext(&pvera.ContextOptions{Threads: 1, ParallelFor: each}))(t)
		defer work.Close()
		for range 50 {
			y[i] = make([]float32, count*size)
			check(t, work.Forward(linear, x, nil, nil, nil, pvera.Dense(y[i], count, size)))
			sameBits(t, "y", y[i], y[0])
		}
	}
}

// A closed context lets go of the host's function.
func TestParallelForIsForgotten(t *testing.T) {
	var kept weak.Pointer[[100]int]
	func() {
		value := new([100]int)
		kept = weak.Make(value)
		work := must(pvera.NewContext(&pvera.ContextOptions{ParallelFor: func(count int, run func(int)) {
			value[0] = count
			run(0)
		}}))(t)
		check(t, work.Close())
	}()
	for range 10 {
		collect()
	}
	if kept.Value() != nil {
		t.Error("what the function refers to is still alive")
	}
}

func TestPanicInParallelFor(t *testing.T) {
	broken := true
	w := inWorld(t, &pvera.ContextOptions{Threads: 3, ParallelFor: func(count int, run func(int)) {
		if broken {
			panic(errors.New("of the host"))
		}
		for index := range count {
			run(index)
		}
	}})
	y, wanted := make([]float32, n*out), make([]float32, n*out)
	func() {
		defer func() {
			if err, is := recover().(error); !is || err.Error() != "of the host" {
				t.Errorf("recovered %v", err)
			}
		}()
		w.context.Forward(w.q, w.matrix(), nil, nil, nil, pvera.Dense(y, n, out))
		t.Error("the panic is lost")
	}()
	broken = false
	check(t, w.context.Forward(w.q, w.matrix(), nil, nil, nil, pvera.Dense(wanted, n, out)))
	sameBits(t, "y of the call that panicked", y, wanted)
}

// Calls on one context panic at the same time: each goes on with its own, which is told by the thread.
func TestPanicsFindTheirCalls(t *testing.T) {
	const calls, rows = 4, 96
	var inside sync.WaitGroup
	w := inWorld(t, &pvera.ContextOptions{Threads: 3, ParallelFor: func(count int, run func(int)) {
		inside.Done()
		inside.Wait() // until all calls are here
		panic(syscall.Gettid())
	}})
	for range 100 {
		var all sync.WaitGroup
		inside.Add(calls)
		for range calls {
			all.Go(func() {
				runtime.LockOSThread()
				defer runtime.UnlockOSThread()
				x, y := fill(make([]float32, rows*in), 7), make([]float32, rows*out)
				defer func() {
					if value := recover(); value != syscall.Gettid() {
						t.Errorf("the call on thread %d recovered %v", syscall.Gettid(), value)
					}
				}()
				w.context.Forward(w.q, pvera.Dense(x, rows, in), nil, nil, nil, pvera.Dense(y, rows, out))
				t.Error("the panic is lost")
			})
		}
		all.Wait()
	}
}
