//! From paths and options to adapters of a model whose layers nobody runs: only their sizes matter here.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pvera::adapter::{Adapter, LoadOptions};
use pvera::bank::FamilyOutline;
use pvera::error::Code;
use pvera::interchange::{ModelFiles, Module, Outline, declare_layers};
use pvera::memory::Allocator;
use pvera::model::{Layer, Model};
use pvera::tensor::Dtype;

use crate::args::{Inputs, LayerArgs};
use crate::listener::Ear;
use crate::outcome::{Failure, Result};
use crate::privacy::made_of;

pub const CONFIG_FILE: &str = "adapter_config.json";
pub const TENSOR_FILE: &str = "adapter_model.safetensors";

/// How much has to be known of the layers' inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Each layer's own: what is written has that shape.
    Each,
    /// Enough to draw projections: the largest.
    Largest,
    /// Nothing: only what the checkpoint holds is looked at.
    None,
}

/// A model of nothing but sizes, and the element type of its weights, where that is known.
pub struct Host {
    pub model: Arc<Model>,
    base_dtype: Option<Dtype>,
}

/// The folder of a checkpoint, of which one of the two files may be named.
pub fn folder_of(path: &Path) -> PathBuf {
    let names_a_file = path.file_name().is_some_and(|name| name == CONFIG_FILE || name == TENSOR_FILE);
    match path.parent() {
        Some(parent) if names_a_file && parent.as_os_str().is_empty() => PathBuf::from("."),
        Some(parent) if names_a_file => parent.to_owned(),
        _ => path.to_owned(),
    }
}

/// The same, where another kind of file would not do.
pub fn checkpoint_of(path: &Path) -> Result<PathBuf> {
    if is_bank(path) {
        let message = format!("'{}' is a bank of adapters; wanted a checkpoint folder", path.display());
        return Err(Failure::new(Code::Argument, message)
            .hint("pvera bank extract BANK NAME OUT writes one of its adapters as such a folder"));
    }
    Ok(folder_of(path))
}

/// Whether a file begins as a bank does.
pub fn is_bank(path: &Path) -> bool {
    let mut magic = [0; 8];
    let begins = |mut file: File| file.read_exact(&mut magic).is_ok();
    path.is_file() && File::open(path).is_ok_and(begins) && magic == *b"pverabnk"
}

/// What is written does not take the place of what is read: `out` is none of these checkpoints or files, and holds none. It is
/// not more public than they are, either.
pub fn guard_inputs(out: &Path, inputs: &[&Path]) -> Result<()> {
    made_of(inputs);
    let Ok(target) = out.canonicalize() else { return Ok(()) };
    for input in inputs {
        let files = [input.to_path_buf(), input.join(CONFIG_FILE), input.join(TENSOR_FILE)];
        if files.iter().filter_map(|path| path.canonicalize().ok()).any(|path| path.starts_with(&target)) {
            let message =
                format!("'{}' is to be written, and is or holds what is read: '{}'", out.display(), input.display());
            return Err(Failure::new(Code::Argument, message).hint("another OUT is wanted"));
        }
    }
    Ok(())
}

/// Inputs and outputs of layers, by their paths.
pub struct Sizes<'a> {
    layers: &'a LayerArgs,
    /// The headers of --model.
    files: Option<ModelFiles>,
    known: BTreeMap<String, (usize, usize)>,
}

impl<'a> Sizes<'a> {
    pub fn new(layers: &'a LayerArgs) -> Result<Self> {
        let files = layers.model.as_deref().map(ModelFiles::open).transpose()?;
        Ok(Self { layers, files, known: BTreeMap::new() })
    }

    /// Of a checkpoint's layers.
    pub fn add(&mut self, folder: &Path, outline: &Outline, need: Need, ear: &Ear) -> Result<Option<Dtype>> {
        if let Some(files) = &self.files {
            let model = bare(ear);
            let declared = declare_layers(&model, folder, files, &self.layers.prefix)?;
            for layer in model.layers().iter() {
                self.put(&layer.name, layer.in_total, layer.out_total)?;
            }
            return Ok(declared.dtype);
        }
        for module in &outline.modules {
            let inputs = inputs_of(&self.layers.inputs, module, outline, need)?;
            self.put(&module.path, inputs, module.outputs()?)?;
        }
        Ok(None)
    }

    /// The largest inputs and outputs.
    pub fn largest(&self) -> (usize, usize) {
        let of = |size: fn(&(usize, usize)) -> usize| self.known.values().map(size).max().unwrap_or(0);
        (of(|sizes| sizes.0), of(|sizes| sizes.1))
    }

    /// Of the layers of a bank's families.
    pub fn add_family(&mut self, family: &FamilyOutline) -> Result<()> {
        family.layers.iter().try_for_each(|layer| self.put(&layer.name, family.in_max, layer.outputs))
    }

