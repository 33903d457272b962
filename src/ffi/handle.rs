//! The one place where handles become references and back. An owned handle is a box; a borrowed one is a reference into
//! the handle that lends it, and has a const type in C: freeing it is an error in C++ and draws a warning in C.

use std::alloc::{Layout, alloc};

use crate::error::{Error, Result};
use crate::fail;

/// Gives a value to C, in memory that could be had.
pub fn give<T>(value: T) -> Result<*mut T> {
    let layout = Layout::new::<T>();
    assert!(layout.size() > 0, "handles hold something");
    // SAFETY: the layout is not empty.
    let memory = unsafe { alloc(layout) }.cast::<T>();
    if memory.is_null() {
        return Err(Error::out_of_memory());
    }
    // SAFETY: fresh memory of T's layout, as Box uses.
    unsafe { memory.write(value) };
    Ok(memory)
}

/// Takes an owned handle back and drops it; NULL is nothing.
///
/// # Safety
/// `handle` came from [`give`] and is not used again.
pub unsafe fn take<T>(handle: *mut T) {
    if !handle.is_null() {
        // SAFETY: `give` allocated it as Box does.
        drop(unsafe { Box::from_raw(handle) });
    }
}

/// # Safety
/// `handle` is NULL or a live handle.
pub unsafe fn borrow<'a, T>(name: &str, handle: *const T) -> Result<&'a T> {
    // SAFETY: the caller's promise.
    match unsafe { handle.as_ref() } {
        Some(reference) => Ok(reference),
        None => fail!(Null, "{name} is NULL; wanted a handle"),
    }
}

/// # Safety
/// `handle` is NULL or a live handle that nobody else uses now.
pub unsafe fn borrow_mut<'a, T>(name: &str, handle: *mut T) -> Result<&'a mut T> {
    // SAFETY: the caller's promise.
    match unsafe { handle.as_mut() } {
        Some(reference) => Ok(reference),
        None => fail!(Null, "{name} is NULL; wanted a handle"),
    }
}

/// A place for an output. Checked before any work, written after all of it.
///
/// # Safety
/// `place` is NULL or points to a writable T, initialised or not.
pub unsafe fn output<'a, T>(name: &str, place: *mut T) -> Result<Output<'a, T>> {
    if place.is_null() {
        fail!(Null, "{name} is NULL; wanted a place for the result");
    }
    Ok(Output { place, lifetime: std::marker::PhantomData })
}

/// An output that was checked and not yet written.
pub struct Output<'a, T> {
    place: *mut T,
    lifetime: std::marker::PhantomData<&'a mut T>,
}

impl<T> Output<'_, T> {
    pub fn write(self, value: T) {
        // SAFETY: `output` checked it; nothing is read or dropped there.
        unsafe { self.place.write(value) };
    }
}

/// Writes an output that the caller may leave out.
///
/// # Safety
/// As for [`output`].
pub unsafe fn write_if_wanted<T>(place: *mut T, value: T) {
    if !place.is_null() {
        // SAFETY: the caller's promise.
        unsafe { place.write(value) };
    }
}
