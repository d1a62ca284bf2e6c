//! A vendor on this machine: answers in every dialect from one script, in frames or in one piece, fails as it is
//! told, and keeps what it was asked, what it should be paid and who went away.
//!
//! The path of a request chooses the dialect. Each connection carries one request.

mod anthropic;
mod connection;
mod gemini;
mod ollama;
mod openai;
mod responses;
mod vectors;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use connection::serve;
pub use vectors::{score, vector};

/// A step of an answer, in no vendor's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// More text.
    Text(String),
    /// More of the thoughts.
    Reasoning(String),
    /// A call begins.
    Call {
        /// Its number, from 0.
        index: usize,
        /// Its id.
        id: String,
        /// The tool's name.
        name: String,
    },
    /// More of a call's arguments: JSON text.
    Arguments {
        /// The call's number.
        index: usize,
        /// The text.
        text: String,
    },
}

/// Why the answer ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum End {
    /// The model is done, or waits for its calls.
    #[default]
    Done,
    /// The limit of tokens.
    Length,
    /// A filter.
    Filtered,
}

/// What the answer truly used, in tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Truth {
    /// The whole prompt.
    pub prompt: u32,
    /// Of it, read from the cache.
    pub cached: u32,
    /// Of it, written to the cache.
    pub cache_write: u32,
    /// The whole answer.
    pub completion: u32,
    /// Of it, thoughts.
    pub reasoning: u32,
}

/// What goes wrong. Of an answer in one piece, what is said of frames holds for bytes, of which never all come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    #[default]
    None,
    /// This status, with this `Retry-After` where there is one, and an error object with this code.
    Status {
        /// The status.
        status: u16,
        /// The header's value.
        retry_after: Option<String>,
        /// The code in the error object. Its message is [`CANARY`].
        code: String,
    },
    /// The prompt is refused as too long, in the vendor's own words; [`CANARY`] stands after them.
    TooLong,
    /// The connection is closed before the head.
    Close,
    /// Nothing comes.
    HangBeforeHead,
    /// The head comes and so many frames, then nothing.
    HangAfter(usize),
    /// So many frames come, then the connection breaks.
    CutAfter(usize),
    /// So many frames come, then one that is none.
    BrokenAfter(usize),
    /// So many frames come, then the vendor's error object with [`CANARY`] as its message. Of an answer in one
    /// piece it is all that comes.
    ErrorAfter(usize),
    /// All comes but the frames that end an answer; the body itself ends well.
    NoEnd,
    /// This page comes in place of the answer, with status 200.
    Page(&'static str),
    /// No usage is told.
    NoUsage,
    /// The usage that is told is this.
    WrongUsage(Truth),
    /// The usage that is told is below nothing. In OpenAI's dialects alone; the others tell the truth.
    NegativeUsage,
    /// The last text has no vector.
    VectorMissing,
    /// The last vector is shorter than the others.
    VectorShort,
    /// All vectors are longer than any model's.
    VectorLong,
    /// The last vector holds what is no number: in OpenAI's dialect as base64 alone, since JSON has no word for it; the
    /// others say a number beyond all that there are.
    VectorNan,
    /// Two vectors have the same number. In OpenAI's dialect alone; the others number none.
    VectorTwice,
}

/// Stands in the text of each error, as a vendor that repeats the prompt would write it.
pub const CANARY: &str = "CANARY-of-the-prompt";

/// What is answered.
#[derive(Clone, Debug, Default)]
pub struct Script {
    /// The answer.
    pub steps: Vec<Step>,
    /// Why it ends.
    pub end: End,
    /// What it used.
    pub usage: Truth,
    /// What goes wrong.
    pub fault: Fault,
    /// How long before each frame.
    pub pace: Option<Duration>,
    /// Writes one byte at a time.
    pub drip: bool,
    /// Answers in frames, also who asks for an answer in one piece.
    pub only_frames: bool,
}

impl Script {
    /// An answer of these pieces of text, which used 7 and 3 tokens.
    pub fn text(pieces: &[&str]) -> Self {
        let steps = pieces.iter().map(|&piece| Step::Text(piece.to_owned())).collect();
        Self {
            usage: Truth { prompt: 7, completion: 3, ..Truth::default() },
            steps,
            ..Self::default()
        }
    }

