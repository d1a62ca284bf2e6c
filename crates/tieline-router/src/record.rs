//! What happened to each request, without a word of it.

mod asked_for;

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tieline_types::{BackendError, Digest, ErrorKind, Origin, Retry, Usage};
use tokio::sync::{broadcast, mpsc};

use crate::carry::Hedged;
use crate::choose::{self, Candidate};
use crate::plan::Decision;
use crate::switch::Tried;

pub use asked_for::AskedFor;
pub(crate) use asked_for::finish_word;

/// Records that are kept in memory.
const KEPT: usize = 1024;

/// How long a request waits until its record has a place.
const PATIENCE: Duration = Duration::from_secs(10);

/// Records that wait for a slow listener.
const HEARD: usize = 256;

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It was answered.
    Answered,
    /// It was refused, or its answer broke off.
    Failed,
    /// Whoever asked left before the end.
    Left,
}

impl Outcome {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Failed => "failed",
            Self::Left => "left",
        }
    }
}

/// One request, from its arrival to its end.
#[derive(Clone, Debug, Serialize)]
pub struct Record {
    /// Tells it apart from all others.
    pub id: String,
    /// When it came, in milliseconds since 1970.
    pub at_unix_ms: u64,
    /// The id of the key that asked; empty: this machine's user.
    pub key: String,
    /// The API that it came by.
    pub dialect: &'static str,
    /// What was asked: `chat`, `completion`, `embeddings`, …
    pub operation: &'static str,
    /// Who answered, and why.
    pub decision: Decision,
    /// All that led to it, where a policy decided.
    pub plan: Option<Arc<choose::Decision>>,
    /// What it was decided on, without a word of the request.
    pub asked: Option<choose::Asked>,
    /// Who was asked, and what became of that, where a policy decided.
    pub tried: Vec<Tried>,
    /// Whether the answer was kept from before, and given again.
    pub cached: bool,
    /// What it had cost the first time, then.
    pub saved_micro_usd: Option<i64>,
    /// Whether a second one was asked beside a first that was slow, or why not; `None`: the first was not slow, or
    /// the policy wants none.
    pub hedge: Option<Hedged>,
    /// What the model's file holds, where it was loaded.
    pub digest: Option<Digest>,
    /// How it ended.
    pub outcome: Outcome,
    /// What the failure was, as a word.
    pub error: Option<String>,
    /// What was used, where it was told.
    pub usage: Option<Usage>,
    /// From arrival to the first token of the answer, in microseconds.
    pub first_token_us: Option<u64>,
    /// From arrival to the end, in microseconds.
    pub total_us: u64,
    /// What was asked for besides the text; as usual where no model was asked to answer.
    #[serde(skip)]
    pub asked_for: AskedFor,
    /// How the answer ended, as a word: `stop`, `length`, `tool_calls`, … `None`: it has no end.
    #[serde(skip)]
    pub finish: Option<&'static str>,
    /// The caller's place in a trace, as W3C's `traceparent` has it.
    #[serde(skip)]
    pub trace_parent: Option<String>,
}

/// A record, and what it was decided among: for whoever writes it down.
#[derive(Clone, Debug)]
pub struct Filed {
    /// What happened.
    pub record: Arc<Record>,
    /// Everybody who could answer, as they were, where a policy decided.
    pub candidates: Option<Arc<Vec<Candidate>>>,
}

/// Where a record goes that has a place of its own.
pub(crate) type Place = mpsc::OwnedPermit<Filed>;

type Candidates = Option<Arc<Vec<Candidate>>>;

fn unwritten() -> BackendError {
    let message = "what is asked cannot be written down: the ledger's disk is too slow or full";
    BackendError::new(ErrorKind::Unavailable, message)
        .of(Origin::Here, Retry::After(PATIENCE))
        .with_hint("free some space on the store's disk, and see the log")
}

/// The latest records, and where all of them go.
pub struct Records {
    latest: Mutex<VecDeque<Arc<Record>>>,
    sink: Option<mpsc::Sender<Filed>>,
    listener: OnceLock<Listener>,
    heard: broadcast::Sender<Arc<Record>>,
    lost: AtomicU64,
}

type Listener = Box<dyn Fn(&Record) + Send + Sync>;

