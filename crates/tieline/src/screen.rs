//! Shows an answer to a person: text to standard output, thoughts and remarks to standard error.

use std::time::Duration;

use indicatif::ProgressBar;
use tieline_types::{Compacted, Started, Tokens};

use crate::answer::Shown;
use crate::bars;
use crate::failure::Failure;
use crate::output::Output;

/// Where one answer is shown.
#[derive(Debug)]
pub(crate) struct Screen {
    output: Output,
    /// Drawn while the request waits for others.
    waiting: Option<ProgressBar>,
    /// The last words were thoughts.
    is_thinking: bool,
}

impl Screen {
    pub(crate) fn new(output: Output) -> Self {
        Self { output, waiting: None, is_thinking: false }
    }

    /// Shows one step. Programs get warnings alone here: the rest is in the report.
    pub(crate) fn show(&mut self, shown: Shown<'_>) -> Result<(), Failure> {
        match shown {
            Shown::Queued { position, expected_wait } => self.wait(position, expected_wait),
            Shown::Started(started) => self.started(started),
            Shown::Warning(text) => self.output.warn(text),
            Shown::Reasoning(text) => {
                self.is_thinking |= self.output.thought(text);
            }
            Shown::Text(text) => {
                self.stop_thinking();
                if !self.output.is_json() {
                    self.output.piece(text)?;
                }
            }
        }
        Ok(())
    }

    fn wait(&mut self, position: u32, expected: Option<Duration>) {
        let bar = self.waiting.get_or_insert_with(|| bars::waiting(self.output));
        bar.set_message(place(position, expected));
    }

    fn started(&mut self, started: &Started) {
        self.stop_waiting();
        if let Some(compacted) = &started.compacted {
            self.output.warn(&summarised(started.dropped_tokens, compacted));
        } else if started.dropped_tokens > Tokens(0) {
            self.output.warn(&dropped(started.dropped_tokens));
        }
    }

    fn stop_waiting(&mut self) {
        if let Some(bar) = self.waiting.take() {
            bar.finish_and_clear();
        }
    }

    fn stop_thinking(&mut self) {
        if std::mem::take(&mut self.is_thinking) {
            self.output.end_of_thought();
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.stop_waiting();
        self.stop_thinking();
    }
}

fn place(position: u32, expected: Option<Duration>) -> String {
    let place = match position {
        0 => "next in line".to_owned(),
        1 => "1 request before this one".to_owned(),
        more => format!("{more} requests before this one"),
    };
    let expected = expected.map(|wait| format!(", about {:.0} s", wait.as_secs_f64().ceil()));
    format!("waiting: {place}{}", expected.unwrap_or_default())
}

fn dropped(tokens: Tokens) -> String {
    format!("left out {tokens} of the prompt, the oldest, to fit the context")
}

fn summarised(tokens: Tokens, compacted: &Compacted) -> String {
    let Compacted { messages, written_tokens, cut, .. } = compacted;
    let cut = if *cut { ", cut short" } else { "" };
    let count =
        if *messages == 1 { "1 message".to_owned() } else { format!("{messages} messages") };
    let summary = match written_tokens {
        Tokens(0) => "its own earlier summary".to_owned(),
        written => format!("its own summary of {written}"),
    };
    format!(
        "{count} of {tokens} did not fit the context: the model read {summary} in their place{cut}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_left_out_is_said() {
        let want = "left out 1 token of the prompt, the oldest, to fit the context";
        assert_eq!(dropped(Tokens(1)), want);
    }

    #[test]
    fn waiting_ends_with_the_start() {
        let mut screen = Screen::new(Output::new(true, true));
        let expected_wait = Some(Duration::from_millis(6100));
        screen.show(Shown::Queued { position: 2, expected_wait }).unwrap();
        let bar = screen.waiting.clone().unwrap();
        assert_eq!(bar.message(), "waiting: 2 requests before this one, about 7 s");
        screen.show(Shown::Queued { position: 0, expected_wait: None }).unwrap();
        assert_eq!(bar.message(), "waiting: next in line");
        screen.show(Shown::Started(&Started::default())).unwrap();
        assert!(bar.is_finished() && screen.waiting.is_none());
    }

    #[test]
    fn thoughts_are_hidden_where_nobody_watches() {
        // Quiet: also when the tests run at a terminal.
        let mut screen = Screen::new(Output::new(true, true));
        screen.show(Shown::Reasoning("hm")).unwrap();
        assert!(!screen.is_thinking);
    }
}
