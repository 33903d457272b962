//! Replacing a folder at once. Two files cannot be renamed together, but two folders can be exchanged.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::source::{inode, io};
use crate::error::{Code, Error, Result};
use crate::fail;

/// More folders of half-done saves than this beside one folder are somebody's mistake.
const ATTEMPTS: usize = 1000;

/// Milliseconds that a save waits for another to let go of the folder that it replaces.
const PATIENCE: usize = 100;

/// Between a folder's name and a number, in the names of its temporary folders: those that may hold what belongs to it, ...
const HALF_SAVED: &str = ".pvera-";
/// ... and those that hold nothing but the beginning of something.
const HALF_WRITTEN: &str = ".pvera-whole-";

/// Writes `files` into a fresh folder beside `folder` and puts it in its place. Whatever moment the process dies at,
/// `folder` holds the old files or the new ones, all of them.
///
/// Everything else in the old folder is carried over: files are linked into the fresh one beforehand, folders move
/// over right after the exchange. A kill between these two leaves folders in `.NAME.pvera-N` beside it; the next save
/// brings them back. Files that take the place of others have their modes. Without `replace`, it is an error if one of
/// `files` is there, whenever it got there.
pub fn replace_folder(folder: &Path, replace: bool, files: &[(&str, &[u8])]) -> Result<()> {
    let names: Vec<&str> = files.iter().map(|(name, _)| *name).collect();
    replace_files(folder, replace, &names, |fresh| {
        files.iter().try_for_each(|(name, bytes)| write_synced(&fresh.join(name), bytes))
    })
}

/// The same for files too large to be held: `write` puts files of these names into the folder that it is given, synced.
pub fn replace_files(
    folder: &Path,
    replace: bool,
    files: &[&str],
    write: impl FnOnce(&Path) -> Result<()>,
) -> Result<()> {
    let place = Place::of(folder)?;
    let (folder, parent) = (&*place.folder, &*place.parent);
    if !replace {
        refuse_existing(folder, folder, files)?;
    }
    sync_folder(parent)?;
    let mut fresh = Fresh::beside(folder, HALF_SAVED)?;
    write(&fresh.path)?;
    if place.exists {
        files.iter().try_for_each(|name| take_mode(&fresh.path.join(name), &folder.join(name)))?;
        link_others(folder, &fresh.path, files)?;
    }
    fresh.open(folder);
    sync_folder(&fresh.path)?;
    if place.exists {
        // The old folder is about to stand where a sweep looks.
        let lock = Lock::soon_on(folder);
        let is_current = inode(Path::new(".")).ok() == inode(folder).ok();
        exchange(&fresh.path, folder)?;
        fresh.kept = true;
        if !replace && let Err(error) = refuse_existing(&fresh.path, folder, files) {
            exchange(&fresh.path, folder)?;
            fresh.kept = false;
            return Err(error);
        }
        // No sweep looks at it any more; who replaces it next wants the lock.
        fresh.lock = None;
        if is_current {
            // Else the process would stay in the old folder, which is removed now.
            let _ = std::env::set_current_dir(folder);
        }
        sync_folder(parent)?;
        // The new checkpoint is in place and synced: what is left to tidy cannot fail the save, and the next one sweeps it.
        // Without the lock, another may settle the same folder and a third begin anew under its name.
        if lock.as_ref().is_some_and(|lock| lock.is_on(&fresh.path)) {
            let _ = settle(&fresh.path, folder, files);
        }
    } else {
        fs::rename(&fresh.path, folder).map_err(|error| io(folder, "create", &error))?;
        fresh.kept = true;
        sync_folder(parent)?;
    }
    sweep(folder, files);
    Ok(())
}

