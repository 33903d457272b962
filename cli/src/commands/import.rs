//! `pvera import`: checkpoints of others as PEFT's.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use pvera::interchange::{ALPHA, Options, import_authors};
use serde_json::json;

use crate::adapters::guard_inputs;
use crate::listener::Ear;
use crate::outcome::{Failure, Report, Result, shown};

/// Write a PEFT checkpoint of another program's
#[derive(Debug, Subcommand)]
pub enum Import {
    Authors(Authors),
}

/// A state dictionary of the method's authors (github.com/leofillioux/pvera), as safetensors
///
/// Their q and v of a fused qkv, each through projections of its own, become one layer of twice the rank.
#[derive(Args, Debug)]
pub struct Authors {
    /// The safetensors file
    file: PathBuf,
    /// The checkpoint folder that is written
    out: PathBuf,
    /// By which they multiply the delta
    #[arg(long, value_name = "NUMBER", default_value_t = ALPHA, allow_negative_numbers = true)]
    alpha: f64,
    /// Which of the copies of a grid search
    #[arg(long, value_name = "N", default_value_t = 0)]
    head: usize,
    /// Draw the projections from this seed, where the file holds none
    #[arg(long, value_name = "SEED")]
    seed: Option<u64>,
    /// What is taken off the module paths (theirs is "backbone.")
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    prefix: String,
    /// Replace the checkpoint that OUT holds
    #[arg(long)]
    force: bool,
}

impl Import {
    pub fn run(&self, ear: &Ear) -> Result<Report> {
        let Import::Authors(authors) = self;
        authors.run(ear)
    }
}

impl Authors {
    fn run(&self, ear: &Ear) -> Result<Report> {
        if !self.alpha.is_finite() {
            return Err(Failure::usage(format!("--alpha is {}; wanted a finite number", self.alpha)));
        }
        guard_inputs(&self.out, &[&self.file])?;
        let authors = pvera::interchange::Authors { alpha: self.alpha, head: self.head, seed: self.seed };
        let options = Options { prefix: &self.prefix, replace: self.force, listener: ear, ..Options::default() };
        import_authors(&self.file, &self.out, &authors, &options)?;
        let outline = pvera::interchange::Outline::read(&self.out)?;
        let (layers, rank) = (outline.modules.len(), outline.config.rank);
        let text = format!("{}: {layers} layers of rank {rank}\n", self.out.display());
        Ok(Report::new(text, json!({"out": shown(&self.out), "layers": layers, "rank": rank})))
    }
}
