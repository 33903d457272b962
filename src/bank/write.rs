//! Writing a bank: adding and replacing adapters, removing them, and compaction.

use std::collections::HashSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};

use super::catalogue::Catalogue;
use super::file::{self, Access, Commit, MOST_SEGMENTS, Place, Tail};
use super::index::{Change, Index, LONGEST_NAME, Vectors};
use super::turn::Turn;
use super::{Bank, State};
use crate::adapter::{Adapter, Kind, io, sync_folder};
use crate::error::{Code, Error, Result};
use crate::fail;
use crate::memory::{Allocator, Buffer};
use crate::noise::adapter_identity;
use crate::projection::Store;
use crate::tensor::{Device, Dtype};

/// Whoever writes holds this.
#[derive(Debug, Default)]
pub struct Writer {
    /// A commit record failed: nobody knows whether it is on the disk.
    broken: bool,
}

impl Bank {
    /// Adds adapters, or puts them in the place of those of the same names; all of them or none. Vectors are rounded to
    /// `dtype`. When this returns, they are on the disk. Damaged entries stay in the file as they are.
    pub fn append(&self, adapters: &[(&str, &Adapter)], dtype: Dtype) -> Result<()> {
        let mut appending = self.appending(dtype)?;
        check_names(adapters.iter().map(|(name, _)| *name))?;
        adapters.iter().try_for_each(|(name, adapter)| appending.push(name, adapter))?;
        appending.finish()
    }

    /// The same of adapters that come one after the other, none of which has to be in memory when the next one comes.
    pub fn appending(&self, dtype: Dtype) -> Result<Appending<'_>> {
        let writer = self.writer()?;
        let addition = Addition::new(self, self.state(), dtype)?;
        Ok(Appending { writer, addition, added: Vec::new(), names: HashSet::new() })
    }

    /// Removes adapters; all of them or none.
    pub fn remove(&self, names: &[&str]) -> Result<()> {
        let mut writer = self.writer()?;
        let state = self.state();
        check_names(names.iter().copied())?;
        if let Some(name) = names.iter().find(|name| state.index.find(name).is_none()) {
            fail!(NotFound, "'{}' holds no adapter of the name '{name}'", self.path.display());
        }
        let changes = names.iter().map(|name| Change { name, vectors: None }).collect();
        let tail = Tail::new(&state.file, &self.path, state.commit.end)?;
        self.commit(&mut writer, &state, state.catalogue.clone(), changes, tail)
    }

    /// Writes the bank anew without what nobody uses, and puts it in the place of the old file at once. Damaged adapters
    /// are an error; with the option `repair`, they are left out, with a warning that names each. Programs that have the bank
    /// open go on with the old file.
    pub fn compact(&self) -> Result<()> {
        let _writer = self.writer()?;
        let state = self.state();
        if state.damaged > 0 {
            self.lose(&format!("'{}' has {} damaged entries", self.path.display(), state.damaged))?;
        }
        // Where a symbolic link names the file, the link stays.
        let path = &fs::canonicalize(&self.path).map_err(|error| io(&self.path, "find", &error))?;
        if !file::stands_at(&state.file, path) {
            fail!(State, "'{}' is not the file that was opened any more", self.path.display());
        }
        let fresh = Unfinished::beside(path)?;
        let file = Arc::new(file::open(&fresh.path, Access::Create)?);
        let data = state.file.metadata().map_err(|error| io(path, "read", &error))?;
        file.set_permissions(data.permissions()).map_err(|error| io(&fresh.path, "set the mode of", &error))?;
        let empty = State::empty(file.clone(), state.generation + 1);
        let mut tail = Tail::new(&file, &fresh.path, empty.commit.end)?;
        let families = state.families_in_use();
        let mut copied = state.catalogue.copied(&families, &state.file, &self.path, state.commit.end, &mut tail)?;
        for damage in &copied.damaged {
            self.lose(damage.message())?;
        }
        let changes = self.copied(&state, &copied.families, &mut tail)?;
        let next = empty.after(std::mem::take(&mut copied.catalogue), changes, tail)?;
        file::write_commit(&file, &next.commit).map_err(|error| io(&fresh.path, "write", &error))?;
        fs::rename(&fresh.path, path).map_err(|error| io(path, "replace", &error))?;
        self.bound().renumber(state.generation, &copied);
        self.show(next);
        self.cache().clear();
        sync_folder(folder_of(path))
    }

    /// Copies the vectors of every adapter that is not damaged.
    fn copied<'a>(&self, state: &'a State, families: &[Option<u32>], tail: &mut Tail<'_>) -> Result<Vec<Change<'a>>> {
        let (listener, total) = (self.model.listener(), state.index.len());
        let mut changes = Vec::new();
        changes.try_reserve_exact(total).map_err(|_| Error::out_of_memory())?;
        for (place, (name, vectors)) in state.index.iter().enumerate() {
            if place % 1024 == 0 && !listener.progress("compact the bank", place as u64, total as u64) {
                fail!(Cancelled, "the progress callback stopped the compaction of '{}'", self.path.display());
            }
            match self.vectors(state, name, vectors) {
                Ok(bytes) => match families.get(vectors.family as usize) {
                    Some(Some(family)) => {
                        let vectors = Vectors { offset: tail.end(), family: *family, ..vectors };
                        tail.push(&bytes)?;
                        changes.push(Change { name, vectors: Some(vectors) });
                    }
                    _ => self
                        .lose(&format!("'{}': the projections of adapter '{name}' are damaged", self.path.display()))?,
                },
                Err(error) if error.code() == Code::Format => self.lose(error.message())?,
                Err(error) => return Err(error),
            }
        }
        Ok(changes)
    }

    /// A compaction comes upon damage: it goes on without only where that was asked for.
    fn lose(&self, damage: &str) -> Result<()> {
        if !self.repair {
            fail!(Format, "{damage}; a compaction would drop that for good: with the option repair, it does");
        }
        self.model.listener().warning(damage);
        Ok(())
    }

    fn writer(&self) -> Result<Turn<'_, Writer>> {
        let Some(writer) = &self.writer else {
            fail!(State, "'{}' is open for reading; open it to write", self.path.display())
        };
        let Some(writer) = writer.take() else {
            fail!(
                State,
                "'{}': a callback would write while this very thread writes; write when that call has returned",
                self.path.display()
            )
        };
        if writer.broken {
            fail!(State, "an earlier write to '{}' failed at its end; open it again", self.path.display());
        }
        Ok(writer)
    }

    /// Writes what is left, makes it count, and shows it to readers.
    fn commit(
        &self,
        writer: &mut Writer,
        state: &State,
        catalogue: Catalogue,
        changes: Vec<Change<'_>>,
        tail: Tail<'_>,
    ) -> Result<()> {
        let next = state.after(catalogue, changes, tail)?;
        if let Err(error) = file::write_commit(&state.file, &next.commit) {
            writer.broken = true;
            return Err(io(&self.path, "write", &error));
        }
        self.show(next);
        Ok(())
    }

    pub(super) fn show(&self, next: State) {
        let next = Arc::new(next);
        let old = std::mem::replace(&mut *self.state.write().unwrap_or_else(PoisonError::into_inner), next);
        drop(old);
    }
}

