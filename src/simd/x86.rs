//! AVX2 with FMA, AVX-512, and AVX-512 with its bf16 product.

use std::arch::x86_64::*;

use half::f16;

use super::set::{Set, first, second};
use super::{CACHE_LINE, Kernel};

/// # Safety
/// The machine has these features.
#[target_feature(enable = "avx2,fma,f16c")]
pub unsafe fn run_avx2<K: Kernel>(kernel: K) -> K::Output {
    kernel.run::<Avx2>()
}

/// # Safety
/// As [`run_avx2`].
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
pub unsafe fn run_avx512<K: Kernel>(kernel: K) -> K::Output {
    kernel.run::<Avx512>()
}

/// # Safety
/// As [`run_avx2`].
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
pub unsafe fn run_avx512_bf16<K: Kernel>(kernel: K) -> K::Output {
    kernel.run::<Avx512Bf16>()
}

#[derive(Clone, Copy, Debug)]
pub struct Avx2;

#[derive(Clone, Copy, Debug)]
pub struct Avx512;

#[derive(Clone, Copy, Debug)]
pub struct Avx512Bf16;

// SAFETY (every block in this file): the operations run only inside the functions above, whose callers have made sure
// of the features; pointers are the callers' promises in `Set`.

impl Set for Avx2 {
    type Vector = __m256;
    type Words = __m256i;
    const LANES: usize = 8;
    const ROWS: usize = 6;

    #[inline(always)]
    fn splat(value: f32) -> __m256 {
        // SAFETY: see above.
        unsafe { _mm256_set1_ps(value) }
    }

    #[inline(always)]
    fn mul_add(a: __m256, b: __m256, c: __m256) -> __m256 {
        // SAFETY: see above.
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn add(a: __m256, b: __m256) -> __m256 {
        // SAFETY: see above.
        unsafe { _mm256_add_ps(a, b) }
    }

    #[inline(always)]
    fn mul(a: __m256, b: __m256) -> __m256 {
        // SAFETY: see above.
        unsafe { _mm256_mul_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> __m256 {
        // SAFETY: see above.
        unsafe { _mm256_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn store(vector: __m256, to: *mut f32) {
        // SAFETY: see above.
        unsafe { _mm256_storeu_ps(to, vector) };
    }

    #[inline(always)]
    unsafe fn load_bf16(from: *const u16) -> __m256 {
        // SAFETY: see above.
        unsafe {
            let bits = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast()));
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(bits))
        }
    }

    #[inline(always)]
    unsafe fn load_f16(from: *const f16) -> __m256 {
        // SAFETY: see above.
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(from.cast())) }
    }

