//! Begins answers: has the model made ready, the request accepted, and the first event come, so that what can be
//! refused is refused with its status and not in the middle of a stream.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_core::Stream;
use futures_util::future::Either;
use futures_util::stream::{self, PollNext, StreamExt, select_with_strategy};
use tieline_router::{Call, Decision, Routed};
use tieline_types::wire::{Reply, Work};
use tieline_types::{
    Asker, Backend, BackendError, ChoiceEvent, ChoicePlan, ErrorKind, Event, Miss, Prompt, Request,
    Served, Started, Tokens, Wanted, choices,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::caller::Caller;
use crate::dialect::Dialect;
use crate::ends::ended;
use crate::error::ApiError;
use crate::heads::Marks;

/// Steps of one answer or several, as they come.
pub(crate) type Steps = Pin<Box<dyn Stream<Item = ChoiceEvent> + Send>>;

/// An answer that has begun.
pub(crate) struct Opened {
    /// Who answers, as far as that is known.
    pub(crate) marks: Marks,
    /// Each answer's steps; each ends with exactly one end.
    pub(crate) steps: Steps,
}

/// What is known once an answer has begun.
struct Begun {
    /// The model of this machine, where one answers.
    served: Option<Arc<Served>>,
    /// Who answers, where a policy decided.
    answering: Option<String>,
    /// The answer was kept from before.
    kept: bool,
    /// Why not more of the prompt was known.
    miss: Option<Miss>,
    steps: Steps,
}

impl Begun {
    fn marks(&self, decision: Option<Decision>) -> Marks {
        let (served, kept, miss) = (self.served.clone(), self.kept, self.miss);
        let answering = self.answering.clone();
        Marks { served, decision, answering, kept, miss, ..Marks::default() }
    }
}

/// What is asked of which model.
pub(crate) struct Ask {
    pub(crate) wanted: Wanted,
    pub(crate) request: Request,
    /// Several answers.
    pub(crate) plan: Option<ChoicePlan>,
}

impl Ask {
    /// One answer.
    pub(crate) fn one(wanted: Wanted, request: Request) -> Self {
        Self { wanted, request, plan: None }
    }
}

/// How a text to go on from is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Reading {
    /// Special tokens' names in it are plain text.
    #[default]
    Plain,
    /// Special tokens' names in it are these tokens: the caller wrote the template's words himself.
    Special,
}

