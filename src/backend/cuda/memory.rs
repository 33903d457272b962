//! Device memory that outlives a call: what a tape keeps.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::device::Device;
use super::driver::Address;
use crate::error::Result;
use crate::tensor::{Dtype, Matrix, MatrixMut, Parts};

/// Numbers in device memory, in the order of a device's stream.
#[derive(Debug)]
pub struct DeviceBuffer {
    device: Arc<Device>,
    address: Address,
    length: usize,
    /// A graph holds its address.
    captured: AtomicBool,
}

impl DeviceBuffer {
    pub fn new(device: &Arc<Device>, length: usize) -> Result<Self> {
        let address = device.allocate(length.max(1) * size_of::<f32>())?;
        Ok(Self { device: device.clone(), address, length, captured: AtomicBool::new(false) })
    }

    fn parts(&self, rows: usize, cols: usize) -> Parts {
        assert!(rows * cols <= self.length);
        Parts { rows, cols, row_stride: cols, dtype: Dtype::F32, device: self.device.place() }
    }

    pub fn matrix(&self, rows: usize, cols: usize) -> Matrix<'_> {
        let address = std::ptr::without_provenance(self.address as usize);
        // SAFETY: as many numbers lie there.
        unsafe { Matrix::new("kept", address, self.parts(rows, cols)) }.expect("what is kept is sound")
    }

    pub fn matrix_mut(&mut self, rows: usize, cols: usize) -> MatrixMut<'_> {
        let address = std::ptr::without_provenance_mut(self.address as usize);
        // SAFETY: as above, and exclusive as `self` is.
        unsafe { MatrixMut::new("kept", address, self.parts(rows, cols)) }.expect("what is kept is sound")
    }

    pub fn len(&self) -> usize {
        self.length
    }

    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    pub fn is_captured(&self) -> bool {
        self.captured.load(Ordering::Relaxed)
    }

    /// Looks whether a capture is under way, which will use it.
    pub fn note_capture(&self) -> Result<()> {
        if !self.is_captured() && self.device.is_capturing()? {
            self.captured.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    pub fn device(&self) -> &Arc<Device> {
        &self.device
    }
}

impl Drop for DeviceBuffer {
    fn drop(&mut self) {
        self.device.release(self.address);
    }
}
