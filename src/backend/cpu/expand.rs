//! `y += λ_b ∘ (z Bᵀ)` from p, with the base product first where the layer has a weight: forward's second half.

use std::ops::Range;

use super::elementwise::{AddScaled, Finish, Output, Start};
use super::groups::{Group, ROW_BLOCK, RowBlock};
use super::latent;
use super::product::{COLUMNS, Operand, PackedRows, Product, ROOM, RowsToPack};
use super::scratch::{Floats, Sizes};
use super::tile::TILE_STRIDE;
use crate::backend::{Call, Membership, Term};
use crate::error::Result;
use crate::memory::Arena;
use crate::simd::{CACHE_LINE, Isa};
use crate::tensor::{Dtype, Matrix, MatrixMut};

/// f32 of latents held at a time: half of a common L2.
const LATENTS: usize = 1 << 17;

/// Draws whose latents are held at a time.
const DRAWS: usize = 384;

/// An output of so many bytes is not in any cache when it is read again: writing it past them saves reading it first.
/// Measured for 16 draws of 1576 rows of 768: 126 ms instead of 130.
const LARGER_THAN_CACHES: usize = 32 << 20;

/// Rows of a full tile of the micro-kernel's tallest shape.
const TILE_ROWS: usize = 12;

/// One layer's groups, B packed.
#[derive(Clone, Copy, Debug)]
pub struct Expansion<'a> {
    pub call: &'a Call<'a>,
    pub groups: &'a [(&'a Group<'a>, Operand<'a>)],
}

impl<'a> Expansion<'a> {
    pub fn of(calls: &'a [Call<'a>], arena: &'a Arena) -> Result<&'a [Expansion<'a>]> {
        let mut layers = arena.list(calls.len())?;
        for call in calls {
            let groups = Group::of(call, arena)?;
            let mut with_operands = arena.list(groups.len())?;
            for group in groups {
                with_operands.push((group, group.shared().pair.expansion()?));
            }
            layers.push(Expansion { call, groups: with_operands.into_slice() });
        }
        Ok(layers.into_slice())
    }

    /// Rows handled at a time, so that the latents of all their draws and terms stay in the cache.
    pub fn block_rows(&self, draws: usize) -> usize {
        let width = self.latent_floats();
        let rows = LATENTS / (width * draws.min(DRAWS)).max(1);
        let rows = if rows > TILE_ROWS { rows / TILE_ROWS * TILE_ROWS } else { rows };
        rows.clamp(1, ROW_BLOCK)
    }

    /// f32 of packed latents that one row takes: in all groups, or in the one that it is in.
    fn latent_floats(&self) -> usize {
        let floats = self.groups.iter().map(|(group, _)| RowsToPack::floats(1, group.shared().rank()));
        match self.call.membership {
            Membership::All => floats.sum(),
            Membership::ByRow(_) | Membership::BySlot { .. } => floats.max().unwrap_or(0),
        }
    }

    pub fn sizes(&self, draws: usize) -> Sizes {
        let rows = self.block_rows(draws).min(self.call.rows);
        let rank = self.groups.iter().map(|(group, _)| group.shared().rank()).max().unwrap_or(0);
        let packed = RowsToPack::floats(rows, self.call.inputs);
        let tile = rows.max(ROW_BLOCK) * TILE_STRIDE;
        Sizes {
            x: packed,
            gathered: packed,
            z: rows * draws.min(DRAWS) * self.latent_floats(),
            vectors: 5 * rank,
            base: tile,
            sum: tile,
            delta: tile,
            room: ROOM,
            ..Sizes::default()
        }
    }
}

/// The scratch that a block works in.
pub struct Rooms<'s> {
    pub z: &'s mut Floats,
    pub vectors: &'s mut Floats,
    pub base: &'s mut Floats,
    pub sum: &'s mut Floats,
    pub delta: &'s mut Floats,
    pub room: &'s mut Floats,
}

