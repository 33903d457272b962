//! What is written is no more public than what it is made of.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::Mode;
use rustix::process::umask;

/// From now on, nobody may open what this program makes who may not read all of these files and folders.
pub fn made_of(inputs: &[&Path]) {
    let closed = inputs.iter().map(|input| closed(input)).fold(Mode::empty(), Mode::union);
    umask(umask(Mode::all()) | closed);
}

/// Who may not read a file, or one of those in a folder.
fn closed(path: &Path) -> Mode {
    let Ok(data) = fs::metadata(path) else { return Mode::empty() };
    if !data.is_dir() {
        return classes(data.mode(), [0o040, 0o004]);
    }
    let files = fs::read_dir(path).into_iter().flatten().flatten();
    let files = files.filter_map(|entry| fs::metadata(entry.path()).ok()).filter(|data| data.is_file());
    let files = files.map(|data| classes(data.mode(), [0o040, 0o004]));
    files.fold(classes(data.mode(), [0o010, 0o001]), Mode::union)
}

/// All bits of the group and of others, where theirs is not set.
fn classes(mode: u32, [group, others]: [u32; 2]) -> Mode {
    let closed = |bit, class| if mode & bit == 0 { class } else { Mode::empty() };
    closed(group, Mode::RWXG) | closed(others, Mode::RWXO)
}
