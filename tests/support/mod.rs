//! What the tests of checkpoint files share: the golden folders, models for them, and folders that clean up.
#![allow(dead_code)] // each test binary uses its part

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use pvera::adapter::Adapter;
use pvera::memory::Allocator;
use pvera::model::{Layer, Listener, Model, WeightLayout};
use pvera::tensor::{Device, Dtype, Matrix, Parts};
use safetensors::{Dtype as Stored, SafeTensors};

pub const CONFIG: &str = "adapter_config.json";
pub const TENSORS: &str = "adapter_model.safetensors";

/// Every checkpoint of the golden cases.
pub fn goldens() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut found = Vec::new();
    for entry in std::fs::read_dir(root).unwrap() {
        let folder = entry.unwrap().path();
        found.extend([folder.clone(), folder.join("first"), folder.join("second")]);
    }
    found.retain(|folder| folder.join(TENSORS).is_file());
    found.sort();
    assert_eq!(found.len(), 15);
    found
}

pub fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// A file beside the checkpoint: of `first` and `second`, the parent's.
pub fn beside(folder: &Path, name: &str) -> Vec<u8> {
    let own = folder.join(name);
    std::fs::read(if own.exists() { own } else { folder.parent().unwrap().join(name) }).unwrap()
}

/// One tensor of a file, as the safetensors crate sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Raw {
    pub dtype: Stored,
    pub shape: Vec<usize>,
    pub bytes: Vec<u8>,
}

impl Raw {
    pub fn values(&self) -> Vec<f32> {
        widened(self.dtype, &self.bytes)
    }
}

pub fn widened(dtype: Stored, bytes: &[u8]) -> Vec<f32> {
    match dtype {
        Stored::F32 => bytes.chunks(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect(),
        Stored::F16 => bytes.chunks(2).map(|two| half::f16::from_le_bytes(two.try_into().unwrap()).to_f32()).collect(),
        Stored::BF16 => {
            bytes.chunks(2).map(|two| half::bf16::from_le_bytes(two.try_into().unwrap()).to_f32()).collect()
        }
        other => panic!("{other:?} holds no floats of ours"),
    }
}

pub fn parse(file: &[u8]) -> BTreeMap<String, Raw> {
    let file = SafeTensors::deserialize(file).unwrap();
    let raw = |view: safetensors::tensor::TensorView<'_>| Raw {
        dtype: view.dtype(),
        shape: view.shape().to_vec(),
        bytes: view.data().to_vec(),
    };
    file.tensors().into_iter().map(|(name, view)| (name, raw(view))).collect()
}

pub fn file_of(tensors: &BTreeMap<String, Raw>) -> Vec<u8> {
    let views = tensors.iter().map(|(name, raw)| {
        (name.as_str(), safetensors::tensor::TensorView::new(raw.dtype, raw.shape.clone(), &raw.bytes).unwrap())
    });
    safetensors::serialize(views, None).unwrap()
}

pub fn f32_tensor(values: &[f32]) -> Raw {
    let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    Raw { dtype: Stored::F32, shape: vec![values.len()], bytes }
}

pub fn vector_key(module: &str, which: &str) -> String {
    format!("base_model.model.{module}.pvera_lambda_{which}")
}

/// The adapter holds exactly what the file declares.
pub fn assert_holds(adapter: &Adapter, file: &BTreeMap<String, Raw>) {
    let mut left = file.clone();
    let mut take = |key: &str| left.remove(key).unwrap_or_else(|| panic!("{key} is not in the file"));
    let store = adapter.store();
    for number in adapter.adapted_layers() {
        let (vectors, name) = (adapter.vectors(number).unwrap(), &adapter.layers().get(number).unwrap().name);
        assert_eq!(*vectors.lambda_b, *take(&vector_key(name, "b")).values());
        assert_eq!(*vectors.lambda_d, *take(&vector_key(name, "d")).values());
        let bias = format!("base_model.model.{name}.base_layer.bias");
        assert_eq!(vectors.bias.is_some(), file.contains_key(&bias), "{bias}");
        if let Some(values) = vectors.bias {
            assert_eq!(*values, *take(&bias).values());
        }
    }
    if file.contains_key("base_model.pvera_A") {
        for (key, frozen) in [("base_model.pvera_A", store.a()), ("base_model.pvera_B", store.b())] {
            let (wanted, mut found) = (take(key).values(), vec![0.0; frozen.rows() * frozen.cols()]);
            for (row, values) in found.chunks_mut(frozen.cols()).enumerate() {
                frozen.matrix().load(row, 0, values);
            }
            assert_eq!(found, wanted, "{key}");
        }
    }
    for tensor in adapter.tensors() {
        let raw = Raw { dtype: tensor.element.0, shape: tensor.shape.clone(), bytes: tensor.data.clone() };
        assert_eq!(raw, take(&tensor.name), "{}", tensor.name);
    }
    assert!(left.is_empty(), "not loaded: {:?}", left.keys());
}

