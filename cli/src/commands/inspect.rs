//! `pvera inspect`: what a file holds. Headers are read, and no tensor unless a digest is asked for.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use pvera::bank::{Bank, FamilyOutline, Options};
use pvera::config::{Config, Targets};
use pvera::interchange::{ModelFiles, Outline, TensorFile};
use pvera::memory::Allocator;
use pvera::model::{Listener, Model};
use pvera::projection::Rounding;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::adapters::{CONFIG_FILE, Sizes, TENSOR_FILE, folder_of, is_bank};
use crate::args::{DrawArgs, LayerArgs};
use crate::listener::Ear;
use crate::outcome::{Failure, Report, Result, on_a_line, shown};

/// Say what a checkpoint, a bank or a safetensors model holds
#[derive(Args, Debug)]
pub struct Inspect {
    /// Checkpoint folder, bank, safetensors file, or model folder
    path: PathBuf,
    /// Print the SHA-256 of the tensors' file or files, which are read for it
    #[arg(long)]
    digest: bool,
    /// Print every tensor of a model
    #[arg(long)]
    tensors: bool,
}

/// What lies at a path.
pub enum Kind {
    Adapter(PathBuf),
    /// A checkpoint of another method: its tensors can be looked at.
    OtherAdapter(PathBuf, String),
    Bank,
    Model,
}

impl Kind {
    pub fn of(path: &Path) -> Result<Self> {
        let folder = folder_of(path);
        let config = folder.join(CONFIG_FILE);
        if config.is_file() && (folder != path || path.is_dir()) {
            let text = std::fs::read(&config).map_err(|error| Failure::io(&config, "read", &error))?;
            let value: Value = serde_json::from_slice(&text).unwrap_or_default();
            return Ok(match value.get("peft_type").and_then(Value::as_str) {
                Some(other) if !["PVERA", "VERA"].contains(&other) => Self::OtherAdapter(folder, other.to_owned()),
                _ => Self::Adapter(folder),
            });
        }
        if path.is_dir() && folder.join(TENSOR_FILE).is_file() {
            return Ok(Self::Adapter(folder));
        }
        std::fs::metadata(path).map_err(|error| Failure::io(path, "open", &error))?;
        Ok(if is_bank(path) { Self::Bank } else { Self::Model })
    }

    pub fn name(&self) -> &'static str {
        match self {
            Self::Adapter(_) => "adapter",
            Self::OtherAdapter(..) => "other adapter",
            Self::Bank => "bank",
            Self::Model => "model",
        }
    }
}

impl Inspect {
    pub fn run(&self, ear: &Ear) -> Result<Report> {
        let kind = Kind::of(&self.path)?;
        let (mut text, mut json, files) = match &kind {
            Kind::Adapter(folder) => adapter(folder)?,
            Kind::OtherAdapter(folder, peft_type) => {
                let file = folder.join(TENSOR_FILE);
                let (text, mut json, files) = model(&ModelFiles::open(&file)?, true);
                json["peft_type"] = peft_type.as_str().into();
                (format!("  peft type     {peft_type}\n{text}"), json, files)
            }
            Kind::Bank => bank(&self.path, ear)?,
            Kind::Model => model(&ModelFiles::open(&self.path)?, self.tensors),
        };
        if self.digest {
            let mut digests = Vec::new();
            for file in files {
                let digest = digest_of(&file, ear)?;
                text.push_str(&format!("  sha256        {digest}  {}\n", file.display()));
                digests.push(json!({"file": file, "sha256": digest}));
            }
            json["digests"] = digests.into();
        }
        json["kind"] = kind.name().into();
        json["path"] = json!(shown(&self.path));
        Ok(Report::new(format!("{}: {}\n{text}", self.path.display(), kind.name()), json))
    }
}

type Told = (String, Value, Vec<PathBuf>);

