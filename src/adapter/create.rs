//! A new adapter, to be trained.

use std::sync::Arc;

use super::layout::Layout;
use super::projections::draw;
use super::{Adapter, LoadOptions, Parameters, Ranges, SavedDtypes, check_f32, check_store};
use crate::backend::Copies;
use crate::config::{Bias, Config, Targeting};
use crate::error::Result;
use crate::fail;
use crate::model::{Layer, Layers, Model};
use crate::noise::NormalKey;
use crate::projection::{Size, Store};
use crate::tensor::{Device, Dtype};

impl Adapter {
    /// A trainable adapter for the declared layers that the config targets: `λ_b = 0`, `λ_d = d_initial`.
    ///
    /// With a store given, its projections are used; otherwise they are drawn from the config's key, or shared with an
    /// adapter of the model that has the same ones.
    pub fn create(model: &Model, config: &Config, store: Option<Arc<Store>>, options: &LoadOptions) -> Result<Self> {
        config.validate()?;
        let layers = model.layers();
        check_f32(config)?;
        let targeting = Targeting::new(config, None)?;
        let mut layout = Layout::new(layers.len());
        let mut targeted = Vec::new();
        for (number, layer) in layers.iter().enumerate() {
            if targeting.matches(&layer.name, true, layer.output_head)? {
                layout.add(number, layer, config, config.bias != Bias::None && layer.bias.is_some());
                targeted.push(layer);
            }
        }
        if targeted.is_empty() {
            fail!(Config, "target_modules matches none of the {} declared layers", layers.len());
        }
        let store = match store {
            Some(store) => {
                check_store(&store, config)?;
                warn_if_not_from_key(model, config, &store, options)?;
                store
            }
            None => Arc::new(draw_for(model, config, &targeted, options)?),
        };
        for layer in &targeted {
            store.covers(&layer.name, layer.in_total, layer.out_total)?;
        }
        let store = model.stores().share(store);
        let mut parameters = Parameters::zeroed(model.allocator(), layout.total)?;
        for entry in &layout.entries {
            initialise(&mut parameters, &entry.ranges, layers.get(entry.layer)?, config)?;
        }
        Ok(Self::untrained(layers.clone(), config, store, layout, parameters, options.identity))
    }

    fn untrained(
        layers: Arc<Layers>,
        config: &Config,
        store: Arc<Store>,
        layout: Layout,
        parameters: Parameters,
        identity: Option<u64>,
    ) -> Self {
        let projections = store.saved_dtype();
        Self {
            layers,
            config: Arc::new(Config { inference_mode: true, ..config.clone() }),
            store,
            identity,
            parameters,
            layout: Arc::new(layout),
            tensors: Vec::new(),
            saved_dtypes: SavedDtypes { vectors: Dtype::F32, a: projections, b: projections },
            trainable: true,
            copies: Copies::default(),
        }
    }

    /// One adapter on one layer, whose vectors stay where the caller keeps them: what a standalone linear wraps.
    ///
    /// # Safety
    /// The pointers of `vectors` obey the rules of [`Adapter::trainable_in`].
    pub unsafe fn standalone(layer: Layer, config: &Config, store: Arc<Store>, vectors: &Apart) -> Result<Self> {
        config.validate()?;
        check_f32(config)?;
        check_store(&store, config)?;
        store.covers(&layer.name, layer.in_total, layer.out_total)?;
        let (out_total, has_bias) = (layer.out_total, layer.bias.is_some());
        if !vectors.bias.is_null() && !has_bias {
            fail!(
                State,
                "vectors.bias is given, but layer '{}' is declared without a bias for it to replace",
                layer.name
            );
        }
        let mut layers = Layers::default();
        let number = layers.declare(layer)?;
        let learns_bias = !vectors.bias.is_null();
        let bias_count = if learns_bias { out_total } else { 0 };
        // SAFETY: the caller's promise.
        let parameters = unsafe {
            Parameters::apart(
                (vectors.lambda_b, out_total),
                (vectors.lambda_d, config.a_rows()),
                (vectors.bias, bias_count),
                vectors.device,
            )?
        };
        let bias = if learns_bias { Bias::PveraOnly } else { Bias::None };
        let config = Config { bias, ..config.clone() };
        let mut layout = Layout::new(layers.len());
        layout.add(number, layers.get(number)?, &config, learns_bias);
        Ok(Self::untrained(Arc::new(layers), &config, store, layout, parameters, vectors.identity))
    }
}

/// The vectors of one layer in the caller's memory.
#[derive(Clone, Copy, Debug)]
pub struct Apart {
    /// `[out_total]`.
    pub lambda_b: *const f32,
    /// `[2r]`; `[r]` for VeRA.
    pub lambda_d: *const f32,
    /// `[out_total]`, or NULL.
    pub bias: *const f32,
    pub identity: Option<u64>,
    /// Where they lie.
    pub device: Device,
}

/// The store that PEFT would draw for these layers.
fn draw_for(model: &Model, config: &Config, layers: &[&Layer], options: &LoadOptions) -> Result<Store> {
    let largest_in = layers.iter().map(|layer| layer.in_total).max().unwrap_or(0);
    let largest_out = layers.iter().map(|layer| layer.out_total).max().unwrap_or(0);
    let in_max = options.in_max.unwrap_or(largest_in);
    let out_max = options.out_max.unwrap_or(largest_out);
    draw(model, config, layers, Size { method: config.method, rank: config.rank, in_max, out_max }, options.base_dtype)
}

/// A checkpoint without projections is worth nothing when its key draws others than those it was trained on.
fn warn_if_not_from_key(model: &Model, config: &Config, store: &Store, options: &LoadOptions) -> Result<()> {
    if config.save_projection {
        return Ok(());
    }
    let size = Size { method: store.method(), rank: store.rank(), in_max: store.in_max(), out_max: store.out_max() };
    let dtype = options.base_dtype.unwrap_or(Dtype::F32);
    let drawn = Store::from_key(model.allocator(), config.projection_prng_key, size, dtype)?;
    if !drawn.same_values(store) {
        model.listener().warning(&format!(
            "save_projection is false, but projection_prng_key {} does not draw the given store as {}; a saved checkpoint would come back with other projections",
            config.projection_prng_key,
            dtype.name()
        ));
    }
    Ok(())
}

/// As PEFT's `reset_pvera_parameters` and `reset_vera_parameters`; without `init_weights`, ones for λ_b and standard
/// normals for λ_d, drawn from the projection key, so that a run can be repeated.
fn initialise(parameters: &mut Parameters, ranges: &Ranges, layer: &Layer, config: &Config) -> Result<()> {
    if config.init_weights {
        parameters.get_mut(&ranges.lambda_d).fill(config.d_initial as f32);
    } else {
        parameters.get_mut(&ranges.lambda_b).fill(1.0);
        let key = NormalKey::new(config.projection_prng_key, layer.hash(), 0);
        key.fill(0, 0, false, parameters.get_mut(&ranges.lambda_d));
    }
    if let (Some(span), Some(bias)) = (&ranges.bias, &layer.bias) {
        let own = &mut parameters.get_mut(span)[layer.out_offset..layer.out_offset + layer.out_features];
        if bias.device() != Device::Host {
            fail!(
                Device,
                "layer '{}': its bias is on {}, and a learned bias starts from it; make the adapter on a model whose biases are on the CPU, then pvera_adapter_trainable_on",
                layer.name,
                bias.device()
            );
        }
        bias.load(0, 0, own);
    }
    Ok(())
}
