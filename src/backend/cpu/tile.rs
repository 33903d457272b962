//! The micro-kernel: a few rows of x times a few vectors of a packed weight, over one block of k. Stated once; every
//! instruction set and element type instantiates it.

use std::marker::PhantomData;

use half::f16;

use super::panels::{Element, WIDTH};
use crate::simd::{Isa, Kernel, Set};

/// Length of one chain of fused multiply-adds. Block sums are added in ascending order of k.
pub const DEPTH: usize = 256;

/// Distance between rows of a tile of results, in f32.
pub const TILE_STRIDE: usize = 96;

/// Columns that a tile computes together: two vectors of the widest set.
pub const UNIT: usize = 32;

/// One block of k: `c (+)= x · w` for some rows and some units of columns.
#[derive(Clone, Copy, Debug)]
pub struct Block {
    /// Rows of 256 f32 (or of 128 pairs of bf16), of which `depth` (or half of it) are used.
    pub x: *const f32,
    pub rows: usize,
    pub depth: usize,
    /// The first panel, at the block's first k; `panel_bytes` from one panel to the next.
    pub w: *const u8,
    pub panel_bytes: usize,
    pub units: usize,
    pub element: Element,
    /// What int8 elements are multiplied by.
    pub scale: f32,
    /// Use w² instead of w.
    pub square: bool,
    /// Multiply pairs of bf16 in bf16 arithmetic; x then holds pairs.
    pub pairs: bool,
    /// Rows of `TILE_STRIDE` f32.
    pub c: *mut f32,
    /// Add to c, the earlier blocks' sum.
    pub accumulate: bool,
}

impl Block {
    /// # Safety
    /// The pointers cover what the fields say; c is not accessed otherwise meanwhile.
    pub unsafe fn compute(self, isa: Isa) {
        isa.run(Promised(self));
    }
}

/// A block whose pointers cover what its fields say.
struct Promised(Block);

impl Kernel for Promised {
    type Output = ();

    #[inline(always)]
    fn run<S: Set>(self) {
        let block = self.0;
        // SAFETY: the promise of `compute`.
        unsafe {
            match (block.element, block.square) {
                (Element::F32, false) => rows::<S, Plain<f32, false>>(&block),
                (Element::F32, true) => rows::<S, Plain<f32, true>>(&block),
                (Element::Bf16, false) => rows::<S, Plain<u16, false>>(&block),
                (Element::Bf16, true) => rows::<S, Plain<u16, true>>(&block),
                (Element::F16, false) => rows::<S, Plain<f16, false>>(&block),
                (Element::F16, true) => rows::<S, Plain<f16, true>>(&block),
                (Element::Int8, false) => rows::<S, Plain<i8, false>>(&block),
                (Element::Int8, true) => rows::<S, Plain<i8, true>>(&block),
                (Element::Bf16Pairs, _) if block.pairs => rows::<S, Pairs>(&block),
                (Element::Bf16Pairs, _) => rows::<S, WidenedPairs>(&block),
            }
        }
    }
}

/// How elements of a weight are read and multiplied.
trait Elements {
    /// What is held in registers of one vector of the weight at one step.
    type Loaded<S: Set>: Copy;
    /// Bytes of one panel at one step.
    const STEP_BYTES: usize;
    /// Words of x that a step takes.
    const WORDS: usize;
    /// Values of k that a step takes.
    const VALUES: usize;

    /// # Safety
    /// `LANES` elements (or pairs) lie `lane` elements behind `at`.
    unsafe fn load<S: Set>(at: *const u8, lane: usize, scale: f32) -> Self::Loaded<S>;

    /// # Safety
    /// `x` points to `WORDS` words.
    unsafe fn multiply<S: Set>(sum: S::Vector, x: *const f32, w: Self::Loaded<S>) -> S::Vector;

    /// The last step of an odd depth, where a step takes two values.
    ///
    /// # Safety
    /// `x` points to one word.
    #[inline(always)]
    unsafe fn multiply_last<S: Set>(sum: S::Vector, x: *const f32, w: Self::Loaded<S>) -> S::Vector {
        // SAFETY: the caller's promise.
        unsafe { Self::multiply::<S>(sum, x, w) }
    }
}

