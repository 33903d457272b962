//! PEFT's checkpoints give PEFT's outputs here; and where `PVERA_PEFT_OUT` names a folder, checkpoints that this
//! library saved are written there with its own outputs, for `tests/peft/read_ours.py` to load into PEFT.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pvera::adapter::{Adapter, LoadOptions};
use pvera::backend::Mode;
use pvera::config::Config;
use pvera::context::{Context, Kind};
use pvera::linear::{ModeChoice, Noise, Request, Rows, forward};
use pvera::memory::Allocator;
use pvera::model::{Layer, Model};
use pvera::tensor::{Device, Dtype, MatrixMut, Parts};
use safetensors::Dtype as Stored;
use support::*;

type Tensors = BTreeMap<String, Raw>;

fn tolerance(dtype: Stored) -> f32 {
    match dtype {
        Stored::F32 => 1e-6,
        Stored::F16 => 2e-3,
        _ => 1e-2,
    }
}

/// The mean forward of a layer, on top of `base` where the layer has no weight.
fn mean_forward(context: &Context, model: &Model, number: usize, x: &Raw, base: Option<&Raw>) -> Raw {
    let snapshot = model.snapshot().unwrap();
    let linear = snapshot.linear(number).unwrap();
    let (rows, cols) = (x.shape[0], linear.layer().out_features);
    let dtype = match x.dtype {
        Stored::F16 => Dtype::F16,
        Stored::BF16 => Dtype::Bf16,
        _ => Dtype::F32,
    };
    let mut bytes = base.map_or_else(|| vec![0; rows * cols * dtype.size()], |base| base.bytes.clone());
    let parts = Parts { rows, cols, row_stride: cols, dtype, device: Device::Host };
    // SAFETY: `bytes` holds the elements that `parts` describe, and is aligned as the allocator aligns.
    let y = unsafe { MatrixMut::new("y", bytes.as_mut_ptr(), parts) }.unwrap();
    let noise = Noise { mode: ModeChoice::All(Mode::Mean), ..Noise::default() };
    let request = Request { rows: Rows::default(), noise, training: false };
    forward(context, &[linear], &forever(x), &request, &[y]).unwrap();
    Raw { dtype: x.dtype, shape: vec![rows, cols], bytes }
}

fn assert_close(what: &str, found: &Raw, wanted: &Raw) {
    assert_eq!((found.dtype, &found.shape), (wanted.dtype, &wanted.shape), "{what}");
    let (found, reference) = (found.values(), wanted.values());
    let difference = found.iter().zip(&reference).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    let largest = reference.iter().map(|value| value.abs()).fold(0.0, f32::max);
    assert!(difference <= tolerance(wanted.dtype) * largest, "{what}: {difference:e} of {largest:e}");
}

/// A folder for PEFT to read: the checkpoint as saved, the base and our outputs.
fn write(out: &Path, name: &str, adapter: &Adapter, base: &Tensors, io: &Tensors) {
    let folder = out.join(name);
    adapter.save(&folder).unwrap();
    fs::write(folder.join("base.safetensors"), file_of(base)).unwrap();
    fs::write(folder.join("io.safetensors"), file_of(io)).unwrap();
}

fn out() -> Option<PathBuf> {
    let out = PathBuf::from(std::env::var_os("PVERA_PEFT_OUT")?);
    fs::create_dir_all(&out).unwrap();
    Some(out)
}

