//! `pvera replay`: a logged prediction of one layer again, with the same bits.

use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, ValueEnum};
use pvera::adapter::Adapter;
use pvera::backend::{Mode, RowKeys};
use pvera::context::{Context, Kind as Backend};
use pvera::error::Code;
use pvera::interchange::{ModelFiles, Outline};
use pvera::linear::{Linear, ModeChoice, Noise, Request, Rows as WhichRows, forward};
use pvera::memory::Allocator;
use pvera::model::{Layer, WeightLayout};
use pvera::noise::adapter_identity;
use pvera::tensor::{Matrix, MatrixMut};
use serde_json::json;

use super::inspect::{Kind, open_whole};
use crate::adapters::{Host, Need, Sizes, guard_inputs};
use crate::args::{DrawArgs, LayerArgs};
use crate::listener::Ear;
use crate::matrices::Rows;
use crate::outcome::{Failure, Report, Result, shown};

/// Run one layer again on logged rows: the same seed, identities and samples give the same bits
///
/// Prints y of every row, draw after draw. y is the adapter's delta; with --base added to what the base gave, with --with-base the
/// whole layer, computed here. Rows are JSON ([[…], […]]), .npy or safetensors.
#[derive(Args, Debug)]
pub struct Replay {
    /// Checkpoint folder, or bank
    adapter: PathBuf,
    /// The layer's module path
    #[arg(long, value_name = "MODULE")]
    layer: String,
    /// Rows of x; - is stdin
    #[arg(long, value_name = "FILE")]
    input: PathBuf,
    /// The tensor's name in the input file, where it holds several
    #[arg(long, value_name = "NAME")]
    tensor: Option<String>,
    /// The name that the adapter was published under, by which it draws; of a bank, which adapter [default: default]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// The number that it draws by, in the place of its name's
    #[arg(long, value_name = "N")]
    adapter_identity: Option<u64>,
    /// The call's seed
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Identity of each row, or of the first one, from which the others count on
    #[arg(long, value_name = "N,N,…", value_delimiter = ',', default_value = "0")]
    identity: Vec<u64>,
    /// Number of the first sample
    #[arg(long, value_name = "N", default_value_t = 0)]
    sample: u32,
    /// How many samples of each row
    #[arg(long, value_name = "N", default_value = "1")]
    draws: std::num::NonZeroU32,
    /// Sample 2j + 1 has the negated noise of sample 2j
    #[arg(long)]
    antithetic: bool,
    /// How the latent is made
    #[arg(long, value_name = "MODE", default_value = "sample")]
    mode: Latent,
    /// What y begins with: the base's outputs, a row for each row of x
    #[arg(long, value_name = "FILE", conflicts_with = "with_base")]
    base: Option<PathBuf>,
    /// The tensor's name in that file, where it holds several
    #[arg(long, value_name = "NAME", requires = "base")]
    base_tensor: Option<String>,
    /// Begin with the base's own output, from the weight (and bias) in --model
    #[arg(long, requires = "model")]
    with_base: bool,
    #[command(flatten)]
    layers: LayerArgs,
    #[command(flatten)]
    draws_from: DrawArgs,
    /// Compare with these rows, bit for bit; a difference makes the exit code 1
    #[arg(long, value_name = "FILE")]
    expect: Option<PathBuf>,
    /// The tensor's name in that file, where it holds several
    #[arg(long, value_name = "NAME", requires = "expect")]
    expect_tensor: Option<String>,
    /// Write y as safetensors, as the tensor 'y'
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Replace OUT
    #[arg(long)]
    force: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Latent {
    /// mu + eps ∘ exp(½ logvar)
    Sample,
    /// mu
    Mean,
    /// mu + exp(½ logvar)
    Fixed,
    /// As the checkpoint's sample_at_inference says
    AsPeft,
}

impl Replay {
    pub fn run(&self, ear: &Ear) -> Result<Report> {
        if let Some(out) = &self.out {
            let files = [&self.base, &self.layers.model, &self.expect].into_iter().flatten().map(PathBuf::as_path);
            guard_inputs(out, &[&*self.adapter, &self.input].into_iter().chain(files).collect::<Vec<_>>())?;
        }
        let x = Rows::read(&self.input, "--tensor", self.tensor.as_deref())?;
        let count = x.count();
        ear.take_signals();
        let identities = self.identities(count)?;
        let adapter = self.load(x.cols, ear)?;
        let number = adapter.layers().find(&self.layer)?;
        let outputs = adapter.layers().get(number)?.out_total;
        if !self.with_base {
            adapter.check_biases()?;
        }
        let begin = self
            .base
            .as_ref()
            .map(|path| Rows::read(path, "--base-tensor", self.base_tensor.as_deref()))
            .transpose()?;
        if let Some(base) = begin.as_ref().filter(|base| (base.count(), base.cols) != (count, outputs)) {
            let message = format!("--base has {} rows of {}; wanted {count} of {outputs}", base.count(), base.cols);
            return Err(Failure::new(Code::Shape, message));
        }
        let linear = Linear::single(adapter.clone(), number);
        let context = Context::new(Backend::Cpu, 0, None, Allocator::default())?;
        let input = Matrix::from_f32(&x.values, count, x.cols);
        let draws = self.draws.get();
        let Some(last) = self.sample.checked_add(draws - 1) else {
            return Err(Failure::usage(format!("--sample {} and --draws {draws} go beyond {}", self.sample, u32::MAX)));
        };
        let mut y = Rows { cols: outputs, values: Vec::new() };
        for sample in self.sample..=last {
            let mut values = begin.as_ref().map_or_else(|| vec![0.0; count * outputs], |base| base.values.clone());
            let keys = RowKeys { identity: Some(&identities), sample_base: sample, ..RowKeys::default() };
            let request =
                Request { rows: WhichRows { keys, ..WhichRows::default() }, noise: self.noise(), training: false };
            forward(&context, &[&linear], &input, &request, &[MatrixMut::from_f32(&mut values, count, outputs)])?;
            y.values.append(&mut values);
        }
        self.report(&y, adapter.identity())
    }

