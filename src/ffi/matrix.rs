//! `pvera_matrix`: memory of the host with a shape, an element type and a device.

use std::borrow::Cow;
use std::ffi::c_void;
use std::fmt::Display;

use crate::error::Result;
use crate::fail;
use crate::memory::Arena;
use crate::tensor::{Device, Dtype, Matrix, MatrixMut, Parts};

/// DLPack's kDLInt; of carried tensors alone, as all but FLOAT and BFLOAT.
pub const PVERA_DTYPE_INT: u8 = 0;
/// DLPack's kDLUInt.
pub const PVERA_DTYPE_UINT: u8 = 1;
/// DLPack's kDLFloat: f32 and f16 by their bits.
pub const PVERA_DTYPE_FLOAT: u8 = 2;
/// DLPack's kDLBfloat: bf16.
pub const PVERA_DTYPE_BFLOAT: u8 = 4;
/// DLPack's kDLComplex.
pub const PVERA_DTYPE_COMPLEX: u8 = 5;
/// DLPack's kDLBool.
pub const PVERA_DTYPE_BOOL: u8 = 6;

/// DLPack's kDLCPU: memory of the host.
pub const PVERA_DEVICE_CPU: i32 = 1;
/// DLPack's kDLCUDA: memory of a CUDA device.
pub const PVERA_DEVICE_CUDA: i32 = 2;
/// DLPack's kDLCUDAHost: pinned memory, taken as the host's.
pub const PVERA_DEVICE_CUDA_HOST: i32 = 3;

/// An element type, laid out as DLPack's DLDataType. `lanes` is 1 (0 is read as 1).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct pvera_dtype {
    /// `PVERA_DTYPE_…`.
    pub code: u8,
    /// Bits of one element.
    pub bits: u8,
    /// 1, or 0 for the same.
    pub lanes: u16,
}

/// A device, laid out as DLPack's DLDevice. Type 0 is read as the CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct pvera_device {
    /// `PVERA_DEVICE_…`; 0 is the CPU.
    pub r#type: i32,
    /// Which device of that type.
    pub id: i32,
}

/// A matrix that is read: `rows × cols` elements, those of a row side by side. Frozen: this struct never changes.
///
/// `row_stride` is the distance between the starts of two rows, in elements, at least `cols`; it does not matter when
/// there is one row. `data` is aligned for its element type and may be NULL when the matrix has no elements.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct pvera_matrix {
    /// The first element of the first row.
    pub data: *const c_void,
    /// How many rows.
    pub rows: usize,
    /// Elements of a row.
    pub cols: usize,
    /// From one row's start to the next's, in elements.
    pub row_stride: usize,
    /// The element type.
    pub dtype: pvera_dtype,
    /// Where data lies.
    pub device: pvera_device,
}

/// A matrix that is written; fields as in `pvera_matrix`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct pvera_matrix_mut {
    /// As in `pvera_matrix`, but written.
    pub data: *mut c_void,
    /// How many rows.
    pub rows: usize,
    /// Elements of a row.
    pub cols: usize,
    /// From one row's start to the next's, in elements.
    pub row_stride: usize,
    /// The element type.
    pub dtype: pvera_dtype,
    /// Where data lies.
    pub device: pvera_device,
}

/// The element type of a computation, or what is wrong with it.
pub(super) fn dtype(name: impl Display, given: pvera_dtype) -> Result<Dtype> {
    match (given.code, given.bits, given.lanes) {
        (PVERA_DTYPE_FLOAT, 32, 0 | 1) => Ok(Dtype::F32),
        (PVERA_DTYPE_FLOAT, 16, 0 | 1) => Ok(Dtype::F16),
        (PVERA_DTYPE_BFLOAT, 16, 0 | 1) => Ok(Dtype::Bf16),
        (code, bits, lanes) => fail!(
            Dtype,
            "{name} is (code {code}, {bits} bits, {lanes} lanes); wanted f32 (2, 32, 1), f16 (2, 16, 1) or bf16 (4, 16, 1)"
        ),
    }
}

/// An element type in C's words.
pub(super) fn written_dtype(dtype: Dtype) -> pvera_dtype {
    let (code, bits) = match dtype {
        Dtype::F32 => (PVERA_DTYPE_FLOAT, 32),
        Dtype::F16 => (PVERA_DTYPE_FLOAT, 16),
        Dtype::Bf16 => (PVERA_DTYPE_BFLOAT, 16),
    };
    pvera_dtype { code, bits, lanes: 1 }
}

/// An element type that may be left zero.
pub(super) fn optional_dtype(name: &str, given: pvera_dtype) -> Result<Option<Dtype>> {
    if given == pvera_dtype::default() { Ok(None) } else { dtype(name, given).map(Some) }
}

/// Where the elements lie. Pinned memory of the host is memory of the host.
pub(super) fn device(name: impl Display, given: pvera_device) -> Result<Device> {
    match given.r#type {
        0 | PVERA_DEVICE_CPU | PVERA_DEVICE_CUDA_HOST => Ok(Device::Host),
        PVERA_DEVICE_CUDA => Ok(Device::Cuda(given.id)),
        other => fail!(Device, "{name}.type is {other}; wanted 1, the CPU, or 2, a CUDA device"),
    }
}

