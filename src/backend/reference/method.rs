//! The method in plain f64, one adapter on one layer, whole matrices at a time. Every kernel is held to this file.
//!
//! Source: the PVeRA paper (arXiv 2512.07703) and PEFT's `PveraModel`; shapes as in the crate's first page.

use ndarray::{Array1, Array2, Axis, concatenate, s};

use crate::backend::Mode;

/// One adapter's matrices and vectors for one layer.
#[derive(Clone, Debug)]
pub struct Adapted {
    /// `[2r, in]`; `[r, in]` for VeRA, whose latent has no variance.
    pub a: Array2<f64>,
    /// `[out, r]`.
    pub b: Array2<f64>,
    /// `[2r]`, or `[r]`.
    pub lambda_d: Array1<f64>,
    /// `[out]`.
    pub lambda_b: Array1<f64>,
    pub scale: f64,
    pub mode: Mode,
    /// Infinite when off.
    pub logvar_bound: f64,
}

/// Gradients of one adapter on one layer.
#[derive(Clone, Debug)]
pub struct AdaptedGradients {
    /// dL/dp `[n, 2r]` or `[n, r]`; dx is `mask ∘ (dp A)`.
    pub p: Array2<f64>,
    pub lambda_b: Array1<f64>,
    pub lambda_d: Array1<f64>,
    /// `g ∘ σ` `[n, r]`, the slope of the loss along each unit of noise.
    pub slope: Array2<f64>,
}

/// `p = x Aᵀ`.
pub fn project(x: &Array2<f64>, a: &Array2<f64>) -> Array2<f64> {
    x.dot(&a.t())
}

impl Adapted {
    pub fn rank(&self) -> usize {
        self.b.ncols()
    }

    fn has_logvar(&self) -> bool {
        self.lambda_d.len() > self.rank()
    }

    /// `(mu, logvar) = split(λ_d ∘ p)`, logvar bounded.
    pub fn latents(&self, p: &Array2<f64>) -> (Array2<f64>, Array2<f64>) {
        let (mu, logvar) = self.raw_latents(p);
        (mu, logvar.mapv(|value| if value > self.logvar_bound { self.logvar_bound } else { value }))
    }

    fn raw_latents(&self, p: &Array2<f64>) -> (Array2<f64>, Array2<f64>) {
        let m = p * &self.lambda_d;
        let mu = m.slice(s![.., ..self.rank()]).to_owned();
        let logvar = match self.has_logvar() {
            true => m.slice(s![.., self.rank()..]).to_owned(),
            false => Array2::from_elem(mu.raw_dim(), f64::NEG_INFINITY),
        };
        (mu, logvar)
    }

    /// `z`, by mode.
    pub fn step(&self, p: &Array2<f64>, eps: &Array2<f64>) -> Array2<f64> {
        let (mu, logvar) = self.latents(p);
        match self.mode {
            Mode::Mean => mu,
            Mode::Sample => mu + eps * logvar.mapv(|value| (0.5 * value).exp()),
            Mode::Fixed => mu + logvar.mapv(|value| (0.5 * value).exp()),
        }
    }

    /// `scale · λ_b ∘ (z Bᵀ)`.
    pub fn delta(&self, z: &Array2<f64>) -> Array2<f64> {
        z.dot(&self.b.t()) * &self.lambda_b * self.scale
    }

    /// `Var[y_j] = (scale · λ_b[j])² Σ_k exp(logvar_k) B[j,k]²`.
    pub fn variance(&self, p: &Array2<f64>) -> Array2<f64> {
        let (_, logvar) = self.latents(p);
        let squares = self.b.mapv(|value| value * value);
        logvar.mapv(f64::exp).dot(&squares.t()) * self.lambda_b.mapv(|value| (self.scale * value).powi(2))
    }

    /// KL to the standard normal, summed over all entries.
    pub fn kl(&self, p: &Array2<f64>) -> f64 {
        let (mu, logvar) = self.latents(p);
        -0.5 * (1.0 + &logvar - mu.mapv(|value| value * value) - logvar.mapv(f64::exp)).sum()
    }

    /// Gradients for an output gradient `dy`, with the KL term of weight `kl` per entry, and added dmu and dlogvar.
    pub fn gradients(
        &self,
        p: &Array2<f64>,
        eps: &Array2<f64>,
        dy: &Array2<f64>,
        kl: f64,
        prior: Option<&(Array2<f64>, Array2<f64>)>,
    ) -> AdaptedGradients {
        let (mu, logvar) = self.latents(p);
        let z = self.step(p, eps);
        let g = (dy * &self.lambda_b * self.scale).dot(&self.b);
        let sigma = logvar.mapv(|value| (0.5 * value).exp());
        let mut dmu = &g + &mu * kl;
        let along = match self.mode {
            Mode::Mean => Array2::zeros(g.raw_dim()),
            Mode::Sample => &g * eps * &sigma * 0.5,
            Mode::Fixed => &g * &sigma * 0.5,
        };
        let mut dlogvar = along + logvar.mapv(|value| 0.5 * kl * (value.exp() - 1.0));
        if let Some((more_mu, more_logvar)) = prior {
            dmu += more_mu;
            dlogvar += more_logvar;
        }
        let (_, raw) = self.raw_latents(p);
        dlogvar.zip_mut_with(&raw, |gradient, value| {
            if *value > self.logvar_bound {
                *gradient = 0.0;
            }
        });
        let dm = match self.has_logvar() {
            true => concatenate(Axis(1), &[dmu.view(), dlogvar.view()]).expect("both are [n, r]"),
            false => dmu,
        };
        AdaptedGradients {
            p: &dm * &self.lambda_d,
            lambda_b: (dy * z.dot(&self.b.t())).sum_axis(Axis(0)) * self.scale,
            lambda_d: (&dm * p).sum_axis(Axis(0)),
            slope: g * sigma,
        }
    }

    /// `ΔW = scale · diag(λ_b) B diag(λ_d[:r]) A[:r]`.
    pub fn merged(&self) -> Array2<f64> {
        let r = self.rank();
        let mean_a = &self.a.slice(s![..r, ..]) * &self.lambda_d.slice(s![..r]).insert_axis(Axis(1));
        self.b.dot(&mean_a) * self.lambda_b.view().insert_axis(Axis(1)) * self.scale
    }
}
