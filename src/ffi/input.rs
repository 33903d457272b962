//! Reading what C gives: texts, arrays and sized structs.

use std::ffi::{CStr, c_char};
use std::path::Path;
use std::ptr::NonNull;

use crate::error::Result;
use crate::fail;
use crate::memory::Arena;

/// # Safety
/// `text` is NULL or a NUL-terminated string.
pub unsafe fn text<'a>(name: &str, text: *const c_char) -> Result<&'a str> {
    if text.is_null() {
        fail!(Null, "{name} is NULL; wanted a text");
    }
    // SAFETY: the caller's promise.
    match unsafe { CStr::from_ptr(text) }.to_str() {
        Ok(text) => Ok(text),
        Err(error) => fail!(Argument, "{name} is not UTF-8: {error}"),
    }
}

/// # Safety
/// As for [`text`].
pub unsafe fn path<'a>(name: &str, path: *const c_char) -> Result<&'a Path> {
    // SAFETY: the caller's promise.
    let text = unsafe { text(name, path)? };
    if text.is_empty() {
        fail!(Argument, "{name} is empty; wanted a path");
    }
    Ok(Path::new(text))
}

/// # Safety
/// `values` is NULL or points to `count` values.
pub unsafe fn array<'a, T>(name: &str, values: *const T, count: usize) -> Result<&'a [T]> {
    check(name, values, count)?;
    // SAFETY: the caller's promise; `check` saw that it is not NULL and aligned.
    Ok(if count == 0 { &[] } else { unsafe { std::slice::from_raw_parts(values, count) } })
}

/// # Safety
/// `values` is NULL or points to `count` values that nobody else uses now.
pub unsafe fn array_mut<'a, T>(name: &str, values: *mut T, count: usize) -> Result<&'a mut [T]> {
    check(name, values, count)?;
    // SAFETY: as above, and exclusive.
    Ok(if count == 0 { &mut [] } else { unsafe { std::slice::from_raw_parts_mut(values, count) } })
}

/// NULL stands for "not given".
///
/// # Safety
/// As for [`array`].
pub unsafe fn optional_array<'a, T>(name: &str, values: *const T, count: usize) -> Result<Option<&'a [T]>> {
    if values.is_null() {
        return Ok(None);
    }
    // SAFETY: the caller's promise.
    unsafe { array(name, values, count) }.map(Some)
}

/// The address of `count` values that may also be reached otherwise, so that no reference to them is made yet; NULL stands
/// for "not given".
pub fn optional_places<T>(name: &str, values: *mut T, count: usize) -> Result<Option<NonNull<T>>> {
    if !values.is_null() {
        check(name, values, count)?;
    }
    Ok(NonNull::new(values))
}

/// Arrays of `count` values, of which at least one is written, share no memory.
pub fn apart<T>(count: usize, arrays: &[(&str, *const T)]) -> Result<()> {
    let bytes = count.saturating_mul(size_of::<T>());
    for (place, (name, array)) in arrays.iter().enumerate().filter(|(_, (_, array))| !array.is_null()) {
        let near = |other: &&(&str, *const T)| !other.1.is_null() && other.1.addr().abs_diff(array.addr()) < bytes;
        if let Some((other, _)) = arrays[..place].iter().find(near) {
            fail!(Overlap, "{name} overlaps {other}; wanted memory of its own");
        }
    }
    Ok(())
}

/// Collects `count` items whose number a caller chose.
pub fn collected<T>(arena: &Arena, count: usize, items: impl Iterator<Item = Result<T>>) -> Result<&mut [T]> {
    let mut list = arena.list(count)?;
    for item in items {
        list.push(item?);
    }
    Ok(list.into_slice())
}

fn check<T>(name: &str, values: *const T, count: usize) -> Result<()> {
    if count == 0 {
        return Ok(());
    }
    if values.is_null() {
        fail!(Null, "{name} is NULL; wanted {count} {}", if count == 1 { "value" } else { "values" });
    }
    if !values.is_aligned() {
        fail!(Argument, "{name} is {values:p}; wanted an address aligned to {} bytes", align_of::<T>());
    }
    if count.checked_mul(size_of::<T>()).is_none_or(|bytes| bytes > isize::MAX as usize) {
        fail!(Shape, "{name} has {count} values; that is more than the address space holds");
    }
    Ok(())
}

