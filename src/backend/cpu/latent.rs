//! The latent step, one row at a time: (mu, logvar) from p, and z by mode.

use std::ops::Range;

use super::groups::{Group, RowBlock};
use super::product::{PackedRows, RowsToPack};
use crate::backend::{Call, Mode, Term};
use crate::error::{Code, Error, Result};
use crate::noise::{Row, math};
use crate::simd::{Isa, Kernel, Set};
use crate::tensor::Matrix;

/// A latent whose exponential does not fit f32.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Overflow {
    pub latent: usize,
    pub logvar: f32,
}

impl Overflow {
    pub fn error(self, row: usize, exponent: &str) -> Error {
        let Overflow { latent, logvar } = self;
        Error::new(
            Code::Overflow,
            format!(
                "row {row}, latent {latent}: logvar is {logvar}, and exp({exponent}) does not fit f32; \
                 set logvar_bound in the config, or look for a layer whose inputs exploded"
            ),
        )
    }
}

/// z of a block's rows in some draws, packed: draw by draw, row by row. Row i of the call is row `i − first` of p;
/// `vectors` is room for five vectors of the rank.
#[allow(clippy::too_many_arguments)]
pub fn draw<'s>(
    isa: Isa,
    call: &Call<'_>,
    group: &Group<'_>,
    block: &RowBlock<'_>,
    draws: Range<usize>,
    (p, first): (&Matrix<'_>, usize),
    mut packed: RowsToPack<'s>,
    vectors: &mut [f32],
) -> Result<PackedRows<'s>> {
    draw_noise(isa, call, group, block, &draws, &mut packed);
    let rank = group.shared().rank();
    let (projected, rest) = vectors.split_at_mut(2 * rank);
    let (mu, rest) = rest.split_at_mut(rank);
    let (sigma, rest) = rest.split_at_mut(rank);
    let copy_of_eps = &mut rest[..rank];
    for place in 0..block.len() {
        let row = block.row(place);
        let (_, term) = group.term(row);
        // In mean mode the second half of p may never have been written.
        let copy = &mut projected[..if term.mode == Mode::Mean { rank } else { 2 * rank }];
        let projected = p.part(row - first, term.p_column, copy);
        if term.mode == Mode::Mean {
            for draw in 0..draws.len() {
                packed.fill(draw * block.len() + place, |from, z| {
                    isa.run(Multiply { first: &term.lambda_d[from..], second: &projected[from..], out: z });
                });
            }
            continue;
        }
        let bound = term.logvar_bound;
        if !isa.run(Spread { lambda_d: &term.lambda_d, p: projected, bound, mu, sigma }) {
            return Err(find_overflow(term, projected, 0.5).error(row, "½ logvar"));
        }
        for (number, draw) in draws.clone().enumerate() {
            let given = match (call.noise.eps, term.mode) {
                (Some(given), Mode::Sample) => Some((given, draw * call.rows + row)),
                _ => None,
            };
            packed.fill(number * block.len() + place, |from, z| {
                if let Some((given, row)) = &given {
                    z.copy_from_slice(given.part(*row, term.latent_column + from, &mut copy_of_eps[..z.len()]));
                }
                let (mu, sigma) = (&mu[from..], &sigma[from..]);
                isa.run(Combine { mu, sigma, has_noise: term.mode == Mode::Sample, z });
            });
        }
    }
    Ok(packed.packed())
}

