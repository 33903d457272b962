//! Standard normals by key: Box–Muller over ChaCha8 words.

use super::key::{BATCH, BLOCK, Domain, Key};
use super::math;

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
        let (sample, negate) = if antithetic { (sample >> 1, sample & 1 == 1) } else { (sample, false) };
        let sign = u32::from(negate) << 31;
        let convert = converter();
        let mut words = self.0.words(identity, sample, first);
        let mut normals = [0.0; BATCH];
        let (mut skipped, mut rest) = (first % BLOCK, out);
        while !rest.is_empty() {
            convert(&words.next_batch(), sign, &mut normals);
            let fresh = &normals[skipped..];
            let (now, later) = rest.split_at_mut(fresh.len().min(rest.len()));
            now.copy_from_slice(&fresh[..now.len()]);
            (skipped, rest) = (0, later);
        }
    }
}

/// Turns four blocks of words into normals; xors `sign` into each.
type Convert = fn(&[u32; BATCH], u32, &mut [f32; BATCH]);

/// The fastest version for this machine. All give the same bits.
fn converter() -> Convert {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        // SAFETY: the machine has both features.
        return |words, sign, out| unsafe { convert_avx2(words, sign, out) };
    }
    convert
}

/// The definition itself, compiled for 8 lanes and fused multiply-add.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn convert_avx2(words: &[u32; BATCH], sign: u32, out: &mut [f32; BATCH]) {
    convert(words, sign, out);
}

/// The definition: words j and j + 8 of a block become its normals j and j + 8.
#[inline(always)]
fn convert(words: &[u32; BATCH], sign: u32, out: &mut [f32; BATCH]) {
    for (words, out) in words.as_chunks::<BLOCK>().0.iter().zip(out.as_chunks_mut::<BLOCK>().0) {
        for j in 0..HALF {
            let (first, second) = box_muller(words[j], words[j + HALF]);
            out[j] = f32::from_bits(first.to_bits() ^ sign);
            out[j + HALF] = f32::from_bits(second.to_bits() ^ sign);
        }
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
    use super::*;

    #[test]
    fn the_fast_version_has_the_bits_of_the_definition() {
        let mut words = [0u32; BATCH];
        for round in 0..20_000u32 {
            for (place, word) in (0u32..).zip(&mut words) {
                *word = (round * BATCH as u32 + place).wrapping_mul(0x9e37_79b9);
            }
            // Extreme words in every lane, now and then.
            words[round as usize % BATCH] = [0, 1, u32::MAX, 1 << 31][round as usize / BATCH % 4];
            let sign = round << 31;
            let (mut wanted, mut got) = ([0.0; BATCH], [0.0; BATCH]);
            convert(&words, sign, &mut wanted);
            converter()(&words, sign, &mut got);
            assert_eq!(wanted.map(f32::to_bits), got.map(f32::to_bits), "round {round}");
        }
    }

    #[test]
    fn the_largest_and_the_smallest_normal() {
        assert_eq!(box_muller(0, 0), (6.660_437, 0.0));
        assert_eq!(box_muller(1, 3 << 30), (0.0, -6.660_437));
        assert_eq!(box_muller(u32::MAX, 12345), (0.0, 0.0));
    }
}
