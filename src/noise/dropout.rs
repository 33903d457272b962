//! Dropout masks by key: which columns of an input row are kept.

use super::key::{BATCH, BLOCK, Domain, Key};
use crate::error::Result;
use crate::fail;

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
        if !(0.0..=1.0).contains(&probability) {
            fail!(Argument, "dropout probability is {probability}; wanted 0 to 1");
        }
        // The two ends need no words; and p·2³² would not fit into a word at 1.
        if probability == 0.0 || probability == 1.0 {
            out.fill(1.0 - probability);
            return Ok(());
        }
        let threshold = (f64::from(probability) * 4_294_967_296.0 + 0.5) as u32;
        let scale = (1.0 / (1.0 - f64::from(probability))) as f32;
        let mut words = self.0.words(identity, sample, first_column);
        let (mut skipped, mut rest) = (first_column % BLOCK, out);
        while !rest.is_empty() {
            let batch = words.next_batch();
            let (now, later) = rest.split_at_mut((BATCH - skipped).min(rest.len()));
            for (value, &word) in now.iter_mut().zip(&batch[skipped..]) {
                *value = if word >= threshold { scale } else { 0.0 };
            }
            (skipped, rest) = (0, later);
        }
        Ok(())
    }
}
