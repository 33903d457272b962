//! Rounding mode and subnormal handling are set for a call and put back after it: a host that flushes subnormals
//! gets the same bits as one that does not.

/// Round to nearest, subnormals kept, all exceptions masked; the host's own mode comes back on drop.
pub struct FloatMode {
    saved: Register,
}

impl FloatMode {
    pub fn enter() -> Self {
        let saved = read();
        write(DEFAULT);
        Self { saved }
    }
}

impl Drop for FloatMode {
    fn drop(&mut self) {
        write(self.saved);
    }
}

/// Subnormals flushed to zero, as the bf16 products of x86-64 do by themselves; the mode before comes back on drop. Arm
/// decides before rounding what is flushed, x86-64 after: `simd` makes up for that. Rust assumes the default mode, so that nothing
/// but the kernels of a product runs inside.
pub struct Flushing {
    saved: Register,
}

impl Flushing {
    pub fn enter() -> Self {
        let saved = read();
        write(FLUSHING);
        Self { saved }
    }
}

impl Drop for Flushing {
    fn drop(&mut self) {
        write(self.saved);
    }
}

#[cfg(target_arch = "x86_64")]
mod register {
    use std::arch::asm;

    pub type Register = u32;
    /// MXCSR at process start: exceptions masked, nearest, no FTZ, no DAZ.
    pub const DEFAULT: Register = 0x1f80;
    /// The same with FTZ and DAZ.
    pub const FLUSHING: Register = DEFAULT | 0x8040;

    pub fn read() -> Register {
        let mut value = 0;
        // SAFETY: SSE is part of x86-64; the instruction stores four bytes.
        unsafe { asm!("stmxcsr [{}]", in(reg) &raw mut value, options(nostack, preserves_flags)) };
        value
    }

    pub fn write(value: Register) {
        // SAFETY: the value came from `read` or is the default; no reserved bit is set.
        unsafe { asm!("ldmxcsr [{}]", in(reg) &raw const value, options(nostack, readonly, preserves_flags)) };
    }
}

#[cfg(target_arch = "aarch64")]
mod register {
    use std::arch::asm;

    pub type Register = u64;
    /// FPCR: nearest, no flush to zero, default NaN off.
    pub const DEFAULT: Register = 0;
    /// FZ.
    pub const FLUSHING: Register = 1 << 24;

    pub fn read() -> Register {
        let value;
        // SAFETY: reading FPCR has no effect.
        unsafe { asm!("mrs {}, fpcr", out(reg) value, options(nomem, nostack, preserves_flags)) };
        value
    }

    pub fn write(value: Register) {
        // SAFETY: the value came from `read` or is the default.
        unsafe { asm!("msr fpcr, {}", in(reg) value, options(nostack, preserves_flags)) };
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
mod register {
    pub type Register = ();
    pub const DEFAULT: Register = ();
    pub const FLUSHING: Register = ();

    pub fn read() -> Register {}

    pub fn write(_: Register) {}
}

use register::{DEFAULT, FLUSHING, Register, read, write};

#[cfg(all(test, any(target_arch = "x86_64", target_arch = "aarch64")))]
mod tests {
    use super::*;

    /// The six status flags of x86-64, which a computation sets; Arm's are in another register.
    #[cfg(target_arch = "x86_64")]
    const STATUS: Register = 0x3f;
    #[cfg(target_arch = "aarch64")]
    const STATUS: Register = 0;

    #[test]
    fn the_host_mode_is_set_aside_and_comes_back() {
        write(FLUSHING);
        {
            let _mode = FloatMode::enter();
            assert_eq!(read() & !STATUS, DEFAULT);
        }
        let after = read();
        write(DEFAULT);
        assert_eq!(after & !STATUS, FLUSHING);
    }
}
