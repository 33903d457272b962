//! `x wᵀ` against its rule, bit for bit: blocks of 256 values of k, in each one chain of fused multiply-adds from zero,
//! block sums added ascending.

use std::ops::Range;

use pvera::backend::Weight;
use pvera::backend::cpu::panels::{Element, Panels};
use pvera::backend::cpu::product::{COLUMNS, Operand, PackedRows, Product, ROOM, RowsToPack};
use pvera::backend::cpu::tile::TILE_STRIDE;
use pvera::memory::Allocator;
use pvera::simd::Isa;
use pvera::tensor::Dtype;

use crate::common::cases::Stored;
use crate::common::host::Host;
use crate::common::{Random, bits};
use crate::sizes;

/// The rule.
fn rule(x: &[f32], w: &[f32]) -> f32 {
    let chain = |(x, w): (&[f32], &[f32])| x.iter().zip(w).fold(0.0f32, |sum, (x, w)| x.mul_add(*w, sum));
    x.chunks(256).zip(w.chunks(256)).map(chain).reduce(|earlier, block| earlier + block).expect("a block")
}

pub fn pack_x<'a>(x: &Host, pairs: bool, room: &'a mut Vec<f32>) -> PackedRows<'a> {
    room.resize(RowsToPack::floats(x.rows(), x.cols()), f32::NAN);
    let mut packed = RowsToPack::new(room, x.rows(), x.cols(), pairs);
    for (row, values) in x.values().chunks_exact(x.cols()).enumerate() {
        if pairs { packed.fill_pairs(row, &x.matrix(), row) } else { packed.copy(row, values) }
    }
    packed.packed()
}

/// The product's own elements, row by row, a stretch of columns at a time.
pub fn compute(product: &Product<'_>, rows: Range<usize>, outputs: Range<usize>) -> Vec<f32> {
    let (mut tile, mut room) = (vec![f32::NAN; rows.len() * TILE_STRIDE], vec![f32::NAN; ROOM]);
    let mut out = vec![0.0; rows.len() * outputs.len()];
    for first in outputs.clone().step_by(COLUMNS) {
        let count = COLUMNS.min(outputs.end - first);
        let at = product.columns(rows.clone(), first, count, &mut tile, &mut room);
        for (tile, out) in tile.chunks_exact(TILE_STRIDE).zip(out.chunks_exact_mut(outputs.len())) {
            out[first - outputs.start..][..count].copy_from_slice(&tile[at..at + count]);
        }
    }
    out
}

/// A weight of one element type, which its owner keeps by outputs or by inputs.
struct Kept {
    host: Host,
    by_output: bool,
}

impl Kept {
    fn new(random: &mut Random, element: Element, by_output: bool, outputs: usize, depth: usize) -> Self {
        Self::padded(random, element, by_output, outputs, depth, 3)
    }

    fn padded(
        random: &mut Random,
        element: Element,
        by_output: bool,
        outputs: usize,
        depth: usize,
        padding: usize,
    ) -> Self {
        let (stored, dtype) = match element {
            Element::F32 => (Stored::F32, Dtype::F32),
            Element::Bf16 | Element::Bf16Pairs => (Stored::Bf16, Dtype::Bf16),
            Element::F16 => (Stored::F16, Dtype::F16),
            Element::Int8 => (Stored::Int8, Dtype::F32),
        };
        let (rows, cols) = if by_output { (outputs, depth) } else { (depth, outputs) };
        Self { host: Host::new(dtype, rows, cols, padding, &stored.values(random, rows, cols, 0.7)), by_output }
    }

    fn weight(&self) -> Weight<'_> {
        let weight = Weight::output_major(&self.host.matrix());
        if self.by_output { weight } else { weight.transposed() }
    }

    fn panels(&self, element: Element) -> Panels {
        let weight = self.weight();
        let panels = Panels::new(&Allocator::default(), &weight, element == Element::Bf16Pairs).unwrap();
        // A few numbers may be integers times something by chance.
        assert!(weight.outputs() * weight.inputs() < 32 || panels.element() == element);
        assert_eq!(panels.bytes(), Panels::bytes_for(&weight, element == Element::Bf16Pairs).unwrap());
        panels
    }
}

