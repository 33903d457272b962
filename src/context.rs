//! Where work runs: a backend, its threads and its scratch memory.

#[cfg(feature = "cuda")]
use std::cell::OnceCell;
#[cfg(feature = "cuda")]
use std::sync::Arc;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::backend::Backend;
use crate::backend::cpu::{Arithmetic, Cpu, FloatMode, Lent, ParallelFor, Workers};
#[cfg(feature = "cuda")]
use crate::backend::cuda::{self, Cuda};
use crate::backend::reference::Reference;
use crate::error::{Error, Result};
use crate::memory::{Allocator, Arena};
use crate::simd::{Features, Isa};
use crate::tensor::{Device, Dtype, Matrix, MatrixMut, Parts};

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
    /// Computes instead of the CPU.
    #[cfg(feature = "cuda")]
    cuda: Option<Arc<cuda::Device>>,
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
            #[cfg(feature = "cuda")]
            cuda: None,
            arenas: Mutex::default(),
        })
    }

    /// On a CUDA stream. The allocator is for lists on the host.
    #[cfg(feature = "cuda")]
    pub fn on_cuda(device: Arc<cuda::Device>, allocator: Allocator) -> Result<Self> {
        Ok(Self { cuda: Some(device), ..Self::new(Kind::Cpu, 0, None, allocator)? })
    }

    /// The CUDA device that computes, if one does.
    #[cfg(feature = "cuda")]
    pub fn cuda(&self) -> Option<&Arc<cuda::Device>> {
        self.cuda.as_ref()
    }

    /// What went wrong while queued work ran, once.
    pub fn check(&self) -> Result<()> {
        #[cfg(feature = "cuda")]
        if let Some(fault) = self.cuda.as_ref().map(|device| device.take_fault()).transpose()?.flatten() {
            return Err(fault.error());
        }
        Ok(())
    }

    /// Where the matrices of its calls lie.
    pub fn place(&self) -> Device {
        #[cfg(feature = "cuda")]
        if let Some(device) = &self.cuda {
            return device.place();
        }
        Device::Host
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
        Frame {
            context: self,
            arena,
            #[cfg(feature = "cuda")]
            turn: OnceCell::new(),
            _mode: FloatMode::enter(),
        }
    }

    pub fn allocator(&self) -> &Allocator {
        self.workers.allocator()
    }

    /// Bytes of scratch held between calls, where the context computes.
    pub fn scratch_bytes(&self) -> usize {
        #[cfg(feature = "cuda")]
        if let Some(device) = &self.cuda {
            return device.workspace_bytes();
        }
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
    /// Taken when the first work is queued.
    #[cfg(feature = "cuda")]
    turn: OnceCell<cuda::Turn<'c>>,
    _mode: FloatMode,
}

/// Room for a matrix of f32, where the context computes, for the time of a call.
pub struct LentMatrix<'f> {
    memory: Option<Lent<'f>>,
    /// On a device.
    address: *mut u8,
    parts: Parts,
}

impl<'c> Frame<'c> {
    /// For the lists of this call.
    pub fn arena(&self) -> &Arena {
        &self.arena
    }

    /// Lends room for a matrix of f32.
    pub fn lend(&self, rows: usize, cols: usize) -> Result<LentMatrix<'_>> {
        let parts = Parts { rows, cols, row_stride: cols, dtype: Dtype::F32, device: self.context.place() };
        #[cfg(feature = "cuda")]
        if let Some(turn) = self.turn()? {
            let address = std::ptr::without_provenance_mut(turn.take_f32(rows, cols)? as usize);
            return Ok(LentMatrix { memory: None, address, parts });
        }
        let Some(length) = rows.checked_mul(cols) else { return Err(Error::out_of_memory()) };
        Ok(LentMatrix { memory: Some(self.context.workers.lend(length)?), address: std::ptr::null_mut(), parts })
    }

    /// The call's hold on the CUDA device, if there is one.
    #[cfg(feature = "cuda")]
    fn turn(&self) -> Result<Option<&cuda::Turn<'c>>> {
        let Some(device) = &self.context.cuda else { return Ok(None) };
        if self.turn.get().is_none() {
            let turn = device.turn()?;
            let _ = self.turn.set(turn);
        }
        Ok(self.turn.get())
    }

    /// Runs work on the context's backend.
    pub fn with_backend<T>(&self, work: impl FnOnce(&dyn Backend) -> Result<T>) -> Result<T> {
        #[cfg(feature = "cuda")]
        if let Some(turn) = self.turn()? {
            return work(&Cuda { turn, arena: &self.arena });
        }
        match self.context.kind {
            Kind::Cpu => {
                let Context { workers, arithmetic, .. } = self.context;
                work(&Cpu { workers, arena: &self.arena, arithmetic: *arithmetic })
            }
            Kind::Reference => work(&Reference),
        }
    }
}

impl LentMatrix<'_> {
    pub fn matrix(&mut self) -> MatrixMut<'_> {
        let address = self.memory.as_mut().map_or(self.address, |memory| memory.as_mut_ptr().cast());
        // SAFETY: lent for these parts; exclusive as `self` is.
        unsafe { MatrixMut::new("p", address, self.parts) }.expect("what is lent is sound")
    }

    pub fn as_const(&self) -> Matrix<'_> {
        let address = self.memory.as_ref().map_or(self.address.cast_const(), |memory| memory.as_ptr().cast());
        // SAFETY: lent for these parts.
        unsafe { Matrix::new("p", address, self.parts) }.expect("what is lent is sound")
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
