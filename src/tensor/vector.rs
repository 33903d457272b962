//! Borrowed vectors of f32 that may lie on a device.

use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

use super::{Device, Dtype, Matrix, Parts};

/// A vector that is read. It derefs to a slice, which exists only on the host.
#[derive(Clone, Copy, Debug)]
pub struct Vector<'a> {
    data: *const f32,
    length: usize,
    device: Device,
    lifetime: PhantomData<&'a f32>,
}

// SAFETY: a borrowed slice, only read.
unsafe impl Send for Vector<'_> {}
// SAFETY: as above.
unsafe impl Sync for Vector<'_> {}

impl<'a> Vector<'a> {
    /// # Safety
    /// `length` aligned f32 lie at `data` on the device, for as long as `'a`.
    pub unsafe fn new(data: *const f32, length: usize, device: Device) -> Self {
        Self { data, length, device, lifetime: PhantomData }
    }

    /// `count` values from `first` on.
    pub fn part(self, first: usize, count: usize) -> Self {
        assert!(first + count <= self.length);
        Self { data: self.data.wrapping_add(first), length: count, ..self }
    }

    /// An address on the vector's device.
    pub fn data(&self) -> *const f32 {
        self.data
    }

    pub fn len(&self) -> usize {
        self.length
    }

    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    pub fn device(&self) -> Device {
        self.device
    }

    /// The vector as a matrix of one row.
    pub fn matrix(&self) -> Matrix<'a> {
        let (rows, cols) = (1, self.length);
        let parts = Parts { rows, cols, row_stride: cols, dtype: Dtype::F32, device: self.device };
        Matrix { data: self.data.cast(), parts, lifetime: PhantomData }
    }

    /// The values.
    ///
    /// # Panics
    /// When they lie on a device.
    pub fn on_host(&self) -> &'a [f32] {
        assert!(self.device == Device::Host, "a vector on {} is not read here", self.device);
        // SAFETY: as `new` was promised.
        unsafe { std::slice::from_raw_parts(self.data, self.length) }
    }
}

impl<'a> From<&'a [f32]> for Vector<'a> {
    fn from(values: &'a [f32]) -> Self {
        Self { data: values.as_ptr(), length: values.len(), device: Device::Host, lifetime: PhantomData }
    }
}

impl Deref for Vector<'_> {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        self.on_host()
    }
}

/// A vector that is written. It derefs to a slice, which exists only on the host.
#[derive(Debug)]
pub struct VectorMut<'a> {
    data: *mut f32,
    length: usize,
    device: Device,
    lifetime: PhantomData<&'a mut f32>,
}

// SAFETY: a borrowed slice.
unsafe impl Send for VectorMut<'_> {}
// SAFETY: as above; written only through `&mut`, or by work queued on its device.
unsafe impl Sync for VectorMut<'_> {}

impl VectorMut<'_> {
    /// # Safety
    /// `length` aligned f32 lie at `data` on the device, for as long as `'a`, and nobody else uses them.
    pub unsafe fn new(data: *mut f32, length: usize, device: Device) -> Self {
        Self { data, length, device, lifetime: PhantomData }
    }

    /// An address on the vector's device.
    pub fn data(&self) -> *mut f32 {
        self.data
    }
}

impl Deref for VectorMut<'_> {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        assert!(self.device == Device::Host, "a vector on {} is not read here", self.device);
        // SAFETY: as `new` was promised.
        unsafe { std::slice::from_raw_parts(self.data, self.length) }
    }
}

impl DerefMut for VectorMut<'_> {
    fn deref_mut(&mut self) -> &mut [f32] {
        assert!(self.device == Device::Host, "a vector on {} is not written here", self.device);
        // SAFETY: as `new` was promised.
        unsafe { std::slice::from_raw_parts_mut(self.data, self.length) }
    }
}
