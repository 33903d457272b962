//! `x wᵀ` for a stretch of columns, in the library's summation order: k in blocks of 256, in a block one chain of fused
//! multiply-adds from zero, block sums added ascending. An element's bits depend on its row and its column alone.

use std::ops::Range;

use super::float_mode::Flushing;
use super::packing::{Ahead, PACKING_ROOM, Pack};
use super::panels::{Element, PANEL, Panels, WIDTH, Widen};
use super::tile::{Block, DEPTH, TILE_STRIDE, UNIT};
use crate::backend::Weight;
use crate::simd::Isa;
use crate::tensor::{Dtype, Matrix};

/// Columns computed at a time. A tile row holds them even where they begin inside a unit.
pub const COLUMNS: usize = TILE_STRIDE - UNIT;

/// Rows from which a 16-bit or int8 block is widened once instead of for every tile of rows: from two tiles on.
const WORTH_WIDENING: usize = 24;

/// f32 of room that a product needs when its weight is not packed.
pub const ROOM: usize = TILE_STRIDE * DEPTH + PACKING_ROOM;

/// Bytes that the hardware fetches ahead in one stream.
const PAGE: usize = 4096;

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
        assert!(room.len() >= ROOM);
        let (begin, outputs, inputs) = match self.weight {
            Operand::Packed { panels, first_output, first_k } => {
                assert!(!self.square || panels.element() != Element::Bf16Pairs, "pairs are not squared");
                (first_output + first, panels.outputs(), panels.depth().saturating_sub(first_k))
            }
            Operand::Lying(weight) => (first, weight.outputs(), weight.inputs()),
        };
        assert!(begin + count <= outputs && self.x.depth <= inputs && !(self.square && self.x.pairs));
        let unit = begin / UNIT;
        let units = (begin + count).div_ceil(UNIT) - unit;
        let _flushing = self.x.pairs.then(Flushing::enter);
        match self.weight {
            Operand::Packed { panels, first_k, .. } => {
                for k in (0..self.x.depth).step_by(DEPTH) {
                    let w = self.packed(panels, rows.len(), unit..unit + units, first_k + k, k, room);
                    self.multiply(k, &rows, w, 0..units, tile);
                }
            }
            Operand::Lying(weight) => self.lying(&weight, &rows, unit..unit + units, tile, room),
        }
        begin - unit * UNIT
    }

    /// Some units of a packed weight, at one block of k: as they are, or widened into the room.
    fn packed(
        &self,
        panels: &Panels,
        rows: usize,
        units: Range<usize>,
        in_panel: usize,
        k: usize,
        room: &mut [f32],
    ) -> Packed {
        let depth = DEPTH.min(self.x.depth - k);
        let panel = |number: usize| panels.at(units.start * UNIT / WIDTH + number, in_panel);
        if self.x.pairs || rows < WORTH_WIDENING || panels.element() == Element::F32 {
            let (element, scale) = (panels.element(), panels.scale());
            return Packed { at: panel(0).as_ptr(), panel_bytes: panels.panel_bytes(), element, scale };
        }
        for (number, out) in room.chunks_exact_mut(PANEL).take(units.len() * UNIT / WIDTH).enumerate() {
            let (element, scale) = (panels.element(), panels.scale());
            self.isa.run(Widen { from: panel(number), element, scale, values: &mut out[..depth * WIDTH] });
        }
        Packed { at: room.as_ptr().cast(), panel_bytes: PANEL * size_of::<f32>(), element: Element::F32, scale: 1.0 }
    }

    /// A weight as its owner keeps it, packed on the way. Where its rows lie along k, a unit of columns is carried through
    /// a page of each row before the next, while that is fetched; otherwise the lines of all columns are read together.
    fn lying(&self, weight: &Weight<'_>, rows: &Range<usize>, units: Range<usize>, tile: &mut [f32], room: &mut [f32]) {
        let along_k = weight.input_stride() == 1;
        let stretch = if along_k { PAGE / weight.dtype().size() } else { DEPTH };
        let width = if along_k { 1 } else { units.len() };
        let part = |unit: usize, k: usize| {
            let from = (unit * UNIT).min(weight.outputs());
            let depth = stretch.min(self.x.depth.saturating_sub(k));
            weight.outputs_from(from, (width * UNIT).min(weight.outputs() - from)).inputs_from(k, depth)
        };
        for first_k in (0..self.x.depth).step_by(stretch) {
            let stretch_end = (first_k + stretch).min(self.x.depth);
            for unit in units.clone().step_by(width) {
                let here = part(unit, first_k);
                let soon = match (unit + width < units.end, stretch_end < self.x.depth) {
                    (true, _) => part(unit + width, first_k),
                    (false, true) => part(units.start, stretch_end),
                    (false, false) if units.end * UNIT < weight.outputs() => part(units.end, 0),
                    (false, false) => here,
                };
                let mut ahead = Ahead::of(&soon);
                for k in (first_k..stretch_end).step_by(DEPTH) {
                    let block = here.inputs_from(k - first_k, DEPTH.min(stretch_end - k));
                    let w = self.pack(block, rows.len(), width, &mut ahead, room);
                    self.multiply(k, rows, w, unit - units.start..unit - units.start + width, tile);
                }
            }
        }
    }

    /// Packs a block of k of some units into the room. Few rows widen bf16 in registers.
    fn pack(&self, weight: Weight<'_>, rows: usize, units: usize, ahead: &mut Ahead, room: &mut [f32]) -> Packed {
        let pairs = weight.dtype() == Dtype::Bf16 && (self.x.pairs || (rows < WORTH_WIDENING && !self.square));
        let (panels, room) = room.split_at_mut(TILE_STRIDE * DEPTH);
        let panels = &mut panels[..units * UNIT / WIDTH * PANEL];
        *ahead = self.isa.run(Pack { weight, pairs, panels, distance: PANEL, room, ahead: *ahead });
        let element = if pairs { Element::Bf16Pairs } else { Element::F32 };
        Packed { at: panels.as_ptr().cast(), panel_bytes: PANEL * size_of::<f32>(), element, scale: 1.0 }
    }

    /// One block of k, times units of the weight that are `units` of the tile.
    fn multiply(&self, k: usize, rows: &Range<usize>, w: Packed, units: Range<usize>, tile: &mut [f32]) {
        assert!(units.end * UNIT <= TILE_STRIDE && rows.len() * TILE_STRIDE <= tile.len());
        let words = if self.x.pairs { DEPTH / 2 } else { DEPTH };
        let block = Block {
            x: self.x.values[(k / DEPTH * self.x.capacity + rows.start) * words..].as_ptr(),
            rows: rows.len(),
            depth: DEPTH.min(self.x.depth - k),
            w: w.at,
            panel_bytes: w.panel_bytes,
            units: units.len(),
            element: w.element,
            scale: w.scale,
            square: self.square,
            pairs: self.x.pairs,
            c: tile[units.start * UNIT..].as_mut_ptr(),
            accumulate: k > 0,
        };
        // SAFETY: x holds these rows of the block, the panels these units from k on, and the tile was measured above.
        unsafe { block.compute(self.isa) };
    }
}

/// A block of k of some panels, ready for the micro-kernel.
struct Packed {
    at: *const u8,
    panel_bytes: usize,
    element: Element,
    scale: f32,
}
