//! A safetensors file on disk of which only the header is held: its tensors are read a piece at a time.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bytemuck::Pod;
use safetensors::tensor::{Metadata, TensorInfo};

use crate::adapter::save::LARGEST_HEADER;
use crate::adapter::source::{inode_of, io, open_regular};
use crate::error::{Code, Error, Result};
use crate::fail;

/// Bytes of the number that a file begins with.
const LENGTH_BYTES: usize = size_of::<u64>();

/// A file whose header was checked against its length.
#[derive(Debug)]
pub struct TensorFile {
    path: PathBuf,
    /// Everything before the first tensor, as it is in the file.
    head: Vec<u8>,
    metadata: Metadata,
    length: u64,
    inode: (u64, u64),
}

impl TensorFile {
    /// Reads and checks the header.
    pub fn open(path: &Path) -> Result<Self> {
        let file = open_regular(path)?;
        let data = file.metadata().map_err(|error| io(path, "read", &error))?;
        let head = read_head(&file, path, data.len())?;
        let metadata: Metadata = serde_json::from_slice(&head[LENGTH_BYTES..]).map_err(|error| {
            Error::new(Code::Format, format!("'{}': not a valid safetensors file: {error}", path.display()))
        })?;
        let wanted = (head.len() as u64).checked_add(metadata.data_len() as u64);
        if wanted != Some(data.len()) {
            fail!(
                Format,
                "'{}' has {} bytes; its header of {} bytes speaks of {} bytes of tensors after it",
                path.display(),
                data.len(),
                head.len(),
                metadata.data_len()
            );
        }
        Ok(Self { path: path.to_owned(), head, metadata, length: data.len(), inode: inode_of(&data) })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes of the file.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Everything before the first tensor, as it is in the file.
    pub fn head(&self) -> &[u8] {
        &self.head
    }

    pub fn info(&self, name: &str) -> Option<&TensorInfo> {
        self.metadata.info(name)
    }

    /// The names, in the order in which the tensors lie in the file.
    pub fn names(&self) -> Vec<String> {
        self.metadata.offset_keys()
    }

    /// The file again, for reading its tensors: still the one whose header was read.
    pub fn reader(&self) -> Result<Reader<'_>> {
        let file = open_regular(&self.path)?;
        let data = file.metadata().map_err(|error| io(&self.path, "read", &error))?;
        if (inode_of(&data), data.len()) != (self.inode, self.length) {
            fail!(Io, "'{}' changed while it was read", self.path.display());
        }
        Ok(Reader { file, of: self })
    }
}

/// An open file.
pub struct Reader<'a> {
    file: File,
    of: &'a TensorFile,
}

impl Reader<'_> {
    /// Fills `out` with the bytes from `start` on, counted from the first tensor's first.
    pub fn read(&self, start: usize, out: &mut [u8]) -> Result<()> {
        let at = (self.of.head.len() + start) as u64;
        self.file.read_exact_at(out, at).map_err(|error| io(&self.of.path, "read", &error))
    }

    /// A whole tensor.
    pub fn tensor(&self, info: &TensorInfo) -> Result<Vec<u8>> {
        let (start, end) = info.data_offsets;
        let mut bytes = zeros(end - start)?;
        self.read(start, &mut bytes)?;
        Ok(bytes)
    }
}

/// Zeros whose number comes from a file.
pub fn zeros<T: Pod>(count: usize) -> Result<Vec<T>> {
    let mut values = Vec::new();
    values.try_reserve_exact(count).map_err(|_| Error::out_of_memory())?;
    values.resize(count, T::zeroed());
    Ok(values)
}

/// The length and the header. What the length claims is believed only as far as the file reaches.
fn read_head(file: &File, path: &Path, length: u64) -> Result<Vec<u8>> {
    let mut claimed = [0; LENGTH_BYTES];
    if length < LENGTH_BYTES as u64 {
        fail!(Format, "'{}' has {length} bytes; wanted a safetensors file", path.display());
    }
    file.read_exact_at(&mut claimed, 0).map_err(|error| io(path, "read", &error))?;
    let header = u64::from_le_bytes(claimed);
    if header > length - LENGTH_BYTES as u64 || header > LARGEST_HEADER as u64 {
        fail!(
            Format,
            "'{}' speaks of a header of {header} bytes, and has {length} bytes; wanted a safetensors file",
            path.display()
        );
    }
    let mut head = zeros(LENGTH_BYTES + header as usize)?;
    file.read_exact_at(&mut head, 0).map_err(|error| io(path, "read", &error))?;
    Ok(head)
}
