//! Device memory that one call after the other works in, taken in order and given back all at once.

use super::driver::{Address, Driver, Stream};
use crate::error::{Error, Result};
use crate::fail;

/// What every piece is aligned to: the widest transaction of the memory.
const ALIGNMENT: usize = 256;

/// Chunks in stream order. After a call that needed several, the next one finds a single chunk that is large enough for any
/// call before, behind those that captured graphs hold addresses of. It has all that a call may take, so that it does not
/// matter how much of the captured ones its pieces fill.
#[derive(Debug, Default)]
pub struct Workspace {
    chunks: Vec<Chunk>,
    /// The chunk that pieces come from now, and what is taken of it.
    current: usize,
    taken: usize,
    /// So many chunks, the first ones, stay where they are.
    captured: usize,
    /// Bytes that this call took, and the most that any did.
    total: usize,
    most: usize,
}

#[derive(Clone, Copy, Debug)]
struct Chunk {
    address: Address,
    bytes: usize,
}

/// Bytes that a piece takes.
pub fn rounded(bytes: usize) -> usize {
    bytes.next_multiple_of(ALIGNMENT)
}

impl Workspace {
    /// Begins a call.
    pub fn reset(&mut self, driver: &Driver, stream: Stream, capturing: bool) {
        (self.current, self.taken, self.total) = (0, 0, 0);
        if self.chunks.len() > self.captured + 1 && !capturing {
            self.release_from(self.captured, driver, stream);
            if self.most > 0 {
                // Where there is no such piece of memory, the call takes its pieces one by one.
                let _ = self.grow(driver, stream, self.most);
            }
        }
    }

    /// A piece of so many bytes, valid until the next reset in the order of the stream.
    pub fn take(&mut self, driver: &Driver, stream: Stream, bytes: usize, capturing: bool) -> Result<Address> {
        let bytes = rounded(bytes.max(1));
        loop {
            if let Some(chunk) = self.chunks.get(self.current) {
                if chunk.bytes - self.taken >= bytes {
                    let address = chunk.address + self.taken as Address;
                    self.taken += bytes;
                    self.note(bytes, capturing);
                    return Ok(address);
                }
                (self.current, self.taken) = (self.current + 1, 0);
                continue;
            }
            if capturing {
                fail!(
                    State,
                    "the context's workspace holds {} bytes and this call needs more, which cannot be had while the stream is being captured; run the call once before the capture",
                    self.bytes()
                );
            }
            self.grow(driver, stream, bytes)?;
        }
    }

    /// Takes note of a piece of the current chunk.
    fn note(&mut self, bytes: usize, capturing: bool) {
        self.total += bytes;
        self.most = self.most.max(self.total);
        if capturing {
            self.captured = self.captured.max(self.current + 1);
        }
    }

    fn grow(&mut self, driver: &Driver, stream: Stream, bytes: usize) -> Result<()> {
        self.chunks.try_reserve(1).map_err(|_| Error::out_of_memory())?;
        self.chunks.push(Chunk { address: driver.allocate(bytes, stream)?, bytes });
        Ok(())
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.bytes).sum()
    }

    /// Gives everything back, when the work queued before is done, and forgets what calls needed.
    pub fn release(&mut self, driver: &Driver, stream: Stream) {
        (self.captured, self.most) = (0, 0);
        self.release_from(0, driver, stream);
    }

    fn release_from(&mut self, first: usize, driver: &Driver, stream: Stream) {
        for chunk in self.chunks.drain(first..) {
            // SAFETY: what used it was queued earlier on this stream. A failure leaves it to the context's end.
            let _ = unsafe { driver.release(chunk.address, stream) };
        }
    }
}
