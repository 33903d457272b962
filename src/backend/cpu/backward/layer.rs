//! One layer on the way back: what it holds until its sums over rows are taken, and where they go.

use std::cell::UnsafeCell;
use std::ops::Range;

use super::super::Cpu;
use super::super::groups::{Group, ROW_BLOCK};
use super::super::product::{Operand, RowsToPack};
use super::super::reduce::{self, Sums};
use super::super::scratch::{Scratch, Sizes};
use super::super::tile::TILE_STRIDE;
use super::super::workers::Session;
use super::rows::RowJob;
use crate::backend::{Backward, Call, Gradients, Kl, PriorGradients};
use crate::error::Result;
use crate::simd::Isa;
use crate::tensor::{Matrix, MatrixMut};

/// One layer's half of the work, with everything that it accumulates. Nothing of the caller's is written before the end.
pub struct Layer<'g> {
    pub call: &'g Call<'g>,
    pub groups: &'g [LayerGroup<'g>],
    pub p: &'g Matrix<'g>,
    dy: &'g Matrix<'g>,
    kept: Option<&'g Matrix<'g>>,
    pub kl: Kl,
    prior: PriorGradients<'g>,
    /// KL's weight for one latent entry, and what its sum is divided by.
    kl_each: f32,
    kl_divisor: f64,
    pub wants: Wants,
    sums: &'g mut [Sums<'g>],
    /// `z Bᵀ` of a chunk, when the tape did not keep it.
    expanded: MatrixMut<'g>,
    /// (dmu, dlogvar) of a chunk: two halves for each block of the layer's latents. A term without logvar uses the
    /// first.
    dm: MatrixMut<'g>,
    /// Where this layer's latents begin among the group's.
    first_latent: usize,
    latent_width: usize,
    kl_rows: RowValues<'g>,
    /// `g ∘ σ` `[n, latents]`, for the first-order variance.
    slopes: MatrixMut<'g>,
    /// Room for sorting the rows by their noise.
    order: &'g mut [usize],
}

/// A value for each row, or none.
#[derive(Clone, Copy)]
pub struct RowValues<'g>(&'g [UnsafeCell<f64>]);

// SAFETY: a value is written by the task that has its row, and read when all are done.
unsafe impl Sync for RowValues<'_> {}

impl<'g> RowValues<'g> {
    fn new(values: &'g mut [f64]) -> Self {
        // SAFETY: an UnsafeCell has the layout of what it holds, and the exclusive borrow goes on as this one.
        Self(unsafe { &*(std::ptr::from_mut(values) as *const [UnsafeCell<f64>]) })
    }

    /// Adds to a row's value, where there is one.
    ///
    /// # Safety
    /// The caller's task has the row.
    pub unsafe fn add(self, row: usize, value: f64) {
        if let Some(place) = self.0.get(row) {
            // SAFETY: the caller's promise.
            unsafe { *place.get() += value };
        }
    }

    /// # Safety
    /// All tasks are done.
    unsafe fn sum(self) -> f64 {
        // SAFETY: the caller's promise.
        self.0.iter().map(|value| unsafe { *value.get() }).sum()
    }
}

/// What a layer is asked for besides dp.
#[derive(Clone, Copy, Debug)]
pub struct Wants {
    pub expanded: bool,
    pub kl_value: bool,
    pub slopes: bool,
}

impl Wants {
    /// The most that can be asked for.
    pub const ALL: Wants = Wants { expanded: true, kl_value: true, slopes: true };

    pub fn of(group: &Backward<'_>, wanted: &Gradients<'_, '_>) -> Self {
        Self {
            expanded: group.kept.is_none() && wanted.terms.iter().any(|term| term.lambda_b.is_some()),
            kl_value: wanted.kl_value.is_some(),
            slopes: wanted.variance.is_some(),
        }
    }
}

/// Rows that share a pair of projections, with B packed both ways.
pub struct LayerGroup<'g> {
    pub group: &'g Group<'g>,
    pub b: Operand<'g>,
    pub b_transposed: Operand<'g>,
}

impl<'g> Layer<'g> {
    /// f32 that a layer holds for a chunk of rows.
    pub fn held_floats(call: &Call<'_>, wants: Wants, chunk: usize) -> usize {
        let latents = call.latents().1;
        let expanded = if wants.expanded { chunk * call.kept_width() } else { 0 };
        let slopes = if wants.slopes { call.rows * latents } else { 0 };
        expanded + chunk * 2 * latents + slopes
    }

