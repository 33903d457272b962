//! The names of a bank and where their vectors lie: a table in memory, segments in the file.
//!
//! Each commit adds a segment, into which the last ones go as long as they are not twice as large: so there are few,
//! and an adapter is written into few of them. Each item has a checksum: what is damaged loses one adapter. A segment with damage
//! goes into no other, so that the damage stays to be told.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;

use super::file::{SegmentPlace, read_u32, read_u64};
use crate::error::{Error, Result};
use crate::fail;
use crate::tensor::Dtype;

/// Bytes of an item: offset, identity, place of the name, family, checksum of the vectors, element type, whether it is
/// removed, and a checksum over these and the name.
pub const ITEM: usize = 40;

/// Bytes of a name. Longer ones are somebody's mistake.
pub const LONGEST_NAME: usize = 4096;

/// Where an adapter's vectors lie, and what they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vectors {
    pub offset: u64,
    /// Under which it draws noise.
    pub identity: u64,
    pub family: u32,
    pub crc: u32,
    pub dtype: Dtype,
}

/// What happens to a name: its adapter's vectors lie there now, or it has none any more.
#[derive(Clone, Copy, Debug)]
pub struct Change<'a> {
    pub name: &'a str,
    pub vectors: Option<Vectors>,
}

/// All names.
#[derive(Clone, Debug, Default)]
pub struct Index {
    names: Vec<u8>,
    entries: Vec<Entry>,
    /// Numbers of entries, by name.
    table: HashTable<u32>,
    hasher: RandomState,
    /// Numbers of the entries that are not removed, ascending.
    live: Vec<u32>,
    segments: Vec<Segment>,
    homes: u32,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    name_start: u32,
    name_bytes: u32,
    /// The segment that says last what became of it.
    home: u32,
    vectors: Option<Vectors>,
}

#[derive(Clone, Debug)]
struct Segment {
    home: u32,
    place: SegmentPlace,
    members: Vec<u32>,
    is_damaged: bool,
}

/// A segment on its way into the file.
pub struct Fresh<'a> {
    pub bytes: Vec<u8>,
    members: Vec<Change<'a>>,
    /// How many of them are written.
    items: u32,
    /// How many of the newest segments went into it.
    absorbed: usize,
}

impl Index {
    /// How many adapters there are.
    pub fn len(&self) -> usize {
        self.live.len()
    }

    /// The number of a name and its vectors; the number stays as long as the bank is open.
    pub fn find(&self, name: &str) -> Option<(u32, Vectors)> {
        let number = self.number_of(name)?;
        Some((number, self.entries[number as usize].vectors?))
    }

    /// The adapter at a place of the order in which names were first added.
    pub fn at(&self, place: usize) -> Option<(&str, Vectors)> {
        let number = *self.live.get(place)?;
        Some((self.name(number), self.entries[number as usize].vectors?))
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, Vectors)> {
        (0..self.len()).filter_map(|place| self.at(place))
    }

    /// Of each number of this index, the number in another one of the same file: None where that name has other vectors there.
    pub fn numbers_in(&self, other: &Self) -> Result<Vec<Option<u32>>> {
        let mut numbers = Vec::new();
        numbers.try_reserve_exact(self.entries.len()).map_err(|_| Error::out_of_memory())?;
        numbers.extend((0..self.entries.len() as u32).map(|number| {
            let (found, vectors) = other.find(self.name(number))?;
            (self.entries[number as usize].vectors == Some(vectors)).then_some(found)
        }));
        Ok(numbers)
    }

    /// Where the segments lie, from the oldest to the newest.
    pub fn places(&self) -> Vec<SegmentPlace> {
        self.segments.iter().map(|segment| segment.place).collect()
    }

    /// Bytes of memory.
    pub fn bytes(&self) -> usize {
        self.names.capacity()
            + self.entries.capacity() * size_of::<Entry>()
            + self.table.allocation_size()
            + self.live.capacity() * size_of::<u32>()
            + self.segments.iter().map(|segment| segment.members.capacity() * size_of::<u32>()).sum::<usize>()
    }

