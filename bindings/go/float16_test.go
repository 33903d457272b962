// The 16-bit types: every pattern there and back, and rounding against the neighbours.

package pvera_test

import (
	"math"
	"testing"

	"pvera.invalid/pvera"
)

func TestEveryPattern(t *testing.T) {
	for pattern := range 1 << 16 {
		half, brain := pvera.Float16(pattern), pvera.BFloat16(pattern)
		if value := half.Float32(); value == value && pvera.Float16From(value) != half {
			t.Fatalf("half %#04x is %v, which is %#04x", pattern, value, pvera.Float16From(value))
		} else if exponent := pattern >> 10 & 31; value == value && exponent < 31 {
			wanted := math.Ldexp(float64(pattern&1023), -24)
			if exponent > 0 {
				wanted = math.Ldexp(float64(pattern&1023+1024), exponent-25)
			}
			if math.Abs(float64(value)) != wanted || math.Signbit(float64(value)) != (pattern >= 1<<15) {
				t.Fatalf("half %#04x is %v; wanted ±%v", pattern, value, wanted)
			}
		} else if value != value && pvera.Float16From(value).Float32() == 0 {
			t.Fatalf("half %#04x is NaN and becomes a number", pattern)
		}
		if value := brain.Float32(); value == value && pvera.BFloat16From(value) != brain {
			t.Fatalf("bf16 %#04x is %v, which is %#04x", pattern, value, pvera.BFloat16From(value))
		}
	}
}

func TestRounding(t *testing.T) {
	for pattern := range 0x7bff { // finite neighbours
		below, above := pvera.Float16(pattern).Float32(), pvera.Float16(pattern+1).Float32()
		middle := (below + above) / 2 // exact in f32
		even := pvera.Float16(pattern + pattern%2)
		if got := pvera.Float16From(middle); got != even {
			t.Fatalf("%v, between %#04x and the next, becomes %#04x; wanted the even one", middle, pattern, got)
		}
		if got := pvera.Float16From(math.Nextafter32(middle, 0)); got != pvera.Float16(pattern) {
			t.Fatalf("just below the middle of %#04x and the next becomes %#04x", pattern, got)
		}
		if got := pvera.Float16From(math.Nextafter32(middle, 1e9)); got != pvera.Float16(pattern+1) {
			t.Fatalf("just above the middle of %#04x and the next becomes %#04x", pattern, got)
		}
	}
	for value, wanted := range map[float32]pvera.Float16{65519.996: 0x7bff, 65520: 0x7c00, 1e30: 0x7c00, 1e-30: 0} {
		if pvera.Float16From(value) != wanted || pvera.Float16From(-value) != wanted|0x8000 {
			t.Errorf("±%v becomes %#04x", value, pvera.Float16From(value))
		}
	}
	for value, wanted := range map[uint32]pvera.BFloat16{0x3f808000: 0x3f80, 0x3f818000: 0x3f82, 0x3f808001: 0x3f81,
		0x7f7fffff: 0x7f80, 0x7f800001: 0x7fc0} {
		if got := pvera.BFloat16From(math.Float32frombits(value)); got != wanted {
			t.Errorf("%#08x becomes %#04x; wanted %#04x", value, got, wanted)
		}
	}
}
