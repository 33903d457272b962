//! Sums over rows, for the gradients of the vectors: in blocks of 64 rows one chain of fused multiply-adds from zero,
//! block sums added ascending. Threads split columns, so their number changes no bits.

use std::ops::Range;

use super::elementwise::AddRowProducts;
use super::workers::Session;
use crate::backend::{Call, Membership, Overwrite, TermGradients, Variance};
use crate::error::Result;
use crate::memory::Arena;
use crate::simd::Isa;
use crate::tensor::Matrix;

/// Rows of one chain.
pub const ROWS: usize = 64;

/// The sums of one term.
pub struct Sums<'a> {
    lambda_b: &'a mut [f32],
    lambda_d: &'a mut [f32],
    bias: &'a mut [f32],
}

/// A chunk of rows to be summed. The matrices of a chunk come with the row and the column that are their first.
pub struct Source<'a, 'g> {
    pub call: &'g Call<'a>,
    pub index: usize,
    pub rows: Range<usize>,
    pub p: &'g Matrix<'a>,
    pub dy: &'g Matrix<'a>,
    /// `z Bᵀ`: its first row, and the column of this term.
    pub expanded: (Matrix<'g>, usize, usize),
    /// dm: its first row, and the group's first latent that it has.
    pub dm: (Matrix<'g>, usize, usize),
}

/// Columns summed at a time.
const COLUMNS: usize = 128;

/// f32 of room that a task needs for factors that are not f32.
pub const ROOM: usize = 2 * ROWS * COLUMNS;

impl<'a> Sums<'a> {
    /// Only what is wanted is summed.
    pub fn new(arena: &'a Arena, width: usize, outputs: usize, wanted: &TermGradients<'_>) -> Result<Self> {
        Ok(Self {
            lambda_b: arena.filled(0.0, if wanted.lambda_b.is_some() { outputs } else { 0 })?,
            lambda_d: arena.filled(0.0, if wanted.lambda_d.is_some() { width } else { 0 })?,
            bias: arena.filled(0.0, if wanted.bias.is_some() { outputs } else { 0 })?,
        })
    }

    /// Adds a chunk.
    pub fn add(&mut self, isa: Isa, session: &Session<'_>, source: &Source<'_, '_>) -> Result<()> {
        let term = &source.call.terms[source.index];
        let (expanded, first_row, column) = source.expanded;
        let dy = Side { matrix: *source.dy, first_row: 0, column: 0 };
        let expanded = Side { matrix: expanded, first_row, column };
        sum(isa, session, source, self.lambda_b, (dy, Some(expanded), term.scale))?;
        let (dm, first_row, first_latent) = source.dm;
        let dm = Side { matrix: dm, first_row, column: 2 * (term.latent_column - first_latent) };
        let p = Side { matrix: *source.p, first_row: 0, column: term.p_column };
        sum(isa, session, source, self.lambda_d, (dm, Some(p), 1.0))?;
        sum(isa, session, source, self.bias, (dy, None, 1.0))
    }

    pub fn deliver(&self, targets: &mut TermGradients<'_>, overwrite: Overwrite) {
        put(targets.lambda_b.as_deref_mut(), self.lambda_b, overwrite.lambda_b);
        put(targets.lambda_d.as_deref_mut(), self.lambda_d, overwrite.lambda_d);
        put(targets.bias.as_deref_mut(), self.bias, overwrite.bias);
    }
}

fn put(target: Option<&mut [f32]>, sums: &[f32], overwrite: bool) {
    let Some(target) = target else { return };
    for (place, sum) in target.iter_mut().zip(sums) {
        *place = if overwrite { *sum } else { *place + *sum };
    }
}

/// One factor of a sum: row i of the call is row `i − first_row` of the matrix.
#[derive(Clone, Copy)]
struct Side<'a> {
    matrix: Matrix<'a>,
    first_row: usize,
    column: usize,
}

impl Side<'_> {
    fn part<'p>(&'p self, row: usize, first: usize, copy: &'p mut [f32]) -> &'p [f32] {
        self.matrix.part(row - self.first_row, self.column + first, copy)
    }
}

