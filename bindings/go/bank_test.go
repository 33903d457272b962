// Banks: what goes in comes out, what is refused, and many goroutines on one.

package pvera_test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"pvera.invalid/pvera"
)

// newBank is an empty bank of the world's model, to be written.
func newBank(t *testing.T, model *pvera.Model) (bank *pvera.Bank, path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "bank")
	bank = must(model.OpenBank(context.Background(), path, &pvera.BankOptions{Access: pvera.BankCreate}))(t)
	t.Cleanup(func() { bank.Close() })
	return bank, path
}

// entries are the adapters under these names.
func entries(adapters []*pvera.Adapter, names ...string) []pvera.BankEntry {
	all := make([]pvera.BankEntry, len(names))
	for i, name := range names {
		all[i] = pvera.BankEntry{Name: name, Adapter: adapters[i]}
	}
	return all
}

// onRows is y of layer 0 with sampled latents, by a snapshot whose rows have these slots.
func onRows(t testing.TB, w *world, snapshot *pvera.Snapshot, slots []int32) []float32 {
	t.Helper()
	y := make([]float32, n*out)
	linear := must(snapshot.Linear(0))(t)
	noise := pvera.Noise{Mode: pvera.Sample, Seed: 5}
	check(t, w.context.Forward(linear, w.matrix(), &pvera.Rows{Slot: slots}, &noise, nil, pvera.Dense(y, n, out)))
	return y
}

func TestBank(t *testing.T) {
	ctx, w := context.Background(), inWorld(t, nil)
	adapters, _ := variants(t, w, 3)
	writer, path := newBank(t, w.model)
	check(t, writer.Append(ctx, pvera.F32, entries(adapters, "a", "b", "c")...))
	reader := must(w.model.OpenBank(ctx, path, nil))(t)
	defer reader.Close()

	// A row has the bits of one with the same adapter, published under the same name.
	for i, name := range []string{"a", "b", "c"} {
		must(w.model.Publish(name, adapters[i]))(t)
	}
	published := must(w.model.Snapshot())(t)
	defer published.Close()
	names := []string{"c", pvera.BaseAlone, "a", "c", "b", "a"}
	wantedSlots := make([]int32, n)
	for i, name := range names {
		wantedSlots[i] = -1
		if name != pvera.BaseAlone {
			wantedSlots[i] = must(published.Slot(name))(t)
		}
	}
	wanted := onRows(t, w, published, wantedSlots)
	for range 2 { // read, then cached
		snapshot, slots, err := reader.Snapshot(ctx, names)
		check(t, err)
		if !slices.Equal(slots, []int32{0, -1, 1, 0, 2, 1}) || must(snapshot.Slot("a"))(t) != 1 {
			t.Errorf("the slots are %v", slots)
		}
		sameBits(t, "y", onRows(t, w, snapshot, slots), wanted)
		check(t, snapshot.Close())
	}
	usage := must(reader.Usage())(t)
	if usage.Adapters != 3 || usage.Cached != 3 || usage.Misses != 3 || usage.Hits != 3 || usage.CachedBytes == 0 {
		t.Errorf("%+v", usage)
	}

	// Replaced, removed, compacted: the reader goes on with what it opened.
	check(t, writer.Append(ctx, pvera.F32, entries(adapters, "c")...))
	check(t, writer.Remove("a", "b"))
	if names := must(writer.Names())(t); !slices.Equal(names, []string{"c"}) {
		t.Errorf("the names are %q", names)
	}
	if must(writer.Contains("a"))(t) || !must(writer.Contains("c"))(t) || !must(reader.Contains("a"))(t) {
		t.Error("'a' is removed in the writer alone")
	}
	before := must(writer.Usage())(t)
	check(t, writer.Compact(ctx))
	after := must(writer.Usage())(t)
	if before.UnusedBytes == 0 || after.UnusedBytes != 0 || after.FileBytes >= before.FileBytes {
		t.Errorf("%+v, then %+v", before, after)
	}
	if damaged := must(writer.Verify(ctx))(t); damaged != 0 {
		t.Errorf("%d are damaged", damaged)
	}
	snapshot, slots, err := reader.Snapshot(ctx, names)
	check(t, err)
	defer snapshot.Close()
	sameBits(t, "y of the old file", onRows(t, w, snapshot, slots), wanted)

	// It looks again: the new file, and the adapter that 'c' is now. What it handed out stays.
	if !must(reader.Refresh(ctx))(t) || must(reader.Refresh(ctx))(t) || must(writer.Refresh(ctx))(t) {
		t.Error("a refresh of the reader finds the compaction once, one of the writer nothing")
	}
	if names := must(reader.Names())(t); !slices.Equal(names, []string{"c"}) {
		t.Errorf("the names are %q", names)
	}
	fresh := must(reader.Adapter(ctx, "c"))(t)
	defer fresh.Close()
	sameParameters(t, fresh, adapters[0])
	sameBits(t, "y of the old file", onRows(t, w, snapshot, slots), wanted)
	check(t, os.Rename(path, path+".away"))
	refused(t, second(reader.Refresh(ctx)), pvera.ErrIO, path)
	check(t, os.Rename(path+".away", path))

	// An adapter outlives its bank.
	adapter := must(writer.Adapter(ctx, "c"))(t)
	defer adapter.Close()
	check(t, writer.Close())
	check(t, writer.Close())
	sameParameters(t, adapter, adapters[0])
}

