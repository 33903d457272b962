//! Models on disk, made for the tests; declaring layers from them; files that lie.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pvera::adapter::{Adapter, LoadOptions};
use pvera::error::Code;
use pvera::interchange::{Declared, ModelFiles, declare_layers};
use pvera::tensor::Dtype;
use safetensors::Dtype as Stored;

use crate::support::*;
use crate::with_weights;

pub type Tensors = BTreeMap<String, Raw>;

/// A model of one file: a golden's base, and tensors that nobody adapts.
pub fn tensors_of(folder: &Path) -> Tensors {
    let mut tensors = parse(&beside(folder, "base.safetensors"));
    tensors.insert("tokens".into(), Raw { dtype: Stored::I64, shape: vec![3], bytes: (0..24).collect() });
    tensors.insert("norm.weight".into(), f32_tensor(&[1.0, 2.0, f32::NAN]));
    tensors.insert("empty".into(), Raw { dtype: Stored::F32, shape: vec![0, 4], bytes: vec![] });
    tensors
}

/// Writes a model into a folder: one file, or that many shards and an index.
pub fn write_model(folder: &Path, tensors: &Tensors, shards: usize) {
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join("config.json"), "{\"model_type\": \"test\"}").unwrap();
    fs::write(folder.join("tokenizer.json"), "{}").unwrap();
    if shards == 1 {
        fs::write(folder.join("model.safetensors"), file_of(tensors)).unwrap();
        return;
    }
    let shard = |number: usize| format!("model-{:05}-of-{shards:05}.safetensors", number + 1);
    let mut parts = vec![Tensors::new(); shards];
    let mut map = serde_json::Map::new();
    for (number, (name, raw)) in tensors.iter().enumerate() {
        parts[number % shards].insert(name.clone(), raw.clone());
        map.insert(name.clone(), shard(number % shards).into());
    }
    parts.iter().enumerate().for_each(|(number, part)| fs::write(folder.join(shard(number)), file_of(part)).unwrap());
    let index = serde_json::json!({ "metadata": { "total_size": 1 }, "weight_map": map });
    fs::write(folder.join("model.safetensors.index.json"), index.to_string()).unwrap();
}

/// An adapter of a checkpoint, for layers declared from a model's files.
pub fn load(checkpoint: &Path, model_path: &Path) -> Arc<Adapter> {
    let (model, _) = model(vec![]);
    let files = ModelFiles::open(model_path).unwrap();
    let declared = declare_layers(&model, checkpoint, &files, "").unwrap();
    let options = LoadOptions { base_dtype: declared.dtype, ..LoadOptions::default() };
    Arc::new(Adapter::load(&model, checkpoint, &options).unwrap())
}

pub fn error<T>(outcome: pvera::error::Result<T>) -> (Code, String) {
    let error = outcome.map(|_| ()).unwrap_err();
    (error.code(), error.message().to_owned())
}

/// Everything in a folder, by name.
pub fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    entries.map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())).collect()
}

#[test]
fn layers_are_declared_as_the_files_have_them() {
    let scratch = Scratch::new("declare");
    for checkpoint in with_weights() {
        for shards in [1, 3] {
            let folder = scratch.join(&format!("model{shards}"));
            let _ = fs::remove_dir_all(&folder);
            let tensors = tensors_of(&checkpoint);
            write_model(&folder, &tensors, shards);
            let (model, _) = model(vec![]);
            let files = ModelFiles::open(&folder).unwrap();
            let Declared { count, dtype } = declare_layers(&model, &checkpoint, &files, "").unwrap();
            let wanted = layers_of(&checkpoint);
            assert_eq!(count, wanted.len());
            for (found, wanted) in model.layers().iter().zip(&wanted) {
                let sizes = |layer: &pvera::model::Layer| (layer.name.clone(), layer.in_features, layer.out_features);
                assert_eq!(sizes(found), sizes(wanted));
                assert!(found.weight.is_none() && found.bias.is_none());
            }
            assert_eq!(dtype, Some(wanted[0].weight.as_ref().unwrap().0.dtype()));
        }
    }
}

