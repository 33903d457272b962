//! When two arrays are close: max|a − b| ≤ tolerance · max|b|. A judge that cannot fail is no judge: see `tests/tolerance.rs`.

use pvera::tensor::Dtype;

/// The bound of one element type for outputs.
pub fn of(dtype: Dtype) -> f64 {
    match dtype {
        Dtype::F32 => 1e-6,
        Dtype::F16 => 2e-3,
        Dtype::Bf16 => 1e-2,
    }
}

/// The error in units of the largest expected magnitude, or why there is none.
///
/// Nothing expected is an error: a test that compares nothing proves nothing. Where all expected values are zero,
/// only zeros pass.
pub fn error<A: Copy + Into<f64>, B: Copy + Into<f64>>(
    found: (&[usize], &[A]),
    wanted: (&[usize], &[B]),
) -> Result<f64, String> {
    if found.0 != wanted.0 || found.1.len() != wanted.1.len() {
        return Err(format!("shape {:?}, wanted {:?}", found.0, wanted.0));
    }
    if wanted.1.is_empty() {
        return Err("nothing to compare".to_owned());
    }
    let (mut largest, mut worst) = (0f64, 0f64);
    for (place, (found, wanted)) in found.1.iter().zip(wanted.1).enumerate() {
        let (found, wanted): (f64, f64) = ((*found).into(), (*wanted).into());
        if !found.is_finite() || !wanted.is_finite() {
            return Err(format!("at {place}: {found}, wanted {wanted}; not finite"));
        }
        largest = largest.max(wanted.abs());
        worst = worst.max((found - wanted).abs());
    }
    match (worst == 0.0, largest == 0.0) {
        (true, _) => Ok(0.0),
        (false, true) => Err(format!("off by {worst}, wanted zeros")),
        (false, false) => Ok(worst / largest),
    }
}

pub fn judge<A: Copy + Into<f64>, B: Copy + Into<f64>>(
    found: (&[usize], &[A]),
    wanted: (&[usize], &[B]),
    tolerance: f64,
) -> Result<(), String> {
    let error = error(found, wanted)?;
    if error <= tolerance { Ok(()) } else { Err(format!("off by {error:.2e}, wanted at most {tolerance:.0e}")) }
}

/// Flat arrays of equal length.
#[track_caller]
pub fn assert_close<A: Copy + Into<f64>, B: Copy + Into<f64>>(what: &str, found: &[A], wanted: &[B], tolerance: f64) {
    if let Err(problem) = judge((&[found.len()], found), (&[wanted.len()], wanted), tolerance) {
        panic!("{what}: {problem}");
    }
}

/// As `assert_close`, where the case may have no rows.
#[track_caller]
pub fn assert_close_or_empty<A: Copy + Into<f64>, B: Copy + Into<f64>>(
    what: &str,
    found: &[A],
    wanted: &[B],
    tolerance: f64,
) {
    if !(found.is_empty() && wanted.is_empty()) {
        assert_close(what, found, wanted, tolerance);
    }
}
