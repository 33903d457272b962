//! libcuda, looked for at run time, behind signatures that take whatever code a driver returns.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::fmt::Display;
use std::sync::{Mutex, OnceLock};

use cudarc::driver::sys;

use crate::backend::lock::lock;
use crate::error::{Code, Error, Result};
use crate::fail;

/// A device address.
pub type Address = u64;

/// Handles that libcuda gives out. What is behind them is its own.
pub type Context = *mut c_void;
pub type Stream = *mut c_void;
pub type Module = *mut c_void;
pub type Function = *mut c_void;
pub type Event = *mut c_void;

/// The oldest driver that reads the embedded PTX: that of CUDA 12.1, for PTX 8.1.
const OLDEST_DRIVER: c_int = 12_010;

const SUCCESS: c_int = 0;
const OUT_OF_MEMORY: c_int = 2;
const NO_DEVICE: c_int = 100;
const STUB_LIBRARY: c_int = 34;
const INVALID_CONTEXT: c_int = 201;

/// `CU_STREAM_LEGACY`.
const LEGACY: usize = 1;

/// `CUstreamCaptureStatus`: no capture is under way.
const CAPTURE_NONE: c_int = 0;
/// `CU_STREAM_CAPTURE_MODE_RELAXED`.
const CAPTURE_RELAXED: c_int = 2;

/// `CU_STREAM_NON_BLOCKING`.
pub const NON_BLOCKING: c_uint = 1;
/// `CU_EVENT_DISABLE_TIMING`.
const WITHOUT_TIMING: c_uint = 2;
/// `CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR` and `_MINOR`.
const CAPABILITY: [c_int; 2] = [75, 76];
/// `CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED`.
const MEMORY_POOLS: c_int = 115;

/// Declares the functions that are looked up, and a table of them. A missing one is an error that names it.
macro_rules! functions {
    ($($name:ident = $symbol:literal ($($argument:ty),*);)+) => {
        /// What is used of libcuda. Codes are plain integers: a driver may know more than any list of them.
        pub struct Driver {
            $($name: unsafe extern "C" fn($($argument),*) -> c_int,)+
        }

        impl Driver {
            /// # Safety
            /// The library is a libcuda.
            unsafe fn load(library: &'static libloading::Library) -> Result<Self> {
                Ok(Self {
                    $($name: {
                        // SAFETY: the signature is that of the driver's documentation.
                        match unsafe { library.get::<unsafe extern "C" fn($($argument),*) -> c_int>($symbol.as_bytes()) } {
                            Ok(symbol) => *symbol,
                            Err(_) => fail!(
                                Unsupported,
                                "libcuda has no {}; wanted the driver of CUDA 12.1 or newer",
                                $symbol
                            ),
                        }
                    },)+
                })
            }
        }
    };
}

functions! {
    init = "cuInit" (c_uint);
    driver_version = "cuDriverGetVersion" (*mut c_int);
    error_name = "cuGetErrorName" (c_int, *mut *const c_char);
    error_text = "cuGetErrorString" (c_int, *mut *const c_char);
    device_get = "cuDeviceGet" (*mut c_int, c_int);
    device_count = "cuDeviceGetCount" (*mut c_int);
    device_attribute = "cuDeviceGetAttribute" (*mut c_int, c_int, c_int);
    primary_retain = "cuDevicePrimaryCtxRetain" (*mut Context, c_int);
    primary_release = "cuDevicePrimaryCtxRelease_v2" (c_int);
    context_push = "cuCtxPushCurrent_v2" (Context);
    context_pop = "cuCtxPopCurrent_v2" (*mut Context);
    context_device = "cuCtxGetDevice" (*mut c_int);
    context_id = "cuCtxGetId" (Context, *mut u64);
    stream_context = "cuStreamGetCtx" (Stream, *mut Context);
    stream_capturing = "cuStreamIsCapturing" (Stream, *mut c_int);
    exchange_mode = "cuThreadExchangeStreamCaptureMode" (*mut c_int);
    stream_create = "cuStreamCreate" (*mut Stream, c_uint);
    stream_destroy = "cuStreamDestroy_v2" (Stream);
    stream_synchronize = "cuStreamSynchronize" (Stream);
    stream_wait = "cuStreamWaitEvent" (Stream, Event, c_uint);
    event_create = "cuEventCreate" (*mut Event, c_uint);
    event_record = "cuEventRecord" (Event, Stream);
    event_destroy = "cuEventDestroy_v2" (Event);
    module_load = "cuModuleLoadData" (*mut Module, *const c_void);
    module_unload = "cuModuleUnload" (Module);
    module_function = "cuModuleGetFunction" (*mut Function, Module, *const c_char);
    launch = "cuLaunchKernel" (Function, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, Stream, *mut *mut c_void, *mut *mut c_void);
    allocate = "cuMemAllocAsync" (*mut Address, usize, Stream);
    release = "cuMemFreeAsync" (Address, Stream);
    copy_to_device = "cuMemcpyHtoDAsync_v2" (Address, *const c_void, usize, Stream);
    copy_to_host = "cuMemcpyDtoHAsync_v2" (*mut c_void, Address, usize, Stream);
    copy_on_device = "cuMemcpyDtoDAsync_v2" (Address, Address, usize, Stream);
    fill_words = "cuMemsetD32Async" (Address, c_uint, usize, Stream);
}

