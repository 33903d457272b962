//! The training forward, which fills a tape, and backward, which reads it.

use super::Linear;
use super::compute::{check_inputs, check_noise, check_outputs, names};
use super::plan::Plan;
use super::request::Request;
use super::tape::{Policy, Recorded, Tape};
use crate::backend::{
    Backward, Call, Expand, Gradients, Kl, Overwrite, Part, PriorGradients, Scope, TermGradients, Variance,
};
use crate::context::Context;
use crate::error::Result;
use crate::fail;
use crate::tensor::{Matrix, MatrixMut, disjoint};

/// A forward in PEFT's train mode that leaves a tape: sampled unless the request says otherwise, dropout on.
///
/// # Safety
/// The request's matrices, and x under [`Policy::Recompute`], stay alive and unchanged until the tape's last backward.
pub unsafe fn record(
    context: &Context,
    linears: &[&Linear],
    x: &Matrix<'_>,
    request: &Request<'_>,
    tape: &mut Tape,
    y: &[MatrixMut<'_>],
) -> Result<()> {
    let request = Request { training: true, ..*request };
    check_inputs(linears, x)?;
    check_outputs(linears, x, &request, 1, y)?;
    let plan = Plan::new(linears, x.rows(), &request)?;
    check_noise(&plan, linears, x.rows(), &request)?;
    let calls = plan.calls();
    let rows = x.rows();
    let kept_sizes: Vec<usize> = calls.iter().map(|call| rows * call.kept_width()).collect();
    tape.recorded = None;
    tape.reserve(rows * plan.width, &kept_sizes)?;
    // SAFETY: the caller's promise.
    let recorded = unsafe { Recorded::new(linears, x, plan.width, &request, fingerprint(&calls))? };
    let keeps_delta = tape.policy == Policy::KeepDelta;
    let kept: Vec<MatrixMut<'_>> = match keeps_delta {
        true => tape
            .kept
            .iter_mut()
            .zip(&calls)
            .map(|(buffer, call)| MatrixMut::from_f32(buffer, rows, call.kept_width()))
            .collect(),
        false => Vec::new(),
    };
    let mut lent = context.lend(if tape.policy == Policy::Recompute { rows * plan.width } else { 0 })?;
    let p: &mut [f32] = if tape.policy == Policy::Recompute { &mut lent } else { &mut tape.p };
    let p = MatrixMut::from_f32(p, rows, plan.width);
    let outcome = context.with_backend(|backend| {
        backend.project(&plan.projections(), x, Scope::All, &p, Part::WHOLE)?;
        let keep = keeps_delta.then_some(&kept[..]);
        backend.expand(&Expand { calls: &calls, x: Some(*x), p: p.as_const(), draws: 1, keep }, y, Part::WHOLE)
    });
    outcome.map_err(|error| error.within(names(linears)))?;
    tape.recorded = Some(recorded);
    Ok(())
}

/// Where one adapter's gradients go, as whole vectors (of which a shard's part is written); NULL skips.
#[derive(Clone, Copy, Debug)]
pub struct SlotGradients {
    pub slot: i32,
    /// `[out_total]`.
    pub lambda_b: *mut f32,
    /// `[2r]`.
    pub lambda_d: *mut f32,
    /// `[out_total]`.
    pub bias: *mut f32,
}

/// What a caller wants of one layer's backward, besides dx.
#[derive(Debug, Default)]
pub struct Wanted<'a> {
    pub slots: &'a [SlotGradients],
    pub overwrite: Overwrite,
    pub kl: Kl,
    pub prior: PriorGradients<'a>,
    pub kl_value: Option<&'a mut f64>,
    pub variance: Option<Variance<'a>>,
}

