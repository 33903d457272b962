//! The arithmetic that Rust's operators do not have as PTX means it: rounding to zero, halves, minima, bit fields.

use crate::ptx::instruction::{relation, rounding};

/// What f32 operations give for every NaN.
pub const NAN_F32: u32 = 0x7fff_ffff;

#[inline(always)]
pub fn bits_f32(value: f32) -> u32 {
    // On the bits, so that it becomes a conditional move.
    let bits = value.to_bits();
    if bits & 0x7fff_ffff > 0x7f80_0000 { NAN_F32 } else { bits }
}

#[inline(always)]
pub fn relation_f64(a: f64, b: f64) -> u8 {
    (u8::from(a < b) * relation::LESS)
        | (u8::from(a == b) * relation::EQUAL)
        | (u8::from(a > b) * relation::GREATER)
        | (u8::from(a.is_nan() | b.is_nan()) * relation::UNORDERED)
}

#[inline(always)]
pub fn relation_f32(a: f32, b: f32) -> u8 {
    (u8::from(a < b) * relation::LESS)
        | (u8::from(a == b) * relation::EQUAL)
        | (u8::from(a > b) * relation::GREATER)
        | (u8::from(a.is_nan() | b.is_nan()) * relation::UNORDERED)
}

#[inline(always)]
pub fn relation_of<T: Ord>(a: T, b: T) -> u8 {
    (u8::from(a < b) * relation::LESS) | (u8::from(a == b) * relation::EQUAL) | (u8::from(a > b) * relation::GREATER)
}

/// The exact sum of `a` and `b` as a double and what it misses.
fn two_sum(a: f64, b: f64) -> (f64, f64) {
    let sum = a + b;
    let back = sum - a;
    (sum, (a - (sum - back)) + (b - back))
}

/// `value + missed`, where `missed` is less than half an ulp of `value`, cut to f32 towards zero.
fn cut(value: f64, missed: f64) -> f32 {
    if !value.is_finite() {
        return value as f32;
    }
    // One step nearer to zero where the rest pulls that way, so that the cut below sees what lies under it.
    let pulled = missed != 0.0 && (missed < 0.0) != (value < 0.0) && value != 0.0;
    let value = if pulled { f64::from_bits(value.to_bits() - 1) } else { value };
    let near = value as f32;
    if f64::from(near).abs() > value.abs() { f32::from_bits(near.to_bits() - 1) } else { near }
}

pub fn add_to_zero(a: f32, b: f32) -> f32 {
    let (sum, missed) = two_sum(f64::from(a), f64::from(b));
    if sum == 0.0 { a + b } else { cut(sum, if missed.is_nan() { 0.0 } else { missed }) }
}

pub fn mul_to_zero(a: f32, b: f32) -> f32 {
    cut(f64::from(a) * f64::from(b), 0.0)
}

pub fn fma_to_zero(a: f32, b: f32, c: f32) -> f32 {
    let product = f64::from(a) * f64::from(b);
    let (sum, missed) = two_sum(product, f64::from(c));
    cut(sum, if missed.is_nan() { 0.0 } else { missed })
}

/// A root of an f32 in f64 is no nearer to an f32 than it may be rounded, unless it is one.
pub fn sqrt_to_zero(value: f32) -> f32 {
    cut(f64::from(value).sqrt(), 0.0)
}

/// `value + missed`, where `missed` is at most half an ulp of `value`, cut towards zero. What overflows stays infinite.
fn cut_f64(value: f64, missed: f64) -> f64 {
    let pulled = missed != 0.0 && (missed < 0.0) != (value < 0.0);
    if value.is_finite() && value != 0.0 && !missed.is_nan() && pulled {
        f64::from_bits(value.to_bits() - 1)
    } else {
        value
    }
}

pub fn add_f64_to_zero(a: f64, b: f64) -> f64 {
    let (sum, missed) = two_sum(a, b);
    cut_f64(sum, missed)
}

pub fn mul_f64_to_zero(a: f64, b: f64) -> f64 {
    let product = a * b;
    cut_f64(product, a.mul_add(b, -product))
}

pub fn div_f64_to_zero(a: f64, b: f64) -> f64 {
    let quotient = a / b;
    cut_f64(quotient, (-quotient).mul_add(b, a) / b)
}

pub fn f64_to_f32(value: f64, mode: u8) -> f32 {
    if mode == rounding::ZERO { cut(value, 0.0) } else { value as f32 }
}

#[inline(always)]
pub fn s32_to_f32(value: i32, mode: u8) -> f32 {
    if mode == rounding::NEAREST { value as f32 } else { integer_to_f32(i128::from(value), mode) }
}

#[inline(always)]
pub fn u32_to_f32(value: u32, mode: u8) -> f32 {
    if mode == rounding::NEAREST { value as f32 } else { integer_to_f32(i128::from(value), mode) }
}

/// cvt.sat: NaN becomes +0.
#[inline(always)]
pub fn saturate(value: f32) -> f32 {
    if value > 0.0 { value.min(1.0) } else { 0.0 }
}

/// An integer as f32, to nearest or towards zero.
pub fn integer_to_f32(value: i128, mode: u8) -> f32 {
    let near = value as f32;
    if mode == rounding::ZERO && (near as i128).abs() > value.abs() { f32::from_bits(near.to_bits() - 1) } else { near }
}

pub fn integer_to_f64(value: i128, mode: u8) -> f64 {
    let near = value as f64;
    if mode == rounding::ZERO && (near as i128).abs() > value.abs() { f64::from_bits(near.to_bits() - 1) } else { near }
}

