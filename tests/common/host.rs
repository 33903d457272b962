//! The host's memory: matrices of any element type and stride, whose padding betrays a stray read or write.

use super::place::{self, Placed};
use pvera::tensor::{Device, Dtype, Matrix, MatrixMut, Parts};

/// NaN in every element type.
const PADDING: u32 = u32::MAX;

#[derive(Clone)]
pub struct Host {
    words: Vec<u32>,
    parts: Parts,
}

impl Host {
    pub fn new(dtype: Dtype, rows: usize, cols: usize, padding: usize, values: &[f32]) -> Self {
        assert_eq!(values.len(), rows * cols);
        let parts = Parts { rows, cols, row_stride: cols + padding, dtype, device: Device::Host };
        let words = vec![PADDING; (rows * (cols + padding) * dtype.size()).div_ceil(4) + 1];
        let mut host = Self { words, parts };
        let matrix = host.matrix_mut();
        for row in 0..rows {
            // SAFETY: one thread.
            unsafe { matrix.store(row, 0, &values[row * cols..][..cols]) };
        }
        host
    }

    pub fn f32(rows: usize, cols: usize, values: &[f32]) -> Self {
        Self::new(Dtype::F32, rows, cols, 0, values)
    }

    pub fn filled(dtype: Dtype, rows: usize, cols: usize, padding: usize, value: f32) -> Self {
        Self::new(dtype, rows, cols, padding, &vec![value; rows * cols])
    }

    pub fn zeros(rows: usize, cols: usize) -> Self {
        Self::filled(Dtype::F32, rows, cols, 0, 0.0)
    }

    /// The matrix in another element type and stride.
    pub fn like(&self, dtype: Dtype, padding: usize) -> Self {
        Self::new(dtype, self.rows(), self.cols(), padding, &self.values())
    }

    /// Some rows, in any order.
    pub fn rows_of(&self, rows: &[usize]) -> Self {
        let values = self.values();
        let picked: Vec<f32> =
            rows.iter().flat_map(|row| &values[row * self.cols()..][..self.cols()]).copied().collect();
        Self::new(self.parts.dtype, rows.len(), self.cols(), self.parts.row_stride - self.cols(), &picked)
    }

    pub fn rows(&self) -> usize {
        self.parts.rows
    }

    pub fn cols(&self) -> usize {
        self.parts.cols
    }

    pub fn dtype(&self) -> Dtype {
        self.parts.dtype
    }

    pub fn matrix(&self) -> Matrix<'_> {
        self.matrix_at(Device::Host, 0)
    }

    pub fn matrix_mut(&mut self) -> MatrixMut<'_> {
        self.matrix_mut_at(Device::Host, 0)
    }

    /// The matrix, or its copy at an address of a device.
    pub fn matrix_at(&self, device: Device, address: u64) -> Matrix<'_> {
        let data = match device {
            Device::Host => self.words.as_ptr().cast(),
            Device::Cuda(_) => std::ptr::without_provenance(address as usize),
        };
        // SAFETY: the words, or their copy, hold what the parts describe.
        unsafe { Matrix::new("host", data, Parts { device, ..self.parts }) }.unwrap()
    }

    pub fn matrix_mut_at(&mut self, device: Device, address: u64) -> MatrixMut<'_> {
        let data = match device {
            Device::Host => self.words.as_mut_ptr().cast(),
            Device::Cuda(_) => std::ptr::without_provenance_mut(address as usize),
        };
        // SAFETY: as above, and `self` is exclusive.
        unsafe { MatrixMut::new("host", data, Parts { device, ..self.parts }) }.unwrap()
    }

    pub fn bytes(&self) -> &[u8] {
        bytemuck::cast_slice(&self.words)
    }

    pub fn bytes_mut(&mut self) -> &mut [u8] {
        bytemuck::cast_slice_mut(&mut self.words)
    }

    /// A copy where a context computes.
    pub fn on(&self, device: Device) -> Placed {
        Placed::new(self.clone(), device)
    }

    pub fn values(&self) -> Vec<f32> {
        let mut values = vec![0.0; self.rows() * self.cols()];
        if self.cols() > 0 {
            for (row, values) in values.chunks_exact_mut(self.cols()).enumerate() {
                self.matrix().load(row, 0, values);
            }
        }
        values
    }

    pub fn bits(&self) -> Vec<u32> {
        super::bits(&self.values())
    }

    pub fn row_bits(&self, row: usize) -> Vec<u32> {
        self.bits()[row * self.cols()..][..self.cols()].to_vec()
    }

    /// Whether everything between and behind the rows is as it was.
    pub fn padding_is_intact(&self) -> bool {
        let fresh =
            Self::new(self.dtype(), self.rows(), self.cols(), self.parts.row_stride - self.cols(), &self.values());
        fresh.words == self.words
    }

    /// For what a model borrows.
    pub fn leaked(self) -> Matrix<'static> {
        self.on(place::of_models()).leaked()
    }
}
