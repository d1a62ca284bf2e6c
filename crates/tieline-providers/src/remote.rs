//! A vendor or another host as a [`Remote`]: sends, divides the answer, and ends it exactly once.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use futures_util::stream;
use reqwest::header::{CONTENT_TYPE, HeaderMap, RETRY_AFTER};
use reqwest::{Client, Response, Url};
use tieline_privacy::{Outbound, Remote};
use tieline_types::{
    BackendError, ErrorKind, Event, EventStream, FinishReason, Finished, Origin, Prompt, Request,
    Retry, Started, Timing, Usage, Zone,
};
use tokio::time::{Instant, timeout_at};

use crate::endpoint::Endpoint;
use crate::errors::{Refusal, Said, failed, retry_after, upstream};
use crate::frames::Frames;
use crate::http::{self, EndpointError, Transport};
use crate::protocol::{Framing, Protocol, Reader, USAGE_UNKNOWN, Written};

/// The most bytes of one answer.
const MOST_ANSWER_BYTES: usize = 256 * 1024 * 1024;
/// The most bytes of an answer in one piece, which is kept until it is whole. Its log-probabilities are most of it.
const MOST_WHOLE_BYTES: usize = 32 * 1024 * 1024;
/// How long an error's body may take.
const ERROR_BODY: Duration = Duration::from_secs(10);

/// How long a vendor may be silent. Bounds for what hangs, not the router's deadlines, which are shorter.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// From the request to the answer's head.
    pub head: Duration,
    /// Between the parts of an answer.
    pub idle: Duration,
    /// From the request to an answer in one piece.
    pub whole: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        // A local host may compute a long prompt before it says anything at all.
        Self { head: seconds(600), idle: seconds(300), whole: seconds(1800) }
    }
}

/// A model of a vendor, spoken to in its protocol.
#[derive(Clone, Debug)]
pub struct Speaker {
    pub(crate) endpoint: Endpoint,
    pub(crate) protocol: Arc<dyn Protocol>,
    client: Client,
    pub(crate) patience: Patience,
    /// The first path of the protocol that was asked for, and where that is: most have no other.
    first: Arc<OnceLock<(String, Url)>>,
}

impl Speaker {
    /// Speaks `protocol` to `endpoint`. Opens no connection yet.
    ///
    /// # Errors
    /// The endpoint's URL, key or headers cannot be used.
    pub fn new(
        endpoint: Endpoint,
        protocol: Arc<dyn Protocol>,
        transport: &Transport,
    ) -> Result<Self, EndpointError> {
        http::parse(&endpoint)?;
        let key = endpoint.key.iter().map(|key| ("authorization", key.expose().to_owned()));
        let none = Written { headers: key.collect(), ..Written::default() };
        http::headers(&endpoint, &none)?;
        let client = transport.client(&endpoint)?;
        let (patience, first) = (Patience::default(), Arc::default());
        Ok(Self { endpoint, protocol, client, patience, first })
    }

    /// The same, which waits so long.
    #[must_use]
    pub fn with_patience(mut self, patience: Patience) -> Self {
        self.patience = patience;
        self
    }

    pub(crate) async fn post(
        &self,
        written: &Written,
        until: Instant,
    ) -> Result<Response, BackendError> {
        let backend = &self.endpoint.name;
        let internal = |error: EndpointError| {
            BackendError::new(ErrorKind::Internal, format!("cannot ask {backend}"))
                .with_source(error)
        };
        let url = self.at(&written.path).map_err(internal)?;
        let headers = http::headers(&self.endpoint, written).map_err(internal)?;
        let body = written.body.to_string();
        let sent = self.client.post(url).headers(headers).body(body).send();
        match timeout_at(until, sent).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(unreachable(backend, error)),
            Err(_) => Err(silent(backend)),
        }
    }

    /// Where this path of the protocol is.
    fn at(&self, path: &str) -> Result<Url, EndpointError> {
        if let Some((_, url)) = self.first.get().filter(|(first, _)| first == path) {
            return Ok(url.clone());
        }
        let url = http::join(&self.endpoint, path)?;
        // Where another came first, this one is put together each time.
        let _ = self.first.set((path.to_owned(), url.clone()));
        Ok(url)
    }

    /// The error of an answer that is none.
    pub(crate) async fn refused(&self, response: Response) -> BackendError {
        let status = response.status().as_u16();
        let retry_after = wait(response.headers());
        let body = tokio::time::timeout(ERROR_BODY, http::error_body(response)).await;
        let body = body.ok().flatten();
        let said = body.as_ref().map(Said::of).unwrap_or_default();
        let code = body.and_then(|body| self.protocol.error_code(&body));
        if (200..300).contains(&status) {
            return failed(code.as_deref());
        }
        Refusal { status, code, retry_after, said }.error(&self.endpoint.name)
    }
}

#[async_trait]
impl Remote for Speaker {
    fn name(&self) -> &str {
        &self.endpoint.name
    }

    fn zone(&self) -> Zone {
        self.endpoint.zone
    }

