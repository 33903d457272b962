//! Memory of the device and of the host, copies and sets.

use super::{exports, put};
use crate::codes::{INVALID_VALUE, NOT_SUPPORTED, OUT_OF_MEMORY, Outcome};
use crate::driver::{Driver, Host};
use crate::memory::Origin;
use crate::run::block::random;
use crate::work::Action;
use std::ffi::{c_int, c_uchar, c_uint, c_void};

/// Counts an allocation against what the scenario allows.
fn admit(driver: &mut Driver, context: u64, bytes: usize, on_device: bool) -> Outcome {
    if bytes == 0 {
        return Err(INVALID_VALUE);
    }
    driver.allocations += 1;
    if driver.allocations == driver.settings.fail_allocation {
        return Err(OUT_OF_MEMORY);
    }
    let device = driver.contexts[&context].device;
    if on_device && driver.arena.used(device).saturating_add(bytes as u64) > driver.settings.memory {
        return Err(OUT_OF_MEMORY);
    }
    Ok(())
}

fn allocate(driver: &mut Driver, context: u64, bytes: usize, origin: Origin) -> Outcome<u64> {
    admit(driver, context, bytes, true)?;
    let device = driver.contexts[&context].device;
    let place = random(&mut driver.random);
    driver.arena.reserve(bytes as u64, context, device, origin, place).ok_or(OUT_OF_MEMORY)
}

/// Takes note that an allocation will be freed.
fn begin_free(driver: &mut Driver, context: u64, start: u64, call: &str) -> Outcome {
    let problem = match driver.arena.get(start) {
        None => Some("which no allocation starts at".to_string()),
        Some(known) if known.origin == Origin::Module => Some("which is a module's variable".to_string()),
        Some(known) if known.freed => Some(format!("which was freed before: {}", known.describe(start))),
        Some(known) if known.context != context => Some("which is another context's".to_string()),
        Some(_) => None,
    };
    if let Some(problem) = problem {
        driver.fault(&format!("{call} of {start:#x}, {problem}"));
        return Err(INVALID_VALUE);
    }
    driver.arena.mark_freed(start);
    Ok(())
}

fn pinned(driver: &Driver, at: u64, bytes: usize) -> bool {
    driver.hosts.range(..=at).next_back().is_some_and(|(&start, host)| at + bytes as u64 <= start + host.bytes as u64)
}

fn from_host(driver: &mut Driver, stream: u64, to: u64, from: *const c_void, bytes: usize) -> Outcome {
    if bytes == 0 {
        return Ok(());
    }
    if from.is_null() {
        return Err(INVALID_VALUE);
    }
    inside(driver, stream, to, bytes as u64, "a copy from the host")?;
    refuse_device_address(driver, from as u64)?;
    let late = driver.settings.pageable != 0;
    let action = if late || pinned(driver, from as u64, bytes) {
        Action::FromPinned { to, from: from as u64, bytes: bytes as u64 }
    } else {
        // SAFETY: the caller gave `bytes` readable bytes.
        Action::FromHost { to, bytes: unsafe { std::slice::from_raw_parts(from.cast::<u8>(), bytes) }.to_vec() }
    };
    driver.enqueue(stream, action)
}

/// Refuses a range that is not within one allocation of the current context; what is freed in stream order counts as gone.
fn inside(driver: &mut Driver, stream: u64, at: u64, bytes: u64, call: &str) -> Outcome {
    let context = driver.streams[&stream].context;
    let known = driver.arena.find(at);
    let fits =
        known.is_some_and(|known| !known.freed && known.context == context && known.start + known.size - at >= bytes);
    if fits {
        return Ok(());
    }
    let place = known
        .or_else(|| driver.arena.nearest(at))
        .map_or("nothing is allocated".to_string(), |known| known.describe(at));
    driver.fault(&format!("{call} of {bytes} bytes at {at:#x}, which do not lie in memory of this context: {place}"));
    Err(INVALID_VALUE)
}

/// A device address where the host's is wanted.
fn refuse_device_address(driver: &mut Driver, at: u64) -> Outcome {
    if at.wrapping_sub(driver.arena.base) < driver.arena.span {
        driver.fault(&format!("a copy takes the device address {at:#x} for one of the host"));
        return Err(INVALID_VALUE);
    }
    Ok(())
}

