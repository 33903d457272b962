//! Capture of streams into graphs: what is recorded, what replays, what is refused and with which code.

mod support;

use cuda::exports::context::cuCtxSynchronize;
use cuda::exports::double::{pvera_double_launches, pvera_double_live_objects};
use cuda::exports::event::{cuEventCreate, cuEventDestroy_v2, cuEventQuery, cuEventRecord, cuEventSynchronize};
use cuda::exports::graph::{cuGraphDestroy, cuGraphExecDestroy, cuGraphInstantiateWithFlags, cuGraphLaunch};
use cuda::exports::memory::*;
use cuda::exports::module::cuModuleUnload;
use cuda::exports::stream::*;
use std::ptr::null_mut;
use support::*;

/// a[thread] = b[0] + n
const FROM: &str = "mul.wide.u32 %rd4, %r1, 4; add.s64 %rd5, %rd1, %rd4; ld.global.u32 %r2, [%rd2]; cvt.u32.u64 %r3, %rd3; add.s32 %r2, %r2, %r3; \
                    st.global.u32 [%rd5], %r2;";

fn begin(stream: u64, mode: i32) -> i32 {
    // SAFETY: no pointers.
    unsafe { cuStreamBeginCapture_v2(stream, mode) }
}

fn end(stream: u64) -> Result<u64, i32> {
    let mut graph = 77;
    // SAFETY: a place for the result.
    match unsafe { cuStreamEndCapture(stream, &mut graph) } {
        0 => Ok(graph),
        code => {
            assert_eq!(graph, 0);
            Err(code)
        }
    }
}

fn status(stream: u64) -> i32 {
    let mut status = -1;
    // SAFETY: a place for the result.
    match unsafe { cuStreamIsCapturing(stream, &mut status) } {
        0 => status,
        code => code,
    }
}

fn event() -> u64 {
    let mut event = 0;
    // SAFETY: a place for the result.
    assert_eq!(unsafe { cuEventCreate(&mut event, 2) }, 0);
    event
}

#[test]
fn a_graph_replays_with_new_values_in_memory() {
    let device = Device::new();
    let module = load(&kernel("", FROM)).unwrap();
    let test = function(module, "test");
    let stream = new_stream(1);
    let (to, from, copy) = (allocate(128), upload(&[0u32]), allocate(128));
    assert_eq!(begin(stream, 0), 0);
    assert_eq!(status(stream), 1);
    assert_eq!(launch_on(stream, test, 1, 32, [to, from, 7]), 0);
    // SAFETY: no pointers of the host.
    assert_eq!(unsafe { cuMemcpyDtoDAsync_v2(copy, to, 128, stream) }, 0);
    let graph = end(stream).unwrap();
    assert_eq!(status(stream), 0);
    let mut executable = 0;
    // SAFETY: handles that were made and places for results.
    unsafe {
        assert_eq!(cuGraphInstantiateWithFlags(&mut executable, graph, 0), 0);
        assert_eq!(cuGraphDestroy(graph), 0);
        assert_eq!((cuCtxSynchronize(), pvera_double_launches()), (0, 0));
        for value in [10u32, 20] {
            assert_eq!(cuMemsetD32Async(from, value, 1, stream), 0);
            assert_eq!(cuGraphLaunch(executable, stream), 0);
            assert_eq!(cuStreamSynchronize(stream), 0);
            assert_eq!(download::<u32>(copy, 32).unwrap(), [value + 7; 32]);
        }
        assert_eq!(pvera_double_launches(), 2);
        // A launch after the module is gone.
        assert_eq!(cuModuleUnload(module), 0);
        assert_eq!(report(), "");
        assert_eq!(cuGraphLaunch(executable, stream), 400);
        assert_reported(&["the module of one of its kernels was unloaded"]);
        assert_eq!(cuGraphExecDestroy(executable), 0);
        assert_eq!(cuGraphExecDestroy(executable), 1);
    }
    pvera_reset();
    destroy_stream(stream);
    [to, from, copy].into_iter().for_each(free);
    device.finish_clean();
}

