//! Lowers an entry's statements into instructions: operands resolved, types checked, guards turned into jumps.
//!
//! Only what the committed kernels may use is known. Anything else (`.approx`, `.ftz`, calls, warp votes) is an error that names its line.

mod arithmetic;
mod convert;
mod memory;

use super::instruction::{Code, Inst, Op, Shape, Special, Virtual};
use super::registers;
use super::syntax::{Entry, Error, Instruction, Operand, Space, Statement, size_of_type};
use std::collections::HashMap;

type Result<T> = std::result::Result<T, Error>;

/// Where the generic addresses of a block's shared and of a thread's local memory begin: outside of the device's memory.
pub const SHARED_WINDOW: u64 = 0x00f0_0000_0000_0000;
pub const LOCAL_WINDOW: u64 = 0x00f1_0000_0000_0000;
pub const WINDOW: u64 = 1 << 32;

struct Lower<'a> {
    entry: &'a Entry,
    /// Symbols: where they are and at what address of their space.
    symbols: HashMap<&'a str, (Space, u64)>,
    code: Vec<Virtual>,
    lines: Vec<u32>,
    line: u32,
    registers: HashMap<&'a str, u32>,
    types: Vec<&'a str>,
    names: Vec<String>,
    constants: HashMap<u64, u32>,
    specials: Vec<(Special, u32)>,
    /// Constants and special registers, which live always.
    pinned: Vec<u32>,
    labels: HashMap<&'a str, usize>,
    /// Jumps whose `imm` waits for a label.
    jumps: Vec<(usize, String)>,
    tables: HashMap<&'a str, usize>,
    /// Where results go that nobody wants, narrow and wide.
    sinks: [Option<u32>; 2],
}

/// The type of constants until it is known what reads them.
const CONSTANT: &str = "constant";

fn is_wide(kind: &str) -> bool {
    size_of_type(kind) == Some(8)
}

/// Addresses of the module's own variables, by name.
pub type Globals = HashMap<String, (Space, u64)>;

pub fn lower(entry: &Entry, globals: &Globals, module_shared: &[super::syntax::Variable]) -> Result<Code> {
    let mut symbols: HashMap<&str, (Space, u64)> = globals.iter().map(|(name, &at)| (name.as_str(), at)).collect();
    let mut params = Vec::new();
    let mut param_bytes = 0u64;
    for param in &entry.params {
        param_bytes = param_bytes.next_multiple_of(u64::from(param.align));
        symbols.insert(&param.name, (Space::Param, param_bytes));
        params.push((param_bytes as u32, param.size as u32));
        param_bytes += param.size;
    }
    let (mut shared, mut local) = (0u64, 0u64);
    let mut dynamic = Vec::new();
    // A block has those of the module's shared variables that its kernel uses, as the assembler gives it.
    for variable in module_shared.iter().filter(|variable| entry.uses(&variable.name)).chain(&entry.variables) {
        if variable.dynamic {
            dynamic.push(variable);
            continue;
        }
        let end = if variable.space == Space::Shared { &mut shared } else { &mut local };
        *end = end.next_multiple_of(u64::from(variable.align));
        symbols.insert(&variable.name, (variable.space, *end));
        *end += variable.size;
    }
    let dynamic_shared =
        dynamic.iter().map(|variable| variable.align).max().map(|align| shared.next_multiple_of(u64::from(align)));
    for variable in dynamic {
        symbols.insert(&variable.name, (Space::Shared, dynamic_shared.unwrap_or(0)));
    }
    let mut lower = Lower {
        entry,
        symbols,
        code: Vec::new(),
        lines: Vec::new(),
        line: entry.line,
        registers: HashMap::new(),
        types: Vec::new(),
        names: Vec::new(),
        constants: HashMap::new(),
        specials: Vec::new(),
        pinned: Vec::new(),
        labels: HashMap::new(),
        jumps: Vec::new(),
        tables: HashMap::new(),
        sinks: [None; 2],
    };
    for statement in &entry.body {
        match statement {
            Statement::Label(name) => {
                lower.labels.insert(name, lower.code.len());
            }
            Statement::Targets(name, _) => {
                let index = lower.tables.len();
                lower.tables.insert(name, index);
            }
            Statement::Instruction(_) => {}
        }
        if let Statement::Instruction(instruction) = statement {
            lower.line = instruction.line;
            lower.guarded(instruction)?;
        }
    }
    lower.emit(Op::Return, 0, &[], 0);
    lower.finish(params, param_bytes as u32, shared as u32, dynamic_shared.map(|at| at as u32), local as u32)
}

