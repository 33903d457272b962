//! Gradients on the device: dy → g → (dm, dp) → dx, and the sums over rows. Nothing of the caller's is written but by the
//! last kernels of each output.

use super::arguments::{
    Accumulate, DIVERGENCE_THREADS, Deliver, Divergence, ELEMENT_THREADS, KlTotal, LATENT_BLOCK, LATENT_BLOCKS,
    LATENT_THREADS, LATENT_Z, Matrix, Parts, SUM_COLS, SUM_ROWS, Slopes, Sums, Weigh,
};
use super::driver::Address;
use super::forward::Layer;
use super::kernels::Kernel;
use super::prepared::{Group, Operand, Prepared, count};
use super::product::{Job, Room};
use super::turn::{MOST_BLOCKS, Turn, elements};
use crate::backend::{Backward, Call, Gradients, Kl, Overwrite, PriorGradients, TermGradients};
use crate::error::Result;
use crate::memory::Arena;
use crate::tensor::{self, MatrixMut};

pub fn backward(
    turn: &Turn<'_>,
    arena: &Arena,
    group: &Backward<'_>,
    gradients: &mut [Gradients<'_, '_>],
    dx: Option<&MatrixMut<'_>>,
) -> Result<()> {
    let (rows, width) = (group.p.rows(), group.p.cols());
    let (projections, calls) = Prepared::both(turn, arena, group.projections, group.calls)?;
    let dp = Matrix::f32(turn.take_f32(rows, width)?, width);
    // SAFETY: just taken, as large.
    unsafe { turn.zero(dp.data, rows * width)? };
    for (position, prepared) in calls.iter().enumerate() {
        let layer = LayerBack::new(turn, group, position, prepared, dp);
        layer.run(&mut gradients[position])?;
    }
    match dx {
        Some(dx) => inputs(turn, group, calls, projections, dp, dx),
        None => Ok(()),
    }
}

/// One layer on the way back.
struct LayerBack<'s, 'd, 'a> {
    turn: &'s Turn<'d>,
    prepared: &'a Prepared<'a>,
    p: Matrix,
    dy: &'s tensor::Matrix<'s>,
    kept: Option<&'s tensor::Matrix<'s>>,
    dp: Matrix,
    /// The first of the layer's columns of eps, and how many it has.
    latents: (usize, usize),
}

impl<'s, 'd, 'a> LayerBack<'s, 'd, 'a> {
    fn new(
        turn: &'s Turn<'d>,
        group: &'s Backward<'s>,
        position: usize,
        prepared: &'a Prepared<'a>,
        dp: Matrix,
    ) -> Self {
        let latents = prepared.call.latents();
        let kept = group.kept.map(|kept| &kept[position]);
        let (p, dy) = (Matrix::from(&group.p), &group.dy[position]);
        Self { turn, prepared, p, dy, kept, dp, latents }
    }

    fn call(&self) -> &'a Call<'a> {
        self.prepared.call
    }

    fn run(&self, wanted: &mut Gradients<'_, '_>) -> Result<()> {
        let (call, turn) = (self.call(), self.turn);
        let dm_width = 2 * self.latents.1;
        let dm = Matrix::f32(turn.take_f32(call.rows, dm_width)?, dm_width);
        for group in self.prepared.groups {
            let g = self.output_slopes(group)?;
            self.slopes(group, g, dm, wanted)?;
        }
        self.divergence(wanted)?;
        let expanded = match self.kept {
            Some(kept) => Some(Matrix::from(kept)),
            None if wanted.terms.iter().any(|term| term.lambda_b.is_some()) => Some(self.expanded_again()?),
            None => None,
        };
        for (index, targets) in wanted.terms.iter_mut().enumerate() {
            self.sums(index, expanded, dm, targets, wanted.overwrite)?;
        }
        Ok(())
    }

    /// `g = (λ_b ∘ dy) B` of a group's rows.
    fn output_slopes(&self, group: &Group<'_>) -> Result<Parts> {
        let (call, turn, prepared) = (self.call(), self.turn, self.prepared);
        let out = turn.take_f32(call.rows, call.outputs)?;
        let weigh = Weigh {
            dy: Matrix::from(self.dy),
            out,
            out_stride: call.outputs as u64,
            terms: prepared.terms,
            rows: prepared.rows,
            cols: count("out_features", call.outputs)?,
            group: group.index,
            index: group.term,
            reserved: 0,
        };
        let grid = elements(call.rows, call.outputs);
        // SAFETY: dy and out have these rows and columns.
        unsafe { turn.launch(Kernel::Weigh, grid, ELEMENT_THREADS, &weigh)? };
        let weight = turn.b(group.shared)?.transposed();
        let room = Room::new(turn, call.rows, call.outputs, group.shared.rank())?;
        let x = Matrix::f32(out, call.outputs);
        Job { prepared, group: Some(group), x, rows: call.rows, weight, square: false }.run(turn, &room, 0)?;
        Ok(room.view())
    }

