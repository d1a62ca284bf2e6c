//! Decides which requests are at work and what each gets of the next step.
//!
//! A step is one batch through the model. Every request that decodes gets its token in every step; what is
//! left of the step goes to prompts, in pieces so short that the step takes about as long as running
//! answers may stand still. Of a prompt that is scored every token's logits are wanted, and a step holds few
//! rows of logits: it comes in shorter pieces, and others get what it leaves. Sans-I/O: the caller computes the
//! batch and reports how long it took.
//!
//! Order of admission: interactive before batch, but while no batch request is at work, at most
//! [`PASSED_OVER`] interactive ones go before one that waits; among owners the one that got the least
//! service goes first (virtual token counters: Sheng et al., "Fairness in Serving Large Language Models",
//! OSDI 2024); within an owner, first come, first served.
//!
//! A step holds requests of one [`Group`], and groups take turns ([`turns`]). One whose prompt's beginning is
//! being fetched ([`Scheduler::fetch`]) has its slot and computes nothing until that ended: the others go on.
//!
//! Nothing starves. The oldest request of an owner and class is overtaken by at most [`OVERTAKEN`] later
//! ones, whatever class, owner or size; then those that are overdue go by age and nobody goes before them.
//! A large one that is first and finds no room is overtaken at most [`PASSED_OVER`] times by smaller ones.
//! One that would rather wait, since another at work reads what it begins with, holds up nobody meanwhile, and is
//! not counted as overtaken.

mod depth;
mod pace;
mod plan;
mod served;
mod turns;
mod wait;

use std::collections::{HashMap, HashSet};

use tieline_types::{Class, Owner, RequestId};

pub use depth::Reading;
pub use pace::Pace;
pub(crate) use served::Served;
pub use turns::Group;
use turns::Turns;

/// How often interactive requests may go before a waiting batch request, and smaller requests before one
/// that is first but finds no room.
pub const PASSED_OVER: u32 = 8;
/// How often an owner's oldest request of a class may be overtaken by later ones for any reason. Large: the
/// service that owners got is what counts, and many small requests are as much as a large one.
pub const OVERTAKEN: u32 = 256;
/// How often a request at work may be sent back to the queue for the sake of others.
pub const SENT_BACK: u32 = 3;
/// The shortest piece of a prompt worth a place in a step, in tokens.
pub const PIECE: usize = 16;

/// Limits.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most requests at work: at least one, and no more than a step has tokens.
    pub slots: usize,
    /// Most requests that wait, apart from those that were sent back: at least one.
    pub queue: usize,
    /// Most tokens in a step: at least one.
    pub batch: usize,
    /// Most tokens in a step whose logits are wanted: at least one for each request at work.
    pub rows: usize,
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
    /// With which others it can share a step.
    pub group: Group,
    /// Whether it must run alone.
    pub alone: bool,
    /// Whether the logits of all its tokens are wanted, and not only of the last.
    pub scored: bool,
    /// Tokens of its prompt.
    pub prompt: usize,
    /// Most tokens of its answer.
    pub answer: usize,
}

/// A place in the queue.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Place {
    /// Requests that also wait and go before this one, as things stand.
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
    /// Its number in the order of arrival. The queue is sorted by it.
    arrival: u64,
    /// How often later ones were let in while it was the oldest of its line.
    overtaken: u32,
    /// How often others were let in although it was first in order.
    refused: u32,
    sent_back: u32,
}

#[derive(Debug)]
struct Running {
    job: Job,
    arrival: u64,
    /// Known tokens that are not computed yet. One: it decodes. None: its next token is not chosen yet.
    remaining: usize,
    /// Tokens of the answer that were computed, since it was let in.
    answered: usize,
    /// What is known of its prompt is on its way: it computes nothing.
    fetches: bool,
    sent_back: u32,
}

/// Requests that wait and requests at work.
#[derive(Debug)]
pub struct Scheduler {
    limits: Limits,
    waiting: Vec<Waiting>,
    running: Vec<Running>,
    served: Served,
    arrivals: u64,
    /// Interactive requests let in while a batch request waited, since one was let in.
    passed_over: u32,
    /// Tokens of an answer, on average.
    answer: Option<f64>,
    pace: Pace,
    turns: Turns,
}

impl Scheduler {
    /// Nothing waits, nothing runs.
    pub fn new(limits: Limits) -> Self {
        let batch = limits.batch.max(1);
        // More slots than tokens in a step: some answer would get none.
        let slots = limits.slots.clamp(1, batch);
        let (queue, rows) = (limits.queue.max(1), limits.rows.max(slots));
        Self {
            limits: Limits { slots, batch, rows, queue, step: limits.step },
            waiting: Vec::new(),
            running: Vec::new(),
            served: Served::default(),
            arrivals: 0,
            passed_over: 0,
            answer: None,
            pace: Pace::default(),
            turns: Turns::default(),
        }
    }

