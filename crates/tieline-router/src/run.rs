//! Has a request answered by whom the plan chose, and records its end.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use futures_core::Stream;
use tieline_types::wire::{Reply, Work};
use tieline_types::{
    Backend, BackendError, Digest, ErrorKind, Event, EventStream, Host, Request, Served, Tokens,
    Usage, Wanted, Zone,
};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::choose;
use crate::plan::{Decision, Facts, plan};
use crate::record::{AskedFor, Filed, Outcome, Place, Record, Records, finish_word};
use crate::switch::kept::KEPT;
use crate::switch::{self, Looked, Planned, Switch};

/// One call of an API.
#[derive(Clone, Debug)]
pub struct Call {
    /// Tells the call apart from all others.
    pub id: String,
    /// The id of the key that asks; empty: this machine's user.
    pub key: String,
    /// What the key's owner calls it.
    pub label: Option<String>,
    /// The models that it may ask; `None`: all.
    pub allowed: Option<Arc<[String]>>,
    /// The API.
    pub dialect: &'static str,
    /// What is asked.
    pub operation: &'static str,
    /// The model, as the caller names it.
    pub wanted: Wanted,
    /// What the call says of itself.
    pub hints: Hints,
}

/// What a call says of itself besides what it asks: all of it is the caller's word, as it came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hints {
    /// The class of its text; a word that is no class is refused.
    pub data_class: Option<String>,
    /// What kind of task it is.
    pub task: Option<String>,
    /// The project that it belongs to.
    pub project: Option<String>,
    /// The file or folder that it is about.
    pub path: Option<String>,
    /// How long its first token may take; what is no time is refused.
    pub first_token: Option<String>,
    /// How long its end may take, likewise.
    pub deadline: Option<String>,
    /// The conversation that it belongs to.
    pub session: Option<String>,
    /// Its place in a trace, as W3C's `traceparent` has it.
    pub trace_parent: Option<String>,
    /// Whether an answer that was kept may be given.
    pub again: Again,
    /// The headers that policies may read, by their names in lower case.
    pub headers: Vec<(String, String)>,
}

/// Whether an answer that was kept from the same call before may be given again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Again {
    /// Where there is one.
    #[default]
    Welcome,
    /// No: this one is kept in its place.
    Fresh,
    /// No, and this one is not kept either.
    Never,
}

/// Decides for each call who answers.
#[derive(Debug)]
pub struct Router {
    host: Arc<dyn Host>,
    records: Arc<Records>,
    switch: Switch,
}

impl Router {
    /// Routes to the models of `host`. Each call's record goes to `sink` too.
    pub fn new(host: Arc<dyn Host>, sink: Option<mpsc::Sender<Filed>>) -> Self {
        Self { host, records: Arc::new(Records::new(sink)), switch: Switch::default() }
    }

    /// The models of this machine.
    pub fn host(&self) -> &Arc<dyn Host> {
        &self.host
    }

    /// Decides by a policy, where there is one.
    pub fn switch(&self) -> &Switch {
        &self.switch
    }

    /// What happened lately.
    pub fn records(&self) -> &Records {
        &self.records
    }

    /// Whoever answers this request. Its arrival is now.
    ///
    /// # Errors
    /// Nobody may answer it.
    pub async fn decide(&self, call: Call, request: &Request) -> Result<Routed, BackendError> {
        let Some(setup) = self.switch.concerned(&call.wanted.name) else {
            return self.route(call);
        };
        let planned = self.switch.plan(setup, &self.host, (&call, request)).await?;
        let decision = short(planned.decision(), planned.asked().network_gone);
        let refusal = switch::refusal(planned.decision(), self.switch.passes(&planned));
        let mut routed = self.routed(call, decision, Some(Arc::new(planned)));
        routed.arrival.asked_for = AskedFor::of(request);
        match refusal {
            None => Ok(routed),
            Some(error) => {
                routed.open_entry().fail(&error);
                Err(error)
            }
        }
    }

