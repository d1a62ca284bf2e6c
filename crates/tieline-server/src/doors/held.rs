//! Places: what a request holds until its answer is sent, or its caller left.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use http_body::{Frame, SizeHint};

/// So many requests are at work.
#[derive(Clone, Debug, Default)]
pub(crate) struct Places(Arc<AtomicUsize>);

/// A place that is taken; dropped, it is free.
#[derive(Debug)]
pub(crate) struct Place(Arc<AtomicUsize>);

impl Places {
    /// Takes one of `most` places, where one is free.
    pub(crate) fn take(&self, most: usize) -> Option<Place> {
        let next = |taken: usize| (taken < most).then_some(taken + 1);
        let taken = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        taken.is_ok().then(|| Place(Arc::clone(&self.0)))
    }

    /// How many are taken.
    #[cfg(test)]
    pub(crate) fn taken(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A body, and what is held until it is sent whole or dropped.
#[derive(Debug)]
pub(crate) struct Held<T> {
    body: Body,
    held: T,
}

impl<T: Send + Unpin + 'static> Held<T> {
    /// Holds it as long as this body.
    pub(crate) fn wrap(body: Body, held: T) -> Body {
        Body::new(Self { body, held })
    }
}

impl<T: Unpin> http_body::Body for Held<T> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = self.get_mut();
        // Read, so that the field says what it is for.
        let _ = &this.held;
        Pin::new(&mut this.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_free_when_its_body_is_gone() {
        let places = Places::default();
        let body = Held::wrap(Body::empty(), places.take(1).unwrap());
        assert!(places.take(1).is_none());
        assert_eq!(places.taken(), 1);
        drop(body);
        assert!(places.take(1).is_some());
    }
}
