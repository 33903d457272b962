//! What every fallible export runs inside of.

use super::error::pvera_error;
use crate::backend::cpu::FloatMode;
use crate::error::Result;
use crate::quiet;

/// Runs the body of an export, in the library's rounding mode. NULL is success; a panic is the error
/// `PVERA_ERROR_PANIC`.
pub fn guard(body: impl FnOnce() -> Result<()>) -> *mut pvera_error {
    let _mode = FloatMode::enter();
    match quiet::catch(body) {
        Ok(()) => std::ptr::null_mut(),
        Err(error) => pvera_error::give(&error),
    }
}

/// Runs the body of a `_free`, which has no way to report.
pub fn guard_free(body: impl FnOnce()) {
    let _ = quiet::catch(|| {
        body();
        Ok(())
    });
}
