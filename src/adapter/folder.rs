//! Replacing a folder at once. Two files cannot be renamed together, but two folders can be exchanged.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use super::source::io;
use crate::error::Result;
use crate::fail;

/// Writes `files` into a fresh folder beside `folder` and puts it in its place. Whatever moment the process dies at,
/// `folder` holds the old files or the new ones. Everything else in the old folder is carried over.
pub fn replace_folder(folder: &Path, files: &[(&str, &[u8])]) -> Result<()> {
    let folder = &absolute(folder)?;
    let fresh = Fresh::beside(folder)?;
    for (name, bytes) in files {
        write_synced(&fresh.path.join(name), bytes)?;
    }
    match fs::symlink_metadata(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            sync_folder(&fresh.path)?;
            fs::rename(&fresh.path, folder).map_err(|error| io(folder, "create", &error))?;
            fresh.keep();
        }
        Err(error) => return Err(io(folder, "replace", &error)),
        Ok(data) if !data.is_dir() => fail!(Io, "'{}' exists and is not a folder", folder.display()),
        Ok(_) => exchange_with(folder, fresh, files)?,
    }
    folder.parent().map_or(Ok(()), sync_folder)
}

fn exchange_with(folder: &Path, fresh: Fresh, files: &[(&str, &[u8])]) -> Result<()> {
    let is_ours = |name: &std::ffi::OsStr| files.iter().any(|(ours, _)| name == *ours);
    let mut folders = Vec::new();
    for entry in entries(folder)? {
        let (name, path) = (entry.file_name(), entry.path());
        if is_ours(&name) {
            continue;
        }
        let kind = entry.file_type().map_err(|error| io(&path, "read", &error))?;
        if kind.is_dir() {
            folders.push(name);
        } else {
            fs::hard_link(&path, fresh.path.join(&name)).map_err(|error| io(&path, "carry over", &error))?;
        }
    }
    if let Ok(data) = fs::metadata(folder) {
        let _ = fs::set_permissions(&fresh.path, data.permissions());
    }
    sync_folder(&fresh.path)?;
    exchange(&fresh.path, folder)?;
    // From here on `fresh.path` is the old folder. Its folders move over, one atomic rename each.
    let old = fresh.keep();
    for name in folders {
        fs::rename(old.join(&name), folder.join(&name)).map_err(|error| io(&old.join(&name), "carry over", &error))?;
    }
    fs::remove_dir_all(&old).map_err(|error| io(&old, "remove", &error))
}

/// A folder that is removed again unless it is kept.
struct Fresh {
    path: PathBuf,
    kept: bool,
}

impl Fresh {
    fn beside(folder: &Path) -> Result<Self> {
        let (Some(parent), Some(name)) = (folder.parent(), folder.file_name()) else {
            fail!(Argument, "'{}' cannot be replaced; wanted a folder inside another", folder.display());
        };
        for attempt in 0..1000 {
            let path = parent.join(format!(".{}.pvera-{}-{attempt}", name.to_string_lossy(), std::process::id()));
            match fs::create_dir(&path) {
                Ok(()) => return Ok(Self { path, kept: false }),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(io(&path, "create", &error)),
            }
        }
        fail!(Io, "no free name for a fresh folder beside '{}'", folder.display())
    }

    fn keep(mut self) -> PathBuf {
        self.kept = true;
        self.path.clone()
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        if !self.kept {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// The folder itself, where a symbolic link names it: the link stays.
fn absolute(folder: &Path) -> Result<PathBuf> {
    if let Ok(real) = fs::canonicalize(folder) {
        return Ok(real);
    }
    std::path::absolute(folder).map_err(|error| io(folder, "find", &error))
}

fn entries(folder: &Path) -> Result<Vec<fs::DirEntry>> {
    let list = fs::read_dir(folder).and_then(Iterator::collect);
    list.map_err(|error| io(folder, "read", &error))
}

fn write_synced(path: &Path, bytes: &[u8]) -> Result<()> {
    let write = || {
        let mut file = File::create_new(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(|error: std::io::Error| io(path, "write", &error))
}

fn sync_folder(folder: &Path) -> Result<()> {
    File::open(folder).and_then(|file| file.sync_all()).map_err(|error| io(folder, "sync", &error))
}

/// Exchanges two folders in one step.
#[cfg(target_os = "linux")]
fn exchange(first: &Path, second: &Path) -> Result<()> {
    use std::ffi::CString;
    use std::os::unix::ffi::OsStrExt;
    let c_path =
        |path: &Path| CString::new(path.as_os_str().as_bytes()).map_err(|error| io(path, "name", &error.into()));
    let (first_c, second_c) = (c_path(first)?, c_path(second)?);
    // SAFETY: two NUL-terminated paths.
    let status = unsafe {
        libc::renameat2(libc::AT_FDCWD, first_c.as_ptr(), libc::AT_FDCWD, second_c.as_ptr(), libc::RENAME_EXCHANGE)
    };
    if status == 0 { Ok(()) } else { Err(io(second, "exchange", &std::io::Error::last_os_error())) }
}

/// Without an exchange, the old folder steps aside first: a kill between the two steps leaves none, never a mixed one.
#[cfg(not(target_os = "linux"))]
fn exchange(first: &Path, second: &Path) -> Result<()> {
    let aside = first.with_extension("old");
    fs::rename(second, &aside).map_err(|error| io(second, "move aside", &error))?;
    fs::rename(first, second).map_err(|error| io(second, "replace", &error))?;
    fs::rename(&aside, first).map_err(|error| io(&aside, "move", &error))
}
