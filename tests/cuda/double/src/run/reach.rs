//! What a thread's addresses reach: bounds, alignment, whether it was written, who else touched it.

use super::group::LANES;
use super::shadow::{Always, By, Conflict, Kind, Mark, Order, Shadow};
use crate::ptx::instruction::{Access, Atomic, Inst};
use std::ptr::NonNull;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Global,
    Shared,
    Local,
    Param,
}

/// What stopped a thread that should have gone on.
#[derive(Clone, Debug, PartialEq)]
pub enum Trouble {
    Misaligned {
        place: Place,
        address: u64,
        bytes: u32,
    },
    Outside {
        place: Place,
        address: u64,
        bytes: u32,
        write: bool,
    },
    Unwritten {
        place: Place,
        address: u64,
        bytes: u32,
    },
    Race {
        place: Place,
        address: u64,
        bytes: u32,
        kind: Kind,
        conflict: Conflict,
    },
    UnwrittenRegister(String),
    DivisionByZero,
    Trap,
    JumpOutsideTable,
    TooManySteps,
    /// The block's other threads wait elsewhere, or have left.
    Divergence(String),
}

/// The device's memory as a kernel of one context sees it.
pub struct Memory<'a, O: Order> {
    pub base: u64,
    pub span: u64,
    pub data: *mut u8,
    /// One byte a byte: the context's code times two, plus one once written; 0 where nothing is allocated.
    pub states: *mut u8,
    pub owner: u8,
    pub shadow: &'a mut Shadow,
    pub epoch: u32,
    pub order: &'a O,
}

/// A block's shared memory.
pub struct Shared {
    pub data: Vec<u8>,
    pub written: Vec<u8>,
    pub words: Vec<super::shadow::Word>,
    pub shadow: Shadow,
    /// Counts intervals between barriers.
    pub interval: u32,
}

/// The local memory of a block's threads, one after another.
pub struct Local {
    pub bytes: usize,
    pub data: Vec<u8>,
    pub written: Vec<u8>,
}

pub(super) type Pointer = Result<NonNull<u8>, Box<Trouble>>;

#[inline(always)]
fn all_are(states: *const u8, bytes: u32, state: u8) -> bool {
    let splat = u128::from(state) * 0x0101_0101_0101_0101_0101_0101_0101_0101;
    // SAFETY: the callers have checked that `bytes` states lie inside of their array.
    unsafe {
        match bytes {
            4 => states.cast::<u32>().read_unaligned() == splat as u32,
            16 => states.cast::<u128>().read_unaligned() == splat,
            8 => states.cast::<u64>().read_unaligned() == splat as u64,
            2 => states.cast::<u16>().read_unaligned() == splat as u16,
            _ => (0..bytes as usize).all(|at| *states.add(at) == state),
        }
    }
}

#[cold]
pub(super) fn trouble(trouble: Trouble) -> Box<Trouble> {
    Box::new(trouble)
}

impl<O: Order> Memory<'_, O> {
    #[inline(always)]
    pub(super) fn reach(&mut self, address: u64, bytes: u32, kind: Kind, mark: Mark) -> Pointer {
        let place = Place::Global;
        if address & u64::from(bytes - 1) != 0 {
            return Err(trouble(Trouble::Misaligned { place, address, bytes }));
        }
        let offset = address.wrapping_sub(self.base);
        let write = matches!(kind, Kind::Write | Kind::Atomic);
        if offset > self.span - u64::from(bytes) {
            return Err(trouble(Trouble::Outside { place, address, bytes, write }));
        }
        let offset = offset as usize;
        // SAFETY: the bytes lie inside of the arena, whose data and states are mapped.
        let states = unsafe { self.states.add(offset) };
        let written = self.owner << 1 | 1;
        if !all_are(states, bytes, written) {
            // SAFETY: as above.
            let mine = (0..bytes as usize).all(|at| unsafe { *states.add(at) } >> 1 == self.owner);
            if !mine {
                return Err(trouble(Trouble::Outside { place, address, bytes, write }));
            }
            if kind != Kind::Write {
                return Err(trouble(Trouble::Unwritten { place, address, bytes }));
            }
            // SAFETY: as above.
            unsafe { states.write_bytes(written, bytes as usize) };
        }
        if let Err(conflict) =
            self.shadow.touch(offset, bytes as usize, kind, By { mark, epoch: self.epoch, order: self.order })
        {
            return Err(trouble(Trouble::Race { place, address, bytes, kind, conflict }));
        }
        // SAFETY: as above; a mapping does not begin at 0.
        Ok(unsafe { NonNull::new_unchecked(self.data.add(offset)) })
    }
}