#[test]
fn forks_and_joins() {
    for seed in 0..8 {
        for joins in [true, false] {
            let device = Device::new();
            set("PVERA_DOUBLE_SEED", seed);
            let (first, second, forked, joined) = (new_stream(1), new_stream(1), event(), event());
            let memory = allocate(8);
            // SAFETY: handles that were made, no pointers of the host.
            unsafe {
                assert_eq!(begin(first, 1), 0);
                assert_eq!(cuEventRecord(forked, first), 0);
                assert_eq!(cuStreamWaitEvent(second, forked, 0), 0);
                assert_eq!(status(second), 1);
                assert_eq!(cuMemsetD32Async(memory, 1, 1, first), 0);
                assert_eq!(cuMemsetD32Async(memory + 4, 2, 1, second), 0);
                assert_eq!(cuEventRecord(joined, second), 0);
                if joins {
                    assert_eq!(cuStreamWaitEvent(first, joined, 0), 0);
                }
                if seed % 2 == 1 {
                    assert_eq!(end(second), Err(903));
                    assert_eq!(end(first), Err(901));
                } else if joins {
                    let (graph, mut executable) = (end(first).unwrap(), 0);
                    assert_eq!(cuGraphInstantiateWithFlags(&mut executable, graph, 0), 0);
                    assert_eq!(cuGraphLaunch(executable, first), 0);
                    assert_eq!(cuStreamSynchronize(first), 0);
                    assert_eq!(download::<u32>(memory, 2).unwrap(), [1, 2]);
                    assert_eq!((cuGraphDestroy(graph), cuGraphExecDestroy(executable)), (0, 0));
                } else {
                    assert_eq!(end(first), Err(904));
                    assert_reported(&["was not joined"]);
                }
                assert_eq!((status(first), status(second)), (0, 0));
                assert_eq!(cuEventQuery(joined), 907);
                assert_eq!(cuEventSynchronize(joined), 907);
                pvera_reset();
                assert_eq!((cuEventDestroy_v2(forked), cuEventDestroy_v2(joined)), (0, 0));
            }
            destroy_stream(first);
            destroy_stream(second);
            free(memory);
            device.finish_clean();
        }
    }
}

#[test]
fn branches_of_a_graph_that_nothing_orders() {
    for seed in 0..8 {
        let _device = Device::new();
        set("PVERA_DOUBLE_SEED", seed);
        let (first, second, forked, joined) = (new_stream(1), new_stream(1), event(), event());
        let memory = allocate(4);
        // SAFETY: handles that were made, no pointers of the host.
        unsafe {
            assert_eq!(begin(first, 1), 0);
            cuEventRecord(forked, first);
            cuStreamWaitEvent(second, forked, 0);
            cuMemsetD32Async(memory, 1, 1, first);
            cuMemsetD32Async(memory, 2, 1, second);
            cuEventRecord(joined, second);
            cuStreamWaitEvent(first, joined, 0);
            let (graph, mut executable) = (end(first).unwrap(), 0);
            cuGraphInstantiateWithFlags(&mut executable, graph, 0);
            cuGraphLaunch(executable, first);
            assert_eq!(cuStreamSynchronize(first), 719);
            assert_reported(&["which nothing orders before it"]);
            assert_eq!((cuGraphDestroy(graph), cuGraphExecDestroy(executable)), (0, 0));
        }
    }
}

/// Starts a capture in the given mode, makes one call, and says what it and the end of the capture gave.
fn refused(flags: u32, mode: i32, call: impl FnOnce(u64) -> i32) -> (i32, i32) {
    let _device = Device::new();
    let stream = new_stream(flags);
    assert_eq!(begin(stream, mode), 0);
    let code = call(stream);
    let ended = end(stream);
    if let Ok(graph) = ended {
        // SAFETY: a graph that was made.
        unsafe { cuGraphDestroy(graph) };
    }
    (code, ended.err().unwrap_or(0))
}

