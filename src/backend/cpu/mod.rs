//! The f32 backend: packed products and fused steps on blocks of rows, on the caller's threads or the context's.

mod backward;
mod dense;
mod elementwise;
mod expand;
mod float_mode;
mod forward;
mod groups;
mod latent;
mod merge;
mod moments;
mod packing;
mod packs;
pub mod panels;
pub mod product;
mod project;
mod reduce;
mod scratch;
mod team;
mod thread;
pub mod tile;
mod workers;

pub use float_mode::{FloatMode, Flushing};
#[cfg(feature = "cuda")]
pub use latent::Overflow;
pub use packs::{Base, BasePacks, Packs, Pair, Uses};
pub use scratch::Lent;
pub use workers::{ParallelFor, Workers};

use super::{Backend, Backward, Call, Expand, Forward, Gradients, Part, Scope, Term, Weight};
use crate::error::Result;
use crate::memory::Arena;
use crate::simd::Isa;
use crate::tensor::{Dtype, Matrix, MatrixMut};
use groups::Group;
use scratch::Sizes;

/// Computes in f32 on the workers of a context.
#[derive(Clone, Copy, Debug)]
pub struct Cpu<'a> {
    pub workers: &'a Workers,
    /// For the lists of this call.
    pub arena: &'a Arena,
    pub arithmetic: Arithmetic,
}

/// How kernels compute.
#[derive(Clone, Copy, Debug, Default)]
pub struct Arithmetic {
    pub isa: Isa,
    /// Base products of bf16 with bf16 are made in bf16 arithmetic.
    pub bf16_products: bool,
}

impl Arithmetic {
    /// Whether the product of `x` (or dy) with this base is made in bf16 arithmetic.
    fn pairs(&self, base: &Base<'_>, x: &Matrix<'_>) -> bool {
        self.bf16_products && base.weight.dtype() == Dtype::Bf16 && x.dtype() == Dtype::Bf16
    }
}

impl Cpu<'_> {
    /// Tiles for one part: all lanes on the whole, or the part alone on this thread.
    fn tiles(&self, part: Part) -> (usize, usize, usize) {
        if part.count == 1 { (0, self.workers.lanes(), self.workers.lanes()) } else { (part.index, part.count, 1) }
    }
}

impl Backend for Cpu<'_> {
    fn forward(&self, forward: &Forward<'_>, y: &[MatrixMut<'_>]) -> Result<()> {
        forward::forward(self, forward, y)
    }

    fn scratch_bytes(&self, forward: &Forward<'_>, backward: Option<(&Backward<'_>, &MatrixMut<'_>)>) -> Result<usize> {
        let (mut sizes, mut lent) = forward::needs(self, forward)?;
        if let Some((group, dx)) = backward {
            let more = backward::needs(self, group, dx)?;
            (sizes, lent) = (sizes.max(more.0), lent.max(more.1));
        }
        Ok(self.workers.lanes() * sizes.bytes() + lent * size_of::<f32>())
    }

    fn project(
        &self,
        projections: &[Call<'_>],
        x: &Matrix<'_>,
        scope: Scope,
        p: &MatrixMut<'_>,
        part: Part,
    ) -> Result<()> {
        forward::project_part(self, projections, x, scope, p, part)
    }

    fn expand(&self, expand: &Expand<'_>, y: &[MatrixMut<'_>], part: Part) -> Result<()> {
        forward::expand_part(self, expand, y, part)
    }

    fn moments(
        &self,
        call: &Call<'_>,
        x: &Matrix<'_>,
        p: &Matrix<'_>,
        mean: &MatrixMut<'_>,
        variance: &MatrixMut<'_>,
    ) -> Result<()> {
        moments::moments(self, call, x, p, mean, variance)
    }

    fn latent(&self, call: &Call<'_>, p: &Matrix<'_>, mu: &MatrixMut<'_>, logvar: &MatrixMut<'_>) -> Result<()> {
        let groups = Group::of(call, self.arena)?;
        let rank = groups.iter().map(|group| group.shared().rank()).max().unwrap_or(0);
        let (count, isa) = (self.workers.lanes(), self.arithmetic.isa);
        self.workers.run(count, Sizes { vectors: 4 * rank, ..Sizes::default() }, |index, scratch| {
            let rows = Part { index, count }.of(call.rows);
            moments::latents(isa, groups, p, mu, logvar, rows, scratch);
            Ok(())
        })
    }

    fn backward(
        &self,
        group: &Backward<'_>,
        gradients: &mut [Gradients<'_, '_>],
        dx: Option<&MatrixMut<'_>>,
    ) -> Result<()> {
        backward::backward(self, group, gradients, dx)
    }

    fn merge(&self, terms: &[Term<'_>], weight: Weight<'_>, merged: &MatrixMut<'_>, transposed: bool) -> Result<()> {
        merge::merge(self, terms, weight, merged, transposed)
    }
}