    fn slopes(&self, group: &Group<'_>, g: Parts, dm: Matrix, wanted: &Gradients<'_, '_>) -> Result<()> {
        let (call, prepared, rank) = (self.call(), self.prepared, group.shared.rank());
        let slopes = Slopes {
            p: self.p,
            g,
            terms: prepared.terms,
            rows: prepared.rows,
            seed: prepared.seed,
            eps: Matrix::from(call.noise.eps),
            prior_dmu: Matrix::from(wanted.prior.dmu),
            prior_dlogvar: Matrix::from(wanted.prior.dlogvar),
            dm: dm.data,
            dm_stride: dm.stride,
            dp: self.dp.data,
            dp_stride: self.dp.stride,
            fault: self.turn.fault(),
            kl_each: (wanted.kl.weight / self.kl_divisor(wanted)) as f32,
            has_kl: u32::from(wanted.kl.weight != 0.0 || wanted.kl_value_at.is_some()),
            first_latent: count("latents", self.latents.0)?,
            rank: count("the rank", rank)?,
            group: group.index,
            index: group.term,
            antithetic: u32::from(call.noise.antithetic),
            reserved: 0,
        };
        let blocks = rank.div_ceil(LATENT_BLOCK) * call.rows;
        let grid = [blocks.div_ceil(LATENT_BLOCKS), 1, 1];
        // SAFETY: p, g, dm and dp have these rows and the terms' columns.
        unsafe { self.turn.launch(Kernel::Slopes, grid, LATENT_THREADS, &slopes) }
    }

    /// What the divergence is divided by: the latent entries of the call, or 1.
    fn kl_divisor(&self, wanted: &Gradients<'_, '_>) -> f64 {
        if wanted.kl.mean { self.call().latent_entries().max(1) as f64 } else { 1.0 }
    }

    fn divergence(&self, wanted: &Gradients<'_, '_>) -> Result<()> {
        let (call, turn, prepared) = (self.call(), self.turn, self.prepared);
        let Some(value) = wanted.kl_value_at else { return Ok(()) };
        let kl = turn.take(call.rows.max(1) * size_of::<f64>())?;
        // SAFETY: just taken, as large; the caller's place for the value.
        unsafe {
            turn.zero(kl, 2 * call.rows)?;
            for group in prepared.groups {
                let (group, index, terms, rows) = (group.index, group.term, prepared.terms, prepared.rows);
                let divergence = Divergence { p: self.p, terms, rows, kl, group, index };
                turn.launch(Kernel::Divergence, [call.rows, 1, 1], DIVERGENCE_THREADS, &divergence)?;
            }
            let (rows, divisor) = (prepared.rows.count, self.kl_divisor(wanted));
            let total = KlTotal { kl, out: value, divisor, rows, reserved: 0 };
            turn.launch(Kernel::KlTotal, [1, 1, 1], DIVERGENCE_THREADS, &total)
        }
    }

    /// `z Bᵀ`, where the tape did not keep it.
    fn expanded_again(&self) -> Result<Matrix> {
        let p = Parts::whole(self.p.data, self.p.stride as usize);
        let layer = Layer { turn: self.turn, prepared: self.prepared, p, draws: 1, kept: None };
        let delta = layer.expanded(layer.latents(LATENT_Z)?, false)?;
        Ok(Matrix::f32(delta.data, delta.stride as usize))
    }

    fn sums(
        &self,
        index: usize,
        expanded: Option<Matrix>,
        dm: Matrix,
        targets: &mut TermGradients<'_>,
        overwrite: crate::backend::Overwrite,
    ) -> Result<()> {
        let (call, term) = (self.call(), &self.call().terms[index]);
        let dy = Matrix::from(self.dy);
        if let (Some(target), Some(expanded)) = (targets.lambda_b.as_ref(), expanded) {
            let right = expanded.at_column(call.kept_column(index));
            self.sum(index, (dy, right, term.scale), target.data().addr(), call.outputs, overwrite.lambda_b)?;
        }
        if let Some(target) = targets.lambda_d.as_ref() {
            let left = dm.at_column(2 * (term.latent_column - self.latents.0));
            let right = self.p.at_column(term.p_column);
            self.sum(index, (left, right, 1.0), target.data().addr(), 2 * term.rank(), overwrite.lambda_d)?;
        }
        if let Some(target) = targets.bias.as_ref() {
            self.sum(index, (dy, Matrix::ABSENT, 1.0), target.data().addr(), call.outputs, overwrite.bias)?;
        }
        Ok(())
    }