impl std::fmt::Debug for Driver {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Driver")
    }
}

/// The driver of this process, or why there is none.
pub fn driver() -> Result<&'static Driver> {
    static DRIVER: OnceLock<Driver> = OnceLock::new();
    static OPENING: Mutex<()> = Mutex::new(());
    if let Some(driver) = DRIVER.get() {
        return Ok(driver);
    }
    // A failure is not remembered: a driver that was not ready may be later.
    let _turn = lock(&OPENING);
    match DRIVER.get() {
        Some(driver) => Ok(driver),
        None => open().map(|driver| DRIVER.get_or_init(|| driver)),
    }
}

/// Whether the program has no dynamic loader: in one that was linked with `-static`, a library that uses the C library crashes.
#[cfg(target_os = "linux")]
fn is_static_program() -> bool {
    unsafe extern "C" fn of_program(info: *mut libc::dl_phdr_info, _: usize, has_loader: *mut c_void) -> c_int {
        // SAFETY: the loader lends a list of that many headers; the last is the place that is given below.
        unsafe {
            let headers = std::slice::from_raw_parts((*info).dlpi_phdr, (*info).dlpi_phnum.into());
            *has_loader.cast::<bool>() = headers.iter().any(|header| header.p_type == libc::PT_INTERP);
        }
        1 // the program is the first, and the only one that matters
    }
    let mut has_loader = true;
    // SAFETY: the function gets a place that outlives the call.
    unsafe { libc::dl_iterate_phdr(Some(of_program), (&raw mut has_loader).cast()) };
    !has_loader
}

#[cfg(not(target_os = "linux"))]
fn is_static_program() -> bool {
    false
}

fn open() -> Result<Driver> {
    if is_static_program() {
        fail!(
            Unsupported,
            "this program is linked statically (-static), and cannot load libcuda; link the C library dynamically, or use PVERA_BACKEND_CPU"
        );
    }
    // SAFETY: loading libcuda runs its initialisers, as any program that uses CUDA does.
    if !unsafe { sys::is_culib_present() } {
        fail!(Unsupported, "libcuda was not found: no NVIDIA driver is installed here; use PVERA_BACKEND_CPU");
    }
    // SAFETY: it is present; its functions have the signatures above.
    let driver = unsafe { Driver::load(sys::culib())? };
    // SAFETY: no flags are defined.
    match unsafe { (driver.init)(0) } {
        SUCCESS => {}
        NO_DEVICE => fail!(Unsupported, "this machine has no CUDA device; use PVERA_BACKEND_CPU"),
        STUB_LIBRARY => fail!(
            Unsupported,
            "the libcuda that was found is a stub for linking, from a CUDA toolkit; put the driver's own before it in the library path"
        ),
        code => return Err(driver.error("cuInit", code)),
    }
    let mut version = 0;
    // SAFETY: a place for the result.
    driver.check("cuDriverGetVersion", unsafe { (driver.driver_version)(&raw mut version) })?;
    if version < OLDEST_DRIVER {
        fail!(
            Unsupported,
            "the NVIDIA driver is that of CUDA {}.{}; wanted 12.1 or newer",
            version / 1000,
            version % 1000 / 10
        );
    }
    Ok(driver)
}

