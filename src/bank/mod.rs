//! A bank: many adapters of one network in one file. Names are known when it is open, vectors are read when first used.
//!
//! Any number of programs may read a bank while one writes it; a reader sees it as it was when it opened or refreshed it. A kill
//! at any moment leaves the bank before or after the commit that it fell into.

mod cache;
mod catalogue;
mod file;
mod index;
mod outline;
mod refresh;
#[cfg(test)]
mod tests;
mod turn;
mod write;

pub use file::{Access, Held};
pub use outline::{FamilyOutline, LayerOutline};

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use cache::Cache;
use catalogue::{Catalogue, Copied, Family, Limits};
use file::{Commit, LastCommit, Place};
use index::{ITEM, Index, Vectors};
use turn::Turns;
pub use write::Appending;
use write::Writer;

use crate::adapter::{Adapter, Parameters};
use crate::error::{Code, Error, Result};
use crate::fail;
use crate::memory::Buffer;
use crate::model::{Model, Slots, Snapshot};
use crate::projection::Store;

/// How a bank is opened.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    pub access: Access,
    /// What cached adapters may take; None: any amount.
    pub cache_bytes: Option<usize>,
    /// The largest sizes over all adapted layers of the whole model, where this program declares only some of them.
    pub in_max: Option<usize>,
    pub out_max: Option<usize>,
    /// Vectors of layers that are not declared here are left out, instead of being an error.
    pub ignore_undeclared: bool,
    /// For a damaged bank, to be written: go on from what is sound. A commit that is damaged or cut off is overwritten, and a
    /// compaction leaves out damaged adapters. Without it, both are errors.
    pub repair: bool,
}

/// A bank, open. May be used by many threads; readers never wait for a writer's disk.
pub struct Bank {
    model: Arc<Model>,
    path: PathBuf,
    limits: Limits,
    repair: bool,
    state: RwLock<Arc<State>>,
    bound: Mutex<Bound>,
    /// Taken while a store is read or drawn, by whoever needs it first.
    binding: Turns<()>,
    cache: Mutex<Cache>,
    /// Taken while the file is looked at again.
    refreshing: Turns<()>,
    writer: Option<Turns<Writer>>,
}

/// What one commit made of the bank. Never changes.
struct State {
    file: Arc<File>,
    /// Files since the bank was opened: a compacted or replaced one has other offsets.
    generation: u32,
    commit: Commit,
    catalogue: Catalogue,
    index: Index,
    damaged: usize,
}

/// Stores and families as the model sees them, as far as they were needed; by the file's generation and their numbers in its
/// catalogue.
#[derive(Default)]
struct Bound {
    stores: HashMap<(u32, usize), Arc<Store>>,
    families: HashMap<(u32, u32), Arc<Family>>,
}

impl Bound {
    /// A compaction gave them other numbers.
    fn renumber(&mut self, generation: u32, copied: &Copied) {
        let next = generation + 1;
        let store = |((of, number), store)| {
            let number = copied.stores.get(number).copied().flatten().filter(|_| of == generation);
            number.map(|number| ((next, number), store))
        };
        self.stores = std::mem::take(&mut self.stores).into_iter().filter_map(store).collect();
        let family = |((of, number), family): ((u32, u32), Arc<Family>)| {
            let number = copied.families.get(number as usize).copied().flatten().filter(|_| of == generation);
            number.map(|number| ((next, number), family))
        };
        self.families = std::mem::take(&mut self.families).into_iter().filter_map(family).collect();
    }

    /// Another file is in the place of the one before: what a key draws is the same in both. Returns the rest, to be dropped when
    /// nobody waits.
    fn carry_over(&mut self, from: &State, to: &State) -> Self {
        let old = std::mem::take(self);
        for (number, note) in to.catalogue.stores.iter().enumerate().filter(|(_, note)| note.is_drawn()) {
            let same = from.catalogue.stores.iter().position(|other| other == note);
            if let Some(store) = same.and_then(|same| old.stores.get(&(from.generation, same))) {
                self.stores.insert((to.generation, number), store.clone());
            }
        }
        old
    }
}

/// What a bank holds, in the file and in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub adapters: usize,
    /// Entries that were damaged when the bank was opened or last refreshed, and are left out.
    pub damaged: usize,
    pub file_bytes: u64,
    /// Bytes that replaced and removed adapters and older indexes take; a compaction gives them back.
    pub unused_bytes: u64,
    /// Of names and places, in memory.
    pub index_bytes: usize,
    pub cached: usize,
    pub cached_bytes: usize,
    pub hits: u64,
    pub misses: u64,
    /// Of adapters that it holds.
    pub families: usize,
}

