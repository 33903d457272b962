//! Python's regular expression syntax (`re` of 3.11), checked as Python checks it and rewritten for fancy-regex, whose
//! own syntax (Oniguruma's) gives other meanings to `\Z`, `\h`, `[[`, `&&`, `(?~` and more.
//!
//! Not supported: conditionals `(?(1)…)`, named characters `\N{…}`, and the flags a, m, x and L.

use std::iter::Peekable;
use std::str::Chars;

mod class;
mod extent;
mod group;

use extent::{Branch, Extent, Last};
use group::Frame;

/// The most automaton pieces after all repeats are written out, and what a class of Unicode characters counts.
const LARGEST: u64 = 20_000;
const CLASS_SIZE: u64 = 40;

/// Why a pattern cannot be used.
#[derive(Debug, PartialEq)]
pub(super) enum Fault {
    /// Python refuses it, too.
    Invalid(String),
    /// Python takes it.
    Unsupported(String),
}

pub(super) type Parsed<T> = std::result::Result<T, Fault>;

pub(super) fn invalid<T>(why: impl Into<String>) -> Parsed<T> {
    Err(Fault::Invalid(why.into()))
}

#[derive(Debug)]
pub(super) struct Translated {
    pub regex: String,
    pub names: Vec<(String, usize)>,
    /// Automaton pieces when all repeats are written out.
    pub size: u64,
}

/// The same expression in fancy-regex's syntax. All its groups are numbered, none named.
pub(super) fn translate(pattern: &str) -> Parsed<Translated> {
    let mut translator = Translator {
        input: pattern.chars().peekable(),
        output: String::new(),
        frames: Vec::new(),
        branch: Branch::default(),
        widths: Vec::new(),
        names: Vec::new(),
        at_start: true,
    };
    translator.run()?;
    Ok(Translated { size: translator.branch.extent().size, regex: translator.output, names: translator.names })
}

struct Translator<'pattern> {
    input: Peekable<Chars<'pattern>>,
    output: String,
    frames: Vec<Frame>,
    branch: Branch,
    /// The extent of each capturing group; none while it is open.
    widths: Vec<Option<Extent>>,
    names: Vec<(String, usize)>,
    at_start: bool,
}

