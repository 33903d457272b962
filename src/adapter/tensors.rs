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
        let mut tensor = Self { name: name.to_owned(), element, shape: shape.to_vec(), data: Vec::new() };
        tensor.check(bytes.len())?;
        tensor.data.try_reserve_exact(bytes.len()).map_err(|_| Error::out_of_memory())?;
        tensor.data.extend_from_slice(bytes);
        Ok(tensor)
    }

    /// `clone` for data of a file's size: fallible.
    pub fn duplicate(&self) -> Result<Self> {
        Self::copied(&self.name, self.element, &self.shape, &self.data)
    }

    /// Whether that many bytes are what the shape and the element type take.
    pub(super) fn check(&self, bytes: usize) -> Result<()> {
        let (name, shape, stored) = (&self.name, &self.shape, self.element.0);
        let elements = shape.iter().try_fold(1usize, |product, size| product.checked_mul(*size));
        let bits = elements.and_then(|count| count.checked_mul(stored.bitsize()));
        match bits {
            Some(bits) if bits.is_multiple_of(8) && bits / 8 == bytes => Ok(()),
            Some(bits) => fail!(
                Shape,
                "tensor '{name}' of shape {shape:?} in {stored:?} is given {bytes} bytes; wanted {bits} bits"
            ),
            None => fail!(Shape, "tensor '{name}' of shape {shape:?} is more than the address space holds"),
        }
    }
}
