//! A host whose models say what a test tells them to, and remember what they were asked.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use futures_core::Stream;
use tieline_types::wire::{Input, Reply, Work};
use tieline_types::{
    Abilities, BackendError, Bytes, Departure, DeviceUse, Digest, ErrorKind, Event, EventStream,
    FinishReason, Finished, HeldAdapter, Host, HostStatus, Jail, LoadedModel, ModelCard,
    ModelDetails, OnDevice, Piece, ProcessMemory, Prompt, Request, Residence, Role, RunnerBuild,
    Served, Started, Timing, TokenLogprob, Tokens, ToolCallStep, Usage, Wanted,
};

/// The context of every scripted model.
pub const CONTEXT: Tokens = Tokens(4096);

/// A step of a scripted answer.
#[derive(Clone, Debug)]
pub enum Step {
    /// This comes.
    Say(Event),
    /// Nothing comes for so long.
    Wait(Duration),
    /// The answer breaks off.
    Fail(ErrorKind, &'static str),
    /// Nothing comes any more.
    Hang,
    /// Whoever waits for it panics.
    Panic,
}

/// Models by name, and their answers. As in the store, a name's case says nothing.
#[derive(Clone, Debug, Default)]
pub struct Scripted {
    models: BTreeMap<String, Vec<Step>>,
    refusals: BTreeMap<String, (ErrorKind, &'static str)>,
    busy: BTreeMap<String, usize>,
    callers: BTreeSet<String>,
    seen: Arc<Mutex<Vec<(Wanted, Request)>>>,
    works: Arc<Mutex<Vec<(Wanted, Work)>>>,
    unloaded: Arc<Mutex<Vec<String>>>,
    dropped: Arc<AtomicUsize>,
    forgets: bool,
    loading: BTreeMap<String, Loading>,
    departures: Vec<Departure>,
}

/// What loading a model is like.
#[derive(Clone, Copy, Debug)]
struct Loading {
    takes: Duration,
    /// It is known before that nothing can be answered.
    refusal: Option<(ErrorKind, &'static str)>,
}

impl Scripted {
    /// One model named `mock`, which says "Hello there." in three pieces.
    pub fn hello() -> Self {
        Self::default().with("mock", text(&["Hello", " there", "."]))
    }

    /// With a model that answers so.
    #[must_use]
    pub fn with(mut self, name: &str, steps: Vec<Step>) -> Self {
        self.models.insert(name.to_owned(), steps);
        self
    }

    /// With a model that begins so, with a call of a tool, and then repeats what the tool said.
    #[must_use]
    pub fn calling(mut self, name: &str, steps: Vec<Step>) -> Self {
        self.callers.insert(name.to_owned());
        self.with(name, steps)
    }

    /// With a model that refuses every request.
    #[must_use]
    pub fn refusing(mut self, name: &str, kind: ErrorKind, message: &'static str) -> Self {
        self.models.insert(name.to_owned(), Vec::new());
        self.refusals.insert(name.to_owned(), (kind, message));
        self
    }

    /// With a model that left memory for another.
    #[must_use]
    pub fn displaced(mut self, name: &str, other: &str) -> Self {
        self.departures.push(Departure {
            name: name.to_owned(),
            reason: format!("{other} needed the room"),
            other: Some(other.to_owned()),
            ago: Duration::from_secs(1),
        });
        self
    }

