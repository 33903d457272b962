//! `pvera combine`: one adapter in the place of a weighted sum.

use std::path::{Path, PathBuf};

use clap::Args;
use pvera::adapter::Adapter;
use pvera::interchange::Options;
use pvera::memory::Allocator;
use serde_json::json;

use crate::adapters::{Host, Need, checkpoint_of, guard_inputs};
use crate::args::LayerArgs;
use crate::listener::Ear;
use crate::outcome::{Failure, Report, Result, shown};

/// Write the one adapter that is nearest to a weighted sum of adapters of one store
///
/// The error that is printed is the largest, over layers, of the relative Frobenius norm of what is left; it is 0 where the
/// adapters share λ_d, or λ_b, up to a factor. The variance is not that of the sum: one latent is drawn, with the weighted mean
/// of the logvar halves.
#[derive(Args, Debug)]
pub struct Combine {
    /// Checkpoint folders; config and layers are those of the first
    #[arg(value_name = "ADAPTER", required = true)]
    adapters: Vec<PathBuf>,
    /// The checkpoint folder that is written
    out: PathBuf,
    /// A weight for each adapter [default: 1 over their number]
    #[arg(long, value_name = "W,W,…", value_delimiter = ',', allow_negative_numbers = true)]
    weights: Vec<f64>,
    /// Fail where the error is larger
    #[arg(long, value_name = "ERROR")]
    at_most: Option<f64>,
    #[command(flatten)]
    layers: LayerArgs,
    /// Replace the checkpoint that OUT holds
    #[arg(long)]
    force: bool,
}

impl Combine {
    pub fn run(&self, ear: &Ear) -> Result<Report> {
        let count = self.adapters.len();
        if !self.weights.is_empty() && self.weights.len() != count {
            let given = self.weights.len();
            return Err(Failure::usage(format!("--weights has {given} numbers; wanted {count}, one for each adapter")));
        }
        let folders = self.adapters.iter().map(|path| checkpoint_of(path)).collect::<Result<Vec<PathBuf>>>()?;
        let paths: Vec<&Path> = folders.iter().map(PathBuf::as_path).collect();
        let inputs: Vec<&Path> = paths.iter().copied().chain(self.layers.model.as_deref()).collect();
        guard_inputs(&self.out, &inputs)?;
        Options { replace: self.force, ..Options::default() }.refuse_existing(&self.out)?;
        let host = Host::of(&self.layers, &paths, Need::Largest, ear)?;
        let adapters = paths.iter().map(|folder| host.load(folder, None)).collect::<Result<Vec<_>>>()?;
        let weight = |place: usize| self.weights.get(place).copied().unwrap_or(1.0 / count as f64);
        let terms: Vec<(&Adapter, f64)> =
            adapters.iter().enumerate().map(|(place, adapter)| (&**adapter, weight(place))).collect();
        let (combined, error) = Adapter::combined(&terms, &Allocator::default())?;
        if let Some(limit) = self.at_most.filter(|limit| error > *limit) {
            let message = format!("the nearest adapter is {error:.3e} from the sum; --at-most is {limit}");
            return Err(Failure::new(pvera::error::Code::Argument, message).hint(
                "an engine runs the exact sum with pvera_rows.active, at the price of a latent for each adapter",
            ));
        }
        if self.force {
            combined.save(&self.out)?
        } else {
            combined.save_new(&self.out)?
        }
        let text = format!("{}: {count} adapters combined, relative error {error:.3e}\n", self.out.display());
        let weights: Vec<f64> = (0..count).map(weight).collect();
        Ok(Report::new(text, json!({"out": shown(&self.out), "weights": weights, "error": error})))
    }
}
