//! A hedge on the first token: where the first candidate is slow to begin, the second one is started too, and
//! whoever begins first answers. The other is cancelled and reported as having lost.

use std::fmt;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{Either, select};
use tieline_types::BackendError;

use super::attempt::{Candidate, Ended, Mark};
use super::opening::Opened;

/// Whether the second answer may be paid for. What it reserves is given back where the second one is not asked.
pub type MayPay = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = bool> + Send>> + Send + Sync>;

/// When to hedge, and with whom.
#[derive(Clone)]
pub struct Hedge {
    /// How long the first candidate is waited for alone: for example, the time within which 95 of 100 of its
    /// answers begin.
    pub after: Duration,
    /// Who is asked then. It is the second candidate too, which is asked after the first one failed: but there
    /// with money of its own.
    pub second: Candidate,
    /// Asked once, at that time.
    pub may_pay: MayPay,
    /// Called once it is known whether the second one was asked beside the first: in time, or why not.
    pub told: Arc<dyn Fn(Hedged) + Send + Sync>,
}

impl fmt::Debug for Hedge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { after, second, .. } = self;
        f.debug_struct("Hedge")
            .field("after", after)
            .field("second", second)
            .finish_non_exhaustive()
    }
}

/// What became of the hedge of a request whose first candidate was slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Hedged {
    /// The second one was asked.
    Asked,
    /// There was no money left for it.
    NoMoney,
    /// Its circuit was open.
    BreakerOpen,
}

/// How a race ended.
pub(super) enum Raced {
    /// One began to answer.
    Won(Opened),
    /// Who ran refused, each by its index and in the order of the refusals.
    Lost(Vec<(usize, BackendError)>),
}

/// Runs `first`, and `second` beside it after a while, which says `None` where it was not asked after all.
pub(super) async fn race<A, B>(first: A, second: B, after: Duration, marks: &[Mark; 2]) -> Raced
where
    A: Future<Output = Result<Opened, BackendError>> + Send,
    B: Future<Output = Option<Result<Opened, BackendError>>> + Send,
{
    let mut first = Box::pin(first);
    if let Either::Left((result, _)) = select(first.as_mut(), pin!(tokio::time::sleep(after))).await
    {
        return alone(result);
    }
    let mut second = Box::pin(second);
    // The second one is polled first: once admitted it must begin, whatever the first one does meanwhile.
    match select(second.as_mut(), first.as_mut()).await {
        Either::Right((Ok(opened), _)) => {
            // Dropped at the end of this function, which cancels it.
            let _ = marks[1].set(Ended::HedgeLost);
            Raced::Won(opened)
        }
        Either::Left((Some(Ok(opened)), _)) => {
            let _ = marks[0].set(Ended::HedgeLost);
            Raced::Won(opened)
        }
        Either::Left((None, _)) => alone(first.await),
        Either::Right((Err(error), _)) => match second.await {
            Some(other) => join((0, error), 1, other),
            None => Raced::Lost(vec![(0, error)]),
        },
        Either::Left((Some(Err(error)), _)) => join((1, error), 0, first.await),
    }
}

fn alone(result: Result<Opened, BackendError>) -> Raced {
    result.map_or_else(|error| Raced::Lost(vec![(0, error)]), Raced::Won)
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
