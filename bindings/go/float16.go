// The 16-bit element types. Go has none, so they are bit patterns with conversions.

package pvera

import "math"

// Float16 is the bits of an IEEE 754 half.
type Float16 uint16

// BFloat16 is the upper half of a float32's bits.
type BFloat16 uint16

// Float32 is the same number as a float32.
func (b BFloat16) Float32() float32 { return math.Float32frombits(uint32(b) << 16) }

// BFloat16From rounds to the nearest BFloat16, ties to even.
func BFloat16From(value float32) BFloat16 {
	word := math.Float32bits(value)
	if value != value {
		return BFloat16(word>>16 | 0x40) // stays a NaN
	}
	return BFloat16((word + 0x7fff + word>>16&1) >> 16)
}

// Float32 is the same number as a float32.
func (h Float16) Float32() float32 {
	sign, exponent, fraction := uint32(h)>>15<<31, uint32(h)>>10&31, uint32(h)&1023
	switch exponent {
	case 31:
		return math.Float32frombits(sign | 0x7f800000 | fraction<<13)
	case 0:
		const smallest = 1.0 / (1 << 24)
		return math.Float32frombits(sign | math.Float32bits(float32(fraction)*smallest))
	}
	const biasDifference = 127 - 15
	return math.Float32frombits(sign | (exponent+biasDifference)<<23 | fraction<<13)
}

// Float16From rounds to the nearest Float16, ties to even; what is too large becomes infinity.
func Float16From(value float32) Float16 {
	word := math.Float32bits(value)
	sign, magnitude := Float16(word>>31<<15), math.Float32frombits(word&^(1<<31))
	const (
		firstInfinite  = 65520 // halfway to the next power of two
		smallestNormal = 1.0 / (1 << 14)
	)
	switch {
	case value != value:
		return sign | 0x7e00
	case magnitude >= firstInfinite:
		return sign | 0x7c00
	case magnitude < smallestNormal:
		// Below, halves are evenly spaced; adding ½ makes float32 round to that spacing.
		const half = 0.5
		return sign | Float16(math.Float32bits(magnitude+half)-math.Float32bits(half))
	}
	const biasDifference = (127 - 15) << 23
	rounded := math.Float32bits(magnitude) + 0xfff + math.Float32bits(magnitude)>>13&1
	return sign | Float16((rounded-biasDifference)>>13)
}
