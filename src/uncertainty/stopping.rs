//! When to stop sampling: tests whose error rate survives repeated looks.

use statrs::function::factorial::ln_binomial;

use super::Statistics;
use super::student::UpperQuantiles;
use crate::error::Result;
use crate::fail;

const FIRST_LOOK: u32 = 8;

/// Early stopping at S = 8, 16, 32, … passes and at the last one, row by row.
///
/// Looking again and again at one fixed level finds something sooner or later. So look j gets the level
/// α_j = α / (j (j + 1)); these sum to α − α/(J + 1) < α over any number J of looks (the sum telescopes), and by the
/// union bound the chance that *any* look of a row errs is below α, whatever happens after a row has stopped. The
/// slack α/(J + 1), at least 3 % of α, is far above the rounding of the tests (1e-5 at 2³² passes).
/// The passes of a row must be independent draws: antithetic pairs are not, nor are two passes of one identity and
/// sample.
///
/// Every row is looked at only at its looks: passes are added up to [`Stopping::next_look`], then the rows still open
/// are asked for, and only those need go on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stopping {
    level_error: f64,
    maximum_passes: u32,
}

impl Stopping {
    /// `level_error` is α, the chance that a row stops on a wrong answer: more than 0, less than 1. No row gets more
    /// than `maximum_passes` passes, at least 2.
    ///
    /// # Errors
    /// `Argument` for a value out of range.
    pub fn new(level_error: f64, maximum_passes: u32) -> Result<Self> {
        if !(level_error > 0.0 && level_error < 1.0) {
            fail!(Argument, "error_level is {level_error}; wanted more than 0 and less than 1");
        }
        if maximum_passes < 2 {
            fail!(Argument, "maximum_passes is {maximum_passes}; wanted at least 2");
        }
        Ok(Self { level_error, maximum_passes })
    }

    /// The number of passes at the first look after `passes`; `passes` itself when no look is left.
    pub fn next_look(&self, passes: u32) -> u32 {
        let mut look = FIRST_LOOK;
        while look <= passes && look < self.maximum_passes {
            look = look.saturating_mul(2);
        }
        look.min(self.maximum_passes).max(passes)
    }

    /// Writes the rows whose most voted class is not settled to the front of `rows` (ascending) and returns their
    /// number. `rows` has room for all rows. Every row must be at one of its looks; one that settled earlier stays at
    /// the look where it did, and is found settled there again.
    ///
    /// A row is settled on its most voted class a, with n_a votes, if the exact sign test against the runner-up b says
    /// so: min(K − 1, 2) · P(Bin(n_a + n_b, ½) ≥ n_a) ≤ α_j with K classes.
    ///
    /// **The guarantee: a row is ever declared settled on a class that is not its most probable one with probability
    /// at most α.** (Of several equally probable classes each is right.) That choosing a and b after looking costs no
    /// more than the factor 2, however many classes there are, is theorem 1 of Hung and Fithian (2019), "Rank
    /// verification for exponential families", Annals of Statistics 47. For votes it can be shown by hand. Write
    /// p(x, y) = P(Bin(x + y, ½) ≥ x), the chance of x heads before y + 1 tails, which grows with y. Let m be a most
    /// probable class and a another one.
    ///
    /// - K = 2: given n_a + n_m, n_a is binomial with a chance of at most ½, so P(p(n_a, n_m) ≤ α_j) ≤ α_j.
    /// - K > 2: say that a wins if n_a is larger than all other counts, and by the toss of a coin if it ties with m
    ///   alone above the rest; then at most one a wins. Fix the counts of all classes but a and m, M the largest of
    ///   them. That fixes N = n_a + n_m, and n_a is binomial (N, θ ≤ ½). As n_a grows, the chance to win rises, and
    ///   n_b = max(N − n_a, M) and p(n_a, n_b) fall; so a is declared if n_a ≥ k, for some k where it wins for sure.
    ///   P(n_a ≥ k | a wins) grows with θ (monotone likelihood ratio), so take θ = ½. It is at most 2 p(k, n_b) ≤ α_j:
    ///   if M < N/2, P(a wins) = ½ by symmetry, and P(n_a ≥ k) = p(k, N − k) ≤ p(k, n_b);
    ///   if M ≥ N/2, a wins from M + 1 ≤ k on, n_b = M, and P(n_a ≥ k | n_a > M) grows with N (monotone likelihood
    ///   ratio again), from N ≤ 2M up to N = k + M, where it is p(k, M) / P(Bin(k + M, ½) > M) ≤ 2 p(k, M).
    ///   So P(a is declared) ≤ α_j P(a wins), and the sum over all wrong a is at most α_j.
    ///
    /// # Errors
    /// `Shape` if `rows` is too short or there is only one output; `State` for a row that is not at a look.
    pub fn undecided(&self, statistics: &Statistics, rows: &mut [usize]) -> Result<usize> {
        statistics.check_classes()?;
        self.check(statistics, rows)?;
        Self::collect(statistics, rows, |row, passes| {
            let Some(level) = self.level_at(passes) else { return Ok(true) };
            Ok(!is_settled(statistics.row_votes(row), level))
        })
    }

