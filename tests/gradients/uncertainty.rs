//! Many draws against the exact moments, and against the first-order variance that backward gives.

use pvera::backend::RowKeys;
use pvera::context::Kind;
use pvera::linear::{Choice, ModeChoice, Noise, Request, Rows, moments, sample};

use crate::common::host::Host;
use crate::common::layers::{config, spec};
use crate::common::setup::Setup;
use crate::common::tolerance::assert_close;
use crate::common::{context, contexts};

const DRAWS: usize = 20_000;
/// Standard errors that a sound estimate stays within, for some dozens of entries.
const SIGMAS: f64 = 4.5;

fn request<'a>(choice: Choice<'a>, keys: RowKeys<'a>) -> Request<'a> {
    let noise = Noise { mode: ModeChoice::AsPeft, seed: 12, ..Noise::default() };
    Request { rows: Rows { choice, keys }, noise, training: false }
}

fn draws(setup: &Setup, request: &Request<'_>) -> Vec<f32> {
    let (rows, outputs) = (setup.x.rows(), setup.dy[0].cols());
    let mut y = Host::zeros(DRAWS * rows, outputs);
    let linear = setup.linears()[0];
    sample(&context(Kind::Cpu, 1), linear, &setup.x.matrix(), request, DRAWS, &y.matrix_mut()).unwrap();
    y.values()
}

#[test]
fn draws_have_the_exact_moments() {
    let setup = Setup::new(1, &[spec("layer", 10, 6)], &[config(3, 1), config(5, 2)], 4);
    let slots = [1, 0, -1, 0];
    for (choice, constant) in [(Choice::Sum(&[(0, 1.0), (1, -0.5)][..]), 0), (Choice::PerRow(&slots), 1)] {
        let request = request(choice, RowKeys::default());
        let y = draws(&setup, &request);
        let mut exact = Vec::new();
        for (backend, context) in contexts() {
            let (mut mean, mut variance) = (Host::zeros(4, 6), Host::zeros(4, 6));
            let linear = setup.linears()[0];
            moments(&context, linear, &setup.x.matrix(), &request, &mean.matrix_mut(), &variance.matrix_mut()).unwrap();
            exact.push((backend, mean.values(), variance.values()));
        }
        let (_, mean, variance) = exact.pop().unwrap();
        for (backend, other_mean, other_variance) in &exact {
            assert_close(&format!("mean, {backend}"), other_mean, &mean, 1e-6);
            assert_close(&format!("variance, {backend}"), other_variance, &variance, 1e-6);
        }
        let count = DRAWS as f64;
        for entry in 0..24 {
            let column = || y.iter().skip(entry).step_by(24).map(|value| f64::from(*value));
            let average = column().sum::<f64>() / count;
            let spread = column().map(|value| (value - average).powi(2)).sum::<f64>() / (count - 1.0);
            let (mean, variance) = (f64::from(mean[entry]), f64::from(variance[entry]));
            if constant == 1 && entry / 6 == 2 {
                assert_eq!((variance, spread), (0.0, 0.0), "the base alone is certain");
                continue;
            }
            assert!((average - mean).abs() < SIGMAS * (variance / count).sqrt(), "{entry}: {average}, {mean}");
            // The variance of a normal sample's variance is 2σ⁴/(n − 1).
            assert!((spread / variance - 1.0).abs() < SIGMAS * (2.0 / count).sqrt(), "{entry}: {spread}, {variance}");
        }
    }
}

#[test]
fn first_order_variance_is_that_of_many_draws() {
    let setup = Setup::new(2, &[spec("layer", 10, 6)], &[config(3, 1), config(5, 2)], 5);
    // Rows 0 and 3 are one sequence with one draw; so are 1 and 4. f has two values.
    let identity = [7, 8, 9, 7, 8];
    let index = [0u32, 0, 1, 0, 0];
    let keys = RowKeys { identity: Some(&identity), ..RowKeys::default() };
    // Two adapters draw independently, even in one sequence.
    let slots = [0, 1, 1, 1, 1];
    for choice in [Choice::Sum(&[(0, 1.0), (1, -0.5)][..]), Choice::PerRow(&slots)] {
        let request = request(choice, keys);
        let y = draws(&setup, &request);
        let dy = setup.dy[0].values();
        let mut f = vec![[0f64; 2]; DRAWS];
        for (place, value) in y.iter().enumerate() {
            let (draw, row) = (place / 30, place % 30 / 6);
            f[draw][index[row] as usize] += f64::from(*value) * f64::from(dy[place % 30]);
        }
        for (backend, context) in contexts() {
            let found = setup.outcome(&context, &request, |step| step.variance_index = Some(&index));
            for value in 0..2 {
                let mean = f.iter().map(|f| f[value]).sum::<f64>() / DRAWS as f64;
                let spread = f.iter().map(|f| (f[value] - mean).powi(2)).sum::<f64>() / (DRAWS - 1) as f64;
                // y is linear in the noise, so the first order is all there is.
                let ratio = found.variance[0][value] / spread;
                assert!((ratio - 1.0).abs() < SIGMAS * (2.0 / DRAWS as f64).sqrt(), "{backend}, {value}: {ratio}");
            }
        }
    }
}