#[test]
fn calls_that_a_capture_does_not_allow() {
    let mut at = 0;
    let mut host = null_mut();
    // SAFETY: places for results; the handles are those that `refused` made.
    unsafe {
        for mode in [0, 1] {
            assert_eq!(refused(1, mode, |_| cuMemAlloc_v2(&mut at, 64)), (900, 901));
            assert_eq!(refused(1, mode, |_| cuMemFree_v2(0x1000)), (900, 901));
            assert_eq!(refused(1, mode, |_| cuMemAllocHost_v2(&mut host, 64)), (900, 901));
            assert_eq!(refused(1, mode, |_| load(&kernel("", "")).unwrap_err()), (900, 901));
            assert_eq!(refused(1, mode, |_| cuCtxSynchronize()), (900, 901));
            let memory = [0u32; 1];
            assert_eq!(refused(1, mode, |_| cuMemcpyHtoD_v2(0x1000, memory.as_ptr().cast(), 4)), (900, 901));
        }
        for mode in [0, 1, 2] {
            assert_eq!(refused(1, mode, |stream| cuMemAllocAsync(&mut at, 64, stream)), (900, 901));
            assert_eq!(refused(1, mode, |stream| cuMemFreeAsync(0x1000, stream)), (900, 901));
            assert_eq!(refused(1, mode, |stream| cuStreamSynchronize(stream)), (900, 901));
            assert_eq!(refused(1, mode, |_| cuCtxSynchronize()), (900, 901));
            assert_eq!(refused(1, mode, |stream| cuStreamDestroy_v2(stream)), (900, 901));
            // The legacy stream waits for blocking streams, and must not wait for one that captures.
            assert_eq!(refused(0, mode, |_| cuStreamSynchronize(0)), (906, 901));
            assert_eq!(refused(0, mode, |_| cuMemcpyHtoD_v2(0x1000, (&raw const at).cast(), 4)), (906, 901));
            let beside = if mode == 2 { (0, 0) } else { (900, 901) };
            assert_eq!(refused(1, mode, |_| cuStreamSynchronize(0)), beside);
            assert_eq!(refused(0, mode, |_| status(0)), (906, 0));
            assert_eq!(refused(1, mode, |stream| begin(stream, 0)), (401, 0));
            // Work outside of the capture.
            assert_eq!(
                refused(1, mode, |stream| {
                    let (other, done) = (new_stream(1), event());
                    cuEventRecord(done, other);
                    cuStreamWaitEvent(stream, done, 0)
                }),
                (905, 901)
            );
        }
        // The thread's own mode counts too.
        for (own, capture, code) in [(1, 0, 900), (2, 0, 0), (2, 1, 0), (0, 1, 900)] {
            let outcome = refused(1, capture, |_| {
                let mut mode = own;
                assert_eq!((cuThreadExchangeStreamCaptureMode(&mut mode), mode), (0, 0));
                let code = cuMemAlloc_v2(&mut at, 64);
                if code == 0 {
                    assert_eq!(cuMemFree_v2(at), 0);
                }
                assert_eq!(cuThreadExchangeStreamCaptureMode(&mut mode), 0);
                assert_eq!(mode, own);
                code
            });
            let end = if code == 0 { 0 } else { 901 };
            assert_eq!(outcome, (code, end), "{own} {capture}");
        }
        let mut mode = 3;
        assert_eq!(cuThreadExchangeStreamCaptureMode(&mut mode), 1);
        // In relaxed mode a thread may do what only may be unsafe.
        assert_eq!(
            refused(1, 2, |_| {
                let code = cuMemAlloc_v2(&mut at, 64);
                cuMemFree_v2(at);
                code
            }),
            (0, 0)
        );
        assert_eq!(refused(1, 2, |_| load(&kernel("", "")).map_or_else(|code| code, |_| 0)), (0, 0));
    }
    let device = Device::new();
    assert_eq!(begin(0, 0), 900);
    assert_eq!(begin(1, 0), 900);
    assert_eq!(end(2), Err(401));
    drop(device);
}

