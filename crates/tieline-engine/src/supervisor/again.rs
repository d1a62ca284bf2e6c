//! What becomes of work whose runner died.
//!
//! Of what was at work nobody knows which killed it. So it goes to the next runner one by one, and all else waits until
//! something was heard of it: should that runner die too, it is known which was at work. What the runner that died had
//! not begun kills nobody, and follows.

use std::collections::HashMap;
use std::time::Duration;

use tieline_types::wire::Work;
use tieline_types::{BackendError, ErrorKind, Origin, RequestId, Retry};

use super::blame::Trace;
use super::carry;
use super::life::{Life, LifeEnd, Pending, Replies, Step};
use super::{Failed, Supervisor};

/// Runners that get the same work, where none of it was heard.
const TRIES: u32 = 3;

/// Accepted work of which its caller has seen nothing yet, for the next runner.
#[derive(Debug)]
pub(super) struct Again {
    pub(super) id: RequestId,
    pub(super) work: Work,
    pub(super) replies: Replies,
    pub(super) trace: Trace,
    /// The caller knows that it started.
    pub(super) started: bool,
    /// Runners that had it before.
    pub(super) tried: u32,
}

impl Life<'_> {
    /// Whether work that was at a runner's death is tried, or is to be.
    pub(super) fn is_trying(&self) -> bool {
        self.trial.is_some() || !self.supervisor.again.is_empty()
    }

    /// Hands over what waits, unless it waits for the trial of another.
    pub(super) async fn go_on(&mut self) -> Step {
        // What ends while it is handed over comes here again: the loop that hands over sees to the next, so that many
        // such are no deeper than one.
        if std::mem::replace(&mut self.going_on, true) {
            return Ok(());
        }
        self.hand_over_what_waits().await?;
        self.going_on = false;
        Ok(())
    }

    async fn hand_over_what_waits(&mut self) -> Step {
        let silent = |life: &Self, id| life.running.get(&id).is_some_and(|one| one.work.is_some());
        while !self.trial.is_some_and(|id| silent(self, id)) {
            self.trial = None;
            if !self.supervisor.again.is_empty() {
                let again = self.supervisor.again.remove(0);
                self.try_again(again).await?;
            } else if let Some(submission) = self.supervisor.waiting.pop_front() {
                // One by one: those that were not sent when the runner dies wait for the next.
                self.submit(submission).await?;
            } else {
                return Ok(());
            }
        }
        Ok(())
    }

    async fn try_again(&mut self, again: Again) -> Step {
        if again.replies.is_closed() {
            return self.count_work();
        }
        if self.supervisor.blame.refuses(again.trace, self.supervisor.now()) {
            // The same was tried meanwhile. Full or closed: the caller is not listening.
            let _ = again.replies.try_send(Err(killer()));
            return self.count_work();
        }
        self.begin(again).await
    }

    /// Takes on accepted work, new or not. What was at a runner's death is on trial.
    pub(super) async fn begin(&mut self, again: Again) -> Step {
        let Again { id, work, replies, trace, started, tried } = again;
        if self.supervisor.blame.suspects(trace, self.supervisor.now()) {
            self.trial = Some(id);
        }
        let pending = Pending {
            replies,
            adapters: carry::digests(&work),
            cancelled: false,
            trace,
            started,
            queued: false,
            tried,
            work: Some(Box::new(work.clone())),
        };
        self.running.insert(id, pending);
        self.hand_over(id, work).await
    }
}

/// What a runner had when it ended.
pub(super) struct Left {
    pub(super) running: HashMap<RequestId, Pending>,
    pub(super) trial: Option<RequestId>,
    /// What it never got.
    pub(super) unsent: Vec<RequestId>,
}

impl Left {
    /// Which may have killed it, each once.
    fn suspects(&self) -> Vec<Trace> {
        let sent = |id: &RequestId, one: &Pending| !self.unsent.contains(id) && !one.cancelled;
        let sent = || self.running.iter().filter(|(id, one)| sent(id, one));
        // What it was preparing had said nothing yet.
        let mut at_work: Vec<_> = sent().filter(|(_, one)| !one.queued).collect();
        if at_work.is_empty() {
            at_work = sent().collect();
        }
        if let Some(trial) = self.trial.filter(|id| at_work.iter().any(|(one, _)| *one == id)) {
            // What was heard had got further than it.
            at_work.retain(|(id, one)| **id == trial || one.work.is_some());
        }
        let mut traces = Vec::new();
        for (_, one) in at_work {
            if !traces.contains(&one.trace) {
                traces.push(one.trace);
            }
        }
        traces
    }
}

