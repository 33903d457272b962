//! Whole calls have the same bits on every instruction set: contexts that leave CPU features aside are compared with one
//! that leaves none.

mod common;

use std::io::Write;

use common::cases::{Case, STORED, Stored, adapters};
use common::layers::{Spec, config, spec};
use common::setup::{POLICIES, Setup};
use common::step::BEFORE;
use pvera::backend::{Kl, Mode};
use pvera::context::{Context, Kind};
use pvera::linear::{Choice, ModeChoice, Noise, Request, Rows, sample};
use pvera::memory::{Allocator, Buffer};
use pvera::model::WeightLayout;
use pvera::simd::Features;
use pvera::tensor::{Device, Dtype, MatrixMut, Parts};

const NAMED: [(&str, Features); 4] = [
    ("avx2", Features::AVX2),
    ("avx512", Features::AVX512),
    ("avx512_bf16", Features::AVX512_BF16),
    ("neon", Features::NEON),
];

const MASKS: [Features; 5] = [Features(0), Features::AVX512_BF16, Features::AVX512, Features::AVX2, Features(u32::MAX)];

fn without(mask: Features) -> Context {
    Context::new(Kind::Cpu, 1, None, Allocator::default()).unwrap().without(mask)
}

/// What this machine lacks is said past the test's own capture; `PVERA_TEST_FEATURES=avx2,avx512,…` names what it must have.
#[test]
fn every_mask_takes_its_feature_away() {
    let found = Features::detected();
    assert_eq!(without(Features(0)).features(), found, "no mask, all features");
    assert_eq!(without(Features(u32::MAX)).features(), Features(0));
    for (name, feature) in NAMED {
        let masked = without(feature).features();
        if found.has(feature) {
            assert_ne!(masked, found, "{name} off made no difference");
        }
        assert!(found.has(masked) && masked.0 & feature.0 == 0, "{name} off leaves {masked:?} of {found:?}");
    }
    let absent: Vec<&str> = NAMED.iter().filter(|(_, feature)| !found.has(*feature)).map(|(name, _)| *name).collect();
    let report = format!("instruction sets: not on this machine, so not compared: {}\n", absent.join(", "));
    std::io::stderr().write_all(report.as_bytes()).unwrap();
    let Ok(demanded) = std::env::var("PVERA_TEST_FEATURES") else { return };
    for name in demanded.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        let known = NAMED.iter().any(|(known, _)| *known == name);
        assert!(known, "PVERA_TEST_FEATURES names {name}; wanted some of avx2, avx512, avx512_bf16 and neon");
        assert!(!absent.contains(&name), "PVERA_TEST_FEATURES names {name}, which this machine lacks");
    }
}

/// An output so large that its tiles are written past the caches, where it lies so that they can be and where not.
#[test]
fn large_outputs_have_the_bits_of_small_ones_wherever_they_lie() {
    const ROWS: usize = 700;
    const DRAWS: usize = 16;
    const COLS: usize = 768;
    let setup = Setup::new(3, &[spec("layer", 32, COLS)], &[config(8, 1)], ROWS);
    let linear = setup.linears()[0];
    let request = Request {
        rows: Rows { choice: Choice::Sum(&[(0, 0.5)]), ..Rows::default() },
        noise: Noise { mode: ModeChoice::All(Mode::Sample), seed: 4, ..Noise::default() },
        training: false,
    };
    let drawn = |context: &Context, draws: usize, stride: usize, at: usize| {
        let mut y = Buffer::<f32>::zeroed(&Allocator::default(), draws * ROWS * stride + 64).unwrap();
        y.fill(BEFORE);
        let parts =
            Parts { rows: draws * ROWS, cols: COLS, row_stride: stride, dtype: Dtype::F32, device: Device::Host };
        // SAFETY: the buffer holds these rows.
        let matrix = unsafe { MatrixMut::new("y", y[at..].as_mut_ptr().cast(), parts) }.unwrap();
        sample(context, linear, &setup.x.matrix(), &request, draws, &matrix).unwrap();
        let outside = y.iter().filter(|value| **value == BEFORE).count();
        assert_eq!(outside, y.len() - draws * ROWS * COLS, "nothing between the rows is written");
        let rows = (0..draws * ROWS).flat_map(|row| &y[at + row * stride..][..COLS]);
        rows.map(|value| value.to_bits()).collect::<Vec<u32>>()
    };
    // Two draws are below the size that goes past the caches.
    let small = drawn(&without(Features(u32::MAX)), 2, COLS, 0);
    let mut wanted = None;
    for (stride, at) in [(COLS, 0), (COLS + 16, 16), (COLS, 4), (COLS + 1, 0)] {
        for mask in MASKS {
            let found = drawn(&without(mask), DRAWS, stride, at);
            assert!(found[..small.len()] == small[..], "stride {stride}, {mask:?}");
            assert!(*wanted.get_or_insert_with(|| found.clone()) == found, "stride {stride}, {mask:?}");
        }
    }
}

