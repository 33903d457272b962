//! An adapter's mean as a LoRA in PEFT's format, which every engine with LoRA runs.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use safetensors::Dtype as Stored;
use safetensors::tensor::TensorInfo;
use serde_json::{Value, json};

use super::factors::Factors;
use super::{Options, copy_on_host, refuse_undeclared};
use crate::adapter::folder::{replace_files, write_synced};
use crate::adapter::save::{header_of, stored};
use crate::adapter::source::{CONFIG_FILE, LEARNED_BIAS, TENSOR_FILE, io, key_of, read_file};
use crate::adapter::{Adapter, Tensor};
use crate::config::{Bias, Config, LARGEST_FILE, Targeting, Targets, as_python_writes};
use crate::error::{Code, Error, Result};
use crate::fail;
use crate::tensor::Dtype;

const LORA_A: &str = ".lora_A.weight";
const LORA_B: &str = ".lora_B.weight";

/// Writes a folder that PEFT loads as a LoRA of this rank, with `lora_alpha = r`, so that its scaling is 1. All or
/// nothing; other files of the folder stay. A LoRA that is there is replaced only where `options.replace` is set, another kind
/// of adapter never.
pub fn export_lora(adapter: &Adapter, folder: &Path, options: &Options<'_>) -> Result<()> {
    let copy = copy_on_host(adapter)?;
    let adapter = copy.as_ref().unwrap_or(adapter);
    options.refuse_sampling(adapter)?;
    refuse_undeclared(adapter)?;
    refuse_another_kind(folder)?;
    options.refuse_existing(folder)?;
    let factors = Factors::of(adapter)?;
    let dtype = options.dtype.unwrap_or(Dtype::F32);
    let mut pieces = pieces(adapter, &factors, dtype);
    // As PEFT's: wider element types first, then by name.
    pieces.sort_by(|first, second| second.dtype.cmp(&first.dtype).then_with(|| first.name.cmp(&second.name)));
    let header = header_of(infos(&pieces)?)?;
    let config = config_of(adapter, &factors)?;
    replace_files(folder, options.replace, &[CONFIG_FILE, TENSOR_FILE], |fresh| {
        write_synced(&fresh.join(CONFIG_FILE), config.as_bytes())?;
        write_tensors(&fresh.join(TENSOR_FILE), &header, &pieces, dtype, options)
    })
}

/// One tensor of the file.
struct Piece<'a> {
    name: String,
    dtype: Stored,
    shape: Vec<usize>,
    content: Content<'a>,
}

enum Content<'a> {
    A(&'a Factors<'a>),
    B(&'a Factors<'a>),
    Bias(&'a [f32]),
    Carried(&'a Tensor),
}

fn pieces<'a>(adapter: &'a Adapter, factors: &'a [Factors<'a>], dtype: Dtype) -> Vec<Piece<'a>> {
    let mut pieces = Vec::new();
    let mut add = |name: String, dtype: Stored, shape: &[usize], content: Content<'a>| {
        pieces.push(Piece { name, dtype, shape: shape.to_vec(), content });
    };
    for layer in factors {
        let name = &layer.layer.name;
        add(key_of(name, LORA_A), stored(dtype), &layer.a_shape(), Content::A(layer));
        add(key_of(name, LORA_B), stored(dtype), &layer.b_shape(), Content::B(layer));
        if let Some(bias) = layer.bias() {
            add(key_of(name, LEARNED_BIAS), Stored::F32, &[bias.len()], Content::Bias(bias));
        }
    }
    for tensor in adapter.tensors() {
        add(tensor.name.clone(), tensor.element.0, &tensor.shape, Content::Carried(tensor));
    }
    pieces
}

fn infos(pieces: &[Piece<'_>]) -> Result<Vec<(String, TensorInfo)>> {
    let mut end = 0usize;
    let info = |piece: &Piece<'_>| {
        let start = end;
        let bits = piece.shape.iter().try_fold(piece.dtype.bitsize(), |bits, size| bits.checked_mul(*size));
        end = bits.and_then(|bits| end.checked_add(bits / 8)).ok_or(Error::out_of_memory())?;
        Ok((
            piece.name.clone(),
            TensorInfo { dtype: piece.dtype, shape: piece.shape.clone(), data_offsets: (start, end) },
        ))
    };
    pieces.iter().map(info).collect()
}

