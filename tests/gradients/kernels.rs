//! The kernels' forward and backward against the oracle: every shape, mode, adapter mix and element type.

use pvera::backend::{Kl, Mode, RowKeys};
use pvera::config::{Bias, Config, Targets};
use pvera::linear::{Choice, ModeChoice, Noise, Request, Rows};
use pvera::model::WeightLayout;
use pvera::tensor::Dtype;

use crate::common::host::Host;
use crate::common::layers::{Spec, config, spec};
use crate::common::setup::Setup;

const KL: Kl = Kl { weight: 0.3, mean: true };
const SUMMED_KL: Kl = Kl { weight: 0.02, mean: false };

fn sampled<'a>(choice: Choice<'a>) -> Request<'a> {
    let noise = Noise { seed: 5, ..Noise::default() };
    Request { rows: Rows { choice, ..Rows::default() }, noise, training: true }
}

fn in_mode(mode: Mode) -> Request<'static> {
    Request { noise: Noise { mode: ModeChoice::All(mode), seed: 5, ..Noise::default() }, ..sampled(Choice::First) }
}

/// Every value of a row's slot, −1 included, in no order.
fn mixed_slots(rows: usize, slots: usize) -> Vec<i32> {
    (0..rows).map(|row| (row * 7 / 3 % (slots + 1)) as i32 - 1).collect()
}

#[test]
fn rows_around_every_block() {
    for rows in [0, 1, 2, 3, 15, 16, 17, 63, 64, 65, 127, 128, 129, 511, 512, 513] {
        let setup = Setup::new(1, &[spec("layer", 11, 13)], &[config(5, 1)], rows);
        setup.agree(&format!("{rows} rows"), &sampled(Choice::First), |step| step.kl = KL);
    }
}

#[test]
fn inputs_around_every_block() {
    for inputs in [1, 2, 3, 15, 16, 17, 31, 63, 64, 65, 127, 128, 129, 255, 256, 257, 511, 512, 513, 521] {
        let setup = Setup::new(2, &[spec("layer", inputs, 7)], &[config(3, 1)], 6);
        setup.agree(&format!("{inputs} inputs"), &sampled(Choice::First), |_| {});
    }
}

#[test]
fn outputs_around_every_block() {
    for outputs in [1, 2, 3, 15, 16, 17, 63, 64, 65, 127, 128, 129, 255, 256, 257, 511, 512, 513, 521] {
        let setup = Setup::new(3, &[spec("layer", 9, outputs)], &[config(4, 1)], 5);
        setup.agree(&format!("{outputs} outputs"), &sampled(Choice::First), |_| {});
    }
}

#[test]
fn ranks_around_every_block() {
    for rank in [1, 2, 3, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 255, 256, 257, 521] {
        let setup = Setup::new(4, &[spec("layer", 10, 12)], &[config(rank, 1)], 4);
        setup.agree(&format!("rank {rank}"), &sampled(Choice::First), |step| step.kl = KL);
    }
}

#[test]
fn every_mode_with_and_without_divergence() {
    let setup = Setup::new(5, &[spec("layer", 37, 41)], &[config(19, 1)], 23);
    for mode in [Mode::Mean, Mode::Sample, Mode::Fixed] {
        for kl in [Kl::default(), KL, SUMMED_KL] {
            setup.agree(&format!("{mode:?}, {kl:?}"), &in_mode(mode), |step| step.kl = kl);
        }
    }
}

#[test]
fn both_orientations_and_no_weight() {
    for weight in [None, Some(Dtype::F32), Some(Dtype::F16), Some(Dtype::Bf16)] {
        for layout in [WeightLayout::OutIn, WeightLayout::InOut] {
            for bias in [false, true] {
                // More than one panel of a widened weight in both directions.
                let layer = Spec { weight, layout, bias, padding: 3, ..spec("layer", 300, 530) };
                let setup = Setup::new(6, &[layer], &[config(8, 1)], 5);
                setup.agree(&format!("{weight:?} {layout:?} {bias}"), &sampled(Choice::First), |_| {});
            }
        }
    }
}

#[test]
fn element_types_strides_and_accumulation() {
    for dtype in [Dtype::F32, Dtype::F16, Dtype::Bf16] {
        for (padding, overwrite) in [(0, true), (0, false), (5, true), (5, false)] {
            for weight in [None, Some(dtype)] {
                let specs = [Spec { weight, ..spec("layer", 33, 29) }];
                let setup = Setup::new(7, &specs, &[config(6, 1), config(3, 2)], 19).in_type(dtype, padding);
                let request = sampled(Choice::Sum(&[(0, 1.0), (1, -0.5)]));
                setup.agree(&format!("{dtype:?}, {padding}, {overwrite}, {weight:?}"), &request, |step| {
                    (step.padding, step.overwrite) = (padding, overwrite);
                });
            }
        }
    }
}

