//! Tests of the matrix checks.

use super::*;
use crate::error::Code;

fn matrix(values: &[f32], rows: usize, cols: usize, row_stride: usize) -> Matrix<'_> {
    // SAFETY: the tests pass slices that are long enough.
    unsafe {
        Matrix::new(
            "x",
            values.as_ptr().cast(),
            Parts { rows, cols, row_stride, dtype: Dtype::F32, device: Device::Host },
        )
    }
    .unwrap()
}

fn given(data: *const u8, rows: usize, cols: usize, row_stride: usize, dtype: Dtype) -> Result<()> {
    // SAFETY: never dereferenced.
    unsafe { Matrix::new("x", data, Parts { rows, cols, row_stride, dtype, device: Device::Host }) }.map(|_| ())
}

#[test]
fn every_bad_description_is_named() {
    let values = [0f32; 8];
    let data: *const u8 = values.as_ptr().cast();
    assert_eq!(given(std::ptr::null(), 2, 2, 2, Dtype::F32).unwrap_err().code(), Code::Null);
    let stride = given(data, 2, 4, 3, Dtype::F32).unwrap_err();
    assert_eq!(stride.code(), Code::Stride);
    assert!(stride.message().contains("x.row_stride is 3; wanted at least 4"), "{stride}");
    assert_eq!(given(data.wrapping_add(1), 1, 1, 1, Dtype::Bf16).unwrap_err().code(), Code::Argument);
    assert_eq!(given(data, usize::MAX, 2, 2, Dtype::F32).unwrap_err().code(), Code::Shape);
    assert_eq!(given(data, 2, 2, usize::MAX / 2, Dtype::F32).unwrap_err().code(), Code::Shape);
    assert!(given(std::ptr::null(), 0, 4, 4, Dtype::F32).is_ok(), "no rows need no memory");
    assert!(given(data, 1, 8, 0, Dtype::F32).is_ok(), "one row needs no stride");
}

#[test]
fn interleaved_views_are_disjoint() {
    let mut values = vec![0f32; 60];
    let data: *mut u8 = values.as_mut_ptr().cast();
    let view = |first: usize, cols: usize, stride: usize| {
        // SAFETY: inside `values`; only compared.
        unsafe {
            MatrixMut::new(
                "y",
                data.add(first * 4),
                Parts { rows: 4, cols, row_stride: stride, dtype: Dtype::F32, device: Device::Host },
            )
        }
        .unwrap()
    };
    let meets = |first: &MatrixMut<'_>, second: &MatrixMut<'_>| disjoint_mut("a", first, "b", second).is_err();
    assert!(!meets(&view(0, 5, 15), &view(5, 5, 15)));
    assert!(!meets(&view(10, 5, 15), &view(0, 5, 15)));
    assert!(meets(&view(0, 6, 15), &view(5, 5, 15)));
    assert!(meets(&view(14, 5, 15), &view(0, 5, 15)), "wraps into the next row");
    assert!(meets(&view(0, 5, 15), &view(5, 5, 14)), "other strides are not told apart");
    assert!(!meets(&view(0, 5, 5), &view(20, 5, 5)));
}

#[test]
fn sixteen_bit_values_round_once_to_nearest_even() {
    let mut stored = [0u16; 3];
    let values = [1.0 + 1.0 / 256.0, 1.0 + 3.0 / 256.0, 1.0e-40];
    // SAFETY: three elements of two bytes.
    unsafe { Dtype::Bf16.narrow(&values, stored.as_mut_ptr().cast(), 0) };
    assert_eq!(stored, [0x3f80, 0x3f82, 0x0001], "ties go to even; subnormals are kept");
    for (value, bits) in values.iter().zip(stored) {
        assert_eq!(Dtype::Bf16.rounded(*value).to_bits(), u32::from(bits) << 16);
    }
}

#[test]
fn rows_are_loaded_across_strides() {
    let values: Vec<f32> = (0..12).map(|value| value as f32).collect();
    let mut out = [0f32; 2];
    matrix(&values, 3, 3, 4).load(2, 1, &mut out);
    assert_eq!(out, [9.0, 10.0]);
}
