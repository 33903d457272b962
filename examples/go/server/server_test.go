// The server under load, under swaps, under cancellation, and at its end.

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pvera.invalid/pvera"
	"pvera.invalid/pvera/internal/testhost"
)

const clients, requests = 8, 40

// Many clients ask while adapters are swapped under them. Each answer is that of one version, with the bits that its rows have
// alone, and most passes serve several requests.
func TestLoadUnderSwaps(t *testing.T) {
	c := newClient(t)
	defer c.stop(t)
	checkpoints := []checkpoint{newCheckpoint(t, c.net, 1), newCheckpoint(t, c.net, 2), newCheckpoint(t, c.net, 3)}
	var guard sync.Mutex
	published := map[int]int{} // which checkpoint a version is
	publish := func(name string, number int) {
		version := c.put(t, name, checkpoints[number])
		guard.Lock()
		defer guard.Unlock()
		published[version] = number
	}
	publish("one", 0)
	publish("two", 1)
	var swapper, all sync.WaitGroup
	var done atomic.Bool
	swapper.Go(func() {
		for turn := 0; !done.Load(); turn++ {
			publish([]string{"one", "two"}[turn%2], turn%3)
		}
	})
	type exchange struct {
		asked    question
		answered *prediction
	}
	exchanges := make([][]exchange, clients)
	for worker := range clients {
		all.Go(func() {
			for turn := range requests {
				asked := question{Adapter: []string{"one", "two", ""}[(worker+turn)%3], Identity: uint64(worker), Samples: 2 + turn%4}
				for row := range 1 + turn%3 {
					asked.Rows = append(asked.Rows, pixels(worker+10*turn+row))
				}
				answered, _, err := c.predict(context.Background(), asked)
				if err != nil {
					t.Error(err)
					return
				}
				exchanges[worker] = append(exchanges[worker], exchange{asked, answered})
			}
		})
	}
	all.Wait()
	done.Store(true)
	swapper.Wait()
	versions := map[int]bool{}
	for worker := range exchanges {
		for _, one := range exchanges[worker] {
			versions[one.answered.Version] = true
			var files *checkpoint
			if one.asked.Adapter != "" {
				number, known := published[one.answered.Version]
				if !known {
					t.Fatalf("version %d was never published", one.answered.Version)
				}
				files = &checkpoints[number]
			} else if one.answered.Version != 0 {
				t.Errorf("the base alone has version %d", one.answered.Version)
			}
			same(t, one.answered, alone(t, files, one.asked))
		}
	}
	if len(versions) < 5 {
		t.Errorf("only %d versions were seen: nothing was swapped under load", len(versions))
	}
	load := c.batcher.load()
	if load["requests"] != clients*requests || load["passes"] >= load["requests"] {
		t.Errorf("the load is %v: nothing was batched", load)
	}
	t.Logf("%d versions were seen, %v", len(versions), load)
}

func TestAdapters(t *testing.T) {
	c := newClient(t)
	defer c.stop(t)
	ctx, asked := context.Background(), question{Adapter: "one", Rows: [][]float32{pixels(1)}, Samples: 3}
	expect := func(what string, status, wanted int, err error, words string) {
		t.Helper()
		if status != wanted || err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("%s: status %d, %v; wanted %d and %q", what, status, err, wanted, words)
		}
	}
	var none json.RawMessage
	if _, err := c.send(ctx, http.MethodGet, "/adapters", nil, &none); err != nil || strings.TrimSpace(string(none)) != "{}" {
		t.Errorf("the list without adapters is %s, %v; wanted {}", none, err)
	}
	_, status, err := c.predict(ctx, asked)
	expect("an adapter that is not there", status, http.StatusNotFound, err, "'one'")
	first := c.put(t, "one", newCheckpoint(t, c.net, 1))
	before, _, err := c.predict(ctx, asked)
	if err != nil || before.Version != first {
		t.Errorf("version %d, %v; wanted %d", before.Version, err, first)
	}
	second := c.put(t, "one", newCheckpoint(t, c.net, 2))
	after, _, err := c.predict(ctx, asked)
	if err != nil || after.Version != second || second == first || after.Mean[0][0] == before.Mean[0][0] {
		t.Errorf("version %d, %v; wanted %d with other numbers", after.Version, err, second)
	}
	for output := range after.Mean[0] {
		if !(after.Lower[0][output] < after.Mean[0][output] && after.Mean[0][output] < after.Upper[0][output]) {
			t.Errorf("output %d: %v is not between %v and %v", output, after.Mean[0][output], after.Lower[0][output],
				after.Upper[0][output])
		}
	}
	var listed map[string]int
	if _, err := c.send(ctx, http.MethodGet, "/adapters", nil, &listed); err != nil || len(listed) != 1 || listed["one"] != second {
		t.Errorf("the list is %v, %v", listed, err)
	}
	var nothing struct{}
	if _, err := c.send(ctx, http.MethodDelete, "/adapters/one", nil, &nothing); err != nil {
		t.Error(err)
	}
	_, status, err = c.predict(ctx, asked)
	expect("a removed adapter", status, http.StatusNotFound, err, "'one'")
	status, err = c.send(ctx, http.MethodDelete, "/adapters/one", nil, &nothing)
	expect("removing it twice", status, http.StatusNotFound, err, "'one'")
	status, err = c.send(ctx, http.MethodPut, "/adapters/bad", checkpoint{Config: []byte(`{}`), Tensors: []byte("no file")}, &nothing)
	expect("a damaged checkpoint", status, http.StatusUnprocessableEntity, err, "")
	status, err = c.send(ctx, http.MethodPut, "/adapters/bad", "text", &nothing)
	expect("no checkpoint", status, http.StatusBadRequest, err, "")
	_, status, err = c.predict(ctx, question{Rows: [][]float32{{1}}})
	expect("a short row", status, http.StatusBadRequest, err, "rows[0] has 1 numbers; wanted 64")
	_, status, err = c.predict(ctx, question{Rows: [][]float32{pixels(1)}, Samples: 1})
	expect("one draw", status, http.StatusBadRequest, err, "samples is 1")
	_, status, err = c.predict(ctx, question{})
	expect("no rows", status, http.StatusBadRequest, err, "rows is empty")
	misspelt := map[string]any{"adaptor": "one", "rows": [][]float32{pixels(1)}}
	status, err = c.send(ctx, http.MethodPost, "/predict", misspelt, &nothing)
	expect("a field that nobody knows", status, http.StatusBadRequest, err, "adaptor")
	_, status, err = c.predict(ctx, question{Adapter: "a\x00b", Rows: [][]float32{pixels(1)}, Samples: 2})
	expect("a name with a zero byte", status, http.StatusUnprocessableEntity, err, "zero byte")
}

