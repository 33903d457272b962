//! One frozen matrix, kept in the smallest element type that holds its values exactly.

use std::sync::Arc;

use bytemuck::Pod;
use half::{bf16, f16};
use memmap2::Mmap;

use crate::backend::{Copies, Original, Weight};
use crate::error::Result;
use crate::fail;
use crate::memory::{Allocator, Buffer};
use crate::tensor::{Device, Dtype, Matrix, Parts};

/// A or B: row major, immutable.
#[derive(Debug)]
pub struct Frozen {
    bytes: Bytes,
    dtype: Dtype,
    rows: usize,
    cols: usize,
    copies: Copies,
}

#[derive(Debug)]
enum Bytes {
    Owned(Buffer<u8>),
    /// A piece of a file that the caller asked to map instead of reading.
    Mapped {
        file: Arc<Mmap>,
        start: usize,
        length: usize,
    },
}

impl Bytes {
    fn get(&self) -> &[u8] {
        match self {
            Bytes::Owned(buffer) => buffer,
            Bytes::Mapped { file, start, length } => &file[*start..*start + *length],
        }
    }
}

impl Frozen {
    /// Keeps f32 values, in 16 bits where that loses nothing: a PEFT file holds in f32 what it rounded to the base type.
    pub fn from_f32(allocator: &Allocator, values: &[f32], rows: usize, cols: usize) -> Result<Self> {
        assert_eq!(values.len(), rows * cols);
        let exact_in = |dtype: Dtype| values.iter().all(|value| dtype.rounded(*value).to_bits() == value.to_bits());
        let (bytes, dtype) = if exact_in(Dtype::Bf16) {
            (narrowed(allocator, values, bf16::from_f32)?, Dtype::Bf16)
        } else if exact_in(Dtype::F16) {
            (narrowed(allocator, values, f16::from_f32)?, Dtype::F16)
        } else {
            (Buffer::copied(allocator, bytemuck::cast_slice(values))?, Dtype::F32)
        };
        Ok(Self { bytes: Bytes::Owned(bytes), dtype, rows, cols, copies: Copies::default() })
    }

    /// Copies a matrix of the caller's, of any stride.
    pub fn copied(allocator: &Allocator, matrix: &Matrix<'_>) -> Result<Self> {
        let (rows, cols) = (matrix.rows(), matrix.cols());
        let mut values = Buffer::<f32>::zeroed(allocator, elements("the matrix", rows, cols)?)?;
        for (row, values) in values.chunks_exact_mut(cols.max(1)).enumerate() {
            matrix.load(row, 0, values);
        }
        Self::from_f32(allocator, &values, rows, cols)
    }

    /// Copies stored elements (as a safetensors file holds them, of any alignment).
    pub fn from_bytes(allocator: &Allocator, bytes: &[u8], dtype: Dtype, rows: usize, cols: usize) -> Result<Self> {
        assert_eq!(bytes.len(), rows * cols * dtype.size());
        let own = Buffer::copied(allocator, bytes)?;
        if dtype != Dtype::F32 {
            return Ok(Self { bytes: Bytes::Owned(own), dtype, rows, cols, copies: Copies::default() });
        }
        Self::from_f32(allocator, bytemuck::cast_slice(&own), rows, cols)
    }

    /// Borrows a piece of a mapped file. An unaligned piece is copied.
    pub fn from_map(
        allocator: &Allocator,
        file: &Arc<Mmap>,
        start: usize,
        dtype: Dtype,
        rows: usize,
        cols: usize,
    ) -> Result<Self> {
        let length = rows * cols * dtype.size();
        let piece = &file[start..start + length];
        if !(piece.as_ptr() as usize).is_multiple_of(dtype.size()) {
            return Self::from_bytes(allocator, piece, dtype, rows, cols);
        }
        Ok(Self {
            bytes: Bytes::Mapped { file: file.clone(), start, length },
            dtype,
            rows,
            cols,
            copies: Copies::default(),
        })
    }

