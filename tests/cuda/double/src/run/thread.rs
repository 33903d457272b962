//! One thread, from where it stands to the next barrier or its end.

use super::reach::{Local, Memory, Place, Pointer, Shared, Trouble, atomic, narrow_address, pack, trouble, unpack};
use super::shadow::{Kind, Mark, Order};
use super::value::{self, bits_f32, relation_f64, relation_of};
use crate::ptx::instruction::{Access, Code, Op};
use crate::ptx::lower::{LOCAL_WINDOW, SHARED_WINDOW, WINDOW};
use std::ptr::NonNull;

pub enum Stop {
    Barrier,
    Exit,
    Trouble(Box<Trouble>),
}

pub struct Machine<'a, O: Order> {
    pub code: &'a Code,
    pub memory: Memory<'a, O>,
    pub params: &'a [u8],
    pub shared: Shared,
    pub local: Local,
    /// The frames of a block's threads, one after another.
    pub frames: Vec<u64>,
    pub steps: u64,
    pub limit: u64,
    /// The instruction that the last thread stopped at.
    pub at: usize,
}

impl<O: Order> Machine<'_, O> {
    /// Where a generic address points.
    fn reach_generic(&mut self, thread: usize, address: u64, bytes: u32, kind: Kind, mark: Mark) -> Pointer {
        if address.wrapping_sub(SHARED_WINDOW) < WINDOW {
            self.shared.reach(address - SHARED_WINDOW, bytes, kind, mark)
        } else if address.wrapping_sub(LOCAL_WINDOW) < WINDOW {
            self.local.reach(thread, address - LOCAL_WINDOW, bytes, kind)
        } else {
            self.memory.reach(address, bytes, kind, mark)
        }
    }

    fn reach_param(&self, address: u64, bytes: u32) -> Pointer {
        let place = Place::Param;
        if address & u64::from(bytes - 1) != 0 {
            return Err(trouble(Trouble::Misaligned { place, address, bytes }));
        }
        if address.saturating_add(u64::from(bytes)) > self.params.len() as u64 {
            return Err(trouble(Trouble::Outside { place, address, bytes, write: false }));
        }
        // SAFETY: the bytes lie inside.
        Ok(unsafe { NonNull::new_unchecked(self.params.as_ptr().add(address as usize).cast_mut()) })
    }

    /// Runs thread `thread` of the block, `number` of the launch, from instruction `from` on.
    pub fn run(&mut self, thread: usize, number: u32, from: usize) -> Stop {
        #[cfg(target_arch = "x86_64")]
        if std::is_x86_feature_detected!("fma") && std::is_x86_feature_detected!("avx2") {
            // SAFETY: the features are there.
            return unsafe { self.run_with_fma(thread, number, from) };
        }
        self.interpret(thread, number, from)
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "fma,avx2,bmi2,lzcnt,popcnt,sse4.1")]
    fn run_with_fma(&mut self, thread: usize, number: u32, from: usize) -> Stop {
        self.interpret(thread, number, from)
    }

    #[inline(always)]
    fn interpret(&mut self, thread: usize, number: u32, from: usize) -> Stop {
        let code = self.code;
        let limit = self.limit.saturating_sub(self.steps);
        let mut steps = 0u64;
        let mut pc = from;
        // SAFETY: `frames` holds `places` values for each thread; lowering gives only places below that, and jumps to instructions that
        // are there; the last instruction is a return.
        unsafe {
            let frame = self.frames.as_mut_ptr().add(thread * code.places);
            let instructions = code.instructions.as_ptr();
            macro_rules! stop {
                ($stop:expr) => {{
                    self.steps += steps;
                    self.at = pc - 1;
                    return $stop;
                }};
            }
            macro_rules! reached {
                ($pointer:expr) => {
                    match $pointer {
                        Ok(pointer) => pointer,
                        Err(trouble) => stop!(Stop::Trouble(trouble)),
                    }
                };
            }
            loop {
                let inst = &*instructions.add(pc);
                pc += 1;
                steps += 1;
                macro_rules! r64 {
                    ($k:expr) => {
                        *frame.add(inst.s[$k] as usize)
                    };
                }
                macro_rules! r32 {
                    ($k:expr) => {
                        r64!($k) as u32
                    };
                }
                macro_rules! r16 {
                    ($k:expr) => {
                        r64!($k) as u16
                    };
                }
                macro_rules! f32_ {
                    ($k:expr) => {
                        f32::from_bits(r32!($k))
                    };
                }
                macro_rules! f64_ {
                    ($k:expr) => {
                        f64::from_bits(r64!($k))
                    };
                }
                macro_rules! set {
                    ($value:expr) => {{
                        let value: u64 = $value;
                        r64!(0) = value;
                    }};
                }
                macro_rules! set32 {
                    ($value:expr) => {{
                        let value: u32 = $value;
                        r64!(0) = u64::from(value);
                    }};
                }
                macro_rules! set16 {
                    ($value:expr) => {{
                        let value: u16 = $value;
                        r64!(0) = u64::from(value);
                    }};
                }
                macro_rules! jump {
                    ($target:expr) => {{
                        pc = $target as usize;
                        if steps > limit {
                            stop!(Stop::Trouble(trouble(Trouble::TooManySteps)));
                        }
                    }};
                }
                macro_rules! divisor {
                    ($value:expr) => {{
                        let value = $value;
                        if value == 0 {
                            stop!(Stop::Trouble(trouble(Trouble::DivisionByZero)));
                        }
                        value
                    }};
                }
                let mark = Mark { thread: number, at: pc as u32 - 1 };
                match inst.op {
                    Op::FmaF32 => {
                        // They come in long runs, which need no look at the table of operations.
                        let mut inst = inst;
                        loop {
                            let operand = |k: usize| f32::from_bits(*frame.add(inst.s[k] as usize) as u32);
                            *frame.add(inst.s[0] as usize) = bits_f32(operand(1).mul_add(operand(2), operand(3)));
                            let next = &*instructions.add(pc);
                            if next.op != Op::FmaF32 {
                                break;
                            }
                            inst = next;
                            pc += 1;
                            steps += 1;
                        }
                    }
                    Op::Move => set!(r64!(1)),
                    Op::Add32 => set32!(r32!(1).wrapping_add(r32!(2))),
                    Op::Add64 => set!(r64!(1).wrapping_add(r64!(2))),
                    Op::LoadGlobal => {
                        let access = Access(inst.sub);
                        let kind = if access.strong() { Kind::StrongRead } else { Kind::Read };
                        let from = reached!(self.memory.reach(
                            r64!(1).wrapping_add(inst.imm as u64),
                            access.bytes(),
                            kind,
                            mark
                        ));
                        unpack(from, access, inst, frame);
                    }
                    Op::LoadShared => {
                        let access = Access(inst.sub);
                        let kind = if access.strong() { Kind::StrongRead } else { Kind::Read };
                        let from =
                            reached!(self.shared.reach(narrow_address(r64!(1), inst.imm), access.bytes(), kind, mark));
                        unpack(from, access, inst, frame);
                    }
                    Op::LoadLocal => {
                        let access = Access(inst.sub);
                        let from = reached!(self.local.reach(
                            thread,
                            narrow_address(r64!(1), inst.imm),
                            access.bytes(),
                            Kind::Read
                        ));
                        unpack(from, access, inst, frame);
                    }
                    Op::LoadParam => {
                        let access = Access(inst.sub);
                        let from = reached!(self.reach_param(r64!(1).wrapping_add(inst.imm as u64), access.bytes()));
                        unpack(from, access, inst, frame);
                    }
                    Op::LoadGeneric => {
                        let access = Access(inst.sub);
                        let kind = if access.strong() { Kind::StrongRead } else { Kind::Read };
                        let from = reached!(self.reach_generic(
                            thread,
                            r64!(1).wrapping_add(inst.imm as u64),
                            access.bytes(),
                            kind,
                            mark
                        ));
                        unpack(from, access, inst, frame);
                    }
                    Op::StoreGlobal => {
                        let access = Access(inst.sub);
                        let to = reached!(self.memory.reach(
                            r64!(1).wrapping_add(inst.imm as u64),
                            access.bytes(),
                            Kind::Write,
                            mark
                        ));
                        pack(to, access, inst, frame);
                    }
                    Op::StoreShared => {
                        let access = Access(inst.sub);
                        let to = reached!(self.shared.reach(
                            narrow_address(r64!(1), inst.imm),
                            access.bytes(),
                            Kind::Write,
                            mark
                        ));
                        pack(to, access, inst, frame);
                    }
                    Op::StoreLocal => {
                        let access = Access(inst.sub);
                        let to = reached!(self.local.reach(
                            thread,
                            narrow_address(r64!(1), inst.imm),
                            access.bytes(),
                            Kind::Write
                        ));
                        pack(to, access, inst, frame);
                    }
                    Op::StoreGeneric => {
                        let access = Access(inst.sub);
                        let to = reached!(self.reach_generic(
                            thread,
                            r64!(1).wrapping_add(inst.imm as u64),
                            access.bytes(),
                            Kind::Write,
                            mark
                        ));
                        pack(to, access, inst, frame);
                    }
                    Op::AtomicGlobal | Op::AtomicShared | Op::AtomicGeneric => {
                        let bytes = if inst.sub & 128 != 0 { 8 } else { 4 };
                        let address = r64!(1).wrapping_add(inst.imm as u64);
                        let at = reached!(match inst.op {
                            Op::AtomicGlobal => self.memory.reach(address, bytes, Kind::Atomic, mark),
                            Op::AtomicShared =>
                                self.shared.reach(narrow_address(r64!(1), inst.imm), bytes, Kind::Atomic, mark),
                            _ => self.reach_generic(thread, address, bytes, Kind::Atomic, mark),
                        });
                        if bytes == 8 {
                            let old = at.cast::<u64>().read_unaligned();
                            at.cast::<u64>().write_unaligned(atomic(old, inst.sub, r64!(2), r64!(3)));
                            set!(old);
                        } else {
                            let old = at.cast::<u32>().read_unaligned();
                            at.cast::<u32>().write_unaligned(atomic(u64::from(old), inst.sub, r64!(2), r64!(3)) as u32);
                            set32!(old);
                        }
                    }
                    Op::Jump => jump!(inst.imm),
                    Op::JumpIf => {
                        if r64!(1) != 0 {
                            jump!(inst.imm);
                        }
                    }
                    Op::JumpUnless => {
                        if r64!(1) == 0 {
                            jump!(inst.imm);
                        }
                    }
                    Op::JumpTable => match code.tables[inst.imm as usize].get(r32!(1) as usize) {
                        Some(&target) => jump!(target),
                        None => stop!(Stop::Trouble(trouble(Trouble::JumpOutsideTable))),
                    },
                    Op::CheckWritten => {
                        if r64!(1) == 0 {
                            stop!(Stop::Trouble(trouble(Trouble::UnwrittenRegister(
                                code.checked[inst.imm as usize].clone()
                            ))));
                        }
                    }
                    Op::Barrier => stop!(Stop::Barrier),
                    Op::Return => stop!(Stop::Exit),
                    Op::Trap => stop!(Stop::Trouble(trouble(Trouble::Trap))),
                    Op::Fence => {}

                    Op::SignExtend => {
                        let unused = 64 - u32::from(inst.sub);
                        set!(((r64!(1) << unused) as i64 >> unused) as u64);
                    }
                    Op::ZeroExtend => set!(r64!(1) & (u64::MAX >> (64 - u32::from(inst.sub)))),
                    Op::High32 => set!(r64!(1) >> 32),
                    Op::Pack16 => set!(u64::from(r16!(1)) | u64::from(r16!(2)) << 16),
                    Op::Pack32 => set!(u64::from(r32!(1)) | r64!(2) << 32),
                    Op::Not16 => set16!(!r16!(1)),
                    Op::Not32 => set32!(!r32!(1)),
                    Op::Not64 => set!(!r64!(1)),
                    Op::NotPredicate => set!(r64!(1) ^ 1),
                    Op::And => set!(r64!(1) & r64!(2)),
                    Op::Or => set!(r64!(1) | r64!(2)),
                    Op::Xor => set!(r64!(1) ^ r64!(2)),
                    Op::Select => set!(if r64!(3) != 0 { r64!(1) } else { r64!(2) }),

                    Op::Add16 => set16!(r16!(1).wrapping_add(r16!(2))),
                    Op::Sub16 => set16!(r16!(1).wrapping_sub(r16!(2))),
                    Op::Sub32 => set32!(r32!(1).wrapping_sub(r32!(2))),
                    Op::Sub64 => set!(r64!(1).wrapping_sub(r64!(2))),
                    Op::Mul16 => set16!(r16!(1).wrapping_mul(r16!(2))),
                    Op::Mul32 => set32!(r32!(1).wrapping_mul(r32!(2))),
                    Op::Mul64 => set!(r64!(1).wrapping_mul(r64!(2))),
                    Op::MulHighS32 => set32!(((i64::from(r32!(1) as i32) * i64::from(r32!(2) as i32)) >> 32) as u32),
                    Op::MulHighU32 => set32!(((u64::from(r32!(1)) * u64::from(r32!(2))) >> 32) as u32),
                    Op::MulHighS64 => set!(((i128::from(r64!(1) as i64) * i128::from(r64!(2) as i64)) >> 64) as u64),
                    Op::MulHighU64 => set!(((u128::from(r64!(1)) * u128::from(r64!(2))) >> 64) as u64),
                    Op::MulWideS16 => set32!((i32::from(r16!(1) as i16) * i32::from(r16!(2) as i16)) as u32),
                    Op::MulWideU16 => set32!(u32::from(r16!(1)) * u32::from(r16!(2))),
                    Op::MulWideS32 => set!((i64::from(r32!(1) as i32) * i64::from(r32!(2) as i32)) as u64),
                    Op::MulWideU32 => set!(u64::from(r32!(1)) * u64::from(r32!(2))),
                    Op::Mad16 => set16!(r16!(1).wrapping_mul(r16!(2)).wrapping_add(r16!(3))),
                    Op::Mad32 => set32!(r32!(1).wrapping_mul(r32!(2)).wrapping_add(r32!(3))),
                    Op::Mad64 => set!(r64!(1).wrapping_mul(r64!(2)).wrapping_add(r64!(3))),
                    Op::MadHighS32 => set32!(
                        (((i64::from(r32!(1) as i32) * i64::from(r32!(2) as i32)) >> 32) as u32).wrapping_add(r32!(3))
                    ),
                    Op::MadHighU32 => {
                        set32!((((u64::from(r32!(1)) * u64::from(r32!(2))) >> 32) as u32).wrapping_add(r32!(3)))
                    }
                    Op::MadHighS64 => set!(
                        (((i128::from(r64!(1) as i64) * i128::from(r64!(2) as i64)) >> 64) as u64)
                            .wrapping_add(r64!(3))
                    ),
                    Op::MadHighU64 => {
                        set!((((u128::from(r64!(1)) * u128::from(r64!(2))) >> 64) as u64).wrapping_add(r64!(3)))
                    }
                    Op::MadWideS16 => {
                        set32!(((i32::from(r16!(1) as i16) * i32::from(r16!(2) as i16)) as u32).wrapping_add(r32!(3)))
                    }
                    Op::MadWideU16 => set32!((u32::from(r16!(1)) * u32::from(r16!(2))).wrapping_add(r32!(3))),
                    Op::MadWideS32 => {
                        set!(((i64::from(r32!(1) as i32) * i64::from(r32!(2) as i32)) as u64).wrapping_add(r64!(3)))
                    }
                    Op::MadWideU32 => set!((u64::from(r32!(1)) * u64::from(r32!(2))).wrapping_add(r64!(3))),
                    Op::DivS16 => set16!((r16!(1) as i16).wrapping_div(divisor!(r16!(2) as i16)) as u16),
                    Op::DivU16 => set16!(r16!(1) / divisor!(r16!(2))),
                    Op::DivS32 => set32!((r32!(1) as i32).wrapping_div(divisor!(r32!(2) as i32)) as u32),
                    Op::DivU32 => set32!(r32!(1) / divisor!(r32!(2))),
                    Op::DivS64 => set!((r64!(1) as i64).wrapping_div(divisor!(r64!(2) as i64)) as u64),
                    Op::DivU64 => set!(r64!(1) / divisor!(r64!(2))),
                    Op::RemS16 => set16!((r16!(1) as i16).wrapping_rem(divisor!(r16!(2) as i16)) as u16),
                    Op::RemU16 => set16!(r16!(1) % divisor!(r16!(2))),
                    Op::RemS32 => set32!((r32!(1) as i32).wrapping_rem(divisor!(r32!(2) as i32)) as u32),
                    Op::RemU32 => set32!(r32!(1) % divisor!(r32!(2))),
                    Op::RemS64 => set!((r64!(1) as i64).wrapping_rem(divisor!(r64!(2) as i64)) as u64),
                    Op::RemU64 => set!(r64!(1) % divisor!(r64!(2))),
                    Op::MinS16 => set16!((r16!(1) as i16).min(r16!(2) as i16) as u16),
                    Op::MinU16 => set16!(r16!(1).min(r16!(2))),
                    Op::MinS32 => set32!((r32!(1) as i32).min(r32!(2) as i32) as u32),
                    Op::MinU32 => set32!(r32!(1).min(r32!(2))),
                    Op::MinS64 => set!((r64!(1) as i64).min(r64!(2) as i64) as u64),
                    Op::MinU64 => set!(r64!(1).min(r64!(2))),
                    Op::MaxS16 => set16!((r16!(1) as i16).max(r16!(2) as i16) as u16),
                    Op::MaxU16 => set16!(r16!(1).max(r16!(2))),
                    Op::MaxS32 => set32!((r32!(1) as i32).max(r32!(2) as i32) as u32),
                    Op::MaxU32 => set32!(r32!(1).max(r32!(2))),
                    Op::MaxS64 => set!((r64!(1) as i64).max(r64!(2) as i64) as u64),
                    Op::MaxU64 => set!(r64!(1).max(r64!(2))),
                    Op::Negate16 => set16!(r16!(1).wrapping_neg()),
                    Op::Negate32 => set32!(r32!(1).wrapping_neg()),
                    Op::Negate64 => set!(r64!(1).wrapping_neg()),
                    Op::Absolute16 => set16!((r16!(1) as i16).wrapping_abs() as u16),
                    Op::Absolute32 => set32!((r32!(1) as i32).wrapping_abs() as u32),
                    Op::Absolute64 => set!((r64!(1) as i64).wrapping_abs() as u64),
                    Op::Shl16 => set!(value::shift_left(r64!(1), r32!(2), 16)),
                    Op::Shl32 => set!(value::shift_left(r64!(1), r32!(2), 32)),
                    Op::Shl64 => set!(value::shift_left(r64!(1), r32!(2), 64)),
                    Op::ShrU16 => set!(value::shift_right(r64!(1), r32!(2), 16)),
                    Op::ShrU32 => set!(value::shift_right(r64!(1), r32!(2), 32)),
                    Op::ShrU64 => set!(value::shift_right(r64!(1), r32!(2), 64)),
                    Op::ShrS16 => set16!((r16!(1) as i16 >> r32!(2).min(15)) as u16),
                    Op::ShrS32 => set32!((r32!(1) as i32 >> r32!(2).min(31)) as u32),
                    Op::ShrS64 => set!((r64!(1) as i64 >> r32!(2).min(63)) as u64),
                    Op::FunnelLeftWrap => {
                        set32!((((r64!(2) << 32 | u64::from(r32!(1))) << (r32!(3) & 31)) >> 32) as u32)
                    }
                    Op::FunnelLeftClamp => {
                        set32!((((u128::from(r32!(2)) << 32 | u128::from(r32!(1))) << r32!(3).min(32)) >> 32) as u32)
                    }
                    Op::FunnelRightWrap => set32!(((r64!(2) << 32 | u64::from(r32!(1))) >> (r32!(3) & 31)) as u32),
                    Op::FunnelRightClamp => set32!(((r64!(2) << 32 | u64::from(r32!(1))) >> r32!(3).min(32)) as u32),
                    Op::Permute => set32!(value::permute(r32!(1), r32!(2), r32!(3))),
                    Op::Logic3 => set32!(value::logic3(r32!(1), r32!(2), r32!(3), inst.imm as u32)),
                    Op::ExtractS32 => set32!(value::extract(r64!(1), r32!(2), r32!(3), 32, true) as u32),
                    Op::ExtractU32 => set32!(value::extract(r64!(1), r32!(2), r32!(3), 32, false) as u32),
                    Op::ExtractS64 => set!(value::extract(r64!(1), r32!(2), r32!(3), 64, true)),
                    Op::ExtractU64 => set!(value::extract(r64!(1), r32!(2), r32!(3), 64, false)),
                    Op::Insert32 => set32!(value::insert(r64!(1), r64!(2), r32!(3), r32!(4), 32) as u32),
                    Op::Insert64 => set!(value::insert(r64!(1), r64!(2), r32!(3), r32!(4), 64)),
                    Op::CountOnes => set32!(r64!(1).count_ones()),
                    Op::CountZeros32 => set32!(r32!(1).leading_zeros()),
                    Op::CountZeros64 => set32!(r64!(1).leading_zeros()),
                    Op::Reverse32 => set32!(r32!(1).reverse_bits()),
                    Op::Reverse64 => set!(r64!(1).reverse_bits()),
                    Op::HighestBit => set32!(r64!(1).checked_ilog2().unwrap_or(u32::MAX)),

                    Op::CompareS16 => set!(u64::from(relation_of(r16!(1) as i16, r16!(2) as i16) & inst.sub != 0)),
                    Op::CompareU16 => set!(u64::from(relation_of(r16!(1), r16!(2)) & inst.sub != 0)),
                    Op::CompareS32 => set!(u64::from(relation_of(r32!(1) as i32, r32!(2) as i32) & inst.sub != 0)),
                    Op::CompareU32 => set!(u64::from(relation_of(r32!(1), r32!(2)) & inst.sub != 0)),
                    Op::CompareS64 => set!(u64::from(relation_of(r64!(1) as i64, r64!(2) as i64) & inst.sub != 0)),
                    Op::CompareU64 => set!(u64::from(relation_of(r64!(1), r64!(2)) & inst.sub != 0)),
                    Op::CompareF32 => {
                        set!(u64::from(relation_f64(f64::from(f32_!(1)), f64::from(f32_!(2))) & inst.sub != 0))
                    }
                    Op::CompareF64 => set!(u64::from(relation_f64(f64_!(1), f64_!(2)) & inst.sub != 0)),

                    Op::AddF32 => set!(bits_f32(f32_!(1) + f32_!(2))),
                    Op::SubF32 => set!(bits_f32(f32_!(1) - f32_!(2))),
                    Op::MulF32 => set!(bits_f32(f32_!(1) * f32_!(2))),
                    Op::DivF32 => set!(bits_f32(f32_!(1) / f32_!(2))),
                    Op::AddF64 => set!((f64_!(1) + f64_!(2)).to_bits()),
                    Op::SubF64 => set!((f64_!(1) - f64_!(2)).to_bits()),
                    Op::MulF64 => set!((f64_!(1) * f64_!(2)).to_bits()),
                    Op::DivF64 => set!((f64_!(1) / f64_!(2)).to_bits()),
                    Op::FmaF64 => set!(f64_!(1).mul_add(f64_!(2), f64_!(3)).to_bits()),
                    Op::AddF32Zero => set!(bits_f32(value::add_to_zero(f32_!(1), f32_!(2)))),
                    Op::SubF32Zero => set!(bits_f32(value::add_to_zero(f32_!(1), -f32_!(2)))),
                    Op::MulF32Zero => set!(bits_f32(value::mul_to_zero(f32_!(1), f32_!(2)))),
                    Op::FmaF32Zero => set!(bits_f32(value::fma_to_zero(f32_!(1), f32_!(2), f32_!(3)))),
                    Op::MinF32 => set!(value::min_f32(f32_!(1), f32_!(2))),
                    Op::MaxF32 => set!(value::max_f32(f32_!(1), f32_!(2))),
                    Op::MinF64 => set!(value::min_f64(f64_!(1), f64_!(2))),
                    Op::MaxF64 => set!(value::max_f64(f64_!(1), f64_!(2))),
                    Op::CopySignF32 => set32!(r32!(1) & 0x8000_0000 | r32!(2) & 0x7fff_ffff),
                    Op::CopySignF64 => set!(r64!(1) & 1 << 63 | r64!(2) & (u64::MAX >> 1)),
                    Op::NegateF32 => set32!(r32!(1) ^ 0x8000_0000),
                    Op::NegateF64 => set!(r64!(1) ^ 1 << 63),
                    Op::AbsoluteF32 => set32!(r32!(1) & 0x7fff_ffff),
                    Op::AbsoluteF64 => set!(r64!(1) & (u64::MAX >> 1)),
                    Op::SqrtF32 => set!(bits_f32(f32_!(1).sqrt())),
                    Op::SqrtF64 => set!(f64_!(1).sqrt().to_bits()),
                    Op::ReciprocalF32 => set!(bits_f32(1.0 / f32_!(1))),
                    Op::ReciprocalF64 => set!((1.0 / f64_!(1)).to_bits()),
                    Op::S32ToF32 => set32!(value::integer_to_f32(i128::from(r32!(1) as i32), inst.sub).to_bits()),
                    Op::U32ToF32 => set32!(value::integer_to_f32(i128::from(r32!(1)), inst.sub).to_bits()),
                    Op::S64ToF32 => set32!(value::integer_to_f32(i128::from(r64!(1) as i64), inst.sub).to_bits()),
                    Op::U64ToF32 => set32!(value::integer_to_f32(i128::from(r64!(1)), inst.sub).to_bits()),
                    Op::S32ToF64 => set!(f64::from(r32!(1) as i32).to_bits()),
                    Op::U32ToF64 => set!(f64::from(r32!(1)).to_bits()),
                    Op::S64ToF64 => set!(value::integer_to_f64(i128::from(r64!(1) as i64), inst.sub).to_bits()),
                    Op::U64ToF64 => set!(value::integer_to_f64(i128::from(r64!(1)), inst.sub).to_bits()),
                    Op::F32ToS16 => set16!(value::round_f32(f32_!(1), inst.sub) as i16 as u16),
                    Op::F32ToU16 => set16!(value::round_f32(f32_!(1), inst.sub) as u16),
                    Op::F32ToS32 => set32!(value::round_f32(f32_!(1), inst.sub) as i32 as u32),
                    Op::F32ToU32 => set32!(value::round_f32(f32_!(1), inst.sub) as u32),
                    Op::F32ToS64 => set!(value::round_f32(f32_!(1), inst.sub) as i64 as u64),
                    Op::F32ToU64 => set!(value::round_f32(f32_!(1), inst.sub) as u64),
                    Op::F64ToS16 => set16!(value::round_f64(f64_!(1), inst.sub) as i16 as u16),
                    Op::F64ToU16 => set16!(value::round_f64(f64_!(1), inst.sub) as u16),
                    Op::F64ToS32 => set32!(value::round_f64(f64_!(1), inst.sub) as i32 as u32),
                    Op::F64ToU32 => set32!(value::round_f64(f64_!(1), inst.sub) as u32),
                    Op::F64ToS64 => set!(value::round_f64(f64_!(1), inst.sub) as i64 as u64),
                    Op::F64ToU64 => set!(value::round_f64(f64_!(1), inst.sub) as u64),
                    Op::F32ToF64 => set!(f64::from(f32_!(1)).to_bits()),
                    Op::F64ToF32 => set!(bits_f32(value::f64_to_f32(f64_!(1), inst.sub))),
                    Op::F16ToF32 => set32!(value::half_to_f32(r16!(1)).to_bits()),
                    Op::F32ToF16 => set16!(value::f32_to_half(f32_!(1), inst.sub)),
                    Op::RoundF32 => set!(bits_f32(value::round_f32(f32_!(1), inst.sub))),
                    Op::RoundF64 => set!(value::round_f64(f64_!(1), inst.sub).to_bits()),
                    Op::SaturateF32 => {
                        let from = f32_!(1);
                        // NaN becomes +0.
                        set32!(if from > 0.0 { from.min(1.0) } else { 0.0 }.to_bits());
                    }
                }
            }
        }
    }
}