    pub fn new<'x: 'g>(
        cpu: &Cpu<'g>,
        group: &'g Backward<'g>,
        position: usize,
        wanted: &Gradients<'x, '_>,
        chunk: usize,
        held: &'g mut [f32],
    ) -> Result<Self> {
        let (arena, call) = (cpu.arena, &group.calls[position]);
        let mut groups = arena.list(call.terms.len())?;
        for group in Group::of(call, arena)? {
            let pair = group.shared().pair;
            groups.push(LayerGroup { group, b: pair.expansion()?, b_transposed: pair.expansion_transposed()? });
        }
        let mut sums = arena.list(call.terms.len())?;
        for (term, targets) in call.terms.iter().zip(wanted.terms.iter()) {
            sums.push(Sums::new(arena, term.width(), call.outputs, targets)?);
        }
        let wants = Wants::of(group, wanted);
        let (first_latent, latent_width) = call.latents();
        let (expanded_rows, slope_rows) =
            (if wants.expanded { chunk } else { 0 }, if wants.slopes { call.rows } else { 0 });
        let (expanded, rest) = held.split_at_mut(expanded_rows * call.kept_width());
        let (dm, slopes) = rest.split_at_mut(chunk * 2 * latent_width);
        slopes.fill(0.0);
        let kl_divisor = if wanted.kl.mean { call.latent_entries().max(1) as f64 } else { 1.0 };
        Ok(Self {
            call,
            groups: groups.into_slice(),
            p: &group.p,
            dy: &group.dy[position],
            kept: group.kept.map(|kept| &kept[position]),
            kl: wanted.kl,
            prior: wanted.prior,
            kl_each: (wanted.kl.weight / kl_divisor) as f32,
            kl_divisor,
            wants,
            sums: sums.into_slice(),
            expanded: MatrixMut::from_f32(expanded, expanded_rows, call.kept_width()),
            dm: MatrixMut::from_f32(dm, chunk, 2 * latent_width),
            first_latent,
            latent_width,
            kl_rows: RowValues::new(arena.filled(0.0, if wants.kl_value { call.rows } else { 0 })?),
            slopes: MatrixMut::from_f32(slopes, slope_rows, latent_width),
            order: arena.filled(0, slope_rows)?,
        })
    }

    /// Whether `exp(logvar)` itself is needed.
    pub fn needs_kl(&self) -> bool {
        self.kl.weight != 0.0 || self.wants.kl_value
    }

    /// What a block of rows of such a layer works in.
    pub fn sizes(call: &Call<'_>) -> Sizes {
        let rows = ROW_BLOCK.min(call.rows);
        let rank = call.terms.iter().map(|term| term.rank()).max().unwrap_or(0);
        Sizes {
            gathered: RowsToPack::floats(rows, call.outputs),
            z: RowsToPack::floats(rows, rank).max(rows * rank),
            vectors: 5 * rank,
            delta: rows * TILE_STRIDE,
            ..Sizes::default()
        }
    }

    /// One block of rows: dp is added to, dm and `z Bᵀ` are held.
    pub fn block(
        &self,
        isa: Isa,
        start: usize,
        block: &Range<usize>,
        dp: &MatrixMut<'_>,
        scratch: &mut Scratch,
    ) -> Result<()> {
        let job = RowJob {
            isa,
            call: self.call,
            p: self.p,
            dy: self.dy,
            kl_each: self.needs_kl().then_some(self.kl_each),
            prior: self.prior,
            start,
            dp: (dp, block.start),
            dm: &self.dm,
            first_latent: self.first_latent,
            expanded: self.wants.expanded.then_some(&self.expanded),
            slopes: self.wants.slopes.then_some(&self.slopes),
            kl_rows: self.kl_rows,
        };
        for of in self.groups {
            let rows = of.group.within(block.clone());
            if rows.len() > 0 {
                job.run(of, &rows, scratch)?;
            }
        }
        Ok(())
    }

    /// The sums over the rows of a chunk.
    pub fn add_sums(&mut self, isa: Isa, session: &Session<'_>, rows: Range<usize>) -> Result<()> {
        for (index, sums) in self.sums.iter_mut().enumerate() {
            let column = self.call.kept_column(index);
            let expanded = match self.kept {
                Some(kept) => (*kept, 0, column),
                None => (self.expanded.as_const(), rows.start, column),
            };
            let source = reduce::Source {
                call: self.call,
                index,
                rows: rows.clone(),
                p: self.p,
                dy: self.dy,
                expanded,
                dm: (self.dm.as_const(), rows.start, self.first_latent),
            };
            sums.add(isa, session, &source)?;
        }
        Ok(())
    }

    /// Writes the caller's outputs.
    pub fn deliver(&mut self, wanted: &mut Gradients<'_, '_>) {
        if let Some(value) = wanted.kl_value.as_deref_mut() {
            // SAFETY: all tasks are done.
            *value = unsafe { self.kl_rows.sum() } / self.kl_divisor;
        }
        if let Some(variance) = &mut wanted.variance {
            reduce::add_variance(self.call, &self.slopes.as_const(), self.latent_width, self.order, variance);
        }
        for (sums, targets) in self.sums.iter().zip(wanted.terms.iter_mut()) {
            sums.deliver(targets, wanted.overwrite);
        }
    }
}
