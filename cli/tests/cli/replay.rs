//! `pvera replay`, held to the library's own calls bit for bit.

use std::path::Path;
use std::sync::Arc;

use pvera::adapter::{Adapter, LoadOptions};
use pvera::backend::{Mode, RowKeys};
use pvera::context::{Context, Kind};
use pvera::linear::{Choice, ModeChoice, Noise, Request, Rows, forward};
use pvera::memory::Allocator;
use pvera::model::{Layer, Model, Silent};
use pvera::tensor::{Matrix, MatrixMut};
use serde_json::{Value, json};

use crate::support::*;

const ROWS: usize = 3;
const INPUTS: usize = 40;

fn x() -> Vec<f32> {
    (0..ROWS * INPUTS).map(|place| (place as f32 * 0.37).sin()).collect()
}

fn rows(values: &[f32], cols: usize) -> String {
    let rows: Vec<&[f32]> = values.chunks(cols).collect();
    serde_json::to_string(&rows).unwrap()
}

/// What a host gets that publishes the adapter under a name and runs the layer on rows of these identities.
fn by_library(name: &str, identities: &[u64], sample: u32, noise: Noise<'_>) -> Vec<f32> {
    let model = Model::new(Allocator::default(), Box::new(Silent));
    model.declare(Layer::whole("v_proj", INPUTS, 24)).unwrap();
    model.declare(Layer::whole("q_proj", INPUTS, 56)).unwrap();
    let folder = golden("train_step");
    let adapter = Adapter::load(&model, Path::new(&folder), &LoadOptions::default()).unwrap();
    let slot = model.publish(name, Arc::new(adapter)).unwrap();
    let snapshot = model.snapshot().unwrap();
    let context = Context::new(Kind::Cpu, 1, None, Allocator::default()).unwrap();
    let (x, mut y) = (x(), vec![0.0; ROWS * 56]);
    let keys = RowKeys { identity: Some(identities), sample_base: sample, ..RowKeys::default() };
    let slots = [slot; ROWS];
    let request = Request { rows: Rows { choice: Choice::PerRow(&slots), keys }, noise, training: false };
    let linear = snapshot.linear(1).unwrap();
    let x = Matrix::from_f32(&x, ROWS, INPUTS);
    forward(&context, &[linear], &x, &request, &[MatrixMut::from_f32(&mut y, ROWS, 56)]).unwrap();
    y
}

fn sampled(seed: u64) -> Noise<'static> {
    Noise { mode: ModeChoice::All(Mode::Sample), seed, ..Noise::default() }
}