    /// The first to say how many inputs a layer has is believed: others may only know that there are no more.
    fn put(&mut self, layer: &str, inputs: usize, outputs: usize) -> Result<()> {
        let known = self.known.entry(layer.to_owned()).or_insert((inputs, outputs)).1;
        if known != outputs {
            let message = format!("layer '{layer}' has {known} outputs in one adapter and {outputs} in another");
            return Err(Failure::new(Code::Shape, message).hint("adapters of one network are wanted"));
        }
        Ok(())
    }

    /// With the inputs that its rows have, where the bank or checkpoint only told how many there may be.
    pub fn set_inputs(&mut self, layer: &str, inputs: usize) -> Result<usize> {
        match self.known.get_mut(layer) {
            Some((known, _)) if self.files.is_some() && *known != inputs => {
                let message =
                    format!("--input has rows of {inputs}; wanted {known}, the inputs of layer '{layer}' in --model");
                Err(Failure::new(Code::Shape, message))
            }
            Some(sizes) => {
                sizes.0 = inputs;
                Ok(sizes.1)
            }
            None => {
                let like: Vec<&str> = self.known.keys().map(String::as_str).take(20).collect();
                Err(Failure::new(Code::NotFound, format!("no layer '{layer}' is adapted"))
                    .hint(format!("adapted are {}", like.join(", "))))
            }
        }
    }

    /// A model of them, with one of the layers as it is given.
    pub fn declared(&self, mut given: Option<Layer>, ear: &Ear) -> Result<Arc<Model>> {
        let model = bare(ear);
        for (path, (inputs, outputs)) in &self.known {
            let own = given.take_if(|layer| layer.name == *path);
            model.declare(own.unwrap_or_else(|| Layer::whole(path.as_str(), *inputs, *outputs)))?;
        }
        Ok(Arc::new(model))
    }
}

fn bare(ear: &Ear) -> Model {
    Model::new(Allocator::default(), Box::new(ear.clone()))
}

/// A module's inputs: as the options say it, or as wide as A.
fn inputs_of(given: &[Inputs], module: &Module, outline: &Outline, need: Need) -> Result<usize> {
    let names = |inputs: &&Inputs| {
        let tail = |name: &String| {
            module.path == *name || module.path.strip_suffix(name.as_str()).is_some_and(|before| before.ends_with('.'))
        };
        inputs.module.as_ref().is_some_and(tail)
    };
    let told = given.iter().rfind(names).or_else(|| given.iter().rfind(|inputs| inputs.module.is_none()));
    let saved = outline.projections().and_then(|(a, _)| a.shape.get(1).copied()).filter(|width| *width > 0);
    let missing = |why: &str| {
        let message = format!(
            "'{}' does not say how many inputs layer '{}' has{why}",
            outline.tensors.path().display(),
            module.path
        );
        Err(Failure::new(Code::Argument, message)
            .hint("--model PATH reads it from the base model's headers; --inputs N or --inputs MODULE=N tells it"))
    };
    match (told, saved, need) {
        (Some(told), ..) => Ok(told.count),
        // The largest of one is its own.
        (None, Some(width), Need::Each) if outline.modules.len() == 1 => Ok(width),
        (None, _, Need::Each) => missing(", and what is written has that shape"),
        (None, Some(width), _) => Ok(width),
        (None, None, Need::Largest) => missing(", of which its key draws the projections"),
        (None, None, Need::None) => Ok(1),
    }
}

impl Host {
    /// A model of the layers that these checkpoints adapt.
    pub fn of(layers: &LayerArgs, folders: &[&Path], need: Need, ear: &Ear) -> Result<Self> {
        let mut sizes = Sizes::new(layers)?;
        let mut dtypes = Vec::new();
        for folder in folders {
            dtypes.push(sizes.add(folder, &Outline::read(folder)?, need, ear)?);
        }
        Self::with(&sizes, &dtypes, None, ear)
    }

    pub fn with(sizes: &Sizes<'_>, dtypes: &[Option<Dtype>], given: Option<Layer>, ear: &Ear) -> Result<Self> {
        let alike = dtypes.first().copied().flatten().filter(|first| dtypes.iter().all(|dtype| *dtype == Some(*first)));
        Ok(Self { model: sizes.declared(given, ear)?, base_dtype: sizes.layers.base_dtype.map(Dtype::from).or(alike) })
    }

    pub fn load(&self, folder: &Path, identity: Option<u64>) -> Result<Arc<Adapter>> {
        let options = LoadOptions { base_dtype: self.base_dtype, identity, ..LoadOptions::default() };
        Ok(Arc::new(Adapter::load(&self.model, folder, &options)?))
    }
}
