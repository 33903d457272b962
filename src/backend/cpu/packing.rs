//! From a weight as its owner keeps it to panels `[k][16]`, a block of k and a few columns at a time.

use half::f16;

use super::panels::{PANEL, WIDTH};
use super::tile::DEPTH;
use crate::backend::Weight;
use crate::simd::{CACHE_LINE, Kernel, Set};
use crate::tensor::Dtype;

/// Words of room that packing a block needs: sixteen rows beside a panel.
pub const PACKING_ROOM: usize = 2 * PANEL;

/// How many rows ahead of their use lines are asked for, where a row's sixteen outputs lie side by side: each row is in
/// another page then, which the hardware does not foresee. Measured for one row of 4096²: 6.6 ms instead of 11.5.
const ROWS_AHEAD: usize = 8;

/// Fills some panels with one block of k. Outputs that are not there become zero.
pub struct Pack<'a> {
    /// At most `DEPTH` values of k.
    pub weight: Weight<'a>,
    /// Keep bf16 in pairs of k, `[k/2][16][2]`, instead of widening.
    pub pairs: bool,
    /// Words of the panels, one after the other: `distance` from one to the next.
    pub panels: &'a mut [f32],
    pub distance: usize,
    /// `PACKING_ROOM` words.
    pub room: &'a mut [f32],
    pub ahead: Ahead,
}

/// Memory that will be packed soon, asked for a row after the other while other memory is packed.
///
/// Sixteen rows are too many streams for the hardware's own prefetching; one long row is what it is made for. Measured
/// for one row of 4096²: 3.6 ms instead of 5.2, where reading the weight alone takes 3.3.
#[derive(Clone, Copy, Debug)]
pub struct Ahead {
    at: *const u8,
    rows: usize,
    row_bytes: usize,
    stride_bytes: usize,
    /// Bytes of the first row already asked for.
    asked: usize,
}

impl Ahead {
    /// A weight; where its rows lie along k, they are asked for.
    pub fn of(weight: &Weight<'_>) -> Self {
        let size = weight.dtype().size();
        Self {
            at: weight.data(),
            rows: weight.outputs(),
            row_bytes: weight.inputs() * size,
            stride_bytes: weight.output_stride() * size,
            asked: 0,
        }
    }

    /// The next sixteen lines.
    #[inline(always)]
    fn next(&mut self) -> *const u8 {
        let lines = self.at.wrapping_add(self.asked);
        if self.rows > 0 {
            self.asked += WIDTH * CACHE_LINE;
            if self.asked >= self.row_bytes {
                (self.at, self.rows, self.asked) = (self.at.wrapping_add(self.stride_bytes), self.rows - 1, 0);
            }
        }
        lines
    }
}

impl Kernel for Pack<'_> {
    /// What is left to be asked for.
    type Output = Ahead;

    #[inline(always)]
    fn run<S: Set>(mut self) -> Ahead {
        assert!(self.weight.inputs() <= DEPTH && self.room.len() >= PACKING_ROOM);
        assert!(!self.pairs || self.weight.dtype() == Dtype::Bf16);
        match self.weight.input_stride() {
            1 => self.turn::<S>(),
            _ => self.copy_lines::<S>(),
        }
        self.ahead
    }
}

