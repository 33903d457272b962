//! `pvera_statistics`: streaming statistics over Monte Carlo passes.

use super::context::pvera_allocator;
use super::error::pvera_error;
use super::handle::{self, borrow, borrow_mut, output};
use super::matrix::{self, pvera_matrix};
use super::{guard, input};
use crate::error::{Error, Result};
use crate::memory::Allocator;
use crate::tensor::{Dtype, Matrix};
use crate::uncertainty::Statistics;

/// Statistics of `rows × outputs` values over any number of passes, in memory that does not grow. One thread at a time. The
/// order of passes decides the last bits.
pub struct pvera_statistics(pub(super) Statistics);

/// Statistics without a pass. `allocator` may be NULL.
///
/// # Safety
/// `allocator` is NULL or an allocator; `statistics` is a place for the result.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_statistics_new(
    rows: usize,
    outputs: usize,
    allocator: *const pvera_allocator,
    statistics: *mut *mut pvera_statistics,
) -> *mut pvera_error {
    guard(|| {
        // SAFETY: the caller's promise.
        let (allocator, out) = unsafe { (allocator.as_ref(), output("statistics", statistics)?) };
        let allocator = allocator.map(|given| given.checked("allocator")).transpose()?.unwrap_or_default();
        out.write(handle::give(pvera_statistics(Statistics::new(&allocator, rows, outputs)?))?);
        Ok(())
    })
}

/// Frees statistics; NULL is nothing.
///
/// # Safety
/// `statistics` is NULL or owned statistics, not used again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_statistics_free(statistics: *mut pvera_statistics) {
    // SAFETY: the caller's promise.
    super::guard::guard_free(|| unsafe { handle::take(statistics) });
}

/// Forgets all passes.
///
/// # Safety
/// `statistics` are statistics that nobody else uses.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_statistics_clear(statistics: *mut pvera_statistics) -> *mut pvera_error {
    guard(|| {
        // SAFETY: the caller's promise.
        unsafe { borrow_mut("statistics", statistics)? }.0.clear();
        Ok(())
    })
}

/// Adds one pass over all rows: `values [rows, outputs]`, logits where they are classes. A value that is not finite is
/// PVERA_ERROR_OVERFLOW, and nothing is added.
///
/// # Safety
/// `statistics` are statistics that nobody else uses; `values` is lent for the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_statistics_add(
    statistics: *mut pvera_statistics,
    values: *const pvera_matrix,
) -> *mut pvera_error {
    // SAFETY: the caller's promise.
    guard(|| unsafe {
        let (statistics, values) = (borrow_mut("statistics", statistics)?, matrix::read_on_host("values", values)?);
        let own = &mut statistics.0;
        values.shape("values", ("rows", own.rows()), ("outputs", own.outputs()))?;
        with_f32(&values, |values, row_stride| own.add(values, row_stride))
    })
}

/// Adds a pass over some rows, for those still undecided: row i of `values [count, outputs]` is a pass of row `rows[i]`. A
/// row named several times gets several passes, in that order.
///
/// # Safety
/// As for `pvera_statistics_add`; `rows` points to `count` numbers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_statistics_add_rows(
    statistics: *mut pvera_statistics,
    count: usize,
    rows: *const usize,
    values: *const pvera_matrix,
) -> *mut pvera_error {
    // SAFETY: the caller's promise.
    guard(|| unsafe {
        let (statistics, values) = (borrow_mut("statistics", statistics)?, matrix::read_on_host("values", values)?);
        let (own, rows) = (&mut statistics.0, input::array("rows", rows, count)?);
        values.shape("values", ("count", count), ("outputs", own.outputs()))?;
        with_f32(&values, |values, row_stride| own.add_rows(rows, values, row_stride))
    })
}

