//! A reader that looks again: at what a writer added, at another file in the bank's place, at a damaged one.

use std::sync::Weak;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::*;

type Layers = Vec<(String, Vec<f32>)>;

/// What the adapters of these names are; None for one that there is not.
fn read(bank: &Bank, names: &[&str]) -> Vec<Option<Layers>> {
    names.iter().map(|name| bank.adapter(name).ok().map(|adapter| vectors(&adapter))).collect()
}

fn names_of(bank: &Bank) -> Vec<String> {
    (0..bank.len()).map(|place| bank.name(place).unwrap()).collect()
}

#[test]
fn a_reader_takes_what_was_added_removed_and_replaced() {
    let folder = Folder::new("refresh");
    let (path, model) = (folder.path("bank"), model());
    let own: Vec<Adapter> = (0..5).map(|seed| adapter(&model, 2, seed)).collect();
    let wanted = |numbers: &[usize]| numbers.iter().map(|number| Some(vectors(&own[*number]))).collect::<Vec<_>>();
    let bank = open(&model, &path, Access::Create);
    bank.append(&[("a", &own[0]), ("b", &own[1]), ("c", &own[2])], Dtype::F32).unwrap();
    let reader = open(&model, &path, Access::Read);
    assert!(!reader.refresh().unwrap(), "nothing was written");
    assert_eq!(read(&reader, &["a", "b", "c"]), wanted(&[0, 1, 2]));
    let (before, _) = reader.snapshot(&[Some("b")]).unwrap();
    let held = reader.adapter("b").unwrap();

    bank.append(&[("b", &own[3]), ("d", &own[4])], Dtype::F32).unwrap();
    assert_eq!(read(&reader, &["a", "b", "c"]), wanted(&[0, 1, 2]), "as it was when it was opened");
    assert!(!reader.contains("d"));
    assert!(reader.refresh().unwrap());
    assert!(!reader.refresh().unwrap());
    let used = reader.usage();
    assert_eq!(read(&reader, &["a", "b", "c", "d"]), wanted(&[0, 3, 2, 4]));
    let after = reader.usage();
    assert_eq!((after.hits - used.hits, after.misses - used.misses), (2, 2), "a and c are still in memory");
    assert_eq!(names_of(&reader), ["a", "b", "c", "d"]);
    for old in [&held, &before.slots().get(0).unwrap().adapter] {
        assert_eq!(vectors(old), vectors(&own[1]), "what was handed out stays");
    }

    // The first name goes, and each after it gets another number.
    bank.remove(&["a"]).unwrap();
    assert!(reader.refresh().unwrap());
    let used = reader.usage();
    assert_eq!(read(&reader, &["d", "c", "b", "a"]), [wanted(&[4, 2, 3]), vec![None]].concat());
    let after = reader.usage();
    assert_eq!((after.hits - used.hits, after.misses - used.misses), (3, 0));
    assert_eq!((after.cached, names_of(&reader)), (3, ["b", "c", "d"].map(String::from).to_vec()), "a is not kept");
    assert_eq!((reader.verify().unwrap(), reader.usage().file_bytes), (0, bank.usage().file_bytes));
}

/// Hears how often projections are drawn.
#[derive(Clone, Default)]
struct Draws(Arc<AtomicUsize>);

impl Listener for Draws {
    fn warning(&self, _: &str) {}

    fn progress(&self, stage: &str, done: u64, _: u64) -> bool {
        self.0.fetch_add(usize::from(stage == "draw projections" && done == 0), Ordering::Relaxed);
        true
    }
}

