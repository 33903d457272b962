//! One layer and one adapter around every tile: training under every tape policy, and every call without a tape.

use pvera::backend::Kl;
use pvera::linear::{Choice, Noise, Request, Rows};
use pvera::model::WeightLayout;
use pvera::tensor::Dtype;

use crate::common::cases::{Case, STORED, Stored};
use crate::common::layers::{Spec, config, spec};
use crate::common::setup::Setup;
use crate::{DEPTHS, OUTPUTS, ROWS};

const KL: Kl = Kl { weight: 0.3, mean: true };

fn request(training: bool) -> Request<'static> {
    let rows = Rows { choice: Choice::Sum(&[(0, 1.0)]), ..Rows::default() };
    Request { rows, noise: Noise { seed: 5, ..Noise::default() }, training }
}

/// A step and all other calls against the oracle.
fn agree(what: &str, setup: &Setup, draws: usize) {
    setup.agree(what, &request(true), |step| step.kl = KL);
    setup.calls_agree(what, &request(false), draws);
}

/// The number-th of a few combinations of a projection's form, a base weight, its orientation and its packing.
fn kind(number: usize, rows: usize, inputs: usize, outputs: usize, rank: usize) -> Case {
    let weight = [Some(Dtype::F32), Some(Dtype::Bf16), Some(Dtype::F16), None][number / 4 % 4];
    let layout = if number.is_multiple_of(2) { WeightLayout::OutIn } else { WeightLayout::InOut };
    let layer = Spec { weight, layout, padding: number % 3, ..spec("layer", inputs, outputs) };
    let offsets = (0, if number % 5 < 2 { 13 } else { 0 });
    let case = Case::new(rows, &[layer], &[(config(rank, number as u64), STORED[number % 4])]);
    Case { offsets, packed: number % 3 == 1, ..case }
}

#[test]
fn rows_around_every_tile() {
    for (number, rows) in ROWS.into_iter().enumerate() {
        agree(&format!("{rows} rows"), &kind(number, rows, 19, 21, 5).setup(1), 2);
    }
}

#[test]
fn inputs_around_every_block() {
    for (number, inputs) in DEPTHS.into_iter().chain(DEPTHS).enumerate() {
        let rows = [3, 25][number / DEPTHS.len()];
        agree(&format!("{rows} rows of {inputs} inputs"), &kind(number, rows, inputs, 18, 6).setup(2), 2);
    }
}

#[test]
fn ranks_around_every_block() {
    for (number, rank) in DEPTHS.into_iter().chain(DEPTHS).enumerate() {
        let rows = [4, 25][number / DEPTHS.len()];
        agree(&format!("{rows} rows of rank {rank}"), &kind(number, rows, 14, 11, rank).setup(3), 2);
    }
}

#[test]
fn outputs_around_every_tile() {
    for (number, outputs) in OUTPUTS.into_iter().chain(OUTPUTS).enumerate() {
        let rows = [5, 24][number / OUTPUTS.len()];
        agree(&format!("{rows} rows to {outputs} outputs"), &kind(number, rows, 17, outputs, 7).setup(4), 2);
    }
}

#[test]
fn every_form_of_projections_with_every_kind_of_base() {
    for stored in STORED {
        for (number, weight) in [Some(Dtype::F32), Some(Dtype::Bf16), Some(Dtype::F16), None].into_iter().enumerate() {
            for layout in [WeightLayout::OutIn, WeightLayout::InOut] {
                for packed in [false, true].into_iter().take(if weight.is_some() { 2 } else { 1 }) {
                    let layer = Spec { weight, layout, padding: 2, ..spec("layer", 70, 41) };
                    let rows = [7, 26][number % 2];
                    let case = Case { packed, ..Case::new(rows, &[layer], &[(config(18, 3), stored)]) };
                    agree(&format!("{stored:?}, {weight:?}, {layout:?}, packed {packed}"), &case.setup(5), 2);
                }
            }
        }
    }
}

#[test]
fn shards_that_begin_anywhere() {
    for stored in STORED {
        for offsets in [(0, 1), (0, 95), (1, 1), (37, 13), (255, 33), (16, 95)] {
            let case = Case::new(25, &[spec("layer", 259, 65)], &[(config(17, 4), stored)]);
            agree(&format!("{stored:?}, {offsets:?}"), &Case { offsets, ..case }.setup(6), 2);
        }
    }
}

#[test]
fn any_number_of_draws() {
    for stored in [Stored::F32, Stored::Int8] {
        for draws in [1, 2, 16, 17, 400] {
            for rows in [1, 5, 13] {
                let case = Case::new(rows, &[spec("layer", 20, 35)], &[(config(19, 5), stored)]);
                let setup = case.setup(7);
                setup.calls_agree(&format!("{stored:?}, {draws} draws of {rows} rows"), &request(false), draws);
            }
        }
    }
}

#[test]
fn batches_of_every_element_type() {
    for (number, dtype) in [Dtype::F32, Dtype::F16, Dtype::Bf16].into_iter().enumerate() {
        for rows in [1, 12, 25] {
            let case = Case { dtype, ..kind(3 * number + rows, rows, 130, 67, 17) };
            let setup = case.setup(8);
            let what = format!("{dtype:?}, {rows} rows");
            setup.agree(&what, &request(true), |step| step.padding = 1);
            setup.calls_agree(&what, &request(false), 3);
        }
    }
}
