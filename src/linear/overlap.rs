//! No output may lie on memory that the call reads or writes otherwise: the check of a whole call.

use std::fmt;

use super::Linear;
use super::plan::Plan;
use crate::context::Context;
use crate::error::Result;
use crate::fail;
use crate::memory::Arena;
use crate::tensor::{Device, Matrix, MatrixMut, disjoint, disjoint_mut};

/// What an error calls a place. Written only when there is one.
#[derive(Clone, Copy, Debug)]
pub(super) enum Name<'a> {
    Plain(&'a str),
    /// One of `count` places of a group: without its number where there is only one.
    Item {
        what: &'a str,
        index: usize,
        count: usize,
    },
    /// A field of one layer's gradients.
    Gradient {
        layer: usize,
        layers: usize,
        slot: Option<usize>,
        what: &'a str,
    },
    OfLayer {
        what: &'a str,
        layer: &'a str,
    },
    OfSlot {
        what: &'a str,
        slot: i32,
        layer: &'a str,
    },
}

impl fmt::Display for Name<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Name::Plain(what) | Name::Item { what, count: 1, .. } => out.write_str(what),
            Name::Item { what, index, .. } => write!(out, "{what}[{index}]"),
            Name::Gradient { layer, layers, slot, what } => {
                write!(out, "{}", Name::Item { what: "gradients", index: layer, count: layers })?;
                slot.map_or(Ok(()), |slot| write!(out, ".slots[{slot}]"))?;
                write!(out, ".{what}")
            }
            Name::OfLayer { what, layer } => write!(out, "{what} of layer '{layer}'"),
            Name::OfSlot { what, slot, layer } => write!(out, "{what} of slot {slot} of layer '{layer}'"),
        }
    }
}

/// How a call reads what it is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Read {
    /// Where it lies.
    InPlace,
    /// From the host, whence it is taken to where the context computes.
    Copied,
}

/// Everything that a call reads besides x or p: the caller's noise and row keys, and of each layer its weight, its bias
/// and its adapters' vectors.
#[inline]
pub(super) fn for_each_read(
    plan: &Plan<'_>,
    linears: &[&Linear],
    mut visit: impl FnMut(&Name<'_>, &Matrix<'_>, Read) -> Result<()>,
) -> Result<()> {
    let mut visit =
        |name: &Name<'_>, matrix: Option<&Matrix<'_>>, read| matrix.map_or(Ok(()), |matrix| visit(name, matrix, read));
    let (noise, keys) = (&plan.request.noise, &plan.request.rows.keys);
    visit(&Name::Plain("noise.eps"), noise.eps.as_ref(), Read::InPlace)?;
    visit(&Name::Plain("noise.dropout_mask"), noise.dropout_mask.as_ref(), Read::InPlace)?;
    let identity = keys.identity.map(|keys| vector(bytemuck::cast_slice(keys)));
    let sample = keys.sample.map(|keys| vector(bytemuck::cast_slice(keys)));
    visit(&Name::Plain("rows.identity"), identity.as_ref(), Read::Copied)?;
    visit(&Name::Plain("rows.sample"), sample.as_ref(), Read::Copied)?;
    for ((linear, call), slots) in linears.iter().zip(plan.calls).zip(plan.slots) {
        let declared = linear.layer();
        let layer = declared.name.as_str();
        let of_layer = |what| Name::OfLayer { what, layer };
        let weight = declared.weight.as_ref().map(|(weight, _)| weight);
        visit(&of_layer("the base weight"), weight, Read::InPlace)?;
        visit(&of_layer("the base bias"), declared.bias.as_ref(), Read::InPlace)?;
        for (slot, term) in slots.iter().zip(call.terms) {
            let of_slot = |what| Name::OfSlot { what, slot: *slot, layer };
            let read = if term.originals.vectors.is_some() { Read::Copied } else { Read::InPlace };
            visit(&of_slot("lambda_b"), Some(&term.lambda_b.matrix()), read)?;
            visit(&of_slot("lambda_d"), Some(&term.lambda_d.matrix()), read)?;
            visit(&of_slot("the learned bias"), term.bias.map(|bias| bias.matrix()).as_ref(), read)?;
        }
    }
    Ok(())
}

fn vector(values: &[f32]) -> Matrix<'_> {
    Matrix::from_f32(values, 1, values.len())
}

