// What the tests share: checkpoints, clients, and the answer that one row at a time gives.

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"testing"

	"pvera.invalid/pvera"
)

const basePath = "../../data/base.bin"

func must[T any](value T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return value
	}
}

// checkpoint is what PUT is given. Checkpoints of different numbers differ.
type checkpoint struct {
	Config  json.RawMessage `json:"config"`
	Tensors []byte          `json:"tensors"`
}

func newCheckpoint(t testing.TB, net *network, number uint32) checkpoint {
	t.Helper()
	config := must(pvera.ParseConfig([]byte(`{"peft_type": "PVERA", "r": 8, "logvar_bound": 2,
		"target_modules": ["layers.0", "layers.1", "layers.2"]}`)))(t)
	defer config.Close()
	adapter := must(net.model.NewAdapter(context.Background(), config, nil, nil))(t)
	defer adapter.Close()
	err := adapter.Parameters(func(parameters []float32) error {
		for i := range parameters {
			word := uint32(i+1)*2654435769 + number*2246822519
			word ^= word >> 15
			word *= 739982445
			parameters[i] = float32(int32(word)) / (1 << 31)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	files := checkpoint{}
	files.Config, files.Tensors, err = adapter.SaveMemory()
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// pixels is a picture that looks random and is always the same.
func pixels(number int) []float32 {
	row := make([]float32, 64)
	for i := range row {
		row[i] = float32((number*31+i*i*7)%17) / 16
	}
	return row
}

// alone is the answer of one row and one draw at a time, on a network of its own.
func alone(t testing.TB, files *checkpoint, asked question) *prediction {
	t.Helper()
	net := must(newNetwork(basePath, 0))(t)
	defer net.close()
	slot := int32(-1)
	if files != nil {
		adapter := must(net.model.LoadAdapterMemory(context.Background(), files.Config, files.Tensors, nil))(t)
		defer adapter.Close()
		slot = must(net.model.Publish(asked.Adapter, adapter))(t)
	}
	snapshot := must(net.model.Snapshot())(t)
	defer snapshot.Close()
	var logits []float32
	for sample := range asked.Samples {
		for i, row := range asked.Rows {
			rows := pvera.Rows{Slot: []int32{slot}, IdentityBase: asked.Identity + uint64(i), SampleBase: uint32(sample)}
			noise := pvera.Noise{Mode: pvera.Sample, Seed: seed}
			draw := must(net.forward(snapshot, row, 1, &rows, &noise, func() error { return nil }))(t)
			logits = append(logits, draw...)
		}
	}
	return must(summarise(&asked, answer{logits: logits}, net.outputs()))(t)
}

// same compares two answers bit for bit, but for the version.
func same(t testing.TB, found, wanted *prediction) {
	t.Helper()
	wanted.Version = found.Version
	if !reflect.DeepEqual(found, wanted) {
		t.Errorf("adapter %q, version %d: the answer is\n%+v\nand of single rows\n%+v", found.Adapter, found.Version, found, wanted)
	}
}

// ---- A client ----

type client struct {
	*service // where the server runs in this test
	url      string
	http     *http.Client
	end      func()
}

func newClient(t testing.TB) *client {
	t.Helper()
	own := must(newService(basePath, 1))(t)
	server := httptest.NewServer(own.handler())
	return &client{service: own, url: server.URL, http: server.Client(), end: server.Close}
}

func (c *client) stop(t testing.TB) {
	t.Helper()
	c.http.CloseIdleConnections()
	c.end()
	if err := c.close(); err != nil {
		t.Error(err)
	}
}

// send is the status of an answer, whose body goes into the place for it.
func (c *client) send(ctx context.Context, method, path string, body, into any) (status int, err error) {
	text, err := json.Marshal(body)
	if err != nil {
		return 0, err
	}
	request, err := http.NewRequestWithContext(ctx, method, c.url+path, bytes.NewReader(text))
	if err != nil {
		return 0, err
	}
	response, err := c.http.Do(request)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	answered, err := io.ReadAll(response.Body)
	if err != nil {
		return 0, err
	}
	if response.StatusCode != http.StatusOK {
		return response.StatusCode, fmt.Errorf("%s %s: %s", method, path, answered)
	}
	return response.StatusCode, json.Unmarshal(answered, into)
}

// put publishes a checkpoint and is its version.
func (c *client) put(t testing.TB, name string, files checkpoint) int {
	t.Helper()
	var published struct{ Version int }
	if _, err := c.send(context.Background(), http.MethodPut, "/adapters/"+name, files, &published); err != nil {
		t.Error(err)
	}
	return published.Version
}

func (c *client) predict(ctx context.Context, asked question) (*prediction, int, error) {
	var answered prediction
	status, err := c.send(ctx, http.MethodPost, "/predict", asked, &answered)
	return &answered, status, err
}
