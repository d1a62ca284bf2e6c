//! A protocol, a vendor that speaks it, and what is heard.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use testkit::vendor::{Script, Vendor};
use tieline_privacy::{Guard, GuardLimits, Guarded, Release, RootKey, Session, Treatment};
use tieline_providers::anthropic::Anthropic;
use tieline_providers::gemini::Gemini;
use tieline_providers::ollama::Ollama;
use tieline_providers::openai::{FLAVOURS, OpenAi};
use tieline_providers::protocol::Protocol;
use tieline_providers::responses::Responses;
use tieline_providers::{Endpoint, Patience, Secret, Speaker, Transport};
use tieline_types::{
    Backend, BackendError, Event, EventStream, Finished, Message, Prompt, Request, Role, Tokens,
    ToolCallStep, Zone,
};

/// One protocol under the contract, with answers in frames or in one piece.
#[derive(Clone, Debug)]
pub(crate) struct Subject {
    pub(crate) name: String,
    pub(crate) whole: bool,
    pub(crate) model: &'static str,
    pub(crate) protocol: Arc<dyn Protocol>,
    pub(crate) tells: Tells,
}

/// What a vendor has words for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tells {
    /// How many tokens it read from its cache.
    pub(crate) cached: bool,
    /// How many it wrote to it.
    pub(crate) cache_write: bool,
    /// How many it thought with.
    pub(crate) reasoning: bool,
    /// An answer that was filtered.
    pub(crate) filtered: bool,
    /// The ids of calls.
    pub(crate) ids: bool,
    /// A JSON Schema.
    pub(crate) schema: bool,
    /// Tools.
    pub(crate) tools: bool,
}

const ALL: Tells = Tells {
    cached: true,
    cache_write: true,
    reasoning: true,
    filtered: true,
    ids: true,
    schema: true,
    tools: true,
};

/// Every protocol, both ways.
pub(crate) fn subjects() -> Vec<Subject> {
    [streamed(), whole()].concat()
}

/// Every protocol, asked for answers in one piece.
pub(crate) fn whole() -> Vec<Subject> {
    let whole = |subject: Subject| {
        let name = format!("{}, whole", subject.name);
        Subject { name, whole: true, ..subject }
    };
    streamed().into_iter().map(whole).collect()
}

/// Every protocol, asked for streams. A new one is a line here and a file of the vendor's.
pub(crate) fn streamed() -> Vec<Subject> {
    let flavours = FLAVOURS.iter().map(|flavour| {
        let schema = !matches!(flavour.name, "deepseek" | "replicate");
        let tells = Tells { schema, tools: flavour.name != "replicate", ..ALL };
        subject(flavour.name, "model", OpenAi::new(flavour), tells)
    });
    let short = Tells { cached: false, cache_write: false, reasoning: false, ..ALL };
    let ollama = Tells { filtered: false, ids: false, ..short };
    let others = [
        subject("ollama", "model", Ollama::new(None), ollama),
        subject("anthropic", "claude-sonnet-4-5", Anthropic, ALL),
        subject(
            "gemini",
            "gemini-2.5-flash",
            Gemini::default(),
            Tells { cache_write: false, ..ALL },
        ),
        subject("responses", "gpt-5.1", Responses, ALL),
    ];
    flavours.chain(others).collect()
}

fn subject(
    name: &'static str,
    model: &'static str,
    protocol: impl Protocol + 'static,
    tells: Tells,
) -> Subject {
    Subject { name: name.to_owned(), whole: false, model, protocol: Arc::new(protocol), tells }
}

impl Subject {
    /// The request, with this subject's wish for how the answer comes. The limit is one that all of them answer
    /// below in one piece.
    pub(crate) fn wish(&self, request: Request) -> Request {
        let most = self.whole.then_some(Tokens(1000)).or(request.max_tokens);
        Request { whole: self.whole, max_tokens: most, ..request }
    }
}

thread_local! {
    /// A test's own: building one reads all certificates, and connections belong to a runtime.
    static TRANSPORT: Transport = Transport::new();
    /// One too: its detectors are hundreds of patterns.
    static GUARD: Arc<Guard> =
        Arc::new(Guard::new(Arc::default(), RootKey::new([7; 32]), GuardLimits::default()));
}

/// The key that every request bears.
pub(crate) const KEY: &str = "CANARY-of-the-key";

/// A backend at this URL. `patient`: it waits longer than any test does.
pub(crate) fn backend(subject: &Subject, url: &str, patient: bool) -> impl Backend + use<> {
    let wait = if patient { Duration::from_secs(600) } else { Duration::from_millis(100) };
    waiting(subject, url, (Duration::from_secs(30), wait))
}

/// A backend at this URL, which waits so long for a connection and for anything else.
pub(crate) fn waiting(
    subject: &Subject,
    url: &str,
    times: (Duration, Duration),
) -> impl Backend + use<> {
    guarded(subject, url, times).released(release(Treatment::AsIs))
}

