//! Where a test's matrices lie: on the host, or on a device that a test crate has put in place for its thread.

use std::cell::RefCell;
use std::rc::Rc;

use pvera::tensor::{Device, Matrix, MatrixMut};

use super::host::Host;

/// Memory of a device.
pub trait Memory {
    fn upload(&self, bytes: &[u8]) -> u64;
    /// After everything that was queued.
    fn download(&self, address: u64, bytes: &mut [u8]);
    fn release(&self, address: u64);
}

thread_local! {
    static MEMORY: RefCell<Option<Rc<dyn Memory>>> = const { RefCell::new(None) };
    static OF_MODELS: RefCell<Device> = const { RefCell::new(Device::Host) };
    static BORROWED: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
}

/// The memory behind every device of this thread.
pub fn set_memory(memory: Rc<dyn Memory>) {
    MEMORY.with(|place| *place.borrow_mut() = Some(memory));
}

pub fn memory() -> Rc<dyn Memory> {
    MEMORY.with(|place| place.borrow().clone()).expect("a test of a device sets its memory")
}

/// Weights and biases that are made inside lie on the device.
pub fn with_models_on<T>(device: Device, make: impl FnOnce() -> T) -> T {
    OF_MODELS.with(|place| *place.borrow_mut() = device);
    let made = make();
    OF_MODELS.with(|place| *place.borrow_mut() = Device::Host);
    made
}

pub fn of_models() -> Device {
    OF_MODELS.with(|place| *place.borrow())
}

/// Gives back what the models of this thread borrowed on the device; none of them is used again.
pub fn release_models() {
    BORROWED.with(|borrowed| borrowed.borrow_mut().drain(..).for_each(|address| memory().release(address)));
}

/// A matrix on the host or a copy of one on a device.
pub struct Placed {
    host: Host,
    device: Device,
    address: u64,
}

impl Placed {
    pub fn new(host: Host, device: Device) -> Self {
        let address = if device == Device::Host { 0 } else { memory().upload(host.bytes()) };
        Self { host, device, address }
    }

    pub fn matrix(&self) -> Matrix<'_> {
        self.host.matrix_at(self.device, self.address)
    }

    pub fn matrix_mut(&mut self) -> MatrixMut<'_> {
        self.host.matrix_mut_at(self.device, self.address)
    }

    /// For what a model borrows: until `release_models`, or for ever on the host.
    pub fn leaked(self) -> Matrix<'static> {
        if self.device != Device::Host {
            BORROWED.with(|borrowed| borrowed.borrow_mut().push(self.address));
        }
        Box::leak(Box::new(self)).matrix()
    }

    /// What it holds now.
    pub fn back(mut self) -> Host {
        if self.device != Device::Host {
            memory().download(self.address, self.host.bytes_mut());
        }
        self.host.clone()
    }
}

impl Drop for Placed {
    fn drop(&mut self) {
        if self.device != Device::Host {
            memory().release(self.address);
        }
    }
}

/// Numbers on the host or a copy of them on a device.
pub struct Numbers<T: bytemuck::Pod> {
    values: Vec<T>,
    device: Device,
    address: u64,
}

impl<T: bytemuck::Pod> Numbers<T> {
    pub fn new(values: Vec<T>, device: Device) -> Self {
        let bytes = bytemuck::cast_slice(&values);
        let address = if device == Device::Host || bytes.is_empty() { 0 } else { memory().upload(bytes) };
        Self { values, device, address }
    }

    /// Where they lie; NULL when there are none.
    pub fn pointer(&mut self) -> *mut T {
        match (self.values.is_empty(), self.device) {
            (true, _) => std::ptr::null_mut(),
            (false, Device::Host) => self.values.as_mut_ptr(),
            (false, _) => std::ptr::without_provenance_mut(self.address as usize),
        }
    }

    pub fn back(mut self) -> Vec<T> {
        if self.address != 0 {
            memory().download(self.address, bytemuck::cast_slice_mut(&mut self.values));
        }
        std::mem::take(&mut self.values)
    }
}

impl<T: bytemuck::Pod> Drop for Numbers<T> {
    fn drop(&mut self) {
        if self.address != 0 {
            memory().release(self.address);
        }
    }
}