    /// The same, and this goes wrong.
    #[must_use]
    pub fn failing(mut self, fault: Fault) -> Self {
        self.fault = fault;
        self
    }

    /// The answer's text.
    fn said(&self) -> String {
        let text = |step: &Step| match step {
            Step::Text(text) => Some(text.clone()),
            Step::Reasoning(_) | Step::Call { .. } | Step::Arguments { .. } => None,
        };
        self.steps.iter().filter_map(text).collect()
    }

    /// The answer's thoughts.
    fn thought(&self) -> String {
        let text = |step: &Step| match step {
            Step::Reasoning(text) => Some(text.clone()),
            Step::Text(_) | Step::Call { .. } | Step::Arguments { .. } => None,
        };
        self.steps.iter().filter_map(text).collect()
    }

    /// What each call has, made by `write` from its number, id, name and arguments.
    fn each_call<T>(&self, write: impl Fn(usize, &str, &str, &str) -> T) -> Vec<T> {
        let call = |step: &Step| match step {
            Step::Call { index, id, name } => {
                Some(write(*index, id, name, &self.arguments_of(*index)))
            }
            Step::Text(_) | Step::Reasoning(_) | Step::Arguments { .. } => None,
        };
        self.steps.iter().filter_map(call).collect()
    }

    /// The arguments of a call, joined.
    fn arguments_of(&self, call: usize) -> String {
        let part = |step: &Step| match step {
            Step::Arguments { index, text } if *index == call => Some(text.clone()),
            Step::Arguments { .. } | Step::Text(_) | Step::Reasoning(_) | Step::Call { .. } => None,
        };
        self.steps.iter().filter_map(part).collect()
    }

    /// Whether the answer says that it ended.
    fn ends(&self) -> bool {
        self.fault != Fault::NoEnd
    }

    fn calls(&self) -> bool {
        self.steps.iter().any(|step| matches!(step, Step::Call { .. }))
    }

    /// What is told of the usage.
    fn told(&self) -> Option<Truth> {
        match &self.fault {
            Fault::NoUsage => None,
            Fault::WrongUsage(usage) => Some(*usage),
            _ => Some(self.usage),
        }
    }
}

/// A vendor's way of speaking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// OpenAI's chat completions.
    Chat,
    /// OpenAI's older completions.
    Completions,
    /// OpenAI's responses.
    Responses,
    /// Anthropic's messages.
    Anthropic,
    /// Gemini's `streamGenerateContent` and `generateContent`.
    Gemini,
    /// Ollama's chat.
    Ollama,
    /// OpenAI's vectors.
    Embeddings,
    /// Scores in Cohere's and Jina's form.
    Rerank,
    /// Gemini's vectors.
    GeminiEmbeddings,
    /// Ollama's vectors.
    OllamaEmbeddings,
}

impl Dialect {
    fn of(path: &str) -> Option<Self> {
        let path = path.split('?').next().unwrap_or_default();
        let dialects = [
            ("/chat/completions", Self::Chat),
            ("/completions", Self::Completions),
            ("/responses", Self::Responses),
            ("/messages", Self::Anthropic),
            (":streamGenerateContent", Self::Gemini),
            (":generateContent", Self::Gemini),
            ("/api/chat", Self::Ollama),
            ("/embeddings", Self::Embeddings),
            ("/rerank", Self::Rerank),
            (":batchEmbedContents", Self::GeminiEmbeddings),
            ("/api/embed", Self::OllamaEmbeddings),
        ];
        dialects.iter().find(|(end, _)| path.ends_with(end)).map(|&(_, dialect)| dialect)
    }

    /// The frames of an answer, as bytes; and how many of them at the end say that it ended.
    fn frames(self, script: &Script) -> (Vec<String>, usize) {
        match self {
            Self::Chat => openai::chat(script),
            Self::Completions => openai::completions(script),
            Self::Responses => responses::frames(script),
            Self::Anthropic => anthropic::frames(script),
            Self::Gemini => gemini::frames(script),
            Self::Ollama => ollama::frames(script),
            // They come in one piece alone.
            Self::Embeddings | Self::Rerank | Self::GeminiEmbeddings | Self::OllamaEmbeddings => {
                (Vec::new(), 0)
            }
        }
    }

