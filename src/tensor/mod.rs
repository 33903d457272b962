//! Borrowed matrices of the host: dtype, device, stride, and every check on them.

mod check;
mod device;
mod dtype;
#[cfg(test)]
mod tests;
mod vector;

pub use check::{disjoint, disjoint_mut};
pub use device::Device;
pub use dtype::{Dtype, bf16_bits};
pub use vector::{Vector, VectorMut};

use std::marker::PhantomData;

use ndarray::{ArrayView2, ArrayViewMut2, ShapeBuilder};

use crate::error::Result;

/// What a matrix is made of, before any check: the fields of `pvera_matrix`.
#[derive(Clone, Copy, Debug)]
pub struct Parts {
    pub rows: usize,
    pub cols: usize,
    /// Distance between the starts of two rows, in elements.
    pub row_stride: usize,
    pub dtype: Dtype,
    pub device: Device,
}

/// A matrix that is read. Elements of a row lie side by side.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    data: *const u8,
    parts: Parts,
    lifetime: PhantomData<&'a u8>,
}

/// A matrix that is written.
#[derive(Debug)]
pub struct MatrixMut<'a> {
    data: *mut u8,
    parts: Parts,
    lifetime: PhantomData<&'a mut u8>,
}

// SAFETY: a matrix is a borrowed slice with a stride.
unsafe impl Send for Matrix<'_> {}
// SAFETY: as above.
unsafe impl Sync for Matrix<'_> {}
// SAFETY: as above; workers write disjoint rows or columns, through `tile`.
unsafe impl Send for MatrixMut<'_> {}
// SAFETY: as above.
unsafe impl Sync for MatrixMut<'_> {}

impl<'a> Matrix<'a> {
    /// Checks everything that can be checked without knowing what the matrix is for.
    ///
    /// # Safety
    /// `data` points to the elements that `parts` describe, for as long as `'a`.
    pub unsafe fn new(name: &str, data: *const u8, parts: Parts) -> Result<Self> {
        check::parts(name, data, &parts)?;
        Ok(Self { data, parts, lifetime: PhantomData })
    }

    pub fn from_f32(values: &'a [f32], rows: usize, cols: usize) -> Self {
        assert!(values.len() >= rows * cols);
        let parts = Parts { rows, cols, row_stride: cols, dtype: Dtype::F32, device: Device::Host };
        Self { data: values.as_ptr().cast(), parts, lifetime: PhantomData }
    }

    /// A matrix of which only the shape may be looked at: for questions about calls to come.
    pub fn shape_only(rows: usize, cols: usize) -> Self {
        let parts = Parts { rows, cols, row_stride: cols, dtype: Dtype::F32, device: Device::Host };
        Self { data: std::ptr::null(), parts, lifetime: PhantomData }
    }

    pub fn rows(&self) -> usize {
        self.parts.rows
    }

    pub fn cols(&self) -> usize {
        self.parts.cols
    }

    pub fn row_stride(&self) -> usize {
        self.parts.row_stride
    }

    pub fn dtype(&self) -> Dtype {
        self.parts.dtype
    }

    pub fn device(&self) -> Device {
        self.parts.device
    }

    /// An address on the matrix's device.
    pub fn data(&self) -> *const u8 {
        self.data
    }

    /// Whether the elements may be read here.
    fn on_host(&self) -> bool {
        self.parts.device == Device::Host
    }

    pub fn is_empty(&self) -> bool {
        self.parts.rows == 0 || self.parts.cols == 0
    }

    /// The same matrix for as long as the caller of the library promised to keep it.
    ///
    /// # Safety
    /// The elements outlive every use of the result.
    pub unsafe fn forever(self) -> Matrix<'static> {
        Matrix { data: self.data, parts: self.parts, lifetime: PhantomData }
    }

    /// The matrix as it lies, when it holds f32.
    pub fn as_f32(&self) -> Option<ArrayView2<'a, f32>> {
        let shape = (self.rows(), self.cols()).strides((self.row_stride(), 1));
        // SAFETY: `new` checked pointer, alignment and extent for these parts.
        (self.dtype() == Dtype::F32 && self.on_host())
            .then(|| unsafe { ArrayView2::from_shape_ptr(shape, self.data.cast()) })
    }

    /// Part of row `row`, from `first_col` on: in place where it lies as f32, else widened into `copy`, which has its length.
    pub fn part<'p>(&'p self, row: usize, first_col: usize, copy: &'p mut [f32]) -> &'p [f32] {
        if self.dtype() != Dtype::F32 {
            self.load(row, first_col, copy);
            return copy;
        }
        assert!(self.on_host() && row < self.rows() && first_col + copy.len() <= self.cols());
        // SAFETY: in bounds by the assertion and `new`.
        unsafe {
            let start = self.data.cast::<f32>().add(row * self.row_stride() + first_col);
            std::slice::from_raw_parts(start, copy.len())
        }
    }

    /// The bits of `count` bf16 elements of row `row`, from `first_col` on.
    ///
    /// # Panics
    /// When the matrix holds another type.
    pub fn bf16_part(&self, row: usize, first_col: usize, count: usize) -> &[u16] {
        assert!(self.on_host() && self.dtype() == Dtype::Bf16 && row < self.rows() && first_col + count <= self.cols());
        // SAFETY: in bounds by the assertion and `new`.
        unsafe { std::slice::from_raw_parts(self.data.cast::<u16>().add(row * self.row_stride() + first_col), count) }
    }

    /// Widens part of row `row`, from `first_col` on, to f32.
    pub fn load(&self, row: usize, first_col: usize, out: &mut [f32]) {
        assert!(self.on_host() && row < self.rows() && first_col + out.len() <= self.cols());
        let start = row * self.row_stride() + first_col;
        // SAFETY: in bounds by the assertion and `new`.
        unsafe { self.dtype().widen(self.data, start, out) }
    }

    pub fn shape(&self, name: &str, rows: (&str, usize), cols: (&str, usize)) -> Result<()> {
        check::shape(name, &self.parts, rows, cols)
    }

    pub fn f32_only(&self, name: &str) -> Result<()> {
        check::f32_only(name, &self.parts)
    }
}

