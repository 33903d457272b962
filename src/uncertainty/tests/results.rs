//! Running statistics and what they say, against scipy, PEFT's example and hand-computed answers.

use super::{Draws, assert_fails, assert_near};
use crate::error::Code;
use crate::memory::Allocator;
use crate::uncertainty::Statistics;
use crate::uncertainty::student::upper_quantile;

/// Five passes of one row with three classes.
const PASSES: [[f32; 3]; 5] = [[1.0, 2.0, 0.5], [0.25, 1.5, -1.0], [2.0, 0.0, 0.0], [1.0, 1.25, 1.0], [-0.5, 3.0, 2.0]];

fn statistics(rows: usize, outputs: usize) -> Statistics {
    Statistics::new(&Allocator::default(), rows, outputs).unwrap()
}

fn five_passes() -> Statistics {
    let mut five = statistics(1, 3);
    PASSES.iter().for_each(|pass| five.add(pass, 3).unwrap());
    five
}

/// Everything that a caller can see, to the bit.
fn everything(statistics: &Statistics) -> Vec<u64> {
    let (rows, outputs) = (statistics.rows(), statistics.outputs());
    let (mut wide, mut narrow) = (vec![0.0; rows * outputs], vec![0.0; rows]);
    let mut bits: Vec<u64> = statistics.passes().iter().chain(statistics.votes()).map(|&count| count.into()).collect();
    let mut keep = |values: &[f64]| bits.extend(values.iter().map(|value| value.to_bits()));
    statistics.mean(&mut wide).map(|()| keep(&wide)).unwrap();
    statistics.variance(&mut wide).map(|()| keep(&wide)).unwrap();
    statistics.mean_probabilities(&mut wide).map(|()| keep(&wide)).unwrap();
    statistics.most_voted_interval(0.9, &mut narrow.clone(), &mut narrow).map(|()| keep(&narrow)).unwrap();
    statistics.expected_entropy(&mut narrow).map(|()| keep(&narrow)).unwrap();
    bits
}

#[test]
fn the_most_voted_interval_is_that_of_pefts_example() {
    // mean_confidence_interval of the example, scipy 1.17.1, torch 2.15 softmax in f64.
    for (level, low, high) in
        [(0.95, 0.184852855349053, 0.8439381120359541), (0.5, 0.4264804503832337, 0.6023105170017734)]
    {
        let (mut lower, mut upper) = ([0.0], [0.0]);
        five_passes().most_voted_interval(level, &mut lower, &mut upper).unwrap();
        assert_near(lower[0], low, 1e-12);
        assert_near(upper[0], high, 1e-12);
    }
    let (mut class, mut probability) = ([9], [0.0]);
    five_passes().most_voted(&mut class).unwrap();
    five_passes().most_voted_probability(&mut probability).unwrap();
    assert_eq!(class, [1]);
    assert_near(probability[0], 0.5143954836925035, 1e-14);
}

#[test]
fn the_most_voted_interval_is_cut_to_probabilities() {
    let mut two = statistics(1, 2);
    two.add(&[9.0, 0.0], 2).unwrap();
    two.add(&[0.5, 0.0], 2).unwrap();
    let (mut lower, mut upper) = ([-1.0], [-1.0]);
    two.most_voted_interval(0.95, &mut lower, &mut upper).unwrap();
    assert_eq!((lower, upper), ([0.0], [1.0]));
}

#[test]
fn moments_and_intervals_agree_with_scipy() {
    let five = five_passes();
    let (mut lower, mut upper, mut result) = ([0.0; 3], [0.0; 3], [0.0; 3]);
    five.mean(&mut result).unwrap();
    assert_eq!(result[0], 0.75);
    five.variance(&mut result).unwrap();
    assert_near(result[0], 0.875, 1e-15);
    five.mean_interval(0.95, &mut lower, &mut upper).unwrap();
    assert_near(lower[0], -0.4114703176925951, 1e-12);
    assert_near(upper[0], 1.9114703176925951, 1e-12);
    five.predictive_interval(0.95, &mut lower, &mut upper).unwrap();
    assert_near(lower[0], -2.095009629735131, 1e-12);
    assert_near(upper[0], 3.595009629735131, 1e-12);
}

