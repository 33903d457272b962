// Computing: what must be equal is equal, bit for bit, and what PEFT does not have is right.

package pvera_test

import (
	"context"
	"math"
	"testing"
	"time"

	"pvera.invalid/pvera"
)

// sampled is y of one sample number, one row after the other.
func sampled(t *testing.T, w *world, sample uint32, noise pvera.Noise) []float32 {
	t.Helper()
	y := make([]float32, n*out)
	for i := range n {
		rows := pvera.Rows{IdentityBase: uint64(40 + i), SampleBase: sample}
		check(t, w.context.Forward(w.q, pvera.Dense(w.x[i*in:], 1, in), &rows, &noise, nil, pvera.Dense(y[i*out:], 1, out)))
	}
	return y
}

// Draws in one call, in parts between two looks at a context, and one by one are the same.
func TestSample(t *testing.T) {
	const draws = 77 // not a multiple of what is drawn at a time
	w := inWorld(t, nil)
	noise := pvera.Noise{Mode: pvera.Sample, Seed: 9, Antithetic: true}
	cancellable, cancel := context.WithCancel(context.Background())
	defer cancel()
	for name, rows := range map[string]pvera.Rows{
		"base":  {IdentityBase: 40, SampleBase: 6},
		"array": {IdentityBase: 40, Sample: []uint32{6, 6, 6, 6, 6, 6}},
	} {
		for _, ctx := range []context.Context{context.Background(), cancellable} {
			y := make([]float32, draws*n*out)
			check(t, w.context.Sample(ctx, w.q, w.matrix(), &rows, &noise, draws, pvera.Dense(y, draws*n, out)))
			for _, draw := range []int{0, 1, 31, 32, 76} {
				sameBits(t, name, y[draw*n*out:(draw+1)*n*out], sampled(t, w, uint32(6+draw), noise))
			}
		}
		if name == "array" && rows.Sample[0] != 6 {
			t.Error("the caller's sample numbers were changed")
		}
	}
}

// The caller's eps is parted with the draws.
func TestSampleWithEps(t *testing.T) {
	const draws = 70
	w := inWorld(t, nil)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	y := [2][]float32{make([]float32, draws*n*out), make([]float32, draws*n*out)}
	noise := pvera.Noise{Mode: pvera.Sample, Eps: pvera.Strided(fill(make([]float32, draws*n*(rank+1)), 5), draws*n, rank, rank+1)}
	check(t, w.context.Sample(context.Background(), w.q, w.matrix(), nil, &noise, draws, pvera.Dense(y[0], draws*n, out)))
	check(t, w.context.Sample(ctx, w.q, w.matrix(), nil, &noise, draws, pvera.Dense(y[1], draws*n, out)))
	sameBits(t, "draws with eps", y[1], y[0])
}

// endsAfter is a context that is cancelled after some looks at it.
type endsAfter struct {
	context.Context
	looks int
}

func (e *endsAfter) Done() <-chan struct{} { return make(chan struct{}) }

func (e *endsAfter) Err() error {
	if e.looks--; e.looks < 0 {
		return context.Canceled
	}
	return nil
}

func TestSampleCancelled(t *testing.T) {
	const draws = 1 << 17
	w := inWorld(t, nil)
	y := pvera.Dense(make([]float32, draws*n*out), draws*n, out)
	ctx, cancel := context.WithCancel(context.Background())
	time.AfterFunc(time.Millisecond, cancel)
	if err := w.context.Sample(ctx, w.q, w.matrix(), nil, &pvera.Noise{Mode: pvera.Sample}, draws, y); err != context.Canceled {
		t.Errorf("got %v; wanted context.Canceled itself", err)
	}
	if y.At(draws*n-1, 0) != 0 {
		t.Error("every draw was made")
	}
	// A CPU that is named is the CPU: here each look asks the context, which ends at the second.
	counted := &endsAfter{Context: context.Background(), looks: 2}
	onCPU := pvera.Rows{Device: pvera.Device{Type: pvera.DeviceCPU}}
	err := w.context.Sample(counted, w.q, w.matrix(), &onCPU, &pvera.Noise{Mode: pvera.Sample}, draws, y)
	if err != context.Canceled {
		t.Errorf("rows on a CPU that is named: %v; wanted context.Canceled itself", err)
	}
	// What is wrong is refused before anything is written, cancellable or not.
	ctx, cancel = context.WithCancel(context.Background())
	defer cancel()
	small := make([]float32, 100*n*out)
	last := pvera.Rows{SampleBase: math.MaxUint32 - 50}
	refused(t, w.context.Sample(ctx, w.q, w.matrix(), &last, nil, 100, pvera.Dense(small, 100*n, out)), pvera.ErrArgument)
	refused(t, w.context.Sample(ctx, w.q, w.matrix(), nil, nil, 99, pvera.Dense(small, 100*n, out)), pvera.ErrShape)
	sameBits(t, "y of a refused call", small, make([]float32, len(small)))
}

