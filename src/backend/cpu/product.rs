//! `x wᵀ` for a stretch of columns, in the library's summation order: k in blocks of 256, in a block one chain of fused
//! multiply-adds from zero, block sums added ascending. An element's bits depend on its row and its column alone.

use std::ops::Range;

use super::float_mode::Flushing;
use super::panels::{Element, PANEL, PackPanel, Panels, WIDTH, Widen, narrow};
use super::tile::{Block, DEPTH, TILE_STRIDE, UNIT};
use crate::backend::Weight;
use crate::simd::Isa;
use crate::tensor::Matrix;

/// Columns computed at a time. A tile row holds them even where they begin inside a unit.
pub const COLUMNS: usize = TILE_STRIDE - UNIT;

/// Rows from which a 16-bit or int8 block is widened once instead of for every tile of rows. (12 rows: 96 % of the peak in
/// registers; measured in benches/kernels.rs.)
const WORTH_WIDENING: usize = 24;

/// f32 of room that a product needs when its weight is not packed.
pub const ROOM: usize = TILE_STRIDE * DEPTH + 2 * PANEL;

/// Rows of x as the micro-kernel reads them: for each block of k, every row's 256 values (or 128 pairs of bf16).
#[derive(Clone, Copy, Debug)]
pub struct PackedRows<'a> {
    values: &'a [f32],
    capacity: usize,
    depth: usize,
    pairs: bool,
}

/// The same, to be filled.
#[derive(Debug)]
pub struct RowsToPack<'a> {
    values: &'a mut [f32],
    capacity: usize,
    depth: usize,
    pairs: bool,
}

impl<'a> PackedRows<'a> {
    /// Rows that were packed into `values`.
    pub fn new(values: &'a [f32], capacity: usize, depth: usize, pairs: bool) -> Self {
        assert!(values.len() >= RowsToPack::floats(capacity, depth));
        Self { values, capacity, depth, pairs }
    }
}

impl<'a> RowsToPack<'a> {
    /// f32 that `rows` rows of `depth` values take.
    pub fn floats(rows: usize, depth: usize) -> usize {
        rows * depth.next_multiple_of(DEPTH)
    }

    /// Room for `capacity` rows.
    pub fn new(values: &'a mut [f32], capacity: usize, depth: usize, pairs: bool) -> Self {
        assert!(values.len() >= Self::floats(capacity, depth));
        Self { values, capacity, depth, pairs }
    }

    /// Edits one row of f32, a block of k at a time: `fill(first k, its values)`.
    pub fn fill(&mut self, row: usize, mut fill: impl FnMut(usize, &mut [f32])) {
        assert!(row < self.capacity && !self.pairs);
        for (block, first) in (0..self.depth).step_by(DEPTH).enumerate() {
            let count = DEPTH.min(self.depth - first);
            fill(first, &mut self.values[(block * self.capacity + row) * DEPTH..][..count]);
        }
    }

    /// Every row's part of every block of k, with the row and its first k.
    pub fn parts_mut(&mut self) -> impl Iterator<Item = (usize, usize, &mut [f32])> {
        assert!(!self.pairs);
        let (depth, capacity) = (self.depth, self.capacity);
        let blocks = self.values.chunks_exact_mut((capacity * DEPTH).max(1)).take(depth.div_ceil(DEPTH));
        blocks.enumerate().flat_map(move |(block, values)| {
            let count = DEPTH.min(depth - block * DEPTH);
            let rows = values.chunks_exact_mut(DEPTH).enumerate();
            rows.map(move |(row, values)| (row, block * DEPTH, &mut values[..count]))
        })
    }

    /// Fills one row of pairs with the bf16 values of row `from` of x.
    pub fn fill_pairs(&mut self, row: usize, x: &Matrix<'_>, from: usize) {
        assert!(row < self.capacity && self.pairs);
        for (block, first) in (0..self.depth).step_by(DEPTH).enumerate() {
            let values = x.bf16_part(from, first, DEPTH.min(self.depth - first));
            let words = &mut self.values[(block * self.capacity + row) * DEPTH / 2..][..values.len().div_ceil(2)];
            for (word, pair) in words.iter_mut().zip(values.chunks(2)) {
                *word = f32::from_bits(u32::from(pair[0]) | u32::from(*pair.get(1).unwrap_or(&0)) << 16);
            }
        }
    }

    /// Fills one row from a slice.
    pub fn copy(&mut self, row: usize, values: &[f32]) {
        self.fill(row, |first, out| out.copy_from_slice(&values[first..][..out.len()]));
    }

    pub fn packed(self) -> PackedRows<'a> {
        PackedRows { values: self.values, capacity: self.capacity, depth: self.depth, pairs: self.pairs }
    }
}

