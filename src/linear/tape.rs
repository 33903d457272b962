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
    pub(super) record: Record,
    /// Whether the record is of a forward that succeeded.
    holds: bool,
}

/// The request of the recorded forward, owned, in lists that keep their memory.
#[derive(Debug, Default)]
pub(super) struct Record {
    pub linears: Vec<Linear>,
    pub rows: usize,
    pub width: usize,
    slots: Copied<i32>,
    active: Copied<(i32, f32)>,
    identity: Copied<u64>,
    sample: Copied<u32>,
    /// Without their lists.
    keys: RowKeys<'static>,
    noise: Noise<'static>,
    /// Borrowed until backward under the policy Recompute; otherwise not looked at.
    pub x: Option<Matrix<'static>>,
    /// Of every λ that took part: backward refuses when the parameters moved.
    pub fingerprint: u64,
}

/// A copy of a list that a caller may leave out.
#[derive(Debug)]
struct Copied<T> {
    given: bool,
    values: Vec<T>,
}

impl Tape {
    pub fn new(policy: Policy, allocator: Allocator) -> Self {
        Self { policy, allocator, p: Buffer::empty(), kept: Vec::new(), record: Record::default(), holds: false }
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

    /// Says whether a backward may follow; if not, the adapters are let go.
    pub(super) fn set_holds(&mut self, holds: bool) {
        self.holds = holds;
        if !holds {
            self.record.linears.clear();
        }
    }

    pub(super) fn recorded(&self) -> Result<&Record> {
        if !self.holds {
            fail!(State, "the tape holds no forward; run one with it before backward");
        }
        Ok(&self.record)
    }
}

impl Record {
    /// Copies a request; its matrices stay borrowed.
    ///
    /// # Safety
    /// The matrices of the request, and x under Recompute, outlive the backward that uses this record.
    pub unsafe fn set(
        &mut self,
        linears: &[&Linear],
        x: &Matrix<'_>,
        width: usize,
        request: &Request<'_>,
        fingerprint: u64,
    ) -> Result<()> {
        let (keys, noise) = (&request.rows.keys, &request.noise);
        let (slots, active) = match request.rows.choice {
            Choice::First => (None, None),
            Choice::PerRow(slots) => (Some(slots), None),
            Choice::Sum(active) => (None, Some(active)),
        };
        self.slots.set(slots)?;
        self.active.set(active)?;
        self.identity.set(keys.identity)?;
        self.sample.set(keys.sample)?;
        self.linears.clear();
        self.linears.try_reserve(linears.len()).map_err(|_| Error::out_of_memory())?;
        self.linears.extend(linears.iter().copied().cloned());
        // SAFETY: the caller's promise.
        let forever = |matrix: Matrix<'_>| unsafe { matrix.forever() };
        self.rows = x.rows();
        self.width = width;
        self.keys = RowKeys { identity: None, sample: None, ..*keys };
        self.noise = Noise {
            mode: noise.mode,
            seed: noise.seed,
            antithetic: noise.antithetic,
            eps: noise.eps.map(forever),
            dropout_mask: noise.dropout_mask.map(forever),
        };
        self.x = Some(forever(*x));
        self.fingerprint = fingerprint;
        Ok(())
    }

    pub fn request(&self) -> Request<'_> {
        let choice = match (self.slots.get(), self.active.get()) {
            (Some(slots), _) => Choice::PerRow(slots),
            (None, Some(active)) => Choice::Sum(active),
            (None, None) => Choice::First,
        };
        let keys = RowKeys { identity: self.identity.get(), sample: self.sample.get(), ..self.keys };
        Request { rows: Rows { choice, keys }, noise: self.noise, training: true }
    }
}

impl<T> Default for Copied<T> {
    fn default() -> Self {
        Self { given: false, values: Vec::new() }
    }
}

impl<T: Copy> Copied<T> {
    fn set(&mut self, values: Option<&[T]>) -> Result<()> {
        self.given = values.is_some();
        self.values.clear();
        let values = values.unwrap_or(&[]);
        self.values.try_reserve(values.len()).map_err(|_| Error::out_of_memory())?;
        self.values.extend_from_slice(values);
        Ok(())
    }

    fn get(&self) -> Option<&[T]> {
        self.given.then_some(&self.values)
    }
}
