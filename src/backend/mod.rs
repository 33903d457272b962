//! The seam: what a backend is asked to compute, in matrices and vectors only. It knows no adapters, files or handles.
//!
//! [`reference`] is plain f64 code that reads like the method; [`cpu`] is held to it.

pub mod cpu;
pub mod reference;
mod weight;

pub use weight::Weight;

use crate::error::Result;
use crate::fail;
use crate::noise::{DropoutKey, NormalKey};
use crate::tensor::{Dtype, Matrix, MatrixMut};

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

/// One adapter's part in one layer: `y += coefficient ∘ λ_b ∘ (z Bᵀ)`.
#[derive(Clone, Copy, Debug)]
pub struct Term<'a> {
    /// `A[:, layer] [2r, in]`.
    pub a: Weight<'a>,
    /// `B[layer, :] [out, r]`.
    pub b: Weight<'a>,
    /// `[2r]`.
    pub lambda_d: &'a [f32],
    /// `[out]`.
    pub lambda_b: &'a [f32],
    /// A learned bias `[out]`, which takes the place of the layer's own.
    pub bias: Option<&'a [f32]>,
    /// The adapter's alpha times the row's scale.
    pub scale: f32,
    pub mode: Mode,
    /// `logvar = min(logvar, bound)`; infinite when off.
    pub logvar_bound: f32,
    pub noise: NormalKey,
    /// Keyed dropout on x and its probability; None outside training.
    pub dropout: Option<(DropoutKey, f32)>,
    /// Where this term's `[2r]` columns of p begin. Terms of equal A and no dropout share them.
    pub p_column: usize,
    /// Where this term's `[r]` columns of eps, mu and logvar begin.
    pub latent_column: usize,
}

impl Term<'_> {
    pub fn rank(&self) -> usize {
        self.b.inputs()
    }
}

/// Which terms a row takes part in.
#[derive(Clone, Copy, Debug)]
pub enum Membership<'a> {
    /// Every term, summed.
    All,
    /// One term a row, by index; −1 for none.
    ByRow(&'a [i32]),
}

impl Membership<'_> {
    /// Whether row `row` takes part in term `term`.
    pub fn holds(&self, row: usize, term: usize) -> bool {
        match self {
            Membership::All => true,
            Membership::ByRow(terms) => terms[row] == term as i32,
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
    pub base: Option<Weight<'a>>,
    /// The layer's own bias `[1, out]`.
    pub bias: Option<Matrix<'a>>,
    pub terms: &'a [Term<'a>],
    pub membership: Membership<'a>,
    pub keys: RowKeys<'a>,
    pub noise: Noise<'a>,
}

impl<'a> Call<'a> {
    /// The learned bias of row `row`, if a term of the row has one.
    pub fn learned_bias(&self, row: usize) -> Option<&'a [f32]> {
        match self.membership {
            Membership::All => self.terms.iter().find_map(|term| term.bias),
            Membership::ByRow(terms) => usize::try_from(terms[row]).ok().and_then(|term| self.terms[term].bias),
        }
    }
}

impl Call<'_> {
    /// Columns of what a tape keeps of `z Bᵀ`: one block of outputs a term, or one in all when a row has one term.
    pub fn kept_width(&self) -> usize {
        match self.membership {
            Membership::All => self.terms.len() * self.outputs,
            Membership::ByRow(_) => self.outputs,
        }
    }

    /// Where term `term` lies in it.
    pub fn kept_column(&self, term: usize) -> usize {
        match self.membership {
            Membership::All => term * self.outputs,
            Membership::ByRow(_) => 0,
        }
    }
}

/// The KL divergence of the latents to the standard normal, as part of a loss.
#[derive(Clone, Copy, Debug, Default)]
pub struct Kl {
    /// What the divergence counts in the loss.
    pub weight: f64,
    /// Divide by the number of latent entries of the call, as the authors do; otherwise sum.
    pub mean: bool,
}

/// What the caller adds to the latents' gradients, for other priors: `[n, latents]` each.
#[derive(Clone, Copy, Debug, Default)]
pub struct PriorGradients<'a> {
    pub dmu: Option<Matrix<'a>>,
    pub dlogvar: Option<Matrix<'a>>,
}

/// Where one term's gradients go; None skips.
#[derive(Debug, Default)]
pub struct TermGradients<'a> {
    pub lambda_b: Option<&'a mut [f32]>,
    pub lambda_d: Option<&'a mut [f32]>,
    pub bias: Option<&'a mut [f32]>,
}

/// What backward of one layer produces, besides dx.
#[derive(Debug)]
pub struct Gradients<'a, 'b> {
    /// One entry a term of the call.
    pub terms: &'b mut [TermGradients<'a>],
    pub kl: Kl,
    pub prior: PriorGradients<'a>,
    /// The divergence summed or averaged, before its weight.
    pub kl_value: Option<&'b mut f64>,
    pub variance: Option<Variance<'b>>,
    /// Set outputs instead of adding to them.
    pub overwrite: Overwrite,
}

