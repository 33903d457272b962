//! `pvera_error`: an owned code and sentence.

use std::ffi::{CString, c_char};

use super::handle;
use crate::error::Error;

/// No error.
pub const PVERA_OK: i32 = 0;
/// A required pointer is NULL.
pub const PVERA_ERROR_NULL: i32 = 1;
/// A value is outside its range.
pub const PVERA_ERROR_ARGUMENT: i32 = 2;
/// A matrix or array has the wrong shape.
pub const PVERA_ERROR_SHAPE: i32 = 3;
/// An element type that the call does not take.
pub const PVERA_ERROR_DTYPE: i32 = 4;
/// A row stride shorter than a row.
pub const PVERA_ERROR_STRIDE: i32 = 5;
/// An output overlaps an input or another output.
pub const PVERA_ERROR_OVERLAP: i32 = 6;
/// A matrix lives on another device than the context.
pub const PVERA_ERROR_DEVICE: i32 = 7;
/// No layer, adapter, slot, field or tensor of that name or number.
pub const PVERA_ERROR_NOT_FOUND: i32 = 8;
/// The name is taken.
pub const PVERA_ERROR_EXISTS: i32 = 9;
/// The call is right, but not now: no forward on the tape, a parameter changed between forward and backward, a merge of
/// an adapter that samples.
pub const PVERA_ERROR_STATE: i32 = 10;
/// The operating system refused a file operation.
pub const PVERA_ERROR_IO: i32 = 11;
/// A file is damaged, lies, or is of another format.
pub const PVERA_ERROR_FORMAT: i32 = 12;
/// A configuration is invalid or contradicts itself.
pub const PVERA_ERROR_CONFIG: i32 = 13;
/// Projections are missing or do not fit.
pub const PVERA_ERROR_PROJECTION: i32 = 14;
/// Memory could not be had.
pub const PVERA_ERROR_MEMORY: i32 = 15;
/// Valid, but not supported by this build or backend.
pub const PVERA_ERROR_UNSUPPORTED: i32 = 16;
/// A result is not a finite number, though the inputs allow the call. Outputs may be partly written. Of the matrix
/// computations only exp(½ logvar), and exp(logvar) where KL or moments need it, are checked: NaN in x and products that
/// overflow go into the outputs, as in any matrix library.
pub const PVERA_ERROR_OVERFLOW: i32 = 17;
/// The host's progress callback asked to stop.
pub const PVERA_ERROR_CANCELLED: i32 = 18;
/// A bug in the library, caught at the boundary. Outputs may be partly written; the library goes on working.
pub const PVERA_ERROR_PANIC: i32 = 19;
/// The CUDA driver refused or failed a call, or a device gives other results than the CPU.
pub const PVERA_ERROR_CUDA: i32 = 20;

/// Why a call failed. Owned by the caller, who frees it; safe to read and free on any thread.
pub struct pvera_error {
    code: i32,
    message: Message,
}

enum Message {
    Owned(CString),
    /// Needs no memory.
    Static(&'static std::ffi::CStr),
}

static OUT_OF_MEMORY: pvera_error =
    pvera_error { code: PVERA_ERROR_MEMORY, message: Message::Static(c"out of memory") };

impl pvera_error {
    pub(super) fn give(error: &Error) -> *mut pvera_error {
        let out_of_memory = (&raw const OUT_OF_MEMORY).cast_mut();
        if *error == Error::out_of_memory() {
            return out_of_memory;
        }
        let mut bytes = Vec::new();
        if bytes.try_reserve_exact(error.message().len() + 1).is_err() {
            return out_of_memory;
        }
        bytes.extend(error.message().bytes().filter(|byte| *byte != 0));
        let Ok(message) = CString::new(bytes) else { return out_of_memory };
        handle::give(pvera_error { code: error.code() as i32, message: Message::Owned(message) })
            .unwrap_or(out_of_memory)
    }
}

/// The code of an error, one of `PVERA_ERROR_…`; `PVERA_OK` for NULL.
///
/// # Safety
/// `error` is NULL or was returned by this library and not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_error_code(error: *const pvera_error) -> i32 {
    // SAFETY: the caller's promise.
    unsafe { error.as_ref() }.map_or(PVERA_OK, |error| error.code)
}

/// The sentence of an error: it names the argument, what was given and what was wanted. UTF-8; lives as long as the
/// error. For NULL the text "no error".
///
/// # Safety
/// `error` is NULL or was returned by this library and not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_error_message(error: *const pvera_error) -> *const c_char {
    // SAFETY: the caller's promise.
    match unsafe { error.as_ref() } {
        None => c"no error".as_ptr(),
        Some(pvera_error { message: Message::Owned(text), .. }) => text.as_ptr(),
        Some(pvera_error { message: Message::Static(text), .. }) => text.as_ptr(),
    }
}

/// Frees an error; NULL is nothing.
///
/// # Safety
/// `error` is NULL or was returned by this library, and is not used again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_error_free(error: *mut pvera_error) {
    if !std::ptr::eq(error, &raw const OUT_OF_MEMORY) {
        // SAFETY: the caller's promise.
        super::guard::guard_free(|| unsafe { handle::take(error) });
    }
}