/// Gradients of the recorded forward for the output gradients `dy`, one for each layer of the group.
///
/// # Safety
/// The promises of [`record`] hold, and each pointer of `wanted` is NULL or points to its whole vector, which nothing
/// else uses meanwhile.
pub unsafe fn backward(
    context: &Context,
    tape: &Tape,
    dy: &[Matrix<'_>],
    wanted: &mut [Wanted<'_>],
    dx: Option<&MatrixMut<'_>>,
    overwrite_dx: bool,
) -> Result<()> {
    let recorded = tape.recorded()?;
    let linears: Vec<&Linear> = recorded.linears.iter().collect();
    if dy.len() != linears.len() {
        fail!(Argument, "count is {}; wanted {}, the layers that the tape recorded", dy.len(), linears.len());
    }
    if wanted.len() != linears.len() {
        fail!(Argument, "gradients has {} entries; the tape recorded {} layers", wanted.len(), linears.len());
    }
    let request = recorded.request();
    let plan = Plan::new(&linears, recorded.rows, &request)?;
    let calls = plan.calls();
    check_shapes(&linears, recorded, dy, dx)?;
    if fingerprint(&calls) != recorded.fingerprint {
        fail!(
            State,
            "a parameter of {} changed between forward and backward; run backward before the optimiser's step",
            names(&linears)
        );
    }
    let mut targets = Vec::new();
    for (position, (linear, wanted)) in linears.iter().zip(wanted.iter()).enumerate() {
        check_wanted(linear, &plan, position, recorded.rows, wanted)?;
        // SAFETY: the caller's promise.
        targets.push(unsafe { slices(linear, plan.slots(position), &calls[position], wanted.slots)? });
    }
    let mut gradients: Vec<Gradients<'_, '_>> = wanted
        .iter_mut()
        .zip(&mut targets)
        .map(|(wanted, terms)| Gradients {
            terms,
            kl: wanted.kl,
            prior: wanted.prior,
            kl_value: wanted.kl_value.as_deref_mut(),
            variance: wanted
                .variance
                .as_mut()
                .map(|variance| Variance { values: variance.values, index: variance.index }),
            overwrite: wanted.overwrite,
        })
        .collect();
    let mut lent = context.lend(if tape.policy == Policy::Recompute { recorded.rows * plan.width } else { 0 })?;
    let outcome = context.with_backend(|backend| {
        let projections = plan.projections();
        let p = if tape.policy == Policy::Recompute {
            let again = MatrixMut::from_f32(&mut lent, recorded.rows, plan.width);
            backend.project(&projections, &recorded.x, Scope::All, &again, Part::WHOLE)?;
            Matrix::from_f32(&lent, recorded.rows, plan.width)
        } else {
            Matrix::from_f32(&tape.p, recorded.rows, recorded.width)
        };
        let kept: Vec<Matrix<'_>> = tape
            .kept
            .iter()
            .zip(&calls)
            .map(|(buffer, call)| Matrix::from_f32(buffer, call.rows, call.kept_width()))
            .collect();
        let kept = (tape.policy == Policy::KeepDelta).then_some(&kept[..]);
        let group = Backward { calls: &calls, projections: &projections, p, kept, dy, overwrite_dx };
        backend.backward(&group, &mut gradients, dx)
    });
    outcome.map_err(|error| error.within(names(&linears)))
}

fn check_shapes(linears: &[&Linear], recorded: &Recorded, dy: &[Matrix<'_>], dx: Option<&MatrixMut<'_>>) -> Result<()> {
    let rows = ("rows of the forward", recorded.rows);
    for (linear, dy) in linears.iter().zip(dy) {
        dy.shape("dy", rows, ("out_features", linear.layer().out_features))
            .map_err(|error| error.within(names(&[linear])))?;
    }
    let Some(dx) = dx else { return Ok(()) };
    dx.shape("dx", rows, ("in_features", linears[0].layer().in_features))?;
    for (linear, dy) in linears.iter().zip(dy) {
        disjoint("dx", dx, "dy", dy)?;
        linear.layer().weight.map_or(Ok(()), |(weight, _)| disjoint("dx", dx, "the base weight", &weight))?;
    }
    let noise = recorded.request().noise;
    for (name, read) in [("noise.eps", noise.eps), ("noise.dropout_mask", noise.dropout_mask)] {
        read.map_or(Ok(()), |read| disjoint("dx", dx, name, &read))?;
    }
    Ok(())
}

fn check_wanted(linear: &Linear, plan: &Plan<'_>, position: usize, rows: usize, wanted: &Wanted<'_>) -> Result<()> {
    if !wanted.kl.weight.is_finite() {
        fail!(Argument, "gradients.kl_weight is {}; wanted a finite number", wanted.kl.weight);
    }
    for (name, given) in [("gradients.dmu", wanted.prior.dmu), ("gradients.dlogvar", wanted.prior.dlogvar)] {
        if let Some(given) = given {
            given.shape(name, ("rows of the forward", rows), ("latents", plan.latent_width()))?;
        }
    }
    for given in wanted.slots {
        if !plan.slots(position).contains(&given.slot) {
            fail!(
                NotFound,
                "gradients.slots names slot {}, which took no part in the forward of {}",
                given.slot,
                names(&[linear])
            );
        }
    }
    let Some(variance) = &wanted.variance else { return Ok(()) };
    match variance.index {
        None if variance.values.len() != rows => {
            fail!(
                Shape,
                "gradients.variance_count is {}; wanted {rows}, one a row, when there is no variance_index",
                variance.values.len()
            )
        }
        Some(index) => match index.iter().position(|value| *value as usize >= variance.values.len()) {
            Some(row) => fail!(
                Argument,
                "gradients.variance_index[{row}] is {}; wanted less than variance_count, {}",
                index[row],
                variance.values.len()
            ),
            None => Ok(()),
        },
        None => Ok(()),
    }
}

/// The caller's vectors as slices, cut to the shard, one entry a term.
///
/// # Safety
/// As for [`backward`].
unsafe fn slices<'a>(
    linear: &Linear,
    slots: &[i32],
    call: &Call<'_>,
    given: &[SlotGradients],
) -> Result<Vec<TermGradients<'a>>> {
    let layer = linear.layer();
    let mut targets = Vec::new();
    for (slot, term) in slots.iter().zip(call.terms) {
        let Some(wanted) = given.iter().find(|wanted| wanted.slot == *slot) else {
            targets.push(TermGradients::default());
            continue;
        };
        if !wanted.bias.is_null() && term.bias.is_none() {
            fail!(
                Argument,
                "gradients.slots: bias is given for slot {slot}, whose adapter learns no bias for {}",
                names(&[linear])
            );
        }
        // SAFETY: the caller's promise.
        targets.push(unsafe {
            TermGradients {
                lambda_b: slice(wanted.lambda_b, layer.out_offset, call.outputs)?,
                lambda_d: slice(wanted.lambda_d, 0, 2 * term.rank())?,
                bias: slice(wanted.bias, layer.out_offset, call.outputs)?,
            }
        });
    }
    Ok(targets)
}

/// # Safety
/// `vector` is NULL or points to at least `offset + count` f32.
unsafe fn slice<'a>(vector: *mut f32, offset: usize, count: usize) -> Result<Option<&'a mut [f32]>> {
    if vector.is_null() {
        return Ok(None);
    }
    if !vector.is_aligned() {
        fail!(Argument, "gradients.slots holds the address {vector:p}; wanted one aligned to 4 bytes");
    }
    // SAFETY: the caller's promise.
    Ok(Some(unsafe { std::slice::from_raw_parts_mut(vector.add(offset), count) }))
}

/// A 64-bit digest of the vectors that a call reads: four multiplicative lanes over their bits.
fn fingerprint(calls: &[Call<'_>]) -> u64 {
    const PRIME: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut lanes = [1u64, 2, 3, 4];
    let mut absorb = |vector: &[f32]| {
        for chunk in vector.chunks(4) {
            for (lane, value) in lanes.iter_mut().zip(chunk) {
                *lane = (*lane ^ u64::from(value.to_bits())).wrapping_mul(PRIME).rotate_left(29);
            }
        }
    };
    for term in calls.iter().flat_map(|call| call.terms) {
        absorb(term.lambda_b);
        absorb(term.lambda_d);
    }
    lanes.iter().fold(0, |all, lane| (all ^ lane).wrapping_mul(PRIME).rotate_left(31))
}
