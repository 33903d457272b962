// What the tests share: golden files, numbers, a small world of one model.

package pvera_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pvera.invalid/pvera"
)

const golden = "../../tests/golden"

// must is a value that a test cannot go on without.
func must[T any](value T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return value
	}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// refused is a call that fails with this code and a sentence that holds every word.
func refused(t testing.TB, err error, code pvera.Code, words ...string) {
	t.Helper()
	if !errors.Is(err, code) {
		t.Errorf("got %v; wanted code %d (%v)", err, int32(code), code)
		return
	}
	var failure *pvera.Error
	if !errors.As(err, &failure) || failure.Code != code {
		t.Errorf("%v is no *pvera.Error of code %d", err, int32(code))
		return
	}
	for _, word := range words {
		if !strings.Contains(failure.Message, word) {
			t.Errorf("%q does not say %q", failure.Message, word)
		}
	}
}

// ---- Numbers ----

// fill fills values with numbers between -1 and 1 that look random and are always the same.
func fill(values []float32, seed uint32) []float32 {
	for i := range values {
		word := uint32(i+1)*2654435769 + seed*2246822519
		word ^= word >> 15
		word *= 739982445
		word ^= word >> 12
		values[i] = float32(int32(word)) / 2147483648
	}
	return values
}

// relativeError is max|found - wanted| / max|wanted|, the measure of the golden cases. Infinite where nothing could be judged.
func relativeError(found, wanted []float32) float64 {
	if len(found) != len(wanted) || len(wanted) == 0 {
		return math.Inf(1)
	}
	var largest, difference float64
	for i := range wanted {
		one, other := float64(found[i]), float64(wanted[i])
		if math.IsNaN(one-other) || math.IsInf(one, 0) || math.IsInf(other, 0) {
			return math.Inf(1)
		}
		largest = max(largest, math.Abs(other))
		difference = max(difference, math.Abs(one-other))
	}
	if difference == 0 {
		return 0
	}
	return difference / largest // by zero: infinite
}

func judge(t testing.TB, what string, found, wanted []float32, tolerance float64) {
	t.Helper()
	if off := relativeError(found, wanted); !(off <= tolerance) {
		t.Errorf("%s: relative error %.3g of %d values for %d; wanted at most %.1g", what, off, len(found), len(wanted), tolerance)
	}
}

func sameBits(t testing.TB, what string, found, wanted []float32) {
	t.Helper()
	if len(found) != len(wanted) {
		t.Fatalf("%s: %d values for %d", what, len(found), len(wanted))
	}
	for i := range found {
		if math.Float32bits(found[i]) != math.Float32bits(wanted[i]) {
			t.Fatalf("%s: value %d is %v; wanted the bits of %v", what, i, found[i], wanted[i])
		}
	}
}

// widened is a matrix as f32.
func widened(m pvera.Matrix) []float32 {
	values := make([]float32, 0, m.Rows()*m.Cols())
	for i := range m.Rows() {
		for j := range m.Cols() {
			values = append(values, m.At(i, j))
		}
	}
	return values
}

// ---- Safetensors, as far as the golden files need ----

type archive struct {
	entries map[string]struct {
		DType   string `json:"dtype"`
		Shape   []int  `json:"shape"`
		Offsets [2]int `json:"data_offsets"`
	}
	data []byte
}

func open(t testing.TB, path ...string) archive {
	t.Helper()
	file := must(os.ReadFile(filepath.Join(path...)))(t)
	end := 8 + int(binary.LittleEndian.Uint64(file))
	header := map[string]json.RawMessage{}
	check(t, json.Unmarshal(file[8:end], &header))
	delete(header, "__metadata__")
	own := archive{data: file[end:]}
	check(t, json.Unmarshal(must(json.Marshal(header))(t), &own.entries))
	return own
}