fn values(value: &Value) -> Vec<f32> {
    let rows = value["y"].as_array().unwrap().iter();
    rows.flat_map(|row| row.as_array().unwrap()).map(|number| number.to_string().parse().unwrap()).collect()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// A run on the rows, which are in a file.
#[track_caller]
fn replay(scratch: &Scratch, extra: &[&str]) -> (Value, i32) {
    let input = scratch.write("x.json", rows(&x(), INPUTS));
    json(&[&["replay", &golden("train_step"), "--layer", "q_proj", "--input", &input], extra].concat())
}

#[test]
fn the_bits_of_a_hosts_call() {
    let scratch = Scratch::new();
    let (value, code) =
        replay(&scratch, &["--name", "support", "--seed", "7", "--identity", "11,5,900", "--sample", "3"]);
    assert_eq!((code, &value["shape"]), (0, &json!([3, 56])), "{value}");
    assert_eq!(bits(&values(&value)), bits(&by_library("support", &[11, 5, 900], 3, sampled(7))));
    // As text: it has more bits than many readers of JSON keep of a number.
    assert_eq!(value["adapter_identity"], pvera::noise::adapter_identity("support").to_string());
    let (other, _) = replay(&scratch, &["--name", "other", "--seed", "7", "--identity", "11,5,900", "--sample", "3"]);
    assert_ne!(value["y"], other["y"]);
}

#[test]
fn what_is_not_said_is_the_librarys_default() {
    let scratch = Scratch::new();
    let (value, _) = replay(&scratch, &[]);
    assert_eq!(bits(&values(&value)), bits(&by_library("default", &[0, 1, 2], 0, sampled(0))));
    let (value, _) = replay(&scratch, &["--identity", "8"]);
    assert_eq!(bits(&values(&value)), bits(&by_library("default", &[8, 9, 10], 0, sampled(0))));
    let identity = pvera::noise::adapter_identity("support").to_string();
    let (value, _) = replay(&scratch, &["--adapter-identity", &identity]);
    assert_eq!(bits(&values(&value)), bits(&by_library("support", &[0, 1, 2], 0, sampled(0))));
}

#[test]
fn modes_and_antithetic_pairs() {
    let scratch = Scratch::new();
    for (name, mode) in [("mean", Mode::Mean), ("fixed", Mode::Fixed), ("as-peft", Mode::Mean)] {
        let (value, _) = replay(&scratch, &["--mode", name]);
        let noise = Noise { mode: ModeChoice::All(mode), ..Noise::default() };
        assert_eq!(bits(&values(&value)), bits(&by_library("default", &[0, 1, 2], 0, noise)), "{name}");
    }
    let (value, _) = replay(&scratch, &["--antithetic", "--sample", "1"]);
    let noise = Noise { antithetic: true, ..sampled(0) };
    assert_eq!(bits(&values(&value)), bits(&by_library("default", &[0, 1, 2], 1, noise)));
}

#[test]
fn draws_are_samples_one_after_the_other() {
    let scratch = Scratch::new();
    let (value, _) = replay(&scratch, &["--sample", "4", "--draws", "2"]);
    assert_eq!(value["shape"], json!([6, 56]));
    let all = [4, 5].map(|sample| by_library("default", &[0, 1, 2], sample, sampled(0))).concat();
    assert_eq!(bits(&values(&value)), bits(&all));
    let (_, code) = replay(&scratch, &["--sample", "4294967295", "--draws", "2"]);
    assert_eq!(code, 2);
}

#[test]
fn rows_in_every_format() {
    let scratch = Scratch::new();
    let wanted = replay(&scratch, &[]).0["y"].clone();
    let of = |input: &str, extra: &[&str]| {
        let arguments = ["replay", &golden("train_step"), "--layer", "q_proj", "--input", input];
        json(&[&arguments, extra].concat()).0
    };
    // numpy.save's version 1: a header of 118 bytes.
    let mut header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({ROWS}, {INPUTS}), }}");
    header.extend(std::iter::repeat_n(' ', 117 - header.len()));
    let npy = [b"\x93NUMPY\x01\x00\x76\x00", header.as_bytes(), b"\n", &f32s(&x())].concat();
    assert_eq!(of(&scratch.write("x.npy", &npy), &[])["y"], wanted);
    let wide = header.replace("<f4", "<f8");
    let eights: Vec<u8> = x().iter().map(|_| 1e300f64.to_le_bytes()).collect::<Vec<_>>().concat();
    let beyond = scratch.write("beyond.npy", [b"\x93NUMPY\x01\x00\x76\x00", wide.as_bytes(), b"\n", &eights].concat());
    assert!(of(&beyond, &[])["error"]["message"].as_str().unwrap().contains("beyond the range of f32"));
    let cut = scratch.write("cut.npy", &npy[..npy.len() - 1]);
    assert!(of(&cut, &[])["error"]["message"].as_str().unwrap().contains("cut short"));
    let place = npy.windows(5).position(|window| window == b"False").unwrap();
    let fortran = scratch.write("fortran.npy", [&npy[..place], b"True ", &npy[place + 5..]].concat());
    assert!(of(&fortran, &[])["error"]["message"].as_str().unwrap().contains("C order"));
    let mut tensors = Tensors::new();
    tensors.insert("rows".into(), (safetensors::Dtype::F32, vec![ROWS, INPUTS], f32s(&x())));
    let file = scratch.join("x.safetensors");
    write_tensors(&file, &tensors);
    assert_eq!(of(&file, &[])["y"], wanted);
    tensors.insert("other".into(), (safetensors::Dtype::F32, vec![1, INPUTS], f32s(&x()[..INPUTS])));
    write_tensors(&file, &tensors);
    assert!(of(&file, &[])["error"]["message"].as_str().unwrap().contains("say which with --tensor"));
    assert_eq!(of(&file, &["--tensor", "rows"])["y"], wanted);
    let object = scratch.write("x.object", format!("{{\"x\": {}}}", rows(&x(), INPUTS)));
    assert_eq!(of(&object, &[])["y"], wanted);
    let arguments = ["replay", &golden("train_step"), "--layer", "q_proj", "--input", "-", "--json"];
    let piped = run_with_input(&arguments, &rows(&x(), INPUTS)).ok();
    assert_eq!(serde_json::from_str::<Value>(&piped.out).unwrap()["y"], wanted);
}

