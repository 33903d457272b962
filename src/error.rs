//! What every fallible function returns: a pinned code and a sentence for a person.

use std::borrow::Cow;
use std::fmt;

/// Why a call failed. The numbers are part of the ABI and never change.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    /// A required pointer is NULL.
    Null = 1,
    /// A value is outside its range.
    Argument = 2,
    /// A matrix or vector has the wrong shape.
    Shape = 3,
    /// An element type that this call does not take.
    Dtype = 4,
    /// A row stride shorter than a row.
    Stride = 5,
    /// An output overlaps an input or another output.
    Overlap = 6,
    /// A matrix lives on another device than the context.
    Device = 7,
    /// No layer, adapter, slot, field or tensor of that name.
    NotFound = 8,
    /// The name is taken.
    Exists = 9,
    /// The call is right, but not now: a used-up tape, a parameter changed between forward and backward, a merge under sampling.
    State = 10,
    /// The operating system refused a file operation.
    Io = 11,
    /// A file is damaged, lying or of another format.
    Format = 12,
    /// A configuration is invalid or contradicts itself.
    Config = 13,
    /// Projections are missing or do not fit.
    Projection = 14,
    /// Memory could not be had.
    Memory = 15,
    /// Valid, but not supported by this build or backend.
    Unsupported = 16,
    /// A result is not a finite number, though the inputs allow the call.
    Overflow = 17,
    /// The host's callback asked to stop.
    Cancelled = 18,
    /// A bug in the library, caught at the boundary.
    Panic = 19,
    /// The CUDA driver refused or failed a call, or a device gives wrong results.
    Cuda = 20,
}

/// An error with its sentence. The sentence names the argument, what was given and what was wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    code: Code,
    message: Cow<'static, str>,
}

pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub fn new(code: Code, message: impl Into<Cow<'static, str>>) -> Self {
        Self { code, message: legible(message.into()) }
    }

    /// The error for memory that could not be had; needs none itself.
    pub const fn out_of_memory() -> Self {
        Self { code: Code::Memory, message: Cow::Borrowed("out of memory") }
    }

    pub fn code(&self) -> Code {
        self.code
    }

    pub fn message(&self) -> &str {
        &self.message
    }

    /// The same error, told from further out: `context: message`.
    pub fn within(self, context: impl fmt::Display) -> Self {
        if self.code == Code::Memory {
            return self;
        }
        Self { code: self.code, message: legible(format!("{context}: {}", self.message).into()) }
    }
}

/// Text with escapes in place of control characters. Names in it come from files and from hosts; where it goes, a log or a
/// terminal, they shall end no line and speak to nobody.
pub fn legible(text: Cow<'_, str>) -> Cow<'_, str> {
    if !text.contains(char::is_control) {
        return text;
    }
    let mut clean = String::with_capacity(text.len() + 8);
    for char in text.chars() {
        if char.is_control() { clean.extend(char.escape_default()) } else { clean.push(char) }
    }
    clean.into()
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

/// `fail!(Shape, "x has {} columns; wanted {}", given, wanted)` returns early with an [`Error`].
#[macro_export]
macro_rules! fail {
    ($code:ident, $($message:tt)+) => {
        return Err($crate::error::Error::new($crate::error::Code::$code, format!($($message)+)))
    };
}

impl Error {
    /// A caught panic: always a bug of the library, told with what it said.
    pub fn from_panic(payload: &(dyn std::any::Any + Send)) -> Self {
        let said = payload
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("no message");
        Self::new(Code::Panic, format!("a bug in pvera was caught: {said}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_messages_end_no_line_and_speak_to_no_terminal() {
        let error = Error::new(Code::NotFound, format!("layer '{}'", "q\u{1b}[31m\nX\0\u{9b}é"));
        assert_eq!(error.message(), "layer 'q\\u{1b}[31m\\nX\\u{0}\\u{9b}é'");
        assert_eq!(error.within("a\tb").message(), "a\\tb: layer 'q\\u{1b}[31m\\nX\\u{0}\\u{9b}é'");
        assert!(matches!(legible("plain".into()), Cow::Borrowed("plain")));
    }
}
