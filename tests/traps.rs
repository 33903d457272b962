//! Where PEFT goes wrong: each is a test by name. (The traps of files, 9 and 10, are with the tests of adapters.)

mod common;

use std::sync::Arc;

use common::host::Host;
use common::layers::{Spec, config, model, publish, spec, trainable};
use common::setup::Setup;
use common::step::Step;
use common::tolerance::assert_close;
use common::{Random, context, contexts};
use pvera::adapter::LoadOptions;
use pvera::backend::{Kl, Mode, Part};
use pvera::config::{Bias, Config, Sampling};
use pvera::context::{Context, Kind};
use pvera::error::{Code, Result};
use pvera::linear::{
    Choice, Linear, MergeRequest, ModeChoice, Noise, Request, Rows, expand, forward, merge, moments, project,
    project_width, sample,
};
use pvera::model::WeightLayout;
use pvera::tensor::Dtype;

fn request(choice: Choice<'_>, mode: ModeChoice) -> Request<'_> {
    Request {
        rows: Rows { choice, ..Rows::default() },
        noise: Noise { mode, seed: 4, ..Noise::default() },
        training: false,
    }
}

const MEAN: ModeChoice = ModeChoice::All(Mode::Mean);
const SAMPLE: ModeChoice = ModeChoice::All(Mode::Sample);

fn tried(context: &Context, linear: &Linear, x: &Host, request: &Request<'_>) -> Result<Vec<f32>> {
    let mut y = Host::zeros(x.rows(), linear.layer().out_features);
    forward(context, &[linear], &x.matrix(), request, &[y.matrix_mut()])?;
    Ok(y.values())
}

fn run(context: &Context, linear: &Linear, x: &Host, request: &Request<'_>) -> Vec<f32> {
    tried(context, linear, x, request).unwrap()
}

fn delta_only(inputs: usize, outputs: usize) -> Spec {
    Spec { weight: None, bias: false, ..spec("layer", inputs, outputs) }
}

#[test]
fn trap_1_adapters_of_mixed_rank_live_side_by_side() {
    let ranks = [8, 3, 17, 1];
    let configs: Vec<Config> = (1..).zip(ranks).map(|(key, rank)| config(rank, key)).collect();
    let setup = Setup::new(1, &[delta_only(12, 10)], &configs, 6);
    let linear = setup.linears()[0];
    for (backend, context) in contexts() {
        for mode in [MEAN, SAMPLE] {
            let alone = |slot: i32| run(&context, linear, &setup.x, &request(Choice::Sum(&[(slot, 1.0)]), mode));
            let alone: Vec<Vec<f32>> = (0..4).map(alone).collect();
            let total: Vec<f64> = (0..60).map(|at| alone.iter().map(|one| f64::from(one[at])).sum()).collect();
            let all: Vec<(i32, f32)> = (0..4).map(|slot| (slot, 1.0)).collect();
            let together = run(&context, linear, &setup.x, &request(Choice::Sum(&all), mode));
            assert_close(&format!("{backend}, {mode:?}"), &together, &total, 1e-6);
        }
    }
}

#[test]
fn trap_2_other_projections_overwrite_nothing() {
    let mut random = Random(2);
    let model = model(&mut random, &[delta_only(12, 10)]);
    let x = Host::f32(4, 12, &random.values(48));
    let context = context(Kind::Cpu, 0);
    let first_y = |model: &pvera::model::Model| {
        let snapshot = model.snapshot().unwrap();
        run(&context, snapshot.linear(0).unwrap(), &x, &request(Choice::Sum(&[(0, 1.0)]), MEAN))
    };
    let mut add = |key: u64| {
        let adapter = Arc::new(trainable(&model, &mut random, &config(5, key), &LoadOptions::default()));
        model.publish(&format!("{key} {}", random.next()), adapter.clone()).unwrap();
        adapter.store().clone()
    };
    let first = add(1);
    let alone = first_y(&model);
    let (other, same) = (add(2), add(1));
    assert!(Arc::ptr_eq(&first, &same) && !Arc::ptr_eq(&first, &other));
    assert_eq!(first_y(&model), alone);
}

#[test]
fn trap_3_every_row_has_its_own_adapter() {
    let setup = Setup::new(3, &[spec("layer", 12, 10)], &[config(8, 1), config(3, 2)], 1);
    let x = setup.x.rows_of(&[0, 0, 0, 0]);
    for (backend, context) in contexts() {
        let y = run(&context, setup.linears()[0], &x, &request(Choice::PerRow(&[1, -1, 0, 1]), MEAN));
        let rows: Vec<&[f32]> = y.chunks_exact(10).collect();
        assert_eq!(rows[0], rows[3], "{backend}");
        assert!(rows[0] != rows[1] && rows[0] != rows[2] && rows[1] != rows[2], "{backend}");
    }
}

/// What noise alone adds to y, for one layer.
fn noise_of(setup: &Setup, layer: usize, x: &Host, sample_base: u32, choice: Choice<'_>) -> Vec<f32> {
    let (context, linear) = (context(Kind::Cpu, 0), setup.linears()[layer]);
    let mut drawn = request(choice, SAMPLE);
    drawn.rows.keys.sample_base = sample_base;
    let (sampled, mean) = (run(&context, linear, x, &drawn), run(&context, linear, x, &request(choice, MEAN)));
    sampled.iter().zip(mean).map(|(sampled, mean)| sampled - mean).collect()
}

#[test]
fn trap_4_noise_is_keyed_by_layer_row_adapter_and_sample() {
    // Layers and adapters of equal vectors: only the noise can tell them apart.
    let specs = [delta_only(12, 10), Spec { name: "other".to_owned(), ..delta_only(12, 10) }];
    let mut random = Random(4);
    let model = model(&mut random, &specs);
    for name in ["first", "second"] {
        let mut adapter = trainable(&model, &mut random, &config(8, 1), &LoadOptions::default());
        adapter.parameters_mut().unwrap().all_mut().fill(0.5);
        model.publish(name, adapter.into()).unwrap();
    }
    let x = Host::f32(1, 12, &random.values(12)).rows_of(&[0; 40]);
    let setup =
        Setup { snapshot: model.snapshot().unwrap(), dy: vec![Host::zeros(40, 10); 2], x, slots: vec![0, 1], random };
    let first = Choice::Sum(&[(0, 1.0)]);
    let own = noise_of(&setup, 0, &setup.x, 0, first);
    let others = [
        ("another layer", noise_of(&setup, 1, &setup.x, 0, first)),
        ("another sample", noise_of(&setup, 0, &setup.x, 1, first)),
        ("another adapter", noise_of(&setup, 0, &setup.x, 0, Choice::Sum(&[(1, 1.0)]))),
        ("the next row", own[10..].iter().chain(&own[..10]).copied().collect()),
    ];
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    for (what, other) in others {
        let correlation = dot(&own, &other) / (dot(&own, &own) * dot(&other, &other)).sqrt();
        // 40 rows of at least 8 independent latents: a standard error of about 1/√320.
        assert!(correlation.abs() < 0.25, "{what}: {correlation}");
    }
    // A row's noise does not know its place in the batch: identity 7, first of one and eighth of 40.
    let mut seventh = request(first, SAMPLE);
    seventh.rows.keys.identity_base = 7;
    let alone = run(&context(Kind::Cpu, 0), setup.linears()[0], &setup.x.rows_of(&[7]), &seventh);
    let whole = run(&context(Kind::Cpu, 0), setup.linears()[0], &setup.x, &request(first, SAMPLE));
    assert_eq!(alone, whole[70..80]);
}

#[test]
fn trap_5_a_merge_under_sampling_is_refused_unless_asked_for() {
    let mut random = Random(5);
    let model = model(&mut random, &[spec("layer", 6, 5)]);
    let sampling = Config { sample_at_inference: Sampling::Everywhere(true), ..config(3, 1) };
    let snapshot = publish(&model, &mut random, &[sampling, config(3, 2)]);
    let linear = snapshot.linear(0).unwrap();
    let weight = Host::f32(5, 6, &random.values(30));
    for (_, context) in contexts() {
        let mut merged = weight.clone();
        let mut go = |choice, drop_sampling| {
            let request = MergeRequest { choice, layout: WeightLayout::OutIn, drop_sampling, wants_undo: false };
            merge(&context, linear, &request, &weight.matrix(), &merged.matrix_mut()).map(|_| merged.values())
        };
        for choice in [Choice::First, Choice::Sum(&[(1, 1.0), (0, 1.0)])] {
            let error = go(choice, false).unwrap_err();
            assert_eq!(error.code(), Code::State);
            assert!(error.message().contains("samples at inference"), "{error}");
        }
        assert_ne!(go(Choice::Sum(&[(1, 1.0)]), false).unwrap(), weight.values());
        assert_ne!(go(Choice::First, true).unwrap(), weight.values());
    }
}

#[test]
fn trap_6_unmerge_is_exact_to_the_bit() {
    for dtype in [Dtype::F32, Dtype::F16, Dtype::Bf16] {
        for layout in [WeightLayout::OutIn, WeightLayout::InOut] {
            let mut random = Random(6);
            let model = model(&mut random, &[Spec { layout, ..spec("layer", 70, 140) }]);
            let snapshot = publish(&model, &mut random, &[config(9, 1), config(4, 2)]);
            let linear = snapshot.linear(0).unwrap();
            let (rows, cols) = if layout == WeightLayout::OutIn { (140, 70) } else { (70, 140) };
            let original = Host::new(dtype, rows, cols, 3, &random.values(rows * cols));
            let request = MergeRequest {
                choice: Choice::Sum(&[(0, 1.0), (1, -0.5)]),
                layout,
                drop_sampling: false,
                wants_undo: true,
            };
            let mut kinds = Vec::new();
            for kind in [Kind::Cpu, Kind::Reference] {
                let context = context(kind, 0);
                let mut apart = Host::filled(dtype, rows, cols, 1, 0.0);
                merge(&context, linear, &request, &original.matrix(), &apart.matrix_mut()).unwrap();
                let mut weight = original.clone();
                let target = weight.matrix_mut();
                let undo = merge(&context, linear, &request, &target.as_const(), &target).unwrap().unwrap();
                assert_eq!(weight.bits(), apart.bits(), "in place or not");
                assert_ne!(weight.bits(), original.bits());
                kinds.push(weight.values());
                undo.unmerge(&weight.matrix_mut()).unwrap();
                assert_eq!(weight.bits(), original.bits(), "{dtype:?}, {layout:?}");
                assert!(weight.padding_is_intact());
                assert_eq!(undo.unmerge(&weight.matrix_mut()).unwrap_err().code(), Code::State, "undone already");
            }
            assert_close(&format!("{dtype:?}, {layout:?}"), &kinds[0], &kinds[1], common::tolerance::of(dtype));
        }
    }
}

#[test]
fn a_merge_that_is_not_finite_writes_nothing() {
    let mut random = Random(60);
    let model = model(&mut random, &[spec("layer", 4, 3)]);
    let snapshot = publish(&model, &mut random, &[Config { alpha: 1e6, ..config(2, 1) }]);
    let weight = Host::new(Dtype::F16, 3, 4, 0, &random.values(12));
    let request =
        MergeRequest { choice: Choice::First, layout: WeightLayout::OutIn, drop_sampling: false, wants_undo: true };
    for (_, context) in contexts() {
        let mut merged = weight.clone();
        let linear = snapshot.linear(0).unwrap();
        let error = merge(&context, linear, &request, &weight.matrix(), &merged.matrix_mut()).unwrap_err();
        assert_eq!((error.code(), merged.bits()), (Code::Overflow, weight.bits()));
    }
}

/// An adapter whose logvar is far beyond f32's exponent, with a bound or without.
fn exploding(bound: Option<f64>, logvar: f32) -> Setup {
    let mut random = Random(7);
    let model = model(&mut random, &[delta_only(3, 4)]);
    let config = Config { logvar_bound: bound, ..config(2, 1) };
    let mut adapter = trainable(&model, &mut random, &config, &LoadOptions::default());
    let a = adapter.store().a().weight();
    let x = [1.0, 0.5, -0.25];
    let p: Vec<f32> = (0..4).map(|k| (0..3).map(|input| a.at(k, input) * x[input]).sum()).collect();
    let span = adapter.ranges(0).unwrap().lambda_d.range();
    adapter.parameters_mut().unwrap().all_mut()[span].copy_from_slice(&[0.1, 0.1, 0.1, logvar / p[3]]);
    model.publish("exploding", adapter.into()).unwrap();
    let dy = vec![Host::f32(1, 4, &random.values(4))];
    Setup { snapshot: model.snapshot().unwrap(), x: Host::f32(1, 3, &x), dy, slots: vec![0], random }
}

#[test]
fn trap_7_an_overflow_is_an_error_or_bounded_never_silent() {
    let context = context(Kind::Cpu, 0);
    let exact = |setup: &Setup| {
        let (mut mean, mut variance) = (Host::zeros(1, 4), Host::zeros(1, 4));
        let linear = setup.linears()[0];
        let request = request(Choice::First, MEAN);
        moments(&context, linear, &setup.x.matrix(), &request, &mean.matrix_mut(), &variance.matrix_mut())
            .map(|()| [mean.values(), variance.values()].concat())
    };
    let train = |setup: &Setup, mode, kl| {
        let drawn = request(Choice::First, mode);
        let linears = setup.linears();
        common::step::run(
            &context,
            &Step { kl, divergence: kl.weight > 0.0, ..Step::new(linears, &[0], &setup.x, &setup.dy, drawn) },
        )
    };
    let kl = Kl { weight: 1.0, mean: true };
    // ½ logvar is beyond exp's range: nothing that samples can work.
    let far = exploding(None, 200.0);
    for mode in [SAMPLE, ModeChoice::All(Mode::Fixed)] {
        let error = tried(&context, far.linears()[0], &far.x, &request(Choice::First, mode)).unwrap_err();
        assert_eq!(error.code(), Code::Overflow);
        assert!(error.message().contains("row 0, latent 1") && error.message().contains("logvar_bound"), "{error}");
    }
    let mut draws = Host::zeros(3, 4);
    let drawn =
        sample(&context, far.linears()[0], &far.x.matrix(), &request(Choice::First, SAMPLE), 3, &draws.matrix_mut());
    assert_eq!(drawn.unwrap_err().code(), Code::Overflow);
    assert_eq!(exact(&far).unwrap_err().code(), Code::Overflow);
    assert!(
        tried(&context, far.linears()[0], &far.x, &request(Choice::First, MEAN)).is_ok(),
        "the mean needs no logvar"
    );
    // Its first-order variance does, even of a mean forward.
    assert_eq!(train(&far, MEAN, Kl::default()).err().map(|error| error.code()), Some(Code::Overflow));
    // logvar itself is beyond, half of it is not: draws work, the variance and the divergence cannot.
    let near = exploding(None, 120.0);
    assert!(tried(&context, near.linears()[0], &near.x, &request(Choice::First, SAMPLE)).is_ok());
    assert_eq!(exact(&near).unwrap_err().code(), Code::Overflow);
    assert_eq!(train(&near, SAMPLE, kl).err().map(|error| error.code()), Some(Code::Overflow));
    // Beyond what PEFT's f16 can hold, ours is only a number.
    let mild = exploding(None, 30.0);
    assert!(train(&mild, SAMPLE, kl).is_ok());
    // With a bound, everything works and is what the oracle says.
    for logvar in [30.0, 120.0, 200.0, 1e30] {
        let bounded = exploding(Some(4.0), logvar);
        for mode in [MEAN, SAMPLE, ModeChoice::All(Mode::Fixed)] {
            let outcome = bounded.agree(&format!("{logvar}"), &request(Choice::First, mode), |step| step.kl = kl);
            assert_eq!(outcome.layers[0][0].lambda_d[3], 0.0, "a bounded logvar has no gradient");
        }
        assert!(exact(&bounded).unwrap().iter().all(|value| value.is_finite()));
    }
}

#[test]
fn trap_8_mean_mode_does_half_the_work() {
    const SENTINEL: f32 = 12345.0;
    let setup = Setup::new(8, &[delta_only(12, 10)], &[config(8, 1), config(3, 2)], 6);
    let linear = setup.linears()[0];
    let projected = |choice, mode| {
        let request = request(choice, mode);
        let (width, _) = project_width(linear, 6, &request).unwrap();
        let mut p = Host::filled(Dtype::F32, 6, width, 0, SENTINEL);
        project(&context(Kind::Cpu, 1), linear, &setup.x.matrix(), &request, &p.matrix_mut(), Part::WHOLE).unwrap();
        (width, p.values())
    };
    let untouched = |(width, p): &(usize, Vec<f32>), row: usize| -> Vec<usize> {
        (0..*width).filter(|column| p[row * width + column] == SENTINEL).collect()
    };
    let second_halves: Vec<usize> = (8..16).chain(19..22).collect();
    let both = Choice::Sum(&[(0, 1.0), (1, 1.0)]);
    let (mean, sampled) = (projected(both, MEAN), projected(both, SAMPLE));
    let by_row = projected(Choice::PerRow(&[0, 1, -1, 0, 1, 0]), MEAN);
    for row in 0..6 {
        assert_eq!(untouched(&mean, row), second_halves);
        assert!(untouched(&sampled, row).is_empty());
    }
    assert_eq!(untouched(&by_row, 0), (8..16).collect::<Vec<_>>());
    assert_eq!(untouched(&by_row, 1), (3..16).collect::<Vec<_>>());
    assert_eq!(untouched(&by_row, 2), (0..16).collect::<Vec<_>>());
}

/// One adapter of a store uses its mean, another samples; they share p.
/// Scratch that is lent again holds what was there before.
fn leave_numbers_in_scratch(context: &Context) {
    let frame = context.enter();
    let mut lent = frame.lend(6, 64).unwrap();
    // SAFETY: one thread.
    (0..6).for_each(|row| unsafe { lent.matrix().store(row, 0, &[1e3; 64]) });
}

#[test]
fn adapters_of_one_store_sample_each_as_it_wants() {
    let sampling = |samples| Config { sample_at_inference: Sampling::Everywhere(samples), ..config(8, 1) };
    let setup = Setup::new(9, &[spec("q", 12, 10), spec("v", 12, 7)], &[sampling(false), sampling(true)], 6);
    let slots = [0, 1, 0, 1, 1, 0];
    let choices = [Choice::Sum(&[(0, 1.0), (1, 1.0)]), Choice::Sum(&[(1, 1.0), (0, 1.0)]), Choice::PerRow(&slots)];
    for choice in choices {
        let request = request(choice, ModeChoice::AsPeft);
        let [found, wanted] = [Kind::Cpu, Kind::Reference].map(|kind| {
            let (mut q, mut v) = (Host::zeros(6, 10), Host::zeros(6, 7));
            let context = context(kind, 1);
            leave_numbers_in_scratch(&context);
            forward(&context, &setup.linears(), &setup.x.matrix(), &request, &[q.matrix_mut(), v.matrix_mut()])
                .unwrap();
            [q.values(), v.values()].concat()
        });
        assert_close(&format!("{choice:?}"), &found, &wanted, 1e-6);
    }
}

#[test]
fn layers_of_one_adapter_sample_each_as_it_wants() {
    let only_v = Sampling::PerModule([("q".to_owned(), false), ("v".to_owned(), true)].into());
    let configs = [Config { sample_at_inference: only_v, ..config(8, 1) }];
    let setup = Setup::new(10, &[spec("q", 12, 10), spec("v", 12, 7)], &configs, 6);
    for choice in [Choice::First, Choice::PerRow(&[0, -1, 0, 0, -1, 0])] {
        let request = request(choice, ModeChoice::AsPeft);
        let [found, wanted] = [Kind::Cpu, Kind::Reference].map(|kind| {
            let (mut q, mut v) = (Host::zeros(6, 10), Host::zeros(6, 7));
            let context = context(kind, 1);
            leave_numbers_in_scratch(&context);
            forward(&context, &setup.linears(), &setup.x.matrix(), &request, &[q.matrix_mut(), v.matrix_mut()])
                .unwrap();
            [q.values(), v.values()].concat()
        });
        assert_close(&format!("{choice:?}"), &found, &wanted, 1e-6);
    }
}

#[test]
fn project_and_expand_are_forward_without_the_base() {
    for bias in [Bias::None, Bias::PveraOnly] {
        let configs = [Config { bias, ..config(5, 1) }, config(3, 2)];
        let setup = Setup::new(11, &[spec("layer", 12, 10)], &configs, 6);
        let linear = setup.linears()[0];
        for (backend, context) in contexts() {
            let base = run(&context, linear, &setup.x, &request(Choice::Sum(&[]), MEAN));
            for choice in [Choice::Sum(&[(0, 1.0), (1, 0.5)]), Choice::PerRow(&[0, 1, -1, 0, 1, 0])] {
                let request = request(choice, SAMPLE);
                let wanted = run(&context, linear, &setup.x, &request);
                let (mut p, mut y) =
                    (Host::zeros(6, project_width(linear, 6, &request).unwrap().0), Host::f32(6, 10, &base));
                for index in 0..2 {
                    let part = Part { index, count: 2 };
                    project(&context, linear, &setup.x.matrix(), &request, &p.matrix_mut(), part).unwrap();
                }
                for index in 0..2 {
                    let part = Part { index, count: 2 };
                    expand(&context, linear, &p.matrix(), &request, &y.matrix_mut(), part).unwrap();
                }
                assert_close(&format!("{backend}, {bias:?}, {choice:?}"), &y.values(), &wanted, 1e-6);
            }
        }
    }
}
