//! `pvera merge`.

use serde_json::json;

use crate::support::*;

#[test]
fn weights_get_the_delta_and_the_rest_stays() {
    let scratch = Scratch::new();
    let (folder, out) = (golden("seed_only"), scratch.join("out"));
    let base = golden("seed_only/base.safetensors");
    let (value, code) = json(&["merge", &folder, &base, &out]);
    assert_eq!((code, &value["layers"], &value["files"]), (0, &json!(2), &json!(1)), "{value}");
    let (before, after) = (tensors_of(&base), tensors_of(format!("{out}/base.safetensors")));
    let deltas = tensors_of(golden("seed_only/io.safetensors"));
    assert!(before.keys().eq(after.keys()));
    for (name, (_, _, bytes)) in &after {
        let before = floats(&before[name].2);
        let Some(delta) = name.strip_suffix(".weight").and_then(|module| deltas.get(&format!("{module}/delta_weight")))
        else {
            assert!(*bytes == f32s(&before), "{name}");
            continue;
        };
        let delta = floats(&delta.2);
        let largest = delta.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
        for ((after, before), delta) in floats(bytes).iter().zip(before).zip(delta) {
            assert!((after - (before + delta)).abs() <= 1e-6 * largest.max(1.0), "{name}");
        }
    }
}

#[test]
fn threads_and_transposed_weights() {
    let scratch = Scratch::new();
    let (folder, base) = (golden("conv1d"), golden("conv1d/base.safetensors"));
    let file = |threads: &str| {
        let out = scratch.join(threads);
        run(&["merge", &folder, &base, &out, "--threads", threads]).ok();
        std::fs::read(format!("{out}/base.safetensors")).unwrap()
    };
    assert!(file("1") == file("3"));
    assert!(file("2") != std::fs::read(&base).unwrap());
}

#[test]
fn a_folder_is_merged_with_its_other_files() {
    let scratch = Scratch::new();
    let (model, out) = (scratch.join("model"), scratch.join("out"));
    std::fs::create_dir(&model).unwrap();
    std::fs::copy(golden("train_step/base.safetensors"), format!("{model}/model.safetensors")).unwrap();
    std::fs::write(format!("{model}/config.json"), "{}").unwrap();
    std::fs::write(format!("{model}/old.bin"), "weights").unwrap();
    let value = json(&["merge", &golden("train_step"), &model, &out]).0;
    assert!(value["warnings"][0].as_str().unwrap().contains("old.bin"), "{value}");
    assert_eq!(std::fs::read_to_string(format!("{out}/config.json")).unwrap(), "{}");
    let loud = run(&["merge", &golden("train_step"), &model, &scratch.join("loud")]).ok();
    assert!(loud.err.starts_with("warning: ") && loud.err.contains("old.bin"), "{loud:?}");
    assert_eq!(run(&["merge", &golden("train_step"), &model, &scratch.join("quiet"), "--quiet"]).ok().err, "");
}

#[test]
fn an_output_that_is_there_needs_force() {
    let scratch = Scratch::new();
    let (folder, base, out) = (golden("train_step"), golden("train_step/base.safetensors"), scratch.join("out"));
    std::fs::create_dir(&out).unwrap();
    std::fs::write(format!("{out}/mine"), "kept").unwrap();
    run(&["merge", &folder, &base, &out]).fails(3, &["is not empty", "--force"]);
    assert_eq!(error_code(&["merge", &folder, &base, &out], 3), "PVERA_ERROR_EXISTS");
    assert_eq!(std::fs::read_to_string(format!("{out}/mine")).unwrap(), "kept");
    run(&["merge", &folder, &base, &out, "--force"]).ok();
    assert!(!std::fs::exists(format!("{out}/mine")).unwrap());
}

#[test]
fn what_samples_needs_a_word() {
    let scratch = Scratch::new();
    let (folder, base) = (golden("sample_at_inference"), golden("sample_at_inference/base.safetensors"));
    run(&["merge", &folder, &base, &scratch.join("out")]).fails(3, &["samples at inference", "--mean takes the mean"]);
    run(&["merge", &folder, &base, &scratch.join("out"), "--mean"]).ok();
}

#[test]
fn what_the_model_lacks_is_named_or_left_out() {
    let scratch = Scratch::new();
    let (folder, base) = (golden("bias_and_head"), scratch.join("base.safetensors"));
    let mut tensors = tensors_of(golden("bias_and_head/base.safetensors"));
    tensors.retain(|name, _| !name.starts_with("classifier"));
    write_tensors(&base, &tensors);
    run(&["merge", &folder, &base, &scratch.join("out")]).fails(3, &["classifier.bias", "--leave-out leaves it out"]);
    let left = run(&["merge", &folder, &base, &scratch.join("out"), "--leave-out"]).ok();
    assert!(left.err.contains("classifier.weight"), "{left:?}");
    tensors.remove("q_proj.weight");
    write_tensors(&base, &tensors);
    assert_eq!(error_code(&["merge", &folder, &base, &scratch.join("none")], 3), "PVERA_ERROR_NOT_FOUND");
}

#[test]
fn names_behind_a_prefix() {
    let scratch = Scratch::new();
    let base = scratch.join("base.safetensors");
    let tensors = tensors_of(golden("train_step/base.safetensors"));
    let longer = tensors.into_iter().map(|(name, tensor)| (format!("net.{name}"), tensor)).collect();
    write_tensors(&base, &longer);
    let folder = golden("train_step");
    run(&["merge", &folder, &base, &scratch.join("out")]).fails(3, &["'net.q_proj.weight'", "--prefix gives it"]);
    run(&["merge", &folder, &base, &scratch.join("out"), "--prefix", "net."]).ok();
    assert_eq!(scratch.names(), ["base.safetensors", "out"], "a failure leaves nothing");
}

#[test]
fn the_adapter_is_not_replaced() {
    let scratch = Scratch::new();
    let (folder, base) = (scratch.copy("train_step"), golden("train_step/base.safetensors"));
    std::fs::create_dir(format!("{folder}/sub")).unwrap();
    for out in [folder.clone(), scratch.join(""), format!("{folder}/sub"), format!("{folder}/../copy")] {
        run(&["merge", &folder, &base, &out, "--force"]).fails(3, &["another OUT is wanted"]);
    }
    run(&["export", "lora", &folder, &folder, "--model", &base, "--force"]).fails(3, &["another OUT is wanted"]);
    run(&["combine", &folder, &folder, "--model", &base, "--force"]).fails(3, &["another OUT is wanted"]);
    assert!(std::fs::exists(format!("{folder}/{TENSORS}")).unwrap());
}
