//! What the switch remembers: who answered a conversation, and how fast each candidate was. In memory alone.

use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tieline_types::{Prompt, Request, Role, Source};

use crate::carry::{Attempt, Ended};
use crate::choose::{Figure, Profile};
use crate::run::Call;

/// Conversations that are remembered.
const SESSIONS: usize = 4096;
/// Candidates whose speed is remembered.
const SPEEDS: usize = 1024;
/// Weight of the newest answer in what is thought of a speed.
const NEW: f64 = 0.2;
/// Answers of fewer tokens say little of how fast they are written.
const FEW: u32 = 8;

/// What is remembered.
#[derive(Debug, Default)]
pub(super) struct Memory {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    sessions: HashMap<String, String>,
    order: VecDeque<String>,
    speeds: HashMap<String, Speed>,
}

/// Means with forgetting.
#[derive(Clone, Copy, Debug, Default)]
struct Speed {
    decode_tps: Option<f64>,
    first_token_s: Option<f64>,
}

/// The conversation that a call belongs to: what its caller calls it, else what it begins with, since clients send
/// all of it each time. Holds no text.
pub(super) fn session_of(call: &Call, request: &Request) -> String {
    let mut hasher = DefaultHasher::new();
    call.key.hash(&mut hasher);
    match (&call.hints.session, &request.prompt) {
        (Some(session), _) => session.hash(&mut hasher),
        (None, Prompt::Chat(messages)) => {
            for message in messages {
                message.content.expose().hash(&mut hasher);
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

    /// Who answered a conversation last.
    pub(super) fn previous(&self, session: &str) -> Option<String> {
        self.inner().sessions.get(session).cloned()
    }

    /// `name` answered it.
    pub(super) fn answered(&self, session: &str, name: &str) {
        let mut inner = self.inner();
        if inner.sessions.insert(session.to_owned(), name.to_owned()).is_none() {
            inner.order.push_back(session.to_owned());
        }
        if inner.order.len() > SESSIONS
            && let Some(oldest) = inner.order.pop_front()
        {
            inner.sessions.remove(&oldest);
        }
    }

    /// Learns how fast a candidate is.
    pub(super) fn learn(&self, attempt: &Attempt) {
        let (Ended::Answered, Some(first)) = (attempt.ended, attempt.first_token) else { return };
        let tokens = attempt.usage.completion_tokens.0;
        let rest = attempt.total.saturating_sub(first).as_secs_f64();
        let decode = (tokens >= FEW && rest > 0.0).then(|| f64::from(tokens - 1) / rest);
        let mut inner = self.inner();
        if inner.speeds.len() >= SPEEDS && !inner.speeds.contains_key(&attempt.name) {
            return;
        }
        let speed = inner.speeds.entry(attempt.name.clone()).or_default();
        mix(&mut speed.decode_tps, decode);
        mix(&mut speed.first_token_s, Some(first.as_secs_f64()));
    }

    /// What was measured of a candidate's answers.
    pub(super) fn profile(&self, name: &str) -> Profile {
        let speed = self.inner().speeds.get(name).copied().unwrap_or_default();
        Profile {
            decode_tps: speed.decode_tps.map(measured),
            first_token_s: speed.first_token_s.map(measured),
            ..Profile::default()
        }
    }
}

fn measured(value: f64) -> Figure {
    Figure { value, source: Source::Measured }
}

fn mix(mean: &mut Option<f64>, new: Option<f64>) {
    if let Some(new) = new.filter(|new| new.is_finite()) {
        *mean = Some(mean.map_or(new, |mean| mean + (new - mean) * NEW));
    }
}
