//! Checkpoints without projections that their key draws, and with them again.

use std::fs;
use std::path::Path;

use pvera::adapter::{Adapter, LoadOptions};
use pvera::error::Code;
use pvera::interchange::{Options, Outline, Shrunk, check_projections, grow, shrink};
use pvera::projection::{Rounding, Size, Store};
use pvera::tensor::Dtype;
use safetensors::Dtype as Stored;
use serde_json::Value;

use crate::disk::{contents, error};
use crate::lora::{Stopping, trained, two_layers};
use crate::support::*;

const A: &str = "base_model.pvera_A";
const B: &str = "base_model.pvera_B";

fn tensors_in(folder: &Path) -> std::collections::BTreeMap<String, Raw> {
    parse(&fs::read(folder.join(TENSORS)).unwrap())
}

fn config_in(folder: &Path) -> Value {
    serde_json::from_slice(&fs::read(folder.join(CONFIG)).unwrap()).unwrap()
}

/// What PEFT wrote with projections becomes what it would write without, and back.
#[test]
fn golden_checkpoints_shrink_and_grow() {
    let scratch = Scratch::new("shrink");
    let mut shrunk = 0;
    let vera = ["vera/shapes", "vera/seed_only", "vera/dropout"].map(golden);
    for (number, folder) in goldens().into_iter().chain(vera).enumerate() {
        let [a, b] = if number < goldens().len() { [A, B] } else { ["base_model.vera_A", "base_model.vera_B"] };
        let before = tensors_in(&folder);
        let (small, large) = (scratch.join(&format!("{number}-small")), scratch.join(&format!("{number}-large")));
        if !before.contains_key(a) {
            let (code, message) = error(shrink(&folder, &small, &Options::default()));
            assert!(code == Code::Projection && message.contains("nothing to leave out"), "{message}");
            continue;
        }
        let Shrunk { dtype, in_max, out_max } = shrink(&folder, &small, &Options::default()).unwrap();
        let name = folder.file_name().unwrap().to_str().unwrap();
        let wanted = if name.ends_with("bf16") {
            Dtype::Bf16
        } else if name.ends_with("f16") {
            Dtype::F16
        } else {
            Dtype::F32
        };
        assert_eq!(dtype, wanted, "{name}");
        assert_eq!((in_max, out_max), (before[a].shape[1], before[b].shape[0]));
        let mut kept = before.clone();
        kept.remove(a);
        kept.remove(b);
        assert_eq!(tensors_in(&small), kept, "{name}");
        let mut config = config_in(&folder);
        config["save_projection"] = false.into();
        let mut found = config_in(&small);
        found.as_object_mut().unwrap().retain(|key, _| config.get(key).is_some());
        assert_eq!(found, config, "{name}");

        grow(&small, &large, in_max, None, &Options { dtype: Some(dtype), ..Options::default() }).unwrap();
        let mut grown = tensors_in(&large);
        for key in [a, b] {
            let (grown, own) = (grown.remove(key).unwrap(), &before[key]);
            assert_eq!((grown.dtype, &grown.shape), (Stored::F32, &own.shape));
            assert_eq!(grown.values(), own.values(), "{name}: {key}");
        }
        assert_eq!((grown, config_in(&large)["save_projection"].clone()), (kept, true.into()));
        shrunk += 1;
    }
    assert!(shrunk >= 10, "{shrunk} shrunk, two of them VeRA's");
}

/// An adapter of this library, loaded with and without its projections.
#[test]
fn a_shrunken_checkpoint_loads_to_the_same_adapter() {
    let scratch = Scratch::new("same");
    let adapter = trained(two_layers(), |_| ());
    let folder = scratch.join("a");
    adapter.save(&folder).unwrap();
    let size = fs::metadata(folder.join(TENSORS)).unwrap().len();
    let over = Options { replace: true, ..Options::default() };
    assert_eq!(error(shrink(&folder, &folder, &Options::default())).0, Code::Exists);
    assert_eq!(fs::metadata(folder.join(TENSORS)).unwrap().len(), size);
    shrink(&folder, &folder, &over).unwrap();
    assert!(fs::metadata(folder.join(TENSORS)).unwrap().len() < size);
    let again = Adapter::load(&model(two_layers()).0, &folder, &LoadOptions::default()).unwrap();
    assert!(again.store().same_values(adapter.store()));
    assert_eq!(error(grow(&folder, &folder, 9, None, &Options::default())).0, Code::Exists);
    grow(&folder, &folder, 9, None, &over).unwrap();
    assert_eq!(fs::metadata(folder.join(TENSORS)).unwrap().len(), size);
}

