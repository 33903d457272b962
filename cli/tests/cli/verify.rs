//! `pvera verify`.

use serde_json::json;

use crate::support::*;

/// The one finding of a run.
#[track_caller]
fn finding(arguments: &[&str], code: &str, words: &[&str]) {
    let (value, exit) = json(&[&["verify"], arguments].concat());
    assert_eq!((exit, &value["sound"]), (1, &json!(false)), "{value}");
    let found = value["findings"].as_array().unwrap();
    assert_eq!(found.len(), 1, "{value}");
    assert_eq!(found[0]["code"], code, "{value}");
    let message = found[0]["message"].as_str().unwrap();
    words.iter().for_each(|word| assert!(message.contains(word), "'{word}' in {message}"));
    let run = run(&[&["verify"], arguments].concat());
    assert_eq!(run.code, 1);
    run.says(&["found: ", "1 finding", words[0]]);
}

#[test]
fn every_golden_checkpoint_is_sound() {
    let mut count = 0;
    for root in ["", "vera", "two_adapters"] {
        for entry in std::fs::read_dir(golden(root)).unwrap() {
            let folder = entry.unwrap().path();
            if !folder.join(CONFIG).exists() {
                continue;
            }
            let (value, code) = json(&["verify", folder.to_str().unwrap()]);
            assert_eq!((code, &value["findings"]), (0, &json!([])), "{value}");
            count += 1;
        }
    }
    assert_eq!(count, 19);
}

#[test]
fn projections_are_held_to_their_key() {
    let scratch = Scratch::new();
    let checked = |name: &str| json(&["verify", &golden(name)]).0["checked"][1].as_str().unwrap().to_owned();
    assert_eq!(checked("train_step"), "projections of the key");
    assert_eq!(checked("base_f16"), "projections of the key, rounded to f16");
    assert_eq!(checked("seed_only"), "no projections saved");
    assert_eq!(checked("vera/shapes"), "projections of the key");
    let copy = scratch.copy("train_step");
    change(&copy, "base_model.pvera_B", |bytes| bytes[36] ^= 1);
    finding(&[&copy], "PVERA_ERROR_PROJECTION", &["pvera_B at row 0, column 9", "the key draws"]);
}

#[test]
fn projections_on_the_int8_grid_are_the_keys_too() {
    use pvera::memory::Allocator;
    use pvera::projection::{Rounding, Size, Store};
    let scratch = Scratch::new();
    let copy = scratch.copy("train_step");
    let size = Size { method: Default::default(), rank: 10, in_max: 40, out_max: 56 };
    let store = Store::from_key(&Allocator::default(), 41510, size, Rounding::Int8Grid).unwrap();
    for (name, matrix) in [("base_model.pvera_A", store.a()), ("base_model.pvera_B", store.b())] {
        let mut values = vec![0.0; matrix.rows() * matrix.cols()];
        for (row, values) in values.chunks_mut(matrix.cols()).enumerate() {
            matrix.matrix().load(row, 0, values);
        }
        change(&copy, name, |bytes| *bytes = f32s(&values));
    }
    let (value, code) = json(&["verify", &copy]);
    assert_eq!((code, &value["checked"][1]), (0, &json!("projections of the key, on the int8 grid")));
    run(&["shrink", &copy, &scratch.join("small")]).fails(3, &["the projections are not those of"]);
}

#[test]
fn numbers_that_are_not_finite() {
    let scratch = Scratch::new();
    let copy = scratch.copy("train_step");
    change(&copy, "base_model.model.v_proj.pvera_lambda_d", |bytes| {
        bytes[8..12].copy_from_slice(&f32::NAN.to_le_bytes())
    });
    finding(&[&copy], "PVERA_ERROR_FORMAT", &["v_proj.pvera_lambda_d' holds NaN at 2"]);
}

