//! Streams, events, copies and memory: laziness, order, what a missing wait looks like, frees that should not be.

mod support;

use cuda::exports::context::cuCtxCreate_v2;
use cuda::exports::context::{cuCtxDestroy_v2, cuCtxPopCurrent_v2, cuCtxSetCurrent};
use cuda::exports::double::{pvera_double_launches, pvera_double_live_bytes, pvera_double_live_objects};
use cuda::exports::event::{
    cuEventCreate, cuEventDestroy_v2, cuEventElapsedTime, cuEventQuery, cuEventRecord, cuEventSynchronize,
};
use cuda::exports::memory::*;
use cuda::exports::module::{cuModuleGetFunction, cuModuleUnload};
use cuda::exports::stream::{cuStreamDestroy_v2, cuStreamGetCtx, cuStreamSynchronize, cuStreamWaitEvent};
use std::ptr::null_mut;
use support::*;

/// a[thread] += n
const ADD: &str = "mul.wide.u32 %rd4, %r1, 4; add.s64 %rd5, %rd1, %rd4; ld.global.u32 %r2, [%rd5]; cvt.u32.u64 %r3, %rd3; add.s32 %r2, %r2, %r3; \
                   st.global.u32 [%rd5], %r2;";

fn event() -> u64 {
    let mut event = 0;
    // SAFETY: a place for the result.
    assert_eq!(unsafe { cuEventCreate(&mut event, 0) }, 0);
    event
}

fn synchronize_stream(stream: u64) -> i32 {
    // SAFETY: no pointers.
    unsafe { cuStreamSynchronize(stream) }
}

fn allocate_on(stream: u64, bytes: usize) -> u64 {
    let mut at = 0;
    // SAFETY: a place for the result.
    assert_eq!(unsafe { cuMemAllocAsync(&mut at, bytes, stream) }, 0);
    at
}

fn set_on(stream: u64, at: u64, value: u32, count: usize) {
    // SAFETY: no pointers of the host.
    assert_eq!(unsafe { cuMemsetD32Async(at, value, count, stream) }, 0);
}

#[test]
fn work_runs_when_somebody_waits() {
    let device = Device::new();
    let module = load(&kernel("", ADD)).unwrap();
    let function = function(module, "test");
    let stream = new_stream(1);
    let memory = upload(&[0u32; 32]);
    for _ in 0..3 {
        assert_eq!(launch_on(stream, function, 1, 32, [memory, 0, 5]), 0);
    }
    assert_eq!(pvera_double_launches(), 0);
    assert_eq!(synchronize_stream(stream), 0);
    assert_eq!(pvera_double_launches(), 3);
    assert_eq!(download::<u32>(memory, 32).unwrap(), [15; 32]);
    // Arguments are taken at the call.
    let mut argument = [memory, 0, 7];
    let mut params: Vec<*mut std::ffi::c_void> = argument.iter_mut().map(|a| (&raw mut *a).cast()).collect();
    // SAFETY: a pointer for each parameter.
    assert_eq!(
        unsafe {
            cuda::exports::module::cuLaunchKernel(
                function,
                1,
                1,
                1,
                32,
                1,
                1,
                0,
                stream,
                params.as_mut_ptr(),
                null_mut(),
            )
        },
        0
    );
    argument[2] = 1000;
    std::hint::black_box(&argument);
    assert_eq!(synchronize_stream(stream), 0);
    assert_eq!(download::<u32>(memory, 1).unwrap(), [22]);
    // SAFETY: handles that were made, memory that was allocated.
    unsafe { assert_eq!((cuModuleUnload(module), cuStreamDestroy_v2(stream), cuMemFree_v2(memory)), (0, 0, 0)) };
    device.finish_clean();
}

