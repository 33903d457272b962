//! A group of threads in step: each instruction runs for all of them before the next one does, which is what makes this fast.
//!
//! Where threads part ways, the group falls into fragments; the one that is furthest behind goes on, until it meets another. Which
//! thread of a group comes first at a memory access depends on the seed.

use super::reach::{
    Lane, Local, Memory, Place, Pointer, Shared, Trouble, atomic, narrow_address, pack, trouble,
    unpack,
};
use super::shadow::{Kind, Mark, Order};
use super::value::{self, bits_f32, relation_f32, relation_f64, relation_of};
use crate::ptx::instruction::{Access, Code, Inst, Op};
use crate::ptx::lower::{LOCAL_WINDOW, SHARED_WINDOW, WINDOW};
use std::ptr::NonNull;

/// Threads of a group.
pub const LANES: usize = 32;

/// Lanes that one step of the arithmetic takes: what a vector register holds, or two.
const STEP: usize = 8;

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
                    self.fragments.extend(lanes.map(|lane| Fragment {
                        at: to[lane],
                        lanes: 1 << lane,
                    }));
                }
                Step::Barrier(_) | Step::End => {
                    let at = if let Step::Barrier(at) = step {
                        Some(at)
                    } else {
                        None
                    };
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
        let mut taken = Fragment {
            at: lowest,
            lanes: 0,
        };
        self.fragments.retain(|fragment| {
            let here = fragment.at == lowest;
            taken.lanes |= if here { fragment.lanes } else { 0 };
            !here
        });
        Some((
            taken,
            self.fragments
                .iter()
                .map(|fragment| fragment.at)
                .min()
                .unwrap_or(u32::MAX),
        ))
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
    fn reach_generic(
        &mut self,
        thread: usize,
        address: u64,
        bytes: u32,
        kind: Kind,
        mark: Mark,
    ) -> Pointer {
        if address.wrapping_sub(SHARED_WINDOW) < WINDOW {
            self.shared
                .reach(address - SHARED_WINDOW, bytes, kind, mark)
        } else if address.wrapping_sub(LOCAL_WINDOW) < WINDOW {
            self.local
                .reach(thread, address - LOCAL_WINDOW, bytes, kind)
        } else {
            self.memory.reach(address, bytes, kind, mark)
        }
    }

    fn reach_param(&self, address: u64, bytes: u32) -> Pointer {
        let place = Place::Param;
        if address & u64::from(bytes - 1) != 0 {
            return Err(trouble(Trouble::Misaligned {
                place,
                address,
                bytes,
            }));
        }
        if address.saturating_add(u64::from(bytes)) > self.params.len() as u64 {
            return Err(trouble(Trouble::Outside {
                place,
                address,
                bytes,
                write: false,
            }));
        }
        // SAFETY: the bytes lie inside.
        Ok(
            unsafe {
                NonNull::new_unchecked(self.params.as_ptr().add(address as usize).cast_mut())
            },
        )
    }

    /// One lane's load, store or atomic.
    #[inline(always)]
    fn access(
        &mut self,
        inst: &Inst,
        lane: Lane,
        mark: Mark,
        index: usize,
    ) -> Result<(), Box<Trouble>> {
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
            Op::LoadGlobal | Op::StoreGlobal | Op::AtomicGlobal => {
                self.memory.reach(wide, bytes, kind, mark)
            }
            Op::LoadShared | Op::StoreShared | Op::AtomicShared => {
                self.shared.reach(narrow, bytes, kind, mark)
            }
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
                    let new = atomic(
                        old,
                        inst.sub,
                        lane.get(inst.s[2], wide),
                        lane.get(inst.s[3], wide),
                    );
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
    fn interpret<const ALONE: bool>(
        &mut self,
        group: usize,
        fragment: Fragment,
        until: u32,
    ) -> Step {
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
            let frame = self
                .frames
                .as_mut_ptr()
                .add(group * code.places)
                .cast::<u32>();
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
            // Reads STEP lanes of a field.
            macro_rules! take {
                ($inst:expr, $k:expr, $kind:ty, $at:expr) => {
                    row!($inst, $k)
                        .cast::<$kind>()
                        .add($at)
                        .cast::<[$kind; STEP]>()
                        .read()
                };
            }
            macro_rules! give {
                ($inst:expr, $kind:ty, $at:expr, $values:expr) => {{
                    let mut values: [$kind; STEP] = $values;
                    let to = row!($inst, 0)
                        .cast::<$kind>()
                        .add($at)
                        .cast::<[$kind; STEP]>();
                    if !ALONE {
                        let old = to.read();
                        for lane in 0..STEP {
                            values[lane] = if mask[$at + lane] != 0 {
                                values[lane]
                            } else {
                                old[lane]
                            };
                        }
                    }
                    to.write(values);
                }};
            }
            // result = f(operands), for all lanes; the types are the widths of the fields.
            macro_rules! all {
                ($inst:expr, $d:ty; $a:ident: $ta:ty; $f:expr) => {{
                    let mut at = 0;
                    while at < LANES {
                        let from = take!($inst, 1, $ta, at);
                        let mut to = [0; STEP];
                        for lane in 0..STEP {
                            let $a = from[lane];
                            to[lane] = $f;
                        }
                        give!($inst, $d, at, to);
                        at += STEP;
                    }
                }};
                ($inst:expr, $d:ty; $a:ident: $ta:ty, $b:ident: $tb:ty; $f:expr) => {{
                    let mut at = 0;
                    while at < LANES {
                        let (a, b) = (take!($inst, 1, $ta, at), take!($inst, 2, $tb, at));
                        let mut to = [0; STEP];
                        for lane in 0..STEP {
                            let ($a, $b) = (a[lane], b[lane]);
                            to[lane] = $f;
                        }
                        give!($inst, $d, at, to);
                        at += STEP;
                    }
                }};
                ($inst:expr, $d:ty; $a:ident: $ta:ty, $b:ident: $tb:ty, $c:ident: $tc:ty; $f:expr) => {{
                    let mut at = 0;
                    while at < LANES {
                        let (a, b) = (take!($inst, 1, $ta, at), take!($inst, 2, $tb, at));
                        let c = take!($inst, 3, $tc, at);
                        let mut to = [0; STEP];
                        for lane in 0..STEP {
                            let ($a, $b, $c) = (a[lane], b[lane], c[lane]);
                            to[lane] = $f;
                        }
                        give!($inst, $d, at, to);
                        at += STEP;
                    }
                }};
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
            // Division, which needs a divisor for each lane that divides.
            macro_rules! divide {
                ($inst:expr, $kind:ty, $signed:ty; $a:ident, $b:ident; $f:expr) => {
                    each_lane!(lane; {
                        let $a = *row!($inst, 1).cast::<$kind>().add(lane) as $signed;
                        let $b = *row!($inst, 2).cast::<$kind>().add(lane) as $signed;
                        if $b == 0 {
                            stop!(Step::Trouble(lane, trouble(Trouble::DivisionByZero)));
                        }
                        *row!($inst, 0).cast::<$kind>().add(lane) = $f as $kind;
                    })
                };
            }
            // Sixteen bits are kept in 32.
            macro_rules! divide16 {
                ($inst:expr, $kind:ty; $a:ident, $b:ident; $f:expr) => {
                    each_lane!(lane; {
                        let $a = *row!($inst, 1).add(lane) as $kind;
                        let $b = *row!($inst, 2).add(lane) as $kind;
                        if $b == 0 {
                            stop!(Step::Trouble(lane, trouble(Trouble::DivisionByZero)));
                        }
                        *row!($inst, 0).add(lane) = u32::from($f as u16);
                    })
                };
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
                        stop!(Step::Trouble(
                            active.trailing_zeros() as usize,
                            trouble(Trouble::TooManySteps)
                        ));
                    }
                }};
            }
            macro_rules! jump_by {
                ($inst:expr, $taken:expr) => {{
                    let taken: u32 = $taken;
                    if taken == active {
                        jump!($inst.imm);
                    } else if taken != 0 {
                        let stays = Fragment {
                            at: pc as u32,
                            lanes: active & !taken,
                        };
                        stop!(Step::Parted(
                            stays,
                            Fragment {
                                at: $inst.imm as u32,
                                lanes: taken
                            }
                        ));
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
                            all!(inst, u32; a: u32, b: u32, c: u32; fma(a, b, c));
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
                        match self
                            .reach_param(address.wrapping_add(inst.imm as u64), access.bytes())
                        {
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
                            stop!(Step::Trouble(
                                active.trailing_zeros() as usize,
                                trouble(Trouble::TooManySteps)
                            ));
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
                    Op::Trap => stop!(Step::Trouble(
                        active.trailing_zeros() as usize,
                        trouble(Trouble::Trap)
                    )),
                    Op::Fence => {}

                    Op::Move32 => all!(inst, u32; a: u32; a),
                    Op::Move64 => all!(inst, u64; a: u64; a),
                    Op::SignExtend32 => {
                        all!(inst, u32; a: u32; { let unused = 32 - u32::from(inst.sub); ((a << unused) as i32 >> unused) as u32 })
                    }
                    Op::SignExtend32To64 => {
                        all!(inst, u64; a: u32; { let unused = 32 - u32::from(inst.sub); i64::from((a << unused) as i32 >> unused) as u64 })
                    }
                    Op::SignExtend64To32 => {
                        all!(inst, u32; a: u64; { let unused = 64 - u32::from(inst.sub); ((a << unused) as i64 >> unused) as u32 })
                    }
                    Op::SignExtend64 => {
                        all!(inst, u64; a: u64; { let unused = 64 - u32::from(inst.sub); ((a << unused) as i64 >> unused) as u64 })
                    }
                    Op::ZeroExtend32 => {
                        all!(inst, u32; a: u32; a & (u32::MAX >> (32 - u32::from(inst.sub))))
                    }
                    Op::ZeroExtend32To64 => {
                        all!(inst, u64; a: u32; u64::from(a & (u32::MAX >> (32 - u32::from(inst.sub)))))
                    }
                    Op::ZeroExtend64To32 => {
                        all!(inst, u32; a: u64; a as u32 & (u32::MAX >> (32 - u32::from(inst.sub))))
                    }
                    Op::ZeroExtend64 => {
                        all!(inst, u64; a: u64; a & (u64::MAX >> (64 - u32::from(inst.sub))))
                    }
                    Op::High32 => all!(inst, u32; a: u64; (a >> 32) as u32),
                    Op::Pack16 => all!(inst, u32; a: u32, b: u32; a & 0xffff | b << 16),
                    Op::Pack32 => {
                        all!(inst, u64; a: u32, b: u32; u64::from(a) | u64::from(b) << 32)
                    }
                    Op::Not16 => all!(inst, u32; a: u32; !a & 0xffff),
                    Op::Not32 => all!(inst, u32; a: u32; !a),
                    Op::Not64 => all!(inst, u64; a: u64; !a),
                    Op::NotPredicate => all!(inst, u32; a: u32; a ^ 1),
                    Op::And32 => all!(inst, u32; a: u32, b: u32; a & b),
                    Op::Or32 => all!(inst, u32; a: u32, b: u32; a | b),
                    Op::Xor32 => all!(inst, u32; a: u32, b: u32; a ^ b),
                    Op::And64 => all!(inst, u64; a: u64, b: u64; a & b),
                    Op::Or64 => all!(inst, u64; a: u64, b: u64; a | b),
                    Op::Xor64 => all!(inst, u64; a: u64, b: u64; a ^ b),
                    Op::Select32 => {
                        all!(inst, u32; a: u32, b: u32, c: u32; if c != 0 { a } else { b })
                    }
                    Op::Select64 => {
                        all!(inst, u64; a: u64, b: u64, c: u32; if c != 0 { a } else { b })
                    }

                    Op::Add16 => all!(inst, u32; a: u32, b: u32; a.wrapping_add(b) & 0xffff),
                    Op::Add32 => all!(inst, u32; a: u32, b: u32; a.wrapping_add(b)),
                    Op::Add64 => all!(inst, u64; a: u64, b: u64; a.wrapping_add(b)),
                    Op::Sub16 => all!(inst, u32; a: u32, b: u32; a.wrapping_sub(b) & 0xffff),
                    Op::Sub32 => all!(inst, u32; a: u32, b: u32; a.wrapping_sub(b)),
                    Op::Sub64 => all!(inst, u64; a: u64, b: u64; a.wrapping_sub(b)),
                    Op::Mul16 => all!(inst, u32; a: u32, b: u32; a.wrapping_mul(b) & 0xffff),
                    Op::Mul32 => all!(inst, u32; a: u32, b: u32; a.wrapping_mul(b)),
                    Op::Mul64 => all!(inst, u64; a: u64, b: u64; a.wrapping_mul(b)),
                    Op::MulHighS32 => all!(inst, u32; a: u32, b: u32; high_s32(a, b)),
                    Op::MulHighU32 => all!(inst, u32; a: u32, b: u32; high_u32(a, b)),
                    Op::MulHighS64 => all!(inst, u64; a: u64, b: u64; high_s64(a, b)),
                    Op::MulHighU64 => all!(inst, u64; a: u64, b: u64; high_u64(a, b)),
                    Op::MulWideS16 => all!(inst, u32; a: u32, b: u32; wide_s16(a, b)),
                    Op::MulWideU16 => {
                        all!(inst, u32; a: u32, b: u32; (a & 0xffff).wrapping_mul(b & 0xffff))
                    }
                    Op::MulWideS32 => all!(inst, u64; a: u32, b: u32; wide_s32(a, b)),
                    Op::MulWideU32 => all!(inst, u64; a: u32, b: u32; u64::from(a) * u64::from(b)),
                    Op::Mad16 => {
                        all!(inst, u32; a: u32, b: u32, c: u32; a.wrapping_mul(b).wrapping_add(c) & 0xffff)
                    }
                    Op::Mad32 => {
                        all!(inst, u32; a: u32, b: u32, c: u32; a.wrapping_mul(b).wrapping_add(c))
                    }
                    Op::Mad64 => {
                        all!(inst, u64; a: u64, b: u64, c: u64; a.wrapping_mul(b).wrapping_add(c))
                    }
                    Op::MadHighS32 => {
                        all!(inst, u32; a: u32, b: u32, c: u32; high_s32(a, b).wrapping_add(c))
                    }
                    Op::MadHighU32 => {
                        all!(inst, u32; a: u32, b: u32, c: u32; high_u32(a, b).wrapping_add(c))
                    }
                    Op::MadHighS64 => {
                        all!(inst, u64; a: u64, b: u64, c: u64; high_s64(a, b).wrapping_add(c))
                    }
                    Op::MadHighU64 => {
                        all!(inst, u64; a: u64, b: u64, c: u64; high_u64(a, b).wrapping_add(c))
                    }
                    Op::MadWideS16 => {
                        all!(inst, u32; a: u32, b: u32, c: u32; wide_s16(a, b).wrapping_add(c))
                    }
                    Op::MadWideU16 => {
                        all!(inst, u32; a: u32, b: u32, c: u32; (a & 0xffff).wrapping_mul(b & 0xffff).wrapping_add(c))
                    }
                    Op::MadWideS32 => {
                        all!(inst, u64; a: u32, b: u32, c: u64; wide_s32(a, b).wrapping_add(c))
                    }
                    Op::MadWideU32 => {
                        all!(inst, u64; a: u32, b: u32, c: u64; (u64::from(a) * u64::from(b)).wrapping_add(c))
                    }
                    Op::DivS32 => divide!(inst, u32, i32; a, b; a.wrapping_div(b)),
                    Op::RemS32 => divide!(inst, u32, i32; a, b; a.wrapping_rem(b)),
                    Op::DivU32 => divide!(inst, u32, u32; a, b; a.wrapping_div(b)),
                    Op::RemU32 => divide!(inst, u32, u32; a, b; a.wrapping_rem(b)),
                    Op::DivS64 => divide!(inst, u64, i64; a, b; a.wrapping_div(b)),
                    Op::RemS64 => divide!(inst, u64, i64; a, b; a.wrapping_rem(b)),
                    Op::DivU64 => divide!(inst, u64, u64; a, b; a.wrapping_div(b)),
                    Op::RemU64 => divide!(inst, u64, u64; a, b; a.wrapping_rem(b)),
                    Op::DivS16 => divide16!(inst, i16; a, b; a.wrapping_div(b)),
                    Op::RemS16 => divide16!(inst, i16; a, b; a.wrapping_rem(b)),
                    Op::DivU16 => divide16!(inst, u16; a, b; a.wrapping_div(b)),
                    Op::RemU16 => divide16!(inst, u16; a, b; a.wrapping_rem(b)),
                    Op::MinS16 => {
                        all!(inst, u32; a: u32, b: u32; u32::from((a as i16).min(b as i16) as u16))
                    }
                    Op::MinU16 => all!(inst, u32; a: u32, b: u32; a.min(b)),
                    Op::MinS32 => all!(inst, u32; a: u32, b: u32; (a as i32).min(b as i32) as u32),
                    Op::MinU32 => all!(inst, u32; a: u32, b: u32; a.min(b)),
                    Op::MinS64 => all!(inst, u64; a: u64, b: u64; (a as i64).min(b as i64) as u64),
                    Op::MinU64 => all!(inst, u64; a: u64, b: u64; a.min(b)),
                    Op::MaxS16 => {
                        all!(inst, u32; a: u32, b: u32; u32::from((a as i16).max(b as i16) as u16))
                    }
                    Op::MaxU16 => all!(inst, u32; a: u32, b: u32; a.max(b)),
                    Op::MaxS32 => all!(inst, u32; a: u32, b: u32; (a as i32).max(b as i32) as u32),
                    Op::MaxU32 => all!(inst, u32; a: u32, b: u32; a.max(b)),
                    Op::MaxS64 => all!(inst, u64; a: u64, b: u64; (a as i64).max(b as i64) as u64),
                    Op::MaxU64 => all!(inst, u64; a: u64, b: u64; a.max(b)),
                    Op::Negate16 => all!(inst, u32; a: u32; a.wrapping_neg() & 0xffff),
                    Op::Negate32 => all!(inst, u32; a: u32; a.wrapping_neg()),
                    Op::Negate64 => all!(inst, u64; a: u64; a.wrapping_neg()),
                    Op::Absolute16 => all!(inst, u32; a: u32; u32::from((a as i16).unsigned_abs())),
                    Op::Absolute32 => all!(inst, u32; a: u32; (a as i32).unsigned_abs()),
                    Op::Absolute64 => all!(inst, u64; a: u64; (a as i64).unsigned_abs()),
                    Op::Shl16 => {
                        all!(inst, u32; a: u32, b: u32; if b > 15 { 0 } else { a << b & 0xffff })
                    }
                    Op::Shl32 => all!(inst, u32; a: u32, b: u32; if b > 31 { 0 } else { a << b }),
                    Op::Shl64 => all!(inst, u64; a: u64, b: u32; if b > 63 { 0 } else { a << b }),
                    Op::ShrU16 => all!(inst, u32; a: u32, b: u32; if b > 15 { 0 } else { a >> b }),
                    Op::ShrU32 => all!(inst, u32; a: u32, b: u32; if b > 31 { 0 } else { a >> b }),
                    Op::ShrU64 => all!(inst, u64; a: u64, b: u32; if b > 63 { 0 } else { a >> b }),
                    Op::ShrS16 => {
                        all!(inst, u32; a: u32, b: u32; u32::from((a as i16 >> b.min(15)) as u16))
                    }
                    Op::ShrS32 => all!(inst, u32; a: u32, b: u32; (a as i32 >> b.min(31)) as u32),
                    Op::ShrS64 => all!(inst, u64; a: u64, b: u32; (a as i64 >> b.min(63)) as u64),
                    Op::FunnelLeftWrap => {
                        all!(inst, u32; a: u32, b: u32, c: u32; ((pair(a, b) << (c & 31)) >> 32) as u32)
                    }
                    Op::FunnelLeftClamp => {
                        all!(inst, u32; a: u32, b: u32, c: u32; if c > 31 { a } else { ((pair(a, b) << c) >> 32) as u32 })
                    }
                    Op::FunnelRightWrap => {
                        all!(inst, u32; a: u32, b: u32, c: u32; (pair(a, b) >> (c & 31)) as u32)
                    }
                    Op::FunnelRightClamp => {
                        all!(inst, u32; a: u32, b: u32, c: u32; (pair(a, b) >> c.min(32)) as u32)
                    }
                    Op::Permute => all!(inst, u32; a: u32, b: u32, c: u32; value::permute(a, b, c)),
                    Op::Logic3 => {
                        all!(inst, u32; a: u32, b: u32, c: u32; value::logic3(a, b, c, inst.imm as u32))
                    }
                    Op::ExtractS32 => {
                        all!(inst, u32; a: u32, b: u32, c: u32; value::extract(u64::from(a), b, c, 32, true) as u32)
                    }
                    Op::ExtractU32 => {
                        all!(inst, u32; a: u32, b: u32, c: u32; value::extract(u64::from(a), b, c, 32, false) as u32)
                    }
                    Op::ExtractS64 => {
                        all!(inst, u64; a: u64, b: u32, c: u32; value::extract(a, b, c, 64, true))
                    }
                    Op::ExtractU64 => {
                        all!(inst, u64; a: u64, b: u32, c: u32; value::extract(a, b, c, 64, false))
                    }
                    Op::Insert32 => each_lane!(lane; {
                        let field = |k: usize| *row!(inst, k).add(lane);
                        let value = value::insert(u64::from(field(1)), u64::from(field(2)), field(3), field(4), 32);
                        *row!(inst, 0).add(lane) = value as u32;
                    }),
                    Op::Insert64 => each_lane!(lane; {
                        let field = |k: usize| *row!(inst, k).cast::<u64>().add(lane);
                        let bits = |k: usize| *row!(inst, k).add(lane);
                        *row!(inst, 0).cast::<u64>().add(lane) = value::insert(field(1), field(2), bits(3), bits(4), 64);
                    }),
                    Op::CountOnes32 => all!(inst, u32; a: u32; a.count_ones()),
                    Op::CountOnes64 => all!(inst, u32; a: u64; a.count_ones()),
                    Op::CountZeros32 => all!(inst, u32; a: u32; a.leading_zeros()),
                    Op::CountZeros64 => all!(inst, u32; a: u64; a.leading_zeros()),
                    Op::Reverse32 => all!(inst, u32; a: u32; a.reverse_bits()),
                    Op::Reverse64 => all!(inst, u64; a: u64; a.reverse_bits()),
                    Op::HighestBit32 => {
                        all!(inst, u32; a: u32; a.checked_ilog2().unwrap_or(u32::MAX))
                    }
                    Op::HighestBit64 => {
                        all!(inst, u32; a: u64; a.checked_ilog2().unwrap_or(u32::MAX))
                    }

                    Op::CompareS16 => {
                        all!(inst, u32; a: u32, b: u32; met(relation_of(a as i16, b as i16), inst))
                    }
                    Op::CompareU16 => {
                        all!(inst, u32; a: u32, b: u32; met(relation_of(a as u16, b as u16), inst))
                    }
                    Op::CompareS32 => {
                        all!(inst, u32; a: u32, b: u32; met(relation_of(a as i32, b as i32), inst))
                    }
                    Op::CompareU32 => all!(inst, u32; a: u32, b: u32; met(relation_of(a, b), inst)),
                    Op::CompareS64 => {
                        all!(inst, u32; a: u64, b: u64; met(relation_of(a as i64, b as i64), inst))
                    }
                    Op::CompareU64 => all!(inst, u32; a: u64, b: u64; met(relation_of(a, b), inst)),
                    Op::CompareF32 => {
                        all!(inst, u32; a: u32, b: u32; met(relation_f32(f32::from_bits(a), f32::from_bits(b)), inst))
                    }
                    Op::CompareF64 => {
                        all!(inst, u32; a: u64, b: u64; met(relation_f64(f64::from_bits(a), f64::from_bits(b)), inst))
                    }

                    Op::AddF32 => {
                        all!(inst, u32; a: u32, b: u32; bits_f32(f32::from_bits(a) + f32::from_bits(b)))
                    }
                    Op::SubF32 => {
                        all!(inst, u32; a: u32, b: u32; bits_f32(f32::from_bits(a) - f32::from_bits(b)))
                    }
                    Op::MulF32 => {
                        all!(inst, u32; a: u32, b: u32; bits_f32(f32::from_bits(a) * f32::from_bits(b)))
                    }
                    Op::DivF32 => {
                        all!(inst, u32; a: u32, b: u32; bits_f32(f32::from_bits(a) / f32::from_bits(b)))
                    }
                    Op::AddF64 => {
                        all!(inst, u64; a: u64, b: u64; (f64::from_bits(a) + f64::from_bits(b)).to_bits())
                    }
                    Op::SubF64 => {
                        all!(inst, u64; a: u64, b: u64; (f64::from_bits(a) - f64::from_bits(b)).to_bits())
                    }
                    Op::MulF64 => {
                        all!(inst, u64; a: u64, b: u64; (f64::from_bits(a) * f64::from_bits(b)).to_bits())
                    }
                    Op::DivF64 => {
                        all!(inst, u64; a: u64, b: u64; (f64::from_bits(a) / f64::from_bits(b)).to_bits())
                    }
                    Op::FmaF64 => {
                        all!(inst, u64; a: u64, b: u64, c: u64; f64::from_bits(a).mul_add(f64::from_bits(b), f64::from_bits(c)).to_bits())
                    }
                    Op::AddF32Zero => {
                        all!(inst, u32; a: u32, b: u32; bits_f32(value::add_to_zero(f32::from_bits(a), f32::from_bits(b))))
                    }
                    Op::SubF32Zero => {
                        all!(inst, u32; a: u32, b: u32; bits_f32(value::add_to_zero(f32::from_bits(a), -f32::from_bits(b))))
                    }
                    Op::MulF32Zero => {
                        all!(inst, u32; a: u32, b: u32; bits_f32(value::mul_to_zero(f32::from_bits(a), f32::from_bits(b))))
                    }
                    Op::FmaF32Zero => {
                        all!(inst, u32; a: u32, b: u32, c: u32; bits_f32(value::fma_to_zero(f32::from_bits(a), f32::from_bits(b), f32::from_bits(c))))
                    }
                    Op::MinF32 => {
                        all!(inst, u32; a: u32, b: u32; value::min_f32(f32::from_bits(a), f32::from_bits(b)))
                    }
                    Op::MaxF32 => {
                        all!(inst, u32; a: u32, b: u32; value::max_f32(f32::from_bits(a), f32::from_bits(b)))
                    }
                    Op::MinF64 => {
                        all!(inst, u64; a: u64, b: u64; value::min_f64(f64::from_bits(a), f64::from_bits(b)))
                    }
                    Op::MaxF64 => {
                        all!(inst, u64; a: u64, b: u64; value::max_f64(f64::from_bits(a), f64::from_bits(b)))
                    }
                    Op::CopySignF32 => {
                        all!(inst, u32; a: u32, b: u32; a & 0x8000_0000 | b & 0x7fff_ffff)
                    }
                    Op::CopySignF64 => {
                        all!(inst, u64; a: u64, b: u64; a & 1 << 63 | b & (u64::MAX >> 1))
                    }
                    Op::NegateF32 => all!(inst, u32; a: u32; a ^ 0x8000_0000),
                    Op::NegateF64 => all!(inst, u64; a: u64; a ^ 1 << 63),
                    Op::AbsoluteF32 => all!(inst, u32; a: u32; a & 0x7fff_ffff),
                    Op::AbsoluteF64 => all!(inst, u64; a: u64; a & (u64::MAX >> 1)),
                    Op::SqrtF32 => all!(inst, u32; a: u32; bits_f32(f32::from_bits(a).sqrt())),
                    Op::SqrtF64 => all!(inst, u64; a: u64; f64::from_bits(a).sqrt().to_bits()),
                    Op::ReciprocalF32 => all!(inst, u32; a: u32; bits_f32(1.0 / f32::from_bits(a))),
                    Op::ReciprocalF64 => {
                        all!(inst, u64; a: u64; (1.0 / f64::from_bits(a)).to_bits())
                    }
                    Op::S32ToF32 => {
                        all!(inst, u32; a: u32; value::s32_to_f32(a as i32, inst.sub).to_bits())
                    }
                    Op::U32ToF32 => {
                        all!(inst, u32; a: u32; value::u32_to_f32(a, inst.sub).to_bits())
                    }
                    Op::S64ToF32 => {
                        all!(inst, u32; a: u64; value::integer_to_f32(i128::from(a as i64), inst.sub).to_bits())
                    }
                    Op::U64ToF32 => {
                        all!(inst, u32; a: u64; value::integer_to_f32(i128::from(a), inst.sub).to_bits())
                    }
                    Op::S32ToF64 => all!(inst, u64; a: u32; f64::from(a as i32).to_bits()),
                    Op::U32ToF64 => all!(inst, u64; a: u32; f64::from(a).to_bits()),
                    Op::S64ToF64 => {
                        all!(inst, u64; a: u64; value::integer_to_f64(i128::from(a as i64), inst.sub).to_bits())
                    }
                    Op::U64ToF64 => {
                        all!(inst, u64; a: u64; value::integer_to_f64(i128::from(a), inst.sub).to_bits())
                    }
                    Op::F32ToS16 => {
                        all!(inst, u32; a: u32; u32::from(value::round_f32(f32::from_bits(a), inst.sub) as i16 as u16))
                    }
                    Op::F32ToU16 => {
                        all!(inst, u32; a: u32; u32::from(value::round_f32(f32::from_bits(a), inst.sub) as u16))
                    }
                    Op::F32ToS32 => {
                        all!(inst, u32; a: u32; value::round_f32(f32::from_bits(a), inst.sub) as i32 as u32)
                    }
                    Op::F32ToU32 => {
                        all!(inst, u32; a: u32; value::round_f32(f32::from_bits(a), inst.sub) as u32)
                    }
                    Op::F32ToS64 => {
                        all!(inst, u64; a: u32; value::round_f32(f32::from_bits(a), inst.sub) as i64 as u64)
                    }
                    Op::F32ToU64 => {
                        all!(inst, u64; a: u32; value::round_f32(f32::from_bits(a), inst.sub) as u64)
                    }
                    Op::F64ToS16 => {
                        all!(inst, u32; a: u64; u32::from(value::round_f64(f64::from_bits(a), inst.sub) as i16 as u16))
                    }
                    Op::F64ToU16 => {
                        all!(inst, u32; a: u64; u32::from(value::round_f64(f64::from_bits(a), inst.sub) as u16))
                    }
                    Op::F64ToS32 => {
                        all!(inst, u32; a: u64; value::round_f64(f64::from_bits(a), inst.sub) as i32 as u32)
                    }
                    Op::F64ToU32 => {
                        all!(inst, u32; a: u64; value::round_f64(f64::from_bits(a), inst.sub) as u32)
                    }
                    Op::F64ToS64 => {
                        all!(inst, u64; a: u64; value::round_f64(f64::from_bits(a), inst.sub) as i64 as u64)
                    }
                    Op::F64ToU64 => {
                        all!(inst, u64; a: u64; value::round_f64(f64::from_bits(a), inst.sub) as u64)
                    }
                    Op::F32ToF64 => all!(inst, u64; a: u32; f64::from(f32::from_bits(a)).to_bits()),
                    Op::F64ToF32 => {
                        all!(inst, u32; a: u64; bits_f32(value::f64_to_f32(f64::from_bits(a), inst.sub)))
                    }
                    Op::F16ToF32 => all!(inst, u32; a: u32; value::half_to_f32(a as u16).to_bits()),
                    Op::F32ToF16 => {
                        all!(inst, u32; a: u32; u32::from(value::f32_to_half(f32::from_bits(a), inst.sub)))
                    }
                    Op::RoundF32 => {
                        all!(inst, u32; a: u32; bits_f32(value::round_f32(f32::from_bits(a), inst.sub)))
                    }
                    Op::RoundF64 => {
                        all!(inst, u64; a: u64; value::round_f64(f64::from_bits(a), inst.sub).to_bits())
                    }
                    Op::SaturateF32 => {
                        all!(inst, u32; a: u32; value::saturate(f32::from_bits(a)).to_bits())
                    }
                }
            }
        }
    }
}

#[inline(always)]
fn fma(a: u32, b: u32, c: u32) -> u32 {
    bits_f32(f32::from_bits(a).mul_add(f32::from_bits(b), f32::from_bits(c)))
}

#[inline(always)]
fn met(relation: u8, inst: &Inst) -> u32 {
    u32::from(relation & inst.sub != 0)
}

#[inline(always)]
fn pair(low: u32, high: u32) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}

#[inline(always)]
fn high_u32(a: u32, b: u32) -> u32 {
    ((u64::from(a) * u64::from(b)) >> 32) as u32
}

#[inline(always)]
fn high_s32(a: u32, b: u32) -> u32 {
    (wide_s32(a, b) >> 32) as u32
}

#[inline(always)]
fn high_u64(a: u64, b: u64) -> u64 {
    ((u128::from(a) * u128::from(b)) >> 64) as u64
}

#[inline(always)]
fn high_s64(a: u64, b: u64) -> u64 {
    ((i128::from(a as i64) * i128::from(b as i64)) >> 64) as u64
}

#[inline(always)]
fn wide_s16(a: u32, b: u32) -> u32 {
    (i32::from(a as i16) * i32::from(b as i16)) as u32
}

#[inline(always)]
fn wide_s32(a: u32, b: u32) -> u64 {
    (i64::from(a as i32) * i64::from(b as i32)) as u64
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
        use std::arch::x86_64::{
            __m128i, _mm_castsi128_ps, _mm_loadu_si128, _mm_movemask_ps, _mm_slli_epi32,
        };
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
