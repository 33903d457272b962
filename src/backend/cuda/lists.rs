//! The short lists of a call, on their way to the device as kernel arguments: ordered by the stream, captured by value, and
//! nobody waits for them.

use super::arguments::{PUT_WORDS, Put};
use super::device::{Kernel, Turn};
use super::driver::Address;
use crate::error::Result;
use crate::memory::{Arena, List};

/// What every list is aligned to.
const ALIGNMENT: usize = 8;

/// Lists packed one after the other, and where they will lie.
pub struct Lists<'a> {
    bytes: List<'a, u8>,
    address: Address,
    capacity: usize,
}

impl<'a> Lists<'a> {
    /// Room for lists of `capacity` bytes in all, each counted by [`Lists::room`].
    pub fn new(turn: &Turn<'_>, arena: &'a Arena, capacity: usize) -> Result<Self> {
        Ok(Self { bytes: arena.list(capacity)?, address: turn.take(capacity.max(1))?, capacity })
    }

    /// Bytes that a list of `count` items takes.
    pub fn room<T>(count: usize) -> usize {
        (count * size_of::<T>()).next_multiple_of(ALIGNMENT)
    }

    /// Adds a list; returns where it will lie.
    ///
    /// # Safety
    /// `T` is plain data without padding.
    pub unsafe fn add<T: Copy>(&mut self, items: &[T]) -> Address {
        let start = self.bytes.len();
        // SAFETY: plain data, by the caller's promise.
        let bytes = unsafe { std::slice::from_raw_parts(items.as_ptr().cast::<u8>(), size_of_val(items)) };
        assert!(start + Self::room::<T>(items.len()) <= self.capacity, "lists are counted before");
        bytes.iter().for_each(|byte| self.bytes.push(*byte));
        while !self.bytes.len().is_multiple_of(ALIGNMENT) {
            self.bytes.push(0);
        }
        self.address + start as Address
    }

    /// Queues the transport.
    pub fn send(self, turn: &Turn<'_>) -> Result<()> {
        for (number, chunk) in self.bytes.chunks(4 * PUT_WORDS).enumerate() {
            let to = self.address + (number * 4 * PUT_WORDS) as Address;
            let mut put = Put { to, count: (chunk.len() / 4) as u32, reserved: 0, words: [0; PUT_WORDS] };
            for (word, bytes) in put.words.iter_mut().zip(chunk.chunks_exact(4)) {
                *word = u32::from_ne_bytes(bytes.try_into().expect("four bytes"));
            }
            // SAFETY: the workspace has the capacity.
            unsafe { turn.launch(Kernel::Put, [1, 1, 1], 256, &put)? };
        }
        Ok(())
    }
}