#[test]
fn a_missing_wait_is_found_for_every_seed() {
    for seed in 0..16 {
        for waits in [false, true] {
            let device = Device::new();
            set("PVERA_DOUBLE_SEED", seed);
            let module = load(&kernel("", ADD)).unwrap();
            let function = function(module, "test");
            let (first, second, done) = (new_stream(1), new_stream(1), event());
            let memory = upload(&[0u32; 32]);
            set_on(first, memory, 3, 32);
            // SAFETY: handles that were made.
            unsafe {
                assert_eq!(cuEventRecord(done, first), 0);
                if waits {
                    assert_eq!(cuStreamWaitEvent(second, done, 0), 0);
                }
            }
            assert_eq!(launch_on(second, function, 1, 32, [memory, 0, 1]), 0);
            let code = match synchronize_stream(second) {
                0 => synchronize(),
                code => code,
            };
            if waits {
                assert_eq!(code, 0, "{}", report());
                assert_eq!(download::<u32>(memory, 32).unwrap(), [4; 32]);
                // SAFETY: handles that were made, memory that was allocated.
                unsafe {
                    cuModuleUnload(module);
                    cuStreamDestroy_v2(first);
                    cuStreamDestroy_v2(second);
                    cuEventDestroy_v2(done);
                    cuMemFree_v2(memory);
                }
                device.finish_clean();
            } else {
                assert_eq!(code, 719, "seed {seed}");
                assert_reported(&["which nothing orders before it"]);
            }
        }
    }
}

/// What the host waited for comes before all that it queues afterwards, in any stream; other streams may still hold older work.
#[test]
fn the_host_orders_streams_by_waiting() {
    for seed in 0..16 {
        let device = Device::new();
        set("PVERA_DOUBLE_SEED", seed);
        let streams = [new_stream(1), new_stream(1), new_stream(1)];
        let (memory, other) = (allocate(64), allocate(64));
        (0..8).for_each(|value| set_on(streams[2], other, value, 16));
        set_on(streams[0], memory, 1, 16);
        assert_eq!(synchronize_stream(streams[0]), 0);
        set_on(streams[1], memory, 2, 16);
        assert_eq!(synchronize(), 0, "{}", report());
        assert_eq!(download::<u32>(memory, 1).unwrap(), [2]);
        streams.into_iter().for_each(destroy_stream);
        [memory, other].into_iter().for_each(free);
        device.finish_clean();
    }
}

#[test]
fn the_legacy_stream_orders_blocking_streams_only() {
    for flags in [0, 1] {
        for seed in 0..8 {
            let _device = Device::new();
            set("PVERA_DOUBLE_SEED", seed);
            let (stream, memory) = (new_stream(flags), allocate(64));
            set_on(stream, memory, 1, 16);
            set_on(0, memory, 2, 16);
            set_on(stream, memory, 3, 16);
            let code = synchronize();
            if flags == 0 {
                assert_eq!((code, download::<u32>(memory, 1)), (0, Ok(vec![3])), "{}", report());
            } else {
                assert_eq!(code, 719);
            }
        }
    }
}

#[test]
fn the_three_default_streams() {
    let device = Device::new();
    let memory = allocate(4);
    for (stream, value) in [(0, 1), (1, 2), (2, 3)] {
        set_on(stream, memory, value, 1);
        assert_eq!(synchronize_stream(stream), 0);
        assert_eq!(download::<u32>(memory, 1).unwrap(), [value]);
    }
    free(memory);
    device.finish_clean();
}

#[test]
fn memory_in_stream_order() {
    let device = Device::new();
    let stream = new_stream(1);
    let memory = allocate_on(stream, 64);
    set_on(stream, memory, 9, 16);
    assert_eq!(download_on(stream, memory), Ok([9; 16]));
    // SAFETY: memory that was allocated; then it was freed.
    unsafe {
        assert_eq!(cuMemFreeAsync(memory, stream), 0);
        assert_eq!(synchronize_stream(stream), 0);
        assert_eq!(pvera_double_live_bytes(), 0);
        pvera_reset();
        assert_eq!(cuMemFreeAsync(memory, stream), 1);
        assert_reported(&["cuMemFreeAsync of", "freed before"]);
    }
    pvera_reset();
    destroy_stream(stream);
    device.finish_clean();
}

fn download_on(stream: u64, at: u64) -> Result<[u32; 16], i32> {
    let mut values = [0u32; 16];
    // SAFETY: room for the bytes.
    match unsafe { cuMemcpyDtoHAsync_v2(values.as_mut_ptr().cast(), at, 64, stream) } {
        0 => Ok(values),
        code => Err(code),
    }
}

