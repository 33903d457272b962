//! Banks of more and more adapters: bytes of an adapter, opening, lookups; to be flat in the number of adapters.
//!
//! `cargo bench --bench bank`

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use pvera::adapter::{Adapter, Kind, LoadOptions, Parameters};
use pvera::bank::{Access, Bank, Options};
use pvera::config::{Config, Targets};
use pvera::memory::{Allocator, Buffer};
use pvera::model::{Layer, Model, Silent};
use pvera::tensor::Dtype;

/// q and v of a small model.
const LAYERS: usize = 24;
const WIDTH: usize = 256;
const RANK: usize = 32;
/// Adapters of one commit, and of one batch.
const COMMIT: usize = 1000;
const BATCH: usize = 64;

struct File(PathBuf);

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn model() -> Arc<Model> {
    let model = Model::new(Allocator::default(), Box::new(Silent));
    for layer in 0..LAYERS {
        let layer =
            Layer::whole(format!("model.layers.{}.self_attn.{}_proj", layer / 2, ["q", "v"][layer % 2]), WIDTH, WIDTH);
        model.declare(layer).expect("a layer of its own");
    }
    Arc::new(model)
}

fn name(number: usize) -> String {
    format!("tenant-{number:08}")
}

/// Microseconds of each of `count` calls, in the median.
fn median(count: usize, mut call: impl FnMut(usize)) -> f64 {
    let mut times: Vec<f64> = (0..count)
        .map(|number| {
            let start = Instant::now();
            call(number);
            start.elapsed().as_secs_f64() * 1e6
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[count / 2]
}

fn written(model: &Arc<Model>, path: &std::path::Path, adapters: usize) -> f64 {
    let config = Config { rank: RANK, target_modules: Targets::Pattern(".*".into()), ..Config::default() };
    let first = Adapter::create(model, &config, None, &LoadOptions::default()).expect("an adapter");
    let kind = Kind::of(&first.frozen(model.allocator()).expect("memory"));
    let options = Options { access: Access::Create, ..Options::default() };
    let bank = Bank::open(model, path, &options).expect("a new bank");
    let mut seconds = 0.0;
    for first in (0..adapters).step_by(COMMIT) {
        let own: Vec<(String, Adapter)> = (first..(first + COMMIT).min(adapters))
            .map(|number| {
                let mut values = Buffer::<f32>::zeroed(&Allocator::default(), kind.parameter_count()).expect("memory");
                values.iter_mut().enumerate().for_each(|(place, value)| *value = ((number + place) % 97) as f32 / 97.0);
                (name(number), kind.adapter(Parameters::from(values), Dtype::F16, None))
            })
            .collect();
        let list: Vec<(&str, &Adapter)> = own.iter().map(|(name, adapter)| (name.as_str(), adapter)).collect();
        let start = Instant::now();
        bank.append(&list, Dtype::F16).expect("room on the disk");
        seconds += start.elapsed().as_secs_f64();
    }
    seconds / adapters as f64 * 1e6
}

fn main() {
    println!(
        "{LAYERS} layers of {WIDTH}², r = {RANK}, vectors in f16: {} bytes an adapter; files warm in the page cache",
        LAYERS * (WIDTH + 2 * RANK) * 2
    );
    println!(
        "adapters  append µs  file bytes  index bytes  open ms   first read µs  found in memory µs  batch of 64 µs"
    );
    for adapters in [1_000, 10_000, 100_000] {
        let path = File(std::env::temp_dir().join(format!("pvera-bench-bank-{}", std::process::id())));
        let model = model();
        let append = written(&model, &path.0, adapters);
        let open = median(7, |_| drop(Bank::open(&model, &path.0, &Options::default()).expect("a bank"))) / 1e3;
        let bank = Bank::open(&model, &path.0, &Options::default()).expect("a bank");
        bank.adapter(&name(0)).expect("it is there");
        // Steps of a prime visit names all over the bank, each once.
        let names: Vec<String> = (1..1000).map(|number| name(number * 7919 % adapters)).collect();
        let first = median(names.len(), |number| drop(bank.adapter(&names[number]).expect("it is there")));
        let found = median(names.len(), |number| drop(bank.adapter(&names[number]).expect("it is there")));
        let batch = median(names.len() / BATCH, |number| {
            let rows: Vec<_> = names[number * BATCH..][..BATCH].iter().map(|name| Some(name.as_str())).collect();
            drop(bank.snapshot(&rows).expect("all are there"));
        });
        let usage = bank.usage();
        let each = |bytes: u64| bytes as f64 / adapters as f64;
        println!(
            "{adapters:8}  {append:9.2}  {:10.1}  {:11.1}  {open:7.2}  {first:14.2}  {found:18.3}  {batch:14.1}",
            each(usage.file_bytes - usage.unused_bytes),
            each(usage.index_bytes as u64),
        );
    }
}