#[test]
fn probabilities_and_entropies_agree_with_scipy() {
    let five = five_passes();
    let (mut probabilities, mut entropy) = ([0.0; 3], [0.0]);
    five.mean_probabilities(&mut probabilities).unwrap();
    for (given, wanted) in probabilities.iter().zip([0.3107313176130996, 0.5143954836925035, 0.17487319869439677]) {
        assert_near(*given, wanted, 1e-14);
    }
    five.predictive_entropy(&mut entropy).unwrap();
    assert_near(entropy[0], 1.010067450618996, 1e-14);
    five.expected_entropy(&mut entropy).unwrap();
    assert_near(entropy[0], 0.8124171264345346, 1e-14);
    five.mutual_information(&mut entropy).unwrap();
    assert_near(entropy[0], 0.19765032418446138, 1e-13);
}

#[test]
fn student_quantiles_agree_with_scipy() {
    // -scipy.stats.t.ppf(tail, freedom), scipy 1.17.1; statrs' inverse_cdf does not return from some of these.
    let tails = [0.25, 0.025, 0.0005, 0.5e-8];
    let quantiles = [
        (1, [1.0, 12.706204736174694, 636.619248768719, 63661977.23675813]),
        (2, [0.8164965809277261, 4.302652729749462, 31.599054576443606, 9999.999924999998]),
        (7, [0.7111417780817866, 2.364624251592784, 5.407882520861725, 30.71838211919369]),
        (15, [0.6911969489584897, 2.131449545559776, 4.072765195903792, 11.281829578877895]),
        (63, [0.6784039610578574, 1.998340542520741, 3.4517689449609983, 6.5974680330632545]),
        (1023, [0.6747296452342033, 1.962285619647268, 3.300062730530961, 5.7784621075854785]),
        (1_000_000, [0.6744899955310875, 1.959966356814107, 3.290536461248691, 5.7307773523516525]),
        (4_000_000_000_u32, [0.6744897502574153, 1.959963985133122, 3.2905267339243274, 5.73072888035723]),
    ];
    for (freedom, wanted) in quantiles {
        let tolerance = if freedom > 1023 { 1e-6 } else { 1e-10 }; // statrs' ln_gamma cancels at large freedoms
        for (tail, wanted) in tails.into_iter().zip(wanted) {
            assert_near(upper_quantile(tail, f64::from(freedom)).unwrap(), wanted, tolerance);
        }
    }
    // One degree is Cauchy's distribution: 1/(π tail) far out.
    assert_near(upper_quantile(1e-140, 1.0).unwrap(), 1e140 / std::f64::consts::PI, 1e-10);
    assert_fails(upper_quantile(1e-300, 1.0), Code::Overflow, "tail of 1e-300");
    assert_fails(upper_quantile(0.1, 0.0), Code::Argument, "freedom are 0");
}

#[test]
fn one_call_or_many_give_the_same_bits() {
    let (rows, outputs, passes, stride) = (5, 7, 12, 9);
    let mut draws = Draws(7);
    let values: Vec<f32> = (0..passes * rows * stride).map(|_| draws.normal() as f32 * 3.0).collect();
    let mut by_pass = statistics(rows, outputs);
    values.chunks(rows * stride).for_each(|pass| by_pass.add(pass, stride).unwrap());

    let mut in_one = statistics(rows, outputs);
    let order: Vec<usize> = (0..passes * rows).map(|index| index % rows).collect();
    in_one.add_rows(&order, &values, stride).unwrap();
    assert_eq!(everything(&in_one), everything(&by_pass));

    let mut row_by_row = statistics(rows, outputs);
    for row in (0..rows).rev() {
        for pass in 0..passes {
            row_by_row.add_rows(&[row], &values[(pass * rows + row) * stride..], stride).unwrap();
        }
    }
    assert_eq!(everything(&row_by_row), everything(&by_pass));

    let mut reversed = statistics(rows, outputs);
    values.chunks(rows * stride).rev().for_each(|pass| reversed.add(pass, stride).unwrap());
    assert_ne!(everything(&reversed), everything(&by_pass), "the comparison must see the order of passes");
}

