//! One CUDA stream with everything that work on it needs: kernels, a workspace, a place for faults.

use std::cell::RefCell;
use std::ffi::{CStr, CString};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::arguments::Fault;
use super::driver::{self, Address, Driver, Entered, Function, Module, Stream, driver};
use super::residents::{House, Primary, User, lock};
use super::workspace::Workspace;
use crate::error::{Code, Error, Result};
use crate::fail;
use crate::tensor;

/// The kernels, as `kernels/compile.py` makes them, and what each file has.
const MODULES: [(&str, &[&CStr]); 5] = [
    (include_str!("kernels/ptx/lists.ptx"), &[c"put", c"resolve"]),
    (
        include_str!("kernels/ptx/product.ptx"),
        &[c"product_split_k", c"product_split_j", c"product_tile_k", c"product_tile_j", c"combine"],
    ),
    (include_str!("kernels/ptx/latent.ptx"), &[c"mask", c"latent"]),
    (include_str!("kernels/ptx/finish.ptx"), &[c"finish"]),
    (
        include_str!("kernels/ptx/gradients.ptx"),
        &[c"weigh", c"slopes", c"divergence", c"kl_total", c"sums", c"deliver", c"accumulate"],
    ),
];

/// A kernel, by its place in the list above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernel {
    Put,
    Resolve,
    ProductSplitK,
    ProductSplitJ,
    ProductTileK,
    ProductTileJ,
    Combine,
    Mask,
    Latent,
    Finish,
    Weigh,
    Slopes,
    Divergence,
    KlTotal,
    Sums,
    Deliver,
    Accumulate,
}

/// CU_STREAM_PER_THREAD.
const PER_THREAD: usize = 2;

/// Where a CUDA context of the library works. Calls take turns.
#[derive(Debug)]
pub struct Device {
    driver: &'static Driver,
    context: driver::Context,
    ordinal: i32,
    stream: Stream,
    modules: Vec<Module>,
    functions: Vec<Function>,
    /// A `Fault` in device memory.
    fault: Address,
    pub(super) house: Arc<House>,
    pub(super) user: Arc<User>,
    workspace: Mutex<Workspace>,
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
        let user = User::new(driver, context, stream)?;
        // From here on a failure is cleaned up by Drop.
        let mut own = Self {
            driver,
            context,
            ordinal,
            stream,
            modules: Vec::new(),
            functions: Vec::new(),
            fault: 0,
            house,
            user,
            workspace: Mutex::default(),
            closed: Mutex::new(false),
            _primary: primary,
        };
        own.load()?;
        own.fault = driver.allocate(size_of::<Fault>(), stream)?;
        // SAFETY: allocated with this size.
        unsafe { driver.zero(own.fault, Fault::WORDS, stream)? };
        super::self_test::run(&own)?;
        // What the test held is no call's.
        own.workspace.get_mut().unwrap_or_else(PoisonError::into_inner).release(driver, stream);
        Ok(own)
    }

    fn load(&mut self) -> Result<()> {
        for (ptx, kernels) in MODULES {
            let text = CString::new(ptx).map_err(|_| Error::new(Code::Cuda, "the embedded PTX holds a zero byte"))?;
            let module = self.driver.load_module(&text)?;
            self.modules.push(module);
            for name in kernels {
                self.functions.push(self.driver.function(module, name)?);
            }
        }
        Ok(())
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
        }
        workspace.reset(self.driver, self.stream, capturing)?;
        Ok(Turn {
            device: self,
            room: RefCell::new(Room::Real(workspace)),
            capturing,
            as_many: false,
            _entered: Some(entered),
        })
    }

    /// A turn that queues nothing and only counts what the workspace would hold.
    pub fn dry_turn(&self) -> Turn<'_> {
        Turn { device: self, room: RefCell::new(Room::Counted(0)), capturing: false, as_many: false, _entered: None }
    }

    /// Memory that outlives a call. It exists from this place of the stream on.
    pub fn allocate(&self, bytes: usize) -> Result<Address> {
        let _entered = self.driver.enter(self.context)?;
        self.check_no_capture("device memory for a tape")?;
        self.driver.allocate(bytes, self.stream)
    }

    /// Writes device memory in stream order.
    ///
    /// # Safety
    /// The address has these bytes.
    pub unsafe fn write(&self, to: Address, bytes: &[u8]) -> Result<()> {
        let _entered = self.driver.enter(self.context)?;
        self.check_no_capture("a copy of the parameters")?;
        // SAFETY: the caller's promise; libcuda has taken pageable bytes when this returns.
        unsafe { self.driver.copy_to_device(to, bytes, self.stream) }
    }

    /// Reads device memory in stream order, and waits for it.
    ///
    /// # Safety
    /// The address has these bytes.
    pub unsafe fn read_back(&self, to: &mut [u8], from: Address) -> Result<()> {
        let _entered = self.driver.enter(self.context)?;
        let stream = self.late_stream();
        // SAFETY: the caller's promise; the wait ends all use of `to`.
        unsafe { self.driver.copy_to_host(to, from, stream)? };
        self.driver.wait_for(stream)
    }

    /// Gives it back, when the work queued before is done.
    pub fn release(&self, address: Address) {
        if let Ok(_entered) = self.driver.enter(self.context) {
            // SAFETY: what used it was queued earlier on this stream, or is done.
            let _ = unsafe { self.driver.release(address, self.late_stream()) };
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
        // Kernels must not lose their code: all of them have run.
        for module in &self.modules {
            self.driver.unload_module(*module);
        }
        self.user.close();
        self.house.sweep();
    }

    pub fn is_capturing(&self) -> Result<bool> {
        let _entered = self.driver.enter(self.context)?;
        self.driver.is_capturing(self.stream)
    }

    /// Copies, allocations and releases cannot be part of a capture.
    fn check_no_capture(&self, what: &str) -> Result<()> {
        if self.driver.is_capturing(self.stream)? {
            fail!(
                State,
                "{what} cannot be had while the stream is being captured; run the call once before the capture"
            );
        }
        Ok(())
    }

    /// The stream that late work goes to: its own, or after its end the house's.
    fn late_stream(&self) -> Stream {
        if *lock(&self.closed) { self.house.stream() } else { self.stream }
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.close();
    }
}

