// Statistics, early stopping, calibration, configs: against formulas written down here.

package pvera_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"testing"

	"pvera.invalid/pvera"
)

func near(t *testing.T, what string, found, wanted float64) {
	t.Helper()
	if !(math.Abs(found-wanted) <= 1e-9*max(1, math.Abs(wanted))) {
		t.Errorf("%s is %v; wanted %v", what, found, wanted)
	}
}

// softmaxAndEntropy of a row of logits.
func softmaxAndEntropy(logits []float32) (probabilities []float64, entropy float64) {
	sum := 0.0
	for _, logit := range logits {
		probabilities = append(probabilities, math.Exp(float64(logit)))
		sum += probabilities[len(probabilities)-1]
	}
	for i := range probabilities {
		probabilities[i] /= sum
	}
	return probabilities, entropyOf(probabilities)
}

func entropyOf(probabilities []float64) (entropy float64) {
	for _, p := range probabilities {
		entropy -= p * math.Log(p)
	}
	return entropy
}

func TestStatistics(t *testing.T) {
	const rows, classes, count = 2, 3, 5
	const student = 2.7764451051977934 // of 4 degrees of freedom at 0.95
	statistics := must(pvera.NewStatistics(rows, classes, pvera.Allocator{}))(t)
	defer statistics.Close()
	draws := fill(make([]float32, count*rows*classes), 31)
	for pass := range count {
		values := pvera.Dense(draws[pass*rows*classes:], rows, classes)
		if pass%2 == 0 {
			check(t, statistics.Add(values))
		} else { // the same, row by row
			check(t, statistics.AddRows([]int{1, 0}, pvera.Dense([]float32{values.At(1, 0), values.At(1, 1), values.At(1, 2),
				values.At(0, 0), values.At(0, 1), values.At(0, 2)}, rows, classes)))
		}
	}
	mean, variance := must(statistics.Mean(nil))(t), must(statistics.Variance(make([]float64, 0, 6)))(t)
	interval := must(statistics.MeanInterval(pvera.Interval{}, 0.95))(t)
	further := must(statistics.PredictiveInterval(pvera.Interval{}, 0.95))(t)
	probabilities, votes := must(statistics.MeanProbabilities(nil))(t), must(statistics.Votes(nil))(t)
	chosen, chance := must(statistics.MostVoted(nil))(t), must(statistics.MostVotedInterval(pvera.Interval{}, 0.95))(t)
	entropy, information := must(statistics.PredictiveEntropy(nil))(t), must(statistics.MutualInformation(nil))(t)
	for row := range rows {
		wantedP, wantedVotes, meanEntropy := make([]float64, classes), make([]uint32, classes), 0.0
		for pass := range count {
			logits := draws[(pass*rows+row)*classes:][:classes]
			p, entropy := softmaxAndEntropy(logits)
			best := 0
			for class := range classes {
				wantedP[class] += p[class] / count
				if logits[class] > logits[best] {
					best = class
				}
			}
			wantedVotes[best]++
			meanEntropy += entropy / count
		}
		best := 0
		for class := range classes {
			i, sum, squares := row*classes+class, 0.0, 0.0
			for pass := range count {
				sum += float64(draws[(pass*rows+row)*classes+class])
			}
			for pass := range count {
				squares += math.Pow(float64(draws[(pass*rows+row)*classes+class])-sum/count, 2)
			}
			half := student * math.Sqrt(squares/(count-1)/count)
			halfFurther := student * math.Sqrt(squares/(count-1)*(1+1.0/count))
			near(t, "mean", mean[i], sum/count)
			near(t, "variance", variance[i], squares/(count-1))
			near(t, "lower", interval.Lower[i], sum/count-half)
			near(t, "upper", interval.Upper[i], sum/count+half)
			near(t, "lower of a draw", further.Lower[i], sum/count-halfFurther)
			near(t, "upper of a draw", further.Upper[i], sum/count+halfFurther)
			near(t, "probability", probabilities[i], wantedP[class])
			near(t, "votes", float64(votes[i]), float64(wantedVotes[class]))
			if wantedVotes[class] > wantedVotes[best] {
				best = class
			}
		}
		squares := 0.0
		for pass := range count {
			p, _ := softmaxAndEntropy(draws[(pass*rows+row)*classes:][:classes])
			squares += math.Pow(p[best]-wantedP[best], 2)
		}
		half := student * math.Sqrt(squares/(count-1)/count)
		near(t, "most voted", float64(chosen[row]), float64(best))
		near(t, "lower of its probability", chance.Lower[row], max(0, wantedP[best]-half))
		near(t, "upper of its probability", chance.Upper[row], min(1, wantedP[best]+half))
		near(t, "entropy", entropy[row], entropyOf(wantedP))
		near(t, "information", information[row], entropyOf(wantedP)-meanEntropy)
	}
	refused(t, statistics.Add(pvera.Dense([]float32{1, 2, float32(math.NaN()), 4, 5, 6}, rows, classes)), pvera.ErrOverflow)
	check(t, statistics.Clear())
	if passes := must(statistics.Passes(nil))(t); passes[0] != 0 || passes[1] != 0 {
		t.Errorf("passes are %v after Clear", passes)
	}
}

