//! One adapter: its configuration, its store, and its two vectors for every layer.

mod combine;
mod create;
pub(crate) mod folder;
mod kind;
mod layout;
pub(crate) mod load;
mod parameters;
mod projections;
pub(crate) mod save;
pub(crate) mod source;
mod store_file;
mod tensors;
#[cfg(test)]
mod tests;

pub use create::Apart;
pub use folder::replace_file;
pub(crate) use folder::sync_folder;
pub use kind::Kind;
pub use load::LoadOptions;
pub use parameters::{Parameters, Ranges, Span};
pub use save::Checkpoint;
pub use source::Source;
pub(crate) use source::io;
pub use store_file::{read_store, store_from_memory};
pub use tensors::{ElementType, Tensor};

use std::sync::Arc;

use layout::Layout;

#[cfg(feature = "cuda")]
use crate::backend::cuda;
use crate::backend::{Copies, Original};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::fail;
use crate::memory::Allocator;
use crate::model::Layers;
use crate::projection::Store;
use crate::tensor::{Device, Dtype, Vector};

/// An adapter, bound to the layers that one model declares.
///
/// Immutable unless it is trainable. A trainable one is used by one thread at a time; publishing copies it.
#[derive(Debug)]
pub struct Adapter {
    layers: Arc<Layers>,
    config: Arc<Config>,
    store: Arc<Store>,
    identity: Option<u64>,
    parameters: Parameters,
    layout: Arc<Layout>,
    /// Everything else that the checkpoint holds.
    tensors: Vec<Tensor>,
    /// The element types of the checkpoint's vectors, of A and of B. A saved one has them again, where they hold
    /// today's values.
    saved_dtypes: SavedDtypes,
    trainable: bool,
    /// Of the parameters, while they do not change.
    copies: Copies,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct SavedDtypes {
    vectors: Dtype,
    a: Dtype,
    b: Dtype,
}

/// One layer's vectors, whole (not cut to a shard).
#[derive(Clone, Copy, Debug)]
pub struct Vectors<'a> {
    /// `[out_total]`.
    pub lambda_b: Vector<'a>,
    /// `[2r]`; `[r]` for VeRA.
    pub lambda_d: Vector<'a>,
    /// A learned bias `[out_total]`.
    pub bias: Option<Vector<'a>>,
    /// Whether inference samples this layer (PEFT's `sample_at_inference`).
    pub samples: bool,
}

impl Adapter {
    pub fn layers(&self) -> &Arc<Layers> {
        &self.layers
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// The number under which it draws noise, when it has one of its own.
    pub fn identity(&self) -> Option<u64> {
        self.identity
    }

    pub fn is_trainable(&self) -> bool {
        self.trainable
    }

    /// The vectors of a layer; None when the adapter does not adapt it.
    pub fn vectors(&self, layer: usize) -> Option<Vectors<'_>> {
        let entry = self.layout.find(layer)?;
        let Ranges { lambda_b, lambda_d, bias } = &entry.ranges;
        Some(Vectors {
            lambda_b: self.parameters.vector(lambda_b),
            lambda_d: self.parameters.vector(lambda_d),
            bias: bias.as_ref().map(|range| self.parameters.vector(range)),
            samples: entry.samples,
        })
    }

    /// Where a layer's vectors lie in the flat parameters.
    pub fn ranges(&self, layer: usize) -> Result<Ranges> {
        let name = &self.layers.get(layer)?.name;
        match self.layout.find(layer) {
            Some(entry) => Ok(entry.ranges),
            None => fail!(NotFound, "the adapter does not adapt layer '{name}'"),
        }
    }

    /// Numbers of the adapted layers, ascending.
    pub fn adapted_layers(&self) -> impl Iterator<Item = usize> {
        self.layout.entries.iter().map(|entry| entry.layer)
    }

