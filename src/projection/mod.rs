//! The shared store: the frozen random pair A and B that serves every layer.

mod frozen;
mod intern;
#[cfg(test)]
mod tests;

pub use frozen::Frozen;
pub use intern::Interned;

use crate::backend::Weight;
use crate::backend::cpu::{FloatMode, Packs, Pair, Uses};
use crate::config::Method;
use crate::error::Result;
use crate::fail;
use crate::memory::{Allocator, Buffer};
use crate::noise::{Mt19937, draw_projection, projection_bound};
use crate::tensor::Dtype;

/// `A [2r, in_max]` and `B [out_max, r]`; for VeRA, which has no logvar, `A [r, in_max]`. A layer uses `A[:, :in]` and
/// `B[:out, :]`.
#[derive(Debug)]
pub struct Store {
    a: Frozen,
    b: Frozen,
    /// The element type that a saved checkpoint holds them in.
    saved_dtype: Dtype,
    origin: Option<Origin>,
    digest: u64,
    packs: Packs,
}

/// What a store was drawn from, and how its values were rounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    pub key: u64,
    pub rounding: Rounding,
}

/// How values drawn from a key are rounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounding {
    /// To the element type of the base model, as PEFT does.
    To(Dtype),
    /// To integers from −127 to 127 times one factor for A and one for B: a packed value then takes one byte, and loses
    /// nothing. No key of PEFT draws such a store, so that its checkpoints hold it.
    Int8Grid,
}

impl From<Dtype> for Rounding {
    fn from(dtype: Dtype) -> Self {
        Rounding::To(dtype)
    }
}

impl Rounding {
    /// Rounds values that were drawn uniformly from ±`bound`.
    pub(crate) fn round(self, values: &mut [f32], bound: f32) {
        match self {
            Rounding::To(Dtype::F32) => {}
            Rounding::To(dtype) => values.iter_mut().for_each(|value| *value = dtype.rounded(*value)),
            Rounding::Int8Grid => {
                // Sixteen significant bits, so that every product is exact: the kernels find the factor again as the
                // largest value over 127.
                let factor = f32::from_bits((bound / GRID).to_bits() & !0xff);
                values.iter_mut().for_each(|value| *value = f32::from((*value / factor).round() as i8) * factor);
            }
        }
    }
}

/// The largest integer of the grid.
const GRID: f32 = 127.0;

/// Values drawn between two looks at the watch: some milliseconds' work.
const WATCHED: usize = 1 << 20;

/// How large a store drawn from a key is, and how its values are rounded.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    pub method: Method,
    pub rank: usize,
    pub in_max: usize,
    pub out_max: usize,
}

impl Store {
    /// What PEFT draws from `projection_prng_key`, bit for bit: one MT19937 stream, all of A, then all of B.
    ///
    /// PEFT casts A and B to the element type of the base model first.
    pub fn from_key(allocator: &Allocator, key: u64, size: Size, rounding: impl Into<Rounding>) -> Result<Self> {
        Self::from_key_watched(allocator, key, size, rounding, &mut |_, _| Ok(()))
    }

    /// The same, with `watch(values drawn, values in all)` called now and then; its error ends the draw.
    pub fn from_key_watched(
        allocator: &Allocator,
        key: u64,
        size: Size,
        rounding: impl Into<Rounding>,
        watch: &mut dyn FnMut(u64, u64) -> Result<()>,
    ) -> Result<Self> {
        // The bits are PyTorch's under the mode that every process starts in; a host may have set another.
        let _mode = FloatMode::enter();
        let (rounding, Size { method, rank, in_max, out_max }) = (rounding.into(), size);
        for (name, value) in [("rank", rank), ("in_max", in_max), ("out_max", out_max)] {
            if value == 0 {
                fail!(Argument, "{name} is 0; wanted at least 1, to draw projections from the key");
            }
        }
        if rank.checked_mul(2).is_none() {
            fail!(Argument, "rank is {rank}; that is too large");
        }
        let rows_of_a = method.a_rows(rank);
        let counts = (frozen::elements("A", rows_of_a, in_max)?, frozen::elements("B", out_max, rank)?);
        let (mut drawn, total) = (0u64, counts.0 as u64 + counts.1 as u64);
        let mut stream = Mt19937::new(key);
        let mut draw = |count: usize, rows: usize, cols: usize| {
            let mut values = Buffer::<f32>::zeroed(allocator, count)?;
            for piece in values.chunks_mut(WATCHED) {
                watch(drawn, total)?;
                draw_projection(&mut stream, cols, piece);
                rounding.round(piece, projection_bound(cols));
                drawn += piece.len() as u64;
            }
            Frozen::from_f32(allocator, &values, rows, cols)
        };
        let a = draw(counts.0, rows_of_a, in_max)?;
        let b = draw(counts.1, out_max, rank)?;
        // PEFT's autocast_adapter_dtype stores rounded projections in f32.
        let origin = Some(Origin { key, rounding });
        Ok(Self { origin, ..Self::new(a, b, Dtype::F32)? })
    }

