//! From an adapter to the two files that PEFT reads.

use std::collections::HashMap;
use std::path::Path;

use half::{bf16, f16};
use safetensors::Dtype as Stored;
use safetensors::tensor::{Metadata, TensorInfo};

use super::folder::replace_folder;
use super::source::{CONFIG_FILE, Keys, LEARNED_BIAS, TENSOR_FILE, key_of};
use super::{Adapter, SavedDtypes};
use crate::config::Config;
use crate::error::{Code, Error, Result};
use crate::fail;
use crate::memory::Allocator;
use crate::projection::Frozen;
use crate::tensor::{Device, Dtype};

/// The longest header that readers of the format accept, in bytes.
pub(crate) const LARGEST_HEADER: usize = 100_000_000;

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
    /// Our alpha, which PEFT does not have, is multiplied into λ_b, so it is 1 after a reload; `inference_mode` is true
    /// then, too. `logvar_bound` is written, but PEFT ignores it: its sampled outputs differ where the bound acts.
    /// Vectors that came in 16 bits are saved so where that loses nothing, else in f32.
    ///
    /// Errors: `Overflow` for a parameter, or its product with alpha, that is not finite.
    pub fn save(&self, folder: &Path) -> Result<()> {
        self.save_with(folder, true)
    }

    /// The same into a folder without a checkpoint: one that is there is an error of the code Exists.
    pub fn save_new(&self, folder: &Path) -> Result<()> {
        self.save_with(folder, false)
    }

    fn save_with(&self, folder: &Path, replace: bool) -> Result<()> {
        let checkpoint = self.checkpoint()?;
        let files = [(CONFIG_FILE, &checkpoint.config[..]), (TENSOR_FILE, &checkpoint.tensors)];
        replace_folder(folder, replace, &files)
    }

    /// The two files in memory.
    pub fn checkpoint(&self) -> Result<Checkpoint> {
        if self.parameters.device() != Device::Host {
            return self.frozen(&Allocator::default())?.checkpoint();
        }
        let config = Config { alpha: 1.0, inference_mode: true, ..Config::clone(&self.config) };
        Ok(Checkpoint { config: config.to_json().into_bytes(), tensors: file_of(self.pieces()?)? })
    }

    fn pieces(&self) -> Result<Vec<Piece<'_>>> {
        let mut pieces = self.vector_pieces()?;
        if self.config.save_projection {
            let SavedDtypes { a, b, .. } = self.saved_dtypes;
            let keys = Keys::of(self.config.method);
            pieces.push(Piece::frozen(keys.a, self.store.a(), a));
            pieces.push(Piece::frozen(keys.b, self.store.b(), b));
        }
        pieces.extend(self.tensors.iter().map(|tensor| Piece {
            name: tensor.name.clone(),
            dtype: tensor.element.0,
            shape: tensor.shape.clone(),
            content: Content::Bytes(&tensor.data),
        }));
        Ok(pieces)
    }

    fn vector_pieces(&self) -> Result<Vec<Piece<'_>>> {
        let (mut vectors, keys) = (Vec::new(), Keys::of(self.config.method));
        for entry in &self.layout.entries {
            let name = &self.layers.get(entry.layer)?.name;
            let parts = [
                (keys.lambda_b, self.config.alpha as f32, Some(entry.ranges.lambda_b)),
                (keys.lambda_d, 1.0, Some(entry.ranges.lambda_d)),
                (LEARNED_BIAS, 1.0, entry.ranges.bias),
            ];
            for (suffix, factor, span) in parts {
                let Some(span) = span else { continue };
                vectors.push((key_of(name, suffix), factor, self.parameters.get(&span)));
            }
        }
        let mut narrow = self.saved_dtypes.vectors;
        for (key, factor, values) in &vectors {
            for (place, value) in values.iter().map(|value| value * factor).enumerate() {
                if !value.is_finite() {
                    fail!(Overflow, "tensor '{key}' would hold {value} at {place}; wanted finite numbers");
                }
                if narrow.rounded(value) != value {
                    narrow = Dtype::F32;
                }
            }
        }
        let pieces = vectors.into_iter().map(|(name, factor, values)| Piece {
            name,
            dtype: stored(narrow),
            shape: vec![values.len()],
            content: Content::Vector { values, factor, dtype: narrow },
        });
        Ok(pieces.collect())
    }
}

