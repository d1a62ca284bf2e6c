//! A scripted runner: a KV cache of so many cells, a clock that only steps move, and every promise of the
//! scheduler checked at every step.

use std::collections::{BTreeMap, HashSet};

use super::super::plan::whole_rows;
use super::super::*;

/// xorshift64*: a schedule is its seed.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// A number from `low` to `high`.
    pub(super) fn within(&mut self, low: usize, high: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let bits = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33;
        low + usize::try_from(bits).unwrap() % (high - low + 1)
    }

    pub(super) fn one_in(&mut self, n: usize) -> bool {
        self.within(1, n) == 1
    }
}

/// A request as the runner knows it.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) job: Job,
    /// Tokens of the answer after which it ends.
    target: usize,
    pub(super) answers: usize,
    /// Tokens known and tokens in the cache.
    known: usize,
    cached: usize,
    /// Tokens computed, and tokens that were dropped from the cache since.
    computed: usize,
    lost: usize,
    /// Tokens that were fetched and not computed.
    fetched: usize,
    running: bool,
    /// While the beginning of its prompt is being fetched, how many pieces of it may still come.
    fetches: Option<usize>,
    /// Whose prompt begins like its own: it waits while that one is read.
    follows: Option<u64>,
    pub(super) submitted: f64,
    pub(super) forecast: Option<f64>,
    pub(super) admitted: Option<f64>,
    pub(super) first_token: Option<f64>,
    /// Later ones let in before it was, and how many that may be.
    pub(super) overtaken: usize,
    may_be_overtaken: usize,
}

impl Live {
    /// Whether it may be in a step.
    fn computes(&self) -> bool {
        self.running && self.fetches.is_none()
    }
}

pub(super) struct Runner {
    pub(super) scheduler: Scheduler,
    pub(super) limits: Limits,
    pub(super) cells: usize,
    /// Refuses one of so many that there would be room for.
    pub(super) moody: usize,
    /// Fetches of one in so many prompts what is known, piece by piece, with steps of others between.
    pub(super) fetches: usize,
    /// How many pieces came, and steps that others computed meanwhile.
    pub(super) pieces: (usize, usize),
    /// Makes room for an interactive request by sending batch requests back.
    pub(super) makes_room: bool,
    pub(super) random: Random,
    pub(super) live: BTreeMap<u64, Live>,
    pub(super) done: Vec<Live>,
    pub(super) now: f64,
    pub(super) admissions: Vec<u64>,
    pub(super) sent_back: usize,
    /// Service by owner: a prompt's token is 1, an answer's 2.
    pub(super) service: BTreeMap<String, f64>,
    /// The largest step, in seconds.
    pub(super) longest: f64,
    /// Since when each group that has something to compute has waited for its turn.
    waits: BTreeMap<Group, f64>,
    /// What it costs to change groups, in seconds.
    pub(super) change: f64,
    /// Groups that computed, in order.
    pub(super) turns: Vec<Group>,
}

pub(super) const TOKEN: f64 = 0.003;

/// Seconds of a step.
fn seconds(answers: usize, prompt: usize) -> f64 {
    let decode = if answers > 0 { 0.010 + 0.002 * as_f64(answers) } else { 0.0 };
    decode + as_f64(prompt) * TOKEN
}

impl Runner {
    pub(super) fn new(limits: Limits, cells: usize, seed: u64) -> Self {
        Self {
            scheduler: Scheduler::new(limits),
            limits,
            cells,
            moody: usize::MAX - 1,
            fetches: usize::MAX - 1,
            pieces: (0, 0),
            makes_room: false,
            random: Random::new(seed),
            live: BTreeMap::new(),
            done: Vec::new(),
            now: 0.0,
            admissions: Vec::new(),
            sent_back: 0,
            service: BTreeMap::new(),
            longest: 0.0,
            waits: BTreeMap::new(),
            change: 0.0,
            turns: Vec::new(),
        }
    }