    /// The model of this machine that does work for this call, whose name it says. Its arrival is now.
    ///
    /// # Errors
    /// The caller may not ask it.
    pub fn route(&self, call: Call) -> Result<Routed, BackendError> {
        let facts = Facts { asked: &call.wanted.name, allowed: call.allowed.as_deref() };
        let decision = plan(facts)?;
        Ok(self.routed(call, decision, None))
    }

    fn routed(&self, call: Call, decision: Decision, planned: Option<Arc<Planned>>) -> Routed {
        let wanted = Wanted { name: decision.model.clone(), ..call.wanted.clone() };
        let (at, since) = (SystemTime::now(), Instant::now());
        Routed {
            host: Arc::clone(&self.host),
            records: Arc::clone(&self.records),
            wanted,
            planned,
            arrival: Arrival {
                call,
                decision,
                asked_for: AskedFor::default(),
                digest: None,
                at,
                since,
            },
        }
    }
}

/// A decision in a word, for headers and ledgers.
fn short(decision: &choose::Decision, network_gone: bool) -> Decision {
    let mut rejections = decision.rejections.iter();
    let is_cut_off = network_gone && rejections.any(|one| one.reason == choose::Reason::Offline);
    let first = decision.tries.first().map(|one| &one.name);
    let reason = match first {
        None => "refused",
        // Others would have been asked too.
        Some(_) if is_cut_off => "offline",
        // Also of a session: its model may be the second one only.
        Some(_) if decision.cascade.is_some() => "cascade",
        Some(_) if decision.pinned.is_some() => "session",
        Some(first) if *first == decision.asked => "named",
        Some(_) => "chosen",
    };
    Decision { model: first.unwrap_or(&decision.asked).clone(), reason }
}

/// What records call a model that is not here.
const UNKNOWN: &str = "unknown";

#[derive(Clone, Debug)]
struct Arrival {
    call: Call,
    decision: Decision,
    asked_for: AskedFor,
    digest: Option<Digest>,
    at: SystemTime,
    since: Instant,
}

/// Who answers a call. A [`Backend`] whose every request is recorded at its end.
#[derive(Clone, Debug)]
pub struct Routed {
    host: Arc<dyn Host>,
    records: Arc<Records>,
    wanted: Wanted,
    planned: Option<Arc<Planned>>,
    arrival: Arrival,
}

impl Routed {
    /// Whether a model of this machine answers, and no other.
    pub fn is_here(&self) -> bool {
        self.planned.is_none()
    }

    /// Whether the answer was kept from before, once it has begun.
    pub fn is_given_again(&self) -> bool {
        self.planned.as_ref().is_some_and(|planned| planned.is_given_again())
    }

    /// Who answers by a policy, once an answer has begun: of several answers the latest that began. Another one than
    /// the decision names, where that one refused, was not good enough or was too slow.
    pub fn answering(&self) -> Option<String> {
        self.planned.as_ref()?.answering()
    }

    /// The decision.
    pub fn decision(&self) -> &Decision {
        &self.arrival.decision
    }

    /// The model, as it is asked for.
    pub fn wanted(&self) -> &Wanted {
        &self.wanted
    }

    /// The same call of the model of this machine that would be asked first, for work such as counting tokens, which only
    /// whose tokens they are can do. `None`: somebody else would be asked first, and is not asked for that.
    #[must_use]
    pub fn here(&self) -> Option<Self> {
        let Some(planned) = &self.planned else { return Some(self.clone()) };
        let name = planned.first_here()?.to_owned();
        let wanted = Wanted { name: name.clone(), ..self.wanted.clone() };
        let decision = Decision { model: name, ..self.arrival.decision.clone() };
        let arrival = Arrival { decision, ..self.arrival.clone() };
        Some(Self { wanted, planned: None, arrival, ..self.clone() })
    }

