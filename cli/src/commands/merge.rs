//! `pvera merge`: an adapter's mean folded into a model on disk.

use std::path::PathBuf;

use clap::Args;
use pvera::context::{Context, Kind};
use pvera::error::Code;
use pvera::interchange::{ModelFiles, Options, merge_files};
use pvera::memory::Allocator;
use serde_json::json;

use crate::adapters::{Host, Need, checkpoint_of, guard_inputs};
use crate::args::{Element, LayerArgs, MeanArgs};
use crate::listener::Ear;
use crate::outcome::{Failure, Report, Result, shown};

/// Fold an adapter's mean into a safetensors model, shard by shard
///
/// Weights pass a few megabytes at a time, so that the model need not fit in memory. Everything else is copied byte for byte.
#[derive(Args, Debug)]
pub struct Merge {
    /// Checkpoint folder
    adapter: PathBuf,
    /// A safetensors file, or a folder with model.safetensors or with its index and shards
    model: PathBuf,
    /// A new or empty folder
    out: PathBuf,
    /// What stands before a module's path in the names of the model's tensors
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    prefix: String,
    /// Element type of the base model where the model's differs [default: the model's]
    #[arg(long, value_name = "DTYPE")]
    base_dtype: Option<Element>,
    #[command(flatten)]
    mean: MeanArgs,
    /// Replace OUT whole: what it holds is removed
    #[arg(long)]
    force: bool,
    /// Threads [default: the machine's]
    #[arg(long, value_name = "N")]
    threads: Option<std::num::NonZeroUsize>,
}

impl Merge {
    pub fn run(&self, ear: &Ear) -> Result<Report> {
        let folder = checkpoint_of(&self.adapter)?;
        guard_inputs(&self.out, &[&folder, &self.model])?;
        let inside = |out: PathBuf| folder.canonicalize().is_ok_and(|folder| out.starts_with(folder));
        if self.force && self.out.canonicalize().is_ok_and(inside) {
            let message = format!("'{}' is inside the adapter's folder, '{}'", self.out.display(), folder.display());
            return Err(Failure::new(Code::Argument, message).hint("another OUT is wanted"));
        }
        let layers = LayerArgs {
            model: Some(self.model.clone()),
            prefix: self.prefix.clone(),
            base_dtype: self.base_dtype,
            ..LayerArgs::default()
        };
        let adapter = Host::of(&layers, &[&folder], Need::Each, ear)?.load(&folder, None)?;
        let threads = self.threads.or_else(|| std::thread::available_parallelism().ok()).map_or(1, usize::from);
        let context = Context::new(Kind::Cpu, threads - 1, None, Allocator::default())?;
        let options = Options {
            mean: self.mean.mean,
            leave_out: self.mean.leave_out,
            replace: self.force,
            prefix: &self.prefix,
            listener: ear,
            ..Options::default()
        };
        let files = ModelFiles::open(&self.model)?;
        merge_files(&context, &adapter, &files, &self.out, &options)?;
        let (layers, shards) = (adapter.adapted_layers().count(), files.files().len());
        let bytes: u64 = files.files().iter().map(|file| file.length()).sum();
        let text = format!("{}: {layers} layers merged, {shards} files, {bytes} bytes\n", self.out.display());
        Ok(Report::new(text, json!({"out": shown(&self.out), "layers": layers, "files": shards, "bytes": bytes})))
    }
}
