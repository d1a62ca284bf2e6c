//! Circuit breakers: whoever failed often is left alone for a while, and then asked once.
//!
//! Pure: time is an argument. Faults are counted against whose they are: a host, a model of it, or a key; never
//! against anybody where the caller was at fault.

use std::collections::HashMap;
use std::io;
use std::time::{Duration, Instant};

use serde::Serialize;
use tieline_types::{BackendError, ErrorKind, Origin, Retry};

/// Whom a candidate asks, with which key. Names, no secrets.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// The host, as it is configured.
    pub host: String,
    /// The model there.
    pub model: String,
    /// The name of the key that it is asked with; empty: none.
    pub key: String,
    /// Which of the keys of that name, as [`Breakers::forget_keys`] counts them.
    pub turn: u64,
}

/// Whose fault an error is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The host cannot be reached.
    Host,
    /// The model failed there.
    Model,
    /// The key is refused there.
    Key,
    /// This key asked this model too often; ask again after this long, where it is told.
    Limited(Option<Duration>),
}

/// How an admitted attempt went, for the breakers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It answers.
    Success,
    /// It failed.
    Fault(Fault),
    /// It says nothing: cancelled, or the caller's own fault.
    Neutral,
}

/// Whose fault `error` is; `None`: nobody's here. `accepted` tells whether the backend had taken the request.
pub fn attribute(error: &BackendError, accepted: bool) -> Option<Fault> {
    if error.origin == Origin::Caller {
        return None;
    }
    let upstream = error.origin == Origin::Upstream;
    match error.kind {
        // A queue of ours is full for a moment: whoever comes next may try.
        ErrorKind::Busy => upstream.then_some(Fault::Limited(match error.retry {
            Retry::After(wait) => Some(wait),
            Retry::No | Retry::Elsewhere => None,
        })),
        // Denied by our own guard, it never left.
        ErrorKind::Denied | ErrorKind::OverBudget => upstream.then_some(Fault::Key),
        // A vendor that has something against the account is no fault of the vendor's.
        ErrorKind::Upstream if error.origin == Origin::Here => Some(Fault::Key),
        ErrorKind::InvalidRequest | ErrorKind::ContextExceeded | ErrorKind::Unsupported => None,
        // Who is silent, or says that it was too slow, may be at work: a host is away where nobody connects to it.
        ErrorKind::Timeout | ErrorKind::Unavailable | ErrorKind::Upstream
            if upstream && !accepted && is_connection(error) =>
        {
            Some(Fault::Host)
        }
        _ => Some(Fault::Model),
    }
}

/// Whether the error's cause is a connection that could not be made. One that broke had been made.
pub fn is_connection(error: &BackendError) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    let broke = [BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof];
    let first: &(dyn std::error::Error + 'static) = error;
    std::iter::successors(Some(first), |error| error.source())
        .filter_map(|error| error.downcast_ref::<io::Error>())
        .any(|error| !broke.contains(&error.kind()))
}

/// When circuits open, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct BreakersLimits {
    /// So many faults in a row open a host's or a model's circuit.
    pub faults: u32,
    /// A fault that is older than this is no part of a row: longer than a silent host keeps those waiting who ask one after
    /// the other. What is answered ends a row at once.
    pub window: Duration,
    /// How long a circuit is open at first; each failed probe doubles it.
    pub open: Duration,
    /// The longest that a circuit is open, whatever a vendor says.
    pub longest: Duration,
    /// How long a key that was refused is left alone at first.
    pub key_open: Duration,
    /// A probe that says nothing for so long is given up.
    pub probe: Duration,
    /// The most circuits that are remembered.
    pub most: usize,
}

impl Default for BreakersLimits {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            faults: 5,
            window: seconds(600),
            open: seconds(5),
            longest: seconds(300),
            key_open: seconds(60),
            probe: seconds(120),
            most: 1024,
        }
    }
}

/// What a circuit is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// All of a host.
    Host(String),
    /// A model of a host, with any key.
    Model(String, String),
    /// A key at a host, with any model.
    Key(String, String),
    /// A model of a host with a key: its rate limit.
    Limit(String, String, String),
}

impl Scope {
    fn all(key: &Key) -> [Self; 4] {
        let Key { host, model, key, turn: _ } = key.clone();
        [
            Self::Host(host.clone()),
            Self::Model(host.clone(), model.clone()),
            Self::Key(host.clone(), key.clone()),
            Self::Limit(host, model, key),
        ]
    }

    /// Why such a circuit is open: a word for programs.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Host(_) => "host_unreachable",
            Self::Model(..) => "model_failing",
            Self::Key(..) => "key_refused",
            Self::Limit(..) => "rate_limited",
        }
    }
}

