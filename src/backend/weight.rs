//! A frozen matrix as the kernels see it: A, B or a base weight, in any orientation and element type.

use std::marker::PhantomData;

use crate::tensor::{Dtype, Matrix};

/// `outputs × inputs` elements; the product of `x [n, inputs]` with it is `[n, outputs]`.
#[derive(Clone, Copy, Debug)]
pub struct Weight<'a> {
    data: *const u8,
    dtype: Dtype,
    outputs: usize,
    inputs: usize,
    /// Distance from one output to the next, in elements.
    output_stride: usize,
    /// Distance from one input to the next, in elements.
    input_stride: usize,
    lifetime: PhantomData<&'a u8>,
}

// SAFETY: a weight is a borrowed slice with strides, only read.
unsafe impl Send for Weight<'_> {}
// SAFETY: as above.
unsafe impl Sync for Weight<'_> {}

impl<'a> Weight<'a> {
    /// A matrix stored `[outputs, inputs]`, as torch.nn.Linear does.
    pub fn output_major(matrix: &Matrix<'a>) -> Self {
        Self {
            data: matrix.data(),
            dtype: matrix.dtype(),
            outputs: matrix.rows(),
            inputs: matrix.cols(),
            output_stride: matrix.row_stride(),
            input_stride: 1,
            lifetime: PhantomData,
        }
    }

    /// The product with the transposed matrix: `dy W` for a `W` that forward uses as `x Wᵀ`.
    pub fn transposed(self) -> Self {
        Self {
            outputs: self.inputs,
            inputs: self.outputs,
            output_stride: self.input_stride,
            input_stride: self.output_stride,
            ..self
        }
    }

    /// `count` outputs from `first` on.
    pub fn outputs_from(self, first: usize, count: usize) -> Self {
        assert!(first + count <= self.outputs);
        Self { data: self.offset(first, 0), outputs: count, ..self }
    }

    /// `count` inputs from `first` on.
    pub fn inputs_from(self, first: usize, count: usize) -> Self {
        assert!(first + count <= self.inputs);
        Self { data: self.offset(0, first), inputs: count, ..self }
    }

    fn offset(&self, output: usize, input: usize) -> *const u8 {
        self.data.wrapping_add((output * self.output_stride + input * self.input_stride) * self.dtype.size())
    }

    pub fn outputs(&self) -> usize {
        self.outputs
    }

    pub fn inputs(&self) -> usize {
        self.inputs
    }

    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    pub fn output_stride(&self) -> usize {
        self.output_stride
    }

    pub fn input_stride(&self) -> usize {
        self.input_stride
    }

    pub fn data(&self) -> *const u8 {
        self.data
    }

    /// The element of one output and one input, widened.
    pub fn at(&self, output: usize, input: usize) -> f32 {
        assert!(output < self.outputs && input < self.inputs);
        let mut value = [0.0];
        // SAFETY: in bounds by the assertion.
        unsafe { self.dtype.widen(self.data, output * self.output_stride + input * self.input_stride, &mut value) };
        value[0]
    }

    /// Widens the elements of one output along the inputs, which lie side by side.
    pub fn load_along_inputs(&self, output: usize, out: &mut [f32]) {
        assert!(output < self.outputs && out.len() <= self.inputs && self.input_stride == 1);
        // SAFETY: in bounds by the assertion.
        unsafe { self.dtype.widen(self.data, output * self.output_stride, out) };
    }

    /// Widens the elements of one input along the outputs, which lie side by side.
    pub fn load_along_outputs(&self, input: usize, out: &mut [f32]) {
        assert!(input < self.inputs && out.len() <= self.outputs && self.output_stride == 1);
        // SAFETY: in bounds by the assertion.
        unsafe { self.dtype.widen(self.data, input * self.input_stride, out) };
    }

    /// Where the elements of one input begin, which lie side by side along the outputs; not to be read beyond the last.
    pub fn line(&self, input: usize) -> *const u8 {
        self.offset(0, input)
    }

    /// The bf16 elements of one output along the inputs, as they lie.
    pub fn bits_along_inputs(&self, output: usize) -> &'a [u16] {
        assert!(output < self.outputs && self.input_stride == 1 && self.dtype == Dtype::Bf16);
        // SAFETY: in bounds and of this type by the assertion.
        unsafe { std::slice::from_raw_parts(self.offset(output, 0).cast(), self.inputs) }
    }

    /// The bf16 elements of one input along the outputs, as they lie.
    pub fn bits_along_outputs(&self, input: usize) -> &'a [u16] {
        assert!(input < self.inputs && self.output_stride == 1 && self.dtype == Dtype::Bf16);
        // SAFETY: in bounds and of this type by the assertion.
        unsafe { std::slice::from_raw_parts(self.offset(0, input).cast(), self.outputs) }
    }

    /// Visits all elements, widened, in pieces of the order in which they lie, until a visit returns false; returns
    /// whether none did.
    pub fn each_line(&self, mut visit: impl FnMut(&[f32]) -> bool) -> bool {
        const PIECE: usize = 512;
        let mut piece = [0.0; PIECE];
        let by_output = self.input_stride == 1;
        let (lines, length) = if by_output { (self.outputs, self.inputs) } else { (self.inputs, self.outputs) };
        let line_stride = if by_output { self.output_stride } else { self.input_stride };
        (0..lines).all(|line| {
            (0..length).step_by(PIECE).all(|start| {
                let piece = &mut piece[..PIECE.min(length - start)];
                // SAFETY: in bounds: a line has `length` elements side by side.
                unsafe { self.dtype.widen(self.data, line * line_stride + start, piece) };
                visit(piece)
            })
        })
    }
}
