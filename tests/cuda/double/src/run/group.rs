//! A group of threads in step: each instruction runs for all of them before the next one does, which is what makes this fast.
//!
//! Where threads part ways, the group falls into fragments; the one that is furthest behind goes on, until it meets another. Which
//! thread of a group comes first at a memory access depends on the seed.

use super::arithmetic;
use super::reach::{
    Lane, Local, Memory, Place, Pointer, Shared, Trouble, atomic, narrow_address, pack, trouble, unpack,
};
use super::shadow::{Kind, Mark, Order};
use crate::ptx::instruction::{Access, Code, Inst, Op};
use crate::ptx::lower::{LOCAL_WINDOW, SHARED_WINDOW, WINDOW};
use std::ptr::NonNull;

/// Threads of a group.
pub const LANES: usize = 32;

/// What most loads and stores move, as their `sub`.
const FLOAT: u8 = Access::new(4, 1, false, false).in_registers(false, true).0;
const FOUR_FLOATS: u8 = Access::new(4, 4, false, false).in_registers(false, true).0;
const HALF: u8 = Access::new(2, 1, false, false).in_registers(false, true).0;
const SHARED_FLOAT: u8 = Access::new(4, 1, false, false).in_registers(false, false).0;
const FOUR_SHARED_FLOATS: u8 = Access::new(4, 4, false, false).in_registers(false, false).0;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Fragment {
    at: u32,
    lanes: u32,
}

/// Where threads of a group came to rest: at a barrier, or at the end (`None`).
pub type Rest = (Option<u32>, u32);

/// How a fragment's straight way ended.
enum Step {
    /// Met the instruction that other threads are at.
    Met(u32),
    Parted(Fragment, Fragment),
    /// Each lane to where it says.
    Scattered(Box<[u32; LANES]>),
    Barrier(u32),
    End,
    Trouble(usize, Box<Trouble>),
}

/// Thirty-two places of 32 bits, as a vector wants them.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub struct Row(pub [u32; LANES]);

pub struct Machine<'a, O: Order> {
    pub code: &'a Code,
    pub memory: Memory<'a, O>,
    pub params: &'a [u8],
    pub shared: Shared,
    pub local: Local,
    /// The frames of a block's groups, one after another.
    pub frames: Vec<Row>,
    pub steps: u64,
    pub limit: u64,
    /// The instruction that the last fragment stopped at.
    pub at: usize,
    /// The lane that comes first at memory.
    pub first_lane: u32,
    fragments: Vec<Fragment>,
    /// The first thread of the running group in its block and, plus one, in the launch.
    thread: usize,
    number: u32,
}

impl<'a, O: Order> Machine<'a, O> {
    pub fn new(
        code: &'a Code,
        memory: Memory<'a, O>,
        params: &'a [u8],
        shared: Shared,
        local: Local,
        groups: usize,
    ) -> Self {
        Machine {
            code,
            memory,
            params,
            shared,
            local,
            frames: vec![Row([0; LANES]); code.places * groups],
            steps: 0,
            limit: 0,
            at: 0,
            first_lane: 0,
            fragments: Vec::new(),
            thread: 0,
            number: 0,
        }
    }

    /// Runs the `lanes` of a group, whose first thread is `number` − 1 of the launch, from instruction `from` until all of them rest.
    /// Gives where they rest, or the lane that failed.
    pub fn run(
        &mut self,
        group: usize,
        lanes: u32,
        number: u32,
        from: u32,
    ) -> Result<Vec<Rest>, (usize, Box<Trouble>)> {
        (self.thread, self.number) = (group * LANES, number);
        let mut rests: Vec<Rest> = Vec::with_capacity(1);
        let mut moving = lanes;
        self.fragments.clear();
        self.fragments.push(Fragment { at: from, lanes });
        while let Some((fragment, next)) = self.furthest_behind() {
            let step = self.straight(group, fragment, fragment.lanes == moving, next);
            match step {
                Step::Met(at) => self.fragments.push(Fragment { at, ..fragment }),
                Step::Parted(one, other) => self.fragments.extend([one, other]),
                Step::Scattered(to) => {
                    let lanes = (0..LANES).filter(|lane| fragment.lanes >> lane & 1 != 0);
                    self.fragments.extend(lanes.map(|lane| Fragment { at: to[lane], lanes: 1 << lane }));
                }
                Step::Barrier(_) | Step::End => {
                    let at = if let Step::Barrier(at) = step { Some(at) } else { None };
                    moving &= !fragment.lanes;
                    match rests.iter_mut().find(|(other, _)| *other == at) {
                        Some((_, lanes)) => *lanes |= fragment.lanes,
                        None => rests.push((at, fragment.lanes)),
                    }
                }
                Step::Trouble(lane, trouble) => return Err((lane, trouble)),
            }
        }
        Ok(rests)
    }

