//! What goes before something that still needs it, or while it must not: memory freed in captures, stores that outlive
//! contexts, contexts that share the kernels.

use std::rc::Rc;
use std::sync::Arc;

use pvera::adapter::LoadOptions;
use pvera::backend::Overwrite;
use pvera::backend::cuda::Device;
use pvera::context::{Context, Kind};
use pvera::error::Code;
use pvera::linear::{Policy, Request, SlotGradients, Tape, Wanted, backward, forward, record};
use pvera::memory::Allocator;

use super::common::Random;
use super::common::cases::{Case, Stored};
use super::common::context;
use super::common::host::Host;
use super::common::layers::{Spec, config, model, spec, trainable};
use super::common::place::{Numbers, set_memory, with_models_on};
use super::common::setup::Setup;
use super::driver::{Gpu, Handle};
use super::{bench, no_complaints};

/// Without a weight, so that nothing of the model is in the test's device memory.
fn case() -> Case {
    Case::new(3, &[Spec { weight: None, bias: false, ..spec("layer", 20, 10) }], &[(config(4, 1), Stored::F32)])
}

fn y_of(setup: &Setup, context: &Context) -> Vec<u32> {
    let (x, mut y) = (setup.x.on(context.place()), Host::zeros(3, 10).on(context.place()));
    forward(context, &setup.linears(), &x.matrix(), &Request::default(), &[y.matrix_mut()]).unwrap();
    // Waits for its stream, which may be another than the test's.
    context.check().unwrap();
    y.back().bits()
}

/// A GPU for the memory of a test that makes its contexts itself.
fn without_context() -> Rc<Gpu> {
    let gpu = Gpu::new();
    set_memory(Rc::clone(&gpu) as Rc<_>);
    gpu
}

fn held(gpu: &Gpu) -> (u64, u64) {
    gpu.wait();
    (gpu.count(c"pvera_double_live_bytes"), gpu.count(c"pvera_double_live_objects"))
}

fn all_given_back(gpu: &Gpu, before: (u64, u64)) {
    assert_eq!(held(gpu), before, "bytes and objects");
    no_complaints(gpu);
}

fn context_on(gpu: &Gpu, stream: Handle) -> Context {
    // SAFETY: the stream outlives the context.
    let device = gpu.inside(|| unsafe { Device::new(Some(0), stream) }).unwrap();
    Context::on_cuda(Arc::new(device), Allocator::default()).unwrap()
}

fn taped(setup: &Setup, context: &Context, tape: &mut Tape) -> pvera::error::Result<Vec<u32>> {
    let (x, mut y) = (setup.x.on(context.place()), Host::zeros(3, 10).on(context.place()));
    // SAFETY: nothing goes back over the tape.
    unsafe { record(context, &setup.linears(), &x.matrix(), &Request::default(), tape, &[y.matrix_mut()])? };
    Ok(y.back().bits())
}

/// Freeing in a stream that is captured would ruin the host's graph: the memory goes with the next call after it.
#[test]
#[ignore = "needs a libcuda"]
fn a_tape_that_goes_during_a_capture() {
    let (gpu, on_cuda) = bench();
    let setup = case().setup(5);
    let mut tape = Tape::new(Policy::KeepDelta, Allocator::default());
    taped(&setup, &on_cuda, &mut tape).unwrap();
    let wanted = y_of(&setup, &on_cuda);
    let kept = tape.bytes() as u64;
    let (x, mut y) = (setup.x.on(on_cuda.place()), Host::zeros(3, 10).on(on_cuda.place()));
    let graph = gpu.capture(|| {
        forward(&on_cuda, &setup.linears(), &x.matrix(), &Request::default(), &[y.matrix_mut()]).unwrap();
        drop(tape);
    });
    gpu.replay(graph);
    gpu.destroy_graph(graph);
    let before = held(&gpu).0;
    assert_eq!(y_of(&setup, &on_cuda), wanted);
    assert!(before == 0 || (kept > 0 && held(&gpu).0 + kept <= before), "the tape's memory is given back");
    assert_eq!(y.back().bits(), wanted);
    drop(x);
    no_complaints(&gpu);
}

/// The same at the end of the context, when no call follows.
#[test]
#[ignore = "needs a libcuda"]
fn a_tape_that_goes_during_the_last_capture() {
    let gpu = without_context();
    let (before, setup) = (held(&gpu), case().setup(5));
    let on_cuda = context_on(&gpu, gpu.stream);
    let mut tape = Tape::new(Policy::KeepLatent, Allocator::default());
    taped(&setup, &on_cuda, &mut tape).unwrap();
    let graph = gpu.capture(|| drop(tape));
    gpu.destroy_graph(graph);
    drop((on_cuda, setup));
    all_given_back(&gpu, before);
}

