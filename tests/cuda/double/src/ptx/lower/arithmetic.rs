//! Which operation an opcode is: control, integers, floats and comparisons.

use super::{Lower, Result, is_wide};
use crate::ptx::instruction::{Op, relation};
use crate::ptx::syntax::{Instruction, Operand, size_of_type};

/// By the width of `kind`: 2, 4 or 8 bytes.
fn by_width(kind: &str, ops: [Op; 3]) -> Option<Op> {
    match kind.get(1..)? {
        "16" => Some(ops[0]),
        "32" => Some(ops[1]),
        "64" => Some(ops[2]),
        _ => None,
    }
}

/// By the type: [s16, u16, s32, u32, s64, u64].
fn by_sign(kind: &str, ops: [Op; 6]) -> Option<Op> {
    let index = ["s16", "u16", "s32", "u32", "s64", "u64"].iter().position(|known| *known == kind)?;
    Some(ops[index])
}

fn integer(kind: &str) -> bool {
    matches!(kind, "s16" | "u16" | "s32" | "u32" | "s64" | "u64")
}

fn bits(kind: &str) -> bool {
    matches!(kind, "b16" | "b32" | "b64")
}

fn compare(name: &str, kind: &str) -> Option<u8> {
    use relation::{EQUAL, GREATER, LESS, UNORDERED};
    let float = kind.starts_with('f');
    let unordered = |name: &str| float.then(|| name.strip_suffix('u')).flatten().map(str::to_string);
    let plain = |name: &str| {
        Some(match name {
            "eq" => EQUAL,
            "ne" => LESS | GREATER,
            "lt" => LESS,
            "le" => LESS | EQUAL,
            "gt" => GREATER,
            "ge" => GREATER | EQUAL,
            _ => return None,
        })
    };
    match name {
        "num" if float => Some(LESS | EQUAL | GREATER),
        "nan" if float => Some(UNORDERED),
        "lo" | "ls" | "hi" | "hs" if kind.starts_with('u') => {
            plain(["lt", "le", "gt", "ge"][["lo", "ls", "hi", "hs"].iter().position(|n| *n == name)?])
        }
        _ => plain(name).or_else(|| unordered(name).and_then(|name| plain(&name)).map(|set| set | UNORDERED)),
    }
}

