//! The same bits, however the work is cut: batch, order, split, threads, parts, adapters, draws, groups, tapes, and
//! whatever floating-point mode the host has left behind.

mod common;

use std::ffi::c_void;

use common::host::Host;
use common::layers::{Spec, config, spec};
use common::setup::{POLICIES, Setup};
use common::tolerance::assert_close;
use common::{Random, bits, context};
use pvera::backend::cpu::ParallelFor;
use pvera::backend::{Kl, Mode, Part, RowKeys};
use pvera::config::{Config, Method};
use pvera::context::{Context, Kind};
use pvera::linear::{
    Choice, Linear, ModeChoice, Noise, Request, Rows, expand, forward, project, project_width, sample,
};
use pvera::memory::Allocator;
use pvera::model::WeightLayout;
use pvera::tensor::Dtype;

const SAMPLED: Noise<'static> = Noise {
    mode: ModeChoice::All(Mode::Sample),
    seed: 77,
    seed_at: 0,
    antithetic: false,
    eps: None,
    dropout_mask: None,
};

fn request<'a>(choice: Choice<'a>, identity: Option<&'a [u64]>) -> Request<'a> {
    let keys = RowKeys { identity, ..RowKeys::default() };
    Request { rows: Rows { choice, keys }, noise: SAMPLED, training: false }
}

/// y that held something before, where the layer has no weight.
fn before(linear: &Linear, rows: usize, dtype: Dtype) -> Host {
    Host::filled(dtype, rows, linear.layer().out_features, 2, 0.3)
}

fn run(context: &Context, linear: &Linear, x: &Host, request: &Request<'_>) -> Host {
    let mut y = before(linear, x.rows(), x.dtype());
    forward(context, &[linear], &x.matrix(), request, &[y.matrix_mut()]).unwrap();
    y
}

/// Layers of every kind; two blocks of k, and more than one panel of a widened weight.
fn kinds() -> Vec<(Spec, Dtype)> {
    let wide = spec("layer", 300, 75);
    vec![
        (wide.clone(), Dtype::F32),
        (Spec { layout: WeightLayout::InOut, ..wide.clone() }, Dtype::F32),
        (Spec { weight: None, ..wide.clone() }, Dtype::F32),
        (Spec { weight: Some(Dtype::Bf16), ..wide.clone() }, Dtype::Bf16),
        (Spec { weight: Some(Dtype::F16), layout: WeightLayout::InOut, ..wide }, Dtype::F16),
        (spec("layer", 31, 601), Dtype::F32),
    ]
}

fn adapters() -> [Config; 3] {
    [config(20, 1), config(7, 2), config(20, 1)]
}

#[test]
fn rows_have_their_bits_in_any_batch_order_split_and_number_of_threads() {
    const ROWS: usize = 290;
    for (number, (layer, dtype)) in kinds().into_iter().enumerate() {
        let setup = Setup::new(number as u64, &[layer], &adapters(), ROWS).in_type(dtype, 1);
        let (linear, mut random) = (setup.linears()[0], Random(3));
        let identity: Vec<u64> = (0..ROWS).map(|_| random.next()).collect();
        let slots: Vec<i32> = (0..ROWS).map(|_| random.below(4) as i32 - 1).collect();
        let whole = |choice| run(&context(Kind::Cpu, 0), linear, &setup.x, &request(choice, Some(&identity)));
        let sum = [(0, 1.0), (1, 0.5)];
        let (all, by_row) = (whole(Choice::Sum(&sum)), whole(Choice::PerRow(&slots)));
        for threads in [0, 1, 3, 8] {
            let context = context(Kind::Cpu, threads);
            let check = |rows: &[usize], what: &str| {
                let x = setup.x.rows_of(rows);
                let identity: Vec<u64> = rows.iter().map(|row| identity[*row]).collect();
                let slots: Vec<i32> = rows.iter().map(|row| slots[*row]).collect();
                for (choice, wanted) in [(Choice::Sum(&sum[..]), &all), (Choice::PerRow(&slots), &by_row)] {
                    let y = run(&context, linear, &x, &request(choice, Some(&identity)));
                    assert!(y.padding_is_intact());
                    assert!(y.bits() == wanted.rows_of(rows).bits(), "kind {number}, {threads} threads, {what}");
                }
            };
            check(&(0..ROWS).collect::<Vec<_>>(), "whole");
            check(&(0..ROWS).rev().collect::<Vec<_>>(), "backwards");
            check(&(0..ROWS).map(|row| row * 7 % ROWS).collect::<Vec<_>>(), "shuffled");
            [0, 1, 127, 128, 289].iter().for_each(|row| check(&[*row], "alone"));
            for size in [2, 3, 5, 7, 13, 64, 129] {
                check(&(100..100 + size).collect::<Vec<_>>(), "a piece");
            }
        }
    }
}