    fn noise(&self) -> Noise<'static> {
        let mode = match self.mode {
            Latent::Sample => ModeChoice::All(Mode::Sample),
            Latent::Mean => ModeChoice::All(Mode::Mean),
            Latent::Fixed => ModeChoice::All(Mode::Fixed),
            Latent::AsPeft => ModeChoice::AsPeft,
        };
        Noise { mode, seed: self.seed, antithetic: self.antithetic, ..Noise::default() }
    }

    fn identities(&self, count: usize) -> Result<Vec<u64>> {
        match self.identity[..] {
            [first] => Ok((0..count as u64).map(|row| first.wrapping_add(row)).collect()),
            _ if self.identity.len() == count => Ok(self.identity.clone()),
            _ => {
                let given = self.identity.len();
                Err(Failure::usage(format!("--identity has {given} numbers; wanted one, or {count}, one for each row")))
            }
        }
    }

    /// The adapter, with the layer as wide as the rows are.
    fn load(&self, width: usize, ear: &Ear) -> Result<Arc<Adapter>> {
        let folder = match Kind::of(&self.adapter)? {
            Kind::Adapter(folder) => folder,
            Kind::Bank => return self.load_from_bank(width, ear),
            kind => {
                let message =
                    format!("'{}' is a {}; wanted a checkpoint or a bank", self.adapter.display(), kind.name());
                return Err(Failure::new(Code::Argument, message));
            }
        };
        self.draws_from.refuse()?;
        let mut sizes = Sizes::new(&self.layers)?;
        let outline = Outline::read(&folder)?;
        let dtype = sizes.add(&folder, &outline, Need::Largest, ear)?;
        let outputs = sizes.set_inputs(&self.layer, width)?;
        let base = if self.with_base { self.base_layer(width, outputs, outline.config.fan_in_fan_out)? } else { None };
        let host = Host::with(&sizes, &[dtype], base, ear)?;
        let named = adapter_identity(self.name.as_deref().unwrap_or("default"));
        host.load(&folder, Some(self.adapter_identity.unwrap_or(named)))
    }

