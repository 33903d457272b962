//! Copies and sets: checked and noted as kernels' accesses are.

use crate::codes::{ILLEGAL_ADDRESS, LAUNCH_FAILED, Outcome};
use crate::driver::Driver;
use crate::run::shadow::{By, Kind, Mark};
use crate::work::{At, Before, Record};

impl Driver {
    pub(crate) fn write_from(&mut self, to: u64, from: *const u8, bytes: u64, at: &At) -> Outcome {
        self.check(to, bytes, Kind::Write, false, at)?;
        let target = self.arena.bytes_of_mut(to, bytes);
        // SAFETY: `from` is a buffer taken at the call, or page-locked memory that the caller promised to keep.
        unsafe { std::ptr::copy_nonoverlapping(from, target.as_mut_ptr(), bytes as usize) };
        self.mark_written(to, bytes, at.context);
        Ok(())
    }

    /// Copies bytes along with whether they were ever written.
    pub(crate) fn copy(&mut self, to: u64, from: u64, bytes: u64, at: &At) -> Outcome {
        self.check(from, bytes, Kind::Read, false, at)?;
        self.check(to, bytes, Kind::Write, false, at)?;
        if from < to + bytes && to < from + bytes {
            self.fault(&format!("{}: the ranges overlap", at.what.describe()));
            return Err(LAUNCH_FAILED);
        }
        let (data, states) = (self.arena.bytes_of(from, bytes).to_vec(), self.arena.states_of(from, bytes).to_vec());
        self.arena.bytes_of_mut(to, bytes).copy_from_slice(&data);
        self.arena.states_of_mut(to, bytes).copy_from_slice(&states);
        Ok(())
    }

    pub(crate) fn mark_written(&mut self, to: u64, bytes: u64, context: u64) {
        let state = self.owner(context) << 1 | 1;
        self.arena.states_of_mut(to, bytes).fill(state);
    }

    /// Checks that a range may be used, and notes its use.
    pub(crate) fn check(&mut self, address: u64, bytes: u64, kind: Kind, written: bool, at: &At) -> Outcome {
        let owner = self.owner(at.context);
        let inside = address >= self.arena.base
            && bytes <= self.arena.span
            && address - self.arena.base <= self.arena.span - bytes;
        let bad = if inside {
            self.arena.states_of(address, bytes).iter().position(|&state| state >> 1 != owner)
        } else {
            Some(0)
        };
        if let Some(bad) = bad {
            let text = format!("{}: {}", at.what.describe(), self.outside(address + bad as u64, kind == Kind::Write));
            self.fault(&text);
            return Err(ILLEGAL_ADDRESS);
        }
        let unwritten = self.arena.states_of(address, bytes).iter().position(|&state| state & 1 == 0);
        if let Some(unwritten) = unwritten.filter(|_| written) {
            let text = format!(
                "{}: reads memory that nothing wrote: {}",
                at.what.describe(),
                self.whereabouts(address + unwritten as u64)
            );
            self.fault(&text);
            return Err(LAUNCH_FAILED);
        }
        self.note(address, bytes, kind, at)
    }

    pub(crate) fn note(&mut self, address: u64, bytes: u64, kind: Kind, at: &At) -> Outcome {
        let mark = Mark { thread: 1, at: 0 };
        let (start, end) = ((address - self.arena.base) as usize, (address - self.arena.base + bytes) as usize);
        let (whole, rest) = (start.next_multiple_of(4).min(end), (end / 4 * 4).max(start.next_multiple_of(4).min(end)));
        for (from, to) in [(start, whole), (whole, rest), (rest, end)] {
            if from == to {
                continue;
            }
            let touched =
                self.arena.shadow.touch(from, to - from, kind, By { mark, epoch: at.epoch, order: at.before });
            if let Err(conflict) = touched {
                let with = self.unordered(&conflict);
                let place = self.whereabouts(self.arena.base + from as u64);
                self.fault(&format!("{}: collides at or after {place} with {with}", at.what.describe()));
                return Err(LAUNCH_FAILED);
            }
        }
        Ok(())
    }

    /// Whether the host waited for the allocation itself and every use of it that has run.
    pub fn host_knows_done(&mut self, start: u64) -> bool {
        let Some(known) = self.arena.get(start).filter(|known| known.open) else {
            return false;
        };
        let bytes = known.size;
        let unknown = |record: &Record| self.host_clock.get(record.stream) < record.operation;
        let unordered = self.records.iter().filter(|(_, record)| unknown(record)).map(|(&epoch, _)| epoch);
        let before = Before::new(&unordered.collect::<Vec<u32>>());
        let epoch = self.record(Record { stream: 0, operation: 0, node: None, what: "cuMemFree".into() });
        let offset = (start - self.arena.base) as usize;
        // Allocations begin at whole words; the rest of the last word is nobody else's.
        let bytes = bytes.next_multiple_of(4) as usize;
        let by = By { mark: Mark { thread: 1, at: 0 }, epoch, order: &before };
        self.arena.shadow.touch(offset, bytes, Kind::Write, by).is_ok()
    }
}