#[test]
fn stream_ordered_memory_on_another_stream_without_a_wait() {
    let mut codes = std::collections::HashSet::new();
    for seed in 0..16 {
        let _device = Device::new();
        set("PVERA_DOUBLE_SEED", seed);
        let (first, second) = (new_stream(1), new_stream(1));
        let memory = allocate_on(first, 64);
        set_on(second, memory, 9, 16);
        let code = synchronize();
        assert!(code == 700 || code == 719, "{code}");
        codes.insert(code);
    }
    // Both before the allocation came to effect and after it.
    assert_eq!(codes.len(), 2);
}

#[test]
fn a_free_in_another_stream_without_a_wait() {
    for seed in 0..16 {
        let _device = Device::new();
        set("PVERA_DOUBLE_SEED", seed);
        let (first, second) = (new_stream(1), new_stream(1));
        let memory = allocate_on(first, 64);
        set_on(first, memory, 9, 16);
        assert_eq!(synchronize_stream(first), 0);
        let other = allocate(64);
        // SAFETY: no pointers of the host.
        unsafe {
            assert_eq!(cuMemcpyDtoDAsync_v2(other, memory, 64, first), 0);
            assert_eq!(cuMemFreeAsync(memory, second), 0);
        }
        assert!(matches!(synchronize(), 700 | 719));
    }
}

#[test]
fn frees_that_should_not_be() {
    let device = Device::new();
    let memory = allocate(64);
    // SAFETY: wrong frees are what is tested.
    unsafe {
        assert_eq!(cuMemFree_v2(memory + 256), 1);
        assert_reported(&["which no allocation starts at"]);
        assert_eq!(cuMemFree_v2(memory), 0);
        assert_eq!(cuMemFree_v2(memory), 1);
        assert_reported(&["cuMemFree of", "freed before"]);
        assert_eq!(cuMemFree_v2(0), 0);
        let mut host = 0u64;
        assert_eq!(cuMemFree_v2((&raw mut host) as u64), 1);
        assert_eq!(cuMemFreeHost((&raw mut host).cast()), 1);
        // Memory of a stream's allocator may go at once only when the host knows it unused.
        let stream = new_stream(1);
        let memory = allocate_on(stream, 64);
        assert_eq!(cuMemFree_v2(memory), 1);
        assert_reported(&["without waiting for the work that uses it"]);
        assert_eq!(synchronize_stream(stream), 0);
        assert_eq!(cuMemFree_v2(memory), 0);
        destroy_stream(stream);
    }
    pvera_reset();
    device.finish_clean();
}

#[test]
fn copies_that_do_not_fit_and_overlap() {
    let device = Device::new();
    let memory = upload(&[7u32; 16]);
    let mut room = [0u32; 32];
    // SAFETY: room for the bytes.
    unsafe {
        assert_eq!(cuMemcpyDtoH_v2(room.as_mut_ptr().cast(), memory, 68), 1);
        assert_eq!(cuMemcpyHtoD_v2(memory + 4, room.as_ptr().cast(), 64), 1);
        assert_eq!(cuMemsetD32Async(memory + 2, 0, 1, 0), 1);
        assert_eq!(cuMemcpyHtoD_v2(room.as_mut_ptr() as u64, room.as_ptr().cast(), 4), 1);
        assert_eq!(cuMemcpyDtoH_v2((memory + 32) as *mut _, memory, 4), 1);
        assert_reported(&["takes the device address"]);
        assert_eq!(cuMemcpyDtoH_v2(null_mut(), memory, 0), 0);
        pvera_reset();
        assert_eq!(cuMemcpyDtoDAsync_v2(memory, memory + 8, 16, 0), 0);
    }
    assert_eq!(synchronize(), 719);
    assert_reported(&["overlap"]);
    drop(device);
}

#[test]
fn copies_carry_what_was_never_written() {
    let _device = Device::new();
    let (from, to) = (allocate(64), upload(&[1u32; 16]));
    set_on(0, from, 4, 8);
    // SAFETY: no pointers of the host.
    assert_eq!(unsafe { cuMemcpyDtoDAsync_v2(to, from, 64, 0) }, 0);
    assert_eq!(download::<u32>(to, 8).unwrap(), [4; 8]);
    assert_eq!(download::<u32>(to, 9), Err(719));
}