    /// A store of given matrices.
    pub fn new(a: Frozen, b: Frozen, saved_dtype: Dtype) -> Result<Self> {
        let rank = b.cols();
        if a.rows() != rank && Some(a.rows()) != rank.checked_mul(2) {
            fail!(Projection, "B has {rank} columns and A has {} rows; wanted r and 2r (or r, for VeRA)", a.rows());
        }
        if rank == 0 || a.cols() == 0 || b.rows() == 0 {
            fail!(Projection, "A is {}×{} and B is {}×{}; wanted no empty one", a.rows(), a.cols(), b.rows(), b.cols());
        }
        for (name, matrix) in [("A", &a), ("B", &b)] {
            if !matrix.all_finite() {
                fail!(Projection, "{name} holds a value that is not finite");
            }
        }
        let digest = b.digest(a.digest(0));
        let packs = Packs::new(a.allocator());
        Ok(Self { a, b, saved_dtype, origin: None, digest, packs })
    }

    pub fn rank(&self) -> usize {
        self.b.cols()
    }

    /// Whose adapters it serves: VeRA's where A has no logvar half.
    pub fn method(&self) -> Method {
        if self.a.rows() == self.rank() { Method::Vera } else { Method::Pvera }
    }

    pub fn in_max(&self) -> usize {
        self.a.cols()
    }

    pub fn out_max(&self) -> usize {
        self.b.rows()
    }

    pub fn a(&self) -> &Frozen {
        &self.a
    }

    pub fn b(&self) -> &Frozen {
        &self.b
    }

    pub fn saved_dtype(&self) -> Dtype {
        self.saved_dtype
    }

    /// The key that it was drawn from here; None where it was given or read.
    pub fn origin(&self) -> Option<Origin> {
        self.origin
    }

    /// Bytes held resident.
    pub fn bytes(&self) -> usize {
        self.a.bytes() + self.b.bytes() + self.packs.bytes()
    }

    /// Whether a part of it lies in a mapped file.
    pub fn is_mapped(&self) -> bool {
        self.a.is_mapped() || self.b.is_mapped()
    }

    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// Equal values of equal shapes; storage and origin do not matter.
    pub fn same_values(&self, other: &Self) -> bool {
        self.digest == other.digest && self.a.same_values(&other.a) && self.b.same_values(&other.b)
    }

    /// `A[:, offset .. offset + inputs]`, for a layer of this store.
    pub fn a_slice(&self, offset: usize, inputs: usize) -> Weight<'_> {
        self.a.weight().inputs_from(offset, inputs)
    }

    /// `B[offset .. offset + outputs, :]`.
    pub fn b_slice(&self, offset: usize, outputs: usize) -> Weight<'_> {
        self.b.weight().outputs_from(offset, outputs)
    }

    /// A and B for the kernels, as a layer that begins at these offsets sees them.
    pub fn pair(&self, in_offset: usize, out_offset: usize) -> Pair<'_> {
        Pair { packs: &self.packs, a: self.a.weight(), b: self.b.weight(), in_offset, out_offset }
    }

    /// Packs now what these uses need; without this, it is packed when first used.
    pub fn pack(&self, uses: Uses) -> Result<()> {
        self.pair(0, 0).pack(uses)
    }

    /// Bytes that the packed forms for these uses take.
    pub fn packed_bytes(&self, uses: Uses) -> Result<usize> {
        self.pair(0, 0).packed_bytes(uses)
    }

    /// Whether a layer of this whole size fits.
    pub fn covers(&self, layer: &str, in_total: usize, out_total: usize) -> Result<()> {
        if in_total > self.in_max() || out_total > self.out_max() {
            fail!(
                Projection,
                "layer '{layer}' is {in_total} → {out_total}; the store covers at most in_max {} → out_max {}",
                self.in_max(),
                self.out_max()
            );
        }
        Ok(())
    }
}
