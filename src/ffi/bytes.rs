//! Texts and bytes that the library gives away.

use std::ffi::{CString, c_char};

use crate::error::{Error, Result};

/// Bytes owned by the caller, who frees them with `pvera_bytes_free`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct pvera_bytes {
    /// `[size]`; NULL when cleared.
    pub data: *mut u8,
    /// How many bytes.
    pub size: usize,
}

impl pvera_bytes {
    pub(super) fn give(bytes: Vec<u8>) -> Self {
        let boxed = bytes.into_boxed_slice();
        let size = boxed.len();
        Self { data: Box::into_raw(boxed).cast(), size }
    }
}

/// Gives a text to C; freed with `pvera_text_free`.
pub(super) fn give_text(text: &str) -> Result<*mut c_char> {
    let text = CString::new(text).map_err(|_| Error::new(crate::error::Code::Format, "the text holds a NUL byte"))?;
    Ok(text.into_raw())
}

/// Frees bytes that the library gave, and clears them; NULL and cleared ones are nothing.
///
/// # Safety
/// `bytes` is NULL or points to bytes filled by this library (or cleared), which are not used again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_bytes_free(bytes: *mut pvera_bytes) {
    // SAFETY: the caller's promise.
    let Some(bytes) = (unsafe { bytes.as_mut() }) else { return };
    if !bytes.data.is_null() {
        let slice = std::ptr::slice_from_raw_parts_mut(bytes.data, bytes.size);
        // SAFETY: `give` made it of a boxed slice of this size.
        super::guard::guard_free(|| drop(unsafe { Box::from_raw(slice) }));
    }
    *bytes = pvera_bytes { data: std::ptr::null_mut(), size: 0 };
}

/// Frees a text that the library gave; NULL is nothing.
///
/// # Safety
/// `text` is NULL or was given by this library, and is not used again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_text_free(text: *mut c_char) {
    if !text.is_null() {
        // SAFETY: `give_text` made it.
        super::guard::guard_free(|| drop(unsafe { CString::from_raw(text) }));
    }
}