impl Shared {
    #[inline(always)]
    pub(super) fn reach(&mut self, address: u64, bytes: u32, kind: Kind, mark: Mark) -> Pointer {
        let place = Place::Shared;
        if address & u64::from(bytes - 1) != 0 {
            return Err(trouble(Trouble::Misaligned { place, address, bytes }));
        }
        let write = matches!(kind, Kind::Write | Kind::Atomic);
        if address.saturating_add(u64::from(bytes)) > self.data.len() as u64 {
            return Err(trouble(Trouble::Outside { place, address, bytes, write }));
        }
        let offset = address as usize;
        // SAFETY: `written` is as long as `data`.
        let states = unsafe { self.written.as_mut_ptr().add(offset) };
        if !all_are(states, bytes, 1) {
            if kind != Kind::Write {
                return Err(trouble(Trouble::Unwritten { place, address, bytes }));
            }
            // SAFETY: as above.
            unsafe { states.write_bytes(1, bytes as usize) };
        }
        if let Err(conflict) =
            self.shadow.touch(offset, bytes as usize, kind, By { mark, epoch: self.interval, order: &Always })
        {
            return Err(trouble(Trouble::Race { place, address, bytes, kind, conflict }));
        }
        // SAFETY: the bytes lie inside.
        Ok(unsafe { NonNull::new_unchecked(self.data.as_mut_ptr().add(offset)) })
    }
}

impl Local {
    #[inline(always)]
    pub(super) fn reach(&mut self, thread: usize, address: u64, bytes: u32, kind: Kind) -> Pointer {
        let place = Place::Local;
        if address & u64::from(bytes - 1) != 0 {
            return Err(trouble(Trouble::Misaligned { place, address, bytes }));
        }
        let write = kind == Kind::Write;
        if address.saturating_add(u64::from(bytes)) > self.bytes as u64 {
            return Err(trouble(Trouble::Outside { place, address, bytes, write }));
        }
        let offset = thread * self.bytes + address as usize;
        // SAFETY: `written` is as long as `data`, which holds `bytes` bytes for each thread.
        let states = unsafe { self.written.as_mut_ptr().add(offset) };
        if !all_are(states, bytes, 1) {
            if !write {
                return Err(trouble(Trouble::Unwritten { place, address, bytes }));
            }
            // SAFETY: as above.
            unsafe { states.write_bytes(1, bytes as usize) };
        }
        // SAFETY: as above.
        Ok(unsafe { NonNull::new_unchecked(self.data.as_mut_ptr().add(offset)) })
    }
}

/// Addresses of the shared and local spaces are 32 bits wide and wrap; wider ones are kept, to be found outside.
#[inline(always)]
pub(super) fn narrow_address(base: u64, offset: i32) -> u64 {
    if base >> 32 == 0 {
        u64::from((base as u32).wrapping_add(offset as u32))
    } else {
        base.wrapping_add(offset as u64)
    }
}

/// One thread's part of a group's frame: places of 32 bits for each of `LANES` threads.
#[derive(Clone, Copy)]
pub(super) struct Lane {
    frame: *mut u32,
    lane: usize,
}

impl Lane {
    /// # Safety
    /// `frame` holds every place of the instructions that are used with this.
    #[inline(always)]
    pub(super) unsafe fn new(frame: *mut u32, lane: usize) -> Lane {
        Lane { frame, lane }
    }

