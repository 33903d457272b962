//! Tests of banks: what goes in comes out, whatever is damaged, killed or evicted.

mod damage;
mod files;
mod refresh;

use std::fs;
use std::sync::Mutex;

use super::*;
use crate::adapter::LoadOptions;
use crate::config::{Config, Method};
use crate::memory::Allocator;
use crate::model::{Layer, Listener, Silent};
use crate::noise::{NormalKey, adapter_identity};
use crate::projection::Frozen;
use crate::tensor::Dtype;

/// Hears every warning.
#[derive(Clone, Default)]
struct Ear(Arc<Mutex<Vec<String>>>);

impl Ear {
    fn heard(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl Listener for Ear {
    fn warning(&self, message: &str) {
        self.0.lock().unwrap().push(message.to_owned());
    }

    fn progress(&self, _: &str, _: u64, _: u64) -> bool {
        true
    }
}

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("pvera-bank-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const LAYERS: [(&str, usize, usize); 3] = [("q", 7, 5), ("k", 4, 9), ("v", 7, 3)];

fn model_of(order: &[usize], listener: Box<dyn Listener>) -> Arc<Model> {
    let model = Model::new(Allocator::default(), listener);
    for (name, inputs, outputs) in order.iter().map(|number| LAYERS[*number]) {
        let layer = Layer::whole(name, inputs, outputs);
        model.declare(layer).unwrap();
    }
    Arc::new(model)
}

fn model() -> Arc<Model> {
    model_of(&[0, 1, 2], Box::new(Silent))
}

/// A trained-looking adapter: values that every element type holds.
fn adapter(model: &Model, rank: usize, seed: u64) -> Adapter {
    let mut config = Config { rank, ..Config::default() };
    config.set_json("target_modules", r#"["q", "v"]"#).unwrap();
    let mut own = Adapter::create(model, &config, None, &LoadOptions::default()).unwrap();
    let values = own.parameters_mut().unwrap().all_mut();
    NormalKey::new(seed, 0, 0).fill(0, 0, false, values);
    values.iter_mut().for_each(|value| *value = (*value * 8.0).round() / 8.0);
    own
}

fn open(model: &Arc<Model>, path: &Path, access: Access) -> Bank {
    Bank::open(model, path, &Options { access, ..Options::default() }).unwrap()
}

/// Parameters by layer name, wherever they lie.
fn vectors(adapter: &Adapter) -> Vec<(String, Vec<f32>)> {
    let layers = adapter.adapted_layers().map(|number| {
        let vectors = adapter.vectors(number).unwrap();
        let values = [vectors.lambda_b.on_host(), vectors.lambda_d.on_host()].concat();
        (adapter.layers().get(number).unwrap().name.clone(), values)
    });
    let mut layers: Vec<_> = layers.collect();
    layers.sort_by(|first, second| first.0.cmp(&second.0));
    layers
}

#[test]
fn what_goes_in_comes_out_in_every_element_type_and_order_of_layers() {
    let folder = Folder::new("types");
    for dtype in [Dtype::F32, Dtype::F16, Dtype::Bf16] {
        let (path, model) = (folder.path(dtype.name()), model());
        let bank = open(&model, &path, Access::Create);
        let own = [adapter(&model, 2, 1), adapter(&model, 4, 2), adapter(&model, 2, 3)];
        bank.append(&[("one", &own[0]), ("two", &own[1]), ("three", &own[2])], dtype).unwrap();
        drop(bank);
        let other = model_of(&[2, 1, 0], Box::new(Silent));
        for model in [model.clone(), other] {
            let bank = open(&model, &path, Access::Read);
            assert_eq!((bank.len(), bank.name(1).unwrap()), (3, "two".to_owned()));
            for (name, own) in ["one", "two", "three"].iter().zip(&own) {
                let read = bank.adapter(name).unwrap();
                assert_eq!(vectors(&read), vectors(own), "{name} {dtype:?}");
                assert_eq!(read.config().rank, own.config().rank);
                assert_eq!(read.identity(), Some(adapter_identity(name)));
                assert!(read.store().same_values(own.store()) && !read.is_trainable());
            }
            let [one, three] = ["one", "three"].map(|name| bank.adapter(name).unwrap());
            assert!(Arc::ptr_eq(one.store(), three.store()), "one store for all");
        }
    }
}

#[test]
fn a_bank_grows_in_commits_and_has_few_segments() {
    let folder = Folder::new("grows");
    let (path, model) = (folder.path("bank"), model());
    let bank = open(&model, &path, Access::Create);
    let own: Vec<Adapter> = (0..200).map(|seed| adapter(&model, 2, seed)).collect();
    let name = |number: usize| format!("adapter {number}");
    for (number, adapter) in own.iter().enumerate() {
        bank.append(&[(&name(number), adapter)], Dtype::F32).unwrap();
    }
    for number in (0..200).step_by(3) {
        bank.remove(&[&name(number)]).unwrap();
    }
    for number in (0..200).step_by(6) {
        bank.append(&[(&name(number), &own[(number + 1) % 200])], Dtype::F32).unwrap();
    }
    let check = |bank: &Bank| {
        for number in 0..200 {
            let wanted = match (number % 3, number % 6) {
                (_, 0) => Some((number + 1) % 200),
                (0, _) => None,
                _ => Some(number),
            };
            let found = bank.adapter(&name(number)).ok();
            assert_eq!(found.map(|found| vectors(&found)), wanted.map(|wanted| vectors(&own[wanted])), "{number}");
        }
        assert_eq!(bank.len(), 200 - 67 + 34);
    };
    check(&bank);
    assert!(bank.state().commit.segments.len() <= 8, "{:?}", bank.state().commit.segments);
    drop(bank);
    let bank = open(&model, &path, Access::Write);
    check(&bank);
    let before = bank.usage();
    bank.compact().unwrap();
    check(&bank);
    let after = bank.usage();
    assert!(before.unused_bytes > 0 && after.unused_bytes == 0, "{before:?} {after:?}");
    assert!(after.file_bytes <= before.file_bytes - before.unused_bytes);
    drop(bank);
    check(&open(&model, &path, Access::Read));
    assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 1, "nothing is left beside it");
}

#[test]
fn adapters_that_come_one_by_one_count_all_at_once() {
    let folder = Folder::new("one-by-one");
    let (path, model) = (folder.path("bank"), model());
    let own = [adapter(&model, 2, 1), adapter(&model, 4, 2)];
    let bank = open(&model, &path, Access::Create);
    let begin = || {
        let mut appending = bank.appending(Dtype::F32).unwrap();
        appending.push("a", &own[0]).unwrap();
        appending.push_new("b", &own[1]).unwrap();
        assert_eq!(appending.push("a", &own[1]).unwrap_err().code(), Code::Argument);
        assert_eq!(appending.push("", &own[1]).unwrap_err().code(), Code::Argument);
        assert!(bank.is_empty() && open(&model, &path, Access::Read).is_empty());
        appending
    };
    drop(begin());
    assert!(bank.is_empty());
    begin().finish().unwrap();
    for bank in [&bank, &open(&model, &path, Access::Read)] {
        assert_eq!(bank.len(), 2);
        for (name, own) in ["a", "b"].iter().zip(&own) {
            assert_eq!(vectors(&bank.adapter(name).unwrap()), vectors(own));
        }
    }
    let mut again = bank.appending(Dtype::F32).unwrap();
    assert_eq!(again.push_new("b", &own[0]).unwrap_err().code(), Code::Exists);
    again.push("b", &own[0]).unwrap();
    again.finish().unwrap();
    assert_eq!((bank.len(), vectors(&bank.adapter("b").unwrap())), (2, vectors(&own[0])));
}

#[test]
fn a_row_with_a_bank_adapter_has_the_bits_of_the_published_one() {
    let folder = Folder::new("rows");
    let model = model();
    let bank = open(&model, &folder.path("bank"), Access::Create);
    let own = [adapter(&model, 2, 1), adapter(&model, 4, 2)];
    bank.append(&[("one", &own[0]), ("two", &own[1])], Dtype::F32).unwrap();
    let (snapshot, slots) = bank.snapshot(&[Some("two"), None, Some("one"), Some("two")]).unwrap();
    assert_eq!(slots, [0, -1, 1, 0]);
    for (name, own) in ["one", "two"].iter().zip(&own) {
        let slot = snapshot.slots().get(snapshot.slots().find(name).unwrap()).unwrap();
        assert_eq!(vectors(&slot.adapter), vectors(own));
        assert_eq!(slot.identity, adapter_identity(name), "the noise of the name it would be published under");
    }
    assert_eq!(bank.snapshot(&[Some("three")]).err().unwrap().code(), Code::NotFound);
}

#[test]
fn projections_that_no_key_draws_are_in_the_file() {
    let folder = Folder::new("held");
    let (path, model) = (folder.path("bank"), model());
    let given = |offset: f32, rows: usize, cols: usize| {
        let values: Vec<f32> = (0..rows * cols).map(|place| place as f32 / 3.0 + offset).collect();
        Frozen::from_f32(&Allocator::default(), &values, rows, cols).unwrap()
    };
    let store = |offset: f32| Arc::new(Store::new(given(offset, 4, 7), given(offset, 9, 2), Dtype::F32).unwrap());
    let mut config = Config { rank: 2, ..Config::default() };
    config.set_json("target_modules", r#"["q"]"#).unwrap();
    let make = |offset| Adapter::create(&model, &config, Some(store(offset)), &LoadOptions::default()).unwrap();
    let own = [make(0.5), make(1.5), make(0.5)];
    let bank = open(&model, &path, Access::Create);
    bank.append(&[("one", &own[0]), ("two", &own[1])], Dtype::F32).unwrap();
    let small = bank.usage().file_bytes;
    bank.append(&[("three", &own[2])], Dtype::F32).unwrap();
    assert!(bank.usage().file_bytes - small < 4 * (28 + 18), "a store is written once");
    for compacted in [false, true] {
        if compacted {
            bank.compact().unwrap();
        }
        let bank = open(&model_of(&[0], Box::new(Silent)), &path, Access::Read);
        for (name, own) in ["one", "two", "three"].iter().zip(&own) {
            assert!(bank.adapter(name).unwrap().store().same_values(own.store()), "{name}");
        }
        assert_eq!(bank.verify().unwrap(), 0);
    }
}

#[test]
fn adapters_of_vera_lie_beside_others() {
    let folder = Folder::new("vera");
    let (path, model) = (folder.path("bank"), model());
    let make = |method, r, store| {
        let mut config = Config { method, rank: r, ..Config::default() };
        config.set_json("target_modules", r#"["q", "v"]"#).unwrap();
        Adapter::create(&model, &config, store, &LoadOptions::default()).unwrap()
    };
    let values: Vec<f32> = (0..2 * (7 + 5)).map(|place| place as f32 / 3.0).collect();
    let given = |values: &[f32], rows, cols| Frozen::from_f32(&Allocator::default(), values, rows, cols).unwrap();
    let held = Store::new(given(&values[..14], 2, 7), given(&values[14..], 5, 2), Dtype::F32).unwrap();
    let own = [make(Method::Vera, 3, None), make(Method::Pvera, 3, None), make(Method::Vera, 2, Some(Arc::new(held)))];
    let names = ["drawn", "pvera", "held"];
    let bank = open(&model, &path, Access::Create);
    bank.append(&names.into_iter().zip(&own).collect::<Vec<_>>(), Dtype::F32).unwrap();
    for compacted in [false, true] {
        if compacted {
            bank.compact().unwrap();
        }
        let bank = open(&model_of(&[2, 0], Box::new(Silent)), &path, Access::Read);
        for (name, own) in names.iter().zip(&own) {
            let adapter = bank.adapter(name).unwrap();
            assert!(adapter.store().same_values(own.store()), "{name}");
            assert_eq!(adapter.config().method, own.config().method, "{name}");
            let of = |adapter: &Adapter, layer: &str| {
                let number = adapter.layers().find(layer).unwrap();
                adapter.vectors(number).unwrap().lambda_d.to_vec()
            };
            assert_eq!(of(&adapter, "v"), of(own, "v"), "{name}");
            assert_eq!(of(own, "v").len(), own.config().a_rows());
        }
        assert_eq!(bank.verify().unwrap(), 0);
    }
}

#[test]
fn the_cache_keeps_within_its_budget_what_was_used_last() {
    let folder = Folder::new("cache");
    let (path, model) = (folder.path("bank"), model());
    let own: Vec<Adapter> = (0..10).map(|seed| adapter(&model, 2, seed)).collect();
    let names: Vec<String> = (0..10).map(|number| number.to_string()).collect();
    let all: Vec<(&str, &Adapter)> = names.iter().map(String::as_str).zip(&own).collect();
    open(&model, &path, Access::Create).append(&all, Dtype::F32).unwrap();
    let first = open(&model, &path, Access::Read);
    first.adapter("0").unwrap();
    let one = first.usage().cached_bytes;
    let options = Options { cache_bytes: Some(3 * one), ..Options::default() };
    let bank = Bank::open(&model, &path, &options).unwrap();
    for name in ["0", "1", "2", "0", "3", "0", "1"] {
        bank.adapter(name).unwrap();
    }
    let usage = bank.usage();
    assert_eq!((usage.cached, usage.cached_bytes, usage.hits, usage.misses), (3, 3 * one, 2, 5));
    let held = bank.adapter("0").unwrap();
    assert_eq!(bank.usage().hits, 3, "it was used often enough to stay");
    for name in &names[4..] {
        bank.adapter(name).unwrap();
    }
    assert_eq!(vectors(&held), vectors(&own[0]), "whoever holds an adapter keeps it");
    let options = Options { cache_bytes: Some(one - 1), ..Options::default() };
    let none = Bank::open(&model, &path, &options).unwrap();
    none.adapter("5").unwrap();
    assert_eq!((none.usage().cached, none.usage().cached_bytes), (0, 0), "larger than the whole budget");
}

#[test]
fn a_replaced_adapter_is_never_served_from_the_cache() {
    let folder = Folder::new("replaced");
    let (path, model) = (folder.path("bank"), model());
    let bank = open(&model, &path, Access::Create);
    let own = [adapter(&model, 2, 1), adapter(&model, 2, 2), adapter(&model, 2, 3)];
    bank.append(&[("a", &own[0]), ("b", &own[2])], Dtype::F32).unwrap();
    let (before, _) = bank.snapshot(&[Some("a")]).unwrap();
    bank.append(&[("a", &own[1])], Dtype::F32).unwrap();
    assert_eq!(vectors(&bank.adapter("a").unwrap()), vectors(&own[1]));
    assert_eq!(vectors(&before.slots().get(0).unwrap().adapter), vectors(&own[0]), "a pass keeps what it began with");
    bank.remove(&["b"]).unwrap();
    bank.compact().unwrap();
    assert_eq!(vectors(&bank.adapter("a").unwrap()), vectors(&own[1]));
    assert_eq!(bank.adapter("b").unwrap_err().code(), Code::NotFound);
}

/// Segments take up others, and names are replaced meanwhile: the order is that of the first time all the same.
#[test]
fn names_keep_their_order_when_a_bank_is_opened_again() {
    let folder = Folder::new("order");
    let path = folder.path("bank");
    let model = model_of(&[0, 1, 2], Box::new(Ear::default()));
    let own = adapter(&model, 2, 1);
    let bank = open(&model, &path, Access::Create);
    let names: Vec<String> = (0..40).map(|number| format!("{}", number * 7 % 40)).collect();
    for (place, name) in names.iter().enumerate() {
        bank.append(
            &[(name.as_str(), &own), (names[place / 2].as_str(), &own)][..1 + usize::from(place > 0)],
            Dtype::F32,
        )
        .unwrap();
    }
    let listed = |bank: &Bank| (0..bank.len()).map(|place| bank.name(place).unwrap()).collect::<Vec<_>>();
    assert_eq!(listed(&bank), names);
    drop(bank);
    assert_eq!(listed(&open(&model, &path, Access::Read)), names);
}

/// A program that knows no layer sees what there is.
#[test]
fn families_are_told_without_the_network() {
    let folder = Folder::new("families");
    let path = folder.path("bank");
    let model = model_of(&[0, 1, 2], Box::new(Ear::default()));
    let own = [adapter(&model, 2, 1), adapter(&model, 2, 2), adapter(&model, 3, 1)];
    let bank = open(&model, &path, Access::Create);
    bank.append(&[("a", &own[0]), ("b", &own[1]), ("c", &own[2])], Dtype::F32).unwrap();
    bank.remove(&["a"]).unwrap();
    let stranger = open(&model_of(&[], Box::new(Ear::default())), &path, Access::Read);
    let families = stranger.families().unwrap();
    assert_eq!(families.iter().map(|family| family.adapters).collect::<Vec<_>>(), [1, 1]);
    for (family, adapter) in families.iter().zip(&own[1..]) {
        assert_eq!(family.config.rank, adapter.config().rank);
        assert_eq!((family.in_max, family.out_max), (adapter.store().in_max(), adapter.store().out_max()));
        let layers: Vec<(&str, usize)> =
            family.layers.iter().map(|layer| (layer.name.as_str(), layer.outputs)).collect();
        let wanted: Vec<(&str, usize)> = model_layers(adapter);
        assert_eq!(layers, wanted);
    }
}

fn model_layers(adapter: &Adapter) -> Vec<(&str, usize)> {
    let layer = |number: usize| adapter.layers().get(number).map(|layer| (layer.name.as_str(), layer.out_total));
    adapter.adapted_layers().map(|number| layer(number).unwrap()).collect()
}

#[test]
fn what_a_bank_cannot_do_is_said() {
    let folder = Folder::new("refused");
    let (path, model) = (folder.path("bank"), model());
    let bank = open(&model, &path, Access::Create);
    let own = adapter(&model, 2, 1);
    let told = |outcome: Result<()>| {
        let error = outcome.unwrap_err();
        (error.code(), error.message().to_owned())
    };
    let says = |outcome: Result<()>, code: Code, words: &str| {
        let (found, message) = told(outcome);
        assert!(found == code && message.contains(words), "{found:?}: {message}; wanted {code:?}: {words}");
    };
    says(bank.append(&[("", &own)], Dtype::F32), Code::Argument, "names[0] has 0 bytes");
    says(bank.append(&[("a", &own), ("a", &own)], Dtype::F32), Code::Argument, "names[1] is 'a', as an earlier one");
    says(bank.remove(&["a"]), Code::NotFound, "holds no adapter of the name 'a'");
    let other = super::tests::model();
    let foreign = adapter(&other, 2, 1);
    says(bank.append(&[("a", &foreign)], Dtype::F32), Code::State, "adapter 'a': it was made for another model");
    let mut large = adapter(&model, 2, 1);
    large.parameters_mut().unwrap().all_mut()[3] = 1e6;
    says(
        bank.append(&[("ok", &own), ("a", &large)], Dtype::F16),
        Code::Overflow,
        "adapter 'a': parameter 3 is 1000000",
    );
    assert_eq!(bank.len(), 0, "all or none");
    let second = Bank::open(&model, &path, &Options { access: Access::Write, ..Options::default() });
    says(second.map(|_| ()), Code::State, "is being written by another handle or program");
    let second = Bank::open(&model, &path, &Options { access: Access::Create, ..Options::default() });
    says(second.map(|_| ()), Code::Exists, "exists already");
    let reader = open(&model, &path, Access::Read);
    says(reader.append(&[("a", &own)], Dtype::F32), Code::State, "open for reading");
    says(Bank::open(&model, &folder.0, &Options::default()).map(|_| ()), Code::Io, "is not a file");
    fs::write(folder.path("text"), "pverabnk and nothing more").unwrap();
    says(Bank::open(&model, &folder.path("text"), &Options::default()).map(|_| ()), Code::Format, "has 25 bytes");
    let mut first = bank.appending(Dtype::F32).unwrap();
    first.push_new("a", &own).unwrap();
    first.finish().unwrap();
    let mut again = bank.appending(Dtype::F32).unwrap();
    again.push_new("b", &own).unwrap();
    says(again.push_new("a", &own), Code::Exists, "holds an adapter of the name 'a' already");
    drop(again);
    assert!(!bank.contains("b"), "all or none");
    drop((bank, reader));
    let fewer = model_of(&[0], Box::new(Silent));
    let bank = open(&fewer, &path, Access::Read);
    says(bank.adapter("a").map(|_| ()), Code::NotFound, "adapt layer 'v', which is not declared");
    let options = Options { ignore_undeclared: true, ..Options::default() };
    let bank = Bank::open(&fewer, &path, &options).unwrap();
    assert_eq!(vectors(&bank.adapter("a").unwrap()), vectors(&own)[..1]);
}

#[test]
fn readers_and_a_writer_run_side_by_side() {
    let folder = Folder::new("side");
    let (path, model) = (folder.path("bank"), model());
    let bank = open(&model, &path, Access::Create);
    let own = [adapter(&model, 2, 1), adapter(&model, 2, 2)];
    let wanted = own.each_ref().map(vectors);
    let both: Vec<(String, &Adapter)> = (0..20).map(|number| (number.to_string(), &own[0])).collect();
    let both: Vec<(&str, &Adapter)> = both.iter().map(|(name, adapter)| (name.as_str(), *adapter)).collect();
    bank.append(&both, Dtype::F32).unwrap();
    std::thread::scope(|scope| {
        for reader in 0..3 {
            let (bank, wanted) = (&bank, &wanted);
            scope.spawn(move || {
                for round in 0..300usize {
                    let name = ((round + reader) % 20).to_string();
                    let found = vectors(&bank.adapter(&name).unwrap());
                    assert!(wanted.contains(&found), "half a swap");
                }
            });
        }
        for round in 0..30usize {
            bank.append(&[(&(round % 20).to_string(), &own[(round + 1) % 2])], Dtype::F32).unwrap();
            if round % 10 == 9 {
                bank.compact().unwrap();
            }
        }
    });
    assert_eq!(bank.verify().unwrap(), 0);
}
