//! Plain Rust: the definition that the other sets are compared with.

use half::f16;

use super::set::{Set, dot_flushed, first, second};

#[derive(Clone, Copy, Debug)]
pub struct Portable;

const LANES: usize = 8;

type Vector = [f32; LANES];

#[inline(always)]
fn lanes(of: impl FnMut(usize) -> f32) -> Vector {
    std::array::from_fn(of)
}

#[inline(always)]
fn bf16(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

impl Set for Portable {
    type Vector = Vector;
    type Words = [u32; LANES];
    const LANES: usize = LANES;
    const ROWS: usize = 4;

    #[inline(always)]
    fn splat(value: f32) -> Vector {
        [value; LANES]
    }

    #[inline(always)]
    fn mul_add(a: Vector, b: Vector, c: Vector) -> Vector {
        lanes(|i| a[i].mul_add(b[i], c[i]))
    }

    #[inline(always)]
    fn add(a: Vector, b: Vector) -> Vector {
        lanes(|i| a[i] + b[i])
    }

    #[inline(always)]
    fn mul(a: Vector, b: Vector) -> Vector {
        lanes(|i| a[i] * b[i])
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Vector {
        // SAFETY: the caller's promise.
        unsafe { from.cast::<Vector>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn store(vector: Vector, to: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe { to.cast::<Vector>().write_unaligned(vector) };
    }

    #[inline(always)]
    unsafe fn load_bf16(from: *const u16) -> Vector {
        // SAFETY: the caller's promise.
        lanes(|i| bf16(unsafe { from.add(i).read_unaligned() }))
    }

    #[inline(always)]
    unsafe fn load_f16(from: *const f16) -> Vector {
        // SAFETY: the caller's promise.
        lanes(|i| unsafe { from.add(i).read_unaligned() }.to_f32())
    }

    #[inline(always)]
    unsafe fn load_i8(from: *const i8) -> Vector {
        // SAFETY: the caller's promise.
        lanes(|i| f32::from(unsafe { *from.add(i) }))
    }

    #[inline(always)]
    unsafe fn load_pairs(from: *const u32) -> [u32; LANES] {
        // SAFETY: the caller's promise.
        unsafe { from.cast::<[u32; LANES]>().read_unaligned() }
    }

    #[inline(always)]
    fn first_of_pairs(pairs: [u32; LANES]) -> Vector {
        lanes(|i| first(pairs[i]))
    }

    #[inline(always)]
    fn second_of_pairs(pairs: [u32; LANES]) -> Vector {
        lanes(|i| second(pairs[i]))
    }

    #[inline(always)]
    fn splat_word(value: u32) -> [u32; LANES] {
        [value; LANES]
    }

    #[inline(always)]
    fn add_words(a: [u32; LANES], b: [u32; LANES]) -> [u32; LANES] {
        std::array::from_fn(|i| a[i].wrapping_add(b[i]))
    }

    #[inline(always)]
    fn xor_words(a: [u32; LANES], b: [u32; LANES]) -> [u32; LANES] {
        std::array::from_fn(|i| a[i] ^ b[i])
    }

    #[inline(always)]
    fn rotate_words<const LEFT: i32, const RIGHT: i32>(words: [u32; LANES]) -> [u32; LANES] {
        words.map(|word| word.rotate_left(LEFT as u32))
    }

    #[inline(always)]
    unsafe fn store_words(words: [u32; LANES], to: *mut u32) {
        // SAFETY: the caller's promise.
        unsafe { to.cast::<[u32; LANES]>().write_unaligned(words) };
    }

    #[inline(always)]
    fn dot_pairs(sum: Vector, x: u32, w: [u32; LANES]) -> Vector {
        lanes(|i| dot_flushed(sum[i], x, w[i]))
    }
}
