//! Exact mean and variance of a layer's output given x, and its latents.

use ndarray::ArrayView2;

use super::expand::{block_mut, overflow};
use super::groups::{Group, Tile, blocks};
use super::latent;
use super::dense::{Elements, product};
use super::scratch::Scratch;
use crate::error::Result;
use crate::tensor::{Matrix, MatrixMut};

/// `Var[y_j] = Σ over terms (scale · λ_b[j])² Σ_k exp(logvar_k) B[j,k]²`, for a tile.
pub fn variance(
    groups: &[Group<'_>],
    p: &Matrix<'_>,
    out: &MatrixMut<'_>,
    tile: &Tile,
    scratch: &mut Scratch,
) -> Result<()> {
    let cols = tile.cols.len();
    for rows in blocks(tile.rows.clone()) {
        scratch.sum.0[..rows.len() * cols].fill(0.0);
        for group in groups {
            let (block, shared) = (group.within(rows.clone()), group.shared());
            let rank = shared.rank();
            let Scratch { p: projected, z, delta, sum, weight, .. } = scratch;
            for place in 0..block.len() {
                let row = block.row(place);
                p.load(row, shared.p_column, &mut projected.0[..2 * rank]);
                latent::variances(group.term(row).1, &projected.0[..2 * rank], &mut z.0[place * rank..][..rank])
                    .map_err(|at| overflow(row, at, "logvar"))?;
            }
            let spread = ArrayView2::from_shape((block.len(), rank), &z.0[..block.len() * rank]).expect("sized");
            let target = block_mut(&mut delta.0, block.len(), cols);
            product(
                spread,
                shared.b.outputs_from(tile.cols.start, cols),
                Elements::Squared,
                target,
                false,
                &mut weight.0,
            );
            for (place, delta) in delta.0.chunks_exact(cols).take(block.len()).enumerate() {
                let row = block.row(place);
                let (_, term) = group.term(row);
                let sum = &mut sum.0[(row - rows.start) * cols..][..cols];
                for ((sum, lambda_b), delta) in sum.iter_mut().zip(&term.lambda_b[tile.cols.clone()]).zip(delta) {
                    let coefficient = term.scale * lambda_b;
                    *sum = (coefficient * coefficient).mul_add(*delta, *sum);
                }
            }
        }
        for (place, sum) in scratch.sum.0.chunks_exact(cols).take(rows.len()).enumerate() {
            // SAFETY: tiles of one call are disjoint.
            unsafe { out.store(rows.start + place, tile.cols.start, sum) };
        }
    }
    Ok(())
}

/// `(mu, logvar)` of rows of a tile.
pub fn latents(
    groups: &[Group<'_>],
    p: &Matrix<'_>,
    mu: &MatrixMut<'_>,
    logvar: &MatrixMut<'_>,
    tile: &Tile,
    scratch: &mut Scratch,
) {
    for group in groups {
        let rank = group.shared().rank();
        let block = group.within(tile.rows.clone());
        let Scratch { p: projected, z, eps, .. } = scratch;
        for place in 0..block.len() {
            let row = block.row(place);
            let (_, term) = group.term(row);
            p.load(row, term.p_column, &mut projected.0[..2 * rank]);
            let (means, logvars) = (&mut z.0[..rank], &mut eps.0[..rank]);
            latent::latents(term, &projected.0[..2 * rank], means, logvars);
            // SAFETY: tiles of one call are disjoint.
            unsafe {
                mu.store(row, term.latent_column, means);
                logvar.store(row, term.latent_column, logvars);
            }
        }
    }
}
