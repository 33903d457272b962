//! Scenarios that tests of a library set: devices, drivers, memory, failing calls, and the library file itself.

mod support;

use cuda::exports::context::{cuCtxGetCurrent, cuCtxSynchronize};
use cuda::exports::device::*;
use cuda::exports::double::pvera_double_instructions;
use cuda::exports::memory::{cuMemAlloc_v2, cuMemAllocAsync, cuMemFree_v2};
use cuda::exports::module::cuFuncGetAttribute;
use std::ffi::CStr;
use std::process::Command;
use support::*;

/// Runs the ignored test `name` of this program in a process of its own, with the environment.
fn process(name: &str, environment: &[(&str, &str)]) -> std::process::Output {
    Command::new(std::env::current_exe().unwrap())
        .args([name, "--exact", "--ignored", "--nocapture"])
        .envs(environment.iter().copied())
        .output()
        .unwrap()
}

fn assert_process(name: &str, environment: &[(&str, &str)]) {
    let output = process(name, environment);
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn no_device() {
    let _turn = turn();
    set("PVERA_DOUBLE_DEVICES", 0);
    // SAFETY: no pointers.
    assert_eq!(unsafe { cuInit(0) }, 100);
}

#[test]
fn several_devices_do_not_share() {
    let device = Device::new();
    set("PVERA_DOUBLE_DEVICES", 2);
    let memory = upload(&[0u32; 4]);
    let (mut count, mut other) = (0, 0);
    // SAFETY: places for results.
    unsafe {
        assert_eq!((cuDeviceGetCount(&mut count), count), (0, 2));
        assert_eq!(cuDeviceGet(&mut count, 2), 101);
        assert_eq!(cuDevicePrimaryCtxRetain(&mut other, 1), 0);
        assert_ne!(other, device.context);
        assert_eq!(cuda::exports::context::cuCtxSetCurrent(other), 0);
        assert_eq!(run(&kernel("", "ld.global.u32 %r2, [%rd1];"), 1, 1, [memory, 0, 0]), 700);
        assert_eq!(cuDevicePrimaryCtxRelease_v2(1), 0);
        assert_eq!(cuDevicePrimaryCtxRelease_v2(1), 201);
        assert_eq!(cuda::exports::context::cuCtxSetCurrent(device.context), 0);
    }
}

#[test]
fn drivers_older_than_the_ptx() {
    let _device = Device::new();
    let source = kernel("", "");
    for (driver, code) in [(11_080, Err(222)), (12_000, Err(222)), (12_010, Ok(())), (12_080, Ok(())), (13_000, Ok(()))]
    {
        set("PVERA_DOUBLE_DRIVER", driver);
        assert_eq!(load(&source).map(|_| ()), code, "{driver}");
    }
    let mut version = 0;
    // SAFETY: a place for the result.
    assert_eq!((unsafe { cuDriverGetVersion(&mut version) }, version), (0, 13_000));
    set("PVERA_DOUBLE_CAPABILITY", 70);
    assert_eq!(load(&source), Err(209));
    assert_eq!(load("not PTX"), Err(218));
    assert_eq!(load("\x7fELF"), Err(200));
}

#[test]
fn memory_runs_out() {
    let device = Device::new();
    set("PVERA_DOUBLE_MEMORY", 1000);
    let (mut first, mut second) = (0, 0);
    // SAFETY: places for results.
    unsafe {
        assert_eq!(cuMemAlloc_v2(&mut first, 600), 0);
        assert_eq!(cuMemAlloc_v2(&mut second, 401), 2);
        assert_eq!(cuMemAllocAsync(&mut second, 401, 2), 2);
        assert_eq!(cuMemAlloc_v2(&mut second, 400), 0);
        assert_eq!(cuMemAlloc_v2(&mut second, 0), 1);
        assert_eq!((cuMemFree_v2(first), cuMemFree_v2(second)), (0, 0));
        assert_eq!(cuMemAlloc_v2(&mut first, 1000), 0);
        assert_eq!(cuMemFree_v2(first), 0);
    }
    device.finish_clean();
}

#[test]
fn a_certain_allocation_fails() {
    let device = Device::new();
    set("PVERA_DOUBLE_FAIL_ALLOCATION", 3);
    let mut made = Vec::new();
    let codes: Vec<i32> = (0..5)
        .map(|_| {
            let mut at = 0;
            // SAFETY: a place for the result.
            let code = unsafe { cuMemAlloc_v2(&mut at, 8) };
            made.extend((code == 0).then_some(at));
            code
        })
        .collect();
    assert_eq!(codes, [0, 0, 2, 0, 0]);
    made.into_iter().for_each(free);
    device.finish_clean();
}

#[test]
fn a_certain_allocation_of_a_stream_fails() {
    let device = Device::new();
    set("PVERA_DOUBLE_FAIL_POOLED", 2);
    let mut made = vec![allocate(8)];
    let codes: Vec<i32> = (0..3)
        .map(|_| {
            let mut at = 0;
            // SAFETY: a place for the result, the default stream.
            let code = unsafe { cuMemAllocAsync(&mut at, 8, 0) };
            made.extend((code == 0).then_some(at));
            code
        })
        .collect();
    assert_eq!(codes, [0, 2, 0]);
    made.into_iter().for_each(free);
    device.finish_clean();
}

#[test]
fn no_memory_pools() {
    let _device = Device::new();
    let (mut value, mut at) = (-1, 0);
    // SAFETY: places for results.
    unsafe {
        assert_eq!((cuDeviceGetAttribute(&mut value, 115, 0), value), (0, 1));
        set("PVERA_DOUBLE_POOLS", 0);
        assert_eq!((cuDeviceGetAttribute(&mut value, 115, 0), value), (0, 0));
        assert_eq!(cuMemAllocAsync(&mut at, 8, 0), 801);
    }
}

#[test]
fn a_function_gives_any_code() {
    let _device = Device::new();
    set("PVERA_DOUBLE_CODE=cuCtxSynchronize", 99_999);
    assert_eq!(synchronize(), 99_999);
    set("PVERA_DOUBLE_CODE=", 0);
    assert_eq!(synchronize(), 0);
    assert_process("code_from_the_environment", &[("PVERA_DOUBLE_CODE", "cuCtxSynchronize:99999")]);
}

#[test]
#[ignore = "run by a_function_gives_any_code"]
fn code_from_the_environment() {
    // SAFETY: no pointers.
    assert_eq!(unsafe { cuCtxSynchronize() }, 99_999);
}

#[test]
fn names_of_errors() {
    let (mut name, mut text) = (std::ptr::null(), std::ptr::null());
    // SAFETY: places for results, and strings that end with a zero.
    unsafe {
        assert_eq!((cuGetErrorName(700, &mut name), cuGetErrorString(700, &mut text)), (0, 0));
        assert_eq!(CStr::from_ptr(name), c"CUDA_ERROR_ILLEGAL_ADDRESS");
        assert_eq!(CStr::from_ptr(text), c"an illegal memory access was encountered");
        assert_eq!(cuGetErrorName(99_999, &mut name), 1);
        assert!(name.is_null());
    }
}

#[test]
fn before_cu_init() {
    assert_process("nothing_works_before_cu_init", &[]);
}

#[test]
#[ignore = "run by before_cu_init"]
fn nothing_works_before_cu_init() {
    let (mut count, mut at, mut version) = (0, 0, 0);
    // SAFETY: places for results.
    unsafe {
        assert_eq!(cuDeviceGetCount(&mut count), 3);
        assert_eq!(cuCtxGetCurrent(&mut at), 3);
        assert_eq!(cuMemAlloc_v2(&mut at, 8), 3);
        assert_eq!(cuDriverGetVersion(&mut version), 0);
        assert_eq!(cuInit(1), 1);
        assert_eq!(cuInit(0), 0);
        assert_eq!(cuMemAlloc_v2(&mut at, 8), 201);
    }
}

#[test]
fn the_host_cannot_touch_device_memory() {
    use std::os::unix::process::ExitStatusExt;
    for name in ["the_host_reads_device_memory", "the_host_writes_device_memory"] {
        assert_eq!(process(name, &[]).status.signal(), Some(libc::SIGSEGV), "{name}");
    }
}

#[test]
#[ignore = "run by the_host_cannot_touch_device_memory"]
fn the_host_reads_device_memory() {
    let _device = Device::new();
    let at = upload(&[1u32; 4]);
    // SAFETY: none, that is the test: the process must end here.
    std::hint::black_box(unsafe { (at as *const u32).read_volatile() });
}

#[test]
#[ignore = "run by the_host_cannot_touch_device_memory"]
fn the_host_writes_device_memory() {
    let _device = Device::new();
    let at = upload(&[1u32; 4]);
    // SAFETY: none, as above.
    unsafe { (at as *mut u32).write_volatile(3) };
}

#[test]
fn reports_go_to_a_file_too() {
    let path = std::env::temp_dir().join(format!("pvera-double-{}.log", std::process::id()));
    assert_process("reports_something", &[("PVERA_DOUBLE_LOG", path.to_str().unwrap())]);
    let log = std::fs::read_to_string(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    assert!(log.contains("kernel `test`") && log.contains("out of bounds"), "{log}");
}

#[test]
#[ignore = "run by reports_go_to_a_file_too"]
fn reports_something() {
    let _device = Device::new();
    assert_eq!(run(&kernel("", "ld.global.u32 %r2, [%rd1];"), 1, 1, [0; 3]), 700);
}

#[test]
fn launches_that_no_device_takes() {
    let _device = Device::new();
    let module = load(&kernel("", "").replace("\n{\n", "\n.maxntid 64, 1, 1\n{\n")).unwrap();
    let test = function(module, "test");
    for (grid, block, code) in
        [(0, 1, 1), (1, 0, 1), (1, 1025, 1), (1, 65, 701), (i32::MAX as u32 + 1, 1, 1), (1, 64, 0)]
    {
        assert_eq!(launch_on(0, test, grid, block, [0; 3]), code, "{grid} {block}");
    }
    let mut value = 0;
    // SAFETY: a place for the result.
    assert_eq!((unsafe { cuFuncGetAttribute(&mut value, 0, test) }, value), (0, 64));
    assert_eq!(synchronize(), 0);
    assert!(pvera_double_instructions() > 0);
}

#[test]
fn the_library_has_the_drivers_names() {
    // Beside this program lies the library; `cargo build` puts it beside its other name.
    let library = std::env::current_exe().unwrap().with_file_name("libcuda.so");
    let link = std::path::Path::new(env!("CARGO_BIN_EXE_mutants")).with_file_name("libcuda.so.1");
    assert_eq!(std::fs::read_link(link).unwrap().to_str(), Some("libcuda.so"));
    let path = std::ffi::CString::new(library.to_str().unwrap()).unwrap();
    // SAFETY: a library without constructors that matter.
    let library = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
    assert!(!library.is_null(), "{path:?}");
    for name in include_str!("functions.txt").split_whitespace() {
        let symbol = std::ffi::CString::new(name).unwrap();
        // SAFETY: a library that is open.
        let missing = unsafe { libc::dlsym(library, symbol.as_ptr()) }.is_null();
        assert_eq!(missing, cfg!(feature = "without-cuCtxGetId") && name == "cuCtxGetId", "{name}");
    }
}
