//! Every call on every kind of layer has the CPU's bits.

use pvera::backend::{Kl, Part};
use pvera::config::Config;
use pvera::context::{Context, Kind};
use pvera::linear::{Choice, Noise, Request, Rows, expand, forward, moments, project};
use pvera::model::WeightLayout;
use pvera::tensor::Dtype;

use super::common::cases::{Case, Stored, adapters};
use super::common::context;
use super::common::host::Host;
use super::common::layers::{Spec, config, spec};
use super::common::place::with_models_on;
use super::common::setup::{POLICIES, Setup};
use super::{bench, no_complaints};

/// Every output of every call.
fn everything(setup: &Setup, context: &Context, request: &Request<'_>, draws: usize) -> Vec<(String, Vec<u32>)> {
    let inference = Request { training: false, ..*request };
    let mut outputs: Vec<(String, Vec<u32>)> =
        setup.calls(context, &inference, draws).into_iter().map(|(name, host)| (name, host.bits())).collect();
    for policy in POLICIES {
        let outcome = setup.outcome(context, request, |step| {
            (step.policy, step.dtype, step.padding) = (policy, setup.x.dtype(), 1);
            (step.kl, step.overwrite) = (Kl { weight: 0.1, mean: true }, false);
        });
        outputs.extend(outcome.named_bits().into_iter().map(|(name, bits)| (format!("{policy:?}: {name}"), bits)));
    }
    outputs
}

fn equal(what: &str, case: &Case, choice: Choice<'_>) {
    let (gpu, on_cuda) = bench();
    let rows = Rows { choice, ..Rows::default() };
    let request = Request { rows, noise: Noise { seed: 8, ..Noise::default() }, training: true };
    let setups = (case.setup(3), with_models_on(on_cuda.place(), || case.setup(3)));
    let wanted = everything(&setups.0, &context(Kind::Cpu, 0), &request, 3);
    let found = everything(&setups.1, &on_cuda, &request, 3);
    on_cuda.check().unwrap();
    same(what, &found, &wanted);
    no_complaints(&gpu);
}

/// Outputs by name have the same bits.
pub fn same(what: &str, found: &[(String, Vec<u32>)], wanted: &[(String, Vec<u32>)]) {
    assert_eq!(found.len(), wanted.len(), "{what}");
    for ((name, found), (_, wanted)) in found.iter().zip(wanted) {
        assert_eq!(found.len(), wanted.len(), "{what}: {name}");
        let first = found.iter().zip(wanted).position(|(found, wanted)| found != wanted);
        let show = |at: usize| (f32::from_bits(found[at]), f32::from_bits(wanted[at]));
        assert_eq!(first, None, "{what}: {name}: {:?}", first.map(show));
    }
}

#[test]
#[ignore = "needs a libcuda"]
fn one_plain_layer() {
    let case = Case::new(3, &[spec("layer", 300, 70)], &[(config(7, 1), Stored::F32)]);
    equal("one plain layer", &case, Choice::First);
}

#[test]
#[ignore = "needs a libcuda"]
fn layers_of_every_kind() {
    let stored = [Stored::F32, Stored::Bf16, Stored::F16, Stored::F32];
    for (number, stored) in stored.into_iter().enumerate() {
        for (dtype, weight) in [
            (Dtype::F32, Some(Dtype::F32)),
            (Dtype::F32, None),
            (Dtype::F16, Some(Dtype::F16)),
            (Dtype::Bf16, Some(Dtype::Bf16)),
        ] {
            let layout = if number.is_multiple_of(2) { WeightLayout::OutIn } else { WeightLayout::InOut };
            let layer = Spec { weight, layout, padding: 1, ..spec("layer", 259, 71) };
            let rows = [1, 3, 14, 37][number];
            let case = Case { dtype, ..Case::new(rows, &[layer], &adapters(stored)) };
            let what = format!("{rows} rows, {stored:?}, {dtype:?}, {weight:?}");
            equal(&what, &case, Choice::Sum(&[(0, 1.0), (1, 0.5), (2, -0.5)]));
        }
    }
}

#[test]
#[ignore = "needs a libcuda"]
fn groups_of_layers_and_an_adapter_a_row() {
    let layers = [
        spec("q", 61, 75),
        Spec { weight: Some(Dtype::Bf16), layout: WeightLayout::InOut, ..spec("k", 61, 33) },
        Spec { weight: None, ..spec("v", 61, 9) },
    ];
    const ROWS: i32 = 70;
    let slots: Vec<i32> = (0..ROWS).map(|row| row * 7 / 3 % 4 - 1).collect();
    for (dtype, stored) in [(Dtype::F32, Stored::F32), (Dtype::Bf16, Stored::F16)] {
        for choice in [Choice::PerRow(&slots), Choice::Sum(&[(2, 1.0), (0, 0.5), (1, 2.0)])] {
            let case = Case::new(ROWS as usize, &layers, &adapters(stored));
            for offsets in [(0, 11), (5, 11)] {
                let case = Case { dtype, offsets, ..case.clone() };
                equal(&format!("{dtype:?}, {choice:?}, {offsets:?}"), &case, choice);
            }
        }
    }
}

