//! What PTX consists of, as far as the double knows it: modules, entries, statements, operands.

use std::collections::HashMap;

#[derive(Debug)]
pub struct Error {
    pub line: u32,
    pub message: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    Param,
    Global,
    Constant,
    Shared,
    Local,
}

#[derive(Clone, Debug)]
pub struct Variable {
    pub name: String,
    pub space: Space,
    pub align: u32,
    pub size: u64,
    /// The first bytes; the rest is zero. Empty for spaces that start uninitialised.
    pub bytes: Vec<u8>,
    /// `.extern .shared name[]`: sized by the launch.
    pub dynamic: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Operand {
    /// A register, special register, symbol or label.
    Name(String),
    /// `%p|%q`, the two results of a comparison.
    Pair(String, String),
    /// `!%p`
    Not(String),
    Integer(i128),
    F32(u32),
    F64(u64),
    /// `[base + offset]`; an absolute address has no base.
    Address(Option<String>, i64),
    Vector(Vec<Operand>),
}

#[derive(Clone, Debug)]
pub struct Guard {
    pub register: String,
    pub negated: bool,
}

#[derive(Clone, Debug)]
pub struct Instruction {
    pub guard: Option<Guard>,
    /// `setp.lt.s32` as its parts.
    pub opcode: Vec<String>,
    pub operands: Vec<Operand>,
    pub line: u32,
}

#[derive(Clone, Debug)]
pub enum Statement {
    Label(String),
    Instruction(Instruction),
    /// `name: .branchtargets a, b, …;`
    Targets(String, Vec<String>),
}

#[derive(Clone, Debug)]
pub struct Entry {
    pub name: String,
    pub line: u32,
    pub params: Vec<Variable>,
    pub max_threads: Option<[u32; 3]>,
    /// Name of a register → its type (`b32`, `pred`, …). Registers of an inner scope carry the scope's number.
    pub registers: HashMap<String, String>,
    pub variables: Vec<Variable>,
    pub body: Vec<Statement>,
}

impl Entry {
    /// Whether an instruction names this symbol.
    pub fn uses(&self, symbol: &str) -> bool {
        self.body.iter().any(|statement| match statement {
            Statement::Instruction(instruction) => instruction.operands.iter().any(|operand| operand.names(symbol)),
            _ => false,
        })
    }
}

impl Operand {
    fn names(&self, symbol: &str) -> bool {
        match self {
            Operand::Name(name) => name == symbol,
            Operand::Address(base, _) => base.as_deref() == Some(symbol),
            Operand::Vector(parts) => parts.iter().any(|part| part.names(symbol)),
            _ => false,
        }
    }
}

#[derive(Clone, Debug)]
pub struct Module {
    pub version: (u32, u32),
    pub target: String,
    pub variables: Vec<Variable>,
    pub entries: Vec<Entry>,
}

/// Bytes of a type's value; `pred` counts as one.
pub fn size_of_type(name: &str) -> Option<u32> {
    Some(match name {
        "b8" | "u8" | "s8" | "pred" => 1,
        "b16" | "u16" | "s16" | "f16" => 2,
        "b32" | "u32" | "s32" | "f32" => 4,
        "b64" | "u64" | "s64" | "f64" => 8,
        _ => return None,
    })
}