impl<'a> Lower<'a> {
    pub(super) fn instruction(&mut self, instruction: &'a Instruction) -> Result<()> {
        let opcode: Vec<&str> = instruction.opcode.iter().map(String::as_str).collect();
        let operands = instruction.operands.as_slice();
        let kind = *opcode.last().unwrap_or(&"");
        let middle = &opcode[1..opcode.len().max(2) - 1];
        let known = match (opcode[0], middle, operands) {
            ("mov", [], [d, a]) => self.move_(d, a, kind)?,
            ("cvta", _, [d, a]) => self.convert_address(&opcode[1..], d, a)?,
            ("cvt", _, [d, a]) => self.convert(&opcode[1..], d, a)?,
            ("ld" | "ldu", _, [d, address]) => self.load(&opcode[1..], d, address)?,
            ("st", _, [address, a]) => self.store(&opcode[1..], address, a)?,
            ("atom", _, _) => self.atomic(&opcode[1..], operands, true)?,
            ("red", _, _) => self.atomic(&opcode[1..], operands, false)?,
            ("setp", _, _) => self.set_predicate(&opcode[1..], operands)?,
            ("selp", [], [d, a, b, c]) => {
                let (a, b, c) = (self.value(a, kind)?, self.value(b, kind)?, self.value(c, "pred")?);
                let d = self.result(d, kind)?;
                self.emit(if is_wide(kind) { Op::Select64 } else { Op::Select32 }, 0, &[d, a, b, c], 0);
                size_of_type(kind).is_some()
            }
            ("bra", _, [Operand::Name(target)]) => {
                self.jumps.push((self.code.len(), target.clone()));
                self.emit(Op::Jump, 0, &[], 0);
                matches!(&opcode[1..], [] | ["uni"])
            }
            ("brx", _, [index, Operand::Name(table)]) => {
                let index = self.value(index, "u32")?;
                // Tables are declared before they are used.
                let Some(&table) = self.tables.get(table.as_str()) else {
                    return self.error(format!("the table {table} is not there"));
                };
                self.emit(Op::JumpTable, 0, &[0, index], table as i32);
                opcode[1] == "idx"
            }
            ("ret" | "exit", _, []) => {
                self.emit(Op::Return, 0, &[], 0);
                matches!(&opcode[1..], [] | ["uni"])
            }
            ("trap", _, []) => {
                self.emit(Op::Trap, 0, &[], 0);
                opcode.len() == 1
            }
            ("bar" | "barrier", _, [Operand::Integer(0)]) => {
                self.emit(Op::Barrier, 0, &[], 0);
                matches!(&opcode[1..], ["sync"] | ["sync", "aligned"] | ["cta", "sync"] | ["cta", "sync", "aligned"])
            }
            ("membar", [], []) => {
                self.emit(Op::Fence, 0, &[], 0);
                matches!(kind, "gl" | "cta" | "sys")
            }
            ("fence", _, []) => {
                self.emit(Op::Fence, 0, &[], 0);
                opcode[1..].iter().all(|part| matches!(*part, "sc" | "acq_rel" | "gpu" | "cta" | "sys"))
            }
            ("shf", [side @ ("l" | "r"), mode @ ("wrap" | "clamp")], [d, a, b, c]) => {
                let op = match (*side, *mode) {
                    ("l", "wrap") => Op::FunnelLeftWrap,
                    ("l", _) => Op::FunnelLeftClamp,
                    (_, "wrap") => Op::FunnelRightWrap,
                    _ => Op::FunnelRightClamp,
                };
                self.three(op, d, [a, b, c], "b32", ["b32", "b32", "u32"], 0)?;
                kind == "b32"
            }
            ("prmt", [], [d, a, b, c]) => {
                self.three(Op::Permute, d, [a, b, c], "b32", ["b32"; 3], 0)?;
                kind == "b32"
            }
            ("lop3", [], [d, a, b, c, Operand::Integer(table)]) => {
                self.three(Op::Logic3, d, [a, b, c], "b32", ["b32"; 3], *table as i32 & 255)?;
                kind == "b32"
            }
            ("bfe", [], [d, a, b, c]) => match by_sign(
                kind,
                [Op::Trap, Op::Trap, Op::ExtractS32, Op::ExtractU32, Op::ExtractS64, Op::ExtractU64],
            ) {
                Some(op) if op != Op::Trap => {
                    self.three(op, d, [a, b, c], kind, [kind, "u32", "u32"], 0)?;
                    true
                }
                _ => false,
            },
            ("bfi", [], [d, a, b, c, e]) if matches!(kind, "b32" | "b64") => {
                let fields = [self.value(a, kind)?, self.value(b, kind)?, self.value(c, "u32")?, self.value(e, "u32")?];
                let d = self.result(d, kind)?;
                let op = if kind == "b32" { Op::Insert32 } else { Op::Insert64 };
                self.emit(op, 0, &[d, fields[0], fields[1], fields[2], fields[3]], 0);
                true
            }
            (name, _, [d, a]) => self.one_operand(name, middle, kind, d, a)?,
            (name, _, [d, a, b]) => self.two_operands(name, middle, kind, d, a, b)?,
            (name, _, [d, a, b, c]) => self.three_operands(name, middle, kind, d, a, b, c)?,
            _ => false,
        };
        if !known {
            return self.error(format!(
                "the instruction {} with {} operands is not supported",
                opcode.join("."),
                operands.len()
            ));
        }
        Ok(())
    }

    pub(super) fn one(&mut self, op: Op, d: &Operand, a: &Operand, to: &str, from: &str, sub: u8) -> Result<()> {
        let a = self.value(a, from)?;
        let d = self.result(d, to)?;
        self.emit(op, sub, &[d, a], 0);
        Ok(())
    }

    pub(super) fn two(
        &mut self,
        op: Op,
        d: &Operand,
        [a, b]: [&Operand; 2],
        to: &str,
        from: [&str; 2],
        sub: u8,
    ) -> Result<()> {
        let (a, b) = (self.value(a, from[0])?, self.value(b, from[1])?);
        let d = self.result(d, to)?;
        self.emit(op, sub, &[d, a, b], 0);
        Ok(())
    }

