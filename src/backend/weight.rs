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
}