#[test]
fn the_first_difference_is_told_and_nothing_written() {
    let scratch = Scratch::new("differs");
    let folder = scratch.join("a");
    trained(two_layers(), |_| ()).save(&folder).unwrap();
    let good = tensors_in(&folder);
    let refused = |key: &str, row: usize, col: usize| {
        let mut tensors = good.clone();
        let raw = tensors.get_mut(key).unwrap();
        let at = 4 * (row * raw.shape[1] + col);
        raw.bytes[at] ^= 1;
        fs::write(folder.join(TENSORS), file_of(&tensors)).unwrap();
        let before = contents(&folder);
        let (code, message) = error(shrink(&folder, &folder, &Options { replace: true, ..Options::default() }));
        assert_eq!(code, Code::Projection);
        let wanted = format!("not those of projection_prng_key 77: {key} at row {row}, column {col} is ");
        assert!(message.contains(&wanted), "{message}; wanted {wanted}");
        assert_eq!(contents(&folder), before);
    };
    refused(A, 0, 0);
    refused(A, 9, 8);
    refused(B, 10, 4);
    refused(B, 3, 2);
    // Another key.
    fs::write(folder.join(TENSORS), file_of(&good)).unwrap();
    let mut config = config_in(&folder);
    config["projection_prng_key"] = 78.into();
    fs::write(folder.join(CONFIG), config.to_string()).unwrap();
    let (_, message) = error(shrink(&folder, &scratch.join("b"), &Options::default()));
    assert!(message.contains(&format!("key 78: {A} at row 0, column 0")), "{message}");
    assert!(!scratch.join("b").exists());
}

/// A rounding that was asked for is the only one tried.
#[test]
fn the_base_type_can_be_said() {
    let scratch = Scratch::new("said");
    let folder = golden("base_bf16");
    for (dtype, works) in [(Dtype::F32, false), (Dtype::F16, false), (Dtype::Bf16, true)] {
        let outcome = shrink(&folder, &scratch.join("a"), &Options { dtype: Some(dtype), ..Options::default() });
        assert_eq!(outcome.is_ok(), works, "{dtype:?}");
        if let Err(error) = outcome {
            assert!(error.message().contains(A), "{error}");
        }
    }
}

#[test]
fn growing_needs_what_the_file_does_not_say() {
    let scratch = Scratch::new("grow");
    let folder = scratch.join("a");
    trained(two_layers(), |config| config.save_projection = false).save(&folder).unwrap();
    let refused = |in_max: usize, out_max: Option<usize>, wanted: &str| {
        let (_, message) = error(grow(&folder, &scratch.join("b"), in_max, out_max, &Options::default()));
        assert!(message.contains(wanted), "{message}");
        assert!(!scratch.join("b").exists());
    };
    refused(0, None, "in_max is 0");
    refused(9, Some(10), "out_max is 10; wanted at least 11");
    let stops = Stopping(Heard { stops: true, ..Heard::default() });
    let stopped = grow(&folder, &scratch.join("b"), 9, None, &Options { listener: &stops, ..Options::default() });
    assert_eq!(error(stopped).0, Code::Cancelled);
    grow(&folder, &scratch.join("b"), 9, Some(20), &Options::default()).unwrap();
    assert_eq!(tensors_in(&scratch.join("b"))[B].shape, [20, 5]);
    let (code, _) = error(grow(&scratch.join("b"), &scratch.join("c"), 9, None, &Options::default()));
    assert_eq!(code, Code::Exists);
    fs::remove_dir_all(scratch.join("b")).unwrap();
    // The rank in the config decides how much is drawn; the file must confirm it.
    let mut config = config_in(&folder);
    config["r"] = 1_000_000.into();
    fs::write(folder.join(CONFIG), config.to_string()).unwrap();
    refused(9, None, "2r of the config");
}

/// An outline has what a load has, without reading a tensor.
#[test]
fn outlines_are_what_loads_find() {
    for folder in goldens() {
        let (outline, adapter) = (Outline::read(&folder).unwrap(), loaded_whole(&folder));
        assert_eq!(outline.config.rank, adapter.store().rank());
        let layers = adapter.adapted_layers().map(|number| {
            let (layer, vectors) = (adapter.layers().get(number).unwrap(), adapter.vectors(number).unwrap());
            (layer.name.clone(), vec![layer.out_total], vectors.bias.is_some())
        });
        let mut layers: Vec<_> = layers.collect();
        layers.sort();
        let modules = outline.modules.iter();
        let modules = modules.map(|module| (module.path.clone(), module.lambda_b.clone(), module.learns_bias));
        assert_eq!(modules.collect::<Vec<_>>(), layers);
        let mut carried = outline.carried();
        carried.sort();
        assert_eq!(carried, adapter.tensors().iter().map(|tensor| tensor.name.clone()).collect::<Vec<_>>());
        assert_eq!(outline.projections().is_some(), tensors_in(&folder).contains_key(A));
    }
}