#[test]
fn rows_count_their_own_passes() {
    let mut three = statistics(3, 2);
    three.add_rows(&[2, 0, 2], &[1.0, 0.0, 5.0, 6.0, 3.0, 0.0], 2).unwrap();
    assert_eq!(three.passes(), [1, 0, 2]);
    assert_eq!(three.votes(), [0, 1, 0, 0, 2, 0]);
    assert_fails(three.mean(&mut [0.0; 6]), Code::State, "row 1 has 0 passes");
    assert_fails(three.variance(&mut [0.0; 6]), Code::State, "row 0 has 1 passes; a variance wants at least 2");
    three.clear();
    assert_eq!((three.passes(), three.votes()), (&[0; 3][..], &[0; 6][..]));
    three.add(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 2).unwrap();
    let mut fresh = statistics(3, 2);
    fresh.add(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 2).unwrap();
    for each in [&mut three, &mut fresh] {
        each.add(&[0.0; 6], 2).unwrap();
    }
    assert_eq!(everything(&three), everything(&fresh));
}

#[test]
fn a_bad_value_is_named_and_changes_nothing() {
    let mut two = statistics(2, 2);
    two.add(&[1.0, 2.0, 3.0, 4.0], 2).unwrap();
    two.add(&[2.0, 2.0, 3.0, 1.0], 2).unwrap();
    let before = everything(&two);
    let bad = [1.0, 2.0, 0.0, 3.0, f32::NAN, 0.0];
    assert_fails(two.add(&bad, 3), Code::Overflow, "row 1, column 1 is NaN");
    assert_fails(two.add_rows(&[1], &[f32::INFINITY, 0.0], 2), Code::Overflow, "row 0, column 0 is inf");
    assert_fails(two.add_rows(&[0, 2], &[0.0; 4], 2), Code::Argument, "rows[1] is 2");
    assert_fails(two.add(&[0.0; 3], 2), Code::Shape, "values has 3 elements");
    assert_fails(two.add(&[0.0; 4], usize::MAX), Code::Shape, "values has 4 elements");
    assert_fails(two.add(&[0.0; 4], 1), Code::Stride, "row_stride of values is 1");
    assert_eq!(everything(&two), before);
    two.add(&[1.0, 2.0, f32::NAN, 3.0, 4.0], 3).unwrap(); // padding is not read
}

#[test]
fn results_name_what_is_wrong_and_write_nothing() {
    let five = five_passes();
    let (mut wide, mut narrow) = ([7.0; 3], [7.0; 1]);
    assert_fails(five.mean(&mut [0.0; 2]), Code::Shape, "mean has 2 elements; wanted 3");
    assert_fails(five.mean_interval(0.9, &mut wide, &mut [0.0; 4]), Code::Shape, "upper has 4 elements");
    assert_fails(five.most_voted(&mut [0; 3]), Code::Shape, "classes has 3 elements");
    for level in [0.0, 1.0, -1.0, f64::NAN] {
        assert_fails(five.mean_interval(level, &mut wide, &mut [0.0; 3]), Code::Argument, "level is");
        assert_fails(five.most_voted_interval(level, &mut narrow, &mut [0.0]), Code::Argument, "level is");
    }
    assert_eq!((wide, narrow), ([7.0; 3], [7.0]));
    assert_fails(Statistics::new(&Allocator::default(), 1, 0), Code::Shape, "outputs is 0");
    assert_fails(Statistics::new(&Allocator::default(), usize::MAX, 2), Code::Memory, "memory");
    assert_fails(Statistics::new(&Allocator::default(), usize::MAX / 64, 1), Code::Memory, "memory");
}

