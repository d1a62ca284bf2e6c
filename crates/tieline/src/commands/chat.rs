//! A conversation at the terminal.

use std::path::PathBuf;

use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;
use tieline_store::Model;
use tieline_types::{FinishReason, Message, Prompt, Request, Role};

use super::turn::figures;
use crate::answer;
use crate::app::{App, Loaded};
use crate::args::Run;
use crate::failure::Failure;
use crate::screen::Screen;

const HELP: &str = "\
/help          this list
/clear         forget the conversation
/system TEXT   set the instructions above it, and forget it
/stats         show what was measured after each answer, or stop to
/exit          leave; so does Ctrl-D
\"\"\"            begin and end a message of several lines; a \\ at a line's end goes on, too
Ctrl-C         stop the answer";

/// What one line, or several, from the user mean.
#[derive(Debug, PartialEq, Eq)]
enum Input {
    Nothing,
    Message(String),
    Command { name: String, rest: String },
}

struct Chat<'a> {
    app: &'a App,
    model: &'a Model,
    loaded: &'a Loaded,
    /// What each turn asks for, without its prompt.
    template: &'a Request,
    messages: Vec<Message>,
    /// So many of them stand before the conversation.
    before: usize,
    stats: bool,
}

pub(super) fn chat(
    app: &App,
    model: &Model,
    loaded: &Loaded,
    args: &Run,
    template: &Request,
) -> Result<(), Failure> {
    let system = args.system.iter().map(|text| Message::new(Role::System, text.as_str()));
    let messages: Vec<Message> = system.chain(args.said.iter().cloned()).collect();
    let (before, stats) = (messages.len(), args.stats);
    let mut chat = Chat { app, model, loaded, template, messages, before, stats };
    let broken =
        |error: ReadlineError| Failure::ours(format!("cannot read from the terminal: {error}"));
    let mut editor = DefaultEditor::new().map_err(broken)?;
    let history = app.home.join("history");
    // None yet at the first time.
    let _ = editor.load_history(&history);
    app.output.talk(&format!("{}; /help lists the commands, Ctrl-D leaves", model.name));
    let result = chat.talk(&mut editor);
    keep(&mut editor, &history);
    result
}

fn keep(editor: &mut DefaultEditor, history: &PathBuf) {
    // A history that cannot be kept is no reason to fail.
    let _ = editor.save_history(history);
    #[cfg(unix)]
    let _ = std::fs::set_permissions(history, std::os::unix::fs::PermissionsExt::from_mode(0o600));
}