impl<'a> Lower<'a> {
    fn error<T>(&self, message: impl Into<String>) -> Result<T> {
        Err(Error { line: self.line, message: message.into() })
    }

    fn emit(&mut self, op: Op, sub: u8, fields: &[u32], imm: i32) {
        let mut s = [0; 5];
        s[..fields.len()].copy_from_slice(fields);
        self.code.push(Virtual { op, sub, s, imm });
        self.lines.push(self.line);
    }

    fn fresh(&mut self, kind: &'a str, name: String) -> u32 {
        self.types.push(kind);
        self.names.push(name);
        self.types.len() as u32 - 1
    }

    fn constant(&mut self, value: u64) -> u32 {
        if let Some(&register) = self.constants.get(&value) {
            return register;
        }
        // As wide as what reads it, which `finish` sees.
        let register = self.fresh(CONSTANT, format!("the constant {value}"));
        self.constants.insert(value, register);
        register
    }

    fn special(&mut self, special: Special) -> u32 {
        if let Some(&(_, register)) = self.specials.iter().find(|(known, _)| *known == special) {
            return register;
        }
        let register = self.fresh("b32", format!("{special:?}"));
        self.specials.push((special, register));
        register
    }

    fn register(&mut self, name: &str) -> Result<u32> {
        let Some((key, kind)) = self.entry.registers.get_key_value(name) else {
            return self.error(format!("{name} is not a register"));
        };
        if let Some(&register) = self.registers.get(key.as_str()) {
            return Ok(register);
        }
        let register = self.fresh(kind, name.to_string());
        self.registers.insert(key, register);
        Ok(register)
    }

    /// The register an instruction of type `kind` writes to.
    fn result(&mut self, operand: &Operand, kind: &str) -> Result<u32> {
        let Operand::Name(name) = operand else {
            return self.error(format!("{operand:?} cannot be a result"));
        };
        if name == "_" {
            return Ok(self.sink(is_wide(kind)));
        }
        let register = self.register(name)?;
        self.fits(register, kind, false)?;
        Ok(register)
    }

    fn sink(&mut self, wide: bool) -> u32 {
        if let Some(register) = self.sinks[usize::from(wide)] {
            return register;
        }
        let register = self.fresh(if wide { "b64" } else { "b32" }, "_".into());
        self.sinks[usize::from(wide)] = Some(register);
        register
    }

    fn is_wide(&self, register: u32) -> bool {
        is_wide(self.types[register as usize])
    }

    /// The low `bits` bits of a register, extended to the width of another. A constant counts as wide as `from` is.
    fn extend(&mut self, signed: bool, bits: u32, d: u32, a: u32, from: &str) {
        let a_is_wide = if self.types[a as usize] == CONSTANT { is_wide(from) } else { self.is_wide(a) };
        let op = match (signed, self.is_wide(d), a_is_wide) {
            (true, false, false) => Op::SignExtend32,
            (true, true, false) => Op::SignExtend32To64,
            (true, false, true) => Op::SignExtend64To32,
            (true, true, true) => Op::SignExtend64,
            (false, false, false) => Op::ZeroExtend32,
            (false, true, false) => Op::ZeroExtend32To64,
            (false, false, true) => Op::ZeroExtend64To32,
            (false, true, true) => Op::ZeroExtend64,
        };
        self.emit(op, bits as u8, &[d, a], 0);
    }

    /// Registers are as wide as the instruction's type; those of loads, stores and conversions may be wider.
    fn fits(&self, register: u32, kind: &str, wider: bool) -> Result<()> {
        let mine = self.types[register as usize];
        let (have, want) = (size_of_type(mine).unwrap_or(0), size_of_type(kind).unwrap_or(0));
        let predicates = (mine == "pred", kind == "pred");
        if predicates.0 != predicates.1 || have < want || (have > want && !wider) {
            return self.error(format!("a register of type {mine} where {kind} is needed"));
        }
        Ok(())
    }

    /// The register that holds an operand's value as type `kind`.
    fn value(&mut self, operand: &Operand, kind: &str) -> Result<u32> {
        self.value_of(operand, kind, false)
    }