    fn sum(
        &self,
        index: usize,
        (left, right, scale): (Matrix, Matrix, f32),
        target: usize,
        cols: usize,
        overwrite: bool,
    ) -> Result<()> {
        let (turn, rows) = (self.turn, self.call().rows);
        let parts = rows.div_ceil(SUM_ROWS);
        let out = turn.take_f32(parts, cols)?;
        let sums = Sums {
            left,
            right,
            term: self.prepared.members(),
            out,
            part_stride: cols as u64,
            scale,
            rows: self.prepared.rows.count,
            cols: count("columns", cols)?,
            index: index as u32,
        };
        let deliver = Deliver {
            from: out,
            part_stride: cols as u64,
            to: target as Address,
            parts: parts as u32,
            cols: sums.cols,
            overwrite: u32::from(overwrite),
            reserved: 0,
        };
        // SAFETY: both sides have these rows and columns, the target the columns.
        unsafe {
            turn.launch(Kernel::Sums, [cols.div_ceil(SUM_COLS), parts.min(MOST_BLOCKS), 1], SUM_COLS as u32, &sums)?;
            turn.launch(Kernel::Deliver, elements(1, cols), ELEMENT_THREADS, &deliver)
        }
    }
}

/// `dx += Σ over layers dy W + Σ over projections mask ∘ (dp A)`, each product whole before it is added.
fn inputs(
    turn: &Turn<'_>,
    group: &Backward<'_>,
    calls: &[Prepared<'_>],
    projections: &[Prepared<'_>],
    dp: Matrix,
    dx: &MatrixMut<'_>,
) -> Result<()> {
    let (rows, cols) = (dx.rows(), dx.cols());
    let sum = Matrix::f32(turn.take_f32(rows, cols)?, cols);
    let target = Matrix::from(dx);
    let steps = calls.iter().filter(|prepared| prepared.call.base.is_some()).count()
        + projections.iter().map(|prepared| prepared.groups.len()).sum::<usize>();
    let mut done = 0;
    // The first step starts from dx or zero, the last one rounds to dx.
    let mut add = |prepared: &Prepared<'_>, of: Option<&Group<'_>>, parts: Parts| {
        done += 1;
        let from = match (done, group.overwrite_dx) {
            (1, true) => Matrix::ABSENT,
            (1, false) => target,
            _ => sum,
        };
        let noise = &prepared.call.noise;
        let masked = of.is_some_and(|of| noise.dropout_mask.is_some() || of.drops);
        let rows_of = of.map_or(super::arguments::Rows { term: 0, ..prepared.rows }, |_| prepared.rows);
        let accumulate = Accumulate {
            from,
            to: if done == steps { target } else { sum },
            add: parts,
            given: Matrix::from(noise.dropout_mask),
            terms: prepared.terms,
            rows: rows_of,
            seed: prepared.seed,
            in_offset: prepared.call.in_offset as u64,
            cols: count("in_features", cols)?,
            group: of.map_or(0, |of| of.index),
            index: of.map_or(0, |of| of.term),
            masked: u32::from(masked),
        };
        // SAFETY: all have these rows and columns.
        unsafe { turn.launch(Kernel::Accumulate, elements(rows, cols), ELEMENT_THREADS, &accumulate) }
    };
    for (prepared, dy) in calls.iter().zip(group.dy) {
        let Some(base) = prepared.call.base else { continue };
        let weight = Operand::lying(&base.weight).transposed();
        let room = Room::new(turn, rows, dy.cols(), cols)?;
        Job { prepared, group: None, x: Matrix::from(dy), rows, weight, square: false }.run(turn, &room, 0)?;
        add(prepared, None, room.view())?;
    }
    for prepared in projections {
        for of in prepared.groups {
            let weight = turn.a(of.shared)?.transposed();
            let room = Room::new(turn, rows, 2 * of.shared.rank(), cols)?;
            let x = dp.at_column(of.shared.p_column);
            Job { prepared, group: Some(of), x, rows, weight, square: false }.run(turn, &room, 0)?;
            add(prepared, Some(of), room.view())?;
        }
    }
    if steps == 0
        && let Some(prepared) = calls.first()
    {
        // Neither a weight nor an adapter: dx is zero, or stays.
        let from = if group.overwrite_dx { Matrix::ABSENT } else { target };
        let rows_of = super::arguments::Rows { term: 0, ..prepared.rows };
        let accumulate =
            Accumulate { from, to: target, rows: rows_of, cols: count("in_features", cols)?, ..Accumulate::default() };
        // SAFETY: dx has these rows and columns.
        unsafe { turn.launch(Kernel::Accumulate, elements(rows, cols), ELEMENT_THREADS, &accumulate)? };
    }
    Ok(())
}

/// Walks through a backward that is asked for everything.
pub fn dry(turn: &Turn<'_>, arena: &Arena, group: &Backward<'_>, dx: &MatrixMut<'_>) -> Result<()> {
    let mut wanted = arena.list(group.calls.len())?;
    for call in group.calls {
        let terms = arena.collected(call.terms.iter().map(|_| TermGradients::everything()))?;
        let (prior, overwrite) = (PriorGradients::default(), Overwrite::default());
        let kl = Kl::default();
        wanted.push(Gradients { terms, kl, prior, kl_value: None, kl_value_at: Some(0), variance: None, overwrite });
    }
    backward(turn, arena, group, wanted.into_slice(), Some(dx))
}
