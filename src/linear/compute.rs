//! The calls without a tape. Each resolves and checks everything, then hands over to the backend.

use super::Linear;
use super::overlap::{Name, check_apart, check_methods};
use super::plan::Plan;
use super::request::{ModeChoice, Request};
use crate::backend::{Backward, Call, Expand, Forward, Mode, Part, Scope, Term};
use crate::context::{Context, Frame};
use crate::error::Result;
use crate::fail;
use crate::memory::{Allocator, Arena};
use crate::tensor::{Device, Matrix, MatrixMut};

/// `y = x Wᵀ + bias + delta` of each layer of a group with one input; without a weight, `y += delta`.
pub fn forward(
    context: &Context,
    linears: &[&Linear],
    x: &Matrix<'_>,
    request: &Request<'_>,
    y: &[MatrixMut<'_>],
) -> Result<()> {
    check_inputs(linears, x)?;
    check_outputs(linears, x, 1, y)?;
    let frame = context.enter();
    let plan = Plan::new(frame.arena(), linears, x.rows(), request)?;
    check_apart(context, &plan, linears, ("x", x), y, y_of(y.len()))?;
    check_noise(&plan, linears, x.rows(), request)?;
    check_whole_inputs(linears, plan.calls, Drawn::AsModes)?;
    run(&frame, &plan, x, 1, y).map_err(|error| error.within(names(linears)))
}

/// `draws` forwards of every row, with consecutive sample numbers: base and projection once. Draw s of row i is row
/// `s·n + i` of y.
pub fn sample(
    context: &Context,
    linear: &Linear,
    x: &Matrix<'_>,
    request: &Request<'_>,
    draws: usize,
    y: &MatrixMut<'_>,
) -> Result<()> {
    if draws == 0 {
        fail!(Argument, "samples is 0; wanted at least 1");
    }
    let mut request = *request;
    match request.noise.mode {
        ModeChoice::AsPeft => request.noise.mode = ModeChoice::All(Mode::Sample),
        ModeChoice::All(Mode::Sample) => {}
        ModeChoice::All(mode) => {
            fail!(Argument, "noise.mode is {}; wanted sample, since draws of any other are all the same", mode.name())
        }
    }
    let Some(rows) = draws.checked_mul(x.rows()) else {
        fail!(Shape, "samples is {draws} and x has {} rows; that is more than the address space holds", x.rows());
    };
    let first_sample = (0..x.rows()).map(|row| request.rows.keys.sample(row)).max().unwrap_or(0);
    if u32::try_from(draws - 1).ok().and_then(|more| first_sample.checked_add(more)).is_none() {
        fail!(
            Argument,
            "samples is {draws} and the largest rows.sample is {first_sample}; sample numbers end at {}",
            u32::MAX
        );
    }
    let linears = [linear];
    check_inputs(&linears, x)?;
    y.shape("y", ("samples · rows of x", rows), ("out_features", linear.layer().out_features))?;
    let frame = context.enter();
    let plan = Plan::new(frame.arena(), &linears, x.rows(), &request)?;
    check_apart(context, &plan, &linears, ("x", x), std::slice::from_ref(y), y_of(1))?;
    check_noise(&plan, &linears, rows, &request)?;
    check_whole_inputs(&linears, plan.calls, Drawn::AsModes)?;
    run(&frame, &plan, x, draws, std::slice::from_ref(y)).map_err(|error| error.within(names(&linears)))
}

/// Exact mean and variance of y given x. Without a weight, the mean of the delta is added to what `mean` holds.
pub fn moments(
    context: &Context,
    linear: &Linear,
    x: &Matrix<'_>,
    request: &Request<'_>,
    mean: &MatrixMut<'_>,
    variance: &MatrixMut<'_>,
) -> Result<()> {
    let linears = [linear];
    let mut request = *request;
    request.noise.mode = ModeChoice::All(Mode::Mean);
    check_inputs(&linears, x)?;
    let (rows, cols) = (("rows of x", x.rows()), ("out_features", linear.layer().out_features));
    for (name, output) in [("mean", mean), ("variance", variance)] {
        output.shape(name, rows, cols)?;
    }
    let frame = context.enter();
    let plan = Plan::new(frame.arena(), &linears, x.rows(), &request)?;
    let outputs = [MatrixMut::alias(mean), MatrixMut::alias(variance)];
    check_apart(context, &plan, &linears, ("x", x), &outputs, |place| Name::Plain(["mean", "variance"][place]))?;
    check_whole_inputs(&linears, plan.calls, Drawn::Always("the variance"))?;
    let mut p = frame.lend(x.rows(), plan.width)?;
    let p = p.matrix();
    let outcome = frame.with_backend(|backend| {
        backend.project(plan.projections, x, Scope::All, &p, Part::WHOLE)?;
        backend.moments(&plan.calls[0], x, &p.as_const(), mean, variance)
    });
    outcome.map_err(|error| error.within(names(&linears)))
}

/// `(mu, logvar)` of every row, `[n, latents]` each.
pub fn latent(
    context: &Context,
    linear: &Linear,
    x: &Matrix<'_>,
    request: &Request<'_>,
    mu: &MatrixMut<'_>,
    logvar: &MatrixMut<'_>,
) -> Result<()> {
    let linears = [linear];
    check_inputs(&linears, x)?;
    let frame = context.enter();
    let plan = Plan::new(frame.arena(), &linears, x.rows(), request)?;
    let (rows, cols) = (("rows of x", x.rows()), ("latents", plan.latents));
    for (name, output) in [("mu", mu), ("logvar", logvar)] {
        output.shape(name, rows, cols)?;
    }
    let outputs = [MatrixMut::alias(mu), MatrixMut::alias(logvar)];
    check_apart(context, &plan, &linears, ("x", x), &outputs, |place| Name::Plain(["mu", "logvar"][place]))?;
    check_whole_inputs(&linears, plan.calls, Drawn::Always("logvar"))?;
    let mut p = frame.lend(x.rows(), plan.width)?;
    let p = p.matrix();
    frame.with_backend(|backend| {
        backend.project(plan.projections, x, Scope::All, &p, Part::WHOLE)?;
        backend.latent(&plan.calls[0], &p.as_const(), mu, logvar)
    })
}

/// Bytes of scratch that a context holds, where it computes, after calls of this shape: forward, sample, moments or latent, and with
/// `training` a taped forward and a backward that is asked for everything.
pub fn scratch_bytes(
    context: &Context,
    linears: &[&Linear],
    rows: usize,
    request: &Request<'_>,
    draws: usize,
    training: bool,
) -> Result<usize> {
    let Some(first) = linears.first() else { fail!(Argument, "count is 0; wanted at least one layer") };
    if draws == 0 {
        fail!(Argument, "samples is 0; wanted at least 1");
    }
    let frame = context.enter();
    let request = Request { training, ..*request };
    let plan = Plan::new(frame.arena(), linears, rows, &request)?;
    check_methods(context, &plan, linears)?;
    let Plan { projections, calls, width, .. } = plan;
    let inputs = first.layer().in_features;
    let x = Matrix::shape_only(rows, inputs);
    let forward = Forward { projections, calls, x, scope: Scope::All, width, p: None, draws, keep: None };
    let dy = frame.arena().collected(calls.iter().map(|call| Matrix::shape_only(rows, call.outputs)))?;
    let group = Backward { calls, projections, p: Matrix::shape_only(rows, width), kept: None, dy, overwrite_dx: true };
    let dx = MatrixMut::shape_only(rows, inputs);
    let backward = training.then_some((&group, &dx));
    let bytes = frame.with_backend(|backend| backend.scratch_bytes(&forward, backward))?;
    // The lists of a real call are these and a few more; they may end a chunk of the arena earlier.
    let lists = if context.place() == Device::Host { 2 * frame.arena().bytes() } else { 0 };
    Ok(bytes + lists)
}

/// Columns of p and of eps for such a request.
pub fn project_width(linear: &Linear, rows: usize, request: &Request<'_>) -> Result<(usize, usize)> {
    let arena = Arena::new(Allocator::default());
    let plan = Plan::new(&arena, &[linear], rows, request)?;
    Ok((plan.width, plan.latents))
}

/// `p = x Aᵀ`, or one part of it.
pub fn project(
    context: &Context,
    linear: &Linear,
    x: &Matrix<'_>,
    request: &Request<'_>,
    p: &MatrixMut<'_>,
    part: Part,
) -> Result<()> {
    let linears = [linear];
    check_part(part)?;
    check_inputs(&linears, x)?;
    p.f32_only("p")?;
    let frame = context.enter();
    let plan = Plan::new(frame.arena(), &linears, x.rows(), request)?;
    p.shape("p", ("rows of x", x.rows()), ("project_width", plan.width))?;
    check_apart(context, &plan, &linears, ("x", x), &[MatrixMut::alias(p)], |_| Name::Plain("p"))?;
    check_mask(linear, x.rows(), request)?;
    frame.with_backend(|backend| backend.project(plan.projections, x, Scope::AsModes, p, part))
}

/// `y += delta`, from p, or one part of it.
pub fn expand(
    context: &Context,
    linear: &Linear,
    p: &Matrix<'_>,
    request: &Request<'_>,
    y: &MatrixMut<'_>,
    part: Part,
) -> Result<()> {
    let linears = [linear];
    check_part(part)?;
    p.f32_only("p")?;
    y.shape("y", ("rows of p", p.rows()), ("out_features", linear.layer().out_features))?;
    let frame = context.enter();
    let plan = Plan::new(frame.arena(), &linears, p.rows(), request)?;
    check_apart(context, &plan, &linears, ("p", p), std::slice::from_ref(y), y_of(1))?;
    p.shape("p", ("rows", p.rows()), ("project_width", plan.width))?;
    check_noise(&plan, &linears, p.rows(), request)?;
    let expand = Expand { calls: plan.calls, x: None, p: *p, draws: 1, keep: None };
    let y = MatrixMut::alias(y);
    frame.with_backend(|backend| backend.expand(&expand, &[y], part)).map_err(|error| error.within(names(&linears)))
}

fn run(frame: &Frame<'_>, plan: &Plan<'_>, x: &Matrix<'_>, draws: usize, y: &[MatrixMut<'_>]) -> Result<()> {
    let Plan { projections, calls, width, .. } = *plan;
    let forward = Forward { projections, calls, x: *x, scope: Scope::AsModes, width, p: None, draws, keep: None };
    frame.with_backend(|backend| backend.forward(&forward, y))
}

