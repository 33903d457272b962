//! Dropout masks by key: which columns of an input row are kept.

use super::chacha::ByWord;
use super::key::{BLOCK, Domain, Key};
use super::rows::{Batch, Convert, Row};
use crate::error::Result;
use crate::fail;
use crate::simd::Isa;

/// The source of the dropout masks of one (seed, layer, adapter).
#[derive(Clone, Copy, Debug)]
pub struct DropoutKey(Key);

impl DropoutKey {
    /// The arguments are those of [`NormalKey::new`](super::NormalKey::new); the two never share words.
    pub fn new(seed: u64, layer_hash: u64, adapter_identity: u64) -> Self {
        Self(Key::new(seed, layer_hash, adapter_identity, Domain::Dropout))
    }

    /// Writes the mask of columns `first_column`, `first_column` + 1, … (below 2³⁶) of the row `identity` in sample
    /// `sample`: 0 for a dropped column, 1/(1 − p) (in f64, rounded once) for a kept one.
    ///
    /// A column's value depends only on the key, identity, sample and column, so the shards of a row agree with the
    /// whole. Word c of the stream keeps column c when it is at least ⌊p·2³² + ½⌋. Probability 0 keeps everything,
    /// 1 drops everything; outside [0, 1] it is an error.
    pub fn fill(
        &self,
        identity: u64,
        sample: u32,
        first_column: usize,
        probability: f32,
        out: &mut [f32],
    ) -> Result<()> {
        self.fill_on(Isa::best(), identity, sample, first_column, probability, out)
    }

    /// As [`fill`](Self::fill), with these instructions.
    pub fn fill_on(
        &self,
        isa: Isa,
        identity: u64,
        sample: u32,
        first_column: usize,
        probability: f32,
        out: &mut [f32],
    ) -> Result<()> {
        if !(0.0..=1.0).contains(&probability) {
            fail!(Argument, "dropout probability is {probability}; wanted 0 to 1");
        }
        // The two ends need no words; and p·2³² would not fit into a word at 1.
        if probability == 0.0 || probability == 1.0 {
            out.fill(1.0 - probability);
            return Ok(());
        }
        let (threshold, scale) = dropout_threshold(probability);
        let mut batch = Batch::new(isa, &self.0, Mask { threshold, scale });
        batch.push(Row { identity, sample, first: first_column, out }, 0);
        batch.flush();
        Ok(())
    }
}

/// The word from which on a column is kept, and what it is then multiplied by, for a probability inside (0, 1).
pub fn dropout_threshold(probability: f32) -> (u32, f32) {
    let threshold = (f64::from(probability) * 4_294_967_296.0 + 0.5) as u32;
    (threshold, (1.0 / (1.0 - f64::from(probability))) as f32)
}

/// `scale` where the word reaches the threshold, else 0.
#[derive(Clone, Copy)]
struct Mask {
    threshold: u32,
    scale: f32,
}

impl Convert for Mask {
    #[inline(always)]
    fn convert<const L: usize>(self, words: &ByWord<u32, L>) -> ByWord<f32, L> {
        let mut values = ByWord([[0.0; L]; BLOCK]);
        for (value, &word) in values.0.as_flattened_mut().iter_mut().zip(words.0.as_flattened()) {
            *value = if word >= self.threshold { self.scale } else { 0.0 };
        }
        values
    }
}
