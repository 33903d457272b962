//! A network with its adapters and one batch; and the comparison of the kernels with the oracle on it.

use pvera::backend::{Kl, Mode};
use pvera::config::Config;
use pvera::context::{Context, Kind};
use pvera::linear::{Linear, ModeChoice, Policy, Request};
use pvera::model::Snapshot;
use pvera::tensor::Dtype;

use super::host::Host;
use super::layers::{Spec, linears, model, publish};
use super::step::{Outcome, Step, run};
use super::{Random, context};

pub const POLICIES: [Policy; 3] = [Policy::KeepLatent, Policy::KeepDelta, Policy::Recompute];

pub struct Setup {
    pub snapshot: Snapshot,
    pub x: Host,
    pub dy: Vec<Host>,
    pub slots: Vec<i32>,
    pub random: Random,
}

impl Setup {
    pub fn new(seed: u64, specs: &[Spec], configs: &[Config], rows: usize) -> Self {
        let mut random = Random(seed);
        let model = model(&mut random, specs);
        let snapshot = publish(&model, &mut random, configs);
        let mut batch = |cols: usize| Host::f32(rows, cols, &random.values(rows * cols));
        let x = batch(specs[0].inputs);
        let dy = specs.iter().map(|spec| batch(spec.outputs)).collect();
        Self { snapshot, x, dy, slots: (0..configs.len() as i32).collect(), random }
    }

    pub fn in_type(mut self, dtype: Dtype, padding: usize) -> Self {
        self.x = self.x.like(dtype, padding);
        self.dy.iter_mut().for_each(|dy| *dy = dy.like(dtype, padding + 1));
        self
    }

    pub fn linears(&self) -> Vec<&Linear> {
        linears(&self.snapshot, self.dy.len())
    }

    /// Of shards of the inputs there are means alone: the latents' variance needs the whole of p.
    pub fn has_part_of_inputs(&self) -> bool {
        self.linears().iter().any(|linear| linear.layer().in_features < linear.layer().in_total)
    }

    /// The request in the mode that the layers have.
    pub fn possible<'a>(&self, request: &Request<'a>) -> Request<'a> {
        let mut request = *request;
        if self.has_part_of_inputs() {
            request.noise.mode = ModeChoice::All(Mode::Mean);
        }
        request
    }

    pub fn outcome<'a>(&'a self, context: &Context, request: &Request<'a>, alter: impl Fn(&mut Step<'a>)) -> Outcome {
        let mut step = Step::new(self.linears(), &self.slots, &self.x, &self.dy, *request);
        alter(&mut step);
        if self.has_part_of_inputs() {
            (step.request, step.kl) = (self.possible(&step.request), Kl::default());
            (step.divergence, step.variance) = (false, false);
        }
        run(context, &step).unwrap()
    }

    /// The kernels, under every policy and on 0 and 3 threads, against the oracle.
    pub fn agree<'a>(&'a self, what: &str, request: &Request<'a>, alter: impl Fn(&mut Step<'a>)) -> Outcome {
        let (stored, summed) = match self.x.dtype() {
            Dtype::F32 => (1e-5, 2e-5),
            Dtype::F16 => (2e-3, 2e-5),
            Dtype::Bf16 => (1e-2, 2e-5),
        };
        let dtype = self.x.dtype();
        let wanted = self.outcome(&context(Kind::Reference, 0), request, |step| {
            step.dtype = dtype;
            alter(step);
        });
        for policy in POLICIES {
            for threads in [0, 3] {
                let found = self.outcome(&context(Kind::Cpu, threads), request, |step| {
                    (step.policy, step.dtype) = (policy, dtype);
                    alter(step);
                });
                found.assert_close(&format!("{what}, {policy:?}, {threads} threads"), &wanted, stored, summed);
            }
        }
        wanted
    }
}
