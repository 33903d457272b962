//! Frozen matrices, packed once for the kernels: when first used, or when the host asks.

use std::sync::{Mutex, OnceLock};

use super::panels::Panels;
use super::product::Operand;
use crate::backend::Weight;
use crate::backend::lock::lock;
use crate::error::Result;
use crate::memory::Allocator;

/// Panels that are packed at most once.
#[derive(Debug, Default)]
struct Lazy {
    panels: OnceLock<Panels>,
    packing: Mutex<()>,
}

impl Lazy {
    fn get(&self, pack: impl FnOnce() -> Result<Panels>) -> Result<&Panels> {
        if let Some(panels) = self.panels.get() {
            return Ok(panels);
        }
        // One thread packs, the others wait: two copies would be twice the memory.
        let _packing = lock(&self.packing);
        if let Some(panels) = self.panels.get() {
            return Ok(panels);
        }
        let panels = pack()?;
        Ok(self.panels.get_or_init(|| panels))
    }

    fn bytes(&self) -> usize {
        self.panels.get().map_or(0, Panels::bytes)
    }
}

/// What a packing is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Uses {
    pub forward: bool,
    pub backward: bool,
}

/// The packed forms of a store's A and B.
#[derive(Debug, Default)]
pub struct Packs {
    allocator: Allocator,
    mean: Lazy,
    logvar: Lazy,
    b: Lazy,
    a_transposed: Lazy,
    b_transposed: Lazy,
}

impl Packs {
    pub fn new(allocator: Allocator) -> Self {
        Self { allocator, ..Self::default() }
    }

    /// Bytes held now.
    pub fn bytes(&self) -> usize {
        let Self { mean, logvar, b, a_transposed, b_transposed, .. } = self;
        [mean, logvar, b, a_transposed, b_transposed].map(Lazy::bytes).iter().sum()
    }
}

/// A store's pair as one layer (or its shard) sees it, for products with packed weights.
#[derive(Clone, Copy, Debug)]
pub struct Pair<'a> {
    pub packs: &'a Packs,
    /// `[2r, in_max]`, or `[r, in_max]`.
    pub a: Weight<'a>,
    /// `[out_max, r]`.
    pub b: Weight<'a>,
    pub in_offset: usize,
    pub out_offset: usize,
}

impl<'a> Pair<'a> {
    fn rank(&self) -> usize {
        self.b.inputs()
    }

    fn has_logvar(&self) -> bool {
        self.a.outputs() > self.rank()
    }

    /// x → mu's half of p.
    pub fn mean(&self) -> Result<Operand<'a>> {
        let half = self.a.outputs_from(0, self.rank());
        let panels = self.packs.mean.get(|| Panels::new(&self.packs.allocator, &half, false))?;
        Ok(Operand::Packed { panels, first_output: 0, first_k: self.in_offset })
    }

    /// x → logvar's half of p.
    pub fn logvar(&self) -> Result<Operand<'a>> {
        let half = self.a.outputs_from(self.rank(), self.rank());
        let panels = self.packs.logvar.get(|| Panels::new(&self.packs.allocator, &half, false))?;
        Ok(Operand::Packed { panels, first_output: 0, first_k: self.in_offset })
    }

    /// z → y.
    pub fn expansion(&self) -> Result<Operand<'a>> {
        let panels = self.packs.b.get(|| Panels::new(&self.packs.allocator, &self.b, false))?;
        Ok(Operand::Packed { panels, first_output: self.out_offset, first_k: 0 })
    }

    /// dy → dz.
    pub fn expansion_transposed(&self) -> Result<Operand<'a>> {
        let transposed = self.b.transposed();
        let panels = self.packs.b_transposed.get(|| Panels::new(&self.packs.allocator, &transposed, false))?;
        Ok(Operand::Packed { panels, first_output: 0, first_k: self.out_offset })
    }

    /// dp → dx.
    pub fn projection_transposed(&self) -> Result<Operand<'a>> {
        let transposed = self.a.transposed();
        let panels = self.packs.a_transposed.get(|| Panels::new(&self.packs.allocator, &transposed, false))?;
        Ok(Operand::Packed { panels, first_output: self.in_offset, first_k: 0 })
    }

    /// Packs now what these uses will need.
    pub fn pack(&self, uses: Uses) -> Result<()> {
        if uses.forward {
            self.mean()?;
            if self.has_logvar() {
                self.logvar()?;
            }
            self.expansion()?;
        }
        if uses.backward {
            self.expansion_transposed()?;
            self.projection_transposed()?;
        }
        Ok(())
    }
}

impl Pair<'_> {
    /// Bytes that the packed forms for these uses take.
    pub fn packed_bytes(&self, uses: Uses) -> Result<usize> {
        let half = |first| Panels::bytes_for(&self.a.outputs_from(first, self.rank()), false);
        let mut bytes = 0;
        if uses.forward {
            bytes += half(0)? + Panels::bytes_for(&self.b, false)?;
            bytes += if self.has_logvar() { half(self.rank())? } else { 0 };
        }
        if uses.backward {
            let transposed = [self.a.transposed(), self.b.transposed()];
            bytes += Panels::bytes_for(&transposed[0], false)? + Panels::bytes_for(&transposed[1], false)?;
        }
        Ok(bytes)
    }
}

/// The packed forms of a layer's base weight, made only when the host asks.
#[derive(Debug, Default)]
pub struct BasePacks {
    forward: Lazy,
    backward: Lazy,
}

impl BasePacks {
    /// Packs the weight; what was packed before stays.
    pub fn pack(&self, allocator: &Allocator, weight: &Weight<'_>, uses: Uses) -> Result<()> {
        if uses.forward {
            self.forward.get(|| Panels::new(allocator, weight, true))?;
        }
        if uses.backward {
            self.backward.get(|| Panels::new(allocator, &weight.transposed(), true))?;
        }
        Ok(())
    }

    /// Bytes that the packed forms for these uses take.
    pub fn packed_bytes(weight: &Weight<'_>, uses: Uses) -> Result<usize> {
        let forward = if uses.forward { Panels::bytes_for(weight, true)? } else { 0 };
        let backward = if uses.backward { Panels::bytes_for(&weight.transposed(), true)? } else { 0 };
        Ok(forward + backward)
    }
}

/// A layer's base weight, with its packed forms where there are some.
#[derive(Clone, Copy, Debug)]
pub struct Base<'a> {
    pub weight: Weight<'a>,
    pub packs: &'a BasePacks,
}

impl<'a> Base<'a> {
    /// x → y.
    pub fn forward(&self) -> Operand<'a> {
        match self.packs.forward.panels.get() {
            Some(panels) => Operand::Packed { panels, first_output: 0, first_k: 0 },
            None => Operand::Lying(self.weight),
        }
    }

    /// dy → dx.
    pub fn backward(&self) -> Operand<'a> {
        match self.packs.backward.panels.get() {
            Some(panels) => Operand::Packed { panels, first_output: 0, first_k: 0 },
            None => Operand::Lying(self.weight.transposed()),
        }
    }
}
