//! Gradients of a group of layers: the mirror of expand (dy → dp and the vectors' gradients), then of project (dp → dx).

use ndarray::ArrayView2;

use super::Cpu;
use super::expand::{add_scaled, block_mut, draw_latents, inputs_of, overflow};
use super::groups::{Group, ROW_BLOCK, RowBlock, Tile, blocks, tile};
use super::latent;
use super::product::{Elements, panel_floats, product};
use super::project::{mask_row, masked};
use super::reduce::{self, Sums};
use super::scratch::{Scratch, Sizes};
use super::workers::Lent;
use crate::backend::{Backward, Call, Gradients, Kl, PriorGradients};
use crate::error::{Error, Result};
use crate::memory::Buffer;
use crate::tensor::{Matrix, MatrixMut};

/// Rows whose `z Bᵀ` and dm are held until their sums are taken: a multiple of the sums' block.
const CHUNK: usize = 8 * reduce::ROWS;

pub fn backward(
    cpu: &Cpu<'_>,
    group: &Backward<'_>,
    gradients: &mut [Gradients<'_, '_>],
    dx: Option<&MatrixMut<'_>>,
) -> Result<()> {
    let (rows, width) = (group.p.rows(), group.p.cols());
    let mut dp_values = cpu.workers.lend_zeroed(rows * width)?;
    let dp = MatrixMut::from_f32(&mut dp_values, rows, width);
    let mut layers = Vec::new();
    layers.try_reserve(group.calls.len()).map_err(|_| Error::out_of_memory())?;
    for (position, call) in group.calls.iter().enumerate() {
        layers.push(Layer::new(cpu, group, position, call, &gradients[position])?);
    }
    for layer in &mut layers {
        layer.run(cpu, &dp)?;
    }
    if let Some(dx) = dx {
        input_gradient(cpu, group, &dp.as_const(), dx)?;
    }
    for (layer, wanted) in layers.iter_mut().zip(gradients) {
        layer.deliver(wanted)?;
    }
    Ok(())
}

/// One layer's half of the work, with everything that it accumulates. Nothing of the caller's is written before the end.
struct Layer<'a, 'g, 'w> {
    call: &'g Call<'a>,
    groups: Vec<Group<'a>>,
    p: &'g Matrix<'a>,
    dy: &'g Matrix<'a>,
    kept: Option<&'g Matrix<'a>>,
    kl: Kl,
    prior: PriorGradients<'g>,
    /// KL's weight for one latent entry, and what its sum is divided by.
    kl_each: f32,
    kl_divisor: f64,
    sums: Vec<Sums>,
    /// `z Bᵀ` of a chunk, when the tape did not keep it.
    expanded: Lent<'w>,
    /// (dmu, dlogvar) of a chunk: two halves for each block of latents.
    dm: Lent<'w>,
    latent_width: usize,
    kl_rows: Buffer<f64>,
    /// `g ∘ σ` `[n, latents]`, for the first-order variance.
    slopes: Lent<'w>,
}

