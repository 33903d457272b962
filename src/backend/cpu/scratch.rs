//! The memory that a task works in. It grows to the largest call and stays.

use std::ops::{Deref, DerefMut};
use std::sync::Mutex;

use crate::backend::lock::lock;
use crate::error::Result;
use crate::memory::{Allocator, Buffer};

/// One lane's working memory, f32 each.
#[derive(Debug, Default)]
pub struct Scratch {
    /// Rows of x (or dy), packed.
    pub x: Floats,
    /// The same for rows of their own: gathered, masked, or weighted.
    pub gathered: Floats,
    /// Rows of p or dp of a block.
    pub p: Floats,
    /// Latents, packed.
    pub z: Floats,
    /// A few vectors of one row: mu, σ, noise.
    pub vectors: Floats,
    /// Tiles: the base product, the sum of a stretch of columns, a product that is added to it.
    pub base: Floats,
    pub sum: Floats,
    pub delta: Floats,
    /// Where a product packs a weight that is not packed.
    pub room: Floats,
}

/// How many f32 of each a call needs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sizes {
    pub x: usize,
    pub gathered: usize,
    pub p: usize,
    pub z: usize,
    pub vectors: usize,
    pub base: usize,
    pub sum: usize,
    pub delta: usize,
    pub room: usize,
}

/// A buffer that starts empty.
#[derive(Debug)]
pub struct Floats(pub Buffer<f32>);

impl Default for Floats {
    fn default() -> Self {
        Self(Buffer::empty())
    }
}

impl Scratch {
    pub fn reserve(&mut self, allocator: &Allocator, sizes: &Sizes) -> Result<()> {
        for (floats, size) in self.all_mut().into_iter().zip(sizes.all()) {
            floats.0.reserve(allocator, size)?;
        }
        Ok(())
    }

    pub fn bytes(&self) -> usize {
        let Self { x, gathered, p, z, vectors, base, sum, delta, room } = self;
        let floats = [x, gathered, p, z, vectors, base, sum, delta, room];
        floats.iter().map(|floats| floats.0.len() * size_of::<f32>()).sum()
    }

    fn all_mut(&mut self) -> [&mut Floats; 9] {
        let Self { x, gathered, p, z, vectors, base, sum, delta, room } = self;
        [x, gathered, p, z, vectors, base, sum, delta, room]
    }
}

impl Sizes {
    fn all(&self) -> [usize; 9] {
        let Self { x, gathered, p, z, vectors, base, sum, delta, room } = *self;
        [x, gathered, p, z, vectors, base, sum, delta, room]
    }

    /// Bytes of one lane's scratch.
    pub fn bytes(&self) -> usize {
        self.all().iter().sum::<usize>() * size_of::<f32>()
    }

    /// What suffices for both.
    pub fn max(self, other: Self) -> Self {
        Self {
            x: self.x.max(other.x),
            gathered: self.gathered.max(other.gathered),
            p: self.p.max(other.p),
            z: self.z.max(other.z),
            vectors: self.vectors.max(other.vectors),
            base: self.base.max(other.base),
            sum: self.sum.max(other.sum),
            delta: self.delta.max(other.delta),
            room: self.room.max(other.room),
        }
    }
}

/// f32 lent by the workers for the time of a call; they go back when it is dropped. Not zeroed.
#[derive(Debug)]
pub struct Lent<'a> {
    pub(super) buffer: Buffer<f32>,
    pub(super) length: usize,
    pub(super) home: &'a Mutex<Vec<Buffer<f32>>>,
}

impl Deref for Lent<'_> {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.buffer[..self.length]
    }
}

impl DerefMut for Lent<'_> {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.buffer[..self.length]
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        let mut home = lock(self.home);
        if home.try_reserve(1).is_ok() {
            home.push(std::mem::replace(&mut self.buffer, Buffer::empty()));
        }
    }
}
