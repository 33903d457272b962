//! The seam: what a backend is asked to compute, in matrices and vectors only. It knows no adapters, files or handles.
//!
//! [`reference`] is plain f64 code that reads like the method; [`cpu`] is held to it, and `cuda` to the bits of [`cpu`].

mod call;
mod copies;
pub mod cpu;
#[cfg(feature = "cuda")]
pub mod cuda;
mod gradients;
mod lock;
pub mod reference;
mod weight;

pub use call::{Call, Membership, Mode, NO_ADAPTER, Noise, Originals, RowKeys, Term};
pub use copies::{Copies, Original};
pub use gradients::{Backward, Gradients, Kl, Overwrite, PriorGradients, TermGradients, Variance};
pub use weight::Weight;

use crate::error::Result;
use crate::fail;
use crate::tensor::{Dtype, Matrix, MatrixMut};

/// What every backend computes. Outputs are checked by the caller before any of these runs.
pub trait Backend {
    /// [`project`](Self::project), then [`expand`](Self::expand): one matrix `[draws·n, out]` of y for each call.
    fn forward(&self, forward: &Forward<'_>, y: &[MatrixMut<'_>]) -> Result<()>;

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

    /// Bytes of scratch that such a forward, and such a backward with everything asked for, hold when they are done. Only
    /// shapes are looked at.
    fn scratch_bytes(&self, forward: &Forward<'_>, backward: Option<(&Backward<'_>, &MatrixMut<'_>)>) -> Result<usize>;

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
        if self.count == 1 {
            return 0..total;
        }
        let bound = |index: usize| (total as u128 * index as u128 / self.count as u128) as usize;
        bound(self.index)..bound(self.index + 1)
    }
}

/// A whole forward of a group of layers with one input.
#[derive(Clone, Copy, Debug)]
pub struct Forward<'a> {
    /// The group's distinct projections.
    pub projections: &'a [Call<'a>],
    pub calls: &'a [Call<'a>],
    pub x: Matrix<'a>,
    pub scope: Scope,
    /// Columns of p.
    pub width: usize,
    /// Where p is kept, `[n, width]` f32; None when nobody needs it afterwards.
    pub p: Option<&'a MatrixMut<'a>>,
    pub draws: usize,
    /// As in [`Expand`].
    pub keep: Option<&'a [MatrixMut<'a>]>,
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
