//! `pvera_context`: where work runs. And what a host gives the library: memory, threads, callbacks.

use std::ffi::{CString, c_char, c_void};

use super::error::pvera_error;
use super::guard;
use super::handle::{self, borrow, output};
use super::input::{self, Sized_};
use super::matrix::pvera_device;
use crate::backend::cpu::ParallelFor;
#[cfg(feature = "cuda")]
use crate::backend::cuda;
use crate::context::{Context, Kind};
use crate::error::{Result, legible};
use crate::fail;
use crate::memory::{Allocator, HostAllocator};
use crate::model::{Listener, Silent};
use crate::simd::Features;

/// f32 kernels on the CPU; the default.
pub const PVERA_BACKEND_CPU: i32 = 0;
/// Plain f64 code that reads like the method; for checking, not for speed.
pub const PVERA_BACKEND_REFERENCE: i32 = 1;
/// A CUDA stream: every matrix of a call lies on its device, and work is queued, not waited for. See `pvera_context_new`.
pub const PVERA_BACKEND_CUDA: i32 = 2;

/// CPU features that kernels are chosen by, as bits: AVX2 with FMA and F16C.
pub const PVERA_CPU_AVX2: u32 = 1;
/// AVX-512 F, BW, DQ and VL; on top of AVX2.
pub const PVERA_CPU_AVX512: u32 = 2;
/// AVX-512 BF16; on top of AVX512.
pub const PVERA_CPU_AVX512_BF16: u32 = 4;
/// Advanced SIMD of 64-bit Arm.
pub const PVERA_CPU_NEON: u32 = 8;

/// Products in f32, whatever the storage; the default. The same bits on every CPU.
pub const PVERA_PRODUCTS_F32: i32 = 0;
/// Where x (or dy) and the base weight are both bf16, their product is made in bf16 arithmetic: twice as fast where the CPU
/// has it, emulated where not. For pairs of k, odd then even, each a fused multiply-add into f32, subnormals flushed to
/// zero. The same bits on x86-64 and 64-bit Arm; elsewhere they may differ where a result is next to a subnormal.
pub const PVERA_PRODUCTS_BF16: i32 = 1;

/// The host's memory, for everything whose size depends on shapes and files. All zero: the process's allocator.
///
/// `allocate` returns `size` bytes aligned to `alignment` (a power of two), or NULL when there are none; `release` gets
/// the same size and alignment back. Both may be called from any thread that uses the object.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct pvera_allocator {
    /// NULL: there is no memory.
    pub allocate: Option<unsafe extern "C" fn(user: *mut c_void, size: usize, alignment: usize) -> *mut c_void>,
    /// Never called with a NULL memory.
    pub release: Option<unsafe extern "C" fn(user: *mut c_void, memory: *mut c_void, size: usize, alignment: usize)>,
    /// Given to both.
    pub user: *mut c_void,
}

impl pvera_allocator {
    pub(super) fn checked(&self, name: &str) -> Result<Allocator> {
        match (self.allocate, self.release) {
            (None, None) => Ok(Allocator::default()),
            (Some(allocate), Some(release)) => {
                Ok(Allocator::host(HostAllocator { allocate, release, user: self.user }))
            }
            _ => fail!(Null, "{name}: one of allocate and release is NULL; wanted both, or neither"),
        }
    }
}

/// How the library speaks to its host. Any of them may be NULL. They are called on the thread that called the library.
///
/// `warning` gets a sentence about something odd that is not an error. `progress` is called every million values or so while
/// projections are drawn from a key; a result other than 0 stops that with `PVERA_ERROR_CANCELLED`. The texts live as long as
/// the callback runs. Callbacks run in the library's rounding mode.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct pvera_callbacks {
    /// Something odd that is not an error.
    pub warning: Option<unsafe extern "C" fn(user: *mut c_void, message: *const c_char)>,
    /// How far a long piece of work is; other than 0 stops it.
    pub progress: Option<unsafe extern "C" fn(user: *mut c_void, stage: *const c_char, done: u64, total: u64) -> i32>,
    /// Given to both.
    pub user: *mut c_void,
}

