//! Reads calls in Qwen3-Coder's form:
//! `<function=name><parameter=key>value</parameter></function>`.
//!
//! The form has no types: a value's type is what the tool's schema says.

use serde_json::Value;

use super::json::MAX_ARGUMENTS;
use super::out::Out;
use super::{Progress, UNKNOWN_TOOL};

const PARAMETER: &str = "<parameter=";
const PARAMETER_END: &str = "</parameter>";
const FUNCTION_END: &str = "</function>";
const TOOL_CALL_END: &str = "</tool_call>";
/// The longest name of a function or parameter.
const MAX_NAME: usize = 256;

enum Place {
    Name,
    /// Between parameters: the start of a tag.
    Between(String),
    Key,
    Value,
    /// A call of an unknown tool is text up to its end.
    Spilt,
}

/// One call, as it arrives. What announced it ends with `<function=`.
pub(super) struct Xml {
    raw: String,
    place: Place,
    name: String,
    /// The schemas of the tool's parameters.
    properties: Option<Value>,
    key: String,
    value: String,
    begun: bool,
    sent: usize,
}

impl Xml {
    pub(super) fn new(raw: String) -> Self {
        Self {
            raw,
            place: Place::Name,
            name: String::new(),
            properties: None,
            key: String::new(),
            value: String::new(),
            begun: false,
            sent: 0,
        }
    }

    /// Whether a call has begun and not ended.
    pub(super) fn is_open(&self) -> bool {
        self.begun
    }

    /// What came and was not given out.
    pub(super) fn take_raw(&mut self) -> String {
        std::mem::take(&mut self.raw)
    }

    pub(super) fn feed(&mut self, c: char, out: &mut Out) -> Progress {
        if self.raw.len() >= MAX_ARGUMENTS || self.sent >= MAX_ARGUMENTS {
            return Progress::Spoilt { again: true };
        }
        if matches!(self.place, Place::Spilt) {
            return self.spill(c, out);
        }
        self.raw.push(c);
        match &mut self.place {
            Place::Name if c == '>' => self.named(out),
            Place::Name => push_name(&mut self.name, c),
            Place::Key if c == '>' => {
                self.place = Place::Value;
                Progress::More
            }
            Place::Key => push_name(&mut self.key, c),
            Place::Between(tag) if tag.is_empty() && c.is_whitespace() => Progress::More,
            Place::Between(tag) => {
                tag.push(c);
                let tag = std::mem::take(tag);
                self.tag(tag, out)
            }
            Place::Value => {
                self.value.push(c);
                if c == '>' && self.value.ends_with(PARAMETER_END) {
                    self.parameter(out);
                }
                Progress::More
            }
            Place::Spilt => Progress::More,
        }
    }

    fn spill(&mut self, c: char, out: &mut Out) -> Progress {
        out.text(c.encode_utf8(&mut [0; 4]));
        // `value` holds what may be the end tag.
        if c == '<' {
            self.value.clear();
        }
        if self.value.len() <= FUNCTION_END.len() {
            self.value.push(c);
        }
        if self.value == FUNCTION_END { Progress::Passed } else { Progress::More }
    }

    fn named(&mut self, out: &mut Out) -> Progress {
        self.name = self.name.trim().to_owned();
        if let Some(tool) = out.tool(&self.name) {
            let schema: Option<Value> = serde_json::from_str(&tool.parameters).ok();
            self.properties = schema.and_then(|schema| schema.get("properties").cloned());
            self.place = Place::Between(String::new());
            return Progress::More;
        }
        out.text(&self.take_raw());
        out.warn(UNKNOWN_TOOL);
        self.place = Place::Spilt;
        Progress::More
    }

