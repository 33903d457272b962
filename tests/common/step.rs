//! One training step, forward and backward, with everything that it can give.

use pvera::backend::{Kl, Overwrite, PriorGradients};
use pvera::context::Context;
use pvera::error::Result;
use pvera::linear::{Linear, Policy, Request, SlotGradients, Tape, VarianceTarget, Wanted, backward, record};
use pvera::memory::Allocator;
use pvera::tensor::{Dtype, Matrix, MatrixMut};

use super::host::Host;
use super::tolerance::assert_close_or_empty;

/// What outputs hold before the step, where it accumulates.
pub const BEFORE: f32 = 0.25;

#[derive(Clone)]
pub struct Step<'a> {
    pub linears: Vec<&'a Linear>,
    /// Those whose gradients are wanted.
    pub slots: &'a [i32],
    pub x: &'a Host,
    pub dy: &'a [Host],
    pub request: Request<'a>,
    pub policy: Policy,
    pub kl: Kl,
    /// Whether the value of the divergence is wanted.
    pub divergence: bool,
    pub dmu: Option<&'a Host>,
    pub dlogvar: Option<&'a Host>,
    pub overwrite: bool,
    pub variance_index: Option<&'a [u32]>,
    /// Of y and dx.
    pub dtype: Dtype,
    pub padding: usize,
}

impl<'a> Step<'a> {
    pub fn new(linears: Vec<&'a Linear>, slots: &'a [i32], x: &'a Host, dy: &'a [Host], request: Request<'a>) -> Self {
        Self {
            linears,
            slots,
            x,
            dy,
            request,
            policy: Policy::KeepLatent,
            kl: Kl::default(),
            divergence: true,
            dmu: None,
            dlogvar: None,
            overwrite: true,
            variance_index: None,
            dtype: Dtype::F32,
            padding: 0,
        }
    }
}

/// Gradients of one adapter on one layer; empty where it has none.
#[derive(Clone)]
pub struct Slot {
    pub slot: i32,
    pub lambda_b: Vec<f32>,
    pub lambda_d: Vec<f32>,
    pub bias: Vec<f32>,
}

#[derive(Clone)]
pub struct Outcome {
    pub y: Vec<Host>,
    pub dx: Host,
    pub layers: Vec<Vec<Slot>>,
    pub kl: Vec<f64>,
    pub variance: Vec<Vec<f64>>,
}

pub fn run(context: &Context, step: &Step<'_>) -> Result<Outcome> {
    let mut tape = Tape::new(step.policy, Allocator::default());
    run_on(context, step, &mut tape)
}

pub fn run_on(context: &Context, step: &Step<'_>, tape: &mut Tape) -> Result<Outcome> {
    let rows = step.x.rows();
    let output = |cols| Host::filled(step.dtype, rows, cols, step.padding, BEFORE);
    let mut y: Vec<Host> = step.dy.iter().map(|dy| output(dy.cols())).collect();
    let targets: Vec<MatrixMut<'_>> = y.iter_mut().map(Host::matrix_mut).collect();
    // SAFETY: everything that the step borrows outlives this function.
    unsafe { record(context, &step.linears, &step.x.matrix(), &step.request, tape, &targets)? };
    let mut layers: Vec<Vec<Slot>> = step.linears.iter().map(|linear| blank(linear, step.slots)).collect();
    let pointers: Vec<Vec<SlotGradients>> =
        layers.iter_mut().map(|slots| slots.iter_mut().map(pointers).collect()).collect();
    let (mut kl, mut variance) = (vec![f64::NAN; step.dy.len()], vec![vec![0.0; rows]; step.dy.len()]);
    let overwrite = Overwrite { lambda_b: step.overwrite, lambda_d: step.overwrite, bias: step.overwrite };
    let prior = PriorGradients { dmu: step.dmu.map(Host::matrix), dlogvar: step.dlogvar.map(Host::matrix) };
    let wanted: Vec<Wanted<'_>> = pointers
        .iter()
        .zip(&mut kl)
        .zip(&mut variance)
        .map(|((slots, kl_value), values)| Wanted {
            slots,
            overwrite,
            kl: step.kl,
            prior,
            kl_value: step.divergence.then_some(kl_value.into()),
            variance: std::ptr::NonNull::new(values.as_mut_ptr()).map(|place| VarianceTarget {
                values: place,
                count: values.len(),
                index: step.variance_index,
            }),
        })
        .collect();
    let dy: Vec<Matrix<'_>> = step.dy.iter().map(Host::matrix).collect();
    let mut dx = output(step.x.cols());
    let target = dx.matrix_mut();
    // SAFETY: the vectors of `layers` have the lengths of the layers.
    unsafe { backward(context, tape, &dy, &wanted, Some(&target), step.overwrite)? };
    drop((wanted, targets));
    assert!(dx.padding_is_intact() && y.iter().all(Host::padding_is_intact), "something was written between the rows");
    Ok(Outcome { y, dx, layers, kl, variance })
}

