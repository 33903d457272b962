//! `p = dropout(x) Aᵀ`: every distinct projection of a group of layers, once.

use ndarray::{ArrayViewMut2, s};

use super::groups::{Group, ROW_BLOCK, RowBlock, Tile, blocks};
use super::dense::{Elements, panel_floats, product};
use super::scratch::{Scratch, Sizes};
use crate::backend::{Call, Mode, Scope};
use crate::tensor::{Matrix, MatrixMut};

/// One call's projections.
pub struct Job<'a, 'b> {
    pub call: &'b Call<'a>,
    pub groups: &'b [Group<'a>],
    pub x: &'b Matrix<'a>,
    pub scope: Scope,
    /// f32.
    pub p: &'b MatrixMut<'a>,
}

impl Job<'_, '_> {
    pub fn sizes(&self) -> Sizes {
        let rows = ROW_BLOCK.min(self.call.rows);
        let mut sizes = Sizes { x: rows * self.call.inputs, ..Sizes::default() };
        for group in self.groups {
            let term = group.shared();
            sizes.p = sizes.p.max(rows * 2 * term.rank());
            sizes.weight = sizes.weight.max(panel_floats(&term.a, Elements::AsTheyAre));
        }
        sizes
    }

    /// Projects a tile: its rows of x onto its columns of p.
    pub fn run(&self, tile: &Tile, scratch: &mut Scratch) {
        for rows in blocks(tile.rows.clone()) {
            for group in self.groups {
                let block = group.within(rows.clone());
                if block.len() > 0 {
                    self.block(group, &block, tile, scratch);
                }
            }
        }
    }

    fn block(&self, group: &Group<'_>, block: &RowBlock<'_>, tile: &Tile, scratch: &mut Scratch) {
        let term = group.shared();
        let halves = if self.scope == Scope::All || group.any(|term| term.mode != Mode::Mean) { 2 } else { 1 };
        // The tile's columns of p that are this group's, as outputs of A.
        let first = tile.cols.start.max(term.p_column) - term.p_column;
        let last = tile.cols.end.min(term.p_column + halves * term.rank()).saturating_sub(term.p_column);
        if first >= last {
            return;
        }
        let a = term.a.outputs_from(first, last - first);
        let Scratch { x: copied, p: gathered, weight, .. } = scratch;
        let in_place = match (block, self.x.as_f32()) {
            (RowBlock::Run(range), Some(view)) if !masked(self.call, group) => {
                Some(view.slice_move(s![range.clone(), ..]))
            }
            _ => None,
        };
        let inputs = match in_place {
            Some(view) => view,
            None => {
                let copied = &mut copied.0[..block.len() * self.call.inputs];
                for (place, row) in copied.chunks_exact_mut(self.call.inputs).enumerate() {
                    self.x.load(block.row(place), 0, row);
                    mask_row(self.call, group, block.row(place), 0, row);
                }
                ndarray::ArrayView2::from_shape((block.len(), self.call.inputs), copied).expect("sized above")
            }
        };
        if let RowBlock::Run(range) = block {
            // SAFETY: tiles of one call are disjoint.
            let target = unsafe { self.p.tile_f32(range.start, range.len(), term.p_column + first, last - first) };
            product(inputs, a, Elements::AsTheyAre, target.expect("p is f32"), false, &mut weight.0);
            return;
        }
        let gathered = &mut gathered.0[..block.len() * (last - first)];
        let target = ArrayViewMut2::from_shape((block.len(), last - first), &mut *gathered).expect("sized above");
        product(inputs, a, Elements::AsTheyAre, target, false, &mut weight.0);
        for (place, row) in gathered.chunks_exact(last - first).enumerate() {
            // SAFETY: tiles of one call are disjoint.
            unsafe { self.p.store(block.row(place), term.p_column + first, row) };
        }
    }
}

pub fn masked(call: &Call<'_>, group: &Group<'_>) -> bool {
    call.noise.dropout_mask.is_some() || group.any(|term| term.dropout.is_some())
}

/// Multiplies part of a row of x (or of dx), from column `start` on, by its dropout mask.
pub fn mask_row(call: &Call<'_>, group: &Group<'_>, row: usize, start: usize, values: &mut [f32]) {
    const PIECE: usize = 256;
    let (_, term) = group.term(row);
    if call.noise.dropout_mask.is_none() && term.dropout.is_none() {
        return;
    }
    let mut piece = [0.0; PIECE];
    for (number, values) in values.chunks_mut(PIECE).enumerate() {
        let piece = &mut piece[..values.len()];
        match (call.noise.dropout_mask, term.dropout) {
            (Some(given), _) => given.load(row, start + number * PIECE, piece),
            (None, Some((key, probability))) => {
                let first = call.in_offset + start + number * PIECE;
                key.fill(call.keys.identity(row), call.keys.sample(row), first, probability, piece)
                    .expect("checked by the config");
            }
            (None, None) => return,
        }
        values.iter_mut().zip(piece).for_each(|(value, mask)| *value *= *mask);
    }
}
