//! Vectors of texts for all dialects: of a model of this machine, or of whom the policy chooses.

use futures_util::StreamExt;
use tieline_router::Routed;
use tieline_types::wire::{Reply, Work};
use tieline_types::{
    Backend, BackendError, ErrorKind, Event, Overflow, Prompt, Request, Texts, Tokens, Vectors,
    Wanted,
};

use crate::app::App;
use crate::caller::Caller;
use crate::error::ApiError;
use crate::heads::Marks;
use crate::open;
use crate::routes::Dialect;

/// Texts, of which model vectors are wanted, and what becomes of one that is too long for somebody else's.
pub(crate) struct Ask {
    pub(crate) wanted: Wanted,
    pub(crate) texts: Texts,
    pub(crate) overflow: Overflow,
}

/// Vectors, and who made them.
pub(crate) struct Made {
    pub(crate) vectors: Vec<Vec<f32>>,
    pub(crate) prompt_tokens: Tokens,
    pub(crate) marks: Marks,
}

/// One vector for each text, within the time that a request may take. A model of this machine gives them in full length.
pub(crate) async fn make(
    app: &App,
    caller: &Caller,
    (dialect, operation): (Dialect, &'static str),
    ask: Ask,
) -> Result<Made, ApiError> {
    let Ask { wanted, texts, overflow } = ask;
    let request = Request {
        // No token is written, so none is reserved or waited for.
        max_tokens: Some(Tokens(0)),
        whole: true,
        overflow,
        ..Request::new(Prompt::Texts(texts))
    };
    let request = open::finish(app, caller, request);
    let call = open::call(caller, (dialect, operation), wanted);
    let routed = app.router().decide(call, &request).await?;
    let most = app.config().limits.request;
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
                let text = format!("the work took longer than {} s", most.as_secs());
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
    let Prompt::Texts(Texts { inputs: texts, normalise, dimensions: _ }) = request.prompt else {
        return Err(unexpected());
    };
    let served = routed.ready().await?;
    let reply = routed.work(Work::Embed { texts, normalise, asker }).await?;
    let Reply::Embeddings { vectors, prompt_tokens } = reply else { return Err(unexpected()) };
    Ok(Made { vectors, prompt_tokens, marks: Marks::here(&served) })
}

async fn elsewhere(routed: Routed, request: Request) -> Result<Made, BackendError> {
    let decision = Some(routed.decision().clone());
    let mut events = routed.run(request).await?;
    let mut made = Vectors { vectors: Vec::new(), prompt_tokens: Tokens(0) };
    let (mut warnings, mut ended) = (Vec::new(), false);
    while let Some(event) = events.next().await {
        match event? {
            Event::Vectors(more) => made.vectors.extend(more),
            Event::Warning(text) => warnings.push(text),
            Event::Finished(finished) => {
                made.prompt_tokens = finished.usage.prompt_tokens;
                ended = true;
            }
            _ => {}
        }
    }
    if !ended {
        return Err(BackendError::new(ErrorKind::Internal, "the vectors have no end"));
    }
    let Vectors { vectors, prompt_tokens } = made;
    let marks = Marks { decision, warnings, ..Marks::default() };
    Ok(Made { vectors, prompt_tokens, marks })
}

fn unexpected() -> BackendError {
    BackendError::new(ErrorKind::Internal, "the model sent a reply of another kind")
}
