//! Groups: captures, names, look-around, flags and comments.

use super::extent::{Branch, Extent, Last};
use super::{Fault, Parsed, Translator, invalid};

/// Groups may nest this deep; the engine recurses once for each.
const DEEPEST: usize = 40;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Group {
    Plain,
    Capture(usize),
    LookAhead,
    LookBehind,
}

/// A group that is open, and the branch around it.
pub(super) struct Frame {
    group: Group,
    start: usize,
    outside: Branch,
}

impl Translator<'_> {
    pub(super) fn open(&mut self) -> Parsed<()> {
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

    pub(super) fn close(&mut self) -> Parsed<()> {
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
        self.branch.push(Last::Item(frame.start, Extent { size: extent.size.saturating_add(1), ..extent }));
        Ok(())
    }
}