func TestBodies(t *testing.T) {
	status := func(body io.Reader) int {
		var asked question
		return statusOf(decode(&http.Request{Body: io.NopCloser(body)}, &asked))
	}
	if found := status(strings.NewReader(`{"samples": 3} more`)); found != http.StatusBadRequest {
		t.Errorf("what follows the object: status %d; wanted %d", found, http.StatusBadRequest)
	}
	large := http.MaxBytesReader(nil, io.NopCloser(strings.NewReader(`{"samples": 3333}`)), 8)
	if found := status(large); found != http.StatusRequestEntityTooLarge {
		t.Errorf("a large body: status %d; wanted %d", found, http.StatusRequestEntityTooLarge)
	}
}

// What overflows in one request is that request's error, and the others of its batch are answered.
func TestOverflowIsItsOwn(t *testing.T) {
	c := newClient(t)
	defer c.stop(t)
	loud := make([]float32, 64)
	for i := range loud {
		loud[i] = 1e6 // its logvar is so large that exp overflows
	}
	batch := []*job{}
	for _, row := range [][]float32{pixels(1), loud, pixels(2)} {
		batch = append(batch, &job{ctx: context.Background(), rows: [][]float32{row}, adapter: "one", samples: 2,
			answer: make(chan answer, 1)})
	}
	unbound := newCheckpoint(t, c.net, 1)
	bound := regexp.MustCompile(`"logvar_bound": [0-9.]+`)
	unbound.Config = bound.ReplaceAll(unbound.Config, []byte(`"logvar_bound": null`))
	c.put(t, "one", unbound)
	c.batcher.compute(batch)
	for i, wanted := range batch {
		given := <-wanted.answer
		if failed := given.err != nil; failed != (i == 1) {
			t.Errorf("job %d: %v", i, given.err)
		} else if failed && statusOf(given.err) != http.StatusUnprocessableEntity {
			t.Errorf("status %d for %v", statusOf(given.err), given.err)
		}
	}
}

// Which error is the request's, which the server's: each code that the library has.
func TestStatusOfErrors(t *testing.T) {
	wanted := map[pvera.Code]int{
		pvera.ErrNull: 500, pvera.ErrArgument: 422, pvera.ErrShape: 422, pvera.ErrDType: 422, pvera.ErrStride: 500,
		pvera.ErrOverlap: 500, pvera.ErrDevice: 500, pvera.ErrNotFound: 404, pvera.ErrExists: 500, pvera.ErrState: 500,
		pvera.ErrIO: 500, pvera.ErrFormat: 422, pvera.ErrConfig: 422, pvera.ErrProjection: 422, pvera.ErrMemory: 500,
		pvera.ErrUnsupported: 422, pvera.ErrOverflow: 422, pvera.ErrCancelled: 500, pvera.ErrPanic: 500, pvera.ErrCUDA: 500,
		pvera.ErrClosed: 503,
	}
	for code := pvera.ErrNull; code <= pvera.ErrCUDA; code++ {
		if _, known := wanted[code]; !known {
			t.Errorf("code %d has no line here", code)
		}
	}
	for code, status := range wanted {
		err := fmt.Errorf("adapter 'one': %w", &pvera.Error{Code: code, Message: "a sentence"})
		if found := statusOf(err); found != status {
			t.Errorf("%v: status %d; wanted %d", code, found, status)
		}
	}
	for err, status := range map[error]int{errStopping: 503, context.Canceled: 499, context.DeadlineExceeded: 499, io.EOF: 500} {
		if found := statusOf(err); found != status {
			t.Errorf("%v: status %d; wanted %d", err, found, status)
		}
	}
}

