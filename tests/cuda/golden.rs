//! PEFT's own numbers: every golden case that has some, each of its tensors, on the device. Two kinds are no business of a
//! device: `delta_weight`, as merges run on the CPU only, and what goes into a call.

use std::collections::BTreeSet;

use pvera::backend::Kl;
use pvera::context::Context;
use pvera::linear::{Choice, Linear, ModeChoice, Noise, Request, Rows, forward, latent};
use pvera::model::Snapshot;
use pvera::tensor::Dtype;

use super::common::golden::{Case, Declared, Tensor, names};
use super::common::host::Host;
use super::common::place::{Placed, with_models_on};
use super::common::step::{Step, run};
use super::common::tolerance::{assert_close, of};
use super::{bench, no_complaints};

/// Gradients and KL.
const GRADIENTS: f64 = 1e-5;

const GIVEN: [&str; 6] = ["base", "delta_weight", "dy", "eps", "mask", "x"];
const OF_INFERENCE: [&str; 3] = ["logvar", "mu", "y_mean"];
const OF_SAMPLES: [&str; 1] = ["y_sample"];
const OF_TRAINING: [&str; 7] = ["dlambda_b", "dlambda_d", "dx", "kl_dlambda_d", "kl_dx", "kl_mean", "y_train"];
const OF_TWO: [&str; 4] = ["y_both", "y_first", "y_none", "y_second"];

fn cases() -> impl Iterator<Item = Case> {
    names().into_iter().map(|name| Case::open(&name))
}

/// The case's model and adapters for a context.
fn there(case: &Case, context: &Context) -> Snapshot {
    let what = if case.has_weights() { Declared::WeightAndBias } else { Declared::BiasOnly };
    with_models_on(context.place(), || case.snapshot(what))
}

/// What was compared: `case/module/tensor`, with each tensor once.
#[derive(Default)]
struct Judged(BTreeSet<String>);

impl Judged {
    fn close(&mut self, case: &Case, module: &str, tensor: &str, found: &[f32], bound: f64) {
        let name = format!("{}/{module}/{tensor}", case.name);
        assert_close(&name, found, &case.get(module, tensor).unwrap().values, bound);
        assert!(self.0.insert(name));
    }

    /// All tensors of these names that the cases have, and as many as are known.
    fn is_all(&self, tensors: &[&str], count: usize) {
        let wanted: BTreeSet<String> = every_tensor().filter(|name| tensors.contains(&last(name))).collect();
        assert_eq!(self.0, wanted);
        assert_eq!(wanted.len(), count);
    }
}

fn every_tensor() -> impl Iterator<Item = String> {
    cases().flat_map(|case| case.io.keys().map(|key| format!("{}/{key}", case.name)).collect::<Vec<_>>())
}

fn last(name: &str) -> &str {
    name.rsplit('/').next().unwrap()
}

/// What these tests leave out would be left out silently otherwise.
#[test]
#[ignore = "goes with the tests that need a libcuda"]
fn no_tensor_of_a_case_is_forgotten() {
    let known = [&GIVEN[..], &OF_INFERENCE, &OF_SAMPLES, &OF_TRAINING, &OF_TWO].concat();
    let forgotten: Vec<String> = every_tensor().filter(|name| !known.contains(&last(name))).collect();
    assert!(forgotten.is_empty(), "{forgotten:?}");
}

fn y_of(context: &Context, linear: &Linear, x: &Placed, request: &Request<'_>, before: Host) -> Host {
    let mut y = before.on(context.place());
    forward(context, &[linear], &x.matrix(), request, &[y.matrix_mut()]).unwrap();
    y.back()
}

fn blank(like: &Tensor) -> Host {
    Host::filled(like.dtype, like.shape[0], like.shape[1], 0, f32::NAN)
}

#[test]
#[ignore = "needs a libcuda"]
fn means_and_latents() {
    let (gpu, context) = bench();
    let (place, mean) = (context.place(), Request::default());
    let (mut judged, mut beside_a_base) = (Judged::default(), 0);
    for case in cases() {
        let snapshot = there(&case, &context);
        let without_weight = with_models_on(place, || case.snapshot(Declared::BiasOnly));
        for (number, module) in case.modules.iter().enumerate() {
            let (linear, x) = (snapshot.linear(number).unwrap(), case.get(module, "x").unwrap().host().on(place));
            let Some(wanted) = case.get(module, "y_mean") else { continue };
            let bound = of(wanted.dtype);
            if let Some(base) = case.get(module, "base") {
                let linear = without_weight.linear(number).unwrap();
                let y = y_of(&context, linear, &x, &mean, base.host()).values();
                assert_close(&format!("{}/{module}/y_mean beside the base", case.name), &y, &wanted.values, bound);
                beside_a_base += 1;
            }
            let before = if case.has_weights() { blank(wanted) } else { case.get(module, "base").unwrap().host() };
            let y = y_of(&context, linear, &x, &mean, before);
            judged.close(&case, module, "y_mean", &y.values(), bound);
            let Some(mu) = case.get(module, "mu") else { continue };
            let zeros = || Host::zeros(mu.shape[0], mu.shape[1]).on(place);
            let (mut found_mu, mut found_logvar) = (zeros(), zeros());
            let (mu_there, logvar_there) = (found_mu.matrix_mut(), found_logvar.matrix_mut());
            latent(&context, linear, &x.matrix(), &mean, &mu_there, &logvar_there).unwrap();
            judged.close(&case, module, "mu", &found_mu.back().values(), of(mu.dtype));
            if let Some(logvar) = case.get(module, "logvar") {
                judged.close(&case, module, "logvar", &found_logvar.back().values(), of(logvar.dtype));
            }
        }
    }
    context.check().unwrap();
    judged.is_all(&OF_INFERENCE, 17 + 14 + 12);
    assert_eq!(beside_a_base, 14);
    no_complaints(&gpu);
}