// sameParameters says that two adapters are saved as the same tensors.
func sameParameters(t *testing.T, found, wanted *pvera.Adapter) {
	t.Helper()
	_, tensors, err := found.SaveMemory()
	check(t, err)
	_, own, err := wanted.SaveMemory()
	check(t, err)
	if !slices.Equal(tensors, own) {
		t.Error("the adapter of the bank has other tensors than the one that was appended")
	}
}

func TestOutlines(t *testing.T) {
	ctx, w := context.Background(), inWorld(t, nil)
	bank, path := newBank(t, w.model)
	check(t, bank.Append(ctx, pvera.F32, pvera.BankEntry{Name: "a", Adapter: w.adapter}))
	stranger := must(pvera.NewModel(nil))(t)
	defer stranger.Close()
	reader := must(stranger.OpenBank(ctx, path, nil))(t)
	defer reader.Close()
	families := must(reader.Families())(t)
	if len(families) != 1 || must(reader.Usage())(t).Families != 1 {
		t.Fatalf("%d families", len(families))
	}
	folder := filepath.Join(t.TempDir(), "checkpoint")
	check(t, w.adapter.Save(ctx, folder))
	checkpoint := must(pvera.CheckpointOutline(folder))(t)
	config := must(w.adapter.Config())(t)
	defer config.Close()
	for _, outline := range []*pvera.Outline{families[0], checkpoint} {
		defer outline.Config.Close()
		if must(outline.Config.Int("r"))(t) != must(config.Int("r"))(t) || outline.Adapters != 1 || outline.Tensors != 0 {
			t.Errorf("%+v", outline)
		}
		if drawn := outline != checkpoint; (outline.Base == pvera.F32) != drawn || outline.Grid != pvera.GridNone {
			t.Errorf("%+v", outline)
		}
		if outline.HoldsProjections != (outline == checkpoint) || outline.InMax != in || outline.OutMax != out {
			t.Errorf("%+v", outline)
		}
		if len(outline.Modules) == 0 || !slices.Equal(outline.Modules, checkpoint.Modules) || outline.Modules[0].OutFeatures != out {
			t.Errorf("%+v", outline.Modules)
		}
	}
	held, base, grid, err := pvera.CheckCheckpoint(ctx, folder, nil)
	check(t, err)
	if !held || base != pvera.F32 || grid != pvera.GridNone {
		t.Errorf("held is %t, base %v, grid %v", held, base, grid)
	}
	refused(t, second(pvera.CheckpointOutline(path)), pvera.ErrIO, path)
	_, _, _, err = pvera.CheckCheckpoint(ctx, path, nil)
	refused(t, err, pvera.ErrIO, path)
}