    pub(super) fn three(
        &mut self,
        op: Op,
        d: &Operand,
        [a, b, c]: [&Operand; 3],
        to: &str,
        from: [&str; 3],
        imm: i32,
    ) -> Result<()> {
        let (a, b, c) = (self.value(a, from[0])?, self.value(b, from[1])?, self.value(c, from[2])?);
        let d = self.result(d, to)?;
        self.emit(op, 0, &[d, a, b, c], imm);
        Ok(())
    }

    pub(super) fn one_operand(
        &mut self,
        name: &str,
        middle: &[&str],
        kind: &str,
        d: &Operand,
        a: &Operand,
    ) -> Result<bool> {
        let op = match (name, middle, kind) {
            ("not", [], "pred") => Some(Op::NotPredicate),
            ("not", [], _) if bits(kind) => by_width(kind, [Op::Not16, Op::Not32, Op::Not64]),
            ("neg", [], "f32") => Some(Op::NegateF32),
            ("neg", [], "f64") => Some(Op::NegateF64),
            ("abs", [], "f32") => Some(Op::AbsoluteF32),
            ("abs", [], "f64") => Some(Op::AbsoluteF64),
            ("neg", [], "s16" | "s32" | "s64") => by_width(kind, [Op::Negate16, Op::Negate32, Op::Negate64]),
            ("abs", [], "s16" | "s32" | "s64") => by_width(kind, [Op::Absolute16, Op::Absolute32, Op::Absolute64]),
            ("sqrt", ["rn"], "f32") => Some(Op::SqrtF32),
            ("sqrt", ["rz"], "f32") => Some(Op::SqrtF32Zero),
            ("sqrt", ["rn"], "f64") => Some(Op::SqrtF64),
            ("rcp", ["rn"], "f32") => Some(Op::ReciprocalF32),
            ("rcp", ["rn"], "f64") => Some(Op::ReciprocalF64),
            ("brev", [], "b32") => Some(Op::Reverse32),
            ("brev", [], "b64") => Some(Op::Reverse64),
            _ => None,
        };
        if let Some(op) = op {
            self.one(op, d, a, kind, kind, 0)?;
            return Ok(true);
        }
        let (op, to) = match (name, middle, kind) {
            ("popc", [], "b32") => (Op::CountOnes32, "u32"),
            ("popc", [], "b64") => (Op::CountOnes64, "u32"),
            ("clz", [], "b32") => (Op::CountZeros32, "u32"),
            ("clz", [], "b64") => (Op::CountZeros64, "u32"),
            ("bfind", [], "u32") => (Op::HighestBit32, "u32"),
            ("bfind", [], "u64") => (Op::HighestBit64, "u32"),
            _ => return Ok(false),
        };
        self.one(op, d, a, to, kind, 0)?;
        Ok(true)
    }

