//! The latent step, one row at a time: (mu, logvar) from p, and z by mode. Compiled twice, so that hosts with FMA
//! hardware get vector code with the same bits.

use crate::backend::{Call, Mode, Term};
use crate::noise::math;

/// A latent whose exponential does not fit f32.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Overflow {
    pub latent: usize,
    pub logvar: f32,
}

/// `z` of one row of p. `eps` is this row's noise; it is read in sample mode only.
pub fn step(term: &Term<'_>, p: &[f32], eps: &[f32], z: &mut [f32]) -> Result<(), Overflow> {
    let rank = term.rank();
    if term.mode == Mode::Mean {
        return {
            multiply(&term.lambda_d[..rank], &p[..rank], z);
            Ok(())
        };
    }
    let eps = (term.mode == Mode::Sample).then_some(eps);
    let finite = sampled(term.lambda_d, p, term.logvar_bound, eps, z);
    if finite { Ok(()) } else { Err(find_overflow(term, p, 0.5)) }
}

/// `(mu, logvar)` of one row of p.
pub fn latents(term: &Term<'_>, p: &[f32], mu: &mut [f32], logvar: &mut [f32]) {
    let rank = term.rank();
    multiply(&term.lambda_d[..rank], &p[..rank], mu);
    multiply(&term.lambda_d[rank..], &p[rank..2 * rank], logvar);
    logvar.iter_mut().for_each(|value| *value = bounded(*value, term.logvar_bound));
}

/// `exp(logvar)` of one row of p.
pub fn variances(term: &Term<'_>, p: &[f32], out: &mut [f32]) -> Result<(), Overflow> {
    let rank = term.rank();
    multiply(&term.lambda_d[rank..], &p[rank..2 * rank], out);
    if exponentiate(out, term.logvar_bound) { Ok(()) } else { Err(find_overflow(term, p, 1.0)) }
}

/// Fills a row's noise: the caller's, or drawn by key. Nothing to do outside sample mode.
pub fn noise(call: &Call<'_>, term: &Term<'_>, row: usize, draw: usize, eps: &mut [f32]) {
    if term.mode != Mode::Sample {
        return;
    }
    match call.noise.eps {
        Some(given) => given.load(draw * call.rows + row, term.latent_column, eps),
        None => {
            let sample = call.keys.sample(row).wrapping_add(draw as u32);
            term.noise.fill(call.keys.identity(row), sample, call.noise.antithetic, eps);
        }
    }
}

/// `min(logvar, bound)`, with NaN passed on.
#[inline(always)]
pub fn bounded(logvar: f32, bound: f32) -> f32 {
    if logvar > bound { bound } else { logvar }
}

/// `values = exp(min(values, bound))`; false when one overflowed.
fn exponentiate(values: &mut [f32], bound: f32) -> bool {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        // SAFETY: the features were just found.
        return unsafe { exponentiate_fma(values, bound) };
    }
    exponentiate_anywhere(values, bound)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn exponentiate_fma(values: &mut [f32], bound: f32) -> bool {
    exponentiate_anywhere(values, bound)
}

#[inline(always)]
fn exponentiate_anywhere(values: &mut [f32], bound: f32) -> bool {
    let mut finite = true;
    for value in values.iter_mut() {
        *value = math::exp(bounded(*value, bound));
        finite &= *value != f32::INFINITY;
    }
    finite
}

fn multiply(first: &[f32], second: &[f32], out: &mut [f32]) {
    for ((out, first), second) in out.iter_mut().zip(first).zip(second) {
        *out = first * second;
    }
}

fn sampled(lambda_d: &[f32], p: &[f32], bound: f32, eps: Option<&[f32]>, z: &mut [f32]) -> bool {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        // SAFETY: the features were just found.
        return unsafe { sampled_fma(lambda_d, p, bound, eps, z) };
    }
    sampled_anywhere(lambda_d, p, bound, eps, z)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn sampled_fma(lambda_d: &[f32], p: &[f32], bound: f32, eps: Option<&[f32]>, z: &mut [f32]) -> bool {
    sampled_anywhere(lambda_d, p, bound, eps, z)
}

/// `z = mu + eps ∘ exp(½ logvar)`, with eps = 1 when there is none; false when an exponential overflowed.
#[inline(always)]
fn sampled_anywhere(lambda_d: &[f32], p: &[f32], bound: f32, eps: Option<&[f32]>, z: &mut [f32]) -> bool {
    let rank = z.len();
    let (mu_d, logvar_d) = lambda_d.split_at(rank);
    let (mu_p, logvar_p) = p[..2 * rank].split_at(rank);
    let mut finite = true;
    for k in 0..rank {
        let sigma = math::exp(0.5 * bounded(logvar_d[k] * logvar_p[k], bound));
        finite &= sigma != f32::INFINITY;
        z[k] = sigma;
    }
    match eps {
        Some(eps) => (0..rank).for_each(|k| z[k] = eps[k].mul_add(z[k], mu_d[k] * mu_p[k])),
        None => (0..rank).for_each(|k| z[k] += mu_d[k] * mu_p[k]),
    }
    finite
}

