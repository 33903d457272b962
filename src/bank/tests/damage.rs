//! What is damaged, cut, killed or hostile.

use std::os::unix::fs::FileExt;

use super::*;

/// Every state that a kill can leave: the data of a commit in part, its record in part.
#[test]
fn a_kill_leaves_the_bank_before_or_after_a_commit() {
    let folder = Folder::new("kill");
    let (path, ear) = (folder.path("bank"), Ear::default());
    let model = model_of(&[0, 1, 2], Box::new(ear.clone()));
    let own = [adapter(&model, 2, 1), adapter(&model, 4, 2), adapter(&model, 2, 3)];
    let bank = open(&model, &path, Access::Create);
    bank.append(&[("a", &own[0])], Dtype::F32).unwrap();
    let before = fs::read(&path).unwrap();
    bank.append(&[("a", &own[1]), ("b", &own[2])], Dtype::F32).unwrap();
    drop(bank);
    let after = fs::read(&path).unwrap();
    let holds = |bytes: &[u8]| {
        let torn = folder.path("torn");
        fs::write(&torn, bytes).unwrap();
        let bank = open(&model, &torn, Access::Write);
        let found: Vec<_> =
            ["a", "b"].iter().map(|name| bank.adapter(name).ok().map(|found| vectors(&found))).collect();
        assert!(ear.heard().is_empty(), "a kill is no damage");
        // Whatever was left, the next commit writes over it.
        bank.append(&[("c", &own[0])], Dtype::F32).unwrap();
        assert_eq!(vectors(&bank.adapter("c").unwrap()), vectors(&own[0]));
        drop(bank);
        let again = open(&model, &torn, Access::Read);
        let still: Vec<_> =
            ["a", "b"].iter().map(|name| again.adapter(name).ok().map(|found| vectors(&found))).collect();
        assert_eq!(found, still);
        found
    };
    let (old, new) = (vec![Some(vectors(&own[0])), None], vec![Some(vectors(&own[1])), Some(vectors(&own[2]))]);
    // Data come first, in any part, and nothing of them counts.
    for end in (before.len()..=after.len()).step_by(37).chain([after.len()]) {
        let mut torn = before.clone();
        torn.extend_from_slice(&after[before.len()..end]);
        assert_eq!(holds(&torn), old, "killed at {end}");
    }
    // Then the record, over zeros: any part of it up to its checksum, or its second half alone.
    let place = 1024..2048;
    let mut zeroed = after.clone();
    zeroed[place.clone()].fill(0);
    for count in (0..1020).step_by(5) {
        let mut torn = zeroed.clone();
        torn[place.clone()][..count].copy_from_slice(&after[place.clone()][..count]);
        assert_eq!(holds(&torn), old, "killed in the record at {count}");
    }
    let mut torn = zeroed.clone();
    torn[place.clone()][512..].copy_from_slice(&after[place.clone()][512..]);
    assert_eq!(holds(&torn), old, "killed before the record's first half");
    assert_eq!(holds(&after), new);
}

/// A writer makes a record last, so that a file that ends before it was cut: the commit before counts, and that is told.
#[test]
fn a_bank_that_was_cut_short_says_so() {
    let folder = Folder::new("cut");
    let (path, ear) = (folder.path("bank"), Ear::default());
    let model = model_of(&[0, 1, 2], Box::new(ear.clone()));
    let own = [adapter(&model, 2, 1), adapter(&model, 2, 2)];
    let bank = open(&model, &path, Access::Create);
    bank.append(&[("a", &own[0])], Dtype::F32).unwrap();
    bank.append(&[("b", &own[1])], Dtype::F32).unwrap();
    drop(bank);
    let bytes = fs::read(&path).unwrap();
    assert!(open(&model, &path, Access::Read).contains("b") && ear.heard().is_empty());
    fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    let bank = open(&model, &path, Access::Read);
    assert!(bank.contains("a") && !bank.contains("b"));
    let heard = ear.heard();
    assert!(heard.len() == 1 && heard[0].contains("was cut short"), "{heard:?}");
    let before = fs::read(&path).unwrap();
    let write = Options { access: Access::Write, ..Options::default() };
    let error = Bank::open(&model, &path, &write).err().unwrap();
    assert!(error.code() == Code::Format && error.message().contains("with the option repair"), "{error}");
    assert_eq!(fs::read(&path).unwrap(), before);
}

