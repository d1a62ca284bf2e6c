//! Which work runs, which waits, and which must stop.
//!
//! The reader thread cancels while the main thread computes. llama.cpp polls one flag, so this keeps
//! that flag true exactly while the running work is cancelled or the program is closing.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tieline_types::RequestId;

/// Shared by the reader and the main thread.
#[derive(Debug, Default)]
pub(crate) struct Control {
    abort: Arc<AtomicBool>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    running: Option<RequestId>,
    waiting: HashSet<RequestId>,
    cancelled: HashSet<RequestId>,
    closing: bool,
}

impl Control {
    /// The flag that llama.cpp polls.
    pub(crate) fn abort_flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.abort)
    }

    /// Whether the running work must stop.
    pub(crate) fn is_aborted(&self) -> bool {
        self.abort.load(Ordering::Relaxed)
    }

    /// `id` waits for its turn.
    pub(crate) fn enqueue(&self, id: RequestId) {
        self.lock().waiting.insert(id);
    }

    /// `id` found no place in the queue.
    pub(crate) fn withdraw(&self, id: RequestId) {
        self.lock().waiting.remove(&id);
    }

    /// `id` runs now. The flag is true at once if it was cancelled while it waited.
    pub(crate) fn begin(&self, id: RequestId) {
        let mut state = self.lock();
        state.waiting.remove(&id);
        state.running = Some(id);
        let stop = state.cancelled.remove(&id) || state.closing;
        self.abort.store(stop, Ordering::Relaxed);
    }

    /// The running work ended.
    pub(crate) fn end(&self) {
        let mut state = self.lock();
        state.running = None;
        self.abort.store(state.closing, Ordering::Relaxed);
    }

    /// Stops `id`, running or waiting. Work that already ended is none of our business.
    pub(crate) fn cancel(&self, id: RequestId) {
        let mut state = self.lock();
        if state.running == Some(id) {
            self.abort.store(true, Ordering::Relaxed);
        } else if state.waiting.contains(&id) {
            state.cancelled.insert(id);
        }
    }

    /// Stops all work, for good.
    pub(crate) fn close(&self) {
        self.lock().closing = true;
        self.abort.store(true, Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code panics while it holds this lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: RequestId = RequestId(1);
    const B: RequestId = RequestId(2);

    #[test]
    fn cancelling_the_running_work_stops_it_only() {
        let control = Control::default();
        control.enqueue(A);
        control.enqueue(B);
        control.begin(A);
        control.cancel(A);
        assert!(control.is_aborted());
        control.end();
        control.begin(B);
        assert!(!control.is_aborted());
    }

    #[test]
    fn work_cancelled_while_waiting_stops_when_it_begins() {
        let control = Control::default();
        control.enqueue(A);
        control.enqueue(B);
        control.begin(A);
        control.cancel(B);
        assert!(!control.is_aborted());
        control.end();
        control.begin(B);
        assert!(control.is_aborted());
    }

    #[test]
    fn cancelling_what_ended_leaves_no_trace() {
        let control = Control::default();
        control.enqueue(A);
        control.begin(A);
        control.end();
        control.cancel(A);
        assert!(control.lock().cancelled.is_empty());
    }

    #[test]
    fn closing_outlasts_the_running_work() {
        let control = Control::default();
        control.enqueue(A);
        control.begin(A);
        control.close();
        control.end();
        assert!(control.is_aborted());
    }
}
