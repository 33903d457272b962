//! The memory that a task works in. It grows to the largest call and stays.

use std::ops::{Deref, DerefMut};
use std::sync::Mutex;

use super::workers::lock;
use crate::error::Result;
use crate::memory::{Allocator, Buffer};

/// One lane's working memory, f32 each.
#[derive(Debug, Default)]
pub struct Scratch {
    /// Rows of x (or dy), widened, masked or gathered.
    pub x: Floats,
    /// Rows of p or dp.
    pub p: Floats,
    /// Latents, noise beside them.
    pub z: Floats,
    pub eps: Floats,
    /// A product with B or A, before it is added.
    pub delta: Floats,
    /// Rows of y while they are summed, and the base product beside them.
    pub sum: Floats,
    /// A panel of a 16-bit weight, widened.
    pub weight: Floats,
}

/// How many f32 of each a call needs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sizes {
    pub x: usize,
    pub p: usize,
    pub z: usize,
    pub eps: usize,
    pub delta: usize,
    pub sum: usize,
    pub weight: usize,
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
        self.x.0.reserve(allocator, sizes.x)?;
        self.p.0.reserve(allocator, sizes.p)?;
        self.z.0.reserve(allocator, sizes.z)?;
        self.eps.0.reserve(allocator, sizes.eps)?;
        self.delta.0.reserve(allocator, sizes.delta)?;
        self.sum.0.reserve(allocator, sizes.sum)?;
        self.weight.0.reserve(allocator, sizes.weight)
    }

    pub fn bytes(&self) -> usize {
        let floats = [&self.x, &self.p, &self.z, &self.eps, &self.delta, &self.sum, &self.weight];
        floats.iter().map(|floats| floats.0.len() * size_of::<f32>()).sum()
    }
}

impl Sizes {
    /// What suffices for both.
    pub fn max(self, other: Self) -> Self {
        Self {
            x: self.x.max(other.x),
            p: self.p.max(other.p),
            z: self.z.max(other.z),
            eps: self.eps.max(other.eps),
            delta: self.delta.max(other.delta),
            sum: self.sum.max(other.sum),
            weight: self.weight.max(other.weight),
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
