//! From virtual registers to few places in a frame, so that a thread's frame stays in the nearest cache; and which reads may
//! come before any write.

use super::instruction::{Op, Shape, Virtual};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Blocks of instructions without jumps in or out, and where each one goes.
struct Flow {
    /// First instruction of each block, and one past the last block.
    starts: Vec<usize>,
    next: Vec<Vec<usize>>,
}

fn flow(code: &[Virtual], tables: &[Vec<u32>]) -> Flow {
    let mut first = vec![false; code.len() + 1];
    first[0] = true;
    first[code.len()] = true;
    for (at, inst) in code.iter().enumerate() {
        match inst.op.shape() {
            Shape::Jump | Shape::JumpBy if inst.op != Op::CheckWritten => {
                first[inst.imm as usize] = true;
                first[at + 1] = true;
            }
            Shape::JumpTable => {
                for &target in &tables[inst.imm as usize] {
                    first[target as usize] = true;
                }
                first[at + 1] = true;
            }
            _ if matches!(inst.op, Op::Return | Op::Trap) => first[at + 1] = true,
            _ => {}
        }
    }
    let starts: Vec<usize> = (0..=code.len()).filter(|&at| first[at]).collect();
    let block_of = |at: usize| starts.partition_point(|&start| start <= at) - 1;
    let mut next = Vec::new();
    for pair in starts.windows(2) {
        let last = &code[pair[1] - 1];
        let mut to = Vec::new();
        match last.op {
            Op::Jump => to.push(block_of(last.imm as usize)),
            Op::JumpIf | Op::JumpUnless => to.extend([block_of(last.imm as usize), block_of(pair[1])]),
            Op::JumpTable => to.extend(tables[last.imm as usize].iter().map(|&target| block_of(target as usize))),
            Op::Return | Op::Trap => {}
            _ => to.push(block_of(pair[1])),
        }
        to.retain(|&block| block < starts.len() - 1);
        next.push(to);
    }
    Flow { starts, next }
}

/// A set of registers, as bits.
#[derive(Clone, PartialEq)]
struct Set(Vec<u64>);

impl Set {
    fn new(count: usize, full: bool) -> Set {
        Set(vec![if full { u64::MAX } else { 0 }; count.div_ceil(64)])
    }
    fn has(&self, index: u32) -> bool {
        self.0[index as usize / 64] >> (index % 64) & 1 != 0
    }
    fn add(&mut self, index: u32) {
        self.0[index as usize / 64] |= 1 << (index % 64);
    }
    fn remove(&mut self, index: u32) {
        self.0[index as usize / 64] &= !(1 << (index % 64));
    }
    fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.0.iter().enumerate().flat_map(|(word, &bits)| {
            (0..64).filter(move |bit| bits >> bit & 1 != 0).map(move |bit| (word * 64 + bit) as u32)
        })
    }
}

/// The instructions with a field that some path reaches before the register is written: (instruction, register). Registers in
/// `pinned` (constants, special registers) are always written.
pub fn maybe_unwritten(code: &[Virtual], tables: &[Vec<u32>], pinned: &[bool]) -> Vec<(usize, u32)> {
    let flow = flow(code, tables);
    let blocks = flow.next.len();
    let mut entry = vec![Set::new(pinned.len(), true); blocks];
    if blocks == 0 {
        return Vec::new();
    }
    entry[0] = Set::new(pinned.len(), false);
    for (index, _) in pinned.iter().enumerate().filter(|(_, pinned)| **pinned) {
        entry[0].add(index as u32);
    }
    let mut work: Vec<usize> = vec![0];
    let mut reached = vec![false; blocks];
    reached[0] = true;
    while let Some(block) = work.pop() {
        let mut written = entry[block].clone();
        for inst in &code[flow.starts[block]..flow.starts[block + 1]] {
            for &field in inst.writes() {
                written.add(inst.s[field]);
            }
        }
        for &to in &flow.next[block] {
            let mut changed = !reached[to];
            reached[to] = true;
            for (mine, theirs) in entry[to].0.iter_mut().zip(&written.0) {
                changed |= *mine & theirs != *mine;
                *mine &= theirs;
            }
            if changed {
                work.push(to);
            }
        }
    }
    let mut found = Vec::new();
    for block in (0..blocks).filter(|&block| reached[block]) {
        let mut written = entry[block].clone();
        for (at, inst) in code.iter().enumerate().take(flow.starts[block + 1]).skip(flow.starts[block]) {
            for &field in inst.reads() {
                if !written.has(inst.s[field]) {
                    found.push((at, inst.s[field]));
                }
            }
            for &field in inst.writes() {
                written.add(inst.s[field]);
            }
        }
    }
    found
}

