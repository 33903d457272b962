//! Python's regular expression syntax (`re` of 3.11), checked as Python checks it and rewritten for fancy-regex, whose
//! own syntax (Oniguruma's) gives other meanings to `\Z`, `\h`, `[[`, `&&`, `(?~` and more.
//!
//! Not supported: conditionals `(?(1)…)`, named characters `\N{…}`, and the flags a, m, x and L.

use std::iter::Peekable;
use std::str::Chars;

use super::python_class;

/// Groups may nest this deep; the engine recurses once for each.
const DEEPEST: usize = 40;

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

/// How many characters an expression can match, and how large it is when repeats are written out.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Extent {
    least: u64,
    most: u64,
    size: u64,
}

impl Extent {
    fn then(self, next: Self) -> Self {
        Self {
            least: self.least.saturating_add(next.least),
            most: self.most.saturating_add(next.most),
            size: self.size.saturating_add(next.size),
        }
    }

    fn or(self, other: Self) -> Self {
        Self {
            least: self.least.min(other.least),
            most: self.most.max(other.most),
            size: self.size.saturating_add(other.size),
        }
    }

    fn repeated(self, least: u64, most: Option<u64>) -> Self {
        Self {
            least: self.least.saturating_mul(least),
            most: self.most.saturating_mul(most.unwrap_or(u64::MAX)),
            size: self.size.saturating_mul(most.unwrap_or(least.saturating_add(1)).max(1)),
        }
    }
}

/// The branch of an alternation that is being read.
#[derive(Debug, Default)]
struct Branch {
    before: Extent,
    last: Last,
    finished: Option<Extent>,
}

/// What a quantifier would apply to.
#[derive(Debug, Default)]
enum Last {
    #[default]
    Nothing,
    /// An expression, and where it starts in the output.
    Item(usize, Extent),
    Repeated(Extent),
}

impl Branch {
    fn push(&mut self, next: Last) {
        self.before = self.before.then(self.last_extent());
        self.last = next;
    }

    fn last_extent(&self) -> Extent {
        match self.last {
            Last::Nothing => Extent::default(),
            Last::Item(_, extent) | Last::Repeated(extent) => extent,
        }
    }

