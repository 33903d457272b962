//! dp → dx, and dy → dx through the base weights.

use std::ops::Range;

use super::super::Cpu;
use super::super::elementwise::AddTile;
use super::super::groups::{Group, ROW_BLOCK, RowBlock};
use super::super::product::{COLUMNS, Operand, PackedRows, Product, RowsToPack};
use super::super::project::{mask_row, masked, pack_rows};
use super::super::scratch::{Scratch, Sizes};
use super::super::tile::TILE_STRIDE;
use crate::backend::{Backward, Call};
use crate::error::Result;
use crate::simd::Isa;
use crate::tensor::{Matrix, MatrixMut};

/// `dx += Σ over layers dy W + Σ over projections mask ∘ (dp A)`, each product whole before it is added.
pub struct Inputs<'g> {
    group: &'g Backward<'g>,
    bases: &'g [BaseProduct<'g>],
    projections: &'g [ProjectionBack<'g>],
    dx: MatrixMut<'g>,
}

struct BaseProduct<'g> {
    dy: &'g Matrix<'g>,
    weight: Operand<'g>,
    pairs: bool,
}

struct ProjectionBack<'g> {
    call: &'g Call<'g>,
    group: &'g Group<'g>,
    a_transposed: Operand<'g>,
}

impl<'g> Inputs<'g> {
    pub fn new(cpu: &Cpu<'g>, group: &'g Backward<'g>, dx: &'g MatrixMut<'_>) -> Result<Self> {
        let arena = cpu.arena;
        let mut bases = arena.list(group.calls.len())?;
        for (call, dy) in group.calls.iter().zip(group.dy) {
            if let Some(base) = call.base {
                bases.push(BaseProduct { dy, weight: base.backward(), pairs: cpu.arithmetic.pairs(&base, dy) });
            }
        }
        let mut projections = arena.list(group.projections.iter().map(|call| call.terms.len()).sum())?;
        for call in group.projections {
            for group in Group::of(call, arena)? {
                let a_transposed = group.shared().pair.projection_transposed()?;
                projections.push(ProjectionBack { call, group, a_transposed });
            }
        }
        Ok(Self { group, bases: bases.into_slice(), projections: projections.into_slice(), dx: MatrixMut::alias(dx) })
    }

    pub fn sizes(&self) -> Sizes {
        let rows = ROW_BLOCK.min(self.dx.rows());
        let tile = rows * TILE_STRIDE;
        Sizes {
            x: self.bases.iter().map(|base| RowsToPack::floats(rows, base.dy.cols())).sum(),
            z: self.projections.iter().map(|back| RowsToPack::floats(rows, back.group.shared().width())).sum(),
            sum: tile,
            delta: tile,
            ..Sizes::default()
        }
    }

    /// A block of rows; row i of the call is row `i − block.start` of dp.
    pub fn block(&self, isa: Isa, block: &Range<usize>, dp: &Matrix<'_>, scratch: &mut Scratch) {
        let (rows, inputs) = (block.len(), self.dx.cols());
        let Scratch { x, z, sum, delta, room, .. } = scratch;
        let mut rest = &mut x.0[..];
        for base in self.bases {
            let (now, later) = rest.split_at_mut(RowsToPack::floats(rows, base.dy.cols()));
            pack_rows(base.dy, &RowBlock::Run(block.clone()), base.pairs, now);
            rest = later;
        }
        self.pack_dp(block, dp, &mut z.0);
        for first in (0..inputs).step_by(COLUMNS) {
            let cols = first..(first + COLUMNS).min(inputs);
            for (place, sum) in sum.0.chunks_exact_mut(TILE_STRIDE).take(rows).enumerate() {
                let sum = &mut sum[..cols.len()];
                match self.group.overwrite_dx {
                    true => sum.fill(0.0),
                    false => self.dx.as_const().load(block.start + place, first, sum),
                }
            }
            let mut rest = &x.0[..];
            for base in self.bases {
                let (now, later) = rest.split_at(RowsToPack::floats(rows, base.dy.cols()));
                rest = later;
                let x = PackedRows::new(now, rows, base.dy.cols(), base.pairs);
                let product = Product { isa, x, weight: base.weight, square: false };
                let at = product.columns(0..rows, first, cols.len(), &mut delta.0, &mut room.0);
                isa.run(AddTile { rows, cols: cols.len(), delta: &delta.0[at..], sum: &mut sum.0 });
            }
            let mut rest = &z.0[..];
            for back in self.projections {
                let of_group = back.group.within(block.clone());
                let width = back.group.shared().width();
                let (now, later) = rest.split_at(RowsToPack::floats(of_group.len(), width));
                rest = later;
                let x = PackedRows::new(now, of_group.len(), width, false);
                let product = Product { isa, x, weight: back.a_transposed, square: false };
                let at = product.columns(0..of_group.len(), first, cols.len(), &mut delta.0, &mut room.0);
                back.add(isa, block, &of_group, &cols, &mut delta.0[at..], &mut sum.0);
            }
            for (place, sum) in sum.0.chunks_exact(TILE_STRIDE).take(rows).enumerate() {
                // SAFETY: each row belongs to one task.
                unsafe { self.dx.store(block.start + place, first, &sum[..cols.len()]) };
            }
        }
    }

    fn pack_dp(&self, block: &Range<usize>, dp: &Matrix<'_>, values: &mut [f32]) {
        let mut rest = values;
        for back in self.projections {
            let of_group = back.group.within(block.clone());
            let term = back.group.shared();
            let (now, later) = rest.split_at_mut(RowsToPack::floats(of_group.len(), term.width()));
            let mut packed = RowsToPack::new(now, of_group.len(), term.width(), false);
            for place in 0..of_group.len() {
                let row = of_group.row(place) - block.start;
                packed.fill(place, |first, values| dp.load(row, term.p_column + first, values));
            }
            rest = later;
        }
    }
}

impl ProjectionBack<'_> {
    /// Adds `dp A` of the group's rows, masked as x was.
    fn add(
        &self,
        isa: Isa,
        block: &Range<usize>,
        rows: &RowBlock<'_>,
        cols: &Range<usize>,
        delta: &mut [f32],
        sum: &mut [f32],
    ) {
        let masked = masked(self.call, self.group);
        if !masked && rows.len() == block.len() {
            isa.run(AddTile { rows: rows.len(), cols: cols.len(), delta, sum });
            return;
        }
        for place in 0..rows.len() {
            let row = rows.row(place);
            let delta = &mut delta[place * TILE_STRIDE..][..cols.len()];
            if masked {
                mask_row(self.call, self.group, row, cols.start, delta);
            }
            let sum = &mut sum[(row - block.start) * TILE_STRIDE..];
            isa.run(AddTile { rows: 1, cols: cols.len(), delta, sum });
        }
    }
}