/// A matrix that lives as long as the test binary.
pub fn forever(raw: &Raw) -> Matrix<'static> {
    let dtype = match raw.dtype {
        Stored::F32 => Dtype::F32,
        Stored::F16 => Dtype::F16,
        Stored::BF16 => Dtype::Bf16,
        other => panic!("{other:?}"),
    };
    let words = Box::leak(vec![0u64; raw.bytes.len().div_ceil(8)].into_boxed_slice());
    bytemuck::cast_slice_mut::<u64, u8>(words)[..raw.bytes.len()].copy_from_slice(&raw.bytes);
    let (rows, cols) = if let [cols] = raw.shape[..] { (1, cols) } else { (raw.shape[0], raw.shape[1]) };
    // SAFETY: leaked, aligned to 8 bytes, and as long as the shape says.
    unsafe {
        Matrix::new("base", words.as_ptr().cast(), Parts { rows, cols, row_stride: cols, dtype, device: Device::Host })
    }
    .unwrap()
}

pub fn layer(name: &str, inputs: usize, outputs: usize) -> Layer {
    Layer::whole(name, inputs, outputs)
}

/// What a model said.
#[derive(Debug, Default)]
pub struct Heard {
    pub warnings: Mutex<Vec<String>>,
    pub stops: bool,
}

impl Heard {
    pub fn warnings(&self) -> Vec<String> {
        self.warnings.lock().unwrap().clone()
    }
}

struct Ear(Arc<Heard>);

impl Listener for Ear {
    fn warning(&self, message: &str) {
        self.0.warnings.lock().unwrap().push(message.to_owned());
    }

    fn progress(&self, _: &str, _: u64, _: u64) -> bool {
        !self.0.stops
    }
}

pub fn model(layers: Vec<Layer>) -> (Model, Arc<Heard>) {
    model_that(Heard::default(), layers)
}

pub fn model_that(heard: Heard, layers: Vec<Layer>) -> (Model, Arc<Heard>) {
    let heard = Arc::new(heard);
    let model = Model::new(Allocator::default(), Box::new(Ear(heard.clone())));
    for layer in layers {
        model.declare(layer).unwrap();
    }
    (model, heard)
}

/// The layers that a golden checkpoint adapts, with their base weights where the case has them.
pub fn layers_of(folder: &Path) -> Vec<Layer> {
    let (base, io) = (parse(&beside(folder, "base.safetensors")), parse(&beside(folder, "io.safetensors")));
    let adapter = parse(&std::fs::read(folder.join(TENSORS)).unwrap());
    let transposed = folder.ends_with("conv1d");
    let modules =
        adapter.keys().filter_map(|key| key.strip_prefix("base_model.model.")?.strip_suffix(".pvera_lambda_b"));
    let layers = modules.map(|module| {
        let weight_layout = if transposed { WeightLayout::InOut } else { WeightLayout::OutIn };
        Layer {
            weight: base.get(&format!("{module}.weight")).map(|raw| (forever(raw), weight_layout)),
            bias: base.get(&format!("{module}.bias")).map(forever),
            ..layer(module, io[&format!("{module}/x")].shape[1], adapter[&vector_key(module, "b")].shape[0])
        }
    });
    layers.collect()
}

/// A folder of its own for each test, removed at its end.
pub struct Scratch(pub PathBuf);

impl Scratch {
    pub fn new(name: &str) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("pvera-test-{name}-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(std::fs::canonicalize(path).unwrap())
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// SplitMix64: enough for tests, and the same everywhere.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }
}
