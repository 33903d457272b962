//! The file and its place in the folder: who holds it, and what stands at its path.

use super::*;
use crate::bank::file::{self, Held};

/// A writer that opened the file before a compaction took its place, and locks it afterwards.
#[test]
fn a_lock_on_a_file_that_was_replaced_is_none() {
    let folder = Folder::new("replaced-file");
    let (path, model) = (folder.path("bank"), model());
    let own = adapter(&model, 2, 1);
    let bank = open(&model, &path, Access::Create);
    bank.append(&[("a", &own)], Dtype::F32).unwrap();
    let opened = || fs::File::options().read(true).write(true).open(&path).unwrap();
    let mut stale = Some(opened());
    bank.compact().unwrap();
    drop(bank);
    let file = file::locked(&path, || Ok(stale.take().unwrap_or_else(opened))).unwrap();
    assert!(file::stands_at(&file, &path), "it is the one that others will find");
    let second = Bank::open(&model, &path, &Options { access: Access::Write, ..Options::default() });
    assert_eq!(second.err().unwrap().code(), Code::State);
}

/// Whoever is about to put another file in a bank's place keeps its writers out, and is kept out by them.
#[test]
fn a_bank_that_is_written_cannot_be_held_to_be_replaced() {
    let folder = Folder::new("held");
    let (path, model) = (folder.path("bank"), model());
    assert!(Held::of(&path).unwrap().is_none(), "nothing is there");
    let bank = open(&model, &path, Access::Create);
    assert_eq!(Held::of(&path).err().unwrap().code(), Code::State);
    drop(bank);
    let held = Held::of(&path).unwrap();
    let options = Options { access: Access::Write, ..Options::default() };
    assert_eq!(Bank::open(&model, &path, &options).err().unwrap().code(), Code::State);
    drop(held);
    Bank::open(&model, &path, &options).unwrap();
}

/// The link stays, and what it names is compacted, with the mode that it had.
#[test]
fn a_compaction_through_a_link_is_of_the_file_and_keeps_its_mode() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let folder = Folder::new("link");
    fs::create_dir(folder.path("elsewhere")).unwrap();
    let (path, link, model) = (folder.path("elsewhere/bank"), folder.path("link"), model());
    let own = adapter(&model, 2, 1);
    let bank = open(&model, &path, Access::Create);
    bank.append(&[("a", &own), ("b", &own)], Dtype::F32).unwrap();
    bank.remove(&["a"]).unwrap();
    drop(bank);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    symlink(&path, &link).unwrap();
    open(&model, &link, Access::Write).compact().unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
    let bank = open(&model, &path, Access::Read);
    assert_eq!((bank.len(), bank.usage().unused_bytes), (1, 0));
}

/// Another file in the bank's place is nobody's to overwrite.
#[test]
fn a_compaction_does_not_replace_another_file() {
    let folder = Folder::new("other-file");
    let (path, model) = (folder.path("bank"), model());
    let bank = open(&model, &path, Access::Create);
    fs::remove_file(&path).unwrap();
    fs::write(&path, "another").unwrap();
    assert_eq!(bank.compact().unwrap_err().code(), Code::State);
    assert_eq!(fs::read_to_string(&path).unwrap(), "another");
}
