//! What a call on a device refuses, and what it says.

use std::ffi::CString;
use std::ptr::NonNull;
use std::sync::Arc;

use pvera::adapter::LoadOptions;
use pvera::backend::Part;
use pvera::backend::cuda::Device;
use pvera::config::{Config, Method};
use pvera::context::{Context, Kind};
use pvera::error::Code;
use pvera::linear::{
    Choice, Linear, MergeRequest, Request, Rows, Tape, VarianceTarget, Wanted, backward, expand, forward, merge,
    project, record, sample,
};
use pvera::memory::Allocator;
use pvera::model::WeightLayout;
use pvera::tensor::{Dtype, MatrixMut, Parts};

use super::common::cases::{Case, Stored};
use super::common::host::Host;
use super::common::layers::{config, model, spec, trainable};
use super::common::place::{Numbers, set_memory, with_models_on};
use super::common::{Random, context};
use super::driver::Gpu;
use super::{bench, no_complaints};

fn case() -> Case {
    Case::new(3, &[spec("layer", 20, 10)], &[(config(4, 1), Stored::F32)])
}

fn refusal(context: &Context, linear: &Linear, x: &Host, y: &mut Host) -> String {
    forward(context, &[linear], &x.matrix(), &Request::default(), &[y.matrix_mut()]).unwrap_err().to_string()
}

#[test]
#[ignore = "needs a libcuda"]
fn host_and_device_are_not_mixed() {
    let (gpu, on_cuda) = bench();
    let place = on_cuda.place();
    let (host, there) = (case().setup(1), with_models_on(place, || case().setup(1)));
    let mut y = Host::zeros(3, 10);
    assert_eq!(
        refusal(&on_cuda, there.linears()[0], &there.x, &mut y),
        "x is on the CPU; this context computes on CUDA device 0"
    );
    let x = host.x.on(place);
    let on_device = |linear: &Linear, context: &Context, y: &mut Host| {
        forward(context, &[linear], &x.matrix(), &Request::default(), &[y.matrix_mut()]).unwrap_err().to_string()
    };
    assert_eq!(
        on_device(there.linears()[0], &on_cuda, &mut y),
        "y is on the CPU; this context computes on CUDA device 0"
    );
    assert_eq!(
        on_device(there.linears()[0], &context(Kind::Cpu, 0), &mut y),
        "x is on CUDA device 0; this context computes on the CPU"
    );
    let mut y_there = y.on(place);
    let error = forward(&on_cuda, &[host.linears()[0]], &x.matrix(), &Request::default(), &[y_there.matrix_mut()]);
    assert_eq!(
        error.unwrap_err().to_string(),
        "the base weight of layer 'layer' is on the CPU; this context computes on CUDA device 0"
    );
    assert_eq!(
        refusal(&context(Kind::Cpu, 0), there.linears()[0], &host.x, &mut y),
        "the base weight of layer 'layer' is on CUDA device 0; this context computes on the CPU"
    );
    no_complaints(&gpu);
}

/// Parameters that an optimiser writes have to be on the device; there they train to the CPU's bits.
#[test]
#[ignore = "needs a libcuda"]
fn trainable_parameters_live_on_the_device() {
    let (gpu, on_cuda) = bench();
    let place = on_cuda.place();
    let make = || {
        let mut random = Random(3);
        let model = model(&mut random, &[spec("layer", 20, 10)]);
        let adapter = trainable(&model, &mut random, &config(4, 1), &LoadOptions::default());
        (adapter, Host::f32(3, 20, &random.values(60)))
    };
    let ((host, x), (there, _)) = (make(), with_models_on(place, make));
    let (x_there, mut y) = (x.on(place), Host::zeros(3, 10).on(place));
    let run = |linear: &Linear, y: &mut super::common::place::Placed| {
        forward(&on_cuda, &[linear], &x_there.matrix(), &Request::default(), &[y.matrix_mut()])
    };
    let error = run(&Linear::single(Arc::new(there.trainable(&Allocator::default()).unwrap()), 0), &mut y).unwrap_err();
    assert_eq!(error.code(), Code::Device);
    assert!(error.message().contains("lambda_b of slot 0 of layer 'layer' is on the CPU"), "{error}");

    let count = host.parameters().len();
    let mut memory = Numbers::new(vec![0f32; count], place);
    // SAFETY: as many floats lie there, until the end of the test.
    let moved = unsafe { there.trainable_on(on_cuda.cuda().unwrap(), memory.pointer(), count) }.unwrap();
    assert_eq!(moved.checkpoint().unwrap(), host.checkpoint().unwrap(), "a save reads the parameters back");
    run(&Linear::single(Arc::new(moved), 0), &mut y).unwrap();
    let mut wanted = Host::zeros(3, 10);
    let linear = Linear::single(Arc::new(host), 0);
    forward(&context(Kind::Cpu, 0), &[&linear], &x.matrix(), &Request::default(), &[wanted.matrix_mut()]).unwrap();
    assert_eq!(y.back().bits(), wanted.bits());
    no_complaints(&gpu);
}

