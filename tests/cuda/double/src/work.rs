//! The operations that streams hold, and carrying them out.

use crate::clock::Clock;
use crate::codes::{INVALID_HANDLE, Outcome};
use crate::driver::Driver;
use crate::graph::Node;
use crate::module::Image;
use crate::run::block::{self, Launch, random};
use crate::run::reach::Memory;
use crate::run::shadow::{Kind, Order};
use std::sync::Arc;

#[derive(Clone, Debug)]
pub struct Kernel {
    pub module: u64,
    pub image: Arc<Image>,
    pub entry: usize,
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub dynamic_shared: u32,
    pub params: Vec<u8>,
}

#[derive(Clone, Debug)]
pub enum Action {
    Kernel(Arc<Kernel>),
    /// Bytes taken at the call.
    FromHost {
        to: u64,
        bytes: Vec<u8>,
    },
    /// Page-locked memory, read when the copy runs.
    FromPinned {
        to: u64,
        from: u64,
        bytes: u64,
    },
    ToHost {
        to: u64,
        from: u64,
        bytes: u64,
        pinned: bool,
    },
    Copy {
        to: u64,
        from: u64,
        bytes: u64,
    },
    /// `count` values of `width` bytes.
    Set {
        to: u64,
        value: u32,
        width: u64,
        count: u64,
    },
    /// cuMemAllocAsync and cuMemFreeAsync come to effect.
    Open {
        start: u64,
    },
    Close {
        start: u64,
    },
    Graph {
        uid: u64,
        nodes: Arc<Vec<Node>>,
    },
}

pub struct Work {
    pub operation: u64,
    /// What must be over before it.
    pub clock: Clock,
    pub action: Action,
}

/// One execution: what `Word::epoch` counts.
pub struct Record {
    pub stream: u32,
    pub operation: u64,
    /// The launch of a graph and the node in it.
    pub node: Option<(u64, usize)>,
    pub what: String,
}

/// Which executions come before the current one: all but some.
pub struct Before {
    /// Everything up to here does.
    floor: u32,
    /// A bit for each execution after that, set for those that do not.
    unordered: Vec<u64>,
}

impl Before {
    /// `unordered` is ascending.
    pub(crate) fn new(unordered: &[u32]) -> Before {
        let (Some(first), Some(last)) = (unordered.first(), unordered.last()) else {
            return Before { floor: u32::MAX, unordered: Vec::new() };
        };
        let mut bits = vec![0; (last - first) as usize / 64 + 1];
        for epoch in unordered {
            bits[(epoch - first) as usize / 64] |= 1 << ((epoch - first) % 64);
        }
        Before { floor: first - 1, unordered: bits }
    }
}

impl Order for Before {
    #[inline(always)]
    fn floor(&self) -> u32 {
        self.floor
    }

    #[inline(always)]
    fn before(&self, epoch: u32) -> bool {
        if epoch <= self.floor {
            return true;
        }
        let at = epoch - self.floor - 1;
        self.unordered.get(at as usize / 64).is_none_or(|bits| bits >> (at % 64) & 1 == 0)
    }
}

/// Where an action runs, and in what order to others.
struct Turn<'a> {
    number: u32,
    operation: u64,
    clock: &'a Clock,
    context: u64,
    /// In a graph: its launch, the node, and the nodes before that.
    node: Option<(u64, usize, &'a [bool])>,
}

impl Action {
    pub fn describe(&self) -> String {
        match self {
            Action::Kernel(kernel) => {
                format!("kernel `{}`", kernel.image.entries[kernel.entry].name)
            }
            Action::FromHost { to, bytes } => {
                format!("copy of {} bytes from the host to {to:#x}", bytes.len())
            }
            Action::FromPinned { to, bytes, .. } => {
                format!("copy of {bytes} bytes from the host to {to:#x}")
            }
            Action::ToHost { from, bytes, .. } => {
                format!("copy of {bytes} bytes from {from:#x} to the host")
            }
            Action::Copy { to, from, bytes } => {
                format!("copy of {bytes} bytes from {from:#x} to {to:#x}")
            }
            Action::Set { to, width, count, .. } => format!("set of {} bytes at {to:#x}", width * count),
            Action::Open { start } => format!("cuMemAllocAsync of {start:#x}"),
            Action::Close { start } => format!("cuMemFreeAsync of {start:#x}"),
            Action::Graph { .. } => "graph".to_string(),
        }
    }
}

impl Driver {
    pub fn execute(&mut self, stream: u64, context: u64, work: Work) -> Outcome {
        let number = self.streams[&stream].number;
        let turn = Turn { number, operation: work.operation, clock: &work.clock, context, node: None };
        let Action::Graph { uid, nodes } = &work.action else {
            return self.act(&turn, &work.action);
        };
        // Nodes in a shuffled order that keeps what comes before what.
        let mut before: Vec<Vec<bool>> = Vec::with_capacity(nodes.len());
        for node in nodes.iter() {
            let mut mine = vec![false; nodes.len()];
            for &earlier in &node.after {
                mine[earlier] = true;
                mine.iter_mut().zip(&before[earlier]).for_each(|(mine, theirs)| *mine |= theirs);
            }
            before.push(mine);
        }
        let mut left: Vec<usize> = (0..nodes.len()).collect();
        while !left.is_empty() {
            let ready: Vec<usize> =
                (0..left.len()).filter(|&at| !left.iter().any(|&other| before[left[at]][other])).collect();
            let node = left.remove(ready[(random(&mut self.random) % ready.len() as u64) as usize]);
            self.act(&Turn { node: Some((*uid, node, &before[node])), ..turn }, &nodes[node].action)?;
        }
        Ok(())
    }