    /// As [`here`](Self::here).
    ///
    /// # Errors
    /// Somebody else would be asked first; that is recorded.
    pub fn only_here(&self) -> Result<Self, BackendError> {
        self.here().ok_or_else(|| {
            let text =
                "tokens are a model's own, and no model of this machine would be asked first";
            let error = BackendError::new(ErrorKind::Unsupported, text)
                .with_hint("name a model of this machine");
            self.unasked("not_here").open_entry().fail(&error);
            error
        })
    }

    /// How long the prompt is by the estimate that a policy decided on; nobody is asked. That is recorded.
    pub fn estimated(&self) -> Option<Tokens> {
        let planned = self.planned.as_ref()?;
        self.unasked("estimated").open_entry().close(Outcome::Answered);
        Some(planned.asked().prompt_tokens)
    }

    /// The call without its plan: what nobody is asked is not decided again by another policy.
    fn unasked(&self, reason: &'static str) -> Self {
        let decision = Decision { reason, ..self.arrival.decision.clone() };
        let arrival = Arrival { decision, ..self.arrival.clone() };
        Self { planned: None, arrival, ..self.clone() }
    }

    /// Has the model made ready for a request, which is refused first where it needs no model for that: nobody
    /// waits for a load, and no other model leaves, for what cannot be answered. It takes of the request's time.
    ///
    /// # Errors
    /// As [`ready`](Self::ready), the model can never answer this, or its time is over; that is recorded.
    pub async fn ready_for(&mut self, request: &mut Request) -> Result<Arc<Served>, BackendError> {
        self.arrival.asked_for = AskedFor::of(request);
        if let Err(error) = self.host.check(&self.wanted, request).await {
            let mut entry = self.open_entry();
            entry.early = true;
            entry.fail(&error);
            return Err(error);
        }
        let begun = tokio::time::Instant::now();
        let served = self.ready_within(request.deadline).await?;
        request.deadline = request.deadline.map(|most| most.saturating_sub(begun.elapsed()));
        Ok(served)
    }

    /// Waits until the model is in memory, and says what it is.
    ///
    /// # Errors
    /// There is no such model, or it cannot be loaded; that is recorded.
    pub async fn ready(&mut self) -> Result<Arc<Served>, BackendError> {
        self.ready_within(None).await
    }

    async fn ready_within(&mut self, most: Option<Duration>) -> Result<Arc<Served>, BackendError> {
        let mut entry = self.open_entry();
        let ready = self.host.ready(&self.wanted);
        let ready = match most {
            Some(most) => timeout(most, ready).await.unwrap_or_else(|_| Err(late(most))),
            None => ready.await,
        };
        match ready {
            Ok(served) => {
                entry.closed = true;
                self.arrival.digest = Some(served.digest);
                // Callers spell a name as they like; records and numbers know a model by one.
                self.arrival.decision.model.clone_from(&served.name);
                Ok(served)
            }
            Err(error) => {
                entry.fail(&error);
                Err(error)
            }
        }
    }

    /// Work with a single reply.
    ///
    /// # Errors
    /// As the model's.
    pub async fn work(&self, work: Work) -> Result<Reply, BackendError> {
        let mut entry = self.open_entry();
        let reply = self.host.work(&self.wanted, work).await;
        match &reply {
            Ok(reply) => {
                entry.usage = read_tokens(reply)
                    .map(|prompt_tokens| Usage { prompt_tokens, ..Usage::default() });
                entry.close(Outcome::Answered);
            }
            Err(error) => entry.fail(error),
        }
        reply
    }

    /// Work that a request or other work follows, such as turning its prompt into tokens. Recorded only where
    /// it fails, since then nothing follows.
    ///
    /// # Errors
    /// As the model's.
    pub async fn prepare(&self, work: Work) -> Result<Reply, BackendError> {
        let mut entry = self.open_entry();
        let reply = self.host.work(&self.wanted, work).await;
        match &reply {
            Ok(_) => entry.closed = true,
            Err(error) => entry.fail(error),
        }
        reply
    }