impl Driver {
    pub fn check(&self, call: &str, code: c_int) -> Result<()> {
        if code == SUCCESS { Ok(()) } else { Err(self.error(call, code)) }
    }

    #[cold]
    fn error(&self, call: &str, code: c_int) -> Error {
        let text = |ask: unsafe extern "C" fn(c_int, *mut *const c_char) -> c_int| {
            let mut text = std::ptr::null();
            // SAFETY: a place for the result; texts are static.
            let known = unsafe { ask(code, &raw mut text) } == SUCCESS && !text.is_null();
            // SAFETY: libcuda's texts end with a zero.
            known.then(|| unsafe { CStr::from_ptr(text) }.to_string_lossy())
        };
        let name = text(self.error_name).unwrap_or("an unknown code".into());
        let said = text(self.error_text).map_or(String::new(), |said| format!(": {said}"));
        let kind = if code == OUT_OF_MEMORY { Code::Memory } else { Code::Cuda };
        Error::new(kind, format!("{call} returned {code}, {name}{said}"))
    }
}

/// The calls, each checked. `self` is whose driver it is; a context must be current where CUDA wants one.
impl Driver {
    pub fn device(&self, ordinal: i32) -> Result<c_int> {
        let mut count = 0;
        // SAFETY: a place for the result.
        self.check("cuDeviceGetCount", unsafe { (self.device_count)(&raw mut count) })?;
        if !(0..count).contains(&ordinal) {
            fail!(Argument, "options.device.id is {ordinal}; this machine has {count} CUDA devices, numbered from 0");
        }
        let mut device = 0;
        // SAFETY: as above.
        self.check("cuDeviceGet", unsafe { (self.device_get)(&raw mut device, ordinal) })?;
        Ok(device)
    }

    pub fn retain_primary(&self, device: c_int) -> Result<Context> {
        let mut context = std::ptr::null_mut();
        // SAFETY: a place for the result.
        self.check("cuDevicePrimaryCtxRetain", unsafe { (self.primary_retain)(&raw mut context, device) })?;
        Ok(context)
    }

    pub fn release_primary(&self, device: c_int) {
        // SAFETY: retained by us. There is nobody to tell of a failure.
        unsafe { (self.primary_release)(device) };
    }

    /// # Safety
    /// `stream` is a live stream.
    pub unsafe fn context_of(&self, stream: Stream) -> Result<Context> {
        let mut context = std::ptr::null_mut();
        // SAFETY: the caller's promise.
        match unsafe { (self.stream_context)(stream, &raw mut context) } {
            INVALID_CONTEXT if stream.addr() == LEGACY => fail!(
                Argument,
                "options.stream is cudaStreamLegacy, and no CUDA context is current on this thread; wanted NULL, which is that stream of options.device"
            ),
            code => self.check("cuStreamGetCtx", code)?,
        }
        Ok(context)
    }

    pub fn id_of(&self, context: Context) -> Result<u64> {
        let mut id = 0;
        // SAFETY: a live context, a place for the result.
        self.check("cuCtxGetId", unsafe { (self.context_id)(context, &raw mut id) })?;
        Ok(id)
    }

    pub fn current_device(&self) -> Result<c_int> {
        let mut device = 0;
        // SAFETY: a place for the result.
        self.check("cuCtxGetDevice", unsafe { (self.context_device)(&raw mut device) })?;
        Ok(device)
    }

    pub fn has_memory_pools(&self, device: c_int) -> Result<bool> {
        Ok(self.attribute(MEMORY_POOLS, device)? != 0)
    }

    /// The compute capability: (7, 5) of 7.5.
    pub fn capability(&self, device: c_int) -> Result<(c_int, c_int)> {
        let [major, minor] = CAPABILITY;
        Ok((self.attribute(major, device)?, self.attribute(minor, device)?))
    }

