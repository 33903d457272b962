//! What each instruction computes, for all lanes of a group at once.

use super::group::LANES;
use super::value::{self, bits_f32, relation_f32, relation_f64, relation_of};
use crate::ptx::instruction::{Inst, Op};

/// Lanes that one step takes: what a vector register holds, or two.
const STEP: usize = 8;

macro_rules! row {
    ($frame:expr, $inst:expr, $k:expr) => {
        $frame.add($inst.s[$k] as usize * LANES)
    };
}

// Reads STEP lanes of a field.
macro_rules! take {
    ($frame:expr, $inst:expr, $k:expr, $kind:ty, $at:expr) => {
        row!($frame, $inst, $k).cast::<$kind>().add($at).cast::<[$kind; STEP]>().read()
    };
}

macro_rules! give {
    ($alone:expr, $mask:expr, $frame:expr, $inst:expr, $kind:ty, $at:expr, $values:expr) => {{
        let mut values: [$kind; STEP] = $values;
        let to = row!($frame, $inst, 0).cast::<$kind>().add($at).cast::<[$kind; STEP]>();
        if !$alone {
            let old = to.read();
            for lane in 0..STEP {
                values[lane] = if $mask[$at + lane] != 0 { values[lane] } else { old[lane] };
            }
        }
        to.write(values);
    }};
}

// result = f(operands), for all lanes; the types are the widths of the fields.
macro_rules! all {
    ($alone:expr, $mask:expr, $frame:expr, $inst:expr, $d:ty; $a:ident: $ta:ty; $f:expr) => {{
        let mut at = 0;
        while at < LANES {
            let from = take!($frame, $inst, 1, $ta, at);
            let mut to = [0; STEP];
            for lane in 0..STEP {
                let $a = from[lane];
                to[lane] = $f;
            }
            give!($alone, $mask, $frame, $inst, $d, at, to);
            at += STEP;
        }
    }};
    ($alone:expr, $mask:expr, $frame:expr, $inst:expr, $d:ty; $a:ident: $ta:ty, $b:ident: $tb:ty; $f:expr) => {{
        let mut at = 0;
        while at < LANES {
            let (a, b) = (take!($frame, $inst, 1, $ta, at), take!($frame, $inst, 2, $tb, at));
            let mut to = [0; STEP];
            for lane in 0..STEP {
                let ($a, $b) = (a[lane], b[lane]);
                to[lane] = $f;
            }
            give!($alone, $mask, $frame, $inst, $d, at, to);
            at += STEP;
        }
    }};
    ($alone:expr, $mask:expr, $frame:expr, $inst:expr, $d:ty;
        $a:ident: $ta:ty, $b:ident: $tb:ty, $c:ident: $tc:ty; $f:expr) => {{
        let mut at = 0;
        while at < LANES {
            let (a, b) = (take!($frame, $inst, 1, $ta, at), take!($frame, $inst, 2, $tb, at));
            let c = take!($frame, $inst, 3, $tc, at);
            let mut to = [0; STEP];
            for lane in 0..STEP {
                let ($a, $b, $c) = (a[lane], b[lane], c[lane]);
                to[lane] = $f;
            }
            give!($alone, $mask, $frame, $inst, $d, at, to);
            at += STEP;
        }
    }};
}

macro_rules! each_lane {
    ($active:expr, $lane:ident; $body:expr) => {{
        let mut left: u32 = $active;
        while left != 0 {
            let $lane = left.trailing_zeros() as usize;
            left &= left - 1;
            $body
        }
    }};
}

// Division, which needs a divisor in each lane that divides.
macro_rules! divide {
    ($active:expr, $frame:expr, $inst:expr, $kind:ty, $signed:ty; $a:ident, $b:ident; $f:expr) => {
        each_lane!($active, lane; {
            let $a = *row!($frame, $inst, 1).cast::<$kind>().add(lane) as $signed;
            let $b = *row!($frame, $inst, 2).cast::<$kind>().add(lane) as $signed;
            if $b == 0 {
                return Some(lane);
            }
            *row!($frame, $inst, 0).cast::<$kind>().add(lane) = $f as $kind;
        })
    };
}

// Sixteen bits are kept in 32.
macro_rules! divide16 {
    ($active:expr, $frame:expr, $inst:expr, $kind:ty; $a:ident, $b:ident; $f:expr) => {
        each_lane!($active, lane; {
            let $a = *row!($frame, $inst, 1).add(lane) as $kind;
            let $b = *row!($frame, $inst, 2).add(lane) as $kind;
            if $b == 0 {
                return Some(lane);
            }
            *row!($frame, $inst, 0).add(lane) = u32::from($f as u16);
        })
    };
}