/// A golden on a model of one file, and the folder that both lie under.
fn golden_on_disk(name: &str) -> (Scratch, PathBuf, PathBuf) {
    let scratch = Scratch::new("lies");
    let (checkpoint, folder) = (golden(name), scratch.join("model"));
    write_model(&folder, &tensors_of(&checkpoint), 1);
    (scratch, checkpoint, folder)
}

#[test]
fn prefixes_are_named_in_the_error_and_taken() {
    let (scratch, checkpoint, _) = golden_on_disk("seed_only");
    let folder = scratch.join("prefixed");
    let tensors = tensors_of(&checkpoint);
    write_model(&folder, &tensors.into_iter().map(|(name, raw)| (format!("deep.{name}"), raw)).collect(), 2);
    let files = ModelFiles::open(&folder).unwrap();
    let (code, message) = error(declare_layers(&model(vec![]).0, &checkpoint, &files, ""));
    assert_eq!(code, Code::NotFound);
    assert!(message.contains("'q_proj.weight', but 'deep.q_proj.weight'; a prefix can be given"), "{message}");
    assert_eq!(declare_layers(&model(vec![]).0, &checkpoint, &files, "deep.").unwrap().count, 2);
}

#[test]
fn declaring_is_all_or_nothing() {
    let (_scratch, checkpoint, folder) = golden_on_disk("seed_only");
    let files = ModelFiles::open(&folder).unwrap();
    let (model, _) = model(vec![layer("v_proj", 3, 3)]);
    let (code, message) = error(declare_layers(&model, &checkpoint, &files, ""));
    assert_eq!((code, model.layers().len()), (Code::Exists, 1), "{message}");
    assert!(message.contains("'v_proj'"), "{message}");
}

#[test]
fn weights_of_other_shapes_are_refused_by_name() {
    let (scratch, checkpoint, _) = golden_on_disk("seed_only");
    for (number, shape) in [vec![4], vec![2, 2], vec![], vec![1, 2, 2]].into_iter().enumerate() {
        let mut tensors = tensors_of(&checkpoint);
        let count = shape.iter().product::<usize>();
        let raw = Raw { dtype: Stored::F32, shape: shape.clone(), bytes: vec![0; 4 * count] };
        tensors.insert("v_proj.weight".into(), raw);
        let folder = scratch.join(&format!("shape{number}"));
        write_model(&folder, &tensors, 1);
        let files = ModelFiles::open(&folder).unwrap();
        let (code, message) = error(declare_layers(&model(vec![]).0, &checkpoint, &files, ""));
        assert_eq!(code, Code::Shape, "{message}");
        assert!(message.contains("v_proj.weight") && message.contains(&format!("{shape:?}")), "{message}");
    }
}

#[test]
fn types_that_differ_are_told_apart() {
    let (scratch, checkpoint, _) = golden_on_disk("seed_only");
    let mut tensors = tensors_of(&checkpoint);
    let weight = tensors.get_mut("v_proj.weight").unwrap();
    let bytes = weight.values().iter().flat_map(|value| half::bf16::from_f32(*value).to_le_bytes()).collect();
    *weight = Raw { dtype: Stored::BF16, shape: weight.shape.clone(), bytes };
    write_model(&scratch.join("mixed"), &tensors, 1);
    let files = ModelFiles::open(&scratch.join("mixed")).unwrap();
    assert_eq!(declare_layers(&model(vec![]).0, &checkpoint, &files, "").unwrap().dtype, None);
    let (_scratch, checkpoint, folder) = golden_on_disk("base_bf16");
    let files = ModelFiles::open(&folder).unwrap();
    assert_eq!(declare_layers(&model(vec![]).0, &checkpoint, &files, "").unwrap().dtype, Some(Dtype::Bf16));
}

