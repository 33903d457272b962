//! Moves and conversions.

use super::{CONSTANT, Lower, Result, is_wide};
use crate::ptx::instruction::{Op, rounding};
use crate::ptx::syntax::{Operand, size_of_type};

impl Lower<'_> {
    pub(super) fn move_(&mut self, d: &Operand, a: &Operand, kind: &str) -> Result<bool> {
        match (d, a) {
            (d, Operand::Vector(parts)) => {
                // The first part is the low half.
                let [low, high] = parts.as_slice() else {
                    return Ok(false);
                };
                let (op, half) = match kind {
                    "b32" => (Op::Pack16, "b16"),
                    "b64" => (Op::Pack32, "b32"),
                    _ => return Ok(false),
                };
                self.two(op, d, [low, high], kind, [half; 2], 0)?;
            }
            (Operand::Vector(parts), a) => {
                let [low, high] = parts.as_slice() else {
                    return Ok(false);
                };
                let (half, bits, up) = match kind {
                    "b32" => ("b16", 16, Op::ShrU32),
                    "b64" => ("b32", 32, Op::High32),
                    _ => return Ok(false),
                };
                let a = self.value(a, kind)?;
                let (low, high) = (self.result(low, half)?, self.result(high, half)?);
                self.extend(false, bits, low, a, kind);
                if up == Op::High32 {
                    self.emit(up, 0, &[high, a], 0);
                } else {
                    let sixteen = self.constant(16);
                    self.emit(up, 0, &[high, a, sixteen], 0);
                }
            }
            _ => self.one(if is_wide(kind) { Op::Move64 } else { Op::Move32 }, d, a, kind, kind, 0)?,
        }
        Ok(size_of_type(kind).is_some())
    }

    pub(super) fn convert(&mut self, parts: &[&str], d: &Operand, a: &Operand) -> Result<bool> {
        let [middle @ .., to, from] = parts else {
            return Ok(false);
        };
        let (to, from) = (*to, *from);
        let whole = |name: &str| match name {
            "rni" => Some(rounding::NEAREST),
            "rzi" => Some(rounding::ZERO),
            "rmi" => Some(rounding::DOWN),
            "rpi" => Some(rounding::UP),
            _ => None,
        };
        let float = |name: &str| name.starts_with('f');
        let int = |name: &str| matches!(name, "s8" | "u8" | "s16" | "u16" | "s32" | "u32" | "s64" | "u64");
        if int(to) && int(from) && middle.is_empty() {
            let (source, target) = (size_of_type(from).unwrap_or(8), size_of_type(to).unwrap_or(8));
            let a = self.value_of(a, from, true)?;
            let Operand::Name(name) = d else {
                return Ok(false);
            };
            let d = self.register(name)?;
            self.fits(d, to, true)?;
            let width = size_of_type(self.types[d as usize]).unwrap_or(8);
            // Taken from the source's low bits, extended by the sign of the wider type that has one, cut to the register.
            if target > source && from.starts_with('s') {
                self.extend(true, 8 * source, d, a, from);
            } else {
                self.extend(false, 8 * source.min(target), d, a, from);
            }
            if to.starts_with('s') && width > target {
                self.extend(true, 8 * target, d, d, to);
            } else if target > source && from.starts_with('s') && width > target {
                self.extend(false, 8 * target, d, d, to);
            }
            if width < 4 {
                self.extend(false, 8 * width, d, d, to);
            }
            return Ok(true);
        }
        let (op, sub) = match (middle, to, from) {
            ([mode], "f32", "f32") if whole(mode).is_some() => (Op::RoundF32, whole(mode).unwrap_or(0)),
            ([mode], "f64", "f64") if whole(mode).is_some() => (Op::RoundF64, whole(mode).unwrap_or(0)),
            (["sat"], "f32", "f32") => (Op::SaturateF32, 0),
            ([], "f64", "f32") => (Op::F32ToF64, 0),
            (["rn"], "f32", "f64") => (Op::F64ToF32, rounding::NEAREST),
            (["rz"], "f32", "f64") => (Op::F64ToF32, rounding::ZERO),
            ([], "f32", "f16") => (Op::F16ToF32, 0),
            (["rn"], "f16", "f32") => (Op::F32ToF16, rounding::NEAREST),
            (["rz"], "f16", "f32") => (Op::F32ToF16, rounding::ZERO),
            ([mode @ ("rn" | "rz")], "f32" | "f64", from) if int(from) => {
                let sub = if *mode == "rn" { rounding::NEAREST } else { rounding::ZERO };
                return self.integer_to_float(sub, d, a, to, from);
            }
            ([mode], to, from) if float(from) && int(to) && whole(mode).is_some() => {
                let op = match (from, to) {
                    ("f32", "s16") => Op::F32ToS16,
                    ("f32", "u16") => Op::F32ToU16,
                    ("f32", "s32") => Op::F32ToS32,
                    ("f32", "u32") => Op::F32ToU32,
                    ("f32", "s64") => Op::F32ToS64,
                    ("f32", "u64") => Op::F32ToU64,
                    ("f64", "s16") => Op::F64ToS16,
                    ("f64", "u16") => Op::F64ToU16,
                    ("f64", "s32") => Op::F64ToS32,
                    ("f64", "u32") => Op::F64ToU32,
                    ("f64", "s64") => Op::F64ToS64,
                    ("f64", "u64") => Op::F64ToU64,
                    _ => return Ok(false),
                };
                (op, whole(mode).unwrap_or(0))
            }
            _ => return Ok(false),
        };
        // Halves live in registers of type b16.
        self.one(op, d, a, to, from, sub)?;
        Ok(true)
    }

    pub(super) fn integer_to_float(&mut self, sub: u8, d: &Operand, a: &Operand, to: &str, from: &str) -> Result<bool> {
        let mut a = self.value_of(a, from, true)?;
        if self.types[a as usize] != CONSTANT && self.is_wide(a) && !is_wide(from) {
            let narrow = self.fresh("b32", "a narrowed integer".into());
            self.extend(false, 32, narrow, a, from);
            a = narrow;
        }
        let source = size_of_type(from).unwrap_or(8);
        let signed = from.starts_with('s');
        if source < 4 {
            let wide = self.fresh("b32", "a widened integer".into());
            self.extend(signed, 8 * source, wide, a, from);
            a = wide;
        }
        let op = match (to, signed, source == 8) {
            ("f32", true, false) => Op::S32ToF32,
            ("f32", false, false) => Op::U32ToF32,
            ("f32", true, true) => Op::S64ToF32,
            ("f32", false, true) => Op::U64ToF32,
            (_, true, false) => Op::S32ToF64,
            (_, false, false) => Op::U32ToF64,
            (_, true, true) => Op::S64ToF64,
            (_, false, true) => Op::U64ToF64,
        };
        let d = self.result(d, to)?;
        self.emit(op, sub, &[d, a], 0);
        Ok(true)
    }
}
