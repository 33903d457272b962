//! Forward of a group of layers, a block of rows at a time: p, z and y of a block are made while it is in the cache.

use super::Cpu;
use super::expand::{self, Expansion};
use super::groups::{ROW_BLOCK, RowBlock, blocks_of, splits_rows, tile};
use super::project::{self, Projection, pack_rows};
use super::scratch::{Scratch, Sizes};
use crate::backend::{Call, Expand, Forward, Part, Scope};
use crate::error::Result;
use crate::tensor::{Matrix, MatrixMut};

pub fn forward(cpu: &Cpu<'_>, forward: &Forward<'_>, y: &[MatrixMut<'_>]) -> Result<()> {
    let (rows, lanes, arithmetic) = (forward.x.rows(), cpu.workers.lanes(), cpu.arithmetic);
    if !splits_rows(rows, lanes) {
        return in_two_steps(cpu, forward, y);
    }
    // Everything that can fail for want of memory comes before the first write.
    let projections = Projection::of(forward.projections, forward.scope, cpu.arena)?;
    let project = project::Job { isa: cpu.arithmetic.isa, projections, x: &forward.x };
    let layers = Expansion::of(forward.calls, cpu.arena)?;
    let height = layers.iter().map(|layer| layer.block_rows(forward.draws)).min().unwrap_or(rows);
    let sizes = block_sizes(forward, &project, layers);
    let session = cpu.workers.session(lanes, sizes)?;
    session.run(lanes, |index, scratch| {
        let share = Part { index, count: lanes }.of(rows);
        for block in blocks_of(share, height) {
            let Scratch { x, gathered, p: own, z, vectors, base, sum, delta, room } = scratch;
            let packed = pack_rows(&forward.x, &RowBlock::Run(block.clone()), false, &mut x.0);
            let own = MatrixMut::from_f32(&mut own.0, if forward.p.is_none() { block.len() } else { 0 }, forward.width);
            let (p, first) = match forward.p {
                Some(kept) => (kept, 0),
                None => (&own, block.start),
            };
            project.block(block.clone(), 0..forward.width, packed, (p, first), gathered, delta, room);
            for (position, layer) in layers.iter().enumerate() {
                let job = expand::Job {
                    isa: arithmetic.isa,
                    layer,
                    p: (&p.as_const(), first),
                    draws: forward.draws,
                    y: &y[position],
                    keep: forward.keep.map(|keep| &keep[position]),
                };
                let packed = layer.call.base.map(|base| match arithmetic.pairs(&base, &forward.x) {
                    false => packed,
                    true => pack_rows(&forward.x, &RowBlock::Run(block.clone()), true, &mut gathered.0),
                });
                let mut rooms = expand::Rooms { z, vectors, base, sum, delta, room };
                job.block(block.clone(), 0..y[position].cols(), packed, &mut rooms)?;
            }
        }
        Ok(())
    })
}

/// What a block of rows works in.
fn block_sizes(forward: &Forward<'_>, project: &project::Job<'_>, layers: &[Expansion<'_>]) -> Sizes {
    let p = if forward.p.is_none() { ROW_BLOCK.min(forward.x.rows()) * forward.width } else { 0 };
    let own = Sizes { p, ..project.sizes() };
    layers.iter().fold(own, |sizes, layer| sizes.max(layer.sizes(forward.draws)))
}

/// Scratch for such a forward: of a lane, and lent.
pub fn needs(cpu: &Cpu<'_>, forward: &Forward<'_>) -> Result<(Sizes, usize)> {
    let projections = Projection::of(forward.projections, forward.scope, cpu.arena)?;
    let project = project::Job { isa: cpu.arithmetic.isa, projections, x: &forward.x };
    let sizes = block_sizes(forward, &project, Expansion::of(forward.calls, cpu.arena)?);
    // Moments, and forwards of few rows, have all of p.
    Ok((sizes, forward.x.rows() * forward.width))
}

/// With few rows the lanes share columns, first of p, then of y.
fn in_two_steps(cpu: &Cpu<'_>, forward: &Forward<'_>, y: &[MatrixMut<'_>]) -> Result<()> {
    let mut own = cpu.workers.lend(if forward.p.is_none() { forward.x.rows() * forward.width } else { 0 })?;
    let own = MatrixMut::from_f32(&mut own, if forward.p.is_none() { forward.x.rows() } else { 0 }, forward.width);
    let p = forward.p.unwrap_or(&own);
    project_part(cpu, forward.projections, &forward.x, forward.scope, p, Part::WHOLE)?;
    let expand =
        Expand { calls: forward.calls, x: Some(forward.x), p: p.as_const(), draws: forward.draws, keep: forward.keep };
    expand_part(cpu, &expand, y, Part::WHOLE)
}

/// Every lane on the whole, or one part alone on this thread.
pub fn project_part(
    cpu: &Cpu<'_>,
    projections: &[Call<'_>],
    x: &Matrix<'_>,
    scope: Scope,
    p: &MatrixMut<'_>,
    part: Part,
) -> Result<()> {
    let (first, count, tasks) = cpu.tiles(part);
    let projections = Projection::of(projections, scope, cpu.arena)?;
    let job = project::Job { isa: cpu.arithmetic.isa, projections, x };
    cpu.workers.run(tasks, job.sizes(), |index, scratch| {
        job.run(&tile(x.rows(), p.cols(), first + index, count), p, scratch);
        Ok(())
    })
}

/// The same for `y += λ_b ∘ (z Bᵀ)`.
pub fn expand_part(cpu: &Cpu<'_>, expand: &Expand<'_>, y: &[MatrixMut<'_>], part: Part) -> Result<()> {
    let (first, count, tasks) = cpu.tiles(part);
    let layers = Expansion::of(expand.calls, cpu.arena)?;
    let mut sizes = Sizes::default();
    for layer in layers {
        sizes = sizes.max(layer.sizes(expand.draws));
    }
    let arithmetic = cpu.arithmetic;
    let session = cpu.workers.session(tasks, sizes)?;
    session.run(tasks, |index, scratch| {
        for (position, layer) in layers.iter().enumerate() {
            let y = &y[position];
            let tile = tile(layer.call.rows, y.cols(), first + index, count);
            let keep = expand.keep.map(|keep| &keep[position]);
            let job = expand::Job { isa: arithmetic.isa, layer, p: (&expand.p, 0), draws: expand.draws, y, keep };
            for block in blocks_of(tile.rows.clone(), layer.block_rows(expand.draws)) {
                let Scratch { x, z, vectors, base, sum, delta, room, .. } = scratch;
                let packed = match (layer.call.base, &expand.x) {
                    (Some(base), Some(given)) => {
                        Some(pack_rows(given, &RowBlock::Run(block.clone()), arithmetic.pairs(&base, given), &mut x.0))
                    }
                    _ => None,
                };
                let mut rooms = expand::Rooms { z, vectors, base, sum, delta, room };
                job.block(block, tile.cols.clone(), packed, &mut rooms)?;
            }
        }
        Ok(())
    })
}