/// First-order variance of f, for dy = df/dy: `Σ over latents of (Σ over rows of one identity of g·σ)²`, added.
#[derive(Debug)]
pub struct Variance<'b> {
    pub values: &'b mut [f64],
    /// Which value a row belongs to; None: its own.
    pub index: Option<&'b [u32]>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Overwrite {
    pub lambda_b: bool,
    pub lambda_d: bool,
    pub bias: bool,
}

/// A group of layers with one input, as backward sees it.
#[derive(Clone, Copy, Debug)]
pub struct Backward<'a> {
    pub calls: &'a [Call<'a>],
    /// The group's distinct projections, as in [`Backend::project`].
    pub projections: &'a [Call<'a>],
    /// `[n, width]` of p, for the layers of the group.
    pub p: Matrix<'a>,
    /// `z Bᵀ` of each layer's terms, `[n, kept_width]` f32, when the tape keeps it.
    pub kept: Option<&'a [Matrix<'a>]>,
    /// `[n, out]` for each layer.
    pub dy: &'a [Matrix<'a>],
    /// Set dx instead of adding to it.
    pub overwrite_dx: bool,
}

/// What every backend computes. Outputs are checked by the caller before any of these runs.
pub trait Backend {
    /// `p = dropout(x) Aᵀ` for every term of the calls. The layers of a group share x and p; the caller passes each
    /// distinct projection once.
    fn project(
        &self,
        projections: &[Call<'_>],
        x: &Matrix<'_>,
        scope: Scope,
        p: &MatrixMut<'_>,
        part: Part,
    ) -> Result<()>;

    /// `y += λ_b ∘ (z Bᵀ)`, from p; with `x`, first `y = x Wᵀ + bias`. One matrix `[draws·n, out]` of y for each call.
    fn expand(&self, expand: &Expand<'_>, y: &[MatrixMut<'_>], part: Part) -> Result<()>;

    /// Exact mean and variance of y given x.
    fn moments(
        &self,
        call: &Call<'_>,
        x: &Matrix<'_>,
        p: &Matrix<'_>,
        mean: &MatrixMut<'_>,
        variance: &MatrixMut<'_>,
    ) -> Result<()>;

    /// `(mu, logvar)`, from p.
    fn latent(&self, call: &Call<'_>, p: &Matrix<'_>, mu: &MatrixMut<'_>, logvar: &MatrixMut<'_>) -> Result<()>;

    /// Gradients of a group, from what forward kept.
    fn backward(
        &self,
        group: &Backward<'_>,
        gradients: &mut [Gradients<'_, '_>],
        dx: Option<&MatrixMut<'_>>,
    ) -> Result<()>;

    /// `merged = weight + Σ scale · diag(λ_b) B diag(λ_d[:r]) A[:r]`, as seen by x Wᵀ.
    fn merge(&self, terms: &[Term<'_>], weight: Weight<'_>, merged: &MatrixMut<'_>, transposed: bool) -> Result<()>;
}

/// Which columns of p a call needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The mu half of the terms in mean mode, everything of the others.
    AsModes,
    /// Everything.
    All,
}

/// A share of a call's work; the shares of one call are disjoint and may run at the same time.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    pub index: usize,
    pub count: usize,
}

impl Part {
    pub const WHOLE: Part = Part { index: 0, count: 1 };

    /// This part's share of `total` things.
    pub fn of(self, total: usize) -> std::ops::Range<usize> {
        let bound = |index: usize| (total as u128 * index as u128 / self.count as u128) as usize;
        bound(self.index)..bound(self.index + 1)
    }
}

/// The second half of a forward.
#[derive(Clone, Copy, Debug)]
pub struct Expand<'a> {
    pub calls: &'a [Call<'a>],
    /// Needed by calls with a base weight.
    pub x: Option<Matrix<'a>>,
    pub p: Matrix<'a>,
    /// Consecutive samples drawn of each row; draw s of row i is row `s·n + i` of y.
    pub draws: usize,
    /// Where `z Bᵀ` of each term is kept, `[n, terms·out]` f32, one for each call.
    pub keep: Option<&'a [MatrixMut<'a>]>,
}

/// A merge writes nothing unless every element is finite in the weight's own type.
fn check_merged(dtype: Dtype, mut elements: impl Iterator<Item = (usize, usize, f32)>) -> Result<()> {
    match elements.find(|(_, _, value)| !dtype.rounded(*value).is_finite()) {
        None => Ok(()),
        Some((output, input, value)) => fail!(
            Overflow,
            "merged weight of output {output}, input {input} is {value}, not a finite number in {}; nothing was written",
            dtype.name()
        ),
    }
}