    /// Several pieces of work, one after the other, which are one call.
    ///
    /// # Errors
    /// As the model's; nothing after the first error is done.
    pub async fn works(&self, works: Vec<Work>) -> Result<Vec<Reply>, BackendError> {
        let mut entry = self.open_entry();
        let mut replies = Vec::with_capacity(works.len());
        for work in works {
            match self.host.work(&self.wanted, work).await {
                Ok(reply) => replies.push(reply),
                Err(error) => {
                    entry.fail(&error);
                    return Err(error);
                }
            }
        }
        entry.close(Outcome::Answered);
        Ok(replies)
    }

    fn open_entry(&self) -> Entry {
        let (usage, finish, first_token, error, place) = (None, None, None, None, None);
        let (early, closed) = (false, false);
        Entry { routed: self.clone(), usage, finish, first_token, error, place, early, closed }
    }
}

impl Routed {
    async fn run_planned(
        &self,
        planned: &Planned,
        request: Request,
        place: &mut Option<Place>,
    ) -> Result<EventStream, BackendError> {
        let name = match planned.look(&request) {
            Looked::Found(stream) => return Ok(stream),
            Looked::Missing(name) => name,
        };
        // What costs money must not leave where that could not be written down.
        if planned.may_cost() {
            *place = self.records.place(planned.patience()).await?;
        }
        planned.run(request, name).await
    }
}

fn read_tokens(reply: &Reply) -> Option<Tokens> {
    match reply {
        Reply::Embeddings { prompt_tokens, .. } | Reply::Scores { prompt_tokens, .. } => {
            Some(*prompt_tokens)
        }
        _ => None,
    }
}

#[async_trait]
impl Backend for Routed {
    fn name(&self) -> &str {
        &self.wanted.name
    }

    /// The farthest that the request may travel.
    fn zone(&self) -> Zone {
        let tries = self.planned.iter().flat_map(|planned| &planned.decision().tries);
        tries.map(|one| one.zone).max().unwrap_or(Zone::Host)
    }

    async fn run(&self, request: Request) -> Result<EventStream, BackendError> {
        let mut entry = self.open_entry();
        entry.routed.arrival.asked_for = AskedFor::of(&request);
        let begun = match &self.planned {
            Some(planned) => self.run_planned(planned, request, &mut entry.place).await,
            None => self.host.run(&self.wanted, request).await,
        };
        match begun {
            Ok(stream) => Ok(Box::pin(Recorded { stream, entry })),
            Err(error) => {
                entry.fail(&error);
                Err(error)
            }
        }
    }
}

/// A record on its way. Dropped before its end, it says that the caller left.
struct Entry {
    routed: Routed,
    usage: Option<Usage>,
    finish: Option<&'static str>,
    first_token: Option<Duration>,
    error: Option<ErrorKind>,
    place: Option<Place>,
    /// It failed while it was looked at, perhaps before its name was.
    early: bool,
    closed: bool,
}

impl Entry {
    /// A name that no model has may be anything, a prompt too: it is not kept. Whoever leaves before the name was
    /// looked up, or where that failed, may have meant any.
    fn told(&self, decision: &Decision) -> Decision {
        let looked_up = self.routed.arrival.digest.is_some();
        let unknown = match self.error {
            Some(ErrorKind::NotFound) => true,
            Some(_) if self.early => !looked_up,
            Some(ErrorKind::Internal) | None => !looked_up,
            Some(_) => false,
        };
        // A policy's decision keeps no name that nobody has.
        match unknown && self.routed.planned.is_none() {
            true => Decision { model: UNKNOWN.to_owned(), ..decision.clone() },
            false => decision.clone(),
        }
    }