#[test]
#[ignore = "needs a libcuda"]
fn a_tape_belongs_to_its_device() {
    let (gpu, on_cuda) = bench();
    let place = on_cuda.place();
    let there = with_models_on(place, || case().setup(1));
    let (x, mut y) = (there.x.on(place), Host::zeros(3, 10).on(place));
    let mut tape = Tape::new(Default::default(), Allocator::default());
    // SAFETY: everything outlives the tape.
    unsafe { record(&on_cuda, &there.linears(), &x.matrix(), &Request::default(), &mut tape, &[y.matrix_mut()]) }
        .unwrap();
    let wanted = [Wanted::default()];
    // SAFETY: as above.
    let error = unsafe { backward(&context(Kind::Cpu, 0), &tape, &[there.dy[0].matrix()], &wanted, None, true) };
    assert_eq!(
        error.unwrap_err().to_string(),
        "the tape was recorded on CUDA device 0; this context computes on the CPU"
    );
    drop((tape, y));
    no_complaints(&gpu);
}

/// Merges, parts of a call and first-order variance: refused before anything is written.
#[test]
#[ignore = "needs a libcuda"]
fn what_the_cpu_alone_does() {
    let (gpu, on_cuda) = bench();
    let place = on_cuda.place();
    let there = with_models_on(place, || case().setup(1));
    let linear = there.linears()[0];
    let says = |outcome: pvera::error::Result<()>, words: &str| {
        let error = outcome.unwrap_err();
        assert_eq!((error.code(), error.message()), (Code::Unsupported, words));
    };
    let request =
        MergeRequest { choice: Choice::First, layout: WeightLayout::OutIn, drop_sampling: true, wants_undo: false };
    let (weight, mut merged) = (Host::zeros(10, 20).on(place), Host::zeros(10, 20).on(place));
    says(
        merge(&on_cuda, linear, &request, &weight.matrix(), &merged.matrix_mut()).map(|_| ()),
        "the context computes on CUDA device 0; a merge runs on the CPU: wanted a context of PVERA_BACKEND_CPU, and the weight there",
    );
    let (x, request) = (there.x.on(place), Request::default());
    let (mut p, mut y) =
        (Host::filled(Dtype::F32, 3, 8, 0, 7.0).on(place), Host::filled(Dtype::F32, 3, 10, 0, 7.0).on(place));
    let half = Part { index: 1, count: 2 };
    let words = "count is 2; a call on a CUDA stream has one part, the whole: wanted 1";
    says(project(&on_cuda, linear, &x.matrix(), &request, &p.matrix_mut(), half), words);
    let words = format!("layer 'layer': {words}");
    says(expand(&on_cuda, linear, &p.matrix(), &request, &y.matrix_mut(), half), &words);
    assert!(p.back().values().iter().chain(&y.back().values()).all(|value| *value == 7.0));

    let mut tape = Tape::new(Default::default(), Allocator::default());
    let mut y = Host::zeros(3, 10).on(place);
    // SAFETY: everything outlives the tape.
    unsafe { record(&on_cuda, &there.linears(), &x.matrix(), &request, &mut tape, &[y.matrix_mut()]) }.unwrap();
    let mut values = [7.0f64; 3];
    let variance = VarianceTarget { values: NonNull::new(values.as_mut_ptr()).unwrap(), count: 3, index: None };
    let wanted = [Wanted { variance: Some(variance), ..Wanted::default() }];
    let dy = there.dy[0].on(place);
    // SAFETY: as above.
    let outcome = unsafe { backward(&on_cuda, &tape, &[dy.matrix()], &wanted, None, true) };
    says(outcome, "gradients.variance is given; first-order variance is computed on the CPU only");
    assert_eq!(values, [7.0; 3]);
    drop((tape, merged));
    no_complaints(&gpu);
}

/// A grid has so many blocks of rows, also where no adapter's products are asked for.
#[test]
#[ignore = "needs a libcuda"]
fn more_draws_than_a_grid_has() {
    let (gpu, on_cuda) = bench();
    let place = on_cuda.place();
    let there = with_models_on(place, || case().setup(1));
    let (x, draws) = (there.x.on(place), 1_600_000_000);
    let launches = gpu.count(c"pvera_double_launches");
    // Refused before anybody looks for the memory of y.
    let far = std::ptr::without_provenance_mut(1 << 60);
    let parts = Parts { rows: 3 * draws, cols: 10, row_stride: 10, dtype: Dtype::F32, device: place };
    // SAFETY: as above.
    let y = unsafe { MatrixMut::new("y", far, parts) }.unwrap();
    for choice in [Choice::Sum(&[]), Choice::First] {
        let request = Request { rows: Rows { choice, ..Rows::default() }, ..Request::default() };
        let error = sample(&on_cuda, there.linears()[0], &x.matrix(), &request, draws, &y).unwrap_err();
        assert_eq!(error.code(), Code::Unsupported);
        assert_eq!(
            error.message(),
            "layer 'layer': 4800000000 rows times draws in one call; CUDA kernels take at most 4194240"
        );
    }
    gpu.wait();
    assert_eq!(gpu.count(c"pvera_double_launches"), launches);
    drop(x);
    no_complaints(&gpu);
}

