//! Python's `json.dumps`, to the character: a model was trained on prompts that it wrote.

use std::fmt::Write;

use minijinja::value::{Value, ValueKind};
use minijinja::{Error, ErrorKind};

/// How deep a value may nest.
const MAX_DEPTH: usize = 64;

/// The arguments of `json.dumps` that templates use.
#[derive(Debug, Default)]
pub(super) struct Style {
    pub(super) indent: Option<usize>,
    pub(super) ensure_ascii: bool,
    pub(super) sort_keys: bool,
    pub(super) separators: Option<[String; 2]>,
}

/// `value` as JSON.
pub(super) fn dump(value: &Value, style: &Style) -> Result<String, Error> {
    let (item, key) = match (&style.separators, style.indent) {
        (Some([item, key]), _) => (item.as_str(), key.as_str()),
        // Python drops the space at the end of a line.
        (None, Some(_)) => (",", ": "),
        (None, None) => (", ", ": "),
    };
    let mut dump = Dump { style, item, key, output: String::new() };
    dump.value(value, 0)?;
    Ok(dump.output)
}

struct Dump<'s> {
    style: &'s Style,
    item: &'s str,
    key: &'s str,
    output: String,
}

impl Dump<'_> {
    fn value(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        if depth > MAX_DEPTH {
            return Err(Error::new(ErrorKind::InvalidOperation, "a value nests too deep for JSON"));
        }
        match value.kind() {
            ValueKind::Undefined | ValueKind::None => self.output.push_str("null"),
            ValueKind::Bool => self.output.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => self.output.push_str(&value.to_string()),
            ValueKind::String => self.string(value.as_str().unwrap_or_default()),
            ValueKind::Seq | ValueKind::Iterable => self.list(value, depth)?,
            ValueKind::Map => self.map(value, depth)?,
            kind => {
                let text = format!("a {kind} is no JSON value");
                return Err(Error::new(ErrorKind::InvalidOperation, text));
            }
        }
        Ok(())
    }

    fn list(&mut self, list: &Value, depth: usize) -> Result<(), Error> {
        self.output.push('[');
        let mut any = false;
        for item in list.try_iter()? {
            self.separate(&mut any, depth + 1);
            self.value(&item, depth + 1)?;
        }
        self.close(any, depth, ']');
        Ok(())
    }

    fn map(&mut self, map: &Value, depth: usize) -> Result<(), Error> {
        let mut keys: Vec<Value> = map.try_iter()?.collect();
        if self.style.sort_keys {
            keys.sort_by_key(ToString::to_string);
        }
        self.output.push('{');
        let mut any = false;
        for key in keys {
            self.separate(&mut any, depth + 1);
            self.string(&key.to_string());
            self.output.push_str(self.key);
            self.value(&map.get_item(&key)?, depth + 1)?;
        }
        self.close(any, depth, '}');
        Ok(())
    }

    fn separate(&mut self, any: &mut bool, depth: usize) {
        if std::mem::replace(any, true) {
            self.output.push_str(self.item);
        }
        self.new_line(depth);
    }

    fn close(&mut self, any: bool, depth: usize, bracket: char) {
        if any {
            self.new_line(depth);
        }
        self.output.push(bracket);
    }

    fn new_line(&mut self, depth: usize) {
        if let Some(width) = self.style.indent {
            self.output.push('\n');
            self.output.extend(std::iter::repeat_n(' ', width * depth));
        }
    }

    fn string(&mut self, text: &str) {
        self.output.push('"');
        for c in text.chars() {
            self.character(c);
        }
        self.output.push('"');
    }

    fn character(&mut self, c: char) {
        match c {
            '"' => self.output.push_str("\\\""),
            '\\' => self.output.push_str("\\\\"),
            '\n' => self.output.push_str("\\n"),
            '\r' => self.output.push_str("\\r"),
            '\t' => self.output.push_str("\\t"),
            '\u{8}' => self.output.push_str("\\b"),
            '\u{c}' => self.output.push_str("\\f"),
            c if c < ' ' || c == '\u{7f}' && self.style.ensure_ascii => self.escape(c),
            c if self.style.ensure_ascii && !c.is_ascii() => self.escape(c),
            c => self.output.push(c),
        }
    }

    fn escape(&mut self, c: char) {
        for unit in c.encode_utf16(&mut [0; 2]) {
            // Writing to a string cannot fail.
            let _ = write!(self.output, "\\u{unit:04x}");
        }
    }
}
