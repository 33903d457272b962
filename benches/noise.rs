//! What a keyed normal costs, in nanoseconds, for every instruction set of this machine: the best of many repeats.

use std::hint::black_box;
use std::time::Instant;

use pvera::noise::{DropoutKey, NormalKey, Row};
use pvera::simd::Isa;

/// Values that are drawn between two readings of the clock: 64 KiB of them.
const VALUES: usize = 16_384;
const RANKS: [usize; 4] = [16, 64, 256, 512];

fn main() {
    let (normals, masks) = (NormalKey::new(1, 2, 3), DropoutKey::new(1, 2, 3));
    let mut out = vec![0.0; VALUES];
    println!(
        "{:40}{}",
        "nanoseconds a value, one thread",
        RANKS.map(|rank| format!("{:>9}", format!("r = {rank}"))).join("")
    );
    for isa in Isa::all() {
        report(isa, "a call a row", &mut out, |rank, out| {
            for (row, identity) in out.chunks_exact_mut(rank).zip(0..) {
                normals.fill_on(isa, identity, 0, false, row);
            }
        });
        report(isa, "rows in one call", &mut out, |rank, out| {
            let rows = out.chunks_exact_mut(rank).zip(0..);
            normals.fill_rows(isa, false, rows.map(|(out, identity)| Row { identity, sample: 0, first: 0, out }));
        });
        report(isa, "dropout masks", &mut out, |rank, out| {
            for (row, identity) in out.chunks_exact_mut(rank).zip(0..) {
                masks.fill_on(isa, identity, 0, 0, 0.1, row).expect("a probability");
            }
        });
    }
}

fn report(isa: Isa, what: &str, out: &mut [f32], draw: impl Fn(usize, &mut [f32])) {
    // Software multiply-adds are slow enough to be timed less often.
    let repeats = if isa == Isa::PORTABLE { 50 } else { 1000 };
    let times = RANKS.map(|rank| {
        let once = |_| {
            let start = Instant::now();
            draw(rank, black_box(&mut *out));
            start.elapsed().as_secs_f64() * 1e9 / out.len() as f64
        };
        (0..repeats).map(once).fold(f64::INFINITY, f64::min)
    });
    println!("{:40}{}", format!("{isa:?}, {what}"), times.map(|time| format!("{time:9.2}")).join(""));
}
