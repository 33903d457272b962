//! `pvera export`.

use serde_json::{Value, json};

use crate::support::*;

#[test]
fn a_loras_product_is_the_delta() {
    let scratch = Scratch::new();
    let out = scratch.join("lora");
    let (value, code) =
        json(&["export", "lora", &golden("seed_only"), &out, "--model", &golden("seed_only/base.safetensors")]);
    assert_eq!((code, &value["rank"], &value["layers"]), (0, &json!(8), &json!(2)), "{value}");
    let tensors = tensors_of(format!("{out}/{TENSORS}"));
    let deltas = tensors_of(golden("seed_only/io.safetensors"));
    for module in ["q_proj", "v_proj"] {
        let factor = |which: &str| tensors[&format!("base_model.model.{module}.lora_{which}.weight")].clone();
        let ((_, a_shape, a), (_, b_shape, b)) = (factor("A"), factor("B"));
        let (a, b, delta) = (floats(&a), floats(&b), floats(&deltas[&format!("{module}/delta_weight")].2));
        let (rank, inputs) = (a_shape[0], a_shape[1]);
        assert_eq!((rank, inputs, b_shape[1]), (8, 48, 8));
        for (place, delta) in delta.iter().enumerate() {
            let (row, col) = (place / inputs, place % inputs);
            let product: f32 = (0..rank).map(|k| b[row * rank + k] * a[k * inputs + col]).sum();
            assert!((product - delta).abs() < 1e-6, "{module} {place}: {product} {delta}");
        }
    }
    let config: Value = serde_json::from_slice(&std::fs::read(format!("{out}/{CONFIG}")).unwrap()).unwrap();
    assert_eq!([&config["peft_type"], &config["r"], &config["lora_alpha"]], [&json!("LORA"), &json!(8), &json!(8)]);
}

#[test]
fn inputs_are_told_or_read() {
    let scratch = Scratch::new();
    let (folder, model) = (golden("mixed_shapes"), golden("mixed_shapes/base.safetensors"));
    run(&["export", "lora", &folder, &scratch.join("out")])
        .fails(3, &["how many inputs layer", "--model PATH", "--inputs"]);
    run(&["export", "lora", &folder, &scratch.join("model"), "--model", &model]).ok();
    let read = std::fs::read(scratch.join("model") + "/" + TENSORS).unwrap();
    let shapes = tensors_of(&model);
    let mut told = vec!["export".to_owned(), "lora".into(), folder.clone(), scratch.join("told")];
    for (name, (_, shape, _)) in shapes.iter().filter(|(name, _)| name.ends_with(".weight")) {
        told.extend(["--inputs".to_owned(), format!("{}={}", name.trim_end_matches(".weight"), shape[1])]);
    }
    run(&told.iter().map(String::as_str).collect::<Vec<_>>()).ok();
    assert_eq!(read, std::fs::read(scratch.join("told") + "/" + TENSORS).unwrap());
    // The last part of a path is enough, and more than A is wide is too much.
    run(&["export", "lora", &folder, &scratch.join("wide"), "--inputs", "4096"]).fails(3, &["4096"]);
    run(&["export", "lora", &folder, &scratch.join("zero"), "--inputs", "0"]).fails(2, &["with a number above 0"]);
    run(&["export", "lora", &folder, &scratch.join("both"), "--inputs", "3", "--model", &model])
        .fails(2, &["cannot be used with"]);
}

#[test]
fn element_types() {
    let scratch = Scratch::new();
    for (name, dtype) in
        [("f32", safetensors::Dtype::F32), ("f16", safetensors::Dtype::F16), ("bf16", safetensors::Dtype::BF16)]
    {
        let out = scratch.join(name);
        run(&["export", "lora", &golden("train_step"), &out, "--inputs", "40", "--dtype", name]).ok();
        assert!(tensors_of(format!("{out}/{TENSORS}")).values().all(|(stored, ..)| *stored == dtype));
    }
    run(&["export", "lora", &golden("train_step"), &scratch.join("out"), "--dtype", "f8"])
        .fails(2, &["[possible values: f32"]);
}

