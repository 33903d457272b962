// Rows: whose they are. Noise: where randomness comes from.

package pvera

// #include "shim.h"
import "C"

import "unsafe"

// Active is one adapter of several that are summed.
type Active struct {
	Slot int32
	// Scale is the factor of its delta.
	Scale float32
}

// An array of Active is an array of pvera_active.
var _ = [1]struct{}{}[unsafe.Sizeof(Active{})-unsafe.Sizeof(C.pvera_active{})]

// Rows says whose rows those of a call are. Nil or zero: slot 0 on every row; row i has identity i and sample 0.
//
// Noise belongs to (seed, layer name, adapter, row identity, sample), never to a row's place.
type Rows struct {
	// Slot has one adapter a row, -1 for the base alone; or it is nil.
	Slot []int32
	// Active has the adapters that are summed on every row; or it is nil. Not together with Slot. Empty but not nil: the base
	// alone.
	Active []Active
	// Identity has a number for each row; nil: IdentityBase plus the row's number.
	Identity     []uint64
	IdentityBase uint64
	// Sample has a number for each row; nil: SampleBase on every row.
	Sample     []uint32
	SampleBase uint32
	// Device is where Slot, Identity and Sample lie.
	Device Device
}

// c is the C struct for n rows, after a look at what C cannot see: the lengths.
func (r *Rows) c(n int) (C.pvera_rows, error) {
	c := C.pvera_rows{struct_size: C.sizeof_pvera_rows}
	if r == nil {
		return c, nil
	}
	for _, array := range [...]struct {
		name   string
		given  bool
		length int
	}{
		{"rows.Slot", r.Slot != nil, len(r.Slot)},
		{"rows.Identity", r.Identity != nil, len(r.Identity)},
		{"rows.Sample", r.Sample != nil, len(r.Sample)},
	} {
		if array.given && array.length != n {
			return c, errorf(ErrShape, "%s has %d entries; wanted %d, one for each row", array.name, array.length, n)
		}
	}
	c.slot = (*C.int32_t)(unsafe.SliceData(r.Slot))
	c.active = (*C.pvera_active)(unsafe.Pointer(unsafe.SliceData(r.Active)))
	c.active_count = C.size_t(len(r.Active))
	c.identity = (*C.uint64_t)(unsafe.SliceData(r.Identity))
	c.identity_base = C.uint64_t(r.IdentityBase)
	c.sample = (*C.uint32_t)(unsafe.SliceData(r.Sample))
	c.sample_base = C.uint32_t(r.SampleBase)
	c.device = r.Device.c()
	return c, nil
}

// Mode says how latents are made.
type Mode int32

// The modes. In each, z is what goes through B.
const (
	// AsPEFT samples in a training forward, and otherwise does what each adapter's sample_at_inference says.
	AsPEFT Mode = C.PVERA_MODE_AS_PEFT
	// Mean: z = mu.
	Mean Mode = C.PVERA_MODE_MEAN
	// Sample: z = mu + eps ∘ exp(½ logvar).
	Sample Mode = C.PVERA_MODE_SAMPLE
	// Fixed: z = mu + exp(½ logvar).
	Fixed Mode = C.PVERA_MODE_FIXED
)

// Noise says how latents are made and where their noise comes from. Nil or zero: [AsPEFT], keyed by seed 0.
type Noise struct {
	Mode Mode
	// Antithetic: sample 2j + 1 takes the negated noise of sample 2j.
	Antithetic bool
	Seed       uint64
	// SeedAt is where the seed is read instead, on a CUDA context in device memory when the work runs; or nil.
	SeedAt *uint64
	// Eps is the caller's noise instead of keyed one: a row for each row of y, a column for each latent. Zero when absent.
	Eps Matrix
	// DropoutMask [n, in_features] is the caller's, already scaled by 1/(1 - p). Zero when absent.
	DropoutMask Matrix
}

func (z *Noise) c() (C.pvera_noise, error) {
	c := C.pvera_noise{struct_size: C.sizeof_pvera_noise}
	if z == nil {
		return c, nil
	}
	if err := z.Eps.check("noise.Eps"); err != nil {
		return c, err
	}
	if err := z.DropoutMask.check("noise.DropoutMask"); err != nil {
		return c, err
	}
	c.mode = C.int32_t(z.Mode)
	if z.Antithetic {
		c.antithetic = 1
	}
	c.seed = C.uint64_t(z.Seed)
	c.seed_at = (*C.uint64_t)(z.SeedAt)
	c.eps = z.Eps.c()
	c.dropout_mask = z.DropoutMask.c()
	return c, nil
}
