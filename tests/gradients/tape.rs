//! What a tape may and may not do: outputs skipped, memory used again, parameters that moved.

use std::sync::Arc;

use pvera::adapter::LoadOptions;
use pvera::backend::Overwrite;
use pvera::context::Kind;
use pvera::error::Code;
use pvera::linear::{Choice, Linear, Noise, Policy, Request, Rows, SlotGradients, Tape, Wanted, backward, record};
use pvera::memory::Allocator;
use pvera::tensor::Matrix;

use crate::common::host::Host;
use crate::common::layers::{config, model, spec, trainable};
use crate::common::setup::{POLICIES, Setup};
use crate::common::step::{Step, run_on};
use crate::common::{Random, context};

fn request(choice: Choice<'_>) -> Request<'_> {
    Request { rows: Rows { choice, ..Rows::default() }, noise: Noise { seed: 3, ..Noise::default() }, training: true }
}

#[test]
fn what_is_not_wanted_changes_nothing_else() {
    let setup = Setup::new(1, &[spec("layer", 13, 11)], &[config(4, 1), config(6, 2)], 20);
    let active = request(Choice::Sum(&[(0, 1.0), (1, 1.0)]));
    for kind in [Kind::Cpu, Kind::Reference] {
        let context = context(kind, 1);
        let all = setup.outcome(&context, &active, |_| {});
        let second = setup.outcome(&context, &active, |step| step.slots = &[1]);
        assert_eq!(second.layers[0].len(), 1);
        assert_eq!(second.layers[0][0].lambda_b, all.layers[0][1].lambda_b);
        assert_eq!(second.layers[0][0].lambda_d, all.layers[0][1].lambda_d);
        assert_eq!(second.dx.bits(), all.dx.bits());
        let (linears, mut tape) = (setup.linears(), Tape::new(Policy::KeepLatent, Allocator::default()));
        let mut y = Host::zeros(20, 11);
        let mut only = vec![7.0; 8];
        let slots = [SlotGradients {
            slot: 0,
            lambda_b: std::ptr::null_mut(),
            lambda_d: only.as_mut_ptr(),
            bias: std::ptr::null_mut(),
        }];
        let overwrite = Overwrite { lambda_d: true, ..Overwrite::default() };
        // SAFETY: everything outlives the two calls.
        unsafe {
            record(&context, &linears, &setup.x.matrix(), &active, &mut tape, &[y.matrix_mut()]).unwrap();
            let wanted = [Wanted { slots: &slots, overwrite, ..Wanted::default() }];
            backward(&context, &tape, &[setup.dy[0].matrix()], &wanted, None, true).unwrap();
        }
        assert_eq!(only, all.layers[0][0].lambda_d);
    }
}

#[test]
fn a_tape_is_used_again_for_other_shapes() {
    for policy in POLICIES {
        let mut tape = Tape::new(policy, Allocator::default());
        for (rows, rank) in [(30, 9), (3, 2), (31, 9), (0, 3), (5, 4)] {
            let setup = Setup::new(2, &[spec("q", 13, 11), spec("v", 13, 6)], &[config(rank, 1)], rows);
            let context = context(Kind::Cpu, 1);
            let step = Step { policy, ..Step::new(setup.linears(), &[0], &setup.x, &setup.dy, request(Choice::First)) };
            let again = run_on(&context, &step, &mut tape).unwrap();
            let fresh = run_on(&context, &step, &mut Tape::new(policy, Allocator::default())).unwrap();
            assert_eq!(again.bits(), fresh.bits(), "{policy:?}, {rows} rows");
        }
    }
}

#[test]
fn a_parameter_that_changed_between_forward_and_backward_is_an_error() {
    let mut random = Random(4);
    let model = model(&mut random, &[spec("layer", 6, 5)]);
    let adapter = trainable(&model, &mut random, &config(3, 1), &LoadOptions::default());
    let mut memory = vec![0.0f32; adapter.parameters().len()];
    let start = memory.as_mut_ptr();
    // SAFETY: `memory` outlives the adapter, and is written through `start` between the calls alone.
    let borrowed = unsafe { adapter.trainable_in(start, memory.len()) }.unwrap();
    let linear = Linear::single(Arc::new(borrowed), 0);
    let (x, dy) = (Host::f32(2, 6, &random.values(12)), Host::f32(2, 5, &random.values(10)));
    for kind in [Kind::Cpu, Kind::Reference] {
        let context = context(kind, 0);
        for place in 0..11 {
            let (mut y, mut tape) = (Host::zeros(2, 5), Tape::new(Policy::KeepLatent, Allocator::default()));
            let mut go = |moved: f32| {
                // SAFETY: as above.
                unsafe {
                    let linears = [&linear];
                    record(&context, &linears, &x.matrix(), &request(Choice::First), &mut tape, &[y.matrix_mut()])
                        .unwrap();
                    *start.add(place) += moved;
                    backward(&context, &tape, &[dy.matrix()], &[Wanted::default()], None, true)
                }
            };
            let error = go(1e-3).unwrap_err();
            assert_eq!(error.code(), Code::State, "parameter {place}");
            assert!(error.message().contains("changed between forward and backward"), "{error}");
            go(0.0).unwrap();
        }
    }
}

#[test]
fn lists_of_other_lengths_are_errors() {
    let setup = Setup::new(5, &[spec("q", 6, 5), spec("v", 6, 4)], &[config(3, 1)], 2);
    let (linears, context) = (setup.linears(), context(Kind::Cpu, 0));
    let (mut y, mut tape) =
        ([Host::zeros(2, 5), Host::zeros(2, 4)], Tape::new(Policy::KeepLatent, Allocator::default()));
    let [q, v] = &mut y;
    let targets = [q.matrix_mut(), v.matrix_mut()];
    let dy: Vec<Matrix<'_>> = setup.dy.iter().map(Host::matrix).collect();
    // SAFETY: everything outlives the calls.
    unsafe {
        let x = &setup.x.matrix();
        let few = record(&context, &linears, x, &request(Choice::First), &mut tape, &targets[..1]);
        assert_eq!(few.unwrap_err().code(), Code::Argument);
        assert_eq!(backward(&context, &tape, &dy, &[], None, true).unwrap_err().code(), Code::State);
        record(&context, &linears, x, &request(Choice::First), &mut tape, &targets).unwrap();
        let few = backward(&context, &tape, &dy, &[Wanted::default()], None, true);
        assert_eq!(few.unwrap_err().code(), Code::Argument);
        let few = backward(&context, &tape, &dy[..1], &[Wanted::default(), Wanted::default()], None, true);
        assert_eq!(few.unwrap_err().code(), Code::Argument);
    }
}
