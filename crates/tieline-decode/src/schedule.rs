//! Decides which requests are at work and what each gets of the next step.
//!
//! A step is one batch through the model. Every request that decodes gets its token in every step; what is
//! left of the step goes to prompts, in pieces so short that the step takes about as long as running
//! answers may stand still. Sans-I/O: the caller computes the batch and reports how long it took.
//!
//! Order of admission: interactive before batch, but a batch request is passed over at most
//! [`PASSED_OVER`] times; among owners the one that got the least service goes first (virtual token
//! counters: Sheng et al., "Fairness in Serving Large Language Models", OSDI 2024); within an owner, first
//! come, first served.

mod pace;

use std::collections::HashMap;

use tieline_types::{Class, Owner, RequestId};

pub use pace::Pace;

/// How often interactive requests may go before a waiting batch request.
pub const PASSED_OVER: u32 = 8;
/// How often a request at work may be sent back to the queue for the sake of others.
pub const SENT_BACK: u32 = 3;
/// Of a step's prompt tokens, the share that batch requests get while interactive prompts are read.
const BATCH_SHARE: usize = 8;
/// The shortest piece of a prompt worth a place in a step, in tokens.
pub const PIECE: usize = 16;

/// Limits.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most requests at work.
    pub slots: usize,
    /// Most requests that wait.
    pub queue: usize,
    /// Most tokens in a step.
    pub batch: usize,
    /// How long a step should take while answers run, in seconds.
    pub step: f64,
}

/// A request as the scheduler knows it.
#[derive(Clone, Debug)]
pub struct Job {
    /// Its id.
    pub id: RequestId,
    /// Who waits.
    pub class: Class,
    /// Whose it is.
    pub owner: Owner,
    /// Whether it must run alone.
    pub alone: bool,
    /// Tokens of its prompt.
    pub prompt: usize,
    /// Most tokens of its answer.
    pub answer: usize,
}

/// A place in the queue.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Place {
    /// Requests before this one that also wait.
    pub position: usize,
    /// Seconds until it is at work, as far as known.
    pub wait: Option<f64>,
}

/// The queue is full.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct QueueFull {
    /// Its length.
    pub length: usize,
    /// Seconds until there is likely room.
    pub wait: Option<f64>,
}

/// What one request gets of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// The request.
    pub id: RequestId,
    /// How many of its known tokens to compute.
    pub tokens: usize,
    /// Whether it decodes: these tokens are its newest.
    pub decodes: bool,
}

#[derive(Debug)]
struct Waiting {
    job: Job,
    passed_over: u32,
    sent_back: u32,
}

#[derive(Debug)]
struct Running {
    job: Job,
    /// Known tokens that are not computed yet. One or none: it decodes.
    remaining: usize,
    sent_back: u32,
}

/// Requests that wait and requests at work.
#[derive(Debug)]
pub struct Scheduler {
    limits: Limits,
    waiting: Vec<Waiting>,
    running: Vec<Running>,
    served: HashMap<Owner, f64>,
    pace: Pace,
}

