//! The two files of a PEFT checkpoint, wherever they are, and the names in them.

use std::ffi::CStr;
use std::fs::{File, Metadata, OpenOptions};
use std::io::Read;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use memmap2::Mmap;

use crate::config::Method;
use crate::error::{Code, Error, Result};
use crate::fail;

pub const CONFIG_FILE: &str = "adapter_config.json";
pub const TENSOR_FILE: &str = "adapter_model.safetensors";
/// The same names, as the operating system takes them.
const CONFIG_NAME: &CStr = c"adapter_config.json";
const TENSOR_NAME: &CStr = c"adapter_model.safetensors";
pub const LEARNED_BIAS: &str = ".base_layer.bias";
pub const MODULE_PREFIX: &str = "base_model.model.";

/// What a method calls its own tensors.
#[derive(Debug)]
pub struct Keys {
    pub a: &'static str,
    pub b: &'static str,
    /// Behind a module's path.
    pub lambda_b: &'static str,
    pub lambda_d: &'static str,
}

impl Keys {
    pub const PVERA: Keys = Keys {
        a: "base_model.pvera_A",
        b: "base_model.pvera_B",
        lambda_b: ".pvera_lambda_b",
        lambda_d: ".pvera_lambda_d",
    };
    pub const VERA: Keys =
        Keys { a: "base_model.vera_A", b: "base_model.vera_B", lambda_b: ".vera_lambda_b", lambda_d: ".vera_lambda_d" };

    pub fn of(method: Method) -> &'static Keys {
        match method {
            Method::Pvera => &Self::PVERA,
            Method::Vera => &Self::VERA,
        }
    }

    fn holds(&self, key: &str) -> bool {
        key == self.a || key == self.b || key.ends_with(self.lambda_b) || key.ends_with(self.lambda_d)
    }
}

/// A folder is read again when a save exchanged it meanwhile; more often than this is somebody's mistake.
const ATTEMPTS: usize = 8;

/// Without it, a pipe in a file's place would wait for a writer for ever.
const NO_WAIT: i32 = libc::O_NONBLOCK;

/// A checkpoint's contents.
#[derive(Debug)]
pub struct Source {
    pub config: Vec<u8>,
    pub tensors: Contents,
    /// For messages.
    pub config_name: String,
    pub tensors_name: String,
}

/// The bytes of the tensor file.
#[derive(Debug)]
pub enum Contents {
    Read(Vec<u8>),
    Mapped(Arc<Mmap>),
}

impl Contents {
    /// Reads or maps one file.
    pub fn of(path: &Path, map: bool) -> Result<Self> {
        Self::from_file(&open_regular(path)?, path, map)
    }

    fn from_file(file: &File, path: &Path, map: bool) -> Result<Self> {
        Ok(if map { Self::Mapped(Arc::new(mapped(file, path)?)) } else { Self::Read(read(file, path, u64::MAX)?) })
    }

    /// Copies bytes of the caller's.
    pub fn memory(bytes: &[u8]) -> Result<Self> {
        Ok(Self::Read(copied(bytes)?))
    }
}

impl std::ops::Deref for Contents {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Contents::Read(bytes) => bytes,
            Contents::Mapped(map) => map,
        }
    }
}

impl Source {
    /// Reads a folder. Both files come from the same folder even when a save exchanges it meanwhile: the folder is
    /// opened once, and both are opened in it.
    ///
    /// Mapping avoids a copy of the projections; the caller then promises that nobody shortens the file while the
    /// adapter lives (a truncated map kills the process).
    pub fn folder(folder: &Path, map: bool) -> Result<Self> {
        for _ in 0..ATTEMPTS {
            let held = open_folder(folder)?;
            let source = Self::read_folder(folder, &held, map);
            // A save empties the folder that it took away, so what is missing may be in the one that came.
            if source.is_ok() || inode(folder).ok() == held.metadata().ok().as_ref().map(inode_of) {
                return source;
            }
        }
        fail!(Io, "folder '{}' changed {ATTEMPTS} times while it was read; is it saved in a loop?", folder.display())
    }

    fn read_folder(folder: &Path, held: &File, map: bool) -> Result<Self> {
        let (config, tensors) = (folder.join(CONFIG_FILE), folder.join(TENSOR_FILE));
        let bytes = read(&open(held, CONFIG_NAME, &config)?, &config, crate::config::LARGEST_FILE as u64)?;
        let contents = Contents::from_file(&open(held, TENSOR_NAME, &tensors)?, &tensors, map)?;
        Ok(Self {
            config: bytes,
            tensors: contents,
            config_name: config.display().to_string(),
            tensors_name: tensors.display().to_string(),
        })
    }

