//! What a kernel may ask of an instruction set: a vector of f32 and the few operations that products need.
//!
//! Elementwise work needs none of this: plain loops over slices, inlined into a kernel, are compiled to the same
//! vectors, and `f32::mul_add` there is one instruction.

use half::f16;

/// A set of instructions. Every operation rounds as IEEE 754 says, so all sets give the same bits.
///
/// Operations are executed only on a machine that has the set, inside [`Isa::run`](super::Isa::run): nobody else has a set to
/// call them with.
pub trait Set: Copy {
    /// A vector of `LANES` f32.
    type Vector: Copy;
    /// `LANES` words of 32 bits: pairs of bf16, or integers.
    type Words: Copy;
    const LANES: usize;
    /// Rows of a product's tile: as many as leave registers for two vectors of the weight.
    const ROWS: usize;

    fn splat(value: f32) -> Self::Vector;
    /// `a · b + c`, rounded once.
    fn mul_add(a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector;
    fn add(a: Self::Vector, b: Self::Vector) -> Self::Vector;
    fn mul(a: Self::Vector, b: Self::Vector) -> Self::Vector;

    /// # Safety
    /// `LANES` values lie at `from`; no alignment is needed. So for the loads below.
    unsafe fn load(from: *const f32) -> Self::Vector;
    /// # Safety
    /// `LANES` values may be written at `to`.
    unsafe fn store(vector: Self::Vector, to: *mut f32);
    /// # Safety
    /// As [`load`](Self::load).
    unsafe fn load_bf16(from: *const u16) -> Self::Vector;
    /// # Safety
    /// As [`load`](Self::load).
    unsafe fn load_f16(from: *const f16) -> Self::Vector;
    /// # Safety
    /// As [`load`](Self::load).
    unsafe fn load_i8(from: *const i8) -> Self::Vector;
    /// # Safety
    /// As [`load`](Self::load), pairs.
    unsafe fn load_pairs(from: *const u32) -> Self::Words;
    /// The first bf16 of each pair, in its low half.
    fn first_of_pairs(pairs: Self::Words) -> Self::Vector;
    /// The second.
    fn second_of_pairs(pairs: Self::Words) -> Self::Vector;

    /// `sum + x₁ w₁`, then `+ x₀ w₀`, each fused, subnormals in and out flushed to zero: what `vdpbf16ps` does. `x` is
    /// one pair of bf16. A sum is flushed where 24 bits, with exponents that went on, leave it below the normal numbers.
    /// Sets without the instruction need the processor's mode [`Flushing`](crate::backend::cpu::Flushing).
    fn dot_pairs(sum: Self::Vector, x: u32, w: Self::Words) -> Self::Vector;

    /// Writes a 16×16 block, transposed: `to[16·i + j] = from[j·stride + i]`; meanwhile 16 cache lines
    /// may be asked for, those at `soon`.
    ///
    /// # Safety
    /// 16 rows of 16 values lie at `from`, `stride` values apart; 256 values may be written at `to`.
    #[inline(always)]
    unsafe fn transpose(from: *const f32, stride: usize, to: *mut f32, _soon: Option<*const u8>) {
        for j in 0..16 {
            for i in 0..16 {
                // SAFETY: the caller's promise.
                unsafe { *to.add(16 * i + j) = *from.add(j * stride + i) };
            }
        }
    }

    fn splat_word(value: u32) -> Self::Words;
    /// Sums that wrap around.
    fn add_words(a: Self::Words, b: Self::Words) -> Self::Words;
    fn xor_words(a: Self::Words, b: Self::Words) -> Self::Words;
    /// Each word rotated left by `LEFT` bits; `RIGHT` is 32 − `LEFT`.
    fn rotate_words<const LEFT: i32, const RIGHT: i32>(words: Self::Words) -> Self::Words;
    /// # Safety
    /// `LANES` words may be written at `to`.
    unsafe fn store_words(words: Self::Words, to: *mut u32);

    /// Stores past the caches, where the set can; [`end_streaming`](Self::end_streaming) comes after the last.
    ///
    /// # Safety
    /// As [`store`](Self::store), and `to` is aligned to the vector.
    #[inline(always)]
    unsafe fn stream(vector: Self::Vector, to: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe { Self::store(vector, to) };
    }

    /// Makes what was streamed visible to other threads before what is stored later.
    #[inline(always)]
    fn end_streaming() {}

    /// Asks for a cache line.
    #[inline(always)]
    fn prefetch(_at: *const u8) {}
}

#[inline(always)]
pub(super) fn first(pair: u32) -> f32 {
    f32::from_bits(pair << 16)
}

#[inline(always)]
pub(super) fn second(pair: u32) -> f32 {
    f32::from_bits(pair & 0xffff_0000)
}

/// [`Set::dot_pairs`] of one lane: its definition, in any mode of the processor.
#[inline(always)]
pub(super) fn dot_flushed(sum: f32, x: u32, w: u32) -> f32 {
    fused_flushed(first(x), first(w), fused_flushed(second(x), second(w), sum))
}

/// One of the two: `x · w + sum` of bf16 x and w.
///
/// x86-64 decides after rounding what is flushed, as the definition does, but Arm before: what lies between
/// [`SMALLEST_KEPT`] and the least normal number would become zero there. So the processor's mode is not relied on.
#[inline(always)]
pub(super) fn fused_flushed(x: f32, w: f32, sum: f32) -> f32 {
    let (x, w, sum) = (flushed(x), flushed(w), flushed(sum));
    // The product is exact; and what matters of the sum, since a product too small for f64 beside a normal sum does not
    // reach down to SMALLEST_KEPT.
    let near = f64::from(x) * f64::from(w) + f64::from(sum);
    if near.abs() > f64::from(f32::MIN_POSITIVE) || near.is_nan() {
        x.mul_add(w, sum)
    } else if near.abs() >= SMALLEST_KEPT {
        f32::MIN_POSITIVE.copysign(near as f32)
    } else {
        0.0_f32.copysign(near as f32)
    }
}

/// The least magnitude that 24 bits round up to the least normal number (half way, and that number is even).
const SMALLEST_KEPT: f64 = f32::MIN_POSITIVE as f64 * (1.0 - f32::EPSILON as f64 / 4.0);

/// Zero with the sign of a subnormal, anything else as it is.
#[inline(always)]
fn flushed(value: f32) -> f32 {
    if value.abs() < f32::MIN_POSITIVE { 0.0_f32.copysign(value) } else { value }
}
