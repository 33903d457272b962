//! The published adapters, numbered. A table never changes; publishing makes a new one.

use std::collections::HashMap;
use std::sync::Arc;

use crate::adapter::Adapter;
use crate::error::{Error, Result};
use crate::fail;
use crate::noise::adapter_identity;

/// One published adapter.
#[derive(Clone, Debug)]
pub struct Slot {
    pub adapter: Arc<Adapter>,
    /// Under which the adapter draws its noise: its own number, or a hash of the name it was published under.
    pub identity: u64,
}

/// Adapters by slot and by name. A name keeps its slot when its adapter is replaced.
#[derive(Clone, Debug, Default)]
pub struct Slots {
    list: Vec<Option<Slot>>,
    by_name: HashMap<String, usize>,
}

impl Slots {
    /// A table of one adapter without a name, in slot 0.
    pub fn single(adapter: Arc<Adapter>) -> Self {
        let identity = adapter.identity().unwrap_or_else(|| adapter_identity("default"));
        Self { list: vec![Some(Slot { adapter, identity })], by_name: HashMap::new() }
    }

    /// Puts an adapter under a name: into the name's slot, else the lowest free one. Returns the slot, and what was in it.
    pub fn put(&mut self, name: &str, adapter: Arc<Adapter>) -> Result<(i32, Option<Slot>)> {
        let is_full = self.list.len() == self.by_name.len();
        let hole = || if is_full { None } else { self.list.iter().position(Option::is_none) };
        let free = || hole().unwrap_or(self.list.len());
        let slot = self.by_name.get(name).copied().unwrap_or_else(free);
        let Ok(number) = i32::try_from(slot) else { fail!(Argument, "the model has {slot} adapters; no slot is left") };
        if slot == self.list.len() {
            self.list.try_reserve(1).map_err(|_| Error::out_of_memory())?;
            self.list.push(None);
        }
        let identity = adapter.identity().unwrap_or_else(|| adapter_identity(name));
        let old = self.list[slot].replace(Slot { adapter, identity });
        self.by_name.insert(name.to_owned(), slot);
        Ok((number, old))
    }

    /// Empties the slot of a name. Returns what was in it.
    pub fn remove(&mut self, name: &str) -> Result<Option<Slot>> {
        let slot = self.find(name)? as usize;
        self.by_name.remove(name);
        Ok(self.list[slot].take())
    }

    pub fn contains(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }

    pub fn find(&self, name: &str) -> Result<i32> {
        match self.by_name.get(name) {
            Some(slot) => Ok(*slot as i32),
            None => fail!(NotFound, "no adapter is published as '{name}'; {} are", self.by_name.len()),
        }
    }

    pub fn get(&self, slot: i32) -> Result<&Slot> {
        match usize::try_from(slot).ok().and_then(|slot| self.list.get(slot)) {
            Some(Some(found)) => Ok(found),
            _ => fail!(NotFound, "slot {slot} holds no adapter; {} slots are in use", self.numbers().count()),
        }
    }

    /// The slots that hold an adapter, ascending.
    pub fn numbers(&self) -> impl Iterator<Item = i32> {
        let holds = |(number, slot): (usize, &Option<Slot>)| slot.is_some().then_some(number as i32);
        self.list.iter().enumerate().filter_map(holds)
    }

    pub fn len(&self) -> usize {
        self.numbers().count()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
