//! Contexts.

use super::{exports, put};
use crate::codes::{INVALID_CONTEXT, INVALID_DEVICE};
use crate::context::{current_handle, pop_current, push_current, set_current};
use std::ffi::{c_int, c_uint};

exports! {
    fn cuCtxCreate_v2(driver, to: *mut u64, _flags: c_uint, of: c_int) {
        driver.ready()?;
        let device = u64::try_from(of).ok().filter(|&device| device < driver.settings.devices).ok_or(INVALID_DEVICE)?;
        let handle = driver.new_context(device, false);
        push_current(handle);
        put(to, handle)
    }

    fn cuCtxDestroy_v2(driver, context: u64) {
        driver.ready()?;
        match driver.contexts.get(&context) {
            Some(known) if !known.primary => {}
            Some(_) => {
                driver.fault("cuCtxDestroy of a primary context");
                return Err(INVALID_CONTEXT);
            }
            None => {
                driver.fault("cuCtxDestroy of what is no context, or was destroyed");
                return Err(INVALID_CONTEXT);
            }
        }
        driver.destroy_context(context);
        if current_handle() == context {
            pop_current();
        }
        Ok(())
    }

    fn cuCtxGetCurrent(driver, to: *mut u64) {
        driver.ready()?;
        put(to, current_handle())
    }

    fn cuCtxSetCurrent(driver, context: u64) {
        driver.ready()?;
        if context != 0 && !driver.contexts.contains_key(&context) {
            driver.fault("cuCtxSetCurrent of what is no context, or was destroyed");
            return Err(INVALID_CONTEXT);
        }
        set_current(context);
        Ok(())
    }

    fn cuCtxPushCurrent_v2(driver, context: u64) {
        driver.ready()?;
        if !driver.contexts.contains_key(&context) {
            driver.fault("cuCtxPushCurrent of what is no context, or was destroyed");
            return Err(INVALID_CONTEXT);
        }
        push_current(context);
        Ok(())
    }

    fn cuCtxPopCurrent_v2(driver, to: *mut u64) {
        driver.ready()?;
        let Some(context) = pop_current() else { return Err(INVALID_CONTEXT) };
        if to.is_null() { Ok(()) } else { put(to, context) }
    }

    fn cuCtxGetDevice(driver, to: *mut c_int) {
        driver.ready()?;
        let context = driver.current()?;
        put(to, driver.contexts[&context].device as c_int)
    }

    fn cuCtxSynchronize(driver) {
        let context = driver.context()?;
        let captures = driver.captures_of(context);
        driver.refuse(&captures, "cuCtxSynchronize")?;
        driver.refuse_while_capturing("cuCtxSynchronize")?;
        driver.finish_context(context);
        driver.after_waiting(context)
    }
}

#[cfg(not(feature = "without-cuCtxGetId"))]
exports! {
    fn cuCtxGetId(driver, context: u64, to: *mut u64) {
        driver.ready()?;
        let context = if context == 0 { driver.current()? } else { context };
        let id = driver.contexts.get(&context).map(|context| context.id).ok_or(crate::codes::CONTEXT_IS_DESTROYED)?;
        put(to, id)
    }
}
