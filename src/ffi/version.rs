//! The version, and a way to see that errors come back.

use std::ffi::c_char;

use super::error::pvera_error;
use super::{guard, input};

/// The version of the library that runs, as `major·10⁶ + minor·10³ + patch`. Compare with `PVERA_VERSION` of the header
/// that a program was compiled with.
#[unsafe(no_mangle)]
pub extern "C" fn pvera_version() -> u32 {
    let part = |text: &str| text.parse::<u32>().unwrap_or(0);
    part(env!("CARGO_PKG_VERSION_MAJOR")) * 1_000_000
        + part(env!("CARGO_PKG_VERSION_MINOR")) * 1_000
        + part(env!("CARGO_PKG_VERSION_PATCH"))
}

/// The version as a text, `"0.1.0"`. Static.
#[unsafe(no_mangle)]
pub extern "C" fn pvera_version_text() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

/// Panics inside the library on purpose, with this message. A host calls it in its tests to see that a bug of the library
/// would come back as `PVERA_ERROR_PANIC` in its build, with nothing printed and nothing aborted.
///
/// # Safety
/// `message` is a NUL-terminated text.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_test_panic(message: *const c_char) -> *mut pvera_error {
    guard(|| {
        // SAFETY: the caller's promise.
        let message = unsafe { input::text("message", message)? };
        panic!("{message}")
    })
}
