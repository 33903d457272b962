//! Streams.

use super::{exports, put};
use crate::codes::{CAPTURE_IMPLICIT, INVALID_HANDLE, INVALID_VALUE};
use crate::graph::exchange_mode;
use std::ffi::{c_int, c_uint};

exports! {
    fn cuStreamCreate(driver, to: *mut u64, flags: c_uint) {
        let context = driver.context()?;
        if flags > 1 {
            return Err(INVALID_VALUE);
        }
        let handle = driver.new_stream(context, flags == 0, true);
        put(to, handle)
    }

    fn cuStreamDestroy_v2(driver, stream: u64) {
        driver.ready()?;
        match driver.streams.get(&stream) {
            Some(known) if known.made && !known.destroyed => {}
            _ => {
                driver.fault(&format!("cuStreamDestroy of {stream:#x}, which is no stream that was made, or was destroyed"));
                return Err(INVALID_HANDLE);
            }
        }
        driver.refuse_captured(stream, "cuStreamDestroy of a capturing stream")?;
        // What is queued still runs.
        if driver.streams[&stream].queue.is_empty() {
            driver.streams.remove(&stream);
        } else if let Some(stream) = driver.streams.get_mut(&stream) {
            stream.destroyed = true;
        }
        Ok(())
    }

    fn cuStreamGetCtx(driver, given: u64, to: *mut u64) {
        driver.ready()?;
        let context = match given {
            0..=2 => driver.current()?,
            given => match driver.streams.get(&given) {
                Some(stream) if !stream.destroyed => stream.context,
                _ => return Err(INVALID_HANDLE),
            },
        };
        put(to, context)
    }

    fn cuStreamSynchronize(driver, given: u64) {
        let stream = driver.stream(given)?;
        driver.refuse_implicit(stream)?;
        driver.refuse_captured(stream, "cuStreamSynchronize of a capturing stream")?;
        driver.refuse_while_capturing("cuStreamSynchronize")?;
        driver.wait_for_stream(stream);
        let context = driver.context()?;
        driver.after_waiting(context)
    }

    fn cuStreamWaitEvent(driver, given: u64, event: u64, _flags: c_uint) {
        let stream = driver.stream(given)?;
        let Some(known) = driver.events.get(&event) else {
            driver.fault("cuStreamWaitEvent of what is no event, or was destroyed");
            return Err(INVALID_HANDLE);
        };
        let (recorded, captured) = (known.recorded.clone(), known.captured.clone());
        if let Some((capture, nodes)) = captured {
            return driver.join_capture(stream, capture, &nodes);
        }
        driver.refuse_implicit(stream)?;
        let Some((clock, _)) = recorded else { return Ok(()) };
        driver.refuse_uncaptured(stream)?;
        if let Some(stream) = driver.streams.get_mut(&stream) {
            stream.clock.join(&clock);
        }
        Ok(())
    }

    fn cuStreamIsCapturing(driver, given: u64, status: *mut c_int) {
        let stream = driver.stream(given)?;
        if driver.is_legacy(stream) && driver.blocking_captures(stream).next().is_some() {
            return Err(CAPTURE_IMPLICIT);
        }
        put(status, driver.capture_status(stream))
    }

    fn cuThreadExchangeStreamCaptureMode(driver, mode: *mut c_int) {
        driver.ready()?;
        // SAFETY: a place for the mode before, which holds the wanted one.
        let wanted = unsafe { mode.as_ref() }.copied().ok_or(INVALID_VALUE)?;
        put(mode, exchange_mode(wanted)?)
    }

    fn cuStreamBeginCapture_v2(driver, given: u64, mode: c_int) {
        let stream = driver.stream(given)?;
        driver.begin_capture(stream, mode)
    }

    fn cuStreamEndCapture(driver, given: u64, to: *mut u64) {
        let stream = driver.stream(given)?;
        put(to, 0)?;
        let graph = driver.end_capture(stream)?;
        let handle = driver.handle();
        driver.graphs.insert(handle, graph);
        put(to, handle)
    }
}
