//! Early stopping and calibration.

use super::error::pvera_error;
use super::guard;
use super::handle::{self, borrow, output};
use super::input::{self, Sized_};
use super::statistics::pvera_statistics;
use crate::error::{Error, Result};
use crate::fail;
use crate::uncertainty::{Bin, Stopping, calibration};

/// When to stop drawing. Looks are at 8, 16, 32, … passes; the level is split over them (level/(j(j+1)) at look j), so that
/// the error holds however many looks there are.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct pvera_stopping {
    /// sizeof(pvera_stopping).
    pub struct_size: usize,
    /// Most that the chance of a wrong decision on a row may be, over all looks: 0.05.
    pub error_level: f64,
    /// Where drawing ends at the latest.
    pub maximum_passes: u32,
}

// SAFETY: numbers; the size comes first.
unsafe impl Sized_ for pvera_stopping {
    const NAME: &'static str = "stopping";
}

/// # Safety
/// `stopping` is NULL or sized.
unsafe fn read(stopping: *const pvera_stopping) -> Result<Stopping> {
    // SAFETY: the caller's promise.
    let given = unsafe { input::required(stopping)? };
    Stopping::new(given.error_level, given.maximum_passes)
}

/// How many passes a row has at the look after `passes`; `passes` itself when no look is left.
///
/// # Safety
/// `stopping` is sized; `look` is a place for the result.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_stopping_next_look(
    stopping: *const pvera_stopping,
    passes: u32,
    look: *mut u32,
) -> *mut pvera_error {
    // SAFETY: the caller's promise.
    guard(|| unsafe {
        let (own, out) = (read(stopping)?, output("look", look)?);
        out.write(own.next_look(passes));
        Ok(())
    })
}

/// The rows whose most voted class is not settled: `rows` (of `capacity` = the statistics' rows) gets their numbers, `count`
/// how many. Settling a row on another class than the one it would choose most often in the long run happens with at most
/// the error level.
///
/// Call it when every row has as many passes as a look (`pvera_stopping_next_look`), then draw on for the rows it returns
/// only (`pvera_statistics_add_rows`): settled ones stay at the look where they settled, and stay settled.
///
/// # Safety
/// `stopping` is sized, `statistics` are statistics, `rows` points to `capacity` places, `count` is a place for the result.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_stopping_undecided(
    stopping: *const pvera_stopping,
    statistics: *const pvera_statistics,
    capacity: usize,
    rows: *mut usize,
    count: *mut usize,
) -> *mut pvera_error {
    // SAFETY: the caller's promise.
    guard(|| unsafe {
        let (own, statistics, out) = (read(stopping)?, borrow("statistics", statistics)?, output("count", count)?);
        let found = own.undecided(&statistics.0, input::array_mut("rows", rows, capacity)?)?;
        out.write(found);
        Ok(())
    })
}

/// The rows of which some output's mean is not yet known to ± `tolerance`; otherwise as `pvera_stopping_undecided`.
///
/// # Safety
/// As for `pvera_stopping_undecided`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_stopping_imprecise(
    stopping: *const pvera_stopping,
    statistics: *const pvera_statistics,
    tolerance: f64,
    capacity: usize,
    rows: *mut usize,
    count: *mut usize,
) -> *mut pvera_error {
    // SAFETY: the caller's promise.
    guard(|| unsafe {
        let (own, statistics, out) = (read(stopping)?, borrow("statistics", statistics)?, output("count", count)?);
        let found = own.imprecise(&statistics.0, tolerance, input::array_mut("rows", rows, capacity)?)?;
        out.write(found);
        Ok(())
    })
}

/// One bar of a reliability diagram.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct pvera_bin {
    /// How many predictions had a confidence in this bin.
    pub count: u64,
    /// Their mean confidence; 0 in an empty bin.
    pub confidence: f64,
    /// The share of them that was right; 0 in an empty bin.
    pub accuracy: f64,
}

/// Calibration of `count` predictions: their confidence (0 to 1) and whether each was right (1) or wrong (0). `bins` gets
/// `bin_count` bars of equal width; `expected_error` and `maximum_error` (may be NULL) the mean and the largest gap between
/// confidence and accuracy (ECE and MCE, Guo et al. 2017).
///
/// # Safety
/// The arrays have that many entries; the error pointers are NULL or places for the results.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvera_calibration(
    count: usize,
    confidence: *const f64,
    correct: *const u8,
    bin_count: usize,
    bins: *mut pvera_bin,
    expected_error: *mut f64,
    maximum_error: *mut f64,
) -> *mut pvera_error {
    // SAFETY: the caller's promise.
    guard(|| unsafe {
        let (confidence, correct) =
            (input::array("confidence", confidence, count)?, input::array("correct", correct, count)?);
        let out = input::array_mut("bins", bins, bin_count)?;
        if bin_count == 0 {
            fail!(Argument, "bin_count is 0; wanted at least 1");
        }
        let mut own = Vec::new();
        own.try_reserve_exact(bin_count).map_err(|_| Error::out_of_memory())?;
        own.resize(bin_count, Bin::default());
        let error = calibration(confidence, correct, &mut own)?;
        for (out, bin) in out.iter_mut().zip(&own) {
            *out = pvera_bin { count: bin.count, confidence: bin.mean_confidence, accuracy: bin.accuracy };
        }
        handle::write_if_wanted(expected_error, error.expected);
        handle::write_if_wanted(maximum_error, error.maximum);
        Ok(())
    })
}