fn with_f32(values: &Matrix<'_>, add: impl FnOnce(&[f32], usize) -> Result<()>) -> Result<()> {
    if values.is_empty() {
        return add(&[], values.cols());
    }
    if values.dtype() == Dtype::F32 {
        let stride = if values.rows() == 1 { values.cols() } else { values.row_stride() };
        let length = (values.rows() - 1) * stride + values.cols();
        // SAFETY: the matrix was checked to reach so far.
        return add(unsafe { std::slice::from_raw_parts(values.data().cast(), length) }, stride);
    }
    let count = values.rows().checked_mul(values.cols()).ok_or(Error::out_of_memory())?;
    let mut widened = crate::memory::Buffer::<f32>::zeroed(&Allocator::default(), count)?;
    for (row, out) in widened.chunks_exact_mut(values.cols()).enumerate() {
        values.load(row, 0, out);
    }
    add(&widened, values.cols())
}

/// How many passes each row has had.
///
/// # Safety
/// `statistics` are statistics; `passes` points to `count` (= rows) places.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_statistics_passes(
    statistics: *const pvera_statistics,
    count: usize,
    passes: *mut u32,
) -> *mut pvera_error {
    // SAFETY: the caller's promise.
    guard(|| unsafe { copy_counts("passes", |own| own.passes(), statistics, count, passes) })
}

/// How often each output was the largest of its row, `[rows, outputs]`; of equal ones the first counts.
///
/// # Safety
/// `statistics` are statistics; `votes` points to `count` (= rows · outputs) places.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_statistics_votes(
    statistics: *const pvera_statistics,
    count: usize,
    votes: *mut u32,
) -> *mut pvera_error {
    // SAFETY: the caller's promise.
    guard(|| unsafe { copy_counts("votes", |own| own.votes(), statistics, count, votes) })
}

/// # Safety
/// As for the two exports above.
unsafe fn copy_counts(
    name: &str,
    of: impl Fn(&Statistics) -> &[u32],
    statistics: *const pvera_statistics,
    count: usize,
    out: *mut u32,
) -> Result<()> {
    // SAFETY: the caller's promise.
    let (own, out) = unsafe { (borrow("statistics", statistics)?, input::array_mut(name, out, count)?) };
    let counts = of(&own.0);
    if counts.len() != count {
        crate::fail!(Shape, "count is {count}; wanted {} {name}", counts.len());
    }
    out.copy_from_slice(counts);
    Ok(())
}

/// # Safety
/// `statistics` is NULL or live, `out` NULL or `count` places.
unsafe fn fill(
    statistics: *const pvera_statistics,
    name: &str,
    count: usize,
    out: *mut f64,
    fill: impl FnOnce(&Statistics, &mut [f64]) -> Result<()>,
) -> *mut pvera_error {
    // SAFETY: the caller's promise.
    guard(|| unsafe { fill(&borrow("statistics", statistics)?.0, input::array_mut(name, out, count)?) })
}

/// # Safety
/// `statistics` is NULL or live, `lower` and `upper` NULL or `count` places each.
unsafe fn fill_two(
    statistics: *const pvera_statistics,
    count: usize,
    lower: *mut f64,
    upper: *mut f64,
    fill: impl FnOnce(&Statistics, &mut [f64], &mut [f64]) -> Result<()>,
) -> *mut pvera_error {
    // SAFETY: the caller's promise.
    guard(|| unsafe {
        let own = borrow("statistics", statistics)?;
        input::apart(count, &[("lower", lower.cast_const()), ("upper", upper.cast_const())])?;
        fill(&own.0, input::array_mut("lower", lower, count)?, input::array_mut("upper", upper, count)?)
    })
}

/// The mean of every value, `[rows, outputs]`.
///
/// # Safety
/// `statistics` are statistics; `mean` points to `count` (= rows · outputs) places.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_statistics_mean(
    statistics: *const pvera_statistics,
    count: usize,
    mean: *mut f64,
) -> *mut pvera_error {
    // SAFETY: the caller's promise.
    unsafe { fill(statistics, "mean", count, mean, Statistics::mean) }
}

/// The unbiased variance of every value, `[rows, outputs]`. Needs two passes of every row.
///
/// # Safety
/// `statistics` are statistics; `variance` points to `count` (= rows · outputs) places.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_statistics_variance(
    statistics: *const pvera_statistics,
    count: usize,
    variance: *mut f64,
) -> *mut pvera_error {
    // SAFETY: the caller's promise.
    unsafe { fill(statistics, "variance", count, variance, Statistics::variance) }
}

