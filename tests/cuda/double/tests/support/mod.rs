//! What the tests share: one device at a time, kernels from PTX bodies, and the double's own questions.
#![allow(dead_code, reason = "each test program uses a part")]

use cuda::exports::context::{cuCtxGetCurrent, cuCtxSetCurrent, cuCtxSynchronize};
use cuda::exports::device::{cuDevicePrimaryCtxRelease_v2, cuDevicePrimaryCtxRetain, cuInit};
use cuda::exports::double::pvera_double_reset;
use cuda::exports::double::{
    pvera_double_live_bytes, pvera_double_live_objects, pvera_double_report, pvera_double_set,
};
use cuda::exports::memory::{cuMemAlloc_v2, cuMemFree_v2, cuMemcpyDtoH_v2, cuMemcpyHtoD_v2};
use cuda::exports::module::{cuLaunchKernel, cuModuleGetFunction, cuModuleLoadData, cuModuleUnload};
use cuda::exports::stream::{cuStreamCreate, cuStreamDestroy_v2};
use std::ffi::{CStr, CString, c_void};
use std::ptr::null_mut;
use std::sync::{Mutex, MutexGuard, PoisonError};

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// The device with its primary context current, for one test; other tests wait.
pub struct Device {
    pub context: u64,
    _turn: MutexGuard<'static, ()>,
}

pub fn set(name: &str, value: u64) {
    let name = CString::new(name).unwrap();
    // SAFETY: a string that ends with a zero.
    assert_eq!(unsafe { pvera_double_set(name.as_ptr(), value) }, 0);
}

pub fn pvera_reset() {
    pvera_double_reset();
}

pub fn defaults() {
    for (name, value) in [
        ("SEED", 1),
        ("DEVICES", 1),
        ("DRIVER", 12_080),
        ("MEMORY", 1 << 30),
        ("FAIL_ALLOCATION", 0),
        ("FAIL_POOLED", 0),
        ("POOLS", 1),
        ("STEPS", 100_000_000),
        ("CAPABILITY", 75),
        ("CODE=", 0),
        ("MUTANT=", 0),
    ] {
        set(&format!("PVERA_DOUBLE_{name}"), value);
    }
    pvera_double_reset();
}

pub fn turn() -> MutexGuard<'static, ()> {
    let turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    defaults();
    turn
}

pub fn report() -> String {
    // SAFETY: the double's string ends with a zero.
    unsafe { CStr::from_ptr(pvera_double_report()) }.to_str().unwrap().to_string()
}

impl Device {
    pub fn new() -> Device {
        let turn = turn();
        let mut context = 0;
        // SAFETY: as the driver's documentation says.
        unsafe {
            assert_eq!(cuInit(0), 0);
            assert_eq!(cuDevicePrimaryCtxRetain(&mut context, 0), 0);
            assert_eq!(cuCtxSetCurrent(context), 0);
        }
        pvera_double_reset();
        Device { context, _turn: turn }
    }

    /// Ends a test that must have left nothing behind and reported nothing.
    pub fn finish_clean(self) {
        assert_eq!(report(), "");
        assert_eq!(pvera_double_live_bytes(), 0);
        assert_eq!(pvera_double_live_objects(), 1);
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // SAFETY: the context is retained.
        unsafe {
            cuDevicePrimaryCtxRelease_v2(0);
            cuCtxSetCurrent(0);
        }
    }
}

pub fn current() -> u64 {
    let mut context = 0;
    // SAFETY: a place for the result.
    assert_eq!(unsafe { cuCtxGetCurrent(&mut context) }, 0);
    context
}

pub const HEADER: &str = ".version 8.1\n.target sm_75\n.address_size 64\n";