/// Writes a fresh folder beside `folder` and puts it in its place, whole. What an old folder of that name held is removed with
/// `replace`, and else an error, whenever it got there.
/// A kill leaves the old folder, if there was one, and `.NAME.pvera-whole-N` beside it, which the next such call removes.
pub fn replace_whole(folder: &Path, replace: bool, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let place = Place::of(folder)?;
    let (folder, parent) = (&*place.folder, &*place.parent);
    remove_abandoned(folder, parent);
    sync_folder(parent)?;
    let mut fresh = Fresh::beside(folder, HALF_WRITTEN)?;
    write(&fresh.path)?;
    fresh.open(folder);
    sync_folder(&fresh.path)?;
    if place.exists && replace {
        exchange(&fresh.path, folder)?;
    } else {
        // Takes the place of an empty folder, and of nothing else.
        fs::rename(&fresh.path, folder).map_err(|error| match error.kind() {
            ErrorKind::DirectoryNotEmpty | ErrorKind::AlreadyExists => not_empty(folder),
            _ => io(folder, "create", &error),
        })?;
        fresh.kept = true;
    }
    // The old folder goes with `fresh`, which has its name now.
    sync_folder(parent)
}

pub fn not_empty(folder: &Path) -> Error {
    let wanted = "wanted a new folder, or a word that it is to be replaced";
    Error::new(Code::Exists, format!("'{}' is not empty; {wanted}", folder.display()))
}

/// Writes a file and puts it at `path` at once: `write` makes it, synced, at the path that it is given. What is there is replaced
/// with `replace`, and the new file has its mode; else it is an error, whenever it got there.
/// A kill leaves the old file, if there was one, and `.NAME.pvera-whole-N` beside it, which the next such call removes.
pub fn replace_file<E: From<Error>>(
    path: &Path,
    replace: bool,
    write: impl FnOnce(&Path) -> std::result::Result<(), E>,
) -> std::result::Result<(), E> {
    let path = &absolute(path)?;
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        let message = format!("'{}' cannot be written; wanted a file in a folder", path.display());
        return Err(Error::new(Code::Argument, message).into());
    };
    if path.is_dir() {
        return Err(Error::new(Code::Io, format!("'{}' is a folder; wanted a file", path.display())).into());
    }
    if !replace {
        refuse_existing(parent, parent, &[name])?;
    }
    remove_abandoned(path, parent);
    let fresh = Fresh::beside(path, HALF_WRITTEN)?;
    let file = fresh.path.join(name);
    write(&file)?;
    take_mode(&file, path)?;
    // A link does not take the place of what somebody has put there meanwhile.
    let placed = if replace { fs::rename(&file, path) } else { link(&file, path) };
    placed.map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => exists(path),
        _ => io(path, "create", &error),
    })?;
    Ok(sync_folder(parent)?)
}

/// Gives a file a second name; where the file system knows no such, another one.
fn link(file: &Path, path: &Path) -> io::Result<()> {
    match fs::hard_link(file, path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists && fs::symlink_metadata(path).is_err() => {
            fs::rename(file, path)
        }
        outcome => outcome,
    }
}

fn exists(path: &Path) -> Error {
    let wanted = "wanted a new one, or a word that it is to be replaced";
    Error::new(Code::Exists, format!("'{}' exists; {wanted}", path.display()))
}

/// None of these files is in `folder`, which its user knows as `called`.
pub fn refuse_existing(folder: &Path, called: &Path, files: &[impl AsRef<Path>]) -> Result<()> {
    match files.iter().find(|name| fs::symlink_metadata(folder.join(name)).is_ok()) {
        Some(name) => Err(exists(&called.join(name))),
        None => Ok(()),
    }
}

/// What takes the place of another file is as private as that one.
fn take_mode(fresh: &Path, old: &Path) -> Result<()> {
    let Ok(old) = fs::metadata(old) else { return Ok(()) };
    let set = || match fs::metadata(fresh)?.permissions() == old.permissions() {
        true => Ok(()),
        false => fs::set_permissions(fresh, old.permissions()),
    };
    set().map_err(|error| io(fresh, "set the mode of", &error))
}

/// Removes what killed calls left that they never finished.
fn remove_abandoned(folder: &Path, parent: &Path) {
    for (path, _lock) in abandoned(folder, parent, HALF_WRITTEN) {
        let _ = fs::remove_dir_all(path);
    }
}