/// A backend at this URL that sees pseudonyms.
pub(crate) fn redacting(subject: &Subject, url: &str) -> impl Backend + use<> {
    let times = (Duration::from_secs(30), Duration::from_secs(600));
    guarded(subject, url, times).released(release(Treatment::Redacted))
}

fn release(treatment: Treatment) -> Release {
    Release { treatment, rule: "test".to_owned(), session: Session::named("test") }
}

fn guarded(subject: &Subject, url: &str, (connect, wait): (Duration, Duration)) -> Guarded {
    let endpoint = Endpoint {
        name: "vendor/model".to_owned(),
        zone: Zone::Cloud,
        base_url: url.to_owned(),
        key: Some(Secret::new(KEY)),
        model: subject.model.to_owned(),
        headers: Vec::new(),
        connect,
    };
    let protocol = Arc::clone(&subject.protocol);
    let speaker = TRANSPORT.with(|transport| Speaker::new(endpoint, protocol, transport));
    let speaker = speaker.unwrap().with_patience(Patience { head: wait, idle: wait, whole: wait });
    Guarded::new(Arc::new(speaker), GUARD.with(Arc::clone))
}

/// A question of one turn.
pub(crate) fn question() -> Request {
    Request::new(Prompt::Chat(vec![Message::new(Role::User, "CANARY-of-the-prompt")]))
}

/// What was heard of an answer.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    pub(crate) text: String,
    pub(crate) reasoning: String,
    /// `id`, `name`, `arguments`, and whether the call ended.
    pub(crate) calls: Vec<(String, String, String, bool)>,
    pub(crate) warnings: Vec<String>,
    pub(crate) vectors: Vec<Vec<f32>>,
    pub(crate) scores: Vec<f32>,
    pub(crate) started: usize,
    /// One, if all is well.
    ends: Vec<Result<Finished, BackendError>>,
    after_end: usize,
}

impl Heard {
    #[track_caller]
    pub(crate) fn finished(&self) -> &Finished {
        assert_eq!((self.ends.len(), self.after_end, self.started), (1, 0, 1), "{self:?}");
        self.ends[0].as_ref().unwrap()
    }

    #[track_caller]
    pub(crate) fn error(&self) -> &BackendError {
        assert_eq!((self.ends.len(), self.after_end), (1, 0), "{self:?}");
        self.ends[0].as_ref().unwrap_err()
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Started(_) => {
                let nothing = self.text.is_empty() && self.calls.is_empty();
                assert!(nothing && self.reasoning.is_empty());
                self.started += 1;
            }
            Event::Piece(piece) => self.text.push_str(piece.text.expose()),
            Event::Reasoning(piece) => self.reasoning.push_str(piece.text.expose()),
            Event::Warning(text) => self.warnings.push(text),
            Event::Vectors(more) => self.vectors.extend(more),
            Event::Scores(all) => self.scores.extend(all),
            Event::ToolCall(ToolCallStep::Begin { index, id, name }) => {
                assert_eq!(usize::try_from(index).unwrap(), self.calls.len());
                self.calls.push((id, name, String::new(), false));
            }
            Event::ToolCall(ToolCallStep::Arguments { index, text }) => {
                self.calls[usize::try_from(index).unwrap()].2.push_str(text.expose());
            }
            Event::ToolCall(ToolCallStep::End { index }) => {
                let ended = &mut self.calls[usize::try_from(index).unwrap()].3;
                assert!(!std::mem::replace(ended, true));
            }
            Event::Finished(finished) => self.ends.push(Ok(*finished)),
            other => panic!("{other:?}"),
        }
    }
}

/// Everything that a stream says.
pub(crate) async fn hear(mut stream: EventStream) -> Heard {
    let mut heard = Heard::default();
    while let Some(event) = stream.next().await {
        if !heard.ends.is_empty() {
            heard.after_end += 1;
            continue;
        }
        match event {
            Ok(event) => heard.event(event),
            Err(error) => heard.ends.push(Err(error)),
        }
    }
    heard
}

/// The answer to `request` of a vendor with this script. A refusal is an end too.
pub(crate) async fn ask(subject: &Subject, script: Script, request: Request) -> (Heard, Vendor) {
    ask_as(subject, script, request, true).await
}

/// The same of a backend that waits for nobody.
pub(crate) async fn ask_impatiently(subject: &Subject, script: Script) -> (Heard, Vendor) {
    ask_impatiently_for(subject, script, question()).await
}

/// The same for this request.
pub(crate) async fn ask_impatiently_for(
    subject: &Subject,
    script: Script,
    request: Request,
) -> (Heard, Vendor) {
    ask_as(subject, script, request, false).await
}

async fn ask_as(
    subject: &Subject,
    script: Script,
    request: Request,
    patient: bool,
) -> (Heard, Vendor) {
    let vendor = Vendor::start(script).await;
    let heard = match backend(subject, &vendor.url, patient).run(subject.wish(request)).await {
        Ok(stream) => hear(stream).await,
        Err(error) => Heard { ends: vec![Err(error)], ..Heard::default() },
    };
    (heard, vendor)
}
