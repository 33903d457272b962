//! dy → dp, row by row: g, the latents' gradients, the KL term, the slopes.

use super::super::elementwise::{AddVectors, Weighted};
use super::super::groups::RowBlock;
use super::super::latent;
use super::super::product::{COLUMNS, Product, RowsToPack};
use super::super::scratch::Scratch;
use super::super::tile::TILE_STRIDE;
use super::layer::{LayerGroup, RowValues};
use crate::backend::{Call, PriorGradients, Term};
use crate::error::Result;
use crate::simd::Isa;
use crate::tensor::{Matrix, MatrixMut};

/// What the rows of one layer's chunk read and write. Each row belongs to one task.
pub struct RowJob<'a, 'g> {
    pub isa: Isa,
    pub call: &'g Call<'a>,
    pub p: &'g Matrix<'a>,
    pub dy: &'g Matrix<'a>,
    pub kl_each: Option<f32>,
    pub prior: PriorGradients<'g>,
    /// The chunk's first row: row i of the call is row `i − start` of dm and `z Bᵀ`.
    pub start: usize,
    /// dp of a block, with the block's first row.
    pub dp: (&'g MatrixMut<'g>, usize),
    pub dm: &'g MatrixMut<'g>,
    /// The column of eps at which the layer's latents begin.
    pub first_latent: usize,
    pub expanded: Option<&'g MatrixMut<'g>>,
    pub slopes: Option<&'g MatrixMut<'g>>,
    /// One a row, or empty.
    pub kl_rows: RowValues<'g>,
}

impl RowJob<'_, '_> {
    /// One block of a group's rows.
    pub fn run(&self, of: &LayerGroup<'_>, block: &RowBlock<'_>, scratch: &mut Scratch) -> Result<()> {
        if let Some(expanded) = self.expanded {
            self.expand(of, block, expanded, scratch)?;
        }
        let rank = of.group.shared().rank();
        self.output_slopes(of, block, scratch);
        for place in 0..block.len() {
            let row = block.row(place);
            self.row(of.group.term(row).1, row, place * rank, scratch)?;
        }
        Ok(())
    }

    /// `z Bᵀ` of the block.
    fn expand(
        &self,
        of: &LayerGroup<'_>,
        block: &RowBlock<'_>,
        expanded: &MatrixMut<'_>,
        scratch: &mut Scratch,
    ) -> Result<()> {
        let Scratch { z, vectors, delta, room, .. } = scratch;
        let rank = of.group.shared().rank();
        let packed = RowsToPack::new(&mut z.0, block.len(), rank, false);
        let x = latent::draw(self.isa, self.call, of.group, block, 0..1, (self.p, 0), packed, &mut vectors.0)?;
        let product = Product { isa: self.isa, x, weight: of.b, square: false };
        for col in (0..self.call.outputs).step_by(COLUMNS) {
            let count = COLUMNS.min(self.call.outputs - col);
            let at = product.columns(0..block.len(), col, count, &mut delta.0, &mut room.0);
            for (place, values) in delta.0.chunks_exact(TILE_STRIDE).take(block.len()).enumerate() {
                let row = block.row(place);
                let column = self.call.kept_column(of.group.term(row).0) + col;
                // SAFETY: each row belongs to one task.
                unsafe { expanded.store(row - self.start, column, &values[at..at + count]) };
            }
        }
        Ok(())
    }

    /// `g = (λ_b ∘ dy) B` of the block, into `scratch.z`, row after row.
    fn output_slopes(&self, of: &LayerGroup<'_>, block: &RowBlock<'_>, scratch: &mut Scratch) {
        let Scratch { gathered, z: g, delta, room, .. } = scratch;
        let rank = of.group.shared().rank();
        let mut packed = RowsToPack::new(&mut gathered.0, block.len(), self.call.outputs, false);
        for place in 0..block.len() {
            let (_, term) = of.group.term(block.row(place));
            packed.fill(place, |first, values| {
                self.dy.load(block.row(place), first, values);
                let lambda_b = &term.lambda_b[first..][..values.len()];
                self.isa.run(Weighted { scale: term.scale, lambda_b, values });
            });
        }
        let product = Product { isa: self.isa, x: packed.packed(), weight: of.b_transposed, square: false };
        for col in (0..rank).step_by(COLUMNS) {
            let count = COLUMNS.min(rank - col);
            let at = product.columns(0..block.len(), col, count, &mut delta.0, &mut room.0);
            for (place, values) in delta.0.chunks_exact(TILE_STRIDE).take(block.len()).enumerate() {
                g.0[place * rank + col..][..count].copy_from_slice(&values[at..at + count]);
            }
        }
    }

    /// From g of one row (at `from` in `scratch.z`) to dm, dp, the slopes and the KL of the row.
    fn row(&self, term: &Term<'_>, row: usize, from: usize, scratch: &mut Scratch) -> Result<()> {
        let rank = term.rank();
        let Scratch { vectors, z: g, .. } = scratch;
        let g = &g.0[from..][..rank];
        let (p, rest) = vectors.0.split_at_mut(2 * rank);
        let (mu, rest) = rest.split_at_mut(rank);
        let (logvar, rest) = rest.split_at_mut(rank);
        let eps = &mut rest[..rank];
        // SAFETY: each row belongs to one task; its terms have columns of their own.
        let dm =
            unsafe { self.dm.f32_part_mut(row - self.start, 2 * (term.latent_column - self.first_latent), 2 * rank) };
        if !term.has_logvar() {
            let dmu = &mut dm[..rank];
            dmu.copy_from_slice(g);
            self.add_prior(term.latent_column, row, dmu, &mut [], eps);
            self.add_dp(term.p_column, row, &term.lambda_d, dmu);
            return Ok(());
        }
        let projected = self.p.part(row, term.p_column, p);
        latent::latents(self.isa, term, projected, mu, logvar);
        latent::noise(self.isa, self.call, term, row, 0, eps);
        let (dmu, dlogvar) = dm.split_at_mut(rank);
        let (kl_each, wants_slopes) = (self.kl_each, self.slopes.is_some());
        let slope = latent::Slope { mode: term.mode, mu, logvar, g, kl_each, wants_slopes };
        let divergence =
            slope.gradients(self.isa, eps, dmu, dlogvar).map_err(|(at, exponent)| at.error(row, exponent))?;
        if let Some(slopes) = self.slopes {
            // SAFETY: each row belongs to one task; its terms have columns of their own.
            unsafe { slopes.store(row, term.latent_column - self.first_latent, eps) };
        }
        // SAFETY: each row belongs to one task.
        unsafe { self.kl_rows.add(row, divergence) };
        self.add_prior(term.latent_column, row, dmu, dlogvar, eps);
        if term.logvar_bound != f32::INFINITY {
            for k in 0..rank {
                if term.lambda_d[rank + k] * projected[rank + k] > term.logvar_bound {
                    dlogvar[k] = 0.0;
                }
            }
        }
        self.add_dp(term.p_column, row, &term.lambda_d, dm);
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
    fn add_dp(&self, column: usize, row: usize, lambda_d: &[f32], dm: &[f32]) {
        let (dp, first) = self.dp;
        // SAFETY: each row belongs to one task.
        let sum = unsafe { dp.f32_part_mut(row - first, column, dm.len()) };
        self.isa.run(AddVectors { left: lambda_d, right: dm, sum });
    }
}