/// The legacy stream would wait for a blocking stream, which one that is captured does not allow.
#[test]
#[ignore = "needs a libcuda"]
fn a_store_of_the_legacy_stream_that_goes_while_another_is_captured() {
    let gpu = without_context();
    let before = held(&gpu);
    let on_cuda = context_on(&gpu, std::ptr::null_mut());
    let (setup, other) = (case().setup(5), case().setup(6));
    y_of(&setup, &on_cuda);
    y_of(&other, &on_cuda);
    let (stream, both) = (gpu.new_stream(true), held(&gpu).0);
    let graph = gpu.capture_on(stream, || drop(setup));
    gpu.destroy_graph(graph);
    y_of(&other, &on_cuda);
    assert!(both == 0 || held(&gpu).0 < both, "the copies are given back after the capture");
    gpu.destroy_stream(stream);
    drop((on_cuda, other));
    all_given_back(&gpu, before);
}

/// An engine that is gone, and the last context of its device with it: the copies hold what their events live in.
#[test]
#[ignore = "needs a libcuda"]
fn a_store_that_outlives_the_last_context() {
    let gpu = without_context();
    let on_cuda = context_on(&gpu, std::ptr::null_mut());
    let setup = case().setup(5);
    let wanted = y_of(&setup, &context(Kind::Cpu, 0));
    assert_eq!(y_of(&setup, &on_cuda), wanted);
    no_complaints(&gpu);
    set_memory(Rc::new(Nowhere));
    drop(gpu);
    drop(on_cuda);
    drop(setup);
    // The device's context ended with the store. What it found then is still told.
    no_complaints(&Gpu::new());
}

/// In the place of a device's memory, that nothing may be asked of.
struct Nowhere;

impl super::common::place::Memory for Nowhere {
    fn upload(&self, _: &[u8]) -> u64 {
        unreachable!()
    }

    fn download(&self, _: u64, _: &mut [u8]) {
        unreachable!()
    }

    fn release(&self, _: u64) {
        unreachable!()
    }
}

/// The kernels are loaded and tested once for all streams of a CUDA context, and stay as long as one uses them.
#[test]
#[ignore = "needs a libcuda"]
fn streams_of_one_cuda_context_share_the_kernels() {
    let (gpu, first) = bench();
    let setup = case().setup(5);
    let wanted = y_of(&setup, &context(Kind::Cpu, 0));
    let stream = gpu.new_stream(false);
    gpu.wait();
    let launches = gpu.count(c"pvera_double_launches");
    let before = held(&gpu).1;
    let second = context_on(&gpu, stream);
    if before > 0 {
        assert_eq!(held(&gpu).1, before + 1, "an event");
        assert_eq!(gpu.count(c"pvera_double_launches"), launches);
    }
    drop(first);
    assert_eq!(y_of(&setup, &second), wanted);
    drop(second);
    gpu.destroy_stream(stream);
    no_complaints(&gpu);
}

/// A graph holds the addresses of a tape's memory, also where the next forward is another context's.
#[test]
#[ignore = "needs a libcuda"]
fn a_captured_tape_stays_where_it_is() {
    let (gpu, on_cuda) = bench();
    let setup = case().setup(5);
    let other = context_on(&gpu, gpu.stream);
    let mut tape = Tape::new(Policy::KeepLatent, Allocator::default());
    taped(&setup, &on_cuda, &mut tape).unwrap();
    let (x, mut y) = (setup.x.on(on_cuda.place()), Host::zeros(3, 10).on(on_cuda.place()));
    let graph = gpu.capture(|| {
        let targets = [y.matrix_mut()];
        // SAFETY: nothing goes back over the tape.
        unsafe { record(&on_cuda, &setup.linears(), &x.matrix(), &Request::default(), &mut tape, &targets) }.unwrap();
    });
    for elsewhere in [&context(Kind::Cpu, 0), &other] {
        let error = taped(&setup, elsewhere, &mut tape).unwrap_err();
        assert!(error.message().contains("can neither grow nor move to another context"), "{error}");
    }
    gpu.replay(graph);
    gpu.destroy_graph(graph);
    drop((tape, x, y));
    no_complaints(&gpu);
}