/// A field that has no meaning yet. Zero today is what lets it get one.
pub fn reserved(name: &str, value: u32) -> Result<()> {
    if value != 0 {
        fail!(Unsupported, "{name} is {value}; wanted 0, which it is until a newer library gives it a meaning");
    }
    Ok(())
}

/// A struct that begins with `size_t struct_size`.
///
/// # Safety
/// All zero bytes are a valid value, and its first field is the `usize` of its size.
pub unsafe trait Sized_: Copy {
    const NAME: &'static str;
}

/// Reads a sized struct that the call cannot do without.
///
/// # Safety
/// As for [`sized`].
pub unsafe fn required<T: Sized_>(given: *const T) -> Result<T> {
    if given.is_null() {
        fail!(Null, "{} is NULL; wanted the address of a struct", T::NAME);
    }
    // SAFETY: the caller's promise.
    unsafe { sized(given) }
}

/// A sized struct that the library fills as far as the caller's goes.
///
/// # Safety
/// `place` is NULL or points to as many writable bytes as its first field says.
pub unsafe fn sized_output<'a, T: Sized_>(place: *mut T) -> Result<SizedOutput<'a, T>> {
    if place.is_null() {
        fail!(Null, "{} is NULL; wanted the address of a struct", T::NAME);
    }
    // SAFETY: the caller's promise.
    unsafe { sized(place.cast_const())? };
    // SAFETY: as above; the first field is the size.
    let size = unsafe { place.cast::<usize>().read() };
    Ok(SizedOutput { place, size, lifetime: std::marker::PhantomData })
}

/// A struct that was checked and not yet filled.
pub struct SizedOutput<'a, T> {
    place: *mut T,
    size: usize,
    lifetime: std::marker::PhantomData<&'a mut T>,
}

impl<T: Sized_> SizedOutput<'_, T> {
    /// Writes all fields but the size that the caller has room for.
    pub fn write(self, value: T) {
        let known = self.size.min(size_of::<T>()) - size_of::<usize>();
        let from = (&raw const value).cast::<u8>();
        // SAFETY: `sized_output` checked the place; both structs have as many bytes after their sizes.
        unsafe {
            let to = self.place.cast::<u8>().add(size_of::<usize>());
            std::ptr::copy_nonoverlapping(from.add(size_of::<usize>()), to, known);
        }
    }
}

/// Reads a sized struct. NULL is all defaults; a shorter one (of an older header) is completed with zeros; a longer one
/// (of a newer header) is accepted when what we do not know is zero.
///
/// # Safety
/// `given` is NULL or points to as many bytes as its first field says.
pub unsafe fn sized<T: Sized_>(given: *const T) -> Result<T> {
    // SAFETY: all zero bytes are valid, by the trait.
    let mut own: T = unsafe { std::mem::zeroed() };
    if given.is_null() {
        return Ok(own);
    }
    if !given.is_aligned() {
        fail!(Argument, "{} is {given:p}; wanted an aligned address", T::NAME);
    }
    // SAFETY: the first field is the size.
    let size = unsafe { given.cast::<usize>().read() };
    if size < size_of::<usize>() || size > 4096 {
        fail!(
            Argument,
            "{}.struct_size is {size}; wanted sizeof(struct), {}, set by the caller",
            T::NAME,
            size_of::<T>()
        );
    }
    if size == size_of::<T>() {
        // SAFETY: as many bytes as T has; what a caller's compiler left between fields is not looked at.
        return Ok(unsafe { given.read() });
    }
    let known = size.min(size_of::<T>());
    // SAFETY: `size` bytes are readable by the caller's promise; `own` has at least `known`.
    unsafe { std::ptr::copy_nonoverlapping(given.cast::<u8>(), (&raw mut own).cast::<u8>(), known) };
    // SAFETY: as above.
    let tail = unsafe { std::slice::from_raw_parts(given.cast::<u8>().add(known), size - known) };
    if tail.iter().any(|byte| *byte != 0) {
        fail!(
            Unsupported,
            "{}.struct_size is {size}, and a field beyond the {} bytes that this library knows is set; use a newer library",
            T::NAME,
            size_of::<T>()
        );
    }
    Ok(own)
}
