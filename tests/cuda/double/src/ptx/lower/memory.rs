//! Addresses, loads, stores and atomics.

use super::{CONSTANT, LOCAL_WINDOW, Lower, Result, SHARED_WINDOW, is_wide};
use crate::ptx::instruction::{Access, Atomic, Op};
use crate::ptx::syntax::{Operand, Space, size_of_type};

impl Lower<'_> {
    pub(super) fn address(&mut self, operand: &Operand, space: Option<Space>) -> Result<(u32, i32)> {
        let Operand::Address(base, offset) = operand else {
            return self.error(format!("{operand:?} is not an address"));
        };
        let register = match base {
            None => self.constant(0),
            Some(name) => match self.symbols.get(name.as_str()) {
                Some(&(of, address)) => {
                    // Constants lie in the device's memory here; a symbol's address is of its own space.
                    let same = space == Some(of) || (space.is_none() && matches!(of, Space::Global));
                    if !same {
                        return self.error(format!("{name} lies in the {of:?} space"));
                    }
                    self.constant(address)
                }
                None => {
                    let register = self.register(name)?;
                    let kind = self.types[register as usize];
                    let wide = size_of_type(kind).unwrap_or(0);
                    if kind == "pred"
                        || kind.starts_with('f')
                        || wide < 4
                        || (wide == 4 && matches!(space, None | Some(Space::Global | Space::Constant)))
                    {
                        return self.error(format!("{name} of type {kind} is not an address"));
                    }
                    register
                }
            },
        };
        match i32::try_from(*offset) {
            Ok(offset) => Ok((register, offset)),
            Err(_) => self.error("the offset does not fit"),
        }
    }

    fn is_address_wide(&self, register: u32) -> bool {
        self.types[register as usize] == CONSTANT || self.is_wide(register)
    }

    pub(super) fn convert_address(&mut self, parts: &[&str], d: &Operand, a: &Operand) -> Result<bool> {
        let (to, space) = match parts {
            ["to", space, "u64"] => (true, *space),
            [space, "u64"] => (false, *space),
            _ => return Ok(false),
        };
        let a = self.value(a, "u64")?;
        let d = self.result(d, "u64")?;
        let window = match space {
            "global" | "const" => {
                self.emit(Op::Move64, 0, &[d, a], 0);
                return Ok(true);
            }
            "shared" => SHARED_WINDOW,
            "local" => LOCAL_WINDOW,
            _ => return Ok(false),
        };
        let window = self.constant(window);
        self.emit(if to { Op::Sub64 } else { Op::Add64 }, 0, &[d, a, window], 0);
        Ok(true)
    }

    /// Cache and ordering hints are dropped; returns the space, the count of a vector and the type.
    pub(super) fn access<'p>(&self, parts: &[&'p str]) -> Option<(Option<Space>, u32, &'p str, bool)> {
        let (mut space, mut count, mut strong) = (None, 1, false);
        let (kind, parts) = parts.split_last()?;
        for part in parts {
            match *part {
                "global" => space = Some(Space::Global),
                "shared" => space = Some(Space::Shared),
                "local" => space = Some(Space::Local),
                "param" => space = Some(Space::Param),
                "const" => space = Some(Space::Constant),
                "v2" => count = 2,
                "v4" => count = 4,
                "volatile" | "relaxed" | "acquire" | "release" => strong = true,
                "weak" | "nc" | "ca" | "cg" | "cs" | "lu" | "cv" | "wb" | "wt" | "gpu" | "cta" | "sys" => {}
                part if part.starts_with("L1::") || part.starts_with("L2::") => {}
                _ => return None,
            }
        }
        Some((space, count, kind, strong))
    }

    pub(super) fn vector<'o>(&self, operand: &'o Operand, count: u32) -> Result<Vec<&'o Operand>> {
        match operand {
            Operand::Vector(parts) if parts.len() as u32 == count && count > 1 => Ok(parts.iter().collect()),
            operand if count == 1 && !matches!(operand, Operand::Vector(_)) => Ok(vec![operand]),
            _ => self.error(format!("{count} values were expected")),
        }
    }

    pub(super) fn load(&mut self, parts: &[&str], d: &Operand, address: &Operand) -> Result<bool> {
        let Some((space, count, kind, strong)) = self.access(parts) else {
            return Ok(false);
        };
        let Some(size) = size_of_type(kind).filter(|_| kind != "pred") else {
            return Ok(false);
        };
        let op = match space {
            Some(Space::Param) => Op::LoadParam,
            Some(Space::Global | Space::Constant) => Op::LoadGlobal,
            Some(Space::Shared) => Op::LoadShared,
            Some(Space::Local) => Op::LoadLocal,
            None => Op::LoadGeneric,
        };
        let (base, offset) = self.address(address, space)?;
        let mut names = Vec::new();
        for part in self.vector(d, count)? {
            let Operand::Name(name) = part else {
                return Ok(false);
            };
            names.push(name);
        }
        let mut registers = Vec::new();
        for name in names.iter().filter(|name| name.as_str() != "_") {
            let register = self.register(name)?;
            self.fits(register, kind, true)?;
            registers.push(register);
        }
        let wide = registers.first().map_or(is_wide(kind), |&register| self.is_wide(register));
        if registers.iter().any(|&register| self.is_wide(register) != wide) {
            return self.error("registers of different widths in one vector");
        }
        let mut fields = [0; 5];
        fields[1] = base;
        let mut next = registers.iter();
        for (index, name) in names.into_iter().enumerate() {
            let register = if name == "_" { self.sink(wide) } else { next.next().copied().unwrap_or(0) };
            fields[if index == 0 { 0 } else { index + 1 }] = register;
        }
        let access = Access::new(size, count, kind.starts_with('s'), strong);
        self.emit(op, access.in_registers(wide, self.is_address_wide(base)).0, &fields, offset);
        for register in registers {
            // A signed value in a register of 16 bits.
            if kind.starts_with('s') && size_of_type(self.types[register as usize]) == Some(2) {
                self.extend(false, 16, register, register, "b16");
            }
        }
        Ok(true)
    }

    pub(super) fn store(&mut self, parts: &[&str], address: &Operand, a: &Operand) -> Result<bool> {
        let Some((space, count, kind, strong)) = self.access(parts) else {
            return Ok(false);
        };
        let Some(size) = size_of_type(kind).filter(|_| kind != "pred") else {
            return Ok(false);
        };
        let op = match space {
            Some(Space::Global) => Op::StoreGlobal,
            Some(Space::Shared) => Op::StoreShared,
            Some(Space::Local) => Op::StoreLocal,
            None => Op::StoreGeneric,
            Some(Space::Param | Space::Constant) => return Ok(false),
        };
        let (base, offset) = self.address(address, space)?;
        let mut fields = [0; 5];
        fields[1] = base;
        let mut wide = None;
        for (index, part) in self.vector(a, count)?.into_iter().enumerate() {
            let register = self.value_of(part, kind, true)?;
            fields[if index == 0 { 0 } else { index + 1 }] = register;
            if self.types[register as usize] != CONSTANT {
                let mine = self.is_wide(register);
                if wide.is_some_and(|wide| wide != mine) {
                    return self.error("registers of different widths in one vector");
                }
                wide = Some(mine);
            }
        }
        let access = Access::new(size, count, false, strong);
        let access = access.in_registers(wide.unwrap_or(is_wide(kind)), self.is_address_wide(base));
        self.emit(op, access.0, &fields, offset);
        Ok(true)
    }

    pub(super) fn atomic(&mut self, parts: &[&str], operands: &[Operand], result: bool) -> Result<bool> {
        let Some((kind, parts)) = parts.split_last() else {
            return Ok(false);
        };
        let (mut space, mut operation) = (None, "");
        for part in parts {
            match *part {
                "global" => space = Some(Space::Global),
                "shared" => space = Some(Space::Shared),
                "relaxed" | "acquire" | "release" | "acq_rel" | "gpu" | "cta" | "sys" => {}
                name if operation.is_empty() => operation = name,
                _ => return Ok(false),
            }
        }
        let atomic = match (operation, *kind) {
            ("cas", "b32" | "b64") if result => Atomic::CompareAndSwap,
            ("exch", "b32" | "b64") if result => Atomic::Exchange,
            // Sums of floats in whatever order threads come are what this library must not do.
            ("add", "u32" | "s32" | "u64" | "s64") => Atomic::Add,
            ("and", "b32" | "b64") => Atomic::And,
            ("or", "b32" | "b64") => Atomic::Or,
            ("xor", "b32" | "b64") => Atomic::Xor,
            ("min", "s32" | "s64") => Atomic::MinS,
            ("min", "u32" | "u64") => Atomic::MinU,
            ("max", "s32" | "s64") => Atomic::MaxS,
            ("max", "u32" | "u64") => Atomic::MaxU,
            _ => return Ok(false),
        };
        let op = match space {
            Some(Space::Global) => Op::AtomicGlobal,
            Some(Space::Shared) => Op::AtomicShared,
            _ => Op::AtomicGeneric,
        };
        let nowhere = Operand::Name("_".into());
        let (d, rest) = if result {
            let Some((d, rest)) = operands.split_first() else {
                return Ok(false);
            };
            (d, rest)
        } else {
            (&nowhere, operands)
        };
        let wanted = if atomic == Atomic::CompareAndSwap { 3 } else { 2 };
        if rest.len() != wanted {
            return Ok(false);
        }
        let (base, offset) = self.address(&rest[0], space)?;
        let b = self.value(&rest[1], kind)?;
        let c = rest.get(2).map_or(Ok(0), |c| self.value(c, kind))?;
        let d = self.result(d, kind)?;
        let widths = Access(0).in_registers(is_wide(kind), self.is_address_wide(base)).0;
        self.emit(op, atomic as u8 | widths, &[d, base, b, c], offset);
        Ok(true)
    }
}