/// The newest record is damaged: the commit before it is read, with a warning, and nothing is written unless asked for.
#[test]
fn a_damaged_commit_record_is_told_and_not_written_over() {
    let folder = Folder::new("record");
    let (path, ear) = (folder.path("bank"), Ear::default());
    let model = model_of(&[0, 1, 2], Box::new(ear.clone()));
    let own = adapter(&model, 2, 1);
    let bank = open(&model, &path, Access::Create);
    for name in ["a", "b", "c"] {
        bank.append(&[(name, &own)], Dtype::F32).unwrap();
    }
    drop(bank);
    let sound = fs::read(&path).unwrap();
    let write = Options { access: Access::Write, ..Options::default() };
    // Record 3 is at 2048, record 2 at 1024.
    for place in 2048..2048 + 1024 {
        let mut bytes = sound.clone();
        bytes[place] ^= 1;
        fs::write(&path, &bytes).unwrap();
        let bank = open(&model, &path, Access::Read);
        assert_eq!((bank.len(), bank.contains("c")), (2, false), "{place}");
        let heard = ear.heard();
        assert!(heard.len() == 1 && heard[0].contains("a commit record is damaged"), "{place}: {heard:?}");
        let error = Bank::open(&model, &path, &write).err().unwrap();
        assert!(error.code() == Code::Format && error.message().contains("with the option repair"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), bytes);
    }
    let bank = Bank::open(&model, &path, &Options { repair: true, ..write }).unwrap();
    bank.append(&[("d", &own)], Dtype::F32).unwrap();
    drop(bank);
    ear.heard();
    assert!(open(&model, &path, Access::Write).contains("d") && ear.heard().is_empty());
    // Of the older record, nothing is lost but by its sequence number: then nobody knows which it was.
    for place in 1024..2048 {
        let mut bytes = sound.clone();
        bytes[place] ^= 1;
        fs::write(&path, &bytes).unwrap();
        let bank = Bank::open(&model, &path, &write);
        match bank {
            Ok(bank) => assert_eq!((bank.len(), ear.heard().len()), (3, 1), "{place}"),
            Err(error) => assert!(place < 1024 + 16, "{place}: {error}"),
        }
    }
}