impl Pack<'_> {
    /// Rows along k: blocks of 16×16 words are transposed.
    #[inline(always)]
    fn turn<S: Set>(&mut self) {
        let (depth, outputs) = (self.weight.inputs(), self.weight.outputs());
        for (number, panel) in self.panels.chunks_mut(self.distance).enumerate() {
            let from = (number * WIDTH).min(outputs);
            let weight = self.weight.outputs_from(from, WIDTH.min(outputs - from));
            let (rows, turned) = self.room.split_at_mut(PANEL);
            if weight.dtype() == Dtype::Bf16 {
                let words = depth.div_ceil(2);
                let turned = if self.pairs { &mut panel[..words * WIDTH] } else { &mut turned[..words * WIDTH] };
                // SAFETY: `pair_rows` gives 16 rows of whole words.
                unsafe {
                    let (rows, stride) = pair_rows(&weight, rows);
                    turn::<S>(rows, stride, turned, &mut self.ahead);
                    if !self.pairs {
                        widen_pairs::<S>(turned.as_ptr().cast(), &mut panel[..depth * WIDTH]);
                    }
                }
            } else {
                // SAFETY: `float_rows` gives 16 rows of f32.
                unsafe {
                    let (rows, stride) = float_rows::<S>(&weight, rows);
                    turn::<S>(rows, stride, &mut panel[..depth * WIDTH], &mut self.ahead);
                }
            }
        }
    }

    /// Outputs side by side: lines are copied as they are, those of all panels together.
    #[inline(always)]
    fn copy_lines<S: Set>(&mut self) {
        let weight = &self.weight;
        let line_bytes = weight.outputs() * weight.dtype().size();
        let step = if self.pairs { 2 } else { 1 };
        for k in (0..weight.inputs()).step_by(step) {
            for soon in k..k + step {
                let line = weight.line(soon + ROWS_AHEAD);
                (0..line_bytes).step_by(CACHE_LINE).for_each(|byte| S::prefetch(line.wrapping_add(byte)));
            }
            for (number, panel) in self.panels.chunks_mut(self.distance).enumerate() {
                let first = (number * WIDTH).min(weight.outputs());
                let words = &mut panel[k / step * WIDTH..][..WIDTH];
                let here = weight.outputs_from(first, WIDTH.min(weight.outputs() - first));
                match self.pairs {
                    true => pair_line(&here, k, words),
                    false => float_line::<S>(&here, k, words),
                }
            }
        }
    }
}

/// `panel[k][output] = from[output][k]`, words of 32 bits.
///
/// # Safety
/// 16 rows of as many words as the panel has lines lie at `from`, `stride` apart.
#[inline(always)]
unsafe fn turn<S: Set>(from: *const f32, stride: usize, panel: &mut [f32], ahead: &mut Ahead) {
    let depth = panel.len() / WIDTH;
    if depth < WIDTH {
        for (k, line) in panel.chunks_exact_mut(WIDTH).enumerate() {
            // SAFETY: the caller's promise.
            line.iter_mut().enumerate().for_each(|(output, word)| *word = unsafe { *from.add(output * stride + k) });
        }
        return;
    }
    // Blocks begin at cache lines; the first and the last overlap their neighbours. A line read in two halves would often
    // be lost in between, since rows a power of two apart share a cache set.
    let lead = words_to_line(from, stride);
    let within = (lead..=depth - WIDTH).step_by(WIDTH);
    let first = if lead > 0 { Some(0) } else { None };
    let last = if (depth - lead).is_multiple_of(WIDTH) { None } else { Some(depth - WIDTH) };
    for k in first.into_iter().chain(within).chain(last) {
        // SAFETY: the caller's promise.
        unsafe { S::transpose(from.add(k), stride, panel[k * WIDTH..].as_mut_ptr(), Some(ahead.next())) };
    }
}

/// Words up to the next cache line, where that is the same for all rows.
#[inline(always)]
fn words_to_line(from: *const f32, stride: usize) -> usize {
    let word = from as usize / size_of::<f32>();
    if stride.is_multiple_of(WIDTH) { word.next_multiple_of(WIDTH) - word } else { 0 }
}

/// Sixteen rows of f32 and their distance: as they lie, or widened into `copy`.
#[inline(always)]
fn float_rows<S: Set>(weight: &Weight<'_>, copy: &mut [f32]) -> (*const f32, usize) {
    if weight.dtype() == Dtype::F32 && weight.outputs() == WIDTH {
        return (weight.data().cast(), weight.output_stride());
    }
    let depth = weight.inputs();
    for (output, row) in copy.chunks_exact_mut(DEPTH).enumerate() {
        let row = &mut row[..depth];
        match (output < weight.outputs(), weight.dtype()) {
            (false, _) => row.fill(0.0),
            (true, Dtype::F16) => widen_f16::<S>(&weight.outputs_from(output, 1), row),
            (true, _) => weight.load_along_inputs(output, row),
        }
    }
    (copy.as_ptr(), DEPTH)
}

