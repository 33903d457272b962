//! The training forward, which fills a tape, and backward, which reads it.

use std::ptr::NonNull;

use super::Linear;
use super::compute::{Drawn, check_inputs, check_noise, check_outputs, check_whole_inputs, names, y_of};
use super::overlap::{Apart, Name, Read, Region, check_apart, check_place, for_each_read};
use super::plan::Plan;
use super::request::Request;
use super::tape::{Policy, Record, Tape, kept_choice};
use crate::backend::{
    Backward, Call, Forward, Gradients, Kl, Overwrite, Part, PriorGradients, Scope, TermGradients, Variance,
};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::fail;
use crate::memory::{Arena, List};
use crate::tensor::{Device, Matrix, MatrixMut, Vector, VectorMut, disjoint};

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
    check_outputs(linears, x, 1, y)?;
    let frame = context.enter();
    let arena = frame.arena();
    let plan = Plan::new(arena, linears, x.rows(), &request)?;
    check_apart(context, &plan, linears, ("x", x), y, y_of(y.len()))?;
    check_noise(&plan, linears, x.rows(), &request)?;
    check_whole_inputs(linears, plan.calls, Drawn::AsModes)?;
    let rows = x.rows();
    let mut kept_sizes = arena.list(plan.calls.len())?;
    for call in plan.calls {
        let Some(size) = rows.checked_mul(call.kept_width()) else { return Err(Error::out_of_memory()) };
        kept_sizes.push(size);
    }
    // What is refused leaves the tape its forward.
    kept_choice(&request)?;
    tape.set_holds(false);
    tape.reserve(context, rows * plan.width, &kept_sizes)?;
    // SAFETY: the caller's promise.
    unsafe { tape.record.set(linears, x, plan.width, &request, fingerprint(plan.calls))? };
    let keeps_delta = tape.policy == Policy::KeepDelta;
    let mut kept = arena.list(plan.calls.len())?;
    for (kept_of_layer, call) in tape.kept.iter_mut().zip(plan.calls).filter(|_| keeps_delta) {
        kept.push(kept_of_layer.matrix_mut(rows, call.kept_width()));
    }
    let keeps_p = tape.policy != Policy::Recompute;
    let p = tape.p.matrix_mut(if keeps_p { rows } else { 0 }, plan.width);
    let Plan { projections, calls, width, .. } = plan;
    let (p, keep) = (keeps_p.then_some(&p), keeps_delta.then_some(&kept[..]));
    let forward = Forward { projections, calls, x: *x, scope: Scope::All, width, p, draws: 1, keep };
    let outcome = frame.with_backend(|backend| backend.forward(&forward, y));
    tape.set_holds(outcome.is_ok());
    outcome.map_err(|error| error.within(names(linears)))
}

/// Where one adapter's gradients go, as whole vectors (of which a shard's part is written); NULL skips.
#[derive(Clone, Copy, Debug)]
pub struct SlotGradients {
    pub slot: i32,
    /// `[out_total]`.
    pub lambda_b: *mut f32,
    /// `[2r]`; `[r]` for VeRA.
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
    /// Where the divergence is written. A pointer, as those of the gradients: what a caller gives may be one place twice.
    pub kl_value: Option<NonNull<f64>>,
    pub variance: Option<VarianceTarget<'a>>,
}

/// Where the first-order variance is added; several layers may name the same array.
#[derive(Clone, Copy, Debug)]
pub struct VarianceTarget<'a> {
    pub values: NonNull<f64>,
    pub count: usize,
    /// Which value a row belongs to; None: its own.
    pub index: Option<&'a [u32]>,
}

