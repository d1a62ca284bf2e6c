//! The loop of a model that answers: takes orders, lets requests in, computes steps, says what came.

mod adapters;
mod fetch;
mod guess;
mod step;

use std::collections::{HashMap, HashSet};
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};

use tieline_decode::schedule::{Group, Job, Limits, QueueFull, Scheduler};
use tieline_types::wire::{Failure, FailureKind, FrameError, FromRunner, Reply, Work};
use tieline_types::{
    Bytes, Class, Event, FinishReason, LoadParams, Owner, RequestId, RunnerBuild, Tokens,
};

use crate::answer::{Answer, Costs};
use crate::control::Control;
use crate::crew::Crew;
use crate::drafter::Drafter;
use crate::kv::{Caching, Kv};
use crate::llama::{Model, Settings};
use crate::measure::measure;
use crate::pipe::{Order, Writer};
use crate::preparer::Ready;
use crate::session::{failure, failure_with};

use adapters::Shelf;
use fetch::Fetching;

/// Most requests that wait; the next is refused.
const QUEUE: usize = 256;
/// Most orders taken between two steps.
const ORDERS: usize = 8;
/// Once orders took so long, the next one waits for a step, where there is anybody to compute for: an adapter's file
/// takes its time.
const PAUSE: Duration = Duration::from_millis(5);
/// A request waits for another that reads the same prompt if it saves at least so many tokens.
const WORTH_WAITING: usize = 64;
/// It stands aside for at most so many others meanwhile: then it is in line as they are.
const MOST_ASIDE: u32 = 64;
/// How long the desk waits for an order between two looks at what the writer to disk has done.
const LOOK: Duration = Duration::from_millis(5);

/// What the desk needs to know and to use.
pub(crate) struct Desk<'m> {
    pub(crate) model: &'m Model,
    pub(crate) kv: Kv<'m>,
    pub(crate) settings: Settings,
    pub(crate) params: LoadParams,
    pub(crate) build: RunnerBuild,
    pub(crate) crew: Crew,
    pub(crate) shelf: Shelf<'m>,
    scheduler: Scheduler,
    answers: HashMap<RequestId, Answer>,
    measures: HashMap<RequestId, (Tokens, Tokens)>,
    /// Those at work that wait for what is known of their prompts, in the order in which it comes.
    fetching: Vec<Fetching>,
    /// What guessing costs, as the last answers have learned.
    costs: Costs,
    drafter: Option<Drafter<'m>>,
    /// How many waited when they were told last where they stand.
    waited: usize,
    /// What copies of states took when that was told last.
    told_copies: Bytes,
    /// What was dropped unwritten when that was told last.
    told_unwritten: u64,
}

/// Where the desk's orders come from and its replies go.
#[derive(Clone, Copy)]
pub(crate) struct Line<'l> {
    pub(crate) orders: &'l Receiver<Order>,
    pub(crate) control: &'l Control,
    pub(crate) writer: &'l Writer,
}

impl<'m> Desk<'m> {
    pub(crate) fn new(
        model: &'m Model,
        kv: Kv<'m>,
        crew: Crew,
        params: LoadParams,
        build: RunnerBuild,
    ) -> Self {
        let settings = crew.settings();
        let limits = Limits {
            slots: usize::try_from(params.parallel).unwrap_or(1).max(1),
            queue: QUEUE,
            batch: usize::try_from(settings.ubatch).unwrap_or(1),
            rows: usize::try_from(settings.outputs).unwrap_or(1),
            step: params.step.as_secs_f64(),
        };
        Self {
            model,
            kv,
            settings,
            crew,
            params,
            build,
            shelf: Shelf::default(),
            scheduler: Scheduler::new(limits),
            answers: HashMap::new(),
            measures: HashMap::new(),
            fetching: Vec::new(),
            costs: Costs::default(),
            drafter: None,
            waited: 0,
            told_copies: Bytes(0),
            told_unwritten: 0,
        }
    }

