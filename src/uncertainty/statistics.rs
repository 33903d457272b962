//! Running statistics over Monte Carlo passes: every pass is folded in and forgotten.

use crate::error::Result;
use crate::fail;
use crate::memory::{Allocator, Buffer};

/// Running statistics of `rows` predictions with `outputs` values each, in memory that does not grow with the passes.
///
/// Every row counts its own passes, so rows can stop early. With two outputs or more the values are also read as
/// logits of classes: each pass votes for its largest one (the lowest class on a tie), and its softmax enters the
/// class probabilities. (A model that ends in a softmax passes the logarithm of its probabilities.)
///
/// Means and squares follow Welford (1962), "Note on a method for calculating corrected sums of squares and
/// products", in f64. The passes of a row, in their order, define its bits; how they were split over calls and what
/// other rows did does not.
#[derive(Debug)]
pub struct Statistics {
    rows: usize,
    outputs: usize,
    /// `[rows]`
    passes: Buffer<u32>,
    /// `[rows, outputs]`: the values as they came.
    pub(super) values: Moments,
    /// `[rows, outputs]`: their softmax; empty with one output.
    pub(super) probabilities: Moments,
    /// `[rows, outputs]`; empty with one output.
    votes: Buffer<u32>,
    /// `[rows]`: running mean of the entropy of each pass, in nats; empty with one output.
    pub(super) entropy: Buffer<f64>,
    /// `[outputs]`: exp(logit − largest) of the row at hand.
    weights: Buffer<f64>,
}

/// Running mean and sum of squared deviations from it.
#[derive(Debug)]
pub(super) struct Moments {
    pub mean: Buffer<f64>,
    pub squares: Buffer<f64>,
}

impl Moments {
    fn new(allocator: &Allocator, length: usize) -> Result<Self> {
        Ok(Self { mean: Buffer::zeroed(allocator, length)?, squares: Buffer::zeroed(allocator, length)? })
    }

    /// Folds the `count`-th value of element `index` in.
    fn add(&mut self, index: usize, value: f64, count: f64) {
        let before = value - self.mean[index];
        self.mean[index] += before / count;
        self.squares[index] += before * (value - self.mean[index]);
    }

    fn clear(&mut self) {
        self.mean.fill(0.0);
        self.squares.fill(0.0);
    }
}

impl Statistics {
    /// Statistics of no pass yet. `rows` may be 0; `outputs` is at least 1 and fits into 32 bits.
    ///
    /// # Errors
    /// `Shape` for an `outputs` out of range; `Memory` if `36 · rows · outputs` bytes and a little can't be had.
    pub fn new(allocator: &Allocator, rows: usize, outputs: usize) -> Result<Self> {
        if outputs == 0 || u32::try_from(outputs).is_err() {
            fail!(Shape, "outputs is {outputs}; wanted 1 to {}, as classes are numbered in 32 bits", u32::MAX);
        }
        let Some(length) = rows.checked_mul(outputs) else {
            fail!(Memory, "rows = {rows} times outputs = {outputs} is more than memory can hold");
        };
        let (class_rows, class_length, weights) = if outputs > 1 { (rows, length, outputs) } else { (0, 0, 0) };
        Ok(Self {
            rows,
            outputs,
            passes: Buffer::zeroed(allocator, rows)?,
            values: Moments::new(allocator, length)?,
            probabilities: Moments::new(allocator, class_length)?,
            votes: Buffer::zeroed(allocator, class_length)?,
            entropy: Buffer::zeroed(allocator, class_rows)?,
            weights: Buffer::zeroed(allocator, weights)?,
        })
    }

    /// How many predictions are followed.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// How many values a prediction has.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// How many passes each row has seen, `[rows]`.
    pub fn passes(&self) -> &[u32] {
        &self.passes
    }

    /// How many passes of each row voted for each class, `[rows, outputs]`; empty with one output.
    pub fn votes(&self) -> &[u32] {
        &self.votes
    }

    /// Forgets every pass, keeps the memory.
    pub fn clear(&mut self) {
        self.passes.fill(0);
        self.values.clear();
        self.probabilities.clear();
        self.votes.fill(0);
        self.entropy.fill(0.0);
    }

