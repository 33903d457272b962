//! One adapter in the place of a weighted sum of several on one store.
//!
//! Layer by layer, the sum of their mean deltas is `(B ∘ M) A` with `M = Σ wᵢ λ_bᵢ λ_dᵢᵀ [out, r]`, of rank as many as
//! there are adapters; an adapter is an M of rank one. The nearest one in the Frobenius norm is the first term of M's
//! singular value decomposition (Eckart and Young 1936): exact where the adapters share λ_d or λ_b up to a factor.

use std::sync::Arc;

use super::{Adapter, Kind, Parameters, Ranges};
use crate::config::Config;
use crate::error::Result;
use crate::fail;
use crate::memory::Allocator;
use crate::tensor::Device;

/// Steps of the power iteration; each shrinks what is left by the square of the ratio of M's second to its first singular value.
const STEPS: usize = 200;

impl Adapter {
    /// The adapter whose mean delta is nearest to `Σ weights[i] · delta(adapters[i])`, and how far it is: the largest, over
    /// layers, of ‖M − λ_b λ_dᵀ‖ / ‖M‖.
    ///
    /// The logvar half of λ_d is the mean of the adapters', weighted by |weight|: one latent is drawn where the sum draws one for
    /// each adapter. Config and layers are those of the first adapter, with alpha multiplied into λ_b.
    pub fn combined(adapters: &[(&Adapter, f64)], allocator: &Allocator) -> Result<(Self, f64)> {
        let Some((first, _)) = adapters.first() else { fail!(Argument, "count is 0; wanted at least one adapter") };
        for (place, (adapter, weight)) in adapters.iter().enumerate() {
            first.check_alike(adapter).map_err(|error| error.within(format!("adapters[{place}]")))?;
            if adapter.parameters.device() != Device::Host {
                fail!(
                    Device,
                    "adapters[{place}] has its parameters on {}; wanted them on the CPU",
                    adapter.parameters.device()
                );
            }
            if !weight.is_finite() {
                fail!(Argument, "weights[{place}] is {weight}; wanted a finite number");
            }
        }
        let config = Config { alpha: 1.0, ..Config::clone(&first.config) };
        let adapted = first.layout.entries.iter().map(|entry| (entry.layer, false));
        let kind = Kind::new(first.layers.clone(), config, first.store.clone(), adapted)?;
        let mut parameters = Parameters::zeroed(allocator, kind.parameter_count())?;
        let mut furthest = 0.0_f64;
        for (layer, ranges) in kind.ranges() {
            furthest = furthest.max(Sum::of(adapters, &ranges).write_nearest(&mut parameters, &ranges));
            let written = [parameters.get(&ranges.lambda_b), parameters.get(&ranges.lambda_d)];
            if written.into_iter().flatten().any(|value| !value.is_finite()) {
                fail!(Overflow, "layer '{}': the combination is not finite", first.layers.get(layer)?.name);
            }
        }
        Ok((kind.adapter(parameters, first.saved_dtypes.vectors, None), furthest))
    }

    /// Whether two adapters can be summed into one.
    fn check_alike(&self, other: &Self) -> Result<()> {
        if !Arc::ptr_eq(&self.layers, &other.layers) {
            fail!(State, "it was made for another model than adapters[0]");
        }
        if !self.store.same_values(&other.store) {
            fail!(Projection, "its store is not that of adapters[0]; only adapters of one store can be combined");
        }
        let layers = |adapter: &Self| adapter.adapted_layers().collect::<Vec<_>>();
        let (own, others) = (layers(self), layers(other));
        if own != others {
            let differs = own.iter().chain(&others).find(|layer| own.contains(layer) != others.contains(layer));
            let name = differs.map(|layer| self.layers.get(*layer).map(|layer| layer.name.as_str()));
            fail!(
                State,
                "it and adapters[0] do not adapt the same layers: '{}'",
                name.transpose()?.unwrap_or_default()
            );
        }
        if let Some(entry) = other.layout.entries.iter().find(|entry| entry.ranges.bias.is_some()) {
            let name = &self.layers.get(entry.layer)?.name;
            fail!(Unsupported, "it learned a bias for layer '{name}'; biases cannot be combined");
        }
        if let Some(tensor) = other.tensors().first() {
            fail!(Unsupported, "it carries '{}'; tensors beside the layers' cannot be combined", tensor.name);
        }
        Ok(())
    }
}

/// One layer's M, as its terms.
struct Sum<'a> {
    terms: Vec<Term<'a>>,
    /// What the terms' weights leave out: their squares would else leave f64's range.
    scale: f64,
    /// λ_bᵢ · λ_bⱼ.
    left: Vec<Vec<f64>>,
    /// λ_dᵢ · λ_dⱼ, of the mu halves.
    right: Vec<Vec<f64>>,
}

struct Term<'a> {
    /// Over the scale; alpha included.
    weight: f64,
    /// Its part of the mean of what cannot be summed.
    share: f64,
    lambda_b: &'a [f32],
    mu: &'a [f32],
    logvar: &'a [f32],
}

/// σ u vᵀ, as factors of the terms' vectors: σ u = Σ left[i] λ_bᵢ and v = Σ right[i] λ_dᵢ, of length 1.
struct Pair {
    left: Vec<f64>,
    right: Vec<f64>,
    /// σ².
    squared: f64,
}

