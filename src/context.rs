//! Where work runs: a backend, its threads and its scratch memory.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::backend::Backend;
use crate::backend::cpu::{Arithmetic, Cpu, FloatMode, Lent, ParallelFor, Workers};
use crate::backend::reference::Reference;
use crate::error::Result;
use crate::memory::{Allocator, Arena};
use crate::simd::{Features, Isa};

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
    arithmetic: Arithmetic,
    /// As many as calls were once inside at the same time.
    arenas: Mutex<Vec<Arena>>,
}

impl Context {
    /// `threads` workers beside the calling thread, or the host's parallel-for with that many tasks beside the first.
    pub fn new(kind: Kind, threads: usize, parallel_for: Option<ParallelFor>, allocator: Allocator) -> Result<Self> {
        Ok(Self {
            kind,
            workers: Workers::new(allocator, threads, parallel_for)?,
            arithmetic: Arithmetic::default(),
            arenas: Mutex::default(),
        })
    }

    /// Leaves CPU features aside.
    pub fn without(mut self, masked: Features) -> Self {
        self.arithmetic.isa = Isa::without(masked);
        self
    }

    /// Makes base products of bf16 with bf16 in bf16 arithmetic.
    pub fn with_bf16_products(mut self) -> Self {
        self.arithmetic.bf16_products = true;
        self
    }

    /// The CPU features that its kernels use.
    pub fn features(&self) -> Features {
        self.arithmetic.isa.features()
    }

    /// Begins a call: its lists come from the frame, and numbers are rounded as the library does until it ends.
    pub fn enter(&self) -> Frame<'_> {
        let kept = self.arenas().pop();
        let mut arena = kept.unwrap_or_else(|| Arena::new(*self.allocator()));
        arena.reset();
        Frame { context: self, arena, _mode: FloatMode::enter() }
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
        self.workers.scratch_bytes() + self.arenas().iter().map(Arena::bytes).sum::<usize>()
    }

    fn arenas(&self) -> MutexGuard<'_, Vec<Arena>> {
        self.arenas.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One call inside a context, on one thread. Frames may be nested.
pub struct Frame<'c> {
    context: &'c Context,
    arena: Arena,
    _mode: FloatMode,
}

impl Frame<'_> {
    /// For the lists of this call.
    pub fn arena(&self) -> &Arena {
        &self.arena
    }

    /// Runs work on the context's backend.
    pub fn with_backend<T>(&self, work: impl FnOnce(&dyn Backend) -> T) -> T {
        match self.context.kind {
            Kind::Cpu => {
                let Context { workers, arithmetic, .. } = self.context;
                work(&Cpu { workers, arena: &self.arena, arithmetic: *arithmetic })
            }
            Kind::Reference => work(&Reference),
        }
    }
}

impl Drop for Frame<'_> {
    fn drop(&mut self) {
        let arena = std::mem::replace(&mut self.arena, Arena::new(*self.context.allocator()));
        let mut arenas = self.context.arenas();
        if arenas.try_reserve(1).is_ok() {
            arenas.push(arena);
        }
    }
}