#[test]
fn files_that_are_cut_or_lie_are_refused_by_name() {
    let (_scratch, _, folder) = golden_on_disk("seed_only");
    let path = folder.join("model.safetensors");
    let good = fs::read(&path).unwrap();
    let refused = |bytes: &[u8], wanted: &str| {
        fs::write(&path, bytes).unwrap();
        let (code, message) = error(ModelFiles::open(&folder));
        assert_eq!(code, Code::Format, "{message}");
        assert!(message.contains("model.safetensors") && message.contains(wanted), "{message}; wanted {wanted}");
    };
    for cut in [0, 7] {
        refused(&good[..cut], &format!("has {cut} bytes"));
    }
    for cut in [8, 100] {
        refused(&good[..cut], "speaks of a header");
    }
    refused(&good[..good.len() - 1], "bytes of tensors after it");
    refused(&[&good[..], b"x"].concat(), "bytes of tensors after it");
    for length in [u64::MAX, 100_000_001, good.len() as u64] {
        refused(&[&length.to_le_bytes(), &good[8..]].concat(), "speaks of a header");
    }
    let with_header = |header: &str, data: usize| {
        [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &vec![0; data][..]].concat()
    };
    refused(&with_header("{", 0), "not a valid safetensors file");
    refused(&with_header("[]", 0), "not a valid safetensors file");
    for (shape, offsets) in
        [("[2]", "[0,4]"), ("[1]", "[4,8]"), ("[1]", "[8,4]"), ("[4294967296,4294967296,4294967296]", "[0,4]")]
    {
        let header = format!("{{\"a\":{{\"dtype\":\"F32\",\"shape\":{shape},\"data_offsets\":{offsets}}}}}");
        refused(&with_header(&header, 8), "not a valid safetensors file");
    }
    let overlapping = "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[2,6]}}";
    refused(&with_header(overlapping, 6), "not a valid safetensors file");
}

#[test]
fn indexes_that_lie_are_refused_by_name() {
    let (scratch, checkpoint, _) = golden_on_disk("seed_only");
    let folder = scratch.join("sharded");
    let tensors = tensors_of(&checkpoint);
    let index = folder.join("model.safetensors.index.json");
    write_model(&folder, &tensors, 2);
    let good = fs::read_to_string(&index).unwrap();
    let refused = |text: &str, code: Code, wanted: &str| {
        fs::write(&index, text).unwrap();
        let (found, message) = error(ModelFiles::open(&folder));
        assert_eq!(found, code, "{message}");
        assert!(message.contains(wanted), "{message}; wanted {wanted}");
    };
    refused("", Code::Format, "not JSON");
    refused("{}", Code::Format, "weight_map");
    refused("{\"weight_map\": {}}", Code::Format, "names no tensor");
    refused("{\"weight_map\": {\"a\": 3}}", Code::Format, "the file of 'a' is not a text");
    for outside in [
        "../model/model.safetensors",
        "/etc/passwd",
        "sub/model.safetensors",
        "..",
        "",
        ".safetensors",
        "a.bin",
        "a\\\\b.safetensors",
    ] {
        refused(
            &format!("{{\"weight_map\": {{\"a\": \"{outside}\"}}}}"),
            Code::Format,
            "wanted the name of a .safetensors file beside it",
        );
    }
    refused(&good.replace("00002-of", "00009-of"), Code::Io, "00009-of");
    refused(&good.replace("\"q_proj.weight\"", "\"k_proj.weight\""), Code::Format, "'k_proj.weight'");
    fs::write(&index, &good).unwrap();
    fs::write(folder.join("model.safetensors"), file_of(&tensors)).unwrap();
    assert_eq!(error(ModelFiles::open(&folder)).0, Code::Format);
    assert_eq!(error(ModelFiles::open(&scratch.join("nowhere"))).0, Code::Io);
    fs::create_dir(scratch.join("bare")).unwrap();
    assert!(error(ModelFiles::open(&scratch.join("bare"))).1.contains("neither model.safetensors nor"));
}
