//! Whatever a call is asked for: modes, keys, the caller's noise, mask and priors, learned biases, bounds, element types.

use std::sync::Arc;

use pvera::adapter::{Adapter, LoadOptions};
use pvera::backend::{Kl, Mode, RowKeys};
use pvera::config::{Bias, Config};
use pvera::context::{Context, Kind};
use pvera::linear::{Choice, ModeChoice, Noise, Request, Rows, forward, project_width};
use pvera::tensor::{Device, Dtype};

use super::bits::same;
use super::common::cases::{Case, Stored};
use super::common::host::Host;
use super::common::layers::{Spec, config, model, spec, trainable};
use super::common::place::{Numbers, with_models_on};
use super::common::setup::{POLICIES, Setup};
use super::common::{Random, context};
use super::{bench, no_complaints};

const ROWS: usize = 17;

/// What a request has beside its adapters.
#[derive(Clone, Copy, Debug, Default)]
struct Asked {
    mode: Option<Mode>,
    antithetic: bool,
    /// Identities and samples of the caller's.
    keys: bool,
    /// The caller's noise, dropout mask, and gradients of a prior.
    eps: bool,
    mask: bool,
    dmu: bool,
    dlogvar: bool,
}

const PLAIN: Asked =
    Asked { mode: None, antithetic: false, keys: false, eps: false, mask: false, dmu: false, dlogvar: false };

/// Each way of asking, alone and with what it meets in the kernels.
const ASKED: [Asked; 11] = [
    PLAIN,
    Asked { keys: true, ..PLAIN },
    Asked { mode: Some(Mode::Mean), dmu: true, dlogvar: true, ..PLAIN },
    Asked { mode: Some(Mode::Fixed), ..PLAIN },
    Asked { mode: Some(Mode::Fixed), mask: true, dlogvar: true, ..PLAIN },
    Asked { antithetic: true, ..PLAIN },
    Asked { antithetic: true, keys: true, dmu: true, ..PLAIN },
    Asked { eps: true, ..PLAIN },
    Asked { eps: true, antithetic: true, dmu: true, dlogvar: true, ..PLAIN },
    Asked { mask: true, ..PLAIN },
    Asked { eps: true, mask: true, ..PLAIN },
];

/// Everything that such a call gives, as bits.
fn outputs(setup: &Setup, context: &Context, choice: Choice<'_>, asked: Asked) -> Vec<(String, Vec<u32>)> {
    let (place, inputs) = (context.place(), setup.x.cols());
    let mut random = Random(77);
    let identities: Vec<u64> = (0..ROWS as u64).map(|row| row / 2 * 0x1_0000_0001).collect();
    let samples: Vec<u32> = (0..ROWS as u32).map(|row| row * 0x0fff_ffff).collect();
    let keys = if asked.keys {
        RowKeys { identity: Some(&identities), sample: Some(&samples), ..RowKeys::default() }
    } else {
        RowKeys { identity_base: u64::MAX - 3, sample_base: 5, ..RowKeys::default() }
    };
    let mut request = Request { rows: Rows { choice, keys }, training: true, ..Request::default() };
    let latents = setup.linears().iter().map(|linear| project_width(linear, ROWS, &request).unwrap().1).sum();
    let mut of_latents = |padding| Host::new(Dtype::F32, ROWS, latents, padding, &random.values(ROWS * latents));
    let (dmu, dlogvar) = (of_latents(1), of_latents(0));
    let eps = of_latents(3).like(setup.x.dtype(), 3).on(place);
    let kept: Vec<f32> = (0..ROWS * inputs).map(|at| if at % 3 == 0 { 0.0 } else { 1.5 }).collect();
    let mask = Host::new(setup.x.dtype(), ROWS, inputs, 1, &kept).on(place);
    request.noise = Noise {
        mode: asked.mode.map_or(ModeChoice::AsPeft, ModeChoice::All),
        seed: 3,
        antithetic: asked.antithetic,
        eps: asked.eps.then(|| eps.matrix()),
        dropout_mask: asked.mask.then(|| mask.matrix()),
        ..Noise::default()
    };
    let slots = if matches!(choice, Choice::First) { &setup.slots[..1] } else { &setup.slots[..] };
    let mut all = Vec::new();
    for (number, policy) in POLICIES.into_iter().enumerate() {
        let outcome = setup.outcome(context, &request, |step| {
            step.slots = slots;
            (step.policy, step.dtype, step.padding) = (policy, setup.x.dtype(), 1);
            (step.kl, step.overwrite) = (Kl { weight: 0.25, mean: number == 1 }, number == 2);
            (step.dmu, step.dlogvar) = (asked.dmu.then_some(&dmu), asked.dlogvar.then_some(&dlogvar));
        });
        all.extend(outcome.named_bits().into_iter().map(|(name, bits)| (format!("{policy:?}: {name}"), bits)));
    }
    // The caller's noise has the columns of the whole group, which calls on one layer have not.
    if !asked.eps {
        request.training = false;
        let calls = setup.calls(context, &request, 3);
        all.extend(calls.into_iter().map(|(name, host)| (name, host.bits())));
    }
    all
}