/// One layer of a call.
#[derive(Clone, Copy, Debug)]
pub struct Job<'a> {
    pub isa: Isa,
    pub layer: &'a Expansion<'a>,
    /// Row i of the call is row `i − first` of p.
    pub p: (&'a Matrix<'a>, usize),
    pub draws: usize,
    /// `[draws·n, out]`.
    pub y: &'a MatrixMut<'a>,
    pub keep: Option<&'a MatrixMut<'a>>,
}

impl Job<'_> {
    /// A block of rows, onto some columns of y. `x` is given where the base product is wanted.
    pub fn block(
        &self,
        rows: Range<usize>,
        cols: Range<usize>,
        x: Option<PackedRows<'_>>,
        rooms: &mut Rooms<'_>,
    ) -> Result<()> {
        if cols.is_empty() {
            return Ok(());
        }
        for first in (0..self.draws).step_by(DRAWS) {
            let draws = first..(first + DRAWS).min(self.draws);
            self.draws(&rows, &cols, draws, x, rooms)?;
        }
        Ok(())
    }

    fn draws(
        &self,
        rows: &Range<usize>,
        cols: &Range<usize>,
        draws: Range<usize>,
        x: Option<PackedRows<'_>>,
        rooms: &mut Rooms<'_>,
    ) -> Result<()> {
        let call = self.layer.call;
        let mut rest = &mut rooms.z.0[..];
        for (group, _) in self.layer.groups {
            let block = group.within(rows.clone());
            let rank = group.shared().rank();
            let (now, later) = rest.split_at_mut(RowsToPack::floats(block.len() * draws.len(), rank));
            let packed = RowsToPack::new(now, block.len() * draws.len(), rank, false);
            latent::draw(self.isa, call, group, &block, draws.clone(), self.p, packed, &mut rooms.vectors.0)?;
            rest = later;
        }
        let base =
            x.zip(call.base).map(|(x, base)| Product { isa: self.isa, x, weight: base.forward(), square: false });
        // As many whole draws at a time as a tile has room for.
        let together = (ROW_BLOCK / rows.len()).max(1);
        for col in cols.clone().step_by(COLUMNS) {
            let cols = col..(col + COLUMNS).min(cols.end);
            let base = base.map(|product| {
                let (tile, room) = (&mut rooms.base.0, &mut rooms.room.0);
                product.columns(0..rows.len(), cols.start, cols.len(), tile, room)
            });
            for draw in draws.clone().step_by(together) {
                let some = draw..(draw + together).min(draws.end);
                self.sum(rows, &cols, draws.clone(), some, base, rooms);
            }
        }
        Ok(())
    }

    /// y of a few draws (`some` of `all`), for a stretch of columns; the base product lies in its tile from `base` on.
    fn sum(
        &self,
        rows: &Range<usize>,
        cols: &Range<usize>,
        all: Range<usize>,
        some: Range<usize>,
        base: Option<usize>,
        rooms: &mut Rooms<'_>,
    ) {
        if let Some((base, term)) = base.zip(self.alone()) {
            self.finish(rows, cols, &all, &some, base, term, rooms);
            return;
        }
        let (call, height) = (self.layer.call, rows.len());
        for (number, draw) in some.clone().enumerate() {
            let sum = &mut rooms.sum.0[number * height * TILE_STRIDE..][..height * TILE_STRIDE];
            match base {
                Some(at) => self.start(rows, cols, &rooms.base.0[at..], sum),
                None => self.start_from_y(rows, cols, draw, sum),
            }
        }
        let mut rest = &rooms.z.0[..];
        for (group, weight) in self.layer.groups {
            let block = group.within(rows.clone());
            let rank = group.shared().rank();
            let (now, later) = rest.split_at(RowsToPack::floats(block.len() * all.len(), rank));
            rest = later;
            if block.len() == 0 {
                continue;
            }
            let x = PackedRows::new(now, block.len() * all.len(), rank, false);
            let product = Product { isa: self.isa, x, weight: *weight, square: false };
            let drawn = (some.start - all.start) * block.len()..(some.end - all.start) * block.len();
            let (tile, room) = (&mut rooms.delta.0, &mut rooms.room.0);
            let at = product.columns(drawn, cols.start, cols.len(), tile, room);
            self.add(group, &block, rows, cols, some.len(), &rooms.delta.0[at..], &mut rooms.sum.0);
        }
        for (number, draw) in some.enumerate() {
            let sum = &rooms.sum.0[number * height * TILE_STRIDE..];
            for (place, row) in rows.clone().enumerate() {
                let values = &sum[place * TILE_STRIDE..][..cols.len()];
                // SAFETY: tiles of one call are disjoint.
                unsafe { self.y.store(draw * call.rows + row, cols.start, values) };
            }
        }
    }

    /// The term of every row, where there is no other and y is not f16: its tiles go straight into y.
    fn alone(&self) -> Option<&Term<'_>> {
        match self.layer.groups {
            [(group, _)] if self.y.dtype() != Dtype::F16 => group.only(),
            _ => None,
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn finish(
        &self,
        rows: &Range<usize>,
        cols: &Range<usize>,
        all: &Range<usize>,
        some: &Range<usize>,
        base: usize,
        term: &Term<'_>,
        rooms: &mut Rooms<'_>,
    ) {
        let (call, height) = (self.layer.call, rows.len());
        let x = PackedRows::new(&rooms.z.0, height * all.len(), term.rank(), false);
        let product = Product { isa: self.isa, x, weight: self.layer.groups[0].1, square: false };
        let drawn = (some.start - all.start) * height..(some.end - all.start) * height;
        let at = product.columns(drawn, cols.start, cols.len(), &mut rooms.delta.0, &mut rooms.room.0);
        let (group, _) = &self.layer.groups[0];
        self.keep(group, &RowBlock::Run(rows.clone()), cols, &rooms.delta.0[at..]);
        let mut values = [0.0; COLUMNS];
        let bias = self.load_bias(self.bias_of(rows.start), cols, &mut values[..cols.len()]);
        for (number, draw) in some.clone().enumerate() {
            let row = draw * call.rows + rows.start;
            assert!(row + height <= self.y.rows() && cols.end <= self.y.cols());
            let finish = Finish {
                rows: height,
                base: &rooms.base.0[base..],
                bias,
                scale: term.scale,
                lambda_b: &term.lambda_b[cols.clone()],
                delta: &rooms.delta.0[number * height * TILE_STRIDE + at..],
                y: match self.y.dtype() {
                    Dtype::Bf16 => Output::Bf16(self.y.row_pointer(row).cast::<u16>().wrapping_add(cols.start)),
                    _ => self.output(self.y.row_pointer(row).cast::<f32>().wrapping_add(cols.start), cols.len()),
                },
                y_stride: self.y.row_stride(),
            };
            // SAFETY: these rows and columns are within y, by the assertion; tiles of one call are disjoint.
            unsafe { finish.run(self.isa) };
        }
    }

    /// Where tiles of an f32 y go: past the caches, when y is larger than they are and lies well.
    fn output(&self, at: *mut f32, cols: usize) -> Output {
        let large = self.y.rows() * self.y.cols() * size_of::<f32>() >= LARGER_THAN_CACHES;
        let in_lines = |elements: usize| elements.is_multiple_of(CACHE_LINE / size_of::<f32>());
        let lies_well = (at as usize).is_multiple_of(CACHE_LINE) && in_lines(self.y.row_stride()) && in_lines(cols);
        if large && lies_well { Output::Streamed(at) } else { Output::F32(at) }
    }

    /// `sum = base + bias`.
    fn start(&self, rows: &Range<usize>, cols: &Range<usize>, base: &[f32], sum: &mut [f32]) {
        let mut values = [0.0; COLUMNS];
        let values = &mut values[..cols.len()];
        let mut previous = None;
        let mut begin = 0;
        // Rows in a row that have one bias are started together.
        for place in 0..=rows.len() {
            let bias = (place < rows.len()).then(|| self.bias_of(rows.start + place));
            if bias == previous && place < rows.len() {
                continue;
            }
            if let Some(source) = previous {
                let bias = self.load_bias(source, cols, values);
                let (base, sum) = (&base[begin * TILE_STRIDE..], &mut sum[begin * TILE_STRIDE..]);
                self.isa.run(Start { rows: place - begin, cols: cols.len(), base, bias, sum });
            }
            (previous, begin) = (bias, place);
        }
    }

    /// Which learned bias a row has: its address, or None for the layer's own.
    fn bias_of(&self, row: usize) -> Option<*const f32> {
        self.layer.call.learned_bias(row).map(|bias| bias.data())
    }

    /// The bias of some columns; None where there is none.
    fn load_bias<'v>(
        &self,
        learned: Option<*const f32>,
        cols: &Range<usize>,
        values: &'v mut [f32],
    ) -> Option<&'v [f32]> {
        match (learned, &self.layer.call.bias) {
            (Some(bias), _) => {
                // SAFETY: a learned bias has a value for every output.
                values.copy_from_slice(unsafe { std::slice::from_raw_parts(bias.add(cols.start), cols.len()) });
            }
            (None, Some(own)) => own.load(0, cols.start, values),
            (None, None) => return None,
        }
        Some(values)
    }

    /// What y holds; beside a foreign base, with the learned bias in place of its own.
    fn start_from_y(&self, rows: &Range<usize>, cols: &Range<usize>, draw: usize, sum: &mut [f32]) {
        let call = self.layer.call;
        let mut own = [0.0; COLUMNS];
        for (place, row) in rows.clone().enumerate() {
            let sum = &mut sum[place * TILE_STRIDE..][..cols.len()];
            self.y.as_const().load(draw * call.rows + row, cols.start, sum);
            let Some(learned) = call.learned_bias(row) else { continue };
            if let Some(bias) = &call.bias {
                bias.load(0, cols.start, &mut own[..cols.len()]);
            }
            let biases = learned[cols.clone()].iter().zip(&own);
            sum.iter_mut().zip(biases).for_each(|(sum, (learned, own))| *sum += learned - own);
        }
    }

    /// Leaves a group's `z Bᵀ` for backward, where that is wanted.
    fn keep(&self, group: &Group<'_>, block: &RowBlock<'_>, cols: &Range<usize>, delta: &[f32]) {
        let Some(keep) = self.keep else { return };
        for place in 0..block.len() {
            let column = self.layer.call.kept_column(group.term(block.row(place)).0) + cols.start;
            // SAFETY: tiles of one call are disjoint.
            unsafe { keep.store(block.row(place), column, &delta[place * TILE_STRIDE..][..cols.len()]) };
        }
    }

    /// Adds a group's deltas, `draws` times its rows of the block, to the sums.
    #[allow(clippy::too_many_arguments)]
    fn add(
        &self,
        group: &Group<'_>,
        block: &RowBlock<'_>,
        rows: &Range<usize>,
        cols: &Range<usize>,
        draws: usize,
        delta: &[f32],
        sum: &mut [f32],
    ) {
        self.keep(group, block, cols, delta);
        if let Some(term) = group.only() {
            let lambda_b = &term.lambda_b[cols.clone()];
            self.isa.run(AddScaled {
                rows: draws * rows.len(),
                scale: term.scale,
                square: false,
                lambda_b,
                delta,
                sum,
            });
            return;
        }
        for place in 0..draws * block.len() {
            let (draw, row) = (place / block.len(), block.row(place % block.len()));
            let (_, term) = group.term(row);
            let (delta, lambda_b) = (&delta[place * TILE_STRIDE..], &term.lambda_b[cols.clone()]);
            let sum = &mut sum[(draw * rows.len() + row - rows.start) * TILE_STRIDE..];
            self.isa.run(AddScaled { rows: 1, scale: term.scale, square: false, lambda_b, delta, sum });
        }
    }
}
