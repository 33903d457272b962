// Every folder of tests/golden: what PEFT and PyTorch computed.

package pvera_test

import (
	"context"
	"fmt"
	"math"
	"path/filepath"
	"testing"

	"pvera.invalid/pvera"
)

type goldenCase struct {
	name      string
	modules   []string
	tolerance float64
	layout    pvera.WeightLayout
}

var goldenCases = []goldenCase{
	{"all_bf16", []string{"q_proj"}, 1e-2, pvera.OutIn},
	{"all_f16", []string{"q_proj"}, 2e-3, pvera.OutIn},
	{"base_bf16", []string{"q_proj"}, 1e-2, pvera.OutIn},
	{"base_f16", []string{"q_proj"}, 2e-3, pvera.OutIn},
	{"bias_all", []string{"q_proj"}, 1e-6, pvera.OutIn},
	{"bias_and_head", []string{"q_proj"}, 1e-6, pvera.OutIn},
	{"conv1d", []string{"c_attn"}, 1e-6, pvera.InOut},
	{"dinov2_base_layer", []string{"query", "value"}, 1e-6, pvera.OutIn},
	{"dropout_step", []string{"q_proj"}, 1e-6, pvera.OutIn},
	{"mixed_shapes", []string{"up", "down", "head"}, 1e-6, pvera.OutIn},
	{"sample_at_inference", []string{"tiny", "wide"}, 1e-6, pvera.OutIn},
	{"seed_only", []string{"q_proj", "v_proj"}, 1e-6, pvera.OutIn},
	{"train_step", []string{"q_proj", "v_proj"}, 1e-6, pvera.OutIn},
}

const gradientTolerance = 1e-5

// opened is one case, loaded on one kind of arithmetic.
type opened struct {
	goldenCase
	io, base archive
	context  *pvera.Context
	model    *pvera.Model
	adapter  *pvera.Adapter
	judged   int
}

func (o *opened) get(t *testing.T, module, name string) pvera.Matrix {
	return o.io.tensor(t, module+"/"+name)
}

// given says whether the case has a number, and counts it.
func (o *opened) given(m pvera.Matrix) bool {
	if m.Rows() == 0 {
		return false
	}
	o.judged++
	return true
}

func openCase(t *testing.T, is goldenCase, work *pvera.Context) *opened {
	o := &opened{goldenCase: is, context: work}
	o.io, o.base = open(t, golden, is.name, "io.safetensors"), open(t, golden, is.name, "base.safetensors")
	o.model = must(pvera.NewModel(nil))(t)
	t.Cleanup(func() { o.model.Close() })
	for _, module := range is.modules {
		bias, base := o.base.tensor(t, module+".bias"), o.get(t, module, "base")
		must(o.model.Declare(pvera.Layer{Name: module, InFeatures: o.get(t, module, "x").Cols(),
			OutFeatures: max(base.Cols(), bias.Cols()), Weight: o.base.tensor(t, module+".weight"), WeightLayout: is.layout,
			Bias: bias}))(t)
	}
	o.adapter = must(o.model.LoadAdapter(context.Background(), filepath.Join(golden, is.name), nil))(t)
	t.Cleanup(func() { o.adapter.Close() })
	return o
}

func TestGolden(t *testing.T) {
	for _, backend := range []pvera.Backend{pvera.CPU, pvera.Reference} {
		work := must(pvera.NewContext(&pvera.ContextOptions{Backend: backend}))(t)
		defer work.Close()
		for _, is := range goldenCases {
			t.Run(fmt.Sprintf("%s/%d", is.name, backend), func(t *testing.T) {
				o := openCase(t, is, work)
				for number, module := range is.modules {
					o.module(t, number, module)
				}
				if o.judged < 2*len(is.modules) {
					t.Errorf("only %d results were judged", o.judged)
				}
			})
		}
	}
}

func (o *opened) module(t *testing.T, number int, module string) {
	linear := must(o.adapter.Linear(number))(t)
	defer linear.Close()
	o.latent(t, linear, module)
	o.output(t, linear, module, "y_mean", pvera.Mean)
	o.output(t, linear, module, "y_sample", pvera.AsPEFT)
	o.merge(t, linear, module)
	o.noise(t, module)
	for policy := pvera.KeepLatent; policy <= pvera.Recompute; policy++ {
		o.training(t, linear, module, policy)
	}
}

