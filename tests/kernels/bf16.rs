//! Products in bf16 arithmetic: every instruction set against their definition, bit for bit, and whole calls with them.

use pvera::backend::Weight;
use pvera::backend::cpu::panels::{Element, Panels};
use pvera::backend::cpu::product::{Operand, Product};
use pvera::context::{Context, Kind};
use pvera::linear::{Choice, Noise, Request, Rows};
use pvera::memory::Allocator;
use pvera::model::WeightLayout;
use pvera::simd::{Features, Isa};
use pvera::tensor::Dtype;

use crate::common::cases::{Case, Stored};
use crate::common::host::Host;
use crate::common::layers::{Spec, config, spec};
use crate::common::setup::POLICIES;
use crate::common::{Random, bits, context};
use crate::products::{compute, pack_x};
use crate::sizes;

/// A subnormal becomes a zero of its sign.
fn flushed(value: f32) -> f32 {
    if value.is_subnormal() { 0.0f32.copysign(value) } else { value }
}

/// `x · w + sum`, a zero of its sign where 24 bits, with exponents that went on, leave it below the normal numbers.
fn fused(sum: f32, x: f32, w: f32) -> f32 {
    let (x, w) = (flushed(x), flushed(w));
    const UP: f32 = (1u64 << 48) as f32;
    let rounded = (x * UP).mul_add(w * UP, sum * (UP * UP));
    if rounded.abs() < f32::MIN_POSITIVE * (UP * UP) { 0.0f32.copysign(rounded) } else { x.mul_add(w, sum) }
}

/// The definition: for each pair of k a fused multiply-add of the odd one, then of the even one, from zero in each block of
/// 256; subnormals are zeros wherever they are read or made; an odd depth ends with a pair that has a zero.
fn definition(x: &[f32], w: &[f32]) -> f32 {
    let chain = |(x, w): (&[f32], &[f32])| {
        x.chunks(2).zip(w.chunks(2)).fold(0.0f32, |sum, (x, w)| {
            let odd = |pair: &[f32]| pair.get(1).copied().unwrap_or(0.0);
            fused(fused(sum, odd(x), odd(w)), x[0], w[0])
        })
    };
    x.chunks(256).zip(w.chunks(256)).map(chain).reduce(|earlier, block| flushed(earlier + block)).expect("a block")
}

/// Rows of bf16 around 1, so small that products are subnormal, so large that few more would overflow, and subnormal
/// themselves; zeros of both signs among them.
fn rows_of_every_size(random: &mut Random, rows: usize, cols: usize, first: usize) -> Host {
    let mut values = Vec::with_capacity(rows * cols);
    for row in 0..rows {
        for _ in 0..cols {
            let sign = if random.below(2) == 0 { 1.0 } else { -1.0 };
            let spread = |exponent: i32, random: &mut Random| {
                (exponent as f32 + random.below(8) as f32).exp2() * (1.0 + random.uniform().abs())
            };
            let value = match (random.below(10), (row + first) % 4) {
                (0, _) => 0.0,
                (1, _) => f32::from_bits((random.below(0x7f) as u32 + 1) << 16),
                (_, 0) => random.uniform().abs(),
                (_, 1) => spread(-67, random),
                (_, 2) => spread(50, random),
                _ => f32::from_bits((random.below(0x200) as u32) << 16),
            };
            values.push(sign * value);
        }
    }
    Host::new(Dtype::Bf16, rows, cols, 1, &values)
}

fn wanted(x: &Host, w: &Host) -> Vec<u32> {
    let (w, depth) = (w.values(), w.cols());
    let by_row = |row: &[f32]| w.chunks_exact(depth).map(|w| definition(row, w).to_bits()).collect::<Vec<_>>();
    x.values().chunks_exact(depth).flat_map(by_row).collect()
}

/// Sums that end just above, on and just below the edge where 24 bits round up to the least normal number: x86-64 decides
/// after rounding what is flushed, Arm before.
#[test]
fn sums_at_the_edge_of_the_normal_numbers() {
    const DEPTH: usize = 258;
    let power = |exponent: i32| f32::from_bits(((127 + exponent) as u32) << 23);
    // The last pair: 2⁻¹²⁶ from its odd k, and from its even k this much times ∓2⁻¹⁵¹.
    let taken = [0.5, 127.0 / 128.0, 1.0, 129.0 / 128.0, 1.5, 2.0, 2.0 + 1.0 / 64.0, 3.0, 4.0, 4.0 + 1.0 / 32.0, 64.0];
    let mut x = Vec::new();
    // What the block before leaves: nothing, so much that the difference is subnormal, or normal.
    for before in [0.0, -1.5, 2.0] {
        for taken in taken {
            let mut row = vec![0.0; DEPTH];
            (row[1], row[256], row[257]) = (before * power(-63), taken * power(-75), power(-63));
            x.extend(row);
        }
    }
    // Either sign of the sum, the difference and the sum of both.
    let signs = [(1.0, 1.0), (1.0, -1.0), (-1.0, 1.0), (-1.0, -1.0)];
    let w: Vec<f32> = (0..35)
        .flat_map(|output| {
            let (even, odd) = signs[output % 4];
            let mut row = vec![0.0; DEPTH];
            (row[1], row[256], row[257]) = (power(-63), even * power(-76), odd * power(-63));
            row
        })
        .collect();
    let (x, w) = (Host::new(Dtype::Bf16, x.len() / DEPTH, DEPTH, 1, &x), Host::new(Dtype::Bf16, 35, DEPTH, 1, &w));
    let wanted = wanted(&x, &w);
    for value in [0.0, -0.0, f32::MIN_POSITIVE, -f32::MIN_POSITIVE] {
        assert!(wanted.iter().filter(|bits| **bits == value.to_bits()).count() > 20, "{value:e} is hardly met");
    }
    let (mut room, weight, rows) = (Vec::new(), Weight::output_major(&w.matrix()), x.rows());
    let panels = Panels::new(&Allocator::default(), &weight, true).unwrap();
    let x = pack_x(&x, true, &mut room);
    for isa in Isa::all() {
        let weight = Operand::Packed { panels: &panels, first_output: 0, first_k: 0 };
        let found = compute(&Product { isa, x, weight, square: false }, 0..rows, 0..35);
        let worst = bits(&found).iter().zip(&wanted).position(|(found, wanted)| found != wanted);
        assert_eq!(worst, None, "{isa:?}");
    }
}

