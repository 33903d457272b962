//! One compiled pattern of a configuration file: Python's semantics, bounded in length, size and time, because a file
//! is not trusted.

use fancy_regex::{Captures, Error as EngineError, Regex, RegexBuilder};

use super::python::{self, Fault};
use crate::error::{Code, Error, Result};
use crate::fail;

/// The longest pattern, in bytes. The longest in PEFT's own tables and examples are under 100.
const LONGEST: usize = 2_000;

/// The most steps back in one match. A match of a sane pattern on a module path takes tens; this many take
/// milliseconds.
const BACKTRACKS: usize = 100_000;

/// Bounds on the compiled form, in bytes for each part without look-around, and in instructions for the rest.
const COMPILED_BYTES: usize = 1 << 20;
const COMPILED_INSTRUCTIONS: usize = 50_000;

/// The most automaton pieces of all patterns in one list: some six hundred module paths.
const LARGEST_LIST: u64 = 50_000;

#[derive(Debug)]
pub(super) struct Pattern {
    regex: Regex,
    /// Numbers of the pattern's named groups.
    names: Vec<(String, usize)>,
    field: &'static str,
    source: String,
    size: u64,
}

impl Pattern {
    /// `re.fullmatch(source, path)`. `field` names the configuration's field in errors.
    pub fn full(field: &'static str, source: &str) -> Result<Self> {
        Self::compile(field, source, source, r"\z")
    }

    /// `re.match(before + source + after, path)`, where only `source` is the file's.
    pub fn prefix(field: &'static str, before: &str, source: &str, after: &str) -> Result<Self> {
        Self::compile(field, source, &format!("{before}{source}{after}"), "")
    }

    /// [`Pattern::prefix`] for each entry of a list, which are bounded together, too.
    pub fn prefixes(field: &'static str, before: &str, sources: &[String], after: &str) -> Result<Vec<Self>> {
        let mut patterns = Vec::new();
        let mut size = 0;
        for source in sources {
            let pattern = Self::prefix(field, before, source, after)?;
            size += pattern.size;
            if size > LARGEST_LIST {
                let count = sources.len();
                fail!(
                    Config,
                    "{field}: {count} regular expressions have more than {LARGEST_LIST} pieces; wanted fewer"
                );
            }
            patterns.push(pattern);
        }
        Ok(patterns)
    }

    fn compile(field: &'static str, source: &str, whole: &str, end: &str) -> Result<Self> {
        if source.len() > LONGEST {
            fail!(Config, "{field}: a regular expression has {} bytes; wanted at most {LONGEST}", source.len());
        }
        let translated = python::translate(whole).map_err(|fault| match fault {
            Fault::Invalid(why) => refused(field, source, &format!("is invalid: {why}")),
            Fault::Unsupported(what) => {
                let message = format!("{field}: the regular expression {} uses {what}", shown(source));
                Error::new(Code::Unsupported, format!("{message}, which is valid in Python but not supported here"))
            }
        })?;
        let regex = RegexBuilder::new(&format!(r"\A(?:{}){end}", translated.regex))
            .backtrack_limit(BACKTRACKS)
            .delegate_size_limit(COMPILED_BYTES)
            .delegate_dfa_size_limit(COMPILED_BYTES)
            .max_prog_size(COMPILED_INSTRUCTIONS)
            .build()
            .map_err(|error| match error {
                EngineError::CompileError(why) => refused(field, source, &format!("cannot be compiled: {why}")),
                why => refused(field, source, &format!("is invalid: {why}")),
            })?;
        Ok(Self { regex, names: translated.names, field, source: source.into(), size: translated.size })
    }

    pub fn matches(&self, path: &str) -> Result<bool> {
        self.regex.is_match(path).map_err(|_| self.runaway(path))
    }

    /// The text of a named group. The outer option says whether the pattern matches, and a group that took no part is
    /// empty.
    pub fn capture<'path>(&self, path: &'path str, name: &str) -> Result<Option<&'path str>> {
        let captures: Option<Captures<'path, str>> = self.regex.captures(path).map_err(|_| self.runaway(path))?;
        let Some(captures) = captures else { return Ok(None) };
        let number = self.names.iter().find(|(known, _)| known == name).map(|(_, number)| *number);
        let group = number.and_then(|number| captures.get(number));
        Ok(Some(group.map_or("", |group| path.get(group.range()).unwrap_or(""))))
    }

    fn runaway(&self, path: &str) -> Error {
        let steps = format!("takes more than {BACKTRACKS} steps back on the module path {}", shown(path));
        refused(self.field, &self.source, &format!("{steps}; wanted one without nested repeats"))
    }
}

fn refused(field: &str, source: &str, why: &str) -> Error {
    Error::new(Code::Config, format!("{field}: the regular expression {} {why}", shown(source)))
}

/// A text for an error message, quoted and cut to a readable length.
fn shown(text: &str) -> String {
    const LONGEST_SHOWN: usize = 80;
    let cut: String = text.chars().take(LONGEST_SHOWN).collect();
    if cut.len() == text.len() { format!("{cut:?}") } else { format!("{cut:?}…") }
}