impl Scheduler {
    /// Nothing waits, nothing runs.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            waiting: Vec::new(),
            running: Vec::new(),
            served: HashMap::new(),
            pace: Pace::default(),
        }
    }

    /// Puts a request into the queue.
    ///
    /// # Errors
    /// The queue is full.
    pub fn submit(&mut self, job: Job) -> Result<Place, QueueFull> {
        if self.waiting.len() >= self.limits.queue {
            let length = self.waiting.len();
            return Err(QueueFull { length, wait: self.expected_wait(length) });
        }
        self.welcome(&job.owner);
        self.waiting.push(Waiting { job, passed_over: 0, sent_back: 0 });
        let position = self.waiting.len() - 1;
        Ok(Place { position, wait: self.expected_wait(position) })
    }

    /// An owner who comes back starts level with those who are being served: idle time is no credit.
    fn welcome(&mut self, owner: &Owner) {
        let present = |o: &Owner| {
            self.running.iter().any(|r| r.job.owner == *o)
                || self.waiting.iter().any(|w| w.job.owner == *o)
        };
        if present(owner) {
            return;
        }
        let least = self
            .served
            .iter()
            .filter(|(o, _)| present(o))
            .map(|(_, served)| *served)
            .reduce(f64::min);
        let served = self.served.get(owner).copied().unwrap_or(0.0).max(least.unwrap_or(0.0));
        // Nobody present: all start anew, and the table stays as small as the number of those present.
        if least.is_none() {
            self.served.clear();
        }
        self.served.insert(owner.clone(), served);
        self.served.retain(|o, _| o == owner || present(o));
    }

    /// Where a request stands in the queue, in the order in which they came.
    pub fn place(&self, id: RequestId) -> Option<Place> {
        let position = self.waiting.iter().position(|w| w.job.id == id)?;
        Some(Place { position, wait: self.expected_wait(position) })
    }

    /// Requests that wait, in the order in which they should be let in now; none where one runs alone.
    ///
    /// The caller lets in the first for which there is room, by [`admit`](Self::admit).
    pub fn candidates(&self) -> Vec<RequestId> {
        if self.running.iter().any(|r| r.job.alone) {
            return Vec::new();
        }
        let mut order: Vec<&Waiting> = self.waiting.iter().collect();
        // Stable: first come, first served among equals.
        order.sort_by(|a, b| {
            (self.rank(a), self.served(a))
                .partial_cmp(&(self.rank(b), self.served(b)))
                .unwrap_or(std::cmp::Ordering::Equal)
        });
        let alone = order.iter().position(|w| w.job.alone);
        // One that runs alone waits for the others to end, and nobody overtakes it meanwhile.
        match alone {
            Some(0) if !self.running.is_empty() => return Vec::new(),
            Some(0) => order.truncate(1),
            Some(at) => order.truncate(at),
            None => {}
        }
        if self.running.len() >= self.limits.slots {
            return Vec::new();
        }
        order.into_iter().map(|w| w.job.id).collect()
    }

    /// Lower goes first.
    fn rank(&self, waiting: &Waiting) -> u8 {
        match waiting.job.class {
            _ if waiting.passed_over >= PASSED_OVER => 0,
            Class::Interactive => 1,
            Class::Batch => 2,
        }
    }

    fn served(&self, waiting: &Waiting) -> f64 {
        self.served.get(&waiting.job.owner).copied().unwrap_or(0.0)
    }

    /// Lets a waiting request in; `remaining` of its tokens must be computed. `false`: it does not wait.
    pub fn admit(&mut self, id: RequestId, remaining: usize) -> bool {
        let Some(at) = self.waiting.iter().position(|w| w.job.id == id) else { return false };
        let admitted = self.waiting.remove(at);
        // The oldest of each owner that came before it was passed over. Only the oldest: or a flood of one
        // owner's would soon go before all others'.
        let mut seen: Vec<(Owner, Class)> = Vec::new();
        for waiting in &mut self.waiting[..at] {
            let line = (waiting.job.owner.clone(), waiting.job.class);
            if !seen.contains(&line) {
                waiting.passed_over += 1;
                seen.push(line);
            }
        }
        let Waiting { job, sent_back, .. } = admitted;
        self.running.push(Running { job, remaining, sent_back });
        true
    }

    /// The request at work that should give its place to one that waits and that has no place: a batch
    /// request, the last that came, where somebody waits for an interactive one.
    pub fn gives_way(&self) -> Option<RequestId> {
        let full = self.running.len() >= self.limits.slots;
        let urgent = self.waiting.iter().any(|w| w.job.class == Class::Interactive && !w.job.alone);
        if !full || !urgent {
            return None;
        }
        let mut batch = self.running.iter().rev();
        batch
            .find(|r| r.job.class == Class::Batch && r.sent_back < SENT_BACK && !r.job.alone)
            .map(|r| r.job.id)
    }

    /// The request at work to send back when the KV cache is full: batch before interactive, the last that
    /// came first. Never the only one.
    pub fn sheds(&self) -> Option<RequestId> {
        if self.running.len() < 2 {
            return None;
        }
        let last = |class| self.running.iter().rev().find(move |r| r.job.class == class);
        last(Class::Batch).or_else(|| last(Class::Interactive)).map(|r| r.job.id)
    }

    /// Sends a request at work back to the head of the queue. `tokens` are now known of it.
    pub fn send_back(&mut self, id: RequestId, tokens: usize) {
        let Some(at) = self.running.iter().position(|r| r.job.id == id) else { return };
        let Running { mut job, sent_back, .. } = self.running.remove(at);
        job.prompt = tokens;
        let passed_over = 0;
        self.waiting.insert(0, Waiting { job, passed_over, sent_back: sent_back + 1 });
    }

    /// Forgets a request, wherever it is.
    pub fn remove(&mut self, id: RequestId) {
        self.waiting.retain(|w| w.job.id != id);
        self.running.retain(|r| r.job.id != id);
    }

    /// Sets how many known tokens of a request at work are not computed.
    pub fn set_remaining(&mut self, id: RequestId, remaining: usize) {
        if let Some(running) = self.running.iter_mut().find(|r| r.job.id == id) {
            running.remaining = remaining;
        }
    }

    /// What the next step computes: a token for each answer, then pieces of prompts.
    pub fn plan(&self) -> Vec<Share> {
        let decodes = |r: &&Running| r.remaining == 1;
        let mut shares: Vec<Share> = self
            .running
            .iter()
            .filter(decodes)
            .map(|r| Share { id: r.job.id, tokens: 1, decodes: true })
            .collect();
        let budget = self.prompt_budget(shares.len());
        let prompts =
            |class| self.running.iter().filter(move |r| r.remaining > 1 && r.job.class == class);
        let both =
            prompts(Class::Interactive).next().is_some() && prompts(Class::Batch).next().is_some();
        let for_batch = if both { (budget / BATCH_SHARE).max(PIECE.min(budget)) } else { budget };
        let for_interactive = if both { budget - for_batch } else { budget };
        divide(prompts(Class::Interactive), for_interactive, &mut shares);
        divide(prompts(Class::Batch), for_batch, &mut shares);
        shares
    }

    /// Prompt tokens in a step beside `answers` tokens of answers.
    fn prompt_budget(&self, answers: usize) -> usize {
        let room = self.limits.batch.saturating_sub(answers);
        if answers == 0 {
            return room;
        }
        self.pace
            .tokens_within(self.limits.step, answers)
            .map_or(2 * PIECE, |t| t.max(PIECE))
            .min(room)
    }

    /// Takes note of a step that was computed: for each request, how many tokens it got.
    pub fn stepped(&mut self, shares: &[Share], seconds: f64) {
        for share in shares {
            let Some(running) = self.running.iter_mut().find(|r| r.job.id == share.id) else {
                continue;
            };
            running.remaining = running.remaining.saturating_sub(share.tokens);
            // A decoded token costs about twice a prompt's (Sheng et al.).
            #[expect(clippy::cast_precision_loss, reason = "a count of tokens in a step")]
            let cost = share.tokens as f64 * if share.decodes { 2.0 } else { 1.0 };
            if let Some(served) = self.served.get_mut(&running.job.owner) {
                *served += cost;
            }
        }
        let (answers, prompts): (Vec<&Share>, Vec<&Share>) = shares.iter().partition(|s| s.decodes);
        let prompt_tokens = prompts.iter().map(|s| s.tokens).sum();
        self.pace.note(answers.len(), prompt_tokens, seconds);
    }

    /// Seconds until the request at `position` of the queue is let in: the prompts before it, and the
    /// answers that must end to make room.
    fn expected_wait(&self, position: usize) -> Option<f64> {
        let free = self.limits.slots.saturating_sub(self.running.len());
        if position < free {
            return Some(0.0);
        }
        let reading: usize = self.running.iter().map(|r| r.remaining).sum();
        let before: usize = self.waiting.iter().take(position).map(|w| w.job.prompt).sum();
        let shortest = self.running.iter().map(|r| r.job.answer).min().unwrap_or(0);
        let rounds = (position - free) / self.limits.slots.max(1) + 1;
        self.pace.seconds(reading + before, shortest * rounds)
    }

    /// How many requests wait.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// The requests at work.
    pub fn running(&self) -> impl Iterator<Item = RequestId> + '_ {
        self.running.iter().map(|r| r.job.id)
    }

    /// What was learned of the speed.
    pub fn pace(&self) -> &Pace {
        &self.pace
    }
}

/// Divides `budget` tokens among prompts: half to the one that waits longest, so that none starves, and the
/// rest to the shortest first, so that a short one does not wait for a long one.
fn divide<'r>(prompts: impl Iterator<Item = &'r Running>, budget: usize, shares: &mut Vec<Share>) {
    let mut prompts: Vec<(&Running, usize)> = prompts.map(|r| (r, 0)).collect();
    let mut left = budget;
    let give = |prompt: &mut (&Running, usize), most: usize, left: &mut usize| {
        let tokens = (prompt.0.remaining - prompt.1).min(most).min(*left);
        prompt.1 += tokens;
        *left -= tokens;
    };
    if let Some(oldest) = prompts.first_mut() {
        give(oldest, budget.div_ceil(2), &mut left);
    }
    prompts.sort_by_key(|(running, _)| running.remaining);
    prompts.iter_mut().for_each(|prompt| give(prompt, usize::MAX, &mut left));
    let given = prompts.into_iter().filter(|(_, tokens)| *tokens > 0);
    shares.extend(given.map(|(r, tokens)| Share { id: r.job.id, tokens, decodes: false }));
}

#[cfg(test)]
mod tests;