/// One value of k a step, widened to f32 and perhaps squared.
struct Plain<T, const SQUARE: bool>(PhantomData<T>);
/// Two values of k a step, widened.
struct WidenedPairs;
/// Two values of k a step, in bf16 arithmetic.
struct Pairs;

macro_rules! plain {
    ($type:ty, |$set:ident, $at:ident, $scale:ident| $load:expr) => {
        impl<const SQUARE: bool> Elements for Plain<$type, SQUARE> {
            type Loaded<S: Set> = S::Vector;
            const STEP_BYTES: usize = WIDTH * size_of::<$type>();
            const WORDS: usize = 1;
            const VALUES: usize = 1;

            #[inline(always)]
            unsafe fn load<$set: Set>(at: *const u8, lane: usize, $scale: f32) -> $set::Vector {
                // SAFETY: the caller's promise.
                let w = unsafe {
                    let $at = at.cast::<$type>().add(lane);
                    $load
                };
                if SQUARE { $set::mul(w, w) } else { w }
            }

            #[inline(always)]
            unsafe fn multiply<S: Set>(sum: S::Vector, x: *const f32, w: S::Vector) -> S::Vector {
                // SAFETY: the caller's promise.
                S::mul_add(S::splat(unsafe { *x }), w, sum)
            }
        }
    };
}

plain!(f32, |S, at, _scale| S::load(at));
plain!(u16, |S, at, _scale| S::load_bf16(at));
plain!(f16, |S, at, _scale| S::load_f16(at));
plain!(i8, |S, at, scale| S::mul(S::load_i8(at), S::splat(scale)));

impl Elements for WidenedPairs {
    type Loaded<S: Set> = S::Words;
    const STEP_BYTES: usize = WIDTH * 4;
    const WORDS: usize = 2;
    const VALUES: usize = 2;

    #[inline(always)]
    unsafe fn load<S: Set>(at: *const u8, lane: usize, _scale: f32) -> S::Words {
        // SAFETY: the caller's promise.
        unsafe { S::load_pairs(at.cast::<u32>().add(lane)) }
    }

    #[inline(always)]
    unsafe fn multiply<S: Set>(sum: S::Vector, x: *const f32, w: S::Words) -> S::Vector {
        // SAFETY: the caller's promise.
        unsafe {
            let sum = S::mul_add(S::splat(*x), S::first_of_pairs(w), sum);
            S::mul_add(S::splat(*x.add(1)), S::second_of_pairs(w), sum)
        }
    }

    #[inline(always)]
    unsafe fn multiply_last<S: Set>(sum: S::Vector, x: *const f32, w: S::Words) -> S::Vector {
        // SAFETY: the caller's promise.
        S::mul_add(S::splat(unsafe { *x }), S::first_of_pairs(w), sum)
    }
}

impl Elements for Pairs {
    type Loaded<S: Set> = S::Words;
    const STEP_BYTES: usize = WIDTH * 4;
    const WORDS: usize = 1;
    const VALUES: usize = 2;

    #[inline(always)]
    unsafe fn load<S: Set>(at: *const u8, lane: usize, _scale: f32) -> S::Words {
        // SAFETY: the caller's promise.
        unsafe { S::load_pairs(at.cast::<u32>().add(lane)) }
    }

    #[inline(always)]
    unsafe fn multiply<S: Set>(sum: S::Vector, x: *const f32, w: S::Words) -> S::Vector {
        // SAFETY: the caller's promise.
        S::dot_pairs(sum, unsafe { x.cast::<u32>().read() }, w)
    }
}

/// How far ahead of its use a weight is asked for, in bytes: beyond the end of a page, where the hardware stops. Measured
/// for 16 rows of a weight in memory: 93 % of the peak instead of 81; one row is faster without.
const AHEAD: usize = 4096;

/// Few rows take four vectors at once, so that enough chains are in flight; more rows take two.
const FEW_ROWS: usize = 2;

/// # Safety
/// As [`Block::compute`].
#[inline(always)]
unsafe fn rows<S: Set, E: Elements>(block: &Block) {
    let vectors = block.units * UNIT / S::LANES;
    let mut vector = 0;
    while block.rows <= FEW_ROWS && vector + 4 <= vectors {
        // SAFETY: the caller's promise.
        unsafe { strips::<S, E, 4>(block, vector) };
        vector += 4;
    }
    while vector < vectors {
        // SAFETY: the caller's promise.
        unsafe { strips::<S, E, 2>(block, vector) };
        vector += 2;
    }
}

