//! Faults of kernels and copies in words, and the codes that they come to.

use crate::codes::{Code, ILLEGAL_ADDRESS, ILLEGAL_INSTRUCTION, LAUNCH_FAILED, LAUNCH_TIMEOUT, MISALIGNED_ADDRESS};
use crate::driver::Driver;
use crate::run::block::{Failure, coordinates};
use crate::run::reach::{Place, Trouble};
use crate::run::shadow::{Conflict, Kind};
use crate::work::Kernel;

impl Driver {
    pub(crate) fn unordered(&self, conflict: &Conflict) -> String {
        match self.records.get(&conflict.epoch) {
            Some(record) => format!(
                "the {} of stream {}, operation {}, which nothing orders before it",
                record.what, record.stream, record.operation
            ),
            None => "an operation that nothing orders before it".to_string(),
        }
    }

    pub(crate) fn whereabouts(&self, address: u64) -> String {
        match self.arena.nearest(address) {
            Some(allocation) => format!("{address:#x}, {}", allocation.describe(address)),
            None => format!("{address:#x}, and nothing was ever allocated"),
        }
    }

    pub(crate) fn outside(&self, address: u64, write: bool) -> String {
        let verb = if write { "writes" } else { "reads" };
        let inside = self.arena.find(address).is_some_and(|allocation| allocation.open);
        let why = if inside { "memory of another context" } else { "memory that is not allocated" };
        format!("{verb} {why}: {}", self.whereabouts(address))
    }

    pub(crate) fn kernel_fault(&mut self, kernel: &Kernel, failure: &Failure, epoch: u32) -> Code {
        let code = &kernel.image.entries[kernel.entry];
        let line = |instruction: usize| kernel.image.quote(code.lines[instruction]);
        let name = |place: Place| format!("{place:?}").to_lowercase();
        let (text, result) = match &failure.trouble {
            Trouble::Misaligned { place, address, bytes } => {
                (format!("misaligned: {bytes} bytes at {address:#x} of {} memory", name(*place)), MISALIGNED_ADDRESS)
            }
            Trouble::Outside { place: Place::Global, address, bytes, write } => {
                (format!("out of bounds, {bytes} bytes: {}", self.outside(*address, *write)), ILLEGAL_ADDRESS)
            }
            Trouble::Outside { place, address, bytes, .. } => {
                (format!("out of bounds: {bytes} bytes at {address:#x} of {} memory", name(*place)), ILLEGAL_ADDRESS)
            }
            Trouble::Unwritten { place: Place::Global, address, bytes } => (
                format!("reads {bytes} bytes of memory that nothing wrote: {}", self.whereabouts(*address)),
                LAUNCH_FAILED,
            ),
            Trouble::Unwritten { place, address, bytes } => (
                format!("reads {bytes} bytes at {address:#x} of {} memory that nothing wrote", name(*place)),
                LAUNCH_FAILED,
            ),
            Trouble::Race { place, address, bytes, kind, conflict } => {
                let verb = |kind: Kind| match kind {
                    Kind::Read | Kind::StrongRead => "read",
                    Kind::Write => "write",
                    Kind::Atomic => "atomic",
                };
                let with = if *place == Place::Global && conflict.epoch != epoch {
                    self.unordered(conflict)
                } else {
                    let threads = u64::from(kernel.block.iter().product::<u32>());
                    let number = u64::from(conflict.other.thread - 1);
                    format!(
                        "the {} by thread {:?} of block {:?} at {}",
                        verb(conflict.kind),
                        coordinates(number % threads, kernel.block),
                        coordinates(number / threads, kernel.grid),
                        line(conflict.other.at as usize)
                    )
                };
                let at = if *place == Place::Global {
                    self.whereabouts(*address)
                } else {
                    format!("{address:#x} of {} memory", name(*place))
                };
                (format!("race: the {} of {bytes} bytes at {at} collides with {with}", verb(*kind)), LAUNCH_FAILED)
            }
            Trouble::UnwrittenRegister(register) => {
                (format!("reads the register {register} before it was written"), LAUNCH_FAILED)
            }
            Trouble::DivisionByZero => ("divides an integer by zero".to_string(), LAUNCH_FAILED),
            Trouble::Trap => ("trap".to_string(), ILLEGAL_INSTRUCTION),
            Trouble::JumpOutsideTable => ("jumps outside of its table".to_string(), ILLEGAL_INSTRUCTION),
            Trouble::TooManySteps => {
                (format!("more than {} instructions in one launch", self.settings.steps), LAUNCH_TIMEOUT)
            }
            Trouble::Divergence(text) => (format!("barrier divergence: {text}"), LAUNCH_FAILED),
        };
        self.fault(&format!(
            "kernel `{}`, {}, thread {:?} of block {:?} (grid {:?}, block {:?}): {text}",
            code.name,
            line(failure.at),
            failure.thread,
            failure.block,
            kernel.grid,
            kernel.block
        ));
        result
    }
}
