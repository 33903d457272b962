//! A layer cut over several programs: shards of its inputs sum p, shards of its outputs are columns of y.

mod common;

use common::host::Host;
use common::layers::{config, declared, empty_model, spec};
use common::step::{Outcome, Step, run};
use common::tolerance::assert_close;
use common::{Random, bits, context, contexts};
use pvera::adapter::{Adapter, LoadOptions};
use pvera::backend::{Kl, Mode, Part};
use pvera::config::Config;
use pvera::context::{Context, Kind};
use pvera::error::Code;
use pvera::linear::{ModeChoice, Noise, Request, expand, forward, latent, moments, project, sample};
use pvera::model::{Snapshot, WeightLayout};

const IN: usize = 300;
const OUT: usize = 90;
const ROWS: usize = 7;
/// Cuts that meet no block of the kernels or of the noise.
const IN_CUTS: [usize; 4] = [0, 37, 261, IN];
const OUT_CUTS: [usize; 4] = [0, 13, 77, OUT];

/// This program's share of the layer, with the same adapter everywhere.
fn shard(inputs: (usize, usize), outputs: (usize, usize), with_weight: bool) -> Snapshot {
    let mut random = Random(1);
    let whole = random.values(OUT * IN);
    let model = empty_model();
    let mut layer = declared(&spec("layer", inputs.1 - inputs.0, outputs.1 - outputs.0));
    (layer.in_offset, layer.in_total, layer.out_offset, layer.out_total) = (inputs.0, IN, outputs.0, OUT);
    if with_weight {
        let rows = (outputs.0..outputs.1).flat_map(|output| &whole[output * IN + inputs.0..output * IN + inputs.1]);
        let weight = Host::f32(layer.out_features, layer.in_features, &rows.copied().collect::<Vec<f32>>());
        layer.weight = Some((weight.leaked(), WeightLayout::OutIn));
    }
    model.declare(layer).unwrap();
    let config = Config { pvera_dropout: 0.25, ..config(11, 3) };
    let mut adapter = Adapter::create(&model, &config, None, &LoadOptions::default()).unwrap();
    adapter.parameters_mut().unwrap().all_mut().iter_mut().for_each(|value| *value = random.uniform());
    model.publish("adapter", adapter.into()).unwrap();
    model.snapshot().unwrap()
}

fn batch() -> (Host, Host) {
    let mut random = Random(2);
    (Host::f32(ROWS, IN, &random.values(ROWS * IN)), Host::f32(ROWS, OUT, &random.values(ROWS * OUT)))
}

fn columns(host: &Host, from: usize, to: usize) -> Host {
    let values = host.values();
    let cut = (0..host.rows()).flat_map(|row| &values[row * host.cols() + from..row * host.cols() + to]);
    Host::f32(host.rows(), to - from, &cut.copied().collect::<Vec<f32>>())
}

fn request() -> Request<'static> {
    Request { noise: Noise { mode: ModeChoice::All(Mode::Sample), seed: 8, ..Noise::default() }, ..Request::default() }
}

fn train(context: &Context, snapshot: &Snapshot, x: &Host, dy: &Host) -> Outcome {
    let dy = [dy.clone()];
    let step = Step::new(vec![snapshot.linear(0).unwrap()], &[0], x, &dy, request());
    run(context, &Step { overwrite: false, kl: Kl { weight: 0.1, mean: true }, ..step }).unwrap()
}

#[test]
fn shards_of_the_outputs_are_columns_of_the_whole_bit_for_bit() {
    let (x, dy) = batch();
    let context = context(Kind::Cpu, 1);
    let whole = train(&context, &shard((0, IN), (0, OUT), true), &x, &dy);
    for cut in OUT_CUTS.windows(2) {
        let own = train(&context, &shard((0, IN), (cut[0], cut[1]), true), &x, &columns(&dy, cut[0], cut[1]));
        assert_eq!(own.y[0].bits(), columns(&whole.y[0], cut[0], cut[1]).bits(), "{cut:?}");
        let (lambda_b, all) = (&own.layers[0][0].lambda_b, &whole.layers[0][0].lambda_b);
        assert_eq!(bits(&lambda_b[cut[0]..cut[1]]), bits(&all[cut[0]..cut[1]]), "{cut:?}");
        let untouched = lambda_b[..cut[0]].iter().chain(&lambda_b[cut[1]..]);
        assert!(untouched.into_iter().all(|value| *value == common::step::BEFORE), "{cut:?}");
    }
}

#[test]
fn shards_of_the_inputs_sum_their_projections() {
    let (x, _) = batch();
    for (backend, context) in contexts() {
        // Training, so that the keyed mask of a column must not depend on the shard.
        let request = Request { training: true, ..request() };
        let p_of = |snapshot: &Snapshot, x: &Host| {
            let mut p = Host::zeros(ROWS, 22);
            let linear = snapshot.linear(0).unwrap();
            project(&context, linear, &x.matrix(), &request, &p.matrix_mut(), Part::WHOLE).unwrap();
            p.values()
        };
        let full = shard((0, IN), (0, OUT), false);
        let wanted = p_of(&full, &x);
        let mut sum = vec![0.0f64; wanted.len()];
        for cut in IN_CUTS.windows(2) {
            let own = p_of(&shard((cut[0], cut[1]), (0, OUT), false), &columns(&x, cut[0], cut[1]));
            sum.iter_mut().zip(own).for_each(|(sum, own)| *sum += f64::from(own));
        }
        assert_close(&format!("p, {backend}"), &sum, &wanted, 1e-6);
        let p = Host::f32(ROWS, 22, &sum.iter().map(|value| *value as f32).collect::<Vec<f32>>());
        let (mut y, mut whole) = (Host::zeros(ROWS, OUT), Host::zeros(ROWS, OUT));
        let linear = full.linear(0).unwrap();
        expand(&context, linear, &p.matrix(), &request, &y.matrix_mut(), Part::WHOLE).unwrap();
        forward(&context, &[linear], &x.matrix(), &request, &[whole.matrix_mut()]).unwrap();
        assert_close(&format!("y, {backend}"), &y.values(), &whole.values(), 2e-6);
    }
}