// A group, its layers one by one, and both halves of a forward in parts; with fused outputs.
func TestGroupAndHalves(t *testing.T) {
	w := inWorld(t, nil)
	noise := pvera.Noise{Mode: pvera.Sample, Seed: 3}
	fused, apart := make([]float32, n*(out+vOut)), [2][]float32{make([]float32, n*out), make([]float32, n*vOut)}
	views := []pvera.Matrix{pvera.Strided(fused, n, out, out+vOut), pvera.Strided(fused[out:], n, vOut, out+vOut)}
	linears := []*pvera.Linear{w.q, w.v}
	check(t, w.context.ForwardGroup(linears, w.matrix(), nil, &noise, nil, views))
	for i, linear := range linears {
		check(t, w.context.Forward(linear, w.matrix(), nil, &noise, nil, pvera.Dense(apart[i], n, views[i].Cols())))
		sameBits(t, "a layer of a group", widened(views[i]), apart[i])
	}
	width, latents, err := w.v.ProjectWidth(nil, n)
	check(t, err)
	if width != 2*rank || latents != rank {
		t.Fatalf("p has %d columns and eps %d", width, latents)
	}
	p, whole := pvera.Dense(make([]float32, n*width), n, width), pvera.Dense(make([]float32, n*width), n, width)
	y, parts := make([]float32, n*vOut), make([]float32, n*vOut)
	check(t, w.context.Project(w.v, w.matrix(), nil, &noise, whole))
	check(t, w.context.Expand(w.v, whole, nil, &noise, pvera.Dense(y, n, vOut)))
	for index := range 3 {
		check(t, w.context.ProjectPart(w.v, w.matrix(), nil, &noise, p, pvera.Part{Index: index, Count: 3}))
	}
	for index := range 3 {
		check(t, w.context.ExpandPart(w.v, p, nil, &noise, pvera.Dense(parts, n, vOut), pvera.Part{Index: index, Count: 3}))
	}
	sameBits(t, "p in parts", widened(p), widened(whole))
	sameBits(t, "project and expand", y, apart[1])
	sameBits(t, "parts of project and expand", parts, apart[1])
	bytes := must(w.context.ScratchBytesFor(linears, n, nil, 1, true))(t)
	if held := must(w.context.ScratchBytes())(t); held == 0 || held > bytes {
		t.Errorf("the context holds %d bytes of scratch; foretold %d", held, bytes)
	}
}

// Exact moments against many draws.
func TestMoments(t *testing.T) {
	const draws = 20000
	w := inWorld(t, nil)
	mean, variance := make([]float32, out), make([]float32, out)
	x, y := pvera.Dense(w.x, 1, in), make([]float32, draws*out)
	check(t, w.context.Moments(w.q, x, nil, pvera.Dense(mean, 1, out), pvera.Dense(variance, 1, out)))
	noise := pvera.Noise{Mode: pvera.Sample}
	check(t, w.context.Sample(context.Background(), w.q, x, nil, &noise, draws, pvera.Dense(y, draws, out)))
	for j := range out {
		var sum, squares float64
		for draw := range draws {
			value := float64(y[draw*out+j])
			sum, squares = sum+value, squares+value*value
		}
		found := sum / draws
		spread := squares/draws - found*found
		if off := math.Abs(found - float64(mean[j])); off > 5*math.Sqrt(float64(variance[j])/draws)+1e-6 {
			t.Errorf("output %d: mean of draws %v, of moments %v", j, found, mean[j])
		}
		if ratio := spread / float64(variance[j]); math.Abs(ratio-1) > 0.1 {
			t.Errorf("output %d: variance of draws %v, of moments %v", j, spread, variance[j])
		}
	}
}