    /// Puts a request into the queue. One whose id is known already is not taken twice.
    ///
    /// # Errors
    /// The queue is full.
    pub fn submit(&mut self, job: Job) -> Result<Place, QueueFull> {
        if let Some(place) = self.place(job.id) {
            return Ok(place);
        }
        if self.running.iter().any(|r| r.job.id == job.id) {
            return Ok(Place { position: 0, wait: Some(0.0) });
        }
        if let Some(full) = self.full() {
            return Err(full);
        }
        let length = self.waiting.len();
        let present: HashSet<Owner> = self.owners().cloned().collect();
        self.served.welcome(&job.owner, &present);
        let id = job.id;
        let arrival = self.arrivals;
        self.arrivals += 1;
        self.waiting.push(Waiting { job, arrival, overtaken: 0, refused: 0, sent_back: 0 });
        Ok(self.place(id).unwrap_or(Place { position: length, wait: None }))
    }

    fn owners(&self) -> impl Iterator<Item = &Owner> {
        let running = self.running.iter().map(|r| &r.job.owner);
        running.chain(self.waiting.iter().map(|w| &w.job.owner))
    }

    /// Where a request stands in the queue, in the order in which they would be let in now.
    pub fn place(&self, id: RequestId) -> Option<Place> {
        let order = self.order();
        let position = order.iter().position(|w| w.job.id == id)?;
        Some(Place { position, wait: self.wait_in(&order, position) })
    }

    /// Requests that wait, in the order in which they should be let in now; none where one runs alone.
    ///
    /// `waits`: would rather go on waiting, for what another at work reads. Those are left out, and hold up nobody.
    ///
    /// The caller lets in the first for which there is room, by [`admit`](Self::admit), and asks again.
    pub fn candidates(&self, waits: impl Fn(RequestId) -> bool) -> Vec<RequestId> {
        if self.is_closed() {
            return Vec::new();
        }
        self.open(&self.ready(waits)).iter().map(|w| w.job.id).collect()
    }

    /// Whether nobody is let in now, whoever waits.
    fn is_closed(&self) -> bool {
        self.running.len() >= self.limits.slots || self.running.iter().any(|r| r.job.alone)
    }

    /// Those in order that want to be let in.
    fn ready(&self, waits: impl Fn(RequestId) -> bool) -> Vec<&Waiting> {
        let mut order = self.order();
        order.retain(|waiting| !waits(waiting.job.id));
        order
    }