/// One circuit that has seen faults. A healthy one is not remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Circuit {
    /// Everybody passes; so many faults in a row, the last one then.
    Closed {
        /// Faults in a row.
        faults: u32,
        /// When the last one was.
        last: Instant,
    },
    /// Nobody passes until then.
    Open {
        /// The end of it.
        until: Instant,
        /// How often it opened in a row, from 1.
        times: u32,
    },
    /// One attempt passes, to see.
    HalfOpen {
        /// Since when the probe is under way; `None`: it is still to come.
        probe: Option<Instant>,
        /// How often it opened before.
        times: u32,
    },
}

impl Circuit {
    /// The state at `now`: an open circuit whose time is over is half open.
    #[must_use]
    pub fn at(self, now: Instant, limits: &BreakersLimits) -> Self {
        match self {
            Self::Open { until, times } if now >= until => Self::HalfOpen { probe: None, times },
            Self::HalfOpen { probe: Some(since), times } if now >= since + limits.probe => {
                Self::HalfOpen { probe: None, times }
            }
            Self::Closed { .. } | Self::Open { .. } | Self::HalfOpen { .. } => self,
        }
    }

    /// Until when nobody passes at `now`; `None`: one may pass.
    pub fn closed_until(self, now: Instant, limits: &BreakersLimits) -> Option<Instant> {
        match self.at(now, limits) {
            Self::Closed { .. } | Self::HalfOpen { probe: None, .. } => None,
            Self::Open { until, .. } => Some(until),
            Self::HalfOpen { probe: Some(since), .. } => Some(since + limits.probe),
        }
    }
}

/// A circuit that lets nobody pass, for status pages and explanations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenCircuit {
    /// What it is for.
    pub scope: Scope,
    /// Until when, at the latest.
    pub until: Instant,
    /// How often it opened in a row.
    pub times: u32,
}

/// All circuits.
#[derive(Debug)]
pub struct Breakers {
    limits: BreakersLimits,
    circuits: HashMap<Scope, Circuit>,
    /// How often the keys were others.
    turn: u64,
}

impl Default for Breakers {
    fn default() -> Self {
        Self::new(BreakersLimits::default())
    }
}

impl Breakers {
    /// No faults so far.
    pub fn new(limits: BreakersLimits) -> Self {
        Self { limits, circuits: HashMap::new(), turn: 0 }
    }

    /// Whether an attempt with `key` would pass at `now`, without taking a probe's place: for plans.
    ///
    /// # Errors
    /// The circuit that stays open the longest.
    pub fn allows(&self, key: &Key, now: Instant) -> Result<(), OpenCircuit> {
        if self.circuits.is_empty() {
            return Ok(());
        }
        let open = Scope::all(key).into_iter().filter_map(|scope| {
            let circuit = self.circuits.get(&scope)?;
            let until = circuit.closed_until(now, &self.limits)?;
            Some(OpenCircuit { scope, until, times: times(*circuit) })
        });
        open.max_by_key(|open| open.until).map_or(Ok(()), Err)
    }

    /// Lets an attempt with `key` pass at `now`; it is the probe of circuits that are half open, and must be
    /// [recorded](Self::record).
    ///
    /// # Errors
    /// As [`allows`](Self::allows).
    pub fn admit(&mut self, key: &Key, now: Instant) -> Result<(), OpenCircuit> {
        self.allows(key, now)?;
        if self.circuits.is_empty() {
            return Ok(());
        }
        for scope in Scope::all(key) {
            if let Some(circuit) = self.circuits.get_mut(&scope)
                && let Circuit::HalfOpen { probe: None, times } = circuit.at(now, &self.limits)
            {
                *circuit = Circuit::HalfOpen { probe: Some(now), times };
            }
        }
        Ok(())
    }

    /// Takes note of how an admitted attempt went.
    pub fn record(&mut self, key: &Key, outcome: Outcome, now: Instant) {
        if self.circuits.is_empty() && !matches!(outcome, Outcome::Fault(_)) {
            return;
        }
        let [host, model, access, limit] = Scope::all(key);
        let is_old = key.turn != self.turn;
        match outcome {
            Outcome::Success => [host, model, access, limit].iter().for_each(|one| self.heal(one)),
            Outcome::Neutral => {
                [host, model, access, limit].iter().for_each(|one| self.release(one));
            }
            Outcome::Fault(Fault::Host) => {
                [model, access, limit].iter().for_each(|one| self.release(one));
                self.fault(host, now, None);
            }
            Outcome::Fault(Fault::Model) => {
                [host, access, limit].iter().for_each(|one| self.release(one));
                self.fault(model, now, None);
            }
            // The host that refuses a key is there.
            Outcome::Fault(Fault::Key) => {
                self.heal(&host);
                [model, limit].iter().for_each(|one| self.release(one));
                if !is_old {
                    self.fault(access, now, Some(self.limits.key_open));
                }
            }
            Outcome::Fault(Fault::Limited(wait)) => {
                [host, access].iter().for_each(|one| self.heal(one));
                self.release(&model);
                self.fault(limit, now, Some(wait.unwrap_or(self.limits.open)));
            }
        }
    }

