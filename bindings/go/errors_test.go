// Errors: codes, sentences, and what the binding must refuse because C cannot see it.

package pvera_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pvera.invalid/pvera"
)

func TestErrorsOfTheLibrary(t *testing.T) {
	w := inWorld(t, nil)
	y := pvera.Dense(make([]float32, n*out), n, out)
	narrow := pvera.Dense(w.x, n, in-1)
	refused(t, w.context.Forward(w.q, narrow, nil, nil, nil, y), pvera.ErrShape, "x is 6×8", "wanted 6×9")
	refused(t, w.context.Forward(w.q, pvera.Strided(w.x, n, in, in-1), nil, nil, nil, y), pvera.ErrStride,
		"x.row_stride is 8", "wanted at least 9")
	refused(t, w.context.Forward(w.q, w.matrix().On(pvera.Device{Type: pvera.DeviceCUDA}), nil, nil, nil, y), pvera.ErrDevice,
		"x is on CUDA device 0")
	refused(t, w.context.Forward(w.q, w.matrix(), nil, nil, nil, pvera.Dense(w.x, n, in)), pvera.ErrShape)
	refused(t, w.context.Forward(w.q, w.matrix(), nil, nil, nil, pvera.Dense(w.weight, n, out)), pvera.ErrOverlap, "y overlaps")
	refused(t, w.context.Forward(w.q, w.matrix(), &pvera.Rows{Active: []pvera.Active{{Slot: 7, Scale: 1}}}, nil, nil, y),
		pvera.ErrNotFound, "7")
	refused(t, w.context.Forward(w.q, pvera.Matrix{}, nil, nil, nil, y), pvera.ErrDType)
	must(w.model.FindLayer("v"))(t)
	_, err := w.model.FindLayer("k")
	refused(t, err, pvera.ErrNotFound, "'k'")
	_, err = w.model.Publish("one", w.adapter)
	refused(t, err, pvera.ErrExists, "one")
	refused(t, w.model.Remove("two"), pvera.ErrNotFound, "two")
	_, err = pvera.ParseConfig([]byte("{"))
	refused(t, err, pvera.ErrFormat)
	refused(t, w.config.SetReal("pvera_dropout", 2), pvera.ErrConfig, "pvera_dropout", "2")
	_, err = w.model.LoadAdapter(context.Background(), filepath.Join(t.TempDir(), "nothing"), nil)
	refused(t, err, pvera.ErrIO, "nothing")
	_, err = w.adapter.TrainableOn(w.context, make([]float32, len(w.parameters)))
	refused(t, err, pvera.ErrUnsupported)
	refused(t, pvera.DefaultAdamW().Step(0, nil, nil, nil, nil), pvera.ErrArgument, "step")
	refused(t, pvera.TestPanic("on purpose"), pvera.ErrPanic, "on purpose")
	if _, err := os.Stat("/dev/nvidia0"); err != nil {
		_, err = pvera.NewContext(&pvera.ContextOptions{Backend: pvera.CUDA})
		refused(t, err, pvera.ErrUnsupported)
	}
}

