//! Every golden case, on both backends and any number of threads: y, delta, mu and logvar, each judged of its own.

mod common;

use common::contexts;
use common::golden::{BIAS_SHIFT, Case, Declared, Tensor, names, root};
use common::host::Host;
use common::sha256::sha256;
use common::step::{Step, run};
use common::tolerance::{assert_close, of};
use pvera::backend::{Kl, Mode};
use pvera::config::Method;
use pvera::context::Context;
use pvera::linear::{Choice, Linear, MergeRequest, ModeChoice, Noise, Request, Rows, forward, latent, merge};
use pvera::memory::Allocator;
use pvera::model::WeightLayout;
use pvera::noise::TorchGenerator;
use pvera::projection::{Frozen, Size, Store};
use pvera::tensor::Dtype;

/// Gradients and KL.
const GRADIENTS: f64 = 1e-5;

fn single_cases() -> impl Iterator<Item = Case> {
    names().into_iter().filter(|name| name != "two_adapters").map(|name| Case::open(&name))
}

fn request<'a>(mode: ModeChoice, eps: Option<&'a Host>, mask: Option<&'a Host>) -> Request<'a> {
    let noise = Noise { mode, eps: eps.map(Host::matrix), dropout_mask: mask.map(Host::matrix), ..Noise::default() };
    Request { noise, ..Request::default() }
}

fn run_forward(context: &Context, linear: &Linear, x: &Host, request: &Request<'_>, mut y: Host) -> Host {
    forward(context, &[linear], &x.matrix(), request, &[y.matrix_mut()]).unwrap();
    y
}

/// PyTorch's own noise for the case.
fn torch_eps(case: &Case, module: &str) -> Option<Host> {
    let eps = case.get(module, "eps")?;
    let mut drawn = vec![0.0; eps.values.len()];
    TorchGenerator::new(case.config.generator_seed.unwrap()).normals(&mut drawn);
    assert_close(&format!("{} {module} eps", case.name), &drawn, &eps.values, 1e-6);
    Some(Host::f32(eps.shape[0], eps.shape[1], &drawn))
}

#[test]
fn y_with_a_base_weight() {
    let mut judged = 0;
    for case in single_cases().filter(Case::has_weights) {
        let snapshot = case.snapshot(Declared::WeightAndBias);
        for (backend, context) in contexts() {
            for (number, module) in case.modules.iter().enumerate() {
                let Some(wanted) = case.get(module, "y_mean") else { continue };
                let x = case.get(module, "x").unwrap().host();
                let y = Host::filled(wanted.dtype, wanted.shape[0], wanted.shape[1], 0, f32::NAN);
                let linear = snapshot.linear(number).unwrap();
                let y = run_forward(&context, linear, &x, &request(ModeChoice::AsPeft, None, None), y);
                let what = format!("{} {module} y, {backend}", case.name);
                assert_close(&what, &y.values(), &wanted.values, of(x.dtype()));
                judged += 1;
            }
        }
    }
    assert!(judged >= 4 * 11, "{judged}");
}

#[test]
fn y_and_delta_beside_a_foreign_base() {
    let mut judged = 0;
    for case in single_cases() {
        let snapshot = case.snapshot(Declared::BiasOnly);
        for (backend, context) in contexts() {
            for (number, module) in case.modules.iter().enumerate() {
                let (Some(base), Some(wanted)) = (case.get(module, "base"), case.get(module, "y_mean")) else {
                    continue;
                };
                let (x, linear) = (case.get(module, "x").unwrap().host(), snapshot.linear(number).unwrap());
                let request = request(ModeChoice::AsPeft, None, None);
                let y = run_forward(&context, linear, &x, &request, base.host());
                let what = format!("{} {module} y, {backend}", case.name);
                assert_close(&what, &y.values(), &wanted.values, of(x.dtype()));
                let delta = run_forward(&context, linear, &x, &request, Host::zeros(x.rows(), wanted.shape[1]));
                let (wanted, bound) = wanted_delta(&case, module, base, wanted, &x);
                assert_close(&format!("{} {module} delta, {backend}", case.name), &delta.values(), &wanted, bound);
                judged += 1;
            }
        }
    }
    assert!(judged >= 4 * 12, "{judged}");
}

