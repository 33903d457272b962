//! Advanced SIMD of 64-bit Arm, which every such machine has.

use std::arch::aarch64::*;
use std::arch::asm;

use half::f16;

use super::Kernel;
use super::set::{self, Set, first, second};

/// # Safety
/// The machine has NEON.
#[target_feature(enable = "neon")]
pub unsafe fn run<K: Kernel>(kernel: K) -> K::Output {
    kernel.run::<Neon>()
}

#[derive(Clone, Copy, Debug)]
pub struct Neon;

// SAFETY (every block in this file): NEON is part of every 64-bit Arm target of this crate; pointers are the callers'
// promises in `Set`.

impl Set for Neon {
    type Vector = float32x4_t;
    type Words = uint32x4_t;
    const LANES: usize = 4;
    const ROWS: usize = 12;

    #[inline(always)]
    fn splat(value: f32) -> float32x4_t {
        // SAFETY: see above.
        unsafe { vdupq_n_f32(value) }
    }

    #[inline(always)]
    fn mul_add(a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t {
        // SAFETY: see above.
        unsafe { vfmaq_f32(c, a, b) }
    }

    #[inline(always)]
    fn add(a: float32x4_t, b: float32x4_t) -> float32x4_t {
        // SAFETY: see above.
        unsafe { vaddq_f32(a, b) }
    }

    #[inline(always)]
    fn mul(a: float32x4_t, b: float32x4_t) -> float32x4_t {
        // SAFETY: see above.
        unsafe { vmulq_f32(a, b) }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> float32x4_t {
        // SAFETY: see above.
        unsafe { vld1q_f32(from) }
    }

    #[inline(always)]
    unsafe fn store(vector: float32x4_t, to: *mut f32) {
        // SAFETY: see above.
        unsafe { vst1q_f32(to, vector) };
    }

    #[inline(always)]
    unsafe fn load_bf16(from: *const u16) -> float32x4_t {
        // SAFETY: see above.
        unsafe { vreinterpretq_f32_u32(vshll_n_u16::<16>(vld1_u16(from))) }
    }

    #[inline(always)]
    unsafe fn load_f16(from: *const f16) -> float32x4_t {
        // SAFETY: see above. The conversion is part of baseline NEON; its intrinsic needs a type that is not stable.
        unsafe {
            let halves = vld1_u16(from.cast());
            let wide: float32x4_t;
            asm!("fcvtl {wide:v}.4s, {halves:v}.4h", wide = out(vreg) wide, halves = in(vreg) halves,
                options(pure, nomem, nostack, preserves_flags));
            wide
        }
    }

    #[inline(always)]
    unsafe fn load_i8(from: *const i8) -> float32x4_t {
        // SAFETY: see above; four bytes are read.
        unsafe {
            let bytes = vreinterpret_s8_u32(vdup_n_u32(from.cast::<u32>().read_unaligned()));
            vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(bytes))))
        }
    }

    #[inline(always)]
    unsafe fn load_pairs(from: *const u32) -> uint32x4_t {
        // SAFETY: see above.
        unsafe { vld1q_u32(from) }
    }

    #[inline(always)]
    fn first_of_pairs(pairs: uint32x4_t) -> float32x4_t {
        // SAFETY: see above.
        unsafe { vreinterpretq_f32_u32(vshlq_n_u32::<16>(pairs)) }
    }

    #[inline(always)]
    fn second_of_pairs(pairs: uint32x4_t) -> float32x4_t {
        // SAFETY: see above.
        unsafe { vreinterpretq_f32_u32(vandq_u32(pairs, vdupq_n_u32(0xffff_0000))) }
    }

    #[inline(always)]
    fn splat_word(value: u32) -> uint32x4_t {
        // SAFETY: see above.
        unsafe { vdupq_n_u32(value) }
    }

    #[inline(always)]
    fn add_words(a: uint32x4_t, b: uint32x4_t) -> uint32x4_t {
        // SAFETY: see above.
        unsafe { vaddq_u32(a, b) }
    }

    #[inline(always)]
    fn xor_words(a: uint32x4_t, b: uint32x4_t) -> uint32x4_t {
        // SAFETY: see above.
        unsafe { veorq_u32(a, b) }
    }

    #[inline(always)]
    fn rotate_words<const LEFT: i32, const RIGHT: i32>(words: uint32x4_t) -> uint32x4_t {
        // SAFETY: see above.
        unsafe { vorrq_u32(vshlq_n_u32::<LEFT>(words), vshrq_n_u32::<RIGHT>(words)) }
    }

    #[inline(always)]
    unsafe fn store_words(words: uint32x4_t, to: *mut u32) {
        // SAFETY: see above.
        unsafe { vst1q_u32(to, words) };
    }

    /// Two fused multiply-adds: Arm's BFDOT rounds otherwise.
    #[inline(always)]
    fn dot_pairs(sum: float32x4_t, x: u32, w: uint32x4_t) -> float32x4_t {
        let after_second = fused_flushed(second(x), Self::second_of_pairs(w), sum);
        fused_flushed(first(x), Self::first_of_pairs(w), after_second)
    }

    #[inline(always)]
    unsafe fn transpose(from: *const f32, stride: usize, to: *mut f32, _soon: Option<*const u8>) {
        for row in (0..16).step_by(4) {
            for col in (0..16).step_by(4) {
                // SAFETY: see above; the 4×4 block lies in the 16×16 one.
                unsafe { transpose_4x4(from.add(row * stride + col), stride, to.add(16 * col + row)) };
            }
        }
    }
}