func TestBankErrors(t *testing.T) {
	ctx, w := context.Background(), inWorld(t, nil)
	adapters, _ := variants(t, w, 2)
	bank, path := newBank(t, w.model)
	open := func(path string, options pvera.BankOptions) error {
		return second(w.model.OpenBank(ctx, path, &options))
	}
	refused(t, open(path+"x", pvera.BankOptions{}), pvera.ErrIO, path+"x")
	refused(t, open(path, pvera.BankOptions{Access: pvera.BankCreate}), pvera.ErrExists, path)
	refused(t, open(path, pvera.BankOptions{Access: pvera.BankWrite}), pvera.ErrState, "being written")
	refused(t, open(path, pvera.BankOptions{Access: 9}), pvera.ErrArgument, "options.access is 9")
	refused(t, open(path, pvera.BankOptions{CacheBytes: -1}), pvera.ErrArgument, "options.CacheBytes is -1")
	refused(t, open("a\x00b", pvera.BankOptions{}), pvera.ErrArgument, "path has a zero byte at 1")
	refused(t, bank.Append(ctx, pvera.F32, entries(adapters, "a", "")...), pvera.ErrArgument, "names[1] has 0 bytes")
	refused(t, bank.Append(ctx, pvera.F32, entries(adapters, "a", "a")...), pvera.ErrArgument, "names[1] is 'a'")
	refused(t, bank.Append(ctx, pvera.F32, entries(adapters, "a", "b\x00")...), pvera.ErrArgument, "names[1] has a zero byte at 1")
	refused(t, bank.Append(ctx, pvera.F32, pvera.BankEntry{Name: "a", Adapter: adapters[0]}, pvera.BankEntry{Name: "b"}),
		pvera.ErrNull, "adapters[1] is nil")
	refused(t, bank.Append(ctx, pvera.DType{Code: 0, Bits: 8}, entries(adapters, "a")...), pvera.ErrDType, "dtype")
	refused(t, bank.Remove("a"), pvera.ErrNotFound, "'a'")
	_, err := bank.Adapter(ctx, "a")
	refused(t, err, pvera.ErrNotFound, "'a'", "it holds 0")
	_, _, err = bank.Snapshot(ctx, []string{pvera.BaseAlone, "a"})
	refused(t, err, pvera.ErrNotFound, "'a'")
	_, _, err = bank.Snapshot(ctx, []string{"a", "\x00"})
	refused(t, err, pvera.ErrArgument, "names[1] has a zero byte at 0")
	if usage := must(bank.Usage())(t); usage.Adapters != 0 {
		t.Errorf("failed calls appended %d adapters", usage.Adapters)
	}
	check(t, bank.Append(ctx, pvera.BF16, entries(adapters, "a", "b")...))
	check(t, bank.Append(ctx, pvera.F32))
	reader := must(w.model.OpenBank(ctx, path, nil))(t)
	defer reader.Close()
	refused(t, reader.Remove("a"), pvera.ErrState, "open for reading")

	var none *pvera.Bank
	refused(t, second(none.Usage()), pvera.ErrNull, "bank is nil")
	check(t, none.Close())
	check(t, (&pvera.Bank{}).Close())
	check(t, bank.Close())
	check(t, bank.Close())
	for _, err := range []error{bank.Append(ctx, pvera.F32, entries(adapters, "a")...), bank.Remove("a"), bank.Compact(ctx),
		second(bank.Verify(ctx)), second(bank.Usage()), second(bank.Contains("a")), second(bank.Names()),
		second(bank.Adapter(ctx, "a"))} {
		refused(t, err, pvera.ErrClosed, "bank", "closed")
	}
	_, _, err = bank.Snapshot(ctx, nil)
	refused(t, err, pvera.ErrClosed, "bank", "closed")
	must(w.model.OpenBank(ctx, path, &pvera.BankOptions{Access: pvera.BankWrite}))(t).Close() // Close gave the lock back
}

