//! Progress of long work, drawn on a terminal and silent elsewhere.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tieline_store::{Progress, PullEvent};

use crate::output::Output;
use crate::plain::plain;

const WAITING: &str = "{spinner} {msg}";

/// Shows how a pull goes.
#[derive(Debug)]
pub(crate) struct PullBar {
    output: Output,
    bar: ProgressBar,
    source: Mutex<String>,
    /// Said when the next mirror is tried: where there is none, the error says it.
    failed: Mutex<Option<String>>,
}

impl PullBar {
    pub(crate) fn new(output: Output) -> Self {
        Self { output, bar: bytes(output), source: Mutex::default(), failed: Mutex::default() }
    }

    fn say(&self, text: &str) {
        self.bar.suspend(|| self.output.talk(text));
    }

    fn source(&self) -> String {
        self.source.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for PullBar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

impl Progress for PullBar {
    fn event(&self, event: PullEvent) {
        match event {
            PullEvent::Waiting => self.say("another process pulls the same model: waiting for it"),
            PullEvent::Trying { source } => {
                let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner).take();
                failed.into_iter().for_each(|text| self.say(&text));
                self.bar.reset();
                self.bar.set_message(plain(&source));
                *self.source.lock().unwrap_or_else(PoisonError::into_inner) = source;
            }
            PullEvent::MirrorFailed { source, why } => {
                let failed = format!("mirror failed: {source}: {why}");
                *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(failed);
            }
            PullEvent::Resumed { at } => self.say(&format!("going on at {at}")),
            PullEvent::Bytes { done, total } => {
                if let Some(total) = total {
                    self.bar.set_length(total.0);
                }
                self.bar.set_position(done.0);
            }
            PullEvent::Verifying => {
                self.bar.set_message(plain(&format!("verifying {}", self.source())))
            }
            PullEvent::Done => self.bar.finish_and_clear(),
            // A step of a later version changes no result.
            _ => {}
        }
    }
}

/// Shows how many bytes of a file are there.
pub(crate) fn bytes(output: Output) -> ProgressBar {
    let bar = ProgressBar::new(0).with_style(style(
        "{msg} {wide_bar} {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec} {eta} left",
    ));
    target(&bar, output);
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// Shows how far something is, in thousandths.
pub(crate) fn thousandths(output: Output, message: String) -> ProgressBar {
    counted(output, message, 1000)
}

/// Shows how many of `total` steps are done.
pub(crate) fn counted(output: Output, message: String, total: u64) -> ProgressBar {
    let bar = ProgressBar::new(total)
        .with_style(style("{msg} {wide_bar} {percent} %"))
        .with_message(message);
    target(&bar, output);
    bar
}

/// Shows that a request waits, and for what.
pub(crate) fn waiting(output: Output) -> ProgressBar {
    let bar = ProgressBar::new_spinner().with_style(style(WAITING));
    target(&bar, output);
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

fn target(bar: &ProgressBar, output: Output) {
    bar.set_draw_target(if output.draws() {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    });
}

fn style(template: &str) -> ProgressStyle {
    // The templates are constants, and a test draws each.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_templates_are_valid() {
        for template in [
            "{msg} {wide_bar} {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec} {eta} left",
            "{msg} {wide_bar} {percent} %",
            WAITING,
        ] {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
    }
}