    fn value_of(&mut self, operand: &Operand, kind: &str, wider: bool) -> Result<u32> {
        match operand {
            Operand::Name(name) => {
                if let Some(special) = special(name) {
                    return Ok(self.special(special));
                }
                if name == "WARP_SZ" {
                    return Ok(self.constant(32));
                }
                if let Some(&(_, address)) = self.symbols.get(name.as_str()) {
                    return Ok(self.constant(address));
                }
                let register = self.register(name)?;
                self.fits(register, kind, wider)?;
                Ok(register)
            }
            &Operand::Integer(value) => {
                let cut = match size_of_type(kind) {
                    _ if kind.starts_with('f') => {
                        return self.error(format!("an integer where {kind} is needed"));
                    }
                    Some(size) if kind != "pred" => value as u64 & (u64::MAX >> (64 - 8 * size)),
                    _ => u64::from(value != 0),
                };
                Ok(self.constant(cut))
            }
            &Operand::F32(bits) => match kind {
                "f32" | "b32" => Ok(self.constant(u64::from(bits))),
                _ => self.error(format!("an f32 where {kind} is needed")),
            },
            &Operand::F64(bits) => match kind {
                "f64" | "b64" => Ok(self.constant(bits)),
                "f32" => Ok(self.constant(u64::from((f64::from_bits(bits) as f32).to_bits()))),
                _ => self.error(format!("an f64 where {kind} is needed")),
            },
            Operand::Not(name) if kind == "pred" => {
                let from = self.register(name)?;
                self.fits(from, kind, false)?;
                let to = self.fresh("pred", format!("!{name}"));
                self.emit(Op::NotPredicate, 0, &[to, from], 0);
                Ok(to)
            }
            other => self.error(format!("{other:?} is not a value")),
        }
    }

    fn guarded(&mut self, instruction: &'a Instruction) -> Result<()> {
        let Some(guard) = &instruction.guard else {
            return self.instruction(instruction);
        };
        let predicate = self.register(&guard.register)?;
        self.fits(predicate, "pred", false)?;
        if instruction.opcode[0] == "bra" {
            let op = if guard.negated { Op::JumpUnless } else { Op::JumpIf };
            let target = self.one_name(instruction)?;
            self.jumps.push((self.code.len(), target));
            self.emit(op, 0, &[0, predicate], 0);
            return Ok(());
        }
        let skip = self.code.len();
        self.emit(if guard.negated { Op::JumpIf } else { Op::JumpUnless }, 0, &[0, predicate], 0);
        self.instruction(instruction)?;
        self.code[skip].imm = self.code.len() as i32;
        Ok(())
    }

    fn one_name(&self, instruction: &Instruction) -> Result<String> {
        match instruction.operands.as_slice() {
            [Operand::Name(name)] => Ok(name.clone()),
            other => self.error(format!("{other:?} is not a label")),
        }
    }

    fn finish(
        mut self,
        params: Vec<(u32, u32)>,
        param_bytes: u32,
        shared: u32,
        dynamic_shared: Option<u32>,
        local: u32,
    ) -> Result<Code> {
        for (at, name) in std::mem::take(&mut self.jumps) {
            match self.labels.get(name.as_str()) {
                Some(&target) => self.code[at].imm = target as i32,
                None => {
                    self.line = self.lines[at];
                    return self.error(format!("the label {name} is not there"));
                }
            }
        }
        let mut tables = vec![Vec::new(); self.tables.len()];
        for statement in &self.entry.body {
            if let Statement::Targets(name, labels) = statement {
                for label in labels {
                    match self.labels.get(label.as_str()) {
                        Some(&target) => tables[self.tables[name.as_str()]].push(target as u32),
                        None => return self.error(format!("the label {label} is not there")),
                    }
                }
            }
        }
        self.load_parameters_once();
        let checked = self.check_unwritten(&mut tables);
        let constants = self.width_of_constants();
        let pinned = self.pinned();
        let wide: Vec<bool> = (0..self.types.len()).map(|register| self.is_wide(register as u32)).collect();
        for (inst, line) in self.code.iter().zip(&self.lines) {
            for &field in inst.reads().iter().chain(inst.writes()) {
                assert_eq!(
                    wide[inst.s[field] as usize],
                    inst.is_wide(field),
                    "PTX line {line}: field {field} of {inst:?}"
                );
            }
        }
        let (place, places) = registers::places(&self.code, &tables, &pinned, &wide);
        if places.max(self.code.len()) > usize::from(u16::MAX) {
            return self.error("the entry has more instructions or needs more registers than 65535");
        }
        let instructions = self
            .code
            .iter()
            .map(|from| {
                let mut s = [0; 5];
                for &field in from.reads().iter().chain(from.writes()) {
                    s[field] = place[from.s[field] as usize] as u16;
                }
                Inst { op: from.op, sub: from.sub, s, imm: from.imm }
            })
            .collect();
        Ok(Code {
            name: self.entry.name.clone(),
            instructions,
            lines: self.lines,
            places,
            constants: constants
                .iter()
                .map(|(&(value, wide), &register)| (place[register as usize] as u16, value, wide))
                .collect(),
            specials: self
                .specials
                .iter()
                .map(|&(special, register)| (place[register as usize] as u16, special))
                .collect(),
            tables,
            params,
            param_bytes,
            shared_bytes: shared,
            dynamic_shared,
            local_bytes: local,
            max_threads: self.entry.max_threads,
            checked,
        })
    }

