//! Reads GBNF: `name ::= "text" [class] other-rule (group)* | ...`, `#` begins a comment.

use std::fmt::Write as _;

use crate::rules::RuleError;
use crate::rules::limits::{MAX_DEPTH, shown, too_deep};

use super::WHAT;

/// The most repetitions that a rule may ask for, as in llama.cpp.
const MAX_REPETITIONS: u32 = 2000;

/// The most rules; what is worked out about them takes their number squared.
const MAX_RULES: usize = 1000;

/// Any character at all.
const ANY: &str = "(?s:.)";

/// Whether a character is what grammars call white space. All between two of them are control codes.
pub(super) fn is_space(c: char) -> bool {
    c.is_ascii_whitespace()
}

/// The ways that a text may go, each a row of items.
pub(super) type Choice<'source> = Vec<Vec<Item<'source>>>;

#[derive(Debug)]
pub(super) struct Rule<'source> {
    pub(super) name: &'source str,
    pub(super) choice: Choice<'source>,
}

#[derive(Debug)]
pub(super) struct Item<'source> {
    pub(super) atom: Atom<'source>,
    pub(super) least: u32,
    pub(super) most: Option<u32>,
}

#[derive(Debug)]
pub(super) enum Atom<'source> {
    Text(String),
    /// A class of characters, as a regular expression, and whether all of them are white space.
    Class(String, bool),
    Name(&'source str),
    Group(Choice<'source>),
}

/// Reads all rules.
pub(super) fn parse(source: &str) -> Result<Vec<Rule<'_>>, RuleError> {
    let mut reader = Reader { source, at: 0, depth: 0 };
    let mut rules: Vec<Rule<'_>> = Vec::new();
    reader.skip(true);
    while reader.peek().is_some() {
        let rule = reader.rule()?;
        if rules.iter().any(|known| known.name == rule.name) {
            return Err(reader.error(&format!("rule {} is defined twice", shown(rule.name))));
        }
        if rules.len() == MAX_RULES {
            return Err(RuleError::TooLarge {
                what: WHAT,
                why: format!("more than {MAX_RULES} rules"),
            });
        }
        rules.push(rule);
        reader.skip(true);
    }
    Ok(rules)
}

struct Reader<'source> {
    source: &'source str,
    at: usize,
    depth: usize,
}