#[test]
fn text_and_files_hold_every_bit() {
    let scratch = Scratch::new();
    let (value, _) = replay(&scratch, &["--out", &scratch.join("y.safetensors")]);
    assert!(value.get("y").is_none());
    let written = tensors_of(scratch.join("y.safetensors"));
    assert_eq!(written["y"].1, [3, 56]);
    let wanted = by_library("default", &[0, 1, 2], 0, sampled(0));
    assert_eq!(bits(&floats(&written["y"].2)), bits(&wanted));
    let text =
        run(&["replay", &golden("train_step"), "--layer", "q_proj", "--input", &scratch.join("x.json")]).ok().out;
    assert_eq!(text.lines().count(), 3);
    let read: Vec<f32> = text.split_whitespace().map(|number| number.parse().unwrap()).collect();
    assert_eq!(bits(&read), bits(&wanted));
    assert_eq!(replay(&scratch, &["--out", &scratch.join("y.safetensors")]).1, 3, "it is there");
    assert_eq!(replay(&scratch, &["--out", &scratch.join("y.safetensors"), "--force"]).1, 0);
    assert_eq!(scratch.names(), ["x.json", "y.safetensors"]);
}

#[test]
fn a_log_is_held_to_its_bits() {
    let scratch = Scratch::new();
    let mut logged = by_library("default", &[0, 1, 2], 0, sampled(9));
    let log = scratch.write("log.json", rows(&logged, 56));
    let (value, code) = replay(&scratch, &["--seed", "9", "--expect", &log]);
    assert_eq!((code, &value["same"]), (0, &json!(true)));
    logged[57] = f32::from_bits(logged[57].to_bits() ^ 1);
    let log = scratch.write("log.json", rows(&logged, 56));
    let (value, code) = replay(&scratch, &["--seed", "9", "--expect", &log]);
    assert_eq!((code, &value["same"]), (1, &json!(false)));
    assert!(value["difference"].as_str().unwrap().starts_with("row 1, column 1 is "), "{value}");
    let (value, code) = replay(&scratch, &["--draws", "2", "--expect", &log]);
    assert_eq!(code, 1, "{value}");
}

#[test]
fn the_base_is_added_to_or_computed() {
    let scratch = Scratch::new();
    let (folder, model) = (golden("seed_only"), golden("seed_only/base.safetensors"));
    let io = tensors_of(golden("seed_only/io.safetensors"));
    let tensor = |name: &str| {
        let mut one = Tensors::new();
        one.insert(name.into(), io[&format!("q_proj/{name}")].clone());
        let path = scratch.join(name);
        write_tensors(&path, &one);
        path
    };
    let (x, base) = (tensor("x"), tensor("base"));
    let wanted = floats(&io["q_proj/y_mean"].2);
    let own = ["replay", &folder, "--layer", "q_proj", "--input", &x, "--mode", "mean"];
    for extra in [&["--base", base.as_str(), "--inputs", "48"][..], &["--with-base", "--model", model.as_str()]] {
        let (value, code) = json(&[&own[..], extra].concat());
        assert_eq!(code, 0, "{value}");
        let y = values(&value);
        assert_eq!(y.len(), wanted.len());
        assert!(y.iter().zip(&wanted).all(|(ours, theirs)| (ours - theirs).abs() < 4e-6), "{extra:?}");
    }
    run(&[&own[..], &["--with-base"]].concat()).fails(2, &["--model"]);
    run(&[&own[..], &["--base", &scratch.write("short", "[1]"), "--inputs", "48"]].concat())
        .fails(3, &["--base has 1 rows of 1; wanted 7 of 48"]);
}

