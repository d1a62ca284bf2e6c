//! What the switch remembers: who answered a conversation, how fast each candidate was, and how long answers were.
//! Numbers and names alone. What is learned of candidates can be kept, the conversations are forgotten.

mod recent;
mod speed;

use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tieline_store::profiles::Learned;
use tieline_types::{Digest, Prompt, Request, Role, Tokens};

use crate::carry::Attempt;
use crate::choose::{ANY, OutputForecast, TaskHow};
use crate::quality::Task;
use crate::run::Call;
pub(super) use recent::Recent;
pub(super) use speed::{ENOUGH, Speed};

/// Conversations that are remembered.
const SESSIONS: usize = 4096;
/// Candidates whose speed is remembered.
const SPEEDS: usize = 1024;
/// Kinds of requests whose answers' length is remembered.
const LENGTHS: usize = 1024;
/// Answers below which their length says little of the next.
const FEW_ANSWERS: u32 = 8;
/// What a speed is called where it is kept.
const SPEED: &str = "speed";
/// What a length is called there.
const LENGTH: &str = "length";

/// What is remembered.
#[derive(Debug, Default)]
pub(super) struct Memory {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    talks: HashMap<String, Talk>,
    order: VecDeque<String>,
    speeds: HashMap<String, Speed>,
    lengths: HashMap<String, Length>,
}

/// How long answers of a kind were, in tokens.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
struct Length {
    tokens: Recent,
    #[serde(skip)]
    changed: Option<i64>,
}

/// The last answer of a conversation.
#[derive(Clone, Debug)]
pub(super) struct Talk {
    /// Who gave it.
    pub(super) by: String,
    /// Tokens of its prompt and of it.
    pub(super) tokens: Tokens,
    /// Tokens that whoever gave it had in its cache then, or wrote there.
    pub(super) cached: Tokens,
    /// When it ended.
    pub(super) at: Instant,
    /// Its task, where it was guessed.
    pub(super) task: Option<Task>,
}

/// What a request is like, for the length of its answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Like<'a> {
    /// The key's id.
    pub(super) key: &'a str,
    /// The name that was asked for, where somebody has it.
    pub(super) asked: &'a str,
    /// The task.
    pub(super) task: &'a str,
}

impl<'a> Like<'a> {
    /// A task counts where it is a known one or the policy's: a caller may declare any word.
    pub(super) fn of(key: &'a str, asked: &'a str, (task, how): (&'a str, TaskHow)) -> Self {
        let known = how != TaskHow::Declared || task.parse::<Task>().is_ok();
        Self { key, asked, task: if known { task } else { ANY } }
    }

    /// By what it is remembered: as it is, and without the key and the task.
    fn names(&self) -> [String; 2] {
        let Self { key, asked, task } = self;
        [format!("{key}\t{asked}\t{task}"), format!("*\t{asked}\t*")]
    }
}

/// The conversation that a call belongs to: what its caller calls it, else what it begins with, since clients send
/// all of it each time. Holds no text.
pub(super) fn session_of(call: &Call, request: &Request) -> String {
    let mut hasher = DefaultHasher::new();
    call.key.hash(&mut hasher);
    match (&call.hints.session, &request.prompt) {
        // Vectors and scores belong to no conversation.
        (_, Prompt::Texts(_)) => call.id.hash(&mut hasher),
        (Some(session), _) => session.hash(&mut hasher),
        (None, Prompt::Chat(messages)) => {
            for message in messages {
                message.content.expose().hash(&mut hasher);
                message.pictures.iter().for_each(|picture| picture.url().hash(&mut hasher));
                if message.role == Role::User {
                    break;
                }
            }
        }
        // A text is a conversation of its own.
        (None, _) => call.id.hash(&mut hasher),
    }
    format!("{:016x}", hasher.finish())
}

impl Memory {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last answer of a conversation.
    pub(super) fn previous(&self, session: &str) -> Option<Talk> {
        self.inner().talks.get(session).cloned()
    }

    /// `attempt` answered a conversation.
    pub(super) fn answered(&self, session: &str, attempt: &Attempt, task: Option<Task>) {
        let usage = attempt.usage;
        let sum = |one: Tokens, other: Tokens| Tokens(one.0.saturating_add(other.0));
        let talk = Talk {
            by: attempt.name.clone(),
            tokens: sum(usage.prompt_tokens, usage.completion_tokens),
            cached: sum(usage.cached_tokens, usage.cache_write_tokens),
            at: Instant::now(),
            task,
        };
        let mut inner = self.inner();
        if inner.talks.insert(session.to_owned(), talk).is_none() {
            inner.order.push_back(session.to_owned());
        }
        if inner.order.len() > SESSIONS
            && let Some(oldest) = inner.order.pop_front()
        {
            inner.talks.remove(&oldest);
        }
    }