    pub(super) fn two_operands(
        &mut self,
        name: &str,
        middle: &[&str],
        kind: &str,
        d: &Operand,
        a: &Operand,
        b: &Operand,
    ) -> Result<bool> {
        let floats = |rounded: bool, nearest: [Op; 2], zero: [Option<Op>; 2]| match (middle, kind) {
            (["rn"], "f32") => Some(nearest[0]),
            (["rn"], "f64") => Some(nearest[1]),
            ([], "f32") if !rounded => Some(nearest[0]),
            ([], "f64") if !rounded => Some(nearest[1]),
            (["rz"], "f32") => zero[0],
            (["rz"], "f64") => zero[1],
            _ => None,
        };
        let plain = middle.is_empty();
        let none = [None, None];
        let op = match name {
            "add" if integer(kind) && plain => by_width(kind, [Op::Add16, Op::Add32, Op::Add64]),
            "sub" if integer(kind) && plain => by_width(kind, [Op::Sub16, Op::Sub32, Op::Sub64]),
            // Without a rounding, add, sub and mul of floats are to nearest too, but may be fused: only `.rn` is what we mean.
            "add" => floats(true, [Op::AddF32, Op::AddF64], [Op::AddF32Zero, Op::AddF64Zero].map(Some)),
            "sub" => floats(true, [Op::SubF32, Op::SubF64], [Op::SubF32Zero, Op::SubF64Zero].map(Some)),
            "mul" if kind.starts_with('f') => {
                floats(true, [Op::MulF32, Op::MulF64], [Op::MulF32Zero, Op::MulF64Zero].map(Some))
            }
            "div" if kind.starts_with('f') => floats(true, [Op::DivF32, Op::DivF64], [None, Some(Op::DivF64Zero)]),
            "min" if kind.starts_with('f') => floats(false, [Op::MinF32, Op::MinF64], none).filter(|_| plain),
            "max" if kind.starts_with('f') => floats(false, [Op::MaxF32, Op::MaxF64], none).filter(|_| plain),
            // copysign takes the sign of its first operand.
            "copysign" => floats(false, [Op::CopySignF32, Op::CopySignF64], none).filter(|_| plain),
            "mul" if middle == ["lo"] && integer(kind) => by_width(kind, [Op::Mul16, Op::Mul32, Op::Mul64]),
            "mul" if middle == ["hi"] => match kind {
                "s32" => Some(Op::MulHighS32),
                "u32" => Some(Op::MulHighU32),
                "s64" => Some(Op::MulHighS64),
                "u64" => Some(Op::MulHighU64),
                _ => None,
            },
            "mul" if middle == ["wide"] => {
                let (op, to) = match kind {
                    "s16" => (Op::MulWideS16, "s32"),
                    "u16" => (Op::MulWideU16, "u32"),
                    "s32" => (Op::MulWideS32, "s64"),
                    "u32" => (Op::MulWideU32, "u64"),
                    _ => return Ok(false),
                };
                self.two(op, d, [a, b], to, [kind; 2], 0)?;
                return Ok(true);
            }
            "div" if plain => by_sign(kind, [Op::DivS16, Op::DivU16, Op::DivS32, Op::DivU32, Op::DivS64, Op::DivU64]),
            "rem" if plain => by_sign(kind, [Op::RemS16, Op::RemU16, Op::RemS32, Op::RemU32, Op::RemS64, Op::RemU64]),
            "min" if plain => by_sign(kind, [Op::MinS16, Op::MinU16, Op::MinS32, Op::MinU32, Op::MinS64, Op::MinU64]),
            "max" if plain => by_sign(kind, [Op::MaxS16, Op::MaxU16, Op::MaxS32, Op::MaxU32, Op::MaxS64, Op::MaxU64]),
            "and" if plain && (bits(kind) || kind == "pred") => Some(if is_wide(kind) { Op::And64 } else { Op::And32 }),
            "or" if plain && (bits(kind) || kind == "pred") => Some(if is_wide(kind) { Op::Or64 } else { Op::Or32 }),
            "xor" if plain && (bits(kind) || kind == "pred") => Some(if is_wide(kind) { Op::Xor64 } else { Op::Xor32 }),
            "shl" | "shr" if plain => {
                let op = match (name, kind) {
                    ("shl", "b16") => Op::Shl16,
                    ("shl", "b32") => Op::Shl32,
                    ("shl", "b64") => Op::Shl64,
                    ("shr", "u16" | "b16") => Op::ShrU16,
                    ("shr", "u32" | "b32") => Op::ShrU32,
                    ("shr", "u64" | "b64") => Op::ShrU64,
                    ("shr", "s16") => Op::ShrS16,
                    ("shr", "s32") => Op::ShrS32,
                    ("shr", "s64") => Op::ShrS64,
                    _ => return Ok(false),
                };
                self.two(op, d, [a, b], kind, [kind, "u32"], 0)?;
                return Ok(true);
            }
            _ => None,
        };
        let Some(op) = op else { return Ok(false) };
        self.two(op, d, [a, b], kind, [kind; 2], 0)?;
        Ok(true)
    }

