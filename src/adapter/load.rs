//! From the two files of a PEFT checkpoint to an adapter.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use safetensors::tensor::TensorView;
use safetensors::{Dtype as Stored, SafeTensors};

use super::layout::Layout;
use super::source::{Keys, LEARNED_BIAS, MODULE_PREFIX, Source, is_reserved, key_of, method_of, module_of};
use super::tensors::{ElementType, Tensor};
use super::{Adapter, Parameters, SavedDtypes, check_f32};
use crate::backend::Copies;
use crate::config::{Config, Method, Targeting, Targets};
use crate::error::{Code, Error, Result};
use crate::fail;
use crate::model::{Layers, Model};
use crate::tensor::Dtype;

/// What a caller may say about a checkpoint that its files do not.
#[derive(Clone, Copy, Debug, Default)]
pub struct LoadOptions {
    /// The largest sizes over all adapted layers of the whole model; needed where this program holds only some of them
    /// and the projections come from the key.
    pub in_max: Option<usize>,
    pub out_max: Option<usize>,
    /// Element type of the base model: projections from the key are rounded to it, as PEFT does.
    pub base_dtype: Option<Dtype>,
    /// Vectors of layers that are not declared here are carried along instead of being an error.
    pub ignore_undeclared: bool,
    /// Map the tensor file instead of reading it.
    pub map: bool,
    /// Number under which the adapter draws its noise; by default a hash of the name it is published under.
    pub identity: Option<u64>,
}

impl Adapter {
    /// Loads `adapter_config.json` and `adapter_model.safetensors` from a folder, for the model's layers.
    pub fn load(model: &Model, folder: &Path, options: &LoadOptions) -> Result<Self> {
        Self::from_source(model, &Source::folder(folder, options.map)?, options)
    }

    /// The same from memory; both are copied.
    pub fn from_memory(model: &Model, config: &[u8], tensors: &[u8], options: &LoadOptions) -> Result<Self> {
        Self::from_source(model, &Source::memory(config, tensors)?, options)
    }

    fn from_source(model: &Model, source: &Source, options: &LoadOptions) -> Result<Self> {
        let (config, targeting) = read_config(&source.config).map_err(|error| error.within(&source.config_name))?;
        let file = SafeTensors::deserialize(&source.tensors).map_err(|error| {
            Error::new(Code::Format, format!("{}: not a valid safetensors file: {error}", source.tensors_name))
        })?;
        let loading = Loading { model, layers: model.layers(), config, targeting, file, source, options };
        loading.adapter().map_err(|error| error.within(&source.tensors_name))
    }
}

/// The file's tensors by key.
pub(super) type Views<'a> = HashMap<String, TensorView<'a>>;

pub(super) struct Loading<'a> {
    pub model: &'a Model,
    pub layers: Arc<Layers>,
    pub config: Config,
    targeting: Option<Targeting>,
    file: SafeTensors<'a>,
    pub source: &'a Source,
    pub options: &'a LoadOptions,
}

