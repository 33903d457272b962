//! Small changes to PTX that a good test notices, in a fixed order: by instruction, and for each one in the order of `variants`.

use super::syntax::{Entry, Guard, Instruction, Module, Operand, Statement};
use std::fmt;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    Arithmetic,
    Comparison,
    Address,
    Barrier,
    Rounding,
    Constant,
    Branch,
    Effect,
}

/// One change: what takes the place of a statement.
#[derive(Clone, Debug)]
pub struct Mutant {
    pub class: Class,
    pub statement: usize,
    pub line: u32,
    pub original: String,
    pub instead: Vec<Instruction>,
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&format!("{self:?}").to_lowercase())
    }
}

impl Mutant {
    /// What the instruction becomes.
    pub fn text(&self) -> String {
        if self.instead.is_empty() {
            return "(removed)".to_string();
        }
        self.instead.iter().map(write).collect::<Vec<_>>().join(" ")
    }
}

/// All mutants of an entry.
pub fn mutants(entry: &Entry) -> Vec<Mutant> {
    let mut found = Vec::new();
    for (statement, body) in entry.body.iter().enumerate() {
        if let Statement::Instruction(instruction) = body {
            for (class, instead) in variants(instruction) {
                found.push(Mutant { class, statement, line: instruction.line, original: write(instruction), instead });
            }
        }
    }
    found
}

/// Applies mutation `index` of the entry of that name, or of all entries in order for `*`. Whether there was one; nothing where the
/// module has no such entry.
pub fn apply(module: &mut Module, name: &str, index: usize) -> Option<bool> {
    let mut left = index;
    let mut seen = false;
    for entry in module.entries.iter_mut().filter(|entry| name == "*" || entry.name == name) {
        seen = true;
        let found = mutants(entry);
        if let Some(mutant) = found.get(left) {
            let instead = mutant.instead.iter().cloned().map(Statement::Instruction);
            entry.body.splice(mutant.statement..=mutant.statement, instead);
            for kind in ["f32", "f64"] {
                entry.registers.insert(format!("%mutant_{kind}"), kind.to_string());
            }
            return Some(true);
        }
        left -= found.len();
    }
    seen.then_some(false)
}

fn variants(instruction: &Instruction) -> Vec<(Class, Vec<Instruction>)> {
    let mut out = Vec::new();
    arithmetic(instruction, &mut out);
    comparison(instruction, &mut out);
    address(instruction, &mut out);
    if instruction.opcode[0] == "bar" || instruction.opcode[0] == "barrier" {
        out.push((Class::Barrier, Vec::new()));
    }
    rounding(instruction, &mut out);
    constant(instruction, &mut out);
    branch(instruction, &mut out);
    effect(instruction, &mut out);
    out
}

type Found = Vec<(Class, Vec<Instruction>)>;

fn with_opcode(instruction: &Instruction, opcode: &[&str]) -> Instruction {
    Instruction { opcode: opcode.iter().map(|part| part.to_string()).collect(), ..instruction.clone() }
}

fn with_operand(instruction: &Instruction, at: usize, operand: Operand) -> Instruction {
    let mut changed = instruction.clone();
    changed.operands[at] = operand;
    changed
}

fn swapped(instruction: &Instruction, a: usize, b: usize) -> Option<Instruction> {
    let mut changed = instruction.clone();
    changed.operands.swap(a, b);
    (changed.operands[a] != changed.operands[b]).then_some(changed)
}

fn zero(kind: &str) -> Operand {
    match kind {
        "f32" => Operand::F32(0),
        "f64" => Operand::F64(0),
        _ => Operand::Integer(0),
    }
}

fn arithmetic(instruction: &Instruction, out: &mut Found) {
    let opcode: Vec<&str> = instruction.opcode.iter().map(String::as_str).collect();
    let mut push = |changed: Vec<Instruction>| out.push((Class::Arithmetic, changed));
    match opcode.as_slice() {
        ["add", rest @ ..] => {
            push(vec![with_opcode(instruction, &[&["sub"], rest].concat())]);
            let product: &[&str] = if rest.len() == 1 { &["mul", "lo"] } else { &["mul"] };
            push(vec![with_opcode(instruction, &[product, rest].concat())]);
        }
        ["sub", rest @ ..] => push(vec![with_opcode(instruction, &[&["add"], rest].concat())]),
        ["mul", "lo", kind] => push(vec![with_opcode(instruction, &["add", kind])]),
        ["mul", "rn", kind] => push(vec![with_opcode(instruction, &["add", "rn", kind])]),
        ["fma" | "mad", middle @ .., kind] => {
            push(vec![with_operand(instruction, 3, zero(kind))]);
            if middle != ["wide"] {
                swapped(instruction, 2, 3).into_iter().for_each(|changed| push(vec![changed]));
            }
            if opcode[0] == "fma" {
                let register = Operand::Name(format!("%mutant_{kind}"));
                let negated = Instruction {
                    opcode: vec!["neg".into(), kind.to_string()],
                    operands: vec![register.clone(), instruction.operands[1].clone()],
                    ..instruction.clone()
                };
                push(vec![negated, with_operand(instruction, 1, register)]);
            }
        }
        ["min", kind] => push(vec![with_opcode(instruction, &["max", kind])]),
        ["max", kind] => push(vec![with_opcode(instruction, &["min", kind])]),
        ["neg" | "abs" | "not", kind] => push(vec![with_opcode(instruction, &["mov", kind])]),
        ["and", kind] => push(vec![with_opcode(instruction, &["or", kind])]),
        ["or", kind] => push(vec![with_opcode(instruction, &["and", kind])]),
        ["xor", kind] => push(vec![with_opcode(instruction, &["or", kind])]),
        ["div" | "rem", ..] => swapped(instruction, 1, 2).into_iter().for_each(|changed| push(vec![changed])),
        _ => {}
    }
}

