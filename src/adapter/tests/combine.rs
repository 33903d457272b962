//! Combined adapters, against whole matrices and a power iteration on them.

use crate::adapter::{Adapter, LoadOptions};
use crate::config::Config;
use crate::error::{Code, Error};
use crate::memory::Allocator;
use crate::model::{Layer, Model, Silent};
use crate::noise::NormalKey;
use crate::tensor::Matrix;

const RANK: usize = 3;

static BIAS: [f32; 5] = [1.0; 5];

/// Layer "q" has a bias that can be learned, layer "v" has none.
fn model() -> Model {
    let model = Model::new(Allocator::default(), Box::new(Silent));
    for (name, outputs, bias) in [("q", 5, Some(Matrix::from_f32(&BIAS, 1, 5))), ("v", 4, None)] {
        let layer = Layer {
            name: name.into(),
            in_features: 6,
            out_features: outputs,
            in_offset: 0,
            out_offset: 0,
            in_total: 6,
            out_total: outputs,
            weight: None,
            bias,
            output_head: false,
        };
        model.declare(layer).unwrap();
    }
    model
}

fn config(targets: &str) -> Config {
    let mut config = Config { rank: RANK, ..Config::default() };
    config.set_json("target_modules", targets).unwrap();
    config
}

fn created(model: &Model, config: &Config) -> Adapter {
    Adapter::create(model, config, None, &LoadOptions::default()).unwrap()
}