#[test]
fn copies_of_pageable_memory_in_a_capture() {
    let _device = Device::new();
    let (stream, memory) = (new_stream(1), upload(&[1u32]));
    let mut value = 3u32;
    // SAFETY: ranges as asked for.
    unsafe {
        for to_device in [true, false] {
            assert_eq!(begin(stream, 1), 0);
            let code = if to_device {
                cuMemcpyHtoDAsync_v2(memory, (&raw const value).cast(), 4, stream)
            } else {
                cuMemcpyDtoHAsync_v2((&raw mut value).cast(), memory, 4, stream)
            };
            assert_eq!(code, 900);
            assert_eq!(launch_on(stream, function(load_before(), "test"), 1, 1, [0; 3]), 901);
            assert_eq!(end(stream), Err(901));
        }
        // From page-locked memory the copy is recorded, and reads when it is replayed.
        let mut locked = null_mut();
        assert_eq!(cuMemAllocHost_v2(&mut locked, 4), 0);
        let locked: *mut u32 = locked.cast();
        locked.write(1);
        assert_eq!(begin(stream, 1), 0);
        assert_eq!(cuMemcpyHtoDAsync_v2(memory, locked.cast(), 4, stream), 0);
        let (graph, mut executable) = (end(stream).unwrap(), 0);
        assert_eq!(cuGraphInstantiateWithFlags(&mut executable, graph, 0), 0);
        locked.write(44);
        assert_eq!(cuGraphLaunch(executable, stream), 0);
        assert_eq!(cuStreamSynchronize(stream), 0);
        assert_eq!(download::<u32>(memory, 1).unwrap(), [44]);
        assert_eq!((cuGraphDestroy(graph), cuGraphExecDestroy(executable), cuMemFreeHost(locked.cast())), (0, 0, 0));
    }
}

/// A module that was loaded before any capture began.
fn load_before() -> u64 {
    use std::cell::Cell;
    thread_local!(static MODULE: Cell<u64> = const { Cell::new(0) });
    if MODULE.get() == 0 {
        // Another thread's call is not part of a thread-local capture; a driver would allow it too.
        let context = current();
        let module = std::thread::spawn(move || {
            // SAFETY: a context that is retained.
            assert_eq!(unsafe { cuda::exports::context::cuCtxSetCurrent(context) }, 0);
            load(&kernel("", "")).unwrap()
        });
        MODULE.set(module.join().unwrap());
    }
    MODULE.get()
}

#[test]
fn another_thread_ends_or_allocates() {
    let device = Device::new();
    let context = device.context;
    let elsewhere = |call: fn(u64) -> i32, stream: u64| {
        std::thread::spawn(move || {
            // SAFETY: a context that is retained.
            assert_eq!(unsafe { cuda::exports::context::cuCtxSetCurrent(context) }, 0);
            call(stream)
        })
        .join()
        .unwrap()
    };
    let ends: fn(u64) -> i32 = |stream| end(stream).err().unwrap_or(0);
    let allocates: fn(u64) -> i32 = |_| {
        let mut at = 0;
        // SAFETY: a place for the result.
        unsafe { cuMemAlloc_v2(&mut at, 4) }
    };
    let stream = new_stream(1);
    assert_eq!(begin(stream, 1), 0);
    assert_eq!(elsewhere(ends, stream), 908);
    assert_eq!(elsewhere(allocates, stream), 0);
    let graph = end(stream).unwrap();
    assert_eq!(begin(stream, 0), 0);
    assert_eq!(elsewhere(allocates, stream), 900);
    assert_eq!(end(stream), Err(901));
    // SAFETY: a graph that was made.
    assert_eq!(unsafe { cuGraphDestroy(graph) }, 0);
    destroy_stream(stream);
    assert_eq!(pvera_double_live_objects(), 1);
}
