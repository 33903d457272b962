//! The command line: options that commands share, and the list of commands.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use pvera::bank::Options as BankOptions;
use pvera::tensor::Dtype;

use crate::commands::{bank, combine, completions, export, grow, import, inspect, merge, replay, shrink, verify};
use crate::outcome::Failure;

const EXIT_CODES: &str = "\
Exit codes: 0 done; 1 something was found (verify, replay --expect); 2 the command line is wrong; 3 failed; 130 stopped by \
SIGINT or SIGTERM. What is stopped or fails leaves nothing half-written, and nothing that exists is replaced without --force.

With --json, one object goes to stdout: the command's results, or {\"error\": {\"code\", \"message\", \"hint\"}}. docs/cli.md has \
the members.";

/// Adapters of PVeRA and VeRA as files: inspect, verify, convert, pack, replay.
#[derive(Debug, Parser)]
#[command(name = "pvera", version = pvera::VERSION, after_long_help = EXIT_CODES, propagate_version = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Args, Debug)]
pub struct Output {
    /// Print one JSON object instead of text
    #[arg(long, global = true)]
    pub json: bool,
    /// No progress bar and no warnings (in JSON they are listed all the same)
    #[arg(long, short, global = true)]
    pub quiet: bool,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    Inspect(inspect::Inspect),
    Verify(verify::Verify),
    Merge(merge::Merge),
    #[command(subcommand)]
    Export(export::Export),
    Shrink(shrink::Shrink),
    Grow(grow::Grow),
    #[command(subcommand)]
    Import(import::Import),
    Combine(combine::Combine),
    #[command(subcommand)]
    Bank(bank::Bank),
    Replay(replay::Replay),
    Completions(completions::Completions),
    #[command(hide = true)]
    Man(completions::Man),
}

impl Command {
    pub fn name(&self) -> &'static str {
        match self {
            Command::Inspect(_) => "inspect",
            Command::Verify(_) => "verify",
            Command::Merge(_) => "merge",
            Command::Export(export) => export.name(),
            Command::Shrink(_) => "shrink",
            Command::Grow(_) => "grow",
            Command::Import(_) => "import authors",
            Command::Combine(_) => "combine",
            Command::Bank(bank) => bank.name(),
            Command::Replay(_) => "replay",
            Command::Completions(_) => "completions",
            Command::Man(_) => "man",
        }
    }
}

/// The layers that an adapter is for. A checkpoint says how many outputs each has, not how many inputs.
#[derive(Args, Debug, Default)]
pub struct LayerArgs {
    /// The base model: a safetensors file, or a folder with model.safetensors or with its index and shards. It tells the
    /// layers' sizes and the base's element type; only headers are read
    #[arg(long, value_name = "PATH")]
    pub model: Option<PathBuf>,
    /// What stands before a module's path in the names of the model's tensors
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true, requires = "model")]
    pub prefix: String,
    /// In the place of a model: inputs (in_features) of all layers, or of those whose path is MODULE or ends in .MODULE
    #[arg(long, value_name = "[MODULE=]N", conflicts_with = "model")]
    pub inputs: Vec<Inputs>,
    /// Element type of the base model, to which projections from the key are rounded [default: the model's, or f32]
    #[arg(long, value_name = "DTYPE")]
    pub base_dtype: Option<Element>,
}

impl LayerArgs {
    /// Of what no model has to be known for.
    pub fn refuse(&self, what: &str) -> Result<(), Failure> {
        let given = [
            ("--model", self.model.is_some()),
            ("--inputs", !self.inputs.is_empty()),
            ("--base-dtype", self.base_dtype.is_some()),
        ];
        match given.into_iter().find(|(_, is_given)| *is_given) {
            Some((option, _)) => Err(Failure::usage(format!("{option} is for a checkpoint, not for {what}"))),
            None => Ok(()),
        }
    }
}

/// How much a bank's file may ask for: it alone does not decide how much memory is taken.
#[derive(Args, Debug)]
pub struct DrawArgs {
    /// The widest A and the tallest B that may be drawn from a bank's key [default: 262144]
    #[arg(long, value_name = "N")]
    in_max: Option<usize>,
    #[arg(long, value_name = "N", hide = true)]
    out_max: Option<usize>,
}

/// Wider than the layers of today's models.
const LARGEST: usize = 1 << 18;

impl DrawArgs {
    pub fn options(&self) -> BankOptions {
        let bound = |given: Option<usize>| given.or(Some(LARGEST));
        BankOptions { in_max: bound(self.in_max), out_max: bound(self.out_max), ..BankOptions::default() }
    }

    /// Of what is no bank.
    pub fn refuse(&self) -> Result<(), Failure> {
        match self.in_max.or(self.out_max) {
            Some(_) => Err(Failure::usage("--in-max and --out-max are for a bank")),
            None => Ok(()),
        }
    }
}

/// One `--inputs`.
#[derive(Clone, Debug)]
pub struct Inputs {
    pub module: Option<String>,
    pub count: usize,
}

impl std::str::FromStr for Inputs {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (module, count) = match text.rsplit_once('=') {
            Some((module, count)) => (Some(module.to_owned()), count),
            None => (None, text),
        };
        match count.parse() {
            Ok(count) if count > 0 && module.as_deref() != Some("") => Ok(Self { module, count }),
            _ => Err(format!("'{text}' is not N or MODULE=N with a number above 0")),
        }
    }
}

/// `NAME=TEXT`.
#[derive(Clone, Debug)]
pub struct Pair {
    pub name: String,
    pub text: String,
}

impl std::str::FromStr for Pair {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((name, text)) if !name.is_empty() && !text.is_empty() => {
                Ok(Self { name: name.to_owned(), text: text.to_owned() })
            }
            _ => Err(format!("'{text}' is not two names with = between them")),
        }
    }
}

/// What becomes of an adapter's mean.
#[derive(Args, Debug)]
pub struct MeanArgs {
    /// Take the mean of an adapter that samples at inference
    #[arg(long)]
    pub mean: bool,
    /// Leave out what the target cannot hold (a learned bias, a carried tensor), with a warning
    #[arg(long)]
    pub leave_out: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Element {
    F32,
    F16,
    Bf16,
}

impl From<Element> for Dtype {
    fn from(element: Element) -> Self {
        match element {
            Element::F32 => Dtype::F32,
            Element::F16 => Dtype::F16,
            Element::Bf16 => Dtype::Bf16,
        }
    }
}