#[test]
fn rounded_projections_and_a_factor() {
    let mut random = crate::common::Random(70);
    let model = crate::common::layers::model(&mut random, &[spec("layer", 20, 600)]);
    for (number, base_dtype) in [Dtype::Bf16, Dtype::F16].into_iter().enumerate() {
        let options = pvera::adapter::LoadOptions { base_dtype: Some(base_dtype), ..Default::default() };
        let config = Config { alpha: 2.5, ..config(7, number as u64) };
        let adapter = crate::common::layers::trainable(&model, &mut random, &config, &options);
        assert_eq!(adapter.store().a().dtype(), base_dtype);
        model.publish(&format!("{number}"), adapter.into()).unwrap();
    }
    let x = Host::f32(9, 20, &random.values(180));
    let dy = vec![Host::f32(9, 600, &random.values(5400))];
    let setup = Setup { snapshot: model.snapshot().unwrap(), x, dy, slots: vec![0, 1], random };
    setup.agree("a sum", &sampled(Choice::Sum(&[(0, 1.0), (1, 1.0)])), |step| step.kl = KL);
    let slots = mixed_slots(9, 2);
    setup.agree("by row", &sampled(Choice::PerRow(&slots)), |step| step.kl = KL);
}

/// Two of one store, one of another rank, one of another seed.
fn four_adapters() -> Vec<Config> {
    let narrow = Config { alpha: 2.0, ..config(3, 1) };
    vec![config(8, 1), narrow, config(8, 1), Config { logvar_bound: Some(0.1), ..config(8, 9) }]
}

#[test]
fn sums_of_adapters_with_scales() {
    let setup = Setup::new(8, &[spec("layer", 21, 34)], &four_adapters(), 70);
    let active = [(2, 0.5), (0, 1.0), (3, -2.0), (1, 1.5)];
    for kl in [KL, SUMMED_KL] {
        setup.agree("four", &sampled(Choice::Sum(&active)), |step| step.kl = kl);
    }
    let setup = Setup { slots: vec![], ..setup };
    setup.agree("none", &sampled(Choice::Sum(&[])), |_| {});
}

#[test]
fn one_adapter_a_row() {
    for rows in [1, 2, 9, 130, 600] {
        let setup = Setup::new(9, &[spec("layer", 21, 34)], &four_adapters(), rows);
        let slots = mixed_slots(rows, 4);
        let used: Vec<i32> = (0..4).filter(|slot| slots.contains(slot)).collect();
        let setup = Setup { slots: used, ..setup };
        setup.agree(&format!("{rows} rows"), &sampled(Choice::PerRow(&slots)), |step| step.kl = KL);
    }
    let setup = Setup::new(9, &[spec("layer", 21, 34)], &four_adapters(), 7);
    let setup = Setup { slots: vec![], ..setup };
    setup.agree("base alone", &sampled(Choice::PerRow(&[-1; 7])), |_| {});
}

fn qkv() -> [Spec; 3] {
    [
        spec("q", 26, 40),
        Spec { layout: WeightLayout::InOut, ..spec("k", 26, 17) },
        Spec { weight: None, ..spec("v", 26, 33) },
    ]
}

/// Of the second adapter, k has no vectors.
fn two_for_qkv(dropout: f64) -> Vec<Config> {
    let some = Targets::List(vec!["q".to_owned(), "v".to_owned()]);
    let first = Config { pvera_dropout: dropout, ..config(8, 1) };
    vec![first, Config { target_modules: some, pvera_dropout: dropout / 2.0, ..config(5, 2) }]
}

#[test]
fn groups_with_and_without_dropout() {
    for dropout in [0.0, 0.3] {
        let setup = Setup::new(10, &qkv(), &two_for_qkv(dropout), 37);
        setup.agree(&format!("one, {dropout}"), &sampled(Choice::Sum(&[(0, 1.0)])), |step| {
            (step.kl, step.slots) = (KL, &[0]);
        });
        setup.agree(&format!("sum, {dropout}"), &sampled(Choice::Sum(&[(1, 0.7), (0, 1.0)])), |step| step.kl = KL);
        let slots = mixed_slots(37, 2);
        for overwrite in [false, true] {
            setup.agree(&format!("by row, {dropout}"), &sampled(Choice::PerRow(&slots)), |step| {
                (step.kl, step.overwrite) = (KL, overwrite);
                // The base alone is a slot too, but has no gradients.
            });
        }
    }
}

