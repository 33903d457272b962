//! Another Rust library that a host links statically: a standard library of its own, panics and catches of its own.

use std::panic::{catch_unwind, resume_unwind, set_hook};
use std::sync::atomic::{AtomicU32, Ordering};

static PANICS_SEEN: AtomicU32 = AtomicU32::new(0);

/// Counts panics from now on instead of printing them.
#[unsafe(no_mangle)]
pub extern "C" fn neighbour_watch() {
    set_hook(Box::new(|_| {
        PANICS_SEEN.fetch_add(1, Ordering::Relaxed);
    }));
}

/// How many panics reached the hook of this library's standard library.
#[unsafe(no_mangle)]
pub extern "C" fn neighbour_panics_seen() -> u32 {
    PANICS_SEEN.load(Ordering::Relaxed)
}

/// Panics on a thread of its own if `value` is negative; -1 says that the panic was caught, twice.
#[unsafe(no_mangle)]
pub extern "C" fn neighbour_catches(value: i32) -> i32 {
    let work = move || if value < 0 { panic!("on purpose") } else { value };
    let caught = catch_unwind(|| match std::thread::spawn(work).join() {
        Ok(value) => value,
        Err(payload) => resume_unwind(payload),
    });
    caught.unwrap_or(-1)
}