/// One network on both, with every choice of adapters.
fn agree(on_cuda: &Context, what: &str, make: impl Fn(Device) -> Setup, asked: Asked) {
    let slots: Vec<i32> = (0..ROWS as i32).map(|row| row * 5 / 3 % 3 - 1).collect();
    let (here, there) = (make(Device::Host), make(on_cuda.place()));
    for choice in [Choice::First, Choice::Sum(&[(1, 1.0), (0, -0.5)]), Choice::PerRow(&slots)] {
        let wanted = outputs(&here, &context(Kind::Cpu, 0), choice, asked);
        let found = outputs(&there, on_cuda, choice, asked);
        on_cuda.check().unwrap();
        same(&format!("{what}, {choice:?}, {asked:?}"), &found, &wanted);
    }
}

/// Two layers with one input, and two adapters of one rank on two pairs of projections; the first as `config` alters it.
fn group(dtype: Dtype, config_of_first: impl Fn(&mut Config)) -> impl Fn(Device) -> Setup {
    let layers = [spec("q", 60, 70), Spec { weight: None, bias: false, ..spec("v", 60, 69) }];
    let mut first = Config { pvera_dropout: 0.25, ..config(19, 1) };
    config_of_first(&mut first);
    let case = Case { dtype, ..Case::new(ROWS, &layers, &[(first, Stored::F32), (config(19, 2), Stored::Bf16)]) };
    move |place| with_models_on(place, || case.setup(5))
}

#[test]
#[ignore = "needs a libcuda"]
fn every_way_of_asking() {
    let (gpu, on_cuda) = bench();
    for asked in ASKED {
        agree(&on_cuda, "a group", group(Dtype::F32, |_| {}), asked);
    }
    no_complaints(&gpu);
}

/// x, dy, y, dx, noise and mask of 16 bits; rows of an odd number of elements, so that every other one begins between
/// words.
#[test]
#[ignore = "needs a libcuda"]
fn narrow_elements_at_odd_strides() {
    let (gpu, on_cuda) = bench();
    for dtype in [Dtype::F16, Dtype::Bf16] {
        let setup = group(dtype, |_| {})(Device::Host);
        assert!(setup.x.matrix().row_stride() % 2 == 1 && setup.dy[1].matrix().row_stride() % 2 == 1);
        for asked in [PLAIN, Asked { eps: true, mask: true, ..PLAIN }] {
            agree(&on_cuda, &format!("{dtype:?}"), group(dtype, |_| {}), asked);
        }
    }
    no_complaints(&gpu);
}

