//! A machine that keeps models by name: what a server asks of it.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use futures_core::Stream;

use crate::wire::{Input, Reply, Work};
use crate::{
    Asker, Backend, BackendError, Bytes, Digest, ErrorKind, Event, EventStream, FinishReason,
    Finished, HeldAdapter, LoadedModel, Message, OnDevice, Pooling, Private, ProcessMemory, Prompt,
    Request, RunnerBuild, Started, Texts, Timing, Tokens, Tool, Usage, Zone,
};

/// Which model is asked for, and how it is to be loaded where it is not in memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The model's name.
    pub name: String,
    /// At least so long a context, or as long a one as the model was trained for; `None` takes the usual one.
    pub context: Option<Tokens>,
    /// How long to keep it in memory after this; `None` takes the usual time.
    pub keep: Option<Keep>,
    /// Loaded to make vectors or scores rather than text.
    pub vectors: Option<Pooling>,
    /// Names of special tokens in a text to go on from are these tokens, where [`Named`] answers: whoever asks a host
    /// itself gives it the tokens.
    pub special: bool,
}

/// How long a model stays in memory after its last use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// So long, unless others need the room.
    For(Duration),
    /// Until it is told to leave.
    Forever,
}

impl Wanted {
    /// A model by its name, loaded as usual.
    pub fn named(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }
}

/// A model that can be asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelCard {
    /// Its name.
    pub name: String,
    /// What its file holds.
    pub digest: Digest,
    /// How long its file is.
    pub size: Bytes,
    /// Where its bytes came from.
    pub source: String,
    /// The terms of use, where they are known.
    pub licence: Option<String>,
    /// The architecture, such as `llama`.
    pub architecture: Option<String>,
    /// The quantisation, such as `Q4_K_M`.
    pub quantisation: Option<String>,
    /// How many weights it has.
    pub parameters: Option<u64>,
    /// The longest context that it was trained for.
    pub context_length: Option<Tokens>,
    /// The length of its vectors.
    pub embedding_length: Option<u32>,
    /// When it came here, in seconds since 1970.
    pub created_at_unix_s: i64,
    /// What it can do.
    pub abilities: Abilities,
}

/// What a model can do, as its file says; whether it does it well is another matter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Abilities {
    /// It writes text.
    pub completion: bool,
    /// It has a chat template.
    pub chat: bool,
    /// Its template knows tools.
    pub tools: bool,
    /// Its template knows thoughts.
    pub thinking: bool,
    /// It fills gaps.
    pub insert: bool,
    /// It was made to turn texts into vectors.
    pub embedding: bool,
    /// It was made to score texts against a query.
    pub rerank: bool,
}

/// A model in detail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelDetails {
    /// In short.
    pub card: ModelCard,
    /// Its chat template, as its file has it.
    pub template: Option<String>,
    /// The file's other entries, each value as JSON text; long lists are left out.
    pub metadata: Vec<(String, String)>,
}

/// A model in memory, and what computes it.
#[derive(Clone, Debug, PartialEq)]
pub struct Served {
    /// Its name.
    pub name: String,
    /// What its file holds.
    pub digest: Digest,
    /// What the runner is made of.
    pub build: RunnerBuild,
    /// What was loaded, with the effective context.
    pub loaded: LoadedModel,
}

/// A model that takes memory, or is about to.
#[derive(Clone, Debug, PartialEq)]
pub struct Residence {
    /// Its name.
    pub name: String,
    /// What its file holds.
    pub digest: Digest,
    /// `loading`, `ready` or `ending`.
    pub phase: &'static str,
    /// What it is planned to take.
    pub planned: Bytes,
    /// What it takes of devices' own memory, where it does.
    pub devices: Vec<OnDevice>,
    /// What was loaded, once it is.
    pub served: Option<Arc<Served>>,
    /// The adapters that it holds.
    pub adapters: Vec<HeldAdapter>,
    /// Requests that it answers.
    pub busy: usize,
    /// Requests that wait for it.
    pub waiting: usize,
    /// Loads so far.
    pub loads: u64,
    /// Computed tokens that its runner dropped before there was time to write them to the cache on disk.
    pub unwritten: u64,
    /// What its process has allocated, and may, where the system tells.
    pub memory: Option<ProcessMemory>,
    /// It never leaves by itself.
    pub pinned: bool,
    /// How long until it leaves if nobody asks; `None`: when others need the room, or it is pinned.
    pub leaves_in: Option<Duration>,
}

/// A device with memory of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceUse {
    /// Its name.
    pub name: String,
    /// What all models may take of it; `None`: it does not say how much it has.
    pub budget: Option<Bytes>,
    /// What they take, by their plans.
    pub taken: Bytes,
}

