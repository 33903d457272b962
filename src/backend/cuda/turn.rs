//! One call's work on a device: its workspace, and what it queues on the stream.

use std::cell::RefCell;
use std::sync::MutexGuard;

use super::arguments::ELEMENT_THREADS;
use super::device::Device;
use super::driver::{Address, Entered};
use super::kernels::Kernel;
use super::product::Products;
use super::workspace::{Workspace, rounded};
use crate::error::{Code, Error, Result};

/// The most blocks of a grid's second dimension; kernels stride over rows beyond.
pub const MOST_BLOCKS: usize = 65_535;

/// The grid of a kernel with a thread an element.
pub fn elements(rows: usize, cols: usize) -> [usize; 3] {
    [cols.div_ceil(ELEMENT_THREADS as usize), rows.min(MOST_BLOCKS), 1]
}

/// One call's hold on a device.
pub struct Turn<'d> {
    device: &'d Device,
    room: RefCell<Room<'d>>,
    pub(super) capturing: bool,
    /// How products are made: as suits them, but for the known answers.
    pub(super) products: Products,
    _entered: Option<Entered>,
}

enum Room<'d> {
    Real(MutexGuard<'d, Workspace>),
    /// Bytes that would be taken.
    Counted(usize),
}

impl<'d> Turn<'d> {
    /// A turn whose calls are queued.
    pub fn real(device: &'d Device, workspace: MutexGuard<'d, Workspace>, capturing: bool, entered: Entered) -> Self {
        let room = RefCell::new(Room::Real(workspace));
        Self { device, room, capturing, products: Products::AsSuits, _entered: Some(entered) }
    }

    /// A turn that queues nothing and counts.
    pub fn dry(device: &'d Device) -> Self {
        Self {
            device,
            room: RefCell::new(Room::Counted(0)),
            capturing: false,
            products: Products::AsSuits,
            _entered: None,
        }
    }

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
                *all += rounded(bytes);
                Ok(rounded(1) as Address)
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
}
