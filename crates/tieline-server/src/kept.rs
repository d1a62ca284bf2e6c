//! Responses that are kept: in memory, for those who asked for them, and gone when the server ends.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tieline_types::{BackendError, ErrorKind, Message, Picture};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Limits;
use crate::error::{ApiError, Fault};

/// All that are kept, and those that are being made in the background.
#[derive(Debug)]
pub(crate) struct Responses {
    kept: Mutex<Kept>,
    places: Arc<Semaphore>,
    tasks: TaskTracker,
    closing: CancellationToken,
}

#[derive(Debug)]
struct Kept {
    all: HashMap<String, Entry>,
    bytes: usize,
    clock: u64,
    most: usize,
    most_bytes: usize,
    /// The most that are made for one key at once.
    most_running: usize,
}

#[derive(Debug)]
struct Entry {
    record: Record,
    /// When it was last asked for.
    used: u64,
    bytes: usize,
    /// It is being made; this ends it.
    running: Option<CancellationToken>,
}

/// What is kept of a response.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    /// The id of the key that asked.
    pub(crate) owner: String,
    pub(crate) response: Value,
    /// The input's items.
    pub(crate) items: Vec<Value>,
    /// The whole conversation, without instructions.
    pub(crate) messages: Vec<Message>,
}

/// What became of the wish to end a response.
pub(crate) enum Cancelled {
    /// It is as it is now: cancelled, or over before.
    Now(Value),
    /// It was not made in the background.
    Never,
    /// There is none.
    Unknown,
}

impl Responses {
    pub(crate) fn new(limits: &Limits) -> Self {
        let kept = Kept {
            all: HashMap::new(),
            bytes: 0,
            clock: 0,
            most: limits.responses,
            most_bytes: usize::try_from(limits.responses_bytes.0).unwrap_or(usize::MAX),
            most_running: limits.background_per_key,
        };
        Self {
            kept: Mutex::new(kept),
            places: Arc::new(Semaphore::new(limits.background)),
            tasks: TaskTracker::new(),
            closing: CancellationToken::new(),
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place in the background.
    ///
    /// # Errors
    /// All are taken.
    pub(crate) fn place(&self) -> Result<OwnedSemaphorePermit, BackendError> {
        Arc::clone(&self.places).try_acquire_owned().map_err(|_| {
            BackendError::new(ErrorKind::Busy, "too many responses are made in the background")
        })
    }

    /// Has a task run until it ends, is cancelled, or the server ends.
    pub(crate) fn spawn(
        &self,
        cancel: CancellationToken,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        let closing = self.closing.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = cancel.cancelled() => {}
                () = closing.cancelled() => {}
                () = task => {}
            }
        });
    }

    /// Ends all tasks and waits for them.
    pub(crate) async fn close(&self) {
        self.closing.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Keeps a response that is over; one that is too long is not kept.
    pub(crate) fn put(&self, id: &str, record: Record) {
        self.kept().put(id, record, None);
    }

    /// Begins one in the background, which `cancel` ends.
    ///
    /// # Errors
    /// It is too long to be kept beside those that are being made, or its key has as many of them as it may.
    pub(crate) fn begin(
        &self,
        id: &str,
        record: Record,
        cancel: CancellationToken,
    ) -> Result<(), ApiError> {
        let mut kept = self.kept();
        let running = kept.all.values().filter(|entry| entry.running.is_some());
        let bytes: usize = running.clone().map(|entry| entry.bytes).sum();
        let owner = &record.owner;
        let of_key = running.filter(|entry| entry.record.owner == *owner).count();
        if !owner.is_empty() && of_key >= kept.most_running {
            let text = format!("this key has {of_key} responses that are made in the background");
            return Err(ApiError::after(Fault::RateLimited, text, Duration::from_secs(1)));
        }
        if bytes + record.bytes() > kept.most_bytes {
            let text =
                "there is no room to keep so long a response, and one in the background is kept";
            return Err(ApiError::new(Fault::TooLarge, text));
        }
        kept.put(id, record, Some(cancel));
        Ok(())
    }

    /// What was made in the background ended otherwise than it should: it failed, unless it is over already.
    pub(crate) fn abandon(&self, id: &str) {
        let mut kept = self.kept();
        if let Some(entry) = kept.all.get_mut(id).filter(|entry| entry.running.is_some()) {
            entry.fail("the response could not be made to its end");
            kept.shrink();
        }
    }

    /// A response of this owner.
    pub(crate) fn find(&self, id: &str, owner: &str) -> Option<Record> {
        let mut kept = self.kept();
        kept.touch(id, owner).map(|entry| entry.record.clone())
    }

    /// An item of a response of this owner: of its answer, or of what was asked. Its id holds the response's.
    pub(crate) fn item(&self, id: &str, owner: &str) -> Option<Value> {
        let (response, _) = id.split_once('_')?.1.rsplit_once('_')?;
        let mut kept = self.kept();
        let record = &kept.touch(&format!("resp_{response}"), owner)?.record;
        let output = record.response["output"].as_array().map_or(&[][..], Vec::as_slice);
        output.iter().chain(&record.items).find(|item| item["id"] == *id).cloned()
    }

    /// Whether it is still being made.
    pub(crate) fn is_running(&self, id: &str) -> bool {
        self.kept().all.get(id).is_some_and(|entry| entry.running.is_some())
    }

    /// What is made in the background got further. One that was cancelled or deleted stays so.
    pub(crate) fn progress(&self, id: &str, response: Value) {
        let mut kept = self.kept();
        if let Some(entry) = kept.all.get_mut(id).filter(|entry| entry.running.is_some()) {
            entry.record.response = response;
        }
    }

    /// What was made in the background is over.
    pub(crate) fn finish(&self, id: &str, response: Value, messages: Vec<Message>) {
        let mut kept = self.kept();
        if kept.all.get(id).is_none_or(|entry| entry.running.is_none()) {
            return;
        }
        let Some(entry) = kept.all.get(id) else { return };
        let items = entry.record.items.clone();
        let record = Record { owner: entry.record.owner.clone(), response, items, messages };
        if record.bytes() > kept.most_bytes {
            if let Some(entry) = kept.all.get_mut(id) {
                entry.fail("the response is too long to be kept");
            }
            return kept.shrink();
        }
        kept.put(id, record, None);
    }

    /// Removes a response of this owner, and ends it where it is being made.
    pub(crate) fn remove(&self, id: &str, owner: &str) -> bool {
        let mut kept = self.kept();
        if kept.touch(id, owner).is_none() {
            return false;
        }
        if let Some(running) = kept.take(id).and_then(|entry| entry.running) {
            running.cancel();
        }
        true
    }

    /// Ends a response of this owner that is made in the background.
    pub(crate) fn cancel(&self, id: &str, owner: &str) -> Cancelled {
        let mut kept = self.kept();
        let Some(entry) = kept.touch(id, owner) else { return Cancelled::Unknown };
        if entry.record.response["background"] != json!(true) {
            return Cancelled::Never;
        }
        if let Some(running) = entry.running.take() {
            running.cancel();
            entry.record.response["status"] = json!("cancelled");
        }
        Cancelled::Now(entry.record.response.clone())
    }
}