fn blank(linear: &Linear, slots: &[i32]) -> Vec<Slot> {
    let adapted = |slot: &i32| Some((*slot, linear.slots().get(*slot).unwrap().adapter.vectors(linear.index())?));
    let zeros = |count: usize| vec![BEFORE; count];
    let slots = slots.iter().filter_map(adapted);
    slots
        .map(|(slot, vectors)| Slot {
            slot,
            lambda_b: zeros(vectors.lambda_b.len()),
            lambda_d: zeros(vectors.lambda_d.len()),
            bias: zeros(vectors.bias.map_or(0, <[f32]>::len)),
        })
        .collect()
}

fn pointers(slot: &mut Slot) -> SlotGradients {
    let pointer = |vector: &mut Vec<f32>| if vector.is_empty() { std::ptr::null_mut() } else { vector.as_mut_ptr() };
    SlotGradients {
        slot: slot.slot,
        lambda_b: pointer(&mut slot.lambda_b),
        lambda_d: pointer(&mut slot.lambda_d),
        bias: pointer(&mut slot.bias),
    }
}

impl Outcome {
    /// Judges every output of its own. `stored` is the bound of y and dx, `summed` that of the vectors' gradients.
    pub fn assert_close(&self, what: &str, wanted: &Self, stored: f64, summed: f64) {
        assert_close_or_empty(&format!("{what}: dx"), &self.dx.values(), &wanted.dx.values(), stored);
        assert_eq!(self.y.len(), wanted.y.len());
        for (layer, (y, other)) in self.y.iter().zip(&wanted.y).enumerate() {
            let what = format!("{what}: layer {layer}");
            assert_close_or_empty(&format!("{what}: y"), &y.values(), &other.values(), stored);
            assert_close_or_empty(&format!("{what}: KL"), &self.kl[layer..=layer], &wanted.kl[layer..=layer], summed);
            let (own, other) = (&self.variance[layer], &wanted.variance[layer]);
            assert_close_or_empty(&format!("{what}: variance"), own, other, summed);
            assert_eq!(self.layers[layer].len(), wanted.layers[layer].len());
            for (own, other) in self.layers[layer].iter().zip(&wanted.layers[layer]) {
                let what = format!("{what}: slot {}", own.slot);
                assert_close_or_empty(&format!("{what}: dλ_b"), &own.lambda_b, &other.lambda_b, summed);
                assert_close_or_empty(&format!("{what}: dλ_d"), &own.lambda_d, &other.lambda_d, summed);
                assert_close_or_empty(&format!("{what}: dbias"), &own.bias, &other.bias, summed);
            }
        }
    }

    /// Everything as bits.
    pub fn bits(&self) -> Vec<u64> {
        let vectors = self.layers.iter().flatten().flat_map(|slot| [&slot.lambda_b, &slot.lambda_d, &slot.bias]);
        let rows = self.y.iter().chain([&self.dx]).flat_map(Host::values);
        let floats = rows.chain(vectors.flatten().copied()).map(|value| u64::from(value.to_bits()));
        let doubles = self.kl.iter().chain(self.variance.iter().flatten()).map(|value| value.to_bits());
        floats.chain(doubles).collect()
    }
}