    fn extent(&self) -> Extent {
        let branch = self.before.then(self.last_extent());
        self.finished.map_or(branch, |finished| finished.or(branch))
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Group {
    Plain,
    Capture(usize),
    LookAhead,
    LookBehind,
}

/// A group that is open, and the branch around it.
struct Frame {
    group: Group,
    start: usize,
    outside: Branch,
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
                    python_class::translate(&mut self.input, &mut self.output)?;
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
            'b' => self.assertion(python_class::WORD_BOUNDARY, 4 * CLASS_SIZE),
            'B' => self.assertion(python_class::NO_WORD_BOUNDARY, 4 * CLASS_SIZE),
            'd' | 'D' | 's' | 'S' | 'w' | 'W' => {
                self.output.push_str(python_class::shorthand(character));
                self.item(start, CLASS_SIZE);
            }
            '1'..='9' => self.reference_or_octal(character)?,
            _ => {
                let literal = python_class::escaped(character, &mut self.input)?;
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
                let literal = python_class::octal(&digits)?;
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

    fn open(&mut self) -> Parsed<()> {
        if self.input.next_if_eq(&'?').is_none() {
            return self.open_capture(None);
        }
        match self.input.next() {
            Some(':') => self.enter(Group::Plain, "(?:"),
            Some('>') => self.enter(Group::Plain, "(?>"),
            Some('=') => self.enter(Group::LookAhead, "(?="),
            Some('!') => self.enter(Group::LookAhead, "(?!"),
            Some('<') => match self.input.next() {
                Some('=') => self.enter(Group::LookBehind, "(?<="),
                Some('!') => self.enter(Group::LookBehind, "(?<!"),
                _ => invalid("unknown extension ?<"),
            },
            Some('P') => self.named(),
            Some('#') => match self.input.find(|character| *character == ')') {
                Some(_) => Ok(()),
                None => invalid("missing ), unterminated comment"),
            },
            Some('(') => Err(Fault::Unsupported("a conditional (?(…)…)".into())),
            Some(flag) => self.flags(flag),
            None => invalid("unexpected end of pattern"),
        }
    }

    fn named(&mut self) -> Parsed<()> {
        match self.input.next() {
            Some('<') => {
                let name = self.name('>')?;
                self.open_capture(Some(name))
            }
            Some('=') => {
                let name = self.name(')')?;
                match self.names.iter().find(|(known, _)| *known == name) {
                    Some((_, number)) => self.reference(*number),
                    None => invalid(format!("unknown group name {name:?}")),
                }
            }
            _ => invalid("unknown extension ?P"),
        }
    }

    fn name(&mut self, end: char) -> Parsed<String> {
        let mut name = String::new();
        loop {
            match self.input.next() {
                Some(character) if character == end => break,
                Some(character) => name.push(character),
                None => return invalid(format!("missing {end}, unterminated name")),
            }
        }
        let is_identifier = name.chars().enumerate().all(|(place, character)| {
            character == '_' || if place == 0 { character.is_alphabetic() } else { character.is_alphanumeric() }
        });
        if name.is_empty() || !is_identifier {
            return invalid(format!("bad character in group name {name:?}"));
        }
        Ok(name)
    }

    fn open_capture(&mut self, name: Option<String>) -> Parsed<()> {
        self.widths.push(None);
        let number = self.widths.len();
        if let Some(name) = name {
            if self.names.iter().any(|(known, _)| *known == name) {
                return invalid(format!("redefinition of group name {name:?}"));
            }
            self.names.push((name, number));
        }
        self.enter(Group::Capture(number), "(")
    }

    /// `(?i)` at the start, or `(?i:…)` and `(?-i:…)`: i and s mean the same to the engine, and u is the default.
    fn flags(&mut self, first: char) -> Parsed<()> {
        let mut text = String::from("(?");
        let mut next = Some(first);
        loop {
            match next {
                Some(flag @ ('i' | 's')) => text.push(flag),
                Some('u') if !text.contains('-') => {}
                Some('-') if !text.contains('-') => text.push('-'),
                Some(flag @ ('a' | 'm' | 'x')) => return Err(Fault::Unsupported(format!("the flag {flag:?}"))),
                Some(':') if !text.ends_with('-') => {
                    text.push(':');
                    return self.enter(Group::Plain, &text);
                }
                Some(')') if !text.contains('-') => {
                    if !self.at_start {
                        return invalid("global flags not at the start of the expression");
                    }
                    if text.len() > 2 {
                        self.output.push_str(&text);
                        self.output.push(')');
                    }
                    return Ok(());
                }
                Some(flag) => return invalid(format!("unknown extension or flag {flag:?}")),
                None => return invalid("missing -, : or )"),
            }
            next = self.input.next();
        }
    }

    fn enter(&mut self, group: Group, text: &str) -> Parsed<()> {
        if self.frames.len() == DEEPEST {
            return invalid(format!("its groups nest more than {DEEPEST} deep"));
        }
        let start = self.output.len();
        self.output.push_str(text);
        self.frames.push(Frame { group, start, outside: std::mem::take(&mut self.branch) });
        Ok(())
    }

    fn close(&mut self) -> Parsed<()> {
        let Some(frame) = self.frames.pop() else { return invalid("unbalanced parenthesis") };
        self.output.push(')');
        let inside = std::mem::replace(&mut self.branch, frame.outside).extent();
        let extent = match frame.group {
            Group::Plain => inside,
            Group::Capture(number) => {
                if let Some(width) = self.widths.get_mut(number - 1) {
                    *width = Some(inside);
                }
                inside
            }
            Group::LookBehind if inside.least != inside.most => {
                return invalid("look-behind requires fixed-width pattern");
            }
            Group::LookAhead | Group::LookBehind => Extent { least: 0, most: 0, ..inside },
        };
        // An empty group counts, too: nothing repeated is still a compiled piece.
        self.branch.push(Last::Item(frame.start, Extent { size: extent.size + 1, ..extent }));
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
