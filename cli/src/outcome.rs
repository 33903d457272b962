//! How a command ends: a report, or a failure with the library's code and words, and an exit code.

use std::fmt;
use std::process::ExitCode;

use pvera::error::{Code, Error};
use serde_json::{Map, Value, json};

/// The exit codes. They never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Done = 0,
    /// The command ran, and found what it looks for: damage, a difference.
    Found = 1,
    Usage = 2,
    Failed = 3,
    Cancelled = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}

/// What a command has to say, for people and for programs.
#[derive(Debug)]
pub struct Report {
    pub text: String,
    json: Map<String, Value>,
    pub exit: Exit,
}

impl Report {
    /// `json` is an object.
    pub fn new(text: impl Into<String>, json: Value) -> Self {
        let Value::Object(json) = json else { unreachable!("a report is an object") };
        Self { text: text.into(), json, exit: Exit::Done }
    }

    pub fn found(self, found: bool) -> Self {
        Self { exit: if found { Exit::Found } else { self.exit }, ..self }
    }

    pub fn into_json(mut self, command: &str, warnings: &[String]) -> String {
        self.json.insert("command".into(), command.into());
        self.json.insert("warnings".into(), warnings.into());
        format!("{:#}\n", Value::Object(self.json))
    }
}

/// A path as a JSON string: what is not UTF-8 in it becomes U+FFFD, as in text.
pub fn shown(path: &std::path::Path) -> String {
    path.display().to_string()
}

/// A name as a part of a line: without what would end it, or speak to the terminal.
pub fn on_a_line(name: &str) -> String {
    escaped(name, |_| false)
}

/// Text without what would speak to the terminal.
pub fn printable(text: &str) -> String {
    escaped(text, |char| matches!(char, '\n' | '\t'))
}

fn escaped(text: &str, stays: fn(char) -> bool) -> String {
    let mut clean = String::with_capacity(text.len());
    for char in text.chars() {
        if char.is_control() && !stays(char) {
            clean.extend(char.escape_default());
        } else {
            clean.push(char);
        }
    }
    clean
}

pub type Result<T> = std::result::Result<T, Failure>;

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub struct Failure {
    /// None: the command line is wrong.
    code: Option<Code>,
    message: String,
    /// What to do about it, where the tool knows more than the library's words say.
    hint: Option<String>,
    exit: Exit,
}

impl Failure {
    pub fn usage(message: impl Into<String>) -> Self {
        let message = message.into();
        let words = message.trim_end();
        let message = words.strip_prefix("error: ").unwrap_or(words).to_owned();
        Self { code: None, message, hint: None, exit: Exit::Usage }
    }

    pub fn new(code: Code, message: impl Into<String>) -> Self {
        let exit = if code == Code::Cancelled { Exit::Cancelled } else { Exit::Failed };
        Self { code: Some(code), message: message.into(), hint: None, exit }
    }

    pub fn io(path: &std::path::Path, verb: &str, error: &std::io::Error) -> Self {
        Self::new(Code::Io, format!("could not {verb} '{}': {error}", path.display()))
    }

    pub fn stopped() -> Self {
        Self::new(Code::Cancelled, "stopped; nothing was written")
    }

    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// The code and the words of what is wrong with a file, rather than with reading it; other failures stay what they are.
    pub fn finding(self) -> Result<(Code, String)> {
        match self.code {
            Some(
                code @ (Code::Shape | Code::Dtype | Code::NotFound | Code::Format | Code::Config | Code::Projection),
            ) => Ok((code, self.message)),
            _ => Err(self),
        }
    }

    pub fn exit(&self) -> Exit {
        self.exit
    }

    pub fn to_json(&self, command: &str, warnings: &[String]) -> String {
        let error = json!({"code": self.code.map_or("USAGE", name_of), "message": self.message, "hint": self.hint});
        format!("{:#}\n", json!({"command": command, "error": error, "warnings": warnings}))
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        if error.code() == Code::Cancelled {
            return Self::stopped();
        }
        let failure = Self::new(error.code(), error.message());
        match hint_of(&error) {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "error: {}", on_a_line(&self.message))?;
        self.hint.iter().try_for_each(|hint| write!(formatter, "\nhint: {}", on_a_line(hint)))
    }
}

/// What the library's words mean in the tool's options.
fn hint_of(error: &Error) -> Option<&'static str> {
    let says = |words: &str| error.message().contains(words);
    match error.code() {
        Code::State if says("ask for its mean") => Some("--mean takes the mean"),
        Code::Unsupported if says("ask for leaving it out") => Some("--leave-out leaves it out, with a warning"),
        Code::Exists if says("a word that it is to be replaced") => Some("--force replaces it"),
        Code::NotFound if says("a prefix can be given") => Some("--prefix gives it"),
        Code::NotFound if says("give its name") => Some("--tensor MODULE=TENSOR gives it"),
        Code::NotFound if says("say it") => Some("--rope says it"),
        Code::Projection if says("options.in_max") => Some("--in-max and --out-max allow more"),
        Code::State if says("declared without one") => {
            Some("--with-base takes the base's weight and bias from --model")
        }
        _ => None,
    }
}

/// As the header spells it.
pub fn name_of(code: Code) -> &'static str {
    match code {
        Code::Null => "PVERA_ERROR_NULL",
        Code::Argument => "PVERA_ERROR_ARGUMENT",
        Code::Shape => "PVERA_ERROR_SHAPE",
        Code::Dtype => "PVERA_ERROR_DTYPE",
        Code::Stride => "PVERA_ERROR_STRIDE",
        Code::Overlap => "PVERA_ERROR_OVERLAP",
        Code::Device => "PVERA_ERROR_DEVICE",
        Code::NotFound => "PVERA_ERROR_NOT_FOUND",
        Code::Exists => "PVERA_ERROR_EXISTS",
        Code::State => "PVERA_ERROR_STATE",
        Code::Io => "PVERA_ERROR_IO",
        Code::Format => "PVERA_ERROR_FORMAT",
        Code::Config => "PVERA_ERROR_CONFIG",
        Code::Projection => "PVERA_ERROR_PROJECTION",
        Code::Memory => "PVERA_ERROR_MEMORY",
        Code::Unsupported => "PVERA_ERROR_UNSUPPORTED",
        Code::Overflow => "PVERA_ERROR_OVERFLOW",
        Code::Cancelled => "PVERA_ERROR_CANCELLED",
        Code::Panic => "PVERA_ERROR_PANIC",
        Code::Cuda => "PVERA_ERROR_CUDA",
    }
}
