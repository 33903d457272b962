//! The adapted layer: from a request (which adapter for which row, which noise) to a backend's call.

mod compute;
mod merge;
mod overlap;
mod plan;
mod request;
mod tape;
mod training;

pub use compute::{expand, forward, latent, moments, project, project_width, sample, scratch_bytes};
pub use merge::{MergeRequest, MergeUndo, merge, merge_rows};
pub use request::{Choice, ModeChoice, Noise, Request, Rows};
pub use tape::{Policy, Tape};
pub use training::{SlotGradients, VarianceTarget, Wanted, backward, record};

use std::sync::Arc;

use crate::adapter::Adapter;
use crate::backend::cpu::{Base, BasePacks, Uses};
use crate::error::Result;
use crate::fail;
use crate::model::{Layer, Layers, Slots};
use crate::tensor::Device;

/// One layer and the adapters that may run on it. Cheap to clone; immutable.
#[derive(Clone, Debug)]
pub struct Linear {
    layers: Arc<Layers>,
    index: usize,
    slots: Arc<Slots>,
    /// Of the layer's name; computed once, since every call draws under it.
    hash: u64,
}

impl Linear {
    pub fn new(layers: Arc<Layers>, index: usize, slots: Arc<Slots>) -> Self {
        let hash = layers.get(index).expect("a declared layer").hash();
        Self { layers, index, slots, hash }
    }

    /// A layer with one adapter, in slot 0.
    pub fn single(adapter: Arc<Adapter>, index: usize) -> Self {
        Self::new(adapter.layers().clone(), index, Arc::new(Slots::single(adapter)))
    }

    pub fn layer(&self) -> &Layer {
        self.layers.get(self.index).expect("checked when it was made")
    }

    /// The layer's base weight, if the host declared one.
    pub fn base(&self) -> Option<Base<'_>> {
        let packs = self.layers.packs(self.index);
        self.layer().base().map(|weight| Base { weight, packs })
    }

    /// Packs the base weight for these uses, for every linear of the layer; what was packed before stays.
    pub fn pack_base(&self, uses: Uses) -> Result<()> {
        let base = self.base_to_pack()?;
        base.packs.pack(self.layers.allocator(), &base.weight, uses)
    }

    /// Bytes that the base weight's packed forms for these uses take.
    pub fn packed_base_bytes(&self, uses: Uses) -> Result<usize> {
        BasePacks::packed_bytes(&self.base_to_pack()?.weight, uses)
    }

    fn base_to_pack(&self) -> Result<Base<'_>> {
        match self.base() {
            Some(_) if self.layer().place_of_weight() != Device::Host => fail!(
                Device,
                "the base weight of layer '{}' is on {}; only one on the CPU is packed",
                self.layer().name,
                self.layer().place_of_weight()
            ),
            Some(base) => Ok(base),
            None => {
                fail!(State, "layer '{}' was declared without a weight; there is nothing to pack", self.layer().name)
            }
        }
    }

    /// The key under which the layer draws its noise.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    pub fn index(&self) -> usize {
        self.index
    }

    pub fn slots(&self) -> &Slots {
        &self.slots
    }
}