fn to_host(driver: &mut Driver, stream: u64, to: *mut c_void, from: u64, bytes: usize) -> Outcome {
    if bytes == 0 {
        return Ok(());
    }
    if to.is_null() {
        return Err(INVALID_VALUE);
    }
    inside(driver, stream, from, bytes as u64, "a copy to the host")?;
    refuse_device_address(driver, to as u64)?;
    let pinned = pinned(driver, to as u64, bytes);
    driver.enqueue(stream, Action::ToHost { to: to as u64, from, bytes: bytes as u64, pinned })?;
    // Copies to pageable memory are over when the call returns.
    if !pinned {
        driver.wait_for_stream(stream);
        let context = driver.context()?;
        return driver.after_waiting(context);
    }
    Ok(())
}

exports! {
    fn cuMemAlloc_v2(driver, to: *mut u64, bytes: usize) {
        let context = driver.context()?;
        driver.refuse_while_capturing("cuMemAlloc")?;
        let start = allocate(driver, context, bytes, Origin::Call)?;
        let owner = driver.owner(context);
        driver.arena.open(start, owner);
        put(to, start)
    }

    fn cuMemFree_v2(driver, start: u64) {
        let context = driver.context()?;
        driver.refuse_while_capturing("cuMemFree")?;
        if start == 0 {
            return Ok(());
        }
        let stream_ordered = driver.arena.get(start).is_some_and(|allocation| allocation.origin == Origin::Stream && !allocation.freed);
        if stream_ordered && !driver.host_knows_done(start) {
            driver.fault(&format!("cuMemFree of {start:#x}, which cuMemAllocAsync gave, without waiting for the work that uses it"));
            return Err(INVALID_VALUE);
        }
        begin_free(driver, context, start, "cuMemFree")?;
        // Memory of the stream's allocator goes at once; for other memory the driver waits.
        if !stream_ordered {
            driver.finish_context(context);
        }
        driver.arena.close(start);
        driver.after_waiting(context)
    }

    fn cuMemAllocAsync(driver, to: *mut u64, bytes: usize, given: u64) {
        let stream = driver.stream(given)?;
        if driver.settings.pools == 0 {
            return Err(NOT_SUPPORTED);
        }
        driver.refuse_captured(stream, "cuMemAllocAsync: memory of a graph is not what a step may take")?;
        driver.refuse_while_capturing("cuMemAllocAsync")?;
        driver.pooled += 1;
        if driver.pooled == driver.settings.fail_pooled {
            return Err(OUT_OF_MEMORY);
        }
        let context = driver.streams[&stream].context;
        let start = allocate(driver, context, bytes, Origin::Stream)?;
        if let Err(error) = driver.enqueue(stream, Action::Open { start }) {
            driver.arena.close(start);
            return Err(error);
        }
        put(to, start)
    }

    fn cuMemFreeAsync(driver, start: u64, given: u64) {
        let stream = driver.stream(given)?;
        if start == 0 {
            return Ok(());
        }
        driver.refuse_captured(stream, "cuMemFreeAsync")?;
        driver.refuse_implicit(stream)?;
        driver.refuse_while_capturing("cuMemFreeAsync")?;
        let context = driver.streams[&stream].context;
        begin_free(driver, context, start, "cuMemFreeAsync")?;
        driver.enqueue(stream, Action::Close { start })
    }

    fn cuMemAllocHost_v2(driver, to: *mut *mut c_void, bytes: usize) {
        let context = driver.context()?;
        driver.refuse_while_capturing("cuMemAllocHost")?;
        admit(driver, context, bytes, false)?;
        let layout = std::alloc::Layout::from_size_align(bytes, 4096).map_err(|_| OUT_OF_MEMORY)?;
        // SAFETY: the size is not zero.
        let at = unsafe { std::alloc::alloc(layout) };
        if at.is_null() {
            return Err(OUT_OF_MEMORY);
        }
        // SAFETY: just allocated; fresh memory must not look like a result.
        unsafe { at.write_bytes(0xa5, bytes) };
        driver.hosts.insert(at as u64, Host { bytes, context });
        put(to, at.cast())
    }

    fn cuMemFreeHost(driver, at: *mut c_void) {
        let context = driver.context()?;
        driver.refuse_while_capturing("cuMemFreeHost")?;
        if !driver.hosts.contains_key(&(at as u64)) {
            driver.fault("cuMemFreeHost of what cuMemAllocHost did not give, or was freed");
            return Err(INVALID_VALUE);
        }
        driver.finish_context(context);
        if let Some(host) = driver.hosts.remove(&(at as u64)) {
            let layout = std::alloc::Layout::from_size_align(host.bytes, 4096).map_err(|_| INVALID_VALUE)?;
            // SAFETY: allocated with this layout.
            unsafe { std::alloc::dealloc(at.cast(), layout) };
        }
        driver.after_waiting(context)
    }

    fn cuMemcpyHtoD_v2(driver, to: u64, from: *const c_void, bytes: usize) {
        let stream = driver.stream(0)?;
        driver.refuse_implicit(stream)?;
        driver.refuse_while_capturing("cuMemcpyHtoD")?;
        from_host(driver, stream, to, from, bytes)?;
        driver.wait_for_stream(stream);
        let context = driver.context()?;
        driver.after_waiting(context)
    }

    fn cuMemcpyDtoH_v2(driver, to: *mut c_void, from: u64, bytes: usize) {
        let stream = driver.stream(0)?;
        driver.refuse_implicit(stream)?;
        driver.refuse_while_capturing("cuMemcpyDtoH")?;
        to_host(driver, stream, to, from, bytes)?;
        driver.wait_for_stream(stream);
        let context = driver.context()?;
        driver.after_waiting(context)
    }

    fn cuMemcpyHtoDAsync_v2(driver, to: u64, from: *const c_void, bytes: usize, given: u64) {
        let stream = driver.stream(given)?;
        from_host(driver, stream, to, from, bytes)
    }

    fn cuMemcpyDtoHAsync_v2(driver, to: *mut c_void, from: u64, bytes: usize, given: u64) {
        let stream = driver.stream(given)?;
        to_host(driver, stream, to, from, bytes)
    }

    fn cuMemcpyDtoDAsync_v2(driver, to: u64, from: u64, bytes: usize, given: u64) {
        let stream = driver.stream(given)?;
        if bytes == 0 {
            return Ok(());
        }
        inside(driver, stream, to, bytes as u64, "a copy")?;
        inside(driver, stream, from, bytes as u64, "a copy")?;
        driver.enqueue(stream, Action::Copy { to, from, bytes: bytes as u64 })
    }

    fn cuMemsetD8Async(driver, to: u64, value: c_uchar, count: usize, given: u64) {
        let stream = driver.stream(given)?;
        if count == 0 {
            return Ok(());
        }
        inside(driver, stream, to, count as u64, "cuMemsetD8Async")?;
        driver.enqueue(stream, Action::Set { to, value: u32::from(value), width: 1, count: count as u64 })
    }

    fn cuMemsetD32Async(driver, to: u64, value: c_uint, count: usize, given: u64) {
        let stream = driver.stream(given)?;
        if !to.is_multiple_of(4) {
            return Err(INVALID_VALUE);
        }
        if count == 0 {
            return Ok(());
        }
        inside(driver, stream, to, (count as u64).saturating_mul(4), "cuMemsetD32Async")?;
        driver.enqueue(stream, Action::Set { to, value, width: 4, count: count as u64 })
    }

    fn cuPointerGetAttribute(driver, to: *mut c_void, which: c_int, pointer: u64) {
        driver.context()?;
        let host = driver.hosts.range(..=pointer).next_back().filter(|&(&start, host)| pointer < start + host.bytes as u64);
        if let Some((&start, host)) = host {
            let (context, bytes) = (host.context, host.bytes);
            return match which {
                1 => put(to.cast(), context),
                2 => put(to.cast::<u32>(), 1),
                3 | 4 => put(to.cast(), pointer),
                8 => put(to.cast::<u32>(), 0),
                9 => put(to.cast::<c_int>(), driver.contexts.get(&context).map_or(0, |context| context.device as c_int)),
                11 => put(to.cast(), start),
                12 => put(to.cast::<usize>(), bytes),
                _ => Err(NOT_SUPPORTED),
            };
        }
        let Some(known) = driver.arena.find(pointer).filter(|known| !known.freed) else { return Err(INVALID_VALUE) };
        match which {
            1 => put(to.cast(), known.context),
            2 => put(to.cast::<u32>(), 2),
            3 => put(to.cast(), pointer),
            7 => put(to.cast(), known.number),
            8 => put(to.cast::<u32>(), 0),
            9 => put(to.cast::<c_int>(), known.device as c_int),
            11 => put(to.cast(), known.start),
            12 => put(to.cast::<usize>(), known.size as usize),
            4 => Err(INVALID_VALUE),
            _ => Err(NOT_SUPPORTED),
        }
    }
}
