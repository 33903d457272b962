// Memory: ten thousand rounds leave nothing, and a call allocates nothing in Go.

package pvera_test

import (
	"context"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"pvera.invalid/pvera"
	"pvera.invalid/pvera/internal/testhost"
)

// round makes, uses and closes one of everything, errors included.
func round(t testing.TB, allocator pvera.Allocator) {
	ctx := context.Background()
	w := newWorld(t, &pvera.ContextOptions{Allocator: allocator})
	y, dx := pvera.Dense(make([]float32, n*out), n, out), pvera.Dense(make([]float32, n*in), n, in)
	tape := must(pvera.NewTape(pvera.Recompute, allocator))(t)
	check(t, w.context.Forward(w.q, w.matrix(), nil, nil, tape, y))
	slot := pvera.SlotGradients{LambdaB: make([]float32, out), LambdaD: make([]float32, 2*rank)}
	check(t, w.context.Backward(tape, y, &pvera.Gradients{Overwrite: pvera.OverwriteAll, Slots: []pvera.SlotGradients{slot}}, dx))
	snapshot := must(w.model.Snapshot())(t)
	lent := must(snapshot.Linear(0))(t)
	check(t, w.context.Forward(lent, w.matrix(), nil, nil, nil, y))
	statistics := must(pvera.NewStatistics(n, out, allocator))(t)
	check(t, statistics.Add(y))
	undo := must(w.context.MergeWithUndo(w.q, nil, 0, pvera.OutIn, pvera.Dense(w.weight, out, in),
		pvera.Dense(make([]float32, out*in), out, in)))(t)
	config, tensors, err := w.adapter.SaveMemory()
	check(t, err)
	loaded := must(w.model.LoadAdapterMemory(ctx, config, tensors, nil))(t)
	must(w.model.Replace("one", loaded))(t)
	clone := must(loaded.Clone())(t)
	if _, err := w.model.FindLayer("nothing"); err == nil {
		t.Fatal("a layer that was not declared")
	}
	for _, handle := range []interface{ Close() error }{clone, loaded, undo, statistics, snapshot, tape} {
		check(t, handle.Close())
	}
	w.close()
}

func TestTenThousandRounds(t *testing.T) {
	if !testhost.WithoutCaches(t) {
		return
	}
	rounds, warm := 10000, 500
	if testing.Short() {
		rounds = 1000
	}
	memory := testhost.NewMemory()
	defer memory.Close()
	allocator := allocatorOf(memory)
	for range warm {
		round(t, allocator)
	}
	inUse, resident := testhost.HeapInUse(), residentBytes(t)
	for range rounds {
		round(t, allocator)
	}
	if blocks, bytes, calls := memory.Counts(); blocks != 0 || bytes != 0 || calls == 0 {
		t.Errorf("%d blocks of %d bytes are out after %d allocations", blocks, bytes, calls)
	}
	if sanitized {
		return // its own allocator holds freed memory back; it looks for leaks at the end
	}
	const slack = 16 << 10 // threads that Go starts meanwhile; a leak of 2 bytes a round is more
	if grown := testhost.HeapInUse() - inUse; grown > slack {
		t.Errorf("the C heap holds %d bytes more after %d rounds; wanted at most %d", grown, rounds, slack)
	}
	const some = 16 << 20 // what Go's collector may leave for later
	grown := residentBytes(t) - resident
	if grown > some && !raced { // the race detector remembers
		t.Errorf("the process grew by %d bytes in %d rounds; wanted at most %d", grown, rounds, some)
	}
	t.Logf("%d rounds: C heap %+d bytes, resident %+d bytes", rounds, testhost.HeapInUse()-inUse, grown)
}

func residentBytes(t testing.TB) int {
	runtime.GC()
	fields := strings.Fields(string(must(os.ReadFile("/proc/self/statm"))(t)))
	return must(strconv.Atoi(fields[1]))(t) * os.Getpagesize()
}

// The hot calls of an inference server allocate nothing in Go.
func TestAllocations(t *testing.T) {
	if raced || sanitized {
		t.Skip("instrumented code allocates")
	}
	w := inWorld(t, nil)
	snapshot := must(w.model.Snapshot())(t)
	defer snapshot.Close()
	linear := must(snapshot.Linear(0))(t)
	values := make([]float32, 2*n*out)
	x, y, draws := w.matrix(), pvera.Dense(values, n, out), pvera.Dense(values, 2*n, out)
	rows := pvera.Rows{Slot: make([]int32, n), Identity: make([]uint64, n), SampleBase: 3}
	noise := pvera.Noise{Mode: pvera.Sample, Seed: 5}
	statistics := must(pvera.NewStatistics(n, out, pvera.Allocator{}))(t)
	defer statistics.Close()
	mean := make([]float64, n*out)
	group, outputs := []*pvera.Linear{linear}, []pvera.Matrix{y}
	for name, call := range map[string]func() error{
		"forward":    func() error { return w.context.Forward(linear, x, nil, nil, nil, y) },
		"mixed rows": func() error { return w.context.Forward(linear, x, &rows, &noise, nil, y) },
		"sample":     func() error { return w.context.Sample(context.Background(), linear, x, &rows, &noise, 2, draws) },
		"group":      func() error { return w.context.ForwardGroup(group, x, &rows, &noise, nil, outputs) },
	} {
		check(t, call())
		if allocations := testing.AllocsPerRun(200, func() { check(t, call()) }); allocations != 0 {
			t.Errorf("%s: %v allocations a call; wanted none", name, allocations)
		}
	}
	// Closures over what statistics need.
	few := testing.AllocsPerRun(200, func() {
		check(t, statistics.Add(y))
		must(statistics.Mean(mean))(t)
	})
	if few > 8 {
		t.Errorf("statistics: %v allocations a pass; wanted at most 8", few)
	}
}