    fn attribute(&self, attribute: c_int, device: c_int) -> Result<c_int> {
        let mut value = 0;
        // SAFETY: a place for the result.
        let code = unsafe { (self.device_attribute)(&raw mut value, attribute, device) };
        self.check("cuDeviceGetAttribute", code)?;
        Ok(value)
    }

    /// Makes a context current until the result is dropped; then the one before is again. Meanwhile the thread is relaxed.
    pub fn enter(&'static self, context: Context) -> Result<Entered> {
        // SAFETY: a live context.
        self.check("cuCtxPushCurrent", unsafe { (self.context_push)(context) })?;
        Ok(Entered { driver: self, _relaxed: self.relax() })
    }

    /// Lets this thread allocate, free, wait and unload while other streams are captured, until the result is dropped. Without
    /// this a capture in the global mode, the usual one, on any thread, is ruined by them.
    pub fn relax(&'static self) -> Relaxed {
        let mut mode = CAPTURE_RELAXED;
        // SAFETY: a mode, in the place of which the one before is put.
        let before = unsafe { (self.exchange_mode)(&raw mut mode) == SUCCESS }.then_some(mode);
        Relaxed { driver: self, before }
    }

    pub fn is_capturing(&self, stream: Stream) -> Result<bool> {
        let mut status = CAPTURE_NONE;
        // SAFETY: a live stream, a place for the result.
        self.check("cuStreamIsCapturing", unsafe { (self.stream_capturing)(stream, &raw mut status) })?;
        Ok(status != CAPTURE_NONE)
    }

    pub fn new_stream(&self) -> Result<Stream> {
        let mut stream = std::ptr::null_mut();
        // SAFETY: a place for the result.
        self.check("cuStreamCreate", unsafe { (self.stream_create)(&raw mut stream, NON_BLOCKING) })?;
        Ok(stream)
    }

    pub fn destroy_stream(&self, stream: Stream) {
        // SAFETY: a stream of ours. Its queued work still runs.
        unsafe { (self.stream_destroy)(stream) };
    }

    pub fn wait_for(&self, stream: Stream) -> Result<()> {
        // SAFETY: a live stream.
        self.check("cuStreamSynchronize", unsafe { (self.stream_synchronize)(stream) })
    }

    pub fn new_event(&self) -> Result<Event> {
        let mut event = std::ptr::null_mut();
        // SAFETY: a place for the result.
        self.check("cuEventCreate", unsafe { (self.event_create)(&raw mut event, WITHOUT_TIMING) })?;
        Ok(event)
    }

    pub fn destroy_event(&self, event: Event) {
        // SAFETY: an event of ours.
        unsafe { (self.event_destroy)(event) };
    }

    /// What `later` is given from now on waits for what `earlier` was given until now.
    pub fn order(&self, earlier: Stream, event: Event, later: Stream) -> Result<()> {
        // SAFETY: live streams and an event of ours.
        unsafe {
            self.check("cuEventRecord", (self.event_record)(event, earlier))?;
            self.check("cuStreamWaitEvent", (self.stream_wait)(later, event, 0))
        }
    }

    pub fn load_module(&self, ptx: &CStr) -> Result<Module> {
        let mut module = std::ptr::null_mut();
        // SAFETY: a text that ends with a zero, a place for the result.
        let code = unsafe { (self.module_load)(&raw mut module, ptx.as_ptr().cast()) };
        self.check("cuModuleLoadData", code)?;
        Ok(module)
    }

    pub fn unload_module(&self, module: Module) -> Result<()> {
        // SAFETY: a module of ours.
        self.check("cuModuleUnload", unsafe { (self.module_unload)(module) })
    }

    pub fn function(&self, module: Module, name: &CStr) -> Result<Function> {
        let mut function = std::ptr::null_mut();
        // SAFETY: a live module, a text, a place for the result.
        let code = unsafe { (self.module_function)(&raw mut function, module, name.as_ptr()) };
        self.check("cuModuleGetFunction", code)?;
        Ok(function)
    }

