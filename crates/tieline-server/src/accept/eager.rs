//! A task that goes on at once where it woke itself.
//!
//! A connection and the handler of its request are one task, and they wake each other: for the request's body, for
//! each part of an answer. A runtime takes such a task for one that lets others go first, and wakes another thread to
//! help; that thread finds nothing to do, and costs more than the wake was worth.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::task::AtomicWaker;

/// So often a task goes on by itself; then others have their turn.
const MOST_TURNS: u32 = 8;

/// Wakes the task, unless it is awake.
#[derive(Debug, Default)]
struct Bell {
    task: AtomicWaker,
    awake: AtomicBool,
    rung: AtomicBool,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // In the other order than the task falls asleep: one of both sees what the other did.
        self.rung.store(true, Ordering::SeqCst);
        if !self.awake.load(Ordering::SeqCst) {
            self.task.wake();
        }
    }
}

/// A future that is polled again at once where it was woken while it was polled.
#[derive(Debug)]
pub(crate) struct Eager<F> {
    work: Pin<Box<F>>,
    bell: Arc<Bell>,
    waker: Waker,
}

impl<F: Future> Eager<F> {
    pub(crate) fn new(work: F) -> Self {
        let bell = Arc::new(Bell::default());
        let waker = Waker::from(Arc::clone(&bell));
        Self { work: Box::pin(work), bell, waker }
    }
}

impl<F: Future> Future for Eager<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let Self { work, bell, waker } = &mut *self;
        bell.task.register(context.waker());
        for _ in 0..MOST_TURNS {
            bell.awake.store(true, Ordering::SeqCst);
            bell.rung.store(false, Ordering::SeqCst);
            let polled = work.as_mut().poll(&mut Context::from_waker(waker));
            bell.awake.store(false, Ordering::SeqCst);
            if polled.is_ready() || !bell.rung.swap(false, Ordering::SeqCst) {
                return polled;
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::atomic::AtomicU32;

    use super::*;

    /// Counts how often it is woken.
    #[derive(Default)]
    struct Count(AtomicU32);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Polls what wakes itself so often and is then done or waits: the polls of one turn, and the wakes.
    #[track_caller]
    fn check(wakes: u32, done: bool, want: (bool, u32, u32)) {
        let mut polls = 0;
        let work = poll_fn(|context| {
            polls += 1;
            if polls <= wakes {
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            if done { Poll::Ready(()) } else { Poll::Pending }
        });
        let count = Arc::new(Count::default());
        let waker = Waker::from(Arc::clone(&count));
        let mut eager = Eager::new(work);
        let polled = Pin::new(&mut eager).poll(&mut Context::from_waker(&waker));
        drop(eager);
        assert_eq!((polled.is_ready(), polls, count.0.load(Ordering::SeqCst)), want);
    }

    #[test]
    fn what_wakes_itself_goes_on_without_the_runtime() {
        check(0, true, (true, 1, 0));
        check(0, false, (false, 1, 0));
        check(2, true, (true, 3, 0));
        check(2, false, (false, 3, 0));
    }

    #[test]
    fn what_never_sleeps_lets_others_go_on() {
        check(u32::MAX, true, (false, MOST_TURNS, 1));
    }

    #[test]
    fn who_wakes_it_in_its_sleep_wakes_the_task() {
        let mut inner = None;
        let mut eager = Eager::new(poll_fn(|context| {
            inner = Some(context.waker().clone());
            Poll::<()>::Pending
        }));
        let count = Arc::new(Count::default());
        let waker = Waker::from(Arc::clone(&count));
        assert!(Pin::new(&mut eager).poll(&mut Context::from_waker(&waker)).is_pending());
        drop(eager);
        inner.unwrap().wake();
        assert_eq!(count.0.load(Ordering::SeqCst), 1);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn no_wake_of_another_thread_is_lost() {
        let (sender, mut receiver) = tokio::sync::mpsc::channel(1);
        let reads = Eager::new(async move {
            let mut sum = 0u32;
            while let Some(number) = receiver.recv().await {
                sum += number;
            }
            sum
        });
        let tasks = tokio_util::task::TaskTracker::new();
        let read = tasks.spawn(reads);
        for _ in 0..20_000 {
            sender.send(1).await.unwrap();
        }
        drop(sender);
        assert_eq!(read.await.unwrap(), 20_000);
    }
}
