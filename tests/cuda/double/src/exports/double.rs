//! What tests ask of the double itself, beside the driver's functions.

use crate::driver::{Driver, with};
use crate::report::Report;
use std::ffi::{CStr, c_char, c_int};

/// The faults seen since the last reset, one a line; empty when there were none. Valid until the next call.
#[unsafe(no_mangle)]
pub extern "C" fn pvera_double_report() -> *const c_char {
    with(|driver| driver.report.hand_out())
}

/// Forgets faults and counters and starts the schedule from the seed again. Objects, memory and broken contexts stay.
#[unsafe(no_mangle)]
pub extern "C" fn pvera_double_reset() {
    with(|driver| {
        driver.report = Report::default();
        (driver.allocations, driver.pooled) = (0, 0);
        driver.random = driver.settings.seed;
    });
}

/// Bytes of device and page-locked memory that were allocated and not freed.
#[unsafe(no_mangle)]
pub extern "C" fn pvera_double_live_bytes() -> u64 {
    with(|driver| driver.arena.used_in_all() + driver.hosts.values().map(|host| host.bytes as u64).sum::<u64>())
}

/// Streams, events, modules, graphs (executable ones apart), and how often contexts are retained or made.
#[unsafe(no_mangle)]
pub extern "C" fn pvera_double_live_objects() -> u64 {
    with(|driver| objects(driver))
}

fn objects(driver: &Driver) -> u64 {
    let streams = driver.streams.values().filter(|stream| stream.made && !stream.destroyed).count();
    let rest = driver.events.len() + driver.modules.len() + driver.graphs.len() + driver.executables.len();
    (streams + rest) as u64 + driver.contexts.values().map(|context| context.retained).sum::<u64>()
}

/// Calls of cuMemAllocAsync since PVERA_DOUBLE_FAIL_POOLED was set or since a reset.
#[unsafe(no_mangle)]
pub extern "C" fn pvera_double_pooled() -> u64 {
    with(|driver| driver.pooled)
}

/// Kernels that ran, those in graphs too.
#[unsafe(no_mangle)]
pub extern "C" fn pvera_double_launches() -> u64 {
    with(|driver| driver.report.launches)
}

/// Instructions that were interpreted.
#[unsafe(no_mangle)]
pub extern "C" fn pvera_double_instructions() -> u64 {
    with(|driver| driver.report.instructions)
}

/// Sets a number of the scenario (see `settings`): 0 if there is one of that name, else 1.
///
/// # Safety
/// `name` is a string that ends with a zero.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_double_set(name: *const c_char, value: u64) -> c_int {
    if name.is_null() {
        return 1;
    }
    // SAFETY: as the caller promises.
    let Ok(name) = unsafe { CStr::from_ptr(name) }.to_str() else {
        return 1;
    };
    with(|driver| {
        let known = driver.settings.set(name, value);
        match name {
            "PVERA_DOUBLE_SEED" => driver.random = value,
            "PVERA_DOUBLE_FAIL_ALLOCATION" => driver.allocations = 0,
            "PVERA_DOUBLE_FAIL_POOLED" => driver.pooled = 0,
            _ => {}
        }
        c_int::from(!known)
    })
}
