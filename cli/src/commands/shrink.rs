//! `pvera shrink`: a checkpoint without the projections that its key draws.

use std::path::PathBuf;

use clap::Args;
use pvera::interchange::{self, Options};
use serde_json::json;

use crate::adapters::{TENSOR_FILE, checkpoint_of};
use crate::args::Element;
use crate::listener::Ear;
use crate::outcome::{Failure, Report, Result, shown};
use crate::privacy::made_of;

/// Leave A and B out of a checkpoint, after checking that its key draws them bit for bit
#[derive(Args, Debug)]
pub struct Shrink {
    /// Checkpoint folder
    checkpoint: PathBuf,
    /// The folder that is written; with --force it may be the same
    out: PathBuf,
    /// Try this rounding alone [default: f32, bf16, f16]
    #[arg(long, value_name = "DTYPE")]
    base_dtype: Option<Element>,
    /// Replace the checkpoint that OUT holds
    #[arg(long)]
    force: bool,
}

impl Shrink {
    pub fn run(&self, ear: &Ear) -> Result<Report> {
        let folder = checkpoint_of(&self.checkpoint)?;
        made_of(&[&folder]);
        let dtype = self.base_dtype.map(Into::into);
        let options = Options { dtype, replace: self.force, listener: ear, ..Options::default() };
        let bytes = |folder: &std::path::Path| {
            let path = folder.join(TENSOR_FILE);
            std::fs::metadata(&path).map(|data| data.len()).map_err(|error| Failure::io(&path, "read", &error))
        };
        let before = bytes(&folder)?;
        let shrunk = interchange::shrink(&folder, &self.out, &options)?;
        let after = bytes(&self.out)?;
        let (dtype, in_max, out_max) = (shrunk.dtype.name(), shrunk.in_max, shrunk.out_max);
        let text = format!(
            "{}: {before} to {after} bytes; its load is to be told base_dtype {dtype}, in_max {in_max}, out_max {out_max}\n",
            self.out.display()
        );
        let json = json!({
            "out": shown(&self.out), "bytes_before": before, "bytes": after,
            "base_dtype": dtype, "in_max": in_max, "out_max": out_max,
        });
        Ok(Report::new(text, json))
    }
}