/// A model that left memory, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Departure {
    /// Which.
    pub name: String,
    /// Why, in a few words.
    pub reason: String,
    /// The model that the reason names.
    pub other: Option<String>,
    /// How long ago.
    pub ago: Duration,
}

/// What is in memory.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HostStatus {
    /// What all models may take.
    pub budget: Bytes,
    /// What they take, by their plans.
    pub taken: Bytes,
    /// The same of each device with memory of its own.
    pub devices: Vec<DeviceUse>,
    /// The models in memory.
    pub models: Vec<Residence>,
    /// Who left lately, the oldest first.
    pub departures: Vec<Departure>,
    /// What files hold that were found to take more than all models may, with the context that is usual.
    pub unfit: Vec<Digest>,
}

/// Vectors, one for each text.
#[derive(Clone, Debug, PartialEq)]
pub struct Vectors {
    /// The vectors.
    pub vectors: Vec<Vec<f32>>,
    /// Tokens read.
    pub prompt_tokens: Tokens,
}

/// Scores, one for each text.
#[derive(Clone, Debug, PartialEq)]
pub struct Scores {
    /// The scores: higher is better.
    pub scores: Vec<f32>,
    /// Tokens read.
    pub prompt_tokens: Tokens,
}

/// Keeps models by name and has them work. Two there are: this machine, and what tests script.
///
/// A name that no model has is [`ErrorKind::NotFound`] from every method. A model that is not in memory is
/// loaded first.
#[async_trait]
pub trait Host: fmt::Debug + Send + Sync {
    /// The models that can be asked for.
    async fn models(&self) -> Result<Vec<ModelCard>, BackendError>;

    /// One of them in detail.
    async fn describe(&self, name: &str) -> Result<ModelDetails, BackendError>;

    /// Refuses what a model cannot answer whatever becomes of it, as far as that is known before it is loaded: its
    /// name, its context, whether it writes text and has a chat template, and what is out of range.
    async fn check(&self, wanted: &Wanted, request: &Request) -> Result<(), BackendError>;

    /// Loads a model where it is not in memory, and says what it is. One that is to be kept for no time is kept as
    /// usual until what follows.
    async fn ready(&self, wanted: &Wanted) -> Result<Arc<Served>, BackendError>;

    /// Has a model answer. Dropping the stream cancels the work.
    async fn run(&self, wanted: &Wanted, request: Request) -> Result<EventStream, BackendError>;

    /// Has a model do work with a single reply. Dropping the future cancels it.
    async fn work(&self, wanted: &Wanted, work: Work) -> Result<Reply, BackendError>;

    /// What is in memory.
    async fn status(&self) -> Result<HostStatus, BackendError>;

    /// Has a model leave memory when what it answers now is answered. One that is not there is no error.
    async fn unload(&self, name: &str) -> Result<(), BackendError>;
}

impl dyn Host {
    /// One vector for each text.
    ///
    /// # Errors
    /// The model makes no vectors, a text is empty or too long, or the runner died.
    pub async fn embed(
        &self,
        wanted: &Wanted,
        texts: Vec<Input>,
        normalise: bool,
        asker: Asker,
    ) -> Result<Vectors, BackendError> {
        match self.work(wanted, Work::Embed { texts, normalise, asker }).await? {
            Reply::Embeddings { vectors, prompt_tokens } => Ok(Vectors { vectors, prompt_tokens }),
            _ => Err(unexpected()),
        }
    }

    /// How well each text answers the query.
    ///
    /// # Errors
    /// The model is no reranker, a text is too long, or the runner died.
    pub async fn rank(
        &self,
        wanted: &Wanted,
        query: Private,
        texts: Vec<Private>,
        asker: Asker,
    ) -> Result<Scores, BackendError> {
        match self.work(wanted, Work::Rank { query, texts, asker }).await? {
            Reply::Scores { scores, prompt_tokens } => Ok(Scores { scores, prompt_tokens }),
            _ => Err(unexpected()),
        }
    }

    /// The tokens of a text; `special` is whether to add BOS and EOS where the model's file asks for them,
    /// and whether to read special tokens' names in the text as these tokens.
    ///
    /// # Errors
    /// The runner died.
    pub async fn tokenize(
        &self,
        wanted: &Wanted,
        text: Private,
        special: (bool, bool),
    ) -> Result<Vec<u32>, BackendError> {
        let (add_special, parse_special) = special;
        match self.work(wanted, Work::Tokenize { text, add_special, parse_special }).await? {
            Reply::Tokens(tokens) => Ok(tokens),
            _ => Err(unexpected()),
        }
    }

