//! The checks on borrowed matrices. Each names the argument, what was given and what was wanted.

use std::fmt::Display;

use super::{Dtype, Matrix, MatrixMut, Parts};
use crate::error::Result;
use crate::fail;

pub(super) fn parts(name: &str, data: *const u8, parts: &Parts) -> Result<()> {
    let Parts { rows, cols, row_stride, dtype, .. } = *parts;
    if rows == 0 || cols == 0 {
        return Ok(());
    }
    if data.is_null() {
        fail!(Null, "{name}.data is NULL; wanted {rows}×{cols} elements of {}", dtype.name());
    }
    if row_stride < cols && rows > 1 {
        fail!(
            Stride,
            "{name}.row_stride is {row_stride}; wanted at least {cols}, its number of columns (the unit is elements)"
        );
    }
    if !(data as usize).is_multiple_of(dtype.size()) {
        fail!(
            Argument,
            "{name}.data is {data:p}; wanted an address aligned to {} bytes, for {}",
            dtype.size(),
            dtype.name()
        );
    }
    match extent(parts) {
        Some(bytes) if (data as usize).checked_add(bytes).is_some() => Ok(()),
        _ => fail!(
            Shape,
            "{name} is {rows}×{cols} with row_stride {row_stride}; that is more than the address space holds"
        ),
    }
}

/// Bytes from the first element to the end of the last one.
fn extent(parts: &Parts) -> Option<usize> {
    if parts.rows == 0 || parts.cols == 0 {
        return Some(0);
    }
    let elements = (parts.rows - 1).checked_mul(parts.row_stride)?.checked_add(parts.cols)?;
    elements.checked_mul(parts.dtype.size()).filter(|bytes| *bytes <= isize::MAX as usize)
}

pub(super) fn shape(name: &str, parts: &Parts, rows: (&str, usize), cols: (&str, usize)) -> Result<()> {
    if parts.rows != rows.1 || parts.cols != cols.1 {
        fail!(Shape, "{name} is {}×{}; wanted {}×{} ({} × {})", parts.rows, parts.cols, rows.1, cols.1, rows.0, cols.0);
    }
    Ok(())
}

pub(super) fn f32_only(name: &str, parts: &Parts) -> Result<()> {
    if parts.dtype != Dtype::F32 {
        fail!(Dtype, "{name} holds {}; wanted f32", parts.dtype.name());
    }
    Ok(())
}

/// An output must not share memory with an input. Interleaved views of one buffer (the thirds of a fused y) are
/// disjoint when they have the same stride and their columns do not meet.
pub fn disjoint(
    output_name: impl Display,
    output: &MatrixMut<'_>,
    input_name: impl Display,
    input: &Matrix<'_>,
) -> Result<()> {
    if overlaps(output.data, &output.parts, input.data, &input.parts) {
        fail!(Overlap, "{output_name} overlaps {input_name}; wanted memory of its own");
    }
    Ok(())
}

/// Two outputs must not share memory.
pub fn disjoint_mut(
    first_name: impl Display,
    first: &MatrixMut<'_>,
    second_name: impl Display,
    second: &MatrixMut<'_>,
) -> Result<()> {
    disjoint(first_name, first, second_name, &second.as_const())
}

fn overlaps(first: *const u8, first_parts: &Parts, second: *const u8, second_parts: &Parts) -> bool {
    let (Some(first_bytes), Some(second_bytes)) = (extent(first_parts), extent(second_parts)) else { return true };
    if first_bytes == 0 || second_bytes == 0 {
        return false;
    }
    let (first, second) = (first as usize, second as usize);
    if first + first_bytes <= second || second + second_bytes <= first {
        return false;
    }
    let pitch = first_parts.row_stride * first_parts.dtype.size();
    if pitch != second_parts.row_stride * second_parts.dtype.size() || pitch == 0 {
        return true;
    }
    // Same pitch: compare the byte columns modulo the pitch, with the lower address as the origin.
    let (low_cols, high_cols) = if first <= second {
        (first_parts.cols * first_parts.dtype.size(), second_parts.cols * second_parts.dtype.size())
    } else {
        (second_parts.cols * second_parts.dtype.size(), first_parts.cols * first_parts.dtype.size())
    };
    let shift = first.abs_diff(second) % pitch;
    shift < low_cols || shift + high_cols > pitch
}