/// An entry `test` of three 64-bit parameters a, b and n, loaded into %rd1, %rd2 and %rd3, with %r1 = %tid.x and registers to use.
pub fn kernel(variables: &str, body: &str) -> String {
    format!(
        "{HEADER}.visible .entry test(.param .u64 a, .param .u64 b, .param .u64 n)\n{{\n{variables}\n\
         .reg .pred %p<8>; .reg .b16 %h<16>; .reg .b32 %r<32>; .reg .b64 %rd<32>; .reg .f32 %f<32>; .reg .f64 %d<32>;\n\
         ld.param.u64 %rd1, [a]; ld.param.u64 %rd2, [b]; ld.param.u64 %rd3, [n]; mov.u32 %r1, %tid.x;\n{body}\nret;\n}}\n"
    )
}

pub fn load(source: &str) -> Result<u64, i32> {
    let source = CString::new(source).unwrap();
    let mut module = 0;
    // SAFETY: PTX that ends with a zero.
    match unsafe { cuModuleLoadData(&mut module, source.as_ptr()) } {
        0 => Ok(module),
        code => Err(code),
    }
}

pub fn function(module: u64, name: &str) -> u64 {
    let name = CString::new(name).unwrap();
    let mut function = 0;
    // SAFETY: a name that ends with a zero.
    assert_eq!(unsafe { cuModuleGetFunction(&mut function, module, name.as_ptr()) }, 0);
    function
}

pub fn launch_on(stream: u64, function: u64, grid: u32, block: u32, arguments: [u64; 3]) -> i32 {
    let mut params: Vec<*mut c_void> =
        arguments.iter().map(|argument| (&raw const *argument).cast_mut().cast()).collect();
    // SAFETY: a pointer for each of the three parameters.
    unsafe { cuLaunchKernel(function, grid, 1, 1, block, 1, 1, 0, stream, params.as_mut_ptr(), null_mut()) }
}

pub fn synchronize() -> i32 {
    // SAFETY: no arguments.
    unsafe { cuCtxSynchronize() }
}

/// Loads a kernel, runs it and waits: the code of the launch or the wait.
pub fn run(source: &str, grid: u32, block: u32, arguments: [u64; 3]) -> i32 {
    let module = load(source).unwrap_or_else(|code| panic!("{code}: {}", report()));
    let code = match launch_on(0, function(module, "test"), grid, block, arguments) {
        0 => synchronize(),
        code => code,
    };
    // SAFETY: the module is not used any more. A broken context refuses, and unloads it when it ends.
    unsafe { cuModuleUnload(module) };
    code
}

pub fn allocate(bytes: usize) -> u64 {
    let mut at = 0;
    // SAFETY: a place for the result.
    assert_eq!(unsafe { cuMemAlloc_v2(&mut at, bytes) }, 0);
    at
}

pub fn free(at: u64) {
    // SAFETY: memory that was allocated.
    assert_eq!(unsafe { cuMemFree_v2(at) }, 0);
}

pub fn upload<T: Copy>(values: &[T]) -> u64 {
    let at = allocate(size_of_val(values));
    // SAFETY: as many bytes as were allocated.
    assert_eq!(unsafe { cuMemcpyHtoD_v2(at, values.as_ptr().cast(), size_of_val(values)) }, 0);
    at
}

pub fn download<T: Copy + Default>(at: u64, count: usize) -> Result<Vec<T>, i32> {
    let mut values = vec![T::default(); count];
    // SAFETY: as many bytes as there is room for.
    match unsafe { cuMemcpyDtoH_v2(values.as_mut_ptr().cast(), at, size_of_val(&values[..])) } {
        0 => Ok(values),
        code => Err(code),
    }
}

pub fn new_stream(flags: u32) -> u64 {
    let mut stream = 0;
    // SAFETY: a place for the result.
    assert_eq!(unsafe { cuStreamCreate(&mut stream, flags) }, 0);
    stream
}

pub fn destroy_stream(stream: u64) {
    // SAFETY: a stream that was made.
    assert_eq!(unsafe { cuStreamDestroy_v2(stream) }, 0);
}

/// Fails unless the report has every one of the texts.
pub fn assert_reported(texts: &[&str]) {
    let report = report();
    for text in texts {
        assert!(report.contains(text), "{text:?} is not in {report:?}");
    }
}