    /// The answer in one piece, to what was asked.
    fn whole(self, script: &Script, asked: &serde_json::Value) -> serde_json::Value {
        match self {
            Self::Chat => openai::whole_chat(script),
            Self::Completions => openai::whole_completion(script),
            Self::Responses => responses::whole(script),
            Self::Anthropic => anthropic::whole(script),
            Self::Gemini => gemini::whole(script),
            Self::Ollama => ollama::whole(script),
            Self::Embeddings => vectors::openai(script, asked),
            Self::Rerank => vectors::rerank(script, asked),
            Self::GeminiEmbeddings => vectors::gemini(script, asked),
            Self::OllamaEmbeddings => vectors::ollama(script, asked),
        }
    }

    /// Whether an answer in one piece is asked for. Without a word of it, most vendors mean so; Ollama does not.
    fn wants_whole(self, captured: &Captured) -> bool {
        match self {
            Self::Gemini => captured.path.contains(":generateContent"),
            Self::Ollama => captured.json()["stream"] == false,
            Self::Chat | Self::Completions | Self::Responses | Self::Anthropic => {
                captured.json()["stream"] != true
            }
            Self::Embeddings | Self::Rerank | Self::GeminiEmbeddings | Self::OllamaEmbeddings => {
                true
            }
        }
    }

    /// The vendor's error object.
    fn error(self, code: &str) -> serde_json::Value {
        use serde_json::json;
        match self {
            Self::Chat | Self::Completions | Self::Responses | Self::Embeddings | Self::Rerank => {
                json!({"error": {"message": CANARY, "type": "mock_error", "param": null, "code": code}})
            }
            Self::Anthropic => json!({"type": "error", "error": {"type": code, "message": CANARY}}),
            Self::Gemini | Self::GeminiEmbeddings => {
                json!({"error": {"code": 500, "message": CANARY, "status": code}})
            }
            Self::Ollama | Self::OllamaEmbeddings => json!({"error": CANARY}),
        }
    }

    /// The vendor's refusal of a prompt that is too long.
    fn too_long(self) -> serde_json::Value {
        use serde_json::json;
        let said = |words: &str| format!("{words} {CANARY}");
        match self {
            Self::Chat | Self::Completions | Self::Responses | Self::Embeddings | Self::Rerank => {
                json!({"error": {
                    "message": said("This model's maximum context length is 8192 tokens."),
                    "type": "invalid_request_error", "param": "messages",
                    "code": "context_length_exceeded"
                }})
            }
            Self::Anthropic => json!({"type": "error", "error": {
                "type": "invalid_request_error",
                "message": said("prompt is too long: 212121 tokens > 200000 maximum")
            }}),
            Self::Gemini | Self::GeminiEmbeddings => json!({"error": {
                "code": 400, "status": "INVALID_ARGUMENT",
                "message": said(
                    "The input token count (1300000) exceeds the maximum number of tokens allowed (1048575)."
                )
            }}),
            Self::Ollama | Self::OllamaEmbeddings => {
                json!({"error": said("prompt too long; exceeded max context length by 4096 tokens")})
            }
        }
    }

    /// A frame that says that the vendor failed.
    fn error_frame(self) -> String {
        let error = self.error("mock_failure");
        match self {
            Self::Ollama | Self::OllamaEmbeddings => format!("{error}\n"),
            Self::Anthropic => format!("event: error\ndata: {error}\n\n"),
            Self::Responses => {
                let error = serde_json::json!({
                    "type": "error", "code": "mock_failure", "message": CANARY, "param": null
                });
                format!("event: error\ndata: {error}\n\n")
            }
            Self::Chat
            | Self::Completions
            | Self::Gemini
            | Self::Embeddings
            | Self::Rerank
            | Self::GeminiEmbeddings => format!("data: {error}\n\n"),
        }
    }