    /// Those of the queue, which is in order, that may be let in now.
    fn open<'o, 'w>(&self, order: &'o [&'w Waiting]) -> &'o [&'w Waiting] {
        if self.is_closed() {
            return &[];
        }
        let idle = self.running.is_empty();
        // One that runs alone waits for the others to end, and nobody overtakes it meanwhile.
        let order = match order.iter().position(|w| w.job.alone) {
            Some(0) if idle => &order[..1],
            Some(at) => &order[..at],
            None => order,
        };
        // Likewise one that found no room too often. Where nothing runs, no room will come: the others go.
        match order.iter().position(|w| w.overtaken >= OVERTAKEN || w.refused >= PASSED_OVER) {
            Some(at) if !idle => &order[..=at],
            _ => order,
        }
    }

    /// The queue in the order in which requests should be let in.
    fn order(&self) -> Vec<&Waiting> {
        let mut levels: HashMap<&Owner, f64> = HashMap::new();
        for waiting in &self.waiting {
            let owner = &waiting.job.owner;
            levels.entry(owner).or_insert_with(|| self.level(owner));
        }
        let batch_first = self.batch_is_due();
        let key = |w: &Waiting| {
            if w.overtaken >= OVERTAKEN {
                return (0, 0.0);
            }
            let later = (w.job.class == Class::Batch) != batch_first;
            (1 + u8::from(later), levels.get(&w.job.owner).copied().unwrap_or(0.0))
        };
        let mut order: Vec<(u8, f64, &Waiting)> = self
            .waiting
            .iter()
            .map(|w| {
                let (rank, level) = key(w);
                (rank, level, w)
            })
            .collect();
        // Stable: first come, first served among equals.
        order.sort_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
        order.into_iter().map(|(_, _, waiting)| waiting).collect()
    }

    /// Service that an owner got or that is promised already: or free slots would all go to one.
    fn level(&self, owner: &Owner) -> f64 {
        let running = self.running.iter().filter(|r| r.job.owner == *owner);
        let promised: f64 = running.map(|r| as_f64(r.remaining.max(1))).sum();
        self.served.of(owner) + promised
    }

    /// Whether it is a batch request's turn. Not while one is at work: then they do not starve.
    fn batch_is_due(&self) -> bool {
        self.passed_over >= PASSED_OVER && !self.running.iter().any(|r| r.job.class == Class::Batch)
    }

    /// Lets a waiting request in; `remaining` of its tokens must be computed, at least one. `false`: it is
    /// not among the [`candidates`](Self::candidates). Who would rather wait is not counted as passed over.
    pub fn admit(
        &mut self,
        id: RequestId,
        remaining: usize,
        waits: impl Fn(RequestId) -> bool,
    ) -> bool {
        let order = self.ready(&waits);
        if !self.open(&order).iter().any(|w| w.job.id == id) {
            return false;
        }
        let first = order.first().map(|w| w.job.id);
        let Some(at) = self.waiting.iter().position(|w| w.job.id == id) else { return false };
        let lines = self.line_heads(at, waits);
        for head in lines {
            self.waiting[head].overtaken += 1;
        }
        if let Some(first) =
            self.waiting.iter_mut().find(|w| Some(w.job.id) == first && w.job.id != id)
        {
            first.refused += 1;
        }
        let Waiting { job, arrival, sent_back, .. } = self.waiting.remove(at);
        self.passed_over = match job.class {
            Class::Interactive if self.batch_waits() => self.passed_over.saturating_add(1),
            Class::Interactive | Class::Batch => 0,
        };
        let remaining = remaining.max(1);
        self.turns.welcome(job.group, &self.groups(|r| !r.fetches));
        let running = Running { job, arrival, remaining, answered: 0, fetches: false, sent_back };
        self.running.push(running);
        true
    }

    /// A request at work waits for what is being fetched of its prompt: it is in no step until
    /// [`fetched`](Self::fetched).
    pub fn fetch(&mut self, id: RequestId) {
        if let Some(running) = self.running.iter_mut().find(|r| r.job.id == id) {
            running.fetches = true;
        }
    }

    /// What there was to be fetched came, or will not; `remaining` of its tokens must be computed, at least one.
    /// Nothing where it does not wait for that.
    pub fn fetched(&mut self, id: RequestId, remaining: usize) {
        let present = self.groups(|r| !r.fetches);
        let waits = |r: &&mut Running| r.job.id == id && r.fetches;
        let Some(running) = self.running.iter_mut().find(waits) else { return };
        (running.fetches, running.remaining) = (false, remaining.max(1));
        // It was away until now.
        self.turns.welcome(running.job.group, &present);
    }

    /// The oldest of each owner and class of those before `end` in the queue that want to be let in. Only the oldest
    /// are overtaken: or all of a flood of one owner's would soon be overdue together.
    fn line_heads(&self, end: usize, waits: impl Fn(RequestId) -> bool) -> Vec<usize> {
        let mut seen = HashSet::new();
        let before = self.waiting[..end].iter().enumerate().filter(|(_, w)| !waits(w.job.id));
        before.filter(|(_, w)| seen.insert((&w.job.owner, w.job.class))).map(|(at, _)| at).collect()
    }

    fn batch_waits(&self) -> bool {
        self.waiting.iter().any(|w| w.job.class == Class::Batch)
    }

    /// The request at work that should give its slot to one that waits where all slots are taken: a batch
    /// request, the last that came, where an interactive one is next. `cannot`: would not take the slot now.
    pub fn gives_way(&self, cannot: impl Fn(RequestId) -> bool) -> Option<RequestId> {
        if self.running.len() < self.limits.slots {
            return None;
        }
        self.gives_room(cannot)
    }

    /// The request at work that should give its cells where the first of the
    /// [`candidates`](Self::candidates) finds no room: a batch request, the last that came, where an
    /// interactive one is next.
    pub fn gives_room(&self, cannot: impl Fn(RequestId) -> bool) -> Option<RequestId> {
        // Only if that one really is next: the slot must not go back to a batch request.
        let order = self.order();
        let next = order.iter().find(|waiting| !cannot(waiting.job.id))?;
        if next.job.class != Class::Interactive || next.job.alone {
            return None;
        }
        let mut running = self.running.iter().rev();
        running
            .find(|r| r.job.class == Class::Batch && r.sent_back < SENT_BACK && !r.job.alone)
            .map(|r| r.job.id)
    }

    /// The request at work to send back when the KV cache is full: batch before interactive, the last that
    /// came first. Never the only one.
    ///
    /// One that was sent back [`SENT_BACK`] times stays, and among such the older: so of requests that
    /// never fit together one gets through.
    pub fn sheds(&self) -> Option<RequestId> {
        if self.running.len() < 2 {
            return None;
        }
        let spared = |r: &Running| r.sent_back >= SENT_BACK;
        let last = |class| self.running.iter().rev().find(|r| r.job.class == class && !spared(r));
        last(Class::Batch)
            .or_else(|| last(Class::Interactive))
            .or_else(|| self.running.iter().max_by_key(|r| r.arrival))
            .map(|r| r.job.id)
    }

    /// Sends a request at work back to its place in the queue, which may grow beyond its limit by those at
    /// work. `tokens` are now known of it.
    pub fn send_back(&mut self, id: RequestId, tokens: usize) {
        let Some(at) = self.running.iter().position(|r| r.job.id == id) else { return };
        let Running { mut job, arrival, sent_back, .. } = self.running.remove(at);
        job.answer = job.answer.saturating_sub(tokens.saturating_sub(job.prompt));
        job.prompt = tokens;
        let sent_back = sent_back.saturating_add(1);
        let at = self.waiting.partition_point(|w| w.arrival < arrival);
        // It had its turn: it is not overdue any more.
        self.waiting.insert(at, Waiting { job, arrival, overtaken: 0, refused: 0, sent_back });
    }

    /// Forgets a request, wherever it is.
    pub fn remove(&mut self, id: RequestId) {
        self.waiting.retain(|w| w.job.id != id);
        if !self.batch_waits() {
            self.passed_over = 0;
        }
        let Some(at) = self.running.iter().position(|r| r.job.id == id) else { return };
        let Running { answered, .. } = self.running.remove(at);
        if answered > 0 {
            let answered = as_f64(answered);
            self.answer = Some(self.answer.map_or(answered, |old| old + 0.1 * (answered - old)));
        }
    }

    /// Sets how many known tokens of a request at work are not computed.
    pub fn set_remaining(&mut self, id: RequestId, remaining: usize) {
        if let Some(running) = self.running.iter_mut().find(|r| r.job.id == id) {
            running.remaining = remaining;
        }
    }

    /// Takes note of a step that was computed: for each request, how many tokens it got.
    pub fn stepped(&mut self, shares: &[Share], seconds: f64) {
        let known = |share: &&Share| self.running.iter().find(|r| r.job.id == share.id);
        let Some(group) = shares.iter().find_map(|share| known(&share)).map(|r| r.job.group) else {
            return;
        };
        let (answers, prompts): (Vec<&Share>, Vec<&Share>) = shares.iter().partition(|s| s.decodes);
        let pieces = prompts.iter().filter_map(|share| Some(known(share)?.reading(share.tokens)));
        let prompt = pieces.fold(Reading::default(), Reading::and);
        // Once as usual, and once with another set of adapters to be put in place.
        let usual = self.pace.seconds(answers.len(), prompt);
        let changes = self.turns.is_a_change(group);
        if changes {
            usual.into_iter().for_each(|usual| self.turns.changed(seconds - usual));
        }
        if !changes || usual.is_some_and(|usual| seconds <= usual) {
            self.pace.note(answers.len(), prompt, seconds);
        }
        // Nobody's clock runs while adapters are put in place: it is no group's doing.
        let took = (usual.filter(|_| changes).unwrap_or(seconds), self.worth(group));
        self.turns.computed(group, took, &self.groups(|r| !r.fetches));
        for share in shares {
            let Some(running) = self.running.iter_mut().find(|r| r.job.id == share.id) else {
                continue;
            };
            running.remaining = running.remaining.saturating_sub(share.tokens);
            // At the end of what is known, a token of the answer is chosen.
            running.answered += usize::from(running.remaining == 0);
            // A decoded token costs about twice a prompt's (Sheng et al.).
            let cost = as_f64(share.tokens) * if share.decodes { 2.0 } else { 1.0 };
            self.served.charge(&running.job.owner, cost);
        }
    }

    /// Says so where no more may wait.
    pub fn full(&self) -> Option<QueueFull> {
        let length = self.waiting.len();
        let too_many = length.checked_sub(self.limits.queue)?;
        Some(QueueFull { length, wait: self.expected_wait(too_many) })
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

#[expect(clippy::cast_precision_loss, reason = "counts of tokens, in estimates")]
fn as_f64(tokens: usize) -> f64 {
    tokens as f64
}

#[cfg(test)]
mod tests;
