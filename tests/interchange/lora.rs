//! The mean as a LoRA: its factors against products made here, its outputs against the mean forward.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use pvera::adapter::{Adapter, LoadOptions, Tensor};
use pvera::backend::Mode;
use pvera::config::{Bias, Config, Sampling};
use pvera::context::{Context, Kind};
use pvera::error::Code;
use pvera::interchange::{Options, export_lora};
use pvera::linear::{Linear, ModeChoice, Noise, Request, Rows, forward};
use pvera::memory::Allocator;
use pvera::model::Layer;
use pvera::tensor::{Dtype, Matrix, MatrixMut};
use safetensors::Dtype as Stored;
use serde_json::{Value, json};

use crate::disk::{contents, error};
use crate::support::*;

const MEAN: Options<'static> =
    Options { mean: true, leave_out: false, replace: false, dtype: None, prefix: "", listener: &pvera::model::Silent };

fn config_in(folder: &Path) -> Value {
    serde_json::from_slice(&fs::read(folder.join(CONFIG)).unwrap()).unwrap()
}

fn tensors_in(folder: &Path) -> std::collections::BTreeMap<String, Raw> {
    parse(&fs::read(folder.join(TENSORS)).unwrap())
}

fn loaded(folder: &Path) -> Adapter {
    let bf16 = folder.ends_with("base_bf16") || folder.ends_with("all_bf16");
    let options = LoadOptions { base_dtype: bf16.then_some(Dtype::Bf16), ..LoadOptions::default() };
    Adapter::load(&model(layers_of(folder)).0, folder, &options).unwrap()
}

