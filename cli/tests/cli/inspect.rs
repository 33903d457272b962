//! `pvera inspect`.

use serde_json::{Value, json};

use crate::support::*;

#[test]
fn a_checkpoint() {
    let (value, code) = json(&["inspect", &golden("train_step")]);
    assert_eq!(code, 0);
    assert_eq!(
        [&value["command"], &value["kind"], &value["peft_type"], &value["rank"], &value["scaling"], &value["warnings"]],
        [&json!("inspect"), &json!("adapter"), &json!("PVERA"), &json!(10), &json!(1.0), &json!([])]
    );
    assert_eq!(value["target_modules"], json!(["v_proj", "q_proj"]));
    assert_eq!(
        value["projections"],
        json!({"saved": true, "key": 41510, "a": {"shape": [20, 40], "dtype": "F32"}, "b": {"shape": [56, 10], "dtype": "F32"}})
    );
    assert_eq!(
        value["layers"][1],
        json!({
            "name": "v_proj", "outputs": 24, "lambda_b": [24], "dtype": "F32", "learns_bias": false, "samples": false,
        })
    );
    assert_eq!([&value["parameters"], &value["bytes"]], [&json!(120), &json!(6504)]);
    run(&["inspect", &golden("train_step")]).ok().says(&[
        "PVERA",
        "rank          10",
        "q_proj  56 outputs",
        "key 41510",
    ]);
}

#[test]
fn each_of_its_two_files_stands_for_the_folder() {
    let whole = json(&["inspect", &golden("train_step")]).0;
    for name in [CONFIG, TENSORS] {
        let (value, _) = json(&["inspect", &golden(&format!("train_step/{name}"))]);
        assert_eq!([&value["kind"], &value["layers"]], [&whole["kind"], &whole["layers"]]);
    }
}

#[test]
fn projections_that_are_drawn() {
    let value = json(&["inspect", &golden("seed_only")]).0;
    assert_eq!(value["projections"], json!({"saved": false, "key": 6_462_712_296_u64}));
    assert_eq!(json(&["inspect", &golden("vera/seed_only")]).0["peft_type"], "VERA");
}

#[test]
fn carried_tensors_and_learned_biases() {
    let value = json(&["inspect", &golden("bias_and_head")]).0;
    assert_eq!(value["layers"][0]["learns_bias"], true);
    let names: Vec<&Value> = value["carried"].as_array().unwrap().iter().map(|tensor| &tensor["name"]).collect();
    assert_eq!(names, ["base_model.model.classifier.bias", "base_model.model.classifier.weight"]);
    assert_eq!(value["carried"][1]["shape"], json!([3, 12]));
    assert_eq!(value["parameters"], 32);
}

#[test]
fn what_each_layer_samples_and_stores() {
    let value = json(&["inspect", &golden("sample_at_inference")]).0;
    let samples: Vec<&Value> = value["layers"].as_array().unwrap().iter().map(|layer| &layer["samples"]).collect();
    assert!(samples.contains(&&json!(true)), "{value}");
    assert_eq!(json(&["inspect", &golden("all_bf16")]).0["layers"][0]["dtype"], "BF16");
}

#[test]
fn a_model_and_its_tensors() {
    let model = golden("train_step/base.safetensors");
    let value = json(&["inspect", &model]).0;
    assert_eq!([&value["kind"], &value["files"][0]["tensors"]], [&json!("model"), &json!([])]);
    let value = json(&["inspect", &model, "--tensors"]).0;
    let names: Vec<&Value> =
        value["files"][0]["tensors"].as_array().unwrap().iter().map(|tensor| &tensor["name"]).collect();
    assert!(names.contains(&&json!("q_proj.weight")), "{names:?}");
    assert_eq!(value["tensor_count"], names.len());
}

#[test]
fn a_digest_is_the_files_own() {
    let scratch = Scratch::new();
    let file = scratch.write("tensors.safetensors", b"\x02\0\0\0\0\0\0\0{}");
    let value = json(&["inspect", &file, "--digest"]).0;
    // printf '\x02\0\0\0\0\0\0\0{}' | sha256sum
    let wanted = "411a485216e432ece6b9af94fa32154cf79a2a56d4f81266baa50063f45092bd";
    assert_eq!(value["digests"][0]["sha256"], wanted);
    assert!(json(&["inspect", &file]).0.get("digests").is_none());
}

#[test]
fn a_lora_is_told_by_its_tensors() {
    let scratch = Scratch::new();
    let lora = scratch.join("lora");
    run(&["export", "lora", &golden("train_step"), &lora, "--inputs", "40"]).ok();
    let value = json(&["inspect", &lora]).0;
    assert_eq!(
        [&value["kind"], &value["peft_type"], &value["tensor_count"]],
        [&json!("other adapter"), &json!("LORA"), &json!(4)]
    );
}

#[test]
fn paths_and_files_that_are_none() {
    let scratch = Scratch::new();
    run(&["inspect", &scratch.join("nothing")]).fails(3, &["could not open", "nothing"]);
    assert_eq!(error_code(&["inspect", &scratch.join("nothing")], 3), "PVERA_ERROR_IO");
    run(&["inspect", &scratch.join("")]).fails(3, &["holds neither model.safetensors"]);
    assert_eq!(error_code(&["inspect", &scratch.write("text", "hello, this is no tensor")], 3), "PVERA_ERROR_FORMAT");
    let copy = scratch.copy("train_step");
    std::fs::write(format!("{copy}/{CONFIG}"), "{").unwrap();
    assert_eq!(error_code(&["inspect", &copy], 3), "PVERA_ERROR_FORMAT");
    std::fs::remove_file(format!("{copy}/{CONFIG}")).unwrap();
    run(&["inspect", &copy]).fails(3, &[CONFIG]);
}