impl<'a> MatrixMut<'a> {
    /// # Safety
    /// As for [`Matrix::new`], and nothing else reads or writes the elements during `'a`.
    pub unsafe fn new(name: &str, data: *mut u8, parts: Parts) -> Result<Self> {
        check::parts(name, data, &parts)?;
        Ok(Self { data, parts, lifetime: PhantomData })
    }

    pub fn from_f32(values: &'a mut [f32], rows: usize, cols: usize) -> Self {
        assert!(values.len() >= rows * cols);
        let parts = Parts { rows, cols, row_stride: cols, dtype: Dtype::F32, device: Device::Host };
        Self { data: values.as_mut_ptr().cast(), parts, lifetime: PhantomData }
    }

    /// As [`Matrix::shape_only`].
    pub fn shape_only(rows: usize, cols: usize) -> Self {
        let parts = Parts { rows, cols, row_stride: cols, dtype: Dtype::F32, device: Device::Host };
        Self { data: std::ptr::null_mut(), parts, lifetime: PhantomData }
    }

    /// The same matrix, to be read.
    pub fn as_const(&self) -> Matrix<'_> {
        Matrix { data: self.data, parts: self.parts, lifetime: PhantomData }
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

    pub fn device(&self) -> Device {
        self.parts.device
    }

    /// Rows and columns from `row` and `col` on, to be written in place; `None` unless the matrix holds f32.
    ///
    /// # Safety
    /// Tiles that are alive at the same time do not overlap.
    pub unsafe fn tile_f32(&self, row: usize, rows: usize, col: usize, cols: usize) -> Option<ArrayViewMut2<'a, f32>> {
        assert!(self.parts.device == Device::Host && row + rows <= self.rows() && col + cols <= self.cols());
        let shape = (rows, cols).strides((self.parts.row_stride, 1));
        let start = if rows == 0 || cols == 0 { 0 } else { row * self.parts.row_stride + col };
        // SAFETY: in bounds by the assertion and `new`; exclusive by the caller's promise.
        (self.dtype() == Dtype::F32)
            .then(|| unsafe { ArrayViewMut2::from_shape_ptr(shape, self.data.cast::<f32>().add(start)) })
    }

    /// The first element of row `row`, to be written.
    pub fn row_pointer(&self, row: usize) -> *mut u8 {
        assert!(row < self.rows());
        self.data.wrapping_add(row * self.parts.row_stride * self.dtype().size())
    }

    /// Distance between the starts of two rows, in elements.
    pub fn row_stride(&self) -> usize {
        self.parts.row_stride
    }

    /// Part of row `row` of f32, from `first_col` on.
    ///
    /// # Safety
    /// Nobody else touches these elements while the slice lives.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn f32_part_mut(&self, row: usize, first_col: usize, count: usize) -> &mut [f32] {
        assert!(self.dtype() == Dtype::F32 && self.parts.device == Device::Host);
        assert!(row < self.rows() && first_col + count <= self.cols());
        let start = row * self.parts.row_stride + first_col;
        // SAFETY: in bounds by the assertions and `new`; exclusive by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.data.cast::<f32>().add(start), count) }
    }

    /// Rounds values into part of row `row`, from `first_col` on.
    ///
    /// # Safety
    /// No other thread touches these elements now.
    pub unsafe fn store(&self, row: usize, first_col: usize, values: &[f32]) {
        assert!(self.parts.device == Device::Host && row < self.rows() && first_col + values.len() <= self.cols());
        let start = row * self.parts.row_stride + first_col;
        // SAFETY: in bounds by the assertion and `new`; exclusive by the caller's promise.
        unsafe { self.dtype().narrow(values, self.data, start) }
    }

    pub fn shape(&self, name: &str, rows: (&str, usize), cols: (&str, usize)) -> Result<()> {
        check::shape(name, &self.parts, rows, cols)
    }

    pub fn f32_only(&self, name: &str) -> Result<()> {
        check::f32_only(name, &self.parts)
    }

    /// Another handle on the same matrix, for a call that hands it on in a list.
    pub fn alias(other: &'a MatrixMut<'_>) -> Self {
        Self { data: other.data, parts: other.parts, lifetime: PhantomData }
    }
}
