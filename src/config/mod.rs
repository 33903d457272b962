//! The hyper-parameters of one adapter, PEFT's `adapter_config.json` both ways, and which modules are targeted.
//!
//! Names, defaults and meanings are those of `PveraConfig` and `VeraConfig` in PEFT 0.21.2. Two fields are ours:
//! [`Config::alpha`] and [`Config::logvar_bound`]. PEFT ignores them with a warning, so they are written only where
//! they are not the default.

mod access;
mod fields;
mod json;
mod model_types;
mod pattern;
mod python;
mod targeting;
#[cfg(test)]
mod tests;
mod values;

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::error::Result;
use crate::fail;

pub use json::LARGEST_FILE;
pub(crate) use json::as_python_writes;
pub use targeting::Targeting;

/// The largest rank: `2r` rows must be countable in 31 bits, as in every tensor library that reads our files.
pub const LARGEST_RANK: usize = (i32::MAX / 2) as usize;

/// The tasks that PEFT 0.21.2 knows; it refuses a file that names another.
const TASKS: [&str; 6] = ["SEQ_CLS", "SEQ_2_SEQ_LM", "CAUSAL_LM", "TOKEN_CLS", "QUESTION_ANS", "FEATURE_EXTRACTION"];

/// Which modules an adapter targets; see [`Targeting`] for the rules.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Targets {
    /// Whatever PEFT's table says for the model's type.
    #[default]
    None,
    /// A Python regular expression that matches the whole path, or `all-linear` in any case.
    Pattern(String),
    /// A module whose path is an entry or ends in `.entry`.
    List(Vec<String>),
}

/// Which method of PEFT's an adapter is of, JSON `peft_type`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Method {
    #[default]
    Pvera,
    /// PVeRA without the logvar half: A has r rows, λ_d has r numbers, and the latent is its mean.
    Vera,
}

impl Method {
    /// As PEFT spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pvera => "PVERA",
            Self::Vera => "VERA",
        }
    }

    /// Rows of A, which are the numbers of a λ_d: one for each mu and, where there is one, for each logvar.
    pub fn a_rows(self, rank: usize) -> usize {
        match self {
            Self::Pvera => 2 * rank,
            Self::Vera => rank,
        }
    }

    /// The same in words, for errors.
    pub fn a_rows_text(self) -> &'static str {
        match self {
            Self::Pvera => "2r",
            Self::Vera => "r",
        }
    }
}

/// Which biases an adapter learns. At most one adapter of a model may learn any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Bias {
    #[default]
    None,
    /// The biases of the adapted layers: `pvera_only`, or `vera_only`.
    PveraOnly,
    /// Every bias of the model.
    All,
}

/// Whether inference draws the latent instead of using its mean.
#[derive(Clone, Debug, PartialEq)]
pub enum Sampling {
    Everywhere(bool),
    /// Older files: by exact module path; a module that is not listed uses its mean.
    PerModule(BTreeMap<String, bool>),
}

/// JSON's null, one value, or a list of them.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum OneOrMany<T> {
    #[default]
    None,
    One(T),
    List(Vec<T>),
}

/// How a file or a setter spelled the known fields (`-1` for a wrapped key, `0` for `0.0`, the order of a list): a
/// field that nobody changed since is written back as it was read. Not part of a configuration's value.
#[derive(Clone, Debug, Default)]
pub struct Spelling(Map<String, Value>);