#[test]
fn gradients_have_their_bits_on_any_number_of_threads_under_any_policy() {
    for (number, (layer, dtype)) in kinds().into_iter().enumerate() {
        let configs = adapters().map(|config| Config { pvera_dropout: 0.2, ..config });
        let setup = Setup::new(number as u64, &[layer], &configs, 200).in_type(dtype, 1);
        let slots: Vec<i32> = (0..200).map(|row| row * 5 % 4 - 1).collect();
        for choice in [Choice::Sum(&[(0, 1.0), (1, 0.5), (2, 0.25)][..]), Choice::PerRow(&slots)] {
            let mut wanted = None;
            for threads in [0, 1, 3, 8] {
                for policy in POLICIES {
                    let context = context(Kind::Cpu, threads);
                    let found = setup.outcome(&context, &request(choice, None), |step| {
                        (step.policy, step.dtype, step.kl) = (policy, dtype, Kl { weight: 0.1, mean: true });
                    });
                    let found = found.bits();
                    let wanted = wanted.get_or_insert_with(|| found.clone());
                    assert!(found == *wanted, "kind {number}, {threads} threads, {policy:?}");
                }
            }
        }
    }
}

#[test]
fn rows_of_dx_have_their_bits_in_any_batch() {
    const ROWS: usize = 140;
    let configs = adapters().map(|config| Config { pvera_dropout: 0.2, ..config });
    let setup = Setup::new(5, &[spec("q", 300, 75), spec("v", 300, 40)], &configs, ROWS);
    let identity: Vec<u64> = (0..ROWS as u64).map(|row| row * 3).collect();
    let slots: Vec<i32> = (0..ROWS as i32).map(|row| row * 5 % 4 - 1).collect();
    let whole = setup.outcome(&context(Kind::Cpu, 1), &request(Choice::PerRow(&slots), Some(&identity)), |step| {
        step.slots = &[];
    });
    for rows in [vec![0], vec![139], vec![77, 3, 90], (20..90).rev().collect()] {
        let identity: Vec<u64> = rows.iter().map(|row| identity[*row]).collect();
        let slots: Vec<i32> = rows.iter().map(|row| slots[*row]).collect();
        let (x, dy) = (setup.x.rows_of(&rows), setup.dy.iter().map(|dy| dy.rows_of(&rows)).collect::<Vec<_>>());
        let part = setup.outcome(&context(Kind::Cpu, 3), &request(Choice::PerRow(&slots), Some(&identity)), |step| {
            // SAFETY: both outlive the call; the closure's signature asks for longer.
            (step.x, step.dy) = unsafe { (&*std::ptr::from_ref(&x), &*std::ptr::from_ref(&dy[..])) };
            step.slots = &[];
        });
        assert!(part.dx.bits() == whole.dx.rows_of(&rows).bits(), "{rows:?}");
        assert!(part.y[1].bits() == whole.y[1].rows_of(&rows).bits(), "{rows:?}");
    }
}

#[test]
fn parts_run_at_the_same_time_make_the_whole() {
    for (number, (layer, _)) in kinds().into_iter().enumerate() {
        for rows in [1, 3, 150] {
            let setup = Setup::new(number as u64, std::slice::from_ref(&layer), &adapters(), rows);
            let linear = setup.linears()[0];
            let slots: Vec<i32> = (0..rows as i32).map(|row| row * 5 % 4 - 1).collect();
            for choice in [Choice::Sum(&[(0, 1.0), (1, 0.5), (2, 0.25)][..]), Choice::PerRow(&slots)] {
                let request = request(choice, None);
                let wanted = run(&context(Kind::Cpu, 0), linear, &setup.x, &request);
                for count in [1, 2, 3, 7, 160] {
                    let base = run(&context(Kind::Cpu, 0), linear, &setup.x, &self::request(Choice::Sum(&[]), None));
                    let found = in_parts(linear, &setup.x, &request, base, count);
                    assert!(found.bits() == wanted.bits(), "kind {number}, {rows} rows, {count} parts");
                }
            }
        }
    }
}

