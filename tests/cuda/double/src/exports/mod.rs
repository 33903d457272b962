//! The exported C functions. Their names and arguments are the driver's.

pub mod context;
pub mod device;
pub mod double;
pub mod event;
pub mod graph;
pub mod memory;
pub mod module;
pub mod stream;

use crate::codes::{INVALID_VALUE, Outcome};

/// Defines exported functions over the driver's state.
macro_rules! exports {
    ($($(#[$meta:meta])* fn $name:ident($driver:ident $(, $arg:ident: $kind:ty)*) $body:block)*) => {
        $(
            $(#[$meta])*
            /// # Safety
            /// Pointers are valid for what the driver's documentation says of this function.
            #[unsafe(no_mangle)]
            pub unsafe extern "C" fn $name($($arg: $kind),*) -> i32 {
                $crate::driver::call(stringify!($name), |$driver| $body)
            }
        )*
    };
}
pub(crate) use exports;

/// Writes a result where the caller wants it.
pub(crate) fn put<T>(to: *mut T, value: T) -> Outcome {
    if to.is_null() {
        return Err(INVALID_VALUE);
    }
    // SAFETY: the caller of the driver function gave a place for the result.
    unsafe { to.write_unaligned(value) };
    Ok(())
}