    /// Queues a kernel whose one argument is a struct.
    ///
    /// # Safety
    /// The kernel takes a `T`, and what it points to stays until the kernel has run.
    pub unsafe fn launch<T: Copy>(
        &self,
        (name, function): (impl Display, Function),
        grid: [u32; 3],
        block: u32,
        stream: Stream,
        arguments: &T,
    ) -> Result<()> {
        let mut pointers = [std::ptr::from_ref(arguments).cast_mut().cast::<c_void>()];
        let [x, y, z] = grid;
        // SAFETY: the caller's promise; libcuda copies the argument.
        let code = unsafe {
            (self.launch)(function, x, y, z, block, 1, 1, 0, stream, pointers.as_mut_ptr(), std::ptr::null_mut())
        };
        self.check("cuLaunchKernel", code).map_err(|error| error.within(format_args!("kernel {name}")))
    }

    /// Memory that exists from this place of the stream on.
    pub fn allocate(&self, bytes: usize, stream: Stream) -> Result<Address> {
        let mut address = 0;
        // SAFETY: a place for the result, a live stream.
        let code = unsafe { (self.allocate)(&raw mut address, bytes, stream) };
        self.check("cuMemAllocAsync", code)
            .map_err(|error| Error::new(error.code(), format!("{bytes} bytes of device memory: {error}")))?;
        Ok(address)
    }

    /// # Safety
    /// Nothing uses the memory after this place of the stream.
    pub unsafe fn release(&self, address: Address, stream: Stream) -> Result<()> {
        // SAFETY: the caller's promise.
        self.check("cuMemFreeAsync", unsafe { (self.release)(address, stream) })
    }

    /// # Safety
    /// The address has these bytes.
    pub unsafe fn copy_to_device(&self, to: Address, from: &[u8], stream: Stream) -> Result<()> {
        // SAFETY: the caller's promise.
        let code = unsafe { (self.copy_to_device)(to, from.as_ptr().cast(), from.len(), stream) };
        self.check("cuMemcpyHtoDAsync", code)
    }

    /// # Safety
    /// The address has these bytes; `to` is not used before the stream was waited for.
    pub unsafe fn copy_to_host(&self, to: &mut [u8], from: Address, stream: Stream) -> Result<()> {
        // SAFETY: the caller's promise.
        let code = unsafe { (self.copy_to_host)(to.as_mut_ptr().cast(), from, to.len(), stream) };
        self.check("cuMemcpyDtoHAsync", code)
    }

    /// # Safety
    /// Both have these bytes, and do not meet.
    pub unsafe fn copy_on_device(&self, to: Address, from: Address, bytes: usize, stream: Stream) -> Result<()> {
        // SAFETY: the caller's promise.
        self.check("cuMemcpyDtoDAsync", unsafe { (self.copy_on_device)(to, from, bytes, stream) })
    }

    /// Zeroes `words` words of 32 bits.
    ///
    /// # Safety
    /// The address has them.
    pub unsafe fn zero(&self, address: Address, words: usize, stream: Stream) -> Result<()> {
        // SAFETY: the caller's promise.
        self.check("cuMemsetD32Async", unsafe { (self.fill_words)(address, 0, words, stream) })
    }
}

/// While it lives, a context is current on this thread.
#[derive(Debug)]
pub struct Entered {
    driver: &'static Driver,
    _relaxed: Relaxed,
}

impl Drop for Entered {
    fn drop(&mut self) {
        let mut popped = std::ptr::null_mut();
        // SAFETY: pushed by `enter` on this thread. There is nobody to tell of a failure.
        unsafe { (self.driver.context_pop)(&raw mut popped) };
    }
}

/// While it lives, this thread may do what captures of other streams would not allow to it.
#[derive(Debug)]
pub struct Relaxed {
    driver: &'static Driver,
    /// The mode to go back to, where it was changed.
    before: Option<c_int>,
}

impl Drop for Relaxed {
    fn drop(&mut self) {
        if let Some(mut mode) = self.before {
            // SAFETY: a mode of this thread's. There is nobody to tell of a failure.
            unsafe { (self.driver.exchange_mode)(&raw mut mode) };
        }
    }
}
