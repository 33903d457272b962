//! The mean as a GGUF adapter, read by a parser of its own.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use pvera::adapter::Adapter;
use pvera::config::Config;
use pvera::error::Code;
use pvera::interchange::{Gguf, Options, Rope, export_gguf};
use pvera::tensor::Dtype;

use crate::disk::error;
use crate::lora::{Stopping, factors, trained};
use crate::support::*;

#[derive(Debug, PartialEq)]
enum Value {
    Text(String),
    U32(u32),
    F32(f32),
}

struct Tensor {
    dimensions: Vec<u64>,
    kind: u32,
    data: Vec<u8>,
}

/// A file, by the words of ggml's docs/gguf.md.
struct Parsed {
    values: BTreeMap<String, Value>,
    tensors: BTreeMap<String, Tensor>,
}

struct Cursor<'a>(&'a [u8]);

impl Cursor<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let (now, rest) = self.0.split_first_chunk().unwrap();
        self.0 = rest;
        *now
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take())
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.take())
    }

    fn text(&mut self) -> String {
        let length = self.u64() as usize;
        let (now, rest) = self.0.split_at(length);
        self.0 = rest;
        String::from_utf8(now.to_vec()).unwrap()
    }
}

fn parsed(path: &Path) -> Parsed {
    let file = fs::read(path).unwrap();
    let mut cursor = Cursor(&file);
    assert_eq!((&cursor.take::<4>(), cursor.u32()), (b"GGUF", 3));
    let (tensors, values) = (cursor.u64(), cursor.u64());
    let values = (0..values).map(|_| {
        let key = cursor.text();
        let value = match cursor.u32() {
            4 => Value::U32(cursor.u32()),
            6 => Value::F32(f32::from_bits(cursor.u32())),
            8 => Value::Text(cursor.text()),
            other => panic!("{key} is of type {other}"),
        };
        (key, value)
    });
    let values = values.collect();
    let heads: Vec<_> = (0..tensors)
        .map(|_| {
            let name = cursor.text();
            let count = cursor.u32();
            let dimensions: Vec<u64> = (0..count).map(|_| cursor.u64()).collect();
            (name, dimensions, cursor.u32(), cursor.u64())
        })
        .collect();
    let start = (file.len() - cursor.0.len()).next_multiple_of(32);
    let mut end = start;
    let tensors = heads.into_iter().map(|(name, dimensions, kind, offset)| {
        assert_eq!(start + offset as usize, end, "{name} follows the one before it, aligned");
        let size = dimensions.iter().product::<u64>() as usize * if kind == 0 { 4 } else { 2 };
        let data = file[end..end + size].to_vec();
        end = (end + size).next_multiple_of(32);
        (name, Tensor { dimensions, kind, data })
    });
    let tensors = tensors.collect();
    assert_eq!(end, file.len(), "nothing follows");
    Parsed { values, tensors }
}

/// q of 4 heads, k and v of 2, each of 6 rows.
fn attention() -> Adapter {
    let layers = vec![
        layer("model.layers.0.self_attn.q_proj", 10, 24),
        layer("model.layers.0.self_attn.k_proj", 10, 12),
        layer("model.layers.0.self_attn.v_proj", 10, 12),
        layer("model.layers.11.mlp.down_proj", 30, 10),
    ];
    trained(layers, targets)
}

fn targets(config: &mut Config) {
    config.set_json("target_modules", r#"["q_proj", "k_proj", "v_proj", "down_proj"]"#).unwrap();
}

fn gguf(architecture: &str) -> Gguf<'_> {
    Gguf { architecture, ..Gguf::default() }
}

const LLAMA: Gguf<'static> =
    Gguf { architecture: "llama", names: &[], heads: 4, kv_heads: 2, rope: Rope::ByArchitecture };

const NAMES: [&str; 4] =
    ["blk.0.attn_q.weight", "blk.0.attn_k.weight", "blk.0.attn_v.weight", "blk.11.ffn_down.weight"];

/// `LlamaModel.permute`, written with its three indices: reshape (heads, 2, half, …), swap the middle ones.
fn permuted<T: Copy>(rows: &[T], heads: usize, cols: usize) -> Vec<T> {
    let half = rows.len() / cols / heads / 2;
    let mut out = Vec::new();
    for head in 0..heads {
        for pair in 0..half {
            for side in 0..2 {
                let row = (head * 2 + side) * half + pair;
                out.extend_from_slice(&rows[row * cols..][..cols]);
            }
        }
    }
    out
}

fn stored(values: &[f64], dtype: Dtype) -> Vec<u8> {
    match dtype {
        Dtype::F32 => values.iter().flat_map(|value| (*value as f32).to_le_bytes()).collect(),
        Dtype::F16 => values.iter().flat_map(|value| half::f16::from_f64(*value).to_le_bytes()).collect(),
        Dtype::Bf16 => values.iter().flat_map(|value| half::bf16::from_f64(*value).to_le_bytes()).collect(),
    }
}