    fn load_from_bank(&self, width: usize, ear: &Ear) -> Result<Arc<Adapter>> {
        let Some(name) = &self.name else {
            return Err(Failure::usage("a bank holds many adapters; wanted --name, which of them"));
        };
        if self.with_base || self.adapter_identity.is_some() {
            return Err(Failure::usage("--with-base and --adapter-identity are for a checkpoint, not for a bank"));
        }
        self.layers.refuse("a bank")?;
        Ok(open_whole(&self.adapter, &self.draws_from, Some((&self.layer, width)), ear)?.adapter(name)?)
    }

    /// The layer with the weight and bias that the model's files hold. They live as long as the program.
    fn base_layer(&self, inputs: usize, outputs: usize, transposed: bool) -> Result<Option<Layer>> {
        let Some(path) = &self.layers.model else { return Ok(None) };
        let files = ModelFiles::open(path)?;
        let held = |ending: &str| -> Result<Option<Matrix<'static>>> {
            let name = format!("{}{}.{ending}", self.layers.prefix, self.layer);
            let Some((file, _)) = files.find(&name) else { return Ok(None) };
            let rows = Rows::of_tensor(&files.files()[file], &name)?;
            let (count, cols) = (rows.count(), rows.cols);
            Ok(Some(Matrix::from_f32(Vec::leak(rows.values), count, cols)))
        };
        files.wanted(&format!("{}{}.weight", self.layers.prefix, self.layer))?;
        let layout = if transposed { WeightLayout::InOut } else { WeightLayout::OutIn };
        let mut layer = Layer::whole(self.layer.as_str(), inputs, outputs);
        layer.weight = held("weight")?.map(|weight| (weight, layout));
        layer.bias = held("bias")?;
        Ok(Some(layer))
    }

    fn report(&self, y: &Rows, identity: Option<u64>) -> Result<Report> {
        let mut json = json!({
            "layer": self.layer, "seed": self.seed, "sample": self.sample, "draws": self.draws,
            "adapter_identity": identity.map(|number| number.to_string()), "shape": [y.count(), y.cols],
        });
        let mut text = String::new();
        let mut differs = None;
        if let Some(path) = &self.expect {
            let expected = Rows::read(path, "--expect-tensor", self.expect_tensor.as_deref())?;
            differs = difference(y, &expected);
            let same = differs.is_none();
            text = match &differs {
                None => format!("{} rows have the same bits\n", y.count()),
                Some(difference) => format!("found: {difference}\n"),
            };
            json["same"] = same.into();
            json["difference"] = json!(differs);
        }
        if let Some(out) = &self.out {
            y.write(out, "y", self.force)?;
            text.push_str(&format!("{}: {} rows of {}\n", out.display(), y.count(), y.cols));
            json["out"] = json!(shown(out));
        } else {
            json["y"] = y.json();
            if self.expect.is_none() {
                text = y.text();
            }
        }
        Ok(Report::new(text, json).found(differs.is_some()))
    }
}

/// Where two results first differ.
fn difference(y: &Rows, expected: &Rows) -> Option<String> {
    if (y.count(), y.cols) != (expected.count(), expected.cols) {
        return Some(format!(
            "{} rows of {}; --expect has {} of {}",
            y.count(),
            y.cols,
            expected.count(),
            expected.cols
        ));
    }
    let differs = |(ours, theirs): (&f32, &f32)| ours.to_bits() != theirs.to_bits();
    let place = y.values.iter().zip(&expected.values).position(differs)?;
    let (row, col) = (place / y.cols, place % y.cols);
    Some(format!("row {row}, column {col} is {:?}; --expect has {:?}", y.values[place], expected.values[place]))
}