fn adapter(folder: &Path) -> Result<Told> {
    let outline = Outline::read(folder)?;
    let file = &outline.tensors;
    let tensor = |name: &str| {
        let info = file.info(name);
        json!({"name": name, "dtype": info.map(|info| format!("{:?}", info.dtype)), "shape": info.map(|info| &info.shape)})
    };
    let mut json = config_json(&outline.config);
    let mut text = config_text(&outline.config);
    let key = outline.config.projection_prng_key;
    match outline.projections() {
        Some((a, b)) => {
            text.push_str(&format!(
                "  projections   saved, A {:?} {:?}, B {:?} {:?}; key {key}\n",
                a.shape, a.dtype, b.shape, b.dtype
            ));
            json["projections"] = json!({
                "saved": true, "key": key,
                "a": {"shape": a.shape, "dtype": format!("{:?}", a.dtype)}, "b": {"shape": b.shape, "dtype": format!("{:?}", b.dtype)},
            });
        }
        None => {
            text.push_str(&format!("  projections   drawn from key {key}\n"));
            json["projections"] = json!({"saved": false, "key": key});
        }
    }
    text.push_str(&format!("  layers        {}\n", outline.modules.len()));
    let mut layers = Vec::new();
    let mut parameters = 0;
    for module in &outline.modules {
        let outputs = module.lambda_b.iter().product::<usize>();
        parameters += outputs + outline.config.a_rows() + if module.learns_bias { outputs } else { 0 };
        let lambda_b = tensor(&outline.lambda_b(&module.path));
        let dtype = lambda_b["dtype"].as_str().unwrap_or_default();
        let bias = if module.learns_bias { ", bias learned" } else { "" };
        text.push_str(&format!("    {}  {outputs} outputs, {dtype}{bias}\n", on_a_line(&module.path)));
        layers.push(json!({
            "name": module.path, "outputs": outputs, "lambda_b": lambda_b["shape"], "dtype": lambda_b["dtype"],
            "learns_bias": module.learns_bias, "samples": outline.config.sample_at_inference_for(&module.path),
        }));
    }
    let carried: Vec<Value> = outline.carried().iter().map(|name| tensor(name)).collect();
    for tensor in &carried {
        let name = on_a_line(tensor["name"].as_str().unwrap_or_default());
        text.push_str(&format!(
            "  carried       {name} {} {}\n",
            tensor["shape"],
            tensor["dtype"].as_str().unwrap_or_default()
        ));
    }
    text.push_str(&format!("  parameters    {parameters}\n  bytes         {}\n", file.length()));
    json["layers"] = layers.into();
    json["carried"] = carried.into();
    json["parameters"] = parameters.into();
    json["bytes"] = file.length().into();
    Ok((text, json, vec![folder.join(TENSOR_FILE)]))
}

fn config_json(config: &Config) -> Value {
    let field = |name: &str| config.get_json(name).ok().and_then(|text| serde_json::from_str::<Value>(&text).ok());
    json!({
        "peft_type": config.method.name(), "rank": config.rank, "alpha": config.alpha, "scaling": config.alpha,
        "logvar_bound": config.logvar_bound, "dropout": config.pvera_dropout,
        "target_modules": field("target_modules"), "bias": field("bias"),
        "sample_at_inference": field("sample_at_inference"), "fan_in_fan_out": config.fan_in_fan_out,
        "base_model": config.base_model_name_or_path, "peft_version": config.peft_version,
    })
}

fn config_text(config: &Config) -> String {
    let targets = match &config.target_modules {
        Targets::None => "by the model's type".to_owned(),
        Targets::Pattern(pattern) => pattern.clone(),
        Targets::List(list) => list.join(", "),
    };
    let mut text = format!("  peft type     {}\n  rank          {}\n", config.method.name(), config.rank);
    text.push_str(&format!("  alpha         {}\n  targets       {targets}\n", config.alpha));
    if let Some(bound) = config.logvar_bound {
        text.push_str(&format!("  logvar bound  {bound}\n"));
    }
    if let Some(base) = &config.base_model_name_or_path {
        text.push_str(&format!("  base          {base}\n"));
    }
    text
}

/// What is said of drawn projections.
pub fn rounded(drawn: Rounding) -> String {
    match drawn {
        Rounding::To(pvera::tensor::Dtype::F32) => String::new(),
        Rounding::To(dtype) => format!(", rounded to {}", dtype.name()),
        Rounding::Int8Grid => ", on the int8 grid".into(),
    }
}

