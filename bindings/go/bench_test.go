// What a call costs on top of the library: go test -bench .

package pvera_test

import (
	"testing"

	"pvera.invalid/pvera"
)

func BenchmarkVersion(b *testing.B) { // a call of C that does nothing
	for b.Loop() {
		pvera.Version()
	}
}

func BenchmarkForward16x16(b *testing.B) {
	const size = 16
	model := must(pvera.NewModel(nil))(b)
	defer model.Close()
	must(model.Declare(pvera.Layer{Name: "q", InFeatures: size, OutFeatures: size,
		Weight: pvera.Dense(fill(make([]float32, size*size), 1), size, size)}))(b)
	config := newConfig(b)
	defer config.Close()
	adapter := must(model.NewAdapter(b.Context(), config, nil, nil))(b)
	defer adapter.Close()
	linear := must(adapter.Linear(0))(b)
	defer linear.Close()
	work := must(pvera.NewContext(nil))(b)
	defer work.Close()
	x, y := pvera.Dense(fill(make([]float32, size), 2), 1, size), pvera.Dense(make([]float32, size), 1, size)
	b.ReportAllocs()
	for b.Loop() {
		if err := work.Forward(linear, x, nil, nil, nil, y); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSnapshot(b *testing.B) {
	w := newWorld(b, nil)
	defer w.close()
	b.ReportAllocs()
	for b.Loop() {
		snapshot := must(w.model.Snapshot())(b)
		must(snapshot.Linear(0))(b)
		snapshot.Close()
	}
}
