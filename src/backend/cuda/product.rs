//! `x wᵀ` on the device: which of the kernels, and where its parts go.

use super::arguments::{
    Combine, ELEMENT_THREADS, Matrix, Parts, Product, SPLIT_COLS, SPLIT_ROWS, SPLIT_THREADS, TILE_COLS, TILE_ROWS,
    TILE_THREADS,
};
use super::driver::Address;
use super::kernels::Kernel;
use super::prepared::{Group, Operand, Prepared, count};
use super::turn::{MOST_BLOCKS, Turn, elements};
use crate::error::{Error, Result};

/// Values of k in one chain, and in one part of a split product.
const DEPTH: usize = 256;

/// Up to so many rows a product is bound by reading the weight.
const FEW_ROWS: usize = 32;
/// Up to so many rows and tiles, the kernel for few is the faster one (197 rows of 768: 49 us a forward instead of 118).
const SOME_ROWS: usize = 256;
const FEW_TILES: usize = 159;
/// With fewer tiles than this, k is split, so that each multiprocessor has several (300 tiles on 132 of them: 68 us instead of 84).
const ENOUGH_TILES: usize = 400;

/// Rows that a grid of tiles covers.
pub const MOST_ROWS: usize = MOST_BLOCKS * TILE_ROWS;

/// Which kernel makes a product. The bits do not depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Products {
    AsSuits,
    /// As for many rows, however few there are.
    Tiled,
    /// As for some more rows.
    TiledInParts,
}

fn tiles(rows: usize, width: usize) -> usize {
    rows.div_ceil(TILE_ROWS) * width.div_ceil(TILE_COLS)
}

/// Whether the kernel for few rows makes a product. The bits do not depend on it.
fn is_of_few_rows(turn: &Turn<'_>, rows: usize, width: usize) -> bool {
    turn.products == Products::AsSuits && (rows <= FEW_ROWS || (rows <= SOME_ROWS && tiles(rows, width) <= FEW_TILES))
}

/// Parts that a product leaves, of so many rows, `depth` long, with `width` columns.
pub fn parts(turn: &Turn<'_>, rows: usize, depth: usize, width: usize) -> usize {
    let is_whole = match turn.products {
        Products::AsSuits => !is_of_few_rows(turn, rows, width) && tiles(rows, width) >= ENOUGH_TILES,
        Products::Tiled => true,
        Products::TiledInParts => false,
    };
    if is_whole { 1 } else { depth.div_ceil(DEPTH).max(1) }
}

/// Room for the results of products.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    pub address: Address,
    pub rows: usize,
    pub width: usize,
    pub parts: usize,
}

impl Room {
    /// Workspace for products of `rows` rows of x, `depth` long, with `width` columns in all.
    pub fn new(turn: &Turn<'_>, rows: usize, depth: usize, width: usize) -> Result<Self> {
        let parts = parts(turn, rows, depth, width);
        let Some(all) = rows.checked_mul(parts) else { return Err(Error::out_of_memory()) };
        Ok(Self { address: turn.take_f32(all, width)?, rows, width, parts })
    }

    /// A matrix of `rows` rows, where they are whole.
    pub fn whole(matrix: Matrix, rows: usize) -> Self {
        Self { address: matrix.data, rows, width: matrix.stride as usize, parts: 1 }
    }

    pub fn view(&self) -> Parts {
        Parts {
            data: self.address,
            stride: self.width as u64,
            part_stride: (self.rows * self.width) as u64,
            count: self.parts as u32,
            reserved: 0,
        }
    }
}

/// A product of the rows of one group of a call, or of all rows.
pub struct Job<'p> {
    pub prepared: &'p Prepared<'p>,
    /// Some rows only: those of this group.
    pub group: Option<&'p Group<'p>>,
    pub x: Matrix,
    /// Rows of x: those of the call, once or for every draw.
    pub rows: usize,
    pub weight: Operand,
    pub square: bool,
}

impl Job<'_> {
    fn members(&self) -> (Address, u32) {
        self.group.map_or((0, 0), |group| (self.prepared.members(), group.index))
    }

    /// Into columns of a room, from `column` on.
    pub fn run(&self, turn: &Turn<'_>, room: &Room, column: usize) -> Result<()> {
        let Operand { address, output_stride, input_stride, outputs, inputs, dtype } = self.weight;
        assert!(room.rows == self.rows && column + outputs <= room.width);
        assert!(self.rows <= MOST_ROWS);
        let (term, group) = self.members();
        let product = Product {
            x: self.x,
            w: address,
            w_output_stride: output_stride as u64,
            w_input_stride: input_stride as u64,
            w_dtype: dtype,
            square: u32::from(self.square),
            out: room.address + 4 * column as Address,
            out_stride: room.width as u64,
            part_stride: (room.rows * room.width) as u64,
            rows: count("rows times draws", self.rows)?,
            outputs: count("outputs", outputs)?,
            depth: count("inputs", inputs)?,
            group,
            term,
            terms: self.prepared.terms,
            rows_of_call: self.prepared.rows.count,
            reserved: 0,
        };
        let along_inputs = input_stride == 1;
        let (kernel, grid, threads) = if is_of_few_rows(turn, room.rows, room.width) {
            let kernel = if along_inputs { Kernel::ProductSplitK } else { Kernel::ProductSplitJ };
            (kernel, [outputs.div_ceil(SPLIT_COLS), room.parts, self.rows.div_ceil(SPLIT_ROWS)], SPLIT_THREADS)
        } else {
            let kernel = if along_inputs { Kernel::ProductTileK } else { Kernel::ProductTileJ };
            (kernel, [outputs.div_ceil(TILE_COLS), self.rows.div_ceil(TILE_ROWS), room.parts], TILE_THREADS)
        };
        // SAFETY: x has these rows and this depth, the weight these outputs, the room these columns.
        unsafe { turn.launch(kernel, grid, threads, &product) }
    }

    /// The whole sums of columns of a room, into another matrix.
    pub fn combine(&self, turn: &Turn<'_>, from: Parts, out: Matrix, cols: usize) -> Result<()> {
        let (term, group) = self.members();
        let combine = Combine {
            from,
            out,
            rows: count("rows times draws", self.rows)?,
            cols: count("columns", cols)?,
            group,
            rows_of_call: self.prepared.rows.count,
            term,
            terms: self.prepared.terms,
        };
        // SAFETY: both have these rows and columns.
        unsafe { turn.launch(Kernel::Combine, elements(self.rows, cols), ELEMENT_THREADS, &combine) }
    }
}