/// A trained adapter on two layers, with alpha 3 in its config; values that 16 bits hold only rounded.
pub fn trained(layers: Vec<Layer>, change: impl FnOnce(&mut Config)) -> Adapter {
    let mut config = Config { rank: 5, alpha: 3.0, projection_prng_key: 77, ..Config::default() };
    config.set_json("target_modules", r#"["q_proj", "v_proj"]"#).unwrap();
    change(&mut config);
    let (model, _) = model(layers);
    let mut adapter = Adapter::create(&model, &config, None, &LoadOptions::default()).unwrap();
    let mut random = Random(5);
    for value in adapter.parameters_mut().unwrap().all_mut() {
        *value = random.below(1 << 20) as f32 / (1 << 19) as f32 - 1.0;
    }
    adapter
}

pub fn two_layers() -> Vec<Layer> {
    vec![layer("model.block.0.q_proj", 7, 6), layer("model.block.0.v_proj", 9, 11)]
}

fn values_of(frozen: &pvera::projection::Frozen) -> Vec<f32> {
    let mut values = vec![0.0; frozen.rows() * frozen.cols()];
    for (row, values) in values.chunks_mut(frozen.cols()).enumerate() {
        frozen.matrix().load(row, 0, values);
    }
    values
}

/// The factors by their definition, each element one product in f64.
pub fn factors(adapter: &Adapter, number: usize) -> (Vec<f64>, Vec<f64>) {
    let (layer, vectors, store) =
        (adapter.layers().get(number).unwrap(), adapter.vectors(number).unwrap(), adapter.store());
    let (a, b, rank) = (values_of(store.a()), values_of(store.b()), store.rank());
    let at = |row: usize, col: usize| f64::from(vectors.lambda_d[row]) * f64::from(a[row * store.in_max() + col]);
    let bt = |row: usize, col: usize| {
        adapter.config().alpha * f64::from(vectors.lambda_b[row]) * f64::from(b[row * rank + col])
    };
    let all = |rows: usize, cols: usize, of: &dyn Fn(usize, usize) -> f64| {
        (0..rows * cols).map(|place| of(place / cols, place % cols)).collect::<Vec<f64>>()
    };
    (all(rank, layer.in_total, &at), all(layer.out_total, rank, &bt))
}

#[test]
fn factors_are_products_rounded_once() {
    let scratch = Scratch::new("factors");
    let adapter = trained(two_layers(), |_| ());
    for dtype in [None, Some(Dtype::F32), Some(Dtype::F16), Some(Dtype::Bf16)] {
        let folder = scratch.join(dtype.map_or("default", Dtype::name));
        export_lora(&adapter, &folder, &Options { dtype, ..MEAN }).unwrap();
        let tensors = tensors_in(&folder);
        assert_eq!(tensors.len(), 4);
        for (number, layer) in adapter.layers().iter().enumerate() {
            let (a, b) = factors(&adapter, number);
            for (which, values, shape) in [("A", a, [5, layer.in_total]), ("B", b, [layer.out_total, 5])] {
                let raw = &tensors[&format!("base_model.model.{}.lora_{which}.weight", layer.name)];
                let bytes: Vec<u8> = match dtype.unwrap_or(Dtype::F32) {
                    Dtype::F32 => values.iter().flat_map(|value| (*value as f32).to_le_bytes()).collect(),
                    Dtype::F16 => values.iter().flat_map(|value| half::f16::from_f64(*value).to_le_bytes()).collect(),
                    Dtype::Bf16 => values.iter().flat_map(|value| half::bf16::from_f64(*value).to_le_bytes()).collect(),
                };
                let stored = [Stored::F32, Stored::F16, Stored::BF16][[Dtype::F32, Dtype::F16, Dtype::Bf16]
                    .iter()
                    .position(|d| *d == dtype.unwrap_or(Dtype::F32))
                    .unwrap()];
                assert_eq!((raw.dtype, &raw.shape[..]), (stored, &shape[..]), "{which}");
                assert_eq!(raw.bytes, bytes, "{which} of {} in {dtype:?}", layer.name);
            }
        }
    }
}

/// `(x A'ᵀ) B'ᵀ` in f64.
pub fn through_factors(x: &[f32], a: &[f64], b: &[f64], inputs: usize, outputs: usize) -> Vec<f64> {
    let rank = a.len() / inputs;
    let rows = x.chunks_exact(inputs).flat_map(|x| {
        let z: Vec<f64> =
            (0..rank).map(|k| x.iter().zip(&a[k * inputs..]).map(|(x, a)| f64::from(*x) * a).sum()).collect();
        (0..outputs).map(move |o| z.iter().zip(&b[o * rank..]).map(|(z, b)| z * b).sum()).collect::<Vec<f64>>()
    });
    rows.collect()
}

/// Our own mean delta of rows x.
pub fn delta(adapter: &Arc<Adapter>, number: usize, x: &[f32]) -> Vec<f32> {
    let layer = adapter.layers().get(number).unwrap();
    let rows = x.len() / layer.in_total;
    let mut y = vec![0.0; rows * layer.out_total];
    let linear = Linear::single(adapter.clone(), number);
    let noise = Noise { mode: ModeChoice::All(Mode::Mean), ..Noise::default() };
    let request = Request { rows: Rows::default(), noise, training: false };
    let context = Context::new(Kind::Cpu, 0, None, Allocator::default()).unwrap();
    let target = MatrixMut::from_f32(&mut y, rows, layer.out_total);
    forward(&context, &[&linear], &Matrix::from_f32(x, rows, layer.in_total), &request, &[target]).unwrap();
    y
}

/// Against the largest: one rounding of each factor, twice r or in terms.
pub fn assert_near(what: &str, found: &[f64], wanted: &[f32], relative: f64) {
    assert_eq!(found.len(), wanted.len());
    let largest = wanted.iter().fold(0.0f64, |largest, value| largest.max(f64::from(value.abs())));
    assert!(largest > 0.0, "{what}: nothing to compare");
    for (found, wanted) in found.iter().zip(wanted) {
        assert!((found - f64::from(*wanted)).abs() <= relative * largest, "{what}: {found} and {wanted}");
    }
}

fn random_rows(count: usize) -> Vec<f32> {
    let mut random = Random(9);
    (0..count).map(|_| random.below(2001) as f32 / 1000.0 - 1.0).collect()
}

#[test]
fn the_lora_gives_the_mean() {
    let scratch = Scratch::new("outputs");
    let mut compared = 0;
    for folder in goldens() {
        let adapter = loaded(&folder);
        let target = scratch.join(&format!("{compared}"));
        export_lora(&adapter, &target, &Options { replace: true, ..MEAN }).unwrap();
        let tensors = tensors_in(&target);
        // The same adapter on layers without a base: forward is the delta alone.
        let layers = layers_of(&folder).into_iter().map(|layer| Layer { weight: None, bias: None, ..layer });
        let bare = model(layers.collect()).0;
        let options = LoadOptions {
            base_dtype: (folder.ends_with("base_bf16") || folder.ends_with("all_bf16")).then_some(Dtype::Bf16),
            ..LoadOptions::default()
        };
        let bare = Arc::new(Adapter::load(&bare, &folder, &options).unwrap());
        for (number, layer) in adapter.layers().iter().enumerate() {
            if bare.vectors(number).unwrap().bias.is_some() {
                continue; // it has no delta without a base
            }
            let get = |which: &str| -> Vec<f64> {
                let raw = &tensors[&format!("base_model.model.{}.lora_{which}.weight", layer.name)];
                raw.values().iter().map(|value| f64::from(*value)).collect()
            };
            let x = random_rows(3 * layer.in_total);
            let found = through_factors(&x, &get("A"), &get("B"), layer.in_total, layer.out_total);
            assert_near(&layer.name, &found, &delta(&bare, number, &x), 2e-6);
            compared += 1;
        }
    }
    assert!(compared >= 15, "{compared} layers");
}

#[test]
fn the_config_is_that_of_a_lora() {
    let scratch = Scratch::new("config");
    let folder = scratch.join("a");
    let adapter = trained(two_layers(), |config| {
        config.fan_in_fan_out = true;
        config.set_json("task_type", "\"CAUSAL_LM\"").unwrap();
        config.set_json("base_model_name_or_path", "\"some/model\"").unwrap();
        config.set_json("modules_to_save", "[\"head\"]").unwrap();
        config.set_json("layers_to_transform", "[0]").unwrap();
    });
    export_lora(&adapter, &folder, &MEAN).unwrap();
    let wanted = json!({
        "alpha_pattern": {}, "auto_mapping": null, "base_model_name_or_path": "some/model", "bias": "none",
        "fan_in_fan_out": true, "inference_mode": true, "init_lora_weights": true, "layers_pattern": null,
        "layers_to_transform": [0], "lora_alpha": 5, "lora_bias": false, "lora_dropout": 0.0,
        "modules_to_save": ["head"], "peft_type": "LORA", "peft_version": "0.21.2", "r": 5, "rank_pattern": {},
        "revision": null, "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM", "use_dora": false,
        "use_rslora": false,
    });
    assert_eq!(config_in(&folder), wanted);
}

#[test]
fn targets_that_do_not_say_what_is_adapted_become_names() {
    let scratch = Scratch::new("targets");
    let full = loaded(&golden("seed_only"));
    let checkpoint = full.checkpoint().unwrap();
    let text = String::from_utf8(checkpoint.config).unwrap();
    let mut value: Value = serde_json::from_str(&text).unwrap();
    for targets in [json!(null), json!(["v_proj"])] {
        value["target_modules"] = targets;
        let (model, _) = model(layers_of(&golden("seed_only")));
        let config = value.to_string();
        let adapter =
            Adapter::from_memory(&model, config.as_bytes(), &checkpoint.tensors, &LoadOptions::default()).unwrap();
        export_lora(&adapter, &scratch.join("a"), &Options { replace: true, ..MEAN }).unwrap();
        assert_eq!(config_in(&scratch.join("a"))["target_modules"], json!(["q_proj", "v_proj"]));
    }
}

#[test]
fn learned_biases_and_carried_tensors_go_along() {
    let scratch = Scratch::new("bias");
    for (name, bias) in [("bias_and_head", "lora_only"), ("bias_all", "all")] {
        let folder = golden(name);
        let own = parse(&fs::read(folder.join(TENSORS)).unwrap());
        let target = scratch.join(name);
        export_lora(&loaded(&folder), &target, &MEAN).unwrap();
        assert_eq!(config_in(&target)["bias"], bias);
        let found = tensors_in(&target);
        let rest = own.iter().filter(|(name, _)| !name.contains("pvera_"));
        let mut count = 0;
        for (name, raw) in rest {
            assert_eq!(&found[name], raw, "{name}");
            count += 1;
        }
        assert!(count >= 2, "{name} has {count}");
        assert_eq!(found.len(), count + 2 * own.keys().filter(|name| name.ends_with("lambda_b")).count());
    }
}

#[test]
fn what_samples_is_refused_unless_its_mean_is_meant() {
    let scratch = Scratch::new("sampling");
    let folder = golden("sample_at_inference");
    let adapter = loaded(&folder);
    let (code, message) = error(export_lora(&adapter, &scratch.join("a"), &Options::default()));
    assert_eq!(code, Code::State);
    assert!(message.contains("samples at inference in layer 'tiny'") || message.contains("'wide'"), "{message}");
    assert!(!scratch.join("a").exists());
    export_lora(&adapter, &scratch.join("a"), &MEAN).unwrap();
    let plain = trained(two_layers(), |config| config.sample_at_inference = Sampling::Everywhere(false));
    export_lora(&plain, &scratch.join("b"), &Options::default()).unwrap();
}

#[test]
fn a_checkpoint_is_never_overwritten_by_its_lora() {
    let scratch = Scratch::new("over");
    let adapter = trained(two_layers(), |_| ());
    adapter.save(&scratch.join("a")).unwrap();
    let before = contents(&scratch.join("a"));
    let (code, message) = error(export_lora(&adapter, &scratch.join("a"), &MEAN));
    assert_eq!(code, Code::Exists);
    assert!(message.contains("PVERA"), "{message}");
    assert_eq!(contents(&scratch.join("a")), before);
    let over = Options { replace: true, ..MEAN };
    assert_eq!(
        error(export_lora(&adapter, &scratch.join("a"), &over)).0,
        Code::Exists,
        "not even where it may replace"
    );
    assert_eq!(contents(&scratch.join("a")), before);
    // Over a LoRA it is written, if that is asked for; somebody else's files stay.
    let lora = scratch.join("lora");
    export_lora(&adapter, &lora, &MEAN).unwrap();
    let first = contents(&lora);
    let (code, message) = error(export_lora(&adapter, &lora, &MEAN));
    assert_eq!(code, Code::Exists);
    assert!(message.contains("/lora/adapter_config.json' exists; wanted a new one"), "{message}");
    fs::write(lora.join("README.md"), "mine").unwrap();
    export_lora(&adapter, &lora, &over).unwrap();
    let mut again = contents(&lora);
    assert_eq!(again.remove("README.md").unwrap(), b"mine");
    assert_eq!(again, first);
}

#[test]
fn what_the_element_type_does_not_hold_leaves_the_folder_as_it_was() {
    let scratch = Scratch::new("overflow");
    let lora = scratch.join("a");
    let mut adapter = trained(two_layers(), |_| ());
    export_lora(&adapter, &lora, &MEAN).unwrap();
    let before = contents(&lora);
    let range = adapter.ranges(1).unwrap();
    adapter.parameters_mut().unwrap().get_mut(&range.lambda_b)[7] = 1e6;
    let (code, message) =
        error(export_lora(&adapter, &lora, &Options { dtype: Some(Dtype::F16), replace: true, ..MEAN }));
    assert_eq!(code, Code::Overflow);
    assert!(
        message.contains("'model.block.0.v_proj'") && message.contains("B'") && message.contains("row 7"),
        "{message}"
    );
    assert_eq!(contents(&lora), before);
    assert_eq!(fs::read_dir(&scratch.0).unwrap().count(), 1, "nothing is left beside it");
}

#[test]
fn a_stop_leaves_nothing_behind() {
    let scratch = Scratch::new("stop");
    let stops = Heard { stops: true, ..Heard::default() };
    let adapter = trained(two_layers(), |_| ());
    let listener = Stopping(stops);
    let (code, _) = error(export_lora(&adapter, &scratch.join("a"), &Options { listener: &listener, ..MEAN }));
    assert_eq!(code, Code::Cancelled);
    assert_eq!(fs::read_dir(&scratch.0).unwrap().count(), 0);
}

pub struct Stopping(pub Heard);

impl pvera::model::Listener for Stopping {
    fn warning(&self, message: &str) {
        self.0.warnings.lock().unwrap().push(message.to_owned());
    }

    fn progress(&self, _: &str, _: u64, _: u64) -> bool {
        !self.0.stops
    }
}

#[test]
fn undeclared_layers_are_refused_by_name() {
    let scratch = Scratch::new("undeclared");
    let folder = golden("seed_only");
    let mut layers = layers_of(&folder);
    layers.truncate(1);
    let options =
        LoadOptions { ignore_undeclared: true, in_max: Some(64), out_max: Some(64), ..LoadOptions::default() };
    let (model, _) = model(layers);
    let adapter = Adapter::load(&model, &folder, &options).unwrap();
    let (code, message) = error(export_lora(&adapter, &scratch.join("a"), &MEAN));
    assert_eq!(code, Code::State);
    assert!(message.contains("v_proj"), "{message}");
}

#[test]
fn a_carried_head_is_copied_bit_for_bit() {
    let scratch = Scratch::new("head");
    let mut adapter = trained(two_layers(), |config| config.bias = Bias::None);
    let name = "base_model.model.head.weight".to_owned();
    let element = pvera::adapter::ElementType(Stored::F16);
    let head = Tensor { name: name.clone(), element, shape: vec![1, 3], data: vec![0, 1, 2, 3, 255, 255] };
    adapter.set_tensor(head.clone()).unwrap();
    export_lora(&adapter, &scratch.join("a"), &MEAN).unwrap();
    let found = &tensors_in(&scratch.join("a"))[&name];
    assert_eq!((found.dtype, &found.shape, &found.bytes), (Stored::F16, &head.shape, &head.data));
}