/// The model of this machine that does work for this call.
pub(crate) fn route(
    app: &App,
    caller: &Caller,
    what: (Dialect, &'static str),
    wanted: Wanted,
) -> Result<Routed, ApiError> {
    Ok(app.router().route(call(caller, what, wanted))?)
}

/// Whoever would answer this request. Nobody is asked for that.
pub(crate) async fn decide(
    app: &App,
    caller: &Caller,
    what: (Dialect, &'static str),
    (wanted, request): (Wanted, &Request),
) -> Result<Routed, ApiError> {
    Ok(app.router().decide(call(caller, what, wanted), request).await?)
}

pub(crate) fn call(
    caller: &Caller,
    (dialect, operation): (Dialect, &'static str),
    wanted: Wanted,
) -> Call {
    Call {
        id: caller.request_id.clone(),
        key: caller.principal.id.clone(),
        label: caller.principal.label.clone(),
        allowed: caller.principal.models.clone(),
        dialect: dialect.as_str(),
        operation,
        wanted,
        hints: caller.hints.clone(),
    }
}

/// Begins an answer that is given whole: waits as long as it takes, and whoever answers may give it in one piece.
pub(crate) async fn whole(
    app: &App,
    caller: &Caller,
    what: (Dialect, &'static str),
    ask: Ask,
) -> Result<Opened, ApiError> {
    whole_of(app, caller, what, ask, Reading::Plain).await
}

/// As [`whole`], with the prompt read so.
pub(crate) async fn whole_of(
    app: &App,
    caller: &Caller,
    what: (Dialect, &'static str),
    mut ask: Ask,
    reading: Reading,
) -> Result<Opened, ApiError> {
    ask.request.whole = true;
    waited_of(app, caller, what, ask, reading).await
}

/// Begins an answer whose parts are shown as they come: waits as long as it takes.
pub(crate) async fn waited(
    app: &App,
    caller: &Caller,
    what: (Dialect, &'static str),
    ask: Ask,
) -> Result<Opened, ApiError> {
    waited_of(app, caller, what, ask, Reading::Plain).await
}

/// As [`waited`], with another reading of the prompt.
pub(crate) async fn waited_of(
    app: &App,
    caller: &Caller,
    what: (Dialect, &'static str),
    ask: Ask,
    reading: Reading,
) -> Result<Opened, ApiError> {
    let request = finish(app, caller, ask.request)?;
    let wanted = Wanted { special: reading == Reading::Special, ..ask.wanted };
    let routed = app.router().decide(call(caller, what, wanted), &request).await?;
    let decision = Some(routed.decision().clone());
    let begun = begin(app, routed, (request, reading), (ask.plan, None)).await?;
    Ok(Opened { marks: begun.marks(decision), steps: begun.steps })
}

/// Begins an answer that is given piece by piece: after some patience its errors come in the stream.
pub(crate) async fn streamed(
    app: &App,
    caller: &Caller,
    what: (Dialect, &'static str),
    ask: Ask,
) -> Result<Opened, ApiError> {
    streamed_of(app, caller, what, ask, Reading::Plain).await
}

/// As [`streamed`], with another reading of the prompt.
pub(crate) async fn streamed_of(
    app: &App,
    caller: &Caller,
    what: (Dialect, &'static str),
    ask: Ask,
    reading: Reading,
) -> Result<Opened, ApiError> {
    let request = finish(app, caller, ask.request)?;
    let wanted = Wanted { special: reading == Reading::Special, ..ask.wanted };
    let routed = app.router().decide(call(caller, what, wanted), &request).await?;
    let decision = Some(routed.decision().clone());
    let (places, queue) = watch::channel(None);
    let mut beginning = begin(app, routed, (request, reading), (ask.plan, Some(places)));
    match tokio::time::timeout(app.config().patience, &mut beginning).await {
        Ok(begun) => {
            let begun = begun?;
            Ok(Opened { marks: begun.marks(decision), steps: begun.steps })
        }
        Err(_) => {
            let later = stream::once(beginning).flat_map(|begun| match begun {
                Ok(Begun { steps, .. }) => Either::Left(steps),
                Err(error) => {
                    let end = ChoiceEvent { index: 0, event: Err(error) };
                    Either::Right(stream::iter([end]))
                }
            });
            // Where it stands is told before what comes of it.
            let waiting = stream::unfold(queue, |mut queue| async move {
                queue.changed().await.ok()?;
                let (index, position, expected_wait) = (*queue.borrow_and_update())?;
                let event = Ok(Event::Queued { position, expected_wait });
                Some((ChoiceEvent { index, event }, queue))
            });
            let steps = select_with_strategy(waiting, later, |(): &mut ()| PollNext::Left);
            // What is kept is there at once.
            let marks = Marks { decision, ..Marks::default() };
            Ok(Opened { marks, steps: Box::pin(steps) })
        }
    }
}

/// Who waits for work that is no answer, and how long a request may take.
///
/// # Errors
/// A header is none of its words.
pub(crate) fn asker(app: &App, caller: &Caller) -> Result<Asker, ApiError> {
    let nothing = Prompt::Tokens(Vec::new());
    Ok(finish(app, caller, Request::new(nothing))?.asker())
}

/// What every request gets, whatever its dialect. Refuses words of headers that nobody knows.
pub(crate) fn finish(
    app: &App,
    caller: &Caller,
    mut request: Request,
) -> Result<Request, ApiError> {
    request.owner = caller.owner();
    request.deadline = request.deadline.into_iter().chain([app.config().limits.request]).min();
    caller.wishes.apply(&mut request)?;
    Ok(request)
}

/// Who is told where a request stands that waits: which of its answers, how many before it, and how long it takes. The latest
/// counts.
type Places = watch::Sender<Option<(u32, u32, Option<Duration>)>>;

/// Begins an answer that ends with an error when the server has to stop.
fn begin(
    app: &App,
    routed: Routed,
    request: (Request, Reading),
    plan: (Option<ChoicePlan>, Option<Places>),
) -> Pin<Box<impl Future<Output = Result<Begun, BackendError>> + Send + use<>>> {
    let stop = app.stop().clone();
    // Kilobytes, which each handler around it would copy several times on their way to their own place.
    Box::pin(async move {
        let begun = tokio::select! {
            begun = begin_unstopped(routed, request, plan) => begun?,
            () = stop.cancelled() => return Err(stopping()),
        };
        Ok(Begun { steps: until_stopped(begun.steps, stop), ..begun })
    })
}

/// The same steps, and an error where the server has to stop before their end.
fn until_stopped(steps: Steps, stop: CancellationToken) -> Steps {
    let states = stream::unfold(Some((steps, stop)), |state| async move {
        let (mut steps, stop) = state?;
        tokio::select! {
            biased;
            step = steps.next() => Some((step?, Some((steps, stop)))),
            () = stop.cancelled() => {
                Some((ChoiceEvent { index: 0, event: Err(stopping()) }, None))
            }
        }
    });
    Box::pin(states)
}

/// What ends what is on its way.
pub(crate) fn stopping() -> BackendError {
    BackendError::new(ErrorKind::Unavailable, "the server is stopping")
}

/// Has the model made ready and the request accepted, and waits for the first event that is more than a place
/// in the queue.
async fn begin_unstopped(
    mut routed: Routed,
    (mut request, reading): (Request, Reading),
    (plan, places): (Option<ChoicePlan>, Option<Places>),
) -> Result<Begun, BackendError> {
    let served = match routed.is_here() {
        true => Some(routed.ready_for(&mut request).await?),
        false => None,
    };
    // Where a policy decides, each model of this machine that is asked does so itself; somebody else's has other tokens,
    // and reads the text as it reads any.
    if reading == Reading::Special && routed.is_here() {
        read_special(&routed, &mut request).await?;
    }
    let mut steps: Steps = match plan {
        Some(plan) => Box::pin(choices(&routed, request, plan).await?),
        None => {
            let events = routed.run(request).await?;
            Box::pin(events.map(|event| ChoiceEvent { index: 0, event }))
        }
    };
    let (mut first, mut miss) = (Vec::new(), None);
    while let Some(step) = steps.next().await {
        match step.event {
            Ok(Event::Queued { position, expected_wait }) => {
                let place = Some((step.index, position, expected_wait));
                places.as_ref().map(|places| places.send_replace(place));
            }
            // Of several answers too: a refusal has its status.
            Err(error) => return Err(error),
            event => {
                let left_out = match &event {
                    Ok(Event::Started(started)) => {
                        miss = started.miss;
                        left_out(started)
                    }
                    _ => None,
                };
                let index = step.index;
                first.push(ChoiceEvent { index, event });
                let warning = left_out.map(|text| Ok(Event::Warning(text)));
                first.extend(warning.map(|event| ChoiceEvent { index, event }));
                break;
            }
        }
    }
    let steps = Box::pin(stream::iter(first).chain(steps));
    let steps = ended(steps, plan.map_or(1, |plan| plan.n));
    let (answering, kept) = (routed.answering(), routed.is_given_again());
    Ok(Begun { served, answering, kept, miss: miss.filter(|_| !kept), steps })
}

/// What the caller is told of a prompt of which not all is read, in a dialect that has no place of its own for it too.
fn left_out(started: &Started) -> Option<String> {
    let Tokens(dropped) = started.dropped_tokens;
    if let Some(compacted) = &started.compacted {
        let cut = if compacted.cut { ", which was cut" } else { "" };
        let summary = match compacted.written_tokens {
            Tokens(0) => "a summary written before".to_owned(),
            Tokens(written) => format!("a summary of {written}"),
        };
        let messages = compacted.messages;
        return Some(format!(
            "the prompt did not fit: {messages} messages of {dropped} tokens are read as {summary}{cut}"
        ));
    }
    (dropped > 0).then(|| format!("the prompt did not fit: {dropped} tokens of it were left out"))
}

/// Makes a text's tokens the prompt, with the special ones among them.
async fn read_special(routed: &Routed, request: &mut Request) -> Result<(), BackendError> {
    let Prompt::Text(text) = &request.prompt else { return Ok(()) };
    let work = Work::Tokenize { text: text.clone(), add_special: true, parse_special: true };
    match routed.prepare(work).await? {
        // No tokens are no prompt; the text is refused where it is one.
        Reply::Tokens(tokens) if tokens.is_empty() => {}
        Reply::Tokens(tokens) => request.prompt = Prompt::Tokens(tokens),
        _ => {
            return Err(BackendError::new(ErrorKind::Internal, "the runner answered no tokens"));
        }
    }
    Ok(())
}
