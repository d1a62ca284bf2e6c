//! Begins answers: has the model made ready, the request accepted, and the first event come, so that what can be
//! refused is refused with its status and not in the middle of a stream.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_core::Stream;
use futures_util::future::Either;
use futures_util::stream::{self, StreamExt};
use tieline_router::{Call, Routed};
use tieline_types::{
    Backend, BackendError, ChoiceEvent, ChoicePlan, ErrorKind, Event, Request, Served, Wanted,
    choices,
};
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::caller::Caller;
use crate::error::ApiError;
use crate::routes::Dialect;

/// Steps of one answer or several, as they come.
pub(crate) type Steps = Pin<Box<dyn Stream<Item = ChoiceEvent> + Send>>;

/// An answer that has begun.
pub(crate) struct Opened {
    /// The model; `None` where it is still being loaded.
    pub(crate) served: Option<Arc<Served>>,
    /// Each answer's steps; each ends with exactly one end.
    pub(crate) steps: Steps,
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

/// Decides who answers this call.
pub(crate) fn route(
    app: &App,
    caller: &Caller,
    (dialect, operation): (Dialect, &'static str),
    wanted: Wanted,
) -> Result<Routed, ApiError> {
    let call = Call {
        id: caller.request_id.clone(),
        key: caller.principal.id.clone(),
        allowed: caller.principal.models.clone(),
        dialect: dialect.as_str(),
        operation,
        wanted,
    };
    Ok(app.router().route(call)?)
}

/// Begins an answer that is given whole: waits as long as it takes.
pub(crate) async fn whole(
    app: &App,
    caller: &Caller,
    what: (Dialect, &'static str),
    ask: Ask,
) -> Result<Opened, ApiError> {
    let routed = route(app, caller, what, ask.wanted)?;
    let request = finish(app, caller, ask.request);
    let stop = app.stop().clone();
    let (served, steps) = begin(routed, request, ask.plan, stop).await?;
    Ok(Opened { served: Some(served), steps })
}

/// Begins an answer that is given piece by piece: after some patience its errors come in the stream.
pub(crate) async fn streamed(
    app: &App,
    caller: &Caller,
    what: (Dialect, &'static str),
    ask: Ask,
) -> Result<Opened, ApiError> {
    let routed = route(app, caller, what, ask.wanted)?;
    let request = finish(app, caller, ask.request);
    let stop = app.stop().clone();
    let mut beginning = Box::pin(begin(routed, request, ask.plan, stop));
    match tokio::time::timeout(app.config().patience, &mut beginning).await {
        Ok(begun) => {
            let (served, steps) = begun?;
            Ok(Opened { served: Some(served), steps })
        }
        Err(_) => {
            let later = stream::once(beginning).flat_map(|begun| match begun {
                Ok((_, steps)) => Either::Left(steps),
                Err(error) => {
                    let end = ChoiceEvent { index: 0, event: Err(error) };
                    Either::Right(stream::iter([end]))
                }
            });
            Ok(Opened { served: None, steps: Box::pin(later) })
        }
    }
}

/// What every request gets, whatever its dialect.
fn finish(app: &App, caller: &Caller, mut request: Request) -> Request {
    let most: Duration = app.config().limits.request;
    request.owner = caller.owner();
    request.deadline = Some(request.deadline.map_or(most, |asked| asked.min(most)));
    if caller.class != tieline_types::Class::Interactive {
        request.class = caller.class;
    }
    request
}

/// Begins an answer that ends with an error when the server has to stop.
async fn begin(
    routed: Routed,
    request: Request,
    plan: Option<ChoicePlan>,
    stop: CancellationToken,
) -> Result<(Arc<Served>, Steps), BackendError> {
    let (served, steps) = tokio::select! {
        begun = begin_unstopped(routed, request, plan) => begun?,
        () = stop.cancelled() => return Err(stopping()),
    };
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
    Ok((served, Box::pin(states)))
}

fn stopping() -> BackendError {
    BackendError::new(ErrorKind::Unavailable, "the server is stopping")
}

/// Has the model made ready and the request accepted, and waits for the first event that is more than a place
/// in the queue.
async fn begin_unstopped(
    mut routed: Routed,
    request: Request,
    plan: Option<ChoicePlan>,
) -> Result<(Arc<Served>, Steps), BackendError> {
    let served = routed.ready().await?;
    let mut steps: Steps = match plan {
        Some(plan) => Box::pin(choices(&routed, request, plan).await?),
        None => {
            let events = routed.run(request).await?;
            Box::pin(events.map(|event| ChoiceEvent { index: 0, event }))
        }
    };
    let mut first = Vec::new();
    while let Some(step) = steps.next().await {
        match step.event {
            Ok(Event::Queued { .. }) => {}
            Err(error) if plan.is_none() => return Err(error),
            event => {
                first.push(ChoiceEvent { index: step.index, event });
                break;
            }
        }
    }
    Ok((served, Box::pin(stream::iter(first).chain(steps))))
}
