//! Whole layers, with several adapters, dropout, divergence and groups, against finite differences of a loss that is
//! written down here once more, from the vectors and keys alone: it shares no plan and no gather with the library.

use ndarray::{Array1, Array2};
use pvera::backend::reference::method::{Adapted, project};
use pvera::backend::{Kl, Mode, Weight};
use pvera::config::Config;
use pvera::linear::{Choice, Linear, Noise, Request, Rows};
use pvera::noise::{DropoutKey, NormalKey, layer_hash};

use crate::common::contexts;
use crate::common::host::Host;
use crate::common::layers::{Spec, config, spec};
use crate::common::setup::Setup;
use crate::common::tolerance::assert_close;

const STEP: f64 = 1e-5;
const SEED: u64 = 99;
const KL_WEIGHT: f64 = 0.4;

struct Term {
    adapted: Adapted,
    mask: Array2<f64>,
    eps: Array2<f64>,
}

struct Layer {
    weight: Option<Array2<f64>>,
    dy: Array2<f64>,
    terms: Vec<Term>,
}

struct Whole {
    x: Array2<f64>,
    layers: Vec<Layer>,
}

fn dense(host: &Host) -> Array2<f64> {
    let values = host.values().into_iter().map(f64::from).collect();
    Array2::from_shape_vec((host.rows(), host.cols()), values).unwrap()
}

fn weight(weight: Weight<'_>) -> Array2<f64> {
    Array2::from_shape_fn((weight.outputs(), weight.inputs()), |(output, input)| f64::from(weight.at(output, input)))
}

fn vector(values: &[f32]) -> Array1<f64> {
    values.iter().map(|value| f64::from(*value)).collect()
}

fn term(linear: &Linear, slot: i32, scale: f64, rows: usize) -> Term {
    let published = linear.slots().get(slot).unwrap();
    let (adapter, layer) = (&published.adapter, linear.layer());
    let (vectors, store) = (adapter.vectors(linear.index()).unwrap(), adapter.store());
    let hash = layer_hash(&layer.name);
    let (normal, dropout) =
        (NormalKey::new(SEED, hash, published.identity), DropoutKey::new(SEED, hash, published.identity));
    let mut eps = Array2::zeros((rows, store.rank()));
    let mut mask = Array2::ones((rows, layer.in_features));
    for row in 0..rows {
        let mut values = vec![0.0; store.rank()];
        normal.fill(row as u64, 0, false, &mut values);
        eps.row_mut(row).assign(&vector(&values));
        let mut values = vec![0.0; layer.in_features];
        dropout.fill(row as u64, 0, 0, adapter.config().pvera_dropout as f32, &mut values).unwrap();
        mask.row_mut(row).assign(&vector(&values));
    }
    let adapted = Adapted {
        a: weight(store.a_slice(0, layer.in_features)),
        b: weight(store.b_slice(0, layer.out_features)),
        lambda_d: vector(&vectors.lambda_d),
        lambda_b: vector(&vectors.lambda_b),
        scale: scale * adapter.config().alpha,
        mode: Mode::Sample,
        logvar_bound: f64::INFINITY,
    };
    Term { adapted, mask, eps }
}

impl Whole {
    fn loss(&self) -> f64 {
        let mut loss = 0.0;
        for layer in &self.layers {
            if let Some(weight) = &layer.weight {
                loss += (&layer.dy * &self.x.dot(&weight.t())).sum();
            }
            let entries: usize = layer.terms.iter().map(|term| term.eps.len()).sum();
            for Term { adapted, mask, eps } in &layer.terms {
                let p = project(&(&self.x * mask), &adapted.a);
                loss += (&layer.dy * &adapted.delta(&adapted.step(&p, eps))).sum();
                loss += KL_WEIGHT * adapted.kl(&p) / entries as f64;
            }
        }
        loss
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
}

#[test]
fn a_group_of_layers_with_two_adapters_and_dropout() {
    for dropout in [0.0, 0.35] {
        let specs = [spec("q", 9, 8), Spec { weight: None, ..spec("v", 9, 5) }];
        let configs = [Config { pvera_dropout: dropout, ..config(4, 1) }, Config { alpha: 3.0, ..config(2, 5) }];
        let setup = Setup::new(31, &specs, &configs, 6);
        let active = [(1, -0.5), (0, 1.0)];
        let linears = setup.linears();
        let layers = linears.iter().zip(&setup.dy).map(|(linear, dy)| Layer {
            weight: linear.layer().base().map(weight),
            dy: dense(dy),
            terms: active.iter().map(|(slot, scale)| term(linear, *slot, f64::from(*scale), 6)).collect(),
        });
        let mut whole = Whole { x: dense(&setup.x), layers: layers.collect() };
        let dx = whole.differences(|whole| whole.x.as_slice_mut().unwrap());
        let rows = Rows { choice: Choice::Sum(&active), ..Rows::default() };
        let request = Request { rows, noise: Noise { seed: SEED, ..Noise::default() }, training: true };
        for (backend, context) in contexts() {
            let found = setup.outcome(&context, &request, |step| step.kl = Kl { weight: KL_WEIGHT, mean: true });
            assert_close(&format!("dx, {dropout}, {backend}"), &found.dx.values(), &dx, 1e-5);
            for layer in 0..2 {
                for (place, (slot, _)) in active.iter().enumerate() {
                    let own = found.layers[layer].iter().find(|own| own.slot == *slot).unwrap();
                    let what = format!("layer {layer}, slot {slot}, {dropout}, {backend}");
                    let numeric = whole
                        .differences(|whole| whole.layers[layer].terms[place].adapted.lambda_b.as_slice_mut().unwrap());
                    assert_close(&format!("{what}: dλ_b"), &own.lambda_b, &numeric, 1e-5);
                    let numeric = whole
                        .differences(|whole| whole.layers[layer].terms[place].adapted.lambda_d.as_slice_mut().unwrap());
                    assert_close(&format!("{what}: dλ_d"), &own.lambda_d, &numeric, 1e-5);
                }
            }
        }
    }
}
