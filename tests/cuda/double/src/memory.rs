//! Device memory: addresses that the host cannot touch, the bytes behind them, and what is known of each byte.
//!
//! Device addresses are a reservation without access; the bytes lie elsewhere, so a host that reads a device pointer faults at any
//! time. Addresses are not given out again until all of the reservation was used once.

use crate::run::shadow::{Shadow, Word};
use std::collections::BTreeMap;

const PAGE: u64 = 4096;
/// No allocation is nearer to another than this.
const GAP: u64 = 256 << 10;
/// What the driver promises for every allocation.
pub const ALIGNMENT: u64 = 256;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// cuMemAlloc
    Call,
    /// cuMemAllocAsync
    Stream,
    /// A module's variables.
    Module,
}

#[derive(Clone, Debug)]
pub struct Allocation {
    pub number: u64,
    pub start: u64,
    pub size: u64,
    pub context: u64,
    pub device: u64,
    pub origin: Origin,
    /// A free was asked for; none may be asked for again.
    pub freed: bool,
    /// Its bytes may be used: the allocation was carried out and the free was not.
    pub open: bool,
}

pub struct Arena {
    pub base: u64,
    pub span: u64,
    pub data: *mut u8,
    pub states: *mut u8,
    pub shadow: Shadow,
    words: *mut Word,
    next: u64,
    allocations: BTreeMap<u64, Allocation>,
    made: u64,
    /// Bytes of each device that are allocated and that no free was asked for.
    used: BTreeMap<u64, u64>,
}

// SAFETY: the mappings belong to the arena, which is used under the driver's lock.
unsafe impl Send for Arena {}

fn map(bytes: u64, access: i32) -> Option<*mut u8> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a new anonymous mapping, wherever the kernel wants it.
    let at = unsafe { libc::mmap(std::ptr::null_mut(), bytes as usize, access, flags, -1, 0) };
    if at == libc::MAP_FAILED {
        return None;
    }
    // SAFETY: the mapping just made; a dump of it would be huge.
    unsafe { libc::madvise(at, bytes as usize, libc::MADV_DONTDUMP) };
    Some(at.cast())
}

fn unmap(at: *mut u8, bytes: u64) {
    // SAFETY: a mapping of this size that `map` made.
    unsafe { libc::munmap(at.cast(), bytes as usize) };
}

impl Default for Arena {
    fn default() -> Self {
        Self::new()
    }
}

impl Arena {
    pub fn new() -> Arena {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        for shift in (30..=36).rev() {
            let span = 1u64 << shift;
            let sizes = [(span, libc::PROT_NONE), (span, access), (span + 16, access), (span * 4, access)];
            let mut maps = Vec::new();
            for (bytes, access) in sizes {
                match map(bytes, access) {
                    Some(at) => maps.push((at, bytes)),
                    None => break,
                }
            }
            if maps.len() < sizes.len() {
                maps.into_iter().for_each(|(at, bytes)| unmap(at, bytes));
                continue;
            }
            let words = maps[3].0.cast::<Word>();
            return Arena {
                base: maps[0].0 as u64,
                span,
                data: maps[1].0,
                states: maps[2].0,
                // SAFETY: the mapping holds one word for every four bytes of the span and is never unmapped.
                shadow: unsafe { Shadow::new(words, span as usize / 4) },
                words,
                next: PAGE,
                allocations: BTreeMap::new(),
                made: 0,
                used: BTreeMap::new(),
            };
        }
        panic!("no address space for the device's memory");
    }

    /// Takes addresses for `size` bytes, aligned to 256 and no more; the bytes are not there yet.
    pub fn reserve(&mut self, size: u64, context: u64, device: u64, origin: Origin, random: u64) -> Option<u64> {
        let needed = (size + GAP).next_multiple_of(PAGE);
        let mut wrapped = false;
        loop {
            if self.next + needed + GAP > self.span {
                if wrapped {
                    return None;
                }
                wrapped = true;
                self.next = PAGE;
            }
            // Past whatever lives where this would lie.
            let (from, to) = (self.base + self.next, self.base + self.next + needed);
            let taken = self
                .allocations
                .range(..to)
                .next_back()
                .filter(|(_, other)| !other.is_gone() && other.start + other.size + GAP > from);
            match taken {
                Some((_, other)) => self.next = (other.start + other.size + GAP - self.base).next_multiple_of(PAGE),
                None => break,
            }
        }
        let start = self.base + self.next + ALIGNMENT * (1 + random % 7);
        self.next += needed;
        self.made += 1;
        // Allocations of a first round, freed since, whose addresses are given out again.
        let old: Vec<u64> =
            self.allocations.range(start.saturating_sub(PAGE)..start + needed).map(|(&at, _)| at).collect();
        old.iter().for_each(|at| {
            self.allocations.remove(at);
        });
        if origin != Origin::Module {
            *self.used.entry(device).or_insert(0) += size;
        }
        self.allocations.insert(
            start,
            Allocation { number: self.made, start, size, context, device, origin, freed: false, open: false },
        );
        Some(start)
    }

