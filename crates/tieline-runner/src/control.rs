//! Which work is known, which computes now, and which must stop.
//!
//! The reader thread cancels while the main thread computes. llama.cpp polls one flag; this keeps it true
//! while everything in the running step is cancelled, or the program is closing. A step in which somebody
//! still waits for an answer runs to its end.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tieline_types::RequestId;

/// Shared by the reader and the main thread.
#[derive(Debug, Default)]
pub(crate) struct Control {
    abort: Arc<AtomicBool>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    known: HashSet<RequestId>,
    cancelled: HashSet<RequestId>,
    step: Vec<RequestId>,
    steps: u64,
    /// What goes on that is no step.
    reading: u32,
    /// The model is being loaded.
    loading: bool,
    /// Until when what is worth keeping is kept, once the program is to end.
    closing: Option<Instant>,
}

impl State {
    fn must_stop(&self) -> bool {
        let cancelled = self.step.iter().all(|id| self.cancelled.contains(id));
        self.closing.is_some() || (cancelled && !self.step.is_empty())
    }
}

impl Control {
    /// The flag that llama.cpp polls.
    pub(crate) fn abort_flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.abort)
    }

    /// Whether the running step must stop.
    pub(crate) fn is_aborted(&self) -> bool {
        self.abort.load(Ordering::Relaxed)
    }

    /// Whether the program is to end.
    pub(crate) fn is_closing(&self) -> bool {
        self.lock().closing.is_some()
    }

    /// Until when what is worth keeping is kept: told by whoever ended the program, or now.
    pub(crate) fn closes_at(&self) -> Instant {
        self.lock().closing.unwrap_or_else(Instant::now)
    }

    /// `id` came.
    pub(crate) fn enqueue(&self, id: RequestId) {
        self.lock().known.insert(id);
    }

    /// `id` ended, or found no place in the queue.
    pub(crate) fn end(&self, id: RequestId) {
        let mut state = self.lock();
        state.known.remove(&id);
        state.cancelled.remove(&id);
    }

    /// Whether somebody stopped `id`.
    pub(crate) fn is_cancelled(&self, id: RequestId) -> bool {
        let state = self.lock();
        state.closing.is_some() || state.cancelled.contains(&id)
    }

    /// A step computes for these now. The flag is true at once if nobody wants it any more.
    pub(crate) fn begin_step(&self, ids: Vec<RequestId>) {
        let mut state = self.lock();
        state.step = ids;
        state.steps += 1;
        self.abort.store(state.must_stop(), Ordering::Relaxed);
    }

    /// Whether a step computes or something else goes on, and how many there were with it.
    pub(crate) fn steps(&self) -> (bool, u64) {
        let state = self.lock();
        (state.reading > 0 || !state.step.is_empty(), state.steps)
    }

    /// Something goes on now that is no step: an order is read, a prompt prepared, a prefix fetched. Should it stand
    /// still, the engine sees it as it sees a step. Until what this returns is dropped.
    pub(crate) fn read(&self) -> Reading<'_> {
        let mut state = self.lock();
        state.reading += 1;
        state.steps += 1;
        Reading(self)
    }

    /// As [`read`](Self::read): the model is loaded now.
    pub(crate) fn load(&self) -> Reading<'_> {
        self.lock().loading = true;
        self.read()
    }

    /// Whether the model is being loaded.
    pub(crate) fn is_loading(&self) -> bool {
        self.lock().loading
    }

    /// What goes on gets on.
    pub(crate) fn gets_on(&self) {
        self.lock().steps += 1;
    }

    /// The step ended.
    pub(crate) fn end_step(&self) {
        let mut state = self.lock();
        state.step.clear();
        self.abort.store(state.must_stop(), Ordering::Relaxed);
    }

    /// Stops `id`, at work or waiting. Work that already ended is none of our business.
    pub(crate) fn cancel(&self, id: RequestId) {
        let mut state = self.lock();
        if state.known.contains(&id) {
            state.cancelled.insert(id);
            self.abort.store(state.must_stop(), Ordering::Relaxed);
        }
    }

    /// Stops all work, for good. What is worth keeping is kept until `end`.
    pub(crate) fn close(&self, end: Instant) {
        self.lock().closing = Some(end);
        self.abort.store(true, Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code panics while it holds this lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Something that goes on until this is dropped.
#[derive(Debug)]
pub(crate) struct Reading<'c>(&'c Control);

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.reading -= 1;
        // A model is loaded once, and all else that goes on comes after.
        state.loading = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: RequestId = RequestId(1);
    const B: RequestId = RequestId(2);

    fn both_known() -> Control {
        let control = Control::default();
        control.enqueue(A);
        control.enqueue(B);
        control
    }

    #[test]
    fn a_step_stops_when_nobody_wants_it() {
        let control = both_known();
        control.begin_step(vec![A, B]);
        control.cancel(A);
        assert!(!control.is_aborted());
        control.cancel(B);
        assert!(control.is_aborted());
        control.end_step();
        assert!(!control.is_aborted());
        assert!(control.is_cancelled(A) && control.is_cancelled(B));
    }

    #[test]
    fn a_step_is_seen_while_it_lasts() {
        let control = both_known();
        assert_eq!(control.steps(), (false, 0));
        control.begin_step(vec![A]);
        assert_eq!(control.steps(), (true, 1));
        control.end_step();
        assert_eq!(control.steps(), (false, 1));
    }

    #[test]
    fn what_is_no_step_is_seen_as_a_step_is() {
        let control = both_known();
        let loading = control.load();
        assert_eq!((control.steps(), control.is_loading()), ((true, 1), true));
        control.gets_on();
        assert_eq!(control.steps(), (true, 2));
        drop(loading);
        assert_eq!((control.steps(), control.is_loading()), ((false, 2), false));
        let (outer, inner) = (control.read(), control.read());
        drop(inner);
        // Nobody's work is stopped by it, and none stops it.
        control.cancel(A);
        assert!(!control.is_aborted());
        assert_eq!(control.steps(), (true, 4));
        drop(outer);
        assert_eq!(control.steps(), (false, 4));
    }

    #[test]
    fn work_cancelled_while_waiting_stops_when_it_begins() {
        let control = both_known();
        control.begin_step(vec![A]);
        control.cancel(B);
        assert!(!control.is_aborted());
        control.end_step();
        control.begin_step(vec![B]);
        assert!(control.is_aborted());
    }

    #[test]
    fn cancelling_what_ended_leaves_no_trace() {
        let control = both_known();
        control.end(A);
        control.cancel(A);
        assert!(!control.is_cancelled(A));
        control.enqueue(A);
        control.begin_step(vec![A]);
        assert!(!control.is_aborted());
    }

    #[test]
    fn closing_stops_everything_for_good() {
        let control = both_known();
        control.begin_step(vec![A]);
        let end = Instant::now();
        control.close(end);
        assert_eq!(control.closes_at(), end);
        assert!(control.is_aborted());
        control.end_step();
        assert!(control.is_aborted() && control.is_cancelled(B));
    }
}