#[test]
fn no_rows_and_one_output_are_fine() {
    let mut none = statistics(0, 3);
    none.add(&[], 3).unwrap();
    none.mean_interval(0.95, &mut [], &mut []).unwrap();
    none.most_voted(&mut []).unwrap();

    let mut one = statistics(1, 1);
    one.add(&[2.0], 1).unwrap();
    one.add(&[4.0], 1).unwrap();
    let mut variance = [0.0];
    one.variance(&mut variance).unwrap();
    assert_eq!(variance, [2.0]);
    assert_fails(one.most_voted(&mut [0]), Code::Shape, "1 output");
    assert_fails(one.mutual_information(&mut [0.0]), Code::Shape, "1 output");
    assert_fails(one.mean_probabilities(&mut [0.0]), Code::Shape, "1 output");
}

#[test]
fn ties_go_to_the_lowest_class() {
    let mut tied = statistics(1, 4);
    tied.add(&[0.0, 1.0, 0.0, 1.0], 4).unwrap(); // within a pass: class 1
    assert_eq!(tied.votes(), [0, 1, 0, 0]);
    tied.add(&[0.0, 0.0, 0.0, 1.0], 4).unwrap(); // between passes: 1 and 3 have one vote each
    let mut class = [9];
    tied.most_voted(&mut class).unwrap();
    assert_eq!(class, [1]);
}

#[test]
fn huge_logits_do_not_overflow() {
    let mut huge = statistics(1, 3);
    for _ in 0..3 {
        huge.add(&[f32::MAX, f32::MIN, f32::MAX], 3).unwrap();
    }
    let (mut probabilities, mut entropy, mut variance) = ([0.0; 3], [0.0], [1.0; 3]);
    huge.mean_probabilities(&mut probabilities).unwrap();
    assert_eq!(probabilities, [0.5, 0.0, 0.5]);
    huge.expected_entropy(&mut entropy).unwrap();
    assert_near(entropy[0], std::f64::consts::LN_2, 1e-15);
    huge.predictive_entropy(&mut entropy).unwrap();
    assert_near(entropy[0], std::f64::consts::LN_2, 1e-15);
    huge.variance(&mut variance).unwrap();
    assert_eq!(variance, [0.0; 3]);
}

#[test]
fn passes_that_agree_carry_no_information() {
    let mut same = statistics(1, 3);
    for _ in 0..100 {
        same.add(&[0.1, 0.7, -0.3], 3).unwrap();
    }
    let (mut information, mut lower, mut upper, mut mean) = ([1.0], [0.0; 3], [0.0; 3], [0.0; 3]);
    same.mutual_information(&mut information).unwrap();
    assert!((0.0..1e-14).contains(&information[0]), "{}", information[0]);
    same.mean(&mut mean).unwrap();
    same.predictive_interval(0.95, &mut lower, &mut upper).unwrap();
    assert_eq!((lower, upper), (mean, mean));
    assert_eq!(mean[1], f64::from(0.7_f32));
}

#[test]
fn a_small_spread_on_a_large_mean_keeps_its_variance() {
    // Σx² − (Σx)²/S would cancel: 2²³ ± ½ squared needs 48 bits, times many passes.
    let mut shifted = statistics(1, 1);
    for pass in 0..10_000 {
        shifted.add(&[8_388_607.0 + if pass % 2 == 0 { 0.5 } else { -0.5 }], 1).unwrap();
    }
    let mut variance = [0.0];
    shifted.variance(&mut variance).unwrap();
    assert_near(variance[0], 0.25 * 10_000.0 / 9_999.0, 1e-9);
}
