//! Known answers: before a device is used, its kernels are held to the CPU's bits on a small layer, forward and back.

use super::Cuda;
use super::device::Device;
use super::driver::Address;
use crate::backend::cpu::{Arithmetic, Base, BasePacks, Cpu, Packs, Pair, Workers};
use crate::backend::{
    Backend, Backward, Call, Copies, Forward, Gradients, Kl, Membership, Mode, Noise, Originals, Overwrite,
    PriorGradients, RowKeys, Scope, Term, TermGradients, Weight,
};
use crate::error::{Code, Error, Result};
use crate::memory::{Allocator, Arena};
use crate::noise::NormalKey;
use crate::tensor::{self, Dtype, Matrix, MatrixMut, Parts, Vector, VectorMut};

/// Beyond one chain of k, and no multiple of a tile.
const INPUTS: usize = 300;
const OUTPUTS: usize = 70;
const RANK: usize = 17;
/// Rows, and whether products are made as for many.
const CASES: [(usize, bool); 2] = [(3, false), (70, true)];

/// An error when the device gives other bits than the CPU.
pub fn run(device: &Device) -> Result<()> {
    CASES.into_iter().try_for_each(|(rows, as_many)| Layer::new(rows).compare(device, as_many))
}

/// One layer with one adapter that samples, and a batch.
struct Layer {
    rows: usize,
    a: Vec<f32>,
    b: Vec<f32>,
    weight: Vec<f32>,
    lambda_d: Vec<f32>,
    lambda_b: Vec<f32>,
    x: Vec<f32>,
    dy: Vec<f32>,
}

/// What a step gives: y, dλ_b, dλ_d, dx, one after the other.
const OUTPUT_NAMES: [&str; 4] = ["y", "dλ_b", "dλ_d", "dx"];

