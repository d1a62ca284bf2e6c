//! What a step computes: tokens of answers, and pieces of prompts as long as there is time for.

use std::collections::HashMap;

use tieline_types::{Class, Owner};

use super::turns::Group;
use super::{PIECE, Reading, Running, Scheduler, Share, as_f64};

/// Of a step's prompt tokens, the share that batch requests get while interactive prompts are read.
const BATCH_SHARE: usize = 8;
/// How many times longer than asked a step may take where many wait for their first token.
const MOST_PATIENCE: f64 = 4.0;

/// Rows that llama.cpp's attention on a processor takes together; with fewer it goes row by row, which
/// takes twice as long for each (`ggml_fa_tile_config::Q`).
const TILE: usize = 64;

/// The number of rows near `rows` that is computed best: whole tiles, also where that takes up to twice as
/// long as asked; fewer than half a tile in whole pieces.
///
/// Measured with SmolLM2 on AVX-512 at a depth of 3,000 tokens: 64 rows in 240 ms, 32 rows in 185 ms.
pub(super) fn whole_rows(rows: usize) -> usize {
    match rows.max(PIECE) {
        rows if rows >= TILE / 2 => (rows + TILE / 4).max(TILE) / TILE * TILE,
        rows => rows / PIECE * PIECE,
    }
}

/// How deep the prompts are that are being read, on average, in tokens.
pub(super) fn depth(at_work: &[&Running]) -> usize {
    let reads = |r: &&&Running| r.remaining > 1;
    let prompts = at_work.iter().filter(reads).count();
    at_work.iter().filter(reads).map(|r| r.before()).sum::<usize>() / prompts.max(1)
}

impl Running {
    /// Tokens of it that are computed.
    pub(super) fn before(&self) -> usize {
        (self.job.prompt + self.answered).saturating_sub(self.remaining)
    }

    /// Its next tokens as a piece of a prompt.
    pub(super) fn reading(&self, tokens: usize) -> Reading {
        Reading::of(tokens, self.before())
    }
}

impl Scheduler {
    /// What the next step computes: a token for each answer, then pieces of prompts. All of one group.
    pub fn plan(&self) -> Vec<Share> {
        let ready = self.groups(|r| r.remaining > 0 && !r.fetches);
        let Some(group) = self.turns.next(&ready, self.limits.step) else { return Vec::new() };
        let at_work: Vec<&Running> = self.of(group).collect();
        let decodes = |r: &&&Running| r.remaining == 1;
        let mut shares: Vec<Share> = at_work
            .iter()
            .filter(decodes)
            .map(|r| Share { id: r.job.id, tokens: 1, decodes: true })
            .collect();
        let budget = Budget {
            tokens: self.prompt_budget(&at_work, shares.len()),
            rows: self.rows_for_scores(&at_work),
        };
        let prompts = |class| {
            let reads = move |r: &&Running| r.remaining > 1 && r.job.class == class;
            at_work.iter().copied().filter(reads)
        };
        // A share in pieces worth their place, but never more than half.
        let part = |whole: usize, wanted: usize| {
            (whole / BATCH_SHARE).max(PIECE).min(whole / 2).min(wanted)
        };
        let wanted = prompts(Class::Batch).fold(Budget::default(), Budget::with);
        let for_batch = Budget {
            tokens: part(budget.tokens, wanted.tokens.saturating_add(wanted.rows.min(budget.rows))),
            rows: part(budget.rows, wanted.rows),
        };
        let mut left =
            Budget { tokens: budget.tokens - for_batch.tokens, rows: budget.rows - for_batch.rows };
        divide(prompts(Class::Interactive), &mut left, &mut shares);
        left.tokens += for_batch.tokens;
        left.rows += for_batch.rows;
        divide(prompts(Class::Batch), &mut left, &mut shares);
        shares
    }

    /// The groups of requests at work, each once, in the order of their numbers.
    pub(super) fn groups(&self, which: impl Fn(&&Running) -> bool) -> Vec<Group> {
        let mut groups: Vec<Group> =
            self.running.iter().filter(which).map(|r| r.job.group).collect();
        groups.sort_unstable();
        groups.dedup();
        groups
    }

    /// Those of a group that may be in a step.
    pub(super) fn of(&self, group: Group) -> impl Iterator<Item = &Running> {
        self.running.iter().filter(move |r| r.job.group == group && !r.fetches)
    }