#[test]
fn a_learned_bias_needs_the_bases() {
    let scratch = Scratch::new();
    let (folder, model) = (golden("bias_and_head"), golden("bias_and_head/base.safetensors"));
    let io = tensors_of(golden("bias_and_head/io.safetensors"));
    let x = floats(&io["q_proj/x"].2);
    let input = scratch.write("x.json", rows(&x, 12));
    let own = ["replay", &folder, "--layer", "q_proj", "--input", &input, "--mode", "mean"];
    run(&own).fails(3, &["learned a bias", "--with-base"]);
    // The golden base holds the learned bias already, so that the difference is nothing.
    let (value, code) = json(&[&own[..], &["--with-base", "--model", &model]].concat());
    assert_eq!(code, 0, "{value}");
    let wanted = floats(&io["q_proj/y_mean"].2);
    assert!(values(&value).iter().zip(&wanted).all(|(ours, theirs)| (ours - theirs).abs() < 4e-6));
}

#[test]
fn an_adapter_of_a_bank() {
    let scratch = Scratch::new();
    let bank = scratch.join("bank");
    run(&["bank", "create", &bank, &format!("support={}", golden("train_step"))]).ok();
    let input = scratch.write("x.json", rows(&x(), INPUTS));
    let own = ["replay", &bank, "--layer", "q_proj", "--input", &input, "--seed", "7"];
    let (value, code) = json(&[&own[..], &["--name", "support"]].concat());
    assert_eq!(code, 0, "{value}");
    assert_eq!(bits(&values(&value)), bits(&by_library("support", &[0, 1, 2], 0, sampled(7))));
    run(&own).fails(2, &["wanted --name"]);
    run(&[&own[..], &["--name", "nobody"]].concat()).fails(3, &["no adapter of the name 'nobody'"]);
}

#[test]
fn what_cannot_be_replayed() {
    let scratch = Scratch::new();
    let input = scratch.write("x.json", rows(&x(), INPUTS));
    let own = |layer: &str, input: &str, extra: &[&str]| {
        run(&[&["replay", &golden("train_step"), "--layer", layer, "--input", input], extra].concat())
    };
    own("k_proj", &input, &[]).fails(3, &["no layer 'k_proj' is adapted", "adapted are q_proj, v_proj"]);
    own("q_proj", &scratch.join("none"), &[]).fails(3, &["could not read"]);
    own("q_proj", &input, &["--identity", "1,2"]).fails(2, &["--identity has 2 numbers; wanted one, or 3"]);
    own("q_proj", &scratch.write("ragged", "[[1, 2], [3]]"), &[]).fails(3, &["row 1 has 1 numbers; row 0 has 2"]);
    own("q_proj", &scratch.write("words", "[[\"a\"]]"), &[]).fails(3, &["is no number"]);
    own("q_proj", &scratch.write("text", "hello"), &[]).fails(3, &["JSON, .npy or safetensors"]);
    let wide = rows(&[0.5; 41], 41);
    own("q_proj", &scratch.write("wide", wide), &[]).fails(3, &["41"]);
    let base = golden("train_step/base.safetensors");
    run(&["replay", &base, "--layer", "q_proj", "--input", &input])
        .fails(3, &["is a model; wanted a checkpoint or a bank"]);
}