// bf16 in and out: computed in f32 from the widened numbers and rounded once.
func TestNarrowTypes(t *testing.T) {
	w := inWorld(t, nil)
	narrow, wide := make([]pvera.BFloat16, n*in), make([]float32, n*in)
	half := make([]pvera.Float16, n*out)
	for i, value := range w.x {
		narrow[i] = pvera.BFloat16From(value)
		wide[i] = narrow[i].Float32()
	}
	y := make([]float32, n*out)
	check(t, w.context.Forward(w.q, pvera.Dense(wide, n, in), nil, nil, nil, pvera.Dense(y, n, out)))
	check(t, w.context.Forward(w.q, pvera.Dense(narrow, n, in), nil, nil, nil, pvera.Dense(half, n, out)))
	for i := range y {
		if half[i] != pvera.Float16From(y[i]) {
			t.Fatalf("y[%d] is %v as a half; wanted %v rounded", i, half[i].Float32(), y[i])
		}
	}
}

// Keyed noise is what a sampled forward draws: given as eps it gives the same bits.
func TestKeyedNormals(t *testing.T) {
	w := inWorld(t, nil)
	snapshot := must(w.model.Snapshot())(t)
	defer snapshot.Close()
	linear := must(snapshot.Linear(0))(t)
	key := pvera.NoiseKey{Seed: 8, Layer: "q", Adapter: must(pvera.AdapterIdentity("one"))(t), Identity: 40, Sample: 3}
	eps, y := make([]float32, rank), [2][]float32{make([]float32, out), make([]float32, out)}
	check(t, pvera.KeyedNormals(key, eps))
	x, seed := pvera.Dense(w.x, 1, in), uint64(8)
	given := pvera.Noise{Mode: pvera.Sample, Eps: pvera.Dense(eps, 1, rank)}
	check(t, w.context.Forward(linear, x, nil, &given, nil, pvera.Dense(y[0], 1, out)))
	rows, noise := pvera.Rows{Identity: []uint64{40}, Sample: []uint32{3}}, pvera.Noise{Mode: pvera.Sample, SeedAt: &seed}
	check(t, w.context.Forward(linear, x, &rows, &noise, nil, pvera.Dense(y[1], 1, out)))
	sameBits(t, "keyed noise", y[1], y[0])
}

// Packing changes no bit, and every set of CPU features gives the same ones.
func TestPackingAndFeatures(t *testing.T) {
	w := inWorld(t, nil)
	y := [2][]float32{make([]float32, n*out), make([]float32, n*out)}
	check(t, w.context.Forward(w.q, w.matrix(), nil, nil, nil, pvera.Dense(y[0], n, out)))
	ctx, both := context.Background(), pvera.PackForward|pvera.PackBackward
	before := must(w.store.Bytes())(t)
	check(t, w.q.PackBase(ctx, both))
	check(t, w.store.Pack(ctx, both))
	after, packed, base := must(w.store.Bytes())(t), must(w.store.PackedBytes(both))(t), must(w.q.PackedBaseBytes(both))(t)
	if after <= before || packed == 0 || base == 0 {
		t.Errorf("the store takes %d bytes before and %d after packing", before, after)
	}
	refused(t, w.store.Pack(ctx, 1<<10), pvera.ErrArgument)
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	for _, err := range []error{w.store.Pack(cancelled, both), w.q.PackBase(cancelled, both),
		w.adapter.Save(cancelled, t.TempDir())} {
		if err != context.Canceled {
			t.Errorf("got %v; wanted context.Canceled itself", err)
		}
	}
	features := must(pvera.MachineCPUFeatures())(t)
	masked := must(pvera.NewContext(&pvera.ContextOptions{CPUFeaturesOff: features}))(t)
	defer masked.Close()
	if used := must(masked.CPUFeatures())(t); used != 0 || must(w.context.CPUFeatures())(t) != features {
		t.Errorf("features %b are used without %b", used, features)
	}
	check(t, masked.Forward(w.q, w.matrix(), nil, nil, nil, pvera.Dense(y[1], n, out)))
	check(t, masked.Check())
	sameBits(t, "packed, on portable kernels", y[1], y[0])
}
