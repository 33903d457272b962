// Statistics over Monte Carlo passes, in memory that does not grow.

package pvera

// #include "shim.h"
import "C"

import (
	"sync"
	"unsafe"
)

// Statistics is that of rows × outputs values over any number of passes. The order of passes decides the last bits.
//
// The methods that give numbers put them into the slice into, if it has room, or a new one.
type Statistics struct {
	object        *object
	rows, outputs int
	guard         sync.RWMutex
}

// NewStatistics is statistics without a pass.
func NewStatistics(rows, outputs int, allocator Allocator) (*Statistics, error) {
	if rows < 0 || outputs < 0 {
		return nil, errorf(ErrArgument, "rows is %d and outputs is %d; wanted no negative number", rows, outputs)
	}
	own := allocator.c()
	var pointer *C.pvera_statistics
	if err := take(C.pvera_statistics_new(C.size_t(rows), C.size_t(outputs), &own, &pointer)); err != nil {
		return nil, err
	}
	object := newObject("statistics", unsafe.Pointer(pointer), func(statistics unsafe.Pointer) {
		C.pvera_statistics_free((*C.pvera_statistics)(statistics))
	})
	return watch(&Statistics{object: object, rows: rows, outputs: outputs}, object), nil
}

// Close gives the statistics back.
func (s *Statistics) Close() error {
	s.own().close()
	return nil
}

func (s *Statistics) own() *object {
	if s == nil {
		return nil
	}
	return s.object
}

func (s *Statistics) c() *C.pvera_statistics { return (*C.pvera_statistics)(s.object.pointer) }

// Rows is the number of rows.
func (s *Statistics) Rows() int { return s.rows }

// Outputs is the number of outputs of a row.
func (s *Statistics) Outputs() int { return s.outputs }

func (s *Statistics) write(call func() *C.pvera_error) error {
	if err := s.own().enter("statistics"); err != nil {
		return err
	}
	defer s.object.leave()
	s.guard.Lock()
	defer s.guard.Unlock()
	return take(call())
}

func (s *Statistics) read(call func() *C.pvera_error) error {
	if err := s.own().enter("statistics"); err != nil {
		return err
	}
	defer s.object.leave()
	s.guard.RLock()
	defer s.guard.RUnlock()
	return take(call())
}

// Clear forgets all passes.
func (s *Statistics) Clear() error {
	return s.write(func() *C.pvera_error { return C.pvera_statistics_clear(s.c()) })
}

// Add adds one pass over all rows: values [rows, outputs], logits where they are classes.
func (s *Statistics) Add(values Matrix) error {
	if err := values.check("values"); err != nil {
		return err
	}
	return s.write(func() *C.pvera_error { return C.pvera_go_statistics_add(s.c(), values.c()) })
}

// AddRows adds a pass over some rows: row i of values is a pass of row rows[i].
func (s *Statistics) AddRows(rows []int, values Matrix) error {
	if err := values.check("values"); err != nil {
		return err
	}
	for i, row := range rows {
		if row < 0 {
			return errorf(ErrArgument, "rows[%d] is %d; wanted a row from 0", i, row)
		}
	}
	numbers := (*C.size_t)(unsafe.Pointer(unsafe.SliceData(rows)))
	return s.write(func() *C.pvera_error {
		return C.pvera_go_statistics_add_rows(s.c(), C.size_t(len(rows)), numbers, values.c())
	})
}

// A row number of Go is as wide as one of C.
var _ = [1]struct{}{}[unsafe.Sizeof(int(0))-unsafe.Sizeof(C.size_t(0))]

// room is into with count places, or a new slice.
func room[T any](into []T, count int) []T {
	if cap(into) < count {
		return make([]T, count)
	}
	return into[:count]
}

// counts runs a call that gives count numbers.
func (s *Statistics) counts(into []uint32, perRow int,
	call func(*C.pvera_statistics, C.size_t, *C.uint32_t) *C.pvera_error) ([]uint32, error) {
	if err := s.own().enter("statistics"); err != nil {
		return nil, err
	}
	defer s.object.leave()
	into = room(into, s.rows*perRow)
	err := s.read(func() *C.pvera_error {
		return call(s.c(), C.size_t(len(into)), (*C.uint32_t)(unsafe.SliceData(into)))
	})
	return into, err
}

// numbers runs a call that gives count numbers.
func (s *Statistics) numbers(into []float64, perRow int,
	call func(*C.pvera_statistics, C.size_t, *C.double) *C.pvera_error) ([]float64, error) {
	if err := s.own().enter("statistics"); err != nil {
		return nil, err
	}
	defer s.object.leave()
	into = room(into, s.rows*perRow)
	err := s.read(func() *C.pvera_error {
		return call(s.c(), C.size_t(len(into)), (*C.double)(unsafe.SliceData(into)))
	})
	return into, err
}

// Interval is a lower and an upper bound for each value.
type Interval struct{ Lower, Upper []float64 }