// A request whose client has gone costs no pass, and one that goes meanwhile costs no further layer.
func TestCancellation(t *testing.T) {
	c := newClient(t)
	defer c.stop(t)
	gone, cancel := context.WithCancel(context.Background())
	cancel()
	c.batcher.compute([]*job{{ctx: gone, rows: [][]float32{pixels(1)}, samples: 2, answer: make(chan answer, 1)}})
	if passes := c.batcher.load()["passes"]; passes != 0 {
		t.Errorf("%d passes for nobody", passes)
	}
	leaving, cancel := context.WithCancel(context.Background())
	p := pass{jobs: []*job{{ctx: gone}, {ctx: leaving}}}
	snapshot := must(c.net.model.Snapshot())(t)
	defer snapshot.Close()
	layers := 0
	_, err := c.net.forward(snapshot, pixels(1), 1, &pvera.Rows{Slot: []int32{-1}}, nil, func() error {
		if layers++; layers == 2 {
			cancel()
		}
		return p.anybody()
	})
	if err != context.Canceled || layers != 2 {
		t.Errorf("after %d layers: %v", layers, err)
	}

	// Over HTTP: the client has its answer at once, though the server is busy, and the server goes on.
	var busy sync.WaitGroup
	for range 3 {
		busy.Go(func() {
			c.predict(context.Background(), question{Rows: [][]float32{pixels(1)}, Samples: largestPass})
		})
	}
	short, cancelShort := context.WithTimeout(context.Background(), 5*time.Millisecond)
	defer cancelShort()
	_, _, err = c.predict(short, question{Rows: [][]float32{pixels(1)}, Samples: largestPass})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a request with a deadline: %v", err)
	}
	busy.Wait()
	if _, _, err := c.predict(context.Background(), question{Rows: [][]float32{pixels(1)}}); err != nil {
		t.Error(err)
	}
}

// Requests that run when the server is asked to stop are answered; then nothing of it is left.
func TestShutdown(t *testing.T) {
	if !testhost.WithoutCaches(t) {
		return
	}
	before := runtime.NumGoroutine()
	var heap [20]int
	for round := range heap {
		oneLife(t)
		for end := time.Now().Add(5 * time.Second); runtime.NumGoroutine() > before && time.Now().Before(end); {
			time.Sleep(time.Millisecond)
		}
		if now := runtime.NumGoroutine(); now > before {
			buffer := make([]byte, 1<<16)
			t.Fatalf("%d goroutines before, %d after round %d\n%s", before, now, round, buffer[:runtime.Stack(buffer, true)])
		}
		heap[round] = testhost.HeapInUse()
	}
	// In the first lives the C library and Go's runtime get what they keep.
	const slack = 16 << 10 // threads that Go starts meanwhile
	if grown := heap[len(heap)-1] - heap[4]; grown > slack && !sanitized {
		t.Errorf("the C heap grew by %d bytes in %d lives; wanted at most %d", grown, len(heap)-5, slack)
	}
	t.Logf("C heap after each life: %v", heap)
}

// oneLife starts a server, loads and asks it, and stops it while it answers.
func oneLife(t *testing.T) {
	ctx, stop := context.WithCancel(context.Background())
	listener := must(net.Listen("tcp", "127.0.0.1:0"))(t)
	ended := make(chan error, 1)
	go func() { ended <- serve(ctx, listener, basePath) }()
	scratch := must(newNetwork(basePath, 0))(t)
	files := newCheckpoint(t, scratch, 1)
	if err := scratch.close(); err != nil {
		t.Error(err)
	}
	c := client{url: fmt.Sprint("http://", listener.Addr()), http: &http.Client{Transport: &http.Transport{}}}
	c.put(t, "one", files)
	var all sync.WaitGroup
	var answered atomic.Int64
	for worker := range 4 {
		all.Go(func() {
			for {
				_, status, err := c.predict(context.Background(), question{Adapter: "one", Rows: [][]float32{pixels(worker)}, Samples: 500})
				if err != nil {
					if status != 0 { // an answer, but not the right one; no connection is none
						t.Error(err)
					}
					return
				}
				answered.Add(1)
			}
		})
	}
	for answered.Load() < 8 {
		time.Sleep(time.Millisecond)
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	all.Wait()
	c.http.CloseIdleConnections()
}
