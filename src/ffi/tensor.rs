//! Tensors that a checkpoint carries beside the adapter's vectors.

use std::ffi::{c_char, c_void};
use std::sync::Arc;

use super::adapter::pvera_adapter;
use super::error::pvera_error;
use super::handle::{borrow, borrow_mut, output};
use super::matrix::pvera_dtype;
use super::{guard, input};
use crate::adapter::{Adapter, ElementType, Tensor};
use crate::error::Result;
use crate::fail;

/// A tensor that an adapter carries: a head of `modules_to_save`, a bias of another module. Read only, valid as long as the
/// adapter (and until it is set again).
#[repr(C)]
#[derive(Clone, Copy)]
pub struct pvera_tensor {
    /// The whole key in the file, UTF-8, `name_size` bytes, not NUL-terminated.
    pub name: *const c_char,
    /// Bytes of the name.
    pub name_size: usize,
    /// All zero for the narrow float types that DLPack's words here do not cover; the bytes are there all the same.
    pub dtype: pvera_dtype,
    /// How many, 0 for a scalar.
    pub dimensions: usize,
    /// `[dimensions]`.
    pub shape: *const usize,
    /// Row major, little endian, as in the file (perhaps not aligned for the type).
    pub data: *const c_void,
    /// Bytes of data.
    pub size: usize,
}

fn lent(tensor: &Tensor) -> pvera_tensor {
    let dtype =
        tensor.element.dlpack().map_or(pvera_dtype::default(), |(code, bits)| pvera_dtype { code, bits, lanes: 1 });
    pvera_tensor {
        name: tensor.name.as_ptr().cast(),
        name_size: tensor.name.len(),
        dtype,
        dimensions: tensor.shape.len(),
        shape: tensor.shape.as_ptr(),
        data: tensor.data.as_ptr().cast(),
        size: tensor.data.len(),
    }
}

/// How many such tensors the adapter carries.
///
/// # Safety
/// `adapter` is an adapter; `count` is a place for the result.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_adapter_tensor_count(
    adapter: *const pvera_adapter,
    count: *mut usize,
) -> *mut pvera_error {
    guard(|| {
        // SAFETY: the caller's promise.
        let (adapter, out) = unsafe { (borrow("adapter", adapter)?, output("count", count)?) };
        out.write(adapter.0.tensors().len());
        Ok(())
    })
}

/// The carried tensor of that number, from 0, in the order of their names.
///
/// # Safety
/// `adapter` is an adapter; `tensor` is a place for the result.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_adapter_tensor_at(
    adapter: *const pvera_adapter,
    number: usize,
    tensor: *mut pvera_tensor,
) -> *mut pvera_error {
    guard(|| {
        // SAFETY: the caller's promise.
        let (adapter, out) = unsafe { (borrow("adapter", adapter)?, output("tensor", tensor)?) };
        match adapter.0.tensors().get(number) {
            Some(found) => out.write(lent(found)),
            None => fail!(
                NotFound,
                "tensor number {number} is not there; the adapter carries {}",
                adapter.0.tensors().len()
            ),
        }
        Ok(())
    })
}

/// The carried tensor of that key, as in the file: "base_model.model.classifier.weight".
///
/// # Safety
/// `adapter` is an adapter, `name` a text, `tensor` a place for the result.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_adapter_find_tensor(
    adapter: *const pvera_adapter,
    name: *const c_char,
    tensor: *mut pvera_tensor,
) -> *mut pvera_error {
    guard(|| {
        // SAFETY: the caller's promise.
        let (adapter, name, out) =
            unsafe { (borrow("adapter", adapter)?, input::text("name", name)?, output("tensor", tensor)?) };
        match adapter.0.tensors().iter().find(|tensor| tensor.name == name) {
            Some(found) => out.write(lent(found)),
            None => fail!(
                NotFound,
                "tensor '{name}' is not among the {} that the adapter carries",
                adapter.0.tensors().len()
            ),
        }
        Ok(())
    })
}

/// Puts or replaces a tensor that the adapter carries into its checkpoint. The adapter is trainable, and nobody holds
/// another handle on it or a linear of it. Everything is copied.
///
/// # Safety
/// `adapter` is an adapter that nobody else uses; `name` is a text; `shape` points to `dimensions` sizes and `data` to
/// `size` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_adapter_set_tensor(
    adapter: *mut pvera_adapter,
    name: *const c_char,
    dtype: pvera_dtype,
    shape: *const usize,
    dimensions: usize,
    data: *const c_void,
    size: usize,
) -> *mut pvera_error {
    guard(|| {
        // SAFETY: the caller's promise.
        let (adapter, name) = unsafe { (borrow_mut("adapter", adapter)?, input::text("name", name)?) };
        // SAFETY: as above.
        let (shape, bytes) =
            unsafe { (input::array("shape", shape, dimensions)?, input::array("data", data.cast::<u8>(), size)?) };
        let Some(element) = ElementType::from_dlpack(dtype.code, dtype.bits).filter(|_| dtype.lanes <= 1) else {
            fail!(
                Dtype,
                "dtype is (code {}, {} bits, {} lanes); wanted a type that safetensors holds",
                dtype.code,
                dtype.bits,
                dtype.lanes
            );
        };
        let tensor = Tensor::copied(name, element, shape, bytes)?;
        exclusive(adapter)?.set_tensor(tensor)
    })
}

fn exclusive(adapter: &mut pvera_adapter) -> Result<&mut Adapter> {
    match Arc::get_mut(&mut adapter.0) {
        Some(own) => Ok(own),
        None => fail!(State, "the adapter is shared with another handle or a linear; free those first"),
    }
}