#[test]
fn the_file_is_what_llama_cpp_reads() {
    let scratch = Scratch::new("gguf");
    let adapter = attention();
    for (dtype, kind, file_type) in [(Dtype::F32, 0, 0), (Dtype::F16, 1, 1), (Dtype::Bf16, 30, 32)] {
        let path = scratch.join(dtype.name());
        export_gguf(&adapter, &path, &LLAMA, &Options { dtype: Some(dtype), ..Options::default() }).unwrap();
        let file = parsed(&path);
        let text = |text: &str| Value::Text(text.into());
        let wanted = [
            ("general.architecture", text("llama")),
            ("general.type", text("adapter")),
            ("adapter.type", text("lora")),
            ("adapter.lora.alpha", Value::F32(5.0)),
            ("general.file_type", Value::U32(file_type)),
            ("general.quantization_version", Value::U32(2)),
        ];
        assert_eq!(file.values, wanted.into_iter().map(|(key, value)| (key.to_owned(), value)).collect());
        assert_eq!(file.tensors.len(), 8);
        for (number, name) in NAMES.iter().enumerate() {
            let layer = adapter.layers().get(number).unwrap();
            let (a, mut b) = factors(&adapter, number);
            match number {
                0 => b = permuted(&b, 4, 5),
                1 => b = permuted(&b, 2, 5),
                _ => {}
            }
            let (of_a, of_b) = (&file.tensors[&format!("{name}.lora_a")], &file.tensors[&format!("{name}.lora_b")]);
            assert_eq!(of_a.dimensions, [layer.in_total as u64, 5]);
            assert_eq!(of_b.dimensions, [5, layer.out_total as u64]);
            assert_eq!((of_a.kind, of_b.kind), (kind, kind));
            assert_eq!(of_a.data, stored(&a, dtype), "{name}.lora_a");
            assert_eq!(of_b.data, stored(&b, dtype), "{name}.lora_b");
        }
    }
}

#[test]
fn architectures_that_keep_the_rows_need_no_heads() {
    let scratch = Scratch::new("keep");
    let adapter = attention();
    for architecture in ["qwen2", "qwen3", "gemma", "gemma2", "gemma3", "olmo2"] {
        let path = scratch.join(architecture);
        export_gguf(&adapter, &path, &gguf(architecture), &Options::default()).unwrap();
        let (_, b) = factors(&adapter, 0);
        assert_eq!(parsed(&path).tensors["blk.0.attn_q.weight.lora_b"].data, stored(&b, Dtype::F32));
    }
    for architecture in ["granite", "olmo", "llama"] {
        let (code, message) =
            error(export_gguf(&adapter, &scratch.join("x"), &gguf(architecture), &Options::default()));
        assert_eq!(code, Code::Argument);
        assert!(message.contains("heads is 0") && message.contains("num_attention_heads"), "{message}");
        let told = Gguf { architecture, ..LLAMA };
        export_gguf(&adapter, &scratch.join(architecture), &told, &Options::default()).unwrap();
        let (_, b) = factors(&adapter, 0);
        let found = &parsed(&scratch.join(architecture)).tensors["blk.0.attn_q.weight.lora_b"].data;
        assert_eq!(found, &stored(&permuted(&b, 4, 5), Dtype::F32));
    }
    assert!(!scratch.join("x").exists());
}

#[test]
fn heads_that_cannot_be_right_are_refused() {
    let scratch = Scratch::new("heads");
    let adapter = attention();
    for (heads, kv_heads, wanted) in [
        (5, 2, "even number for each of 5 heads"),
        (8, 2, "even number for each of 8 heads"), // 3 rows a head
        (4, 0, "kv_heads is 0"),
        (4, 3, "heads of 'model.layers.0.self_attn.q_proj' have 6 rows"),
        (2, 2, "heads of 'model.layers.0.self_attn.q_proj' have 12 rows"),
    ] {
        let told = Gguf { heads, kv_heads, ..LLAMA };
        let (_, message) = error(export_gguf(&adapter, &scratch.join("x"), &told, &Options::default()));
        assert!(message.contains(wanted), "{heads}, {kv_heads}: {message}");
        assert!(!scratch.join("x").exists());
    }
    let told = Gguf { rope: Rope::Keep, heads: 0, kv_heads: 0, ..LLAMA };
    export_gguf(&adapter, &scratch.join("x"), &told, &Options::default()).unwrap();
}

