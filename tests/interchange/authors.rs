//! The authors' own layout: their forward, written here as their code has it, against the imported adapter's.

use std::fs;
use std::sync::Arc;

use pvera::adapter::{Adapter, LoadOptions};
use pvera::backend::Mode;
use pvera::context::{Context, Kind};
use pvera::error::Code;
use pvera::interchange::{Authors, Options, import_authors};
use pvera::linear::{Linear, ModeChoice, Noise, Request, Rows, forward};
use pvera::memory::Allocator;
use pvera::tensor::{Matrix, MatrixMut};
use serde_json::Value;

use crate::disk::{Tensors, error};
use crate::lora::{Stopping, assert_near};
use crate::support::*;

const INPUTS: usize = 6;
const RANK: usize = 4;
const NAMES: [&str; 4] = ["q_downsample", "v_downsample", "q_upsample", "v_upsample"];
const OPTIONS: Options<'static> = Options {
    mean: false,
    leave_out: false,
    replace: true,
    dtype: None,
    prefix: "backbone.",
    listener: &pvera::model::Silent,
};

/// What PyTorch drew; see tests/data/make_authors.py.
fn drawn(head: usize) -> [Vec<f32>; 4] {
    let text = include_str!("../data/authors_projections.json");
    let value: Value = serde_json::from_str(text).unwrap();
    assert_eq!((&value["inputs"], &value["rank"]), (&INPUTS.into(), &RANK.into()));
    NAMES.map(|name| {
        let list = value["heads"][head][name].as_array().unwrap();
        list.iter().map(|number| number.as_f64().unwrap() as f32).collect()
    })
}

/// The state of two blocks; of one copy, or of two trained side by side.
fn state(heads: usize) -> Tensors {
    let mut random = Random(17);
    let mut vector = |count: usize| {
        let values: Vec<f32> = (0..count).map(|_| random.below(1 << 16) as f32 / 32768.0 - 1.0).collect();
        f32_tensor(&values)
    };
    let mut tensors = Tensors::new();
    for block in [0, 1] {
        for head in 0..heads {
            let place = if heads == 1 { String::new() } else { format!(".{head}") };
            let path = format!("backbone.blocks.{block}.attn.qkv.heads{place}");
            for (name, count) in [("qd", 2 * RANK), ("vd", 2 * RANK), ("qb", INPUTS), ("vb", INPUTS)] {
                tensors.insert(format!("{path}.adapter_{name}"), vector(count));
            }
            tensors.insert(format!("{path}.linear_layer.bias"), vector(3 * INPUTS));
        }
    }
    tensors
}

fn with_projections(mut tensors: Tensors, head: usize) -> Tensors {
    let shapes = [[INPUTS, 2 * RANK], [INPUTS, 2 * RANK], [RANK, INPUTS], [RANK, INPUTS]];
    for ((name, values), shape) in NAMES.iter().zip(drawn(head)).zip(shapes) {
        tensors.insert((*name).into(), Raw { shape: shape.to_vec(), ..f32_tensor(&values) });
    }
    tensors
}

/// Their forward of one row and block without the linear layer; eps is that of q, then of v. None: the mean.
fn theirs(tensors: &Tensors, path: &str, projections: &[Vec<f32>; 4], x: &[f32], eps: Option<&[f32]>) -> Vec<f64> {
    let vector = |name: &str| tensors[&format!("{path}.adapter_{name}")].values();
    let part = |down: &[f32], up: &[f32], d: Vec<f32>, b: Vec<f32>, eps: Option<&[f32]>| -> Vec<f64> {
        let p: Vec<f64> = (0..2 * RANK)
            .map(|k| {
                f64::from(d[k]) * (0..INPUTS).map(|i| f64::from(x[i]) * f64::from(down[i * 2 * RANK + k])).sum::<f64>()
            })
            .collect();
        let z = |k: usize| p[k] + eps.map_or(0.0, |eps| f64::from(eps[k]) * (0.5 * p[RANK + k]).exp());
        let out = |o: usize| (0..RANK).map(|k| z(k) * f64::from(up[k * INPUTS + o])).sum::<f64>();
        (0..INPUTS).map(|o| 16.0 * out(o) * f64::from(b[o])).collect()
    };
    let [q_down, v_down, q_up, v_up] = projections;
    let q = part(q_down, q_up, vector("qd"), vector("qb"), eps.map(|eps| &eps[..RANK]));
    let v = part(v_down, v_up, vector("vd"), vector("vb"), eps.map(|eps| &eps[RANK..]));
    [q, vec![0.0; INPUTS], v].concat()
}