    /// Whether it was taken. Refused exactly where the queue is full.
    pub(super) fn submit(&mut self, job: Job, target: usize) -> bool {
        let waiting = self.live.values().filter(|l| !l.running).count();
        let full = waiting >= self.limits.queue;
        let line = |l: &&Live| {
            l.admitted.is_none() && l.job.owner == job.owner && l.job.class == job.class
        };
        let ahead = self.live.values().filter(line).count();
        match self.scheduler.submit(job.clone()) {
            Err(refused) => {
                assert!(full);
                assert_eq!(refused.length, waiting);
                false
            }
            Ok(place) => {
                assert!(!full);
                assert!(place.position <= waiting);
                let live = Live {
                    target,
                    answers: 0,
                    known: job.prompt,
                    cached: 0,
                    computed: 0,
                    lost: 0,
                    fetched: 0,
                    running: false,
                    fetches: None,
                    follows: None,
                    submitted: self.now,
                    forecast: place.wait,
                    admitted: None,
                    first_token: None,
                    overtaken: 0,
                    may_be_overtaken: (ahead + 1) * OVERTAKEN as usize,
                    job,
                };
                assert!(self.live.insert(live.job.id.0, live).is_none());
                true
            }
        }
    }

    /// The prompt of `id` begins like that of `other`.
    pub(super) fn follows(&mut self, id: u64, other: u64) {
        self.live.get_mut(&id).unwrap().follows = Some(other);
    }

    /// Whether a request would rather wait until another's prompt is read.
    fn waits(&self, id: RequestId) -> bool {
        let Some(live) = self.live.get(&id.0) else { return false };
        let other = live.follows.and_then(|other| self.live.get(&other));
        other.is_some_and(|other| {
            let before = other.job.class == Class::Interactive || live.job.class == Class::Batch;
            other.running && before && !live.job.alone && other.known - other.cached > 1
        })
    }

    pub(super) fn cancel(&mut self, id: u64) {
        self.scheduler.remove(RequestId(id));
        self.live.remove(&id);
        self.agrees();
    }

    /// The scheduler and the runner know of the same requests.
    fn agrees(&self) {
        let at_work: HashSet<u64> = self.scheduler.running().map(|id| id.0).collect();
        let known: HashSet<u64> =
            self.live.iter().filter(|(_, l)| l.running).map(|(id, _)| *id).collect();
        assert_eq!(at_work, known);
        assert!(at_work.len() <= self.limits.slots);
        assert_eq!(self.scheduler.waiting(), self.live.len() - known.len());
        let alone = self.live.values().any(|l| l.running && l.job.alone);
        assert!(!alone || known.len() == 1, "alone among {}", known.len());
    }

    /// Lets in whom there is room for.
    pub(super) fn admit(&mut self) {
        let mut rounds = 0;
        loop {
            rounds += 1;
            let most = (self.limits.slots + 1) * (SENT_BACK as usize + 2) + self.live.len();
            assert!(rounds <= most, "{rounds} rounds without a step");
            if self.admit_one() {
                continue;
            }
            let waits = |id| self.waits(id);
            let mut gives_way = self.scheduler.gives_way(waits);
            if self.makes_room && !self.scheduler.candidates(waits).is_empty() {
                gives_way = gives_way.or_else(|| self.scheduler.gives_room(waits));
            }
            let Some(id) = gives_way else { break };
            let full = self.scheduler.gives_way(waits).is_some();
            assert_eq!(self.live[&id.0].job.class, Class::Batch);
            self.send_back(id);
            if full {
                let place = |l: &&Live| self.scheduler.place(l.job.id).map(|place| place.position);
                let ready = self.live.values().filter(|l| !l.running && !self.waits(l.job.id));
                let next = ready.min_by_key(place).unwrap();
                let class = next.job.class;
                assert_eq!(class, Class::Interactive, "the slot goes to whom it was freed for");
            }
        }
        self.agrees();
    }

    fn admit_one(&mut self) -> bool {
        let waits: HashSet<RequestId> =
            self.live.keys().map(|id| RequestId(*id)).filter(|id| self.waits(*id)).collect();
        let waits = |id| waits.contains(&id);
        for id in self.scheduler.candidates(waits) {
            assert!(!waits(id));
            let used: usize = self.live.values().filter(|l| l.running).map(|l| l.known).sum();
            let idle = used == 0;
            let moody = self.moody < usize::MAX - 1 && !idle && self.random.one_in(self.moody);
            let live = &self.live[&id.0];
            if used + live.known + 1 > self.cells || moody {
                continue;
            }
            let cached = live.cached.min(live.known - 1);
            assert!(self.scheduler.admit(id, live.known - cached, waits));
            assert!(!self.scheduler.admit(id, 1, waits), "it does not wait any more");
            self.admitted(id.0, cached, waits);
            return true;
        }
        false
    }

