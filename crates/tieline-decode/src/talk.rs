//! Turns a model's text into answer, thoughts and calls while it arrives.
//!
//! [`Talk`] reads characters one by one, so what it says cannot depend on how the text was cut into
//! pieces. It holds back only what may still become a marker, and a call until its tool is known. A call
//! that is malformed, unfinished or of an unknown tool is passed on as text with a warning: nothing that
//! the model wrote is lost, but for the markers themselves and the space around them.
//!
//! Text is hostile: memory is bounded, nesting is limited, and no input makes it panic.

mod envelope;
mod format;
mod gemma;
mod json;
mod named;
mod out;
mod python;
mod scope;
mod xml;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::fmt;

use tieline_types::{Tool, ToolCallStep, ToolChoice};

pub use self::format::{Format, detect, opens_thinking};
pub use self::out::call_id;
pub use self::scope::Scope;

use self::envelope::Envelope;
use self::format::{Action, Marker, Shape, When};
use self::gemma::Quoted;
use self::named::Named;
use self::out::Out;
use self::python::Python;
use self::xml::Xml;

const UNKNOWN_TOOL: &str = "a call of a tool that the request does not have was passed on as text";
const MALFORMED: &str = "a malformed tool call was passed on as text";
const UNFINISHED: &str = "an unfinished tool call was passed on as text";
const BROKEN_OFF: &str = "a tool call broke off: its arguments are not complete";

/// The most space held back before a marker, in bytes.
const MAX_SPACE: usize = 64;
/// The longest harmony header, in bytes.
const MAX_HEADER: usize = 1024;

/// Something that the model said.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Said {
    /// More of the answer.
    Text(String),
    /// More of a thought.
    Reasoning(String),
    /// A step of a call.
    Call(ToolCallStep),
    /// What the caller should know. Quotes nothing of the answer.
    Warning(String),
}

// The text of answers is in no log.
impl fmt::Debug for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => write!(f, "Text(<{} bytes>)", text.len()),
            Self::Reasoning(text) => write!(f, "Reasoning(<{} bytes>)", text.len()),
            Self::Call(step) => f.debug_tuple("Call").field(step).finish(),
            Self::Warning(warning) => f.debug_tuple("Warning").field(warning).finish(),
        }
    }
}

/// How far a call's reader is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    /// It wants more.
    More,
    /// Its calls are complete.
    Done,
    /// It was a call of an unknown tool and is now passed on as text.
    Passed,
    /// It is no call, or no longer one.
    Spoilt {
        /// Whether the last character is still to be read.
        again: bool,
    },
}

/// What reads a call.
enum Reader {
    Envelope(Envelope),
    Named(Named),
    Xml(Xml),
    Quoted(Quoted),
    Python(Python),
}

impl Reader {
    fn feed(&mut self, c: char, out: &mut Out) -> Progress {
        match self {
            Self::Envelope(reader) => reader.feed(c, out),
            Self::Named(reader) => reader.feed(c, out),
            Self::Xml(reader) => reader.feed(c, out),
            Self::Quoted(reader) => reader.feed(c, out),
            Self::Python(reader) => reader.feed(c, out),
        }
    }

    fn is_open(&self) -> bool {
        match self {
            Self::Envelope(reader) => reader.is_open(),
            Self::Named(reader) => reader.is_open(),
            Self::Xml(reader) => reader.is_open(),
            Self::Quoted(_) | Self::Python(_) => false,
        }
    }

    fn is_surely_call(&self) -> bool {
        match self {
            Self::Envelope(reader) => reader.is_surely_call(),
            Self::Named(_) | Self::Xml(_) | Self::Quoted(_) | Self::Python(_) => true,
        }
    }

    fn take_raw(&mut self) -> String {
        match self {
            Self::Envelope(reader) => reader.take_raw(),
            Self::Named(reader) => reader.take_raw(),
            Self::Xml(reader) => reader.take_raw(),
            Self::Quoted(reader) => reader.take_raw(),
            Self::Python(reader) => reader.take_raw(),
        }
    }
}

/// What is being read.
enum Mode {
    Text,
    Think,
    /// A harmony header.
    Header(String),
    /// What comes after a call's marker, up to where its kind is known.
    Seek(String, Shape),
    Call(Box<Reader>),
}

/// The parser of one answer.
pub struct Talk {
    format: Format,
    with_tools: bool,
    bare: bool,
    mode: Mode,
    /// Characters to be read again.
    queue: VecDeque<char>,
    /// What may be the start of a marker.
    held: String,
    /// Space that is said only if no marker follows.
    spaces: String,
    /// Space that is longer than any around a marker flows on.
    long_space: bool,
    /// Space after a marker is not said.
    skip_space: bool,
    /// No text was said since the start or the last call.
    at_start: bool,
    /// What wraps the answer has begun and not ended.
    wrapped: bool,
    /// What may stand after the last call.
    closers: &'static [&'static str],
    out: Out,
}