/// project and expand as an engine's workers enter them: each with an index of its own, a barrier between the two.
fn in_parts(linear: &Linear, x: &Host, request: &Request<'_>, mut y: Host, count: usize) -> Host {
    let (width, _) = project_width(linear, x.rows(), request).unwrap();
    let mut p = Host::filled(Dtype::F32, x.rows(), width, 3, f32::NAN);
    let context = &context(Kind::Cpu, 0);
    {
        let p = &p.matrix_mut();
        std::thread::scope(|scope| {
            for index in 0..count {
                scope.spawn(move || project(context, linear, &x.matrix(), request, p, Part { index, count }).unwrap());
            }
        });
    }
    assert!(p.padding_is_intact());
    let target = &y.matrix_mut();
    std::thread::scope(|scope| {
        for index in 0..count {
            let p = p.matrix();
            scope.spawn(move || expand(context, linear, &p, request, target, Part { index, count }).unwrap());
        }
    });
    y
}

#[test]
fn a_row_of_a_mixed_batch_is_the_row_of_its_adapter_alone() {
    let setup = Setup::new(6, &[spec("layer", 300, 75)], &adapters(), 50);
    let (linear, context) = (setup.linears()[0], context(Kind::Cpu, 1));
    let slots: Vec<i32> = (0..50).map(|row| row * 5 % 4 - 1).collect();
    let mixed = run(&context, linear, &setup.x, &request(Choice::PerRow(&slots), None));
    for slot in -1..3 {
        let alone = run(&context, linear, &setup.x, &request(Choice::Sum(&[(slot, 1.0)]), None));
        let rows: Vec<usize> = (0..50).filter(|row| slots[*row] == slot).collect();
        assert!(rows.len() > 5);
        assert!(mixed.rows_of(&rows).bits() == alone.rows_of(&rows).bits(), "slot {slot}");
    }
}

#[test]
fn a_draw_is_the_forward_of_its_sample_number() {
    for weight in [None, Some(Dtype::F32)] {
        let setup = Setup::new(7, &[Spec { weight, ..spec("layer", 30, 75) }], &adapters(), 9);
        let (linear, slots) = (setup.linears()[0], [0, 1, 2, -1, 0, 1, 2, -1, 0]);
        for (choice, threads) in [(Choice::Sum(&[(0, 1.0), (1, 2.0)][..]), 0), (Choice::PerRow(&slots), 3)] {
            let context = context(Kind::Cpu, threads);
            for antithetic in [false, true] {
                let mut request = request(choice, None);
                (request.rows.keys.sample_base, request.noise.antithetic) = (3, antithetic);
                let mut draws = before(linear, 5 * 9, Dtype::F32);
                sample(&context, linear, &setup.x.matrix(), &request, 5, &draws.matrix_mut()).unwrap();
                for draw in 0..5 {
                    request.rows.keys.sample_base = 3 + draw as u32;
                    let rows: Vec<usize> = (draw * 9..draw * 9 + 9).collect();
                    let one = run(&context, linear, &setup.x, &request);
                    assert!(draws.rows_of(&rows).bits() == one.bits(), "{weight:?}, draw {draw}, {antithetic}");
                }
                // And the sample as a row's own number.
                let numbers = [4u32; 9];
                (request.rows.keys.sample, request.rows.keys.sample_base) = (Some(&numbers[..]), 0);
                let one = run(&context, linear, &setup.x, &request);
                assert_eq!(draws.rows_of(&(9..18).collect::<Vec<_>>()).bits(), one.bits());
            }
        }
    }
}