#[test]
#[ignore = "needs a libcuda"]
fn inference_that_samples() {
    let (gpu, context) = bench();
    let mut judged = Judged::default();
    for case in cases() {
        let snapshot = there(&case, &context);
        for (number, module) in case.modules.iter().enumerate() {
            let Some(wanted) = case.get(module, "y_sample") else { continue };
            let given = |name: &str| case.get(module, name).unwrap().host().on(context.place());
            let (x, eps) = (given("x"), given("eps"));
            // The adapter's own `sample_at_inference` asks for the sample.
            let noise = Noise { mode: ModeChoice::AsPeft, eps: Some(eps.matrix()), ..Noise::default() };
            let request = Request { noise, ..Request::default() };
            let y = y_of(&context, snapshot.linear(number).unwrap(), &x, &request, blank(wanted));
            judged.close(&case, module, "y_sample", &y.values(), of(wanted.dtype));
        }
    }
    judged.is_all(&OF_SAMPLES, 2);
    no_complaints(&gpu);
}

#[test]
#[ignore = "needs a libcuda"]
fn two_adapters_alone_together_and_none() {
    let (gpu, context) = bench();
    let (mut judged, case) = (Judged::default(), Case::open("two_adapters"));
    let snapshot = there(&case, &context);
    let (linear, x) = (snapshot.linear(0).unwrap(), case.get("q_proj", "x").unwrap().host());
    let x_there = x.on(context.place());
    let found = |choice: Choice<'_>| {
        let request = Request { rows: Rows { choice, ..Rows::default() }, ..Request::default() };
        y_of(&context, linear, &x_there, &request, blank(case.get("q_proj", "y_none").unwrap())).values()
    };
    let sums: [(&str, &[(i32, f32)]); 4] =
        [("y_none", &[]), ("y_first", &[(0, 1.0)]), ("y_second", &[(1, 1.0)]), ("y_both", &[(0, 1.0), (1, 1.0)])];
    for (name, active) in sums {
        judged.close(&case, "q_proj", name, &found(Choice::Sum(active)), of(Dtype::F32));
    }
    for (slot, name) in [(-1, "y_none"), (0, "y_first"), (1, "y_second")] {
        let y = found(Choice::PerRow(&vec![slot; x.rows()]));
        assert_close(&format!("{name} by row"), &y, &case.get("q_proj", name).unwrap().values, of(Dtype::F32));
    }
    judged.is_all(&OF_TWO, 4);
    no_complaints(&gpu);
}

#[test]
#[ignore = "needs a libcuda"]
fn training_steps() {
    let (gpu, context) = bench();
    let mut judged = Judged::default();
    for case in cases() {
        let snapshot = there(&case, &context);
        for (number, module) in case.modules.iter().enumerate() {
            let Some(dy) = case.get(module, "dy") else { continue };
            let (x, dy) = (case.get(module, "x").unwrap().host(), [dy.host()]);
            let eps = case.get(module, "eps").unwrap().host().on(context.place());
            let mask = case.get(module, "mask").map(|mask| mask.host().on(context.place()));
            let noise = Noise {
                mode: ModeChoice::AsPeft,
                eps: Some(eps.matrix()),
                dropout_mask: mask.as_ref().map(|mask| mask.matrix()),
                ..Noise::default()
            };
            let request = Request { noise, ..Request::default() };
            let step = Step::new(vec![snapshot.linear(number).unwrap()], &[0], &x, &dy, request);
            let found = run(&context, &step).unwrap();
            let own = &found.layers[0][0];
            judged.close(&case, module, "y_train", &found.y[0].values(), of(found.y[0].dtype()));
            judged.close(&case, module, "dx", &found.dx.values(), GRADIENTS);
            judged.close(&case, module, "dlambda_b", &own.lambda_b, GRADIENTS);
            judged.close(&case, module, "dlambda_d", &own.lambda_d, GRADIENTS);
            if case.get(module, "kl_mean").is_none() {
                continue;
            }
            // The divergence alone.
            let (zeros, kl) = ([Host::zeros(x.rows(), dy[0].cols())], Kl { weight: 1.0, mean: true });
            let found = run(&context, &Step { dy: &zeros, kl, ..step.clone() }).unwrap();
            let own = &found.layers[0][0];
            judged.close(&case, module, "kl_mean", &[found.kl[0] as f32], GRADIENTS);
            judged.close(&case, module, "kl_dx", &found.dx.values(), GRADIENTS);
            judged.close(&case, module, "kl_dlambda_d", &own.lambda_d, GRADIENTS);
            assert!(own.lambda_b.iter().all(|value| *value == 0.0), "the divergence does not know λ_b");
        }
    }
    judged.is_all(&OF_TRAINING, 3 * 4 + 2 * 3);
    no_complaints(&gpu);
}