#[test]
fn every_instruction_set_has_the_bits_of_the_definition() {
    let (mut random, mut room) = (Random(1), Vec::new());
    let mut subnormals = 0;
    for turn in 0..2 {
        for (number, (rows, depth, outputs)) in sizes(turn).enumerate() {
            let x = rows_of_every_size(&mut random, rows, depth, number);
            let kept = rows_of_every_size(&mut random, outputs, depth, turn);
            let (w, weight) = (kept.values(), Weight::output_major(&kept.matrix()));
            let wanted = wanted(&x, &kept);
            assert!(wanted.iter().all(|bits| f32::from_bits(*bits).is_finite()));
            subnormals += x.values().iter().chain(&w).filter(|value| value.is_subnormal()).count();
            let panels = Panels::new(&Allocator::default(), &weight, true).unwrap();
            assert_eq!(panels.element(), Element::Bf16Pairs);
            // As an owner keeps a weight by inputs.
            let turned: Vec<f32> = (0..depth).flat_map(|k| w.iter().skip(k).step_by(depth).copied()).collect();
            let turned = Host::new(Dtype::Bf16, depth, outputs, 0, &turned);
            let x = pack_x(&x, true, &mut room);
            for isa in Isa::all() {
                let forms = [
                    ("packed", Operand::Packed { panels: &panels, first_output: 0, first_k: 0 }),
                    ("by outputs", Operand::Lying(weight)),
                    ("by inputs", Operand::Lying(Weight::output_major(&turned.matrix()).transposed())),
                ];
                for (form, weight) in forms {
                    let found = compute(&Product { isa, x, weight, square: false }, 0..rows, 0..outputs);
                    let worst = bits(&found).iter().zip(&wanted).position(|(found, wanted)| found != wanted);
                    assert_eq!(worst, None, "{isa:?}, {form}, {rows}·{depth}·{outputs}");
                }
            }
        }
    }
    assert!(subnormals > 1000);
}

#[test]
fn whole_steps_with_bf16_products_are_equal_on_every_set_and_close_to_the_oracle() {
    let wide = spec("wide", 301, 75);
    let layers = [
        Spec { weight: Some(Dtype::Bf16), ..wide.clone() },
        Spec { weight: Some(Dtype::Bf16), layout: WeightLayout::InOut, ..spec("turned", 301, 34) },
        // Not bf16: this one's product stays in f32.
        spec("plain", 301, 17),
    ];
    let case = Case { dtype: Dtype::Bf16, ..Case::new(26, &layers, &[(config(9, 1), Stored::Bf16)]) };
    let noise = Noise { seed: 3, ..Noise::default() };
    let request = Request { rows: Rows { choice: Choice::Sum(&[(0, 1.0)]), ..Rows::default() }, noise, training: true };
    let mut first = None;
    for packed in [false, true] {
        let setup = Case { packed, ..case.clone() }.setup(5);
        let oracle = setup.outcome(&context(Kind::Reference, 0), &request, |_| {});
        let plain = setup.outcome(&context(Kind::Cpu, 0), &request, |_| {});
        for policy in POLICIES {
            for mask in [Features(0), Features::AVX512_BF16, Features::AVX512, Features(u32::MAX)] {
                let context = Context::new(Kind::Cpu, 1, None, Allocator::default()).unwrap();
                let context = context.without(mask).with_bf16_products();
                let found = setup.outcome(&context, &request, |step| step.policy = policy);
                let what = format!("{policy:?}, {mask:?} off, packed {packed}");
                // x and the weight are bf16 already: what is lost is the order of the sum.
                found.assert_close(&what, &oracle, 1e-5, 2e-5);
                for layer in 0..2 {
                    assert_ne!(found.y[layer].bits(), plain.y[layer].bits(), "{what}: the same as f32 products");
                }
                assert_eq!(found.y[2].bits(), plain.y[2].bits(), "{what}");
                let found = found.bits();
                assert!(*first.get_or_insert_with(|| found.clone()) == found, "{what}");
            }
        }
    }
}