#[test]
fn every_draw_takes_its_own_rows_of_the_callers_noise() {
    let setup = Setup::new(12, &[spec("layer", 30, 75)], &adapters(), 9);
    let (linear, mut random) = (setup.linears()[0], Random(12));
    let eps = Host::new(Dtype::F32, 3 * 9, 27, 2, &random.values(3 * 9 * 27));
    for kind in [Kind::Cpu, Kind::Reference] {
        let context = context(kind, 1);
        let mut given = request(Choice::Sum(&[(0, 1.0), (1, 2.0)]), None);
        given.noise.eps = Some(eps.matrix());
        let mut draws = before(linear, 3 * 9, Dtype::F32);
        sample(&context, linear, &setup.x.matrix(), &given, 3, &draws.matrix_mut()).unwrap();
        for draw in 0..3 {
            let rows: Vec<usize> = (draw * 9..draw * 9 + 9).collect();
            let own = eps.rows_of(&rows);
            let noise = Noise { eps: Some(own.matrix()), ..given.noise };
            let given = Request { noise, ..given };
            assert!(draws.rows_of(&rows).bits() == run(&context, linear, &setup.x, &given).bits(), "{kind:?}, {draw}");
        }
    }
}

#[test]
fn a_layer_of_a_group_is_the_layer_alone() {
    for dropout in [0.0, 0.25] {
        let configs = adapters().map(|config| Config { pvera_dropout: dropout, ..config });
        let setup = Setup::new(8, &[spec("q", 30, 75), spec("k", 30, 9), spec("v", 30, 33)], &configs, 20);
        let slots: Vec<i32> = (0..20).map(|row| row * 5 % 4 - 1).collect();
        for choice in [Choice::Sum(&[(0, 1.0), (1, 0.5), (2, 0.25)][..]), Choice::PerRow(&slots)] {
            let (context, request) = (context(Kind::Cpu, 1), request(choice, None));
            let kl = |step: &mut common::step::Step<'_>| step.kl = Kl { weight: 0.1, mean: true };
            let group = setup.outcome(&context, &request, kl);
            for layer in 0..3 {
                let alone = setup.outcome(&context, &request, |step| {
                    step.linears = vec![step.linears[layer]];
                    step.dy = &step.dy[layer..=layer];
                    kl(step);
                });
                assert_eq!(group.y[layer].bits(), alone.y[0].bits());
                for (own, other) in group.layers[layer].iter().zip(&alone.layers[0]) {
                    assert_eq!(bits(&own.lambda_b), bits(&other.lambda_b));
                    assert_eq!(bits(&own.lambda_d), bits(&other.lambda_d));
                }
                assert_eq!((group.kl[layer], &group.variance[layer]), (alone.kl[0], &alone.variance[0]));
            }
        }
    }
}

#[test]
fn antithetic_draws_mirror_each_other() {
    let setup = Setup::new(9, &[spec("layer", 30, 40)], &[config(20, 1)], 6);
    let (linear, context) = (setup.linears()[0], context(Kind::Cpu, 0));
    let at = |sample: u32, antithetic: bool| {
        let mut request = request(Choice::First, None);
        (request.rows.keys.sample_base, request.noise.antithetic) = (sample, antithetic);
        run(&context, linear, &setup.x, &request)
    };
    let mut mean = request(Choice::First, None);
    mean.noise.mode = ModeChoice::All(Mode::Mean);
    let mean = run(&context, linear, &setup.x, &mean).values();
    for pair in 0..3 {
        let (first, second) = (at(2 * pair, true), at(2 * pair + 1, true));
        assert_eq!(first.bits(), at(pair, false).bits());
        assert_ne!(first.bits(), second.bits());
        let middle: Vec<f32> = first.values().iter().zip(second.values()).map(|(a, b)| 0.5 * (a + b)).collect();
        assert_close("the middle of a pair", &middle, &mean, 1e-6);
    }
}

/// A host's parallel-for that runs its tasks backwards.
unsafe extern "C" fn backwards(
    _: *mut c_void,
    count: usize,
    run: Option<unsafe extern "C" fn(*mut c_void, usize)>,
    task: *mut c_void,
) {
    // SAFETY: the library's own task, with the index it counts to.
    (0..count).rev().for_each(|index| unsafe { run.expect("a task")(task, index) });
}

