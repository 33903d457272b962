//! Products on this machine, beside the fma peak and the read rates measured in the same run.
//!
//! `cargo bench --bench kernels`

use std::hint::black_box;
use std::time::Instant;

use pvera::backend::Weight;
use pvera::backend::cpu::Flushing;
use pvera::backend::cpu::panels::Panels;
use pvera::backend::cpu::product::{COLUMNS, Operand, Product, ROOM, RowsToPack};
use pvera::backend::cpu::tile::TILE_STRIDE;
use pvera::memory::{Allocator, Buffer};
use pvera::simd::{Features, Isa, Kernel, Set};
use pvera::tensor::{Device, Dtype, Matrix, Parts};

/// Seconds of the fastest of several runs, which together take about a tenth of a second.
fn best(mut work: impl FnMut()) -> f64 {
    let mut fastest = f64::INFINITY;
    let begin = Instant::now();
    while begin.elapsed().as_secs_f64() < 0.15 {
        let start = Instant::now();
        work();
        fastest = fastest.min(start.elapsed().as_secs_f64());
    }
    fastest
}

/// Independent chains of fused multiply-adds in registers.
struct Peak(usize);

impl Kernel for Peak {
    type Output = f32;

    #[inline(always)]
    fn run<S: Set>(self) -> f32 {
        let (a, b) = (S::splat(black_box(1.0)), S::splat(black_box(1e-9)));
        let mut sums = [S::splat(0.0); 12];
        for _ in 0..self.0 {
            for sum in &mut sums {
                *sum = S::mul_add(*sum, a, b);
            }
        }
        let mut out = [0.0; 16];
        let mut total = 0.0;
        for sum in sums {
            // SAFETY: the widest vector has 16 lanes.
            unsafe { S::store(sum, out.as_mut_ptr()) };
            total += out[0];
        }
        total
    }
}

struct Lanes;

impl Kernel for Lanes {
    type Output = usize;

    #[inline(always)]
    fn run<S: Set>(self) -> usize {
        S::LANES
    }
}

fn peak(isa: Isa) -> f64 {
    let rounds = 1_000_000;
    let seconds = best(|| {
        black_box(isa.run(Peak(rounds)));
    });
    (2 * 12 * rounds * isa.run(Lanes)) as f64 / seconds / 1e9
}

/// Independent chains of products of bf16 pairs in registers.
struct PeakOfPairs(usize);

impl Kernel for PeakOfPairs {
    type Output = f32;

    #[inline(always)]
    fn run<S: Set>(self) -> f32 {
        let words = [black_box(0x3f80_3f80_u32); 16];
        // SAFETY: the widest vector has 16 words.
        let w = unsafe { S::load_pairs(words.as_ptr()) };
        let x = black_box(0x0080_0080);
        let mut sums = [S::splat(0.0); 12];
        for _ in 0..self.0 {
            for sum in &mut sums {
                *sum = S::dot_pairs(*sum, x, w);
            }
        }
        let (mut out, mut total) = ([0.0; 16], 0.0);
        for sum in sums {
            // SAFETY: as above.
            unsafe { S::store(sum, out.as_mut_ptr()) };
            total += out[0];
        }
        total
    }
}

fn peak_of_pairs(isa: Isa) -> f64 {
    let _flushing = Flushing::enter();
    let rounds = 1_000_000;
    let seconds = best(|| {
        black_box(isa.run(PeakOfPairs(rounds)));
    });
    (2 * 2 * 12 * rounds * isa.run(Lanes)) as f64 / seconds / 1e9
}

/// What a weight is stored as.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stored {
    F32,
    Bf16,
    F16,
    Int8,
    /// bf16, multiplied in bf16 arithmetic.
    Pairs,
}

impl Stored {
    const ALL: [Stored; 5] = [Stored::F32, Stored::Bf16, Stored::F16, Stored::Int8, Stored::Pairs];

    fn name(self) -> &'static str {
        match self {
            Stored::F32 => "f32",
            Stored::Bf16 => "bf16",
            Stored::F16 => "f16",
            Stored::Int8 => "int8",
            Stored::Pairs => "bf16 products",
        }
    }

    fn dtype(self) -> Dtype {
        match self {
            Stored::F32 | Stored::Int8 => Dtype::F32,
            Stored::Bf16 | Stored::Pairs => Dtype::Bf16,
            Stored::F16 => Dtype::F16,
        }
    }

    /// Numbers near 1, on no grid but that of int8.
    fn bytes(self, count: usize) -> Vec<u8> {
        match self {
            Stored::F32 => (0..count).flat_map(|i| (1.0 + (i as f32).sin()).to_le_bytes()).collect(),
            Stored::Int8 => (0..count).flat_map(|i| ((i % 255) as f32 - 127.0).to_le_bytes()).collect(),
            _ => (0..count).flat_map(|i| (0x3f00_u16 + (i % 251) as u16).to_le_bytes()).collect(),
        }
    }
}

