//! The analytic gradients of one adapter on one layer, in f64, against central differences.

use ndarray::{Array1, Array2};
use pvera::backend::Mode;
use pvera::backend::reference::method::{Adapted, project};

use crate::common::Random;
use crate::common::tolerance::assert_close;

/// Balances truncation (step²) and rounding (2⁻⁵² / step).
const STEP: f64 = 1e-5;

struct Problem {
    adapted: Adapted,
    x: Array2<f64>,
    eps: Array2<f64>,
    dy: Array2<f64>,
    /// Weight of the divergence for one latent entry.
    kl: f64,
    /// Gradients of a linear prior, which adds `Σ dmu ∘ mu + dlogvar ∘ logvar` to the loss.
    prior: Option<(Array2<f64>, Array2<f64>)>,
}

fn matrix(random: &mut Random, rows: usize, cols: usize) -> Array2<f64> {
    Array2::from_shape_simple_fn((rows, cols), || f64::from(random.uniform()))
}

fn vector(random: &mut Random, length: usize) -> Array1<f64> {
    Array1::from_shape_simple_fn(length, || f64::from(random.uniform()))
}

fn problem(mode: Mode, logvar_bound: f64, kl: f64, prior: bool) -> Problem {
    let mut random = Random(17);
    let (rows, inputs, outputs, rank) = (5, 7, 6, 3);
    let prior = prior.then(|| (matrix(&mut random, rows, rank), matrix(&mut random, rows, rank)));
    let adapted = Adapted {
        a: matrix(&mut random, 2 * rank, inputs),
        b: matrix(&mut random, outputs, rank),
        lambda_d: vector(&mut random, 2 * rank),
        lambda_b: vector(&mut random, outputs),
        scale: 1.75,
        mode,
        logvar_bound,
    };
    let (x, eps) = (matrix(&mut random, rows, inputs), matrix(&mut random, rows, rank));
    Problem { adapted, x, eps, dy: matrix(&mut random, rows, outputs), kl, prior }
}

impl Problem {
    fn loss(&self) -> f64 {
        let p = project(&self.x, &self.adapted.a);
        let delta = self.adapted.delta(&self.adapted.step(&p, &self.eps));
        let (mu, logvar) = self.adapted.latents(&p);
        let prior = self.prior.as_ref().map_or(0.0, |(dmu, dlogvar)| (dmu * &mu).sum() + (dlogvar * &logvar).sum());
        (&self.dy * &delta).sum() + self.kl * self.adapted.kl(&p) + prior
    }

    fn differences(&mut self, of: impl Fn(&mut Self) -> &mut [f64]) -> Vec<f64> {
        (0..of(self).len())
            .map(|place| {
                let middle = of(self)[place];
                let mut at = |value: f64| {
                    of(self)[place] = value;
                    self.loss()
                };
                let slope = (at(middle + STEP) - at(middle - STEP)) / (2.0 * STEP);
                of(self)[place] = middle;
                slope
            })
            .collect()
    }

    fn check(&mut self, what: &str) {
        let p = project(&self.x, &self.adapted.a);
        let own = self.adapted.gradients(&p, &self.eps, &self.dy, self.kl, self.prior.as_ref());
        let dx: Vec<f64> = own.p.dot(&self.adapted.a).iter().copied().collect();
        let numeric = self.differences(|problem| problem.x.as_slice_mut().unwrap());
        assert_close(&format!("{what}: dx"), &dx, &numeric, 1e-8);
        let numeric = self.differences(|problem| problem.adapted.lambda_b.as_slice_mut().unwrap());
        assert_close(&format!("{what}: dλ_b"), own.lambda_b.as_slice().unwrap(), &numeric, 1e-8);
        let numeric = self.differences(|problem| problem.adapted.lambda_d.as_slice_mut().unwrap());
        assert_close(&format!("{what}: dλ_d"), own.lambda_d.as_slice().unwrap(), &numeric, 1e-8);
        if self.adapted.mode == Mode::Sample {
            let numeric = self.differences(|problem| problem.eps.as_slice_mut().unwrap());
            let slopes: Vec<f64> = own.slope.iter().copied().collect();
            assert_close(&format!("{what}: slope along the noise"), &slopes, &numeric, 1e-8);
        }
    }
}

#[test]
fn every_mode_agrees_with_finite_differences() {
    for mode in [Mode::Mean, Mode::Sample, Mode::Fixed] {
        for kl in [0.0, 0.3] {
            for prior in [false, true] {
                problem(mode, f64::INFINITY, kl, prior).check(&format!("{mode:?}, KL {kl}, prior {prior}"));
            }
        }
    }
}

#[test]
fn an_active_bound_stops_the_gradient_of_logvar() {
    for mode in [Mode::Mean, Mode::Sample, Mode::Fixed] {
        let mut bounded = problem(mode, 0.05, 0.3, true);
        let (_, raw) =
            problem(mode, f64::INFINITY, 0.3, true).adapted.latents(&project(&bounded.x, &bounded.adapted.a));
        let beyond = raw.iter().filter(|value| **value > 0.05).count();
        assert!(beyond > 1 && beyond < raw.len() - 1, "{beyond} of {}", raw.len());
        // A step across the bound has no derivative.
        assert!(raw.iter().all(|value| (value - 0.05).abs() > 1e-3));
        bounded.check(&format!("{mode:?}, bounded"));
    }
}

#[test]
fn the_mean_weight_is_the_merged_one() {
    let problem = problem(Mode::Mean, f64::INFINITY, 0.0, false);
    let p = project(&problem.x, &problem.adapted.a);
    let delta = problem.adapted.delta(&problem.adapted.step(&p, &problem.eps));
    let merged = problem.x.dot(&problem.adapted.merged().t());
    let flat = |values: &Array2<f64>| values.iter().copied().collect::<Vec<f64>>();
    assert_close("x ΔWᵀ", &flat(&merged), &flat(&delta), 1e-14);
}