#[test]
fn a_reader_follows_a_compaction_without_drawing_anew() {
    let folder = Folder::new("refresh-compaction");
    let (path, model) = (folder.path("bank"), model());
    let own: Vec<Adapter> = (0..4).map(|seed| adapter(&model, 2 + seed as usize % 2, seed)).collect();
    let bank = open(&model, &path, Access::Create);
    bank.append(&[("a", &own[0]), ("b", &own[1]), ("c", &own[2]), ("d", &own[3])], Dtype::F32).unwrap();
    let draws = Draws::default();
    let reader = open(&model_of(&[0, 1, 2], Box::new(draws.clone())), &path, Access::Read);
    read(&reader, &["a", "b", "c", "d"]);
    let drawn = draws.0.load(Ordering::Relaxed);
    assert!(drawn >= 2, "one store of each rank, drawn {drawn} times");
    // The family of a and c is another number afterwards.
    bank.remove(&["a"]).unwrap();
    bank.compact().unwrap();
    bank.append(&[("c", &own[0])], Dtype::F32).unwrap();
    assert_eq!(vectors(&reader.adapter("a").unwrap()), vectors(&own[0]), "the old file is read until then");
    assert!(reader.refresh().unwrap());
    let wanted = [&own[1], &own[0], &own[3]].map(|own| Some(vectors(own)));
    assert_eq!(read(&reader, &["b", "c", "d"]), wanted);
    assert_eq!((reader.len(), reader.contains("a")), (3, false));
    assert_eq!(draws.0.load(Ordering::Relaxed), drawn);
    // And goes on from there.
    bank.append(&[("e", &own[2])], Dtype::F32).unwrap();
    assert!(reader.refresh().unwrap() && !reader.refresh().unwrap());
    assert_eq!(read(&reader, &["b", "e"]), [Some(vectors(&own[1])), Some(vectors(&own[2]))]);
}

/// The same names and offsets, other vectors; and other families under the same numbers.
#[test]
fn a_reader_takes_another_bank_that_was_put_in_the_place() {
    let folder = Folder::new("refresh-other");
    let (path, model) = (folder.path("bank"), model());
    let own = [adapter(&model, 2, 1), adapter(&model, 2, 2), adapter(&model, 3, 3)];
    open(&model, &path, Access::Create).append(&[("a", &own[0])], Dtype::F32).unwrap();
    let reader = open(&model, &path, Access::Read);
    read(&reader, &["a"]);
    for (round, other) in own[1..].iter().enumerate() {
        let next = folder.path("next");
        open(&model, &next, Access::Create).append(&[("a", other)], Dtype::F32).unwrap();
        fs::rename(&next, &path).unwrap();
        assert!(reader.refresh().unwrap());
        let found = reader.adapter("a").unwrap();
        assert_eq!((vectors(&found), found.config().rank), (vectors(other), other.config().rank), "{round}");
    }
    assert_eq!(reader.usage().cached, 1);
}

/// A newer file that is cut, damaged, gone or no bank: the reader stays where it is, and is told.
#[test]
fn a_damaged_file_leaves_the_reader_as_it_was() {
    let folder = Folder::new("refresh-damaged");
    let (path, ear) = (folder.path("bank"), Ear::default());
    let model = model_of(&[0, 1, 2], Box::new(ear.clone()));
    let own = [adapter(&model, 2, 1), adapter(&model, 3, 2), adapter(&model, 2, 3)];
    let bank = open(&model, &path, Access::Create);
    bank.append(&[("a", &own[0])], Dtype::F32).unwrap();
    bank.append(&[("b", &own[0])], Dtype::F32).unwrap();
    let old = fs::read(&path).unwrap();
    let (reader, other) = (open(&model, &path, Access::Read), folder.path("other"));
    bank.append(&[("a", &own[1]), ("c", &own[2])], Dtype::F32).unwrap();
    let state = bank.state();
    let (catalogue, segment) = (state.commit.catalogue.offset as usize, state.commit.segments[0].offset as usize);
    drop(bank);
    let sound = fs::read(&path).unwrap();
    let stays = |what: &str, code: Code, words: &str| {
        let error = reader.refresh().expect_err(what);
        assert!(error.code() == code && error.message().contains(words), "{what}: {error}");
        assert_eq!(read(&reader, &["a", "b", "c"]), [Some(vectors(&own[0])), Some(vectors(&own[0])), None], "{what}");
        assert!(ear.heard().is_empty(), "an error says it");
    };
    // In the file that the reader has open, and as another one.
    for renamed in [false, true] {
        let put = |bytes: &[u8]| {
            if renamed {
                fs::write(&other, bytes).unwrap();
                fs::rename(&other, &path).unwrap();
            } else {
                // What the reader has seen stays in place.
                let file = fs::File::options().write(true).open(&path).unwrap();
                std::os::unix::fs::FileExt::write_all_at(&file, bytes, 0).unwrap();
                file.set_len(bytes.len() as u64).unwrap();
            }
        };
        for end in [sound.len() - 1, (sound.len() + old.len()) / 2, old.len()] {
            put(&sound[..end]);
            stays("cut", Code::Format, "was cut short");
        }
        // Of the last commit, sequence 3, whose record is at 2048.
        for (place, words) in [
            (2048 + 30, "a commit record is damaged"),
            (catalogue + 5, "catalogue of stores and families is damaged"),
            (segment + 9, "is damaged and left out by whoever opens it; 1 are damaged, and were 0"),
        ] {
            let mut bytes = sound.clone();
            bytes[place] ^= 4;
            put(&bytes);
            stays(words, Code::Format, words);
        }
    }
    fs::remove_file(&path).unwrap();
    stays("gone", Code::Io, "bank'");
    fs::write(&path, "no bank").unwrap();
    stays("short", Code::Format, "has 7 bytes");
    fs::write(&path, vec![b'x'; 5000]).unwrap();
    stays("other", Code::Format, "is not a bank of adapters");
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    stays("folder", Code::Io, "is not a file");
    fs::remove_dir(&path).unwrap();
    fs::write(&path, &sound).unwrap();
    assert!(reader.refresh().unwrap());
    assert_eq!(read(&reader, &["a", "b", "c"]), [&own[1], &own[0], &own[2]].map(|own| Some(vectors(own))));
    // The very file loses its last commit.
    let file = fs::File::options().write(true).open(&path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &[0; 1024], 2048).unwrap();
    let error = reader.refresh().unwrap_err();
    assert!(error.code() == Code::Format && error.message().contains("is at commit 2, and was at 3"), "{error}");
    assert_eq!(read(&reader, &["a", "b", "c"]), [&own[1], &own[0], &own[2]].map(|own| Some(vectors(own))));
}