impl Loading<'_> {
    /// What the config's method calls its tensors.
    pub fn keys(&self) -> &'static Keys {
        Keys::of(self.config.method)
    }

    fn adapter(mut self) -> Result<Adapter> {
        let views: Views<'_> = self.file.tensors().into_iter().collect();
        self.check_modules(&views)?;
        let mut layout = Layout::new(self.layers.len());
        for (number, layer) in self.layers.iter().enumerate() {
            if views.contains_key(&key_of(&layer.name, self.keys().lambda_b)) {
                let learns_bias = views.contains_key(&key_of(&layer.name, LEARNED_BIAS));
                layout.add(number, layer, &self.config, learns_bias);
            }
        }
        self.check_targets(&layout)?;
        let parameters = self.parameters(&views, &layout)?;
        let saved_dtypes = self.saved_dtypes(&views, &layout)?;
        let store = self.store(&views, &layout)?;
        for entry in &layout.entries {
            let layer = self.layers.get(entry.layer)?;
            store.covers(&layer.name, layer.in_total, layer.out_total)?;
        }
        let tensors = self.other_tensors(&views, &layout)?;
        // Projections that are used although the config says otherwise would be lost at the next save.
        self.config.save_projection |= views.contains_key(self.keys().a);
        Ok(Adapter {
            layers: self.layers,
            config: Arc::new(self.config),
            store,
            identity: self.options.identity,
            parameters,
            layout: Arc::new(layout),
            tensors,
            saved_dtypes,
            trainable: false,
            copies: Copies::default(),
        })
    }

    /// Every module of the file is declared, and has both vectors, of the right lengths and types.
    fn check_modules(&self, views: &Views<'_>) -> Result<()> {
        let mut keys: Vec<&String> = views.keys().collect();
        keys.sort();
        let (own, method) = (self.keys(), self.config.method);
        let mut adapts_any = false;
        for key in keys {
            if let Some(module) = module_of(key, own.lambda_b) {
                self.check_partner(views, key, &key_of(module, own.lambda_d))?;
                self.check_module(views, module)?;
                adapts_any = true;
            } else if let Some(module) = module_of(key, own.lambda_d) {
                self.check_partner(views, key, &key_of(module, own.lambda_b))?;
            } else if let Some(other) = method_of(key).filter(|other| *other != method) {
                fail!(Format, "tensor '{key}' is of {}; peft_type of the config is {}", other.name(), method.name());
            } else if is_reserved(key) && key != own.a && key != own.b {
                let prefix = if method == Method::Vera { "vera" } else { "pvera" };
                fail!(Format, "tensor '{key}' is not named '{MODULE_PREFIX}MODULE.{prefix}_…', as PEFT writes it");
            }
        }
        if !adapts_any {
            let (suffix, name) = (own.lambda_b, if method == Method::Vera { "VeRA" } else { "PVeRA" });
            fail!(Format, "there is no tensor '{MODULE_PREFIX}MODULE{suffix}'; wanted a {name} adapter's vectors");
        }
        Ok(())
    }

    fn check_partner(&self, views: &Views<'_>, key: &str, partner: &str) -> Result<()> {
        if !views.contains_key(partner) {
            fail!(Format, "tensor '{key}' is there, but '{partner}' is not");
        }
        Ok(())
    }

    /// The vectors of one module, both of which are there.
    fn check_module(&self, views: &Views<'_>, module: &str) -> Result<()> {
        let own = self.keys();
        let (b_key, d_key, bias_key) =
            (key_of(module, own.lambda_b), key_of(module, own.lambda_d), key_of(module, LEARNED_BIAS));
        // The rank decides how much is drawn from a key, so the file must confirm what the config says of it, even
        // for a layer that is not declared.
        let of_config = if self.config.method == Method::Vera { "r of the config" } else { "2r of the config" };
        check_vector(&d_key, &views[&d_key], self.config.a_rows(), of_config)?;
        let layer = match self.layers.find(module) {
            Ok(number) => self.layers.get(number)?,
            Err(_) if self.options.ignore_undeclared => return Ok(()),
            Err(_) => fail!(
                NotFound,
                "the file adapts layer '{module}', which is not declared; declare it, or set ignore_undeclared"
            ),
        };
        let of_layer = "out_total of the layer";
        check_vector(&b_key, &views[&b_key], layer.out_total, of_layer)?;
        views.get(&bias_key).map_or(Ok(()), |view| check_vector(&bias_key, view, layer.out_total, of_layer))
    }

    /// A layer that the config targets has its vectors in the file; vectors of one that it does not target are strange,
    /// but configs are edited by hand.
    fn check_targets(&self, layout: &Layout) -> Result<()> {
        let Some(targeting) = &self.targeting else { return Ok(()) };
        for (number, layer) in self.layers.iter().enumerate() {
            let targeted = targeting.matches(&layer.name, true, layer.output_head)?;
            match (targeted, layout.find(number)) {
                (true, None) => {
                    fail!(Format, "the config targets layer '{}', but the file has no vectors for it", layer.name)
                }
                (false, Some(_)) => self.model.listener().warning(&format!(
                    "{}: the file has vectors for layer '{}', which the config does not target; they are used, but PEFT would leave them out",
                    self.source.tensors_name, layer.name
                )),
                _ => {}
            }
        }
        Ok(())
    }

    fn parameters(&self, views: &Views<'_>, layout: &Layout) -> Result<Parameters> {
        let mut parameters = Parameters::zeroed(self.model.allocator(), layout.total)?;
        for entry in &layout.entries {
            let name = &self.layers.get(entry.layer)?.name;
            let parts = [
                (self.keys().lambda_b, Some(entry.ranges.lambda_b)),
                (self.keys().lambda_d, Some(entry.ranges.lambda_d)),
                (LEARNED_BIAS, entry.ranges.bias),
            ];
            for (suffix, span) in parts {
                let Some(span) = span else { continue };
                let key = key_of(name, suffix);
                let view = &views[&key];
                let target = parameters.get_mut(&span);
                widen(view.data(), dtype_of(&key, view.dtype())?, target);
                if let Some(place) = target.iter().position(|value| !value.is_finite()) {
                    fail!(Format, "tensor '{key}' holds {} at {place}; wanted finite numbers", target[place]);
                }
            }
        }
        Ok(parameters)
    }

    fn saved_dtypes(&self, views: &Views<'_>, layout: &Layout) -> Result<SavedDtypes> {
        let of = |key: &str| views.get(key).map_or(Ok(Dtype::F32), |view| dtype_of(key, view.dtype()));
        let first = layout.entries.first().map(|entry| self.layers.get(entry.layer)).transpose()?;
        let vectors = first.map_or(Ok(Dtype::F32), |layer| of(&key_of(&layer.name, self.keys().lambda_b)))?;
        Ok(SavedDtypes { vectors, a: of(self.keys().a)?, b: of(self.keys().b)? })
    }

    fn other_tensors(&self, views: &Views<'_>, layout: &Layout) -> Result<Vec<Tensor>> {
        let Keys { a, b, lambda_b, lambda_d } = *self.keys();
        let mut own = HashSet::from([a.to_owned(), b.to_owned()]);
        for entry in &layout.entries {
            let name = &self.layers.get(entry.layer)?.name;
            own.extend([lambda_b, lambda_d, LEARNED_BIAS].map(|suffix| key_of(name, suffix)));
        }
        let mut tensors = Vec::new();
        for (key, view) in views.iter().filter(|(key, _)| !own.contains(*key)) {
            tensors.push(Tensor::copied(key, ElementType(view.dtype()), view.shape(), view.data())?);
        }
        tensors.sort_by(|first, second| first.name.cmp(&second.name));
        Ok(tensors)
    }
}