/// Computes one instruction; gives the lane whose divisor is zero. `ALONE` as in `Machine::interpret`: else only lanes whose `mask` is
/// not zero get a result.
///
/// # Safety
/// `frame` holds the places of the instruction.
#[inline(always)]
pub(super) unsafe fn compute<const ALONE: bool>(
    inst: &Inst,
    frame: *mut u32,
    mask: &[u32; LANES],
    active: u32,
) -> Option<usize> {
    // SAFETY: as the caller promises.
    unsafe {
        match inst.op {
            Op::Move32 => all!(ALONE, mask, frame, inst, u32; a: u32; a),
            Op::Move64 => all!(ALONE, mask, frame, inst, u64; a: u64; a),
            Op::SignExtend32 => {
                all!(ALONE, mask, frame, inst, u32; a: u32; { let unused = 32 - u32::from(inst.sub); ((a << unused) as i32 >> unused) as u32 })
            }
            Op::SignExtend32To64 => {
                all!(ALONE, mask, frame, inst, u64; a: u32; { let unused = 32 - u32::from(inst.sub); i64::from((a << unused) as i32 >> unused) as u64 })
            }
            Op::SignExtend64To32 => {
                all!(ALONE, mask, frame, inst, u32; a: u64; { let unused = 64 - u32::from(inst.sub); ((a << unused) as i64 >> unused) as u32 })
            }
            Op::SignExtend64 => {
                all!(ALONE, mask, frame, inst, u64; a: u64; { let unused = 64 - u32::from(inst.sub); ((a << unused) as i64 >> unused) as u64 })
            }
            Op::ZeroExtend32 => {
                all!(ALONE, mask, frame, inst, u32; a: u32; a & (u32::MAX >> (32 - u32::from(inst.sub))))
            }
            Op::ZeroExtend32To64 => {
                all!(ALONE, mask, frame, inst, u64; a: u32; u64::from(a & (u32::MAX >> (32 - u32::from(inst.sub)))))
            }
            Op::ZeroExtend64To32 => {
                all!(ALONE, mask, frame, inst, u32; a: u64; a as u32 & (u32::MAX >> (32 - u32::from(inst.sub))))
            }
            Op::ZeroExtend64 => {
                all!(ALONE, mask, frame, inst, u64; a: u64; a & (u64::MAX >> (64 - u32::from(inst.sub))))
            }
            Op::High32 => all!(ALONE, mask, frame, inst, u32; a: u64; (a >> 32) as u32),
            Op::Pack16 => all!(ALONE, mask, frame, inst, u32; a: u32, b: u32; a & 0xffff | b << 16),
            Op::Pack32 => {
                all!(ALONE, mask, frame, inst, u64; a: u32, b: u32; u64::from(a) | u64::from(b) << 32)
            }
            Op::Not16 => all!(ALONE, mask, frame, inst, u32; a: u32; !a & 0xffff),
            Op::Not32 => all!(ALONE, mask, frame, inst, u32; a: u32; !a),
            Op::Not64 => all!(ALONE, mask, frame, inst, u64; a: u64; !a),
            Op::NotPredicate => all!(ALONE, mask, frame, inst, u32; a: u32; a ^ 1),
            Op::And32 => all!(ALONE, mask, frame, inst, u32; a: u32, b: u32; a & b),
            Op::Or32 => all!(ALONE, mask, frame, inst, u32; a: u32, b: u32; a | b),
            Op::Xor32 => all!(ALONE, mask, frame, inst, u32; a: u32, b: u32; a ^ b),
            Op::And64 => all!(ALONE, mask, frame, inst, u64; a: u64, b: u64; a & b),
            Op::Or64 => all!(ALONE, mask, frame, inst, u64; a: u64, b: u64; a | b),
            Op::Xor64 => all!(ALONE, mask, frame, inst, u64; a: u64, b: u64; a ^ b),
            Op::Select32 => {
                all!(ALONE, mask, frame, inst, u32; a: u32, b: u32, c: u32; if c != 0 { a } else { b })
            }
            Op::Select64 => {
                all!(ALONE, mask, frame, inst, u64; a: u64, b: u64, c: u32; if c != 0 { a } else { b })
            }

            Op::Add16 => {
                all!(ALONE, mask, frame, inst, u32; a: u32, b: u32; a.wrapping_add(b) & 0xffff)
            }
            Op::Add32 => all!(ALONE, mask, frame, inst, u32; a: u32, b: u32; a.wrapping_add(b)),
            Op::Add64 => all!(ALONE, mask, frame, inst, u64; a: u64, b: u64; a.wrapping_add(b)),
            Op::Sub16 => {
                all!(ALONE, mask, frame, inst, u32; a: u32, b: u32; a.wrapping_sub(b) & 0xffff)
            }
            Op::Sub32 => all!(ALONE, mask, frame, inst, u32; a: u32, b: u32; a.wrapping_sub(b)),
            Op::Sub64 => all!(ALONE, mask, frame, inst, u64; a: u64, b: u64; a.wrapping_sub(b)),
            Op::Mul16 => {
                all!(ALONE, mask, frame, inst, u32; a: u32, b: u32; a.wrapping_mul(b) & 0xffff)
            }
            Op::Mul32 => all!(ALONE, mask, frame, inst, u32; a: u32, b: u32; a.wrapping_mul(b)),
            Op::Mul64 => all!(ALONE, mask, frame, inst, u64; a: u64, b: u64; a.wrapping_mul(b)),
            Op::MulHighS32 => all!(ALONE, mask, frame, inst, u32; a: u32, b: u32; high_s32(a, b)),
            Op::MulHighU32 => all!(ALONE, mask, frame, inst, u32; a: u32, b: u32; high_u32(a, b)),
            Op::MulHighS64 => all!(ALONE, mask, frame, inst, u64; a: u64, b: u64; high_s64(a, b)),
            Op::MulHighU64 => all!(ALONE, mask, frame, inst, u64; a: u64, b: u64; high_u64(a, b)),
            Op::MulWideS16 => all!(ALONE, mask, frame, inst, u32; a: u32, b: u32; wide_s16(a, b)),
            Op::MulWideU16 => {
                all!(ALONE, mask, frame, inst, u32; a: u32, b: u32; (a & 0xffff).wrapping_mul(b & 0xffff))
            }
            Op::MulWideS32 => all!(ALONE, mask, frame, inst, u64; a: u32, b: u32; wide_s32(a, b)),
            Op::MulWideU32 => {
                all!(ALONE, mask, frame, inst, u64; a: u32, b: u32; u64::from(a) * u64::from(b))
            }
            Op::Mad16 => {
                all!(ALONE, mask, frame, inst, u32; a: u32, b: u32, c: u32; a.wrapping_mul(b).wrapping_add(c) & 0xffff)
            }
            Op::Mad32 => {
                all!(ALONE, mask, frame, inst, u32; a: u32, b: u32, c: u32; a.wrapping_mul(b).wrapping_add(c))
            }
            Op::Mad64 => {
                all!(ALONE, mask, frame, inst, u64; a: u64, b: u64, c: u64; a.wrapping_mul(b).wrapping_add(c))
            }
            Op::MadHighS32 => {
                all!(ALONE, mask, frame, inst, u32; a: u32, b: u32, c: u32; high_s32(a, b).wrapping_add(c))
            }
            Op::MadHighU32 => {
                all!(ALONE, mask, frame, inst, u32; a: u32, b: u32, c: u32; high_u32(a, b).wrapping_add(c))
            }
            Op::MadHighS64 => {
                all!(ALONE, mask, frame, inst, u64; a: u64, b: u64, c: u64; high_s64(a, b).wrapping_add(c))
            }
            Op::MadHighU64 => {
                all!(ALONE, mask, frame, inst, u64; a: u64, b: u64, c: u64; high_u64(a, b).wrapping_add(c))
            }
            Op::MadWideS16 => {
                all!(ALONE, mask, frame, inst, u32; a: u32, b: u32, c: u32; wide_s16(a, b).wrapping_add(c))
            }
            Op::MadWideU16 => {
                all!(ALONE, mask, frame, inst, u32; a: u32, b: u32, c: u32; (a & 0xffff).wrapping_mul(b & 0xffff).wrapping_add(c))
            }
            Op::MadWideS32 => {
                all!(ALONE, mask, frame, inst, u64; a: u32, b: u32, c: u64; wide_s32(a, b).wrapping_add(c))
            }
            Op::MadWideU32 => {
                all!(ALONE, mask, frame, inst, u64; a: u32, b: u32, c: u64; (u64::from(a) * u64::from(b)).wrapping_add(c))
            }
            Op::DivS32 => divide!(active, frame, inst, u32, i32; a, b; a.wrapping_div(b)),
            Op::RemS32 => divide!(active, frame, inst, u32, i32; a, b; a.wrapping_rem(b)),
            Op::DivU32 => divide!(active, frame, inst, u32, u32; a, b; a.wrapping_div(b)),
            Op::RemU32 => divide!(active, frame, inst, u32, u32; a, b; a.wrapping_rem(b)),
            Op::DivS64 => divide!(active, frame, inst, u64, i64; a, b; a.wrapping_div(b)),
            Op::RemS64 => divide!(active, frame, inst, u64, i64; a, b; a.wrapping_rem(b)),
            Op::DivU64 => divide!(active, frame, inst, u64, u64; a, b; a.wrapping_div(b)),
            Op::RemU64 => divide!(active, frame, inst, u64, u64; a, b; a.wrapping_rem(b)),
            Op::DivS16 => divide16!(active, frame, inst, i16; a, b; a.wrapping_div(b)),
            Op::RemS16 => divide16!(active, frame, inst, i16; a, b; a.wrapping_rem(b)),
            Op::DivU16 => divide16!(active, frame, inst, u16; a, b; a.wrapping_div(b)),
            Op::RemU16 => divide16!(active, frame, inst, u16; a, b; a.wrapping_rem(b)),
            Op::MinS16 => {
                all!(ALONE, mask, frame, inst, u32; a: u32, b: u32; u32::from((a as i16).min(b as i16) as u16))
            }
            Op::MinU16 => all!(ALONE, mask, frame, inst, u32; a: u32, b: u32; a.min(b)),
            Op::MinS32 => {
                all!(ALONE, mask, frame, inst, u32; a: u32, b: u32; (a as i32).min(b as i32) as u32)
            }
            Op::MinU32 => all!(ALONE, mask, frame, inst, u32; a: u32, b: u32; a.min(b)),
            Op::MinS64 => {
                all!(ALONE, mask, frame, inst, u64; a: u64, b: u64; (a as i64).min(b as i64) as u64)
            }
            Op::MinU64 => all!(ALONE, mask, frame, inst, u64; a: u64, b: u64; a.min(b)),
            Op::MaxS16 => {
                all!(ALONE, mask, frame, inst, u32; a: u32, b: u32; u32::from((a as i16).max(b as i16) as u16))
            }
            Op::MaxU16 => all!(ALONE, mask, frame, inst, u32; a: u32, b: u32; a.max(b)),
            Op::MaxS32 => {
                all!(ALONE, mask, frame, inst, u32; a: u32, b: u32; (a as i32).max(b as i32) as u32)
            }
            Op::MaxU32 => all!(ALONE, mask, frame, inst, u32; a: u32, b: u32; a.max(b)),
            Op::MaxS64 => {
                all!(ALONE, mask, frame, inst, u64; a: u64, b: u64; (a as i64).max(b as i64) as u64)
            }
            Op::MaxU64 => all!(ALONE, mask, frame, inst, u64; a: u64, b: u64; a.max(b)),
            Op::Negate16 => all!(ALONE, mask, frame, inst, u32; a: u32; a.wrapping_neg() & 0xffff),
            Op::Negate32 => all!(ALONE, mask, frame, inst, u32; a: u32; a.wrapping_neg()),
            Op::Negate64 => all!(ALONE, mask, frame, inst, u64; a: u64; a.wrapping_neg()),
            Op::Absolute16 => {
                all!(ALONE, mask, frame, inst, u32; a: u32; u32::from((a as i16).unsigned_abs()))
            }
            Op::Absolute32 => {
                all!(ALONE, mask, frame, inst, u32; a: u32; (a as i32).unsigned_abs())
            }
            Op::Absolute64 => {
                all!(ALONE, mask, frame, inst, u64; a: u64; (a as i64).unsigned_abs())
            }
            Op::Shl16 => {
                all!(ALONE, mask, frame, inst, u32; a: u32, b: u32; if b > 15 { 0 } else { a << b & 0xffff })
            }
            Op::Shl32 => {
                all!(ALONE, mask, frame, inst, u32; a: u32, b: u32; if b > 31 { 0 } else { a << b })
            }
            Op::Shl64 => {
                all!(ALONE, mask, frame, inst, u64; a: u64, b: u32; if b > 63 { 0 } else { a << b })
            }
            Op::ShrU16 => {
                all!(ALONE, mask, frame, inst, u32; a: u32, b: u32; if b > 15 { 0 } else { a >> b })
            }
            Op::ShrU32 => {
                all!(ALONE, mask, frame, inst, u32; a: u32, b: u32; if b > 31 { 0 } else { a >> b })
            }
            Op::ShrU64 => {
                all!(ALONE, mask, frame, inst, u64; a: u64, b: u32; if b > 63 { 0 } else { a >> b })
            }
            Op::ShrS16 => {
                all!(ALONE, mask, frame, inst, u32; a: u32, b: u32; u32::from((a as i16 >> b.min(15)) as u16))
            }
            Op::ShrS32 => {
                all!(ALONE, mask, frame, inst, u32; a: u32, b: u32; (a as i32 >> b.min(31)) as u32)
            }
            Op::ShrS64 => {
                all!(ALONE, mask, frame, inst, u64; a: u64, b: u32; (a as i64 >> b.min(63)) as u64)
            }
            Op::FunnelLeftWrap => {
                all!(ALONE, mask, frame, inst, u32; a: u32, b: u32, c: u32; ((pair(a, b) << (c & 31)) >> 32) as u32)
            }
            Op::FunnelLeftClamp => {
                all!(ALONE, mask, frame, inst, u32; a: u32, b: u32, c: u32; if c > 31 { a } else { ((pair(a, b) << c) >> 32) as u32 })
            }
            Op::FunnelRightWrap => {
                all!(ALONE, mask, frame, inst, u32; a: u32, b: u32, c: u32; (pair(a, b) >> (c & 31)) as u32)
            }
            Op::FunnelRightClamp => {
                all!(ALONE, mask, frame, inst, u32; a: u32, b: u32, c: u32; (pair(a, b) >> c.min(32)) as u32)
            }
            Op::Permute => {
                all!(ALONE, mask, frame, inst, u32; a: u32, b: u32, c: u32; value::permute(a, b, c))
            }
            Op::Logic3 => {
                all!(ALONE, mask, frame, inst, u32; a: u32, b: u32, c: u32; value::logic3(a, b, c, inst.imm as u32))
            }
            Op::ExtractS32 => {
                all!(ALONE, mask, frame, inst, u32; a: u32, b: u32, c: u32; value::extract(u64::from(a), b, c, 32, true) as u32)
            }
            Op::ExtractU32 => {
                all!(ALONE, mask, frame, inst, u32; a: u32, b: u32, c: u32; value::extract(u64::from(a), b, c, 32, false) as u32)
            }
            Op::ExtractS64 => {
                all!(ALONE, mask, frame, inst, u64; a: u64, b: u32, c: u32; value::extract(a, b, c, 64, true))
            }
            Op::ExtractU64 => {
                all!(ALONE, mask, frame, inst, u64; a: u64, b: u32, c: u32; value::extract(a, b, c, 64, false))
            }
            Op::Insert32 => each_lane!(active, lane; {
                let field = |k: usize| *row!(frame, inst, k).add(lane);
                let value = value::insert(u64::from(field(1)), u64::from(field(2)), field(3), field(4), 32);
                *row!(frame, inst, 0).add(lane) = value as u32;
            }),
            Op::Insert64 => each_lane!(active, lane; {
                let field = |k: usize| *row!(frame, inst, k).cast::<u64>().add(lane);
                let bits = |k: usize| *row!(frame, inst, k).add(lane);
                *row!(frame, inst, 0).cast::<u64>().add(lane) = value::insert(field(1), field(2), bits(3), bits(4), 64);
            }),
            Op::CountOnes32 => all!(ALONE, mask, frame, inst, u32; a: u32; a.count_ones()),
            Op::CountOnes64 => all!(ALONE, mask, frame, inst, u32; a: u64; a.count_ones()),
            Op::CountZeros32 => all!(ALONE, mask, frame, inst, u32; a: u32; a.leading_zeros()),
            Op::CountZeros64 => all!(ALONE, mask, frame, inst, u32; a: u64; a.leading_zeros()),
            Op::Reverse32 => all!(ALONE, mask, frame, inst, u32; a: u32; a.reverse_bits()),
            Op::Reverse64 => all!(ALONE, mask, frame, inst, u64; a: u64; a.reverse_bits()),
            Op::HighestBit32 => {
                all!(ALONE, mask, frame, inst, u32; a: u32; a.checked_ilog2().unwrap_or(u32::MAX))
            }
            Op::HighestBit64 => {
                all!(ALONE, mask, frame, inst, u32; a: u64; a.checked_ilog2().unwrap_or(u32::MAX))
            }

            Op::CompareS16 => {
                all!(ALONE, mask, frame, inst, u32; a: u32, b: u32; met(relation_of(a as i16, b as i16), inst))
            }
            Op::CompareU16 => {
                all!(ALONE, mask, frame, inst, u32; a: u32, b: u32; met(relation_of(a as u16, b as u16), inst))
            }
            Op::CompareS32 => {
                all!(ALONE, mask, frame, inst, u32; a: u32, b: u32; met(relation_of(a as i32, b as i32), inst))
            }
            Op::CompareU32 => {
                all!(ALONE, mask, frame, inst, u32; a: u32, b: u32; met(relation_of(a, b), inst))
            }
            Op::CompareS64 => {
                all!(ALONE, mask, frame, inst, u32; a: u64, b: u64; met(relation_of(a as i64, b as i64), inst))
            }
            Op::CompareU64 => {
                all!(ALONE, mask, frame, inst, u32; a: u64, b: u64; met(relation_of(a, b), inst))
            }
            Op::CompareF32 => {
                all!(ALONE, mask, frame, inst, u32; a: u32, b: u32; met(relation_f32(f32::from_bits(a), f32::from_bits(b)), inst))
            }
            Op::CompareF64 => {
                all!(ALONE, mask, frame, inst, u32; a: u64, b: u64; met(relation_f64(f64::from_bits(a), f64::from_bits(b)), inst))
            }

            Op::AddF32 => {
                all!(ALONE, mask, frame, inst, u32; a: u32, b: u32; bits_f32(f32::from_bits(a) + f32::from_bits(b)))
            }
            Op::SubF32 => {
                all!(ALONE, mask, frame, inst, u32; a: u32, b: u32; bits_f32(f32::from_bits(a) - f32::from_bits(b)))
            }
            Op::MulF32 => {
                all!(ALONE, mask, frame, inst, u32; a: u32, b: u32; bits_f32(f32::from_bits(a) * f32::from_bits(b)))
            }
            Op::DivF32 => {
                all!(ALONE, mask, frame, inst, u32; a: u32, b: u32; bits_f32(f32::from_bits(a) / f32::from_bits(b)))
            }
            Op::AddF64 => {
                all!(ALONE, mask, frame, inst, u64; a: u64, b: u64; (f64::from_bits(a) + f64::from_bits(b)).to_bits())
            }
            Op::SubF64 => {
                all!(ALONE, mask, frame, inst, u64; a: u64, b: u64; (f64::from_bits(a) - f64::from_bits(b)).to_bits())
            }
            Op::MulF64 => {
                all!(ALONE, mask, frame, inst, u64; a: u64, b: u64; (f64::from_bits(a) * f64::from_bits(b)).to_bits())
            }
            Op::DivF64 => {
                all!(ALONE, mask, frame, inst, u64; a: u64, b: u64; (f64::from_bits(a) / f64::from_bits(b)).to_bits())
            }
            Op::FmaF64 => {
                all!(ALONE, mask, frame, inst, u64; a: u64, b: u64, c: u64; f64::from_bits(a).mul_add(f64::from_bits(b), f64::from_bits(c)).to_bits())
            }
            Op::AddF32Zero => {
                all!(ALONE, mask, frame, inst, u32; a: u32, b: u32; bits_f32(value::add_to_zero(f32::from_bits(a), f32::from_bits(b))))
            }
            Op::SubF32Zero => {
                all!(ALONE, mask, frame, inst, u32; a: u32, b: u32; bits_f32(value::add_to_zero(f32::from_bits(a), -f32::from_bits(b))))
            }
            Op::MulF32Zero => {
                all!(ALONE, mask, frame, inst, u32; a: u32, b: u32; bits_f32(value::mul_to_zero(f32::from_bits(a), f32::from_bits(b))))
            }
            Op::FmaF32Zero => {
                all!(ALONE, mask, frame, inst, u32; a: u32, b: u32, c: u32; bits_f32(value::fma_to_zero(f32::from_bits(a), f32::from_bits(b), f32::from_bits(c))))
            }
            Op::AddF64Zero => {
                all!(ALONE, mask, frame, inst, u64; a: u64, b: u64; value::add_f64_to_zero(f64::from_bits(a), f64::from_bits(b)).to_bits())
            }
            Op::SubF64Zero => {
                all!(ALONE, mask, frame, inst, u64; a: u64, b: u64; value::add_f64_to_zero(f64::from_bits(a), -f64::from_bits(b)).to_bits())
            }
            Op::MulF64Zero => {
                all!(ALONE, mask, frame, inst, u64; a: u64, b: u64; value::mul_f64_to_zero(f64::from_bits(a), f64::from_bits(b)).to_bits())
            }
            Op::DivF64Zero => {
                all!(ALONE, mask, frame, inst, u64; a: u64, b: u64; value::div_f64_to_zero(f64::from_bits(a), f64::from_bits(b)).to_bits())
            }
            Op::MinF32 => {
                all!(ALONE, mask, frame, inst, u32; a: u32, b: u32; value::min_f32(f32::from_bits(a), f32::from_bits(b)))
            }
            Op::MaxF32 => {
                all!(ALONE, mask, frame, inst, u32; a: u32, b: u32; value::max_f32(f32::from_bits(a), f32::from_bits(b)))
            }
            Op::MinF64 => {
                all!(ALONE, mask, frame, inst, u64; a: u64, b: u64; value::min_f64(f64::from_bits(a), f64::from_bits(b)))
            }
            Op::MaxF64 => {
                all!(ALONE, mask, frame, inst, u64; a: u64, b: u64; value::max_f64(f64::from_bits(a), f64::from_bits(b)))
            }
            Op::CopySignF32 => {
                all!(ALONE, mask, frame, inst, u32; a: u32, b: u32; a & 0x8000_0000 | b & 0x7fff_ffff)
            }
            Op::CopySignF64 => {
                all!(ALONE, mask, frame, inst, u64; a: u64, b: u64; a & 1 << 63 | b & (u64::MAX >> 1))
            }
            Op::NegateF32 => all!(ALONE, mask, frame, inst, u32; a: u32; a ^ 0x8000_0000),
            Op::NegateF64 => all!(ALONE, mask, frame, inst, u64; a: u64; a ^ 1 << 63),
            Op::AbsoluteF32 => all!(ALONE, mask, frame, inst, u32; a: u32; a & 0x7fff_ffff),
            Op::AbsoluteF64 => all!(ALONE, mask, frame, inst, u64; a: u64; a & (u64::MAX >> 1)),
            Op::SqrtF32 => {
                all!(ALONE, mask, frame, inst, u32; a: u32; bits_f32(f32::from_bits(a).sqrt()))
            }
            Op::SqrtF32Zero => {
                all!(ALONE, mask, frame, inst, u32; a: u32; bits_f32(value::sqrt_to_zero(f32::from_bits(a))))
            }
            Op::SqrtF64 => {
                all!(ALONE, mask, frame, inst, u64; a: u64; f64::from_bits(a).sqrt().to_bits())
            }
            Op::ReciprocalF32 => {
                all!(ALONE, mask, frame, inst, u32; a: u32; bits_f32(1.0 / f32::from_bits(a)))
            }
            Op::ReciprocalF64 => {
                all!(ALONE, mask, frame, inst, u64; a: u64; (1.0 / f64::from_bits(a)).to_bits())
            }
            Op::S32ToF32 => {
                all!(ALONE, mask, frame, inst, u32; a: u32; value::s32_to_f32(a as i32, inst.sub).to_bits())
            }
            Op::U32ToF32 => {
                all!(ALONE, mask, frame, inst, u32; a: u32; value::u32_to_f32(a, inst.sub).to_bits())
            }
            Op::S64ToF32 => {
                all!(ALONE, mask, frame, inst, u32; a: u64; value::integer_to_f32(i128::from(a as i64), inst.sub).to_bits())
            }
            Op::U64ToF32 => {
                all!(ALONE, mask, frame, inst, u32; a: u64; value::integer_to_f32(i128::from(a), inst.sub).to_bits())
            }
            Op::S32ToF64 => {
                all!(ALONE, mask, frame, inst, u64; a: u32; f64::from(a as i32).to_bits())
            }
            Op::U32ToF64 => all!(ALONE, mask, frame, inst, u64; a: u32; f64::from(a).to_bits()),
            Op::S64ToF64 => {
                all!(ALONE, mask, frame, inst, u64; a: u64; value::integer_to_f64(i128::from(a as i64), inst.sub).to_bits())
            }
            Op::U64ToF64 => {
                all!(ALONE, mask, frame, inst, u64; a: u64; value::integer_to_f64(i128::from(a), inst.sub).to_bits())
            }
            Op::F32ToS16 => {
                all!(ALONE, mask, frame, inst, u32; a: u32; u32::from(value::round_f32(f32::from_bits(a), inst.sub) as i16 as u16))
            }
            Op::F32ToU16 => {
                all!(ALONE, mask, frame, inst, u32; a: u32; u32::from(value::round_f32(f32::from_bits(a), inst.sub) as u16))
            }
            Op::F32ToS32 => {
                all!(ALONE, mask, frame, inst, u32; a: u32; value::round_f32(f32::from_bits(a), inst.sub) as i32 as u32)
            }
            Op::F32ToU32 => {
                all!(ALONE, mask, frame, inst, u32; a: u32; value::round_f32(f32::from_bits(a), inst.sub) as u32)
            }
            Op::F32ToS64 => {
                all!(ALONE, mask, frame, inst, u64; a: u32; value::round_f32(f32::from_bits(a), inst.sub) as i64 as u64)
            }
            Op::F32ToU64 => {
                all!(ALONE, mask, frame, inst, u64; a: u32; value::round_f32(f32::from_bits(a), inst.sub) as u64)
            }
            Op::F64ToS16 => {
                all!(ALONE, mask, frame, inst, u32; a: u64; u32::from(value::round_f64(f64::from_bits(a), inst.sub) as i16 as u16))
            }
            Op::F64ToU16 => {
                all!(ALONE, mask, frame, inst, u32; a: u64; u32::from(value::round_f64(f64::from_bits(a), inst.sub) as u16))
            }
            Op::F64ToS32 => {
                all!(ALONE, mask, frame, inst, u32; a: u64; value::round_f64(f64::from_bits(a), inst.sub) as i32 as u32)
            }
            Op::F64ToU32 => {
                all!(ALONE, mask, frame, inst, u32; a: u64; value::round_f64(f64::from_bits(a), inst.sub) as u32)
            }
            Op::F64ToS64 => {
                all!(ALONE, mask, frame, inst, u64; a: u64; value::round_f64(f64::from_bits(a), inst.sub) as i64 as u64)
            }
            Op::F64ToU64 => {
                all!(ALONE, mask, frame, inst, u64; a: u64; value::round_f64(f64::from_bits(a), inst.sub) as u64)
            }
            Op::F32ToF64 => {
                all!(ALONE, mask, frame, inst, u64; a: u32; f64::from(f32::from_bits(a)).to_bits())
            }
            Op::F64ToF32 => {
                all!(ALONE, mask, frame, inst, u32; a: u64; bits_f32(value::f64_to_f32(f64::from_bits(a), inst.sub)))
            }
            Op::F16ToF32 => {
                all!(ALONE, mask, frame, inst, u32; a: u32; value::half_to_f32(a as u16).to_bits())
            }
            Op::F32ToF16 => {
                all!(ALONE, mask, frame, inst, u32; a: u32; u32::from(value::f32_to_half(f32::from_bits(a), inst.sub)))
            }
            Op::RoundF32 => {
                all!(ALONE, mask, frame, inst, u32; a: u32; bits_f32(value::round_f32(f32::from_bits(a), inst.sub)))
            }
            Op::RoundF64 => {
                all!(ALONE, mask, frame, inst, u64; a: u64; value::round_f64(f64::from_bits(a), inst.sub).to_bits())
            }
            Op::SaturateF32 => {
                all!(ALONE, mask, frame, inst, u32; a: u32; value::saturate(f32::from_bits(a)).to_bits())
            }
            _ => unreachable!("handled by the group"),
        }
    }
    None
}

