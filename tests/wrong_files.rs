//! Files that are well formed but wrong: each error names the tensor, what it holds and what was wanted.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use pvera::adapter::{Adapter, LoadOptions};
use pvera::config::{Config, Method};
use pvera::error::Code;
use support::*;

fn options() -> LoadOptions {
    LoadOptions::default()
}

type Spoil<'a> = &'a dyn Fn(&mut Small);

/// A small checkpoint in memory, to be spoiled: layer q, 4 → 3, rank 2.
struct Small {
    config: String,
    tensors: BTreeMap<String, Raw>,
}

impl Small {
    fn new() -> Self {
        let (model, _) = model(vec![layer("q", 4, 3)]);
        let mut config = Config { rank: 2, ..Config::default() };
        config.set_json("target_modules", r#"["q"]"#).unwrap();
        let saved = Adapter::create(&model, &config, None, &options()).unwrap().checkpoint().unwrap();
        Self { config: String::from_utf8(saved.config).unwrap(), tensors: parse(&saved.tensors) }
    }

    fn load(&self) -> pvera::error::Result<Adapter> {
        let (model, _) = model(vec![layer("q", 4, 3)]);
        Adapter::from_memory(&model, self.config.as_bytes(), &file_of(&self.tensors), &options())
    }

    fn error(&self) -> (Code, String) {
        let error = self.load().unwrap_err();
        (error.code(), error.message().replacen("the tensors in memory: ", "", 1))
    }
}

#[test]
fn every_wrong_file_is_told_by_tensor_value_and_wish() {
    Small::new().load().unwrap();
    let spoiled = |spoil: &dyn Fn(&mut Small)| {
        let mut small = Small::new();
        spoil(&mut small);
        small.error()
    };
    let (b, d) = (vector_key("q", "b"), vector_key("q", "d"));
    let half = Raw { dtype: safetensors::Dtype::F64, shape: vec![3], bytes: vec![0; 24] };
    let cases: [(Spoil<'_>, Code, &str); 13] = [
        (
            &|small| drop(small.tensors.insert(b.clone(), f32_tensor(&[0.0; 5]))),
            Code::Shape,
            "tensor 'base_model.model.q.pvera_lambda_b' has shape [5]; wanted [3], out_total of the layer",
        ),
        (
            &|small| drop(small.tensors.insert(d.clone(), f32_tensor(&[0.0; 6]))),
            Code::Shape,
            "tensor 'base_model.model.q.pvera_lambda_d' has shape [6]; wanted [4], 2r of the config",
        ),
        (
            &|small| drop(small.tensors.insert(b.clone(), half.clone())),
            Code::Dtype,
            "tensor 'base_model.model.q.pvera_lambda_b' holds F64; wanted F32, F16 or BF16",
        ),
        (
            &|small| drop(small.tensors.remove(&d)),
            Code::Format,
            "tensor 'base_model.model.q.pvera_lambda_b' is there, but 'base_model.model.q.pvera_lambda_d' is not",
        ),
        (
            &|small| drop(small.tensors.remove(&b)),
            Code::Format,
            "tensor 'base_model.model.q.pvera_lambda_d' is there, but 'base_model.model.q.pvera_lambda_b' is not",
        ),
        (
            &|small| drop(small.tensors.insert(b.clone(), f32_tensor(&[0.0, f32::NAN, 0.0]))),
            Code::Format,
            "tensor 'base_model.model.q.pvera_lambda_b' holds NaN at 1; wanted finite numbers",
        ),
        (
            &|small| drop(small.tensors.insert(d.clone(), f32_tensor(&[0.0, 0.0, 0.0, f32::INFINITY]))),
            Code::Format,
            "tensor 'base_model.model.q.pvera_lambda_d' holds inf at 3; wanted finite numbers",
        ),
        (
            &|small| small.tensors.retain(|key, _| !key.contains("lambda")),
            Code::Format,
            "there is no tensor 'base_model.model.MODULE.pvera_lambda_b'; wanted a PVeRA adapter's vectors",
        ),
        (
            &|small| drop(small.tensors.insert("q.pvera_lambda_b".into(), f32_tensor(&[0.0]))),
            Code::Format,
            "tensor 'q.pvera_lambda_b' is not named 'base_model.model.MODULE.pvera_…', as PEFT writes it",
        ),
        (
            &|small| drop(small.tensors.remove("base_model.pvera_B")),
            Code::Projection,
            "base_model.pvera_A is in the file, but base_model.pvera_B is not",
        ),
        (
            &|small| drop(small.tensors.insert("base_model.pvera_A".into(), f32_tensor(&[0.0]))),
            Code::Projection,
            "base_model.pvera_A has shape [1]; wanted [2r, in_max] with r = 2 of the config",
        ),
        (
            &|small| {
                small.tensors.get_mut("base_model.pvera_A").unwrap().bytes[..4].copy_from_slice(&f32::NAN.to_le_bytes())
            },
            Code::Projection,
            "A holds a value that is not finite",
        ),
        (
            &|small| drop(small.tensors.insert("base_model.model.q.base_layer.bias".into(), f32_tensor(&[0.0]))),
            Code::Shape,
            "tensor 'base_model.model.q.base_layer.bias' has shape [1]; wanted [3], out_total of the layer",
        ),
    ];
    for (spoil, code, message) in cases {
        assert_eq!(spoiled(spoil), (code, message.to_owned()));
    }
    let mut narrow = Small::new();
    narrow.tensors.get_mut("base_model.pvera_A").unwrap().shape = vec![4, 4];
    narrow.tensors.insert("base_model.pvera_A".into(), Raw { shape: vec![4, 3], ..f32_tensor(&[0.5; 12]) });
    assert_eq!(narrow.error().1, "layer 'q' is 4 → 3; the store covers at most in_max 3 → out_max 3");
}

/// The same of VeRA.
fn small_vera() -> Small {
    let (model, _) = model(vec![layer("q", 4, 3)]);
    let mut config = Config { method: Method::Vera, rank: 2, ..Config::default() };
    config.set_json("target_modules", r#"["q"]"#).unwrap();
    let saved = Adapter::create(&model, &config, None, &options()).unwrap().checkpoint().unwrap();
    Small { config: String::from_utf8(saved.config).unwrap(), tensors: parse(&saved.tensors) }
}

#[test]
fn a_wrong_file_of_vera_is_told_too() {
    small_vera().load().unwrap();
    let cases: [(Spoil<'_>, Code, &str); 9] = [
        (
            &|small| {
                let d = "base_model.model.q.vera_lambda_d".into();
                drop(small.tensors.insert(d, f32_tensor(&[0.0; 4])));
            },
            Code::Shape,
            "tensor 'base_model.model.q.vera_lambda_d' has shape [4]; wanted [2], r of the config",
        ),
        (
            &|small| drop(small.tensors.remove("base_model.vera_A")),
            Code::Projection,
            "base_model.vera_B is in the file, but base_model.vera_A is not",
        ),
        (
            &|small| small.tensors.retain(|key, _| key.contains("lambda")),
            Code::Projection,
            "save_projection is true, but neither base_model.vera_A nor base_model.vera_B is in the file",
        ),
        (
            &|small| {
                let a = Raw { shape: vec![4, 4], ..f32_tensor(&[0.5; 16]) };
                drop(small.tensors.insert("base_model.vera_A".into(), a));
            },
            Code::Projection,
            "base_model.vera_A has shape [4, 4]; wanted [r, in_max] with r = 2 of the config",
        ),
        (
            &|small| drop(small.tensors.remove("base_model.model.q.vera_lambda_d")),
            Code::Format,
            "tensor 'base_model.model.q.vera_lambda_b' is there, but 'base_model.model.q.vera_lambda_d' is not",
        ),
        (
            &|small| small.tensors.retain(|key, _| !key.contains("lambda")),
            Code::Format,
            "there is no tensor 'base_model.model.MODULE.vera_lambda_b'; wanted a VeRA adapter's vectors",
        ),
        (
            &|small| drop(small.tensors.insert("q.vera_lambda_b".into(), f32_tensor(&[0.0]))),
            Code::Format,
            "tensor 'q.vera_lambda_b' is not named 'base_model.model.MODULE.vera_…', as PEFT writes it",
        ),
        (
            &|small| small.tensors = Small::new().tensors,
            Code::Format,
            "tensor 'base_model.model.q.pvera_lambda_b' is of PVERA; peft_type of the config is VERA",
        ),
        (
            &|small| small.config = Small::new().config,
            Code::Format,
            "tensor 'base_model.model.q.vera_lambda_b' is of VERA; peft_type of the config is PVERA",
        ),
    ];
    for (spoil, code, message) in cases {
        let mut small = small_vera();
        spoil(&mut small);
        assert_eq!(small.error(), (code, message.to_owned()));
    }
    let folder = golden("vera/shapes");
    let (model, _) = model(vec![layer("up", 12, 20), layer("down", 20, 7)]);
    let config = fs::read_to_string(folder.join(CONFIG)).unwrap().replace(r#""r": 5"#, r#""r": 6"#);
    let scratch = Scratch::new("vera");
    fs::write(scratch.join(CONFIG), config).unwrap();
    fs::copy(folder.join(TENSORS), scratch.join(TENSORS)).unwrap();
    let error = Adapter::load(&model, &scratch.0, &options()).unwrap_err();
    let file = scratch.join(TENSORS);
    assert_eq!(
        error.message(),
        format!(
            "{}: tensor 'base_model.model.down.vera_lambda_d' has shape [5]; wanted [6], r of the config",
            file.display()
        )
    );
}

#[test]
fn a_targeted_layer_without_vectors_is_an_error() {
    let folder = golden("seed_only");
    let mut layers = layers_of(&folder);
    layers.push(layer("block.v_proj", 4, 4));
    let error = Adapter::load(&model(layers).0, &folder, &options()).unwrap_err();
    assert_eq!(error.code(), Code::Format);
    assert!(
        error.message().ends_with("the config targets layer 'block.v_proj', but the file has no vectors for it"),
        "{error}"
    );
}

#[test]
fn vectors_that_the_config_does_not_target_are_used_with_a_warning() {
    let folder = golden("train_step");
    let (model, heard) = model(layers_of(&folder));
    let mut config = Config::from_json(&fs::read(folder.join(CONFIG)).unwrap()).unwrap();
    config.set_json("target_modules", r#"["v_proj"]"#).unwrap();
    let tensors = fs::read(folder.join(TENSORS)).unwrap();
    let load = |config: &Config| Adapter::from_memory(&model, config.to_json().as_bytes(), &tensors, &options());
    assert_eq!(load(&config).unwrap().adapted_layers().count(), 2);
    let [warning] = &heard.warnings()[..] else { panic!("{heard:?}") };
    assert!(warning.contains("vectors for layer 'q_proj', which the config does not target"), "{warning}");

    config.set_json("target_modules", "null").unwrap();
    load(&config).unwrap();
    assert_eq!(heard.warnings().len(), 1, "PEFT's own table is asked by the model's type, which nobody knows here");
}

#[test]
fn drawing_can_be_cancelled() {
    let folder = golden("seed_only");
    let (model, _) = model_that(Heard { stops: true, ..Heard::default() }, layers_of(&folder));
    assert_eq!(Adapter::load(&model, &folder, &options()).unwrap_err().code(), Code::Cancelled);
}

#[test]
fn folders_that_are_none_are_told() {
    let (model, _) = model(vec![layer("q", 4, 3)]);
    let scratch = Scratch::new("none");
    let error = |path: &Path| Adapter::load(&model, path, &options()).unwrap_err().message().to_owned();
    let missing = scratch.join("missing");
    assert_eq!(
        error(&missing),
        format!("could not open '{}': No such file or directory (os error 2)", missing.display())
    );
    fs::write(scratch.join("file"), b"").unwrap();
    assert!(
        error(&scratch.join("file"))
            .ends_with("is not a folder; wanted one with adapter_config.json and adapter_model.safetensors")
    );
    assert!(error(&scratch.0).contains("adapter_config.json': No such file"));
    let pipe = std::ffi::CString::new(scratch.join(CONFIG).to_str().unwrap()).unwrap();
    // SAFETY: a NUL-terminated path.
    assert_eq!(unsafe { libc::mkfifo(pipe.as_ptr(), 0o600) }, 0);
    assert!(error(&scratch.0).ends_with("is not a file"), "a pipe does not make us wait");
}