fn comparison(instruction: &Instruction, out: &mut Found) {
    if instruction.opcode[0] == "selp" {
        swapped(instruction, 1, 2).into_iter().for_each(|changed| out.push((Class::Comparison, vec![changed])));
    }
    if instruction.opcode[0] != "setp" {
        return;
    }
    let other = match instruction.opcode[1].as_str() {
        "lt" => "le",
        "le" => "lt",
        "gt" => "ge",
        "ge" => "gt",
        "eq" => "ne",
        "ne" => "eq",
        "ltu" => "leu",
        "leu" => "ltu",
        "gtu" => "geu",
        "geu" => "gtu",
        "equ" => "neu",
        "neu" => "equ",
        "nan" => "num",
        "num" => "nan",
        _ => return,
    };
    let mut changed = instruction.clone();
    changed.opcode[1] = other.to_string();
    out.push((Class::Comparison, vec![changed]));
}

fn address(instruction: &Instruction, out: &mut Found) {
    for (at, operand) in instruction.operands.iter().enumerate() {
        if let Operand::Address(base, offset) = operand {
            for by in [4, -4] {
                out.push((
                    Class::Address,
                    vec![with_operand(instruction, at, Operand::Address(base.clone(), offset + by))],
                ));
            }
        }
    }
}

fn rounding(instruction: &Instruction, out: &mut Found) {
    let opcode: Vec<&str> = instruction.opcode.iter().map(String::as_str).collect();
    if let ["add" | "sub" | "mul" | "fma" | "sqrt", "rn", "f32"]
    | ["add" | "sub" | "mul" | "div", "rn", "f64"]
    | ["cvt", "rn", "f32", _]
    | ["cvt", "rn", "f16", "f32"] = opcode.as_slice()
    {
        let mut changed = instruction.clone();
        changed.opcode[1] = "rz".to_string();
        out.push((Class::Rounding, vec![changed]));
    }
}

fn constant(instruction: &Instruction, out: &mut Found) {
    // The number of a barrier is not a value.
    if matches!(instruction.opcode[0].as_str(), "bar" | "barrier") {
        return;
    }
    for (at, operand) in instruction.operands.iter().enumerate() {
        let changes = match operand {
            Operand::Vector(parts) => {
                let each = |(index, part): (usize, &Operand)| {
                    changed_constants(part).into_iter().map(move |change| {
                        let mut parts = parts.clone();
                        parts[index] = change;
                        Operand::Vector(parts)
                    })
                };
                parts.iter().enumerate().flat_map(each).collect()
            }
            operand => changed_constants(operand),
        };
        out.extend(changes.into_iter().map(|change| (Class::Constant, vec![with_operand(instruction, at, change)])));
    }
}

fn changed_constants(operand: &Operand) -> Vec<Operand> {
    match *operand {
        Operand::Integer(value) => vec![Operand::Integer(value + 1), Operand::Integer(value - 1)],
        Operand::F32(bits) => vec![Operand::F32(bits ^ 1)],
        Operand::F64(bits) => vec![Operand::F64(bits ^ 1)],
        _ => Vec::new(),
    }
}

/// Taken where it was not, and the other way round.
fn branch(instruction: &Instruction, out: &mut Found) {
    if let Some(guard) = &instruction.guard {
        let negated = Guard { negated: !guard.negated, ..guard.clone() };
        let changed = Instruction { guard: Some(negated), ..instruction.clone() };
        out.push((Class::Branch, vec![changed]));
    }
}

/// Nothing is written: a store is removed, an atomic only reads.
fn effect(instruction: &Instruction, out: &mut Found) {
    match instruction.opcode[0].as_str() {
        "st" => out.push((Class::Effect, Vec::new())),
        "atom" => {
            let mut read = instruction.clone();
            let (space, kind) = (&instruction.opcode[1], instruction.opcode.last().unwrap());
            read.opcode = vec!["ld".to_string(), "relaxed".to_string(), space.clone(), kind.clone()];
            read.operands.truncate(2);
            out.push((Class::Effect, vec![read]));
        }
        _ => {}
    }
}

/// An instruction as PTX.
fn write(instruction: &Instruction) -> String {
    let guard = instruction
        .guard
        .as_ref()
        .map_or(String::new(), |guard| format!("@{}{} ", if guard.negated { "!" } else { "" }, guard.register));
    let operands: Vec<String> = instruction.operands.iter().map(write_operand).collect();
    format!("{guard}{} {};", instruction.opcode.join("."), operands.join(", ")).replace(" ;", ";")
}

fn write_operand(operand: &Operand) -> String {
    match operand {
        Operand::Name(name) => name.clone(),
        Operand::Pair(a, b) => format!("{a}|{b}"),
        Operand::Not(name) => format!("!{name}"),
        Operand::Integer(value) => value.to_string(),
        Operand::F32(bits) => format!("0f{bits:08X}"),
        Operand::F64(bits) => format!("0d{bits:016X}"),
        Operand::Address(base, offset) => match (base, offset) {
            (Some(base), 0) => format!("[{base}]"),
            (Some(base), offset) => format!("[{base}+{offset}]"),
            (None, offset) => format!("[{offset}]"),
        },
        Operand::Vector(parts) => format!("{{{}}}", parts.iter().map(write_operand).collect::<Vec<_>>().join(", ")),
    }
}
