// The network: layers of base.bin (see examples/data/README.md) with ReLU between, and adapters on all of them.

package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"

	"pvera.invalid/pvera"
)

// network is the declared layers and where they are computed.
type network struct {
	model *pvera.Model
	work  *pvera.Context
	sizes []int // of the input and of each layer's output
}

// readBase is the sizes of a base network, and each layer's weight and bias.
func readBase(path string) (sizes []int, weights, biases [][]float32, err error) {
	file, err := os.ReadFile(path)
	if err != nil {
		return nil, nil, nil, err
	}
	const head, most = 12, 1 << 12
	if len(file) < head || string(file[:8]) != "MLP\x00\x00\x00\x00\x01" {
		return nil, nil, nil, fmt.Errorf("%s is no base network", path)
	}
	words := file[8:]
	take := func() uint32 {
		if len(words) < 4 {
			err = fmt.Errorf("%s ends too early", path)
			return 0
		}
		word := binary.LittleEndian.Uint32(words)
		words = words[4:]
		return word
	}
	for range min(take(), most) {
		sizes = append(sizes, int(min(take(), most)))
	}
	numbers := func(count int) []float32 {
		values := make([]float32, count)
		for i := range values {
			values[i] = math.Float32frombits(take())
		}
		return values
	}
	for layer := 0; layer+1 < len(sizes) && err == nil; layer++ {
		weights = append(weights, numbers(sizes[layer]*sizes[layer+1]))
		biases = append(biases, numbers(sizes[layer+1]))
	}
	return sizes, weights, biases, err
}

// newNetwork computes with this many threads beside the one that asks.
func newNetwork(path string, threads int) (*network, error) {
	sizes, weights, biases, err := readBase(path)
	if err != nil {
		return nil, err
	}
	net := &network{sizes: sizes}
	if net.work, err = pvera.NewContext(&pvera.ContextOptions{Threads: uint32(threads)}); err != nil {
		return nil, err
	}
	if net.model, err = pvera.NewModel(nil); err != nil {
		return nil, errors.Join(err, net.close())
	}
	for layer := range weights {
		in, out := sizes[layer], sizes[layer+1]
		_, err := net.model.Declare(pvera.Layer{Name: fmt.Sprintf("layers.%d", layer), InFeatures: in, OutFeatures: out,
			Weight: pvera.Dense(weights[layer], out, in), Bias: pvera.Dense(biases[layer], 1, out)})
		if err != nil {
			return nil, errors.Join(err, net.close())
		}
	}
	return net, nil
}

func (n *network) close() error { return errors.Join(n.model.Close(), n.work.Close()) }

func (n *network) inputs() int { return n.sizes[0] }

func (n *network) outputs() int { return n.sizes[len(n.sizes)-1] }

// forward is the logits of x [count, inputs] on the adapters of a snapshot. goOn is asked before each layer.
func (n *network) forward(snapshot *pvera.Snapshot, x []float32, count int, rows *pvera.Rows, noise *pvera.Noise,
	goOn func() error) ([]float32, error) {
	for layer := range len(n.sizes) - 1 {
		if err := goOn(); err != nil {
			return nil, err
		}
		linear, err := snapshot.Linear(layer)
		if err != nil {
			return nil, err
		}
		in, out := n.sizes[layer], n.sizes[layer+1]
		y := make([]float32, count*out)
		if err := n.work.Forward(linear, pvera.Dense(x, count, in), rows, noise, nil, pvera.Dense(y, count, out)); err != nil {
			return nil, err
		}
		if layer+2 < len(n.sizes) {
			for i, value := range y {
				y[i] = max(value, 0)
			}
		}
		x = y
	}
	return x, nil
}
