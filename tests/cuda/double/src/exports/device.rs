//! Initialisation, devices, versions and the texts of errors.

use super::{exports, put};
use crate::codes::{INVALID_DEVICE, INVALID_VALUE, NO_DEVICE, Outcome, describe};
use crate::driver::Driver;
use std::ffi::{c_char, c_int, c_uint};

fn device(driver: &Driver, device: c_int) -> Outcome<u64> {
    driver.ready()?;
    let known = u64::try_from(device).ok().filter(|&device| device < driver.settings.devices);
    known.ok_or(INVALID_DEVICE)
}

/// Values of a device that is like a small Turing one.
fn attribute(driver: &Driver, attribute: c_int) -> Option<c_int> {
    Some(match attribute {
        1 | 2 | 5 => 1024, // threads of a block; its x, y
        3 => 64,           // its z
        4 => 1024,
        6 | 7 => 65_535,            // a grid's y, z
        8 => SHARED_BYTES as c_int, // shared memory of a block
        9 => 65_536,                // constant memory
        10 => 32,                   // warp
        12 | 82 => 65_536,          // registers of a block, of a multiprocessor
        13 => 1_000_000,            // kHz
        14 => 512,
        16 => 4, // multiprocessors
        17 | 18 | 20 | 32 | 35 | 83 | 88 => 0,
        19 | 31 | 41 => 1, // maps host memory, concurrent kernels, unified addresses
        33 | 34 | 50 => 0, // PCI
        36 => 5_000_000,
        37 => 256,
        38 => 4 << 20, // level-2 cache
        39 => 1024,    // threads of a multiprocessor
        40 => 2,
        75 => (driver.settings.capability / 10) as c_int,
        76 => (driver.settings.capability % 10) as c_int,
        78 => 1,
        81 | 97 => 65_536, // shared memory of a multiprocessor, of a block that asks
        95 => 1,
        106 => 16,
        115 => c_int::from(driver.settings.pools != 0),
        _ => return None,
    })
}

/// Shared memory that a block may have without asking for more.
pub const SHARED_BYTES: u32 = 48 << 10;

exports! {
    fn cuInit(driver, flags: c_uint) {
        if flags != 0 {
            return Err(INVALID_VALUE);
        }
        if driver.settings.devices == 0 {
            return Err(NO_DEVICE);
        }
        driver.initialised = true;
        Ok(())
    }

    fn cuDriverGetVersion(driver, version: *mut c_int) {
        put(version, driver.settings.driver as c_int)
    }

    fn cuDeviceGetCount(driver, count: *mut c_int) {
        driver.ready()?;
        put(count, driver.settings.devices as c_int)
    }

    fn cuDeviceGet(driver, to: *mut c_int, ordinal: c_int) {
        device(driver, ordinal)?;
        put(to, ordinal)
    }

    fn cuDeviceGetName(driver, name: *mut c_char, length: c_int, of: c_int) {
        let text = format!("pvera test double {}", device(driver, of)?);
        if name.is_null() || length <= 0 {
            return Err(INVALID_VALUE);
        }
        let kept = text.len().min(length as usize - 1);
        // SAFETY: the caller gave `length` characters.
        unsafe {
            std::ptr::copy_nonoverlapping(text.as_ptr().cast(), name, kept);
            name.add(kept).write(0);
        }
        Ok(())
    }

    fn cuDeviceGetAttribute(driver, to: *mut c_int, which: c_int, of: c_int) {
        device(driver, of)?;
        let Some(value) = attribute(driver, which) else {
            driver.fault(&format!("cuDeviceGetAttribute: the double has no value for attribute {which}"));
            return Err(INVALID_VALUE);
        };
        put(to, value)
    }

    fn cuDeviceTotalMem_v2(driver, bytes: *mut usize, of: c_int) {
        device(driver, of)?;
        put(bytes, driver.settings.memory as usize)
    }

    fn cuDevicePrimaryCtxRetain(driver, to: *mut u64, of: c_int) {
        let device = device(driver, of)?;
        let handle = match driver.primaries.get(&device) {
            Some(&handle) => {
                if let Some(context) = driver.contexts.get_mut(&handle) {
                    context.retained += 1;
                }
                handle
            }
            None => {
                let handle = driver.new_context(device, true);
                driver.primaries.insert(device, handle);
                handle
            }
        };
        put(to, handle)
    }

    fn cuDevicePrimaryCtxRelease_v2(driver, of: c_int) {
        let device = device(driver, of)?;
        let Some(&handle) = driver.primaries.get(&device) else {
            driver.fault("cuDevicePrimaryCtxRelease: the primary context is not retained");
            return Err(crate::codes::INVALID_CONTEXT);
        };
        let left = driver.contexts.get_mut(&handle).map_or(0, |context| {
            context.retained -= 1;
            context.retained
        });
        if left == 0 {
            driver.primaries.remove(&device);
            driver.destroy_context(handle);
        }
        Ok(())
    }

    fn cuGetErrorName(_driver, code: c_int, to: *mut *const c_char) {
        text(describe(code).map(|(name, _)| name), to)
    }

    fn cuGetErrorString(_driver, code: c_int, to: *mut *const c_char) {
        text(describe(code).map(|(_, text)| text), to)
    }
}

fn text(text: Option<&'static std::ffi::CStr>, to: *mut *const c_char) -> Outcome {
    put(to, text.map_or(std::ptr::null(), std::ffi::CStr::as_ptr))?;
    if text.is_none() { Err(INVALID_VALUE) } else { Ok(()) }
}