    fn admitted(&mut self, id: u64, cached: usize, waits: impl Fn(RequestId) -> bool) {
        self.admissions.push(id);
        for (older, live) in self.live.range_mut(..id) {
            if live.admitted.is_none() && !waits(live.job.id) {
                live.overtaken += 1;
                assert!(live.overtaken <= live.may_be_overtaken, "{older} starves");
            }
        }
        let now = self.now;
        let live = self.live.get_mut(&id).unwrap();
        live.lost += live.cached - cached;
        live.cached = cached;
        live.running = true;
        live.admitted.get_or_insert(now);
        let rest = live.known - 1 - live.cached;
        let may = self.fetches < usize::MAX - 1 && !live.job.alone && rest > 0;
        if may && self.random.one_in(self.fetches) {
            live.fetches = Some(self.random.within(0, 4));
            self.scheduler.fetch(RequestId(id));
        }
    }

    /// For each that fetches a piece comes, or nothing, or the end.
    fn bring(&mut self) {
        let ids: Vec<u64> =
            self.live.iter().filter(|(_, l)| l.fetches.is_some()).map(|(id, _)| *id).collect();
        for id in ids {
            let used: usize = self.live.values().filter(|l| l.running).map(|l| l.cached).sum();
            let room = self.cells.saturating_sub(used);
            let live = self.live.get_mut(&id).unwrap();
            let left = live.fetches.unwrap();
            if left > 0 && self.random.one_in(3) {
                continue;
            }
            let most = (live.known - 1 - live.cached).min(room);
            if left == 0 || most == 0 {
                live.fetches = None;
                let remaining = live.known - live.cached;
                self.scheduler.fetched(RequestId(id), remaining);
                // Once is enough.
                self.scheduler.fetched(RequestId(id), 1);
                continue;
            }
            let piece = self.random.within(1, most);
            live.cached += piece;
            live.fetched += piece;
            live.fetches = Some(left - 1);
            self.pieces.0 += 1;
        }
    }

    fn send_back(&mut self, id: RequestId) {
        self.sent_back += 1;
        let live = self.live.get_mut(&id.0).unwrap();
        assert!(live.running);
        live.running = false;
        live.fetches = None;
        // Some of its cells are dropped.
        let kept = self.random.within(0, live.cached);
        live.lost += live.cached - kept;
        live.cached = kept;
        let (known, line) = (live.known, (live.job.owner.clone(), live.job.class));
        self.scheduler.send_back(id, known);
        // One of its line waits again: those behind it may be overtaken as often again.
        for (_, younger) in self.live.range_mut(id.0..) {
            if (&younger.job.owner, younger.job.class) == (&line.0, line.1) {
                younger.may_be_overtaken += OVERTAKEN as usize;
            }
        }
        self.agrees();
    }

    /// Computes a step; `false` where nothing is at work.
    pub(super) fn step(&mut self) -> bool {
        self.admit();
        self.bring();
        let mut plan = self.scheduler.plan();
        let mut sheds = 0;
        loop {
            let used: usize = self.live.values().filter(|l| l.running).map(|l| l.cached).sum();
            let needed: usize = plan.iter().map(|s| s.tokens).sum();
            if used + needed <= self.cells {
                break;
            }
            let id = self.scheduler.sheds().expect("one alone always fits");
            self.send_back(id);
            sheds += 1;
            assert!(sheds < self.limits.slots);
            plan = self.scheduler.plan();
        }
        let fetch = self.live.values().filter(|l| l.fetches.is_some()).count();
        if plan.is_empty() {
            assert_eq!(self.scheduler.running().count(), fetch, "a step without progress");
            return fetch > 0;
        }
        self.pieces.1 += usize::from(fetch > 0);
        self.check(&plan);
        let answers = plan.iter().filter(|s| s.decodes).count();
        let prompt = plan.iter().filter(|s| !s.decodes).map(|s| s.tokens).sum();
        let group = self.live[&plan[0].id.0].job.group;
        let changes = self.turns.last().is_some_and(|last| *last != group);
        let took = seconds(answers, prompt) + if changes { self.change } else { 0.0 };
        self.now += took;
        self.longest = self.longest.max(took);
        self.scheduler.stepped(&plan, took);
        self.turn(group);
        plan.iter().for_each(|share| self.computed(share));
        self.agrees();
        true
    }

