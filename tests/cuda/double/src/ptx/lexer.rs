//! Cuts PTX text into tokens, each with its line and its place in the text.

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Directives, opcodes, registers, labels, symbols: letters, digits and `. _ $ %`.
    Word,
    /// Starts with a digit: integers, `0f…`, `0d…`, decimals.
    Number,
    /// A quoted string.
    Text,
    /// One character.
    Punctuation(u8),
}

#[derive(Clone, Copy, Debug)]
pub struct Token {
    pub kind: Kind,
    pub start: usize,
    pub end: usize,
    pub line: u32,
}

fn in_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'$' | b'%')
}

/// The tokens of `source`, or the line of a character that PTX does not have.
pub fn tokens(source: &str) -> Result<Vec<Token>, (u32, String)> {
    let bytes = source.as_bytes();
    let mut out = Vec::with_capacity(bytes.len() / 4);
    let (mut at, mut line) = (0, 1);
    while at < bytes.len() {
        let byte = bytes[at];
        if byte == b'\n' {
            line += 1;
            at += 1;
        } else if byte.is_ascii_whitespace() || byte == 0 {
            at += 1;
        } else if bytes[at..].starts_with(b"//") {
            while at < bytes.len() && bytes[at] != b'\n' {
                at += 1;
            }
        } else if bytes[at..].starts_with(b"/*") {
            while at < bytes.len() && !bytes[at..].starts_with(b"*/") {
                line += u32::from(bytes[at] == b'\n');
                at += 1;
            }
            at = (at + 2).min(bytes.len());
        } else {
            let start = at;
            let kind = if byte == b'"' {
                at += 1;
                while at < bytes.len() && bytes[at] != b'"' {
                    at += 1;
                }
                at = (at + 1).min(bytes.len());
                Kind::Text
            } else if byte.is_ascii_digit() {
                while at < bytes.len() && in_word(bytes[at]) {
                    at += 1;
                }
                Kind::Number
            } else if in_word(byte) {
                // `::` belongs to a word (`.L2::128B`), a single `:` ends a label.
                while at < bytes.len() && (in_word(bytes[at]) || bytes[at..].starts_with(b"::")) {
                    at += if bytes[at] == b':' { 2 } else { 1 };
                }
                Kind::Word
            } else if b"{}()[],;:=+-@!|<>".contains(&byte) {
                at += 1;
                Kind::Punctuation(byte)
            } else {
                return Err((line, format!("the character {:?} is not PTX", byte as char)));
            };
            out.push(Token { kind, start, end: at, line });
        }
    }
    Ok(out)
}
