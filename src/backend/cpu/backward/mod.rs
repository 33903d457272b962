//! Gradients of a group of layers: the mirror of expand (dy → dp and the vectors' gradients), then of project (dp → dx).

mod inputs;
mod rows;

use super::Cpu;
use super::float_mode::FloatMode;
use super::groups::{Group, ROW_BLOCK, blocks, tile};
use super::dense::{Elements, panel_floats};
use super::reduce::{self, Sums};
use super::scratch::Sizes;
use crate::backend::{Backward, Call, Gradients, Kl, PriorGradients};
use crate::error::Result;
use crate::memory::Arena;
use crate::tensor::{Matrix, MatrixMut};
use rows::{RowJob, SharedRows};

/// Rows whose `z Bᵀ` and dm are held until their sums are taken: a multiple of the sums' block.
const CHUNK: usize = 8 * reduce::ROWS;

pub fn backward(
    cpu: &Cpu<'_>,
    group: &Backward<'_>,
    gradients: &mut [Gradients<'_, '_>],
    dx: Option<&MatrixMut<'_>>,
) -> Result<()> {
    // What is added up outside the workers obeys the same rules as inside.
    let _mode = FloatMode::enter();
    let (rows, width) = (group.p.rows(), group.p.cols());
    let mut dp_values = cpu.workers.lend_zeroed(rows * width)?;
    let dp = MatrixMut::from_f32(&mut dp_values, rows, width);
    let mut layers = cpu.arena.list(group.calls.len())?;
    for (position, call) in group.calls.iter().enumerate() {
        layers.push(Layer::new(cpu.arena, group, position, call, &gradients[position])?);
    }
    for layer in layers.iter_mut() {
        layer.run(cpu, &dp)?;
    }
    if let Some(dx) = dx {
        inputs::input_gradient(cpu, group, &dp.as_const(), dx)?;
    }
    for (layer, wanted) in layers.iter_mut().zip(gradients) {
        layer.deliver(wanted);
    }
    Ok(())
}

/// One layer's half of the work, with everything that it accumulates. Nothing of the caller's is written before the end.
struct Layer<'g> {
    call: &'g Call<'g>,
    groups: &'g [Group<'g>],
    p: &'g Matrix<'g>,
    dy: &'g Matrix<'g>,
    kept: Option<&'g Matrix<'g>>,
    kl: Kl,
    prior: PriorGradients<'g>,
    /// KL's weight for one latent entry, and what its sum is divided by.
    kl_each: f32,
    kl_divisor: f64,
    sums: &'g mut [Sums<'g>],
    /// `z Bᵀ` of a chunk, when the tape did not keep it.
    expanded: &'g mut [f32],
    /// (dmu, dlogvar) of a chunk: two halves for each block of latents.
    dm: &'g mut [f32],
    latent_width: usize,
    kl_rows: &'g mut [f64],
    /// `g ∘ σ` `[n, latents]`, for the first-order variance.
    slopes: &'g mut [f32],
    /// Room for sorting the rows by their noise.
    order: &'g mut [usize],
}

impl<'g> Layer<'g> {
    fn new<'x: 'g>(
        arena: &'g Arena,
        group: &'g Backward<'g>,
        position: usize,
        call: &'g Call<'g>,
        wanted: &Gradients<'x, '_>,
    ) -> Result<Self> {
        let groups = Group::of(call, arena)?;
        let entries: usize = groups.iter().map(|group| group.within(0..call.rows).len() * group.shared().rank()).sum();
        let latent_width = call.terms.iter().map(|term| term.latent_column + term.rank()).max().unwrap_or(0);
        let kept = group.kept.map(|kept| &kept[position]);
        let chunk = CHUNK.min(call.rows);
        let needs_expanded = kept.is_none() && wanted.terms.iter().any(|term| term.lambda_b.is_some());
        let mut sums = arena.list(call.terms.len())?;
        for (term, targets) in call.terms.iter().zip(wanted.terms.iter()) {
            sums.push(Sums::new(arena, term.rank(), call.outputs, targets)?);
        }
        let sorted_rows = if wanted.variance.is_some() { call.rows } else { 0 };
        let kl_divisor = if wanted.kl.mean { entries.max(1) as f64 } else { 1.0 };
        let wants_kl = wanted.kl_value.is_some();
        Ok(Self {
            call,
            groups,
            p: &group.p,
            dy: &group.dy[position],
            kept,
            kl: wanted.kl,
            prior: wanted.prior,
            kl_each: (wanted.kl.weight / kl_divisor) as f32,
            kl_divisor,
            sums: sums.into_slice(),
            expanded: arena.filled(0.0, if needs_expanded { chunk * call.kept_width() } else { 0 })?,
            dm: arena.filled(0.0, chunk * 2 * latent_width)?,
            latent_width,
            kl_rows: arena.filled(0.0, if wants_kl { call.rows } else { 0 })?,
            order: arena.filled(0, sorted_rows)?,
            slopes: arena.filled(0.0, sorted_rows * latent_width)?,
        })
    }

