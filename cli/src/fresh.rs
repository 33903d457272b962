//! A new file appears at once, or not at all.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::Path;

use pvera::error::Code;

use crate::outcome::{Failure, Result};

/// `write` makes a file at the path that it is given, beside `path`, whose place it then takes. What is there is replaced only
/// with `force`.
pub fn fresh_file(path: &Path, force: bool, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let exists = || Failure::new(Code::Exists, format!("'{}' exists", path.display())).hint("--force replaces it");
    if !force && fs::symlink_metadata(path).is_ok() {
        return Err(exists());
    }
    let Some(name) = path.file_name() else {
        return Err(Failure::new(Code::Argument, format!("'{}' has no file name", path.display())));
    };
    let mut hidden = OsString::from(".");
    hidden.push(name);
    hidden.push(format!(".pvera-new-{}", std::process::id()));
    let fresh = Unfinished(path.with_file_name(hidden));
    write(&fresh.0)?;
    // A link does not replace what somebody else has put there meanwhile.
    let placed = if force { fs::rename(&fresh.0, path) } else { fs::hard_link(&fresh.0, path) };
    placed.map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => exists(),
        _ => Failure::io(path, "create", &error),
    })?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent).and_then(|parent| parent.sync_all()).map_err(|error| Failure::io(parent, "sync", &error))
}

/// Removed when it has not taken its place; a second name of a file that has goes, too.
struct Unfinished(std::path::PathBuf);

impl Drop for Unfinished {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}
