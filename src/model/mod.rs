//! The host's named layers, and the adapters published under names. Publishing never waits for a running pass:
//! a pass holds a snapshot.

mod layer;
mod slots;
#[cfg(test)]
mod tests;

pub use layer::{Layer, Layers, WeightLayout};
pub use slots::{Slot, Slots};

use std::sync::{Arc, Mutex, PoisonError, RwLock};

use crate::adapter::Adapter;
use crate::error::{Code, Error, Result};
use crate::fail;
use crate::linear::Linear;
use crate::memory::Allocator;
use crate::projection::Interned;

/// How the library speaks to the host while it works. Both functions may be called from any thread that calls the library.
pub trait Listener: Send + Sync {
    fn warning(&self, message: &str);

    /// Returns false to stop the work with `Cancelled`.
    fn progress(&self, stage: &str, done: u64, total: u64) -> bool;

    /// How far the draw of projections is; a wish to stop is an error.
    fn drawn(&self, values: u64, total: u64) -> Result<()> {
        match self.progress("draw projections", values, total) {
            true => Ok(()),
            false => Err(Error::new(Code::Cancelled, "the progress callback stopped the draw of projections")),
        }
    }
}

/// A listener that hears nothing.
#[derive(Debug, Default)]
pub struct Silent;

impl Listener for Silent {
    fn warning(&self, _: &str) {}

    fn progress(&self, _: &str, _: u64, _: u64) -> bool {
        true
    }
}

/// Layers and adapters of one network. All methods may be called from any thread.
pub struct Model {
    layers: Mutex<Arc<Layers>>,
    slots: RwLock<Arc<Slots>>,
    /// Held by whoever makes a new table: readers wait for no more than its exchange for the old one.
    writing: Mutex<()>,
    stores: Interned,
    allocator: Allocator,
    listener: Box<dyn Listener>,
}

impl Model {
    pub fn new(allocator: Allocator, listener: Box<dyn Listener>) -> Self {
        let layers = Mutex::new(Arc::new(Layers::new(allocator)));
        Self {
            layers,
            slots: RwLock::default(),
            writing: Mutex::default(),
            stores: Interned::default(),
            allocator,
            listener,
        }
    }

    /// Adds a layer. All layers are declared before the first adapter is made for them.
    pub fn declare(&self, layer: Layer) -> Result<usize> {
        let mut layers = self.layers.lock().unwrap_or_else(PoisonError::into_inner);
        match Arc::get_mut(&mut layers) {
            Some(layers) => layers.declare(layer),
            None => fail!(
                State,
                "layer '{}' is declared after an adapter or snapshot was made; declare all layers first",
                layer.name
            ),
        }
    }

    pub fn layers(&self) -> Arc<Layers> {
        self.layers.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn stores(&self) -> &Interned {
        &self.stores
    }

    pub fn allocator(&self) -> &Allocator {
        &self.allocator
    }

    pub fn listener(&self) -> &dyn Listener {
        &*self.listener
    }

    /// Publishes an adapter under a new name; returns its slot.
    pub fn publish(&self, name: &str, adapter: Arc<Adapter>) -> Result<i32> {
        if name.is_empty() {
            fail!(Argument, "name is empty; wanted a name to publish the adapter under");
        }
        let adapter = self.admitted(adapter)?;
        let (slot, _) = self.change(|slots| {
            if slots.contains(name) {
                fail!(Exists, "an adapter is published as '{name}' already; replace it, or remove it first");
            }
            slots.put(name, adapter)
        })?;
        Ok(slot)
    }

    /// Puts an adapter in the place of the one of that name; the slot stays.
    pub fn replace(&self, name: &str, adapter: Arc<Adapter>) -> Result<i32> {
        let adapter = self.admitted(adapter)?;
        let (slot, _old) = self.change(|slots| {
            slots.find(name)?;
            slots.put(name, adapter)
        })?;
        Ok(slot)
    }

    /// Takes an adapter out. Snapshots that hold it keep it; its slot is free for the next one.
    pub fn remove(&self, name: &str) -> Result<()> {
        let _old = self.change(|slots| slots.remove(name))?;
        Ok(())
    }

    /// A view that no later publishing changes.
    pub fn snapshot(&self) -> Result<Snapshot> {
        let slots = self.slots.read().unwrap_or_else(PoisonError::into_inner).clone();
        Snapshot::of(self.layers(), slots)
    }

    /// An adapter that fits this model and will not change: a trainable one is copied as it is now.
    fn admitted(&self, adapter: Arc<Adapter>) -> Result<Arc<Adapter>> {
        if !Arc::ptr_eq(adapter.layers(), &self.layers()) {
            fail!(State, "the adapter was made for another model; load it for this one");
        }
        adapter.check_biases()?;
        if adapter.is_trainable() { Ok(Arc::new(adapter.frozen(&self.allocator)?)) } else { Ok(adapter) }
    }

    fn change<T>(&self, change: impl FnOnce(&mut Slots) -> Result<T>) -> Result<T> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let writable = || self.slots.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(unseen) = Arc::get_mut(&mut writable()) {
            // What goes is dropped when readers no longer wait: its memory may go to the host's allocator.
            return change(unseen);
        }
        let seen = self.slots.read().unwrap_or_else(PoisonError::into_inner).clone();
        let mut fresh = Slots::clone(&seen);
        let changed = change(&mut fresh)?;
        *writable() = Arc::new(fresh);
        Ok(changed)
    }
}

/// An immutable view of a model's adapters.
#[derive(Debug)]
pub struct Snapshot {
    slots: Arc<Slots>,
    linears: Vec<Linear>,
}

impl Snapshot {
    /// A view of these adapters, which were made for these layers.
    pub fn of(layers: Arc<Layers>, slots: Arc<Slots>) -> Result<Self> {
        let mut linears = Vec::new();
        linears.try_reserve_exact(layers.len()).map_err(|_| Error::out_of_memory())?;
        linears.extend((0..layers.len()).map(|index| Linear::new(layers.clone(), index, slots.clone())));
        Ok(Self { slots, linears })
    }

    pub fn slots(&self) -> &Slots {
        &self.slots
    }

    /// Every declared layer, in order.
    pub fn linears(&self) -> &[Linear] {
        &self.linears
    }

    pub fn linear(&self, layer: usize) -> Result<&Linear> {
        match self.linears.get(layer) {
            Some(linear) => Ok(linear),
            None => {
                fail!(NotFound, "layer number {layer} is not declared; the model has {} layers", self.linears.len())
            }
        }
    }
}
