//! The file of a bank: a head, two commit records that take turns, and data that is only ever added at the end.
//!
//! ```text
//! 0      magic "pverabnk", version
//! 1024   commit record of even sequence numbers
//! 2048   commit record of odd ones
//! 4096   data: vectors, projections, catalogues, index segments, in the order in which they were added
//! ```
//!
//! Everything is little endian. What counts is what the valid commit record with the larger sequence number says; bytes
//! beyond its end are what a killed writer left, and the next one writes over them. A record is written when all that it
//! names is on the disk, and its place is zeroed before: so a record that a kill left half-written is told from a damaged one.

use std::fs::{self, File, Metadata, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use crate::adapter::io;
use crate::error::{Code, Error, Result};
use crate::fail;
use crate::memory::{Allocator, Buffer};

const MAGIC: [u8; 8] = *b"pverabnk";
const VERSION: u32 = 1;
/// Where the commit records of even and of odd sequence numbers are, and how long one is.
const RECORDS: [u64; 2] = [1024, 2048];
const RECORD: usize = 1024;
/// Where data begin.
pub const DATA: u64 = 4096;
/// A record has room for these; segments at least double from the last to the first, so that no sound bank needs more.
pub const MOST_SEGMENTS: usize = 48;

/// A stretch of the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    pub offset: u64,
    pub bytes: u64,
}

/// Where an index segment lies: its items, then their names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentPlace {
    pub offset: u64,
    pub items: u32,
    pub name_bytes: u32,
}

/// What a commit record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    pub sequence: u64,
    /// The first byte that does not count.
    pub end: u64,
    pub catalogue: Place,
    pub catalogue_crc: u32,
    /// From the oldest to the newest.
    pub segments: Vec<SegmentPlace>,
}

impl Commit {
    /// Of a bank that holds nothing.
    pub fn first() -> Self {
        let catalogue = Place { offset: DATA, bytes: 0 };
        Self { sequence: 0, end: DATA, catalogue, catalogue_crc: 0, segments: Vec::new() }
    }

    fn encoded(&self) -> Vec<u8> {
        assert!(self.segments.len() <= MOST_SEGMENTS);
        let mut bytes = Vec::with_capacity(RECORD);
        for number in [self.sequence, self.end, self.catalogue.offset, self.catalogue.bytes] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(&self.catalogue_crc.to_le_bytes());
        bytes.extend_from_slice(&(self.segments.len() as u32).to_le_bytes());
        for segment in &self.segments {
            bytes.extend_from_slice(&segment.offset.to_le_bytes());
            bytes.extend_from_slice(&segment.items.to_le_bytes());
            bytes.extend_from_slice(&segment.name_bytes.to_le_bytes());
        }
        bytes.resize(RECORD - 4, 0);
        let crc = crc32fast::hash(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// None for bytes that are no record.
    fn decoded(bytes: &[u8]) -> Option<Self> {
        let (content, crc) = bytes.split_at(RECORD - 4);
        if crc32fast::hash(content) != read_u32(crc, 0) {
            return None;
        }
        let count = read_u32(content, 36) as usize;
        let segment = |number: usize| SegmentPlace {
            offset: read_u64(content, 40 + 16 * number),
            items: read_u32(content, 48 + 16 * number),
            name_bytes: read_u32(content, 52 + 16 * number),
        };
        let sequence = read_u64(content, 0);
        (count <= MOST_SEGMENTS && sequence < u64::MAX / 2).then(|| Self {
            sequence,
            end: read_u64(content, 8),
            catalogue: Place { offset: read_u64(content, 16), bytes: read_u64(content, 24) },
            catalogue_crc: read_u32(content, 32),
            segments: (0..count).map(segment).collect(),
        })
    }
}

pub fn read_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

pub fn read_u64(bytes: &[u8], at: usize) -> u64 {
    u64::from(read_u32(bytes, at)) | u64::from(read_u32(bytes, at + 4)) << 32
}

/// How a bank is opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Access {
    /// Any number of programs at a time, also beside one that writes.
    #[default]
    Read,
    /// One program at a time.
    Write,
    /// A new file, to be written.
    Create,
}

/// Opens the file; a writer keeps others out as long as it is open.
pub fn open(path: &Path, access: Access) -> Result<File> {
    if access == Access::Read {
        return opened(path, access);
    }
    let file = locked(path, || opened(path, access))?;
    if access == Access::Create {
        create(&file).map_err(|error| io(path, "write", &error))?;
    }
    Ok(file)
}

fn opened(path: &Path, access: Access) -> Result<File> {
    let mut options = OpenOptions::new();
    // Without it, a pipe in the file's place would wait for ever.
    options.read(true).write(access != Access::Read).custom_flags(libc::O_NONBLOCK);
    options.create_new(access == Access::Create);
    let file = options.open(path).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => {
            Error::new(Code::Exists, format!("'{}' exists already; wanted a path for a new bank", path.display()))
        }
        _ => io(path, "open", &error),
    })?;
    if !file.metadata().map_err(|error| io(path, "open", &error))?.is_file() {
        fail!(Io, "'{}' is not a file", path.display());
    }
    Ok(file)
}

