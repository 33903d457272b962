//! What a training forward leaves for backward. A tape is reused: its memory stays.

#[cfg(feature = "cuda")]
use std::sync::{Arc, Weak};

use super::Linear;
use super::request::{Choice, Noise, Request, Rows};
use crate::backend::RowKeys;
#[cfg(feature = "cuda")]
use crate::backend::cuda::{self, DeviceBuffer};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::fail;
use crate::memory::{Allocator, Buffer};
use crate::tensor::{Device, Matrix, MatrixMut};

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
    /// Where the record's numbers lie.
    place: Device,
    /// Whose stream orders them.
    #[cfg(feature = "cuda")]
    device: Option<Weak<cuda::Device>>,
    pub(super) p: Kept,
    pub(super) kept: Vec<Kept>,
    pub(super) record: Record,
    /// Whether the record is of a forward that succeeded.
    holds: bool,
}

/// Numbers that a tape keeps, in memory of the host or of a CUDA device.
#[derive(Debug)]
pub(super) struct Kept {
    on_host: Buffer<f32>,
    #[cfg(feature = "cuda")]
    on_cuda: Option<DeviceBuffer>,
}

impl Default for Kept {
    fn default() -> Self {
        Self {
            on_host: Buffer::empty(),
            #[cfg(feature = "cuda")]
            on_cuda: None,
        }
    }
}

impl Kept {
    /// Grows to at least `length`, where the context computes; what it held is lost when it has to grow.
    fn reserve(&mut self, context: &Context, allocator: &Allocator, length: usize) -> Result<()> {
        #[cfg(feature = "cuda")]
        {
            let fits = |kept: &DeviceBuffer| {
                kept.len() >= length && context.cuda().is_some_and(|device| Arc::ptr_eq(kept.device(), device))
            };
            if !self.on_cuda.as_ref().is_some_and(fits) {
                if self.on_cuda.as_ref().is_some_and(DeviceBuffer::is_captured) {
                    fail!(
                        State,
                        "the tape was used in a captured graph, which holds its addresses, and can neither grow nor move to another context; wanted a tape of its own for other shapes and contexts"
                    );
                }
                self.on_cuda = context.cuda().map(|device| DeviceBuffer::new(device, length)).transpose()?;
            }
            if let Some(kept) = &self.on_cuda {
                self.on_host = Buffer::empty();
                return kept.note_capture();
            }
        }
        let _ = context;
        self.on_host.reserve(allocator, length)
    }

    /// Takes note when a capture is under way, whose graph will hold its addresses.
    fn note_capture(&self) -> Result<()> {
        #[cfg(feature = "cuda")]
        if let Some(kept) = &self.on_cuda {
            kept.note_capture()?;
        }
        Ok(())
    }

    fn bytes(&self) -> usize {
        #[cfg(feature = "cuda")]
        if let Some(kept) = &self.on_cuda {
            return kept.len() * size_of::<f32>();
        }
        self.on_host.len() * size_of::<f32>()
    }

    pub fn matrix(&self, rows: usize, cols: usize) -> Matrix<'_> {
        #[cfg(feature = "cuda")]
        if let Some(kept) = &self.on_cuda {
            return kept.matrix(rows, cols);
        }
        Matrix::from_f32(&self.on_host, rows, cols)
    }

    pub fn matrix_mut(&mut self, rows: usize, cols: usize) -> MatrixMut<'_> {
        #[cfg(feature = "cuda")]
        if let Some(kept) = &mut self.on_cuda {
            return kept.matrix_mut(rows, cols);
        }
        MatrixMut::from_f32(&mut self.on_host, rows, cols)
    }
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
        Self {
            policy,
            allocator,
            place: Device::Host,
            #[cfg(feature = "cuda")]
            device: None,
            p: Kept::default(),
            kept: Vec::new(),
            record: Record::default(),
            holds: false,
        }
    }

    /// Makes room for p and, by policy, for z Bᵀ of each layer.
    pub(super) fn reserve(&mut self, context: &Context, p: usize, kept: &[usize]) -> Result<()> {
        self.place = context.place();
        #[cfg(feature = "cuda")]
        {
            self.device = context.cuda().map(Arc::downgrade);
        }
        if self.policy != Policy::Recompute {
            self.p.reserve(context, &self.allocator, p)?;
        }
        if self.policy == Policy::KeepDelta {
            self.kept.try_reserve(kept.len().saturating_sub(self.kept.len())).map_err(|_| Error::out_of_memory())?;
            while self.kept.len() < kept.len() {
                self.kept.push(Kept::default());
            }
            for (buffer, length) in self.kept.iter_mut().zip(kept) {
                buffer.reserve(context, &self.allocator, *length)?;
            }
        }
        Ok(())
    }

    /// Before a backward: a graph that captures it reads what is kept, which stays where it is from then on.
    pub(super) fn note_capture(&self) -> Result<()> {
        self.p.note_capture()?;
        self.kept.iter().try_for_each(Kept::note_capture)
    }

    /// Bytes held now.
    pub fn bytes(&self) -> usize {
        self.p.bytes() + self.kept.iter().map(Kept::bytes).sum::<usize>()
    }

    /// Whether the record's numbers are in the order of this context.
    pub(super) fn is_of(&self, context: &Context) -> bool {
        #[cfg(feature = "cuda")]
        if let Some(device) = context.cuda() {
            return self.device.as_ref().is_some_and(|own| own.as_ptr() == Arc::as_ptr(device));
        }
        let _ = context;
        true
    }

    pub(super) fn place(&self) -> Device {
        self.place
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

/// Slots and scales of adapters that are summed.
type Active<'a> = &'a [(i32, f32)];

/// The slots of a request, or its sum of adapters, which a tape keeps.
pub(super) fn kept_choice<'a>(request: &Request<'a>) -> Result<(Option<&'a [i32]>, Option<Active<'a>>)> {
    match request.rows.choice {
        Choice::First => Ok((None, None)),
        Choice::PerRow(slots) => Ok((Some(slots), None)),
        Choice::PerRowOnDevice(_) => fail!(
            Unsupported,
            "rows.slot is in device memory, and a tape keeps the slots; wanted slots on the host in a training forward"
        ),
        Choice::Sum(active) => Ok((None, Some(active))),
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
        let (slots, active) = kept_choice(request)?;
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
            seed_at: noise.seed_at,
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