fn ours(adapter: &Arc<Adapter>, number: usize, x: &[f32], eps: Option<&[f32]>) -> Vec<f32> {
    let mut y = vec![0.0; 3 * INPUTS];
    let linear = Linear::single(adapter.clone(), number);
    let mode = if eps.is_some() { Mode::Sample } else { Mode::Mean };
    let eps = eps.map(|eps| Matrix::from_f32(eps, 1, 2 * RANK));
    let noise = Noise { mode: ModeChoice::All(mode), eps, ..Noise::default() };
    let request = Request { rows: Rows::default(), noise, training: false };
    let context = Context::new(Kind::Cpu, 0, None, Allocator::default()).unwrap();
    let target = MatrixMut::from_f32(&mut y, 1, 3 * INPUTS);
    forward(&context, &[&linear], &Matrix::from_f32(x, 1, INPUTS), &request, &[target]).unwrap();
    y
}

#[test]
fn the_imported_adapter_computes_what_theirs_does() {
    let scratch = Scratch::new("authors");
    for (heads, head, in_file) in
        [(1, 0, true), (1, 0, false), (2, 1, true), (2, 1, false), (2, 0, false), (1, 1, false)]
    {
        let tensors = state(heads);
        let given = if in_file { with_projections(tensors.clone(), head) } else { tensors.clone() };
        let (file, out) = (scratch.join("their.safetensors"), scratch.join("out"));
        fs::write(&file, file_of(&given)).unwrap();
        let heard = Stopping(Heard::default());
        let options = Options { listener: &heard, ..OPTIONS };
        import_authors(&file, &out, &Authors { head, seed: (!in_file).then_some(3), ..Authors::default() }, &options)
            .unwrap();
        let kept = Options { replace: false, ..OPTIONS };
        assert_eq!(error(import_authors(&file, &out, &Authors::default(), &kept)).0, Code::Exists);
        assert_eq!(heard.0.warnings(), [format!("{} tensors of the base or its head are left out", 2 * heads)]);
        let names = ["blocks.0.attn.qkv", "blocks.1.attn.qkv"];
        let (model, heard) = model(names.iter().map(|name| layer(name, INPUTS, 3 * INPUTS)).collect());
        let adapter = Arc::new(Adapter::load(&model, &out, &LoadOptions::default()).unwrap());
        assert_eq!((adapter.config().rank, heard.warnings()), (2 * RANK, vec![]));
        let x = [0.5, -1.0, 0.25, 0.75, -0.125, 1.0];
        let eps: Vec<f32> = (0..2 * RANK).map(|k| 0.3 * k as f32 - 1.0).collect();
        for (number, name) in names.iter().enumerate() {
            let place = if heads == 1 { String::new() } else { format!(".{head}") };
            let path = format!("backbone.{name}.heads{place}");
            for eps in [None, Some(&eps[..])] {
                let wanted = theirs(&tensors, &path, &drawn(head), &x, eps);
                let found = ours(&adapter, number, &x, eps);
                assert_near(&path, &wanted, &found, 1e-6);
                assert!(found[INPUTS..2 * INPUTS].iter().all(|value| *value == 0.0), "k is not adapted");
            }
        }
    }
}

#[test]
fn what_their_files_lack_or_bend_is_named() {
    let scratch = Scratch::new("authors-bad");
    let file = scratch.join("their.safetensors");
    let refused = |tensors: &Tensors, authors: Authors, prefix: &str, code: Code, wanted: &str| {
        fs::write(&file, file_of(tensors)).unwrap();
        let outcome = import_authors(&file, &scratch.join("out"), &authors, &Options { prefix, ..OPTIONS });
        let (found, message) = error(outcome);
        assert_eq!(found, code, "{message}");
        assert!(message.contains(wanted) && message.contains("their.safetensors"), "{message}");
        assert!(!scratch.join("out").exists());
    };
    let seeded = Authors { seed: Some(3), ..Authors::default() };
    let good = with_projections(state(1), 0);
    refused(&state(1), Authors::default(), "backbone.", Code::Projection, "no seed is given");
    refused(&good, seeded, "model.", Code::Argument, "does not begin with the prefix 'model.'");
    refused(&state(2), Authors { head: 2, ..seeded }, "backbone.", Code::Format, "heads.2.adapter_qd");
    let without =
        |name: &str| good.iter().filter(|(key, _)| *key != name).map(|(key, raw)| (key.clone(), raw.clone())).collect();
    refused(
        &without("v_upsample"),
        seeded,
        "backbone.",
        Code::Projection,
        "3 of 4 projections are there, but not 'v_upsample'",
    );
    let vb = "backbone.blocks.1.attn.qkv.heads.adapter_vb";
    refused(&without(vb), seeded, "backbone.", Code::Format, vb);
    let with = |name: &str, raw: Raw| {
        good.iter().map(|(key, own)| (key.clone(), if key == name { raw.clone() } else { own.clone() })).collect()
    };
    refused(&with(vb, f32_tensor(&[1.0; 7])), seeded, "backbone.", Code::Shape, "[8, 8, 6, 7]");
    refused(&with(vb, f32_tensor(&[f32::NAN; 6])), seeded, "backbone.", Code::Format, "NaN at 0");
    refused(&with("q_upsample", f32_tensor(&[1.0; 24])), seeded, "backbone.", Code::Projection, "wanted [4, 6]");
}