/// Means add up, forward and back; what needs the latents' variance is refused, as it would be that of a part of p.
#[test]
fn shards_of_the_inputs_have_means_alone() {
    let (x, dy) = batch();
    let mean = Request { noise: Noise { mode: ModeChoice::All(Mode::Mean), ..Noise::default() }, ..request() };
    let step = |context: &Context, snapshot: &Snapshot, x: &Host, alter: &dyn Fn(&mut Step<'_>)| {
        let dy = [dy.clone()];
        let mut step = Step::new(vec![snapshot.linear(0).unwrap()], &[0], x, &dy, mean);
        (step.divergence, step.variance, step.overwrite) = (false, false, true);
        alter(&mut step);
        run(context, &step)
    };
    for (backend, context) in contexts() {
        let whole = step(&context, &shard((0, IN), (0, OUT), true), &x, &|_| {}).unwrap();
        let mut sums = vec![vec![0.0f64; ROWS * OUT], vec![0.0; 22], vec![0.0; OUT]];
        for cut in IN_CUTS.windows(2) {
            let (snapshot, x) = (shard((cut[0], cut[1]), (0, OUT), true), columns(&x, cut[0], cut[1]));
            let own = step(&context, &snapshot, &x, &|_| {}).unwrap();
            let slot = &own.layers[0][0];
            for (sum, part) in sums.iter_mut().zip([&own.y[0].values(), &slot.lambda_d, &slot.lambda_b]) {
                sum.iter_mut().zip(part).for_each(|(sum, part)| *sum += f64::from(*part));
            }
            assert_close(
                &format!("dx, {backend}"),
                &own.dx.values(),
                &columns(&whole.dx, cut[0], cut[1]).values(),
                1e-6,
            );

            let linear = snapshot.linear(0).unwrap();
            let (mut y, mut other) = (Host::zeros(ROWS, OUT), Host::zeros(ROWS, OUT));
            let (mut mu, mut logvar) = (Host::zeros(ROWS, 11), Host::zeros(ROWS, 11));
            let (x_matrix, y, other) = (x.matrix(), y.matrix_mut(), other.matrix_mut());
            let drawn = request();
            let fixed = Request { noise: Noise { mode: ModeChoice::All(Mode::Fixed), ..Noise::default() }, ..drawn };
            let alias = pvera::tensor::MatrixMut::alias;
            let refused = [
                ("sample", forward(&context, &[linear], &x_matrix, &drawn, &[alias(&y)])),
                ("fixed", forward(&context, &[linear], &x_matrix, &fixed, &[alias(&y)])),
                ("sample", sample(&context, linear, &x_matrix, &drawn, 2, &Host::zeros(2 * ROWS, OUT).matrix_mut())),
                ("the variance", moments(&context, linear, &x_matrix, &drawn, &y, &other)),
                ("logvar", latent(&context, linear, &x_matrix, &drawn, &mu.matrix_mut(), &logvar.matrix_mut())),
                ("sample", step(&context, &snapshot, &x, &|step| step.request = request()).map(drop)),
                ("the divergence", step(&context, &snapshot, &x, &|step| step.divergence = true).map(drop)),
                ("the divergence", step(&context, &snapshot, &x, &|step| step.kl.weight = 0.1).map(drop)),
                ("the variance", step(&context, &snapshot, &x, &|step| step.variance = true).map(drop)),
            ];
            for (what, outcome) in refused {
                let error = outcome.unwrap_err();
                let text = format!("{error}");
                assert_eq!(error.code(), Code::Unsupported, "{text}");
                for words in [what, &format!("the inputs {} to {} of {IN}", cut[0], cut[1]), "pvera_project"] {
                    assert!(text.contains(words), "{words}: {text}");
                }
            }
        }
        let slot = &whole.layers[0][0];
        let wanted = [&whole.y[0].values(), &slot.lambda_d, &slot.lambda_b];
        for ((what, sum), wanted) in ["y", "λ_d", "λ_b"].iter().zip(&sums).zip(wanted) {
            assert_close(&format!("{what}, {backend}"), sum, wanted, 2e-6);
        }
    }
}

#[test]
fn no_rows_are_nothing_to_do() {
    let snapshot = shard((0, IN), (0, OUT), true);
    let (linear, x) = (snapshot.linear(0).unwrap(), Host::zeros(0, IN));
    for (_, context) in contexts() {
        let (mut y, mut other) = (Host::zeros(0, OUT), Host::zeros(0, OUT));
        let (mut mu, mut logvar, mut p) = (Host::zeros(0, 11), Host::zeros(0, 11), Host::zeros(0, 22));
        let (x, y, other) = (x.matrix(), y.matrix_mut(), other.matrix_mut());
        forward(&context, &[linear], &x, &request(), &[pvera::tensor::MatrixMut::alias(&y)]).unwrap();
        sample(&context, linear, &x, &request(), 5, &y).unwrap();
        moments(&context, linear, &x, &request(), &y, &other).unwrap();
        latent(&context, linear, &x, &request(), &mu.matrix_mut(), &logvar.matrix_mut()).unwrap();
        project(&context, linear, &x, &request(), &p.matrix_mut(), Part { index: 1, count: 3 }).unwrap();
        expand(&context, linear, &p.matrix(), &request(), &y, Part { index: 2, count: 3 }).unwrap();
    }
}
