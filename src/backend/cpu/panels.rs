//! Packed weights: panels of sixteen outputs, `[k][16]`, which the micro-kernel reads front to back.

use half::{bf16, f16};

use super::packing::{Ahead, PACKING_ROOM, Pack, widen_pairs};
use super::tile::{DEPTH, UNIT};
use crate::backend::Weight;
use crate::error::{Error, Result};
use crate::memory::{Allocator, Buffer};
use crate::simd::{Isa, Kernel, Set};
use crate::tensor::Dtype;

/// Outputs of one panel.
pub const WIDTH: usize = 16;

/// f32 of one block of a panel.
pub const PANEL: usize = DEPTH * WIDTH;

/// How an element is stored. Each widens to the very f32 that it was packed from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    F32,
    Bf16,
    F16,
    /// An integer, times one scale for the whole matrix.
    Int8,
    /// Two values of k side by side, `[k/2][16][2]`: what bf16 products read.
    Bf16Pairs,
}

impl Element {
    /// Bytes of a panel of this depth.
    fn panel_bytes(self, depth: usize) -> usize {
        match self {
            Element::F32 => depth * WIDTH * 4,
            Element::Bf16 | Element::F16 => depth * WIDTH * 2,
            Element::Int8 => depth * WIDTH,
            Element::Bf16Pairs => depth.next_multiple_of(2) * WIDTH * 2,
        }
    }
}

/// A packed weight. Panels are padded with zeros to whole units of columns.
#[derive(Debug)]
pub struct Panels {
    bytes: Buffer<u8>,
    element: Element,
    outputs: usize,
    depth: usize,
    scale: f32,
}

impl Panels {
    /// Packs a weight in the smallest form that holds its values exactly. A base weight, which is also used as it lies, keeps
    /// every bit, and of bf16 is packed as pairs; in a projection −0 is the integer 0.
    pub fn new(allocator: &Allocator, weight: &Weight<'_>, is_base: bool) -> Result<Self> {
        let (element, scale) = form_of(weight, is_base);
        let (outputs, depth) = (weight.outputs(), weight.inputs());
        let mut bytes = Buffer::<u8>::zeroed(allocator, Self::bytes_of(element, outputs, depth)?)?;
        let isa = Isa::best();
        let (mut values, mut room) = ([0.0; PANEL], [0.0; PACKING_ROOM]);
        let panel_bytes = element.panel_bytes(depth).max(1);
        for (panel, bytes) in bytes.chunks_exact_mut(panel_bytes).take(outputs.div_ceil(WIDTH)).enumerate() {
            let following = ((panel + 1) * WIDTH).min(outputs - 1);
            let soon = weight.outputs_from(following, WIDTH.min(outputs - following));
            let weight = weight.outputs_from(panel * WIDTH, WIDTH.min(outputs - panel * WIDTH));
            for (block, bytes) in bytes.chunks_mut(element.panel_bytes(DEPTH)).enumerate() {
                let inputs = DEPTH.min(depth - block * DEPTH);
                let values = &mut values[..inputs * WIDTH];
                isa.run(Pack {
                    weight: weight.inputs_from(block * DEPTH, inputs),
                    pairs: false,
                    distance: values.len(),
                    panels: values,
                    room: &mut room,
                    ahead: Ahead::of(&soon.inputs_from(block * DEPTH, inputs)),
                });
                narrow(values, element, scale, bytes);
            }
        }
        Ok(Self { bytes, element, outputs, depth, scale })
    }

    /// Bytes that the packed weight takes.
    pub fn bytes_for(weight: &Weight<'_>, is_base: bool) -> Result<usize> {
        Self::bytes_of(form_of(weight, is_base).0, weight.outputs(), weight.inputs())
    }

