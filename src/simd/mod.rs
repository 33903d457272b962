//! Instruction sets: which ones this machine has, and how one body of code is compiled once for each of them.
//!
//! A kernel is written once, generic over [`Set`]. An [`Isa`] is a token: it exists only where its instructions may run,
//! and running a kernel through it is the only way into the code compiled for them. All sets give the same bits.

#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;
mod set;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use set::Set;

/// CPU features that kernels are chosen by, as bits; they cross the ABI.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features(pub u32);

impl Features {
    /// AVX2, FMA and F16C.
    pub const AVX2: Features = Features(1);
    /// AVX-512 F, BW, DQ and VL, on top of AVX2.
    pub const AVX512: Features = Features(2);
    /// AVX-512 BF16, on top of AVX512.
    pub const AVX512_BF16: Features = Features(4);
    /// Advanced SIMD of 64-bit Arm.
    pub const NEON: Features = Features(8);

    /// What this machine has, and this build knows.
    pub fn detected() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            let mut found = Features(0);
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c") {
                found = found.with(Self::AVX2);
            }
            let avx512 = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl");
            if avx512 && found.has(Self::AVX2) {
                found = found.with(Self::AVX512);
            }
            if is_x86_feature_detected!("avx512bf16") && found.has(Self::AVX512) {
                found = found.with(Self::AVX512_BF16);
            }
            found
        }
        #[cfg(target_arch = "aarch64")]
        {
            Self::NEON
        }
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        {
            Features(0)
        }
    }

    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

/// One set of instructions that this machine has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Isa(Level);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx512Bf16,
    #[cfg(target_arch = "aarch64")]
    Neon,
}

/// Bytes of a cache line.
pub const CACHE_LINE: usize = 64;

/// Work that is compiled once for each instruction set.
///
/// `run` and all that it calls must be `#[inline(always)]`: only then is it compiled for the set.
pub trait Kernel {
    type Output;
    fn run<S: Set>(self) -> Self::Output;
}

impl Isa {
    /// No more than every machine has. A fused multiply-add is then computed in software: correct and slow.
    pub const PORTABLE: Isa = Isa(Level::Portable);

    /// The best that this machine has.
    pub fn best() -> Self {
        Self::without(Features(0))
    }

    /// The best that this machine has, some features left aside. A feature falls with those that it builds on.
    pub fn without(masked: Features) -> Self {
        let found = Features::detected().without(masked);
        #[cfg(target_arch = "x86_64")]
        {
            if !found.has(Features::AVX2) {
                return Self::PORTABLE;
            }
            if !found.has(Features::AVX512) {
                return Self(Level::Avx2);
            }
            Self(if found.has(Features::AVX512_BF16) { Level::Avx512Bf16 } else { Level::Avx512 })
        }
        #[cfg(target_arch = "aarch64")]
        {
            if found.has(Features::NEON) { Self(Level::Neon) } else { Self::PORTABLE }
        }
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        {
            let _ = found;
            Self::PORTABLE
        }
    }

    /// Every set that this machine has, for tests that compare them.
    pub fn all() -> Vec<Isa> {
        let masks = [Features(0), Features::AVX512_BF16, Features::AVX512, Features::AVX2.with(Features::NEON)];
        let mut sets: Vec<Isa> = masks.into_iter().map(Self::without).collect();
        sets.dedup();
        sets
    }

    /// The features that it uses.
    pub fn features(self) -> Features {
        match self.0 {
            Level::Portable => Features(0),
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => Features::AVX2,
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => Features::AVX2.with(Features::AVX512),
            #[cfg(target_arch = "x86_64")]
            Level::Avx512Bf16 => Features::AVX2.with(Features::AVX512).with(Features::AVX512_BF16),
            #[cfg(target_arch = "aarch64")]
            Level::Neon => Features::NEON,
        }
    }

    /// Runs a kernel compiled for this set.
    #[inline]
    pub fn run<K: Kernel>(self, kernel: K) -> K::Output {
        match self.0 {
            Level::Portable => kernel.run::<portable::Portable>(),
            // SAFETY: the token exists only where the features were detected.
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => unsafe { x86::run_avx2(kernel) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => unsafe { x86::run_avx512(kernel) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Level::Avx512Bf16 => unsafe { x86::run_avx512_bf16(kernel) },
            // SAFETY: as above.
            #[cfg(target_arch = "aarch64")]
            Level::Neon => unsafe { neon::run(kernel) },
        }
    }
}

impl Default for Isa {
    fn default() -> Self {
        Self::best()
    }
}
