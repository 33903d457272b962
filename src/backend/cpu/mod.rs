//! The f32 backend: matrixmultiply's products, fused row steps, the caller's threads or the context's.

mod backward;
mod dense;
mod expand;
mod float_mode;
mod groups;
mod latent;
mod moments;
mod packs;
pub mod panels;
pub mod product;
mod project;
mod reduce;
mod scratch;
mod team;
pub mod tile;
mod workers;

pub use float_mode::{FloatMode, Flushing};
pub use packs::{Base, BasePacks, Packs, Pair, Uses};
pub use scratch::Lent;
pub use workers::{ParallelFor, Workers};

use ndarray::ArrayView2;

use super::{Backend, Backward, Call, Expand, Gradients, Part, Scope, Term, Weight, check_merged};
use crate::error::Result;
use crate::memory::{Arena, Buffer};
use crate::tensor::{Matrix, MatrixMut};
use groups::{Group, ROW_BLOCK, tile};
use dense::{Elements, panel_floats, product};
use scratch::Sizes;

/// Computes in f32 on the workers of a context.
#[derive(Clone, Copy, Debug)]
pub struct Cpu<'a> {
    pub workers: &'a Workers,
    /// For the lists of this call.
    pub arena: &'a Arena,
}

impl Cpu<'_> {
    /// Tiles for one part: all lanes on the whole, or the part alone on this thread.
    fn tiles(&self, part: Part) -> (usize, usize, usize) {
        if part.count == 1 { (0, self.workers.lanes(), self.workers.lanes()) } else { (part.index, part.count, 1) }
    }
}

impl Backend for Cpu<'_> {
    fn project(
        &self,
        projections: &[Call<'_>],
        x: &Matrix<'_>,
        scope: Scope,
        p: &MatrixMut<'_>,
        part: Part,
    ) -> Result<()> {
        let (first, count, tasks) = self.tiles(part);
        for call in projections {
            let groups = Group::of(call, self.arena)?;
            let job = project::Job { call, groups, x, scope, p };
            self.workers.run(tasks, job.sizes(), |index, scratch| {
                job.run(&tile(x.rows(), p.cols(), first + index, count), scratch);
                Ok(())
            })?;
        }
        Ok(())
    }

    fn expand(&self, expand: &Expand<'_>, y: &[MatrixMut<'_>], part: Part) -> Result<()> {
        let (first, count, tasks) = self.tiles(part);
        // Everything that can fail comes before the first layer's y is written.
        let groups = groups_of(expand.calls, self.arena)?;
        let each = expand.calls.iter().zip(groups).zip(y);
        let sizes =
            each.fold(Sizes::default(), |all, ((call, groups), y)| all.max(expand::sizes(call, groups, y.cols())));
        let session = self.workers.session(tasks, sizes)?;
        for (position, ((call, groups), y)) in expand.calls.iter().zip(groups).zip(y).enumerate() {
            let keep = expand.keep.map(|keep| &keep[position]);
            let (x, p) = (expand.x.as_ref(), &expand.p);
            let job = expand::Job { call, groups, x, p, draws: expand.draws, y, keep };
            session.run(tasks, |index, scratch| {
                let tile = tile(call.rows, y.cols(), first + index, count);
                if tile.cols.is_empty() { Ok(()) } else { job.run(&tile, scratch) }
            })?;
        }
        Ok(())
    }

    fn moments(
        &self,
        call: &Call<'_>,
        x: &Matrix<'_>,
        p: &Matrix<'_>,
        mean: &MatrixMut<'_>,
        variance: &MatrixMut<'_>,
    ) -> Result<()> {
        let groups = Group::of(call, self.arena)?;
        let count = self.workers.lanes();
        let job = expand::Job { call, groups, x: Some(x), p, draws: 1, y: mean, keep: None };
        self.workers.run(count, expand::sizes(call, groups, mean.cols()), |index, scratch| {
            let tile = tile(call.rows, mean.cols(), index, count);
            if tile.cols.is_empty() {
                return Ok(());
            }
            moments::variance(groups, p, variance, &tile, scratch)?;
            job.run(&tile, scratch)
        })
    }

    fn latent(&self, call: &Call<'_>, p: &Matrix<'_>, mu: &MatrixMut<'_>, logvar: &MatrixMut<'_>) -> Result<()> {
        let groups = Group::of(call, self.arena)?;
        let count = self.workers.lanes().min(call.rows);
        self.workers.run(count, expand::sizes(call, groups, 1), |index, scratch| {
            moments::latents(groups, p, mu, logvar, &tile(call.rows, 1, index, count), scratch);
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
        let rank = terms.iter().map(Term::rank).max().unwrap_or(0);
        let (outputs, inputs) = (weight.outputs(), weight.inputs());
        // Rows of `B diag(λ_d[:r])`, a block at a time, times A[:r].
        let mut left = self.workers.lend(ROW_BLOCK * rank)?;
        let mut delta = self.workers.lend(ROW_BLOCK * inputs)?;
        // As large as the weight, and rare: not from what the context keeps.
        let mut sum = Buffer::<f32>::zeroed(self.workers.allocator(), outputs * inputs)?;
        let panel = terms.iter().map(|term| panel_floats(&term.a.transposed(), Elements::AsTheyAre)).max().unwrap_or(0);
        let mut panel = self.workers.lend(panel)?;
        let _mode = FloatMode::enter();
        for block in groups::blocks(0..outputs) {
            for output in block.clone() {
                let row = &mut sum[output * inputs..][..inputs];
                row.iter_mut().enumerate().for_each(|(input, value)| *value = weight.at(output, input));
            }
            for term in terms {
                let rank = term.rank();
                for (place, output) in block.clone().enumerate() {
                    let row = &mut left[place * rank..][..rank];
                    row.iter_mut().enumerate().for_each(|(k, value)| *value = term.b.at(output, k) * term.lambda_d[k]);
                }
                let mean_half = term.a.outputs_from(0, rank).transposed();
                let rows = ArrayView2::from_shape((block.len(), rank), &left[..block.len() * rank]).expect("sized");
                let target = expand::block_mut(&mut delta, block.len(), inputs);
                product(rows, mean_half, Elements::AsTheyAre, target, false, &mut panel);
                for (place, output) in block.clone().enumerate() {
                    let coefficient = term.scale * term.lambda_b[output];
                    let row = &mut sum[output * inputs..][..inputs];
                    let delta = &delta[place * inputs..][..inputs];
                    row.iter_mut().zip(delta).for_each(|(value, delta)| *value = coefficient.mul_add(*delta, *value));
                }
            }
        }
        store_merged(&sum, outputs, inputs, merged, transposed)
    }
}

fn groups_of<'a>(calls: &[Call<'a>], arena: &'a Arena) -> Result<&'a [&'a [Group<'a>]]> {
    let mut groups = arena.list(calls.len())?;
    for call in calls {
        groups.push(Group::of(call, arena)?);
    }
    Ok(groups.into_slice())
}

/// Checks that every rounded element is finite, then writes.
fn store_merged(sum: &[f32], outputs: usize, inputs: usize, merged: &MatrixMut<'_>, transposed: bool) -> Result<()> {
    check_merged(merged.dtype(), (0..outputs * inputs).map(|at| (at / inputs, at % inputs, sum[at])))?;
    for output in 0..outputs {
        for (input, value) in sum[output * inputs..][..inputs].iter().enumerate() {
            let (row, col) = if transposed { (input, output) } else { (output, input) };
            // SAFETY: one thread; the shapes were checked.
            unsafe { merged.store(row, col, &[*value]) };
        }
    }
    Ok(())
}