    /// With a model that is long in loading and of which it is known before that it refuses every request.
    #[must_use]
    pub fn refusing_early(
        mut self,
        name: &str,
        takes: Duration,
        (kind, message): (ErrorKind, &'static str),
    ) -> Self {
        self.loading.insert(name.to_owned(), Loading { takes, refusal: Some((kind, message)) });
        self.refusing(name, kind, message)
    }

    /// With loading that model taking so long.
    #[must_use]
    pub fn loading(mut self, name: &str, takes: Duration) -> Self {
        self.loading.insert(name.to_owned(), Loading { takes, refusal: None });
        self
    }

    /// With a model that says that it is at so many requests.
    #[must_use]
    pub fn busy(mut self, name: &str, requests: usize) -> Self {
        self.busy.insert(name.to_owned(), requests);
        self
    }

    /// Remembers nothing of what it is asked: for load without end.
    #[must_use]
    pub fn forgetful(self) -> Self {
        Self { forgets: true, ..self }
    }

    /// What was asked so far.
    pub fn seen(&self) -> Vec<(Wanted, Request)> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The last request.
    ///
    /// # Panics
    /// Nothing was asked.
    #[expect(clippy::expect_used, reason = "for tests")]
    pub fn last(&self) -> Request {
        self.seen().pop().expect("a request").1
    }

    /// Single work so far.
    pub fn works(&self) -> Vec<(Wanted, Work)> {
        self.works.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Models that were told to leave.
    pub fn unloaded(&self) -> Vec<String> {
        self.unloaded.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Answers that were dropped before their end.
    pub fn dropped(&self) -> usize {
        self.dropped.load(Ordering::Relaxed)
    }

    fn known(&self, name: &str) -> Result<&Vec<Step>, BackendError> {
        self.models.get(&name.to_ascii_lowercase()).ok_or_else(|| {
            BackendError::new(ErrorKind::NotFound, format!("no model {name:?} is here"))
                .with_hint(format!("tieline pull {name}"))
        })
    }

    fn card(name: &str) -> ModelCard {
        ModelCard {
            name: name.to_owned(),
            digest: Digest([7; 32]),
            size: Bytes(98_362_432),
            source: "file:mock.gguf".to_owned(),
            licence: Some("apache-2.0".to_owned()),
            architecture: Some("llama".to_owned()),
            quantisation: Some("Q4_1".to_owned()),
            parameters: Some(134_515_008),
            context_length: Some(Tokens(8192)),
            embedding_length: Some(4),
            created_at_unix_s: 1_790_000_000,
            abilities: Abilities {
                completion: true,
                chat: true,
                tools: true,
                thinking: true,
                insert: true,
                embedding: false,
                rerank: false,
            },
        }
    }

    fn served(name: &str) -> Served {
        Served {
            name: name.to_owned(),
            digest: Digest([7; 32]),
            build: RunnerBuild::default(),
            loaded: LoadedModel {
                description: "mock".to_owned(),
                parameters: 134_515_008,
                weights: Bytes(98_000_000),
                context: CONTEXT,
                trained_context: Tokens(8192),
                vocabulary: Tokens(49_152),
                embedding_length: 4,
                has_chat_template: true,
                kv_tokens: CONTEXT,
                kv_token_size: Bytes(1),
                parallel: 8,
                threads: 1,
                threads_batch: 1,
                load_time: Duration::from_millis(5),
                architecture: "llama".to_owned(),
                jail: Jail::none("nothing runs here"),
                ..LoadedModel::default()
            },
        }
    }
}

#[async_trait]
impl Host for Scripted {
    async fn models(&self) -> Result<Vec<ModelCard>, BackendError> {
        Ok(self.models.keys().map(|name| Self::card(name)).collect())
    }

    async fn describe(&self, name: &str) -> Result<ModelDetails, BackendError> {
        self.known(name)?;
        let metadata = [
            ("general.architecture", "\"llama\""),
            ("llama.context_length", "8192"),
            ("tokenizer.ggml.eos_token_id", "2"),
        ];
        Ok(ModelDetails {
            card: Self::card(name),
            template: Some(
                "{% for message in messages %}{{ message.content }}{% endfor %}".to_owned(),
            ),
            metadata: metadata.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec(),
        })
    }

    async fn check(&self, wanted: &Wanted, _: &Request) -> Result<(), BackendError> {
        self.known(&wanted.name)?;
        match self.loading.get(&wanted.name) {
            Some(Loading { refusal: Some((kind, message)), .. }) => {
                Err(BackendError::new(*kind, *message))
            }
            _ => Ok(()),
        }
    }

    async fn ready(&self, wanted: &Wanted) -> Result<Arc<Served>, BackendError> {
        self.known(&wanted.name)?;
        if let Some(Loading { takes, .. }) = self.loading.get(&wanted.name) {
            tokio::time::sleep(*takes).await;
        }
        let mut served = Self::served(&wanted.name.to_ascii_lowercase());
        if let Some(context) = wanted.context {
            served.loaded.context = context.max(CONTEXT);
        }
        Ok(Arc::new(served))
    }

    async fn run(&self, wanted: &Wanted, request: Request) -> Result<EventStream, BackendError> {
        let steps = self.known(&wanted.name)?.clone();
        request
            .validate()
            .map_err(|error| BackendError::new(ErrorKind::InvalidRequest, error.to_string()))?;
        if request.pictures().next().is_some() {
            let text = "the models of this machine read text alone: they see no pictures";
            return Err(BackendError::new(ErrorKind::Unsupported, text));
        }
        let calls = self.callers.contains(&wanted.name.to_ascii_lowercase());
        let repeated = if calls { tool_said(&request).map(|said| text(&[said])) } else { None };
        if !self.forgets {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.push((wanted.clone(), request));
        }
        if let Some((kind, message)) = self.refusals.get(&wanted.name) {
            return Err(BackendError::new(*kind, *message));
        }
        let steps = repeated.unwrap_or(steps);
        Ok(answer(steps, Arc::clone(&self.dropped)))
    }

    async fn work(&self, wanted: &Wanted, work: Work) -> Result<Reply, BackendError> {
        self.known(&wanted.name)?;
        if let Some((kind, message)) = self.refusals.get(&wanted.name) {
            return Err(BackendError::new(*kind, *message));
        }
        let reply = reply(&work);
        self.works.lock().unwrap_or_else(PoisonError::into_inner).push((wanted.clone(), work));
        Ok(reply)
    }

    async fn status(&self) -> Result<HostStatus, BackendError> {
        let residence = |name: &String| Residence {
            name: name.clone(),
            digest: Digest([7; 32]),
            phase: "ready",
            planned: Bytes(200_000_000),
            devices: vec![OnDevice { name: "G0".to_owned(), bytes: Bytes(7_000_000) }],
            served: Some(Arc::new(Self::served(name))),
            adapters: vec![HeldAdapter { digest: Digest([9; 32]), bytes: Bytes(5) }],
            busy: self.busy.get(name).copied().unwrap_or(0),
            waiting: 0,
            loads: 1,
            unwritten: 5,
            memory: Some(ProcessMemory {
                allocated: Bytes(100_000_000),
                limit: Some(Bytes(1_300_000_000)),
            }),
            pinned: false,
            leaves_in: Some(Duration::from_secs(300)),
        };
        Ok(HostStatus {
            budget: Bytes(1_000_000_000),
            taken: Bytes(200_000_000),
            devices: vec![DeviceUse {
                name: "G0".to_owned(),
                budget: Some(Bytes(8_000_000)),
                taken: Bytes(7_000_000),
            }],
            models: self.models.keys().map(residence).collect(),
            departures: self.departures.clone(),
            unfit: Vec::new(),
        })
    }

    async fn unload(&self, name: &str) -> Result<(), BackendError> {
        self.known(name)?;
        self.unloaded.lock().unwrap_or_else(PoisonError::into_inner).push(name.to_owned());
        Ok(())
    }
}

/// What the last tool said, if one did.
fn tool_said(request: &Request) -> Option<&str> {
    let Prompt::Chat(messages) = &request.prompt else { return None };
    let last = messages.iter().rev().find(|message| message.role == Role::Tool)?;
    Some(last.content.expose())
}

/// What a scripted model makes of single work: a token is a word.
fn reply(work: &Work) -> Reply {
    let words = |text: &str| u32::try_from(text.split_whitespace().count()).unwrap_or(u32::MAX);
    match work {
        Work::Embed { texts, .. } => {
            let length = |text: &Input| match text {
                Input::Text(text) => words(text.expose()),
                Input::Tokens(tokens) => u32::try_from(tokens.len()).unwrap_or(u32::MAX),
            };
            Reply::Embeddings {
                vectors: texts.iter().map(|_| vec![0.5, 0.5, -0.5, 0.5]).collect(),
                prompt_tokens: Tokens(texts.iter().map(length).sum()),
            }
        }
        Work::Tokenize { text, .. } => Reply::Tokens((1..=words(text.expose())).collect()),
        Work::Detokenize { tokens, .. } => {
            Reply::Text(tokens.iter().map(|token| format!("w{token} ")).collect::<String>().into())
        }
        Work::Render { messages, .. } => {
            let texts = messages.iter().map(|message| message.content.expose());
            Reply::Text(texts.collect::<Vec<_>>().join("\n").into())
        }
        Work::Rank { texts, .. } => {
            let score = |(at, _)| f32::from(u8::try_from(at).unwrap_or(u8::MAX));
            Reply::Scores {
                scores: texts.iter().enumerate().map(score).collect(),
                prompt_tokens: Tokens(texts.iter().map(|text| words(text.expose())).sum()),
            }
        }
        Work::Count(request) => Reply::Count(Tokens(match &request.prompt {
            Prompt::Chat(messages) => {
                messages.iter().map(|message| words(message.content.expose())).sum()
            }
            Prompt::Text(text) => words(text.expose()),
            Prompt::Tokens(tokens) | Prompt::Rendered(tokens) => {
                u32::try_from(tokens.len()).unwrap_or(u32::MAX)
            }
            Prompt::Infill { prefix, suffix } => words(prefix.expose()) + words(suffix.expose()),
            Prompt::Texts(_) => 0,
        })),
        Work::Generate(_) | Work::Measure { .. } => Reply::Tokens(Vec::new()),
    }
}

/// An answer of these steps; `dropped` counts it where it is dropped before its end.
pub(crate) fn answer(steps: Vec<Step>, dropped: Arc<AtomicUsize>) -> EventStream {
    Box::pin(Answer { steps: steps.into(), wait: None, over: false, dropped })
}

/// A scripted answer on its way.
struct Answer {
    steps: VecDeque<Step>,
    wait: Option<Pin<Box<tokio::time::Sleep>>>,
    over: bool,
    dropped: Arc<AtomicUsize>,
}

impl Drop for Answer {
    fn drop(&mut self) {
        if !self.over {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Stream for Answer {
    type Item = Result<Event, BackendError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(wait) = &mut self.wait {
                if wait.as_mut().poll(context).is_pending() {
                    return Poll::Pending;
                }
                self.wait = None;
            }
            if self.over {
                return Poll::Ready(None);
            }
            match self.steps.pop_front() {
                None => {
                    self.over = true;
                    let missing = BackendError::new(ErrorKind::Internal, "the script has no end");
                    return Poll::Ready(Some(Err(missing)));
                }
                Some(Step::Wait(time)) => self.wait = Some(Box::pin(tokio::time::sleep(time))),
                Some(Step::Hang) => {
                    self.steps.push_front(Step::Hang);
                    return Poll::Pending;
                }
                Some(Step::Panic) => break_down(),
                Some(Step::Fail(kind, message)) => {
                    self.over = true;
                    return Poll::Ready(Some(Err(BackendError::new(kind, message))));
                }
                Some(Step::Say(event)) => {
                    self.over = matches!(event, Event::Finished(_));
                    return Poll::Ready(Some(Ok(event)));
                }
            }
        }
    }
}

/// The prompt is read: 9 tokens, of which 4 were cached.
pub fn started() -> Step {
    Step::Say(Event::Started(Started {
        prompt_tokens: Tokens(9),
        cached_tokens: Tokens(4),
        ..Started::default()
    }))
}

/// Some text of one token, with its log-probability.
pub fn piece(text: &str) -> Step {
    let entry = TokenLogprob {
        token: 1,
        bytes: text.as_bytes().to_vec(),
        logprob: -0.5,
        alternatives: Vec::new(),
    };
    Step::Say(Event::Piece(Piece { text: text.into(), logprobs: vec![entry] }))
}

/// How likely the prompt's tokens are: from its second on.
pub fn prompt_logprobs(tokens: &[(&str, f32)]) -> Step {
    let entry = |&(text, logprob): &(&str, f32)| TokenLogprob {
        token: 1,
        bytes: text.as_bytes().to_vec(),
        logprob,
        alternatives: Vec::new(),
    };
    Step::Say(Event::PromptLogprobs(tokens.iter().map(entry).collect()))
}

/// Some thought.
pub fn thought(text: &str) -> Step {
    Step::Say(Event::Reasoning(Piece { text: text.into(), logprobs: Vec::new() }))
}

/// A whole call of a tool, its arguments in two pieces.
pub fn call(index: u32, id: &str, name: &str, arguments: [&str; 2]) -> Vec<Step> {
    let begin = ToolCallStep::Begin { index, id: id.to_owned(), name: name.to_owned() };
    let piece = |text: &str| ToolCallStep::Arguments { index, text: text.into() };
    [begin, piece(arguments[0]), piece(arguments[1]), ToolCallStep::End { index }]
        .map(|step| Step::Say(Event::ToolCall(step)))
        .to_vec()
}

/// The end, after so many tokens.
pub fn finished(reason: FinishReason, completion_tokens: u32) -> Step {
    Step::Say(Event::Finished(Box::new(Finished {
        reason,
        usage: Usage {
            prompt_tokens: Tokens(9),
            cached_tokens: Tokens(4),
            completion_tokens: Tokens(completion_tokens),
            ..Usage::default()
        },
        timing: Timing {
            queue: Duration::from_micros(10),
            prefill: Duration::from_millis(5),
            decode: Duration::from_millis(20),
        },
        seed: 42,
        peak_memory: None,
        receipt: None,
    })))
}

/// An answer of these pieces, which ends as the model likes.
pub fn text(pieces: &[&str]) -> Vec<Step> {
    let count = u32::try_from(pieces.len()).unwrap_or(u32::MAX);
    let pieces = pieces.iter().map(|text| piece(text));
    [started()]
        .into_iter()
        .chain(pieces)
        .chain([finished(FinishReason::EndOfTurn, count)])
        .collect()
}

/// A backend with a defect.
#[expect(clippy::panic, reason = "what is tested is who survives it")]
fn break_down() -> ! {
    panic!("as the script says")
}
