//! libcuda as a host engine uses it: memory, streams, graphs. Written apart from the library's own.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::io::Write;
use std::rc::Rc;

use libloading::{Library, Symbol};

use super::common::place::Memory;

pub type Handle = *mut c_void;

/// The device of a test, with a stream of the test's own.
pub struct Gpu {
    library: Library,
    pub context: Handle,
    pub stream: Handle,
}

macro_rules! call {
    ($gpu:expr, $name:literal ($($argument:expr),*) as fn($($type:ty),*)) => {{
        // SAFETY: the signatures are those of the driver's documentation.
        let code = unsafe {
            let function: Symbol<'_, unsafe extern "C" fn($($type),*) -> c_int> = $gpu.library.get($name.as_bytes()).unwrap();
            function($($argument),*)
        };
        assert_eq!(code, 0, "{} failed", $name);
    }};
}

impl Gpu {
    pub fn new() -> Rc<Self> {
        // SAFETY: as any program that uses CUDA.
        let library = unsafe { Library::new("libcuda.so.1") }.expect("a libcuda: the driver's, or a double");
        let mut gpu = Self { library, context: std::ptr::null_mut(), stream: std::ptr::null_mut() };
        let (mut device, mut context, mut stream): (c_int, Handle, Handle) = (0, gpu.context, gpu.stream);
        call!(gpu, "cuInit"(0) as fn(c_uint));
        call!(gpu, "cuDeviceGet"(&raw mut device, 0) as fn(*mut c_int, c_int));
        call!(gpu, "cuDevicePrimaryCtxRetain"(&raw mut context, device) as fn(*mut Handle, c_int));
        gpu.context = context;
        gpu.inside(|| call!(gpu, "cuStreamCreate"(&raw mut stream, 1) as fn(*mut Handle, c_uint)));
        gpu.stream = stream;
        Rc::new(gpu)
    }

    /// Runs with the context current, and none after.
    pub fn inside<T>(&self, work: impl FnOnce() -> T) -> T {
        call!(self, "cuCtxPushCurrent_v2"(self.context) as fn(Handle));
        let result = work();
        let mut popped: Handle = std::ptr::null_mut();
        call!(self, "cuCtxPopCurrent_v2"(&raw mut popped) as fn(*mut Handle));
        assert_eq!(popped, self.context, "the current context is as it was");
        result
    }

    pub fn library(&self) -> &Library {
        &self.library
    }

    pub fn wait(&self) {
        self.inside(|| call!(self, "cuStreamSynchronize"(self.stream) as fn(Handle)));
    }

    /// A function that only the doubles have.
    pub fn of_double<T: Copy>(&self, name: &CStr) -> Option<T> {
        // SAFETY: the caller knows its signature.
        unsafe { self.library.get::<T>(name.to_bytes_with_nul()) }.ok().map(|symbol| *symbol)
    }

    /// Another stream; one that is blocking is ordered with the legacy stream.
    pub fn new_stream(&self, blocking: bool) -> Handle {
        let mut stream: Handle = std::ptr::null_mut();
        let flags = c_uint::from(!blocking);
        self.inside(|| call!(self, "cuStreamCreate"(&raw mut stream, flags) as fn(*mut Handle, c_uint)));
        stream
    }

    pub fn destroy_stream(&self, stream: Handle) {
        self.inside(|| call!(self, "cuStreamDestroy_v2"(stream) as fn(Handle)));
    }

    pub fn capture(&self, work: impl FnOnce()) -> Handle {
        self.capture_on(self.stream, work)
    }

    /// The capture has to be sound when the work is done.
    pub fn capture_on(&self, stream: Handle, work: impl FnOnce()) -> Handle {
        let (mut graph, mut exec): (Handle, Handle) = (std::ptr::null_mut(), std::ptr::null_mut());
        self.inside(|| call!(self, "cuStreamBeginCapture_v2"(stream, 0) as fn(Handle, c_int)));
        work();
        self.inside(|| {
            call!(self, "cuStreamEndCapture"(stream, &raw mut graph) as fn(Handle, *mut Handle));
            call!(self, "cuGraphInstantiateWithFlags"(&raw mut exec, graph, 0) as fn(*mut Handle, Handle, u64));
            call!(self, "cuGraphDestroy"(graph) as fn(Handle));
        });
        exec
    }

