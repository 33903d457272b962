//! The short lists of a step, on their way to the device as kernel arguments: ordered by the stream, captured by value, and
//! nobody waits for them.

use super::arguments::{LIST_THREADS, PUT_WORDS, Put};
use super::driver::Address;
use super::kernels::Kernel;
use super::turn::Turn;
use crate::error::Result;
use crate::memory::{Arena, List};

/// What every list is aligned to.
const ALIGNMENT: usize = size_of::<u64>();

/// Lists packed one after the other, and where they will lie. What several calls of the step have is there once.
pub struct Lists<'a> {
    words: &'a mut [u64],
    used: usize,
    address: Address,
    /// Where each list begins.
    starts: List<'a, usize>,
}

impl<'a> Lists<'a> {
    /// Room for `count` lists of `capacity` bytes in all, each counted by [`Lists::room`].
    pub fn new(turn: &Turn<'_>, arena: &'a Arena, count: usize, capacity: usize) -> Result<Self> {
        let (words, starts) = (arena.filled(0, capacity / ALIGNMENT)?, arena.list(count)?);
        Ok(Self { words, used: 0, address: turn.take(capacity.max(1))?, starts })
    }

    /// Bytes that a list of `count` items takes.
    pub fn room<T>(count: usize) -> usize {
        (count * size_of::<T>()).next_multiple_of(ALIGNMENT)
    }

    /// Adds a list that is not there yet; returns where it will lie.
    ///
    /// # Safety
    /// `T` is plain data without padding.
    ///
    /// # Panics
    /// When the list was not counted before.
    pub unsafe fn add<T: Copy>(&mut self, items: &[T]) -> Address {
        // SAFETY: plain data, by the caller's promise.
        let bytes = unsafe { std::slice::from_raw_parts(items.as_ptr().cast::<u8>(), size_of_val(items)) };
        let known = |start: &usize| bytemuck::cast_slice(&self.words[*start..self.used]).starts_with(bytes);
        let start = self.starts.iter().copied().find(known).unwrap_or(self.used);
        if start == self.used {
            bytemuck::cast_slice_mut(&mut self.words[start..])[..bytes.len()].copy_from_slice(bytes);
            self.used += bytes.len().div_ceil(ALIGNMENT);
            self.starts.push(start);
        }
        self.address + (start * ALIGNMENT) as Address
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