    fn bytes_of(element: Element, outputs: usize, depth: usize) -> Result<usize> {
        let panels = outputs.next_multiple_of(UNIT) / WIDTH;
        element.panel_bytes(depth).checked_mul(panels).ok_or(Error::out_of_memory())
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    pub fn element(&self) -> Element {
        self.element
    }

    pub fn outputs(&self) -> usize {
        self.outputs
    }

    pub fn depth(&self) -> usize {
        self.depth
    }

    pub fn scale(&self) -> f32 {
        self.scale
    }

    pub fn panel_bytes(&self) -> usize {
        self.element.panel_bytes(self.depth)
    }

    /// Panel `panel` from value `k` on, and all panels after it; k is even where elements are pairs.
    pub fn at(&self, panel: usize, k: usize) -> &[u8] {
        assert!(k <= self.depth && panel * WIDTH < self.outputs.next_multiple_of(UNIT));
        let per_k = self.element.panel_bytes(2) / 2;
        &self.bytes[panel * self.panel_bytes() + k * per_k..]
    }
}

/// The smallest element that holds a weight exactly, and its scale.
fn form_of(weight: &Weight<'_>, is_base: bool) -> (Element, f32) {
    if is_base && weight.dtype() == Dtype::Bf16 {
        return (Element::Bf16Pairs, 1.0);
    }
    match (int8_scale(weight, is_base), weight.dtype()) {
        (Some(scale), _) => (Element::Int8, scale),
        (None, Dtype::F32) => (Element::F32, 1.0),
        (None, Dtype::Bf16) => (Element::Bf16, 1.0),
        (None, Dtype::F16) => (Element::F16, 1.0),
    }
}

/// Stores values of a panel `[k][16]` as `element`.
fn narrow(values: &[f32], element: Element, scale: f32, bytes: &mut [u8]) {
    fn each<T: bytemuck::Pod>(values: &[f32], bytes: &mut [u8], convert: impl Fn(f32) -> T) {
        bytemuck::cast_slice_mut(bytes).iter_mut().zip(values).for_each(|(place, value)| *place = convert(*value));
    }
    match element {
        Element::F32 => each(values, bytes, |value| value),
        Element::Bf16 => each(values, bytes, bf16::from_f32),
        Element::F16 => each(values, bytes, f16::from_f32),
        Element::Int8 => each(values, bytes, |value| (value / scale).round() as i8),
        Element::Bf16Pairs => {
            let pairs = bytemuck::cast_slice_mut::<u8, [bf16; 2]>(bytes);
            for (k, values) in values.chunks_exact(WIDTH).enumerate() {
                for (pair, value) in pairs[k / 2 * WIDTH..].iter_mut().zip(values) {
                    pair[k % 2] = bf16::from_f32(*value);
                }
            }
        }
    }
}

/// The scale with which every value is (bit for bit, or but for the sign of 0) an integer of at most 127 times it, if there
/// is one.
fn int8_scale(weight: &Weight<'_>, bit_for_bit: bool) -> Option<f32> {
    let mut largest = 0.0_f32;
    weight.each_line(|values| {
        largest = values.iter().fold(largest, |largest, value| largest.max(value.abs()));
        true
    });
    let scale = largest / 127.0;
    let on_grid = |value: &f32| {
        let packed = f32::from((value / scale).round() as i8) * scale;
        if bit_for_bit { packed.to_bits() == value.to_bits() } else { packed == *value }
    };
    (scale.is_normal() && weight.each_line(|values| values.iter().all(on_grid))).then_some(scale)
}

/// Widens whole lines of a panel.
pub struct Widen<'a> {
    /// As many elements as `values` or more, from an even k on.
    pub from: &'a [u8],
    pub element: Element,
    pub scale: f32,
    pub values: &'a mut [f32],
}

impl Kernel for Widen<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Set>(self) {
        assert!(self.from.len() >= self.element.panel_bytes(self.values.len().div_ceil(WIDTH)));
        let from = self.from.as_ptr();
        if self.element == Element::Bf16Pairs {
            // SAFETY: `from` holds as many elements as there are values, by the assertion.
            return unsafe { widen_pairs::<S>(from.cast(), self.values) };
        }
        let scale = S::splat(self.scale);
        for (number, out) in self.values.chunks_exact_mut(S::LANES).enumerate() {
            let at = number * S::LANES;
            // SAFETY: as above.
            unsafe {
                let vector = match self.element {
                    Element::Bf16 => S::load_bf16(from.cast::<u16>().add(at)),
                    Element::F16 => S::load_f16(from.cast::<f16>().add(at)),
                    Element::Int8 => S::mul(S::load_i8(from.cast::<i8>().add(at)), scale),
                    Element::F32 | Element::Bf16Pairs => S::load(from.cast::<f32>().add(at)),
                };
                S::store(vector, out.as_mut_ptr());
            }
        }
    }
}
