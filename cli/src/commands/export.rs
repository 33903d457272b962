//! `pvera export`: an adapter's mean as a LoRA.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use pvera::adapter::Adapter;
use pvera::interchange::{self, Gguf, Options, export_gguf, export_lora};
use serde_json::{Value, json};

use crate::adapters::{Host, Need, checkpoint_of, guard_inputs};
use crate::args::{Element, LayerArgs, MeanArgs, Pair};
use crate::listener::Ear;
use crate::outcome::{Failure, Report, Result, shown};

/// Write an adapter's mean as an exact LoRA
#[derive(Debug, Subcommand)]
pub enum Export {
    Lora(Lora),
    Gguf(GgufFile),
}

/// A folder in PEFT's format, which every engine with LoRA runs
#[derive(Args, Debug)]
pub struct Lora {
    #[command(flatten)]
    common: Common,
}

/// A GGUF adapter for llama.cpp
#[derive(Args, Debug)]
pub struct GgufFile {
    #[command(flatten)]
    common: Common,
    /// The model's general.architecture, as "llama"; by default from model_type in the config.json of the --model folder
    #[arg(long, value_name = "NAME")]
    architecture: Option<String>,
    /// Attention heads, by which llama.cpp permutes the rows of q; by default from that config.json
    #[arg(long, value_name = "N")]
    heads: Option<usize>,
    /// Heads of keys and values; by default from that config.json
    #[arg(long, value_name = "N")]
    kv_heads: Option<usize>,
    /// A module's tensor, as model.layers.0.self_attn.q_proj=blk.0.attn_q.weight; the architecture's are known
    #[arg(long, value_name = "MODULE=TENSOR")]
    tensor: Vec<Pair>,
    /// Whether rows of q and k are permuted
    #[arg(long, value_name = "HOW", default_value = "by-architecture")]
    rope: Rope,
}

#[derive(Args, Debug)]
struct Common {
    /// Checkpoint folder
    adapter: PathBuf,
    /// What is written
    out: PathBuf,
    #[command(flatten)]
    layers: LayerArgs,
    /// Element type of what is written
    #[arg(long, value_name = "DTYPE", default_value = "f32")]
    dtype: Element,
    #[command(flatten)]
    mean: MeanArgs,
    /// Replace what OUT holds
    #[arg(long)]
    force: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Rope {
    /// As llama.cpp's converter does for the architecture
    ByArchitecture,
    /// As they are
    Keep,
    /// Permuted
    Permute,
}

impl Export {
    pub fn name(&self) -> &'static str {
        match self {
            Export::Lora(_) => "export lora",
            Export::Gguf(_) => "export gguf",
        }
    }

    pub fn run(&self, ear: &Ear) -> Result<Report> {
        match self {
            Export::Lora(lora) => {
                lora.common.run(ear, |adapter, options| Ok(export_lora(adapter, &lora.common.out, options)?))
            }
            Export::Gguf(gguf) => gguf.run(ear),
        }
    }
}

impl Common {
    fn run(&self, ear: &Ear, write: impl FnOnce(&Adapter, &Options<'_>) -> Result<()>) -> Result<Report> {
        let folder = checkpoint_of(&self.adapter)?;
        let inputs: Vec<&Path> = [&*folder].into_iter().chain(self.layers.model.as_deref()).collect();
        guard_inputs(&self.out, &inputs)?;
        let adapter = Host::of(&self.layers, &[&folder], Need::Each, ear)?.load(&folder, None)?;
        let options = Options {
            mean: self.mean.mean,
            leave_out: self.mean.leave_out,
            replace: self.force,
            dtype: Some(self.dtype.into()),
            listener: ear,
            ..Options::default()
        };
        write(&adapter, &options)?;
        let (layers, rank) = (adapter.adapted_layers().count(), adapter.store().rank());
        let text = format!("{}: a LoRA of rank {rank} on {layers} layers\n", self.out.display());
        Ok(Report::new(text, json!({"out": shown(&self.out), "rank": rank, "layers": layers})))
    }
}

impl GgufFile {
    fn run(&self, ear: &Ear) -> Result<Report> {
        let known = self.common.layers.model.as_deref().map_or(Ok(Value::Null), config_beside)?;
        let number = |field: &str| known.get(field).and_then(Value::as_u64).map(|number| number as usize);
        let architecture = self.architecture.as_deref().or_else(|| architecture_of(known.get("model_type")?.as_str()?));
        let Some(architecture) = architecture else {
            return Err(Failure::usage("--architecture is not given, and no config.json of a --model folder tells it"));
        };
        let heads = self.heads.or_else(|| number("num_attention_heads"));
        let kv_heads = self.kv_heads.or_else(|| number("num_key_value_heads")).or(heads);
        let names: Vec<_> = self.tensor.iter().map(|pair| (pair.name.as_str(), pair.text.as_str())).collect();
        let rope = match self.rope {
            Rope::ByArchitecture => interchange::Rope::ByArchitecture,
            Rope::Keep => interchange::Rope::Keep,
            Rope::Permute => interchange::Rope::Permute,
        };
        let (heads, kv_heads) = (heads.unwrap_or(0), kv_heads.unwrap_or(0));
        let gguf = Gguf { architecture, names: &names, heads, kv_heads, rope };
        self.common.run(ear, |adapter, options| Ok(export_gguf(adapter, &self.common.out, &gguf, options)?))
    }
}

/// A model folder's config.json, if it has one.
fn config_beside(model: &Path) -> Result<Value> {
    let path = model.join("config.json");
    if !path.is_file() {
        return Ok(Value::Null);
    }
    let text = std::fs::read(&path).map_err(|error| Failure::io(&path, "read", &error))?;
    serde_json::from_slice(&text)
        .map_err(|error| Failure::new(pvera::error::Code::Format, format!("'{}' is not JSON: {error}", path.display())))
}

/// llama.cpp's name of a model_type of transformers, where both are surely one.
fn architecture_of(model_type: &str) -> Option<&str> {
    match model_type {
        "llama" | "mistral" => Some("llama"),
        "granite" | "olmo" | "olmo2" | "qwen2" | "qwen3" | "gemma" | "gemma2" => Some(model_type),
        "gemma3_text" => Some("gemma3"),
        _ => None,
    }
}
