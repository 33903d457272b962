//! Which rows go through which product together: rows of one A and B share it, whatever their vectors.

use std::ops::Range;

use super::tile::UNIT;
use crate::backend::{Call, Membership, Part, Term};
use crate::error::Result;
use crate::memory::Arena;

/// Rows handled at a time: large enough to amortise reading a weight, small enough for x, p and z to stay in L2; whole tiles
/// of rows, and whole blocks of the sums over rows.
pub const ROW_BLOCK: usize = 192;

/// Rows that share a pair of projections. Their ranks and columns are equal.
#[derive(Debug)]
pub struct Group<'a> {
    rows: Rows<'a>,
    owner: Owner<'a>,
}

#[derive(Debug)]
enum Rows<'a> {
    All,
    /// Ascending.
    Listed(&'a [u32]),
}

#[derive(Debug)]
enum Owner<'a> {
    One(usize, &'a Term<'a>),
    PerRow { terms: &'a [Term<'a>], of_row: &'a [i32], any: &'a Term<'a> },
}

/// A few rows of a group, numbered as in the call.
#[derive(Clone, Debug)]
pub enum RowBlock<'a> {
    Run(Range<usize>),
    Listed(&'a [u32]),
}

impl RowBlock<'_> {
    pub fn len(&self) -> usize {
        match self {
            RowBlock::Run(range) => range.len(),
            RowBlock::Listed(rows) => rows.len(),
        }
    }

    /// The call's number of the block's row `place`.
    pub fn row(&self, place: usize) -> usize {
        match self {
            RowBlock::Run(range) => range.start + place,
            RowBlock::Listed(rows) => rows[place] as usize,
        }
    }
}

impl<'a> Group<'a> {
    /// The groups of a call. Those of summed terms are in the order in which they are added.
    pub fn of(call: &Call<'a>, arena: &'a Arena) -> Result<&'a [Group<'a>]> {
        let terms = call.terms;
        let Membership::ByRow(of_row) = call.membership else {
            let all = |(index, term)| Group { rows: Rows::All, owner: Owner::One(index, term) };
            return Ok(arena.collected(terms.iter().enumerate().map(all))?);
        };
        // The first term of each term's group.
        let first_of = arena.collected(terms.iter().map(|term| {
            terms.iter().position(|other| other.shares_projections(term)).expect("it shares them with itself")
        }))?;
        let mut groups = arena.list(terms.len())?;
        for (first, any) in terms.iter().enumerate().filter(|(index, _)| first_of[*index] == *index) {
            let in_group = |index: &i32| usize::try_from(*index).is_ok_and(|index| first_of[index] == first);
            let mut rows = arena.list(of_row.iter().filter(|index| in_group(index)).count())?;
            for (row, _) in of_row.iter().enumerate().filter(|(_, index)| in_group(index)) {
                rows.push(row as u32);
            }
            groups.push(Group { rows: Rows::Listed(rows.into_slice()), owner: Owner::PerRow { terms, of_row, any } });
        }
        Ok(groups.into_slice())
    }

    /// A term that stands for the group in all that its rows share: A, B, rank, columns.
    pub fn shared(&self) -> &'a Term<'a> {
        match self.owner {
            Owner::One(_, term) => term,
            Owner::PerRow { any, .. } => any,
        }
    }

    /// The term of one of the group's rows, with its number.
    pub fn term(&self, row: usize) -> (usize, &'a Term<'a>) {
        match self.owner {
            Owner::One(index, term) => (index, term),
            Owner::PerRow { terms, of_row, .. } => (of_row[row] as usize, &terms[of_row[row] as usize]),
        }
    }

    /// The group's rows within a range of the call's.
    pub fn within(&self, range: Range<usize>) -> RowBlock<'_> {
        match &self.rows {
            Rows::All => RowBlock::Run(range),
            Rows::Listed(rows) => {
                let place = |bound: usize| rows.partition_point(|row| (*row as usize) < bound);
                RowBlock::Listed(&rows[place(range.start)..place(range.end)])
            }
        }
    }

    /// The term of every row, when it is one and the same.
    pub fn only(&self) -> Option<&'a Term<'a>> {
        match self.owner {
            Owner::One(_, term) => Some(term),
            Owner::PerRow { .. } => None,
        }
    }

    /// Whether some term of the group's rows is such.
    pub fn any(&self, is: impl Fn(&Term<'_>) -> bool) -> bool {
        match self.owner {
            Owner::One(_, term) => is(term),
            Owner::PerRow { terms, .. } => terms.iter().any(is),
        }
    }
}

/// Consecutive pieces of a range, none longer than `ROW_BLOCK`.
pub fn blocks(range: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    blocks_of(range, ROW_BLOCK)
}

/// Consecutive pieces of a range, none longer than `height`.
pub fn blocks_of(range: Range<usize>, height: usize) -> impl Iterator<Item = Range<usize>> {
    range.clone().step_by(height).map(move |start| start..(start + height).min(range.end))
}

/// A rectangle of one lane's work.
#[derive(Clone, Debug)]
pub struct Tile {
    pub rows: Range<usize>,
    pub cols: Range<usize>,
}

/// Rows from which a lane has enough work with a share of the rows: with fewer, every lane would read the whole weight.
const ROWS_OF_A_LANE: usize = 24;

/// Whether `count` lanes share the rows, rather than the columns.
pub fn splits_rows(rows: usize, count: usize) -> bool {
    count == 1 || rows >= ROWS_OF_A_LANE * count
}

/// Splits `rows × cols` into `count` tiles, by rows where there are enough of them, otherwise by whole units of columns.
/// The split changes no bits: an element's sum does not know its tile.
pub fn tile(rows: usize, cols: usize, index: usize, count: usize) -> Tile {
    let share = Part { index, count };
    if splits_rows(rows, count) {
        return Tile { rows: share.of(rows), cols: 0..cols };
    }
    let units = share.of(cols.div_ceil(UNIT));
    Tile { rows: 0..rows, cols: units.start * UNIT..(units.end * UNIT).min(cols) }
}
