//! A launch: blocks in shuffled order, in each one groups of threads in shuffled order from barrier to barrier.

use super::group::{LANES, Machine};
use super::reach::{Local, Memory, Shared, Trouble};
use super::shadow::{Order, Shadow, Word};

use crate::ptx::instruction::{Code, Special};

pub struct Launch<'a> {
    pub code: &'a Code,
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub params: &'a [u8],
    pub dynamic_shared: u32,
    pub seed: u64,
    pub step_limit: u64,
}

/// What a launch came to: how many instructions ran, and where it failed.
pub struct Outcome {
    pub instructions: u64,
    pub failure: Option<Failure>,
}

pub struct Failure {
    pub trouble: Trouble,
    /// Of `Code::instructions`.
    pub at: usize,
    pub thread: [u32; 3],
    pub block: [u32; 3],
}

/// The numbers 0 … count − 1 in a scattered order: an affine map with a stride that shares no factor with the count.
pub struct Scatter {
    count: u64,
    start: u64,
    stride: u64,
}

impl Scatter {
    pub fn new(count: u64, random: u64) -> Scatter {
        let gcd = |mut a: u64, mut b: u64| {
            while b != 0 {
                (a, b) = (b, a % b);
            }
            a
        };
        let mut stride = ((random >> 32) % count.max(1)) | 1;
        while gcd(stride, count) != 1 {
            stride += 2;
        }
        Scatter { count, start: u64::from(random as u32) % count.max(1), stride: stride % count.max(1) }
    }

    pub fn get(&self, index: u64) -> u64 {
        ((u128::from(index) * u128::from(self.stride) + u128::from(self.start)) % u128::from(self.count)) as u64
    }
}

/// splitmix64, the generator behind every shuffled order.
pub fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut value = *state;
    value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ value >> 31
}

pub fn coordinates(index: u64, size: [u32; 3]) -> [u32; 3] {
    let (x, y) = (u64::from(size[0]), u64::from(size[1]));
    [(index % x) as u32, (index / x % y) as u32, (index / x / y) as u32]
}

pub fn run<O: Order>(launch: &Launch, memory: Memory<O>) -> Outcome {
    let code = launch.code;
    let threads = launch.block.iter().product::<u32>() as usize;
    let shared_bytes = code.dynamic_shared.map_or(code.shared_bytes, |at| at + launch.dynamic_shared) as usize;
    let mut words = vec![Word::default(); shared_bytes.div_ceil(4)];
    // SAFETY: the words stay in the machine, beside the shadow, and are not resized.
    let shadow = unsafe { Shadow::new(words.as_mut_ptr(), words.len()) };
    let local = code.local_bytes.next_multiple_of(16) as usize;
    let shared = Shared { data: vec![0; shared_bytes], written: vec![0; shared_bytes], words, shadow, interval: 0 };
    let local = Local { bytes: local, data: vec![0; local * threads], written: vec![0; local * threads] };
    let mut machine = Machine::new(code, memory, launch.params, shared, local, threads.div_ceil(LANES));
    machine.limit = launch.step_limit;
    fill_frames(&mut machine, launch, threads);
    let blocks = launch.grid.iter().map(|&size| u64::from(size)).product::<u64>();
    let mut state = launch.seed;
    let order = Scatter::new(blocks, random(&mut state));
    for index in 0..blocks {
        let block = order.get(index);
        if let Err(failure) = run_block(&mut machine, launch, block, threads, &mut state) {
            return Outcome { instructions: machine.steps, failure: Some(failure) };
        }
    }
    Outcome { instructions: machine.steps, failure: None }
}

fn fill_frames<O: Order>(machine: &mut Machine<O>, launch: &Launch, threads: usize) {
    for (group, frame) in machine.frames.chunks_mut(launch.code.places.max(1)).enumerate() {
        for &(place, value, wide) in &launch.code.constants {
            let place = usize::from(place);
            if wide {
                // Two rows hold 64-bit values of all lanes, one after another.
                for lane in 0..LANES {
                    let (row, at) = (place + lane / (LANES / 2), lane % (LANES / 2) * 2);
                    frame[row].0[at..at + 2].copy_from_slice(&[value as u32, (value >> 32) as u32]);
                }
            } else {
                frame[place].0.fill(value as u32);
            }
        }
        for lane in 0..LANES.min(threads - group * LANES) {
            let thread = group * LANES + lane;
            let at = coordinates(thread as u64, launch.block);
            for &(place, special) in &launch.code.specials {
                frame[usize::from(place)].0[lane] = match special {
                    Special::Thread(axis) => at[usize::from(axis)],
                    Special::Threads(axis) => launch.block[usize::from(axis)],
                    Special::Blocks(axis) => launch.grid[usize::from(axis)],
                    Special::Lane => lane as u32,
                    Special::WarpSize => 32,
                    Special::Block(_) => 0,
                };
            }
        }
    }
}

fn run_block<O: Order>(
    machine: &mut Machine<O>,
    launch: &Launch,
    block: u64,
    threads: usize,
    state: &mut u64,
) -> Result<(), Failure> {
    let code = launch.code;
    let at_block = coordinates(block, launch.grid);
    let groups = threads.div_ceil(LANES);
    for &(place, special) in &code.specials {
        if let Special::Block(axis) = special {
            for group in 0..groups {
                machine.frames[group * code.places + usize::from(place)].0.fill(at_block[usize::from(axis)]);
            }
        }
    }
    machine.shared.written.fill(0);
    machine.local.written.fill(0);
    let failure = |trouble: Trouble, at: usize, thread: usize| Failure {
        trouble,
        at,
        thread: coordinates(thread as u64, launch.block),
        block: at_block,
    };
    // Where the block's threads go on: all at the same barrier, or from the start.
    let mut from = 0;
    loop {
        machine.shared.interval += 1;
        machine.shared.shadow.forget_split();
        let order = Scatter::new(groups as u64, random(state));
        machine.first_lane = random(state) as u32 % LANES as u32;
        let mut first: Option<(usize, Option<u32>)> = None;
        for index in 0..groups as u64 {
            let group = order.get(index) as usize;
            let lanes = u32::MAX >> (LANES - LANES.min(threads - group * LANES));
            let number = (block * threads as u64 + (group * LANES) as u64 + 1) as u32;
            let rests = machine
                .run(group, lanes, number, from)
                .map_err(|(lane, trouble)| failure(*trouble, machine.at, group * LANES + lane))?;
            for (rest, lanes) in rests {
                let thread = group * LANES + lanes.trailing_zeros() as usize;
                match first {
                    None => first = Some((thread, rest)),
                    Some((_, theirs)) if theirs == rest => {}
                    Some((other, theirs)) => {
                        let text = divergence(launch, (thread, rest), (other, theirs));
                        return Err(failure(Trouble::Divergence(text), machine.at, thread));
                    }
                }
            }
        }
        match first {
            Some((_, Some(barrier))) => from = barrier + 1,
            _ => return Ok(()),
        }
    }
}

fn divergence(launch: &Launch, one: (usize, Option<u32>), other: (usize, Option<u32>)) -> String {
    let place = |rest: Option<u32>| match rest {
        Some(at) => format!("waits at the barrier of PTX line {}", launch.code.lines[at as usize]),
        None => "has left the kernel".to_string(),
    };
    format!(
        "thread {:?} of the block {}, but thread {:?} {}",
        coordinates(one.0 as u64, launch.block),
        place(one.1),
        coordinates(other.0 as u64, launch.block),
        place(other.1)
    )
}