fn write_tensors(path: &Path, header: &[u8], pieces: &[Piece<'_>], dtype: Dtype, options: &Options<'_>) -> Result<()> {
    let file = File::create_new(path).map_err(|error| io(path, "write", &error))?;
    let mut file = BufWriter::new(file);
    let mut put = |bytes: &[u8]| file.write_all(bytes).map_err(|error| io(path, "write", &error));
    put(header)?;
    let mut row_bytes = Vec::new();
    for (done, piece) in pieces.iter().enumerate() {
        options.progress("export", done as u64, pieces.len() as u64)?;
        match piece.content {
            Content::A(layer) => (0..piece.shape[0])
                .try_for_each(|row| layer.a_row(row, dtype, &mut row_bytes).and_then(|()| put(&row_bytes)))?,
            Content::B(layer) => (0..piece.shape[0])
                .try_for_each(|row| layer.b_row(row, dtype, &mut row_bytes).and_then(|()| put(&row_bytes)))?,
            Content::Bias(values) => {
                if let Some(place) = values.iter().position(|value| !value.is_finite()) {
                    fail!(Overflow, "tensor '{}' would hold {} at {place}", piece.name, values[place]);
                }
                values.iter().try_for_each(|value| put(&value.to_le_bytes()))?;
            }
            Content::Carried(tensor) => put(&tensor.data)?,
        }
    }
    let synced = file.into_inner().map_err(std::io::IntoInnerError::into_error).and_then(|file| file.sync_all());
    synced.map_err(|error| io(path, "write", &error))?;
    options.progress("export", pieces.len() as u64, pieces.len() as u64)
}

/// A LoRA has the names of its files in common with the adapter that it is made of.
fn refuse_another_kind(folder: &Path) -> Result<()> {
    let path = folder.join(CONFIG_FILE);
    if !path.exists() {
        return Ok(());
    }
    let text = read_file(&path, LARGEST_FILE as u64)?;
    let value: Value = serde_json::from_slice(&text).unwrap_or_default();
    match value.get("peft_type").and_then(Value::as_str) {
        Some("LORA") => Ok(()),
        other => fail!(
            Exists,
            "'{}' holds an adapter of type {}, which the LoRA would overwrite; wanted another folder",
            folder.display(),
            other.unwrap_or("unknown")
        ),
    }
}

/// `adapter_config.json`, as PEFT's `LoraConfig` writes it, without the fields of methods that are not used.
fn config_of(adapter: &Adapter, factors: &[Factors<'_>]) -> Result<String> {
    let config = adapter.config();
    let field = |name: &str| {
        let text = config.get_json(name)?;
        serde_json::from_str::<Value>(&text)
            .map_err(|error| Error::new(Code::Config, format!("{name} is not JSON: {error}")))
    };
    let bias = match (config.bias, factors.iter().any(|layer| layer.bias().is_some())) {
        (Bias::All, _) => "all",
        (Bias::PveraOnly, true) | (Bias::None, true) => "lora_only",
        (_, false) => "none",
    };
    let mut value = json!({
        "alpha_pattern": {},
        "bias": bias,
        "inference_mode": true,
        "init_lora_weights": true,
        "layers_pattern": null,
        "layers_to_transform": null,
        "lora_alpha": config.rank,
        "lora_bias": false,
        "lora_dropout": 0.0,
        "peft_type": "LORA",
        "rank_pattern": {},
        "use_dora": false,
        "use_rslora": false,
    });
    let mut copied = vec![
        "auto_mapping",
        "base_model_name_or_path",
        "fan_in_fan_out",
        "modules_to_save",
        "peft_version",
        "r",
        "revision",
        "task_type",
    ];
    if targets_are_told(adapter, config)? {
        copied.extend(["layers_pattern", "layers_to_transform", "target_modules"]);
    } else {
        value["target_modules"] = factors.iter().map(|layer| layer.layer.name.as_str()).collect();
    }
    for name in copied {
        value[name] = field(name)?;
    }
    Ok(as_python_writes(&value))
}

/// Whether the config's own targets are the adapted ones of the declared layers. Otherwise their names are listed.
fn targets_are_told(adapter: &Adapter, config: &Config) -> Result<bool> {
    if config.target_modules == Targets::None {
        return Ok(false);
    }
    let targeting = Targeting::new(config, None)?;
    for (number, layer) in adapter.layers().iter().enumerate() {
        if targeting.matches(&layer.name, true, layer.output_head)? != adapter.vectors(number).is_some() {
            return Ok(false);
        }
    }
    Ok(true)
}