#[test]
#[ignore = "needs a libcuda"]
fn sizes_around_the_tiles() {
    for rows in [31, 32, 33, 127, 129] {
        for (inputs, outputs, rank) in [(255, 63, 15), (256, 64, 16), (257, 65, 17), (513, 129, 33)] {
            let case = Case::new(rows, &[spec("layer", inputs, outputs)], &[(config(rank, 1), Stored::F32)]);
            equal(&format!("{rows} rows, {inputs} → {outputs}, rank {rank}"), &case, Choice::First);
        }
    }
}

/// More rows than the kernel for few takes and few tiles: the tiled kernel in parts of k, forward in the products with the
/// weight and A, back in those with B and the weight.
#[test]
#[ignore = "needs a libcuda"]
fn a_whole_step_in_tiles_and_parts() {
    let (gpu, on_cuda) = bench();
    let case = Case::new(260, &[spec("layer", 513, 258)], &[(config(3, 1), Stored::F32)]);
    let setups = (case.setup(3), with_models_on(on_cuda.place(), || case.setup(3)));
    let request = Request { training: true, ..Request::default() };
    let step = |setup: &Setup, context: &Context| setup.outcome(context, &request, |_| {}).named_bits();
    same("in parts", &step(&setups.1, &on_cuda), &step(&setups.0, &context(Kind::Cpu, 0)));
    on_cuda.check().unwrap();
    no_complaints(&gpu);
}

/// A group of layers whose rows have an adapter each, all of which drop: no projection is shared.
#[test]
#[ignore = "needs a libcuda"]
fn every_adapter_of_a_group_drops() {
    let dropping = |rank, key| Config { pvera_dropout: 0.25, ..config(rank, key) };
    let adapters = [(dropping(19, 1), Stored::F32), (dropping(19, 1), Stored::F32), (dropping(5, 2), Stored::Bf16)];
    let layers = [spec("q", 61, 75), Spec { weight: None, ..spec("v", 61, 9) }];
    let slots: Vec<i32> = (0..37).map(|row| row * 7 / 3 % 4 - 1).collect();
    equal("all drop", &Case::new(37, &layers, &adapters), Choice::PerRow(&slots));
}

/// Enough tiles that a product keeps its whole depth in one block. (Depths beyond one chain: the known answers at creation.)
#[test]
#[ignore = "needs a libcuda"]
fn many_rows_of_a_wide_layer() {
    let (gpu, on_cuda) = bench();
    let case = Case::new(640, &[spec("layer", 20, 2560)], &[(config(5, 1), Stored::F32)]);
    let setups = (case.setup(3), with_models_on(on_cuda.place(), || case.setup(3)));
    let y = |setup: &Setup, context: &Context| {
        let (x, mut y) = (setup.x.on(context.place()), Host::zeros(640, 2560).on(context.place()));
        forward(context, &setup.linears(), &x.matrix(), &Request::default(), &[y.matrix_mut()]).unwrap();
        y.back().bits()
    };
    assert!(y(&setups.1, &on_cuda) == y(&setups.0, &context(Kind::Cpu, 0)), "the bits differ");
    no_complaints(&gpu);
}

/// The two halves of a forward; one row, whose stride may be anything.
#[test]
#[ignore = "needs a libcuda"]
fn project_and_expand() {
    let (gpu, on_cuda) = bench();
    for rows in [1, 5, 300] {
        let case = Case::new(rows, &[Spec { weight: None, ..spec("layer", 300, 70) }], &[(config(7, 1), Stored::F32)]);
        let setups = (case.setup(3), with_models_on(on_cuda.place(), || case.setup(3)));
        let halves = |setup: &Setup, context: &Context| {
            let (place, linear, request) = (context.place(), setup.linears()[0], Request::default());
            let x = setup.x.on(place);
            let (mut p, mut y) = (Host::zeros(rows, 14).on(place), Host::zeros(rows, 70).on(place));
            project(context, linear, &x.matrix(), &request, &p.matrix_mut(), Part::WHOLE).unwrap();
            expand(context, linear, &p.matrix(), &request, &y.matrix_mut(), Part::WHOLE).unwrap();
            y.back().bits()
        };
        assert!(halves(&setups.1, &on_cuda) == halves(&setups.0, &context(Kind::Cpu, 0)), "{rows} rows");
    }
    no_complaints(&gpu);
}

/// No rows, and nothing else that was run on the context before.
#[test]
#[ignore = "needs a libcuda"]
fn nothing_is_something_too() {
    let (gpu, on_cuda) = bench();
    let place = on_cuda.place();
    let setup =
        with_models_on(place, || Case::new(0, &[spec("layer", 20, 10)], &[(config(4, 1), Stored::F32)]).setup(1));
    let (x, mut mean, mut variance) = (setup.x.on(place), Host::zeros(0, 10).on(place), Host::zeros(0, 10).on(place));
    let request = Request::default();
    moments(&on_cuda, setup.linears()[0], &x.matrix(), &request, &mean.matrix_mut(), &variance.matrix_mut()).unwrap();
    on_cuda.check().unwrap();
    drop((x, mean, variance));
    no_complaints(&gpu);
}