    /// The same desk, with somebody who guesses.
    pub(crate) fn guessing_with(mut self, drafter: Option<Drafter<'m>>) -> Self {
        self.costs.making = drafter.as_ref().map(Drafter::prior);
        self.drafter = drafter;
        self
    }

    /// Serves until the orders end.
    pub(crate) fn serve(mut self, line: Line<'_>) -> Result<(), FrameError> {
        let served = self.work(line);
        // Whoever listened may be gone, and what was computed is worth keeping all the same.
        let told = self.drop_unwanted(line);
        self.kv.close(line.control.closes_at());
        served.and(told)
    }

    /// Tells what copies of states take, where that changed.
    fn tell_copies(&mut self, line: Line<'_>) -> Result<(), FrameError> {
        let copies = Bytes(self.kv.copies() as u64);
        if self.told_copies == copies {
            return Ok(());
        }
        self.told_copies = copies;
        line.writer.send(&FromRunner::Copies(copies))
    }

    /// Tells what was dropped before it could be written, where that changed.
    fn tell_unwritten(&mut self, line: Line<'_>) -> Result<(), FrameError> {
        let unwritten = self.kv.unwritten();
        if self.told_unwritten == unwritten {
            return Ok(());
        }
        self.told_unwritten = unwritten;
        line.writer.send(&FromRunner::Unwritten(unwritten))
    }

    fn work(&mut self, line: Line<'_>) -> Result<(), FrameError> {
        while self.take_orders(line)? {
            // All but waiting for orders is watched.
            let _reading = line.control.read();
            self.drop_unwanted(line)?;
            self.bring(line, Duration::ZERO)?;
            self.let_in(line)?;
            self.tell_copies(line)?;
            self.tell_unwritten(line)?;
            self.step(line)?;
        }
        Ok(())
    }

    fn is_busy(&self) -> bool {
        !self.answers.is_empty() || !self.measures.is_empty()
    }

    /// Takes all orders that have come; waits for one if there is nothing else to do. `false`: none will
    /// come any more.
    fn take_orders(&mut self, line: Line<'_>) -> Result<bool, FrameError> {
        let mut spent = Duration::ZERO;
        for _ in 0..ORDERS {
            if spent > PAUSE && self.scheduler.running().next().is_some() {
                return Ok(true);
            }
            let order = if self.is_busy() {
                match line.orders.try_recv() {
                    Ok(order) => order,
                    Err(TryRecvError::Empty) => return Ok(true),
                    Err(TryRecvError::Disconnected) => return Ok(false),
                }
            } else if self.kv.tidy() {
                match line.orders.recv_timeout(LOOK) {
                    Ok(order) => order,
                    Err(RecvTimeoutError::Timeout) => continue,
                    Err(RecvTimeoutError::Disconnected) => return Ok(false),
                }
            } else {
                match line.orders.recv() {
                    Ok(order) => order,
                    Err(_) => return Ok(false),
                }
            };
            if line.control.is_closing() {
                return Ok(false);
            }
            let _reading = line.control.read();
            let started = Instant::now();
            match order {
                Order::Answer(ready) => {
                    let id = ready.id;
                    if let Err(failure) = self.take_in(*ready) {
                        self.close(line, id, Reply::Failed(failure))?;
                    }
                }
                Order::Work { id, work, .. } => self.order(line, id, &work)?,
                Order::Adapter(arrived) => {
                    let digest = arrived.0;
                    let taken = self.shelf.take_in(self.model, arrived);
                    line.writer.send(&FromRunner::Adapter(digest, taken))?;
                }
                Order::DropAdapter(digest) => self.shelf.remove(digest, self.kv.context()),
                // Once, before this begins; and none are made here.
                Order::Load(_) | Order::Plan(_) | Order::Vectors(_) => {}
            }
            spent += started.elapsed();
        }
        Ok(true)
    }

    fn order(&mut self, line: Line<'_>, id: RequestId, work: &Work) -> Result<(), FrameError> {
        let taken = match *work {
            Work::Measure { prefill, decode } => self.take_measure(id, prefill, decode),
            _ => Err(failure_with(
                FailureKind::Unsupported,
                "the model is loaded for generating text",
                "load it for embeddings",
            )),
        };
        taken.or_else(|failure| self.close(line, id, Reply::Failed(failure)))
    }

