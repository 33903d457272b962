//! Early stopping: its looks, its tests against exact probabilities, its error rate under simulation.

use super::{Draws, assert_fails, assert_near};
use crate::error::Code;
use crate::memory::Allocator;
use crate::uncertainty::stopping::{is_settled, sign_test};
use crate::uncertainty::{Statistics, Stopping};

const LEVEL_ERROR: f64 = 0.05;

fn statistics(rows: usize, outputs: usize) -> Statistics {
    Statistics::new(&Allocator::default(), rows, outputs).unwrap()
}

#[test]
fn looks_double_and_end_at_the_maximum() {
    let looks = |maximum| {
        let stopping = Stopping::new(LEVEL_ERROR, maximum).unwrap();
        let (mut passes, mut looks) = (0, vec![]);
        while stopping.next_look(passes) > passes {
            passes = stopping.next_look(passes);
            looks.push(passes);
        }
        looks
    };
    assert_eq!(looks(64), [8, 16, 32, 64]);
    assert_eq!(looks(100), [8, 16, 32, 64, 100]);
    assert_eq!(looks(5), [5]);
    assert_eq!(looks(u32::MAX).len(), 30);
    let stopping = Stopping::new(LEVEL_ERROR, 100).unwrap();
    assert_eq!([9, 99, 100, 101].map(|passes| stopping.next_look(passes)), [16, 100, 100, 101]);
}

#[test]
fn levels_sum_to_less_than_the_whole() {
    let stopping = Stopping::new(LEVEL_ERROR, u32::MAX).unwrap();
    let (mut passes, mut sum) = (0, 0.0);
    while stopping.next_look(passes) > passes {
        passes = stopping.next_look(passes);
        sum += stopping.level_at(passes).unwrap();
    }
    assert_near(sum, LEVEL_ERROR * (1.0 - 1.0 / 31.0), 1e-12);
    assert_eq!([0, 7, 12].map(|passes| stopping.level_at(passes)), [None; 3]);
}

#[test]
fn the_sign_test_is_the_binomial_tail() {
    // scipy.stats.binom.sf(more - 1, trials, 0.5), scipy 1.17.1; the first is 2⁻⁸.
    assert_near(sign_test(8, 0), 0.00390625, 1e-13);
    assert_near(sign_test(60, 40), 0.028443966820490444, 1e-11);
    assert_near(sign_test(520, 480), 0.10872414660207075, 1e-11);
    assert_near(sign_test(501_500, 498_500), 0.001354327653029687, 1e-7);
    assert_near(sign_test(900, 100), 6.701717790006182e-162, 1e-10);
    assert!((0.4999..0.5001).contains(&sign_test(u64::from(u32::MAX) / 2 + 1, u64::from(u32::MAX) / 2)));
}

#[test]
fn settled_rows_are_left_out() {
    let stopping = Stopping::new(LEVEL_ERROR, 64).unwrap();
    let mut three = statistics(3, 2);
    for pass in 0..8 {
        let swing = if pass % 2 == 0 { 1.0 } else { -1.0 };
        three.add(&[1.0, 0.0, swing, 0.0, 0.0, 1.0], 2).unwrap();
    }
    let mut rows = [9; 3];
    // 8 : 0 has a chance of 2⁻⁸ < 0.05/2; 4 : 4 says nothing.
    assert_eq!(stopping.undecided(&three, &mut rows), Ok(1));
    assert_eq!(rows[0], 1);
    for _ in 0..8 {
        three.add_rows(&[1], &[0.0, 1.0], 2).unwrap();
    }
    // Now 4 : 12 with P(Bin(16, ½) ≥ 12) = 0.0384 > 0.05/6, beside two rows at their first look.
    assert_eq!(stopping.undecided(&three, &mut rows), Ok(1));
    assert_eq!(rows[0], 1);
    for _ in 0..16 {
        three.add_rows(&[1], &[0.0, 1.0], 2).unwrap();
    }
    assert_eq!(stopping.undecided(&three, &mut rows), Ok(0));
    assert_eq!(stopping.undecided(&statistics(0, 2), &mut []), Ok(0));
}

#[test]
fn a_known_mean_stops() {
    let stopping = Stopping::new(LEVEL_ERROR, 64).unwrap();
    let mut two = statistics(2, 1);
    for pass in 0..8 {
        let swing = if pass % 2 == 0 { 1.0 } else { -1.0 };
        two.add(&[swing, 3.0], 1).unwrap();
    }
    // s² = 8/7, and the two-sided level of the first look is 0.05/2: half width 2.841244 · √(8/7)/√8 = 1.073889
    // (scipy.stats.t.ppf(0.9875, 7)).
    let mut rows = [9; 2];
    assert_eq!(stopping.imprecise(&two, 1.0739, &mut rows), Ok(0));
    assert_eq!(stopping.imprecise(&two, 1.0738, &mut rows), Ok(1));
    assert_eq!(rows[0], 0);
    assert_eq!(stopping.imprecise(&two, 0.0, &mut rows), Ok(1)); // equal draws have width 0
}