impl Kept {
    fn touch(&mut self, id: &str, owner: &str) -> Option<&mut Entry> {
        self.clock += 1;
        let entry = self.all.get_mut(id).filter(|entry| entry.record.owner == owner)?;
        entry.used = self.clock;
        Some(entry)
    }

    fn take(&mut self, id: &str) -> Option<Entry> {
        let entry = self.all.remove(id)?;
        self.bytes = self.bytes.saturating_sub(entry.bytes);
        Some(entry)
    }

    fn put(&mut self, id: &str, record: Record, running: Option<CancellationToken>) {
        self.take(id);
        let bytes = record.bytes();
        if bytes > self.most_bytes {
            return;
        }
        self.clock += 1;
        self.bytes += bytes;
        let entry = Entry { record, used: self.clock, bytes, running };
        self.all.insert(id.to_owned(), entry);
        self.shrink();
    }

    /// Drops the least recently used, but none that is being made.
    fn shrink(&mut self) {
        while self.all.len() > self.most || self.bytes > self.most_bytes {
            let over = self.all.iter().filter(|(_, entry)| entry.running.is_none());
            let oldest = over.min_by_key(|(_, entry)| entry.used).map(|(id, _)| id.clone());
            let Some(oldest) = oldest else { return };
            self.take(&oldest);
        }
    }
}

impl Entry {
    fn fail(&mut self, message: &str) {
        self.running = None;
        self.record.response["status"] = json!("failed");
        self.record.response["error"] = json!({ "code": "server_error", "message": message });
    }
}