// What C cannot see: how long a slice is, a text with a zero byte, a negative number.
func TestErrorsOfTheBinding(t *testing.T) {
	w := inWorld(t, nil)
	y := pvera.Dense(make([]float32, n*out), n, out)
	forward := func(x, y pvera.Matrix, rows *pvera.Rows, noise *pvera.Noise) error {
		return w.context.Forward(w.q, x, rows, noise, nil, y)
	}
	refused(t, forward(pvera.Dense(w.x[:n*in-1], n, in), y, nil, nil), pvera.ErrShape, "x has 53 elements", "at least 54 for 6×9")
	refused(t, forward(pvera.Dense(w.x, -1, in), y, nil, nil), pvera.ErrShape, "x is -1×9")
	refused(t, forward(pvera.Strided(w.x, 1<<62, in, 1<<62), y, nil, nil), pvera.ErrShape, "x has 54 elements")
	refused(t, forward(w.matrix(), pvera.Dense(make([]float32, n*out-1), n, out), nil, nil), pvera.ErrShape, "y has 77 elements")
	refused(t, forward(w.matrix(), y, &pvera.Rows{Slot: make([]int32, n-1)}, nil), pvera.ErrShape, "rows.Slot has 5 entries",
		"wanted 6")
	refused(t, forward(w.matrix(), y, &pvera.Rows{Identity: make([]uint64, n+1)}, nil), pvera.ErrShape, "rows.Identity has 7")
	refused(t, forward(w.matrix(), y, &pvera.Rows{Sample: []uint32{}}, nil), pvera.ErrShape, "rows.Sample has 0")
	refused(t, forward(w.matrix(), y, nil, &pvera.Noise{Eps: pvera.Dense(make([]float32, 3), n, rank)}), pvera.ErrShape,
		"noise.Eps has 3 elements")
	refused(t, forward(w.matrix(), y, nil, &pvera.Noise{DropoutMask: pvera.Dense(make([]float32, 3), n, in)}), pvera.ErrShape,
		"noise.DropoutMask has 3 elements")
	refused(t, w.model.Remove("one\x00two"), pvera.ErrArgument, "name has a zero byte at 3")
	_, err := w.model.Declare(pvera.Layer{Name: "k", InFeatures: -1, OutFeatures: 1})
	refused(t, err, pvera.ErrArgument, "layer.InFeatures is -1")
	_, err = w.model.Declare(pvera.Layer{Name: "k", InFeatures: 3, OutFeatures: 3, Weight: pvera.Dense(w.x[:8], 3, 3)})
	refused(t, err, pvera.ErrShape, "layer.Weight has 8 elements")
	_, err = w.adapter.Trainable(make([]float32, 3))
	refused(t, err, pvera.ErrShape, "3")
	refused(t, pvera.DefaultAdamW().Step(1, make([]float32, 2), make([]float32, 2), make([]float32, 1), make([]float32, 2)),
		pvera.ErrShape, "firstMoments has 1 elements; wanted 2")
	_, err = pvera.NewLinear(pvera.Layer{Name: "k", InFeatures: in, OutFeatures: vOut}, w.store, nil,
		pvera.LinearVectors{LambdaB: make([]float32, vOut), LambdaD: make([]float32, rank)})
	refused(t, err, pvera.ErrShape, "vectors.LambdaD has 4 elements; wanted 8")
	_, err = pvera.Calibrate([]float64{1}, nil, 5)
	refused(t, err, pvera.ErrShape, "correct has 0 entries; wanted 1")
	refused(t, w.context.ProjectPart(w.q, w.matrix(), nil, nil, y, pvera.Part{}), pvera.ErrArgument, "part.Count is 0")
	refused(t, w.context.Sample(context.Background(), w.q, w.matrix(), nil, nil, -1, y), pvera.ErrArgument, "samples is -1")
	statistics := must(pvera.NewStatistics(2, 1, pvera.Allocator{}))(t)
	defer statistics.Close()
	refused(t, statistics.AddRows([]int{-1}, pvera.Dense([]float32{1}, 1, 1)), pvera.ErrArgument, "rows[0] is -1")
}

// Gradients that are too short would be written past their ends.
func TestErrorsOfGradients(t *testing.T) {
	w := inWorld(t, nil)
	tape := must(pvera.NewTape(pvera.KeepLatent, pvera.Allocator{}))(t)
	defer tape.Close()
	y := pvera.Dense(make([]float32, n*out), n, out)
	back := func(gradients pvera.Gradients) error { return w.context.Backward(tape, y, &gradients, pvera.Matrix{}) }
	slots := func(slot pvera.SlotGradients) pvera.Gradients {
		return pvera.Gradients{Overwrite: pvera.OverwriteAll, Slots: []pvera.SlotGradients{slot}}
	}
	refused(t, back(slots(pvera.SlotGradients{LambdaB: make([]float32, out)})), pvera.ErrState)
	check(t, w.context.Forward(w.q, w.matrix(), nil, nil, tape, y))
	check(t, back(slots(pvera.SlotGradients{LambdaB: make([]float32, out), LambdaD: make([]float32, 2*rank)})))
	refused(t, back(slots(pvera.SlotGradients{LambdaB: make([]float32, out-1)})), pvera.ErrShape,
		"gradients[0].Slots[0].LambdaB has 12 elements; wanted 13")
	refused(t, back(slots(pvera.SlotGradients{LambdaD: make([]float32, rank)})), pvera.ErrShape,
		"gradients[0].Slots[0].LambdaD has 4 elements; wanted 8")
	refused(t, back(slots(pvera.SlotGradients{Bias: make([]float32, 1)})), pvera.ErrShape, "Bias has 1 elements; wanted 13")
	refused(t, back(slots(pvera.SlotGradients{Slot: 3, LambdaB: make([]float32, out)})), pvera.ErrNotFound)
	refused(t, back(pvera.Gradients{Variance: make([]float64, n), VarianceIndex: make([]uint32, 2)}), pvera.ErrShape,
		"VarianceIndex has 2 entries; wanted 6")
	refused(t, w.context.BackwardGroup(tape, []pvera.Matrix{y}, make([]pvera.Gradients, 2), pvera.Matrix{}), pvera.ErrShape,
		"gradients has 2 entries; wanted 1")
	refused(t, w.context.ForwardGroup([]*pvera.Linear{w.q, w.v}, w.matrix(), nil, nil, nil, []pvera.Matrix{y}), pvera.ErrShape,
		"y has 1 matrices; wanted 2")
	w.parameters[0]++
	refused(t, back(pvera.Gradients{}), pvera.ErrState, "parameter", "changed")
}

