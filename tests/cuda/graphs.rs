//! Work that is captured once and replayed with other seeds, samples, identities and slots; and what a step must not do.

use pvera::backend::{Mode, RowKeys};
use pvera::config::{Config, Method};
use pvera::context::{Context, Kind};
use pvera::error::Code;
use pvera::linear::{Choice, Linear, ModeChoice, Noise, Request, Rows, forward};
use pvera::tensor::Dtype;

use super::common::cases::{Case, Stored};
use super::common::host::Host;
use super::common::layers::{config, model, publish, spec};
use super::common::place::{Numbers, with_models_on};
use super::common::{Random, context};
use super::{bench, no_complaints};

const ROWS: usize = 9;

fn case() -> Case {
    let adapters = [(config(19, 1), Stored::F32), (config(19, 1), Stored::F32), (config(5, 2), Stored::Bf16)];
    Case::new(ROWS, &[spec("layer", 300, 70)], &adapters)
}

fn on_cpu(linear: &Linear, x: &Host, request: &Request<'_>) -> Vec<u32> {
    let mut y = Host::zeros(x.rows(), linear.layer().out_features);
    forward(&context(Kind::Cpu, 0), &[linear], &x.matrix(), request, &[y.matrix_mut()]).unwrap();
    y.bits()
}

fn sampled<'a>(choice: Choice<'a>, keys: RowKeys<'a>, noise: Noise<'a>) -> Request<'a> {
    let noise = Noise { mode: ModeChoice::All(Mode::Sample), ..noise };
    Request { rows: Rows { choice, keys }, noise, training: false }
}

#[test]
#[ignore = "needs a libcuda"]
fn a_graph_is_replayed_with_what_lies_in_device_memory() {
    let (gpu, on_cuda) = bench();
    let place = on_cuda.place();
    let (host, there) = (case().setup(5), with_models_on(place, || case().setup(5)));
    let (cpu_linear, linear) = (host.linears()[0], there.linears()[0]);
    let mut seed = Numbers::new(vec![7u64], place);
    let mut slot = Numbers::new(vec![0i32; ROWS], place);
    let mut identity = Numbers::new((0..ROWS as u64).collect(), place);
    let mut sample = Numbers::new(vec![0u32; ROWS], place);
    let address = |pointer: *mut u8| pointer.addr() as u64;
    let (seed_at, slot_at) = (address(seed.pointer().cast()), address(slot.pointer().cast()));
    let (identity_at, sample_at) = (address(identity.pointer().cast()), address(sample.pointer().cast()));
    let keys = RowKeys { identity_at, sample_at, ..RowKeys::default() };
    let request = sampled(Choice::PerRowOnDevice(slot_at), keys, Noise { seed_at, ..Noise::default() });
    let (x, mut y) = (there.x.on(place), Host::zeros(ROWS, 70).on(place));
    let mut run = || forward(&on_cuda, &[linear], &x.matrix(), &request, &[y.matrix_mut()]).unwrap();
    run();
    let graph = gpu.capture(&mut run);
    let launches = gpu.count(c"pvera_double_launches");
    let mut last = Vec::new();
    for round in 0..4u64 {
        let slots: Vec<i32> = (0..ROWS as i32).map(|row| (row + round as i32) % 4 - 1).collect();
        let identities: Vec<u64> = (0..ROWS as u64).map(|row| row * 1000 + round).collect();
        let samples: Vec<u32> = (0..ROWS as u32).map(|row| row ^ round as u32).collect();
        gpu.write(seed_at, &round.to_le_bytes());
        gpu.write(slot_at, bytemuck::cast_slice(&slots));
        gpu.write(identity_at, bytemuck::cast_slice(&identities));
        gpu.write(sample_at, bytemuck::cast_slice(&samples));
        gpu.replay(graph);
        let mut found = Host::zeros(ROWS, 70);
        let from = y.matrix_mut().row_pointer(0).addr() as u64;
        super::common::place::memory().download(from, found.bytes_mut());
        let keys = RowKeys { identity: Some(&identities), sample: Some(&samples), ..RowKeys::default() };
        let wanted = sampled(Choice::PerRow(&slots), keys, Noise { seed: round, ..Noise::default() });
        assert_eq!(found.bits(), on_cpu(cpu_linear, &host.x, &wanted), "round {round}");
        assert_ne!(found.bits(), last, "round {round} differs from the one before");
        last = found.bits();
    }
    assert!(launches == 0 || gpu.count(c"pvera_double_launches") > launches);
    on_cuda.check().unwrap();
    gpu.destroy_graph(graph);
    no_complaints(&gpu);
}

