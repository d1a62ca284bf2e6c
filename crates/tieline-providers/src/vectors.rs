//! Texts become vectors or scores: what the protocols have in common, and a vendor that is asked for them, batch by
//! batch.
//!
//! A vendor's answer is taken for what it says only where it can be: as many vectors as texts, all of one length, all
//! of numbers. Scores are asked for at once, since those of another call may not be comparable with them. Each batch is
//! told as it comes, so that whoever waits sees that something happens.

use std::collections::VecDeque;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::stream;
use reqwest::Response;
use serde::Deserialize;
use serde_json::Value;
use tieline_privacy::Outbound;
use tieline_types::wire::Input;
use tieline_types::{
    BackendError, ErrorKind, Event, EventStream, FinishReason, Finished, Overflow, Pooling,
    Private, Prompt, Request, Retry, Started, Texts, Timing, Tokens, Usage, texts,
};
use tokio::time::{Instant, sleep, timeout_at};

use crate::errors::{failed, unsupported, upstream};
use crate::protocol::USAGE_UNKNOWN;
use crate::remote::{Speaker, silent};

/// How often a later batch is asked for, at most.
const TRIES: u32 = 4;
/// The longest that a batch is waited for: half of what is usually taken for silence.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// The first wait for a vendor that says no time; the next is twice as long.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// The most bytes of one batch's answer.
const MOST_BYTES: usize = 64 * 1024 * 1024;
/// The most bytes of text in one batch: vendors bound its tokens, at 300,000 and more.
const BATCH_BYTES: usize = 512 * 1024;
/// Bytes of the longest token there is, about. A count that needs longer ones cannot be.
const LONGEST_TOKEN: usize = 128;
/// Numbers of a vector, at most: models make some thousands.
const LONGEST_VECTOR: usize = 65_536;
/// A vector this near to length 1 is left as it came.
const UNIT: f32 = 1e-3;

/// Texts that a vendor is asked for at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch<'a> {
    /// The texts.
    pub texts: Vec<&'a str>,
    /// What they are scored by; `None`: they become vectors.
    pub query: Option<&'a str>,
    /// How many numbers a vector has; `None`: as many as the model makes.
    pub dimensions: Option<u32>,
    /// Whether each is to have length 1.
    pub normalise: bool,
    /// Whether of a text that is too long the beginning is read.
    pub truncate: bool,
    /// How one vector is made of a text's token vectors; `None`: as the model's file says.
    pub pooling: Option<Pooling>,
}

/// What a vendor made of a batch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Made {
    /// The vectors, in the order of the texts.
    pub vectors: Vec<Vec<f32>>,
    /// Tokens read; `None`: it did not tell.
    pub prompt_tokens: Option<Tokens>,
}

/// What a vendor made of documents and a query.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scored {
    /// The scores, in the order of the documents.
    pub scores: Vec<f32>,
    /// Tokens read; `None`: it did not tell.
    pub prompt_tokens: Option<Tokens>,
}

/// A vector as JSON has it: numbers, or their bytes as base64, the least significant first.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum Wire {
    Numbers(Vec<f32>),
    Base64(String),
}

impl Wire {
    /// `None`: it is neither.
    pub(crate) fn read(self) -> Option<Vec<f32>> {
        let text = match self {
            Self::Numbers(numbers) => return Some(numbers),
            Self::Base64(text) => text,
        };
        let bytes = STANDARD.decode(text).ok()?;
        let numbers = bytes.chunks_exact(4);
        if !numbers.remainder().is_empty() {
            return None;
        }
        let number = |bytes: &[u8]| Some(f32::from_le_bytes(bytes.try_into().ok()?));
        numbers.map(number).collect()
    }
}

/// Vectors or scores by their numbers; where none has one, as they stand. `None`: a number is twice there, or missing.
pub(crate) fn in_order<T: Clone>(numbered: Vec<(Option<usize>, T)>) -> Option<Vec<T>> {
    if numbered.iter().all(|(number, _)| number.is_none()) {
        return Some(numbered.into_iter().map(|(_, one)| one).collect());
    }
    let mut places: Vec<Option<T>> = vec![None; numbered.len()];
    for (number, one) in numbered {
        if places.get_mut(number?)?.replace(one).is_some() {
            return None;
        }
    }
    places.into_iter().collect()
}

