//! Parses PTX into a module of variables and entries, whose bodies are labels and instructions.
//!
//! What is not understood is an error with its line; nothing is passed over but debug information and performance hints.

use super::lexer::{Kind, Token, tokens};
use super::syntax::{Entry, Error, Module, Operand, Space, Variable, size_of_type};
use std::collections::HashMap;

pub(super) struct Parser<'a> {
    pub(super) source: &'a str,
    pub(super) tokens: Vec<Token>,
    pub(super) at: usize,
    /// Names that inner scopes of the body renamed, innermost last.
    pub(super) scopes: Vec<HashMap<String, String>>,
    pub(super) scopes_seen: u32,
}

pub(super) type Result<T> = std::result::Result<T, Error>;

pub fn parse(source: &str) -> Result<Module> {
    let tokens = tokens(source).map_err(|(line, message)| Error { line, message })?;
    let mut parser = Parser { source, tokens, at: 0, scopes: Vec::new(), scopes_seen: 0 };
    parser.module()
}

impl<'a> Parser<'a> {
    pub(super) fn line(&self) -> u32 {
        self.tokens.get(self.at).or(self.tokens.last()).map_or(1, |token| token.line)
    }

    pub(super) fn error<T>(&self, message: impl Into<String>) -> Result<T> {
        Err(Error { line: self.line(), message: message.into() })
    }