/// As much where the graph has a backward alone, of a forward that was queued before.
#[test]
#[ignore = "needs a libcuda"]
fn a_tape_whose_backward_alone_was_captured() {
    let (gpu, on_cuda) = bench();
    let place = on_cuda.place();
    for policy in [Policy::KeepLatent, Policy::KeepDelta] {
        let (setup, larger) = (case().setup(5), Case { rows: 40, ..case() }.setup(5));
        let mut tape = Tape::new(policy, Allocator::default());
        taped(&setup, &on_cuda, &mut tape).unwrap();
        let dy = setup.dy[0].on(place);
        let (mut lambda_b, mut lambda_d) = (Numbers::new(vec![0f32; 10], place), Numbers::new(vec![0f32; 8], place));
        let slots = [SlotGradients {
            slot: 0,
            lambda_b: lambda_b.pointer(),
            lambda_d: lambda_d.pointer(),
            bias: std::ptr::null_mut(),
        }];
        let overwrite = Overwrite { lambda_b: true, lambda_d: true, bias: true };
        let wanted = [Wanted { slots: &slots, overwrite, ..Wanted::default() }];
        // SAFETY: all that is given lives until the end of the test.
        let back = |tape: &Tape| unsafe { backward(&on_cuda, tape, &[dy.matrix()], &wanted, None, true) }.unwrap();
        back(&tape);
        let graph = gpu.capture(|| back(&tape));
        let (x, mut y) = (larger.x.on(place), Host::zeros(40, 10).on(place));
        let targets = [y.matrix_mut()];
        // SAFETY: nothing goes back over the tape.
        let error = unsafe {
            record(&on_cuda, &larger.linears(), &x.matrix(), &Request::default(), &mut tape, &targets).unwrap_err()
        };
        assert!(error.message().contains("can neither grow nor move to another context"), "{error}");
        gpu.replay(graph);
        gpu.wait();
        gpu.destroy_graph(graph);
    }
    no_complaints(&gpu);
}

/// A save reads the parameters back, which waits; a stream that is captured cannot be waited for.
#[test]
#[ignore = "needs a libcuda"]
fn parameters_are_not_read_back_during_a_capture() {
    let (gpu, on_cuda) = bench();
    let mut random = Random(3);
    let model = with_models_on(on_cuda.place(), || model(&mut random, &[spec("layer", 20, 10)]));
    let adapter = trainable(&model, &mut random, &config(4, 1), &LoadOptions::default());
    let count = adapter.parameters().len();
    let mut memory = Numbers::new(vec![0f32; count], on_cuda.place());
    // SAFETY: as many floats lie there, until the end of the test.
    let moved = unsafe { adapter.trainable_on(on_cuda.cuda().unwrap(), memory.pointer(), count) }.unwrap();
    let graph = gpu.capture(|| {
        let error = moved.checkpoint().unwrap_err();
        assert_eq!(error.code(), Code::State);
        assert_eq!(
            error.message(),
            "the parameters on the device cannot be had while the stream is being captured; call it before or after the capture"
        );
    });
    gpu.destroy_graph(graph);
    assert!(moved.checkpoint().unwrap() == adapter.checkpoint().unwrap(), "the copy has other values");
    drop((moved, memory));
    no_complaints(&gpu);
}

/// A hot swap: an adapter goes while a stream that used it is busy, and another stream's call needs a fresh copy. It
/// must not wait for the busy stream, which may wait for the host. Shown by the double that runs work only when somebody
/// waits, and then some of other streams too.
#[test]
#[ignore = "needs a libcuda"]
fn a_fresh_copy_waits_for_no_other_stream() {
    let (gpu, busy) = bench();
    let stream = gpu.new_stream(false);
    let other = context_on(&gpu, stream);
    let (old, fresh) = (case().setup(5), case().setup(6));
    let (x, mut y) = (old.x.on(busy.place()), Host::zeros(3, 10).on(busy.place()));
    let (fresh_x, mut fresh_y) = (fresh.x.on(busy.place()), Host::zeros(3, 10).on(busy.place()));
    let mut keep_busy = || forward(&busy, &old.linears(), &x.matrix(), &Request::default(), &[y.matrix_mut()]).unwrap();
    keep_busy();
    gpu.wait();
    let launches = || gpu.count(c"pvera_double_launches");
    let before = launches();
    (0..50).for_each(|_| keep_busy());
    let is_pending = launches() == before;
    drop(old);
    forward(&other, &fresh.linears(), &fresh_x.matrix(), &Request::default(), &[fresh_y.matrix_mut()]).unwrap();
    let ran = launches() - before;
    gpu.wait();
    let all = launches() - before;
    assert!(!is_pending || all == 0 || ran < all / 2, "{ran} of {all} launches of the busy stream were waited for");
    other.check().unwrap();
    drop((busy, other, fresh, x, y, fresh_x, fresh_y));
    gpu.destroy_stream(stream);
    no_complaints(&gpu);
}

/// What the caller has queued on a stream may wait for the host: a context on it is made meanwhile, the first too.
#[test]
#[ignore = "needs a libcuda"]
fn a_first_context_does_not_wait_for_its_stream() {
    let gpu = without_context();
    if !gpu.set_or_skip(c"PVERA_DOUBLE_PAGEABLE", 1) {
        return;
    }
    // The copies read the host's memory when they run: some behind the caller's back, not all.
    let mut values = vec![1u8; 5000];
    let mut memory = Numbers::new(values.clone(), pvera::tensor::Device::Cuda(0));
    let address = memory.pointer().addr() as u64;
    (0..values.len()).for_each(|at| gpu.write(address + at as u64, &values[at..=at]));
    let first = context_on(&gpu, gpu.stream);
    values.fill(2);
    let _ = std::hint::black_box(&values);
    gpu.wait();
    gpu.set(c"PVERA_DOUBLE_PAGEABLE", 0);
    assert_eq!(memory.back().last(), Some(&2), "the stream was waited for");
    drop(first);
    no_complaints(&gpu);
}