    async fn send(&self, outbound: Outbound) -> Result<EventStream, BackendError> {
        let request = outbound.request();
        if matches!(request.prompt, Prompt::Texts(_)) {
            return self.texts(outbound).await;
        }
        let asked = Instant::now();
        let deadline = request.deadline.and_then(|deadline| asked.checked_add(deadline));
        let key = self.endpoint.key.as_ref().map(|key| key.expose());
        let written = self.protocol.write(request, &self.endpoint.model, key)?;
        let Patience { head, idle, whole } = self.patience;
        let (head, idle) = if written.whole { (whole, whole) } else { (head, idle) };
        let patience = asked + head;
        let until = deadline.map_or(patience, |deadline| deadline.min(patience));
        let response = self.post(&written, until).await?;
        let framing = self.protocol.framing();
        let form = match response.status().is_success() {
            true => form(response.headers(), framing, written.whole),
            false => Form::Error,
        };
        let body = match form {
            Form::Error => return Err(self.refused(response).await),
            Form::Whole => Some(Vec::new()),
            Form::Frames => None,
        };
        let length = response.content_length();
        let answer = Answer {
            backend: self.endpoint.name.clone(),
            response: Some(response),
            body,
            frames: Frames::new(framing),
            reader: self.protocol.reader(request),
            ready: VecDeque::new(),
            warnings: written.warnings,
            started: false,
            received: 0,
            length,
            clock: Clock { asked, first: None, last: asked },
            limits: Limits { idle, deadline },
            seed: seed(request),
        };
        let next = |mut answer: Answer| async { Some((answer.next().await?, answer)) };
        Ok(Box::pin(stream::unfold(answer, next)))
    }
}

/// The vendor's own choice of a seed is not known: 0 stands for it.
fn seed(request: &Request) -> u32 {
    request.sampling.seed.unwrap_or(0)
}

/// What an accepted request is answered with.
enum Form {
    Frames,
    Whole,
    /// Some vendors refuse with status 200.
    Error,
}

/// As the content's type says. Who was asked for an answer in one piece may give frames all the same.
fn form(headers: &HeaderMap, framing: Framing, whole: bool) -> Form {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let frames = match framing {
        Framing::Sse => "text/event-stream",
        Framing::Lines => "application/x-ndjson",
    };
    let is_json = kind.starts_with("application/json");
    match (whole, framing) {
        (true, _) if !kind.starts_with(frames) => Form::Whole,
        (false, Framing::Sse) if is_json => Form::Error,
        (true | false, Framing::Sse | Framing::Lines) => Form::Frames,
    }
}

fn wait(headers: &HeaderMap) -> Option<Duration> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    retry_after(headers.get(RETRY_AFTER)?.to_str().ok()?, now)
}

fn unreachable(backend: &str, error: reqwest::Error) -> BackendError {
    let problem = match (error.is_connect(), error.is_timeout()) {
        (true, _) => "cannot connect to",
        (false, true) => return silent(backend).with_source(error.without_url()),
        (false, false) => "the connection broke before an answer came from",
    };
    // The URL may lead through a path that is nobody's business.
    let error = error.without_url();
    let failed = upstream(format!("{problem} {backend}"));
    match error.is_connect() {
        // Not every such failure is one of the system's in its chain, by which a host that is away is known.
        true => failed.with_source(io::Error::other(error)),
        false => failed.with_source(error),
    }
}

pub(crate) fn silent(backend: &str) -> BackendError {
    BackendError::new(ErrorKind::Timeout, format!("{backend} was silent for too long"))
        .of(Origin::Upstream, Retry::Elsewhere)
}

#[derive(Debug)]
struct Clock {
    asked: Instant,
    first: Option<Instant>,
    last: Instant,
}

impl Clock {
    fn token(&mut self) {
        self.last = Instant::now();
        self.first.get_or_insert(self.last);
    }

    fn timing(&self) -> Timing {
        let first = self.first.unwrap_or(self.last);
        Timing {
            queue: Duration::ZERO,
            prefill: first.duration_since(self.asked),
            decode: self.last.duration_since(first),
        }
    }
}

#[derive(Debug)]
struct Limits {
    idle: Duration,
    deadline: Option<Instant>,
}

/// An answer that is being read. Dropping it closes the connection.
struct Answer {
    backend: String,
    /// `None` once the end was found: nobody is asked for more then.
    response: Option<Response>,
    /// What came of an answer in one piece; `None`: it comes in frames.
    body: Option<Vec<u8>>,
    frames: Frames,
    reader: Box<dyn Reader>,
    ready: VecDeque<Result<Event, BackendError>>,
    warnings: Vec<String>,
    started: bool,
    received: usize,
    /// Where it is told beforehand.
    length: Option<u64>,
    clock: Clock,
    limits: Limits,
    seed: u32,
}