// SAFETY: the host promises that its callbacks work from any thread that calls the library.
unsafe impl Send for pvera_callbacks {}
// SAFETY: as above.
unsafe impl Sync for pvera_callbacks {}

impl pvera_callbacks {
    pub(super) fn listener(self) -> Box<dyn Listener> {
        if self.warning.is_none() && self.progress.is_none() { Box::new(Silent) } else { Box::new(self) }
    }
}

impl Listener for pvera_callbacks {
    fn warning(&self, message: &str) {
        if let (Some(warning), Ok(message)) = (self.warning, CString::new(legible(message.into()).as_ref())) {
            // SAFETY: the host's promise.
            unsafe { warning(self.user, message.as_ptr()) };
        }
    }

    fn progress(&self, stage: &str, done: u64, total: u64) -> bool {
        match (self.progress, CString::new(stage)) {
            // SAFETY: the host's promise.
            (Some(progress), Ok(stage)) => unsafe { progress(self.user, stage.as_ptr(), done, total) == 0 },
            _ => true,
        }
    }
}

/// One task of a parallel-for: to be called once for each index below the count.
pub type pvera_task = Option<unsafe extern "C" fn(task: *mut c_void, index: usize)>;

/// The host's own parallel-for: calls `run(task, index)` once for each index below `count`, on threads of its choice, and
/// returns when all have returned.
pub type pvera_parallel_for =
    Option<unsafe extern "C" fn(user: *mut c_void, count: usize, run: pvera_task, task: *mut c_void)>;

/// How a context works. Zero is the default: the CPU, on the calling thread alone.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct pvera_context_options {
    /// sizeof(pvera_context_options).
    pub struct_size: usize,
    /// `PVERA_BACKEND_…`.
    pub backend: i32,
    /// Threads of the context's own, beside the calling one, at most 1024; they sleep between calls. With a parallel_for: how many tasks
    /// it gets at a time, less one.
    pub threads: u32,
    /// The host's threads instead.
    pub parallel_for: pvera_parallel_for,
    /// Given to parallel_for.
    pub parallel_for_user: *mut c_void,
    /// For scratch memory.
    pub allocator: pvera_allocator,
    /// For CUDA alone: which device, `{PVERA_DEVICE_CUDA, ordinal}`; zero: that of the stream, or device 0.
    pub device: pvera_device,
    /// For CUDA alone: a CUstream (or cudaStream_t), which outlives the context. NULL: the legacy default stream of the
    /// device's primary context, which is the one that CUDA's runtime uses.
    pub stream: *mut c_void,
    /// `PVERA_CPU_…` bits that are not to be used though the machine has them; a feature falls with those that it builds on.
    /// The results are the same. Bits that are none of these are of features that are not used anyway.
    pub cpu_features_off: u32,
    /// `PVERA_PRODUCTS_…`.
    pub products: i32,
}

// SAFETY: integers, pointers and optional functions; the size comes first.
unsafe impl Sized_ for pvera_context_options {
    const NAME: &'static str = "options";
}

/// Where work runs: a backend, its threads, its scratch memory.
///
/// Calls on one context from several threads at a time are allowed, and each borrows scratch of its own; threads of the
/// context's own serve one call after the other. The results have the same bits whatever the threads.
pub struct pvera_context(pub(super) Context);

/// Most threads that a context may have of its own.
const MOST_THREADS: u32 = 1024;

