//! What is done to tiles and vectors element by element, compiled for each instruction set.

use super::tile::TILE_STRIDE;
use crate::simd::{Isa, Kernel, Set};
use crate::tensor::bf16_bits;

/// `sum = base`, or `base + bias`, for rows of tiles.
pub struct Start<'a> {
    pub rows: usize,
    pub cols: usize,
    pub base: &'a [f32],
    pub bias: Option<&'a [f32]>,
    pub sum: &'a mut [f32],
}

impl Kernel for Start<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Set>(self) {
        for row in 0..self.rows {
            let base = &self.base[row * TILE_STRIDE..][..self.cols];
            let sum = &mut self.sum[row * TILE_STRIDE..][..self.cols];
            match self.bias {
                Some(bias) => {
                    let bias = &bias[..self.cols];
                    (0..self.cols).for_each(|j| sum[j] = base[j] + bias[j]);
                }
                None => sum.copy_from_slice(base),
            }
        }
    }
}

/// `sum += (scale · λ_b) ∘ delta`, one fused multiply-add an element, for rows of tiles.
pub struct AddScaled<'a> {
    pub rows: usize,
    pub scale: f32,
    /// Take the coefficient's square instead.
    pub square: bool,
    pub lambda_b: &'a [f32],
    pub delta: &'a [f32],
    pub sum: &'a mut [f32],
}

impl Kernel for AddScaled<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Set>(self) {
        let cols = self.lambda_b.len();
        for row in 0..self.rows {
            let delta = &self.delta[row * TILE_STRIDE..][..cols];
            let sum = &mut self.sum[row * TILE_STRIDE..][..cols];
            for j in 0..cols {
                let coefficient = self.scale * self.lambda_b[j];
                let coefficient = if self.square { coefficient * coefficient } else { coefficient };
                sum[j] = coefficient.mul_add(delta[j], sum[j]);
            }
        }
    }
}

/// The last step of the common case, straight into y: `y = (base + bias) + (scale · λ_b) ∘ delta`, for rows of tiles.
pub struct Finish<'a> {
    pub rows: usize,
    pub base: &'a [f32],
    pub bias: Option<&'a [f32]>,
    pub scale: f32,
    pub lambda_b: &'a [f32],
    pub delta: &'a [f32],
    /// Rows of y, this far apart in elements.
    pub y: Output,
    pub y_stride: usize,
}

/// Where a row of y begins, in the types that tiles go straight into.
#[derive(Clone, Copy)]
pub enum Output {
    F32(*mut f32),
    /// Aligned to a cache line as all rows of y are, whole vectors of columns, to be written past the caches.
    Streamed(*mut f32),
    Bf16(*mut u16),
}

/// What is promised of its pointers by whoever runs it.
struct Promised<T>(T);

impl Kernel for Promised<Finish<'_>> {
    type Output = ();

    #[inline(always)]
    fn run<S: Set>(self) {
        self.0.rows_of_y::<S>();
    }
}

impl Finish<'_> {
    /// # Safety
    /// y has these rows and columns, which nothing else touches meanwhile; streamed ones lie as [`Output`] says.
    pub unsafe fn run(self, isa: Isa) {
        isa.run(Promised(self));
    }

    #[inline(always)]
    fn rows_of_y<S: Set>(&self) {
        let cols = self.lambda_b.len();
        for row in 0..self.rows {
            let base = &self.base[row * TILE_STRIDE..][..cols];
            let delta = &self.delta[row * TILE_STRIDE..][..cols];
            let coefficient = |j: usize| self.scale * self.lambda_b[j];
            let offset = row * self.y_stride;
            // SAFETY: the promise of `run`.
            unsafe {
                match (self.y, self.bias) {
                    (Output::F32(y), Some(bias)) => {
                        let (y, bias) = (std::slice::from_raw_parts_mut(y.add(offset), cols), &bias[..cols]);
                        (0..cols).for_each(|j| y[j] = coefficient(j).mul_add(delta[j], base[j] + bias[j]));
                    }
                    (Output::F32(y), None) => {
                        let y = std::slice::from_raw_parts_mut(y.add(offset), cols);
                        (0..cols).for_each(|j| y[j] = coefficient(j).mul_add(delta[j], base[j]));
                    }
                    (Output::Streamed(y), bias) => self.stream::<S>(y.add(offset), base, bias, delta),
                    (Output::Bf16(y), Some(bias)) => {
                        let (y, bias) = (std::slice::from_raw_parts_mut(y.add(offset), cols), &bias[..cols]);
                        (0..cols).for_each(|j| y[j] = bf16_bits(coefficient(j).mul_add(delta[j], base[j] + bias[j])));
                    }
                    (Output::Bf16(y), None) => {
                        let y = std::slice::from_raw_parts_mut(y.add(offset), cols);
                        (0..cols).for_each(|j| y[j] = bf16_bits(coefficient(j).mul_add(delta[j], base[j])));
                    }
                }
            }
        }
        if let Output::Streamed(_) = self.y {
            S::end_streaming();
        }
    }

    /// One row, past the caches.
    ///
    /// # Safety
    /// `y` is aligned to a cache line; the columns are whole vectors.
    #[inline(always)]
    unsafe fn stream<S: Set>(&self, y: *mut f32, base: &[f32], bias: Option<&[f32]>, delta: &[f32]) {
        let scale = S::splat(self.scale);
        for j in (0..self.lambda_b.len()).step_by(S::LANES) {
            // SAFETY: the slices have these columns.
            unsafe {
                let coefficient = S::mul(scale, S::load(self.lambda_b[j..].as_ptr()));
                let mut sum = S::load(base[j..].as_ptr());
                if let Some(bias) = bias {
                    sum = S::add(sum, S::load(bias[j..].as_ptr()));
                }
                S::stream(S::mul_add(coefficient, S::load(delta[j..].as_ptr()), sum), y.add(j));
            }
        }
    }
}

