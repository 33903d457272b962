//! PEFT's own numbers: every golden case on the device.

use pvera::backend::Kl;
use pvera::linear::{ModeChoice, Noise, Request, forward, latent};
use pvera::tensor::Dtype;

use super::common::golden::{Case, Declared, names};
use super::common::host::Host;
use super::common::place::with_models_on;
use super::common::step::{Step, run};
use super::common::tolerance::{assert_close, of};
use super::{bench, no_complaints};

/// Gradients and KL.
const GRADIENTS: f64 = 1e-5;

fn cases() -> impl Iterator<Item = Case> {
    names().into_iter().map(|name| Case::open(&name))
}

#[test]
#[ignore = "needs a libcuda"]
fn means_and_latents() {
    let (gpu, context) = bench();
    let place = context.place();
    let mut judged = 0;
    for case in cases() {
        let what = if case.has_weights() { Declared::WeightAndBias } else { Declared::BiasOnly };
        let snapshot = with_models_on(place, || case.snapshot(what));
        for (number, module) in case.modules.iter().enumerate() {
            let Some(wanted) = case.get(module, "y_mean") else { continue };
            let (linear, x) = (snapshot.linear(number).unwrap(), case.get(module, "x").unwrap().host());
            let base = case.get(module, "base");
            let (rows, cols) = (wanted.shape[0], wanted.shape[1]);
            let before = match (case.has_weights(), base) {
                (true, _) => Host::filled(wanted.dtype, rows, cols, 0, f32::NAN),
                (false, Some(base)) => base.host(),
                (false, None) => continue,
            };
            let mut y = before.on(place);
            let x = x.on(place);
            forward(&context, &[linear], &x.matrix(), &Request::default(), &[y.matrix_mut()]).unwrap();
            assert_close(&format!("{} {module} y", case.name), &y.back().values(), &wanted.values, of(wanted.dtype));
            judged += 1;
            let (Some(mu), Some(logvar)) = (case.get(module, "mu"), case.get(module, "logvar")) else { continue };
            let zeros = || Host::zeros(mu.shape[0], mu.shape[1]).on(place);
            let (mut found_mu, mut found_logvar) = (zeros(), zeros());
            let (mu_there, logvar_there) = (found_mu.matrix_mut(), found_logvar.matrix_mut());
            latent(&context, linear, &x.matrix(), &Request::default(), &mu_there, &logvar_there).unwrap();
            assert_close(&format!("{} mu", case.name), &found_mu.back().values(), &mu.values, of(mu.dtype));
            assert_close(&format!("{} logvar", case.name), &found_logvar.back().values(), &logvar.values, of(mu.dtype));
        }
    }
    context.check().unwrap();
    assert!(judged >= 11, "{judged}");
    no_complaints(&gpu);
}

#[test]
#[ignore = "needs a libcuda"]
fn training_steps() {
    let (gpu, context) = bench();
    let place = context.place();
    let mut judged = 0;
    for case in cases().filter(Case::has_weights) {
        let snapshot = with_models_on(place, || case.snapshot(Declared::WeightAndBias));
        for (number, module) in case.modules.iter().enumerate() {
            let (Some(eps), Some(dy)) = (case.get(module, "eps"), case.get(module, "dy")) else { continue };
            let (x, eps) = (case.get(module, "x").unwrap().host(), eps.host().on(place));
            let mask = case.get(module, "mask").map(|mask| mask.host().on(place));
            let noise = Noise {
                mode: ModeChoice::AsPeft,
                eps: Some(eps.matrix()),
                dropout_mask: mask.as_ref().map(|mask| mask.matrix()),
                ..Noise::default()
            };
            let dy = [dy.host()];
            let request = Request { noise, ..Request::default() };
            let mut step = Step::new(vec![snapshot.linear(number).unwrap()], &[0], &x, &dy, request);
            step.kl = Kl { weight: 0.0, mean: true };
            let outcome = run(&context, &step).unwrap();
            let slot = &outcome.layers[0][0];
            for (name, found) in [("y_train", outcome.y[0].values()), ("dx", outcome.dx.values())] {
                let Some(wanted) = case.get(module, name) else { continue };
                let bound = if wanted.dtype == Dtype::F32 { GRADIENTS } else { of(wanted.dtype) };
                assert_close(&format!("{} {name}", case.name), &found, &wanted.values, bound);
                judged += 1;
            }
            for (name, found) in [("dlambda_b", &slot.lambda_b), ("dlambda_d", &slot.lambda_d)] {
                let Some(wanted) = case.get(module, name) else { continue };
                assert_close(&format!("{} {name}", case.name), found, &wanted.values, GRADIENTS);
                judged += 1;
            }
            if let Some(wanted) = case.get(module, "kl_mean") {
                let wanted: Vec<f64> = wanted.values.iter().map(|value| f64::from(*value)).collect();
                assert_close(&format!("{} KL", case.name), &outcome.kl, &wanted, GRADIENTS);
                judged += 1;
            }
        }
    }
    assert!(judged >= 6, "{judged}");
    no_complaints(&gpu);
}