/// Everything that was taken of the device is given back.
#[test]
#[ignore = "needs a libcuda"]
fn nothing_is_left_behind() {
    let gpu = Gpu::new();
    let held = || (gpu.count(c"pvera_double_live_bytes"), gpu.count(c"pvera_double_live_objects"));
    let before = held();
    for _ in 0..3 {
        let (own, on_cuda) = bench();
        let mut setup = with_models_on(on_cuda.place(), || Case { rows: 40, ..case() }.setup(1));
        setup.calls(&on_cuda, &Request::default(), 2);
        setup.outcome(&on_cuda, &Request::default(), |_| {});
        setup.slots.clear();
        no_complaints(&own);
        drop((setup, on_cuda));
        set_memory(gpu.clone());
    }
    gpu.wait();
    assert_eq!(held(), before, "bytes and objects");
    no_complaints(&gpu);
}

/// Its λ_d is as long as the mean half, and the kernels read both.
#[test]
#[ignore = "needs a libcuda"]
fn vera_runs_on_the_cpu_only() {
    let (gpu, on_cuda) = bench();
    let make = || {
        let mut random = Random(3);
        let model = model(&mut random, &[spec("layer", 20, 10)]);
        let config = Config { method: Method::Vera, ..config(4, 1) };
        let adapter = trainable(&model, &mut random, &config, &LoadOptions::default());
        Linear::single(Arc::new(adapter.frozen(&Allocator::default()).unwrap()), 0)
    };
    let linear = with_models_on(on_cuda.place(), make);
    let (x, mut y) = (Host::zeros(3, 20).on(on_cuda.place()), Host::zeros(3, 10).on(on_cuda.place()));
    let error = forward(&on_cuda, &[&linear], &x.matrix(), &Request::default(), &[y.matrix_mut()]).unwrap_err();
    assert_eq!(error.code(), Code::Unsupported);
    let words = "the adapter of slot 0 of layer 'layer' is VeRA's, which runs on the CPU only, so far; this context computes on CUDA device 0";
    assert_eq!(error.message(), words);
    let error = pvera::linear::scratch_bytes(&on_cuda, &[&linear], 3, &Request::default(), 1, false).unwrap_err();
    assert_eq!((error.code(), error.message()), (Code::Unsupported, words));
    no_complaints(&gpu);
}

/// Whether the double changes instructions.
#[track_caller]
fn mutates() -> bool {
    let gpu = Gpu::new();
    gpu.set_or_skip(c"PVERA_DOUBLE_MUTANT=", 0)
}

/// Whether no context is made with an instruction of a kernel changed.
fn is_told(kernel: &str, mutant: u64, says: &str) -> bool {
    let gpu = Gpu::new();
    let name = CString::new(format!("PVERA_DOUBLE_MUTANT={kernel}")).unwrap();
    assert!(gpu.set(&name, mutant));
    // SAFETY: the stream outlives the device.
    let made = gpu.inside(|| unsafe { Device::new(None, gpu.stream) });
    gpu.set(c"PVERA_DOUBLE_MUTANT=", 0);
    gpu.forget_complaints();
    made.is_err_and(|error| error.code() == Code::Cuda && error.message().contains(says))
}

/// With an instruction of a kernel changed that the known answers go through, no context is made; in each kernel some
/// change lets it run to its end with other numbers.
#[test]
#[ignore = "needs a libcuda"]
fn a_kernel_that_computes_something_else() {
    if !mutates() {
        return;
    }
    for (kernel, every) in [("mask", 7), ("divergence", 7), ("kl_total", 7), ("resolve", 1)] {
        let mut tried = (0..400).step_by(every).map(|mutant| is_told(kernel, mutant, "on a layer of known answers"));
        assert!(tried.any(|told| told), "{kernel}: no change was told");
    }
}

/// Some changes show only where rows have adapters of their own, or several draws.
#[test]
#[ignore = "needs a libcuda"]
fn known_answers_of_an_adapter_a_row() {
    if !mutates() {
        return;
    }
    for (kernel, told_of_one_adapter) in [("finish", 13), ("weigh", 6)] {
        let count = (0..400).step_by(13).filter(|mutant| is_told(kernel, *mutant, "")).count();
        assert!(count > told_of_one_adapter, "{kernel}: {count} changes were told");
    }
}
