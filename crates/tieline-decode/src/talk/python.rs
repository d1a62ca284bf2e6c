//! Reads calls in the form of Python: `weather(city="Bern", days=2)`, or a list of them.
//!
//! Nothing is run: names, keyword arguments and literals are all that is understood. A call is given out
//! whole when it is complete.

use serde_json::{Map, Value};

use super::json::{MAX_ARGUMENTS, MAX_DEPTH};
use super::out::Out;
use super::{Progress, UNKNOWN_TOOL};

/// The longest name of a function.
const MAX_NAME: usize = 256;

type Call<'a> = (&'a str, Map<String, Value>);

/// A call or a list of calls, as it arrives.
pub(super) struct Python {
    raw: String,
    /// Where the call itself begins in `raw`.
    from: usize,
    depth: usize,
    /// The quote that ends the string being read.
    quote: Option<char>,
    escaped: bool,
}

impl Python {
    /// `raw` announced it.
    pub(super) fn new(raw: String) -> Self {
        let from = raw.len();
        Self { raw, from, depth: 0, quote: None, escaped: false }
    }

    /// What came and was not given out.
    pub(super) fn take_raw(&mut self) -> String {
        std::mem::take(&mut self.raw)
    }

    pub(super) fn feed(&mut self, c: char, out: &mut Out) -> Progress {
        let read = self.raw.len() - self.from;
        let named = c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '(' | '[');
        let fits = if self.depth == 0 { named && read < MAX_NAME } else { read < MAX_ARGUMENTS };
        if !fits {
            return Progress::Spoilt { again: true };
        }
        self.raw.push(c);
        match (self.quote, c) {
            (Some(_), _) if self.escaped => self.escaped = false,
            (Some(_), '\\') => self.escaped = true,
            (Some(quote), c) if quote == c => self.quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => self.quote = Some(c),
            (None, '(' | '[' | '{') => self.depth += 1,
            (None, ')' | ']' | '}') => {
                self.depth -= 1;
                if self.depth == 0 {
                    return self.give(out);
                }
            }
            (None, _) => {}
        }
        Progress::More
    }

    fn give(&mut self, out: &mut Out) -> Progress {
        let body = self.raw.get(self.from..).unwrap_or_default();
        let Some(calls) = calls_in(body) else { return Progress::Spoilt { again: false } };
        if calls.iter().any(|(name, _)| out.tool(name).is_none()) {
            out.text(&self.take_raw());
            out.warn(UNKNOWN_TOOL);
            return Progress::Passed;
        }
        for (name, arguments) in calls {
            out.call(name, &Value::Object(arguments).to_string());
        }
        self.raw.clear();
        Progress::Done
    }
}

fn calls_in(body: &str) -> Option<Vec<Call<'_>>> {
    let mut reader = Reader { rest: body };
    let mut calls = Vec::new();
    if reader.take('[') {
        while !reader.take(']') {
            if !calls.is_empty() && !reader.take(',') {
                return None;
            }
            calls.push(reader.call()?);
        }
    } else {
        calls.push(reader.call()?);
    }
    (reader.rest.is_empty() && !calls.is_empty()).then_some(calls)
}

struct Reader<'a> {
    rest: &'a str,
}

impl<'a> Reader<'a> {
    fn take(&mut self, token: char) -> bool {
        self.rest = self.rest.trim_start();
        match self.rest.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    /// A name, number or literal.
    fn word(&mut self) -> Option<&'a str> {
        self.rest = self.rest.trim_start();
        let belongs = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '+');
        let end = self.rest.find(|c| !belongs(c)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        (!word.is_empty()).then_some(word)
    }