func (o *opened) latent(t *testing.T, linear *pvera.Linear, module string) {
	wanted, wantedLogvar := o.get(t, module, "mu"), o.get(t, module, "logvar")
	if !o.given(wanted) {
		return
	}
	mu, logvar := like(wanted), like(wanted)
	check(t, o.context.Latent(linear, o.get(t, module, "x"), nil, mu, logvar))
	judge(t, "mu", widened(mu), widened(wanted), o.tolerance)
	if o.given(wantedLogvar) {
		judge(t, "logvar", widened(logvar), widened(wantedLogvar), o.tolerance)
	}
}

// output judges y of one mode. A layer without a weight is given the base layer's output to add to.
func (o *opened) output(t *testing.T, linear *pvera.Linear, module, name string, mode pvera.Mode) {
	wanted := o.get(t, module, name)
	if !o.given(wanted) {
		return
	}
	noise := pvera.Noise{Mode: mode}
	if mode != pvera.Mean {
		noise.Eps = o.get(t, module, "eps")
	}
	y := like(wanted)
	if o.base.tensor(t, module+".weight").Rows() == 0 {
		y = o.get(t, module, "base")
	}
	check(t, o.context.Forward(linear, o.get(t, module, "x"), nil, &noise, nil, y))
	judge(t, name, widened(y), widened(wanted), o.tolerance)
}

// merge judges what a merge adds to a weight of zeros, and that undoing it leaves zeros.
func (o *opened) merge(t *testing.T, linear *pvera.Linear, module string) {
	wanted := o.get(t, module, "delta_weight")
	if !o.given(wanted) {
		return
	}
	weight := like(wanted)
	undo := must(o.context.MergeWithUndo(linear, nil, 0, o.layout, weight, weight))(t)
	defer undo.Close()
	judge(t, "delta_weight", widened(weight), widened(wanted), o.tolerance)
	check(t, undo.Unmerge(weight))
	sameBits(t, "unmerged", widened(weight), make([]float32, wanted.Rows()*wanted.Cols()))
	refused(t, undo.Unmerge(weight), pvera.ErrState)
}

// noise judges that the caller's noise is what the config's generator_seed draws.
func (o *opened) noise(t *testing.T, module string) {
	eps := o.get(t, module, "eps")
	if !o.given(eps) {
		return
	}
	config := must(o.adapter.Config())(t)
	defer config.Close()
	generator := must(pvera.NewTorchGenerator(uint64(must(config.Int("generator_seed"))(t))))(t)
	defer generator.Close()
	values := make([]float32, eps.Rows()*eps.Cols())
	check(t, generator.Normals(values))
	judge(t, "eps", values, widened(eps), 1e-6)
}

// training judges a step under one tape policy: y, the gradients of dy, and the KL term with its own.
func (o *opened) training(t *testing.T, linear *pvera.Linear, module string, policy pvera.TapePolicy) {
	dy := o.get(t, module, "dy")
	if !o.given(dy) {
		return
	}
	tape := must(pvera.NewTape(policy, pvera.Allocator{}))(t)
	defer tape.Close()
	x, wanted, eps := o.get(t, module, "x"), o.get(t, module, "y_train"), o.get(t, module, "eps")
	y, dx := like(wanted), like(x)
	noise := pvera.Noise{Eps: eps, DropoutMask: o.get(t, module, "mask")}
	slot := pvera.SlotGradients{LambdaB: make([]float32, y.Cols()), LambdaD: make([]float32, 2*eps.Cols())}
	gradients := pvera.Gradients{Overwrite: pvera.OverwriteAll, Slots: []pvera.SlotGradients{slot}}
	check(t, o.context.Forward(linear, x, nil, &noise, tape, y))
	judge(t, "y_train", widened(y), widened(wanted), 1e-6)
	check(t, o.context.Backward(tape, dy, &gradients, dx))
	judge(t, "dx", widened(dx), widened(o.get(t, module, "dx")), gradientTolerance)
	judge(t, "dlambda_b", slot.LambdaB, widened(o.get(t, module, "dlambda_b")), gradientTolerance)
	judge(t, "dlambda_d", slot.LambdaD, widened(o.get(t, module, "dlambda_d")), gradientTolerance)
	if kl := o.get(t, module, "kl_mean"); o.given(kl) {
		var value float64
		gradients.KLWeight, gradients.KLValue = 1, &value
		check(t, o.context.Backward(tape, like(dy), &gradients, dx))
		if wanted := float64(kl.At(0, 0)); math.Abs(value-wanted) > gradientTolerance*math.Abs(wanted) {
			t.Errorf("the divergence is %v; wanted %v", value, wanted)
		}
		judge(t, "kl_dx", widened(dx), widened(o.get(t, module, "kl_dx")), gradientTolerance)
		judge(t, "kl_dlambda_d", slot.LambdaD, widened(o.get(t, module, "kl_dlambda_d")), gradientTolerance)
	}
}

