//! Digests of whole calls, which every machine must share. Here portable code is compared with the best instruction set;
//! `PVERA_DIGESTS` names a file to write them to, and the preset `arm` compares the file of x86-64 with that of Arm.

mod common;

use std::fmt::Write;

use common::cases::{Case, STORED, Stored};
use common::host::Host;
use common::layers::{Spec, config, spec};
use common::setup::{POLICIES, Setup};
use common::sha256::sha256;
use pvera::backend::Kl;
use pvera::config::Config;
use pvera::context::{Context, Kind};
use pvera::linear::{Choice, MergeRequest, Noise, Request, Rows, merge};
use pvera::memory::Allocator;
use pvera::model::WeightLayout;
use pvera::noise::{NormalKey, torch_normals};
use pvera::simd::Features;
use pvera::tensor::Dtype;

/// Lines of a name and a digest.
#[derive(Default)]
struct Digests(String);

impl Digests {
    fn add(&mut self, name: &str, words: impl IntoIterator<Item = u64>) {
        let bytes: Vec<u8> = words.into_iter().flat_map(u64::to_le_bytes).collect();
        writeln!(self.0, "{}  {name}", sha256(&bytes)).unwrap();
    }

    fn add_floats(&mut self, name: &str, values: &[f32]) {
        self.add(name, values.iter().map(|value| value.to_bits().into()));
    }

    /// Every call without a tape, and steps under every policy.
    fn add_calls(&mut self, what: &str, setup: &Setup, choice: Choice<'_>, context: &Context) {
        let rows = Rows { choice, ..Rows::default() };
        let inference = Request { rows, noise: Noise { seed: 8, ..Noise::default() }, training: false };
        for (number, (name, host)) in setup.calls(context, &inference, 5).into_iter().enumerate() {
            self.add_floats(&format!("{what}: output {number}, {name}"), &host.values());
        }
        for policy in POLICIES {
            let step = setup.outcome(context, &Request { training: true, ..inference }, |step| {
                (step.policy, step.dtype, step.overwrite) = (policy, setup.x.dtype(), false);
                step.kl = Kl { weight: 0.1, mean: true };
            });
            self.add(&format!("{what}: a step, {policy:?}"), step.bits());
        }
    }

    /// The sum of all adapters folded into the first layer's weight, where it has one.
    fn add_merged(&mut self, what: &str, setup: &Setup, choice: Choice<'_>, context: &Context) {
        let linear = setup.linears()[0];
        let (outputs, inputs) = (linear.layer().out_features, linear.layer().in_features);
        let layout = WeightLayout::OutIn;
        let request = MergeRequest { choice, layout, drop_sampling: true, wants_undo: false };
        let weight = Host::f32(outputs, inputs, &common::Random(9).values(outputs * inputs));
        let mut merged = Host::zeros(outputs, inputs);
        merge(context, linear, &request, &weight.matrix(), &merged.matrix_mut()).unwrap();
        self.add_floats(&format!("{what}: merged"), &merged.values());
    }
}

const SUM: Choice<'static> = Choice::Sum(&[(0, 1.0), (1, 0.5), (2, -0.5)]);

fn adapters(stored: Stored) -> Vec<(Config, Stored)> {
    let config = |rank, key, dropout| Config { pvera_dropout: dropout, ..config(rank, key) };
    vec![(config(37, 1, 0.25), stored), (config(37, 1, 0.0), stored), (config(5, 2, 0.25), Stored::F32)]
}

fn digests(context: impl Fn() -> Context) -> String {
    let mut digests = Digests::default();
    let mut normals = vec![0.0; 1 << 16];
    NormalKey::new(1, 2, 3).fill(4, 5, false, &mut normals);
    digests.add_floats("keyed normals", &normals);
    torch_normals(7, &mut normals);
    digests.add_floats("PyTorch's normals", &normals);
    for stored in STORED {
        for (dtype, weight) in [(Dtype::F32, Dtype::F32), (Dtype::F16, Dtype::F16), (Dtype::Bf16, Dtype::Bf16)] {
            let layer = Spec { weight: Some(weight), padding: 1, ..spec("layer", 523, 101) };
            let packed = stored == Stored::Bf16;
            let setup = Case { dtype, packed, ..Case::new(29, &[layer], &adapters(stored)) }.setup(3);
            let what = format!("{stored:?}, {dtype:?}");
            digests.add_calls(&what, &setup, SUM, &context());
            if dtype == Dtype::Bf16 {
                digests.add_calls(&format!("{what}, bf16 products"), &setup, SUM, &context().with_bf16_products());
            } else {
                digests.add_merged(&what, &setup, SUM, &context());
            }
        }
    }
    let layers = [
        spec("q", 61, 75),
        Spec { weight: Some(Dtype::Bf16), layout: WeightLayout::InOut, ..spec("k", 61, 33) },
        Spec { weight: None, ..spec("v", 61, 9) },
    ];
    let slots: Vec<i32> = (0..300).map(|row| row * 7 / 3 % 4 - 1).collect();
    let configs: Vec<Config> = adapters(Stored::F32).into_iter().map(|(config, _)| config).collect();
    // Projections from their keys.
    let setup = Setup::new(4, &layers, &configs, slots.len());
    digests.add_calls("a group, an adapter a row", &setup, Choice::PerRow(&slots), &context());
    digests.0
}

fn without(mask: Features) -> Context {
    Context::new(Kind::Cpu, 1, None, Allocator::default()).unwrap().without(mask)
}

#[test]
fn portable_code_has_the_digests_of_the_best_set() {
    let found = digests(|| without(Features(0)));
    if let Some(file) = std::env::var_os("PVERA_DIGESTS") {
        std::fs::write(file, &found).unwrap();
    }
    let portable = digests(|| without(Features(u32::MAX)));
    for (found, portable) in found.lines().zip(portable.lines()) {
        assert_eq!(found, portable);
    }
    let mut names: Vec<&str> =
        found.lines().map(|line| line.split_once("  ").expect("a digest and a name").1).collect();
    names.sort_unstable();
    let lines = names.len();
    names.dedup();
    assert!(lines > 100 && names.len() == lines, "{lines} lines, {} names", names.len());
}
