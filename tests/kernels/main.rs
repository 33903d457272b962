//! The kernels: products bit for bit against their rule, and every call against the oracle, around every tile.

mod bf16;
#[path = "../common/mod.rs"]
mod common;
mod mixes;
mod oracle;
mod products;

/// ±1 around the micro-kernels' rows, the rows from which blocks are widened, and the tallest block.
const ROWS: [usize; 18] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 23, 24, 25, 191, 192, 193];
/// ±1 around a panel's width and one and two blocks of k.
const DEPTHS: [usize; 11] = [1, 2, 15, 16, 17, 255, 256, 257, 511, 512, 513];
/// ±1 around a panel, a unit, a stretch of columns and a tile's row.
const OUTPUTS: [usize; 14] = [1, 15, 16, 17, 31, 32, 33, 63, 64, 65, 95, 96, 97, 129];

/// `(rows, depth, outputs)`: every value of each with some of the others, in another mix for each `turn`.
fn sizes(turn: usize) -> impl Iterator<Item = (usize, usize, usize)> {
    (0..ROWS.len()).map(move |at| {
        let (depth, output) = ((at + turn) * 3 % DEPTHS.len(), (at + 2 * turn) * 5 % OUTPUTS.len());
        (ROWS[at], DEPTHS[depth], OUTPUTS[output])
    })
}

#[test]
fn every_size_is_met_in_every_turn() {
    for turn in 0..5 {
        assert!(DEPTHS.iter().all(|depth| sizes(turn).any(|size| size.1 == *depth)));
        assert!(OUTPUTS.iter().all(|outputs| sizes(turn).any(|size| size.2 == *outputs)));
    }
}