#[test]
fn bad_input_is_named() {
    for level in [0.0, 1.0, f64::NAN] {
        assert_fails(Stopping::new(level, 64), Code::Argument, "error_level is");
    }
    assert_fails(Stopping::new(LEVEL_ERROR, 1), Code::Argument, "maximum_passes is 1");
    let stopping = Stopping::new(LEVEL_ERROR, 8).unwrap();
    let mut two = statistics(1, 2);
    assert_fails(stopping.undecided(&two, &mut [0]), Code::State, "row 0 has 0 passes; the next look is at 8");
    (0..9).for_each(|_| two.add(&[0.0, 1.0], 2).unwrap());
    assert_fails(stopping.undecided(&two, &mut [0]), Code::State, "row 0 has 9 passes; the last look is at 8");
    assert_fails(stopping.imprecise(&two, 0.1, &mut [0]), Code::State, "row 0 has 9 passes");
    assert_fails(stopping.undecided(&two, &mut []), Code::Shape, "rows has 0 elements");
    assert_fails(stopping.undecided(&statistics(1, 1), &mut [0]), Code::Shape, "1 output");
    assert_fails(stopping.imprecise(&two, -1.0, &mut [0]), Code::Argument, "tolerance is -1");
}

/// The exact chance that one look at `trials` votes for three classes declares a wrong one, by adding up every outcome.
fn exact_error(trials: u32, chances: [f64; 3], declares: impl Fn(&[u32]) -> bool) -> f64 {
    let factorial = |count: u32| (1..=count).map(f64::from).product::<f64>();
    let mut error = 0.0;
    for first in 0..=trials {
        for second in 0..=trials - first {
            let votes = [first, second, trials - first - second];
            let wrong = first < *votes.iter().max().unwrap(); // the first class is the most probable one
            if wrong && declares(&votes) {
                let ways = votes.iter().fold(factorial(trials), |ways, &count| ways / factorial(count));
                error += ways * votes.iter().zip(chances).map(|(&n, chance)| chance.powi(n as i32)).product::<f64>();
            }
        }
    }
    error
}

#[test]
fn one_look_errs_no_more_often_than_its_level_exactly() {
    let mut worst_without_factor = 0.0_f64;
    for trials in [2, 5, 8, 13] {
        for step in 0..=20 {
            let others = f64::from(step) / 20.0; // from two near-equal classes to three
            let first = 1.0 / (2.0 + others) + 1e-9;
            let chances = [first, 1.0 / (2.0 + others), 1.0 - first - 1.0 / (2.0 + others)].map(|p| p.max(0.0));
            for more in 1..=trials {
                for fewer in 0..more.min(trials - more + 1) {
                    let level = 2.0 * sign_test(more.into(), fewer.into());
                    let error = exact_error(trials, chances, |votes| is_settled(votes, level));
                    assert!(error <= level * (1.0 + 1e-6), "{error} > {level} with {trials} votes, {chances:?}");
                    worst_without_factor = worst_without_factor.max(error / (level / 2.0));
                }
            }
        }
    }
    assert!(worst_without_factor > 1.05, "the factor 2 must be needed: {worst_without_factor}");
}

/// Draws one vote.
fn vote(draws: &mut Draws, chances: &[f64]) -> usize {
    let mut left = draws.uniform();
    chances
        .iter()
        .position(|chance| {
            left -= chance;
            left < 0.0
        })
        .unwrap_or(chances.len() - 1)
}

/// The share of `rows` that are declared settled on a class other than class 0, the most probable one.
fn simulated_error(chances: &[f64], rows: usize, declares: impl Fn(&[u32], u32) -> bool) -> f64 {
    let stopping = Stopping::new(LEVEL_ERROR, 1024).unwrap();
    let mut draws = Draws(20_261_123);
    let wrong = (0..rows).filter(|_| {
        let (mut votes, mut passes) = (vec![0_u32; chances.len()], 0);
        while passes < 1024 {
            let look = stopping.next_look(passes);
            (passes..look).for_each(|_| votes[vote(&mut draws, chances)] += 1);
            passes = look;
            if declares(&votes, passes) {
                return votes[0] < *votes.iter().max().unwrap();
            }
        }
        false
    });
    wrong.count() as f64 / rows as f64
}

