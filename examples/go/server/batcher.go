// The batcher: whatever has arrived while one batch was computed is the next one, with an adapter and noise of its own in each
// row. A row has the same bits in any batch, so nobody can tell with whom a request was computed.

package main

import (
	"context"
	"errors"
	"sync/atomic"

	"pvera.invalid/pvera"
)

const (
	seed        = 1
	largestPass = 1 << 14 // rows of one forward, at most
)

var errStopping = errors.New("the server is stopping")

// job is one request on its way.
type job struct {
	ctx     context.Context
	adapter string // "": the base alone
	rows    [][]float32
	// identity is that of the first row; the next ones count on. Noise belongs to it.
	identity uint64
	samples  int
	answer   chan answer // has room for one
}

// answer is the draws of a job: draw s of row i is row s·rows + i of logits.
type answer struct {
	logits  []float32
	version int
	err     error
}

// drawn is how many rows of a pass the job needs.
func (j *job) drawn() int { return len(j.rows) * j.samples }

type batcher struct {
	net      *network
	registry *registry
	jobs     chan *job
	stopping chan struct{}
	stopped  chan struct{}

	requests, passes atomic.Int64
}

func newBatcher(net *network, registry *registry) *batcher {
	b := &batcher{net: net, registry: registry, jobs: make(chan *job), stopping: make(chan struct{}), stopped: make(chan struct{})}
	go b.run()
	return b
}

// close waits for the batch that runs.
func (b *batcher) close() {
	close(b.stopping)
	<-b.stopped
}

// do waits for the answer, or for the end of the job's context.
func (b *batcher) do(wanted *job) answer {
	wanted.answer = make(chan answer, 1)
	select {
	case b.jobs <- wanted:
	case <-wanted.ctx.Done():
		return answer{err: wanted.ctx.Err()}
	case <-b.stopping:
		return answer{err: errStopping}
	}
	select {
	case given := <-wanted.answer:
		return given
	case <-wanted.ctx.Done():
		return answer{err: wanted.ctx.Err()}
	}
}

func (b *batcher) run() {
	defer close(b.stopped)
	var first *job // what the last batch had no room for, if anything
	for {
		if first == nil {
			select {
			case first = <-b.jobs:
			case <-b.stopping:
				return
			}
		}
		var batch []*job
		batch, first = b.collect(first)
		b.requests.Add(int64(len(batch)))
		b.compute(batch)
	}
}

// collect takes what else is waiting, up to the largest pass. A job that does not fit any more begins the next batch.
func (b *batcher) collect(first *job) (batch []*job, next *job) {
	batch, rows := []*job{first}, first.drawn()
	for rows < largestPass {
		select {
		case next := <-b.jobs:
			if next.drawn() > largestPass-rows {
				return batch, next
			}
			batch, rows = append(batch, next), rows+next.drawn()
		default:
			return batch, nil
		}
	}
	return batch, nil
}

// pass is one forward in the making: a row for each draw of each job.
type pass struct {
	view  view
	jobs  []*job
	x     []float32
	slots []int32
	// identities and samples say whose noise each row has.
	identities []uint64
	samples    []uint32
}

func (b *batcher) compute(batch []*job) {
	now, err := b.registry.view()
	if err != nil {
		for _, wanted := range batch {
			wanted.answer <- answer{err: err}
		}
		return
	}
	defer now.Close()
	p := pass{view: now}
	for _, wanted := range batch {
		if err := p.add(wanted); err != nil {
			wanted.answer <- answer{err: err}
		}
	}
	if len(p.jobs) == 0 {
		return
	}
	logits, err := b.forward(&p)
	if err == nil || len(p.jobs) == 1 {
		p.reply(logits, b.net.outputs(), err)
		return
	}
	for _, wanted := range p.jobs { // what overflows in one job is not the others' fault
		alone := pass{view: now}
		if err = alone.add(wanted); err == nil {
			logits, err = b.forward(&alone)
		}
		alone.jobs = []*job{wanted}
		alone.reply(logits, b.net.outputs(), err)
	}
}

func (b *batcher) forward(p *pass) ([]float32, error) {
	b.passes.Add(1)
	rows := pvera.Rows{Slot: p.slots, Identity: p.identities, Sample: p.samples}
	noise := pvera.Noise{Mode: pvera.Sample, Seed: seed}
	return b.net.forward(p.view.Snapshot, p.x, len(p.slots), &rows, &noise, p.anybody)
}

// load is for an operator's curves.
func (b *batcher) load() map[string]int64 {
	return map[string]int64{"requests": b.requests.Load(), "passes": b.passes.Load()}
}

// reply gives each job its draws, or the error of all.
func (p *pass) reply(logits []float32, outputs int, err error) {
	for _, wanted := range p.jobs {
		if err != nil {
			wanted.answer <- answer{err: err}
			continue
		}
		size := wanted.drawn() * outputs
		wanted.answer <- answer{logits: logits[:size:size], version: p.view.versions[wanted.adapter]}
		logits = logits[size:]
	}
}

func (p *pass) add(wanted *job) error {
	if err := wanted.ctx.Err(); err != nil {
		return err // nobody waits for it
	}
	slot := int32(-1)
	if wanted.adapter != "" {
		var err error
		if slot, err = p.view.Slot(wanted.adapter); err != nil {
			return err
		}
	}
	for sample := range wanted.samples {
		for i, row := range wanted.rows {
			p.x = append(p.x, row...)
			p.slots = append(p.slots, slot)
			p.identities = append(p.identities, wanted.identity+uint64(i))
			p.samples = append(p.samples, uint32(sample))
		}
	}
	p.jobs = append(p.jobs, wanted)
	return nil
}

// anybody is an error when everybody who waits for the pass has gone.
func (p *pass) anybody() error {
	var err error
	for _, wanted := range p.jobs {
		if err = wanted.ctx.Err(); err == nil {
			return nil
		}
	}
	return err
}