// Row 0 is always of class 1; row 1 alternates, so that it is never settled.
func TestStopping(t *testing.T) {
	statistics := must(pvera.NewStatistics(2, 2, pvera.Allocator{}))(t)
	defer statistics.Close()
	stopping := pvera.Stopping{ErrorLevel: 0.05, MaximumPasses: 32}
	var looks []string
	draw := func(_ context.Context, rows []int, from, to uint32) error {
		looks = append(looks, fmt.Sprint(rows, from, to))
		for pass := from; pass < to; pass++ {
			values := make([]float32, 0, 4)
			for _, row := range rows {
				one := row == 0 || pass%2 == 0
				values = append(values, map[bool][]float32{true: {0, 1}, false: {1, 0}}[one]...)
			}
			if err := statistics.AddRows(rows, pvera.Dense(values, len(rows), 2)); err != nil {
				return err
			}
		}
		return nil
	}
	undecided := must(stopping.Draw(context.Background(), statistics, draw))(t)
	if fmt.Sprint(undecided) != "[1]" || looks[0] != "[0 1] 0 8" || looks[len(looks)-1] != "[1] 16 32" {
		t.Errorf("undecided are %v after %v", undecided, looks)
	}
	if passes := must(statistics.Passes(nil))(t); passes[0] >= passes[1] || passes[1] != 32 {
		t.Errorf("passes are %v", passes)
	}
	if rows := must(stopping.Imprecise(statistics, 1e-6))(t); fmt.Sprint(rows) != "[1]" {
		t.Errorf("imprecise are %v; row 0 is always the same", rows)
	}
	check(t, statistics.Clear())
	ctx, cancel := context.WithCancel(context.Background())
	_, err := stopping.Draw(ctx, statistics, func(ctx context.Context, rows []int, from, to uint32) error {
		cancel()
		return draw(ctx, rows, from, to)
	})
	if err != context.Canceled {
		t.Errorf("got %v; wanted context.Canceled itself", err)
	}
}

func TestCalibrate(t *testing.T) {
	result := must(pvera.Calibrate([]float64{0.95, 0.85, 0.1, 0.2}, []bool{true, false, false, true}, 2))(t)
	if result.Bins[0].Count != 2 || result.Bins[1].Count != 2 {
		t.Errorf("the bins are %+v", result.Bins)
	}
	near(t, "confidence", result.Bins[1].Confidence, 0.9)
	near(t, "accuracy", result.Bins[1].Accuracy, 0.5)
	near(t, "expected error", result.ExpectedError, (0.4+0.35)/2)
	near(t, "maximum error", result.MaximumError, 0.4)
}

func TestConfig(t *testing.T) {
	config := must(pvera.NewConfig())(t)
	defer config.Close()
	check(t, config.SetInt("r", 8))
	check(t, config.SetReal("alpha", 2.5))
	check(t, config.SetBool("sample_at_inference", true))
	check(t, config.SetText("target_modules", `.*\.q`))
	check(t, config.Validate())
	parsed := must(pvera.ParseConfig(must(json.Marshal(config))(t)))(t)
	defer parsed.Close()
	clone := must(parsed.Clone())(t)
	defer clone.Close()
	check(t, parsed.SetInt("r", 9))
	if r := must(clone.Int("r"))(t); r != 8 {
		t.Errorf("r is %d", r)
	}
	if alpha := must(clone.Real("alpha"))(t); alpha != 2.5 {
		t.Errorf("alpha is %v", alpha)
	}
	if !must(clone.Bool("sample_at_inference"))(t) || must(clone.Text("target_modules"))(t) != `.*\.q` {
		t.Error("a field was lost")
	}
	if text := must(clone.JSON("bias"))(t); strings.TrimSpace(text) != `"none"` {
		t.Errorf("bias is %s", text)
	}
	if !must(clone.Targets("layers.0.q", false))(t) || must(clone.Targets("layers.0.k", false))(t) {
		t.Error("the pattern targets something else")
	}
	_, err := clone.Int("rank")
	refused(t, err, pvera.ErrNotFound, "rank")
}
