//! What backward reads and where its results go.

use super::Call;
#[cfg(feature = "cuda")]
use crate::tensor::Device;
use crate::tensor::{Matrix, VectorMut};

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
    pub lambda_b: Option<VectorMut<'a>>,
    pub lambda_d: Option<VectorMut<'a>>,
    pub bias: Option<VectorMut<'a>>,
}

impl TermGradients<'_> {
    /// Everything, nowhere: for questions about calls to come.
    #[cfg(feature = "cuda")]
    pub fn everything() -> Self {
        // SAFETY: of no length.
        let nowhere = || Some(unsafe { VectorMut::new(std::ptr::NonNull::dangling().as_ptr(), 0, Device::Host) });
        Self { lambda_b: nowhere(), lambda_d: nowhere(), bias: nowhere() }
    }
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
    /// The same in device memory, by address.
    pub kl_value_at: Option<u64>,
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