impl fmt::Debug for Records {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Records").field("lost", &self.lost).finish_non_exhaustive()
    }
}

impl Records {
    /// Sends each record to `sink` too, where there is one.
    pub fn new(sink: Option<mpsc::Sender<Filed>>) -> Self {
        Self {
            latest: Mutex::default(),
            sink,
            listener: OnceLock::new(),
            heard: broadcast::channel(HEARD).0,
            lost: AtomicU64::new(0),
        }
    }

    /// Calls `listener` with each record from now on; it must be quick. The first one stays.
    pub fn listen(&self, listener: impl Fn(&Record) + Send + Sync + 'static) {
        let _ = self.listener.set(Box::new(listener));
    }

    /// Each record from now on. Whoever is slow learns how many it missed.
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<Record>> {
        self.heard.subscribe()
    }

    /// A place of a record that must not be lost, since it is of money: waits where the disk is slow, so that what is
    /// asked is never more than what can be written down. `None`: nothing is written down.
    ///
    /// # Errors
    /// None was free in time, or whoever writes is gone.
    pub(crate) async fn place(&self, patience: Duration) -> Result<Option<Place>, BackendError> {
        let Some(sink) = &self.sink else { return Ok(None) };
        match tokio::time::timeout(PATIENCE.min(patience), sink.clone().reserve_owned()).await {
            Ok(Ok(place)) => Ok(Some(place)),
            Ok(Err(_)) | Err(_) => Err(unwritten()),
        }
    }

    /// Without a place of its own it is counted as lost where none is free.
    pub(crate) fn add(&self, record: Record, (candidates, place): (Candidates, Option<Place>)) {
        if let Some(listener) = self.listener.get() {
            listener(&record);
        }
        let record = Arc::new(record);
        // Nobody may listen.
        let _ = self.heard.send(Arc::clone(&record));
        let filed = Filed { record: Arc::clone(&record), candidates };
        match (place, &self.sink) {
            (Some(place), _) => drop(place.send(filed)),
            // What costs nothing does not wait for a slow disk; that a row is missing is counted and shown.
            (None, Some(sink)) if sink.try_send(filed).is_err() => {
                self.lost.fetch_add(1, Ordering::Relaxed);
            }
            (None, _) => {}
        }
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        if latest.len() == KEPT {
            latest.pop_front();
        }
        latest.push_back(record);
    }

    /// So many of the latest, the newest first.
    pub fn latest(&self, most: usize) -> Vec<Arc<Record>> {
        let latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        latest.iter().rev().take(most).cloned().collect()
    }

    /// All of one call that are among the latest, the newest first: several answers to it have one each.
    pub fn of_call(&self, id: &str) -> Vec<Arc<Record>> {
        let latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        latest.iter().rev().filter(|record| record.id == id).cloned().collect()
    }

    /// The latest one of a call.
    pub fn find(&self, id: &str) -> Option<Arc<Record>> {
        let latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        latest.iter().rev().find(|record| record.id == id).cloned()
    }

    /// How many could not be sent on.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::choose::Asked;
    use crate::policy::Policy;

    #[tokio::test(start_paused = true)]
    async fn a_record_of_money_has_its_place_before_the_request_leaves() {
        let (sink, mut written) = mpsc::channel(1);
        let records = Records::new(Some(sink));
        let place = records.place(PATIENCE).await.unwrap();
        assert!(place.is_some());
        let since = tokio::time::Instant::now();
        let error = records.place(PATIENCE).await.unwrap_err();
        assert_eq!((error.kind, error.retry), (ErrorKind::Unavailable, Retry::After(PATIENCE)));
        assert_eq!(since.elapsed(), PATIENCE);
        // Whoever left without a record gives it back; whoever writes makes room.
        drop(place);
        let place = records.place(PATIENCE).await.unwrap().unwrap();
        let waiting = records.place(PATIENCE);
        let filed = crate::replay::tests::filed(&Policy::default(), &Asked::default(), &[]);
        drop(place.send(filed));
        let (waited, read) = tokio::join!(waiting, written.recv());
        assert!(waited.unwrap().is_some() && read.is_some());
        drop(written);
        assert!(records.place(PATIENCE).await.is_err());
        assert!(Records::new(None).place(PATIENCE).await.unwrap().is_none());
    }
}
