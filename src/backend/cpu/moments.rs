//! Exact mean and variance of a layer's output given x, and its latents.

use std::ops::Range;

use super::Cpu;
use super::elementwise::AddScaled;
use super::expand::{self, Expansion, Rooms};
use super::groups::{Group, RowBlock, blocks_of, tile};
use super::latent;
use super::product::{COLUMNS, PackedRows, Product, RowsToPack};
use super::project::pack_rows;
use super::scratch::{Floats, Scratch};
use super::tile::TILE_STRIDE;
use crate::backend::Call;
use crate::error::Result;
use crate::simd::Isa;
use crate::tensor::{Matrix, MatrixMut};

/// Mean and variance of every row, from p.
pub fn moments(
    cpu: &Cpu<'_>,
    call: &Call<'_>,
    x: &Matrix<'_>,
    p: &Matrix<'_>,
    mean: &MatrixMut<'_>,
    variance: &MatrixMut<'_>,
) -> Result<()> {
    let layer = &Expansion::of(std::slice::from_ref(call), cpu.arena)?[0];
    let (count, arithmetic) = (cpu.workers.lanes(), cpu.arithmetic);
    let job = expand::Job { isa: arithmetic.isa, layer, p: (p, 0), draws: 1, y: mean, keep: None };
    cpu.workers.run(count, layer.sizes(1), |index, scratch| {
        let tile = tile(call.rows, mean.cols(), index, count);
        if tile.cols.is_empty() {
            return Ok(());
        }
        for block in blocks_of(tile.rows.clone(), layer.block_rows(1)) {
            let Scratch { x: packed, z, vectors, base, sum, delta, room, .. } = scratch;
            let mut rooms = Rooms { z, vectors, base, sum, delta, room };
            block_variance(arithmetic.isa, layer, p, variance, &block, &tile.cols, &mut rooms)?;
            let pairs = call.base.is_some_and(|base| arithmetic.pairs(&base, x));
            let packed = call.base.map(|_| pack_rows(x, &RowBlock::Run(block.clone()), pairs, &mut packed.0));
            job.block(block, tile.cols.clone(), packed, &mut rooms)?;
        }
        Ok(())
    })
}

/// `Var[y_j] = Σ over terms (scale · λ_b[j])² Σ_k exp(logvar_k) B[j,k]²`, for a block of rows and some columns.
fn block_variance(
    isa: Isa,
    layer: &Expansion<'_>,
    p: &Matrix<'_>,
    out: &MatrixMut<'_>,
    rows: &Range<usize>,
    cols: &Range<usize>,
    rooms: &mut Rooms<'_>,
) -> Result<()> {
    let mut rest = &mut rooms.z.0[..];
    for (group, _) in layer.groups {
        let block = group.within(rows.clone());
        let (now, later) = rest.split_at_mut(RowsToPack::floats(block.len(), group.shared().rank()));
        pack_variances(isa, group, &block, p, now, rooms.vectors)?;
        rest = later;
    }
    for first in cols.clone().step_by(COLUMNS) {
        let cols = first..(first + COLUMNS).min(cols.end);
        let sums = &mut rooms.sum.0[..rows.len() * TILE_STRIDE];
        sums.fill(0.0);
        let mut rest = &rooms.z.0[..];
        for (group, weight) in layer.groups {
            let block = group.within(rows.clone());
            let rank = group.shared().rank();
            let (now, later) = rest.split_at(RowsToPack::floats(block.len(), rank));
            rest = later;
            let x = PackedRows::new(now, block.len(), rank, false);
            let product = Product { isa, x, weight: *weight, square: true };
            let (tile, room) = (&mut rooms.delta.0, &mut rooms.room.0);
            let at = product.columns(0..block.len(), cols.start, cols.len(), tile, room);
            for place in 0..block.len() {
                let row = block.row(place);
                let (_, term) = group.term(row);
                let (delta, lambda_b) = (&tile[at + place * TILE_STRIDE..], &term.lambda_b[cols.clone()]);
                let sum = &mut sums[(row - rows.start) * TILE_STRIDE..];
                isa.run(AddScaled { rows: 1, scale: term.scale, square: true, lambda_b, delta, sum });
            }
        }
        for (place, row) in rows.clone().enumerate() {
            // SAFETY: tiles of one call are disjoint.
            unsafe { out.store(row, cols.start, &sums[place * TILE_STRIDE..][..cols.len()]) };
        }
    }
    Ok(())
}

/// exp(logvar) of a group's rows, packed.
fn pack_variances(
    isa: Isa,
    group: &Group<'_>,
    block: &RowBlock<'_>,
    p: &Matrix<'_>,
    values: &mut [f32],
    vectors: &mut Floats,
) -> Result<()> {
    let rank = group.shared().rank();
    let mut packed = RowsToPack::new(values, block.len(), rank, false);
    let (projected, rest) = vectors.0.split_at_mut(2 * rank);
    for place in 0..block.len() {
        let row = block.row(place);
        let (_, term) = group.term(row);
        let projected = &mut projected[..term.width()];
        p.load(row, term.p_column, projected);
        let variances = &mut rest[..rank];
        latent::variances(isa, term, projected, variances).map_err(|at| at.error(row, "logvar"))?;
        packed.copy(place, variances);
    }
    Ok(())
}

/// `(mu, logvar)` of rows of a tile.
pub fn latents(
    isa: Isa,
    groups: &[Group<'_>],
    p: &Matrix<'_>,
    mu: &MatrixMut<'_>,
    logvar: &MatrixMut<'_>,
    rows: Range<usize>,
    scratch: &mut Scratch,
) {
    for group in groups {
        let rank = group.shared().rank();
        let block = group.within(rows.clone());
        let (projected, rest) = scratch.vectors.0.split_at_mut(2 * rank);
        let (means, rest) = rest.split_at_mut(rank);
        let logvars = &mut rest[..rank];
        for place in 0..block.len() {
            let row = block.row(place);
            let (_, term) = group.term(row);
            let projected = &mut projected[..term.width()];
            p.load(row, term.p_column, projected);
            latent::latents(isa, term, projected, means, logvars);
            // SAFETY: tiles of one call are disjoint.
            unsafe {
                mu.store(row, term.latent_column, means);
                logvar.store(row, term.latent_column, logvars);
            }
        }
    }
}