impl PartialEq for Spelling {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

/// The hyper-parameters of one adapter. `Config::default()` holds PEFT's defaults.
///
/// Fields may be written freely; [`Config::validate`] says whether they make sense together.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Of these fields, VeRA has no `sample_at_inference`, `generator_seed` and `logvar_bound`.
    pub method: Method,
    /// Rank of the latent, JSON `r` (256). `A` has `2 · rank` rows, or `rank` in VeRA.
    pub rank: usize,
    pub target_modules: Targets,
    /// Seed of the projections (0), taken modulo 2⁶⁴ as `torch.Generator.manual_seed` does.
    pub projection_prng_key: u64,
    /// Whether a checkpoint carries `A` and `B` (true), or they are drawn again from the key.
    pub save_projection: bool,
    /// Probability, in [0, 1), with which training drops an entry of `x` on its way to `A` (0); JSON `vera_dropout` in
    /// VeRA.
    pub pvera_dropout: f64,
    /// What a new adapter's `λ_d` is filled with (0.1).
    pub d_initial: f64,
    /// Whether base weights are `[in, out]`, as GPT-2's Conv1D stores them (false).
    pub fan_in_fan_out: bool,
    pub bias: Bias,
    /// Modules that are trained and saved whole; never targeted by the adapter.
    pub modules_to_save: Option<Vec<String>>,
    /// Whether a new adapter starts at `λ_b = 0`, `λ_d = d_initial` (true).
    pub init_weights: bool,
    pub sample_at_inference: Sampling,
    /// Seed of PyTorch's generator for the latent's noise; none means PyTorch's global generator.
    pub generator_seed: Option<u64>,
    /// Block indices to adapt; none and an empty list adapt all.
    pub layers_to_transform: OneOrMany<i64>,
    /// Regular expressions for the name of the module list that block indices count in.
    pub layers_pattern: OneOrMany<String>,
    pub inference_mode: bool,
    /// PEFT's hint at the class of a base model that is not from transformers.
    pub auto_mapping: Option<Map<String, Value>>,
    pub base_model_name_or_path: Option<String>,
    pub revision: Option<String>,
    pub task_type: Option<String>,
    /// The version whose format this is. PEFT fills its own in where a file has none, and so do we: 0.21.2.
    pub peft_version: Option<String>,
    /// Ours: the factor of the delta (1).
    pub alpha: f64,
    /// Ours: the largest `logvar` that is used (none: unbounded, as in PEFT).
    pub logvar_bound: Option<f64>,
    /// Fields that nobody here knows, kept as they were read.
    pub extras: Map<String, Value>,
    pub spelling: Spelling,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            method: Method::Pvera,
            rank: 256,
            target_modules: Targets::None,
            projection_prng_key: 0,
            save_projection: true,
            pvera_dropout: 0.0,
            d_initial: 0.1,
            fan_in_fan_out: false,
            bias: Bias::None,
            modules_to_save: None,
            init_weights: true,
            sample_at_inference: Sampling::Everywhere(false),
            generator_seed: None,
            layers_to_transform: OneOrMany::None,
            layers_pattern: OneOrMany::None,
            inference_mode: false,
            auto_mapping: None,
            base_model_name_or_path: None,
            revision: None,
            task_type: None,
            peft_version: Some("0.21.2".into()),
            alpha: 1.0,
            logvar_bound: None,
            extras: Map::new(),
            spelling: Spelling::default(),
        }
    }
}

impl Config {
    /// Whether the values make sense, each and together. Errors name the field, its value and what was wanted.
    pub fn validate(&self) -> Result<()> {
        self.check_values()?;
        if !self.block_containers().is_empty() && self.layers_to_transform == OneOrMany::None {
            fail!(Config, "layers_pattern is given without layers_to_transform; wanted both, or no layers_pattern");
        }
        Ok(())
    }

    /// The checks that need one field only, so that fields can be set in any order.
    fn check_values(&self) -> Result<()> {
        if !(1..=LARGEST_RANK).contains(&self.rank) {
            fail!(Config, "r is {}; wanted an integer from 1 to {LARGEST_RANK}", self.rank);
        }
        if !(0.0..1.0).contains(&self.pvera_dropout) {
            let name = if self.method == Method::Vera { "vera_dropout" } else { "pvera_dropout" };
            fail!(Config, "{name} is {}; wanted a probability in [0, 1)", self.pvera_dropout);
        }
        for (name, value) in
            [("d_initial", self.d_initial), ("alpha", self.alpha), ("logvar_bound", self.logvar_bound.unwrap_or(0.0))]
        {
            if !value.is_finite() {
                fail!(Config, "{name} is {value}; wanted a finite number");
            }
        }
        if let Some(task) = &self.task_type
            && !TASKS.contains(&task.as_str())
        {
            fail!(Config, "task_type is {task:?}; wanted null or one of {}", TASKS.join(", "));
        }
        Targeting::check_patterns(self)
    }

    /// The fragments of `layers_pattern`; none where Python's `len(layers_pattern)` is 0 or it is null, all of which
    /// mean any container.
    fn block_containers(&self) -> &[String] {
        match &self.layers_pattern {
            OneOrMany::One(fragment) if fragment.is_empty() => &[],
            fragments => fragments.entries(),
        }
    }

    /// Rows of A, and numbers of a λ_d.
    pub fn a_rows(&self) -> usize {
        self.method.a_rows(self.rank)
    }

    /// Whether inference samples the latent of this module.
    pub fn sample_at_inference_for(&self, module: &str) -> bool {
        if self.method == Method::Vera {
            return false;
        }
        match &self.sample_at_inference {
            Sampling::Everywhere(sample) => *sample,
            Sampling::PerModule(modules) => modules.get(module).copied().unwrap_or(false),
        }
    }

    /// Whether the adapter targets one module of a model of unknown type. For many modules, or for a null
    /// `target_modules`, build one [`Targeting`].
    pub fn targets(&self, path: &str, is_linear: bool, is_output_head: bool) -> Result<bool> {
        Targeting::new(self, None)?.matches(path, is_linear, is_output_head)
    }
}

impl<T> OneOrMany<T> {
    /// The value or values; empty for none.
    pub fn entries(&self) -> &[T] {
        match self {
            Self::None => &[],
            Self::One(value) => std::slice::from_ref(value),
            Self::List(values) => values,
        }
    }
}