/// x times PEFT's own change of the weight; where the case has none, what y has beyond the base, which is rounded as y is.
fn wanted_delta(case: &Case, module: &str, base: &Tensor, y: &Tensor, x: &Host) -> (Vec<f64>, f64) {
    let Some(weight) = case.get(module, "delta_weight") else {
        let delta: Vec<f64> =
            y.values.iter().zip(&base.values).map(|(y, base)| f64::from(*y) - f64::from(*base)).collect();
        let largest = |values: &mut dyn Iterator<Item = f64>| values.fold(0f64, |most, value| most.max(value.abs()));
        let ratio = largest(&mut y.values.iter().map(|value| f64::from(*value))) / largest(&mut delta.iter().copied());
        return (delta, of(x.dtype()) * ratio.max(1.0));
    };
    let (rows, inputs, outputs) = (x.rows(), x.cols(), y.shape[1]);
    let at = |output: usize, input: usize| match case.config.fan_in_fan_out {
        true => f64::from(weight.values[input * outputs + output]),
        false => f64::from(weight.values[output * inputs + input]),
    };
    let x = x.values();
    let entry = |row: usize, output: usize| {
        (0..inputs).map(|input| f64::from(x[row * inputs + input]) * at(output, input)).sum::<f64>()
    };
    let delta = (0..rows).flat_map(|row| (0..outputs).map(move |output| entry(row, output)));
    (delta.collect(), of(y.dtype))
}

#[test]
fn mu_and_logvar() {
    let mut judged = 0;
    for case in single_cases() {
        let snapshot = case.snapshot(Declared::BiasOnly);
        for (backend, context) in contexts() {
            for (number, module) in case.modules.iter().enumerate() {
                let Some(mu) = case.get(module, "mu") else { continue };
                let x = case.get(module, "x").unwrap().host();
                let (mut found_mu, mut found_logvar) =
                    (Host::zeros(mu.shape[0], mu.shape[1]), Host::zeros(mu.shape[0], mu.shape[1]));
                let linear = snapshot.linear(number).unwrap();
                let request = request(ModeChoice::AsPeft, None, None);
                let outputs = (found_mu.matrix_mut(), found_logvar.matrix_mut());
                latent(&context, linear, &x.matrix(), &request, &outputs.0, &outputs.1).unwrap();
                let what = format!("{} {module}, {backend}", case.name);
                assert_close(&format!("{what}: mu"), &found_mu.values(), &mu.values, of(x.dtype()));
                if let Some(logvar) = case.get(module, "logvar") {
                    assert_close(&format!("{what}: logvar"), &found_logvar.values(), &logvar.values, of(x.dtype()));
                }
                judged += 1;
            }
        }
    }
    assert!(judged >= 4 * 12, "{judged}");
}

#[test]
fn merging_gives_the_change_of_the_weight() {
    let mut judged = 0;
    for case in single_cases() {
        let snapshot = case.snapshot(Declared::WeightAndBias);
        let layout = if case.config.fan_in_fan_out { WeightLayout::InOut } else { WeightLayout::OutIn };
        for (backend, context) in contexts() {
            for (number, module) in case.modules.iter().enumerate() {
                let Some(wanted) = case.get(module, "delta_weight") else { continue };
                let zeros = Host::filled(wanted.dtype, wanted.shape[0], wanted.shape[1], 0, 0.0);
                let mut merged = zeros.clone();
                let request = MergeRequest { choice: Choice::First, layout, drop_sampling: false, wants_undo: true };
                let linear = snapshot.linear(number).unwrap();
                merge(&context, linear, &request, &zeros.matrix(), &merged.matrix_mut()).unwrap();
                let what = format!("{} {module} delta weight, {backend}", case.name);
                assert_close(&what, &merged.values(), &wanted.values, of(wanted.dtype));
                judged += 1;
            }
        }
    }
    assert!(judged >= 4 * 11, "{judged}");
}