#[test]
fn golden_checkpoints_give_pefts_outputs_before_and_after_a_save() {
    let context = Context::new(Kind::Cpu, 0, None, Allocator::default()).unwrap();
    let mut compared = 0;
    for folder in goldens() {
        let name = folder.strip_prefix(golden("")).unwrap().to_str().unwrap().replace('/', "_");
        let layers = layers_of(&folder);
        let (base, io) = (parse(&beside(&folder, "base.safetensors")), parse(&beside(&folder, "io.safetensors")));
        let (model, _) = model(layers);
        let adapter = Arc::new(Adapter::load(&model, &folder, &LoadOptions::default()).unwrap());
        let saved = adapter.checkpoint().unwrap();
        let again = Adapter::from_memory(&model, &saved.config, &saved.tensors, &LoadOptions::default()).unwrap();
        model.publish("peft", Arc::new(again)).unwrap();
        let mut ours = Tensors::new();
        for (number, layer) in adapter.layers().iter().enumerate() {
            let key = |what: &str| format!("{}/{what}", layer.name);
            let own_base = layer.weight.is_none().then(|| &io[&key("base")]);
            let y = mean_forward(&context, &model, number, &io[&key("x")], own_base);
            let wanted = ["y_mean", if name.ends_with("second") { "y_second" } else { "y_first" }];
            if let Some(wanted) = wanted.iter().find_map(|what| io.get(&key(what))) {
                assert_close(&format!("{name} {}", layer.name), &y, wanted);
                compared += 1;
            }
            ours.insert(key("x"), io[&key("x")].clone());
            ours.extend(own_base.map(|base| (key("base"), base.clone())));
            ours.insert(key("y_mean"), y);
        }
        if let Some(out) = out() {
            write(&out, &name, &adapter, &base, &ours);
        }
    }
    assert!(compared >= 15, "{compared} outputs compared");
}

/// An adapter that PEFT never saw: created here, its vectors set as training would, an alpha to fold in, no projections.
#[test]
fn an_adapter_of_our_own_is_written_for_peft() {
    let mut random = Random(3);
    let mut normal = |shape: &[usize]| {
        let count: usize = shape.iter().product();
        let values: Vec<f32> = (0..count).map(|_| (random.next() >> 40) as f32 / (1 << 23) as f32 - 1.0).collect();
        Raw { shape: shape.to_vec(), ..f32_tensor(&values) }
    };
    let sizes = [("block.0.q_proj", 33, 17), ("block.0.v_proj", 20, 47)];
    let (mut base, mut layers, mut io) = (Tensors::new(), Vec::new(), Tensors::new());
    for (name, inputs, outputs) in sizes {
        let (weight, bias) = (normal(&[outputs, inputs]), normal(&[outputs]));
        let own = (Some((forever(&weight), Default::default())), Some(forever(&bias)));
        layers.push(Layer { weight: own.0, bias: own.1, ..layer(name, inputs, outputs) });
        base.extend([(format!("{name}.weight"), weight), (format!("{name}.bias"), bias)]);
        io.insert(format!("{name}/x"), normal(&[6, inputs]));
    }
    let (model, _) = model(layers);
    let mut config =
        Config { rank: 5, alpha: 3.0, projection_prng_key: 77, save_projection: false, ..Config::default() };
    config.set_json("target_modules", r#"["q_proj", "v_proj"]"#).unwrap();
    let mut adapter = Adapter::create(&model, &config, None, &LoadOptions::default()).unwrap();
    let trained = normal(&[adapter.parameters().len()]).values();
    adapter.parameters_mut().unwrap().all_mut().copy_from_slice(&trained);
    let adapter = Arc::new(adapter);
    model.publish("ours", adapter.clone()).unwrap();
    let context = Context::new(Kind::Cpu, 0, None, Allocator::default()).unwrap();
    let outputs = |io: &Tensors| {
        let of = |number: usize| mean_forward(&context, &model, number, &io[&format!("{}/x", sizes[number].0)], None);
        [of(0), of(1)]
    };
    let before = outputs(&io);
    let saved = adapter.checkpoint().unwrap();
    let again = Adapter::from_memory(&model, &saved.config, &saved.tensors, &LoadOptions::default()).unwrap();
    model.replace("ours", Arc::new(again)).unwrap();
    for (before, after) in before.iter().zip(outputs(&io)) {
        assert_close("alpha is folded in", &after, before);
    }
    for ((name, ..), y) in sizes.iter().zip(before) {
        io.insert(format!("{name}/y_mean"), y);
    }
    if let Some(out) = out() {
        write(&out, "created_here", &adapter, &base, &io);
    }
}
