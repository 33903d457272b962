//! Parses the body of an entry: scopes, registers, labels, instructions and their operands.

use super::lexer::Kind;
use super::parser::{Parser, Result};
use super::syntax::{Entry, Guard, Instruction, Operand, Statement, size_of_type};
use std::collections::HashMap;

impl Parser<'_> {
    pub(super) fn body(&mut self, entry: &mut Entry) -> Result<()> {
        loop {
            match self.peek() {
                "" => return self.error("the body of an entry does not end"),
                "{" => {
                    self.at += 1;
                    self.scopes.push(HashMap::new());
                    self.scopes_seen += 1;
                }
                "}" => {
                    self.at += 1;
                    if self.scopes.pop().is_none() {
                        return Ok(());
                    }
                }
                ";" => self.at += 1,
                ".reg" => self.registers(entry)?,
                ".shared" | ".local" | ".extern" => {
                    let variable = self.variable()?;
                    entry.variables.push(variable);
                }
                ".loc" => self.skip_file(),
                ".pragma" => {
                    self.at += 2;
                    self.expect(";")?;
                }
                _ => {
                    let statement = self.statement()?;
                    entry.body.push(statement);
                }
            }
        }
    }

    pub(super) fn registers(&mut self, entry: &mut Entry) -> Result<()> {
        self.expect(".reg")?;
        let kind = self.word()?.trim_start_matches('.').to_string();
        if size_of_type(&kind).is_none() {
            return self.error(format!("registers of type {kind} are not supported"));
        }
        loop {
            let name = self.word()?;
            if self.eat("<") {
                let count = self.integer()?;
                self.expect(">")?;
                for index in 0..count {
                    self.declare(entry, &format!("{name}{index}"), &kind);
                }
            } else {
                self.declare(entry, name, &kind);
            }
            if !self.eat(",") {
                return self.expect(";");
            }
        }
    }

    pub(super) fn declare(&mut self, entry: &mut Entry, name: &str, kind: &str) {
        let full = match self.scopes.last_mut() {
            Some(scope) => {
                let full = format!("{name}#{}", self.scopes_seen);
                scope.insert(name.to_string(), full.clone());
                full
            }
            None => name.to_string(),
        };
        entry.registers.insert(full, kind.to_string());
    }

    /// A name of the body as the entry knows it.
    pub(super) fn scoped(&self, name: &str) -> String {
        self.scopes.iter().rev().find_map(|scope| scope.get(name)).cloned().unwrap_or_else(|| name.to_string())
    }

    pub(super) fn statement(&mut self) -> Result<Statement> {
        let line = self.line();
        let mut guard = None;
        if self.eat("@") {
            let negated = self.eat("!");
            let register = self.word()?;
            guard = Some(Guard { register: self.scoped(register), negated });
        }
        let word = self.word()?;
        if guard.is_none() && self.eat(":") {
            if self.eat(".branchtargets") {
                let mut names = vec![self.word()?.to_string()];
                while self.eat(",") {
                    names.push(self.word()?.to_string());
                }
                self.expect(";")?;
                return Ok(Statement::Targets(word.to_string(), names));
            }
            return Ok(Statement::Label(word.to_string()));
        }
        let opcode = word.split('.').map(str::to_string).collect();
        let mut operands = Vec::new();
        while !self.eat(";") {
            operands.push(self.operand()?);
            if !self.eat(",") {
                self.expect(";")?;
                break;
            }
        }
        Ok(Statement::Instruction(Instruction { guard, opcode, operands, line }))
    }

    pub(super) fn operand(&mut self) -> Result<Operand> {
        match self.kind() {
            Some(Kind::Word) => {
                let name = self.next();
                let name = self.scoped(name);
                if self.eat("|") {
                    let other = self.word()?;
                    return Ok(Operand::Pair(name, self.scoped(other)));
                }
                Ok(Operand::Name(name))
            }
            Some(Kind::Number) => self.number(false),
            Some(Kind::Punctuation(b'-')) => {
                self.at += 1;
                self.number(true)
            }
            Some(Kind::Punctuation(b'!')) => {
                self.at += 1;
                let name = self.word()?;
                Ok(Operand::Not(self.scoped(name)))
            }
            Some(Kind::Punctuation(b'[')) => {
                self.at += 1;
                self.address()
            }
            Some(Kind::Punctuation(b'{')) => {
                self.at += 1;
                let mut parts = vec![self.operand()?];
                while self.eat(",") {
                    parts.push(self.operand()?);
                }
                self.expect("}")?;
                Ok(Operand::Vector(parts))
            }
            _ => self.error(format!("{:?} is not an operand", self.peek())),
        }
    }

    pub(super) fn address(&mut self) -> Result<Operand> {
        let mut base = None;
        let mut offset = 0;
        if self.kind() == Some(Kind::Word) {
            let name = self.next();
            base = Some(self.scoped(name));
            if self.eat("+") || self.peek() == "-" {
                offset = self.integer()?;
            }
        } else {
            offset = self.integer()?;
        }
        self.expect("]")?;
        Ok(Operand::Address(base, offset))
    }

    pub(super) fn number(&mut self, negative: bool) -> Result<Operand> {
        let text = self.next();
        let bits = |digits: &str| u64::from_str_radix(digits, 16).ok();
        let parsed = if let Some(digits) = text.strip_prefix("0f").or(text.strip_prefix("0F")) {
            bits(digits)
                .filter(|_| digits.len() == 8)
                .map(|bits| Operand::F32(bits as u32 ^ (u32::from(negative) << 31)))
        } else if let Some(digits) = text.strip_prefix("0d").or(text.strip_prefix("0D")) {
            bits(digits).filter(|_| digits.len() == 16).map(|bits| Operand::F64(bits ^ (u64::from(negative) << 63)))
        } else if text.contains('.') {
            text.parse::<f64>().ok().map(|value| Operand::F64((if negative { -value } else { value }).to_bits()))
        } else {
            let plain = text.trim_end_matches('U');
            let value = if let Some(digits) = plain.strip_prefix("0x").or(plain.strip_prefix("0X")) {
                i128::from_str_radix(digits, 16).ok()
            } else if let Some(digits) = plain.strip_prefix("0b") {
                i128::from_str_radix(digits, 2).ok()
            } else if plain.len() > 1 && plain.starts_with('0') {
                i128::from_str_radix(plain, 8).ok()
            } else {
                plain.parse().ok()
            };
            value
                .filter(|value| value.unsigned_abs() <= u128::from(u64::MAX))
                .map(|value| Operand::Integer(if negative { -value } else { value }))
        };
        match parsed {
            Some(operand) => Ok(operand),
            None => self.error(format!("{text:?} is not a number")),
        }
    }
}