#[test]
fn repeated_looks_keep_the_error_rate_where_a_fixed_level_does_not() {
    let stopping = Stopping::new(LEVEL_ERROR, 1024).unwrap();
    let mut rivals_among_ten = vec![0.0125; 10];
    rivals_among_ten[..2].copy_from_slice(&[0.4501, 0.4499]);
    let even_ten = [&[0.1009][..], &[0.0999; 9]].concat();
    let cases = [vec![0.5001, 0.4999], vec![0.52, 0.48], vec![0.334, 0.333, 0.333], rivals_among_ten, even_ten];
    let naive_errors = cases.map(|chances| {
        let settled = |votes: &[u32], passes| is_settled(votes, stopping.level_at(passes).unwrap());
        let ours = simulated_error(&chances, 4000, settled);
        assert!(ours <= LEVEL_ERROR, "{ours} with {chances:?}");
        // The winner against the runner-up at every look, as if it were the only one and they had not been chosen.
        simulated_error(&chances, 4000, |votes, _| {
            let mut sorted = votes.to_vec();
            sorted.sort_unstable();
            let (more, fewer) = (sorted[sorted.len() - 1], sorted[sorted.len() - 2]);
            more > fewer && sign_test(more.into(), fewer.into()) <= LEVEL_ERROR
        })
    });
    assert!(naive_errors[..4].iter().all(|&error| error > 1.2 * LEVEL_ERROR), "not hard: {naive_errors:?}");
}

#[test]
fn clear_rows_stop_early_and_right_through_the_whole_of_it() {
    let (rows, stopping) = (300, Stopping::new(LEVEL_ERROR, 512).unwrap());
    let (mut all, mut draws) = (statistics(rows, 3), Draws(5));
    let mut open: Vec<usize> = (0..rows).collect();
    let (mut passes, mut spent) = (0, 0);
    while stopping.next_look(passes) > passes && !open.is_empty() {
        let look = stopping.next_look(passes);
        for _ in passes..look {
            let mut logits = vec![0.0; open.len() * 3];
            logits.chunks_exact_mut(3).for_each(|row| row[vote(&mut draws, &[0.2, 0.6, 0.2])] = 4.0);
            all.add_rows(&open, &logits, 3).unwrap();
        }
        (spent, passes) = (spent + open.len() * (look - passes) as usize, look);
        let mut rows = vec![0; rows];
        let count = stopping.undecided(&all, &mut rows).unwrap();
        open = rows[..count].to_vec();
    }
    let mut classes = vec![0; rows];
    all.most_voted(&mut classes).unwrap();
    let wrong = (0..rows).filter(|&row| classes[row] != 1 && !open.contains(&row)).count();
    assert!(wrong as f64 <= LEVEL_ERROR * rows as f64, "{wrong} wrong");
    assert!(spent < rows * 512 / 4, "{spent} passes spent");
    assert!(open.len() < rows / 20, "{} rows open", open.len());
}

#[test]
fn means_are_as_near_as_promised() {
    let (rows, tolerance) = (4000, 0.45);
    let stopping = Stopping::new(LEVEL_ERROR, 1024).unwrap();
    let (mut all, mut draws) = (statistics(rows, 1), Draws(11));
    let mut open: Vec<usize> = (0..rows).collect();
    let mut passes = 0;
    while !open.is_empty() {
        let look = stopping.next_look(passes);
        assert!(look > passes, "{} rows open after the last look", open.len());
        for _ in passes..look {
            let values: Vec<f32> = open.iter().map(|_| draws.normal() as f32).collect();
            all.add_rows(&open, &values, 1).unwrap();
        }
        passes = look;
        let mut rows = vec![0; rows];
        let count = stopping.imprecise(&all, tolerance, &mut rows).unwrap();
        open = rows[..count].to_vec();
    }
    let mut mean = vec![0.0; rows];
    all.mean(&mut mean).unwrap();
    let wrong = mean.iter().filter(|mean| mean.abs() > tolerance).count();
    assert!(wrong as f64 <= LEVEL_ERROR * rows as f64, "{wrong} of {rows} means are further off");
}

#[test]
fn intervals_hold_at_all_looks_at_once_where_those_of_a_fixed_level_do_not() {
    let rows = 4000;
    let stopping = Stopping::new(LEVEL_ERROR, 512).unwrap();
    let (mut all, mut draws) = (statistics(rows, 1), Draws(13));
    let (mut ours, mut fixed) = (vec![false; rows], vec![false; rows]);
    let mut passes = 0;
    while stopping.next_look(passes) > passes {
        let look = stopping.next_look(passes);
        for _ in passes..look {
            let values: Vec<f32> = (0..rows).map(|_| draws.normal() as f32).collect();
            all.add(&values, 1).unwrap();
        }
        passes = look;
        for (missed, error) in [(&mut ours, stopping.level_at(passes).unwrap()), (&mut fixed, LEVEL_ERROR)] {
            let (mut lower, mut upper) = (vec![0.0; rows], vec![0.0; rows]);
            all.mean_interval(1.0 - error, &mut lower, &mut upper).unwrap();
            (0..rows).for_each(|row| missed[row] |= lower[row] > 0.0 || upper[row] < 0.0);
        }
    }
    let share = |missed: &[bool]| missed.iter().filter(|&&missed| missed).count() as f64 / rows as f64;
    assert!(share(&ours) <= LEVEL_ERROR, "{}", share(&ours));
    assert!(share(&fixed) > 2.0 * LEVEL_ERROR, "{}: the case is not hard", share(&fixed));
}