#[test]
#[ignore = "needs a libcuda"]
fn a_bad_slot_in_device_memory_is_told_later_and_gets_the_base() {
    let (gpu, on_cuda) = bench();
    let place = on_cuda.place();
    let there = with_models_on(place, || case().setup(5));
    let host = case().setup(5);
    let mut slot = Numbers::new(vec![0, 1, 99, -1, -7, 2, 0, 1, 2], place);
    let request = Request {
        rows: Rows { choice: Choice::PerRowOnDevice(slot.pointer().addr() as u64), ..Rows::default() },
        ..Request::default()
    };
    let (x, mut y) = (there.x.on(place), Host::zeros(ROWS, 70).on(place));
    forward(&on_cuda, &[there.linears()[0]], &x.matrix(), &request, &[y.matrix_mut()]).unwrap();
    let error = on_cuda.check().unwrap_err().to_string();
    assert!(
        error == "row 2: slot 99 in device memory holds no PVeRA adapter; the row got the base alone"
            || error == "row 4: slot -7 in device memory holds no PVeRA adapter; the row got the base alone",
        "{error}"
    );
    on_cuda.check().expect("an error is told once");
    let slots = [0, 1, -1, -1, -1, 2, 0, 1, 2];
    let wanted = Request { rows: Rows { choice: Choice::PerRow(&slots), ..Rows::default() }, ..Request::default() };
    assert_eq!(y.back().bits(), on_cpu(host.linears()[0], &host.x, &wanted));
    no_complaints(&gpu);
}

#[test]
#[ignore = "needs a libcuda"]
fn an_overflow_is_told_later() {
    let (gpu, on_cuda) = bench();
    let place = on_cuda.place();
    let there = with_models_on(place, || case().setup(5));
    let values: Vec<f32> = there.x.values().iter().map(|value| value * 1e4).collect();
    let x = Host::f32(ROWS, 300, &values);
    let request = sampled(Choice::First, RowKeys::default(), Noise::default());
    let mut y = Host::zeros(ROWS, 70);
    let cpu =
        forward(&context(Kind::Cpu, 0), &[case().setup(5).linears()[0]], &x.matrix(), &request, &[y.matrix_mut()]);
    let wanted = cpu.unwrap_err();
    let (x, mut y) = (x.on(place), y.on(place));
    forward(&on_cuda, &[there.linears()[0]], &x.matrix(), &request, &[y.matrix_mut()]).unwrap();
    let found = on_cuda.check().unwrap_err();
    assert_eq!(found.code(), wanted.code());
    assert!(found.message().contains("and exp(½ logvar) does not fit f32; set logvar_bound"), "{found}");
    on_cuda.check().expect("an error is told once");
    no_complaints(&gpu);
}

/// What a call would have to allocate, inside a capture: refused, and the capture itself stays sound.
#[test]
#[ignore = "needs a libcuda"]
fn a_capture_that_needs_more_memory_is_refused() {
    let (gpu, on_cuda) = bench();
    let place = on_cuda.place();
    let there =
        with_models_on(place, || Case::new(200, &[spec("layer", 300, 70)], &[(config(64, 1), Stored::F32)]).setup(5));
    let (x, mut y) = (there.x.on(place), Host::zeros(200, 70).on(place));
    let mut refused = None;
    let graph = gpu.capture(|| {
        let outcome = forward(&on_cuda, &[there.linears()[0]], &x.matrix(), &Request::default(), &[y.matrix_mut()]);
        refused = outcome.err();
    });
    let refused = refused.expect("a cold context cannot be captured");
    assert!(refused.message().contains("run the call once before the capture"), "{refused}");
    gpu.destroy_graph(graph);
    no_complaints(&gpu);
}