/// One row on the way back: its latents, and g = dL/dz.
pub struct Slope<'a> {
    pub mode: Mode,
    pub mu: &'a [f32],
    pub logvar: &'a [f32],
    pub g: &'a [f32],
    /// What the KL divergence counts for one latent entry; None leaves it out.
    pub kl_each: Option<f32>,
    /// Whether `g ∘ σ` has to be finite.
    pub wants_slopes: bool,
}

impl Slope<'_> {
    /// (dmu, dlogvar) of the row, KL included, and its divergence. `eps` is the row's noise and becomes `g ∘ σ`.
    ///
    /// # Errors
    /// An exponential that does not fit f32, with what exp was taken of.
    pub fn gradients(
        &self,
        eps: &mut [f32],
        dmu: &mut [f32],
        dlogvar: &mut [f32],
    ) -> Result<f64, (Overflow, &'static str)> {
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            // SAFETY: the features were just found.
            return unsafe { self.gradients_fma(eps, dmu, dlogvar) };
        }
        self.gradients_anywhere(eps, dmu, dlogvar)
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma")]
    fn gradients_fma(
        &self,
        eps: &mut [f32],
        dmu: &mut [f32],
        dlogvar: &mut [f32],
    ) -> Result<f64, (Overflow, &'static str)> {
        self.gradients_anywhere(eps, dmu, dlogvar)
    }

    #[inline(always)]
    fn gradients_anywhere(
        &self,
        eps: &mut [f32],
        dmu: &mut [f32],
        dlogvar: &mut [f32],
    ) -> Result<f64, (Overflow, &'static str)> {
        let rank = self.mu.len();
        let (mu, logvar, g) = (self.mu, &self.logvar[..rank], &self.g[..rank]);
        let (eps, dmu, dlogvar) = (&mut eps[..rank], &mut dmu[..rank], &mut dlogvar[..rank]);
        let overflow = |latent: usize| Overflow { latent, logvar: logvar[latent] };

        // dmu holds σ until its own turn.
        let mut finite = true;
        for k in 0..rank {
            dmu[k] = math::exp(0.5 * logvar[k]);
            finite &= dmu[k] != f32::INFINITY;
        }
        // The forward met it already, unless it took the mean.
        if self.wants_slopes && !finite {
            let latent = dmu.iter().position(|sigma| *sigma == f32::INFINITY).unwrap_or(0);
            return Err((overflow(latent), "½ logvar"));
        }
        match self.mode {
            Mode::Mean => dlogvar.fill(0.0),
            Mode::Sample => (0..rank).for_each(|k| dlogvar[k] = g[k] * eps[k] * (0.5 * dmu[k])),
            Mode::Fixed => (0..rank).for_each(|k| dlogvar[k] = g[k] * (0.5 * dmu[k])),
        }
        (0..rank).for_each(|k| eps[k] = g[k] * dmu[k]);

        let Some(kl_each) = self.kl_each else {
            dmu.copy_from_slice(g);
            return Ok(0.0);
        };
        // dmu holds exp(logvar) until its own turn.
        finite = true;
        for k in 0..rank {
            dmu[k] = math::exp(logvar[k]);
            finite &= dmu[k] != f32::INFINITY;
        }
        if !finite {
            let latent = dmu.iter().position(|variance| *variance == f32::INFINITY).unwrap_or(0);
            return Err((overflow(latent), "logvar"));
        }
        let mut divergence = 0.0;
        for k in 0..rank {
            let (mu, logvar, variance) = (f64::from(mu[k]), f64::from(logvar[k]), f64::from(dmu[k]));
            divergence -= 0.5 * (1.0 + logvar - mu * mu - variance);
        }
        for k in 0..rank {
            dlogvar[k] = (0.5 * kl_each).mul_add(dmu[k] - 1.0, dlogvar[k]);
            dmu[k] = kl_each.mul_add(mu[k], g[k]);
        }
        Ok(divergence)
    }
}

#[cold]
fn find_overflow(term: &Term<'_>, p: &[f32], factor: f32) -> Overflow {
    let rank = term.rank();
    let logvar = |k: usize| bounded(term.lambda_d[rank + k] * p[rank + k], term.logvar_bound);
    let latent = (0..rank).find(|k| math::exp(factor * logvar(*k)) == f32::INFINITY).unwrap_or(0);
    Overflow { latent, logvar: logvar(latent) }
}