impl Record {
    fn bytes(&self) -> usize {
        let items = self.items.iter().map(|item| item.to_string().len()).sum::<usize>();
        let message = |message: &Message| {
            let calls = message.tool_calls.iter().map(|call| call.arguments.expose().len() + 100);
            let thought = message.reasoning.as_ref().map_or(0, |text| text.expose().len());
            let pictures = message.pictures.iter().map(Picture::bytes).sum::<usize>();
            message.content.expose().len() + thought + calls.sum::<usize>() + pictures + 100
        };
        self.response.to_string().len() + items + self.messages.iter().map(message).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use tieline_types::{Bytes, Role};

    use super::*;

    fn record(owner: &str, text: &str) -> Record {
        Record {
            owner: owner.to_owned(),
            response: json!({ "background": true }),
            items: Vec::new(),
            messages: vec![Message::new(Role::User, text)],
        }
    }

    fn responses(responses: usize, bytes: u64) -> Responses {
        Responses::new(&Limits { responses, responses_bytes: Bytes(bytes), ..Limits::default() })
    }

    #[test]
    fn the_least_recently_used_goes_at_the_limit() {
        let all = responses(2, 10_000);
        all.put("a", record("", "x"));
        all.put("b", record("", "x"));
        assert!(all.find("a", "").is_some());
        all.put("c", record("", "x"));
        assert!(all.find("b", "").is_none());
        assert!(all.find("a", "").is_some() && all.find("c", "").is_some());
    }

    #[test]
    fn bytes_are_bounded_and_a_giant_moves_nobody() {
        let all = responses(100, 1000);
        all.put("a", record("", &"x".repeat(500)));
        all.put("giant", record("", &"x".repeat(2000)));
        assert!(all.find("giant", "").is_none() && all.find("a", "").is_some());
        all.put("b", record("", &"x".repeat(500)));
        assert!(all.find("a", "").is_none() && all.find("b", "").is_some());
        assert!(all.kept().bytes <= 1000);
        assert!(all.remove("b", ""));
        assert_eq!(all.kept().bytes, 0);
    }

    #[test]
    fn what_is_being_made_is_not_dropped_and_what_is_cancelled_stays_so() {
        let all = responses(1, 10_000);
        let cancel = CancellationToken::new();
        all.begin("a", record("", "x"), cancel.clone()).unwrap();
        all.put("b", record("", "x"));
        assert!(all.find("a", "").is_some() && all.find("b", "").is_none());
        assert!(matches!(all.cancel("a", "other"), Cancelled::Unknown));
        assert!(matches!(all.cancel("a", ""), Cancelled::Now(_)));
        assert!(cancel.is_cancelled());
        all.finish("a", json!({ "status": "completed" }), Vec::new());
        assert_eq!(all.find("a", "").unwrap().response["status"], "cancelled");
    }

    #[test]
    fn what_ends_without_an_end_has_failed() {
        let all = responses(1, 10_000);
        all.begin("a", record("", "x"), CancellationToken::new()).unwrap();
        all.abandon("a");
        let response = all.find("a", "").unwrap().response;
        assert_eq!(
            (&response["status"], &response["error"]["code"]),
            (&json!("failed"), &json!("server_error"))
        );
        // It is dropped like any other now.
        all.put("b", record("", "x"));
        assert!(all.find("a", "").is_none() && all.find("b", "").is_some());
        // What is over stays as it is.
        all.abandon("b");
        assert!(all.find("b", "").unwrap().response["status"].is_null());
        // What grew too long to be kept is not gone without a word.
        all.begin("c", record("", "x"), CancellationToken::new()).unwrap();
        all.finish("c", json!({ "output": "x".repeat(20_000) }), Vec::new());
        assert_eq!(all.find("c", "").unwrap().response["status"], "failed");
    }

    #[test]
    fn what_cannot_be_kept_is_not_begun_and_no_key_has_all_places() {
        let all = Responses::new(&Limits {
            background_per_key: 1,
            responses_bytes: Bytes(1000),
            ..Limits::default()
        });
        let begin = |id: &str, owner: &str, text: &str| {
            all.begin(id, record(owner, text), CancellationToken::new())
                .map_err(|error| error.fault)
        };
        assert_eq!(begin("a", "", &"x".repeat(2000)), Err(Fault::TooLarge));
        assert_eq!(begin("a", "k", &"x".repeat(400)), Ok(()));
        assert_eq!(begin("b", "k", "x"), Err(Fault::RateLimited));
        assert_eq!(
            begin("b", "", &"x".repeat(400)),
            Err(Fault::TooLarge),
            "they are kept together"
        );
        // This machine's user has as many as there are.
        assert_eq!((begin("b", "", "x"), begin("c", "", "x")), (Ok(()), Ok(())));
        all.finish("a", json!({}), Vec::new());
        assert_eq!(begin("d", "k", "x"), Ok(()));
    }
}
