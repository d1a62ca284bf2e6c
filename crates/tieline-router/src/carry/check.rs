//! A program of the user's that looks through an answer before it is given. Somebody else runs it: no process is started
//! here.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use serde::Serialize;
use tieline_types::Private;

/// A program, and how long it may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// The program and its arguments; no shell reads them.
    pub words: Vec<String>,
    /// How long it may take.
    pub time: Duration,
    /// What it may read besides the system's programs and what its words name, where the system can shut it in; `None`:
    /// whatever the user may.
    pub reads: Option<Vec<String>>,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Checked {
    /// It ended with 0.
    Passed,
    /// It ended otherwise.
    Failed,
    /// Its time was over.
    Late,
    /// It could not be run.
    NotRun,
}

/// Whoever runs programs.
#[async_trait]
pub trait Checker: fmt::Debug + Send + Sync {
    /// Runs it on this text. Dropping the future ends it.
    async fn check(&self, program: &Program, text: Private) -> Checked;
}

/// The code of an answer: what stands in its first fence, else all of it.
pub fn code(answer: &str) -> &str {
    let fence = |line: &str| {
        let line = line.trim_start();
        let length = line.len() - line.trim_start_matches('`').len();
        (length >= 3).then_some(length)
    };
    let (mut at, mut open) = (0, None);
    for line in answer.split_inclusive('\n') {
        let (begin, length) = (at, fence(line));
        at += line.len();
        match (open, length) {
            (None, Some(length)) => open = Some((at, length)),
            (Some((from, least)), Some(length)) if length >= least => return &answer[from..begin],
            _ => {}
        }
    }
    // A fence that nobody closed goes on to the end.
    open.map_or(answer, |(from, _)| &answer[from..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(answer: &str, want: &str) {
        assert_eq!(code(answer), want);
    }

    #[test]
    fn the_first_fence_is_the_code() {
        check("", "");
        check("x = 1\n", "x = 1\n");
        check("So:\n```python\nx = 1\ny\n```\nand\n```\nz\n```", "x = 1\ny\n");
        check("```\nx", "x");
        check("```", "");
        check("  ```rust\n  fn é() {}\n  ```\n", "  fn é() {}\n");
        check("````md\n```\nx\n```\n````\n", "```\nx\n```\n");
        check("a ``` b `c`\n", "a ``` b `c`\n");
    }
}