    fn content_type(self) -> &'static str {
        match self {
            Self::Ollama => "application/x-ndjson",
            Self::Chat | Self::Completions | Self::Responses | Self::Anthropic | Self::Gemini => {
                "text/event-stream; charset=utf-8"
            }
            Self::Embeddings | Self::Rerank | Self::GeminiEmbeddings | Self::OllamaEmbeddings => {
                "application/json"
            }
        }
    }
}

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Captured {
    /// Every byte of it.
    pub raw: Vec<u8>,
    /// `POST`.
    pub method: String,
    /// The path, with what follows `?`.
    pub path: String,
    /// The headers, their names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Captured {
    /// The first header of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(header, _)| header == name);
        found.map(|(_, value)| value.as_str())
    }

    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

/// How an exchange ended, for the vendor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All was sent.
    Whole,
    /// It went wrong as the script says.
    Failed,
    /// The client went away before.
    Disconnected,
}

/// One line of the vendor's own account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// How the exchange ended.
    pub outcome: Outcome,
    /// What the vendor will charge.
    pub usage: Truth,
}

/// What a vendor remembers.
#[derive(Debug, Default)]
struct Memory {
    captured: Vec<Captured>,
    ledger: Vec<Entry>,
}

#[derive(Debug)]
struct State {
    scripts: Mutex<Vec<Script>>,
    memory: Mutex<Memory>,
    /// Exchanges that ended.
    ended: watch::Sender<usize>,
}

impl State {
    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn scripts(&self) -> MutexGuard<'_, Vec<Script>> {
        self.scripts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a request; what it is answered with.
    fn capture(&self, captured: Captured) -> Script {
        let mut memory = self.memory();
        let scripts = self.scripts();
        let number = memory.captured.len().min(scripts.len().saturating_sub(1));
        memory.captured.push(captured);
        scripts.get(number).cloned().unwrap_or_default()
    }

    fn account(&self, entry: Entry) {
        self.memory().ledger.push(entry);
        self.ended.send_modify(|ended| *ended += 1);
    }
}

/// A vendor that listens on a port of this machine until it is dropped.
#[derive(Debug)]
pub struct Vendor {
    /// Where, such as `http://127.0.0.1:4711`. Protocols whose base ends in `/v1` may add it.
    pub url: String,
    state: Arc<State>,
    _tasks: JoinSet<()>,
}

impl Vendor {
    /// A vendor that answers each request so.
    ///
    /// # Panics
    /// No port of this machine can be had.
    pub async fn start(script: Script) -> Self {
        Self::start_each(vec![script]).await
    }

    /// A vendor that answers the requests with these in turn; the last is repeated.
    ///
    /// # Panics
    /// No port of this machine can be had.
    pub async fn start_each(scripts: Vec<Script>) -> Self {
        let (listener, url) = listen().await;
        let scripts = Mutex::new(scripts);
        let state =
            Arc::new(State { scripts, memory: Mutex::default(), ended: watch::Sender::new(0) });
        let mut tasks = JoinSet::new();
        let shared = Arc::clone(&state);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, Arc::clone(&shared)));
                while connections.try_join_next().is_some() {}
            }
        });
        Self { url, state, _tasks: tasks }
    }

    /// The URL of a port that nobody listens on.
    ///
    /// # Panics
    /// No port of this machine can be had.
    pub async fn refusing() -> String {
        listen().await.1
    }

    /// Answers so from now on.
    pub fn answers(&self, script: Script) {
        *self.state.scripts() = vec![script];
    }

    /// Answers the requests with these in turn, counted from its first one; the last is repeated.
    pub fn answers_each(&self, scripts: Vec<Script>) {
        *self.state.scripts() = scripts;
    }

    /// All requests so far.
    pub fn captured(&self) -> Vec<Captured> {
        self.state.memory().captured.clone()
    }

    /// What the vendor will charge for, in the order of the ends.
    pub fn ledger(&self) -> Vec<Entry> {
        self.state.memory().ledger.clone()
    }

    /// Waits until so many exchanges have ended.
    pub async fn ended(&self, exchanges: usize) {
        let mut ended = self.state.ended.subscribe();
        // The sender lives as long as `self`.
        let _ = ended.wait_for(|&ended| ended >= exchanges).await;
    }
}

async fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await;
    let listener = listener.unwrap_or_else(|error| crate::fail(&format!("cannot listen: {error}")));
    let address = listener.local_addr();
    let address = address.unwrap_or_else(|error| crate::fail(&format!("has no address: {error}")));
    (listener, format!("http://{address}"))
}