/// A count of tokens; what is below nothing or beyond all counts was not told.
pub(crate) fn count(value: Option<i64>) -> Option<Tokens> {
    value.and_then(|count| u32::try_from(count).ok()).map(Tokens)
}

/// The error of an answer that holds no vectors.
pub(crate) fn none_of_it() -> BackendError {
    upstream("the vendor's answer holds no vectors")
}

/// The same of scores.
pub(crate) fn no_scores() -> BackendError {
    upstream("the vendor's answer holds no scores of all documents")
}

impl Speaker {
    /// Asks for what is wanted of a request's texts. A refusal of the first batch is this one's; others come in the
    /// stream.
    pub(crate) async fn texts(&self, outbound: Outbound) -> Result<EventStream, BackendError> {
        let prompt = &outbound.request().prompt;
        let most = match matches!(prompt, Prompt::Texts(Texts { query: Some(_), .. })) {
            true if self.protocol.ranks() => usize::MAX,
            true => return Err(unsupported("scores of texts", &self.endpoint.name)),
            false => self
                .protocol
                .most_texts()
                .ok_or_else(|| unsupported("vectors of texts", &self.endpoint.name))?,
        };
        if matches!(prompt, Prompt::Texts(Texts { pooling: Some(_), .. })) && !self.protocol.pools()
        {
            return Err(unsupported("vectors made of tokens in another way", &self.endpoint.name)
                .with_hint("ask a model of this machine"));
        }
        let mut work = Work::of(self, outbound.into_request(), most)?;
        let (response, warnings) = work.ask().await?;
        work.response = Some(response);
        let started = Event::Started(Started::default());
        let warnings = warnings.into_iter().map(Event::Warning);
        work.ready.extend([started].into_iter().chain(warnings).map(Ok));
        let next = |mut work: Work| async { Some((work.next().await?, work)) };
        Ok(Box::pin(stream::unfold(work, next)))
    }
}

/// Texts under way. Dropping it closes the connection.
struct Work {
    speaker: Speaker,
    texts: Vec<Private>,
    query: Option<Private>,
    dimensions: Option<u32>,
    normalise: bool,
    truncate: bool,
    pooling: Option<Pooling>,
    /// The most texts of a batch.
    most: usize,
    /// Texts whose vectors are there.
    done: usize,
    /// Texts that were asked for.
    asked: usize,
    /// The latest refusal said that the vendor is not there for the moment, whoever asks.
    away: bool,
    /// The answer to the latest batch, while it is read.
    response: Option<Response>,
    ready: VecDeque<Result<Event, BackendError>>,
    /// Numbers of a vector, once one is there.
    length: Option<usize>,
    /// Tokens read so far; `None`: a batch did not tell.
    prompt_tokens: Option<Tokens>,
    since: Instant,
    deadline: Option<Instant>,
    over: bool,
}

impl Work {
    fn of(speaker: &Speaker, request: Request, most: usize) -> Result<Self, BackendError> {
        let Prompt::Texts(texts) = request.prompt else {
            return Err(unsupported(
                "vectors of a prompt that is no texts",
                &speaker.endpoint.name,
            ));
        };
        let Texts { inputs, query, dimensions, normalise, pooling } = texts;
        let text = |input: Input| match input {
            Input::Text(text) => Ok(text),
            // The numbers are those of a model at hand.
            Input::Tokens(_) => Err(unsupported("vectors of tokens", &speaker.endpoint.name)
                .with_hint("send the texts themselves")),
        };
        let since = Instant::now();
        Ok(Self {
            speaker: speaker.clone(),
            texts: inputs.into_iter().map(text).collect::<Result<_, _>>()?,
            query,
            dimensions,
            normalise,
            pooling,
            truncate: request.overflow == Overflow::DropOldest,
            most,
            done: 0,
            asked: 0,
            away: false,
            response: None,
            ready: VecDeque::new(),
            length: None,
            prompt_tokens: Some(Tokens(0)),
            since,
            deadline: request.deadline.and_then(|deadline| since.checked_add(deadline)),
            over: false,
        })
    }