impl State {
    /// Of a file in which nothing is yet.
    fn empty(file: Arc<File>, generation: u32) -> Self {
        let commit = Commit::first();
        Self { file, generation, commit, catalogue: Catalogue::default(), index: Index::default(), damaged: 0 }
    }

    /// The state after these changes, whose vectors the tail has. When this returns, all of it is in the file, but for the
    /// commit record.
    fn after(&self, catalogue: Catalogue, changes: Vec<Change<'_>>, mut tail: Tail<'_>) -> Result<Self> {
        let mut commit = Commit { sequence: self.commit.sequence + 1, ..self.commit.clone() };
        if catalogue != self.catalogue {
            let json = catalogue.to_json()?;
            commit.catalogue = Place { offset: tail.end(), bytes: json.len() as u64 };
            commit.catalogue_crc = crc32fast::hash(&json);
            tail.push(&json)?;
        }
        let fresh = self.index.fresh(changes)?;
        let index = self.index.with(&fresh, tail.end())?;
        if index.places().len() > MOST_SEGMENTS {
            fail!(
                Format,
                "{MOST_SEGMENTS} pieces of the index are damaged or kept apart by such; compact it with the option repair"
            );
        }
        tail.push(&fresh.bytes)?;
        tail.flush()?;
        commit.segments = index.places();
        commit.end = tail.end();
        let (file, generation, damaged) = (self.file.clone(), self.generation, self.damaged);
        Ok(Self { file, generation, commit, catalogue, index, damaged })
    }
}

/// Adapters that are being appended. Nobody sees them until all are there, and dropped unfinished, they never were. Nobody else
/// writes meanwhile.
pub struct Appending<'b> {
    writer: Turn<'b, Writer>,
    addition: Addition<'b>,
    added: Vec<(String, Vectors)>,
    names: HashSet<String>,
}

impl Appending<'_> {
    /// Writes an adapter's vectors. One that fails is not among those that `finish` adds.
    pub fn push(&mut self, name: &str, adapter: &Adapter) -> Result<()> {
        if name.is_empty() || name.len() > LONGEST_NAME {
            fail!(Argument, "a name has {} bytes; wanted 1 to {LONGEST_NAME}", name.len());
        }
        if self.names.contains(name) {
            fail!(Argument, "'{name}' is the name of an earlier one; wanted each once");
        }
        let vectors = self.addition.add(name, adapter).map_err(|error| error.within(format!("adapter '{name}'")))?;
        self.added.push((name.to_owned(), vectors));
        self.names.insert(name.to_owned());
        Ok(())
    }

    /// The same of a new name: one that the bank holds already is an error of the code Exists.
    pub fn push_new(&mut self, name: &str, adapter: &Adapter) -> Result<()> {
        if self.addition.state.index.find(name).is_some() {
            fail!(Exists, "'{}' holds an adapter of the name '{name}' already", self.addition.bank.path.display());
        }
        self.push(name, adapter)
    }

    /// Makes all of them count. When this returns, they are on the disk.
    pub fn finish(self) -> Result<()> {
        let Self { mut writer, addition, added, .. } = self;
        let Addition { bank, state, catalogue, tail, stores, .. } = addition;
        let changes = added.iter().map(|(name, vectors)| Change { name, vectors: Some(*vectors) }).collect();
        bank.commit(&mut writer, &state, catalogue, changes, tail)?;
        bank.bound().stores.extend(stores.into_iter().map(|(number, store)| ((state.generation, number), store)));
        Ok(())
    }
}

