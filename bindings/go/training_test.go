// Training: gradients against differences, a fit with AdamW in Go's memory, checkpoints, standalone layers, learned biases.

package pvera_test

import (
	"context"
	"math"
	"path/filepath"
	"testing"

	"pvera.invalid/pvera"
)

// loss is Σ y ∘ dy of both layers in the reference arithmetic.
func (w *world) loss(t *testing.T, reference *pvera.Context, noise *pvera.Noise, dy [2]pvera.Matrix) float64 {
	t.Helper()
	sum := 0.0
	for i, linear := range []*pvera.Linear{w.q, w.v} {
		y := like(dy[i])
		check(t, reference.Forward(linear, w.matrix(), nil, noise, nil, y))
		for row := range y.Rows() {
			for col := range y.Cols() {
				sum += float64(y.At(row, col)) * float64(dy[i].At(row, col))
			}
		}
	}
	return sum
}

// The gradients of a group under every policy, against central differences.
func TestGradients(t *testing.T) {
	const step, tolerance = 1.0 / 1024, 3e-4 // y is rounded to f32 before the difference is taken
	w := inWorld(t, nil)
	reference := must(pvera.NewContext(&pvera.ContextOptions{Backend: pvera.Reference}))(t)
	defer reference.Close()
	noise := pvera.Noise{Mode: pvera.Sample, Seed: 5}
	dy := [2]pvera.Matrix{pvera.Dense(fill(make([]float32, n*out), 11), n, out),
		pvera.Dense(fill(make([]float32, n*vOut), 12), n, vOut)}
	differences := func(numbers []float32) []float32 {
		found := make([]float32, len(numbers))
		for i, saved := range numbers {
			up, down := saved+step, saved-step
			numbers[i] = up
			above := w.loss(t, reference, &noise, dy)
			numbers[i] = down
			below := w.loss(t, reference, &noise, dy)
			numbers[i] = saved
			found[i] = float32((above - below) / (float64(up) - float64(down)))
		}
		return found
	}
	wanted, wantedDX := differences(w.parameters), differences(w.x)
	for policy := pvera.KeepLatent; policy <= pvera.Recompute; policy++ {
		tape := must(pvera.NewTape(policy, pvera.Allocator{}))(t)
		defer tape.Close()
		found, dx := make([]float32, len(w.parameters)), make([]float32, n*in)
		gradients := make([]pvera.Gradients, 2)
		for layer := range gradients {
			at := must(w.adapter.Range(layer))(t)
			gradients[layer] = pvera.Gradients{Overwrite: pvera.OverwriteAll, Slots: []pvera.SlotGradients{
				{LambdaB: at.LambdaB.Of(found), LambdaD: at.LambdaD.Of(found)}}}
		}
		y := []pvera.Matrix{like(dy[0]), like(dy[1])}
		check(t, w.context.ForwardGroup([]*pvera.Linear{w.q, w.v}, w.matrix(), nil, &noise, tape, y))
		check(t, w.context.BackwardGroup(tape, dy[:], gradients, pvera.Dense(dx, n, in)))
		judge(t, "parameters", found, wanted, tolerance)
		judge(t, "dx", dx, wantedDX, tolerance)
		if held := must(tape.Bytes())(t); (held == 0) != (policy == pvera.Recompute) {
			t.Errorf("policy %d holds %d bytes", policy, held)
		}
		gradients[0].Overwrite, gradients[1].Overwrite = 0, 0
		check(t, w.context.BackwardGroup(tape, dy[:], gradients, pvera.Matrix{}))
		for i := range found {
			found[i] /= 2
		}
		judge(t, "added twice", found, wanted, tolerance)
	}
}