    #[inline(always)]
    pub(super) fn get(self, place: u16, wide: bool) -> u64 {
        // SAFETY: as promised to `new`.
        unsafe {
            let at = self.frame.add(usize::from(place) * LANES);
            if wide { *at.cast::<u64>().add(self.lane) } else { u64::from(*at.add(self.lane)) }
        }
    }

    #[inline(always)]
    pub(super) fn set(self, place: u16, wide: bool, value: u64) {
        // SAFETY: as promised to `new`.
        unsafe {
            let at = self.frame.add(usize::from(place) * LANES);
            if wide {
                *at.cast::<u64>().add(self.lane) = value;
            } else {
                *at.add(self.lane) = value as u32;
            }
        }
    }
}

/// The place of a vector's element.
#[inline(always)]
fn place_of(inst: &Inst, index: usize) -> u16 {
    inst.s[if index == 0 { 0 } else { index + 1 }]
}

/// Moves what a load reads into the frame.
///
/// # Safety
/// `from` points at the access's bytes.
#[inline(always)]
pub(super) unsafe fn unpack(from: NonNull<u8>, access: Access, inst: &Inst, lane: Lane) {
    let from = from.as_ptr();
    let (signed, wide) = (access.signed(), access.wide_values());
    for index in 0..access.count() as usize {
        // SAFETY: as the caller promises.
        let value = unsafe {
            match access.element() {
                4 => {
                    let value = from.cast::<u32>().add(index).read_unaligned();
                    if signed { value as i32 as u64 } else { u64::from(value) }
                }
                2 => {
                    let value = from.cast::<u16>().add(index).read_unaligned();
                    if signed { value as i16 as u64 } else { u64::from(value) }
                }
                8 => from.cast::<u64>().add(index).read_unaligned(),
                _ => {
                    let value = *from.add(index);
                    if signed { value as i8 as u64 } else { u64::from(value) }
                }
            }
        };
        lane.set(place_of(inst, index), wide, value);
    }
}

/// Moves what a store writes out of the frame.
///
/// # Safety
/// As `unpack`.
#[inline(always)]
pub(super) unsafe fn pack(to: NonNull<u8>, access: Access, inst: &Inst, lane: Lane) {
    let to = to.as_ptr();
    for index in 0..access.count() as usize {
        let value = lane.get(place_of(inst, index), access.wide_values());
        // SAFETY: as the caller promises.
        unsafe {
            match access.element() {
                4 => to.cast::<u32>().add(index).write_unaligned(value as u32),
                2 => to.cast::<u16>().add(index).write_unaligned(value as u16),
                8 => to.cast::<u64>().add(index).write_unaligned(value),
                _ => *to.add(index) = value as u8,
            }
        }
    }
}

pub(super) fn atomic(old: u64, sub: u8, b: u64, c: u64) -> u64 {
    let wide = Access(sub).wide_values();
    let signed = |value: u64| {
        if wide { value as i64 } else { i64::from(value as i32) }
    };
    let known = [
        Atomic::CompareAndSwap,
        Atomic::Exchange,
        Atomic::Add,
        Atomic::And,
        Atomic::Or,
        Atomic::Xor,
        Atomic::MinS,
        Atomic::MinU,
        Atomic::MaxS,
        Atomic::MaxU,
    ];
    match known[usize::from(sub & 15)] {
        Atomic::CompareAndSwap => {
            if old == b {
                c
            } else {
                old
            }
        }
        Atomic::Exchange => b,
        Atomic::Add => old.wrapping_add(b),
        Atomic::And => old & b,
        Atomic::Or => old | b,
        Atomic::Xor => old ^ b,
        Atomic::MinS => {
            if signed(old) <= signed(b) {
                old
            } else {
                b
            }
        }
        Atomic::MinU => old.min(b),
        Atomic::MaxS => {
            if signed(old) >= signed(b) {
                old
            } else {
                b
            }
        }
        Atomic::MaxU => old.max(b),
    }
}
