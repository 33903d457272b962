//! Tensors that a checkpoint carries beside the adapter's vectors: heads of `modules_to_save`, biases of other modules.

use safetensors::Dtype as Stored;

use crate::error::{Error, Result};
use crate::fail;

/// One such tensor, kept as its bytes. Element types are those of the safetensors format.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// The whole key in the file.
    pub name: String,
    pub element: ElementType,
    pub shape: Vec<usize>,
    /// Row major, little endian.
    pub data: Vec<u8>,
}

/// An element type in DLPack's words: kind and bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ElementType(pub Stored);

/// DLPack's type codes for those that safetensors holds.
const KINDS: [(Stored, u8, u8); 14] = [
    (Stored::I8, 0, 8),
    (Stored::I16, 0, 16),
    (Stored::I32, 0, 32),
    (Stored::I64, 0, 64),
    (Stored::U8, 1, 8),
    (Stored::U16, 1, 16),
    (Stored::U32, 1, 32),
    (Stored::U64, 1, 64),
    (Stored::F16, 2, 16),
    (Stored::F32, 2, 32),
    (Stored::F64, 2, 64),
    (Stored::BF16, 4, 16),
    (Stored::C64, 5, 64),
    (Stored::BOOL, 6, 8),
];

impl ElementType {
    /// DLPack's (code, bits); None for the newer narrow float types, which only travel.
    pub fn dlpack(self) -> Option<(u8, u8)> {
        KINDS.iter().find(|(stored, ..)| *stored == self.0).map(|(_, code, bits)| (*code, *bits))
    }

    pub fn from_dlpack(code: u8, bits: u8) -> Option<Self> {
        KINDS
            .iter()
            .find(|(_, known_code, known_bits)| (*known_code, *known_bits) == (code, bits))
            .map(|(stored, ..)| Self(*stored))
    }
}

impl Tensor {
    /// Copies a tensor, fallibly.
    pub fn copied(name: &str, element: ElementType, shape: &[usize], bytes: &[u8]) -> Result<Self> {
        let elements = shape.iter().try_fold(1usize, |product, size| product.checked_mul(*size));
        let wanted = elements.and_then(|count| count.checked_mul(element.0.bitsize())).map(|bits| bits / 8);
        if wanted != Some(bytes.len()) {
            fail!(
                Shape,
                "tensor '{name}' of shape {shape:?} in {:?} has {} bytes; that does not fit",
                element.0,
                bytes.len()
            );
        }
        let mut data = Vec::new();
        data.try_reserve_exact(bytes.len()).map_err(|_| Error::out_of_memory())?;
        data.extend_from_slice(bytes);
        Ok(Self { name: name.to_owned(), element, shape: shape.to_vec(), data })
    }
}