impl fmt::Debug for Talk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Talk").field("format", &self.format).finish_non_exhaustive()
    }
}

impl Talk {
    /// A parser for one answer. Without `tools`, and with [`ToolChoice::None`], calls are text.
    /// `thinking_open` says that the prompt ends inside a thought (see [`opens_thinking`]). The calls'
    /// ids are made of `id_seed` (see [`call_id`]).
    pub fn new(
        format: Format,
        tools: &[Tool],
        choice: &ToolChoice,
        thinking_open: bool,
        id_seed: &str,
    ) -> Self {
        let with_tools =
            !tools.is_empty() && *choice != ToolChoice::None && format != Format::Plain;
        // Where a call is forced, a grammar may leave no room for the markers.
        let forced = matches!(choice, ToolChoice::Required | ToolChoice::Named(_));
        let thinks = thinking_open && format != Format::Plain;
        Self {
            format,
            with_tools,
            bare: with_tools && (forced || format.knows_bare_calls()),
            mode: if thinks { Mode::Think } else { Mode::Text },
            queue: VecDeque::new(),
            held: String::new(),
            spaces: String::new(),
            long_space: false,
            skip_space: thinks && format != Format::Harmony,
            at_start: true,
            wrapped: false,
            closers: &[],
            out: Out::new(tools, id_seed),
        }
    }

    /// Reads more of the answer and says what is certain.
    pub fn push(&mut self, text: &str) -> Vec<Said> {
        for c in text.chars() {
            self.queue.push_back(c);
            while let Some(c) = self.queue.pop_front() {
                self.step(c);
            }
        }
        self.out.take()
    }

    /// The answer is at its end: says what was held back.
    pub fn finish(&mut self) -> Vec<Said> {
        let held = std::mem::take(&mut self.held);
        self.say_spaces();
        self.say(&held);
        match std::mem::replace(&mut self.mode, Mode::Text) {
            Mode::Text | Mode::Think => {}
            // A code fence is no promise of a call.
            Mode::Seek(raw, Shape::FencedJson) => self.out.text(&raw),
            Mode::Header(raw) | Mode::Seek(raw, _) => {
                self.out.text(&raw);
                self.out.warn(UNFINISHED);
            }
            Mode::Call(mut reader) => self.give_back(&mut reader, UNFINISHED),
        }
        self.out.take()
    }

    /// What comes next is said whole: space too, even right after a marker.
    pub fn keep_space(&mut self) {
        self.skip_space = false;
    }

    /// Whether the model thinks now.
    pub fn in_reasoning(&self) -> bool {
        matches!(self.mode, Mode::Think)
    }

    /// Whether what comes next is text of the answer, as far as all before it tells.
    pub fn is_answering(&self) -> bool {
        matches!(self.mode, Mode::Text) && self.held.is_empty()
    }

    /// Whether a call was completed.
    pub fn called(&self) -> bool {
        self.out.called()
    }

    fn step(&mut self, c: char) {
        match &mut self.mode {
            Mode::Text | Mode::Think => self.listen(c),
            Mode::Header(raw) => {
                raw.push(c);
                if raw.ends_with("<|message|>") || raw.len() > MAX_HEADER {
                    let raw = std::mem::take(raw);
                    self.header(raw);
                }
            }
            Mode::Seek(raw, shape) => {
                let (raw, shape) = (std::mem::take(raw), *shape);
                self.seek(raw, shape, c);
            }
            Mode::Call(reader) => {
                let progress = reader.feed(c, &mut self.out);
                self.after(progress, c);
            }
        }
    }

    /// Reads a character of text or thought, which may be part of a marker.
    fn listen(&mut self, c: char) {
        self.held.push(c);
        let mut begun = false;
        let mut found = None;
        for (text, action) in self.listened_for() {
            if text == self.held {
                found = Some(action);
                break;
            }
            begun |= text.starts_with(self.held.as_str());
        }
        if let Some(action) = found {
            let marker = std::mem::take(&mut self.held);
            self.act(action, &marker);
        } else if !begun {
            // The first character is no marker's; a marker may begin at any of the others.
            let held = std::mem::take(&mut self.held);
            let mut chars = held.chars();
            if let Some(first) = chars.next() {
                for c in chars.rev() {
                    self.queue.push_front(c);
                }
                self.hear(first);
            }
        }
    }

