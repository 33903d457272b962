//! One training step, forward and backward, with everything that it can give.

use pvera::backend::{Kl, Overwrite, PriorGradients};
use pvera::context::Context;
use pvera::error::Result;
use pvera::linear::{Linear, Policy, Request, SlotGradients, Tape, VarianceTarget, Wanted, backward, record};
use pvera::memory::Allocator;
use pvera::tensor::{Device, Dtype, Matrix, MatrixMut};

use super::host::Host;
use super::place::{Numbers, Placed};
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
    /// Whether the first-order variance is; on the CPU, where alone it is computed.
    pub variance: bool,
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
            variance: true,
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
    let (rows, place) = (step.x.rows(), context.place());
    let output = |cols| Host::filled(step.dtype, rows, cols, step.padding, BEFORE).on(place);
    let x = step.x.on(place);
    let mut y: Vec<Placed> = step.dy.iter().map(|dy| output(dy.cols())).collect();
    let targets: Vec<MatrixMut<'_>> = y.iter_mut().map(Placed::matrix_mut).collect();
    // SAFETY: everything that the step borrows outlives this function.
    unsafe { record(context, &step.linears, &x.matrix(), &step.request, tape, &targets)? };
    drop(targets);
    let mut layers: Vec<Vec<Vectors>> =
        step.linears.iter().map(|linear| Vectors::blank(linear, step.slots, place)).collect();
    let pointers: Vec<Vec<SlotGradients>> =
        layers.iter_mut().map(|slots| slots.iter_mut().map(Vectors::pointers).collect()).collect();
    let mut kl: Vec<Numbers<f64>> =
        step.dy.iter().map(|_| Numbers::new(vec![if step.divergence { f64::NAN } else { 0.0 }], place)).collect();
    let mut variance = vec![vec![0.0; rows]; step.dy.len()];
    let overwrite = Overwrite { lambda_b: step.overwrite, lambda_d: step.overwrite, bias: step.overwrite };
    let (dmu, dlogvar) = (step.dmu.map(|given| given.on(place)), step.dlogvar.map(|given| given.on(place)));
    let prior = PriorGradients { dmu: dmu.as_ref().map(Placed::matrix), dlogvar: dlogvar.as_ref().map(Placed::matrix) };
    let wanted: Vec<Wanted<'_>> = pointers
        .iter()
        .zip(&mut kl)
        .zip(&mut variance)
        .map(|((slots, kl_value), values)| Wanted {
            slots,
            overwrite,
            kl: step.kl,
            prior,
            kl_value: std::ptr::NonNull::new(kl_value.pointer()).filter(|_| step.divergence),
            variance: std::ptr::NonNull::new(values.as_mut_ptr())
                .filter(|_| step.variance && place == Device::Host)
                .map(|place| VarianceTarget { values: place, count: values.len(), index: step.variance_index }),
        })
        .collect();
    let dy: Vec<Placed> = step.dy.iter().map(|dy| dy.on(place)).collect();
    let dy_matrices: Vec<Matrix<'_>> = dy.iter().map(Placed::matrix).collect();
    let mut dx = output(step.x.cols());
    // SAFETY: the vectors of `layers` have the lengths of the layers.
    unsafe { backward(context, tape, &dy_matrices, &wanted, Some(&dx.matrix_mut()), step.overwrite)? };
    drop(wanted);
    let (dx, y): (Host, Vec<Host>) = (dx.back(), y.into_iter().map(Placed::back).collect());
    assert!(dx.padding_is_intact() && y.iter().all(Host::padding_is_intact), "something was written between the rows");
    let layers = layers.into_iter().map(|slots| slots.into_iter().map(Vectors::back).collect()).collect();
    let kl = kl.into_iter().map(|kl| kl.back()[0]).collect();
    Ok(Outcome { y, dx, layers, kl, variance })
}

/// The vectors of a `Slot`, where the context computes.
struct Vectors {
    slot: i32,
    lambda_b: Numbers<f32>,
    lambda_d: Numbers<f32>,
    bias: Numbers<f32>,
}

impl Vectors {
    fn blank(linear: &Linear, slots: &[i32], place: Device) -> Vec<Self> {
        let adapted = |slot: &i32| Some((*slot, linear.slots().get(*slot).unwrap().adapter.vectors(linear.index())?));
        let values = |count: usize| Numbers::new(vec![BEFORE; count], place);
        let slots = slots.iter().filter_map(adapted);
        slots
            .map(|(slot, vectors)| Self {
                slot,
                lambda_b: values(vectors.lambda_b.len()),
                lambda_d: values(vectors.lambda_d.len()),
                bias: values(vectors.bias.map_or(0, |bias| bias.len())),
            })
            .collect()
    }

    fn pointers(&mut self) -> SlotGradients {
        SlotGradients {
            slot: self.slot,
            lambda_b: self.lambda_b.pointer(),
            lambda_d: self.lambda_d.pointer(),
            bias: self.bias.pointer(),
        }
    }

    fn back(self) -> Slot {
        Slot { slot: self.slot, lambda_b: self.lambda_b.back(), lambda_d: self.lambda_d.back(), bias: self.bias.back() }
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

    /// Every output as bits of f32 (those of KL in two halves).
    pub fn named_bits(&self) -> Vec<(String, Vec<u32>)> {
        let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect();
        let halves = |value: &f64| [value.to_bits() as u32, (value.to_bits() >> 32) as u32];
        let mut named = vec![
            ("dx".to_owned(), bits(&self.dx.values())),
            ("KL".to_owned(), self.kl.iter().flat_map(halves).collect()),
        ];
        for (layer, slots) in self.layers.iter().enumerate() {
            named.push((format!("y of layer {layer}"), bits(&self.y[layer].values())));
            for slot in slots {
                let what = format!("of layer {layer}, slot {}", slot.slot);
                named.push((format!("dλ_b {what}"), bits(&slot.lambda_b)));
                named.push((format!("dλ_d {what}"), bits(&slot.lambda_d)));
                named.push((format!("dbias {what}"), bits(&slot.bias)));
            }
        }
        named
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
