//! dp → dx, and dy → dx through the base weights.

use ndarray::ArrayView2;

use super::super::Cpu;
use super::super::expand::{block_mut, inputs_of};
use super::super::groups::{Group, ROW_BLOCK, RowBlock, Tile, blocks, tile};
use super::super::dense::{Elements, panel_floats, product};
use super::super::project::{mask_row, masked};
use super::super::scratch::{Scratch, Sizes};
use crate::backend::{Backward, Call};
use crate::error::Result;
use crate::tensor::{Matrix, MatrixMut};

/// `dx += Σ over layers dy W + mask ∘ (dp A)`.
pub fn input_gradient(cpu: &Cpu<'_>, group: &Backward<'_>, dp: &Matrix<'_>, dx: &MatrixMut<'_>) -> Result<()> {
    let (rows, inputs) = (dx.rows(), dx.cols());
    let mut projections = cpu.arena.list(group.projections.len())?;
    for call in group.projections {
        projections.push((call, Group::of(call, cpu.arena)?));
    }
    let projections = &*projections.into_slice();
    let height = ROW_BLOCK.min(rows);
    let outputs = group.calls.iter().map(|call| call.outputs).max().unwrap_or(0);
    let mut sizes = Sizes { x: height * outputs, sum: height * inputs, delta: height * inputs, ..Sizes::default() };
    for (_, groups) in projections {
        for group in *groups {
            let term = group.shared();
            sizes.p = sizes.p.max(height * 2 * term.rank());
            sizes.weight = sizes.weight.max(panel_floats(&term.a.transposed(), Elements::AsTheyAre));
        }
    }
    for base in group.calls.iter().filter_map(|call| call.base) {
        sizes.weight = sizes.weight.max(panel_floats(&base.transposed(), Elements::AsTheyAre));
    }
    let count = cpu.workers.lanes();
    cpu.workers.run(count, sizes, |index, scratch| {
        let share = tile(rows, inputs, index, count);
        for block in blocks(share.rows.clone()) {
            input_block(group, projections, dp, dx, &block, &share, scratch);
        }
        Ok(())
    })
}

fn input_block(
    group: &Backward<'_>,
    projections: &[(&Call<'_>, &[Group<'_>])],
    dp: &Matrix<'_>,
    dx: &MatrixMut<'_>,
    block: &std::ops::Range<usize>,
    share: &Tile,
    scratch: &mut Scratch,
) {
    let (cols, first) = (share.cols.len(), share.cols.start);
    if cols == 0 {
        return;
    }
    let Scratch { x: copied, p, delta, sum, weight, .. } = scratch;
    for (place, row) in block.clone().enumerate() {
        let sum = &mut sum.0[place * cols..][..cols];
        if group.overwrite_dx { sum.fill(0.0) } else { dx.as_const().load(row, first, sum) }
    }
    for (call, dy) in group.calls.iter().zip(group.dy) {
        if let Some(base) = call.base {
            let dy = inputs_of(dy, &RowBlock::Run(block.clone()), &mut copied.0);
            let target = block_mut(&mut sum.0, block.len(), cols);
            product(dy, base.transposed().outputs_from(first, cols), Elements::AsTheyAre, target, true, &mut weight.0);
        }
    }
    for (call, groups) in projections {
        for group in *groups {
            let (rows, term) = (group.within(block.clone()), group.shared());
            let width = 2 * term.rank();
            for place in 0..rows.len() {
                dp.load(rows.row(place), term.p_column, &mut p.0[place * width..][..width]);
            }
            let dp = ArrayView2::from_shape((rows.len(), width), &p.0[..rows.len() * width]).expect("sized");
            let a = term.a.transposed().outputs_from(first, cols);
            product(dp, a, Elements::AsTheyAre, block_mut(&mut delta.0, rows.len(), cols), false, &mut weight.0);
            for (place, delta) in delta.0.chunks_exact_mut(cols).take(rows.len()).enumerate() {
                let row = rows.row(place);
                if masked(call, group) {
                    mask_row(call, group, row, first, delta);
                }
                let sum = &mut sum.0[(row - block.start) * cols..][..cols];
                sum.iter_mut().zip(delta).for_each(|(sum, delta)| *sum += *delta);
            }
        }
    }
    for (place, sum) in sum.0.chunks_exact(cols).take(block.len()).enumerate() {
        // SAFETY: tiles of one call are disjoint.
        unsafe { dx.store(block.start + place, first, sum) };
    }
}