// Two adapters on one store: each alone, both, none, and another for each row.
func TestGoldenTwoAdapters(t *testing.T) {
	files, base := open(t, golden, "two_adapters/io.safetensors"), open(t, golden, "two_adapters/base.safetensors")
	get := func(name string) pvera.Matrix { return files.tensor(t, "q_proj/"+name) }
	x, outputs := get("x"), map[int32]pvera.Matrix{-1: get("y_none")}
	model := must(pvera.NewModel(nil))(t)
	defer model.Close()
	must(model.Declare(pvera.Layer{Name: "q_proj", InFeatures: x.Cols(), OutFeatures: outputs[-1].Cols(),
		Weight: base.tensor(t, "q_proj.weight"), Bias: base.tensor(t, "q_proj.bias")}))(t)
	var active []pvera.Active
	for _, name := range []string{"first", "second"} {
		adapter := must(model.LoadAdapter(context.Background(), filepath.Join(golden, "two_adapters", name), nil))(t)
		slot := must(model.Publish(name, adapter))(t)
		check(t, adapter.Close())
		outputs[slot] = get("y_" + name)
		active = append(active, pvera.Active{Slot: slot, Scale: 1})
	}
	work := must(pvera.NewContext(nil))(t)
	defer work.Close()
	snapshot := must(model.Snapshot())(t)
	defer snapshot.Close()
	linear := must(snapshot.Linear(0))(t)
	run := func(what string, rows pvera.Rows, wanted []float32) {
		y := like(outputs[-1])
		check(t, work.Forward(linear, x, &rows, nil, nil, y))
		judge(t, what, widened(y), wanted, 1e-6)
	}
	run("first", pvera.Rows{Active: active[:1]}, widened(outputs[active[0].Slot]))
	run("second", pvera.Rows{Active: active[1:]}, widened(outputs[active[1].Slot]))
	run("both", pvera.Rows{Active: active}, widened(get("y_both")))
	run("none", pvera.Rows{Active: []pvera.Active{}}, widened(outputs[-1]))
	mixed, slots, cols := []float32{}, []int32{}, outputs[-1].Cols()
	for i := range x.Rows() {
		slot := []int32{-1, active[0].Slot, active[1].Slot}[i%3]
		slots = append(slots, slot)
		mixed = append(mixed, widened(outputs[slot])[i*cols:(i+1)*cols]...)
	}
	run("an adapter for each row", pvera.Rows{Slot: slots}, mixed)
}

// Learned biases of other modules and saved heads are carried and readable.
func TestGoldenCarriedTensors(t *testing.T) {
	work := must(pvera.NewContext(nil))(t)
	defer work.Close()
	for name, key := range map[string]string{"bias_all": "base_model.model.norm.bias",
		"bias_and_head": "base_model.model.classifier.weight"} {
		o := openCase(t, goldenCase{name: name, modules: []string{"q_proj"}}, work)
		checkpoint := open(t, golden, name, "adapter_model.safetensors")
		found := must(o.adapter.FindTensor(key))(t)
		at := checkpoint.entries[key].Offsets
		if found.Name != key || found.DType != pvera.F32 || string(found.Data) != string(checkpoint.data[at[0]:at[1]]) {
			t.Errorf("%s: %s is %v with %d bytes", name, found.Name, found.DType, len(found.Data))
		}
		if fmt.Sprint(found.Shape) != fmt.Sprint(checkpoint.entries[key].Shape) {
			t.Errorf("%s has the shape %v", key, found.Shape)
		}
	}
}
