//! One CUDA stream with everything that work on it needs: kernels, a workspace, a place for faults.

use std::sync::{Arc, Mutex};

use super::arguments::Fault;
use super::driver::{self, Address, Driver, Entered, Function, Stream, driver};
use super::residents::{House, Primary, User};
use super::turn::Turn;
use super::workspace::Workspace;
use crate::backend::lock::lock;
use crate::error::Result;
use crate::fail;
use crate::tensor;

/// What the embedded PTX is compiled for.
const OLDEST_CAPABILITY: (i32, i32) = (7, 5);

/// CU_STREAM_PER_THREAD.
const PER_THREAD: usize = 2;

/// Where a CUDA context of the library works. Calls take turns.
#[derive(Debug)]
pub struct Device {
    pub(super) driver: &'static Driver,
    context: driver::Context,
    ordinal: i32,
    pub(super) stream: Stream,
    /// The house's.
    pub(super) functions: Vec<Function>,
    /// A `Fault` in device memory.
    pub(super) fault: Address,
    pub(super) user: Arc<User>,
    pub(super) house: Arc<House>,
    workspace: Mutex<Workspace>,
    /// Memory nobody needs any more, that could not be given back while the stream was being captured.
    waiting: Mutex<Vec<Address>>,
    /// Set when its stream may be gone.
    closed: Mutex<bool>,
    /// Released when all the above is gone.
    _primary: Option<Arc<Primary>>,
}

// SAFETY: handles of libcuda may be used on any thread; the workspace is behind a lock.
unsafe impl Send for Device {}
// SAFETY: as above.
unsafe impl Sync for Device {}

impl Device {
    /// On the caller's stream, whose context may be any; or, with none, on the default stream of the device's primary context.
    ///
    /// # Safety
    /// `stream` is NULL or a live stream, which outlives the result.
    pub unsafe fn new(ordinal: Option<i32>, stream: Stream) -> Result<Self> {
        let driver = driver()?;
        if stream.is_null() {
            let primary = Primary::retain(driver, driver.device(ordinal.unwrap_or(0))?)?;
            let context = primary.context();
            let entered = driver.enter(context)?;
            return Self::on(driver, context, stream, Some(Arc::new(primary)), entered);
        }
        if stream.addr() == PER_THREAD {
            fail!(
                Argument,
                "options.stream is cudaStreamPerThread, another stream on every thread; wanted one stream, which orders the calls"
            );
        }
        // SAFETY: the caller's promise.
        let context = unsafe { driver.context_of(stream)? };
        let entered = driver.enter(context)?;
        let device = driver.current_device()?;
        if let Some(wanted) = ordinal.filter(|wanted| *wanted != device) {
            fail!(
                Argument,
                "options.device.id is {wanted}, and options.stream belongs to device {device}; wanted a stream of that device, or device {{0, 0}}"
            );
        }
        Self::on(driver, context, stream, None, entered)
    }

    fn on(
        driver: &'static Driver,
        context: driver::Context,
        stream: Stream,
        primary: Option<Arc<Primary>>,
        _entered: Entered,
    ) -> Result<Self> {
        let ordinal = driver.current_device()?;
        let (major, minor) = driver.capability(ordinal)?;
        if (major, minor) < OLDEST_CAPABILITY {
            fail!(Unsupported, "CUDA device {ordinal} has compute capability {major}.{minor}; wanted 7.5 or newer");
        }
        if !driver.has_memory_pools(ordinal)? {
            fail!(
                Unsupported,
                "CUDA device {ordinal} has no stream-ordered memory (cuMemAllocAsync); pvera works in it"
            );
        }
        if driver.is_capturing(stream)? {
            fail!(State, "options.stream is being captured; make the context before");
        }
        let house = House::of(driver, context, primary.clone())?;
        // Held, so that of two streams that begin at once one loads and tests.
        let mut code = house.code()?;
        let functions = code.functions.clone();
        let begun = |stream| -> Result<Self> {
            // From here on a failure is cleaned up by Drop.
            let mut own = Self {
                driver,
                context,
                ordinal,
                stream,
                functions: functions.clone(),
                fault: 0,
                user: User::new(driver, context, stream)?,
                house: house.clone(),
                workspace: Mutex::default(),
                waiting: Mutex::default(),
                closed: Mutex::new(false),
                _primary: primary.clone(),
            };
            own.fault = driver.allocate(size_of::<Fault>(), stream)?;
            // SAFETY: allocated with this size.
            unsafe { driver.zero(own.fault, Fault::WORDS, stream)? };
            Ok(own)
        };
        if !code.is_tested {
            // Not on the caller's stream, whose queued work would have to be waited for.
            super::self_test::run(&begun(house.uploads())?)?;
            code.is_tested = true;
        }
        begun(stream)
    }

    /// Where its matrices lie.
    pub fn place(&self) -> tensor::Device {
        tensor::Device::Cuda(self.ordinal)
    }