    /// Takes the fragment with the lowest instruction, all that are there together, and tells where the next one is.
    fn furthest_behind(&mut self) -> Option<(Fragment, u32)> {
        let lowest = self.fragments.iter().map(|fragment| fragment.at).min()?;
        let mut taken = Fragment { at: lowest, lanes: 0 };
        self.fragments.retain(|fragment| {
            let here = fragment.at == lowest;
            taken.lanes |= if here { fragment.lanes } else { 0 };
            !here
        });
        Some((taken, self.fragments.iter().map(|fragment| fragment.at).min().unwrap_or(u32::MAX)))
    }

    fn straight(&mut self, group: usize, fragment: Fragment, alone: bool, until: u32) -> Step {
        #[cfg(target_arch = "x86_64")]
        if std::is_x86_feature_detected!("avx2") && std::is_x86_feature_detected!("fma") {
            // SAFETY: the features are there.
            return unsafe {
                if alone {
                    self.straight_alone(group, fragment, until)
                } else {
                    self.straight_with_others(group, fragment, until)
                }
            };
        }
        // Without those instructions it is slow anyway; one way is enough.
        self.interpret::<false>(group, fragment, until)
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "fma,avx2,bmi2,lzcnt,popcnt")]
    fn straight_alone(&mut self, group: usize, fragment: Fragment, until: u32) -> Step {
        self.interpret::<true>(group, fragment, until)
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "fma,avx2,bmi2,lzcnt,popcnt")]
    fn straight_with_others(&mut self, group: usize, fragment: Fragment, until: u32) -> Step {
        self.interpret::<false>(group, fragment, until)
    }

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

    /// One lane's load, store or atomic.
    #[inline(always)]
    fn access(&mut self, inst: &Inst, lane: Lane, mark: Mark, index: usize) -> Result<(), Box<Trouble>> {
        let thread = self.thread + index;
        let access = Access(inst.sub);
        let kind = match inst.op {
            Op::StoreGlobal | Op::StoreShared | Op::StoreLocal | Op::StoreGeneric => Kind::Write,
            Op::AtomicGlobal | Op::AtomicShared | Op::AtomicGeneric => Kind::Atomic,
            _ if access.strong() => Kind::StrongRead,
            _ => Kind::Read,
        };
        let bytes = if kind != Kind::Atomic {
            access.bytes()
        } else if access.wide_values() {
            8
        } else {
            4
        };
        let base = lane.get(inst.s[1], access.wide_address());
        let wide = base.wrapping_add(inst.imm as u64);
        let narrow = narrow_address(base, inst.imm);
        let at = match inst.op {
            Op::LoadGlobal | Op::StoreGlobal | Op::AtomicGlobal => self.memory.reach(wide, bytes, kind, mark),
            Op::LoadShared | Op::StoreShared | Op::AtomicShared => self.shared.reach(narrow, bytes, kind, mark),
            Op::LoadLocal | Op::StoreLocal => self.local.reach(thread, narrow, bytes, kind),
            Op::LoadParam => self.reach_param(wide, bytes),
            _ => self.reach_generic(thread, wide, bytes, kind, mark),
        }?;
        // SAFETY: `reach` gives a pointer to that many bytes.
        unsafe {
            match kind {
                Kind::Write => pack(at, access, inst, lane),
                Kind::Atomic => {
                    let wide = access.wide_values();
                    let old = if wide {
                        at.cast::<u64>().read_unaligned()
                    } else {
                        u64::from(at.cast::<u32>().read_unaligned())
                    };
                    let new = atomic(old, inst.sub, lane.get(inst.s[2], wide), lane.get(inst.s[3], wide));
                    if wide {
                        at.cast::<u64>().write_unaligned(new);
                    } else {
                        at.cast::<u32>().write_unaligned(new as u32);
                    }
                    lane.set(inst.s[0], wide, old);
                }
                Kind::Read | Kind::StrongRead => unpack(at, access, inst, lane),
            }
        }
        Ok(())
    }

    /// Runs a fragment until it parts, rests, or comes to instruction `until`. `ALONE` when no other threads of the group move: then
    /// what is computed for lanes that are not in the fragment does not matter.
    #[inline(always)]
    fn interpret<const ALONE: bool>(&mut self, group: usize, fragment: Fragment, until: u32) -> Step {
        let code = self.code;
        let active = fragment.lanes;
        let many = u64::from(active.count_ones());
        let limit = self.limit.saturating_sub(self.steps) / many;
        let first_lane = self.first_lane;
        let mut steps = 0u64;
        let mut pc = fragment.at as usize;
        let mut mask = [0u32; LANES];
        if !ALONE {
            for (lane, mask) in mask.iter_mut().enumerate() {
                *mask = active >> lane & 1;
            }
        }
        // SAFETY: `frames` holds `places` rows for each group; lowering gives only places below that, and jumps to instructions
        // that are there; the last instruction is a return.
        unsafe {
            let frame = self.frames.as_mut_ptr().add(group * code.places).cast::<u32>();
            let instructions = code.instructions.as_ptr();
            macro_rules! stop {
                ($step:expr) => {{
                    self.steps += steps * many;
                    self.at = pc - 1;
                    return $step;
                }};
            }
            macro_rules! row {
                ($inst:expr, $k:expr) => {
                    frame.add($inst.s[$k] as usize * LANES)
                };
            }
            macro_rules! each_lane {
                ($lane:ident; $body:expr) => {{
                    let mut left = active.rotate_right(first_lane);
                    while left != 0 {
                        let $lane = ((left.trailing_zeros() + first_lane) & 31) as usize;
                        left &= left - 1;
                        $body
                    }
                }};
            }
            macro_rules! accesses {
                ($inst:expr, $op:expr, $sub:expr) => {{
                    let inst = Inst { op: $op, sub: $sub, ..*$inst };
                    let number = self.number;
                    each_lane!(lane; {
                        let mark = Mark { thread: number + lane as u32, at: pc as u32 - 1 };
                        if let Err(trouble) = self.access(&inst, Lane::new(frame, lane), mark, lane) {
                            stop!(Step::Trouble(lane, trouble));
                        }
                    });
                }};
            }
            macro_rules! jump {
                ($target:expr) => {{
                    pc = $target as usize;
                    if steps > limit {
                        stop!(Step::Trouble(active.trailing_zeros() as usize, trouble(Trouble::TooManySteps)));
                    }
                }};
            }
            macro_rules! jump_by {
                ($inst:expr, $taken:expr) => {{
                    let taken: u32 = $taken;
                    if taken == active {
                        jump!($inst.imm);
                    } else if taken != 0 {
                        let stays = Fragment { at: pc as u32, lanes: active & !taken };
                        stop!(Step::Parted(stays, Fragment { at: $inst.imm as u32, lanes: taken }));
                    }
                }};
            }
            loop {
                if !ALONE && pc as u32 >= until {
                    stop!(Step::Met(pc as u32));
                }
                let inst = &*instructions.add(pc);
                pc += 1;
                steps += 1;
                match inst.op {
                    Op::FmaF32 => {
                        // They come in long runs, which need no look at the table of operations.
                        let mut inst = inst;
                        loop {
                            arithmetic::fma::<ALONE>(inst, frame, &mask);
                            let next = &*instructions.add(pc);
                            if next.op != Op::FmaF32 || (!ALONE && pc as u32 >= until) {
                                break;
                            }
                            inst = next;
                            pc += 1;
                            steps += 1;
                        }
                    }
                    // The common ones by name, so that each is compiled for what it moves.
                    Op::LoadGlobal => match inst.sub {
                        FLOAT => accesses!(inst, Op::LoadGlobal, FLOAT),
                        FOUR_FLOATS => accesses!(inst, Op::LoadGlobal, FOUR_FLOATS),
                        HALF => accesses!(inst, Op::LoadGlobal, HALF),
                        _ => accesses!(inst, Op::LoadGlobal, inst.sub),
                    },
                    Op::LoadShared => match inst.sub {
                        SHARED_FLOAT => accesses!(inst, Op::LoadShared, SHARED_FLOAT),
                        FOUR_SHARED_FLOATS => accesses!(inst, Op::LoadShared, FOUR_SHARED_FLOATS),
                        _ => accesses!(inst, Op::LoadShared, inst.sub),
                    },
                    Op::StoreGlobal => match inst.sub {
                        FLOAT => accesses!(inst, Op::StoreGlobal, FLOAT),
                        _ => accesses!(inst, Op::StoreGlobal, inst.sub),
                    },
                    Op::StoreShared => match inst.sub {
                        SHARED_FLOAT => accesses!(inst, Op::StoreShared, SHARED_FLOAT),
                        FOUR_SHARED_FLOATS => accesses!(inst, Op::StoreShared, FOUR_SHARED_FLOATS),
                        _ => accesses!(inst, Op::StoreShared, inst.sub),
                    },
                    Op::LoadLocal
                    | Op::LoadGeneric
                    | Op::LoadParam
                    | Op::StoreLocal
                    | Op::StoreGeneric
                    | Op::AtomicGlobal
                    | Op::AtomicShared
                    | Op::AtomicGeneric => accesses!(inst, inst.op, inst.sub),
                    Op::LoadParamOnce => {
                        let access = Access(inst.sub);
                        let address = Lane::new(frame, 0).get(inst.s[1], access.wide_address());
                        match self.reach_param(address.wrapping_add(inst.imm as u64), access.bytes()) {
                            Ok(from) => {
                                each_lane!(lane; unpack(from, access, inst, Lane::new(frame, lane)))
                            }
                            Err(trouble) => {
                                stop!(Step::Trouble(active.trailing_zeros() as usize, trouble))
                            }
                        }
                    }
                    Op::Jump => jump!(inst.imm),
                    Op::JumpIf => jump_by!(inst, active & set_lanes(row!(inst, 1))),
                    Op::JumpUnless => jump_by!(inst, active & !set_lanes(row!(inst, 1))),
                    Op::JumpTable => {
                        let mut targets = Box::new([0; LANES]);
                        each_lane!(lane; {
                            match code.tables[inst.imm as usize].get(*row!(inst, 1).add(lane) as usize) {
                                Some(&target) => targets[lane] = target,
                                None => stop!(Step::Trouble(lane, trouble(Trouble::JumpOutsideTable))),
                            }
                        });
                        if steps > limit {
                            stop!(Step::Trouble(active.trailing_zeros() as usize, trouble(Trouble::TooManySteps)));
                        }
                        stop!(Step::Scattered(targets));
                    }
                    Op::CheckWritten => {
                        let unwritten = active & !set_lanes(row!(inst, 1));
                        if unwritten != 0 {
                            let name = code.checked[inst.imm as usize].clone();
                            stop!(Step::Trouble(
                                unwritten.trailing_zeros() as usize,
                                trouble(Trouble::UnwrittenRegister(name))
                            ));
                        }
                    }
                    Op::Barrier => stop!(Step::Barrier(pc as u32 - 1)),
                    Op::Return => stop!(Step::End),
                    Op::Trap => stop!(Step::Trouble(active.trailing_zeros() as usize, trouble(Trouble::Trap))),
                    Op::Fence => {}

                    _ => {
                        if let Some(lane) = arithmetic::compute::<ALONE>(inst, frame, &mask, active) {
                            stop!(Step::Trouble(lane, trouble(Trouble::DivisionByZero)));
                        }
                    }
                }
            }
        }
    }
}

/// The lanes of a row of predicates that are 1.
///
/// # Safety
/// `row` points at the row.
#[inline(always)]
unsafe fn set_lanes(row: *const u32) -> u32 {
    let mut lanes = 0;
    #[cfg(target_arch = "x86_64")]
    for part in 0..LANES / 4 {
        use std::arch::x86_64::{__m128i, _mm_castsi128_ps, _mm_loadu_si128, _mm_movemask_ps, _mm_slli_epi32};
        // SAFETY: four lanes of the row; the instructions are in every processor of this kind.
        let four = unsafe {
            let four = _mm_loadu_si128(row.add(4 * part).cast::<__m128i>());
            _mm_movemask_ps(_mm_castsi128_ps(_mm_slli_epi32::<31>(four)))
        };
        lanes |= (four as u32) << (4 * part);
    }
    #[cfg(not(target_arch = "x86_64"))]
    for lane in 0..LANES {
        // SAFETY: a lane of the row.
        lanes |= unsafe { *row.add(lane) } << lane;
    }
    lanes
}
