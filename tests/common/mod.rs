//! What the integration tests share: a judge of closeness, the host's matrices, models of random vectors, golden cases.
#![allow(dead_code, reason = "each test crate uses its share")]

pub mod calls;
pub mod cases;
pub mod golden;
pub mod host;
pub mod layers;
pub mod place;
pub mod setup;
pub mod sha256;
pub mod step;
pub mod tolerance;

use pvera::context::{Context, Kind};
use pvera::memory::Allocator;

/// SplitMix64: small, deterministic, and no part of the library.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// Uniform in [−1, 1).
    pub fn uniform(&mut self) -> f32 {
        ((self.next() >> 40) as f64 / (1u64 << 23) as f64 - 1.0) as f32
    }

    pub fn values(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.uniform()).collect()
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}

pub fn context(kind: Kind, threads: usize) -> Context {
    Context::new(kind, threads, None, Allocator::default()).unwrap()
}

/// The oracle, and the kernels on 0, 1 and 3 threads beside the caller's.
pub fn contexts() -> Vec<(String, Context)> {
    let cpu = [0, 1, 3].map(|threads| (format!("cpu with {threads} threads"), context(Kind::Cpu, threads)));
    cpu.into_iter().chain([("reference".to_owned(), context(Kind::Reference, 0))]).collect()
}

pub fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}