// First-order variance of f = Σ dy·y is (g σ)² summed over latents: what the exact moments say of one output.
func TestFirstOrderVariance(t *testing.T) {
	w := inWorld(t, nil)
	tape := must(pvera.NewTape(pvera.KeepLatent, pvera.Allocator{}))(t)
	defer tape.Close()
	mean, variance := make([]float32, n*out), make([]float32, n*out)
	check(t, w.context.Moments(w.q, w.matrix(), nil, pvera.Dense(mean, n, out), pvera.Dense(variance, n, out)))
	y, dy := make([]float32, n*out), make([]float32, n*out)
	for row := range n {
		dy[row*out+2] = 1 // f is output 2
	}
	check(t, w.context.Forward(w.q, w.matrix(), nil, &pvera.Noise{Mode: pvera.Mean}, tape, pvera.Dense(y, n, out)))
	found := make([]float64, n)
	backwards := []uint32{5, 4, 3, 2, 1, 0}
	wanted := pvera.Gradients{Variance: found, VarianceIndex: backwards}
	check(t, w.context.Backward(tape, pvera.Dense(dy, n, out), &wanted, pvera.Matrix{}))
	for row := range n {
		if wanted := float64(variance[row*out+2]); math.Abs(found[n-1-row]-wanted) > 1e-5*wanted {
			t.Errorf("row %d: first order %v, exact %v", row, found[n-1-row], wanted)
		}
	}
}

// A least-squares fit: the loss falls, and what was published before does not move.
func TestFit(t *testing.T) {
	w := inWorld(t, nil)
	snapshot := must(w.model.Snapshot())(t)
	defer snapshot.Close()
	published := must(snapshot.Linear(0))(t)
	before, after := make([]float32, n*out), make([]float32, n*out)
	check(t, w.context.Forward(published, w.matrix(), nil, nil, nil, pvera.Dense(before, n, out)))
	tape := must(pvera.NewTape(pvera.KeepDelta, pvera.Allocator{}))(t)
	defer tape.Close()
	y, dy, target := make([]float32, n*out), make([]float32, n*out), fill(make([]float32, n*out), 21)
	gradients := make([]float32, len(w.parameters))
	first, second := make([]float32, len(w.parameters)), make([]float32, len(w.parameters))
	at := must(w.adapter.Range(0))(t)
	var kl, start, end float64
	wanted := pvera.Gradients{Overwrite: pvera.OverwriteAll, KLWeight: 1e-6, KLValue: &kl,
		Slots: []pvera.SlotGradients{{LambdaB: at.LambdaB.Of(gradients), LambdaD: at.LambdaD.Of(gradients)}}}
	optimiser := pvera.DefaultAdamW()
	if optimiser != (pvera.AdamW{LearningRate: 1e-3, Beta1: 0.9, Beta2: 0.999, Epsilon: 1e-8, WeightDecay: 1e-2}) {
		t.Errorf("the defaults are %+v", optimiser)
	}
	optimiser.LearningRate = 0.02
	for epoch := uint64(1); epoch <= 300; epoch++ {
		check(t, w.context.Forward(w.q, w.matrix(), nil, &pvera.Noise{Mode: pvera.Mean}, tape, pvera.Dense(y, n, out)))
		end = 0
		for i := range y {
			dy[i] = y[i] - target[i]
			end += float64(dy[i]) * float64(dy[i]) / 2
		}
		if epoch == 1 {
			start = end
		}
		check(t, w.context.Backward(tape, pvera.Dense(dy, n, out), &wanted, pvera.Matrix{}))
		check(t, optimiser.Step(epoch, w.parameters, gradients, first, second))
	}
	if !(end < 0.7*start) || kl <= 0 {
		t.Errorf("the loss went from %v to %v, the divergence is %v", start, end, kl)
	}
	check(t, w.context.Forward(published, w.matrix(), nil, nil, nil, pvera.Dense(after, n, out)))
	sameBits(t, "a published adapter under training", after, before)
}

