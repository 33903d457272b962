//! What a context is said to hold after its calls, beside what it holds.

mod common;

use common::context;
use common::layers::{config, spec};
use common::setup::{POLICIES, Setup};
use pvera::backend::Mode;
use pvera::context::Kind;
use pvera::linear::{Choice, ModeChoice, Noise, Request, Rows, sample, scratch_bytes};

#[test]
fn a_context_holds_what_was_foretold() {
    let specs = [spec("q", 300, 75), spec("v", 300, 130)];
    for (rows, draws, threads) in [(1, 1, 0), (5, 7, 0), (70, 3, 1), (400, 2, 0), (400, 1, 3), (30, 400, 0)] {
        let setup = Setup::new(7, &specs, &[config(20, 1), config(7, 2)], rows);
        let active = [(0, 1.0), (1, 0.5)];
        let noise = Noise { mode: ModeChoice::All(Mode::Sample), ..Noise::default() };
        let request =
            Request { rows: Rows { choice: Choice::Sum(&active), ..Rows::default() }, noise, training: false };
        let linears = setup.linears();
        for training in [false, true] {
            let foretold = scratch_bytes(&context(Kind::Cpu, threads), &linears, rows, &request, draws, training);
            let (foretold, context) = (foretold.unwrap(), context(Kind::Cpu, threads));
            if training {
                for policy in POLICIES {
                    setup.outcome(&context, &request, |step| step.policy = policy);
                }
            }
            let alone = scratch_bytes(&context, &linears[..1], rows, &request, draws, false).unwrap();
            assert!(alone <= foretold, "one layer takes no more than both");
            let mut y = common::host::Host::filled(pvera::tensor::Dtype::F32, draws * rows, 75, 0, 0.0);
            sample(&context, linears[0], &setup.x.matrix(), &request, draws, &y.matrix_mut()).unwrap();
            let held = context.scratch_bytes();
            let shape = format!("{rows} rows, {draws} draws, {threads} threads, training {training}");
            assert!(held <= foretold, "{shape}: {held} bytes held, {foretold} foretold");
            assert!(foretold <= 3 * held + (64 << 10), "{shape}: {held} bytes held, {foretold} foretold");
        }
    }
}
