//! Known answers: before the kernels are used in a CUDA context, they are held to the CPU's bits on small layers, forward and
//! back, and in their moments.

use super::Cuda;
use super::device::Device;
use super::driver::Address;
use super::product::Products;
use crate::backend::cpu::{Arithmetic, Base, BasePacks, Cpu, Packs, Pair, Workers};
use crate::backend::{
    Backend, Backward, Call, Copies, Forward, Gradients, Kl, Membership, Mode, Noise, Originals, Overwrite, Part,
    PriorGradients, RowKeys, Scope, Term, TermGradients, Weight,
};
use crate::error::{Code, Error, Result};
use crate::memory::{Allocator, Arena};
use crate::noise::{DropoutKey, NormalKey};
use crate::tensor::{self, Dtype, Matrix, MatrixMut, Parts, Vector, VectorMut};

/// Beyond one chain of k, and no multiple of a tile.
const INPUTS: usize = 300;
const OUTPUTS: usize = 70;
const RANK: usize = 17;
/// Numbers of one adapter.
const VECTORS: usize = 2 * RANK + OUTPUTS;

/// Two adapters in a table of slots; nothing of slot 1 is on this layer.
const TERM_OF_SLOT: [i32; 3] = [1, -1, 0];

/// Few rows and many, each kind of product, each element type, each kind of mask; an adapter a row, and several draws.
const CASES: [Case; 4] = [
    Case { dtype: Dtype::F32, weight: Dtype::F32, ..CASE },
    Case { rows: 70, products: Products::Tiled, dtype: Dtype::Bf16, weight: Dtype::F16, mask: Mask::Keyed, ..CASE },
    Case { dtype: Dtype::F16, weight: Dtype::Bf16, mask: Mask::Given, ..CASE },
    Case { rows: 6, products: Products::TiledInParts, slots: Some(&[2, 0, -1, 0, 2, 1]), draws: 2, ..CASE },
];

const CASE: Case = Case {
    rows: 3,
    products: Products::AsSuits,
    dtype: Dtype::F32,
    weight: Dtype::F32,
    mask: Mask::None,
    slots: None,
    draws: 1,
};

#[derive(Clone, Copy, Debug)]
struct Case {
    rows: usize,
    products: Products,
    /// Of x, dy, the mask and all matrices that come out.
    dtype: Dtype,
    weight: Dtype,
    mask: Mask,
    /// Which each row has, −1 for none; one adapter on all rows where this is not said. A device reads them in its own memory
    /// in the forward.
    slots: Option<&'static [i32]>,
    /// Of y.
    draws: usize,
}

impl Case {
    /// How many adapters there are.
    fn terms(&self) -> usize {
        if self.slots.is_some() { 2 } else { 1 }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mask {
    None,
    Keyed,
    Given,
}

/// An error when the device gives other bits than the CPU.
pub fn run(device: &Device) -> Result<()> {
    CASES.into_iter().try_for_each(|case| Layer::new(case).compare(device))
}

/// Memory of one input or output: aligned for any element.
type Words = Vec<u64>;

/// One layer with adapters that sample, and a batch.
struct Layer {
    case: Case,
    a: Vec<f32>,
    b: Vec<f32>,
    /// λ_d and λ_b of two adapters, one after the other.
    vectors: Vec<f32>,
    /// x, dy, the weight, the mask, the slots.
    inputs: [Words; 5],
    /// Which of two each row has, −1 for none.
    row_terms: Option<Vec<i32>>,
}

impl Layer {
    fn new(case: Case) -> Self {
        // A linear congruence: values in [−½, ½) that every machine makes alike.
        let mut state = 1u32;
        let mut values = |count: usize| -> Vec<f32> {
            let next = |_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 8) as f32 / 16_777_216.0 - 0.5
            };
            (0..count).map(next).collect()
        };
        let stored = |dtype: Dtype, values: Vec<f32>| -> Words {
            let mut words = vec![0; (values.len() * dtype.size()).div_ceil(size_of::<u64>())];
            // SAFETY: as many elements fit there.
            unsafe { dtype.narrow(&values, words.as_mut_ptr().cast(), 0) };
            words
        };
        let Case { rows, dtype, weight, slots, .. } = case;
        let mut slot_words = vec![0u64; slots.map_or(0, <[i32]>::len).div_ceil(2)];
        let slot_bytes: &[u8] = slots.map_or(&[], bytemuck::cast_slice);
        bytemuck::cast_slice_mut(&mut slot_words)[..slot_bytes.len()].copy_from_slice(slot_bytes);
        let term_of = |slot: &i32| usize::try_from(*slot).map_or(-1, |slot| TERM_OF_SLOT[slot]);
        Self {
            case,
            a: values(2 * RANK * INPUTS),
            b: values(OUTPUTS * RANK),
            vectors: values(2 * VECTORS),
            inputs: [
                stored(dtype, values(rows * INPUTS)),
                stored(dtype, values(rows * OUTPUTS)),
                stored(weight, values(OUTPUTS * INPUTS)),
                stored(dtype, values(rows * INPUTS)),
                slot_words,
            ],
            row_terms: slots.map(|slots| slots.iter().map(term_of).collect()),
        }
    }