/// Whatever byte is changed: an adapter is what it was, or its loss is told; nothing else comes out, nothing panics.
#[test]
fn damage_is_named_and_costs_no_more_than_it_must() {
    let folder = Folder::new("damage");
    let (path, ear) = (folder.path("bank"), Ear::default());
    let model = model_of(&[0, 1, 2], Box::new(ear.clone()));
    let own = [adapter(&model, 2, 1), adapter(&model, 2, 2), adapter(&model, 2, 3)];
    let bank = open(&model, &path, Access::Create);
    bank.append(&[("first", &own[0]), ("second", &own[1]), ("third", &own[2])], Dtype::F32).unwrap();
    let state = bank.state();
    let (_, second) = state.index.find("second").unwrap();
    let segment = state.commit.segments[0];
    drop((bank, state));
    let sound = fs::read(&path).unwrap();
    let mut lost = [0; 4];
    for place in (0..sound.len()).step_by(3) {
        let mut bytes = sound.clone();
        bytes[place] ^= 1 << (place % 8);
        fs::write(&path, &bytes).unwrap();
        let Ok(bank) = Bank::open(&model, &path, &Options::default()) else {
            lost[3] += 1;
            continue;
        };
        let heard = ear.heard();
        let mut missing = 0;
        for (name, own) in ["first", "second", "third"].iter().zip(&own) {
            match bank.adapter(name) {
                Ok(found) => assert_eq!(vectors(&found), vectors(own), "{name} with byte {place} changed"),
                Err(error) => {
                    assert!(matches!(error.code(), Code::Format | Code::NotFound | Code::Io), "{error}");
                    missing += 1;
                }
            }
        }
        let in_records = (1024..3072).contains(&place);
        assert_eq!(heard.len(), bank.usage().damaged + usize::from(in_records), "{place}: {heard:?}");
        assert!(missing <= 1 || place as u64 >= segment.offset || place < 4096, "{missing} lost to byte {place}");
        lost[missing] += 1;
    }
    assert!(lost[0] > 0 && lost[1] > 0 && lost[3] > 0, "{lost:?}");
    // One byte of one adapter's vectors.
    fs::write(&path, &sound).unwrap();
    let file = fs::File::options().write(true).open(&path).unwrap();
    file.write_all_at(&[0xff], second.offset + 2).unwrap();
    let bank = open(&model, &path, Access::Write);
    let error = bank.adapter("second").unwrap_err();
    let wanted = format!("the vectors of adapter 'second', which lie at {}, are damaged", second.offset);
    assert_eq!((error.code(), error.message().contains(&wanted)), (Code::Format, true), "{error}");
    assert_eq!(bank.verify().unwrap(), 1);
    assert!(ear.heard()[0].contains(&wanted));
    let error = bank.compact().unwrap_err();
    assert!(error.code() == Code::Format && error.message().contains("with the option repair"), "{error}");
    assert_eq!((bank.len(), ear.heard().len()), (3, 0), "nothing is dropped unless asked for");
    drop(bank);
    let options = Options { access: Access::Write, repair: true, ..Options::default() };
    let bank = Bank::open(&model, &path, &options).unwrap();
    bank.compact().unwrap();
    assert!(ear.heard()[0].contains(&wanted));
    assert_eq!((bank.len(), bank.verify().unwrap()), (2, 0));
    // One byte of its name.
    fs::write(&path, &sound).unwrap();
    let names = segment.offset as usize + 3 * ITEM;
    let file = fs::File::options().write(true).open(&path).unwrap();
    file.write_all_at(b"S", (names + "first".len()) as u64).unwrap();
    drop(bank);
    let bank = open(&model, &path, Access::Read);
    assert_eq!((bank.len(), bank.usage().damaged), (2, 1));
    assert!(ear.heard()[0].contains("the entry of adapter 'Second' is damaged and left out"));
    drop(bank);
    let bank = open(&model, &path, Access::Write);
    assert!(bank.compact().unwrap_err().message().contains("has 1 damaged entries"));
    drop(bank);
    let bank = Bank::open(&model, &path, &options).unwrap();
    bank.compact().unwrap();
    assert_eq!((bank.len(), bank.usage().damaged), (2, 0));
}

/// Whatever is written after, a damaged entry stays to be told, and comes back when its byte does.
#[test]
fn a_damaged_entry_outlives_what_is_written_after_it() {
    let folder = Folder::new("damaged-entry");
    let (path, ear) = (folder.path("bank"), Ear::default());
    let model = model_of(&[0, 1, 2], Box::new(ear.clone()));
    let own = [adapter(&model, 2, 1), adapter(&model, 2, 2), adapter(&model, 2, 3)];
    let bank = open(&model, &path, Access::Create);
    for (name, own) in ["first", "second", "third"].iter().zip(&own) {
        bank.append(&[(name, own)], Dtype::F32).unwrap();
    }
    let segment = bank.state().commit.segments[0];
    assert_eq!(segment.items, 3, "one segment, which the next append would take up");
    drop(bank);
    // The identity of the second one's item.
    let place = segment.offset + ITEM as u64 + 8;
    let file = fs::File::options().read(true).write(true).open(&path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, place).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], place).unwrap();
    let check = |bank: &Bank, names: &[&str]| {
        assert_eq!((bank.usage().damaged, bank.verify().unwrap(), bank.contains("second")), (1, 1, false));
        let listed: Vec<String> = (0..bank.len()).map(|place| bank.name(place).unwrap()).collect();
        assert_eq!(listed, names);
        let heard = ear.heard();
        assert!(heard.len() == 1 && heard[0].contains("the entry of adapter 'second' is damaged"), "{heard:?}");
    };
    for round in 0..6 {
        let bank = open(&model, &path, Access::Write);
        bank.append(&[("other", &own[round % 3]), ("fourth", &own[0])], Dtype::F32).unwrap();
        check(&bank, &["first", "third", "other", "fourth"]);
        bank.remove(&["fourth"]).unwrap();
        drop(bank);
        let bank = open(&model, &path, Access::Read);
        check(&bank, &["first", "third", "other"]);
        assert_eq!(vectors(&bank.adapter("first").unwrap()), vectors(&own[0]));
        assert!(bank.state().commit.segments.len() <= 3);
    }
    file.write_all_at(&byte, place).unwrap();
    let bank = open(&model, &path, Access::Write);
    assert_eq!((bank.len(), bank.verify().unwrap()), (4, 0));
    assert_eq!(vectors(&bank.adapter("second").unwrap()), vectors(&own[1]));
}

