//! `pvera combine`.

use serde_json::json;

use crate::support::*;

fn vector(folder: &str, which: &str) -> Vec<f32> {
    floats(&tensors_of(format!("{folder}/{TENSORS}"))[&format!("base_model.model.q_proj.pvera_lambda_{which}")].2)
}

#[test]
fn one_alone_is_itself_scaled() {
    let scratch = Scratch::new();
    let (folder, out) = (golden("two_adapters/first"), scratch.join("out"));
    let (value, code) = json(&["combine", &folder, &out, "--weights", "-0.5"]);
    assert_eq!((code, &value["weights"]), (0, &json!([-0.5])), "{value}");
    assert!(value["error"].as_f64().unwrap() < 1e-6, "{value}");
    // λ_b λ_dᵀ is half of what it was, with the other sign.
    let product = |folder: &str| vector(folder, "b")[3] * vector(folder, "d")[2];
    assert!((product(&out) + 0.5 * product(&folder)).abs() < 1e-6 * product(&folder).abs());
}

#[test]
fn the_error_of_two_is_told_and_bounded() {
    let scratch = Scratch::new();
    let (first, second) = (golden("two_adapters/first"), golden("two_adapters/second"));
    let (value, _) = json(&["combine", &first, &second, &scratch.join("out")]);
    assert_eq!(value["weights"], json!([0.5, 0.5]));
    let error = value["error"].as_f64().unwrap();
    assert!((0.01..1.0).contains(&error), "{error}");
    run(&["combine", &first, &second, &scratch.join("text")]).ok().says(&[&format!("relative error {error:.3e}")]);
    let strict = ["combine", &first, &second, &scratch.join("strict"), "--at-most", "0.001"];
    run(&strict).fails(3, &["from the sum", "pvera_rows.active"]);
    run(&["combine", &first, &second, &scratch.join("out")]).fails(3, &["exists", "--force"]);
    run(&["combine", &first, &second, &scratch.join("out"), "--force"]).ok();
    assert_eq!(scratch.names(), ["out", "text"]);
}

#[test]
fn what_cannot_be_combined() {
    let scratch = Scratch::new();
    let (out, first) = (scratch.join("out"), golden("two_adapters/first"));
    run(&["combine", &first, &out, "--weights", "1,2"]).fails(2, &["--weights has 2 numbers; wanted 1"]);
    run(&["combine", &out]).fails(2, &["<ADAPTER>"]);
    assert_eq!(error_code(&["combine", &first, &golden("train_step"), &out], 3), "PVERA_ERROR_SHAPE");
    assert_eq!(error_code(&["combine", &golden("bias_and_head"), &out], 3), "PVERA_ERROR_UNSUPPORTED");
    run(&["combine", &golden("seed_only"), &out]).fails(3, &["does not say how many inputs"]);
    run(&["combine", &golden("seed_only"), &out, "--model", &golden("seed_only/base.safetensors")]).ok();
}

#[test]
fn carried_tensors_are_not_dropped() {
    let scratch = Scratch::new();
    let folder = scratch.copy("train_step");
    let mut tensors = tensors_of(format!("{folder}/{TENSORS}"));
    tensors.insert("base_model.model.classifier.weight".into(), (safetensors::Dtype::F32, vec![1], vec![0; 4]));
    write_tensors(format!("{folder}/{TENSORS}"), &tensors);
    let base = golden("train_step/base.safetensors");
    run(&["combine", &golden("train_step"), &folder, &scratch.join("out"), "--model", &base])
        .fails(3, &["adapters[1]", "classifier.weight"]);
    assert_eq!(scratch.names(), ["copy"]);
}
