// HTTP: what is asked, what is answered, and what an error is called there.

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	"pvera.invalid/pvera"
)

const (
	level          = 0.95
	defaultSamples = 16
	largestBody    = 64 << 20
)

// question is the body of POST /predict.
type question struct {
	Adapter string      `json:"adapter"`
	Rows    [][]float32 `json:"rows"`
	// Identity is that of the first row; the same identity draws the same noise.
	Identity uint64 `json:"identity"`
	// Samples is how many draws, at least 2; 0 is 16.
	Samples int `json:"samples"`
}

// prediction is the answer. Each list has one entry a row, and in it one a class.
type prediction struct {
	Adapter string `json:"adapter"`
	Version int    `json:"version"` // 0: the base alone
	// Mean logits, with the interval that the draws know them to.
	Mean  [][]float64 `json:"mean"`
	Lower [][]float64 `json:"lower"`
	Upper [][]float64 `json:"upper"`
	// Probabilities are means over the draws. Class is the one that most draws chose, Chance the interval of its probability.
	Probabilities [][]float64  `json:"probabilities"`
	Class         []uint32     `json:"class"`
	Chance        [][2]float64 `json:"chance"`
}

// service is the whole server but for the listening.
type service struct {
	net      *network
	registry *registry
	batcher  *batcher
}

func newService(base string, threads int) (*service, error) {
	net, err := newNetwork(base, threads)
	if err != nil {
		return nil, err
	}
	own := &registry{model: net.model, versions: map[string]int{}}
	return &service{net, own, newBatcher(net, own)}, nil
}

// close comes after the last request.
func (s *service) close() error {
	s.batcher.close()
	return s.net.close()
}

func (s *service) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /predict", answering(s.predict))
	mux.HandleFunc("GET /adapters", answering(func(*http.Request) (any, error) { return s.registry.list(), nil }))
	mux.HandleFunc("GET /load", answering(func(*http.Request) (any, error) { return s.batcher.load(), nil }))
	mux.HandleFunc("PUT /adapters/{name}", answering(s.put))
	mux.HandleFunc("DELETE /adapters/{name}", answering(s.remove))
	return mux
}

// answering writes what a handler gives, or its error.
func answering(handle func(*http.Request) (any, error)) http.HandlerFunc {
	return func(writer http.ResponseWriter, request *http.Request) {
		request.Body = http.MaxBytesReader(writer, request.Body, largestBody)
		given, err := handle(request)
		writer.Header().Set("Content-Type", "application/json")
		if err != nil {
			given = map[string]string{"error": err.Error()}
			writer.WriteHeader(statusOf(err))
		}
		json.NewEncoder(writer).Encode(given) // an error here means that nobody listens any more
	}
}

// wrong is an error of the request.
type wrong struct{ error }

func (w wrong) Unwrap() error { return w.error }

func statusOf(err error) int {
	const clientGone = 499 // nginx's; nobody reads it
	var asked wrong
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return http.StatusRequestEntityTooLarge
	case errors.As(err, &asked):
		return http.StatusBadRequest
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return clientGone
	case errors.Is(err, errStopping), errors.Is(err, pvera.ErrClosed):
		return http.StatusServiceUnavailable
	case errors.Is(err, pvera.ErrNotFound):
		return http.StatusNotFound
	case errors.Is(err, pvera.ErrFormat), errors.Is(err, pvera.ErrConfig), errors.Is(err, pvera.ErrProjection),
		errors.Is(err, pvera.ErrShape), errors.Is(err, pvera.ErrOverflow), errors.Is(err, pvera.ErrArgument),
		errors.Is(err, pvera.ErrDType), errors.Is(err, pvera.ErrUnsupported):
		return http.StatusUnprocessableEntity
	}
	return http.StatusInternalServerError
}

// decode reads the one object that a body is. A field that nobody knows is an error: it may be one that was misspelt.
func decode(request *http.Request, into any) error {
	decoder := json.NewDecoder(request.Body)
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(into); err != nil {
		return wrong{err}
	}
	if _, err := decoder.Token(); err != io.EOF {
		return wrong{errors.New("something follows the object; wanted the end")}
	}
	return nil
}

func (s *service) put(request *http.Request) (any, error) {
	var checkpoint struct {
		Config  json.RawMessage `json:"config"`
		Tensors []byte          `json:"tensors"`
	}
	if err := decode(request, &checkpoint); err != nil {
		return nil, err
	}
	version, err := s.registry.put(request.Context(), request.PathValue("name"), checkpoint.Config, checkpoint.Tensors)
	return map[string]int{"version": version}, err
}

func (s *service) remove(request *http.Request) (any, error) {
	return struct{}{}, s.registry.remove(request.PathValue("name"))
}

func (s *service) predict(request *http.Request) (any, error) {
	var asked question
	if err := decode(request, &asked); err != nil {
		return nil, err
	}
	if asked.Samples == 0 {
		asked.Samples = defaultSamples
	}
	if err := asked.check(s.net.inputs()); err != nil {
		return nil, wrong{err}
	}
	given := s.batcher.do(&job{ctx: request.Context(), adapter: asked.Adapter, rows: asked.Rows, identity: asked.Identity,
		samples: asked.Samples})
	if given.err != nil {
		return nil, given.err
	}
	return summarise(&asked, given, s.net.outputs())
}

func (q *question) check(inputs int) error {
	if len(q.Rows) == 0 {
		return errors.New("rows is empty; wanted at least one")
	}
	if q.Samples < 2 || q.Samples > largestPass/len(q.Rows) {
		return fmt.Errorf("samples is %d; wanted 2 to %d for %d rows", q.Samples, largestPass/len(q.Rows), len(q.Rows))
	}
	for i, row := range q.Rows {
		if len(row) != inputs {
			return fmt.Errorf("rows[%d] has %d numbers; wanted %d", i, len(row), inputs)
		}
	}
	return nil
}

// summarise is what the draws say.
func summarise(asked *question, given answer, outputs int) (*prediction, error) {
	rows := len(asked.Rows)
	statistics, err := pvera.NewStatistics(rows, outputs, pvera.Allocator{})
	if err != nil {
		return nil, err
	}
	defer statistics.Close()
	for sample := range asked.Samples {
		if err := statistics.Add(pvera.Dense(given.logits[sample*rows*outputs:], rows, outputs)); err != nil {
			return nil, err
		}
	}
	mean, err := statistics.Mean(nil)
	if err != nil {
		return nil, err
	}
	interval, err := statistics.MeanInterval(pvera.Interval{}, level)
	if err != nil {
		return nil, err
	}
	probabilities, err := statistics.MeanProbabilities(nil)
	if err != nil {
		return nil, err
	}
	class, err := statistics.MostVoted(nil)
	if err != nil {
		return nil, err
	}
	chance, err := statistics.MostVotedInterval(pvera.Interval{}, level)
	if err != nil {
		return nil, err
	}
	answered := &prediction{Adapter: asked.Adapter, Version: given.version, Mean: byRow(mean, outputs),
		Lower: byRow(interval.Lower, outputs), Upper: byRow(interval.Upper, outputs), Probabilities: byRow(probabilities, outputs),
		Class: class}
	for row := range rows {
		answered.Chance = append(answered.Chance, [2]float64{chance.Lower[row], chance.Upper[row]})
	}
	return answered, nil
}

func byRow(values []float64, outputs int) (rows [][]float64) {
	for ; len(values) > 0; values = values[outputs:] {
		rows = append(rows, values[:outputs])
	}
	return rows
}