#[test]
fn the_hosts_own_threads_change_no_bits() {
    let setup = Setup::new(10, &[spec("layer", 300, 75)], &adapters(), 150);
    let request = request(Choice::Sum(&[(0, 1.0), (1, 1.0)]), None);
    let wanted = setup.outcome(&context(Kind::Cpu, 0), &request, |step| step.slots = &[0, 1]);
    let host = ParallelFor { call: backwards, user: std::ptr::null_mut() };
    let context = Context::new(Kind::Cpu, 5, Some(host), Allocator::default()).unwrap();
    let found = setup.outcome(&context, &request, |step| step.slots = &[0, 1]);
    assert!(found.bits() == wanted.bits());
}

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod host_modes {
    use super::*;
    use pvera::projection::{Size, Store};
    use register::{DEFAULT, FLUSH, Register, TO_ZERO, UP, read, write};

    /// MXCSR.
    #[cfg(target_arch = "x86_64")]
    mod register {
        use std::arch::asm;

        pub type Register = u32;
        pub const DEFAULT: Register = 0x1f80;
        pub const FLUSH: Register = 0x8040;
        pub const UP: Register = 0x4000;
        pub const TO_ZERO: Register = 0x6000;

        pub fn write(value: Register) {
            // SAFETY: all exceptions stay masked.
            unsafe { asm!("ldmxcsr [{}]", in(reg) &raw const value, options(nostack)) };
        }

        /// The status flags aside.
        pub fn read() -> Register {
            let mut value = 0;
            // SAFETY: four bytes are stored.
            unsafe { asm!("stmxcsr [{}]", in(reg) &raw mut value, options(nostack)) };
            value & !0x3f
        }
    }

    /// FPCR.
    #[cfg(target_arch = "aarch64")]
    mod register {
        use std::arch::asm;

        pub type Register = u64;
        pub const DEFAULT: Register = 0;
        pub const FLUSH: Register = 1 << 24;
        pub const UP: Register = 1 << 22;
        pub const TO_ZERO: Register = 3 << 22;

        pub fn write(value: Register) {
            // SAFETY: no exception is unmasked.
            unsafe { asm!("msr fpcr, {}", in(reg) value, options(nostack)) };
        }

        pub fn read() -> Register {
            let value;
            // SAFETY: reading has no effect.
            unsafe { asm!("mrs {}, fpcr", out(reg) value, options(nostack)) };
            value
        }
    }

    fn under<T>(mode: Register, work: impl FnOnce() -> T) -> T {
        write(DEFAULT | mode);
        let outcome = work();
        let after = read();
        write(DEFAULT);
        assert_eq!(after, DEFAULT | mode, "the host's mode comes back");
        outcome
    }

    /// Values whose products are subnormal, an alpha and a scale that must be rounded.
    fn setup(size: f32) -> Setup {
        let configs = adapters().map(|config| Config { alpha: 0.1, pvera_dropout: 0.3, ..config });
        let mut setup = Setup::new(11, &[spec("layer", 30, 75)], &configs, 20);
        let scaled = |host: &Host| {
            let values: Vec<f32> = host.values().iter().map(|value| value * size).collect();
            Host::f32(host.rows(), host.cols(), &values)
        };
        (setup.x, setup.dy) = (scaled(&setup.x), setup.dy.iter().map(scaled).collect());
        setup
    }

    #[test]
    fn a_host_that_flushes_or_rounds_otherwise_changes_no_bits() {
        for size in [1.0, 1e-38] {
            let setup = setup(size);
            let active = [(0, 0.3), (1, 0.7), (2, 1.1)];
            for threads in [0, 2] {
                let context = context(Kind::Cpu, threads);
                let go = || {
                    setup.outcome(&context, &request(Choice::Sum(&active), None), |step| {
                        (step.overwrite, step.kl) = (false, Kl { weight: 0.1, mean: true });
                    })
                };
                let wanted = go();
                for mode in [FLUSH, UP, TO_ZERO, FLUSH | UP] {
                    let found = under(mode, go);
                    assert!(found.y[0].bits() == wanted.y[0].bits(), "y, {mode:x}");
                    assert!(found.dx.bits() == wanted.dx.bits(), "dx, {mode:x}");
                    assert!(found.bits() == wanted.bits(), "gradients, {mode:x}, {threads} threads, {size}");
                }
            }
        }
    }

    #[test]
    fn projections_are_drawn_the_same_in_any_mode() {
        let size = Size { method: Method::Pvera, rank: 5, in_max: 33, out_max: 21 };
        let draw = || Store::from_key(&Allocator::default(), 3, size, Dtype::F32).unwrap();
        let wanted = draw();
        for mode in [FLUSH, UP, TO_ZERO] {
            assert!(under(mode, draw).same_values(&wanted), "{mode:x}");
        }
    }
}
