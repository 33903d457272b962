//! The lists of one call, one after the other in memory that is kept: the same requests again allocate nothing.

use std::cell::{Cell, UnsafeCell};
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use super::{ALIGNMENT, Allocator, Buffer};
use crate::error::{Error, Result};

/// The first chunk; the plan of a call on one layer fits.
const FIRST_CHUNK: usize = 8 << 10;
/// How often chunks double, for short lists; a longer one gets a chunk of its own size.
const DOUBLINGS: usize = 7;

/// Memory that is handed out in order and taken back all at once.
///
/// It is a row of chunks. A request that does not fit the current chunk moves on to the next, so that requests no larger
/// than earlier ones, in the same order, find room where those did.
#[derive(Debug)]
pub struct Arena {
    allocator: Allocator,
    /// Only ever grows. No reference into it outlives a call of a method.
    chunks: UnsafeCell<Vec<Buffer<u8>>>,
    /// The chunk after the current one.
    following: Cell<usize>,
    /// What is free of the current chunk.
    start: Cell<*mut u8>,
    free: Cell<usize>,
}

// SAFETY: an arena owns its chunks; the pointer is into one of them.
unsafe impl Send for Arena {}

impl Arena {
    pub fn new(allocator: Allocator) -> Self {
        Self {
            allocator,
            chunks: UnsafeCell::default(),
            following: Cell::new(0),
            start: Cell::new(std::ptr::without_provenance_mut(ALIGNMENT)),
            free: Cell::new(0),
        }
    }

    /// An empty list with room for `capacity` items.
    pub fn list<T>(&self, capacity: usize) -> Result<List<'_, T>> {
        const {
            assert!(!std::mem::needs_drop::<T>(), "an arena drops nothing");
            assert!(align_of::<T>() <= ALIGNMENT);
        }
        let bytes = capacity.checked_mul(size_of::<T>()).ok_or(Error::out_of_memory())?;
        let memory = self.take(bytes, align_of::<T>())?.cast();
        Ok(List { memory, capacity, length: 0, lifetime: PhantomData })
    }

    /// `count` times the same.
    pub fn filled<T: Copy>(&self, value: T, count: usize) -> Result<&mut [T]> {
        let mut list = self.list(count)?;
        (0..count).for_each(|_| list.push(value));
        Ok(list.into_slice())
    }

    /// As many items as the iterator says it has.
    pub fn collected<T>(&self, items: impl ExactSizeIterator<Item = T>) -> Result<&mut [T]> {
        let mut list = self.list(items.len())?;
        items.for_each(|item| list.push(item));
        Ok(list.into_slice())
    }

    /// Takes everything back.
    pub fn reset(&mut self) {
        self.following.set(0);
        self.free.set(0);
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        // SAFETY: nobody else refers to the list now; the arena is not Sync.
        unsafe { &*self.chunks.get() }.iter().map(|chunk| chunk.length).sum()
    }

    fn take(&self, bytes: usize, alignment: usize) -> Result<NonNull<u8>> {
        loop {
            let start = self.start.get();
            let padding = start.addr().wrapping_neg() & (alignment - 1);
            if let Some(free) = self.free.get().checked_sub(padding).and_then(|free| free.checked_sub(bytes)) {
                self.free.set(free);
                self.start.set(start.wrapping_add(padding + bytes));
                // SAFETY: never NULL: in a chunk, or an aligned address beside none for an empty list.
                return Ok(unsafe { NonNull::new_unchecked(start.wrapping_add(padding)) });
            }
            self.advance(bytes)?;
        }
    }

    /// Makes the next chunk the current one; after the last, a new one that holds `bytes`.
    #[cold]
    fn advance(&self, bytes: usize) -> Result<()> {
        // SAFETY: nobody else refers to the list now; the arena is not Sync.
        let chunks = unsafe { &mut *self.chunks.get() };
        let next = self.following.get();
        if next == chunks.len() {
            let size = (FIRST_CHUNK << next.min(DOUBLINGS)).max(bytes);
            chunks.try_reserve(1).map_err(|_| Error::out_of_memory())?;
            chunks.push(Buffer::zeroed(&self.allocator, size)?);
        }
        self.following.set(next + 1);
        // Not through a slice of the chunk: lists in it are alive.
        self.start.set(chunks[next].memory.as_ptr());
        self.free.set(chunks[next].length);
        Ok(())
    }
}