    #[inline(always)]
    unsafe fn load_i8(from: *const i8) -> __m256 {
        // SAFETY: see above.
        unsafe { _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(from.cast()))) }
    }

    #[inline(always)]
    unsafe fn load_pairs(from: *const u32) -> __m256i {
        // SAFETY: see above.
        unsafe { _mm256_loadu_si256(from.cast()) }
    }

    #[inline(always)]
    fn first_of_pairs(pairs: __m256i) -> __m256 {
        // SAFETY: see above.
        unsafe { _mm256_castsi256_ps(_mm256_slli_epi32::<16>(pairs)) }
    }

    #[inline(always)]
    fn second_of_pairs(pairs: __m256i) -> __m256 {
        // SAFETY: see above.
        unsafe { _mm256_castsi256_ps(_mm256_and_si256(pairs, _mm256_set1_epi32(0xffff_0000_u32 as i32))) }
    }

    #[inline(always)]
    fn splat_word(value: u32) -> __m256i {
        // SAFETY: see above.
        unsafe { _mm256_set1_epi32(value as i32) }
    }

    #[inline(always)]
    fn add_words(a: __m256i, b: __m256i) -> __m256i {
        // SAFETY: see above.
        unsafe { _mm256_add_epi32(a, b) }
    }

    #[inline(always)]
    fn xor_words(a: __m256i, b: __m256i) -> __m256i {
        // SAFETY: see above.
        unsafe { _mm256_xor_si256(a, b) }
    }

    #[inline(always)]
    fn rotate_words<const LEFT: i32, const RIGHT: i32>(words: __m256i) -> __m256i {
        // SAFETY: see above.
        unsafe { _mm256_or_si256(_mm256_slli_epi32::<LEFT>(words), _mm256_srli_epi32::<RIGHT>(words)) }
    }

    #[inline(always)]
    unsafe fn store_words(words: __m256i, to: *mut u32) {
        // SAFETY: see above.
        unsafe { _mm256_storeu_si256(to.cast(), words) };
    }

    #[inline(always)]
    fn dot_pairs(sum: __m256, x: u32, w: __m256i) -> __m256 {
        let after_second = Self::mul_add(Self::splat(second(x)), Self::second_of_pairs(w), sum);
        Self::mul_add(Self::splat(first(x)), Self::first_of_pairs(w), after_second)
    }

    #[inline(always)]
    unsafe fn transpose(from: *const f32, stride: usize, to: *mut f32, soon: Option<*const u8>) {
        if let Some(soon) = soon {
            (0..16).for_each(|line| Self::prefetch(soon.wrapping_add(line * CACHE_LINE)));
        }
        for (row, col) in [(0, 0), (0, 8), (8, 0), (8, 8)] {
            // SAFETY: see above; the quarter begins in the block.
            unsafe { transpose_8x8(from.add(row * stride + col), stride, to.add(16 * col + row)) };
        }
    }

    #[inline(always)]
    unsafe fn stream(vector: __m256, to: *mut f32) {
        // SAFETY: see above.
        unsafe { _mm256_stream_ps(to, vector) };
    }

    #[inline(always)]
    fn end_streaming() {
        // SAFETY: part of every x86-64.
        unsafe { _mm_sfence() };
    }

    #[inline(always)]
    fn prefetch(at: *const u8) {
        // SAFETY: a prefetch never faults.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(at.cast()) };
    }
}

/// # Safety
/// As [`Set::transpose`], for 8×8 values, written 16 apart.
#[inline(always)]
unsafe fn transpose_8x8(from: *const f32, stride: usize, to: *mut f32) {
    // SAFETY: see above.
    unsafe {
        let row = |j: usize| _mm256_loadu_ps(from.add(j * stride));
        let mut pairs = [_mm256_setzero_ps(); 8];
        for j in 0..4 {
            pairs[2 * j] = _mm256_unpacklo_ps(row(2 * j), row(2 * j + 1));
            pairs[2 * j + 1] = _mm256_unpackhi_ps(row(2 * j), row(2 * j + 1));
        }
        let mut fours = [_mm256_setzero_ps(); 8];
        for j in 0..2 {
            fours[4 * j] = _mm256_shuffle_ps::<0x44>(pairs[4 * j], pairs[4 * j + 2]);
            fours[4 * j + 1] = _mm256_shuffle_ps::<0xee>(pairs[4 * j], pairs[4 * j + 2]);
            fours[4 * j + 2] = _mm256_shuffle_ps::<0x44>(pairs[4 * j + 1], pairs[4 * j + 3]);
            fours[4 * j + 3] = _mm256_shuffle_ps::<0xee>(pairs[4 * j + 1], pairs[4 * j + 3]);
        }
        for i in 0..4 {
            _mm256_storeu_ps(to.add(16 * i), _mm256_permute2f128_ps::<0x20>(fours[i], fours[i + 4]));
            _mm256_storeu_ps(to.add(16 * (i + 4)), _mm256_permute2f128_ps::<0x31>(fours[i], fours[i + 4]));
        }
    }
}

