//! Renders a conversation with the chat template of the model's own file.
//!
//! A template is code from the internet. It runs in `minijinja`, which knows no files, no network and no
//! objects of ours, and it runs under limits: on its size, on the instructions it executes, on how deep it
//! calls itself, and on how much it writes. It behaves as it does in Hugging Face transformers: the same
//! whitespace rules, methods and functions.
//!
//! What templates make of tools differs more than they tell: [`ways`] finds it out, and [`history`] rewrites
//! conversations with tools accordingly. Those without are handed on as they are.

mod history;
mod json;
mod ways;

use std::fmt::Write as _;
use std::io;
use std::sync::OnceLock;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde, Value};
use minijinja::{Environment, Error, ErrorKind};
use minijinja_contrib::pycompat::unknown_method_callback;
use tieline_decode::talk::{Format, call_id, detect};
use tieline_types::{Effort, Message, Role, Tool, ToolCall};

use self::ways::{Form, Tools, Ways};

/// The largest template, in bytes. The longest in use have about 30,000.
const MAX_SOURCE: usize = 256 * 1024;
/// The most instructions that one rendering may execute: some hundred for each message.
const FUEL: u64 = 5_000_000;
/// The same for a toy conversation, of which there are two dozen.
const TOY_FUEL: u64 = 200_000;
/// How deep loops, macros and blocks may nest.
const MAX_DEPTH: usize = 200;
/// The most text that one rendering may write, in bytes.
const MAX_OUTPUT: usize = 8 * 1024 * 1024;
/// The same for a toy conversation.
const MAX_TOY: usize = 256 * 1024;

/// A chat template.
#[derive(Debug)]
pub(crate) struct Template {
    source: String,
    /// Found out when tools are first spoken of: here rather than at load, so that a template that takes its time does
    /// so under the watch that is kept over prompts.
    ways: OnceLock<Ways>,
}

/// What a template is to write.
#[derive(Debug)]
pub(crate) struct Ask<'a> {
    pub(crate) messages: &'a [Message],
    pub(crate) tools: &'a [Tool],
    /// Whether the model thinks first; `None` leaves it to the template.
    pub(crate) thinking: Option<bool>,
    /// How much, where a template can say it.
    pub(crate) effort: Option<Effort>,
    pub(crate) bos: &'a str,
    pub(crate) eos: &'a str,
}

/// Why a template gave no text.
#[derive(Debug)]
pub(crate) struct RenderError(String);

impl std::fmt::Display for RenderError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl Template {
    /// Takes a template's source; it is checked when it is used.
    pub(crate) fn new(source: String) -> Self {
        Self { source, ways: OnceLock::new() }
    }

    /// How a model with this template writes thoughts and calls.
    pub(crate) fn format(&self) -> Format {
        detect(&self.source)
    }

    /// The text of a conversation, ending where the assistant goes on.
    pub(crate) fn render(&self, ask: &Ask<'_>) -> Result<String, RenderError> {
        if self.source.len() > MAX_SOURCE {
            let text = format!("it has {} bytes, and {MAX_SOURCE} is the limit", self.source.len());
            return Err(RenderError(text));
        }
        let source = without_generation_marks(&self.source);
        let environment = environment(FUEL);
        let template = environment.template_from_str(&source).map_err(|error| explain(&error))?;
        let ways = if speaks_of_tools(ask) {
            *self.ways.get_or_init(|| find_ways(&source))
        } else {
            Ways::default()
        };
        let messages = history::told(ask.messages, ask.tools, &ways);
        let tools = if ways.tools == Tools::Shown { ask.tools } else { &[] };
        let form = ways.calls.map(|calls| calls.form).unwrap_or_default();
        let ask = Ask { messages: &messages, tools, ..*ask };
        write(&template, &ask, form, MAX_OUTPUT).map_err(|error| explain(&error))
    }
}