// Warnings, progress and cancellation reach the call that they belong to.
func TestBankCallbacks(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	var said, stages []string
	var asked func() bool
	model := must(pvera.NewModel(&pvera.ModelOptions{
		Warning: func(message string) { said = append(said, message) },
		Progress: func(stage string, _, _ uint64) bool {
			stages = append(stages, stage)
			return asked == nil || asked()
		},
	}))(t)
	must(model.Declare(pvera.Layer{Name: "q", InFeatures: in, OutFeatures: out}))(t)
	must(model.Declare(pvera.Layer{Name: "v", InFeatures: in, OutFeatures: vOut}))(t)
	config := newConfig(t)
	defer config.Close()
	adapter := must(model.NewAdapter(ctx, config, nil, nil))(t)
	defer adapter.Close()
	bank, path := newBank(t, model)
	check(t, bank.Append(ctx, pvera.F32, entries([]*pvera.Adapter{adapter, adapter}, "good", "bad")...))
	check(t, bank.Close())

	// One bit of the second adapter's vectors, which lie after the first's.
	file := must(os.ReadFile(path))(t)
	file[4096+4*must(adapter.ParameterCount())(t)] ^= 1
	check(t, os.WriteFile(path, file, 0o600))
	bank = must(model.OpenBank(ctx, path, &pvera.BankOptions{Access: pvera.BankWrite}))(t)
	refused(t, bank.Compact(ctx), pvera.ErrFormat, "'bad'", "option repair")
	check(t, bank.Close())
	bank = must(model.OpenBank(ctx, path, &pvera.BankOptions{Access: pvera.BankWrite, Repair: true}))(t)
	defer bank.Close()
	check(t, model.Close()) // the bank keeps it
	said, stages = nil, nil
	if damaged := must(bank.Verify(ctx))(t); damaged != 1 || len(said) != 1 || !strings.Contains(said[0], "'bad'") {
		t.Errorf("%d are damaged, and the warnings are %q; wanted one that names 'bad'", damaged, said)
	}
	if !slices.Contains(stages, "verify adapters") {
		t.Errorf("the stages are %q", stages)
	}
	_, err := bank.Adapter(ctx, "bad")
	refused(t, err, pvera.ErrFormat, "'bad'", "damaged")

	asked = func() bool { return false }
	refused(t, bank.Compact(ctx), pvera.ErrCancelled)
	asked = func() bool { panic("of the host") }
	func() {
		defer func() {
			if value := recover(); value != "of the host" {
				t.Errorf("recovered %v", value)
			}
		}()
		bank.Verify(ctx)
		t.Error("the panic is lost")
	}()
	asked = func() bool { cancel(); return true }
	check(t, bank.Compact(context.Background()))
	if names := must(bank.Names())(t); !slices.Equal(names, []string{"good"}) {
		t.Errorf("after the compaction there are %q", names)
	}
	for what, err := range map[string]error{
		"append":   bank.Append(ctx, pvera.F32, entries([]*pvera.Adapter{adapter}, "new")...),
		"compact":  bank.Compact(ctx),
		"verify":   second(bank.Verify(ctx)),
		"adapter":  second(bank.Adapter(ctx, "good")),
		"snapshot": func() error { _, _, err := bank.Snapshot(ctx, []string{"good"}); return err }(),
	} {
		if err != context.Canceled {
			t.Errorf("%s, cancelled before it ran: %v; wanted context.Canceled itself", what, err)
		}
	}
}