    fn fail(&mut self, error: &BackendError) {
        self.error = Some(error.kind);
        self.close(Outcome::Failed);
    }

    fn close(&mut self, outcome: Outcome) {
        if std::mem::replace(&mut self.closed, true) {
            return;
        }
        let Arrival { call, decision, asked_for, digest, at, since } = &self.routed.arrival;
        let planned = self.routed.planned.as_ref();
        let tried = planned.map(|planned| planned.tried()).unwrap_or_default();
        let mut decision = self.told(decision);
        let mut first_token = self.first_token;
        let kept = tried.iter().find(|one| one.ended == KEPT);
        let answered = tried.iter().rev().find(|one| one.ended == "answered");
        if let Some(answered) = answered.or(kept) {
            decision.model.clone_from(&answered.name);
            // Nobody saw when an answer in one piece began.
            first_token = first_token.filter(|_| answered.first_token_us.is_some());
        }
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let at = at.duration_since(UNIX_EPOCH).unwrap_or_default();
        let candidates = planned.map(|planned| Arc::clone(planned.candidates()));
        let record = Record {
            id: call.id.clone(),
            at_unix_ms: u64::try_from(at.as_millis()).unwrap_or(u64::MAX),
            key: call.key.clone(),
            dialect: call.dialect,
            operation: call.operation,
            decision,
            plan: planned.map(|planned| Arc::clone(planned.decision())),
            asked: planned.map(|planned| planned.asked().clone()),
            cached: kept.is_some(),
            saved_micro_usd: kept.and_then(|kept| kept.saved_micro_usd),
            hedge: planned.and_then(|planned| planned.hedged()),
            tried,
            digest: *digest,
            outcome,
            error: self.error.map(|kind| format!("{kind:?}")),
            usage: self.usage,
            first_token_us: first_token.map(micros),
            total_us: micros(since.elapsed()),
            asked_for: *asked_for,
            finish: self.finish,
            trace_parent: call.hints.trace_parent.clone(),
        };
        self.routed.records.add(record, (candidates, self.place.take()));
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.close(Outcome::Left);
    }
}

fn late(most: Duration) -> BackendError {
    let most = most.as_millis();
    let text = format!("the model was not ready within the {most} ms that the request had");
    BackendError::new(ErrorKind::Timeout, text)
}

/// A stream whose end is recorded.
struct Recorded {
    stream: EventStream,
    entry: Entry,
}

impl fmt::Debug for Recorded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorded").finish_non_exhaustive()
    }
}

impl Stream for Recorded {
    type Item = Result<Event, BackendError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let polled = self.stream.as_mut().poll_next(context);
        let entry = &mut self.entry;
        match &polled {
            Poll::Ready(Some(Ok(Event::Finished(finished)))) => {
                entry.usage = Some(finished.usage);
                entry.finish = Some(finish_word(&finished.reason));
                entry.close(Outcome::Answered);
            }
            Poll::Ready(Some(Ok(Event::Piece(_) | Event::Reasoning(_) | Event::ToolCall(_)))) => {
                let since = entry.routed.arrival.since;
                entry.first_token.get_or_insert_with(|| since.elapsed());
            }
            Poll::Ready(Some(Err(error))) => entry.fail(error),
            Poll::Ready(Some(Ok(_)) | None) | Poll::Pending => {}
        }
        polled
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt;
    use testkit::scripted::{Scripted, Step, piece, started};
    use tieline_types::Prompt;

    use super::*;

    const CANARY: &str = "CANARY";

    fn call(model: &str) -> Call {
        Call {
            id: "1".to_owned(),
            key: String::new(),
            label: None,
            allowed: None,
            dialect: "openai",
            operation: "chat",
            wanted: Wanted::named(model),
            hints: Hints::default(),
        }
    }

    fn request() -> Request {
        Request::new(Prompt::Text(CANARY.into()))
    }