    fn tag(&mut self, tag: String, out: &mut Out) -> Progress {
        if tag == PARAMETER {
            self.key.clear();
            self.place = Place::Key;
            return Progress::More;
        }
        // The function's own end is forgotten at times.
        if tag == FUNCTION_END || tag == TOOL_CALL_END {
            self.begin(out);
            out.arguments(if self.sent == 0 { "{}" } else { "}" });
            out.end();
            self.begun = false;
            self.raw.clear();
            return Progress::Done;
        }
        let goes_on =
            [PARAMETER, FUNCTION_END, TOOL_CALL_END].iter().any(|whole| whole.starts_with(&tag));
        self.place = Place::Between(tag);
        if goes_on { Progress::More } else { Progress::Spoilt { again: false } }
    }

    /// A parameter is complete. The call begins with the first one: until then it can become text.
    fn parameter(&mut self, out: &mut Out) {
        let value = std::mem::take(&mut self.value);
        let value = value.strip_suffix(PARAMETER_END).unwrap_or(&value);
        let schema = self.properties.as_ref().and_then(|all| all.get(self.key.trim()));
        let value = typed(value, schema);
        let between = if self.sent == 0 { '{' } else { ',' };
        let text = format!("{between}{}:{value}", Value::from(self.key.trim()));
        self.begin(out);
        out.arguments(&text);
        self.sent += text.len();
        self.raw.clear();
        self.place = Place::Between(String::new());
    }

    fn begin(&mut self, out: &mut Out) {
        if !self.begun {
            out.begin(&self.name);
            self.begun = true;
        }
    }
}

fn push_name(name: &mut String, c: char) -> Progress {
    name.push(c);
    let fits = name.len() <= MAX_NAME && !matches!(c, '<' | '\n');
    if fits { Progress::More } else { Progress::Spoilt { again: false } }
}

/// The JSON value that `text` stands for: a string where the schema allows one or says nothing, else what
/// the text is in JSON. The template sets each value on lines of its own: one line break at either end is
/// not part of it.
fn typed(text: &str, schema: Option<&Value>) -> Value {
    let text = text.strip_prefix('\n').unwrap_or(text);
    let text = text.strip_suffix('\n').unwrap_or(text);
    let types = schema.map(types_of).unwrap_or_default();
    if types.is_empty() || types.contains(&"string") {
        return Value::from(text);
    }
    let trimmed = text.trim();
    let value = match trimmed {
        // As Python writes them.
        "True" => Some(Value::from(true)),
        "False" => Some(Value::from(false)),
        "None" => Some(Value::Null),
        _ => serde_json::from_str(trimmed).ok(),
    };
    value.unwrap_or_else(|| Value::from(text))
}

/// The types that a schema names, itself or in `anyOf` or `oneOf`.
fn types_of(schema: &Value) -> Vec<&str> {
    let mut types = match schema.get("type") {
        Some(Value::String(one)) => vec![one.as_str()],
        Some(Value::Array(several)) => several.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    for key in ["anyOf", "oneOf"] {
        let choices = schema.get(key).and_then(Value::as_array);
        let named = choices.into_iter().flatten().filter_map(|choice| choice.get("type"));
        types.extend(named.filter_map(Value::as_str));
    }
    types
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(text: &str, schema: &Value, want: &Value) {
        assert_eq!(typed(text, Some(schema)), *want);
    }

    #[test]
    fn the_schema_says_what_a_value_is() {
        check("\n5\n", &json!({"type": "integer"}), &json!(5));
        check("5", &json!({"type": "string"}), &json!("5"));
        check("5", &json!({}), &json!("5"));
        check(" true ", &json!({"type": "boolean"}), &json!(true));
        check("False", &json!({"type": "boolean"}), &json!(false));
        check("[1, {\"a\": 2}]", &json!({"type": "array"}), &json!([1, {"a": 2}]));
        check("null", &json!({"type": ["integer", "null"]}), &json!(null));
        check("7", &json!({"anyOf": [{"type": "integer"}, {"type": "null"}]}), &json!(7));
        check("7", &json!({"anyOf": [{"type": "integer"}, {"type": "string"}]}), &json!("7"));
        check("about 5", &json!({"type": "integer"}), &json!("about 5"));
        check("\n\n  x\n\n", &json!({"type": "string"}), &json!("\n  x\n"));
        assert_eq!(typed("5", None), json!("5"));
    }
}