/// Writes keyed noise where the latents of the rows that sample will be: rows of one key together, which is faster.
fn draw_noise(
    isa: Isa,
    call: &Call<'_>,
    group: &Group<'_>,
    block: &RowBlock<'_>,
    draws: &Range<usize>,
    packed: &mut RowsToPack<'_>,
) {
    if call.noise.eps.is_some() {
        return;
    }
    let antithetic = call.noise.antithetic;
    let keyed = |row: usize, draw: usize, first: usize, out| {
        let sample = call.keys.sample(row).wrapping_add((draws.start + draw) as u32);
        Row { identity: call.keys.identity(row), sample, first, out }
    };
    let row_of = |number: usize| (block.row(number % block.len()), number / block.len());
    if let Some(term) = group.only() {
        if term.mode == Mode::Sample {
            let rows = packed.parts_mut().map(|(number, first, out)| {
                let (row, draw) = row_of(number);
                keyed(row, draw, first, out)
            });
            term.noise.fill_rows(isa, antithetic, rows);
        }
        return;
    }
    for (number, first, out) in packed.parts_mut() {
        let (row, draw) = row_of(number);
        let (_, term) = group.term(row);
        if term.mode == Mode::Sample {
            term.noise.fill_rows(isa, antithetic, std::iter::once(keyed(row, draw, first, out)));
        }
    }
}

/// `(mu, logvar)` of one row of p. The logvar of a latent without variance is −∞.
pub fn latents(isa: Isa, term: &Term<'_>, p: &[f32], mu: &mut [f32], logvar: &mut [f32]) {
    if !term.has_logvar() {
        multiply(&term.lambda_d, p, mu);
        logvar.fill(f32::NEG_INFINITY);
        return;
    }
    isa.run(Latents { lambda_d: &term.lambda_d, p, bound: term.logvar_bound, mu, logvar });
}

/// `exp(½ logvar)` of one row of p.
pub fn deviations(isa: Isa, term: &Term<'_>, p: &[f32], sigma: &mut [f32]) -> std::result::Result<(), Overflow> {
    if !term.has_logvar() {
        sigma.fill(0.0);
        return Ok(());
    }
    let rank = term.rank();
    multiply(&term.lambda_d[rank..], &p[rank..2 * rank], sigma);
    sigma.iter_mut().for_each(|value| *value = 0.5 * bounded(*value, term.logvar_bound));
    if isa.run(Exponentiate { values: sigma, bound: f32::INFINITY }) {
        Ok(())
    } else {
        Err(find_overflow(term, p, 0.5))
    }
}

/// `exp(logvar)` of one row of p.
pub fn variances(isa: Isa, term: &Term<'_>, p: &[f32], out: &mut [f32]) -> std::result::Result<(), Overflow> {
    if !term.has_logvar() {
        out.fill(0.0);
        return Ok(());
    }
    let rank = term.rank();
    multiply(&term.lambda_d[rank..], &p[rank..2 * rank], out);
    if isa.run(Exponentiate { values: out, bound: term.logvar_bound }) {
        Ok(())
    } else {
        Err(find_overflow(term, p, 1.0))
    }
}

/// Fills a row's noise: the caller's, or drawn by key. Nothing to do outside sample mode.
pub fn noise(isa: Isa, call: &Call<'_>, term: &Term<'_>, row: usize, draw: usize, eps: &mut [f32]) {
    if term.mode != Mode::Sample {
        return;
    }
    match call.noise.eps {
        Some(given) => given.load(draw * call.rows + row, term.latent_column, eps),
        None => {
            let sample = call.keys.sample(row).wrapping_add(draw as u32);
            term.noise.fill_on(isa, call.keys.identity(row), sample, call.noise.antithetic, eps);
        }
    }
}

/// `min(logvar, bound)`, with NaN passed on.
#[inline(always)]
pub fn bounded(logvar: f32, bound: f32) -> f32 {
    if logvar > bound { bound } else { logvar }
}

/// `out = first ∘ second`, as far as out goes.
struct Multiply<'a> {
    first: &'a [f32],
    second: &'a [f32],
    out: &'a mut [f32],
}

impl Kernel for Multiply<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Set>(self) {
        multiply(self.first, self.second, self.out);
    }
}

#[inline(always)]
fn multiply(first: &[f32], second: &[f32], out: &mut [f32]) {
    for ((out, first), second) in out.iter_mut().zip(first).zip(second) {
        *out = first * second;
    }
}