    /// Where its memory comes from.
    pub fn allocator(&self) -> Allocator {
        match &self.bytes {
            Bytes::Owned(buffer) => *buffer.allocator(),
            Bytes::Mapped { .. } => Allocator::default(),
        }
    }

    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    pub fn is_mapped(&self) -> bool {
        matches!(self.bytes, Bytes::Mapped { .. })
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    pub fn cols(&self) -> usize {
        self.cols
    }

    pub fn matrix(&self) -> Matrix<'_> {
        let parts =
            Parts { rows: self.rows, cols: self.cols, row_stride: self.cols, dtype: self.dtype, device: Device::Host };
        // SAFETY: the constructors hold rows × cols aligned elements.
        unsafe { Matrix::new("projection", self.bytes.get().as_ptr(), parts) }.expect("the constructors made it valid")
    }

    /// The matrix for backends that keep copies elsewhere.
    pub fn original(&self) -> Original<'_> {
        self.copies.of(self.bytes.get())
    }

    /// The elements as they are held, row major, of [`Self::dtype`].
    pub fn stored(&self) -> &[u8] {
        self.bytes.get()
    }

    pub fn weight(&self) -> Weight<'_> {
        Weight::output_major(&self.matrix())
    }

    /// Bytes held resident.
    pub fn bytes(&self) -> usize {
        self.rows * self.cols * self.dtype.size()
    }

    /// Same values, whatever the storage.
    pub fn same_values(&self, other: &Self) -> bool {
        if (self.rows, self.cols) != (other.rows, other.cols) {
            return false;
        }
        if self.dtype == other.dtype {
            return self.bytes.get() == other.bytes.get();
        }
        let mut equal = true;
        self.each_block(|start, block| {
            let mut theirs = [0.0; BLOCK];
            other.widen(start, &mut theirs[..block.len()]);
            equal &= block.iter().zip(&theirs).all(|(a, b)| a.to_bits() == b.to_bits());
        });
        equal
    }

    /// A 64-bit digest of the values, whatever the storage (FNV-1a over their f32 bits).
    pub fn digest(&self, seed: u64) -> u64 {
        let mut state = seed ^ 0xcbf2_9ce4_8422_2325;
        self.each_block(|_, block| {
            for value in block {
                state = (state ^ u64::from(value.to_bits())).wrapping_mul(0x0000_0100_0000_01b3);
            }
        });
        state
    }

    pub fn all_finite(&self) -> bool {
        let mut finite = true;
        self.each_block(|_, block| finite &= block.iter().all(|value| value.is_finite()));
        finite
    }

    fn each_block(&self, mut visit: impl FnMut(usize, &[f32])) {
        let mut block = [0.0; BLOCK];
        let total = self.rows * self.cols;
        for start in (0..total).step_by(BLOCK) {
            let count = BLOCK.min(total - start);
            self.widen(start, &mut block[..count]);
            visit(start, &block[..count]);
        }
    }

    fn widen(&self, start: usize, out: &mut [f32]) {
        assert!(start + out.len() <= self.rows * self.cols);
        // SAFETY: in bounds by the assertion; aligned by the constructors.
        unsafe { self.dtype.widen(self.bytes.get().as_ptr(), start, out) }
    }
}

/// Elements handled at a time by the passes over whole matrices.
const BLOCK: usize = 1024;

fn narrowed<T: Pod>(allocator: &Allocator, values: &[f32], round: impl Fn(f32) -> T) -> Result<Buffer<u8>> {
    let mut bytes = Buffer::<u8>::zeroed(allocator, values.len() * size_of::<T>())?;
    for (place, value) in bytemuck::cast_slice_mut::<u8, T>(&mut bytes).iter_mut().zip(values) {
        *place = round(*value);
    }
    Ok(bytes)
}

/// Elements of a `rows × cols` matrix, or an error that names what is too large.
pub(super) fn elements(name: &str, rows: usize, cols: usize) -> Result<usize> {
    match rows.checked_mul(cols).filter(|count| *count <= isize::MAX as usize / 8) {
        Some(count) => Ok(count),
        None => fail!(Shape, "{name} would be {rows}×{cols}; that is more than the address space holds"),
    }
}
