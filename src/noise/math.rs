//! exp, log and sincos in f32 from + − × fused-multiply-add and integers alone: the same bits on every machine.
//!
//! The platform's own functions differ in the last place between C libraries and between a CPU and a GPU. These
//! don't: each line below is one correctly rounded operation, so a vector or CUDA version (compiled with
//! `--fmad=false`, with `fmaf` where `mul_add` stands) that keeps the order gives the same bits. There are no
//! tables and no branches. The polynomials come from `tests/data/noise_fit_polynomials.py`.

/// 1.5·2²³: adding it to a small number leaves the nearest integer in the low bits of the sum.
const ROUNDER: f32 = 12_582_912.0;

/// ln 2 in two parts. The first is 355/512, so that its product with an exponent is exact.
const LN_2_HIGH: f32 = 0.693_359_4;
const LN_2_LOW: f32 = -2.121_944_4e-4;

/// e^r = 1 + r (1 + r EXP(r)) on [−½ ln 2, ½ ln 2]; largest relative error 3.7e-9.
const EXP: [f32; 5] = [4.9999988e-1, 1.6666518e-1, 4.166965e-2, 8.368945e-3, 1.3745304e-3];

/// ln(1 + f) = f − ½f² + f³ LOG(f) on [√½ − 1, √2 − 1]; largest relative error 6.9e-9.
const LOG: [f32; 8] =
    [3.3333355e-1, -2.5000852e-1, 1.9999766e-1, -1.6621315e-1, 1.422_81e-1, -1.3203458e-1, 1.2615187e-1, -7.353803e-2];

/// sin(½π s) = s (½π + SIN(s²)) for |s| ≤ ½, where ½π is the f32; largest relative error 3.7e-9.
const SIN: [f32; 4] = [-4.8805088e-8, -6.4596343e-1, 7.96797e-2, -4.600774e-3];

/// cos(½π s) = 1 + s² COS(s²) for |s| ≤ ½; largest relative error 5.2e-10.
const COS: [f32; 4] = [-1.2337005, 2.5366867e-1, -2.085681e-2, 8.974422e-4];

/// The bits of the f32 nearest to √½, where the logarithm's argument changes its exponent.
const SQRT_HALF_BITS: u32 = 0x3f35_04f3;

/// Horner's rule, highest power first, one fused multiply-add a coefficient.
#[inline(always)]
fn polynomial<const N: usize>(coefficients: &[f32; N], x: f32) -> f32 {
    let mut sum = coefficients[N - 1];
    for &coefficient in coefficients[..N - 1].iter().rev() {
        sum = sum.mul_add(x, coefficient);
    }
    sum
}

/// 2^exponent for −126 ≤ exponent ≤ 127; other exponents give some number, never a panic.
#[inline(always)]
fn power_of_two(exponent: i32) -> f32 {
    f32::from_bits((exponent.wrapping_add(127) as u32) << 23)
}

/// e^x: within 1 unit in the last place for every x (all 2³² were tried: 0.90). Overflows to infinity,
/// underflows through the subnormal numbers to zero; NaN gives NaN.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    // Outside these bounds the result is infinite or zero anyway. A NaN fails both comparisons and stays.
    let x = if x < -104.0 { -104.0 } else { x };
    let x = if x > 89.0 { 89.0 } else { x };
    let shifted = x.mul_add(std::f32::consts::LOG2_E, ROUNDER);
    let exponent = (shifted.to_bits() as i32).wrapping_sub(ROUNDER.to_bits() as i32);
    let count = shifted - ROUNDER;
    let rest = count.mul_add(-LN_2_HIGH, x);
    let rest = count.mul_add(-LN_2_LOW, rest);
    let mantissa = polynomial(&EXP, rest).mul_add(rest, 1.0).mul_add(rest, 1.0);
    // Two factors, because 2^exponent itself may be out of range; only the last product can round.
    let half = exponent >> 1;
    mantissa * power_of_two(half) * power_of_two(exponent.wrapping_sub(half))
}

/// ln x for positive normal x, within 1 unit in the last place (all were tried: 0.85); ln 1 is exactly 0. Any
/// other x (zero, negative, subnormal, infinite, NaN) gives a meaningless number.
#[inline(always)]
pub fn log(x: f32) -> f32 {
    let exponent = (x.to_bits().wrapping_sub(SQRT_HALF_BITS) as i32) >> 23;
    let mantissa = f32::from_bits(x.to_bits().wrapping_sub((exponent as u32) << 23));
    let f = mantissa - 1.0;
    let square = f * f;
    let count = exponent as f32;
    let tail = (square * f).mul_add(polynomial(&LOG, f), count * LN_2_LOW);
    let tail = square.mul_add(-0.5, tail);
    count.mul_add(LN_2_HIGH, f + tail)
}

/// (sin a, cos a) for the angle a = 2π·word/2³², within 1.5 units in the last place (1.34 found). The
/// reduction to an eighth of a turn is exact, since it happens in the integer.
#[inline(always)]
pub fn sincos_turns(word: u32) -> (f32, f32) {
    /// A quarter turn of the word is s = 1.
    const QUARTER: f32 = 1.0 / 1_073_741_824.0;
    let quadrant = word.wrapping_add(1 << 29) >> 30;
    let rest = word.wrapping_sub(quadrant << 30) as i32;
    let s = rest as f32 * QUARTER;
    let square = s * s;
    let sin = s.mul_add(std::f32::consts::FRAC_PI_2, s * polynomial(&SIN, square));
    let cos = square.mul_add(polynomial(&COS, square), 1.0);
    // A quarter turn swaps the two; the signs follow the quadrant.
    let (sin, cos) = if quadrant & 1 == 0 { (sin, cos) } else { (cos, sin) };
    let sin_sign = (quadrant & 2) << 30;
    let cos_sign = (quadrant.wrapping_add(1) & 2) << 30;
    (f32::from_bits(sin.to_bits() ^ sin_sign), f32::from_bits(cos.to_bits() ^ cos_sign))
}
