//! Events.

use super::{exports, put};
use crate::codes::{CAPTURED_EVENT, INVALID_HANDLE, INVALID_VALUE, NOT_READY, Outcome};
use crate::driver::Driver;
use crate::run::block::random;
use crate::stream::Event;
use std::ffi::{c_float, c_uint};

const DISABLE_TIMING: c_uint = 2;

fn known<'a>(driver: &'a mut Driver, event: u64, call: &str) -> Outcome<&'a mut Event> {
    driver.context()?;
    if !driver.events.contains_key(&event) {
        driver.fault(&format!("{call} of what is no event, or was destroyed"));
        return Err(INVALID_HANDLE);
    }
    driver.events.get_mut(&event).ok_or(INVALID_HANDLE)
}

fn is_over(driver: &Driver, clock: &crate::clock::Clock) -> bool {
    clock.iter().all(|(stream, operation)| driver.done.get(&stream).copied().unwrap_or(0) >= operation)
}

exports! {
    fn cuEventCreate(driver, to: *mut u64, flags: c_uint) {
        let context = driver.context()?;
        if flags > 7 {
            return Err(INVALID_VALUE);
        }
        let handle = driver.handle();
        driver.events.insert(handle, Event { context, timing: flags & DISABLE_TIMING == 0, recorded: None, captured: None });
        put(to, handle)
    }

    fn cuEventDestroy_v2(driver, event: u64) {
        driver.ready()?;
        if driver.events.remove(&event).is_none() {
            driver.fault("cuEventDestroy of what is no event, or was destroyed");
            return Err(INVALID_HANDLE);
        }
        Ok(())
    }

    fn cuEventRecord(driver, event: u64, given: u64) {
        let stream = driver.stream(given)?;
        driver.refuse_implicit(stream)?;
        if driver.capture_status(stream) == 2 {
            return Err(crate::codes::CAPTURE_INVALIDATED);
        }
        let captured = driver.capture_end(stream);
        let context = driver.streams[&stream].context;
        let mut clock = driver.streams[&stream].clock.clone();
        if driver.is_legacy(stream) {
            let blocking = driver.streams.values().filter(|other| other.context == context && other.blocking);
            blocking.for_each(|other| clock.join(&other.clock));
        }
        let now = driver.report.instructions;
        let event = known(driver, event, "cuEventRecord")?;
        if event.context != context {
            driver.fault("cuEventRecord: event and stream are of different contexts");
            return Err(INVALID_HANDLE);
        }
        if captured.is_some() {
            event.captured = captured;
        } else {
            (event.recorded, event.captured) = (Some((clock, now)), None);
        }
        Ok(())
    }

    fn cuEventQuery(driver, event: u64) {
        let event = known(driver, event, "cuEventQuery")?;
        let (recorded, captured) = (event.recorded.clone(), event.captured.is_some());
        if captured {
            return Err(CAPTURED_EVENT);
        }
        driver.refuse_while_capturing("cuEventQuery")?;
        let Some((clock, _)) = recorded else { return Ok(()) };
        // Some work goes on behind the caller's back, sometimes enough.
        for _ in 0..random(&mut driver.random) % 4 {
            driver.run_one();
        }
        let context = driver.context()?;
        driver.after_waiting(context)?;
        if !is_over(driver, &clock) {
            return Err(NOT_READY);
        }
        driver.wait_for(&clock);
        Ok(())
    }

    fn cuEventSynchronize(driver, event: u64) {
        let event = known(driver, event, "cuEventSynchronize")?;
        let (recorded, captured) = (event.recorded.clone(), event.captured.is_some());
        if captured {
            return Err(CAPTURED_EVENT);
        }
        driver.refuse_while_capturing("cuEventSynchronize")?;
        let Some((clock, _)) = recorded else { return Ok(()) };
        driver.wait_for(&clock);
        let context = driver.context()?;
        driver.after_waiting(context)
    }

    fn cuEventElapsedTime(driver, to: *mut c_float, start: u64, end: u64) {
        elapsed(driver, to, start, end)
    }

    fn cuEventElapsedTime_v2(driver, to: *mut c_float, start: u64, end: u64) {
        elapsed(driver, to, start, end)
    }
}

/// A clock that counts interpreted instructions: a nanosecond each.
fn elapsed(driver: &mut Driver, to: *mut c_float, start: u64, end: u64) -> Outcome {
    let mut times = [0; 2];
    for (event, time) in [start, end].into_iter().zip(&mut times) {
        let event = known(driver, event, "cuEventElapsedTime")?;
        if event.captured.is_some() {
            return Err(CAPTURED_EVENT);
        }
        if !event.timing {
            return Err(INVALID_HANDLE);
        }
        let Some((clock, at)) = event.recorded.clone() else {
            return Err(INVALID_HANDLE);
        };
        if !is_over(driver, &clock) {
            return Err(NOT_READY);
        }
        *time = at;
    }
    put(to, times[1].saturating_sub(times[0]) as f32 * 1e-6)
}
