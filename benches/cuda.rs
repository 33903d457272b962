//! Calls on a CUDA device: microseconds each, queued one after the other, and as a captured graph. Needs a GPU: see
//! docs/cuda.md.

#[path = "../tests/common/mod.rs"]
mod common;
#[allow(dead_code, reason = "the tests use the rest")]
#[path = "../tests/cuda/driver.rs"]
mod driver;

use std::sync::Arc;
use std::time::Instant;

use common::cases::{Case, Stored};
use common::host::Host;
use common::layers::{Spec, config, spec};
use common::place::{self, with_models_on};
use common::setup::Setup;
use driver::Gpu;
use pvera::backend::Mode;
use pvera::backend::cuda::Device;
use pvera::context::Context;
use pvera::linear::{
    Choice, ModeChoice, Noise, Request, Rows, SlotGradients, Tape, Wanted, backward, forward, record, sample,
};
use pvera::memory::Allocator;
use pvera::tensor::{Dtype, MatrixMut};

struct Shape {
    rows: usize,
    width: usize,
    dtype: Dtype,
}

const RANK: usize = 256;

fn main() {
    let gpu = Gpu::new();
    place::set_memory(gpu.clone());
    println!("{:<62} {:>12} {:>12}", "us a call, r = 256", "queued", "graph");
    for (rows, width) in [(1, 4096), (16, 4096), (512, 4096), (197, 768), (1576, 768)] {
        for dtype in [Dtype::F32, Dtype::Bf16] {
            measure(&gpu, &Shape { rows, width, dtype });
        }
    }
}

fn measure(gpu: &std::rc::Rc<Gpu>, shape: &Shape) {
    // SAFETY: the stream outlives the context.
    let device = gpu.inside(|| unsafe { Device::new(None, gpu.stream) }).unwrap();
    let context = Context::on_cuda(Arc::new(device), Allocator::default()).unwrap();
    for based in [true, false] {
        let Shape { rows, width, dtype } = *shape;
        let layer = Spec { weight: based.then_some(dtype), bias: false, ..spec("layer", width, width) };
        let stored = if dtype == Dtype::F32 { Stored::F32 } else { Stored::Bf16 };
        let case = Case::new(rows, &[layer], &[(config(RANK, 1), stored)]);
        let mut setup = with_models_on(context.place(), || case.setup(1));
        // Rows side by side, as engines have them; the tests' are padded.
        setup.x = setup.x.like(dtype, 0);
        setup.dy.iter_mut().for_each(|dy| *dy = dy.like(dtype, 0));
        let what = format!("{rows}x{width} {}{}", dtype.name(), if based { "" } else { ", delta" });
        let request = |mode| Request {
            noise: Noise { mode: ModeChoice::All(mode), seed: 1, ..Noise::default() },
            ..Request::default()
        };
        let (x, linear) = (setup.x.on(context.place()), setup.linears()[0]);
        let mut y = Host::filled(dtype, rows, width, 0, 0.0).on(context.place());
        let y = y.matrix_mut();
        time(gpu, &format!("{what}: eval"), || {
            forward(&context, &[linear], &x.matrix(), &request(Mode::Mean), &[MatrixMut::alias(&y)]).unwrap();
        });
        time(gpu, &format!("{what}: one sample"), || {
            forward(&context, &[linear], &x.matrix(), &request(Mode::Sample), &[MatrixMut::alias(&y)]).unwrap();
        });
        if based {
            let mut draws = Host::filled(dtype, 16 * rows, width, 0, 0.0).on(context.place());
            let draws = draws.matrix_mut();
            time(gpu, &format!("{what}: 16 samples"), || {
                sample(&context, linear, &x.matrix(), &request(Mode::Sample), 16, &draws).unwrap();
            });
            train(gpu, &context, &setup, &what, &request(Mode::Sample));
        }
        context.check().unwrap();
    }
}

fn train(gpu: &Gpu, context: &Context, setup: &Setup, what: &str, request: &Request<'_>) {
    let place = context.place();
    let (x, dy) = (setup.x.on(place), setup.dy[0].on(place));
    let (rows, width) = (setup.x.rows(), setup.x.cols());
    let mut y = Host::filled(setup.x.dtype(), rows, width, 0, 0.0).on(place);
    let mut dx = Host::filled(setup.x.dtype(), rows, width, 0, 0.0).on(place);
    let (y, dx) = (y.matrix_mut(), dx.matrix_mut());
    let mut lambda_b = place::Numbers::new(vec![0.0f32; width], place);
    let mut lambda_d = place::Numbers::new(vec![0.0f32; 2 * RANK], place);
    let (b, d) = (lambda_b.pointer(), lambda_d.pointer());
    let slots = [SlotGradients { slot: 0, lambda_b: b, lambda_d: d, bias: std::ptr::null_mut() }];
    let mut divergence = place::Numbers::new(vec![0.0f64], place);
    let kl_value = std::ptr::NonNull::new(divergence.pointer());
    let mut tape = Tape::new(pvera::linear::Policy::KeepLatent, Allocator::default());
    let rows_of = Rows { choice: Choice::First, ..Rows::default() };
    let request = Request { rows: rows_of, ..*request };
    for (also, kl_value) in [("", None), (", with the divergence", kl_value)] {
        let wanted = [Wanted { slots: &slots, kl_value, ..Wanted::default() }];
        time(gpu, &format!("{what}: forward and backward{also}"), || {
            // SAFETY: everything outlives the calls.
            unsafe {
                record(context, &setup.linears(), &x.matrix(), &request, &mut tape, &[MatrixMut::alias(&y)]).unwrap();
                backward(context, &tape, &[dy.matrix()], &wanted, Some(&dx), true).unwrap();
            }
        });
    }
}

/// Microseconds of a call, the least of a few rounds.
fn time(gpu: &Gpu, what: &str, mut call: impl FnMut()) {
    const CALLS: usize = 20;
    (0..3).for_each(|_| call());
    gpu.wait();
    let least = |run: &mut dyn FnMut()| {
        let rounds = (0..5).map(|_| {
            let start = Instant::now();
            (0..CALLS).for_each(|_| run());
            gpu.wait();
            start.elapsed().as_secs_f64() * 1e6 / CALLS as f64
        });
        rounds.fold(f64::INFINITY, f64::min)
    };
    let queued = least(&mut call);
    let graph = gpu.capture(&mut call);
    let replayed = least(&mut || gpu.replay(graph));
    gpu.destroy_graph(graph);
    println!("{what:<62} {queued:>12.1} {replayed:>12.1}");
}