/// The caller's keys and slots travel once for all layers of a group and their shared projection.
#[test]
#[ignore = "needs a libcuda"]
fn lists_are_sent_once_a_step() {
    const MANY: usize = 600;
    let (gpu, on_cuda) = bench();
    let place = on_cuda.place();
    let identities: Vec<u64> = (0..MANY as u64).map(|row| row * 3).collect();
    let samples: Vec<u32> = (0..MANY as u32).rev().collect();
    let slots: Vec<i32> = (0..MANY as i32).map(|row| row % 3 - 1).collect();
    let mut on_device = Numbers::new(slots.clone(), place);
    let at = on_device.pointer().addr() as u64;
    let layers = ["q", "k", "v"].map(|name| spec(name, 4, 3));
    let case = Case::new(MANY, &layers, &[1, 1].map(|key| (config(2, key), Stored::F32)));
    let setup = with_models_on(place, || case.setup(1));
    let x = setup.x.on(place);
    let launches = |choice: Choice<'_>, keys: RowKeys<'_>| {
        let mut y = [(); 3].map(|()| Host::zeros(MANY, 3).on(place));
        let targets: Vec<_> = y.iter_mut().map(|y| y.matrix_mut()).collect();
        let request = Request { rows: Rows { choice, keys }, ..Request::default() };
        gpu.wait();
        let before = gpu.count(c"pvera_double_launches");
        forward(&on_cuda, &setup.linears(), &x.matrix(), &request, &targets).unwrap();
        gpu.wait();
        gpu.count(c"pvera_double_launches") - before
    };
    let keys = RowKeys { identity: Some(&identities), sample: Some(&samples), ..RowKeys::default() };
    // A launch takes 3840 bytes of lists: the terms alone, with 2400 bytes of slots, with 7200 of keys.
    let alone = launches(Choice::PerRowOnDevice(at), RowKeys::default());
    let with_slots = launches(Choice::PerRow(&slots), RowKeys::default());
    let with_keys = launches(Choice::PerRow(&slots), keys);
    if alone > 0 {
        // Slots on the device: their terms are found by one kernel for all layers.
        assert_eq!((with_slots + 1, with_keys), (alone, with_slots + 2));
    }
    drop((x, on_device));
    no_complaints(&gpu);
}

#[test]
#[ignore = "needs a libcuda"]
fn a_bounded_logvar() {
    let (gpu, on_cuda) = bench();
    let bounded = group(Dtype::F32, |config| config.logvar_bound = Some(0.01));
    let unbounded = group(Dtype::F32, |_| {});
    let on_cpu = |setup: &Setup| outputs(setup, &context(Kind::Cpu, 0), Choice::First, PLAIN);
    assert_ne!(on_cpu(&bounded(Device::Host)), on_cpu(&unbounded(Device::Host)), "the bound is active");
    for asked in [PLAIN, ASKED[2], ASKED[3], ASKED[8]] {
        agree(&on_cuda, "bounded", &bounded, asked);
    }
    no_complaints(&gpu);
}

/// Two adapters of one layer, the first with a bias: made where biases can be read, and loaded where they lie.
fn learning_a_bias(weight: Option<Dtype>, place: Device) -> Setup {
    let specs = [Spec { weight, ..spec("layer", 60, 300) }];
    let readable = model(&mut Random(9), &specs);
    let model = with_models_on(place, || model(&mut Random(9), &specs));
    let (mut random, options) = (Random(4), LoadOptions::default());
    for (slot, config) in [Config { bias: Bias::PveraOnly, ..config(19, 1) }, config(6, 2)].iter().enumerate() {
        let checkpoint = trainable(&readable, &mut random, config, &options).checkpoint().unwrap();
        let adapter = Adapter::from_memory(&model, &checkpoint.config, &checkpoint.tensors, &options).unwrap();
        model.publish(&format!("adapter {slot}"), Arc::new(adapter)).unwrap();
    }
    let x = Host::f32(ROWS, 60, &random.values(ROWS * 60));
    let dy = vec![Host::f32(ROWS, 300, &random.values(ROWS * 300))];
    Setup { snapshot: model.snapshot().unwrap(), x, dy, slots: vec![0, 1], random }
}

/// Instead of the layer's bias, where the base is computed; their difference, where y has it already.
#[test]
#[ignore = "needs a libcuda"]
fn a_learned_bias() {
    let (gpu, on_cuda) = bench();
    for weight in [Some(Dtype::F32), None] {
        let setup = learning_a_bias(weight, Device::Host);
        let learned = setup.linears()[0].slots().get(0).unwrap().adapter.vectors(0).unwrap().bias;
        assert_eq!(learned.map(|bias| bias.len()), Some(300));
        for asked in [PLAIN, ASKED[3]] {
            agree(&on_cuda, &format!("learned bias, {weight:?}"), |place| learning_a_bias(weight, place), asked);
        }
    }
    no_complaints(&gpu);
}