    /// Keys may be others now: what was held against those before says nothing, and what is still to come of those
    /// neither. The new ones' [turn](Key::turn).
    pub fn forget_keys(&mut self) -> u64 {
        self.circuits.retain(|scope, _| !matches!(scope, Scope::Key(..)));
        self.turn += 1;
        self.turn
    }

    /// The circuits that let nobody pass at `now`, in order.
    pub fn open(&self, now: Instant) -> Vec<OpenCircuit> {
        let open = self.circuits.iter().filter_map(|(scope, circuit)| {
            let until = circuit.closed_until(now, &self.limits)?;
            Some(OpenCircuit { scope: scope.clone(), until, times: times(*circuit) })
        });
        let mut open: Vec<_> = open.collect();
        open.sort_by(|one, other| one.scope.cmp(&other.scope));
        open
    }

    /// How many circuits have seen faults.
    pub fn len(&self) -> usize {
        self.circuits.len()
    }

    /// Whether none has.
    pub fn is_empty(&self) -> bool {
        self.circuits.is_empty()
    }

    /// A success. It does not shorten a time that is still running: a vendor who says when to come back means it,
    /// and an answer that began before says nothing of now.
    fn heal(&mut self, scope: &Scope) {
        if !matches!(self.circuits.get(scope), None | Some(Circuit::Open { .. })) {
            self.circuits.remove(scope);
        }
    }

    fn release(&mut self, scope: &Scope) {
        if let Some(Circuit::HalfOpen { probe, .. }) = self.circuits.get_mut(scope) {
            *probe = None;
        }
    }

    /// A fault; `open` opens the circuit at once, for so long at least.
    fn fault(&mut self, scope: Scope, now: Instant, open: Option<Duration>) {
        let limits = self.limits;
        let before = self.circuits.get(&scope).map(|circuit| circuit.at(now, &limits));
        let until = |times: u32| {
            let doubled = || limits.open * 2u32.saturating_pow(times.min(16) - 1);
            now + open.unwrap_or_else(doubled).min(limits.longest)
        };
        let after = match before {
            // Of an attempt that began before it opened.
            Some(Circuit::Open { until: end, times }) => {
                let asked = open.map_or(end, |open| now + open.min(limits.longest));
                Circuit::Open { until: end.max(asked), times }
            }
            Some(Circuit::HalfOpen { times, .. }) => {
                let times = times.saturating_add(1);
                Circuit::Open { until: until(times), times }
            }
            None | Some(Circuit::Closed { .. }) => {
                let faults = 1 + row(before, now, &limits);
                if open.is_some() || faults >= limits.faults {
                    Circuit::Open { until: until(1), times: 1 }
                } else {
                    Circuit::Closed { faults, last: now }
                }
            }
        };
        self.make_room(&scope, now);
        self.circuits.insert(scope, after);
    }

    /// Forgets the circuit that matters least, where all places are taken: one that lets pass, the one with the
    /// oldest fault first, else the one that would close the soonest.
    fn make_room(&mut self, scope: &Scope, now: Instant) {
        if self.circuits.len() < self.limits.most || self.circuits.contains_key(scope) {
            return;
        }
        let weight = |circuit: &Circuit| match circuit.at(now, &self.limits) {
            Circuit::Closed { last, .. } => (0, last),
            Circuit::HalfOpen { probe, .. } => (1, probe.unwrap_or(now)),
            Circuit::Open { until, .. } => (2, until),
        };
        let least = self.circuits.iter().min_by_key(|(_, circuit)| weight(circuit));
        if let Some(least) = least.map(|(scope, _)| scope.clone()) {
            self.circuits.remove(&least);
        }
    }
}

fn row(circuit: Option<Circuit>, now: Instant, limits: &BreakersLimits) -> u32 {
    match circuit {
        Some(Circuit::Closed { faults, last })
            if now.saturating_duration_since(last) <= limits.window =>
        {
            faults
        }
        _ => 0,
    }
}

fn times(circuit: Circuit) -> u32 {
    match circuit {
        Circuit::Closed { .. } => 0,
        Circuit::Open { times, .. } | Circuit::HalfOpen { times, .. } => times,
    }
}

#[cfg(test)]
mod tests;
