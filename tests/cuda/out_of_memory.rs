//! Device memory that ends in the middle of something: an error that says so, nothing lost and nothing left behind, and
//! the same call works when there is memory again.

use std::ffi::CStr;
use std::rc::Rc;

use pvera::backend::cuda::Device;
use pvera::context::{Context, Kind};
use pvera::error::{Code, Error};
use pvera::linear::{Choice, Policy, Request, Rows};

use super::bits::same;
use super::common::cases::{Case, Stored, adapters};
use super::common::context;
use super::common::layers::spec;
use super::common::place::{set_memory, with_models_on};
use super::common::setup::Setup;
use super::common::step::{Step, run};
use super::driver::Gpu;
use super::{bench, no_complaints};

const FAIL: &CStr = c"PVERA_DOUBLE_FAIL_ALLOCATION";

/// Memory and objects of the double.
fn held(gpu: &Gpu) -> (u64, u64) {
    gpu.wait();
    (gpu.count(c"pvera_double_live_bytes"), gpu.count(c"pvera_double_live_objects"))
}

fn assert_is_memory(error: &Error) {
    assert_eq!(error.code(), Code::Memory, "{error}");
    assert!(error.message().contains("bytes of device memory: cuMemAllocAsync returned 2"), "{error}");
}

#[test]
#[ignore = "needs a libcuda"]
fn while_a_context_is_made() {
    let gpu = Gpu::new();
    if !gpu.set_or_skip(FAIL, 0) {
        return;
    }
    let before = held(&gpu);
    let make = || {
        // SAFETY: the stream lives as long as the test.
        gpu.inside(|| unsafe { Device::new(None, gpu.stream) })
    };
    let mut failures = 0;
    loop {
        gpu.set(FAIL, failures + 1);
        let made = make();
        gpu.set(FAIL, 0);
        let Err(error) = made else { break };
        assert_is_memory(&error);
        assert_eq!(held(&gpu), before, "allocation {}", failures + 1);
        failures += 1;
    }
    assert!(failures > 3, "{failures}");
    // What is made beside memory: it fails before anything was taken, or gives back what was.
    for function in ["cuModuleLoadData", "cuModuleGetFunction", "cuStreamCreate", "cuEventCreate"] {
        let name = std::ffi::CString::new(format!("PVERA_DOUBLE_CODE={function}")).unwrap();
        gpu.set(&name, 2);
        let made = make();
        gpu.set(c"PVERA_DOUBLE_CODE=", 0);
        let error = made.expect_err(function);
        assert!(error.message().contains(&format!("{function} returned 2")), "{error}");
        assert_eq!(held(&gpu), before, "{function}");
    }
    no_complaints(&gpu);
}

/// What a call may be interrupted in: the copies of stores and adapters, the tape, the workspace.
#[derive(Clone, Copy, Debug)]
enum Kept {
    Calls,
    Step(Policy),
}

const SLOTS: [i32; 9] = [0, 1, 2, -1, 2, 2, 1, 0, 0];

fn outputs(kept: Kept, setup: &Setup, context: &Context) -> Result<Vec<(String, Vec<u32>)>, Error> {
    let request = Request { rows: Rows { choice: Choice::PerRow(&SLOTS), ..Rows::default() }, ..Request::default() };
    match kept {
        Kept::Calls => {
            let x = setup.x.on(context.place());
            let mut y: Vec<_> = setup.dy.iter().map(|dy| dy.on(context.place())).collect();
            let targets: Vec<_> = y.iter_mut().map(|y| y.matrix_mut()).collect();
            pvera::linear::forward(context, &setup.linears(), &x.matrix(), &request, &targets)?;
            drop(targets);
            Ok(y.into_iter().map(|y| ("y".to_owned(), y.back().bits())).collect())
        }
        Kept::Step(policy) => {
            let mut step = Step::new(setup.linears(), &setup.slots, &setup.x, &setup.dy, request);
            step.policy = policy;
            Ok(run(context, &step)?.named_bits())
        }
    }
}

/// Whether the double's memory ends when it is told to.
#[track_caller]
fn fails_on_demand() -> bool {
    Gpu::new().set_or_skip(FAIL, 0)
}

/// Counts only what the library allocates: the test's own memory is the host's.
fn interrupted(kept: Kept) {
    let gpu = Gpu::new();
    set_memory(Rc::clone(&gpu) as Rc<_>);
    let before = held(&gpu);
    let case = || Case::new(9, &[spec("q", 300, 70), spec("v", 300, 33)], &adapters(Stored::Bf16));
    let wanted = outputs(kept, &case().setup(3), &context(Kind::Cpu, 0)).unwrap();
    let mut failures = 0;
    loop {
        let (own, on_cuda) = bench();
        let setup = with_models_on(on_cuda.place(), || case().setup(3));
        own.set(c"PVERA_DOUBLE_FAIL_POOLED", failures + 1);
        let outcome = outputs(kept, &setup, &on_cuda);
        let done = own.count(c"pvera_double_pooled") <= failures;
        own.set(c"PVERA_DOUBLE_FAIL_POOLED", 0);
        match outcome {
            Err(error) => assert_is_memory(&error),
            // A workspace that cannot be put together is had in pieces.
            Ok(found) => same(&format!("{kept:?} with failure {failures}"), &found, &wanted),
        }
        same(&format!("{kept:?} after failure {failures}"), &outputs(kept, &setup, &on_cuda).unwrap(), &wanted);
        on_cuda.check().unwrap();
        no_complaints(&own);
        drop((setup, on_cuda));
        set_memory(Rc::clone(&gpu) as Rc<_>);
        drop(own);
        assert_eq!(held(&gpu), before, "{kept:?} after failure {failures}");
        if done {
            break;
        }
        failures += 1;
    }
    assert!(failures >= 5, "{kept:?}: {failures}");
}

#[test]
#[ignore = "needs a libcuda"]
fn while_a_forward_copies_stores_and_adapters() {
    if fails_on_demand() {
        interrupted(Kept::Calls);
    }
}

#[test]
#[ignore = "needs a libcuda"]
fn while_a_tape_is_kept_and_gone_back_over() {
    if fails_on_demand() {
        [Policy::KeepDelta, Policy::Recompute].into_iter().map(Kept::Step).for_each(interrupted);
    }
}

/// The first call leaves the workspace in pieces, which the next one would put together.
#[test]
#[ignore = "needs a libcuda"]
fn while_the_workspace_is_put_together() {
    let (gpu, on_cuda) = bench();
    if !gpu.set_or_skip(FAIL, 0) {
        return;
    }
    let case = || Case::new(9, &[spec("q", 300, 70), spec("v", 300, 33)], &adapters(Stored::Bf16));
    let setup = with_models_on(on_cuda.place(), || case().setup(3));
    let wanted = outputs(Kept::Calls, &case().setup(3), &context(Kind::Cpu, 0)).unwrap();
    for failing in [0, 1, 0, 0] {
        gpu.set(c"PVERA_DOUBLE_FAIL_POOLED", failing);
        let found = outputs(Kept::Calls, &setup, &on_cuda);
        gpu.set(c"PVERA_DOUBLE_FAIL_POOLED", 0);
        same(&format!("allocation {failing} fails"), &found.unwrap(), &wanted);
    }
    no_complaints(&gpu);
}