#[test]
fn files_that_are_cut_and_vectors_of_other_lengths() {
    let scratch = Scratch::new();
    let copy = scratch.copy("seed_only");
    let path = format!("{copy}/{TENSORS}");
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() - 4]).unwrap();
    let (value, code) = json(&["verify", &copy]);
    assert_eq!(code, 1, "{value}");
    std::fs::write(&path, &bytes).unwrap();
    let mut tensors = tensors_of(&path);
    let vector = tensors.get_mut("base_model.model.q_proj.pvera_lambda_d").unwrap();
    (vector.1, vector.2) = (vec![15], vector.2[..60].to_vec());
    write_tensors(&path, &tensors);
    finding(&[&copy], "PVERA_ERROR_SHAPE", &["q_proj.pvera_lambda_d' has shape [15]; wanted [16]"]);
}

#[test]
fn a_checkpoint_that_does_not_fit_its_model() {
    let (folder, model) = (golden("train_step"), golden("conv1d/base.safetensors"));
    let (value, code) = json(&["verify", &folder, "--model", &golden("train_step/base.safetensors")]);
    assert_eq!(code, 0, "{value}");
    finding(&[&folder, "--model", &model], "PVERA_ERROR_NOT_FOUND", &["no tensor 'q_proj.weight'"]);
}

#[test]
fn models_are_read_to_the_last_number() {
    let scratch = Scratch::new();
    let path = scratch.join("model.safetensors");
    let mut tensors = tensors_of(golden("base_bf16/base.safetensors"));
    write_tensors(&path, &tensors);
    assert_eq!(json(&["verify", &path]).1, 0);
    let weight = tensors.get_mut("q_proj.weight").unwrap();
    assert_eq!(weight.0, safetensors::Dtype::BF16);
    let last = weight.2.len() / 2 - 1;
    weight.2[2 * last..].copy_from_slice(&0x7f80_u16.to_le_bytes());
    write_tensors(&path, &tensors);
    finding(&[&path], "PVERA_ERROR_FORMAT", &[&format!("'q_proj.weight' holds inf at {last}")]);
    // Integers have no such numbers.
    let weight = tensors.get_mut("q_proj.weight").unwrap();
    weight.0 = safetensors::Dtype::U16;
    write_tensors(&path, &tensors);
    assert_eq!(json(&["verify", &path]).1, 0);
}

#[test]
fn damaged_entries_of_a_bank_are_named() {
    let scratch = Scratch::new();
    let bank = scratch.join("bank");
    run(&["bank", "create", &bank, &golden("two_adapters")]).ok();
    assert_eq!(json(&["verify", &bank]).1, 0);
    let mut bytes = std::fs::read(&bank).unwrap();
    // The first vectors lie where data begin, behind A and B; some number of them is of the second adapter.
    let (first, second) = (floats(&vector("first")), floats(&vector("second")));
    assert_ne!(first, second);
    let needle = f32s(&second);
    let place = bytes.windows(needle.len()).position(|window| window == needle).unwrap();
    bytes[place] ^= 1;
    std::fs::write(&bank, &bytes).unwrap();
    finding(&[&bank], "PVERA_ERROR_FORMAT", &["the vectors of adapter 'second'", "are damaged"]);
    // A compaction would lose it for good: only when told to.
    run(&["bank", "compact", &bank]).fails(3, &["second"]);
    assert_eq!(std::fs::read(&bank).unwrap(), bytes);
    let (value, _) = json(&["bank", "compact", &bank, "--repair"]);
    assert_eq!(value["adapters"], 1);
    assert!(value["warnings"][0].as_str().unwrap().contains("'second'"));
    assert_eq!(json(&["verify", &bank]).1, 0);
}

fn vector(which: &str) -> Vec<u8> {
    let tensors = tensors_of(golden(&format!("two_adapters/{which}/{TENSORS}")));
    tensors["base_model.model.q_proj.pvera_lambda_b"].2.clone()
}

