// Early stopping and calibration.

package pvera

// #include "shim.h"
import "C"

import (
	"context"
	"unsafe"
)

// Stopping says when to stop drawing. Looks are at 8, 16, 32, … passes.
type Stopping struct {
	// ErrorLevel is the most that the chance of a wrong decision on a row may be, over all looks: 0.05.
	ErrorLevel float64
	// MaximumPasses is where drawing ends at the latest.
	MaximumPasses uint32
}

func (s Stopping) c() C.pvera_stopping {
	return C.pvera_stopping{struct_size: C.sizeof_pvera_stopping, error_level: C.double(s.ErrorLevel),
		maximum_passes: C.uint32_t(s.MaximumPasses)}
}

// NextLook is how many passes a row has at the look after passes; passes itself when no look is left.
func (s Stopping) NextLook(passes uint32) (uint32, error) {
	own := s.c()
	var look C.uint32_t
	err := take(C.pvera_stopping_next_look(&own, C.uint32_t(passes), &look))
	return uint32(look), err
}

// Undecided are the rows whose most voted class is not settled. Call it when every row has as many passes as a look, then draw on
// for these rows only ([Statistics.AddRows]).
func (s Stopping) Undecided(statistics *Statistics) ([]int, error) {
	return s.rows(statistics,
		func(own *C.pvera_stopping, c *C.pvera_statistics, capacity C.size_t, rows, count *C.size_t) *C.pvera_error {
			return C.pvera_stopping_undecided(own, c, capacity, rows, count)
		})
}

// Imprecise are the rows of which some output's mean is not yet known to ± tolerance; otherwise as Undecided.
func (s Stopping) Imprecise(statistics *Statistics, tolerance float64) ([]int, error) {
	return s.rows(statistics,
		func(own *C.pvera_stopping, c *C.pvera_statistics, capacity C.size_t, rows, count *C.size_t) *C.pvera_error {
			return C.pvera_stopping_imprecise(own, c, C.double(tolerance), capacity, rows, count)
		})
}

func (s Stopping) rows(statistics *Statistics,
	call func(*C.pvera_stopping, *C.pvera_statistics, C.size_t, *C.size_t, *C.size_t) *C.pvera_error) ([]int, error) {
	if err := statistics.own().enter("statistics"); err != nil {
		return nil, err
	}
	defer statistics.object.leave()
	own := s.c()
	rows := make([]int, statistics.rows)
	var count C.size_t
	err := statistics.read(func() *C.pvera_error {
		return call(&own, statistics.c(), C.size_t(len(rows)), (*C.size_t)(unsafe.Pointer(unsafe.SliceData(rows))), &count)
	})
	if err != nil {
		return nil, err
	}
	return rows[:count], nil
}

// Draw draws passes until every row is settled or has MaximumPasses, and returns the rows that are not settled. draw adds passes
// from … to - 1 of some rows to the statistics, which have no pass before. When ctx is cancelled, Draw returns its error before
// the next look; draw gets ctx to stop earlier.
func (s Stopping) Draw(ctx context.Context, statistics *Statistics,
	draw func(ctx context.Context, rows []int, from, to uint32) error) (undecided []int, err error) {
	if err := statistics.own().enter("statistics"); err != nil {
		return nil, err
	}
	defer statistics.object.leave()
	undecided = make([]int, statistics.rows)
	for row := range undecided {
		undecided[row] = row
	}
	for passes := uint32(0); len(undecided) > 0; {
		if err := ctx.Err(); err != nil {
			return undecided, err
		}
		look, err := s.NextLook(passes)
		if err != nil || look == passes {
			return undecided, err
		}
		if err := draw(ctx, undecided, passes, look); err != nil {
			return undecided, err
		}
		if undecided, err = s.Undecided(statistics); err != nil {
			return nil, err
		}
		passes = look
	}
	return undecided, nil
}

// Bin is one bar of a reliability diagram.
type Bin struct {
	// Count is how many predictions had a confidence in this bin.
	Count uint64
	// Confidence is their mean, and Accuracy the share of them that was right; 0 in an empty bin.
	Confidence, Accuracy float64
}

// An array of Bin is an array of pvera_bin.
var _ = [1]struct{}{}[unsafe.Sizeof(Bin{})-unsafe.Sizeof(C.pvera_bin{})]

// Calibration is how far confidence and accuracy differ (Guo et al. 2017).
type Calibration struct {
	Bins []Bin
	// ExpectedError and MaximumError are the mean and the largest gap (ECE and MCE).
	ExpectedError, MaximumError float64
}

// Calibrate compares the confidence (0 to 1) of predictions with whether each was right, in bins of equal width.
func Calibrate(confidence []float64, correct []bool, bins int) (Calibration, error) {
	if len(confidence) != len(correct) {
		return Calibration{}, errorf(ErrShape, "correct has %d entries; wanted %d, one for each confidence", len(correct),
			len(confidence))
	}
	if bins < 0 {
		return Calibration{}, errorf(ErrArgument, "bins is %d; wanted at least 1", bins)
	}
	result := Calibration{Bins: make([]Bin, bins)}
	var gaps [2]C.double
	err := take(C.pvera_calibration(C.size_t(len(confidence)), (*C.double)(unsafe.SliceData(confidence)),
		(*C.uint8_t)(unsafe.Pointer(unsafe.SliceData(correct))), C.size_t(bins),
		(*C.pvera_bin)(unsafe.Pointer(unsafe.SliceData(result.Bins))), &gaps[0], &gaps[1]))
	if err != nil {
		return Calibration{}, err
	}
	result.ExpectedError, result.MaximumError = float64(gaps[0]), float64(gaps[1])
	return result, nil
}
