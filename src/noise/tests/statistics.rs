//! The keyed normals as random numbers: moments, distribution, and no correlation between neighbours.
//!
//! The seeds are fixed, so nothing here is left to chance; the bounds are those that a fair draw meets nearly always.

use statrs::function::erf::erfc;

use crate::noise::{DropoutKey, NormalKey, adapter_identity, layer_hash};

const ROWS: u64 = 4096;
const RANK: usize = 256;

/// A million normals: every row of one layer, one sample.
fn draw(seed: u64, layer: &str, adapter: &str, sample: u32, first_identity: u64) -> Vec<f32> {
    let key = NormalKey::new(seed, layer_hash(layer), adapter_identity(adapter));
    let mut out = vec![0.0; ROWS as usize * RANK];
    for (row, identity) in out.chunks_exact_mut(RANK).zip(first_identity..) {
        key.fill(identity, sample, false, row);
    }
    out
}

fn base() -> Vec<f32> {
    draw(42, "layers.0.q_proj", "default", 0, 0)
}

/// The mean of `power`-th powers.
fn moment(values: &[f32], power: i32) -> f64 {
    values.iter().map(|&value| f64::from(value).powi(power)).sum::<f64>() / values.len() as f64
}

/// The mean product: the correlation, as means are 0 and variances 1.
fn correlation(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>() / a.len().min(b.len()) as f64
}

/// Four standard deviations of a mean of n numbers with variance `variance`.
fn bound(variance: f64, n: usize) -> f64 {
    4.0 * (variance / n as f64).sqrt()
}

/// The largest distance between the values' distribution and the normal one (Kolmogorov and Smirnov).
fn distance_from_normal(mut values: Vec<f32>) -> f64 {
    values.sort_by(f32::total_cmp);
    let n = values.len() as f64;
    let distances = values.iter().enumerate().map(|(index, &value)| {
        let wanted = 0.5 * erfc(-f64::from(value) / std::f64::consts::SQRT_2);
        (wanted - index as f64 / n).abs().max((wanted - (index + 1) as f64 / n).abs())
    });
    distances.fold(0.0, f64::max)
}

#[test]
fn moments_are_those_of_the_standard_normal() {
    let values = base();
    let n = values.len();
    // Variances of x, x², x³, x⁴: 1, 2, 15, 96.
    for (power, wanted, variance) in [(1, 0.0, 1.0), (2, 1.0, 2.0), (3, 0.0, 15.0), (4, 3.0, 96.0)] {
        let got = moment(&values, power);
        assert!((got - wanted).abs() < bound(variance, n), "mean of x^{power}: {got}");
    }
    let largest = values.iter().fold(0f32, |largest, value| largest.max(value.abs()));
    assert!((4.5..6.661).contains(&largest), "{largest}");
}

#[test]
fn distribution_is_the_standard_normal() {
    // 1.95/√n: a fair draw stays below with probability 0.999.
    let values = base();
    let limit = 1.95 / (values.len() as f64).sqrt();
    for (name, part) in
        [("all", values.clone()), ("cosine half", halves(&values, 0)), ("sine half", halves(&values, 8))]
    {
        let got = distance_from_normal(part.clone());
        assert!(got < limit * (values.len() as f64 / part.len() as f64).sqrt(), "{name}: {got}");
    }
    let shifted: Vec<f32> = values.iter().map(|value| value + 0.01).collect();
    assert!(distance_from_normal(shifted) > limit, "the test sees a shift of 0.01");
}

fn halves(values: &[f32], start: usize) -> Vec<f32> {
    values.chunks_exact(16).flat_map(|block| block[start..start + 8].iter().copied()).collect()
}

#[test]
fn neighbours_are_not_correlated() {
    let values = base();
    let n = values.len();
    let others = [
        ("seed", draw(43, "layers.0.q_proj", "default", 0, 0)),
        ("layer", draw(42, "layers.0.v_proj", "default", 0, 0)),
        ("next layer", draw(42, "layers.1.q_proj", "default", 0, 0)),
        ("adapter", draw(42, "layers.0.q_proj", "other", 0, 0)),
        ("sample", draw(42, "layers.0.q_proj", "default", 1, 0)),
        ("identity", draw(42, "layers.0.q_proj", "default", 0, 1)),
    ];
    for (name, other) in &others {
        let squares = |values: &[f32]| values.iter().map(|value| value * value - 1.0).collect::<Vec<_>>();
        assert!(correlation(&values, other).abs() < bound(1.0, n), "{name}: {}", correlation(&values, other));
        let of_squares = correlation(&squares(&values), &squares(other));
        assert!(of_squares.abs() < bound(4.0, n), "squares, {name}: {of_squares}");
    }
    for lag in [1, 2, 7, 8, 9, 15, 16, 64, RANK] {
        let got = correlation(&values, &values[lag..]);
        assert!(got.abs() < bound(1.0, n), "latents {lag} apart: {got}");
    }
}

#[test]
fn masks_keep_the_share_they_should() {
    let key = DropoutKey::new(42, layer_hash("layers.0.q_proj"), adapter_identity("default"));
    for probability in [0.01, 0.1, 0.5, 0.9] {
        let mut mask = vec![0.0; ROWS as usize * RANK];
        for (row, identity) in mask.chunks_exact_mut(RANK).zip(0..) {
            key.fill(identity, 0, 0, probability, row).unwrap();
        }
        let kept = mask.iter().filter(|&&value| value != 0.0).count() as f64 / mask.len() as f64;
        let p = f64::from(probability);
        assert!((kept - (1.0 - p)).abs() < bound(p * (1.0 - p), mask.len()), "{probability}: {kept}");
        assert!((moment(&mask, 1) - 1.0).abs() < bound(p / (1.0 - p), mask.len()), "{probability}");
    }
}