/// Student's interval of the mean at `level` (0.95): how well S passes know the mean, `mean ± t √(variance/S)`. Both arrays
/// `[rows, outputs]`. Needs two passes of every row.
///
/// # Safety
/// `statistics` are statistics; `lower` and `upper` point to `count` (= rows · outputs) places each.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_statistics_mean_interval(
    statistics: *const pvera_statistics,
    level: f64,
    count: usize,
    lower: *mut f64,
    upper: *mut f64,
) -> *mut pvera_error {
    // SAFETY: the caller's promise.
    unsafe { fill_two(statistics, count, lower, upper, |own, lower, upper| own.mean_interval(level, lower, upper)) }
}

/// Student's interval of one further draw at `level`: how far predictions scatter, `mean ± t √(variance (1 + 1/S))`. Both
/// arrays `[rows, outputs]`. Needs two passes of every row.
///
/// # Safety
/// As for `pvera_statistics_mean_interval`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_statistics_predictive_interval(
    statistics: *const pvera_statistics,
    level: f64,
    count: usize,
    lower: *mut f64,
    upper: *mut f64,
) -> *mut pvera_error {
    // SAFETY: the caller's promise.
    unsafe {
        fill_two(statistics, count, lower, upper, |own, lower, upper| own.predictive_interval(level, lower, upper))
    }
}

/// The mean over passes of every class's softmax probability, `[rows, outputs]`.
///
/// # Safety
/// `statistics` are statistics; `probabilities` points to `count` (= rows · outputs) places.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_statistics_mean_probabilities(
    statistics: *const pvera_statistics,
    count: usize,
    probabilities: *mut f64,
) -> *mut pvera_error {
    // SAFETY: the caller's promise.
    unsafe { fill(statistics, "probabilities", count, probabilities, Statistics::mean_probabilities) }
}

/// The class that most passes of a row chose, `[rows]`; of equal ones the first.
///
/// # Safety
/// `statistics` are statistics; `classes` points to `count` (= rows) places.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_statistics_most_voted(
    statistics: *const pvera_statistics,
    count: usize,
    classes: *mut u32,
) -> *mut pvera_error {
    // SAFETY: the caller's promise.
    guard(|| unsafe { borrow("statistics", statistics)?.0.most_voted(input::array_mut("classes", classes, count)?) })
}

/// The interval at `level` of the mean softmax probability of the most voted class, `[rows]`, as PEFT's PVeRA example
/// computes it: Student's interval of that class's probabilities over the passes, cut to [0, 1]. At least two passes.
///
/// # Safety
/// `statistics` are statistics; `lower` and `upper` point to `count` (= rows) places each.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_statistics_most_voted_interval(
    statistics: *const pvera_statistics,
    level: f64,
    count: usize,
    lower: *mut f64,
    upper: *mut f64,
) -> *mut pvera_error {
    // SAFETY: the caller's promise.
    unsafe {
        fill_two(statistics, count, lower, upper, |own, lower, upper| own.most_voted_interval(level, lower, upper))
    }
}

/// The entropy of the mean probabilities in nats, `[rows]`: all uncertainty of the prediction.
///
/// # Safety
/// `statistics` are statistics; `entropy` points to `count` (= rows) places.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_statistics_predictive_entropy(
    statistics: *const pvera_statistics,
    count: usize,
    entropy: *mut f64,
) -> *mut pvera_error {
    // SAFETY: the caller's promise.
    unsafe { fill(statistics, "entropy", count, entropy, Statistics::predictive_entropy) }
}

/// Predictive entropy less the mean entropy of a pass, in nats, `[rows]`: the part that comes from the adapter.
///
/// # Safety
/// `statistics` are statistics; `information` points to `count` (= rows) places.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_statistics_mutual_information(
    statistics: *const pvera_statistics,
    count: usize,
    information: *mut f64,
) -> *mut pvera_error {
    // SAFETY: the caller's promise.
    unsafe { fill(statistics, "information", count, information, Statistics::mutual_information) }
}