// The codes that a service answers for, as calls give them: the number of the header, under errors.Is and errors.As.
func TestCodesOfRequests(t *testing.T) {
	ctx, w := context.Background(), inWorld(t, nil)
	int8s := pvera.DType{Code: pvera.KindInt, Bits: 8, Lanes: 1}
	y := pvera.Dense(make([]float32, n*out), n, out)
	for _, given := range []struct {
		what   string
		err    error
		code   pvera.Code
		number int32
		words  string
	}{
		{"a mode", w.context.Forward(w.q, w.matrix(), nil, &pvera.Noise{Mode: 9}, nil, y), pvera.ErrArgument, 2, "noise.mode is 9"},
		{"a policy", second(pvera.NewTape(7, pvera.Allocator{})), pvera.ErrArgument, 2, "policy is 7"},
		{"a negative number", second(pvera.StoreFromKey(ctx, 1, pvera.StoreOptions{Rank: -1})), pvera.ErrArgument, 2, "options.Rank is -1"},
		{"an absent matrix", w.context.Forward(w.q, pvera.Matrix{}, nil, nil, nil, y), pvera.ErrDType, 4, "x"},
		{"a store's base", second(pvera.StoreFromKey(ctx, 1, pvera.StoreOptions{Rank: 4, InMax: 9, OutMax: 9, BaseDType: int8s})),
			pvera.ErrDType, 4, "base_dtype"},
		{"an adapter's base", second(w.model.NewAdapter(ctx, w.config, nil, &pvera.AdapterOptions{BaseDType: int8s})), pvera.ErrDType, 4,
			"base_dtype"},
	} {
		refused(t, given.err, given.code, given.words)
		var failure *pvera.Error
		if !errors.As(given.err, &failure) || int32(failure.Code) != given.number {
			t.Errorf("%s: %v has another number than %d", given.what, given.err, given.number)
		}
		if other := pvera.ErrArgument + pvera.ErrDType - given.code; errors.Is(given.err, other) {
			t.Errorf("%s: %v is %v, too", given.what, given.err, other)
		}
	}
}

func TestErrorIsAValue(t *testing.T) {
	_, err := pvera.NewTape(99, pvera.Allocator{})
	wrapped := fmt.Errorf("a program's words: %w", err)
	if !errors.Is(wrapped, pvera.ErrArgument) || errors.Is(wrapped, pvera.ErrShape) {
		t.Errorf("%v is not ErrArgument alone", wrapped)
	}
	if text := err.Error(); !strings.HasPrefix(text, "pvera: ") || !strings.Contains(text, "99") {
		t.Errorf("the error says %q", text)
	}
	for code := pvera.ErrNull; code <= pvera.ErrCUDA; code++ {
		if text := code.Error(); strings.Contains(text, "error code") {
			t.Errorf("code %d has no text", code)
		}
	}
	if text := pvera.Code(21).Error(); text != "pvera: error code 21" {
		t.Errorf("an unknown code says %q", text)
	}
}

func TestVersion(t *testing.T) {
	if pvera.Version() != pvera.HeaderVersion {
		t.Errorf("the library is %d, its header %d", pvera.Version(), pvera.HeaderVersion)
	}
	v := pvera.Version()
	if text := fmt.Sprintf("%d.%d.%d", v/1000000, v/1000%1000, v%1000); text != pvera.VersionText() {
		t.Errorf("%s is not %s", pvera.VersionText(), text)
	}
}