    /// Sends the last reply of some work and forgets it.
    fn close(&mut self, line: Line<'_>, id: RequestId, reply: Reply) -> Result<(), FrameError> {
        line.control.end(id);
        self.scheduler.remove(id);
        self.measures.remove(&id);
        if let Some(mut answer) = self.answers.remove(&id) {
            self.release(&mut answer);
        }
        line.writer.last(id, reply)
    }

    /// Queues a request.
    fn take_in(&mut self, ready: Ready) -> Result<(), Failure> {
        let context = usize::try_from(self.settings.context).unwrap_or(0);
        if let Some(full) = self.scheduler.full() {
            return Err(busy(&full));
        }
        let id = ready.id;
        self.shelf.check(&ready.request.adapters)?;
        let mut answer = Answer::new(self.model, ready)?;
        answer.learn_costs(&self.costs);
        let sets = self.answers.values().map(|answer| &answer.request.adapters);
        answer.shares_with(self.shelf.group(&answer.request.adapters, sets));
        self.scheduler.submit(answer.job(context)).map_err(|full| busy(&full))?;
        self.answers.insert(id, answer);
        Ok(())
    }

    fn take_measure(
        &mut self,
        id: RequestId,
        prefill: Tokens,
        decode: Tokens,
    ) -> Result<(), Failure> {
        let tokens = |count: Tokens| usize::try_from(count.0).unwrap_or(usize::MAX);
        let job = Job {
            id,
            class: Class::Interactive,
            owner: Owner::default(),
            group: Group::default(),
            alone: true,
            scored: false,
            prompt: tokens(prefill),
            answer: tokens(decode),
        };
        self.scheduler.submit(job).map_err(|full| busy(&full))?;
        self.measures.insert(id, (prefill, decode));
        Ok(())
    }

    /// Ends what was cancelled or came too late.
    fn drop_unwanted(&mut self, line: Line<'_>) -> Result<(), FrameError> {
        let unwanted: Vec<(RequestId, FinishReason)> = self
            .answers
            .values()
            .filter_map(|answer| {
                let cancelled = line.control.is_cancelled(answer.id);
                let reason = cancelled.then_some(FinishReason::Cancelled);
                Some((answer.id, reason.or(answer.is_late().then_some(FinishReason::Deadline))?))
            })
            .collect();
        for (id, reason) in unwanted {
            self.finish(line, id, reason)?;
        }
        let cancelled = |id: &&RequestId| line.control.is_cancelled(**id);
        let measures: Vec<RequestId> = self.measures.keys().filter(cancelled).copied().collect();
        for id in measures {
            self.close(line, id, Reply::Failed(failure(FailureKind::Busy, "cancelled")))?;
        }
        Ok(())
    }

    /// Ends an answer.
    fn finish(
        &mut self,
        line: Line<'_>,
        id: RequestId,
        reason: FinishReason,
    ) -> Result<(), FrameError> {
        let Some(answer) = self.answers.get_mut(&id) else { return Ok(()) };
        let (events, mut finished) = match answer.finish(reason) {
            Ok(end) => end,
            Err(failure) => return self.close(line, id, Reply::Failed(failure)),
        };
        if let Some(record) = answer.record.take() {
            let mut params = self.params.clone();
            params.context = Some(Tokens(self.settings.context));
            params.kv_tokens = Some(Tokens(self.settings.kv));
            params.threads = Some(self.settings.threads.cast_unsigned());
            params.threads_batch = Some(self.settings.threads_batch.cast_unsigned());
            // It had no part in this answer.
            params.draft = None;
            let receipt = record.receipt(answer, self.build.clone(), params);
            finished.receipt = Some(Box::new(receipt));
        }
        for event in events {
            line.writer.reply(id, Reply::Event(event))?;
        }
        self.close(line, id, Reply::Event(Event::Finished(finished)))
    }