// interval runs a call that gives two bounds for each value.
func (s *Statistics) interval(into Interval, perRow int, level float64,
	call func(*C.pvera_statistics, C.double, C.size_t, *C.double, *C.double) *C.pvera_error) (Interval, error) {
	var err error
	into.Lower, err = s.numbers(into.Lower, perRow, func(own *C.pvera_statistics, count C.size_t, lower *C.double) *C.pvera_error {
		into.Upper = room(into.Upper, int(count))
		return call(own, C.double(level), count, lower, (*C.double)(unsafe.SliceData(into.Upper)))
	})
	return into, err
}

// Passes is how many passes each row has had.
func (s *Statistics) Passes(into []uint32) ([]uint32, error) {
	return s.counts(into, 1, func(own *C.pvera_statistics, count C.size_t, passes *C.uint32_t) *C.pvera_error {
		return C.pvera_statistics_passes(own, count, passes)
	})
}

// Votes is how often each output was the largest of its row, [rows, outputs].
func (s *Statistics) Votes(into []uint32) ([]uint32, error) {
	return s.counts(into, s.outputs, func(own *C.pvera_statistics, count C.size_t, votes *C.uint32_t) *C.pvera_error {
		return C.pvera_statistics_votes(own, count, votes)
	})
}

// Mean is that of every value, [rows, outputs].
func (s *Statistics) Mean(into []float64) ([]float64, error) {
	return s.numbers(into, s.outputs, func(own *C.pvera_statistics, count C.size_t, mean *C.double) *C.pvera_error {
		return C.pvera_statistics_mean(own, count, mean)
	})
}

// Variance is the unbiased one of every value, [rows, outputs]. Needs two passes of every row.
func (s *Statistics) Variance(into []float64) ([]float64, error) {
	return s.numbers(into, s.outputs, func(own *C.pvera_statistics, count C.size_t, variance *C.double) *C.pvera_error {
		return C.pvera_statistics_variance(own, count, variance)
	})
}

// MeanInterval is Student's interval of the mean at level (0.95), [rows, outputs]: how well the passes know the mean.
func (s *Statistics) MeanInterval(into Interval, level float64) (Interval, error) {
	return s.interval(into, s.outputs, level,
		func(own *C.pvera_statistics, level C.double, count C.size_t, lower, upper *C.double) *C.pvera_error {
			return C.pvera_statistics_mean_interval(own, level, count, lower, upper)
		})
}

// PredictiveInterval is Student's interval of one further draw at level, [rows, outputs]: how far predictions scatter.
func (s *Statistics) PredictiveInterval(into Interval, level float64) (Interval, error) {
	return s.interval(into, s.outputs, level,
		func(own *C.pvera_statistics, level C.double, count C.size_t, lower, upper *C.double) *C.pvera_error {
			return C.pvera_statistics_predictive_interval(own, level, count, lower, upper)
		})
}

// MeanProbabilities is the mean over passes of every class's softmax probability, [rows, outputs].
func (s *Statistics) MeanProbabilities(into []float64) ([]float64, error) {
	return s.numbers(into, s.outputs, func(own *C.pvera_statistics, count C.size_t, mean *C.double) *C.pvera_error {
		return C.pvera_statistics_mean_probabilities(own, count, mean)
	})
}

// MostVoted is the class that most passes of a row chose, [rows]; of equal ones the first.
func (s *Statistics) MostVoted(into []uint32) ([]uint32, error) {
	return s.counts(into, 1, func(own *C.pvera_statistics, count C.size_t, classes *C.uint32_t) *C.pvera_error {
		return C.pvera_statistics_most_voted(own, count, classes)
	})
}

// MostVotedInterval is Student's interval at level of the most voted class's mean probability, cut to [0, 1], [rows]: that of
// PEFT's PVeRA example.
func (s *Statistics) MostVotedInterval(into Interval, level float64) (Interval, error) {
	return s.interval(into, 1, level,
		func(own *C.pvera_statistics, level C.double, count C.size_t, lower, upper *C.double) *C.pvera_error {
			return C.pvera_statistics_most_voted_interval(own, level, count, lower, upper)
		})
}

// PredictiveEntropy is the entropy of the mean probabilities in nats, [rows]: all uncertainty of the prediction.
func (s *Statistics) PredictiveEntropy(into []float64) ([]float64, error) {
	return s.numbers(into, 1, func(own *C.pvera_statistics, count C.size_t, entropy *C.double) *C.pvera_error {
		return C.pvera_statistics_predictive_entropy(own, count, entropy)
	})
}

// MutualInformation is predictive entropy less the mean entropy of a pass, in nats, [rows]: the part that comes from the
// adapter.
func (s *Statistics) MutualInformation(into []float64) ([]float64, error) {
	return s.numbers(into, 1, func(own *C.pvera_statistics, count C.size_t, information *C.double) *C.pvera_error {
		return C.pvera_statistics_mutual_information(own, count, information)
	})
}