/// A repair writes over the last commit, which the reader has seen: the same offsets, other vectors, other families.
#[test]
fn a_commit_that_was_written_over_is_another_one() {
    let folder = Folder::new("refresh-repaired");
    let (path, model) = (folder.path("bank"), model_of(&[0, 1, 2], Box::new(Ear::default())));
    let own: Vec<Adapter> = [2, 2, 3, 2, 4].iter().zip(0..).map(|(rank, seed)| adapter(&model, *rank, seed)).collect();
    for (after, other) in [(0, 2), (1, 2), (0, 4), (1, 4)] {
        let _ = fs::remove_file(&path);
        let bank = open(&model, &path, Access::Create);
        bank.append(&[("a", &own[0])], Dtype::F32).unwrap();
        bank.append(&[("b", &own[2]), ("c", &own[1])], Dtype::F32).unwrap();
        drop(bank);
        let reader = open(&model, &path, Access::Read);
        read(&reader, &["a", "b", "c"]);
        let file = fs::File::options().write(true).open(&path).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, b"!", 1024 + 9).unwrap();
        let options = Options { access: Access::Write, repair: true, ..Options::default() };
        let bank = Bank::open(&model, &path, &options).unwrap();
        bank.append(&[("b", &own[3]), ("c", &own[other])], Dtype::F32).unwrap();
        if after == 1 {
            bank.append(&[("d", &own[0])], Dtype::F32).unwrap();
        }
        assert!(reader.refresh().unwrap());
        for (name, own) in [("a", &own[0]), ("b", &own[3]), ("c", &own[other])] {
            let found = reader.adapter(name).unwrap();
            assert_eq!((vectors(&found), found.config().rank), (vectors(own), own.config().rank), "{name}, {after}");
        }
    }
}

/// The only handle that writes sees all there is.
#[test]
fn a_writer_has_nothing_to_take() {
    let folder = Folder::new("refresh-writer");
    let (path, model) = (folder.path("bank"), model());
    let bank = open(&model, &path, Access::Create);
    bank.append(&[("a", &adapter(&model, 2, 1))], Dtype::F32).unwrap();
    assert!(!bank.refresh().unwrap());
    fs::remove_file(&path).unwrap();
    assert!(!bank.refresh().unwrap());
}

/// Calls the bank out of each warning.
#[derive(Default)]
struct Caller {
    bank: Mutex<Weak<Bank>>,
    outcomes: Mutex<Vec<(Code, usize)>>,
}