#[test]
fn pageable_and_page_locked_memory() {
    let device = Device::new();
    let stream = new_stream(1);
    let memory = allocate(8);
    let mut locked = null_mut();
    // SAFETY: places and ranges as asked for.
    unsafe {
        assert_eq!(cuMemAllocHost_v2(&mut locked, 8), 0);
        let locked: *mut u32 = locked.cast();
        let mut pageable = 5u32;
        locked.write(6);
        // Pageable bytes are taken at the call, page-locked ones when the copy runs.
        assert_eq!(cuMemcpyHtoDAsync_v2(memory, (&raw const pageable).cast(), 4, stream), 0);
        assert_eq!(cuMemcpyHtoDAsync_v2(memory + 4, locked.cast(), 4, stream), 0);
        pageable = 50;
        std::hint::black_box(pageable);
        locked.write(60);
        assert_eq!(synchronize_stream(stream), 0);
        assert_eq!(download::<u32>(memory, 2).unwrap(), [5, 60]);
        // To page-locked memory nothing comes before somebody waits.
        locked.write(1);
        assert_eq!(cuMemcpyDtoHAsync_v2(locked.cast(), memory, 4, stream), 0);
        assert_eq!(locked.read(), 1);
        assert_eq!(synchronize_stream(stream), 0);
        assert_eq!(locked.read(), 5);
        assert_eq!(cuMemFreeHost(locked.cast()), 0);
    }
    destroy_stream(stream);
    free(memory);
    device.finish_clean();
}

#[test]
fn events() {
    let device = Device::new();
    let (stream, memory) = (new_stream(1), allocate(4));
    let (start, end) = (event(), event());
    let mut time = -1.0;
    // SAFETY: handles that were made and places for results.
    unsafe {
        assert_eq!(cuEventQuery(start), 0);
        assert_eq!(cuEventSynchronize(start), 0);
        assert_eq!(cuEventElapsedTime(&mut time, start, end), 400);
        assert_eq!(cuEventRecord(start, stream), 0);
        set_on(stream, memory, 1, 1);
        assert_eq!(cuEventRecord(end, stream), 0);
        assert_eq!(cuEventElapsedTime(&mut time, start, end), 600);
        let mut codes = Vec::new();
        while codes.last() != Some(&0) {
            codes.push(cuEventQuery(end));
            assert!(codes.len() < 100 && matches!(codes.last(), Some(0 | 600)));
        }
        assert_eq!(cuEventElapsedTime(&mut time, start, end), 0);
        assert!(time >= 0.0);
        assert_eq!(cuEventSynchronize(end), 0);
        assert_eq!((cuEventDestroy_v2(start), cuEventDestroy_v2(end)), (0, 0));
        assert_eq!(report(), "");
        assert_eq!(cuEventDestroy_v2(end), 400);
        assert_eq!(cuStreamWaitEvent(stream, end, 0), 400);
    }
    pvera_reset();
    destroy_stream(stream);
    free(memory);
    device.finish_clean();
}

#[test]
fn streams_that_were_destroyed_finish_their_work() {
    let device = Device::new();
    let (stream, memory) = (new_stream(1), allocate(4));
    set_on(stream, memory, 8, 1);
    destroy_stream(stream);
    // SAFETY: a destroyed stream is what is tested.
    assert_eq!(unsafe { cuStreamDestroy_v2(stream) }, 400);
    assert_eq!(synchronize_stream(stream), 400);
    assert_reported(&["or was destroyed"]);
    pvera_reset();
    assert_eq!(synchronize(), 0);
    assert_eq!(download::<u32>(memory, 1).unwrap(), [8]);
    free(memory);
    device.finish_clean();
}

#[test]
fn a_module_unloaded_while_its_kernel_is_queued() {
    let _device = Device::new();
    let module = load(&kernel("", "")).unwrap();
    assert_eq!(launch_on(0, function(module, "test"), 1, 1, [0; 3]), 0);
    // SAFETY: a module that was loaded.
    assert_eq!(unsafe { cuModuleUnload(module) }, 0);
    assert_reported(&["cuModuleUnload while kernels of the module are queued"]);
}

