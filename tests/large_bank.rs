//! A bank of 100,000 adapters opens, serves random rows and is closed within a budget of memory. Alone in its process,
//! whose memory it measures.

mod common;

use std::path::PathBuf;
use std::sync::Arc;

use common::host::Host;
use common::layers::{Spec, config, declared, spec};
use common::{Random, context};
use pvera::adapter::{Adapter, Kind as Family, LoadOptions, Parameters};
use pvera::bank::{Access, Bank, Options};
use pvera::context::Kind;
use pvera::linear::{Choice, Request, Rows, forward};
use pvera::memory::{Allocator, Buffer};
use pvera::model::{Model, Silent};
use pvera::tensor::Dtype;

const ADAPTERS: usize = 100_000;
const LAYERS: usize = 4;
const WIDTH: usize = 32;
const RANK: usize = 4;
const BATCHES: usize = 300;
const ROWS: usize = 64;
/// What cached adapters may take.
const CACHE: usize = 4 << 20;
/// What the whole process may grow by: the index, the cache, and what the allocator keeps of a batch.
const BUDGET: usize = 32 << 20;

struct File(PathBuf);

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn name(number: usize) -> String {
    format!("customer-{number:06}")
}

/// The number of the adapter, in all its vectors.
fn values(number: usize, count: usize) -> Vec<f32> {
    let mut random = Random(number as u64);
    (0..count).map(|_| (random.uniform() * 64.0).round() / 64.0).collect()
}

/// Bytes of memory that the process holds.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() << 10
}

fn model() -> Arc<Model> {
    let model = Model::new(Allocator::default(), Box::new(Silent));
    for layer in 0..LAYERS {
        let spec = Spec { weight: None, ..spec(&format!("layers.{layer}.q_proj"), WIDTH, WIDTH) };
        model.declare(declared(&spec)).unwrap();
    }
    Arc::new(model)
}

fn write(path: &std::path::Path) {
    let model = model();
    let first = Adapter::create(&model, &config(RANK, 1), None, &LoadOptions::default()).unwrap();
    let family = Family::of(&first.frozen(model.allocator()).unwrap());
    let bank = Bank::open(&model, path, &Options { access: Access::Create, ..Options::default() }).unwrap();
    for chunk in 0..ADAPTERS / 5000 {
        let own: Vec<(String, Adapter)> = (chunk * 5000..(chunk + 1) * 5000)
            .map(|number| {
                let values = values(number, family.parameter_count());
                let values = Buffer::copied(&Allocator::default(), &values).unwrap();
                (name(number), family.adapter(Parameters::from(values), Dtype::F16, None))
            })
            .collect();
        let list: Vec<(&str, &Adapter)> = own.iter().map(|(name, adapter)| (name.as_str(), adapter)).collect();
        bank.append(&list, Dtype::F16).unwrap();
    }
    let usage = bank.usage();
    assert_eq!(usage.adapters, ADAPTERS);
    let each = LAYERS * (WIDTH + 2 * RANK) * 2 + 40 + name(0).len();
    assert!(usage.file_bytes - usage.unused_bytes <= (ADAPTERS * each + 16384) as u64, "{usage:?}");
}

#[test]
fn a_hundred_thousand_adapters_are_served_within_a_budget() {
    let path = File(std::env::temp_dir().join(format!("pvera-large-bank-{}", std::process::id())));
    write(&path.0);
    let (model, context) = (model(), context(Kind::Cpu, 0));
    let mut random = Random(7);
    let x = Host::f32(ROWS, WIDTH, &random.values(ROWS * WIDTH));
    let before = resident();
    let bank = Bank::open(&model, &path.0, &Options { cache_bytes: Some(CACHE), ..Options::default() }).unwrap();
    assert_eq!(bank.len(), ADAPTERS);
    for batch in 0..BATCHES {
        let numbers: Vec<usize> = (0..ROWS).map(|_| random.below(ADAPTERS)).collect();
        let names: Vec<String> = numbers.iter().map(|number| name(*number)).collect();
        let wanted: Vec<Option<&str>> = names.iter().map(|name| Some(name.as_str())).collect();
        let (snapshot, slots) = bank.snapshot(&wanted).unwrap();
        for (slot, number) in slots.iter().zip(&numbers) {
            let adapter = &snapshot.slots().get(*slot).unwrap().adapter;
            assert!(adapter.parameters().all() == values(*number, adapter.parameters().len()), "batch {batch}");
        }
        let mut y = Host::zeros(ROWS, WIDTH);
        let rows = Rows { choice: Choice::PerRow(&slots), ..Rows::default() };
        let request = Request { rows, ..Request::default() };
        for layer in 0..LAYERS {
            forward(&context, &[snapshot.linear(layer).unwrap()], &x.matrix(), &request, &[y.matrix_mut()]).unwrap();
        }
        assert!(y.values().iter().any(|value| *value != 0.0));
    }
    let usage = bank.usage();
    assert!(usage.cached_bytes <= CACHE && usage.cached > 1000 && usage.misses > 10_000, "{usage:?}");
    let grown = resident().saturating_sub(before);
    assert!(grown <= BUDGET, "{grown} bytes; wanted at most {BUDGET}. {usage:?}");
    drop(bank);
    assert!(!model.layers().is_empty());
}