    /// Adds one pass of every row: `values` is `[rows, outputs]`, rows `row_stride` elements apart.
    ///
    /// # Errors
    /// `Stride`, `Shape`, `Overflow` for a value that is not finite, `State` for a row with 2³² − 1 passes.
    /// Then nothing has changed.
    pub fn add(&mut self, values: &[f32], row_stride: usize) -> Result<()> {
        check_values(values, row_stride, self.rows, self.outputs)?;
        self.check_room(1)?;
        for row in 0..self.rows {
            self.add_row(row, &values[row * row_stride..][..self.outputs]);
        }
        Ok(())
    }

    /// Adds one pass of each row in `rows`: row `i` of `values`, `[rows.len(), outputs]`, belongs to row `rows[i]`.
    /// A row that is named several times gets several passes, in that order: so S passes of a batch can be one call.
    ///
    /// # Errors
    /// As [`Statistics::add`], and `Argument` for a row that is not there. Then nothing has changed.
    pub fn add_rows(&mut self, rows: &[usize], values: &[f32], row_stride: usize) -> Result<()> {
        if let Some(position) = rows.iter().position(|&row| row >= self.rows) {
            fail!(Argument, "rows[{position}] is {}; wanted less than {}", rows[position], self.rows);
        }
        check_values(values, row_stride, rows.len(), self.outputs)?;
        self.check_room(rows.len())?;
        for (position, &row) in rows.iter().enumerate() {
            self.add_row(row, &values[position * row_stride..][..self.outputs]);
        }
        Ok(())
    }

    /// Checks that no row can run out of its 32-bit counter when `more` passes come.
    fn check_room(&self, more: usize) -> Result<()> {
        let largest = u32::try_from(more).ok().and_then(|more| u32::MAX.checked_sub(more));
        if let Some(row) = self.passes.iter().position(|&passes| largest.is_none_or(|largest| passes > largest)) {
            fail!(State, "row {row} has {} passes; {more} more would not fit into 32 bits", self.passes[row]);
        }
        Ok(())
    }

    fn add_row(&mut self, row: usize, values: &[f32]) {
        self.passes[row] += 1;
        let count = f64::from(self.passes[row]);
        let start = row * self.outputs;
        for (column, &value) in values.iter().enumerate() {
            self.values.add(start + column, f64::from(value), count);
        }
        if self.outputs > 1 {
            self.add_classes(row, values, count);
        }
    }

    fn add_classes(&mut self, row: usize, logits: &[f32], count: f64) {
        let start = row * self.outputs;
        let top = largest(logits);
        self.votes[start + top] += 1;
        let largest = f64::from(logits[top]);
        let (mut total, mut weighted) = (0.0, 0.0);
        for (weight, &logit) in self.weights.iter_mut().zip(logits) {
            let below = f64::from(logit) - largest; // ≤ 0, so exp cannot overflow
            *weight = below.exp();
            total += *weight;
            weighted += *weight * below;
        }
        for column in 0..self.outputs {
            self.probabilities.add(start + column, self.weights[column] / total, count);
        }
        // −Σ p ln p with ln p = below − ln total: two terms that are never negative, so nothing cancels.
        let entropy = total.ln() - weighted / total;
        self.entropy[row] += (entropy - self.entropy[row]) / count;
    }
}

/// The index of the largest value, the lowest one on a tie, as `torch.argmax` has it.
pub(super) fn largest<T: PartialOrd>(values: &[T]) -> usize {
    let mut top = 0;
    for (index, value) in values.iter().enumerate() {
        if *value > values[top] {
            top = index;
        }
    }
    top
}

/// Checks stride and extent of a `[rows, outputs]` matrix of finite values.
pub(super) fn check_values(values: &[f32], row_stride: usize, rows: usize, outputs: usize) -> Result<()> {
    if row_stride < outputs {
        fail!(Stride, "row_stride of values is {row_stride}; wanted at least the {outputs} outputs of a row");
    }
    if rows == 0 {
        return Ok(());
    }
    let needed = (rows - 1).checked_mul(row_stride).and_then(|last| last.checked_add(outputs));
    if needed.is_none_or(|needed| values.len() < needed) {
        fail!(
            Shape,
            "values has {} elements; wanted {rows} rows of {outputs}, {row_stride} elements apart",
            values.len()
        );
    }
    for row in 0..rows {
        let line = &values[row * row_stride..][..outputs];
        if let Some(column) = line.iter().position(|value| !value.is_finite()) {
            fail!(Overflow, "values at row {row}, column {column} is {}; wanted a finite number", line[column]);
        }
    }
    Ok(())
}