fn loaded_whole(folder: &Path) -> Adapter {
    Adapter::load(&model(layers_of(folder)).0, folder, &LoadOptions::default()).unwrap()
}

/// Of PVeRA and of VeRA, however they were rounded; the first other bit is told.
#[test]
fn projections_are_held_to_their_key() {
    let scratch = Scratch::new("projections");
    let checked = |folder: &Path| check_projections(folder, &Options::default());
    for (name, rounding) in [("train_step", Dtype::F32), ("base_f16", Dtype::F16), ("all_bf16", Dtype::Bf16)] {
        assert_eq!(checked(&golden(name)), Ok(Some(Rounding::To(rounding))), "{name}");
    }
    assert_eq!(checked(&golden("vera/shapes")), Ok(Some(Rounding::To(Dtype::F32))));
    assert_eq!(checked(&golden("seed_only")), Ok(None));
    for name in ["train_step", "vera/shapes"] {
        let (folder, mut tensors) = (scratch.join(&name.replace('/', "-")), tensors_in(&golden(name)));
        fs::create_dir(&folder).unwrap();
        fs::copy(golden(name).join(CONFIG), folder.join(CONFIG)).unwrap();
        let b = tensors.keys().find(|name| name.ends_with("vera_B")).unwrap().clone();
        tensors.get_mut(&b).unwrap().bytes[4] ^= 1;
        fs::write(folder.join(TENSORS), file_of(&tensors)).unwrap();
        let (code, message) = error(checked(&folder));
        assert!(code == Code::Projection && message.contains("at row 0, column 1 is "), "{message}");
    }
}

/// No key of PEFT draws those, so that they are never left out; but they are the key's.
#[test]
fn projections_on_the_int8_grid_are_known() {
    let scratch = Scratch::new("grid");
    let (network, _) = model(two_layers());
    let config = trained(two_layers(), |_| ()).config().clone();
    let size = Size { method: config.method, rank: 5, in_max: 9, out_max: 11 };
    let store = Store::from_key(network.allocator(), config.projection_prng_key, size, Rounding::Int8Grid).unwrap();
    let adapter = Adapter::create(&network, &config, Some(store.into()), &LoadOptions::default()).unwrap();
    let (folder, small) = (scratch.join("grid"), scratch.join("small"));
    adapter.save(&folder).unwrap();
    assert_eq!(check_projections(&folder, &Options::default()), Ok(Some(Rounding::Int8Grid)));
    assert_eq!(error(shrink(&folder, &small, &Options::default())).0, Code::Projection);
}

#[test]
fn projections_that_no_load_takes_are_not_the_keys() {
    let scratch = Scratch::new("sizes");
    let folder = scratch.join("a");
    trained(two_layers(), |_| ()).save(&folder).unwrap();
    let good = tensors_in(&folder);
    let changed = |key: &str, change: &dyn Fn(&mut Raw)| {
        let mut tensors = good.clone();
        change(tensors.get_mut(key).unwrap());
        fs::write(folder.join(TENSORS), file_of(&tensors)).unwrap();
        let (code, message) = error(check_projections(&folder, &Options::default()));
        assert_eq!(code, Code::Projection, "{message}");
        assert_eq!(error(shrink(&folder, &scratch.join("b"), &Options::default())).1, message);
        assert!(!scratch.join("b").exists());
        message
    };
    let cut = |rows: usize| {
        move |raw: &mut Raw| {
            let row = raw.bytes.len() / raw.shape[0];
            raw.bytes.truncate(rows * row);
            raw.shape[0] = rows;
        }
    };
    assert!(changed(B, &cut(1)).contains("wanted 11 rows at least, for the longest λ_b"));
    let empty = |raw: &mut Raw| {
        raw.bytes.clear();
        raw.shape[1] = 0;
    };
    assert!(changed(A, &empty).contains("wanted columns"));
    let mut tensors = good.clone();
    tensors.remove(B);
    fs::write(folder.join(TENSORS), file_of(&tensors)).unwrap();
    let (code, message) = error(check_projections(&folder, &Options::default()));
    assert!(code == Code::Projection && message.contains("is in the file without"), "{message}");
}
