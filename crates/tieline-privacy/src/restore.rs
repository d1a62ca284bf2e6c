//! Puts the values back into what a model says, as it comes.

use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::pseudonym::{Scan, may_begin, scan};
use crate::vault::Vault;

/// How values are written where they are put back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// As they are.
    Text,
    /// As parts of JSON strings.
    Json,
}

/// What was put back and what was not, over all parts of an answer.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) restored: AtomicU64,
    pub(crate) unrestored: AtomicU64,
    pub(crate) withheld: AtomicU64,
}

/// Restores one text that comes in pieces. It holds back what may still become a pseudonym, at most
/// [`MAX_SPREAD`](crate::pseudonym::MAX_SPREAD) bytes.
#[derive(Debug)]
pub struct Restorer {
    vault: Vault,
    target: Target,
    held: String,
    restored: u64,
    unrestored: u64,
}

impl Restorer {
    /// Puts back what the vault knows.
    pub fn new(vault: Vault, target: Target) -> Self {
        Self { vault, target, held: String::new(), restored: 0, unrestored: 0 }
    }

    /// Takes the next piece, and gives what is certain.
    pub fn push(&mut self, piece: &str) -> String {
        self.held.push_str(piece);
        self.advance(false)
    }

    /// The text is over: gives the rest. Another may follow.
    pub fn finish(&mut self) -> String {
        self.advance(true)
    }

    /// Pseudonyms put back so far.
    pub fn restored(&self) -> u64 {
        self.restored
    }

    /// What looked like a pseudonym so far and is none of this session: garbled, cut or invented.
    pub fn unrestored(&self) -> u64 {
        self.unrestored
    }

    fn advance(&mut self, whole: bool) -> String {
        let mut out = String::with_capacity(self.held.len());
        let mut from = 0;
        while let Some(offset) = self.held.as_bytes()[from..].iter().position(|b| may_begin(*b)) {
            let start = from + offset;
            out.push_str(&self.held[from..start]);
            from = start;
            let step = match scan(&self.held[start..], whole) {
                Scan::Pseudonym { bytes, kind, id } => {
                    let vault = self.vault.lock().unwrap_or_else(PoisonError::into_inner);
                    if let Some(value) = vault.value(kind, id) {
                        self.target.write(value, &mut out);
                        self.restored += 1;
                        from += bytes;
                        continue;
                    }
                    self.unrestored += 1;
                    self.step(start)
                }
                Scan::Lookalike { .. } => {
                    self.unrestored += 1;
                    self.step(start)
                }
                Scan::Other => self.step(start),
                Scan::Partial => None,
            };
            let Some(step) = step.or(whole.then_some(1)) else { break };
            out.push_str(&self.held[start..start + step]);
            from = start + step;
        }
        let rest = self.held.split_off(from);
        if self.may_wait(&rest, whole) {
            self.held = rest;
        } else {
            self.held.clear();
            out.push_str(&rest);
        }
        out
    }

    fn may_wait(&self, rest: &str, whole: bool) -> bool {
        !whole && rest.bytes().next().is_some_and(may_begin)
    }

    /// The bytes to go on over. In JSON an escape is never taken apart; `None`: it is not whole yet.
    fn step(&self, start: usize) -> Option<usize> {
        let rest = &self.held[start..];
        match (self.target, rest.strip_prefix('\\')) {
            (Target::Json, Some(escaped)) => escaped.chars().next().map(|next| 1 + next.len_utf8()),
            (Target::Text | Target::Json, _) => Some(1),
        }
    }
}

impl Target {
    fn write(self, value: &str, out: &mut String) {
        match self {
            Self::Text => out.push_str(value),
            // A string always has a JSON form with a quote at each end.
            Self::Json => {
                let quoted = serde_json::Value::from(value).to_string();
                out.push_str(&quoted[1..quoted.len() - 1]);
            }
        }
    }
}

impl Tally {
    /// Moves a restorer's counts here.
    pub(crate) fn add(&self, restorer: &mut Restorer) {
        self.restored.fetch_add(std::mem::take(&mut restorer.restored), Ordering::Relaxed);
        self.unrestored.fetch_add(std::mem::take(&mut restorer.unrestored), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