#[test]
fn names_that_nobody_knows_are_asked_for() {
    let scratch = Scratch::new("names");
    let adapter = trained(vec![layer("h.0.q_proj", 7, 6), layer("lm_head", 7, 9)], |config| {
        config.set_json("target_modules", r#"["q_proj", "lm_head"]"#).unwrap();
    });
    let refused = |told: &Gguf<'_>, wanted: &str| {
        let (_, message) = error(export_gguf(&adapter, &scratch.join("x"), told, &Options::default()));
        assert!(message.contains(wanted), "{message}");
        assert!(!scratch.join("x").exists());
    };
    refused(&gguf(""), "architecture is empty");
    refused(&gguf("qwen2"), "module 'h.0.q_proj' has no tensor name");
    refused(&gguf("other"), "the table of names knows llama, granite");
    let names = [("h.0.q_proj", "blk.0.attn_q.weight")];
    refused(&Gguf { names: &names, ..gguf("gemma") }, "module 'lm_head' has no tensor name");
    refused(&Gguf { names: &[("h.0.q_proj", "")], ..gguf("qwen2") }, "is empty");
    let both = [("h.0.q_proj", "output.weight")];
    refused(&Gguf { names: &both, ..gguf("qwen2") }, "are both 'output.weight'");
    let long = "b".repeat(57);
    refused(&Gguf { names: &[("h.0.q_proj", &long)], ..gguf("qwen2") }, "has 64 bytes; ggml takes 63");
    let all = [("h.0.q_proj", "blk.0.attn_q.weight"), ("lm_head", "output.weight")];
    refused(&Gguf { names: &all, ..gguf("other") }, "whether llama.cpp permutes the rows of 'blk.0.attn_q.weight'");
    let told = Gguf { names: &all, rope: Rope::Permute, heads: 3, ..gguf("other") };
    export_gguf(&adapter, &scratch.join("other"), &told, &Options::default()).unwrap();
    export_gguf(&adapter, &scratch.join("qwen2"), &Gguf { names: &names, ..gguf("qwen2") }, &Options::default())
        .unwrap();
    let keys: Vec<_> = parsed(&scratch.join("qwen2")).tensors.into_keys().collect();
    let wanted =
        ["blk.0.attn_q.weight.lora_a", "blk.0.attn_q.weight.lora_b", "output.weight.lora_a", "output.weight.lora_b"];
    assert_eq!(keys, wanted);
}

#[test]
fn biases_and_heads_are_refused_or_left_out_with_a_warning() {
    let scratch = Scratch::new("left-out");
    let folder = golden("bias_and_head");
    let adapter = Adapter::load(&model(layers_of(&folder)).0, &folder, &Default::default()).unwrap();
    let name = adapter.layers().get(0).unwrap().name.clone();
    let names = [(&*name, "blk.0.attn_v.weight")];
    let told = Gguf { names: &names, ..gguf("qwen2") };
    let (code, message) = error(export_gguf(&adapter, &scratch.join("x"), &told, &Options::default()));
    assert!(code == Code::Unsupported && message.contains("learned a bias"), "{message}");
    assert!(!scratch.join("x").exists());
    let heard = Stopping(Heard::default());
    let options = Options { leave_out: true, listener: &heard, ..Options::default() };
    export_gguf(&adapter, &scratch.join("x"), &told, &options).unwrap();
    let warnings = heard.0.warnings();
    assert_eq!(warnings.len(), 1 + adapter.tensors().len(), "{warnings:?}");
    assert_eq!(parsed(&scratch.join("x")).tensors.len(), 2);
}

#[test]
fn a_file_is_replaced_only_when_asked_and_at_once() {
    let scratch = Scratch::new("file");
    let adapter = attention();
    let path = scratch.join("a.gguf");
    fs::write(&path, "mine").unwrap();
    let (code, _) = error(export_gguf(&adapter, &path, &LLAMA, &Options::default()));
    assert_eq!((code, fs::read(&path).unwrap()), (Code::Exists, b"mine".to_vec()));
    let stops = Stopping(Heard { stops: true, ..Heard::default() });
    let stopped =
        export_gguf(&adapter, &path, &LLAMA, &Options { replace: true, listener: &stops, ..Options::default() });
    assert_eq!((error(stopped).0, fs::read(&path).unwrap()), (Code::Cancelled, b"mine".to_vec()));
    // What a killed export left is taken away by the next.
    fs::create_dir(scratch.join(".a.gguf.pvera-whole-0")).unwrap();
    fs::write(scratch.join(".a.gguf.pvera-whole-0/a.gguf"), "half").unwrap();
    export_gguf(&adapter, &path, &LLAMA, &Options { replace: true, ..Options::default() }).unwrap();
    assert_eq!(parsed(&path).tensors.len(), 8);
    assert_eq!(fs::read_dir(&scratch.0).unwrap().count(), 1);
    let folder = export_gguf(&adapter, &scratch.0, &LLAMA, &Options { replace: true, ..Options::default() });
    assert_eq!(error(folder).0, Code::Io);
}