/// Leaves that of which nothing was heard for the next runner; the rest ends with an error.
pub(super) fn leave_behind(
    supervisor: &mut Supervisor,
    left: Left,
    end: &LifeEnd,
    failed: &Failed,
) {
    let died = matches!(end, LifeEnd::Died(_));
    let now = supervisor.now();
    if died {
        supervisor.blame.died(&left.suspects(), now);
    }
    for (id, pending) in left.running {
        let Pending { replies, cancelled, trace, started, queued, tried, work, .. } = pending;
        // A runner that had not begun with it is none that had it.
        let tried = tried + u32::from(!queued && !left.unsent.contains(&id));
        let error = match work {
            _ if died && supervisor.blame.refuses(trace, now) => killer(),
            Some(work) if died && !cancelled && tried < TRIES => {
                let again = Again { id, work: *work, replies, trace, started, tried };
                supervisor.again.push(again);
                continue;
            }
            _ => failed.error(),
        };
        // Full or closed: the caller is not listening.
        let _ = replies.try_send(Err(error));
    }
    supervisor.order_again(now);
}

impl Supervisor {
    /// Those that may have killed a runner first, and each kind in the order in which it came.
    fn order_again(&mut self, now: Duration) {
        let Self { again, blame, .. } = self;
        again.sort_by_key(|again| (!blame.suspects(again.trace, now), again.id));
    }
}

/// The refusal of a request that was at work when too many runners died.
pub(super) fn killer() -> BackendError {
    let text = "two runners died at this request, and it is not tried again";
    let mut error = BackendError::new(ErrorKind::Crashed, text)
        .with_hint("change the request, or try another model");
    error.origin = Origin::Caller;
    error.retry = Retry::No;
    error
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::super::blame::Blame;
    use super::*;

    /// What is known of some work.
    type Known = fn(&mut Pending);

    /// What a runner had: the names of the work, with what is known of each.
    fn left(works: &[(&str, Known)]) -> (Left, Blame) {
        let blame = Blame::default();
        let one = |(at, (name, change)): (usize, &(&str, Known))| {
            let work = tokenize(name);
            let mut pending = Pending {
                replies: mpsc::channel(1).0,
                adapters: Vec::new(),
                cancelled: false,
                trace: blame.trace(&work),
                started: true,
                queued: false,
                tried: 0,
                work: Some(Box::new(work)),
            };
            change(&mut pending);
            (RequestId(at as u64), pending)
        };
        let running = works.iter().enumerate().map(one).collect();
        (Left { running, trial: None, unsent: Vec::new() }, blame)
    }

    fn tokenize(text: &str) -> Work {
        Work::Tokenize { text: text.into(), add_special: false, parse_special: false }
    }

    #[track_caller]
    fn check(left: &Left, blame: &Blame, want: &[&str]) {
        let suspects = left.suspects();
        let want: Vec<Trace> = want.iter().map(|name| blame.trace(&tokenize(name))).collect();
        assert_eq!(suspects.len(), want.len(), "{suspects:?}");
        assert!(want.iter().all(|trace| suspects.contains(trace)), "{suspects:?}, not {want:?}");
    }

    const SILENT: Known = |_| {};
    const HEARD: Known = |one| one.work = None;
    const QUEUED: Known = |one| one.queued = true;
    const CANCELLED: Known = |one| one.cancelled = true;

    #[test]
    fn what_was_not_begun_is_no_suspect() {
        let works = [("a", SILENT), ("b", QUEUED), ("c", CANCELLED), ("d", SILENT), ("e", HEARD)];
        let (mut left, blame) = left(&works);
        left.unsent = vec![RequestId(3)];
        check(&left, &blame, &["a", "e"]);
    }

    #[test]
    fn where_nothing_was_begun_all_that_was_sent_is_suspect() {
        let (left, blame) = left(&[("a", QUEUED), ("b", QUEUED)]);
        check(&left, &blame, &["a", "b"]);
    }

    #[test]
    fn the_one_that_is_tried_is_the_suspect_and_what_is_as_silent() {
        let (mut left, blame) = left(&[("a", HEARD), ("b", SILENT), ("c", SILENT), ("d", QUEUED)]);
        left.trial = Some(RequestId(1));
        check(&left, &blame, &["b", "c"]);
        left.running.remove(&RequestId(2));
        check(&left, &blame, &["b"]);
    }

    #[test]
    fn the_same_asked_twice_is_one_suspect() {
        let (left, blame) = left(&[("a", SILENT), ("a", SILENT)]);
        check(&left, &blame, &["a"]);
    }
}