    /// Lets in as many as there is room for, and tells the others where they stand.
    fn let_in(&mut self, line: Line<'_>) -> Result<(), FrameError> {
        loop {
            let let_in = self.let_one_in(line)?;
            // Who waits for what another reads needs no place yet: it would go back to who gave it, and so on.
            let waits = |id| self.should_wait_for_another(id);
            let gives = match let_in {
                LetIn::One => continue,
                LetIn::NoRoom(first) => {
                    let gives = self.scheduler.gives_way(waits);
                    let gives = gives.or_else(|| self.scheduler.gives_room(waits));
                    gives.filter(|id| self.would_help(*id, first))
                }
                LetIn::Nobody => self.scheduler.gives_way(waits),
            };
            match gives {
                Some(id) => self.send_back(id),
                None => break,
            }
        }
        self.tell_places(line)
    }

    /// Whether one at work that gives its cells makes room for one that waits.
    fn would_help(&self, gives: RequestId, waits: RequestId) -> bool {
        let seq = self.answers.get(&gives).and_then(|answer| answer.seq);
        let (Some(seq), Some(answer)) = (seq, self.answers.get(&waits)) else { return false };
        self.kv.would_help(seq, (&answer.partition, &answer.tokens), answer.caching())
    }

    /// Tells those who wait where they stand, when that changed.
    fn tell_places(&mut self, line: Line<'_>) -> Result<(), FrameError> {
        let untold = self.answers.values().any(|answer| answer.told.is_none());
        if self.waited == self.scheduler.waiting() && !untold {
            return Ok(());
        }
        self.waited = self.scheduler.waiting();
        for answer in self.answers.values_mut().filter(|answer| answer.seq.is_none()) {
            let Some(place) = self.scheduler.place(answer.id) else { continue };
            if answer.told.is_none_or(|told| told > place.position) {
                answer.told = Some(place.position);
                let event = Event::Queued {
                    position: u32::try_from(place.position).unwrap_or(u32::MAX),
                    expected_wait: place.wait.and_then(|s| Duration::try_from_secs_f64(s).ok()),
                };
                line.writer.reply(answer.id, Reply::Event(event))?;
            }
        }
        Ok(())
    }

    fn let_one_in(&mut self, line: Line<'_>) -> Result<LetIn, FrameError> {
        let mut result = LetIn::Nobody;
        let waits = self.who_waits_for_another();
        for id in self.scheduler.candidates(|id| waits.contains(&id)) {
            if let Some(&(prefill, decode)) = self.measures.get(&id) {
                self.scheduler.admit(id, 1, |id| waits.contains(&id));
                line.control.begin_step(vec![id]);
                let reply = measure(self, prefill, decode, line.control);
                line.control.end_step();
                self.close(line, id, reply.unwrap_or_else(Reply::Failed))?;
                return Ok(LetIn::One);
            }
            if self.admit(line, id, &waits)? {
                self.stood_aside(&waits);
                return Ok(LetIn::One);
            }
            // Room is made for the first.
            if let LetIn::Nobody = result {
                result = LetIn::NoRoom(id);
            }
        }
        Ok(result)
    }

    fn admit(
        &mut self,
        line: Line<'_>,
        id: RequestId,
        waits: &HashSet<RequestId>,
    ) -> Result<bool, FrameError> {
        let Some(answer) = self.answers.get_mut(&id) else { return Ok(false) };
        let alone = answer.request.deterministic;
        if alone {
            self.kv.drop_cached();
            self.kv.clear();
        }
        let caching = answer.caching();
        let mut start = self.kv.start(&answer.partition, &answer.tokens, caching);
        if start.is_none() && self.scheduler.running().next().is_none() {
            // Nobody else holds anything, so the account and llama.cpp must have parted.
            self.kv.clear();
            start = self.kv.start(&answer.partition, &answer.tokens, Caching::Off);
        }
        let Some(start) = start else { return Ok(false) };
        let remaining = answer.tokens.len() - start.cached;
        if !self.scheduler.admit(id, remaining, |id| waits.contains(&id)) {
            self.kv.rest(start.seq);
            return Ok(false);
        }
        self.fetch_or_begin(line, id, start)?;
        Ok(true)
    }

