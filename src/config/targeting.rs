//! Which modules an adapter targets, by PEFT 0.21.2's rules, compiled once for many module paths.

use std::collections::HashSet;

use super::pattern::Pattern;
use super::{Config, Targets, model_types};
use crate::error::Result;
use crate::fail;

/// `target_modules` that means every linear layer, in any case.
const ALL_LINEAR: &str = "all-linear";

/// The compiled form of a configuration's `target_modules`, `modules_to_save`, `layers_to_transform` and
/// `layers_pattern`.
///
/// - A string is a Python regular expression that matches the whole path; block indices then don't matter.
/// - A list targets a module whose path equals an entry, whatever its block, or ends in `.entry`.
/// - `all-linear` targets every linear layer but the output head, which the caller points out.
/// - Null asks PEFT's table for the model's type.
/// - Modules that `modules_to_save` matches, and all below them, are excluded first.
///
/// PEFT rewrites `all-linear` and lists of 20 or more entries into the fewest suffixes that select the same modules of
/// the model at hand, and only then do block indices apply to them. Checkpoints hold the rewritten list, so loading
/// is the same. For a new `all-linear` adapter block indices apply here always, as they do in PEFT for any model of 20
/// or more linear layers; a new list applies as it stands.
#[derive(Debug)]
pub struct Targeting {
    saved_whole: Vec<Pattern>,
    rule: Rule,
    blocks: Option<Blocks>,
}

#[derive(Debug)]
enum Rule {
    AllLinear,
    Pattern(Pattern),
    Names(HashSet<String>),
}

/// The block indices to keep, and where in a path the index stands.
#[derive(Debug)]
struct Blocks {
    indices: Vec<i64>,
    patterns: Vec<Pattern>,
}

impl Targeting {
    /// `model_type` is that of the transformers configuration; only a null `target_modules` asks for it.
    ///
    /// Errors: `Config` for a regular expression that is invalid or too large, or a null `target_modules` with a model
    /// type that PEFT's table does not hold; `Unsupported` for the few parts of Python's syntax that are missing here.
    pub fn new(config: &Config, model_type: Option<&str>) -> Result<Self> {
        let rule = match &config.target_modules {
            Targets::None => match model_type.map(|name| (name, model_types::targets(name))) {
                Some((_, Some(targets))) => Rule::new(&targets)?,
                Some((name, None)) => {
                    fail!(
                        Config,
                        "target_modules is null, and PEFT has no default for the model type {name:?}; name them"
                    )
                }
                None => fail!(Config, "target_modules is null; wanted targets, or the model's type to look them up"),
            },
            targets => Rule::new(targets)?,
        };
        Ok(Self { saved_whole: saved_whole(config)?, rule, blocks: Blocks::new(config)? })
    }

    /// Whether every pattern compiles.
    pub(super) fn check_patterns(config: &Config) -> Result<()> {
        Rule::new(&config.target_modules)?;
        saved_whole(config)?;
        Blocks::new(config)?;
        Ok(())
    }

    /// Whether the adapter targets the module at `path`, a dotted path as in PyTorch's `named_modules`.
    ///
    /// `is_linear` and `is_output_head` matter to `all-linear` only. PEFT excludes the output head of transformers'
    /// models only, so for another model pass false. A module that is targeted but not linear is PEFT's error and
    /// the caller's to report. The error is `Config`, for a regular expression that takes too long on this path.
    pub fn matches(&self, path: &str, is_linear: bool, is_output_head: bool) -> Result<bool> {
        if path.is_empty() {
            return Ok(false);
        }
        for pattern in &self.saved_whole {
            if pattern.matches(path)? {
                return Ok(false);
            }
        }
        let (is_entry, found) = match &self.rule {
            Rule::Pattern(pattern) => return pattern.matches(path),
            // Reduced to suffixes, only a path without a dot is an entry itself.
            Rule::AllLinear => (!path.contains('.'), is_linear && !is_output_head),
            Rule::Names(names) => {
                let is_entry = names.contains(path);
                (is_entry, is_entry || ends_in_entry(path, names))
            }
        };
        match &self.blocks {
            Some(blocks) if found && !is_entry => blocks.contain(path),
            _ => Ok(found),
        }
    }
}

impl Rule {
    fn new(targets: &Targets) -> Result<Self> {
        Ok(match targets {
            Targets::None => Self::Names(HashSet::new()),
            Targets::Pattern(text) if text.eq_ignore_ascii_case(ALL_LINEAR) => Self::AllLinear,
            Targets::Pattern(text) => Self::Pattern(Pattern::full("target_modules", text)?),
            Targets::List(names) => Self::Names(names.iter().cloned().collect()),
        })
    }
}

/// PEFT puts the entries into a regular expression unescaped, so they are one.
fn saved_whole(config: &Config) -> Result<Vec<Pattern>> {
    let entries = config.modules_to_save.as_deref().unwrap_or(&[]);
    Pattern::prefixes("modules_to_save", r"(^|.*\.)", entries, r"($|\..*)")
}

/// Whether the path ends in `.entry`: one look-up per dot, however many entries there are.
fn ends_in_entry(path: &str, names: &HashSet<String>) -> bool {
    path.match_indices('.').any(|(dot, _)| path.get(dot + 1..).is_some_and(|end| names.contains(end)))
}

impl Blocks {
    fn new(config: &Config) -> Result<Option<Self>> {
        const FIELD: &str = "layers_pattern";
        const INDEX: &str = r"\.(?P<idx>\d+)\.";
        let indices = config.layers_to_transform.entries();
        if indices.is_empty() {
            return Ok(None);
        }
        let patterns = match config.block_containers() {
            [] => vec![Pattern::prefix(FIELD, r".*?\.[^.]*", "", INDEX)?],
            fragments => Pattern::prefixes(FIELD, r"(?:^|.*?\.)", fragments, INDEX)?,
        };
        Ok(Some(Self { indices: indices.to_vec(), patterns }))
    }

    /// Whether the path's block is kept. The first pattern that matches decides, even where it yields no index.
    fn contain(&self, path: &str) -> Result<bool> {
        for pattern in &self.patterns {
            if let Some(index) = pattern.capture(path, "idx")? {
                let index = index.parse::<i64>().ok();
                return Ok(index.is_some_and(|index| self.indices.contains(&index)));
            }
        }
        Ok(false)
    }
}
