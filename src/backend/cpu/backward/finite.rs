//! Before anything is written: exponentials that forward did not take must fit f32 too.

use super::super::Cpu;
use super::super::groups::RowBlock;
use super::super::latent;
use super::super::scratch::Sizes;
use super::layer::Layer;
use crate::backend::Mode;
use crate::error::Result;

/// `exp(logvar)` of every row where the divergence needs it, and `exp(½ logvar)` where slopes are wanted of means.
pub fn check(cpu: &Cpu<'_>, layer: &Layer<'_>) -> Result<()> {
    let call = layer.call;
    let takes_means = call.terms.iter().any(|term| term.mode == Mode::Mean);
    let takes_others = layer.needs_kl() || (layer.wants.slopes && takes_means);
    if !takes_others {
        return Ok(());
    }
    let rank = call.terms.iter().map(|term| term.rank()).max().unwrap_or(0);
    let (lanes, isa) = (cpu.workers.lanes(), cpu.arithmetic.isa);
    cpu.workers.run(lanes, Sizes { vectors: 3 * rank, ..Sizes::default() }, |index, scratch| {
        let share = crate::backend::Part { index, count: lanes }.of(call.rows);
        for of in layer.groups {
            let rank = of.group.shared().rank();
            let (projected, rest) = scratch.vectors.0.split_at_mut(2 * rank);
            let block: RowBlock<'_> = of.group.within(share.clone());
            for place in 0..block.len() {
                let row = block.row(place);
                let (_, term) = of.group.term(row);
                let projected = &mut projected[..term.width()];
                layer.p.load(row, term.p_column, projected);
                if layer.wants.slopes {
                    latent::deviations(isa, term, projected, &mut rest[..rank])
                        .map_err(|at| at.error(row, "½ logvar"))?;
                }
                if layer.needs_kl() {
                    latent::variances(isa, term, projected, &mut rest[..rank]).map_err(|at| at.error(row, "logvar"))?;
                }
            }
        }
        Ok(())
    })
}