    /// The text of tokens, special ones by name where asked for.
    ///
    /// # Errors
    /// A token is unknown, or the runner died.
    pub async fn detokenize(
        &self,
        wanted: &Wanted,
        tokens: Vec<u32>,
        special: bool,
    ) -> Result<Private, BackendError> {
        match self.work(wanted, Work::Detokenize { tokens, special }).await? {
            Reply::Text(text) => Ok(text),
            _ => Err(unexpected()),
        }
    }

    /// A conversation as the model's chat template writes it.
    ///
    /// # Errors
    /// The model has no template, the template refuses, or the runner died.
    pub async fn render(
        &self,
        wanted: &Wanted,
        messages: Vec<Message>,
        tools: Vec<Tool>,
    ) -> Result<Private, BackendError> {
        match self.work(wanted, Work::Render { messages, tools }).await? {
            Reply::Text(text) => Ok(text),
            _ => Err(unexpected()),
        }
    }

    /// The length of a request's prompt, rendered and tokenised, whether it fits or not.
    ///
    /// # Errors
    /// The request is invalid, the model has no template for it, or the runner died.
    pub async fn count(&self, wanted: &Wanted, request: Request) -> Result<Tokens, BackendError> {
        match self.work(wanted, Work::Count(Box::new(request))).await? {
            Reply::Count(tokens) => Ok(tokens),
            _ => Err(unexpected()),
        }
    }
}

fn unexpected() -> BackendError {
    BackendError::new(ErrorKind::Internal, "the model sent a reply of another kind")
}

/// One model of a host, as a [`Backend`].
#[derive(Clone, Debug)]
pub struct Named {
    host: Arc<dyn Host>,
    wanted: Wanted,
}

impl Named {
    /// The model that is wanted.
    pub fn new(host: Arc<dyn Host>, wanted: Wanted) -> Self {
        Self { host, wanted }
    }
}

#[async_trait]
impl Backend for Named {
    fn name(&self) -> &str {
        &self.wanted.name
    }

    fn zone(&self) -> Zone {
        Zone::Host
    }

    async fn run(&self, request: Request) -> Result<EventStream, BackendError> {
        let asker = request.asker();
        match request.prompt {
            Prompt::Texts(texts) => Ok(Box::pin(self.texts(texts, asker))),
            _ => self.host.run(&self.wanted, self.read(request).await?).await,
        }
    }
}

impl Named {
    /// Makes a text's tokens the prompt, where the special ones among them are to be read.
    async fn read(&self, mut request: Request) -> Result<Request, BackendError> {
        if let (true, Prompt::Text(text)) = (self.wanted.special, &request.prompt) {
            let tokens = self.host.tokenize(&self.wanted, text.clone(), (true, true)).await?;
            // No tokens are no prompt; the text is refused where it is one.
            if !tokens.is_empty() {
                request.prompt = Prompt::Tokens(tokens);
            }
        }
        Ok(request)
    }

    /// What is wanted of texts, made once somebody waits for it.
    fn texts(&self, texts: Texts, asker: Asker) -> Making {
        let host = Arc::clone(&self.host);
        let wanted = Wanted { vectors: Some(texts.loaded()), ..self.wanted.clone() };
        let work = async move {
            match host.work(&wanted, texts.into_work(asker)?).await? {
                Reply::Embeddings { vectors, prompt_tokens } => {
                    Ok(told(Event::Vectors(vectors), prompt_tokens))
                }
                Reply::Scores { scores, prompt_tokens } => {
                    Ok(told(Event::Scores(scores), prompt_tokens))
                }
                _ => Err(unexpected()),
            }
        };
        Making { work: Some(Box::pin(work)), ready: VecDeque::new() }
    }
}

type MakingTexts = Pin<Box<dyn Future<Output = Result<[Event; 3], BackendError>> + Send>>;

/// Vectors or scores on their way, as an answer. Dropping it cancels the work.
struct Making {
    /// `None`: it is over.
    work: Option<MakingTexts>,
    ready: VecDeque<Result<Event, BackendError>>,
}

impl Stream for Making {
    type Item = Result<Event, BackendError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(work) = &mut self.work {
            let made = ready!(work.as_mut().poll(context));
            self.work = None;
            match made {
                Ok(made) => self.ready.extend(made.map(Ok)),
                Err(error) => self.ready.push_back(Err(error)),
            }
        }
        Poll::Ready(self.ready.pop_front())
    }
}

/// What was made, as the events of an answer.
fn told(made: Event, prompt_tokens: Tokens) -> [Event; 3] {
    let finished = Finished {
        reason: FinishReason::EndOfTurn,
        usage: Usage { prompt_tokens, ..Usage::default() },
        timing: Timing::default(),
        seed: 0,
        peak_memory: None,
        receipt: None,
    };
    [
        Event::Started(Started { prompt_tokens, ..Started::default() }),
        made,
        Event::Finished(Box::new(finished)),
    ]
}