/// Gradients of the recorded forward for the output gradients `dy`, one for each layer of the group.
///
/// # Safety
/// The promises of [`record`] hold, and each pointer of `wanted` is NULL or points to its whole vector, which nothing
/// else uses meanwhile; so for `kl_value` and `variance`, whose values are initialised.
pub unsafe fn backward(
    context: &Context,
    tape: &Tape,
    dy: &[Matrix<'_>],
    wanted: &[Wanted<'_>],
    dx: Option<&MatrixMut<'_>>,
    overwrite_dx: bool,
) -> Result<()> {
    let recorded = tape.recorded()?;
    let on_host = context.place() == Device::Host;
    if !on_host && wanted.iter().any(|wanted| wanted.variance.is_some()) {
        fail!(Unsupported, "gradients.variance is given; first-order variance is computed on the CPU only");
    }
    let frame = context.enter();
    let arena = frame.arena();
    let linears: &[&Linear] = arena.collected(recorded.linears.iter())?;
    if dy.len() != linears.len() {
        fail!(Argument, "count is {}; wanted {}, the layers that the tape recorded", dy.len(), linears.len());
    }
    if wanted.len() != linears.len() {
        fail!(Argument, "gradients has {} entries; the tape recorded {} layers", wanted.len(), linears.len());
    }
    if tape.place() != context.place() {
        fail!(Device, "the tape was recorded on {}; this context computes on {}", tape.place(), context.place());
    }
    if !tape.is_of(context) {
        fail!(State, "the tape was recorded on another CUDA context; wanted that one, whose stream orders the work");
    }
    let request = recorded.request();
    let plan = Plan::new(arena, linears, recorded.rows, &request)?;
    check_shapes(linears, recorded, dy, dx)?;
    if fingerprint(plan.calls) != recorded.fingerprint {
        fail!(
            State,
            "a parameter of {} changed between forward and backward; run backward before the optimiser's step",
            names(linears)
        );
    }
    for (position, (linear, wanted)) in linears.iter().zip(wanted).enumerate() {
        check_wanted(linear, &plan, position, recorded.rows, wanted)?;
    }
    let borrowed_x = recorded.x.as_ref().filter(|_| tape.policy == Policy::Recompute);
    check_overlap(context, arena, linears, &plan, wanted, dy, borrowed_x, dx)?;
    let mut targets = arena.list(wanted.len())?;
    for (position, (linear, wanted)) in linears.iter().zip(wanted).enumerate() {
        // SAFETY: the caller's promise, and no two of the vectors meet.
        targets.push(unsafe {
            slices(arena, linear, plan.slots[position], &plan.calls[position], wanted.slots, context.place())?
        });
    }
    let mut own = arena.list(wanted.len())?;
    for wanted in wanted {
        own.push(Own::new(arena, wanted)?);
    }
    let mut gradients = arena.list(wanted.len())?;
    for ((wanted, terms), own) in wanted.iter().zip(targets.into_slice()).zip(own.iter_mut()) {
        gradients.push(Gradients {
            terms,
            kl: wanted.kl,
            prior: wanted.prior,
            kl_value: (wanted.kl_value.is_some() && on_host).then_some(&mut own.kl_value),
            kl_value_at: wanted.kl_value.filter(|_| !on_host).map(|place| place.addr().get() as u64),
            variance: wanted.variance.map(|target| Variance { values: &mut *own.variance, index: target.index }),
            overwrite: wanted.overwrite,
        });
    }
    let mut lent = frame.lend(if tape.policy == Policy::Recompute { recorded.rows } else { 0 }, plan.width)?;
    let kept = tape.kept.iter().zip(plan.calls);
    let kept: &[Matrix<'_>] = match tape.policy {
        Policy::KeepDelta => arena.collected(kept.map(|(kept, call)| kept.matrix(call.rows, call.kept_width())))?,
        _ => &[],
    };
    tape.note_capture()?;
    let outcome = frame.with_backend(|backend| {
        let p = if let Some(x) = borrowed_x {
            backend.project(plan.projections, x, Scope::All, &lent.matrix(), Part::WHOLE)?;
            lent.as_const()
        } else {
            tape.p.matrix(recorded.rows, recorded.width)
        };
        let kept = (tape.policy == Policy::KeepDelta).then_some(kept);
        let group = Backward { calls: plan.calls, projections: plan.projections, p, kept, dy, overwrite_dx };
        backend.backward(&group, &mut gradients, dx)
    });
    outcome.map_err(|error| error.within(names(linears)))?;
    for (wanted, own) in wanted.iter().zip(own.iter()).filter(|_| on_host) {
        // SAFETY: the caller's promise.
        unsafe { own.deliver(wanted) };
    }
    Ok(())
}

/// The numbers of one layer in memory of their own, until the backend is done: the caller's may be one place for several.
struct Own<'a> {
    kl_value: f64,
    variance: &'a mut [f64],
}

impl<'a> Own<'a> {
    fn new(arena: &'a Arena, wanted: &Wanted<'_>) -> Result<Self> {
        let count = wanted.variance.map_or(0, |target| target.count);
        Ok(Self { kl_value: 0.0, variance: arena.filled(0.0, count)? })
    }

    /// # Safety
    /// The pointers of `wanted` are as [`backward`] promises.
    unsafe fn deliver(&self, wanted: &Wanted<'_>) {
        // SAFETY: the caller's promise; no reference to the memory is made.
        unsafe {
            if let Some(place) = wanted.kl_value {
                place.write(self.kl_value);
            }
            let Some(target) = wanted.variance else { return };
            for (index, value) in self.variance.iter().enumerate() {
                let place = target.values.add(index);
                place.write(place.read() + value);
            }
        }
    }
}

/// No output meets another or anything that backward reads; only the variances may be one array.
#[allow(clippy::too_many_arguments)]
fn check_overlap(
    context: &Context,
    arena: &Arena,
    linears: &[&Linear],
    plan: &Plan<'_>,
    wanted: &[Wanted<'_>],
    dy: &[Matrix<'_>],
    borrowed_x: Option<&Matrix<'_>>,
    dx: Option<&MatrixMut<'_>>,
) -> Result<()> {
    let layers = wanted.len();
    let name = |layer, slot, what| Name::Gradient { layer, layers, slot, what };
    let most = wanted.iter().map(|wanted| 3 * wanted.slots.len() + 1).sum();
    let mut vectors: List<'_, Region<'_>> = arena.list(most)?;
    let mut variances: List<'_, Region<'_>> = arena.list(layers)?;
    for (layer, (wanted, call)) in wanted.iter().zip(plan.calls).enumerate() {
        for (slot, given) in wanted.slots.iter().enumerate() {
            let Some(place) = plan.slots[layer].iter().position(|slot| *slot == given.slot) else { continue };
            let first = linears[layer].layer().out_offset;
            let places = [
                ("lambda_b", given.lambda_b, first, call.outputs),
                ("lambda_d", given.lambda_d, 0, call.terms[place].width()),
                ("bias", given.bias, first, call.outputs),
            ];
            for (what, vector, first, count) in places.into_iter().filter(|place| !place.1.is_null()) {
                vectors.push(Region::new(name(layer, Some(slot), what), vector.wrapping_add(first), count)?);
            }
        }
        if let Some(value) = wanted.kl_value {
            vectors.push(Region::new(name(layer, None, "kl_value"), value.as_ptr(), 1)?);
        }
        if let Some(target) = wanted.variance {
            let region = Region::new(name(layer, None, "variance"), target.values.as_ptr(), target.count)?;
            if !variances.last().is_some_and(|last| last.is_same_place(&region)) {
                variances.push(region);
            }
        }
    }
    let vectors = Apart::new(arena, &vectors)?;
    variances.iter().try_for_each(|variance| vectors.check(variance))?;
    if let Some(dx) = dx {
        let dx = Region::of(Name::Plain("dx"), &dx.as_const());
        vectors.check(&dx)?;
        variances.iter().try_for_each(|variance| variance.check_apart(&dx))?;
    }
    if let Some(dx) = dx {
        check_place(context, "dx", &dx.as_const())?;
    }
    let check = |name: Name<'_>, read: &Matrix<'_>, how: Read| {
        if how == Read::InPlace {
            check_place(context, name, read)?;
        }
        let region = Region::of(name, read);
        dx.map_or(Ok(()), |dx| disjoint("dx", dx, name, read))?;
        vectors.check(&region)?;
        variances.iter().try_for_each(|variance| variance.check_apart(&region))
    };
    borrowed_x.map_or(Ok(()), |x| check(Name::Plain("the recorded x"), x, Read::InPlace))?;
    for (layer, (wanted, dy)) in wanted.iter().zip(dy).enumerate() {
        check(Name::Item { what: "dy", index: layer, count: layers }, dy, Read::InPlace)?;
        for (what, prior) in [("dmu", wanted.prior.dmu), ("dlogvar", wanted.prior.dlogvar)] {
            prior.map_or(Ok(()), |prior| check(name(layer, None, what), &prior, Read::InPlace))?;
        }
        if let Some(index) = wanted.variance.and_then(|target| target.index) {
            let index = Matrix::from_f32(bytemuck::cast_slice(index), 1, index.len());
            check(name(layer, None, "variance_index"), &index, Read::Copied)?;
        }
    }
    for_each_read(plan, linears, |name, read, how| check(*name, read, how))
}

fn check_shapes(linears: &[&Linear], recorded: &Record, dy: &[Matrix<'_>], dx: Option<&MatrixMut<'_>>) -> Result<()> {
    let rows = ("rows of the forward", recorded.rows);
    for (linear, dy) in linears.iter().zip(dy) {
        dy.shape("dy", rows, ("out_features", linear.layer().out_features))
            .map_err(|error| error.within(names(&[linear])))?;
    }
    dx.map_or(Ok(()), |dx| dx.shape("dx", rows, ("in_features", linears[0].layer().in_features)))
}

/// A latent without variance is infinitely far from the standard normal.
fn check_divergence(linear: &Linear, plan: &Plan<'_>, position: usize) -> Result<()> {
    match plan.calls[position].terms.iter().position(|term| !term.has_logvar()) {
        Some(place) => fail!(
            Unsupported,
            "{}: the adapter of slot {} is VeRA's, whose latent has no variance, so that its divergence is infinite; wanted gradients.kl_weight 0 and kl_value NULL",
            names(&[linear]),
            plan.slots[position][place]
        ),
        None => Ok(()),
    }
}

fn check_wanted(linear: &Linear, plan: &Plan<'_>, position: usize, rows: usize, wanted: &Wanted<'_>) -> Result<()> {
    if !wanted.kl.weight.is_finite() {
        fail!(Argument, "gradients.kl_weight is {}; wanted a finite number", wanted.kl.weight);
    }
    if wanted.kl.weight != 0.0 || wanted.kl_value.is_some() {
        check_divergence(linear, plan, position)?;
        check_whole_inputs(&[linear], &plan.calls[position..=position], Drawn::Always("the divergence"))?;
    }
    if wanted.variance.is_some() {
        check_whole_inputs(&[linear], &plan.calls[position..=position], Drawn::Always("the variance"))?;
    }
    for (name, given) in [("gradients.dmu", wanted.prior.dmu), ("gradients.dlogvar", wanted.prior.dlogvar)] {
        if let Some(given) = given {
            given.shape(name, ("rows of the forward", rows), ("latents", plan.latents))?;
        }
    }
    for (place, given) in wanted.slots.iter().enumerate() {
        if wanted.slots[..place].iter().any(|before| before.slot == given.slot) {
            fail!(Argument, "gradients.slots names slot {} twice; wanted each adapter once", given.slot);
        }
        if !plan.slots[position].contains(&given.slot) {
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
        None if variance.count != rows => {
            fail!(
                Shape,
                "gradients.variance_count is {}; wanted {rows}, one a row, when there is no variance_index",
                variance.count
            )
        }
        Some(index) => match index.iter().position(|value| *value as usize >= variance.count) {
            Some(row) => fail!(
                Argument,
                "gradients.variance_index[{row}] is {}; wanted less than variance_count, {}",
                index[row],
                variance.count
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
unsafe fn slices<'t, 'a>(
    arena: &'t Arena,
    linear: &Linear,
    slots: &[i32],
    call: &Call<'_>,
    given: &[SlotGradients],
    place: Device,
) -> Result<List<'t, TermGradients<'a>>> {
    let layer = linear.layer();
    let mut targets = arena.list(slots.len())?;
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
                lambda_b: slice(wanted.lambda_b, layer.out_offset, call.outputs, place)?,
                lambda_d: slice(wanted.lambda_d, 0, term.width(), place)?,
                bias: slice(wanted.bias, layer.out_offset, call.outputs, place)?,
            }
        });
    }
    Ok(targets)
}

/// # Safety
/// `vector` is NULL or points to at least `offset + count` f32.
unsafe fn slice<'a>(vector: *mut f32, offset: usize, count: usize, place: Device) -> Result<Option<VectorMut<'a>>> {
    if vector.is_null() {
        return Ok(None);
    }
    if !vector.is_aligned() {
        fail!(Argument, "gradients.slots holds the address {vector:p}; wanted one aligned to 4 bytes");
    }
    // SAFETY: the caller's promise.
    Ok(Some(unsafe { VectorMut::new(vector.wrapping_add(offset), count, place) }))
}

/// A 64-bit digest of the vectors that a call reads: four multiplicative lanes over their bits.
fn fingerprint(calls: &[Call<'_>]) -> u64 {
    const PRIME: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut lanes = [1u64, 2, 3, 4];
    let mut absorb = |vector: Vector<'_>| {
        // What lies on a device is not read here: there the caller keeps the order.
        if vector.device() != Device::Host {
            return;
        }
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