// tensor is the one of that key as a matrix (of one row, if it is a vector); the zero Matrix if there is none.
func (a archive) tensor(t testing.TB, key string) pvera.Matrix {
	t.Helper()
	entry, found := a.entries[key]
	if !found {
		return pvera.Matrix{}
	}
	rows, cols := 1, entry.Shape[0]
	if len(entry.Shape) == 2 {
		rows, cols = entry.Shape[0], entry.Shape[1]
	}
	data := bytes.NewReader(a.data[entry.Offsets[0]:entry.Offsets[1]])
	switch entry.DType {
	case "F32":
		return decoded[float32](t, data, rows, cols)
	case "F16":
		return decoded[pvera.Float16](t, data, rows, cols)
	case "BF16":
		return decoded[pvera.BFloat16](t, data, rows, cols)
	}
	t.Fatalf("%s is %s", key, entry.DType)
	return pvera.Matrix{}
}

func decoded[T pvera.Element](t testing.TB, data *bytes.Reader, rows, cols int) pvera.Matrix {
	t.Helper()
	values := make([]T, rows*cols)
	check(t, binary.Read(data, binary.LittleEndian, values))
	return pvera.Dense(values, rows, cols)
}

// like is a matrix of zeros to be written, of another's shape and element type.
func like(m pvera.Matrix) pvera.Matrix {
	switch m.DType() {
	case pvera.F16:
		return pvera.Dense(make([]pvera.Float16, m.Rows()*m.Cols()), m.Rows(), m.Cols())
	case pvera.BF16:
		return pvera.Dense(make([]pvera.BFloat16, m.Rows()*m.Cols()), m.Rows(), m.Cols())
	}
	return pvera.Dense(make([]float32, m.Rows()*m.Cols()), m.Rows(), m.Cols())
}

// ---- A small world: layer 0 "q" with a base weight and bias, layer 1 "v" without, one trained adapter ----

const (
	in, out, vOut = 9, 13, 5
	rank, n       = 4, 6
)

type world struct {
	context    *pvera.Context
	model      *pvera.Model
	config     *pvera.Config
	store      *pvera.Store
	adapter    *pvera.Adapter // trainable, on parameters; published as "one"
	q, v       *pvera.Linear  // of the adapter
	parameters []float32
	slot       int32
	x          []float32
	weight     []float32
}

func (w *world) matrix() pvera.Matrix { return pvera.Dense(w.x, n, in) }

// close is what a program does at its end; in tests it runs by itself.
func (w *world) close() {
	for _, handle := range []interface{ Close() error }{w.q, w.v, w.adapter, w.store, w.config, w.model, w.context} {
		handle.Close()
	}
}

func newWorld(t testing.TB, options *pvera.ContextOptions) *world {
	t.Helper()
	w := &world{x: fill(make([]float32, n*in), 4), weight: fill(make([]float32, out*in), 1)}
	w.context = must(pvera.NewContext(options))(t)
	w.model = must(pvera.NewModel(nil))(t)
	must(w.model.Declare(pvera.Layer{Name: "q", InFeatures: in, OutFeatures: out, Weight: pvera.Dense(w.weight, out, in),
		Bias: pvera.Dense(fill(make([]float32, out), 2), 1, out)}))(t)
	must(w.model.Declare(pvera.Layer{Name: "v", InFeatures: in, OutFeatures: vOut}))(t)
	w.config = newConfig(t)
	fresh := must(w.model.NewAdapter(context.Background(), w.config, nil, nil))(t)
	defer fresh.Close()
	w.parameters = make([]float32, must(fresh.ParameterCount())(t))
	w.adapter = must(fresh.Trainable(w.parameters))(t)
	fill(w.parameters, 3)
	w.q, w.v = must(w.adapter.Linear(0))(t), must(w.adapter.Linear(1))(t)
	w.slot = must(w.model.Publish("one", w.adapter))(t)
	w.store = must(w.adapter.Store())(t)
	return w
}

func newConfig(t testing.TB) *pvera.Config {
	t.Helper()
	config := must(pvera.NewConfig())(t)
	check(t, config.SetInt("r", rank))
	check(t, config.SetInt("projection_prng_key", 77))
	check(t, config.SetJSON("target_modules", `["q", "v"]`))
	return config
}

// inWorld runs a test in a world that is closed after it.
func inWorld(t *testing.T, options *pvera.ContextOptions) *world {
	t.Helper()
	w := newWorld(t, options)
	t.Cleanup(w.close)
	return w
}