/// One row of f16, side by side.
#[inline(always)]
fn widen_f16<S: Set>(weight: &Weight<'_>, row: &mut [f32]) {
    let whole = row.len() / S::LANES * S::LANES;
    for k in (0..whole).step_by(S::LANES) {
        // SAFETY: the row has these values; so has the weight.
        unsafe { S::store(S::load_f16(weight.data().cast::<f16>().add(k)), row[k..].as_mut_ptr()) };
    }
    if whole < row.len() {
        weight.inputs_from(whole, row.len() - whole).load_along_inputs(0, &mut row[whole..]);
    }
}

/// Sixteen rows of pairs of bf16 and their distance in words: as they lie where that is on whole words, or in `copy`, where
/// the last pair of an odd depth is filled up with zero.
#[inline(always)]
fn pair_rows(weight: &Weight<'_>, copy: &mut [f32]) -> (*const f32, usize) {
    let (depth, stride) = (weight.inputs(), weight.output_stride());
    let on_words = (weight.data() as usize).is_multiple_of(size_of::<f32>()) && stride.is_multiple_of(2);
    if on_words && depth.is_multiple_of(2) && weight.outputs() == WIDTH {
        return (weight.data().cast(), stride / 2);
    }
    for (output, row) in copy.chunks_exact_mut(DEPTH).enumerate() {
        let row: &mut [u16] = bytemuck::cast_slice_mut(row);
        let there = if output < weight.outputs() { weight.bits_along_inputs(output) } else { &[] };
        row[..there.len()].copy_from_slice(there);
        row[there.len()..depth.next_multiple_of(2)].fill(0);
    }
    (copy.as_ptr(), DEPTH)
}

/// One line of at most sixteen outputs, widened.
#[inline(always)]
fn float_line<S: Set>(weight: &Weight<'_>, k: usize, line: &mut [f32]) {
    if weight.outputs() < WIDTH {
        weight.load_along_outputs(k, &mut line[..weight.outputs()]);
        line[weight.outputs()..].fill(0.0);
        return;
    }
    let from = weight.line(k);
    for lane in (0..WIDTH).step_by(S::LANES) {
        // SAFETY: sixteen outputs lie there, side by side.
        unsafe {
            let vector = match weight.dtype() {
                Dtype::F32 => S::load(from.cast::<f32>().add(lane)),
                Dtype::F16 => S::load_f16(from.cast::<f16>().add(lane)),
                Dtype::Bf16 => S::load_bf16(from.cast::<u16>().add(lane)),
            };
            S::store(vector, line[lane..].as_mut_ptr());
        }
    }
}

/// Two lines of at most sixteen outputs, interleaved; the second is zero after an odd depth.
#[inline(always)]
fn pair_line(weight: &Weight<'_>, k: usize, line: &mut [f32]) {
    let first = weight.bits_along_outputs(k);
    let second = if k + 1 < weight.inputs() { weight.bits_along_outputs(k + 1) } else { &[0; WIDTH][..first.len()] };
    let pairs = first.iter().zip(second).map(|(first, second)| u32::from(*first) | u32::from(*second) << 16);
    line.iter_mut().zip(pairs).for_each(|(word, pair)| *word = f32::from_bits(pair));
    line[first.len()..].fill(0.0);
}

/// Whole lines of f32 from pairs; the second of a last pair alone is left out.
///
/// # Safety
/// `from` holds the pairs of these values.
#[inline(always)]
pub(super) unsafe fn widen_pairs<S: Set>(from: *const u32, values: &mut [f32]) {
    for (number, lines) in values.chunks_mut(2 * WIDTH).enumerate() {
        let (first, second) = lines.split_at_mut(WIDTH);
        for lane in (0..WIDTH).step_by(S::LANES) {
            // SAFETY: the caller's promise; a line has 16 values.
            unsafe {
                let pairs = S::load_pairs(from.add(number * WIDTH + lane));
                S::store(S::first_of_pairs(pairs), first[lane..].as_mut_ptr());
                if !second.is_empty() {
                    S::store(S::second_of_pairs(pairs), second[lane..].as_mut_ptr());
                }
            }
        }
    }
}