/// Steady state: a call made before allocates nothing and holds what was foretold, in device memory.
#[test]
#[ignore = "needs a libcuda"]
fn scratch_is_what_was_foretold() {
    let (gpu, on_cuda) = bench();
    let place = on_cuda.place();
    for (rows, dtype) in [(1, Dtype::F32), (9, Dtype::Bf16), (150, Dtype::F32)] {
        let case = Case { dtype, ..Case::new(rows, &[spec("layer", 300, 70)], &[(config(19, 1), Stored::F32)]) };
        let setup = with_models_on(place, || case.setup(5));
        let request = Request::default();
        let linears = setup.linears();
        let foretold = pvera::linear::scratch_bytes(&on_cuda, &linears, rows, &request, 3, true).unwrap();
        let step = |context: &Context| {
            setup.calls(context, &request, 3);
            setup.outcome(context, &request, |step| step.policy = pvera::linear::Policy::Recompute);
        };
        step(&on_cuda);
        step(&on_cuda);
        let held = on_cuda.scratch_bytes();
        assert!(held <= foretold, "{rows} rows: {held} bytes held, {foretold} foretold");
        let bytes = gpu.count(c"pvera_double_live_bytes");
        step(&on_cuda);
        assert_eq!((on_cuda.scratch_bytes(), gpu.count(c"pvera_double_live_bytes")), (held, bytes));
    }
    no_complaints(&gpu);
}

/// What a capture used stays where it is; behind it the workspace is one piece again, and not larger than the largest call.
#[test]
#[ignore = "needs a libcuda"]
fn after_a_capture_the_workspace_is_put_together_again() {
    let (gpu, on_cuda) = bench();
    let place = on_cuda.place();
    let request = Request::default();
    let of_rows = |rows: usize| {
        with_models_on(place, || Case::new(rows, &[spec("layer", 300, 70)], &[(config(19, 1), Stored::F32)]).setup(5))
    };
    let (small, host) = (of_rows(5), Case::new(5, &[spec("layer", 300, 70)], &[(config(19, 1), Stored::F32)]).setup(5));
    let (x, mut y) = (small.x.on(place), Host::zeros(5, 70).on(place));
    let mut run = || forward(&on_cuda, &small.linears(), &x.matrix(), &request, &[y.matrix_mut()]).unwrap();
    run();
    run();
    let graph = gpu.capture(&mut run);
    let captured = on_cuda.scratch_bytes();
    for rows in (10..90).step_by(16) {
        let setup = of_rows(rows);
        let foretold = pvera::linear::scratch_bytes(&on_cuda, &setup.linears(), rows, &request, 1, false).unwrap();
        let (x, mut y) = (setup.x.on(place), Host::zeros(rows, 70).on(place));
        for _ in 0..2 {
            forward(&on_cuda, &setup.linears(), &x.matrix(), &request, &[y.matrix_mut()]).unwrap();
        }
        let held = on_cuda.scratch_bytes();
        assert!(
            held <= captured + foretold,
            "{rows} rows: {held} bytes held, {captured} captured, {foretold} foretold"
        );
    }
    gpu.replay(graph);
    gpu.destroy_graph(graph);
    assert_eq!(y.back().bits(), on_cpu(host.linears()[0], &host.x, &request));
    drop(x);
    no_complaints(&gpu);
}

/// An engine warms up all sizes, ascending, and captures them one after the other, with eager calls between: what was warm
/// stays so.
#[test]
#[ignore = "needs a libcuda"]
fn sizes_that_were_warmed_up_are_captured_in_any_order() {
    let request = Request::default();
    for sizes in [[1, 8, 64], [64, 8, 1], [8, 64, 1]] {
        let (gpu, on_cuda) = bench();
        let place = on_cuda.place();
        let of_rows =
            |rows: usize| Case::new(rows, &[spec("layer", 300, 70)], &[(config(19, 1), Stored::F32)]).setup(5);
        let there = with_models_on(place, || of_rows(1));
        let linears = there.linears();
        let x: Vec<_> = [1, 8, 64].map(|rows| of_rows(rows).x.on(place)).into();
        let mut y: Vec<_> = [1, 8, 64].map(|rows| Host::zeros(rows, 70).on(place)).into();
        let mut run = |rows: usize| {
            let at = [1, 8, 64].iter().position(|known| *known == rows).unwrap();
            forward(&on_cuda, &linears, &x[at].matrix(), &request, &[y[at].matrix_mut()])
        };
        for rows in [1, 8, 64] {
            run(rows).unwrap();
        }
        let mut graphs = Vec::new();
        for rows in sizes {
            let mut outcome = Ok(());
            graphs.push(gpu.capture(|| outcome = run(rows)));
            outcome.unwrap_or_else(|error| panic!("{rows} rows of {sizes:?}: {error}"));
            run(1).unwrap();
        }
        let held = on_cuda.scratch_bytes();
        for rows in sizes {
            run(rows).unwrap();
        }
        assert_eq!(on_cuda.scratch_bytes(), held, "the workspace holds what it held");
        for graph in graphs {
            gpu.replay(graph);
            gpu.wait();
            gpu.destroy_graph(graph);
        }
        drop((x, y));
        no_complaints(&gpu);
    }
}