impl<'a> Sum<'a> {
    fn of(adapters: &[(&'a Adapter, f64)], ranges: &Ranges) -> Self {
        let largest = adapters.iter().map(|(_, weight)| weight.abs()).fold(0.0, f64::max);
        let scale = if largest > 0.0 { largest } else { 1.0 };
        let all: f64 = adapters.iter().map(|(_, weight)| (weight / scale).abs()).sum();
        let share = |weight: f64| if all > 0.0 { (weight / scale).abs() / all } else { 1.0 / adapters.len() as f64 };
        let term = |(adapter, weight): &(&'a Adapter, f64)| {
            let (mu, logvar) = adapter.parameters.get(&ranges.lambda_d).split_at(adapter.config.rank);
            let alpha = f64::from(adapter.config.alpha as f32);
            let lambda_b = adapter.parameters.get(&ranges.lambda_b);
            Term { weight: weight / scale * alpha, share: share(*weight), lambda_b, mu, logvar }
        };
        let terms: Vec<Term<'a>> = adapters.iter().map(term).collect();
        let products = |of: fn(&Term<'a>) -> &'a [f32]| {
            let row = |first| terms.iter().map(|second| dot(of(first), of(second))).collect();
            terms.iter().map(row).collect()
        };
        Self { left: products(|term| term.lambda_b), right: products(|term| term.mu), terms, scale }
    }

    /// Writes the nearest vectors; returns how far they are.
    fn write_nearest(&self, parameters: &mut Parameters, ranges: &Ranges) -> f64 {
        let weight = |place: usize| self.terms[place].weight;
        let squared = sum_over_pairs(&self.left, |i, j| weight(i) * weight(j) * self.right[i][j]);
        let pair = self.largest_pair();
        // The length of λ_d is as it was; the rest of the product goes to λ_b.
        let length: f64 = self.terms.iter().enumerate().map(|(i, term)| term.share * self.right[i][i].sqrt()).sum();
        let along: f64 = sum_over_pairs(&self.right, |i, j| self.terms[i].share * pair.right[j]);
        let length = if along < 0.0 { -length } else { length };
        let (mu, logvar) = parameters.get_mut(&ranges.lambda_d).split_at_mut(self.terms[0].mu.len());
        self.write(logvar, |term| term.logvar, |i| self.terms[i].share);
        if pair.squared == 0.0 {
            self.write(mu, |term| term.mu, |i| self.terms[i].share);
            return 0.0;
        }
        self.write(mu, |term| term.mu, |i| length * pair.right[i]);
        self.write(
            parameters.get_mut(&ranges.lambda_b),
            |term| term.lambda_b,
            |i| self.scale * (pair.left[i] / length),
        );
        ((squared - pair.squared).max(0.0) / squared).sqrt()
    }

    /// By power iteration, begun at each term: one alone may be orthogonal to the largest pair.
    fn largest_pair(&self) -> Pair {
        let begun = (0..self.terms.len()).map(|start| {
            let mut right = vec![0.0; self.terms.len()];
            right[start] = 1.0;
            let mut left = Vec::new();
            for _ in 0..STEPS {
                scale_to_unit(&mut right, &self.right);
                left = self.through(&self.right, &right);
                scale_to_unit(&mut left, &self.left);
                right = self.through(&self.left, &left);
            }
            scale_to_unit(&mut right, &self.right);
            left.clone_from(&self.through(&self.right, &right));
            let squared = squared_length(&left, &self.left);
            Pair { left, right, squared }
        });
        begun.max_by(|first, second| first.squared.total_cmp(&second.squared)).expect("at least one adapter")
    }

    /// M v (or Mᵀ u) as factors, for v (or u) as factors.
    fn through(&self, products: &[Vec<f64>], factors: &[f64]) -> Vec<f64> {
        let along = |row: &Vec<f64>| row.iter().zip(factors).map(|(product, factor)| product * factor).sum::<f64>();
        products.iter().zip(&self.terms).map(|(row, term)| term.weight * along(row)).collect()
    }

    /// `out = Σ factor(i) · of(term i)`.
    fn write(&self, out: &mut [f32], of: fn(&Term<'a>) -> &'a [f32], factor: impl Fn(usize) -> f64) {
        for (place, out) in out.iter_mut().enumerate() {
            let terms = self.terms.iter().enumerate();
            *out = terms.map(|(i, term)| factor(i) * f64::from(of(term)[place])).sum::<f64>() as f32;
        }
    }
}

fn dot(first: &[f32], second: &[f32]) -> f64 {
    first.iter().zip(second).map(|(first, second)| f64::from(*first) * f64::from(*second)).sum()
}

fn sum_over_pairs(products: &[Vec<f64>], factor: impl Fn(usize, usize) -> f64) -> f64 {
    let row =
        |(i, row): (usize, &Vec<f64>)| row.iter().enumerate().map(|(j, product)| product * factor(i, j)).sum::<f64>();
    products.iter().enumerate().map(row).sum()
}

/// Of Σ factors[i] · vectorᵢ, whose products are given.
fn squared_length(factors: &[f64], products: &[Vec<f64>]) -> f64 {
    sum_over_pairs(products, |i, j| factors[i] * factors[j]).max(0.0)
}

/// Leaves a vector of length 0 as it is.
fn scale_to_unit(factors: &mut [f64], products: &[Vec<f64>]) {
    let length = squared_length(factors, products).sqrt();
    if length > 0.0 {
        factors.iter_mut().for_each(|factor| *factor /= length);
    }
}