impl<'source> Reader<'source> {
    fn rest(&self) -> &'source str {
        self.source.get(self.at..).unwrap_or_default()
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += c.len_utf8();
        Some(c)
    }

    fn eat(&mut self, text: &str) -> bool {
        let found = self.rest().starts_with(text);
        if found {
            self.at += text.len();
        }
        found
    }

    /// Passes over spaces and comments; over line ends too where a rule may go on.
    fn skip(&mut self, lines: bool) {
        while let Some(c) = self.peek() {
            match c {
                ' ' | '\t' => self.at += 1,
                '\n' | '\r' if lines => self.at += 1,
                '#' => self.at += self.rest().find(['\n', '\r']).unwrap_or(self.rest().len()),
                _ => return,
            }
        }
    }

    fn error(&self, why: &str) -> RuleError {
        let line = self.source.get(..self.at).unwrap_or_default().matches('\n').count() + 1;
        RuleError::invalid(WHAT, &format!("line {line}: {why}"))
    }

    fn name(&mut self) -> Option<&'source str> {
        let rest = self.rest();
        let length = rest
            .find(|c: char| !c.is_ascii_alphanumeric() && c != '-' && c != '_')
            .unwrap_or(rest.len());
        self.at += length;
        rest.get(..length).filter(|name| !name.is_empty())
    }

    fn rule(&mut self) -> Result<Rule<'source>, RuleError> {
        let name = self.name().ok_or_else(|| self.error("a rule's name is expected"))?;
        self.skip(false);
        if !self.eat("::=") {
            return Err(self.error(&format!("::= is expected after {}", shown(name))));
        }
        self.skip(true);
        let choice = self.choice()?;
        match self.peek() {
            None | Some('\n' | '\r') => Ok(Rule { name, choice }),
            Some(c) => Err(self.error(&format!("{c:?} is not expected here"))),
        }
    }

    /// Calls itself for a group, at most `MAX_DEPTH` deep.
    fn choice(&mut self) -> Result<Choice<'source>, RuleError> {
        let mut choice = vec![self.items()?];
        while self.eat("|") {
            self.skip(true);
            choice.push(self.items()?);
        }
        Ok(choice)
    }

    fn items(&mut self) -> Result<Vec<Item<'source>>, RuleError> {
        let mut items = Vec::new();
        while let Some(atom) = self.atom()? {
            let (least, most) = self.repetition()?;
            items.push(Item { atom, least, most });
            self.skip(self.depth > 0);
        }
        Ok(items)
    }

    fn atom(&mut self) -> Result<Option<Atom<'source>>, RuleError> {
        let atom = match self.peek() {
            Some('"') => Atom::Text(self.text()?),
            Some('[') => self.class()?,
            Some('(') => Atom::Group(self.group()?),
            Some('.') => {
                self.at += 1;
                Atom::Class(ANY.to_owned(), false)
            }
            Some(c) if c.is_ascii_alphanumeric() || c == '_' => match self.name() {
                Some(name) => Atom::Name(name),
                None => return Ok(None),
            },
            _ => return Ok(None),
        };
        Ok(Some(atom))
    }

    fn group(&mut self) -> Result<Choice<'source>, RuleError> {
        self.at += 1;
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(too_deep(WHAT));
        }
        self.skip(true);
        let choice = self.choice()?;
        if !self.eat(")") {
            return Err(self.error("a ( is never closed"));
        }
        self.depth -= 1;
        Ok(choice)
    }

    fn repetition(&mut self) -> Result<(u32, Option<u32>), RuleError> {
        let repetition = match self.peek() {
            Some('*') => (0, None),
            Some('+') => (1, None),
            Some('?') => (0, Some(1)),
            Some('{') => return self.counted(),
            _ => return Ok((1, Some(1))),
        };
        self.at += 1;
        Ok(repetition)
    }

    /// `{3}`, `{3,}` or `{3,5}`.
    fn counted(&mut self) -> Result<(u32, Option<u32>), RuleError> {
        let inside =
            self.rest().get(1..).and_then(|rest| rest.split_once('}')).map(|(inside, _)| inside);
        let inside = inside.ok_or_else(|| self.error("a { is never closed"))?;
        let number = |text: &str| text.trim().parse::<u32>().ok().filter(|n| *n <= MAX_REPETITIONS);
        let counted = match inside.split_once(',') {
            None => number(inside).map(|n| (n, Some(n))),
            Some((least, most)) if most.trim().is_empty() => number(least).map(|n| (n, None)),
            Some((least, most)) => {
                number(least).zip(number(most)).map(|(least, most)| (least, Some(most)))
            }
        };
        let good = counted.filter(|(least, most)| most.is_none_or(|most| most >= *least));
        let why = || format!("{{{inside}}} is no number of repetitions up to {MAX_REPETITIONS}");
        let good = good.ok_or_else(|| self.error(&why()))?;
        self.at += inside.len() + 2;
        Ok(good)
    }

    fn text(&mut self) -> Result<String, RuleError> {
        self.at += 1;
        let mut text = String::new();
        loop {
            match self.next() {
                Some('"') => return Ok(text),
                Some('\\') => text.push(self.escape()?),
                Some('\n' | '\r') | None => return Err(self.error("a \" is never closed")),
                Some(c) => text.push(c),
            }
        }
    }

    /// A class as a regular expression: every character by its number, so none has a meaning there.
    fn class(&mut self) -> Result<Atom<'source>, RuleError> {
        self.at += 1;
        let negated = self.eat("^");
        let mut class = String::new();
        let mut space = !negated;
        while let Some(low) = self.class_member()? {
            let ranged = self.rest().starts_with('-') && !self.rest().starts_with("-]");
            self.at += usize::from(ranged);
            let high = if ranged { self.class_member()? } else { None };
            let high = high.unwrap_or(low);
            if high < low {
                let why = format!("the range from {low:?} to {high:?} runs backwards");
                return Err(self.error(&why));
            }
            space &= is_space(low) && is_space(high);
            // Writing to a string cannot fail.
            _ = write!(class, "\\u{{{:x}}}-\\u{{{:x}}}", u32::from(low), u32::from(high));
        }
        match (class.is_empty(), negated) {
            (true, true) => Ok(Atom::Class(ANY.to_owned(), false)),
            (true, false) => Err(self.error("a class of no characters")),
            (false, true) => Ok(Atom::Class(format!("[^{class}]"), false)),
            (false, false) => Ok(Atom::Class(format!("[{class}]"), space)),
        }
    }

    /// The next character of a class; none at its end.
    fn class_member(&mut self) -> Result<Option<char>, RuleError> {
        match self.next() {
            Some(']') => Ok(None),
            Some('\\') => self.escape().map(Some),
            Some('\n' | '\r') | None => Err(self.error("a [ is never closed")),
            Some(c) => Ok(Some(c)),
        }
    }

    fn escape(&mut self) -> Result<char, RuleError> {
        let letter = self.next();
        let digits = match letter {
            Some('n') => return Ok('\n'),
            Some('r') => return Ok('\r'),
            Some('t') => return Ok('\t'),
            Some(c @ ('\\' | '"' | '[' | ']' | '-' | '^' | '/' | '\'')) => return Ok(c),
            Some('x') => 2,
            Some('u') => 4,
            Some('U') => 8,
            _ => return Err(self.error("an unknown escape after \\")),
        };
        let code = self.rest().get(..digits).and_then(|hex| u32::from_str_radix(hex, 16).ok());
        let c = code.and_then(char::from_u32);
        let c =
            c.ok_or_else(|| self.error(&format!("{digits} digits of a character are expected")))?;
        self.at += digits;
        Ok(c)
    }
}
