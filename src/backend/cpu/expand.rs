//! `y += λ_b ∘ (z Bᵀ)` from p, with the base product first where the layer has a weight: forward's second half.

use ndarray::{ArrayView2, ArrayViewMut2, s};

use super::groups::{Group, ROW_BLOCK, RowBlock, Tile, blocks};
use super::latent::{self, Overflow};
use super::dense::{Elements, panel_floats, product};
use super::scratch::{Scratch, Sizes};
use crate::backend::Call;
use crate::error::{Code, Error, Result};
use crate::tensor::{Matrix, MatrixMut};

/// Scratch for a tile of `cols` columns.
pub fn sizes(call: &Call<'_>, groups: &[Group<'_>], cols: usize) -> Sizes {
    let rows = ROW_BLOCK.min(call.rows);
    let mut sizes = Sizes { x: rows * call.inputs, delta: rows * cols, sum: 2 * rows * cols, ..Sizes::default() };
    if let Some(base) = &call.base {
        sizes.weight = panel_floats(base, Elements::AsTheyAre);
    }
    for group in groups {
        let term = group.shared();
        sizes = sizes.max(Sizes {
            p: 2 * term.rank(),
            z: rows * term.rank(),
            eps: term.rank(),
            weight: panel_floats(&term.b, Elements::Squared),
            ..Sizes::default()
        });
    }
    sizes
}

/// What a tile of expand reads and writes.
pub struct Job<'a, 'b> {
    pub call: &'b Call<'a>,
    pub groups: &'b [Group<'a>],
    /// Present when the base product is wanted.
    pub x: Option<&'b Matrix<'a>>,
    pub p: &'b Matrix<'a>,
    pub draws: usize,
    /// `[draws·n, out]`.
    pub y: &'b MatrixMut<'a>,
    pub keep: Option<&'b MatrixMut<'a>>,
}

impl Job<'_, '_> {
    pub fn run(&self, tile: &Tile, scratch: &mut Scratch) -> Result<()> {
        let cols = tile.cols.len();
        for rows in blocks(tile.rows.clone()) {
            if let (Some(base), Some(x)) = (self.call.base, self.x) {
                let Scratch { x: copied, sum, weight, .. } = scratch;
                let target = block_mut(&mut sum.0[ROW_BLOCK.min(self.call.rows) * cols..], rows.len(), cols);
                let inputs = inputs_of(x, &RowBlock::Run(rows.clone()), &mut copied.0);
                product(
                    inputs,
                    base.outputs_from(tile.cols.start, cols),
                    Elements::AsTheyAre,
                    target,
                    false,
                    &mut weight.0,
                );
            }
            for draw in 0..self.draws {
                self.draw(draw, rows.clone(), tile, scratch)?;
            }
        }
        Ok(())
    }

    fn draw(&self, draw: usize, rows: std::ops::Range<usize>, tile: &Tile, scratch: &mut Scratch) -> Result<()> {
        let (cols, first) = (tile.cols.len(), draw * self.call.rows);
        let has_base = self.call.base.is_some() && self.x.is_some();
        {
            let (sum, base) = scratch.sum.0.split_at_mut(ROW_BLOCK.min(self.call.rows) * cols);
            for (place, sum) in sum.chunks_exact_mut(cols).take(rows.len()).enumerate() {
                match has_base {
                    true => sum.copy_from_slice(&base[place * cols..][..cols]),
                    false => self.y.as_const().load(first + rows.start + place, tile.cols.start, sum),
                }
                add_bias(self.call, has_base, rows.start + place, tile, sum);
            }
        }
        for group in self.groups {
            let block = group.within(rows.clone());
            if block.len() > 0 {
                self.add_group(group, &block, draw, rows.start, tile, scratch)?;
            }
        }
        for (place, sum) in scratch.sum.0.chunks_exact(cols).take(rows.len()).enumerate() {
            // SAFETY: tiles of one call are disjoint.
            unsafe { self.y.store(first + rows.start + place, tile.cols.start, sum) };
        }
        Ok(())
    }

    /// Adds the deltas of a group's rows to the sums of the block that begins at row `start`.
    fn add_group(
        &self,
        group: &Group<'_>,
        block: &RowBlock<'_>,
        draw: usize,
        start: usize,
        tile: &Tile,
        scratch: &mut Scratch,
    ) -> Result<()> {
        let cols = tile.cols.len();
        draw_latents(self.call, group, block, draw, self.p, scratch)?;
        let Scratch { z, delta, sum, weight, .. } = scratch;
        let shared = group.shared();
        let latents =
            ArrayView2::from_shape((block.len(), shared.rank()), &z.0[..block.len() * shared.rank()]).expect("sized");
        let target = block_mut(&mut delta.0, block.len(), cols);
        product(
            latents,
            shared.b.outputs_from(tile.cols.start, cols),
            Elements::AsTheyAre,
            target,
            false,
            &mut weight.0,
        );
        for (place, delta) in delta.0.chunks_exact(cols).take(block.len()).enumerate() {
            let row = block.row(place);
            let (index, term) = group.term(row);
            if let Some(keep) = self.keep {
                // SAFETY: tiles of one call are disjoint.
                unsafe { keep.store(row, self.call.kept_column(index) + tile.cols.start, delta) };
            }
            add_scaled(
                term.scale,
                &term.lambda_b[tile.cols.clone()],
                delta,
                &mut sum.0[(row - start) * cols..][..cols],
            );
        }
        Ok(())
    }
}

