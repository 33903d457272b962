//! The host's memory: matrices of any element type and stride, whose padding betrays a stray read or write.

use pvera::tensor::{Dtype, Matrix, MatrixMut, Parts};

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
        let parts = Parts { rows, cols, row_stride: cols + padding, dtype };
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
        // SAFETY: the words hold what the parts describe.
        unsafe { Matrix::new("host", self.words.as_ptr().cast(), self.parts) }.unwrap()
    }

    pub fn matrix_mut(&mut self) -> MatrixMut<'_> {
        // SAFETY: the words hold what the parts describe, and `self` is exclusive.
        unsafe { MatrixMut::new("host", self.words.as_mut_ptr().cast(), self.parts) }.unwrap()
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

    /// For what a model borrows: never freed.
    pub fn leaked(self) -> Matrix<'static> {
        Box::leak(Box::new(self)).matrix()
    }
}