    /// Begins a call: the context is current and the workspace this call's, until the turn ends.
    pub fn turn(&self) -> Result<Turn<'_>> {
        let mut workspace = lock(&self.workspace);
        if *lock(&self.closed) {
            fail!(State, "the CUDA context of these calls was freed");
        }
        let entered = self.driver.enter(self.context)?;
        let capturing = self.driver.is_capturing(self.stream)?;
        if !capturing {
            self.house.sweep();
            self.sweep(self.stream);
        }
        workspace.reset(self.driver, self.stream, capturing);
        Ok(Turn::real(self, workspace, capturing, entered))
    }

    /// A turn that queues nothing and only counts what the workspace would hold.
    pub fn dry_turn(&self) -> Turn<'_> {
        Turn::dry(self)
    }

    /// Memory that outlives a call. It exists from this place of the stream on.
    pub fn allocate(&self, bytes: usize) -> Result<Address> {
        let _entered = self.driver.enter(self.context)?;
        self.check_no_capture(self.stream, "device memory for a tape", "run the call once before the capture")?;
        self.driver.allocate(bytes, self.stream)
    }

    /// Writes device memory in stream order, and waits: libcuda may read pageable bytes after its call returned.
    ///
    /// # Safety
    /// The address has these bytes.
    pub unsafe fn write(&self, to: Address, bytes: &[u8]) -> Result<()> {
        let _entered = self.driver.enter(self.context)?;
        self.check_no_capture(self.stream, "a copy of the parameters", "make it before the capture")?;
        // SAFETY: the caller's promise; the wait ends all use of `bytes`.
        unsafe { self.driver.copy_to_device(to, bytes, self.stream)? };
        self.driver.wait_for(self.stream)
    }

    /// Reads device memory in stream order, and waits for it.
    ///
    /// # Safety
    /// The address has these bytes.
    pub unsafe fn read_back(&self, to: &mut [u8], from: Address) -> Result<()> {
        let _entered = self.driver.enter(self.context)?;
        // Held, so that the stream does not go meanwhile.
        let closed = lock(&self.closed);
        let stream = self.late_stream(*closed);
        self.check_no_capture(stream, "the parameters on the device", "call it before or after the capture")?;
        // SAFETY: the caller's promise; the wait ends all use of `to`.
        unsafe { self.driver.copy_to_host(to, from, stream)? };
        self.driver.wait_for(stream)
    }

    /// Gives it back, when the work queued before is done; after a capture, where one is under way.
    pub fn release(&self, address: Address) {
        let Ok(_entered) = self.driver.enter(self.context) else { return };
        // Held, so that the stream does not go meanwhile.
        let closed = lock(&self.closed);
        let stream = self.late_stream(*closed);
        // An error is the legacy stream's, while a stream that it would wait for is captured.
        if !self.driver.is_capturing(stream).unwrap_or(true) {
            // SAFETY: what used it was queued earlier on this stream, or is done.
            let _ = unsafe { self.driver.release(address, stream) };
            return;
        }
        let mut waiting = lock(&self.waiting);
        // Where there is no room for a number, the memory goes with the CUDA context.
        if waiting.try_reserve(1).is_ok() {
            waiting.push(address);
        }
    }

    /// Gives back what waited for the end of a capture. The context is current.
    fn sweep(&self, stream: Stream) {
        for address in lock(&self.waiting).drain(..) {
            // SAFETY: what used it was queued earlier on this stream, or is done.
            let _ = unsafe { self.driver.release(address, stream) };
        }
    }

    /// Bytes of workspace held.
    pub fn workspace_bytes(&self) -> usize {
        lock(&self.workspace).bytes()
    }

    /// The first fault of a kernel since the last time, if there was one. Waits for the stream.
    pub fn take_fault(&self) -> Result<Option<Fault>> {
        let turn = self.turn()?;
        if turn.capturing {
            fail!(State, "the context's stream is being captured; check it after the capture");
        }
        let mut bytes = [0; size_of::<Fault>()];
        // SAFETY: a fault lies there; `bytes` is looked at after the wait.
        unsafe { self.driver.copy_to_host(&mut bytes, self.fault, self.stream)? };
        self.driver.wait_for(self.stream)?;
        let word = |place: usize| u32::from_le_bytes(bytes[4 * place..][..4].try_into().expect("four bytes"));
        if word(1) == 0 {
            return Ok(None);
        }
        // SAFETY: as above.
        unsafe { self.driver.zero(self.fault, Fault::WORDS, self.stream)? };
        Ok(Some(Fault {
            claimed: word(0),
            kind: word(1),
            row: word(2),
            latent: word(3),
            logvar: f32::from_bits(word(4)),
            reserved: 0,
        }))
    }
}

impl Device {
    /// Waits for the stream, which may go afterwards, and gives back what belongs to it.
    pub fn close(&self) {
        let (mut workspace, mut closed) = (lock(&self.workspace), lock(&self.closed));
        if std::mem::replace(&mut *closed, true) {
            return;
        }
        let Ok(_entered) = self.driver.enter(self.context) else { return };
        // There is nobody to tell of a failure.
        let _ = self.driver.wait_for(self.stream);
        workspace.release(self.driver, self.stream);
        if self.fault != 0 {
            // SAFETY: what wrote there is done.
            let _ = unsafe { self.driver.release(self.fault, self.stream) };
        }
        self.sweep(self.stream);
        self.user.close();
        self.house.sweep();
    }

    pub fn is_capturing(&self) -> Result<bool> {
        let _entered = self.driver.enter(self.context)?;
        self.driver.is_capturing(self.stream)
    }

    /// Copies, allocations and releases cannot be part of a capture.
    fn check_no_capture(&self, stream: Stream, what: &str, instead: &str) -> Result<()> {
        if self.driver.is_capturing(stream)? {
            fail!(State, "{what} cannot be had while the stream is being captured; {instead}");
        }
        Ok(())
    }

    /// The stream that late work goes to: its own, or after its end the house's.
    fn late_stream(&self, closed: bool) -> Stream {
        if closed { self.house.uploads() } else { self.stream }
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.close();
    }
}
