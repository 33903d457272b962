//! The flat parameters of one adapter: every layer's λ_b, λ_d and learned bias in one array of f32, so that gradients,
//! optimiser state and an all-reduce over many machines share one layout.

use std::ops::Range;
#[cfg(feature = "cuda")]
use std::sync::Arc;

#[cfg(feature = "cuda")]
use crate::backend::cuda;
use crate::error::Result;
use crate::fail;
use crate::memory::{Allocator, Buffer};
use crate::tensor::{Device, Vector};

/// Owned, or the caller's; of one piece, or (a standalone layer of the caller's tensors) of a piece for each vector.
#[derive(Debug)]
pub struct Parameters {
    pieces: Pieces,
    /// Keeps the memory when it is ours; None when the caller lends it.
    owned: Option<Buffer<f32>>,
    device: Device,
    /// The device that the caller's memory is on, where it has to be read or written from here.
    #[cfg(feature = "cuda")]
    on_cuda: Option<Arc<cuda::Device>>,
}

#[derive(Clone, Copy, Debug)]
enum Pieces {
    One(Piece),
    /// λ_b, λ_d and the learned bias (of length 0 when there is none), one after the other.
    Apart([Piece; 3]),
}

#[derive(Clone, Copy, Debug)]
struct Piece {
    memory: *mut f32,
    length: usize,
}

// SAFETY: f32 behind pointers that are ours, or that the caller lends under the rules of `Adapter::trainable_in`.
unsafe impl Send for Parameters {}
// SAFETY: as above; written only through `&mut`, or by the caller between calls.
unsafe impl Sync for Parameters {}

/// Where one layer's vectors lie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ranges {
    pub lambda_b: Span,
    pub lambda_d: Span,
    pub bias: Option<Span>,
}

/// A range that can be copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    pub start: usize,
    pub count: usize,
}

impl Span {
    pub fn range(self) -> Range<usize> {
        self.start..self.start + self.count
    }
}

impl Piece {
    fn of(name: &str, memory: *mut f32, length: usize) -> Result<Self> {
        if length == 0 {
            return Ok(Self { memory: std::ptr::NonNull::dangling().as_ptr(), length });
        }
        if memory.is_null() {
            fail!(Null, "{name} is NULL; wanted {length} f32");
        }
        if !memory.is_aligned() {
            fail!(Argument, "{name} is {memory:p}; wanted an address aligned to 4 bytes");
        }
        Ok(Self { memory, length })
    }

    fn get(&self) -> &[f32] {
        // SAFETY: `length` floats live there, by the constructors.
        unsafe { std::slice::from_raw_parts(self.memory, self.length) }
    }
}

impl Parameters {
    fn nowhere() -> Self {
        let none = Piece { memory: std::ptr::NonNull::dangling().as_ptr(), length: 0 };
        Self {
            pieces: Pieces::One(none),
            owned: None,
            device: Device::Host,
            #[cfg(feature = "cuda")]
            on_cuda: None,
        }
    }

    pub fn zeroed(allocator: &Allocator, length: usize) -> Result<Self> {
        Ok(Self::from(Buffer::zeroed(allocator, length)?))
    }

    /// A copy of these, in one piece.
    pub fn duplicate(&self, allocator: &Allocator) -> Result<Self> {
        let mut copy = Self::zeroed(allocator, self.len())?;
        #[cfg(feature = "cuda")]
        if let (Some(device), Pieces::One(piece)) = (&self.on_cuda, &self.pieces) {
            // SAFETY: as many floats lie there, by the promise of `duplicate_on`.
            unsafe { device.read_back(bytemuck::cast_slice_mut(copy.all_mut()), piece.memory.addr() as u64)? };
            return Ok(copy);
        }
        self.on_host_only()?;
        let mut place = copy.all_mut();
        for piece in self.pieces() {
            let (own, rest) = place.split_at_mut(piece.length);
            own.copy_from_slice(piece.get());
            place = rest;
        }
        Ok(copy)
    }

    /// Copies these into the caller's memory; the copy lives there from now on.
    ///
    /// # Safety
    /// As for `Adapter::trainable_in`, for `len()` floats.
    pub unsafe fn duplicate_in(&self, memory: *mut f32) -> Result<Self> {
        self.on_host_only()?;
        let whole = Piece::of("memory", memory, self.len())?;
        let mut start = 0;
        for piece in self.pieces() {
            // SAFETY: the caller's promise. `copy` allows that the caller passes the very memory the values lie in.
            unsafe { std::ptr::copy(piece.memory, whole.memory.add(start), piece.length) };
            start += piece.length;
        }
        Ok(Self { pieces: Pieces::One(whole), owned: None, ..Self::nowhere() })
    }