/// One call's hold on a device.
pub struct Turn<'d> {
    device: &'d Device,
    room: RefCell<Room<'d>>,
    pub(super) capturing: bool,
    /// Products are made as for many rows, however few there are: for the known answers.
    pub(super) as_many: bool,
    _entered: Option<Entered>,
}

enum Room<'d> {
    Real(MutexGuard<'d, Workspace>),
    /// Bytes that would be taken.
    Counted(usize),
}

impl<'d> Turn<'d> {
    pub fn device(&self) -> &'d Device {
        self.device
    }

    /// Whether nothing is queued.
    pub fn is_dry(&self) -> bool {
        matches!(*self.room.borrow(), Room::Counted(_))
    }

    /// Bytes that a dry turn has counted.
    pub fn counted(&self) -> usize {
        match *self.room.borrow() {
            Room::Counted(bytes) => bytes,
            Room::Real(_) => 0,
        }
    }

    pub fn fault(&self) -> Address {
        self.device.fault
    }

    /// Workspace for the rest of the call.
    pub fn take(&self, bytes: usize) -> Result<Address> {
        let Device { driver, stream, .. } = self.device;
        match &mut *self.room.borrow_mut() {
            Room::Real(workspace) => workspace.take(driver, *stream, bytes, self.capturing),
            Room::Counted(all) => {
                *all += super::workspace::rounded(bytes);
                Ok(super::workspace::rounded(1) as Address)
            }
        }
    }

    /// Workspace for so many numbers.
    pub fn take_f32(&self, rows: usize, cols: usize) -> Result<Address> {
        match rows.checked_mul(cols).and_then(|count| count.checked_mul(size_of::<f32>())) {
            Some(bytes) => self.take(bytes),
            None => Err(Error::out_of_memory()),
        }
    }

    /// Workspace that holds these bytes. They are waited for.
    pub fn upload(&self, bytes: &[u8]) -> Result<Address> {
        let address = self.take(bytes.len().max(1))?;
        // SAFETY: taken with this size; `bytes` is borrowed until the wait is over.
        unsafe { self.device.driver.copy_to_device(address, bytes, self.device.stream)? };
        self.device.driver.wait_for(self.device.stream)?;
        Ok(address)
    }

    /// Queues a kernel.
    ///
    /// # Safety
    /// The kernel takes a `T`, whose addresses are valid for what it does with them.
    pub unsafe fn launch<T: Copy>(&self, kernel: Kernel, grid: [usize; 3], block: u32, arguments: &T) -> Result<()> {
        if self.is_dry() || grid.contains(&0) {
            return Ok(());
        }
        let Device { driver, stream, functions, .. } = self.device;
        let mut sizes = [0; 3];
        for (size, wanted) in sizes.iter_mut().zip(grid) {
            *size = u32::try_from(wanted).map_err(|_| {
                Error::new(Code::Unsupported, format!("kernel {kernel:?} would need a grid of {grid:?} blocks"))
            })?;
        }
        let function = functions[kernel as usize];
        // SAFETY: the caller's promise.
        unsafe { driver.launch((format_args!("{kernel:?}"), function), sizes, block, *stream, arguments) }
    }

    /// Queues zeroing numbers.
    ///
    /// # Safety
    /// The address has `words` words of 32 bits.
    pub unsafe fn zero(&self, address: Address, words: usize) -> Result<()> {
        if self.is_dry() || words == 0 {
            return Ok(());
        }
        // SAFETY: the caller's promise.
        unsafe { self.device.driver.zero(address, words, self.device.stream) }
    }

    /// Copies device memory to the host, and waits for it.
    ///
    /// # Safety
    /// The address has as many bytes.
    pub unsafe fn read_back(&self, to: &mut [u8], from: Address) -> Result<()> {
        // SAFETY: the caller's promise.
        unsafe { self.device.read_back(to, from) }
    }
}
