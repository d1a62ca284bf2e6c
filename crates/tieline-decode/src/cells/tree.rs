//! Runs of cells and who holds them.
//!
//! A run is a stretch of cells that the same sequences hold. A sequence is the path from a root down to
//! the run that it ends with, its tail. Siblings may begin with equal tokens: a run is a place in the
//! cache, not a text. Knows nothing of owners and of time.

use std::iter;
use std::mem;

/// A run's place in the tree. Stays the same when the run is split or joined, for the run that is deeper.
pub(super) type Run = usize;

/// Some cells in a row.
#[derive(Default)]
struct Cells {
    tokens: Vec<i32>,
    /// The position of the first.
    start: usize,
    parent: Option<Run>,
    /// Sequences whose path leads through here. A run that nobody holds is not there.
    holders: usize,
}

/// All runs. Invariants, checked by the tests: no run is empty; a run has no fewer holders than its
/// children together; a run and its only child differ in holders, so there are fewer runs than twice
/// the sequences.
#[derive(Default)]
pub(super) struct Tree {
    runs: Vec<Cells>,
    /// Places in `runs` that hold nothing.
    spare: Vec<Run>,
    used: usize,
}

impl Tree {
    /// Cells that somebody holds.
    pub(super) fn used(&self) -> usize {
        self.used
    }

    /// One more than the greatest place of a run.
    pub(super) fn places(&self) -> usize {
        self.runs.len()
    }

    /// Tokens of the path down to `tail`.
    pub(super) fn length(&self, tail: Option<Run>) -> usize {
        tail.map_or(0, |run| self.runs[run].start + self.runs[run].tokens.len())
    }

    /// How many sequences hold a run.
    pub(super) fn holders(&self, run: Run) -> usize {
        self.runs[run].holders
    }

    /// A run's tokens.
    pub(super) fn tokens(&self, run: Run) -> &[i32] {
        &self.runs[run].tokens
    }

    /// The runs from `tail` up to its root.
    pub(super) fn up(&self, tail: Option<Run>) -> impl Iterator<Item = Run> {
        iter::successors(tail, |run| self.runs[*run].parent)
    }

    /// The runs from the root down to `tail`.
    pub(super) fn down(&self, tail: Option<Run>) -> Vec<Run> {
        let mut runs: Vec<Run> = self.up(tail).collect();
        runs.reverse();
        runs
    }

    /// Lets one more sequence hold the first `length` tokens of the path to `tail`; returns its tail.
    /// `length` is at most the path's.
    pub(super) fn hold(&mut self, tail: Option<Run>, length: usize) -> Option<Run> {
        let held = self.cut(tail, length);
        for run in self.up(held).collect::<Vec<_>>() {
            self.runs[run].holders += 1;
        }
        held
    }

    /// Adds cells for the one sequence that ends with `tail`; returns its new tail.
    pub(super) fn grow(&mut self, tail: Option<Run>, tokens: &[i32]) -> Option<Run> {
        if tokens.is_empty() {
            return tail;
        }
        self.used += tokens.len();
        match tail {
            // Who holds the tail alone ends there, so nothing hangs below it.
            Some(run) if self.runs[run].holders == 1 => {
                self.runs[run].tokens.extend_from_slice(tokens);
                Some(run)
            }
            Some(_) | None => {
                let start = self.length(tail);
                Some(self.add(Cells { tokens: tokens.to_vec(), start, parent: tail, holders: 1 }))
            }
        }
    }

    /// Lets the sequence that ends with `tail` keep its first `length` tokens only; returns its new tail
    /// and how many cells nobody holds any more. `length` is at most the path's.
    pub(super) fn release(&mut self, tail: Option<Run>, length: usize) -> (Option<Run>, usize) {
        let kept = self.cut(tail, length);
        let before = self.used;
        let left: Vec<Run> = self.up(tail).take_while(|run| Some(*run) != kept).collect();
        let mut deepest = None;
        for run in left {
            self.runs[run].holders -= 1;
            if self.runs[run].holders == 0 {
                self.drop_run(run);
            } else if deepest.is_none() {
                deepest = Some(run);
            }
        }
        // Only where the sequence parted from the others may a fork have become a straight line.
        if let Some(run) = deepest {
            self.join(run);
        }
        (kept, before - self.used)
    }

    /// The run on the path to `tail` that ends at `length`, made by a split where there is none.
    fn cut(&mut self, tail: Option<Run>, length: usize) -> Option<Run> {
        if length == 0 {
            return None;
        }
        let run = self.up(tail).find(|run| self.runs[*run].start < length)?;
        let keep = length - self.runs[run].start;
        if keep >= self.runs[run].tokens.len() {
            return Some(run);
        }
        let lower = self.runs[run].tokens.split_off(keep);
        let cells = &mut self.runs[run];
        let tokens = mem::replace(&mut cells.tokens, lower);
        let upper =
            Cells { tokens, start: cells.start, parent: cells.parent, holders: cells.holders };
        let upper = self.add(upper);
        self.runs[run].parent = Some(upper);
        self.runs[run].start = length;
        Some(upper)
    }

    /// Joins a run with its child if all who hold it hold the child too.
    fn join(&mut self, run: Run) {
        let holders = self.runs[run].holders;
        let child = self
            .runs
            .iter()
            .position(|cells| cells.parent == Some(run) && cells.holders == holders);
        let Some(child) = child else { return };
        let mut upper = mem::take(&mut self.runs[run]);
        self.spare.push(run);
        let lower = &mut self.runs[child];
        upper.tokens.append(&mut lower.tokens);
        *lower = upper;
    }

    fn add(&mut self, cells: Cells) -> Run {
        if let Some(run) = self.spare.pop() {
            self.runs[run] = cells;
            return run;
        }
        self.runs.push(cells);
        self.runs.len() - 1
    }

    fn drop_run(&mut self, run: Run) {
        let cells = mem::take(&mut self.runs[run]);
        self.used -= cells.tokens.len();
        self.spare.push(run);
    }
}

#[cfg(test)]
impl Tree {
    /// Panics where an invariant does not hold. `tails` are those of all sequences.
    pub(super) fn check(&self, tails: &[Option<Run>]) {
        let mut holders = vec![0; self.runs.len()];
        for run in tails.iter().flat_map(|tail| self.up(*tail)) {
            holders[run] += 1;
        }
        for (run, cells) in self.runs.iter().enumerate() {
            assert_eq!(cells.holders, holders[run], "holders of {run}");
            assert_eq!(cells.holders == 0, cells.tokens.is_empty(), "cells of {run}");
            assert_eq!(cells.holders == 0, self.spare.contains(&run), "spare {run}");
            if cells.holders > 0 {
                assert_eq!(cells.start, self.length(cells.parent), "start of {run}");
            }
            if let Some(parent) = cells.parent {
                assert!(self.runs[parent].holders > cells.holders, "{run} is not joined");
            }
        }
        assert_eq!(self.used, self.runs.iter().map(|cells| cells.tokens.len()).sum::<usize>());
    }
}
