//! From an adapter to the two files that PEFT reads.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::Path;

use half::{bf16, f16};
use safetensors::{Dtype as Stored, View, serialize};

use super::Adapter;
use super::folder::replace_folder;
use super::source::{A_KEY, B_KEY, CONFIG_FILE, LAMBDA_B, LAMBDA_D, LEARNED_BIAS, TENSOR_FILE, key_of};
use crate::config::Config;
use crate::error::{Code, Error, Result};
use crate::fail;
use crate::projection::Frozen;
use crate::tensor::Dtype;

/// A checkpoint as bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// `adapter_config.json`.
    pub config: Vec<u8>,
    /// `adapter_model.safetensors`.
    pub tensors: Vec<u8>,
}

impl Adapter {
    /// Writes a PEFT checkpoint folder. All or nothing: a fresh folder is written and takes the old one's place at once;
    /// other files of the old folder stay in it.
    ///
    /// Our alpha, which PEFT does not have, is multiplied into λ_b.
    pub fn save(&self, folder: &Path) -> Result<()> {
        let checkpoint = self.checkpoint()?;
        replace_folder(folder, &[(CONFIG_FILE, &checkpoint.config), (TENSOR_FILE, &checkpoint.tensors)])
    }

    /// The two files in memory.
    pub fn checkpoint(&self) -> Result<Checkpoint> {
        if self.config.save_projection && self.store.rank() != self.config.rank {
            fail!(Projection, "the store has rank {}; the config has r = {}", self.store.rank(), self.config.rank);
        }
        let config = Config { alpha: 1.0, inference_mode: true, ..self.config.clone() };
        let tensors = serialize(self.stored()?, Some(HashMap::from([("format".to_owned(), "pt".to_owned())])))
            .map_err(|error| Error::new(Code::Format, format!("could not serialise the adapter: {error}")))?;
        Ok(Checkpoint { config: config.to_json().into_bytes(), tensors })
    }

    fn stored(&self) -> Result<Vec<(String, Piece)>> {
        let mut pieces = Vec::new();
        let alpha = self.config.alpha as f32;
        for entry in &self.entries {
            let name = &self.layers.get(entry.layer)?.name;
            let lambda_b: Vec<f32> =
                self.parameters.get(&entry.ranges.lambda_b).iter().map(|value| value * alpha).collect();
            pieces.push((key_of(name, LAMBDA_B), Piece::vector(&lambda_b, self.saved_dtype)));
            let lambda_d = self.parameters.get(&entry.ranges.lambda_d);
            pieces.push((key_of(name, LAMBDA_D), Piece::vector(lambda_d, self.saved_dtype)));
            if let Some(span) = &entry.ranges.bias {
                pieces.push((key_of(name, LEARNED_BIAS), Piece::vector(self.parameters.get(span), self.saved_dtype)));
            }
        }
        if self.config.save_projection {
            let dtype = self.store.saved_dtype();
            pieces.push((A_KEY.to_owned(), Piece::frozen(self.store.a(), dtype)?));
            pieces.push((B_KEY.to_owned(), Piece::frozen(self.store.b(), dtype)?));
        }
        for tensor in &self.tensors {
            let piece = Piece { dtype: tensor.element.0, shape: tensor.shape.clone(), bytes: tensor.data.clone() };
            pieces.push((tensor.name.clone(), piece));
        }
        Ok(pieces)
    }
}

/// One tensor on its way into a file.
struct Piece {
    dtype: Stored,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl Piece {
    fn vector(values: &[f32], dtype: Dtype) -> Self {
        Self { dtype: stored(dtype), shape: vec![values.len()], bytes: narrowed(values, dtype) }
    }

    fn frozen(matrix: &Frozen, dtype: Dtype) -> Result<Self> {
        let (rows, cols) = (matrix.rows(), matrix.cols());
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(rows * cols * dtype.size()).map_err(|_| Error::out_of_memory())?;
        let mut values = vec![0.0; cols];
        for row in 0..rows {
            matrix.matrix().load(row, 0, &mut values);
            bytes.extend(narrowed(&values, dtype));
        }
        Ok(Self { dtype: stored(dtype), shape: vec![rows, cols], bytes })
    }
}

impl View for Piece {
    fn dtype(&self) -> Stored {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.bytes)
    }

    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

fn stored(dtype: Dtype) -> Stored {
    match dtype {
        Dtype::F32 => Stored::F32,
        Dtype::F16 => Stored::F16,
        Dtype::Bf16 => Stored::BF16,
    }
}

fn narrowed(values: &[f32], dtype: Dtype) -> Vec<u8> {
    match dtype {
        Dtype::F32 => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        Dtype::F16 => values.iter().flat_map(|value| f16::from_f32(*value).to_le_bytes()).collect(),
        Dtype::Bf16 => values.iter().flat_map(|value| bf16::from_f32(*value).to_le_bytes()).collect(),
    }
}