// Saved and loaded again, in a folder and in memory: the same parameters, outputs, config and carried tensors.
func TestRoundTrip(t *testing.T) {
	ctx, w, folder := context.Background(), inWorld(t, nil), filepath.Join(t.TempDir(), "adapter")
	head := pvera.Tensor{Name: "base_model.model.classifier.weight", DType: pvera.F32, Shape: []int{3, 2}, Data: make([]byte, 24)}
	head.Data[5] = 77
	carrying := must(w.adapter.Trainable(nil))(t)
	defer carrying.Close()
	check(t, carrying.SetTensor(head))
	check(t, carrying.Save(ctx, folder))
	config, tensors, err := carrying.SaveMemory()
	check(t, err)
	wanted := make([]float32, n*out)
	check(t, w.context.Forward(w.q, w.matrix(), nil, nil, nil, pvera.Dense(wanted, n, out)))
	for _, loaded := range []*pvera.Adapter{
		must(w.model.LoadAdapter(ctx, folder, &pvera.AdapterOptions{MapFile: true}))(t),
		must(w.model.LoadAdapterMemory(ctx, config, tensors, nil))(t),
	} {
		defer loaded.Close()
		refused(t, loaded.Parameters(func([]float32) error { return nil }), pvera.ErrState)
		copied := must(loaded.Trainable(nil))(t)
		defer copied.Close()
		check(t, copied.Parameters(func(parameters []float32) error {
			sameBits(t, "parameters", parameters, w.parameters)
			return copied.SetTensor(head) // anything of the adapter may be called here
		}))
		store := must(loaded.Store())(t)
		defer store.Close()
		if !must(store.Equal(w.store))(t) {
			t.Error("the stores differ")
		}
		tensor := must(loaded.Tensor(0))(t)
		if must(loaded.TensorCount())(t) != 1 || tensor.Name != head.Name || string(tensor.Data) != string(head.Data) ||
			len(tensor.Shape) != 2 || tensor.Shape[0] != 3 || tensor.DType != pvera.F32 {
			t.Errorf("the carried tensor is %+v", tensor)
		}
		own := must(loaded.Config())(t)
		defer own.Close()
		if r := must(own.Int("r"))(t); r != rank {
			t.Errorf("r is %d", r)
		}
		if !must(loaded.Adapts(1))(t) {
			t.Error("v is not adapted")
		}
		linear, y := must(loaded.Linear(0))(t), make([]float32, n*out)
		defer linear.Close()
		check(t, w.context.Forward(linear, w.matrix(), nil, nil, nil, pvera.Dense(y, n, out)))
		sameBits(t, "y", y, wanted)
	}
}

// The same store from a key, a file, memory and matrices.
func TestStores(t *testing.T) {
	w, folder := inWorld(t, nil), t.TempDir()
	check(t, w.adapter.Save(context.Background(), folder))
	_, tensors, err := w.adapter.SaveMemory()
	check(t, err)
	var matrices *pvera.Store
	check(t, w.store.Matrices(func(a, b pvera.Matrix) error {
		if a.Rows() != 2*rank || a.Cols() != in || b.Rows() != out || b.Cols() != rank {
			t.Errorf("A is %d×%d, B is %d×%d", a.Rows(), a.Cols(), b.Rows(), b.Cols())
		}
		matrices = must(pvera.StoreFromMatrices(pvera.Dense(widened(a), 2*rank, in), b, pvera.Allocator{}))(t)
		return nil
	}))
	stores := []*pvera.Store{
		matrices,
		must(pvera.StoreFromKey(context.Background(), 77, pvera.StoreOptions{Rank: rank, InMax: in, OutMax: out}))(t),
		must(pvera.StoreFromFile(filepath.Join(folder, "adapter_model.safetensors"), true, pvera.Allocator{}))(t),
		must(pvera.StoreFromMemory(tensors, pvera.Allocator{}))(t),
		must(w.store.Clone())(t),
	}
	for i, store := range stores {
		if !must(store.Equal(w.store))(t) {
			t.Errorf("store %d differs", i)
		}
		check(t, store.Close())
	}
	other := must(pvera.StoreFromKey(context.Background(), 78, pvera.StoreOptions{Rank: rank, InMax: in, OutMax: out}))(t)
	defer other.Close()
	if must(other.Equal(w.store))(t) {
		t.Error("stores of two keys are equal")
	}
	_, err = pvera.StoreFromKey(context.Background(), 1, pvera.StoreOptions{Rank: -1, InMax: in, OutMax: out})
	refused(t, err, pvera.ErrArgument, "options.Rank is -1")
}

// A standalone layer reads its vectors where they lie, at every call, and keeps them from the collector.
func TestStandalone(t *testing.T) {
	w := inWorld(t, nil)
	at := must(w.adapter.Range(0))(t)
	y := [2][]float32{make([]float32, n*out), make([]float32, n*out)}
	lambdaB := append([]float32(nil), at.LambdaB.Of(w.parameters)...)
	linear := standalone(t, w, lambdaB, append([]float32(nil), at.LambdaD.Of(w.parameters)...), nil)
	defer linear.Close()
	overwriteFreed()
	check(t, w.context.Forward(w.q, w.matrix(), nil, nil, nil, pvera.Dense(y[0], n, out)))
	check(t, w.context.Forward(linear, w.matrix(), nil, nil, nil, pvera.Dense(y[1], n, out)))
	sameBits(t, "a standalone layer", y[1], y[0])
	lambdaB[0]++
	check(t, w.context.Forward(linear, w.matrix(), nil, nil, nil, pvera.Dense(y[1], n, out)))
	if y[1][0] == y[0][0] || y[1][1] != y[0][1] {
		t.Error("only output 0 should have changed")
	}
}

