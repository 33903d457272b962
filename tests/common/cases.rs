//! Networks whose projections are stored in a given form, on shards or whole, with base weights packed or as they lie.

use std::sync::Arc;

use half::{bf16, f16};
use pvera::adapter::{Adapter, LoadOptions};
use pvera::backend::cpu::Uses;
use pvera::backend::cpu::panels::{Element, Panels};
use pvera::config::Config;
use pvera::memory::Allocator;
use pvera::model::{Model, WeightLayout};
use pvera::projection::{Frozen, Store};
use pvera::tensor::Dtype;

use super::Random;
use super::host::Host;
use super::layers::{Spec, config, declared, empty_model};
use super::setup::Setup;

/// The form in which the kernels keep a projection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    F32,
    Bf16,
    F16,
    /// Integers times one scale.
    Int8,
}

pub const STORED: [Stored; 4] = [Stored::F32, Stored::Bf16, Stored::F16, Stored::Int8];

/// Three adapters: two on one pair of projections, with dropout and without, and one on another pair.
pub fn adapters(stored: Stored) -> Vec<(Config, Stored)> {
    let config = |rank, key, dropout| Config { pvera_dropout: dropout, ..config(rank, key) };
    vec![(config(19, 1, 0.25), stored), (config(19, 1, 0.0), stored), (config(5, 2, 0.25), Stored::F32)]
}

impl Stored {
    /// Random values that this form holds exactly, about as large as `size`.
    pub fn values(self, random: &mut Random, rows: usize, cols: usize, size: f32) -> Vec<f32> {
        let mut values: Vec<f32> = random.values(rows * cols).iter().map(|value| value * size).collect();
        match self {
            Stored::F32 => {}
            Stored::Bf16 => values.iter_mut().for_each(|value| *value = bf16::from_f32(*value).to_f32()),
            Stored::F16 => values.iter_mut().for_each(|value| *value = f16::from_f32(*value).to_f32()),
            Stored::Int8 => {
                // No −0, which is no integer.
                let scale = grid(size);
                values
                    .iter_mut()
                    .for_each(|value| *value = (*value / scale).round().clamp(-127.0, 127.0) * scale + 0.0);
                // Every part of the matrix has the same largest value, and with it the same scale.
                (0..rows).for_each(|row| values[row * cols] = 127.0 * scale);
            }
        }
        values
    }
}

/// A scale that comes back from its largest multiple, and is no power of two.
pub fn grid(size: f32) -> f32 {
    let candidates = (0..100).map(|step| size / 127.0 * (1.0 + step as f32 / 300.0));
    let exact = |scale: &f32| (127.0 * scale) / 127.0 == *scale && scale.to_bits() & 0x7f_ffff != 0;
    candidates.into_iter().find(exact).expect("one of a hundred")
}

#[derive(Clone)]
pub struct Case {
    pub rows: usize,
    pub layers: Vec<Spec>,
    /// Where the layers' inputs and outputs begin in the whole layers.
    pub offsets: (usize, usize),
    pub adapters: Vec<(Config, Stored)>,
    /// Whether base weights are packed for the kernels.
    pub packed: bool,
    /// Of x and dy.
    pub dtype: Dtype,
}

impl Case {
    pub fn new(rows: usize, layers: &[Spec], adapters: &[(Config, Stored)]) -> Self {
        let (layers, adapters) = (layers.to_vec(), adapters.to_vec());
        Self { rows, layers, offsets: (0, 0), adapters, packed: false, dtype: Dtype::F32 }
    }

    pub fn setup(&self, seed: u64) -> Setup {
        let mut random = Random(seed);
        let model = self.model(&mut random);
        for (number, (config, stored)) in self.adapters.iter().enumerate() {
            let store = Arc::new(self.store(config, *stored));
            let mut adapter = Adapter::create(&model, config, Some(store), &LoadOptions::default()).unwrap();
            adapter.parameters_mut().unwrap().all_mut().iter_mut().for_each(|value| *value = random.uniform());
            model.publish(&format!("adapter {number}"), adapter.into()).unwrap();
        }
        let mut batch = |cols: usize| Host::f32(self.rows, cols, &random.values(self.rows * cols));
        let x = batch(self.layers[0].inputs);
        let dy = self.layers.iter().map(|layer| batch(layer.outputs)).collect();
        let slots = (0..self.adapters.len() as i32).collect();
        let setup = Setup { snapshot: model.snapshot().unwrap(), x, dy, slots, random };
        for linear in setup.linears().into_iter().filter(|linear| self.packed && linear.base().is_some()) {
            linear.pack_base(Uses { forward: true, backward: true }).unwrap();
        }
        if self.dtype == Dtype::F32 { setup } else { setup.in_type(self.dtype, 1) }
    }

    fn model(&self, random: &mut Random) -> Model {
        let model = empty_model();
        for spec in &self.layers {
            let mut layer = declared(spec);
            (layer.in_offset, layer.out_offset) = self.offsets;
            // One feature more behind a shard.
            let whole = |offset: usize, features: usize| if offset == 0 { features } else { offset + features + 1 };
            layer.in_total = whole(self.offsets.0, spec.inputs);
            layer.out_total = whole(self.offsets.1, spec.outputs);
            if let Some(dtype) = spec.weight {
                let (rows, cols) = match spec.layout {
                    WeightLayout::OutIn => (spec.outputs, spec.inputs),
                    WeightLayout::InOut => (spec.inputs, spec.outputs),
                };
                let size = 1.0 / (spec.inputs as f32).sqrt();
                let values: Vec<f32> = random.values(rows * cols).iter().map(|value| value * size).collect();
                layer.weight = Some((Host::new(dtype, rows, cols, spec.padding, &values).leaked(), spec.layout));
            }
            if spec.bias {
                layer.bias = Some(Host::f32(1, spec.outputs, &random.values(spec.outputs)).leaked());
            }
            model.declare(layer).unwrap();
        }
        model
    }

    /// A and B under the config's key, in the wanted form.
    fn store(&self, config: &Config, stored: Stored) -> Store {
        let (rank, mut random) = (config.rank, Random(config.projection_prng_key));
        let inputs = self.offsets.0 + self.layers[0].inputs + 1;
        let outputs = self.offsets.1 + self.layers.iter().map(|layer| layer.outputs).max().unwrap() + 1;
        let mut frozen = |rows: usize, cols: usize| {
            let values = stored.values(&mut random, rows, cols, 1.0 / (cols as f32).sqrt());
            Frozen::from_f32(&Allocator::default(), &values, rows, cols).unwrap()
        };
        let (a, b) = (frozen(2 * rank, inputs), frozen(outputs, rank));
        for matrix in [&a, &b] {
            if matrix.rows() * matrix.cols() >= 32 {
                let panels = Panels::new(&Allocator::default(), &matrix.weight(), false).unwrap();
                assert_eq!(panels.element(), stored.element());
            }
        }
        Store::new(a, b, Dtype::F32).unwrap()
    }
}

impl Stored {
    pub fn element(self) -> Element {
        match self {
            Stored::F32 => Element::F32,
            Stored::Bf16 => Element::Bf16,
            Stored::F16 => Element::F16,
            Stored::Int8 => Element::Int8,
        }
    }
}