pub(super) fn check_inputs(linears: &[&Linear], x: &Matrix<'_>) -> Result<()> {
    let Some(first) = linears.first() else { fail!(Argument, "count is 0; wanted at least one layer") };
    x.shape("x", ("rows", x.rows()), ("in_features", first.layer().in_features))
}

/// Shapes of the outputs of a group.
pub(super) fn check_outputs(linears: &[&Linear], x: &Matrix<'_>, draws: usize, y: &[MatrixMut<'_>]) -> Result<()> {
    if y.len() != linears.len() {
        fail!(Argument, "y has {} matrices; wanted {}, one a layer", y.len(), linears.len());
    }
    for (linear, y) in linears.iter().zip(y) {
        y.shape("y", ("rows of x", draws * x.rows()), ("out_features", linear.layer().out_features))
            .map_err(|error| error.within(names(&[linear])))?;
    }
    Ok(())
}

/// How errors call the outputs of a group.
pub(super) fn y_of(count: usize) -> impl Fn(usize) -> Name<'static> {
    move |index| Name::Item { what: "y", index, count }
}

/// Shapes of the caller's noise: one row a row of y, one column a latent of the call.
pub(super) fn check_noise(plan: &Plan<'_>, linears: &[&Linear], rows: usize, request: &Request<'_>) -> Result<()> {
    if let Some(eps) = &request.noise.eps {
        eps.shape("noise.eps", ("rows of y", rows), ("latents", plan.latents))?;
    }
    check_mask(linears[0], plan.calls[0].rows, request)
}