/// The weight of a product.
#[derive(Clone, Copy, Debug)]
pub enum Operand<'a> {
    /// Outputs from `first_output` and values of k from `first_k` on, of a packed weight.
    Packed { panels: &'a Panels, first_output: usize, first_k: usize },
    /// As its owner keeps it: packed on the way, a block at a time.
    Lying(Weight<'a>),
}

/// A product, to be computed a stretch of columns at a time.
#[derive(Clone, Copy, Debug)]
pub struct Product<'a> {
    pub isa: Isa,
    pub x: PackedRows<'a>,
    pub weight: Operand<'a>,
    /// Use w² instead of w.
    pub square: bool,
}

impl Product<'_> {
    /// Columns `first .. first + count` (at most `COLUMNS`) of some rows. Row i of the result begins at
    /// `tile[i · TILE_STRIDE + the number returned]`; what lies around it is overwritten.
    pub fn columns(&self, rows: Range<usize>, first: usize, count: usize, tile: &mut [f32], room: &mut [f32]) -> usize {
        assert!(count <= COLUMNS && rows.end <= self.x.capacity && tile.len() >= rows.len() * TILE_STRIDE);
        let begin = match self.weight {
            Operand::Packed { first_output, .. } => first_output + first,
            Operand::Lying(_) => first,
        };
        let unit = begin / UNIT;
        let units = (begin + count).div_ceil(UNIT) - unit;
        let _flushing = self.x.pairs.then(Flushing::enter);
        for (number, k) in (0..self.x.depth).step_by(DEPTH).enumerate() {
            let depth = DEPTH.min(self.x.depth - k);
            let (w, panel_bytes, element, scale) = match self.weight {
                Operand::Packed { panels, first_k, .. }
                    if !self.x.pairs && rows.len() >= WORTH_WIDENING && panels.element() != Element::F32 =>
                {
                    let panel = |number: usize| panels.at(unit * UNIT / WIDTH + number, first_k + k);
                    for (number, out) in room.chunks_exact_mut(PANEL).take(units * UNIT / WIDTH).enumerate() {
                        let values = &mut out[..depth * WIDTH];
                        self.isa.run(Widen {
                            from: panel(number),
                            element: panels.element(),
                            scale: panels.scale(),
                            values,
                        });
                    }
                    (room.as_ptr().cast(), PANEL * size_of::<f32>(), Element::F32, 1.0)
                }
                Operand::Packed { panels, first_k, .. } => {
                    let at = panels.at(unit * UNIT / WIDTH, first_k + k);
                    (at, panels.panel_bytes(), panels.element(), panels.scale())
                }
                Operand::Lying(weight) => self.pack(&weight, unit * UNIT, units, k..k + depth, room),
            };
            let words = if self.x.pairs { DEPTH / 2 } else { DEPTH };
            let block = Block {
                x: self.x.values[(number * self.x.capacity + rows.start) * words..].as_ptr(),
                rows: rows.len(),
                depth,
                w,
                panel_bytes,
                units,
                element,
                scale,
                square: self.square,
                pairs: self.x.pairs,
                c: tile.as_mut_ptr(),
                accumulate: number > 0,
            };
            // SAFETY: x holds these rows of the block, the panels these units from k on, and the tile was measured above.
            unsafe { block.compute(self.isa) };
        }
        begin - unit * UNIT
    }

    /// Packs a block of columns and k into the room.
    fn pack(
        &self,
        weight: &Weight<'_>,
        first: usize,
        units: usize,
        k: Range<usize>,
        room: &mut [f32],
    ) -> (*const u8, usize, Element, f32) {
        let (panels, rest) = room.split_at_mut(TILE_STRIDE * DEPTH);
        let (line, copy) = rest.split_at_mut(PANEL);
        let panel_floats = if self.x.pairs { PANEL / 2 } else { PANEL };
        for (number, panel) in panels.chunks_exact_mut(panel_floats).take(units * UNIT / WIDTH).enumerate() {
            let from = (first + number * WIDTH).min(weight.outputs());
            let count = WIDTH.min(weight.outputs() - from);
            let weight = weight.outputs_from(from, count).inputs_from(k.start, k.len());
            if !self.x.pairs {
                self.isa.run(PackPanel { weight, panel: &mut panel[..k.len() * WIDTH], copy });
                continue;
            }
            let line = &mut line[..k.len() * WIDTH];
            self.isa.run(PackPanel { weight, panel: &mut *line, copy });
            // The second value of the last pair, where the depth is odd.
            panel[k.len() / 2 * WIDTH..k.len().div_ceil(2) * WIDTH].fill(0.0);
            narrow(line, Element::Bf16Pairs, 1.0, bytemuck::cast_slice_mut(panel));
        }
        let element = if self.x.pairs { Element::Bf16Pairs } else { Element::F32 };
        (panels.as_ptr().cast(), panel_floats * size_of::<f32>(), element, 1.0)
    }
}