    pub fn replay(&self, graph: Handle) {
        self.inside(|| call!(self, "cuGraphLaunch"(graph, self.stream) as fn(Handle, Handle)));
    }

    pub fn destroy_graph(&self, graph: Handle) {
        self.inside(|| call!(self, "cuGraphExecDestroy"(graph) as fn(Handle)));
    }

    /// In stream order.
    pub fn write(&self, address: u64, bytes: &[u8]) {
        self.inside(|| {
            call!(
                self,
                "cuMemcpyHtoDAsync_v2"(address, bytes.as_ptr().cast(), bytes.len(), self.stream)
                    as fn(u64, *const c_void, usize, Handle)
            );
        });
    }

    /// What the double has found wrong, "" when nothing or on a real device.
    pub fn complaints(&self) -> String {
        let Some(report) = self.of_double::<unsafe extern "C" fn() -> *const c_char>(c"pvera_double_report") else {
            return String::new();
        };
        // SAFETY: a text that ends with a zero.
        unsafe { CStr::from_ptr(report()) }.to_string_lossy().into_owned()
    }

    /// What the double has found wrong was meant to be.
    pub fn forget_complaints(&self) {
        let reset = self.of_double::<unsafe extern "C" fn()>(c"pvera_double_reset");
        // SAFETY: a function without arguments.
        reset.into_iter().for_each(|reset| unsafe { reset() });
    }

    /// A counter of the double; 0 on a real device.
    pub fn count(&self, name: &CStr) -> u64 {
        // SAFETY: a function without arguments.
        self.of_double::<unsafe extern "C" fn() -> u64>(name).map_or(0, |count| unsafe { count() })
    }
}

impl Gpu {
    /// Sets a number of the double's scenario; false where there is none of that name, as on a real device.
    pub fn set(&self, name: &CStr, value: u64) -> bool {
        type Set = unsafe extern "C" fn(*const c_char, u64) -> c_int;
        // SAFETY: a name that ends with a zero.
        self.of_double::<Set>(c"pvera_double_set").is_some_and(|set| unsafe { set(name.as_ptr(), value) } == 0)
    }

    /// The same for a test that has nothing to do without it, which it says where tests' output is not hidden.
    #[track_caller]
    pub fn set_or_skip(&self, name: &CStr, value: u64) -> bool {
        let is_set = self.set(name, value);
        if !is_set {
            let (place, name) = (std::panic::Location::caller(), name.to_string_lossy());
            let said = format!("skipped at {place}: this libcuda has no {name}\n");
            std::io::stderr().write_all(said.as_bytes()).unwrap();
        }
        is_set
    }
}

impl Memory for Gpu {
    fn upload(&self, bytes: &[u8]) -> u64 {
        let mut address = 0;
        self.inside(|| {
            call!(self, "cuMemAlloc_v2"(&raw mut address, bytes.len().max(1)) as fn(*mut u64, usize));
            call!(
                self,
                "cuMemcpyHtoD_v2"(address, bytes.as_ptr().cast(), bytes.len()) as fn(u64, *const c_void, usize)
            );
        });
        address
    }

    fn download(&self, address: u64, bytes: &mut [u8]) {
        self.wait();
        self.inside(|| {
            call!(
                self,
                "cuMemcpyDtoH_v2"(bytes.as_mut_ptr().cast(), address, bytes.len()) as fn(*mut c_void, u64, usize)
            );
        });
    }

    fn release(&self, address: u64) {
        self.wait();
        self.inside(|| call!(self, "cuMemFree_v2"(address) as fn(u64)));
    }
}

impl Drop for Gpu {
    fn drop(&mut self) {
        self.inside(|| call!(self, "cuStreamDestroy_v2"(self.stream) as fn(Handle)));
        call!(self, "cuDevicePrimaryCtxRelease_v2"(0) as fn(c_int));
    }
}