/// A place for each register, and how many places that takes. Registers that live at the same time get different places; `pinned`
/// ones live always. `wide` ones take two.
pub fn places(code: &[Virtual], tables: &[Vec<u32>], pinned: &[bool], wide: &[bool]) -> (Vec<u32>, usize) {
    let flow = flow(code, tables);
    let blocks = flow.next.len();
    let count = pinned.len();
    let mut live_in = vec![Set::new(count, false); blocks];
    let mut live_out = vec![Set::new(count, false); blocks];
    let mut changed = true;
    while changed {
        changed = false;
        for block in (0..blocks).rev() {
            let mut live = Set::new(count, false);
            for &to in &flow.next[block] {
                for (mine, theirs) in live.0.iter_mut().zip(&live_in[to].0) {
                    *mine |= theirs;
                }
            }
            if live != live_out[block] {
                live_out[block] = live.clone();
            }
            for inst in code[flow.starts[block]..flow.starts[block + 1]].iter().rev() {
                for &field in inst.writes() {
                    live.remove(inst.s[field]);
                }
                for &field in inst.reads() {
                    live.add(inst.s[field]);
                }
            }
            if live != live_in[block] {
                live_in[block] = live;
                changed = true;
            }
        }
    }
    // The stretch of instructions over which each register is needed, in the order of the text.
    let mut stretch = vec![(usize::MAX, 0); count];
    let mut cover = |register: u32, from: usize, to: usize| {
        let stretch: &mut (usize, usize) = &mut stretch[register as usize];
        *stretch = (stretch.0.min(from), stretch.1.max(to));
    };
    for block in 0..blocks {
        let (start, end) = (flow.starts[block], flow.starts[block + 1]);
        live_in[block].iter().for_each(|register| cover(register, start, start));
        live_out[block].iter().for_each(|register| cover(register, end - 1, end));
        for (at, inst) in code.iter().enumerate().take(end).skip(start) {
            inst.reads().iter().for_each(|&field| cover(inst.s[field], at, at));
            // A vector load writes all its results at once, after reading its address: they must differ from it and each other.
            inst.writes().iter().for_each(|&field| cover(inst.s[field], at, at + 1));
        }
    }
    let mut place = vec![0; count];
    let mut used = 0;
    for (class, size) in [(true, 2), (false, 1)] {
        let mine = |register: &usize| wide[*register] == class;
        let needed = |register: &usize| !pinned[*register] && stretch[*register].0 != usize::MAX;
        let mut order: Vec<usize> = (0..count).filter(mine).filter(needed).collect();
        order.sort_by_key(|&register| (stretch[register].0, register));
        let mut free: Vec<u32> = Vec::new();
        let mut active: BinaryHeap<Reverse<(usize, u32)>> = BinaryHeap::new();
        for register in order {
            let (from, to) = stretch[register];
            // A register that ends where another begins keeps its place until after that instruction.
            while let Some(&Reverse((end, at))) = active.peek().filter(|known| known.0.0 < from) {
                debug_assert!(end < from);
                active.pop();
                free.push(at);
            }
            let at = free.pop().unwrap_or(used);
            if at == used {
                used += size;
            }
            place[register] = at;
            active.push(Reverse((to, at)));
        }
        for register in (0..count).filter(mine).filter(|&register| pinned[register]) {
            place[register] = used;
            used += size;
        }
    }
    (place, used as usize)
}
