//! Tests of replacing folders; kills and readers at the same time are in tests/saving.rs.

use super::*;

const FILES: [(&str, &[u8]); 2] = [("one", b"new"), ("two", b"new")];

fn scratch(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("pvera-folder-{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&path);
    fs::create_dir_all(&path).unwrap();
    fs::canonicalize(path).unwrap()
}

/// An old checkpoint `a` with a file and a folder of somebody else.
fn old(root: &Path) -> PathBuf {
    let folder = root.join("a");
    fs::create_dir_all(folder.join("sub/deep")).unwrap();
    for (path, text) in [("one", "old"), ("two", "old"), ("notes", "mine"), ("sub/deep/file", "mine")] {
        fs::write(folder.join(path), text).unwrap();
    }
    folder
}

fn text(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).unwrap()
}

fn assert_replaced(folder: &Path) {
    assert_eq!([text(folder.join("one")), text(folder.join("two"))], ["new", "new"]);
    assert_eq!([text(folder.join("notes")), text(folder.join("sub/deep/file"))], ["mine", "mine"]);
    assert_eq!(entries(folder).unwrap().len(), 4);
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        entries(folder).unwrap().iter().map(|entry| entry.file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn what_is_not_ours_stays() {
    let root = scratch("stays");
    let folder = old(&root);
    replace_folder(&folder, true, &FILES).unwrap();
    assert_replaced(&folder);
    assert_eq!(names(&root), ["a"]);
    fs::remove_dir_all(root).unwrap();
}

#[test]
fn links_slashes_and_new_folders() {
    let root = scratch("links");
    let folder = old(&root);
    std::os::unix::fs::symlink(&folder, root.join("link")).unwrap();
    replace_folder(&root.join("link"), true, &FILES).unwrap();
    assert!(fs::symlink_metadata(root.join("link")).unwrap().is_symlink());
    assert_replaced(&folder);
    replace_folder(&root.join("a/"), true, &FILES).unwrap();
    replace_folder(&root.join("a/sub/.."), true, &FILES).unwrap();
    assert_replaced(&folder);
    replace_folder(&root.join("new/"), true, &FILES).unwrap();
    assert_eq!(names(&root.join("new")), ["one", "two"]);
    assert_eq!(names(&root), ["a", "link", "new"]);
    fs::remove_dir_all(root).unwrap();
}

#[test]
fn folders_that_cannot_be_replaced_are_told_and_untouched() {
    let root = scratch("told");
    let message = |path: &Path| replace_folder(path, true, &FILES).unwrap_err().message().to_owned();
    assert_eq!(message(Path::new("/")), "'/' cannot be replaced; wanted a folder inside another");
    fs::write(root.join("file"), "mine").unwrap();
    assert_eq!(message(&root.join("file")), format!("'{}/file' exists and is not a folder", root.display()));
    std::os::unix::fs::symlink(root.join("nowhere"), root.join("dangling")).unwrap();
    assert!(message(&root.join("dangling")).ends_with("/dangling' exists and is not a folder"));
    let missing = format!("could not open '{}/no': No such file or directory (os error 2)", root.display());
    assert_eq!(message(&root.join("no/a")), missing);
    assert!(message(&root.join("file/a")).contains("Not a directory"));
    assert!(message(&root.join("x".repeat(250))).contains("File name too long"));
    assert!(message(Path::new("")).contains("empty"), "{}", message(Path::new("")));
    // No user may create folders there, not even root.
    assert!(message(Path::new("/proc/self/pvera")).starts_with("could not create '/proc/self/.pvera.pvera-0'"));
    assert_eq!(names(&root), ["dangling", "file"]);
    fs::remove_dir_all(root).unwrap();
}

#[test]
fn leftovers_of_killed_saves_come_home() {
    let root = scratch("leftovers");
    let folder = old(&root);
    // Killed before the exchange: half of our files, and a link.
    fs::create_dir(root.join(".a.pvera-0")).unwrap();
    fs::write(root.join(".a.pvera-0/one"), "half").unwrap();
    fs::hard_link(folder.join("notes"), root.join(".a.pvera-0/notes")).unwrap();
    // Killed after the exchange: an old folder, whose folders had not moved yet.
    fs::create_dir_all(root.join(".a.pvera-7/stranded/deep")).unwrap();
    fs::write(root.join(".a.pvera-7/two"), "older").unwrap();
    fs::write(root.join(".a.pvera-7/notes"), "older").unwrap();
    // A folder of the same name came since: nothing may be lost.
    fs::create_dir_all(root.join(".a.pvera-8/sub")).unwrap();
    fs::write(root.join(".a.pvera-8/sub/precious"), "mine").unwrap();
    // Not ours, and one that a running save holds.
    fs::create_dir(root.join(".a.pvera-x")).unwrap();
    fs::create_dir(root.join(".a.pvera-9")).unwrap();
    let running = Lock::try_on(&root.join(".a.pvera-9")).unwrap();
    replace_folder(&folder, true, &FILES).unwrap();
    assert!(folder.join("stranded/deep").is_dir());
    fs::remove_dir_all(folder.join("stranded")).unwrap();
    assert_replaced(&folder);
    assert_eq!(names(&root), [".a.pvera-8", ".a.pvera-9", ".a.pvera-x", "a"]);
    assert_eq!(text(root.join(".a.pvera-8/sub/precious")), "mine");
    drop(running);
    replace_folder(&folder, true, &FILES).unwrap();
    assert_eq!(names(&root), [".a.pvera-8", ".a.pvera-x", "a"]);
    fs::remove_dir_all(root).unwrap();
}

#[test]
fn a_failed_save_leaves_the_old_folder() {
    let root = scratch("failed");
    let folder = old(&root);
    let error = replace_folder(&folder, true, &[("one", b"new"), ("no/such", b"new")]).unwrap_err();
    assert!(error.message().contains("could not write"), "{error}");
    assert_eq!([text(folder.join("one")), text(folder.join("two"))], ["old", "old"]);
    assert_eq!(names(&root), ["a"]);
    fs::remove_dir_all(root).unwrap();
}

#[test]
fn a_file_system_without_exchange_takes_steps() {
    let root = scratch("steps");
    let folder = old(&root);
    fs::create_dir(root.join("fresh")).unwrap();
    fs::write(root.join("fresh/one"), "new").unwrap();
    exchange_in_steps(&root.join("fresh"), &folder).unwrap();
    assert_eq!((text(folder.join("one")), text(root.join("fresh/notes"))), ("new".into(), "mine".into()));
    assert_eq!(names(&root), ["a", "fresh"]);
    fs::remove_dir_all(root).unwrap();
}

#[test]
fn what_got_there_meanwhile_is_not_removed() {
    let root = scratch("meanwhile");
    let folder = root.join("a");
    let write = |fresh: &Path| {
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("mine"), "mine").unwrap();
        write_synced(&fresh.join("one"), b"new")
    };
    for exists in [false, true] {
        if exists {
            fs::create_dir(&folder).unwrap();
        }
        let error = replace_whole(&folder, false, write).unwrap_err();
        assert_eq!(error.code(), Code::Exists);
        assert_eq!((text(folder.join("mine")), names(&root)), ("mine".into(), vec!["a".to_owned()]));
        fs::remove_dir_all(&folder).unwrap();
    }
    fs::create_dir(&folder).unwrap();
    replace_whole(&folder, false, |fresh| write_synced(&fresh.join("one"), b"new")).unwrap();
    assert_eq!(names(&folder), ["one"]);
    replace_whole(&folder, true, write).unwrap();
    assert_eq!((names(&folder), names(&root)), (vec!["one".to_owned()], vec!["a".to_owned()]));
    fs::remove_dir_all(root).unwrap();
}

fn mode(path: impl AsRef<Path>) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn files_that_got_there_meanwhile_are_not_replaced() {
    let root = scratch("kept");
    let folder = root.join("a");
    fs::create_dir_all(folder.join("sub")).unwrap();
    // Another program saves while this one writes.
    let write = |fresh: &Path| {
        fs::write(folder.join("one"), "theirs").unwrap();
        write_synced(&fresh.join("one"), b"new")
    };
    let error = replace_files(&folder, false, &["one"], write).unwrap_err();
    let wanted = "exists; wanted a new one, or a word that it is to be replaced";
    assert_eq!(error.message(), format!("'{}' {wanted}", folder.join("one").display()));
    assert_eq!((error.code(), text(folder.join("one"))), (Code::Exists, "theirs".into()));
    assert_eq!((names(&folder), names(&root)), (vec!["one".to_owned(), "sub".to_owned()], vec!["a".to_owned()]));
    // Known before: nothing is written.
    let error = replace_files(&folder, false, &["one"], |_| unreachable!("it is there")).unwrap_err();
    assert_eq!(error.code(), Code::Exists);
    replace_files(&folder, true, &["one"], write).unwrap();
    assert_eq!(text(folder.join("one")), "new");

    let file = root.join("file");
    let write = |fresh: &Path| {
        fs::write(&file, "theirs").unwrap();
        write_synced(fresh, b"new")
    };
    assert_eq!(replace_file(&file, false, write).unwrap_err().code(), Code::Exists);
    assert_eq!((text(&file), names(&root)), ("theirs".into(), vec!["a".to_owned(), "file".to_owned()]));
    let known = replace_file::<Error>(&file, false, |_| unreachable!("it is there")).unwrap_err();
    assert_eq!(known.code(), Code::Exists);
    replace_file(&file, true, write).unwrap();
    assert_eq!((text(&file), names(&root)), ("new".into(), vec!["a".to_owned(), "file".to_owned()]));
    fs::remove_dir_all(root).unwrap();
}

#[test]
fn what_takes_a_place_has_its_mode_and_nobody_looks_before() {
    let root = scratch("modes");
    let folder = old(&root);
    fs::set_permissions(&folder, Permissions::from_mode(0o750)).unwrap();
    fs::set_permissions(folder.join("one"), Permissions::from_mode(0o600)).unwrap();
    replace_files(&folder, true, &["one", "two"], |fresh| {
        assert_eq!(mode(fresh), 0o700);
        FILES.iter().try_for_each(|(name, bytes)| write_synced(&fresh.join(name), bytes))
    })
    .unwrap();
    assert_eq!(
        (mode(&folder), mode(folder.join("one")), mode(folder.join("two"))),
        (0o750, 0o600, mode(folder.join("notes")))
    );
    let file = folder.join("one");
    replace_file(&file, true, |fresh| {
        assert_eq!(mode(fresh.parent().unwrap()), 0o700);
        write_synced(fresh, b"newer")
    })
    .unwrap();
    assert_eq!((text(&file), mode(&file)), ("newer".into(), 0o600));
    replace_folder(&root.join("new"), true, &FILES).unwrap();
    fs::create_dir(root.join("plain")).unwrap();
    assert_eq!(mode(root.join("new")), mode(root.join("plain")), "as any new folder");
    fs::remove_dir_all(root).unwrap();
}