    /// Writes the rows whose mean is not yet known to ± `tolerance` in every output to the front of `rows` (ascending)
    /// and returns their number; otherwise as [`Stopping::undecided`].
    ///
    /// A row is known when the half width t · s / √S of the interval of each mean is at most `tolerance`, with t at the
    /// two-sided level 1 − α_j / outputs. Some look of some output of the row misses its mean with probability below
    /// α, so that is also a bound for stopping with a mean more than `tolerance` off. The t interval wants roughly
    /// normal draws; a row whose draws are all equal has width 0 and stops.
    ///
    /// # Errors
    /// `Argument` for a tolerance that is negative or not finite; `Shape` if `rows` is too short; `State` for a row
    /// that is not at a look.
    pub fn imprecise(&self, statistics: &Statistics, tolerance: f64, rows: &mut [usize]) -> Result<usize> {
        if !(tolerance >= 0.0 && tolerance.is_finite()) {
            fail!(Argument, "tolerance is {tolerance}; wanted a finite number, 0 or more");
        }
        self.check(statistics, rows)?;
        let outputs = statistics.outputs();
        let mut quantiles = UpperQuantiles::of_tail(0.0);
        let mut known = 0;
        Self::collect(statistics, rows, |row, passes| {
            let Some(level) = self.level_at(passes) else { return Ok(true) };
            if known != passes {
                quantiles = UpperQuantiles::of_tail(level / outputs as f64 / 2.0);
                known = passes;
            }
            let most = tolerance / quantiles.at(passes)?;
            let mut elements = row * outputs..(row + 1) * outputs;
            Ok(elements.any(|index| {
                let variance = statistics.values.variance(index, passes);
                (variance / f64::from(passes)).sqrt() > most
            }))
        })
    }

    /// α_j if that many passes are look j.
    pub(super) fn level_at(&self, passes: u32) -> Option<f64> {
        let (mut look, mut number) = (0, 0.0);
        while look < passes {
            look = self.next_look(look);
            number += 1.0;
            if look >= self.maximum_passes {
                break;
            }
        }
        (look == passes && passes > 0).then(|| self.level_error / (number * (number + 1.0)))
    }

    fn check(&self, statistics: &Statistics, rows: &[usize]) -> Result<()> {
        if rows.len() < statistics.rows() {
            fail!(Shape, "rows has {} elements; wanted room for all {} rows", rows.len(), statistics.rows());
        }
        for (row, &passes) in statistics.passes().iter().enumerate() {
            if self.level_at(passes).is_some() {
                continue;
            }
            if passes > self.maximum_passes {
                fail!(State, "row {row} has {passes} passes; the last look is at {}", self.maximum_passes);
            }
            fail!(State, "row {row} has {passes} passes; the next look is at {}", self.next_look(passes));
        }
        Ok(())
    }

    fn collect(
        statistics: &Statistics,
        rows: &mut [usize],
        mut is_open: impl FnMut(usize, u32) -> Result<bool>,
    ) -> Result<usize> {
        let mut open = 0;
        for (row, &passes) in statistics.passes().iter().enumerate() {
            if is_open(row, passes)? {
                rows[open] = row;
                open += 1;
            }
        }
        Ok(open)
    }
}

/// The test of [`Stopping::undecided`] at one look.
pub(super) fn is_settled(votes: &[u32], level: f64) -> bool {
    let (mut top, mut runner_up) = (0, 0);
    for &count in votes {
        if count > top {
            (top, runner_up) = (count, top);
        } else if count > runner_up {
            runner_up = count;
        }
    }
    let choices = if votes.len() > 2 { 2.0 } else { 1.0 };
    top > runner_up && choices * sign_test(u64::from(top), u64::from(runner_up)) <= level
}

/// P(Bin(more + fewer, ½) ≥ more), for more > fewer: the binomial tail, summed from its largest term down.
pub(super) fn sign_test(more: u64, fewer: u64) -> f64 {
    let trials = more + fewer;
    let mut term = (ln_binomial(trials, more) - trials as f64 * std::f64::consts::LN_2).exp();
    let mut sum = term;
    for successes in more..trials {
        term *= (trials - successes) as f64 / (successes + 1) as f64;
        sum += term;
        if term <= f64::EPSILON * sum {
            break;
        }
    }
    sum
}