/// A record has room for so many segments; a bank that would need more says so, and loses nothing.
#[test]
fn a_bank_of_damaged_segments_refuses_at_last() {
    let folder = Folder::new("damaged-segments");
    let (path, model) = (folder.path("bank"), model_of(&[0, 1, 2], Box::new(Ear::default())));
    let own = adapter(&model, 2, 1);
    drop(open(&model, &path, Access::Create));
    let file = fs::File::options().read(true).write(true).open(&path).unwrap();
    for round in 0.. {
        let bank = open(&model, &path, Access::Write);
        assert_eq!((bank.len(), bank.usage().damaged), (0, round));
        if let Err(error) = bank.append(&[("a", &own)], Dtype::F32) {
            let says = error.message().contains("compact it with the option repair");
            assert!(error.code() == Code::Format && says && round == 48, "{round}: {error}");
            break;
        }
        let segment = *bank.state().commit.segments.last().unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, segment.offset + 36).unwrap();
        file.write_all_at(&[byte[0] ^ 1], segment.offset + 36).unwrap();
    }
    let options = Options { access: Access::Write, repair: true, ..Options::default() };
    let bank = Bank::open(&model, &path, &options).unwrap();
    bank.compact().unwrap();
    bank.append(&[("a", &own)], Dtype::F32).unwrap();
    assert_eq!((bank.len(), bank.verify().unwrap()), (1, 0));
}

/// Two stores that no key draws, of which the first one's projections are damaged.
#[test]
fn damaged_projections_hinder_only_adapters_that_have_them() {
    let folder = Folder::new("damaged-store");
    let (path, ear) = (folder.path("bank"), Ear::default());
    let model = model_of(&[0, 1, 2], Box::new(ear.clone()));
    let own = [held(&model, 0.5), held(&model, 1.5), held(&model, 2.5)];
    let bank = open(&model, &path, Access::Create);
    bank.append(&[("a", &own[0]), ("b", &own[1])], Dtype::F32).unwrap();
    drop(bank);
    let mut bytes = fs::read(&path).unwrap();
    bytes[4096] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let bank = open(&model, &path, Access::Write);
    assert_eq!(bank.adapter("a").unwrap_err().code(), Code::Format);
    bank.append(&[("c", &own[2])], Dtype::F32).unwrap();
    let error = bank.compact().unwrap_err();
    assert!(error.message().contains("A, which lies at 4096, is damaged; a compaction would drop"), "{error}");
    drop(bank);
    let copy = folder.path("copy");
    fs::copy(&path, &copy).unwrap();
    let options = Options { access: Access::Write, repair: true, ..Options::default() };
    let bank = Bank::open(&model, &copy, &options).unwrap();
    ear.heard();
    bank.compact().unwrap();
    let heard = ear.heard();
    assert!(heard.len() == 2 && heard[1].contains("the projections of adapter 'a' are damaged"), "{heard:?}");
    assert_eq!((bank.len(), bank.verify().unwrap()), (2, 0));
    // Nobody has them any more: nobody misses them.
    let bank = open(&model, &path, Access::Write);
    bank.remove(&["a"]).unwrap();
    assert!(bank.usage().unused_bytes > 4 * (28 + 18));
    bank.compact().unwrap();
    assert_eq!((bank.len(), bank.verify().unwrap(), bank.usage().unused_bytes), (2, 0, 0));
    for (name, own) in [("b", &own[1]), ("c", &own[2])] {
        let found = bank.adapter(name).unwrap();
        assert!(found.store().same_values(own.store()) && vectors(&found) == vectors(own), "{name}");
    }
    assert!(ear.heard().is_empty());
}

