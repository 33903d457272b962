//! Forward on the device: x → p → z → z Bᵀ → y, each a few kernels, and what moments and latents share with it.

use super::arguments::{
    ELEMENT_THREADS, Finish, LATENT_BLOCK, LATENT_BLOCKS, LATENT_MOMENTS, LATENT_THREADS, LATENT_VARIANCE, LATENT_Z,
    Latent, Mask, Matrix, Parts, START_BASE, START_Y, START_ZERO,
};
use super::driver::Address;
use super::kernels::Kernel;
use super::prepared::{Group, Operand, Prepared, count};
use super::product::{Job, MOST_ROWS, Room};
use super::turn::{Turn, elements};
use crate::backend::{Call, Expand, Forward, Scope};
use crate::error::Result;
use crate::fail;
use crate::memory::Arena;
use crate::tensor::{self, MatrixMut};

pub fn forward(turn: &Turn<'_>, arena: &Arena, forward: &Forward<'_>, y: &[MatrixMut<'_>]) -> Result<()> {
    check_rows(forward.calls, forward.draws)?;
    let (projections, calls) = Prepared::both(turn, arena, forward.projections, forward.calls)?;
    let p = project(turn, projections, &forward.x, forward.scope, forward.width, forward.p)?;
    for (position, prepared) in calls.iter().enumerate() {
        let layer = Layer {
            turn,
            prepared,
            p,
            draws: forward.draws,
            kept: forward.keep.map(|keep| Matrix::from(&keep[position])),
        };
        layer.expand(Some(&forward.x), &y[position])?;
    }
    Ok(())
}

/// A grid has no more blocks of rows. Told before anything is queued.
pub fn check_rows(calls: &[Call<'_>], draws: usize) -> Result<()> {
    let rows = calls.iter().map(|call| call.rows.saturating_mul(draws)).max().unwrap_or(0);
    if rows > MOST_ROWS {
        fail!(Unsupported, "{rows} rows times draws in one call; CUDA kernels take at most {MOST_ROWS}");
    }
    Ok(())
}

/// p of a step's calls: in parts where it was split, and whole in `kept` where that is given.
pub fn project(
    turn: &Turn<'_>,
    projections: &[Prepared<'_>],
    x: &tensor::Matrix<'_>,
    scope: Scope,
    width: usize,
    kept: Option<&MatrixMut<'_>>,
) -> Result<Parts> {
    let (rows, inputs) = (x.rows(), x.cols());
    // The stride of a single row does not matter, and may be anything.
    let kept = kept.map(Matrix::from).map(|kept| Matrix { stride: kept.stride.max(width as u64), ..kept });
    // Where one part is all there is, it goes where it is kept.
    let room = match kept {
        Some(kept) if super::product::parts(turn, rows, inputs, width) == 1 => Room::whole(kept, rows),
        _ => Room::new(turn, rows, inputs, width)?,
    };
    for prepared in projections {
        for group in prepared.groups {
            let halves = if scope == Scope::All || group.samples { 2 } else { 1 };
            let outputs = halves * group.shared.rank();
            let x = masked_inputs(turn, prepared, group, x)?;
            let weight = turn.a(group.shared)?.first_outputs(outputs);
            let job = Job { prepared, group: Some(group), x, rows, weight, square: false };
            job.run(turn, &room, group.shared.p_column)?;
            if let Some(kept) = kept.filter(|_| room.parts > 1) {
                let column = group.shared.p_column;
                job.combine(turn, room.view().at_column(column), kept.at_column(column), outputs)?;
            }
        }
    }
    Ok(kept.map_or(room, |kept| Room::whole(kept, rows)).view())
}

/// x as a group's product reads it: masked where the group drops inputs.
fn masked_inputs(
    turn: &Turn<'_>,
    prepared: &Prepared<'_>,
    group: &Group<'_>,
    x: &tensor::Matrix<'_>,
) -> Result<Matrix> {
    let call = prepared.call;
    if call.noise.dropout_mask.is_none() && !group.drops {
        return Ok(Matrix::from(x));
    }
    let out = turn.take_f32(x.rows(), x.cols())?;
    let mask = Mask {
        x: Matrix::from(x),
        given: Matrix::from(call.noise.dropout_mask),
        out,
        out_stride: x.cols() as u64,
        terms: prepared.terms,
        rows: prepared.rows,
        seed: prepared.seed,
        in_offset: call.in_offset as u64,
        cols: count("in_features", x.cols())?,
        group: group.index,
        index: group.term,
        reserved: 0,
    };
    // SAFETY: x and the mask have these rows and columns; out is as large.
    unsafe { turn.launch(Kernel::Mask, elements(x.rows(), x.cols()), ELEMENT_THREADS, &mask)? };
    Ok(Matrix::f32(out, x.cols()))
}

/// One layer of a step, from its p on.
pub struct Layer<'s, 'd, 'a> {
    pub turn: &'s Turn<'d>,
    pub prepared: &'a Prepared<'a>,
    pub p: Parts,
    pub draws: usize,
    /// Where `z Bᵀ` is kept.
    pub kept: Option<Matrix>,
}

impl Layer<'_, '_, '_> {
    fn call(&self) -> &Call<'_> {
        self.prepared.call
    }

    fn rows(&self) -> usize {
        self.draws * self.call().rows
    }

    /// y from p, with the base first where the layer has a weight and x is given.
    pub fn expand(&self, x: Option<&tensor::Matrix<'_>>, y: &MatrixMut<'_>) -> Result<()> {
        let z = self.latents(LATENT_Z)?;
        let delta = self.expanded(z, false)?;
        let base = match (x, self.call().base) {
            (Some(x), Some(base)) => {
                let weight = Operand::lying(&base.weight);
                let room = Room::new(self.turn, x.rows(), x.cols(), weight.outputs)?;
                let (prepared, x) = (self.prepared, Matrix::from(x));
                Job { prepared, group: None, x, rows: self.call().rows, weight, square: false }
                    .run(self.turn, &room, 0)?;
                Some(room.view())
            }
            _ => None,
        };
        self.finish(y, base.unwrap_or_default(), delta, if base.is_some() { START_BASE } else { START_Y }, false)
    }

    /// `Var[y]` from p.
    pub fn variance(&self, variance: &MatrixMut<'_>) -> Result<()> {
        let variances = self.latents(LATENT_VARIANCE)?;
        let delta = self.expanded(variances, true)?;
        self.finish(variance, Parts::default(), delta, START_ZERO, true)
    }

    /// z (or the latents' variances) of every row and draw, a column block a term.
    pub fn latents(&self, kind: u32) -> Result<Address> {
        let z = self.turn.take_f32(self.rows(), self.prepared.z_width)?;
        for group in self.prepared.groups {
            self.latent(group, kind, z, [Matrix::ABSENT; 2])?;
        }
        Ok(z)
    }

    /// mu and logvar, to the caller.
    pub fn moments_of_latents(&self, mu: &MatrixMut<'_>, logvar: &MatrixMut<'_>) -> Result<()> {
        for group in self.prepared.groups {
            self.latent(group, LATENT_MOMENTS, 0, [Matrix::from(mu), Matrix::from(logvar)])?;
        }
        Ok(())
    }

    fn latent(&self, group: &Group<'_>, kind: u32, z: Address, [mu, logvar]: [Matrix; 2]) -> Result<()> {
        let (prepared, noise, rank) = (self.prepared, &self.call().noise, group.shared.rank());
        let latent = Latent {
            p: self.p,
            terms: prepared.terms,
            rows: prepared.rows,
            seed: prepared.seed,
            eps: Matrix::from(noise.eps),
            z,
            z_stride: prepared.z_width as u64,
            mu,
            logvar,
            fault: self.turn.fault(),
            kind,
            draws: count("draws", self.draws)?,
            rank: count("the rank", rank)?,
            group: group.index,
            index: group.term,
            antithetic: u32::from(noise.antithetic),
        };
        let blocks = rank.div_ceil(LATENT_BLOCK) * self.rows();
        // SAFETY: p has the terms' columns; z, mu and logvar those of their latents.
        unsafe { self.turn.launch(Kernel::Latent, [blocks.div_ceil(LATENT_BLOCKS), 1, 1], LATENT_THREADS, &latent) }
    }

    /// `z Bᵀ` of every group (with B∘B, where `square`), a column block a term.
    pub fn expanded(&self, z: Address, square: bool) -> Result<Parts> {
        let (prepared, rows, width) = (self.prepared, self.rows(), self.call().kept_width());
        let Some(deepest) = prepared.groups.iter().map(|group| group.shared.rank()).max() else {
            return Ok(Parts::default());
        };
        let out = match self.kept {
            Some(kept) => kept,
            None => Matrix::f32(self.turn.take_f32(rows, width)?, width),
        };
        let whole = Room::whole(out, rows);
        let is_split = super::product::parts(self.turn, rows, deepest, width) > 1;
        for group in prepared.groups {
            let column = self.call().kept_column(group.term as usize);
            let job = self.job(group, z, square)?;
            if !is_split {
                job.run(self.turn, &whole, column)?;
                continue;
            }
            // Ranks may differ, and with them the number of parts: each group's sums are made whole.
            let room = Room::new(self.turn, rows, group.shared.rank(), width)?;
            job.run(self.turn, &room, column)?;
            job.combine(self.turn, room.view().at_column(column), out.at_column(column), self.call().outputs)?;
        }
        Ok(whole.view())
    }

    fn job<'j>(&'j self, group: &'j Group<'j>, z: Address, square: bool) -> Result<Job<'j>> {
        let prepared = self.prepared;
        let x = Matrix::f32(z, prepared.z_width).at_column(group.z_column);
        Ok(Job { prepared, group: Some(group), x, rows: self.rows(), weight: self.turn.b(group.shared)?, square })
    }

    fn finish(&self, y: &MatrixMut<'_>, base: Parts, delta: Parts, start: u32, square: bool) -> Result<()> {
        let (prepared, call) = (self.prepared, self.call());
        let finish = Finish {
            y: Matrix::from(y),
            base,
            delta,
            bias: Matrix::from(call.bias),
            terms: prepared.terms,
            rows: prepared.rows,
            term_count: count("adapters", call.terms.len())?,
            draws: count("draws", self.draws)?,
            cols: count("out_features", call.outputs)?,
            start,
            square: u32::from(square),
            reserved: 0,
        };
        // SAFETY: y, base and delta have these rows and columns.
        unsafe { self.turn.launch(Kernel::Finish, elements(self.rows(), call.outputs), ELEMENT_THREADS, &finish) }
    }
}

/// The second half alone.
pub fn expand(turn: &Turn<'_>, arena: &Arena, expand: &Expand<'_>, y: &[MatrixMut<'_>]) -> Result<()> {
    check_rows(expand.calls, expand.draws)?;
    let p = lying(&expand.p);
    for (position, prepared) in Prepared::of(turn, arena, expand.calls)?.iter().enumerate() {
        let layer = Layer {
            turn,
            prepared,
            p,
            draws: expand.draws,
            kept: expand.keep.map(|keep| Matrix::from(&keep[position])),
        };
        layer.expand(expand.x.as_ref(), &y[position])?;
    }
    Ok(())
}

/// p as it lies in a matrix.
pub fn lying(p: &tensor::Matrix<'_>) -> Parts {
    Parts::whole(p.data().addr() as Address, p.row_stride())
}
