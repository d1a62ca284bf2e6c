//! What is wrong with a policy.

use std::fmt;
use std::ops::Range;

/// One fault of a policy's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The line, from 1.
    pub line: usize,
    /// The column, in characters from 1.
    pub column: usize,
    /// Where in the tree, such as `backends.openai.zone`; empty: nowhere.
    pub at: String,
    /// What is wrong, and what to do.
    pub problem: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { line, column, at, problem } = self;
        match at.is_empty() {
            true => write!(f, "line {line}, column {column}: {problem}"),
            false => write!(f, "line {line}, column {column}: {at}: {problem}"),
        }
    }
}

/// A text that is no policy: all its faults, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyError {
    /// The faults; at least one.
    pub faults: Vec<Fault>,
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.faults.len() {
            1 => f.write_str("the policy has a fault:")?,
            several => write!(f, "the policy has {several} faults:")?,
        }
        for fault in &self.faults {
            write!(f, "\n  {fault}")?;
        }
        Ok(())
    }
}

impl std::error::Error for PolicyError {}

/// Collects faults while a text is read.
#[derive(Debug)]
pub(super) struct Faults<'a> {
    text: &'a str,
    found: Vec<Fault>,
}

impl<'a> Faults<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, found: Vec::new() }
    }

    pub(super) fn add(&mut self, span: &Range<usize>, at: &str, problem: impl Into<String>) {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        self.found.push(Fault {
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            at: at.to_owned(),
            problem: problem.into(),
        });
    }

    pub(super) fn finish<T>(mut self, whole: T) -> Result<T, PolicyError> {
        self.found.sort_by_key(|fault| (fault.line, fault.column));
        if self.found.is_empty() { Ok(whole) } else { Err(PolicyError { faults: self.found }) }
    }
}
