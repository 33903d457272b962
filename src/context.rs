//! Where work runs: a backend, its threads and its scratch memory.

use crate::backend::Backend;
use crate::backend::cpu::{Cpu, FloatMode, Lent, ParallelFor, Workers};
use crate::backend::reference::Reference;
use crate::error::Result;
use crate::memory::Allocator;

/// Which backend computes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// f32 kernels on the CPU.
    #[default]
    Cpu,
    /// Plain f64 code, the oracle; for checking, not for speed.
    Reference,
}

/// One place of work. Calls on one context from several threads are safe; each borrows scratch of its own.
#[derive(Debug)]
pub struct Context {
    kind: Kind,
    workers: Workers,
}

impl Context {
    /// `threads` workers beside the calling thread, or the host's parallel-for with that many tasks beside the first.
    pub fn new(kind: Kind, threads: usize, parallel_for: Option<ParallelFor>, allocator: Allocator) -> Result<Self> {
        Ok(Self { kind, workers: Workers::new(allocator, threads, parallel_for)? })
    }

    pub fn allocator(&self) -> &Allocator {
        self.workers.allocator()
    }

    /// Lends f32 for the time of a call.
    pub fn lend(&self, length: usize) -> Result<Lent<'_>> {
        self.workers.lend(length)
    }

    /// Bytes of scratch held between calls.
    pub fn scratch_bytes(&self) -> usize {
        self.workers.scratch_bytes()
    }

    /// Runs work on the backend, in the library's rounding mode; workers set it for themselves.
    pub fn with_backend<T>(&self, work: impl FnOnce(&dyn Backend) -> T) -> T {
        let _mode = FloatMode::enter();
        match self.kind {
            Kind::Cpu => work(&Cpu { workers: &self.workers }),
            Kind::Reference => work(&Reference),
        }
    }
}