    /// The parameters for backends that keep copies elsewhere; None when they may change, or are on a device.
    pub fn original(&self) -> Option<Original<'_>> {
        let fixed = !self.trainable && self.parameters.device() == Device::Host;
        fixed.then(|| self.copies.of(bytemuck::cast_slice(self.parameters.all())))
    }

    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// The live parameters, to be written.
    pub fn parameters_mut(&mut self) -> Result<&mut Parameters> {
        if !self.trainable {
            fail!(State, "the adapter is immutable; make a trainable copy of it");
        }
        if self.parameters.is_apart() {
            fail!(State, "the adapter's vectors lie apart in the caller's memory; write them there");
        }
        if self.parameters.device() != Device::Host {
            fail!(State, "the adapter's vectors are on {}; write them there", self.parameters.device());
        }
        Ok(&mut self.parameters)
    }

    /// The address of a trainable adapter's parameters, which its owner writes between calls.
    pub fn parameters_memory(&self) -> Result<*mut f32> {
        if !self.trainable {
            fail!(State, "the adapter is immutable; make a trainable copy of it");
        }
        Ok(self.parameters.memory())
    }

    pub fn tensors(&self) -> &[Tensor] {
        &self.tensors
    }

    /// Puts or replaces a tensor that is carried along (a head of `modules_to_save`), under its key in the file.
    pub fn set_tensor(&mut self, tensor: Tensor) -> Result<()> {
        if !self.trainable {
            fail!(State, "the adapter is immutable; make a trainable copy of it");
        }
        if source::is_reserved(&tensor.name) || self.is_own_bias(&tensor.name) {
            fail!(Argument, "tensor name '{}' is one of the adapter's own; its vectors are parameters", tensor.name);
        }
        tensor.check(tensor.data.len())?;
        match self.tensors.iter_mut().find(|known| known.name == tensor.name) {
            Some(known) => *known = tensor,
            None => {
                self.tensors.try_reserve(1).map_err(|_| Error::out_of_memory())?;
                self.tensors.push(tensor);
            }
        }
        Ok(())
    }

    /// Whether a key is that of a learned bias of an adapted layer.
    fn is_own_bias(&self, key: &str) -> bool {
        let layer = source::module_of(key, source::LEARNED_BIAS).and_then(|module| self.layers.find(module).ok());
        layer.and_then(|number| self.layout.find(number)).is_some()
    }

    /// Bytes of memory that this adapter holds for itself, without the store.
    pub fn bytes(&self) -> usize {
        self.parameters.len() * size_of::<f32>() + self.tensors.iter().map(|tensor| tensor.data.len()).sum::<usize>()
    }

    /// A learned bias takes the place of the layer's own: without knowing that one, a delta cannot.
    pub fn check_biases(&self) -> Result<()> {
        for entry in self.layout.entries.iter().filter(|entry| entry.ranges.bias.is_some()) {
            let layer = self.layers.get(entry.layer)?;
            if layer.bias.is_none() {
                fail!(
                    State,
                    "the adapter learned a bias for layer '{}', which is declared without one; declare the base bias, so that the difference can be added",
                    layer.name
                );
            }
        }
        Ok(())
    }

    /// An immutable copy as the parameters are now.
    pub fn frozen(&self, allocator: &Allocator) -> Result<Self> {
        self.with(self.parameters.duplicate(allocator)?, false)
    }

    /// A trainable copy, in memory of its own.
    pub fn trainable(&self, allocator: &Allocator) -> Result<Self> {
        self.with(self.parameters.duplicate(allocator)?, true)
    }

    /// A trainable copy whose parameters live in the caller's memory; today's values are copied there.
    ///
    /// # Safety
    /// `memory` points to `count` f32 that outlive the copy and everything made from it, and that nobody writes during
    /// a call that uses them.
    pub unsafe fn trainable_in(&self, memory: *mut f32, count: usize) -> Result<Self> {
        self.check_count(count)?;
        // SAFETY: the caller's promise.
        let parameters = unsafe { self.parameters.duplicate_in(memory)? };
        self.with(parameters, true)
    }

    /// A trainable copy whose parameters live in the caller's memory on a device; today's values are copied there, in the
    /// order of the device's stream.
    ///
    /// # Safety
    /// As for [`Adapter::trainable_in`]; the device's stream is that of the calls that use the memory.
    #[cfg(feature = "cuda")]
    pub unsafe fn trainable_on(&self, device: &Arc<cuda::Device>, memory: *mut f32, count: usize) -> Result<Self> {
        self.check_count(count)?;
        // SAFETY: the caller's promise.
        let parameters = unsafe { self.parameters.duplicate_on(device, memory)? };
        self.with(parameters, true)
    }

    fn check_count(&self, count: usize) -> Result<()> {
        if count != self.parameters.len() {
            fail!(Shape, "count is {count}; wanted {}, the adapter's number of parameters", self.parameters.len());
        }
        Ok(())
    }

    fn with(&self, parameters: Parameters, trainable: bool) -> Result<Self> {
        let mut tensors = Vec::new();
        tensors.try_reserve_exact(self.tensors.len()).map_err(|_| Error::out_of_memory())?;
        for tensor in &self.tensors {
            tensors.push(tensor.duplicate()?);
        }
        Ok(Self {
            layers: self.layers.clone(),
            config: self.config.clone(),
            store: self.store.clone(),
            identity: self.identity,
            parameters,
            layout: self.layout.clone(),
            tensors,
            saved_dtypes: self.saved_dtypes,
            trainable,
            copies: Copies::default(),
        })
    }
}

/// Whether a store serves adapters of this configuration.
fn check_store(store: &Store, config: &Config) -> Result<()> {
    if store.rank() != config.rank {
        fail!(Projection, "the store has rank {}; the config has r = {}", store.rank(), config.rank);
    }
    if store.method() != config.method {
        let (rows, rank) = (store.a().rows(), config.rank);
        let (method, wanted) = (config.method.name(), config.a_rows());
        fail!(
            Projection,
            "A of the store has {rows} rows; wanted {wanted}, since r is {rank} and peft_type is {method}"
        );
    }
    Ok(())
}

/// The numbers of a configuration that computing takes as f32.
fn check_f32(config: &Config) -> Result<()> {
    let numbers = [
        ("d_initial", config.d_initial),
        ("alpha", config.alpha),
        ("logvar_bound", config.logvar_bound.unwrap_or(0.0)),
    ];
    for (name, value) in numbers {
        if !(value as f32).is_finite() {
            fail!(Config, "{name} is {value:e}; wanted a number that f32 holds");
        }
    }
    Ok(())
}