    /// Those that would rather go on waiting, where anybody could be let in at all.
    fn who_waits_for_another(&self) -> HashSet<RequestId> {
        if self.scheduler.candidates(|_| false).is_empty() {
            return HashSet::new();
        }
        let waiting = self.answers.values().filter(|answer| answer.seq.is_none());
        waiting.map(|answer| answer.id).filter(|id| self.should_wait_for_another(*id)).collect()
    }

    /// Notes that another was let in before them.
    fn stood_aside(&mut self, waits: &HashSet<RequestId>) {
        for id in waits {
            if let Some(answer) = self.answers.get_mut(id) {
                answer.stood_aside += 1;
            }
        }
    }

    /// Whether another request at work is just reading what this one begins with: to wait for it is to
    /// compute it once.
    fn should_wait_for_another(&self, id: RequestId) -> bool {
        let finds =
            |answer: &&Answer| answer.caching() == Caching::Full && answer.stood_aside < MOST_ASIDE;
        let Some(answer) = self.answers.get(&id).filter(finds) else { return false };
        let known = &answer.tokens[..answer.tokens.len() - 1];
        let reads_same = |other: &&Answer| {
            // Nobody waits for somebody who gives way to him.
            let before =
                other.request.class == Class::Interactive || answer.request.class == Class::Batch;
            other.seq.is_some()
                && other.request.cache
                && before
                && other.remaining() > 1
                && other.partition == answer.partition
        };
        let finds =
            |other: &Answer| self.kv.will_find(common(&other.tokens, known), other.stops_ahead());
        let will_find = self.answers.values().filter(reads_same).map(finds).max().unwrap_or(0);
        will_find >= WORTH_WAITING
            && will_find >= self.kv.would_find(&answer.partition, known) + WORTH_WAITING
    }

    /// Takes a request from work back to the queue; what it computed stays cached while there is room.
    fn send_back(&mut self, id: RequestId) {
        let Some(mut answer) = self.answers.remove(&id) else { return };
        self.release(&mut answer);
        answer.computed = 0;
        self.scheduler.send_back(id, answer.tokens.len());
        self.answers.insert(id, answer);
    }

    /// Takes a request's sequences from it. What ran alone leaves nothing, and neither does who wants no cache,
    /// however it ended.
    fn release(&mut self, answer: &mut Answer) {
        self.fetching.retain(|one| one.id != answer.id);
        let kept = answer.request.cache && !answer.request.deterministic;
        match answer.seq.take() {
            Some(seq) if kept => self.kv.rest(seq),
            Some(seq) => self.kv.forget(seq),
            None => {}
        }
        if let Some(drafter) = &mut self.drafter {
            drafter.release(answer.id, kept);
        }
    }
}

/// What came of trying to let somebody in.
enum LetIn {
    One,
    /// Nobody waits, or all who wait must go on waiting.
    Nobody,
    /// This one is first of those that wait for room in the KV cache.
    NoRoom(RequestId),
}

fn common(a: &[i32], b: &[i32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

fn busy(full: &QueueFull) -> Failure {
    let wait = full.wait.and_then(|s| Duration::try_from_secs_f64(s).ok());
    let room = wait.map(|wait| format!("; there may be room in {:.0} s", wait.as_secs_f64()));
    let text = format!("{} requests already wait{}", full.length, room.unwrap_or_default());
    Failure { retry_after: wait, ..failure(FailureKind::Busy, text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_refused_hears_when_there_may_be_room() {
        let told = |wait| {
            let Failure { kind, message, retry_after, .. } = busy(&QueueFull { length: 3, wait });
            assert_eq!(kind, FailureKind::Busy);
            (message, retry_after)
        };
        let text = "3 requests already wait; there may be room in 7 s".to_owned();
        assert_eq!(told(Some(6.9)), (text, Some(Duration::from_millis(6900))));
        assert_eq!(told(None), ("3 requests already wait".to_owned(), None));
        assert_eq!(told(Some(f64::INFINITY)).1, None);
    }
}