/// Opens a file and locks it. A compaction may put another in its place in between: then that one is opened.
pub fn locked(path: &Path, mut open: impl FnMut() -> Result<File>) -> Result<File> {
    loop {
        let file = open()?;
        match file.try_lock() {
            Ok(()) if stands_at(&file, path) => return Ok(file),
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                fail!(State, "'{}' is being written by another handle or program; one writes at a time", path.display())
            }
            Err(TryLockError::Error(error)) => return Err(io(path, "lock", &error)),
        }
    }
}

/// Whether others find this very file at the path.
pub fn stands_at(file: &File, path: &Path) -> bool {
    is_one(file.metadata(), fs::metadata(path))
}

/// Whether two open files are one.
pub fn are_one(first: &File, second: &File) -> bool {
    is_one(first.metadata(), second.metadata())
}

fn is_one(first: io::Result<Metadata>, second: io::Result<Metadata>) -> bool {
    let inode = |data: Metadata| (data.dev(), data.ino());
    matches!((first.map(inode), second.map(inode)), (Ok(first), Ok(second)) if first == second)
}

/// Keeps writers out of a bank as long as it lives: for whoever puts another file in the bank's place.
#[derive(Debug)]
pub struct Held {
    _file: File,
}

impl Held {
    /// None where there is no file; an error of the code State where somebody writes it.
    pub fn of(path: &Path) -> Result<Option<Self>> {
        if matches!(fs::metadata(path), Err(error) if error.kind() == io::ErrorKind::NotFound) {
            return Ok(None);
        }
        Ok(Some(Self { _file: locked(path, || opened(path, Access::Read))? }))
    }
}

/// The head and the first record.
pub fn create(file: &File) -> io::Result<()> {
    let mut head = vec![0; DATA as usize];
    head[..8].copy_from_slice(&MAGIC);
    head[8..12].copy_from_slice(&VERSION.to_le_bytes());
    let first = RECORDS[0] as usize;
    head[first..first + RECORD].copy_from_slice(&Commit::first().encoded());
    file.write_all_at(&head, 0)?;
    file.sync_all()
}

/// The commit that counts, and what there is to say about the other one.
pub struct LastCommit {
    pub commit: Commit,
    pub finding: Option<Finding>,
}

/// What is wrong with a commit record.
pub struct Finding {
    pub words: String,
    /// Whether a commit may be lost, whose data the next one would overwrite.
    pub is_loss: bool,
}

/// Reads the head. A writer makes a record when all that it names is in the file, so that a newer record beyond the file's end
/// tells of a file that was cut.
pub fn last_commit(file: &File, path: &Path) -> Result<LastCommit> {
    let last = read_last_commit(file, path)?;
    // Perhaps a writer was at it just then.
    if last.finding.is_some() { read_last_commit(file, path) } else { Ok(last) }
}