// Goroutines read, others write and compact; every pass sees the adapter that its name has, old or new.
func TestBankOfManyGoroutines(t *testing.T) {
	ctx, w := context.Background(), inWorld(t, nil)
	adapters, outputs := variants(t, w, 3)
	_, path := newBank(t, w.model)
	bank := must(w.model.OpenBank(ctx, path+"2", &pvera.BankOptions{Access: pvera.BankCreate, CacheBytes: 600}))(t)
	defer bank.Close()
	check(t, bank.Append(ctx, pvera.F32, entries(adapters, "a", "b", "swapped")...))
	var all sync.WaitGroup
	for worker := range goroutines {
		all.Go(func() {
			for range passes {
				names := []string{"a", "swapped", "b"}
				snapshot, slots, err := bank.Snapshot(ctx, names)
				check(t, err)
				linear := must(snapshot.Linear(0))(t)
				for row, slot := range slots {
					y := make([]float32, n*out)
					rows := pvera.Rows{Slot: slices.Repeat([]int32{slot}, n)}
					check(t, w.context.Forward(linear, w.matrix(), &rows, nil, nil, pvera.Dense(y, n, out)))
					found := which(y, outputs)
					if wanted := []int{0, 2, 1}[row]; found != wanted && (names[row] != "swapped" || found != 0) {
						t.Errorf("worker %d: '%s' gives the output of adapter %d", worker, names[row], found)
						return
					}
				}
				check(t, snapshot.Close())
			}
		})
	}
	for writer := range 2 {
		all.Go(func() {
			for turn := range 10 {
				check(t, bank.Append(ctx, pvera.F32, pvera.BankEntry{Name: "swapped", Adapter: adapters[2*(turn%2)]},
					pvera.BankEntry{Name: string(rune('s' + writer)), Adapter: adapters[1]}))
				check(t, bank.Compact(ctx))
			}
		})
	}
	all.Wait()
	if names := must(bank.Names())(t); len(names) != 5 {
		t.Errorf("the names are %q", names)
	}
}

func TestCombine(t *testing.T) {
	w := inWorld(t, nil)
	adapters, outputs := variants(t, w, 2)
	combined, distance, err := pvera.Combine(pvera.Weighted{Adapter: adapters[0], Weight: 0.75},
		pvera.Weighted{Adapter: adapters[0], Weight: 0.25})
	check(t, err)
	defer combined.Close()
	if distance > 1e-6 {
		t.Errorf("an adapter is %g away from itself", distance)
	}
	linear := must(combined.Linear(0))(t)
	defer linear.Close()
	y, mean := make([]float32, n*out), pvera.Noise{Mode: pvera.Mean}
	check(t, w.context.Forward(linear, w.matrix(), nil, &mean, nil, pvera.Dense(y, n, out)))
	judge(t, "a combination of one", y, outputs[0], 1e-6)

	apart, distance, err := pvera.Combine(pvera.Weighted{Adapter: adapters[0], Weight: 1}, pvera.Weighted{Adapter: adapters[1], Weight: 1})
	check(t, err)
	check(t, apart.Close())
	if !(distance > 0.1 && distance < 1) {
		t.Errorf("two adapters that share nothing are %g away from one", distance)
	}
	_, _, err = pvera.Combine()
	refused(t, err, pvera.ErrArgument, "count is 0")
	_, _, err = pvera.Combine(pvera.Weighted{Adapter: adapters[0]}, pvera.Weighted{})
	refused(t, err, pvera.ErrNull, "adapters[1] is nil")
	closed := must(adapters[0].Clone())(t)
	check(t, closed.Close())
	_, _, err = pvera.Combine(pvera.Weighted{Adapter: adapters[0]}, pvera.Weighted{Adapter: closed})
	refused(t, err, pvera.ErrClosed, "adapters[1]", "closed")
	elsewhere := inWorld(t, nil)
	_, _, err = pvera.Combine(pvera.Weighted{Adapter: adapters[0]}, pvera.Weighted{Adapter: elsewhere.adapter})
	refused(t, err, pvera.ErrState, "adapters[1]", "another model")
}

func TestGrid(t *testing.T) {
	options := pvera.StoreOptions{Rank: 64, InMax: 128, OutMax: 128}
	exact := must(pvera.StoreFromKey(context.Background(), 7, options))(t)
	defer exact.Close()
	options.Grid = pvera.GridInt8
	grid := must(pvera.StoreFromKey(context.Background(), 7, options))(t)
	defer grid.Close()
	wide, narrow := must(exact.PackedBytes(pvera.PackForward))(t), must(grid.PackedBytes(pvera.PackForward))(t)
	if narrow == 0 || 4*narrow != wide || must(grid.Equal(exact))(t) {
		t.Errorf("%d bytes on the grid, %d off it", narrow, wide)
	}
	options.BaseDType = pvera.F16
	_, err := pvera.StoreFromKey(context.Background(), 7, options)
	refused(t, err, pvera.ErrArgument, "options.grid", "options.base_dtype is f16")
}