/// Loading and unloading kernels is what a capture in the global mode, on any thread, does not allow to others.
#[test]
#[ignore = "needs a libcuda"]
fn a_context_comes_and_goes_while_another_stream_is_captured() {
    let gpu = without_context();
    let (before, setup) = (held(&gpu), case().setup(5));
    let stream = gpu.new_stream(false);
    let (mut made, launches) = (None, gpu.count(c"pvera_double_launches"));
    let graph = gpu.capture_on(stream, || made = Some(context_on(&gpu, gpu.stream)));
    gpu.destroy_graph(graph);
    let on_cuda = made.unwrap();
    let known_answers = gpu.count(c"pvera_double_launches") - launches;
    assert!(known_answers == 0 || known_answers == 141, "docs/cuda.md says 141 launches, not {known_answers}");
    assert_eq!(y_of(&setup, &on_cuda), y_of(&setup, &context(Kind::Cpu, 0)));
    let graph = gpu.capture_on(stream, || drop((on_cuda, setup)));
    gpu.destroy_graph(graph);
    gpu.destroy_stream(stream);
    all_given_back(&gpu, before);
}

/// Others capture in the global mode, PyTorch's own: nothing that the library does on another stream ruins that.
#[test]
#[ignore = "needs a libcuda"]
fn calls_take_and_give_back_memory_while_another_stream_is_captured() {
    let (gpu, on_cuda) = bench();
    let (setup, stream) = (case().setup(5), gpu.new_stream(false));
    let new_tape = || Tape::new(Policy::KeepDelta, Allocator::default());
    let (wanted, mut tape) = (taped(&setup, &context(Kind::Cpu, 0), &mut new_tape()).unwrap(), new_tape());
    let (x, mut y) = (setup.x.on(on_cuda.place()), Host::zeros(3, 10).on(on_cuda.place()));
    let graph = gpu.capture_on(stream, || {
        // The first call: the workspace, copies of the store and of the adapter, a tape; then a wait.
        // SAFETY: nothing goes back over the tape.
        unsafe { record(&on_cuda, &setup.linears(), &x.matrix(), &Request::default(), &mut tape, &[y.matrix_mut()]) }
            .unwrap();
        on_cuda.check().unwrap();
        drop((setup, tape));
    });
    gpu.destroy_graph(graph);
    assert_eq!(y.back().bits(), wanted);
    gpu.destroy_stream(stream);
    drop((x, on_cuda));
    no_complaints(&gpu);
}

/// What a driver does not unload goes with the next context.
#[test]
#[ignore = "needs a libcuda"]
fn kernels_that_cannot_be_unloaded_go_later() {
    let gpu = without_context();
    let before = held(&gpu);
    let on_cuda = context_on(&gpu, gpu.stream);
    if !gpu.set_or_skip(c"PVERA_DOUBLE_CODE=cuModuleUnload", 900) {
        return;
    }
    drop(on_cuda);
    gpu.set(c"PVERA_DOUBLE_CODE=", 0);
    assert!(held(&gpu).1 > before.1, "they are still there");
    drop(context_on(&gpu, gpu.stream));
    all_given_back(&gpu, before);
}

/// A driver may read the host's memory after the call that copies it: what the library copies from is there until then.
#[test]
#[ignore = "needs a libcuda"]
fn copies_that_read_the_host_late() {
    let (gpu, on_cuda) = bench();
    if !gpu.set_or_skip(c"PVERA_DOUBLE_PAGEABLE", 1) {
        return;
    }
    let mut random = Random(3);
    let model = with_models_on(on_cuda.place(), || model(&mut random, &[spec("layer", 20, 10)]));
    let adapter = trainable(&model, &mut random, &config(4, 1), &LoadOptions::default());
    let count = adapter.parameters().len();
    let mut memory = Numbers::new(vec![0f32; count], on_cuda.place());
    // SAFETY: as many floats lie there, until the end of the test.
    let moved = unsafe { adapter.trainable_on(on_cuda.cuda().unwrap(), memory.pointer(), count) }.unwrap();
    assert!(moved.checkpoint().unwrap() == adapter.checkpoint().unwrap(), "the copy has other values");
    gpu.set(c"PVERA_DOUBLE_PAGEABLE", 0);
    drop((moved, memory));
    no_complaints(&gpu);
}