#[test]
fn a_tensor_of_several_is_named() {
    let scratch = Scratch::new();
    let (input, file) = (scratch.write("x.json", rows(&x(), INPUTS)), scratch.join("y.safetensors"));
    let base = vec![0.5; ROWS * 56];
    let of = |extra: &[&str]| {
        let known = ["replay", &*golden("train_step"), "--layer", "q_proj", "--input", &*input].map(str::to_owned);
        run(&known.iter().map(String::as_str).chain(extra.iter().copied()).collect::<Vec<_>>())
    };
    let y = by_library("default", &[0, 1, 2], 0, sampled(0));
    let tensors = [("y", y), ("base", base)]
        .map(|(name, values)| (name.to_owned(), (safetensors::Dtype::F32, vec![ROWS, 56], f32s(&values))));
    write_tensors(&file, &tensors.into());
    of(&["--expect", &file]).fails(3, &["it holds base, y; say which with --expect-tensor"]);
    of(&["--expect", &file, "--expect-tensor", "y"]).ok();
    assert_eq!(of(&["--expect", &file, "--expect-tensor", "base"]).code, 1);
    of(&["--base", &file]).fails(3, &["say which with --base-tensor"]);
    of(&["--base", &file, "--base-tensor", "base"]).ok();
    of(&["--expect-tensor", "y"]).fails(2, &["--expect"]);
}

#[test]
fn what_is_written_does_not_replace_what_is_read() {
    let scratch = Scratch::new();
    let input = scratch.write("x.json", rows(&x(), INPUTS));
    let (folder, bank) = (scratch.copy("train_step"), scratch.join("bank"));
    run(&["bank", "create", &bank, &folder]).ok();
    let expect = scratch.join("y.safetensors");
    let known = |adapter: &str| {
        ["replay", adapter, "--layer", "q_proj", "--name", "copy", "--input", &input].map(str::to_owned)
    };
    let out = |adapter: &str, extra: &[&str]| {
        let known = known(adapter);
        run(&known.iter().map(String::as_str).chain(extra.iter().copied()).collect::<Vec<_>>())
    };
    out(&folder, &["--out", &expect]).ok();
    for path in [&*input, &*expect, &format!("{folder}/{TENSORS}"), &*folder] {
        out(&folder, &["--expect", &expect, "--out", path, "--force"]).fails(3, &["another OUT is wanted"]);
    }
    out(&bank, &["--out", &bank, "--force"]).fails(3, &["another OUT is wanted"]);
}

#[test]
fn rows_that_do_not_fit_the_model_and_options_that_say_nothing() {
    let scratch = Scratch::new();
    let narrow = scratch.write("x.json", "[[1, 2, 3]]");
    let (folder, base, bank) = (golden("train_step"), golden("train_step/base.safetensors"), scratch.join("bank"));
    let replay = ["replay", &folder, "--layer", "q_proj", "--input", &narrow];
    run(&replay).ok();
    run(&[&replay[..], &["--model", &base]].concat())
        .fails(3, &["--input has rows of 3; wanted 40, the inputs of layer 'q_proj' in --model"]);
    run(&["bank", "create", &bank, &folder]).ok();
    let replay = ["replay", &bank, "--name", "train_step", "--layer", "q_proj", "--input", &narrow];
    run(&replay).ok();
    for (option, value) in [("--model", &*base), ("--inputs", "3"), ("--base-dtype", "f16")] {
        run(&[&replay[..], &[option, value]].concat()).fails(2, &[option, "not for a bank"]);
        run(&["verify", &bank, option, value]).fails(2, &[option, "not for a bank"]);
        run(&["verify", &base, option, value]).fails(2, &[option, "not for a model"]);
    }
    run(&["replay", &folder, "--layer", "q_proj", "--input", &narrow, "--in-max", "8"])
        .fails(2, &["--in-max", "for a bank"]);
    let large = scratch.write("large.json", "[[1, 1e39]]");
    run(&["replay", &folder, "--layer", "q_proj", "--input", &large]).fails(3, &["1e+39 is beyond the range of f32"]);
}