/// A context. `options` may be NULL.
///
/// **CUDA.** With `PVERA_BACKEND_CUDA` the calls of the context are queued on `options.stream` and return before the work is
/// done; none waits. All their matrices, base weights and parameters lie on the stream's device (PVERA_ERROR_DEVICE names
/// what does not); so do the vectors of `pvera_slot_gradients` and `kl_value`. Stores and published adapters are the host's:
/// their copy on the device is made when a call first uses them, which waits once, and goes in the order of the streams that
/// used it. In f32 the results have the CPU's bits. What kernels find wrong is told by `pvera_context_check`. A call made
/// before at its size allocates nothing, so that it can be captured in a CUDA graph. A graph has the number of rows, the
/// layers and all that the host gave as they were at the capture; what lies in device memory is read at each replay. The
/// context, its stores, adapters and tapes outlive the graph; a tape that was captured neither grows nor moves to another
/// context. What is freed during a capture goes with the next call after it; no other thread may begin to capture the stream while
/// something is freed that it used. Parameters on the device are saved before or after a capture (else PVERA_ERROR_STATE).
/// Of device memory only the device is checked that it is said to be on: neither addresses and lengths nor what is in it.
/// `pvera_scratch_bytes` foretells the device memory that it holds between calls, beside what a captured graph uses. The
/// thread's current CUDA context is left as it was. Calls and replays share one workspace: they are on one stream, or the
/// host orders them.
///
/// Making one needs the driver of CUDA 12.1 or newer and compute capability 7.5. The first in a CUDA context compiles the
/// kernels (the driver keeps them on disk) and compares layers of known answers with the CPU: a device that differs is
/// refused (PVERA_ERROR_CUDA). Without a driver or a device, or with an older one: PVERA_ERROR_UNSUPPORTED. Merges, parts,
/// first-order variance and VeRA adapters are the CPU's alone (PVERA_ERROR_UNSUPPORTED).
///
/// # Safety
/// `options` is NULL or sized options; `context` is a place for the result.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_context_new(
    options: *const pvera_context_options,
    context: *mut *mut pvera_context,
) -> *mut pvera_error {
    guard(|| {
        // SAFETY: the caller's promise.
        let (options, out) = unsafe { (input::sized(options)?, output("context", context)?) };
        let kind = match options.backend {
            PVERA_BACKEND_CPU => Kind::Cpu,
            PVERA_BACKEND_REFERENCE => Kind::Reference,
            PVERA_BACKEND_CUDA => {
                // SAFETY: the caller's promise.
                let context = unsafe { on_cuda(&options)? };
                out.write(handle::give(pvera_context(context))?);
                return Ok(());
            }
            other => {
                fail!(Argument, "options.backend is {other}; wanted PVERA_BACKEND_CPU (0), REFERENCE (1) or CUDA (2)")
            }
        };
        if !options.stream.is_null() {
            fail!(
                Argument,
                "options.stream is {:p} and options.backend {}; wanted PVERA_BACKEND_CUDA (2), or no stream",
                options.stream,
                options.backend
            );
        }
        let (kind_of_device, id) = (options.device.r#type, options.device.id);
        if !matches!((kind_of_device, id), (0 | super::matrix::PVERA_DEVICE_CPU, 0)) {
            fail!(
                Argument,
                "options.device is {{{kind_of_device}, {id}}} and options.backend {}; wanted PVERA_BACKEND_CUDA (2), or {{0, 0}}",
                options.backend
            );
        }
        if options.threads > MOST_THREADS {
            fail!(Argument, "options.threads is {}; wanted at most {MOST_THREADS}", options.threads);
        }
        let host = options.parallel_for.map(|call| ParallelFor { call, user: options.parallel_for_user });
        let allocator = options.allocator.checked("options.allocator")?;
        let mut own = Context::new(kind, options.threads as usize, host, allocator)?;
        own = own.without(Features(options.cpu_features_off));
        match options.products {
            PVERA_PRODUCTS_F32 => {}
            PVERA_PRODUCTS_BF16 => own = own.with_bf16_products(),
            other => {
                fail!(Argument, "options.products is {other}; wanted PVERA_PRODUCTS_F32 (0) or PVERA_PRODUCTS_BF16 (1)")
            }
        }
        out.write(handle::give(pvera_context(own))?);
        Ok(())
    })
}

/// # Safety
/// The stream is NULL or lives, and outlives the context.
unsafe fn on_cuda(options: &pvera_context_options) -> Result<Context> {
    let ordinal = match (options.device.r#type, options.device.id) {
        (0, 0) => None,
        (super::matrix::PVERA_DEVICE_CUDA, id) => Some(id),
        (r#type, id) => fail!(Argument, "options.device is {{{type}, {id}}}; wanted {{2, ordinal}} or {{0, 0}}"),
    };
    if options.threads != 0 {
        fail!(Argument, "options.threads is {}; a CUDA context has its stream: wanted 0", options.threads);
    }
    if options.parallel_for.is_some() {
        fail!(Argument, "options.parallel_for is set; a CUDA context has its stream: wanted NULL");
    }
    if options.products != PVERA_PRODUCTS_F32 {
        fail!(
            Unsupported,
            "options.products is {}; CUDA kernels compute in f32: wanted PVERA_PRODUCTS_F32 (0)",
            options.products
        );
    }
    let allocator = options.allocator.checked("options.allocator")?;
    #[cfg(feature = "cuda")]
    {
        // SAFETY: the caller's promise.
        let device = unsafe { cuda::Device::new(ordinal, options.stream)? };
        Context::on_cuda(std::sync::Arc::new(device), allocator)
    }
    #[cfg(not(feature = "cuda"))]
    {
        let _ = (ordinal, allocator);
        fail!(Unsupported, "options.backend is 2, CUDA; this library was built without it (PVERA_CUDA=OFF)")
    }
}

/// An error that kernels found while they ran: exp(½ logvar) or exp(logvar) that does not fit (PVERA_ERROR_OVERFLOW), a bad
/// slot in device memory (PVERA_ERROR_NOT_FOUND), a failed launch (PVERA_ERROR_CUDA). The first since the last check, which
/// forgets it. Waits for the context's stream. On a CPU context there is never one: its calls return their errors.
///
/// # Safety
/// `context` is a context.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_context_check(context: *const pvera_context) -> *mut pvera_error {
    guard(|| {
        // SAFETY: the caller's promise.
        unsafe { borrow("context", context)? }.0.check()
    })
}

/// The `PVERA_CPU_…` features of this machine that this build has kernels for.
///
/// # Safety
/// `features` is a place for the result.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_cpu_features(features: *mut u32) -> *mut pvera_error {
    guard(|| {
        // SAFETY: the caller's promise.
        unsafe { output("features", features)? }.write(Features::detected().0);
        Ok(())
    })
}

