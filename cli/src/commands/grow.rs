//! `pvera grow`: a checkpoint with the projections that its key draws.

use std::path::PathBuf;

use clap::Args;
use pvera::interchange::{self, Options, Outline};
use pvera::tensor::Dtype;
use serde_json::json;

use crate::adapters::{Need, Sizes, checkpoint_of};
use crate::args::LayerArgs;
use crate::listener::Ear;
use crate::outcome::{Report, Result, shown};
use crate::privacy::made_of;

/// Write the A and B that a checkpoint's key draws into it: the reverse of shrink
#[derive(Args, Debug)]
pub struct Grow {
    /// Checkpoint folder
    checkpoint: PathBuf,
    /// The folder that is written; with --force it may be the same
    out: PathBuf,
    /// The largest in_features over all adapted layers [default: by --model or --inputs]
    #[arg(long, value_name = "N", conflicts_with_all = ["model", "inputs"])]
    in_max: Option<usize>,
    /// The largest out_features [default: the longest λ_b]
    #[arg(long, value_name = "N")]
    out_max: Option<usize>,
    #[command(flatten)]
    layers: LayerArgs,
    /// Replace the checkpoint that OUT holds
    #[arg(long)]
    force: bool,
}

impl Grow {
    pub fn run(&self, ear: &Ear) -> Result<Report> {
        let folder = checkpoint_of(&self.checkpoint)?;
        made_of(&[&folder]);
        let (in_max, model_dtype) = match self.in_max {
            Some(in_max) => (in_max, None),
            None => {
                let mut sizes = Sizes::new(&self.layers)?;
                let dtype = sizes.add(&folder, &Outline::read(&folder)?, Need::Largest, ear)?;
                (sizes.largest().0, dtype)
            }
        };
        let dtype = self.layers.base_dtype.map(Dtype::from).or(model_dtype);
        let options = Options { dtype, replace: self.force, listener: ear, ..Options::default() };
        interchange::grow(&folder, &self.out, in_max, self.out_max, &options)?;
        let text = format!("{}: written with its projections\n", self.out.display());
        Ok(Report::new(text, json!({"out": shown(&self.out), "in_max": in_max})))
    }
}
