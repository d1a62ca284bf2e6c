//! A hedge on the first token: where the first candidate is slow to begin, the second one is started too, and
//! whoever begins first answers. The other is cancelled and reported as having lost.

use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{Either, select};
use tieline_types::BackendError;

use super::attempt::{Ended, Mark};
use super::opening::Opened;

/// When to hedge.
#[derive(Clone)]
pub struct Hedge {
    /// How long the first candidate is waited for alone: for example, the time within which 95 of 100 of its
    /// answers begin.
    pub after: Duration,
    /// Whether the second answer may be paid for: asked once, at that time. It only says so and reserves nothing:
    /// the second candidate's circuit may still be open.
    pub may_spend: Arc<dyn Fn() -> bool + Send + Sync>,
}

impl fmt::Debug for Hedge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hedge").field("after", &self.after).finish_non_exhaustive()
    }
}

/// How a race ended.
pub(super) enum Raced {
    /// One began to answer.
    Won(Opened),
    /// Who ran refused, each by its index and in the order of the refusals.
    Lost(Vec<(usize, BackendError)>),
}

/// Runs `first`, and after a while `second` beside it, where `admit` lets it.
pub(super) async fn race<A, B>(
    first: A,
    second: B,
    (hedge, admit): (&Hedge, &(dyn Fn() -> bool + Sync)),
    marks: &[Mark; 2],
) -> Raced
where
    A: Future<Output = Result<Opened, BackendError>> + Send,
    B: Future<Output = Result<Opened, BackendError>> + Send,
{
    let mut first = Box::pin(first);
    let early = match select(first.as_mut(), pin!(tokio::time::sleep(hedge.after))).await {
        Either::Left((result, _)) => Some(result),
        // Whether it may be paid for is asked first: an admitted attempt must be made.
        Either::Right(_) if (hedge.may_spend)() && admit() => None,
        Either::Right(_) => Some(first.as_mut().await),
    };
    if let Some(result) = early {
        return result.map_or_else(|error| Raced::Lost(vec![(0, error)]), Raced::Won);
    }
    let mut second = Box::pin(second);
    // The second one is polled first: it was admitted, so it must begin, whatever the first one does meanwhile.
    match select(second.as_mut(), first.as_mut()).await {
        Either::Right((Ok(opened), _)) => {
            // Dropped at the end of this function, which cancels it.
            let _ = marks[1].set(Ended::HedgeLost);
            Raced::Won(opened)
        }
        Either::Left((Ok(opened), _)) => {
            let _ = marks[0].set(Ended::HedgeLost);
            Raced::Won(opened)
        }
        Either::Right((Err(error), _)) => join((0, error), 1, second.await),
        Either::Left((Err(error), _)) => join((1, error), 0, first.await),
    }
}

/// One refused; the other one decides.
fn join(
    refused: (usize, BackendError),
    index: usize,
    other: Result<Opened, BackendError>,
) -> Raced {
    match other {
        Ok(opened) => Raced::Won(opened),
        Err(error) => Raced::Lost(vec![refused, (index, error)]),
    }
}