    /// A group computed: it, and nobody too long ago.
    fn turn(&mut self, group: Group) {
        self.turns.push(group);
        let ready: HashSet<Group> =
            self.live.values().filter(|l| l.computes()).map(|l| l.job.group).collect();
        self.waits.retain(|waits, _| *waits != group && ready.contains(waits));
        // Of three owners with interactive requests each is worth eight of one who has none.
        let most = as_f64(ready.len()) * 24.0 * 2.0 * (self.longest + self.limits.step + 0.1);
        for ready in ready.into_iter().filter(|ready| *ready != group) {
            let since = *self.waits.entry(ready).or_insert(self.now);
            let waited = self.now - since;
            assert!(waited <= most, "{ready:?} waits for {waited} s, more than {most}");
        }
    }

    fn check(&self, plan: &[Share]) {
        let group = self.live[&plan[0].id.0].job.group;
        let same = plan.iter().all(|share| self.live[&share.id.0].job.group == group);
        assert!(same, "two sets of adapters in a step");
        let total: usize = plan.iter().map(|s| s.tokens).sum();
        assert!(total <= self.limits.batch, "{total} tokens");
        let ids: HashSet<u64> = plan.iter().map(|s| s.id.0).collect();
        assert_eq!(ids.len(), plan.len(), "a request twice in a step");
        for share in plan {
            let live = &self.live[&share.id.0];
            assert!(live.computes() && share.tokens > 0);
            assert!(live.cached + share.tokens <= live.known, "more than is known");
            assert_eq!(share.decodes, live.known - live.cached == 1);
        }
        let rows = plan.iter().map(|share| {
            let live = &self.live[&share.id.0];
            let ends = live.cached + share.tokens == live.known;
            if live.job.scored { share.tokens } else { usize::from(ends) }
        });
        let rows: usize = rows.sum();
        assert!(rows <= self.limits.rows.max(self.limits.slots), "{rows} rows of logits");
        for (id, live) in self.live.iter().filter(|(_, l)| l.computes()) {
            let decodes = live.known - live.cached == 1;
            let stands_still = decodes && live.job.group == group && !ids.contains(id);
            assert!(!stands_still, "an answer stands still");
        }
        let answers = plan.iter().filter(|s| s.decodes).count();
        let pace = self.scheduler.pace();
        let at_work: Vec<&Running> = self.scheduler.of(group).collect();
        if answers > 0
            && let Some(budget) = pace.tokens_within(
                self.scheduler.patience(&at_work, answers),
                answers,
                plan::depth(&at_work),
            )
        {
            let most = whole_rows(budget + answers).max(answers + PIECE);
            assert!(total <= most, "{total} rows, {budget} prompt tokens fit");
        }
        // A scored prompt may find no rows of logits.
        let reads = at_work.iter().filter(|r| r.remaining > 1);
        if !reads.clone().any(|r| r.job.scored) {
            let wanted: usize = reads.map(|r| r.remaining).sum();
            let least = PIECE.min(wanted).min(self.limits.batch - answers);
            assert!(total - answers >= least, "{total} rows with {answers} answers of {wanted}");
        }
    }

    fn computed(&mut self, share: &Share) {
        let id = share.id.0;
        let live = self.live.get_mut(&id).unwrap();
        live.cached += share.tokens;
        live.computed += share.tokens;
        let cost = as_f64(share.tokens) * if share.decodes { 2.0 } else { 1.0 };
        *self.service.entry(live.job.owner.0.clone()).or_default() += cost;
        if live.cached < live.known {
            return;
        }
        live.answers += 1;
        live.first_token.get_or_insert(self.now);
        if live.answers < live.target {
            live.known += 1;
            self.scheduler.set_remaining(share.id, 1);
            return;
        }
        // Each token once, but for those that were dropped: the last is chosen and never computed.
        let all = live.job.prompt + live.target - 1 + live.lost;
        assert_eq!(live.computed + live.fetched, all);
        self.scheduler.remove(share.id);
        let live = self.live.remove(&id).unwrap();
        self.done.push(live);
    }

    /// Goes on until nothing is left.
    pub(super) fn finish(&mut self) {
        let mut steps = 0_u32;
        while self.step() {
            steps += 1;
            assert!(steps < 200_000, "it never ends");
        }
        assert_eq!(self.live.len(), 0, "requests are left, and nothing is computed");
        assert_eq!(self.scheduler.waiting(), 0);
    }
}