/// Each damaged store is told and counted, in memory or not, and what comes after it is looked at all the same.
#[test]
fn a_check_goes_on_after_a_damaged_store() {
    let folder = Folder::new("damaged-stores");
    let (path, ear) = (folder.path("bank"), Ear::default());
    let model = model_of(&[0, 1, 2], Box::new(ear.clone()));
    let own = [held(&model, 0.5), held(&model, 1.5), held(&model, 2.5)];
    let bank = open(&model, &path, Access::Create);
    bank.append(&[("a", &own[0]), ("b", &own[1]), ("c", &own[2])], Dtype::F32).unwrap();
    drop(bank);
    let reader = open(&model, &path, Access::Read);
    assert_eq!(reader.verify().unwrap(), 0);
    let vectors = reader.state().index.find("b").unwrap().1.offset;
    let file = fs::File::options().write(true).open(&path).unwrap();
    // Each store lies before the first adapter that has it: 28 numbers of A, 18 of B, then 5 and 4 of the vectors.
    let store = |number: u64| 4096 + 4 * (28 + 18 + 5 + 4) * number;
    for (count, place) in [store(0), store(2) + 4 * 30, vectors].into_iter().enumerate() {
        file.write_all_at(&[0x55], place + 1).unwrap();
        for bank in [&reader, &open(&model, &path, Access::Read)] {
            assert_eq!(bank.verify().unwrap(), count + 1);
            let heard = ear.heard();
            let says = |words: &str| heard.iter().filter(|warning| warning.contains(words)).count();
            let told = [says("store 0: "), says("store 1: "), says("store 2: "), says("vectors of adapter 'b'")];
            assert_eq!(told, [1, 0, usize::from(count > 0), usize::from(count > 1)], "{heard:?}");
        }
    }
}

/// An adapter on projections that no key draws.
fn held(model: &Model, offset: f32) -> Adapter {
    let given = |rows: usize, cols: usize| {
        let values: Vec<f32> = (0..rows * cols).map(|place| place as f32 / 3.0 + offset).collect();
        Frozen::from_f32(&Allocator::default(), &values, rows, cols).unwrap()
    };
    let store = Arc::new(Store::new(given(4, 7), given(9, 2), Dtype::F32).unwrap());
    let mut config = Config { rank: 2, ..Config::default() };
    config.set_json("target_modules", r#"["q"]"#).unwrap();
    Adapter::create(model, &config, Some(store), &LoadOptions::default()).unwrap()
}

#[test]
fn a_bank_of_a_larger_model_may_not_ask_for_any_amount_of_memory() {
    let folder = Folder::new("greedy");
    let (path, model) = (folder.path("bank"), model());
    let mut config = Config { rank: 2, ..Config::default() };
    config.set_json("target_modules", r#"["q"]"#).unwrap();
    let options = LoadOptions { in_max: Some(1000), ..LoadOptions::default() };
    let own = Adapter::create(&model, &config, None, &options).unwrap();
    open(&model, &path, Access::Create).append(&[("a", &own)], Dtype::F32).unwrap();
    let fresh = super::model();
    let error = open(&fresh, &path, Access::Read).adapter("a").unwrap_err();
    assert!(error.message().contains("drawn for in_max 1000"), "{error}");
    let allowed = Options { in_max: Some(1000), ..Options::default() };
    let bank = Bank::open(&fresh, &path, &allowed).unwrap();
    assert!(bank.adapter("a").unwrap().store().same_values(own.store()));
}

/// Items that share one stretch of names, or have none that writing would allow.
#[test]
fn names_take_no_more_memory_than_their_segment() {
    use crate::bank::file::SegmentPlace;
    use crate::bank::index::{Index, item_of};
    let read = |lengths: &[usize], name_bytes: usize| {
        let names = vec![b'a'; name_bytes];
        let mut bytes: Vec<u8> = lengths.iter().flat_map(|count| item_of(&names[..*count])).collect();
        bytes.extend_from_slice(&names);
        let place = SegmentPlace { offset: 4096, items: lengths.len() as u32, name_bytes: name_bytes as u32 };
        let mut index = Index::default();
        index.read(place, &bytes).map(|damaged| (index.len(), damaged.len()))
    };
    assert_eq!(read(&[1, 2, 3], 6).unwrap(), (3, 0));
    let error = read(&[1, 2, 3], 5).unwrap_err();
    assert!(error.code() == Code::Format && error.message().contains("longer than 5 bytes"), "{error}");
    assert_eq!(read(&[0, 4096, 4097], 9000).unwrap(), (1, 2));
}