#[test]
fn a_checkpoint_that_is_there_needs_force_and_another_kind_stays() {
    let scratch = Scratch::new();
    let (folder, out) = (golden("train_step"), scratch.join("lora"));
    let export = |extra: &[&str]| run(&[&["export", "lora", &folder, &out, "--inputs", "40"], extra].concat());
    export(&[]).ok();
    let before = std::fs::read(format!("{out}/{TENSORS}")).unwrap();
    export(&["--dtype", "bf16"]).fails(3, &["exists", "--force replaces it"]);
    assert_eq!(before, std::fs::read(format!("{out}/{TENSORS}")).unwrap());
    export(&["--dtype", "bf16", "--force"]).ok();
    assert_ne!(before, std::fs::read(format!("{out}/{TENSORS}")).unwrap());
    let copy = scratch.copy("train_step");
    run(&["export", "lora", &folder, &copy, "--inputs", "40", "--force"]).fails(3, &["holds an adapter of type PVERA"]);
}

const Q: &str = "q_proj=blk.0.attn_q.weight";
const V: &str = "v_proj=blk.0.attn_v.weight";

#[test]
fn a_gguf() {
    let scratch = Scratch::new();
    let (folder, model) = (golden("train_step"), golden("train_step/base.safetensors"));
    let export = |out: &str, extra: &[&str]| {
        let own = ["export", "gguf", &folder, &scratch.join(out), "--model", &model, "--tensor", Q, "--tensor", V];
        run(&[&own, extra].concat())
    };
    export("kept", &["--architecture", "llama", "--rope", "keep"]).ok().says(&["rank 10 on 2 layers"]);
    let kept = std::fs::read(scratch.join("kept")).unwrap();
    assert!(kept.starts_with(b"GGUF"));
    export("kept", &["--architecture", "llama", "--rope", "keep"]).fails(3, &["exists", "--force replaces it"]);
    export("llama", &["--architecture", "llama"]).fails(3, &["heads is 0", "num_attention_heads"]);
    export("llama", &["--architecture", "llama", "--heads", "4"]).ok();
    assert_ne!(kept, std::fs::read(scratch.join("llama")).unwrap(), "rows of q are permuted");
    export("qwen", &["--architecture", "qwen2"]).ok();
    export("strange", &["--architecture", "strange"]).fails(3, &["\"strange\"", "--rope says it"]);
    export("none", &[]).fails(2, &["--architecture is not given"]);
    assert_eq!(scratch.names(), ["kept", "llama", "qwen"]);
}

#[test]
fn a_ggufs_architecture_and_heads_are_in_the_models_config() {
    let scratch = Scratch::new();
    let model = scratch.join("model");
    std::fs::create_dir(&model).unwrap();
    std::fs::copy(golden("train_step/base.safetensors"), format!("{model}/model.safetensors")).unwrap();
    let config = r#"{"model_type": "mistral", "num_attention_heads": 4, "num_key_value_heads": 2}"#;
    std::fs::write(format!("{model}/config.json"), config).unwrap();
    let export = |out: &str, extra: &[&str]| {
        let own = [
            "export",
            "gguf",
            &golden("train_step"),
            &scratch.join(out),
            "--tensor",
            Q,
            "--tensor",
            V,
            "--model",
            &model,
        ];
        run(&[&own, extra].concat()).ok();
        std::fs::read(scratch.join(out)).unwrap()
    };
    let read = export("read", &[]);
    assert_eq!(read, export("told", &["--architecture", "llama", "--heads", "4", "--kv-heads", "2"]));
    assert_ne!(read, export("other", &["--heads", "2"]));
}

#[test]
fn a_gguf_names_what_it_cannot_hold() {
    let scratch = Scratch::new();
    let own =
        ["export", "gguf", &golden("bias_and_head"), &scratch.join("out"), "--architecture", "qwen2", "--inputs", "12"];
    run(&own).fails(3, &["'q_proj' has no tensor name", "--tensor MODULE=TENSOR"]);
    let named = [&own[..], &["--tensor", Q]].concat();
    run(&named).fails(3, &["learned a bias", "--leave-out"]);
    run(&[&named[..], &["--leave-out"]].concat()).ok();
    run(&[&own[..], &["--tensor", "q_proj"]].concat()).fails(2, &["is not two names with = between them"]);
}