impl Translator<'_> {
    fn run(&mut self) -> Parsed<()> {
        while let Some(character) = self.input.next() {
            let start = self.output.len();
            match character {
                '\\' => self.escape()?,
                '[' => {
                    class::translate(&mut self.input, &mut self.output)?;
                    self.item(start, CLASS_SIZE);
                }
                '.' => {
                    self.output.push('.');
                    self.item(start, 4);
                }
                '^' => self.assertion(r"\A", 1),
                '$' => self.assertion(r"(?=\n?\z)", 4),
                '(' => self.open()?,
                ')' => self.close()?,
                '|' => {
                    let extent = self.branch.extent();
                    self.branch = Branch { finished: Some(extent), ..Branch::default() };
                    self.output.push('|');
                }
                '*' => self.repeat(0, None)?,
                '+' => self.repeat(1, None)?,
                '?' => self.repeat(0, Some(1))?,
                '{' => self.braces()?,
                literal => self.literal(literal),
            }
            self.at_start = false;
            if self.branch.extent().size > LARGEST {
                return invalid(format!("written out, its repeats have more than {LARGEST} pieces"));
            }
        }
        if self.frames.is_empty() { Ok(()) } else { invalid("missing ), unterminated subpattern") }
    }

    fn item(&mut self, start: usize, size: u64) {
        self.branch.push(Last::Item(start, Extent { least: 1, most: 1, size }));
    }

    fn literal(&mut self, character: char) {
        let start = self.output.len();
        push_literal(&mut self.output, character);
        self.item(start, 1);
    }

    /// What matches nothing, and cannot be repeated either.
    fn assertion(&mut self, text: &str, size: u64) {
        self.output.push_str(text);
        self.branch.push(Last::Nothing);
        self.branch.before.size = self.branch.before.size.saturating_add(size);
    }

    fn escape(&mut self) -> Parsed<()> {
        let start = self.output.len();
        let Some(character) = self.input.next() else { return invalid("bad escape at its end") };
        match character {
            'A' => self.assertion(r"\A", 1),
            'Z' => self.assertion(r"\z", 1),
            'b' => self.assertion(class::WORD_BOUNDARY, 4 * CLASS_SIZE),
            'B' => self.assertion(class::NO_WORD_BOUNDARY, 4 * CLASS_SIZE),
            'd' | 'D' | 's' | 'S' | 'w' | 'W' => {
                self.output.push_str(class::shorthand(character));
                self.item(start, CLASS_SIZE);
            }
            '1'..='9' => self.reference_or_octal(character)?,
            _ => {
                let literal = class::escaped(character, &mut self.input)?;
                self.literal(literal);
            }
        }
        Ok(())
    }

    /// `\1` … `\99` refer to a group; three octal digits are a character.
    fn reference_or_octal(&mut self, first: char) -> Parsed<()> {
        let mut digits = String::from(first);
        if let Some(second) = self.input.next_if(char::is_ascii_digit) {
            digits.push(second);
            let octal = |digit: &char| ('0'..='7').contains(digit);
            if octal(&first)
                && octal(&second)
                && let Some(third) = self.input.next_if(octal)
            {
                digits.push(third);
                let literal = class::octal(&digits)?;
                self.literal(literal);
                return Ok(());
            }
        }
        self.reference(digits.parse().unwrap_or(0))
    }

    fn reference(&mut self, number: usize) -> Parsed<()> {
        let extent = match number.checked_sub(1).and_then(|index| self.widths.get(index)) {
            None => return invalid(format!("invalid group reference {number}")),
            Some(None) => return invalid(format!("it refers to the open group {number}")),
            Some(Some(extent)) => Extent { size: 1, ..*extent },
        };
        let start = self.output.len();
        self.output.push_str(&format!(r"(?:\{number})"));
        self.branch.push(Last::Item(start, extent));
        Ok(())
    }

    /// `{2}`, `{2,}`, `{,3}` or `{2,3}`; anything else after a brace is literal text.
    fn braces(&mut self) -> Parsed<()> {
        let mut ahead = self.input.clone();
        let least = digits(&mut ahead);
        let most = if ahead.next_if_eq(&',').is_some() { digits(&mut ahead) } else { least.clone() };
        let is_empty = self.input.peek() == Some(&'}');
        if is_empty || ahead.next() != Some('}') {
            self.literal('{');
            return Ok(());
        }
        self.input = ahead;
        let least = bound(&least)?.unwrap_or(0);
        let most = bound(&most)?;
        if most.is_some_and(|most| most < least) {
            return invalid("min repeat greater than max repeat");
        }
        self.repeat(least, most)
    }

    fn repeat(&mut self, least: u64, most: Option<u64>) -> Parsed<()> {
        let (start, extent) = match self.branch.last {
            Last::Item(start, extent) => (start, extent),
            Last::Nothing => return invalid("nothing to repeat"),
            Last::Repeated(_) => return invalid("multiple repeat"),
        };
        let is_lazy = self.input.next_if_eq(&'?').is_some();
        let is_possessive = !is_lazy && self.input.next_if_eq(&'+').is_some();
        self.branch.last = Last::Repeated(extent.repeated(least, most));
        if extent.most == 0 {
            // The engine refuses to repeat what is empty, and once is as good as many times.
            if least == 0 {
                self.output.insert_str(start, "(?:");
                self.output.push_str("|)");
            }
            return Ok(());
        }
        self.output.push_str(&match (least, most) {
            (0, None) => "*".into(),
            (1, None) => "+".into(),
            (0, Some(1)) => "?".into(),
            (least, None) => format!("{{{least},}}"),
            (least, Some(most)) => format!("{{{least},{most}}}"),
        });
        if is_lazy {
            self.output.push('?');
        } else if is_possessive {
            self.output.insert_str(start, "(?>");
            self.output.push(')');
        }
        Ok(())
    }
}

fn digits(input: &mut Peekable<Chars>) -> String {
    std::iter::from_fn(|| input.next_if(char::is_ascii_digit)).collect()
}

/// A bound of a repeat; none if it is left out.
fn bound(digits: &str) -> Parsed<Option<u64>> {
    if digits.is_empty() {
        return Ok(None);
    }
    match digits.parse() {
        Ok(bound) if bound <= LARGEST => Ok(Some(bound)),
        _ => invalid(format!("a repeat of {digits}; wanted at most {LARGEST}")),
    }
}

/// A character that stands for itself, inside a class as outside.
pub(super) fn push_literal(output: &mut String, character: char) {
    if character.is_ascii() && !character.is_ascii_alphanumeric() && character != '_' {
        output.push_str(&format!(r"\x{{{:x}}}", u32::from(character)));
    } else {
        output.push(character);
    }
}