#[test]
fn a_learned_bias_takes_the_place_of_a_declared_one() {
    for name in ["bias_all", "bias_and_head"] {
        let case = Case::open(name);
        let module = &case.modules[0];
        let (x, wanted) = (case.get(module, "x").unwrap().host(), case.get(module, "y_mean").unwrap());
        for (backend, context) in contexts() {
            let request = request(ModeChoice::AsPeft, None, None);
            let with_weight = case.snapshot(Declared::WeightAndOtherBias);
            let y = Host::filled(Dtype::F32, wanted.shape[0], wanted.shape[1], 3, f32::NAN);
            let y = run_forward(&context, with_weight.linear(0).unwrap(), &x, &request, y);
            assert_close(&format!("{name}, {backend}"), &y.values(), &wanted.values, 1e-6);
            // The host's base knows only the declared bias.
            let delta_only = case.snapshot(Declared::OtherBiasOnly);
            let base: Vec<f32> =
                case.get(module, "base").unwrap().values.iter().map(|value| value + BIAS_SHIFT).collect();
            let y = Host::f32(wanted.shape[0], wanted.shape[1], &base);
            let y = run_forward(&context, delta_only.linear(0).unwrap(), &x, &request, y);
            assert_close(&format!("{name} delta only, {backend}"), &y.values(), &wanted.values, 1e-6);
        }
    }
}

#[test]
fn inference_that_samples() {
    let case = Case::open("sample_at_inference");
    let snapshot = case.snapshot(Declared::WeightAndBias);
    assert_eq!(case.modules, ["tiny", "wide"]);
    for (backend, context) in contexts() {
        for (number, module) in case.modules.iter().enumerate() {
            let (x, wanted) = (case.get(module, "x").unwrap().host(), case.get(module, "y_sample").unwrap());
            let eps = torch_eps(&case, module).unwrap();
            let y = Host::zeros(wanted.shape[0], wanted.shape[1]);
            // The adapter's own `sample_at_inference` asks for the sample.
            let request = request(ModeChoice::AsPeft, Some(&eps), None);
            let y = run_forward(&context, snapshot.linear(number).unwrap(), &x, &request, y);
            assert_close(&format!("{module}, {backend}"), &y.values(), &wanted.values, 1e-6);
        }
    }
}

#[test]
fn training_steps() {
    for name in ["train_step", "dropout_step"] {
        let case = Case::open(name);
        let snapshot = case.snapshot(Declared::WeightAndBias);
        for (backend, context) in contexts() {
            for (number, module) in case.modules.iter().enumerate() {
                let get = |tensor: &str| case.get(module, tensor).unwrap();
                let (x, dy, eps) = (get("x").host(), [get("dy").host()], torch_eps(&case, module).unwrap());
                let mask = case.get(module, "mask").map(Tensor::host);
                assert_eq!(mask.is_some(), name == "dropout_step");
                let linears = vec![snapshot.linear(number).unwrap()];
                let step = Step::new(linears, &[0], &x, &dy, request(ModeChoice::AsPeft, Some(&eps), mask.as_ref()));
                let found = run(&context, &step).unwrap();
                let what = |tensor: &str| format!("{name} {module} {tensor}, {backend}");
                let own = &found.layers[0][0];
                assert_close(&what("y"), &found.y[0].values(), &get("y_train").values, 1e-6);
                assert_close(&what("dx"), &found.dx.values(), &get("dx").values, GRADIENTS);
                assert_close(&what("dλ_b"), &own.lambda_b, &get("dlambda_b").values, GRADIENTS);
                assert_close(&what("dλ_d"), &own.lambda_d, &get("dlambda_d").values, GRADIENTS);
                if name == "train_step" {
                    let zeros = [Host::zeros(x.rows(), dy[0].cols())];
                    let found = run(&context, &Step { dy: &zeros, kl: Kl { weight: 1.0, mean: true }, ..step.clone() })
                        .unwrap();
                    assert_close(&what("KL"), &found.kl, &get("kl_mean").values, GRADIENTS);
                    assert_close(&what("KL dx"), &found.dx.values(), &get("kl_dx").values, GRADIENTS);
                    let own = &found.layers[0][0];
                    assert_close(&what("KL dλ_d"), &own.lambda_d, &get("kl_dlambda_d").values, GRADIENTS);
                    assert!(own.lambda_b.iter().all(|value| *value == 0.0), "the divergence does not know λ_b");
                }
            }
        }
    }
}