/// [`set::fused_flushed`] of four lanes, in the processor's flush-to-zero mode.
#[inline(always)]
fn fused_flushed(x: f32, w: float32x4_t, sum: float32x4_t) -> float32x4_t {
    // SAFETY: see above; vectors and arrays of four are the same bits.
    unsafe {
        let found = vfmaq_f32(sum, vdupq_n_f32(x), w);
        // What was flushed, perhaps though it would round to a normal number; or a sum that cancelled out.
        let doubtful = vbicq_u32(vceqzq_f32(found), vceqzq_f32(sum));
        if vmaxvq_u32(doubtful) == 0 {
            return found;
        }
        let sums = std::mem::transmute::<float32x4_t, [f32; 4]>(sum);
        let w = std::mem::transmute::<float32x4_t, [f32; 4]>(w);
        let lanes: [f32; 4] = std::array::from_fn(|i| set::fused_flushed(x, w[i], sums[i]));
        std::mem::transmute::<[f32; 4], float32x4_t>(lanes)
    }
}

/// # Safety
/// As [`Set::transpose`], for 4×4 values, written 16 apart.
#[inline(always)]
unsafe fn transpose_4x4(from: *const f32, stride: usize, to: *mut f32) {
    // SAFETY: see above.
    unsafe {
        let row = |j: usize| vreinterpretq_f64_f32(vld1q_f32(from.add(j * stride)));
        let pair = |a: float64x2_t, b: float64x2_t| {
            let (a, b) = (vreinterpretq_f32_f64(a), vreinterpretq_f32_f64(b));
            (vreinterpretq_f64_f32(vtrn1q_f32(a, b)), vreinterpretq_f64_f32(vtrn2q_f32(a, b)))
        };
        let (even_low, odd_low) = pair(row(0), row(1));
        let (even_high, odd_high) = pair(row(2), row(3));
        let columns = [
            vtrn1q_f64(even_low, even_high),
            vtrn1q_f64(odd_low, odd_high),
            vtrn2q_f64(even_low, even_high),
            vtrn2q_f64(odd_low, odd_high),
        ];
        for (column, values) in columns.into_iter().enumerate() {
            vst1q_f32(to.add(16 * column), vreinterpretq_f32_f64(values));
        }
    }
}