    fn sizes(&self) -> Sizes {
        let rows = ROW_BLOCK.min(self.call.rows);
        let mut sizes = Sizes { x: rows * self.call.outputs, delta: rows * self.call.outputs, ..Sizes::default() };
        for group in self.groups {
            let rank = group.shared().rank();
            sizes = sizes.max(Sizes {
                p: 4 * rank,
                z: (rows * rank).max(2 * rank),
                eps: rank,
                sum: rows * rank,
                weight: panel_floats(&group.shared().b, Elements::AsTheyAre)
                    .max(panel_floats(&group.shared().b.transposed(), Elements::AsTheyAre)),
                ..Sizes::default()
            });
        }
        sizes
    }

    /// Chunk by chunk: rows in parallel (dp, dm, z Bᵀ), then their sums.
    fn run(&mut self, cpu: &Cpu<'_>, dp: &MatrixMut<'_>) -> Result<()> {
        for start in (0..self.call.rows).step_by(CHUNK) {
            let rows = CHUNK.min(self.call.rows - start);
            self.rows(cpu, dp, start, rows)?;
            let width = self.call.kept_width();
            for (index, sums) in self.sums.iter_mut().enumerate() {
                let column = self.call.kept_column(index);
                let source = reduce::Source {
                    call: self.call,
                    index,
                    start,
                    rows,
                    p: self.p,
                    dy: self.dy,
                    dm: &*self.dm,
                    dm_width: 2 * self.latent_width,
                };
                match self.kept {
                    Some(kept) => sums.add(cpu, &source, |row, out| kept.load(row, column + out.0, out.1))?,
                    None => {
                        let expanded = &*self.expanded;
                        let read = |row: usize, out: (usize, &mut [f32])| {
                            let from = (row - start) * width + column + out.0;
                            out.1.copy_from_slice(&expanded[from..][..out.1.len()]);
                        };
                        sums.add(cpu, &source, read)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn rows(&mut self, cpu: &Cpu<'_>, dp: &MatrixMut<'_>, start: usize, rows: usize) -> Result<()> {
        let (call, sizes) = (self.call, self.sizes());
        let (kept_width, dm_width) = (call.kept_width(), 2 * self.latent_width);
        let wants = Wants {
            expanded: !self.expanded.is_empty(),
            kl_rows: !self.kl_rows.is_empty(),
            slopes: !self.slopes.is_empty(),
        };
        let expanded = MatrixMut::from_f32(self.expanded, if wants.expanded { rows } else { 0 }, kept_width);
        let dm = MatrixMut::from_f32(self.dm, rows, dm_width);
        let slopes = MatrixMut::from_f32(self.slopes, if wants.slopes { call.rows } else { 0 }, self.latent_width);
        let kl_rows = SharedRows(self.kl_rows.as_mut_ptr());
        let job = RowJob {
            call,
            p: self.p,
            dy: self.dy,
            kl_each: self.kl_each,
            needs_kl: self.kl.weight != 0.0 || wants.kl_rows,
            prior: self.prior,
            start,
            dp,
            dm: &dm,
            expanded: wants.expanded.then_some(&expanded),
            slopes: wants.slopes.then_some(&slopes),
            kl_rows: wants.kl_rows.then_some(&kl_rows),
        };
        let groups = self.groups;
        let count = cpu.workers.lanes().min(rows);
        cpu.workers.run(count, sizes, |index, scratch| {
            let share = tile(rows, 1, index, count).rows;
            for block in blocks(start + share.start..start + share.end) {
                for group in groups {
                    let rows = group.within(block.clone());
                    if rows.len() > 0 {
                        job.run(group, &rows, scratch)?;
                    }
                }
            }
            Ok(())
        })
    }

    /// Writes the caller's outputs.
    fn deliver(&mut self, wanted: &mut Gradients<'_, '_>) {
        if let Some(value) = wanted.kl_value.as_deref_mut() {
            *value = self.kl_rows.iter().sum::<f64>() / self.kl_divisor;
        }
        if let Some(variance) = &mut wanted.variance {
            reduce::add_variance(self.call, self.slopes, self.latent_width, self.order, variance);
        }
        for (sums, targets) in self.sums.iter().zip(wanted.terms.iter_mut()) {
            sums.deliver(targets, wanted.overwrite);
        }
    }
}

struct Wants {
    expanded: bool,
    kl_rows: bool,
    slopes: bool,
}
