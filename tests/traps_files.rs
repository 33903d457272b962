//! Where PEFT goes wrong with files, and this library does not. Numbers are those of the list in docs.

mod support;

use std::fs;
use std::sync::Arc;

use pvera::adapter::{Adapter, LoadOptions};
use pvera::config::{Config, Method};
use pvera::error::Code;
use pvera::memory::Allocator;
use pvera::projection::{Size, Store};
use pvera::tensor::Dtype;
use support::*;

/// PEFT keeps one pair of projections per model: the second checkpoint's silently replaces the first one's.
#[test]
fn trap_2_a_second_checkpoint_never_overwrites_projections() {
    let folder = golden("two_adapters").join("first");
    let (model, _) = model(layers_of(&folder));
    let first = Arc::new(Adapter::load(&model, &folder, &LoadOptions::default()).unwrap());
    model.publish("first", first.clone()).unwrap();
    let before = first.store().digest();
    let config = Config { projection_prng_key: first.config().projection_prng_key + 1, ..first.config().clone() };
    let other = Adapter::create(&model, &config, None, &LoadOptions::default()).unwrap().checkpoint().unwrap();
    let second = Adapter::from_memory(&model, &other.config, &other.tensors, &LoadOptions::default()).unwrap();
    model.publish("second", Arc::new(second)).unwrap();
    let snapshot = model.snapshot().unwrap();
    let store = |slot| snapshot.slots().get(slot).unwrap().adapter.store().clone();
    assert!(Arc::ptr_eq(&store(0), first.store()) && store(0).digest() == before);
    assert!(!store(0).same_values(&store(1)));
    assert_holds(&snapshot.slots().get(0).unwrap().adapter, &parse(&fs::read(folder.join(TENSORS)).unwrap()));
}

/// PEFT mixes adapters whose projections are missing with others', or ignores projections that are there.
#[test]
fn trap_9_missing_projections_are_an_error_that_names_the_file() {
    let folder = golden("mixed_shapes");
    let (model, _) = model(layers_of(&folder));
    let scratch = Scratch::new("trap-9");
    let mut tensors = parse(&fs::read(folder.join(TENSORS)).unwrap());
    tensors.retain(|key, _| key.contains("lambda"));
    fs::write(scratch.join(TENSORS), file_of(&tensors)).unwrap();
    fs::copy(folder.join(CONFIG), scratch.join(CONFIG)).unwrap();
    let error = Adapter::load(&model, &scratch.0, &LoadOptions::default()).unwrap_err();
    assert_eq!(error.code(), Code::Projection);
    let wanted = format!(
        "{}: save_projection is true, but neither base_model.pvera_A nor base_model.pvera_B is in the file",
        scratch.join(TENSORS).display()
    );
    assert_eq!(error.message(), wanted);
}

#[test]
fn trap_9_unexpected_projections_are_used_and_said_and_kept() {
    let folder = golden("mixed_shapes");
    let (model, heard) = model(layers_of(&folder));
    let config = fs::read_to_string(folder.join(CONFIG)).unwrap();
    let config = config.replace("\"save_projection\": true", "\"save_projection\": false");
    // Another key: whoever draws instead of reading gets other projections.
    let config = config.replace("\"projection_prng_key\": ", "\"projection_prng_key\": 9");
    let tensors = fs::read(folder.join(TENSORS)).unwrap();
    let adapter = Adapter::from_memory(&model, config.as_bytes(), &tensors, &LoadOptions::default()).unwrap();
    assert_holds(&adapter, &parse(&tensors));
    assert_eq!(
        heard.warnings(),
        [
            "the tensors in memory: save_projection is false, but the file holds projections; they are used, not the key's"
        ]
    );
    assert_eq!(adapter.checkpoint().unwrap().tensors, tensors, "a save does not fall back to the key's");
}

/// PEFT warns that a seed may give other projections on another device or version.
#[test]
fn trap_10_a_seed_gives_the_same_projections_for_ever() {
    let text = fs::read_to_string(golden("large_projections.json")).unwrap();
    let wanted: serde_json::Value = serde_json::from_str(&text).unwrap();
    let number = |name: &str| wanted[name].as_u64().unwrap();
    let size = Size {
        method: Method::Pvera,
        rank: number("r") as usize,
        in_max: number("in_max") as usize,
        out_max: number("out_max") as usize,
    };
    let store = Store::from_key(&Allocator::default(), number("projection_prng_key"), size, Dtype::F32).unwrap();
    for (name, matrix) in [("A", store.a()), ("B", store.b())] {
        let weight = matrix.weight();
        let ends = [weight.at(0, 0), weight.at(matrix.rows() - 1, matrix.cols() - 1)];
        for (end, wanted) in ends.iter().zip(wanted[format!("{name}_first_last")].as_array().unwrap()) {
            assert_eq!(f64::from(*end), wanted.as_f64().unwrap(), "{name}");
        }
    }
    assert_eq!(store.digest(), PINNED, "bits that a release promised");

    let folder = golden("mixed_shapes");
    let (model, _) = model(layers_of(&folder));
    let mut tensors = parse(&fs::read(folder.join(TENSORS)).unwrap());
    let saved = tensors.clone();
    tensors.retain(|key, _| key.contains("lambda"));
    let config = fs::read_to_string(folder.join(CONFIG)).unwrap().replace("projection\": true", "projection\": false");
    let options = LoadOptions::default();
    let drawn = Adapter::from_memory(&model, config.as_bytes(), &file_of(&tensors), &options).unwrap();
    for (key, matrix) in [("base_model.pvera_A", drawn.store().a()), ("base_model.pvera_B", drawn.store().b())] {
        let mut row = vec![0.0; matrix.cols()];
        for (number, wanted) in saved[key].values().chunks(matrix.cols()).enumerate() {
            matrix.matrix().load(number, 0, &mut row);
            assert_eq!(row, wanted, "{key}: what PEFT saved");
        }
    }
}

/// Digest of the store above, whose SHA-256 agreed with PyTorch's when it was pinned.
const PINNED: u64 = 6_661_598_396_433_966_573;
