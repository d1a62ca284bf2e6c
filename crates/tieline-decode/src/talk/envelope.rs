//! Reads calls that are JSON objects: `{"name": …, "arguments": {…}}`, a list of them, or one of the
//! shapes that the dialects wrap around them.

use super::json::{Arguments, MAX_ARGUMENTS, Malformed, Mark, Tracker, is_object};
use super::out::Out;
use super::{Progress, UNKNOWN_TOOL};

/// The longest text held back: arguments that come before the name, and what stands around them.
const MAX_RAW: usize = MAX_ARGUMENTS + 64 * 1024;

/// What an open object or array is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// A list of calls.
    List,
    /// A call.
    Call,
    /// The `function` of a call, which holds its name and arguments.
    Function,
    /// What holds `tool_calls`.
    Wrapper,
}

/// What is known of the call being read.
#[derive(Default)]
struct Draft {
    name: Option<String>,
    arguments: Option<String>,
    keys: u32,
    begun: bool,
    ended: bool,
}

/// Why no call can be made of it.
struct Reject {
    /// Whether the last character is still to be read.
    again: bool,
}

impl From<Malformed> for Reject {
    fn from(_: Malformed) -> Self {
        Self { again: true }
    }
}

/// Read, and not a call.
const REJECT: Reject = Reject { again: false };

/// One JSON text of calls, as it arrives.
pub(super) struct Envelope {
    json: Tracker,
    /// What came and was not given out as a call.
    raw: String,
    /// No marker announced it: it may as well be an answer in JSON.
    bare: bool,
    roles: Vec<Role>,
    /// The depth at which a value that does not matter ends.
    skip: Option<usize>,
    /// The string being read, with its quotes.
    string: String,
    key: String,
    draft: Draft,
    arguments: Option<Arguments>,
    calls: u32,
    /// A call of an unknown tool: it is text up to its end, whatever stands in it.
    spilt: bool,
}

impl Envelope {
    /// `raw` is what announced it.
    pub(super) fn new(raw: String, bare: bool) -> Self {
        Self {
            json: Tracker::new(),
            raw,
            bare,
            roles: Vec::new(),
            skip: None,
            string: String::new(),
            key: String::new(),
            draft: Draft::default(),
            arguments: None,
            calls: 0,
            spilt: false,
        }
    }

    /// Whether a call has begun and not ended.
    pub(super) fn is_open(&self) -> bool {
        self.draft.begun && !self.draft.ended
    }

    /// Whether it is surely meant as a call.
    pub(super) fn is_surely_call(&self) -> bool {
        !self.bare || self.draft.name.is_some()
    }

    /// What came and was not given out.
    pub(super) fn take_raw(&mut self) -> String {
        std::mem::take(&mut self.raw)
    }

    pub(super) fn feed(&mut self, c: char, out: &mut Out) -> Progress {
        match self.step(c, out) {
            Err(reject) => Progress::Spoilt { again: reject.again },
            Ok(()) if !self.json.is_done() => Progress::More,
            Ok(()) if self.spilt => Progress::Passed,
            Ok(()) if self.calls == 0 => Progress::Spoilt { again: false },
            Ok(()) => Progress::Done,
        }
    }

    fn step(&mut self, c: char, out: &mut Out) -> Result<(), Reject> {
        if self.spilt {
            self.json.feed(c)?;
            out.text(c.encode_utf8(&mut [0; 4]));
            return Ok(());
        }
        if self.raw.len() > MAX_RAW {
            return Err(Reject { again: true });
        }
        if self.arguments.is_none() && c == '{' && self.at_arguments() {
            self.arguments = Some(Arguments::new());
            self.begin_if_known(out);
        }
        if self.arguments.is_some() {
            return self.in_arguments(c, out);
        }
        let mark = self.json.feed(c)?;
        self.raw.push(c);
        self.read(mark, c, out)
    }

    /// Whether the value that comes now is a call's arguments.
    fn at_arguments(&self) -> bool {
        self.skip.is_none()
            && self.json.expects_value()
            && self.in_call()
            && is_arguments(&self.key)
            && self.draft.arguments.is_none()
    }

    fn in_call(&self) -> bool {
        matches!(self.roles.last(), Some(Role::Call | Role::Function))
    }

    fn begin_if_known(&mut self, out: &mut Out) {
        if let Some(name) = &self.draft.name {
            out.begin(name);
            self.draft.begun = true;
            self.raw.clear();
        }
    }

    fn in_arguments(&mut self, c: char, out: &mut Out) -> Result<(), Reject> {
        let Some(arguments) = &mut self.arguments else { return Err(REJECT) };
        let from = arguments.feed(c)?;
        let done = arguments.is_done();
        if self.draft.begun {
            out.arguments(arguments.text().get(from..).unwrap_or_default());
        } else {
            self.raw.push(c);
        }
        if !done {
            return Ok(());
        }
        self.draft.arguments = self.arguments.take().map(|done| done.text().to_owned());
        self.json.skip_value();
        if self.draft.begun {
            out.end();
            self.draft.ended = true;
            self.calls += 1;
        }
        Ok(())
    }