    /// Copies these into the caller's memory on a device, in the order of its stream; the copy lives there from now on.
    ///
    /// # Safety
    /// As for `Adapter::trainable_in`, for `len()` floats on the device.
    #[cfg(feature = "cuda")]
    pub unsafe fn duplicate_on(&self, device: &Arc<cuda::Device>, memory: *mut f32) -> Result<Self> {
        let whole = Piece::of("memory", memory, self.len())?;
        let values = self.duplicate(&Allocator::default())?;
        // SAFETY: the caller's promise.
        unsafe { device.write(memory.addr() as u64, bytemuck::cast_slice(values.all()))? };
        let (pieces, place) = (Pieces::One(whole), device.place());
        Ok(Self { pieces, device: place, on_cuda: Some(device.clone()), ..Self::nowhere() })
    }

    fn on_host_only(&self) -> Result<()> {
        if self.device != Device::Host {
            fail!(Device, "the adapter's parameters are on {}; wanted them on the CPU", self.device);
        }
        Ok(())
    }

    /// The vectors of one layer, where the caller keeps them.
    ///
    /// # Safety
    /// As for `Adapter::trainable_in`, for each vector and its length.
    pub unsafe fn apart(
        lambda_b: (*const f32, usize),
        lambda_d: (*const f32, usize),
        bias: (*const f32, usize),
        device: Device,
    ) -> Result<Self> {
        let pieces = [
            Piece::of("vectors.lambda_b", lambda_b.0.cast_mut(), lambda_b.1)?,
            Piece::of("vectors.lambda_d", lambda_d.0.cast_mut(), lambda_d.1)?,
            Piece::of("vectors.bias", bias.0.cast_mut(), bias.1)?,
        ];
        Ok(Self { pieces: Pieces::Apart(pieces), device, ..Self::nowhere() })
    }

    fn pieces(&self) -> &[Piece] {
        match &self.pieces {
            Pieces::One(piece) => std::slice::from_ref(piece),
            Pieces::Apart(pieces) => pieces,
        }
    }

    pub fn len(&self) -> usize {
        self.pieces().iter().map(|piece| piece.length).sum()
    }

    /// Whether the vectors lie apart, where the caller keeps them and only the caller writes them.
    pub fn is_apart(&self) -> bool {
        matches!(self.pieces, Pieces::Apart(_))
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The flat array. Vectors that lie apart have none.
    pub fn all(&self) -> &[f32] {
        assert!(self.device == Device::Host, "parameters on {} are not read here", self.device);
        match &self.pieces {
            Pieces::One(piece) => piece.get(),
            Pieces::Apart(_) => &[],
        }
    }

    /// Where the flat array lies.
    pub fn memory(&self) -> *mut f32 {
        match &self.pieces {
            Pieces::One(piece) => piece.memory,
            Pieces::Apart(_) => std::ptr::null_mut(),
        }
    }

    pub fn all_mut(&mut self) -> &mut [f32] {
        assert!(self.device == Device::Host, "parameters on {} are not written here", self.device);
        match &mut self.pieces {
            // SAFETY: as in `Piece::get`, and `self` is exclusive.
            Pieces::One(piece) => unsafe { std::slice::from_raw_parts_mut(piece.memory, piece.length) },
            Pieces::Apart(_) => &mut [],
        }
    }

    /// Where they lie.
    pub fn device(&self) -> Device {
        self.device
    }

    /// One vector, wherever it lies.
    pub fn vector(&self, span: &Span) -> Vector<'_> {
        let (piece, first) = self.place(span);
        // SAFETY: by the constructors, the piece has `length` floats on its device.
        unsafe { Vector::new(piece.memory, piece.length, self.device) }.part(first, span.count)
    }

    /// One vector on the host.
    pub fn get(&self, span: &Span) -> &[f32] {
        self.vector(span).on_host()
    }

    /// The piece that a span lies in, and where in it.
    fn place(&self, span: &Span) -> (&Piece, usize) {
        match &self.pieces {
            Pieces::One(piece) => (piece, span.start),
            Pieces::Apart(pieces) => {
                let mut start = 0;
                for piece in pieces {
                    if span.start == start && span.count == piece.length {
                        return (piece, 0);
                    }
                    start += piece.length;
                }
                unreachable!("the spans of a standalone layer are its pieces")
            }
        }
    }

    /// One vector, to be written. Vectors that lie apart are the caller's alone to write.
    pub fn get_mut(&mut self, span: &Span) -> &mut [f32] {
        &mut self.all_mut()[span.range()]
    }

    /// Whether the memory is the caller's.
    pub fn is_borrowed(&self) -> bool {
        self.owned.is_none()
    }
}

impl From<Buffer<f32>> for Parameters {
    fn from(mut buffer: Buffer<f32>) -> Self {
        let piece = Piece { memory: buffer.as_mut_ptr(), length: buffer.len() };
        Self { pieces: Pieces::One(piece), owned: Some(buffer), ..Self::nowhere() }
    }
}