    /// Copies both files from memory.
    pub fn memory(config: &[u8], tensors: &[u8]) -> Result<Self> {
        Ok(Self {
            config: copied(config)?,
            tensors: Contents::memory(tensors)?,
            config_name: "the config in memory".into(),
            tensors_name: "the tensors in memory".into(),
        })
    }
}

/// Opens what is a file, and no pipe or folder.
pub fn open_regular(path: &Path) -> Result<File> {
    let file = OpenOptions::new().read(true).custom_flags(NO_WAIT).open(path);
    regular(file.map_err(|error| io(path, "open", &error))?, path)
}

/// A whole file of at most `limit` bytes.
pub fn read_file(path: &Path, limit: u64) -> Result<Vec<u8>> {
    read(&open_regular(path)?, path, limit)
}

fn open_folder(folder: &Path) -> Result<File> {
    let held = File::open(folder).map_err(|error| io(folder, "open", &error))?;
    if !held.metadata().map_err(|error| io(folder, "open", &error))?.is_dir() {
        fail!(Io, "'{}' is not a folder; wanted one with {CONFIG_FILE} and {TENSOR_FILE}", folder.display());
    }
    Ok(held)
}

/// What tells a file or folder from every other that exists at the same time.
pub fn inode(path: &Path) -> std::io::Result<(u64, u64)> {
    std::fs::metadata(path).map(|data| inode_of(&data))
}

pub fn inode_of(data: &Metadata) -> (u64, u64) {
    (data.dev(), data.ino())
}

fn copied(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut own = Vec::new();
    own.try_reserve_exact(bytes.len()).map_err(|_| Error::out_of_memory())?;
    own.extend_from_slice(bytes);
    Ok(own)
}

/// Reads what the file holds now. A file that shrinks or grows meanwhile gives fewer or more bytes, never a crash.
fn read(mut file: &File, path: &Path, limit: u64) -> Result<Vec<u8>> {
    let length = file.metadata().map_err(|error| io(path, "read", &error))?.len();
    if length > limit {
        fail!(Format, "'{}' has {length} bytes; wanted at most {limit}", path.display());
    }
    let mut bytes = Vec::new();
    let expected = usize::try_from(length).map_err(|_| Error::out_of_memory())?;
    bytes.try_reserve_exact(expected).map_err(|_| Error::out_of_memory())?;
    file.by_ref().take(length).read_to_end(&mut bytes).map_err(|error| io(path, "read", &error))?;
    Ok(bytes)
}

fn mapped(file: &File, path: &Path) -> Result<Mmap> {
    // SAFETY: the caller of `folder` asked for a map and promised that the file stays as it is.
    unsafe { Mmap::map(file) }.map_err(|error| io(path, "map", &error))
}

/// Opens a file of the folder that is held open, wherever that folder is by now.
fn open(held: &File, name: &CStr, path: &Path) -> Result<File> {
    let flags = libc::O_RDONLY | libc::O_CLOEXEC | NO_WAIT;
    // SAFETY: an open descriptor and a NUL-terminated name.
    let descriptor = unsafe { libc::openat(held.as_raw_fd(), name.as_ptr(), flags) };
    if descriptor < 0 {
        return Err(io(path, "open", &std::io::Error::last_os_error()));
    }
    // SAFETY: just opened, and nobody else's.
    regular(unsafe { File::from_raw_fd(descriptor) }, path)
}

fn regular(file: File, path: &Path) -> Result<File> {
    if !file.metadata().map_err(|error| io(path, "open", &error))?.is_file() {
        fail!(Io, "'{}' is not a file", path.display());
    }
    Ok(file)
}

pub fn io(path: &Path, verb: &str, error: &std::io::Error) -> Error {
    Error::new(Code::Io, format!("could not {verb} '{}': {error}", path.display()))
}

/// Whether a key is one of those that hold an adapter's own vectors or projections, or the file's metadata.
pub fn is_reserved(key: &str) -> bool {
    key == "__metadata__" || method_of(key).is_some()
}

/// The method that calls one of its own tensors so.
pub fn method_of(key: &str) -> Option<Method> {
    [Method::Pvera, Method::Vera].into_iter().find(|method| Keys::of(*method).holds(key))
}

/// The module path in a key that ends so.
pub fn module_of<'a>(key: &'a str, suffix: &str) -> Option<&'a str> {
    key.strip_prefix(MODULE_PREFIX)?.strip_suffix(suffix)
}

/// The key of a module's tensor.
pub fn key_of(module: &str, suffix: &str) -> String {
    format!("{MODULE_PREFIX}{module}{suffix}")
}
