//! Known answers, edges and simulations for every part of the room.

mod calibration;
mod results;
mod stopping;

use crate::error::{Code, Result};

/// A small generator with fixed seeds (splitmix64, Steele et al. 2014); not what the library draws with.
pub struct Draws(pub u64);

impl Draws {
    /// Uniform in [0, 1).
    pub fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((bits ^ (bits >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Standard normal (Box and Muller 1958).
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }
}

#[track_caller]
pub fn assert_near(given: f64, wanted: f64, relative: f64) {
    assert!((given - wanted).abs() <= relative * wanted.abs(), "{given} is not {wanted}");
}

#[track_caller]
pub fn assert_fails<T: std::fmt::Debug>(result: Result<T>, code: Code, part: &str) {
    let error = result.expect_err("wanted an error");
    assert_eq!(error.code(), code, "{error}");
    assert!(error.message().contains(part), "{error}");
}