/// Whose slot is only known when the work runs: one tenant's VeRA adapter fails its rows, and no other's.
#[test]
#[ignore = "needs a libcuda"]
fn a_slot_in_device_memory_with_a_vera_adapter_is_a_bad_one() {
    let (gpu, on_cuda) = bench();
    let place = on_cuda.place();
    let make = || {
        let mut random = Random(4);
        let model = model(&mut random, &[spec("layer", 20, 10)]);
        let vera = Config { method: Method::Vera, ..config(4, 1) };
        let snapshot = publish(&model, &mut random, &[config(4, 1), vera.clone(), config(3, 2), vera]);
        (snapshot, Host::f32(5, 20, &random.values(100)))
    };
    let ((host, x), (there, _)) = (make(), with_models_on(place, make));
    let mut slot = Numbers::new(vec![0i32, 1, 2, -1, 3], place);
    let choice = Choice::PerRowOnDevice(slot.pointer().addr() as u64);
    let request = Request { rows: Rows { choice, ..Rows::default() }, ..Request::default() };
    let (x_there, mut y) = (x.on(place), Host::zeros(5, 10).on(place));
    forward(&on_cuda, &[there.linear(0).unwrap()], &x_there.matrix(), &request, &[y.matrix_mut()]).unwrap();
    let error = on_cuda.check().unwrap_err();
    assert_eq!(error.code(), Code::NotFound);
    assert!(
        error.message() == "row 1: slot 1 in device memory holds no PVeRA adapter; the row got the base alone"
            || error.message() == "row 4: slot 3 in device memory holds no PVeRA adapter; the row got the base alone",
        "{error}"
    );
    let slots = [0, -1, 2, -1, -1];
    let wanted = Request { rows: Rows { choice: Choice::PerRow(&slots), ..Rows::default() }, ..Request::default() };
    assert_eq!(y.back().bits(), on_cpu(host.linear(0).unwrap(), &x, &wanted));
    drop((slot, x_there));
    no_complaints(&gpu);
}

#[test]
#[ignore = "needs a libcuda"]
fn a_slot_whose_adapter_was_removed_is_a_bad_one() {
    let (gpu, on_cuda) = bench();
    let place = on_cuda.place();
    let mut random = Random(4);
    let model = with_models_on(place, || model(&mut random, &[spec("layer", 20, 10)]));
    publish(&model, &mut random, &[config(4, 1), config(4, 1)]);
    model.remove("adapter 0").unwrap();
    let snapshot = model.snapshot().unwrap();
    let mut slot = Numbers::new(vec![1i32, 0, -1], place);
    let choice = Choice::PerRowOnDevice(slot.pointer().addr() as u64);
    let request = Request { rows: Rows { choice, ..Rows::default() }, ..Request::default() };
    let (x, mut y) = (Host::f32(3, 20, &random.values(60)).on(place), Host::zeros(3, 10).on(place));
    forward(&on_cuda, &[snapshot.linear(0).unwrap()], &x.matrix(), &request, &[y.matrix_mut()]).unwrap();
    assert_eq!(
        on_cuda.check().unwrap_err().to_string(),
        "row 1: slot 0 in device memory holds no PVeRA adapter; the row got the base alone"
    );
    drop((slot, x, y));
    no_complaints(&gpu);
}