#[test]
fn the_callers_mask_noise_and_prior() {
    let mut setup = Setup::new(11, &qkv(), &two_for_qkv(0.3), 18);
    let mask: Vec<f32> = (0..18 * 26).map(|_| if setup.random.below(3) == 0 { 0.0 } else { 1.5 }).collect();
    let mask = Host::new(Dtype::F32, 18, 26, 2, &mask);
    // A sum has columns for each layer and term, rows of one term each only for the widest.
    let slots = mixed_slots(18, 2);
    for (choice, latents) in [(Choice::Sum(&[(0, 1.0), (1, 0.7)][..]), 13 + 8 + 13), (Choice::PerRow(&slots), 8 * 3)] {
        let mut random = |padding| Host::new(Dtype::F32, 18, latents, padding, &setup.random.values(18 * latents));
        let (eps, dmu, dlogvar) = (random(1), random(0), random(4));
        let mut request = sampled(choice);
        (request.noise.eps, request.noise.dropout_mask) = (Some(eps.matrix()), Some(mask.matrix()));
        setup.agree("both", &request, |step| (step.dmu, step.dlogvar) = (Some(&dmu), Some(&dlogvar)));
        setup.agree("dmu", &request, |step| (step.dmu, step.kl) = (Some(&dmu), KL));
        setup.agree("dlogvar", &request, |step| step.dlogvar = Some(&dlogvar));
    }
}

#[test]
fn an_active_bound() {
    let configs = [Config { logvar_bound: Some(0.05), ..config(9, 1) }];
    let setup = Setup::new(12, &[spec("layer", 15, 18)], &configs, 21);
    for mode in [Mode::Mean, Mode::Sample, Mode::Fixed] {
        setup.agree(&format!("{mode:?}"), &in_mode(mode), |step| step.kl = KL);
    }
}

#[test]
fn learned_biases() {
    for weight in [None, Some(Dtype::F32)] {
        let specs = [Spec { weight, ..spec("layer", 14, 300) }];
        let configs = [Config { bias: Bias::PveraOnly, ..config(4, 1) }, config(6, 2)];
        let setup = Setup::new(13, &specs, &configs, 70);
        for overwrite in [true, false] {
            let sum =
                setup.agree("sum", &sampled(Choice::Sum(&[(1, 1.0), (0, 2.0)])), |step| step.overwrite = overwrite);
            assert_eq!((sum.layers[0][0].bias.len(), sum.layers[0][1].bias.len()), (300, 0));
            let slots = mixed_slots(70, 2);
            setup.agree("by row", &sampled(Choice::PerRow(&slots)), |step| step.overwrite = overwrite);
        }
    }
}

#[test]
fn keys_of_the_callers_own() {
    let setup =
        Setup::new(14, &[spec("layer", 14, 12)], &[Config { pvera_dropout: 0.4, ..config(4, 1) }, config(4, 1)], 9);
    let (identity, sample) = ([3, 3, 9, 9, 9, 1, u64::MAX, 0, 3], [0, 0, 1, 1, 2, 7, 8, u32::MAX, 0]);
    let keys = RowKeys { identity: Some(&identity), sample: Some(&sample), ..RowKeys::default() };
    // Rows 0, 1 and 8 are one sequence of two adapters, which draw independently.
    let slots = [0, 1, 0, 0, 1, 0, 1, -1, 0];
    for choice in [Choice::Sum(&[(0, 1.0), (1, 0.5)]), Choice::PerRow(&slots)] {
        for antithetic in [false, true] {
            let mut request = sampled(choice);
            (request.rows.keys, request.noise.antithetic) = (keys, antithetic);
            setup.agree(&format!("{choice:?}, {antithetic}"), &request, |step| {
                step.variance_index = Some(&[0, 0, 4, 4, 4, 4, 2, 8, 0]);
            });
        }
    }
}

/// Adapters of one store share p only where neither drops anything of x.
#[test]
fn one_store_and_dropout_for_one_adapter_alone() {
    let specs = [spec("q", 26, 40), spec("v", 26, 33)];
    let configs = [Config { pvera_dropout: 0.4, ..config(8, 1) }, config(8, 1), config(8, 1)];
    let setup = Setup::new(15, &specs, &configs, 21);
    for order in [[0, 1, 2], [1, 0, 2], [2, 1, 0]] {
        let active = order.map(|slot| (slot, 1.0));
        setup.agree(&format!("{order:?}"), &sampled(Choice::Sum(&active)), |step| step.kl = KL);
    }
    let slots = mixed_slots(21, 3);
    setup.agree("by row", &sampled(Choice::PerRow(&slots)), |step| step.kl = KL);
}
