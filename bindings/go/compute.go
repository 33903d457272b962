// Computing: forward, sample, moments, latent, and forward in two halves.

package pvera

// #include "shim.h"
import "C"

import (
	"context"
	"math"
)

// call is what every computation of one layer has: the checked arguments, and uses of its handles until leave.
type call struct {
	context *Context
	linear  *Linear
	rows    C.pvera_rows
}

// begin checks x, named input, and what belongs to its rows.
func (c *Context) begin(linear *Linear, input string, x Matrix, rows *Rows) (call, error) {
	if err := c.enter(); err != nil {
		return call{}, err
	}
	if err := linear.own().enter("linear"); err != nil {
		c.leave()
		return call{}, err
	}
	begun := call{context: c, linear: linear}
	err := x.check(input)
	if err == nil {
		begun.rows, err = rows.c(x.rows)
	}
	if err != nil {
		begun.leave()
		return call{}, err
	}
	return begun, nil
}

func (c call) leave() {
	c.linear.object.leave()
	c.context.leave()
}

// Forward is y = x Wᵀ + bias + λ_b ∘ (z Bᵀ). A layer declared without a weight adds the delta to what y holds. A layer that the
// adapter does not adapt gets its base alone.
//
// rows, noise and tape may be nil. With a tape this is a training forward, and [Context.Backward] can follow.
func (c *Context) Forward(linear *Linear, x Matrix, rows *Rows, noise *Noise, tape *Tape, y Matrix) error {
	begun, err := c.begin(linear, "x", x, rows)
	if err != nil {
		return err
	}
	defer begun.leave()
	if err := y.check("y"); err != nil {
		return err
	}
	drawn, err := noise.c()
	if err != nil {
		return err
	}
	if tape != nil {
		return tape.record(c, []*Linear{linear}, x, noise, func() error {
			return c.result(C.pvera_go_forward(c.c(), linear.c(), x.c(), begun.rows, drawn, tape.c(), y.mut()))
		})
	}
	return c.result(C.pvera_go_forward(c.c(), linear.c(), x.c(), begun.rows, drawn, nil, y.mut()))
}

// drawsAtATime is how many draws [Context.Sample] makes between two looks at its ctx. Each look costs the base product and the
// product with A once more, which 32 draws outweigh.
const drawsAtATime = 32

// Sample is samples sampled forwards of every row, with sample numbers rows.Sample + 0 … samples - 1; the base product and the
// product with A are done once. Draw s of row i is row s·n + i of y [samples·n, out_features], bit for bit what Forward gives
// for that sample number. When ctx is cancelled, some draws may be in y.
func (c *Context) Sample(ctx context.Context, linear *Linear, x Matrix, rows *Rows, noise *Noise, samples int, y Matrix) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if ctx.Done() == nil || samples <= drawsAtATime || !divisible(x, rows, noise, samples, y) {
		return c.sample(linear, x, rows, noise, samples, y)
	}
	for first := 0; first < samples; first += drawsAtATime {
		if err := ctx.Err(); err != nil {
			return err
		}
		count := min(drawsAtATime, samples-first)
		own, drawn := rows.from(uint32(first)), noise.part(first*x.rows, count*x.rows)
		if err := c.sample(linear, x, own, drawn, count, y.part(first*x.rows, count*x.rows)); err != nil {
			return err
		}
	}
	return nil
}

// divisible says whether parts of the draws are what they are in one call. What is wrong is left whole, for the library to
// refuse before it writes.
func divisible(x Matrix, rows *Rows, noise *Noise, samples int, y Matrix) bool {
	if y.check("y") != nil || samples > math.MaxInt/max(x.rows, 1) || y.rows != samples*x.rows {
		return false
	}
	if noise != nil && !noise.Eps.absent() && (noise.Eps.check("eps") != nil || noise.Eps.rows != y.rows) {
		return false
	}
	if rows == nil {
		return samples <= math.MaxUint32
	}
	last := rows.SampleBase
	for _, sample := range rows.Sample {
		last = max(last, sample)
	}
	return rows.Device.onCPU() && samples-1 <= math.MaxUint32-int(last)
}

// from is the same rows with later sample numbers.
func (r *Rows) from(first uint32) *Rows {
	later := Rows{}
	if r != nil {
		later = *r
	}
	later.SampleBase += first
	if later.Sample != nil {
		later.Sample = append([]uint32(nil), later.Sample...)
		for i := range later.Sample {
			later.Sample[i] += first
		}
	}
	return &later
}

// part is the noise of some rows of y.
func (z *Noise) part(first, count int) *Noise {
	if z == nil || z.Eps.absent() {
		return z
	}
	own := *z
	own.Eps = z.Eps.part(first, count)
	return &own
}

// part is some rows of a matrix that was checked. A part without elements may begin where its slice ends.
func (m Matrix) part(first, count int) Matrix {
	if m.rows > 0 && m.cols > 0 && count > 0 {
		size := int(m.dtype.Bits) / 8
		m.data = pointerAt(m.data, first*m.stride*size)
		m.length -= first * m.stride
	}
	m.rows = count
	return m
}