fn check_mask(linear: &Linear, rows: usize, request: &Request<'_>) -> Result<()> {
    match &request.noise.dropout_mask {
        Some(mask) => {
            mask.shape("noise.dropout_mask", ("rows of x", rows), ("in_features", linear.layer().in_features))
        }
        None => Ok(()),
    }
}

/// When a call needs the latents' variance, and so the whole of p.
#[derive(Clone, Copy, Debug)]
pub(super) enum Drawn<'a> {
    /// Where an adapter's mode is not mean.
    AsModes,
    /// For what is named.
    Always(&'a str),
}

/// A shard of a layer's inputs makes a part of p. Means of the parts add up to that of the whole; variances do not.
pub(super) fn check_whole_inputs(linears: &[&Linear], calls: &[Call<'_>], drawn: Drawn<'_>) -> Result<()> {
    for (linear, call) in linears.iter().zip(calls) {
        let layer = linear.layer();
        if layer.in_features == layer.in_total {
            continue;
        }
        let what = match drawn {
            Drawn::Always(what) => call.terms.iter().any(Term::has_logvar).then_some(what),
            Drawn::AsModes => call.terms.iter().map(|term| term.mode).find(|mode| *mode != Mode::Mean).map(Mode::name),
        };
        let Some(what) = what else { continue };
        let how = if matches!(drawn, Drawn::AsModes) { "a forward in mode " } else { "" };
        fail!(
            Unsupported,
            "layer '{}' is a shard with the inputs {} to {} of {}, which make a part of p, while {how}{what} needs all of it; wanted a layer with all inputs, or pvera_project, the sum of p over the shards, and pvera_expand",
            layer.name,
            layer.in_offset,
            layer.in_offset + layer.in_features,
            layer.in_total
        );
    }
    Ok(())
}

fn check_part(part: Part) -> Result<()> {
    if part.index >= part.count {
        fail!(Argument, "index is {} and count is {}; wanted index < count", part.index, part.count);
    }
    Ok(())
}

pub(super) fn names(linears: &[&Linear]) -> String {
    let list: Vec<&str> = linears.iter().map(|linear| linear.layer().name.as_str()).collect();
    format!("layer '{}'", list.join("', '"))
}