/// The outputs of a call share memory neither with each other nor with anything that it reads.
pub(super) fn check_apart<'n>(
    context: &Context,
    plan: &Plan<'_>,
    linears: &[&Linear],
    (input_name, input): (&str, &Matrix<'_>),
    outputs: &[MatrixMut<'_>],
    name: impl Fn(usize) -> Name<'n>,
) -> Result<()> {
    check_methods(context, plan, linears)?;
    check_place(context, input_name, input)?;
    for (place, output) in outputs.iter().enumerate() {
        check_place(context, name(place), &output.as_const())?;
        disjoint(name(place), output, input_name, input)?;
        for (other_place, other) in outputs[..place].iter().enumerate() {
            disjoint_mut(name(place), output, name(other_place), other)?;
        }
    }
    for_each_read(plan, linears, |read_name, read, how| {
        if how == Read::InPlace {
            check_place(context, read_name, read)?;
        }
        outputs.iter().enumerate().try_for_each(|(place, output)| disjoint(name(place), output, read_name, read))
    })
}

/// The context computes what the adapters are.
pub(super) fn check_methods(context: &Context, plan: &Plan<'_>, linears: &[&Linear]) -> Result<()> {
    if context.place() == Device::Host {
        return Ok(());
    }
    for ((linear, call), slots) in linears.iter().zip(plan.calls).zip(plan.slots) {
        if let Some(place) = call.terms.iter().position(|term| !term.has_logvar()) {
            fail!(
                Unsupported,
                "the adapter of slot {} of layer '{}' is VeRA's, which runs on the CPU only, so far; this context computes on {}",
                slots[place],
                linear.layer().name,
                context.place()
            );
        }
    }
    Ok(())
}

/// A matrix lies where the context computes.
pub(super) fn check_place(context: &Context, name: impl fmt::Display, matrix: &Matrix<'_>) -> Result<()> {
    let (given, wanted) = (matrix.device(), context.place());
    if given != wanted && !matrix.is_empty() {
        fail!(Device, "{name} is on {given}; this context computes on {wanted}");
    }
    Ok(())
}

/// A contiguous part of memory, by address.
#[derive(Clone, Copy, Debug)]
pub(super) struct Region<'a> {
    name: Name<'a>,
    start: usize,
    end: usize,
}

impl<'a> Region<'a> {
    pub fn new<T>(name: Name<'a>, start: *const T, count: usize) -> Result<Self> {
        let start = start as usize;
        match count.checked_mul(size_of::<T>()).and_then(|bytes| start.checked_add(bytes)) {
            Some(end) => Ok(Self { name, start, end }),
            None => fail!(Shape, "{name} has {count} values; that is more than the address space holds"),
        }
    }

    /// From a matrix's first element to its last; what lies between rows counts as its own.
    pub fn of(name: Name<'a>, matrix: &Matrix<'_>) -> Self {
        let start = matrix.data() as usize;
        let bytes = match matrix.is_empty() {
            true => 0,
            false => ((matrix.rows() - 1) * matrix.row_stride() + matrix.cols()) * matrix.dtype().size(),
        };
        Self { name, start, end: start + bytes }
    }

    fn is_empty(&self) -> bool {
        self.start == self.end
    }

    pub fn is_same_place(&self, other: &Self) -> bool {
        (self.start, self.end) == (other.start, other.end)
    }

    pub fn check_apart(&self, other: &Region<'_>) -> Result<()> {
        if self.start.max(other.start) < self.end.min(other.end) {
            fail!(Overlap, "{} overlaps {}; wanted memory of its own", self.name, other.name);
        }
        Ok(())
    }
}

/// Outputs that share no memory with each other, by address, so that a place is looked up without comparing it with all.
#[derive(Debug)]
pub(super) struct Apart<'a>(&'a [Region<'a>]);

impl<'a> Apart<'a> {
    /// Of two that meet, the later one in `regions` is named first.
    pub fn new(arena: &'a Arena, regions: &[Region<'a>]) -> Result<Self> {
        let mut order = arena.list(regions.len())?;
        (0..regions.len()).filter(|place| !regions[*place].is_empty()).for_each(|place| order.push(place));
        order.sort_unstable_by_key(|place| regions[*place].start);
        for pair in order.windows(2) {
            let (earlier, later) = (pair[0].min(pair[1]), pair[0].max(pair[1]));
            regions[later].check_apart(&regions[earlier])?;
        }
        Ok(Self(arena.collected(order.iter().map(|place| regions[*place]))?))
    }

    /// None of them meets `other`.
    pub fn check(&self, other: &Region<'_>) -> Result<()> {
        let first = self.0.partition_point(|own| own.end <= other.start);
        self.0.get(first).map_or(Ok(()), |own| own.check_apart(other))
    }
}