fn bank(path: &Path, ear: &Ear) -> Result<Told> {
    let (bank, families) = open_bank(path, &Options::default(), ear)?;
    let usage = bank.usage();
    let mut text = format!(
        "  adapters      {}\n  damaged       {}\n  bytes         {}, {} of them unused\n",
        usage.adapters, usage.damaged, usage.file_bytes, usage.unused_bytes
    );
    let mut told = Vec::new();
    for family in &families {
        let key = family.config.projection_prng_key;
        let projections = family.drawn.map_or("held".into(), |drawn| format!("drawn from the key{}", rounded(drawn)));
        let (dtype, on_grid) = match family.drawn {
            Some(Rounding::To(dtype)) => (Some(dtype.name()), Some(false)),
            Some(Rounding::Int8Grid) => (None, Some(true)),
            None => (None, None),
        };
        text.push_str(&format!(
            "  family of {} adapters on {} layers\n    A and B     of store {}, {projections}, in_max {}, out_max {}; key {key}\n",
            family.adapters, family.layers.len(), family.store, family.in_max, family.out_max
        ));
        config_text(&family.config).lines().for_each(|line| text.push_str(&format!("  {line}\n")));
        let layers: Vec<Value> = family
            .layers
            .iter()
            .map(|layer| json!({"name": layer.name, "outputs": layer.outputs, "learns_bias": layer.learns_bias}))
            .collect();
        let mut json = config_json(&family.config);
        json["adapters"] = family.adapters.into();
        json["layers"] = layers.into();
        json["projections"] = json!({
            "saved": family.drawn.is_none(), "key": key, "store": family.store,
            "in_max": family.in_max, "out_max": family.out_max, "base_dtype": dtype, "int8_grid": on_grid,
        });
        told.push(json);
    }
    let json = json!({
        "adapters": usage.adapters, "damaged": usage.damaged, "bytes": usage.file_bytes,
        "unused_bytes": usage.unused_bytes, "families": told,
    });
    Ok((text, json, vec![path.to_owned()]))
}

/// A bank, opened without the network's layers.
pub fn open_bank(path: &Path, options: &Options, ear: &Ear) -> Result<(Bank, Vec<FamilyOutline>)> {
    let model = Arc::new(Model::new(Allocator::default(), Box::new(ear.clone())));
    let bank = Bank::open(&model, path, options)?;
    let families = bank.families()?;
    Ok((bank, families))
}

/// A bank, opened for all layers of its families; one of them with the inputs that its rows have.
pub fn open_whole(path: &Path, draws: &DrawArgs, layer: Option<(&str, usize)>, ear: &Ear) -> Result<Bank> {
    let (_, families) = open_bank(path, &Options::default(), ear)?;
    let layers = LayerArgs::default();
    let mut sizes = Sizes::new(&layers)?;
    families.iter().try_for_each(|family| sizes.add_family(family))?;
    if let Some((layer, inputs)) = layer {
        sizes.set_inputs(layer, inputs)?;
    }
    Ok(Bank::open(&sizes.declared(None, ear)?, path, &draws.options())?)
}

fn model(files: &ModelFiles, lists: bool) -> Told {
    let mut text = String::new();
    let (mut told, mut tensors, mut bytes) = (Vec::new(), 0, 0);
    for file in files.files() {
        let names = file.names();
        text.push_str(&format!(
            "  file          {}: {} tensors, {} bytes\n",
            file.path().display(),
            names.len(),
            file.length()
        ));
        tensors += names.len();
        bytes += file.length();
        let mut list = Vec::new();
        for name in names.iter().filter(|_| lists) {
            let Some(info) = file.info(name) else { continue };
            text.push_str(&format!("    {} {:?} {:?}\n", on_a_line(name), info.shape, info.dtype));
            list.push(json!({"name": name, "shape": info.shape, "dtype": format!("{:?}", info.dtype)}));
        }
        told.push(json!({"file": shown(file.path()), "bytes": file.length(), "tensors": list}));
    }
    text.push_str(&format!("  tensors       {tensors}\n  bytes         {bytes}\n"));
    let paths = files.files().iter().map(|file: &TensorFile| file.path().to_owned()).collect();
    (text, json!({"files": told, "tensor_count": tensors, "bytes": bytes}), paths)
}

fn digest_of(path: &Path, ear: &Ear) -> Result<String> {
    let mut file = File::open(path).map_err(|error| Failure::io(path, "open", &error))?;
    let total = file.metadata().map_or(0, |data| data.len());
    let (mut hash, mut block, mut done) = (Sha256::new(), vec![0; 1 << 20], 0);
    loop {
        let count = file.read(&mut block).map_err(|error| Failure::io(path, "read", &error))?;
        if count == 0 {
            return Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect());
        }
        hash.update(&block[..count]);
        done += count as u64;
        if !ear.progress("digest", done, total) {
            return Err(Failure::stopped());
        }
    }
}