fn read_last_commit(file: &File, path: &Path) -> Result<LastCommit> {
    let mut head = vec![0; DATA as usize];
    let length = || file.metadata().map(|data| data.len()).map_err(|error| io(path, "read", &error));
    let before = length()?;
    if before < DATA {
        fail!(Format, "'{}' has {before} bytes; wanted a bank of adapters, which has {DATA} at least", path.display());
    }
    file.read_exact_at(&mut head, 0).map_err(|error| io(path, "read", &error))?;
    // After the records: a writer may have made the file longer, and then one of them, in between.
    let length = length()?;
    if head[..8] != MAGIC {
        fail!(Format, "'{}' is not a bank of adapters", path.display());
    }
    let version = read_u32(&head, 8);
    if version != VERSION {
        fail!(Format, "'{}' is a bank of version {version}; this library reads version {VERSION}", path.display());
    }
    let bytes = RECORDS.map(|at| &head[at as usize..at as usize + RECORD]);
    let records = bytes.map(|bytes| Commit::decoded(bytes).filter(|commit| commit.end >= DATA));
    let fits = |number: usize| records[number].as_ref().filter(|commit| commit.end <= length);
    let number = match (fits(0), fits(1)) {
        (Some(even), Some(odd)) => usize::from(odd.sequence > even.sequence),
        (Some(_), None) => 0,
        (None, Some(_)) => 1,
        (None, None) => {
            fail!(Format, "'{}' has no valid commit record; it is damaged or cut short", path.display())
        }
    };
    let [even, odd] = records;
    let (commit, other) = if number == 0 { (even, odd) } else { (odd, even) };
    let Some(commit) = commit else { unreachable!("it fits") };
    let (path, loss) = (path.display(), |words: String| Some(Finding { words, is_loss: true }));
    let finding = match other {
        Some(other) if other.sequence > commit.sequence => loss(format!(
            "'{path}' has {length} bytes, and its last commit {}: it was cut short; the commit before it is read",
            other.end
        )),
        Some(_) => None,
        None if is_unfinished(bytes[1 - number]) => None,
        None if is_older(bytes[1 - number], &commit) => {
            let words =
                format!("'{path}': the older one of its two commit records is damaged; nothing is lost by that");
            Some(Finding { words, is_loss: false })
        }
        None => loss(format!(
            "'{path}': a commit record is damaged, of its last commit perhaps; commit {} is read",
            commit.sequence
        )),
    };
    Ok(LastCommit { commit, finding })
}

/// Whether a kill can have left these bytes in a record's place, which was zeroed before: its checksum, at its end, is not
/// there, or its first half, of a disk that writes 512 bytes at a time.
fn is_unfinished(record: &[u8]) -> bool {
    read_u32(record, RECORD - 4) == 0 || record[..RECORD / 2].iter().all(|byte| *byte == 0)
}

/// Whether a damaged record was of the commit before this one, as far as its bytes tell.
fn is_older(record: &[u8], commit: &Commit) -> bool {
    read_u64(record, 0).checked_add(1) == Some(commit.sequence) && read_u64(record, 8) <= commit.end
}

/// Makes a commit count: when this returns, it is on the disk.
pub fn write_commit(file: &File, commit: &Commit) -> io::Result<()> {
    let place = RECORDS[(commit.sequence % 2) as usize];
    file.write_all_at(&[0; RECORD], place)?;
    file.sync_data()?;
    file.write_all_at(&commit.encoded(), place)?;
    file.sync_data()
}

/// Reads a stretch, which must lie within the data.
pub fn read(file: &File, path: &Path, what: &str, place: Place, end: u64) -> Result<Buffer<u8>> {
    let within = place.offset >= DATA && place.offset.checked_add(place.bytes).is_some_and(|last| last <= end);
    if !within {
        let Place { offset, bytes } = place;
        fail!(Format, "'{}': {what} would lie at {offset}, {bytes} bytes; the bank ends at {end}", path.display());
    }
    let bytes = usize::try_from(place.bytes).map_err(|_| Error::out_of_memory())?;
    let mut buffer = Buffer::zeroed(&Allocator::default(), bytes)?;
    file.read_exact_at(&mut buffer, place.offset).map_err(|error| io(path, "read", &error))?;
    Ok(buffer)
}

/// Writes at the end of the data, in large pieces.
pub struct Tail<'a> {
    file: Arc<File>,
    path: &'a Path,
    /// Where `pending` will lie.
    written: u64,
    pending: Vec<u8>,
}

/// Bytes that are written at a time.
const PIECE: usize = 1 << 20;

impl<'a> Tail<'a> {
    pub fn new(file: &Arc<File>, path: &'a Path, end: u64) -> Result<Self> {
        let mut pending = Vec::new();
        pending.try_reserve_exact(2 * PIECE).map_err(|_| Error::out_of_memory())?;
        Ok(Self { file: file.clone(), path, written: end, pending })
    }

    /// Where the next byte goes.
    pub fn end(&self) -> u64 {
        self.written + self.pending.len() as u64
    }

    pub fn push(&mut self, bytes: &[u8]) -> Result<()> {
        for piece in bytes.chunks(PIECE) {
            self.pending.extend_from_slice(piece);
            if self.pending.len() >= PIECE {
                self.flush()?;
            }
        }
        Ok(())
    }

    pub fn flush(&mut self) -> Result<()> {
        let outcome = self.file.write_all_at(&self.pending, self.written);
        outcome.map_err(|error| io(self.path, "write", &error))?;
        self.written += self.pending.len() as u64;
        self.pending.clear();
        Ok(())
    }
}
