//! Data to standard output, talk to standard error.

use std::borrow::Cow;
use std::io::{self, IsTerminal, Write};

use serde::Serialize;

use crate::failure::Failure;
use crate::plain::plain;

/// Makes what follows faint on a terminal.
const DIM: &str = "\u{1b}[2m";
/// Ends that.
const PLAIN: &str = "\u{1b}[0m";

/// Where a command's words go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    json: bool,
    quiet: bool,
    stderr_is_terminal: bool,
    stdout_is_terminal: bool,
}

impl Output {
    pub(crate) fn new(json: bool, quiet: bool) -> Self {
        Self {
            json,
            quiet,
            stderr_is_terminal: io::stderr().is_terminal(),
            stdout_is_terminal: io::stdout().is_terminal(),
        }
    }

    /// Whether results are for programs.
    pub(crate) fn is_json(self) -> bool {
        self.json
    }

    /// Whether to draw progress: on a terminal, and not when asked to be quiet.
    pub(crate) fn draws(self) -> bool {
        self.stderr_is_terminal && !self.quiet
    }

    /// Text of a result.
    pub(crate) fn data(self, text: &str) -> Result<(), Failure> {
        written(io::stdout().lock().write_all(text.as_bytes()))
    }

    /// A line of a result.
    pub(crate) fn line(self, text: &str) -> Result<(), Failure> {
        written(writeln!(io::stdout().lock(), "{}", self.shown(text)))
    }

    /// Exact where a program reads, harmless where a terminal does.
    fn shown(self, text: &str) -> Cow<'_, str> {
        if self.stdout_is_terminal { plain(text).into() } else { text.into() }
    }

    /// Part of an answer, shown at once.
    pub(crate) fn piece(self, text: &str) -> Result<(), Failure> {
        let mut stdout = io::stdout().lock();
        written(stdout.write_all(self.shown(text).as_bytes()).and_then(|()| stdout.flush()))
    }

    /// A result as JSON.
    pub(crate) fn value(self, value: &impl Serialize) -> Result<(), Failure> {
        let text = serde_json::to_string_pretty(value);
        let text =
            text.map_err(|error| Failure::ours(format!("cannot write a result as JSON: {error}")))?;
        self.line(&text)
    }

    /// What a model thinks, dim and on standard error, where a person watches. `false`: not shown.
    pub(crate) fn thought(self, text: &str) -> bool {
        let shown = self.draws() && !self.json;
        if shown {
            let mut stderr = io::stderr().lock();
            // Nobody is left to tell if this fails.
            let _ = write!(stderr, "{DIM}{}{PLAIN}", plain(text)).and_then(|()| stderr.flush());
        }
        shown
    }

    /// The line after the thoughts.
    pub(crate) fn end_of_thought(self) {
        tell("");
    }

    /// A remark.
    pub(crate) fn talk(self, text: &str) {
        if !self.quiet && !self.json {
            tell(text);
        }
    }

    /// A remark that must be read, as JSON too where that is asked for.
    pub(crate) fn warn(self, text: &str) {
        tell(&format!("warning: {text}"));
    }

    /// Why the command failed.
    pub(crate) fn failure(self, failure: &Failure) {
        if failure.message.is_empty() {
            return; // A reader that closed the pipe has seen enough.
        }
        if self.json {
            let error = serde_json::json!({
                "error": { "message": failure.message, "hint": failure.hint, "exit_code": failure.code }
            });
            return tell(&error.to_string());
        }
        tell(&format!("error: {}", failure.message));
        if let Some(hint) = &failure.hint {
            tell(&format!("hint: {hint}"));
        }
    }
}

fn tell(text: &str) {
    // Nobody is left to tell if this fails.
    let _ = writeln!(io::stderr().lock(), "{}", plain(text));
}

fn written(result: io::Result<()>) -> Result<(), Failure> {
    result.map_err(|error| match error.kind() {
        // `tieline list | head -1`: done, and nothing to say.
        io::ErrorKind::BrokenPipe => Failure { message: String::new(), hint: None, code: 0 },
        _ => Failure::ours(format!("cannot write to standard output: {error}")),
    })
}
