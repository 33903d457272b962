//! What a caller asks of a layer: whose rows these are, and where their noise comes from.

use crate::backend::{Mode, RowKeys};
use crate::tensor::Matrix;

/// Which adapters a row takes.
#[derive(Clone, Copy, Debug)]
pub enum Choice<'a> {
    /// Slot 0 on every row, the only one of a standalone linear.
    First,
    /// One slot a row; −1 is the base alone.
    PerRow(&'a [i32]),
    /// The same in device memory, by address.
    PerRowOnDevice(u64),
    /// (slot, scale) of several, summed on every row.
    Sum(&'a [(i32, f32)]),
}

/// Whose rows these are.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    pub choice: Choice<'a>,
    pub keys: RowKeys<'a>,
}

impl Default for Rows<'_> {
    fn default() -> Self {
        Self { choice: Choice::First, keys: RowKeys::default() }
    }
}

/// How z is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ModeChoice {
    /// As PEFT would: sampled in training; otherwise what each adapter's `sample_at_inference` says.
    #[default]
    AsPeft,
    All(Mode),
}

/// Where noise comes from: keyed by `seed`, or the caller's matrices.
#[derive(Clone, Copy, Debug, Default)]
pub struct Noise<'a> {
    pub mode: ModeChoice,
    pub seed: u64,
    /// Where the seed lies in device memory; 0: it is `seed`.
    pub seed_at: u64,
    /// Sample 2j + 1 takes the negated noise of sample 2j.
    pub antithetic: bool,
    /// `[n, latents]` instead of keyed noise.
    pub eps: Option<Matrix<'a>>,
    /// `[n, in]`, scaled, instead of a keyed mask.
    pub dropout_mask: Option<Matrix<'a>>,
}

/// One call's request.
#[derive(Clone, Copy, Debug, Default)]
pub struct Request<'a> {
    pub rows: Rows<'a>,
    pub noise: Noise<'a>,
    /// A forward that records a tape: PEFT's train mode.
    pub training: bool,
}