fn parts(name: &str, given: &pvera_matrix) -> Result<Parts> {
    let pvera_matrix { rows, cols, row_stride, .. } = *given;
    let device = device(format_args!("{name}.device"), given.device)?;
    Ok(Parts { rows, cols, row_stride, dtype: dtype(format_args!("{name}.dtype"), given.dtype)?, device })
}

/// A matrix that is read here and now.
///
/// # Safety
/// As for [`read`].
pub(super) unsafe fn read_on_host<'a>(name: &str, given: *const pvera_matrix) -> Result<Matrix<'a>> {
    // SAFETY: the caller's promise.
    let matrix = unsafe { read(name, given)? };
    if matrix.device() != Device::Host {
        fail!(Device, "{name} is on {}; wanted it on the CPU", matrix.device());
    }
    Ok(matrix)
}

/// # Safety
/// `given` is NULL or points to a matrix whose memory lives as long as the call.
pub(super) unsafe fn read<'a>(name: &str, given: *const pvera_matrix) -> Result<Matrix<'a>> {
    // SAFETY: the caller's promise.
    let Some(given) = (unsafe { given.as_ref() }) else { fail!(Null, "{name} is NULL; wanted a matrix") };
    // SAFETY: as above.
    unsafe { Matrix::new(name, given.data.cast(), parts(name, given)?) }
}

/// A matrix inside a struct, absent when it is all zero.
///
/// # Safety
/// As for [`read`].
pub(super) unsafe fn optional<'a>(name: &str, given: &pvera_matrix) -> Result<Option<Matrix<'a>>> {
    if given.data.is_null() && given.rows == 0 && given.cols == 0 {
        return Ok(None);
    }
    // SAFETY: the caller's promise.
    unsafe { read(name, given) }.map(Some)
}

/// # Safety
/// As for [`read`], and nobody else uses the memory during the call.
pub(super) unsafe fn write<'a>(name: &str, given: *const pvera_matrix_mut) -> Result<MatrixMut<'a>> {
    // SAFETY: the caller's promise.
    let Some(given) = (unsafe { given.as_ref() }) else { fail!(Null, "{name} is NULL; wanted a matrix") };
    let pvera_matrix_mut { data, rows, cols, row_stride, dtype, device } = *given;
    let as_const = pvera_matrix { data, rows, cols, row_stride, dtype, device };
    // SAFETY: as above.
    unsafe { MatrixMut::new(name, data.cast(), parts(name, &as_const)?) }
}

/// "y" when there is one, "y[2]" in an array of several. A text is made for errors only.
fn numbered(name: &str, index: usize, count: usize) -> Cow<'_, str> {
    if count == 1 { name.into() } else { format!("{name}[{index}]").into() }
}

/// # Safety
/// As for [`write`], for each of `count` matrices.
pub(super) unsafe fn write_all<'a>(
    arena: &'a Arena,
    name: &str,
    given: *const pvera_matrix_mut,
    count: usize,
) -> Result<&'a [MatrixMut<'a>]> {
    if count == 1 && given.is_null() {
        fail!(Null, "{name} is NULL; wanted a matrix");
    }
    // SAFETY: the caller's promise.
    let given = unsafe { super::input::array(name, given, count)? };
    let each = |(index, matrix): (usize, &pvera_matrix_mut)| {
        // SAFETY: as above.
        unsafe { write(name, matrix).or_else(|_| write(&numbered(name, index, count), matrix)) }
    };
    Ok(super::input::collected(arena, count, given.iter().enumerate().map(each))?)
}

/// # Safety
/// As for [`read`], for each of `count` matrices.
pub(super) unsafe fn read_all<'a>(
    arena: &'a Arena,
    name: &str,
    given: *const pvera_matrix,
    count: usize,
) -> Result<&'a [Matrix<'a>]> {
    if count == 1 && given.is_null() {
        fail!(Null, "{name} is NULL; wanted a matrix");
    }
    // SAFETY: the caller's promise.
    let given = unsafe { super::input::array(name, given, count)? };
    let each = |(index, matrix): (usize, &pvera_matrix)| {
        // SAFETY: as above.
        unsafe { read(name, matrix).or_else(|_| read(&numbered(name, index, count), matrix)) }
    };
    Ok(super::input::collected(arena, count, given.iter().enumerate().map(each))?)
}

/// The C description of a matrix that the library lends.
pub(super) fn lent(matrix: &Matrix<'_>) -> pvera_matrix {
    pvera_matrix {
        data: matrix.data().cast(),
        rows: matrix.rows(),
        cols: matrix.cols(),
        row_stride: matrix.row_stride(),
        dtype: written_dtype(matrix.dtype()),
        device: match matrix.device() {
            Device::Host => pvera_device { r#type: PVERA_DEVICE_CPU, id: 0 },
            Device::Cuda(id) => pvera_device { r#type: PVERA_DEVICE_CUDA, id },
        },
    }
}