func standalone(t *testing.T, w *world, lambdaB, lambdaD, bias []float32) *pvera.Linear {
	weight := append([]float32(nil), w.weight...)
	layer := pvera.Layer{Name: "q", InFeatures: in, OutFeatures: out, Weight: pvera.Dense(weight, out, in),
		Bias: pvera.Dense(fill(make([]float32, out), 2), 1, out)}
	return must(pvera.NewLinear(layer, w.store, w.config, pvera.LinearVectors{LambdaB: lambdaB, LambdaD: lambdaD, Bias: bias}))(t)
}

// A learned bias takes the place of the layer's, and its gradient is the sum of dy.
func TestLearnedBias(t *testing.T) {
	w := inWorld(t, nil)
	bias := fill(make([]float32, out), 50)
	linear := standalone(t, w, make([]float32, out), make([]float32, 2*rank), bias)
	defer linear.Close()
	tape := must(pvera.NewTape(pvera.KeepLatent, pvera.Allocator{}))(t)
	defer tape.Close()
	y, dy, found := make([]float32, n*out), fill(make([]float32, n*out), 8), make([]float32, out)
	check(t, w.context.Forward(linear, w.matrix(), nil, nil, tape, pvera.Dense(y, n, out)))
	slot := pvera.SlotGradients{Bias: found}
	check(t, w.context.Backward(tape, pvera.Dense(dy, n, out), &pvera.Gradients{Overwrite: pvera.OverwriteAll,
		Slots: []pvera.SlotGradients{slot}}, pvera.Matrix{}))
	wantedY, wanted := make([]float32, n*out), make([]float32, out)
	for i := range n {
		for j := range out {
			sum := float64(bias[j])
			for k := range in {
				sum += float64(w.x[i*in+k]) * float64(w.weight[j*in+k])
			}
			wantedY[i*out+j] = float32(sum)
			wanted[j] += dy[i*out+j]
		}
	}
	judge(t, "y", y, wantedY, 1e-6)
	judge(t, "dbias", found, wanted, 1e-5)
}

// The tape keeps what it borrows: x under Recompute, eps and mask, though the host forgets them.
func TestTapeKeepsWhatItBorrows(t *testing.T) {
	w := inWorld(t, nil)
	tape := must(pvera.NewTape(pvera.Recompute, pvera.Allocator{}))(t)
	defer tape.Close()
	y, dy := make([]float32, n*out), fill(make([]float32, n*out), 8)
	dx := [2][]float32{make([]float32, n*in), make([]float32, n*in)}
	for turn := range dx {
		func() {
			x := pvera.Dense(append([]float32(nil), w.x...), n, in)
			noise := pvera.Noise{Eps: pvera.Dense(fill(make([]float32, n*rank), 6), n, rank),
				DropoutMask: pvera.Dense(fill(make([]float32, n*in), 7), n, in)}
			check(t, w.context.Forward(w.q, x, nil, &noise, tape, pvera.Dense(y, n, out)))
		}()
		if turn == 1 {
			overwriteFreed()
		}
		// A forward that is refused leaves the tape as it was.
		refused(t, w.context.Forward(w.q, pvera.Dense(w.x, n, in-1), nil, nil, tape, pvera.Dense(y, n, out)), pvera.ErrShape)
		check(t, w.context.Backward(tape, pvera.Dense(dy, n, out), nil, pvera.Dense(dx[turn], n, in)))
	}
	sameBits(t, "dx after a collection", dx[1], dx[0])
}

// overwriteFreed puts other numbers where matrices lay that nobody keeps any more.
func overwriteFreed() {
	collect()
	for range 10000 {
		for _, size := range []int{n * in, n * rank, out * in, out, 2 * rank} {
			spoiled = fill(make([]float32, size), 99)
		}
	}
}

var spoiled []float32 // so that the compiler does not keep it on the stack