    fn call(&mut self) -> Option<Call<'a>> {
        let name = self.word()?;
        // Llama's built-in tools are objects: `brave_search.call(query="…")`.
        let name = name.strip_suffix(".call").unwrap_or(name);
        let mut arguments = Map::new();
        if !self.take('(') {
            return None;
        }
        while !self.take(')') {
            if !arguments.is_empty() && !self.take(',') {
                return None;
            }
            let key = self.word()?;
            if !self.take('=') || arguments.insert(key.to_owned(), self.value(0)?).is_some() {
                return None;
            }
        }
        Some((name, arguments))
    }

    fn value(&mut self, depth: usize) -> Option<Value> {
        if depth >= MAX_DEPTH {
            return None;
        }
        if self.take('[') {
            return self.list(depth);
        }
        if self.take('{') {
            return self.dictionary(depth);
        }
        for quote in ['"', '\''] {
            if self.take(quote) {
                return self.string(quote).map(Value::from);
            }
        }
        match self.word()? {
            "True" => Some(Value::from(true)),
            "False" => Some(Value::from(false)),
            "None" => Some(Value::Null),
            word => serde_json::from_str(word).ok(),
        }
    }

    fn list(&mut self, depth: usize) -> Option<Value> {
        let mut items = Vec::new();
        while !self.take(']') {
            if !items.is_empty() && !self.take(',') {
                return None;
            }
            items.push(self.value(depth + 1)?);
        }
        Some(Value::Array(items))
    }

    fn dictionary(&mut self, depth: usize) -> Option<Value> {
        let mut members = Map::new();
        while !self.take('}') {
            if !members.is_empty() && !self.take(',') {
                return None;
            }
            let Value::String(key) = self.value(depth + 1)? else { return None };
            if !self.take(':') || members.insert(key, self.value(depth + 1)?).is_some() {
                return None;
            }
        }
        Some(Value::Object(members))
    }

    /// The rest of a string that begins with `quote`.
    fn string(&mut self, quote: char) -> Option<String> {
        let mut text = String::new();
        let mut chars = self.rest.chars();
        loop {
            match chars.next()? {
                c if c == quote => break,
                '\\' => match chars.next()? {
                    'n' => text.push('\n'),
                    't' => text.push('\t'),
                    'r' => text.push('\r'),
                    'u' => {
                        let digits = chars.as_str().get(..4)?;
                        text.push(char::from_u32(u32::from_str_radix(digits, 16).ok()?)?);
                        chars = chars.as_str().get(4..)?.chars();
                    }
                    c @ ('\\' | '"' | '\'') => text.push(c),
                    // As Python does with what it does not know.
                    c => text.extend(['\\', c]),
                },
                c => text.push(c),
            }
        }
        self.rest = chars.as_str();
        Some(text)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(body: &str, want: Option<&Value>) {
        let got = calls_in(body).map(|calls| {
            let calls = calls.into_iter().map(|(name, arguments)| json!({ name: arguments }));
            Value::Array(calls.collect())
        });
        assert_eq!(got.as_ref(), want, "{body}");
    }

    #[test]
    fn literals_become_json() {
        check("f()", Some(&json!([{"f": {}}])));
        check("[f(a=1), g.call(b='x')]", Some(&json!([{"f": {"a": 1}}, {"g": {"b": "x"}}])));
        check(
            r#"f(a="\"é\n)", b=[True, None, -2.5], c={'k': {"l": []}}, d='\u00e9\d')"#,
            Some(&json!([{"f": {"a": "\"é\n)", "b": [true, null, -2.5], "c": {"k": {"l": []}},
                "d": "é\\d"}}])),
        );
        for bad in [
            "",
            "f",
            "f(",
            "f(1)",
            "f(a)",
            "f(a=)",
            "f(a=b)",
            "f(a=1 b=2)",
            "f(a=1,a=2)",
            "[]",
            "f(a=g())",
            "f(a=1)x",
            "f(a='\\ud800')",
            "f(a={1: 2})",
            "f(a=\"\"\"x\"\"\")",
        ] {
            check(bad, None);
        }
        check(&format!("f(a={}{})", "[".repeat(70), "]".repeat(70)), None);
    }
}