/// One tensor on its way into a file.
struct Piece<'a> {
    name: String,
    dtype: Stored,
    shape: Vec<usize>,
    content: Content<'a>,
}

enum Content<'a> {
    Vector { values: &'a [f32], factor: f32, dtype: Dtype },
    Frozen { matrix: &'a Frozen, dtype: Dtype },
    Bytes(&'a [u8]),
}

impl<'a> Piece<'a> {
    fn frozen(key: &str, matrix: &'a Frozen, dtype: Dtype) -> Self {
        let shape = vec![matrix.rows(), matrix.cols()];
        Self { name: key.to_owned(), dtype: stored(dtype), shape, content: Content::Frozen { matrix, dtype } }
    }

    fn bytes(&self) -> usize {
        match &self.content {
            Content::Vector { values, dtype, .. } => values.len() * dtype.size(),
            Content::Frozen { matrix, dtype } => matrix.rows() * matrix.cols() * dtype.size(),
            Content::Bytes(bytes) => bytes.len(),
        }
    }

    /// Appends [`Self::bytes`] bytes, for which there is room.
    fn write(&self, file: &mut Vec<u8>) {
        match &self.content {
            Content::Vector { values, factor, dtype } => {
                values.iter().for_each(|value| push(file, value * factor, *dtype));
            }
            Content::Frozen { matrix, dtype } => {
                let (matrix, mut block) = (matrix.matrix(), [0.0; 1024]);
                for row in 0..matrix.rows() {
                    for first in (0..matrix.cols()).step_by(block.len()) {
                        let part = &mut block[..(matrix.cols() - first).min(1024)];
                        matrix.load(row, first, part);
                        part.iter().for_each(|value| push(file, *value, *dtype));
                    }
                }
            }
            Content::Bytes(bytes) => file.extend_from_slice(bytes),
        }
    }
}

/// The safetensors file, laid out as PEFT's: wider element types first, then by name.
fn file_of(mut pieces: Vec<Piece<'_>>) -> Result<Vec<u8>> {
    pieces.sort_by(|first, second| second.dtype.cmp(&first.dtype).then_with(|| first.name.cmp(&second.name)));
    let mut end = 0;
    let infos = pieces.iter().map(|piece| {
        let start = end;
        end += piece.bytes();
        let info = TensorInfo { dtype: piece.dtype, shape: piece.shape.clone(), data_offsets: (start, end) };
        (piece.name.clone(), info)
    });
    let header = header_of(infos.collect())?;
    let mut file = Vec::new();
    file.try_reserve_exact(header.len() + end).map_err(|_| Error::out_of_memory())?;
    file.extend_from_slice(&header);
    pieces.iter().for_each(|piece| piece.write(&mut file));
    Ok(file)
}

/// What a safetensors file begins with: the header's length, and the header, padded as PEFT's.
pub(crate) fn header_of(infos: Vec<(String, TensorInfo)>) -> Result<Vec<u8>> {
    let format = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let unwritable = |error: String| Error::new(Code::Format, format!("could not write the adapter's header: {error}"));
    let header = Metadata::new(Some(format), infos).map_err(|error| unwritable(error.to_string()))?;
    let mut header = serde_json::to_vec(&header).map_err(|error| unwritable(error.to_string()))?;
    header.resize(header.len().next_multiple_of(size_of::<u64>()), b' ');
    if header.len() > LARGEST_HEADER {
        fail!(Format, "the file's header would have {} bytes; readers take at most {LARGEST_HEADER}", header.len());
    }
    let mut whole = (header.len() as u64).to_le_bytes().to_vec();
    whole.try_reserve_exact(header.len()).map_err(|_| Error::out_of_memory())?;
    whole.extend_from_slice(&header);
    Ok(whole)
}

pub(crate) fn stored(dtype: Dtype) -> Stored {
    match dtype {
        Dtype::F32 => Stored::F32,
        Dtype::F16 => Stored::F16,
        Dtype::Bf16 => Stored::BF16,
    }
}

fn push(file: &mut Vec<u8>, value: f32, dtype: Dtype) {
    match dtype {
        Dtype::F32 => file.extend_from_slice(&value.to_le_bytes()),
        Dtype::F16 => file.extend_from_slice(&f16::from_f32(value).to_le_bytes()),
        Dtype::Bf16 => file.extend_from_slice(&bf16::from_f32(value).to_le_bytes()),
    }
}