#[test]
fn contexts_do_not_share() {
    let device = Device::new();
    let module = load(&kernel("", ADD)).unwrap();
    let test = function(module, "test");
    let (stream, memory) = (new_stream(1), upload(&[0u32; 32]));
    let (mut other, mut popped, mut found) = (0, 0, 0);
    // SAFETY: handles that were made and places for results.
    unsafe {
        assert_eq!(cuCtxCreate_v2(&mut other, 0, 0), 0);
        assert_eq!(current(), other);
        assert_eq!(cuStreamGetCtx(stream, &mut found), 0);
        assert_eq!(found, device.context);
        // The first one's stream, function and memory in the second.
        assert_eq!(synchronize_stream(stream), 400);
        assert_eq!(launch_on(0, test, 1, 32, [memory, 0, 1]), 400);
        assert_eq!(cuModuleGetFunction(&mut found, module, c"test".as_ptr()), 400);
        assert_eq!(cuModuleUnload(module), 400);
        assert_eq!(cuMemFree_v2(memory), 1);
        assert_reported(&["of another context than the current one", "another context's"]);
        pvera_reset();
        assert_eq!(run(&kernel("", ADD), 1, 32, [memory, 0, 1]), 700);
        assert_reported(&["memory of another context"]);
        pvera_reset();
        // The second one is broken, the first is not.
        assert_eq!(cuCtxDestroy_v2(other), 0);
        assert_eq!(current(), device.context);
        assert_eq!(synchronize(), 0);
        assert_eq!(cuCtxSetCurrent(other), 201);
        pvera_reset();
        assert_eq!(cuCtxPopCurrent_v2(&mut popped), 0);
        assert_eq!(popped, device.context);
        assert_eq!(synchronize(), 201);
        let mut at = 0;
        assert_eq!(cuMemAlloc_v2(&mut at, 4), 201);
        assert_eq!(cuCtxSetCurrent(device.context), 0);
        assert_eq!((cuModuleUnload(module), cuStreamDestroy_v2(stream), cuMemFree_v2(memory)), (0, 0, 0));
    }
    device.finish_clean();
}

#[test]
fn what_is_left_is_counted_and_a_leak_at_the_end() {
    let device = Device::new();
    let (memory, stream) = (allocate(100), new_stream(0));
    event();
    load(&kernel("", "")).unwrap();
    assert_eq!(pvera_double_live_bytes(), 100);
    assert_eq!(pvera_double_live_objects(), 4);
    let _ = (memory, stream);
    drop(device);
    assert_reported(&["leak: the context ends and still holds 1 allocations, 1 streams, 1 events, 1 modules"]);
    assert_eq!((pvera_double_live_bytes(), pvera_double_live_objects()), (0, 0));
}

#[test]
fn pointers_tell_what_they_are() {
    let device = Device::new();
    let memory = allocate(100);
    let (mut kind, mut context, mut start, mut size, mut ordinal) = (0u32, 0u64, 0u64, 0usize, -1i32);
    // SAFETY: places for the results.
    unsafe {
        assert_eq!(cuPointerGetAttribute((&raw mut kind).cast(), 2, memory + 50), 0);
        assert_eq!(cuPointerGetAttribute((&raw mut context).cast(), 1, memory + 99), 0);
        assert_eq!(cuPointerGetAttribute((&raw mut start).cast(), 11, memory + 50), 0);
        assert_eq!(cuPointerGetAttribute((&raw mut size).cast(), 12, memory), 0);
        assert_eq!(cuPointerGetAttribute((&raw mut ordinal).cast(), 9, memory), 0);
        assert_eq!((kind, context, start, size, ordinal), (2, device.context, memory, 100, 0));
        assert_eq!(cuPointerGetAttribute((&raw mut kind).cast(), 2, memory + 100), 1);
        assert_eq!(cuPointerGetAttribute((&raw mut kind).cast(), 2, (&raw const start) as u64), 1);
        assert_eq!(memory % 256, 0);
        assert_ne!(memory % 4096, 0);
    }
    free(memory);
    // SAFETY: a place for the result.
    assert_eq!(unsafe { cuPointerGetAttribute((&raw mut kind).cast(), 2, memory) }, 1);
    device.finish_clean();
}