    /// What a step gives, in the order of its places: a name, how many elements, and bytes of one.
    fn outputs(&self) -> [(&'static str, usize, usize); 7] {
        let Case { rows, dtype, draws, .. } = self.case;
        let terms = self.case.terms();
        [
            ("y", draws * rows * OUTPUTS, dtype.size()),
            ("dλ_b", terms * OUTPUTS, size_of::<f32>()),
            ("dλ_d", terms * 2 * RANK, size_of::<f32>()),
            ("dx", rows * INPUTS, dtype.size()),
            ("the divergence", 1, size_of::<f64>()),
            ("mean", rows * OUTPUTS, dtype.size()),
            ("variance", rows * OUTPUTS, dtype.size()),
        ]
    }

    fn blank(&self) -> [Words; 7] {
        self.outputs().map(|(_, count, bytes)| vec![0; (count * bytes).div_ceil(size_of::<u64>())])
    }

    fn compare(&self, device: &Device) -> Result<()> {
        let (wanted, found) = (self.on_cpu()?, self.on_device(device)?);
        for (((name, _, bytes), wanted), found) in self.outputs().into_iter().zip(&wanted).zip(&found) {
            let elements = |words| bytemuck::cast_slice::<u64, u8>(words).chunks_exact(bytes);
            let Some(at) = elements(wanted).zip(elements(found)).position(|(wanted, found)| wanted != found) else {
                continue;
            };
            let bits = |words| {
                let element = elements(words).nth(at).unwrap_or_default();
                element.iter().rev().fold(0, |bits: u64, byte| bits << 8 | u64::from(*byte))
            };
            let Case { rows, dtype, .. } = self.case;
            return Err(Error::new(
                Code::Cuda,
                format!(
                    "{} gives other results than the CPU on a layer of known answers ({name}[{at}] of {rows} rows of {} has the bits {:#x}, wanted {:#x}); it is not used",
                    device.place(),
                    dtype.name(),
                    bits(found),
                    bits(wanted)
                ),
            ));
        }
        Ok(())
    }

    fn on_cpu(&self) -> Result<[Words; 7]> {
        let workers = Workers::new(Allocator::default(), 0, None)?;
        let arena = Arena::new(Allocator::default());
        let cpu = Cpu { workers: &workers, arena: &arena, arithmetic: Arithmetic::default() };
        let (mut outputs, mut p) = (self.blank(), vec![0.0f32; self.case.rows * 2 * RANK]);
        let places = outputs.each_mut().map(|output| output.as_mut_ptr().cast());
        let inputs = self.inputs.each_ref().map(|input| input.as_ptr().cast());
        // SAFETY: every place has the length of what it is for, and nobody else uses it meanwhile.
        unsafe { self.step(&cpu, tensor::Device::Host, inputs, p.as_mut_ptr().cast(), places)? };
        Ok(outputs)
    }

    fn on_device(&self, device: &Device) -> Result<[Words; 7]> {
        let mut turn = device.turn()?;
        turn.products = self.case.products;
        let arena = Arena::new(Allocator::default());
        let cuda = Cuda { turn: &turn, arena: &arena };
        let at = |address: Address| std::ptr::without_provenance_mut::<u8>(address as usize);
        let mut inputs = [std::ptr::null(); 5];
        for (place, input) in inputs.iter_mut().zip(&self.inputs) {
            *place = at(turn.upload(bytemuck::cast_slice(input))?).cast_const();
        }
        let p = turn.take_f32(self.case.rows, 2 * RANK)?;
        let mut outputs = self.blank();
        let mut places = [0; 7];
        for (place, output) in places.iter_mut().zip(&outputs) {
            *place = turn.take(size_of_val(&output[..]))?;
        }
        // SAFETY: as on the CPU; workspace of this turn.
        unsafe { self.step(&cuda, device.place(), inputs, at(p), places.map(at))? };
        for ((output, place), (_, count, bytes)) in outputs.iter_mut().zip(places).zip(self.outputs()) {
            // SAFETY: taken with this length.
            unsafe { device.read_back(&mut bytemuck::cast_slice_mut(output)[..count * bytes], place)? };
        }
        Ok(outputs)
    }

    /// A forward that keeps p, a backward that overwrites, and moments. Inputs and outputs as the fields and `outputs` have them.
    ///
    /// # Safety
    /// The addresses are on the device that the backend computes on, with the lengths of the layer.
    unsafe fn step(
        &self,
        backend: &dyn Backend,
        device: tensor::Device,
        [x, dy, weight, mask, slots]: [*const u8; 5],
        p_place: *mut u8,
        [y, lambda_b, lambda_d, dx, kl, mean, variance]: [*mut u8; 7],
    ) -> Result<()> {
        let Case { rows, dtype, draws, .. } = self.case;
        let parts = |rows, cols, dtype| Parts { rows, cols, row_stride: cols, dtype, device };
        // SAFETY: the caller's promise, of all that follow.
        let read = |data: *const u8, rows, cols, dtype| unsafe {
            Matrix::new("known answers", data, parts(rows, cols, dtype))
        };
        // SAFETY: as above.
        let write = |data: *mut u8, rows, cols, dtype| unsafe {
            MatrixMut::new("known answers", data, parts(rows, cols, dtype))
        };
        let (copies, packs, base_packs) =
            ([Copies::default(), Copies::default(), Copies::default()], Packs::default(), BasePacks::default());
        let all = Vector::from(&self.vectors[..]);
        let (a, b) = (Matrix::from_f32(&self.a, 2 * RANK, INPUTS), Matrix::from_f32(&self.b, OUTPUTS, RANK));
        let (a, b) = (Weight::output_major(&a), Weight::output_major(&b));
        let term_of = |number: usize| Term {
            a,
            b,
            pair: Pair { packs: &packs, a, b, in_offset: 0, out_offset: 0 },
            lambda_d: all.part(number * VECTORS, 2 * RANK),
            lambda_b: all.part(number * VECTORS + 2 * RANK, OUTPUTS),
            bias: None,
            originals: Originals {
                a: copies[0].of(bytemuck::cast_slice(&self.a)),
                b: copies[1].of(bytemuck::cast_slice(&self.b)),
                vectors: Some(copies[2].of(bytemuck::cast_slice(&self.vectors))),
            },
            scale: 0.5,
            mode: Mode::Sample,
            logvar_bound: f32::INFINITY,
            noise: NormalKey::new(1, 2, 3 + number as u64),
            noise_names: (2, 3 + number as u64),
            dropout: (self.case.mask == Mask::Keyed).then(|| (DropoutKey::new(1, 2, 3), 0.25)),
            p_column: 0,
            latent_column: 0,
        };
        let both = [term_of(0), term_of(1)];
        let terms = &both[..self.case.terms()];
        let weight = Weight::output_major(&read(weight, OUTPUTS, INPUTS, self.case.weight)?);
        let mask = read(mask, rows, INPUTS, dtype)?;
        let call = Call {
            rows,
            inputs: INPUTS,
            outputs: OUTPUTS,
            in_offset: 0,
            base: Some(Base { weight, packs: &base_packs }),
            bias: None,
            terms,
            membership: self.row_terms.as_deref().map_or(Membership::All, Membership::ByRow),
            keys: RowKeys::default(),
            noise: Noise { seed: 1, dropout_mask: (self.case.mask == Mask::Given).then_some(mask), ..Noise::default() },
        };
        let calls = [call];
        let on_host = device == tensor::Device::Host;
        let membership = match self.case.slots {
            Some(_) if !on_host => Membership::BySlot { slot: slots.addr() as Address, term_of_slot: &TERM_OF_SLOT },
            _ => call.membership,
        };
        let forward_calls = [Call { membership, ..call }];
        let (x, kept) = (read(x, rows, INPUTS, dtype)?, write(p_place, rows, 2 * RANK, Dtype::F32)?);
        let forward = Forward {
            projections: &forward_calls,
            calls: &forward_calls,
            x,
            scope: Scope::All,
            width: 2 * RANK,
            p: Some(&kept),
            draws,
            keep: None,
        };
        backend.forward(&forward, &[write(y, draws * rows, OUTPUTS, dtype)?])?;
        let dy = [read(dy, rows, OUTPUTS, dtype)?];
        let p = read(p_place, rows, 2 * RANK, Dtype::F32)?;
        let group = Backward { calls: &calls, projections: &calls, p, kept: None, dy: &dy, overwrite_dx: true };
        // SAFETY: the caller's promise.
        let vector = |data: *mut u8, number: usize, length: usize| unsafe {
            Some(VectorMut::new(data.cast::<f32>().wrapping_add(number * length), length, device))
        };
        let target = |number| TermGradients {
            lambda_b: vector(lambda_b, number, OUTPUTS),
            lambda_d: vector(lambda_d, number, 2 * RANK),
            bias: None,
        };
        let mut targets: Vec<_> = (0..terms.len()).map(target).collect();
        let mut gradients = [Gradients {
            terms: &mut targets,
            kl: Kl { weight: 0.25, mean: true },
            prior: PriorGradients::default(),
            // SAFETY: the caller's promise.
            kl_value: if on_host { Some(unsafe { &mut *kl.cast::<f64>() }) } else { None },
            kl_value_at: (!on_host).then_some(kl.addr() as Address),
            variance: None,
            overwrite: Overwrite { lambda_b: true, lambda_d: true, bias: true },
        }];
        backend.backward(&group, &mut gradients, Some(&write(dx, rows, INPUTS, dtype)?))?;
        let means = both.map(|term| Term { mode: Mode::Mean, dropout: None, ..term });
        let call = Call { terms: &means[..terms.len()], noise: Noise::default(), ..call };
        backend.project(&[call], &x, Scope::All, &kept, Part::WHOLE)?;
        let [mean, variance] = [write(mean, rows, OUTPUTS, dtype)?, write(variance, rows, OUTPUTS, dtype)?];
        backend.moments(&call, &x, &p, &mean, &variance)
    }
}