    /// Parameters at addresses that are known are the same for all threads.
    fn load_parameters_once(&mut self) {
        for inst in self.code.iter_mut().filter(|inst| inst.op == Op::LoadParam) {
            if self.types[inst.s[1] as usize] == CONSTANT {
                inst.op = Op::LoadParamOnce;
            }
        }
    }

    /// Gives each constant a register for each width that it is read in.
    fn width_of_constants(&mut self) -> HashMap<(u64, bool), u32> {
        let values: HashMap<u32, u64> = self.constants.iter().map(|(&value, &register)| (register, value)).collect();
        let mut typed: HashMap<(u64, bool), u32> = HashMap::new();
        for at in 0..self.code.len() {
            for &field in self.code[at].reads() {
                let Some(&value) = values.get(&self.code[at].s[field]) else {
                    continue;
                };
                let wide = self.code[at].is_wide(field);
                let register = *typed.entry((value, wide)).or_insert_with(|| {
                    self.types.push(if wide { "b64" } else { "b32" });
                    self.names.push(format!("the constant {value}"));
                    self.types.len() as u32 - 1
                });
                self.code[at].s[field] = register;
            }
        }
        self.pinned.extend(typed.values());
        typed
    }

    fn pinned(&self) -> Vec<bool> {
        let mut pinned = vec![false; self.types.len()];
        for &register in self.pinned.iter().chain(self.constants.values()) {
            pinned[register as usize] = true;
        }
        for &(_, register) in &self.specials {
            pinned[register as usize] = true;
        }
        pinned
    }

    /// Registers that some path reads before it writes them get a companion that says at run time whether they were written.
    fn check_unwritten(&mut self, tables: &mut [Vec<u32>]) -> Vec<String> {
        let found = registers::maybe_unwritten(&self.code, tables, &self.pinned());
        if found.is_empty() {
            return Vec::new();
        }
        let (no, yes) = (self.constant(0), self.constant(1));
        let mut checked = Vec::new();
        let mut companion: HashMap<u32, (u32, i32)> = HashMap::new();
        for &(_, register) in &found {
            if let std::collections::hash_map::Entry::Vacant(slot) = companion.entry(register) {
                let name = self.names[register as usize].clone();
                self.types.push("pred");
                self.names.push(format!("whether {name} was written"));
                slot.insert((self.types.len() as u32 - 1, checked.len() as i32));
                checked.push(name);
            }
        }
        let (old, old_lines) = (std::mem::take(&mut self.code), std::mem::take(&mut self.lines));
        let mut moved = vec![0; old.len() + 1];
        self.line = self.entry.line;
        for &(flag, _) in companion.values() {
            self.emit(Op::Move32, 0, &[flag, no], 0);
        }
        for (at, inst) in old.iter().enumerate() {
            moved[at] = self.code.len();
            self.line = old_lines[at];
            for (_, register) in found.iter().filter(|(of, _)| *of == at) {
                let (flag, name) = companion[register];
                self.emit(Op::CheckWritten, 0, &[0, flag], name);
            }
            self.code.push(*inst);
            self.lines.push(self.line);
            for &field in inst.writes() {
                if let Some(&(flag, _)) = companion.get(&inst.s[field]) {
                    self.emit(Op::Move32, 0, &[flag, yes], 0);
                }
            }
        }
        moved[old.len()] = self.code.len();
        for inst in &mut self.code {
            if matches!(inst.op.shape(), Shape::Jump | Shape::JumpBy) && inst.op != Op::CheckWritten {
                inst.imm = moved[inst.imm as usize] as i32;
            }
        }
        tables.iter_mut().flatten().for_each(|target| *target = moved[*target as usize] as u32);
        checked
    }
}

fn special(name: &str) -> Option<Special> {
    let (base, axis) = name.rsplit_once('.').unwrap_or((name, ""));
    let axis = ["x", "y", "z"].iter().position(|known| *known == axis);
    match (base, axis) {
        ("%tid", Some(axis)) => Some(Special::Thread(axis as u8)),
        ("%ntid", Some(axis)) => Some(Special::Threads(axis as u8)),
        ("%ctaid", Some(axis)) => Some(Special::Block(axis as u8)),
        ("%nctaid", Some(axis)) => Some(Special::Blocks(axis as u8)),
        ("%laneid", None) => Some(Special::Lane),
        ("WARP_SZ", None) => Some(Special::WarpSize),
        _ => None,
    }
}