    fn read(&mut self, mark: Mark, c: char, out: &mut Out) -> Result<(), Reject> {
        if let Some(depth) = self.skip {
            if mark == Mark::Close && self.json.depth() == depth {
                self.skip = None;
            }
            return Ok(());
        }
        match mark {
            Mark::Between => Ok(()),
            Mark::Open => self.enter(c),
            Mark::Close => self.leave(out),
            Mark::StringStart => {
                self.string.clear();
                self.string.push(c);
                self.in_call_or_wrapper()
            }
            Mark::InString => {
                self.string.push(c);
                Ok(())
            }
            Mark::KeyEnd => {
                self.string.push(c);
                self.key = text_of(&self.string)?;
                self.first_key()
            }
            Mark::StringEnd => {
                self.string.push(c);
                self.string_value(out)
            }
            // `null` may stand for no arguments; no other scalar may.
            Mark::Scalar if self.in_call() && is_arguments(&self.key) => {
                if "null".contains(c) {
                    Ok(())
                } else {
                    Err(REJECT)
                }
            }
            Mark::Scalar => self.in_call_or_wrapper(),
        }
    }

    fn in_call_or_wrapper(&self) -> Result<(), Reject> {
        if self.roles.last() == Some(&Role::List) { Err(REJECT) } else { Ok(()) }
    }

    /// An answer in JSON that is no call should flow on as soon as that is seen.
    fn first_key(&mut self) -> Result<(), Reject> {
        self.draft.keys += 1;
        let first = self.draft.keys == 1 && self.roles.last() == Some(&Role::Call);
        let known = is_arguments(&self.key)
            || matches!(self.key.as_str(), "name" | "type" | "id" | "function" | "tool_calls");
        if first && self.bare && !known { Err(REJECT) } else { Ok(()) }
    }

    fn enter(&mut self, c: char) -> Result<(), Reject> {
        let object = c == '{';
        match (self.roles.last().copied(), object) {
            (None, false) => self.roles.push(Role::List),
            (None | Some(Role::List), true) => {
                self.roles.push(Role::Call);
                self.draft = Draft::default();
            }
            (Some(Role::List), false) => return Err(REJECT),
            (Some(Role::Call), true) if self.key == "function" => self.roles.push(Role::Function),
            (Some(Role::Call), false) if self.key == "tool_calls" => {
                self.roles.pop();
                self.roles.extend([Role::Wrapper, Role::List]);
            }
            (Some(Role::Call | Role::Function), false) if is_arguments(&self.key) => {
                return Err(REJECT);
            }
            (Some(_), _) => self.skip = Some(self.json.depth().saturating_sub(1)),
        }
        Ok(())
    }

    fn leave(&mut self, out: &mut Out) -> Result<(), Reject> {
        if self.roles.pop() != Some(Role::Call) {
            return Ok(());
        }
        if !self.draft.ended {
            let name = self.draft.name.take().ok_or(REJECT)?;
            // Tools without parameters are often called without arguments.
            let arguments = match self.draft.arguments.take() {
                None if self.bare => return Err(REJECT),
                arguments => arguments.unwrap_or_else(|| "{}".to_owned()),
            };
            out.call(&name, &arguments);
            self.calls += 1;
        }
        self.raw.clear();
        self.draft = Draft::default();
        Ok(())
    }

    fn string_value(&mut self, out: &mut Out) -> Result<(), Reject> {
        let names = self.key == "name" || (self.key == "function" && self.draft.name.is_none());
        if self.in_call() && names {
            return self.named(out);
        }
        if self.in_call() && is_arguments(&self.key) && self.draft.arguments.is_none() {
            let text = text_of(&self.string)?;
            let text = if text.trim().is_empty() { "{}".to_owned() } else { text };
            if text.len() > MAX_ARGUMENTS || !is_object(&text) {
                return Err(REJECT);
            }
            self.draft.arguments = Some(text);
        }
        Ok(())
    }

    fn named(&mut self, out: &mut Out) -> Result<(), Reject> {
        let name = text_of(&self.string)?;
        if out.tool(&name).is_some() {
            self.draft.name.get_or_insert(name);
            return Ok(());
        }
        out.text(&self.take_raw());
        self.spilt = true;
        // An answer in JSON may have a name in it without being a call.
        if !self.bare {
            out.warn(UNKNOWN_TOOL);
        }
        Ok(())
    }
}

fn is_arguments(key: &str) -> bool {
    matches!(key, "arguments" | "parameters")
}

fn text_of(string: &str) -> Result<String, Reject> {
    serde_json::from_str(string).map_err(|_| REJECT)
}
