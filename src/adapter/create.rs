//! A new adapter, to be trained.

use std::sync::Arc;

use super::load::draw;
use super::parameters::Span;
use super::{Adapter, Entry, LoadOptions, Parameters, Ranges};
use crate::config::{Bias, Config, Targeting};
use crate::error::Result;
use crate::fail;
use crate::memory::Allocator;
use crate::model::{Layer, Layers, Model};
use crate::noise::NormalKey;
use crate::projection::{Size, Store};
use crate::tensor::Dtype;

impl Adapter {
    /// A trainable adapter for the declared layers that the config targets: `λ_b = 0`, `λ_d = d_initial`.
    ///
    /// With a store given, its projections are used; otherwise they are drawn from the config's key, or shared with an
    /// adapter of the model that has the same ones.
    pub fn create(model: &Model, config: &Config, store: Option<Arc<Store>>, options: &LoadOptions) -> Result<Self> {
        config.validate()?;
        let layers = model.layers();
        let targeting = Targeting::new(config, None)?;
        let mut numbers = Vec::new();
        for (number, layer) in layers.iter().enumerate() {
            if targeting.matches(&layer.name, true, layer.output_head)? {
                numbers.push(number);
            }
        }
        if numbers.is_empty() {
            fail!(Config, "target_modules matches none of the {} declared layers", layers.len());
        }
        let targeted = numbers.iter().map(|number| layers.get(*number)).collect::<Result<Vec<_>>>()?;
        let store = match store {
            Some(store) => checked_store(store, config)?,
            None => {
                let largest = |own: fn(&&&Layer) -> usize| targeted.iter().map(|layer| own(&layer)).max().unwrap_or(0);
                let in_max = options.in_max.unwrap_or(largest(|layer| layer.in_total));
                let out_max = options.out_max.unwrap_or(largest(|layer| layer.out_total));
                Arc::new(draw(
                    model,
                    config,
                    &targeted,
                    Size { rank: config.rank, in_max, out_max },
                    options.base_dtype,
                )?)
            }
        };
        for layer in &targeted {
            store.covers(&layer.name, layer.in_total, layer.out_total)?;
        }
        let store = model.stores().share(store);
        Self::blank(model.allocator(), layers.clone(), config, store, &numbers, options.identity)
    }

    fn blank(
        allocator: &Allocator,
        layers: Arc<Layers>,
        config: &Config,
        store: Arc<Store>,
        numbers: &[usize],
        identity: Option<u64>,
    ) -> Result<Self> {
        let mut total = 0;
        let mut entries = Vec::new();
        let mut of_layer = vec![None; layers.len()];
        for number in numbers {
            let layer = layers.get(*number)?;
            let mut span = |count: usize| {
                total += count;
                Span { start: total - count, count }
            };
            let (lambda_b, lambda_d) = (span(layer.out_total), span(2 * config.rank));
            let learns = Self::learns_biases(config) && layer.bias.is_some();
            let ranges = Ranges { lambda_b, lambda_d, bias: learns.then(|| span(layer.out_total)) };
            of_layer[*number] = Some(entries.len());
            entries.push(Entry { layer: *number, ranges, samples: config.sample_at_inference_for(&layer.name) });
        }
        let mut parameters = Parameters::zeroed(allocator, total)?;
        for entry in &entries {
            initialise(&mut parameters, &entry.ranges, layers.get(entry.layer)?, config);
        }
        Ok(Self {
            layers,
            config: Config { inference_mode: true, ..config.clone() },
            store,
            identity,
            parameters,
            entries,
            of_layer,
            tensors: Vec::new(),
            saved_dtype: Dtype::F32,
            trainable: true,
        })
    }

    /// One adapter on one layer, whose vectors stay where the caller keeps them: what a standalone linear wraps.
    ///
    /// # Safety
    /// The pointers of `vectors` obey the rules of [`Adapter::trainable_in`].
    pub unsafe fn standalone(layer: Layer, config: &Config, store: Arc<Store>, vectors: &Apart) -> Result<Self> {
        config.validate()?;
        let store = checked_store(store, config)?;
        let mut layers = Layers::default();
        store.covers(&layer.name, layer.in_total, layer.out_total)?;
        let (out_total, has_bias) = (layer.out_total, layer.bias.is_some());
        if !vectors.bias.is_null() && !has_bias {
            fail!(
                State,
                "vectors.bias is given, but layer '{}' is declared without a bias for it to replace",
                layer.name
            );
        }
        let number = layers.declare(layer)?;
        let bias_count = if vectors.bias.is_null() { 0 } else { out_total };
        let lengths = (out_total, 2 * config.rank, bias_count);
        // SAFETY: the caller's promise.
        let parameters = unsafe {
            Parameters::apart((vectors.lambda_b, lengths.0), (vectors.lambda_d, lengths.1), (vectors.bias, lengths.2))?
        };
        let own = Config { bias: if bias_count > 0 { Bias::PveraOnly } else { Bias::None }, ..config.clone() };
        let blank = Self::blank(&Allocator::default(), Arc::new(layers), &own, store, &[number], vectors.identity)?;
        Ok(Self { parameters, ..blank })
    }
}

/// The vectors of one layer in the caller's memory.
#[derive(Clone, Copy, Debug)]
pub struct Apart {
    /// `[out_total]`.
    pub lambda_b: *const f32,
    /// `[2r]`.
    pub lambda_d: *const f32,
    /// `[out_total]`, or NULL.
    pub bias: *const f32,
    pub identity: Option<u64>,
}

fn checked_store(store: Arc<Store>, config: &Config) -> Result<Arc<Store>> {
    if store.rank() != config.rank {
        fail!(Projection, "the store has rank {}; the config has r = {}", store.rank(), config.rank);
    }
    Ok(store)
}

/// As PEFT's `reset_pvera_parameters`; without `init_weights`, ones for λ_b and standard normals for λ_d, drawn from the
/// projection key, so that a run can be repeated.
fn initialise(parameters: &mut Parameters, ranges: &Ranges, layer: &Layer, config: &Config) {
    if config.init_weights {
        parameters.get_mut(&ranges.lambda_d).fill(config.d_initial as f32);
    } else {
        parameters.get_mut(&ranges.lambda_b).fill(1.0);
        let key = NormalKey::new(config.projection_prng_key, layer.hash(), 0);
        key.fill(0, 0, false, parameters.get_mut(&ranges.lambda_d));
    }
    if let (Some(span), Some(bias)) = (&ranges.bias, &layer.bias) {
        let own = &mut parameters.get_mut(span)[layer.out_offset..layer.out_offset + layer.out_features];
        bias.load(0, 0, own);
    }
}
