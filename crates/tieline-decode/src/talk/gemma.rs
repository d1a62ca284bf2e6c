//! Reads calls in the form of FunctionGemma, `call:name{key:<escape>text<escape>,count:5}`, and of Gemma 4,
//! which writes `<|"|>` where FunctionGemma writes `<escape>`.
//!
//! The form is not JSON, so a call is given out whole when it is complete.

use serde_json::{Map, Value};

use super::json::{MAX_ARGUMENTS, MAX_DEPTH};
use super::out::Out;
use super::{Progress, UNKNOWN_TOOL};

/// One call, as it arrives.
pub(super) struct Quoted {
    raw: String,
    /// Where the call itself begins in `raw`.
    from: usize,
    quote: &'static str,
    close: &'static str,
    in_string: bool,
}

impl Quoted {
    /// `raw` announced it; `quote` stands around its strings and `close` after it.
    pub(super) fn new(raw: String, quote: &'static str, close: &'static str) -> Self {
        let from = raw.len();
        Self { raw, from, quote, close, in_string: false }
    }

    /// What came and was not given out.
    pub(super) fn take_raw(&mut self) -> String {
        std::mem::take(&mut self.raw)
    }

    pub(super) fn feed(&mut self, c: char, out: &mut Out) -> Progress {
        if self.raw.len() >= MAX_ARGUMENTS {
            return Progress::Spoilt { again: true };
        }
        self.raw.push(c);
        let body = self.raw.get(self.from..).unwrap_or_default();
        if body.ends_with(self.quote) {
            self.in_string = !self.in_string;
        }
        if self.in_string || !body.ends_with(self.close) {
            return Progress::More;
        }
        let body = body.strip_suffix(self.close).unwrap_or(body);
        let Some((name, arguments)) = call_in(body, self.quote) else {
            return Progress::Spoilt { again: false };
        };
        if out.tool(name).is_none() {
            out.text(&self.take_raw());
            out.warn(UNKNOWN_TOOL);
            return Progress::Passed;
        }
        out.call(name, &Value::Object(arguments).to_string());
        self.raw.clear();
        Progress::Done
    }
}

fn call_in<'a>(body: &'a str, quote: &'static str) -> Option<(&'a str, Map<String, Value>)> {
    let (name, _) = body.trim().strip_prefix("call:")?.split_once('{')?;
    let rest = body.trim().strip_prefix("call:")?.get(name.len()..)?;
    let mut reader = Reader { rest, quote };
    let arguments = reader.value(0)?;
    reader.skip_space();
    match arguments {
        Value::Object(arguments) if reader.rest.is_empty() => Some((name.trim(), arguments)),
        _ => None,
    }
}

struct Reader<'a> {
    rest: &'a str,
    quote: &'static str,
}

impl Reader<'_> {
    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn take(&mut self, token: &str) -> bool {
        self.skip_space();
        match self.rest.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn value(&mut self, depth: usize) -> Option<Value> {
        if depth >= MAX_DEPTH {
            return None;
        }
        if self.take("{") {
            return self.object(depth);
        }
        if self.take("[") {
            return self.array(depth);
        }
        if self.take(self.quote) {
            return self.string().map(Value::from);
        }
        let end = self.rest.find([',', '}', ']'])?;
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        let word = word.trim();
        // What is neither a number nor a literal is a string without its quotes; templates write
        // `None` for null.
        let literal = if word == "None" { "null" } else { word };
        (!word.is_empty()).then(|| serde_json::from_str(literal).unwrap_or_else(|_| word.into()))
    }

    fn string(&mut self) -> Option<String> {
        let (text, rest) = self.rest.split_once(self.quote)?;
        self.rest = rest;
        Some(text.to_owned())
    }

    fn object(&mut self, depth: usize) -> Option<Value> {
        let mut members = Map::new();
        while !self.take("}") {
            if !members.is_empty() && !self.take(",") {
                return None;
            }
            let key = self.key()?;
            let value = self.value(depth + 1)?;
            // A second one of the same name would be lost.
            if members.insert(key, value).is_some() {
                return None;
            }
        }
        Some(Value::Object(members))
    }

    fn key(&mut self) -> Option<String> {
        if self.take(self.quote) {
            let key = self.string()?;
            return self.take(":").then_some(key);
        }
        let (key, rest) = self.rest.split_once(':')?;
        let key = key.trim().trim_matches('"');
        self.rest = rest;
        let plain = !key.is_empty() && !key.contains(['{', '}', '[', ']', ',', '\n']);
        plain.then(|| key.to_owned())
    }

    fn array(&mut self, depth: usize) -> Option<Value> {
        let mut items = Vec::new();
        while !self.take("]") {
            if !items.is_empty() && !self.take(",") {
                return None;
            }
            items.push(self.value(depth + 1)?);
        }
        Some(Value::Array(items))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(body: &str, want: Option<&Value>) {
        let got = call_in(body, "<escape>").map(|(name, arguments)| {
            assert_eq!(name, "f");
            Value::Object(arguments)
        });
        assert_eq!(got.as_ref(), want, "{body}");
    }

    #[test]
    fn the_form_becomes_json() {
        check("call:f{}", Some(&json!({})));
        check("call:f{a:<escape>x{},:\"<escape>,b:5}", Some(&json!({"a": "x{},:\"", "b": 5})));
        check(
            "call:f{a:[1,true,<escape>é<escape>],b:{c:null}}",
            Some(&json!({"a": [1, true, "é"], "b": {"c": null}})),
        );
        check("call:f{<escape>a b<escape>: -2.5}", Some(&json!({"a b": -2.5})));
        check("call:f{a:word,b:None}", Some(&json!({"a": "word", "b": null})));
        for bad in
            ["", "call:f", "f{}", "call:f{", "call:f{a}", "call:f{a:}", "call:f{}x", "call:f[1]"]
        {
            check(bad, None);
        }
        check("call:f{a:1,a:2}", None);
        check(&format!("call:f{{a:{}{}}}", "[".repeat(70), "]".repeat(70)), None);
    }
}
