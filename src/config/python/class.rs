//! Python's character classes `[…]` and escapes, rewritten for fancy-regex.

use std::iter::Peekable;
use std::str::Chars;

use super::{Fault, Parsed, invalid, push_literal};

/// What a shorthand class is outside brackets. Python's words are `str.isalnum` and `_`; its spaces are Unicode's and
/// four separators of ASCII.
pub(super) fn shorthand(letter: char) -> &'static str {
    match letter {
        'd' => r"\p{Nd}",
        'D' => r"\P{Nd}",
        's' => r"[\s\x{1c}-\x{1f}]",
        'S' => r"[^\s\x{1c}-\x{1f}]",
        'w' => r"[\p{L}\p{N}_]",
        _ => r"[^\p{L}\p{N}_]",
    }
}

/// `\b` and `\B` for the same words: the engine's own words hold combining marks, and lack ² and ½. Python's `\B` does
/// not match in an empty text.
pub(super) const WORD_BOUNDARY: &str = r"(?:(?<=[\p{L}\p{N}_])(?![\p{L}\p{N}_])|(?<![\p{L}\p{N}_])(?=[\p{L}\p{N}_]))";
pub(super) const NO_WORD_BOUNDARY: &str =
    r"(?:(?<=[\p{L}\p{N}_])(?=[\p{L}\p{N}_])|(?<![\p{L}\p{N}_])(?![\p{L}\p{N}_])(?!\A\z))";

/// One member of a class.
enum Member {
    Character(char),
    Shorthand(char),
}

/// Reads a class whose `[` has been read.
pub(super) fn translate(input: &mut Peekable<Chars>, output: &mut String) -> Parsed<()> {
    output.push('[');
    if input.next_if_eq(&'^').is_some() {
        output.push('^');
    }
    let mut first = true;
    loop {
        let Some(character) = input.next() else { return invalid("unterminated character set") };
        if character == ']' && !first {
            break;
        }
        first = false;
        let low = member(character, input)?;
        let mut ahead = input.clone();
        let is_range = ahead.next() == Some('-') && ahead.peek().is_some_and(|next| *next != ']');
        if !is_range {
            push(output, &low);
            continue;
        }
        input.next();
        let Some(character) = input.next() else { return invalid("unterminated character set") };
        match (low, member(character, input)?) {
            (Member::Character(low), Member::Character(high)) if low <= high => {
                push_literal(output, low);
                output.push('-');
                push_literal(output, high);
            }
            _ => return invalid("bad character range"),
        }
    }
    output.push(']');
    Ok(())
}

fn member(character: char, input: &mut Peekable<Chars>) -> Parsed<Member> {
    if character != '\\' {
        return Ok(Member::Character(character));
    }
    match input.next() {
        Some(letter @ ('d' | 'D' | 's' | 'S' | 'w' | 'W')) => Ok(Member::Shorthand(letter)),
        Some('b') => Ok(Member::Character('\u{8}')),
        Some(first @ '1'..='7') => octal(&octal_digits(first, input)).map(Member::Character),
        Some(character) => escaped(character, input).map(Member::Character),
        None => invalid("bad escape at its end"),
    }
}

fn push(output: &mut String, member: &Member) {
    match member {
        Member::Character(character) => push_literal(output, *character),
        Member::Shorthand(letter) => output.push_str(shorthand(*letter)),
    }
}

/// The character that an escape stands for, whose first letter has been read.
pub(super) fn escaped(character: char, input: &mut Peekable<Chars>) -> Parsed<char> {
    match character {
        'a' => Ok('\u{7}'),
        'f' => Ok('\u{c}'),
        'n' => Ok('\n'),
        'r' => Ok('\r'),
        't' => Ok('\t'),
        'v' => Ok('\u{b}'),
        '0' => octal(&octal_digits('0', input)),
        'x' => hexadecimal(2, input),
        'u' => hexadecimal(4, input),
        'U' => hexadecimal(8, input),
        'N' => Err(Fault::Unsupported(r"a named character \N{…}".into())),
        _ if character.is_ascii_alphanumeric() => invalid(format!("bad escape \\{character}")),
        _ => Ok(character),
    }
}

/// Up to three octal digits, the first of which has been read.
fn octal_digits(first: char, input: &mut Peekable<Chars>) -> String {
    let mut digits = String::from(first);
    while digits.len() < 3
        && let Some(digit) = input.next_if(|digit| ('0'..='7').contains(digit))
    {
        digits.push(digit);
    }
    digits
}

pub(super) fn octal(digits: &str) -> Parsed<char> {
    match u8::from_str_radix(digits, 8) {
        Ok(number) => Ok(char::from(number)),
        Err(_) => invalid(format!("octal escape \\{digits} is outside of range 0-0o377")),
    }
}

fn hexadecimal(length: usize, input: &mut Peekable<Chars>) -> Parsed<char> {
    let mut digits = String::new();
    while digits.len() < length
        && let Some(digit) = input.next_if(char::is_ascii_hexdigit)
    {
        digits.push(digit);
    }
    if digits.len() < length {
        return invalid(format!("incomplete escape of {length} hexadecimal digits"));
    }
    match u32::from_str_radix(&digits, 16).ok().and_then(char::from_u32) {
        Some(character) => Ok(character),
        None => invalid(format!("{digits} is no character")),
    }
}