    /// The markers that mean something here. `None` is the end of a call.
    fn listened_for(&self) -> impl Iterator<Item = (&'static str, Option<Action>)> {
        let thinking = self.in_reasoning();
        let (start, tools, wrapped) = (self.at_start, self.with_tools, self.wrapped);
        let counts = move |marker: &&Marker| {
            let here = match marker.when {
                When::Start => start && !thinking,
                When::Answer => !thinking,
                When::Thinking => thinking,
            };
            let idle = match marker.action {
                Action::Call(..) | Action::DropWithTools => !tools,
                Action::Wrap => wrapped,
                // Without its beginning it is the answer's own.
                Action::Unwrap => !wrapped,
                Action::Think | Action::Answer | Action::Drop | Action::Header => false,
            };
            here && !idle
        };
        let table = self.format.table().iter().filter(counts);
        let closers = if thinking { &[] } else { self.closers };
        let closers = closers.iter().map(|text| (*text, None));
        closers.chain(table.map(|marker| (marker.text, Some(marker.action))))
    }

    /// Whether no marker can come after a space here, so that nobody need wait for what follows. A bare call cannot
    /// either: where one may come, so may a marker.
    fn nothing_may_follow(&self) -> bool {
        !self.skip_space && self.listened_for().next().is_none()
    }

    /// A character that is part of no marker.
    fn hear(&mut self, c: char) {
        if c.is_whitespace() {
            if self.long_space || self.nothing_may_follow() {
                self.say_spaces();
                self.say(c.encode_utf8(&mut [0; 4]));
            } else if !self.skip_space {
                self.spaces.push(c);
                self.long_space = self.spaces.len() >= MAX_SPACE;
                if self.long_space {
                    self.say_spaces();
                }
            }
            return;
        }
        self.skip_space = false;
        self.long_space = false;
        let answers = matches!(self.mode, Mode::Text);
        if answers && self.bare && self.at_start && matches!(c, '{' | '[') {
            let raw = std::mem::take(&mut self.spaces);
            self.closers = if self.format == Format::Llama3 { &[";"] } else { self.closers };
            self.mode = Mode::Call(Box::new(Reader::Envelope(Envelope::new(raw, true))));
            self.queue.push_front(c);
            return;
        }
        self.say_spaces();
        self.say(c.encode_utf8(&mut [0; 4]));
        if answers {
            self.at_start = false;
            // A bracket too many is a common slip; what should come after the call may still come.
            if !matches!(c, '}' | ']') {
                self.closers = &[];
            }
        }
    }

    fn say(&mut self, text: &str) {
        if self.in_reasoning() {
            self.out.reasoning(text);
        } else {
            self.out.text(text);
        }
    }

    fn say_spaces(&mut self) {
        let spaces = std::mem::take(&mut self.spaces);
        self.say(&spaces);
    }

    /// Does what a marker means.
    fn act(&mut self, action: Option<Action>, marker: &str) {
        self.skip_space = self.format != Format::Harmony;
        self.long_space = false;
        if !self.skip_space {
            self.say_spaces();
        }
        let spaces = std::mem::take(&mut self.spaces);
        match action {
            None => {
                self.closers = &[];
                self.at_start = true;
            }
            Some(Action::Think) => self.mode = Mode::Think,
            Some(Action::Answer | Action::Drop | Action::DropWithTools) => self.mode = Mode::Text,
            Some(action @ (Action::Wrap | Action::Unwrap)) => {
                self.wrapped = action == Action::Wrap;
                self.mode = Mode::Text;
            }
            Some(Action::Header) => self.mode = Mode::Header(marker.to_owned()),
            Some(Action::Call(shape, closers)) => {
                self.closers = closers;
                self.mode = Mode::Seek(spaces + marker, shape);
            }
        }
    }

    /// Finds out what kind of call comes.
    fn seek(&mut self, mut raw: String, shape: Shape, c: char) {
        let opens_json = matches!(c, '{' | '[');
        let reader = match shape {
            Shape::Xml => Reader::Xml(Xml::new(raw)),
            Shape::Name => Reader::Named(Named::new(raw)),
            Shape::Quoted { quote, close } => Reader::Quoted(Quoted::new(raw, quote, close)),
            Shape::Tag(read) => return self.seek_tag(raw, read, c),
            _ if c.is_whitespace() && raw.len() < MAX_HEADER => {
                raw.push(c);
                self.mode = Mode::Seek(raw, shape);
                return;
            }
            Shape::FencedJson if opens_json => Reader::Envelope(Envelope::new(raw, true)),
            Shape::Json | Shape::JsonOrXml | Shape::NameOrJson if opens_json => {
                Reader::Envelope(Envelope::new(raw, false))
            }
            Shape::PythonOrJson if c == '{' => Reader::Envelope(Envelope::new(raw, false)),
            Shape::PythonOrJson if c == '[' => {
                raw.push(c);
                self.mode = Mode::Seek(raw, Shape::PythonOrJsonList);
                return;
            }
            Shape::PythonOrJson => Reader::Python(Python::new(raw)),
            Shape::PythonOrJsonList => return self.list(raw, c),
            Shape::NameOrJson => Reader::Named(Named::new(raw)),
            Shape::JsonOrXml => return self.seek_tag(raw, 0, c),
            Shape::Json => {
                self.queue.push_front(c);
                return self.no_call(&raw, Some(MALFORMED));
            }
            // A code fence is no promise of a call.
            Shape::FencedJson => {
                self.queue.push_front(c);
                return self.no_call(&raw, None);
            }
        };
        self.mode = Mode::Call(Box::new(reader));
        self.queue.push_front(c);
    }

