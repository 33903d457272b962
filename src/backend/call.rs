//! A resolved call: which matrices and vectors act on which rows of one layer.

use super::Weight;
use super::cpu::{Base, Pair};
use crate::noise::{DropoutKey, NormalKey};
use crate::tensor::{Matrix, Vector};

use super::copies::Original;

/// How a latent is made from `(mu, logvar)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// `z = mu`.
    Mean,
    /// `z = mu + eps ∘ exp(½ logvar)`.
    Sample,
    /// `z = mu + exp(½ logvar)`.
    Fixed,
}

impl Mode {
    pub fn name(self) -> &'static str {
        match self {
            Mode::Mean => "mean",
            Mode::Sample => "sample",
            Mode::Fixed => "fixed",
        }
    }
}

/// One adapter's part in one layer: `y += coefficient ∘ λ_b ∘ (z Bᵀ)`.
#[derive(Clone, Copy, Debug)]
pub struct Term<'a> {
    /// `A[:, layer] [2r, in]`; `[r, in]` where there is no logvar.
    pub a: Weight<'a>,
    /// `B[layer, :] [out, r]`.
    pub b: Weight<'a>,
    /// The same two for packed products.
    pub pair: Pair<'a>,
    /// `[2r]`, or `[r]`.
    pub lambda_d: Vector<'a>,
    /// `[out]`.
    pub lambda_b: Vector<'a>,
    /// A learned bias `[out]`, which takes the place of the layer's own.
    pub bias: Option<Vector<'a>>,
    /// What A, B and the vectors are parts of, for backends that keep copies elsewhere.
    pub originals: Originals<'a>,
    /// The adapter's alpha times the row's scale.
    pub scale: f32,
    pub mode: Mode,
    /// `logvar = min(logvar, bound)`; infinite when off.
    pub logvar_bound: f32,
    pub noise: NormalKey,
    /// What, beside the seed, the noise is keyed by: the layer's hash and the adapter's identity.
    pub noise_names: (u64, u64),
    /// Keyed dropout on x and its probability; None outside training.
    pub dropout: Option<(DropoutKey, f32)>,
    /// Where this term's columns of p begin, one for each row of A. Terms of equal A and no dropout share them.
    pub p_column: usize,
    /// Where this term's `[r]` columns of eps, mu and logvar begin.
    pub latent_column: usize,
}

impl Term<'_> {
    /// Whether the two go through the same A and B, with the same rank and in the same columns of p.
    pub fn shares_projections(&self, other: &Term<'_>) -> bool {
        self.a.data() == other.a.data()
            && self.b.data() == other.b.data()
            && self.rank() == other.rank()
            && self.width() == other.width()
            && self.p_column == other.p_column
    }

    pub fn rank(&self) -> usize {
        self.b.inputs()
    }

    /// Columns of p, and numbers of λ_d: 2r, or r where there is no logvar.
    pub fn width(&self) -> usize {
        self.a.outputs()
    }

    /// Whether the latent has a variance. VeRA's has none, and its terms are always in mean mode.
    pub fn has_logvar(&self) -> bool {
        self.width() > self.rank()
    }
}

/// Host memory that is copied to a device once.
#[derive(Clone, Copy, Debug)]
pub struct Originals<'a> {
    pub a: Original<'a>,
    pub b: Original<'a>,
    /// None for vectors that may change, or that lie on a device already.
    pub vectors: Option<Original<'a>>,
}

/// Which terms a row takes part in.
#[derive(Clone, Copy, Debug)]
pub enum Membership<'a> {
    /// Every term, summed.
    All,
    /// One term a row, by index; −1 for none.
    ByRow(&'a [i32]),
    /// The same by the slot of each row, which lies in device memory: the term of each slot.
    BySlot { slot: u64, term_of_slot: &'a [i32] },
}

/// In a table of slots: nothing is published there. (−1 is an adapter that does not adapt the layer.)
pub const NO_ADAPTER: i32 = -2;

const SLOTS_ON_DEVICE: &str = "slots on a device are read there";

impl Membership<'_> {
    /// Whether rows have one term each.
    pub fn is_by_row(&self) -> bool {
        !matches!(self, Membership::All)
    }

    /// Whether row `row` takes part in term `term`.
    pub fn holds(&self, row: usize, term: usize) -> bool {
        match self {
            Membership::All => true,
            Membership::ByRow(terms) => terms[row] == term as i32,
            Membership::BySlot { .. } => unreachable!("{SLOTS_ON_DEVICE}"),
        }
    }
}

