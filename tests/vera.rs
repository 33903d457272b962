//! VeRA, which is PVeRA without the logvar half: PEFT's checkpoints give PEFT's outputs and gradients, are saved as
//! PEFT wrote them, run beside PVeRA's, and what has no meaning without a variance is refused. Where `PVERA_PEFT_OUT`
//! names a folder, checkpoints are written there for `tests/peft/read_ours.py`.

mod common;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::contexts;
use common::golden::{Case, Declared, read};
use common::host::Host;
use common::step::{Outcome, Step, run};
use common::tolerance::assert_close;
use pvera::adapter::{Adapter, LoadOptions, store_from_memory};
use pvera::backend::{Kl, Mode};
use pvera::config::{Config, Method};
use pvera::context::Context;
use pvera::error::Code;
use pvera::linear::{
    Choice, Linear, MergeRequest, ModeChoice, Noise, Request, Rows, forward, latent, merge, moments, sample,
};
use pvera::memory::Allocator;
use pvera::model::{Model, WeightLayout};
use pvera::projection::{Size, Store};
use pvera::tensor::Dtype;

const CASES: [&str; 4] = ["vera/shapes", "vera/seed_only", "vera/dropout", "vera/bias_and_head"];

/// Of f32, summed in another order.
const FORWARD: f64 = 1e-6;
const GRADIENTS: f64 = 1e-5;

fn load(case: &Case, model: &Model) -> Adapter {
    Adapter::load(model, &case.folder, &LoadOptions::default()).unwrap()
}

fn noise(mode: ModeChoice) -> Request<'static> {
    Request { noise: Noise { mode, ..Noise::default() }, ..Request::default() }
}

fn run_forward(context: &Context, linear: &Linear, x: &Host, request: &Request<'_>) -> Host {
    let mut y = Host::zeros(x.rows(), linear.layer().out_features);
    forward(context, &[linear], &x.matrix(), request, &[y.matrix_mut()]).unwrap();
    y
}

#[test]
fn outputs_and_gradients_are_pefts() {
    for name in CASES {
        let case = Case::open(name);
        let snapshot = case.snapshot(Declared::WeightAndBias);
        for (backend, context) in contexts() {
            for (number, module) in case.modules.iter().enumerate() {
                let get = |tensor: &str| case.get(module, tensor).unwrap();
                let what = |tensor: &str| format!("{name} {module} {tensor}, {backend}");
                let (x, dy) = (get("x").host(), [get("dy").host()]);
                let linear = snapshot.linear(number).unwrap();
                let y = run_forward(&context, linear, &x, &Request::default());
                assert_close(&what("y_mean"), &y.values(), &get("y_mean").values, FORWARD);
                let mask = case.get(module, "mask").map(|mask| mask.host());
                assert_eq!(mask.is_some(), name == "vera/dropout");
                let request = Request {
                    noise: Noise { dropout_mask: mask.as_ref().map(Host::matrix), ..Noise::default() },
                    ..Request::default()
                };
                let step = Step { divergence: false, ..Step::new(vec![linear], &[0], &x, &dy, request) };
                let found = run(&context, &step).unwrap();
                let own = &found.layers[0][0];
                assert_close(&what("y_train"), &found.y[0].values(), &get("y_train").values, FORWARD);
                assert_close(&what("dx"), &found.dx.values(), &get("dx").values, GRADIENTS);
                assert_close(&what("dλ_b"), &own.lambda_b, &get("dlambda_b").values, GRADIENTS);
                assert_close(&what("dλ_d"), &own.lambda_d, &get("dlambda_d").values, GRADIENTS);
                assert!(found.variance[0].iter().all(|value| *value == 0.0), "{}", what("variance"));
            }
        }
    }
}

#[test]
fn a_merge_is_pefts() {
    for name in CASES {
        let case = Case::open(name);
        let snapshot = case.snapshot(Declared::WeightAndBias);
        let layout = if case.config.fan_in_fan_out { WeightLayout::InOut } else { WeightLayout::OutIn };
        for (backend, context) in contexts() {
            for (number, module) in case.modules.iter().enumerate() {
                let wanted = case.get(module, "delta_weight").unwrap();
                let zeros = Host::zeros(wanted.shape[0], wanted.shape[1]);
                let mut merged = zeros.clone();
                let request = MergeRequest { choice: Choice::First, layout, drop_sampling: false, wants_undo: false };
                let linear = snapshot.linear(number).unwrap();
                merge(&context, linear, &request, &zeros.matrix(), &merged.matrix_mut()).unwrap();
                assert_close(&format!("{name} {module}, {backend}"), &merged.values(), &wanted.values, FORWARD);
            }
        }
    }
}