/// The config and what it targets: None where PEFT would look null target_modules up by the model's type, which the
/// config does not say.
fn read_config(bytes: &[u8]) -> Result<(Config, Option<Targeting>)> {
    let config = Config::from_json(bytes)?;
    check_f32(&config)?;
    let targeting = match config.target_modules {
        Targets::None => None,
        _ => Some(Targeting::new(&config, None)?),
    };
    Ok((config, targeting))
}

fn check_vector(key: &str, view: &TensorView<'_>, wanted: usize, of: &str) -> Result<()> {
    dtype_of(key, view.dtype())?;
    if view.shape() != [wanted] {
        fail!(Shape, "tensor '{key}' has shape {:?}; wanted [{wanted}], {of}", view.shape());
    }
    Ok(())
}

pub(crate) fn dtype_of(key: &str, stored: Stored) -> Result<Dtype> {
    match stored {
        Stored::F32 => Ok(Dtype::F32),
        Stored::F16 => Ok(Dtype::F16),
        Stored::BF16 => Ok(Dtype::Bf16),
        other => fail!(Dtype, "tensor '{key}' holds {other:?}; wanted F32, F16 or BF16"),
    }
}

/// Widens stored little-endian elements of any alignment.
pub(crate) fn widen(bytes: &[u8], dtype: Dtype, out: &mut [f32]) {
    match dtype {
        Dtype::F32 => out
            .iter_mut()
            .zip(bytes.chunks_exact(4))
            .for_each(|(out, bytes)| *out = f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])),
        Dtype::F16 => out
            .iter_mut()
            .zip(bytes.chunks_exact(2))
            .for_each(|(out, bytes)| *out = half::f16::from_le_bytes([bytes[0], bytes[1]]).to_f32()),
        Dtype::Bf16 => out
            .iter_mut()
            .zip(bytes.chunks_exact(2))
            .for_each(|(out, bytes)| *out = half::bf16::from_le_bytes([bytes[0], bytes[1]]).to_f32()),
    }
}