    /// Learns how fast a candidate is by an answer. `prefill_tps`: what is believed of a vendor's model, which does
    /// not tell.
    pub(super) fn learn(&self, attempt: &Attempt, prefill_tps: Option<f64>, at_unix_ms: i64) {
        let mut inner = self.inner();
        if let Some(speed) = inner.speed(&attempt.name) {
            speed.learn(attempt, prefill_tps);
            speed.at_unix_ms = at_unix_ms;
        }
    }

    /// Learns how long an answer is.
    pub(super) fn wrote(&self, like: Like<'_>, tokens: Tokens, at_unix_ms: i64) {
        let mut inner = self.inner();
        for name in like.names() {
            if inner.lengths.len() < LENGTHS || inner.lengths.contains_key(&name) {
                let length = inner.lengths.entry(name).or_default();
                length.tokens.push(f64::from(tokens.0));
                length.changed = Some(at_unix_ms);
            }
        }
    }

    /// How long answers like this were. Those of the same key and task count first, else those of the same name.
    pub(super) fn length(&self, like: Like<'_>) -> Option<OutputForecast> {
        let inner = self.inner();
        let known = |name: &String| {
            let tokens = &inner.lengths.get(name)?.tokens;
            let at = |hundredths| Some(whole(tokens.quantile(hundredths)?));
            (tokens.count() >= FEW_ANSWERS).then_some(OutputForecast { p50: at(50)?, p90: at(90)? })
        };
        like.names().iter().find_map(known)
    }

    /// Looks at what is known of candidates' speed.
    pub(super) fn speeds(&self) -> Speeds<'_> {
        Speeds { inner: self.inner(), now: Instant::now() }
    }

    /// What was learned since this was asked last.
    pub(super) fn learned(&self) -> Vec<Learned> {
        let mut inner = self.inner();
        let Inner { speeds, lengths, .. } = &mut *inner;
        let speeds = speeds.iter_mut().filter_map(|(name, speed)| {
            std::mem::take(&mut speed.changed).then(|| row(SPEED, name, &*speed, speed.at_unix_ms))
        });
        let lengths = lengths.iter_mut().filter_map(|(name, length)| {
            let at_unix_ms = length.changed.take()?;
            Some(row(LENGTH, name, &*length, at_unix_ms))
        });
        speeds.chain(lengths).collect()
    }

    /// Remembers what was learned before. A row that cannot be read is left out.
    pub(super) fn recall(&self, rows: &[Learned]) {
        let mut inner = self.inner();
        for Learned { kind, name, seen, .. } in rows {
            if kind == SPEED
                && inner.speeds.len() < SPEEDS
                && let Ok(speed) = serde_json::from_str(seen)
            {
                inner.speeds.insert(name.clone(), speed);
            }
            if kind == LENGTH
                && inner.lengths.len() < LENGTHS
                && let Ok(length) = serde_json::from_str(seen)
            {
                inner.lengths.insert(name.clone(), length);
            }
        }
    }
}

fn row(kind: &str, name: &str, seen: &impl Serialize, at_unix_ms: i64) -> Learned {
    // Numbers and texts can always be written.
    let seen = serde_json::to_string(seen).unwrap_or_default();
    Learned { kind: kind.to_owned(), name: name.to_owned(), seen, at_unix_ms }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "in range")]
fn whole(tokens: f64) -> Tokens {
    Tokens(tokens.clamp(0.0, f64::from(u32::MAX)) as u32)
}

impl Inner {
    fn speed(&mut self, name: &str) -> Option<&mut Speed> {
        if self.speeds.len() >= SPEEDS && !self.speeds.contains_key(name) {
            return None;
        }
        if !self.speeds.contains_key(name) {
            self.speeds.insert(name.to_owned(), Speed::default());
        }
        self.speeds.get_mut(name)
    }
}

/// What is known of candidates' speed, while it is looked at.
pub(super) struct Speeds<'m> {
    inner: MutexGuard<'m, Inner>,
    now: Instant,
}

impl Speeds<'_> {
    /// That of a vendor's model.
    pub(super) fn remote(&self, name: &str) -> Option<&Speed> {
        self.inner.speeds.get(name)
    }

    /// That of a model of this machine, which holds this and is in memory by a load that took so long. What is
    /// remembered of another content under its name is forgotten.
    pub(super) fn local(
        &mut self,
        name: &str,
        digest: Digest,
        load: Option<Duration>,
    ) -> Option<&Speed> {
        let now = self.now;
        let speed = self.inner.speed(name)?;
        if speed.digest != Some(digest) {
            *speed = Speed { digest: Some(digest), ..Speed::default() };
        }
        speed.see(load, now);
        Some(speed)
    }
}
