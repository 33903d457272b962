//! Models of random weights, and adapters of random vectors.

use std::sync::Arc;

use pvera::adapter::{Adapter, LoadOptions};
use pvera::config::{Config, Targets};
use pvera::linear::Linear;
use pvera::memory::Allocator;
use pvera::model::{Layer, Model, Silent, Snapshot, WeightLayout};
use pvera::tensor::Dtype;

use super::Random;
use super::host::Host;

/// A layer to be declared.
#[derive(Clone)]
pub struct Spec {
    pub name: String,
    pub inputs: usize,
    pub outputs: usize,
    pub weight: Option<Dtype>,
    pub layout: WeightLayout,
    pub bias: bool,
    pub padding: usize,
}

pub fn spec(name: &str, inputs: usize, outputs: usize) -> Spec {
    Spec {
        name: name.to_owned(),
        inputs,
        outputs,
        weight: Some(Dtype::F32),
        layout: WeightLayout::OutIn,
        bias: true,
        padding: 0,
    }
}

pub fn empty_model() -> Model {
    Model::new(Allocator::default(), Box::new(Silent))
}

pub fn declared(spec: &Spec) -> Layer {
    Layer::whole(spec.name.clone(), spec.inputs, spec.outputs)
}

pub fn model(random: &mut Random, specs: &[Spec]) -> Model {
    let model = empty_model();
    for spec in specs {
        let mut layer = declared(spec);
        if let Some(dtype) = spec.weight {
            let (rows, cols) = match spec.layout {
                WeightLayout::OutIn => (spec.outputs, spec.inputs),
                WeightLayout::InOut => (spec.inputs, spec.outputs),
            };
            let scale = 1.0 / (spec.inputs as f32).sqrt();
            let values: Vec<f32> = random.values(rows * cols).iter().map(|value| value * scale).collect();
            layer.weight = Some((Host::new(dtype, rows, cols, spec.padding, &values).leaked(), spec.layout));
        }
        if spec.bias {
            layer.bias = Some(Host::f32(1, spec.outputs, &random.values(spec.outputs)).leaked());
        }
        model.declare(layer).unwrap();
    }
    model
}

pub fn config(rank: usize, key: u64) -> Config {
    Config { rank, projection_prng_key: key, target_modules: Targets::Pattern(".*".to_owned()), ..Config::default() }
}

/// A trainable adapter whose every vector is random.
pub fn trainable(model: &Model, random: &mut Random, config: &Config, options: &LoadOptions) -> Adapter {
    let mut adapter = Adapter::create(model, config, None, options).unwrap();
    let values = adapter.parameters_mut().unwrap().all_mut();
    values.iter_mut().for_each(|value| *value = random.uniform());
    adapter
}

/// Publishes one adapter of random vectors for each config, in slots 0, 1, …
pub fn publish(model: &Model, random: &mut Random, configs: &[Config]) -> Snapshot {
    for (number, config) in configs.iter().enumerate() {
        let adapter = trainable(model, random, config, &LoadOptions::default());
        assert_eq!(model.publish(&format!("adapter {number}"), Arc::new(adapter)).unwrap(), number as i32);
    }
    model.snapshot().unwrap()
}

pub fn linears(snapshot: &Snapshot, count: usize) -> Vec<&Linear> {
    (0..count).map(|layer| snapshot.linear(layer).unwrap()).collect()
}
