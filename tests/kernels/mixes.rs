//! Several adapters and several layers at once: sums, an adapter a row, groups, dropout.

use pvera::backend::Kl;
use pvera::config::{Bias, Config};
use pvera::linear::{Choice, Noise, Request, Rows};
use pvera::model::WeightLayout;
use pvera::tensor::Dtype;

use crate::common::cases::{Case, STORED, Stored};
use crate::common::layers::{Spec, config, spec};

const KL: Kl = Kl { weight: 0.1, mean: true };

fn group() -> [Spec; 3] {
    [
        spec("q", 65, 97),
        Spec { weight: Some(Dtype::Bf16), layout: WeightLayout::InOut, ..spec("k", 65, 33) },
        Spec { weight: None, ..spec("v", 65, 15) },
    ]
}

/// Two that share one store, one of another form and rank, one with a learned bias.
fn adapters(stored: Stored, other: Stored, dropout: f64) -> Vec<(Config, Stored)> {
    let config = |rank, key| Config { pvera_dropout: dropout, ..config(rank, key) };
    let own_bias = Config { bias: Bias::PveraOnly, alpha: 1.5, ..config(7, 3) };
    vec![(config(17, 1), stored), (config(17, 1), stored), (config(33, 2), other), (own_bias, stored)]
}

fn agree(what: &str, case: &Case, choice: Choice<'_>) {
    let setup = case.setup(9);
    let rows = Rows { choice, ..Rows::default() };
    let request = Request { rows, noise: Noise { seed: 6, ..Noise::default() }, training: true };
    let slots: &[i32] = &setup.slots;
    setup.agree(what, &request, |step| (step.kl, step.slots, step.overwrite) = (KL, slots, false));
    setup.calls_agree(what, &Request { training: false, ..request }, 3);
}

#[test]
fn sums_of_adapters_on_groups_of_layers() {
    for (number, stored) in STORED.into_iter().enumerate() {
        let other = STORED[(number + 1) % 4];
        for (dropout, packed) in [(0.0, true), (0.25, false)] {
            for rows in [1, 13, 25] {
                let case = Case { packed, ..Case::new(rows, &group(), &adapters(stored, other, dropout)) };
                let sum = [(2, 0.5), (0, 1.0), (1, -0.75), (3, 1.0)];
                agree(&format!("{stored:?}, {other:?}, {dropout}, {rows} rows"), &case, Choice::Sum(&sum));
            }
        }
    }
}

#[test]
fn an_adapter_a_row_on_groups_of_layers() {
    for (number, stored) in STORED.into_iter().enumerate() {
        let other = STORED[(number + 3) % 4];
        for (dropout, packed) in [(0.0, false), (0.25, true)] {
            for rows in [25, 193] {
                let slots: Vec<i32> = (0..rows as i32).map(|row| row * 7 / 3 % 5 - 1).collect();
                let case = Case { packed, ..Case::new(rows, &group(), &adapters(stored, other, dropout)) };
                agree(&format!("{stored:?}, {other:?}, {dropout}, {rows} rows"), &case, Choice::PerRow(&slots));
            }
        }
    }
}

#[test]
fn shards_of_a_group() {
    let slots: Vec<i32> = (0..26).map(|row| row * 5 % 4 - 1).collect();
    let choices = [Choice::Sum(&[(0, 1.0), (2, 0.5)]), Choice::PerRow(&slots)];
    for (choice, offsets) in choices.into_iter().flat_map(|choice| [(choice, (0, 7)), (choice, (21, 7))]) {
        let mut adapters = adapters(Stored::Int8, Stored::F16, 0.25);
        // Biases are learned whole.
        adapters.truncate(3);
        let case = Case { offsets, packed: true, ..Case::new(26, &group(), &adapters) };
        let setup = case.setup(10);
        let used = [0, 2];
        let rows = Rows { choice, ..Rows::default() };
        let request = Request { rows, noise: Noise { seed: 6, ..Noise::default() }, training: true };
        setup.agree(&format!("{choice:?}, {offsets:?}"), &request, |step| step.slots = &used);
        setup.calls_agree(&format!("{choice:?}, {offsets:?}"), &Request { training: false, ..request }, 2);
    }
}