/// Reads a buffer front to back.
struct Read<'a>(&'a [f32]);

impl Kernel for Read<'_> {
    type Output = f32;

    #[inline(always)]
    fn run<S: Set>(self) -> f32 {
        let mut sums = [S::splat(0.0); 4];
        for chunk in self.0.chunks_exact(4 * S::LANES) {
            for (lane, sum) in sums.iter_mut().enumerate() {
                // SAFETY: the chunk holds four vectors.
                *sum = S::add(*sum, unsafe { S::load(chunk.as_ptr().add(lane * S::LANES)) });
            }
        }
        let mut out = [0.0; 16];
        // SAFETY: the widest vector has 16 lanes.
        unsafe { S::store(S::add(S::add(sums[0], sums[1]), S::add(sums[2], sums[3])), out.as_mut_ptr()) };
        out[0]
    }
}

fn read_rate(isa: Isa, bytes: usize) -> f64 {
    let values = Buffer::<f32>::zeroed(&Allocator::default(), bytes / 4).unwrap();
    let seconds = best(|| {
        black_box(isa.run(Read(&values)));
    });
    bytes as f64 / seconds / 1e9
}

fn main() {
    for isa in Isa::all().into_iter().rev().filter(|isa| *isa != Isa::PORTABLE) {
        let pairs = isa.features().has(Features::AVX512_BF16);
        let peaks = (peak(isa), if pairs { peak_of_pairs(isa) } else { 0.0 });
        println!("{isa:?}: peak {:.1} GFLOP/s, of bf16 products {:.1}", peaks.0, peaks.1);
        for (name, bytes) in [("L2", 512 << 10), ("L3", 8 << 20), ("memory", 256 << 20)] {
            println!("  read {name}: {:.1} GB/s", read_rate(isa, bytes));
        }
        let shapes = [
            (1, 4096, 256),
            (1, 256, 4096),
            (1, 4096, 4096),
            (4, 4096, 256),
            (8, 4096, 256),
            (12, 4096, 256),
            (16, 4096, 4096),
            (32, 768, 768),
            (197, 768, 256),
            (1576, 768, 768),
            (512, 4096, 256),
        ];
        for (rows, depth, outputs) in shapes {
            for stored in Stored::ALL.into_iter().filter(|stored| pairs || *stored != Stored::Pairs) {
                let peak = if stored == Stored::Pairs { peaks.1 } else { peaks.0 };
                product(isa, peak, rows, depth, outputs, stored);
            }
        }
    }
}

fn product(isa: Isa, peak: f64, rows: usize, depth: usize, outputs: usize, stored: Stored) {
    let allocator = Allocator::default();
    let (bytes, dtype, pairs) = (stored.bytes(outputs * depth), stored.dtype(), stored == Stored::Pairs);
    let parts = Parts { rows: outputs, cols: depth, row_stride: depth, dtype, device: Device::Host };
    let mut aligned = Buffer::<f32>::zeroed(&allocator, bytes.len() / 4).unwrap();
    bytemuck::cast_slice_mut(&mut aligned).copy_from_slice(&bytes);
    // SAFETY: the buffer holds these elements.
    let weight = Weight::output_major(&unsafe { Matrix::new("w", aligned.as_ptr().cast(), parts) }.unwrap());
    let start = Instant::now();
    let panels = Panels::new(&allocator, &weight, pairs).unwrap();
    let packing = start.elapsed().as_secs_f64();
    let block = 192.min(rows);
    let mut x = Buffer::<f32>::zeroed(&allocator, RowsToPack::floats(block, depth)).unwrap();
    let x = RowsToPack::new(&mut x, block, depth, pairs).packed();
    let mut tile = vec![0.0; block * TILE_STRIDE];
    let mut room = vec![0.0; ROOM];
    let mut run = |operand: Operand<'_>| {
        let product = Product { isa, x, weight: operand, square: false };
        let seconds = best(|| {
            for first in (0..rows).step_by(block) {
                for column in (0..outputs).step_by(COLUMNS) {
                    let count = COLUMNS.min(outputs - column);
                    black_box(product.columns(0..block.min(rows - first), column, count, &mut tile, &mut room));
                }
            }
        });
        (2 * rows * depth * outputs) as f64 / seconds / 1e9
    };
    let packed = run(Operand::Packed { panels: &panels, first_output: 0, first_k: 0 });
    let lying = run(Operand::Lying(weight));
    println!(
        "  {rows:5} × {depth:5} → {outputs:5} {:13}  packed {packed:6.1} ({:3.0} %, {:5.1} GB/s)  lying {lying:6.1} ({:3.0} %)  packing {:.1} ms",
        stored.name(),
        100.0 * packed / peak,
        packed / rows as f64 / 2.0 * panels.bytes() as f64 / (depth * outputs) as f64,
        100.0 * lying / peak,
        packing * 1e3,
    );
}