    /// Takes a segment, newer than all before it. Returns the names of items that are damaged, as far as they can be read.
    pub fn read(&mut self, place: SegmentPlace, bytes: &[u8]) -> Result<Vec<String>> {
        let (items, names) = bytes.split_at(place.items as usize * ITEM);
        let (mut changes, mut damaged) = (Vec::new(), Vec::new());
        changes.try_reserve_exact(place.items as usize).map_err(|_| Error::out_of_memory())?;
        // Names lie one after the other. Items that share theirs would have a small file take any amount of memory.
        let mut left = names.len();
        for (number, item) in items.chunks_exact(ITEM).enumerate() {
            let outcome = decoded(item, names);
            let name = outcome.as_ref().map_or_else(|name| *name, |change| Some(change.name));
            let rest = left.checked_sub(name.map_or(0, str::len));
            match outcome {
                Ok(change) if rest.is_some() => changes.push(change),
                Ok(_) => fail!(
                    Format,
                    "the index at {}: its items' names are longer than {} bytes",
                    place.offset,
                    names.len()
                ),
                Err(Some(name)) if rest.is_some() => damaged.push(format!("'{name}'")),
                Err(_) => damaged.push(format!("number {number} of the index at {}", place.offset)),
            }
            left = rest.unwrap_or(left);
        }
        self.take(place, &changes, !damaged.is_empty())?;
        Ok(damaged)
    }

    /// The segment that makes these changes, each of another name.
    pub fn fresh<'a>(&'a self, changes: Vec<Change<'a>>) -> Result<Fresh<'a>> {
        let changed: HashSet<&str> = changes.iter().map(|change| change.name).collect();
        let (mut members, mut absorbed) = (changes, 0);
        for segment in self.segments.iter().rev() {
            if segment.is_damaged || segment.members.len() > 2 * members.len() {
                break;
            }
            absorbed += 1;
            members.try_reserve(segment.members.len()).map_err(|_| Error::out_of_memory())?;
            let latest = segment.members.iter().filter(|number| self.entries[**number as usize].home == segment.home);
            members.extend(
                latest
                    .map(|number| Change { name: self.name(*number), vectors: self.entries[*number as usize].vectors })
                    .filter(|change| !changed.contains(change.name)),
            );
        }
        // A reader numbers names as they come, so that the order in which they were first added has to be the file's.
        members.sort_by_cached_key(|change| self.number_of(change.name).unwrap_or(u32::MAX));
        // Where nothing older is left, a removal has nothing to hide.
        let hides = absorbed < self.segments.len();
        let written: Vec<&Change<'_>> = members.iter().filter(|change| hides || change.vectors.is_some()).collect();
        let name_bytes: usize = written.iter().map(|change| change.name.len()).sum();
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(written.len() * ITEM + name_bytes).map_err(|_| Error::out_of_memory())?;
        let mut start = 0;
        for change in &written {
            bytes.extend_from_slice(&encoded(change, start));
            start += change.name.len() as u32;
        }
        written.iter().for_each(|change| bytes.extend_from_slice(change.name.as_bytes()));
        let items = written.len() as u32;
        Ok(Fresh { bytes, members, items, absorbed })
    }

    /// The index when a fresh segment lies at `offset`.
    pub fn with(&self, fresh: &Fresh<'_>, offset: u64) -> Result<Self> {
        let mut index = self.clone();
        index.segments.truncate(self.segments.len() - fresh.absorbed);
        let name_bytes = (fresh.bytes.len() - fresh.items as usize * ITEM) as u32;
        index.take(SegmentPlace { offset, items: fresh.items, name_bytes }, &fresh.members, false)?;
        Ok(index)
    }

    fn name(&self, number: u32) -> &str {
        std::str::from_utf8(name_of(&self.names, &self.entries[number as usize])).expect("texts are added")
    }

    fn number_of(&self, name: &str) -> Option<u32> {
        let is_it = |number: &u32| name_of(&self.names, &self.entries[*number as usize]) == name.as_bytes();
        self.table.find(self.hasher.hash_one(name.as_bytes()), is_it).copied()
    }

