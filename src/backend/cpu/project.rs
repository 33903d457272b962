//! `p = dropout(x) Aᵀ`: every distinct projection of a group of layers, once.

use std::ops::Range;

use super::groups::{Group, ROW_BLOCK, RowBlock, Tile, blocks};
use super::product::{COLUMNS, Operand, PackedRows, Product, ROOM, RowsToPack};
use super::scratch::{Floats, Scratch, Sizes};
use super::tile::TILE_STRIDE;
use crate::backend::{Call, Mode, Scope};
use crate::error::Result;
use crate::memory::Arena;
use crate::simd::Isa;
use crate::tensor::{Matrix, MatrixMut};

/// One group's rows of one call, with the packed halves of A that they need.
#[derive(Clone, Copy, Debug)]
pub struct Projection<'a> {
    call: &'a Call<'a>,
    group: &'a Group<'a>,
    mean: Operand<'a>,
    logvar: Option<Operand<'a>>,
}

impl<'a> Projection<'a> {
    /// The projections of some calls, A packed.
    pub fn of(calls: &'a [Call<'a>], scope: Scope, arena: &'a Arena) -> Result<&'a [Projection<'a>]> {
        let mut list = arena.list(calls.iter().map(|call| call.terms.len()).sum())?;
        for call in calls {
            for group in Group::of(call, arena)? {
                let pair = group.shared().pair;
                let both = scope == Scope::All || group.any(|term| term.mode != Mode::Mean);
                let logvar = if both && group.shared().has_logvar() { Some(pair.logvar()?) } else { None };
                list.push(Projection { call, group, mean: pair.mean()?, logvar });
            }
        }
        Ok(list.into_slice())
    }

    /// Whether its rows are read otherwise than as they lie.
    fn masked(&self) -> bool {
        masked(self.call, self.group)
    }
}

/// All projections of a call of the library.
#[derive(Clone, Copy, Debug)]
pub struct Job<'a> {
    pub isa: Isa,
    pub projections: &'a [Projection<'a>],
    pub x: &'a Matrix<'a>,
}

impl Job<'_> {
    pub fn sizes(&self) -> Sizes {
        let rows = ROW_BLOCK.min(self.x.rows());
        let packed = RowsToPack::floats(rows, self.x.cols());
        Sizes { x: packed, gathered: packed, delta: rows * TILE_STRIDE, room: ROOM, ..Sizes::default() }
    }

    /// A tile alone: its rows of x onto its columns of p.
    pub fn run(&self, tile: &Tile, p: &MatrixMut<'_>, scratch: &mut Scratch) {
        for rows in blocks(tile.rows.clone()) {
            let Scratch { x, gathered, delta, room, .. } = scratch;
            let x = pack_rows(self.x, &RowBlock::Run(rows.clone()), false, &mut x.0);
            self.block(rows, tile.cols.clone(), x, (p, 0), gathered, delta, room);
        }
    }

    /// A block of rows, whose x is packed; row i of the call is row `i − first` of p.
    #[allow(clippy::too_many_arguments)]
    pub fn block(
        &self,
        rows: Range<usize>,
        cols: Range<usize>,
        x: PackedRows<'_>,
        (p, first): (&MatrixMut<'_>, usize),
        gathered: &mut Floats,
        tile: &mut Floats,
        room: &mut Floats,
    ) {
        for projection in self.projections {
            let block = projection.group.within(rows.clone());
            if block.len() == 0 {
                continue;
            }
            let x = match projection.masked() || block.len() < rows.len() {
                false => x,
                true => self.gather(projection, &block, &mut gathered.0),
            };
            let term = projection.group.shared();
            for (half, operand) in [Some(projection.mean), projection.logvar].into_iter().enumerate() {
                let Some(weight) = operand else { continue };
                let begin = term.p_column + half * term.rank();
                let (start, end) = (cols.start.max(begin), cols.end.min(begin + term.rank()));
                let product = Product { isa: self.isa, x, weight, square: false };
                for col in (start..end).step_by(COLUMNS) {
                    let count = COLUMNS.min(end - col);
                    let at = product.columns(0..block.len(), col - begin, count, &mut tile.0, &mut room.0);
                    for (place, values) in tile.0.chunks_exact(TILE_STRIDE).take(block.len()).enumerate() {
                        // SAFETY: tiles of one call are disjoint.
                        unsafe { p.store(block.row(place) - first, col, &values[at..at + count]) };
                    }
                }
            }
        }
    }

    /// The block's rows by themselves, masked where the projection drops inputs.
    fn gather<'s>(&self, projection: &Projection<'_>, block: &RowBlock<'_>, values: &'s mut [f32]) -> PackedRows<'s> {
        let mut packed = RowsToPack::new(values, block.len(), self.x.cols(), false);
        for place in 0..block.len() {
            let row = block.row(place);
            packed.fill(place, |first, values| {
                self.x.load(row, first, values);
                mask_row(projection.call, projection.group, row, first, values);
            });
        }
        packed.packed()
    }
}

/// A block's rows as the kernels read them.
pub fn pack_rows<'s>(x: &Matrix<'_>, block: &RowBlock<'_>, pairs: bool, values: &'s mut [f32]) -> PackedRows<'s> {
    let mut packed = RowsToPack::new(values, block.len(), x.cols(), pairs);
    for place in 0..block.len() {
        let row = block.row(place);
        match pairs {
            true => packed.fill_pairs(place, x, row),
            false => packed.fill(place, |first, values| x.load(row, first, values)),
        }
    }
    packed.packed()
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