#[test]
fn two_adapters_alone_together_and_none() {
    let case = Case::open("two_adapters");
    let snapshot = case.snapshot(Declared::WeightAndBias);
    let (linear, x) = (snapshot.linear(0).unwrap(), case.get("q_proj", "x").unwrap().host());
    let store = |slot: i32| std::sync::Arc::as_ptr(snapshot.slots().get(slot).unwrap().adapter.store());
    assert_eq!(store(0), store(1), "equal projections are one store");
    let sums: [(&str, &[(i32, f32)]); 4] =
        [("y_none", &[]), ("y_first", &[(0, 1.0)]), ("y_second", &[(1, 1.0)]), ("y_both", &[(0, 1.0), (1, 1.0)])];
    for (backend, context) in contexts() {
        for (name, active) in sums {
            let wanted = case.get("q_proj", name).unwrap();
            let rows = Rows { choice: Choice::Sum(active), ..Rows::default() };
            let y = Host::zeros(wanted.shape[0], wanted.shape[1]);
            let y = run_forward(&context, linear, &x, &Request { rows, ..Request::default() }, y);
            assert_close(&format!("{name}, {backend}"), &y.values(), &wanted.values, 1e-6);
        }
        for (slot, name) in [(-1, "y_none"), (0, "y_first"), (1, "y_second")] {
            let wanted = case.get("q_proj", name).unwrap();
            let slots = vec![slot; x.rows()];
            let rows = Rows { choice: Choice::PerRow(&slots), ..Rows::default() };
            let y = Host::zeros(wanted.shape[0], wanted.shape[1]);
            let y = run_forward(&context, linear, &x, &Request { rows, ..Request::default() }, y);
            assert_close(&format!("{name} by row, {backend}"), &y.values(), &wanted.values, 1e-6);
        }
    }
}

#[test]
fn mean_mode_is_what_peft_does_without_sampling() {
    let case = Case::open("seed_only");
    let snapshot = case.snapshot(Declared::WeightAndBias);
    let x = case.get("q_proj", "x").unwrap().host();
    let context = &contexts()[0].1;
    let outcomes = [ModeChoice::AsPeft, ModeChoice::All(Mode::Mean), ModeChoice::All(Mode::Fixed)].map(|mode| {
        run_forward(context, snapshot.linear(0).unwrap(), &x, &request(mode, None, None), Host::zeros(7, 48)).bits()
    });
    assert_eq!(outcomes[0], outcomes[1]);
    assert_ne!(outcomes[0], outcomes[2]);
}

/// A and B of a case's file, as a store.
fn saved_store(case: &Case) -> Option<Store> {
    let allocator = Allocator::default();
    let frozen = |key: &str| {
        let tensor = case.adapter.get(key)?;
        Some(Frozen::from_f32(&allocator, &tensor.values, tensor.shape[0], tensor.shape[1]).unwrap())
    };
    Some(Store::new(frozen("base_model.pvera_A")?, frozen("base_model.pvera_B")?, Dtype::F32).unwrap())
}

#[test]
fn projections_from_the_key_are_those_of_the_file_bit_for_bit() {
    let mut compared = 0;
    for case in single_cases() {
        let Some(saved) = saved_store(&case) else { continue };
        let x_dtype = case.get(&case.modules[0], "x").unwrap().dtype;
        let size = Size { method: Method::Pvera, rank: saved.rank(), in_max: saved.in_max(), out_max: saved.out_max() };
        let drawn = Store::from_key(&Allocator::default(), case.config.projection_prng_key, size, x_dtype).unwrap();
        assert!(drawn.same_values(&saved), "{}", case.name);
        compared += 1;
    }
    assert_eq!(compared, 11);
}

#[test]
fn large_projections_from_the_key() {
    let text = std::fs::read(root().join("large_projections.json")).unwrap();
    let case: serde_json::Value = serde_json::from_slice(&text).unwrap();
    let number = |name: &str| case[name].as_u64().unwrap();
    let size = Size {
        method: Method::Pvera,
        rank: number("r") as usize,
        in_max: number("in_max") as usize,
        out_max: number("out_max") as usize,
    };
    let store = Store::from_key(&Allocator::default(), number("projection_prng_key"), size, Dtype::F32).unwrap();
    for (name, matrix) in [("A", store.a()), ("B", store.b())] {
        let matrix = matrix.matrix();
        let mut values = vec![0.0; matrix.rows() * matrix.cols()];
        values.chunks_exact_mut(matrix.cols()).enumerate().for_each(|(row, values)| matrix.load(row, 0, values));
        let ends = [values[0], values[values.len() - 1]].map(f64::from);
        let wanted = &case[format!("{name}_first_last")];
        assert_eq!(ends, [0, 1].map(|end| wanted[end].as_f64().unwrap()), "{name}");
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        assert_eq!(sha256(&bytes), case[format!("sha256_{name}_f32_le")].as_str().unwrap(), "{name}");
    }
}