#[test]
fn the_latent_is_its_mean_and_has_no_variance() {
    let case = Case::open("vera/shapes");
    let snapshot = case.snapshot(Declared::WeightAndBias);
    let x = case.get("up", "x").unwrap().host();
    let number = case.modules.iter().position(|module| module == "up").unwrap();
    let linear = snapshot.linear(number).unwrap();
    for (backend, context) in contexts() {
        let mean = run_forward(&context, linear, &x, &Request::default());
        for mode in [Mode::Mean, Mode::Sample, Mode::Fixed] {
            let y = run_forward(&context, linear, &x, &noise(ModeChoice::All(mode)));
            assert_eq!(y.bits(), mean.bits(), "{backend}: {}", mode.name());
        }
        let mut draws = Host::zeros(2 * x.rows(), 20);
        sample(&context, linear, &x.matrix(), &Request::default(), 2, &draws.matrix_mut()).unwrap();
        assert_eq!(draws.values()[..mean.values().len()], mean.values(), "{backend}");
        assert_eq!(draws.values()[mean.values().len()..], mean.values(), "{backend}");

        let (mut found, mut variance) =
            (Host::zeros(x.rows(), 20), Host::filled(Dtype::F32, x.rows(), 20, 0, f32::NAN));
        moments(&context, linear, &x.matrix(), &Request::default(), &found.matrix_mut(), &variance.matrix_mut())
            .unwrap();
        assert_close(&format!("{backend}: mean"), &found.values(), &mean.values(), FORWARD);
        assert!(variance.values().iter().all(|value| *value == 0.0), "{backend}: {:?}", variance.values());

        let (mut mu, mut logvar) = (Host::zeros(x.rows(), 5), Host::zeros(x.rows(), 5));
        latent(&context, linear, &x.matrix(), &Request::default(), &mu.matrix_mut(), &logvar.matrix_mut()).unwrap();
        assert!(logvar.values().iter().all(|value| *value == f32::NEG_INFINITY), "{backend}: {:?}", logvar.values());
        let a = &case.adapter["base_model.vera_A"];
        let lambda_d = &case.vector("up", "vera_lambda_d").unwrap().values;
        let (values, inputs) = (x.values(), x.cols());
        let entry = |row: usize, k: usize| {
            let terms =
                (0..inputs).map(|i| f64::from(values[row * inputs + i]) * f64::from(a.values[k * a.shape[1] + i]));
            f64::from(lambda_d[k]) * terms.sum::<f64>()
        };
        let wanted: Vec<f64> =
            (0..x.rows()).flat_map(|row| (0..5).map(move |k| (row, k))).map(|(row, k)| entry(row, k)).collect();
        assert_close(&format!("{backend}: mu"), &mu.values(), &wanted, FORWARD);
    }
}

#[test]
fn a_divergence_is_refused() {
    let case = Case::open("vera/shapes");
    let snapshot = case.snapshot(Declared::WeightAndBias);
    let number = case.modules.iter().position(|module| module == "up").unwrap();
    let (x, dy) = (case.get("up", "x").unwrap().host(), [case.get("up", "dy").unwrap().host()]);
    for (backend, context) in contexts() {
        let step = Step::new(vec![snapshot.linear(number).unwrap()], &[0], &x, &dy, Request::default());
        let weighted = Step { divergence: false, kl: Kl { weight: 0.5, mean: true }, ..step.clone() };
        for step in [step, weighted] {
            let error = run(&context, &step).err().unwrap_or_else(|| panic!("{backend}: a divergence was given"));
            assert_eq!(error.code(), Code::Unsupported);
            assert_eq!(
                error.message(),
                "layer 'up': the adapter of slot 0 is VeRA's, whose latent has no variance, so that its divergence is infinite; wanted gradients.kl_weight 0 and kl_value NULL"
            );
        }
    }
}

#[test]
fn a_save_is_what_peft_wrote() {
    for name in CASES {
        let case = Case::open(name);
        let saved = load(&case, &case.model(Declared::WeightAndBias)).checkpoint().unwrap();
        let file = |name: &str| std::fs::read(case.folder.join(name)).unwrap();
        assert_eq!(String::from_utf8(saved.config), String::from_utf8(file("adapter_config.json")), "{name}");
        assert!(saved.tensors == file("adapter_model.safetensors"), "{name}: other bytes");
    }
}

