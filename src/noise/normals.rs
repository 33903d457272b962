//! Standard normals by key: Box–Muller over ChaCha8 words.

use super::chacha::ByWord;
use super::key::{BLOCK, Domain, Key};
use super::math;
use super::rows::{Batch, Convert, Row};
use crate::simd::Isa;

/// Half of a block: so many words give radii, and as many angles.
const HALF: usize = BLOCK / 2;

/// The source of the normals of one (seed, layer, adapter).
#[derive(Clone, Copy, Debug)]
pub struct NormalKey(Key);

impl NormalKey {
    /// `layer_hash` and `adapter_identity` are usually [`layer_hash`](super::layer_hash) and
    /// [`adapter_identity`](super::adapter_identity) of the names; any numbers do.
    pub fn new(seed: u64, layer_hash: u64, adapter_identity: u64) -> Self {
        Self(Key::new(seed, layer_hash, adapter_identity, Domain::Eps))
    }

    /// Writes the normals of latents 0, 1, … of the row `identity` in Monte Carlo sample `sample`.
    ///
    /// The value of a latent does not depend on how many are asked for. With `antithetic`, samples 2j and 2j + 1 are
    /// negatives of each other (and sample 2j has the normals that sample j has without it).
    pub fn fill(&self, identity: u64, sample: u32, antithetic: bool, out: &mut [f32]) {
        self.fill_from(identity, sample, antithetic, 0, out);
    }

    /// As [`fill`](Self::fill), from latent `first` (below 2³⁶) on.
    pub fn fill_from(&self, identity: u64, sample: u32, antithetic: bool, first: usize, out: &mut [f32]) {
        self.fill_rows(Isa::best(), antithetic, [Row { identity, sample, first, out }]);
    }

    /// As [`fill`](Self::fill), with these instructions.
    pub fn fill_on(&self, isa: Isa, identity: u64, sample: u32, antithetic: bool, out: &mut [f32]) {
        self.fill_rows(isa, antithetic, [Row { identity, sample, first: 0, out }]);
    }

    /// As [`fill_on`](Self::fill_on) and [`fill_from`](Self::fill_from) for each row. It is faster in one call where
    /// rows are shorter than 256: sixteen blocks of 16 latents are drawn side by side, of whatever rows.
    pub fn fill_rows<'a>(&self, isa: Isa, antithetic: bool, rows: impl IntoIterator<Item = Row<'a>>) {
        let mut batch = Batch::new(isa, &self.0, BoxMuller);
        for mut row in rows {
            let mut flip = 0;
            if antithetic {
                flip = row.sample << 31;
                row.sample >>= 1;
            }
            batch.push(row, flip);
        }
        batch.flush();
    }
}

/// Words j and j + 8 of a block become its normals j and j + 8.
#[derive(Clone, Copy)]
struct BoxMuller;

impl Convert for BoxMuller {
    #[inline(always)]
    fn convert<const L: usize>(self, words: &ByWord<u32, L>) -> ByWord<f32, L> {
        let mut values = ByWord([[0.0; L]; BLOCK]);
        let (radius_words, angle_words) = (words.0[..HALF].as_flattened(), words.0[HALF..].as_flattened());
        let (cosines, sines) = values.0.split_at_mut(HALF);
        let places = cosines.as_flattened_mut().iter_mut().zip(sines.as_flattened_mut());
        for ((first, second), (radius, angle)) in places.zip(radius_words.iter().zip(angle_words)) {
            (*first, *second) = box_muller(*radius, *angle);
        }
        values
    }
}

/// (ρ cos a, ρ sin a) with ρ = √(−2 ln u), u in (0, 1] from 31 bits of the first word, and the turn a from the second.
#[inline(always)]
fn box_muller(radius_word: u32, angle_word: u32) -> (f32, f32) {
    const STEP: f32 = 1.0 / 2_147_483_648.0;
    let uniform = ((radius_word >> 1) as i32 as f32).mul_add(STEP, 0.5 * STEP);
    let radius = (-2.0 * math::log(uniform)).sqrt();
    let (sin, cos) = math::sincos_turns(angle_word);
    (radius * cos, radius * sin)
}

#[cfg(test)]
mod tests {
    use std::array::from_fn;

    use super::*;
    use crate::simd::{Kernel, Set};

    /// Words through the conversion, compiled for a set.
    struct Converted<'a, const L: usize>(&'a ByWord<u32, L>);

    impl<const L: usize> Kernel for Converted<'_, L> {
        type Output = ByWord<f32, L>;

        #[inline(always)]
        fn run<S: Set>(self) -> ByWord<f32, L> {
            BoxMuller.convert(self.0)
        }
    }

    fn every_set_has_the_bits_of_the_definition<const L: usize>() {
        let mut words = ByWord([[0; L]; BLOCK]);
        for round in 0..2000 {
            let flat = words.0.as_flattened_mut();
            for (place, word) in flat.iter_mut().enumerate() {
                *word = ((round * BLOCK * L + place) as u32).wrapping_mul(0x9e37_79b9);
            }
            // Extreme words in every lane, now and then.
            flat[round % (BLOCK * L)] = [0, 1, u32::MAX, 1 << 31][round / (BLOCK * L) % 4];
            let definition = |j: usize, lane: usize| {
                let (first, second) = box_muller(words.0[j % HALF][lane], words.0[j % HALF + HALF][lane]);
                if j < HALF { first.to_bits() } else { second.to_bits() }
            };
            let wanted: [[u32; L]; BLOCK] = from_fn(|j| from_fn(|lane| definition(j, lane)));
            for isa in Isa::all() {
                let got = isa.run(Converted(&words)).0.map(|lanes| lanes.map(f32::to_bits));
                assert_eq!(got, wanted, "{isa:?}, round {round}");
            }
        }
    }

    #[test]
    fn wide_batches_have_the_bits_of_the_definition() {
        every_set_has_the_bits_of_the_definition::<16>();
    }

    #[test]
    fn narrow_batches_have_the_bits_of_the_definition() {
        every_set_has_the_bits_of_the_definition::<4>();
    }

    #[test]
    fn the_largest_and_the_smallest_normal() {
        assert_eq!(box_muller(0, 0), (6.660_437, 0.0));
        assert_eq!(box_muller(1, 3 << 30), (0.0, -6.660_437));
        assert_eq!(box_muller(u32::MAX, 12345), (0.0, 0.0));
    }
}