/// The `PVERA_CPU_…` features that a context's kernels use.
///
/// # Safety
/// `context` is a context; `features` is a place for the result.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_context_cpu_features(
    context: *const pvera_context,
    features: *mut u32,
) -> *mut pvera_error {
    guard(|| {
        // SAFETY: the caller's promise.
        let (context, out) = unsafe { (borrow("context", context)?, output("features", features)?) };
        out.write(context.0.features().0);
        Ok(())
    })
}

/// Bytes of scratch memory that the context holds between calls. Of a CUDA context: of device memory; its lists on the
/// host, a few KiB, are not counted.
///
/// # Safety
/// `context` is a context; `bytes` is a place for the result.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_context_scratch_bytes(
    context: *const pvera_context,
    bytes: *mut usize,
) -> *mut pvera_error {
    guard(|| {
        // SAFETY: the caller's promise.
        let (context, out) = unsafe { (borrow("context", context)?, output("bytes", bytes)?) };
        out.write(context.0.scratch_bytes());
        Ok(())
    })
}

/// Frees a context, its threads and its scratch; NULL is nothing. No call may be running on it. A CUDA context waits for its
/// stream, which is not being captured and may go afterwards; tapes and parameters on its device may be freed later, while the CUDA context itself is
/// there.
///
/// # Safety
/// `context` is NULL or an owned context, not used again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_context_free(context: *mut pvera_context) {
    // SAFETY: the caller's promise.
    super::guard::guard_free(|| unsafe {
        #[cfg(feature = "cuda")]
        if let Some(device) = context.as_ref().and_then(|context| context.0.cuda()) {
            device.close();
        }
        handle::take(context);
    });
}