fn adapter(model: &Model, alpha: f64, seed: u64) -> Adapter {
    let mut own = created(model, &Config { alpha, ..config(r#"["q", "v"]"#) });
    NormalKey::new(seed, 0, 0).fill(0, 0, false, own.parameters_mut().unwrap().all_mut());
    own
}

/// λ_b, and the mu and logvar halves of λ_d.
fn halves(adapter: &Adapter, layer: usize) -> [Vec<f64>; 3] {
    let vectors = adapter.vectors(layer).unwrap();
    let (mu, logvar) = vectors.lambda_d.on_host().split_at(RANK);
    [vectors.lambda_b.on_host(), mu, logvar].map(|values| values.iter().map(|value| f64::from(*value)).collect())
}

/// Σ w α λ_b λ_dᵀ, row major.
fn summed(adapters: &[(&Adapter, f64)], layer: usize) -> Vec<f64> {
    let outputs = halves(adapters[0].0, layer)[0].len();
    let mut sum = vec![0.0; outputs * RANK];
    for (adapter, weight) in adapters {
        let [lambda_b, mu, _] = halves(adapter, layer);
        for (place, sum) in sum.iter_mut().enumerate() {
            *sum += weight * adapter.config().alpha * lambda_b[place / RANK] * mu[place % RANK];
        }
    }
    sum
}

fn length(values: &[f64]) -> f64 {
    values.iter().map(|value| value * value).sum::<f64>().sqrt()
}

fn distance(first: &[f64], second: &[f64]) -> f64 {
    length(&first.iter().zip(second).map(|(first, second)| first - second).collect::<Vec<_>>())
}

/// The nearest matrix of rank one, by a power iteration from every unit vector.
fn nearest(matrix: &[f64]) -> Vec<f64> {
    let along = |v: &[f64]| -> Vec<f64> {
        matrix.chunks(RANK).map(|row| row.iter().zip(v).map(|(value, v)| value * v).sum()).collect()
    };
    let from = |start: usize| {
        let mut v = vec![0.0; RANK];
        v[start] = 1.0;
        for _ in 0..5000 {
            let u = along(&v);
            let back = |k: usize| u.iter().zip(matrix.chunks(RANK)).map(|(u, row)| u * row[k]).sum::<f64>();
            let next: Vec<f64> = (0..RANK).map(back).collect();
            let size = length(&next);
            v = next.iter().map(|value| value / size).collect();
        }
        let u = along(&v);
        (length(&u), u.iter().flat_map(|u| v.iter().map(move |v| u * v)).collect::<Vec<f64>>())
    };
    (0..RANK).map(from).max_by(|first, second| first.0.total_cmp(&second.0)).unwrap().1
}

fn combined(adapters: &[(&Adapter, f64)]) -> (Adapter, f64) {
    Adapter::combined(adapters, &Allocator::default()).unwrap()
}

fn refused(adapters: &[(&Adapter, f64)]) -> Error {
    Adapter::combined(adapters, &Allocator::default()).expect_err("it is to be refused")
}

#[test]
fn it_is_the_nearest_matrix_of_rank_one() {
    let model = model();
    for seed in 0..20 {
        let own = [(1.0, 1), (0.5, 2), (2.0, 3)].map(|(alpha, number)| adapter(&model, alpha, 3 * seed + number));
        let list = [(&own[0], 1.5), (&own[1], -0.7), (&own[2], 0.2)];
        let (found, far) = combined(&list);
        assert!(!found.is_trainable() && found.identity().is_none());
        assert_eq!(found.config().alpha, 1.0);
        let mut furthest = 0.0_f64;
        for layer in 0..2 {
            let whole = summed(&list, layer);
            let (wanted, found) = (nearest(&whole), summed(&[(&found, 1.0)], layer));
            let off = distance(&found, &wanted) / length(&wanted);
            assert!(off < 1e-6, "seed {seed}, layer {layer}: {off}");
            furthest = furthest.max(distance(&whole, &wanted) / length(&whole));
        }
        assert!(furthest > 0.01 && (far - furthest).abs() < 1e-9, "seed {seed}: {far}, {furthest}");
    }
}

#[test]
fn one_adapter_is_its_own_combination() {
    let model = model();
    let own = adapter(&model, 0.5, 1);
    for weight in [1.0, -3.0, 1e-3] {
        let (found, far) = combined(&[(&own, weight)]);
        assert!(far < 1e-7, "{far}");
        for layer in 0..2 {
            let (wanted, found_sum) = (summed(&[(&own, weight)], layer), summed(&[(&found, 1.0)], layer));
            assert!(distance(&found_sum, &wanted) < 1e-6 * length(&wanted), "weight {weight}, layer {layer}");
            let ([_, mu, logvar], [_, own_mu, own_logvar]) = (halves(&found, layer), halves(&own, layer));
            assert_eq!(logvar, own_logvar);
            assert!(distance(&mu, &own_mu) < 1e-6 * length(&own_mu), "the product is split as the adapter splits it");
        }
    }
}

#[test]
fn adapters_that_share_one_vector_up_to_a_factor_are_summed_exactly() {
    let model = model();
    let first = adapter(&model, 1.0, 1);
    for (shares_lambda_d, factor) in [(true, 1.0), (true, -2.0), (false, 1.0), (false, -0.5)] {
        let mut second = adapter(&model, 1.0, 2);
        for layer in 0..2 {
            let ranges = first.ranges(layer).unwrap();
            let range = if shares_lambda_d { ranges.lambda_d } else { ranges.lambda_b };
            let shared: Vec<f32> = first.parameters().get(&range).iter().map(|value| value * factor).collect();
            second.parameters_mut().unwrap().get_mut(&range).copy_from_slice(&shared);
        }
        let list = [(&first, 0.6), (&second, 0.4)];
        let (found, far) = combined(&list);
        assert!(far < 1e-7, "{far}");
        for layer in 0..2 {
            let (wanted, found) = (summed(&list, layer), summed(&[(&found, 1.0)], layer));
            assert!(distance(&found, &wanted) < 1e-6 * length(&wanted), "{shares_lambda_d} {factor} {layer}");
        }
    }
}

/// Weights whose squares f64 does not hold, on vectors that bring the sum back to what f32 holds, or do not.
#[test]
fn weights_of_any_size_are_taken() {
    let model = model();
    let mut small = adapter(&model, 1.0, 1);
    small.parameters_mut().unwrap().all_mut().iter_mut().for_each(|value| *value *= 1e-10);
    let mut large = adapter(&model, 1.0, 1);
    for layer in 0..2 {
        let range = large.ranges(layer).unwrap().lambda_b;
        large.parameters_mut().unwrap().get_mut(&range).iter_mut().for_each(|value| *value *= 1e30);
    }
    for (own, weight) in [(&small, 1e40), (&large, 1e-60)] {
        let list = [(own, weight), (own, weight)];
        let (found, far) = combined(&list);
        assert!(far < 1e-7, "{far}");
        for layer in 0..2 {
            let (wanted, found) = (summed(&list, layer), summed(&[(&found, 1.0)], layer));
            assert!(distance(&found, &wanted) < 1e-6 * length(&wanted), "{weight} {layer}");
        }
    }
    for weight in [1e45, 1e160, f64::MAX] {
        let error = refused(&[(&large, weight), (&large, weight)]);
        assert_eq!(error.code(), Code::Overflow, "{weight}");
        assert_eq!(error.message(), "layer 'q': the combination is not finite");
    }
}

#[test]
fn logvar_halves_are_averaged_by_the_size_of_the_weights() {
    let model = model();
    let (first, second) = (adapter(&model, 1.0, 1), adapter(&model, 1.0, 2));
    let (found, _) = combined(&[(&first, 1.0), (&second, -3.0)]);
    for layer in 0..2 {
        let [one, two, found] = [&first, &second, &found].map(|adapter| halves(adapter, layer)[2].clone());
        let wanted: Vec<f64> = one.iter().zip(two).map(|(one, two)| 0.25 * one + 0.75 * two).collect();
        assert!(distance(&found, &wanted) < 1e-6 * length(&wanted));
    }
}

#[test]
fn what_adds_up_to_nothing_has_no_delta_and_goes_on_training() {
    let model = model();
    let (own, mut untrained) = (adapter(&model, 1.0, 1), adapter(&model, 1.0, 2));
    for layer in 0..2 {
        let range = untrained.ranges(layer).unwrap().lambda_b;
        untrained.parameters_mut().unwrap().get_mut(&range).fill(0.0);
    }
    for (list, mean) in
        [(vec![(&untrained, 2.0)], &untrained), (vec![(&own, 1.0), (&own, -1.0)], &own), (vec![(&own, 0.0)], &own)]
    {
        let (found, far) = combined(&list);
        assert_eq!(far, 0.0);
        for layer in 0..2 {
            let ([lambda_b, mu, logvar], [_, own_mu, own_logvar]) = (halves(&found, layer), halves(mean, layer));
            assert!(lambda_b.iter().all(|value| *value == 0.0), "{lambda_b:?}");
            assert_eq!((mu, logvar), (own_mu, own_logvar), "λ_d is no zero, from which no gradient would lead away");
        }
    }
}

/// Its one term of weight leads away from the largest pair, to which it is orthogonal.
#[test]
fn the_largest_pair_is_found_from_wherever_it_begins() {
    let model = model();
    let mut own = [adapter(&model, 1.0, 1), adapter(&model, 1.0, 2)];
    for (number, adapter) in own.iter_mut().enumerate() {
        for layer in 0..2 {
            let ranges = adapter.ranges(layer).unwrap();
            let parameters = adapter.parameters_mut().unwrap();
            parameters.get_mut(&ranges.lambda_b).fill(0.0);
            parameters.get_mut(&ranges.lambda_b)[number] = 1.0 + number as f32;
            parameters.get_mut(&ranges.lambda_d).fill(0.0);
            parameters.get_mut(&ranges.lambda_d)[number] = 1.0;
        }
    }
    let list = [(&own[0], 1.0), (&own[1], 1.0)];
    let (found, far) = combined(&list);
    for layer in 0..2 {
        assert_eq!(summed(&[(&found, 1.0)], layer), summed(&[(&own[1], 1.0)], layer));
    }
    assert!((far - 0.2f64.sqrt()).abs() < 1e-12, "{far}: 1 of 1² + 2² is left");
}

#[test]
fn what_cannot_be_combined_is_refused_by_name() {
    let (model, elsewhere) = (model(), model());
    let own = adapter(&model, 1.0, 1);
    let texts = |error: Error| (error.code(), error.message().to_owned());
    assert_eq!(texts(refused(&[])), (Code::Argument, "count is 0; wanted at least one adapter".into()));
    assert_eq!(
        texts(refused(&[(&own, 1.0), (&own, f64::NAN)])),
        (Code::Argument, "weights[1] is NaN; wanted a finite number".into())
    );
    let stranger = adapter(&elsewhere, 1.0, 1);
    assert_eq!(
        texts(refused(&[(&own, 1.0), (&stranger, 1.0)])),
        (Code::State, "adapters[1]: it was made for another model than adapters[0]".into())
    );
    let other_store = created(&model, &Config { projection_prng_key: 9, ..config(r#"["q", "v"]"#) });
    assert_eq!(
        texts(refused(&[(&own, 1.0), (&other_store, 1.0)])),
        (
            Code::Projection,
            "adapters[1]: its store is not that of adapters[0]; only adapters of one store can be combined".into()
        )
    );
    let options = LoadOptions::default();
    let narrow = Adapter::create(&model, &config(r#"["q"]"#), Some(own.store().clone()), &options).unwrap();
    let wanted = "adapters[1]: it and adapters[0] do not adapt the same layers: 'v'";
    assert_eq!(texts(refused(&[(&own, 1.0), (&narrow, 1.0)])), (Code::State, wanted.into()));
    assert_eq!(texts(refused(&[(&narrow, 1.0), (&own, 1.0)])), (Code::State, wanted.into()));
    let mut learns = config(r#"["q"]"#);
    learns.set_json("bias", r#""pvera_only""#).unwrap();
    let learned = Adapter::create(&model, &learns, Some(own.store().clone()), &options).unwrap();
    assert_eq!(
        texts(refused(&[(&learned, 1.0)])),
        (Code::Unsupported, "adapters[0]: it learned a bias for layer 'q'; biases cannot be combined".into())
    );
    assert_eq!(texts(refused(&[(&own, 1e300)])), (Code::Overflow, "layer 'q': the combination is not finite".into()));
}
