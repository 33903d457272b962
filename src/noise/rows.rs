//! From rows to blocks and back: blocks of any rows are gathered into batches, and their values go to the rows' places.

use super::chacha::{Blocks, ByWord, LANES};
use super::key::{BLOCK, Key};
use crate::simd::{Isa, Kernel, Set};

/// Lanes of a narrow batch, for a few blocks: measured, a wide one costs a little more than two of them.
const NARROW: usize = 4;
/// Above so many blocks, one wide batch is cheaper than narrow ones.
const MOST_NARROW: usize = 2 * NARROW;

/// Values to be drawn: whose, and where they go.
#[derive(Debug)]
pub struct Row<'a> {
    /// Who the row is.
    pub identity: u64,
    /// Its Monte Carlo sample.
    pub sample: u32,
    /// The latent or input column (below 2³⁶) that the first value belongs to.
    pub first: usize,
    pub out: &'a mut [f32],
}

/// What becomes of words; it must be `#[inline(always)]`.
pub(super) trait Convert: Copy {
    fn convert<const L: usize>(self, words: &ByWord<u32, L>) -> ByWord<f32, L>;
}

/// Where the values of one block go.
#[derive(Debug, Default)]
struct Place<'a> {
    /// Values of the block before the first that is wanted.
    skipped: usize,
    /// Xored into each: the sign bit or nothing.
    flip: u32,
    out: &'a mut [f32],
}

/// Blocks that wait until there are enough for a batch.
pub(super) struct Batch<'a, 'key, C> {
    isa: Isa,
    key: &'key Key,
    convert: C,
    blocks: Blocks<LANES>,
    places: [Place<'a>; LANES],
    used: usize,
}

impl<'a, 'key, C: Convert> Batch<'a, 'key, C> {
    pub(super) fn new(isa: Isa, key: &'key Key, convert: C) -> Self {
        Self { isa, key, convert, blocks: Blocks::ZERO, places: Default::default(), used: 0 }
    }

    /// Takes a row up; its values are there only after [`flush`](Self::flush).
    #[inline]
    pub(super) fn push(&mut self, row: Row<'a>, flip: u32) {
        let mut counter = u64::from(row.sample) << 32 | u64::from((row.first / BLOCK) as u32);
        let (mut skipped, mut rest) = (row.first % BLOCK, row.out);
        while !rest.is_empty() {
            if self.used == LANES {
                self.flush();
            }
            let (out, later) = rest.split_at_mut((BLOCK - skipped).min(rest.len()));
            self.blocks.set(self.used, counter, row.identity);
            self.places[self.used] = Place { skipped, flip, out };
            self.used += 1;
            (counter, skipped, rest) = (counter.wrapping_add(1), 0, later);
        }
    }

    /// Draws what waits.
    pub(super) fn flush(&mut self) {
        let places = &mut self.places[..self.used];
        self.isa.run(Draw { key: self.key, convert: self.convert, blocks: &self.blocks, places });
        self.used = 0;
    }
}

/// The work of a batch.
struct Draw<'a, 'batch, C> {
    key: &'batch Key,
    convert: C,
    blocks: &'batch Blocks<LANES>,
    places: &'batch mut [Place<'a>],
}

impl<C: Convert> Kernel for Draw<'_, '_, C> {
    type Output = ();

    #[inline(always)]
    fn run<S: Set>(self) {
        let Self { key, convert, blocks, places } = self;
        if places.len() > MOST_NARROW {
            let values = convert.convert(&blocks.words::<S>(key));
            let mut by_block = ByBlock([[0.0; BLOCK]; LANES]);
            // SAFETY: both are 16×16 values without gaps.
            unsafe { S::transpose(values.0.as_ptr().cast(), LANES, by_block.0.as_mut_ptr().cast(), None) };
            by_block.write(places);
        } else {
            for (number, places) in places.chunks_mut(NARROW).enumerate() {
                let values = convert.convert(&blocks.part::<NARROW>(number * NARROW).words::<S>(key));
                let mut by_block = ByBlock([[0.0; BLOCK]; NARROW]);
                for (word, lanes) in values.0.iter().enumerate() {
                    for (values, value) in by_block.0.iter_mut().zip(lanes) {
                        values[word] = *value;
                    }
                }
                by_block.write(places);
            }
        }
    }
}

/// The values of each lane's block at `[lane]`.
#[repr(align(64))]
struct ByBlock<const L: usize>([[f32; BLOCK]; L]);

impl<const L: usize> ByBlock<L> {
    #[inline(always)]
    fn write(&mut self, places: &mut [Place<'_>]) {
        for (values, place) in self.0.iter_mut().zip(places) {
            for value in &mut *values {
                *value = f32::from_bits(value.to_bits() ^ place.flip);
            }
            // Most blocks are wanted whole, and a copy of known length is one store.
            match <&mut [f32; BLOCK]>::try_from(&mut *place.out) {
                Ok(whole) => *whole = *values,
                Err(_) => place.out.copy_from_slice(&values[place.skipped..][..place.out.len()]),
            }
        }
    }
}
