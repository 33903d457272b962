//! An adapter's mean as a LoRA adapter in GGUF, as llama.cpp reads it.

mod file;
mod names;

pub use names::Rope;

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use super::factors::Factors;
use super::{Options, copy_on_host, refuse_undeclared};
use crate::adapter::Adapter;
use crate::adapter::folder::replace_file;
use crate::adapter::source::io;
use crate::error::Result;
use crate::fail;
use crate::tensor::Dtype;
use file::{Head, TensorEntry, Value, padding};
use names::{Heads, Names};

/// What llama.cpp must be told, and a checkpoint does not say.
#[derive(Clone, Copy, Debug, Default)]
pub struct Gguf<'a> {
    /// `general.architecture` of the model: "llama", "qwen2", …
    pub architecture: &'a str,
    /// Module paths and the names of their tensors, as ("model.layers.0.self_attn.q_proj", "blk.0.attn_q.weight"). What is
    /// not among them is looked up in the built-in table, where that knows the architecture.
    pub names: &'a [(&'a str, &'a str)],
    /// Attention heads, by which the rows of q are permuted.
    pub heads: usize,
    /// Heads of keys and values, by which those of k are.
    pub kv_heads: usize,
    pub rope: Rope,
}

/// One of a layer's two tensors on its way into the file.
struct Piece<'a> {
    name: String,
    factors: &'a Factors<'a>,
    is_b: bool,
    heads: Option<Heads>,
}

/// Writes a GGUF adapter, `adapter.lora.alpha = r`, so that its scaling is 1. The file appears at once or not at all; one
/// that is there already is replaced only where `options.replace` is set.
///
/// Rows of B' of q and k are permuted where llama.cpp's converter does so with the model's.
pub fn export_gguf(adapter: &Adapter, path: &Path, gguf: &Gguf<'_>, options: &Options<'_>) -> Result<()> {
    let copy = copy_on_host(adapter)?;
    let adapter = copy.as_ref().unwrap_or(adapter);
    options.refuse_sampling(adapter)?;
    refuse_undeclared(adapter)?;
    let factors = Factors::of(adapter)?;
    let pieces = pieces(&factors, gguf)?;
    leave_out_the_rest(adapter, &factors, options)?;
    let dtype = options.dtype.unwrap_or(Dtype::F32);
    let head = head(&pieces, gguf.architecture, adapter.store().rank(), dtype)?;
    replace_file(path, options.replace, |fresh| {
        let unwritable = |error: &std::io::Error| io(path, "write", error);
        let mut file = BufWriter::new(File::create_new(fresh).map_err(|error| unwritable(&error))?);
        let mut put = |bytes: &[u8]| file.write_all(bytes).map_err(|error| unwritable(&error));
        put(&head)?;
        let mut row_bytes = Vec::new();
        for (done, piece) in pieces.iter().enumerate() {
            options.progress("export", done as u64, pieces.len() as u64)?;
            let mut written = 0;
            for row in 0..piece.shape()[0] {
                piece.row(row, dtype, &mut row_bytes)?;
                put(&row_bytes)?;
                written += row_bytes.len();
            }
            put(&[0; file::ALIGNMENT][..padding(written)])?;
        }
        let file = file.into_inner().map_err(|error| unwritable(error.error()))?;
        file.sync_all().map_err(|error| unwritable(&error))?;
        options.progress("export", pieces.len() as u64, pieces.len() as u64)
    })
}

impl Piece<'_> {
    fn shape(&self) -> [usize; 2] {
        if self.is_b { self.factors.b_shape() } else { self.factors.a_shape() }
    }

    fn row(&self, row: usize, dtype: Dtype, out: &mut Vec<u8>) -> Result<()> {
        if self.is_b {
            let source = self.heads.map_or(row, |heads| heads.source(row));
            self.factors.b_row(source, dtype, out)
        } else {
            self.factors.a_row(row, dtype, out)
        }
    }
}

fn pieces<'a>(factors: &'a [Factors<'a>], gguf: &Gguf<'_>) -> Result<Vec<Piece<'a>>> {
    let names = Names::new(gguf)?;
    let mut of_tensor = HashMap::new();
    let mut pieces = Vec::new();
    let mut head_size: Option<(&str, usize)> = None;
    for layer in factors {
        let module = &layer.layer.name;
        let tensor = names.tensor(module)?;
        let heads = names.heads(module, &tensor, layer.layer.out_total)?;
        if let Some(size) = heads.map(Heads::size) {
            let (other, known) = *head_size.get_or_insert((module, size));
            if size != known {
                fail!(
                    Shape,
                    "heads of '{other}' have {known} rows, and those of '{module}' {size}; wanted heads and kv_heads by which they are alike"
                );
            }
        }
        if let Some(other) = of_tensor.insert(tensor.clone(), module) {
            fail!(Argument, "modules '{other}' and '{module}' are both '{tensor}'; wanted a tensor for each");
        }
        for (suffix, is_b) in [(".lora_a", false), (".lora_b", true)] {
            let name = format!("{tensor}{suffix}");
            if name.len() > file::LONGEST_NAME {
                fail!(Argument, "tensor name '{name}' has {} bytes; ggml takes {}", name.len(), file::LONGEST_NAME);
            }
            pieces.push(Piece { name, factors: layer, is_b, heads: heads.filter(|_| is_b) });
        }
    }
    Ok(pieces)
}

/// The format has no place for biases and whole modules.
fn leave_out_the_rest(adapter: &Adapter, factors: &[Factors<'_>], options: &Options<'_>) -> Result<()> {
    for layer in factors.iter().filter(|layer| layer.bias().is_some()) {
        options.left_out(&format!("layer '{}' learned a bias, which a GGUF adapter cannot hold", layer.layer.name))?;
    }
    for tensor in adapter.tensors() {
        options.left_out(&format!("the adapter carries '{}', which a GGUF adapter cannot hold", tensor.name))?;
    }
    Ok(())
}

fn head(pieces: &[Piece<'_>], architecture: &str, rank: usize, dtype: Dtype) -> Result<Vec<u8>> {
    let values = [
        ("general.architecture", Value::Text(architecture)),
        ("general.type", Value::Text("adapter")),
        ("adapter.type", Value::Text("lora")),
        ("adapter.lora.alpha", Value::F32(rank as f32)),
        ("general.file_type", Value::U32(file::file_type(dtype))),
        ("general.quantization_version", Value::U32(2)),
    ];
    let mut head = Head::new(&values, pieces.len());
    for piece in pieces {
        head.add(&TensorEntry { name: &piece.name, shape: piece.shape(), dtype })?;
    }
    Ok(head.finished())
}
