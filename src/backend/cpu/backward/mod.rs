//! Gradients of a group of layers: the mirror of expand (dy → dp and the vectors' gradients), then of project (dp → dx),
//! a block of rows at a time, while it is in the cache.

mod finite;
mod inputs;
mod layer;
mod rows;

use std::ops::Range;

use super::Cpu;
use super::float_mode::FloatMode;
use super::groups::{ROW_BLOCK, blocks};
use super::product::ROOM;
use super::reduce;
use super::scratch::{Scratch, Sizes};
use super::tile::TILE_STRIDE;
use crate::backend::{Backward, Call, Gradients, Part};
use crate::error::Result;
use crate::simd::Isa;
use crate::tensor::MatrixMut;
use inputs::Inputs;
use layer::{Layer, Wants};

pub fn backward(
    cpu: &Cpu<'_>,
    group: &Backward<'_>,
    gradients: &mut [Gradients<'_, '_>],
    dx: Option<&MatrixMut<'_>>,
) -> Result<()> {
    // What is added up outside the workers obeys the same rules as inside.
    let _mode = FloatMode::enter();
    let (rows, lanes, isa) = (group.p.rows(), cpu.workers.lanes(), cpu.arithmetic.isa);
    // Rows whose `z Bᵀ` and dm are held until their sums are taken.
    let chunk = (ROW_BLOCK * lanes).min(rows);
    let held_by = |position: usize, wanted: &Gradients<'_, '_>| {
        Layer::held_floats(&group.calls[position], Wants::of(group, wanted), chunk)
    };
    let held: usize = gradients.iter().enumerate().map(|(position, wanted)| held_by(position, wanted)).sum();
    let mut held = cpu.workers.lend(held)?;
    let mut rest = &mut held[..];
    let mut layers = cpu.arena.list(group.calls.len())?;
    for (position, wanted) in gradients.iter().enumerate() {
        let (now, later) = rest.split_at_mut(held_by(position, wanted));
        layers.push(Layer::new(cpu, group, position, wanted, chunk, now)?);
        rest = later;
    }
    let layers = layers.into_slice();
    let inputs = dx.map(|dx| Inputs::new(cpu, group, dx)).transpose()?;
    layers.iter().try_for_each(|layer| finite::check(cpu, layer))?;
    let session = cpu.workers.session(lanes, block_sizes(group, inputs.as_ref()))?;
    for start in (0..rows).step_by(chunk.max(1)) {
        let chunk = start..(start + chunk).min(rows);
        let shared = &*layers;
        session.run(lanes, |index, scratch| {
            let share = Part { index, count: lanes }.of(chunk.len());
            for block in blocks(chunk.start + share.start..chunk.start + share.end) {
                block_gradients(isa, group, shared, inputs.as_ref(), start, block, scratch)?;
            }
            Ok(())
        })?;
        for layer in layers.iter_mut() {
            layer.add_sums(isa, &session, chunk.clone())?;
        }
    }
    for (layer, wanted) in layers.iter_mut().zip(gradients) {
        layer.deliver(wanted);
    }
    Ok(())
}

/// What a block of rows works in.
fn block_sizes(group: &Backward<'_>, inputs: Option<&Inputs<'_>>) -> Sizes {
    let block = ROW_BLOCK.min(group.p.rows());
    let tile = block * TILE_STRIDE;
    let own = Sizes {
        p: block * group.p.cols(),
        base: tile,
        sum: tile,
        delta: tile,
        room: ROOM.max(reduce::ROOM),
        ..Sizes::default()
    };
    let sizes = group.calls.iter().fold(own, |sizes, call| sizes.max(Layer::sizes(call)));
    inputs.map_or(sizes, |inputs| sizes.max(inputs.sizes()))
}

/// Scratch for a backward that asks for everything, dx included: of a lane, and lent.
pub fn needs(cpu: &Cpu<'_>, group: &Backward<'_>, dx: &MatrixMut<'_>) -> Result<(Sizes, usize)> {
    let rows = group.p.rows();
    let chunk = (ROW_BLOCK * cpu.workers.lanes()).min(rows);
    let held: usize = group.calls.iter().map(|call| Layer::held_floats(call, Wants::ALL, chunk)).sum();
    let inputs = Inputs::new(cpu, group, dx)?;
    // Lists of the call: sums, the divergence of each row, the order of the rows.
    let sums = |call: &Call<'_>| call.terms.iter().map(|term| 2 * (term.rank() + call.outputs)).sum::<usize>();
    cpu.arena.filled(0.0_f32, group.calls.iter().map(sums).sum())?;
    cpu.arena.filled(0_u64, 2 * rows * group.calls.len())?;
    // Beside what is held: p, when the tape keeps nothing. Either may be lent the memory that once served the other.
    Ok((block_sizes(group, Some(&inputs)), 2 * held.max(rows * group.p.cols())))
}

/// Everything of one block of rows but the sums over rows.
fn block_gradients(
    isa: Isa,
    group: &Backward<'_>,
    layers: &[Layer<'_>],
    inputs: Option<&Inputs<'_>>,
    start: usize,
    block: Range<usize>,
    scratch: &mut Scratch,
) -> Result<()> {
    let width = group.p.cols();
    let mut own = std::mem::take(&mut scratch.p);
    let values = &mut own.0[..block.len() * width];
    values.fill(0.0);
    let dp = MatrixMut::from_f32(values, block.len(), width);
    let outcome = layers.iter().try_for_each(|layer| layer.block(isa, start, &block, &dp, scratch));
    if let (Ok(()), Some(inputs)) = (&outcome, inputs) {
        inputs.block(isa, &block, &dp.as_const(), scratch);
    }
    scratch.p = own;
    outcome
}