/// Both AVX-512 sets; they differ in the bf16 product alone.
macro_rules! avx512 {
    ($set:ident, |$sum:ident, $x:ident, $w:ident| $dot:expr) => {
        impl Set for $set {
            type Vector = __m512;
            type Words = __m512i;
            const LANES: usize = 16;
            const ROWS: usize = 12;

            #[inline(always)]
            fn splat(value: f32) -> __m512 {
                // SAFETY: see above.
                unsafe { _mm512_set1_ps(value) }
            }

            #[inline(always)]
            fn mul_add(a: __m512, b: __m512, c: __m512) -> __m512 {
                // SAFETY: see above.
                unsafe { _mm512_fmadd_ps(a, b, c) }
            }

            #[inline(always)]
            fn add(a: __m512, b: __m512) -> __m512 {
                // SAFETY: see above.
                unsafe { _mm512_add_ps(a, b) }
            }

            #[inline(always)]
            fn mul(a: __m512, b: __m512) -> __m512 {
                // SAFETY: see above.
                unsafe { _mm512_mul_ps(a, b) }
            }

            #[inline(always)]
            unsafe fn load(from: *const f32) -> __m512 {
                // SAFETY: see above.
                unsafe { _mm512_loadu_ps(from) }
            }

            #[inline(always)]
            unsafe fn store(vector: __m512, to: *mut f32) {
                // SAFETY: see above.
                unsafe { _mm512_storeu_ps(to, vector) };
            }

            #[inline(always)]
            unsafe fn load_bf16(from: *const u16) -> __m512 {
                // SAFETY: see above.
                unsafe {
                    let bits = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast()));
                    _mm512_castsi512_ps(_mm512_slli_epi32::<16>(bits))
                }
            }

            #[inline(always)]
            unsafe fn load_f16(from: *const f16) -> __m512 {
                // SAFETY: see above.
                unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.cast())) }
            }

            #[inline(always)]
            unsafe fn load_i8(from: *const i8) -> __m512 {
                // SAFETY: see above.
                unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(from.cast()))) }
            }

            #[inline(always)]
            unsafe fn load_pairs(from: *const u32) -> __m512i {
                // SAFETY: see above.
                unsafe { _mm512_loadu_si512(from.cast()) }
            }

            #[inline(always)]
            fn first_of_pairs(pairs: __m512i) -> __m512 {
                // SAFETY: see above.
                unsafe { _mm512_castsi512_ps(_mm512_slli_epi32::<16>(pairs)) }
            }

            #[inline(always)]
            fn second_of_pairs(pairs: __m512i) -> __m512 {
                // SAFETY: see above.
                unsafe { _mm512_castsi512_ps(_mm512_and_si512(pairs, _mm512_set1_epi32(0xffff_0000_u32 as i32))) }
            }

            #[inline(always)]
            fn splat_word(value: u32) -> __m512i {
                // SAFETY: see above.
                unsafe { _mm512_set1_epi32(value as i32) }
            }

            #[inline(always)]
            fn add_words(a: __m512i, b: __m512i) -> __m512i {
                // SAFETY: see above.
                unsafe { _mm512_add_epi32(a, b) }
            }

            #[inline(always)]
            fn xor_words(a: __m512i, b: __m512i) -> __m512i {
                // SAFETY: see above.
                unsafe { _mm512_xor_si512(a, b) }
            }

            #[inline(always)]
            fn rotate_words<const LEFT: i32, const RIGHT: i32>(words: __m512i) -> __m512i {
                // SAFETY: see above.
                unsafe { _mm512_rol_epi32::<LEFT>(words) }
            }

            #[inline(always)]
            unsafe fn store_words(words: __m512i, to: *mut u32) {
                // SAFETY: see above.
                unsafe { _mm512_storeu_si512(to.cast(), words) };
            }

            #[inline(always)]
            fn dot_pairs($sum: __m512, $x: u32, $w: __m512i) -> __m512 {
                $dot
            }

            #[inline(always)]
            unsafe fn transpose(from: *const f32, stride: usize, to: *mut f32, soon: Option<*const u8>) {
                // SAFETY: see above.
                unsafe { transpose_16x16(from, stride, to, soon) };
            }

            #[inline(always)]
            unsafe fn stream(vector: __m512, to: *mut f32) {
                // SAFETY: see above.
                unsafe { _mm512_stream_ps(to, vector) };
            }

            #[inline(always)]
            fn end_streaming() {
                // SAFETY: part of every x86-64.
                unsafe { _mm_sfence() };
            }

            #[inline(always)]
            fn prefetch(at: *const u8) {
                // SAFETY: a prefetch never faults.
                unsafe { _mm_prefetch::<_MM_HINT_T1>(at.cast()) };
            }
        }
    };
}