/// Adapters on their way into the file.
struct Addition<'a> {
    bank: &'a Bank,
    state: Arc<State>,
    dtype: Dtype,
    catalogue: Catalogue,
    tail: Tail<'a>,
    /// Those that are new in the catalogue.
    stores: Vec<(usize, Arc<Store>)>,
    /// The family of the last adapter: thousands of one kind come one after the other.
    last: Option<(Kind, u32)>,
}

impl<'a> Addition<'a> {
    fn new(bank: &'a Bank, state: Arc<State>, dtype: Dtype) -> Result<Self> {
        let tail = Tail::new(&state.file, &bank.path, state.commit.end)?;
        let catalogue = state.catalogue.clone();
        Ok(Self { bank, state, dtype, catalogue, tail, stores: Vec::new(), last: None })
    }

    /// Writes one adapter's vectors.
    fn add(&mut self, name: &str, adapter: &Adapter) -> Result<Vectors> {
        if !Arc::ptr_eq(adapter.layers(), &self.bank.model.layers()) {
            fail!(State, "it was made for another model; load it for the bank's");
        }
        if let Some(tensor) = adapter.tensors().first() {
            fail!(Unsupported, "it carries the tensor '{}'; a bank holds vectors only", tensor.name);
        }
        if adapter.parameters().device() != Device::Host {
            return self.add(name, &adapter.frozen(&Allocator::default())?);
        }
        let family = self.family(adapter)?;
        let values = adapter.parameters().all();
        if let Some(place) = values.iter().position(|value| !self.dtype.rounded(*value).is_finite()) {
            let (value, dtype) = (values[place], self.dtype.name());
            fail!(Overflow, "parameter {place} is {value}; wanted finite numbers that {dtype} holds");
        }
        let mut bytes = Buffer::<u8>::zeroed(&Allocator::default(), values.len() * self.dtype.size())?;
        // SAFETY: the buffer has room for as many elements, and is aligned for every type of them.
        unsafe { self.dtype.narrow(values, bytes.as_mut_ptr(), 0) };
        let vectors = Vectors {
            offset: self.tail.end(),
            identity: adapter.identity().unwrap_or_else(|| adapter_identity(name)),
            family,
            crc: crc32fast::hash(&bytes),
            dtype: self.dtype,
        };
        self.tail.push(&bytes)?;
        Ok(vectors)
    }

    fn family(&mut self, adapter: &Adapter) -> Result<u32> {
        let kind = Kind::of(adapter);
        if let Some((last, number)) = &self.last
            && last.is(&kind)
        {
            return Ok(*number);
        }
        let store = self.store(kind.store())?;
        let number = self.catalogue.family_of(&kind, store)?;
        self.last = Some((kind, number));
        Ok(number)
    }

    /// The number of a store; a new one is written into the file, where its key does not draw it.
    fn store(&mut self, store: &Arc<Store>) -> Result<usize> {
        for (number, note) in self.state.catalogue.stores.iter().enumerate() {
            if !note.has_sizes_of(store) {
                continue;
            }
            match self.bank.store(&self.state, number) {
                Ok(known) if known.same_values(store) => return Ok(number),
                Ok(_) => {}
                // A damaged one is none that this adapter could share.
                Err(error) if error.code() == Code::Format => {}
                Err(error) => return Err(error),
            }
        }
        if let Some((number, _)) = self.stores.iter().find(|(_, known)| known.same_values(store)) {
            return Ok(*number);
        }
        let number = self.catalogue.add_store(store, &mut self.tail)?;
        self.stores.push((number, store.clone()));
        Ok(number)
    }
}

/// A file that is removed when it has not taken its place.
struct Unfinished {
    path: PathBuf,
}

impl Unfinished {
    /// A path beside the bank, whose lock the caller holds: what lies there is of a killed compaction.
    fn beside(bank: &Path) -> Result<Self> {
        let Some(name) = bank.file_name() else { fail!(Argument, "'{}' has no file name", bank.display()) };
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(name);
        hidden.push(".pvera-compaction");
        let path = bank.with_file_name(hidden);
        let _ = fs::remove_file(&path);
        Ok(Self { path })
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn check_names<'a>(names: impl Iterator<Item = &'a str>) -> Result<()> {
    let mut seen = HashSet::new();
    for (place, name) in names.enumerate() {
        if name.is_empty() || name.len() > LONGEST_NAME {
            fail!(Argument, "names[{place}] has {} bytes; wanted 1 to {LONGEST_NAME}", name.len());
        }
        if !seen.insert(name) {
            fail!(Argument, "names[{place}] is '{name}', as an earlier one; wanted each once");
        }
    }
    Ok(())
}