    pub(super) fn text(&self, token: Token) -> &'a str {
        &self.source[token.start..token.end]
    }

    pub(super) fn peek(&self) -> &'a str {
        self.tokens.get(self.at).map_or("", |&token| self.text(token))
    }

    pub(super) fn kind(&self) -> Option<Kind> {
        self.tokens.get(self.at).map(|token| token.kind)
    }

    pub(super) fn next(&mut self) -> &'a str {
        let text = self.peek();
        self.at += 1;
        text
    }

    pub(super) fn eat(&mut self, text: &str) -> bool {
        let found = self.peek() == text;
        self.at += usize::from(found);
        found
    }

    pub(super) fn expect(&mut self, text: &str) -> Result<()> {
        if self.eat(text) { Ok(()) } else { self.error(format!("{text:?} was expected, {:?} is there", self.peek())) }
    }

    pub(super) fn word(&mut self) -> Result<&'a str> {
        if self.kind() == Some(Kind::Word) {
            Ok(self.next())
        } else {
            self.error(format!("a name was expected, {:?} is there", self.peek()))
        }
    }

    pub(super) fn module(&mut self) -> Result<Module> {
        let mut module = Module { version: (0, 0), target: String::new(), variables: Vec::new(), entries: Vec::new() };
        while self.at < self.tokens.len() {
            match self.peek() {
                ".version" => {
                    self.at += 1;
                    module.version = self.version()?;
                }
                ".target" => {
                    self.at += 1;
                    module.target = self.word()?.to_string();
                    while self.eat(",") {
                        self.word()?;
                    }
                }
                ".address_size" => {
                    self.at += 1;
                    if self.integer()? != 64 {
                        return self.error("only 64-bit addresses are supported");
                    }
                }
                ".file" => self.skip_file(),
                ".section" => self.skip_section(),
                ".visible" | ".weak" | ".common" => self.at += 1,
                ".entry" => {
                    let entry = self.entry()?;
                    if module.entries.iter().any(|other| other.name == entry.name) {
                        return self.error(format!("two entries are named {}", entry.name));
                    }
                    module.entries.push(entry);
                }
                ".extern" | ".global" | ".const" | ".shared" => {
                    let variable = self.variable()?;
                    module.variables.push(variable);
                }
                other => return self.error(format!("{other:?} is not supported at module level")),
            }
        }
        if module.version == (0, 0) || module.target.is_empty() {
            return self.error(".version or .target is missing");
        }
        Ok(module)
    }

    pub(super) fn version(&mut self) -> Result<(u32, u32)> {
        let text = self.next();
        let parsed = text.split_once('.').and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
        parsed.map_or_else(|| self.error(format!("{text:?} is not a PTX version")), Ok)
    }

    pub(super) fn skip_file(&mut self) {
        let line = self.line();
        while self.at < self.tokens.len() && self.line() == line {
            self.at += 1;
        }
    }

    pub(super) fn skip_section(&mut self) {
        while self.at < self.tokens.len() && self.next() != "}" {}
    }

    pub(super) fn entry(&mut self) -> Result<Entry> {
        let line = self.line();
        self.expect(".entry")?;
        let name = self.word()?.to_string();
        let mut params = Vec::new();
        if self.eat("(") {
            while !self.eat(")") {
                params.push(self.variable_inside(Space::Param)?);
                if !self.eat(",") {
                    self.expect(")")?;
                    break;
                }
            }
        }
        let mut max_threads = None;
        loop {
            match self.peek() {
                ".maxntid" => {
                    self.at += 1;
                    let mut dims = [1; 3];
                    for dim in &mut dims {
                        *dim = self.integer()? as u32;
                        if !self.eat(",") {
                            break;
                        }
                    }
                    max_threads = Some(dims);
                }
                ".minnctapersm" | ".maxnreg" | ".maxnctapersm" => {
                    self.at += 1;
                    self.integer()?;
                }
                "{" => break,
                other => return self.error(format!("{other:?} is not supported on an entry")),
            }
        }
        let mut entry = Entry {
            name,
            line,
            params,
            max_threads,
            registers: HashMap::new(),
            variables: Vec::new(),
            body: Vec::new(),
        };
        self.expect("{")?;
        self.body(&mut entry)?;
        Ok(entry)
    }

    pub(super) fn variable(&mut self) -> Result<Variable> {
        let external = self.eat(".extern");
        let space = match self.next() {
            ".global" => Space::Global,
            ".const" => Space::Constant,
            ".shared" => Space::Shared,
            ".local" => Space::Local,
            other => return self.error(format!("{other:?} is not a space that variables lie in")),
        };
        let mut variable = self.variable_inside(space)?;
        if variable.dynamic != external || (external && space != Space::Shared) {
            return self.error("only shared memory sized by the launch may be external");
        }
        if self.eat("=") {
            variable.bytes = self.initialiser(variable.size)?;
        }
        self.expect(";")?;
        if space == Space::Global || space == Space::Constant {
            variable.bytes.resize(variable.size as usize, 0);
        }
        Ok(variable)
    }

    /// `[.param] [.align n] .type name[count]…`, after the space.
    pub(super) fn variable_inside(&mut self, space: Space) -> Result<Variable> {
        if space == Space::Param {
            self.expect(".param")?;
        }
        let (mut align, mut element) = (0, 0);
        loop {
            match self.peek() {
                ".align" => {
                    self.at += 1;
                    align = self.integer()? as u32;
                }
                ".ptr" => {
                    self.at += 1;
                }
                ".global" | ".attribute" => self.at += 1,
                text if text.starts_with('.') => {
                    element = match size_of_type(&text[1..]) {
                        Some(size) => size,
                        None => {
                            return self.error(format!("{text:?} is not a type that is supported here"));
                        }
                    };
                    self.at += 1;
                }
                _ => break,
            }
        }
        let name = self.word()?.to_string();
        let (mut size, mut dynamic) = (u64::from(element), false);
        while self.eat("[") {
            if self.eat("]") {
                dynamic = true;
                size = 0;
                continue;
            }
            size *= self.integer()? as u64;
            self.expect("]")?;
        }
        if element == 0 {
            return self.error(format!("{name} has no type"));
        }
        Ok(Variable { name, space, align: align.max(element), size, bytes: Vec::new(), dynamic })
    }

    pub(super) fn initialiser(&mut self, size: u64) -> Result<Vec<u8>> {
        // The element's size follows from the count that fits: `.b8 x[8] = {…}` or a single value.
        let mut values = Vec::new();
        let braces = self.eat("{");
        loop {
            let operand = self.operand()?;
            values.push(operand);
            if !self.eat(",") {
                break;
            }
        }
        if braces {
            self.expect("}")?;
        }
        let mut bytes = Vec::new();
        let element = if braces { 1 } else { size as usize };
        for value in values {
            match value {
                Operand::Integer(value) => bytes.extend_from_slice(&value.to_le_bytes()[..element]),
                Operand::F32(bits) if element == 4 => bytes.extend_from_slice(&bits.to_le_bytes()),
                Operand::F64(bits) if element == 8 => bytes.extend_from_slice(&bits.to_le_bytes()),
                other => return self.error(format!("{other:?} cannot initialise this variable")),
            }
        }
        if bytes.len() as u64 > size {
            return self.error("more values than the variable has bytes; only arrays of .b8 take lists");
        }
        Ok(bytes)
    }

    pub(super) fn integer(&mut self) -> Result<i64> {
        let negative = self.eat("-");
        match self.number(negative)? {
            Operand::Integer(value) => Ok(value as i64),
            other => self.error(format!("an integer was expected, {other:?} is there")),
        }
    }
}