impl Answer {
    async fn next(&mut self) -> Option<Result<Event, BackendError>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            let mut response = self.response.take()?;
            let idle = Instant::now() + self.limits.idle;
            let until = self.limits.deadline.map_or(idle, |deadline| deadline.min(idle));
            match timeout_at(until, response.chunk()).await {
                Ok(Ok(Some(bytes))) => {
                    self.response = Some(response);
                    self.take(&bytes);
                }
                Ok(Ok(None)) => self.end(),
                Ok(Err(error)) => {
                    let message = format!("the answer of {} broke off", self.backend);
                    self.fail(upstream(message).with_source(error.without_url()));
                }
                Err(_) if until < idle => self.too_late(),
                Err(_) => self.fail(silent(&self.backend)),
            }
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        self.received += bytes.len();
        if let Some(body) = &mut self.body {
            body.extend_from_slice(bytes);
            if self.received > MOST_WHOLE_BYTES {
                self.fail(upstream(format!("the answer of {} is too long", self.backend)));
            } else if u64::try_from(self.received).ok() == self.length {
                // The end itself is told only once the connection is put back in order.
                self.end();
            }
            return;
        }
        let pushed = self.frames.push(bytes);
        self.read_frames();
        if self.response.is_none() {
            return;
        }
        if let Err(error) = pushed {
            let message = format!("the answer of {} is no stream of frames", self.backend);
            self.fail(upstream(message).with_source(error));
        } else if self.received > MOST_ANSWER_BYTES {
            self.fail(upstream(format!("the answer of {} has no end", self.backend)));
        }
    }

    fn read_frames(&mut self) {
        let mut events = Vec::new();
        while self.response.is_some()
            && let Some(frame) = self.frames.next_frame()
        {
            let read = self.reader.read(frame.frame(), &mut events);
            self.pass(&mut events);
            if let Err(error) = read {
                self.fail(error);
            }
        }
    }

    /// The connection ended as it should.
    fn end(&mut self) {
        if let Some(body) = self.body.take() {
            return self.end_whole(&body);
        }
        let mut events = Vec::new();
        let mut read = self.frames.end().map_err(|error| {
            let message = format!("the answer of {} is no stream of frames", self.backend);
            upstream(message).with_source(error)
        });
        while read.is_ok()
            && let Some(frame) = self.frames.next_frame()
        {
            read = self.reader.read(frame.frame(), &mut events);
            if finished(&events) {
                return self.pass(&mut events);
            }
        }
        let read = read.and_then(|()| self.reader.end(&mut events));
        let whole = finished(&events);
        self.pass(&mut events);
        match read {
            _ if whole => {}
            Err(error) => self.fail(error),
            Ok(()) => self.fail(upstream(format!("the answer of {} broke off", self.backend))),
        }
    }

    /// An answer in one piece is there.
    fn end_whole(&mut self, body: &[u8]) {
        let mut events = Vec::new();
        let read = match std::str::from_utf8(body) {
            Ok(body) => self.reader.whole(body, &mut events),
            Err(_) => Err(upstream(format!("the answer of {} is no text", self.backend))),
        };
        match read {
            Ok(()) if finished(&events) => self.pass(&mut events),
            Ok(()) => self.fail(upstream(format!("the answer of {} has no end", self.backend))),
            // Nothing of it was told yet, so that others may still answer.
            Err(error) => self.fail(error),
        }
    }

    /// The request's deadline passed: what came so far stands.
    fn too_late(&mut self) {
        if self.body.is_some() {
            return self.fail(silent(&self.backend));
        }
        let finished = Finished {
            reason: FinishReason::Deadline,
            usage: Usage::default(),
            timing: Timing::default(),
            seed: self.seed,
            peak_memory: None,
            receipt: None,
        };
        let unknown = Event::Warning(USAGE_UNKNOWN.to_owned());
        self.pass(&mut vec![unknown, Event::Finished(Box::new(finished))]);
    }

    /// Passes events on, up to the end.
    fn pass(&mut self, events: &mut Vec<Event>) {
        for event in events.drain(..) {
            let event = match event {
                Event::Started(_) if self.started => continue,
                Event::Started(started) => {
                    self.start(started);
                    continue;
                }
                Event::Finished(finished) => {
                    self.start(Started::default());
                    let finished = Box::new(self.complete(*finished));
                    self.ready.push_back(Ok(Event::Finished(finished)));
                    self.response = None;
                    return;
                }
                event => event,
            };
            if matches!(event, Event::Piece(_) | Event::Reasoning(_) | Event::ToolCall(_)) {
                self.clock.token();
            }
            self.start(Started::default());
            self.ready.push_back(Ok(event));
        }
    }

    fn start(&mut self, started: Started) {
        if !std::mem::replace(&mut self.started, true) {
            self.ready.push_back(Ok(Event::Started(started)));
            let warnings = std::mem::take(&mut self.warnings);
            self.ready.extend(warnings.into_iter().map(|warning| Ok(Event::Warning(warning))));
        }
    }

    fn complete(&self, mut finished: Finished) -> Finished {
        // A host that tells its own times knows them better.
        if finished.timing == Timing::default() {
            finished.timing = self.clock.timing();
        }
        if finished.seed == 0 {
            finished.seed = self.seed;
        }
        finished
    }

    fn fail(&mut self, error: BackendError) {
        self.response = None;
        self.ready.push_back(Err(error));
    }
}

fn finished(events: &[Event]) -> bool {
    events.iter().any(|event| matches!(event, Event::Finished(_)))
}