    /// How many of the next texts are asked for at once: one at least.
    fn next_batch(&self) -> usize {
        let left = &self.texts[self.done..];
        if self.query.is_some() {
            return left.len();
        }
        let mut bytes = 0;
        let fits = |text: &&Private| {
            bytes += text.expose().len();
            bytes <= BATCH_BYTES
        };
        left.iter().take(self.most).take_while(fits).count().clamp(1, left.len().max(1))
    }

    /// Asks for the next batch.
    async fn ask(&mut self) -> Result<(Response, Vec<String>), BackendError> {
        self.asked = (self.done + self.next_batch()).min(self.texts.len());
        self.away = false;
        let batch = self.batch();
        let Speaker { endpoint, protocol, .. } = &self.speaker;
        let key = endpoint.key.as_ref().map(|key| key.expose());
        let written = protocol.write_texts(&batch, &endpoint.model, key)?;
        let until = self.until();
        let response = self.speaker.post(&written, until).await?;
        if !response.status().is_success() {
            self.away = matches!(response.status().as_u16(), 503 | 529);
            return Err(self.speaker.refused(response).await);
        }
        Ok((response, written.warnings))
    }

    /// The same for a later batch: the earlier ones are paid, so a vendor that is busy is waited for.
    async fn insist(&mut self) -> Result<Response, BackendError> {
        let mut tries = 1;
        loop {
            let error = match self.ask().await {
                Ok((response, _)) => return Ok(response),
                Err(error) => error,
            };
            let wait = match error.retry {
                Retry::After(wait) => wait,
                Retry::No | Retry::Elsewhere => FIRST_WAIT * (1 << (tries - 1)),
            };
            let fits = |deadline: Instant| deadline.checked_duration_since(Instant::now() + wait);
            let in_time = self.deadline.is_none_or(|deadline| fits(deadline).is_some());
            let passes = error.kind == ErrorKind::Busy || self.away;
            if !passes || tries == TRIES || wait > LONGEST_WAIT || !in_time {
                return Err(error);
            }
            sleep(wait).await;
            tries += 1;
        }
    }

