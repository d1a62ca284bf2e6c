//! Sees to it that each answer has an end.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;
use tieline_types::{BackendError, ChoiceEvent, ErrorKind, Event};

use crate::open::Steps;

/// The same steps; where they stop before each of `answers` had its end, an error comes last. Whoever writes them
/// can so take the end of the steps for the end of the answers.
pub(crate) fn ended(steps: Steps, answers: u32) -> Steps {
    Box::pin(Ended { steps, open: answers.max(1) })
}

struct Ended {
    steps: Steps,
    /// Answers that have no end yet.
    open: u32,
}

impl Stream for Ended {
    type Item = ChoiceEvent;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<ChoiceEvent>> {
        match self.steps.as_mut().poll_next(context) {
            Poll::Ready(Some(step)) => {
                if matches!(step.event, Ok(Event::Finished(_)) | Err(_)) {
                    self.open = self.open.saturating_sub(1);
                }
                Poll::Ready(Some(step))
            }
            Poll::Ready(None) if self.open > 0 => {
                self.open = 0;
                let error = BackendError::new(ErrorKind::Internal, "the answer broke off");
                Poll::Ready(Some(ChoiceEvent { index: 0, event: Err(error) }))
            }
            polled => polled,
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{StreamExt, stream};
    use tieline_types::{FinishReason, Finished, Piece, Timing, Usage};

    use super::*;

    fn finished() -> Event {
        Event::Finished(Box::new(Finished {
            reason: FinishReason::EndOfTurn,
            usage: Usage::default(),
            timing: Timing::default(),
            seed: 0,
            peak_memory: None,
            receipt: None,
        }))
    }

    #[track_caller]
    fn check(events: Vec<(u32, Event)>, answers: u32, broken: bool) {
        let sent = events.len();
        let steps =
            events.into_iter().map(|(index, event)| ChoiceEvent { index, event: Ok(event) });
        let steps = ended(Box::pin(stream::iter(steps.collect::<Vec<_>>())), answers);
        let come: Vec<_> = futures_util::FutureExt::now_or_never(steps.collect()).unwrap();
        assert_eq!(come.len(), sent + usize::from(broken));
        assert_eq!(come.last().is_some_and(|step: &ChoiceEvent| step.event.is_err()), broken);
    }

    #[test]
    fn an_answer_without_an_end_gets_an_error() {
        check(vec![], 1, true);
        check(vec![(0, Event::Piece(Piece::default()))], 1, true);
        check(vec![(0, finished())], 1, false);
        check(vec![(1, finished())], 2, true);
        check(vec![(1, finished()), (0, finished())], 2, false);
    }
}
