//! A save is all or nothing: under kills at any moment, beside readers, and beside other saves.

mod support;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use pvera::adapter::{Adapter, Checkpoint, LoadOptions};
use pvera::config::Config;
use pvera::model::Model;
use support::*;

/// Tells the test binary, started as a child, where to save.
const SAVE_TO: &str = "PVERA_TEST_SAVE_TO";
const SAVE_ONCE: &str = "PVERA_TEST_SAVE_ONCE";

fn a_model() -> Model {
    model(vec![layer("q", 40, 30)]).0
}

/// Two checkpoints that fit the same layer and mix badly: their ranks and their fields differ.
fn two(model: &Model) -> [Adapter; 2] {
    [2, 16].map(|rank| {
        let mut config = Config { rank, revision: Some(format!("rank {rank}")), ..Config::default() };
        config.set_json("target_modules", r#"["q"]"#).unwrap();
        Adapter::create(model, &config, None, &LoadOptions::default()).unwrap()
    })
}

fn assert_one_of(adapter: &Adapter, known: &[Checkpoint; 2]) {
    let found = adapter.checkpoint().unwrap();
    assert!(known.contains(&found), "rank {}, revision {:?}", adapter.config().rank, adapter.config().revision);
}

fn child(test: &str, folder: &str, variable: &str, current: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test]).env(variable, folder).current_dir(current).stdout(Stdio::null());
    command
}

/// Not a test of its own: what the child does until it is killed.
#[test]
fn child_that_saves_for_ever() {
    let Some(folder) = std::env::var_os(SAVE_TO) else { return };
    let model = a_model();
    let adapters = two(&model);
    for round in 0.. {
        adapters[round % 2].save(Path::new(&folder)).unwrap();
    }
}

/// Not a test of its own: a child that saves to a relative path and still stands where it stood.
#[test]
fn child_that_saves_once() {
    let Some(folder) = std::env::var_os(SAVE_ONCE) else { return };
    let before = std::env::current_dir().unwrap();
    two(&a_model())[0].save(Path::new(&folder)).unwrap();
    assert_eq!(std::env::current_dir().unwrap(), before);
    assert!(Path::new(&folder).join(CONFIG).is_file());
}

#[test]
fn a_kill_at_any_moment_leaves_one_whole_checkpoint() {
    let scratch = Scratch::new("kill");
    let (folder, model) = (scratch.join("adapter"), a_model());
    let adapters = two(&model);
    let known = [adapters[0].checkpoint().unwrap(), adapters[1].checkpoint().unwrap()];
    adapters[0].save(&folder).unwrap();
    fs::create_dir_all(folder.join("run/1")).unwrap();
    fs::write(folder.join("run/1/state"), "mine").unwrap();
    fs::write(folder.join("README.md"), "mine").unwrap();
    let (mut random, mut interrupted) = (Random(5), 0);
    for _ in 0..60 {
        let mut child =
            child("child_that_saves_for_ever", folder.to_str().unwrap(), SAVE_TO, &scratch.0).spawn().unwrap();
        std::thread::sleep(Duration::from_micros(8_000 + random.next() % 30_000));
        child.kill().unwrap();
        assert!(!child.wait().unwrap().success(), "it saves until it is killed");
        let adapter = Adapter::load(&model, &folder, &LoadOptions::default()).unwrap();
        assert_one_of(&adapter, &known);
        assert_eq!(fs::read_to_string(folder.join("README.md")).unwrap(), "mine");
        let beside: Vec<_> = fs::read_dir(&scratch.0).unwrap().map(|entry| entry.unwrap().path()).collect();
        let states = beside.iter().filter(|path| path.join("run/1/state").is_file()).count();
        assert_eq!(states, 1, "the folder of somebody else is in the checkpoint, or beside it: {beside:?}");
        interrupted += usize::from(beside.len() > 1);
        if random.below(2) == 0 {
            adapters[1].save(&folder).unwrap();
            assert!(folder.join("run/1/state").is_file(), "the next save brings it home");
            assert_eq!(fs::read_dir(&scratch.0).unwrap().count(), 1, "and leaves nothing beside");
        }
    }
    assert!(interrupted > 10, "only {interrupted} kills met a save");
}

#[test]
fn a_reader_never_sees_two_halves() {
    let scratch = Scratch::new("reader");
    let (folder, model) = (scratch.join("adapter"), a_model());
    let adapters = two(&model);
    let known = [adapters[0].checkpoint().unwrap(), adapters[1].checkpoint().unwrap()];
    adapters[0].save(&folder).unwrap();
    let (done, folder) = (std::sync::atomic::AtomicBool::new(false), &folder);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..150 {
                adapters[round % 2].save(folder).unwrap();
            }
            done.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        let mut loads = 0;
        while loads < 50 || !done.load(std::sync::atomic::Ordering::Relaxed) {
            let options = LoadOptions { map: loads % 2 == 0, ..LoadOptions::default() };
            match Adapter::load(&model, folder, &options) {
                Ok(adapter) => assert_one_of(&adapter, &known),
                Err(error) => assert!(error.message().contains("is it saved in a loop?"), "{error}"),
            }
            loads += 1;
        }
    });
}

#[test]
fn saves_side_by_side_lose_nothing() {
    let scratch = Scratch::new("savers");
    let (folder, model) = (scratch.join("adapter"), a_model());
    let adapters = two(&model);
    adapters[0].save(&folder).unwrap();
    fs::create_dir_all(folder.join("run")).unwrap();
    fs::write(folder.join("run/state"), "mine").unwrap();
    fs::write(folder.join("notes"), "mine").unwrap();
    std::thread::scope(|scope| {
        for adapter in &adapters {
            let folder = &folder;
            scope.spawn(move || (0..40).for_each(|_| adapter.save(folder).unwrap()));
        }
    });
    adapters[0].save(&folder).unwrap();
    assert_eq!(fs::read_to_string(folder.join("run/state")).unwrap(), "mine");
    assert_eq!(fs::read_to_string(folder.join("notes")).unwrap(), "mine");
    assert_eq!(fs::read_dir(&scratch.0).unwrap().count(), 1);
}

#[test]
fn relative_paths_and_the_current_folder() {
    let scratch = Scratch::new("relative");
    let run = |folder: &str, current: &Path| {
        assert!(child("child_that_saves_once", folder, SAVE_ONCE, current).status().unwrap().success(), "{folder}");
    };
    run("a", &scratch.0);
    run(".", &scratch.join("a"));
    run("../a/", &scratch.join("a"));
    run("./b", &scratch.join("a"));
    assert!(scratch.join("a").join("b").join(TENSORS).is_file());
    assert_eq!(fs::read_dir(&scratch.0).unwrap().count(), 1);
}
