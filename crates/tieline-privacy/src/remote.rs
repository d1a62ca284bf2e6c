//! The border to a vendor or another host.

use std::fmt;

use async_trait::async_trait;
use tieline_types::{BackendError, EventStream, Zone};

use crate::outbound::Outbound;

/// Somebody else's model. Sees nothing but what was released.
#[async_trait]
pub trait Remote: fmt::Debug + Send + Sync {
    /// The backend's name in logs and decisions: `vendor/model`.
    fn name(&self) -> &str;

    /// How far a request travels.
    fn zone(&self) -> Zone;

    /// Sends it. As [`tieline_types::Backend::run`]: `Ok` means that the vendor accepted, dropping the stream
    /// cancels, and the stream ends with exactly one `Finished` or one `Err`.
    ///
    /// # Errors
    /// The vendor refused, could not be reached, or cannot express the request.
    async fn send(&self, outbound: Outbound) -> Result<EventStream, BackendError>;
}
