//! Panics become errors, and print nothing: a library does not write to its host's stderr.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

use crate::error::{Error, Result};

thread_local! {
    /// How many library calls this thread is inside of.
    static DEPTH: Cell<u32> = const { Cell::new(0) };
}

/// Runs `body`; a panic in it is the error `Panic`.
///
/// The panic hook is wrapped once: it is silent for threads inside the library and passes everything else on to the hook
/// that was there. (The shared library has a standard library, and so a hook, of its own; only a Rust program that links
/// the crate sees the wrapper.)
pub fn catch<T>(body: impl FnOnce() -> Result<T>) -> Result<T> {
    static WRAP: Once = Once::new();
    WRAP.call_once(|| {
        let outer = take_hook();
        set_hook(Box::new(move |panic| {
            if DEPTH.get() == 0 {
                outer(panic);
            }
        }));
    });
    DEPTH.set(DEPTH.get() + 1);
    let outcome = catch_unwind(AssertUnwindSafe(body));
    DEPTH.set(DEPTH.get() - 1);
    outcome.unwrap_or_else(|panic| Err(Error::from_panic(panic.as_ref())))
}
