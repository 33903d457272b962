//! The short lists of a call, on their way to the device as kernel arguments: ordered by the stream, captured by value, and
//! nobody waits for them.

use super::arguments::{LIST_THREADS, PUT_WORDS, Put};
use super::driver::Address;
use super::kernels::Kernel;
use super::turn::Turn;
use crate::error::Result;
use crate::memory::Arena;

/// What every list is aligned to.
const ALIGNMENT: usize = size_of::<u64>();

/// Lists packed one after the other, and where they will lie.
pub struct Lists<'a> {
    words: &'a mut [u64],
    used: usize,
    address: Address,
}

impl<'a> Lists<'a> {
    /// Room for lists of `capacity` bytes in all, each counted by [`Lists::room`].
    pub fn new(turn: &Turn<'_>, arena: &'a Arena, capacity: usize) -> Result<Self> {
        Ok(Self { words: arena.filled(0, capacity / ALIGNMENT)?, used: 0, address: turn.take(capacity.max(1))? })
    }

    /// Bytes that a list of `count` items takes.
    pub fn room<T>(count: usize) -> usize {
        (count * size_of::<T>()).next_multiple_of(ALIGNMENT)
    }

    /// Adds a list; returns where it will lie.
    ///
    /// # Safety
    /// `T` is plain data without padding.
    ///
    /// # Panics
    /// When the list was not counted before.
    pub unsafe fn add<T: Copy>(&mut self, items: &[T]) -> Address {
        // SAFETY: plain data, by the caller's promise.
        let bytes = unsafe { std::slice::from_raw_parts(items.as_ptr().cast::<u8>(), size_of_val(items)) };
        let address = self.address + (self.used * ALIGNMENT) as Address;
        bytemuck::cast_slice_mut(&mut self.words[self.used..])[..bytes.len()].copy_from_slice(bytes);
        self.used += bytes.len().div_ceil(ALIGNMENT);
        address
    }

    /// Queues the transport.
    pub fn send(self, turn: &Turn<'_>) -> Result<()> {
        for (number, chunk) in bytemuck::cast_slice(&self.words[..self.used]).chunks(PUT_WORDS).enumerate() {
            let to = self.address + (number * size_of_val(&[0u32; PUT_WORDS])) as Address;
            let mut put = Put { to, count: chunk.len() as u32, reserved: 0, words: [0; PUT_WORDS] };
            put.words[..chunk.len()].copy_from_slice(chunk);
            // SAFETY: the workspace has the capacity.
            unsafe { turn.launch(Kernel::Put, [1, 1, 1], LIST_THREADS, &put)? };
        }
        Ok(())
    }
}
