//! Memory whose size comes from a caller or a file: aligned, zeroed, fallible, from the host's allocator if it gave one.
//! [`Arena`] holds the short lists of one call.

mod arena;

pub use arena::{Arena, List};

use std::alloc::Layout;
use std::ffi::c_void;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use crate::error::{Error, Result};

/// Every buffer starts on a cache line, so that vector loads never straddle one needlessly.
const ALIGNMENT: usize = 64;

/// Larger buffers begin on a huge page, and the system is asked for such: streams then meet fewer page ends.
const HUGE_PAGE: usize = 2 << 20;

/// Where a buffer's memory comes from. The default is the process's allocator.
#[derive(Clone, Copy, Debug, Default)]
pub struct Allocator {
    host: Option<HostAllocator>,
}

/// The host's own functions. Both are called from any thread that uses the object they were given to.
#[derive(Clone, Copy, Debug)]
pub struct HostAllocator {
    pub allocate: unsafe extern "C" fn(user: *mut c_void, size: usize, alignment: usize) -> *mut c_void,
    pub release: unsafe extern "C" fn(user: *mut c_void, memory: *mut c_void, size: usize, alignment: usize),
    pub user: *mut c_void,
}

// SAFETY: the host promises (pvera_allocator in the header) that its functions and `user` work from any thread.
unsafe impl Send for HostAllocator {}
// SAFETY: as above.
unsafe impl Sync for HostAllocator {}

impl Allocator {
    pub fn host(host: HostAllocator) -> Self {
        Self { host: Some(host) }
    }

    fn allocate_zeroed(&self, layout: Layout) -> Option<NonNull<u8>> {
        match &self.host {
            // SAFETY: the layout is not empty (Buffer::zeroed checks it).
            None if layout.align() < HUGE_PAGE => NonNull::new(unsafe { std::alloc::alloc_zeroed(layout) }),
            None => {
                // SAFETY: as above.
                let memory = NonNull::new(unsafe { std::alloc::alloc(layout) })?;
                ask_for_huge_pages(memory, layout.size());
                // SAFETY: just allocated with this size.
                unsafe { memory.write_bytes(0, layout.size()) };
                Some(memory)
            }
            Some(host) => {
                // SAFETY: the host's function takes any size and any power of two.
                let memory = unsafe { (host.allocate)(host.user, layout.size(), layout.align()) };
                let memory = NonNull::new(memory.cast::<u8>())?;
                // SAFETY: the host returned at least `size` bytes.
                unsafe { memory.write_bytes(0, layout.size()) };
                Some(memory)
            }
        }
    }

    /// # Safety
    /// `memory` came from `allocate_zeroed` of this allocator with this layout.
    unsafe fn release(&self, memory: NonNull<u8>, layout: Layout) {
        match &self.host {
            // SAFETY: the caller's promise.
            None => unsafe { std::alloc::dealloc(memory.as_ptr(), layout) },
            // SAFETY: the caller's promise.
            Some(host) => unsafe { (host.release)(host.user, memory.as_ptr().cast(), layout.size(), layout.align()) },
        }
    }
}

/// A hint; where it is not taken, everything works with small pages.
fn ask_for_huge_pages(memory: NonNull<u8>, size: usize) {
    #[cfg(target_os = "linux")]
    // SAFETY: the range is an allocation of our own; the advice changes nothing that it holds.
    unsafe {
        libc::madvise(memory.as_ptr().cast(), size, libc::MADV_HUGEPAGE);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (memory, size);
}

/// A fixed-length array of plain numbers. All zero bytes are a valid `T`.
#[derive(Debug)]
pub struct Buffer<T: bytemuck::Pod> {
    memory: NonNull<T>,
    length: usize,
    allocator: Allocator,
}

// SAFETY: a buffer owns its memory, as a Vec does.
unsafe impl<T: bytemuck::Pod + Send> Send for Buffer<T> {}
// SAFETY: as above.
unsafe impl<T: bytemuck::Pod + Sync> Sync for Buffer<T> {}

impl<T: bytemuck::Pod> Buffer<T> {
    pub const fn empty() -> Self {
        // Aligned as a real one, so that an empty slice of any element type may be made of it.
        // SAFETY: the alignment is not zero.
        let memory = unsafe { NonNull::new_unchecked(std::ptr::without_provenance_mut(ALIGNMENT)) };
        Self { memory, length: 0, allocator: Allocator { host: None } }
    }

    pub fn zeroed(allocator: &Allocator, length: usize) -> Result<Self> {
        let Some(layout) = Self::layout(length) else { return Err(Error::out_of_memory()) };
        if layout.size() == 0 {
            return Ok(Self { allocator: *allocator, ..Self::empty() });
        }
        let memory = allocator.allocate_zeroed(layout).ok_or(Error::out_of_memory())?.cast();
        Ok(Self { memory, length, allocator: *allocator })
    }

    pub fn copied(allocator: &Allocator, values: &[T]) -> Result<Self> {
        let mut buffer = Self::zeroed(allocator, values.len())?;
        buffer.copy_from_slice(values);
        Ok(buffer)
    }

    pub fn allocator(&self) -> &Allocator {
        &self.allocator
    }

    /// Grows to at least `length`; what it held is lost when it has to grow.
    pub fn reserve(&mut self, allocator: &Allocator, length: usize) -> Result<()> {
        if self.length < length {
            *self = Self::empty();
            *self = Self::zeroed(allocator, length)?;
        }
        Ok(())
    }

    fn layout(length: usize) -> Option<Layout> {
        let layout = Layout::array::<T>(length).ok()?;
        layout.align_to(if layout.size() < HUGE_PAGE { ALIGNMENT } else { HUGE_PAGE }).ok()
    }
}

impl<T: bytemuck::Pod> Drop for Buffer<T> {
    fn drop(&mut self) {
        if let Some(layout) = Self::layout(self.length)
            && layout.size() > 0
        {
            // SAFETY: `zeroed` allocated this memory with this layout.
            unsafe { self.allocator.release(self.memory.cast(), layout) };
        }
    }
}

impl<T: bytemuck::Pod> Deref for Buffer<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: `length` zeroed or written elements live there.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr(), self.length) }
    }
}

impl<T: bytemuck::Pod> DerefMut for Buffer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above, and `self` is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.memory.as_ptr(), self.length) }
    }
}