impl Chat<'_> {
    fn talk(&mut self, editor: &mut DefaultEditor) -> Result<(), Failure> {
        loop {
            match read(editor) {
                Ok(text) => {
                    if !self.take(input(&text))? {
                        return Ok(());
                    }
                }
                Err(ReadlineError::Interrupted) => self.app.output.talk("Ctrl-D or /exit leaves"),
                Err(ReadlineError::Eof) => return Ok(()),
                Err(error) => {
                    return Err(Failure::ours(format!("cannot read from the terminal: {error}")));
                }
            }
        }
    }

    /// `false`: leave.
    fn take(&mut self, input: Input) -> Result<bool, Failure> {
        let output = self.app.output;
        match input {
            Input::Nothing => {}
            Input::Message(text) => self.answer(text)?,
            Input::Command { name, rest } => match name.as_str() {
                "help" | "?" => output.line(HELP)?,
                "exit" | "quit" | "bye" => return Ok(false),
                "clear" => self.forget(),
                "system" => self.instruct(&rest),
                "stats" => {
                    self.stats = !self.stats;
                    output.talk(if self.stats { "showing figures" } else { "no more figures" });
                }
                _ => output.talk(&format!("no command /{name}; /help lists them")),
            },
        }
        Ok(true)
    }

    fn answer(&mut self, text: String) -> Result<(), Failure> {
        self.messages.push(Message::new(Role::User, text));
        let prompt = Prompt::Chat(self.messages.clone());
        let request = Request { prompt, ..self.template.clone() };
        let output = self.app.output;
        let mut screen = Screen::new(output);
        let answer = answer::ask(self.app, self.loaded, request, |shown| screen.show(shown));
        drop(screen);
        match answer {
            Ok(answer) => {
                output.line("")?;
                if answer.is_cut_short() {
                    output.talk("stopped");
                } else if self.stats {
                    output.talk(&figures(self.model, &self.loaded.model, &answer));
                }
                if answer.finished.reason == FinishReason::ContextFull {
                    output.warn("the context is full: /clear forgets the conversation");
                }
                let reasoning = Some(answer.reasoning).filter(|text| !text.is_empty());
                let reasoning = reasoning.map(Into::into);
                let said = Message::new(Role::Assistant, answer.text);
                self.messages.push(Message { reasoning, ..said });
                Ok(())
            }
            // The conversation goes on: the runner starts again by itself.
            Err(failure) if failure.message.is_empty() => Err(failure),
            Err(failure) => {
                self.messages.pop();
                output.failure(&failure);
                Ok(())
            }
        }
    }

    fn forget(&mut self) {
        self.messages.truncate(self.before);
        self.app.output.talk("forgotten");
    }

    fn instruct(&mut self, text: &str) {
        self.messages.clear();
        if !text.is_empty() {
            self.messages.push(Message::new(Role::System, text));
        }
        self.before = self.messages.len();
        self.app.output.talk("instructions set; the conversation is forgotten");
    }
}

/// Reads one message, of several lines where it is begun so.
fn read(editor: &mut DefaultEditor) -> Result<String, ReadlineError> {
    let mut text = editor.readline(">>> ")?;
    while is_unfinished(&text) {
        text.push('\n');
        text += &editor.readline("... ")?;
    }
    if !text.trim().is_empty() {
        editor.add_history_entry(text.as_str())?;
    }
    Ok(text)
}

fn is_unfinished(text: &str) -> bool {
    match text.trim_start().strip_prefix("\"\"\"") {
        Some(rest) => !rest.trim_end().ends_with("\"\"\""),
        None => text.ends_with('\\'),
    }
}

fn input(text: &str) -> Input {
    let text = text.trim();
    if let Some(block) = text.strip_prefix("\"\"\"") {
        let block = block.strip_suffix("\"\"\"").unwrap_or(block).trim_matches('\n');
        return if block.trim().is_empty() {
            Input::Nothing
        } else {
            Input::Message(block.to_owned())
        };
    }
    if let Some(command) = text.strip_prefix('/') {
        let (name, rest) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
        return Input::Command { name: name.to_lowercase(), rest: rest.trim().to_owned() };
    }
    match text.replace("\\\n", "\n") {
        text if text.is_empty() => Input::Nothing,
        text => Input::Message(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(text: &str) -> Input {
        Input::Message(text.to_owned())
    }

    #[test]
    fn lines_are_read_as_they_are_meant() {
        assert_eq!(input("  "), Input::Nothing);
        assert_eq!(input(" hi there "), message("hi there"));
        assert_eq!(input("one\\\ntwo"), message("one\ntwo"));
        assert_eq!(input("\"\"\"\none\n/two\n\"\"\""), message("one\n/two"));
        assert_eq!(input("\"\"\"\"\"\""), Input::Nothing);
        let command = Input::Command { name: "system".to_owned(), rest: "Be brief.".to_owned() };
        assert_eq!(input("/System  Be brief."), command);
    }

    #[test]
    fn a_message_goes_on_until_it_is_closed() {
        assert!(is_unfinished("\"\"\"one") && is_unfinished("one\\"));
        assert!(is_unfinished("\"\"\""));
        assert!(!is_unfinished("\"\"\"one\ntwo\"\"\"") && !is_unfinished("one"));
    }
}