impl<'a, 'g, 'w> Layer<'a, 'g, 'w> {
    fn new<'x: 'g>(
        cpu: &Cpu<'w>,
        group: &'g Backward<'a>,
        position: usize,
        call: &'g Call<'a>,
        wanted: &Gradients<'x, '_>,
    ) -> Result<Self> {
        let allocator = cpu.workers.allocator();
        let groups = Group::of(call)?;
        let entries: usize = groups.iter().map(|group| group.within(0..call.rows).len() * group.shared().rank()).sum();
        let latent_width = call.terms.iter().map(|term| term.latent_column + term.rank()).max().unwrap_or(0);
        let kept = group.kept.map(|kept| &kept[position]);
        let chunk = CHUNK.min(call.rows);
        let needs_expanded = kept.is_none() && wanted.terms.iter().any(|term| term.lambda_b.is_some());
        let mut sums = Vec::new();
        sums.try_reserve(call.terms.len()).map_err(|_| Error::out_of_memory())?;
        for (term, targets) in call.terms.iter().zip(wanted.terms.iter()) {
            sums.push(Sums::new(allocator, term.rank(), call.outputs, targets)?);
        }
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
            sums,
            expanded: cpu.workers.lend(if needs_expanded { chunk * call.kept_width() } else { 0 })?,
            dm: cpu.workers.lend(chunk * 2 * latent_width)?,
            latent_width,
            kl_rows: Buffer::zeroed(allocator, if wants_kl { call.rows } else { 0 })?,
            slopes: cpu.workers.lend_zeroed(if wanted.variance.is_some() { call.rows * latent_width } else { 0 })?,
        })
    }

    fn sizes(&self) -> Sizes {
        let rows = ROW_BLOCK.min(self.call.rows);
        let mut sizes = Sizes { x: rows * self.call.outputs, delta: rows * self.call.outputs, ..Sizes::default() };
        for group in &self.groups {
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
                    dm: &self.dm,
                    dm_width: 2 * self.latent_width,
                };
                match self.kept {
                    Some(kept) => sums.add(cpu, &source, |row, out| kept.load(row, column + out.0, out.1))?,
                    None => {
                        let expanded = &self.expanded;
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
        let expanded = MatrixMut::from_f32(&mut self.expanded, if wants.expanded { rows } else { 0 }, kept_width);
        let dm = MatrixMut::from_f32(&mut self.dm, rows, dm_width);
        let slopes = MatrixMut::from_f32(&mut self.slopes, if wants.slopes { call.rows } else { 0 }, self.latent_width);
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
        let groups = &self.groups;
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
    fn deliver(&mut self, wanted: &mut Gradients<'_, '_>) -> Result<()> {
        if let Some(value) = wanted.kl_value.as_deref_mut() {
            *value = self.kl_rows.iter().sum::<f64>() / self.kl_divisor;
        }
        if let Some(variance) = &mut wanted.variance {
            reduce::add_variance(self.call, &self.slopes, self.latent_width, variance)?;
        }
        for (sums, targets) in self.sums.iter().zip(wanted.terms.iter_mut()) {
            sums.deliver(targets, wanted.overwrite);
        }
        Ok(())
    }
}

struct Wants {
    expanded: bool,
    kl_rows: bool,
    slopes: bool,
}

/// One f64 a row; tasks write disjoint rows.
struct SharedRows(*mut f64);

// SAFETY: each row belongs to one task.
unsafe impl Sync for SharedRows {}

struct RowJob<'a, 'g> {
    call: &'g Call<'a>,
    p: &'g Matrix<'a>,
    dy: &'g Matrix<'a>,
    kl_each: f32,
    needs_kl: bool,
    prior: PriorGradients<'g>,
    start: usize,
    dp: &'g MatrixMut<'g>,
    dm: &'g MatrixMut<'g>,
    expanded: Option<&'g MatrixMut<'g>>,
    slopes: Option<&'g MatrixMut<'g>>,
    kl_rows: Option<&'g SharedRows>,
}

impl RowJob<'_, '_> {
    fn run(&self, group: &Group<'_>, block: &RowBlock<'_>, scratch: &mut Scratch) -> Result<()> {
        let (outputs, rank, shared) = (self.call.outputs, group.shared().rank(), group.shared());
        if let Some(expanded) = self.expanded {
            draw_latents(self.call, group, block, 0, self.p, scratch)?;
            let Scratch { z, delta, weight, .. } = scratch;
            let latents = ArrayView2::from_shape((block.len(), rank), &z.0[..block.len() * rank]).expect("sized");
            product(
                latents,
                shared.b,
                Elements::AsTheyAre,
                block_mut(&mut delta.0, block.len(), outputs),
                false,
                &mut weight.0,
            );
            for (place, delta) in delta.0.chunks_exact(outputs).take(block.len()).enumerate() {
                let row = block.row(place);
                // SAFETY: each row belongs to one task.
                unsafe { expanded.store(row - self.start, self.call.kept_column(group.term(row).0), delta) };
            }
        }
        let Scratch { x: weighted, sum: g, weight, .. } = &mut *scratch;
        for (place, weighted) in weighted.0.chunks_exact_mut(outputs).take(block.len()).enumerate() {
            let (_, term) = group.term(block.row(place));
            self.dy.load(block.row(place), 0, weighted);
            weighted.iter_mut().zip(term.lambda_b).for_each(|(value, lambda_b)| *value *= term.scale * lambda_b);
        }
        let weighted =
            ArrayView2::from_shape((block.len(), outputs), &weighted.0[..block.len() * outputs]).expect("sized");
        let target = block_mut(&mut g.0, block.len(), rank);
        product(weighted, shared.b.transposed(), Elements::AsTheyAre, target, false, &mut weight.0);
        for place in 0..block.len() {
            self.row(group, block.row(place), place * rank, scratch)?;
        }
        Ok(())
    }

    /// From g of one row (at `from` in `scratch.sum`) to dm, dp, the slopes and the KL of the row.
    fn row(&self, group: &Group<'_>, row: usize, from: usize, scratch: &mut Scratch) -> Result<()> {
        let (_, term) = group.term(row);
        let rank = term.rank();
        let Scratch { p, z: dm, eps, sum: g, .. } = scratch;
        let (p, rest) = p.0.split_at_mut(2 * rank);
        let (mu, logvar) = rest[..2 * rank].split_at_mut(rank);
        let (g, eps) = (&g.0[from..][..rank], &mut eps.0[..rank]);
        self.p.load(row, term.p_column, p);
        latent::latents(term, p, mu, logvar);
        latent::noise(self.call, term, row, 0, eps);
        let (dmu, dlogvar) = dm.0[..2 * rank].split_at_mut(rank);
        let slope = latent::Slope {
            mode: term.mode,
            mu,
            logvar,
            g,
            kl_each: self.needs_kl.then_some(self.kl_each),
            wants_slopes: self.slopes.is_some(),
        };
        let divergence = slope.gradients(eps, dmu, dlogvar).map_err(|(at, what)| overflow(row, at, what))?;
        if let Some(slopes) = self.slopes {
            // SAFETY: each row belongs to one task; its terms have columns of their own.
            unsafe { slopes.store(row, term.latent_column, eps) };
        }
        if let Some(kl_rows) = self.kl_rows {
            // SAFETY: below call.rows; each row belongs to one task.
            unsafe { *kl_rows.0.add(row) += divergence };
        }
        self.add_prior(term.latent_column, row, dmu, dlogvar, eps);
        for k in 0..rank {
            if term.lambda_d[rank + k] * p[rank + k] > term.logvar_bound {
                dlogvar[k] = 0.0;
            }
        }
        // SAFETY: each row belongs to one task.
        unsafe { self.dm.store(row - self.start, 2 * term.latent_column, &dm.0[..2 * rank]) };
        self.add_dp(term.p_column, row, term.lambda_d, &dm.0[..2 * rank], p);
        Ok(())
    }

    fn add_prior(&self, column: usize, row: usize, dmu: &mut [f32], dlogvar: &mut [f32], more: &mut [f32]) {
        for (given, target) in [(self.prior.dmu, dmu), (self.prior.dlogvar, dlogvar)] {
            if let Some(given) = given {
                given.load(row, column, more);
                target.iter_mut().zip(more.iter()).for_each(|(value, more)| *value += more);
            }
        }
    }

    /// `dp += λ_d ∘ dm`: terms and layers that share a projection add up.
    fn add_dp(&self, column: usize, row: usize, lambda_d: &[f32], dm: &[f32], dp: &mut [f32]) {
        self.dp.as_const().load(row, column, dp);
        add_scaled(1.0, lambda_d, dm, dp);
        // SAFETY: each row belongs to one task.
        unsafe { self.dp.store(row, column, dp) };
    }
}

/// `dx += Σ over layers dy W + mask ∘ (dp A)`.
fn input_gradient(cpu: &Cpu<'_>, group: &Backward<'_>, dp: &Matrix<'_>, dx: &MatrixMut<'_>) -> Result<()> {
    let (rows, inputs) = (dx.rows(), dx.cols());
    let mut projections = Vec::new();
    projections.try_reserve(group.projections.len()).map_err(|_| Error::out_of_memory())?;
    for call in group.projections {
        projections.push((call, Group::of(call)?));
    }
    let height = ROW_BLOCK.min(rows);
    let outputs = group.calls.iter().map(|call| call.outputs).max().unwrap_or(0);
    let mut sizes = Sizes { x: height * outputs, sum: height * inputs, delta: height * inputs, ..Sizes::default() };
    for (_, groups) in &projections {
        for group in groups {
            let term = group.shared();
            sizes.p = sizes.p.max(height * 2 * term.rank());
            sizes.weight = sizes.weight.max(panel_floats(&term.a.transposed(), Elements::AsTheyAre));
        }
    }
    for base in group.calls.iter().filter_map(|call| call.base) {
        sizes.weight = sizes.weight.max(panel_floats(&base.transposed(), Elements::AsTheyAre));
    }
    let count = cpu.workers.lanes();
    cpu.workers.run(count, sizes, |index, scratch| {
        let share = tile(rows, inputs, index, count);
        for block in blocks(share.rows.clone()) {
            input_block(group, &projections, dp, dx, &block, &share, scratch);
        }
        Ok(())
    })
}

fn input_block(
    group: &Backward<'_>,
    projections: &[(&Call<'_>, Vec<Group<'_>>)],
    dp: &Matrix<'_>,
    dx: &MatrixMut<'_>,
    block: &std::ops::Range<usize>,
    share: &Tile,
    scratch: &mut Scratch,
) {
    let (cols, first) = (share.cols.len(), share.cols.start);
    if cols == 0 {
        return;
    }
    let Scratch { x: copied, p, delta, sum, weight, .. } = scratch;
    for (place, row) in block.clone().enumerate() {
        let sum = &mut sum.0[place * cols..][..cols];
        if group.overwrite_dx { sum.fill(0.0) } else { dx.as_const().load(row, first, sum) }
    }
    for (call, dy) in group.calls.iter().zip(group.dy) {
        if let Some(base) = call.base {
            let dy = inputs_of(dy, &RowBlock::Run(block.clone()), &mut copied.0);
            let target = block_mut(&mut sum.0, block.len(), cols);
            product(dy, base.transposed().outputs_from(first, cols), Elements::AsTheyAre, target, true, &mut weight.0);
        }
    }
    for (call, groups) in projections {
        for group in groups {
            let (rows, term) = (group.within(block.clone()), group.shared());
            let width = 2 * term.rank();
            for place in 0..rows.len() {
                dp.load(rows.row(place), term.p_column, &mut p.0[place * width..][..width]);
            }
            let dp = ArrayView2::from_shape((rows.len(), width), &p.0[..rows.len() * width]).expect("sized");
            let a = term.a.transposed().outputs_from(first, cols);
            product(dp, a, Elements::AsTheyAre, block_mut(&mut delta.0, rows.len(), cols), false, &mut weight.0);
            for (place, delta) in delta.0.chunks_exact_mut(cols).take(rows.len()).enumerate() {
                let row = rows.row(place);
                if masked(call, group) {
                    mask_row(call, group, row, first, delta);
                }
                let sum = &mut sum.0[(row - block.start) * cols..][..cols];
                sum.iter_mut().zip(delta).for_each(|(sum, delta)| *sum += *delta);
            }
        }
    }
    for (place, sum) in sum.0.chunks_exact(cols).take(block.len()).enumerate() {
        // SAFETY: tiles of one call are disjoint.
        unsafe { dx.store(block.start + place, first, sum) };
    }
}