/// A list in an arena, which does not grow beyond the capacity it was asked for.
#[derive(Debug)]
pub struct List<'a, T> {
    memory: NonNull<T>,
    capacity: usize,
    length: usize,
    lifetime: PhantomData<&'a mut [T]>,
}

impl<'a, T> List<'a, T> {
    /// # Panics
    /// When the list is full.
    pub fn push(&mut self, item: T) {
        assert!(self.length < self.capacity, "the list has room for {} items", self.capacity);
        // SAFETY: inside the list's memory, by the assertion.
        unsafe { self.memory.add(self.length).write(item) };
        self.length += 1;
    }

    /// Leaves out items that equal the one before them.
    pub fn dedup(&mut self)
    where
        T: Copy + PartialEq,
    {
        let mut kept = 0;
        for place in 0..self.length {
            if kept == 0 || self[place] != self[kept - 1] {
                self[kept] = self[place];
                kept += 1;
            }
        }
        self.length = kept;
    }

    /// What it holds, for as long as the arena's call.
    pub fn into_slice(self) -> &'a mut [T] {
        // SAFETY: `length` items were written, in memory that is this list's alone until the arena takes it back.
        unsafe { std::slice::from_raw_parts_mut(self.memory.as_ptr(), self.length) }
    }
}

impl<T> Deref for List<'_, T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: as in `into_slice`.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr(), self.length) }
    }
}

impl<T> DerefMut for List<'_, T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `into_slice`, and `self` is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.memory.as_ptr(), self.length) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lists of `sizes` bytes, interleaved with an odd one so that the next needs padding.
    fn fill(arena: &Arena, sizes: &[usize]) {
        for size in sizes {
            let odd = arena.filled(7u8, 3).unwrap();
            let words = arena.filled(u64::MAX, size / 8).unwrap();
            assert!(words.as_ptr().is_aligned() && words.iter().all(|word| *word == u64::MAX));
            assert_eq!(odd, &[7; 3], "lists do not meet");
        }
    }

    #[test]
    fn requests_no_larger_than_before_allocate_nothing() {
        let mut arena = Arena::new(Allocator::default());
        let large = [FIRST_CHUNK / 2, FIRST_CHUNK, 100, 5 * FIRST_CHUNK, 9 * FIRST_CHUNK, FIRST_CHUNK];
        fill(&arena, &large);
        let held = arena.bytes();
        for shrink in [1, 2, 3, 7, 100] {
            arena.reset();
            fill(&arena, &large.map(|size| size / shrink));
            assert_eq!(arena.bytes(), held, "everything {shrink} times smaller");
        }
        arena.reset();
        fill(&arena, &[held]);
        assert!(arena.bytes() > held);
    }

    #[test]
    fn a_list_holds_what_was_pushed_and_no_more() {
        let arena = Arena::new(Allocator::default());
        let mut list = arena.list(5).unwrap();
        [3, 3, 1, 1, 3].into_iter().for_each(|item| list.push(item));
        list.dedup();
        assert_eq!(*list, [3, 1, 3]);
        list.sort_unstable();
        assert_eq!(list.into_slice(), [1, 3, 3]);
        assert!(arena.list::<u64>(0).unwrap().is_empty());
        let full = std::panic::catch_unwind(|| Arena::new(Allocator::default()).list::<u8>(0).unwrap().push(1));
        assert!(full.is_err());
    }

    #[test]
    fn more_than_there_is_is_an_error() {
        let arena = Arena::new(Allocator::default());
        for count in [usize::MAX, isize::MAX as usize / 8] {
            assert!(arena.list::<u64>(count).is_err());
        }
        assert_eq!(arena.filled(1u64, 3).unwrap(), [1; 3], "and the arena goes on working");
    }
}