/// All elements by the rule; w² where it is wanted is rounded before it is used.
fn wanted(x: &Host, weight: &Weight<'_>, square: bool) -> Vec<u32> {
    let (values, depth) = (x.values(), x.cols());
    let mut line = vec![0.0; depth];
    let mut out = vec![0; x.rows() * weight.outputs()];
    for output in 0..weight.outputs() {
        for (k, value) in line.iter_mut().enumerate() {
            let w = weight.at(output, k);
            *value = if square { w * w } else { w };
        }
        for row in 0..x.rows() {
            out[row * weight.outputs() + output] = rule(&values[row * depth..][..depth], &line).to_bits();
        }
    }
    out
}

const ELEMENTS: [Element; 5] = [Element::F32, Element::Bf16, Element::F16, Element::Int8, Element::Bf16Pairs];

#[test]
fn products_follow_the_rule_on_every_instruction_set() {
    let (mut random, mut room) = (Random(1), Vec::new());
    for (turn, element) in ELEMENTS.into_iter().enumerate() {
        for (number, (rows, depth, outputs)) in sizes(turn).chain(sizes(turn + 1)).enumerate() {
            let x = Host::f32(rows, depth, &random.values(rows * depth));
            let kept = Kept::new(&mut random, element, number.is_multiple_of(2), outputs, depth);
            let (weight, panels) = (kept.weight(), kept.panels(element));
            let packed = Operand::Packed { panels: &panels, first_output: 0, first_k: 0 };
            // Pairs are for base weights, which no kernel squares.
            for square in [false, true].into_iter().take(if element == Element::Bf16Pairs { 1 } else { 2 }) {
                let wanted = wanted(&x, &weight, square);
                let x = pack_x(&x, false, &mut room);
                for isa in Isa::all() {
                    for (form, weight) in [("packed", packed), ("lying", Operand::Lying(weight))] {
                        let found = compute(&Product { isa, x, weight, square }, 0..rows, 0..outputs);
                        let what = format!("{isa:?}, {element:?} {form}, {rows}·{depth}·{outputs}, square {square}");
                        assert!(bits(&found) == wanted, "{what}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_part_of_a_product_has_the_bits_of_the_whole() {
    let (mut random, mut room) = (Random(2), Vec::new());
    const ROWS: usize = 30;
    for element in ELEMENTS {
        let kept = Kept::new(&mut random, element, true, 160, 400);
        let panels = kept.panels(element);
        for (first_output, first_k, outputs, depth) in [(1, 0, 31, 257), (17, 2, 64, 40), (33, 142, 127, 258)] {
            let x = Host::f32(ROWS, depth, &random.values(ROWS * depth));
            let weight = kept.weight().outputs_from(first_output, outputs).inputs_from(first_k, depth);
            let wanted = wanted(&x, &weight, false);
            let x = pack_x(&x, false, &mut room);
            for isa in Isa::all() {
                let packed = Operand::Packed { panels: &panels, first_output, first_k };
                for weight in [packed, Operand::Lying(weight)] {
                    let product = Product { isa, x, weight, square: false };
                    for (rows, cols) in [(0..ROWS, 0..outputs), (3..4, 5..outputs), (7..19, 1..20), (5..ROWS, 30..31)] {
                        let of_row = |row: usize| &wanted[row * outputs..][cols.clone()];
                        let wanted: Vec<u32> = rows.clone().flat_map(of_row).copied().collect();
                        let found = compute(&product, rows.clone(), cols.clone());
                        assert!(bits(&found) == wanted, "{isa:?}, {element:?}, {rows:?}, {cols:?} at {first_output}");
                    }
                }
            }
        }
    }
}

/// A weight that is not packed is read a page of each row at a time, from cache line to cache line, wherever it begins.
#[test]
fn a_lying_weight_may_begin_anywhere_in_a_cache_line() {
    let (mut random, mut room) = (Random(4), Vec::new());
    const OUTPUTS: usize = 67;
    for element in ELEMENTS.into_iter().filter(|element| !matches!(element, Element::Int8 | Element::Bf16Pairs)) {
        for (stride, first_k, depth) in
            [(2240, 0, 2240), (2240, 1, 2100), (2240, 5, 1029), (2239, 2, 263), (32, 13, 16)]
        {
            for by_output in [true, false] {
                let padding = if by_output { stride - first_k - depth } else { 13 };
                let kept = Kept::padded(&mut random, element, by_output, OUTPUTS, first_k + depth, padding);
                let weight = kept.weight().inputs_from(first_k, depth).outputs_from(2, OUTPUTS - 2);
                for rows in [1, 25] {
                    let x = Host::f32(rows, depth, &random.values(rows * depth));
                    let wanted = wanted(&x, &weight, false);
                    let x = pack_x(&x, false, &mut room);
                    for isa in Isa::all() {
                        let product = Product { isa, x, weight: Operand::Lying(weight), square: false };
                        let found = compute(&product, 0..rows, 0..OUTPUTS - 2);
                        assert!(
                            bits(&found) == wanted,
                            "{isa:?}, {element:?}, {rows}·{depth} from {first_k} of {stride}"
                        );
                    }
                }
            }
        }
    }
}

/// Plain elements may begin at any k, where a shard's inputs do.
#[test]
fn a_shard_may_begin_at_an_odd_input() {
    let (mut random, mut room) = (Random(3), Vec::new());
    for element in ELEMENTS.into_iter().filter(|element| *element != Element::Bf16Pairs) {
        let kept = Kept::new(&mut random, element, false, 40, 300);
        let panels = kept.panels(element);
        for (first_k, depth, rows) in [(1, 299, 3), (37, 256, 25), (255, 17, 1)] {
            let x = Host::f32(rows, depth, &random.values(rows * depth));
            let wanted = wanted(&x, &kept.weight().inputs_from(first_k, depth), false);
            let x = pack_x(&x, false, &mut room);
            for isa in Isa::all() {
                let weight = Operand::Packed { panels: &panels, first_output: 0, first_k };
                let found = compute(&Product { isa, x, weight, square: false }, 0..rows, 0..40);
                assert!(bits(&found) == wanted, "{isa:?}, {element:?}, from {first_k}");
            }
        }
    }
}

/// A base weight is not looked at before it is packed: NaN, infinities and −0 among integers times one factor go through.
#[test]
fn no_value_is_lost_in_a_packed_weight() {
    let (inputs, outputs) = (40, 33);
    for odd in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.0] {
        let mut values: Vec<f32> = (0..inputs * outputs).map(|place| ((place * 37) % 255) as f32 - 127.0).collect();
        values[5 * inputs + 7] = odd;
        let host = Host::f32(outputs, inputs, &values);
        let weight = Weight::output_major(&host.matrix());
        let panels = Panels::new(&Allocator::default(), &weight, true).unwrap();
        assert_eq!(panels.element(), Element::F32, "{odd} is on no grid");
        let projection = Panels::new(&Allocator::default(), &weight, false).unwrap();
        let wanted = if odd == 0.0 { Element::Int8 } else { Element::F32 };
        assert_eq!(projection.element(), wanted, "{odd} in a projection, which nobody uses but packed");
        let mut room = Vec::new();
        let x = Host::f32(1, inputs, &vec![1.0; inputs]);
        let x = pack_x(&x, false, &mut room);
        for isa in Isa::all() {
            let found = [Operand::Packed { panels: &panels, first_output: 0, first_k: 0 }, Operand::Lying(weight)]
                .map(|weight| compute(&Product { isa, x, weight, square: false }, 0..1, 0..outputs)[5]);
            let same = found[0].to_bits() == found[1].to_bits() || found.iter().all(|value| value.is_nan());
            assert!(same && found[0].is_finite() == odd.is_finite(), "{isa:?}, {odd}: {found:?}");
        }
    }
}