/// Whose noise a row draws.
#[derive(Clone, Copy, Debug, Default)]
pub struct RowKeys<'a> {
    pub identity: Option<&'a [u64]>,
    pub identity_base: u64,
    pub sample: Option<&'a [u32]>,
    pub sample_base: u32,
    /// The same two in device memory, by address; 0 when they are not there.
    pub identity_at: u64,
    pub sample_at: u64,
}

impl RowKeys<'_> {
    /// The given identity, or the base plus the row's number.
    pub fn identity(&self, row: usize) -> u64 {
        self.identity.map_or(self.identity_base.wrapping_add(row as u64), |identity| identity[row])
    }

    pub fn sample(&self, row: usize) -> u32 {
        self.sample.map_or(self.sample_base, |sample| sample[row])
    }
}

/// Noise that the caller gives instead of a key.
#[derive(Clone, Copy, Debug, Default)]
pub struct Noise<'a> {
    /// `[n, latents]`.
    pub eps: Option<Matrix<'a>>,
    /// `[n, in]`, already scaled by 1/(1−p).
    pub dropout_mask: Option<Matrix<'a>>,
    pub antithetic: bool,
    /// The seed of every key, or where it lies in device memory; 0 when it does not.
    pub seed: u64,
    pub seed_at: u64,
}

/// One adapted layer over n rows, with everything resolved.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    pub rows: usize,
    pub inputs: usize,
    pub outputs: usize,
    /// Where the layer's inputs begin in the whole layer: keyed dropout is the same on every shard.
    pub in_offset: usize,
    /// The base weight; without it, the delta is added to what y holds.
    pub base: Option<Base<'a>>,
    /// The layer's own bias `[1, out]`.
    pub bias: Option<Matrix<'a>>,
    pub terms: &'a [Term<'a>],
    pub membership: Membership<'a>,
    pub keys: RowKeys<'a>,
    pub noise: Noise<'a>,
}

impl<'a> Call<'a> {
    /// The learned bias of row `row`, if a term of the row has one.
    pub fn learned_bias(&self, row: usize) -> Option<Vector<'a>> {
        match self.membership {
            Membership::All => self.terms.iter().find_map(|term| term.bias),
            Membership::ByRow(terms) => usize::try_from(terms[row]).ok().and_then(|term| self.terms[term].bias),
            Membership::BySlot { .. } => unreachable!("{SLOTS_ON_DEVICE}"),
        }
    }
}

impl Call<'_> {
    /// The first of the call's columns of eps, and how many it has.
    pub fn latents(&self) -> (usize, usize) {
        let first = self.terms.iter().map(|term| term.latent_column).min().unwrap_or(0);
        let end = self.terms.iter().map(|term| term.latent_column + term.rank()).max().unwrap_or(0);
        (first, end - first)
    }

    /// Latents of all rows.
    pub fn latent_entries(&self) -> usize {
        match self.membership {
            Membership::All => self.rows * self.terms.iter().map(Term::rank).sum::<usize>(),
            Membership::ByRow(terms) => {
                terms.iter().filter_map(|term| usize::try_from(*term).ok()).map(|term| self.terms[term].rank()).sum()
            }
            Membership::BySlot { .. } => unreachable!("{SLOTS_ON_DEVICE}"),
        }
    }

    /// Columns of what a tape keeps of `z Bᵀ`: one block of outputs a term, or one in all when a row has one term.
    pub fn kept_width(&self) -> usize {
        match self.membership {
            Membership::All => self.terms.len() * self.outputs,
            Membership::ByRow(_) | Membership::BySlot { .. } => self.outputs,
        }
    }

    /// Where term `term` lies in it.
    pub fn kept_column(&self, term: usize) -> usize {
        match self.membership {
            Membership::All => term * self.outputs,
            Membership::ByRow(_) | Membership::BySlot { .. } => 0,
        }
    }
}