/// `totals += Σ over the source's rows of (scale · left) ∘ right` (without right: ones), columns split over the lanes.
fn sum(
    isa: Isa,
    session: &Session<'_>,
    source: &Source<'_, '_>,
    totals: &mut [f32],
    (left, right, scale): (Side<'_>, Option<Side<'_>>, f32),
) -> Result<()> {
    if totals.is_empty() {
        return Ok(());
    }
    let pieces = totals.len().div_ceil(COLUMNS);
    let length = totals.len();
    let shared = Columns(totals.as_mut_ptr());
    session.run(pieces, |piece, scratch| {
        let first = piece * COLUMNS;
        let count = COLUMNS.min(length - first);
        // SAFETY: pieces are disjoint and inside `totals`.
        let totals = unsafe { std::slice::from_raw_parts_mut(shared.get().add(first), count) };
        let (left_copies, right_copies) = scratch.room.0[..ROOM].split_at_mut(ROOM / 2);
        let ones = [1.0_f32; COLUMNS];
        for block in source.rows.clone().step_by(ROWS) {
            let (mut lefts, mut rights) = ([ones.as_ptr(); ROWS], [ones.as_ptr(); ROWS]);
            let mut copies = left_copies.chunks_exact_mut(COLUMNS).zip(right_copies.chunks_exact_mut(COLUMNS));
            let mut held = 0;
            for row in block..(block + ROWS).min(source.rows.end) {
                if source.call.membership.holds(row, source.index) {
                    let (left_copy, right_copy) = copies.next().expect("room for every row of a chain");
                    lefts[held] = left.part(row, first, &mut left_copy[..count]).as_ptr();
                    if let Some(right) = &right {
                        rights[held] = right.part(row, first, &mut right_copy[..count]).as_ptr();
                    }
                    held += 1;
                }
            }
            let sums = AddRowProducts { scale, left: &lefts[..held], right: &rights[..held], totals: &mut *totals };
            // SAFETY: each leads to `count` factors.
            unsafe { sums.run(isa) };
        }
        Ok(())
    })
}

struct Columns(*mut f32);

impl Columns {
    fn get(&self) -> *mut f32 {
        self.0
    }
}

// SAFETY: each task writes columns of its own.
unsafe impl Sync for Columns {}

/// Rows of one identity and sample share their noise: their slopes add before they are squared.
///
/// `order` is scratch with room for every row, so that this cannot fail.
pub fn add_variance(
    call: &Call<'_>,
    slopes: &Matrix<'_>,
    width: usize,
    order: &mut [usize],
    variance: &mut Variance<'_>,
) {
    let slope_of = |row: usize, column: usize| {
        let mut slope = [0.0];
        slopes.load(row, column, &mut slope);
        slope[0]
    };
    let value_of = |row: usize| variance.index.map_or(row, |index| index[row] as usize);
    let term_of = |row: usize| match call.membership {
        Membership::All => 0,
        Membership::ByRow(terms) => terms[row],
        Membership::BySlot { .. } => unreachable!("slots on a device are read there"),
    };
    let mut count = 0;
    for row in (0..call.rows).filter(|row| term_of(*row) >= 0) {
        order[count] = row;
        count += 1;
    }
    let order = &mut order[..count];
    let noise_of = |row: usize| (value_of(row), term_of(row), call.keys.identity(row), call.keys.sample(row));
    order.sort_unstable_by_key(|row| (noise_of(*row), *row));
    for same in order.chunk_by(|first, second| noise_of(*first) == noise_of(*second)) {
        let mut squares = 0.0;
        for column in 0..width {
            let slope: f64 = same.iter().map(|row| f64::from(slope_of(*row, column))).sum();
            squares += slope * slope;
        }
        variance.values[value_of(same[0])] += squares;
    }
}