avx512!(Avx512, |sum, x, w| {
    let after_second = Self::mul_add(Self::splat(second(x)), Self::second_of_pairs(w), sum);
    Self::mul_add(Self::splat(first(x)), Self::first_of_pairs(w), after_second)
});

avx512!(Avx512Bf16, |sum, x, w| {
    // SAFETY: see above; the types differ in name alone.
    unsafe {
        let x = _mm512_set1_epi32(x as i32);
        let (x, w) = (std::mem::transmute::<__m512i, __m512bh>(x), std::mem::transmute::<__m512i, __m512bh>(w));
        _mm512_dpbf16_ps(sum, x, w)
    }
});

/// # Safety
/// As [`Set::transpose`].
#[inline(always)]
unsafe fn transpose_16x16(from: *const f32, stride: usize, to: *mut f32, soon: Option<*const u8>) {
    // SAFETY: see above.
    unsafe {
        // Asking for all lines at once would fill the buffers for misses: 4.2 ms for one row of 4096² instead of 3.9.
        let ask = |line: usize| {
            if let Some(soon) = soon {
                Avx512::prefetch(soon.wrapping_add(line * CACHE_LINE));
            }
        };
        // Each row is read once and whole: rows a power of two apart share a cache set.
        let mut rows = [_mm512_setzero_ps(); 16];
        for (j, row) in rows.iter_mut().enumerate() {
            *row = _mm512_loadu_ps(from.add(j * stride));
        }
        let mut pairs = [_mm512_setzero_ps(); 16];
        for j in (0..16).step_by(2) {
            pairs[j] = _mm512_unpacklo_ps(rows[j], rows[j + 1]);
            pairs[j + 1] = _mm512_unpackhi_ps(rows[j], rows[j + 1]);
            ask(j / 2);
        }
        // fours[j + c]: in each 128-bit lane l, rows j … j+3 of column 4l + c.
        let mut fours = [_mm512_setzero_ps(); 16];
        for j in (0..16).step_by(4) {
            fours[j] = _mm512_shuffle_ps::<0x44>(pairs[j], pairs[j + 2]);
            fours[j + 1] = _mm512_shuffle_ps::<0xee>(pairs[j], pairs[j + 2]);
            fours[j + 2] = _mm512_shuffle_ps::<0x44>(pairs[j + 1], pairs[j + 3]);
            fours[j + 3] = _mm512_shuffle_ps::<0xee>(pairs[j + 1], pairs[j + 3]);
        }
        for c in 0..4 {
            let low = [
                _mm512_shuffle_f32x4::<0x44>(fours[c], fours[c + 4]),
                _mm512_shuffle_f32x4::<0xee>(fours[c], fours[c + 4]),
            ];
            let high = [
                _mm512_shuffle_f32x4::<0x44>(fours[c + 8], fours[c + 12]),
                _mm512_shuffle_f32x4::<0xee>(fours[c + 8], fours[c + 12]),
            ];
            for half in 0..2 {
                let first = _mm512_shuffle_f32x4::<0x88>(low[half], high[half]);
                let second = _mm512_shuffle_f32x4::<0xdd>(low[half], high[half]);
                _mm512_storeu_ps(to.add(16 * (8 * half + c)), first);
                _mm512_storeu_ps(to.add(16 * (8 * half + 4 + c)), second);
                ask(8 + 2 * c + half);
            }
        }
    }
}