fn speaks_of_tools(ask: &Ask<'_>) -> bool {
    let speaks = |message: &Message| !message.tool_calls.is_empty() || message.role == Role::Tool;
    !ask.tools.is_empty() || ask.messages.iter().any(speaks)
}

/// The way with tools of a template that compiles.
fn find_ways(source: &str) -> Ways {
    let environment = environment(TOY_FUEL);
    let Ok(template) = environment.template_from_str(source) else { return Ways::default() };
    ways::find(&|messages: &[Message], tools: &[Tool], form: Form| {
        let ask = Ask { messages, tools, thinking: None, effort: None, bos: "<s>", eos: "</s>" };
        write(&template, &ask, form, MAX_TOY).ok()
    })
}

/// What a template writes, calls handed to it in this form.
fn write(
    template: &minijinja::Template<'_, '_>,
    ask: &Ask<'_>,
    form: Form,
    most: usize,
) -> Result<String, Error> {
    let tools: Vec<Value> = ask.tools.iter().map(tool_value).collect();
    let turn = |message| message_value(message, form);
    let mut context = minijinja::context! {
        messages => ask.messages.iter().map(turn).collect::<Vec<_>>(),
        add_generation_prompt => true,
        bos_token => ask.bos,
        eos_token => ask.eos,
        tools => if tools.is_empty() { Value::from(()) } else { Value::from(tools) },
        documents => (),
    };
    if let Some(thinking) = ask.thinking {
        // Qwen's, Granite's and DeepSeek's names for the same switch.
        let switch = minijinja::context! { enable_thinking => thinking, thinking => thinking };
        context = minijinja::context! { ..switch, ..context };
    }
    // The words that templates know which ask for one: those of gpt-oss.
    if let Some((word, _)) = ask.effort.and_then(|effort| effort.among(&["low", "medium", "high"]))
    {
        context = minijinja::context! { reasoning_effort => word, ..context };
    }
    let mut output = Bounded { written: Vec::new(), most };
    template.render_captured_to(context, &mut output)?;
    // minijinja writes whole strings, so this loses nothing.
    Ok(String::from_utf8_lossy(&output.written).into_owned())
}

/// A turn as transformers gives it to templates, but for the form of its calls.
fn message_value(message: &Message, form: Form) -> Value {
    let content = message.content.expose();
    let nothing = form.none && content.is_empty() && !message.tool_calls.is_empty();
    let mut value = minijinja::context! {
        role => message.role.as_str(),
        content => if nothing { Value::from(()) } else { Value::from(content) },
    };
    if let Some(reasoning) = &message.reasoning {
        value = minijinja::context! { reasoning_content => reasoning.expose(), ..value };
    }
    if !message.tool_calls.is_empty() {
        let call = |call| call_value(call, form);
        let calls: Vec<Value> = message.tool_calls.iter().map(call).collect();
        value = minijinja::context! { tool_calls => calls, ..value };
    }
    if let Some(id) = &message.tool_call_id {
        value = minijinja::context! { tool_call_id => id_in(id, form), ..value };
    }
    if let Some(name) = &message.name {
        value = minijinja::context! { name => name, ..value };
    }
    value
}

fn call_value(call: &ToolCall, form: Form) -> Value {
    let text = call.arguments.expose();
    let object = if form.text { None } else { parsed(text) };
    minijinja::context! {
        id => id_in(&call.id, form),
        type => "function",
        function => minijinja::context! {
            name => call.name.as_str(),
            arguments => object.unwrap_or_else(|| Value::from(text)),
        },
    }
}

/// An id of any client; where nine letters are wanted always the same nine.
fn id_in(id: &str, form: Form) -> String {
    let fits = id.len() == 9 && id.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if form.nine && !fits { call_id(id, 0) } else { id.to_owned() }
}

/// A tool as OpenAI's API and most templates write it.
fn tool_value(tool: &Tool) -> Value {
    minijinja::context! { type => "function", function => function_value(tool) }
}

