//! dy → dp, row by row: g, the latents' gradients, the KL term, the slopes.

use ndarray::ArrayView2;

use super::super::expand::{add_scaled, block_mut, draw_latents, overflow};
use super::super::groups::{Group, RowBlock};
use super::super::latent;
use super::super::dense::{Elements, product};
use super::super::scratch::Scratch;
use crate::backend::{Call, PriorGradients};
use crate::error::Result;
use crate::tensor::{Matrix, MatrixMut};

/// One f64 a row; tasks write disjoint rows.
pub struct SharedRows(pub *mut f64);

// SAFETY: each row belongs to one task.
unsafe impl Sync for SharedRows {}

/// What the rows of one layer's chunk read and write.
pub struct RowJob<'a, 'g> {
    pub call: &'g Call<'a>,
    pub p: &'g Matrix<'a>,
    pub dy: &'g Matrix<'a>,
    pub kl_each: f32,
    pub needs_kl: bool,
    pub prior: PriorGradients<'g>,
    pub start: usize,
    pub dp: &'g MatrixMut<'g>,
    pub dm: &'g MatrixMut<'g>,
    pub expanded: Option<&'g MatrixMut<'g>>,
    pub slopes: Option<&'g MatrixMut<'g>>,
    pub kl_rows: Option<&'g SharedRows>,
}

impl RowJob<'_, '_> {
    /// One block of a group's rows.
    pub fn run(&self, group: &Group<'_>, block: &RowBlock<'_>, scratch: &mut Scratch) -> Result<()> {
        let (outputs, rank, shared) = (self.call.outputs, group.shared().rank(), group.shared());
        if let Some(expanded) = self.expanded {
            draw_latents(self.call, group, block, 0, self.p, scratch)?;
            let Scratch { z, delta, weight, .. } = scratch;
            let latents = ArrayView2::from_shape((block.len(), rank), &z.0[..block.len() * rank]).expect("sized");
            product(
                latents,
                shared.b,
                Elements::AsTheyAre,
                block_mut(&mut delta.0, block.len(), outputs),
                false,
                &mut weight.0,
            );
            for (place, delta) in delta.0.chunks_exact(outputs).take(block.len()).enumerate() {
                let row = block.row(place);
                // SAFETY: each row belongs to one task.
                unsafe { expanded.store(row - self.start, self.call.kept_column(group.term(row).0), delta) };
            }
        }
        let Scratch { x: weighted, sum: g, weight, .. } = &mut *scratch;
        for (place, weighted) in weighted.0.chunks_exact_mut(outputs).take(block.len()).enumerate() {
            let (_, term) = group.term(block.row(place));
            self.dy.load(block.row(place), 0, weighted);
            weighted.iter_mut().zip(term.lambda_b).for_each(|(value, lambda_b)| *value *= term.scale * lambda_b);
        }
        let weighted =
            ArrayView2::from_shape((block.len(), outputs), &weighted.0[..block.len() * outputs]).expect("sized");
        let target = block_mut(&mut g.0, block.len(), rank);
        product(weighted, shared.b.transposed(), Elements::AsTheyAre, target, false, &mut weight.0);
        for place in 0..block.len() {
            self.row(group, block.row(place), place * rank, scratch)?;
        }
        Ok(())
    }

    /// From g of one row (at `from` in `scratch.sum`) to dm, dp, the slopes and the KL of the row.
    fn row(&self, group: &Group<'_>, row: usize, from: usize, scratch: &mut Scratch) -> Result<()> {
        let (_, term) = group.term(row);
        let rank = term.rank();
        let Scratch { p, z: dm, eps, sum: g, .. } = scratch;
        let (p, rest) = p.0.split_at_mut(2 * rank);
        let (mu, logvar) = rest[..2 * rank].split_at_mut(rank);
        let (g, eps) = (&g.0[from..][..rank], &mut eps.0[..rank]);
        self.p.load(row, term.p_column, p);
        latent::latents(term, p, mu, logvar);
        latent::noise(self.call, term, row, 0, eps);
        let (dmu, dlogvar) = dm.0[..2 * rank].split_at_mut(rank);
        let slope = latent::Slope {
            mode: term.mode,
            mu,
            logvar,
            g,
            kl_each: self.needs_kl.then_some(self.kl_each),
            wants_slopes: self.slopes.is_some(),
        };
        let divergence = slope.gradients(eps, dmu, dlogvar).map_err(|(at, what)| overflow(row, at, what))?;
        if let Some(slopes) = self.slopes {
            // SAFETY: each row belongs to one task; its terms have columns of their own.
            unsafe { slopes.store(row, term.latent_column, eps) };
        }
        if let Some(kl_rows) = self.kl_rows {
            // SAFETY: below call.rows; each row belongs to one task.
            unsafe { *kl_rows.0.add(row) += divergence };
        }
        self.add_prior(term.latent_column, row, dmu, dlogvar, eps);
        for k in 0..rank {
            if term.lambda_d[rank + k] * p[rank + k] > term.logvar_bound {
                dlogvar[k] = 0.0;
            }
        }
        // SAFETY: each row belongs to one task.
        unsafe { self.dm.store(row - self.start, 2 * term.latent_column, &dm.0[..2 * rank]) };
        self.add_dp(term.p_column, row, term.lambda_d, &dm.0[..2 * rank], p);
        Ok(())
    }

    fn add_prior(&self, column: usize, row: usize, dmu: &mut [f32], dlogvar: &mut [f32], more: &mut [f32]) {
        for (given, target) in [(self.prior.dmu, dmu), (self.prior.dlogvar, dlogvar)] {
            if let Some(given) = given {
                given.load(row, column, more);
                target.iter_mut().zip(more.iter()).for_each(|(value, more)| *value += more);
            }
        }
    }

    /// `dp += λ_d ∘ dm`: terms and layers that share a projection add up.
    fn add_dp(&self, column: usize, row: usize, lambda_d: &[f32], dm: &[f32], dp: &mut [f32]) {
        self.dp.as_const().load(row, column, dp);
        add_scaled(1.0, lambda_d, dm, dp);
        // SAFETY: each row belongs to one task.
        unsafe { self.dp.store(row, column, dp) };
    }
}
