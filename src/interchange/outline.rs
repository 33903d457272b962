//! What a checkpoint folder holds, from its config and the header of its tensor file: no tensor is read.

use std::collections::BTreeSet;
use std::path::Path;

use safetensors::tensor::TensorInfo;

use super::tensor_file::TensorFile;
use crate::adapter::source::{CONFIG_FILE, Keys, LEARNED_BIAS, TENSOR_FILE, key_of, module_of, read_file};
use crate::config::{Config, LARGEST_FILE};
use crate::error::Result;
use crate::fail;

/// A checkpoint's config, and what its tensor file has for which module.
#[derive(Debug)]
pub struct Outline {
    pub config: Config,
    pub tensors: TensorFile,
    /// The adapted modules, by the order of their names.
    pub modules: Vec<Module>,
}

/// One adapted module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    pub path: String,
    /// Of λ_b, as the file has it: `[out_features]` in a sound one.
    pub lambda_b: Vec<usize>,
    pub learns_bias: bool,
}

impl Module {
    /// The module's out_features.
    pub fn outputs(&self) -> Result<usize> {
        match self.lambda_b[..] {
            [outputs] if outputs > 0 => Ok(outputs),
            _ => fail!(Shape, "λ_b of module '{}' has shape {:?}; wanted a vector", self.path, self.lambda_b),
        }
    }
}

impl Outline {
    /// Reads and checks the config, and the header of the tensor file. At least one module is adapted.
    pub fn read(folder: &Path) -> Result<Self> {
        let config_path = folder.join(CONFIG_FILE);
        let text = read_file(&config_path, LARGEST_FILE as u64)?;
        let config = Config::from_json(&text).map_err(|error| error.within(config_path.display()))?;
        let tensors = TensorFile::open(&folder.join(TENSOR_FILE))?;
        let lambda_b = Keys::of(config.method).lambda_b;
        let names = tensors.names();
        let paths: BTreeSet<&str> = names.iter().filter_map(|key| module_of(key, lambda_b)).collect();
        let module = |path: &str| Module {
            path: path.to_owned(),
            lambda_b: tensors.info(&key_of(path, lambda_b)).map(|info| info.shape.clone()).unwrap_or_default(),
            learns_bias: tensors.info(&key_of(path, LEARNED_BIAS)).is_some(),
        };
        let modules: Vec<Module> = paths.into_iter().map(module).collect();
        if modules.is_empty() {
            fail!(Format, "'{}' has no tensor 'base_model.model.MODULE{lambda_b}'", tensors.path().display());
        }
        Ok(Self { config, tensors, modules })
    }

    /// The key of a module's λ_b.
    pub fn lambda_b(&self, module: &str) -> String {
        key_of(module, self.keys().lambda_b)
    }

    /// A and B, where the file holds both.
    pub fn projections(&self) -> Option<(&TensorInfo, &TensorInfo)> {
        let Keys { a, b, .. } = self.keys();
        self.tensors.info(a).zip(self.tensors.info(b))
    }

    /// Tensors that are no vectors or projections of the adapter: heads of `modules_to_save`, biases of other modules.
    pub fn carried(&self) -> Vec<String> {
        let keys = self.keys();
        let own = |key: &String| {
            let of_module = [keys.lambda_b, keys.lambda_d].iter().any(|suffix| module_of(key, suffix).is_some());
            let bias = module_of(key, LEARNED_BIAS);
            let is_bias = bias.is_some_and(|path| self.modules.iter().any(|module| module.path == path));
            of_module || is_bias || key == keys.a || key == keys.b
        };
        self.tensors.names().into_iter().filter(|key| !own(key)).collect()
    }

    fn keys(&self) -> &'static Keys {
        Keys::of(self.config.method)
    }
}