/// All rows of the block times `VECTORS` vectors of columns.
///
/// # Safety
/// As [`Block::compute`].
#[inline(always)]
unsafe fn strips<S: Set, E: Elements, const VECTORS: usize>(block: &Block, first: usize) {
    let mut row = 0;
    while row < block.rows {
        // SAFETY: the caller's promise; each tile has at most the rows that are left.
        unsafe {
            row += match (block.rows - row).min(S::ROWS) {
                12.. if VECTORS == 2 => tile::<S, E, 12, VECTORS>(block, row, first),
                8.. if VECTORS == 2 => tile::<S, E, 8, VECTORS>(block, row, first),
                6.. if VECTORS == 2 => tile::<S, E, 6, VECTORS>(block, row, first),
                4.. if VECTORS == 2 => tile::<S, E, 4, VECTORS>(block, row, first),
                2.. => tile::<S, E, 2, VECTORS>(block, row, first),
                _ => tile::<S, E, 1, VECTORS>(block, row, first),
            }
        }
    }
}

/// The micro-kernel: `ROWS` rows times `VECTORS` vectors, sums in registers. Returns `ROWS`.
///
/// # Safety
/// As [`Block::compute`].
#[inline(always)]
unsafe fn tile<S: Set, E: Elements, const ROWS: usize, const VECTORS: usize>(
    block: &Block,
    row: usize,
    first: usize,
) -> usize {
    let words_of_a_row = if E::VALUES > E::WORDS { DEPTH / 2 } else { DEPTH };
    // SAFETY: the caller's promise.
    unsafe {
        let (mut strips, mut lanes) = ([block.w; VECTORS], [0; VECTORS]);
        for v in 0..VECTORS {
            strips[v] = block.w.add((first + v) * S::LANES / WIDTH * block.panel_bytes);
            lanes[v] = (first + v) * S::LANES % WIDTH;
        }
        // Beyond a panel's end a strip goes on in the next panels, those of the other strips left out.
        let beyond = (VECTORS * S::LANES / WIDTH).saturating_sub(1) * block.panel_bytes;
        let x = block.x.add(row * words_of_a_row);
        let mut sums = [[S::splat(0.0); VECTORS]; ROWS];
        for step in 0..block.depth / E::VALUES {
            let mut w = [E::load::<S>(strips[0].add(step * E::STEP_BYTES), lanes[0], block.scale); VECTORS];
            for v in 1..VECTORS {
                w[v] = E::load::<S>(strips[v].add(step * E::STEP_BYTES), lanes[v], block.scale);
            }
            if ROWS > FEW_ROWS {
                let ahead = step * E::STEP_BYTES + AHEAD;
                let ahead = if ahead < block.panel_bytes { ahead } else { ahead + beyond };
                strips.iter().for_each(|strip| S::prefetch(strip.wrapping_add(ahead)));
            }
            for (i, sums) in sums.iter_mut().enumerate() {
                let x = x.add(i * words_of_a_row + step * E::WORDS);
                for (sum, w) in sums.iter_mut().zip(w) {
                    *sum = E::multiply::<S>(*sum, x, w);
                }
            }
        }
        if !block.depth.is_multiple_of(E::VALUES) {
            let step = block.depth / E::VALUES;
            for (v, strip) in strips.iter().enumerate() {
                let w = E::load::<S>(strip.add(step * E::STEP_BYTES), lanes[v], block.scale);
                for (i, sums) in sums.iter_mut().enumerate() {
                    sums[v] = E::multiply_last::<S>(sums[v], x.add(i * words_of_a_row + step * E::WORDS), w);
                }
            }
        }
        for (i, sums) in sums.into_iter().enumerate() {
            for (v, sum) in sums.into_iter().enumerate() {
                let c = block.c.add((row + i) * TILE_STRIDE + (first + v) * S::LANES);
                let sum = if block.accumulate { S::add(S::load(c), sum) } else { sum };
                S::store(sum, c);
            }
        }
    }
    ROWS
}