fn function_value(tool: &Tool) -> Value {
    let parameters = parsed(&tool.parameters).unwrap_or_else(|| {
        minijinja::context! { type => "object", properties => minijinja::context! {} }
    });
    minijinja::context! {
        name => tool.name.as_str(),
        description => tool.description.as_str(),
        parameters => parameters,
    }
}

/// JSON text as a value, its members in their order.
fn parsed(text: &str) -> Option<Value> {
    serde_json::from_str::<serde_json::Value>(text).ok().map(|json| Value::from(Serde(json)))
}

fn environment(fuel: u64) -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_syntax(syntax());
    environment.set_unknown_method_callback(unknown_method_callback);
    environment.set_fuel(Some(fuel));
    environment.set_recursion_limit(MAX_DEPTH);
    environment.set_debug(false);
    environment.add_function("raise_exception", raise_exception);
    environment.add_function("strftime_now", strftime_now);
    environment.add_filter("tojson", tojson);
    environment
}

/// As transformers sets up Jinja.
fn syntax() -> SyntaxConfig {
    SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build().unwrap_or_default()
}

/// Drops `{% generation %}` marks, which only training reads.
fn without_generation_marks(source: &str) -> String {
    let mut output = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let (before, tag) = rest.split_at(start);
        output.push_str(before);
        let Some(end) = tag.find("%}").map(|end| end + 2) else {
            rest = tag;
            break;
        };
        let name =
            tag[2..end - 2].trim_matches(|c: char| c == '-' || c == '+' || c.is_whitespace());
        match name {
            // A comment keeps the whitespace rules of the tag that it replaces.
            "generation" | "endgeneration" => {
                let _ = write!(output, "{}", tag[..end].replace('%', "#"));
            }
            _ => output.push_str(&tag[..end]),
        }
        rest = &tag[end..];
    }
    output + rest
}

fn raise_exception(message: &str) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message.to_owned()))
}

/// Today by UTC, in the form that the template asks for: the local zone is in a file, and this program
/// opens none.
fn strftime_now(format: &str) -> Result<String, Error> {
    let now = jiff::fmt::strtime::format(format, &Timestamp::now().to_zoned(TimeZone::UTC));
    now.map_err(|error| Error::new(ErrorKind::InvalidOperation, error.to_string()))
}

/// `json.dumps` as transformers calls it.
#[expect(clippy::needless_pass_by_value, reason = "minijinja passes arguments by value")]
fn tojson(value: &Value, options: Kwargs) -> Result<Value, Error> {
    let indent: Option<usize> = options.get("indent")?;
    let ensure_ascii: Option<bool> = options.get("ensure_ascii")?;
    let sort_keys: Option<bool> = options.get("sort_keys")?;
    let separators: Option<Vec<String>> = options.get("separators")?;
    options.assert_all_used()?;
    let style = json::Style {
        indent: indent.map(|width| width.min(16)),
        ensure_ascii: ensure_ascii.unwrap_or(false),
        sort_keys: sort_keys.unwrap_or(false),
        separators: separators.and_then(|pair| <[String; 2]>::try_from(pair).ok()),
    };
    json::dump(value, &style).map(Value::from_safe_string)
}

/// Says what went wrong without quoting the conversation: only the template's own words and places.
fn explain(error: &Error) -> RenderError {
    let place = error.line().map(|line| format!(" (template line {line})")).unwrap_or_default();
    let detail = error.detail().map(|detail| format!(": {detail}")).unwrap_or_default();
    RenderError(format!("{}{detail}{place}", error.kind()))
}

/// A writer that refuses to grow past the limit.
struct Bounded {
    written: Vec<u8>,
    most: usize,
}

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.written.len() + bytes.len() > self.most {
            return Err(io::Error::other(format!("it writes more than {} bytes", self.most)));
        }
        self.written.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