#[test]
fn a_bank_that_draws_is_drawn_only_so_far() {
    let scratch = Scratch::new();
    let bank = scratch.join("bank");
    run(&["bank", "create", &bank, &golden("seed_only"), "--inputs", "48"]).ok();
    assert_eq!(json(&["verify", &bank]).1, 0, "nothing of it is in the file");
    let out = scratch.join("out");
    let extract = ["bank", "extract", &bank, "seed_only", &out, "--in-max"];
    run(&[&extract[..], &["47"]].concat()).fails(3, &["drawn for in_max 48", "--in-max and --out-max allow more"]);
    let x = scratch.write("x.json", format!("[[{}]]", ["1"; 48].join(",")));
    let replay = ["replay", &bank, "--name", "seed_only", "--layer", "q_proj", "--input", &x, "--in-max"];
    run(&[&replay[..], &["47"]].concat()).fails(3, &["drawn for in_max 48", "--in-max and --out-max allow more"]);
    run(&[&replay[..], &["48"]].concat()).ok();
    run(&[&extract[..], &["48"]].concat()).ok();
    assert!(!tensors_of(format!("{out}/{TENSORS}")).contains_key("base_model.pvera_A"), "as it was saved");
}

#[test]
fn numbers_of_every_type_are_looked_at() {
    use safetensors::Dtype;
    let scratch = Scratch::new();
    let path = scratch.join("model.safetensors");
    let verified = |dtype: Dtype, shape: usize, bytes: &[u8]| {
        write_tensors(&path, &[("w".to_owned(), (dtype, vec![shape], bytes.to_vec()))].into());
        json(&["verify", &path])
    };
    assert_eq!(verified(Dtype::F64, 2, &[1.0, 1e300].map(f64::to_le_bytes).concat()).1, 0, "finite, though beyond f32");
    for (dtype, shape, bytes, says) in [
        (Dtype::F64, 2, [1.0, f64::INFINITY].map(f64::to_le_bytes).concat(), "holds inf at 1"),
        (Dtype::C64, 2, [1.0, 1.0, 1.0, f32::NAN].map(f32::to_le_bytes).concat(), "holds NaN at 1"),
        (Dtype::F8_E4M3, 3, vec![0x7e, 0x00, 0xff], "holds 0xff at 2"),
        (Dtype::F8_E5M2, 3, vec![0x7b, 0x7c, 0x00], "holds 0x7c at 1"),
    ] {
        let (value, code) = verified(dtype, shape, &bytes);
        assert!(code == 1 && value["findings"][0]["message"].as_str().unwrap().contains(says), "{dtype:?}: {value}");
    }
}

#[test]
fn names_forge_no_lines() {
    let scratch = Scratch::new();
    let bank = scratch.join("bank");
    let name = "a\nbank: bank, 9 adapters: sound";
    run(&["bank", "create", &bank, &format!("{name}={}", golden("two_adapters/first"))]).ok();
    let mut bytes = std::fs::read(&bank).unwrap();
    // The last item's checksum, before its name at the end.
    let at = bytes.len() - name.len() - 1;
    bytes[at] ^= 1;
    std::fs::write(&bank, bytes).unwrap();
    for arguments in [&["verify", &bank][..], &["bank", "extract", &bank, name, &scratch.join("out")]] {
        let run = run(arguments);
        assert_ne!(run.code, 0, "{run:?}");
        assert!(!format!("{}{}", run.out, run.err).contains("\nbank: bank, 9 adapters"), "{run:?}");
    }
}

#[test]
fn what_cannot_be_read_is_no_finding() {
    let scratch = Scratch::new();
    run(&["verify", &scratch.join("nothing")]).fails(3, &["could not open"]);
    let copy = scratch.copy("train_step");
    std::fs::remove_file(format!("{copy}/{TENSORS}")).unwrap();
    assert_eq!(error_code(&["verify", &copy], 3), "PVERA_ERROR_IO");
}