    /// The only record, without the request's text.
    #[track_caller]
    fn only(router: &Router) -> Arc<Record> {
        let records = router.records().latest(10);
        assert_eq!(records.len(), 1, "{records:?}");
        assert!(!format!("{records:?}").contains(CANARY));
        Arc::clone(&records[0])
    }

    #[tokio::test]
    async fn an_answered_call_has_one_record_with_what_was_used() {
        let router = Router::new(Arc::new(Scripted::hello()), None);
        let mut routed = router.route(call("mock:latest")).unwrap();
        routed.ready().await.unwrap();
        routed.run(request()).await.unwrap().count().await;
        let record = only(&router);
        assert_eq!((record.outcome, record.decision.model.as_str()), (Outcome::Answered, "mock"));
        assert_eq!(record.usage.unwrap().completion_tokens, Tokens(3));
        assert!(record.digest.is_some() && record.first_token_us.is_some());
    }

    #[tokio::test]
    async fn who_leaves_and_what_breaks_have_one_record_too() {
        let breaks = vec![started(), Step::Fail(ErrorKind::Crashed, "it died")];
        let hangs = vec![started(), piece("Hel"), Step::Hang];
        for (steps, want) in [(breaks, Outcome::Failed), (hangs, Outcome::Left)] {
            let router = Router::new(Arc::new(Scripted::default().with("mock", steps)), None);
            let routed = router.route(call("mock")).unwrap();
            let mut stream = routed.run(request()).await.unwrap();
            for _ in 0..2 {
                stream.next().await.unwrap().ok();
            }
            drop(stream);
            assert_eq!(only(&router).outcome, want);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_load_takes_of_the_time_that_a_request_has() {
        let host = Scripted::hello().loading("mock", Duration::from_secs(3));
        for (most, left) in [(5, Some(2)), (2, None)] {
            let router = Router::new(Arc::new(host.clone()), None);
            let mut routed = router.route(call("mock")).unwrap();
            let mut request = request();
            request.deadline = Some(Duration::from_secs(most));
            let ready = routed.ready_for(&mut request).await;
            let Some(left) = left else {
                assert_eq!(ready.unwrap_err().kind, ErrorKind::Timeout);
                assert_eq!(only(&router).outcome, Outcome::Failed);
                continue;
            };
            ready.unwrap();
            assert_eq!(request.deadline, Some(Duration::from_secs(left)));
        }
    }

    #[tokio::test]
    async fn a_name_that_no_model_has_is_not_kept() {
        let router = Router::new(Arc::new(Scripted::hello()), None);
        let mut routed = router.route(call(CANARY)).unwrap();
        assert_eq!(routed.ready().await.unwrap_err().kind, ErrorKind::NotFound);
        let record = only(&router);
        assert_eq!((record.outcome, record.decision.model.as_str()), (Outcome::Failed, UNKNOWN));
    }

    /// The name in the record of a call whose answer fails so, or hangs and is left.
    async fn name_of(fault: Option<ErrorKind>, looked_up: bool) -> String {
        let host = match fault {
            Some(kind) => Scripted::default().refusing("canary", kind, "it failed"),
            None => Scripted::default().with("canary", vec![Step::Hang]),
        };
        let router = Router::new(Arc::new(host), None);
        let mut routed = router.route(call("canary")).unwrap();
        if looked_up {
            routed.ready().await.unwrap();
        }
        drop(routed.run(request()).await);
        only(&router).decision.model.clone()
    }

    #[tokio::test]
    async fn a_name_that_nobody_looked_up_is_not_kept_either() {
        for fault in [Some(ErrorKind::Internal), None] {
            assert_eq!(name_of(fault, false).await, UNKNOWN, "{fault:?}");
            assert_eq!(name_of(fault, true).await, "canary", "{fault:?}");
        }
        // Only of a model that is there this is told.
        assert_eq!(name_of(Some(ErrorKind::OutOfMemory), false).await, "canary");
    }
}
