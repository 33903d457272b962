package pvera_test

import (
	"context"
	"fmt"
	"log"

	"pvera.invalid/pvera"
)

// A service in small: one layer of an engine that keeps its own base, one adapter, mean and sampled answers.
func Example() {
	model, err := pvera.NewModel(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer model.Close()
	layer, err := model.Declare(pvera.Layer{Name: "layers.0.q_proj", InFeatures: 4, OutFeatures: 3})
	if err != nil {
		log.Fatal(err)
	}

	// A checkpoint would be loaded: model.LoadAdapter(ctx, "path/to/peft/checkpoint", nil).
	adapter := trained(model)
	defer adapter.Close()
	if _, err := model.Publish("support", adapter); err != nil {
		log.Fatal(err)
	}

	work, err := pvera.NewContext(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer work.Close()
	snapshot, err := model.Snapshot() // one for each pass over the network
	if err != nil {
		log.Fatal(err)
	}
	defer snapshot.Close()
	qProj, err := snapshot.Linear(layer)
	if err != nil {
		log.Fatal(err)
	}

	x := []float32{1, 2, 3, 4}
	y := []float32{0, 0, 0} // what the engine's own base gave; the layer adds its delta
	if err := work.Forward(qProj, pvera.Dense(x, 1, 4), nil, nil, nil, pvera.Dense(y, 1, 3)); err != nil {
		log.Fatal(err)
	}
	fmt.Printf("mean  %.4f\n", y)

	const draws = 1000
	samples := make([]float32, draws*3)
	noise := pvera.Noise{Mode: pvera.Sample, Seed: 1}
	err = work.Sample(context.Background(), qProj, pvera.Dense(x, 1, 4), nil, &noise, draws, pvera.Dense(samples, draws, 3))
	if err != nil {
		log.Fatal(err)
	}
	statistics, err := pvera.NewStatistics(1, 3, pvera.Allocator{})
	if err != nil {
		log.Fatal(err)
	}
	defer statistics.Close()
	for draw := range draws {
		if err := statistics.Add(pvera.Dense(samples[3*draw:], 1, 3)); err != nil {
			log.Fatal(err)
		}
	}
	interval, err := statistics.MeanInterval(pvera.Interval{}, 0.95)
	if err != nil {
		log.Fatal(err)
	}
	for output := range y {
		fmt.Println("inside the interval:", interval.Lower[output] < float64(y[output]) && float64(y[output]) < interval.Upper[output])
	}

	_, err = snapshot.Slot("sales")
	fmt.Println(err)
	// Output:
	// mean  [0.0618 0.1987 0.4603]
	// inside the interval: true
	// inside the interval: true
	// inside the interval: true
	// pvera: no adapter is published as 'sales'; 1 are
}

// trained is an adapter with made-up parameters.
func trained(model *pvera.Model) *pvera.Adapter {
	config, err := pvera.ParseConfig([]byte(`{"peft_type": "PVERA", "r": 2, "target_modules": ["q_proj"]}`))
	if err != nil {
		log.Fatal(err)
	}
	defer config.Close()
	adapter, err := model.NewAdapter(context.Background(), config, nil, nil)
	if err != nil {
		log.Fatal(err)
	}
	err = adapter.Parameters(func(parameters []float32) error {
		for i := range parameters {
			parameters[i] = float32(i+1) / 10
		}
		return nil
	})
	if err != nil {
		log.Fatal(err)
	}
	return adapter
}