    /// Adds a segment that makes these changes.
    fn take(&mut self, place: SegmentPlace, changes: &[Change<'_>], is_damaged: bool) -> Result<()> {
        self.homes += 1;
        let mut members = Vec::new();
        members.try_reserve_exact(changes.len()).map_err(|_| Error::out_of_memory())?;
        self.reserve(changes)?;
        for change in changes {
            let number = match self.number_of(change.name) {
                Some(number) => number,
                None => self.add(change.name),
            };
            let entry = &mut self.entries[number as usize];
            (entry.home, entry.vectors) = (self.homes, change.vectors);
            members.push(number);
        }
        self.segments.push(Segment { home: self.homes, place, members, is_damaged });
        let live = |(number, entry): (usize, &Entry)| entry.vectors.map(|_| number as u32);
        self.live.clear();
        self.live.extend(self.entries.iter().enumerate().filter_map(live));
        Ok(())
    }

    /// Room for as many new names.
    fn reserve(&mut self, changes: &[Change<'_>]) -> Result<()> {
        let Self { names, entries, table, hasher, live, .. } = self;
        let bytes: usize = changes.iter().map(|change| change.name.len()).sum();
        let rehash = |number: &u32| hasher.hash_one(name_of(names, &entries[*number as usize]));
        table.try_reserve(changes.len(), rehash).map_err(|_| Error::out_of_memory())?;
        names.try_reserve(bytes).map_err(|_| Error::out_of_memory())?;
        entries.try_reserve(changes.len()).map_err(|_| Error::out_of_memory())?;
        live.clear();
        live.try_reserve(entries.len() + changes.len()).map_err(|_| Error::out_of_memory())?;
        if names.len() + bytes > u32::MAX as usize || entries.len() + changes.len() > u32::MAX as usize {
            fail!(Unsupported, "a bank holds names of at most 4 GiB");
        }
        Ok(())
    }

    /// Adds a name, for which there is room.
    fn add(&mut self, name: &str) -> u32 {
        let Self { names, entries, table, hasher, .. } = self;
        let number = entries.len() as u32;
        let (name_start, name_bytes) = (names.len() as u32, name.len() as u32);
        names.extend_from_slice(name.as_bytes());
        entries.push(Entry { name_start, name_bytes, home: 0, vectors: None });
        let rehash = |number: &u32| hasher.hash_one(name_of(names, &entries[*number as usize]));
        table.insert_unique(hasher.hash_one(name.as_bytes()), number, rehash);
        number
    }
}

fn name_of<'a>(names: &'a [u8], entry: &Entry) -> &'a [u8] {
    &names[entry.name_start as usize..][..entry.name_bytes as usize]
}

fn encoded(change: &Change<'_>, name_start: u32) -> [u8; ITEM] {
    let nothing = Vectors { offset: 0, identity: 0, family: 0, crc: 0, dtype: Dtype::F32 };
    let vectors = change.vectors.unwrap_or(nothing);
    let mut item = [0; ITEM];
    item[0..8].copy_from_slice(&vectors.offset.to_le_bytes());
    item[8..16].copy_from_slice(&vectors.identity.to_le_bytes());
    item[16..20].copy_from_slice(&name_start.to_le_bytes());
    item[20..24].copy_from_slice(&(change.name.len() as u32).to_le_bytes());
    item[24..28].copy_from_slice(&vectors.family.to_le_bytes());
    item[28..32].copy_from_slice(&vectors.crc.to_le_bytes());
    item[32] = DTYPES.iter().position(|dtype| *dtype == vectors.dtype).expect("each has a number") as u8;
    item[33] = u8::from(change.vectors.is_none());
    let crc = checksum(&item, change.name.as_bytes());
    item[36..40].copy_from_slice(&crc.to_le_bytes());
    item
}

/// By their numbers in the file.
const DTYPES: [Dtype; 3] = [Dtype::F32, Dtype::F16, Dtype::Bf16];

fn checksum(item: &[u8], name: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&item[..ITEM - 4]);
    hasher.update(name);
    hasher.finalize()
}

/// What an item says, or its name (where that can be read) when it is damaged.
fn decoded<'a>(item: &[u8], names: &'a [u8]) -> std::result::Result<Change<'a>, Option<&'a str>> {
    let (start, count) = (read_u32(item, 16) as usize, read_u32(item, 20) as usize);
    if count == 0 || count > LONGEST_NAME {
        return Err(None);
    }
    let bytes = names.get(start..).and_then(|rest| rest.get(..count)).ok_or(None)?;
    let name = std::str::from_utf8(bytes).ok();
    match (name, DTYPES.get(item[32] as usize)) {
        (Some(name), Some(dtype)) if checksum(item, bytes) == read_u32(item, 36) => {
            let vectors = Vectors {
                offset: read_u64(item, 0),
                identity: read_u64(item, 8),
                family: read_u32(item, 24),
                crc: read_u32(item, 28),
                dtype: *dtype,
            };
            Ok(Change { name, vectors: (item[33] == 0).then_some(vectors) })
        }
        _ => Err(name.filter(|name| !name.contains(char::is_control))),
    }
}

/// An item without checks, whose name is the first one.
#[cfg(test)]
pub fn item_of(name: &[u8]) -> [u8; ITEM] {
    let vectors = Vectors { offset: 4096, identity: 0, family: 0, crc: 0, dtype: Dtype::F32 };
    let name = std::str::from_utf8(name).expect("a test's name");
    encoded(&Change { name, vectors: Some(vectors) }, 0)
}
