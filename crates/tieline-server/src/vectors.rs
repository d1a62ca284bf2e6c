//! Vectors and scores of texts for all dialects: of a model of this machine, or of whom the policy chooses.

use futures_util::StreamExt;
use tieline_router::Routed;
use tieline_types::wire::Reply;
use tieline_types::{
    Backend, BackendError, ErrorKind, Event, Overflow, Prompt, Request, Texts, Tokens, Wanted,
};

use crate::app::App;
use crate::caller::Caller;
use crate::error::ApiError;
use crate::heads::Marks;
use crate::open;
use crate::routes::Dialect;

/// Texts, of which model their vectors or scores are wanted, and what becomes of one that is too long for somebody
/// else's.
pub(crate) struct Ask {
    pub(crate) wanted: Wanted,
    pub(crate) texts: Texts,
    pub(crate) overflow: Overflow,
}

/// Vectors or scores, and who made them.
pub(crate) struct Made {
    pub(crate) vectors: Vec<Vec<f32>>,
    pub(crate) scores: Vec<f32>,
    pub(crate) prompt_tokens: Tokens,
    pub(crate) marks: Marks,
}

/// One vector or score for each text, within the time that a request may take. A model of this machine gives them in
/// full length.
pub(crate) async fn make(
    app: &App,
    caller: &Caller,
    (dialect, operation): (Dialect, &'static str),
    ask: Ask,
) -> Result<Made, ApiError> {
    let Ask { wanted, texts, overflow } = ask;
    let wanted = Wanted { vectors: Some(texts.loaded()), ..wanted };
    let request = Request {
        // No token is written, so none is reserved or waited for.
        max_tokens: Some(Tokens(0)),
        whole: true,
        overflow,
        ..Request::new(Prompt::Texts(texts))
    };
    let request = open::finish(app, caller, request)?;
    let call = open::call(caller, (dialect, operation), wanted);
    let routed = app.router().decide(call, &request).await?;
    let most = request.deadline.unwrap_or(app.config().limits.request);
    let making = async {
        match routed.is_here() {
            true => here(routed, request).await,
            false => elsewhere(routed, request).await,
        }
    };
    tokio::select! {
        made = tokio::time::timeout(most, making) => match made {
            Ok(made) => Ok(made?),
            Err(_) => {
                let text = format!("the work took longer than {} s", most.as_secs_f32());
                Err(BackendError::new(ErrorKind::Timeout, text).into())
            }
        },
        () = app.stop().cancelled() => {
            Err(BackendError::new(ErrorKind::Unavailable, "the server is stopping").into())
        }
    }
}

async fn here(mut routed: Routed, request: Request) -> Result<Made, BackendError> {
    let asker = request.asker();
    let Prompt::Texts(texts) = request.prompt else { return Err(unexpected()) };
    let work = texts.into_work(asker)?;
    let served = routed.ready().await?;
    let marks = Marks::here(&served);
    match routed.work(work).await? {
        Reply::Embeddings { vectors, prompt_tokens } => {
            Ok(Made { vectors, scores: Vec::new(), prompt_tokens, marks })
        }
        Reply::Scores { scores, prompt_tokens } => {
            Ok(Made { vectors: Vec::new(), scores, prompt_tokens, marks })
        }
        _ => Err(unexpected()),
    }
}

async fn elsewhere(routed: Routed, request: Request) -> Result<Made, BackendError> {
    let decision = Some(routed.decision().clone());
    let mut events = routed.run(request).await?;
    let (mut vectors, mut scores, mut warnings) = (Vec::new(), Vec::new(), Vec::new());
    let mut read = None;
    while let Some(event) = events.next().await {
        match event? {
            Event::Vectors(more) => vectors.extend(more),
            Event::Scores(all) => scores = all,
            Event::Warning(text) => warnings.push(text),
            Event::Finished(finished) => read = Some(finished.usage.prompt_tokens),
            _ => {}
        }
    }
    let Some(prompt_tokens) = read else {
        return Err(BackendError::new(ErrorKind::Internal, "the answer has no end"));
    };
    let answering = routed.answering();
    let marks = Marks { decision, answering, warnings, ..Marks::default() };
    Ok(Made { vectors, scores, prompt_tokens, marks })
}

fn unexpected() -> BackendError {
    BackendError::new(ErrorKind::Internal, "the model sent a reply of another kind")
}