    fn order(&mut self, turn: &Turn) -> Before {
        let mut unordered = Vec::new();
        // Neighbours are often of one stream.
        let mut last = (0, 0);
        for (&epoch, record) in &self.records {
            let before = match (record.node, turn.node) {
                (Some((theirs, node)), Some((mine, _, before))) if theirs == mine => before[node],
                _ if record.stream == turn.number => true,
                _ => {
                    if last.0 != record.stream {
                        last = (record.stream, turn.clock.get(record.stream));
                    }
                    last.1 >= record.operation
                }
            };
            if !before {
                unordered.push(epoch);
            }
        }
        Before::new(&unordered)
    }

    pub(crate) fn record(&mut self, record: Record) -> u32 {
        self.epochs += 1;
        self.records.insert(self.epochs, record);
        self.epochs
    }

    fn act(&mut self, turn: &Turn, action: &Action) -> Outcome {
        let before = self.order(turn);
        let record = Record {
            stream: turn.number,
            operation: turn.operation,
            node: turn.node.map(|(uid, node, _)| (uid, node)),
            what: action.describe(),
        };
        if self.settings.trace != 0 {
            let more = match action {
                Action::Kernel(kernel) => {
                    let words: Vec<String> = kernel.params.chunks(8).map(trace_word).collect();
                    format!(" grid {:?}, block {:?}: {}", kernel.grid, kernel.block, words.join(" "))
                }
                _ => String::new(),
            };
            eprintln!("stream {}, operation {}: {}{more}", record.stream, record.operation, record.what);
        }
        let epoch = self.record(record);
        let at = At { epoch, before: &before, context: turn.context, what: action };
        match action {
            Action::Kernel(kernel) => self.run_kernel(kernel, &at),
            Action::FromHost { to, bytes } => self.write_from(*to, bytes.as_ptr(), bytes.len() as u64, &at),
            Action::FromPinned { to, from, bytes } => self.write_from(*to, *from as *const u8, *bytes, &at),
            Action::ToHost { to, from, bytes, .. } => {
                self.check(*from, *bytes, Kind::Read, true, &at)?;
                let source = self.arena.bytes_of(*from, *bytes);
                // SAFETY: the caller of the copy promised that many bytes at `to`.
                unsafe { std::ptr::copy_nonoverlapping(source.as_ptr(), *to as *mut u8, source.len()) };
                Ok(())
            }
            Action::Copy { to, from, bytes } => self.copy(*to, *from, *bytes, &at),
            Action::Set { to, value, width, count } => {
                self.check(*to, width * count, Kind::Write, false, &at)?;
                let pattern = value.to_le_bytes();
                let target = self.arena.bytes_of_mut(*to, width * count);
                target.chunks_mut(*width as usize).for_each(|chunk| chunk.copy_from_slice(&pattern[..*width as usize]));
                self.mark_written(*to, width * count, turn.context);
                Ok(())
            }
            Action::Open { start } => {
                let owner = self.owner(turn.context);
                self.arena.open(*start, owner);
                let bytes = self.arena.get(*start).map_or(0, |allocation| allocation.size);
                self.note(*start, bytes, Kind::Write, &at)
            }
            Action::Close { start } => {
                let bytes = self.arena.get(*start).map_or(0, |allocation| allocation.size);
                self.note(*start, bytes, Kind::Write, &at)?;
                self.arena.close(*start);
                Ok(())
            }
            Action::Graph { .. } => Ok(()),
        }
    }

    fn run_kernel(&mut self, kernel: &Kernel, at: &At) -> Outcome {
        let code = &kernel.image.entries[kernel.entry];
        if !self.modules.contains_key(&kernel.module) {
            self.fault(&format!("kernel `{}` runs after its module was unloaded", code.name));
            return Err(INVALID_HANDLE);
        }
        let launch = Launch {
            code,
            grid: kernel.grid,
            block: kernel.block,
            params: &kernel.params,
            dynamic_shared: kernel.dynamic_shared,
            seed: random(&mut self.random),
            step_limit: self.settings.steps,
        };
        let owner = self.owner(at.context);
        let arena = &mut self.arena;
        let memory = Memory {
            base: arena.base,
            span: arena.span,
            data: arena.data,
            states: arena.states,
            owner,
            shadow: &mut arena.shadow,
            epoch: at.epoch,
            order: at.before,
        };
        let outcome = block::run(&launch, memory);
        self.report.launches += 1;
        self.report.instructions += outcome.instructions;
        match outcome.failure {
            None => Ok(()),
            Some(failure) => Err(self.kernel_fault(kernel, &failure, at.epoch)),
        }
    }
}

fn trace_word(bytes: &[u8]) -> String {
    let mut word = [0; 8];
    word[..bytes.len()].copy_from_slice(bytes);
    format!("{:x}", u64::from_le_bytes(word))
}

/// The execution that checks are made for.
pub(crate) struct At<'a> {
    pub epoch: u32,
    pub before: &'a Before,
    pub context: u64,
    pub what: &'a Action,
}