/// The multiply-add, which comes in long runs.
///
/// # Safety
/// As `compute`.
#[inline(always)]
pub(super) unsafe fn fma<const ALONE: bool>(inst: &Inst, frame: *mut u32, mask: &[u32; LANES]) {
    // SAFETY: as the caller promises.
    unsafe { all!(ALONE, mask, frame, inst, u32; a: u32, b: u32, c: u32; fused(a, b, c)) }
}

#[inline(always)]
fn fused(a: u32, b: u32, c: u32) -> u32 {
    bits_f32(f32::from_bits(a).mul_add(f32::from_bits(b), f32::from_bits(c)))
}

#[inline(always)]
fn met(relation: u8, inst: &Inst) -> u32 {
    u32::from(relation & inst.sub != 0)
}

#[inline(always)]
fn pair(low: u32, high: u32) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}

#[inline(always)]
fn high_u32(a: u32, b: u32) -> u32 {
    ((u64::from(a) * u64::from(b)) >> 32) as u32
}

#[inline(always)]
fn high_s32(a: u32, b: u32) -> u32 {
    (wide_s32(a, b) >> 32) as u32
}

#[inline(always)]
fn high_u64(a: u64, b: u64) -> u64 {
    ((u128::from(a) * u128::from(b)) >> 64) as u64
}

#[inline(always)]
fn high_s64(a: u64, b: u64) -> u64 {
    ((i128::from(a as i64) * i128::from(b as i64)) >> 64) as u64
}

#[inline(always)]
fn wide_s16(a: u32, b: u32) -> u32 {
    (i32::from(a as i16) * i32::from(b as i16)) as u32
}

#[inline(always)]
fn wide_s32(a: u32, b: u32) -> u64 {
    (i64::from(a as i32) * i64::from(b as i32)) as u64
}