/// `sum += (scale · λ_b) ∘ delta`, one fused multiply-add an element.
pub fn add_scaled(scale: f32, lambda_b: &[f32], delta: &[f32], sum: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        // SAFETY: the features were just found.
        return unsafe { add_scaled_fma(scale, lambda_b, delta, sum) };
    }
    add_scaled_anywhere(scale, lambda_b, delta, sum);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn add_scaled_fma(scale: f32, lambda_b: &[f32], delta: &[f32], sum: &mut [f32]) {
    add_scaled_anywhere(scale, lambda_b, delta, sum);
}

#[inline(always)]
fn add_scaled_anywhere(scale: f32, lambda_b: &[f32], delta: &[f32], sum: &mut [f32]) {
    for ((sum, lambda_b), delta) in sum.iter_mut().zip(lambda_b).zip(delta) {
        *sum = (scale * lambda_b).mul_add(*delta, *sum);
    }
}

/// z of a block's rows into `scratch.z`, noise drawn.
pub fn draw_latents(
    call: &Call<'_>,
    group: &Group<'_>,
    block: &RowBlock<'_>,
    draw: usize,
    p: &Matrix<'_>,
    scratch: &mut Scratch,
) -> Result<()> {
    let rank = group.shared().rank();
    let Scratch { p: projected, z, eps, .. } = scratch;
    for place in 0..block.len() {
        let row = block.row(place);
        let (_, term) = group.term(row);
        // In mean mode the second half of p may never have been written.
        let columns = if term.mode == crate::backend::Mode::Mean { rank } else { 2 * rank };
        p.load(row, term.p_column, &mut projected.0[..columns]);
        latent::noise(call, term, row, draw, &mut eps.0[..rank]);
        let z = &mut z.0[place * rank..][..rank];
        latent::step(term, &projected.0[..columns], &eps.0[..rank], z).map_err(|at| overflow(row, at, "½ logvar"))?;
    }
    Ok(())
}

/// The bias that a row still needs: the learned one, else the layer's own; beside a foreign base, their difference.
fn add_bias(call: &Call<'_>, has_base: bool, row: usize, tile: &Tile, sum: &mut [f32]) {
    const PIECE: usize = 256;
    let learned = call.learned_bias(row).map(|bias| &bias[tile.cols.clone()]);
    let mut own = [0.0; PIECE];
    for (number, sum) in sum.chunks_mut(PIECE).enumerate() {
        let own = &mut own[..sum.len()];
        if let Some(bias) = &call.bias {
            bias.load(0, tile.cols.start + number * PIECE, own);
        }
        let learned = learned.map(|bias| &bias[number * PIECE..][..sum.len()]);
        match (has_base, learned) {
            (true, Some(learned)) => sum.iter_mut().zip(learned).for_each(|(sum, bias)| *sum += bias),
            (true, None) if call.bias.is_some() => sum.iter_mut().zip(own).for_each(|(sum, bias)| *sum += *bias),
            (false, Some(learned)) => {
                sum.iter_mut().zip(learned).zip(own).for_each(|((sum, learned), own)| *sum += learned - *own);
            }
            _ => return,
        }
    }
}

/// A block's rows of x as f32: in place where they lie so, else widened into `copied`.
pub fn inputs_of<'a>(x: &Matrix<'a>, block: &RowBlock<'_>, copied: &'a mut [f32]) -> ArrayView2<'a, f32> {
    match (block, x.as_f32()) {
        (RowBlock::Run(range), Some(view)) => view.slice_move(s![range.clone(), ..]),
        _ => {
            let cols = x.cols();
            for place in 0..block.len() {
                x.load(block.row(place), 0, &mut copied[place * cols..][..cols]);
            }
            ArrayView2::from_shape((block.len(), cols), &copied[..block.len() * cols]).expect("sized")
        }
    }
}

pub fn block_mut(values: &mut [f32], rows: usize, cols: usize) -> ArrayViewMut2<'_, f32> {
    ArrayViewMut2::from_shape((rows, cols), &mut values[..rows * cols]).expect("just cut to size")
}

pub fn overflow(row: usize, at: Overflow, exponent: &str) -> Error {
    let Overflow { latent, logvar } = at;
    Error::new(
        Code::Overflow,
        format!(
            "row {row}, latent {latent}: logvar is {logvar}, and exp({exponent}) does not fit f32; \
             set logvar_bound in the config, or look for a layer whose inputs exploded"
        ),
    )
}