/// `sum += delta`, for rows of tiles.
pub struct AddTile<'a> {
    pub rows: usize,
    pub cols: usize,
    pub delta: &'a [f32],
    pub sum: &'a mut [f32],
}

impl Kernel for AddTile<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Set>(self) {
        for row in 0..self.rows {
            let delta = &self.delta[row * TILE_STRIDE..][..self.cols];
            let sum = &mut self.sum[row * TILE_STRIDE..][..self.cols];
            (0..self.cols).for_each(|j| sum[j] += delta[j]);
        }
    }
}

/// `sum += left ∘ right`, one fused multiply-add an element.
pub struct AddVectors<'a> {
    pub left: &'a [f32],
    pub right: &'a [f32],
    pub sum: &'a mut [f32],
}

impl Kernel for AddVectors<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Set>(self) {
        let sum = self.sum;
        let (left, right) = (&self.left[..sum.len()], &self.right[..sum.len()]);
        (0..sum.len()).for_each(|j| sum[j] = left[j].mul_add(right[j], sum[j]));
    }
}

/// `totals += Σ over rows of (scale · left) ∘ right`: a column's sum is one chain of fused multiply-adds from zero, its
/// factors with the scale rounded first.
pub struct AddRowProducts<'a> {
    pub scale: f32,
    /// Where the factors of each row lie, as many as there are totals.
    pub left: &'a [*const f32],
    pub right: &'a [*const f32],
    pub totals: &'a mut [f32],
}

impl Kernel for Promised<AddRowProducts<'_>> {
    type Output = ();

    #[inline(always)]
    fn run<S: Set>(mut self) {
        self.0.columns::<S>();
    }
}

impl AddRowProducts<'_> {
    /// # Safety
    /// Every pointer leads to as many factors as there are totals.
    pub unsafe fn run(self, isa: Isa) {
        isa.run(Promised(self));
    }

    #[inline(always)]
    fn columns<S: Set>(&mut self) {
        let cols = self.totals.len();
        let mut first = 0;
        while first + 4 * S::LANES <= cols {
            self.vectors::<S, 4>(first);
            first += 4 * S::LANES;
        }
        while first + S::LANES <= cols {
            self.vectors::<S, 1>(first);
            first += S::LANES;
        }
        for column in first..cols {
            let mut chain = 0.0;
            for (left, right) in self.left.iter().zip(self.right) {
                // SAFETY: the promise of `run`.
                let (left, right) = unsafe { (*left.add(column), *right.add(column)) };
                chain = (self.scale * left).mul_add(right, chain);
            }
            self.totals[column] += chain;
        }
    }

    #[inline(always)]
    fn vectors<S: Set, const COUNT: usize>(&mut self, first: usize) {
        let totals = &mut self.totals[first..][..COUNT * S::LANES];
        let scale = S::splat(self.scale);
        let mut chains = [S::splat(0.0); COUNT];
        for (left, right) in self.left.iter().zip(self.right) {
            for (number, chain) in chains.iter_mut().enumerate() {
                let at = first + number * S::LANES;
                // SAFETY: the promise of `run`.
                let (left, right) = unsafe { (S::load(left.add(at)), S::load(right.add(at))) };
                *chain = S::mul_add(S::mul(scale, left), right, *chain);
            }
        }
        for (total, chain) in totals.chunks_exact_mut(S::LANES).zip(chains) {
            // SAFETY: a chunk is one vector.
            unsafe { S::store(S::add(S::load(total.as_ptr()), chain), total.as_mut_ptr()) };
        }
    }
}

/// `values = (scale · λ_b) ∘ values`.
pub struct Weighted<'a> {
    pub scale: f32,
    pub lambda_b: &'a [f32],
    pub values: &'a mut [f32],
}

impl Kernel for Weighted<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Set>(self) {
        let values = self.values;
        let lambda_b = &self.lambda_b[..values.len()];
        (0..values.len()).for_each(|j| values[j] *= self.scale * lambda_b[j]);
    }
}
