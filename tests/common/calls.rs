//! The calls without a tape, all of them on one network; and the comparison of the kernels with the oracle on them.

use pvera::backend::Mode;
use pvera::context::{Context, Kind};
use pvera::linear::{ModeChoice, Request, forward, latent, moments, project_width, sample};
use pvera::tensor::{Dtype, MatrixMut};

use super::context;
use super::host::Host;
use super::place::Placed;
use super::setup::Setup;
use super::step::BEFORE;

/// An output by name.
pub type Output = (String, Host);

impl Setup {
    /// What forward, sample, moments and latent give, one matrix after the other.
    pub fn calls(&self, context: &Context, request: &Request<'_>, draws: usize) -> Vec<Output> {
        let (linears, rows, place) = (self.linears(), self.x.rows(), context.place());
        let (x, request) = (self.x.on(place), &self.possible(request));
        let output = |rows, cols| Host::filled(self.x.dtype(), rows, cols, 1, BEFORE).on(place);
        let mut y: Vec<Placed> = self.dy.iter().map(|dy| output(rows, dy.cols())).collect();
        let targets: Vec<MatrixMut<'_>> = y.iter_mut().map(Placed::matrix_mut).collect();
        forward(context, &linears, &x.matrix(), request, &targets).unwrap();
        drop(targets);
        let mut outputs: Vec<Output> = y.into_iter().map(|y| ("y".to_owned(), y.back())).collect();
        for linear in linears.into_iter().filter(|_| !self.has_part_of_inputs()) {
            let cols = linear.layer().out_features;
            let mut drawn = *request;
            drawn.noise.mode = ModeChoice::All(Mode::Sample);
            let mut y = output(draws * rows, cols);
            sample(context, linear, &x.matrix(), &drawn, draws, &y.matrix_mut()).unwrap();
            let (mut mean, mut variance) = (output(rows, cols), output(rows, cols));
            moments(context, linear, &x.matrix(), request, &mean.matrix_mut(), &variance.matrix_mut()).unwrap();
            let (_, latents) = project_width(linear, rows, request).unwrap();
            let (mut mu, mut logvar) = (output(rows, latents), output(rows, latents));
            latent(context, linear, &x.matrix(), request, &mu.matrix_mut(), &logvar.matrix_mut()).unwrap();
            let named = [("draws", y), ("mean", mean), ("variance", variance), ("mu", mu), ("logvar", logvar)];
            outputs.extend(named.map(|(name, host)| (format!("{name} of {}", linear.layer().name), host.back())));
        }
        assert!(outputs.iter().all(|(_, host)| host.padding_is_intact()), "something was written between the rows");
        outputs
    }

    /// The kernels on 0 and 3 threads against the oracle.
    pub fn calls_agree(&self, what: &str, request: &Request<'_>, draws: usize) {
        let bound = match self.x.dtype() {
            Dtype::F32 => 1e-5,
            other => super::tolerance::of(other),
        };
        let wanted = self.calls(&context(Kind::Reference, 0), request, draws);
        for threads in [0, 3] {
            let found = self.calls(&context(Kind::Cpu, threads), request, draws);
            for ((name, found), (_, wanted)) in found.iter().zip(&wanted) {
                let what = format!("{what}, {threads} threads: {name}");
                super::tolerance::assert_close_or_empty(&what, &found.values(), &wanted.values(), bound);
            }
        }
    }
}
