//! Decides which texts are read together where each makes a vector or a score of its own.
//!
//! An order brings texts, few or thousands. A batch holds whole texts of any of them, chosen one by one: so nobody
//! waits for the rest of an order, and orders of one text fill a batch together. Sans-I/O: the caller makes the
//! tokens of a text when it is asked how many they are, and computes the batch.
//!
//! Whose text is next: interactive before batch, but at most [`PASSED_OVER`] go before a batch text that waits; among
//! owners the one that got the fewest tokens, as between requests ([`crate::schedule`]); the orders of one owner and
//! class take turns, a text each. A line of such orders that saw [`OVERTAKEN`] texts of others go before is overdue,
//! and goes first, whatever class, owner or size. An order's own texts are taken in their order, each once.

use std::collections::{HashSet, VecDeque};

use tieline_types::{Class, Owner, RequestId};

use crate::schedule::{OVERTAKEN, PASSED_OVER, QueueFull, Served};

/// Limits.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most orders that wait: at least one.
    pub queue: usize,
    /// Most texts in a batch: at least one.
    pub texts: usize,
    /// Most tokens in a batch; a longer text is alone in its own.
    pub tokens: usize,
}

/// An order as the queue knows it.
#[derive(Clone, Debug)]
pub struct Order {
    /// Its id.
    pub id: RequestId,
    /// Who waits.
    pub class: Class,
    /// Whose it is.
    pub owner: Owner,
    /// How many texts it has.
    pub texts: usize,
}

/// A text in a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Text {
    /// Its order.
    pub id: RequestId,
    /// Its number in the order, from 0.
    pub number: usize,
    /// Its tokens.
    pub tokens: usize,
}

#[derive(Debug)]
struct Waiting {
    id: RequestId,
    texts: usize,
    /// Texts that were taken.
    taken: usize,
}

/// The orders of one owner and class; the first gives the next text.
#[derive(Debug)]
struct Line {
    class: Class,
    owner: Owner,
    /// Texts taken of all lines when this one had its last, or came.
    since: u64,
    orders: VecDeque<Waiting>,
}

/// Orders of which texts wait.
#[derive(Debug)]
pub struct Texts {
    limits: Limits,
    lines: Vec<Line>,
    served: Served,
    /// Texts taken so far.
    taken: u64,
    /// Interactive texts taken while a batch text waited, since one was.
    passed_over: u32,
}

impl Texts {
    /// Nothing waits.
    pub fn new(limits: Limits) -> Self {
        let limits = Limits { queue: limits.queue.max(1), texts: limits.texts.max(1), ..limits };
        Self { limits, lines: Vec::new(), served: Served::default(), taken: 0, passed_over: 0 }
    }

    /// Puts an order into the queue. One without texts never waits, and one that is there is not taken twice.
    ///
    /// # Errors
    /// The queue is full.
    pub fn submit(&mut self, order: Order) -> Result<(), QueueFull> {
        let Order { id, class, owner, texts } = order;
        if texts == 0 || self.lines.iter().any(|line| line.orders.iter().any(|one| one.id == id)) {
            return Ok(());
        }
        let length = self.waiting();
        if length >= self.limits.queue {
            return Err(QueueFull { length, wait: None });
        }
        let present: HashSet<Owner> = self.lines.iter().map(|line| line.owner.clone()).collect();
        self.served.welcome(&owner, &present);
        let order = Waiting { id, texts, taken: 0 };
        let own = self.lines.iter_mut().find(|line| line.class == class && line.owner == owner);
        match own {
            Some(line) => line.orders.push_back(order),
            None => {
                let (since, orders) = (self.taken, VecDeque::from([order]));
                self.lines.push(Line { class, owner, since, orders });
            }
        }
        Ok(())
    }

    /// Forgets an order: what is left of it is never taken.
    pub fn remove(&mut self, id: RequestId) {
        for line in &mut self.lines {
            line.orders.retain(|order| order.id != id);
        }
        self.tidy();
    }

    /// How many orders wait.
    pub fn waiting(&self) -> usize {
        self.lines.iter().map(|line| line.orders.len()).sum()
    }

    /// The texts to compute together now; an order leaves with its last. `tokens` is asked for the length of a text
    /// by its order's id and its number, for those of a batch and the one that does not fit any more, which is asked
    /// for again. Where it says `None` the whole order is forgotten, and nothing of it is in the batch.
    pub fn batch(
        &mut self,
        mut tokens: impl FnMut(RequestId, usize) -> Option<usize>,
    ) -> Vec<Text> {
        let mut batch: Vec<Text> = Vec::new();
        let mut sum = 0;
        while batch.len() < self.limits.texts {
            let Some((line, id, number)) = self.next() else { break };
            let Some(tokens) = tokens(id, number) else {
                self.remove(id);
                batch.retain(|text| text.id != id);
                sum = batch.iter().map(|text| text.tokens).sum();
                continue;
            };
            sum += tokens;
            // Nobody else is taken in its place: a long one would wait for ever.
            if sum > self.limits.tokens && !batch.is_empty() {
                break;
            }
            self.take(line, tokens);
            batch.push(Text { id, number, tokens });
        }
        batch
    }

    /// Whose turn it is: its line, its id and the number of its next text.
    fn next(&self) -> Option<(usize, RequestId, usize)> {
        let batch_first = self.passed_over >= PASSED_OVER;
        let key = |line: &Line| {
            if self.taken - line.since >= u64::from(OVERTAKEN) {
                return (0, 0.0);
            }
            let later = (line.class == Class::Batch) != batch_first;
            (1 + u8::from(later), self.served.of(&line.owner))
        };
        let (at, line) = self.lines.iter().enumerate().min_by(|(_, a), (_, b)| {
            let ((rank, served), (other, others)) = (key(a), key(b));
            rank.cmp(&other).then(served.total_cmp(&others)).then(a.since.cmp(&b.since))
        })?;
        let order = line.orders.front()?;
        Some((at, order.id, order.taken))
    }

    /// Takes the next text of a line.
    fn take(&mut self, line: usize, tokens: usize) {
        let batch_waits = self.batch_waits();
        self.taken += 1;
        let line = &mut self.lines[line];
        line.since = self.taken;
        self.passed_over = match line.class {
            Class::Interactive if batch_waits => self.passed_over.saturating_add(1),
            Class::Interactive | Class::Batch => 0,
        };
        self.served.charge(&line.owner, as_f64(tokens.max(1)));
        if let Some(mut order) = line.orders.pop_front() {
            order.taken += 1;
            if order.taken < order.texts {
                line.orders.push_back(order);
            }
        }
        self.tidy();
    }

    fn batch_waits(&self) -> bool {
        self.lines.iter().any(|line| line.class == Class::Batch)
    }

    /// Removes lines in which nobody stands any more.
    fn tidy(&mut self) {
        self.lines.retain(|line| !line.orders.is_empty());
        if !self.batch_waits() {
            self.passed_over = 0;
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of tokens")]
fn as_f64(tokens: usize) -> f64 {
    tokens as f64
}

#[cfg(test)]
mod tests;