#[inline(always)]
pub fn round_f64(value: f64, mode: u8) -> f64 {
    match mode {
        rounding::NEAREST => value.round_ties_even(),
        rounding::ZERO => value.trunc(),
        rounding::DOWN => value.floor(),
        _ => value.ceil(),
    }
}

#[inline(always)]
pub fn round_f32(value: f32, mode: u8) -> f32 {
    match mode {
        rounding::NEAREST => value.round_ties_even(),
        rounding::ZERO => value.trunc(),
        rounding::DOWN => value.floor(),
        _ => value.ceil(),
    }
}

pub fn half_to_f32(half: u16) -> f32 {
    let sign = u32::from(half >> 15) << 31;
    let exponent = u32::from(half >> 10 & 31);
    let fraction = u32::from(half & 1023);
    match exponent {
        // Subnormals: fraction times 2⁻²⁴, exact.
        0 => f32::from_bits(sign | (fraction as f32 * (1.0 / 16_777_216.0)).to_bits()),
        31 if fraction != 0 => f32::from_bits(NAN_F32),
        31 => f32::from_bits(sign | 0x7f80_0000),
        _ => f32::from_bits(sign | (exponent + 112) << 23 | fraction << 13),
    }
}

pub fn f32_to_half(value: f32, mode: u8) -> u16 {
    if value.is_nan() {
        return 0x7fff;
    }
    let bits = value.to_bits();
    let sign = (bits >> 16 & 0x8000) as u16;
    let size = bits & 0x7fff_ffff;
    if size == 0x7f80_0000 {
        return sign | 0x7c00;
    }
    // The value in units of the last place a half has for it: at least 2⁻²⁴.
    let exponent = (size >> 23) as i32 - 127;
    let unit = (exponent - 10).max(-24);
    if exponent > 15 {
        return sign | if mode == rounding::ZERO { 0x7bff } else { 0x7c00 };
    }
    let scaled = f64::from(value.abs()) * f64::from_bits(((1023 - unit) as u64) << 52);
    let whole = if mode == rounding::ZERO { scaled.trunc() } else { scaled.round_ties_even() } as u16;
    // Carries run into the exponent, up to infinity.
    if exponent < -14 { sign | whole } else { sign | (((exponent + 15) as u16) << 10).wrapping_add(whole - 1024) }
}

#[inline(always)]
pub fn min_f32(a: f32, b: f32) -> u32 {
    if a.is_nan() || b.is_nan() {
        return bits_f32(if a.is_nan() { b } else { a });
    }
    // −0 is less than +0.
    if a < b || (a == b && a.is_sign_negative()) { a.to_bits() } else { b.to_bits() }
}

#[inline(always)]
pub fn max_f32(a: f32, b: f32) -> u32 {
    if a.is_nan() || b.is_nan() {
        return bits_f32(if a.is_nan() { b } else { a });
    }
    if a > b || (a == b && b.is_sign_negative()) { a.to_bits() } else { b.to_bits() }
}

#[inline(always)]
pub fn min_f64(a: f64, b: f64) -> u64 {
    if a.is_nan() || b.is_nan() {
        return if a.is_nan() { b } else { a }.to_bits();
    }
    if a < b || (a == b && a.is_sign_negative()) { a.to_bits() } else { b.to_bits() }
}

#[inline(always)]
pub fn max_f64(a: f64, b: f64) -> u64 {
    if a.is_nan() || b.is_nan() {
        return if a.is_nan() { b } else { a }.to_bits();
    }
    if a > b || (a == b && b.is_sign_negative()) { a.to_bits() } else { b.to_bits() }
}

/// prmt in its default mode: each nibble of `selector` picks a byte of b:a, its top bit spreads that byte's sign.
#[inline(always)]
pub fn permute(a: u32, b: u32, selector: u32) -> u32 {
    let bytes = u64::from(b) << 32 | u64::from(a);
    let mut out = 0;
    for at in 0..4 {
        let nibble = selector >> (4 * at) & 15;
        let byte = (bytes >> (8 * (nibble & 7))) as u8;
        let byte = if nibble & 8 != 0 { if byte & 128 != 0 { 255 } else { 0 } } else { byte };
        out |= u32::from(byte) << (8 * at);
    }
    out
}

/// lop3: bit i of the result is bit (a_i b_i c_i) of the table.
#[inline(always)]
pub fn logic3(a: u32, b: u32, c: u32, table: u32) -> u32 {
    let mut out = 0;
    for row in 0..8 {
        if table >> row & 1 != 0 {
            out |= (if row & 4 != 0 { a } else { !a })
                & (if row & 2 != 0 { b } else { !b })
                & (if row & 1 != 0 { c } else { !c });
        }
    }
    out
}

/// bfe: `length` bits of `value` from `position` on, as 64 bits (sign-extended for signed ones).
pub fn extract(value: u64, position: u32, length: u32, width: u32, signed: bool) -> u64 {
    let (position, length) = (position & 255, length & 255);
    let sign_at = if length == 0 {
        return 0;
    } else {
        (position + length - 1).min(width - 1)
    };
    let sign = signed && value >> sign_at & 1 != 0;
    let taken = if position >= width { 0 } else { value >> position };
    let kept = length.min(width.saturating_sub(position));
    let mask = if kept >= 64 { u64::MAX } else { (1 << kept) - 1 };
    (taken & mask) | if sign { !mask } else { 0 }
}

/// bfi: `base` with `length` bits of `value` put in from `position` on.
pub fn insert(value: u64, base: u64, position: u32, length: u32, width: u32) -> u64 {
    let (position, length) = (position & 255, length & 255);
    if position >= width {
        return base;
    }
    let length = length.min(width - position);
    let mask = if length >= 64 { u64::MAX } else { (1 << length) - 1 };
    (base & !(mask << position)) | (value & mask) << position
}