/// Every output of every call, under one mask.
fn everything(setup: &Setup, context: &Context, request: &Request<'_>) -> Vec<(String, Vec<u64>)> {
    let inference = Request { training: false, ..*request };
    let calls = setup.calls(context, &inference, 5).into_iter();
    let widened = |bits: Vec<u32>| bits.into_iter().map(u64::from).collect();
    let mut outputs: Vec<(String, Vec<u64>)> = calls.map(|(name, host)| (name, widened(host.bits()))).collect();
    for policy in POLICIES {
        let outcome = setup.outcome(context, request, |step| {
            (step.policy, step.dtype, step.padding) = (policy, setup.x.dtype(), 1);
            (step.kl, step.overwrite) = (Kl { weight: 0.1, mean: true }, false);
        });
        outputs.push((format!("a step, {policy:?}"), outcome.bits()));
    }
    outputs
}

fn equal_on_every_set(what: &str, case: &Case, choice: Choice<'_>) {
    let setup = case.setup(3);
    let rows = Rows { choice, ..Rows::default() };
    let request = Request { rows, noise: Noise { seed: 8, ..Noise::default() }, training: true };
    for bf16_products in [false, true].into_iter().take(if case.dtype == Dtype::Bf16 { 2 } else { 1 }) {
        let under = |mask| {
            let context = without(mask);
            let context = if bf16_products { context.with_bf16_products() } else { context };
            everything(&setup, &context, &request)
        };
        let wanted = under(Features(0));
        for mask in &MASKS[1..] {
            for ((name, found), (_, wanted)) in under(*mask).iter().zip(&wanted) {
                let first = found.iter().zip(wanted).position(|(found, wanted)| found != wanted);
                assert_eq!(first, None, "{what}, bf16 products {bf16_products}, {mask:?} off: {name}");
            }
        }
    }
}

#[test]
fn layers_of_every_kind() {
    for (number, stored) in STORED.into_iter().enumerate() {
        for (dtype, weight) in [
            (Dtype::F32, Some(Dtype::F32)),
            (Dtype::F32, None),
            (Dtype::F16, Some(Dtype::F16)),
            (Dtype::Bf16, Some(Dtype::Bf16)),
        ] {
            for packed in [false, true].into_iter().take(if weight.is_some() { 2 } else { 1 }) {
                let layout = if number.is_multiple_of(2) { WeightLayout::OutIn } else { WeightLayout::InOut };
                let layer = Spec { weight, layout, padding: 1, ..spec("layer", 259, 71) };
                let rows = [1, 3, 14, 25][number];
                let case = Case { dtype, packed, ..Case::new(rows, &[layer], &adapters(stored)) };
                let what = format!("{stored:?}, {dtype:?}, {weight:?}, packed {packed}");
                equal_on_every_set(&what, &case, Choice::Sum(&[(0, 1.0), (1, 0.5), (2, -0.5)]));
            }
        }
    }
}

#[test]
fn groups_of_layers_and_an_adapter_a_row() {
    let layers = [
        spec("q", 61, 75),
        Spec { weight: Some(Dtype::Bf16), layout: WeightLayout::InOut, ..spec("k", 61, 33) },
        Spec { weight: None, ..spec("v", 61, 9) },
    ];
    const ROWS: i32 = 70;
    let slots: Vec<i32> = (0..ROWS).map(|row| row * 7 / 3 % 4 - 1).collect();
    for (dtype, stored) in [(Dtype::F32, Stored::Int8), (Dtype::Bf16, Stored::F16)] {
        for packed in [false, true] {
            for choice in [Choice::PerRow(&slots), Choice::Sum(&[(2, 1.0), (0, 0.5), (1, 2.0)])] {
                let case = Case::new(ROWS as usize, &layers, &adapters(stored));
                for offsets in [(0, 11), (5, 11)] {
                    let case = Case { dtype, packed, offsets, ..case.clone() };
                    equal_on_every_set(&format!("{dtype:?}, packed {packed}, {choice:?}, {offsets:?}"), &case, choice);
                }
            }
        }
    }
}