impl Bank {
    /// Opens a bank for the layers of a model. Its adapters, names and places are those of the last commit. Damaged entries
    /// are left out, with a warning that names each; so is a last commit that is damaged or of which the file lacks some:
    /// to write such a bank is an error without `repair`.
    pub fn open(model: &Arc<Model>, path: &Path, options: &Options) -> Result<Self> {
        let file = file::open(path, options.access)?;
        let state = State::read(Arc::new(file), path, options, model)?;
        let layers = model.layers();
        let largest = |size: fn(&crate::model::Layer) -> usize| layers.iter().map(size).max().unwrap_or(0);
        let limits = Limits {
            in_max: options.in_max.unwrap_or(largest(|layer| layer.in_total)),
            out_max: options.out_max.unwrap_or(largest(|layer| layer.out_total)),
            ignore_undeclared: options.ignore_undeclared,
        };
        Ok(Self {
            model: model.clone(),
            path: path.to_owned(),
            limits,
            repair: options.repair,
            state: RwLock::new(Arc::new(state)),
            bound: Mutex::default(),
            binding: Turns::default(),
            cache: Mutex::new(Cache::new(options.cache_bytes.unwrap_or(usize::MAX))),
            refreshing: Turns::default(),
            writer: (options.access != Access::Read).then(Turns::default),
        })
    }

