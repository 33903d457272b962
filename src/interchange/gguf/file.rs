//! The layout of a GGUF file (version 3, little endian): key-value pairs, tensors by name, then their aligned data.

use crate::error::{Error, Result};
use crate::tensor::Dtype;

/// Data of tensors begins at multiples of this.
pub const ALIGNMENT: usize = 32;

/// ggml's GGML_MAX_NAME is 64, with the NUL.
pub const LONGEST_NAME: usize = 63;

const VERSION: u32 = 3;

pub enum Value<'a> {
    Text(&'a str),
    U32(u32),
    F32(f32),
}

pub struct TensorEntry<'a> {
    pub name: &'a str,
    /// Row major, `[rows, cols]`.
    pub shape: [usize; 2],
    pub dtype: Dtype,
}

/// Everything before the data.
pub struct Head {
    bytes: Vec<u8>,
    /// Where the next tensor's data begins.
    offset: u64,
}

impl Head {
    pub fn new(values: &[(&str, Value<'_>)], tensors: usize) -> Self {
        let mut head = Self { bytes: b"GGUF".to_vec(), offset: 0 };
        head.put(&VERSION.to_le_bytes());
        head.put(&(tensors as u64).to_le_bytes());
        head.put(&(values.len() as u64).to_le_bytes());
        for (key, value) in values {
            head.text(key);
            // The numbers of the types are those of gguf_type.
            match value {
                Value::U32(number) => {
                    head.put(&4u32.to_le_bytes());
                    head.put(&number.to_le_bytes());
                }
                Value::F32(number) => {
                    head.put(&6u32.to_le_bytes());
                    head.put(&number.to_le_bytes());
                }
                Value::Text(text) => {
                    head.put(&8u32.to_le_bytes());
                    head.text(text);
                }
            }
        }
        head
    }

    /// The next tensor. ggml counts dimensions from the innermost.
    pub fn add(&mut self, tensor: &TensorEntry<'_>) -> Result<()> {
        let [rows, cols] = tensor.shape;
        let bytes = rows.checked_mul(cols).and_then(|count| count.checked_mul(tensor.dtype.size()));
        let end = bytes.and_then(|bytes| bytes.checked_add(padding(bytes))).map(|bytes| bytes as u64);
        self.text(tensor.name);
        self.put(&2u32.to_le_bytes());
        self.put(&(cols as u64).to_le_bytes());
        self.put(&(rows as u64).to_le_bytes());
        self.put(&ggml_type(tensor.dtype).to_le_bytes());
        self.put(&self.offset.to_le_bytes());
        self.offset = end.and_then(|bytes| self.offset.checked_add(bytes)).ok_or(Error::out_of_memory())?;
        Ok(())
    }

    pub fn finished(mut self) -> Vec<u8> {
        self.bytes.resize(self.bytes.len() + padding(self.bytes.len()), 0);
        self.bytes
    }

    fn put(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    fn text(&mut self, text: &str) {
        self.put(&(text.len() as u64).to_le_bytes());
        self.put(text.as_bytes());
    }
}

/// Bytes that lead to the next multiple of the alignment.
pub fn padding(length: usize) -> usize {
    length.wrapping_neg() % ALIGNMENT
}

/// ggml_type.
fn ggml_type(dtype: Dtype) -> u32 {
    match dtype {
        Dtype::F32 => 0,
        Dtype::F16 => 1,
        Dtype::Bf16 => 30,
    }
}

/// llama_ftype: of all tensors, or of most.
pub fn file_type(dtype: Dtype) -> u32 {
    match dtype {
        Dtype::F32 => 0,
        Dtype::F16 => 1,
        Dtype::Bf16 => 32,
    }
}
