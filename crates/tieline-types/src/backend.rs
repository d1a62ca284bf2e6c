//! Everything that can answer a request.

use std::fmt;
use std::pin::Pin;

use async_trait::async_trait;
use futures_core::Stream;

use crate::{BackendError, Event, Request, Zone};

/// What a backend answers with, in order: any number of [`Event::Queued`], [`Event::Started`], any number
/// of [`Event::PromptLogprobs`] where they were asked for, any number of pieces or, of texts, of
/// [`Event::Vectors`] or one of [`Event::Scores`], then exactly one [`Event::Finished`] or one `Err`. Nothing
/// follows these. A request that ends while it is queued never starts.
pub type EventStream = Pin<Box<dyn Stream<Item = Result<Event, BackendError>> + Send>>;

/// Something that answers requests: a local model, another host, a vendor.
#[async_trait]
pub trait Backend: fmt::Debug + Send + Sync {
    /// The backend's name in logs and decisions.
    fn name(&self) -> &str;

    /// How far a request travels.
    fn zone(&self) -> Zone;

    /// Starts to answer `request`.
    ///
    /// `Ok` means accepted. Dropping the stream cancels the work.
    ///
    /// # Errors
    /// A refusal, at once: the request is invalid, or the backend cannot take it now.
    async fn run(&self, request: Request) -> Result<EventStream, BackendError>;
}