func (c *Context) sample(linear *Linear, x Matrix, rows *Rows, noise *Noise, samples int, y Matrix) error {
	begun, err := c.begin(linear, "x", x, rows)
	if err != nil {
		return err
	}
	defer begun.leave()
	if samples < 0 {
		return errorf(ErrArgument, "samples is %d; wanted at least 1", samples)
	}
	if err := y.check("y"); err != nil {
		return err
	}
	drawn, err := noise.c()
	if err != nil {
		return err
	}
	return c.result(C.pvera_go_sample(c.c(), linear.c(), x.c(), begun.rows, drawn, C.size_t(samples), y.mut()))
}

// Moments is the exact mean and variance of y given x, without sampling, each [n, out_features]. A layer without a weight adds
// the mean delta to what mean holds; variance is set.
func (c *Context) Moments(linear *Linear, x Matrix, rows *Rows, mean, variance Matrix) error {
	begun, err := c.begin(linear, "x", x, rows)
	if err != nil {
		return err
	}
	defer begun.leave()
	if err := checkBoth("mean", mean, "variance", variance); err != nil {
		return err
	}
	return c.result(C.pvera_go_moments(c.c(), linear.c(), x.c(), begun.rows, mean.mut(), variance.mut()))
}

// Latent is the latent distribution of every row: mu and logvar [n, latents], columns as those of [Noise.Eps].
func (c *Context) Latent(linear *Linear, x Matrix, rows *Rows, mu, logvar Matrix) error {
	begun, err := c.begin(linear, "x", x, rows)
	if err != nil {
		return err
	}
	defer begun.leave()
	if err := checkBoth("mu", mu, "logvar", logvar); err != nil {
		return err
	}
	return c.result(C.pvera_go_latent(c.c(), linear.c(), x.c(), begun.rows, mu.mut(), logvar.mut()))
}

func checkBoth(first string, one Matrix, second string, other Matrix) error {
	if err := one.check(first); err != nil {
		return err
	}
	return other.check(second)
}

// Part is the share of a call that one of the host's goroutines does: Index of Count.
type Part struct{ Index, Count int }

// whole is how the shim knows a call without parts.
var whole = Part{}

func (p Part) check() error {
	if p.Count < 1 || p.Index < 0 {
		return errorf(ErrArgument, "part.Index is %d and part.Count is %d; wanted an index from 0 below a count from 1", p.Index,
			p.Count)
	}
	return nil
}

// Project is the first half of a forward: p = x Aᵀ, linear in x, so that tensor-parallel ranks that hold a part of the inputs
// sum their p before Expand. p is [n, width] f32; see [Linear.ProjectWidth].
func (c *Context) Project(linear *Linear, x Matrix, rows *Rows, noise *Noise, p Matrix) error {
	return c.project(linear, x, rows, noise, p, whole)
}

// ProjectPart is one part of Project. The parts of one call may run on any goroutines at the same time, with one Context.
func (c *Context) ProjectPart(linear *Linear, x Matrix, rows *Rows, noise *Noise, p Matrix, part Part) error {
	if err := part.check(); err != nil {
		return err
	}
	return c.project(linear, x, rows, noise, p, part)
}

func (c *Context) project(linear *Linear, x Matrix, rows *Rows, noise *Noise, p Matrix, part Part) error {
	begun, err := c.begin(linear, "x", x, rows)
	if err != nil {
		return err
	}
	defer begun.leave()
	if err := p.check("p"); err != nil {
		return err
	}
	drawn, err := noise.c()
	if err != nil {
		return err
	}
	return c.result(C.pvera_go_project(c.c(), linear.c(), x.c(), begun.rows, drawn, p.mut(), C.size_t(part.Index),
		C.size_t(part.Count)))
}

// Expand is the second half of a forward: y += λ_b ∘ (z Bᵀ) with z made from p; the base weight is not used.
func (c *Context) Expand(linear *Linear, p Matrix, rows *Rows, noise *Noise, y Matrix) error {
	return c.expand(linear, p, rows, noise, y, whole)
}

// ExpandPart is one part of Expand. All parts of Project come before any part of Expand.
func (c *Context) ExpandPart(linear *Linear, p Matrix, rows *Rows, noise *Noise, y Matrix, part Part) error {
	if err := part.check(); err != nil {
		return err
	}
	return c.expand(linear, p, rows, noise, y, part)
}

func (c *Context) expand(linear *Linear, p Matrix, rows *Rows, noise *Noise, y Matrix, part Part) error {
	begun, err := c.begin(linear, "p", p, rows)
	if err != nil {
		return err
	}
	defer begun.leave()
	if err := y.check("y"); err != nil {
		return err
	}
	drawn, err := noise.c()
	if err != nil {
		return err
	}
	return c.result(C.pvera_go_expand(c.c(), linear.c(), p.c(), begun.rows, drawn, y.mut(), C.size_t(part.Index),
		C.size_t(part.Count)))
}