impl Layer {
    fn new(rows: usize) -> Self {
        // A linear congruence: values in [−½, ½) that every machine makes alike.
        let mut state = 1u32;
        let mut values = |count: usize| -> Vec<f32> {
            let next = |_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 8) as f32 / 16_777_216.0 - 0.5
            };
            (0..count).map(next).collect()
        };
        Self {
            rows,
            a: values(2 * RANK * INPUTS),
            b: values(OUTPUTS * RANK),
            weight: values(OUTPUTS * INPUTS),
            lambda_d: values(2 * RANK),
            lambda_b: values(OUTPUTS),
            x: values(rows * INPUTS),
            dy: values(rows * OUTPUTS),
        }
    }

    fn sizes(&self) -> [usize; 4] {
        [self.rows * OUTPUTS, OUTPUTS, 2 * RANK, self.rows * INPUTS]
    }

    fn compare(&self, device: &Device, as_many: bool) -> Result<()> {
        let (wanted, found) = (self.on_cpu()?, self.on_device(device, as_many)?);
        for ((name, wanted), found) in OUTPUT_NAMES.iter().zip(&wanted).zip(&found) {
            let differs = |at: &usize| wanted[*at].to_bits() != found[*at].to_bits();
            if let Some(at) = (0..wanted.len()).find(differs) {
                return Err(Error::new(
                    Code::Cuda,
                    format!(
                        "{} gives other results than the CPU on a layer of known answers ({name}[{at}] of {} rows is {:?}, wanted {:?}); it is not used",
                        device.place(),
                        self.rows,
                        found[at],
                        wanted[at]
                    ),
                ));
            }
        }
        Ok(())
    }

    fn on_cpu(&self) -> Result<[Vec<f32>; 4]> {
        let workers = Workers::new(Allocator::default(), 0, None)?;
        let arena = Arena::new(Allocator::default());
        let cpu = Cpu { workers: &workers, arena: &arena, arithmetic: Arithmetic::default() };
        let mut outputs = self.sizes().map(|count| vec![0.0f32; count]);
        let places = outputs.each_mut().map(|output| output.as_mut_ptr());
        let mut p = vec![0.0f32; self.rows * 2 * RANK];
        let inputs = [&self.x, &self.dy, &self.weight, &p].map(|values| values.as_ptr());
        let p_place = p.as_mut_ptr();
        // SAFETY: every place has the length of what it is for, and nobody else uses it meanwhile.
        unsafe { self.step(&cpu, tensor::Device::Host, inputs, p_place, places)? };
        Ok(outputs)
    }

    fn on_device(&self, device: &Device, as_many: bool) -> Result<[Vec<f32>; 4]> {
        let mut turn = device.turn()?;
        turn.as_many = as_many;
        let arena = Arena::new(Allocator::default());
        let cuda = Cuda { turn: &turn, arena: &arena };
        let bytes = |values: &[f32]| -> Result<Address> { turn.upload(bytemuck::cast_slice(values)) };
        let inputs = [bytes(&self.x)?, bytes(&self.dy)?, bytes(&self.weight)?];
        let p = turn.take_f32(self.rows, 2 * RANK)?;
        let mut outputs = self.sizes().map(|count| vec![0.0f32; count]);
        let mut places = [0; 4];
        for (place, output) in places.iter_mut().zip(&outputs) {
            *place = turn.take_f32(1, output.len())?;
        }
        let at = |address: Address| std::ptr::without_provenance_mut::<f32>(address as usize);
        let inputs = [at(inputs[0]), at(inputs[1]), at(inputs[2]), at(p)].map(<*mut f32>::cast_const);
        // SAFETY: as on the CPU; workspace of this turn.
        unsafe { self.step(&cuda, device.place(), inputs, at(p), places.map(at))? };
        for (output, place) in outputs.iter_mut().zip(places) {
            // SAFETY: taken with this length.
            unsafe { device.read_back(bytemuck::cast_slice_mut(output), place)? };
        }
        Ok(outputs)
    }

    /// A forward that keeps p, and a backward that overwrites. Inputs: x, dy, the weight, p.
    ///
    /// # Safety
    /// The addresses are on the device that the backend computes on, with the lengths of `sizes` and of the layer.
    unsafe fn step(
        &self,
        backend: &dyn Backend,
        device: tensor::Device,
        [x, dy, weight, p]: [*const f32; 4],
        p_place: *mut f32,
        [y, lambda_b, lambda_d, dx]: [*mut f32; 4],
    ) -> Result<()> {
        let rows = self.rows;
        let parts = |rows, cols| Parts { rows, cols, row_stride: cols, dtype: Dtype::F32, device };
        // SAFETY: the caller's promise, of all that follow.
        let read =
            |data: *const f32, rows, cols| unsafe { Matrix::new("known answers", data.cast(), parts(rows, cols)) };
        // SAFETY: as above.
        let write =
            |data: *mut f32, rows, cols| unsafe { MatrixMut::new("known answers", data.cast(), parts(rows, cols)) };
        let (copies, packs, base_packs) =
            ([Copies::default(), Copies::default(), Copies::default()], Packs::default(), BasePacks::default());
        let vectors: Vec<f32> = self.lambda_d.iter().chain(&self.lambda_b).copied().collect();
        let all = Vector::from(&vectors[..]);
        let (a, b) = (Matrix::from_f32(&self.a, 2 * RANK, INPUTS), Matrix::from_f32(&self.b, OUTPUTS, RANK));
        let (a, b) = (Weight::output_major(&a), Weight::output_major(&b));
        let term = Term {
            a,
            b,
            pair: Pair { packs: &packs, a, b, in_offset: 0, out_offset: 0 },
            lambda_d: all.part(0, 2 * RANK),
            lambda_b: all.part(2 * RANK, OUTPUTS),
            bias: None,
            originals: Originals {
                a: copies[0].of(bytemuck::cast_slice(&self.a)),
                b: copies[1].of(bytemuck::cast_slice(&self.b)),
                vectors: Some(copies[2].of(bytemuck::cast_slice(&vectors))),
            },
            scale: 0.5,
            mode: Mode::Sample,
            logvar_bound: f32::INFINITY,
            noise: NormalKey::new(1, 2, 3),
            noise_names: (2, 3),
            dropout: None,
            p_column: 0,
            latent_column: 0,
        };
        let terms = [term];
        let weight = Weight::output_major(&read(weight, OUTPUTS, INPUTS)?);
        let call = Call {
            rows,
            inputs: INPUTS,
            outputs: OUTPUTS,
            in_offset: 0,
            base: Some(Base { weight, packs: &base_packs }),
            bias: None,
            terms: &terms,
            membership: Membership::All,
            keys: RowKeys::default(),
            noise: Noise { seed: 1, ..Noise::default() },
        };
        let calls = [call];
        let kept = write(p_place, rows, 2 * RANK)?;
        let forward = Forward {
            projections: &calls,
            calls: &calls,
            x: read(x, rows, INPUTS)?,
            scope: Scope::All,
            width: 2 * RANK,
            p: Some(&kept),
            draws: 1,
            keep: None,
        };
        backend.forward(&forward, &[write(y, rows, OUTPUTS)?])?;
        let dy = [read(dy, rows, OUTPUTS)?];
        let p = read(p, rows, 2 * RANK)?;
        let group = Backward { calls: &calls, projections: &calls, p, kept: None, dy: &dy, overwrite_dx: true };
        // SAFETY: the caller's promise.
        let vector = |data, length| Some(unsafe { VectorMut::new(data, length, device) });
        let mut targets =
            [TermGradients { lambda_b: vector(lambda_b, OUTPUTS), lambda_d: vector(lambda_d, 2 * RANK), bias: None }];
        let mut gradients = [Gradients {
            terms: &mut targets,
            kl: Kl { weight: 0.25, mean: true },
            prior: PriorGradients::default(),
            kl_value: None,
            kl_value_at: None,
            variance: None,
            overwrite: Overwrite { lambda_b: true, lambda_d: true, bias: true },
        }];
        backend.backward(&group, &mut gradients, Some(&write(dx, rows, INPUTS)?))
    }
}