/// What lies beside a folder under its name, a mark and a number, and belongs to no call that runs.
fn abandoned(folder: &Path, parent: &Path, mark: &str) -> impl Iterator<Item = (PathBuf, Lock)> {
    let prefix = prefix(folder, mark);
    let beside = if prefix.is_some() { entries(parent).unwrap_or_default() } else { Vec::new() };
    beside.into_iter().filter_map(move |entry| {
        let name = entry.file_name();
        let number = name.as_encoded_bytes().strip_prefix(prefix.as_ref()?.as_encoded_bytes())?;
        if !number.iter().all(u8::is_ascii_digit) {
            return None;
        }
        let path = entry.path();
        Lock::try_on(&path).map(|lock| (path, lock))
    })
}

/// Where a folder is, or is to be.
struct Place {
    folder: PathBuf,
    parent: PathBuf,
    exists: bool,
}

impl Place {
    fn of(folder: &Path) -> Result<Self> {
        let folder = absolute(folder)?;
        let (Some(parent), Some(_)) = (folder.parent(), folder.file_name()) else {
            fail!(Argument, "'{}' cannot be replaced; wanted a folder inside another", folder.display());
        };
        let exists = match fs::symlink_metadata(&folder) {
            Err(error) if error.kind() == ErrorKind::NotFound => false,
            Err(error) => return Err(io(&folder, "open", &error)),
            Ok(data) if !data.is_dir() => fail!(Io, "'{}' exists and is not a folder", folder.display()),
            Ok(_) => true,
        };
        Ok(Self { parent: parent.to_owned(), folder, exists })
    }
}

/// Links the old folder's other files into the fresh one. What cannot be linked moves over after the exchange.
fn link_others(folder: &Path, fresh: &Path, files: &[&str]) -> Result<()> {
    for entry in entries(folder)? {
        let name = entry.file_name();
        if !is_ours(&name, files) && entry.file_type().is_ok_and(|kind| !kind.is_dir()) {
            let _ = fs::hard_link(entry.path(), fresh.join(&name));
        }
    }
    Ok(())
}

/// Brings home what only an old folder holds, and removes the rest. Nothing in `folder` is overwritten.
fn settle(old: &Path, folder: &Path, files: &[&str]) -> Result<()> {
    for entry in entries(old)? {
        let (from, to) = (entry.path(), folder.join(entry.file_name()));
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let is_superseded = is_ours(&entry.file_name(), files) || fs::symlink_metadata(&to).is_ok();
        // Renaming a folder onto an empty one replaces that, and onto any other fails.
        let outcome = if is_superseded && !is_folder { fs::remove_file(&from) } else { fs::rename(&from, &to) };
        gone(outcome).map_err(|error| io(&from, "carry over", &error))?;
    }
    gone(fs::remove_dir(old)).map_err(|error| io(old, "remove", &error))
}

/// Settles what killed saves of this folder left. Whatever goes wrong there can wait for the next save.
fn sweep(folder: &Path, files: &[&str]) {
    let Some(parent) = folder.parent() else { return };
    for (path, _lock) in abandoned(folder, parent, HALF_SAVED) {
        let _ = settle(&path, folder, files);
    }
}

