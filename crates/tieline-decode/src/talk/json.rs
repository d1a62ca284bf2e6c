//! Follows JSON text character by character and tells at once where it stops being JSON.
//!
//! One leniency: a raw control character inside a string, which small models write instead of `\n`, is
//! let through; [`Arguments`] hands it on escaped.

use serde_json::{Map, Value};

/// How deep arrays and objects may nest.
pub(super) const MAX_DEPTH: usize = 64;
/// The longest arguments of one call, in bytes.
pub(super) const MAX_ARGUMENTS: usize = 1024 * 1024;
/// The longest number or literal.
const MAX_SCALAR: usize = 512;

/// The text is not JSON, or too deep, or too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// What a character was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    /// Space between tokens, a comma or a colon.
    Between,
    /// `{` or `[`.
    Open,
    /// `}` or `]`.
    Close,
    /// The quote before a string.
    StringStart,
    /// Inside a string.
    InString,
    /// The quote after a string that is a value.
    StringEnd,
    /// The quote after a string that is a key.
    KeyEnd,
    /// Part of a number or literal.
    Scalar,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expect {
    Value,
    ValueOrEnd,
    Key,
    KeyOrEnd,
    Colon,
    CommaOrEnd,
    Nothing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lexeme {
    Between,
    /// `escape`: 0 outside an escape, 5 after the backslash, 4 to 1 hex digits to come.
    String {
        key: bool,
        escape: u8,
    },
    Scalar,
}

/// Follows one object or array.
pub(super) struct Tracker {
    /// True for each open object, false for each open array.
    open: Vec<bool>,
    expect: Expect,
    lexeme: Lexeme,
    scalar: String,
}

impl Tracker {
    pub(super) fn new() -> Self {
        Self {
            open: Vec::new(),
            expect: Expect::Value,
            lexeme: Lexeme::Between,
            scalar: String::new(),
        }
    }

    /// How many objects and arrays are open.
    pub(super) fn depth(&self) -> usize {
        self.open.len()
    }

    /// Whether the value is complete.
    pub(super) fn is_done(&self) -> bool {
        self.expect == Expect::Nothing
    }

    /// Whether the next token may be a value.
    pub(super) fn expects_value(&self) -> bool {
        self.lexeme == Lexeme::Between && matches!(self.expect, Expect::Value | Expect::ValueOrEnd)
    }

    /// Takes note of a value that somebody else has read.
    pub(super) fn skip_value(&mut self) {
        self.expect = if self.open.is_empty() { Expect::Nothing } else { Expect::CommaOrEnd };
    }

    /// Reads one character.
    pub(super) fn feed(&mut self, c: char) -> Result<Mark, Malformed> {
        match self.lexeme {
            Lexeme::String { key, escape } => self.in_string(c, key, escape),
            Lexeme::Scalar if is_scalar(c) => {
                self.scalar.push(c);
                let fits = self.scalar.len() <= MAX_SCALAR;
                if fits { Ok(Mark::Scalar) } else { Err(Malformed) }
            }
            Lexeme::Scalar => {
                self.lexeme = Lexeme::Between;
                serde_json::from_str::<Value>(&self.scalar).map_err(|_| Malformed)?;
                self.skip_value();
                self.between(c)
            }
            Lexeme::Between => self.between(c),
        }
    }

    fn in_string(&mut self, c: char, key: bool, escape: u8) -> Result<Mark, Malformed> {
        let escape = match (escape, c) {
            (0, '"') => {
                self.lexeme = Lexeme::Between;
                return Ok(self.string_end(key));
            }
            (0, '\\') => 5,
            (0, _) => 0,
            (5, 'u') => 4,
            (5, '"' | '\\' | '/' | 'b' | 'f' | 'n' | 'r' | 't') => 0,
            (1..=4, c) if c.is_ascii_hexdigit() => escape - 1,
            _ => return Err(Malformed),
        };
        self.lexeme = Lexeme::String { key, escape };
        Ok(Mark::InString)
    }

    fn string_end(&mut self, key: bool) -> Mark {
        if key {
            self.expect = Expect::Colon;
            return Mark::KeyEnd;
        }
        self.skip_value();
        Mark::StringEnd
    }

    fn between(&mut self, c: char) -> Result<Mark, Malformed> {
        use Expect as E;
        match (c, self.expect) {
            (' ' | '\t' | '\n' | '\r', _) => Ok(Mark::Between),
            ('{' | '[', E::Value | E::ValueOrEnd) => self.enter(c == '{'),
            ('}', E::KeyOrEnd) | (']', E::ValueOrEnd) => Ok(self.leave()),
            ('}' | ']', E::CommaOrEnd) if self.open.last() == Some(&(c == '}')) => Ok(self.leave()),
            (',', E::CommaOrEnd) => {
                self.expect = if self.open.last() == Some(&true) { E::Key } else { E::Value };
                Ok(Mark::Between)
            }
            (':', E::Colon) => {
                self.expect = E::Value;
                Ok(Mark::Between)
            }
            ('"', E::Key | E::KeyOrEnd | E::Value | E::ValueOrEnd) if !self.open.is_empty() => {
                let key = matches!(self.expect, E::Key | E::KeyOrEnd);
                self.lexeme = Lexeme::String { key, escape: 0 };
                Ok(Mark::StringStart)
            }
            (c, E::Value | E::ValueOrEnd) if is_scalar(c) && !self.open.is_empty() => {
                self.lexeme = Lexeme::Scalar;
                self.scalar.clear();
                self.scalar.push(c);
                Ok(Mark::Scalar)
            }
            _ => Err(Malformed),
        }
    }

    fn enter(&mut self, object: bool) -> Result<Mark, Malformed> {
        if self.open.len() >= MAX_DEPTH {
            return Err(Malformed);
        }
        self.open.push(object);
        self.expect = if object { Expect::KeyOrEnd } else { Expect::ValueOrEnd };
        Ok(Mark::Open)
    }

    fn leave(&mut self) -> Mark {
        self.open.pop();
        self.skip_value();
        Mark::Close
    }
}

fn is_scalar(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.')
}

/// The arguments of one call, as they arrive.
pub(super) struct Arguments {
    json: Tracker,
    text: String,
}

impl Arguments {
    pub(super) fn new() -> Self {
        Self { json: Tracker::new(), text: String::new() }
    }

    /// Reads one character; the first must be `{`. Returns where in [`Self::text`] its text begins.
    pub(super) fn feed(&mut self, c: char) -> Result<usize, Malformed> {
        let mark = self.json.feed(c)?;
        let from = self.text.len();
        if from >= MAX_ARGUMENTS {
            return Err(Malformed);
        }
        if mark == Mark::InString && c.is_ascii_control() {
            push_escaped(&mut self.text, c);
        } else {
            self.text.push(c);
        }
        if self.json.is_done() && !is_object(&self.text) {
            return Err(Malformed);
        }
        Ok(from)
    }

    pub(super) fn is_done(&self) -> bool {
        self.json.is_done()
    }

    /// All of it so far.
    pub(super) fn text(&self) -> &str {
        &self.text
    }
}

/// Whether `text` is exactly one JSON object.
pub(super) fn is_object(text: &str) -> bool {
    serde_json::from_str::<Map<String, Value>>(text).is_ok()
}

fn push_escaped(text: &mut String, c: char) {
    // A control character in quotes is `"\n"` or the like; the quotes are not wanted.
    let quoted = Value::from(c.to_string()).to_string();
    text.push_str(quoted.trim_matches('"'));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn accepts(text: &str) -> bool {
        let mut json = Tracker::new();
        for c in text.chars() {
            if json.feed(c).is_err() {
                return false;
            }
        }
        json.is_done()
    }

    #[test]
    fn json_is_followed_to_its_end() {
        for good in [
            "{}",
            "[]",
            r#"{"a":[1,-2.5e3,true,null,"\u00e9\"}"],"b":{"c":{}}}"#,
            " {\n\t\"a\" : 1 } ",
            r#"[[],{},[{"a":[]}]]"#,
        ] {
            assert!(accepts(good), "{good}");
        }
        for bad in [
            "",
            "1",
            "\"a\"",
            "{]",
            "[}",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "[1,]",
            "[,1]",
            "{a:1}",
            "[01]",
            "[tru]",
            "[1 2]",
            r#"["\x"]"#,
            r#"["\u00g0"]"#,
            "{}{}",
            "[1",
        ] {
            assert!(!accepts(bad), "{bad}");
        }
        assert!(accepts(&("[".repeat(64) + &"]".repeat(64))));
        assert!(!accepts(&("[".repeat(65) + &"]".repeat(65))));
    }

    #[test]
    fn a_raw_line_break_in_a_string_is_escaped() {
        let mut arguments = Arguments::new();
        for c in "{\"a\":\"x\ny\"}".chars() {
            arguments.feed(c).unwrap();
        }
        assert_eq!(arguments.text(), r#"{"a":"x\ny"}"#);
    }

    #[test]
    fn half_a_surrogate_is_no_text() {
        let mut arguments = Arguments::new();
        let fed: Result<Vec<_>, _> =
            r#"{"a":"\ud800"}"#.chars().map(|c| arguments.feed(c)).collect();
        assert!(fed.is_err());
    }

    proptest! {
        #[test]
        fn the_tracker_agrees_with_serde_json(text in r#"[\[{](["a0:,\[\]{}\\ untrlesf1.-]){0,12}"#) {
            let want = serde_json::from_str::<Value>(&text).is_ok();
            // serde_json also refuses half surrogates, which the pattern cannot make.
            prop_assert_eq!(accepts(&text), want);
        }
    }
}
