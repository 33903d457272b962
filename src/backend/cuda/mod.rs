//! The CUDA backend: the same steps as the CPU's, queued on a stream. In f32 the results have the CPU's bits.
//!
//! [`driver`] is libcuda, [`device`] a stream with its kernels and workspace, [`residents`] copies of what never changes.
//! A step is a list of kernel launches: [`forward`], [`backward`]. `kernels/` has the kernels, `docs/cuda.md` the reasons.

mod arguments;
mod backward;
mod device;
mod driver;
mod forward;
mod kernels;
mod lists;
mod memory;
mod prepared;
mod product;
mod residents;
mod self_test;
mod turn;
mod workspace;

pub use arguments::Fault;
pub use device::Device;
pub use memory::DeviceBuffer;
pub use residents::Residents;
pub use turn::Turn;

use super::{Backend, Backward, Call, Expand, Forward, Gradients, Part, Scope, Term, Weight};
use crate::error::Result;
use crate::fail;
use crate::memory::Arena;
use crate::tensor::{Matrix, MatrixMut};
use forward::{Layer, check_rows};
use prepared::Prepared;

/// One call's steps on a device.
#[derive(Clone, Copy)]
pub struct Cuda<'a, 'd> {
    pub turn: &'a Turn<'d>,
    /// For the lists of this call.
    pub arena: &'a Arena,
}

impl Backend for Cuda<'_, '_> {
    fn forward(&self, forward: &Forward<'_>, y: &[MatrixMut<'_>]) -> Result<()> {
        forward::forward(self.turn, self.arena, forward, y)
    }

    fn scratch_bytes(&self, forward: &Forward<'_>, backward: Option<(&Backward<'_>, &MatrixMut<'_>)>) -> Result<usize> {
        self.needs(forward, backward)
    }

    fn project(
        &self,
        projections: &[Call<'_>],
        x: &Matrix<'_>,
        scope: Scope,
        p: &MatrixMut<'_>,
        part: Part,
    ) -> Result<()> {
        check_whole(part)?;
        check_rows(projections, 1)?;
        let prepared = Prepared::of(self.turn, self.arena, projections)?;
        forward::project(self.turn, prepared, x, scope, p.cols(), Some(p))?;
        Ok(())
    }

    fn expand(&self, expand: &Expand<'_>, y: &[MatrixMut<'_>], part: Part) -> Result<()> {
        check_whole(part)?;
        forward::expand(self.turn, self.arena, expand, y)
    }

    fn moments(
        &self,
        call: &Call<'_>,
        x: &Matrix<'_>,
        p: &Matrix<'_>,
        mean: &MatrixMut<'_>,
        variance: &MatrixMut<'_>,
    ) -> Result<()> {
        check_rows(std::slice::from_ref(call), 1)?;
        let prepared = &Prepared::of(self.turn, self.arena, std::slice::from_ref(call))?[0];
        let layer = Layer { turn: self.turn, prepared, p: forward::lying(p), draws: 1, kept: None };
        layer.variance(variance)?;
        layer.expand(Some(x), mean)
    }

    fn latent(&self, call: &Call<'_>, p: &Matrix<'_>, mu: &MatrixMut<'_>, logvar: &MatrixMut<'_>) -> Result<()> {
        let prepared = &Prepared::of(self.turn, self.arena, std::slice::from_ref(call))?[0];
        let layer = Layer { turn: self.turn, prepared, p: forward::lying(p), draws: 1, kept: None };
        layer.moments_of_latents(mu, logvar)
    }

    fn backward(
        &self,
        group: &Backward<'_>,
        gradients: &mut [Gradients<'_, '_>],
        dx: Option<&MatrixMut<'_>>,
    ) -> Result<()> {
        check_rows(group.calls, 1)?;
        backward::backward(self.turn, self.arena, group, gradients, dx)
    }

    fn merge(&self, _: &[Term<'_>], _: Weight<'_>, _: &MatrixMut<'_>, _: bool) -> Result<()> {
        fail!(Unsupported, "a merge runs on the CPU; wanted a context of PVERA_BACKEND_CPU, and the weight there")
    }
}

fn check_whole(part: Part) -> Result<()> {
    if part.count != 1 {
        fail!(Unsupported, "count is {}; a call on a CUDA stream has one part, the whole: wanted 1", part.count);
    }
    Ok(())
}

impl Cuda<'_, '_> {
    /// Bytes of workspace that such calls take, counted by walking through them without queueing anything.
    fn needs(&self, forward: &Forward<'_>, backward: Option<(&Backward<'_>, &MatrixMut<'_>)>) -> Result<usize> {
        let dry = || self.turn.device().dry_turn();
        let outputs = self.arena.collected(
            forward
                .calls
                .iter()
                .map(|call| MatrixMut::shape_only(forward.draws.saturating_mul(call.rows), call.outputs)),
        )?;
        let turn = dry();
        forward::forward(&turn, self.arena, forward, outputs)?;
        let mut most = turn.counted();
        // Moments and latents of a layer: all of p is lent beside what they take.
        for call in forward.calls {
            let turn = dry();
            let step = Cuda { turn: &turn, arena: self.arena };
            turn.take_f32(forward.x.rows(), forward.width)?;
            let p = MatrixMut::shape_only(forward.x.rows(), forward.width);
            let y = MatrixMut::shape_only(call.rows, call.outputs);
            step.project(forward.projections, &forward.x, Scope::All, &p, Part::WHOLE)?;
            step.moments(call, &forward.x, &p.as_const(), &y, &y)?;
            most = most.max(turn.counted());
        }
        let Some((group, dx)) = backward else { return Ok(most) };
        let turn = dry();
        // Under the policy that keeps nothing, p is made again.
        turn.take_f32(group.p.rows(), group.p.cols())?;
        forward::project(
            &turn,
            Prepared::of(&turn, self.arena, group.projections)?,
            &forward.x,
            Scope::All,
            forward.width,
            None,
        )?;
        backward::dry(&turn, self.arena, group, dx)?;
        Ok(most.max(turn.counted()))
    }
}