/// Another save may settle the same folder; then somebody did the work.
fn gone(outcome: io::Result<()>) -> io::Result<()> {
    outcome.or_else(|error| if error.kind() == ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

fn is_ours(name: &OsStr, files: &[&str]) -> bool {
    files.iter().any(|ours| name == *ours)
}

/// A folder in the making, locked, into which nobody else looks; removed again unless it is kept.
struct Fresh {
    path: PathBuf,
    /// Those of a new folder.
    permissions: Option<Permissions>,
    lock: Option<Lock>,
    kept: bool,
}

impl Fresh {
    fn beside(folder: &Path, kind: &str) -> Result<Self> {
        let Some(prefix) = prefix(folder, kind) else { fail!(Argument, "'{}' has no name", folder.display()) };
        for attempt in 0..ATTEMPTS {
            let mut name = prefix.clone();
            name.push(attempt.to_string());
            let path = folder.with_file_name(name);
            match fs::create_dir(&path) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(io(&path, "create", &error)),
            }
            // A sweep may have seen the new folder before it was locked; then it is gone, or will be.
            if let Some(lock) = Lock::try_on(&path) {
                let permissions = fs::metadata(&path).map(|data| data.permissions()).ok();
                let _ = fs::set_permissions(&path, Permissions::from_mode(0o700));
                return Ok(Self { path, permissions, lock: Some(lock), kept: false });
            }
        }
        fail!(Io, "no free name for a fresh folder beside '{}' after {ATTEMPTS} attempts", folder.display())
    }
}

impl Fresh {
    /// From now on as open to others as the folder whose place it takes, or as any new folder.
    fn open(&self, folder: &Path) {
        let old = fs::metadata(folder).map(|data| data.permissions()).ok();
        if let Some(permissions) = old.or_else(|| self.permissions.clone()) {
            let _ = fs::set_permissions(&self.path, permissions);
        }
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        if !self.kept {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// `.NAME.pvera-…`, with which all temporary folders of a folder begin.
fn prefix(folder: &Path, kind: &str) -> Option<OsString> {
    let mut prefix = OsString::from(".");
    prefix.push(folder.file_name()?);
    prefix.push(kind);
    Some(prefix)
}

/// A lock on a folder, which ends with its holder, however that dies. It tells half-done saves from abandoned ones.
struct Lock {
    folder: File,
}

impl Lock {
    /// None where another holds it or the folder is gone.
    fn try_on(path: &Path) -> Option<Self> {
        let folder = File::open(path).ok()?;
        // SAFETY: an open descriptor.
        let locked = unsafe { libc::flock(folder.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } == 0;
        let lock = Self { folder };
        (locked && lock.is_on(path)).then_some(lock)
    }

    /// The same, where another holds it for a moment only.
    fn soon_on(path: &Path) -> Option<Self> {
        (0..PATIENCE).find_map(|_| {
            Self::try_on(path).or_else(|| {
                std::thread::sleep(Duration::from_millis(1));
                None
            })
        })
    }

    /// Whether what it locks lies there.
    fn is_on(&self, path: &Path) -> bool {
        let own = self.folder.metadata().map(|data| super::source::inode_of(&data));
        inode(path).is_ok_and(|found| own.is_ok_and(|own| own == found))
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

pub fn write_synced(path: &Path, bytes: &[u8]) -> Result<()> {
    let write = || {
        let mut file = File::create_new(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(|error: io::Error| io(path, "write", &error))
}

/// Some file systems cannot sync a folder, and say that the request is invalid.
pub fn sync_folder(folder: &Path) -> Result<()> {
    let synced = File::open(folder).and_then(|folder| match folder.sync_all() {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(()),
        outcome => outcome,
    });
    synced.map_err(|error| io(folder, "open", &error))
}

/// Exchanges two folders, in one step where the file system can.
fn exchange(fresh: &Path, folder: &Path) -> Result<()> {
    match exchange_at_once(fresh, folder) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOSYS | libc::EOPNOTSUPP)) => {
            exchange_in_steps(fresh, folder)
        }
        outcome => outcome.map_err(|error| io(folder, "replace", &error)),
    }
}

#[cfg(target_os = "linux")]
fn exchange_at_once(first: &Path, second: &Path) -> io::Result<()> {
    use std::ffi::CString;
    use std::os::unix::ffi::OsStrExt;
    let (first, second) = (CString::new(first.as_os_str().as_bytes())?, CString::new(second.as_os_str().as_bytes())?);
    // SAFETY: two NUL-terminated paths.
    let status = unsafe {
        libc::renameat2(libc::AT_FDCWD, first.as_ptr(), libc::AT_FDCWD, second.as_ptr(), libc::RENAME_EXCHANGE)
    };
    if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(not(target_os = "linux"))]
fn exchange_at_once(_: &Path, _: &Path) -> io::Result<()> {
    Err(io::Error::from_raw_os_error(libc::ENOSYS))
}

/// The old folder steps aside first: a kill between the steps leaves no folder of that name, never a mixed one.
fn exchange_in_steps(fresh: &Path, folder: &Path) -> Result<()> {
    let mut aside = Fresh::beside(folder, HALF_SAVED)?;
    fs::rename(folder, &aside.path).map_err(|error| io(folder, "move aside", &error))?;
    aside.kept = true;
    if let Err(error) = fs::rename(fresh, folder) {
        let _ = fs::rename(&aside.path, folder);
        return Err(io(folder, "replace", &error));
    }
    fs::rename(&aside.path, fresh).map_err(|error| io(&aside.path, "move", &error))
}

#[cfg(test)]
mod tests;