#[test]
fn projections_from_the_key_are_those_of_the_file() {
    for name in ["vera/shapes", "vera/dropout", "vera/bias_and_head"] {
        let case = Case::open(name);
        let saved = load(&case, &case.model(Declared::WeightAndBias)).store().clone();
        let (rank, in_max, out_max) = (saved.rank(), saved.in_max(), saved.out_max());
        assert_eq!((rank, saved.a().rows()), (case.config.rank, case.config.rank));
        let size = Size { method: Method::Vera, rank, in_max, out_max };
        let key = case.config.projection_prng_key;
        assert!(Store::from_key(&Allocator::default(), key, size, Dtype::F32).unwrap().same_values(&saved), "{name}");
    }
}

/// A VeRA and a PVeRA adapter of one model, in slots 0 and 1.
fn both() -> (Case, Model) {
    let case = Case::open("vera/shapes");
    let model = case.model(Declared::WeightAndBias);
    model.publish("vera", Arc::new(load(&case, &model))).unwrap();
    let mut config = Config { rank: 4, ..Config::default() };
    config.set_json("target_modules", r#"["up", "down"]"#).unwrap();
    let mut pvera = Adapter::create(&model, &config, None, &LoadOptions::default()).unwrap();
    let mut random = common::Random(5);
    let values = random.values(pvera.parameters().len());
    pvera.parameters_mut().unwrap().all_mut().copy_from_slice(&values);
    model.publish("pvera", Arc::new(pvera)).unwrap();
    (case, model)
}

#[test]
fn a_batch_of_both_methods_has_the_bits_of_each_alone() {
    let (case, model) = both();
    let snapshot = model.snapshot().unwrap();
    for (backend, context) in contexts() {
        for (number, module) in case.modules.iter().enumerate() {
            let linear = snapshot.linear(number).unwrap();
            let (x, dy) = (case.get(module, "x").unwrap().host(), [case.get(module, "dy").unwrap().host()]);
            let with = |slots: &[i32]| -> Outcome {
                let rows = Rows { choice: Choice::PerRow(slots), ..Rows::default() };
                let request = Request { rows, ..noise(ModeChoice::All(Mode::Sample)) };
                let step = Step { divergence: false, ..Step::new(vec![linear], &[0, 1], &x, &dy, request) };
                let used = [0, 1].into_iter().filter(|slot| slots.contains(slot)).collect::<Vec<i32>>();
                run(&context, &Step { slots: &used, ..step }).unwrap()
            };
            let slots: Vec<i32> = (0..x.rows() as i32).map(|row| row % 3 - 1).collect();
            let mixed = with(&slots);
            for slot in [0, 1] {
                let alone = with(&vec![slot; x.rows()]);
                let own = slots.iter().map(|other| if *other == slot { slot } else { -1 }).collect::<Vec<i32>>();
                for row in (0..x.rows()).filter(|row| slots[*row] == slot) {
                    for (one, other) in [(&mixed.y[0], &alone.y[0]), (&mixed.dx, &alone.dx)] {
                        let part = row * one.cols()..(row + 1) * one.cols();
                        assert_eq!(one.bits()[part.clone()], other.bits()[part], "{backend} {module} row {row}");
                    }
                }
                let own = with(&own);
                let (one, other) = (&mixed.layers[0][slot as usize], &own.layers[0][0]);
                let what = format!("{backend} {module} slot {slot}");
                assert_eq!(common::bits(&one.lambda_b), common::bits(&other.lambda_b), "{what}");
                assert_eq!(common::bits(&one.lambda_d), common::bits(&other.lambda_d), "{what}");
            }
        }
    }
}

#[test]
fn both_methods_summed_are_both_deltas() {
    let (case, model) = both();
    let snapshot = model.snapshot().unwrap();
    for (backend, context) in contexts() {
        for (number, module) in case.modules.iter().enumerate() {
            let (linear, x) = (snapshot.linear(number).unwrap(), case.get(module, "x").unwrap().host());
            let with = |active: &[(i32, f32)]| {
                let rows = Rows { choice: Choice::Sum(active), ..Rows::default() };
                run_forward(&context, linear, &x, &Request { rows, ..noise(ModeChoice::All(Mode::Sample)) }).values()
            };
            let (base, both) = (with(&[]), with(&[(0, 1.0), (1, 0.5)]));
            let (vera, pvera) = (with(&[(0, 1.0)]), with(&[(1, 0.5)]));
            let of = |at: usize| f64::from(vera[at]) + f64::from(pvera[at]) - f64::from(base[at]);
            let wanted: Vec<f64> = (0..base.len()).map(of).collect();
            assert_close(&format!("{backend} {module}"), &both, &wanted, 4.0 * FORWARD);
        }
    }
}

#[test]
fn adapters_of_one_lambda_d_are_combined_exactly() {
    let case = Case::open("vera/shapes");
    let model = case.model(Declared::WeightAndBias);
    let first = load(&case, &model);
    let mut second = first.trainable(&Allocator::default()).unwrap();
    for layer in [0, 1] {
        let range = second.ranges(layer).unwrap().lambda_b.range();
        let values = common::Random(layer as u64).values(range.len());
        second.parameters_mut().unwrap().all_mut()[range].copy_from_slice(&values);
    }
    let (own, rest) = Adapter::combined(&[(&first, 0.75), (&second, -2.0)], &Allocator::default()).unwrap();
    assert!(rest < 1e-6, "{rest}");
    assert_eq!(own.config().method, Method::Vera);
    for (name, adapter) in [("first", first), ("second", second), ("combined", own)] {
        model.publish(name, Arc::new(adapter)).unwrap();
    }
    let snapshot = model.snapshot().unwrap();
    for (number, module) in case.modules.iter().enumerate() {
        let x = case.get(module, "x").unwrap().host();
        let of = |active: &[(i32, f32)]| {
            let rows = Rows { choice: Choice::Sum(active), ..Rows::default() };
            let request = Request { rows, ..Request::default() };
            run_forward(&contexts()[0].1, snapshot.linear(number).unwrap(), &x, &request).values()
        };
        assert_close(module, &of(&[(2, 1.0)]), &of(&[(0, 0.75), (1, -2.0)]), 4.0 * FORWARD);
    }
}

/// As PEFT's `reset_vera_parameters`; trained by hand, saved and loaded again.
#[test]
fn an_adapter_made_here_is_saved_and_loaded() {
    let case = Case::open("vera/seed_only");
    let model = case.model(Declared::WeightAndBias);
    let mut config = Config::default();
    config.set_text("peft_type", "VERA").unwrap();
    config.set_int("r", 3).unwrap();
    config.set_real("vera_dropout", 0.5).unwrap();
    config.set_text("bias", "vera_only").unwrap();
    config.set_json("target_modules", r#"["q_proj", "v_proj"]"#).unwrap();
    config.set_bool("save_projection", false).unwrap();
    let error = config.set_bool("sample_at_inference", true).unwrap_err();
    assert_eq!(error.message(), "sample_at_inference is no field of VERA, the peft_type");
    let mut adapter = Adapter::create(&model, &config, None, &LoadOptions::default()).unwrap();
    let vectors = adapter.vectors(0).unwrap();
    assert_eq!((&vectors.lambda_b[..], &vectors.lambda_d[..]), (&[0.0; 24][..], &[0.1; 3][..]));
    let values = common::Random(8).values(adapter.parameters().len());
    adapter.parameters_mut().unwrap().all_mut().copy_from_slice(&values);
    let saved = adapter.checkpoint().unwrap();
    assert!(String::from_utf8_lossy(&saved.config).contains(r#""vera_dropout": 0.5"#));
    let again = Adapter::from_memory(&model, &saved.config, &saved.tensors, &LoadOptions::default()).unwrap();
    assert_eq!(again.parameters().all(), values);
    assert!(Arc::ptr_eq(again.store(), adapter.store()));
    assert_eq!(again.checkpoint().unwrap(), saved);
    model.publish("ours", Arc::new(again)).unwrap();
    let snapshot = model.snapshot().unwrap();
    if let Some(out) = out() {
        let folder = out.join("vera_created_here");
        adapter.save(&folder).unwrap();
        write_for_peft(&folder, &case, |number, x| {
            run_forward(&contexts()[0].1, snapshot.linear(number).unwrap(), x, &Request::default())
        });
    }
}

#[test]
fn a_store_of_the_other_method_is_refused() {
    let (case, model) = both();
    let snapshot = model.snapshot().unwrap();
    let store = snapshot.slots().get(0).unwrap().adapter.store().clone();
    let config = Config { method: Method::Pvera, ..case.config.clone() };
    let error = Adapter::create(&model, &config, Some(store), &LoadOptions::default()).unwrap_err();
    assert_eq!(error.code(), Code::Projection);
    assert_eq!(error.message(), "A of the store has 5 rows; wanted 10, since r is 5 and peft_type is PVERA");
}

#[test]
fn a_file_holds_the_projections_that_its_names_say() {
    let file = |method: &str, rows: usize| {
        let named = |name: &str, matrix: Host| (format!("base_model.{method}_{name}"), matrix);
        file_of(&[named("A", Host::f32(rows, 3, &vec![0.5; 3 * rows])), named("B", Host::f32(5, 2, &[0.5; 10]))])
    };
    let read = |method: &str, rows: usize| store_from_memory(&file(method, rows), &Allocator::default());
    for (method, rows, wanted) in [("vera", 2, Method::Vera), ("pvera", 4, Method::Pvera)] {
        assert_eq!(read(method, rows).unwrap().method(), wanted);
    }
    for (method, rows, form) in [("vera", 4, "r"), ("pvera", 2, "2r"), ("vera", 3, "r")] {
        let error = read(method, rows).err().unwrap();
        assert_eq!(error.code(), Code::Projection);
        let wanted = format!(
            "the tensors in memory: base_model.{method}_A has shape [{rows}, 3]; wanted [{form}, in_max] with r = 2, \
             the columns of base_model.{method}_B"
        );
        assert_eq!(error.message(), wanted);
    }
}

fn out() -> Option<PathBuf> {
    let out = PathBuf::from(std::env::var_os("PVERA_PEFT_OUT")?);
    std::fs::create_dir_all(&out).unwrap();
    Some(out)
}

/// Ours, of the golden cases and after a change, for PEFT to read.
#[test]
fn saved_checkpoints_give_the_same_outputs() {
    let context = &contexts()[0].1;
    let temporary = std::env::temp_dir().join(format!("pvera-vera-{}", std::process::id()));
    let root = out().unwrap_or_else(|| temporary.clone());
    std::fs::create_dir_all(&root).unwrap();
    for name in CASES {
        let case = Case::open(name);
        let model = case.model(Declared::WeightAndBias);
        let mut adapter = load(&case, &model).trainable(&Allocator::default()).unwrap();
        adapter.parameters_mut().unwrap().all_mut().iter_mut().for_each(|value| *value *= 1.5);
        let folder = root.join(name.replace('/', "_"));
        adapter.save(&folder).unwrap();
        let again = Adapter::load(&model, &folder, &LoadOptions::default()).unwrap();
        assert!(read(&folder.join("adapter_model.safetensors")).keys().all(|key| !key.contains("pvera")));
        model.publish("ours", Arc::new(adapter.frozen(&Allocator::default()).unwrap())).unwrap();
        model.publish("again", Arc::new(again)).unwrap();
        let snapshot = model.snapshot().unwrap();
        let of = |slot: i32, number: usize, x: &Host| {
            let rows = Rows { choice: Choice::Sum(&[(slot, 1.0)]), ..Rows::default() };
            run_forward(context, snapshot.linear(number).unwrap(), x, &Request { rows, ..Request::default() })
        };
        for (number, module) in case.modules.iter().enumerate() {
            let x = case.get(module, "x").unwrap().host();
            assert_eq!(of(0, number, &x).bits(), of(1, number, &x).bits(), "{name} {module}");
        }
        if root != temporary {
            write_for_peft(&folder, &case, |number, x| of(0, number, x));
        }
    }
    let _ = std::fs::remove_dir_all(&temporary);
}

/// What `read_ours.py` compares with.
fn write_for_peft(folder: &Path, case: &Case, y: impl Fn(usize, &Host) -> Host) {
    std::fs::copy(case.folder.join("base.safetensors"), folder.join("base.safetensors")).unwrap();
    let mut io = Vec::new();
    for (number, module) in case.modules.iter().enumerate() {
        let x = case.get(module, "x").unwrap().host();
        io.push((format!("{module}/y_mean"), y(number, &x)));
        io.push((format!("{module}/x"), x));
    }
    std::fs::write(folder.join("io.safetensors"), file_of(&io)).unwrap();
}

fn file_of(matrices: &[(String, Host)]) -> Vec<u8> {
    let bytes: Vec<Vec<u8>> = matrices
        .iter()
        .map(|(_, matrix)| matrix.values().iter().flat_map(|value| value.to_le_bytes()).collect())
        .collect();
    let views = matrices.iter().zip(&bytes).map(|((name, matrix), bytes)| {
        let shape = vec![matrix.rows(), matrix.cols()];
        (name.as_str(), safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape, bytes).unwrap())
    });
    safetensors::serialize(views, None).unwrap()
}
