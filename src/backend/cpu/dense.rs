//! Matrix products by matrixmultiply, in the library's summation order: k in blocks of 256, in a block one chain of fused
//! multiply-adds from zero, block sums added ascending. A row's bits depend on nothing but the row.

use ndarray::{ArrayView2, ArrayViewMut2, s};

use super::tile::DEPTH;
use crate::backend::Weight;
use crate::tensor::Dtype;

/// Outputs of a 16-bit weight widened at a time: with `DEPTH` half a megabyte, which stays in L2.
const PANEL: usize = 512;

/// f32 of scratch that [`product`] needs for a weight.
pub fn panel_floats(weight: &Weight<'_>) -> usize {
    if weight.dtype() == Dtype::F32 { 0 } else { PANEL.min(weight.outputs()) * DEPTH.min(weight.inputs()) }
}

/// `c = x Wᵀ`.
pub fn product(x: ArrayView2<'_, f32>, weight: Weight<'_>, mut c: ArrayViewMut2<'_, f32>, panel: &mut [f32]) {
    assert_eq!((x.ncols(), x.nrows(), weight.outputs()), (weight.inputs(), c.nrows(), c.ncols()));
    if c.is_empty() {
        return;
    }
    if weight.dtype() == Dtype::F32 {
        let strides = (weight.input_stride() as isize, weight.output_stride() as isize);
        // SAFETY: a Weight describes inputs × outputs readable elements; it is never written.
        unsafe { gemm(x, weight.data().cast(), strides, c, false) };
        return;
    }
    for first_output in (0..weight.outputs()).step_by(PANEL) {
        let outputs = PANEL.min(weight.outputs() - first_output);
        for first_input in (0..weight.inputs()).step_by(DEPTH) {
            let inputs = DEPTH.min(weight.inputs() - first_input);
            let block = weight.outputs_from(first_output, outputs).inputs_from(first_input, inputs);
            let strides = widen(block, panel);
            // SAFETY: the panel holds inputs × outputs elements in these strides.
            unsafe {
                gemm(
                    x.slice(s![.., first_input..first_input + inputs]),
                    panel.as_ptr(),
                    strides,
                    c.slice_mut(s![.., first_output..first_output + outputs]),
                    first_input > 0,
                );
            }
        }
    }
}

/// Widens a block along its contiguous direction; returns its (input, output) strides in the panel.
fn widen(block: Weight<'_>, panel: &mut [f32]) -> (isize, isize) {
    let (outputs, inputs) = (block.outputs(), block.inputs());
    let by_output = block.input_stride() == 1;
    let (lines, length) = if by_output { (outputs, inputs) } else { (inputs, outputs) };
    let line_stride = if by_output { block.output_stride() } else { block.input_stride() };
    for (line, values) in panel.chunks_exact_mut(length).take(lines).enumerate() {
        // SAFETY: a line of the block, contiguous in memory (one of the strides is 1).
        unsafe { block.dtype().widen(block.data(), line * line_stride, values) };
    }
    if by_output { (1, inputs as isize) } else { (outputs as isize, 1) }
}

/// # Safety
/// `weight` points to `x.ncols() × c.ncols()` elements with these (input, output) strides.
unsafe fn gemm(
    x: ArrayView2<'_, f32>,
    weight: *const f32,
    (input_stride, output_stride): (isize, isize),
    mut c: ArrayViewMut2<'_, f32>,
    adds: bool,
) {
    let (rows, depth, outputs) = (x.nrows(), x.ncols(), c.ncols());
    let (x_strides, c_strides) = ([x.strides()[0], x.strides()[1]], [c.strides()[0], c.strides()[1]]);
    let beta = if adds { 1.0 } else { 0.0 };
    // SAFETY: the views and the caller's promise cover every element that these sizes and strides reach.
    unsafe {
        matrixmultiply::sgemm(
            rows,
            depth,
            outputs,
            1.0,
            x.as_ptr(),
            x_strides[0],
            x_strides[1],
            weight,
            input_stride,
            output_stride,
            beta,
            c.as_mut_ptr(),
            c_strides[0],
            c_strides[1],
        );
    }
}