impl Listener for Arc<Caller> {
    fn warning(&self, _: &str) {
        let Some(bank) = self.bank.lock().unwrap().upgrade() else { return };
        let code = bank.refresh().unwrap_err().code();
        bank.adapter("a").unwrap();
        self.outcomes.lock().unwrap().push((code, bank.len()));
    }

    fn progress(&self, _: &str, _: u64, _: u64) -> bool {
        true
    }
}

/// Nothing that a reader needs is held while the file is read and callbacks run.
#[test]
fn a_callback_of_a_refresh_may_read_the_bank() {
    let folder = Folder::new("refresh-callback");
    let path = folder.path("bank");
    let caller = Arc::new(Caller::default());
    let model = model_of(&[0, 1, 2], Box::new(caller.clone()));
    let own = adapter(&model, 2, 1);
    let bank = open(&model, &path, Access::Create);
    bank.append(&[("a", &own)], Dtype::F32).unwrap();
    let reader = Arc::new(open(&model, &path, Access::Read));
    *caller.bank.lock().unwrap() = Arc::downgrade(&reader);
    bank.append(&[("b", &own)], Dtype::F32).unwrap();
    // The older record is damaged, which is no loss, and told.
    let file = fs::File::options().write(true).open(&path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"!", 2048 + 100).unwrap();
    assert!(reader.refresh().unwrap());
    assert_eq!(*caller.outcomes.lock().unwrap(), [(Code::State, 1)]);
    assert_eq!(reader.len(), 2);
}

/// Ends the threads of a test, also when it fails.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Each name has two states of its own: whatever is mixed up is seen.
#[test]
fn many_threads_read_while_others_refresh_and_one_writes() {
    let folder = Folder::new("refresh-threads");
    let (path, model) = (folder.path("bank"), model());
    let own: Vec<Adapter> = (0..24).map(|seed| adapter(&model, 2 + seed as usize % 2, seed)).collect();
    let wanted: Vec<_> = own.iter().map(vectors).collect();
    let names: Vec<String> = (0..12).map(|number| format!("adapter {number}")).collect();
    let bank = open(&model, &path, Access::Create);
    let all: Vec<(&str, &Adapter)> = names.iter().map(String::as_str).zip(&own).collect();
    bank.append(&all, Dtype::F32).unwrap();
    let reader = open(&model, &path, Access::Read);
    let (done, changes) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for thread in 0..4usize {
            let (reader, names, wanted, done) = (&reader, &names, &wanted, &done);
            scope.spawn(move || {
                let mut round = thread;
                while !done.load(Ordering::Acquire) {
                    let number = round % 12;
                    match reader.snapshot(&[Some(&names[number]), Some(&names[(round + 1) % 12])]) {
                        Ok((snapshot, slots)) => {
                            let found = vectors(&snapshot.slots().get(slots[0]).unwrap().adapter);
                            assert!(found == wanted[number] || found == wanted[number + 12], "{number} is another's");
                        }
                        Err(error) => assert_eq!(error.code(), Code::NotFound, "{error}"),
                    }
                    round += 1;
                }
            });
        }
        for _ in 0..2 {
            let (reader, done, changes) = (&reader, &done, &changes);
            scope.spawn(move || {
                while !done.load(Ordering::Acquire) {
                    changes.fetch_add(usize::from(reader.refresh().unwrap()), Ordering::Relaxed);
                    std::thread::yield_now();
                }
            });
        }
        let end = End(&done);
        for round in 0..60usize {
            let number = round * 5 % 12;
            if round % 7 == 6 {
                bank.remove(&[&names[(round + 1) % 12]]).unwrap();
            }
            bank.append(&[(&names[number], &own[number + 12 * (round / 12 % 2)])], Dtype::F32).unwrap();
            if round % 7 == 6 {
                let back = (round + 1) % 12;
                bank.append(&[(&names[back], &own[back])], Dtype::F32).unwrap();
            }
            if round % 10 == 9 {
                bank.compact().unwrap();
            }
        }
        drop(end);
    });
    reader.refresh().unwrap();
    assert!(changes.load(Ordering::Relaxed) > 0, "nobody saw a change");
    for name in &names {
        assert_eq!(vectors(&reader.adapter(name).unwrap()), vectors(&bank.adapter(name).unwrap()), "{name}");
    }
    assert_eq!(reader.verify().unwrap(), 0);
}
