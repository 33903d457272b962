//! `pvera shrink`, `grow` and `import`: checkpoints with more or less in them.

use serde_json::{Value, json};

use crate::support::*;

fn same_tensors(first: &str, second: &str) {
    assert_eq!(tensors_of(format!("{first}/{TENSORS}")), tensors_of(format!("{second}/{TENSORS}")));
}

#[test]
fn shrinking_and_growing_are_each_others_reverse() {
    let scratch = Scratch::new();
    for (name, dtype) in [("train_step", "f32"), ("base_bf16", "bf16")] {
        let (folder, small, whole) =
            (golden(name), scratch.join(&format!("{name}.small")), scratch.join(&format!("{name}.whole")));
        let (value, code) = json(&["shrink", &folder, &small]);
        assert_eq!((code, &value["base_dtype"]), (0, &json!(dtype)), "{value}");
        assert!(value["bytes"].as_u64() < value["bytes_before"].as_u64());
        assert_eq!(json(&["inspect", &small]).0["projections"]["saved"], false);
        let in_max = value["in_max"].to_string();
        run(&["grow", &small, &whole, "--in-max", &in_max, "--base-dtype", dtype]).ok();
        same_tensors(&folder, &whole);
    }
}

#[test]
fn growing_asks_the_model() {
    let scratch = Scratch::new();
    let (folder, small) = (golden("base_bf16"), scratch.join("small"));
    run(&["shrink", &folder, &small]).ok();
    run(&["grow", &small, &scratch.join("whole")]).fails(3, &["does not say how many inputs", "--model"]);
    run(&["grow", &small, &scratch.join("whole"), "--model", &golden("base_bf16/base.safetensors")]).ok();
    same_tensors(&folder, &scratch.join("whole"));
    run(&["grow", &folder, &scratch.join("again"), "--in-max", "64"]).fails(3, &["is in the file already"]);
}

#[test]
fn a_checkpoint_is_shrunk_where_it_is_only_with_force() {
    let scratch = Scratch::new();
    let copy = scratch.copy("train_step");
    run(&["shrink", &copy, &copy]).fails(3, &["exists", "--force"]);
    same_tensors(&copy, &golden("train_step"));
    run(&["shrink", &copy, &copy, "--force"]).ok();
    assert_eq!(tensors_of(format!("{copy}/{TENSORS}")).len(), 4);
    run(&["shrink", &copy, &copy, "--force"]).fails(3, &["nothing to leave out"]);
}

#[test]
fn projections_of_another_key_are_not_left_out() {
    let scratch = Scratch::new();
    let copy = scratch.copy("train_step");
    change(&copy, "base_model.pvera_A", |bytes| bytes[0] ^= 1);
    assert_eq!(error_code(&["shrink", &copy, &scratch.join("out")], 3), "PVERA_ERROR_PROJECTION");
    run(&["shrink", &golden("base_bf16"), &scratch.join("out"), "--base-dtype", "f32"]).fails(3, &["the key draws"]);
    assert_eq!(scratch.names(), ["copy"]);
}

/// A state dictionary as the authors' code saves it.
fn authors(scratch: &Scratch) -> String {
    let mut tensors = Tensors::new();
    for (name, count) in [("qd", 4), ("vd", 4), ("qb", 6), ("vb", 6)] {
        let values: Vec<f32> = (0..count).map(|place| place as f32 / 8.0 + 0.5).collect();
        let name = format!("backbone.blocks.0.attn.qkv.heads.adapter_{name}");
        tensors.insert(name, (safetensors::Dtype::F32, vec![count], f32s(&values)));
    }
    let path = scratch.join("authors.safetensors");
    write_tensors(&path, &tensors);
    path
}

#[test]
fn the_authors_checkpoints() {
    let scratch = Scratch::new();
    let (file, out) = (authors(&scratch), scratch.join("out"));
    run(&["import", "authors", &file, &out, "--prefix", "backbone."]).fails(3, &["no seed is given"]);
    let import = ["import", "authors", &file, &out, "--prefix", "backbone.", "--seed", "7"];
    let (value, code) = json(&import);
    assert_eq!(
        (code, &value["layers"], &value["rank"], &value["command"]),
        (0, &json!(1), &json!(4), &json!("import authors"))
    );
    let told: Value = json(&["inspect", &out]).0;
    assert_eq!([&told["layers"][0]["name"], &told["layers"][0]["outputs"]], [&json!("blocks.0.attn.qkv"), &json!(18)]);
    let lambda_b = |out: &str| {
        tensors_of(format!("{out}/{TENSORS}"))["base_model.model.blocks.0.attn.qkv.pvera_lambda_b"].2.clone()
    };
    let first = floats(&lambda_b(&out))[0];
    assert_eq!(first, 8.0, "alpha is 16");
    run(&import).fails(3, &["exists", "--force"]);
    run(&[&import[..], &["--force", "--alpha", "-2"]].concat()).ok();
    assert_eq!(floats(&lambda_b(&out))[0], -1.0);
    run(&[&import[..], &["--force", "--alpha", "nan"]].concat()).fails(2, &["wanted a finite number"]);
    run(&["import", "authors", &file, &out, "--force", "--prefix", "net.", "--seed", "7"]).fails(3, &["'net.'"]);
    let inside = scratch.join("own");
    std::fs::create_dir(&inside).unwrap();
    let own = format!("{inside}/{TENSORS}");
    std::fs::rename(&file, &own).unwrap();
    run(&["import", "authors", &own, &inside, "--force", "--prefix", "backbone.", "--seed", "7"])
        .fails(3, &["another OUT is wanted"]);
    run(&["import", "authors", &scratch.join("none"), &scratch.join("new")]).fails(3, &["could not open"]);
}

#[test]
fn projections_that_no_memory_holds() {
    let scratch = Scratch::new();
    run(&["grow", &golden("seed_only"), &scratch.join("out"), "--inputs", "40000000000000"])
        .fails(3, &["×40000000000000", "out of memory"]);
    assert_eq!(scratch.names(), Vec::<String>::new());
}