    pub fn len(&self) -> usize {
        self.state().index.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn contains(&self, name: &str) -> bool {
        self.state().index.find(name).is_some()
    }

    /// The name at a place of the order in which they were first added.
    pub fn name(&self, place: usize) -> Result<String> {
        let state = self.state();
        match state.index.at(place) {
            Some((name, _)) => Ok(name.to_owned()),
            None => fail!(NotFound, "number {place} is beyond the bank's {} adapters", state.index.len()),
        }
    }

    /// The adapter of that name: cached, or read now. It does not change when the bank does.
    pub fn adapter(&self, name: &str) -> Result<Arc<Adapter>> {
        self.adapter_of(&self.state(), name)
    }

    /// A snapshot of the adapters that some rows want, and the slot of each row: −1 for a row of the base alone.
    pub fn snapshot(&self, names: &[Option<&str>]) -> Result<(Snapshot, Vec<i32>)> {
        let state = self.state();
        let mut slots = Vec::new();
        slots.try_reserve_exact(names.len()).map_err(|_| Error::out_of_memory())?;
        let mut table = Slots::default();
        for name in names {
            slots.push(match name {
                None => -1,
                Some(name) => match table.find(name) {
                    Ok(slot) => slot,
                    Err(_) => {
                        let adapter = self.adapter_of(&state, name)?;
                        adapter.check_biases().map_err(|error| error.within(format!("adapter '{name}'")))?;
                        table.put(name, adapter)?.0
                    }
                },
            });
        }
        Ok((Snapshot::of(self.model.layers(), Arc::new(table))?, slots))
    }

    /// Reads every adapter's vectors and the projections that the file holds for them, and warns of each that is damaged. Returns how many are:
    /// entries that were left out, adapters and stores, each once. Stops when the listener says so.
    pub fn verify(&self) -> Result<usize> {
        let state = self.state();
        let (listener, total) = (self.model.listener(), state.index.len() as u64);
        let mut damaged = state.damaged;
        for (place, (name, vectors)) in state.index.iter().enumerate() {
            if place % 1024 == 0 && !listener.progress("verify adapters", place as u64, total) {
                fail!(Cancelled, "the progress callback stopped the check of '{}'", self.path.display());
            }
            damaged += self.counted(self.vectors(&state, name, vectors))?;
        }
        damaged += self.verify_projections(&state)?;
        Ok(damaged)
    }

    /// Reads the projections that the file holds for families in use, one store after the other. Of those that a key draws it
    /// holds nothing.
    fn verify_projections(&self, state: &State) -> Result<usize> {
        let (catalogue, families) = (&state.catalogue, state.families_in_use());
        let mut damaged = 0;
        let used = catalogue.families.iter().zip(&families).filter(|(_, is_used)| **is_used);
        for (family, store) in used.filter_map(|(family, _)| Some((family, catalogue.stores.get(family.store())?))) {
            damaged += self.counted(family.check(store).map_err(|error| error.within(self.path.display())))?;
        }
        let used = catalogue.stores.iter().zip(catalogue.stores_of(&families)).enumerate();
        for (number, (store, _)) in used.filter(|(_, (store, is_used))| *is_used && !store.is_drawn()) {
            // One that is in memory was sound once: the file is read.
            let held = store.check(&state.file, &self.path, state.commit.end).and_then(|()| {
                store.store(&self.model, &state.file, &self.path, state.commit.end, self.limits).map(drop)
            });
            damaged += self.counted(held.map_err(|error| error.within(format!("store {number}"))))?;
        }
        Ok(damaged)
    }

    /// 1 for something damaged, which is told.
    fn counted<T>(&self, outcome: Result<T>) -> Result<usize> {
        match outcome {
            Ok(_) => Ok(0),
            Err(error) if matches!(error.code(), Code::Format | Code::Projection | Code::Shape) => {
                self.model.listener().warning(error.message());
                Ok(1)
            }
            Err(error) => Err(error),
        }
    }

    pub fn usage(&self) -> Usage {
        let state = self.state();
        let stored = |vectors: Vectors| {
            let family = state.catalogue.families.get(vectors.family as usize);
            family.and_then(|family| family.stored()).unwrap_or(0) as u64 * vectors.dtype.size() as u64
        };
        let segments = state.index.places();
        let indexed: u64 =
            segments.iter().map(|place| u64::from(place.items) * ITEM as u64 + u64::from(place.name_bytes)).sum();
        let families = state.families_in_use();
        let stores = state.catalogue.stores_of(&families);
        let stores = state.catalogue.stores.iter().zip(stores).filter(|(_, is_used)| *is_used);
        let held: u64 = stores.map(|(store, _)| store.bytes()).sum();
        let used: u64 = state.index.iter().map(|(_, vectors)| stored(vectors)).sum();
        let used = file::DATA + used + indexed + held + state.commit.catalogue.bytes;
        let cache = self.cache();
        Usage {
            adapters: state.index.len(),
            damaged: state.damaged,
            file_bytes: state.commit.end,
            unused_bytes: state.commit.end.saturating_sub(used),
            index_bytes: state.index.bytes(),
            cached: cache.len(),
            cached_bytes: cache.bytes(),
            hits: cache.hits,
            misses: cache.misses,
            families: families.iter().filter(|is_used| **is_used).count(),
        }
    }

    fn adapter_of(&self, state: &State, name: &str) -> Result<Arc<Adapter>> {
        let Some((number, vectors)) = state.index.find(name) else {
            fail!(
                NotFound,
                "'{}' holds no adapter of the name '{name}'; it holds {}",
                self.path.display(),
                state.index.len()
            )
        };
        let version = (state.generation, vectors);
        let cached = self.cache().get(number, version);
        if let Some(adapter) = cached {
            return Ok(adapter);
        }
        let adapter = Arc::new(self.read(state, name, vectors)?);
        let gone = self.cache().put(number, version, adapter.clone());
        // Their memory may go to the host's allocator: not while others wait.
        drop(gone);
        Ok(adapter)
    }

    fn read(&self, state: &State, name: &str, vectors: Vectors) -> Result<Adapter> {
        // First what the file must hold for it: a file cannot ask for more than it is large.
        let bytes = self.vectors(state, name, vectors)?;
        let family = self.family(state, vectors.family)?;
        let mut parameters = Parameters::zeroed(self.model.allocator(), family.kind.parameter_count())?;
        for (from, to, count) in &family.pieces {
            assert!((from + count) * vectors.dtype.size() <= bytes.len());
            // SAFETY: in bounds by the assertion; a buffer is aligned for every element type.
            unsafe { vectors.dtype.widen(bytes.as_ptr(), *from, &mut parameters.all_mut()[*to..to + count]) };
        }
        if let Some(place) = parameters.all().iter().position(|value| !value.is_finite()) {
            fail!(
                Format,
                "'{}': adapter '{name}' holds {} at {place}; wanted finite numbers",
                self.path.display(),
                parameters.all()[place]
            );
        }
        Ok(family.kind.adapter(parameters, vectors.dtype, Some(vectors.identity)))
    }

    /// An adapter's vectors as they are stored, checked.
    fn vectors(&self, state: &State, name: &str, vectors: Vectors) -> Result<Buffer<u8>> {
        let family = state.catalogue.families.get(vectors.family as usize);
        let Some(stored) = family.and_then(|family| family.stored()) else {
            fail!(
                Format,
                "'{}': adapter '{name}' is of family {}, which there is not",
                self.path.display(),
                vectors.family
            )
        };
        let place =
            Place { offset: vectors.offset, bytes: (stored as u64).saturating_mul(vectors.dtype.size() as u64) };
        let what = format!("the vectors of adapter '{name}'");
        let bytes = file::read(&state.file, &self.path, &what, place, state.commit.end)?;
        if crc32fast::hash(&bytes) != vectors.crc {
            fail!(Format, "'{}': {what}, which lie at {}, are damaged", self.path.display(), vectors.offset);
        }
        Ok(bytes)
    }

    fn family(&self, state: &State, number: u32) -> Result<Arc<Family>> {
        let key = (state.generation, number);
        let known = self.bound().families.get(&key).cloned();
        if let Some(family) = known {
            return Ok(family);
        }
        let Some(note) = state.catalogue.families.get(number as usize) else {
            fail!(Format, "'{}' has no family {number}", self.path.display())
        };
        if let Some(store) = state.catalogue.stores.get(note.store()) {
            note.check(store).map_err(|error| error.within(self.path.display()))?;
        }
        let store = self.store(state, note.store())?;
        let family = note.bound(&self.model, store, self.limits);
        let family = Arc::new(family.map_err(|error| error.within(self.path.display()))?);
        Ok(self.bound().families.entry(key).or_insert(family).clone())
    }

    fn store(&self, state: &State, number: usize) -> Result<Arc<Store>> {
        let known = || self.bound().stores.get(&(state.generation, number)).cloned();
        if let Some(store) = known() {
            return Ok(store);
        }
        // Others would do the same work, so they wait. Nothing else is held: the draw calls back.
        let Some(_turn) = self.binding.take() else {
            fail!(
                State,
                "'{}': a callback wants projections that this very thread is drawing; ask when that call has returned",
                self.path.display()
            )
        };
        if let Some(store) = known() {
            return Ok(store);
        }
        let Some(note) = state.catalogue.stores.get(number) else {
            fail!(Format, "'{}' has no store {number}", self.path.display())
        };
        let store = note.store(&self.model, &state.file, &self.path, state.commit.end, self.limits);
        let store = store.map_err(|error| error.within(self.path.display()))?;
        self.bound().stores.insert((state.generation, number), store.clone());
        Ok(store)
    }

    fn state(&self) -> Arc<State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn bound(&self) -> MutexGuard<'_, Bound> {
        self.bound.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Of each family, how many adapters are of it.
    fn members_of_families(&self) -> Vec<usize> {
        let mut members = vec![0; self.catalogue.families.len()];
        for (_, vectors) in self.index.iter() {
            if let Some(count) = members.get_mut(vectors.family as usize) {
                *count += 1;
            }
        }
        members
    }

    /// Of each family, whether an adapter is of it.
    fn families_in_use(&self) -> Vec<bool> {
        self.members_of_families().into_iter().map(|count| count > 0).collect()
    }

    fn read(file: Arc<File>, path: &Path, options: &Options, model: &Model) -> Result<Self> {
        let LastCommit { mut commit, finding } = file::last_commit(&file, path)?;
        if let Some(finding) = finding {
            if finding.is_loss && options.access != Access::Read {
                if !options.repair {
                    let words = finding.words;
                    fail!(Format, "{words}; writing would overwrite what is behind it: with the option repair, it may");
                }
                // Readers may have seen the lost commit: its number is not given again. (An odd step would spare its record.)
                commit.sequence += 2;
            }
            model.listener().warning(&finding.words);
        }
        let (state, damages) = Self::at(file, path, commit, 0)?;
        damages.iter().for_each(|damage| model.listener().warning(damage));
        Ok(state)
    }

    /// The state of a commit, and a sentence about each entry that is damaged and left out.
    fn at(file: Arc<File>, path: &Path, commit: Commit, generation: u32) -> Result<(Self, Vec<String>)> {
        let catalogue = Catalogue::read(&file, path, commit.catalogue, commit.catalogue_crc, commit.end)?;
        let (mut index, mut damages) = (Index::default(), Vec::new());
        for place in &commit.segments {
            let bytes = u64::from(place.items) * ITEM as u64 + u64::from(place.name_bytes);
            let segment = Place { offset: place.offset, bytes };
            let bytes = file::read(&file, path, "an index segment", segment, commit.end)?;
            let found = index.read(*place, &bytes).map_err(|error| error.within(path.display()))?;
            damages.extend(found.iter().map(|what| format!("'{}': {what}", path.display())));
        }
        Ok((Self { file, generation, commit, catalogue, index, damaged: damages.len() }, damages))
    }
}