    #[expect(clippy::too_many_arguments, reason = "an instruction's parts")]
    pub(super) fn three_operands(
        &mut self,
        name: &str,
        middle: &[&str],
        kind: &str,
        d: &Operand,
        a: &Operand,
        b: &Operand,
        c: &Operand,
    ) -> Result<bool> {
        let op = match (name, middle, kind) {
            ("fma", ["rn"], "f32") => Op::FmaF32,
            ("fma", ["rz"], "f32") => Op::FmaF32Zero,
            ("fma", ["rn"], "f64") => Op::FmaF64,
            ("mad", ["lo"], "s16" | "u16") => Op::Mad16,
            ("mad", ["lo"], "s32" | "u32") => Op::Mad32,
            ("mad", ["lo"], "s64" | "u64") => Op::Mad64,
            ("mad", ["hi"], "s32") => Op::MadHighS32,
            ("mad", ["hi"], "u32") => Op::MadHighU32,
            ("mad", ["hi"], "s64") => Op::MadHighS64,
            ("mad", ["hi"], "u64") => Op::MadHighU64,
            ("mad", ["wide"], _) => {
                let (op, to) = match kind {
                    "s16" => (Op::MadWideS16, "s32"),
                    "u16" => (Op::MadWideU16, "u32"),
                    "s32" => (Op::MadWideS32, "s64"),
                    "u32" => (Op::MadWideU32, "u64"),
                    _ => return Ok(false),
                };
                self.three(op, d, [a, b, c], to, [kind, kind, to], 0)?;
                return Ok(true);
            }
            _ => return Ok(false),
        };
        self.three(op, d, [a, b, c], kind, [kind; 3], 0)?;
        Ok(true)
    }

    pub(super) fn set_predicate(&mut self, parts: &[&str], operands: &[Operand]) -> Result<bool> {
        let (relation_name, combine, kind) = match parts {
            [relation, kind] => (*relation, None, *kind),
            [relation, combine, kind] => (*relation, Some(*combine), *kind),
            _ => return Ok(false),
        };
        let op = match kind {
            "s16" => Op::CompareS16,
            "u16" | "b16" => Op::CompareU16,
            "s32" => Op::CompareS32,
            "u32" | "b32" => Op::CompareU32,
            "s64" => Op::CompareS64,
            "u64" | "b64" => Op::CompareU64,
            "f32" => Op::CompareF32,
            "f64" => Op::CompareF64,
            _ => return Ok(false),
        };
        let Some(relations) = compare(relation_name, kind) else {
            return Ok(false);
        };
        if kind.starts_with('b') && !matches!(relation_name, "eq" | "ne") {
            return Ok(false);
        }
        let (d, a, b, c) = match (operands, combine) {
            ([d, a, b], None) => (d, a, b, None),
            ([d, a, b, c], Some(_)) => (d, a, b, Some(c)),
            _ => return Ok(false),
        };
        let (a, b) = (self.value(a, kind)?, self.value(b, kind)?);
        let c = c.map(|c| self.value(c, "pred")).transpose()?;
        let (d, inverse) = match d {
            Operand::Pair(d, q) => {
                (self.result(&Operand::Name(d.clone()), "pred")?, Some(self.result(&Operand::Name(q.clone()), "pred")?))
            }
            d => (self.result(d, "pred")?, None),
        };
        let met = if c.is_some() || inverse.is_some() { self.fresh("pred", "a comparison".into()) } else { d };
        self.emit(op, relations, &[met, a, b], 0);
        let Some(logic) = (match combine {
            None | Some("and") => Some(Op::And32),
            Some("or") => Some(Op::Or32),
            Some("xor") => Some(Op::Xor32),
            _ => None,
        }) else {
            return Ok(false);
        };
        let unmet = inverse.map(|_| self.fresh("pred", "a comparison's inverse".into()));
        if let Some(unmet) = unmet {
            self.emit(Op::NotPredicate, 0, &[unmet, met], 0);
        }
        for (to, from) in [(Some(d), Some(met)), (inverse, unmet)] {
            if let (Some(to), Some(from)) = (to, from) {
                match c {
                    Some(c) => self.emit(logic, 0, &[to, from, c], 0),
                    None if to != from => self.emit(Op::Move32, 0, &[to, from], 0),
                    None => {}
                }
            }
        }
        Ok(true)
    }
}
