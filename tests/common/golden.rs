//! The golden cases: reading them, and building the model that each describes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use pvera::adapter::{Adapter, LoadOptions};
use pvera::config::{Config, Method};
use pvera::model::{Layer, Model, Snapshot, WeightLayout};
use pvera::tensor::{Dtype, Matrix};
use safetensors::SafeTensors;

use super::host::Host;
use super::layers::{declared, empty_model, spec};

/// `tests/golden`, or another folder of such cases.
pub fn root() -> PathBuf {
    let own = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden");
    std::env::var_os("PVERA_GOLDEN").map_or_else(|| own.into(), Into::into)
}

/// Every case, by name.
pub fn names() -> Vec<String> {
    let folders = std::fs::read_dir(root()).unwrap().map(|entry| entry.unwrap().path());
    let mut names: Vec<String> = folders
        .filter(|path| path.join("case.json").exists())
        .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
        .collect();
    names.sort();
    assert_eq!(names.len(), 14, "{names:?}");
    names
}

#[derive(Clone, Debug)]
pub struct Tensor {
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    pub values: Vec<f32>,
}

impl Tensor {
    pub fn host(&self) -> Host {
        let (rows, cols) = if self.shape.len() == 1 { (1, self.shape[0]) } else { (self.shape[0], self.shape[1]) };
        Host::new(self.dtype, rows, cols, 0, &self.values)
    }
}

pub type Tensors = BTreeMap<String, Tensor>;

pub fn read(path: &Path) -> Tensors {
    let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let file = SafeTensors::deserialize(&bytes).unwrap();
    file.iter()
        .map(|(key, view)| {
            let words = |widen: fn([u8; 2]) -> f32| view.data().chunks_exact(2).map(|b| widen([b[0], b[1]])).collect();
            let (dtype, values) = match view.dtype() {
                safetensors::Dtype::F32 => {
                    let floats = view.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap()));
                    (Dtype::F32, floats.collect())
                }
                safetensors::Dtype::F16 => (Dtype::F16, words(|b| half::f16::from_le_bytes(b).to_f32())),
                safetensors::Dtype::BF16 => (Dtype::Bf16, words(|b| half::bf16::from_le_bytes(b).to_f32())),
                other => panic!("{key} is {other:?}"),
            };
            (key.to_owned(), Tensor { dtype, shape: view.shape().to_vec(), values })
        })
        .collect()
}

pub struct Case {
    pub name: String,
    pub folder: PathBuf,
    pub config: Config,
    pub base: Tensors,
    pub io: Tensors,
    pub adapter: Tensors,
    pub modules: Vec<String>,
}

/// What a case's model declares.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Declared {
    WeightAndBias,
    /// The host computes the base.
    BiasOnly,
    /// A bias that training has moved since: it is not the one in the file.
    WeightAndOtherBias,
    OtherBiasOnly,
}

/// What the other bias is off by.
pub const BIAS_SHIFT: f32 = 0.75;

impl Case {
    pub fn open(name: &str) -> Self {
        let folder = root().join(name);
        let checkpoint = if name == "two_adapters" { folder.join("first") } else { folder.clone() };
        let io = read(&folder.join("io.safetensors"));
        let mut modules: Vec<String> = io.keys().map(|key| key.split('/').next().unwrap().to_owned()).collect();
        modules.dedup();
        Self {
            name: name.to_owned(),
            config: Config::from_json(&std::fs::read(checkpoint.join("adapter_config.json")).unwrap()).unwrap(),
            base: read(&folder.join("base.safetensors")),
            adapter: read(&checkpoint.join("adapter_model.safetensors")),
            io,
            folder,
            modules,
        }
    }

    pub fn get(&self, module: &str, name: &str) -> Option<&Tensor> {
        self.io.get(&format!("{module}/{name}"))
    }

    pub fn vector(&self, module: &str, name: &str) -> Option<&Tensor> {
        self.adapter.get(&format!("base_model.model.{module}.{name}"))
    }

    pub fn has_weights(&self) -> bool {
        self.modules.iter().all(|module| self.base.contains_key(&format!("{module}.weight")))
    }

    fn layer(&self, module: &str, what: Declared) -> Layer {
        let inputs = self.get(module, "x").unwrap().shape[1];
        let lambda_b = match self.config.method {
            Method::Pvera => "pvera_lambda_b",
            Method::Vera => "vera_lambda_b",
        };
        let outputs = self.vector(module, lambda_b).unwrap().shape[0];
        let mut layer = declared(&spec(module, inputs, outputs));
        if let (Some(weight), Declared::WeightAndBias | Declared::WeightAndOtherBias) =
            (self.base.get(&format!("{module}.weight")), what)
        {
            let layout = if self.config.fan_in_fan_out { WeightLayout::InOut } else { WeightLayout::OutIn };
            layer.weight = Some((weight.host().leaked(), layout));
        }
        layer.bias = self.base.get(&format!("{module}.bias")).map(|bias| self.bias(bias, what));
        layer
    }

    fn bias(&self, bias: &Tensor, what: Declared) -> Matrix<'static> {
        let mut bias = bias.clone();
        if matches!(what, Declared::WeightAndOtherBias | Declared::OtherBiasOnly) {
            bias.values.iter_mut().for_each(|value| *value += BIAS_SHIFT);
        }
        bias.host().leaked()
    }

    pub fn model(&self, what: Declared) -> Model {
        let model = empty_model();
        for module in &self.modules {
            model.declare(self.layer(module, what)).unwrap();
        }
        model
    }

    /// The model with the case's adapter in slot 0 (or, of two, in slots 0 and 1).
    pub fn snapshot(&self, what: Declared) -> Snapshot {
        let model = self.model(what);
        let folders = match self.name == "two_adapters" {
            true => vec![self.folder.join("first"), self.folder.join("second")],
            false => vec![self.folder.clone()],
        };
        for (number, folder) in folders.iter().enumerate() {
            let adapter = Adapter::load(&model, folder, &LoadOptions::default()).unwrap();
            model.publish(&format!("adapter {number}"), adapter.into()).unwrap();
        }
        model.snapshot().unwrap()
    }
}