    fn offset(&self, address: u64) -> usize {
        (address - self.base) as usize
    }

    /// Makes the bytes of an allocation usable by a context.
    pub fn open(&mut self, start: u64, owner: u8) {
        let offset = self.offset(start);
        if let Some(allocation) = self.allocations.get_mut(&start) {
            allocation.open = true;
            // SAFETY: the allocation lies inside of the arena.
            unsafe { self.states.add(offset).write_bytes(owner << 1, allocation.size as usize) };
        }
    }

    /// Takes the bytes of an allocation away.
    pub fn close(&mut self, start: u64) {
        let offset = self.offset(start);
        self.mark_freed(start);
        if let Some(allocation) = self.allocations.get_mut(&start) {
            allocation.open = false;
            let size = allocation.size as usize;
            // SAFETY: the allocation lies inside of the arena; what else lies in its pages has gaps of more than a page between.
            unsafe {
                self.states.add(offset).write_bytes(0, size);
                release(self.data.add(offset), size);
                release(self.words.cast::<u8>().add(offset * 4), size * 4);
            }
        }
    }

    pub fn get(&self, start: u64) -> Option<&Allocation> {
        self.allocations.get(&start)
    }

    /// Takes note that an allocation is to be freed.
    pub fn mark_freed(&mut self, start: u64) {
        let Some(allocation) = self.allocations.get_mut(&start) else {
            return;
        };
        if !std::mem::replace(&mut allocation.freed, true) && allocation.origin != Origin::Module {
            *self.used.entry(allocation.device).or_insert(0) -= allocation.size;
        }
    }

    /// Bytes of a device that are in use.
    pub fn used(&self, device: u64) -> u64 {
        self.used.get(&device).copied().unwrap_or(0)
    }

    pub fn used_in_all(&self) -> u64 {
        self.used.values().sum()
    }

    /// The allocation that `address` lies in, freed ones too.
    pub fn find(&self, address: u64) -> Option<&Allocation> {
        let (_, allocation) = self.allocations.range(..=address).next_back()?;
        (address < allocation.start + allocation.size.max(1)).then_some(allocation)
    }

    /// The allocation nearest to `address`.
    pub fn nearest(&self, address: u64) -> Option<&Allocation> {
        let below = self.allocations.range(..=address).next_back().map(|(_, allocation)| allocation);
        let above = self.allocations.range(address..).next().map(|(_, allocation)| allocation);
        match (below, above) {
            (Some(below), Some(above)) => {
                let past = address.saturating_sub(below.start + below.size);
                Some(if past <= above.start - address { below } else { above })
            }
            (below, above) => below.or(above),
        }
    }

    pub fn of_context(&self, context: u64) -> Vec<u64> {
        self.allocations
            .values()
            .filter(|allocation| !allocation.is_gone() && allocation.context == context)
            .map(|allocation| allocation.start)
            .collect()
    }

    /// The state of each byte.
    pub fn states_of(&self, address: u64, bytes: u64) -> &[u8] {
        // SAFETY: callers give ranges inside of an allocation.
        unsafe { std::slice::from_raw_parts(self.states.add(self.offset(address)), bytes as usize) }
    }

    pub fn states_of_mut(&mut self, address: u64, bytes: u64) -> &mut [u8] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.states.add(self.offset(address)), bytes as usize) }
    }

    pub fn bytes_of(&self, address: u64, bytes: u64) -> &[u8] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts(self.data.add(self.offset(address)), bytes as usize) }
    }

    pub fn bytes_of_mut(&mut self, address: u64, bytes: u64) -> &mut [u8] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.data.add(self.offset(address)), bytes as usize) }
    }
}

impl Allocation {
    fn is_gone(&self) -> bool {
        self.freed && !self.open
    }

    /// What a report says about an address and this allocation.
    pub fn describe(&self, address: u64) -> String {
        let state = match (self.open, self.freed) {
            (true, false) => "live",
            (true, true) => "live until its queued free",
            (false, true) => "freed",
            (false, false) => "not yet allocated by its stream",
        };
        let from = match self.origin {
            Origin::Call => "cuMemAlloc",
            Origin::Stream => "cuMemAllocAsync",
            Origin::Module => "a module's variable",
        };
        let place = if address < self.start {
            format!("{} bytes before", self.start - address)
        } else if address >= self.start + self.size {
            format!("{} bytes past", address - self.start - self.size)
        } else {
            format!("{} bytes into", address - self.start)
        };
        format!("{place} allocation {} ({from}, {} bytes at {:#x}, {state})", self.number, self.size, self.start)
    }
}

/// Gives the whole pages of a range back; they read as zero afterwards.
///
/// # Safety
/// The range is mapped and nothing else lies in its pages.
unsafe fn release(at: *mut u8, bytes: usize) {
    let page = PAGE as usize;
    let start = (at as usize).next_multiple_of(page);
    let end = (at as usize + bytes) / page * page;
    if end > start {
        // SAFETY: whole pages inside of the mapping.
        unsafe { libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_DONTNEED) };
    }
}