    /// `raw` ends with the bracket of a list whose first item begins with `c`.
    fn list(&mut self, mut raw: String, c: char) {
        let bracket = raw.split_off(raw.rfind('[').unwrap_or(raw.len()));
        self.queue.push_front(c);
        bracket.chars().rev().for_each(|c| self.queue.push_front(c));
        let reader = if c == '{' {
            Reader::Envelope(Envelope::new(raw, false))
        } else {
            Reader::Python(Python::new(raw))
        };
        self.mode = Mode::Call(Box::new(reader));
    }

    fn seek_tag(&mut self, mut raw: String, read: usize, c: char) {
        const TAG: &str = "<function=";
        if !TAG.get(read..).is_some_and(|rest| rest.starts_with(c)) {
            // What was taken for the tag may be the start of another marker.
            let tag = TAG.get(..read).unwrap_or_default();
            self.queue.push_front(c);
            tag.chars().rev().for_each(|c| self.queue.push_front(c));
            return self.no_call(raw.strip_suffix(tag).unwrap_or(&raw), Some(MALFORMED));
        }
        raw.push(c);
        let read = read + 1;
        self.mode = if read == TAG.len() {
            Mode::Call(Box::new(Reader::Xml(Xml::new(raw))))
        } else {
            Mode::Seek(raw, Shape::Tag(read))
        };
    }

    /// What looked like a call is text.
    fn no_call(&mut self, raw: &str, warning: Option<&str>) {
        self.back_to_text(false);
        self.out.text(raw);
        if let Some(warning) = warning {
            self.out.warn(warning);
        }
    }

    /// Text comes next: after a call if `called`, else as more of what was passed on.
    fn back_to_text(&mut self, called: bool) {
        self.mode = Mode::Text;
        self.skip_space = called && self.format != Format::Harmony;
        self.at_start = called;
        if !called {
            self.closers = &[];
        }
    }

    fn after(&mut self, progress: Progress, c: char) {
        match progress {
            Progress::More => {}
            Progress::Done => self.back_to_text(true),
            Progress::Passed => self.back_to_text(false),
            Progress::Spoilt { again } => {
                let mode = std::mem::replace(&mut self.mode, Mode::Text);
                if let Mode::Call(mut reader) = mode {
                    self.give_back(&mut reader, MALFORMED);
                }
                if again {
                    self.queue.push_front(c);
                }
            }
        }
    }

    /// A call is not to be had of it: says what it held.
    fn give_back(&mut self, reader: &mut Reader, warning: &str) {
        let raw = reader.take_raw();
        let open = reader.is_open();
        // All its calls are complete: only what closes them is missing.
        let complete = !open && raw.trim().is_empty();
        self.back_to_text(complete);
        if open {
            self.out.warn(BROKEN_OFF);
        }
        if complete {
            return;
        }
        self.out.text(&raw);
        if !open && reader.is_surely_call() {
            self.out.warn(warning);
        }
    }

    /// A harmony header is complete, or too long to be one.
    fn header(&mut self, raw: String) {
        if !raw.ends_with("<|message|>") {
            self.back_to_text(false);
            self.out.text(&raw);
            self.out.warn(MALFORMED);
            return;
        }
        self.mode = match recipient(&raw) {
            Some(name) if self.with_tools => {
                let name = name.to_owned();
                Mode::Call(Box::new(Reader::Named(Named::of(raw, name))))
            }
            None if channel(&raw) == Some("analysis") => Mode::Think,
            _ => Mode::Text,
        };
    }
}

/// Whom a harmony header addresses.
fn recipient(header: &str) -> Option<&str> {
    let (_, rest) = header.split_once("to=")?;
    let name = rest.split(|c: char| c.is_whitespace() || c == '<').next()?;
    Some(name.strip_prefix("functions.").unwrap_or(name))
}

/// The channel that a harmony header names.
fn channel(header: &str) -> Option<&str> {
    let (_, rest) = header.split_once("<|channel|>")?;
    rest.split(|c: char| c.is_whitespace() || c == '<').next()
}