    /// What a group is worth: each of its owners once, and one who only has batch requests a part.
    pub(super) fn worth(&self, group: Group) -> f64 {
        let mut owners: HashMap<&Owner, Class> = HashMap::new();
        for running in self.of(group) {
            let class = owners.entry(&running.job.owner).or_insert(Class::Batch);
            if running.job.class == Class::Interactive {
                *class = Class::Interactive;
            }
        }
        let worth = |class: &Class| match class {
            Class::Interactive => 1.0,
            Class::Batch => 1.0 / as_f64(BATCH_SHARE),
        };
        let sum: f64 = owners.values().map(worth).sum();
        if sum > 0.0 { sum } else { 1.0 }
    }

    /// Rows of logits for prompts that are scored: whoever else is at work may want one.
    fn rows_for_scores(&self, at_work: &[&Running]) -> usize {
        let others = at_work.iter().filter(|r| !r.job.scored || r.remaining <= 1).count();
        self.limits.rows.saturating_sub(others)
    }

    /// Prompt tokens in a step beside `answers` tokens of answers: never less than a piece where there is room for
    /// one. What is shorter would hardly be read faster by its being alone, and teaches nothing of the pace, so that
    /// one estimate that was too high would keep all later pieces short.
    fn prompt_budget(&self, at_work: &[&Running], answers: usize) -> usize {
        let room = self.limits.batch.saturating_sub(answers);
        if answers == 0 {
            return room;
        }
        let patience = self.patience(at_work, answers);
        let before = depth(at_work);
        let fit = self.pace.tokens_within(patience, answers, before).unwrap_or(TILE);
        whole_rows(fit + answers).saturating_sub(answers).max(PIECE).min(room)
    }

    /// Seconds that a step may take beside `answers` answers: longer where more wait for their first token
    /// than for their next, since longer pieces are read faster.
    pub(super) fn patience(&self, at_work: &[&Running], answers: usize) -> f64 {
        let prompts = at_work.iter().filter(|r| r.remaining > 1).count();
        self.limits.step * (as_f64(prompts) / as_f64(answers.max(1))).clamp(1.0, MOST_PATIENCE)
    }
}

/// What prompts get of a step.
#[derive(Clone, Copy, Debug, Default)]
struct Budget {
    tokens: usize,
    /// Of these tokens, how many may be of prompts that are scored.
    rows: usize,
}

impl Budget {
    /// This and what `running` wants: rows, where it is scored.
    fn with(mut self, running: &Running) -> Self {
        let wanted = if running.job.scored { &mut self.rows } else { &mut self.tokens };
        *wanted = wanted.saturating_add(running.remaining);
        self
    }

    /// The greater half.
    fn half(self) -> Self {
        Self { tokens: self.tokens.div_ceil(2), rows: self.rows.div_ceil(2) }
    }

    /// Takes `wanted` tokens of a prompt, or as many as there are.
    fn take(&mut self, wanted: usize, scored: bool) -> usize {
        let tokens = wanted.min(self.tokens).min(if scored { self.rows } else { usize::MAX });
        self.tokens -= tokens;
        self.rows -= if scored { tokens } else { 0 };
        tokens
    }
}

/// Divides the budget among prompts: half to the one that waits longest, so that none starves, and the rest
/// to the shortest first, so that a short one does not wait for a long one. What is left over stays in it.
fn divide<'r>(
    prompts: impl Iterator<Item = &'r Running>,
    budget: &mut Budget,
    shares: &mut Vec<Share>,
) {
    let mut prompts: Vec<(&Running, usize)> = prompts.map(|r| (r, 0)).collect();
    if let Some((oldest, tokens)) = prompts.first_mut() {
        *tokens = budget.half().take(oldest.remaining, oldest.job.scored);
        budget.take(*tokens, oldest.job.scored);
    }
    prompts.sort_by_key(|(running, _)| running.remaining);
    for (running, tokens) in &mut prompts {
        *tokens += budget.take(running.remaining - *tokens, running.job.scored);
    }
    let given = prompts.into_iter().filter(|(_, tokens)| *tokens > 0);
    shares.extend(given.map(|(r, tokens)| Share { id: r.job.id, tokens, decodes: false }));
}
