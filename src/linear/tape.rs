//! What a training forward leaves for backward. A tape is reused: its memory stays.

use super::Linear;
use super::request::{Choice, Noise, Request, Rows};
use crate::backend::RowKeys;
use crate::error::{Error, Result};
use crate::fail;
use crate::memory::{Allocator, Buffer};
use crate::tensor::Matrix;

/// What is kept, and what is computed again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// p: 2r floats a row for each distinct projection.
    #[default]
    KeepLatent,
    /// p and z Bᵀ: out floats more for each layer; the fastest backward.
    KeepDelta,
    /// Nothing but the keys; x is borrowed until backward.
    Recompute,
}

/// A reusable record of one forward.
#[derive(Debug)]
pub struct Tape {
    pub(super) policy: Policy,
    allocator: Allocator,
    pub(super) p: Buffer<f32>,
    pub(super) kept: Vec<Buffer<f32>>,
    pub(super) recorded: Option<Recorded>,
}

/// The request of the recorded forward, owned.
#[derive(Debug)]
pub(super) struct Recorded {
    pub linears: Vec<Linear>,
    pub rows: usize,
    pub width: usize,
    choice: OwnedChoice,
    identity: Option<Vec<u64>>,
    identity_base: u64,
    sample: Option<Vec<u32>>,
    sample_base: u32,
    noise: Noise<'static>,
    /// Borrowed until backward under the policy Recompute; otherwise not looked at.
    pub x: Matrix<'static>,
    /// Of every λ that took part: backward refuses when the parameters moved.
    pub fingerprint: u64,
}

#[derive(Debug)]
enum OwnedChoice {
    First,
    PerRow(Vec<i32>),
    Sum(Vec<(i32, f32)>),
}

impl Tape {
    pub fn new(policy: Policy, allocator: Allocator) -> Self {
        Self { policy, allocator, p: Buffer::empty(), kept: Vec::new(), recorded: None }
    }

    /// Makes room for p and, by policy, for z Bᵀ of each layer.
    pub(super) fn reserve(&mut self, p: usize, kept: &[usize]) -> Result<()> {
        if self.policy != Policy::Recompute {
            self.p.reserve(&self.allocator, p)?;
        }
        if self.policy == Policy::KeepDelta {
            self.kept.try_reserve(kept.len().saturating_sub(self.kept.len())).map_err(|_| Error::out_of_memory())?;
            while self.kept.len() < kept.len() {
                self.kept.push(Buffer::empty());
            }
            for (buffer, length) in self.kept.iter_mut().zip(kept) {
                buffer.reserve(&self.allocator, *length)?;
            }
        }
        Ok(())
    }

    /// Bytes held now.
    pub fn bytes(&self) -> usize {
        (self.p.len() + self.kept.iter().map(|buffer| buffer.len()).sum::<usize>()) * size_of::<f32>()
    }

    pub(super) fn recorded(&self) -> Result<&Recorded> {
        match &self.recorded {
            Some(recorded) => Ok(recorded),
            None => fail!(State, "the tape holds no forward; run one with it before backward"),
        }
    }
}

impl Recorded {
    /// Copies a request; its matrices stay borrowed.
    ///
    /// # Safety
    /// The matrices of the request, and x under Recompute, outlive the backward that uses this record.
    pub unsafe fn new(
        linears: &[&Linear],
        x: &Matrix<'_>,
        width: usize,
        request: &Request<'_>,
        fingerprint: u64,
    ) -> Result<Self> {
        let keys = &request.rows.keys;
        let choice = match request.rows.choice {
            Choice::First => OwnedChoice::First,
            Choice::PerRow(slots) => OwnedChoice::PerRow(copied(slots)?),
            Choice::Sum(active) => OwnedChoice::Sum(copied(active)?),
        };
        let mut own = Vec::new();
        own.try_reserve_exact(linears.len()).map_err(|_| Error::out_of_memory())?;
        own.extend(linears.iter().copied().cloned());
        // SAFETY: the caller's promise.
        let forever = |matrix: Matrix<'_>| unsafe { matrix.forever() };
        let noise = &request.noise;
        Ok(Self {
            linears: own,
            rows: x.rows(),
            width,
            choice,
            identity: keys.identity.map(copied).transpose()?,
            identity_base: keys.identity_base,
            sample: keys.sample.map(copied).transpose()?,
            sample_base: keys.sample_base,
            noise: Noise {
                eps: noise.eps.map(forever),
                dropout_mask: noise.dropout_mask.map(forever),
                ..without_matrices(noise)
            },
            x: forever(*x),
            fingerprint,
        })
    }

    pub fn request(&self) -> Request<'_> {
        let choice = match &self.choice {
            OwnedChoice::First => Choice::First,
            OwnedChoice::PerRow(slots) => Choice::PerRow(slots),
            OwnedChoice::Sum(active) => Choice::Sum(active),
        };
        let keys = RowKeys {
            identity: self.identity.as_deref(),
            identity_base: self.identity_base,
            sample: self.sample.as_deref(),
            sample_base: self.sample_base,
        };
        Request { rows: Rows { choice, keys }, noise: self.noise, training: true }
    }
}

fn without_matrices(noise: &Noise<'_>) -> Noise<'static> {
    Noise { mode: noise.mode, seed: noise.seed, antithetic: noise.antithetic, eps: None, dropout_mask: None }
}

fn copied<T: Copy>(values: &[T]) -> Result<Vec<T>> {
    let mut own = Vec::new();
    own.try_reserve_exact(values.len()).map_err(|_| Error::out_of_memory())?;
    own.extend_from_slice(values);
    Ok(own)
}