/// `mu` and `logvar` of one row.
struct Latents<'a> {
    lambda_d: &'a [f32],
    p: &'a [f32],
    bound: f32,
    mu: &'a mut [f32],
    logvar: &'a mut [f32],
}

impl Kernel for Latents<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Set>(self) {
        let rank = self.mu.len();
        let (mu_d, logvar_d) = self.lambda_d[..2 * rank].split_at(rank);
        let (mu_p, logvar_p) = self.p[..2 * rank].split_at(rank);
        let (mu, logvar) = (&mut self.mu[..rank], &mut self.logvar[..rank]);
        for k in 0..rank {
            mu[k] = mu_d[k] * mu_p[k];
            logvar[k] = bounded(logvar_d[k] * logvar_p[k], self.bound);
        }
    }
}

/// `values = exp(min(values, bound))`; false when one overflowed.
struct Exponentiate<'a> {
    values: &'a mut [f32],
    bound: f32,
}

impl Kernel for Exponentiate<'_> {
    type Output = bool;

    #[inline(always)]
    fn run<S: Set>(self) -> bool {
        let mut finite = true;
        for value in self.values.iter_mut() {
            *value = math::exp(bounded(*value, self.bound));
            finite &= *value != f32::INFINITY;
        }
        finite
    }
}

/// mu and `σ = exp(½ logvar)` of one row of p; false when a σ overflowed.
struct Spread<'a> {
    lambda_d: &'a [f32],
    p: &'a [f32],
    bound: f32,
    mu: &'a mut [f32],
    sigma: &'a mut [f32],
}

impl Kernel for Spread<'_> {
    type Output = bool;

    #[inline(always)]
    fn run<S: Set>(self) -> bool {
        let rank = self.mu.len();
        let (mu_d, logvar_d) = self.lambda_d.split_at(rank);
        let (mu_p, logvar_p) = self.p[..2 * rank].split_at(rank);
        let (mu, sigma) = (&mut self.mu[..rank], &mut self.sigma[..rank]);
        let logvar_d = &logvar_d[..rank];
        let mut finite = true;
        for k in 0..rank {
            sigma[k] = math::exp(0.5 * bounded(logvar_d[k] * logvar_p[k], self.bound));
            finite &= sigma[k] != f32::INFINITY;
            mu[k] = mu_d[k] * mu_p[k];
        }
        finite
    }
}

/// `z = mu + eps ∘ σ`, where z holds eps; without noise, eps = 1.
struct Combine<'a> {
    mu: &'a [f32],
    sigma: &'a [f32],
    has_noise: bool,
    z: &'a mut [f32],
}

impl Kernel for Combine<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Set>(self) {
        let z = self.z;
        let (mu, sigma) = (&self.mu[..z.len()], &self.sigma[..z.len()]);
        match self.has_noise {
            true => (0..z.len()).for_each(|k| z[k] = z[k].mul_add(sigma[k], mu[k])),
            false => (0..z.len()).for_each(|k| z[k] = sigma[k] + mu[k]),
        }
    }
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
        isa: Isa,
        eps: &mut [f32],
        dmu: &mut [f32],
        dlogvar: &mut [f32],
    ) -> std::result::Result<f64, (Overflow, &'static str)> {
        isa.run(SlopeGradients { slope: self, eps, dmu, dlogvar })
    }

    #[inline(always)]
    fn compute(
        &self,
        eps: &mut [f32],
        dmu: &mut [f32],
        dlogvar: &mut [f32],
    ) -> std::result::Result<f64, (Overflow, &'static str)> {
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

struct SlopeGradients<'a> {
    slope: &'a Slope<'a>,
    eps: &'a mut [f32],
    dmu: &'a mut [f32],
    dlogvar: &'a mut [f32],
}

impl Kernel for SlopeGradients<'_> {
    type Output = std::result::Result<f64, (Overflow, &'static str)>;

    #[inline(always)]
    fn run<S: Set>(self) -> Self::Output {
        self.slope.compute(self.eps, self.dmu, self.dlogvar)
    }
}