    fn batch(&self) -> Batch<'_> {
        let texts = &self.texts[self.done..self.asked];
        Batch {
            texts: texts.iter().map(Private::expose).collect(),
            query: self.query.as_ref().map(Private::expose),
            dimensions: self.dimensions,
            normalise: self.normalise,
            pooling: self.pooling,
            truncate: self.truncate,
        }
    }

    fn until(&self) -> Instant {
        let patience = Instant::now() + self.speaker.patience.whole;
        self.deadline.map_or(patience, |deadline| deadline.min(patience))
    }

    async fn next(&mut self) -> Option<Result<Event, BackendError>> {
        if self.ready.is_empty() && !self.over {
            let told = match self.go_on().await {
                Ok(event) => Ok(event),
                Err(error) => {
                    self.over = true;
                    Err(error)
                }
            };
            self.ready.push_back(told);
        }
        self.ready.pop_front()
    }

    /// The next batch's vectors or scores, or the end.
    async fn go_on(&mut self) -> Result<Event, BackendError> {
        let response = match self.response.take() {
            Some(response) => response,
            None if self.done == self.texts.len() => return Ok(self.end()),
            None => self.insist().await?,
        };
        let body = self.body(response).await?;
        let protocol = &self.speaker.protocol;
        let told = |error| self.error_in(&body).unwrap_or(error);
        match self.query {
            None => {
                let made = protocol.read_vectors(&body).map_err(told)?;
                self.take(made)
            }
            Some(_) => {
                let scored = protocol.read_scores(&body).map_err(told)?;
                self.take_scores(scored)
            }
        }
    }

    /// What a vendor says that refuses with a status that is none.
    fn error_in(&self, body: &str) -> Option<BackendError> {
        let body: Value = serde_json::from_str(body).ok()?;
        body.get("error")?;
        Some(failed(self.speaker.protocol.error_code(&body).as_deref()))
    }

    async fn body(&self, mut response: Response) -> Result<String, BackendError> {
        let name = &self.speaker.endpoint.name;
        let mut body = Vec::new();
        loop {
            let idle = Instant::now() + self.speaker.patience.idle;
            let until = self.deadline.map_or(idle, |deadline| deadline.min(idle));
            match timeout_at(until, response.chunk()).await {
                Ok(Ok(Some(bytes))) => body.extend_from_slice(&bytes),
                Ok(Ok(None)) => break,
                Ok(Err(error)) => {
                    let broke = upstream(format!("the answer of {name} broke off"));
                    return Err(broke.with_source(error.without_url()));
                }
                Err(_) => return Err(silent(name)),
            }
            if body.len() > MOST_BYTES {
                return Err(upstream(format!("the answer of {name} is too long")));
            }
        }
        String::from_utf8(body).map_err(|_| upstream(format!("the answer of {name} is no text")))
    }

    /// Takes what was made of the batch, where it can be that.
    fn take(&mut self, made: Made) -> Result<Event, BackendError> {
        let Made { mut vectors, prompt_tokens } = made;
        let wrong = |what: &str| upstream(format!("{} sent {what}", self.speaker.endpoint.name));
        if vectors.len() != self.asked - self.done {
            return Err(wrong("another number of vectors than of texts"));
        }
        let wanted = self.dimensions.and_then(|wanted| usize::try_from(wanted).ok());
        let length = wanted.or(self.length).or_else(|| vectors.first().map(Vec::len)).unwrap_or(0);
        if length == 0 || vectors.iter().any(|vector| vector.len() != length) {
            return Err(wrong("vectors of another length than was asked for, or of several"));
        }
        if length > LONGEST_VECTOR {
            return Err(wrong("vectors that are too long"));
        }
        if vectors.iter().flatten().any(|number| !number.is_finite()) {
            return Err(wrong("vectors that are no numbers"));
        }
        if self.normalise {
            let off = |vector: &&mut Vec<f32>| (texts::length(vector) - 1.0).abs() > UNIT;
            vectors.iter_mut().filter(off).for_each(|vector| texts::normalise(vector));
        }
        self.length = Some(length);
        self.add(prompt_tokens);
        Ok(Event::Vectors(vectors))
    }

    /// The same of scores.
    fn take_scores(&mut self, scored: Scored) -> Result<Event, BackendError> {
        let Scored { scores, prompt_tokens } = scored;
        let wrong = |what: &str| upstream(format!("{} sent {what}", self.speaker.endpoint.name));
        if scores.len() != self.asked {
            return Err(wrong("another number of scores than of documents"));
        }
        if scores.iter().any(|score| !score.is_finite()) {
            return Err(wrong("scores that are no numbers"));
        }
        self.add(prompt_tokens);
        Ok(Event::Scores(scores))
    }

    /// The batch is there, and took so many tokens, where they can be as many.
    fn add(&mut self, prompt_tokens: Option<Tokens>) {
        let bytes: usize = self.batch().texts.iter().map(|text| text.len()).sum();
        let can_be = |told: &Tokens| {
            usize::try_from(told.0).is_ok_and(|told| told > 0 && told >= bytes / LONGEST_TOKEN)
        };
        let sum = |one: Tokens, more: Tokens| Tokens(one.0.saturating_add(more.0));
        let told = self.prompt_tokens.zip(prompt_tokens.filter(can_be));
        self.prompt_tokens = told.map(|(one, more)| sum(one, more));
        self.done = self.asked;
    }

    fn end(&mut self) -> Event {
        self.over = true;
        let prompt_tokens = self.prompt_tokens.unwrap_or_default();
        let prefill = self.since.elapsed();
        let finished = Event::Finished(Box::new(Finished {
            reason: FinishReason::EndOfTurn,
            usage: Usage { prompt_tokens, ..Usage::default() },
            timing: Timing { prefill, ..Timing::default() },
            seed: 0,
            peak_memory: None,
            receipt: None,
        }));
        if self.prompt_tokens.is_some() {
            return finished;
        }
        self.ready.push_back(Ok(Event::Warning(USAGE_UNKNOWN.to_owned())));
        finished
    }
}
