// Many goroutines on one context and one model, and adapters that are swapped under their passes.

package pvera_test

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"pvera.invalid/pvera"
)

const goroutines, passes = 8, 60

// variants are adapters that differ, each with the y that it gives.
func variants(t testing.TB, w *world, count int) (adapters []*pvera.Adapter, outputs [][]float32) {
	for variant := range count {
		parameters := make([]float32, len(w.parameters))
		adapter := must(w.adapter.Trainable(parameters))(t)
		t.Cleanup(func() { adapter.Close() })
		fill(parameters, uint32(100+variant))
		linear := must(adapter.Linear(0))(t)
		y := make([]float32, n*out)
		check(t, w.context.Forward(linear, w.matrix(), nil, nil, nil, pvera.Dense(y, n, out)))
		check(t, linear.Close())
		adapters, outputs = append(adapters, adapter), append(outputs, y)
	}
	return adapters, outputs
}

// A pass sees one adapter, old or new, in both of its forwards; the swap waits for nobody.
func TestHotSwapDuringPasses(t *testing.T) {
	w := inWorld(t, &pvera.ContextOptions{Threads: 1})
	adapters, outputs := variants(t, w, 4)
	must(w.model.Replace("one", adapters[0]))(t)
	var readers, swapper sync.WaitGroup
	var done atomic.Bool
	var seen [4]atomic.Int64
	swapper.Go(func() {
		for turn := 1; !done.Load(); turn++ {
			must(w.model.Replace("one", adapters[turn%len(adapters)]))(t)
			runtime.Gosched()
		}
	})
	for range goroutines {
		readers.Go(func() {
			for range passes {
				y := [2][]float32{make([]float32, n*out), make([]float32, n*out)}
				snapshot := must(w.model.Snapshot())(t)
				linear := must(snapshot.Linear(0))(t)
				for _, values := range y {
					check(t, w.context.Forward(linear, w.matrix(), nil, nil, nil, pvera.Dense(values, n, out)))
					runtime.Gosched()
				}
				check(t, snapshot.Close())
				sameBits(t, "the second forward of a pass", y[1], y[0])
				which := which(y[0], outputs)
				if which < 0 {
					t.Error("a pass saw no adapter that was ever published")
					return
				}
				seen[which].Add(1)
			}
		})
	}
	readers.Wait()
	done.Store(true)
	swapper.Wait()
	swapped := 0
	for i := range seen {
		if seen[i].Load() > 0 {
			swapped++
		}
	}
	if swapped < 2 {
		t.Errorf("all passes saw the same adapter: nothing was swapped under them")
	}
}

func which(y []float32, outputs [][]float32) int {
	for variant := range outputs {
		if relativeError(y, outputs[variant]) == 0 {
			return variant
		}
	}
	return -1
}

// Another adapter in every row: each row has the bits that it has alone.
func TestAdapterPerRow(t *testing.T) {
	w := inWorld(t, nil)
	adapters, outputs := variants(t, w, 3)
	slots := make([]int32, 3)
	for i, adapter := range adapters {
		slots[i] = must(w.model.Publish(fmt.Sprint("tenant ", i), adapter))(t)
	}
	snapshot := must(w.model.Snapshot())(t)
	defer snapshot.Close()
	linear := must(snapshot.Linear(0))(t)
	for i, slot := range slots {
		if found := must(snapshot.Slot(fmt.Sprint("tenant ", i)))(t); found != slot {
			t.Errorf("tenant %d is in slot %d; wanted %d", i, found, slot)
		}
	}
	y, rows := make([]float32, n*out), pvera.Rows{Slot: make([]int32, n)}
	for i := range rows.Slot {
		rows.Slot[i] = slots[i%3]
	}
	check(t, w.context.Forward(linear, w.matrix(), &rows, nil, nil, pvera.Dense(y, n, out)))
	for i := range n {
		sameBits(t, fmt.Sprint("row ", i), y[i*out:(i+1)*out], outputs[i%3][i*out:(i+1)*out])
	}
}

// One config, one tape, one statistics, used by everybody at once: they wait for each other.
func TestSharedHandles(t *testing.T) {
	w := inWorld(t, nil)
	tape := must(pvera.NewTape(pvera.KeepLatent, pvera.Allocator{}))(t)
	defer tape.Close()
	const many = 500 // rows, so that two goroutines meet in a pass
	statistics := must(pvera.NewStatistics(many, out, pvera.Allocator{}))(t)
	defer statistics.Close()
	values := pvera.Dense(fill(make([]float32, many*out), 1), many, out)
	var all sync.WaitGroup
	for worker := range goroutines {
		all.Go(func() {
			y := pvera.Dense(fill(make([]float32, n*out), uint32(worker)), n, out)
			for range passes {
				check(t, w.config.SetReal("d_initial", float64(worker+1)/10))
				must(w.config.Real("d_initial"))(t)
				check(t, statistics.Add(values))
				must(statistics.Mean(nil))(t)
				check(t, w.context.Forward(w.q, w.matrix(), nil, nil, tape, y))
				check(t, w.context.Backward(tape, y, nil, pvera.Matrix{}))
				must(w.adapter.TensorCount())(t)
			}
		})
	}
	all.Wait()
	for row, count := range must(statistics.Passes(nil))(t) {
		if count != goroutines*passes {
			t.Errorf("row %d had %d passes; wanted %d", row, count, goroutines*passes)
		}
	}
}

// Adapters are loaded, published and removed by everybody at once.
func TestConcurrentLoads(t *testing.T) {
	w := inWorld(t, nil)
	config, tensors, err := w.adapter.SaveMemory()
	check(t, err)
	var all sync.WaitGroup
	for worker := range goroutines {
		all.Go(func() {
			name := fmt.Sprint("worker ", worker)
			for range 20 {
				loaded := must(w.model.LoadAdapterMemory(context.Background(), config, tensors, nil))(t)
				must(w.model.Publish(name, loaded))(t)
				check(t, loaded.Close())
				check(t, w.model.Remove(name))
			}
		})
	}
	all.Wait()
	snapshot := must(w.model.Snapshot())(t)
	defer snapshot.Close()
	_, err = snapshot.Slot("worker 0")
	refused(t, err, pvera.ErrNotFound, "worker 0")
}
